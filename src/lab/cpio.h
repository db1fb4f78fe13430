/*
 * A cpio archive in the "newc" format that Linux unpacks as its initial file system.
 */
#ifndef ARMLET_LAB_CPIO_H
#define ARMLET_LAB_CPIO_H

#include <stddef.h>
#include <stdint.h>

#include <glib.h>

struct cpio {
    GHashTable *entries; /* path without leading slash -> struct cpio_entry */
};

void cpio_init(struct cpio *c);
void cpio_clear(struct cpio *c);

/*
 * Add an entry, owned by root, with time 0.  `path' may begin with a slash; folders above it are added as
 * needed; an entry of the same path is replaced.  `mode' is permission bits only.
 */
void cpio_add_folder(struct cpio *c, const char *path, unsigned mode);
void cpio_add_file(struct cpio *c, const char *path, unsigned mode, const void *data, size_t size);
void cpio_add_link(struct cpio *c, const char *path, const char *target);
void cpio_add_char_device(struct cpio *c, const char *path, unsigned mode, unsigned major, unsigned minor);

/*
 * An entry with the kind, mode, owner and device of `st'; data are a file's contents or a link's target.
 */
struct stat;
void cpio_add(struct cpio *c, const char *path, const struct stat *st, const void *data, size_t size);

/* The archive, in order of paths, so that equal contents give equal bytes. */
GByteArray *cpio_build(const struct cpio *c);

#endif
