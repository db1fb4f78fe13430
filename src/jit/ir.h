/*
 * The translator's intermediate representation: guest instructions as values (docs/ir.md).
 *
 * A block is an array of struct ir; a value is the index of the operation that makes it, so that values are
 * in single assignment and an operand always has a smaller index.  Index 0 is IR_none and stands for no
 * operand.  Guest state is touched only by get_*, set_* and the operations whose effects say so, and side
 * effects happen in the order of the array.  Blocks depend on the mode in struct ir_mode and on the words
 * lifted, and not on the address they run at.
 *
 * No threads in here: a block belongs to who lifts it.
 */
#ifndef ARMLET_JIT_IR_H
#define ARMLET_JIT_IR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cpu/cpu.h"
#include "cpu/value.h"
#include "mem/mem.h"

enum ir_opcode {
#define IR(name, result, operands, effects) IR_##name,
#include "jit/ir_ops.def"
#undef IR
#define OP1(name, expr) IR_##name,
#define OP2(name, expr, commutes) IR_##name,
#include "isa/ops.def"
#undef OP1
#undef OP2
#define WOP1(name, effects) IR_w_##name,
#define WOP2(name, effects) IR_w_##name,
#define WOP3(name, effects) IR_w_##name,
#define WOPI1(name, effects) IR_w_##name,
#define WOPI2(name, effects) IR_w_##name,
#define WOPI3(name, effects) IR_w_##name,
#include "isa/wops.def"
#undef WOP1
#undef WOP2
#undef WOP3
#undef WOPI1
#undef WOPI2
#undef WOPI3
#define HELPER0(name, effects) IR_h_##name,
#define HELPER1(name, effects) IR_h_##name,
#define HELPER2(name, effects) IR_h_##name,
#define HELPER3(name, effects) IR_h_##name,
#define HELPER4(name, effects) IR_h_##name,
#define HELPERF0(name, effects) IR_h_##name,
#define HELPERF1(name, effects) IR_h_##name,
#define HELPERF2(name, effects) IR_h_##name,
#define HELPERF3(name, effects) IR_h_##name,
#define HELPERF4(name, effects) IR_h_##name,
#include "isa/helpers.def"
#undef HELPER0
#undef HELPER1
#undef HELPER2
#undef HELPER3
#undef HELPER4
#undef HELPERF0
#undef HELPERF1
#undef HELPERF2
#undef HELPERF3
#undef HELPERF4
    IR_N_OPCODES
};

enum ir_type { IR_N, IR_V, IR_W, IR_F, IR_V2, IR_W2 };

enum ir_effects {
    IE_READ = 1,    /* reads guest registers or flags */
    IE_WRITE = 2,   /* writes them: dead if written again before anything that may fault, read or end */
    IE_FAULT = 4,   /* may leave here with an exception: everything before must be in struct cpu */
    IE_LOAD = 8,
    IE_STORE = 16,
    IE_EX = 32,     /* the exclusive monitor */
    IE_FPSR = 64,   /* reads FPCR, sets bits of FPSR (sticky: order among themselves is free) */
    IE_STATE = 128, /* a helper on struct cpu: all guest registers must be there, and may be others after */
    IE_END = 256,   /* the last operation of a block */
    IE_MARK = 512,  /* none, but must stay in place */
};

/* 16 bytes: with up to two operands there is room for 64 bits of imm; c, d, e and imm16 lie over it. */
struct ir {
    uint16_t op; /* enum ir_opcode */
    uint8_t k, x;
    uint16_t a, b;
    union {
        uint64_t imm;
        struct { uint16_t c, d, e, imm16; };
    };
};
_Static_assert(sizeof(struct ir) == 16, "four to a cache line");

/* The enum mop of a memory operation: k, and above it, for those that may have MO_LANES() or MO_PAIRED, x. */
static inline unsigned ir_mop(const struct ir *ir)
{
    bool more = ir->op == IR_load_w || ir->op == IR_store_w || ir->op == IR_store_ex || ir->op == IR_store_ex_pair;
    return more ? ir->k | (unsigned)ir->x << 8 : ir->k;
}

struct ir_info {
    const char *name;
    const char *operands; /* letters as in ir_ops.def */
    uint8_t result;       /* enum ir_type */
    uint16_t effects;
    uint8_t n; /* operands */
};
extern const struct ir_info ir_info[IR_N_OPCODES];

/* What translation takes as given; code is found again only by an equal mode.  No padding: compare with memcmp(). */
struct ir_mode {
    uint8_t el;
    uint8_t fp_enabled;
    uint8_t sp_check; /* SCTLR_EL1.SA or SA0 */
    uint8_t tbi;      /* bit 0: TCR_EL1.TBI0, bit 1: TBI1 */
    uint8_t zero[4];
    uint64_t features[A64_FEATURE_WORDS];
};
struct ir_mode ir_mode_of(const struct cpu *cpu);

enum { IR_MAX = 4096, IR_MAX_PER_INSN = 256 };

/* What a block is made of, of the guest's page: pieces are copied when a word of theirs is first looked at. */
enum { IR_PIECE = 256, IR_PIECES = MEM_PAGE_SIZE / IR_PIECE };
struct ir_page {
    const uint8_t *from; /* the guest's page, which may change meanwhile */
    uint32_t taken;      /* a bit for each piece */
    uint8_t copy[MEM_PAGE_SIZE];
};
/* The word at a byte offset in the page. */
uint32_t ir_page_word(struct ir_page *page, unsigned at);

struct ir_block {
    struct ir_mode mode;
    unsigned n;      /* operations used, including [0] */
    unsigned insns;  /* guest instructions */
    bool ended;      /* an operation with IE_END is in; nothing may follow */
    /* A trace goes on behind forward conditional branches and through direct ones, within the page. */
    bool trace;
    bool polled;         /* there is a poll */
    uint8_t sides, jumps;
    uint16_t first;      /* byte offset of the first instruction in its page */
    int32_t here, next;  /* offsets from the first instruction: of the current one, of the one to be lifted next */
    struct ir_page *page; /* for a look at what follows; NULL: not to be looked at */
    uint64_t seen[16];   /* words of the page that are in the trace: a bit each */
    struct ir ir[IR_MAX + 8]; /* some more for passes */
};

void ir_begin(struct ir_block *block, const struct ir_mode *mode);
/* The same for a trace whose first instruction is at byte offset `first' of its page. */
void ir_begin_trace(struct ir_block *block, const struct ir_mode *mode, unsigned first);
/*
 * Appends the instruction at block->next.  False: the block is full (or has ended, or has been here or leaves the page, if
 * it is a trace) and the word was not taken. Words that are UNDEFINED in this mode lift to that exception.
 */
bool ir_lift(struct ir_block *block, uint32_t word);
/* Closes a block that has not ended by itself with an exit to the next address. */
void ir_end(struct ir_block *block);

/*
 * Runs a block on cpu from cpu->pc, through the same state functions as the interpreter: for tests.
 * Afterwards cpu->pc is where to go on and cpu->icount has grown by the instructions completed.
 */
void ir_eval(struct cpu *cpu, const struct ir_block *block);

/*
 * Runs one operation that is not about registers, for a translator that has no code of its own for it:
 * operands in in[], results in out[].  cpu->pc is the instruction's, next_pc the following one's, leave 0.
 * False: it did not complete.
 */
bool ir_eval_op(struct cpu *cpu, const struct ir *ir, const union vreg in[5], union vreg out[2]);

void ir_dump(FILE *out, const struct ir_block *block);

/* Loads and stores that are nothing else: no exclusives, no atomics. */
static inline bool ir_is_store(unsigned op)
{
    return op == IR_store || op == IR_store_pair || op == IR_store_w || op == IR_store_pair_w;
}
static inline bool ir_is_access(unsigned op)
{
    return ir_is_store(op) || op == IR_load || op == IR_load_pair || op == IR_load_w || op == IR_load_pair_w;
}

/* Number of operands of an operation. */
static inline unsigned ir_operands(unsigned op)
{
    return ir_info[op].n;
}
/* Operand i of an operation. */
static inline uint16_t ir_operand(const struct ir *ir, unsigned i)
{
    return i == 0 ? ir->a : i == 1 ? ir->b : i == 2 ? ir->c : i == 3 ? ir->d : ir->e;
}

#endif
