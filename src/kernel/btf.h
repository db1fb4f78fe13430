/*
 * BTF, the kernel's description of its own types (Documentation/bpf/btf.rst): where a structure's members are.
 */
#ifndef ARMLET_KERNEL_BTF_H
#define ARMLET_KERNEL_BTF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct btf;

struct btf_field {
    uint32_t off, size; /* bytes; size 0: there is no such member */
    uint8_t bit, bits;  /* bits != 0: a bit field from this bit of the `size' bytes at off */
};

/* Takes a copy.  NULL: not valid. */
struct btf *btf_new(const uint8_t *data, size_t size);
void btf_free(struct btf *btf);
/* path: members' names with dots between; members of unnamed structures and unions count as their parent's. */
struct btf_field btf_find_field(const struct btf *btf, const char *type, const char *path);
/* Bytes of a structure or union, 0: unknown. */
uint32_t btf_sizeof(const struct btf *btf, const char *type);

#endif
