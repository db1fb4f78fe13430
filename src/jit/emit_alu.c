/*
 * Integer arithmetic.
 */
#include "jit/emit_parts.h"

#include "base/report.h"
#include "jit/x86_sse.h"

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
void emit_alu_operand(struct emit *e, bool sf, enum halu op, unsigned d, unsigned b)
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
    emit_unlock_all(e);
    unsigned d = emit_dest(e, e->at);
    x86_lea(&e->x, true, d, MEMX(ra, rb, const_of(e, shift->b), 0));
    emit_bind(e, e->at, d);
}

/*
 * d = a op b for the five plain operations.  The registers of dying operands are reused.  Flags are those of x86.
 * Addition and subtraction without wish for flags use LEA.
 */
void emit_alu(struct emit *e, const struct ir *ir, bool want_flags)
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
        emit_unlock_all(e);
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
        if (n && jit_pin_of[n - 1] != NO_REG &&
            e->gx_live[n - 1] == (e->loc[a].kind == L_GX && e->loc[a].n == n - 1 && e->uses[a] == 1))
            d = jit_pin_of[n - 1];
        else if (a_dies)
            d = ra;
        else
            d = emit_temp(e);
        if (d != ra)
            x86_mov_rr(&e->x, true, d, ra);
        emit_alu_operand(e, sf, (enum halu)op, d, b);
        emit_use(e, a);
        emit_use(e, b);
        emit_unlock_all(e);
        lock(e, d);
        emit_bind(e, id, d);
        return;
    }
    emit_use(e, a);
    emit_use(e, b);
    emit_unlock_all(e);
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
    emit_unlock_all(e);
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
void emit_compare(struct emit *e, bool sf, unsigned a, unsigned b)
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
        emit_alu_operand(e, sf, ALU_CMP, r, b);
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

void emit_flags_addsub(struct emit *e, const struct ir *ir)
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
        emit_value_to(e, ir->a, t);
        emit_alu_operand(e, ir->k, ALU_ADD, t, ir->b);
        emit_release(e, t);
        emit_use_all(e, ir);
    }
    emit_unlock_all(e);
    /* A comparison with zero by TEST clears the borrow, as a subtraction of zero does. */
    emit_flags_made(e, id, sub);
}

void emit_flags_logic(struct emit *e, const struct ir *ir)
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
    emit_unlock_all(e);
    emit_flags_made(e, id, false);
}

/* ADC, SBC and their flags: EFLAGS' carry is made the guest's (ADC) or its inverse (SBB's borrow). */
void emit_carry(struct emit *e, const struct ir *ir)
{
    bool flags = ir->op == IR_f_adc || ir->op == IR_f_sbc, sub = ir->op == IR_sbc || ir->op == IR_f_sbc;
    unsigned id = e->at, value = flags ? partner(e, ir, sub ? IR_sbc : IR_adc) : 0;
    unsigned d = emit_temp(e);

    emit_value_to(e, ir->a, d);
    unsigned rb = emit_reg(e, ir->b);
    emit_flags_to_host(e, ir->c, 2);
    if (e->host_inv != sub)
        x86_cmc(&e->x);
    x86_alu_rr(&e->x, ir->k, sub ? ALU_SBB : ALU_ADC, d, rb);
    emit_clobber_flags(e);
    emit_use_all(e, ir);
    emit_unlock_all(e);
    lock(e, d);
    if (value) {
        const struct ir *v = op_of(e, value);
        emit_use_all(e, v);
        emit_bind(e, value, d);
        e->done[value] = true;
    } else if (!flags) {
        emit_bind(e, id, d);
    }
    emit_unlock_all(e);
    if (flags)
        emit_flags_made(e, id, sub);
}

/* d = operation on a copy of a in d. */
#define UNARY(e, ir, d) \
    unsigned ra_ = emit_reg(e, (ir)->a); \
    emit_use_all(e, ir); \
    emit_unlock_all(e); \
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
    emit_unlock_all(e);
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
    emit_unlock_all(e);
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
    emit_unlock_all(e);
    unsigned d = emit_dest(e, i);
    x86_tzcnt(&e->x, ir->k, d, ra);
    e->done[i] = true;
    e->uses[id] = 0;
    emit_bind(e, i, d);
    return true;
}

void emit_unary(struct emit *e, const struct ir *ir)
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

void emit_ext(struct emit *e, const struct ir *ir)
{
    static const uint16_t ops[] = { 0x0fb6, 0x0fb7, 0x8b, 0x0fbe, 0x0fbf, 0x63 };
    struct hmem m;

    if (emit_in_memory(e, ir->a, &m)) {
        unsigned d = emit_dest(e, e->at); /* while the operand's spill word is still its own */
        x86_rm(&e->x, 0, ir->k > EXT_U32, ops[ir->k], d, m, false);
        emit_use_all(e, ir);
        emit_bind(e, e->at, d);
        return;
    }
    unsigned ra = emit_reg(e, ir->a);
    emit_use_all(e, ir);
    emit_unlock_all(e);
    unsigned d = emit_dest(e, e->at);
    if (ir->k == EXT_U32)
        x86_mov_rr(&e->x, false, d, ra);
    else
        x86_ext_rr(&e->x, ir->k > EXT_U32, ops[ir->k], d, ra);
    emit_bind(e, e->at, d);
}

/* A bit field: the left shift by l has waited for this right shift by r (UBFX, UBFIZ). */
static void emit_field(struct emit *e, const struct ir *ir, const struct ir *left)
{
    bool sf = ir->k;
    unsigned bits = sf ? 64 : 32, l = const_of(e, left->b) & (bits - 1), r = const_of(e, ir->b) & (bits - 1);
    unsigned low = r > l ? r - l : 0, width = bits - MAX(l, r);

    emit_clobber_flags(e);
    unsigned ra = emit_reg(e, left->a);
    emit_use_all(e, ir);
    emit_unlock_all(e);
    unsigned d = emit_dest(e, e->at);
    if (r >= l && width < 32 && low + width != 32) {
        if (low && jit_host.bmi2)
            x86_rorx(&e->x, sf, d, ra, low);
        else if (d != ra)
            x86_mov_rr(&e->x, true, d, ra);
        if (low && !jit_host.bmi2)
            x86_shift_ri(&e->x, sf, SH_SHR, d, low);
        x86_alu_ri(&e->x, false, ALU_AND, d, (int32_t)((1u << width) - 1));
    } else if (low + width == 32) { /* of the low half: (x << l) >> r with l - 32 and r - 32 where sf */
        x86_mov_rr(&e->x, false, d, ra);
        if (r > l)
            x86_shift_ri(&e->x, false, SH_SHR, d, low);
        else if (l > r)
            x86_shift_ri(&e->x, sf, SH_SHL, d, l - r);
    } else {
        if (d != ra || !sf)
            x86_mov_rr(&e->x, sf, d, ra);
        x86_shift_ri(&e->x, sf, SH_SHL, d, l);
        x86_shift_ri(&e->x, sf, SH_SHR, d, r);
    }
    emit_bind(e, e->at, d);
}

void emit_shift(struct emit *e, const struct ir *ir)
{
    bool sf = ir->k;
    unsigned kind = ir->op - IR_shl;
    if (e->loc[ir->a].kind == L_LATER && op_of(e, ir->a)->op == IR_shl) {
        emit_field(e, ir, op_of(e, ir->a));
        return;
    }
    static const uint8_t imm_code[] = { SH_SHL, SH_SHR, SH_SAR, SH_ROR }, pp[] = { 1, 3, 2 };

    if (is_const(e, ir->b)) {
        unsigned n = const_of(e, ir->b) & (sf ? 63 : 31);
        emit_clobber_flags(e);
        unsigned ra = emit_reg(e, ir->a);
        emit_use_all(e, ir);
        emit_unlock_all(e);
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
    emit_unlock_all(e);
    unsigned d = emit_dest(e, e->at);
    x86_vex_f7(&e->x, sf, pp[kind], d, ra, rb);
    emit_bind(e, e->at, d);
}

/* and-not by one instruction. */
static void and_not(struct emit *e, const struct ir *ir)
{
    unsigned ra = emit_reg(e, ir->a), rb = emit_reg(e, ir->b);

    emit_use_all(e, ir);
    emit_unlock_all(e);
    unsigned d = emit_dest(e, e->at);
    x86_andn(&e->x, ir->k, d, rb, ra);
    emit_bind(e, e->at, d);
}

/* A product with a value in memory that nobody else wants. */
static bool multiply_by_memory(struct emit *e, const struct ir *ir)
{
    struct hmem m;
    unsigned a = ir->a, b = ir->b;

    if (e->uses[b] != 1 || a == b || !emit_in_memory(e, b, &m)) {
        a = ir->b;
        b = ir->a;
        if (e->uses[b] != 1 || a == b || !emit_in_memory(e, b, &m))
            return false;
    }
    unsigned ra = emit_reg(e, a), n = emit_hint(e, e->at), d;
    bool dies = e->uses[a] == 1;
    if (n && jit_pin_of[n - 1] != NO_REG && e->gx_live[n - 1] == (dies && e->loc[a].kind == L_GX && e->loc[a].n == n - 1))
        d = jit_pin_of[n - 1];
    else
        d = dies && e->loc[a].kind == L_TMP ? ra : emit_temp(e);
    if (d != ra)
        x86_mov_rr(&e->x, true, d, ra);
    x86_rm(&e->x, 0, ir->k, 0x0faf, d, m, false);
    emit_use_all(e, ir);
    emit_unlock_all(e);
    lock(e, d);
    emit_bind(e, e->at, d);
    return true;
}

/* and-not, or-not, xor-not, multiply: d = a op b with b kept apart. */
void emit_binary(struct emit *e, const struct ir *ir)
{
    bool sf = ir->k;
    emit_clobber_flags(e);
    if (ir->op == IR_andn && jit_host.bmi1) {
        and_not(e, ir);
        return;
    }
    if (ir->op == IR_mul && multiply_by_memory(e, ir))
        return;
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
    emit_unlock_all(e);
    lock(e, d);
    emit_bind(e, e->at, d);
}

void emit_mulh(struct emit *e, const struct ir *ir)
{
    emit_clobber_flags(e);
    emit_unlock_all(e);
    emit_take(e, RAX);
    emit_take(e, RDX);
    emit_value_to(e, ir->a, RAX);
    struct hmem m;
    unsigned digit = ir->op == IR_umulh ? 4 : 5;
    if (emit_in_memory(e, ir->b, &m))
        x86_rm(&e->x, 0, true, 0xf7, digit, m, false);
    else
        x86_grp3(&e->x, true, digit, emit_reg(e, ir->b));
    emit_use_all(e, ir);
    emit_unlock_all(e);
    lock(e, RDX);
    emit_bind(e, e->at, RDX);
}

/* Division by zero gives zero, and the most negative number by -1 itself: neither may reach DIV. */
void emit_div(struct emit *e, const struct ir *ir)
{
    bool sf = ir->k, sign = ir->op == IR_sdiv;
    emit_clobber_flags(e);
    emit_unlock_all(e);
    emit_take(e, RAX);
    emit_take(e, RDX);
    unsigned rb = emit_reg(e, ir->b);
    emit_value_to(e, ir->a, RAX);
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
    emit_unlock_all(e);
    lock(e, RAX);
    emit_bind(e, e->at, RAX);
}

void emit_extr(struct emit *e, const struct ir *ir)
{
    emit_clobber_flags(e);
    unsigned hi = emit_reg(e, ir->a), lo = emit_reg(e, ir->b);
    emit_use_all(e, ir);
    if (hi == lo && ir->x && jit_host.bmi2) {
        emit_unlock_all(e);
        unsigned d = emit_dest(e, e->at);
        x86_rorx(&e->x, ir->k, d, lo, ir->x);
        emit_bind(e, e->at, d);
        return;
    }
    unsigned d = emit_temp(e);
    x86_mov_rr(&e->x, true, d, lo);
    if (ir->x)
        x86_shrd(&e->x, ir->k, d, hi, ir->x);
    else if (!ir->k)
        x86_mov_rr(&e->x, false, d, d);
    emit_unlock_all(e);
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

void emit_crc(struct emit *e, const struct ir *ir)
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
    emit_unlock_all(e);
    lock(e, d);
    emit_bind(e, e->at, d);
}
