/*
 * Machine code of x86-64: registers, condition codes, and one inline function for each form that is emitted.
 *
 * Code is written to a buffer with a limit; at the limit writing stops and `full' stays set, so that the caller checks
 * once.  Sizes: `w' is REX.W (64 bits).  No state beside the buffer.
 */
#ifndef ARMLET_JIT_X86_H
#define ARMLET_JIT_X86_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum hreg { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, HREGS, NO_REG = 0xff };

/* x86 condition codes, as in Jcc's opcode. */
enum hcc { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

struct x86 {
    uint8_t *p, *end, *start; /* in the writable view */
    intptr_t exec;            /* executable address less writable address */
    bool full;
};

static inline void x86_u8(struct x86 *x, unsigned v)
{
    if (x->p < x->end)
        *x->p++ = (uint8_t)v;
    else
        x->full = true;
}

static inline void x86_u32(struct x86 *x, uint32_t v)
{
    if (x->p + 4 <= x->end) {
        memcpy(x->p, &v, 4);
        x->p += 4;
    } else {
        x->full = true;
    }
}

static inline void x86_u64(struct x86 *x, uint64_t v)
{
    x86_u32(x, (uint32_t)v);
    x86_u32(x, (uint32_t)(v >> 32));
}

static inline void x86_bytes(struct x86 *x, const void *bytes, size_t n)
{
    if (x->p + n <= x->end) {
        memcpy(x->p, bytes, n);
        x->p += n;
    } else {
        x->full = true;
    }
}

/* A memory operand: [base + index * scale + disp]; index NO_REG for none, base NO_REG for absolute is not offered. */
struct hmem {
    uint8_t base, index, scale; /* scale: log2 */
    int32_t disp;
};
#define MEM(b, d) ((struct hmem){ (b), NO_REG, 0, (int32_t)(d) })
#define MEMX(b, i, s, d) ((struct hmem){ (b), (i), (s), (int32_t)(d) })

static inline void x86_modrm_mem(struct x86 *x, unsigned reg, struct hmem m)
{
    bool sib = m.index != NO_REG || (m.base & 7) == RSP;
    unsigned mod = !m.disp && (m.base & 7) != RBP ? 0 : m.disp == (int8_t)m.disp ? 1 : 2;

    x86_u8(x, mod << 6 | (reg & 7) << 3 | (sib ? 4 : m.base & 7));
    if (sib)
        x86_u8(x, (unsigned)m.scale << 6 | (m.index == NO_REG ? 4u : m.index & 7u) << 3 | (m.base & 7));
    if (mod == 1)
        x86_u8(x, (uint8_t)m.disp);
    else if (mod == 2)
        x86_u32(x, (uint32_t)m.disp);
}

/* force: a REX prefix even when it says nothing, for the low byte of RSP, RBP, RSI, RDI. */
static inline void x86_rex(struct x86 *x, bool w, unsigned reg, unsigned index, unsigned base, bool force)
{
    unsigned rex = 0x40 | w << 3 | (reg >> 3 & 1) << 2 | (index == NO_REG ? 0 : index >> 3 & 1) << 1 | (base >> 3 & 1);
    if (rex != 0x40 || force)
        x86_u8(x, rex);
}

/* op may be 0x0fXX or 0x0f38XX; prefix is 0, 0x66, 0xf2 or 0xf3. */
static inline void x86_op(struct x86 *x, unsigned op)
{
    if (op > 0xffff)
        x86_u8(x, op >> 16);
    if (op > 0xff)
        x86_u8(x, op >> 8 & 0xff);
    x86_u8(x, op & 0xff);
}

/* The two forms that nearly all instructions have, put together in a register and written at once. */
struct x86_bytes {
    uint64_t b;
    unsigned n; /* bits */
};
static inline void x86_add(struct x86_bytes *i, unsigned byte)
{
    i->b |= (uint64_t)byte << i->n;
    i->n += 8;
}
static inline void x86_begin(struct x86_bytes *i, unsigned prefix, bool w, unsigned op, unsigned reg, unsigned index,
                             unsigned base, bool force)
{
    unsigned rex = 0x40 | w << 3 | (reg >> 3 & 1) << 2 | (index == NO_REG ? 0 : index >> 3 & 1) << 1 | (base >> 3 & 1);

    if (prefix)
        x86_add(i, prefix);
    if (rex != 0x40 || force)
        x86_add(i, rex);
    if (op > 0xffff)
        x86_add(i, op >> 16);
    if (op > 0xff)
        x86_add(i, op >> 8 & 0xff);
    x86_add(i, op & 0xff);
}
/* At most 8 bytes, and 4 more if `wide'. */
static inline void x86_put(struct x86 *x, const struct x86_bytes *i, bool wide, uint32_t more)
{
    if (x->end - x->p < 16) {
        x->full = true;
        return;
    }
    uint8_t *p = x->p;
    memcpy(p, &i->b, 8);
    p += i->n / 8;
    if (wide) {
        memcpy(p, &more, 4);
        p += 4;
    }
    x->p = p;
}

static inline void x86_rr(struct x86 *x, unsigned prefix, bool w, unsigned op, unsigned reg, unsigned rm, bool force)
{
    struct x86_bytes i = { 0 };

    x86_begin(&i, prefix, w, op, reg, NO_REG, rm, force);
    x86_add(&i, 0xc0 | (reg & 7) << 3 | (rm & 7));
    x86_put(x, &i, false, 0);
}

static inline void x86_rm(struct x86 *x, unsigned prefix, bool w, unsigned op, unsigned reg, struct hmem m, bool force)
{
    struct x86_bytes i = { 0 };
    bool sib = m.index != NO_REG || (m.base & 7) == RSP;
    unsigned mod = !m.disp && (m.base & 7) != RBP ? 0 : m.disp == (int8_t)m.disp ? 1 : 2;

    x86_begin(&i, prefix, w, op, reg, m.index, m.base, force);
    x86_add(&i, mod << 6 | (reg & 7) << 3 | (sib ? 4 : m.base & 7));
    if (sib)
        x86_add(&i, (unsigned)m.scale << 6 | (m.index == NO_REG ? 4u : m.index & 7u) << 3 | (m.base & 7));
    if (mod == 1)
        x86_add(&i, (uint8_t)m.disp);
    x86_put(x, &i, mod == 2, (uint32_t)m.disp);
}

/* --- moves --- */
static inline void x86_mov_rr(struct x86 *x, bool w, unsigned d, unsigned s) { x86_rr(x, 0, w, 0x8b, d, s, false); }
static inline void x86_load(struct x86 *x, bool w, unsigned d, struct hmem m) { x86_rm(x, 0, w, 0x8b, d, m, false); }
static inline void x86_store(struct x86 *x, bool w, struct hmem m, unsigned s) { x86_rm(x, 0, w, 0x89, s, m, false); }
static inline void x86_lea(struct x86 *x, bool w, unsigned d, struct hmem m) { x86_rm(x, 0, w, 0x8d, d, m, false); }

static inline void x86_mov_ri(struct x86 *x, unsigned d, uint64_t v)
{
    if (v <= UINT32_MAX) {
        x86_rex(x, false, 0, NO_REG, d, false);
        x86_u8(x, 0xb8 | (d & 7));
        x86_u32(x, (uint32_t)v);
    } else if ((int64_t)v == (int32_t)v) {
        x86_rex(x, true, 0, NO_REG, d, false);
        x86_u8(x, 0xc7);
        x86_u8(x, 0xc0 | (d & 7));
        x86_u32(x, (uint32_t)v);
    } else {
        x86_rex(x, true, 0, NO_REG, d, false);
        x86_u8(x, 0xb8 | (d & 7));
        x86_u64(x, v);
    }
}

/* d = 0 without touching the flags. */
static inline void x86_store_imm(struct x86 *x, bool w, struct hmem m, int32_t v)
{
    x86_rex(x, w, 0, m.index, m.base, false);
    x86_u8(x, 0xc7);
    x86_modrm_mem(x, 0, m);
    x86_u32(x, (uint32_t)v);
}

/* Zero- or sign-extending forms: op 0x0fb6/b7 movzx 8/16, 0x0fbe/bf movsx 8/16, 0x63 movsxd. */
static inline void x86_ext_rr(struct x86 *x, bool w, unsigned op, unsigned d, unsigned s)
{
    x86_rr(x, 0, w, op, d, s, op == 0x0fb6 || op == 0x0fbe);
}

/* --- arithmetic: the number is the /digit and the row of the opcode map --- */
enum halu { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
static inline void x86_alu_rr(struct x86 *x, bool w, enum halu op, unsigned d, unsigned s)
{
    x86_rr(x, 0, w, (unsigned)op << 3 | 3, d, s, false);
}
static inline void x86_alu_rm(struct x86 *x, bool w, enum halu op, unsigned d, struct hmem m)
{
    x86_rm(x, 0, w, (unsigned)op << 3 | 3, d, m, false);
}
static inline void x86_alu_mr(struct x86 *x, bool w, enum halu op, struct hmem m, unsigned s)
{
    x86_rm(x, 0, w, (unsigned)op << 3 | 1, s, m, false);
}
/* v must fit a sign-extended imm32 (w) or any 32 bits. */
static inline void x86_alu_ri(struct x86 *x, bool w, enum halu op, unsigned d, int32_t v)
{
    bool small = v == (int8_t)v;
    x86_rex(x, w, 0, NO_REG, d, false);
    x86_u8(x, small ? 0x83 : 0x81);
    x86_u8(x, 0xc0 | (unsigned)op << 3 | (d & 7));
    if (small)
        x86_u8(x, (uint8_t)v);
    else
        x86_u32(x, (uint32_t)v);
}
static inline void x86_alu_mi(struct x86 *x, bool w, enum halu op, struct hmem m, int32_t v)
{
    bool small = v == (int8_t)v;
    x86_rex(x, w, 0, m.index, m.base, false);
    x86_u8(x, small ? 0x83 : 0x81);
    x86_modrm_mem(x, op, m);
    if (small)
        x86_u8(x, (uint8_t)v);
    else
        x86_u32(x, (uint32_t)v);
}
static inline void x86_test_rr(struct x86 *x, bool w, unsigned a, unsigned b) { x86_rr(x, 0, w, 0x85, b, a, false); }
static inline void x86_test_ri(struct x86 *x, bool w, unsigned r, int32_t v)
{
    x86_rex(x, w, 0, NO_REG, r, false);
    x86_u8(x, 0xf7);
    x86_u8(x, 0xc0 | (r & 7));
    x86_u32(x, (uint32_t)v);
}
/* /2 not, /3 neg, /4 mul, /5 imul, /6 div, /7 idiv on rdx:rax */
static inline void x86_grp3(struct x86 *x, bool w, unsigned digit, unsigned r)
{
    x86_rr(x, 0, w, 0xf7, digit, r, false);
}
static inline void x86_imul_rr(struct x86 *x, bool w, unsigned d, unsigned s) { x86_rr(x, 0, w, 0x0faf, d, s, false); }
/* /1 ror, /4 shl, /5 shr, /7 sar */
enum hshift { SH_ROL = 0, SH_ROR = 1, SH_SHL = 4, SH_SHR = 5, SH_SAR = 7 };
static inline void x86_shift_ri(struct x86 *x, bool w, enum hshift op, unsigned d, unsigned n)
{
    x86_rr(x, 0, w, 0xc1, op, d, false);
    x86_u8(x, n);
}
static inline void x86_shift_cl(struct x86 *x, bool w, enum hshift op, unsigned d)
{
    x86_rr(x, 0, w, 0xd3, op, d, false);
}
/* VEX three-operand BMI2 shifts: pp 1 shlx, 3 shrx, 2 sarx; d = s shifted by n. */
static inline void x86_vex_f7(struct x86 *x, bool w, unsigned pp, unsigned d, unsigned s, unsigned n)
{
    x86_u8(x, 0xc4);
    x86_u8(x, (~d >> 3 & 1) << 7 | 1 << 6 | (~s >> 3 & 1) << 5 | 2);
    x86_u8(x, (unsigned)w << 7 | (~n & 15) << 3 | pp);
    x86_u8(x, 0xf7);
    x86_u8(x, 0xc0 | (d & 7) << 3 | (s & 7));
}
/* BMI2 rorx d, s, n */
static inline void x86_rorx(struct x86 *x, bool w, unsigned d, unsigned s, unsigned n)
{
    x86_u8(x, 0xc4);
    x86_u8(x, (~d >> 3 & 1) << 7 | 1 << 6 | (~s >> 3 & 1) << 5 | 3);
    x86_u8(x, (unsigned)w << 7 | 0xf << 3 | 3);
    x86_u8(x, 0xf0);
    x86_u8(x, 0xc0 | (d & 7) << 3 | (s & 7));
    x86_u8(x, n);
}
/* BMI1 andn d, a, b: d = ~a & b */
static inline void x86_andn(struct x86 *x, bool w, unsigned d, unsigned a, unsigned b)
{
    x86_u8(x, 0xc4);
    x86_u8(x, (~d >> 3 & 1) << 7 | 1 << 6 | (~b >> 3 & 1) << 5 | 2);
    x86_u8(x, (unsigned)w << 7 | (~a & 15) << 3);
    x86_u8(x, 0xf2);
    x86_u8(x, 0xc0 | (d & 7) << 3 | (b & 7));
}
static inline void x86_shrd(struct x86 *x, bool w, unsigned d, unsigned s, unsigned n)
{
    x86_rr(x, 0, w, 0x0fac, s, d, false);
    x86_u8(x, n);
}
static inline void x86_bswap(struct x86 *x, bool w, unsigned d)
{
    x86_rex(x, w, 0, NO_REG, d, false);
    x86_u8(x, 0x0f);
    x86_u8(x, 0xc8 | (d & 7));
}
static inline void x86_lzcnt(struct x86 *x, bool w, unsigned d, unsigned s) { x86_rr(x, 0xf3, w, 0x0fbd, d, s, false); }
static inline void x86_tzcnt(struct x86 *x, bool w, unsigned d, unsigned s) { x86_rr(x, 0xf3, w, 0x0fbc, d, s, false); }
static inline void x86_setcc(struct x86 *x, enum hcc cc, unsigned d)
{
    x86_rr(x, 0, false, 0x0f90 | (unsigned)cc, 0, d, true);
}
static inline void x86_cmov(struct x86 *x, bool w, enum hcc cc, unsigned d, unsigned s)
{
    x86_rr(x, 0, w, 0x0f40 | (unsigned)cc, d, s, false);
}

/* --- control; a place is where a rel32 stands, patched when its target is known --- */
static inline uint8_t *x86_jmp(struct x86 *x)
{
    x86_u8(x, 0xe9);
    x86_u32(x, 0);
    return x->p - 4;
}
static inline uint8_t *x86_call(struct x86 *x)
{
    x86_u8(x, 0xe8);
    x86_u32(x, 0);
    return x->p - 4;
}
static inline uint8_t *x86_jcc(struct x86 *x, enum hcc cc)
{
    x86_u8(x, 0x0f);
    x86_u8(x, 0x80 | (unsigned)cc);
    x86_u32(x, 0);
    return x->p - 4;
}
/* target: in the same view as place. */
static inline void x86_patch(uint8_t *place, const uint8_t *target)
{
    int32_t rel = (int32_t)(target - (place + 4));
    memcpy(place, &rel, 4);
}
static inline void x86_here(struct x86 *x, uint8_t *place)
{
    if (!x->full)
        x86_patch(place, x->p);
}
static inline void x86_jcc_to(struct x86 *x, enum hcc cc, const uint8_t *target)
{
    x86_u8(x, 0x0f);
    x86_u8(x, 0x80 | cc);
    x86_u32(x, (uint32_t)(target - (x->p + 4)));
}

static inline void x86_jmp_to(struct x86 *x, const uint8_t *target)
{
    uint8_t *place = x86_jmp(x);
    if (!x->full)
        x86_patch(place, target);
}
static inline void x86_call_to(struct x86 *x, const uint8_t *target)
{
    uint8_t *place = x86_call(x);
    if (!x->full)
        x86_patch(place, target);
}
static inline void x86_jmp_mem(struct x86 *x, struct hmem m) { x86_rm(x, 0, false, 0xff, 4, m, false); }
static inline void x86_jmp_reg(struct x86 *x, unsigned r) { x86_rr(x, 0, false, 0xff, 4, r, false); }
static inline void x86_call_reg(struct x86 *x, unsigned r) { x86_rr(x, 0, false, 0xff, 2, r, false); }
static inline void x86_push(struct x86 *x, unsigned r)
{
    x86_rex(x, false, 0, NO_REG, r, false);
    x86_u8(x, 0x50 | (r & 7));
}
static inline void x86_pop(struct x86 *x, unsigned r)
{
    x86_rex(x, false, 0, NO_REG, r, false);
    x86_u8(x, 0x58 | (r & 7));
}
static inline void x86_ret(struct x86 *x) { x86_u8(x, 0xc3); }

/* --- flags: AH is SF ZF . AF . PF 1 CF --- */
static inline void x86_lahf(struct x86 *x) { x86_u8(x, 0x9f); }
static inline void x86_sahf(struct x86 *x) { x86_u8(x, 0x9e); }
static inline void x86_cmc(struct x86 *x) { x86_u8(x, 0xf5); }
static inline void x86_stc(struct x86 *x) { x86_u8(x, 0xf9); }
static inline void x86_clc(struct x86 *x) { x86_u8(x, 0xf8); }

/* --- SSE: xmm registers are numbers 0 to 15 --- */
static inline void x86_sse_rr(struct x86 *x, unsigned prefix, unsigned op, unsigned d, unsigned s)
{
    x86_rr(x, prefix, false, op, d, s, false);
}
static inline void x86_sse_rm(struct x86 *x, unsigned prefix, unsigned op, unsigned d, struct hmem m)
{
    x86_rm(x, prefix, false, op, d, m, false);
}
static inline void x86_movdqu_load(struct x86 *x, unsigned d, struct hmem m) { x86_sse_rm(x, 0, 0x0f10, d, m); }
static inline void x86_movdqu_store(struct x86 *x, struct hmem m, unsigned s) { x86_sse_rm(x, 0, 0x0f11, s, m); }
static inline void x86_movdqa_rr(struct x86 *x, unsigned d, unsigned s) { x86_sse_rr(x, 0, 0x0f28, d, s); }
/* movq/movd between general and xmm registers */
static inline void x86_movq_xr(struct x86 *x, bool w, unsigned d, unsigned s)
{
    x86_rr(x, 0x66, w, 0x0f6e, d, s, false);
}
static inline void x86_movq_rx(struct x86 *x, bool w, unsigned d, unsigned s)
{
    x86_rr(x, 0x66, w, 0x0f7e, s, d, false);
}

#endif
