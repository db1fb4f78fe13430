/*
 * The translator's front end: the instruction bodies with V, W and F as values of the IR.
 *
 * What is known at translation time disappears here: fields and mode by the C `if' of the bodies, operations
 * on constants by isa/ops.def.  Nothing else is optimised: that is for passes over the finished block.
 *
 * No state beside the block.
 */
#include "jit/ir.h"

#include <string.h>

#include "base/report.h"
#include "cpu/helpers.h"
#include "cpu/ops.h"
#include "cpu/vec.h"

typedef struct { uint16_t id; } V;
typedef struct { uint16_t id; } W;
typedef struct { uint16_t id; } F;
#define CTX struct ir_block

static struct ir *put(CTX *c, enum ir_opcode op, unsigned k, unsigned a, unsigned b)
{
    struct ir *ir = &c->ir[c->n];

    BUG_ON(c->n >= IR_MAX);
    *ir = (struct ir){.op = (uint16_t)op, .k = (uint8_t)k, .a = (uint16_t)a, .b = (uint16_t)b};
    c->n++;
    return ir;
}

static uint16_t last(const CTX *c)
{
    return (uint16_t)(c->n - 1);
}

static uint16_t put_id(CTX *c, enum ir_opcode op, unsigned k, unsigned a, unsigned b)
{
    put(c, op, k, a, b);
    return last(c);
}

static uint16_t put_imm(CTX *c, enum ir_opcode op, unsigned k, unsigned a, uint64_t imm)
{
    put(c, op, k, a, 0)->imm = imm;
    return last(c);
}

static uint16_t put3(CTX *c, enum ir_opcode op, unsigned k, unsigned a, unsigned b, unsigned d)
{
    put(c, op, k, a, b)->c = (uint16_t)d;
    return last(c);
}

/* The last operation of the block. */
static struct ir *put_end(CTX *c, enum ir_opcode op, unsigned k, unsigned a)
{
    c->ended = true;
    return put(c, op, k, a, 0);
}

/* Side exits and followed jumps of a trace, at most. */
enum { TRACE_SIDES = 8, TRACE_JUMPS = 4, TRACE_FROM = 20 };

/* Of the current instruction, from the block's start. */
static uint64_t here(const CTX *c)
{
    return (uint64_t)(int64_t)c->here;
}

/* values */

static bool is_const(const CTX *c, V v, uint64_t *n)
{
    *n = c->ir[v.id].imm;
    return c->ir[v.id].op == IR_const;
}

static V v_const(CTX *c, uint64_t n) { return (V){put_imm(c, IR_const, 0, 0, n)}; }
static V v_pc(CTX *c, int64_t off) { return (V){put_imm(c, IR_pc, 0, 0, here(c) + (uint64_t)off)}; }
static V get_x(CTX *c, unsigned n) { return (V){put_id(c, IR_get_x, n, 0, 0)}; }
static void set_x(CTX *c, unsigned n, V v) { put(c, IR_set_x, n, v.id, 0); }

static V v_ext(CTX *c, enum ext kind, V v)
{
    uint64_t n;

    return is_const(c, v, &n) ? v_const(c, value_ext(kind, n)) : (V){put_id(c, IR_ext, kind, v.id, 0)};
}

#define OP2(name, expr, commutes)                                                                           \
    static UNUSED V v_##name(CTX *c, bool sf, V a, V b)                                                     \
    {                                                                                                       \
        uint64_t x, y;                                                                                      \
        if (is_const(c, a, &x) && is_const(c, b, &y))                                                       \
            return v_const(c, value_##name(sf, x, y));                                                      \
        return (V){put_id(c, IR_##name, sf, a.id, b.id)};                                                   \
    }
#define OP1(name, expr)                                                                                     \
    static UNUSED V v_##name(CTX *c, bool sf, V a)                                                          \
    {                                                                                                       \
        uint64_t x;                                                                                         \
        if (is_const(c, a, &x))                                                                             \
            return v_const(c, value_##name(sf, x));                                                         \
        return (V){put_id(c, IR_##name, sf, a.id, 0)};                                                      \
    }
#include "isa/ops.def"
#undef OP1
#undef OP2

static V v_extr(CTX *c, bool sf, V hi, V lo, unsigned lsb)
{
    uint64_t x, y;

    if (is_const(c, hi, &x) && is_const(c, lo, &y))
        return v_const(c, value_extr(sf, x, y, lsb));
    put(c, IR_extr, sf, hi.id, lo.id)->x = (uint8_t)lsb;
    return (V){last(c)};
}
static V v_adc(CTX *c, bool sf, V a, V b, F f) { return (V){put3(c, IR_adc, sf, a.id, b.id, f.id)}; }
static V v_sbc(CTX *c, bool sf, V a, V b, F f) { return (V){put3(c, IR_sbc, sf, a.id, b.id, f.id)}; }
static V v_select(CTX *c, V q, V a, V b)
{
    uint64_t n;

    return is_const(c, q, &n) ? n ? a : b : (V){put3(c, IR_select, 0, q.id, a.id, b.id)};
}

/* flags */

static F get_f(CTX *c) { return (F){put_id(c, IR_get_f, 0, 0, 0)}; }
static void set_f(CTX *c, F f) { put(c, IR_set_f, 0, f.id, 0); }
static V v_cond(CTX *c, unsigned cc, F f)
{
    return cc >= 14 ? v_const(c, 1) : (V){put_id(c, IR_cond, cc, f.id, 0)};
}
static F f_add(CTX *c, bool sf, V a, V b) { return (F){put_id(c, IR_f_add, sf, a.id, b.id)}; }
static F f_sub(CTX *c, bool sf, V a, V b) { return (F){put_id(c, IR_f_sub, sf, a.id, b.id)}; }
static F f_adc(CTX *c, bool sf, V a, V b, F f) { return (F){put3(c, IR_f_adc, sf, a.id, b.id, f.id)}; }
static F f_sbc(CTX *c, bool sf, V a, V b, F f) { return (F){put3(c, IR_f_sbc, sf, a.id, b.id, f.id)}; }
static F f_logic(CTX *c, bool sf, V r) { return (F){put_id(c, IR_f_logic, sf, r.id, 0)}; }
static F f_const(CTX *c, uint32_t nzcv) { return (F){put_imm(c, IR_f_const, 0, 0, nzcv)}; }
static F f_select(CTX *c, V q, F a, F b)
{
    uint64_t n;

    return is_const(c, q, &n) ? n ? a : b : (F){put3(c, IR_f_select, 0, q.id, a.id, b.id)};
}
static V v_of_f(CTX *c, F f) { return (V){put_id(c, IR_v_of_f, 0, f.id, 0)}; }
static F f_of_v(CTX *c, V v) { return (F){put_id(c, IR_f_of_v, 0, v.id, 0)}; }

/* vectors */

static W get_w(CTX *c, unsigned n) { return (W){put_id(c, IR_get_w, n, 0, 0)}; }
static void set_w(CTX *c, unsigned n, W w) { put(c, IR_set_w, n, w.id, 0); }
static UNUSED W w_of_vv(CTX *c, V lo, V hi) { return (W){put_id(c, IR_w_of_vv, 0, lo.id, hi.id)}; }
static UNUSED W w_of_v(CTX *c, V lo) { return w_of_vv(c, lo, v_const(c, 0)); }
static UNUSED W w_const(CTX *c, uint64_t lo, uint64_t hi)
{
    V low = v_const(c, lo);

    return w_of_vv(c, low, v_const(c, hi));
}
static UNUSED W w_zero(CTX *c) { return w_const(c, 0, 0); }
static UNUSED V v_lane(CTX *c, unsigned es, W w, unsigned idx)
{
    put(c, IR_v_lane, es, w.id, 0)->x = (uint8_t)idx;
    return (V){last(c)};
}
static UNUSED V v_lane_s(CTX *c, unsigned es, W w, unsigned idx)
{
    put(c, IR_v_lane_s, es, w.id, 0)->x = (uint8_t)idx;
    return (V){last(c)};
}
static UNUSED W w_insert(CTX *c, unsigned es, W w, unsigned idx, V v)
{
    put(c, IR_w_insert, es, w.id, v.id)->x = (uint8_t)idx;
    return (W){last(c)};
}
static UNUSED W w_dup(CTX *c, unsigned shape, V v) { return (W){put_id(c, IR_w_dup, shape, v.id, 0)}; }
static UNUSED W w_dup_lane(CTX *c, unsigned shape, W w, unsigned idx)
{
    put(c, IR_w_dup_lane, shape, w.id, 0)->x = (uint8_t)idx;
    return (W){last(c)};
}

static W put_wop(CTX *c, enum ir_opcode op, unsigned shape, unsigned a, unsigned b, unsigned d, unsigned imm)
{
    struct ir *ir = put(c, op, shape, a, b);

    BUG_ON(imm > UINT16_MAX);
    ir->c = (uint16_t)d;
    ir->imm16 = (uint16_t)imm;
    return (W){last(c)};
}
#define WOP1(name, effects)                                                                                 \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a) { return put_wop(c, IR_w_##name, shape, a.id, 0, 0, 0); }
#define WOP2(name, effects)                                                                                 \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a, W b)                                              \
    {                                                                                                       \
        return put_wop(c, IR_w_##name, shape, a.id, b.id, 0, 0);                                            \
    }
#define WOP3(name, effects)                                                                                 \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a, W b, W d)                                         \
    {                                                                                                       \
        return put_wop(c, IR_w_##name, shape, a.id, b.id, d.id, 0);                                         \
    }
#define WOPI1(name, effects)                                                                                \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a, unsigned imm)                                     \
    {                                                                                                       \
        return put_wop(c, IR_w_##name, shape, a.id, 0, 0, imm);                                             \
    }
#define WOPI2(name, effects)                                                                                \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a, W b, unsigned imm)                                \
    {                                                                                                       \
        return put_wop(c, IR_w_##name, shape, a.id, b.id, 0, imm);                                          \
    }
#define WOPI3(name, effects)                                                                                \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a, W b, W d, unsigned imm)                           \
    {                                                                                                       \
        return put_wop(c, IR_w_##name, shape, a.id, b.id, d.id, imm);                                       \
    }
#include "isa/wops.def"
#undef WOP1
#undef WOP2
#undef WOP3
#undef WOPI1
#undef WOPI2
#undef WOPI3

static UNUSED F f_fcmp(CTX *c, unsigned es, W a, W b, bool signalling)
{
    put(c, IR_f_fcmp, es, a.id, b.id)->x = signalling;
    return (F){last(c)};
}

/* memory: what faults leaves the block, so that the lifted body always goes on */

static bool load(CTX *c, unsigned mop, V addr, V *out)
{
    out->id = put_id(c, IR_load, mop, addr.id, 0);
    return true;
}
static bool store(CTX *c, unsigned mop, V addr, V v)
{
    put(c, IR_store, mop, addr.id, v.id);
    return true;
}
static bool load_pair(CTX *c, unsigned mop, V addr, V *a, V *b)
{
    a->id = put_id(c, IR_load_pair, mop, addr.id, 0);
    b->id = put_id(c, IR_second, 0, a->id, 0);
    return true;
}
static bool store_pair(CTX *c, unsigned mop, V addr, V a, V b)
{
    put3(c, IR_store_pair, mop, addr.id, a.id, b.id);
    return true;
}
static UNUSED bool load_w(CTX *c, unsigned mop, V addr, W *out)
{
    put(c, IR_load_w, mop, addr.id, 0)->x = (uint8_t)(mop >> 8);
    out->id = last(c);
    return true;
}
static UNUSED bool store_w(CTX *c, unsigned mop, V addr, W w)
{
    put(c, IR_store_w, mop, addr.id, w.id)->x = (uint8_t)(mop >> 8);
    return true;
}
static UNUSED bool load_pair_w(CTX *c, unsigned mop, V addr, W *a, W *b)
{
    a->id = put_id(c, IR_load_pair_w, mop, addr.id, 0);
    b->id = put_id(c, IR_second_w, 0, a->id, 0);
    return true;
}
static UNUSED bool store_pair_w(CTX *c, unsigned mop, V addr, W a, W b)
{
    put3(c, IR_store_pair_w, mop, addr.id, a.id, b.id);
    return true;
}
static bool load_ex(CTX *c, unsigned mop, V addr, V *out)
{
    out->id = put_id(c, IR_load_ex, mop, addr.id, 0);
    return true;
}
static bool store_ex(CTX *c, unsigned mop, V addr, V v, V *status)
{
    status->id = put_id(c, IR_store_ex, mop, addr.id, v.id);
    return true;
}
static bool load_ex_pair(CTX *c, unsigned mop, V addr, V *a, V *b)
{
    a->id = put_id(c, IR_load_ex_pair, mop, addr.id, 0);
    b->id = put_id(c, IR_second, 0, a->id, 0);
    return true;
}
static bool store_ex_pair(CTX *c, unsigned mop, V addr, V a, V b, V *status)
{
    status->id = put3(c, IR_store_ex_pair, mop, addr.id, a.id, b.id);
    return true;
}
static void clear_ex(CTX *c) { put(c, IR_clear_ex, 0, 0, 0); }
static bool atomic_rmw(CTX *c, enum rmw op, unsigned mop, V addr, V operand, V *old)
{
    put(c, IR_atomic_rmw, mop, addr.id, operand.id)->x = (uint8_t)op;
    old->id = last(c);
    return true;
}
static bool atomic_cas(CTX *c, unsigned mop, V addr, V expect, V desired, V *old)
{
    old->id = put3(c, IR_atomic_cas, mop, addr.id, expect.id, desired.id);
    return true;
}
static bool atomic_casp(CTX *c, unsigned mop, V addr, V elo, V ehi, V dlo, V dhi, V *olo, V *ohi)
{
    struct ir *ir = put(c, IR_atomic_casp, mop, addr.id, elo.id);

    ir->c = ehi.id;
    ir->d = dlo.id;
    ir->e = dhi.id;
    olo->id = last(c);
    ohi->id = put_id(c, IR_second, 0, olo->id, 0);
    return true;
}
static bool sp_check(CTX *c)
{
    if (c->mode.sp_check)
        put(c, IR_sp_check, 0, 0, 0);
    return true;
}
static void barrier(CTX *c, enum barrier kind) { put(c, IR_barrier, kind, 0, 0); }

/* control */

/* AArch64.BranchAddr() with the TBI bits of the mode. */
static V branch_target(CTX *c, V v)
{
    V upper, tagless;

    if (!c->mode.tbi)
        return v;
    tagless = v_sar(c, true, v_shl(c, true, v, v_const(c, 8)), v_const(c, 8));
    if (c->mode.tbi == 3)
        return tagless;
    upper = v_and(c, true, v, v_const(c, BIT(55)));
    return c->mode.tbi == 2 ? v_select(c, upper, tagless, v) : v_select(c, upper, v, tagless);
}

static void branch(CTX *c, V target, enum branch_kind kind)
{
    V to = branch_target(c, target);

    put_end(c, IR_branch, 0, to.id)->x = (uint8_t)kind;
}
/* May a trace take in the instruction at this offset? */
static bool may_go_on(const CTX *c, int64_t off)
{
    int64_t at = off + c->first;

    return c->trace && at >= 0 && at < MEM_PAGE_SIZE && !(c->seen[at / 256] >> at / 4 % 64 & 1);
}

/* A trace goes on at a smaller address: one look at interrupts in a trace is enough. */
static void poll(CTX *c, int64_t off)
{
    if (!c->polled)
        put_imm(c, IR_poll, 0, 0, here(c) + (uint64_t)off);
    c->polled = true;
}

static void branch_rel(CTX *c, int64_t off, enum branch_kind kind)
{
    if (kind == BR_JUMP && c->jumps < TRACE_JUMPS && may_go_on(c, c->here + off)) {
        c->jumps++;
        c->next = (int32_t)(c->here + off);
        if (off < 0)
            poll(c, off);
        return;
    }
    struct ir *ir = put_end(c, IR_branch_rel, 0, 0);

    ir->x = (uint8_t)kind;
    ir->imm = here(c) + (uint64_t)off;
}
/* Is the next instruction another conditional branch on the flags?  Then this one is of a tree of comparisons. */
static bool in_tree(const CTX *c)
{
    uint32_t word = 0;
    int64_t at = (int64_t)c->next + c->first;

    if (c->page && at >= 0 && at < MEM_PAGE_SIZE)
        word = ir_page_word(c->page, (unsigned)at);
    return word >> 24 == 0x54;
}

/*
 * Forwards a trace goes on behind the branch, backwards at its target; but where it leads to the trace's start, that is a
 * loop, and it ends.
 */
static void branch_if(CTX *c, V cond, int64_t off)
{
    bool loop = c->trace && c->here + off == 0 && (off < 0 || !in_tree(c));
    bool home = c->trace && !c->next; /* not taken, it leads to the trace's start: the next instruction is not taken in, and that is the end */

    if (!loop && off > 0 && c->sides < TRACE_SIDES && (home || may_go_on(c, c->next))) {
        c->sides++;
        put_imm(c, IR_side, 0, cond.id, here(c) + (uint64_t)off);
        return;
    }
    if (!loop && off < 0 && c->insns < TRACE_FROM && c->sides < TRACE_SIDES && c->jumps < TRACE_JUMPS &&
        may_go_on(c, c->here + off)) {
        c->sides++;
        c->jumps++;
        put_imm(c, IR_side, 0, cond.id, here(c) + 4);
        c->ir[last(c)].x = 1;
        c->next = (int32_t)(c->here + off);
        poll(c, off);
        return;
    }
    struct ir *ir = put_end(c, IR_branch_if, 0, cond.id);

    ir->b = (uint16_t)(here(c) + 4);
    ir->imm = here(c) + (uint64_t)off;
}
static void end_block(CTX *c) { put_end(c, IR_leave, 0, 0)->imm = here(c) + 4; }
static void undefined(CTX *c) { put_end(c, IR_undefined, 0, 0); }
static void exception(CTX *c, enum exc_class ec, uint32_t iss, bool next)
{
    struct ir *ir = put_end(c, IR_exception, ec, 0);

    ir->x = next;
    ir->imm = iss;
}
static unsigned mode_el(CTX *c) { return c->mode.el; }
static UNUSED bool mode_has(CTX *c, enum a64_feature feature)
{
    return c->mode.features[feature / 64] >> feature % 64 & 1;
}
static bool fp_check(CTX *c)
{
    if (!c->mode.fp_enabled)
        put_end(c, IR_fp_trap, 0, 0);
    return c->mode.fp_enabled;
}

/* helpers */

static uint16_t put_helper(CTX *c, enum ir_opcode op, unsigned a, unsigned b, unsigned d, unsigned g)
{
    struct ir *ir = put(c, op, 0, a, b);

    ir->c = (uint16_t)d;
    ir->d = (uint16_t)g;
    return last(c);
}
#define HELPER0(name, effects)                                                                              \
    static UNUSED V h_##name(CTX *c) { return (V){put_helper(c, IR_h_##name, 0, 0, 0, 0)}; }
#define HELPER1(name, effects)                                                                              \
    static UNUSED V h_##name(CTX *c, V a) { return (V){put_helper(c, IR_h_##name, a.id, 0, 0, 0)}; }
#define HELPER2(name, effects)                                                                              \
    static UNUSED V h_##name(CTX *c, V a, V b) { return (V){put_helper(c, IR_h_##name, a.id, b.id, 0, 0)}; }
#define HELPER3(name, effects)                                                                              \
    static UNUSED V h_##name(CTX *c, V a, V b, V d) { return (V){put_helper(c, IR_h_##name, a.id, b.id, d.id, 0)}; }
#define HELPER4(name, effects)                                                                              \
    static UNUSED V h_##name(CTX *c, V a, V b, V d, V g)                                                    \
    {                                                                                                       \
        return (V){put_helper(c, IR_h_##name, a.id, b.id, d.id, g.id)};                                     \
    }
#define HELPERF0(name, effects)                                                                             \
    static UNUSED bool h_##name(CTX *c, V *out) { return out->id = put_helper(c, IR_h_##name, 0, 0, 0, 0), true; }
#define HELPERF1(name, effects)                                                                             \
    static UNUSED bool h_##name(CTX *c, V a, V *out)                                                        \
    {                                                                                                       \
        return out->id = put_helper(c, IR_h_##name, a.id, 0, 0, 0), true;                                   \
    }
#define HELPERF2(name, effects)                                                                             \
    static UNUSED bool h_##name(CTX *c, V a, V b, V *out)                                                   \
    {                                                                                                       \
        return out->id = put_helper(c, IR_h_##name, a.id, b.id, 0, 0), true;                                \
    }
#define HELPERF3(name, effects)                                                                             \
    static UNUSED bool h_##name(CTX *c, V a, V b, V d, V *out)                                              \
    {                                                                                                       \
        return out->id = put_helper(c, IR_h_##name, a.id, b.id, d.id, 0), true;                             \
    }
#define HELPERF4(name, effects)                                                                             \
    static UNUSED bool h_##name(CTX *c, V a, V b, V d, V g, V *out)                                         \
    {                                                                                                       \
        return out->id = put_helper(c, IR_h_##name, a.id, b.id, d.id, g.id), true;                          \
    }
#include "isa/helpers.def"
#undef HELPER0
#undef HELPER1
#undef HELPER2
#undef HELPER3
#undef HELPER4
#undef HELPERF0
#undef HELPERF1
#undef HELPERF2
#undef HELPERF3
#undef HELPERF4

#include "cpu/sem.c.inc"

/* blocks */

struct ir_mode ir_mode_of(const struct cpu *cpu)
{
    uint64_t sctlr = cpu->sys.sctlr_el1;
    struct ir_mode mode = {
        .el = cpu->el,
        .fp_enabled = cpu->fp_enabled,
        .sp_check = (sctlr & (cpu->el ? SCTLR_SA : SCTLR_SA0)) != 0,
        .tbi = cpu->sys.tcr_el1 >> 37 & 3,
    };

    memcpy(mode.features, cpu->features, sizeof mode.features);
    return mode;
}

void ir_begin(struct ir_block *block, const struct ir_mode *mode)
{
    block->mode = *mode;
    block->n = 0;
    block->insns = 0;
    block->ended = block->trace = block->polled = false;
    block->here = block->next = 0;
    block->first = 0;
    block->page = NULL;
    put(block, IR_none, 0, 0, 0);
}

void ir_begin_trace(struct ir_block *block, const struct ir_mode *mode, unsigned first)
{
    ir_begin(block, mode);
    block->trace = true;
    block->first = (uint16_t)first;
    block->sides = block->jumps = 0;
    memset(block->seen, 0, sizeof block->seen);
}

/* Notes the instruction at block->next as taken in. */
static void step(struct ir_block *block)
{
    unsigned at = (unsigned)(block->next + block->first);

    if (block->trace)
        block->seen[at / 256] |= UINT64_C(1) << at / 4 % 64;
    block->here = block->next;
    block->next += 4;
    block->insns++;
}

bool ir_lift(struct ir_block *block, uint32_t word)
{
    struct a64_insn insn;

    if (block->ended || block->n + IR_MAX_PER_INSN > IR_MAX || (block->trace && !may_go_on(block, block->next)))
        return false;
    step(block);
    if (a64_decode(word, &insn) && a64_available(insn.op, block->mode.features) && sem_table[insn.op]) {
        put_imm(block, IR_insn, a64_info[insn.op].group, 0, here(block));
        sem_table[insn.op](block, &insn.u);
    } else {
        put_imm(block, IR_insn, A64_GROUP_none, 0, here(block));
        undefined(block);
    }
    return true;
}

void ir_end(struct ir_block *block)
{
    if (!block->ended)
        put_end(block, IR_exit, 0, 0)->imm = (uint64_t)(int64_t)block->next;
}
