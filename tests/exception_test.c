/*
 * cpu/exception.c: where exceptions go and what they leave behind, masks, ERET legal and not, PSTATE and its banks.
 */
#include "cpu_fixture.h"

enum { PC = FIXTURE_RAM, VBAR = FIXTURE_RAM + 0x8000 };
enum { ALL_DAIF = DAIF_D | DAIF_A | DAIF_I | DAIF_F };

static void test_reset(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);

    memset(f->cpu->x, 0xff, sizeof(f->cpu->x));
    cpu_reset(f->cpu, 0x40000000, 0x48000000);
    assert_int_equal(cpu_pstate(f->cpu), 0x400003c5);
    assert_int_equal(f->cpu->pc, 0x40000000);
    assert_int_equal(f->cpu->x[0], 0x48000000);
    for (unsigned i = 1; i < 32; i++)
        assert_int_equal(f->cpu->x[i], 0);
    assert_false(f->cpu->fp_enabled);
    fixture_free(f);
}

/* Three places to come from times four kinds of exception (D1.3.1, table of vector offsets). */
static void test_vectors(void **state)
{
    static const struct {
        unsigned el, spsel, base, m;
    } from[] = { { 1, 0, 0, 4 }, { 1, 1, 0x200, 5 }, { 0, 0, 0x400, 0 } };
    static const struct {
        enum cpu_pending which;
        unsigned off;
    } async[] = { { PEND_IRQ, 0x80 }, { PEND_FIQ, 0x100 }, { PEND_SERROR, 0x180 } };
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    for (size_t i = 0; i < ARRAY_LEN(from); i++) {
        fixture_reset(f);
        cpu_set_el_sp(cpu, from[i].el, from[i].spsel);
        cpu->x[31] = 0x1234;
        cpu_take_sync(cpu, EC_SVC, 42, PC + 4, 0);
        assert_int_equal(cpu->next_pc, VBAR + from[i].base);
        assert_int_equal(cpu->sys.esr_el1, UINT64_C(0x15) << 26 | 1 << 25 | 42);
        assert_int_equal(cpu->sys.elr_el1, PC + 4);
        assert_int_equal(cpu->sys.spsr_el1, 0x400003c0 | from[i].m);
        assert_int_equal(cpu_pstate(cpu), 0x400003c5);
        assert_int_equal(from[i].base == 0x200 ? cpu->x[31] : cpu->sp_el[0], 0x1234);
        for (size_t j = 0; j < ARRAY_LEN(async); j++) {
            fixture_reset(f);
            cpu_set_el_sp(cpu, from[i].el, from[i].spsel);
            cpu->daif = 0;
            atomic_store(&cpu->pending, async[j].which);
            assert_true(cpu_take_interrupt(cpu));
            assert_int_equal(cpu->pc, VBAR + from[i].base + async[j].off);
            assert_int_equal(cpu->sys.elr_el1, PC);
            assert_int_equal(cpu->sys.spsr_el1, 0x40000000 | from[i].m);
            assert_int_equal(cpu->daif, ALL_DAIF);
        }
    }
    fixture_free(f);
}

/* Classes with a lower and a same form, and which of them write FAR_EL1. */
static void test_classes(void **state)
{
    static const struct {
        enum exc_class ec;
        unsigned at_el1;
        bool far;
    } rows[] = {
        { EC_UNKNOWN, 0x00, false }, { EC_ILLEGAL, 0x0e, false }, { EC_IABT_LOWER, 0x21, true },
        { EC_PC_ALIGN, 0x22, true }, { EC_DABT_LOWER, 0x25, true }, { EC_SP_ALIGN, 0x26, false },
        { EC_BKPT_LOWER, 0x31, false }, { EC_STEP_LOWER, 0x33, false }, { EC_WATCH_LOWER, 0x35, true },
        { EC_BRK, 0x3c, false }, { EC_FP_ACCESS, 0x07, false }, { EC_HVC, 0x16, false },
    };
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (unsigned el = 0; el < 2; el++) {
            fixture_reset(f);
            cpu_set_el_sp(cpu, el, el);
            cpu->sys.far_el1 = 7;
            cpu_take_sync(cpu, rows[i].ec, 0x1ffffff, PC, 0x5555);
            assert_int_equal(esr_ec(cpu), el ? rows[i].at_el1 : rows[i].ec);
            assert_int_equal(esr_iss(cpu), 0x1ffffff);
            assert_int_equal(cpu->sys.esr_el1 >> 25 & 1, 1);
            assert_int_equal(cpu->sys.far_el1, rows[i].far ? 0x5555 : 7);
        }
    }
    fixture_free(f);
}

static void test_masks(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    atomic_store(&cpu->pending, PEND_IRQ | PEND_FIQ | PEND_SERROR);
    assert_false(cpu_take_interrupt(cpu));
    assert_int_equal(get_name(cpu, "ISR_EL1"), 0x1c0);
    fixture_el0(f);
    assert_false(cpu_take_interrupt(cpu)); /* PSTATE masks at EL0 too */
    cpu->daif = DAIF_F | DAIF_A;
    assert_true(cpu_take_interrupt(cpu));
    assert_int_equal(cpu->pc, VBAR + 0x480);
    assert_int_equal(atomic_load(&cpu->pending), PEND_IRQ | PEND_FIQ | PEND_SERROR); /* levels stay */
    cpu->daif = DAIF_I | DAIF_F;
    assert_true(cpu_take_interrupt(cpu));
    assert_int_equal(cpu->pc, VBAR + 0x380);
    assert_int_equal(esr_ec(cpu), EC_SERROR);
    assert_int_equal(atomic_load(&cpu->pending), PEND_IRQ | PEND_FIQ); /* an SError is taken once */
    cpu->daif = DAIF_I;
    assert_true(cpu_take_interrupt(cpu));
    assert_int_equal(cpu->pc, VBAR + 0x300);
    fixture_free(f);
}

static void test_wires(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct irq_line irq = cpu_irq_line(f->cpu, PEND_IRQ), fiq = cpu_irq_line(f->cpu, PEND_FIQ);

    irq_set(&irq, true);
    irq_set(&fiq, true);
    assert_int_equal(get_name(f->cpu, "ISR_EL1"), 0xc0);
    irq_set(&irq, false);
    assert_int_equal(get_name(f->cpu, "ISR_EL1"), 0x40);
    irq_set(&fiq, false);
    assert_false(cpu_take_interrupt(f->cpu));
    fixture_free(f);
}

/* PAN is set on entry unless SCTLR_EL1.SPAN; UAO is cleared; both come back by ERET. */
static void test_pan_uao(void **state)
{
    struct fixture *f = fixture_new("cortex-a76", 1);
    struct cpu *cpu = f->cpu;

    for (unsigned span = 0; span < 2; span++) {
        fixture_reset(f);
        put_name(cpu, "SCTLR_EL1", span ? SCTLR_SPAN : 0);
        put_name(cpu, "UAO", 1 << 23);
        cpu_undefined(cpu);
        assert_int_equal(cpu->pan, !span);
        assert_false(cpu->uao);
        assert_int_equal(cpu->sys.spsr_el1 & 0xc00000, 1 << 23);
        cpu_eret(cpu);
        assert_true(cpu->uao);
        assert_false(cpu->pan);
    }
    fixture_free(f);
}

static void test_eret(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    cpu->x[31] = 0x9000;
    put_name(cpu, "SP_EL0", 0x7000);
    put_name(cpu, "SPSR_EL1", 0x90000000 | DAIF_A);
    put_name(cpu, "ELR_EL1", 0x400123);
    cpu->ex.valid = true;
    cpu_eret(cpu);
    assert_int_equal(cpu->next_pc, 0x400123); /* misaligned: the fetch will say so */
    assert_int_equal(cpu_pstate(cpu), 0x90000000 | DAIF_A);
    assert_int_equal(cpu->x[31], 0x7000);
    assert_false(cpu->ex.valid);
    assert_true(cpu->event);
    /* From EL0 it is UNDEFINED. */
    cpu_eret(cpu);
    assert_int_equal(cpu->el, 1);
    assert_int_equal(esr_ec(cpu), EC_UNKNOWN);
    assert_int_equal(cpu->x[31], 0x9000);
    fixture_free(f);
}

/* Every M[4:0] that is not EL0t, EL1t or EL1h: EL and SP stay, the flags and masks come, IL is set (D1.4.4). */
static void test_illegal_eret(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    for (unsigned m = 0; m < 32; m++) {
        bool legal = m == 0 || m == 4 || m == 5;

        fixture_reset(f);
        put_name(cpu, "SPSR_EL1", 0x20000000 | DAIF_I | m);
        put_name(cpu, "ELR_EL1", PC + 0x100);
        cpu_eret(cpu);
        assert_int_equal(cpu->il, !legal);
        assert_int_equal(cpu->el, legal ? m >> 2 : 1);
        assert_int_equal(cpu->spsel, legal ? m & 1 : 1);
        assert_int_equal(cpu->nzcv, NZCV_C);
        assert_int_equal(cpu->daif, DAIF_I);
        assert_int_equal(cpu->next_pc, PC + 0x100);
    }
    /* IL in SPSR makes the next instruction an Illegal Execution state exception, and entry clears it. */
    fixture_reset(f);
    put_name(cpu, "SPSR_EL1", 1 << 20 | 5);
    put_name(cpu, "ELR_EL1", PC);
    cpu_eret(cpu);
    cpu->pc = cpu->next_pc;
    fixture_code(f, PC, (const uint32_t[]){ 0xd503201f }, 1); /* nop */
    interp_step(cpu);
    assert_int_equal(esr_ec(cpu), EC_ILLEGAL);
    assert_int_equal(cpu->pc, VBAR + 0x200);
    assert_int_equal(cpu->sys.spsr_el1 >> 20 & 1, 1);
    assert_false(cpu->il);
    fixture_free(f);
}

/* With TBI a target loses its top byte, by the half that bit 55 chooses. */
static void test_top_byte(void **state)
{
    static const struct {
        uint64_t tcr, elr, pc;
    } rows[] = {
        { 0, UINT64_C(0x5500000000001000), UINT64_C(0x5500000000001000) },
        { BIT(37), UINT64_C(0x5500000000001000), UINT64_C(0x0000000000001000) },
        { BIT(37), UINT64_C(0x5580000000001000), UINT64_C(0x5580000000001000) },
        { BIT(38), UINT64_C(0x5580000000001000), UINT64_C(0xff80000000001000) },
        { BIT(38), UINT64_C(0x5500000000001000), UINT64_C(0x5500000000001000) },
    };
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        fixture_reset(f);
        put_name(cpu, "TCR_EL1", rows[i].tcr);
        put_name(cpu, "SPSR_EL1", 0);
        put_name(cpu, "ELR_EL1", rows[i].elr);
        cpu_eret(cpu);
        assert_int_equal(cpu->next_pc, rows[i].pc);
    }
    fixture_free(f);
}

static void test_wfx(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    for (unsigned wfe = 0; wfe < 2; wfe++) {
        fixture_reset(f);
        put_name(cpu, "SCTLR_EL1", 0);
        assert_false(cpu_wfx_trap(cpu, wfe)); /* EL1 never traps */
        fixture_el0(f);
        assert_true(cpu_wfx_trap(cpu, wfe));
        assert_int_equal(cpu->sys.esr_el1, UINT64_C(1) << 26 | 1 << 25 | 0x1e00000 | wfe);
        assert_int_equal(cpu->sys.elr_el1, PC);
        fixture_reset(f);
        put_name(cpu, "SCTLR_EL1", wfe ? SCTLR_nTWE : SCTLR_nTWI);
        fixture_el0(f);
        assert_false(cpu_wfx_trap(cpu, wfe));
        assert_true(cpu_wfx_trap(cpu, !wfe));
    }
    fixture_free(f);
}

/* PSTATE as one word, there and back, through both engines' doors. */
static void test_pstate(void **state)
{
    static const uint32_t words[] = { 0, 0xf00003c0, 0x400003c5, 0x80000004, 0x10300145, 0x203003c5 };
    struct fixture *f = fixture_new("cortex-a57", 1);

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        cpu_set_pstate(f->cpu, words[i]);
        assert_int_equal(cpu_pstate(f->cpu), words[i]);
    }
    cpu_set_pstate(f->cpu, 0xc003c5); /* PAN and UAO, which it lacks */
    assert_int_equal(cpu_pstate(f->cpu), 0x3c5);
    fixture_free(f);
}

static void test_hash(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;
    uint64_t h = cpu_state_hash(cpu);

    assert_int_equal(cpu_state_hash(cpu), h);
    cpu->x[3] ^= 1;
    assert_int_not_equal(cpu_state_hash(cpu), h);
    cpu->x[3] ^= 1;
    cpu->v[31].b[15] ^= 0x80;
    assert_int_not_equal(cpu_state_hash(cpu), h);
    cpu->v[31].b[15] ^= 0x80;
    cpu->sp_el[0] ^= 1;
    assert_int_not_equal(cpu_state_hash(cpu), h);
    cpu->sp_el[0] ^= 1;
    cpu->sys.tpidr_el0 = 1;
    assert_int_not_equal(cpu_state_hash(cpu), h);
    cpu->sys.tpidr_el0 = 0;
    cpu->daif ^= DAIF_D;
    assert_int_not_equal(cpu_state_hash(cpu), h);
    cpu->daif ^= DAIF_D;
    assert_int_equal(cpu_state_hash(cpu), h);
    fixture_free(f);
}

/* A real guest round trip: SVC from EL0, and back by ERET. */
static void test_round_trip(void **state)
{
    static const uint32_t user[] = { 0xd4000541, 0xd2800020 };   /* svc #42; mov x0, #1 */
    static const uint32_t vector[] = { 0xd5385201, 0xd69f03e0 }; /* mrs x1, esr_el1; eret */
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    fixture_code(f, PC, user, 2);
    fixture_code(f, VBAR + 0x400, vector, 2);
    fixture_el0(f);
    interp_step(cpu);
    assert_int_equal(cpu->pc, VBAR + 0x400);
    interp_step(cpu);
    assert_int_equal(cpu->x[1], UINT64_C(0x15) << 26 | 1 << 25 | 42);
    interp_step(cpu);
    assert_int_equal(cpu->pc, PC + 4);
    assert_int_equal(cpu->el, 0);
    interp_step(cpu);
    assert_int_equal(cpu->x[0], 1);
    assert_int_equal(cpu->icount, 4);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset), cmocka_unit_test(test_vectors), cmocka_unit_test(test_classes),
        cmocka_unit_test(test_masks), cmocka_unit_test(test_wires), cmocka_unit_test(test_pan_uao),
        cmocka_unit_test(test_eret), cmocka_unit_test(test_illegal_eret), cmocka_unit_test(test_top_byte),
        cmocka_unit_test(test_wfx), cmocka_unit_test(test_pstate), cmocka_unit_test(test_hash),
        cmocka_unit_test(test_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
