/*
 * -accel tcg,check=mmu: every access that the data TLB of generated code would let pass is held against the page tables.
 *
 * Generated code then calls C for each access.  What is a bug: an entry that leads elsewhere than the tables do, or that
 * outlives its invalidation.  What is not: an entry for a page that the tables do not have (or permit) any more, since a
 * guest may use what it has not yet invalidated; such accesses are counted.
 */
#ifndef ARMLET_JIT_CHECK_H
#define ARMLET_JIT_CHECK_H

#include "jit/state.h"

/* Set before the first vCPU is made, or never. */
extern bool jit_check_mmu;

struct jit_check_counts {
    uint64_t hits, ahead; /* accesses that the TLB knew; of these, those that the tables do not permit now */
};
/* Before the access is made: `table' is the one that code would ask.  A difference is a BUG(). */
void jit_check_access(struct cpu *cpu, const struct jtlb_entry *table, uint64_t va, unsigned mop, bool write,
                      struct jit_check_counts *counts);
/* After an invalidation of the page of va, in every table: does one still have it? */
void jit_check_gone(const struct cpu *cpu, const struct jtlb_entry *table, uint64_t va);

#endif
