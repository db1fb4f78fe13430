/*
 * The A64 instruction set as data: decoding, text and per-instruction facts, generated from the *.isa tables.
 * Pure functions and constant tables: any thread.
 */
#ifndef ARMLET_ISA_A64_H
#define ARMLET_ISA_A64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isa/a64_gen.h"

/* FEAT_NONE is bit 0 of every model's feature set, so that a lookup needs no special case. */
enum a64_feature {
    FEAT_NONE,
#define FEATURE(name, reg, shift, value, a53, a57, a72, a76, n1, max, text) name,
#include "isa/features.def"
#undef FEATURE
    A64_N_FEATURES
};

/* The columns of features.def. */
enum a64_model {
    A64_CORTEX_A53, A64_CORTEX_A57, A64_CORTEX_A72, A64_CORTEX_A76, A64_NEOVERSE_N1, A64_MAX, A64_N_MODELS
};

/* The ID registers that features.def has fields of. */
enum a64_id_reg {
    ID_AA64ISAR0_EL1, ID_AA64ISAR1_EL1, ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1
};

enum { A64_MAX_FIELDS = 12, A64_TEXT_SIZE = 128, A64_FEATURE_WORDS = 2 };

/* A set of features is uint64_t[A64_FEATURE_WORDS], one bit for each enum a64_feature. */
_Static_assert(A64_N_FEATURES <= 64 * A64_FEATURE_WORDS, "a feature set is two words");

struct a64_info {
    const char *name;     /* as in the table: ADD_IMM */
    const char *text;     /* assembly template */
    uint32_t mask, value; /* the literal bits */
    uint8_t group;        /* enum a64_group */
    uint8_t feature;      /* enum a64_feature: needed, or FEAT_NONE */
    bool todo;            /* known, not implemented: UNDEFINED at run time */
    struct {
        const char *name; /* NULL ends the list */
        uint8_t lsb, width;
    } fields[A64_MAX_FIELDS];
};

extern const struct a64_info a64_info[A64_NOPS]; /* by enum a64_op; [0] stands for UNDEFINED */

/*
 * Decode one word.  False: no such encoding; insn->op is A64_UNDEFINED.  True says only that the manual knows
 * the word: whether this machine has it is a64_available().
 */
bool a64_decode(uint32_t word, struct a64_insn *insn);

/* Implemented, and its feature is in the set; otherwise executing it is UNDEFINED. */
static inline bool a64_available(unsigned op, const uint64_t features[A64_FEATURE_WORDS])
{
    const struct a64_info *info = &a64_info[op];

    return op != A64_UNDEFINED && !info->todo && (features[info->feature / 64] >> info->feature % 64 & 1);
}

/* The word's field called name (no spaces), or 0 if the instruction has none. */
uint32_t a64_field(unsigned op, uint32_t word, const char *name);

/*
 * Assembly text of word, at most size bytes with the NUL; pc (a byte address) turns relative targets into
 * addresses.  A word that is not an instruction gives ".inst 0x...".  a64_disasm() prints targets as #offset.
 */
void a64_disasm_at(uint32_t word, uint64_t pc, char *out, size_t size);
void a64_disasm(uint32_t word, char *out, size_t size);

/* DecodeBitMasks() of DDI0487 J1.1: is it a valid logical immediate, and which (32 bits unless sf). */
bool a64_bitmask_ok(unsigned sf, unsigned n, unsigned imms);
uint64_t a64_bitmask(unsigned sf, unsigned n, unsigned imms, unsigned immr);

/* Features of a model of features.def, FEAT_NONE included. */
void a64_model_features(enum a64_model model, uint64_t features[A64_FEATURE_WORDS]);
const char *a64_feature_name(enum a64_feature feature); /* "FEAT_LSE" */
const char *a64_feature_text(enum a64_feature feature); /* what it is, in words */
/*
 * What the features give in an ID register; fields that no feature describes are 0, but the FP and AdvSIMD
 * fields of ID_AA64PFR0_EL1 are complete (FEAT_FP16 is 1 in both).
 */
uint64_t a64_id_bits(enum a64_id_reg reg, const uint64_t features[A64_FEATURE_WORDS]);

#endif
