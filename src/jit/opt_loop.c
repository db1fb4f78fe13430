/*
 * Traces that end where they begin (opt.h, struct loop).  The last turn's end is the next one's beginning, so what code
 * knows there it knows here: where vectors are, and of which registers the flags can be made again.
 */
#include "jit/opt.h"

#include <string.h>

enum { LITTLE = 512 };

/* The trace's last operation leads to its first instruction; *flags_dead: and there flags are overwritten unseen. */
static bool leads_home(const struct ir_block *block, bool *flags_dead)
{
    const struct ir *last = &block->ir[block->n - 1];

    switch (last->op) {
    case IR_branch_if: *flags_dead = last->k & FLAGS_DEAD_TAKEN; break;
    case IR_exit: *flags_dead = last->k & FLAGS_DEAD_NEXT; break;
    case IR_branch_rel:
        if (last->x != BR_JUMP)
            return false;
        *flags_dead = last->k & FLAGS_DEAD_NEXT;
        break;
    default: return false;
    }
    return !last->imm;
}

static bool has(const struct ir_block *block, unsigned op, unsigned effects)
{
    for (unsigned i = 1; i < block->n; i++)
        if ((op && block->ir[i].op == op) || ir_info[block->ir[i].op].effects & effects)
            return true;
    return false;
}

/* Has register n, at every way out before flags are set, the value that it has at the start? */
static bool keeps(const struct ir_block *block, unsigned n)
{
    bool written = false;

    for (unsigned i = 1; n != NO_HOME && i < block->n; i++) {
        const struct ir *ir = &block->ir[i];
        if (ir->op == IR_set_f)
            break;
        if (written && opt_is_way_out(ir))
            return false;
        written |= ir->op == IR_set_x && ir->k == n;
    }
    return true;
}

/* The set_f whose flags the next turn can make again, where a way out comes before it sets them itself; 0: none. */
static unsigned carried_flags(const struct ir_block *block)
{
    unsigned set = 0;

    for (unsigned i = 1; i < block->n; i++)
        if (block->ir[i].op == IR_set_f)
            set = i;
    const struct ir *ir = &block->ir[set];
    return set && ir->k > LAZY_HOST && keeps(block, ir->b & 0xff) && keeps(block, ir->b >> 8) ? set : 0;
}

/* Can nothing but cold code leave the operation? */
static bool leaves_cold(const struct ir *ir)
{
    return ir_is_access(ir->op) || ir->op == IR_side || ir->op == IR_poll || ir->op == IR_sp_check ||
           !(ir_info[ir->op].effects & (IE_FAULT | IE_STATE));
}

static bool is_carried(const struct loop *loop, unsigned reg)
{
    for (unsigned k = 0; k < loop->n; k++)
        if (loop->w[k].reg == reg)
            return true;
    return false;
}

/* An operation that was given up reads the register now, so that there is a value to be carried; 0: none is left. */
static unsigned new_get_w(struct ir_block *block, const uint16_t *uses, unsigned reg)
{
    for (unsigned i = 1; i < block->n; i++)
        if (block->ir[i].op == IR_none && !uses[i]) {
            block->ir[i] = (struct ir){ .op = IR_get_w, .k = (uint8_t)reg };
            return i;
        }
    return 0;
}

/* How many vectors are wanted at each operation: their number goes to `wanted'. */
static void count_wanted(const struct ir_block *block, uint8_t *wanted)
{
    uint16_t until[IR_MAX], set[32] = { 0 }; /* last use of each value; the last set_w of each register */

    memset(until, 0, block->n * sizeof *until);
    memset(wanted, 0, block->n);
    for (unsigned i = 1; i < block->n; i++) {
        const struct ir *ir = &block->ir[i];
        for (unsigned k = 0; k < ir_operands(ir->op); k++)
            until[ir_operand(ir, k)] = (uint16_t)i;
        if (ir->op != IR_set_w)
            continue;
        if (set[ir->k]) /* owed until now */
            until[block->ir[set[ir->k]].a] = (uint16_t)i;
        set[ir->k] = (uint16_t)i;
    }
    for (unsigned i = 1; i < block->n; i++) {
        unsigned type = ir_info[block->ir[i].op].result;
        for (unsigned k = i; (type == IR_W || type == IR_W2) && k < until[i]; k++)
            wanted[k]++;
    }
}

/* The value of register reg is wanted from the start to `set', and that of its last set_w to the end: false: there is no room. */
static bool find_room(const struct ir_block *block, uint8_t *wanted, unsigned reg, unsigned set)
{
    enum { ROOM = 11 };
    unsigned last = set;

    for (unsigned i = set; i < block->n; i++)
        if (block->ir[i].op == IR_set_w && block->ir[i].k == reg)
            last = i;
    for (unsigned i = 1; i < block->n; i++)
        if ((i < set || i >= last) && wanted[i] >= ROOM)
            return false;
    for (unsigned i = 1; i < block->n; i++)
        wanted[i] += i < set || i >= last;
    return true;
}

/* Registers that a turn writes and does not read before: with the last turn's value at hand it need not be stored. */
static void carry_written(struct ir_block *block, const uint16_t *uses, struct loop *loop)
{
    uint8_t wanted[IR_MAX];

    count_wanted(block, wanted);
    for (unsigned i = 1; i < block->n && loop->n < LOOP_W; i++) {
        unsigned reg = block->ir[i].k, get;
        if (block->ir[i].op == IR_set_w && !is_carried(loop, reg) && find_room(block, wanted, reg, i) &&
            (get = new_get_w(block, uses, reg)))
            loop->w[loop->n++] = (struct loop_w){ .reg = (uint8_t)reg, .get = (uint16_t)get, .last = (uint16_t)get };
    }
}

/* Vector registers that a turn reads before it writes them, and the value that each has at its end. */
static void carried_vectors(struct ir_block *block, const uint16_t *uses, struct loop *loop, bool cold)
{
    for (unsigned i = 1; i < block->n && loop->n < LOOP_W; i++)
        if (block->ir[i].op == IR_get_w)
            loop->w[loop->n++] = (struct loop_w){ .reg = block->ir[i].k, .get = (uint16_t)i, .last = (uint16_t)i };
    if (cold)
        carry_written(block, uses, loop);
    for (unsigned i = 1; i < block->n; i++)
        for (unsigned k = 0; block->ir[i].op == IR_set_w && k < loop->n; k++)
            if (loop->w[k].reg == block->ir[i].k)
                loop->w[k].last = block->ir[i].a;
    for (unsigned k = 0; k < loop->n; k++)
        loop->w[k].owed = cold && loop->w[k].last != loop->w[k].get;
}

/* Does the value move by less than a page from one turn to the next?  last: of each register the value at the end, 0: as it was. */
static bool moves_little(const struct ir_block *block, const uint16_t *last, unsigned v, unsigned depth)
{
    const struct ir *ir = &block->ir[v];
    int64_t off = 0;

    if (!depth)
        return false;
    switch (ir->op) {
    case IR_const: case IR_pc: return true;
    case IR_ext: return moves_little(block, last, ir->a, depth - 1);
    case IR_shl: return block->ir[ir->b].op == IR_const && moves_little(block, last, ir->a, depth - 1);
    case IR_add: case IR_sub:
        return moves_little(block, last, ir->a, depth - 1) && moves_little(block, last, ir->b, depth - 1);
    case IR_get_x: return !last[ir->k] || (opt_root(block, last[ir->k], &off) == v && off > -LITTLE && off < LITTLE);
    default: return false;
    }
}

static void find_sites(const struct ir_block *block, const uint8_t *member, struct loop *loop)
{
    uint16_t last[32] = { 0 };

    for (unsigned i = 1; i < block->n; i++)
        if (block->ir[i].op == IR_set_x)
            last[block->ir[i].k] = block->ir[i].a;
    for (unsigned i = 1; i < block->n; i++) {
        const struct ir *ir = &block->ir[i];
        unsigned place = ir->op == IR_store ? LOOP_LOADS : loop->site[0] ? 1 : 0;
        if ((ir->op == IR_load || ir->op == IR_store) && !(ir->k & MO_UNPRIV) && !member[i] && !loop->site[place] &&
            moves_little(block, last, ir->a, 4)) {
            loop->site[place] = (uint16_t)i;
            loop->sites = true;
        }
    }
}

void opt_loop(struct ir_block *block, const uint16_t *uses, const uint8_t *member, struct loop *loop)
{
    bool flags_dead;

    *loop = (struct loop){ 0 };
    if (!block->trace || !block->page || !leads_home(block, &flags_dead))
        return;
    loop->is = true;
    if (has(block, IR_none, IE_STATE))
        return;
    if (!flags_dead && !has(block, IR_get_f, 0))
        loop->flags = (uint16_t)carried_flags(block);
    bool cold = true; /* that is so for each operation but the last */
    for (unsigned i = 1; i < block->n - 1; i++)
        cold &= leaves_cold(&block->ir[i]);
    carried_vectors(block, uses, loop, cold);
    if (cold)
        find_sites(block, member, loop);
}

void opt_owed(struct ir_block *block, const struct loop *loop)
{
    uint32_t again = 0; /* registers that are set again */

    for (unsigned k = 0; k < loop->n; k++)
        again |= (uint32_t)loop->w[k].owed << loop->w[k].reg;
    for (unsigned i = block->n - 1; --i;) {
        struct ir *ir = &block->ir[i];
        if (ir->op == IR_set_w) {
            ir->x = again >> ir->k & 1;
            again |= UINT32_C(1) << ir->k;
        } else if (!leaves_cold(ir)) {
            again = 0;
        }
    }
}
