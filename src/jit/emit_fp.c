/*
 * Floating point as host code, bit for bit: results, and FPSR's cumulative flags from the sticky flags of
 * MXCSR, which jit.c folds into FPSR whenever C may look.
 *
 * Only with the FPCR that nearly all programs have (round to nearest, no flush to zero, no default NaN:
 * JM_FPCR); else, and for half precision, cpu/vec_fp.c does it.
 *
 * Why the host's answer is the guest's
 *  1. NaN results are checked for, and done again in C, which knows which NaN is passed on.  The flags that
 * the host has raised by then are a part of those that C raises.
 *  2. Tininess: the guest looks before rounding, the host after.  They differ only where rounding gives the
 * smallest normal number: a result of that magnitude is done again too.  Sums and roots are never tiny and
 * inexact, so only products, quotients, fused sums and narrowing look.
 *  3. The host's denormal flag has no meaning in this mode; Invalid, Divide, Overflow, Inexact mean the same.
 *  4. Lanes outside the shape must not raise flags: half registers are doubled first, single lanes use scalar
 * forms.
 */
#include "jit/emit.h"

#include "cpu/vec.h"
#include "jit/x86_sse.h"

/* Opcodes of the four forms PS, PD, SS, SD. */
enum fop {
    F_SQRT = 0x51,
    F_ADD = 0x58,
    F_MUL = 0x59,
    F_SUB = 0x5c,
    F_MIN = 0x5d,
    F_DIV = 0x5e,
    F_MAX = 0x5f,
    F_CMP = 0xc2
};
enum { CMP_EQ = 0, CMP_LT = 1, CMP_LE = 2, CMP_UNORD = 3, CMP_EQ_UQ = 8 };

static unsigned fop(unsigned shape, unsigned op)
{
    bool d = shape_es(shape) == 3, scalar = shape >> 2 == 0;
    return XOP(scalar ? (d ? PP_F2 : PP_F3) : d ? PP_66 : PP_NONE, MAP_0F, op);
}

static bool is_scalar(unsigned shape)
{
    return shape >> 2 == 0;
}

static unsigned shape_bytes(unsigned shape)
{
    return shape & SH_Q ? 16 : shape & SH_D ? 8 : 1u << shape_es(shape);
}

/* A constant by lane size. */
static struct hmem konst(unsigned k, unsigned es)
{
    return HOT(HOT_K + 2 * (k + (es == 3)));
}

static struct hmem limit(unsigned k, unsigned es)
{
    return HOT(HOT_K + 2 * k + (es == 2));
}

static bool can(const struct emit *e, unsigned es)
{
    return e->mode & JM_FPCR && es >= 2;
}

/* The operands, and those to compute with: half registers doubled, in xmm1 to xmm3. */
struct sources {
    unsigned n, own[3], use[3];
};

static struct sources sources(struct emit *e, const struct ir *ir)
{
    struct sources s = {.n = ir_operands(ir->op)};

    for (unsigned i = 0; i < s.n; i++) {
        s.own[i] = s.use[i] = emit_xmm(e, ir_operand(ir, i));
        if ((ir->k & (SH_D | SH_Q)) == SH_D) {
            s.use[i] = 1 + i;
            xop3(&e->x, X_UNPCKLQDQ, s.use[i], s.own[i], s.own[i]);
        }
    }
    return s;
}

/* From here on cold code may do the operation over: with its operands s, to xmm (or general) register d. */
static struct cold *redo_if(struct emit *e, const struct sources *s, enum hcc cc, unsigned d)
{
    struct cold *c = emit_cold(e, COLD_VECTOR, x86_jcc(&e->x, cc));

    for (unsigned i = 0; i < s->n; i++)
        c->x[i] = (uint8_t)s->own[i];
    c->xd = (uint8_t)d;
    c->back = e->x.p;
    return c;
}

static void any_lane(struct emit *e, unsigned mask)
{
    xop2(&e->x, X_PTEST, mask, mask);
}

/* Is a lane of d a NaN? */
static struct cold *redo_nan(struct emit *e, unsigned shape, const struct sources *s, unsigned d)
{
    emit_clobber_flags(e);
    if (is_scalar(shape)) {
        xop2(&e->x, XOP(shape_es(shape) == 3 ? PP_66 : PP_NONE, MAP_0F, 0x2e), d, d);
        return redo_if(e, s, CC_P, d);
    }
    xop3i(&e->x, fop(shape, F_CMP), 0, d, d, CMP_UNORD);
    any_lane(e, 0);
    return redo_if(e, s, CC_NE, d);
}

/* Is a lane of d a NaN or of the smallest normal magnitude?  UCOMISD says "equal" for both. */
static struct cold *redo_nan_or_least(struct emit *e, unsigned shape, const struct sources *s, unsigned d)
{
    unsigned es = shape_es(shape);

    emit_clobber_flags(e);
    xop3m(&e->x, X_PAND, 0, d, konst(K_ABS_S, es));
    if (is_scalar(shape)) {
        xop2m(&e->x, XOP(es == 3 ? PP_66 : PP_NONE, MAP_0F, 0x2e), 0, konst(K_MIN_S, es));
        return redo_if(e, s, CC_E, d);
    }
    if (jit_host.avx) {
        xop3m(&e->x, fop(shape, F_CMP), 0, 0, konst(K_MIN_S, es));
        x86_u8(&e->x, CMP_EQ_UQ);
    } else {
        xop3i(&e->x, fop(shape, F_CMP), 1, d, d, CMP_UNORD);
        xop3m(&e->x, fop(shape, F_CMP), 0, 0, konst(K_MIN_S, es));
        x86_u8(&e->x, CMP_EQ);
        xop3(&e->x, X_POR, 0, 0, 1);
    }
    any_lane(e, 0);
    return redo_if(e, s, CC_NE, d);
}

/* The result is in d; `upper': operand that its upper part comes from, 0: it is zero there already. */
static bool result(struct emit *e, const struct ir *ir, unsigned d, unsigned upper)
{
    unsigned bytes = shape_bytes(ir->k), z = upper ? e->zext[upper] : 1;

    if (bytes < 16 && (!z || z > bytes || ir->k & SH_D))
        emit_xmm_clip(e, d, bytes);
    emit_use_all(e, ir);
    emit_xmm_bind(e, e->at, d, bytes == 16 ? 0 : bytes);
    return true;
}

/* --- arithmetic --- */

static bool arithmetic(struct emit *e, const struct ir *ir, unsigned op)
{
    struct sources s = sources(e, ir);
    unsigned d = emit_xmm_dest(e);

    xop3(&e->x, fop(ir->k, op), d, s.use[0], s.use[1]);
    if (op == F_ADD || op == F_SUB)
        redo_nan(e, ir->k, &s, d);
    else
        redo_nan_or_least(e, ir->k, &s, d);
    if (ir->op == IR_w_fabd)
        xop3m(&e->x, X_PAND, d, d, konst(K_ABS_S, shape_es(ir->k)));
    return result(e, ir, d, ir->a);
}

static bool square_root(struct emit *e, const struct ir *ir)
{
    struct sources s = sources(e, ir);
    unsigned d = emit_xmm_dest(e);

    if (is_scalar(ir->k)) {
        xop3(&e->x, X_PXOR, d, d, d);
        xop3(&e->x, fop(ir->k, F_SQRT), d, d, s.use[0]);
    } else {
        xop2(&e->x, fop(ir->k, F_SQRT), d, s.use[0]);
    }
    redo_nan(e, ir->k, &s, d);
    return result(e, ir, d, 0);
}

/* a + b * c */
static bool fused(struct emit *e, const struct ir *ir)
{
    if (!jit_host.fma)
        return false;
    struct sources s = sources(e, ir);
    unsigned d = emit_xmm_dest(e);
    x86_movdqa_rr(&e->x, d, s.use[0]);
    xfma(&e->x, X38(is_scalar(ir->k) ? 0xb9 : 0xb8), shape_es(ir->k) == 3, d, s.use[1], s.use[2]);
    redo_nan_or_least(e, ir->k, &s, d);
    return result(e, ir, d, ir->a);
}

/* Of equal operands, which can only be zeros, the host takes the second: both orders, and the zeros' signs
 * joined. */
static bool extreme(struct emit *e, const struct ir *ir, bool max)
{
    struct sources s = sources(e, ir);
    unsigned d = emit_xmm_dest(e), a = s.use[0], b = s.use[1], op = max ? F_MAX : F_MIN;
    struct cold *c;

    emit_clobber_flags(e);
    if (is_scalar(ir->k)) {
        xop2(&e->x, XOP(shape_es(ir->k) == 3 ? PP_66 : PP_NONE, MAP_0F, 0x2e), a, b);
        c = redo_if(e, &s, CC_P, d);
    } else {
        xop3i(&e->x, fop(ir->k, F_CMP), 0, a, b, CMP_UNORD);
        any_lane(e, 0);
        c = redo_if(e, &s, CC_NE, d);
    }
    xop3(&e->x, fop(ir->k, op), 0, a, b);
    xop3(&e->x, fop(ir->k, op), d, b, a);
    xop3(&e->x, max ? X_PAND : X_POR, d, d, 0);
    c->back = e->x.p;
    if (is_scalar(ir->k))
        emit_xmm_clip(e, d, 1u << shape_es(ir->k));
    return result(e, ir, d, 0);
}

static bool sign(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), a, d;

    if (es < 2)
        return false;
    a = emit_xmm(e, ir->a), d = emit_xmm_dest(e);
    if (ir->op == IR_w_fabs) {
        xop3m(&e->x, X_PAND, d, a, konst(K_ABS_S, es));
    } else {
        if (is_scalar(ir->k)) /* only the low lane, so that the others stay zero */
            xop2m(&e->x, XOP(es == 3 ? PP_F2 : PP_F3, MAP_0F, 0x10), 0, konst(K_SIGN_S, es));
        else
            x86_movdqu_load(&e->x, 0, konst(K_SIGN_S, es));
        xop3(&e->x, X_PXOR, d, a, 0);
    }
    return result(e, ir, d, ir->a);
}

static bool add_pairs(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), d = emit_xmm_dest(e);
    struct sources s = {2, {a, b}, {a, b}};

    if (is_scalar(ir->k)) {
        xop2i(&e->x, X_PSHUFD, 1, a, es == 3 ? 0xee : 0x55);
        xop3(&e->x, fop(ir->k, F_ADD), d, a, 1);
    } else {
        if (!(ir->k & SH_Q)) {
            xop3(&e->x, X_UNPCKLQDQ, 2, a, b);
            a = b = 2;
        }
        if (es == 3) {
            xop3(&e->x, X_UNPCKLQDQ, 1, a, b);
            xop3(&e->x, X_UNPCKHQDQ, d, a, b);
        } else {
            xop3i(&e->x, X_SHUFPS, 1, a, b, 0x88);
            xop3i(&e->x, X_SHUFPS, d, a, b, 0xdd);
        }
        xop3(&e->x, fop(ir->k, F_ADD), d, d, 1);
    }
    redo_nan(e, ir->k, &s, d);
    emit_xmm_clip(e, d, shape_bytes(ir->k));
    return result(e, ir, d, 0);
}

/* --- comparisons --- */

/* Quiet for "equal", signalling for the others, as the guest's are: no check. */
static bool compare(struct emit *e, const struct ir *ir)
{
    struct sources s = sources(e, ir);
    unsigned d = emit_xmm_dest(e), es = shape_es(ir->k);
    bool eq = ir->op == IR_w_fcmeq, absolute = ir->op == IR_w_facge || ir->op == IR_w_facgt;

    for (unsigned i = 0; i < 2 && absolute; i++) {
        xop3m(&e->x, X_PAND, 1 + i, s.use[i], konst(K_ABS_S, es));
        s.use[i] = 1 + i;
    }
    if (eq)
        xop3i(&e->x, fop(ir->k, F_CMP), d, s.use[0], s.use[1], CMP_EQ);
    else
        xop3i(&e->x, fop(ir->k, F_CMP), d, s.use[1], s.use[0],
              ir->op == IR_w_fcmge || ir->op == IR_w_facge ? CMP_LE : CMP_LT);
    return result(e, ir, d, eq ? ir->a : ir->b);
}

/*
 * FCMP.  The host says CF for "less or unordered", PF for "unordered", and neither CF nor ZF for "greater".
 * Comparing the bytes t and u made of these gives the guest's flags as those of a subtraction: less 0 - 1,
 * equal 0 - 0, greater 1 - 0, unordered 0x80 - 1, which overflows.
 */
bool emit_fcmp(struct emit *e, const struct ir *ir)
{
    if (!can(e, ir->k))
        return false;
    unsigned a = emit_xmm(e, ir->a), b = emit_xmm(e, ir->b), t = emit_temp(e), u = emit_temp(e),
             v = emit_temp(e);

    emit_clobber_flags(e);
    xop2(&e->x, XOP(ir->k == 3 ? PP_66 : PP_NONE, MAP_0F, ir->x ? 0x2f : 0x2e), a, b);
    x86_setcc(&e->x, CC_A, t);
    x86_setcc(&e->x, CC_P, v);
    x86_setcc(&e->x, CC_B, u);
    x86_shift_ri(&e->x, false, SH_SHL, v, 7);
    x86_alu_rr(&e->x, false, ALU_OR, t, v);
    x86_rr(&e->x, 0, false, 0x3a, t, u, true); /* cmp t, u: bytes */
    emit_release(e, t);
    emit_release(e, u);
    emit_release(e, v);
    emit_use_all(e, ir);
    if (emit_for_f_select(e, e->at))
        emit_flags_ready(e);
    else
        emit_flags_made(e, e->at, true);
    return true;
}

/* --- conversions --- */

static bool between_formats(struct emit *e, const struct ir *ir)
{
    unsigned to = shape_es(ir->k), from = ir->imm16;

    if (from < 2)
        return false;
    struct sources s = {1, {emit_xmm(e, ir->a)}, {0}};
    unsigned d = emit_xmm_dest(e);
    xop3(&e->x, X_PXOR, d, d, d);
    xop3(&e->x, XOP(from == 3 ? PP_F2 : PP_F3, MAP_0F, 0x5a), d, d, s.own[0]);
    if (to == 3)
        redo_nan(e, ir->k, &s, d);
    else
        redo_nan_or_least(e, ir->k, &s, d);
    return result(e, ir, d, 0);
}

static bool long_or_narrow(struct emit *e, const struct ir *ir)
{
    bool narrow = ir->op == IR_w_fcvtn;

    if (shape_es(ir->k) != (narrow ? 2 : 3) || is_scalar(ir->k))
        return false;
    struct sources s = {1, {emit_xmm(e, ir->a)}, {0}};
    unsigned d = emit_xmm_dest(e), a = s.own[0];
    if (!narrow && ir->imm16) {
        xshift(&e->x, X66(0x73), 3, 0, a, 8);
        a = 0;
    }
    xop2(&e->x, XOP(narrow ? PP_66 : PP_NONE, MAP_0F, 0x5a), d, a);
    if (narrow)
        redo_nan_or_least(e, ir->k, &s, d);
    else
        redo_nan(e, ir->k, &s, d);
    return result(e, ir, d, 0);
}

static bool to_integral(struct emit *e, const struct ir *ir)
{
    static const uint8_t host[] = {0, 2, 1, 3}; /* by enum fp_round */
    unsigned imm = ir->imm16, mode = imm & VI_FPCR ? FPR_TIEEVEN : imm & VI_MODE;
    bool d64 = shape_es(ir->k) == 3;

    if (mode > FPR_ZERO)
        return false;
    struct sources s = sources(e, ir);
    unsigned d = emit_xmm_dest(e), how = host[mode] | (imm & VI_EXACT ? 0 : 8); /* 8: no Inexact */
    if (is_scalar(ir->k)) {
        xop3(&e->x, X_PXOR, d, d, d);
        xop3i(&e->x, X3A(d64 ? 0x0b : 0x0a), d, d, s.use[0], how);
    } else {
        xop2i(&e->x, X3A(d64 ? 0x09 : 0x08), d, s.use[0], how);
    }
    redo_nan(e, ir->k, &s, d);
    return result(e, ir, d, 0);
}

/* d (cleared) = float of the integer in lane 0 of xmm register a.  `wide': it has 64 bits. */
static struct cold *integer_to(struct emit *e, unsigned es, bool is_unsigned, bool wide, unsigned d,
                               unsigned a)
{
    struct sources s = {1, {a}, {a}};
    struct cold *c = NULL;
    unsigned t = emit_temp(e);

    xop2w(&e->x, X66(0x7e), wide, a, t);
    xop3(&e->x, X_PXOR, d, d, d);
    if (is_unsigned && wide) { /* the host knows signed integers only */
        emit_clobber_flags(e);
        x86_test_rr(&e->x, true, t, t);
        c = redo_if(e, &s, CC_S, d);
    }
    xop3w(&e->x, XOP(es == 3 ? PP_F2 : PP_F3, MAP_0F, 0x2a), wide || is_unsigned, d, d, t);
    if (c)
        c->back = e->x.p;
    emit_release(e, t);
    return c;
}

static bool from_integer(struct emit *e, const struct ir *ir)
{
    bool is_unsigned = ir->op == IR_w_ucvtf || ir->op == IR_w_ucvtf_x,
         x = ir->op == IR_w_scvtf_x || ir->op == IR_w_ucvtf_x;
    unsigned es = shape_es(ir->k);

    if (ir->imm16 >> VI_FBITS_SHIFT || (!is_scalar(ir->k) && (es == 3 || is_unsigned)))
        return false;
    if (is_scalar(ir->k)) {
        unsigned a = emit_xmm(e, ir->a), d = emit_xmm_dest(e);
        integer_to(e, es, is_unsigned, x ? ir->imm16 & VI_TO64 : es == 3, d, a);
        return result(e, ir, d, 0);
    }
    struct sources s = sources(e, ir);
    unsigned d = emit_xmm_dest(e);
    xop2(&e->x, XOP(PP_NONE, MAP_0F, 0x5b), d, s.use[0]);
    return result(e, ir, d, 0);
}

/* The operation that takes the integer out of the result at hand, right behind and alone; 0: there is none.
 */
static unsigned lane_behind(const struct emit *e)
{
    for (unsigned i = e->at + 1; e->uses[e->at] == 1 && i < e->block->n && i < e->at + 3; i++) {
        const struct ir *ir = &e->block->ir[i];
        if (ir->op == IR_v_lane && ir->a == e->at && ir->k == 3 && !ir->x)
            return i;
    }
    return 0;
}

/*
 * Towards zero to an integer of 32 or 64 bits.  The host's answer to what does not fit is the most negative
 * number, with Invalid only, as the guest's flags are.  An unsigned number is a wider signed one, so it is
 * tested before.
 */
static void chop(struct emit *e, unsigned es, bool is_unsigned, bool wide, unsigned a, unsigned t)
{
    struct sources s = {1, {a}, {a}};
    unsigned ucomi = XOP(es == 3 ? PP_66 : PP_NONE, MAP_0F, 0x2e);
    struct cold *low = NULL, *high = NULL;

    emit_clobber_flags(e);
    if (is_unsigned) {
        xop2m(&e->x, ucomi, a, limit(K_MINUS_1, es));
        low = redo_if(e, &s, CC_BE, t | XD_GENERAL);
        xop2m(&e->x, ucomi, a, limit(wide ? K_2_63 : K_2_32, es));
        high = redo_if(e, &s, CC_AE, t | XD_GENERAL);
    }
    xop2w(&e->x, XOP(es == 3 ? PP_F2 : PP_F3, MAP_0F, 0x2c), wide || is_unsigned, t, a);
    if (is_unsigned) {
        low->back = high->back = e->x.p;
    } else {
        x86_alu_ri(&e->x, wide, ALU_CMP, t, 1);
        redo_if(e, &s, CC_O, t | XD_GENERAL);
    }
}

static bool to_integer(struct emit *e, const struct ir *ir)
{
    bool is_unsigned = ir->op == IR_w_fcvtu || ir->op == IR_w_fcvtu_x,
         x = ir->op == IR_w_fcvts_x || ir->op == IR_w_fcvtu_x;
    unsigned es = shape_es(ir->k);

    if (ir->imm16 >> VI_FBITS_SHIFT || (ir->imm16 & (VI_MODE | VI_FPCR)) != FPR_ZERO)
        return false;
    if (is_scalar(ir->k)) {
        unsigned lane = x ? lane_behind(e) : 0, a = emit_xmm(e, ir->a),
                 t = lane ? emit_dest(e, lane) : emit_temp(e);
        bool wide = x ? ir->imm16 & VI_TO64 : es == 3;
        chop(e, es, is_unsigned, wide, a, t);
        emit_use_all(e, ir);
        if (lane) {
            e->done[lane] = true;
            emit_use(e, e->at);
            emit_bind(e, lane, t);
            return true;
        }
        unsigned d = emit_xmm_dest(e);
        xop2w(&e->x, X66(0x6e), wide, d, t);
        emit_xmm_bind(e, e->at, d, 8);
        return true;
    }
    if (es == 3 || is_unsigned)
        return false;
    struct sources s = sources(e, ir);
    unsigned d = emit_xmm_dest(e);
    xop2(&e->x, XOP(PP_F3, MAP_0F, 0x5b), d, s.use[0]);
    emit_clobber_flags(e);
    x86_movdqu_load(&e->x, 0, HOT(HOT_K + 2 * K_SIGN_S));
    xop3(&e->x, X66(0x76), 0, 0, d);
    any_lane(e, 0);
    redo_if(e, &s, CC_NE, d);
    return result(e, ir, d, 0);
}

/* --- dispatch --- */

bool emit_fp(struct emit *e, const struct ir *ir)
{
    if (ir->op == IR_w_fneg || ir->op == IR_w_fabs)
        return sign(e, ir);
    if (!can(e, shape_es(ir->k)))
        return false;
    switch (ir->op) {
    case IR_w_fadd:
        return arithmetic(e, ir, F_ADD);
    case IR_w_fsub:
    case IR_w_fabd:
        return arithmetic(e, ir, F_SUB);
    case IR_w_fmul:
        return arithmetic(e, ir, F_MUL);
    case IR_w_fdiv:
        return arithmetic(e, ir, F_DIV);
    case IR_w_fsqrt:
        return square_root(e, ir);
    case IR_w_fmla:
        return fused(e, ir);
    case IR_w_fmax:
    case IR_w_fmaxnm:
        return extreme(e, ir, true);
    case IR_w_fmin:
    case IR_w_fminnm:
        return extreme(e, ir, false);
    case IR_w_faddp:
        return add_pairs(e, ir);
    case IR_w_fcmeq:
    case IR_w_fcmge:
    case IR_w_fcmgt:
    case IR_w_facge:
    case IR_w_facgt:
        return compare(e, ir);
    case IR_w_fcvt:
        return between_formats(e, ir);
    case IR_w_fcvtl:
    case IR_w_fcvtn:
        return long_or_narrow(e, ir);
    case IR_w_frint:
        return to_integral(e, ir);
    case IR_w_scvtf:
    case IR_w_ucvtf:
    case IR_w_scvtf_x:
    case IR_w_ucvtf_x:
        return from_integer(e, ir);
    case IR_w_fcvts:
    case IR_w_fcvtu:
    case IR_w_fcvts_x:
    case IR_w_fcvtu_x:
        return to_integer(e, ir);
    default:
        return false;
    }
}
