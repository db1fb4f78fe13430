/*
 * make on a kernel's source, with Debian's cross compiler.
 */
#ifndef ARMLET_LAB_MAKE_H
#define ARMLET_LAB_MAKE_H

#include <stdbool.h>

#include <glib.h>

/* A program, and the Debian package that has it. */
struct make_program {
    const char *name, *package; /* NULL ends a list */
};

/* Are they there, for `what' ("building a kernel")?  What is missing is installed, which is said on stderr. */
bool make_need(const char *what, const struct make_program *programs, GError **err);

/* Are the programs there that a build needs?  Missing Debian packages are installed, which is said on stderr. */
bool make_check_tools(GError **err);

/* What the cross compiler says of itself; g_free() it. */
char *make_compiler_version(GError **err);

/* Can this source be built with these compilers?  false: err names the one that cannot. */
bool make_check_compiler(const char *source, GError **err);

/* Runs make on the source into `out', with `words' behind; `expect': lines of progress, 0 for none. */
bool make_run(const char *source, const char *out, const char *words, unsigned expect, GError **err);

/* The same for another source that is built like the kernel; `what' as progress shows it. */
bool make_run_as(const char *what, const char *source, const char *out, const char *words, unsigned expect,
                 GError **err);

/* Is every option of the fragment as it was asked for?  Kconfig drops silently what lacks a dependency. */
bool make_check_config(const char *fragment, const char *out, GError **err);

#endif
