/*
 * Two levels of cached translations for each vCPU.
 *
 * Rules for contributors
 *  1. `fast' and `fetch' are direct-mapped by page, with the whole question in the tag: page, space, view.  A hit there
 *     is permitted, is RAM or ROM, and has no watchpoint.  Everything else is found by tlb_lookup() in `main'.
 *  2. A space is a small number for an ASID (or for "MMU off"), so that a TTBR or ASID switch changes tags and flushes
 *     nothing.  Dropping an ASID gives it a new number.  A view is whose permissions count (enum mmu_view): LDTR at EL1
 *     has the view of EL0.
 *  3. `fast' has no notion of global pages: it is refilled from `main', which has.
 *  4. Nothing that faults is kept: a miss and a refusal both walk the tables before an exception is taken.
 *  5. Only the vCPU's own thread touches its TLB; the rest of the world queues operations (tlb_maintain()).
 *  6. A change of SCTLR_EL1.M or WXN, TCR_EL1 or MAIR_EL1 drops everything: stricter than the architecture asks.
 *  7. The three tags say which space and views are now, and nothing else does: a translator may set them to what they were
 *     before, when EL, PSTATE.PAN and UAO and the ASID are what they were then, and no space was given away since.
 */
#ifndef ARMLET_CPU_TLB_H
#define ARMLET_CPU_TLB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cpu/mmu.h"
#include "mem/mem.h"

struct cpu;
struct tlb_queue;
struct tlb_main;

#ifdef ARMLET_HARSH
enum { TLB_FAST_BITS = 2, TLB_FETCH_BITS = 2 };
#else
enum { TLB_FAST_BITS = 10, TLB_FETCH_BITS = 8 };
#endif

struct tlb_entry {
    uint64_t rtag, wtag; /* page of va (top byte as used) | space << 2 | view; 0 matches nothing */
    uint64_t addend;     /* host address - va */
    bool device;         /* unaligned accesses fault */
};

struct tlb_fetch {
    uint64_t tag;
    const uint8_t *host; /* of the page */
    uint64_t pa;         /* of the page */
};

struct tlb {
    uint64_t data_tag, unpriv_tag, fetch_tag; /* space << 2 | view, now */
    bool strict;                              /* SCTLR_EL1.A: unaligned is a fault */
    bool watching;                            /* some watchpoint is active: nothing enters `fast' on its pages */
    unsigned drops;                           /* how often everything was dropped, or `fast' was forgotten */
    bool outstanding;                         /* maintenance was broadcast since the last DSB */
    struct tlb_entry fast[1 << TLB_FAST_BITS];
    struct tlb_fetch fetch[1 << TLB_FETCH_BITS];
    struct tlb_main *main;
    struct tlb_queue *queue;
};

#define TLB_PAGE_MASK (~(uint64_t)(MEM_PAGE_SIZE - 1))

static inline unsigned tlb_index(uint64_t va, unsigned bits)
{
    return (unsigned)(va >> MEM_PAGE_SHIFT) & ((1u << bits) - 1);
}

struct tlb *tlb_new(void);
void tlb_free(struct tlb *tlb);
/* After anything that cpu_refresh() is for. */
void tlb_refresh(struct cpu *cpu);
/* Other pages than before are watched: `fast' and what is made of it start from nothing. */
void tlb_forget_fast(struct cpu *cpu);

/* A translation for one access within one page. */
struct tlb_hit {
    uint64_t pa;
    uint8_t *host; /* of the byte at va; NULL: not memory */
    bool writable; /* host may be written (not ROM) */
    bool device;
};
/*
 * Translates and judges; FSC_NONE or the fault's status code.  access: enum mmu_access.  Refills the fast arrays.  Dirty
 * state and access flag are updated as for a real access.
 */
uint8_t tlb_lookup(struct cpu *cpu, uint64_t va, unsigned access, enum mmu_view view, struct tlb_hit *hit);

/*
 * For a translator's own table: is the page known, and a data access permitted with nothing to be looked at first (devices,
 * watchpoints, strict alignment)?  writable: a write would be, too.  *addend: host address less va.
 */
bool tlb_peek(const struct cpu *cpu, uint64_t va, bool unpriv, bool write, bool *writable, uint64_t *addend);

/* --- maintenance (D8.14, C5.5) --- */
enum tlbi_kind {
    TLBI_ALL,  /* VMALLE1 */
    TLBI_ASID, /* ASIDE1: all non-global entries of the ASID */
    TLBI_VA,   /* VAE1, VALE1: the page for the ASID, and global ones */
    TLBI_VAA,  /* VAAE1, VAALE1: the page for every ASID */
};
struct tlb_op {
    enum tlbi_kind kind;
    uint16_t asid;
    uint64_t va;
};
/*
 * A TLBI instruction: operand is Xt (ASID in 63:48, VA[55:12] in 43:0).  Applied to this vCPU at once; broadcast: queued
 * for the others too, complete after cluster_dsb().
 */
void tlb_maintain(struct cpu *cpu, enum tlbi_kind kind, uint64_t operand, bool broadcast);
/* Drop everything, this vCPU only. */
void tlb_flush_all(struct cpu *cpu);
/* Apply what others have queued (PEND_TLB). */
void tlb_drain(struct cpu *cpu);

/*
 * A translator's own structures: called on the vCPU's thread after each operation has been applied here.  va is
 * sign-extended from bit 55; `reach' is log2 of the bytes around it that are to go.
 */
typedef void tlb_listener_fn(void *opaque, struct cpu *cpu, const struct tlb_op *op, unsigned reach);
void tlb_set_listener(struct cpu *cpu, tlb_listener_fn *fn, void *opaque);

/* Counts for `info tlb' and tests; owner's thread or paused. */
struct tlb_stats {
    uint64_t lookups, walks, flushes;
};
const struct tlb_stats *tlb_stats(const struct cpu *cpu);

#endif
