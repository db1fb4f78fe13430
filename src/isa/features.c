/*
 * features.def as functions: the feature set of a CPU model, and the ID register fields of a feature set.
 * What it leaves out: ID fields that are not features of instructions or translation (PARange, BRPs ...)
 * belong to the register's owner.  Pure: any thread.
 */
#include "isa/a64.h"

static const struct feature {
    const char *name, *text;
    uint8_t reg, shift, value;
    bool on[A64_N_MODELS];
} table[A64_N_FEATURES] = {
    [FEAT_NONE] = { "FEAT_NONE", "base architecture", 0, 0, 0, { true, true, true, true, true, true } },
#define FEATURE(name, reg, shift, value, a53, a57, a72, a76, n1, max, text)                                  \
    [name] = { #name, text, reg, shift, value, { a53, a57, a72, a76, n1, max } },
#include "isa/features.def"
#undef FEATURE
};

void a64_model_features(enum a64_model model, uint64_t features[A64_FEATURE_WORDS])
{
    features[0] = features[1] = 0;
    for (unsigned i = 0; i < A64_N_FEATURES; i++)
        if (table[i].on[model])
            features[i / 64] |= UINT64_C(1) << i % 64;
}

const char *a64_feature_name(enum a64_feature feature)
{
    return table[feature].name;
}

const char *a64_feature_text(enum a64_feature feature)
{
    return table[feature].text;
}

uint64_t a64_id_bits(enum a64_id_reg reg, const uint64_t features[A64_FEATURE_WORDS])
{
    uint64_t bits = 0;

    for (unsigned i = 1; i < A64_N_FEATURES; i++) {
        const struct feature *f = &table[i];
        if (f->reg != reg || !(features[i / 64] >> i % 64 & 1) || (bits >> f->shift & 15) >= f->value)
            continue;
        bits = (bits & ~(UINT64_C(15) << f->shift)) | (uint64_t)f->value << f->shift;
    }
    if (reg == ID_AA64PFR0_EL1)
        bits |= (bits >> 16 & 15) << 20; /* AdvSIMD is required to equal FP */
    return bits;
}
