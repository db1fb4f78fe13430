/*
 * Deterministic runs (lockstep.h).
 *
 * Why the points at which interrupts are taken are the same in both engines: engines stop at a boundary exactly (run_some()
 * never runs more than it is given), and nothing but the boundary looks at cpu->pending.  The host's timer signal may still
 * set PEND_TIMER; it is cleared unseen.  Registers that show time or pending interrupts are read in C, when the count is that
 * of the instruction.
 *
 * Left out: devices that have a life of their own (network, host input) must not be used.  On the vCPU's own thread.
 */
#include "cpu/lockstep.h"

#include <inttypes.h>

#include "base/report.h"
#include "cpu/cluster.h"
#include "cpu/debug.h"
#include "cpu/pmu.h"
#include "cpu/timer.h"

struct lockstep {
    uint64_t interval, trace, next;
    uint64_t skipped; /* nanoseconds spent in WFI */
    FILE *log;
};

static uint64_t lockstep_clock(void *opaque)
{
    const struct cluster *cl = opaque;

    return cl->cpu[0]->icount + cl->lockstep->skipped;
}

void lockstep_start(struct cluster *cl, uint64_t interval, uint64_t trace, FILE *log)
{
    BUG_ON(cl->n != 1 || !cl->engine->run_some || !interval);
    cl->lockstep = g_new0(struct lockstep, 1);
    *cl->lockstep = (struct lockstep){.interval = interval, .trace = trace, .next = interval, .log = log};
    cl->clock_ns = lockstep_clock;
    cl->clock_opaque = cl;
}

void lockstep_stop(struct cluster *cl)
{
    if (cl->lockstep)
        cl->clock_ns = NULL;
    g_clear_pointer(&cl->lockstep, g_free);
}

static void record(const struct lockstep *l, const struct cpu *cpu)
{
    fprintf(l->log, "%" PRIu64 " %" PRIx64 " %016" PRIx64 " %" PRIx64 " %" PRIx64, cpu->icount, cpu->pc,
            cpu_state_hash(cpu), cpu_pstate(cpu), cpu->x[31]);
    for (unsigned i = 0; i < 31; i++)
        fprintf(l->log, " %" PRIx64, cpu->x[i]);
    putc('\n', l->log);
}

static void boundary(struct lockstep *l, struct cpu *cpu)
{
    l->next = cpu->icount + l->interval;
    record(l, cpu);
    cpu_timer_check(cpu);
    cpu_take_interrupt(cpu);
}

void lockstep_run(struct cpu *cpu)
{
    struct lockstep *l = cpu->cluster->lockstep;
    const struct cpu_engine *engine = cpu->cluster->engine;

    for (;;) {
        unsigned pending = atomic_load_explicit(&cpu->pending, memory_order_relaxed);
        if (pending & (PEND_PAUSE | PEND_STOP | PEND_DEBUG | PEND_TLB))
            return;
        if (pending & PEND_TIMER)
            atomic_fetch_and(&cpu->pending, ~(unsigned)PEND_TIMER);
        if (cpu->icount >= l->next)
            boundary(l, cpu);
        bool trace = cpu->icount >= l->trace;
        engine->run_some(cpu, trace && engine == &interp_engine ? 1 : l->next - cpu->icount);
        if (trace && cpu->icount < l->next)
            record(l, cpu);
        if (debug_stopped(cpu))
            return;
    }
}

void lockstep_wfi(struct cpu *cpu)
{
    struct lockstep *l = cpu->cluster->lockstep;
    uint64_t now = cluster_clock_ns(cpu->cluster), deadline = MIN(timer_deadline_ns(cpu), pmu_deadline_ns(cpu));

    if (deadline != UINT64_MAX && deadline > now)
        l->skipped += deadline - now;
    cpu_timer_check(cpu);
}
