/*
 * What -d in_asm, op, op_opt and out_asm show of each block (-dfilter chooses blocks by guest address), and the map of
 * code that perf reads (-perfmap).
 *
 * All of it is for people: the formats may change.  Called by the vCPU's thread that translates; lines of several vCPUs
 * do not mix, blocks may.
 */
#ifndef ARMLET_JIT_DUMP_H
#define ARMLET_JIT_DUMP_H

#include "base/trace.h"
#include "jit/emit.h"

/* Is any of the dumps wanted for a block at pc?  Cheap when none is. */
bool jit_dump_wanted(uint64_t pc);
/* The guest instructions of a trace at pc, in its order; page: the first byte of its page. */
void jit_dump_guest(uint64_t pc, const struct ir_block *block, const uint8_t *page);
void jit_dump_ir(enum trace_category which, uint64_t pc, const struct ir_block *block);
/* Host code from start on, as e emitted it (with guest instructions between), for the block at pc. */
void jit_dump_host(uint64_t pc, const struct emit *e, const uint8_t *start);
/* The names of the host instructions from start to end, and how many there are; 0: no disassembler is built in. */
unsigned jit_dump_names(FILE *out, const uint8_t *start, const uint8_t *end);

/* Write /tmp/perf-PID.map from now on.  0 or -errno. */
MUST_USE int jit_perf_map(void);
void jit_perf_map_add(const uint8_t *code, size_t bytes, uint64_t pc);

#endif
