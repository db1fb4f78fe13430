/*
 * cpu/debug.c: breakpoints, watchpoints and software step as a debugging kernel sees them, and the external debugger's
 * stops, all by running instructions.
 */
#include "cpu_fixture.h"

#include "cpu/debug.h"

enum { PC = FIXTURE_RAM, VBAR = FIXTURE_RAM + 0x8000, DATA = FIXTURE_RAM + 0x2000 };
enum { SS = 1, KDE = 1 << 13, MDE = 1 << 15 };
enum { NOP = (int)0xd503201f, ERET = (int)0xd69f03e0 };

static const uint32_t nops[] = { NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP };

/* EL0 at PC, x1 = DATA, OS lock off. */
static struct fixture *user_fixture(const uint32_t *code, size_t n, uint64_t mdscr)
{
    struct fixture *f = fixture_new("cortex-a57", 1);

    fixture_code(f, PC, code, n);
    put_name(f->cpu, "OSLAR_EL1", 0);
    put_name(f->cpu, "MDSCR_EL1", mdscr);
    f->cpu->x[1] = DATA;
    fixture_el0(f);
    return f;
}

static void set_at_el1(struct fixture *f, const char *name, uint64_t value)
{
    unsigned el = f->cpu->el;

    cpu_set_el_sp(f->cpu, 1, 1);
    put_name(f->cpu, name, value);
    cpu_set_el_sp(f->cpu, el, el);
}

/* E, PMC, BAS = 0b1111 */
static uint64_t bcr(unsigned pmc)
{
    return 0xf << 5 | pmc << 1 | 1;
}

static void test_registers(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    assert_int_equal(get_name(cpu, "OSLSR_EL1"), 0xa); /* locked at reset */
    put_name(cpu, "MDSCR_EL1", UINT64_MAX);
    assert_int_equal(get_name(cpu, "MDSCR_EL1"), 0x6ce0f041);
    put_name(cpu, "OSLAR_EL1", 0);
    assert_int_equal(get_name(cpu, "OSLSR_EL1"), 8);
    put_name(cpu, "MDSCR_EL1", 0);
    assert_int_equal(get_name(cpu, "MDSCR_EL1"), 0x6ce04040); /* only SS, TDCC, KDE and MDE are writable now */
    for (unsigned n = 0; n < 6; n++) {
        put(cpu, SYSREG_KEY(2u, 0, 0, n, 4), UINT64_C(0xffff000012345678) + n * 16);
        put(cpu, SYSREG_KEY(2u, 0, 0, n, 5), UINT32_MAX);
    }
    for (unsigned n = 0; n < 4; n++) {
        put(cpu, SYSREG_KEY(2u, 0, 0, n, 6), UINT64_C(0xffff00001234567b) + n * 16);
        put(cpu, SYSREG_KEY(2u, 0, 0, n, 7), UINT32_MAX);
    }
    for (unsigned n = 0; n < 6; n++) {
        assert_int_equal(get(cpu, SYSREG_KEY(2u, 0, 0, n, 4)), UINT64_C(0xffff000012345678) + n * 16);
        assert_int_equal(get(cpu, SYSREG_KEY(2u, 0, 0, n, 5)), 0xffe1e7);
    }
    for (unsigned n = 0; n < 4; n++) {
        assert_int_equal(get(cpu, SYSREG_KEY(2u, 0, 0, n, 6)), UINT64_C(0xffff000012345678) + n * 16);
        assert_int_equal(get(cpu, SYSREG_KEY(2u, 0, 0, n, 7)), 0x1f1fffff);
    }
    fixture_free(f);
}

static void test_breakpoint(void **state)
{
    struct fixture *f = user_fixture(nops, ARRAY_LEN(nops), MDE);
    struct cpu *cpu = f->cpu;

    set_at_el1(f, "DBGBVR1_EL1", PC + 8);
    set_at_el1(f, "DBGBCR1_EL1", bcr(2)); /* EL0 */
    assert_true(cpu->debug_slow);
    interp_step(cpu);
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 8);
    interp_step(cpu);
    assert_int_equal(cpu->pc, VBAR + 0x400);
    assert_int_equal(esr_ec(cpu), EC_BKPT_LOWER);
    assert_int_equal(esr_iss(cpu), 0x22);
    assert_int_equal(cpu->sys.elr_el1, PC + 8);
    assert_int_equal(cpu->icount, 2);
    assert_false(cpu->debug_slow); /* EL1 without KDE */
    fixture_free(f);
}

/* PMC by EL, MDE, KDE with PSTATE.D, OS lock and double lock. */
static void test_breakpoint_conditions(void **state)
{
    static const struct {
        unsigned el, pmc;
        uint64_t mdscr;
        bool masked, locked, hits;
    } rows[] = {
        { 0, 2, MDE, true, false, true },        { 0, 3, MDE, true, false, true },
        { 0, 1, MDE, true, false, false },       { 0, 2, 0, true, false, false },
        { 0, 2, MDE, true, true, false },        { 1, 1, MDE | KDE, false, false, true },
        { 1, 3, MDE | KDE, false, false, true }, { 1, 1, MDE, false, false, false },
        { 1, 1, MDE | KDE, true, false, false }, { 1, 2, MDE | KDE, false, false, false },
        { 1, 1, MDE | KDE, false, true, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture *f = user_fixture(nops, ARRAY_LEN(nops), rows[i].mdscr);
        struct cpu *cpu = f->cpu;

        set_at_el1(f, "DBGBVR0_EL1", PC);
        set_at_el1(f, "DBGBCR0_EL1", bcr(rows[i].pmc));
        set_at_el1(f, "OSLAR_EL1", rows[i].locked);
        cpu_set_el_sp(cpu, rows[i].el, rows[i].el);
        if (!rows[i].masked && cpu->el)
            assert_true(cpu_msr_imm(cpu, 3, 7, 8)); /* DAIFClr D */
        interp_step(cpu);
        assert_int_equal(cpu->pc == PC + 4, !rows[i].hits);
        fixture_free(f);
    }
}

static void test_context_breakpoints(void **state)
{
    struct fixture *f = user_fixture(nops, ARRAY_LEN(nops), MDE);
    struct cpu *cpu = f->cpu;

    set_at_el1(f, "DBGBVR5_EL1", 0x77); /* the context */
    set_at_el1(f, "DBGBCR5_EL1", 3 << 20 | bcr(3));
    set_at_el1(f, "DBGBVR0_EL1", PC);
    set_at_el1(f, "DBGBCR0_EL1", 1 << 20 | 5 << 16 | bcr(2)); /* linked to it */
    set_at_el1(f, "CONTEXTIDR_EL1", 0x76);
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 4);
    cpu->pc = PC;
    set_at_el1(f, "CONTEXTIDR_EL1", 0x77);
    interp_step(cpu);
    assert_int_equal(esr_ec(cpu), EC_BKPT_LOWER);
    /* Unlinked: every instruction of that context; breakpoint 3 cannot do it. */
    set_at_el1(f, "DBGBCR0_EL1", 0);
    set_at_el1(f, "DBGBVR3_EL1", 0x77);
    set_at_el1(f, "DBGBCR3_EL1", 2 << 20 | bcr(3));
    fixture_el0(f);
    cpu->pc = PC;
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 4);
    set_at_el1(f, "DBGBCR5_EL1", 2 << 20 | bcr(3));
    interp_step(cpu);
    assert_int_equal(cpu->sys.elr_el1, PC + 4);
    assert_int_equal(cpu->pc, VBAR + 0x400);
    fixture_free(f);
}

/* LSC: 1 loads, 2 stores; PAC 2: EL0. */
static uint64_t wcr(unsigned bas, unsigned lsc)
{
    return bas << 5 | lsc << 3 | 2 << 1 | 1;
}

static void test_watchpoint(void **state)
{
    static const uint32_t ldr_x = 0xf9400022, ldrb_3 = 0x39400c22, str_x = 0xf9000022, str_x8 = 0xf9000422;
    static const uint32_t ldp_m8 = 0xa97f8c22; /* ldp x2, x3, [x1, #-8] */
    static const struct {
        uint32_t insn;
        uint64_t wvr, wcr, far;
        bool hits, write;
    } rows[] = {
        { ldr_x, DATA, 0xff << 5 | 1 << 3, DATA, true, false },
        { ldr_x, DATA, 0x10 << 5 | 1 << 3, DATA + 4, true, false },
        { ldr_x, DATA, 0xff << 5 | 2 << 3, 0, false, false },
        { str_x, DATA, 0xff << 5 | 2 << 3, DATA, true, true },
        { str_x, DATA, 0xff << 5 | 1 << 3, 0, false, true },
        { str_x8, DATA, 0xff << 5 | 3 << 3, 0, false, true },
        { ldrb_3, DATA, 0x08 << 5 | 1 << 3, DATA + 3, true, false },
        { ldrb_3, DATA, 0xf7 << 5 | 1 << 3, 0, false, false },
        { ldrb_3, DATA + 4, 0x0f << 5 | 1 << 3, 0, false, false },
        { ldr_x, DATA + 4, 0x0f << 5 | 1 << 3, DATA + 4, true, false },
        { ldp_m8, DATA, 0x01 << 5 | 1 << 3, DATA, true, false },
        { str_x8, FIXTURE_RAM, 14u << 24 | 0xff << 5 | 2 << 3, DATA + 8, true, true }, /* 16 KiB by MASK */
        { str_x8, FIXTURE_RAM, 13u << 24 | 0xff << 5 | 2 << 3, 0, false, true },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture *f = user_fixture(&rows[i].insn, 1, MDE);
        struct cpu *cpu = f->cpu;

        cpu->x[2] = 0x1111;
        set_at_el1(f, "DBGWVR2_EL1", rows[i].wvr);
        set_at_el1(f, "DBGWCR2_EL1", rows[i].wcr | 2 << 1 | 1);
        interp_step(cpu);
        assert_int_equal(cpu->pc, rows[i].hits ? VBAR + 0x400 : PC + 4);
        if (rows[i].hits) {
            assert_int_equal(esr_ec(cpu), EC_WATCH_LOWER);
            assert_int_equal(esr_iss(cpu), 0x22 | (rows[i].write ? 1 << 6 : 0));
            assert_int_equal(cpu->sys.far_el1, rows[i].far);
            assert_int_equal(cpu->sys.elr_el1, PC);
            assert_int_equal(cpu->x[2], 0x1111);
        }
        fixture_free(f);
    }
}

/* A watched page must not be served from what was cached before it was watched, nor stay slow afterwards. */
static void test_watch_after_access(void **state)
{
    static const uint32_t loads[] = { 0xf9400022, 0xf9400022, 0xf9400022 };
    struct fixture *f = user_fixture(loads, 3, MDE);
    struct cpu *cpu = f->cpu;

    interp_step(cpu);
    set_at_el1(f, "DBGWVR0_EL1", DATA);
    set_at_el1(f, "DBGWCR0_EL1", wcr(0xff, 1));
    assert_true(debug_watches(cpu));
    assert_true(debug_page_watched(cpu, DATA + 0xabc));
    assert_false(debug_page_watched(cpu, DATA + 0x1000));
    interp_step(cpu);
    assert_int_equal(esr_ec(cpu), EC_WATCH_LOWER);
    assert_true(debug_check_watch(cpu, DATA, 8, false)); /* at EL1 it is not active */
    put_name(cpu, "DBGWCR0_EL1", 0);
    assert_false(debug_watches(cpu));
    fixture_el0(f);
    cpu->pc = PC + 4;
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 8);
    fixture_free(f);
}

static void enter_el0_by_eret(struct fixture *f, uint64_t spsr)
{
    struct cpu *cpu = f->cpu;

    cpu_set_el_sp(cpu, 1, 1);
    fixture_code(f, PC + 0x1000, (const uint32_t[]){ ERET }, 1);
    cpu->pc = PC + 0x1000;
    put_name(cpu, "SPSR_EL1", spsr);
    put_name(cpu, "ELR_EL1", PC);
    interp_step(cpu);
    assert_int_equal(cpu->el, 0);
    assert_int_equal(cpu->pc, PC);
}

/* D2.12: ERET with SPSR.SS = 1 runs one instruction, then the exception; with 0 none. */
static void test_software_step(void **state)
{
    struct fixture *f = user_fixture(nops, ARRAY_LEN(nops), SS);
    struct cpu *cpu = f->cpu;

    enter_el0_by_eret(f, 1 << 21);
    assert_true(cpu->ss);
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 4);
    assert_false(cpu->ss);
    interp_step(cpu);
    assert_int_equal(cpu->pc, VBAR + 0x400);
    assert_int_equal(esr_ec(cpu), EC_STEP_LOWER);
    assert_int_equal(esr_iss(cpu) & 0x3f, 0x22);
    assert_int_equal(cpu->sys.elr_el1, PC + 4);
    assert_int_equal(cpu->sys.spsr_el1 >> 21 & 1, 0);
    enter_el0_by_eret(f, 0);
    interp_step(cpu);
    assert_int_equal(esr_ec(cpu), EC_STEP_LOWER);
    assert_int_equal(cpu->sys.elr_el1, PC);
    set_at_el1(f, "MDSCR_EL1", 0); /* off: SS has no effect and ERET does not install it */
    enter_el0_by_eret(f, 1 << 21);
    assert_false(cpu->ss);
    interp_step(cpu);
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 8);
    fixture_free(f);
}

/* A stepped SVC completes (SPSR.SS is 0 when it is taken); a stepped fault does not (SPSR.SS stays 1). */
static void test_step_exceptions(void **state)
{
    static const uint32_t svc = 0xd4000001, udf = 0;
    struct fixture *f = user_fixture(&svc, 1, SS);
    struct cpu *cpu = f->cpu;

    enter_el0_by_eret(f, 1 << 21);
    interp_step(cpu);
    assert_int_equal(esr_ec(cpu), EC_SVC);
    assert_int_equal(cpu->sys.spsr_el1 >> 21 & 1, 0);
    assert_false(cpu->ss);
    fixture_code(f, PC, &udf, 1);
    enter_el0_by_eret(f, 1 << 21);
    interp_step(cpu);
    assert_int_equal(esr_ec(cpu), EC_UNKNOWN);
    assert_int_equal(cpu->sys.spsr_el1 >> 21 & 1, 1);
    /* An interrupt before the stepped instruction keeps the step for later too. */
    enter_el0_by_eret(f, 1 << 21);
    atomic_store(&cpu->pending, PEND_IRQ);
    assert_true(cpu_take_interrupt(cpu));
    assert_int_equal(cpu->sys.spsr_el1 >> 21 & 1, 1);
    fixture_free(f);
}

static void test_brk(void **state)
{
    static const uint32_t brk = 0xd4202460; /* brk #0x123 */
    struct fixture *f = user_fixture(&brk, 1, 0);

    interp_step(f->cpu);
    assert_int_equal(esr_ec(f->cpu), EC_BRK);
    assert_int_equal(esr_iss(f->cpu), 0x123);
    assert_int_equal(f->cpu->sys.elr_el1, PC);
    fixture_free(f);
}

/* --- external debugger --- */

struct seen {
    unsigned n;
    enum debug_kind kind;
    uint64_t va, pc;
};

static void on_stop(void *opaque, struct cpu *cpu, enum debug_kind kind, uint64_t va)
{
    struct seen *s = opaque;

    s->n++;
    s->kind = kind;
    s->va = va;
    s->pc = cpu->pc;
}

static void test_external_breakpoint(void **state)
{
    struct fixture *f = user_fixture(nops, ARRAY_LEN(nops), 0);
    struct cpu *cpu = f->cpu;
    struct seen seen = { 0 };
    uint64_t h;

    debug_set_stop(cpu, on_stop, &seen);
    debug_insert(cpu, DEBUG_BREAK, PC + 4, 0);
    interp_step(cpu);
    h = cpu_state_hash(cpu);
    interp_step(cpu);
    interp_step(cpu); /* until it is resumed it does not move */
    assert_int_equal(cpu->pc, PC + 4);
    assert_int_equal(cpu_state_hash(cpu), h);
    assert_true(debug_stopped(cpu));
    assert_true(seen.n >= 1);
    assert_int_equal(seen.kind, DEBUG_BREAK);
    assert_int_equal(seen.va, PC + 4);
    assert_true(atomic_load(&cpu->pending) & PEND_DEBUG);
    debug_resume(cpu);
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 8);
    assert_false(debug_stopped(cpu));
    assert_false(debug_remove(cpu, DEBUG_BREAK, PC, 0));
    assert_true(debug_remove(cpu, DEBUG_BREAK, PC + 4, 0));
    interp_step(cpu);
    assert_false(cpu->debug_slow);
    fixture_free(f);
}

static void test_external_step(void **state)
{
    struct fixture *f = user_fixture(nops, ARRAY_LEN(nops), 0);
    struct cpu *cpu = f->cpu;

    debug_set_single_step(cpu, true);
    for (unsigned i = 1; i <= 3; i++) {
        debug_resume(cpu);
        interp_step(cpu);
        interp_step(cpu);
        assert_true(debug_stopped(cpu));
        assert_int_equal(cpu->pc, PC + 4 * i);
    }
    debug_set_single_step(cpu, false);
    debug_resume(cpu);
    interp_step(cpu);
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 20);
    assert_false(cpu->debug_slow);
    fixture_free(f);
}

static void test_external_watchpoint(void **state)
{
    static const uint32_t code[] = { 0xf9000022, 0xf9400023, 0xf9000022, NOP, NOP }; /* str, ldr, str */
    struct fixture *f = user_fixture(code, ARRAY_LEN(code), 0);
    struct cpu *cpu = f->cpu;
    struct seen seen = { 0 };

    cpu->x[2] = 0xabcd;
    debug_set_stop(cpu, on_stop, &seen);
    debug_insert(cpu, DEBUG_WATCH_WRITE, DATA + 7, 1);
    interp_step(cpu);
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.kind, DEBUG_WATCH_WRITE);
    assert_int_equal(cpu->pc, PC);
    debug_resume(cpu);
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 4);
    interp_step(cpu); /* the load is not watched */
    assert_int_equal(cpu->pc, PC + 8);
    assert_int_equal(cpu->x[3], 0xabcd);
    interp_step(cpu);
    assert_int_equal(seen.n, 2);
    debug_remove_all(cpu);
    debug_resume(cpu);
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 12);
    assert_false(debug_watches(cpu));
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers), cmocka_unit_test(test_breakpoint),
        cmocka_unit_test(test_breakpoint_conditions), cmocka_unit_test(test_context_breakpoints),
        cmocka_unit_test(test_watchpoint), cmocka_unit_test(test_watch_after_access),
        cmocka_unit_test(test_software_step), cmocka_unit_test(test_step_exceptions), cmocka_unit_test(test_brk),
        cmocka_unit_test(test_external_breakpoint), cmocka_unit_test(test_external_step),
        cmocka_unit_test(test_external_watchpoint),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
