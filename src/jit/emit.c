/*
 * Values, calls to C, and one operation after the other (emit.h).
 *
 * Rules
 *  1. A value in the home of a guest register (L_GX) must be moved before the register is written while it has uses left:
 *     set_x does that.
 *  2. EFLAGS may hold one flags value (host_f); everything that changes EFLAGS calls emit_clobber_flags() first.  Moves,
 *     LEA, MOVZX, SETcc, CMOVcc, NOT, RORX and SHLX do not change them.
 *  3. Guest flags are in HOT_FLAGS at every operation that may leave the block, or e->lazy says what cold code makes them
 *     of (opt.h).
 *  4. Between two IR operations no temporary is locked.
 */
#include "jit/emit.h"

#include "base/report.h"
#include "jit/emit_parts.h"
#include "jit/x86_sse.h"

const uint8_t jit_temps[TEMPS] = { RAX, RCX, RDX, RSI, R14 };
const struct jit_pin jit_pins[PINS] = {
    { 0, RDI }, { 1, R8 }, { 2, R9 }, { 3, R10 }, { 4, R11 }, { 19, RBX }, { 20, R12 }, { 31, R13 },
};
const uint8_t jit_pin_of[32] = {
    [0] = RDI, [1] = R8, [2] = R9, [3] = R10, [4] = R11, [5 ... 18] = NO_REG, [19] = RBX, [20] = R12, [21 ... 30] = NO_REG,
    [31] = R13,
};

void emit_const(struct emit *e, unsigned host, uint64_t v)
{
    x86_mov_ri(&e->x, host, v);
}

/* --- places -------------------------------------------------------------------------------------------- */

static void drop(struct emit *e, unsigned id)
{
    struct loc *l = &e->loc[id];
    if (e->xof[id]) {
        e->xreg[e->xof[id] - 1] = 0;
        e->xof[id] = 0;
    }
    switch (l->kind) {
    case L_GX: e->gx_live[l->n]--; break;
    case L_GW: e->gw_live[l->n]--; break;
    case L_TMP:
        e->tmp[l->n] = 0;
        if (e->copy[id] >= COPY_SPILL)
            e->spill[e->copy[id] - COPY_SPILL] = 0;
        break;
    case L_SPILL: e->spill[l->n] = 0; break;
    case L_WSLOT: e->wslot[l->n] = 0; break;
    default: break;
    }
    l->kind = L_NONE;
}

void emit_use(struct emit *e, unsigned id)
{
    if (!id || !e->uses[id] || --e->uses[id])
        return;
    bool later = e->loc[id].kind == L_LATER;
    drop(e, id);
    if (later) /* it has used its operands only now */
        emit_use_all(e, op_of(e, id));
}

void emit_use_all(struct emit *e, const struct ir *ir)
{
    for (unsigned i = 0; i < ir_operands(ir->op); i++)
        emit_use(e, ir_operand(ir, i));
}

static void place(struct emit *e, unsigned id, unsigned kind, unsigned n)
{
    if (!e->uses[id])
        return;
    e->loc[id] = (struct loc){ (uint8_t)kind, (uint8_t)n };
    e->copy[id] = 0;
    if (kind == L_GX)
        e->gx_live[n]++;
    else if (kind == L_GW)
        e->gw_live[n]++;
    else if (kind == L_TMP)
        e->tmp[n] = (uint16_t)id;
}

/* A value whose copy in memory is as good leaves its temporary. */
static bool drop_to_copy(struct emit *e, unsigned t)
{
    unsigned id = e->tmp[t], copy = e->copy[id];

    if (!copy)
        return false;
    e->tmp[t] = 0;
    if (copy >= COPY_SPILL) {
        e->loc[id] = (struct loc){ L_SPILL, (uint8_t)(copy - COPY_SPILL) };
    } else {
        e->loc[id] = (struct loc){ L_GX, (uint8_t)(copy - 1) };
        e->gx_live[copy - 1]++;
    }
    return true;
}

static void spill_temp(struct emit *e, unsigned t)
{
    unsigned id = e->tmp[t];
    if (drop_to_copy(e, t))
        return;
    for (unsigned s = 0; s < SPILLS; s++)
        if (!e->spill[s]) {
            x86_store(&e->x, true, HOT(HOT_SPILL + s), jit_temps[t]);
            e->spill[s] = (uint16_t)id;
            e->tmp[t] = 0;
            e->loc[id] = (struct loc){ L_SPILL, (uint8_t)s };
            return;
        }
    e->failed = true;
    e->tmp[t] = 0;
}

void emit_to_memory(struct emit *e, unsigned id)
{
    if (e->loc[id].kind == L_TMP)
        spill_temp(e, e->loc[id].n);
}

bool emit_is_temp(unsigned host)
{
    return temp_index(host) >= 0;
}

/* Frees the temporary t (an index) by moving what is in it to another or to memory. */
static void vacate(struct emit *e, unsigned t)
{
    unsigned id = e->tmp[t];
    if (!id)
        return;
    for (unsigned i = 0; i < TEMPS; i++)
        if (i != t && !e->tmp[i] && !(e->locked & 1u << i) && !e->copy[id]) {
            x86_mov_rr(&e->x, true, jit_temps[i], jit_temps[t]);
            e->tmp[t] = 0;
            e->tmp[i] = (uint16_t)id;
            e->loc[id].n = (uint8_t)i;
            return;
        }
    spill_temp(e, t);
}

unsigned emit_take(struct emit *e, unsigned host)
{
    int t = temp_index(host);
    BUG_ON(e->locked & 1u << t);
    vacate(e, (unsigned)t);
    e->locked |= (uint8_t)(1u << t);
    return host;
}

/* How soon value id is an operand again. */
static unsigned next_use(const struct emit *e, unsigned id)
{
    for (unsigned i = e->at; i < e->block->n; i++) {
        const struct ir *ir = op_of(e, i);
        for (unsigned k = 0; k < ir_operands(ir->op); k++)
            if (ir_operand(ir, k) == id)
                return i;
    }
    return e->block->n;
}

/* Which of two values in temporaries is the better one to lose: one that memory has, or that is wanted later. */
static bool rather(const struct emit *e, unsigned a, unsigned b)
{
    if (!e->copy[a] != !e->copy[b])
        return e->copy[a];
    return next_use(e, a) > next_use(e, b);
}

unsigned emit_temp(struct emit *e)
{
    unsigned best = TEMPS;
    for (unsigned i = TEMPS; i--;) { /* from the back: RAX is wanted for flags */
        if (e->locked & 1u << i)
            continue;
        if (!e->tmp[i]) {
            best = i;
            break;
        }
        if (best == TEMPS || rather(e, e->tmp[i], e->tmp[best]))
            best = i;
    }
    if (best == TEMPS) { /* an address and two values to store that are all computed: emit less, or interpret */
        e->failed = true;
        return jit_temps[0];
    }
    if (e->tmp[best])
        spill_temp(e, best);
    e->locked |= (uint8_t)(1u << best);
    return jit_temps[best];
}

void emit_release(struct emit *e, unsigned host)
{
    int t = temp_index(host);
    if (t >= 0)
        e->locked &= (uint8_t)~(1u << t);
}

/* --- reading values -------------------------------------------------------------------------------------- */

void emit_load_pc(struct emit *e, unsigned host, uint64_t off)
{
    x86_load(&e->x, true, host, HOT(HOT_PAGE));
    int64_t rest = (int64_t)(off + e->page_off);
    while (rest) { /* LEA, which leaves the flags alone; ADRP reaches 4 GiB */
        int32_t step = (int32_t)CLAMP(rest, INT32_MIN, INT32_MAX);
        x86_lea(&e->x, true, host, MEM(host, step));
        rest -= step;
    }
}

/* Puts value id into host register r, wherever it is. */
void emit_value_to(struct emit *e, unsigned id, unsigned r)
{
    const struct loc *l = &e->loc[id];
    switch (l->kind) {
    case L_CONST: x86_mov_ri(&e->x, r, const_of(e, id)); break;
    case L_PC: emit_load_pc(e, r, op_of(e, id)->imm); break;
    case L_GX:
        if (jit_pin_of[l->n] == NO_REG)
            x86_load(&e->x, true, r, home(l->n));
        else if (jit_pin_of[l->n] != r)
            x86_mov_rr(&e->x, true, r, jit_pin_of[l->n]);
        break;
    case L_TMP:
        if (jit_temps[l->n] != r)
            x86_mov_rr(&e->x, true, r, jit_temps[l->n]);
        break;
    case L_SPILL: x86_load(&e->x, true, r, HOT(HOT_SPILL + l->n)); break;
    case L_LATER: emit_later(e, id, r); break;
    default:
        ir_dump(stderr, e->block);
        BUG("value %u (%s) is nowhere at %u", id, ir_info[op_of(e, id)->op].name, e->at);
    }
}

unsigned emit_reg(struct emit *e, unsigned id)
{
    struct loc *l = &e->loc[id];
    if (l->kind == L_GX && jit_pin_of[l->n] != NO_REG)
        return jit_pin_of[l->n];
    if (l->kind == L_TMP) {
        lock(e, jit_temps[l->n]);
        return jit_temps[l->n];
    }
    unsigned r = emit_temp(e);
    emit_value_to(e, id, r);
    if (l->kind == L_SPILL || l->kind == L_GX || l->kind == L_LATER) { /* it may be wanted again: keep it here */
        bool later = l->kind == L_LATER;
        unsigned copy = l->kind == L_SPILL ? (unsigned)COPY_SPILL + l->n : l->kind == L_GX ? l->n + 1u : 0;
        drop(e, id);
        place(e, id, L_TMP, (unsigned)temp_index(r));
        e->copy[id] = (uint8_t)copy;
        if (copy >= COPY_SPILL)
            e->spill[copy - COPY_SPILL] = (uint16_t)id;
        if (later)
            emit_use_all(e, op_of(e, id));
    }
    return r;
}

bool emit_in_memory(const struct emit *e, unsigned id, struct hmem *m)
{
    const struct loc *l = &e->loc[id];
    if (l->kind == L_GX && jit_pin_of[l->n] == NO_REG)
        *m = home(l->n);
    else if (l->kind == L_SPILL)
        *m = HOT(HOT_SPILL + l->n);
    else
        return false;
    return true;
}

bool emit_is_add_const(const struct emit *e, unsigned id, int32_t *off)
{
    const struct ir *ir = op_of(e, id);
    if ((ir->op != IR_add && ir->op != IR_sub) || !ir->k || !is_const(e, ir->b))
        return false;
    uint64_t v = ir->op == IR_add ? const_of(e, ir->b) : 0 - const_of(e, ir->b);
    *off = (int32_t)v;
    return fits32(v) && fits32(v + 64);
}

struct hmem emit_address(struct emit *e, unsigned id)
{
    int32_t off;
    if (e->loc[id].kind == L_LATER && emit_is_add_const(e, id, &off))
        return MEM(emit_reg(e, op_of(e, id)->a), off);
    return MEM(emit_reg(e, id), 0);
}

/* --- results ---------------------------------------------------------------------------------------------- */

/* Not one that flags may have to be made from again. */
unsigned emit_hint(const struct emit *e, unsigned id)
{
    const struct ir *set = op_of(e, e->lazy);
    unsigned n = e->hint[id];

    return e->lazy && !e->turn && set->k != LAZY_HOST && (n == (set->b & 0xffu) + 1 || n == (set->b >> 8) + 1u) ? 0 : n;
}

unsigned emit_dest(struct emit *e, unsigned id)
{
    unsigned n = emit_hint(e, id);
    if (n && jit_pin_of[n - 1] != NO_REG && !e->gx_live[n - 1])
        return jit_pin_of[n - 1];
    return emit_temp(e);
}

void emit_bind(struct emit *e, unsigned id, unsigned r)
{
    int t = temp_index(r);
    if (t >= 0) {
        emit_release(e, r);
        place(e, id, L_TMP, (unsigned)t);
        return;
    }
    for (unsigned i = 0; i < PINS; i++)
        if (jit_pins[i].host == r)
            place(e, id, L_GX, jit_pins[i].guest);
}

void emit_unlock_all(struct emit *e)
{
    e->locked = 0;
    e->xlocked = 0;
}

/* The values that live in home n move away. */
static void evict_home(struct emit *e, unsigned n, unsigned except)
{
    for (unsigned t = 0; t < TEMPS; t++)
        if (e->tmp[t] && e->copy[e->tmp[t]] == n + 1 && e->tmp[t] != except)
            e->copy[e->tmp[t]] = 0;
    if (except && e->gx_live[n] == 1 && e->loc[except].kind == L_GX && e->loc[except].n == n) /* computed there */
        return;
    enum { AHEAD = 8 }; /* what was done together with this operation */
    for (unsigned id = MIN(e->at + AHEAD, e->block->n); e->gx_live[n] && id--;) { /* nearly always one of the last */
        struct loc *l = &e->loc[id];
        if (l->kind != L_GX || l->n != n || id == except)
            continue;
        if (e->gx_live[n] == 1 && except && e->loc[except].kind == L_GX && e->loc[except].n == n)
            return;
        unsigned r = emit_temp(e);
        emit_value_to(e, id, r);
        drop(e, id);
        place(e, id, L_TMP, (unsigned)temp_index(r));
        emit_release(e, r);
    }
}

void emit_evict_homes(struct emit *e)
{
    for (unsigned t = 0; t < TEMPS; t++)
        if (e->tmp[t] && e->copy[e->tmp[t]] < COPY_SPILL)
            e->copy[e->tmp[t]] = 0;
    for (unsigned n = 0; n < 32; n++)
        if (e->gx_live[n])
            evict_home(e, n, 0);
}

static void emit_set_x(struct emit *e, const struct ir *ir)
{
    unsigned n = ir->k, v = ir->a, pin = jit_pin_of[n];
    struct loc *l = &e->loc[v];
    int32_t imm;

    evict_home(e, n, v);
    if ((l->kind == L_GX && l->n == n) || (l->kind == L_TMP && e->copy[v] == n + 1)) { /* in place, or unchanged */
        emit_use(e, v);
        return;
    }
    if (pin != NO_REG) {
        emit_value_to(e, v, pin);
    } else if (l->kind == L_CONST && fits32(const_of(e, v))) {
        imm = (int32_t)const_of(e, v);
        x86_store_imm(&e->x, true, home(n), imm);
    } else {
        unsigned r = emit_reg(e, v);
        x86_store(&e->x, true, home(n), r);
    }
    emit_use(e, v);
    if (e->uses[v] && pin == NO_REG && l->kind == L_TMP && !e->copy[v])
        e->copy[v] = (uint8_t)(n + 1);
    if (e->uses[v] && pin != NO_REG && l->kind != L_CONST && l->kind != L_PC && l->kind != L_LATER) {
        drop(e, v); /* the home is as good, and frees a temporary */
        place(e, v, L_GX, n);
    }
}

/* --- calls to C ------------------------------------------------------------------------------------------------------ */

static struct hmem arg(unsigned i)
{
    return HOT(HOT_A + 2 * i);
}

int32_t emit_uncounted(const struct emit *e, unsigned insns)
{
    return (int32_t)insns - (e->counted ? (int32_t)e->block->insns : 0);
}

uint32_t emit_where(const struct emit *e, unsigned insn, int off)
{
    return (unsigned)((int)e->page_off + off) | (uint32_t)emit_uncounted(e, insn) << 12;
}

void emit_c_op(struct emit *e, const struct ir *ir, unsigned insn, int off, bool keep)
{
    /* What is to be done stands behind the call, jumped over: half the size of stores to the hot words. */
    bool wide = ir->op == IR_exception || ir->op == IR_undefined || ir->op == IR_fp_trap;
    x86_call_to(&e->x, (keep ? e->stubs->call_keep : e->stubs->call) - e->x.exec);
    x86_u8(&e->x, 0xeb);
    x86_u8(&e->x, JIT_DESC_BYTES);
    bool paired = (ir->op == IR_store_ex || ir->op == IR_store_ex_pair) && emit_is_paired(e, (unsigned)(ir - e->block->ir));
    x86_u32(&e->x, ir->op | (uint32_t)ir->k << 16 | (uint32_t)(paired ? MO_PAIRED >> 8 : ir->x) << 24);
    x86_u32(&e->x, emit_where(e, insn, off));
    x86_u32(&e->x, wide ? (uint32_t)ir->imm : ir->imm16);
}

void emit_generic(struct emit *e, const struct ir *ir)
{
    const char *types = ir_info[ir->op].operands;
    unsigned effects = ir_info[ir->op].effects, result = ir_info[ir->op].result;

    if (effects & (IE_FAULT | IE_STATE))
        emit_flags_for_c(e);
    emit_clobber_flags(e);
    for (unsigned i = 0; i < ir_operands(ir->op); i++) {
        unsigned id = ir_operand(ir, i);
        if (types[i] == 'W') {
            x86_movdqu_store(&e->x, arg(i), emit_xmm(e, id));
            e->xlocked = 0;
        } else {
            unsigned r = emit_reg(e, id);
            x86_store(&e->x, true, arg(i), r);
            emit_unlock_all(e);
        }
    }
    emit_use_all(e, ir);
    if (effects & IE_STATE)
        emit_evict_homes(e);
    emit_xmm_flush(e);
    emit_c_op(e, ir, e->insn, e->off, false);
    if (effects & IE_STATE)
        e->mem_f = 0;
    unsigned id = e->at;
    if (result == IR_V || result == IR_V2) {
        if (e->uses[id]) {
            unsigned d = emit_dest(e, id);
            x86_load(&e->x, true, d, HOT(HOT_R));
            emit_bind(e, id, d);
        }
    } else if (result == IR_W || result == IR_W2) {
        if (e->uses[id]) {
            unsigned d = emit_xmm_dest(e);
            x86_movdqu_load(&e->x, d, HOT(HOT_R));
            emit_xmm_bind(e, id, d, 0);
        }
    } else if (result == IR_F) {
        unsigned r = emit_temp(e);
        x86_load(&e->x, false, r, HOT(HOT_R));
        emit_flags_from_nzcv(e, r, id, emit_for_f_select(e, id) ? HOT_RESERVED : HOT_FLAGS);
    }
    emit_unlock_all(e);
    unsigned next = id + 1;
    if ((result == IR_V2 || result == IR_W2) && next < e->block->n && e->uses[next]) {
        e->done[next] = true;
        emit_use(e, id); /* `second' names it */
        if (result == IR_V2) {
            unsigned d = emit_temp(e);
            x86_load(&e->x, true, d, HOT(HOT_R + 2));
            emit_bind(e, next, d);
        } else {
            unsigned d = emit_xmm_dest(e);
            x86_movdqu_load(&e->x, d, HOT(HOT_R + 2));
            emit_xmm_bind(e, next, d, 0);
        }
        emit_unlock_all(e);
    }
}

struct cold *emit_cold(struct emit *e, unsigned kind, uint8_t *from)
{
    if (e->ncold == MAX_COLD) {
        e->failed = true;
        return &e->cold[0];
    }
    bool may_leave = ir_info[op_of(e, e->at)->op].effects & (IE_FAULT | IE_STATE | IE_END);
    unsigned lazy = may_leave ? e->lazy : 0;
    struct cold *c = &e->cold[e->ncold++];
    *c = (struct cold){ .kind = (uint8_t)kind, .from = from, .insn = (uint16_t)e->insn, .off = (int16_t)e->off,
                        .id = (uint16_t)e->at, .lazy = (uint16_t)lazy, .host = (uint8_t)emit_in_host(e, lazy),
                        .turn = lazy && e->turn, .counted = e->counted };
    if (may_leave && kind != COLD_LINK && kind != COLD_STACK)
        emit_note_owed(e, c);
    return c;
}

/* --- one operation ------------------------------------------------------------------------------------------------------ */

/* The next operation u only asks whether the AND is zero, or for its flags; a single bit above bit 31 has no TEST. */
static bool and_only_tested(const struct emit *e, const struct ir *and, const struct ir *u, unsigned id)
{
    if (u->a != id || u->k != and->k)
        return false;
    return u->op == IR_f_logic || ((u->op == IR_eq || u->op == IR_ne) && is_const(e, u->b) && !const_of(e, u->b));
}

/* May this value wait until it is used?  Only for a use as condition or address that comes before anything disturbs it. */
static bool can_wait(const struct emit *e, unsigned id)
{
    const struct ir *ir = op_of(e, id);
    int32_t off;

    if (ir->op == IR_cond)
        return true;
    if (e->uses[id] != 1)
        return false;
    bool compare = emit_is_compare(ir->op), address = emit_is_add_const(e, id, &off);
    bool scaled = ir->op == IR_shl && ir->k && is_const(e, ir->b) && const_of(e, ir->b) - 1 < 3;
    bool field = ir->op == IR_shl && is_const(e, ir->b) && !is_const(e, ir->a);
    bool and = ir->op == IR_and && !is_const(e, ir->a);
    if (!compare && !address && !field && !and)
        return false;
    for (unsigned i = id + 1; i < e->block->n; i++) {
        const struct ir *u = op_of(e, i);
        if (u->op == IR_none || u->op == IR_const || u->op == IR_get_x || u->op == IR_get_w || u->op == IR_get_f)
            continue;
        if (field && u->op == IR_shr)
            return u->a == id && u->b != id && u->k == ir->k && is_const(e, u->b);
        if (field && !scaled)
            return false;
        if (scaled)
            return u->op == IR_add && u->k && (u->a == id) != (u->b == id) && !is_const(e, u->a) && !is_const(e, u->b);
        if (and)
            return and_only_tested(e, ir, u, id);
        if (compare)
            return (u->op == IR_branch_if || u->op == IR_side) && u->a == id;
        switch (u->op) {
        case IR_load: case IR_store: case IR_load_pair: case IR_store_pair: case IR_load_w: case IR_store_w:
        case IR_load_pair_w: case IR_store_pair_w:
            return u->a == id;
        default: return false;
        }
    }
    return false;
}

static void emit_value(struct emit *e, const struct ir *ir)
{
    if (can_wait(e, e->at)) {
        e->loc[e->at].kind = L_LATER;
        return;
    }
    switch (ir->op) {
    case IR_add: case IR_sub: case IR_and: case IR_or: case IR_xor: emit_alu(e, ir, false); break;
    case IR_shl: case IR_shr: case IR_sar: case IR_ror: emit_shift(e, ir); break;
    case IR_mul: case IR_andn: case IR_orn: case IR_xorn: emit_binary(e, ir); break;
    case IR_umulh: case IR_smulh: emit_mulh(e, ir); break;
    case IR_udiv: case IR_sdiv: emit_div(e, ir); break;
    case IR_not: case IR_neg: case IR_clz: case IR_cls: case IR_rbit: case IR_rev: case IR_rev16: case IR_rev32:
        emit_unary(e, ir);
        break;
    case IR_eq: case IR_ne: case IR_ult: case IR_slt: {
        unsigned d = emit_temp(e);
        unsigned cc = emit_compare_to_host(e, ir);
        x86_setcc(&e->x, (enum hcc)cc, d);
        x86_ext_rr(&e->x, false, 0x0fb6, d, d);
        emit_use_all(e, ir);
        emit_unlock_all(e);
        lock(e, d);
        emit_bind(e, e->at, d);
        break;
    }
    case IR_ext: emit_ext(e, ir); break;
    case IR_extr: emit_extr(e, ir); break;
    case IR_select: emit_select(e, ir); break;
    case IR_h_crc32: case IR_h_crc32c: emit_crc(e, ir); break;
    default: emit_generic(e, ir); break;
    }
}

/* The flags were stored where they were made, or are lazy. */
static void emit_set_f(struct emit *e, const struct ir *ir)
{
    e->lazy = ir->k ? (uint16_t)e->at : 0;
    e->turn = false;
    if (ir->k == LAZY_HOST && e->host_f != ir->a) { /* C made them, or they are a constant: stored all the same */
        BUG_ON(e->mem_f != ir->a);
        e->lazy = 0;
    }
    emit_use(e, ir->a);
}

/* The block's instructions are counted, those to come among them. */
static void count(struct emit *e)
{
    emit_clobber_flags(e);
    x86_alu_mi(&e->x, true, ALU_ADD, CPU_MEM(icount), (int32_t)e->block->insns);
    e->counted = true;
}

static void emit_op(struct emit *e, const struct ir *ir, bool *state_ran)
{
    unsigned id = e->at;
    switch (ir->op) {
    case IR_none: break;
    case IR_insn:
        e->insn = id == 1 ? 0 : e->insn + 1;
        e->off = (int32_t)(int64_t)ir->imm;
        if (id == e->count_at)
            count(e);
        if (!e->no_groups) {
            e->insn_code[e->insn] = e->x.p;
            e->insn_off[e->insn] = e->off;
        }
        *state_ran = false;
        e->leave = AFTER_C;
        break;
    case IR_const: place(e, id, L_CONST, 0); break;
    case IR_pc: place(e, id, L_PC, 0); break;
    case IR_get_x: place(e, id, L_GX, ir->k); break;
    case IR_get_w: place(e, id, L_GW, ir->k); break;
    case IR_get_f: e->mem_f = (uint16_t)id; break;
    case IR_set_x: emit_set_x(e, ir); break;
    case IR_set_f: emit_set_f(e, ir); break;
    case IR_f_const:
        if (!emit_for_f_select(e, id)) {
            x86_store_imm(&e->x, false, HOT(HOT_FLAGS), (int32_t)jit_hot_flags((uint32_t)ir->imm));
            e->mem_f = (uint16_t)id;
        }
        break;
    case IR_f_add: case IR_f_sub:
        if (!emit_for_f_select(e, id))
            emit_flags_addsub(e, ir);
        break;
    case IR_f_logic: emit_flags_logic(e, ir); break;
    case IR_adc: case IR_sbc: case IR_f_adc: case IR_f_sbc: emit_carry(e, ir); break;
    case IR_f_select: emit_f_select(e, ir); break;
    case IR_f_of_v: emit_f_of_v(e, ir); break;
    case IR_v_of_f: emit_v_of_f(e, ir); break;
    case IR_cond: emit_value(e, ir); break;
    case IR_load: case IR_store: case IR_load_pair: case IR_store_pair: case IR_load_w: case IR_store_w:
    case IR_load_pair_w: case IR_store_pair_w:
        emit_memory(e, ir);
        break;
    case IR_sp_check: emit_sp_check(e); break;
    case IR_barrier: emit_barrier(e, ir); break;
    case IR_exit: emit_exit(e, ir); break;
    case IR_side: emit_side(e, ir); break;
    case IR_poll: emit_trace_poll(e, ir); break;
    case IR_branch: emit_branch(e, ir); break;
    case IR_branch_rel: emit_branch_rel(e, ir); break;
    case IR_branch_if: emit_branch_if(e, ir); break;
    case IR_leave: emit_leave(e, ir, *state_ran); break;
    case IR_exception: emit_exception(e, ir); break;
    case IR_undefined: case IR_fp_trap: emit_c_op(e, ir, e->insn, e->off, false); break;
    default:
        if (ir->op >= IR_load_ex && ir->op <= IR_store_ex_pair) {
            emit_exclusive(e, ir);
        } else if (emit_atomic(e, ir) || emit_system(e, ir)) {
            break;
        } else if (ir_info[ir->op].effects & IE_STATE) {
            emit_generic(e, ir);
            *state_ran = true;
        } else if (emit_is_vector(ir->op)) {
            emit_vector(e, ir);
        } else {
            emit_value(e, ir);
        }
    }
    emit_unlock_all(e);
}

/* --- cold code ------------------------------------------------------------------------------------------------------------ */

/* A system operation after all: constants in a and b, the value to write in data[0]. */
static void emit_state_cold(struct emit *e, const struct cold *c)
{
    const struct ir *ir = op_of(e, c->id);

    emit_cold_flags(e, c);
    if (ir->op != IR_barrier) {
        x86_store_imm(&e->x, true, arg(0), (int32_t)op_of(e, ir->a)->imm);
        x86_store_imm(&e->x, true, arg(1), (int32_t)op_of(e, ir->b)->imm);
    }
    if (ir->op == IR_h_msr_imm)
        x86_store_imm(&e->x, true, arg(2), (int32_t)op_of(e, ir->c)->imm);
    else if (ir->op != IR_barrier)
        x86_store(&e->x, true, arg(2), c->data[0]);
    emit_c_op(e, ir, c->insn, c->off, true);
    x86_jmp_to(&e->x, c->back);
}

#define EACH_ARRAY(do) do(tmp) do(spill) do(wslot) do(xreg) do(gx_live) do(gw_live)

void emit_snapshot(struct emit *e, unsigned group)
{
    struct snapshot *s = &e->snap[group];
    unsigned n = e->block->n + e->ngroups;

    memcpy(s->loc, e->loc, n * sizeof *s->loc);
    memcpy(s->uses, e->uses, n * sizeof *s->uses);
    memcpy(s->done, e->done, n * sizeof *s->done);
    memcpy(s->copy, e->copy, n);
    memcpy(s->xof, e->xof, n);
    memcpy(s->zext, e->zext, n);
#define SAVE(field) memcpy(s->field, e->field, sizeof s->field);
    EACH_ARRAY(SAVE)
#undef SAVE
    s->mem_f = e->mem_f;
    s->lazy = e->lazy;
    s->turn = e->turn;
    s->counted = e->counted;
    memcpy(s->owed, e->owed, sizeof s->owed);
    s->insn = e->insn;
    s->off = e->off;
}

static void restore_snapshot(struct emit *e, unsigned group)
{
    const struct snapshot *s = &e->snap[group];
    unsigned n = e->block->n + e->ngroups;

    memcpy(e->loc, s->loc, n * sizeof *s->loc);
    memcpy(e->uses, s->uses, n * sizeof *s->uses);
    memcpy(e->done, s->done, n * sizeof *s->done);
    memcpy(e->copy, s->copy, n);
    memcpy(e->xof, s->xof, n);
    memcpy(e->zext, s->zext, n);
#define RESTORE(field) memcpy(e->field, s->field, sizeof s->field);
    EACH_ARRAY(RESTORE)
#undef RESTORE
    e->mem_f = s->mem_f;
    e->lazy = s->lazy;
    e->turn = s->turn;
    e->counted = s->counted;
    memcpy(e->owed, s->owed, sizeof e->owed);
    e->insn = s->insn;
    e->off = s->off;
    emit_unlock_all(e);
    emit_clobber_flags(e);
}

/*
 * A group that is often torn, and not in one page that the TLB has: its instructions once more, each access by itself, and on
 * with the next block.
 */
static void emit_torn(struct emit *e, const struct cold *c)
{
    unsigned number = c->bytes;
    const struct group *g = &e->group[number];
    bool state_ran = false;
    unsigned i;

    emit_pay_owed(e, c);
    restore_snapshot(e, number);
    e->no_groups = true;
    emit_forget_owed(e);
    for (i = g->first; i < e->block->n && !e->failed && !e->x.full; i++) {
        if (i > g->last && op_of(e, i)->op == IR_insn)
            break;
        e->at = i;
        if (!e->done[i])
            emit_op(e, op_of(e, i), &state_ran);
    }
    if (i == e->block->n || e->failed || e->x.full)
        return;
    int32_t more = emit_uncounted(e, e->insn + 1);
    if (e->lazy)
        emit_flags_to_memory(e, e->lazy, emit_in_host(e, e->lazy), e->turn);
    if (more)
        x86_alu_mi(&e->x, true, ALU_ADD, CPU_MEM(icount), more);
    emit_goto(e, op_of(e, i)->imm);
}

static void emit_cold_code(struct emit *e)
{
    for (unsigned i = 0; i < e->ncold && !e->x.full; i++) {
        struct cold *c = &e->cold[i];
        x86_here(&e->x, c->from);
        e->counted = c->counted;
        switch (c->kind) {
        case COLD_LINK:
            x86_call_to(&e->x, e->stubs->link - e->x.exec); /* never returns: what is wanted stands behind it */
            x86_u32(&e->x, (uint32_t)(c->from - e->x.p));
            x86_u32(&e->x, e->links[c->id].page_off);
            break;
        case COLD_GROUP:
            if (e->group[c->bytes].torn)
                emit_torn(e, c);
            else
                emit_group_cold(e, c);
            break;
        case COLD_STACK: /* full: start afresh */
            x86_load(&e->x, true, RSP, HOT(HOT_RS_TOP));
            x86_jmp_to(&e->x, c->back);
            break;
        case COLD_SIDE: case COLD_POLL: emit_side_cold(e, c); break;
        case COLD_OP:
            emit_cold_flags(e, c);
            emit_pay_owed(e, c);
            emit_c_op(e, op_of(e, c->id), c->insn, c->off, true);
            break;
        case COLD_RECENT: emit_sites_cold(e, c); break;
        case COLD_VECTOR: emit_vector_cold(e, c); break;
        case COLD_STATE: emit_state_cold(e, c); break;
        default: emit_memory_cold(e, c); break;
        }
    }
}

/* Values that are set to a pinned register before anything can fault or end are computed right there. */
static void find_hints(struct emit *e)
{
    const struct ir_block *b = e->block;
    unsigned barrier = 0; /* index of the last operation that may leave */
    uint16_t read[32] = { 0 }; /* last read of each register */
    for (unsigned i = 1; i < b->n; i++) {
        const struct ir *ir = &b->ir[i];
        e->hint[i] = 0;
        if (ir_info[ir->op].effects & (IE_FAULT | IE_STATE | IE_END) || (ir->op == IR_insn && ir->x))
            barrier = i;
        if (ir->op == IR_get_x)
            read[ir->k] = (uint16_t)i;
        if (ir->op == IR_set_x && read[ir->k] > ir->a)
            continue;
        if (ir->op == IR_set_x && ir->a >= barrier && !e->hint[ir->a])
            e->hint[ir->a] = (uint16_t)(ir->k + 1);
    }
}

/*
 * Where icount is advanced: late, so that ways out before have less to put right; but an addition destroys EFLAGS, so in front of
 * what sets flags that are read behind it.
 */
static unsigned find_count_at(const struct ir_block *b)
{
    unsigned first = b->n; /* operation that the flags come from which are read behind i */

    for (unsigned i = b->n; --i > 1 && first == b->n;) /* those of the end */
        if (b->ir[i].op == IR_set_f)
            first = b->ir[i].a;
    for (unsigned i = b->n; --i > 1;) {
        const struct ir *ir = &b->ir[i];
        const char *types = ir_info[ir->op].operands;
        for (unsigned k = 0; types[k]; k++)
            if (types[k] == 'F' && b->ir[ir_operand(ir, k)].op != IR_get_f)
                first = MIN(first, ir_operand(ir, k));
        if (ir->op == IR_insn && i < first)
            return i;
        if (i == first)
            first = b->n;
    }
    return 1;
}

/* Where the end of a loop comes back to: its vectors are in registers, and flags may wait to be made (struct loop). */
static void begin_loop(struct emit *e)
{
    if (e->loop.flags) {
        x86_store_imm(&e->x, false, HOT(HOT_TURN), 0);
        e->lazy = e->loop.flags;
        e->turn = true;
    }
    for (unsigned i = 0; i < e->loop.n; i++) {
        const struct loop_w *w = &e->loop.w[i];
        e->uses[w->last]++;
        e->uses[w->get] += w->owed;
        place(e, w->get, L_GW, w->reg);
        e->done[w->get] = true;
    }
    emit_loop_vectors_in(e);
    emit_sites_in(e);
    if (e->owed_turn)
        x86_store_imm(&e->x, false, HOT(HOT_LATER), 0);
    e->xlocked = 0;
    e->loop_start = e->x.p;
}

bool emit_block(struct emit *e, struct ir_block *block, uint16_t *uses, unsigned page_off, uint8_t **cross,
                uint8_t **inside)
{
    bool state_ran = false;

    memset(e->loc, 0, (block->n + MAX_GROUPS) * sizeof *e->loc);
    memset(e->done, 0, block->n * sizeof *e->done);
    memset(e->tmp, 0, sizeof e->tmp);
    memset(e->spill, 0, sizeof e->spill);
    memset(e->wslot, 0, sizeof e->wslot);
    memset(e->gx_live, 0, sizeof e->gx_live);
    memset(e->gw_live, 0, sizeof e->gw_live);
    memset(e->xreg, 0, sizeof e->xreg);
    memset(e->xof, 0, block->n + MAX_GROUPS);
    memset(e->zext, 0, block->n);
    e->no_groups = false;
    for (unsigned i = 0; i < e->ngroups; i++)
        uses[e->group[i].addend] = e->group[i].uses;
    e->xlocked = 0;
    emit_find_needs(e, block);
    e->block = block;
    e->uses = uses;
    e->page_off = page_off;
    e->host_f = e->mem_f = e->logic_of = e->lazy = 0;
    e->turn = false;
    e->at = 0;
    e->insn = 0;
    e->off = 0;
    e->locked = 0;
    e->failed = false;
    e->leave = AFTER_C;
    e->ncold = e->nlinks = 0;
    memset(e->owed, 0, sizeof e->owed);
    e->nowing = 0;
    e->owed_turn = false;
    e->counted = false;
    e->count_at = find_count_at(block);
    find_hints(e);

    *cross = e->x.p;
    x86_lea(&e->x, true, RCX, MEM(RAX, -(int32_t)page_off));
    x86_store(&e->x, true, HOT(HOT_PAGE), RCX);
    *inside = e->x.p;
    if (e->loop.is)
        begin_loop(e);
    for (unsigned i = 1; i < block->n && !e->failed && !e->x.full; i++) {
        if (e->done[i])
            continue;
        e->at = i;
        emit_op(e, &block->ir[i], &state_ran);
    }
    e->cold_code = e->x.p;
    emit_cold_code(e);
    return !e->failed && !e->x.full;
}
