/*
 * Vector operations on integers as host code: by (operation, lane size), for any host with SSE4.2; AES, PMULL
 * and SHA-256 where the host has them.  What is not here is done by cpu/vec*.c.
 *
 * Every operation first computes all 16 bytes; lanes outside the shape are cleared at the end where they may
 * not be zero by themselves.
 */
#include "jit/emit.h"

#include "jit/x86_sse.h"

/* Shift opcodes: X66(0x71 + es - 1) and these digits; by 16 bytes: 3 right, 7 left with 0x73. */
enum { PSRL = 2, PSRA = 4, PSLL = 6 };

static struct hmem konst(unsigned k)
{
    return HOT(HOT_K + 2 * k);
}

void jit_hot_constants(uint64_t *hot)
{
    static const uint64_t k[K_CONSTS][2] = {
        [K_ABS_S] = {0x7fffffff7fffffff, 0x7fffffff7fffffff},
        [K_ABS_D] = {0x7fffffffffffffff, 0x7fffffffffffffff},
        [K_SIGN_S] = {0x8000000080000000, 0x8000000080000000},
        [K_SIGN_D] = {0x8000000000000000, 0x8000000000000000},
        [K_MIN_S] = {0x0080000000800000, 0x0080000000800000},
        [K_MIN_D] = {0x0010000000000000, 0x0010000000000000},
        [K_NIBBLES] = {0x0f0f0f0f0f0f0f0f, 0x0f0f0f0f0f0f0f0f},
        [K_COUNTS] = {0x0302020102010100, 0x0403030203020201}, /* ones in each nibble */
        [K_LOW_B] = {0x00ff00ff00ff00ff, 0x00ff00ff00ff00ff},
        [K_LOW_H] = {0x0000ffff0000ffff, 0x0000ffff0000ffff},
        [K_ONES_B] = {0x0101010101010101, 0x0101010101010101},
        [K_TABLE] = {0x7070707070707070,
                     0x7070707070707070}, /* added with saturation: bit 7 where the index is over 15 */
        [K_CRC32] = {0xb4e5b025f7011641,
                     0x1db710641}, /* the inverse of the other modulo x^64; the polynomial, bit-reversed */
        [K_MINUS_1] = {0xbff0000000000000, 0xbf800000},
        [K_2_32] = {0x41f0000000000000, 0x4f800000},
        [K_2_63] = {0x43e0000000000000, 0x5f000000},
    };
    _Static_assert((int)HOT_K + 2 * (int)K_CONSTS <= (int)HOT_MXCSR, "state.h reserves this much");
    memcpy(&hot[HOT_K], k, sizeof k);
}

static unsigned shape_bytes(unsigned shape)
{
    return shape & SH_Q ? 16 : shape & SH_D ? 8 : 1u << shape_es(shape);
}

static void shift(struct emit *e, unsigned es, unsigned digit, unsigned d, unsigned a, unsigned n)
{
    xshift(&e->x, X66(0x70) + es, digit, d, a, n);
}

static void shift_bytes_right(struct emit *e, unsigned d, unsigned a, unsigned n)
{
    xshift(&e->x, X66(0x73), 3, d, a, n);
}

/* The result in d; zeros: zero operands give zero. */
static bool result(struct emit *e, const struct ir *ir, unsigned d, bool zeros)
{
    unsigned bytes = shape_bytes(ir->k);
    bool clean = zeros;

    for (unsigned i = 0; i < ir_operands(ir->op) && clean; i++) {
        unsigned z = e->zext[ir_operand(ir, i)];
        clean = z && z <= bytes;
    }
    if (!clean)
        emit_xmm_clip(e, d, bytes);
    emit_use_all(e, ir);
    emit_xmm_bind(e, e->at, d, bytes == 16 ? 0 : bytes);
    return true;
}

/* The result in d is right as it stands and zero above `bytes' (0: not known). */
static bool ready(struct emit *e, const struct ir *ir, unsigned d, unsigned bytes)
{
    emit_use_all(e, ir);
    emit_xmm_bind(e, e->at, d, bytes);
    return true;
}

static uint64_t replicate(uint64_t v, unsigned es)
{
    static const uint64_t times[] = {0x0101010101010101, 0x0001000100010001, 0x0000000100000001, 1};
    return v * times[es];
}

static uint64_t lane_mask(unsigned es)
{
    return UINT64_MAX >> (64 - (8u << es));
}

/* --- one host instruction --- */

static unsigned simple(unsigned op, unsigned es)
{
    static const uint16_t add[] = {X66(0xfc), X66(0xfd), X66(0xfe), X66(0xd4)},
                          sub[] = {X66(0xf8), X66(0xf9), X66(0xfa), X66(0xfb)},
                          mul[] = {0, X66(0xd5), X38(0x40), 0}, smax[] = {X38(0x3c), X66(0xee), X38(0x3d), 0},
                          smin[] = {X38(0x38), X66(0xea), X38(0x39), 0},
                          umax[] = {X66(0xde), X38(0x3e), X38(0x3f), 0},
                          umin[] = {X66(0xda), X38(0x3a), X38(0x3b), 0},
                          cmeq[] = {X66(0x74), X66(0x75), X66(0x76), X38(0x29)},
                          cmgt[] = {X66(0x64), X66(0x65), X66(0x66), X38(0x37)},
                          urhadd[] = {X66(0xe0), X66(0xe3), 0, 0};
    switch (op) {
    case IR_w_and:
        return X_PAND;
    case IR_w_or:
        return X_POR;
    case IR_w_xor:
        return X_PXOR;
    case IR_w_add:
        return add[es];
    case IR_w_sub:
        return sub[es];
    case IR_w_mul:
        return mul[es];
    case IR_w_smax:
        return smax[es];
    case IR_w_smin:
        return smin[es];
    case IR_w_umax:
        return umax[es];
    case IR_w_umin:
        return umin[es];
    case IR_w_cmeq:
        return cmeq[es];
    case IR_w_cmgt:
        return cmgt[es];
    case IR_w_urhadd:
        return urhadd[es];
    default:
        return 0;
    }
}

static void complement(struct emit *e, unsigned d, unsigned a)
{
    emit_xmm_const(e, 3, UINT64_MAX, UINT64_MAX);
    xop3(&e->x, X_PXOR, d, a, 3);
}

/* d = a >= b unsigned */
static void at_least(struct emit *e, unsigned es, unsigned d, unsigned a, unsigned b)
{
    if (es == 3) {
        xop3m(&e->x, X_PXOR, 0, b, konst(K_SIGN_D));
        xop3m(&e->x, X_PXOR, 1, a, konst(K_SIGN_D));
        xop3(&e->x, simple(IR_w_cmgt, 3), d, 0, 1);
        complement(e, d, d);
        return;
    }
    xop3(&e->x, simple(IR_w_umax, es), 0, a, b);
    xop3(&e->x, simple(IR_w_cmeq, es), d, 0, a);
}

static bool compares(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);

    switch (ir->op) {
    case IR_w_cmge:
        xop3(&e->x, simple(IR_w_cmgt, es), d, b, a);
        complement(e, d, d);
        break;
    case IR_w_cmhs:
        at_least(e, es, d, a, b);
        break;
    case IR_w_cmhi:
        at_least(e, es, d, b, a);
        complement(e, d, d);
        break;
    default: /* cmtst */
        xop3(&e->x, X_PAND, d, a, b);
        xop3(&e->x, X_PXOR, 0, 0, 0);
        xop3(&e->x, simple(IR_w_cmeq, es), d, d, 0);
        complement(e, d, d);
        break;
    }
    return result(e, ir, d, false);
}

static bool bitwise(struct emit *e, const struct ir *ir)
{
    unsigned a = emit_xmm(e, ir->a), b = ir->op == IR_w_not ? a : emit_xmm(e, ir->b);
    unsigned c = ir->op == IR_w_bsl ? emit_xmm(e, ir->c) : 0, d = emit_xmm_dest(e);

    switch (ir->op) {
    case IR_w_andn:
        xop3(&e->x, X_PANDN, d, b, a);
        return result(e, ir, d, true);
    case IR_w_bsl:
        xop3(&e->x, X_PXOR, 0, b, c);
        xop3(&e->x, X_PAND, 0, 0, a);
        xop3(&e->x, X_PXOR, d, 0, c);
        return result(e, ir, d, true);
    case IR_w_orn:
        complement(e, 0, b);
        xop3(&e->x, X_POR, d, a, 0);
        return result(e, ir, d, false);
    default:
        complement(e, d, a);
        return result(e, ir, d, false);
    }
}

static bool one_source(struct emit *e, const struct ir *ir)
{
    static const uint16_t pabs[] = {X38(0x1c), X38(0x1d), X38(0x1e)};
    unsigned es = shape_es(ir->k), a = emit_xmm(e, ir->a), d = emit_xmm_dest(e);

    switch (ir->op) {
    case IR_w_neg:
        xop3(&e->x, X_PXOR, 0, 0, 0);
        xop3(&e->x, simple(IR_w_sub, es), d, 0, a);
        break;
    case IR_w_abs:
        if (es < 3) {
            xop2(&e->x, pabs[es], d, a);
            break;
        }
        xop3(&e->x, X_PXOR, 0, 0, 0);
        xop3(&e->x, simple(IR_w_cmgt, 3), 0, 0, a);
        xop3(&e->x, X_PXOR, d, a, 0);
        xop3(&e->x, simple(IR_w_sub, 3), d, d, 0);
        break;
    default: /* cnt */
        x86_movdqu_load(&e->x, 0, konst(K_COUNTS));
        xop3m(&e->x, X_PAND, 1, a, konst(K_NIBBLES));
        shift(e, 1, PSRL, 2, a, 4);
        xop3m(&e->x, X_PAND, 2, 2, konst(K_NIBBLES));
        xop3(&e->x, X_PSHUFB, d, 0, 1);
        xop3(&e->x, X_PSHUFB, 3, 0, 2);
        xop3(&e->x, simple(IR_w_add, 0), d, d, 3);
        break;
    }
    return result(e, ir, d, true);
}

/* --- shifts --- */

/* d = a shifted logically right (digit PSRL) or left within lanes, n below the lane's bits, or those bits
 * (right). */
static void logical(struct emit *e, unsigned es, unsigned digit, unsigned d, unsigned a, unsigned n)
{
    if (es) {
        shift(e, es, digit, d, a, n);
        return;
    }
    uint64_t keep = replicate((digit == PSRL ? 0xffu >> n : 0xffu << n) & 0xff, 0);
    shift(e, 1, digit, d, a, n);
    emit_xmm_const(e, 3, keep, keep);
    xop3(&e->x, X_PAND, d, d, 3);
}

static void arithmetic(struct emit *e, unsigned es, unsigned d, unsigned a, unsigned n)
{
    unsigned bits = 8u << es;

    if (n >= bits)
        n = bits - 1;
    if (es == 1 || es == 2) {
        shift(e, es, PSRA, d, a, n);
    } else if (es == 0) { /* (x ^ sign) - sign after a logical shift extends the sign */
        uint64_t sign = replicate(0x80u >> n, 0);
        logical(e, 0, PSRL, d, a, n);
        emit_xmm_const(e, 3, sign, sign);
        xop3(&e->x, X_PXOR, d, d, 3);
        xop3(&e->x, simple(IR_w_sub, 0), d, d, 3);
    } else {
        xop3(&e->x, X_PXOR, 0, 0, 0);
        xop3(&e->x, simple(IR_w_cmgt, 3), 0, 0, a);
        shift(e, 3, PSRL, d, a, n);
        shift(e, 3, PSLL, 0, 0, 64 - n);
        xop3(&e->x, X_POR, d, d, 0);
    }
}

static bool shifts(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), a = emit_xmm(e, ir->a), d = emit_xmm_dest(e);

    switch (ir->op) {
    case IR_w_shl:
        logical(e, es, PSLL, d, a, ir->imm16);
        break;
    case IR_w_ushr:
        logical(e, es, PSRL, d, a, ir->imm16);
        break;
    default:
        arithmetic(e, es, d, a, ir->imm16);
        break;
    }
    return result(e, ir, d, true);
}

/* SLI, SRI: the shifted b with the bits of a where it has none. */
static bool shift_insert(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), n = ir->imm16, bits = 8u << es;
    unsigned a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);
    bool left = ir->op == IR_w_sli;
    uint64_t own = left        ? (n ? lane_mask(es) >> (bits - n) : 0)
                   : n >= bits ? lane_mask(es)
                               : lane_mask(es) & ~(lane_mask(es) >> n);

    logical(e, es, left ? PSLL : PSRL, 0, b, n);
    emit_xmm_const(e, 1, replicate(own, es), replicate(own, es));
    xop3(&e->x, X_PAND, 1, 1, a);
    xop3(&e->x, X_POR, d, 0, 1);
    return result(e, ir, d, true);
}

/* --- long and narrow --- */

/* d = half of a with its lanes widened to 1 << es bytes. */
static void widen(struct emit *e, unsigned es, bool sign, unsigned half, unsigned d, unsigned a)
{
    static const uint16_t zx[] = {X38(0x30), X38(0x33), X38(0x35)}, sx[] = {X38(0x20), X38(0x23), X38(0x25)};

    if (half) {
        shift_bytes_right(e, d, a, 8);
        a = d;
    }
    xop2(&e->x, sign ? sx[es - 1] : zx[es - 1], d, a);
}

static bool long_move(struct emit *e, const struct ir *ir)
{
    unsigned a = emit_xmm(e, ir->a), d = emit_xmm_dest(e);

    widen(e, shape_es(ir->k), ir->op == IR_w_sxtl, ir->imm16, d, a);
    return result(e, ir, d, false);
}

static bool long_multiply(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);
    bool sign = ir->op == IR_w_smull;

    if (es == 3) {
        unsigned spread = ir->imm16 ? 0xfa : 0x50; /* words 0 and 1, or 2 and 3, each twice */
        xop2i(&e->x, X_PSHUFD, 0, a, spread);
        xop2i(&e->x, X_PSHUFD, 1, b, spread);
        xop3(&e->x, sign ? X38(0x28) : X66(0xf4), d, 0, 1);
    } else {
        widen(e, es, sign, ir->imm16, 0, a);
        widen(e, es, sign, ir->imm16, 1, b);
        xop3(&e->x, simple(IR_w_mul, es), d, 0, 1);
    }
    return result(e, ir, d, false);
}

static bool narrow(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), a = emit_xmm(e, ir->a), d = emit_xmm_dest(e);

    if (es == 2) {
        xop2i(&e->x, X_PSHUFD, d, a, 0x08);
    } else {
        xop3m(&e->x, X_PAND, d, a, konst(es ? K_LOW_H : K_LOW_B));
        xop3(&e->x, es ? X_PACKUSDW : X_PACKUSWB, d, d, d);
    }
    return result(e, ir, d, false);
}

/* --- pairs and across --- */

/* The even (odd) lanes of a, then those of b, to d; xmm3 is used. */
static void every_other(struct emit *e, unsigned es, bool odd, unsigned d, unsigned a, unsigned b)
{
    if (es == 3) {
        xop3(&e->x, odd ? X_UNPCKHQDQ : X_UNPCKLQDQ, d, a, b);
    } else if (es == 2) {
        xop3i(&e->x, X_SHUFPS, d, a, b, odd ? 0xdd : 0x88);
    } else {
        unsigned bits = 8u << es;
        if (odd) {
            shift(e, es + 1, PSRL, 3, b, bits);
            shift(e, es + 1, PSRL, d, a, bits);
        } else {
            xop3m(&e->x, X_PAND, 3, b, konst(es ? K_LOW_H : K_LOW_B));
            xop3m(&e->x, X_PAND, d, a, konst(es ? K_LOW_H : K_LOW_B));
        }
        xop3(&e->x, es ? X_PACKUSDW : X_PACKUSWB, d, d, 3);
    }
}

/* Operands as whole registers: where the shape is half a register, a and b become b:a in xmm2. */
static void join(struct emit *e, unsigned shape, unsigned *a, unsigned *b)
{
    if (shape & SH_Q)
        return;
    if (shape & SH_D)
        xop3(&e->x, X_UNPCKLQDQ, 2, *a, *b);
    else
        x86_movdqa_rr(&e->x, 2, *a);
    *a = *b = 2;
}

static bool pairwise(struct emit *e, const struct ir *ir)
{
    static const uint16_t lanes[] = {IR_w_add, IR_w_smax, IR_w_smin, IR_w_umax, IR_w_umin};
    unsigned es = shape_es(ir->k), a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);
    unsigned op = simple(lanes[ir->op - IR_w_addp], es);

    join(e, ir->k, &a, &b);
    every_other(e, es, false, 0, a, b);
    every_other(e, es, true, d, a, b);
    xop3(&e->x, op, d, d, 0);
    return result(e, ir, d, false);
}

static bool unzip(struct emit *e, const struct ir *ir)
{
    unsigned a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);

    join(e, ir->k, &a, &b);
    every_other(e, shape_es(ir->k), ir->op == IR_w_uzp2, d, a, b);
    return result(e, ir, d, false);
}

static bool pairs_long(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), half = 4u << es, a = emit_xmm(e, ir->a), d = emit_xmm_dest(e);

    if (ir->op == IR_w_saddlp && es == 3)
        return false;
    if (ir->op == IR_w_saddlp) {
        shift(e, es, PSLL, 0, a, half);
        shift(e, es, PSRA, 0, 0, half);
        shift(e, es, PSRA, d, a, half);
    } else {
        shift(e, es, PSLL, 0, a, half);
        shift(e, es, PSRL, 0, 0, half);
        shift(e, es, PSRL, d, a, half);
    }
    xop3(&e->x, simple(IR_w_add, es), d, d, 0);
    return result(e, ir, d, true);
}

/* Halves of the register on each other until one lane is left; what comes from beyond the lanes is never
 * used. */
static bool across(struct emit *e, const struct ir *ir)
{
    static const uint16_t lanes[] = {IR_w_add, IR_w_smax, IR_w_smin, IR_w_umax, IR_w_umin};
    unsigned es = shape_es(ir->k), a = emit_xmm(e, ir->a), d = emit_xmm_dest(e);
    unsigned op = simple(lanes[ir->op - IR_w_addv], es);

    x86_movdqa_rr(&e->x, d, a);
    for (unsigned n = shape_bytes(ir->k) / 2; n >= 1u << es; n /= 2) {
        shift_bytes_right(e, 0, d, n);
        xop3(&e->x, op, d, d, 0);
    }
    emit_xmm_clip(e, d, 1u << es);
    return ready(e, ir, d, 1u << es);
}

static bool add_bytes_long(struct emit *e, const struct ir *ir)
{
    if (shape_es(ir->k))
        return false;
    unsigned a = emit_xmm(e, ir->a), d = emit_xmm_dest(e);
    xop3(&e->x, X_PXOR, 0, 0, 0);
    xop3(&e->x, X_PSADBW, d, a, 0);
    if (ir->k & SH_Q) {
        shift_bytes_right(e, 0, d, 8);
        xop3(&e->x, simple(IR_w_add, 3), d, d, 0);
    }
    emit_xmm_clip(e, d, 8);
    return ready(e, ir, d, 8);
}

/* --- permutations --- */

static bool zip(struct emit *e, const struct ir *ir)
{
    static const uint16_t low[] = {X66(0x60), X66(0x61), X66(0x62), X66(0x6c)},
                          high[] = {X66(0x68), X66(0x69), X66(0x6a), X66(0x6d)};
    unsigned es = shape_es(ir->k), a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);
    bool second = ir->op == IR_w_zip2;

    if (ir->k & SH_Q) {
        xop3(&e->x, second ? high[es] : low[es], d, a, b);
        return ready(e, ir, d, 0);
    }
    xop3(&e->x, low[es], d, a, b);
    if (second)
        shift_bytes_right(e, d, d, 8);
    else
        emit_xmm_clip(e, d, 8);
    return ready(e, ir, d, 8);
}

static bool transpose(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), bits = 8u << es, a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b),
             d = emit_xmm_dest(e);

    if (es == 3) {
        xop3(&e->x, ir->op == IR_w_trn1 ? X_UNPCKLQDQ : X_UNPCKHQDQ, d, a, b);
    } else if (ir->op == IR_w_trn1) {
        shift(e, es + 1, PSLL, 0, a, bits);
        shift(e, es + 1, PSRL, 0, 0, bits);
        shift(e, es + 1, PSLL, d, b, bits);
        xop3(&e->x, X_POR, d, d, 0);
    } else {
        shift(e, es + 1, PSRL, 0, b, bits);
        shift(e, es + 1, PSLL, 0, 0, bits);
        shift(e, es + 1, PSRL, d, a, bits);
        xop3(&e->x, X_POR, d, d, 0);
    }
    return result(e, ir, d, true);
}

static bool extract(struct emit *e, const struct ir *ir)
{
    unsigned a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);

    if (ir->k & SH_Q) {
        xop3i(&e->x, X_PALIGNR, d, b, a, ir->imm16);
        return ready(e, ir, d, 0);
    }
    xop3(&e->x, X_UNPCKLQDQ, d, a, b);
    shift_bytes_right(e, d, d, ir->imm16);
    emit_xmm_clip(e, d, 8);
    return ready(e, ir, d, 8);
}

static bool reverse(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), flip = ((1u << (ir->imm16 - es)) - 1) << es, a = emit_xmm(e, ir->a),
             d = emit_xmm_dest(e);
    uint64_t from = 0;

    for (unsigned i = 0; i < 8; i++)
        from |= (uint64_t)(i ^ flip) << 8 * i;
    emit_xmm_const(e, 0, from, from + 0x0808080808080808);
    xop3(&e->x, X_PSHUFB, d, a, 0);
    return result(e, ir, d, true);
}

static bool table(struct emit *e, const struct ir *ir)
{
    bool keep = ir->op == IR_w_tbx;
    unsigned a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), c = keep ? emit_xmm(e, ir->c) : 0,
             d = emit_xmm_dest(e);
    unsigned lookup = keep ? b : a, index = keep ? c : b;

    if (keep && ir->imm16) {
        emit_xmm_const(e, 0, replicate(ir->imm16, 0), replicate(ir->imm16, 0));
        xop3(&e->x, simple(IR_w_sub, 0), 1, index, 0);
        index = 1;
    }
    xop3m(&e->x, X_PADDUSB, 0, index, konst(K_TABLE));
    xop3(&e->x, X_PSHUFB, d, lookup, 0);
    if (keep) { /* bytes with bit 7 come from a */
        xop3(&e->x, X_PXOR, 1, 1, 1);
        xop3(&e->x, simple(IR_w_cmgt, 0), 1, 1, 0);
        xop3(&e->x, X_PAND, 1, 1, a);
        xop3(&e->x, X_POR, d, d, 1);
    }
    return result(e, ir, d, false);
}

/* --- cryptography --- */

/* The AESMC (AESIMC) that takes only the result of the AESE (AESD) at hand, soon; 0: there is none. */
static unsigned mix_behind(const struct emit *e, unsigned op)
{
    for (unsigned i = e->at + 1; e->uses[e->at] == 1 && i < e->block->n && i < e->at + 5; i++)
        if (e->block->ir[i].op == op && e->block->ir[i].a == e->at)
            return i;
    return 0;
}

/*
 * The host's round is ShiftRows, SubBytes, MixColumns, then the key; the guest's key comes first.  With a key
 * of zero: AESE is the last round, AESE and AESMC a round.  MixColumns alone is a round upon a last inverse
 * round.
 */
static bool aes(struct emit *e, const struct ir *ir)
{
    if (!jit_host.aes)
        return false;
    unsigned a = emit_xmm(e, ir->a), d;
    if (ir->op == IR_w_aesmc || ir->op == IR_w_aesimc) {
        d = emit_xmm_dest(e);
        xop3(&e->x, X_PXOR, 0, 0, 0);
        if (ir->op == IR_w_aesimc) {
            xop2(&e->x, X38(0xdb), d, a);
        } else {
            xop3(&e->x, X38(0xdf), d, a, 0);
            xop3(&e->x, X38(0xdc), d, d, 0);
        }
        return ready(e, ir, d, 0);
    }
    unsigned b = emit_xmm(e, ir->b), mix = ir->op == IR_w_aese ? mix_behind(e, IR_w_aesmc) : 0;
    d = emit_xmm_dest(e);
    xop3(&e->x, X_PXOR, d, a, b);
    xop3(&e->x, X_PXOR, 0, 0, 0);
    xop3(&e->x, ir->op == IR_w_aesd ? X38(0xdf) : mix ? X38(0xdc) : X38(0xdd), d, d, 0);
    emit_use_all(e, ir);
    if (mix) {
        e->done[mix] = true;
        emit_use(e, e->at);
        emit_xmm_bind(e, mix, d, 0);
    } else {
        emit_xmm_bind(e, e->at, d, 0);
    }
    return true;
}

static bool polynomial(struct emit *e, const struct ir *ir)
{
    if (!jit_host.pclmul)
        return false;
    unsigned a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);
    xop3i(&e->x, X3A(0x44), d, a, b, ir->imm16 ? 0x11 : 0);
    return ready(e, ir, d, 0);
}

enum {
    SHA_RNDS2 = XOP(PP_NONE, MAP_38, 0xcb),
    SHA_MSG1 = XOP(PP_NONE, MAP_38, 0xcc),
    SHA_MSG2 = XOP(PP_NONE, MAP_38, 0xcd)
};

/* The SHA256H2 of the same operands that follows the SHA256H at hand, 0: none. */
static unsigned other_half(const struct emit *e, const struct ir *ir)
{
    for (unsigned i = e->at + 1; i < e->block->n && i < e->at + 12; i++) {
        const struct ir *h2 = &e->block->ir[i];
        if (h2->op == IR_w_sha256h2 && h2->a == ir->b && h2->b == ir->a && h2->c == ir->c && e->uses[i])
            return i;
    }
    return 0;
}

/*
 * SHA256H and SHA256H2 do the same four rounds and keep one half each.  The host has the state as FEBA and
 * HGDC, from the low lane, and two rounds turn (FEBA, HGDC) into (new FEBA in place of HGDC, FEBA); its key
 * words are in xmm0.
 */
static bool sha256_rounds(struct emit *e, const struct ir *ir)
{
    bool part1 = ir->op == IR_w_sha256h;
    unsigned other = part1 ? other_half(e, ir) : 0;
    unsigned x = emit_xmm(e, part1 ? ir->a : ir->b), y = emit_xmm(e, part1 ? ir->b : ir->a),
             w = emit_xmm(e, ir->c);
    unsigned d = emit_xmm_dest(e);

    xop3i(&e->x, X_SHUFPS, 1, y, x, 0x11);
    xop3i(&e->x, X_SHUFPS, 2, y, x, 0xbb);
    x86_movdqa_rr(&e->x, 0, w);
    xsse2w(&e->x, SHA_RNDS2, false, 2, 1);
    xop2i(&e->x, X_PSHUFD, 0, w, 0x0e);
    xsse2w(&e->x, SHA_RNDS2, false, 1, 2);
    xop3i(&e->x, X_SHUFPS, d, 1, 2, part1 ? 0xbb : 0x11);
    if (other) {
        unsigned d2 = emit_xmm_dest(e);
        xop3i(&e->x, X_SHUFPS, d2, 1, 2, 0x11);
        e->done[other] = true;
        emit_use_all(e, &e->block->ir[other]);
        emit_xmm_bind(e, other, d2, 0);
    }
    return ready(e, ir, d, 0);
}

static bool sha256(struct emit *e, const struct ir *ir)
{
    if (!jit_host.sha)
        return false;
    if (ir->op == IR_w_sha256h || ir->op == IR_w_sha256h2)
        return sha256_rounds(e, ir);
    unsigned a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b),
             c = ir->op == IR_w_sha256su1 ? emit_xmm(e, ir->c) : 0;
    unsigned d = emit_xmm_dest(e);
    if (ir->op == IR_w_sha256su0) {
        x86_movdqa_rr(&e->x, d, a);
        xsse2w(&e->x, SHA_MSG1, false, d, b);
    } else {
        xop3i(&e->x, X_PALIGNR, 0, c, b, 4);
        xop3(&e->x, simple(IR_w_add, 2), d, a, 0);
        xsse2w(&e->x, SHA_MSG2, false, d, c);
    }
    return ready(e, ir, d, 0);
}

/* --- dispatch --- */

static bool two_sources(struct emit *e, const struct ir *ir)
{
    unsigned op = simple(ir->op, shape_es(ir->k));

    if (!op)
        return false;
    unsigned a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);
    xop3(&e->x, op, d, a, b);
    return result(e, ir, d, ir->op != IR_w_cmeq);
}

/* |a - b| is the larger less the smaller. */
static bool difference(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), a, b, d;
    bool sign = ir->op == IR_w_sabd;

    if (es == 3)
        return false;
    a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);
    xop3(&e->x, simple(sign ? IR_w_smax : IR_w_umax, es), 0, a, b);
    xop3(&e->x, simple(sign ? IR_w_smin : IR_w_umin, es), 1, a, b);
    xop3(&e->x, simple(IR_w_sub, es), d, 0, 1);
    return result(e, ir, d, true);
}

bool emit_simd(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k);

    switch (ir->op) {
    case IR_w_andn:
    case IR_w_orn:
    case IR_w_not:
    case IR_w_bsl:
        return bitwise(e, ir);
    case IR_w_cmge:
    case IR_w_cmhi:
    case IR_w_cmhs:
    case IR_w_cmtst:
        return compares(e, ir);
    case IR_w_neg:
    case IR_w_abs:
    case IR_w_cnt:
        return one_source(e, ir);
    case IR_w_sabd:
    case IR_w_uabd:
        return difference(e, ir);
    case IR_w_shl:
    case IR_w_ushr:
    case IR_w_sshr:
        return shifts(e, ir);
    case IR_w_sli:
    case IR_w_sri:
        return shift_insert(e, ir);
    case IR_w_uxtl:
    case IR_w_sxtl:
        return long_move(e, ir);
    case IR_w_umull:
    case IR_w_smull:
        return long_multiply(e, ir);
    case IR_w_xtn:
        return narrow(e, ir);
    case IR_w_addp:
        return pairwise(e, ir);
    case IR_w_smaxp:
    case IR_w_sminp:
    case IR_w_umaxp:
    case IR_w_uminp:
        return es < 3 && pairwise(e, ir);
    case IR_w_uzp1:
    case IR_w_uzp2:
        return unzip(e, ir);
    case IR_w_saddlp:
    case IR_w_uaddlp:
        return !(ir->op == IR_w_saddlp && es == 3) && pairs_long(e, ir);
    case IR_w_addv:
    case IR_w_smaxv:
    case IR_w_sminv:
    case IR_w_umaxv:
    case IR_w_uminv:
        return es < 3 && across(e, ir);
    case IR_w_uaddlv:
        return add_bytes_long(e, ir);
    case IR_w_zip1:
    case IR_w_zip2:
        return zip(e, ir);
    case IR_w_trn1:
    case IR_w_trn2:
        return transpose(e, ir);
    case IR_w_ext:
        return extract(e, ir);
    case IR_w_rev:
        return reverse(e, ir);
    case IR_w_tbl:
    case IR_w_tbx:
        return table(e, ir);
    case IR_w_aese:
    case IR_w_aesd:
    case IR_w_aesmc:
    case IR_w_aesimc:
        return aes(e, ir);
    case IR_w_pmull64:
        return polynomial(e, ir);
    case IR_w_sha256h:
    case IR_w_sha256h2:
    case IR_w_sha256su0:
    case IR_w_sha256su1:
        return sha256(e, ir);
    default:
        return two_sources(e, ir);
    }
}
