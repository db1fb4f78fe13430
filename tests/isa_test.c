/*
 * The isa floor where no outside program can be asked: logical immediates against their definition, feature sets and ID
 * registers against the values that Arm's manuals of the cores print, and the edges of the disassembler's interface.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "isa/a64.h"

/* Rotate right within the low `size' bits. */
static uint64_t rotate(uint64_t v, unsigned size, unsigned by)
{
    for (; by; by--)
        v = v >> 1 | (v & 1) << (size - 1);
    return v;
}

/* Every element size, run length and rotation gives the value that its name says, and no other word is one. */
static void bitmask_is_its_definition(void **state)
{
    unsigned valid = 0;

    for (unsigned size = 2; size <= 64; size *= 2)
        for (unsigned ones = 1; ones < size; ones++)
            for (unsigned by = 0; by < size; by++) {
                unsigned n = size == 64, imms = (~(size * 2 - 1) & 0x3f) | (ones - 1);
                uint64_t want = rotate((UINT64_C(1) << ones) - 1, size, by);
                for (unsigned width = size; width < 64; width *= 2)
                    want |= want << width;
                assert_true(a64_bitmask_ok(1, n, imms));
                assert_int_equal(a64_bitmask(1, n, imms, by), want);
                assert_int_equal(a64_bitmask_ok(0, n, imms), size < 64);
                if (size < 64)
                    assert_int_equal(a64_bitmask(0, n, imms, by), (uint32_t)want);
                valid++;
            }
    assert_int_equal(valid, 5334); /* the number of 64-bit logical immediates */
    valid = 0;
    for (unsigned n = 0; n < 2; n++)
        for (unsigned imms = 0; imms < 64; imms++)
            valid += a64_bitmask_ok(1, n, imms);
    assert_int_equal(valid, 63 + 31 + 15 + 7 + 3 + 1);
}

static uint64_t id(enum a64_model model, enum a64_id_reg reg)
{
    uint64_t features[A64_FEATURE_WORDS];

    a64_model_features(model, features);
    return a64_id_bits(reg, features);
}

/* The instruction set registers of the silicon, from each core's Technical Reference Manual. */
static void id_registers_are_those_of_the_cores(void **state)
{
    assert_int_equal(id(A64_CORTEX_A53, ID_AA64ISAR0_EL1), 0x11120);
    assert_int_equal(id(A64_CORTEX_A57, ID_AA64ISAR0_EL1), 0x11120);
    assert_int_equal(id(A64_CORTEX_A72, ID_AA64ISAR0_EL1), 0x11120);
    assert_int_equal(id(A64_CORTEX_A72, ID_AA64ISAR1_EL1), 0);
    assert_int_equal(id(A64_CORTEX_A76, ID_AA64ISAR0_EL1), 0x100010211120);
    assert_int_equal(id(A64_CORTEX_A76, ID_AA64ISAR1_EL1), 0x100001);
    assert_int_equal(id(A64_NEOVERSE_N1, ID_AA64ISAR0_EL1), 0x100010211120);
    assert_int_equal(id(A64_NEOVERSE_N1, ID_AA64ISAR1_EL1), 0x100001);
}

static void fp16_shows_in_both_fields(void **state)
{
    uint64_t features[A64_FEATURE_WORDS] = { 0 };

    assert_int_equal(a64_id_bits(ID_AA64PFR0_EL1, features), 0);
    features[FEAT_FP16 / 64] |= UINT64_C(1) << FEAT_FP16 % 64;
    assert_int_equal(a64_id_bits(ID_AA64PFR0_EL1, features), 0x110000);
}

/* A field that two features share takes the higher value, whatever their order. */
static void shared_field_takes_the_highest(void **state)
{
    uint64_t features[A64_FEATURE_WORDS] = { 0 };

    features[FEAT_PMULL / 64] |= UINT64_C(1) << FEAT_PMULL % 64;
    assert_int_equal(a64_id_bits(ID_AA64ISAR0_EL1, features), 0x20);
    features[FEAT_AES / 64] |= UINT64_C(1) << FEAT_AES % 64;
    assert_int_equal(a64_id_bits(ID_AA64ISAR0_EL1, features), 0x20);
}

static void later_models_have_what_earlier_ones_have(void **state)
{
    uint64_t a57[A64_FEATURE_WORDS], a76[A64_FEATURE_WORDS], max[A64_FEATURE_WORDS];

    a64_model_features(A64_CORTEX_A57, a57);
    a64_model_features(A64_CORTEX_A76, a76);
    a64_model_features(A64_MAX, max);
    for (int i = 0; i < A64_FEATURE_WORDS; i++) {
        assert_int_equal(a57[i] & ~a76[i], 0);
        assert_int_equal(a76[i] & ~max[i], 0);
    }
    assert_true(a57[0] & 1 << FEAT_NONE);
}

static void availability_is_feature_and_todo(void **state)
{
    uint64_t a57[A64_FEATURE_WORDS], a76[A64_FEATURE_WORDS];

    a64_model_features(A64_CORTEX_A57, a57);
    a64_model_features(A64_CORTEX_A76, a76);
    assert_true(a64_available(A64_ADD_IMM, a57));
    assert_false(a64_available(A64_LDADD, a57));
    assert_true(a64_available(A64_LDADD, a76));
    assert_false(a64_available(A64_UDF, a76)); /* known, and UNDEFINED for ever */
    assert_false(a64_available(A64_UNDEFINED, a76));
}

static const char *text_at(uint32_t word, uint64_t pc)
{
    static char buf[A64_TEXT_SIZE];

    a64_disasm_at(word, pc, buf, sizeof buf);
    return buf;
}

static void targets_are_addresses(void **state)
{
    assert_string_equal(text_at(0x14000001, 0x1000), "b 0x1004");
    assert_string_equal(text_at(0x17ffffff, 0), "b 0xfffffffffffffffc");
    assert_string_equal(text_at(0x90000000, 0xffff800008001234), "adrp x0, 0xffff800008001000");
    assert_string_equal(text_at(0x10000020, 0x1002), "adr x0, 0x1006");
}

static void text_fits_any_buffer(void **state)
{
    char buf[8];

    memset(buf, 'x', sizeof buf);
    a64_disasm(0xd503201f, buf, 0);
    assert_int_equal(buf[0], 'x');
    a64_disasm(0xd503201f, buf, 3);
    assert_string_equal(buf, "no");
    assert_int_equal(buf[3], 'x');
    assert_string_equal(text_at(0xffffffff, 0), ".inst 0xffffffff");
}

static void fields_by_name(void **state)
{
    struct a64_insn insn;

    assert_true(a64_decode(0x914012a3, &insn)); /* add x3, x21, #4, lsl #12 */
    assert_int_equal(insn.op, A64_ADD_IMM);
    assert_int_equal(insn.u.ADD_IMM.imm12, 4);
    assert_int_equal(insn.u.ADD_IMM.sh, 1);
    assert_int_equal(a64_field(insn.op, 0x914012a3, "rn"), 21);
    assert_int_equal(a64_field(insn.op, 0x914012a3, "rm"), 0);
    assert_false(a64_decode(0xffffffff, &insn));
    assert_int_equal(insn.op, A64_UNDEFINED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bitmask_is_its_definition),
        cmocka_unit_test(id_registers_are_those_of_the_cores),
        cmocka_unit_test(fp16_shows_in_both_fields),
        cmocka_unit_test(shared_field_takes_the_highest),
        cmocka_unit_test(later_models_have_what_earlier_ones_have),
        cmocka_unit_test(availability_is_feature_and_todo),
        cmocka_unit_test(targets_are_addresses),
        cmocka_unit_test(text_fits_any_buffer),
        cmocka_unit_test(fields_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
