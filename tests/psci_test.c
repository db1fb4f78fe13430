/*
 * cpu/psci.c: each function's answers on vCPUs that do not run, and one program that brings up a second vCPU for real.
 */
#include "cpu_fixture.h"

enum { PC = FIXTURE_RAM, ENTRY = FIXTURE_RAM + 0x1000 };
enum { FN64 = 0x40000000 };
enum { NOT_SUPPORTED = -1, INVALID_PARAMETERS = -2, ALREADY_ON = -4, ON_PENDING = -5, INVALID_ADDRESS = -9 };
#define PSCI(n)  (UINT64_C(0x84000000) + (n))
#define SMCCC(n) (UINT64_C(0x80000000) + (n))

static int64_t call(struct cpu *cpu, uint64_t function, uint64_t a, uint64_t b, uint64_t c)
{
    cpu->x[0] = function;
    cpu->x[1] = a;
    cpu->x[2] = b;
    cpu->x[3] = c;
    cpu->x[4] = 0x4444;
    cpu_hvc(cpu, 0);
    assert_int_equal(cpu->x[1], a); /* SMCCC: only x0 to x3 may change; ours changes x0 */
    assert_int_equal(cpu->x[4], 0x4444);
    return (int64_t)cpu->x[0];
}

static void test_versions(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 2);
    struct cpu *cpu = f->cpu;

    assert_int_equal(call(cpu, PSCI(0), 0, 0, 0), 0x10001);
    assert_int_equal(call(cpu, SMCCC(0), 0, 0, 0), 0x10001);
    assert_int_equal(call(cpu, SMCCC(1), SMCCC(0), 0, 0), 0);
    assert_int_equal(call(cpu, SMCCC(1), SMCCC(0x8000), 0, 0), NOT_SUPPORTED); /* ARCH_WORKAROUND_1 */
    assert_int_equal(call(cpu, PSCI(6), 0, 0, 0), 2);                          /* no Trusted OS */
    fixture_free(f);
}

static void test_features(void **state)
{
    static const uint64_t there[] = {
        PSCI(0), PSCI(1), PSCI(1) | FN64, PSCI(2), PSCI(3), PSCI(3) | FN64, PSCI(4), PSCI(4) | FN64, PSCI(6), PSCI(8),
        PSCI(9), PSCI(10), PSCI(0x12), PSCI(0x12) | FN64, SMCCC(0),
    };
    static const uint64_t absent[] = {
        PSCI(5), PSCI(7), PSCI(11), PSCI(12), PSCI(13), PSCI(14), PSCI(15), PSCI(0x10), PSCI(0x11), PSCI(0x13),
        PSCI(0) | FN64, PSCI(2) | FN64, PSCI(8) | FN64, 0, 0x12345678, UINT32_MAX,
    };
    struct fixture *f = fixture_new("cortex-a57", 1);

    for (size_t i = 0; i < ARRAY_LEN(there); i++)
        assert_int_equal(call(f->cpu, PSCI(10), there[i], 0, 0), 0);
    for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
        assert_int_equal(call(f->cpu, PSCI(10), absent[i], 0, 0), NOT_SUPPORTED);
        assert_int_equal(call(f->cpu, absent[i], 0, 0, 0), NOT_SUPPORTED);
    }
    fixture_free(f);
}

static void test_cpu_on(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 3);
    struct cpu *cpu = f->cpu;
    uint64_t on = PSCI(3) | FN64, info = PSCI(4) | FN64;

    assert_int_equal(call(cpu, info, 1, 0, 0), 1); /* off */
    assert_int_equal(call(cpu, on, 1, ENTRY + 2, 0), INVALID_ADDRESS);
    assert_int_equal(call(cpu, on, 1, 0x1000, 0), INVALID_ADDRESS); /* nothing there */
    assert_int_equal(call(cpu, on, 3, ENTRY, 0), INVALID_PARAMETERS);
    assert_int_equal(call(cpu, on, 0x100000001, ENTRY, 0), INVALID_PARAMETERS);
    assert_int_equal(call(cpu, on, 1, ENTRY, 0x77), 0);
    assert_int_equal(call(cpu, on, 1, ENTRY, 0x77), ON_PENDING); /* its thread never starts here */
    assert_int_equal(call(cpu, info, 1, 0, 0), 2);
    assert_int_equal(call(cpu, info, 2, 0, 0), 1);
    assert_int_equal(call(cpu, info, 7, 0, 0), INVALID_PARAMETERS);
    assert_int_equal(call(cpu, info, 1, 4, 0), INVALID_PARAMETERS);
    /* The 32-bit function looks at the low halves only. */
    assert_int_equal(call(cpu, PSCI(3), UINT64_C(0xffffffff00000002), UINT64_C(0xffffffff00000000) | ENTRY, 0), 0);
    assert_int_equal(call(cpu, PSCI(4), 2, 0, 0), 2);
    fixture_free(f);
}

static void test_suspend(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    atomic_fetch_or(&cpu->pending, PEND_IRQ); /* a wake-up event is there: it returns at once */
    assert_int_equal(call(cpu, PSCI(1), 0, 0, 0), 0);
    assert_int_equal(call(cpu, PSCI(1) | FN64, 0x01010000, ENTRY, 0), 0);
    assert_int_equal(call(cpu, PSCI(1), 0x80000000, 0, 0), INVALID_PARAMETERS);
    assert_int_equal(call(cpu, PSCI(1), 0x00020000, 0, 0), INVALID_PARAMETERS);
    fixture_free(f);
}

static void count_call(void *opaque)
{
    g_atomic_int_inc((gint *)opaque);
}

static void test_system(void **state)
{
    static const struct cluster_ops ops = { .system_off = count_call, .system_reset = NULL };
    static const struct cluster_ops reset_ops = { .system_off = NULL, .system_reset = count_call };
    struct fixture *f = fixture_new("cortex-a57", 1);
    gint calls = 0;

    f->cl->ops = &ops;
    f->cl->ops_opaque = &calls;
    call(f->cpu, PSCI(8), 0, 0, 0);
    assert_int_equal(calls, 1);
    assert_true(atomic_load(&f->cpu->pending) & PEND_STOP);
    f->cl->ops = &reset_ops;
    call(f->cpu, PSCI(9), 0, 0, 0);
    call(f->cpu, PSCI(0x12), 0, 0, 0);
    assert_int_equal(calls, 3);
    assert_int_equal(call(f->cpu, PSCI(0x12), 0x80000000, 0, 0), INVALID_PARAMETERS);
    assert_int_equal(calls, 3);
    fixture_free(f);
}

/* No EL2: HVC is UNDEFINED at EL0 and for other immediates. */
static void test_undefined(void **state)
{
    struct fixture *f = fixture_new("cortex-a57", 1);
    struct cpu *cpu = f->cpu;

    cpu->x[0] = PSCI(0);
    cpu_hvc(cpu, 1);
    assert_int_equal(esr_ec(cpu), EC_UNKNOWN);
    assert_int_equal(cpu->x[0], PSCI(0));
    fixture_reset(f);
    cpu->x[0] = PSCI(8);
    fixture_el0(f);
    cpu_hvc(cpu, 0);
    assert_int_equal(cpu->el, 1);
    assert_int_equal(cpu->x[0], PSCI(8));
    fixture_free(f);
}

/*
 * vCPU 0: x0 = CPU_ON(1, second, 0x77); until AFFINITY_INFO(1) is OFF; SYSTEM_OFF.
 * vCPU 1: stores its x0, MPIDR_EL1 and CurrentEL at mark; CPU_OFF.
 */
static const uint32_t program[] = {
    0xd2800060, 0xf2b88000, 0xd2800021, 0x100001e2, 0xd2800ee3, 0xd4000002, 0xaa0003f4,             /* CPU_ON */
    0xd2800080, 0xf2b88000, 0xd2800021, 0xd2800002, 0xd4000002, 0xf100041f, 0x54ffff41,             /* until OFF */
    0xd2800100, 0xf2b08000, 0xd4000002, 0x14000000,                                                 /* SYSTEM_OFF */
    0x10000141, 0xd53800a2, 0xa9000820, 0xd5384242, 0xf9000822, 0xd2800040, 0xf2b08000, 0xd4000002, /* second: */
    0x14000000, 0xd503201f,
};

static void test_bring_up(void **state)
{
    static const struct cluster_ops ops = { .system_off = count_call };
    struct fixture *f = fixture_new("cortex-a57", 2);
    uint64_t mark[3];
    gint calls = 0;

    f->cl->clock_ns = NULL;
    f->cl->ops = &ops;
    f->cl->ops_opaque = &calls;
    fixture_code(f, PC, program, ARRAY_LEN(program));
    cluster_start(f->cl, PC, 0, false);
    for (unsigned i = 0; i < 10000 && !g_atomic_int_get(&calls); i++)
        g_usleep(1000);
    cluster_stop(f->cl);
    assert_int_equal(calls, 1);
    assert_int_equal(f->cpu->x[20], 0); /* CPU_ON succeeded */
    assert_true(mem_read(f->mem, PC + sizeof(program), mark, sizeof(mark)));
    assert_int_equal(mark[0], 0x77);
    assert_int_equal(mark[1], 0x80000001);
    assert_int_equal(mark[2], 4);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions), cmocka_unit_test(test_features), cmocka_unit_test(test_cpu_on),
        cmocka_unit_test(test_suspend), cmocka_unit_test(test_system), cmocka_unit_test(test_undefined),
        cmocka_unit_test(test_bring_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
