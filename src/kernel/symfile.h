/*
 * Symbols from a file: the table of an ELF file (vmlinux) or a System.map, at the addresses that it gives.
 */
#ifndef ARMLET_KERNEL_SYMFILE_H
#define ARMLET_KERNEL_SYMFILE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernel/kernel.h"

struct symfile;

struct symfile *symfile_open(const char *path, GError **err);
void symfile_free(struct symfile *f);
/* 0: there is none. */
uint64_t symfile_find(const struct symfile *f, const char *name);
/* "file.c:123" of the code at va by the file's debug information, to be freed; NULL: it has none for that. */
char *symfile_line(struct symfile *f, uint64_t va);
bool symfile_at(const struct symfile *f, uint64_t va, struct kernel_symbol *sym);

#endif
