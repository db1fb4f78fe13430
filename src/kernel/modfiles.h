/*
 * The files of modules (NAME.ko) on this host, for their debug information.  Main thread.
 */
#ifndef ARMLET_KERNEL_MODFILES_H
#define ARMLET_KERNEL_MODFILES_H

#include <glib.h>
#include <stdbool.h>

struct debuginfo;
struct modfiles;

struct modfiles *modfiles_new(void);
void modfiles_free(struct modfiles *f);
/* Looks in the folder, when asked for the first name afterwards; deep: and in all below it.  Earlier folders go first. */
void modfiles_add(struct modfiles *f, const char *folder, bool deep);
/* The module's file; "-" and "_" are the same, as for modprobe.  NULL: none.  Owned by f. */
const char *modfiles_path(struct modfiles *f, const char *module);
/* Its debug information; owned by f. */
struct debuginfo *modfiles_debuginfo(struct modfiles *f, const char *module);

#endif
