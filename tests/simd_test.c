/*
 * SIMD instructions where an outside oracle at EL0 sees nothing: faults in the middle of a structure, alignment by
 * element, the FP trap, and FPSR of lanes that are not there.
 */
#include "cpu_fixture.h"

enum { PC = FIXTURE_RAM, END = FIXTURE_RAM + FIXTURE_RAM_SIZE };
enum { FSC_ALIGNMENT = 0x21, FSC_EXTERNAL = 0x10, ISS_WNR = 1 << 6 };

static struct fixture *simd_fixture(void)
{
    struct fixture *f = fixture_new("max", 1);

    f->cpu->sys.cpacr_el1 = 3u << 20;
    cpu_refresh(f->cpu);
    for (unsigned i = 0; i < 32; i++)
        f->cpu->v[i] = (union vreg){ .d = { UINT64_C(0x1111111111111111) * (i % 16), i } };
    return f;
}

/* A load that runs out of RAM (D1.3.4: a Data Abort) leaves every register as it was, the base too. */
static void test_load_faults_whole(void **state)
{
    static const struct {
        uint32_t word;
        unsigned before; /* bytes that are still there */
    } loads[] = {
        { 0x4cdf2020, 32 }, /* ld1 {v0.16b-v3.16b}, [x1], #64 */
        { 0x4cdf0420, 48 }, /* ld4 {v0.8h-v3.8h}, [x1], #64 */
        { 0x0cdf4820, 8 },  /* ld3 {v0.2s-v2.2s}, [x1], #24 */
        { 0x4dff8420, 8 },  /* ld2 {v0.d, v1.d}[1], [x1], #16 */
        { 0x4dffe820, 12 }, /* ld4r {v0.4s-v3.4s}, [x1], #16 */
        { 0xacc10420, 16 }, /* ldp q0, q1, [x1], #32 */
        { 0x3cc10420, 0 },  /* ldr q0, [x1], #16 */
    };
    struct fixture *f = simd_fixture();
    struct cpu *cpu = f->cpu;
    union vreg v[32];

    memcpy(v, cpu->v, sizeof(v));
    for (size_t i = 0; i < ARRAY_LEN(loads); i++) {
        cpu->pc = PC;
        cpu->x[1] = END - loads[i].before;
        assert_false(interp_exec_word(cpu, loads[i].word));
        assert_int_equal(esr_ec(cpu), EC_DABT_SAME);
        assert_int_equal(esr_iss(cpu) & 0x7f, FSC_EXTERNAL);
        assert_int_equal(cpu->sys.far_el1, END);
        assert_int_equal(cpu->x[1], END - loads[i].before);
        assert_memory_equal(v, cpu->v, sizeof(v));
    }
    fixture_free(f);
}

/* A store may have written what came before the fault, but the base stays. */
static void test_store_fault(void **state)
{
    struct fixture *f = simd_fixture();
    struct cpu *cpu = f->cpu;

    cpu->x[1] = END - 16;
    assert_false(interp_exec_word(cpu, 0x4c9fa020)); /* st1 {v0.16b, v1.16b}, [x1], #32 */
    assert_int_equal(esr_iss(cpu) & 0x7f, FSC_EXTERNAL | ISS_WNR);
    assert_int_equal(cpu->sys.far_el1, END);
    assert_int_equal(cpu->x[1], END - 16);
    fixture_free(f);
}

/* With the MMU off data is Device memory: unaligned accesses fault, by element for structures (B2.5.2). */
static void test_alignment_by_element(void **state)
{
    static const struct {
        uint32_t word;
        unsigned align, wnr;
    } accesses[] = {
        { 0x4c407020, 1, 0 },        /* ld1 {v0.16b}, [x1] */
        { 0x4c407420, 2, 0 },        /* ld1 {v0.8h}, [x1] */
        { 0x3dc00020, 16, 0 },       /* ldr q0, [x1] */
        { 0xacc10420, 16, 0 },       /* ldp q0, q1, [x1], #32 */
        { 0x0c008020, 1, ISS_WNR },  /* st2 {v0.8b, v1.8b}, [x1] */
        { 0x0c008420, 2, ISS_WNR },  /* st2 {v0.4h, v1.4h}, [x1] */
        { 0x4dff8420, 8, 0 },        /* ld2 {v0.d, v1.d}[1], [x1], #16 */
    };
    struct fixture *f = simd_fixture();
    struct cpu *cpu = f->cpu;

    for (size_t i = 0; i < ARRAY_LEN(accesses); i++)
        for (unsigned off = 1; off <= 16; off *= 2) {
            cpu->pc = PC;
            cpu->x[1] = FIXTURE_RAM + 0x1000 + off;
            assert_int_equal(interp_exec_word(cpu, accesses[i].word), off >= accesses[i].align);
            if (off < accesses[i].align)
                assert_int_equal(esr_iss(cpu) & 0x7f, FSC_ALIGNMENT | accesses[i].wnr);
        }
    fixture_free(f);
}

/* Groups simd, simdmem and crypto are all behind CPACR_EL1.FPEN. */
static void test_fp_trap(void **state)
{
    static const uint32_t words[] = { 0x4e220c20, 0x1e622820, 0x3dc00020, 0x4e284820 }; /* sqadd, fadd, ldr, aese */
    struct fixture *f = simd_fixture();
    struct cpu *cpu = f->cpu;
    union vreg v[32];

    memcpy(v, cpu->v, sizeof(v));
    cpu->sys.cpacr_el1 = 0;
    cpu_refresh(cpu);
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        cpu->pc = PC;
        cpu->x[1] = FIXTURE_RAM;
        assert_false(interp_exec_word(cpu, words[i]));
        assert_int_equal(esr_ec(cpu), EC_FP_ACCESS);
        assert_memory_equal(v, cpu->v, sizeof(v));
    }
    fixture_free(f);
}

/* The lanes above a scalar or 64-bit vector neither saturate nor raise flags, and are cleared in the result. */
static void test_lanes_outside(void **state)
{
    static const struct {
        uint32_t word;
        uint64_t lo, hi; /* of both operands */
        uint64_t result;
        uint32_t fpsr;
    } cases[] = {
        { 0x5e220c20, UINT64_C(0x7f7f7f7f7f7f7f01), UINT64_C(0x7f7f7f7f7f7f7f7f), 2, 0 },        /* sqadd b0 */
        { 0x5e220c20, UINT64_C(0x010101010101017f), 0, 0x7f, FPSR_QC },
        { 0x4e220c20, 0, UINT64_C(0x8000000000000000), 0, FPSR_QC },                              /* sqadd .16b */
        { 0x1e622820, 0, UINT64_C(0x7ff0000000000001), 0, 0 },                                    /* fadd d0 */
        { 0x0e22d420, UINT64_C(0x3f8000003f800000), UINT64_C(0x7f8000017f800001),                 /* fadd .2s */
          UINT64_C(0x4000000040000000), 0 },
        { 0x0e22d420, UINT64_C(0x7f80000100000000), 0, UINT64_C(0x7fc0000100000000), FPSR_IOC },
    };
    struct fixture *f = simd_fixture();
    struct cpu *cpu = f->cpu;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool q = cases[i].word == 0x4e220c20;
        cpu->pc = PC;
        cpu->fp = (struct fpst){ 0, 0 };
        cpu->v[1] = cpu->v[2] = (union vreg){ .d = { cases[i].lo, cases[i].hi } };
        assert_true(interp_exec_word(cpu, cases[i].word));
        assert_int_equal(cpu->v[0].d[0], cases[i].result);
        assert_int_equal(cpu->v[0].d[1], q ? UINT64_C(0x8000000000000000) : 0);
        assert_int_equal(cpu->fp.fpsr, cases[i].fpsr);
    }
    fixture_free(f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_faults_whole),
        cmocka_unit_test(test_store_fault),
        cmocka_unit_test(test_alignment_by_element),
        cmocka_unit_test(test_fp_trap),
        cmocka_unit_test(test_lanes_outside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
