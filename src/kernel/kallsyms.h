/*
 * The symbol table that a Linux kernel carries in its own image (CONFIG_KALLSYMS), found there by its shape.
 *
 * Formats: base-relative offsets (4.6 and later) with the tables in the order of 4.20 to 6.3 (offsets, base, number,
 * names, markers, tokens) or of 6.4 and later (number, names, markers, tokens, offsets, base).
 */
#ifndef ARMLET_KERNEL_KALLSYMS_H
#define ARMLET_KERNEL_KALLSYMS_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kallsyms {
    unsigned n;
    uint32_t *offset;  /* n of them, ascending, from the base */
    uint32_t *name_at; /* into text: the type's letter, then the name */
    char *text;
    size_t text_len;
    GHashTable *asked; /* names that were asked for (owned) to index + 1, 0: there is none */
    size_t base_at;      /* where the base stands in the image: 8 bytes, relocated by the kernel itself */
};

/* image: at least 8-byte aligned in the kernel's own terms.  NULL: there is none. */
struct kallsyms *kallsyms_find(const uint8_t *image, size_t size);
void kallsyms_free(struct kallsyms *s);
const char *kallsyms_name(const struct kallsyms *s, unsigned i);
char kallsyms_type(const struct kallsyms *s, unsigned i);
/* The first of the symbols that lie at or below off, -1: none. */
int kallsyms_at(const struct kallsyms *s, uint64_t off);
/* -1: none. */
int kallsyms_named(const struct kallsyms *s, const char *name);
/* The offset of the next symbol above that of i; `end' for the last. */
uint64_t kallsyms_next(const struct kallsyms *s, unsigned i, uint64_t end);

#endif
