/*
 * Vectors: values are 16 bytes in memory, in the home of a guest register or in a slot; xmm0 to xmm3 are scratch.
 */
#include "jit/emit.h"

#include "base/report.h"

static struct hmem vhome(unsigned n)
{
    return jit_cpu_mem(offsetof(struct cpu, v) + 16 * (size_t)n);
}

static struct hmem slot_mem(unsigned s)
{
    return HOT(HOT_W + 2 * s);
}

struct hmem emit_wmem(struct emit *e, unsigned id)
{
    const struct loc *l = &e->loc[id];
    if (l->kind == L_GW)
        return vhome(l->n);
    if (l->kind != L_WSLOT) /* a definition that was refused for want of a slot */
        e->failed = true;
    return slot_mem(l->n);
}

static unsigned free_slot(struct emit *e)
{
    for (unsigned s = 0; s < W_SLOTS; s++)
        if (!e->wslot[s])
            return s;
    e->failed = true;
    return 0;
}

struct hmem emit_wdest(struct emit *e, unsigned id)
{
    unsigned n = e->hint[id];
    if (!e->uses[id]) /* computed for its effects: a slot that nobody holds */
        return slot_mem(free_slot(e));
    if (n && !e->gw_live[n - 1]) {
        e->loc[id] = (struct loc){ L_GW, (uint8_t)(n - 1) };
        e->gw_live[n - 1]++;
        return vhome(n - 1);
    }
    unsigned s = free_slot(e);
    e->wslot[s] = (uint16_t)id;
    e->loc[id] = (struct loc){ L_WSLOT, (uint8_t)s };
    return slot_mem(s);
}

static void evict_vhome(struct emit *e, unsigned n, unsigned except)
{
    for (unsigned id = 1; e->gw_live[n] && id < e->block->n; id++) {
        struct loc *l = &e->loc[id];
        if (l->kind != L_GW || l->n != n || id == except)
            continue;
        unsigned s = free_slot(e);
        x86_movdqu_load(&e->x, 0, vhome(n));
        x86_movdqu_store(&e->x, slot_mem(s), 0);
        e->gw_live[n]--;
        e->wslot[s] = (uint16_t)id;
        *l = (struct loc){ L_WSLOT, (uint8_t)s };
    }
}

static void emit_set_w(struct emit *e, const struct ir *ir)
{
    const struct loc *l = &e->loc[ir->a];
    evict_vhome(e, ir->k, ir->a);
    if (!(l->kind == L_GW && l->n == ir->k)) {
        x86_movdqu_load(&e->x, 0, emit_wmem(e, ir->a));
        x86_movdqu_store(&e->x, vhome(ir->k), 0);
    }
    emit_use(e, ir->a);
}

bool emit_is_vector(unsigned op)
{
    return op == IR_set_w || op == IR_w_of_vv || op == IR_v_lane || op == IR_v_lane_s || op == IR_w_insert ||
           op == IR_w_dup || op == IR_w_dup_lane || op == IR_f_fcmp || ir_info[op].result == IR_W;
}

void emit_vector(struct emit *e, const struct ir *ir)
{
    if (ir->op == IR_set_w)
        emit_set_w(e, ir);
    else
        emit_generic(e, ir);
}
