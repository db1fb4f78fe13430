/*
 * cpu/sysreg.c and isa/sysregs.def: every row from both Exception levels, every bit of every stored register, the ID
 * registers of every model, the EL0 enables, and what must be UNDEFINED.
 */
#include "cpu_fixture.h"

#include <stdio.h>

#include "cpu/model.h"

enum { RT = 5 };

/* Written to registers and instructions alike: an address in RAM for those that want one. */
static const uint64_t harmless = FIXTURE_RAM + 0x4000;

static void allow_el0(struct cpu *cpu)
{
    cpu->sys.sctlr_el1 |= SCTLR_UCT | SCTLR_UCI | SCTLR_DZE | SCTLR_UMA | SCTLR_EnRCTX;
    cpu->sys.cntkctl_el1 = 0x303;
    cpu->sys.pmuserenr_el0 = 0xf;
    cpu->sys.cpacr_el1 = 3 << 20;
    cpu_refresh(cpu);
}

/* Rows that are UNDEFINED for a reason that the access column does not know. */
static bool is_beyond(const struct cpu *cpu, const struct sysreg *reg)
{
    unsigned n = 0;

    if (g_str_has_prefix(reg->name, "ICC_"))
        return true; /* no board */
    if (!cpu->model->a5x && (g_str_has_prefix(reg->name, "L2") || g_str_has_prefix(reg->name, "CPU")))
        return true;
    if (sscanf(reg->name, "DBGB%*[VC]R%u_EL1", &n) == 1)
        return n >= 6;
    if (sscanf(reg->name, "DBGW%*[VC]R%u_EL1", &n) == 1)
        return n >= 4;
    if (sscanf(reg->name, "PMEVCNTR%u_EL0", &n) == 1 || sscanf(reg->name, "PMEVTYPER%u_EL0", &n) == 1)
        return n >= 6;
    return false;
}

static bool may(const struct sysreg *reg, unsigned el, bool write)
{
    return el >= (write ? reg->access >> 2 : reg->access & 3u);
}

static bool do_access(struct cpu *cpu, const struct sysreg *reg, bool write)
{
    uint64_t value;

    cpu->sys.esr_el1 = 0;
    return write ? cpu_sysreg_write(cpu, reg->key, RT, harmless) : cpu_sysreg_read(cpu, reg->key, RT, &value);
}

/* All enables on: what the access column says and nothing else. */
static void check_row(struct fixture *f, const struct sysreg *reg, unsigned el, bool write)
{
    struct cpu *cpu = f->cpu;
    bool expected = may(reg, el, write) && cpu_has(cpu, reg->feature) && !is_beyond(cpu, reg);
    bool done;

    fixture_reset(f);
    allow_el0(cpu);
    if (el == 0)
        fixture_el0(f);
    done = do_access(cpu, reg, write);
    if (reg->id == SR_DC_ZVA && write)
        return; /* faults while the MMU is off: test_zva() */
    if (done != expected)
        fail_msg("%s %s at EL%u: %s", write ? "MSR" : "MRS", reg->name, el, done ? "done" : "trapped");
    if (!done) {
        assert_int_equal(esr_ec(cpu), EC_UNKNOWN);
        assert_int_equal(cpu->sys.esr_el1, 1 << 25);
        assert_int_equal(cpu->sys.elr_el1, FIXTURE_RAM);
        assert_int_equal(cpu->next_pc, FIXTURE_RAM + 0x8000 + (el ? 0x200 : 0x400));
    }
}

static void walk_model(const char *model)
{
    struct fixture *f = fixture_new(model, 1);
    size_t n;
    const struct sysreg *table = sysreg_table(&n);

    assert_true(n > 250);
    for (size_t i = 0; i < n; i++)
        for (unsigned mode = 0; mode < 4; mode++)
            check_row(f, &table[i], mode & 1, mode & 2);
    fixture_free(f);
}

static void test_access(void **state)
{
    walk_model("cortex-a57");
    walk_model("max");
}

/* Independent of sysreg.c: the ISS layout of D23.2.37 from the parts of the key. */
static uint32_t expected_iss(const struct sysreg *reg, bool read)
{
    return (reg->key >> 14 & 3u) << 20 | (reg->key & 7u) << 17 | (reg->key >> 11 & 7u) << 14 |
           (reg->key >> 7 & 15u) << 10 | RT << 5 | (reg->key >> 3 & 15u) << 1 | read;
}

static void test_traps(void **state)
{
    struct fixture *f = fixture_new("max", 1);
    struct cpu *cpu = f->cpu;
    unsigned trapped = 0;
    size_t n;
    const struct sysreg *table = sysreg_table(&n);

    for (size_t i = 0; i < 2 * n; i++) {
        const struct sysreg *reg = &table[i / 2];
        bool write = i & 1;

        if (reg->trap == SYSREG_TRAP_NONE || !may(reg, 0, write) || !cpu_has(cpu, reg->feature))
            continue;
        fixture_reset(f);
        cpu->sys.mdscr_el1 = 1 << 12; /* TDCC */
        fixture_el0(f);
        assert_false(do_access(cpu, reg, write));
        if (reg->trap == SYSREG_TRAP_FPEN) {
            assert_int_equal(esr_ec(cpu), EC_FP_ACCESS);
            assert_int_equal(esr_iss(cpu), 0x1e00000);
        } else {
            assert_int_equal(esr_ec(cpu), EC_SYSREG);
            assert_int_equal(esr_iss(cpu), expected_iss(reg, !write));
        }
        trapped++;
    }
    assert_true(trapped > 100);
    fixture_free(f);
}

static void test_fpen(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;
    static const struct {
        unsigned fpen;
        bool el0, el1;
    } cases[] = { { 0, false, false }, { 1, false, true }, { 2, false, false }, { 3, true, true } };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t value;

        fixture_reset(f);
        put_name(cpu, "CPACR_EL1", cases[i].fpen << 20);
        assert_int_equal(cpu_sysreg_read(cpu, key_of("FPCR"), 0, &value), cases[i].el1);
        fixture_reset(f);
        put_name(cpu, "CPACR_EL1", cases[i].fpen << 20);
        fixture_el0(f);
        assert_int_equal(cpu_sysreg_read(cpu, key_of("FPSR"), 0, &value), cases[i].el0);
    }
    fixture_free(f);
}

/* Each bit alone: it sticks exactly if ones stick there, and moves no other. */
static void walk_bits(struct fixture *f, const struct sysreg *reg)
{
    struct cpu *cpu = f->cpu;
    uint64_t ones, zeros;

    fixture_reset(f);
    put(cpu, reg->key, ~UINT64_C(0));
    ones = get(cpu, reg->key);
    put(cpu, reg->key, 0);
    zeros = get(cpu, reg->key);
    if (!reg->write && ((ones ^ zeros) != reg->mask || (zeros & reg->mask)))
        fail_msg("%s: ones %#" G_GINT64_MODIFIER "x zeros %#" G_GINT64_MODIFIER "x", reg->name, ones, zeros);
    if (reg->id == SR_SCTLR_EL1)
        return; /* turning the MMU on is another test's */
    for (unsigned bit = 0; bit < 64; bit++) {
        put(cpu, reg->key, 0);
        put(cpu, reg->key, BIT(bit));
        assert_int_equal(get(cpu, reg->key), zeros | (BIT(bit) & ones));
    }
}

static void test_masks(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    size_t n, walked = 0;
    const struct sysreg *table = sysreg_table(&n);

    for (size_t i = 0; i < n; i++) {
        const struct sysreg *reg = &table[i];

        if (!reg->stored || !may(reg, 1, false) || !may(reg, 1, true) || !cpu_has(f->cpu, reg->feature))
            continue;
        if (reg->id == SR_DBGCLAIMSET_EL1)
            continue; /* a set register: test_claim() */
        walk_bits(f, reg);
        walked++;
    }
    assert_true(walked > 25);
    fixture_free(f);
}

static uint64_t write_ones(const char *model, const char *name)
{
    struct fixture *f = fixture_new(model, 1);
    uint64_t value;

    put_name(f->cpu, name, ~UINT64_C(0));
    value = get_name(f->cpu, name);
    fixture_free(f);
    return value;
}

static void test_feature_bits(void **state)
{
    assert_int_equal(write_ones("cortex-a57", "TCR_EL1"), UINT64_C(0x77ffffffbf));
    assert_int_equal(write_ones("max", "TCR_EL1") & BIT(39), BIT(39)); /* HA */
    assert_int_equal(write_ones("cortex-a57", "SPSR_EL1"), UINT64_C(0xf03003df));
    assert_int_equal(write_ones("cortex-a76", "SPSR_EL1"), UINT64_C(0xf0f003df)); /* PAN, UAO */
    assert_int_equal(write_ones("cortex-a57", "SCTLR_EL1"), UINT64_C(0x34ddd39f | 0x980));
    assert_int_equal(write_ones("cortex-a57", "VBAR_EL1"), ~UINT64_C(0x7ff));
}

static void test_sctlr_res1(void **state)
{
    struct fixture *old = fixture_new("cortex-a57", 1), *recent = fixture_new("cortex-a76", 1);

    assert_int_equal(get_name(old->cpu, "SCTLR_EL1"), 0x30d50998);
    put_name(old->cpu, "SCTLR_EL1", 0);
    assert_int_equal(get_name(old->cpu, "SCTLR_EL1"), 0x30d00980); /* SPAN is RES1 without PAN */
    put_name(recent->cpu, "SCTLR_EL1", 0);
    assert_int_equal(get_name(recent->cpu, "SCTLR_EL1"), 0x30500980);
    fixture_free(old);
    fixture_free(recent);
}

static void test_lookup(void **state)
{
    size_t n;
    const struct sysreg *table = sysreg_table(&n);

    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(sysreg_find(table[i].key), &table[i]); /* so no key is there twice */
        assert_ptr_equal(sysreg_find_name(table[i].name), &table[i]);
        assert_int_equal(table[i].id, i);
    }
    assert_null(sysreg_find(SYSREG_KEY(3, 7, 15, 15, 7)));
    assert_null(sysreg_find(UINT32_MAX));
    assert_null(sysreg_find_name("SCTLR_EL9"));
}

/* A handful of encodings typed from the manual, so that a slip in the table is seen. */
static void test_encodings(void **state)
{
    static const struct {
        const char *name;
        uint32_t key;
    } rows[] = {
        { "SCTLR_EL1", 0xc080 }, { "TTBR0_EL1", 0xc100 }, { "TTBR1_EL1", 0xc101 }, { "TCR_EL1", 0xc102 },
        { "ESR_EL1", 0xc290 }, { "FAR_EL1", 0xc300 }, { "VBAR_EL1", 0xc600 }, { "MAIR_EL1", 0xc510 },
        { "MIDR_EL1", 0xc000 }, { "MPIDR_EL1", 0xc005 }, { "SPSR_EL1", 0xc200 }, { "ELR_EL1", 0xc201 },
        { "SP_EL0", 0xc208 }, { "CurrentEL", 0xc212 }, { "DAIF", 0xda11 }, { "NZCV", 0xda10 }, { "FPCR", 0xda20 },
        { "FPSR", 0xda21 }, { "CNTKCTL_EL1", 0xc708 }, { "CNTFRQ_EL0", 0xdf00 }, { "CNTVCT_EL0", 0xdf02 },
        { "CNTV_CTL_EL0", 0xdf19 }, { "CNTV_CVAL_EL0", 0xdf1a }, { "CNTP_TVAL_EL0", 0xdf10 },
        { "TPIDR_EL0", 0xde82 }, { "TPIDRRO_EL0", 0xde83 }, { "TPIDR_EL1", 0xc684 }, { "PMCR_EL0", 0xdce0 },
        { "PMCCNTR_EL0", 0xdce8 }, { "PMCCFILTR_EL0", 0xdf7f }, { "PMINTENSET_EL1", 0xc4f1 },
        { "PMEVCNTR3_EL0", 0xdf43 }, { "PMEVTYPER9_EL0", 0xdf69 }, { "MDSCR_EL1", 0x8012 }, { "OSLAR_EL1", 0x8084 },
        { "DBGBVR2_EL1", 0x8014 }, { "DBGWCR3_EL1", 0x801f }, { "CTR_EL0", 0xd801 }, { "DCZID_EL0", 0xd807 },
        { "CCSIDR_EL1", 0xc800 }, { "CSSELR_EL1", 0xd000 }, { "ID_AA64MMFR1_EL1", 0xc039 },
        { "ICC_IAR1_EL1", 0xc660 }, { "ICC_SGI1R_EL1", 0xc65d }, { "PAR_EL1", 0xc3a0 }, { "ISR_EL1", 0xc608 },
        { "TLBI_VMALLE1IS", 0x4418 }, { "TLBI_VAAE1", 0x443b }, { "DC_ZVA", 0x5ba1 }, { "IC_IVAU", 0x5ba9 },
        { "DC_CVAU", 0x5bd9 }, { "AT_S1E0W", 0x43c3 }, { "CONTEXTIDR_EL1", 0xc681 },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(key_of(rows[i].name), rows[i].key);
}

static void test_ids(void **state)
{
    static const struct {
        const char *model;
        uint64_t midr, pfr0, dfr0, isar0, mmfr0, mmfr1, ctr, ccsidr_l1d;
    } rows[] = {
        { "cortex-a53", 0x410fd034, 0x11, 0x10305106, 0x11120, 0x22, 0, 0x84448004, 0x700fe01a },
        { "cortex-a57", 0x411fd070, 0x11, 0x10305106, 0x11120, 0x24, 0, 0x8444c004, 0x701fe00a },
        { "cortex-a72", 0x410fd083, 0x11, 0x10305106, 0x11120, 0x24, 0, 0x8444c004, 0x701fe00a },
        { "cortex-a76", 0x414fd0b1, UINT64_C(0x1100000000000011), 0x10305106, UINT64_C(0x100010211120), 0x100022,
          0x201002, 0x8444c004, 0x701fe01a },
        { "neoverse-n1", 0x414fd0c1, UINT64_C(0x1100000000000011), 0x10305106, UINT64_C(0x100010211120), 0x100025,
          0x201002, 0x8444c004, 0x701fe01a },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture *f = fixture_new(rows[i].model, 2);
        struct cpu *cpu = f->cpu;

        cpu_reset(f->cl->cpu[1], FIXTURE_RAM, 0);
        assert_string_equal(cpu_model_name(cpu->model), rows[i].model);
        assert_int_equal(get_name(cpu, "MIDR_EL1"), rows[i].midr);
        assert_int_equal(get_name(cpu, "ID_AA64PFR0_EL1"), rows[i].pfr0);
        assert_int_equal(get_name(cpu, "ID_AA64DFR0_EL1"), rows[i].dfr0);
        assert_int_equal(get_name(cpu, "ID_AA64ISAR0_EL1"), rows[i].isar0);
        assert_int_equal(get_name(cpu, "ID_AA64MMFR0_EL1"), rows[i].mmfr0);
        assert_int_equal(get_name(cpu, "ID_AA64MMFR1_EL1"), rows[i].mmfr1);
        assert_int_equal(get_name(cpu, "CTR_EL0"), rows[i].ctr);
        assert_int_equal(get_name(cpu, "CCSIDR_EL1"), rows[i].ccsidr_l1d);
        assert_int_equal(get_name(f->cl->cpu[1], "MPIDR_EL1"), 0x80000001);
        assert_int_equal(get_name(cpu, "DCZID_EL0"), 4);
        fixture_free(f);
    }
    assert_null(cpu_model_find("cortex-m3"));
    for (const char *const *name = cpu_model_names(); *name; name++)
        assert_non_null(cpu_model_find(*name));
}

static void test_ccsidr(void **state)
{
    static const uint32_t expected[] = { 0x701fe00a, 0x201fe012, 0x70ffe07a, 0, 0, 0, 0, 0 };
    struct fixture *f = fixture_new("cortex-a57", 1);

    for (unsigned i = 0; i < ARRAY_LEN(expected); i++) {
        put_name(f->cpu, "CSSELR_EL1", i);
        assert_int_equal(get_name(f->cpu, "CCSIDR_EL1"), expected[i]);
    }
    fixture_free(f);
}

/* CRm 1 to 7 of the ID space read as zero where nothing is allocated; nothing there can be written or seen by EL0. */
static void test_id_space(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;
    uint64_t value;

    for (unsigned crm = 1; crm <= 7; crm++) {
        for (unsigned op2 = 0; op2 <= 7; op2++) {
            uint32_t key = SYSREG_KEY(3u, 0, 0, crm, op2);

            fixture_reset(f);
            value = 1;
            assert_true(cpu_sysreg_read(cpu, key, 0, &value));
            if (!sysreg_find(key))
                assert_int_equal(value, 0);
            assert_false(cpu_sysreg_write(cpu, key, 0, 0));
            fixture_reset(f);
            fixture_el0(f);
            assert_false(cpu_sysreg_read(cpu, key, 0, &value));
            assert_int_equal(esr_ec(cpu), EC_UNKNOWN);
        }
    }
    fixture_reset(f);
    assert_false(cpu_sysreg_read(cpu, SYSREG_KEY(3, 0, 0, 0, 1), 0, &value));
    assert_false(cpu_sysreg_read(cpu, SYSREG_KEY(3, 0, 0, 8, 0), 0, &value));
    fixture_free(f);
}

/* EL2, EL3, pointer authentication keys, IMPLEMENTATION DEFINED space, and all keys that the table does not have. */
static void test_unallocated(void **state)
{
    struct fixture *f = fixture_new("max", 1);
    unsigned undefined = 0;
    uint64_t value;

    for (uint32_t key = 0; key < 1 << 16; key++) {
        if (sysreg_find(key) || ((key & ~0x7fu) == SYSREG_KEY(3, 0, 0, 0, 0) && (key >> 3 & 15) - 1 < 7))
            continue;
        fixture_reset(f);
        assert_false(cpu_sysreg_read(f->cpu, key, 0, &value));
        assert_int_equal(f->cpu->sys.esr_el1, 1 << 25);
        assert_false(cpu_sysreg_write(f->cpu, key, 0, 0));
        undefined++;
    }
    assert_true(undefined > 65000);
    assert_null(sysreg_find(SYSREG_KEY(3, 4, 1, 0, 0))); /* SCTLR_EL2 */
    assert_null(sysreg_find(SYSREG_KEY(3, 6, 1, 0, 0))); /* SCTLR_EL3 */
    assert_null(sysreg_find(SYSREG_KEY(3, 0, 2, 1, 0))); /* APIAKeyLo_EL1 */
    fixture_free(f);
}

static bool fake_read(void *opaque, unsigned cpu, uint32_t key, uint64_t *value)
{
    (void)opaque;
    *value = key * 2 + cpu;
    return key != key_of("ICC_AP1R3_EL1");
}

static bool fake_write(void *opaque, unsigned cpu, uint32_t key, uint64_t value)
{
    (void)cpu, (void)key;
    *(uint64_t *)opaque = value;
    return true;
}

static void test_board(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 2);
    struct cpu *cpu = f->cl->cpu[1];
    uint64_t written = 0, value;

    cpu_reset(cpu, FIXTURE_RAM, 0);
    f->cl->hooks = (struct sysreg_hooks){ fake_read, fake_write, &written };
    assert_int_equal(get_name(cpu, "ICC_IAR1_EL1"), key_of("ICC_IAR1_EL1") * 2 + 1);
    put_name(cpu, "ICC_EOIR1_EL1", 33);
    assert_int_equal(written, 33);
    assert_int_equal(get_name(cpu, "ID_AA64PFR0_EL1") >> 24 & 15, 1);
    assert_false(cpu_sysreg_read(cpu, key_of("ICC_AP1R3_EL1"), 0, &value));
    assert_false(cpu_sysreg_write(cpu, key_of("ICC_IAR1_EL1"), 0, 0));
    assert_false(cpu_sysreg_read(cpu, key_of("ICC_SGI1R_EL1"), 0, &value));
    fixture_free(f);
}

static void test_stack_pointers(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;
    uint64_t value;

    cpu->x[31] = 0x1000;
    put_name(cpu, "SP_EL0", 0x2000);
    assert_int_equal(get_name(cpu, "SPSel"), 1);
    put_name(cpu, "SPSel", 0);
    assert_int_equal(cpu->x[31], 0x2000);
    assert_false(cpu_sysreg_read(cpu, key_of("SP_EL0"), 0, &value)); /* UNDEFINED while it is current */
    assert_int_equal(cpu->spsel, 1);                                 /* the exception selected SP_EL1 */
    assert_int_equal(cpu->x[31], 0x1000);
    assert_true(cpu_msr_imm(cpu, 0, 5, 0));
    cpu->x[31] = 0x3000;
    assert_true(cpu_msr_imm(cpu, 0, 5, 1));
    assert_int_equal(get_name(cpu, "SP_EL0"), 0x3000);
    fixture_free(f);
}

static void test_msr_imm(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1), *g = fixture_new("cortex-a76", 1);
    struct cpu *cpu = f->cpu;

    assert_true(cpu_msr_imm(cpu, 3, 7, 0xf));
    assert_int_equal(get_name(cpu, "DAIF"), 0);
    assert_true(cpu_msr_imm(cpu, 3, 6, 2));
    assert_int_equal(get_name(cpu, "DAIF"), DAIF_I);
    fixture_el0(f);
    assert_false(cpu_msr_imm(cpu, 3, 6, 2));
    assert_int_equal(esr_ec(cpu), EC_SYSREG);
    assert_int_equal(esr_iss(cpu), 6u << 17 | 3u << 14 | 4u << 10 | 31u << 5 | 2u << 1);
    fixture_reset(f);
    cpu->sys.sctlr_el1 |= SCTLR_UMA;
    fixture_el0(f);
    assert_true(cpu_msr_imm(cpu, 3, 7, 2));
    assert_int_equal(cpu->daif, DAIF_D | DAIF_A | DAIF_F);
    assert_false(cpu_msr_imm(cpu, 0, 5, 1)); /* SPSel at EL0 */
    fixture_reset(f);
    assert_false(cpu_msr_imm(cpu, 0, 4, 1)); /* PAN: not on Cortex-A57 */
    assert_false(cpu_msr_imm(cpu, 0, 3, 1)); /* UAO */
    assert_false(cpu_msr_imm(cpu, 7, 7, 0));
    assert_true(cpu_msr_imm(g->cpu, 0, 4, 1));
    assert_int_equal(get_name(g->cpu, "PAN"), 1 << 22);
    assert_true(cpu_msr_imm(g->cpu, 0, 3, 1));
    assert_int_equal(get_name(g->cpu, "UAO"), 1 << 23);
    fixture_free(f);
    fixture_free(g);
}

/* PMUSERENR_EL0 bit by bit: which of four typical registers EL0 may read (r) or write (w) (D13.5). */
static void test_pmu_enables(void **state)
{
    static const struct {
        const char *name;
        uint8_t read, write; /* any of these bits allows it */
    } rows[] = {
        { "PMCR_EL0", 1, 1 }, { "PMCCNTR_EL0", 1 | 4, 1 }, { "PMXEVCNTR_EL0", 1 | 8, 1 }, { "PMSELR_EL0", 1 | 8, 1 | 8 },
        { "PMEVCNTR0_EL0", 1 | 8, 1 }, { "PMEVTYPER0_EL0", 1, 1 }, { "PMCNTENSET_EL0", 1, 1 },
    };
    struct fixture *f = fixture_new("cortex-a57", 1);
    uint64_t value;

    for (unsigned enr = 0; enr < 16; enr++) {
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            for (unsigned write = 0; write < 2; write++) {
                bool allowed = enr & (write ? rows[i].write : rows[i].read);
                uint32_t key = key_of(rows[i].name);

                fixture_reset(f);
                put_name(f->cpu, "PMUSERENR_EL0", enr);
                fixture_el0(f);
                assert_int_equal(write ? cpu_sysreg_write(f->cpu, key, 0, 0) : cpu_sysreg_read(f->cpu, key, 0, &value),
                                 allowed);
            }
        }
        fixture_reset(f);
        put_name(f->cpu, "PMUSERENR_EL0", enr);
        fixture_el0(f);
        assert_int_equal(cpu_sysreg_write(f->cpu, key_of("PMSWINC_EL0"), 0, 0), (enr & 3) != 0);
    }
    fixture_free(f);
}

static void test_claim(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);

    put_name(f->cpu, "DBGCLAIMSET_EL1", 0xff3);
    assert_int_equal(get_name(f->cpu, "DBGCLAIMSET_EL1"), 0xff);
    assert_int_equal(get_name(f->cpu, "DBGCLAIMCLR_EL1"), 0xf3);
    put_name(f->cpu, "DBGCLAIMCLR_EL1", 0x11);
    assert_int_equal(get_name(f->cpu, "DBGCLAIMCLR_EL1"), 0xe2);
    fixture_free(f);
}

static void test_zva(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    uint8_t ones[192], back[192];

    memset(ones, 0xff, sizeof(ones));
    assert_true(mem_write(f->mem, FIXTURE_RAM + 0x1000, ones, sizeof(ones)));
    /* With the MMU off all memory is Device, on which DC ZVA is an Alignment fault (D8.2.12). */
    assert_false(cpu_sysreg_write(f->cpu, key_of("DC_ZVA"), 0, FIXTURE_RAM + 0x1050));
    assert_int_equal(esr_ec(f->cpu), EC_DABT_SAME);
    assert_int_equal(esr_iss(f->cpu) & 0x3f, 0x21);
    assert_int_equal(f->cpu->sys.far_el1, FIXTURE_RAM + 0x1050);
    assert_true(mem_read(f->mem, FIXTURE_RAM + 0x1000, back, sizeof(back)));
    assert_memory_equal(ones, back, sizeof(back));
    fixture_free(f);
}

static void test_peek(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    size_t n;
    const struct sysreg *table = sysreg_table(&n);
    uint64_t before = cpu_state_hash(f->cpu), value;

    fixture_el0(f);
    for (size_t i = 0; i < n; i++)
        sysreg_peek(f->cpu, &table[i], &value);
    assert_int_equal(f->cpu->el, 0); /* no exception was taken */
    cpu_set_el_sp(f->cpu, 1, 1);
    assert_int_equal(cpu_state_hash(f->cpu), before);
    f->cpu->sp_el[0] = 77;
    assert_true(sysreg_peek(f->cpu, sysreg_find_name("SP_EL0"), &value));
    assert_int_equal(value, 77);
    assert_false(sysreg_peek(f->cpu, sysreg_find_name("ICC_IAR1_EL1"), &value));
    assert_false(sysreg_peek(f->cpu, sysreg_find_name("PAN"), &value));
    assert_false(sysreg_peek(f->cpu, sysreg_find_name("DBGBVR9_EL1"), &value));
    assert_false(sysreg_peek(f->cpu, sysreg_find_name("TLBI_VAE1"), &value));
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup), cmocka_unit_test(test_encodings), cmocka_unit_test(test_access),
        cmocka_unit_test(test_traps), cmocka_unit_test(test_fpen), cmocka_unit_test(test_masks),
        cmocka_unit_test(test_feature_bits), cmocka_unit_test(test_sctlr_res1), cmocka_unit_test(test_ids),
        cmocka_unit_test(test_ccsidr), cmocka_unit_test(test_id_space), cmocka_unit_test(test_unallocated),
        cmocka_unit_test(test_board), cmocka_unit_test(test_stack_pointers), cmocka_unit_test(test_msr_imm),
        cmocka_unit_test(test_pmu_enables), cmocka_unit_test(test_claim), cmocka_unit_test(test_zva),
        cmocka_unit_test(test_peek),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
