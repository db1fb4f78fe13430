/*
 * cpu/timer.c and cpu/pmu.c under a clock that the test moves.
 */
#include "cpu_fixture.h"

#include "cpu/pmu.h"
#include "cpu/timer.h"

enum { ENABLE = 1, IMASK = 2, ISTATUS = 4 };

static void advance(struct fixture *f, uint64_t ns)
{
    f->now_ns += ns;
    cpu_timer_check(f->cpu);
}

/* --- timers --- */

static void test_counter(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);

    assert_int_equal(get_name(f->cpu, "CNTFRQ_EL0"), 62500000);
    f->now_ns = 0;
    assert_int_equal(get_name(f->cpu, "CNTVCT_EL0"), 0);
    f->now_ns = 15;
    assert_int_equal(get_name(f->cpu, "CNTVCT_EL0"), 0);
    f->now_ns = 16;
    assert_int_equal(get_name(f->cpu, "CNTPCT_EL0"), 1);
    f->now_ns = UINT64_C(1000000000) * 86400 * 365 * 100; /* a century: exact, no wrap */
    assert_int_equal(get_name(f->cpu, "CNTVCT_EL0"), UINT64_C(62500000) * 86400 * 365 * 100);
    fixture_free(f);
}

static void check_timer(struct fixture *f, unsigned which, const char *ctl, const char *cval, const char *tval)
{
    struct cpu *cpu = f->cpu;
    struct probe wire = { 0 };
    uint64_t now;

    fixture_reset(f);
    cpu->gt[which].out = probe_line(&wire);
    now = cpu_counter(cpu);
    put_name(cpu, tval, 100);
    assert_int_equal(get_name(cpu, cval), now + 100);
    assert_int_equal(timer_deadline_ns(cpu), UINT64_MAX); /* not enabled */
    put_name(cpu, ctl, ENABLE);
    assert_int_equal(get_name(cpu, ctl), ENABLE);
    assert_int_equal(timer_deadline_ns(cpu), (now + 100) * 16);
    advance(f, 99 * 16);
    assert_int_equal(get_name(cpu, tval), 1);
    assert_false(wire.level);
    advance(f, 16);
    assert_true(wire.level);
    assert_int_equal(get_name(cpu, ctl), ENABLE | ISTATUS);
    assert_int_equal(timer_deadline_ns(cpu), UINT64_MAX); /* it is up: nothing to wait for */
    advance(f, 160);
    assert_int_equal(get_name(cpu, tval), (uint32_t)-10);
    put_name(cpu, ctl, ENABLE | IMASK);
    assert_false(wire.level);
    assert_int_equal(get_name(cpu, ctl), ENABLE | IMASK | ISTATUS);
    put_name(cpu, ctl, ENABLE);
    assert_true(wire.level);
    put_name(cpu, tval, 5); /* re-arm, as Linux does */
    assert_false(wire.level);
    advance(f, 80);
    assert_true(wire.level);
    put_name(cpu, ctl, 0);
    assert_false(wire.level);
    assert_int_equal(get_name(cpu, ctl), 0); /* ISTATUS of a disabled timer reads as zero here */
    assert_int_equal(wire.edges, 6);
}

static void test_timers(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);

    check_timer(f, GT_PHYS, "CNTP_CTL_EL0", "CNTP_CVAL_EL0", "CNTP_TVAL_EL0");
    check_timer(f, GT_VIRT, "CNTV_CTL_EL0", "CNTV_CVAL_EL0", "CNTV_TVAL_EL0");
    fixture_free(f);
}

/* TVAL is signed 32 bits; CVAL compares as unsigned 64. */
static void test_timer_extremes(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;
    uint64_t now = cpu_counter(cpu);

    put_name(cpu, "CNTV_TVAL_EL0", 0xffffffff);
    assert_int_equal(get_name(cpu, "CNTV_CVAL_EL0"), now - 1);
    put_name(cpu, "CNTV_CTL_EL0", ENABLE);
    assert_int_equal(get_name(cpu, "CNTV_CTL_EL0"), ENABLE | ISTATUS);
    put_name(cpu, "CNTV_CVAL_EL0", UINT64_MAX);
    assert_int_equal(get_name(cpu, "CNTV_CTL_EL0"), ENABLE);
    assert_int_equal(timer_deadline_ns(cpu), UINT64_MAX);
    put_name(cpu, "CNTV_CVAL_EL0", UINT64_MAX / 16 - 1);
    assert_int_equal(timer_deadline_ns(cpu), (UINT64_MAX / 16 - 1) * 16);
    put_name(cpu, "CNTP_CVAL_EL0", now + 7);
    put_name(cpu, "CNTP_CTL_EL0", ENABLE);
    assert_int_equal(timer_deadline_ns(cpu), (now + 7) * 16); /* the earlier of two */
    fixture_free(f);
}

static void test_event_stream(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    f->now_ns = 0;
    assert_false(timer_event_taken(cpu));
    assert_int_equal(timer_event_ns(cpu), UINT64_MAX);
    put_name(cpu, "CNTKCTL_EL1", 1 << 2 | 4 << 4); /* bit 4, rising: at 16, 48, 80 ... */
    assert_false(timer_event_taken(cpu));
    assert_int_equal(timer_event_ns(cpu), 16 * 16);
    f->now_ns = 16 * 16 - 1;
    assert_false(timer_event_taken(cpu));
    f->now_ns = 16 * 16;
    assert_true(timer_event_taken(cpu));
    assert_false(timer_event_taken(cpu));
    assert_int_equal(timer_event_ns(cpu), 48 * 16);
    put_name(cpu, "CNTKCTL_EL1", 1 << 2 | 1 << 3 | 4 << 4); /* falling: at 32, 64 ... */
    assert_false(timer_event_taken(cpu));
    assert_int_equal(timer_event_ns(cpu), 32 * 16);
    f->now_ns = 64 * 16 + 3;
    assert_true(timer_event_taken(cpu));
    assert_int_equal(timer_event_ns(cpu), 96 * 16);
    fixture_free(f);
}

/* --- performance monitors --- */

enum { E = 1, P = 2, C = 4, D = 8, LC = 64 };
#define CYCLES BIT(31)

static struct fixture *pmu_fixture(struct probe *wire)
{
    struct fixture *f = fixture_new("cortex-a57", 1);

    *wire = (struct probe){ 0 };
    f->cpu->pmu_out = probe_line(wire);
    return f;
}

static void test_pmu_identity(void **state)
{
    struct probe wire;
    struct fixture *f = pmu_fixture(&wire);

    assert_int_equal(get_name(f->cpu, "PMCR_EL0"), 0x41013000);
    assert_int_equal(get_name(f->cpu, "PMCEID0_EL0"), 0x50020f01);
    assert_int_equal(get_name(f->cpu, "PMCEID1_EL0"), 0);
    put_name(f->cpu, "PMCNTENSET_EL0", UINT64_MAX);
    assert_int_equal(get_name(f->cpu, "PMCNTENCLR_EL0"), 0x8000003f);
    put_name(f->cpu, "PMINTENSET_EL1", UINT64_MAX);
    put_name(f->cpu, "PMINTENCLR_EL1", 3);
    assert_int_equal(get_name(f->cpu, "PMINTENSET_EL1"), 0x8000003c);
    fixture_free(f);
}

static void test_cycles(void **state)
{
    struct probe wire;
    struct fixture *f = pmu_fixture(&wire);
    struct cpu *cpu = f->cpu;

    put_name(cpu, "PMCNTENSET_EL0", CYCLES);
    f->now_ns += 50;
    assert_int_equal(get_name(cpu, "PMCCNTR_EL0"), 0); /* E is clear */
    put_name(cpu, "PMCR_EL0", E | LC);
    f->now_ns += 1000;
    assert_int_equal(get_name(cpu, "PMCCNTR_EL0"), 1000);
    put_name(cpu, "PMCCFILTR_EL0", BIT(31)); /* not at EL1 */
    f->now_ns += 1000;
    assert_int_equal(get_name(cpu, "PMCCNTR_EL0"), 1000);
    fixture_el0(f);
    f->now_ns += 10;
    cpu_set_el_sp(cpu, 1, 1);
    f->now_ns += 1000;
    assert_int_equal(get_name(cpu, "PMCCNTR_EL0"), 1010);
    put_name(cpu, "PMCCFILTR_EL0", 0);
    put_name(cpu, "PMCR_EL0", E | D); /* every 64th */
    f->now_ns += 100;
    assert_int_equal(get_name(cpu, "PMCCNTR_EL0"), 1011);
    f->now_ns += 28;
    assert_int_equal(get_name(cpu, "PMCCNTR_EL0"), 1012);
    put_name(cpu, "PMCR_EL0", E | C);
    assert_int_equal(get_name(cpu, "PMCCNTR_EL0"), 0);
    assert_int_equal(get_name(cpu, "PMCR_EL0") & 0x7f, E); /* P and C read as zero */
    put_name(cpu, "PMCNTENCLR_EL0", CYCLES);
    f->now_ns += 5;
    assert_int_equal(get_name(cpu, "PMCCNTR_EL0"), 0);
    fixture_free(f);
}

static void test_cycle_overflow(void **state)
{
    struct probe wire;
    struct fixture *f = pmu_fixture(&wire);
    struct cpu *cpu = f->cpu;

    put_name(cpu, "PMCNTENSET_EL0", CYCLES);
    put_name(cpu, "PMINTENSET_EL1", CYCLES);
    put_name(cpu, "PMCCNTR_EL0", UINT64_C(0xffff0000));
    put_name(cpu, "PMCR_EL0", E);
    assert_int_equal(pmu_deadline_ns(cpu), f->now_ns + 0x10000);
    advance(f, 0xffff);
    assert_false(wire.level);
    advance(f, 1);
    assert_true(wire.level);
    assert_int_equal(get_name(cpu, "PMOVSSET_EL0"), CYCLES);
    assert_int_equal(get_name(cpu, "PMCCNTR_EL0"), UINT64_C(0x100000000));
    assert_int_equal(pmu_deadline_ns(cpu), UINT64_MAX);
    put_name(cpu, "PMOVSCLR_EL0", CYCLES);
    assert_false(wire.level);
    put_name(cpu, "PMCCNTR_EL0", UINT64_C(0xffffffffffff0000));
    put_name(cpu, "PMCR_EL0", E | LC);
    advance(f, 0xffff);
    assert_false(wire.level);
    advance(f, 1);
    assert_true(wire.level);
    assert_int_equal(get_name(cpu, "PMCCNTR_EL0"), 0);
    put_name(cpu, "PMCR_EL0", LC); /* E gates the interrupt */
    assert_false(wire.level);
    fixture_free(f);
}

static void test_instructions(void **state)
{
    static const uint32_t nops[] = { 0xd503201f, 0xd503201f, 0xd503201f, 0xd503201f, 0xd503201f };
    struct probe wire;
    struct fixture *f = pmu_fixture(&wire);
    struct cpu *cpu = f->cpu;

    fixture_code(f, FIXTURE_RAM, nops, ARRAY_LEN(nops));
    put_name(cpu, "PMSELR_EL0", 2);
    put_name(cpu, "PMXEVTYPER_EL0", PMU_INST_RETIRED);
    assert_int_equal(get_name(cpu, "PMEVTYPER2_EL0"), PMU_INST_RETIRED);
    put_name(cpu, "PMXEVCNTR_EL0", 0xfffffffe);
    put_name(cpu, "PMCNTENSET_EL0", 4);
    put_name(cpu, "PMINTENSET_EL1", 4);
    put_name(cpu, "PMCR_EL0", E);
    assert_true(pmu_deadline_ns(cpu) != UINT64_MAX);
    for (unsigned i = 0; i < 5; i++)
        interp_step(cpu);
    assert_int_equal(get_name(cpu, "PMEVCNTR2_EL0"), 3);
    assert_int_equal(get_name(cpu, "PMOVSCLR_EL0"), 4);
    assert_true(wire.level);
    put_name(cpu, "PMCR_EL0", E | P);
    assert_int_equal(get_name(cpu, "PMXEVCNTR_EL0"), 0);
    fixture_free(f);
}

static void test_software_and_chain(void **state)
{
    struct probe wire;
    struct fixture *f = pmu_fixture(&wire);
    struct cpu *cpu = f->cpu;

    put_name(cpu, "PMEVTYPER0_EL0", PMU_SW_INCR);
    put_name(cpu, "PMEVTYPER1_EL0", PMU_CHAIN);
    put_name(cpu, "PMEVTYPER4_EL0", PMU_SW_INCR);
    put_name(cpu, "PMEVCNTR0_EL0", UINT32_MAX);
    put_name(cpu, "PMCNTENSET_EL0", 0x13);
    put_name(cpu, "PMSWINC_EL0", 0x11);
    assert_int_equal(get_name(cpu, "PMEVCNTR4_EL0"), 0); /* E is clear */
    put_name(cpu, "PMCR_EL0", E);
    put_name(cpu, "PMSWINC_EL0", 0x11);
    put_name(cpu, "PMSWINC_EL0", 0x02);
    assert_int_equal(get_name(cpu, "PMEVCNTR0_EL0"), 0);
    assert_int_equal(get_name(cpu, "PMEVCNTR1_EL0"), 1);
    assert_int_equal(get_name(cpu, "PMEVCNTR4_EL0"), 1);
    assert_int_equal(get_name(cpu, "PMOVSSET_EL0"), 1);
    assert_false(wire.level); /* not asked for */
    put_name(cpu, "PMINTENSET_EL1", 1);
    assert_true(wire.level);
    fixture_free(f);
}

static void test_counted_events(void **state)
{
    struct probe wire;
    struct fixture *f = pmu_fixture(&wire);
    struct cpu *cpu = f->cpu;

    put_name(cpu, "PMEVTYPER0_EL0", PMU_EXC_TAKEN);
    put_name(cpu, "PMEVTYPER1_EL0", PMU_EXC_RETURN);
    put_name(cpu, "PMEVTYPER2_EL0", PMU_TTBR_WRITE_RETIRED);
    put_name(cpu, "PMEVTYPER3_EL0", PMU_CID_WRITE_RETIRED);
    put_name(cpu, "PMEVTYPER4_EL0", PMU_CPU_CYCLES);
    put_name(cpu, "PMEVTYPER5_EL0", PMU_EXC_TAKEN | BIT(30)); /* not at EL0 */
    put_name(cpu, "PMCNTENSET_EL0", 0x3f);
    put_name(cpu, "PMCR_EL0", E);
    fixture_el0(f);
    cpu_undefined(cpu);
    cpu_undefined(cpu);
    put_name(cpu, "SPSR_EL1", 5);
    cpu_eret(cpu);
    put_name(cpu, "TTBR0_EL1", 0x1000);
    put_name(cpu, "TTBR1_EL1", 0x1000);
    put_name(cpu, "CONTEXTIDR_EL1", 1);
    f->now_ns += 77;
    assert_int_equal(get_name(cpu, "PMEVCNTR0_EL0"), 2);
    assert_int_equal(get_name(cpu, "PMEVCNTR1_EL0"), 1);
    assert_int_equal(get_name(cpu, "PMEVCNTR2_EL0"), 2);
    assert_int_equal(get_name(cpu, "PMEVCNTR3_EL0"), 1);
    assert_int_equal(get_name(cpu, "PMEVCNTR4_EL0"), 77);
    assert_int_equal(get_name(cpu, "PMEVCNTR5_EL0"), 1);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counter), cmocka_unit_test(test_timers), cmocka_unit_test(test_timer_extremes),
        cmocka_unit_test(test_event_stream), cmocka_unit_test(test_pmu_identity), cmocka_unit_test(test_cycles),
        cmocka_unit_test(test_cycle_overflow), cmocka_unit_test(test_instructions),
        cmocka_unit_test(test_software_and_chain), cmocka_unit_test(test_counted_events),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
