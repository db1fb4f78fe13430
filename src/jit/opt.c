/*
 * See opt.h.
 *
 * Rules
 *  1. "Could see" is: an operation that may fault, a helper on state, an exit.  An exception must find every guest
 *     register as the instructions before it left it.
 *  2. A pass only rewrites operands or turns operations into IR_none; indices of values never change.
 */
#include "jit/opt.h"

#include <string.h>

#include "base/bits.h"
#include "mem/mem.h"

struct known { /* the value that each piece of state has, 0: not known */
    uint16_t x[32], w[32], f;
    bool sp_aligned; /* SP is a multiple of 16 */
};

static void forward_operands(struct ir *ir, const uint16_t *same)
{
    unsigned n = ir_operands(ir->op);
    uint16_t *const field[5] = { &ir->a, &ir->b, &ir->c, &ir->d, &ir->e };

    for (unsigned i = 0; i < n; i++)
        if (same[*field[i]])
            *field[i] = same[*field[i]];
}

/* A read of state: what it is known to be, or from now on the read's own value. */
static void forward_read(uint16_t *slot, uint16_t id, struct ir *ir, uint16_t *same)
{
    if (*slot) {
        same[id] = *slot;
        ir->op = IR_none;
    } else {
        *slot = id;
    }
}

static bool is_zero(const struct ir_block *block, unsigned id)
{
    return block->ir[id].op == IR_const && !block->ir[id].imm;
}

/* Is the value zero above bit 31? */
static bool is_short(const struct ir *ir)
{
    switch (ir->op) {
    case IR_add: case IR_sub: case IR_and: case IR_or: case IR_xor: case IR_shl: case IR_shr: case IR_sar: case IR_mul:
    case IR_andn: case IR_orn: case IR_xorn: case IR_neg: case IR_not: case IR_clz:
        return !ir->k;
    case IR_ext: return ir->k <= EXT_U32;
    default: return false;
    }
}

/* ADRP: the page of an address is, as the address, so far from the page of the block. */
static void forward_page(const struct ir_block *block, struct ir *ir)
{
    const struct ir *pc = &block->ir[ir->a], *mask = &block->ir[ir->b];

    if (block->trace && pc->op == IR_pc && mask->op == IR_const && mask->imm == -(uint64_t)MEM_PAGE_SIZE)
        *ir = (struct ir){ .op = IR_pc, .imm = ((pc->imm + block->first) & mask->imm) - block->first };
}

/* MOV and its like: a value with zero added is that value, or its low half; zero less it is its negative. */
static void forward_copy(struct ir_block *block, uint16_t id, uint16_t *same)
{
    struct ir *ir = &block->ir[id];
    unsigned v = 0;

    if (ir->op == IR_ext) {
        v = ir->k == EXT_U32 && is_short(&block->ir[ir->a]) ? ir->a : 0;
    } else if (ir->op == IR_add && ir->k && block->ir[ir->a].op == IR_pc && block->ir[ir->b].op == IR_const) {
        *ir = (struct ir){ .op = IR_pc, .imm = block->ir[ir->a].imm + block->ir[ir->b].imm };
        return;
    } else if (is_zero(block, ir->b)) {
        v = ir->a;
    } else if (is_zero(block, ir->a)) {
        if (ir->op == IR_sub)
            *ir = (struct ir){ .op = IR_neg, .k = ir->k, .a = ir->b };
        else
            v = ir->b;
    }
    if (!v)
        return;
    if (ir->op == IR_ext || ir->k || is_short(&block->ir[v])) {
        same[id] = (uint16_t)v;
        ir->op = IR_none;
    } else {
        *ir = (struct ir){ .op = IR_ext, .k = EXT_U32, .a = (uint16_t)v };
    }
}

/* SP is moved by a multiple of 16: it stays as aligned as it was. */
static bool keeps_alignment(const struct ir_block *block, const struct known *k, unsigned v)
{
    const struct ir *ir = &block->ir[v];

    return (ir->op == IR_add || ir->op == IR_sub) && ir->k && k->x[31] && ir->a == k->x[31] &&
           block->ir[ir->b].op == IR_const && !(block->ir[ir->b].imm & 15);
}

void opt_forward(struct ir_block *block)
{
    uint16_t same[IR_MAX];
    struct known k = { 0 };

    memset(same, 0, block->n * sizeof *same);
    for (unsigned i = 1; i < block->n; i++) {
        struct ir *ir = &block->ir[i];
        forward_operands(ir, same);
        switch (ir->op) {
        case IR_get_x: forward_read(&k.x[ir->k], (uint16_t)i, ir, same); break;
        case IR_get_w: forward_read(&k.w[ir->k], (uint16_t)i, ir, same); break;
        case IR_get_f: forward_read(&k.f, (uint16_t)i, ir, same); break;
        case IR_set_x:
            if (ir->k == 31)
                k.sp_aligned &= ir->a == k.x[31] || keeps_alignment(block, &k, ir->a);
            k.x[ir->k] = ir->a;
            break;
        case IR_sp_check:
            if (k.sp_aligned)
                ir->op = IR_none;
            k.sp_aligned = true;
            break;
        case IR_set_w: k.w[ir->k] = ir->a; break;
        case IR_set_f: k.f = ir->a; break;
        case IR_or: case IR_xor: case IR_add: case IR_sub: case IR_ext: forward_copy(block, (uint16_t)i, same); break;
        case IR_and: forward_page(block, ir); break;
        case IR_w_or: /* MOV of a whole register */
            if (ir->a == ir->b && ir->k & SH_Q) {
                same[i] = ir->a;
                ir->op = IR_none;
            }
            break;
        default:
            if (ir_info[ir->op].effects & IE_STATE)
                memset(&k, 0, sizeof k);
        }
    }
}


/* --- flags that are dead elsewhere --- */

/* Does the instruction set all flags and do nothing else that could be seen before?  Integer ADDS, SUBS, ANDS, BICS. */
static bool sets_flags(uint32_t w)
{
    bool add_imm = (w & 0x1f800000) == 0x11000000, add_reg = (w & 0x1f000000) == 0x0b000000;
    bool and_imm = (w & 0x7f800000) == 0x72000000 && (w >> 31 || !(w >> 22 & 1));
    bool and_reg = (w & 0x7f000000) == 0x6a000000 && (w >> 31 || !(w >> 15 & 1));

    if (add_reg && w >> 21 & 1) /* extended register: only the allocated ones */
        add_reg = !(w >> 22 & 3) && (w >> 10 & 7) <= 4;
    else if (add_reg)
        add_reg = (w >> 22 & 3) != 3 && (w >> 31 || !(w >> 15 & 1));
    return ((add_imm || add_reg) && w >> 29 & 1) || and_imm || and_reg;
}

/* Moves, additions, logic, bit fields: no flags, no fault.  Unallocated encodings must not be taken for them. */
static bool is_harmless(uint32_t w)
{
    bool sf = w >> 31;

    if (w == 0xd503201f) /* NOP */
        return true;
    if ((w & 0x1f000000) == 0x10000000) /* ADR, ADRP */
        return true;
    if ((w & 0x3f800000) == 0x11000000) /* ADD, SUB immediate */
        return true;
    if ((w & 0x3f200000) == 0x0b000000) /* shifted register */
        return (w >> 22 & 3) != 3 && (sf || !(w >> 15 & 1));
    if ((w & 0x1f000000) == 0x0a000000 && (w >> 29 & 3) != 3) /* logic, shifted register */
        return sf || !(w >> 15 & 1);
    if ((w & 0x1f800000) == 0x12800000) /* MOVZ, MOVN, MOVK */
        return (w >> 29 & 3) != 1 && (sf || !(w >> 22 & 1));
    return false;
}

/* Are the flags overwritten at byte offset `at' of the page before anything could see them? */
static bool dead_at(const struct ir_block *block, int64_t at)
{
    for (unsigned n = 0; n < 8 && block->page && at >= 0 && at < MEM_PAGE_SIZE; n++) {
        uint32_t w = ir_page_word(block->page, (unsigned)at);
        if (sets_flags(w))
            return true;
        if (w >> 26 == 0x05) /* B */
            at += bits_sext(w & 0x3ffffff, 26) * 4;
        else if (is_harmless(w))
            at += 4;
        else
            return false;
    }
    return false;
}

struct dead { /* registers that are written again before anyone looks */
    uint32_t x, w;
    uint8_t f; /* enum flags_state */
};
/* What will become of the flags: seen; overwritten, but a way out comes before; overwritten. */
enum flags_state { F_LIVE, F_COLD, F_DEAD };

static uint8_t peek(const struct ir_block *block, int64_t next, int64_t taken)
{
    bool n = dead_at(block, next + block->first), t = dead_at(block, taken + block->first);

    return (uint8_t)((n ? FLAGS_DEAD_NEXT : 0) | (t ? FLAGS_DEAD_TAKEN : 0));
}

/* The end of the block, or a way out. */
static void flags_leave(const struct ir_block *block, struct ir *ir, struct dead *d)
{
    int64_t to = (int64_t)ir->imm;

    switch (ir->op) {
    case IR_branch_if: ir->k = peek(block, (int16_t)ir->b, to); break;
    case IR_exit: ir->k = peek(block, to, to); break;
    case IR_branch_rel: ir->k = ir->x == BR_JUMP ? peek(block, to, to) : 0; break;
    case IR_side:
        ir->k = peek(block, to, to);
        if (!ir->k && d->f == F_DEAD)
            d->f = F_COLD;
        return;
    case IR_branch: break;
    default: /* IR_insn among them, where a torn group's cold code leaves */
        if (ir_info[ir->op].effects & (IE_END | IE_STATE))
            d->f = F_LIVE;
        else if (d->f == F_DEAD)
            d->f = F_COLD;
        return;
    }
    d->f = ir->op != IR_branch && ir->k == (FLAGS_DEAD_NEXT | FLAGS_DEAD_TAKEN) ? F_DEAD : F_COLD;
}

/* Decides about a write to state; true: it is dead. */
static bool dead_write(struct ir *ir, struct dead *d, const uint16_t *uses)
{
    uint32_t bit = UINT32_C(1) << (ir->k & 31);
    bool was;

    switch (ir->op) {
    case IR_set_x: was = d->x & bit; d->x |= bit; return was;
    case IR_set_w: was = d->w & bit; d->w |= bit; return was;
    case IR_set_f:
        was = d->f == F_DEAD && !uses[ir->a];
        ir->k = d->f != F_LIVE; /* opt_lazy() decides */
        d->f = F_DEAD;
        return was;
    default: return false;
    }
}

static void read_state(const struct ir *ir, struct dead *d)
{
    switch (ir->op) {
    case IR_get_x: d->x &= ~(UINT32_C(1) << (ir->k & 31)); break;
    case IR_get_w: d->w &= ~(UINT32_C(1) << (ir->k & 31)); break;
    case IR_get_f: d->f = F_LIVE; break;
    default: break;
    }
}

void opt_dead(struct ir_block *block, uint16_t *uses)
{
    enum { SEES = IE_FAULT | IE_STATE | IE_END, KEEPS = SEES | IE_WRITE | IE_LOAD | IE_STORE | IE_EX | IE_FPSR | IE_MARK };
    struct dead d = { 0 };

    memset(uses, 0, block->n * sizeof *uses);
    for (unsigned i = block->n; --i;) {
        struct ir *ir = &block->ir[i];
        unsigned effects = ir_info[ir->op].effects;
        if (ir->op == IR_none)
            continue;
        if ((!(effects & KEEPS) && !uses[i]) || dead_write(ir, &d, uses)) {
            ir->op = IR_none;
            continue;
        }
        read_state(ir, &d);
        if (effects & SEES || (ir->op == IR_insn && ir->x)) {
            d.x = d.w = 0;
            flags_leave(block, ir, &d);
        }
        for (unsigned k = 0; k < ir_operands(ir->op); k++)
            uses[ir_operand(ir, k)]++;
    }
}

/* --- lazy flags --- */

static bool reads(const struct ir *ir, unsigned v)
{
    for (unsigned i = 0; i < ir_operands(ir->op); i++)
        if (ir_operand(ir, i) == v)
            return true;
    return false;
}

/* Has register n the value that it has at operation `from' wherever flags f may have to be made of it, until they are set again? */
static bool stable(const struct ir_block *block, unsigned from, unsigned n, unsigned f)
{
    bool written = false;

    for (unsigned i = from; i < block->n; i++) {
        const struct ir *ir = &block->ir[i];
        if (written && (opt_is_way_out(ir) || reads(ir, f)))
            return false;
        if (ir->op == IR_set_f)
            return true;
        written |= ir->op == IR_set_x && ir->k == n;
    }
    return true;
}

/* A register that has value v from operation `from' on, and keeps it; NO_HOME: none. */
static unsigned lasting_home(const struct ir_block *block, const uint16_t *x, unsigned from, unsigned v, unsigned f)
{
    for (unsigned n = 0; n < 32; n++)
        if (x[n] == v && stable(block, from, n, f))
            return n;
    return NO_HOME;
}

/* The second operand: a register, or a constant in *imm. */
static bool other_operand(const struct ir_block *block, const uint16_t *x, unsigned from, unsigned v, unsigned f, bool sf,
                          unsigned *n, uint64_t *imm)
{
    const struct ir *ir = &block->ir[v];

    *n = NO_HOME;
    *imm = sf || ir->op != IR_const ? ir->imm : (uint64_t)(int32_t)ir->imm;
    if (ir->op == IR_const)
        return (int64_t)*imm == (int32_t)*imm && (int32_t)*imm != INT32_MIN;
    *n = lasting_home(block, x, from, v, f);
    return *n != NO_HOME;
}

static unsigned result_of(const struct ir_block *block, unsigned f, unsigned op)
{
    const struct ir *of = &block->ir[f];

    for (unsigned i = f > 4 ? f - 4 : 1; i < block->n && i < f + 5; i++) {
        const struct ir *ir = &block->ir[i];
        if (ir->op == op && ir->k == of->k && ir->a == of->a && ir->b == of->b)
            return i;
    }
    return 0;
}

/* Can the flags f be made again from registers?  Fills in `set', their set_f. */
static bool from_registers(struct ir_block *block, const uint16_t *x, unsigned from, struct ir *set)
{
    const struct ir *f = &block->ir[set->a], *and;
    unsigned a, b = NO_HOME;
    uint64_t imm = 0;

    set->x = f->k;
    if (f->op == IR_f_logic) {
        set->k = LAZY_LOGIC;
        a = lasting_home(block, x, from, f->a, set->a);
        and = &block->ir[f->a];
        if (a == NO_HOME && and->op == IR_and && and->k == f->k) {
            set->k = LAZY_AND;
            a = lasting_home(block, x, from, and->a, set->a);
            if (!other_operand(block, x, from, and->b, set->a, f->k, &b, &imm))
                return false;
        }
    } else if (f->op == IR_f_sub || f->op == IR_f_add) {
        if (!other_operand(block, x, from, f->b, set->a, f->k, &b, &imm))
            return false;
        set->k = f->op == IR_f_sub ? LAZY_SUB : LAZY_ADD;
        a = lasting_home(block, x, from, f->a, set->a);
        unsigned r = a == NO_HOME && b == NO_HOME ? result_of(block, set->a, f->op == IR_f_sub ? IR_sub : IR_add) : 0;
        if (r) {
            set->k = f->op == IR_f_sub ? LAZY_SUB_BACK : LAZY_ADD_BACK;
            a = lasting_home(block, x, from, r, set->a);
        }
    } else {
        return false;
    }
    set->b = (uint16_t)(a | b << 8);
    set->imm = imm;
    return a != NO_HOME;
}

/* Does a conditional branch on flags f follow at once, and nothing that may leave until they are set again? */
static bool branch_only(const struct ir_block *block, unsigned from, unsigned f)
{
    bool branched = false;

    for (unsigned i = f + 1; i < from; i++) { /* behind the flags in their own instruction: the result, made with them */
        const struct ir *ir = &block->ir[i], *of = &block->ir[f];
        bool with = ir->a == of->a && ir->b == of->b && ir->k == of->k && i < f + 5;
        bool quiet = ir->op == IR_set_f || ir->op == IR_set_x || ir->op == IR_none || ir->op == IR_const || ir->op == IR_get_x;
        if (!quiet && !with)
            return false;
    }
    for (unsigned i = from; i < block->n; i++) {
        const struct ir *ir = &block->ir[i];
        bool way_out = opt_is_way_out(ir);
        if (ir->op == IR_set_f)
            return true;
        if (branched && reads(ir, f))
            return false;
        if (!way_out) {
            if (!branched && ir->op != IR_insn && ir->op != IR_none && (ir->op != IR_cond || ir->a != f))
                return false;
            continue;
        }
        if (branched || (ir->op != IR_side && ir->op != IR_branch_if) || block->ir[ir->a].op != IR_cond)
            return false;
        branched = true;
    }
    return true;
}

/* Flags are read as a number somewhere: MRS NZCV, which is rare. */
static bool read_as_number(const struct ir_block *block, unsigned f)
{
    for (unsigned i = f; i < block->n; i++)
        if (block->ir[i].op == IR_v_of_f && block->ir[i].a == f)
            return true;
    return false;
}

static void decide_lazy(struct ir_block *block, const uint16_t *x, unsigned from, struct ir *set)
{
    if (read_as_number(block, set->a)) {
        set->k = LAZY_NONE;
    } else if (!from_registers(block, x, from, set)) {
        bool made_here = block->ir[set->a].op != IR_get_f && block->ir[set->a].op != IR_f_of_v &&
                         block->ir[set->a].op != IR_f_const;
        set->k = made_here && branch_only(block, from, set->a) ? LAZY_HOST : LAZY_NONE;
    }
}

void opt_lazy(struct ir_block *block)
{
    uint16_t x[32] = { 0 }; /* the value of each register */
    struct ir *set = NULL;  /* to be decided at the end of its instruction */

    for (unsigned i = 1; i < block->n; i++) {
        struct ir *ir = &block->ir[i];
        unsigned effects = ir_info[ir->op].effects;
        if (set && (ir->op == IR_insn || effects & IE_END)) {
            decide_lazy(block, x, i, set);
            set = NULL;
        }
        if (ir->op == IR_get_x)
            x[ir->k] = (uint16_t)i;
        else if (ir->op == IR_set_x)
            x[ir->k] = ir->a;
        else if (ir->op == IR_set_f && ir->k)
            set = ir;
        else if (effects & IE_STATE)
            memset(x, 0, sizeof x);
    }
}
