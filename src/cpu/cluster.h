/*
 * The vCPUs as threads: power, sleep, time, and what they tell each other.  See also "cluster" in cpu.h.
 *
 * A vCPU is `in guest code' from when its engine is entered until it returns; while it sleeps, waits or is off it is
 * quiescent: it touches neither guest memory nor its TLB, and applies queued maintenance before it goes on.
 *
 * Locks: pausing waits for every vCPU to leave guest code, so cluster_pause() must not be called with a lock held that
 * a device access may want (the board's lock).
 */
#ifndef ARMLET_CPU_CLUSTER_H
#define ARMLET_CPU_CLUSTER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cpu/cpu.h"

/*
 * For engines: must guest code be left now?  cpu->pending stays non-zero while an interrupt is pending but masked;
 * that alone is no reason to return from run(), and nothing but run() itself would make progress then.
 */
static inline bool cpu_must_leave(const struct cpu *cpu)
{
    unsigned pending = atomic_load_explicit(&cpu->pending, memory_order_relaxed);

    if (cpu->daif & DAIF_I)
        pending &= ~(unsigned)PEND_IRQ;
    if (cpu->daif & DAIF_F)
        pending &= ~(unsigned)PEND_FIQ;
    if (cpu->daif & DAIF_A)
        pending &= ~(unsigned)PEND_SERROR;
    return pending;
}

/* Nanoseconds since start, not counting time spent paused; or what cl->clock_ns says. */
uint64_t cluster_clock_ns(struct cluster *cl);
/* Nanoseconds of host CPU that the vCPU's thread has used, with all that it did.  Any thread. */
uint64_t cluster_cpu_ns(const struct cpu *cpu);
/*
 * Raise PEND_TIMER at `ns' of that clock (UINT64_MAX: not at all), running or asleep.  The last call counts; an early
 * PEND_TIMER is possible and harmless.  On the vCPU's thread, or while it is quiescent.
 */
void cluster_set_deadline(struct cpu *cpu, uint64_t ns);

/* Does it wait in WFI or WFE?  For who has paused the cluster. */
bool cluster_sleeps(const struct cpu *cpu);

/* --- on the vCPU's own thread, from inside an instruction --- */

/* WFI: until an interrupt is pending (masked or not) or the vCPU is wanted.  May return early. */
void cluster_wfi(struct cpu *cpu);
/* WFE: until the event register is set, which it clears, and as WFI.  May return early; sleeps at most 100 us while an
 * exclusive monitor is armed, because stores of others are not seen. */
void cluster_wfe(struct cpu *cpu);
/* SEV: sets the event register of every vCPU. */
void cluster_sev(struct cpu *cpu);
/* YIELD: a spinning guest lets another vCPU's thread run, which may be the one that it waits for. */
void cluster_yield(struct cpu *cpu);
/* DSB: completes the maintenance that this vCPU has broadcast, and orders memory accesses. */
void cluster_dsb(struct cpu *cpu);
/* Waits, itself quiescent, until every other vCPU has been quiescent after the call. */
void cluster_quiesce(struct cpu *cpu);
/*
 * Is the vCPU quiescent?  Whatever the caller has written before, it will see before it goes on.  A vCPU without a
 * thread is.
 */
bool cluster_quiet(const struct cpu *cpu);
/* Never to run again until reset (after PSCI SYSTEM_OFF and SYSTEM_RESET): leaves guest code at the next check. */
void cluster_park(struct cpu *cpu);

/* --- PSCI's verbs (5.4 to 5.8); results are PSCI return codes --- */
enum { PSCI_SUCCESS = 0, PSCI_INVALID_PARAMETERS = -2, PSCI_ALREADY_ON = -4, PSCI_ON_PENDING = -5 };
enum { PSCI_AFFINITY_ON = 0, PSCI_AFFINITY_OFF = 1, PSCI_AFFINITY_ON_PENDING = 2 };
int cluster_cpu_on(struct cluster *cl, uint64_t mpidr, uint64_t entry, uint64_t context);
/* The caller's own: takes effect when it leaves guest code, at the next check. */
void cluster_cpu_off(struct cpu *cpu);
/* level 0: one vCPU; 1 and more: is any with the same higher affinity on?  Or PSCI_INVALID_PARAMETERS. */
int cluster_affinity_info(struct cluster *cl, uint64_t mpidr, unsigned level);
unsigned cluster_cpus_on(struct cluster *cl);

/* Everything as at power-on: vCPU 0 at pc with x0, the others off.  Only while paused. */
void cluster_reset(struct cluster *cl, uint64_t pc, uint64_t x0);

/* For cpu_kick(), after it has changed cpu->pending: ends the vCPU's sleep if it sleeps.  Any thread. */
void cluster_wake(struct cpu *cpu);

#endif
