/*
 * Vectors in xmm registers: where values are, moves between the register files, and the way to C for what
 * emit_simd.c and emit_fp.c do not do.
 *
 * A vector value is in the home of a guest register, in a slot, or in an xmm register only; in the first two
 * cases an xmm register may have it too.  Homes are written by set_w at once, so that whatever leaves the
 * block finds them right; but those that are `owed' are written by what leaves, in cold code (opt_owed()).
 *
 * Rules
 *  1. xmm0 to xmm3 belong to the operation at hand; a result goes to a register that no operand of it is in,
 * so that cold code still finds the operands.
 *  2. C loses all xmm registers: hot calls flush first, cold ones save and restore them all, because cold
 * code comes back to a place where every value is where it was.
 */
#include "jit/emit.h"

#include <glib.h>

#include "base/report.h"
#include "jit/x86_sse.h"

static struct hmem vhome(unsigned n)
{
    return jit_cpu_mem(offsetof(struct cpu, v) + 16 * (size_t)n);
}

static struct hmem slot_mem(unsigned s)
{
    return HOT(HOT_W + 2 * s);
}

static const struct ir *op_of(const struct emit *e, unsigned id)
{
    return &e->block->ir[id];
}

/* --- places --- */

static unsigned free_slot(struct emit *e)
{
    for (unsigned s = 0; s < W_SLOTS; s++)
        if (!e->wslot[s])
            return s;
    e->failed = true;
    return 0;
}

/* The memory that has value id; false: only a register has it. */
static bool in_memory(const struct emit *e, unsigned id, struct hmem *m)
{
    const struct loc *l = &e->loc[id];

    if (l->kind == L_GW)
        *m = vhome(l->n);
    else if (l->kind == L_WSLOT)
        *m = slot_mem(l->n);
    else
        return false;
    return true;
}

static void to_slot(struct emit *e, unsigned id)
{
    unsigned s = free_slot(e);

    x86_movdqu_store(&e->x, slot_mem(s), e->xof[id] - 1u);
    e->wslot[s] = (uint16_t)id;
    e->loc[id] = (struct loc){L_WSLOT, (uint8_t)s};
}

static void forget(struct emit *e, unsigned r)
{
    unsigned id = e->xreg[r];

    if (!id)
        return;
    if (e->loc[id].kind == L_XMM)
        to_slot(e, id);
    e->xof[id] = 0;
    e->xreg[r] = 0;
}

unsigned emit_xmm_dest(struct emit *e)
{
    unsigned best = XMMS;

    for (unsigned r = XMM_FIRST; r < XMMS; r++) {
        if (e->xlocked >> r & 1)
            continue;
        if (!e->xreg[r]) {
            best = r;
            break;
        }
        if (best == XMMS || (e->loc[e->xreg[best]].kind == L_XMM && e->loc[e->xreg[r]].kind != L_XMM))
            best = r;
    }
    BUG_ON(best == XMMS);
    forget(e, best);
    e->xlocked |= (uint16_t)(1u << best);
    return best;
}

void emit_xmm_free(struct emit *e, unsigned r)
{
    e->xlocked &= (uint16_t) ~(1u << r);
}

/* Bytes of each vector operand that operation ir looks at. */
static unsigned bytes_needed(const struct ir *ir)
{
    unsigned lane = 1u << shape_es(ir->k);

    switch (ir->op) {
    case IR_f_fcmp:
        return 1u << ir->k;
    case IR_w_fcvt:
        return 1u << ir->imm16;
    case IR_store_w:
        return 1u << (ir->k & MO_SIZE);
    case IR_w_scvtf_x:
    case IR_w_ucvtf_x:
        return 8;
    case IR_v_lane:
    case IR_v_lane_s:
        return (ir->x + 1u) << ir->k;
    case IR_w_dup_lane:
        return (ir->x + 1u) << shape_es(ir->k);
    case IR_w_fadd:
    case IR_w_fsub:
    case IR_w_fmul:
    case IR_w_fdiv:
    case IR_w_fmla:
    case IR_w_fsqrt:
    case IR_w_fneg:
    case IR_w_fabs:
    case IR_w_fabd:
    case IR_w_fmax:
    case IR_w_fmin:
    case IR_w_fmaxnm:
    case IR_w_fminnm:
    case IR_w_frint:
    case IR_w_fcvts_x:
    case IR_w_fcvtu_x:
        return ir->k >> 2 ? 16 : lane;
    default:
        return 16;
    }
}

/*
 * What scalar operations alone use is loaded as a scalar, with zeros above, so that their results need no
 * clearing: it would be a part of every chain of operations.
 */
void emit_find_needs(struct emit *e, const struct ir_block *block)
{
    memset(e->need, 0, block->n);
    for (unsigned id = 1; id < block->n; id++) {
        const struct ir *ir = &block->ir[id];
        const char *types = ir_info[ir->op].operands;
        if (types[0] != 'W' && (!types[0] || types[1] != 'W')) /* if there is one, it is the first or the second */
            continue;
        for (unsigned i = 0; types[i]; i++) {
            if (types[i] != 'W')
                continue;
            unsigned n = bytes_needed(ir), v = ir_operand(ir, i);
            e->need[v] = (uint8_t)MAX(n, e->need[v]);
        }
    }
}

/* 4 or 8 bytes with zeros above, or all 16 (0). */
static void load_scalar(struct emit *e, unsigned r, struct hmem m, unsigned bytes)
{
    if (bytes)
        xop2m(&e->x, XOP(bytes == 4 ? PP_F3 : PP_F2, MAP_0F, 0x10), r, m);
    else
        x86_movdqu_load(&e->x, r, m);
}

static void load_needed(struct emit *e, unsigned id, unsigned r, struct hmem m)
{
    unsigned need = e->need[id] <= 4 ? 4 : e->need[id] <= 8 ? 8 : 0;

    if (need && op_of(e, id)->op == IR_get_w && e->loc[id].kind == L_GW)
        e->zext[id] = (uint8_t)need;
    else
        need = 0;
    load_scalar(e, r, m, need);
}

unsigned emit_xmm(struct emit *e, unsigned id)
{
    struct hmem m;

    if (e->xof[id]) {
        e->xlocked |= (uint16_t)(1u << (e->xof[id] - 1));
        return e->xof[id] - 1u;
    }
    if (!in_memory(e, id, &m)) {
        BUG_ON(!e->failed);
        return XMM_FIRST;
    }
    unsigned r = emit_xmm_dest(e);
    load_needed(e, id, r, m);
    e->xreg[r] = (uint16_t)id;
    e->xof[id] = (uint8_t)(r + 1);
    return r;
}

void emit_xmm_bind(struct emit *e, unsigned id, unsigned r, unsigned zext)
{
    emit_xmm_free(e, r);
    e->zext[id] = (uint8_t)zext;
    if (!e->uses[id])
        return;
    e->loc[id] = (struct loc){L_XMM, (uint8_t)r};
    e->xreg[r] = (uint16_t)id;
    e->xof[id] = (uint8_t)(r + 1);
}

bool emit_xmm_live(const struct emit *e)
{
    for (unsigned r = XMM_FIRST; r < XMMS; r++)
        if (e->xreg[r])
            return true;
    return false;
}

void emit_xmm_flush(struct emit *e)
{
    for (unsigned r = XMM_FIRST; r < XMMS; r++)
        forget(e, r);
}

/* The values that live in home n find another place. */
static void evict_vhome(struct emit *e, unsigned n, unsigned except)
{
    for (unsigned id = 1; e->gw_live[n] && id < e->block->n; id++) {
        struct loc *l = &e->loc[id];
        if (l->kind != L_GW || l->n != n || id == except)
            continue;
        if (e->gw_live[n] == 1 && e->loc[except].kind == L_GW && e->loc[except].n == n)
            return;
        unsigned r = emit_xmm(e, id);
        e->gw_live[n]--;
        *l = (struct loc){L_XMM, (uint8_t)r};
    }
}

static void emit_set_w(struct emit *e, const struct ir *ir)
{
    unsigned id = ir->a, before = e->owed[ir->k];
    struct loc *l = &e->loc[id];

    e->owed[ir->k] = 0;
    if (ir->x && !e->no_groups) {
        evict_vhome(e, ir->k, 0);
        e->owed[ir->k] = (uint16_t)id; /* its use is that of this operation, until it is set again */
    } else {
        unsigned r = emit_xmm(e, id);
        evict_vhome(e, ir->k, id);
        if (!(l->kind == L_GW && l->n == ir->k))
            x86_movdqu_store(&e->x, vhome(ir->k), r);
        if (l->kind == L_XMM) { /* the home is its memory from now on */
            *l = (struct loc){L_GW, ir->k};
            e->gw_live[ir->k]++;
        }
        emit_use(e, id);
    }
    emit_use(e, before);
}

void emit_note_owed(struct emit *e, struct cold *c)
{
    c->owing = (uint16_t)e->nowing;
    for (unsigned n = 0; n < 32; n++) {
        unsigned id = e->owed[n];
        if (!id)
            continue;
        if (e->nowing == MAX_OWED) {
            e->failed = true;
            break;
        }
        struct owing *o = &e->owing[e->nowing++];
        *o = (struct owing){ .reg = (uint8_t)n, .x = OWING_MEMORY };
        if (e->xof[id])
            o->x = (uint8_t)(e->xof[id] - 1);
        else if (!in_memory(e, id, &o->m))
            BUG_ON(!e->failed);
        for (unsigned i = 0; i < e->loop.n; i++)
            o->turn |= id == e->loop.w[i].get && e->loop_zext[i];
    }
    c->nowing = (uint16_t)(e->nowing - c->owing);
}

void emit_pay_owed(struct emit *e, const struct cold *c)
{
    for (unsigned i = 0; i < c->nowing; i++) {
        const struct owing *o = &e->owing[c->owing + i];
        uint8_t *first = NULL;
        if (o->turn) {
            x86_alu_mi(&e->x, false, ALU_CMP, HOT(HOT_LATER), 0);
            first = x86_jcc(&e->x, CC_E);
        }
        if (o->x == OWING_MEMORY)
            x86_movdqu_load(&e->x, 0, o->m);
        x86_movdqu_store(&e->x, vhome(o->reg), o->x == OWING_MEMORY ? 0 : o->x);
        if (o->turn)
            x86_here(&e->x, first);
    }
}

void emit_forget_owed(struct emit *e)
{
    for (unsigned n = 0; n < 32; n++) {
        emit_use(e, e->owed[n]);
        e->owed[n] = 0;
    }
}

/* --- constants --- */

void emit_xmm_clip(struct emit *e, unsigned r, unsigned bytes)
{
    switch (bytes) {
    case 16:
        break;
    case 8:
        xop2(&e->x, X_MOVQ, r, r);
        break;
    case 4:
        xop3i(&e->x, X_INSERTPS, r, r, r, 0x0e);
        break;
    default:
        xshift(&e->x, X66(0x73), 7, r, r, 16 - bytes);
        xshift(&e->x, X66(0x73), 3, r, r, 16 - bytes);
        break;
    }
}

void emit_xmm_const(struct emit *e, unsigned r, uint64_t lo, uint64_t hi)
{
    if (!lo && !hi) {
        xop3(&e->x, X_PXOR, r, r, r);
        return;
    }
    if (!~lo && !~hi) {
        xop3(&e->x, X66(0x76), r, r, r);
        return;
    }
    unsigned t = emit_temp(e);
    emit_const(e, t, lo);
    xop2w(&e->x, X66(0x6e), true, r, t);
    if (hi == lo) {
        xop3(&e->x, X_UNPCKLQDQ, r, r, r);
    } else if (hi) {
        emit_const(e, t, hi);
        xinsert(&e->x, X3A(0x22), true, r, r, t, 1);
    }
    emit_release(e, t);
}

/* --- loops --- */

/* Bytes of the operation's result above which it is zero; 16: it may not be. */
static unsigned scalar_bytes(const struct ir *ir)
{
    switch (ir->op) {
    case IR_w_fadd: case IR_w_fsub: case IR_w_fmul: case IR_w_fdiv: case IR_w_fmla: case IR_w_fsqrt: case IR_w_fneg: case IR_w_fabs:
        return ir->k >> 2 ? 16 : 1u << shape_es(ir->k);
    case IR_load_w: return MAX(1u << (ir->k & MO_SIZE), 4);
    default: return 16;
    }
}

void emit_loop_vectors_in(struct emit *e)
{
    for (unsigned i = 0; i < e->loop.n; i++) {
        unsigned get = e->loop.w[i].get;
        if (e->loop.w[i].owed)
            e->need[get] = (uint8_t)MAX(e->need[get], scalar_bytes(op_of(e, e->loop.w[i].last)));
        e->loop_xmm[i] = (uint8_t)emit_xmm(e, get);
        e->loop_zext[i] = e->zext[get];
        if (e->loop.w[i].owed) { /* its home will not have it in later turns */
            e->gw_live[e->loop.w[i].reg]--;
            e->loc[get] = (struct loc){L_XMM, e->loop_xmm[i]};
            e->owed[e->loop.w[i].reg] = (uint16_t)get;
            e->owed_turn |= e->loop_zext[i] != 0;
        }
    }
}

/* Register d = s, zero above `zext' bytes (0: all of it). */
static void move_clipped(struct emit *e, unsigned d, unsigned s, unsigned zext)
{
    if (zext == 8) {
        xop2(&e->x, X_MOVQ, d, s);
    } else if (zext == 4) {
        xop3i(&e->x, X_INSERTPS, d, s, s, 0x0e);
    } else if (d != s) {
        x86_movdqa_rr(&e->x, d, s);
    }
}

/*
 * A parallel move: `from' says for each vector which register has it, XMMS: only its home.  A register that others still
 * come from is written last; where all are, one is saved in xmm0.
 */
void emit_loop_vectors_back(struct emit *e)
{
    const struct loop *loop = &e->loop;
    uint8_t from[LOOP_W], zext[LOOP_W];
    struct hmem memory[LOOP_W];
    unsigned todo = 0, scratch = 0;

    for (unsigned i = 0; i < loop->n; i++) {
        unsigned v = loop->w[i].last, z = e->zext[v];
        from[i] = e->xof[v] ? (uint8_t)(e->xof[v] - 1) : XMMS;
        if (from[i] == XMMS && !in_memory(e, v, &memory[i]))
            BUG_ON(!e->failed);
        zext[i] = e->loop_zext[i] && (!z || z > e->loop_zext[i]) ? e->loop_zext[i] : 0;
        e->failed |= loop->w[i].owed && zext[i]; /* scalar_bytes() was wrong: the home needs all of it */
        if (from[i] < XMMS && (from[i] != e->loop_xmm[i] || zext[i]))
            todo |= 1u << i;
    }
    while (todo) {
        unsigned next = LOOP_W;
        for (unsigned i = 0; i < loop->n && next == LOOP_W; i++) {
            bool wanted = false;
            for (unsigned k = 0; k < loop->n; k++)
                wanted |= k != i && todo >> k & 1 && from[k] == e->loop_xmm[i];
            if (todo >> i & 1 && !wanted)
                next = i;
        }
        if (next == LOOP_W) {
            next = (unsigned)__builtin_ctz(todo);
            x86_movdqa_rr(&e->x, scratch, e->loop_xmm[next]);
            for (unsigned k = 0; k < loop->n; k++)
                if (k != next && from[k] == e->loop_xmm[next])
                    from[k] = (uint8_t)scratch;
            scratch++;
        }
        move_clipped(e, e->loop_xmm[next], from[next], zext[next]);
        todo &= ~(1u << next);
    }
    for (unsigned i = 0; i < loop->n; i++)
        if (from[i] == XMMS)
            load_scalar(e, e->loop_xmm[i], memory[i], e->loop_zext[i]);
    emit_forget_owed(e);
    for (unsigned i = 0; i < loop->n; i++)
        emit_use(e, loop->w[i].last);
    for (unsigned i = 0; i < loop->n; i++) /* for what leaves instead of going back: there it is now */
        if (loop->w[i].owed) {
            e->owed[loop->w[i].reg] = loop->w[i].get;
            e->xof[loop->w[i].get] = (uint8_t)(e->loop_xmm[i] + 1);
        }
}

/* --- between the register files --- */

static bool const_value(const struct emit *e, unsigned id, uint64_t *v)
{
    const struct ir *ir = op_of(e, id);

    *v = ir->imm;
    return ir->op == IR_const;
}

static void w_of_vv(struct emit *e, const struct ir *ir)
{
    uint64_t lo, hi;
    bool c_lo = const_value(e, ir->a, &lo), c_hi = const_value(e, ir->b, &hi);
    unsigned d = emit_xmm_dest(e);

    if (c_lo && c_hi) {
        emit_xmm_const(e, d, lo, hi);
    } else {
        xop2w(&e->x, X66(0x6e), true, d, emit_reg(e, ir->a));
        if (!c_hi || hi)
            xinsert(&e->x, X3A(0x22), true, d, d, emit_reg(e, ir->b), 1);
    }
    emit_use_all(e, ir);
    emit_xmm_bind(e, e->at, d, c_hi && !hi ? 8 : 0);
}

/* Lane idx of a value in memory. */
static void lane_from_memory(struct emit *e, unsigned es, unsigned d, struct hmem m, unsigned idx)
{
    m.disp += (int32_t)(idx << es);
    switch (es) {
    case 0:
        x86_rm(&e->x, 0, false, 0x0fb6, d, m, false);
        break;
    case 1:
        x86_rm(&e->x, 0, false, 0x0fb7, d, m, false);
        break;
    default:
        x86_load(&e->x, es == 3, d, m);
        break;
    }
}

static void lane_from_xmm(struct emit *e, unsigned es, unsigned d, unsigned r, unsigned idx)
{
    static const uint16_t op[] = {X3A(0x14), X3A(0x15), X3A(0x16), X3A(0x16)};

    if (es >= 2 && !idx) {
        xop2w(&e->x, X66(0x7e), es == 3, r, d);
        return;
    }
    xop2w(&e->x, op[es], es == 3, r, d);
    x86_u8(&e->x, idx);
}

static void v_lane(struct emit *e, const struct ir *ir)
{
    static const uint16_t sext[] = {0x0fbe, 0x0fbf, 0x63};
    unsigned es = ir->k;
    struct hmem m;
    bool memory = !e->xof[ir->a] && in_memory(e, ir->a, &m);
    unsigned r = memory ? 0 : emit_xmm(e, ir->a), d = emit_dest(e, e->at);

    if (memory)
        lane_from_memory(e, es, d, m, ir->x);
    else
        lane_from_xmm(e, es, d, r, ir->x);
    if (ir->op == IR_v_lane_s && es < 3)
        x86_ext_rr(&e->x, true, sext[es], d, d);
    emit_use_all(e, ir);
    emit_bind(e, e->at, d);
}

static void w_insert(struct emit *e, const struct ir *ir)
{
    static const uint16_t op[] = {X3A(0x20), X66(0xc4), X3A(0x22), X3A(0x22)};
    unsigned a = emit_xmm(e, ir->a), d = emit_xmm_dest(e), r = emit_reg(e, ir->b);

    xinsert(&e->x, op[ir->k], ir->k == 3, d, a, r, ir->x);
    emit_use_all(e, ir);
    emit_xmm_bind(e, e->at, d, 0);
}

static unsigned shape_bytes(unsigned shape)
{
    return shape & SH_Q ? 16 : shape & SH_D ? 8 : 1u << shape_es(shape);
}

static void w_dup(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), d = emit_xmm_dest(e), r = emit_reg(e, ir->a);

    xop2w(&e->x, X66(0x6e), es == 3, d, r);
    if (es == 0) {
        xop3(&e->x, X_PXOR, 0, 0, 0);
        xop3(&e->x, X_PSHUFB, d, d, 0);
    } else if (es == 1) {
        xop2i(&e->x, XOP(PP_F2, MAP_0F, 0x70), d, d, 0);
        xop2i(&e->x, X_PSHUFD, d, d, 0);
    } else if (es == 2) {
        xop2i(&e->x, X_PSHUFD, d, d, 0);
    } else {
        xop3(&e->x, X_UNPCKLQDQ, d, d, d);
    }
    emit_xmm_clip(e, d, shape_bytes(ir->k));
    emit_use_all(e, ir);
    emit_xmm_bind(e, e->at, d, shape_bytes(ir->k));
}

static void w_dup_lane(struct emit *e, const struct ir *ir)
{
    unsigned es = shape_es(ir->k), bytes = shape_bytes(ir->k), idx = ir->x;
    unsigned a = emit_xmm(e, ir->a), d = emit_xmm_dest(e);

    if (bytes == 8 && es == 3 && !idx) {
        xop2(&e->x, X_MOVQ, d, a);
    } else if (es == 3) {
        xop3(&e->x, idx ? X_UNPCKHQDQ : X_UNPCKLQDQ, d, a, a);
        emit_xmm_clip(e, d, bytes);
    } else if (es == 2 && bytes == 4) {
        xop3i(&e->x, X_INSERTPS, d, a, a, idx << 6 | 0x0e);
    } else if (es == 2) {
        xop2i(&e->x, X_PSHUFD, d, a, idx * 0x55);
        emit_xmm_clip(e, d, bytes);
    } else {
        uint64_t lane = es ? (idx * 2 + 1) << 8 | idx * 2 : idx;
        uint64_t all = lane * (es ? 0x0001000100010001u : 0x0101010101010101u);
        uint64_t none = UINT64_C(0x8080808080808080),
                 keep = bytes >= 8 ? UINT64_MAX : (UINT64_C(1) << 8 * bytes) - 1;
        emit_xmm_const(e, 0, (all & keep) | (none & ~keep), bytes == 16 ? all : none);
        xop3(&e->x, X_PSHUFB, d, a, 0);
    }
    emit_use_all(e, ir);
    emit_xmm_bind(e, e->at, d, bytes);
}

/* --- dispatch --- */

bool emit_is_vector(unsigned op)
{
    return op == IR_set_w || op == IR_w_of_vv || op == IR_v_lane || op == IR_v_lane_s || op == IR_w_insert ||
           op == IR_w_dup || op == IR_w_dup_lane || op == IR_f_fcmp || ir_info[op].result == IR_W;
}

void emit_vector(struct emit *e, const struct ir *ir)
{
    switch (ir->op) {
    case IR_set_w:
        emit_set_w(e, ir);
        break;
    case IR_w_of_vv:
        w_of_vv(e, ir);
        break;
    case IR_v_lane:
    case IR_v_lane_s:
        v_lane(e, ir);
        break;
    case IR_w_insert:
        w_insert(e, ir);
        break;
    case IR_w_dup:
        w_dup(e, ir);
        break;
    case IR_w_dup_lane:
        w_dup_lane(e, ir);
        break;
    case IR_f_fcmp:
        if (!emit_fcmp(e, ir))
            emit_generic(e, ir);
        break;
    default:
        if (!emit_simd(e, ir) && !emit_fp(e, ir))
            emit_generic(e, ir);
    }
}

/* The operation over again in C: operands are in c->x. */
void emit_vector_cold(struct emit *e, struct cold *c)
{
    const struct ir *ir = op_of(e, c->id);

    for (unsigned i = 0; i < ir_operands(ir->op); i++)
        x86_movdqu_store(&e->x, HOT(HOT_A + 2 * i), c->x[i]);
    emit_c_op(e, ir, c->insn, c->off, true);
    if (c->xd & XD_GENERAL)
        x86_load(&e->x, true, c->xd & 15u, HOT(HOT_R));
    else
        x86_movdqu_load(&e->x, c->xd, HOT(HOT_R));
    x86_jmp_to(&e->x, c->back);
}
