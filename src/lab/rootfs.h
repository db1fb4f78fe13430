/*
 * Root file systems as directories of the host, in the user's data folder ($XDG_DATA_HOME/armlet/root).
 */
#ifndef ARMLET_LAB_ROOTFS_H
#define ARMLET_LAB_ROOTFS_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lab/lab.h"

/* A root of busybox, made if it is not there; what the user changed in it stays.  g_free() it; NULL: err says why. */
char *lab_rootfs_busybox(GError **err);

/* Where the root of that name is or would be; NULL: the folder of them all.  g_free() it. */
char *rootfs_data_path(const char *name);

/* Puts a busybox root into the folder `top', which will have the name `final'. */
bool rootfs_fill(const char *top, const char *final, bool from_source, GError **err);

enum lab_root_format { LAB_ROOT_DIR, LAB_ROOT_INITRAMFS, LAB_ROOT_EXT4 };

struct lab_root {
    const char *path;                /* what is made; must not exist, but for a file when `replace' */
    enum lab_root_format format;
    char *const *overlays;           /* folders whose contents are put on top, in order; ends in NULL; or NULL */
    const struct lab_kernel *kernel; /* whose modules and headers; NULL: none */
    bool modules, headers;
    bool from_source;                /* busybox is built, not fetched */
    uint64_t size;                   /* of an ext4 image, bytes; 0: what it needs and 64 MiB */
    bool replace;
};

/* Puts what is asked for (modules, headers, overlays) on top of a root that is in the folder `tree'. */
bool rootfs_add(const struct lab_root *what, const char *tree, GError **err);
/*
 * The tree as an initramfs at `path', with an /init if it has none, and /dev/console and /dev/null.  real: owners and devices are the
 * host's; else what a guest sees of it by a mapped export (nfs_mapped_get()).
 */
bool rootfs_archive(const char *tree, const char *path, bool real, GError **err);
/* What the tree takes, in bytes. */
bool rootfs_measure(const char *tree, uint64_t *size, GError **err);
/* May what->path be made? */
bool rootfs_check_target(const struct lab_root *what, GError **err);

/* Makes a root file system of busybox; nothing or all of it is there afterwards. */
bool lab_rootfs_make(const struct lab_root *what, GError **err);

#endif
