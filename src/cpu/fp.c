/*
 * Arm floating point, after the pseudocode of DDI0487 J1 (shared/functions/float).
 *
 * Every operation has one soft implementation, generic over the format: operands are unpacked to sign,
 * exponent and a 64-bit significand, the result is kept wide enough (with the bits below it gathered in the
 * last one) and rounded once in round_pack().  In front of it stand host fast paths for single and double;
 * their conditions are at "host arithmetic" below.
 *
 * Not modelled: trapped exceptions, FEAT_AFP, BFloat16, the AArch32 standard FPSCR.
 * Threading: no state but the caller's struct fpst.
 */
#include "cpu/fp.h"

#include <math.h>
#include <string.h>

typedef unsigned __int128 u128;

enum kind { K_ZERO, K_FINITE, K_INF, K_QNAN, K_SNAN };

struct format {
    uint8_t bits, ebits, fbits;
    int16_t bias;
};

static const struct format formats[4] = {
    [1] = { 16, 5, 10, 15 },
    [2] = { 32, 8, 23, 127 },
    [3] = { 64, 11, 52, 1023 },
};

/* K_FINITE: mant * 2^(exp - 63), bit 63 of mant set. */
struct num {
    enum kind kind;
    bool sign;
    int exp;
    uint64_t mant;
};

/* mant * 2^(exp - 127), bit 127 of mant set, or zero. */
struct wide {
    bool sign;
    int exp;
    u128 mant;
};

/* ---- encodings */

static uint64_t ones(unsigned n)
{
    return n ? UINT64_MAX >> (64 - n) : 0;
}

static uint64_t low(unsigned es, uint64_t x)
{
    return x & ones(formats[es].bits);
}

static bool sign_of(unsigned es, uint64_t x)
{
    return x >> (formats[es].bits - 1) & 1;
}

static uint64_t pack_zero(unsigned es, bool sign)
{
    return (uint64_t)sign << (formats[es].bits - 1);
}

static uint64_t pack_inf(unsigned es, bool sign)
{
    return pack_zero(es, sign) | ones(formats[es].ebits) << formats[es].fbits;
}

static uint64_t quiet_bit(unsigned es)
{
    return UINT64_C(1) << (formats[es].fbits - 1);
}

static uint64_t default_nan(unsigned es)
{
    return pack_inf(es, false) | quiet_bit(es);
}

/* (1 + quarters / 4) * 2^exp: small constants. */
static uint64_t pack_small(unsigned es, bool sign, int exp, unsigned quarters)
{
    const struct format *f = &formats[es];

    return pack_zero(es, sign) | (uint64_t)(exp + f->bias) << f->fbits | (uint64_t)quarters << (f->fbits - 2);
}

static uint64_t invalid(struct fpst *st, unsigned es)
{
    st->fpsr |= FPSR_IOC;
    return default_nan(es);
}

/* Does a result of this format, or an operand, flush to zero (conversions from and to half apart)? */
static bool flushes(const struct fpst *st, unsigned es)
{
    return st->fpcr & (es == 1 ? FPCR_FZ16 : FPCR_FZ);
}

static struct num normal(bool sign, int exp, uint64_t mant)
{
    int n = __builtin_clzll(mant);

    return (struct num){ K_FINITE, sign, exp - n, mant << n };
}

/* FPUnpack, and with `conv' FPUnpackCV: only there is AHP looked at and FZ16 not. */
static struct num unpack_as(struct fpst *st, unsigned es, uint64_t x, bool conv)
{
    const struct format *f = &formats[es];
    uint64_t frac = x & ones(f->fbits), exp = x >> f->fbits & ones(f->ebits);
    bool sign = sign_of(es, x);

    if (!exp) {
        if (!frac)
            return (struct num){ .kind = K_ZERO, .sign = sign };
        if (flushes(st, es) && !(conv && es == 1)) {
            if (es != 1)
                st->fpsr |= FPSR_IDC;
            return (struct num){ .kind = K_ZERO, .sign = sign };
        }
        return normal(sign, 1 - f->bias, frac << (63 - f->fbits));
    }
    if (exp == ones(f->ebits) && !(conv && es == 1 && st->fpcr & FPCR_AHP))
        return (struct num){ .kind = !frac ? K_INF : frac & quiet_bit(es) ? K_QNAN : K_SNAN, .sign = sign };
    return normal(sign, (int)exp - f->bias, (frac | UINT64_C(1) << f->fbits) << (63 - f->fbits));
}

static struct num unpack(struct fpst *st, unsigned es, uint64_t x)
{
    return unpack_as(st, es, x, false);
}

static bool is_nan(struct num n)
{
    return n.kind >= K_QNAN;
}

/* ---- rounding */

static uint64_t shift_right_jam(uint64_t v, int n)
{
    if (n == 0)
        return v;
    return n > 63 ? v != 0 : v >> n | ((v << (64 - n)) != 0);
}

static u128 shift_right_jam128(u128 v, int n)
{
    if (n == 0)
        return v;
    return n > 127 ? v != 0 : v >> n | ((v << (128 - n)) != 0);
}

/* Is the magnitude to be stepped up?  `rest' is what lies below it, as a fraction of 2^64. */
static bool rounds_up(enum fp_round mode, bool sign, bool odd, uint64_t rest)
{
    const uint64_t half = UINT64_C(1) << 63;

    switch (mode) {
    case FPR_TIEEVEN: return rest > half || (rest == half && odd);
    case FPR_TIEAWAY: return rest >= half;
    case FPR_POSINF:  return rest && !sign;
    case FPR_NEGINF:  return rest && sign;
    default:         return false;
    }
}

static bool overflows_to_inf(enum fp_round mode, bool sign)
{
    return mode == FPR_TIEEVEN || mode == FPR_TIEAWAY || mode == (sign ? FPR_NEGINF : FPR_POSINF);
}

static uint64_t overflow(struct fpst *st, unsigned es, bool sign, enum fp_round mode)
{
    st->fpsr |= FPSR_OFC | FPSR_IXC;
    return pack_inf(es, sign) - !overflows_to_inf(mode, sign);
}

/* FPRound, and with `conv' FPRoundCV, of mant * 2^(exp - 63); bit 0 of mant stands for all bits below. */
static uint64_t round_as(struct fpst *st, unsigned es, struct num n, enum fp_round mode, bool conv)
{
    const struct format *f = &formats[es];
    bool alt = conv && es == 1 && st->fpcr & FPCR_AHP;
    int biased = n.exp + f->bias, limit = (1 << f->ebits) - !alt;
    uint64_t frac, rest, r;

    if (biased < 1) {
        if (flushes(st, es) && !(conv && es == 1)) {
            st->fpsr |= FPSR_UFC;
            return pack_zero(es, n.sign);
        }
        n.mant = shift_right_jam(n.mant, 1 - biased);
        biased = 0;
    }
    frac = n.mant >> (63 - f->fbits);
    rest = n.mant << (f->fbits + 1);
    if (!biased && rest)
        st->fpsr |= FPSR_UFC;
    frac += rounds_up(mode, n.sign, frac & 1, rest);
    if (rest && mode == FPR_ODD)
        frac |= 1;
    if (biased > limit)
        biased = limit;
    /*
     * frac holds the leading one of a normal number, so adding makes up for the exponent being one less; a
     * carry out of the fraction steps the exponent as it should.
     */
    r = (biased ? (uint64_t)(biased - 1) << f->fbits : 0) + frac;
    if (r >> f->fbits >= (uint64_t)limit) {
        if (!alt)
            return overflow(st, es, n.sign, mode);
        st->fpsr |= FPSR_IOC;
        return pack_zero(es, n.sign) | ones(15);
    }
    if (rest)
        st->fpsr |= FPSR_IXC;
    return pack_zero(es, n.sign) | r;
}

static uint64_t round_pack(struct fpst *st, unsigned es, struct num n)
{
    return round_as(st, es, n, fp_round_mode(st), false);
}

/* ---- NaNs */

/* FPProcessNaN */
static uint64_t process_nan(struct fpst *st, unsigned es, uint64_t x, struct num n)
{
    if (n.kind == K_SNAN)
        st->fpsr |= FPSR_IOC;
    return st->fpcr & FPCR_DN ? default_nan(es) : low(es, x) | quiet_bit(es);
}

/* FPProcessNaNs: at least one of the operands is a NaN. */
static uint64_t process_nans(struct fpst *st, unsigned es, uint64_t x, struct num a, uint64_t y, struct num b)
{
    if (a.kind == K_SNAN || (a.kind == K_QNAN && b.kind != K_SNAN))
        return process_nan(st, es, x, a);
    return process_nan(st, es, y, b);
}

/* FPProcessNaNs3 */
static uint64_t process_nans3(struct fpst *st, unsigned es, const uint64_t x[3], const struct num n[3])
{
    for (enum kind k = K_SNAN; k >= K_QNAN; k--)
        for (int i = 0; i < 3; i++)
            if (n[i].kind == k)
                return process_nan(st, es, x[i], n[i]);
    return default_nan(es);
}

/* ---- sums and products */

static struct wide widen(struct num n)
{
    return (struct wide){ n.sign, n.exp, n.kind == K_FINITE ? (u128)n.mant << 64 : 0 };
}

static struct wide product(struct num a, struct num b)
{
    struct wide p = { a.sign != b.sign, a.exp + b.exp + 1, 0 };

    if (a.kind == K_FINITE && b.kind == K_FINITE)
        p.mant = (u128)a.mant * b.mant;
    if (p.mant && !(p.mant >> 127)) {
        p.mant <<= 1;
        p.exp--;
    }
    return p;
}

static struct num narrow(struct wide w)
{
    uint64_t hi = (uint64_t)(w.mant >> 64);
    int n = hi ? __builtin_clzll(hi) : 64 + __builtin_clzll((uint64_t)w.mant);

    w.mant <<= n;
    return (struct num){ K_FINITE, w.sign, w.exp - n, (uint64_t)(w.mant >> 64) | ((uint64_t)w.mant != 0) };
}

/* Operands have at most 106 significant bits, so that one guard bit at the top costs none. */
static u128 sum_mant(struct wide a, struct wide b, bool *sign)
{
    u128 x = a.mant >> 1, y = shift_right_jam128(b.mant >> 1, a.exp - b.exp);

    *sign = a.sign;
    if (a.sign == b.sign)
        return x + y;
    if (x >= y)
        return x - y;
    *sign = b.sign;
    return y - x;
}

/* (a + b) * 2^scale, rounded.  An exact zero has the sign of the rounding mode, or of two zeros alike. */
static uint64_t add_round(struct fpst *st, unsigned es, struct wide a, struct wide b, int scale)
{
    bool swap = !a.mant || (b.mant && b.exp > a.exp);
    struct wide big = swap ? b : a, small = swap ? a : b;
    struct wide r = { big.sign, big.exp + 1 + scale, big.mant >> 1 };

    if (small.mant)
        r.mant = sum_mant(big, small, &r.sign);
    else if (!big.mant && a.sign == b.sign)
        return pack_zero(es, a.sign);
    if (!r.mant)
        return pack_zero(es, fp_round_mode(st) == FPR_NEGINF);
    return round_pack(st, es, narrow(r));
}

static uint64_t soft_add(struct fpst *st, unsigned es, uint64_t x, uint64_t y)
{
    struct num a = unpack(st, es, x), b = unpack(st, es, y);

    if (is_nan(a) || is_nan(b))
        return process_nans(st, es, x, a, y, b);
    if (a.kind == K_INF && b.kind == K_INF && a.sign != b.sign)
        return invalid(st, es);
    if (a.kind == K_INF || b.kind == K_INF)
        return pack_inf(es, a.kind == K_INF ? a.sign : b.sign);
    return add_round(st, es, widen(a), widen(b), 0);
}

static uint64_t soft_mul(struct fpst *st, unsigned es, uint64_t x, uint64_t y, bool extended)
{
    struct num a = unpack(st, es, x), b = unpack(st, es, y);
    bool sign = a.sign != b.sign;

    if (is_nan(a) || is_nan(b))
        return process_nans(st, es, x, a, y, b);
    if (a.kind == K_FINITE && b.kind == K_FINITE)
        return round_pack(st, es, narrow(product(a, b)));
    if (a.kind != K_INF && b.kind != K_INF)
        return pack_zero(es, sign);
    if (a.kind != K_ZERO && b.kind != K_ZERO)
        return pack_inf(es, sign);
    return extended ? pack_small(es, sign, 1, 0) : invalid(st, es);
}

static uint64_t div_finite(struct fpst *st, unsigned es, struct num a, struct num b)
{
    u128 dividend = (u128)a.mant << 63;
    uint64_t q = (uint64_t)(dividend / b.mant);
    bool rest = (u128)q * b.mant != dividend;
    struct num r = normal(a.sign != b.sign, a.exp - b.exp, q);

    r.mant |= rest;
    return round_pack(st, es, r);
}

static uint64_t soft_div(struct fpst *st, unsigned es, uint64_t x, uint64_t y)
{
    struct num a = unpack(st, es, x), b = unpack(st, es, y);
    bool sign = a.sign != b.sign;

    if (is_nan(a) || is_nan(b))
        return process_nans(st, es, x, a, y, b);
    if (a.kind == K_FINITE && b.kind == K_FINITE)
        return div_finite(st, es, a, b);
    if (a.kind == b.kind)
        return invalid(st, es);
    if (a.kind == K_ZERO || b.kind == K_INF)
        return pack_zero(es, sign);
    if (a.kind != K_INF)
        st->fpsr |= FPSR_DZC;
    return pack_inf(es, sign);
}

/* The root of mant << 64 or << 63, whichever makes the exponent even, bit by bit. */
static uint64_t sqrt_finite(struct fpst *st, unsigned es, struct num a)
{
    bool odd = a.exp & 1;
    u128 square = (u128)a.mant << (odd ? 64 : 63), rest = square;
    uint64_t root = 0;

    for (int i = 63; i >= 0; i--) {
        u128 step = ((u128)root << (i + 1)) + ((u128)1 << (2 * i));
        if (rest >= step) {
            rest -= step;
            root |= UINT64_C(1) << i;
        }
    }
    return round_pack(st, es, (struct num){ K_FINITE, false, (a.exp - odd) / 2, root | (rest != 0) });
}

static uint64_t soft_sqrt(struct fpst *st, unsigned es, uint64_t x)
{
    struct num a = unpack(st, es, x);

    if (is_nan(a))
        return process_nan(st, es, x, a);
    if (a.kind == K_ZERO)
        return pack_zero(es, a.sign);
    if (a.sign)
        return invalid(st, es);
    return a.kind == K_INF ? pack_inf(es, false) : sqrt_finite(st, es, a);
}

static uint64_t soft_fma(struct fpst *st, unsigned es, uint64_t addend, uint64_t n, uint64_t m)
{
    const uint64_t x[3] = { addend, n, m };
    struct num v[3] = { unpack(st, es, addend), unpack(st, es, n), unpack(st, es, m) }, a = v[0];
    bool inf = v[1].kind == K_INF || v[2].kind == K_INF, sign = v[1].sign != v[2].sign;
    bool inf_zero = inf && (v[1].kind == K_ZERO || v[2].kind == K_ZERO);

    if (a.kind == K_QNAN && inf_zero) /* before the NaN is passed on */
        return invalid(st, es);
    if (is_nan(a) || is_nan(v[1]) || is_nan(v[2]))
        return process_nans3(st, es, x, v);
    if (inf_zero || (a.kind == K_INF && inf && a.sign != sign))
        return invalid(st, es);
    if (a.kind == K_INF || inf)
        return pack_inf(es, a.kind == K_INF ? a.sign : sign);
    return add_round(st, es, widen(a), product(v[1], v[2]), 0);
}

/* FPRecipStepFused (c is 2, scale 0) and FPRSqrtStepFused (c is 3, scale -1): (c - x * y) * 2^scale. */
static uint64_t step(struct fpst *st, unsigned es, uint64_t x, uint64_t y, unsigned c, int scale)
{
    uint64_t minus_x = fp_neg(es, x);
    struct num a = unpack(st, es, minus_x), b = unpack(st, es, y);
    struct wide addend = { false, 1, (u128)(c << 1) << 125 };

    if (is_nan(a) || is_nan(b))
        return process_nans(st, es, minus_x, a, y, b);
    if ((a.kind == K_INF && b.kind == K_ZERO) || (a.kind == K_ZERO && b.kind == K_INF))
        return pack_small(es, false, 1 + scale, (c & 1) << 1);
    if (a.kind == K_INF || b.kind == K_INF)
        return pack_inf(es, a.sign != b.sign);
    return add_round(st, es, addend, product(a, b), scale);
}

/* ---- host arithmetic
 *
 * A host result stands for the soft one, flags included, when rounding is to nearest, the operands are
 * normal and the result is normal with an exponent field of at least 2 and below all ones: then no NaN,
 * overflow, underflow (tininess before rounding included), flush or sign-of-zero question arises, and the
 * only flag in play is Inexact.  That is either set already or found exactly: by the residual of the
 * operation, which is representable while exponents stay RESIDUAL_MIN above the bottom.
 */
enum { RESIDUAL_MIN = 110 };

static double as_double(uint64_t x)
{
    double d;

    memcpy(&d, &x, sizeof d);
    return d;
}

static uint64_t of_double(double d)
{
    uint64_t x;

    memcpy(&x, &d, sizeof x);
    return x;
}

static float as_float(uint64_t x)
{
    uint32_t w = (uint32_t)x;
    float s;

    memcpy(&s, &w, sizeof s);
    return s;
}

static uint64_t of_float(float s)
{
    uint32_t w;

    memcpy(&w, &s, sizeof w);
    return w;
}

static unsigned exp_field(unsigned es, uint64_t x)
{
    return es == 3 ? x >> 52 & 0x7ff : x >> 23 & 0xff;
}

/* Is the exponent field in [least, all ones)? */
static bool in_range(unsigned es, uint64_t x, unsigned least)
{
    return exp_field(es, x) - least < (es == 3 ? 0x7ffu : 0xffu) - least;
}

static bool host_can(const struct fpst *st, unsigned es)
{
    return es != 1 && !(st->fpcr & FPCR_RMODE);
}

/* Is s = a + b without rounding error?  Knuth's two-sum finds the error itself. */
static bool sum_is_exact(double a, double b, double s)
{
    double bb = s - a, aa = s - bb;

    return (a - aa) + (b - bb) == 0;
}

/* s = a + b is exact in double unless the exponents lie far apart, and then it is inexact as a single too. */
static bool host_add(struct fpst *st, unsigned es, uint64_t x, uint64_t y, uint64_t *out)
{
    bool exact;

    if (!host_can(st, es) || !in_range(es, x, 1) || !in_range(es, y, 1))
        return false;
    if (es == 3) {
        double a = as_double(x), b = as_double(y), s = a + b;
        *out = of_double(s);
        exact = sum_is_exact(a, b, s);
    } else {
        double a = as_float(x), b = as_float(y), s = a + b;
        float r = as_float(x) + as_float(y);
        *out = of_float(r);
        exact = r == s && sum_is_exact(a, b, s);
    }
    if (!in_range(es, *out, 2))
        return false;
    if (!exact)
        st->fpsr |= FPSR_IXC;
    return true;
}

static bool host_mul(struct fpst *st, unsigned es, uint64_t x, uint64_t y, uint64_t *out)
{
    bool exact;

    if (!host_can(st, es) || !in_range(es, x, 1) || !in_range(es, y, 1))
        return false;
    if (es == 3) {
        double a = as_double(x), b = as_double(y), p = a * b;
        *out = of_double(p);
        if (!(st->fpsr & FPSR_IXC) && !in_range(3, *out, RESIDUAL_MIN))
            return false;
        exact = st->fpsr & FPSR_IXC || fma(a, b, -p) == 0;
    } else {
        double p = (double)as_float(x) * as_float(y);
        float r = (float)p;
        *out = of_float(r);
        exact = r == p;
    }
    if (!in_range(es, *out, 2))
        return false;
    if (!exact)
        st->fpsr |= FPSR_IXC;
    return true;
}

static bool host_div(struct fpst *st, unsigned es, uint64_t x, uint64_t y, uint64_t *out)
{
    bool exact;

    if (!host_can(st, es) || !in_range(es, x, 1) || !in_range(es, y, 1))
        return false;
    if (es == 3) {
        double a = as_double(x), b = as_double(y), q = a / b;
        *out = of_double(q);
        if (!(st->fpsr & FPSR_IXC) && !in_range(3, x, RESIDUAL_MIN))
            return false;
        exact = st->fpsr & FPSR_IXC || fma(q, b, -a) == 0;
    } else {
        float q = as_float(x) / as_float(y);
        *out = of_float(q);
        exact = (double)q * as_float(y) == as_float(x);
    }
    if (!in_range(es, *out, 2))
        return false;
    if (!exact)
        st->fpsr |= FPSR_IXC;
    return true;
}

static bool host_sqrt(struct fpst *st, unsigned es, uint64_t x, uint64_t *out)
{
    bool exact;

    if (!host_can(st, es) || !in_range(es, x, es == 3 ? RESIDUAL_MIN : 1) || sign_of(es, x))
        return false;
    if (es == 3) {
        double a = as_double(x), r = __builtin_sqrt(a);
        *out = of_double(r);
        exact = fma(r, r, -a) == 0;
    } else {
        float r = __builtin_sqrtf(as_float(x));
        *out = of_float(r);
        exact = (double)r * r == as_float(x);
    }
    if (!exact)
        st->fpsr |= FPSR_IXC;
    return true;
}

/* The residual of a fused operation is two numbers: only where Inexact is set already. */
static bool host_fma(struct fpst *st, unsigned es, uint64_t a, uint64_t n, uint64_t m, uint64_t *out)
{
    if (!host_can(st, es) || !(st->fpsr & FPSR_IXC))
        return false;
    if (!in_range(es, a, 1) || !in_range(es, n, 1) || !in_range(es, m, 1))
        return false;
    if (es == 3)
        *out = of_double(fma(as_double(n), as_double(m), as_double(a)));
    else
        *out = of_float(fmaf(as_float(n), as_float(m), as_float(a)));
    return in_range(es, *out, 2);
}

/* ---- arithmetic */

uint64_t fp_add(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    uint64_t r;

    return host_add(st, es, a, b, &r) ? r : soft_add(st, es, a, b);
}

static bool raw_is_nan(unsigned es, uint64_t x)
{
    return fp_abs(es, x) > pack_inf(es, false);
}

/* a - b is a + -b, but a NaN that is passed on keeps its sign. */
uint64_t fp_sub(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    return fp_add(st, es, a, raw_is_nan(es, b) ? b : fp_neg(es, b));
}

uint64_t fp_abd(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    return fp_abs(es, fp_sub(st, es, a, b));
}

uint64_t fp_mul(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    uint64_t r;

    return host_mul(st, es, a, b, &r) ? r : soft_mul(st, es, a, b, false);
}

uint64_t fp_mulx(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    uint64_t r;

    return host_mul(st, es, a, b, &r) ? r : soft_mul(st, es, a, b, true);
}

uint64_t fp_div(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    uint64_t r;

    return host_div(st, es, a, b, &r) ? r : soft_div(st, es, a, b);
}

uint64_t fp_sqrt(struct fpst *st, unsigned es, uint64_t x)
{
    uint64_t r;

    return host_sqrt(st, es, x, &r) ? r : soft_sqrt(st, es, x);
}

uint64_t fp_fma(struct fpst *st, unsigned es, uint64_t addend, uint64_t n, uint64_t m)
{
    uint64_t r;

    return host_fma(st, es, addend, n, m, &r) ? r : soft_fma(st, es, addend, n, m);
}

uint64_t fp_recps(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    return step(st, es, a, b, 2, 0);
}

uint64_t fp_rsqrts(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    return step(st, es, a, b, 3, -1);
}

/* ---- comparison */

/* An operand as FPUnpack sees it, still encoded: a flushed denormal is a zero. */
static uint64_t flush_input(struct fpst *st, unsigned es, uint64_t x)
{
    x = low(es, x);
    if (!flushes(st, es) || x >> formats[es].fbits & ones(formats[es].ebits) || !fp_abs(es, x))
        return x;
    if (es != 1)
        st->fpsr |= FPSR_IDC;
    return pack_zero(es, sign_of(es, x));
}

static bool raw_is_snan(unsigned es, uint64_t x)
{
    return raw_is_nan(es, x) && !(x & quiet_bit(es));
}

/* Order of two encodings that are not NaNs: both zeros are equal. */
static int64_t order_key(unsigned es, uint64_t x)
{
    int64_t mag = (int64_t)fp_abs(es, x);

    return sign_of(es, x) ? -mag : mag;
}

static void invalid_if(struct fpst *st, bool cond)
{
    if (cond)
        st->fpsr |= FPSR_IOC;
}

uint32_t fp_compare(struct fpst *st, unsigned es, uint64_t a, uint64_t b, bool signalling)
{
    int64_t x, y;

    a = flush_input(st, es, a);
    b = flush_input(st, es, b);
    if (raw_is_nan(es, a) || raw_is_nan(es, b)) {
        invalid_if(st, signalling || raw_is_snan(es, a) || raw_is_snan(es, b));
        return UINT32_C(3) << 28;
    }
    x = order_key(es, a);
    y = order_key(es, b);
    return (x == y ? UINT32_C(6) : x < y ? UINT32_C(8) : UINT32_C(2)) << 28;
}

bool fp_cmp_eq(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    return fp_compare(st, es, a, b, false) >> 30 & 1;
}

bool fp_cmp_ge(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    uint32_t f = fp_compare(st, es, a, b, true) >> 28;

    return f == 6 || f == 2;
}

bool fp_cmp_gt(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    return fp_compare(st, es, a, b, true) >> 28 == 2;
}

/* FPMax and FPMin.  Of two zeros the maximum is +0 if either is, the minimum -0 if either is. */
static uint64_t extreme(struct fpst *st, unsigned es, uint64_t a, uint64_t b, bool max)
{
    uint64_t x = flush_input(st, es, a), y = flush_input(st, es, b);
    int64_t kx, ky;

    if (raw_is_nan(es, x) || raw_is_nan(es, y))
        return process_nans(st, es, x, unpack(st, es, x), y, unpack(st, es, y));
    kx = order_key(es, x);
    ky = order_key(es, y);
    if (!kx && !ky)
        return max ? x & y : x | y;
    return (max ? kx > ky : kx < ky) ? x : y;
}

/* FPMaxNum, FPMinNum: a lone quiet NaN is an infinity that loses. */
static uint64_t extreme_number(struct fpst *st, unsigned es, uint64_t a, uint64_t b, bool max)
{
    bool qa = raw_is_nan(es, a) && !raw_is_snan(es, a), qb = raw_is_nan(es, b) && !raw_is_snan(es, b);

    if (qa && !qb)
        a = pack_inf(es, max);
    else if (qb && !qa)
        b = pack_inf(es, max);
    return extreme(st, es, a, b, max);
}

uint64_t fp_max(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    return extreme(st, es, a, b, true);
}

uint64_t fp_min(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    return extreme(st, es, a, b, false);
}

uint64_t fp_maxnm(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    return extreme_number(st, es, a, b, true);
}

uint64_t fp_minnm(struct fpst *st, unsigned es, uint64_t a, uint64_t b)
{
    return extreme_number(st, es, a, b, false);
}

/* ---- estimates */

/* RecipEstimate: a in [256, 511] is [0.5, 1); the result is in [256, 511] for [1, 2). */
static unsigned recip_estimate(unsigned a)
{
    return ((1u << 19) / (2 * a + 1) + 1) / 2;
}

/* RecipSqrtEstimate: a in [128, 511] is [0.25, 1); the same range. */
static unsigned rsqrt_estimate(unsigned a)
{
    unsigned b = 512;

    a = a < 256 ? 2 * a + 1 : ((a >> 1 << 1) + 1) * 2;
    for (unsigned bit = 256; bit; bit >>= 1) /* the largest b with a * b * b < 2^28 */
        if ((uint64_t)a * (b + bit) * (b + bit) < UINT64_C(1) << 28)
            b += bit;
    return (b + 1) / 2;
}

/* The reciprocal of a K_FINITE number that neither overflows nor flushes; it may be denormal. */
static uint64_t recip_result(unsigned es, struct num a)
{
    const struct format *f = &formats[es];
    int exp = -1 - a.exp + f->bias; /* biased, of a result in [1, 2) */
    uint64_t frac = (uint64_t)recip_estimate((unsigned)(a.mant >> 55)) << 55;

    if (exp < 1) {
        frac >>= 1 - exp;
        exp = 0;
    }
    return pack_zero(es, a.sign) | (uint64_t)exp << f->fbits | (frac >> (63 - f->fbits) & ones(f->fbits));
}

uint64_t fp_recpe(struct fpst *st, unsigned es, uint64_t x)
{
    struct num a = unpack(st, es, x);

    if (is_nan(a))
        return process_nan(st, es, x, a);
    if (a.kind == K_INF)
        return pack_zero(es, a.sign);
    if (a.kind == K_ZERO) {
        st->fpsr |= FPSR_DZC;
        return pack_inf(es, a.sign);
    }
    if (a.exp < -formats[es].bias - 1)
        return overflow(st, es, a.sign, fp_round_mode(st));
    if (flushes(st, es) && a.exp >= formats[es].bias - 1) {
        st->fpsr |= FPSR_UFC;
        return pack_zero(es, a.sign);
    }
    return recip_result(es, a);
}

uint64_t fp_rsqrte(struct fpst *st, unsigned es, uint64_t x)
{
    const struct format *f = &formats[es];
    struct num a = unpack(st, es, x);
    unsigned scaled, estimate;
    int exp = a.exp + f->bias;

    if (is_nan(a))
        return process_nan(st, es, x, a);
    if (a.kind == K_ZERO) {
        st->fpsr |= FPSR_DZC;
        return pack_inf(es, a.sign);
    }
    if (a.sign)
        return invalid(st, es);
    if (a.kind == K_INF)
        return pack_zero(es, false);
    scaled = (unsigned)(a.mant >> (exp & 1 ? 56 : 55));
    estimate = rsqrt_estimate(scaled);
    exp = (3 * f->bias - 1 - exp) / 2;
    return (uint64_t)exp << f->fbits | (uint64_t)(estimate & 0xff) << (f->fbits - 8);
}

uint64_t fp_recpx(struct fpst *st, unsigned es, uint64_t x)
{
    const struct format *f = &formats[es];
    struct num a = unpack(st, es, x);
    uint64_t exp = x >> f->fbits & ones(f->ebits);

    if (is_nan(a))
        return process_nan(st, es, x, a);
    exp = exp ? ~exp & ones(f->ebits) : ones(f->ebits) - 1;
    return pack_zero(es, a.sign) | exp << f->fbits;
}

uint32_t fp_urecpe(uint32_t x)
{
    return x >> 31 ? recip_estimate(x >> 23) << 23 : UINT32_MAX;
}

uint32_t fp_ursqrte(uint32_t x)
{
    return x >> 30 ? rsqrt_estimate(x >> 23) << 23 : UINT32_MAX;
}

/* ---- integers */

/* |n| * 2^fbits as integer part and fraction of 2^64 (jammed).  False if it is 2^64 or more. */
static bool int_parts(struct num n, unsigned fbits, uint64_t *whole, uint64_t *rest)
{
    int e = n.exp + (int)fbits;

    *whole = *rest = 0;
    if (n.kind != K_FINITE)
        return n.kind == K_ZERO;
    if (e > 63)
        return false;
    if (e < 0) {
        *rest = shift_right_jam(n.mant, -1 - e);
    } else {
        *whole = n.mant >> (63 - e);
        *rest = e == 63 ? 0 : n.mant << (e + 1);
    }
    return true;
}

/* An integer that the format holds, or any other one rounded towards zero. */
static uint64_t pack_whole(unsigned es, bool sign, uint64_t whole)
{
    struct fpst quiet = { .fpcr = FPR_ZERO << FPCR_RMODE_SHIFT };

    return whole ? round_pack(&quiet, es, normal(sign, 63, whole)) : pack_zero(es, sign);
}

uint64_t fp_round_int(struct fpst *st, unsigned es, uint64_t x, enum fp_round mode, bool exact)
{
    struct num n = unpack(st, es, x);
    uint64_t whole, rest;

    if (is_nan(n))
        return process_nan(st, es, x, n);
    if (n.kind == K_INF || (n.kind == K_FINITE && n.exp >= formats[es].fbits))
        return low(es, x);
    int_parts(n, 0, &whole, &rest);
    if (rest && exact)
        st->fpsr |= FPSR_IXC;
    return pack_whole(es, n.sign, whole + rounds_up(mode, n.sign, whole & 1, rest));
}

/* The largest magnitude of that sign in `width' bits. */
static uint64_t int_limit(unsigned width, bool is_unsigned, bool sign)
{
    if (is_unsigned)
        return sign ? 0 : ones(width);
    return ones(width - 1) + sign;
}

uint64_t fp_round_int_n(struct fpst *st, unsigned es, uint64_t x, enum fp_round mode, unsigned width)
{
    struct num n = unpack(st, es, x);
    uint64_t whole, rest;
    bool fits = int_parts(n, 0, &whole, &rest);

    whole += rounds_up(mode, n.sign, whole & 1, rest);
    if (!fits || whole > int_limit(width, false, n.sign)) {
        st->fpsr |= FPSR_IOC;
        return pack_small(es, true, (int)width - 1, 0);
    }
    if (rest)
        st->fpsr |= FPSR_IXC;
    return pack_whole(es, n.sign, whole);
}

uint64_t fp_to_fixed(struct fpst *st, unsigned es, uint64_t x, unsigned width, unsigned fbits,
                     bool is_unsigned, enum fp_round mode)
{
    struct num n = unpack(st, es, x);
    uint64_t limit = int_limit(width, is_unsigned, n.sign), whole, rest;
    bool fits = int_parts(n, fbits, &whole, &rest);

    if (is_nan(n)) {
        st->fpsr |= FPSR_IOC;
        return 0;
    }
    whole += rounds_up(mode, n.sign, whole & 1, rest);
    if (!fits || whole > limit) {
        st->fpsr |= FPSR_IOC;
        whole = limit;
    } else if (rest) {
        st->fpsr |= FPSR_IXC;
    }
    return (n.sign ? -whole : whole) & ones(width);
}

uint64_t fp_from_fixed(struct fpst *st, unsigned es, uint64_t x, unsigned width, unsigned fbits,
                       bool is_unsigned, enum fp_round mode)
{
    bool sign = !is_unsigned && x >> (width - 1) & 1;

    x = (sign ? -x : x) & ones(width);
    if (!x)
        return pack_zero(es, false);
    return round_as(st, es, normal(sign, 63 - (int)fbits, x), mode, false);
}

/* Where 0 <= shift < 64 does not hold the low 32 bits are zero, or the value is below one. */
uint32_t fp_to_int_js(struct fpst *st, uint64_t x, bool *exact)
{
    struct num n = unpack(st, 3, x);
    uint64_t whole = 0, rest = 0;
    bool fits = int_parts(n, 0, &whole, &rest);

    *exact = false;
    if (!fits && n.kind == K_FINITE && n.exp < 63 + 32) /* 53 significant bits may still reach below bit 32 */
        whole = n.mant << (n.exp - 63);
    if (!fits || whole > int_limit(32, false, n.sign))
        st->fpsr |= FPSR_IOC;
    else if (rest)
        st->fpsr |= FPSR_IXC;
    else
        *exact = n.kind == K_FINITE || !low(3, x);
    return (uint32_t)(n.sign ? -whole : whole);
}

/* ---- formats */

/* FPConvertNaN */
static uint64_t convert_nan(unsigned from, unsigned to, uint64_t x)
{
    uint64_t frac = x << (65 - formats[from].fbits); /* what is below the quiet bit, at the top */

    return pack_inf(to, sign_of(from, x)) | quiet_bit(to) | frac >> (65 - formats[to].fbits);
}

uint64_t fp_convert(struct fpst *st, unsigned from, unsigned to, uint64_t x, enum fp_round mode)
{
    struct num n = unpack_as(st, from, x, true);
    bool alt = to == 1 && st->fpcr & FPCR_AHP;

    if (is_nan(n)) {
        if (n.kind == K_SNAN || alt)
            st->fpsr |= FPSR_IOC;
        if (alt)
            return pack_zero(to, n.sign);
        return st->fpcr & FPCR_DN ? default_nan(to) : convert_nan(from, to, x);
    }
    if (n.kind == K_INF) {
        if (!alt)
            return pack_inf(to, n.sign);
        st->fpsr |= FPSR_IOC;
        return pack_zero(to, n.sign) | ones(15);
    }
    return n.kind == K_ZERO ? pack_zero(to, n.sign) : round_as(st, to, n, mode, true);
}

uint64_t fp_expand_imm(unsigned es, uint8_t imm8)
{
    const struct format *f = &formats[es];
    uint64_t b = imm8 >> 6 & 1, exp = (b ^ 1) << (f->ebits - 1) | (b ? ones(f->ebits - 3) << 2 : 0);

    exp |= imm8 >> 4 & 3;
    return pack_zero(es, imm8 >> 7) | exp << f->fbits | (uint64_t)(imm8 & 15) << (f->fbits - 4);
}
