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
struct debuginfo;

struct symfile *symfile_open(const char *path, GError **err);
void symfile_free(struct symfile *f);
/* 0: there is none. */
uint64_t symfile_find(const struct symfile *f, const char *name);
/* At the addresses of the file, too; owned by f. */
struct debuginfo *symfile_debuginfo(struct symfile *f);
bool symfile_at(const struct symfile *f, uint64_t va, struct kernel_symbol *sym);

#endif
