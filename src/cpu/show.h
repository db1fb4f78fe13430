/* What -d exec, cpu and fpu, and the monitor, show of a vCPU.  On the vCPU's own thread, or while it is stopped. */
#ifndef ARMLET_CPU_SHOW_H
#define ARMLET_CPU_SHOW_H

#include <glib.h>

#include "base/trace.h"
#include "cpu/cpu.h"

/* Lines with pc, the general registers and PSTATE; with FPCR, FPSR and the vector registers. */
void show_general(const struct cpu *cpu, GString *out);
void show_vectors(struct cpu *cpu, GString *out);

/* Is each block to be entered from the run loop, and shown there, and no system register accessed by code alone?  Cheap. */
static inline bool show_blocks_wanted(void)
{
    return trace_on(EXEC) || trace_on(CPU) || trace_on(NOCHAIN) || trace_on(SYSREG);
}
/* The block at cpu->pc, which is about to run; struct cpu is complete. */
COLD void show_block(struct cpu *cpu);

#endif
