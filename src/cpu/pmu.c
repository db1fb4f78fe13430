/*
 * PMUv3 of Armv8.0 (DDI0487 D13): PMCCNTR_EL0 and six 32-bit event counters, overflow interrupt.
 *
 * Cycles are nanoseconds of the cluster's clock: a nominal 1 GHz core that does not stop counting in WFI.  Events:
 * SW_INCR, INST_RETIRED, EXC_TAKEN, EXC_RETURN, CID_WRITE_RETIRED, CPU_CYCLES, TTBR_WRITE_RETIRED, CHAIN; others count
 * nothing and PMCEIDn_EL0 does not announce them.  Left out: event export (PMCR_EL0.X is kept and does nothing), and
 * PMCR_EL0.DP, as counting is never prohibited at EL1 and EL0.
 *
 * Cycles and instructions are added lazily: pmu_sync() credits what has passed since the last call to the current EL, so
 * it is called before the EL, a filter or an enable changes, and before a counter is read.  An overflow is noticed at
 * the deadline that pmu_deadline_ns() asks for; for instructions that is a guess (no more than one each nanosecond),
 * repeated until it comes true.
 *
 * Everything runs on the vCPU's own thread.
 */
#include "cpu/pmu.h"

#include <string.h>

#include "base/bits.h"
#include "cpu/cluster.h"
#include "cpu/cpu.h"
#include "cpu/model.h"

enum { PMCR_E = 1, PMCR_P = 2, PMCR_C = 4, PMCR_D = 8, PMCR_X = 16, PMCR_DP = 32, PMCR_LC = 64 };
enum { CYCLE = 31, SELECT_CYCLE = 31 };

#define COUNTER_MASK (UINT32_C(1) << CYCLE | ((UINT32_C(1) << PMU_COUNTERS) - 1))
#define TYPE_MASK    UINT32_C(0xc00003ff) /* P, U, evtCount */
#define FILTER_MASK  UINT32_C(0xc0000000)

/* Less often than this nobody is helped, and more often the host is not. */
#define SHORTEST_WAIT_NS 20000

struct cpu_pmu {
    bool active; /* PMCR_EL0.E and at least one counter enabled */
    bool level;
    uint32_t control; /* the writable bits of PMCR_EL0 that stay */
    uint32_t enabled, overflow, interrupts;
    uint32_t filter; /* PMCCFILTR_EL0 */
    uint32_t type[PMU_COUNTERS], count[PMU_COUNTERS];
    uint64_t cycles;
    unsigned fraction; /* of 64, when PMCR_EL0.D divides */
    uint64_t seen_ns, seen_instructions;
};

struct cpu_pmu *pmu_new(void)
{
    return g_new0(struct cpu_pmu, 1);
}

void pmu_free(struct cpu_pmu *pmu)
{
    g_free(pmu);
}

void pmu_reset(struct cpu *cpu)
{
    *cpu->pmu = (struct cpu_pmu){ 0 };
    irq_set(&cpu->pmu_out, false);
}

bool pmu_active(const struct cpu *cpu)
{
    return cpu->pmu->active;
}

/* P excludes EL1, U excludes EL0. */
static bool counts_at(uint32_t filter, unsigned el)
{
    return !(filter >> (el ? 31 : 30) & 1);
}

static enum pmu_event event_of(const struct cpu_pmu *pmu, unsigned n)
{
    return (enum pmu_event)(pmu->type[n] & 0x3ff);
}

static bool is_enabled(const struct cpu_pmu *pmu, unsigned n)
{
    return (pmu->control & PMCR_E) && (pmu->enabled >> n & 1);
}

static bool is_chained(const struct cpu_pmu *pmu, unsigned n)
{
    return !(n & 1) && n + 1 < PMU_COUNTERS && is_enabled(pmu, n + 1) && event_of(pmu, n + 1) == PMU_CHAIN;
}

static void add_events(struct cpu *cpu, unsigned n, uint64_t events)
{
    struct cpu_pmu *pmu = cpu->pmu;
    uint64_t sum = pmu->count[n] + events;

    pmu->count[n] = (uint32_t)sum;
    if (!(sum >> 32))
        return;
    pmu->overflow |= UINT32_C(1) << n;
    if (is_chained(pmu, n) && counts_at(pmu->type[n + 1], cpu->el))
        add_events(cpu, n + 1, sum >> 32);
}

/* Without LC the overflow is that of the low 32 bits, and D counts every 64th cycle. */
static void add_cycles(struct cpu_pmu *pmu, uint64_t cycles)
{
    uint64_t before = pmu->cycles;
    bool wide = pmu->control & PMCR_LC;

    if ((pmu->control & PMCR_D) && !wide) {
        cycles += pmu->fraction;
        pmu->fraction = cycles % 64;
        cycles /= 64;
    }
    pmu->cycles += cycles;
    if (wide ? pmu->cycles < before : (before & UINT32_MAX) + cycles > UINT32_MAX)
        pmu->overflow |= UINT32_C(1) << CYCLE;
}

static void set_level(struct cpu *cpu)
{
    struct cpu_pmu *pmu = cpu->pmu;
    bool level = (pmu->control & PMCR_E) && (pmu->overflow & pmu->interrupts);

    if (level == pmu->level)
        return;
    pmu->level = level;
    irq_set(&cpu->pmu_out, level);
}

void pmu_sync(struct cpu *cpu)
{
    struct cpu_pmu *pmu = cpu->pmu;
    uint64_t now = cluster_clock_ns(cpu->cluster);
    uint64_t cycles = now - pmu->seen_ns, instructions = cpu->icount - pmu->seen_instructions;

    pmu->seen_ns = now;
    pmu->seen_instructions = cpu->icount;
    if (!pmu->active)
        return;
    if (is_enabled(pmu, CYCLE) && counts_at(pmu->filter, cpu->el))
        add_cycles(pmu, cycles);
    for (unsigned n = 0; n < PMU_COUNTERS; n++) {
        if (!is_enabled(pmu, n) || !counts_at(pmu->type[n], cpu->el))
            continue;
        if (event_of(pmu, n) == PMU_CPU_CYCLES)
            add_events(cpu, n, cycles);
        else if (event_of(pmu, n) == PMU_INST_RETIRED)
            add_events(cpu, n, instructions);
    }
    set_level(cpu);
}

void pmu_count(struct cpu *cpu, enum pmu_event event)
{
    struct cpu_pmu *pmu = cpu->pmu;

    for (unsigned n = 0; n < PMU_COUNTERS; n++)
        if (is_enabled(pmu, n) && event_of(pmu, n) == event && counts_at(pmu->type[n], cpu->el))
            add_events(cpu, n, 1);
    set_level(cpu);
}

/* --- when the next overflow interrupt can be due --- */

static uint64_t cycle_wait(const struct cpu_pmu *pmu)
{
    uint64_t left;

    if (!is_enabled(pmu, CYCLE) || !(pmu->interrupts >> CYCLE & 1))
        return UINT64_MAX;
    if (pmu->control & PMCR_LC)
        return 0 - pmu->cycles - 1;
    left = (UINT64_C(1) << 32) - (uint32_t)pmu->cycles;
    return pmu->control & PMCR_D ? left * 64 - pmu->fraction : left;
}

/* One nanosecond an event is right for cycles and never too late for instructions. */
static uint64_t counter_wait(const struct cpu_pmu *pmu, unsigned n)
{
    enum pmu_event event = event_of(pmu, n);
    bool wanted = (pmu->interrupts >> n & 1) || (is_chained(pmu, n) && (pmu->interrupts >> (n + 1) & 1));

    if (!wanted || !is_enabled(pmu, n) || (event != PMU_CPU_CYCLES && event != PMU_INST_RETIRED))
        return UINT64_MAX;
    return (UINT64_C(1) << 32) - pmu->count[n];
}

uint64_t pmu_deadline_ns(struct cpu *cpu)
{
    struct cpu_pmu *pmu = cpu->pmu;
    uint64_t wait;

    if (!pmu->active)
        return UINT64_MAX;
    pmu_sync(cpu);
    if (pmu->level || !pmu->interrupts)
        return UINT64_MAX;
    wait = cycle_wait(pmu);
    for (unsigned n = 0; n < PMU_COUNTERS; n++)
        wait = MIN(wait, counter_wait(pmu, n));
    if (wait > UINT64_MAX - pmu->seen_ns)
        return UINT64_MAX;
    return pmu->seen_ns + MAX(wait, SHORTEST_WAIT_NS);
}

/* --- registers --- */

/* The number in the encoding of PMEVCNTRn_EL0 and PMEVTYPERn_EL0: CRm<1:0>:op2. */
static unsigned number_of(const struct sysreg *reg)
{
    return reg->key & 31;
}

static bool is_event_counter(const struct sysreg *reg)
{
    return reg->id >= SR_PMEVCNTR0_EL0 && reg->id <= SR_PMEVTYPER30_EL0 && !(reg->key >> 5 & 1);
}

static bool is_event_type(const struct sysreg *reg)
{
    return reg->id >= SR_PMEVCNTR0_EL0 && reg->id <= SR_PMEVTYPER30_EL0 && (reg->key >> 5 & 1);
}

bool pmu_exists(const struct sysreg *reg)
{
    return !(is_event_counter(reg) || is_event_type(reg)) || number_of(reg) < PMU_COUNTERS;
}

static uint32_t *type_at(struct cpu_pmu *pmu, unsigned n)
{
    return n == SELECT_CYCLE ? &pmu->filter : n < PMU_COUNTERS ? &pmu->type[n] : NULL;
}

static uint64_t read_pmcr(const struct cpu *cpu)
{
    return (uint64_t)(cpu->model->midr >> 24) << 24 | (uint64_t)cpu->model->pmu_id << 16 | PMU_COUNTERS << 11 |
           cpu->pmu->control;
}

/* The number of supported event e is bit e. */
static uint64_t read_pmceid(const struct sysreg *reg)
{
    return reg->id == SR_PMCEID1_EL0 ? 0
                                     : BIT(PMU_SW_INCR) | BIT(PMU_INST_RETIRED) | BIT(PMU_EXC_TAKEN) |
                                           BIT(PMU_EXC_RETURN) | BIT(PMU_CID_WRITE_RETIRED) | BIT(PMU_CPU_CYCLES) |
                                           BIT(PMU_TTBR_WRITE_RETIRED) | BIT(PMU_CHAIN);
}

/* A selector beyond the counters reads as zero and ignores writes: one of the allowed behaviours (D23.5). */
static uint64_t read_selected(struct cpu *cpu, bool type)
{
    unsigned n = (unsigned)cpu->sys.pmselr_el0;
    const uint32_t *p = type_at(cpu->pmu, n);

    if (type)
        return p ? *p : 0;
    return n < PMU_COUNTERS ? cpu->pmu->count[n] : 0;
}

bool pmu_read(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    struct cpu_pmu *pmu = cpu->pmu;

    if (!pmu_exists(reg)) {
        cpu_undefined(cpu);
        return false;
    }
    pmu_sync(cpu);
    switch (reg->id) {
    case SR_PMCR_EL0: *value = read_pmcr(cpu); break;
    case SR_PMCNTENSET_EL0:
    case SR_PMCNTENCLR_EL0: *value = pmu->enabled; break;
    case SR_PMOVSCLR_EL0:
    case SR_PMOVSSET_EL0: *value = pmu->overflow; break;
    case SR_PMINTENSET_EL1:
    case SR_PMINTENCLR_EL1: *value = pmu->interrupts; break;
    case SR_PMCEID0_EL0:
    case SR_PMCEID1_EL0: *value = read_pmceid(reg); break;
    case SR_PMCCNTR_EL0: *value = pmu->cycles; break;
    case SR_PMCCFILTR_EL0: *value = pmu->filter; break;
    case SR_PMXEVTYPER_EL0: *value = read_selected(cpu, true); break;
    case SR_PMXEVCNTR_EL0: *value = read_selected(cpu, false); break;
    default: *value = is_event_type(reg) ? pmu->type[number_of(reg)] : pmu->count[number_of(reg)]; break;
    }
    return true;
}

static void write_pmcr(struct cpu_pmu *pmu, uint64_t value)
{
    if (value & PMCR_P)
        memset(pmu->count, 0, sizeof(pmu->count));
    if (value & PMCR_C)
        pmu->cycles = pmu->fraction = 0;
    pmu->control = (uint32_t)value & (PMCR_E | PMCR_D | PMCR_X | PMCR_DP | PMCR_LC);
}

static void write_pmswinc(struct cpu *cpu, uint64_t value)
{
    struct cpu_pmu *pmu = cpu->pmu;

    for (unsigned n = 0; n < PMU_COUNTERS; n++)
        if ((value >> n & 1) && is_enabled(pmu, n) && event_of(pmu, n) == PMU_SW_INCR &&
            counts_at(pmu->type[n], cpu->el))
            add_events(cpu, n, 1);
}

static void write_type(struct cpu_pmu *pmu, unsigned n, uint64_t value)
{
    uint32_t *p = type_at(pmu, n);

    if (p)
        *p = (uint32_t)value & (n == SELECT_CYCLE ? FILTER_MASK : TYPE_MASK);
}

static void write_count(struct cpu_pmu *pmu, unsigned n, uint64_t value)
{
    if (n < PMU_COUNTERS)
        pmu->count[n] = (uint32_t)value;
}

static void write_register(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    struct cpu_pmu *pmu = cpu->pmu;
    uint32_t bits = (uint32_t)value & COUNTER_MASK;

    switch (reg->id) {
    case SR_PMCR_EL0: write_pmcr(pmu, value); break;
    case SR_PMCNTENSET_EL0: pmu->enabled |= bits; break;
    case SR_PMCNTENCLR_EL0: pmu->enabled &= ~bits; break;
    case SR_PMOVSSET_EL0: pmu->overflow |= bits; break;
    case SR_PMOVSCLR_EL0: pmu->overflow &= ~bits; break;
    case SR_PMINTENSET_EL1: pmu->interrupts |= bits; break;
    case SR_PMINTENCLR_EL1: pmu->interrupts &= ~bits; break;
    case SR_PMSWINC_EL0: write_pmswinc(cpu, value); break;
    case SR_PMCCNTR_EL0: pmu->cycles = value, pmu->fraction = 0; break;
    case SR_PMCCFILTR_EL0: write_type(pmu, SELECT_CYCLE, value); break;
    case SR_PMXEVTYPER_EL0: write_type(pmu, (unsigned)cpu->sys.pmselr_el0, value); break;
    case SR_PMXEVCNTR_EL0: write_count(pmu, (unsigned)cpu->sys.pmselr_el0, value); break;
    default:
        if (is_event_type(reg))
            write_type(pmu, number_of(reg), value);
        else
            write_count(pmu, number_of(reg), value);
        break;
    }
}

bool pmu_write(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    struct cpu_pmu *pmu = cpu->pmu;

    if (!pmu_exists(reg)) {
        cpu_undefined(cpu);
        return false;
    }
    pmu_sync(cpu);
    write_register(cpu, reg, value);
    pmu->active = (pmu->control & PMCR_E) && pmu->enabled;
    set_level(cpu);
    cpu_timer_check(cpu);
    return true;
}
