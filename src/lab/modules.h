/*
 * Kernel modules of a packaged kernel: where they are and what they need.
 */
#ifndef ARMLET_LAB_MODULES_H
#define ARMLET_LAB_MODULES_H

#include <stdbool.h>

#include <glib.h>

struct module {
    char *name;   /* with underscores */
    GBytes *elf;  /* the module, decompressed */
};

/*
 * The modules `names' (ending in NULL) of lib/modules/RELEASE at `folder' and all they depend on, in the
 * order to load them: struct module *, owned by the array.  What is built into the kernel is left out; NULL
 * if one does not exist.
 */
GPtrArray *modules_resolve(const char *folder, const char *const *names, GError **err);

/*
 * The value of `key' in the .modinfo section of an ELF file, or NULL; owned by `elf'.  Any bytes are safe to
 * give.
 */
const char *modules_info(GBytes *elf, const char *key);

#endif
