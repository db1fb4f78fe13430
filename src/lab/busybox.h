/*
 * busybox from source.
 */
#ifndef ARMLET_LAB_BUSYBOX_H
#define ARMLET_LAB_BUSYBOX_H

#include <glib.h>

/* The path of a static arm64 busybox that was built from Debian's source, once; g_free() it. */
char *lab_busybox_build(GError **err);

#endif
