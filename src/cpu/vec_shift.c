/*
 * Vector shifts by immediate and by register (DDI0487 C7.2: SHL, SSHR, SRSHL, SQSHL ...).
 * Threading: the vCPU's own.
 */
#include "cpu/vec.h"

#include "cpu/vec_lanes.h"

/* A right shift by BITS is legal and C's is not. */
LANES1(shl, (T)x << imm)
LANES1(ushr, imm >= BITS ? 0 : x >> imm)
LANES1(sshr, (S)x >> (imm >= BITS ? BITS - 1 : imm))
/* Rounding adds the last bit shifted out, which spares a wider type. */
LANES1(urshr, (T)((T)(x >> (imm - 1)) >> 1) + ((x >> (imm - 1)) & 1))
LANES1(srshr, (T)((S)x >> (imm - 1) >> 1) + (T)(((S)x >> (imm - 1)) & 1))
LANES2(sli, (T)((T)y << imm) | (x & (T)(((T)1 << imm) - 1)))
LANES2(sri, imm >= BITS ? x : (T)(y >> imm) | (x & (T) ~((T)-1 >> imm)))

/*
 * x shifted left by s, or right by -s when negative, before it is cut or saturated to `bits' (8 to 64).  Amounts beyond
 * what empties the lane are clamped so that 128 bits hold every intermediate.
 */
static __int128 shift_signed(int64_t x, int s, unsigned bits, bool round)
{
    int max = (int)bits, n;

    if (s >= 0)
        return (__int128)((unsigned __int128)(__int128)x << (s > max ? max : s));
    n = -s > max + 1 ? max + 1 : -s;
    return ((__int128)x + (round ? (__int128)1 << (n - 1) : 0)) >> n;
}

static unsigned __int128 shift_unsigned(uint64_t x, int s, unsigned bits, bool round)
{
    int max = (int)bits, n;

    if (s >= 0)
        return (unsigned __int128)x << (s > max ? max : s);
    n = -s > max + 1 ? max + 1 : -s;
    return ((unsigned __int128)x + (round ? (unsigned __int128)1 << (n - 1) : 0)) >> n;
}

/* vec_sat_u() for values that may use all 128 bits. */
static uint64_t saturate_shifted(unsigned __int128 v, unsigned bits, bool *qc)
{
    if (!(v >> bits))
        return (uint64_t)v;
    *qc = true;
    return bits_mask(bits);
}

LANES2(sshl, shift_signed((S)x, (int8_t)y, BITS, false))
LANES2(ushl, shift_unsigned(x, (int8_t)y, BITS, false))
LANES2(srshl, shift_signed((S)x, (int8_t)y, BITS, true))
LANES2(urshl, shift_unsigned(x, (int8_t)y, BITS, true))
LANES2_QC(sqshl, vec_sat_s(shift_signed((S)x, (int8_t)y, BITS, false), BITS, &qc))
LANES2_QC(uqshl, saturate_shifted(shift_unsigned(x, (int8_t)y, BITS, false), BITS, &qc))
LANES2_QC(sqrshl, vec_sat_s(shift_signed((S)x, (int8_t)y, BITS, true), BITS, &qc))
LANES2_QC(uqrshl, saturate_shifted(shift_unsigned(x, (int8_t)y, BITS, true), BITS, &qc))

LANES1_QC(sqshl_n, vec_sat_s(shift_signed((S)x, (int)imm, BITS, false), BITS, &qc))
LANES1_QC(uqshl_n, saturate_shifted(shift_unsigned(x, (int)imm, BITS, false), BITS, &qc))
LANES1_QC(sqshlu_n, vec_sat_u(shift_signed((S)x, (int)imm, BITS, false), BITS, &qc))
