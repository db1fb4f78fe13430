/*
 * The stored system registers, and the table of all of them, from isa/sysregs.def.
 *
 * Values in struct sysregs are kept in the register's own layout with RES0 bits clear.  Who changes SCTLR_EL1,
 * CPACR_EL1, TCR_EL1, TTBRn_EL1, MAIR_EL1, MDSCR_EL1 or OSLSR_EL1 here by hand calls cpu_refresh() afterwards.
 * The table is constant: any thread.  The registers belong to the vCPU's thread.
 */
#ifndef ARMLET_CPU_SYSREGS_H
#define ARMLET_CPU_SYSREGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cpu;

struct sysregs {
#define STORED(name, op0, op1, crn, crm, op2, access, feat, trap, field, reset, mask, rd, wr) uint64_t field;
#define VIEW(...)
#include "isa/sysregs.def"
#undef STORED
#undef VIEW
    uint64_t id[64]; /* op0 3, op1 0, CRn 0: by CRm * 8 + op2; zero where unallocated */
};

/* SCTLR_EL1 */
enum {
    SCTLR_M = 1 << 0, SCTLR_A = 1 << 1, SCTLR_C = 1 << 2, SCTLR_SA = 1 << 3, SCTLR_SA0 = 1 << 4, SCTLR_nAA = 1 << 6,
    SCTLR_UMA = 1 << 9, SCTLR_EnRCTX = 1 << 10, SCTLR_I = 1 << 12, SCTLR_DZE = 1 << 14, SCTLR_UCT = 1 << 15,
    SCTLR_nTWI = 1 << 16, SCTLR_nTWE = 1 << 18, SCTLR_WXN = 1 << 19, SCTLR_IESB = 1 << 21, SCTLR_SPAN = 1 << 23,
    SCTLR_UCI = 1 << 26,
};
#define SCTLR_DSSBS (UINT64_C(1) << 44)

/* Who may do what; the numbers are the lowest EL that reads and writes, 2 for nobody. */
enum sysreg_access {
    SYSREG_RW0 = 0 << 2 | 0, SYSREG_RO0 = 2 << 2 | 0, SYSREG_WO0 = 0 << 2 | 2, SYSREG_R0W1 = 1 << 2 | 0,
    SYSREG_RW1 = 1 << 2 | 1, SYSREG_RO1 = 2 << 2 | 1, SYSREG_WO1 = 1 << 2 | 2,
};

enum sysreg_trap {
    SYSREG_TRAP_NONE,
    /* SCTLR_EL1 enables for EL0 */
    SYSREG_TRAP_UCT, SYSREG_TRAP_UCI, SYSREG_TRAP_DZE, SYSREG_TRAP_UMA, SYSREG_TRAP_RCTX,
    SYSREG_TRAP_CNTFRQ, SYSREG_TRAP_CNTPCT, SYSREG_TRAP_CNTVCT, SYSREG_TRAP_CNTP, SYSREG_TRAP_CNTV, /* CNTKCTL_EL1 */
    SYSREG_TRAP_PMU_EN, SYSREG_TRAP_PMU_SW, SYSREG_TRAP_PMU_CR, SYSREG_TRAP_PMU_ER, /* PMUSERENR_EL0 */
    SYSREG_TRAP_PMU_ER_RD, /* ER allows reads, EN both */
    SYSREG_TRAP_TDCC,      /* MDSCR_EL1 */
    SYSREG_TRAP_FPEN,      /* CPACR_EL1, at EL1 too */
};

/* The rows in order: SR_<name>. */
enum sysreg_id {
#define STORED(name, op0, op1, crn, crm, op2, access, feat, trap, field, reset, mask, rd, wr) SR_##name,
#define VIEW(name, op0, op1, crn, crm, op2, access, feat, trap, rd, wr) SR_##name,
#include "isa/sysregs.def"
#undef STORED
#undef VIEW
    SR_COUNT
};

struct sysreg {
    const char *name; /* the manual's */
    uint16_t id;      /* enum sysreg_id */
    uint16_t key;     /* SYSREG_KEY() */
    uint8_t access;   /* enum sysreg_access */
    uint8_t trap;     /* enum sysreg_trap */
    uint8_t feature;  /* enum a64_feature */
    bool stored;
    uint16_t offset;  /* stored: of the field in struct sysregs */
    uint64_t reset, mask;
    /* NULL: stored value (`plain') or no such direction (access says which).  false: an exception was taken. */
    bool (*read)(struct cpu *cpu, const struct sysreg *reg, uint64_t *value);
    bool (*write)(struct cpu *cpu, const struct sysreg *reg, uint64_t value);
};

/* The bits that SPSR_EL1 has, with FEAT_PAN and FEAT_UAO or without: all of M, so that an illegal return can be seen to be one. */
static inline uint64_t sysreg_spsr_mask(bool pan, bool uao)
{
    return UINT64_C(0xf03003df) | (pan ? 1u << 22 : 0u) | (uao ? 1u << 23 : 0u);
}

/* NULL: not in the table. */
const struct sysreg *sysreg_find(uint32_t key);
const struct sysreg *sysreg_find_name(const char *name);
/* All rows, in the order of the table. */
const struct sysreg *sysreg_table(size_t *n);

/*
 * For debuggers and tests: read without side effects on the guest and without EL checks; false when the register does
 * not exist on this model, is write-only, is an instruction, or reading would have a side effect (the board's).
 */
bool sysreg_peek(struct cpu *cpu, const struct sysreg *reg, uint64_t *value);
/* For debuggers, while the cluster is paused: writes as MSR at EL1 would; false where sysreg_peek() or that MSR would
 * fail.  Derived state follows. */
bool sysreg_poke(struct cpu *cpu, const struct sysreg *reg, uint64_t value);

#endif
