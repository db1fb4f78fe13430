/*
 * What the engine keeps for one vCPU, between jit.c (the run loop), spaces.c (data TLBs, keys, contexts) and calls.c (what
 * generated code calls).  The rules are at the head of jit.c.
 */
#ifndef ARMLET_JIT_VCPU_H
#define ARMLET_JIT_VCPU_H

#include "cpu/cpu.h"
#include "jit/check.h"
#include "jit/code.h"
#include "jit/state.h"

struct tlb_op;

#define TTBR_TABLE UINT64_C(0x0000fffffffffffe) /* of TTBRn, without ASID and CnP */
enum {
    SPACES = 16,         /* data TLBs kept */
    CONTEXTS = 64,
    KEYS = 256,          /* (fetch space, mode) pairs known at a time */
    UPPER_PAGES = 1024,  /* of the upper half that are known to have been executed from */
    RETURN_STACK = 1 << 16,
#ifdef ARMLET_HARSH
    MAX_INSNS = 1,
#else
    MAX_INSNS = BLOCK_INSNS,
#endif
    BLOOM = 4096,
    SPACE_FRONT = 4096,  /* bytes of a space's memory before the table */
    SPACE_BYTES = SPACE_FRONT + (sizeof(struct jtlb_entry) << JTLB_BITS),
    NEAR_BITS = 13,
};

struct space {
    uint64_t tag; /* the TLB's data tag + 1, 0: unused */
    struct jtlb_entry *table;
    uint16_t used[1 << JTLB_BITS]; /* entries that are filled; some may be here twice */
    unsigned nused;
    uint64_t last; /* use, in instructions, for eviction; code notes it in the context */
};

/* What contexts depend on beside what is in their tags. */
struct config {
    uint64_t sctlr, tcr, cpacr;
    uint64_t fpcr;  /* whether it is not zero */
    uint64_t plain; /* no debugging, counting or tracing: code may switch by itself */
};

struct key {
    uint64_t fetch_tag; /* or UPPER_KEY | table in TTBR1 */
    uint64_t key;       /* 0: unused */
    uint8_t mode;
};
#define UPPER_KEY (UINT64_C(1) << 63)

struct upper_page {
    uint64_t va, pa, table; /* va 0: none */
};

/* A block that this vCPU has looked up lately: all in one cache line, where the shared hash takes three. */
struct near {
    uint64_t pa; /* 1: none */
    uint32_t generation;
    uint32_t mode;
    const uint8_t *cross;
    struct jit_block *block;
};

struct torn { /* a group that was not in one page, so often */
    uint64_t pa;
    unsigned n;
};
enum { TORN = 1024 };

struct jit_stats {
    uint64_t lookups, slow_mem, refills, interp;
    uint64_t torn; /* groups that were not in one page */
    uint64_t cold; /* instructions that were interpreted because they had run seldom */
    uint64_t interp_ns;  /* under a debugger and the like */
    uint64_t c_ops[IR_N_OPCODES]; /* operations run in C */
};

struct jit_cpu {
    struct cpu *cpu;
    struct jit_code *code;
    const uint8_t *enter; /* its stub */
    unsigned epoch;       /* of the code, as last seen */
    struct space *spaces;
    unsigned nspaces;
    uint64_t space_ids; /* given so far (jtlb_id()) */
    uint64_t clock; /* of space.last: never the same twice */
    struct context context[CONTEXTS]; /* [0]: one that is not remembered */
    unsigned ncontexts, forgotten;    /* forgotten: how often they were */
    struct context *slots[CONTEXT_SLOTS];
    struct config config;
    unsigned drops;
    uint32_t changes;
    uint64_t breaks_id; /* of the breakpoints that all of this was made for */
    struct key keys[KEYS];
    uint64_t next_key;
    struct upper_page upper[UPPER_PAGES]; /* the others, by a hash of va; not more than half full, or not all are here */
    unsigned nupper;
    bool walk_again; /* rule 6 */
    uint64_t bloom[BLOOM / 64]; /* pages that the jump cache or the return stack may lead to, but for those of the upper half */
    struct near *near;
    struct jump *jumps, *direct;
    uint8_t *return_stack;
    struct torn torn[TORN];
    const uint8_t *exec_page; /* jit_exec_words(): where its words are */
    struct jit_stats stats;
    struct jit_check_counts checked;
};

/* --- spaces.c --- */
/* The context that the hot words are of; context[0] if it is not remembered. */
struct context *jit_context_now(const struct jit_cpu *j);
/* The hot words follow EL, address space, interrupt masks and code changes. */
void jit_sync_mode(struct jit_cpu *j);
uint64_t jit_leave_mask(const struct cpu *cpu);
/* Code has left context `from' in that way, by C, and will do so by itself; `forgotten' as it was before. */
void jit_learn(struct jit_cpu *j, struct context *from, unsigned forgotten, enum context_to how);
unsigned jit_tlb_index(uint64_t va);
/* After a successful access: what cpu/tlb.c keeps of the page may be kept in the data TLB too. */
void jit_fill(struct jit_cpu *j, uint64_t va, unsigned mop);
/* Before an access: true if cpu/tlb.c knows the page and permits it, and it is in the data TLB now but was not. */
bool jit_refill(struct jit_cpu *j, uint64_t va, unsigned mop, bool write);
void jit_drop_spaces(struct jit_cpu *j);
/* The jump cache and the return stack lead nowhere any more; or, cheaper, what they hold is stale. */
void jit_drop_jumps(struct jit_cpu *j);
void jit_drop_keys(struct jit_cpu *j);
/* The page at cpu->pc, which is at pa, is executed from. */
void jit_note_executed(struct jit_cpu *j, uint64_t pa);
void jit_walk_upper_again(struct jit_cpu *j); /* rule 6 */
/* Listener of the TLB (tlb_set_listener()). */
void jit_on_tlbi(void *opaque, struct cpu *cpu, const struct tlb_op *op, unsigned reach);
/* The flags that generated code has raised in MXCSR go to FPSR. */
void jit_fold_flags(struct cpu *cpu);

#endif
