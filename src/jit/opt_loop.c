/*
 * Traces that end where they begin (opt.h, struct loop).  The last turn's end is the next one's beginning, so what code
 * knows there it knows here: where vectors are, and of which registers the flags can be made again.
 */
#include "jit/opt.h"

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
        if (written && (ir_info[ir->op].effects & (IE_FAULT | IE_STATE | IE_END) || (ir->op == IR_insn && ir->x)))
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

/* Vector registers that a turn reads before it writes them, and the value that each has at its end. */
static void carried_vectors(struct ir_block *block, struct loop *loop)
{
    for (unsigned i = 1; i < block->n && loop->n < LOOP_W; i++)
        if (block->ir[i].op == IR_get_w)
            loop->w[loop->n++] = (struct loop_w){ block->ir[i].k, (uint16_t)i, (uint16_t)i };
    for (unsigned i = 1; i < block->n; i++)
        for (unsigned k = 0; block->ir[i].op == IR_set_w && k < loop->n; k++)
            if (loop->w[k].reg == block->ir[i].k)
                loop->w[k].last = block->ir[i].a;
}

void opt_loop(struct ir_block *block, struct loop *loop)
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
    carried_vectors(block, loop);
}
