/*
 * Macros that spread one lane's meaning over the four lane sizes, for cpu/vec*.c only.
 *
 * In an expression, T and S are the lane's unsigned and signed type, BITS its width; x, y, z are this lane of a, b, c,
 * as T.  Loops over all lanes of a register have constant bounds and no branches, so that the compiler turns them into
 * the host's vector instructions; lanes outside the shape are computed and cleared, which is only right where they have
 * no side effects.  Operations that touch FPSR loop over the lanes of the shape.
 */
#ifndef ARMLET_CPU_VEC_LANES_H
#define ARMLET_CPU_VEC_LANES_H

#include "base/bits.h"
#include "base/compiler.h"
#include "cpu/vec.h"

/* d is no input (isa/wops.def): without restrict every loop would check for overlap instead of being one instruction. */
#define VEC_ARGS                                                                                                       \
    struct cpu *cpu UNUSED, unsigned shape UNUSED, union vreg *restrict d, const union vreg *restrict a UNUSED,        \
        const union vreg *restrict b UNUSED, const union vreg *restrict c UNUSED, unsigned imm UNUSED
#define VEC(name) void vec_##name(VEC_ARGS)

/* Clear the lanes outside the shape. */
static inline void vec_clip(union vreg *d, unsigned shape)
{
    if (shape & SH_Q)
        return;
    d->d[1] = 0;
    if (!(shape & SH_D))
        d->d[0] &= bits_mask(8u << shape_es(shape));
}

static inline uint64_t vec_get(const union vreg *v, unsigned es, unsigned i)
{
    switch (es) {
    case 0: return v->b[i];
    case 1: return v->h[i];
    case 2: return v->s[i];
    default: return v->d[i];
    }
}

static inline int64_t vec_get_s(const union vreg *v, unsigned es, unsigned i)
{
    return bits_sext(vec_get(v, es, i), 8u << es);
}

static inline void vec_put(union vreg *v, unsigned es, unsigned i, uint64_t n)
{
    switch (es) {
    case 0: v->b[i] = (uint8_t)n; break;
    case 1: v->h[i] = (uint16_t)n; break;
    case 2: v->s[i] = (uint32_t)n; break;
    default: v->d[i] = n; break;
    }
}

#define TYPES_0 typedef uint8_t T; typedef int8_t S UNUSED;
#define TYPES_1 typedef uint16_t T; typedef int16_t S UNUSED;
#define TYPES_2 typedef uint32_t T; typedef int32_t S UNUSED;
#define TYPES_3 typedef uint64_t T; typedef int64_t S UNUSED;

#define LANE_CASE(log2, load, expr, n)                                                                                 \
    case log2: {                                                                                                       \
        TYPES_##log2 enum { BITS UNUSED = 8 << log2 };                                                                 \
        for (unsigned i = 0; i < (n); i++) {                                                                           \
            load(log2);                                                                                                \
            d->es##log2[i] = (T)(expr);                                                                                \
        }                                                                                                              \
        break;                                                                                                         \
    }
#define LOAD_1(log2) T x = a->es##log2[i]
#define LOAD_2(log2) T x = a->es##log2[i], y = b->es##log2[i]
#define LOAD_3(log2) T x = a->es##log2[i], y = b->es##log2[i], z = c->es##log2[i]

#define LANES(name, load, expr)                                                                                        \
    VEC(name)                                                                                                          \
    {                                                                                                                  \
        switch (shape_es(shape)) {                                                                                     \
            LANE_CASE(0, load, expr, 16)                                                                               \
            LANE_CASE(1, load, expr, 8)                                                                                \
            LANE_CASE(2, load, expr, 4)                                                                                \
            LANE_CASE(3, load, expr, 2)                                                                                \
        }                                                                                                              \
        vec_clip(d, shape);                                                                                            \
    }
#define LANES1(name, expr) LANES(name, LOAD_1, expr)
#define LANES2(name, expr) LANES(name, LOAD_2, expr)
#define LANES3(name, expr) LANES(name, LOAD_3, expr)

/* Only the lanes of the shape; the expression may set the flag `qc', which ends in FPSR.QC. */
#define LANES_QC(name, load, expr)                                                                                     \
    VEC(name)                                                                                                          \
    {                                                                                                                  \
        unsigned n = shape_lanes(shape);                                                                               \
        bool qc = false;                                                                                               \
        d->d[0] = d->d[1] = 0;                                                                                         \
        switch (shape_es(shape)) {                                                                                     \
            LANE_CASE(0, load, expr, n)                                                                                \
            LANE_CASE(1, load, expr, n)                                                                                \
            LANE_CASE(2, load, expr, n)                                                                                \
            LANE_CASE(3, load, expr, n)                                                                                \
        }                                                                                                              \
        if (qc)                                                                                                        \
            vec_set_qc(cpu);                                                                                           \
    }
#define LANES1_QC(name, expr) LANES_QC(name, LOAD_1, expr)
#define LANES2_QC(name, expr) LANES_QC(name, LOAD_2, expr)
#define LANES3_QC(name, expr) LANES_QC(name, LOAD_3, expr)

static inline void vec_set_qc(struct cpu *cpu)
{
    cpu->fp.fpsr |= FPSR_QC;
}

/* SatQ() of DDI0487: v in `bits' bits (1 to 64), signed or unsigned; *qc is set when it did not fit. */
static inline uint64_t vec_sat_s(__int128 v, unsigned bits, bool *qc)
{
    __int128 max = ((__int128)1 << (bits - 1)) - 1, min = -max - 1, r = v > max ? max : v < min ? min : v;

    *qc |= r != v;
    return (uint64_t)r;
}

static inline uint64_t vec_sat_u(__int128 v, unsigned bits, bool *qc)
{
    __int128 max = ((__int128)1 << bits) - 1, r = v > max ? max : v < 0 ? 0 : v;

    *qc |= r != v;
    return (uint64_t)r;
}

#endif
