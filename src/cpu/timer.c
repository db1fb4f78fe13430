/*
 * The generic timers (DDI0487 D11): one counter, a physical and a virtual timer per PE, the event stream.
 *
 * The counter is the cluster's clock in units of 16 ns: exactly 62.5 MHz, without drift, and 64 bits of nanoseconds do
 * not wrap in 584 years.  CNTVOFF_EL2 does not exist (no EL2) and counts as 0, so both counters are the same.  A timer is
 * CompareValue only; TimerValue is a view of it.  ISTATUS and the wires follow from the registers and the counter.
 *
 * Everything runs on the vCPU's own thread: when the host's clock passes timer_deadline_ns(), somebody sets PEND_TIMER
 * and the vCPU calls cpu_timer_check().
 */
#include "cpu/timer.h"

#include <inttypes.h>

#include "base/bits.h"
#include "base/trace.h"
#include "cpu/cluster.h"
#include "cpu/cpu.h"
#include "cpu/pmu.h"

enum { CTL_ENABLE = 1, CTL_IMASK = 2, CTL_ISTATUS = 4 };

/* CNTKCTL_EL1 */
enum { EVNTEN = 1 << 2, EVNTDIR = 1 << 3 };

uint64_t cpu_counter(struct cpu *cpu)
{
    return cluster_clock_ns(cpu->cluster) / COUNTER_TICK_NS;
}

void timer_reset(struct cpu *cpu)
{
    for (unsigned i = 0; i < 2; i++) {
        struct gtimer *t = &cpu->gt[i];

        t->cval = 0;
        t->ctl = 0;
        t->level = false;
        irq_set(&t->out, false);
    }
    cpu->event_stream_seen = 0;
}

/* D11.2.4.1: the condition is an unsigned comparison of all 64 bits. */
static bool condition_met(const struct gtimer *t, uint64_t now)
{
    return (t->ctl & CTL_ENABLE) && now >= t->cval;
}

void timer_update(struct cpu *cpu)
{
    uint64_t now = cpu_counter(cpu);

    for (unsigned i = 0; i < 2; i++) {
        struct gtimer *t = &cpu->gt[i];
        bool level = condition_met(t, now) && !(t->ctl & CTL_IMASK);

        if (level == t->level)
            continue;
        t->level = level;
        trace(TIMER, "cpu %u: %s timer %s at %#" PRIx64, cpu->index, i == GT_PHYS ? "physical" : "virtual",
              level ? "fires" : "is quiet", now);
        irq_set(&t->out, level);
    }
}

/* A timer whose wire is up, or that is masked or off, needs no clock. */
uint64_t timer_deadline_ns(struct cpu *cpu)
{
    uint64_t first = UINT64_MAX;

    for (unsigned i = 0; i < 2; i++) {
        const struct gtimer *t = &cpu->gt[i];

        if ((t->ctl & (CTL_ENABLE | CTL_IMASK)) != CTL_ENABLE || t->level)
            continue;
        if (t->cval < UINT64_MAX / COUNTER_TICK_NS)
            first = MIN(first, t->cval * COUNTER_TICK_NS);
    }
    return first;
}

void cpu_timer_check(struct cpu *cpu)
{
    uint64_t pmu = pmu_deadline_ns(cpu);

    timer_update(cpu);
    cluster_set_deadline(cpu, MIN(pmu, timer_deadline_ns(cpu)));
}

/* --- registers --- */

static struct gtimer *timer_of(struct cpu *cpu, const struct sysreg *reg)
{
    return &cpu->gt[reg->id >= SR_CNTV_TVAL_EL0 ? GT_VIRT : GT_PHYS];
}

static uint32_t ctl_value(struct cpu *cpu, const struct gtimer *t)
{
    return t->ctl | (condition_met(t, cpu_counter(cpu)) ? CTL_ISTATUS : 0);
}

bool timer_read(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    const struct gtimer *t = timer_of(cpu, reg);

    switch (reg->id) {
    case SR_CNTPCT_EL0:
    case SR_CNTVCT_EL0:
        *value = cpu_counter(cpu);
        break;
    case SR_CNTP_TVAL_EL0:
    case SR_CNTV_TVAL_EL0:
        *value = (uint32_t)(t->cval - cpu_counter(cpu));
        break;
    case SR_CNTP_CTL_EL0:
    case SR_CNTV_CTL_EL0:
        *value = ctl_value(cpu, t);
        break;
    default:
        *value = t->cval;
        break;
    }
    return true;
}

bool timer_write(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    struct gtimer *t = timer_of(cpu, reg);

    switch (reg->id) {
    case SR_CNTKCTL_EL1:
        cpu->sys.cntkctl_el1 = value & reg->mask;
        timer_event_taken(cpu); /* what would have been an event under the old setting is none */
        return true;
    case SR_CNTP_TVAL_EL0:
    case SR_CNTV_TVAL_EL0:
        t->cval = cpu_counter(cpu) + (uint64_t)bits_sext(value, 32);
        break;
    case SR_CNTP_CTL_EL0:
    case SR_CNTV_CTL_EL0:
        t->ctl = (uint32_t)value & (CTL_ENABLE | CTL_IMASK);
        break;
    default:
        t->cval = value;
        break;
    }
    cpu_timer_check(cpu);
    return true;
}

/* --- event stream --- */

/*
 * Events so far: bit EVNTI of the counter goes up (EVNTDIR 0) whenever the counter plus half a period starts a new
 * period, and down (1) whenever the counter does.
 */
static uint64_t events_until(uint64_t cntkctl, uint64_t counter)
{
    unsigned bit = cntkctl >> 4 & 15;

    return (counter + (cntkctl & EVNTDIR ? 0 : BIT(bit))) >> (bit + 1);
}

bool timer_event_taken(struct cpu *cpu)
{
    uint64_t ctl = cpu->sys.cntkctl_el1, events, seen = cpu->event_stream_seen;

    if (!(ctl & EVNTEN))
        return false;
    events = events_until(ctl, cpu_counter(cpu));
    cpu->event_stream_seen = events;
    return events != seen;
}

uint64_t timer_event_ns(struct cpu *cpu)
{
    uint64_t ctl = cpu->sys.cntkctl_el1, next;
    unsigned bit = ctl >> 4 & 15;

    if (!(ctl & EVNTEN))
        return UINT64_MAX;
    next = (events_until(ctl, cpu_counter(cpu)) + 1) << (bit + 1);
    return (next - (ctl & EVNTDIR ? 0 : BIT(bit))) * COUNTER_TICK_NS;
}
