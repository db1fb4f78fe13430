/*
 * The software TLB: a set-associative main array that knows everything about a translation, and direct-mapped fast
 * arrays for access.h.  The rules are in tlb.h.
 *
 * Blocks and large granules are kept as 4 KiB pieces.  TLBI by VA must drop every piece of the block that the address
 * lies in: up to 64 KiB the pieces are visited one by one; for larger blocks a bitmap, hashed by block, says whether the
 * arrays have to be searched.
 *
 * Left out: caching of intermediate walk levels (so "last level only" is the same as "all levels"), TLBI by range,
 * TLB conflicts (an insertion replaces what it would conflict with).
 * Threads: the owner's, but for push_op(), which any vCPU calls.
 */
#include "cpu/tlb.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include <glib.h>

#include "base/bits.h"
#include "base/report.h"
#include "base/trace.h"
#include "cpu/cpu.h"
#include "cpu/debug.h"

#ifdef ARMLET_HARSH
enum { SET_BITS = 0 };
#else
enum { SET_BITS = 10 };
#endif
enum {
    SETS = 1 << SET_BITS, WAYS = 4, MAX_SPACES = 1024, SPACE_NONE = 0, SPACE_FLAT = 1, SPACE_FIRST = 2,
    QUEUE_OPS = 64, LARGE_BITS = 14, PIECEWISE_SHIFT = 16,
};

struct main_entry {
    uint64_t page; /* va >> 12, sign-extended from bit 55 */
    uint64_t pa;   /* of the page */
    uint8_t *host; /* of the page; NULL: not memory */
    uint16_t space; /* SPACE_NONE: empty */
    uint8_t shift;
    uint8_t perms;
    bool global, device, writable;
};

struct tlb_main {
    struct main_entry set[SETS][WAYS];
    unsigned victim;
    unsigned next_space;
    uint16_t space_of[65536];         /* by ASID; SPACE_NONE: has none */
    uint16_t asid_of[MAX_SPACES];     /* the other way, to clear space_of without a sweep */
    uint64_t shifts;                  /* bit n: blocks of 2^n bytes have been entered since the last full flush */
    uint64_t large[(1 << LARGE_BITS) / 64]; /* hashed: this block larger than 64 KiB has been entered */
    uint64_t sctlr, tcr, mair;        /* what the contents were made with */
    tlb_listener_fn *listener;
    void *listener_opaque;
    struct tlb_stats stats;
};

struct tlb_queue {
    pthread_mutex_t lock;
    unsigned n;      /* QUEUE_OPS + 1: overflowed, everything goes */
    struct tlb_op op[QUEUE_OPS];
};

struct tlb *tlb_new(void)
{
    struct tlb *tlb = g_new0(struct tlb, 1);

    tlb->main = g_new0(struct tlb_main, 1);
    tlb->main->next_space = SPACE_FIRST;
    tlb->fetch_tag = SPACE_FLAT << 2;
    tlb->queue = g_new0(struct tlb_queue, 1);
    pthread_mutex_init(&tlb->queue->lock, NULL);
    return tlb;
}

void tlb_free(struct tlb *tlb)
{
    pthread_mutex_destroy(&tlb->queue->lock);
    g_free(tlb->queue);
    g_free(tlb->main);
    g_free(tlb);
}

const struct tlb_stats *tlb_stats(const struct cpu *cpu)
{
    return &cpu->tlb->main->stats;
}

void tlb_set_listener(struct cpu *cpu, tlb_listener_fn *fn, void *opaque)
{
    cpu->tlb->main->listener = fn;
    cpu->tlb->main->listener_opaque = opaque;
}

static void tell_listener(struct cpu *cpu, const struct tlb_op *op, unsigned reach)
{
    struct tlb_main *m = cpu->tlb->main;

    if (m->listener)
        m->listener(m->listener_opaque, cpu, op, reach);
}

/* ---- spaces ---- */

static void drop_fast(struct tlb *tlb)
{
    memset(tlb->fast, 0, sizeof(tlb->fast));
    memset(tlb->fetch, 0, sizeof(tlb->fetch));
}

static void drop_all(struct tlb *tlb)
{
    struct tlb_main *m = tlb->main;

    drop_fast(tlb);
    memset(m->set, 0, sizeof(m->set));
    memset(m->large, 0, sizeof(m->large));
    m->shifts = 0;
    m->stats.flushes++;
    tlb->drops++;
}

/* The space of an ASID.  When the numbers run out everything is dropped and counting starts again. */
static uint16_t space_for(struct tlb *tlb, uint16_t asid)
{
    struct tlb_main *m = tlb->main;

    if (m->space_of[asid] != SPACE_NONE)
        return m->space_of[asid];
    if (m->next_space == MAX_SPACES) {
        for (unsigned i = SPACE_FIRST; i < MAX_SPACES; i++)
            m->space_of[m->asid_of[i]] = SPACE_NONE;
        m->next_space = SPACE_FIRST;
        drop_all(tlb);
    }
    m->asid_of[m->next_space] = asid;
    m->space_of[asid] = (uint16_t)m->next_space;
    return (uint16_t)m->next_space++;
}

/* The space that is now: an engine switches tags by itself (tlb.h, rule 7). */
static uint16_t space_now(const struct tlb *tlb)
{
    return (uint16_t)(tlb->fetch_tag >> 2);
}

static void update_tags(struct cpu *cpu)
{
    struct tlb *tlb = cpu->tlb;
    uint64_t space = (cpu->sys.sctlr_el1 & SCTLR_M ? space_for(tlb, mmu_asid(cpu)) : SPACE_FLAT) << 2;

    tlb->data_tag = space | mmu_data_view(cpu, false);
    tlb->unpriv_tag = space | mmu_data_view(cpu, true);
    tlb->fetch_tag = space | (cpu->el ? VIEW_EL1 : VIEW_EL0);
}

void tlb_refresh(struct cpu *cpu)
{
    struct tlb *tlb = cpu->tlb;
    struct tlb_main *m = tlb->main;
    uint64_t sctlr = cpu->sys.sctlr_el1 & (SCTLR_M | SCTLR_WXN);
    uint64_t tcr = cpu->sys.tcr_el1 & ~BIT(22); /* A1 only chooses the ASID */

    if (sctlr != m->sctlr || tcr != m->tcr || cpu->sys.mair_el1 != m->mair) {
        m->sctlr = sctlr;
        m->tcr = tcr;
        m->mair = cpu->sys.mair_el1;
        tlb_flush_all(cpu);
    }
    tlb->strict = cpu->sys.sctlr_el1 & SCTLR_A;
    tlb->watching = debug_watches(cpu);
    update_tags(cpu);
}

void tlb_forget_fast(struct cpu *cpu)
{
    drop_fast(cpu->tlb);
    cpu->tlb->drops++; /* a translator's tables, too */
}

/* ---- the main array ---- */

static uint64_t page_of(const struct cpu *cpu, uint64_t va)
{
    bool ignore_top = !(cpu->sys.sctlr_el1 & SCTLR_M) || mmu_tbi(cpu, va);

    return (ignore_top ? (uint64_t)bits_sext(va, 56) : va) >> MEM_PAGE_SHIFT;
}

static unsigned set_of(uint64_t page)
{
    return (unsigned)(page ^ page >> SET_BITS) & (SETS - 1);
}

static bool entry_matches(const struct main_entry *e, uint64_t page, uint16_t space)
{
    return e->space != SPACE_NONE && e->page == page && (e->space == space || e->global);
}

static struct main_entry *find_entry(struct tlb_main *m, uint64_t page, uint16_t space)
{
    struct main_entry *set = m->set[set_of(page)];

    for (unsigned i = 0; i < WAYS; i++)
        if (entry_matches(&set[i], page, space))
            return &set[i];
    return NULL;
}

static unsigned large_hash(uint64_t page, unsigned shift)
{
    uint64_t block = page >> (shift - MEM_PAGE_SHIFT);

    return (unsigned)((block * 64 + shift) * UINT64_C(0x9e3779b97f4a7c15) >> (64 - LARGE_BITS));
}

static void note_reach(struct tlb_main *m, uint64_t page, unsigned shift)
{
    m->shifts |= BIT(shift);
    if (shift > PIECEWISE_SHIFT) {
        unsigned h = large_hash(page, shift);
        m->large[h / 64] |= BIT(h % 64);
    }
}

static struct main_entry *insert_entry(struct cpu *cpu, uint64_t page, const struct mmu_result *r)
{
    struct tlb_main *m = cpu->tlb->main;
    struct main_entry *set = m->set[set_of(page)], *e = NULL;
    uint16_t space = space_now(cpu->tlb);

    /* A global entry replaces all others of the page, so that at most one ever matches. */
    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].space != SPACE_NONE && set[i].page == page && (r->global || entry_matches(&set[i], page, space)))
            set[i].space = SPACE_NONE;
        if (set[i].space == SPACE_NONE)
            e = &set[i];
    }
    if (!e)
        e = &set[m->victim++ % WAYS];
    *e = (struct main_entry){.page = page, .pa = r->pa & TLB_PAGE_MASK, .space = space, .shift = r->shift,
                             .perms = r->perms, .global = r->global, .device = r->device};
    e->host = mem_page_hva(cpu->mem, e->pa, &e->writable);
    note_reach(m, page, r->shift);
    return e;
}

/* ---- lookup and refill ---- */

static void fill_fast(struct cpu *cpu, uint64_t va, enum mmu_view view, const struct main_entry *e)
{
    struct tlb *tlb = cpu->tlb;
    struct tlb_entry *f = &tlb->fast[tlb_index(va, TLB_FAST_BITS)];
    uint64_t tag = (va & TLB_PAGE_MASK) | (uint64_t)space_now(tlb) << 2 | view;

    if (!e->host || (tlb->watching && debug_page_watched(cpu, va)))
        return;
    f->rtag = mmu_allows(e->perms, view, MMU_READ) ? tag : 0;
    f->wtag = e->writable && mmu_allows(e->perms, view, MMU_WRITE) ? tag : 0;
    f->addend = (uint64_t)(uintptr_t)e->host - (va & TLB_PAGE_MASK);
    f->device = e->device;
}

static void fill_fetch(struct tlb *tlb, uint64_t va, enum mmu_view view, const struct main_entry *e)
{
    struct tlb_fetch *f = &tlb->fetch[tlb_index(va, TLB_FETCH_BITS)];

    if (e->host)
        *f = (struct tlb_fetch){(va & TLB_PAGE_MASK) | (uint64_t)space_now(tlb) << 2 | view, e->host, e->pa};
}

uint8_t tlb_lookup(struct cpu *cpu, uint64_t va, unsigned access, enum mmu_view view, struct tlb_hit *hit)
{
    struct tlb *tlb = cpu->tlb;
    unsigned kind = access & MMU_KIND;
    uint64_t page = page_of(cpu, va);
    struct main_entry *e = find_entry(tlb->main, page, space_now(tlb));
    struct mmu_result r;

    tlb->main->stats.lookups++;
    if (!e || !mmu_allows(e->perms, view, kind)) {
        tlb->main->stats.walks++;
        if (!mmu_walk(cpu, va, kind == MMU_WRITE || kind == MMU_RMW ? WALK_WRITE : WALK_READ, view, &r))
            return r.fsc;
        if (!mmu_allows(r.perms, view, kind))
            return (uint8_t)(FSC_PERMISSION | r.level);
        e = insert_entry(cpu, page, &r);
    }
    hit->pa = e->pa | (va & ~TLB_PAGE_MASK);
    hit->host = e->host ? e->host + (va & ~TLB_PAGE_MASK) : NULL;
    hit->writable = e->writable;
    hit->device = e->device;
    if (kind == MMU_EXEC)
        fill_fetch(tlb, va, view, e);
    else if (!(access & MMU_CACHE))
        fill_fast(cpu, va, view, e);
    return FSC_NONE;
}

bool tlb_peek(const struct cpu *cpu, uint64_t va, bool unpriv, bool write, bool *writable, uint64_t *addend)
{
    const struct tlb *tlb = cpu->tlb;
    enum mmu_view view = (enum mmu_view)((unpriv ? tlb->unpriv_tag : tlb->data_tag) & 3);
    const struct main_entry *e = find_entry(tlb->main, page_of(cpu, va), space_now(tlb));

    if (!e || !e->host || e->device || tlb->strict || tlb->watching || !mmu_allows(e->perms, view, MMU_READ))
        return false;
    *writable = e->writable && mmu_allows(e->perms, view, MMU_WRITE);
    *addend = (uint64_t)(uintptr_t)e->host - (va & TLB_PAGE_MASK);
    return !write || *writable;
}

/* ---- maintenance ---- */

/* va bits 55:12 decide: the fast arrays are tagged with the top byte as the program wrote it. */
static bool tag_in_block(uint64_t tag, uint64_t page, unsigned shift)
{
    uint64_t mask = bits_mask(56) & ~bits_mask(shift);

    return tag && !((tag ^ page << MEM_PAGE_SHIFT) & mask);
}

static void drop_fast_page(struct tlb *tlb, uint64_t page)
{
    uint64_t va = page << MEM_PAGE_SHIFT;
    struct tlb_entry *f = &tlb->fast[tlb_index(va, TLB_FAST_BITS)];
    struct tlb_fetch *x = &tlb->fetch[tlb_index(va, TLB_FETCH_BITS)];

    if (tag_in_block(f->rtag | f->wtag, page, MEM_PAGE_SHIFT))
        f->rtag = f->wtag = 0;
    if (tag_in_block(x->tag, page, MEM_PAGE_SHIFT))
        x->tag = 0;
}

/* One 4 KiB piece; space 0: of every ASID. */
static void drop_page(struct tlb *tlb, uint64_t page, uint16_t space)
{
    struct main_entry *set = tlb->main->set[set_of(page)];

    for (unsigned i = 0; i < WAYS; i++)
        if (set[i].page == page && (space == SPACE_NONE || set[i].space == space || set[i].global))
            set[i].space = SPACE_NONE;
    drop_fast_page(tlb, page);
}

/* Every piece of a large block, whatever its ASID: more than asked for, and rare. */
static void drop_block(struct tlb *tlb, uint64_t page, unsigned shift)
{
    struct main_entry *e = tlb->main->set[0];

    for (unsigned i = 0; i < SETS * WAYS; i++)
        if (e[i].space != SPACE_NONE && !((e[i].page ^ page) >> (shift - MEM_PAGE_SHIFT)))
            e[i].space = SPACE_NONE;
    for (unsigned i = 0; i < G_N_ELEMENTS(tlb->fast); i++)
        if (tag_in_block(tlb->fast[i].rtag | tlb->fast[i].wtag, page, shift))
            tlb->fast[i].rtag = tlb->fast[i].wtag = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(tlb->fetch); i++)
        if (tag_in_block(tlb->fetch[i].tag, page, shift))
            tlb->fetch[i].tag = 0;
}

/* All of what a TLBI by address reaches; the result is log2 of how far that was. */
static unsigned drop_va(struct tlb *tlb, uint64_t page, uint16_t space)
{
    struct tlb_main *m = tlb->main;
    unsigned reach = MEM_PAGE_SHIFT;

    drop_page(tlb, page, space);
    for (uint64_t shifts = m->shifts & ~BIT(MEM_PAGE_SHIFT); shifts; shifts &= shifts - 1) {
        unsigned shift = bits_ctz(shifts);

        if (shift <= PIECEWISE_SHIFT) {
            uint64_t n = BIT(shift - MEM_PAGE_SHIFT);
            for (uint64_t i = 0; i < n; i++)
                drop_page(tlb, (page & -n) + i, space);
        } else {
            unsigned h = large_hash(page, shift);
            if (!(m->large[h / 64] & BIT(h % 64)))
                continue;
            drop_block(tlb, page, shift);
        }
        reach = shift;
    }
    return reach;
}

/* The ASID gets a fresh space; the old one's entries can never match again and are overwritten in time. */
static void drop_asid(struct cpu *cpu, uint16_t asid)
{
    struct tlb_main *m = cpu->tlb->main;

    if (m->space_of[asid] == SPACE_NONE)
        return;
    m->space_of[asid] = SPACE_NONE;
    update_tags(cpu);
}

static void apply_op(struct cpu *cpu, const struct tlb_op *op)
{
    struct tlb *tlb = cpu->tlb;
    unsigned reach = MEM_PAGE_SHIFT;
    uint16_t space;

    trace(MMU, "cpu%u tlbi kind=%d va=%#" PRIx64 " asid=%u", cpu->index, op->kind, op->va, op->asid);
    switch (op->kind) {
    case TLBI_ALL:
        drop_all(tlb);
        break;
    case TLBI_ASID:
        drop_asid(cpu, op->asid);
        break;
    case TLBI_VA:
        /* An ASID without a space has no entries of its own, but global ones go too: a number that none has. */
        space = tlb->main->space_of[op->asid];
        reach = drop_va(tlb, op->va >> MEM_PAGE_SHIFT, space != SPACE_NONE ? space : MAX_SPACES);
        break;
    case TLBI_VAA:
        reach = drop_va(tlb, op->va >> MEM_PAGE_SHIFT, SPACE_NONE);
        break;
    }
    tell_listener(cpu, op, reach);
}

void tlb_flush_all(struct cpu *cpu)
{
    apply_op(cpu, &(struct tlb_op){.kind = TLBI_ALL});
}

static void push_op(struct tlb_queue *q, const struct tlb_op *op)
{
    pthread_mutex_lock(&q->lock);
    if (op->kind == TLBI_ALL || q->n >= QUEUE_OPS)
        q->n = QUEUE_OPS + 1;
    else
        q->op[q->n++] = *op;
    pthread_mutex_unlock(&q->lock);
}

void tlb_drain(struct cpu *cpu)
{
    struct tlb_queue *q = cpu->tlb->queue;
    struct tlb_op op[QUEUE_OPS];
    unsigned n;

    pthread_mutex_lock(&q->lock);
    n = q->n;
    q->n = 0;
    if (n <= QUEUE_OPS)
        memcpy(op, q->op, n * sizeof(op[0]));
    pthread_mutex_unlock(&q->lock);
    if (n > QUEUE_OPS) {
        tlb_flush_all(cpu);
        return;
    }
    for (unsigned i = 0; i < n; i++)
        apply_op(cpu, &op[i]);
}

void tlb_maintain(struct cpu *cpu, enum tlbi_kind kind, uint64_t operand, bool broadcast)
{
    struct tlb_op op = {
        .kind = kind,
        .asid = (uint16_t)(operand >> 48) & mmu_asid_mask(cpu),
        .va = (uint64_t)bits_sext(operand << MEM_PAGE_SHIFT, 56) & TLB_PAGE_MASK,
    };
    struct cluster *cl = cpu->cluster;

    apply_op(cpu, &op);
    for (unsigned i = 0; broadcast && cl && i < cl->n; i++) {
        if (cl->cpu[i] == cpu)
            continue;
        push_op(cl->cpu[i]->tlb->queue, &op);
        /* Not cpu_kick(): a sleeper is quiescent and may sleep on. */
        atomic_fetch_or(&cl->cpu[i]->pending, PEND_TLB);
        cpu->tlb->outstanding = true;
    }
}
