/*
 * Debug information (DWARF) of a vmlinux and of modules, by elfutils: source lines, and where a structure's members are.
 * Built without elfutils all answers are "none".  Main thread.
 */
#ifndef ARMLET_KERNEL_DEBUGINFO_H
#define ARMLET_KERNEL_DEBUGINFO_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernel/btf.h"

struct debuginfo;

/* Of the file, which is opened when first asked about; path is copied. */
struct debuginfo *debuginfo_new(const char *path);
void debuginfo_free(struct debuginfo *d);
/* "file.c:123" of the code at va as linked, to be freed; NULL: none is known. */
char *debuginfo_line(struct debuginfo *d, uint64_t va);
/* Likewise of a module, a relocatable file, at an offset in one of its sections. */
char *debuginfo_section_line(struct debuginfo *d, const char *section, uint64_t off);

/* Does it describe types at all?  Then as btf_find_field() and btf_sizeof(). */
bool debuginfo_has_types(struct debuginfo *d);
struct btf_field debuginfo_field(struct debuginfo *d, const char *type, const char *path);
uint32_t debuginfo_sizeof(struct debuginfo *d, const char *type);

#endif
