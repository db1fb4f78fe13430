/*
 * The data TLBs, keys and contexts of a vCPU, and how they keep up with its state.  The rules are at the head of jit.c.
 */
#include "jit/vcpu.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/report.h"
#include "base/trace.h"
#include "cpu/cluster.h"
#include "cpu/debug.h"
#include "cpu/mmu.h"
#include "cpu/pmu.h"
#include "cpu/prim.h"
#include "cpu/show.h"
#include "cpu/tlb.h"

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

struct context *jit_context_now(const struct jit_cpu *j)
{
    return (struct context *)(uintptr_t)j->cpu->hot[HOT_CONTEXT];
}

/* What is now goes on as one that is not remembered. */
static void forget_contexts(struct jit_cpu *j)
{
    struct context *own = &j->context[0], *now = jit_context_now(j);

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

void jit_drop_spaces(struct jit_cpu *j)
{
    for (unsigned i = 0; i < j->nspaces; i++)
        space_clear(j, &j->spaces[i]);
}

unsigned jit_tlb_index(uint64_t va)
{
    return (unsigned)(va >> MEM_PAGE_SHIFT) & ((1u << JTLB_BITS) - 1);
}

static void fill_entry(struct jit_cpu *j, uint64_t va, unsigned mop, bool writable, uint64_t addend)
{
    struct jtlb_entry *table = (struct jtlb_entry *)(uintptr_t)j->cpu->hot[mop & MO_UNPRIV ? HOT_UTLB : HOT_TABLE];
    unsigned i = jit_tlb_index(va);
    struct jtlb_entry *t = &table[i];
    uint64_t page = va & TLB_PAGE_MASK;

    if (t->tag == jtlb_none(i) || !t->tag) {
        struct space *s = mop & MO_UNPRIV ? space_of_table(j, table) : jit_context_now(j)->data_space;
        if (s->nused == G_N_ELEMENTS(s->used))
            space_clear(j, s);
        s->used[s->nused++] = (uint16_t)i;
    }
    *t = (struct jtlb_entry){ .tag = writable ? page : page ^ JTLB_RO, .addend = addend };
}

/* After a successful access: what cpu/tlb.c keeps of the page may be kept here too. */
void jit_fill(struct jit_cpu *j, uint64_t va, unsigned mop)
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
bool jit_refill(struct jit_cpu *j, uint64_t va, unsigned mop, bool write)
{
    const struct jtlb_entry *table =
        (const struct jtlb_entry *)(uintptr_t)j->cpu->hot[mop & MO_UNPRIV ? HOT_UTLB : HOT_TABLE];
    bool writable;
    uint64_t addend;

    if (jtlb_permits(&table[jit_tlb_index(va)], va, write) ||
        !tlb_peek(j->cpu, va, mop & MO_UNPRIV, write, &writable, &addend))
        return false;
    j->stats.refills++;
    fill_entry(j, va, mop, writable, addend);
    return true;
}

/* --- keys ---------------------------------------------------------------------------------------------------- */

void jit_drop_jumps(struct jit_cpu *j)
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
void jit_drop_keys(struct jit_cpu *j)
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
void jit_note_executed(struct jit_cpu *j, uint64_t pa)
{
    uint64_t va = j->cpu->pc & TLB_PAGE_MASK;
    unsigned b = bloom_bit(va);
    const struct context *c = jit_context_now(j);

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

void jit_walk_upper_again(struct jit_cpu *j)
{
    struct walked last[16] = { 0 };
    bool ok = !upper_overflow(j);

    j->walk_again = false;
    j->cpu->hot[HOT_CHANGES] = j->changes;
    for (unsigned i = 0; ok && i < UPPER_PAGES; i++)
        ok = !j->upper[i].va || upper_page_stands(j->cpu, &j->upper[i], last);
    if (!ok)
        jit_drop_keys(j);
}

static bool maybe_executed(const struct jit_cpu *j, uint64_t va)
{
    unsigned b = bloom_bit(va);
    return j->bloom[b / 64] >> b % 64 & 1;
}

/* --- keeping up with the rest of the vCPU ----------------------------------------------------------------------- */

/* The TLB has dropped something (cpu/tlb.h). */
void jit_on_tlbi(void *opaque, struct cpu *cpu, const struct tlb_op *op, unsigned reach)
{
    struct jit_cpu *j = opaque;

    if (op->kind == TLBI_ALL || reach > 16) {
        jit_drop_spaces(j);
        jit_drop_keys(j);
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
            struct jtlb_entry *t = &j->spaces[s].table[jit_tlb_index(va)];
            /* bits 63 to 56 are a tag where the top byte is ignored */
            if (!((t->tag ^ va) << 8 & (uint64_t)(int32_t)jtlb_compare(false) << 8))
                t->tag = jtlb_none(jit_tlb_index(va));
            if (unlikely(jit_check_mmu))
                jit_check_gone(j->cpu, j->spaces[s].table, va);
        }
        if (va >> 55 & 1 && j->nupper && (upper_overflow(j) || find_upper(j, va, 0)->va))
            jit_drop_keys(j);
        else if (maybe_executed(j, va))
            drop_lower_keys(j);
    }
}

/* The flags that generated code has raised in MXCSR go to FPSR, in the order IE . ZE OE UE PE. */
void jit_fold_flags(struct cpu *cpu)
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

uint64_t jit_leave_mask(const struct cpu *cpu)
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
void jit_sync_mode(struct jit_cpu *j)
{
    struct cpu *cpu = j->cpu;
    const struct tlb *tlb = cpu->tlb;
    unsigned mode = mode_of(cpu);
    uint32_t changes = mem_code_changes(cpu->mem);

    if (unlikely(tlb->drops != j->drops)) {
        j->drops = tlb->drops;
        jit_drop_spaces(j);
        jit_drop_keys(j);
    }
    if (unlikely(changes != j->changes)) {
        j->changes = changes;
        cpu->hot[HOT_CHANGES] = changes;
        jit_drop_keys(j);
    }
    if (unlikely(config_changed(j)))
        forget_contexts(j);
    uint64_t tag = context_tag(j);
    struct context *now = jit_context_now(j);
    if (!context_is(now, cpu, tag, mode)) {
        now = find_context(j, tag, mode);
        BUG_ON(!context_is(now, cpu, tag, mode));
        now->used = cpu->icount;
        cpu->hot[HOT_TABLE] = now->table;
        cpu->hot[HOT_UTLB] = now->utlb;
        cpu->hot[HOT_KEY] = now->key;
        cpu->hot[HOT_CONTEXT] = (uintptr_t)now;
    }
    cpu->hot[HOT_MASK] = jit_leave_mask(cpu);
}

/* After C did what code may do itself from now on in context `from', if nothing was forgotten meanwhile. */
void jit_learn(struct jit_cpu *j, struct context *from, unsigned forgotten, enum context_to how)
{
    struct context *to = jit_context_now(j);

    if (forgotten == j->forgotten && from->tag && to->tag)
        from->to[how] = to;
}
