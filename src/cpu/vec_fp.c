/*
 * Floating-point vector and scalar operations: lane by lane calls of cpu/fp.h.  Only lanes of the shape are computed,
 * so that the others neither raise flags nor take time.  Threading: the vCPU's own.
 */
#include "cpu/vec.h"

#include "cpu/vec_lanes.h"

/* x, y, z are this lane of a, b, c; st is the FP state. */
#define FP_LANES(name, inputs, expr)                                                                                   \
    VEC(name)                                                                                                          \
    {                                                                                                                  \
        unsigned es = shape_es(shape), n = shape_lanes(shape);                                                         \
        struct fpst *st UNUSED = &cpu->fp;                                                                             \
        d->d[0] = d->d[1] = 0;                                                                                         \
        for (unsigned i = 0; i < n; i++) {                                                                             \
            inputs;                                                                                                    \
            vec_put(d, es, i, expr);                                                                                   \
        }                                                                                                              \
    }
#define FP_X uint64_t x = vec_get(a, es, i)
#define FP_XY FP_X, y = vec_get(b, es, i)
#define FP_XYZ FP_XY, z = vec_get(c, es, i)
#define FP1(name, expr) FP_LANES(name, FP_X, expr)
#define FP2(name, expr) FP_LANES(name, FP_XY, expr)
#define FP3(name, expr) FP_LANES(name, FP_XYZ, expr)
#define TRUTH(v) ((v) ? UINT64_MAX : 0)

FP1(fneg, fp_neg(es, x))
FP1(fabs, fp_abs(es, x))
FP2(fadd, fp_add(st, es, x, y))
FP2(fsub, fp_sub(st, es, x, y))
FP2(fmul, fp_mul(st, es, x, y))
FP2(fdiv, fp_div(st, es, x, y))
FP2(fmulx, fp_mulx(st, es, x, y))
FP2(fabd, fp_abd(st, es, x, y))
FP2(fmax, fp_max(st, es, x, y))
FP2(fmin, fp_min(st, es, x, y))
FP2(fmaxnm, fp_maxnm(st, es, x, y))
FP2(fminnm, fp_minnm(st, es, x, y))
FP2(frecps, fp_recps(st, es, x, y))
FP2(frsqrts, fp_rsqrts(st, es, x, y))
FP3(fmla, fp_fma(st, es, x, y, z))
FP1(fsqrt, fp_sqrt(st, es, x))
FP1(frecpe, fp_recpe(st, es, x))
FP1(frsqrte, fp_rsqrte(st, es, x))
FP1(frecpx, fp_recpx(st, es, x))
FP2(fcmeq, TRUTH(fp_cmp_eq(st, es, x, y)))
FP2(fcmge, TRUTH(fp_cmp_ge(st, es, x, y)))
FP2(fcmgt, TRUTH(fp_cmp_gt(st, es, x, y)))
FP2(facge, TRUTH(fp_cmp_ge(st, es, fp_abs(es, x), fp_abs(es, y))))
FP2(facgt, TRUTH(fp_cmp_gt(st, es, fp_abs(es, x), fp_abs(es, y))))

/* Pairs come from a, then b; a scalar result from the two low lanes of a. */
#define FP_PAIR                                                                                                        \
    const union vreg *v = n == 1 || 2 * i < n ? a : b;                                                                 \
    unsigned k = n == 1 ? 0 : 2 * i % n;                                                                               \
    uint64_t x = vec_get(v, es, k), y = vec_get(v, es, k + 1)
FP_LANES(faddp, FP_PAIR, fp_add(st, es, x, y))
FP_LANES(fmaxp, FP_PAIR, fp_max(st, es, x, y))
FP_LANES(fminp, FP_PAIR, fp_min(st, es, x, y))
FP_LANES(fmaxnmp, FP_PAIR, fp_maxnm(st, es, x, y))
FP_LANES(fminnmp, FP_PAIR, fp_minnm(st, es, x, y))

/* Reduce() of DDI0487 J1: neighbours first, which decides among several NaNs and which flags are raised. */
static void reduce(struct cpu *cpu, unsigned shape, union vreg *d, const union vreg *a,
                   uint64_t op(struct fpst *, unsigned, uint64_t, uint64_t))
{
    unsigned es = shape_es(shape);
    union vreg v = *a;

    for (unsigned n = shape_lanes(shape); n > 1; n /= 2)
        for (unsigned i = 0; i < n / 2; i++)
            vec_put(&v, es, i, op(&cpu->fp, es, vec_get(&v, es, 2 * i), vec_get(&v, es, 2 * i + 1)));
    d->d[0] = vec_get(&v, es, 0);
    d->d[1] = 0;
}

VEC(fmaxv)
{
    reduce(cpu, shape, d, a, fp_max);
}

VEC(fminv)
{
    reduce(cpu, shape, d, a, fp_min);
}

VEC(fmaxnmv)
{
    reduce(cpu, shape, d, a, fp_maxnm);
}

VEC(fminnmv)
{
    reduce(cpu, shape, d, a, fp_minnm);
}

/* --- conversions --- */

static enum fp_round mode_of(const struct fpst *st, unsigned imm)
{
    return imm & VI_FPCR ? fp_round_mode(st) : (enum fp_round)(imm & VI_MODE);
}

static unsigned int_width(unsigned imm)
{
    return imm & VI_TO64 ? 64 : 32;
}

#define MODE mode_of(st, imm)
#define FBITS (imm >> VI_FBITS_SHIFT)
#define WIDTH (8u << es)

FP1(frint, fp_round_int(st, es, x, MODE, imm & VI_EXACT))
FP1(frint_n, fp_round_int_n(st, es, x, MODE, int_width(imm)))
FP1(fcvts, fp_to_fixed(st, es, x, WIDTH, FBITS, false, MODE))
FP1(fcvtu, fp_to_fixed(st, es, x, WIDTH, FBITS, true, MODE))
FP1(scvtf, fp_from_fixed(st, es, x, WIDTH, FBITS, false, fp_round_mode(st)))
FP1(ucvtf, fp_from_fixed(st, es, x, WIDTH, FBITS, true, fp_round_mode(st)))

static void to_general(struct cpu *cpu, unsigned es, union vreg *d, const union vreg *a, unsigned imm, bool is_unsigned)
{
    const struct fpst *st = &cpu->fp;

    d->d[0] = fp_to_fixed(&cpu->fp, es, vec_get(a, es, 0), int_width(imm), FBITS, is_unsigned, MODE);
    d->d[1] = 0;
}

static void from_general(struct cpu *cpu, unsigned es, union vreg *d, const union vreg *a, unsigned imm,
                         bool is_unsigned)
{
    d->d[0] = fp_from_fixed(&cpu->fp, es, a->d[0], int_width(imm), FBITS, is_unsigned, fp_round_mode(&cpu->fp));
    d->d[1] = 0;
}

VEC(fcvts_x)
{
    to_general(cpu, shape_es(shape), d, a, imm, false);
}

VEC(fcvtu_x)
{
    to_general(cpu, shape_es(shape), d, a, imm, true);
}

VEC(scvtf_x)
{
    from_general(cpu, shape_es(shape), d, a, imm, false);
}

VEC(ucvtf_x)
{
    from_general(cpu, shape_es(shape), d, a, imm, true);
}

VEC(fcvt)
{
    d->d[0] = fp_convert(&cpu->fp, imm, shape_es(shape), vec_get(a, imm, 0), fp_round_mode(&cpu->fp));
    d->d[1] = 0;
}

#define CONVERT(name, from, first, mode)                                                                               \
    FP_LANES(name, uint64_t x = vec_get(a, from, (first) + i), fp_convert(st, from, es, x, mode))
CONVERT(fcvtl, es - 1, imm * n, fp_round_mode(st))
CONVERT(fcvtn, es + 1, 0, fp_round_mode(st))
CONVERT(fcvtxn, es + 1, 0, FPR_ODD)

VEC(fjcvtzs)
{
    bool exact;
    uint32_t r = fp_to_int_js(&cpu->fp, a->d[0], &exact);

    d->d[0] = (uint64_t)(exact ? NZCV_Z : 0) << 32 | r;
    d->d[1] = 0;
}
