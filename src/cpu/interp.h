/*
 * The interpreter beside its engine interface: single instructions for debuggers, tests and other engines.
 * On the vCPU's own thread.
 */
#ifndef ARMLET_CPU_INTERP_H
#define ARMLET_CPU_INTERP_H

#include <stdbool.h>
#include <stdint.h>

struct cpu;

/* Execute exactly one instruction at cpu->pc, its fetch and debug checks included; cpu->pc is then the next one's. */
void interp_step(struct cpu *cpu);
/*
 * While cpu->debug_slow or cpu->il: one instruction with all checks, or many where no breakpoint can be near.  Stops may
 * be waiting afterwards (debug_stopped()), interrupts too.
 */
void interp_run_checked(struct cpu *cpu);
/*
 * Execute word as if it stood at cpu->pc, without fetch or debug checks; cpu->pc is then the next instruction's.
 * False: it did not complete, an exception other than SVC, HVC or BRK was taken.
 */
bool interp_exec_word(struct cpu *cpu, uint32_t word);
/*
 * From cpu->pc to the next taken branch, the page's end (which lies at hva), an exception, or `max' instructions; an exclusive access is left to
 * the caller.  Nothing that was decoded is kept: for code that will hardly be seen again.  The number of instructions.
 */
unsigned interp_run_line(struct cpu *cpu, const uint8_t *hva, unsigned max);
/* Forget all decoded code; cpu_free() and the engine's fini call it. */
void interp_free(struct cpu *cpu);

#endif
