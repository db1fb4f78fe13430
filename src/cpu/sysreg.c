/*
 * MRS, MSR, SYS and SYSL: who may, what it traps to, and what it does (DDI0487 C5, D23).
 *
 * The facts are isa/sysregs.def; this file has the lookup, the access rules and the hooks of registers that are views
 * of CPU state.  Timers, PMU and debug registers have their hooks in timer.c, pmu.c and debug.c; the GIC's are the
 * board's.  Order of checks: exists (and the feature, and the direction) or UNDEFINED; EL0 enables; the hook.
 *
 * Data caches are not modelled: maintenance by VA translates its address, because it can fault, and then has nothing to
 * do; by set and way it is a NOP.  DC ZVA stores.  IC operations mark decoded code stale for all PEs.
 *
 * Everything runs on the vCPU's own thread; the index is built once.
 */
#include "cpu/cpu.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "base/report.h"
#include "base/trace.h"
#include "cpu/access.h"
#include "cpu/debug.h"
#include "cpu/mmu.h"
#include "cpu/model.h"
#include "cpu/pmu.h"
#include "cpu/timer.h"
#include "cpu/tlb.h"

typedef bool read_fn(struct cpu *cpu, const struct sysreg *reg, uint64_t *value);
typedef bool write_fn(struct cpu *cpu, const struct sysreg *reg, uint64_t value);

static bool undefined(struct cpu *cpu)
{
    cpu_undefined(cpu);
    return false;
}

static unsigned key_op2(const struct sysreg *reg) { return reg->key & 7; }
static unsigned key_crm(const struct sysreg *reg) { return reg->key >> 3 & 15; }

static uint64_t *field(struct cpu *cpu, const struct sysreg *reg)
{
    return (uint64_t *)((char *)&cpu->sys + reg->offset);
}

static void store_masked(struct cpu *cpu, const struct sysreg *reg, uint64_t value, uint64_t mask)
{
    uint64_t *p = field(cpu, reg);

    *p = (*p & ~mask) | (value & mask);
}

/* --- identification --- */

static bool read_zero(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)cpu, (void)reg;
    *value = 0;
    return true;
}

static bool write_ignore(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    (void)cpu, (void)reg, (void)value;
    return true;
}

static bool read_midr(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = cpu->model->midr;
    return true;
}

static bool read_mpidr(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = cpu->mpidr;
    return true;
}

static bool read_revidr(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = cpu->model->revidr;
    return true;
}

/* ID_AA64PFR0_EL1.GIC: 1 where the board has the GICv3 system registers. */
static bool read_id(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    *value = cpu->sys.id[reg->key & 63];
    if (reg->id == SR_ID_AA64PFR0_EL1 && cpu->cluster->hooks.read)
        *value = bits_deposit(*value, 24, 4, 1);
    return true;
}

static bool read_ccsidr(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    uint64_t select = cpu->sys.csselr_el1;

    (void)reg;
    *value = select < ARRAY_LEN(cpu->model->ccsidr) ? cpu->model->ccsidr[select] : 0;
    return true;
}

static bool read_clidr(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = cpu->model->clidr;
    return true;
}

static bool read_ctr(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = cpu->model->ctr;
    return true;
}

/* DZP tells EL0 that DC ZVA would trap. */
static bool read_dczid(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    bool prohibited = cpu->el == 0 && !(cpu->sys.sctlr_el1 & SCTLR_DZE);

    (void)reg;
    *value = DCZID_BS | (prohibited ? 1 << 4 : 0);
    return true;
}

/* Non-secure external debug: implemented (the registers are there) and disabled.  No Secure state. */
static bool read_dbgauthstatus(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)cpu, (void)reg;
    *value = 0xa;
    return true;
}

/* --- control and translation --- */

static bool write_refresh(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    store_masked(cpu, reg, value, reg->mask);
    if (pmu_active(cpu) && (reg->id == SR_TTBR0_EL1 || reg->id == SR_TTBR1_EL1))
        pmu_count(cpu, PMU_TTBR_WRITE_RETIRED);
    cpu_refresh(cpu);
    return true;
}

static bool write_contextidr(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    store_masked(cpu, reg, value, reg->mask);
    if (pmu_active(cpu))
        pmu_count(cpu, PMU_CID_WRITE_RETIRED);
    return true;
}

/* What is not listed is RES0 or RES1 for want of big-endian data, AArch32 and later features; reset has it right. */
static bool write_sctlr(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    uint64_t mask = SCTLR_M | SCTLR_A | SCTLR_C | SCTLR_SA | SCTLR_SA0 | SCTLR_UMA | SCTLR_I | SCTLR_DZE | SCTLR_UCT |
                    SCTLR_nTWI | SCTLR_nTWE | SCTLR_WXN | SCTLR_UCI;

    if (cpu_has(cpu, FEAT_PAN))
        mask |= SCTLR_SPAN;
    if (cpu_has(cpu, FEAT_LSE2))
        mask |= SCTLR_nAA;
    if (cpu_has(cpu, FEAT_SPECRES))
        mask |= SCTLR_EnRCTX;
    store_masked(cpu, reg, value, mask);
    cpu_refresh(cpu);
    return true;
}

static bool write_tcr(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    uint64_t mask = UINT64_C(0x77ffffffbf); /* all of Armv8.0 */

    if (cpu_has(cpu, FEAT_HAF))
        mask |= BIT(39); /* HA */
    if (cpu_has(cpu, FEAT_HAFDBS))
        mask |= BIT(40); /* HD */
    if (cpu_has(cpu, FEAT_HPDS))
        mask |= BIT(41) | BIT(42); /* HPD0, HPD1 */
    store_masked(cpu, reg, value, mask);
    cpu_refresh(cpu);
    return true;
}

/* --- PSTATE and exceptions --- */

static bool write_spsr(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    store_masked(cpu, reg, value, sysreg_spsr_mask(cpu_has(cpu, FEAT_PAN), cpu_has(cpu, FEAT_UAO)));
    return true;
}

static bool read_sp_el0(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    if (!cpu->spsel)
        return undefined(cpu);
    *value = cpu->sp_el[0];
    return true;
}

static bool write_sp_el0(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    (void)reg;
    if (!cpu->spsel)
        return undefined(cpu);
    cpu->sp_el[0] = value;
    return true;
}

static bool read_spsel(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = cpu->spsel;
    return true;
}

static bool write_spsel(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    (void)reg;
    cpu_set_el_sp(cpu, 1, value & 1);
    return true;
}

static bool read_currentel(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = (uint64_t)cpu->el << 2;
    return true;
}

static bool read_pan(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = (uint64_t)cpu->pan << 22;
    return true;
}

static bool write_pan(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    (void)reg;
    cpu->pan = bits_test(value, 22);
    cpu_refresh(cpu);
    return true;
}

static bool read_uao(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = (uint64_t)cpu->uao << 23;
    return true;
}

static bool write_uao(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    (void)reg;
    cpu->uao = bits_test(value, 23);
    cpu_refresh(cpu);
    return true;
}

static bool read_nzcv(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = cpu->nzcv;
    return true;
}

static bool write_nzcv(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    (void)reg;
    cpu->nzcv = (uint32_t)value & 0xf0000000;
    return true;
}

static bool read_daif(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = cpu->daif;
    return true;
}

/* PSTATE.D decides about breakpoints and single step at EL1. */
static void set_daif(struct cpu *cpu, uint32_t daif)
{
    bool debug = (cpu->daif ^ daif) & DAIF_D;

    cpu->daif = daif;
    if (debug)
        debug_refresh(cpu);
}

static bool write_daif(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    (void)reg;
    set_daif(cpu, (uint32_t)value & (DAIF_D | DAIF_A | DAIF_I | DAIF_F));
    return true;
}

static bool read_fpcr(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = cpu->fp.fpcr;
    return true;
}

/* No trapped exceptions: the enables are RAZ/WI.  Len and Stride are AArch32's. */
static bool write_fpcr(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    uint32_t mask = FPCR_AHP | FPCR_DN | FPCR_FZ | FPCR_RMODE;

    (void)reg;
    if (cpu_has(cpu, FEAT_FP16))
        mask |= FPCR_FZ16;
    cpu->fp.fpcr = (uint32_t)value & mask;
    return true;
}

static bool read_fpsr(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    *value = cpu->fp.fpsr;
    return true;
}

static bool write_fpsr(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    (void)reg;
    cpu->fp.fpsr =
        (uint32_t)value & (FPSR_QC | FPSR_IDC | FPSR_IXC | FPSR_UFC | FPSR_OFC | FPSR_DZC | FPSR_IOC);
    return true;
}

static bool read_isr(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    unsigned pending = atomic_load(&cpu->pending);

    (void)reg;
    *value = (pending & PEND_SERROR ? 1 << 8 : 0) | (pending & PEND_IRQ ? 1 << 7 : 0) |
             (pending & PEND_FIQ ? 1 << 6 : 0);
    return true;
}

/* --- the board, IMPLEMENTATION DEFINED --- */

static bool read_board(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    const struct sysreg_hooks *hooks = &cpu->cluster->hooks;

    if (!hooks->read || !hooks->read(hooks->opaque, cpu->index, reg->key, value))
        return undefined(cpu);
    return true;
}

static bool write_board(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    const struct sysreg_hooks *hooks = &cpu->cluster->hooks;

    if (!hooks->write || !hooks->write(hooks->opaque, cpu->index, reg->key, value))
        return undefined(cpu);
    return true;
}

static bool read_impdef_a5x(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    return cpu->model->a5x ? read_zero(cpu, reg, value) : undefined(cpu);
}

static bool write_impdef_a5x(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    return cpu->model->a5x ? write_ignore(cpu, reg, value) : undefined(cpu);
}

/* Bits 25:24: the number of cores less one (two bits there, however many we have). */
static bool read_l2ctlr(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    (void)reg;
    if (!cpu->model->a5x)
        return undefined(cpu);
    *value = (uint64_t)(MIN(cpu->cluster->n, 4) - 1) << 24;
    return true;
}

/* --- maintenance --- */

static bool write_ic_all(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    (void)reg, (void)value;
    mem_code_stale_all(cpu->mem);
    return true;
}

/* ESR of a fault by maintenance: CM, and WnR, which is always 1 for it. */
static bool maintenance_fault(struct cpu *cpu, uint64_t va, unsigned fsc)
{
    cpu_take_sync(cpu, EC_DABT_LOWER, 1u << 8 | 1u << 6 | fsc, cpu->pc, va);
    return false;
}

/*
 * D7.5.9 (permissions of maintenance): EL0 needs to be able to read; EL1 needs no permission, and PAN does not count,
 * except that DC IVAC needs to write.
 */
static bool translate_for_maintenance(struct cpu *cpu, uint64_t va, bool invalidates, uint64_t *pa)
{
    enum mmu_view view = cpu->el == 0 ? VIEW_EL0 : VIEW_EL1;
    struct mmu_result r;
    struct tlb_hit hit;

    if (!invalidates && likely(tlb_lookup(cpu, va, MMU_READ, view, &hit) == FSC_NONE)) {
        *pa = hit.pa;
        return true;
    }
    if (!mmu_walk(cpu, va, WALK_READ, view, &r))
        return maintenance_fault(cpu, va, r.fsc);
    if ((view == VIEW_EL0 && !mmu_allows(r.perms, view, MMU_READ)) ||
        (invalidates && !mmu_allows(r.perms, view, MMU_WRITE)))
        return maintenance_fault(cpu, va, FSC_PERMISSION | r.level);
    *pa = r.pa;
    return true;
}

static bool write_ic_ivau(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    enum { LINE = 64 };
    uint64_t pa;

    (void)reg;
    if (!translate_for_maintenance(cpu, value, false, &pa))
        return false;
    mem_code_stale(cpu->mem, bits_align_down(pa, LINE), LINE);
    return true;
}

static bool write_dc_va(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    uint64_t pa;

    (void)reg;
    return translate_for_maintenance(cpu, value, false, &pa);
}

static bool write_dc_ivac(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    uint64_t pa;

    (void)reg;
    return translate_for_maintenance(cpu, value, true, &pa);
}

static bool write_dc_zva(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    (void)reg;
    return access_zero(cpu, value, ZVA_BYTES);
}

/* op2: E1R, E1W, E0R, E0W; CRm 9: E1RP and E1WP, which heed PAN. */
static bool write_at(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    unsigned op2 = key_op2(reg);
    enum mmu_view view = op2 & 2 ? VIEW_EL0 : VIEW_EL1;

    if (key_crm(reg) == 9 && cpu->pan)
        view = VIEW_EL1_PAN;
    return mmu_at(cpu, value, view, op2 & 1, &cpu->sys.par_el1);
}

/* CRm 7 is this PE only; 3 and 1 are all PEs. */
static bool write_tlbi(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    static const uint8_t kinds[8] = {
        [0] = TLBI_ALL, [1] = TLBI_VA, [2] = TLBI_ASID, [3] = TLBI_VAA, [5] = TLBI_VA, [7] = TLBI_VAA,
    };

    tlb_maintain(cpu, kinds[key_op2(reg)], value, key_crm(reg) != 7);
    return true;
}

/*
 * C5.5.66: ASID 63:48, TG 47:46, SCALE 45:44, NUM 43:39, BaseADDR 36:0 in granules.  A long range invalidates
 * everything, which is always allowed (D8.14.5).
 */
static bool write_tlbi_range(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    enum { FEW = 32 };
    unsigned tg = value >> 46 & 3, granule = tg == 2 ? 14 : tg == 3 ? 16 : 12;
    uint64_t pages = ((value >> 39 & 31) + 1) << (5 * (value >> 44 & 3) + 1);
    uint64_t va = (uint64_t)bits_sext(value, 37) << granule;
    enum tlbi_kind kind = key_op2(reg) & 2 ? TLBI_VAA : TLBI_VA;
    bool broadcast = key_crm(reg) != 6;

    if (pages > FEW)
        tlb_maintain(cpu, TLBI_ALL, 0, broadcast);
    for (uint64_t i = 0; pages <= FEW && i < pages; i++, va += BIT(granule))
        tlb_maintain(cpu, kind, (value & UINT64_C(0xffff) << 48) | bits_extract(va, 12, 44), broadcast);
    return true;
}

/* --- the table --- */

#define read_plain  NULL
#define read_none   NULL
#define read_timer  timer_read
#define read_pmu    pmu_read
#define read_debug  debug_read
#define write_plain NULL
#define write_none  NULL
#define write_timer timer_write
#define write_pmu   pmu_write
#define write_debug debug_write

static const struct sysreg table[SR_COUNT] = {
#define STORED(name, op0, op1, crn, crm, op2, access, feat, trap, field, reset, mask, rd, wr)                          \
    { #name, SR_##name, SYSREG_KEY(op0, op1, crn, (crm), op2), SYSREG_##access, SYSREG_TRAP_##trap, FEAT_##feat,       \
      true, offsetof(struct sysregs, field), reset, mask, read_##rd, write_##wr },
#define VIEW(name, op0, op1, crn, crm, op2, access, feat, trap, rd, wr)                                                \
    { #name, SR_##name, SYSREG_KEY(op0, op1, crn, (crm), op2), SYSREG_##access, SYSREG_TRAP_##trap, FEAT_##feat,       \
      false, 0, 0, 0, read_##rd, write_##wr },
#include "isa/sysregs.def"
#undef STORED
#undef VIEW
};

static uint16_t index_of[1 << 16]; /* key -> row + 1; 0: none */
static pthread_once_t index_once = PTHREAD_ONCE_INIT;

static void build_index(void)
{
    for (unsigned i = 0; i < SR_COUNT; i++) {
        if (index_of[table[i].key])
            BUG("sysregs.def: %s and %s have the same encoding", table[i].name, table[index_of[table[i].key] - 1].name);
        index_of[table[i].key] = (uint16_t)(i + 1);
    }
}

static const struct sysreg *lookup(uint32_t key)
{
    unsigned row = index_of[key & 0xffff];

    return row ? &table[row - 1] : NULL;
}

const struct sysreg *sysreg_find(uint32_t key)
{
    pthread_once(&index_once, build_index);
    return key < ARRAY_LEN(index_of) ? lookup(key) : NULL;
}

const struct sysreg *sysreg_find_name(const char *name)
{
    for (unsigned i = 0; i < SR_COUNT; i++)
        if (!g_ascii_strcasecmp(table[i].name, name))
            return &table[i];
    return NULL;
}

const struct sysreg *sysreg_table(size_t *n)
{
    pthread_once(&index_once, build_index);
    *n = SR_COUNT;
    return table;
}

bool sysreg_peek(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    if (!cpu_has(cpu, reg->feature) || reg->key >> 14 == 1 || (reg->access & 3) == 2 || reg->read == read_board)
        return false;
    if ((reg->read == read_impdef_a5x || reg->read == read_l2ctlr) && !cpu->model->a5x)
        return false;
    if (reg->id == SR_SP_EL0) {
        *value = cpu->el && cpu->spsel ? cpu->sp_el[0] : cpu->x[31];
        return true;
    }
    if (!reg->read) {
        *value = *field(cpu, reg);
        return true;
    }
    if (reg->read == pmu_read || reg->read == debug_read)
        return (reg->read == pmu_read ? pmu_exists(reg) : debug_exists(reg)) && reg->read(cpu, reg, value);
    return reg->read(cpu, reg, value);
}

bool sysreg_poke(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    uint64_t old;

    if (!sysreg_peek(cpu, reg, &old) || reg->access >> 2 > 1)
        return false;
    if (reg->id == SR_SP_EL0) {
        *(cpu->el && cpu->spsel ? &cpu->sp_el[0] : &cpu->x[31]) = value;
        return true;
    }
    if (reg->write)
        return reg->write(cpu, reg, value);
    store_masked(cpu, reg, value, reg->mask);
    return true;
}

/* --- access rules --- */

/* PMUSERENR_EL0: EN, SW, CR, ER. */
static bool pmu_allows(uint64_t enr, enum sysreg_trap rule, bool write)
{
    enum { EN = 1, SW = 2, CR = 4, ER = 8 };

    switch (rule) {
    case SYSREG_TRAP_PMU_SW: return enr & (EN | SW);
    case SYSREG_TRAP_PMU_CR: return enr & (write ? EN : EN | CR);
    case SYSREG_TRAP_PMU_ER: return enr & (EN | ER);
    case SYSREG_TRAP_PMU_ER_RD: return enr & (write ? EN : EN | ER);
    default: return enr & EN;
    }
}

/* CNTKCTL_EL1: EL0PCTEN 0, EL0VCTEN 1, EL0VTEN 8, EL0PTEN 9. */
static bool cntkctl_allows(uint64_t ctl, enum sysreg_trap rule)
{
    switch (rule) {
    case SYSREG_TRAP_CNTFRQ: return ctl & 3;
    case SYSREG_TRAP_CNTPCT: return ctl & 1;
    case SYSREG_TRAP_CNTVCT: return ctl & 2;
    case SYSREG_TRAP_CNTV: return bits_test(ctl, 8);
    default: return bits_test(ctl, 9);
    }
}

static bool el0_allows(const struct cpu *cpu, enum sysreg_trap rule, bool write)
{
    const struct sysregs *s = &cpu->sys;

    switch (rule) {
    case SYSREG_TRAP_UCT: return s->sctlr_el1 & SCTLR_UCT;
    case SYSREG_TRAP_UCI: return s->sctlr_el1 & SCTLR_UCI;
    case SYSREG_TRAP_DZE: return s->sctlr_el1 & SCTLR_DZE;
    case SYSREG_TRAP_UMA: return s->sctlr_el1 & SCTLR_UMA;
    case SYSREG_TRAP_RCTX: return s->sctlr_el1 & SCTLR_EnRCTX;
    case SYSREG_TRAP_CNTFRQ:
    case SYSREG_TRAP_CNTPCT:
    case SYSREG_TRAP_CNTVCT:
    case SYSREG_TRAP_CNTP:
    case SYSREG_TRAP_CNTV: return cntkctl_allows(s->cntkctl_el1, rule);
    case SYSREG_TRAP_PMU_EN:
    case SYSREG_TRAP_PMU_SW:
    case SYSREG_TRAP_PMU_CR:
    case SYSREG_TRAP_PMU_ER:
    case SYSREG_TRAP_PMU_ER_RD: return pmu_allows(s->pmuserenr_el0, rule, write);
    case SYSREG_TRAP_TDCC: return !bits_test(s->mdscr_el1, 12);
    default: return true;
    }
}

/* ISS of EC 0x18 (D23.2.37): the encoding, Rt and the direction. */
static uint32_t sysreg_iss(uint32_t key, unsigned rt, bool read)
{
    uint32_t op0 = key >> 14 & 3, op1 = key >> 11 & 7, crn = key >> 7 & 15, crm = key >> 3 & 15, op2 = key & 7;

    return op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | read;
}

/* True: go on.  False: trapped. */
static bool check_trap(struct cpu *cpu, const struct sysreg *reg, unsigned rt, bool write)
{
    if (reg->trap == SYSREG_TRAP_FPEN) {
        if (cpu->fp_enabled)
            return true;
        cpu_take_sync(cpu, EC_FP_ACCESS, 1u << 24 | 0xeu << 20, cpu->pc, 0);
        return false;
    }
    if (cpu->el != 0 || el0_allows(cpu, reg->trap, write))
        return true;
    cpu_take_sync(cpu, EC_SYSREG, sysreg_iss(reg->key, rt, !write), cpu->pc, 0);
    return false;
}

/* op0 3, op1 0, CRn 0, CRm 1 to 7. */
static bool in_id_space(uint32_t key)
{
    return (key & ~0x7fu) == SYSREG_KEY(3, 0, 0, 0, 0) && (key >> 3 & 15) >= 1 && (key >> 3 & 15) <= 7;
}

static bool unknown(struct cpu *cpu, uint32_t key, const char *what)
{
    const struct sysreg *reg = lookup(key);

    trace(UNIMP, "cpu %u pc %#" PRIx64 ": %s of %s S%u_%u_C%u_C%u_%u at EL%u is UNDEFINED", cpu->index, cpu->pc, what,
          reg ? reg->name : "unknown", key >> 14 & 3, key >> 11 & 7, key >> 7 & 15, key >> 3 & 15, key & 7, cpu->el);
    return undefined(cpu);
}

static bool read_register(struct cpu *cpu, const struct sysreg *reg, uint32_t key, unsigned rt, uint64_t *value)
{
    if (unlikely(!reg)) {
        if (cpu->el == 0 || !in_id_space(key))
            return unknown(cpu, key, "MRS");
        *value = 0;
        return true;
    }
    if (unlikely(cpu->el < (reg->access & 3) || !cpu_has(cpu, reg->feature)))
        return unknown(cpu, key, "MRS");
    if (reg->trap && !check_trap(cpu, reg, rt, false))
        return false;
    if (!reg->read) {
        *value = *field(cpu, reg);
        return true;
    }
    return reg->read(cpu, reg, value);
}

bool cpu_sysreg_read(struct cpu *cpu, uint32_t key, unsigned rt, uint64_t *value)
{
    const struct sysreg *reg = lookup(key);
    bool ok = read_register(cpu, reg, key, rt, value);

    if (unlikely(trace_on(SYSREG)) && ok && reg)
        trace(SYSREG, "cpu %u pc %#" PRIx64 "%s: %s -> %#" PRIx64, cpu->index, cpu->pc, cpu->el ? trace_name(cpu->pc) : "",
              reg->name, *value);
    return ok;
}

bool cpu_sysreg_write(struct cpu *cpu, uint32_t key, unsigned rt, uint64_t value)
{
    const struct sysreg *reg = lookup(key);

    if (unlikely(trace_on(SYSREG)) && reg)
        trace(SYSREG, "cpu %u pc %#" PRIx64 "%s: %s <- %#" PRIx64, cpu->index, cpu->pc, cpu->el ? trace_name(cpu->pc) : "",
              reg->name, value);
    if (unlikely(!reg || cpu->el < reg->access >> 2 || !cpu_has(cpu, reg->feature)))
        return unknown(cpu, key, "MSR");
    if (reg->trap && !check_trap(cpu, reg, rt, true))
        return false;
    if (!reg->write) {
        store_masked(cpu, reg, value, reg->mask);
        return true;
    }
    return reg->write(cpu, reg, value);
}

/* --- MSR (immediate): C6.2.230; of PAN, UAO and SPSel bit 0 of the immediate counts --- */

/* At EL0 only DAIFSet and DAIFClr exist, where UMA allows; they trap as MSR with Rt = 31 and CRm the immediate. */
static bool msr_daif(struct cpu *cpu, bool set, unsigned op2, unsigned imm)
{
    uint32_t bits = imm << 6;

    if (cpu->el == 0 && !(cpu->sys.sctlr_el1 & SCTLR_UMA)) {
        cpu_take_sync(cpu, EC_SYSREG, sysreg_iss(SYSREG_KEY(0u, 3, 4, imm, op2), 31, false), cpu->pc, 0);
        return false;
    }
    set_daif(cpu, set ? cpu->daif | bits : cpu->daif & ~bits);
    return true;
}

bool cpu_msr_imm(struct cpu *cpu, unsigned op1, unsigned op2, unsigned imm)
{
    switch (op1 << 3 | op2) {
    case 3 << 3 | 6:
        return msr_daif(cpu, true, op2, imm);
    case 3 << 3 | 7:
        return msr_daif(cpu, false, op2, imm);
    case 0 << 3 | 5:
        return cpu->el == 0 ? undefined(cpu) : write_spsel(cpu, NULL, imm);
    case 0 << 3 | 4:
        return cpu->el == 0 || !cpu_has(cpu, FEAT_PAN) ? undefined(cpu) : write_pan(cpu, NULL, (uint64_t)imm << 22);
    case 0 << 3 | 3:
        return cpu->el == 0 || !cpu_has(cpu, FEAT_UAO) ? undefined(cpu) : write_uao(cpu, NULL, (uint64_t)imm << 23);
    default:
        return undefined(cpu);
    }
}
