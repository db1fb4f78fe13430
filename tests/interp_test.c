/*
 * The interpreter as an engine: what random single instructions do not reach.  Exceptions of instructions, models that
 * lack a feature, decoded code that goes stale, interrupts at boundaries, ends of pages.
 */
#include "cpu_fixture.h"

#include "mem/mem.h"

enum {
    NOP = (int)0xd503201f, SVC_7 = (int)0xd40000e1, BRK_9 = (int)0xd4200120, HVC_1 = (int)0xd4000022,
    SMC_0 = (int)0xd4000003, HLT_0 = (int)0xd4400000, ERET = (int)0xd69f03e0, DRPS = (int)0xd6bf03e0,
    WFI = (int)0xd503207f, UDF_0 = 0, FMOV_D0_1 = 0x1e6e1000, LDADD = (int)0xf8210002, /* ldadd x1, x2, [x0] */
    MOV_X1_X0 = (int)0xaa0003e1, MOVZ_W0_8400 = 0x52b08000, ADD_X0_8 = (int)0x91002000, HVC_0 = (int)0xd4000002,
    CFINV = (int)0xd500401f, ADD_X0_1 = (int)0x91000400, ADD_X0_2 = (int)0x91000800,
    RET = (int)0xd65f03c0, LDR_X1_SP = (int)0xf94003e1, PRFM_SP = (int)0xf98003e0, MSR_DAIFCLR_2 = (int)0xd50342ff,
    IC_IALLU = (int)0xd508751f, HINT_127 = (int)0xd5032fff, PACIASP = (int)0xd503233f,
};

static int setup(void **state)
{
    *state = fixture_new("cortex-a57", 1);
    return 0;
}

static int teardown(void **state)
{
    fixture_free(*state);
    return 0;
}

static void code(struct fixture *f, uint64_t pa, uint32_t word)
{
    fixture_code(f, pa, &word, 1);
}

/* The vector of a synchronous exception from EL1h or EL0, and the exception class. */
static void assert_taken(struct fixture *f, bool lower, unsigned ec, uint64_t elr)
{
    assert_int_equal(f->cpu->pc, FIXTURE_RAM + 0x8000 + (lower ? 0x400 : 0x200));
    assert_int_equal(f->cpu->sys.esr_el1 >> 26, ec);
    assert_int_equal(f->cpu->sys.elr_el1, elr);
    assert_int_equal(f->cpu->el, 1);
}

static void go_el0(struct fixture *f)
{
    fixture_reset(f);
    cpu_set_pstate(f->cpu, 0);
}

static void exceptions_of_instructions(void **state)
{
    static const struct { uint32_t word; bool el0; unsigned ec; unsigned after, iss; } t[] = {
        {SVC_7, true, EC_SVC, 4, 7}, {SVC_7, false, EC_SVC, 4, 7}, {(uint32_t)BRK_9, false, EC_BRK, 0, 9},
        {(uint32_t)SMC_0, false, EC_UNKNOWN, 0, 0}, {(uint32_t)HLT_0, false, EC_UNKNOWN, 0, 0},
        {(uint32_t)HVC_1, true, EC_UNKNOWN, 0, 0}, {(uint32_t)ERET, true, EC_UNKNOWN, 0, 0},
        {(uint32_t)DRPS, false, EC_UNKNOWN, 0, 0}, {UDF_0, true, EC_UNKNOWN, 0, 0},
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
        if (t[i].el0)
            go_el0(f);
        else
            fixture_reset(f);
        interp_exec_word(f->cpu, t[i].word);
        assert_taken(f, t[i].el0, t[i].ec, FIXTURE_RAM + t[i].after);
        assert_int_equal(f->cpu->sys.esr_el1 & 0x1ffffff, t[i].iss);
    }
}

/* Only what completed is retired; SVC completes. */
static void instructions_are_counted(void **state)
{
    struct fixture *f = *state;

    f->cpu->icount = 0;
    assert_true(interp_exec_word(f->cpu, (uint32_t)NOP));
    assert_int_equal(f->cpu->icount, 1);
    assert_false(interp_exec_word(f->cpu, UDF_0));
    assert_int_equal(f->cpu->icount, 1);
    assert_true(interp_exec_word(f->cpu, (uint32_t)SVC_7));
    assert_int_equal(f->cpu->icount, 2);
}

static void features_gate(void **state)
{
    static const struct { const char *model; uint32_t word; bool has; } t[] = {
        {"cortex-a57", (uint32_t)LDADD, false}, {"cortex-a76", (uint32_t)LDADD, true},
        {"cortex-a76", (uint32_t)CFINV, false}, {"max", (uint32_t)CFINV, true},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
        struct fixture *f = fixture_new(t[i].model, 1);
        f->cpu->x[0] = FIXTURE_RAM + 0x4000;
        assert_int_equal(interp_exec_word(f->cpu, t[i].word), t[i].has);
        if (!t[i].has)
            assert_taken(f, false, EC_UNKNOWN, FIXTURE_RAM);
        fixture_free(f);
    }
}

static void hints_are_nops(void **state)
{
    struct fixture *f = *state;

    assert_true(interp_exec_word(f->cpu, (uint32_t)HINT_127));
    f->cpu->x[30] = 0x1234;
    assert_true(interp_exec_word(f->cpu, (uint32_t)PACIASP));
    assert_int_equal(f->cpu->x[30], 0x1234);
    assert_int_equal(f->cpu->pc, FIXTURE_RAM + 8);
}

static void fp_traps(void **state)
{
    struct fixture *f = *state;

    assert_false(interp_exec_word(f->cpu, FMOV_D0_1));
    assert_taken(f, false, EC_FP_ACCESS, FIXTURE_RAM);
    assert_int_equal(f->cpu->sys.esr_el1 & 0x1ffffff, 0x1e00000);
    fixture_reset(f);
    f->cpu->sys.cpacr_el1 = 3 << 20;
    cpu_refresh(f->cpu);
    assert_true(interp_exec_word(f->cpu, FMOV_D0_1));
    assert_int_equal(f->cpu->v[0].d[0], UINT64_C(0x3ff0000000000000));
}

static void sp_alignment(void **state)
{
    struct fixture *f = *state;

    f->cpu->x[31] = FIXTURE_RAM + 0x4008;
    f->cpu->sys.sctlr_el1 |= SCTLR_SA;
    assert_false(interp_exec_word(f->cpu, (uint32_t)LDR_X1_SP));
    assert_taken(f, false, EC_SP_ALIGN, FIXTURE_RAM);
    fixture_reset(f);
    f->cpu->x[31] = FIXTURE_RAM + 0x4008;
    assert_true(interp_exec_word(f->cpu, (uint32_t)PRFM_SP)); /* prefetches do not check */
    f->cpu->sys.sctlr_el1 &= ~(uint64_t)SCTLR_SA;
    assert_true(interp_exec_word(f->cpu, (uint32_t)LDR_X1_SP));
}

static void illegal_state(void **state)
{
    struct fixture *f = *state;

    code(f, FIXTURE_RAM, (uint32_t)NOP);
    f->cpu->il = true;
    interp_step(f->cpu);
    assert_taken(f, false, EC_ILLEGAL, FIXTURE_RAM);
    assert_false(f->cpu->il);
    assert_true(f->cpu->sys.spsr_el1 & BIT(20));
}

static void misaligned_pc(void **state)
{
    struct fixture *f = *state;

    f->cpu->pc = FIXTURE_RAM + 2;
    interp_step(f->cpu);
    assert_taken(f, false, EC_PC_ALIGN, FIXTURE_RAM + 2);
    assert_int_equal(f->cpu->sys.far_el1, FIXTURE_RAM + 2);
}

static void wfi_at_el0(void **state)
{
    struct fixture *f = *state;

    go_el0(f);
    f->cpu->sys.sctlr_el1 &= ~(uint64_t)SCTLR_nTWI;
    interp_exec_word(f->cpu, (uint32_t)WFI);
    assert_taken(f, true, EC_WFX, FIXTURE_RAM);
}

static void run_steps(struct fixture *f, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        interp_step(f->cpu);
}

/* New words are seen after IC IALLU, and a page written by mem_write() is dropped by itself. */
static void stale_code(void **state)
{
    struct fixture *f = *state;
    struct span span = mem_span(f->mem, FIXTURE_RAM, 16);
    const uint32_t add2 = (uint32_t)ADD_X0_2;

    code(f, FIXTURE_RAM, (uint32_t)ADD_X0_1);
    interp_step(f->cpu);
    assert_int_equal(f->cpu->x[0], 1);
    memcpy(span.hva, &add2, 4); /* as the guest's stores do */
    interp_exec_word(f->cpu, (uint32_t)IC_IALLU);
    f->cpu->pc = FIXTURE_RAM;
    interp_step(f->cpu);
    assert_int_equal(f->cpu->x[0], 3);
    code(f, FIXTURE_RAM, (uint32_t)ADD_X0_1);
    f->cpu->pc = FIXTURE_RAM;
    interp_step(f->cpu);
    assert_int_equal(f->cpu->x[0], 4);
}

/* A run over the end of a page goes on in the next one's words. */
static void page_end(void **state)
{
    struct fixture *f = *state;

    code(f, FIXTURE_RAM + 0xffc, (uint32_t)ADD_X0_1);
    code(f, FIXTURE_RAM + 0x1000, (uint32_t)ADD_X0_2);
    f->cpu->pc = FIXTURE_RAM + 0xffc;
    run_steps(f, 2);
    assert_int_equal(f->cpu->x[0], 3);
    assert_int_equal(f->cpu->pc, FIXTURE_RAM + 0x1004);
}

static void power_off(void *opaque)
{
    atomic_fetch_or(&((struct fixture *)opaque)->cpu->pending, PEND_STOP);
}

/* run(): an interrupt that is pending and masked is taken right behind the instruction that unmasks it. */
static void interrupt_after_unmask(void **state)
{
    static const struct cluster_ops ops = {.system_off = power_off};
    struct fixture *f = *state;
    struct irq_line irq = cpu_irq_line(f->cpu, PEND_IRQ);

    f->cl->ops = &ops;
    f->cl->ops_opaque = f;
    code(f, FIXTURE_RAM, (uint32_t)ADD_X0_1);
    code(f, FIXTURE_RAM + 4, (uint32_t)MSR_DAIFCLR_2);
    code(f, FIXTURE_RAM + 8, (uint32_t)ADD_X0_2);
    code(f, FIXTURE_RAM + 0x8280, (uint32_t)MOV_X1_X0);
    code(f, FIXTURE_RAM + 0x8284, (uint32_t)MOVZ_W0_8400);
    code(f, FIXTURE_RAM + 0x8288, (uint32_t)ADD_X0_8); /* PSCI SYSTEM_OFF */
    code(f, FIXTURE_RAM + 0x828c, (uint32_t)HVC_0);
    atomic_store(&f->cpu->pending, 0);
    f->cpu->icount = 0;
    irq_set(&irq, true);
    interp_engine.run(f->cpu);
    assert_int_equal(f->cpu->x[1], 1);
    assert_int_equal(f->cpu->sys.elr_el1, FIXTURE_RAM + 8);
    assert_int_equal(f->cpu->icount, 6);
}

/* Several rounds over many pages of code. */
static void many_pages(void **state)
{
    enum { PAGES = 200, STRIDE = 4096 };
    struct fixture *f = *state;

    for (unsigned i = 0; i < PAGES; i++) {
        code(f, FIXTURE_RAM + 0x10000 + i * STRIDE, (uint32_t)ADD_X0_1);
        code(f, FIXTURE_RAM + 0x10004 + i * STRIDE, (uint32_t)RET);
    }
    for (unsigned i = 0; i < 4 * PAGES; i++) {
        f->cpu->x[30] = f->cpu->pc = FIXTURE_RAM + 0x10000 + i % PAGES * STRIDE;
        run_steps(f, 2);
    }
    assert_int_equal(f->cpu->x[0], 4 * PAGES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(exceptions_of_instructions, setup, teardown),
        cmocka_unit_test_setup_teardown(instructions_are_counted, setup, teardown),
        cmocka_unit_test(features_gate),
        cmocka_unit_test_setup_teardown(hints_are_nops, setup, teardown),
        cmocka_unit_test_setup_teardown(fp_traps, setup, teardown),
        cmocka_unit_test_setup_teardown(sp_alignment, setup, teardown),
        cmocka_unit_test_setup_teardown(illegal_state, setup, teardown),
        cmocka_unit_test_setup_teardown(misaligned_pc, setup, teardown),
        cmocka_unit_test_setup_teardown(wfi_at_el0, setup, teardown),
        cmocka_unit_test_setup_teardown(stale_code, setup, teardown),
        cmocka_unit_test_setup_teardown(page_end, setup, teardown),
        cmocka_unit_test_setup_teardown(interrupt_after_unmask, setup, teardown),
        cmocka_unit_test_setup_teardown(many_pages, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
