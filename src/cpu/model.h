/*
 * What a CPU model is, beside its features (isa/features.def).  Constant: any thread.
 */
#ifndef ARMLET_CPU_MODEL_H
#define ARMLET_CPU_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "isa/a64.h"

struct cpu;

enum {
    DEBUG_BREAKPOINTS = 6, /* of which the last DEBUG_CONTEXT_BPS can compare CONTEXTIDR_EL1 */
    DEBUG_CONTEXT_BPS = 2,
    DEBUG_WATCHPOINTS = 4,
    PMU_COUNTERS = 6, /* beside the cycle counter */
};

struct cpu_model {
    const char *name, *text; /* as in -cpu, and for -cpu help */
    enum a64_model column;   /* of features.def */
    uint32_t midr, revidr;
    uint8_t pmu_id;          /* PMCR_EL0.IDCODE */
    uint32_t ctr;            /* CTR_EL0 */
    uint32_t clidr;          /* CLIDR_EL1 */
    uint32_t ccsidr[4];      /* by CSSELR_EL1: L1 data, L1 instruction, L2, none */
    uint8_t parange;         /* ID_AA64MMFR0_EL1.PARange */
    bool gran16;             /* has the 16 KiB granule */
    bool a5x;                /* has the IMPLEMENTATION DEFINED registers of Cortex-A53, A57 and A72 */
};

/* DCZID_EL0.BS of all models: DC ZVA clears 64 bytes. */
enum { DCZID_BS = 4, ZVA_BYTES = 4 << DCZID_BS };

/* The bits of a physical address for an ID_AA64MMFR0_EL1.PARange code, 32 to 48. */
unsigned cpu_model_pa_bits(const struct cpu_model *model);

/* Sets features, MIDR and ID registers of a new cpu from its model. */
void cpu_model_apply(struct cpu *cpu);

#endif
