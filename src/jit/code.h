/*
 * Translated code, shared by the vCPUs of a cluster (docs/jit.md, "One code cache for all vCPUs").
 *
 * Epochs: jit_code_epoch() moves on when code has been thrown away.  A vCPU holds blocks and addresses of code that it got
 * since it last called jit_code_seen(); with that call it promises to hold none from before.  Memory of code that was thrown
 * away is written again only when all have promised, or are quiescent.
 */
#ifndef ARMLET_JIT_CODE_H
#define ARMLET_JIT_CODE_H

#include <glib.h>

#include "jit/emit.h"

struct jit_code;

/* Of the cluster that the vCPU belongs to; made for the first vCPU, freed with the last. */
struct jit_code *jit_code_get(struct cpu *cpu, uint64_t bytes);
void jit_code_put(struct jit_code *code, struct cpu *cpu);
const struct jit_stubs *jit_code_stubs(const struct jit_code *code);

unsigned jit_code_epoch(const struct jit_code *code);
void jit_code_seen(struct jit_code *code, const struct cpu *cpu, unsigned epoch);

/* What is to be translated: the page's first byte, its physical address, the first instruction's. */
struct jit_place {
    const uint8_t *hva;
    uint64_t pa_page, pa;
    unsigned mode; /* JM_* */
    unsigned max;  /* instructions at most */
    bool bounded;  /* loops end after HOT_TURNS turns */
};
/* The block at the place, if it is there and not stale.  No lock. */
struct jit_block *jit_code_find(struct jit_code *code, struct cpu *cpu, const struct jit_place *at);

/*
 * Counts a run of code that has no block yet, and says whether it is too rarely run to have one.  Of all vCPUs together; no
 * lock, and places whose counts fall together become warm sooner.
 */
bool jit_code_is_cold(struct jit_code *code, const struct jit_place *at);
/* It is to have a block, however rarely it was run. */
void jit_code_warm(struct jit_code *code, const struct jit_place *at);

/*
 * A group that begins at pa is often in two pages: it is to have code for that.  Of the page's blocks that there are, none is
 * found again.
 */
void jit_code_torn(struct jit_code *code, struct cpu *cpu, uint64_t pa);

enum jit_made {
    JIT_MADE,
    JIT_FOUND, /* another vCPU was faster */
    JIT_RETRY, /* code was thrown away, or the vCPU was quiescent for a moment: from the start */
    JIT_CANNOT /* no host code for even one instruction */
};
enum jit_made jit_code_make(struct jit_code *code, struct cpu *cpu, const struct jit_place *at, struct jit_block **block);
/* All vCPUs have these breakpoints now (debug_breaks_id()): code of JM_BREAKS that was made for others is not found again. */
void jit_code_set_breaks(struct jit_code *code, uint64_t id);
/* The block that was made last is forgotten, and its memory used again: for tests. */
void jit_code_forget(struct jit_code *code);

/*
 * A jump has asked to be led to block b (HOT_LINK), on a vCPU that has last seen `epoch'.  False: it may not, as it is in
 * another page, or of another mode or version.
 */
bool jit_code_link(struct jit_code *code, uint64_t link, const struct jit_block *b, unsigned epoch);

/* Sizes in bytes. */
struct jit_code_stats {
    uint64_t size;             /* of code memory */
    uint64_t used, blocks;     /* of code that is kept, stale blocks among it */
    unsigned segments;
    uint64_t made, insns, bytes, ns; /* translated so far: blocks, guest instructions, host code, time */
    uint64_t kept;             /* blocks that were found again, their pages being what they were */
    uint64_t links;            /* jumps patched */
    uint64_t evictions, waits; /* segments thrown away; waits until vCPUs had left them */
};
void jit_code_stats(struct jit_code *code, struct jit_code_stats *out);


/* --- between the parts of the engine --- */
uint64_t jit_now_ns(void);
void jit_make_stubs(struct jit_stubs *stubs, uint8_t *rw, size_t room, intptr_t exec); /* stubs.c */
/* What code calls for an operation that it has no code for (jit.c).  Non-zero: guest code is left, for cpu->pc. */
uint64_t jit_c_op(struct cpu *cpu);
/* CNTPCT_EL0 and CNTVCT_EL0 for an instruction in front of which icount lacks so many. */
uint64_t jit_c_counter(struct cpu *cpu, uint64_t uncounted);
uint64_t jit_c_access(struct cpu *cpu); /* the same for loads and stores: struct jit_access */
uint64_t jit_c_group(struct cpu *cpu);  /* and for groups: struct jit_group */

#endif
