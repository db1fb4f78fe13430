/*
 * The applets that a busybox binary has, and where they belong.
 */
#ifndef ARMLET_LAB_APPLETS_H
#define ARMLET_LAB_APPLETS_H

#include <glib.h>

/*
 * The applets' names, read out of the binary (it is for another processor and cannot be asked), ending in
 * NULL; g_strfreev() it.  NULL if the bytes are no busybox.
 */
char **applets_find(const void *data, gsize size);

/* The folder an applet's link goes into, "bin" for one that we do not know. */
const char *applets_folder(const char *name);

#endif
