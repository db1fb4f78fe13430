/*
 * cpu/: translation, TLB maintenance, accesses and their faults, and the threads around them.
 *
 * Guest code is not run: the engine here calls C functions, so that what a vCPU does between two checks is exactly known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>
#include <glib.h>

#include "base/bits.h"
#include "cpu/access.h"
#include "cpu/cluster.h"
#include "cpu/cpu.h"
#include "cpu/mmu.h"
#include "cpu/timer.h"
#include "cpu/tlb.h"

#define RAM_BASE UINT64_C(0x40000000)
#define RAM_SIZE (UINT64_C(128) << 20)
#define TABLES   (RAM_BASE + (UINT64_C(16) << 20))
#define DATA     (RAM_BASE + (UINT64_C(64) << 20)) /* 64 MiB-aligned within RAM: fits blocks of 32 MiB */
#define DEVICE   UINT64_C(0x09000000)
#define NOWHERE  UINT64_C(0x0b000000)

enum { D_VALID = 1, D_TABLE = 2, D_PAGE = 3, D_BLOCK = 1, D_EL0 = 1 << 6, D_RO = 1 << 7, D_AF = 1 << 10, D_NG = 1 << 11 };
#define D_PXN BIT(53)
#define D_UXN BIT(54)
#define D_DBM BIT(51)
#define D_ATTR(n) ((uint64_t)(n) << 2)
enum { ATTR_NORMAL = 0, ATTR_DEVICE = 1 };

/* ---- a machine of bare vCPUs ---- */

static void (*guest_fn)(struct cpu *cpu); /* what the engine runs; returns when cpu_must_leave() */

static void test_init(struct cpu *cpu) {}
static void test_run(struct cpu *cpu) { guest_fn(cpu); }
static const struct cpu_engine test_engine = {
    .name = "test", .init = test_init, .fini = test_init, .run = test_run, .flush = test_init,
};

struct world {
    struct mem *mem;
    struct cluster *cl;
    struct cpu *cpu;
    uint64_t next_table;
    struct mem_region device;
    uint64_t device_value;
};

static uint64_t device_read(void *dev, uint64_t off, unsigned size)
{
    struct world *w = dev;

    return w->device_value + off;
}

static void device_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct world *w = dev;

    w->device_value = value;
}

static const struct mem_ops device_ops = {.read = device_read, .write = device_write};

/* ID_AA64MMFR0_EL1.PARange, whatever the model says. */
static void bits_44(struct cpu *cpu)
{
    cpu->sys.id[7 * 8] = bits_deposit(cpu->sys.id[7 * 8], 0, 4, 4);
}

static int setup_model(void **state, const char *model, unsigned n)
{
    struct world *w = g_new0(struct world, 1);

    w->mem = mem_new(RAM_BASE, RAM_SIZE);
    w->device = (struct mem_region){.name = "dev", .base = DEVICE, .size = 0x1000, .ops = &device_ops, .dev = w,
                                    .enabled = true};
    mem_add_region(w->mem, &w->device);
    w->cl = cluster_new(n, w->mem, cpu_model_find(model), &test_engine);
    w->cpu = w->cl->cpu[0];
    bits_44(w->cpu);
    for (unsigned i = 0; i < n; i++)
        cpu_reset(w->cl->cpu[i], RAM_BASE, 0);
    w->next_table = TABLES;
    *state = w;
    return 0;
}

static int setup_a57(void **state) { return setup_model(state, "cortex-a57", 1); }
static int setup_max(void **state) { return setup_model(state, "max", 1); }
static int setup_smp(void **state) { return setup_model(state, "max", 4); }

static int teardown(void **state)
{
    struct world *w = *state;

    cluster_free(w->cl);
    mem_free(w->mem);
    g_free(w);
    return 0;
}

static uint64_t *ram(struct world *w, uint64_t pa)
{
    return (uint64_t *)(void *)mem_span(w->mem, pa, 8).hva;
}

/* ---- tables, built by rules of their own ---- */

struct regime {
    unsigned granule, input;
    bool hi;
};

static unsigned bits_at(const struct regime *r, unsigned level)
{
    return r->granule + (r->granule - 3) * (3 - level);
}

static unsigned start_level(const struct regime *r)
{
    unsigned level = 3;

    while (bits_at(r, level) + r->granule - 3 < r->input)
        level--;
    return level;
}

static uint64_t new_table(struct world *w, const struct regime *r)
{
    uint64_t size = BIT(r->granule), pa = bits_align_up(w->next_table, size);

    memset(ram(w, pa), 0, size);
    w->next_table = pa + size;
    return pa;
}

/* Points TCR, TTBR and MAIR at an empty table and turns the MMU on. */
static uint64_t enter(struct world *w, const struct regime *r)
{
    static const uint8_t tg0[] = {[12] = 0, [14] = 2, [16] = 1}, tg1[] = {[12] = 2, [14] = 1, [16] = 3};
    uint64_t table = new_table(w, r), tcr = (uint64_t)5 << 32;
    struct sysregs *sys = &w->cpu->sys;

    tcr |= r->hi ? (64 - r->input) << 16 | (uint64_t)tg1[r->granule] << 30 | 1 << 7 | 25
                 : (64 - r->input) | (uint64_t)tg0[r->granule] << 14 | 1 << 23 | 25 << 16 | UINT64_C(2) << 30;
    sys->tcr_el1 = tcr;
    sys->mair_el1 = 0xff | 0x00 << 8 | 0x44 << 16;
    *(r->hi ? &sys->ttbr1_el1 : &sys->ttbr0_el1) = table;
    sys->sctlr_el1 |= SCTLR_M;
    cpu_refresh(w->cpu);
    return table;
}

static uint64_t root(struct world *w, const struct regime *r)
{
    return (r->hi ? w->cpu->sys.ttbr1_el1 : w->cpu->sys.ttbr0_el1) & bits_mask(48) & ~UINT64_C(1);
}

/* The descriptor of va at `level', making tables on the way. */
static uint64_t *slot(struct world *w, const struct regime *r, uint64_t va, unsigned level)
{
    uint64_t table = root(w, r);

    va &= bits_mask(r->input);
    for (unsigned l = start_level(r);; l++) {
        uint64_t *d = ram(w, table + (va >> bits_at(r, l) & bits_mask(l == start_level(r) ? 16 : r->granule - 3)) * 8);

        if (l == level)
            return d;
        if (!(*d & D_VALID))
            *d = new_table(w, r) | D_VALID | D_TABLE;
        table = *d & UINT64_C(0xfffffffff000) & ~bits_mask(r->granule);
    }
}

static void map(struct world *w, const struct regime *r, uint64_t va, unsigned level, uint64_t pa, uint64_t attrs)
{
    *slot(w, r, va, level) = pa | attrs | (level == 3 ? D_PAGE : D_BLOCK);
}

static const struct regime r4k = {12, 48, false};
#define RW (D_AF | D_ATTR(ATTR_NORMAL))

static struct mmu_result walk(struct world *w, uint64_t va)
{
    struct mmu_result r = {0};

    mmu_walk(w->cpu, va, WALK_READ, VIEW_EL1, &r);
    return r;
}

#define assert_pa(w, va, want)                                                                                         \
    do {                                                                                                               \
        struct mmu_result r_ = walk(w, va);                                                                            \
        assert_int_equal(r_.fsc, FSC_NONE);                                                                            \
        assert_int_equal(r_.pa, want);                                                                                 \
    } while (0)
#define assert_fsc(w, va, want) assert_int_equal(walk(w, va).fsc, want)

/* ---- the walk ---- */

static bool block_allowed(unsigned granule, unsigned level)
{
    return level == 3 || level == 2 || (level == 1 && granule == 12);
}

static void check_geometry(struct world *w, const struct regime *r)
{
    uint64_t va = (r->hi ? ~bits_mask(r->input) : 0) | (bits_mask(r->input - 1) & UINT64_C(0x0000123456789000));

    for (unsigned level = 3; level + 1 > start_level(r) && level <= 3; level--) {
        unsigned shift = bits_at(r, level);
        uint64_t pa = UINT64_C(0x8000000000) >> 4 & ~bits_mask(shift); /* 32 GiB: need not be memory */
        bool is_root = level == start_level(r);

        w->next_table = TABLES;
        enter(w, r);
        map(w, r, va, level, pa, RW);
        if (block_allowed(r->granule, level)) {
            struct mmu_result res = walk(w, va);
            assert_int_equal(res.fsc, FSC_NONE);
            assert_int_equal(res.pa, pa | (va & bits_mask(shift)));
            assert_int_equal(res.shift, shift);
            assert_int_equal(res.level, level);
            assert_pa(w, va ^ bits_mask(shift), pa | (~va & bits_mask(shift)));
            *slot(w, r, va, level) &= ~(uint64_t)D_AF;
            assert_fsc(w, va, FSC_ACCESS_FLAG | level);
            *slot(w, r, va, level) |= D_AF | BIT(45);
            assert_fsc(w, va, FSC_ADDRESS_SIZE | level);
        } else {
            assert_fsc(w, va, FSC_TRANSLATION | level);
        }
        *slot(w, r, va, level) = 0;
        assert_fsc(w, va, FSC_TRANSLATION | level);
        *slot(w, r, va, level) = level == 3 ? D_BLOCK : D_TABLE; /* reserved; invalid with bit 1 set */
        assert_fsc(w, va, FSC_TRANSLATION | level);
        if (level < 3) {
            *slot(w, r, va, level) = NOWHERE << 4 | D_PAGE;
            assert_fsc(w, va, FSC_WALK_EXTERNAL | (level + 1));
            *slot(w, r, va, level) = BIT(45) | D_PAGE;
            assert_fsc(w, va, FSC_ADDRESS_SIZE | level);
        }
        if (is_root)
            break;
    }
}

static void test_geometry(void **state)
{
    struct world *w = *state;
    static const unsigned granules[] = {12, 14, 16};

    for (unsigned g = 0; g < 3; g++)
        for (unsigned input = 25; input <= 48; input++)
            for (unsigned hi = 0; hi < 2; hi++)
                check_geometry(w, &(struct regime){granules[g], input, hi});
}

/* Cortex-A57 has no 16 KiB granule: its encoding acts as 4 KiB. */
static void test_missing_granule(void **state)
{
    struct world *w = *state;
    struct regime r = {12, 48, false};

    enter(w, &r);
    w->cpu->sys.tcr_el1 |= 2 << 14;
    cpu_refresh(w->cpu);
    map(w, &r, 0x5000, 3, DATA, RW);
    assert_pa(w, 0x5123, DATA + 0x123);
}

/* The Contiguous bit is no part of the address, in pages and blocks, and each entry still speaks for itself. */
static void test_contiguous(void **state)
{
    struct world *w = *state;
    static const struct { unsigned granule, pages, blocks; } rows[] = { {12, 16, 16}, {14, 128, 32}, {16, 32, 32} };

    for (unsigned i = 0; i < 3; i++)
        for (unsigned level = 2; level <= 3; level++) {
            struct regime r = {rows[i].granule, 48, false};
            unsigned n = level == 3 ? rows[i].pages : rows[i].blocks, shift = bits_at(&r, level);

            w->next_table = TABLES;
            enter(w, &r);
            for (uint64_t k = 0; k < n; k++)
                map(w, &r, k << shift, level, (UINT64_C(1) << 39) + (k << shift), RW | BIT(52));
            for (uint64_t k = 0; k < n; k++)
                assert_pa(w, (k << shift) + 0x128, (UINT64_C(1) << 39) + (k << shift) + 0x128);
            *slot(w, &r, (uint64_t)1 << shift, level) = 0;
            assert_fsc(w, (uint64_t)1 << shift, FSC_TRANSLATION | level);
            assert_pa(w, (uint64_t)2 << shift, (UINT64_C(1) << 39) + ((uint64_t)2 << shift));
        }
}

static void test_root_faults(void **state)
{
    struct world *w = *state;
    struct sysregs *sys = &w->cpu->sys;

    enter(w, &(struct regime){12, 39, false});
    assert_fsc(w, BIT(39), FSC_TRANSLATION);                      /* beyond T0SZ */
    assert_fsc(w, UINT64_C(0xffff000000000000), FSC_TRANSLATION); /* EPD1 is set by enter() */
    assert_fsc(w, UINT64_C(0x0080000000000000), FSC_TRANSLATION); /* bit 55: the upper half, but not canonical */
    sys->ttbr0_el1 = BIT(46) | RAM_BASE;
    cpu_refresh(w->cpu);
    assert_fsc(w, 0, FSC_ADDRESS_SIZE);                           /* IPS 5 but PARange is 44 bits or less on this model */
    sys->ttbr0_el1 = NOWHERE;
    assert_fsc(w, 0, FSC_WALK_EXTERNAL | 1);
    sys->tcr_el1 |= 1 << 7;
    assert_fsc(w, 0, FSC_TRANSLATION);                            /* EPD0 */
}

static void test_ips(void **state)
{
    struct world *w = *state;

    enter(w, &r4k);
    map(w, &r4k, 0, 3, UINT64_C(1) << 35, RW);
    assert_pa(w, 0, UINT64_C(1) << 35);
    w->cpu->sys.tcr_el1 &= ~(UINT64_C(7) << 32); /* 32 bits */
    assert_fsc(w, 0, FSC_ADDRESS_SIZE | 3);
    w->cpu->sys.tcr_el1 |= UINT64_C(1) << 32; /* 36 bits */
    assert_pa(w, 0, UINT64_C(1) << 35);
}

static void test_tbi(void **state)
{
    struct world *w = *state;
    uint64_t va = UINT64_C(0x7f00000000005008), out;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW);
    assert_fsc(w, va, FSC_TRANSLATION);
    w->cpu->sys.tcr_el1 |= BIT(37);
    cpu_refresh(w->cpu);
    assert_pa(w, va, DATA + 8);
    *ram(w, DATA + 8) = 77;
    assert_true(access_load(w->cpu, va, MO_64, &out));
    assert_int_equal(out, 77);
    /* A TLBI without the tag reaches what was entered with it. */
    *slot(w, &r4k, 0x5000, 3) = 0;
    tlb_maintain(w->cpu, TLBI_VAA, 0x5000 >> 12, false);
    assert_false(access_load(w->cpu, va, MO_64, &out));
    assert_int_equal(w->cpu->sys.far_el1, va);
}

static void test_mmu_off(void **state)
{
    struct world *w = *state;
    uint64_t out;

    assert_pa(w, DATA + 4, DATA + 4);
    assert_true(walk(w, DATA).device);
    assert_fsc(w, BIT(44), FSC_ADDRESS_SIZE); /* 44-bit PA */
    assert_fsc(w, UINT64_C(0xffff000000000000), FSC_ADDRESS_SIZE);
    *ram(w, DATA) = 5;
    assert_true(access_load(w->cpu, DATA, MO_64, &out));
    assert_int_equal(out, 5);
    assert_false(access_load(w->cpu, DATA + 1, MO_64, &out));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | FSC_ALIGNMENT);
    assert_int_equal(w->cpu->sys.far_el1, DATA + 1);
}

/* ---- permissions ---- */

/*
 * DDI0487 tables D8-42 to D8-44 as text: what AP[2:1] gives EL1 and EL0, before execute-never.  Then, by rule: WXN takes X
 * where W is; EL1 never executes what EL0 can write.
 */
static bool table_allows(unsigned ap, bool uxn, bool pxn, bool wxn, enum mmu_view view, char what)
{
    static const char *const el1[4] = {"RW", "RW", "R", "R"}, *const el0[4] = {"", "RW", "", "R"};
    const char *mine = view == VIEW_EL0 ? el0[ap] : el1[ap];
    bool i_write = strchr(mine, 'W'), el0_writes = strchr(el0[ap], 'W');

    if (what == 'X') {
        if (view == VIEW_EL0)
            return !uxn && !(wxn && i_write);
        return !pxn && !el0_writes && !(wxn && i_write);
    }
    if (view == VIEW_EL1_PAN && el0[ap][0])
        return false;
    return strchr(mine, what);
}

static void test_permission_matrix(void **state)
{
    struct world *w = *state;
    static const struct { char what; enum mmu_access access; } ops[] = {{'R', MMU_READ}, {'W', MMU_WRITE}, {'X', MMU_EXEC}};
    unsigned checked = 0;

    enter(w, &r4k);
    for (unsigned bits = 0; bits < 32; bits++) {
        unsigned ap = bits & 3;
        bool uxn = bits & 4, pxn = bits & 8, wxn = bits & 16;

        map(w, &r4k, 0x5000, 3, DATA, RW | (uint64_t)ap << 6 | (uxn ? D_UXN : 0) | (pxn ? D_PXN : 0));
        w->cpu->sys.sctlr_el1 = SCTLR_M | (wxn ? SCTLR_WXN : 0);
        for (enum mmu_view view = VIEW_EL0; view <= VIEW_EL1_PAN; view++) {
            for (unsigned i = 0; i < 3; i++, checked++) {
                struct mmu_result r;
                bool want = table_allows(ap, uxn, pxn, wxn, view, ops[i].what);

                w->cpu->el = view != VIEW_EL0;
                w->cpu->pan = view == VIEW_EL1_PAN;
                assert_int_equal(mmu_translate(w->cpu, 0x5000, ops[i].access, false, &r), want);
                assert_int_equal(r.fsc, want ? FSC_NONE : FSC_PERMISSION | 3);
            }
        }
    }
    assert_int_equal(checked, 32 * 9);
}

/* APTable, UXNTable and PXNTable of any level take away, never give. */
static void test_hierarchical(void **state)
{
    struct world *w = *state;
    struct mmu_result r;

    for (unsigned level = 0; level < 3; level++) {
        enter(w, &r4k);
        map(w, &r4k, 0x5000, 3, DATA, RW | D_EL0);
        assert_int_equal(walk(w, 0x5000).perms, MMU_R0 | MMU_W0 | MMU_X0 | MMU_R1 | MMU_W1);
        *slot(w, &r4k, 0x5000, level) |= BIT(61);
        assert_int_equal(walk(w, 0x5000).perms, MMU_X0 | MMU_R1 | MMU_W1 | MMU_X1);
        *slot(w, &r4k, 0x5000, level) ^= BIT(61) | BIT(62);
        assert_int_equal(walk(w, 0x5000).perms, MMU_R0 | MMU_X0 | MMU_R1 | MMU_X1);
        *slot(w, &r4k, 0x5000, level) |= BIT(60) | BIT(59);
        r = walk(w, 0x5000);
        assert_int_equal(r.perms, MMU_R0 | MMU_R1);
        /* The bits are not the next level's: the page itself is unchanged. */
        assert_int_equal(r.pa, DATA);
    }
}

static void test_memory_types(void **state)
{
    struct world *w = *state;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, D_AF | D_ATTR(0) | 3 << 8);
    map(w, &r4k, 0x6000, 3, DATA, D_AF | D_ATTR(1) | D_NG);
    assert_false(walk(w, 0x5000).device);
    assert_int_equal(walk(w, 0x5000).sh, 3);
    assert_true(walk(w, 0x5000).global);
    assert_true(walk(w, 0x6000).device);
    assert_false(walk(w, 0x6000).global);
}

/* ---- hardware access flag and dirty state ---- */

static void test_hardware_af(void **state)
{
    struct world *w = *state;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW & ~(uint64_t)D_AF);
    assert_fsc(w, 0x5000, FSC_ACCESS_FLAG | 3);
    w->cpu->sys.tcr_el1 |= BIT(39); /* HA */
    assert_true(cpu_has(w->cpu, FEAT_HAF));
    assert_pa(w, 0x5000, DATA);
    assert_true(*slot(w, &r4k, 0x5000, 3) & D_AF);
    /* A debugger looks without touching. */
    *slot(w, &r4k, 0x5000, 3) &= ~(uint64_t)D_AF;
    uint64_t pa;
    assert_true(cpu_debug_translate(w->cpu, 0x5008, &pa));
    assert_int_equal(pa, DATA + 8);
    assert_false(*slot(w, &r4k, 0x5000, 3) & D_AF);
}

static void test_dirty(void **state)
{
    struct world *w = *state;
    uint64_t v;

    enter(w, &r4k);
    assert_true(cpu_has(w->cpu, FEAT_HAFDBS));
    w->cpu->sys.tcr_el1 |= BIT(39) | BIT(40);
    cpu_refresh(w->cpu);
    map(w, &r4k, 0x5000, 3, DATA, RW | D_RO | D_DBM);
    assert_true(access_load(w->cpu, 0x5000, MO_64, &v));
    assert_true(*slot(w, &r4k, 0x5000, 3) & D_RO);
    assert_true(access_store(w->cpu, 0x5000, MO_64, 9));
    assert_false(*slot(w, &r4k, 0x5000, 3) & D_RO);
    assert_int_equal(*ram(w, DATA), 9);
    /* EL0 may not write here: then it is not dirty either. */
    map(w, &r4k, 0x6000, 3, DATA, RW | D_RO | D_DBM);
    w->cpu->el = 0;
    cpu_refresh(w->cpu);
    assert_false(access_store(w->cpu, 0x6000, MO_64, 9));
    assert_true(*slot(w, &r4k, 0x6000, 3) & D_RO);
}

/* ---- AT ---- */

static void test_at(void **state)
{
    struct world *w = *state;
    uint64_t par;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW | 3 << 8);
    assert_true(mmu_at(w->cpu, 0x5123, VIEW_EL1, true, &par));
    assert_int_equal(par, UINT64_C(0xff) << 56 | DATA | BIT(11) | 3 << 7);
    assert_true(mmu_at(w->cpu, 0x5123, VIEW_EL0, false, &par));
    assert_int_equal(par, BIT(11) | (FSC_PERMISSION | 3) << 1 | 1);
    assert_true(mmu_at(w->cpu, 0x6000, VIEW_EL1, false, &par));
    assert_int_equal(par, BIT(11) | (FSC_TRANSLATION | 3) << 1 | 1);
    map(w, &r4k, 0x7000, 3, DATA, D_AF | D_ATTR(ATTR_DEVICE));
    assert_true(mmu_at(w->cpu, 0x7000, VIEW_EL1, false, &par));
    assert_int_equal(par, DATA | BIT(11) | 2 << 7);
    w->cpu->sys.ttbr0_el1 = NOWHERE;
    assert_false(mmu_at(w->cpu, 0x5000, VIEW_EL1, false, &par));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | 1 << 8 | 1 << 6 | FSC_WALK_EXTERNAL);
}

/* ---- TLB maintenance ---- */

static void set_asid(struct world *w, uint16_t asid)
{
    w->cpu->sys.tcr_el1 |= BIT(36);
    w->cpu->sys.ttbr0_el1 = (w->cpu->sys.ttbr0_el1 & bits_mask(48)) | (uint64_t)asid << 48;
    cpu_refresh(w->cpu);
}

static bool cached(struct world *w, uint64_t va)
{
    uint64_t walks = tlb_stats(w->cpu)->walks, out;
    bool ok = access_load(w->cpu, va, MO_8, &out);

    assert_true(ok);
    return tlb_stats(w->cpu)->walks == walks;
}

#define XT(asid, va) ((uint64_t)(asid) << 48 | ((va) >> 12 & (BIT(44) - 1)))

static void test_tlbi_by_kind(void **state)
{
    struct world *w = *state;
    enum { OWN = 0x5000, GLOBAL = 0x6000 };
    static const struct { enum tlbi_kind kind; uint64_t operand; bool own, global; } rows[] = {
        /* what is asked for         afterwards still cached: own page, global page */
        {TLBI_ALL, 0, false, false},
        {TLBI_ASID, XT(7, 0), false, true},
        {TLBI_ASID, XT(8, 0), true, true},
        {TLBI_VA, XT(7, OWN), false, true},
        {TLBI_VA, XT(8, OWN), true, true},
        {TLBI_VA, XT(8, GLOBAL), true, false},
        {TLBI_VA, XT(7, GLOBAL), true, false},
        {TLBI_VAA, XT(8, OWN), false, true},
        {TLBI_VAA, XT(0, GLOBAL), true, false},
        {TLBI_VAA, XT(0, 0x9000), true, true},
    };

    enter(w, &r4k);
    map(w, &r4k, OWN, 3, DATA, RW | D_NG);
    map(w, &r4k, GLOBAL, 3, DATA, RW);
    set_asid(w, 7);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        cached(w, OWN);
        cached(w, GLOBAL);
        assert_true(cached(w, OWN));
        assert_true(cached(w, GLOBAL));
        tlb_maintain(w->cpu, rows[i].kind, rows[i].operand, false);
        assert_int_equal(cached(w, OWN), rows[i].own);
        assert_int_equal(cached(w, GLOBAL), rows[i].global);
    }
}

/* What is kept is used until it is invalidated, per ASID, and a switch of ASID loses nothing. */
static void test_asid_switch(void **state)
{
    struct world *w = *state;
    uint64_t out;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW | D_NG);
    map(w, &r4k, 0x6000, 3, DATA + 0x2000, RW);
    *ram(w, DATA) = 1;
    *ram(w, DATA + 0x1000) = 2;
    set_asid(w, 1);
    assert_true(access_load(w->cpu, 0x5000, MO_64, &out));
    assert_int_equal(out, 1);
    assert_false(cached(w, 0x6000));
    map(w, &r4k, 0x5000, 3, DATA + 0x1000, RW | D_NG);
    assert_true(access_load(w->cpu, 0x5000, MO_64, &out));
    assert_int_equal(out, 1);
    set_asid(w, 2);
    assert_true(access_load(w->cpu, 0x5000, MO_64, &out));
    assert_int_equal(out, 2);
    assert_true(cached(w, 0x6000)); /* global */
    set_asid(w, 1);
    assert_true(cached(w, 0x5000));
    assert_true(access_load(w->cpu, 0x5000, MO_64, &out));
    assert_int_equal(out, 1);
    tlb_maintain(w->cpu, TLBI_VA, XT(1, 0x5000), false);
    assert_true(access_load(w->cpu, 0x5000, MO_64, &out));
    assert_int_equal(out, 2);
    /* With AS = 0 only eight bits count. */
    w->cpu->sys.tcr_el1 &= ~BIT(36);
    cpu_refresh(w->cpu);
    cached(w, 0x5000);
    tlb_maintain(w->cpu, TLBI_ASID, XT(0xab01, 0), false);
    assert_false(cached(w, 0x5000));
}

/* More ASIDs than spaces: none may see another's translation. */
static void test_asid_exhaustion(void **state)
{
    struct world *w = *state;
    uint64_t out;

    enter(w, &r4k);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned asid = 0; asid < 3000; asid++) {
            map(w, &r4k, 0x5000, 3, DATA + (asid % 64) * 0x1000, RW | D_NG);
            *ram(w, DATA + (asid % 64) * 0x1000) = asid % 64;
            set_asid(w, (uint16_t)asid);
            if (round)
                tlb_maintain(w->cpu, TLBI_ASID, XT(asid, 0), false);
            assert_true(access_load(w->cpu, 0x5000, MO_64, &out));
            assert_int_equal(out, asid % 64);
        }
    }
}

/* A TLBI of any address in a block drops all of it, whatever the granule and the block's size. */
static void test_tlbi_block(void **state)
{
    struct world *w = *state;
    static const struct { unsigned granule, level; } rows[] = {{12, 2}, {12, 3}, {14, 3}, {14, 2}, {16, 3}};

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct regime r = {rows[i].granule, 42, false};
        uint64_t size = BIT(bits_at(&r, rows[i].level)), va = 4 * size;

        w->next_table = TABLES;
        enter(w, &r);
        tlb_flush_all(w->cpu);
        map(w, &r, va, rows[i].level, DATA, RW);
        map(w, &r, va + size, rows[i].level, DATA, RW);
        cached(w, va);
        cached(w, va + size - 4096);
        cached(w, va + size);
        tlb_maintain(w->cpu, TLBI_VAA, XT(0, va + size / 2), false);
        assert_true(cached(w, va + size));
        assert_false(cached(w, va));
        assert_int_equal(cached(w, va + size - 4096), size == 4096);
    }
}

/* Permission faults are not remembered: loosening needs no TLBI here; tightening is not seen before one. */
static void test_permission_change(void **state)
{
    struct world *w = *state;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW | D_RO);
    cached(w, 0x5000);
    assert_false(access_store(w->cpu, 0x5000, MO_64, 1));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | 1 << 6 | FSC_PERMISSION | 3);
    map(w, &r4k, 0x5000, 3, DATA, RW);
    assert_true(access_store(w->cpu, 0x5000, MO_64, 1));
    map(w, &r4k, 0x5000, 3, DATA, RW | D_RO);
    assert_true(access_store(w->cpu, 0x5000, MO_64, 1));
    tlb_maintain(w->cpu, TLBI_VAA, XT(0, 0x5000), false);
    assert_false(access_store(w->cpu, 0x5000, MO_64, 1));
}

/* Random maps, accesses and maintenance against a model that remembers what may be stale. */
static void test_tlb_random(void **state)
{
    struct world *w = *state;
    enum { PAGES = 64, ASIDS = 4 };
    uint16_t now[PAGES] = {0}; /* what the tables say; the ASIDs share them */
    GRand *rand = g_rand_new_with_seed(42);
    uint64_t out, base = UINT64_C(0x7ffff000000);

    enter(w, &r4k);
    for (unsigned i = 0; i < 256; i++)
        *ram(w, DATA + i * 4096) = i;
    for (unsigned i = 0; i < PAGES; i++)
        map(w, &r4k, base + i * 4096, 3, DATA, RW | (i % 3 ? D_NG : 0));
    for (unsigned step = 0; step < 200000; step++) {
        unsigned page = (unsigned)g_rand_int_range(rand, 0, PAGES), asid = (unsigned)g_rand_int_range(rand, 0, ASIDS);
        uint64_t va = base + page * 4096;

        switch (g_rand_int_range(rand, 0, 8)) {
        case 0: /* change, and invalidate in a way that suffices */
            now[page] = (uint16_t)g_rand_int_range(rand, 0, 256);
            map(w, &r4k, va, 3, DATA + now[page] * 4096u, RW | (page % 3 ? D_NG : 0));
            switch (g_rand_int_range(rand, 0, 4)) {
            case 0: tlb_maintain(w->cpu, TLBI_VAA, XT(asid, va), false); break;
            case 1: tlb_maintain(w->cpu, TLBI_ALL, 0, false); break;
            case 2:
                for (unsigned a = 0; a < ASIDS; a++)
                    tlb_maintain(w->cpu, TLBI_VA, XT(a, va), false);
                break;
            default:
                for (unsigned a = 0; a < ASIDS; a++)
                    tlb_maintain(w->cpu, TLBI_ASID, XT(a, 0), false);
                if (page % 3 == 0)
                    tlb_maintain(w->cpu, TLBI_VA, XT(asid, va), false);
                break;
            }
            break;
        case 1:
            set_asid(w, (uint16_t)asid);
            break;
        default:
            assert_true(access_load(w->cpu, va, MO_64, &out));
            assert_int_equal(out, now[page]);
            break;
        }
    }
    g_rand_free(rand);
}

/* ---- accesses ---- */

static void test_page_crossing(void **state)
{
    struct world *w = *state;
    uint64_t a, b;
    union vreg v[2], u[2];

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA + 0x4000, RW); /* not adjacent in memory */
    map(w, &r4k, 0x6000, 3, DATA + 0x1000, RW);
    for (unsigned off = 0xff1; off < 0x1000; off++) {
        uint64_t va = 0x5000 + off;

        for (unsigned size = MO_8; size <= MO_64; size++) {
            uint64_t want = UINT64_C(0x8877665544332211) & bits_mask(8u << size);
            assert_true(access_store(w->cpu, va, size, UINT64_C(0x8877665544332211)));
            assert_true(access_load(w->cpu, va, size, &a));
            assert_int_equal(a, want);
        }
        assert_true(access_store_pair(w->cpu, va, MO_64, UINT64_C(0x1111222233334444), 5));
        assert_true(access_load_pair(w->cpu, va, MO_64, &a, &b));
        assert_int_equal(a, UINT64_C(0x1111222233334444));
        assert_int_equal(b, 5);
        v[0] = (union vreg){.d = {1, 2}};
        v[1] = (union vreg){.d = {off, ~UINT64_C(0)}};
        assert_true(access_store_pair_w(w->cpu, va, MO_128, &v[0], &v[1]));
        assert_true(access_load_pair_w(w->cpu, va, MO_128, &u[0], &u[1]));
        assert_memory_equal(u, v, sizeof v);
    }
    /* The byte after the boundary is really in the other page. */
    assert_true(access_store(w->cpu, 0x5fff, MO_16, 0xabcd));
    assert_int_equal(((uint8_t *)ram(w, DATA + 0x4ff8))[7], 0xcd);
    assert_int_equal(*(uint8_t *)ram(w, DATA + 0x1000), 0xab);

    /* Second page faults: FAR is there, and nothing was stored in the first. */
    *slot(w, &r4k, 0x6000, 3) = 0;
    tlb_maintain(w->cpu, TLBI_VAA, XT(0, 0x6000), false);
    assert_false(access_store(w->cpu, 0x5ffd, MO_64, 0));
    assert_int_equal(w->cpu->sys.far_el1, 0x6000);
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | 1 << 6 | FSC_TRANSLATION | 3);
    assert_int_equal(((uint8_t *)ram(w, DATA + 0x4ff8))[7], 0xcd);
}

static void test_alignment(void **state)
{
    struct world *w = *state;
    uint64_t v = 0;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW);
    map(w, &r4k, 0x6000, 3, DATA, D_AF | D_ATTR(ATTR_DEVICE));
    assert_true(access_load(w->cpu, 0x5001, MO_32, &v));
    assert_false(access_load(w->cpu, 0x5001, MO_32 | MO_ALIGN, &v));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | FSC_ALIGNMENT);
    assert_true(access_load(w->cpu, 0x6004, MO_32, &v));
    assert_false(access_store(w->cpu, 0x6002, MO_32, v));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | 1 << 6 | FSC_ALIGNMENT);
    assert_int_equal(w->cpu->sys.far_el1, 0x6002);
    w->cpu->sys.sctlr_el1 |= SCTLR_A;
    cpu_refresh(w->cpu);
    assert_true(access_load(w->cpu, 0x5004, MO_32, &v));
    assert_false(access_load(w->cpu, 0x5001, MO_16, &v));
    assert_true(access_load_pair(w->cpu, 0x5008, MO_64, &v, &v)); /* by element */
}

static void test_unprivileged(void **state)
{
    struct world *w = *state;
    uint64_t v;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW);
    map(w, &r4k, 0x6000, 3, DATA, RW | D_EL0);
    assert_true(access_load(w->cpu, 0x5000, MO_64, &v));
    assert_false(access_load(w->cpu, 0x5000, MO_64 | MO_UNPRIV, &v));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | FSC_PERMISSION | 3);
    assert_true(access_load(w->cpu, 0x6000, MO_64 | MO_UNPRIV, &v));
    assert_true(access_load(w->cpu, 0x6000, MO_64, &v));
    w->cpu->pan = true;
    cpu_refresh(w->cpu);
    assert_false(access_load(w->cpu, 0x6000, MO_64, &v));
    assert_true(access_load(w->cpu, 0x6000, MO_64 | MO_UNPRIV, &v));
    w->cpu->uao = true; /* LDTR as LDR: PAN counts again */
    cpu_refresh(w->cpu);
    assert_true(access_load(w->cpu, 0x5000, MO_64 | MO_UNPRIV, &v));
    assert_false(access_load(w->cpu, 0x6000, MO_64 | MO_UNPRIV, &v)); /* and its exception clears UAO */
    /* From EL0 the same fault has the other class. */
    w->cpu->pan = w->cpu->uao = false;
    cpu_set_el_sp(w->cpu, 0, 0);
    assert_false(access_load(w->cpu, 0x5000, MO_64, &v));
    assert_int_equal(w->cpu->sys.esr_el1, 0x92000000 | FSC_PERMISSION | 3);
    assert_int_equal(w->cpu->el, 1);
}

static void test_device_access(void **state)
{
    struct world *w = *state;
    uint64_t v, a, b;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DEVICE, D_AF | D_ATTR(ATTR_DEVICE));
    map(w, &r4k, 0x6000, 3, NOWHERE, D_AF | D_ATTR(ATTR_DEVICE));
    map(w, &r4k, 0x7000, 3, DATA, D_AF | D_ATTR(ATTR_DEVICE));
    assert_true(access_store(w->cpu, 0x5010, MO_32, 0x100));
    assert_int_equal(w->device_value, 0x100);
    assert_true(access_load(w->cpu, 0x5010, MO_32, &v));
    assert_int_equal(v, 0x110);
    assert_true(access_load_pair(w->cpu, 0x5010, MO_32, &a, &b));
    assert_int_equal(a, 0x110);
    assert_int_equal(b, 0x114);
    assert_false(access_load(w->cpu, 0x6000, MO_32, &v));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | FSC_EXTERNAL);
    assert_false(access_store(w->cpu, 0x6004, MO_32, v));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | 1 << 6 | FSC_EXTERNAL);
    assert_int_equal(w->cpu->sys.far_el1, 0x6004);
    assert_false(access_load_ex(w->cpu, 0x5010, MO_32, &v));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | FSC_UNSUPPORTED);
    assert_false(access_rmw(w->cpu, RMW_ADD, MO_32, 0x5010, 1, &v));
    assert_false(access_zero(w->cpu, 0x7000, 64)); /* RAM mapped as Device */
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | 1 << 6 | FSC_ALIGNMENT);
}

static void test_zero(void **state)
{
    struct world *w = *state;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW);
    for (unsigned round = 0; round < 2; round++) { /* slow, then fast */
        memset(ram(w, DATA), 0xff, 4096);
        assert_true(access_zero(w->cpu, 0x5055, 64));
        assert_int_equal(*ram(w, DATA + 0x38), UINT64_MAX);
        for (unsigned i = 0x40; i < 0x80; i += 8)
            assert_int_equal(*ram(w, DATA + i), 0);
        assert_int_equal(*ram(w, DATA + 0x80), UINT64_MAX);
    }
    assert_false(access_zero(w->cpu, 0x8077, 64));
    assert_int_equal(w->cpu->sys.far_el1, 0x8077);
}

static void test_exclusives(void **state)
{
    struct world *w = *state;
    uint64_t v, a, b, status;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW);
    map(w, &r4k, 0x6000, 3, DATA, RW); /* alias */
    map(w, &r4k, 0x7000, 3, DATA, RW | D_RO);
    *ram(w, DATA) = 10;
    assert_true(access_store_ex(w->cpu, 0x5000, MO_64, 1, &status));
    assert_int_equal(status, 1); /* nothing marked */
    assert_true(access_load_ex(w->cpu, 0x5000, MO_64, &v));
    assert_true(access_store_ex(w->cpu, 0x6000, MO_64, v + 1, &status));
    assert_int_equal(status, 0); /* physical identity */
    assert_int_equal(*ram(w, DATA), 11);
    assert_true(access_store_ex(w->cpu, 0x5000, MO_64, 1, &status));
    assert_int_equal(status, 1); /* used up */
    access_load_ex(w->cpu, 0x5000, MO_64, &v);
    access_clear_ex(w->cpu);
    assert_true(access_store_ex(w->cpu, 0x5000, MO_64, 1, &status));
    assert_int_equal(status, 1);
    access_load_ex(w->cpu, 0x5000, MO_64, &v);
    assert_false(access_ex_lost(w->cpu));
    *ram(w, DATA) = 12;
    assert_true(access_ex_lost(w->cpu));
    assert_true(access_store_ex(w->cpu, 0x5000, MO_64, 1, &status));
    assert_int_equal(status, 1);
    assert_int_equal(*ram(w, DATA), 12);
    access_load_ex(w->cpu, 0x5000, MO_32, &v);
    assert_true(access_store_ex(w->cpu, 0x5000, MO_64, 1, &status));
    assert_int_equal(status, 1); /* another size */
    access_load_ex(w->cpu, 0x5000, MO_64, &v);
    assert_false(access_store_ex(w->cpu, 0x7000, MO_64, 1, &status));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | 1 << 6 | FSC_PERMISSION | 3);

    assert_true(access_load_ex_pair(w->cpu, 0x5010, MO_64, &a, &b));
    assert_true(access_store_ex_pair(w->cpu, 0x5010, MO_64, 3, 4, &status));
    assert_int_equal(status, 0);
    assert_true(access_load_ex_pair(w->cpu, 0x5010, MO_32, &a, &b));
    assert_int_equal(a, 3);
    assert_int_equal(b, 0);
    assert_true(access_store_ex_pair(w->cpu, 0x5010, MO_32, 5, 6, &status));
    assert_int_equal(status, 0);
    assert_int_equal(*ram(w, DATA + 0x10), UINT64_C(6) << 32 | 5);
    assert_int_equal(*ram(w, DATA + 0x18), 4);
    assert_false(access_load_ex_pair(w->cpu, 0x5008, MO_64, &a, &b));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | FSC_ALIGNMENT);
}

static void test_atomics(void **state)
{
    struct world *w = *state;
    static const struct { enum rmw op; uint64_t old, arg, want; } rows[] = {
        {RMW_ADD, 0xf0, 0x20, 0x10}, {RMW_CLR, 0xff, 0x0f, 0xf0}, {RMW_EOR, 0xff, 0x0f, 0xf0},
        {RMW_SET, 0xf0, 0x0f, 0xff}, {RMW_SMAX, 0x80, 0x01, 0x01}, {RMW_SMIN, 0x80, 0x01, 0x80},
        {RMW_UMAX, 0x80, 0x01, 0x80}, {RMW_UMIN, 0x80, 0x01, 0x01}, {RMW_SWP, 0x12, 0x34, 0x34},
    };
    uint64_t old, pair[2];

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW);
    map(w, &r4k, 0x6000, 3, DATA, RW | D_RO);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        for (unsigned size = MO_8; size <= MO_64; size++) {
            unsigned up = (8u << size) - 8; /* the operands as the top byte of the element */
            *ram(w, DATA) = UINT64_C(0x5555555555555555) & ~bits_mask(8u << size);
            *ram(w, DATA) |= rows[i].old << up;
            assert_true(access_rmw(w->cpu, rows[i].op, size, 0x5000, rows[i].arg << up, &old));
            assert_int_equal(old, rows[i].old << up);
            assert_int_equal(*ram(w, DATA) & bits_mask(8u << size), rows[i].want << up);
            assert_int_equal(*ram(w, DATA) >> 4 >> ((8u << size) - 4),
                             UINT64_C(0x5555555555555555) >> 4 >> ((8u << size) - 4));
        }
    }
    *ram(w, DATA) = 7;
    assert_true(access_cas(w->cpu, MO_32, 0x5000, 8, 9, &old));
    assert_int_equal(old, 7);
    assert_int_equal(*ram(w, DATA), 7);
    assert_true(access_cas(w->cpu, MO_32, 0x5000, UINT64_C(0xffffffff00000007), 9, &old));
    assert_int_equal(*ram(w, DATA), 9);
    assert_true(access_casp(w->cpu, MO_64, 0x5000, (uint64_t[2]){9, *ram(w, DATA + 8)}, (uint64_t[2]){1, 2}, pair));
    assert_int_equal(pair[0], 9);
    assert_int_equal(*ram(w, DATA + 8), 2);
    assert_true(access_casp(w->cpu, MO_32, 0x5008, (uint64_t[2]){2, 0}, (uint64_t[2]){3, 4}, pair));
    assert_int_equal(*ram(w, DATA + 8), UINT64_C(4) << 32 | 3);

    /* A read-only page: the write alone is at fault.  No page: the read is. */
    assert_false(access_rmw(w->cpu, RMW_ADD, MO_64, 0x6000, 1, &old));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | 1 << 6 | FSC_PERMISSION | 3);
    assert_false(access_rmw(w->cpu, RMW_ADD, MO_64, 0x7000, 1, &old));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | FSC_TRANSLATION | 3);
    assert_false(access_casp(w->cpu, MO_64, 0x5008, pair, pair, pair));
    assert_int_equal(w->cpu->sys.esr_el1, 0x96000000 | 1 << 6 | FSC_ALIGNMENT);
}

static void test_fetch(void **state)
{
    struct world *w = *state;
    const uint8_t *host;
    uint64_t pa;

    enter(w, &r4k);
    map(w, &r4k, 0x5000, 3, DATA, RW);
    map(w, &r4k, 0x6000, 3, DATA, RW | D_PXN);
    map(w, &r4k, 0x7000, 3, DEVICE, RW);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(access_fetch(w->cpu, 0x5ffc, &host, &pa));
        assert_ptr_equal(host, ram(w, DATA));
        assert_int_equal(pa, DATA);
    }
    assert_false(access_fetch(w->cpu, 0x5002, &host, &pa));
    assert_int_equal(w->cpu->sys.esr_el1 >> 26, EC_PC_ALIGN);
    assert_int_equal(w->cpu->sys.far_el1, 0x5002);
    assert_false(access_fetch(w->cpu, 0x6000, &host, &pa));
    assert_int_equal(w->cpu->sys.esr_el1, 0x86000000 | FSC_PERMISSION | 3);
    assert_false(access_fetch(w->cpu, 0x7000, &host, &pa));
    assert_int_equal(w->cpu->sys.esr_el1, 0x86000000 | FSC_EXTERNAL);
    assert_false(access_fetch(w->cpu, 0x8000, &host, &pa));
    assert_int_equal(w->cpu->sys.esr_el1, 0x86000000 | FSC_TRANSLATION | 3);
    assert_int_equal(w->cpu->sys.elr_el1, 0x8000);
}

/* ---- threads ---- */

static atomic_uint done;

static void wait_for(atomic_uint *counter, unsigned n)
{
    for (unsigned i = 0; i < 60000 && atomic_load(counter) < n; i++)
        g_usleep(1000);
    assert_true(atomic_load(counter) >= n);
}

/* Races are looked for during this long, however loaded the host is: rounds of three spinning threads can be slow. */
enum { RACE_US = 700000 };

/* Every vCPU but 0 reads one page as fast as it can; vCPU 0 remaps it, and after DSB nobody may see the old one. */
enum { BROADCAST_ROUNDS = 16000 };
static struct {
    uint64_t *pte;
    atomic_uint floor;   /* a value that every access begun now must reach */
    atomic_uint reads, wrong;
} shared;

/* The readers must be at it, now and then at least: the host may have fewer cores than the guest. */
static void wait_for_reads(unsigned n)
{
    unsigned target = atomic_load(&shared.reads) + n;

    for (unsigned i = 0; i < 5000 && atomic_load(&shared.reads) < target; i++)
        g_usleep(1000);
}

static void remap_rounds(struct cpu *cpu)
{
    int64_t end = g_get_monotonic_time() + RACE_US;

    wait_for_reads(1);
    for (unsigned i = 1; i < BROADCAST_ROUNDS && !cpu_must_leave(cpu) && g_get_monotonic_time() < end; i++) {
        __atomic_store_n(shared.pte, (DATA + i * 4096) | RW | D_PAGE, __ATOMIC_RELEASE);
        tlb_maintain(cpu, TLBI_VAA, 0x5000 >> 12, true);
        cluster_dsb(cpu);
        atomic_store(&shared.floor, i);
    }
    atomic_fetch_add(&done, 1);
    cluster_cpu_off(cpu);
}

static void broadcast_guest(struct cpu *cpu)
{
    uint64_t v;

    if (cpu->index == 0) {
        remap_rounds(cpu);
        return;
    }
    while (!cpu_must_leave(cpu)) {
        for (unsigned i = 0; i < 64; i++) { /* engines look at pending only now and then */
            unsigned floor = atomic_load(&shared.floor);

            if (!access_load(cpu, 0x5000, MO_64, &v) || v < floor)
                atomic_fetch_add(&shared.wrong, 1);
        }
        atomic_fetch_add(&shared.reads, 1);
    }
}

static void copy_regime(struct cpu *to, const struct cpu *from)
{
    to->sys.tcr_el1 = from->sys.tcr_el1;
    to->sys.mair_el1 = from->sys.mair_el1;
    to->sys.ttbr0_el1 = from->sys.ttbr0_el1;
    to->sys.sctlr_el1 = from->sys.sctlr_el1;
    cpu_refresh(to);
}

/* Starts with all vCPUs on, their registers as vCPU 0's, and the guest function as given. */
static void start_all(struct world *w, void (*fn)(struct cpu *), bool mmu)
{
    guest_fn = fn;
    atomic_store(&done, 0);
    cluster_start(w->cl, RAM_BASE, 0, true);
    if (mmu) {
        w->next_table = TABLES;
        enter(w, &r4k);
    }
    for (unsigned i = 1; i < w->cl->n; i++)
        assert_int_equal(cluster_cpu_on(w->cl, i, RAM_BASE, 0), PSCI_SUCCESS);
}

static struct cpu *regime_source;

/* CPU_ON resets: take over vCPU 0's translation first. */
static void adopt_and_run(struct cpu *cpu)
{
    if (cpu != regime_source && !(cpu->sys.sctlr_el1 & SCTLR_M))
        copy_regime(cpu, regime_source);
    broadcast_guest(cpu);
}

static void test_tlbi_broadcast(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < BROADCAST_ROUNDS; i++)
        *ram(w, DATA + i * 4096) = i;
    start_all(w, adopt_and_run, true);
    regime_source = w->cpu;
    map(w, &r4k, 0x5000, 3, DATA, RW);
    shared.pte = slot(w, &r4k, 0x5000, 3);
    atomic_store(&shared.floor, 0);
    atomic_store(&shared.reads, 0);
    atomic_store(&shared.wrong, 0);
    cluster_resume(w->cl);
    wait_for(&done, 1);
    cluster_stop(w->cl);
    assert_int_equal(atomic_load(&shared.wrong), 0);
    assert_true(atomic_load(&shared.floor) > 0);
    assert_true(atomic_load(&shared.reads) > 0);
}

/* All vCPUs broadcast and wait at once: nobody waits for ever. */
static int64_t storm_end;

static void storm_guest(struct cpu *cpu)
{
    unsigned i;

    for (i = (unsigned)cpu->icount; i < 3000 && g_get_monotonic_time() < storm_end && !cpu_must_leave(cpu); i++) {
        tlb_maintain(cpu, i % 7 ? TLBI_VAA : TLBI_ALL, i, true);
        cluster_dsb(cpu);
    }
    cpu->icount = i;
    if (i == 3000 || g_get_monotonic_time() >= storm_end) {
        atomic_fetch_add(&done, 1);
        cluster_cpu_off(cpu);
    }
}

static void test_tlbi_storm(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < w->cl->n; i++)
        w->cl->cpu[i]->icount = 0;
    storm_end = g_get_monotonic_time() + RACE_US;
    start_all(w, storm_guest, false);
    cluster_resume(w->cl);
    wait_for(&done, w->cl->n);
    cluster_stop(w->cl);
}

/* ---- sleep ---- */

static atomic_uint wakes;

static void wfi_guest(struct cpu *cpu)
{
    while (!cpu_must_leave(cpu)) {
        cluster_wfi(cpu);
        atomic_fetch_add(&wakes, 1);
    }
}

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void test_wfi_sleeps(void **state)
{
    struct world *w = *state;
    double before;

    atomic_store(&wakes, 0);
    start_all(w, wfi_guest, false);
    cluster_resume(w->cl);
    g_usleep(50000);
    before = cpu_seconds();
    g_usleep(500000);
    assert_true(cpu_seconds() - before < 0.05);
    assert_int_equal(atomic_load(&wakes), 0);
    /* A masked interrupt wakes from WFI. */
    cpu_kick(w->cl->cpu[1], PEND_IRQ);
    wait_for(&wakes, 1);
    atomic_fetch_and(&w->cl->cpu[1]->pending, ~(unsigned)PEND_IRQ);
    cluster_stop(w->cl);
}

/* Ping-pong by interrupts: a lost wake-up would hang it. */
enum { PING_ROUNDS = 5000 };
static void ping_guest(struct cpu *cpu)
{
    struct cpu *other = cpu->cluster->cpu[cpu->index ^ 1];

    if (cpu->index > 1)
        return wfi_guest(cpu);
    while (!cpu_must_leave(cpu) && cpu->icount < PING_ROUNDS) {
        if (cpu->index == 1 || cpu->icount)
            cluster_wfi(cpu);
        if (!(atomic_load(&cpu->pending) & PEND_IRQ) && (cpu->index == 1 || cpu->icount))
            continue;
        atomic_fetch_and(&cpu->pending, ~(unsigned)PEND_IRQ);
        cpu->icount++;
        cpu_kick(other, PEND_IRQ);
    }
    if (cpu->icount == PING_ROUNDS) {
        cpu->icount++;
        atomic_fetch_add(&done, 1);
        cluster_cpu_off(cpu);
    }
}

static void test_no_lost_wakeup(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < w->cl->n; i++)
        w->cl->cpu[i]->icount = 0;
    start_all(w, ping_guest, false);
    cluster_resume(w->cl);
    wait_for(&done, 2);
    cluster_stop(w->cl);
}

/* SEV ends a WFE of a vCPU that is asleep or about to sleep; without, it sleeps on. */
static atomic_uint events;

static void wfe_guest(struct cpu *cpu)
{
    while (!cpu_must_leave(cpu)) {
        cluster_wfe(cpu);
        if (!cpu_must_leave(cpu))
            atomic_fetch_add(&events, 1);
    }
}

static void test_sev(void **state)
{
    struct world *w = *state;

    atomic_store(&events, 0);
    start_all(w, wfe_guest, false);
    cluster_resume(w->cl);
    g_usleep(100000);
    assert_int_equal(atomic_load(&events), 0);
    for (unsigned i = 1; i <= 100; i++) {
        cluster_sev(w->cpu);
        wait_for(&events, i * w->cl->n);
    }
    assert_int_equal(atomic_load(&events), 100 * w->cl->n);
    cluster_stop(w->cl);
}

/* WFE with an armed monitor ends by itself. */
static void monitor_guest(struct cpu *cpu)
{
    uint64_t v;

    while (!cpu_must_leave(cpu)) {
        if (!access_load_ex(cpu, DATA, MO_64, &v))
            return;
        if (v) {
            atomic_fetch_add(&done, 1);
            cluster_cpu_off(cpu);
            return;
        }
        cpu->icount += 3;
        cluster_wfe(cpu);
    }
}

static void test_wfe_monitor(void **state)
{
    struct world *w = *state;

    start_all(w, monitor_guest, false);
    cluster_resume(w->cl);
    g_usleep(20000);
    assert_int_equal(atomic_load(&done), 0);
    __atomic_store_n(ram(w, DATA), 1, __ATOMIC_SEQ_CST);
    wait_for(&done, w->cl->n);
    cluster_stop(w->cl);
}

/* ---- time ---- */

static atomic_uint timer_levels;

static void timer_wire(void *opaque, unsigned n, bool level)
{
    if (level)
        atomic_fetch_add(&timer_levels, 1);
}

/* Half of the vCPUs spin, half sleep; all must see their timer, again and again. */
static void timer_guest(struct cpu *cpu)
{
    struct gtimer *t = &cpu->gt[GT_VIRT];

    while (!cpu_must_leave(cpu)) {
        if (cpu_counter(cpu) >= t->cval || !t->ctl) {
            t->cval = cpu_counter(cpu) + COUNTER_HZ / 1000; /* 1 ms */
            t->ctl = 1;
            cpu_timer_check(cpu);
            if (++cpu->icount == 50)
                atomic_fetch_add(&done, 1);
        }
        if (cpu->index & 1)
            cluster_wfi(cpu);
    }
}

static void test_timers(void **state)
{
    struct world *w = *state;

    atomic_store(&timer_levels, 0);
    for (unsigned i = 0; i < w->cl->n; i++) {
        w->cl->cpu[i]->gt[GT_VIRT].out = (struct irq_line){.set = timer_wire};
        w->cl->cpu[i]->icount = 0;
    }
    start_all(w, timer_guest, false);
    cluster_resume(w->cl);
    wait_for(&done, w->cl->n);
    cluster_stop(w->cl);
    assert_true(atomic_load(&timer_levels) > 10);
}

/* A vCPU that never looks at the clock is interrupted by the host's timer. */
static void busy_guest(struct cpu *cpu)
{
    struct gtimer *t = &cpu->gt[GT_VIRT];

    if (!t->ctl) {
        t->ctl = 1;
        t->cval = cpu_counter(cpu) + COUNTER_HZ / 50;
        cpu_timer_check(cpu);
    } else if (t->level) {
        atomic_fetch_add(&done, 1);
        cluster_cpu_off(cpu);
        return;
    }
    while (!cpu_must_leave(cpu))
        ;
}

static void test_timer_interrupts(void **state)
{
    struct world *w = *state;

    start_all(w, busy_guest, false);
    cluster_resume(w->cl);
    wait_for(&done, w->cl->n);
    cluster_stop(w->cl);
}

/* ---- pause, power, reset ---- */

static atomic_uint steps;

static void count_guest(struct cpu *cpu)
{
    while (!cpu_must_leave(cpu)) {
        atomic_fetch_add(&steps, 1);
        if (cpu->index & 1)
            cluster_wfi(cpu);
    }
}

static void test_pause(void **state)
{
    struct world *w = *state;
    unsigned seen;
    uint64_t clock;

    atomic_store(&steps, 0);
    start_all(w, count_guest, false);
    assert_true(cluster_paused(w->cl));
    g_usleep(20000);
    assert_int_equal(atomic_load(&steps), 0);
    assert_int_equal(cluster_clock_ns(w->cl), 0);
    cluster_resume(w->cl);
    for (unsigned i = 0; i < 200; i++) {
        wait_for(&steps, 10);
        cluster_pause(w->cl);
        cluster_pause(w->cl);
        seen = atomic_load(&steps);
        clock = cluster_clock_ns(w->cl);
        g_usleep(200);
        assert_int_equal(atomic_load(&steps), seen);
        assert_int_equal(cluster_clock_ns(w->cl), clock);
        cluster_resume(w->cl);
        assert_true(cluster_paused(w->cl));
        atomic_store(&steps, 0);
        cluster_resume(w->cl);
        assert_false(cluster_paused(w->cl));
        assert_true(cluster_clock_ns(w->cl) >= clock);
    }
    cluster_stop(w->cl);
}

static void record_guest(struct cpu *cpu)
{
    if (cpu->x[0] == 0x1234 && cpu->pc == 0x8000)
        atomic_fetch_add(&done, 1);
    while (!cpu_must_leave(cpu))
        cluster_wfi(cpu);
}

static void off_guest(struct cpu *cpu)
{
    if (cpu->index == 1) {
        atomic_fetch_add(&done, 1);
        cluster_cpu_off(cpu);
        return;
    }
    while (!cpu_must_leave(cpu))
        cluster_wfi(cpu);
}

static void test_power(void **state)
{
    struct world *w = *state;
    struct cluster *cl = w->cl;

    guest_fn = record_guest;
    atomic_store(&done, 0);
    cluster_start(cl, RAM_BASE, 0, false);
    assert_int_equal(cluster_cpus_on(cl), 1);
    assert_int_equal(cluster_affinity_info(cl, 0, 0), PSCI_AFFINITY_ON);
    assert_int_equal(cluster_affinity_info(cl, 1, 0), PSCI_AFFINITY_OFF);
    assert_int_equal(cluster_affinity_info(cl, 1, 1), PSCI_AFFINITY_ON);
    assert_int_equal(cluster_affinity_info(cl, 9, 0), PSCI_INVALID_PARAMETERS);
    assert_int_equal(cluster_affinity_info(cl, 0, 4), PSCI_INVALID_PARAMETERS);
    assert_int_equal(cluster_cpu_on(cl, 77, 0x8000, 0x1234), PSCI_INVALID_PARAMETERS);
    assert_int_equal(cluster_cpu_on(cl, 0, 0x8000, 0x1234), PSCI_ALREADY_ON);
    assert_int_equal(cluster_cpu_on(cl, 1, 0x8000, 0x1234), PSCI_SUCCESS);
    wait_for(&done, 1);
    assert_int_equal(cluster_cpu_on(cl, 1, 0x8000, 0), PSCI_ALREADY_ON);
    assert_int_equal(cluster_cpus_on(cl), 2);

    /* Off and on again, many times. */
    cluster_pause(cl);
    guest_fn = off_guest;
    cluster_resume(cl);
    for (unsigned i = 2; i < 200; i++) {
        int ret;

        wait_for(&done, i);
        while ((ret = cluster_cpu_on(cl, 1, 0, 0)) == PSCI_ALREADY_ON)
            g_usleep(10);
        assert_int_equal(ret, PSCI_SUCCESS);
    }

    /* A parked vCPU comes back only by reset. */
    cluster_pause(cl);
    guest_fn = record_guest;
    atomic_store(&done, 0);
    cluster_reset(cl, 0x8000, 0x1234);
    assert_int_equal(cl->cpu[0]->pc, 0x8000);
    assert_int_equal(cluster_cpus_on(cl), 1);
    cluster_resume(cl);
    wait_for(&done, 1);
    cluster_stop(cl);
}

static void park_guest(struct cpu *cpu)
{
    atomic_fetch_add(&done, 1);
    cluster_park(cpu);
}

static void test_park(void **state)
{
    struct world *w = *state;

    guest_fn = park_guest;
    atomic_store(&done, 0);
    cluster_start(w->cl, RAM_BASE, 0, false);
    wait_for(&done, 1);
    g_usleep(20000);
    cluster_pause(w->cl);
    cluster_resume(w->cl);
    g_usleep(20000);
    assert_int_equal(atomic_load(&done), 1);
    cluster_pause(w->cl);
    cluster_reset(w->cl, RAM_BASE, 0);
    cluster_resume(w->cl);
    wait_for(&done, 2);
    cluster_stop(w->cl);
    assert_int_equal(atomic_load(&done), 2);
}

#define A57(fn) cmocka_unit_test_setup_teardown(fn, setup_a57, teardown)
#define MAX_(fn) cmocka_unit_test_setup_teardown(fn, setup_max, teardown)
#define SMP(fn) cmocka_unit_test_setup_teardown(fn, setup_smp, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MAX_(test_geometry), A57(test_missing_granule), A57(test_root_faults), A57(test_ips), A57(test_tbi),
        A57(test_mmu_off), MAX_(test_permission_matrix), A57(test_hierarchical), A57(test_memory_types),
        MAX_(test_contiguous), MAX_(test_hardware_af), MAX_(test_dirty), A57(test_at), A57(test_tlbi_by_kind), A57(test_asid_switch),
        A57(test_asid_exhaustion), MAX_(test_tlbi_block), A57(test_permission_change), A57(test_tlb_random),
        A57(test_page_crossing), A57(test_alignment), MAX_(test_unprivileged), A57(test_device_access),
        A57(test_zero), A57(test_exclusives), A57(test_atomics), A57(test_fetch),
        SMP(test_tlbi_broadcast), SMP(test_tlbi_storm), SMP(test_wfi_sleeps), SMP(test_no_lost_wakeup), SMP(test_sev),
        SMP(test_wfe_monitor), SMP(test_timers), SMP(test_timer_interrupts), SMP(test_pause), SMP(test_power),
        SMP(test_park),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
