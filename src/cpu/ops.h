/*
 * The value operations of isa/ops.def as C functions on numbers, and the arithmetic of the condition flags.
 * The interpreter runs them, the lifter folds constants with them, the IR evaluator and the tests too.
 * Pure functions; flags are in the layout of SPSR (bits 31 to 28).
 */
#ifndef ARMLET_CPU_OPS_H
#define ARMLET_CPU_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "cpu/value.h"

static ALWAYS_INLINE uint64_t op_rbit(uint64_t a, unsigned bits)
{
    return bits_reverse(a, bits);
}

/* value_<op>_64() and _32(), and value_<op>(sf, ...), which ignores the high halves unless sf. */
#define OP2_WIDTH(name, expr, bits)                                                                         \
    static ALWAYS_INLINE uint64_t value_##name##_##bits(uint64_t va, uint64_t vb)                           \
    {                                                                                                       \
        typedef uint##bits##_t T;                                                                           \
        typedef int##bits##_t S UNUSED;                                                                     \
        enum { BITS = bits };                                                                               \
        T a = (T)va, b = (T)vb;                                                                             \
        return (T)(expr);                                                                                   \
    }
#define OP2(name, expr, commutes)                                                                           \
    OP2_WIDTH(name, expr, 64)                                                                               \
    OP2_WIDTH(name, expr, 32)                                                                               \
    static ALWAYS_INLINE uint64_t value_##name(bool sf, uint64_t a, uint64_t b)                             \
    {                                                                                                       \
        return sf ? value_##name##_64(a, b) : value_##name##_32(a, b);                                      \
    }
#define OP1_WIDTH(name, expr, bits)                                                                         \
    static ALWAYS_INLINE uint64_t value_##name##_##bits(uint64_t va)                                        \
    {                                                                                                       \
        typedef uint##bits##_t T;                                                                           \
        enum { BITS = bits };                                                                               \
        T a = (T)va;                                                                                        \
        return (T)(expr);                                                                                   \
    }
#define OP1(name, expr)                                                                                     \
    OP1_WIDTH(name, expr, 64)                                                                               \
    OP1_WIDTH(name, expr, 32)                                                                               \
    static ALWAYS_INLINE uint64_t value_##name(bool sf, uint64_t a)                                         \
    {                                                                                                       \
        return sf ? value_##name##_64(a) : value_##name##_32(a);                                            \
    }
#include "isa/ops.def"
#undef OP1
#undef OP2
#undef OP1_WIDTH
#undef OP2_WIDTH

static ALWAYS_INLINE uint64_t value_ext(enum ext kind, uint64_t v)
{
    switch (kind) {
    case EXT_U8: return (uint8_t)v;
    case EXT_U16: return (uint16_t)v;
    case EXT_U32: return (uint32_t)v;
    case EXT_S8: return (uint64_t)(int8_t)v;
    case EXT_S16: return (uint64_t)(int16_t)v;
    default: return (uint64_t)(int32_t)v;
    }
}

/* Bits lsb and up of hi:lo; lsb is below the width. */
static ALWAYS_INLINE uint64_t value_extr(bool sf, uint64_t hi, uint64_t lo, unsigned lsb)
{
    if (!sf)
        return (uint32_t)((hi << 32 | (uint32_t)lo) >> lsb);
    return lsb ? lo >> lsb | hi << (64 - lsb) : lo;
}

/* AddWithCarry() of DDI0487 J1.1: the flags of a + b + carry. */
static ALWAYS_INLINE uint32_t flags_adc(bool sf, uint64_t a, uint64_t b, unsigned carry)
{
    uint64_t r, overflow;
    bool c;

    if (sf) {
        r = a + b + carry;
        c = carry ? r <= a : r < a;
        overflow = ~(a ^ b) & (a ^ r);
    } else {
        uint64_t wide = (uint64_t)(uint32_t)a + (uint32_t)b + carry;
        c = wide >> 32;
        r = (uint64_t)(int64_t)(int32_t)wide;
        overflow = (~(a ^ b) & (a ^ wide)) << 32;
    }
    return (uint32_t)(r >> 63) << 31 | (uint32_t)!r << 30 | (uint32_t)c << 29 |
           (uint32_t)(overflow >> 63) << 28;
}

static ALWAYS_INLINE uint32_t flags_add(bool sf, uint64_t a, uint64_t b)
{
    return flags_adc(sf, a, b, 0);
}

static ALWAYS_INLINE uint32_t flags_sub(bool sf, uint64_t a, uint64_t b)
{
    return flags_adc(sf, a, ~b, 1);
}

static ALWAYS_INLINE uint32_t flags_logic(bool sf, uint64_t r)
{
    r = sf ? r : r << 32;
    return (uint32_t)(r >> 63) << 31 | (uint32_t)!r << 30;
}

static ALWAYS_INLINE unsigned flags_carry(uint32_t nzcv)
{
    return nzcv >> 29 & 1;
}

static ALWAYS_INLINE uint64_t value_adc(bool sf, uint64_t a, uint64_t b, uint32_t nzcv)
{
    uint64_t r = a + b + flags_carry(nzcv);

    return sf ? r : (uint32_t)r;
}

/* ConditionHolds() of DDI0487 J1.1; 14 and 15 are both "always". */
static ALWAYS_INLINE bool flags_cond(unsigned cc, uint32_t nzcv)
{
    bool n = nzcv >> 31 & 1, z = nzcv >> 30 & 1, c = nzcv >> 29 & 1, v = nzcv >> 28 & 1, holds;

    switch (cc >> 1) {
    case 0: holds = z; break;
    case 1: holds = c; break;
    case 2: holds = n; break;
    case 3: holds = v; break;
    case 4: holds = c && !z; break;
    case 5: holds = n == v; break;
    case 6: holds = n == v && !z; break;
    default: return true;
    }
    return holds != (cc & 1);
}

#endif
