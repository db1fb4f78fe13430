/*
 * The translating engine: guest code to x86-64, for all vCPUs in parallel (docs/jit.md).
 */
#ifndef ARMLET_JIT_JIT_H
#define ARMLET_JIT_JIT_H

#include "cpu/cpu.h"

extern const struct cpu_engine jit_engine;

/* Before the first vCPU is made: bytes of host code to keep at most (0: the default). */
void jit_set_cache_size(uint64_t bytes);
/* Before the first vCPU is made: hold every access against the page tables (jit/check.h). */
void jit_set_check_mmu(void);
/*
 * For tests: translates n words as one block, runs it once on a vCPU of this engine as if they stood at cpu->pc, and
 * forgets it.  Returns how many instructions the block took in.
 */
unsigned jit_exec_words(struct cpu *cpu, const uint32_t *words, unsigned n);
/* The counters of a vCPU of this engine as text, for `info jit' and -accel tcg,stats=on; it is paused or has stopped. */
void jit_describe(const struct cpu *cpu, GString *out);

#endif
