/*
 * PMUv3 (D13): a cycle counter and six event counters.  On the vCPU's own thread.
 */
#ifndef ARMLET_CPU_PMU_H
#define ARMLET_CPU_PMU_H

#include <stdbool.h>
#include <stdint.h>

struct cpu;
struct sysreg;
struct cpu_pmu;

/* Events that are counted where they happen; the numbers are the architecture's. */
enum pmu_event {
    PMU_SW_INCR = 0x00, PMU_INST_RETIRED = 0x08, PMU_EXC_TAKEN = 0x09, PMU_EXC_RETURN = 0x0a,
    PMU_CID_WRITE_RETIRED = 0x0b, PMU_CPU_CYCLES = 0x11, PMU_TTBR_WRITE_RETIRED = 0x1c, PMU_CHAIN = 0x1e,
};

struct cpu_pmu *pmu_new(void);
void pmu_free(struct cpu_pmu *pmu);
void pmu_reset(struct cpu *cpu);

/* Bring the counters up to now.  To be called before the EL or the filters change. */
void pmu_sync(struct cpu *cpu);
/* One event happened at the current EL. */
void pmu_count(struct cpu *cpu, enum pmu_event event);
/* Sync, set the overflow wire, and say when to look again (nanoseconds of the cluster's clock, UINT64_MAX: never). */
uint64_t pmu_deadline_ns(struct cpu *cpu);
/* Is anything being counted?  When not, pmu_sync() and pmu_count() have nothing to do. */
bool pmu_active(const struct cpu *cpu);

/* Hooks of isa/sysregs.def. */
bool pmu_exists(const struct sysreg *reg); /* false: the number is beyond what we have; UNDEFINED */
bool pmu_read(struct cpu *cpu, const struct sysreg *reg, uint64_t *value);
bool pmu_write(struct cpu *cpu, const struct sysreg *reg, uint64_t value);

#endif
