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

struct known { /* the value that each piece of state has, 0: not known */
    uint16_t x[32], w[32], f;
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
        case IR_set_x: k.x[ir->k] = ir->a; break;
        case IR_set_w: k.w[ir->k] = ir->a; break;
        case IR_set_f: k.f = ir->a; break;
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

struct dead { /* registers that are written again before anyone looks */
    uint32_t x, w;
    bool f;
};

/* Decides about a write to state; true: it is dead. */
static bool dead_write(const struct ir *ir, struct dead *d)
{
    uint32_t bit = UINT32_C(1) << (ir->k & 31);
    bool was;

    switch (ir->op) {
    case IR_set_x: was = d->x & bit; d->x |= bit; return was;
    case IR_set_w: was = d->w & bit; d->w |= bit; return was;
    case IR_set_f: was = d->f; d->f = true; return was;
    default: return false;
    }
}

static void read_state(const struct ir *ir, struct dead *d)
{
    switch (ir->op) {
    case IR_get_x: d->x &= ~(UINT32_C(1) << (ir->k & 31)); break;
    case IR_get_w: d->w &= ~(UINT32_C(1) << (ir->k & 31)); break;
    case IR_get_f: d->f = false; break;
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
        if ((!(effects & KEEPS) && !uses[i]) || dead_write(ir, &d)) {
            ir->op = IR_none;
            continue;
        }
        read_state(ir, &d);
        if (effects & SEES)
            memset(&d, 0, sizeof d);
        for (unsigned k = 0; k < ir_operands(ir->op); k++)
            uses[ir_operand(ir, k)]++;
    }
}
