/*
 * Accesses off one base share a look at the TLB (opt.h, struct group).
 *
 * A few groups are open at a time, each with a base of its own, which is a value, or another that is computed in the same
 * way.  A group that began with a load takes in a store only if the store is certain to follow: its page must then be writable.
 */
#include "jit/opt.h"

#include <string.h>

#include "base/compiler.h"

enum { GROUP_SPAN = 512, GROUP_INSNS = 12, OPEN = 3 };

static unsigned access_bytes(const struct ir *ir)
{
    enum { NOT_PLAIN = MO_UNPRIV | MO_ALIGN | MO_REL };
    unsigned bytes = 1u << (ir->k & MO_SIZE);

    if (ir->k & NOT_PLAIN)
        return 0;
    switch (ir->op) {
    case IR_load: case IR_store: case IR_load_w: case IR_store_w: return bytes;
    case IR_load_pair: case IR_store_pair: case IR_load_pair_w: case IR_store_pair_w: return 2 * bytes;
    default: return 0;
    }
}

unsigned opt_root(const struct ir_block *block, unsigned v, int64_t *off)
{
    *off = 0;
    for (;;) {
        const struct ir *ir = &block->ir[v];
        if ((ir->op != IR_add && ir->op != IR_sub) || !ir->k || block->ir[ir->b].op != IR_const)
            return v;
        *off += ir->op == IR_add ? (int64_t)block->ir[ir->b].imm : -(int64_t)block->ir[ir->b].imm;
        v = ir->a;
    }
}

/* The same value, or one that is computed in the same way from the same. */
static bool same_value(const struct ir_block *block, unsigned a, unsigned b, unsigned depth)
{
    const struct ir *x = &block->ir[a], *y = &block->ir[b];

    if (a == b)
        return true;
    if (!depth || x->op != y->op || x->k != y->k)
        return false;
    switch (x->op) {
    case IR_const: case IR_pc: return x->imm == y->imm;
    case IR_ext: return same_value(block, x->a, y->a, depth - 1);
    case IR_add: case IR_sub: case IR_shl:
        return same_value(block, x->a, y->a, depth - 1) && same_value(block, x->b, y->b, depth - 1);
    default: return false;
    }
}

struct open_group {
    unsigned root, n, insns;
    int64_t base, lo, hi; /* of the first access, from the root; of all, from the first */
    bool branched;        /* since the first there was a way out that is not always taken */
    struct group g;
};

struct groups {
    struct ir_block *block;
    struct open_group open[OPEN]; /* the latest used first */
    struct group *found;
    unsigned n, insns;
};

static void close_group(struct groups *s, unsigned i)
{
    struct open_group *o = &s->open[i];

    if (o->n > 1 && s->n < MAX_GROUPS) {
        o->g.lo = (int32_t)o->lo;
        o->g.span = (uint32_t)(o->hi - o->lo);
        o->g.addend = (uint16_t)(s->block->n + s->n);
        o->g.uses = (uint16_t)(o->n - 1);
        s->found[s->n++] = o->g;
    }
    o->n = 0;
}

static bool takes_in(const struct open_group *o, int64_t off, unsigned bytes, unsigned insns, bool store)
{
    return insns - o->insns <= GROUP_INSNS && (!store || o->g.store || !o->branched) &&
           MAX(o->hi, off - o->base + bytes) - MIN(o->lo, off - o->base) <= GROUP_SPAN;
}

/* The operation in the chain from access id to `old' that takes it; id itself if it is the address. */
static unsigned user_of(const struct ir_block *block, unsigned id, unsigned old)
{
    while (block->ir[id].a != old)
        id = block->ir[id].a;
    return id;
}

/* May the access, whose address is computed from `root', be of the group, with the group's own in place of that? */
static bool same_root(const struct ir_block *block, const struct open_group *o, unsigned id, unsigned root)
{
    return o->n && same_value(block, o->root, root, 3) && user_of(block, id, root) > o->root;
}

/* Takes in the access, or begins anew with it. */
static void add_access(struct groups *s, unsigned id, unsigned bytes)
{
    struct ir *ir = &s->block->ir[id];
    bool store = ir_is_store(ir->op);
    int64_t off;
    unsigned root = opt_root(s->block, ir->a, &off), i = 0;

    while (i < OPEN - 1 && s->open[i].n && !same_root(s->block, &s->open[i], id, root))
        i++;
    struct open_group o = s->open[i];
    if (same_root(s->block, &o, id, root) && takes_in(&o, off, bytes, s->insns, store)) {
        s->block->ir[user_of(s->block, id, root)].a = (uint16_t)o.root;
        o.lo = MIN(o.lo, off - o.base);
        o.hi = MAX(o.hi, off - o.base + bytes);
        o.n++;
        o.g.last = (uint16_t)id;
        o.g.store |= store;
    } else {
        close_group(s, i);
        o = (struct open_group){ .root = root, .n = 1, .insns = s->insns, .base = off, .lo = 0, .hi = bytes,
                                 .g = { .first = (uint16_t)id, .last = (uint16_t)id, .store = store } };
    }
    memmove(&s->open[1], &s->open[0], i * sizeof s->open[0]);
    s->open[0] = o;
}

/* The second walk: those between first and last that belong to it. */
static void mark_members(const struct ir_block *block, const struct group *g, unsigned number, uint8_t *member)
{
    int64_t base, off;
    unsigned root = opt_root(block, block->ir[g->first].a, &base);

    for (unsigned i = g->first; i <= g->last; i++) {
        const struct ir *ir = &block->ir[i];
        if (access_bytes(ir) && opt_root(block, ir->a, &off) == root)
            member[i] = (uint8_t)(number + 1);
    }
}

unsigned opt_groups(struct ir_block *block, struct group groups[MAX_GROUPS], uint8_t *member)
{
    struct groups s = { .block = block, .found = groups };

    memset(member, 0, block->n);
    for (unsigned i = 0; i < MAX_GROUPS; i++)
        block->ir[block->n + i] = (struct ir){ .op = IR_none };
    if (block->n + MAX_GROUPS > GROUP_IR_MAX)
        return 0;
    for (unsigned i = 1; i < block->n; i++) {
        const struct ir *ir = &block->ir[i];
        unsigned bytes = access_bytes(ir), effects = ir_info[ir->op].effects;
        s.insns += ir->op == IR_insn;
        if (bytes) {
            add_access(&s, i, bytes);
        } else if (ir->op == IR_side) {
            for (unsigned k = 0; k < OPEN; k++)
                s.open[k].branched = true;
        } else if (effects & (IE_STATE | IE_EX | IE_END | IE_STORE) || ir->op == IR_poll) {
            for (unsigned k = 0; k < OPEN; k++)
                close_group(&s, k);
        }
    }
    for (unsigned k = 0; k < s.n; k++)
        mark_members(block, &groups[k], k, member);
    return s.n;
}
