/*
 * Guest memory as a debugger sees it: by virtual address through a vCPU's translation tables, without faults and side
 * effects, or by physical address.  While the cluster is paused, or for reading what may change meanwhile.
 */
#ifndef ARMLET_DEBUG_PEEK_H
#define ARMLET_DEBUG_PEEK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cpu;
struct kernel;
struct mem;

/*
 * Copies up to len bytes; returns how many came before the first byte that is not mapped memory.  What the vCPU does not
 * map as it stands (at EL0 with KPTI, or before its MMU is on) is looked for where `kernel' has it; that may be NULL.
 */
size_t peek_virt(struct cpu *cpu, struct kernel *kernel, uint64_t va, void *buf, size_t len);
size_t poke_virt(struct cpu *cpu, struct kernel *kernel, uint64_t va, const void *buf, size_t len);
/* Physical: memory of any length, or one device register (1, 2, 4 or 8 bytes, aligned), with its side effects. */
bool peek_phys(struct mem *mem, uint64_t pa, void *buf, size_t len);
bool poke_phys(struct mem *mem, uint64_t pa, const void *buf, size_t len);

#endif
