/*
 * The translation table walk of the EL1&0 regime, stage 1 (DDI0487 D8.2 to D8.5): VMSAv8-64 with 4, 16 and 64 KiB
 * granules, 48-bit addresses, hierarchical attributes, access flag and dirty state by hardware, WXN, PAN, TBI.
 *
 * Left out, as no model has them: stage 2, 52-bit addresses (LPA, LVA), small translation tables (TTST), big-endian
 * tables, tables in device memory (external abort).  The Contiguous bit is a hint (D8.6.1) and is not used.
 *
 * Threads: other vCPUs change tables while we read them: descriptors are read once, atomically, and updated by
 * compare-and-swap; when that fails the walk starts again.
 */
#include "cpu/mmu.h"

#include <inttypes.h>

#include "base/bits.h"
#include "base/trace.h"
#include "cpu/cpu.h"

/* TCR_EL1 */
#define TCR_TnSZ(tcr, hi) ((unsigned)((tcr) >> ((hi) ? 16 : 0)) & 63)
#define TCR_EPDn(tcr, hi) ((tcr) >> ((hi) ? 23 : 7) & 1)
#define TCR_TBIn(tcr, hi) ((tcr) >> ((hi) ? 38 : 37) & 1)
#define TCR_HPDn(tcr, hi) ((tcr) >> ((hi) ? 42 : 41) & 1)
#define TCR_A1(tcr)       ((tcr) >> 22 & 1)
#define TCR_AS(tcr)       ((tcr) >> 36 & 1)
#define TCR_IPS(tcr)      ((unsigned)((tcr) >> 32) & 7)
#define TCR_HA(tcr)       ((tcr) >> 39 & 1)
#define TCR_HD(tcr)       ((tcr) >> 40 & 1)

/* Descriptors (D8.3) */
#define DESC_VALID    BIT(0)
#define DESC_TABLE    BIT(1)
#define DESC_EL0      BIT(6)  /* AP[1] */
#define DESC_RO       BIT(7)  /* AP[2] */
#define DESC_AF       BIT(10)
#define DESC_NG       BIT(11)
#define DESC_DBM      BIT(51)
#define DESC_PXN      BIT(53)
#define DESC_UXN      BIT(54)
#define DESC_ADDR     UINT64_C(0x0000fffffffff000)
#define TABLE_PXN     BIT(59)
#define TABLE_UXN     BIT(60)
#define TABLE_NO_EL0  BIT(61) /* APTable[0] */
#define TABLE_RO      BIT(62) /* APTable[1] */
#define TABLE_ATTRS   (TABLE_PXN | TABLE_UXN | TABLE_NO_EL0 | TABLE_RO)

enum { MMFR0 = 7 * 8, ATTR_DEVICE_nGnRnE = 0, ATTR_NORMAL_NC = 0x44 };

/* One walk: what the registers say about the half that va lies in, and where the walk stands. */
struct walk {
    struct cpu *cpu;
    uint64_t va, tcr;
    enum mmu_walk_mode mode;
    bool hi;
    unsigned granule; /* log2 */
    unsigned input;   /* bits of the input address */
    unsigned pa_bits;
    unsigned level;
    uint64_t table;   /* pa */
    uint64_t inherited;
    uint64_t desc;
    uint64_t *slot;   /* where desc came from */
    bool slot_writable;
};

static unsigned pa_bits_of(unsigned range)
{
    static const uint8_t bits[8] = {32, 36, 40, 42, 44, 48, 48, 48};

    return bits[range & 7];
}

static unsigned model_pa_bits(const struct cpu *cpu)
{
    return pa_bits_of(cpu->sys.id[MMFR0] & 15);
}

bool mmu_tbi(const struct cpu *cpu, uint64_t va)
{
    return TCR_TBIn(cpu->sys.tcr_el1, va >> 55 & 1);
}

uint16_t mmu_asid_mask(const struct cpu *cpu)
{
    bool asid16 = (cpu->sys.id[MMFR0] >> 4 & 15) >= 2;

    return asid16 && TCR_AS(cpu->sys.tcr_el1) ? 0xffff : 0xff;
}

uint16_t mmu_asid(const struct cpu *cpu)
{
    uint64_t ttbr = TCR_A1(cpu->sys.tcr_el1) ? cpu->sys.ttbr1_el1 : cpu->sys.ttbr0_el1;

    return (uint16_t)(ttbr >> 48) & mmu_asid_mask(cpu);
}

static bool fault(struct mmu_result *r, unsigned fsc, unsigned level)
{
    r->fsc = (uint8_t)(fsc | level);
    r->level = (uint8_t)level;
    return false;
}

/* ---- MMU off (D8.2.11): flat, all permitted; data is Device-nGnRnE, so that alignment is checked ---- */

static bool walk_flat(struct cpu *cpu, uint64_t va, struct mmu_result *r)
{
    uint64_t pa = mmu_tbi(cpu, va) ? va & bits_mask(56) : va;

    if (pa >> model_pa_bits(cpu))
        return fault(r, FSC_ADDRESS_SIZE, 0);
    r->fsc = FSC_NONE;
    r->perms = MMU_R0 | MMU_W0 | MMU_X0 | MMU_R1 | MMU_W1 | MMU_X1;
    r->attr = ATTR_DEVICE_nGnRnE;
    r->sh = 2;
    r->shift = MEM_PAGE_SHIFT;
    r->level = 0;
    r->global = false;
    r->device = true;
    r->pa = pa;
    return true;
}

/* ---- the walk ---- */

/*
 * log2 of the granule.  TG0 and TG1 have different encodings; a reserved one, or a size that the model lacks, is
 * treated as 4 KiB, which every model has (D19.2.139: an IMPLEMENTATION DEFINED choice).
 */
static unsigned granule_shift(const struct cpu *cpu, uint64_t tcr, bool hi)
{
    static const uint8_t tg0[4] = {12, 16, 14, 12}, tg1[4] = {12, 14, 12, 16};
    unsigned shift = hi ? tg1[tcr >> 30 & 3] : tg0[tcr >> 14 & 3];

    if (shift == 14 && (cpu->sys.id[MMFR0] >> 20 & 15) == 0)
        return 12;
    if (shift == 16 && (cpu->sys.id[MMFR0] >> 24 & 15) == 15)
        return 12;
    return shift;
}

/* TnSZ outside 16 to 39 acts as the nearest legal value (D8.2.5, CONSTRAINED UNPREDICTABLE). */
static unsigned input_bits(uint64_t tcr, bool hi)
{
    unsigned size = TCR_TnSZ(tcr, hi);

    return 64 - (size < 16 ? 16 : size > 39 ? 39 : size);
}

/* False: va lies in no half, or its walks are disabled: a level 0 Translation fault. */
static bool walk_begin(struct walk *w)
{
    unsigned top = TCR_TBIn(w->tcr, w->va >> 55 & 1) ? 56 : 64, stride, ips;
    uint64_t ttbr, high;

    w->hi = w->va >> 55 & 1;
    w->granule = granule_shift(w->cpu, w->tcr, w->hi);
    w->input = input_bits(w->tcr, w->hi);
    high = bits_extract(w->va, w->input, top - w->input);
    if (high != (w->hi ? bits_mask(top - w->input) : 0) || TCR_EPDn(w->tcr, w->hi))
        return false;

    ips = pa_bits_of(TCR_IPS(w->tcr));
    w->pa_bits = model_pa_bits(w->cpu) < ips ? model_pa_bits(w->cpu) : ips;
    stride = w->granule - 3;
    w->level = 4 - (w->input - w->granule + stride - 1) / stride;
    ttbr = (w->hi ? w->cpu->sys.ttbr1_el1 : w->cpu->sys.ttbr0_el1) & bits_mask(48);
    /* The first table may be smaller than a granule; it is aligned to its size. */
    w->table = ttbr & ~bits_mask(w->input - (w->granule + stride * (3 - w->level)) + 3) & ~UINT64_C(1);
    w->inherited = 0;
    return true;
}

static unsigned level_shift(const struct walk *w)
{
    return w->granule + (w->granule - 3) * (3 - w->level);
}

/* Reads the descriptor of va at the current level; false: the table is not in memory. */
static bool read_descriptor(struct walk *w)
{
    unsigned shift = level_shift(w), top = shift + w->granule - 3;
    uint64_t index, pa;
    uint8_t *page;

    top = top > w->input ? w->input : top;
    index = bits_extract(w->va, shift, top - shift);
    pa = w->table + index * 8;
    page = mem_page_hva(w->cpu->mem, pa, &w->slot_writable);
    if (!page)
        return false;
    w->slot = (uint64_t *)(void *)(page + pa % MEM_PAGE_SIZE);
    w->desc = __atomic_load_n(w->slot, __ATOMIC_ACQUIRE);
    return true;
}

static bool is_block(const struct walk *w)
{
    if (w->level == 3)
        return w->desc & DESC_TABLE;
    return !(w->desc & DESC_TABLE) && (w->level == 2 || (w->level == 1 && w->granule == 12));
}

/* Down to the descriptor that maps va, or a fault. */
static bool walk_tables(struct walk *w, struct mmu_result *r)
{
    bool flat_perms = cpu_has(w->cpu, FEAT_HPDS) && TCR_HPDn(w->tcr, w->hi);

    if (w->table >> w->pa_bits)
        return fault(r, FSC_ADDRESS_SIZE, 0);
    for (;; w->level++) {
        if (!read_descriptor(w))
            return fault(r, FSC_WALK_EXTERNAL, w->level);
        if (!(w->desc & DESC_VALID))
            return fault(r, FSC_TRANSLATION, w->level);
        if (is_block(w))
            break;
        if (w->level == 3 || !(w->desc & DESC_TABLE))
            return fault(r, FSC_TRANSLATION, w->level);
        w->table = w->desc & DESC_ADDR & ~bits_mask(w->granule);
        if (w->table >> w->pa_bits)
            return fault(r, FSC_ADDRESS_SIZE, w->level);
        if (!flat_perms)
            w->inherited |= w->desc & TABLE_ATTRS;
    }
    r->pa = w->desc & DESC_ADDR & ~bits_mask(level_shift(w));
    if (r->pa >> w->pa_bits)
        return fault(r, FSC_ADDRESS_SIZE, w->level);
    r->pa |= w->va & bits_mask(level_shift(w));
    return true;
}

/* ---- permissions (D8.4) ---- */

static bool managed_dirty(const struct walk *w)
{
    return cpu_has(w->cpu, FEAT_HAFDBS) && TCR_HA(w->tcr) && TCR_HD(w->tcr) && (w->desc & DESC_DBM);
}

/* `writable': AP[2] as it would be after hardware has marked the page dirty. */
static unsigned permissions(const struct walk *w, bool writable)
{
    bool el0 = (w->desc & DESC_EL0) && !(w->inherited & TABLE_NO_EL0);
    bool store = writable && !(w->inherited & TABLE_RO);
    bool uxn = (w->desc & DESC_UXN) || (w->inherited & TABLE_UXN);
    bool pxn = (w->desc & DESC_PXN) || (w->inherited & TABLE_PXN);
    bool wxn = w->cpu->sys.sctlr_el1 & SCTLR_WXN;
    unsigned perms = MMU_R1;

    if (store)
        perms |= MMU_W1;
    if (el0)
        perms |= store ? MMU_R0 | MMU_W0 : MMU_R0;
    if (!uxn && !(wxn && (perms & MMU_W0)))
        perms |= MMU_X0;
    /* What EL0 can write is never executable at EL1 (D8.4.1). */
    if (!pxn && !(perms & MMU_W0) && !(wxn && (perms & MMU_W1)))
        perms |= MMU_X1;
    return perms;
}

bool mmu_allows(unsigned perms, enum mmu_view view, unsigned access)
{
    bool el0 = view == VIEW_EL0;

    access &= MMU_KIND;
    if (view == VIEW_EL1_PAN && access != MMU_EXEC && (perms & MMU_R0))
        return false;
    if (access == MMU_EXEC)
        return perms & (el0 ? MMU_X0 : MMU_X1);
    if ((access == MMU_READ || access == MMU_RMW) && !(perms & (el0 ? MMU_R0 : MMU_R1)))
        return false;
    return access == MMU_READ || (perms & (el0 ? MMU_W0 : MMU_W1));
}

/* ---- access flag and dirty state (D8.5) ---- */

/* False: somebody changed the descriptor meanwhile: walk again. */
static bool update_descriptor(struct walk *w, uint64_t set, uint64_t clear)
{
    uint64_t old = w->desc;

    if (!__atomic_compare_exchange_n(w->slot, &old, (old | set) & ~clear, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return false;
    w->desc = (w->desc | set) & ~clear;
    return true;
}

static bool hardware_af(const struct walk *w)
{
    return cpu_has(w->cpu, FEAT_HAF) && TCR_HA(w->tcr);
}

static void fill_result(const struct walk *w, unsigned perms, struct mmu_result *r)
{
    r->fsc = FSC_NONE;
    r->perms = (uint8_t)perms;
    r->attr = (uint8_t)(w->cpu->sys.mair_el1 >> (w->desc >> 2 & 7) * 8);
    r->sh = w->desc >> 8 & 3;
    r->shift = (uint8_t)level_shift(w);
    r->level = (uint8_t)w->level;
    r->global = !(w->desc & DESC_NG);
    r->device = !(r->attr & 0xf0);
}

enum step { STEP_DONE, STEP_FAULT, STEP_AGAIN };

/*
 * The hardware-managed state that this walk leaves the descriptor with; perms as they are then.  A descriptor that
 * cannot be written (a table in ROM) makes the update an external abort on the walk.
 */
static enum step manage_state(struct walk *w, enum mmu_view view, unsigned *perms, struct mmu_result *r)
{
    bool looking = w->mode == WALK_QUIET || w->mode == WALK_AT;
    uint64_t set = w->desc & DESC_AF ? 0 : DESC_AF, clear = 0;

    *perms = permissions(w, !(w->desc & DESC_RO));
    if ((w->desc & DESC_RO) && managed_dirty(w)) {
        unsigned dirty = permissions(w, true);

        if (w->mode == WALK_WRITE && mmu_allows(dirty, view, MMU_WRITE))
            clear = DESC_RO;
        if (looking || clear)
            *perms = dirty;
    }
    if (looking || !(set | clear))
        return STEP_DONE;
    if (!w->slot_writable) {
        fault(r, FSC_WALK_EXTERNAL, w->level);
        return STEP_FAULT;
    }
    return update_descriptor(w, set, clear) ? STEP_DONE : STEP_AGAIN;
}

static enum step walk_once(struct walk *w, enum mmu_view view, struct mmu_result *r)
{
    enum step step;
    unsigned perms;

    if (!walk_begin(w)) {
        fault(r, FSC_TRANSLATION, 0);
        return STEP_FAULT;
    }
    if (!walk_tables(w, r))
        return STEP_FAULT;
    if (!(w->desc & DESC_AF) && w->mode != WALK_QUIET && !hardware_af(w)) {
        fault(r, FSC_ACCESS_FLAG, w->level);
        return STEP_FAULT;
    }
    step = manage_state(w, view, &perms, r);
    if (step == STEP_DONE)
        fill_result(w, perms, r);
    return step;
}

bool mmu_walk(struct cpu *cpu, uint64_t va, enum mmu_walk_mode mode, enum mmu_view view, struct mmu_result *result)
{
    struct walk w = {.cpu = cpu, .va = va, .tcr = cpu->sys.tcr_el1, .mode = mode};
    enum step step;

    if (!(cpu->sys.sctlr_el1 & SCTLR_M))
        return walk_flat(cpu, va, result);
    do
        step = walk_once(&w, view, result);
    while (step == STEP_AGAIN);
    trace(MMU, "cpu%u walk va=%#" PRIx64 " pa=%#" PRIx64 " fsc=%#x perms=%#x level=%u", cpu->index, va,
          step == STEP_DONE ? result->pa : 0, result->fsc, step == STEP_DONE ? result->perms : 0, result->level);
    return step == STEP_DONE;
}

/* ---- from the CPU's own state ---- */

enum mmu_view mmu_data_view(const struct cpu *cpu, bool unpriv)
{
    if (cpu->el == 0 || (unpriv && !cpu->uao))
        return VIEW_EL0;
    return cpu->pan ? VIEW_EL1_PAN : VIEW_EL1;
}

bool mmu_translate(struct cpu *cpu, uint64_t va, unsigned access, bool unpriv, struct mmu_result *result)
{
    unsigned kind = access & MMU_KIND;
    enum mmu_view view = kind == MMU_EXEC ? (cpu->el ? VIEW_EL1 : VIEW_EL0) : mmu_data_view(cpu, unpriv);
    enum mmu_walk_mode mode = kind == MMU_WRITE || kind == MMU_RMW ? WALK_WRITE : WALK_READ;

    if (!mmu_walk(cpu, va, mode, view, result))
        return false;
    return mmu_allows(result->perms, view, kind) || fault(result, FSC_PERMISSION, result->level);
}

/* PAR_EL1 of a success (D19.2.103): ATTR, PA and SH, with Device and Non-cacheable reported Outer Shareable. */
static uint64_t par_of(const struct mmu_result *r)
{
    unsigned sh = r->device || r->attr == ATTR_NORMAL_NC ? 2 : r->sh;

    return (uint64_t)r->attr << 56 | (r->pa & DESC_ADDR) | BIT(11) | sh << 7;
}

bool mmu_at(struct cpu *cpu, uint64_t va, enum mmu_view view, bool write, uint64_t *par)
{
    struct mmu_result r;

    if (mmu_walk(cpu, va, WALK_AT, view, &r) && !mmu_allows(r.perms, view, write ? MMU_WRITE : MMU_READ))
        fault(&r, FSC_PERMISSION, r.level);
    if (r.fsc == FSC_NONE) {
        *par = par_of(&r);
        return true;
    }
    if ((r.fsc & ~3u) == FSC_WALK_EXTERNAL) {
        cpu_take_sync(cpu, EC_DABT_LOWER, 1u << 8 | 1u << 6 | r.fsc, cpu->pc, va);
        return false;
    }
    *par = BIT(11) | (uint64_t)r.fsc << 1 | 1;
    return true;
}

bool cpu_debug_translate(struct cpu *cpu, uint64_t va, uint64_t *pa)
{
    struct mmu_result r;

    if (!mmu_walk(cpu, va, WALK_QUIET, VIEW_EL1, &r))
        return false;
    *pa = r.pa;
    return true;
}
