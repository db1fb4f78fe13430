/*
 * The passes over a lifted block, before code is emitted.  Each is linear in the block's length.
 */
#ifndef ARMLET_JIT_OPT_H
#define ARMLET_JIT_OPT_H

#include "jit/ir.h"

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

#endif
