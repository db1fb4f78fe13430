/*
 * Integer vector operations: lane-wise arithmetic, compares, saturation, pairwise and across-lane reductions, long and
 * narrowing forms, dot products, integer estimates (DDI0487 C7.2).  Shifts are in vec_shift.c, moves in vec_perm.c.
 * Threading: the vCPU's own.
 */
#include "cpu/vec.h"

#include "cpu/vec_lanes.h"

LANES2(and, x & y)
LANES2(or, x | y)
LANES2(xor, x ^ y)
LANES2(andn, x & ~y)
LANES2(orn, x | ~y)
LANES1(not, ~x)
LANES3(bsl, (x & y) | (~x & z))

LANES2(add, x + y)
LANES2(sub, x - y)
LANES2(mul, 1u * x * y)
LANES1(neg, 0 - x)
LANES1(abs, (S)x < 0 ? 0 - x : x)
LANES2(smax, (S)x > (S)y ? x : y)
LANES2(smin, (S)x < (S)y ? x : y)
LANES2(umax, x > y ? x : y)
LANES2(umin, x < y ? x : y)
LANES2(sabd, (S)x > (S)y ? x - y : y - x)
LANES2(uabd, x > y ? x - y : y - x)
/* Halving: the carry comes from the bits that only one operand has, so no wider type is needed. */
LANES2(uhadd, (x & y) + ((T)(x ^ y) >> 1))
LANES2(shadd, (x & y) + (T)((S)(x ^ y) >> 1))
LANES2(urhadd, (x | y) - ((T)(x ^ y) >> 1))
LANES2(srhadd, (x | y) - (T)((S)(x ^ y) >> 1))
LANES2(uhsub, ((T)(x ^ y) >> 1) - (T)(~x & y))
LANES2(shsub, (T)((S)(x ^ y) >> 1) - (T)(~x & y))
LANES1(clz, bits_clz(x, BITS))
LANES1(cls, bits_clz((T)(x ^ (T)((S)x >> 1)), BITS) - 1)
LANES1(rbit, bits_reverse(x, BITS))

/* Bytes only, eight at a time: sums of neighbouring bits, pairs and nibbles. */
VEC(cnt)
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t v = a->d[i];

        v -= v >> 1 & bits_replicate(0x55, 8);
        v = (v & bits_replicate(0x33, 8)) + (v >> 2 & bits_replicate(0x33, 8));
        d->d[i] = (v + (v >> 4)) & bits_replicate(0x0f, 8);
    }
    vec_clip(d, shape);
}

LANES2(cmeq, x == y ? (T)-1 : 0)
LANES2(cmgt, (S)x > (S)y ? (T)-1 : 0)
LANES2(cmge, (S)x >= (S)y ? (T)-1 : 0)
LANES2(cmhi, x > y ? (T)-1 : 0)
LANES2(cmhs, x >= y ? (T)-1 : 0)
LANES2(cmtst, x & y ? (T)-1 : 0)

LANES2_QC(sqadd, vec_sat_s((__int128)(S)x + (S)y, BITS, &qc))
LANES2_QC(uqadd, vec_sat_u((__int128)x + y, BITS, &qc))
LANES2_QC(sqsub, vec_sat_s((__int128)(S)x - (S)y, BITS, &qc))
LANES2_QC(uqsub, vec_sat_u((__int128)x - y, BITS, &qc))
LANES2_QC(suqadd, vec_sat_s((__int128)(S)x + y, BITS, &qc))
LANES2_QC(usqadd, vec_sat_u((__int128)x + (S)y, BITS, &qc))
LANES1_QC(sqabs, vec_sat_s((S)x < 0 ? -(__int128)(S)x : (S)x, BITS, &qc))
LANES1_QC(sqneg, vec_sat_s(-(__int128)(S)x, BITS, &qc))

/* Doubling products have at most 2 * BITS + 1 bits: exact in 128 for the 16- and 32-bit lanes that exist. */
LANES2_QC(sqdmulh, vec_sat_s(2 * (__int128)(S)x * (S)y >> BITS, BITS, &qc))
LANES2_QC(sqrdmulh, vec_sat_s((2 * (__int128)(S)x * (S)y + ((__int128)1 << (BITS - 1))) >> BITS, BITS, &qc))
#define RDM(op)                                                                                                        \
    vec_sat_s(((__int128)(S)x * ((__int128)1 << BITS) op 2 * (__int128)(S)y * (S)z + ((__int128)1 << (BITS - 1)))      \
                  >> BITS,                                                                                             \
              BITS, &qc)
LANES3_QC(sqrdmlah, RDM(+))
LANES3_QC(sqrdmlsh, RDM(-))

static uint64_t clmul(uint64_t x, uint64_t y, unsigned bits)
{
    uint64_t r = 0;

    for (unsigned i = 0; i < bits; i++)
        r ^= y >> i & 1 ? x << i : 0;
    return r;
}

LANES2(pmul, clmul(x, y, BITS))

/* --- long: from half a register --- */

#define LONG_CASE(log2, wide, type, expr)                                                                              \
    case wide: {                                                                                                       \
        enum { N = 8 >> log2 };                                                                                        \
        for (unsigned i = 0; i < N; i++) {                                                                             \
            type x = (type)a->es##log2[i + imm * N], y = b ? (type)b->es##log2[i + imm * N] : 0;                       \
            (void)y;                                                                                                   \
            d->es##wide[i] = expr;                                                                                     \
        }                                                                                                              \
        break;                                                                                                         \
    }
#define LONG(name, u, expr)                                                                                            \
    VEC(name)                                                                                                          \
    {                                                                                                                  \
        switch (shape_es(shape)) {                                                                                     \
            LONG_CASE(0, 1, u##int8_t, (uint16_t)(expr))                                                               \
            LONG_CASE(1, 2, u##int16_t, (uint32_t)(expr))                                                              \
            LONG_CASE(2, 3, u##int32_t, (uint64_t)(expr))                                                              \
        }                                                                                                              \
        vec_clip(d, shape);                                                                                            \
    }
LONG(uxtl, u, x)
LONG(sxtl, , x)
LONG(umull, u, (uint64_t)x *y)
LONG(smull, , (int64_t)x *y)

VEC(sqdmull)
{
    unsigned wide = shape_es(shape), es = wide - 1, n = shape_lanes(shape), first = imm * (8u >> es);
    bool qc = false;

    d->d[0] = d->d[1] = 0;
    for (unsigned i = 0; i < n; i++)
        vec_put(d, wide, i, vec_sat_s(2 * (__int128)vec_get_s(a, es, first + i) * vec_get_s(b, es, first + i),
                                      8u << wide, &qc));
    if (qc)
        vec_set_qc(cpu);
}

VEC(pmull8)
{
    for (unsigned i = 0; i < 8; i++)
        d->h[i] = (uint16_t)clmul(a->b[i + 8 * imm], b->b[i + 8 * imm], 8);
}

VEC(pmull64)
{
    uint64_t x = a->d[imm], y = b->d[imm], lo = 0, hi = 0;

    for (unsigned i = 0; i < 64; i++)
        if (y >> i & 1) {
            lo ^= x << i;
            hi ^= i ? x >> (64 - i) : 0;
        }
    d->d[0] = lo;
    d->d[1] = hi;
}

/* --- narrowing: to the low half --- */

VEC(xtn)
{
    d->d[0] = d->d[1] = 0;
    switch (shape_es(shape)) {
    case 0:
        for (unsigned i = 0; i < 8; i++)
            d->b[i] = (uint8_t)a->h[i];
        break;
    case 1:
        for (unsigned i = 0; i < 4; i++)
            d->h[i] = (uint16_t)a->s[i];
        break;
    default:
        d->s[0] = (uint32_t)a->d[0];
        d->s[1] = (uint32_t)a->d[1];
        break;
    }
    vec_clip(d, shape);
}

#define NARROW(name, get, sat)                                                                                         \
    VEC(name)                                                                                                          \
    {                                                                                                                  \
        unsigned es = shape_es(shape), n = shape_lanes(shape);                                                         \
        bool qc = false;                                                                                               \
        d->d[0] = d->d[1] = 0;                                                                                         \
        for (unsigned i = 0; i < n; i++)                                                                               \
            vec_put(d, es, i, sat(get(a, es + 1, i), 8u << es, &qc));                                                  \
        if (qc)                                                                                                        \
            vec_set_qc(cpu);                                                                                           \
    }
NARROW(sqxtn, vec_get_s, vec_sat_s)
NARROW(uqxtn, vec_get, vec_sat_u)
NARROW(sqxtun, vec_get_s, vec_sat_u)

/* --- pairwise and across --- */

/* The i-th lane of the concatenation b:a, taking only the lanes of the shape. */
static uint64_t pair_lane(const union vreg *a, const union vreg *b, unsigned shape, unsigned i)
{
    unsigned n = shape_lanes(shape);

    if (n == 1) /* a scalar result comes from the two low lanes of a */
        return vec_get(a, shape_es(shape), i);
    return i < n ? vec_get(a, shape_es(shape), i) : vec_get(b, shape_es(shape), i - n);
}

#define PAIRWISE(name, expr)                                                                                           \
    VEC(name)                                                                                                          \
    {                                                                                                                  \
        unsigned es = shape_es(shape), n = shape_lanes(shape), bits = 8u << es;                                        \
        d->d[0] = d->d[1] = 0;                                                                                         \
        for (unsigned i = 0; i < n; i++) {                                                                             \
            uint64_t x = pair_lane(a, b, shape, 2 * i), y = pair_lane(a, b, shape, 2 * i + 1);                         \
            (void)bits;                                                                                                \
            vec_put(d, es, i, expr);                                                                                   \
        }                                                                                                              \
    }
PAIRWISE(addp, x + y)
PAIRWISE(smaxp, bits_sext(x, bits) > bits_sext(y, bits) ? x : y)
PAIRWISE(sminp, bits_sext(x, bits) < bits_sext(y, bits) ? x : y)
PAIRWISE(umaxp, x > y ? x : y)
PAIRWISE(uminp, x < y ? x : y)

#define PAIR_LONG(name, get)                                                                                           \
    VEC(name)                                                                                                          \
    {                                                                                                                  \
        unsigned wide = shape_es(shape), n = shape_lanes(shape);                                                       \
        d->d[0] = d->d[1] = 0;                                                                                         \
        for (unsigned i = 0; i < n; i++)                                                                               \
            vec_put(d, wide, i, (uint64_t)get(a, wide - 1, 2 * i) + (uint64_t)get(a, wide - 1, 2 * i + 1));            \
    }
PAIR_LONG(saddlp, vec_get_s)
PAIR_LONG(uaddlp, vec_get)

#define ACROSS(name, type, get, expr, grow)                                                                            \
    VEC(name)                                                                                                          \
    {                                                                                                                  \
        unsigned es = shape_es(shape), n = shape_lanes(shape);                                                         \
        type r = get(a, es, 0);                                                                                        \
        for (unsigned i = 1; i < n; i++) {                                                                             \
            type x = get(a, es, i);                                                                                    \
            r = expr;                                                                                                  \
        }                                                                                                              \
        d->d[0] = d->d[1] = 0;                                                                                         \
        vec_put(d, es + grow, 0, (uint64_t)r);                                                                         \
    }
ACROSS(addv, uint64_t, vec_get, r + x, 0)
ACROSS(smaxv, int64_t, vec_get_s, r > x ? r : x, 0)
ACROSS(sminv, int64_t, vec_get_s, r < x ? r : x, 0)
ACROSS(umaxv, uint64_t, vec_get, r > x ? r : x, 0)
ACROSS(uminv, uint64_t, vec_get, r < x ? r : x, 0)
ACROSS(saddlv, int64_t, vec_get_s, r + x, 1)
ACROSS(uaddlv, uint64_t, vec_get, r + x, 1)

VEC(sdot)
{
    for (unsigned i = 0; i < 4; i++) {
        int32_t sum = 0;

        for (unsigned j = 4 * i; j < 4 * i + 4; j++)
            sum += (int8_t)b->b[j] * (int8_t)c->b[j];
        d->s[i] = a->s[i] + (uint32_t)sum;
    }
    vec_clip(d, shape);
}

VEC(udot)
{
    for (unsigned i = 0; i < 4; i++) {
        uint32_t sum = 0;

        for (unsigned j = 4 * i; j < 4 * i + 4; j++)
            sum += (uint32_t)b->b[j] * c->b[j];
        d->s[i] = a->s[i] + sum;
    }
    vec_clip(d, shape);
}

VEC(urecpe)
{
    for (unsigned i = 0; i < 4; i++)
        d->s[i] = fp_urecpe(a->s[i]);
    vec_clip(d, shape);
}

VEC(ursqrte)
{
    for (unsigned i = 0; i < 4; i++)
        d->s[i] = fp_ursqrte(a->s[i]);
    vec_clip(d, shape);
}
