/*
 * Runs lifted code on a struct cpu, operation by operation, through the interpreter's own functions on state
 * and memory (cpu/prim.h): what the tests compare the interpreter with.  Slow on purpose: no operation is
 * merged or skipped.
 *
 * On the vCPU's thread.
 */
#include "jit/ir.h"

#include <string.h>

#include "base/report.h"
#include "cpu/debug.h"
#include "cpu/fp.h"
#include "cpu/helpers.h"
#include "cpu/ops.h"
#include "cpu/prim.h"
#include "cpu/vec.h"

struct value {
    union vreg w;    /* d[0]: V or F */
    union vreg w2;   /* second results */
};

struct eval {
    struct cpu *cpu;
    const struct ir_block *block;
    uint64_t base; /* pc of the block */
    bool done;
    struct value value[IR_MAX];
};

static uint64_t val(const struct eval *e, unsigned id)
{
    return e->value[id].w.d[0];
}

static const union vreg *vec(const struct eval *e, unsigned id)
{
    return &e->value[id].w;
}

static void go(struct eval *e, uint64_t pc)
{
    e->cpu->next_pc = pc;
    e->done = true;
}

static void begin_insn(struct eval *e, uint64_t off)
{
    struct cpu *cpu = e->cpu;

    if (off)
        cpu->icount++;
    cpu->pc = e->base + off;
    cpu->next_pc = cpu->pc + 4;
    cpu->leave = 0;
}

static bool eval_state(struct eval *e, const struct ir *ir, struct value *r)
{
    struct cpu *cpu = e->cpu;

    switch (ir->op) {
    case IR_none: break;
    case IR_insn: begin_insn(e, ir->imm); break;
    case IR_second:
    case IR_second_w: r->w = e->value[ir->a].w2; break;
    case IR_const:
    case IR_f_const: r->w.d[0] = ir->imm; break;
    case IR_pc: r->w.d[0] = e->base + ir->imm; break;
    case IR_get_x: r->w.d[0] = cpu->x[ir->k]; break;
    case IR_set_x: cpu->x[ir->k] = val(e, ir->a); break;
    case IR_get_f: r->w.d[0] = cpu->nzcv; break;
    case IR_set_f: cpu->nzcv = (uint32_t)val(e, ir->a); break;
    case IR_get_w: r->w = cpu->v[ir->k]; break;
    case IR_set_w: cpu->v[ir->k] = *vec(e, ir->a); break;
    default: return false;
    }
    return true;
}

static bool eval_value(struct eval *e, const struct ir *ir, uint64_t *r)
{
    uint64_t a = val(e, ir->a), b = val(e, ir->b);
    bool sf = ir->k;

    switch (ir->op) {
#define OP1(name, expr) case IR_##name: *r = value_##name(sf, a); break;
#define OP2(name, expr, commutes) case IR_##name: *r = value_##name(sf, a, b); break;
#include "isa/ops.def"
#undef OP1
#undef OP2
    case IR_ext: *r = value_ext(ir->k, a); break;
    case IR_extr: *r = value_extr(sf, a, b, ir->x); break;
    case IR_adc: *r = value_adc(sf, a, b, (uint32_t)val(e, ir->c)); break;
    case IR_sbc: *r = value_adc(sf, a, ~b, (uint32_t)val(e, ir->c)); break;
    case IR_select:
    case IR_f_select: *r = a ? b : val(e, ir->c); break;
    case IR_cond: *r = flags_cond(ir->k, (uint32_t)a); break;
    case IR_f_add: *r = flags_add(sf, a, b); break;
    case IR_f_sub: *r = flags_sub(sf, a, b); break;
    case IR_f_adc: *r = flags_adc(sf, a, b, flags_carry((uint32_t)val(e, ir->c))); break;
    case IR_f_sbc: *r = flags_adc(sf, a, ~b, flags_carry((uint32_t)val(e, ir->c))); break;
    case IR_f_logic: *r = flags_logic(sf, a); break;
    case IR_v_of_f: *r = a; break;
    case IR_f_of_v: *r = a & 0xf0000000; break;
    default: return false;
    }
    return true;
}

static bool eval_vector(struct eval *e, const struct ir *ir, struct value *r)
{
    const union vreg *a = vec(e, ir->a), *b = vec(e, ir->b);

    switch (ir->op) {
    case IR_f_fcmp: r->w.d[0] = fp_compare(&e->cpu->fp, ir->k, a->d[0], b->d[0], ir->x); break;
    case IR_w_of_vv: r->w.d[0] = a->d[0], r->w.d[1] = b->d[0]; break;
    case IR_v_lane: r->w.d[0] = lane_get(ir->k, a, ir->x); break;
    case IR_v_lane_s: r->w.d[0] = (uint64_t)bits_sext(lane_get(ir->k, a, ir->x), 8u << ir->k); break;
    case IR_w_insert:
        r->w = *a;
        lane_set(ir->k, &r->w, ir->x, b->d[0]);
        break;
    case IR_w_dup: lanes_dup(ir->k, &r->w, a->d[0]); break;
    case IR_w_dup_lane: lanes_dup(ir->k, &r->w, lane_get(shape_es(ir->k), a, ir->x)); break;
#define WOP(name) case IR_w_##name: vec_##name(e->cpu, ir->k, &r->w, a, b, vec(e, ir->c), ir->imm16); break;
#define WOP1(name, effects) WOP(name)
#define WOP2(name, effects) WOP(name)
#define WOP3(name, effects) WOP(name)
#define WOPI1(name, effects) WOP(name)
#define WOPI2(name, effects) WOP(name)
#define WOPI3(name, effects) WOP(name)
#include "isa/wops.def"
    default: return false;
    }
    return true;
}

static bool casp(struct eval *e, const struct ir *ir, struct value *r)
{
    const uint64_t expect[2] = {val(e, ir->b), val(e, ir->c)}, desired[2] = {val(e, ir->d), val(e, ir->e)};
    uint64_t old[2];
    bool ok = prim_atomic_casp(e->cpu, ir->k, val(e, ir->a), expect, desired, old);

    if (ok)
        r->w.d[0] = old[0], r->w2.d[0] = old[1];
    return ok;
}

/* *ok: no exception was taken. */
static bool eval_memory(struct eval *e, const struct ir *ir, struct value *r, bool *ok)
{
    struct cpu *cpu = e->cpu;
    uint64_t va = val(e, ir->a), b = val(e, ir->b), *out = &r->w.d[0], *out2 = &r->w2.d[0];
    unsigned mop = ir_mop(ir);

    switch (ir->op) {
    case IR_load: *ok = prim_load(cpu, mop, va, out); break;
    case IR_store: *ok = prim_store(cpu, mop, va, b); break;
    case IR_load_pair: *ok = prim_load_pair(cpu, mop, va, out, out2); break;
    case IR_store_pair: *ok = prim_store_pair(cpu, mop, va, b, val(e, ir->c)); break;
    case IR_load_w: *ok = prim_load_w(cpu, mop, va, &r->w); break;
    case IR_store_w: *ok = prim_store_w(cpu, mop, va, vec(e, ir->b)); break;
    case IR_load_pair_w: *ok = prim_load_pair_w(cpu, mop, va, &r->w, &r->w2); break;
    case IR_store_pair_w: *ok = prim_store_pair_w(cpu, mop, va, vec(e, ir->b), vec(e, ir->c)); break;
    case IR_load_ex: *ok = prim_load_ex(cpu, mop, va, out); break;
    case IR_load_ex_pair: *ok = prim_load_ex_pair(cpu, mop, va, out, out2); break;
    case IR_store_ex: *ok = prim_store_ex(cpu, mop, va, b, out); break;
    case IR_store_ex_pair: *ok = prim_store_ex_pair(cpu, mop, va, b, val(e, ir->c), out); break;
    case IR_clear_ex: prim_clear_ex(cpu); break;
    case IR_atomic_rmw: *ok = prim_atomic_rmw(cpu, ir->x, mop, va, b, out); break;
    case IR_atomic_cas: *ok = prim_atomic_cas(cpu, mop, va, b, val(e, ir->c), out); break;
    case IR_atomic_casp: *ok = casp(e, ir, r); break;
    case IR_barrier: prim_barrier(cpu, ir->k); break;
    case IR_sp_check: *ok = prim_sp_check(cpu); break;
    default: return false;
    }
    return true;
}

static bool eval_control(struct eval *e, const struct ir *ir)
{
    struct cpu *cpu = e->cpu;

    switch (ir->op) {
    case IR_exit: go(e, e->base + ir->imm); break;
    case IR_branch: go(e, val(e, ir->a)); break;
    case IR_branch_rel: go(e, prim_branch_addr(cpu, e->base + ir->imm)); break;
    case IR_branch_if:
        go(e, val(e, ir->a) ? prim_branch_addr(cpu, e->base + ir->imm) : e->base + (uint64_t)(int16_t)ir->b);
        break;
    case IR_side:
        if ((val(e, ir->a) == 0) == ir->x)
            go(e, prim_branch_addr(cpu, e->base + ir->imm));
        break;
    case IR_poll: break;
    case IR_leave: e->done = true; break; /* next_pc stands */
    case IR_undefined: prim_undefined(cpu); break;
    case IR_fp_trap: prim_fp_trap(cpu); break;
    case IR_exception: prim_exception(cpu, ir->k, (uint32_t)ir->imm, ir->x); break;
    default: return false;
    }
    return true;
}

static bool eval_helper(struct eval *e, const struct ir *ir, uint64_t *out, bool *ok)
{
    struct cpu *cpu = e->cpu;
    uint64_t a = val(e, ir->a), b = val(e, ir->b), c = val(e, ir->c), d = val(e, ir->d);

    (void)d;
    switch (ir->op) {
#define HELPER0(name, effects) case IR_h_##name: *out = helper_##name(cpu); break;
#define HELPER1(name, effects) case IR_h_##name: *out = helper_##name(cpu, a); break;
#define HELPER2(name, effects) case IR_h_##name: *out = helper_##name(cpu, a, b); break;
#define HELPER3(name, effects) case IR_h_##name: *out = helper_##name(cpu, a, b, c); break;
#define HELPER4(name, effects) case IR_h_##name: *out = helper_##name(cpu, a, b, c, d); break;
#define HELPERF0(name, effects) case IR_h_##name: *ok = prim_done(cpu, helper_##name(cpu, out)); break;
#define HELPERF1(name, effects) case IR_h_##name: *ok = prim_done(cpu, helper_##name(cpu, a, out)); break;
#define HELPERF2(name, effects) case IR_h_##name: *ok = prim_done(cpu, helper_##name(cpu, a, b, out)); break;
#define HELPERF3(name, effects) case IR_h_##name: *ok = prim_done(cpu, helper_##name(cpu, a, b, c, out)); break;
#define HELPERF4(name, effects) case IR_h_##name: *ok = prim_done(cpu, helper_##name(cpu, a, b, c, d, out)); break;
#include "isa/helpers.def"
    default: return false;
    }
    return true;
}

/* Operands must be earlier values of the type that the operation wants: a lifter or pass that errs is stopped here. */
static void check_operands(const struct ir_block *block, unsigned id)
{
    const struct ir *ir = &block->ir[id];
    const char *want = ir_info[ir->op].operands;

    for (unsigned i = 0; want[i]; i++) {
        unsigned operand = ir_operand(ir, i), type = ir_info[block->ir[operand].op].result;
        bool fits = want[i] == 'V'   ? type == IR_V || type == IR_V2
                    : want[i] == 'W' ? type == IR_W || type == IR_W2
                                     : type == IR_F;
        if (operand >= id || !fits)
            BUG("IR value %u (%s) has a bad operand %u", id, ir_info[ir->op].name, i);
    }
}

bool ir_eval_op(struct cpu *cpu, const struct ir *ir, const union vreg in[5], union vreg out[2])
{
    static _Thread_local struct eval e;
    struct ir own = *ir;
    struct value r;
    unsigned n = ir_operands(ir->op);
    bool ok = true;

    e.cpu = cpu;
    e.base = cpu->pc;
    for (unsigned i = 0; i < n; i++)
        e.value[i + 1].w = in[i];
    own.a = 1, own.b = 2;
    if (n > 2)
        own.c = 3, own.d = 4, own.e = 5;
    else if (n == 2 && ir_info[ir->op].result == IR_W) /* imm16 stands behind c, which is no operand */
        own.c = 0;
    memset(&r, 0, sizeof r);
    if (ir_info[ir->op].effects & IE_END) { /* imm lies over the operands that it does not have */
        if (!eval_control(&e, &own))
            BUG("IR operation %u", ir->op);
    } else if (!eval_memory(&e, &own, &r, &ok) && !eval_helper(&e, &own, &r.w.d[0], &ok) && !eval_vector(&e, &own, &r) &&
        !eval_value(&e, &own, &r.w.d[0])) {
        BUG("IR operation %u", ir->op);
    }
    out[0] = r.w;
    out[1] = r.w2;
    return ok;
}

void ir_eval(struct cpu *cpu, const struct ir_block *block)
{
    static _Thread_local struct eval e;

    e.cpu = cpu;
    e.block = block;
    e.base = cpu->pc;
    e.done = false;
    cpu->leave = 0;
    for (unsigned id = 0; id < block->n && !e.done; id++) {
        const struct ir *ir = &block->ir[id];
        struct value *r = &e.value[id];
        bool ok = true;

        check_operands(block, id);
        memset(r, 0, sizeof *r);
        if (!eval_state(&e, ir, r) && !eval_value(&e, ir, &r->w.d[0]) && !eval_vector(&e, ir, r) &&
            !eval_memory(&e, ir, r, &ok) && !eval_control(&e, ir) && !eval_helper(&e, ir, &r->w.d[0], &ok))
            BUG("IR operation %u", ir->op);
        if (!ok || cpu->leave & (LEAVE_FAULT | LEAVE_EXC))
            break;
    }
    if (!(cpu->leave & LEAVE_FAULT))
        cpu->icount++;
    cpu->pc = cpu->next_pc;
}
