/*
 * Deterministic runs of one vCPU (-accel ENGINE,lockstep=N): what a run does depends on the guest alone, so that two
 * engines can be compared by what they record.
 *
 * Time is the number of instructions, one a nanosecond, and jumps forward in WFI.  Interrupts are taken when the count has
 * reached a multiple of N, and only then.  At each multiple a line with the state is written; from instruction `trace' on,
 * after each instruction that is interpreted and each block that is translated.
 */
#ifndef ARMLET_CPU_LOCKSTEP_H
#define ARMLET_CPU_LOCKSTEP_H

#include <stdint.h>
#include <stdio.h>

struct cluster;
struct cpu;

/*
 * Before cluster_start(), for a cluster of one vCPU whose engine has run_some().  Lines go to `log', which stays the
 * caller's:
 *   COUNT PC HASH PSTATE SP X0 ... X30
 */
void lockstep_start(struct cluster *cl, uint64_t interval, uint64_t trace, FILE *log);
void lockstep_stop(struct cluster *cl);

/* For cluster.c: instead of the engine's run(); instead of sleeping in WFI. */
void lockstep_run(struct cpu *cpu);
void lockstep_wfi(struct cpu *cpu);

#endif
