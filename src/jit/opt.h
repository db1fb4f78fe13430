/*
 * The passes over a lifted block, before code is emitted.  Each is linear in the block's length.
 */
#ifndef ARMLET_JIT_OPT_H
#define ARMLET_JIT_OPT_H

#include "jit/ir.h"

/* May guest code be left there, so that all its state must be known? */
static inline bool opt_is_way_out(const struct ir *ir)
{
    return ir_info[ir->op].effects & (IE_FAULT | IE_STATE | IE_END) || (ir->op == IR_insn && ir->x);
}

/*
 * Reads of guest registers and flags that the block itself has written (or read) before become that value: after this
 * a get_* is the first of its register, or stands behind a helper that may have changed it.
 */
void opt_forward(struct ir_block *block);
/*
 * Writes that are overwritten before anyone could see them, and values that nobody uses, become IR_none.  uses[i] is then
 * the number of operands that name i.  uses has IR_MAX entries.
 */
void opt_dead(struct ir_block *block, uint16_t *uses);

/*
 * Behind opt_dead(): which flags need not be stored where they are made.  A set_f with k != LAZY_NONE is seen by nobody but
 * cold code and ends before the next set_f; whoever leaves in between makes the flags again:
 *   LAZY_HOST   from the host's flags, which still hold them (one conditional branch, right behind)
 *   others      by the operation k from registers as struct cpu then has them: a is in register b & 31 (BACK: the result
 *               is), the other operand in b >> 8, or imm if that is NO_HOME.  x is sf.
 */
enum lazy_kind { LAZY_NONE, LAZY_HOST, LAZY_SUB, LAZY_ADD, LAZY_LOGIC, LAZY_AND, LAZY_SUB_BACK, LAZY_ADD_BACK };
enum { NO_HOME = 0xff };
void opt_lazy(struct ir_block *block);

/*
 * Loads and stores off one base that one look at the TLB serves: all their bytes are in [lo, lo + span) from the address of
 * the first, and nothing in between may change the mapping.  member[] says for each operation its group + 1, or 0.  The
 * address offset is the value `addend', which lies behind the block's own and has so many uses.
 */
enum { MAX_GROUPS = 8, GROUP_IR_MAX = 1024 };
struct group {
    uint16_t first, last, addend, uses;
    int32_t lo;
    uint32_t span;
    bool store; /* the page must be writable */
    bool torn;  /* often in two pages: cold code leaves behind it, where the instruction has x = 1 */
};
/* v is the value returned plus *off. */
unsigned opt_root(const struct ir_block *block, unsigned v, int64_t *off);
unsigned opt_groups(struct ir_block *block, struct group groups[MAX_GROUPS], uint8_t *member);

/* k of side, exit, branch_rel and branch_if after opt_dead(): flags are dead where it goes on, or where it branches to. */
enum { FLAGS_DEAD_NEXT = 1, FLAGS_DEAD_TAKEN = 2 };

/*
 * Behind opt_lazy(): a trace whose end leads to its own start jumps there with all that it knows.
 *   flags  the set_f of the end's flags, which are not stored there: ways out that come before the next set_f make them
 *          as `lazy' ones are made, from registers that are still as they were; in the first turn they find them stored
 *   w      vector registers that are read before they are written, or only written: the get_w, and the value at the end.  They
 *          are in xmm registers at the start of every turn, and in their homes unless `owed'.
 *  site    two loads and a store of general registers, not of groups, whose address moves little from one turn to the next;
 *          0: there is none.  Which is a store must be so for all loops (struct recent).
 */
enum { LOOP_W = 8, LOOP_LOADS = 2, LOOP_SITES = 3 };
struct loop_w {
    uint8_t reg;
    bool owed;
    uint16_t get, last;
};
struct loop {
    bool is;
    uint16_t flags;
    unsigned n;
    struct loop_w w[LOOP_W];
    bool sites; /* there are some */
    uint16_t site[LOOP_SITES];
};
void opt_loop(struct ir_block *block, const uint16_t *uses, const uint8_t *member, struct loop *loop);

/*
 * Behind opt_loop(): a set_w that is set again before anything but cold code could see it has x = 1.  It need not be stored where
 * it is; whoever leaves in between stores it.
 */
void opt_owed(struct ir_block *block, const struct loop *loop);

#endif
