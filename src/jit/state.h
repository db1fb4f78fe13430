/*
 * What generated code and the run loop share: host register assignment, the hot words of struct cpu, and the engine's
 * own state of a vCPU.
 *
 * ORDER hot: emit.c and run.c address these words as cpu->hot[HOT_...].
 */
#ifndef ARMLET_JIT_STATE_H
#define ARMLET_JIT_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "cpu/cpu.h"
#include "jit/ir.h"
#include "jit/x86.h"

/*
 * Host registers.  RBP points 128 bytes into struct cpu, so that every guest register is one byte of displacement away;
 * R15 is the data TLB of the current address space and view; RSP is the return stack; RAX, RCX, RDX, RSI, R14 are for
 * values inside a block; the rest hold guest registers all the time.
 */
enum { REG_CPU = RBP, REG_TLB = R15, CPU_BIAS = 128, TEMPS = 5, PINS = 8 };
extern const uint8_t jit_temps[TEMPS];
/* Guest register of each pinned host register, and the other way: NO_REG when it lives in struct cpu. */
struct jit_pin {
    uint8_t guest, host;
};
extern const struct jit_pin jit_pins[PINS];
extern const uint8_t jit_pin_of[32];

enum hot {
    HOT_PAGE,     /* va of the page that the current block lies in */
    HOT_KEY,      /* distinguishes address space and mode in tags: 64 bits that nobody can know (jit.c, rule 1) */
    HOT_FLAGS,    /* guest NZCV as LAHF and SETO leave it in AX: S Z . . . . . C, and V in bit 0 */
    HOT_TABLE,    /* data TLB of the current view: R15 */
    HOT_UTLB,     /* data TLB of the unprivileged view (LDTR at EL1) */
    HOT_JUMPS,    /* the jump cache */
    HOT_MASK,     /* bits of cpu->pending that make code leave */
    HOT_CSP,      /* stack pointer of the run loop */
    HOT_RSP,      /* the return stack, while the run loop runs */
    HOT_RS_TOP,   /* where it starts, and where it is to be reset */
    HOT_RS_LIMIT,
    HOT_LINK,     /* executable address of what a jump that wants to be patched says of itself, 0: none */
    HOT_A,        /* five operands of 16 bytes */
    HOT_R = HOT_A + 10, /* two results of 16 bytes */
    HOT_RESERVED = HOT_R + 3,
    HOT_T0, HOT_T1, HOT_T2, HOT_T3, HOT_T4, /* temporaries across a call */
    HOT_SPILL = HOT_T0 + 6, /* SPILLS words */
    HOT_W = HOT_SPILL + 16, /* W_SLOTS vectors */
    HOT_X = HOT_W + 2 * 32,   /* xmm registers across a call, from XMM_FIRST on */
    HOT_K = HOT_X + 2 * 12,   /* constants: enum hot_const */
    HOT_MXCSR = HOT_K + 2 * 16, /* MXCSR of generated code while C runs: FPSR's flags that are not there yet */
    HOT_VERSIONS, /* access_ex_versions */
    HOT_DIRECT,   /* the places of direct jumps to other pages: struct jump */
    HOT_TURN,     /* of a loop that carries flags: 0 in its first turn, else not */
    HOT_LATER,    /* of a loop that owes vectors from its start: 0 in its first turn, else not */
    HOT_TURNS,    /* jit_exec_words(): back edges that may still be taken */
    HOT_CHANGES_AT, HOT_CHANGES, /* where mem_code_changes() is, and what keys were made for */
    HOT_CONTEXT,  /* struct context: what the words above were made for */
    HOT_CONTEXTS, /* CONTEXT_SLOTS pointers to such by context_slot(); never NULL */
    HOT_ASID_MASK, /* the bits of an ASID that count */
    HOT_WORDS
};
enum { SPILLS = 16, W_SLOTS = 32, XMMS = 16, XMM_FIRST = 4 };
/* Vector constants at HOT_K, two words each. */
enum hot_const {
    K_ABS_S, K_ABS_D, K_SIGN_S, K_SIGN_D, K_MIN_S, K_MIN_D, /* MIN: the smallest normal number in every lane */
    K_NIBBLES, K_COUNTS, K_LOW_B, K_LOW_H, K_ONES_B, K_TABLE, /* see emit_simd.c */
    K_MINUS_1, K_2_32, K_2_63, /* a double, and at 8 the same as a float */
    K_CRC32, /* see emit.c */
    K_CONSTS
};
void jit_hot_constants(uint64_t *hot);
_Static_assert(HOT_A % 2 == 0 && HOT_W % 2 == 0 && HOT_X % 2 == 0 && HOT_K % 2 == 0, "vectors are aligned");
_Static_assert((int)HOT_WORDS <= (int)CPU_HOT, "cpu.h reserves this much");

/* MXCSR as generated code starts with: round to nearest, exceptions masked, no flags. */
enum { MXCSR_START = 0x1f80, MXCSR_FLAGS = 0x3f };

static inline struct hmem jit_cpu_mem(size_t offset)
{
    return MEM(REG_CPU, (int32_t)offset - CPU_BIAS);
}
#define CPU_MEM(field) jit_cpu_mem(offsetof(struct cpu, field))
#define HOT(word) jit_cpu_mem(offsetof(struct cpu, hot) + 8 * (size_t)(word))

/* --- data TLB: one for each address space and view --- */
enum {
#ifdef ARMLET_HARSH
    JTLB_BITS = 3,
#else
    JTLB_BITS = 16,
#endif
    JTLB_SHIFT = 4, /* log2 of an entry's size */
    JTLB_MASK = ((1 << JTLB_BITS) - 1) << JTLB_SHIFT,
    JTLB_RO = 2 << MEM_PAGE_SHIFT,
};
/*
 * The tag is the page of va, but three of its bits say more, which is possible since an entry's index says them too: with
 * JTLB_RO inverted the page may not be written (a load leaves that bit out of its comparison); with the bit above, the entry
 * is empty.  The lowest bit is left alone: an access that goes on in the next page finds it changed, whatever the others say.
 */
struct jtlb_entry {
    uint64_t tag;
    uint64_t addend; /* host address less va */
};
static inline uint64_t jtlb_none(unsigned i)
{
    return (uint64_t)(i ^ 4) << MEM_PAGE_SHIFT;
}
_Static_assert(JTLB_BITS >= 3 && sizeof(struct jtlb_entry) == 1 << JTLB_SHIFT, "see above");
/* What of (va ^ tag) is 0 when the access may be done there, as the operand of TEST. */
static inline uint32_t jtlb_compare(bool store)
{
    return store ? 0xfffff000u : 0xfffff000u & ~(uint32_t)JTLB_RO;
}
/* May the access to va be done by this entry, which is the one of its index? */
static inline bool jtlb_permits(const struct jtlb_entry *t, uint64_t va, bool store)
{
    return !((t->tag ^ va) & (uint64_t)(int64_t)(int32_t)jtlb_compare(store));
}

/*
 * The pages that a loop's accesses were in lately, in cpu->recent: valid while `id' is that of the table (jtlb_id()), which
 * a table gets anew whenever something is taken out of any.  The tag is a page, or JTLB_NOWHERE, which no page is.  Loops may
 * share one, so that a site is for loads in all of them, or for stores (struct loop).
 */
enum { RECENT_SITES = 3, JTLB_NOWHERE = 0x800 };
struct recent {
    uint64_t id;
    struct { uint64_t tag, addend; } site[RECENT_SITES];
    uint64_t pad;
};
enum { RECENTS = CPU_RECENT * 8 / (int)sizeof(struct recent) };
/* It stands in front of the table. */
static inline uint64_t *jtlb_id(struct jtlb_entry *table)
{
    return (uint64_t *)(void *)table - 1;
}

/* --- jump cache: from va and key to code --- */
enum {
#ifdef ARMLET_HARSH
    JUMP_BITS = 2,
    DIRECT_BITS = 1,
#else
    JUMP_BITS = 14,
    DIRECT_BITS = 13,
#endif
};
struct jump {
    uint64_t tag; /* va ^ key */
    const uint8_t *code; /* a cross entry: RAX is va */
};
static inline unsigned jump_slot(uint64_t tag)
{
    return tag >> 2 & ((1u << JUMP_BITS) - 1);
}
/*
 * --- contexts: what a change of EL, of the stack pointer, of PAN or UAO, or of the ASID changes ---
 *
 * Remembered by each vCPU, so that code can do such a change by itself (stubs.c).  One that is remembered has a tag, and is
 * right as long as it is remembered: jit.c forgets all when anything else changes that they depend on.
 */
enum context_to { TO_EXCEPTION, TO_RETURN, TO_PAN_0, TO_PAN_1, TO_KINDS };
enum {
    CONTEXT_SLOTS = 128, CTX_EL = 1, CTX_SPSEL = 2, CTX_VALID = 4, CTX_UAO = 8,
    CTX_UPPER = 16, /* its key is for code in the upper half, of all ASIDs (jit.c, rule 6) */
    CTX_PAN = 128, CTX_ASID_SHIFT = 8,
};
struct space;
struct context {
    uint64_t table, utlb, key;                /* HOT_TABLE, HOT_UTLB, HOT_KEY */
    uint64_t data_tag, unpriv_tag, fetch_tag; /* the TLB's (cpu/tlb.h, rule 7) */
    uint64_t pstate;                          /* cpu->el and the seven bytes behind it */
    uint64_t tag;                             /* ASID << CTX_ASID_SHIFT | CTX_...; 0: it is not remembered */
    uint64_t upper;                           /* the table in TTBR1 */
    uint32_t spsr;                            /* M, PAN and UAO */
    uint8_t mode;                             /* JM_* */
    struct context *to[TO_KINDS];             /* NULL: not known yet; TO_RETURN: where the last ERET led */
    struct space *data_space, *unpriv_space;
    uint64_t used;                            /* when it was switched to last, in instructions */
};
static inline unsigned context_slot(uint64_t tag)
{
    return tag / CTX_PAN % CONTEXT_SLOTS;
}
_Static_assert(offsetof(struct cpu, debug_slow) == offsetof(struct cpu, el) + 7, "context.pstate");

/* --- blocks --- */
struct jit_block {
    _Atomic(struct jit_block *) next; /* in the hash chain */
    uint64_t pa;             /* of the first instruction */
    uint8_t mode;            /* JM_* */
    uint16_t insns;
    uint32_t version;        /* of the page's contents when it was translated */
    const uint8_t *cross;    /* entry from anywhere: RAX is va; HOT_PAGE is set there */
    const uint8_t *inside;   /* entry from the same page */
};
/*
 * What code takes for granted: EL1, FP enabled, SP alignment checked, FPCR zero, SPSel (EL1h), DC ZVA allowed.  TRACED: every
 * block is entered from the run loop, which traces it (-d exec, cpu, nochain, sysreg), and C accesses system registers; so
 * nothing is linked or put into the jump cache.
 * BREAKS: of a page with breakpoints (jit.c, rule 4); it is the page's and not the vCPU's, so that keys are without it.
 */
enum { JM_EL = 1, JM_FP = 2, JM_SP = 4, JM_FPCR = 8, JM_SPH = 16, JM_DZE = 32, JM_TRACED = 64, JM_BREAKS = 128 };

/* Places in a block that leave for a fixed place in the same page, to be patched. */
struct jit_link {
    uint8_t *place;      /* rel32, writable view */
    uint16_t page_off;   /* of the target */
    uint8_t mode;
};

/* x86 flags word <-> NZCV */
static inline uint32_t jit_nzcv(uint64_t hot)
{
    uint32_t f = (uint32_t)hot;
    return (f & 0xc000) << 16 | (f & 0x100) << 21 | (f & 1) << 28;
}
static inline uint64_t jit_hot_flags(uint32_t nzcv)
{
    return (nzcv >> 16 & 0xc000) | (nzcv >> 21 & 0x100) | (nzcv >> 28 & 1);
}

/* --- host features that the emitter asks for --- */
struct jit_host {
    bool bmi1, bmi2, lzcnt, avx, avx2, fma, aes, pclmul, sha, avx512vl, sse42;
};
extern struct jit_host jit_host;

#endif
