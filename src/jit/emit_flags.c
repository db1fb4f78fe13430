/*
 * Guest flags, in EFLAGS, in HOT_FLAGS, or to be made again from registers (docs/jit.md, "Flags"); conditions.
 */
#include "jit/emit_parts.h"

#include "base/report.h"

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
void emit_flags_made(struct emit *e, unsigned id, bool inv)
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
    if (jit_pin_of[n] != NO_REG && (set->k == LAZY_SUB || set->k == LAZY_LOGIC)) {
        if (set->k == LAZY_SUB)
            lazy_operand(e, set, ALU_CMP, jit_pin_of[n]);
        else
            x86_test_rr(&e->x, set->x, jit_pin_of[n], jit_pin_of[n]);
        return set->k == LAZY_SUB;
    }
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

enum in_host emit_in_host(const struct emit *e, unsigned set)
{
    if (!set || e->host_f != op_of(e, set)->a)
        return NOT_IN_HOST;
    return e->host_inv ? IN_HOST_INVERTED : IN_HOST;
}

/* Lazy flags go to HOT_FLAGS on the way out; RAX and EFLAGS are destroyed.  `turn': in the first turn they are there. */
void emit_flags_to_memory(struct emit *e, unsigned set, enum in_host where, bool turn)
{
    uint8_t *first = NULL;

    if (turn) {
        x86_alu_mi(&e->x, false, ALU_CMP, HOT(HOT_TURN), 0);
        first = x86_jcc(&e->x, CC_E);
    }
    bool inv = where == NOT_IN_HOST ? make_lazy(e, op_of(e, set)) : where == IN_HOST_INVERTED;

    if (inv)
        x86_cmc(&e->x);
    x86_lahf(&e->x);
    x86_setcc(&e->x, CC_O, RAX);
    x86_rm(&e->x, 0x66, false, 0x89, RAX, HOT(HOT_FLAGS), false);
    if (turn)
        x86_here(&e->x, first);
}

void emit_cold_flags(struct emit *e, const struct cold *c)
{
    if (!c->lazy)
        return;
    x86_store(&e->x, true, HOT(HOT_T0), RAX);
    emit_flags_to_memory(e, c->lazy, NOT_IN_HOST, c->turn);
    x86_load(&e->x, true, RAX, HOT(HOT_T0));
}

/* Before an operation that calls C and may leave. */
void emit_flags_for_c(struct emit *e)
{
    if (!e->lazy)
        return;
    enum in_host where = emit_in_host(e, e->lazy);
    bool saved = borrow_rax(e);
    emit_flags_to_memory(e, e->lazy, where, e->turn);
    return_rax(e, saved);
    e->mem_f = e->turn ? 0 : op_of(e, e->lazy)->a;
    e->lazy = 0;
    e->turn = false;
    emit_clobber_flags(e);
}

/* At the block's end: lazy flags go where the next block finds them. */
void emit_flags_out(struct emit *e, bool dead)
{
    if (!dead)
        emit_flags_for_c(e);
}

/* EFLAGS become flags value id, with a carry that cond can be read from; returns x86's condition. */
unsigned emit_flags_to_host(struct emit *e, unsigned id, unsigned cond)
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

/* --- conditions ---------------------------------------------------------------------------------------------------- */

bool emit_is_compare(unsigned op)
{
    return op == IR_eq || op == IR_ne || op == IR_ult || op == IR_slt;
}

static unsigned compare_cc(unsigned op)
{
    return op == IR_eq ? CC_E : op == IR_ne ? CC_NE : op == IR_ult ? CC_B : CC_L;
}

/* EFLAGS of a compare operation; a test of one bit or mask against zero needs no AND.  Uses stay. */
unsigned emit_compare_to_host(struct emit *e, const struct ir *ir)
{
    emit_compare(e, ir->k, ir->a, ir->b);
    return compare_cc(ir->op);
}

/* Makes EFLAGS tell whether value q is non-zero; returns x86's condition.  Operand uses of a later value are consumed. */
unsigned emit_condition(struct emit *e, unsigned q)
{
    const struct ir *ir = op_of(e, q);
    unsigned cc;
    if (e->loc[q].kind == L_LATER && ir->op == IR_cond) {
        cc = emit_flags_to_host(e, ir->a, ir->k);
    } else if (e->loc[q].kind == L_LATER && emit_is_compare(ir->op)) {
        cc = emit_compare_to_host(e, ir);
    } else {
        emit_clobber_flags(e);
        unsigned r = emit_reg(e, q);
        x86_test_rr(&e->x, true, r, r);
        cc = CC_NE;
    }
    return cc;
}

/* A later value is wanted in a register after all. */
void emit_later(struct emit *e, unsigned id, unsigned host)
{
    const struct ir *ir = op_of(e, id);
    int32_t off;
    if (emit_is_add_const(e, id, &off)) {
        unsigned ra = emit_reg(e, ir->a);
        x86_lea(&e->x, true, host, MEM(ra, off));
    } else if (ir->op == IR_shl || ir->op == IR_and) {
        emit_clobber_flags(e);
        emit_value_to(e, ir->a, host);
        if (ir->op == IR_shl)
            x86_shift_ri(&e->x, true, SH_SHL, host, (unsigned)const_of(e, ir->b));
        else
            emit_alu_operand(e, ir->k, ALU_AND, host, ir->b);
    } else {
        unsigned cc = emit_condition(e, id);
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

void emit_select(struct emit *e, const struct ir *ir)
{
    unsigned q = ir->a, a = ir->b, b = ir->c;
    unsigned ra = emit_reg(e, a), rb = emit_reg(e, b);
    unsigned d = select_dest(e, a, b); /* before the condition: taking a temporary may move values, but not flags */
    unsigned cc = emit_condition(e, q);

    if (d != rb)
        x86_mov_rr(&e->x, true, d, rb);
    x86_cmov(&e->x, true, (enum hcc)cc, d, ra);
    emit_use(e, q);
    emit_use(e, a);
    emit_use(e, b);
    emit_unlock_all(e);
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
    unsigned cc = emit_condition(e, ir->a);

    x86_load(&e->x, false, t, HOT(HOT_RESERVED));
    x86_mov_ri(&e->x, u, jit_hot_flags((uint32_t)op_of(e, ir->c)->imm));
    x86_cmov(&e->x, false, (enum hcc)(cc ^ 1), t, u);
    x86_store(&e->x, false, HOT(HOT_FLAGS), t);
    emit_clobber_flags(e);
    e->mem_f = (uint16_t)e->at;
    emit_use_all(e, ir);
    emit_unlock_all(e);
}

/* CCMP: flags of a comparison or a constant, by condition: both ways store to HOT_FLAGS. */
void emit_f_select(struct emit *e, const struct ir *ir)
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
    unsigned cc = emit_condition(e, q);
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
    emit_unlock_all(e);
    emit_flags_made(e, id, inv);
}

/* HOT_FLAGS from a packed NZCV in a register (which is destroyed), with a second one for help. */
void emit_flags_from_nzcv(struct emit *e, unsigned r, unsigned id, enum hot word)
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
    emit_unlock_all(e);
}

void emit_f_of_v(struct emit *e, const struct ir *ir)
{
    unsigned r = emit_reg(e, ir->a);
    emit_flags_from_nzcv(e, r, e->at, HOT_FLAGS);
    emit_use_all(e, ir);
}

void emit_v_of_f(struct emit *e, const struct ir *ir)
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
    emit_unlock_all(e);
    lock(e, d);
    emit_bind(e, e->at, d);
}
