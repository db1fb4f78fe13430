/*
 * Bit fields and rotations.  All are pure; ranges in the comments are the caller's to keep.
 */
#ifndef ARMLET_BASE_BITS_H
#define ARMLET_BASE_BITS_H

#include <stdbool.h>
#include <stdint.h>

#define BIT(n) (UINT64_C(1) << (n))

/* The low `n' bits set, 0 <= n <= 64. */
static inline uint64_t bits_mask(unsigned n)
{
    return n >= 64 ? ~UINT64_C(0) : BIT(n) - 1;
}

/* Bits lo .. lo+len-1 of `v', at bit 0.  lo < 64, 1 <= len <= 64 - lo. */
static inline uint64_t bits_extract(uint64_t v, unsigned lo, unsigned len)
{
    return (v >> lo) & bits_mask(len);
}

/* `v' with bits lo .. lo+len-1 replaced by the low bits of `field'.  Ranges as bits_extract(). */
static inline uint64_t bits_deposit(uint64_t v, unsigned lo, unsigned len, uint64_t field)
{
    uint64_t mask = bits_mask(len) << lo;

    return (v & ~mask) | ((field << lo) & mask);
}

/* The low `width' bits of `v' as a two's complement number, 1 <= width <= 64. */
static inline int64_t bits_sext(uint64_t v, unsigned width)
{
    return (int64_t)(v << (64 - width)) >> (64 - width);
}

/* As bits_extract(), sign-extended. */
static inline int64_t bits_extract_s(uint64_t v, unsigned lo, unsigned len)
{
    return bits_sext(v >> lo, len);
}

static inline bool bits_test(uint64_t v, unsigned n)
{
    return (v >> n) & 1;
}

/* The low `width' bits of `v' rotated right by `n' (any n), 1 <= width <= 64; the rest is 0. */
static inline uint64_t bits_ror(uint64_t v, unsigned n, unsigned width)
{
    v &= bits_mask(width);
    n %= width;
    return n ? ((v >> n) | (v << (width - n))) & bits_mask(width) : v;
}

/* The low `width' bits of `v' (1 <= width <= 64) repeated over 64 bits; width must divide 64. */
static inline uint64_t bits_replicate(uint64_t v, unsigned width)
{
    v &= bits_mask(width);
    for (; width < 64; width *= 2)
        v |= v << width;
    return v;
}

/* Leading zeros within the low `width' bits; `width' for 0. */
static inline unsigned bits_clz(uint64_t v, unsigned width)
{
    v &= bits_mask(width);
    return v ? (unsigned)__builtin_clzll(v) - (64 - width) : width;
}

/* Trailing zeros; 64 for 0. */
static inline unsigned bits_ctz(uint64_t v)
{
    return v ? (unsigned)__builtin_ctzll(v) : 64;
}

/* The low `width' bits in opposite order, 1 <= width <= 64. */
static inline uint64_t bits_reverse(uint64_t v, unsigned width)
{
    v = (v & UINT64_C(0x5555555555555555)) << 1 | ((v >> 1) & UINT64_C(0x5555555555555555));
    v = (v & UINT64_C(0x3333333333333333)) << 2 | ((v >> 2) & UINT64_C(0x3333333333333333));
    v = (v & UINT64_C(0x0f0f0f0f0f0f0f0f)) << 4 | ((v >> 4) & UINT64_C(0x0f0f0f0f0f0f0f0f));
    return __builtin_bswap64(v) >> (64 - width);
}

static inline bool bits_is_pow2(uint64_t v)
{
    return v && !(v & (v - 1));
}

/* To a multiple of `align', a power of two; bits_align_up() wraps at 2^64. */
static inline uint64_t bits_align_down(uint64_t v, uint64_t align)
{
    return v & -align;
}

static inline uint64_t bits_align_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & -align;
}

static inline bool bits_is_aligned(uint64_t v, uint64_t align)
{
    return !(v & (align - 1));
}

#endif
