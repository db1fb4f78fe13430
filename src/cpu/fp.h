/*
 * Arm floating point on raw bits: the arithmetic functions of DDI0487 J1 (shared/functions/float), for
 * half, single and double precision.
 *
 * Values are raw encodings in the low bits of a uint64_t; the bits above the format are ignored on input
 * and zero on output.  `es' is log2 of the format's bytes: 1 half, 2 single, 3 double.  Functions that take
 * a struct fpst read its FPCR and only ever set cumulative bits in its FPSR.  Trapped exceptions, FPCR.AH,
 * NEP and FIZ (FEAT_AFP) and EBF do not exist here.  The functions keep no other state and may run in any
 * thread.
 *
 * The caller's host thread must have the default floating-point environment (round to nearest, no flush to
 * zero, exceptions masked): common cases are computed by the host.
 */
#ifndef ARMLET_CPU_FP_H
#define ARMLET_CPU_FP_H

#include <stdbool.h>
#include <stdint.h>

struct fpst {
    uint32_t fpcr;
    uint32_t fpsr;
};

enum fpcr_bits {
    FPCR_FZ16 = 1 << 19,
    FPCR_RMODE_SHIFT = 22, /* two bits, an enum fp_round from FPR_TIEEVEN to FPR_ZERO */
    FPCR_RMODE = 3 << 22,
    FPCR_FZ = 1 << 24,
    FPCR_DN = 1 << 25,
    FPCR_AHP = 1 << 26,
};

enum fpsr_bits {
    FPSR_IOC = 1 << 0,
    FPSR_DZC = 1 << 1,
    FPSR_OFC = 1 << 2,
    FPSR_UFC = 1 << 3,
    FPSR_IXC = 1 << 4,
    FPSR_IDC = 1 << 7,
    FPSR_QC = 1 << 27, /* saturation of integer SIMD; not touched here */
};

/* The first four are encoded as in FPCR.RMode. */
enum fp_round { FPR_TIEEVEN, FPR_POSINF, FPR_NEGINF, FPR_ZERO, FPR_TIEAWAY, FPR_ODD };

static inline enum fp_round fp_round_mode(const struct fpst *st)
{
    return (enum fp_round)(st->fpcr >> FPCR_RMODE_SHIFT & 3);
}

/* FPAbs, FPNeg: the sign bit only, NaNs too. */
static inline uint64_t fp_abs(unsigned es, uint64_t x)
{
    return x & (UINT64_MAX >> (65 - (8u << es)));
}

static inline uint64_t fp_neg(unsigned es, uint64_t x)
{
    return (x ^ UINT64_C(1) << ((8u << es) - 1)) & (UINT64_MAX >> (64 - (8u << es)));
}

/* Two operands; round by FPCR.RMode. */
uint64_t fp_add(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
uint64_t fp_sub(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
uint64_t fp_abd(struct fpst *st, unsigned es, uint64_t a, uint64_t b); /* FPAbs(FPSub): FABD */
uint64_t fp_mul(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
uint64_t fp_mulx(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
uint64_t fp_div(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
uint64_t fp_max(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
uint64_t fp_min(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
uint64_t fp_maxnm(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
uint64_t fp_minnm(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
uint64_t fp_recps(struct fpst *st, unsigned es, uint64_t a, uint64_t b);  /* 2 - a * b, fused */
uint64_t fp_rsqrts(struct fpst *st, unsigned es, uint64_t a, uint64_t b); /* (3 - a * b) / 2, fused */

/*
 * addend + n * m with one rounding (FPMulAdd).  FMSUB is fp_fma(a, -n, m), FNMADD fp_fma(-a, -n, m), FNMSUB
 * fp_fma(-a, n, m), FMLS fp_fma(d, -n, m), the negations by fp_neg() before the call.
 */
uint64_t fp_fma(struct fpst *st, unsigned es, uint64_t addend, uint64_t n, uint64_t m);

uint64_t fp_sqrt(struct fpst *st, unsigned es, uint64_t x);
uint64_t fp_recpe(struct fpst *st, unsigned es, uint64_t x);
uint64_t fp_rsqrte(struct fpst *st, unsigned es, uint64_t x);
uint64_t fp_recpx(struct fpst *st, unsigned es, uint64_t x);
uint32_t fp_urecpe(uint32_t x);
uint32_t fp_ursqrte(uint32_t x);

/* FPCompare: N, Z, C, V in bits 31 to 28.  `signalling': a quiet NaN is an Invalid Operation too (FCMPE). */
uint32_t fp_compare(struct fpst *st, unsigned es, uint64_t a, uint64_t b, bool signalling);

/* FPCompareEQ, GE, GT: the vector comparisons.  FACGE and FACGT compare fp_abs() of both. */
bool fp_cmp_eq(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
bool fp_cmp_ge(struct fpst *st, unsigned es, uint64_t a, uint64_t b);
bool fp_cmp_gt(struct fpst *st, unsigned es, uint64_t a, uint64_t b);

/* FPRoundInt: to an integral value; `exact' reports Inexact (FRINTX).  Any mode but FPR_ODD. */
uint64_t fp_round_int(struct fpst *st, unsigned es, uint64_t x, enum fp_round mode, bool exact);

/* FPRoundIntN: FRINT32 and FRINT64; `width' is 32 or 64; single and double only. */
uint64_t fp_round_int_n(struct fpst *st, unsigned es, uint64_t x, enum fp_round mode, unsigned width);

/*
 * FPToFixed: x * 2^fbits as an integer of `width' bits (16, 32 or 64), saturating, zero-extended to 64 bits.
 * 0 <= fbits <= width; any mode but FPR_ODD.
 */
uint64_t fp_to_fixed(struct fpst *st, unsigned es, uint64_t x, unsigned width, unsigned fbits,
                     bool is_unsigned, enum fp_round mode);

/* FixedToFP: the low `width' bits (16, 32 or 64) of x, signed or not, times 2^-fbits. */
uint64_t fp_from_fixed(struct fpst *st, unsigned es, uint64_t x, unsigned width, unsigned fbits,
                       bool is_unsigned, enum fp_round mode);

/*
 * FPConvert between formats, `from' and `to' as es and different.  FCVT and its vector forms pass
 * fp_round_mode(), FCVTXN passes FPR_ODD.  Half is the alternative format if FPCR.AHP; FZ16 does not act
 * here.
 */
uint64_t fp_convert(struct fpst *st, unsigned from, unsigned to, uint64_t x, enum fp_round mode);

/* FPToFixedJS (FJCVTZS): the 32-bit result; *exact is what PSTATE.Z becomes (N, C and V become 0). */
uint32_t fp_to_int_js(struct fpst *st, uint64_t x, bool *exact);

/* VFPExpandImm: the value of an 8-bit immediate. */
uint64_t fp_expand_imm(unsigned es, uint8_t imm8);

#endif
