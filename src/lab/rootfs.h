/*
 * Root file systems as directories of the host, in the user's data folder ($XDG_DATA_HOME/armlet/root).
 */
#ifndef ARMLET_LAB_ROOTFS_H
#define ARMLET_LAB_ROOTFS_H

#include <glib.h>

/* A root of busybox, made if it is not there; what the user changed in it stays.  g_free() it; NULL: err says why. */
char *lab_rootfs_busybox(GError **err);

/* Where the root of that name is or would be; g_free() it. */
char *rootfs_data_path(const char *name);

#endif
