/*
 * Vector permutations: ZIP, UZP, TRN, EXT, REV, TBL, TBX (DDI0487 C7.2).
 * Threading: the vCPU's own.
 */
#include "cpu/vec.h"

#include "cpu/vec_lanes.h"

/* For each k below half the lanes (h of them), two lanes of the result. */
#define PERM_CASE(log2, ...)                                                                                           \
    case log2: {                                                                                                       \
        uint##log2##_lane *r = d->es##log2;                                                                            \
        const uint##log2##_lane *x = a->es##log2, *y = b->es##log2;                                                    \
        for (unsigned k = 0; k < h; k++) {                                                                             \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
        break;                                                                                                         \
    }
#define uint0_lane uint8_t
#define uint1_lane uint16_t
#define uint2_lane uint32_t
#define uint3_lane uint64_t
#define PERM(name, ...)                                                                                                \
    VEC(name)                                                                                                          \
    {                                                                                                                  \
        unsigned h = shape_lanes(shape) / 2;                                                                           \
        d->d[1] = 0;                                                                                                   \
        switch (shape_es(shape)) {                                                                                     \
            PERM_CASE(0, __VA_ARGS__)                                                                                  \
            PERM_CASE(1, __VA_ARGS__)                                                                                  \
            PERM_CASE(2, __VA_ARGS__)                                                                                  \
            PERM_CASE(3, __VA_ARGS__)                                                                                  \
        }                                                                                                              \
    }
PERM(zip1, r[2 * k] = x[k], r[2 * k + 1] = y[k])
PERM(zip2, r[2 * k] = x[h + k], r[2 * k + 1] = y[h + k])
PERM(uzp1, r[k] = x[2 * k], r[h + k] = y[2 * k])
PERM(uzp2, r[k] = x[2 * k + 1], r[h + k] = y[2 * k + 1])
PERM(trn1, r[2 * k] = x[2 * k], r[2 * k + 1] = y[2 * k])
PERM(trn2, r[2 * k] = x[2 * k + 1], r[2 * k + 1] = y[2 * k + 1])

VEC(ext)
{
    unsigned n = shape_lanes(shape);

    d->d[1] = 0;
    for (unsigned i = 0; i < n; i++)
        d->b[i] = i + imm < n ? a->b[i + imm] : b->b[i + imm - n];
}

VEC(rev)
{
    unsigned es = shape_es(shape), n = shape_lanes(shape), flip = (1u << (imm - es)) - 1;

    d->d[1] = 0;
    for (unsigned i = 0; i < n; i++)
        vec_put(d, es, i, vec_get(a, es, i ^ flip));
}

VEC(tbl)
{
    for (unsigned i = 0; i < 16; i++)
        d->b[i] = b->b[i] < 16 ? a->b[b->b[i] & 15] : 0;
    vec_clip(d, shape);
}

VEC(tbx)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned k = c->b[i] - imm;

        d->b[i] = k < 16 ? b->b[k & 15] : a->b[i];
    }
    vec_clip(d, shape);
}
