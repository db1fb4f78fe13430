/*
 * The engine around the emitter: address spaces, the run loop, and what generated code calls.
 *
 * Everything here belongs to one vCPU and is touched by its thread only, but for translated code, which all share (code.h).
 *
 * Rules
 *  1. Code reaches a block of its own page by a patched jump, and any other by the jump cache or the return stack, whose
 *     tags are va ^ key.  A key stands for (fetch space, mode); dropping keys makes every tag stale at once.  Keys are
 *     numbers of 64 bits that the guest cannot know, so that no address, not canonical perhaps, under one key looks like
 *     another under another key.
 *  2. Keys are dropped when marked code went stale, and when a TLBI reaches a page that was executed from.
 *  3. In the run loop struct cpu is complete; in code HOT_FLAGS stands for cpu->nzcv, host registers for the pinned
 *     guest registers, and icount is behind by what was done of the block, or ahead by what is left (emit_uncounted()).
 *  4. Pages in which an external debugger has breakpoints have code of a mode of their own (JM_BREAKS), no block of which
 *     goes on past a breakpoint's offset in the page, and no jump of which is led there: the run loop sees each.  When the
 *     set of breakpoints has changed, which is only while the vCPU is out of the run loop, that code, near blocks and keys
 *     are dropped.
 *  5. When code has been thrown away (jit_code_epoch()), everything that leads to code is dropped before that is
 *     acknowledged; and an operation in which the vCPU was quiescent does not return to code.
 *  6. At EL1 code of the upper half has keys for (table in TTBR1, mode), whatever the ASID: kernels under KPTI have no global
 *     pages, and would be looked up anew for each process.  Nothing of the lower half is entered with such a key by way of
 *     the jump cache or the return stack; the run loop takes the other key for it.  An ASID's invalidation may be meant for
 *     pages that were executed from with such a key, so all of these are walked again before code is entered, or goes on
 *     behind a context synchronization event: if any is another page now, keys are dropped.
 */
#include "jit/jit.h"

#include <cpuid.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/report.h"
#include "base/trace.h"
#include "cpu/cluster.h"
#include "cpu/debug.h"
#include "cpu/interp.h"
#include "cpu/mmu.h"
#include "cpu/pmu.h"
#include "cpu/prim.h"
#include "cpu/show.h"
#include "cpu/tlb.h"
#include "jit/check.h"
#include "jit/code.h"
#include "jit/dump.h"

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
#ifdef ARMLET_HARSH
static uint64_t cache_size = 256 << 10;
#else
static uint64_t cache_size = UINT64_C(64) << 20;
#endif

struct jit_host jit_host;

struct space {
    uint64_t tag; /* the TLB's data tag + 1, 0: unused */
    struct jtlb_entry *table;
    uint16_t used[1 << JTLB_BITS]; /* entries that are filled, when `overfull' is false */
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

void jit_set_cache_size(uint64_t bytes)
{
    if (bytes)
        cache_size = MAX(bytes, UINT64_C(256) << 10) & ~UINT64_C(4095);
}

void jit_set_check_mmu(void)
{
    jit_check_mmu = true;
}

/* --- address spaces -------------------------------------------------------------------------------------- */

/* Something was taken out of its table. */
static void space_renew(struct jit_cpu *j, struct space *s)
{
    *jtlb_id(s->table) = ++j->space_ids;
}

static void space_clear(struct jit_cpu *j, struct space *s)
{
    space_renew(j, s);
    for (unsigned i = 0; i < s->nused; i++)
        s->table[s->used[i]].tag = jtlb_none(s->used[i]);
    s->nused = 0;
}

static void space_make(struct jit_cpu *j, struct space *s)
{
    uint8_t *memory = mmap(NULL, SPACE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        BUG("data TLB: %s", g_strerror(errno));
    s->table = (struct jtlb_entry *)(void *)(memory + SPACE_FRONT);
    space_renew(j, s);
    /*
     * Zero tags are those of page 0, and of a page 2 that may be read: where these are looked for, and by a wide access in
     * the page before, the tag is made to differ.
     */
    const unsigned looked_in[] = { 0, 1, 2, (1u << JTLB_BITS) - 1 };
    for (unsigned i = 0; i < G_N_ELEMENTS(looked_in); i++)
        s->table[looked_in[i]].tag = jtlb_none(looked_in[i]);
    s->nused = 0;
}

static struct context *context_now(const struct jit_cpu *j)
{
    return (struct context *)(uintptr_t)j->cpu->hot[HOT_CONTEXT];
}

/* What is now goes on as one that is not remembered. */
static void forget_contexts(struct jit_cpu *j)
{
    struct context *own = &j->context[0], *now = context_now(j);

    if (now != own)
        *own = *now;
    own->tag = 0;
    memset(own->to, 0, sizeof own->to);
    j->cpu->hot[HOT_CONTEXT] = (uintptr_t)own;
    for (unsigned i = 0; i < CONTEXT_SLOTS; i++)
        j->slots[i] = own;
    j->ncontexts = 1;
    j->forgotten++;
}

static void note_use(struct jit_cpu *j)
{
    for (unsigned i = 0; i < j->ncontexts; i++) {
        const struct context *c = &j->context[i];
        if (!c->data_space)
            continue;
        c->data_space->last = MAX(c->data_space->last, c->used);
        c->unpriv_space->last = MAX(c->unpriv_space->last, c->used);
    }
}

/* The space that was not used for longest, empty. */
static struct space *space_evict(struct jit_cpu *j)
{
    struct space *s = &j->spaces[0];

    note_use(j);
    for (unsigned i = 1; i < SPACES; i++)
        if (j->spaces[i].last < s->last)
            s = &j->spaces[i];
    for (unsigned i = 1; i < j->ncontexts; i++)
        if (j->context[i].data_space == s || j->context[i].unpriv_space == s)
            forget_contexts(j);
    space_clear(j, s);
    return s;
}

static struct space *space_find(struct jit_cpu *j, uint64_t tag)
{
    struct space *s = NULL;

    for (unsigned i = 0; i < j->nspaces; i++)
        if (j->spaces[i].tag == tag + 1)
            s = &j->spaces[i];
    if (!s) {
        if (j->nspaces < SPACES) {
            s = &j->spaces[j->nspaces++];
            space_make(j, s);
        } else {
            s = space_evict(j);
        }
        s->tag = tag + 1;
    }
    s->last = j->clock = MAX(j->clock + 1, j->cpu->icount);
    return s;
}

static struct space *space_of_table(struct jit_cpu *j, const struct jtlb_entry *table)
{
    for (unsigned i = 0; i < j->nspaces; i++)
        if (j->spaces[i].table == table)
            return &j->spaces[i];
    BUG("no space has this table");
}

static void drop_spaces(struct jit_cpu *j)
{
    for (unsigned i = 0; i < j->nspaces; i++)
        space_clear(j, &j->spaces[i]);
}

static unsigned jtlb_index(uint64_t va)
{
    return (unsigned)(va >> MEM_PAGE_SHIFT) & ((1u << JTLB_BITS) - 1);
}

static void fill_entry(struct jit_cpu *j, uint64_t va, unsigned mop, bool writable, uint64_t addend)
{
    struct jtlb_entry *table = (struct jtlb_entry *)(uintptr_t)j->cpu->hot[mop & MO_UNPRIV ? HOT_UTLB : HOT_TABLE];
    unsigned i = jtlb_index(va);
    struct jtlb_entry *t = &table[i];
    uint64_t page = va & TLB_PAGE_MASK;

    if (t->tag == jtlb_none(i) || !t->tag) {
        struct space *s = mop & MO_UNPRIV ? space_of_table(j, table) : context_now(j)->data_space;
        if (s->nused == G_N_ELEMENTS(s->used))
            space_clear(j, s);
        s->used[s->nused++] = (uint16_t)i;
    }
    *t = (struct jtlb_entry){ .tag = writable ? page : page ^ JTLB_RO, .addend = addend };
}

/* After a successful access: what cpu/tlb.c keeps of the page may be kept here too. */
static void fill(struct jit_cpu *j, uint64_t va, unsigned mop)
{
    struct cpu *cpu = j->cpu;
    const struct tlb *tlb = cpu->tlb;
    const struct tlb_entry *f = &tlb->fast[tlb_index(va, TLB_FAST_BITS)];
    uint64_t tag = (va & TLB_PAGE_MASK) | (mop & MO_UNPRIV ? tlb->unpriv_tag : tlb->data_tag);

    if (!f->device && !tlb->strict && f->rtag == tag)
        fill_entry(j, va, mop, f->wtag == tag, f->addend);
}

/*
 * Before an access: true if cpu/tlb.c knows the page and permits it, and it is here now but was not.  (If it was, there is
 * another reason why code called.)
 */
static bool refill(struct jit_cpu *j, uint64_t va, unsigned mop, bool write)
{
    const struct jtlb_entry *table =
        (const struct jtlb_entry *)(uintptr_t)j->cpu->hot[mop & MO_UNPRIV ? HOT_UTLB : HOT_TABLE];
    bool writable;
    uint64_t addend;

    if (!(((va ^ table[jtlb_index(va)].tag) & (uint64_t)(int32_t)jtlb_compare(write))) ||
        !tlb_peek(j->cpu, va, mop & MO_UNPRIV, write, &writable, &addend))
        return false;
    j->stats.refills++;
    fill_entry(j, va, mop, writable, addend);
    return true;
}

/* --- keys ---------------------------------------------------------------------------------------------------- */

static void drop_jumps(struct jit_cpu *j)
{
    memset(j->jumps, 0, sizeof(struct jump) << JUMP_BITS);
    memset(j->direct, 0, sizeof(struct jump) << DIRECT_BITS);
    memset(j->return_stack, 0, RETURN_STACK);
    j->cpu->hot[HOT_RSP] = j->cpu->hot[HOT_RS_TOP];
}

/* Tags of keys that depend on the ASID become stale. */
static void drop_lower_keys(struct jit_cpu *j)
{
    for (unsigned i = 0; i < KEYS; i++)
        if (!(j->keys[i].fetch_tag & UPPER_KEY))
            j->keys[i].key = 0;
    memset(j->bloom, 0, sizeof j->bloom);
    forget_contexts(j);
    j->context[0].fetch_tag = UINT64_MAX; /* it has no key */
}

/* Every tag in the jump cache and on the return stack becomes stale. */
static void drop_keys(struct jit_cpu *j)
{
    memset(j->keys, 0, sizeof j->keys);
    memset(j->upper, 0, sizeof j->upper);
    j->nupper = 0;
    j->walk_again = false;
    j->cpu->hot[HOT_CHANGES] = j->changes;
    drop_lower_keys(j);
}

/* The next of a sequence that repeats after 2^64 (Steele, Lea, Flood: SplitMix). */
static uint64_t new_key(struct jit_cpu *j)
{
    uint64_t z = j->next_key += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31 ? z ^ z >> 31 : 1;
}

static uint64_t key_of(struct jit_cpu *j, uint64_t fetch_tag, unsigned mode)
{
    unsigned h = (unsigned)((fetch_tag ^ fetch_tag >> 12) * 5 + mode) % KEYS;

    for (unsigned i = 0; i < 4; i++) {
        struct key *k = &j->keys[(h + i) % KEYS];
        if (k->key && k->fetch_tag == fetch_tag && k->mode == mode)
            return k->key;
        if (!k->key) {
            h += i;
            break;
        }
    }
    struct key *k = &j->keys[h % KEYS];
    *k = (struct key){ fetch_tag, new_key(j), (uint8_t)mode };
    return k->key;
}

static unsigned bloom_bit(uint64_t va)
{
    return (unsigned)((va >> 12 ^ va >> 24 ^ va >> 36) % BLOOM);
}

/* Where the page is noted, or may be; table 0: of any table. */
static struct upper_page *find_upper(struct jit_cpu *j, uint64_t va, uint64_t table)
{
    unsigned h = bloom_bit(va);

    for (;; h++) {
        struct upper_page *p = &j->upper[h % UPPER_PAGES];
        if (!p->va || (p->va == va && (!table || p->table == table)))
            return p;
    }
}

static bool upper_overflow(const struct jit_cpu *j)
{
    return j->nupper > UPPER_PAGES / 2;
}

static void note_upper(struct jit_cpu *j, uint64_t va, uint64_t pa, uint64_t table)
{
    struct upper_page *p = find_upper(j, va, table);

    if (!p->va && !upper_overflow(j)) {
        j->nupper++;
        *p = (struct upper_page){ va, pa, table };
    }
}

/* The page that holds cpu->pc, which is at `pa', is in the jump cache now. */
static void note_executed(struct jit_cpu *j, uint64_t pa)
{
    uint64_t va = j->cpu->pc & TLB_PAGE_MASK;
    unsigned b = bloom_bit(va);
    const struct context *c = context_now(j);

    if (c->tag & CTX_UPPER)
        note_upper(j, va, pa, c->upper);
    else
        j->bloom[b / 64] |= UINT64_C(1) << b % 64;
}

/* Is the page executable at EL1, and where it was?  The last walks are remembered: text is mapped by blocks. */
struct walked {
    uint64_t first, pa, size, table;
};
static bool upper_page_stands(struct cpu *cpu, const struct upper_page *p, struct walked *last)
{
    struct walked *w = &last[p->va >> 21 & 15];
    uint64_t ttbr1 = cpu->sys.ttbr1_el1;
    struct mmu_result r;

    if (p->va - w->first >= w->size || w->table != p->table) {
        cpu->sys.ttbr1_el1 = (ttbr1 & ~TTBR_TABLE) | p->table;
        bool ok = mmu_walk(cpu, p->va, WALK_AT, VIEW_EL1, &r) && mmu_allows(r.perms, VIEW_EL1, MMU_EXEC);
        cpu->sys.ttbr1_el1 = ttbr1;
        if (!ok)
            return false;
        uint64_t size = UINT64_C(1) << r.shift;
        *w = (struct walked){ p->va & -size, r.pa & -size, size, p->table };
    }
    return w->pa + (p->va - w->first) == p->pa;
}

static void walk_upper_again(struct jit_cpu *j)
{
    struct walked last[16] = { 0 };
    bool ok = !upper_overflow(j);

    j->walk_again = false;
    j->cpu->hot[HOT_CHANGES] = j->changes;
    for (unsigned i = 0; ok && i < UPPER_PAGES; i++)
        ok = !j->upper[i].va || upper_page_stands(j->cpu, &j->upper[i], last);
    if (!ok)
        drop_keys(j);
}

static bool maybe_executed(const struct jit_cpu *j, uint64_t va)
{
    unsigned b = bloom_bit(va);
    return j->bloom[b / 64] >> b % 64 & 1;
}

/* --- keeping up with the rest of the vCPU ----------------------------------------------------------------------- */

/* The TLB has dropped something (cpu/tlb.h). */
static void on_tlbi(void *opaque, struct cpu *cpu, const struct tlb_op *op, unsigned reach)
{
    struct jit_cpu *j = opaque;

    if (op->kind == TLBI_ALL || reach > 16) {
        drop_spaces(j);
        drop_keys(j);
        return;
    }
    if (op->kind == TLBI_ASID) { /* its space has a new number */
        for (unsigned i = 1; i < j->ncontexts; i++)
            if (j->context[i].tag >> CTX_ASID_SHIFT == op->asid)
                forget_contexts(j);
        if (j->nupper) {
            j->walk_again = true;
            cpu->hot[HOT_CHANGES] = ~j->changes; /* stubs, ISB: to the run loop */
        }
        return;
    }
    uint64_t size = UINT64_C(1) << reach, first = op->va & -size;
    for (unsigned s = 0; s < j->nspaces; s++)
        space_renew(j, &j->spaces[s]);
    for (uint64_t va = first; va - first < size; va += MEM_PAGE_SIZE) {
        for (unsigned s = 0; s < j->nspaces; s++) {
            struct jtlb_entry *t = &j->spaces[s].table[jtlb_index(va)];
            /* bits 63 to 56 are a tag where the top byte is ignored */
            if (!((t->tag ^ va) << 8 & (uint64_t)(int32_t)jtlb_compare(false) << 8))
                t->tag = jtlb_none(jtlb_index(va));
            if (unlikely(jit_check_mmu))
                jit_check_gone(j->cpu, j->spaces[s].table, va);
        }
        if (va >> 55 & 1 && j->nupper && (upper_overflow(j) || find_upper(j, va, 0)->va))
            drop_keys(j);
        else if (maybe_executed(j, va))
            drop_lower_keys(j);
    }
}

/* The flags that generated code has raised in MXCSR go to FPSR, in the order IE . ZE OE UE PE. */
static void fold_flags(struct cpu *cpu)
{
    uint64_t m = cpu->hot[HOT_MXCSR];

    if (m & MXCSR_FLAGS) {
        cpu->fp.fpsr |= (uint32_t)((m & 1) | (m >> 1 & 0x1e));
        cpu->hot[HOT_MXCSR] = MXCSR_START;
    }
}

static unsigned mode_of(const struct cpu *cpu)
{
    bool sp = cpu->sys.sctlr_el1 & (cpu->el ? SCTLR_SA : SCTLR_SA0);
    bool dze = cpu->el || cpu->sys.sctlr_el1 & SCTLR_DZE;
    return (cpu->el ? JM_EL : 0u) | (cpu->fp_enabled ? JM_FP : 0u) | (sp ? JM_SP : 0u) |
           (cpu->el && cpu->spsel ? JM_SPH : 0u) | (dze ? JM_DZE : 0u) | (cpu->fp.fpcr ? 0u : JM_FPCR) |
           (show_blocks_wanted() ? JM_TRACED : 0u);
}

static uint64_t leave_mask(const struct cpu *cpu)
{
    unsigned mask = ~(unsigned)PEND_EVENT;
    if (cpu->daif & DAIF_I)
        mask &= ~(unsigned)PEND_IRQ;
    if (cpu->daif & DAIF_F)
        mask &= ~(unsigned)PEND_FIQ;
    if (cpu->daif & DAIF_A)
        mask &= ~(unsigned)PEND_SERROR;
    return mask;
}

/* What contexts depend on.  True: it has changed. */
static bool config_changed(struct jit_cpu *j)
{
    struct cpu *cpu = j->cpu;
    struct config now = { cpu->sys.sctlr_el1, cpu->sys.tcr_el1, cpu->sys.cpacr_el1, cpu->fp.fpcr != 0,
                          debug_idle(cpu) && !pmu_active(cpu) && !show_blocks_wanted() };

    if (likely(!memcmp(&now, &j->config, sizeof now)))
        return false;
    j->config = now;
    cpu->hot[HOT_ASID_MASK] = mmu_asid_mask(cpu);
    return true;
}

/* 0: not to be remembered. */
static uint64_t context_tag(const struct jit_cpu *j)
{
    const struct cpu *cpu = j->cpu;

    if (!j->config.plain || !(j->config.sctlr & SCTLR_M) || cpu->ss || cpu->il || cpu->debug_slow)
        return 0;
    return (uint64_t)mmu_asid(cpu) << CTX_ASID_SHIFT | CTX_VALID | (cpu->el ? CTX_EL : 0u) |
           (cpu->spsel ? CTX_SPSEL : 0u) | (cpu->pan ? CTX_PAN : 0u) | (cpu->uao ? CTX_UAO : 0u) |
           (cpu->el && cpu->pc >> 55 & 1 ? CTX_UPPER : 0u);
}

static struct context *make_context(struct jit_cpu *j, uint64_t tag, unsigned mode)
{
    const struct cpu *cpu = j->cpu;
    const struct tlb *tlb = cpu->tlb;
    struct context c = {
        .data_tag = tlb->data_tag, .unpriv_tag = tlb->unpriv_tag, .fetch_tag = tlb->fetch_tag, .tag = tag,
        .upper = cpu->sys.ttbr1_el1 & TTBR_TABLE, .mode = (uint8_t)mode,
        .spsr = (uint32_t)cpu_pstate(cpu) & (SPSR_M | SPSR_PAN | SPSR_UAO),
    };

    memcpy(&c.pstate, &cpu->el, sizeof c.pstate);
    c.data_space = space_find(j, c.data_tag);
    c.unpriv_space = space_find(j, c.unpriv_tag);
    c.table = (uintptr_t)c.data_space->table;
    c.utlb = (uintptr_t)c.unpriv_space->table;
    c.key = key_of(j, tag & CTX_UPPER ? UPPER_KEY | c.upper : c.fetch_tag, mode);
    if (tag && j->ncontexts == CONTEXTS)
        forget_contexts(j);
    struct context *made = tag ? &j->context[j->ncontexts++] : &j->context[0];
    *made = c;
    return made;
}

static bool context_is(const struct context *c, const struct cpu *cpu, uint64_t tag, unsigned mode)
{
    const struct tlb *tlb = cpu->tlb;

    return c->tag == tag && c->upper == (cpu->sys.ttbr1_el1 & TTBR_TABLE) && c->mode == mode &&
           c->data_tag == tlb->data_tag && c->unpriv_tag == tlb->unpriv_tag && c->fetch_tag == tlb->fetch_tag;
}

static struct context *find_context(struct jit_cpu *j, uint64_t tag, unsigned mode)
{
    struct context **slot = &j->slots[context_slot(tag)];
    uint64_t upper = j->cpu->sys.ttbr1_el1 & TTBR_TABLE;

    if (!tag)
        return make_context(j, tag, mode);
    for (unsigned i = 1; i < j->ncontexts; i++)
        if (j->context[i].tag == tag && j->context[i].upper == upper)
            return *slot = &j->context[i];
    return *slot = make_context(j, tag, mode);
}

/* The hot words follow EL, address space, interrupt masks and code changes. */
static void sync_mode(struct jit_cpu *j)
{
    struct cpu *cpu = j->cpu;
    const struct tlb *tlb = cpu->tlb;
    unsigned mode = mode_of(cpu);
    uint32_t changes = mem_code_changes(cpu->mem);

    if (unlikely(tlb->drops != j->drops)) {
        j->drops = tlb->drops;
        drop_spaces(j);
        drop_keys(j);
    }
    if (unlikely(changes != j->changes)) {
        j->changes = changes;
        cpu->hot[HOT_CHANGES] = changes;
        drop_keys(j);
    }
    if (unlikely(config_changed(j)))
        forget_contexts(j);
    uint64_t tag = context_tag(j);
    struct context *now = context_now(j);
    if (!context_is(now, cpu, tag, mode)) {
        now = find_context(j, tag, mode);
        BUG_ON(!context_is(now, cpu, tag, mode));
        now->used = cpu->icount;
        cpu->hot[HOT_TABLE] = now->table;
        cpu->hot[HOT_UTLB] = now->utlb;
        cpu->hot[HOT_KEY] = now->key;
        cpu->hot[HOT_CONTEXT] = (uintptr_t)now;
    }
    cpu->hot[HOT_MASK] = leave_mask(cpu);
}

/* After C did what code may do itself from now on in context `from', if nothing was forgotten meanwhile. */
static void learn(struct jit_cpu *j, struct context *from, unsigned forgotten, enum context_to how)
{
    struct context *to = context_now(j);

    if (forgotten == j->forgotten && from->tag && to->tag)
        from->to[how] = to;
}

/* --- what code calls ------------------------------------------------------------------------------------------------ */

static bool is_plain_access(unsigned op)
{
    return op >= IR_load && op <= IR_atomic_casp && op != IR_clear_ex;
}

/* Operations in which the vCPU may be quiescent: in the meantime the code that called may be gone. */
static bool may_sleep(unsigned op)
{
    return op == IR_barrier || op == IR_h_wfi || op == IR_h_wfe || op == IR_h_hvc;
}

static bool is_write(unsigned op)
{
    return !(op == IR_load || op == IR_load_pair || op == IR_load_w || op == IR_load_pair_w || op == IR_load_ex ||
             op == IR_load_ex_pair);
}

static void check_access(struct jit_cpu *j, const struct ir *ir, uint64_t va)
{
    unsigned mop = ir_mop(ir);
    const uint64_t *table = &j->cpu->hot[mop & MO_UNPRIV ? HOT_UTLB : HOT_TABLE];

    jit_check_access(j->cpu, (const struct jtlb_entry *)(uintptr_t)*table, va, mop, is_write(ir->op), &j->checked);
}

/* struct cpu is as the instruction finds it.  where: its page offset, and what icount lacks << 12. */
static void begin_op(struct jit_cpu *j, const struct ir *ir, uint32_t where)
{
    struct cpu *cpu = j->cpu;

    cpu->pc = cpu->hot[HOT_PAGE] + (where & (MEM_PAGE_SIZE - 1));
    cpu->next_pc = cpu->pc + 4;
    cpu->leave = 0;
    cpu->nzcv = jit_nzcv(cpu->hot[HOT_FLAGS]);
    cpu->icount += (uint64_t)(int64_t)((int32_t)where >> 12);
    fold_flags(cpu);
    j->stats.c_ops[ir->op]++;
}

/* Guest code is left behind an operation.  retired: its instruction counts. */
static uint64_t leave_op(struct cpu *cpu, bool retired)
{
    cpu->icount += retired;
    cpu->pc = cpu->next_pc;
    cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
    return 1;
}

/* Runs the operation that is described behind the call. */
uint64_t jit_c_op(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;
    uint64_t after;
    uint32_t desc[JIT_DESC_BYTES / 4]; /* op, where, imm */

    memcpy(&after, (const void *)(uintptr_t)cpu->hot[HOT_RSP], sizeof after);
    memcpy(desc, (const uint8_t *)(uintptr_t)after + 2, sizeof desc);
    uint32_t op = desc[0], where = desc[1];
    int32_t done = (int32_t)where >> 12;
    struct ir ir = { .op = (uint16_t)op, .k = (uint8_t)(op >> 16), .x = (uint8_t)(op >> 24) };
    unsigned effects = ir_info[ir.op].effects;

    if (is_plain_access(ir.op) && desc[2] >> 16 && refill(j, cpu->hot[HOT_A], ir.k, is_write(ir.op))) {
        after -= (desc[2] >> 16) - sizeof desc - 2;
        memcpy((void *)(uintptr_t)cpu->hot[HOT_RSP], &after, sizeof after);
        return 0;
    }
    if (effects & IE_END)
        ir.imm = desc[2];
    else
        ir.imm16 = (uint16_t)desc[2];
    begin_op(j, &ir, where);
    struct context *from = context_now(j);
    unsigned forgotten = j->forgotten;
    const union vreg *in = (const union vreg *)&cpu->hot[HOT_A];
    if (unlikely(jit_check_mmu) && is_plain_access(ir.op))
        check_access(j, &ir, in[0].d[0]);
    bool ok = ir_eval_op(cpu, &ir, in, (union vreg *)&cpu->hot[HOT_R]);
    if (unlikely(!ok || cpu->leave & (LEAVE_FAULT | LEAVE_EXC))) {
        leave_op(cpu, !(cpu->leave & LEAVE_FAULT));
        if (ir.op == IR_exception && ir.k == EC_SVC) {
            sync_mode(j);
            learn(j, from, forgotten, TO_EXCEPTION);
        }
        return 1;
    }
    bool watched = cpu->debug_slow && (ir.op == IR_h_sysreg_write || ir.op == IR_h_msr_imm); /* perhaps only now */
    if (unlikely(watched || (may_sleep(ir.op) && jit_code_epoch(j->code) != j->epoch)))
        return leave_op(cpu, true);
    cpu->icount -= (uint64_t)(int64_t)done;
    if (is_plain_access(ir.op)) {
        j->stats.slow_mem++;
        fill(j, in[0].d[0], ir_mop(&ir));
    } else if (effects & IE_STATE || ir.op == IR_barrier) { /* DSB applies what other vCPUs have queued */
        cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
        sync_mode(j);
        if (ir.op == IR_h_eret)
            learn(j, from, forgotten, TO_RETURN);
        else if (ir.op == IR_h_msr_imm && in[0].d[0] == 0 && in[1].d[0] == 4) /* PAN */
            learn(j, from, forgotten, in[2].d[0] & 1 ? TO_PAN_1 : TO_PAN_0);
        if (ir.op == IR_h_sysreg_write && (in[0].d[0] & ~UINT64_C(0x7f)) == SYSREG_KEY(1, 3, 7, 0, 0)) /* DC by address */
            fill(j, in[2].d[0], 0);
    }
    return 0;
}

/* A clock of the cluster's own may be the count of instructions (cpu/lockstep.c). */
uint64_t jit_c_counter(struct cpu *cpu, uint64_t uncounted)
{
    cpu->icount += uncounted;
    uint64_t counter = cpu_counter(cpu);
    cpu->icount -= uncounted;
    return counter;
}

/* Where the stubs have put host register r. */
static uint64_t *saved_register(struct cpu *cpu, unsigned r)
{
    for (unsigned i = 0; i < PINS; i++)
        if (jit_pins[i].host == r)
            return &cpu->x[jit_pins[i].guest];
    for (unsigned i = 0; i < TEMPS; i++)
        if (jit_temps[i] == r)
            return &cpu->hot[HOT_T0 + i];
    BUG("host register %u holds no value", r);
}

/* The value to be stored; *more: what stands behind the description. */
static union vreg access_operand(struct cpu *cpu, unsigned place, const uint8_t **more)
{
    union vreg v = { .d = { 0, 0 } };
    int32_t disp;

    switch (place) {
    case PLACE_NONE: case PLACE_ZERO: break;
    case PLACE_CONST:
        memcpy(&v.d[0], *more, 8);
        *more += 8;
        break;
    case PLACE_MEM:
        memcpy(&disp, *more, 4);
        *more += 4;
        memcpy(&v.d[0], (const uint8_t *)cpu + CPU_BIAS + disp, 8);
        break;
    default:
        if (place & PLACE_XMM)
            memcpy(&v, &cpu->hot[HOT_X + 2 * ((place & 15) - XMM_FIRST)], sizeof v);
        else
            v.d[0] = *saved_register(cpu, place);
    }
    return v;
}

static void access_result(struct cpu *cpu, unsigned place, const union vreg *v)
{
    if (place == PLACE_NONE)
        return;
    if (place & PLACE_XMM)
        memcpy(&cpu->hot[HOT_X + 2 * ((place & 15) - XMM_FIRST)], v, sizeof *v);
    else
        *saved_register(cpu, place) = v->d[0];
}

uint64_t jit_c_access(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;
    uint64_t *to = (uint64_t *)(uintptr_t)cpu->hot[HOT_RSP];
    const uint8_t *end = (const uint8_t *)(uintptr_t)*to + sizeof(struct jit_access), *more = end;
    struct jit_access a;
    union vreg in[5], out[2];

    memcpy(&a, (const void *)(uintptr_t)*to, sizeof a);
    *to = (uint64_t)(uintptr_t)end + (uint64_t)(int64_t)a.back;
    struct ir ir = { .op = a.op, .k = a.k, .x = a.x };
    int32_t done = (int32_t)a.where >> 12;
    in[0].d[0] = *saved_register(cpu, a.base) + (uint64_t)(int64_t)a.disp;
    for (unsigned i = 0; ir_info[ir.op].effects & IE_STORE && i < 2; i++)
        in[1 + i] = access_operand(cpu, a.place[i], &more);
    if (a.again && refill(j, in[0].d[0], ir.k, is_write(ir.op))) {
        *to = (uint64_t)(uintptr_t)end - a.again;
        return 0;
    }
    begin_op(j, &ir, a.where);
    if (unlikely(jit_check_mmu))
        check_access(j, &ir, in[0].d[0]);
    if (unlikely(!ir_eval_op(cpu, &ir, in, out) || cpu->leave & (LEAVE_FAULT | LEAVE_EXC)))
        return leave_op(cpu, !(cpu->leave & LEAVE_FAULT));
    cpu->icount -= (uint64_t)(int64_t)done;
    j->stats.slow_mem++;
    fill(j, in[0].d[0], ir_mop(&ir));
    for (unsigned i = 0; ir_info[ir.op].effects & IE_LOAD && i < 2; i++)
        access_result(cpu, a.place[i], &out[i]);
    return 0;
}

/* Is all of [va, va + span) in one page that the data TLB has now? */
static bool group_is_there(struct jit_cpu *j, uint64_t va, unsigned span, bool store)
{
    struct cpu *cpu = j->cpu;
    const struct jtlb_entry *t = &((struct jtlb_entry *)(uintptr_t)cpu->hot[HOT_TABLE])[jtlb_index(va)];
    struct tlb_hit hit;

    if ((va ^ (va + span - 1)) / MEM_PAGE_SIZE)
        return false;
    if (tlb_lookup(cpu, va, store ? MMU_WRITE : MMU_READ, mmu_data_view(cpu, false), &hit) != FSC_NONE)
        return false;
    j->stats.slow_mem++;
    fill(j, va, 0);
    return !(((va & TLB_PAGE_MASK) ^ t->tag) & (uint64_t)(int64_t)(int32_t)jtlb_compare(store));
}

/* A group at pa was not in one page.  Where that is so again and again, it is to have code for that. */
static void note_torn(struct jit_cpu *j, uint64_t pa)
{
    enum { TOO_OFTEN = 1024 };
    struct torn *t = &j->torn[(pa >> 2 ^ pa >> 12) & (TORN - 1)];

    j->stats.torn++;
    if (t->pa != pa) {
        if (t->n) {
            t->n--;
            return;
        }
        t->pa = pa;
    }
    if (++t->n == TOO_OFTEN && !j->cpu->cluster->lockstep) {
        t->n = 0;
        jit_code_torn(j->code, j->cpu, pa);
    }
}

uint64_t jit_c_group(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;
    uint64_t *to = (uint64_t *)(uintptr_t)cpu->hot[HOT_RSP];
    const uint8_t *hva = j->exec_page;
    uint64_t pa_page = 0;
    struct jit_group a;

    memcpy(&a, (const void *)(uintptr_t)*to, sizeof a);
    *to += sizeof a;
    cpu->nzcv = jit_nzcv(cpu->hot[HOT_FLAGS]);
    fold_flags(cpu);
    if (group_is_there(j, *saved_register(cpu, a.base) + (uint64_t)(int64_t)a.disp, a.span, a.insns & GROUP_STORES)) {
        *to += (uint64_t)(int64_t)a.again;
        return 0;
    }
    cpu->pc = cpu->hot[HOT_PAGE] + (a.where & (MEM_PAGE_SIZE - 1));
    cpu->icount += (uint64_t)(int64_t)((int32_t)a.where >> 12);
    cpu->leave = 0;
    if (!hva && !access_fetch(cpu, cpu->pc, &hva, &pa_page)) {
        cpu->pc = cpu->next_pc;
        return 1;
    }
    if (pa_page)
        note_torn(j, pa_page | (cpu->pc & (MEM_PAGE_SIZE - 1)));
    interp_run_line(cpu, hva, a.insns & ~(unsigned)GROUP_STORES);
    cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
    return cpu->leave || cpu->pc != cpu->hot[HOT_PAGE] + a.behind;
}

/* --- the run loop --------------------------------------------------------------------------------------------------------- */

enum { PEND_LEAVE = PEND_TIMER | PEND_TLB | PEND_PAUSE | PEND_STOP | PEND_DEBUG };

static void enter(struct jit_cpu *j, const uint8_t *code)
{
    struct cpu *cpu = j->cpu;

    cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
    ((void (*)(struct cpu *, const uint8_t *))(uintptr_t)j->enter)(cpu, code);
    cpu->nzcv = jit_nzcv(cpu->hot[HOT_FLAGS]);
    fold_flags(cpu);
}

static void drop_near(struct jit_cpu *j)
{
    for (unsigned i = 0; i < 1u << NEAR_BITS; i++)
        j->near[i].pa = 1;
}

/* Code was thrown away: nothing here may lead to any. */
static void new_epoch(struct jit_cpu *j, unsigned epoch)
{
    drop_near(j);
    drop_keys(j);
    drop_jumps(j);
    j->cpu->hot[HOT_LINK] = 0;
    j->epoch = epoch;
    jit_code_seen(j->code, j->cpu, epoch);
}

/* Other breakpoints than before. */
static void new_breaks(struct jit_cpu *j)
{
    j->breaks_id = debug_breaks_id(j->cpu);
    drop_near(j);
    drop_keys(j);
    j->cpu->hot[HOT_LINK] = 0;
    jit_code_set_breaks(j->code, j->breaks_id);
}

/* NULL: what could be done was done (an instruction interpreted), look again. */
static struct jit_block *make_block(struct jit_cpu *j, const struct jit_place *at)
{
    struct jit_block *b = NULL;

    switch (jit_code_make(j->code, j->cpu, at, &b)) {
    case JIT_MADE:
    case JIT_FOUND: return b;
    case JIT_CANNOT:
        j->stats.interp++;
        interp_step(j->cpu);
        break;
    case JIT_RETRY: break;
    }
    j->cpu->hot[HOT_LINK] = 0;
    return NULL;
}

/* Where cpu->pc is now, after instructions were interpreted; false: the exception that it gives is taken. */
static bool follow(struct cpu *cpu, struct jit_place *at)
{
    if (unlikely(!access_fetch(cpu, cpu->pc, &at->hva, &at->pa_page))) {
        cpu->pc = cpu->next_pc;
        return false;
    }
    at->pa = at->pa_page | (cpu->pc & (MEM_PAGE_SIZE - 1));
    return true;
}

/*
 * Most code of a boot runs a few times only, and is done sooner by the interpreter than translated.  From cpu->pc on, until
 * there is something for the run loop; false: it is worth translating, nothing was done.
 */
static bool run_cold(struct jit_cpu *j, struct jit_place at)
{
    struct cpu *cpu = j->cpu;
    bool ran = false;

    if (!jit_code_is_cold(j->code, &at) || cpu->cluster->lockstep || at.mode & (JM_TRACED | JM_BREAKS) ||
        jit_dump_wanted(cpu->pc))
        return false;
    do {
        uint64_t page = cpu->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
        unsigned n = interp_run_line(cpu, at.hva, UINT_MAX);
        if (!n && !cpu->leave) { /* an exclusive */
            jit_code_warm(j->code, &at);
            break;
        }
        ran = true;
        j->stats.cold += n;
        if (cpu->leave || atomic_load_explicit(&cpu->pending, memory_order_relaxed) & leave_mask(cpu))
            break;
        if ((cpu->pc & ~(uint64_t)(MEM_PAGE_SIZE - 4)) == page)
            at.pa = at.pa_page | (cpu->pc & (MEM_PAGE_SIZE - 1));
        else if (cpu->debug_breaks || !follow(cpu, &at))
            break;
    } while (jit_code_is_cold(j->code, &at));
    if (ran)
        cpu->hot[HOT_LINK] = 0;
    return ran;
}

static const struct near *find_near(struct jit_cpu *j, const struct jit_place *at, bool freely)
{
    if (freely && run_cold(j, *at))
        return NULL;
    uint32_t generation = mem_code_generation(j->cpu->mem, at->pa_page);
    struct near *n = &j->near[(at->pa >> 2 ^ at->pa >> (2 + NEAR_BITS) ^ at->mode << 4) & ((1u << NEAR_BITS) - 1)];

    if (n->pa == at->pa && n->mode == at->mode && n->generation == generation)
        return n;
    struct jit_block *b = jit_code_find(j->code, j->cpu, at);
    if (unlikely(!b) && !(b = make_block(j, at)))
        return NULL;
    *n = (struct near){ at->pa, generation, at->mode, b->cross, b };
    return n;
}

/* The block at cpu->pc.  NULL: look again; instructions may have been run, any number if `freely', else one at most. */
static const struct near *next_block(struct jit_cpu *j, bool freely)
{
    struct cpu *cpu = j->cpu;
    struct jit_place at = { .max = MAX_INSNS };
    unsigned epoch = jit_code_epoch(j->code);

    if (unlikely(epoch != j->epoch))
        new_epoch(j, epoch);
    cpu->pc = prim_branch_addr(cpu, cpu->pc);
    cpu->leave = 0;
    if (unlikely(cpu->debug_breaks) && !debug_check_break(cpu)) {
        cpu->hot[HOT_LINK] = 0;
        return NULL;
    }
    if (unlikely(!access_fetch(cpu, cpu->pc, &at.hva, &at.pa_page))) {
        cpu->pc = cpu->next_pc;
        cpu->hot[HOT_LINK] = 0;
        return NULL;
    }
    if (unlikely(j->walk_again))
        walk_upper_again(j);
    sync_mode(j);
    at.pa = at.pa_page | (cpu->pc & (MEM_PAGE_SIZE - 1));
    at.mode = context_now(j)->mode;
    if (unlikely(cpu->debug_breaks) && debug_break_in_page(cpu, cpu->pc))
        at.mode |= JM_BREAKS;
    j->stats.lookups++;
    return find_near(j, &at, freely);
}

static void run_block(struct jit_cpu *j)
{
    struct cpu *cpu = j->cpu;
    const struct near *n = next_block(j, true);
    if (unlikely(!n))
        return;
    uint64_t link = cpu->hot[HOT_LINK];
    cpu->hot[HOT_LINK] = 0;
    if (unlikely(context_now(j)->mode & JM_TRACED)) {
        show_block(cpu);
        enter(j, n->cross);
        return;
    }
    if (link && !(n->mode & JM_BREAKS && debug_break_at_offset(cpu, cpu->pc & (MEM_PAGE_SIZE - 1))))
        jit_code_link(j->code, link, n->block, j->epoch);
    uint64_t tag = cpu->pc ^ cpu->hot[HOT_KEY];
    struct jump *jump = &j->jumps[jump_slot(tag)];
    jump->tag = tag;
    jump->code = n->cross;
    note_executed(j, n->pa & TLB_PAGE_MASK);
    enter(j, n->cross);
}

unsigned jit_exec_words(struct cpu *cpu, const uint32_t *words, unsigned n)
{
    struct jit_cpu *j = cpu->engine;
    unsigned page_off = (unsigned)(cpu->pc & (MEM_PAGE_SIZE - 1));
    uint8_t page[MEM_PAGE_SIZE + 64 * 4] = { 0 };

    sync_mode(j);
    memcpy(page + page_off, words, MIN(n * 4, (unsigned)sizeof page - page_off));
    struct jit_place at = { .hva = page, .pa_page = cpu->pc - page_off, .pa = cpu->pc, .mode = context_now(j)->mode, .max = n,
                            .bounded = true };
    struct jit_block *b;
    enum jit_made made;
    while ((made = jit_code_make(j->code, cpu, &at, &b)) == JIT_RETRY)
        ;
    BUG_ON(made != JIT_MADE);
    cpu->hot[HOT_TURNS] = 3;
    cpu->leave = 0;
    j->exec_page = page;
    enter(j, b->cross);
    j->exec_page = NULL;
    cpu->hot[HOT_LINK] = 0;
    /* Nothing may lead to this code again. */
    memset((void *)(uintptr_t)cpu->hot[HOT_RSP], 0, cpu->hot[HOT_RS_TOP] - cpu->hot[HOT_RSP]);
    cpu->hot[HOT_RSP] = cpu->hot[HOT_RS_TOP];
    jit_code_forget(j->code);
    return b->insns;
}

/* One block, which nothing was linked to, so that it comes back; at the end of what may be run, one instruction. */
static void jit_run_some(struct cpu *cpu, uint64_t max)
{
    struct jit_cpu *j = cpu->engine;

    cpu->hot[HOT_LINK] = 0;
    if (unlikely(debug_breaks_id(cpu) != j->breaks_id))
        new_breaks(j);
    if (unlikely(cpu->debug_slow || cpu->il)) {
        interp_step(cpu);
        return;
    }
    const struct near *n = next_block(j, false);
    if (n && n->block->insns <= max)
        enter(j, n->cross);
    else if (n)
        interp_step(cpu);
}

static void jit_run(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;

    cpu->hot[HOT_LINK] = 0;
    if (unlikely(debug_breaks_id(cpu) != j->breaks_id))
        new_breaks(j);
    for (;;) {
        unsigned pending = atomic_load_explicit(&cpu->pending, memory_order_relaxed);
        if (unlikely(pending & leave_mask(cpu))) {
            cpu->hot[HOT_LINK] = 0;
            if (pending & PEND_LEAVE)
                return;
            cpu_take_interrupt(cpu);
        }
        if (unlikely(cpu->debug_slow || cpu->il)) {
            uint64_t start = jit_now_ns();
            cpu->hot[HOT_LINK] = 0;
            interp_run_checked(cpu);
            j->stats.interp_ns += jit_now_ns() - start;
            if (debug_stopped(cpu))
                return;
        } else {
            run_block(j);
        }
    }
}

/* --- counters --- */

static void describe_ops(const struct jit_cpu *j, GString *out)
{
    uint64_t left = UINT64_MAX; /* at most the twelve that are run most often, in falling order */

    for (unsigned row = 0; row < 12; row++) {
        uint64_t best = 0;
        for (unsigned op = 0; op < IR_N_OPCODES; op++)
            if (j->stats.c_ops[op] < left)
                best = MAX(best, j->stats.c_ops[op]);
        if (!best)
            return;
        for (unsigned op = 0; op < IR_N_OPCODES; op++)
            if (j->stats.c_ops[op] == best)
                g_string_append_printf(out, "  in C: %-14s %" PRIu64 "\n", ir_info[op].name, best);
        left = best;
    }
}

static double one_in(uint64_t all, uint64_t some)
{
    return some ? (double)all / (double)some : (double)all;
}

static unsigned granules_with_versions(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < EX_GRANULES; i++)
        n += atomic_load_explicit(&access_ex_versions[i], memory_order_relaxed) != 0;
    return n;
}

static void describe_code(struct jit_code *code, GString *out)
{
    struct jit_code_stats s;

    jit_code_stats(code, &s);
    g_string_append_printf(out,
        "code: %" PRIu64 " blocks of %.1f instructions translated in %.3f s (%.0f ns an instruction), %.1f bytes of code "
        "a guest byte\n"
        "  %" PRIu64 " links; %" PRIu64 " blocks still good after an invalidation; %" PRIu64
        " blocks kept in %.1f of %.1f MiB, %u segments, %" PRIu64 " thrown away, %" PRIu64
        " waits for vCPUs; versions of %u granules\n",
        s.made, s.made ? (double)s.insns / (double)s.made : 0, (double)s.ns / 1e9,
        s.insns ? (double)s.ns / (double)s.insns : 0, s.insns ? (double)s.bytes / (double)s.insns / 4 : 0,
        s.links, s.kept, s.blocks, (double)s.used / (1 << 20), (double)s.size / (1 << 20), s.segments, s.evictions,
        s.waits, granules_with_versions());
}

void jit_describe(const struct cpu *cpu, GString *out)
{
    const struct jit_cpu *j = cpu->engine;
    const struct jit_stats *s = &j->stats;

    if (cpu->index == 0)
        describe_code(j->code, out);
    g_string_append_printf(out,
        "vCPU %u: %" PRIu64 " instructions in %.2f s of CPU (%.2f s debugged; %" PRIu64 " interpreted, being run rarely, and %" PRIu64
        " that have no code)\n"
        "  %" PRIu64 " lookups of blocks in the run loop (one in %.0f instructions), %" PRIu64
        " misses of the data TLB (one in %.0f), %" PRIu64 " of them in C; %" PRIu64
        " groups of accesses not in one page; %u address spaces\n",
        cpu->index, cpu->icount, (double)cluster_cpu_ns(cpu) / 1e9, (double)s->interp_ns / 1e9, s->cold, s->interp,
        s->lookups, one_in(cpu->icount, s->lookups), s->slow_mem + s->refills, one_in(cpu->icount, s->slow_mem + s->refills),
        s->slow_mem, s->torn, j->nspaces);
    if (jit_check_mmu)
        g_string_append_printf(out, "  checked: %" PRIu64 " TLB hits, %" PRIu64 " of them ahead of an invalidation\n",
                               j->checked.hits, j->checked.ahead);
    describe_ops(j, out);
}

/* --- life --------------------------------------------------------------------------------------------------------------------- */

/* CPUID leaf 7, EBX bit 29, which not every compiler has a name for. */
static bool host_has_sha(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1;
}

static void probe_host(void)
{
    __builtin_cpu_init();
    jit_host = (struct jit_host){
        .bmi1 = __builtin_cpu_supports("bmi"), .bmi2 = __builtin_cpu_supports("bmi2"),
        .lzcnt = __builtin_cpu_supports("lzcnt"), .avx = __builtin_cpu_supports("avx"),
        .avx2 = __builtin_cpu_supports("avx2"), .fma = __builtin_cpu_supports("fma"),
        .aes = __builtin_cpu_supports("aes"), .pclmul = __builtin_cpu_supports("pclmul"),
        .sha = host_has_sha(), .avx512vl = __builtin_cpu_supports("avx512vl"), .sse42 = __builtin_cpu_supports("sse4.2"),
    };
}

static void jit_init(struct cpu *cpu)
{
    struct jit_cpu *j = g_new0(struct jit_cpu, 1);

    probe_host();
#ifdef ARMLET_HARSH /* the least host that there may be; the plain build is tested with all that this one has */
    jit_host = (struct jit_host){ .sse42 = true };
#endif
    j->cpu = cpu;
    memset(cpu->recent, 0, sizeof cpu->recent);
    cpu->engine = j;
    j->code = jit_code_get(cpu, cache_size);
    j->enter = jit_code_stubs(j->code)->enter;
    j->spaces = g_new0(struct space, SPACES);
    j->near = g_new0(struct near, 1 << NEAR_BITS);
    drop_near(j);
    j->jumps = g_new0(struct jump, 1 << JUMP_BITS);
    j->direct = g_new0(struct jump, 1 << DIRECT_BITS);
    j->return_stack = g_malloc0(RETURN_STACK);
    jit_hot_constants(cpu->hot);
    cpu->hot[HOT_MXCSR] = MXCSR_START;
    cpu->hot[HOT_VERSIONS] = (uintptr_t)access_ex_versions;
    cpu->hot[HOT_CHANGES_AT] = (uintptr_t)mem_code_changes_at(cpu->mem);
    cpu->cluster->paired_exclusives = true;
    cpu->hot[HOT_JUMPS] = (uintptr_t)j->jumps;
    cpu->hot[HOT_DIRECT] = (uintptr_t)j->direct;
    cpu->hot[HOT_RS_TOP] = ((uintptr_t)j->return_stack + RETURN_STACK - 256) & ~(uintptr_t)15;
    cpu->hot[HOT_RS_LIMIT] = (uintptr_t)j->return_stack + 1024;
    cpu->hot[HOT_RSP] = cpu->hot[HOT_RS_TOP];
    cpu->hot[HOT_CONTEXT] = (uintptr_t)&j->context[0];
    cpu->hot[HOT_CONTEXTS] = (uintptr_t)j->slots;
    if (getrandom(&j->next_key, sizeof j->next_key, 0) != sizeof j->next_key)
        j->next_key = jit_now_ns();
    drop_keys(j);
    tlb_set_listener(cpu, on_tlbi, j);
}

static void jit_fini(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;

    tlb_set_listener(cpu, NULL, NULL);
    for (unsigned i = 0; i < j->nspaces; i++)
        munmap((uint8_t *)j->spaces[i].table - SPACE_FRONT, SPACE_BYTES);
    g_free(j->spaces);
    g_free(j->near);
    g_free(j->jumps);
    g_free(j->direct);
    g_free(j->return_stack);
    jit_code_put(j->code, cpu);
    g_free(j);
    cpu->engine = NULL;
    interp_free(cpu);
}

static void jit_flush(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;
    drop_spaces(j);
    drop_keys(j);
}

const struct cpu_engine jit_engine = {
    .name = "tcg",
    .init = jit_init,
    .fini = jit_fini,
    .run = jit_run,
    .flush = jit_flush,
    .run_some = jit_run_some,
};
