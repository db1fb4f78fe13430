/*
 * What a kernel was configured with, and what it lacks for a purpose.
 */
#ifndef ARMLET_LAB_KCONFIG_H
#define ARMLET_LAB_KCONFIG_H

#include <stdbool.h>

#include <glib.h>

/*
 * The configuration of the kernel in the file `path', whose unpacked bytes are `image': the one in the image
 * itself (IKCONFIG), or that beside it (config, config-RELEASE beside vmlinuz-RELEASE, .config of the tree
 * that it was built in).  NULL: not to be found.  g_free() it.
 */
char *kconfig_find(const char *path, GBytes *image);

/* Is NAME (without CONFIG_) on, or a module if that counts? */
bool kconfig_has(const char *config, const char *name, bool module_counts);

/*
 * The lines "CONFIG_NAME=y" of those `names' (ending in NULL) that are not on, with spaces between; NULL:
 * none is missing.
 */
char *kconfig_missing(const char *config, const char *const *names);

/* What to say behind them. */
#define KCONFIG_ADVICE "(lines for FILE of armlet kernel build --source TREE --fragment FILE)"

#endif
