/*
 * Machine code of SSE and AVX on xmm registers.
 *
 * One number names an operation in both encodings: XOP(prefix, map, opcode).  With AVX (jit_host.avx)
 * operations have three operands; without, the destination is first made a copy of the first source, so it
 * must not be the second. Memory operands are for AVX without a rule, and must be aligned otherwise.
 */
#ifndef ARMLET_JIT_X86_SSE_H
#define ARMLET_JIT_X86_SSE_H

#include "base/report.h"
#include "jit/state.h"
#include "jit/x86.h"

enum xpp { PP_NONE, PP_66, PP_F3, PP_F2 };
enum xmap { MAP_0F = 1, MAP_38 = 2, MAP_3A = 3 };
#define XOP(pp, map, op) ((unsigned)(pp) << 12 | (unsigned)(map) << 8 | (op))
#define X66(op)          XOP(PP_66, MAP_0F, op)
#define X38(op)          XOP(PP_66, MAP_38, op)
#define X3A(op)          XOP(PP_66, MAP_3A, op)

/* Prefixes and opcode, up to ModRM.  index: of the memory operand, or NO_REG. */
static inline void xsse_head(struct x86 *x, unsigned op, bool w, unsigned reg, unsigned index, unsigned base)
{
    static const uint8_t prefix[] = {0, 0x66, 0xf3, 0xf2};
    unsigned pp = op >> 12 & 3, map = op >> 8 & 3;

    if (pp)
        x86_u8(x, prefix[pp]);
    x86_rex(x, w, reg, index, base, false);
    x86_u8(x, 0x0f);
    if (map == MAP_38)
        x86_u8(x, 0x38);
    else if (map == MAP_3A)
        x86_u8(x, 0x3a);
    x86_u8(x, op & 0xff);
}

static inline void xvex_head(struct x86 *x, unsigned op, bool w, unsigned reg, unsigned v, unsigned index,
                             unsigned base)
{
    unsigned pp = op >> 12 & 3, map = op >> 8 & 3, xb = index == NO_REG ? 0 : index >> 3 & 1,
             bb = base >> 3 & 1;

    if (map == MAP_0F && !w && !xb && !bb) {
        x86_u8(x, 0xc5);
        x86_u8(x, (~reg >> 3 & 1) << 7 | (~v & 15) << 3 | pp);
    } else {
        x86_u8(x, 0xc4);
        x86_u8(x, (~reg >> 3 & 1) << 7 | (xb ^ 1) << 6 | (bb ^ 1) << 5 | map);
        x86_u8(x, (unsigned)w << 7 | (~v & 15) << 3 | pp);
    }
    x86_u8(x, op & 0xff);
}

static inline void x86_modrm_reg(struct x86 *x, unsigned reg, unsigned rm)
{
    x86_u8(x, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* d = a op b */
static inline void xop3(struct x86 *x, unsigned op, unsigned d, unsigned a, unsigned b)
{
    if (jit_host.avx) {
        xvex_head(x, op, false, d, a, NO_REG, b);
    } else {
        if (d != a) {
            BUG_ON(d == b);
            x86_movdqa_rr(x, d, a);
        }
        xsse_head(x, op, false, d, NO_REG, b);
    }
    x86_modrm_reg(x, d, b);
}

static inline void xop3m(struct x86 *x, unsigned op, unsigned d, unsigned a, struct hmem m)
{
    if (jit_host.avx) {
        xvex_head(x, op, false, d, a, m.index, m.base);
    } else {
        if (d != a)
            x86_movdqa_rr(x, d, a);
        xsse_head(x, op, false, d, m.index, m.base);
    }
    x86_modrm_mem(x, d, m);
}

static inline void xop3i(struct x86 *x, unsigned op, unsigned d, unsigned a, unsigned b, unsigned imm)
{
    xop3(x, op, d, a, b);
    x86_u8(x, imm);
}

/* d = op a: the forms that have no second source.  w: with a general register of 64 bits. */
static inline void xop2w(struct x86 *x, unsigned op, bool w, unsigned d, unsigned a)
{
    if (jit_host.avx)
        xvex_head(x, op, w, d, 0, NO_REG, a);
    else
        xsse_head(x, op, w, d, NO_REG, a);
    x86_modrm_reg(x, d, a);
}

static inline void xop2(struct x86 *x, unsigned op, unsigned d, unsigned a)
{
    xop2w(x, op, false, d, a);
}

static inline void xop2m(struct x86 *x, unsigned op, unsigned d, struct hmem m)
{
    if (jit_host.avx)
        xvex_head(x, op, false, d, 0, m.index, m.base);
    else
        xsse_head(x, op, false, d, m.index, m.base);
    x86_modrm_mem(x, d, m);
}

static inline void xop2i(struct x86 *x, unsigned op, unsigned d, unsigned a, unsigned imm)
{
    xop2(x, op, d, a);
    x86_u8(x, imm);
}

/* d = a with its low lane made from general register r. */
static inline void xop3w(struct x86 *x, unsigned op, bool w, unsigned d, unsigned a, unsigned r)
{
    if (jit_host.avx) {
        xvex_head(x, op, w, d, a, NO_REG, r);
    } else {
        if (d != a)
            x86_movdqa_rr(x, d, a);
        xsse_head(x, op, w, d, NO_REG, r);
    }
    x86_modrm_reg(x, d, r);
}

/* Legacy encoding only: SHA. */
static inline void xsse2w(struct x86 *x, unsigned op, bool w, unsigned d, unsigned a)
{
    xsse_head(x, op, w, d, NO_REG, a);
    x86_modrm_reg(x, d, a);
}

/* d = a with general register r in lane `imm'. */
static inline void xinsert(struct x86 *x, unsigned op, bool w, unsigned d, unsigned a, unsigned r,
                           unsigned imm)
{
    if (jit_host.avx) {
        xvex_head(x, op, w, d, a, NO_REG, r);
    } else {
        if (d != a)
            x86_movdqa_rr(x, d, a);
        xsse_head(x, op, w, d, NO_REG, r);
    }
    x86_modrm_reg(x, d, r);
    x86_u8(x, imm);
}

/* Shifts by an immediate; op is X66(0x71 to 0x73). */
static inline void xshift(struct x86 *x, unsigned op, unsigned digit, unsigned d, unsigned a, unsigned n)
{
    if (jit_host.avx) {
        xvex_head(x, op, false, digit, d, NO_REG, a);
        x86_modrm_reg(x, digit, a);
    } else {
        if (d != a)
            x86_movdqa_rr(x, d, a);
        xsse_head(x, op, false, digit, NO_REG, d);
        x86_modrm_reg(x, digit, d);
    }
    x86_u8(x, n);
}

/* FMA3, 231 form: d = a * b + d.  w: double. */
static inline void xfma(struct x86 *x, unsigned op, bool w, unsigned d, unsigned a, unsigned b)
{
    xvex_head(x, op, w, d, a, NO_REG, b);
    x86_modrm_reg(x, d, b);
}

enum {
    X_PAND = X66(0xdb),
    X_PANDN = X66(0xdf),
    X_POR = X66(0xeb),
    X_PXOR = X66(0xef),
    X_PSHUFB = X38(0x00),
    X_PSHUFD = X66(0x70),
    X_UNPCKLQDQ = X66(0x6c),
    X_UNPCKHQDQ = X66(0x6d),
    X_PALIGNR = X3A(0x0f),
    X_PTEST = X38(0x17),
    X_MOVQ = XOP(PP_F3, MAP_0F, 0x7e),
    X_SHUFPS = XOP(PP_NONE, MAP_0F, 0xc6),
    X_INSERTPS = X3A(0x21),
    X_PADDUSB = X66(0xdc),
    X_PACKUSWB = X66(0x67),
    X_PACKUSDW = X38(0x2b),
    X_PACKSSWB = X66(0x63),
    X_PACKSSDW = X66(0x6b),
    X_PSADBW = X66(0xf6),
};

#endif
