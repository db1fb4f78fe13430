/*
 * Values, flags and exits (emit.h).
 *
 * Rules
 *  1. A value in the home of a guest register (L_GX) must be moved before the register is written while it has uses left:
 *     set_x does that.
 *  2. EFLAGS may hold one flags value (host_f); everything that changes EFLAGS calls emit_clobber_flags() first.  Moves,
 *     LEA, MOVZX, SETcc, CMOVcc, NOT, RORX and SHLX do not change them.
 *  3. Guest flags are in HOT_FLAGS at every operation that may leave the block: a flags value is stored where it is made,
 *     unless its set_f is dead.
 *  4. Between two IR operations no temporary is locked.
 */
#include "jit/emit.h"

#include "base/report.h"
#include "jit/x86_sse.h"

const uint8_t jit_temps[TEMPS] = { RAX, RCX, RDX, RSI };
const struct jit_pin jit_pins[PINS] = {
    { 0, RDI }, { 1, R8 }, { 2, R9 }, { 3, R10 }, { 4, R11 }, { 19, RBX }, { 20, R12 }, { 31, R13 }, { 21, R14 },
};
const uint8_t jit_pin_of[32] = {
    [0] = RDI, [1] = R8, [2] = R9, [3] = R10, [4] = R11, [5 ... 18] = NO_REG, [19] = RBX, [20] = R12, [21] = R14,
    [22 ... 30] = NO_REG, [31] = R13,
};

static const struct ir *op_of(const struct emit *e, unsigned id)
{
    return &e->block->ir[id];
}

static struct hmem home(unsigned n)
{
    return jit_cpu_mem(offsetof(struct cpu, x) + 8 * (size_t)n);
}

static int temp_index(unsigned host)
{
    for (int i = 0; i < TEMPS; i++)
        if (jit_temps[i] == host)
            return i;
    return -1;
}

static void lock(struct emit *e, unsigned host)
{
    int t = temp_index(host);
    if (t >= 0)
        e->locked |= (uint8_t)(1u << t);
}

static bool is_const(const struct emit *e, unsigned id)
{
    return op_of(e, id)->op == IR_const;
}

static uint64_t const_of(const struct emit *e, unsigned id)
{
    return op_of(e, id)->imm;
}

static bool fits32(uint64_t v)
{
    return (int64_t)v == (int32_t)v;
}

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

static void load_pc(struct emit *e, unsigned host, uint64_t off)
{
    x86_load(&e->x, true, host, HOT(HOT_PAGE));
    int64_t rest = (int64_t)(off + e->page_off);
    while (rest) { /* LEA, which leaves the flags alone; ADRP reaches 4 GiB */
        int32_t step = (int32_t)CLAMP(rest, INT32_MIN, INT32_MAX);
        x86_lea(&e->x, true, host, MEM(host, step));
        rest -= step;
    }
}

static void emit_later(struct emit *e, unsigned id, unsigned host);

/* Puts value id into host register r, wherever it is. */
static void value_to(struct emit *e, unsigned id, unsigned r)
{
    const struct loc *l = &e->loc[id];
    switch (l->kind) {
    case L_CONST: x86_mov_ri(&e->x, r, const_of(e, id)); break;
    case L_PC: load_pc(e, r, op_of(e, id)->imm); break;
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
    value_to(e, id, r);
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

static bool is_add_const(const struct emit *e, unsigned id, int32_t *off)
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
    if (e->loc[id].kind == L_LATER && is_add_const(e, id, &off))
        return MEM(emit_reg(e, op_of(e, id)->a), off);
    return MEM(emit_reg(e, id), 0);
}

/* --- results ---------------------------------------------------------------------------------------------- */

/* Not one that flags may have to be made from again. */
unsigned emit_hint(const struct emit *e, unsigned id)
{
    const struct ir *set = op_of(e, e->lazy);
    unsigned n = e->hint[id];

    return e->lazy && set->k != LAZY_HOST && (n == (set->b & 0xffu) + 1 || n == (set->b >> 8) + 1u) ? 0 : n;
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

static void unlock_all(struct emit *e)
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
    for (unsigned id = 1; e->gx_live[n] && id < e->block->n; id++) {
        struct loc *l = &e->loc[id];
        if (l->kind != L_GX || l->n != n || id == except)
            continue;
        if (e->gx_live[n] == 1 && except && e->loc[except].kind == L_GX && e->loc[except].n == n)
            return;
        unsigned r = emit_temp(e);
        value_to(e, id, r);
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
        value_to(e, v, pin);
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

/* --- flags ---------------------------------------------------------------------------------------------------- */

void emit_clobber_flags(struct emit *e)
{
    e->host_f = 0;
    e->logic_of = 0;
}

/* x86 condition for an Arm one over EFLAGS as they are; CC 16: there is none (HI and LS with an upright carry). */
enum { NO_CC = 16 };
static unsigned x86_cc(unsigned cond, bool inv)
{
    static const uint8_t same[16] = { CC_E, CC_NE, 0, 0, CC_S, CC_NS, CC_O, CC_NO, 0, 0, CC_GE, CC_L, CC_G, CC_LE };
    switch (cond) {
    case 2: return inv ? CC_AE : CC_B;  /* HS: C */
    case 3: return inv ? CC_B : CC_AE;  /* LO */
    case 8: return inv ? CC_A : NO_CC;  /* HI: C and not Z */
    case 9: return inv ? CC_BE : NO_CC; /* LS */
    default: return same[cond];
    }
}

/* The next operations: does one of them want the carry out of the flags value id? */
static bool carry_wanted_next(const struct emit *e, unsigned id)
{
    for (unsigned i = e->at + 1; i < e->block->n && i < e->at + 12; i++) {
        const struct ir *ir = op_of(e, i);
        if (ir->op == IR_cond && ir->a == id)
            return ir->k == 2 || ir->k == 3 || ir->k == 8 || ir->k == 9;
    }
    return false;
}

/* RAX for a moment, whatever is in it: flags pass through AH.  Moves only, so that EFLAGS stay. */
static bool borrow_rax(struct emit *e)
{
    bool save = e->tmp[0] || (e->locked & 1);
    if (save)
        x86_store(&e->x, true, HOT(HOT_T0), RAX);
    return save;
}

static void return_rax(struct emit *e, bool saved)
{
    if (saved)
        x86_load(&e->x, true, RAX, HOT(HOT_T0));
}

/* EFLAGS with an upright carry to HOT_FLAGS. */
static void write_flags(struct emit *e)
{
    bool saved = borrow_rax(e);
    x86_lahf(&e->x);
    x86_setcc(&e->x, CC_O, RAX);
    x86_rm(&e->x, 0x66, false, 0x89, RAX, HOT(HOT_FLAGS), false);
    return_rax(e, saved);
}

/* EFLAGS hold flags value id, just made: stores them to HOT_FLAGS. */
static void store_flags(struct emit *e, unsigned id)
{
    bool again = e->host_inv && carry_wanted_next(e, id);

    if (e->host_inv)
        x86_cmc(&e->x);
    write_flags(e);
    if (again)
        x86_cmc(&e->x);
    else
        e->host_inv = false;
    e->mem_f = (uint16_t)id;
}

/* After EFLAGS hold id: keep note, and store when somebody may look before they are overwritten. */
static void flags_made(struct emit *e, unsigned id, bool inv)
{
    e->host_f = (uint16_t)id;
    e->host_inv = inv;
    e->logic_of = 0;
    for (unsigned i = e->at + 1; i < e->block->n; i++) {
        const struct ir *ir = op_of(e, i);
        if (ir->op == IR_set_f && ir->a == id) {
            if (!ir->k)
                store_flags(e, id);
            return;
        }
        if (ir->op == IR_insn)
            break;
    }
    /* No set_f: it was dead.  Uses within this instruction read EFLAGS; later ones read memory, which nobody else does. */
    if (e->uses[id])
        store_flags(e, id);
}

void emit_flags_made(struct emit *e, unsigned id, bool inv)
{
    flags_made(e, id, inv);
}

void emit_flags_ready(struct emit *e)
{
    bool saved = borrow_rax(e);
    x86_cmc(&e->x);
    x86_lahf(&e->x);
    x86_setcc(&e->x, CC_O, RAX);
    x86_rm(&e->x, 0x66, false, 0x89, RAX, HOT(HOT_RESERVED), false);
    return_rax(e, saved);
    emit_clobber_flags(e);
}

/* dst op= the other operand of lazy flags. */
static void lazy_operand(struct emit *e, const struct ir *set, enum halu op, unsigned d)
{
    unsigned n = set->b >> 8;

    if (n == NO_HOME)
        x86_alu_ri(&e->x, set->x, op, d, (int32_t)set->imm);
    else if (jit_pin_of[n] == NO_REG)
        x86_alu_rm(&e->x, set->x, op, d, home(n));
    else
        x86_alu_rr(&e->x, set->x, op, d, jit_pin_of[n]);
}

/* EFLAGS become lazy flags; RAX is destroyed.  Returns whether the carry is inverted. */
static bool make_lazy(struct emit *e, const struct ir *set)
{
    unsigned n = set->b & 0xff;

    BUG_ON(set->k == LAZY_HOST);
    if (jit_pin_of[n] == NO_REG)
        x86_load(&e->x, true, RAX, home(n));
    else
        x86_mov_rr(&e->x, true, RAX, jit_pin_of[n]);
    switch (set->k) {
    case LAZY_SUB_BACK:
        x86_lea(&e->x, true, RAX, MEM(RAX, (int32_t)set->imm));
        lazy_operand(e, set, ALU_CMP, RAX);
        return true;
    case LAZY_SUB: lazy_operand(e, set, ALU_CMP, RAX); return true;
    case LAZY_ADD_BACK:
        x86_lea(&e->x, true, RAX, MEM(RAX, -(int32_t)set->imm));
        lazy_operand(e, set, ALU_ADD, RAX);
        return false;
    case LAZY_ADD: lazy_operand(e, set, ALU_ADD, RAX); return false;
    case LAZY_AND: lazy_operand(e, set, ALU_AND, RAX); return false;
    default: x86_test_rr(&e->x, set->x, RAX, RAX); return false;
    }
}

static enum in_host in_host(const struct emit *e, unsigned set)
{
    if (!set || e->host_f != op_of(e, set)->a)
        return NOT_IN_HOST;
    return e->host_inv ? IN_HOST_INVERTED : IN_HOST;
}

/* Lazy flags go to HOT_FLAGS on the way out; RAX and EFLAGS are destroyed. */
static void flags_to_memory(struct emit *e, unsigned set, enum in_host where)
{
    bool inv = where == NOT_IN_HOST ? make_lazy(e, op_of(e, set)) : where == IN_HOST_INVERTED;

    if (inv)
        x86_cmc(&e->x);
    x86_lahf(&e->x);
    x86_setcc(&e->x, CC_O, RAX);
    x86_rm(&e->x, 0x66, false, 0x89, RAX, HOT(HOT_FLAGS), false);
}

void emit_cold_flags(struct emit *e, const struct cold *c)
{
    if (!c->lazy)
        return;
    x86_store(&e->x, true, HOT(HOT_T0), RAX);
    flags_to_memory(e, c->lazy, NOT_IN_HOST);
    x86_load(&e->x, true, RAX, HOT(HOT_T0));
}

/* Before an operation that calls C and may leave. */
static void flags_for_c(struct emit *e)
{
    if (!e->lazy)
        return;
    enum in_host where = in_host(e, e->lazy);
    bool saved = borrow_rax(e);
    flags_to_memory(e, e->lazy, where);
    return_rax(e, saved);
    e->mem_f = op_of(e, e->lazy)->a;
    e->lazy = 0;
    emit_clobber_flags(e);
}

/* At the block's end: lazy flags go where the next block finds them. */
static void flags_out(struct emit *e, bool dead)
{
    if (!dead)
        flags_for_c(e);
}

/* EFLAGS become flags value id, with a carry that cond can be read from; returns x86's condition. */
static unsigned flags_to_host(struct emit *e, unsigned id, unsigned cond)
{
    if (e->host_f != id && e->lazy && op_of(e, e->lazy)->a == id) {
        bool saved = borrow_rax(e);
        e->host_inv = make_lazy(e, op_of(e, e->lazy));
        return_rax(e, saved);
        e->host_f = (uint16_t)id;
        e->logic_of = 0;
    } else if (e->host_f != id) {
        BUG_ON(e->mem_f != id);
        bool saved = borrow_rax(e);
        x86_rm(&e->x, 0, false, 0x0fb7, RAX, HOT(HOT_FLAGS), false);
        x86_u8(&e->x, 0x04); /* add al, 0x7f: V to OF */
        x86_u8(&e->x, 0x7f);
        x86_sahf(&e->x);
        return_rax(e, saved);
        e->host_f = (uint16_t)id;
        e->host_inv = false;
        e->logic_of = 0;
    }
    unsigned cc = x86_cc(cond, e->host_inv);
    if (cc == NO_CC) {
        x86_cmc(&e->x);
        e->host_inv = true;
        cc = x86_cc(cond, true);
    }
    return cc;
}

/* --- arithmetic ------------------------------------------------------------------------------------------------ */

static int alu_code(unsigned op)
{
    switch (op) {
    case IR_add: return ALU_ADD;
    case IR_sub: return ALU_SUB;
    case IR_and: return ALU_AND;
    case IR_or: return ALU_OR;
    case IR_xor: return ALU_XOR;
    default: return -1;
    }
}

/* d op= value b (a constant, memory or a register). */
static void alu_operand(struct emit *e, bool sf, enum halu op, unsigned d, unsigned b)
{
    struct hmem m;
    if (is_const(e, b) && (sf ? fits32(const_of(e, b)) : true))
        x86_alu_ri(&e->x, sf, op, d, (int32_t)const_of(e, b));
    else if (emit_in_memory(e, b, &m))
        x86_alu_rm(&e->x, sf, op, d, m);
    else
        x86_alu_rr(&e->x, sf, op, d, emit_reg(e, b));
}

/* The register that a value is in, or NO_REG. */
static unsigned reg_now(const struct emit *e, unsigned id)
{
    const struct loc *l = &e->loc[id];
    return l->kind == L_TMP ? jit_temps[l->n] : l->kind == L_GX ? jit_pin_of[l->n] : NO_REG;
}

/* a + (b, a shift that has waited). */
static void add_scaled(struct emit *e, unsigned a, unsigned b)
{
    const struct ir *shift = op_of(e, b);
    unsigned ra = emit_reg(e, a), rb = emit_reg(e, shift->a);

    emit_use(e, a);
    emit_use(e, b);
    unlock_all(e);
    unsigned d = emit_dest(e, e->at);
    x86_lea(&e->x, true, d, MEMX(ra, rb, const_of(e, shift->b), 0));
    emit_bind(e, e->at, d);
}

/*
 * d = a op b for the five plain operations.  The registers of dying operands are reused.  Flags are those of x86.
 * Addition and subtraction without wish for flags use LEA.
 */
static void emit_alu(struct emit *e, const struct ir *ir, bool want_flags)
{
    unsigned a = ir->a, b = ir->b, id = e->at, op = (unsigned)alu_code(ir->op);
    bool sf = ir->k, commutes = op != ALU_SUB;
    int32_t off = 0;

    if (commutes && is_const(e, a)) {
        unsigned t = a;
        a = b;
        b = t;
    }
    bool plus_const = (op == ALU_ADD || op == ALU_SUB) && is_const(e, b) && fits32(const_of(e, b)) && const_of(e, b) != 0x80000000u;
    if (plus_const)
        off = op == ALU_ADD ? (int32_t)const_of(e, b) : (int32_t)(0 - const_of(e, b));
    if (op == ALU_ADD && e->loc[a].kind == L_LATER && op_of(e, a)->op == IR_shl) {
        unsigned t = a;
        a = b;
        b = t;
    }
    if (op == ALU_ADD && e->loc[b].kind == L_LATER && op_of(e, b)->op == IR_shl) {
        add_scaled(e, a, b);
        return;
    }
    unsigned ra = emit_reg(e, a);
    unsigned rb = reg_now(e, b);
    if (!plus_const && rb != NO_REG)
        rb = emit_reg(e, b);
    if (!want_flags && (plus_const || (op == ALU_ADD && rb != NO_REG))) {
        emit_use(e, a);
        emit_use(e, b);
        unlock_all(e);
        unsigned d = emit_dest(e, id);
        x86_lea(&e->x, sf, d, plus_const ? MEM(ra, off) : MEMX(ra, rb, 0, 0));
        emit_bind(e, id, d);
        return;
    }
    /* Operand b in memory or constant: fetch before its place is given up. */
    bool b_late = rb == NO_REG;
    if (b_late) {
        struct hmem m;
        if (!(is_const(e, b) && (!sf || fits32(const_of(e, b)))) && !emit_in_memory(e, b, &m)) {
            rb = emit_reg(e, b);
            b_late = false;
        }
    }
    bool a_dies = e->uses[a] == 1 && e->loc[a].kind == L_TMP && a != b;
    unsigned d;
    if (!want_flags)
        emit_clobber_flags(e);
    if (b_late) {
        unsigned n = emit_hint(e, id);
        if (n && jit_pin_of[n - 1] != NO_REG && e->gx_live[n - 1] == (e->loc[a].kind == L_GX && e->loc[a].n == n - 1 && e->uses[a] == 1))
            d = jit_pin_of[n - 1];
        else if (a_dies)
            d = ra;
        else
            d = emit_temp(e);
        if (d != ra)
            x86_mov_rr(&e->x, true, d, ra);
        alu_operand(e, sf, (enum halu)op, d, b);
        emit_use(e, a);
        emit_use(e, b);
        unlock_all(e);
        lock(e, d);
        emit_bind(e, id, d);
        return;
    }
    emit_use(e, a);
    emit_use(e, b);
    unlock_all(e);
    lock(e, ra);
    lock(e, rb);
    unsigned n = emit_hint(e, id);
    if (n && jit_pin_of[n - 1] != NO_REG && !e->gx_live[n - 1])
        d = jit_pin_of[n - 1];
    else if (temp_index(ra) >= 0 && !e->tmp[temp_index(ra)])
        d = ra;
    else if (temp_index(rb) >= 0 && !e->tmp[temp_index(rb)] && commutes)
        d = rb;
    else
        d = emit_temp(e);
    if (d == ra) {
        x86_alu_rr(&e->x, sf, (enum halu)op, d, rb);
    } else if (d == rb) {
        if (commutes) {
            x86_alu_rr(&e->x, sf, (enum halu)op, d, ra);
        } else if (!want_flags) {
            x86_grp3(&e->x, sf, 3, d);
            x86_alu_rr(&e->x, sf, ALU_ADD, d, ra);
        } else { /* the flags must be those of a - b */
            unsigned t = emit_temp(e);
            x86_mov_rr(&e->x, true, t, ra);
            x86_alu_rr(&e->x, sf, ALU_SUB, t, rb);
            x86_mov_rr(&e->x, true, d, t);
            emit_release(e, t);
        }
    } else {
        x86_mov_rr(&e->x, true, d, ra);
        x86_alu_rr(&e->x, sf, (enum halu)op, d, rb);
    }
    unlock_all(e);
    lock(e, d);
    emit_bind(e, id, d);
    if ((ir->op == IR_and || ir->op == IR_or || ir->op == IR_xor) && !want_flags) {
        e->logic_of = (uint16_t)id;
        e->logic_sf = sf;
    }
}

/* EFLAGS of an AND that has waited. */
static void test_and(struct emit *e, const struct ir *and)
{
    unsigned r = emit_reg(e, and->a);

    if (is_const(e, and->b) && (!and->k || fits32(const_of(e, and->b)))) {
        bool narrow = const_of(e, and->b) <= INT32_MAX; /* SF is 0 either way */
        x86_test_ri(&e->x, and->k && !narrow, r, (int32_t)const_of(e, and->b));
    } else {
        x86_test_rr(&e->x, and->k, r, emit_reg(e, and->b));
    }
}

/* compare a with b: EFLAGS of a - b. */
static void emit_compare(struct emit *e, bool sf, unsigned a, unsigned b)
{
    struct hmem m;
    emit_clobber_flags(e);
    if (e->loc[a].kind == L_LATER && op_of(e, a)->op == IR_and) {
        test_and(e, op_of(e, a));
    } else if (is_const(e, b) && !const_of(e, b)) {
        unsigned r = emit_reg(e, a);
        x86_test_rr(&e->x, sf, r, r);
    } else if (emit_in_memory(e, a, &m) && is_const(e, b) && (!sf || fits32(const_of(e, b)))) {
        x86_alu_mi(&e->x, sf, ALU_CMP, m, (int32_t)const_of(e, b));
    } else {
        unsigned r = emit_reg(e, a);
        alu_operand(e, sf, ALU_CMP, r, b);
    }
}

/* Finds the value operation that belongs to the flags operation at hand: same operands, right behind. */
static unsigned partner(const struct emit *e, const struct ir *f, unsigned op)
{
    for (unsigned i = e->at + 1; i < e->block->n && i < e->at + 5; i++) {
        const struct ir *ir = op_of(e, i);
        if (ir->op == op && ir->k == f->k && ir->a == f->a && ir->b == f->b)
            return i;
        if (ir->op == IR_insn)
            break;
    }
    return 0;
}

/* Flags that nobody reads and that cold code can make again need not be made. */
static bool only_lazy(const struct emit *e, unsigned id)
{
    if (e->uses[id] != 1)
        return false;
    for (unsigned i = id + 1; i < e->block->n && op_of(e, i)->op != IR_insn; i++)
        if (op_of(e, i)->op == IR_set_f && op_of(e, i)->a == id)
            return op_of(e, i)->k > LAZY_HOST;
    return false;
}

static void emit_flags_addsub(struct emit *e, const struct ir *ir)
{
    if (only_lazy(e, e->at)) {
        emit_use_all(e, ir);
        return;
    }
    unsigned id = e->at, sub = ir->op == IR_f_sub, value = partner(e, ir, sub ? IR_sub : IR_add);

    if (value) {
        struct ir copy = *op_of(e, value);
        emit_use_all(e, ir); /* the value still holds its own */
        e->at = value;
        emit_clobber_flags(e);
        emit_alu(e, &copy, true);
        e->done[value] = true;
        e->at = id;
    } else if (sub) {
        emit_compare(e, ir->k, ir->a, ir->b);
        emit_use_all(e, ir);
    } else {
        unsigned t = emit_temp(e);
        emit_clobber_flags(e);
        value_to(e, ir->a, t);
        alu_operand(e, ir->k, ALU_ADD, t, ir->b);
        emit_release(e, t);
        emit_use_all(e, ir);
    }
    unlock_all(e);
    /* A comparison with zero by TEST clears the borrow, as a subtraction of zero does. */
    flags_made(e, id, sub);
}

static void emit_flags_logic(struct emit *e, const struct ir *ir)
{
    unsigned id = e->at;
    if (only_lazy(e, id)) {
        emit_use_all(e, ir);
        return;
    }
    if (e->loc[ir->a].kind == L_LATER) {
        emit_clobber_flags(e);
        test_and(e, op_of(e, ir->a));
    } else if (e->logic_of != ir->a || e->logic_sf != ir->k) {
        emit_clobber_flags(e);
        unsigned r = emit_reg(e, ir->a);
        x86_test_rr(&e->x, ir->k, r, r);
    }
    emit_use_all(e, ir);
    unlock_all(e);
    flags_made(e, id, false);
}

/* ADC, SBC and their flags: EFLAGS' carry is made the guest's (ADC) or its inverse (SBB's borrow). */
static void emit_carry(struct emit *e, const struct ir *ir)
{
    bool flags = ir->op == IR_f_adc || ir->op == IR_f_sbc, sub = ir->op == IR_sbc || ir->op == IR_f_sbc;
    unsigned id = e->at, value = flags ? partner(e, ir, sub ? IR_sbc : IR_adc) : 0;
    unsigned d = emit_temp(e);

    value_to(e, ir->a, d);
    unsigned rb = emit_reg(e, ir->b);
    flags_to_host(e, ir->c, 2);
    if (e->host_inv != sub)
        x86_cmc(&e->x);
    x86_alu_rr(&e->x, ir->k, sub ? ALU_SBB : ALU_ADC, d, rb);
    emit_clobber_flags(e);
    emit_use_all(e, ir);
    unlock_all(e);
    lock(e, d);
    if (value) {
        const struct ir *v = op_of(e, value);
        emit_use_all(e, v);
        emit_bind(e, value, d);
        e->done[value] = true;
    } else if (!flags) {
        emit_bind(e, id, d);
    }
    unlock_all(e);
    if (flags)
        flags_made(e, id, sub);
}

/* d = operation on a copy of a in d. */
#define UNARY(e, ir, d) \
    unsigned ra_ = emit_reg(e, (ir)->a); \
    emit_use_all(e, ir); \
    unlock_all(e); \
    unsigned d = emit_dest(e, (e)->at); \
    if (d != ra_) \
        x86_mov_rr(&(e)->x, true, d, ra_)

/* Swaps the halves of units of 2 * n bits in d. */
static void swap_units(struct emit *e, bool sf, unsigned d, unsigned t, unsigned u, unsigned n, uint64_t mask)
{
    x86_mov_ri(&e->x, u, sf ? mask : (uint32_t)mask);
    x86_mov_rr(&e->x, true, t, d);
    x86_shift_ri(&e->x, sf, SH_SHR, t, n);
    x86_alu_rr(&e->x, sf, ALU_AND, t, u);
    x86_alu_rr(&e->x, sf, ALU_AND, d, u);
    x86_shift_ri(&e->x, sf, SH_SHL, d, n);
    x86_alu_rr(&e->x, sf, ALU_OR, d, t);
}

static void emit_bits(struct emit *e, const struct ir *ir)
{
    bool sf = ir->k;

    emit_clobber_flags(e);
    unsigned ra = emit_reg(e, ir->a);
    emit_use_all(e, ir);
    unlock_all(e);
    lock(e, ra);
    unsigned d = emit_temp(e);
    x86_mov_rr(&e->x, sf, d, ra);
    emit_release(e, ra);
    unsigned t = emit_temp(e), u = emit_temp(e);
    switch (ir->op) {
    case IR_rev16: swap_units(e, sf, d, t, u, 8, UINT64_C(0x00ff00ff00ff00ff)); break;
    case IR_rbit:
        x86_bswap(&e->x, sf, d);
        swap_units(e, sf, d, t, u, 4, UINT64_C(0x0f0f0f0f0f0f0f0f));
        swap_units(e, sf, d, t, u, 2, UINT64_C(0x3333333333333333));
        swap_units(e, sf, d, t, u, 1, UINT64_C(0x5555555555555555));
        break;
    default: /* cls: leading zeros of x ^ x >> 1, less the sign itself */
        x86_mov_rr(&e->x, true, t, d);
        x86_shift_ri(&e->x, sf, SH_SAR, t, 1);
        x86_alu_rr(&e->x, sf, ALU_XOR, d, t);
        x86_lzcnt(&e->x, sf, d, d);
        x86_alu_ri(&e->x, sf, ALU_SUB, d, 1);
        break;
    }
    unlock_all(e);
    lock(e, d);
    emit_bind(e, e->at, d);
}

/* RBIT and CLZ of it, and of nothing else: trailing zeros. */
static bool emit_ctz(struct emit *e, const struct ir *ir)
{
    unsigned id = e->at, i = id + 1;

    while (i < e->block->n && (op_of(e, i)->op == IR_none || op_of(e, i)->op == IR_insn || op_of(e, i)->op == IR_get_x))
        i++;
    const struct ir *clz = op_of(e, i);
    if (i >= e->block->n || clz->op != IR_clz || clz->a != id || clz->k != ir->k || e->uses[id] != 1)
        return false;
    emit_clobber_flags(e);
    unsigned ra = emit_reg(e, ir->a);
    emit_use_all(e, ir);
    unlock_all(e);
    unsigned d = emit_dest(e, i);
    x86_tzcnt(&e->x, ir->k, d, ra);
    e->done[i] = true;
    e->uses[id] = 0;
    emit_bind(e, i, d);
    return true;
}

static void emit_unary(struct emit *e, const struct ir *ir)
{
    bool sf = ir->k;

    if ((ir->op == IR_clz || ir->op == IR_cls) && !jit_host.lzcnt) {
        emit_generic(e, ir);
        return;
    }
    if (ir->op == IR_rbit && jit_host.bmi1 && emit_ctz(e, ir))
        return;
    if (ir->op == IR_cls || ir->op == IR_rbit || ir->op == IR_rev16) {
        emit_bits(e, ir);
        return;
    }
    if (ir->op != IR_not && ir->op != IR_rev)
        emit_clobber_flags(e);
    UNARY(e, ir, d);
    switch (ir->op) {
    case IR_not: x86_grp3(&e->x, sf, 2, d); break;
    case IR_neg: x86_grp3(&e->x, sf, 3, d); break;
    case IR_clz: x86_lzcnt(&e->x, sf, d, d); break;
    case IR_rev: x86_bswap(&e->x, sf, d); break;
    default: /* rev32 */
        x86_bswap(&e->x, true, d);
        x86_shift_ri(&e->x, true, SH_ROR, d, 32);
        break;
    }
    emit_bind(e, e->at, d);
}

static void emit_ext(struct emit *e, const struct ir *ir)
{
    static const uint16_t ops[] = { 0x0fb6, 0x0fb7, 0, 0x0fbe, 0x0fbf, 0x63 };
    unsigned ra = emit_reg(e, ir->a);
    emit_use_all(e, ir);
    unlock_all(e);
    unsigned d = emit_dest(e, e->at);
    if (ir->k == EXT_U32)
        x86_mov_rr(&e->x, false, d, ra);
    else
        x86_ext_rr(&e->x, ir->k > EXT_U32, ops[ir->k], d, ra);
    emit_bind(e, e->at, d);
}

static void emit_shift(struct emit *e, const struct ir *ir)
{
    bool sf = ir->k;
    unsigned kind = ir->op - IR_shl;
    static const uint8_t imm_code[] = { SH_SHL, SH_SHR, SH_SAR, SH_ROR }, pp[] = { 1, 3, 2 };

    if (is_const(e, ir->b)) {
        unsigned n = const_of(e, ir->b) & (sf ? 63 : 31);
        emit_clobber_flags(e);
        unsigned ra = emit_reg(e, ir->a);
        emit_use_all(e, ir);
        unlock_all(e);
        unsigned d = emit_dest(e, e->at);
        if (kind == 3 && jit_host.bmi2) {
            x86_rorx(&e->x, sf, d, ra, n);
        } else {
            if (d != ra || !n)
                x86_mov_rr(&e->x, sf, d, ra);
            if (n)
                x86_shift_ri(&e->x, sf, imm_code[kind], d, n);
        }
        emit_bind(e, e->at, d);
        return;
    }
    if (kind == 3 || !jit_host.bmi2) {
        emit_generic(e, ir);
        return;
    }
    unsigned ra = emit_reg(e, ir->a), rb = emit_reg(e, ir->b);
    emit_use_all(e, ir);
    unlock_all(e);
    unsigned d = emit_dest(e, e->at);
    x86_vex_f7(&e->x, sf, pp[kind], d, ra, rb);
    emit_bind(e, e->at, d);
}

/* and-not, or-not, xor-not, multiply: d = a op b with b kept apart. */
static void emit_binary(struct emit *e, const struct ir *ir)
{
    bool sf = ir->k;
    emit_clobber_flags(e);
    unsigned ra = emit_reg(e, ir->a), rb = emit_reg(e, ir->b);
    emit_use_all(e, ir);
    unsigned d = ir->op == IR_mul ? emit_dest(e, e->at) : emit_temp(e);
    switch (ir->op) {
    case IR_mul:
        if (d != rb)
            x86_mov_rr(&e->x, true, d, ra);
        x86_imul_rr(&e->x, sf, d, d == rb ? ra : rb);
        break;
    case IR_andn: case IR_orn: case IR_xorn:
        x86_mov_rr(&e->x, true, d, rb);
        x86_grp3(&e->x, sf, 2, d);
        x86_alu_rr(&e->x, sf, ir->op == IR_andn ? ALU_AND : ir->op == IR_orn ? ALU_OR : ALU_XOR, d, ra);
        break;
    default: BUG("no binary %u", ir->op);
    }
    unlock_all(e);
    lock(e, d);
    emit_bind(e, e->at, d);
}

static void emit_mulh(struct emit *e, const struct ir *ir)
{
    emit_clobber_flags(e);
    unlock_all(e);
    emit_take(e, RAX);
    emit_take(e, RDX);
    value_to(e, ir->a, RAX);
    struct hmem m;
    unsigned digit = ir->op == IR_umulh ? 4 : 5;
    if (emit_in_memory(e, ir->b, &m))
        x86_rm(&e->x, 0, true, 0xf7, digit, m, false);
    else
        x86_grp3(&e->x, true, digit, emit_reg(e, ir->b));
    emit_use_all(e, ir);
    unlock_all(e);
    lock(e, RDX);
    emit_bind(e, e->at, RDX);
}

/* Division by zero gives zero, and the most negative number by -1 itself: neither may reach DIV. */
static void emit_div(struct emit *e, const struct ir *ir)
{
    bool sf = ir->k, sign = ir->op == IR_sdiv;
    emit_clobber_flags(e);
    unlock_all(e);
    emit_take(e, RAX);
    emit_take(e, RDX);
    unsigned rb = emit_reg(e, ir->b);
    value_to(e, ir->a, RAX);
    x86_alu_rr(&e->x, false, ALU_XOR, RDX, RDX);
    x86_test_rr(&e->x, sf, rb, rb);
    uint8_t *zero = x86_jcc(&e->x, CC_E), *minus = NULL;
    if (sign) {
        x86_alu_ri(&e->x, sf, ALU_CMP, rb, -1);
        minus = x86_jcc(&e->x, CC_E);
        x86_rex(&e->x, sf, 0, NO_REG, 0, false);
        x86_u8(&e->x, 0x99); /* cdq, cqo */
    }
    x86_grp3(&e->x, sf, sign ? 7 : 6, rb);
    uint8_t *end = x86_jmp(&e->x), *end2 = NULL;
    if (sign) {
        x86_here(&e->x, minus);
        x86_grp3(&e->x, sf, 3, RAX);
        end2 = x86_jmp(&e->x);
    }
    x86_here(&e->x, zero);
    x86_mov_ri(&e->x, RAX, 0);
    x86_here(&e->x, end);
    if (end2)
        x86_here(&e->x, end2);
    emit_use_all(e, ir);
    unlock_all(e);
    lock(e, RAX);
    emit_bind(e, e->at, RAX);
}

static void emit_extr(struct emit *e, const struct ir *ir)
{
    emit_clobber_flags(e);
    unsigned hi = emit_reg(e, ir->a), lo = emit_reg(e, ir->b);
    emit_use_all(e, ir);
    unsigned d = emit_temp(e);
    if (hi == lo && ir->x && jit_host.bmi2) {
        x86_rorx(&e->x, ir->k, d, lo, ir->x);
        unlock_all(e);
        lock(e, d);
        emit_bind(e, e->at, d);
        return;
    }
    x86_mov_rr(&e->x, true, d, lo);
    if (ir->x)
        x86_shrd(&e->x, ir->k, d, hi, ir->x);
    else if (!ir->k)
        x86_mov_rr(&e->x, false, d, d);
    unlock_all(e);
    lock(e, d);
    emit_bind(e, e->at, d);
}

/* CRC32C is an instruction of the host's SSE4.2, with the same rules: acc is 32 bits and nothing is inverted. */
static void crc32c(struct emit *e, unsigned size, unsigned acc, unsigned v, unsigned d)
{
    x86_mov_rr(&e->x, false, d, acc);
    if (size == 1)
        x86_u8(&e->x, 0x66);
    x86_rr(&e->x, 0xf2, size == 3, size ? 0x0f38f1 : 0x0f38f0, d, v, !size);
}

/*
 * CRC32 of n bits is n steps of "add the polynomial P if bit 0 is set, shift right".  The P's that 64 steps add are the
 * carry-less product of P and q = x / P modulo x^64, and the result is what that has above bit 63.  Fewer steps: x starts
 * higher up, and what is pushed out at the top is added at the end.
 */
static void crc32(struct emit *e, unsigned size, unsigned acc, unsigned v, unsigned d)
{
    unsigned n = 8u << size, t = size < 2 ? emit_temp(e) : d;

    emit_clobber_flags(e);
    if (size < 2)
        x86_ext_rr(&e->x, false, size ? 0x0fb7 : 0x0fb6, d, v);
    else if (size == 2)
        x86_mov_rr(&e->x, false, d, v);
    if (size < 3) {
        x86_alu_rr(&e->x, false, ALU_XOR, d, acc);
    } else { /* only the low half of acc counts */
        x86_mov_rr(&e->x, false, d, acc);
        x86_alu_rr(&e->x, true, ALU_XOR, d, v);
    }
    if (t != d)
        x86_mov_rr(&e->x, true, t, d);
    if (n < 64)
        x86_shift_ri(&e->x, true, SH_SHL, t, 64 - n);
    xop2w(&e->x, X66(0x6e), true, 0, t);
    xop3m(&e->x, X3A(0x44), 0, 0, HOT(HOT_K + 2 * K_CRC32));
    x86_u8(&e->x, 0x00);
    xop3m(&e->x, X3A(0x44), 0, 0, HOT(HOT_K + 2 * K_CRC32));
    x86_u8(&e->x, 0x10);
    xop2w(&e->x, X3A(0x16), true, 0, t);
    x86_u8(&e->x, 1);
    if (t != d) {
        x86_shift_ri(&e->x, false, SH_SHR, d, n);
        x86_alu_rr(&e->x, false, ALU_XOR, d, t);
    }
}

static void emit_crc(struct emit *e, const struct ir *ir)
{
    if (!is_const(e, ir->c) || (ir->op == IR_h_crc32 && !jit_host.pclmul)) {
        emit_generic(e, ir);
        return;
    }
    unsigned size = (unsigned)const_of(e, ir->c), acc = emit_reg(e, ir->a), v = emit_reg(e, ir->b), d = emit_temp(e);
    if (ir->op == IR_h_crc32)
        crc32(e, size, acc, v, d);
    else
        crc32c(e, size, acc, v, d);
    emit_use_all(e, ir);
    unlock_all(e);
    lock(e, d);
    emit_bind(e, e->at, d);
}

/* --- conditions ---------------------------------------------------------------------------------------------------- */

static bool is_compare(unsigned op)
{
    return op == IR_eq || op == IR_ne || op == IR_ult || op == IR_slt;
}

static unsigned compare_cc(unsigned op)
{
    return op == IR_eq ? CC_E : op == IR_ne ? CC_NE : op == IR_ult ? CC_B : CC_L;
}

/* EFLAGS of a compare operation; a test of one bit or mask against zero needs no AND.  Uses stay. */
static unsigned compare_to_host(struct emit *e, const struct ir *ir)
{
    emit_compare(e, ir->k, ir->a, ir->b);
    return compare_cc(ir->op);
}

/* Makes EFLAGS tell whether value q is non-zero; returns x86's condition.  Operand uses of a later value are consumed. */
static unsigned condition(struct emit *e, unsigned q)
{
    const struct ir *ir = op_of(e, q);
    unsigned cc;
    if (e->loc[q].kind == L_LATER && ir->op == IR_cond) {
        cc = flags_to_host(e, ir->a, ir->k);
    } else if (e->loc[q].kind == L_LATER && is_compare(ir->op)) {
        cc = compare_to_host(e, ir);
    } else {
        emit_clobber_flags(e);
        unsigned r = emit_reg(e, q);
        x86_test_rr(&e->x, true, r, r);
        cc = CC_NE;
    }
    return cc;
}

/* A later value is wanted in a register after all. */
static void emit_later(struct emit *e, unsigned id, unsigned host)
{
    const struct ir *ir = op_of(e, id);
    int32_t off;
    if (is_add_const(e, id, &off)) {
        unsigned ra = emit_reg(e, ir->a);
        x86_lea(&e->x, true, host, MEM(ra, off));
    } else if (ir->op == IR_shl || ir->op == IR_and) {
        emit_clobber_flags(e);
        value_to(e, ir->a, host);
        if (ir->op == IR_shl)
            x86_shift_ri(&e->x, true, SH_SHL, host, (unsigned)const_of(e, ir->b));
        else
            alu_operand(e, ir->k, ALU_AND, host, ir->b);
    } else {
        unsigned cc = condition(e, id);
        x86_setcc(&e->x, (enum hcc)cc, host);
        x86_ext_rr(&e->x, false, 0x0fb6, host, host);
    }
}

/* Where a or b goes: the home that the result is for, if nothing else needs it (b may be there for the last time). */
static unsigned select_dest(struct emit *e, unsigned a, unsigned b)
{
    unsigned n = emit_hint(e, e->at);
    bool own = n && a != b && e->loc[b].kind == L_GX && e->loc[b].n == n - 1 && e->uses[b] == 1;

    if (n && jit_pin_of[n - 1] != NO_REG && e->gx_live[n - 1] == own)
        return jit_pin_of[n - 1];
    return emit_temp(e);
}

static void emit_select(struct emit *e, const struct ir *ir)
{
    unsigned q = ir->a, a = ir->b, b = ir->c;
    unsigned ra = emit_reg(e, a), rb = emit_reg(e, b);
    unsigned d = select_dest(e, a, b); /* before the condition: taking a temporary may move values, but not flags */
    unsigned cc = condition(e, q);

    if (d != rb)
        x86_mov_rr(&e->x, true, d, rb);
    x86_cmov(&e->x, true, (enum hcc)cc, d, ra);
    emit_use(e, q);
    emit_use(e, a);
    emit_use(e, b);
    unlock_all(e);
    lock(e, d);
    emit_bind(e, e->at, d);
}

/* Flags that only CCMP uses are emitted by it. */
bool emit_for_f_select(const struct emit *e, unsigned id)
{
    for (unsigned i = id + 1; i < e->block->n && i < id + 8; i++) {
        const struct ir *u = op_of(e, i);
        if (u->op == IR_f_select && (u->b == id || u->c == id))
            return true;
    }
    return false;
}

/* FCCMP: the comparison has been made, and waits in HOT_RESERVED. */
static void select_ready_flags(struct emit *e, const struct ir *ir)
{
    unsigned t = emit_temp(e), u = emit_temp(e);
    unsigned cc = condition(e, ir->a);

    x86_load(&e->x, false, t, HOT(HOT_RESERVED));
    x86_mov_ri(&e->x, u, jit_hot_flags((uint32_t)op_of(e, ir->c)->imm));
    x86_cmov(&e->x, false, (enum hcc)(cc ^ 1), t, u);
    x86_store(&e->x, false, HOT(HOT_FLAGS), t);
    emit_clobber_flags(e);
    e->mem_f = (uint16_t)e->at;
    emit_use_all(e, ir);
    unlock_all(e);
}

/* CCMP: flags of a comparison or a constant, by condition: both ways store to HOT_FLAGS. */
static void emit_f_select(struct emit *e, const struct ir *ir)
{
    unsigned id = e->at, q = ir->a;
    const struct ir *fa = op_of(e, ir->b), *fb = op_of(e, ir->c);

    BUG_ON(fb->op != IR_f_const || (fa->op != IR_f_sub && fa->op != IR_f_add && fa->op != IR_f_fcmp));
    if (fa->op == IR_f_fcmp) {
        select_ready_flags(e, ir);
        return;
    }
    /* Operands first, so that both paths leave every value at the same place. */
    emit_take(e, RAX);
    unsigned ra = emit_reg(e, fa->a), rb = NO_REG;
    bool imm = is_const(e, fa->b) && fits32(const_of(e, fa->b)), sf = fa->k, inv = fa->op == IR_f_sub;
    if (!imm)
        rb = emit_reg(e, fa->b);
    unsigned cc = condition(e, q);
    emit_clobber_flags(e);
    uint8_t *no = x86_jcc(&e->x, (enum hcc)(cc ^ 1));
    if (!inv) {
        x86_mov_rr(&e->x, true, RAX, ra);
        ra = RAX;
    }
    if (imm)
        x86_alu_ri(&e->x, sf, inv ? ALU_CMP : ALU_ADD, ra, (int32_t)const_of(e, fa->b));
    else
        x86_alu_rr(&e->x, sf, inv ? ALU_CMP : ALU_ADD, ra, rb);
    uint8_t *end = x86_jmp(&e->x);
    x86_here(&e->x, no);
    x86_mov_ri(&e->x, RAX, jit_hot_flags((uint32_t)fb->imm) ^ (inv ? 0x100 : 0));
    x86_u8(&e->x, 0x04); /* add al, 0x7f: V to OF */
    x86_u8(&e->x, 0x7f);
    x86_sahf(&e->x);
    x86_here(&e->x, end);
    emit_use(e, q);
    for (unsigned i = 0; i < 2; i++) {
        unsigned f = i ? ir->c : ir->b;
        if (e->uses[f] == 1)
            emit_use_all(e, op_of(e, f));
        emit_use(e, f);
    }
    unlock_all(e);
    flags_made(e, id, inv);
}

/* HOT_FLAGS from a packed NZCV in a register (which is destroyed), with a second one for help. */
static void flags_from_nzcv(struct emit *e, unsigned r, unsigned id, enum hot word)
{
    unsigned t = emit_temp(e), u = emit_temp(e);
    emit_clobber_flags(e);
    x86_mov_rr(&e->x, false, t, r);
    x86_shift_ri(&e->x, false, SH_SHR, t, 16);
    x86_alu_ri(&e->x, false, ALU_AND, t, 0xc000);
    x86_mov_rr(&e->x, false, u, r);
    x86_shift_ri(&e->x, false, SH_SHR, u, 21);
    x86_alu_ri(&e->x, false, ALU_AND, u, 0x100);
    x86_alu_rr(&e->x, false, ALU_OR, t, u);
    x86_mov_rr(&e->x, false, u, r);
    x86_shift_ri(&e->x, false, SH_SHR, u, 28);
    x86_alu_ri(&e->x, false, ALU_AND, u, 1);
    x86_alu_rr(&e->x, false, ALU_OR, t, u);
    x86_store(&e->x, false, HOT(word), t);
    if (word == HOT_FLAGS)
        e->mem_f = (uint16_t)id;
    unlock_all(e);
}

static void emit_f_of_v(struct emit *e, const struct ir *ir)
{
    unsigned r = emit_reg(e, ir->a);
    flags_from_nzcv(e, r, e->at, HOT_FLAGS);
    emit_use_all(e, ir);
}

static void emit_v_of_f(struct emit *e, const struct ir *ir)
{
    unsigned d = emit_temp(e), t = emit_temp(e);
    if (e->mem_f != ir->a) /* it is what set_f stored, or the flags at the start */
        e->failed = true;
    emit_clobber_flags(e);
    x86_load(&e->x, false, t, HOT(HOT_FLAGS));
    x86_mov_rr(&e->x, false, d, t);
    x86_alu_ri(&e->x, false, ALU_AND, d, 0xc000);
    x86_shift_ri(&e->x, false, SH_SHL, d, 5);
    x86_alu_rr(&e->x, false, ALU_OR, d, t); /* C at bit 8 joins N, Z at 20, 19 */
    x86_alu_ri(&e->x, false, ALU_AND, d, 0x180101);
    x86_mov_rr(&e->x, false, t, d);
    x86_alu_ri(&e->x, false, ALU_AND, t, 1);
    x86_shift_ri(&e->x, false, SH_SHL, t, 28);
    x86_alu_ri(&e->x, false, ALU_AND, d, 0x180100);
    x86_shift_ri(&e->x, false, SH_SHL, d, 11); /* N, Z to 31, 30; C to 19 */
    x86_alu_rr(&e->x, false, ALU_OR, t, d);
    x86_mov_rr(&e->x, false, d, t);
    x86_alu_ri(&e->x, false, ALU_AND, t, 0x80000);
    x86_shift_ri(&e->x, false, SH_SHL, t, 10);
    x86_alu_ri(&e->x, false, ALU_AND, d, (int32_t)0xd0000000);
    x86_alu_rr(&e->x, false, ALU_OR, d, t);
    emit_use_all(e, ir);
    unlock_all(e);
    lock(e, d);
    emit_bind(e, e->at, d);
}

/* --- calls to C ------------------------------------------------------------------------------------------------------ */

static struct hmem arg(unsigned i)
{
    return HOT(HOT_A + 2 * i);
}

void emit_c_op(struct emit *e, const struct ir *ir, unsigned insn, int off, bool keep)
{
    /* What is to be done stands behind the call, jumped over: half the size of stores to the hot words. */
    bool wide = ir->op == IR_exception || ir->op == IR_undefined || ir->op == IR_fp_trap;
    x86_call_to(&e->x, (keep ? e->stubs->call_keep : e->stubs->call) - e->x.exec);
    x86_u8(&e->x, 0xeb);
    x86_u8(&e->x, JIT_DESC_BYTES);
    x86_u32(&e->x, ir->op | (uint32_t)ir->k << 16 | (uint32_t)ir->x << 24);
    x86_u32(&e->x, (unsigned)((int)e->page_off + off) | (e->block->insns - insn) << 12);
    x86_u32(&e->x, wide ? (uint32_t)ir->imm : ir->imm16);
}

void emit_generic(struct emit *e, const struct ir *ir)
{
    const char *types = ir_info[ir->op].operands;
    unsigned effects = ir_info[ir->op].effects, result = ir_info[ir->op].result;

    if (effects & (IE_FAULT | IE_STATE))
        flags_for_c(e);
    emit_clobber_flags(e);
    for (unsigned i = 0; i < ir_operands(ir->op); i++) {
        unsigned id = ir_operand(ir, i);
        if (types[i] == 'W') {
            x86_movdqu_store(&e->x, arg(i), emit_xmm(e, id));
            e->xlocked = 0;
        } else {
            unsigned r = emit_reg(e, id);
            x86_store(&e->x, true, arg(i), r);
            unlock_all(e);
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
        flags_from_nzcv(e, r, id, emit_for_f_select(e, id) ? HOT_RESERVED : HOT_FLAGS);
    }
    unlock_all(e);
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
        unlock_all(e);
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
                        .id = (uint16_t)e->at, .lazy = (uint16_t)lazy, .host = (uint8_t)in_host(e, lazy) };
    return c;
}

/* --- exits ------------------------------------------------------------------------------------------------------------ */

/* Leaves for the run loop when cpu->pending says so; RAX is the pc to go on at.  ECX is destroyed. */
static void emit_poll(struct emit *e)
{
    x86_load(&e->x, false, RCX, CPU_MEM(pending));
    x86_rm(&e->x, 0, false, 0x85, RCX, HOT(HOT_MASK), false);
    uint8_t *leave = x86_jcc(&e->x, CC_NE);
    if (!e->x.full)
        x86_patch(leave, e->stubs->leave_at - e->x.exec);
}

void emit_dispatch_code(struct x86 *x, const uint8_t *leave_at)
{
    uint8_t *leave[2];

    x86_load(x, false, RCX, CPU_MEM(pending));
    x86_rm(x, 0, false, 0x85, RCX, HOT(HOT_MASK), false);
    leave[0] = x86_jcc(x, CC_NE);
    x86_mov_rr(x, true, RCX, RAX);
    x86_alu_ri(x, false, ALU_AND, RCX, ((1 << JUMP_BITS) - 1) << 2);
    x86_load(x, true, RDX, HOT(HOT_JUMPS));
    x86_mov_rr(x, true, RSI, RAX);
    x86_alu_rm(x, true, ALU_XOR, RSI, HOT(HOT_KEY));
    x86_alu_rm(x, true, ALU_CMP, RSI, MEMX(RDX, RCX, 2, 0));
    leave[1] = x86_jcc(x, CC_NE);
    x86_jmp_mem(x, MEMX(RDX, RCX, 2, 8));
    for (unsigned i = 0; i < 2 && !x->full; i++)
        x86_patch(leave[i], leave_at);
}

/* To the va in RAX, by the jump cache.  Inline where the host's predictor profits from a place of its own. */
static void emit_dispatch(struct emit *e, bool inline_)
{
    if (inline_)
        emit_dispatch_code(&e->x, e->stubs->leave_at - e->x.exec);
    else
        x86_jmp_to(&e->x, e->stubs->dispatch - e->x.exec);
}

/*
 * Before a jump or call, whose opcode has that many bytes, that is patched while other vCPUs may run it: its displacement
 * must lie in an aligned quadword.  Flags stay.
 */
enum { JMP_OPCODE = 1, JCC_OPCODE = 2 };
static void emit_align_link(struct emit *e, unsigned opcode)
{
    static const uint8_t nops[4][3] = { { 0 }, { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0x00 } };
    unsigned over = (unsigned)(uintptr_t)(e->x.p + opcode) & 7, n = over > 4 ? 8 - over : 0;

    for (unsigned i = 0; i < n; i++)
        x86_u8(&e->x, nops[n][i]);
}

/* The place of a jump or call to page offset `to'; until it is patched it leads to the run loop. */
static void add_link(struct emit *e, uint8_t *from, unsigned to)
{
    if (e->nlinks == MAX_LINKS) {
        e->failed = true;
        return;
    }
    struct cold *c = emit_cold(e, COLD_LINK, from);
    c->id = (uint16_t)e->nlinks;
    e->links[e->nlinks++] = (struct jit_link){ from, (uint16_t)to, (uint8_t)e->mode };
}

static bool in_page(const struct emit *e, uint64_t off)
{
    int64_t to = (int64_t)e->page_off + (int64_t)off;
    return to >= 0 && to < MEM_PAGE_SIZE;
}

static void emit_goto(struct emit *e, uint64_t off)
{
    unsigned to = (unsigned)(e->page_off + off);

    if (!in_page(e, off)) {
        load_pc(e, RAX, off);
        emit_dispatch(e, false);
    } else if ((int64_t)off > e->off) {
        emit_align_link(e, JMP_OPCODE);
        add_link(e, x86_jmp(&e->x), to);
    } else { /* backwards: a loop must notice interrupts */
        x86_load(&e->x, false, RCX, CPU_MEM(pending));
        x86_rm(&e->x, 0, false, 0x85, RCX, HOT(HOT_MASK), false);
        emit_align_link(e, JCC_OPCODE);
        add_link(e, x86_jcc(&e->x, CC_E), to);
        load_pc(e, RAX, off);
        x86_jmp_to(&e->x, e->stubs->leave_at - e->x.exec);
    }
}

/* A way out of the block at `from' (a jump's place) to offset off. */
static void add_side(struct emit *e, uint8_t *from, uint64_t off, bool flags_dead)
{
    struct cold *c = emit_cold(e, COLD_SIDE, from);

    c->imm[0] = off;
    if (flags_dead)
        c->lazy = 0;
}

static void emit_side(struct emit *e, const struct ir *ir)
{
    unsigned cc = condition(e, ir->a);

    unlock_all(e);
    add_side(e, x86_jcc(&e->x, (enum hcc)cc), ir->imm, ir->k);
    emit_use(e, ir->a);
}

/* A trace goes on at a smaller address. */
static void emit_trace_poll(struct emit *e, const struct ir *ir)
{
    unsigned t = emit_temp(e);

    emit_clobber_flags(e);
    x86_load(&e->x, false, t, CPU_MEM(pending));
    x86_rm(&e->x, 0, false, 0x85, t, HOT(HOT_MASK), false);
    emit_cold(e, COLD_POLL, x86_jcc(&e->x, CC_NE))->imm[0] = ir->imm;
}

/* Cold code of a side exit: flags, the instructions that are not run after all, and on. */
static void emit_side_cold(struct emit *e, const struct cold *c)
{
    int32_t rest = (int32_t)(e->block->insns - c->insn) - 1;

    e->insn = c->insn;
    e->off = c->off;
    if (c->lazy)
        flags_to_memory(e, c->lazy, c->host);
    if (rest)
        x86_alu_mi(&e->x, true, ALU_SUB, CPU_MEM(icount), rest);
    if (c->kind == COLD_SIDE) {
        emit_goto(e, c->imm[0]);
    } else {
        load_pc(e, RAX, c->imm[0]);
        x86_jmp_to(&e->x, e->stubs->leave_at - e->x.exec);
    }
}

/* Pushes the tag of the return address, which x30 has already, onto the return stack; r is destroyed. */
static void push_return(struct emit *e, unsigned r)
{
    x86_load(&e->x, true, r, home(30));
    x86_alu_rm(&e->x, true, ALU_XOR, r, HOT(HOT_KEY));
    x86_alu_rm(&e->x, true, ALU_CMP, RSP, HOT(HOT_RS_LIMIT));
    emit_cold(e, COLD_STACK, x86_jcc(&e->x, CC_B))->back = e->x.p;
    x86_push(&e->x, r);
}

/* Where a return comes back to: RAX is its address, and the tag is still on the stack. */
static void emit_return_point(struct emit *e, uint64_t off)
{
    x86_lea(&e->x, true, RCX, MEM(RAX, -(int32_t)(e->page_off + off)));
    x86_store(&e->x, true, HOT(HOT_PAGE), RCX);
    x86_lea(&e->x, true, RSP, MEM(RSP, 8));
    emit_align_link(e, JMP_OPCODE);
    add_link(e, x86_jmp(&e->x), (unsigned)(e->page_off + off));
}

static void emit_branch_rel(struct emit *e, const struct ir *ir)
{
    uint64_t ret = (uint64_t)(int64_t)e->off + 4;
    int64_t to = (int64_t)e->page_off + (int64_t)ir->imm;

    flags_out(e, ir->k & FLAGS_DEAD_NEXT);
    if (ir->x != BR_CALL || e->page_off + ret >= MEM_PAGE_SIZE) {
        emit_goto(e, ir->imm);
        return;
    }
    bool inside = to >= 0 && to < MEM_PAGE_SIZE;
    if (inside && (int64_t)ir->imm <= (int64_t)ret) {
        x86_load(&e->x, false, RCX, CPU_MEM(pending));
        x86_rm(&e->x, 0, false, 0x85, RCX, HOT(HOT_MASK), false);
        emit_cold(e, COLD_POLL, x86_jcc(&e->x, CC_NE))->imm[0] = ir->imm;
    }
    push_return(e, RAX);
    if (inside)
        emit_align_link(e, JMP_OPCODE);
    uint8_t *call = x86_call(&e->x);
    if (inside)
        add_link(e, call, (unsigned)to);
    emit_return_point(e, ret);
    if (!inside) {
        x86_here(&e->x, call);
        load_pc(e, RAX, ir->imm);
        emit_dispatch(e, false);
    }
}

static void emit_branch(struct emit *e, const struct ir *ir)
{
    uint64_t ret = (uint64_t)(int64_t)e->off + 4;

    unlock_all(e);
    flags_out(e, false);
    value_to(e, ir->a, RAX);
    emit_clobber_flags(e);
    if (ir->x == BR_RET) {
        x86_mov_rr(&e->x, true, RCX, RAX);
        x86_alu_rm(&e->x, true, ALU_XOR, RCX, HOT(HOT_KEY));
        x86_alu_rm(&e->x, true, ALU_CMP, RCX, MEM(RSP, 8));
        uint8_t *other = x86_jcc(&e->x, CC_NE);
        x86_ret(&e->x);
        x86_here(&e->x, other); /* another task's or a forgotten frame: start afresh */
        x86_load(&e->x, true, RSP, HOT(HOT_RS_TOP));
    } else if (ir->x == BR_CALL && e->page_off + ret < MEM_PAGE_SIZE) {
        push_return(e, RCX);
        uint8_t *call = x86_call(&e->x);
        emit_return_point(e, ret);
        x86_here(&e->x, call);
    }
    emit_dispatch(e, ir->x != BR_RET);
}

/* Backwards: mostly taken, and the other way is cold. */
static void emit_branch_if(struct emit *e, const struct ir *ir)
{
    unsigned cc = condition(e, ir->a);
    uint64_t next = (uint64_t)(int64_t)(int16_t)ir->b;
    bool next_dead = !e->lazy || ir->k & FLAGS_DEAD_NEXT, taken_dead = !e->lazy || ir->k & FLAGS_DEAD_TAKEN;

    unlock_all(e);
    if ((int64_t)ir->imm <= e->off && in_page(e, ir->imm)) {
        add_side(e, x86_jcc(&e->x, (enum hcc)(cc ^ 1)), next, next_dead);
        flags_out(e, taken_dead);
        emit_goto(e, ir->imm);
        return;
    }
    bool direct = taken_dead && in_page(e, ir->imm);
    if (direct)
        emit_align_link(e, JCC_OPCODE);
    uint8_t *taken = x86_jcc(&e->x, (enum hcc)cc);
    if (direct)
        add_link(e, taken, (unsigned)(e->page_off + ir->imm));
    else
        add_side(e, taken, ir->imm, taken_dead);
    flags_out(e, next_dead);
    emit_goto(e, next);
}

static void emit_leave(struct emit *e, const struct ir *ir, bool state_ran)
{
    if (e->leave != AFTER_C) {
        if (e->leave == AFTER_POLL) {
            load_pc(e, RAX, ir->imm);
            emit_poll(e);
        }
        emit_goto(e, ir->imm);
        return;
    }
    if (state_ran) {
        x86_jmp_to(&e->x, e->stubs->leave_next - e->x.exec);
        return;
    }
    load_pc(e, RAX, ir->imm);
    x86_jmp_to(&e->x, e->stubs->leave_at - e->x.exec);
}

static void emit_sp_check(struct emit *e)
{
    emit_clobber_flags(e);
    x86_test_ri(&e->x, false, jit_pin_of[31], 15);
    emit_cold(e, COLD_OP, x86_jcc(&e->x, CC_NE));
}

static void emit_barrier(struct emit *e, const struct ir *ir)
{
    switch (ir->k) {
    case BAR_DMB:
    case BAR_SB:
        emit_clobber_flags(e);
        x86_u8(&e->x, 0xf0); /* lock or dword [rsp], 0 */
        x86_alu_mi(&e->x, false, ALU_OR, MEM(RSP, 0), 0);
        break;
    case BAR_DSB: emit_dsb(e); break;
    default: break; /* x86 keeps the order; ISB ends the block */
    }
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
    bool compare = is_compare(ir->op), address = is_add_const(e, id, &off);
    bool scaled = ir->op == IR_shl && ir->k && is_const(e, ir->b) && const_of(e, ir->b) - 1 < 3;
    bool and = ir->op == IR_and && !is_const(e, ir->a);
    if (!compare && !address && !scaled && !and)
        return false;
    for (unsigned i = id + 1; i < e->block->n; i++) {
        const struct ir *u = op_of(e, i);
        if (u->op == IR_none || u->op == IR_const || u->op == IR_get_x || u->op == IR_get_w || u->op == IR_get_f)
            continue;
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
        unsigned cc = compare_to_host(e, ir);
        x86_setcc(&e->x, (enum hcc)cc, d);
        x86_ext_rr(&e->x, false, 0x0fb6, d, d);
        emit_use_all(e, ir);
        unlock_all(e);
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
    if (ir->k == LAZY_HOST && e->host_f != ir->a) { /* C made them, or they are a constant: stored all the same */
        BUG_ON(e->mem_f != ir->a);
        e->lazy = 0;
    }
    emit_use(e, ir->a);
}

static void emit_op(struct emit *e, const struct ir *ir, bool *state_ran)
{
    unsigned id = e->at;
    switch (ir->op) {
    case IR_none: break;
    case IR_insn:
        e->insn = id == 1 ? 0 : e->insn + 1;
        e->off = (int32_t)(int64_t)ir->imm;
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
    case IR_exit:
        flags_out(e, ir->k & FLAGS_DEAD_NEXT);
        emit_goto(e, ir->imm);
        break;
    case IR_side: emit_side(e, ir); break;
    case IR_poll: emit_trace_poll(e, ir); break;
    case IR_branch: emit_branch(e, ir); break;
    case IR_branch_rel: emit_branch_rel(e, ir); break;
    case IR_branch_if: emit_branch_if(e, ir); break;
    case IR_leave: emit_leave(e, ir, *state_ran); break;
    case IR_undefined: case IR_fp_trap: case IR_exception: emit_c_op(e, ir, e->insn, e->off, false); break;
    default:
        if (ir->op == IR_load_ex || ir->op == IR_store_ex) {
            emit_exclusive(e, ir);
        } else if (emit_system(e, ir)) {
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
    unlock_all(e);
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
    e->insn = s->insn;
    e->off = s->off;
    unlock_all(e);
    emit_clobber_flags(e);
}

/*
 * A group that is not in one page that the TLB has: its instructions once more, each access by itself, and on with the
 * next block.
 */
static void emit_group_cold(struct emit *e, unsigned number)
{
    const struct group *g = &e->group[number];
    bool state_ran = false;
    unsigned i;

    restore_snapshot(e, number);
    e->no_groups = true;
    for (i = g->first; i < e->block->n && !e->failed && !e->x.full; i++) {
        if (i > g->last && op_of(e, i)->op == IR_insn)
            break;
        e->at = i;
        if (!e->done[i])
            emit_op(e, op_of(e, i), &state_ran);
    }
    if (i == e->block->n || e->failed || e->x.full)
        return;
    int32_t rest = (int32_t)(e->block->insns - e->insn) - 1;
    if (e->lazy)
        flags_to_memory(e, e->lazy, in_host(e, e->lazy));
    if (rest)
        x86_alu_mi(&e->x, true, ALU_SUB, CPU_MEM(icount), rest);
    emit_goto(e, op_of(e, i)->imm);
}

static void emit_cold_code(struct emit *e)
{
    for (unsigned i = 0; i < e->ncold && !e->x.full; i++) {
        struct cold *c = &e->cold[i];
        x86_here(&e->x, c->from);
        switch (c->kind) {
        case COLD_LINK:
            x86_call_to(&e->x, e->stubs->link - e->x.exec); /* never returns: what is wanted stands behind it */
            x86_u32(&e->x, (uint32_t)(c->from - e->x.p));
            x86_u32(&e->x, e->links[c->id].page_off);
            break;
        case COLD_GROUP: emit_group_cold(e, c->bytes); break;
        case COLD_STACK: /* full: start afresh */
            x86_load(&e->x, true, RSP, HOT(HOT_RS_TOP));
            x86_jmp_to(&e->x, c->back);
            break;
        case COLD_SIDE: case COLD_POLL: emit_side_cold(e, c); break;
        case COLD_OP:
            emit_cold_flags(e, c);
            emit_c_op(e, op_of(e, c->id), c->insn, c->off, true);
            break;
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
    e->insn = 0;
    e->off = 0;
    e->locked = 0;
    e->failed = false;
    e->leave = AFTER_C;
    e->ncold = e->nlinks = 0;
    find_hints(e);

    *cross = e->x.p;
    x86_lea(&e->x, true, RCX, MEM(RAX, -(int32_t)page_off));
    x86_store(&e->x, true, HOT(HOT_PAGE), RCX);
    *inside = e->x.p;
    x86_alu_mi(&e->x, true, ALU_ADD, CPU_MEM(icount), (int32_t)block->insns);
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
