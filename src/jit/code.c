/*
 * The code cache: memory, blocks, translation, links between blocks (code.h; docs/jit.md has the reasons).
 *
 * Code memory is mapped twice, writable and executable, never both at one address.  It is a ring of segments.
 *
 * Rules
 *  1. A block is found by physical address and mode, and is good while its page has the contents that it had: the guest may
 *     invalidate a page, or all, without having changed anything (IC IALLU of each secondary CPU that starts).  So a page has
 *     a version, which moves on when its code generation does, unless what blocks were made of is what it was.
 *  2. Chains of the hash are read without the lock: a block is complete before it is put at a chain's head, and keeps its
 *     `next' when it is taken out.
 *  3. Everything else happens under code->lock, and nobody waits for another vCPU with it held.
 *  4. Code refers to other blocks only by links that link_blocks() made: within a segment, or noted in `links_in' of the
 *     segment that they lead to.  So evict() leaves no way into a segment but what vCPUs hold themselves, until they have
 *     seen the new epoch.
 */
#include "jit/code.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/report.h"
#include "cpu/cluster.h"
#include "cpu/debug.h"
#include "jit/check.h"
#include "jit/dump.h"
#include "jit/opt.h"
#include "mem/ram.h"

enum {
    SEGMENTS = 8,
    SEGMENT_MIN = 128 << 10, /* fewer segments rather than smaller ones */
    BLOCK_HASH = 1 << 16,
    RUN_COUNTS = 1 << 18,
    TORN_BITS = 1 << 14,
#ifdef ARMLET_HARSH
    COLD_RUNS = 1,
#else
    COLD_RUNS = 6,
#endif
    ROOM = 1 << 16,          /* that a segment must have for another block */
    STUB_ROOM = 8192,
    CHUNK = 512,             /* blocks allocated at a time */
};

struct link_in { /* from another segment, both in the writable view */
    uint8_t *place;
    const uint8_t *back; /* where it led before */
};

struct segment {
    uint8_t *start, *end, *free; /* in the writable view */
    uint8_t *populated;          /* pages before are there */
    GPtrArray *blocks;           /* by address of their code */
    GPtrArray *chunks;           /* of struct jit_block */
    unsigned chunk_used;
    GArray *links_in;
    unsigned evicted;            /* the epoch that began when it was emptied */
};

typedef _Atomic(struct jit_block *) block_ptr;

/* What the blocks of a page's version were made of, by pieces of the page (struct ir_page). */
struct page_words {
    uint16_t made, mixed; /* bits: blocks were made of the piece; and not all of the same words */
    uint64_t hash[IR_PIECES];
};
_Static_assert(IR_PIECES <= 16, "bits of made and mixed");

/* A page of RAM.  The version is good while `checked' is the page's code generation + 1. */
struct page_version {
    atomic_uint checked, version;
    struct page_words *words; /* NULL: no block was ever made of it */
};

struct jit_code {
    pthread_mutex_t lock;
    unsigned users;
    uint8_t *rw, *rx;
    uint64_t size;
    struct jit_stubs stubs;
    block_ptr *hash;
    struct page_version *pages; /* of RAM, unreserved */
    uint64_t ram_base, ram_pages;
    uint32_t versions;          /* the last one of any page */
    GPtrArray *words;           /* of all pages */
    struct ir_page page;        /* what is translated from */
    atomic_uchar *runs; /* of code that has no block, by a hash of its place */
    uint64_t torn[TORN_BITS / 64]; /* first accesses of groups that are often in two pages, by a hash of their place */
    struct segment segment[SEGMENTS];
    unsigned segments, now;
    atomic_uint epoch;
    atomic_uint seen[CPU_MAX]; /* epoch that each vCPU has seen */
    uint64_t breaks_id;        /* of the breakpoints that code of JM_BREAKS was made for */
    unsigned quiet;            /* all vCPUs were quiescent after this epoch had begun */
    struct jit_code_stats stats;
    uint64_t cycles, start_cycles, start_ns; /* of the host's counter: of translation so far; when all began */
    struct emit emit;
    struct ir_block block;
    uint16_t uses[IR_MAX + MAX_GROUPS];
    struct snapshot snap[MAX_GROUPS];
};

/* --- memory ------------------------------------------------------------------------------------------------ */

/* Shared anonymous pages, mapped once more by mremap() of nothing: no file, so that no limit on file sizes applies. */
static void map_code(struct jit_code *code, uint64_t bytes)
{
    code->size = bytes;
    code->rw = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    code->rx = code->rw == MAP_FAILED ? MAP_FAILED : mremap(code->rw, 0, bytes, MREMAP_MAYMOVE);
    if (code->rx == MAP_FAILED || mprotect(code->rx, bytes, PROT_READ | PROT_EXEC))
        BUG("code memory: %s", g_strerror(errno));
}

static uint8_t *writable(const struct jit_code *code, const uint8_t *executable)
{
    return code->rw + (executable - code->rx);
}

static void make_segments(struct jit_code *code)
{
    uint64_t n = CLAMP(code->size / SEGMENT_MIN, 2, SEGMENTS), each = code->size / n & ~UINT64_C(4095);

    code->segments = (unsigned)n;
    for (unsigned i = 0; i < n; i++) {
        struct segment *s = &code->segment[i];
        s->populated = code->rw + i * each;
        s->start = s->free = code->rw + i * each + (i ? 0 : STUB_ROOM);
        s->end = code->rw + (i + 1) * each;
        s->blocks = g_ptr_array_new();
        s->chunks = g_ptr_array_new_with_free_func(g_free);
        s->links_in = g_array_new(FALSE, FALSE, sizeof(struct link_in));
    }
}

/* It is held for some microseconds, in which a thread would hardly fall asleep. */
static void take_lock(struct jit_code *code)
{
    enum { SPINS = 500 };

    for (unsigned i = 0; i < SPINS; i++) {
        if (!pthread_mutex_trylock(&code->lock))
            return;
        __builtin_ia32_pause();
    }
    pthread_mutex_lock(&code->lock);
}

static struct jit_code *code_new(struct cpu *cpu, uint64_t bytes)
{
    struct jit_code *code = g_new0(struct jit_code, 1);

    pthread_mutex_init(&code->lock, NULL);
    map_code(code, bytes);
    jit_make_stubs(&code->stubs, code->rw, STUB_ROOM, code->rx - code->rw);
    make_segments(code);
    code->hash = g_new0(block_ptr, BLOCK_HASH);
    code->runs = g_new0(atomic_uchar, RUN_COUNTS);
    code->ram_base = mem_ram_base(cpu->mem);
    code->ram_pages = mem_ram_size(cpu->mem) / MEM_PAGE_SIZE;
    code->pages = ram_map(code->ram_pages * sizeof *code->pages, false);
    BUG_ON(!code->pages);
    code->words = g_ptr_array_new_with_free_func(g_free);
    code->start_cycles = __builtin_ia32_rdtsc();
    code->start_ns = jit_now_ns();
    return code;
}

struct jit_code *jit_code_get(struct cpu *cpu, uint64_t bytes)
{
    struct cluster *cl = cpu->cluster;

    if (!cl->engine_shared)
        cl->engine_shared = code_new(cpu, bytes);
    struct jit_code *code = cl->engine_shared;
    code->users++;
    return code;
}

void jit_code_put(struct jit_code *code, struct cpu *cpu)
{
    if (--code->users)
        return;
    cpu->cluster->engine_shared = NULL;
    for (unsigned i = 0; i < code->segments; i++) {
        struct segment *s = &code->segment[i];
        g_ptr_array_free(s->blocks, TRUE);
        g_ptr_array_free(s->chunks, TRUE);
        g_array_free(s->links_in, TRUE);
    }
    munmap(code->rw, code->size);
    munmap(code->rx, code->size);
    ram_unmap(code->pages, code->ram_pages * sizeof *code->pages);
    g_ptr_array_free(code->words, TRUE);
    pthread_mutex_destroy(&code->lock);
    g_free(code->hash);
    g_free(code->runs);
    g_free(code);
}

const struct jit_stubs *jit_code_stubs(const struct jit_code *code)
{
    return &code->stubs;
}

/* --- blocks ---------------------------------------------------------------------------------------------------- */

unsigned jit_code_epoch(const struct jit_code *code)
{
    return atomic_load(&code->epoch);
}

void jit_code_seen(struct jit_code *code, const struct cpu *cpu, unsigned epoch)
{
    atomic_store(&code->seen[cpu->index], epoch);
}

static block_ptr *chain(struct jit_code *code, uint64_t pa, unsigned mode)
{
    return &code->hash[(unsigned)(((pa >> 2) * 64 + mode) * UINT64_C(0x9e3779b97f4a7c15) >> 48) % BLOCK_HASH];
}

static struct page_version *version_of(const struct jit_code *code, uint64_t pa)
{
    uint64_t n = (pa - code->ram_base) / MEM_PAGE_SIZE;

    return n < code->ram_pages ? &code->pages[n] : NULL;
}

/* The version of what the page holds now; false: that must be looked at (check_page()).  What is not RAM has its generation. */
static bool page_version(const struct jit_code *code, struct cpu *cpu, uint64_t pa, uint32_t *version)
{
    uint32_t generation = mem_code_generation(cpu->mem, pa);
    struct page_version *p = version_of(code, pa);

    *version = p ? 0 : generation;
    if (!p)
        return true;
    if (atomic_load_explicit(&p->checked, memory_order_acquire) != generation + 1)
        return false;
    *version = atomic_load_explicit(&p->version, memory_order_relaxed);
    return true;
}

static uint64_t hash_word(uint64_t h, const uint8_t *at)
{
    uint64_t w;

    memcpy(&w, at, sizeof w);
    h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static uint64_t hash_piece(const uint8_t *piece)
{
    uint64_t a = 1, b = 2, c = 3, d = 4; /* side by side */

    for (unsigned i = 0; i < IR_PIECE; i += 32) {
        a = hash_word(a, piece + i);
        b = hash_word(b, piece + i + 8);
        c = hash_word(c, piece + i + 16);
        d = hash_word(d, piece + i + 24);
    }
    a = (a ^ b) * UINT64_C(0xbf58476d1ce4e5b9) + (a >> 31);
    a = (a ^ c) * UINT64_C(0xbf58476d1ce4e5b9) + (a >> 31);
    return (a ^ d) * UINT64_C(0xbf58476d1ce4e5b9) + (a >> 31);
}

/* Are the pieces that blocks were made of what they were? */
static bool same_words(const struct page_words *words, const uint8_t *page)
{
    if (words->mixed)
        return false;
    for (unsigned i = 0; i < IR_PIECES; i++)
        if (words->made >> i & 1 && hash_piece(page + i * IR_PIECE) != words->hash[i])
            return false;
    return true;
}

/*
 * The version of the page as it is now, from which code->page is to be filled.  Under the lock; pieces are read after its
 * generation, so that what changes meanwhile is found by the invalidation that follows.
 */
static uint32_t check_page(struct jit_code *code, struct cpu *cpu, const struct jit_place *at)
{
    struct page_version *p = version_of(code, at->pa_page);

    mem_code_mark(cpu->mem, at->pa_page); /* before its generation and its words are read */
    uint32_t generation = mem_code_generation(cpu->mem, at->pa_page);
    code->page.from = at->hva;
    code->page.taken = 0;
    if (!p)
        return generation;
    if (atomic_load_explicit(&p->checked, memory_order_relaxed) != generation + 1) {
        if (!p->words) {
            p->words = g_new0(struct page_words, 1);
            g_ptr_array_add(code->words, p->words);
        }
        bool never = !atomic_load_explicit(&p->version, memory_order_relaxed);
        if (never || cpu->cluster->lockstep || !same_words(p->words, at->hva)) { /* the interpreter compares nothing */
            p->words->made = p->words->mixed = 0;
            atomic_store_explicit(&p->version, ++code->versions, memory_order_relaxed);
        }
        atomic_store_explicit(&p->checked, generation + 1, memory_order_release);
    }
    return atomic_load_explicit(&p->version, memory_order_relaxed);
}

/*
 * A block is being made of code->page.  Where it has words that were written and not invalidated since the first block was made
 * of that piece, it is of the same version as the others, but the hash does not stand for it: the next invalidation
 * will be taken at its word.
 */
static void note_words(struct jit_code *code, const struct jit_place *at)
{
    struct page_version *p = version_of(code, at->pa_page);
    struct page_words *words = p ? p->words : NULL;

    for (unsigned i = 0; words && i < IR_PIECES; i++) {
        if (!(code->page.taken >> i & 1))
            continue;
        uint64_t hash = hash_piece(code->page.copy + i * IR_PIECE);
        if (!(words->made >> i & 1))
            words->hash[i] = hash;
        else if (words->hash[i] != hash)
            words->mixed |= (uint16_t)(1u << i);
        words->made |= (uint16_t)(1u << i);
    }
}

struct jit_block *jit_code_find(struct jit_code *code, struct cpu *cpu, const struct jit_place *at)
{
    uint32_t version;
    if (!page_version(code, cpu, at->pa_page, &version))
        return NULL;
    struct jit_block *b = atomic_load_explicit(chain(code, at->pa, at->mode), memory_order_acquire);

    for (; b; b = atomic_load_explicit(&b->next, memory_order_acquire))
        if (b->pa == at->pa && b->mode == at->mode && b->version == version)
            return b;
    return NULL;
}

/* --- code that runs rarely ------------------------------------------------------------------------------------------- */

static atomic_uchar *runs_of(struct jit_code *code, const struct jit_place *at)
{
    return &code->runs[(at->pa >> 2 ^ at->pa >> 20 ^ (uint64_t)at->mode << 10) & (RUN_COUNTS - 1)];
}

bool jit_code_is_cold(struct jit_code *code, const struct jit_place *at)
{
    atomic_uchar *runs = runs_of(code, at);
    unsigned char n = atomic_load_explicit(runs, memory_order_relaxed);

    if (n >= COLD_RUNS)
        return false;
    atomic_store_explicit(runs, n + 1, memory_order_relaxed); /* one of another vCPU may be lost */
    return true;
}

void jit_code_warm(struct jit_code *code, const struct jit_place *at)
{
    atomic_store_explicit(runs_of(code, at), COLD_RUNS, memory_order_relaxed);
}

static void take_out(struct jit_code *code, const struct jit_block *b)
{
    block_ptr *p = chain(code, b->pa, b->mode);
    struct jit_block *at;

    for (; (at = atomic_load_explicit(p, memory_order_relaxed)); p = &at->next)
        if (at == b) {
            atomic_store_explicit(p, atomic_load_explicit(&b->next, memory_order_relaxed), memory_order_release);
            return;
        }
}

static struct jit_block *new_block(struct segment *s)
{
    if (!s->chunks->len || s->chunk_used == CHUNK) {
        g_ptr_array_add(s->chunks, g_new0(struct jit_block, CHUNK));
        s->chunk_used = 0;
    }
    struct jit_block *chunk = g_ptr_array_index(s->chunks, s->chunks->len - 1);
    return &chunk[s->chunk_used++];
}

/* At the head of its chain, without those that it replaces: stale, they are never found again. */
static void put_in(struct jit_code *code, struct jit_block *b)
{
    block_ptr *head = chain(code, b->pa, b->mode), *p = head;
    struct jit_block *at;

    while ((at = atomic_load_explicit(p, memory_order_relaxed))) {
        if (at->pa == b->pa && at->mode == b->mode)
            atomic_store_explicit(p, atomic_load_explicit(&at->next, memory_order_relaxed), memory_order_release);
        else
            p = &at->next;
    }
    atomic_store_explicit(&b->next, atomic_load_explicit(head, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(head, b, memory_order_release);
}

/* --- segments ---------------------------------------------------------------------------------------------------- */

static bool in_segment(const struct segment *s, const uint8_t *p)
{
    return p >= s->start && p < s->end;
}

/* The segment of a place in the writable view. */
static struct segment *segment_of(struct jit_code *code, const uint8_t *p)
{
    for (unsigned i = 0; i < code->segments; i++)
        if (in_segment(&code->segment[i], p))
            return &code->segment[i];
    BUG("no code memory");
}

/* A rel32 that others may be fetching (emit_align_link()). */
static void patch_live(uint8_t *place, const uint8_t *target)
{
    int32_t rel = (int32_t)(target - (place + 4));

    __asm__ volatile("movl %1, %0" : "=m"(*(int32_t(*)[1])(void *)place) : "r"(rel) : "memory");
}

/* Jumps that are in segment s do not exist any more. */
static void forget_links_from(struct jit_code *code, const struct segment *s)
{
    for (unsigned i = 0; i < code->segments; i++) {
        GArray *in = code->segment[i].links_in;
        for (guint k = in->len; k--;)
            if (in_segment(s, g_array_index(in, struct link_in, k).place))
                g_array_remove_index_fast(in, k);
    }
}

static void evict(struct jit_code *code, struct segment *s)
{
    if (s->free == s->start)
        return;
    for (guint i = 0; i < s->blocks->len; i++)
        take_out(code, g_ptr_array_index(s->blocks, i));
    for (guint i = 0; i < s->links_in->len; i++) {
        struct link_in *l = &g_array_index(s->links_in, struct link_in, i);
        patch_live(l->place, l->back);
    }
    g_array_set_size(s->links_in, 0);
    g_ptr_array_set_size(s->blocks, 0);
    forget_links_from(code, s);
    s->free = s->start;
    s->evicted = atomic_fetch_add(&code->epoch, 1) + 1;
    code->stats.evictions++;
}

/* May memory that was given up at the beginning of `epoch' be written, as far as other vCPUs are concerned? */
static bool all_have_left(const struct jit_code *code, const struct cpu *cpu, unsigned epoch)
{
    const struct cluster *cl = cpu->cluster;

    if ((int)(code->quiet - epoch) >= 0)
        return true;
    for (unsigned i = 0; i < cl->n; i++)
        if (cl->cpu[i] != cpu && (int)(atomic_load(&code->seen[i]) - epoch) < 0 && !cluster_quiet(cl->cpu[i]))
            return false;
    return true;
}

/* Goes on to the next segment.  False: the lock was given up, and nothing may be taken for granted. */
static bool next_segment(struct jit_code *code, struct cpu *cpu)
{
    struct segment *old = &code->segment[code->now], *s = &code->segment[(code->now + 1) % code->segments];

    evict(code, s); /* has been, but for the very first rounds of a small cache */
    if (!all_have_left(code, cpu, s->evicted)) {
        unsigned epoch = atomic_load(&code->epoch);
        code->stats.waits++;
        pthread_mutex_unlock(&code->lock);
        cluster_quiesce(cpu);
        take_lock(code);
        if ((int)(epoch - code->quiet) > 0)
            code->quiet = epoch;
        return false;
    }
    g_ptr_array_set_size(s->chunks, 0);
    code->now = (code->now + 1) % code->segments;
    evict(code, &code->segment[(code->now + 1) % code->segments]);
    madvise(old->start, (size_t)(old->end - old->start) & ~(size_t)4095, MADV_DONTNEED);
    s->populated = (uint8_t *)((uintptr_t)s->start & ~(uintptr_t)4095);
    return true;
}

/* --- translation ---------------------------------------------------------------------------------------------------- */

/* Targets with a tag miss the jump cache; the run loop takes the tag off: tbi is not of the mode. */
static struct ir_mode lift_mode(const struct cpu *cpu)
{
    struct ir_mode m = ir_mode_of(cpu);
    m.tbi = 0;
    return m;
}

/* A load that a store may belong to which should be in the same block (emit_is_paired()), and little room for that? */
static bool begins_next(const struct ir_block *b, uint32_t word, unsigned max)
{
    enum { ROOM_FOR_PAIR = 10, SIDES_FOR_PAIR = 6 };
    bool load_ex = (word & 0x3fc00000) == 0x08400000;

    return load_ex && b->insns && max == BLOCK_INSNS && (b->insns > max - ROOM_FOR_PAIR || b->sides > SIDES_FOR_PAIR);
}

/* Lifts at most `max' instructions of the page. */
static void lift(struct jit_code *code, const struct cpu *cpu, const struct jit_place *at, unsigned max)
{
    struct ir_mode m = lift_mode(cpu);
    unsigned page_off = (unsigned)(at->pa & (MEM_PAGE_SIZE - 1));

    ir_begin_trace(&code->block, &m, page_off);
    /*
     * In lockstep, and where blocks are traced or end at breakpoints, flags are complete behind each block; else only where
     * somebody but an interrupt could see them.
     */
    code->block.page = cpu->cluster->lockstep || at->mode & (JM_TRACED | JM_BREAKS) ? NULL : &code->page;
    if (at->mode & JM_TRACED) /* a block is what runs as a whole */
        code->block.sides = code->block.jumps = UINT8_MAX;
    while (code->block.insns < max && !code->block.ended) {
        int off = (int)page_off + code->block.next;
        uint32_t word = 0;
        if (unlikely(at->mode & JM_BREAKS) && code->block.insns && debug_break_at_offset(cpu, (unsigned)off))
            break;
        if (off >= 0 && off < MEM_PAGE_SIZE)
            word = ir_page_word(&code->page, (unsigned)off);
        if (begins_next(&code->block, word, max) || !ir_lift(&code->block, word))
            break;
    }
    ir_end(&code->block);
}

static void dump_before(const struct jit_code *code, const struct cpu *cpu, const struct jit_place *at, enum trace_category which)
{
    if (which == TRACE_OP && trace_on(IN_ASM))
        jit_dump_guest(cpu->pc, &code->block, code->page.copy);
    if (which == TRACE_OP ? trace_on(OP) : trace_on(OP_OPT))
        jit_dump_ir(which, cpu->pc, &code->block);
}

static unsigned torn_bit(uint64_t pa)
{
    return (unsigned)(pa >> 2 ^ pa >> 16) & (TORN_BITS - 1);
}

void jit_code_torn(struct jit_code *code, struct cpu *cpu, uint64_t pa)
{
    struct page_version *p = version_of(code, pa);

    take_lock(code);
    code->torn[torn_bit(pa) / 64] |= UINT64_C(1) << torn_bit(pa) % 64;
    if (p && p->words)
        p->words->mixed = UINT16_MAX;
    pthread_mutex_unlock(&code->lock);
    mem_code_stale(cpu->mem, pa, 1);
}

/* Which groups are often in two pages: their cold code leaves at the instruction behind. */
static void mark_torn(struct jit_code *code, const struct jit_place *at)
{
    struct ir_block *block = &code->block;

    for (unsigned k = 0; k < code->emit.ngroups; k++) {
        struct group *g = &code->emit.group[k];
        unsigned i = g->first;
        while (block->ir[i].op != IR_insn)
            i--;
        unsigned bit = torn_bit(at->pa + block->ir[i].imm);
        g->torn = code->torn[bit / 64] >> bit % 64 & 1;
        for (i = g->last; g->torn && i < block->n && block->ir[i].op != IR_insn; i++)
            ;
        if (g->torn && i < block->n)
            block->ir[i].x = 1;
    }
}

static void find_groups(struct jit_code *code, const struct jit_place *at)
{
    struct emit *e = &code->emit;

    e->ngroups = opt_groups(&code->block, e->group, e->member);
    mark_torn(code, at);
    if (unlikely(jit_check_mmu)) { /* every access is to be looked at */
        e->ngroups = 0;
        memset(e->member, 0, code->block.n);
    }
}

/* Host code for as much of the place as there is some; false: for not even one instruction. */
static bool emit_place(struct jit_code *code, const struct cpu *cpu, const struct jit_place *at, const uint8_t **cross,
                       const uint8_t **inside)
{
    struct segment *s = &code->segment[code->now];
    uint8_t *entry[2];
    bool dump = unlikely(jit_dump_wanted(cpu->pc));

    for (unsigned max = at->max; max; max /= 2) {
        lift(code, cpu, at, max);
        if (dump)
            dump_before(code, cpu, at, TRACE_OP);
        opt_forward(&code->block);
        find_groups(code, at);
        opt_dead(&code->block, code->uses);
        opt_lazy(&code->block);
        opt_loop(&code->block, code->uses, code->emit.member, &code->emit.loop);
        opt_owed(&code->block, &code->emit.loop);
        if (dump)
            dump_before(code, cpu, at, TRACE_OP_OPT);
        code->emit.x = (struct x86){ .p = s->free, .start = s->free, .end = s->end, .exec = code->rx - code->rw };
        code->emit.mode = at->mode;
        code->emit.smp = cpu->cluster->n > 1;
        code->emit.bounded = at->bounded;
        code->emit.stubs = &code->stubs;
        code->emit.snap = code->snap;
        if (emit_block(&code->emit, &code->block, code->uses, (unsigned)(at->pa & (MEM_PAGE_SIZE - 1)), &entry[0],
                       &entry[1])) {
            *cross = entry[0] + code->emit.x.exec;
            *inside = entry[1] + code->emit.x.exec;
            return true;
        }
    }
    return false;
}

uint64_t jit_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct jit_block *translate(struct jit_code *code, struct cpu *cpu, const struct jit_place *at, uint32_t version)
{
    struct segment *s = &code->segment[code->now];
    uint64_t start = __builtin_ia32_rdtsc();
    const uint8_t *cross, *inside;

    if (!emit_place(code, cpu, at, &cross, &inside))
        return NULL;
    if (unlikely(jit_dump_wanted(cpu->pc)) && trace_on(OUT_ASM))
        jit_dump_host(cpu->pc, &code->emit, s->free);
    jit_perf_map_add(s->free + code->emit.x.exec, (size_t)(code->emit.x.p - s->free), cpu->pc);
    note_words(code, at);
    struct jit_block *b = new_block(s);
    b->pa = at->pa;
    b->mode = (uint8_t)at->mode;
    b->insns = (uint16_t)code->block.insns;
    b->version = version;
    b->cross = cross;
    b->inside = inside;
    g_ptr_array_add(s->blocks, b);
    put_in(code, b);
    code->stats.made++;
    code->stats.insns += b->insns;
    code->stats.bytes += (uint64_t)(code->emit.x.p - s->free);
    s->free = code->emit.x.p;
    code->cycles += __builtin_ia32_rdtsc() - start;
    return b;
}

/* Faults of the writable view, many at a time. */
static void populate(struct segment *s)
{
    enum { AHEAD = 32 << 10, STEP = 256 << 10 };

    if (s->populated - s->free < AHEAD && s->populated < s->end) {
        size_t step = MIN((size_t)STEP, (size_t)(s->end - s->populated));
        madvise(s->populated, step, MADV_POPULATE_WRITE); /* an old kernel cannot: they come one by one */
        s->populated += step;
    }
}

static bool has_room(const struct segment *s)
{
    return s->end - s->free >= MIN(ROOM, (s->end - s->start) / 8);
}

enum jit_made jit_code_make(struct jit_code *code, struct cpu *cpu, const struct jit_place *at, struct jit_block **block)
{
    enum jit_made made = JIT_FOUND;

    take_lock(code);
    *block = jit_code_find(code, cpu, at);
    if (!*block) {
        if (!has_room(&code->segment[code->now])) {
            next_segment(code, cpu);
            made = JIT_RETRY;
        } else {
            uint32_t version = check_page(code, cpu, at);
            *block = jit_code_find(code, cpu, at); /* as it was before it was invalidated */
            if (!*block) {
                populate(&code->segment[code->now]);
                *block = translate(code, cpu, at, version);
                made = *block ? JIT_MADE : JIT_CANNOT;
            } else {
                code->stats.kept++;
            }
        }
    }
    pthread_mutex_unlock(&code->lock);
    return made;
}

/* Nothing leads to them any more: vCPUs have dropped their keys, and links are between blocks of one mode. */
static void take_out_breaks(struct jit_code *code)
{
    for (unsigned i = 0; i < code->segments; i++)
        for (guint k = 0; k < code->segment[i].blocks->len; k++) {
            const struct jit_block *b = g_ptr_array_index(code->segment[i].blocks, k);
            if (b->mode & JM_BREAKS)
                take_out(code, b);
        }
}

void jit_code_set_breaks(struct jit_code *code, uint64_t id)
{
    pthread_mutex_lock(&code->lock);
    if (id && id != code->breaks_id) { /* between two stops there are none, and then mostly the same again */
        take_out_breaks(code);
        code->breaks_id = id;
    }
    pthread_mutex_unlock(&code->lock);
}

void jit_code_forget(struct jit_code *code)
{
    struct segment *s = &code->segment[code->now];

    take_lock(code);
    const struct jit_block *b = g_ptr_array_index(s->blocks, s->blocks->len - 1);
    take_out(code, b);
    s->free = writable(code, b->cross);
    g_ptr_array_set_size(s->blocks, (int)s->blocks->len - 1);
    pthread_mutex_unlock(&code->lock);
}

/* --- links ------------------------------------------------------------------------------------------------------------ */

/* The block whose code holds the executable address. */
static const struct jit_block *block_at(const struct segment *s, const uint8_t *at)
{
    unsigned low = 0, high = s->blocks->len;

    while (low + 1 < high) {
        unsigned mid = (low + high) / 2;
        const struct jit_block *b = g_ptr_array_index(s->blocks, mid);
        if (b->cross <= at)
            low = mid;
        else
            high = mid;
    }
    return g_ptr_array_index(s->blocks, low);
}

static bool link_blocks(struct jit_code *code, const uint8_t *desc, const struct jit_block *b)
{
    uint8_t *stub = writable(code, desc) - 5, *inside = writable(code, b->inside); /* the call that desc is behind */
    struct segment *s = segment_of(code, stub), *to = segment_of(code, inside);
    const struct jit_block *from = block_at(s, desc);
    int32_t off;

    if ((from->pa ^ b->pa) / MEM_PAGE_SIZE || from->mode != b->mode || from->version != b->version)
        return false;
    memcpy(&off, desc, sizeof off);
    struct link_in in = { stub + 5 + off, stub };
    patch_live(in.place, inside);
    if (s != to)
        g_array_append_val(to->links_in, in);
    return true;
}

bool jit_code_link(struct jit_code *code, uint64_t link, const struct jit_block *b, unsigned epoch)
{
    bool done = false;

    take_lock(code);
    if (atomic_load(&code->epoch) == epoch) /* else one of the two may be gone */
        done = link_blocks(code, (const uint8_t *)(uintptr_t)link, b);
    code->stats.links += done;
    pthread_mutex_unlock(&code->lock);
    return done;
}

void jit_code_stats(struct jit_code *code, struct jit_code_stats *out)
{
    take_lock(code);
    *out = code->stats;
    double rate = (double)(jit_now_ns() - code->start_ns) / (double)(__builtin_ia32_rdtsc() - code->start_cycles);
    out->ns = (uint64_t)((double)code->cycles * rate);
    out->size = code->size;
    out->segments = code->segments;
    for (unsigned i = 0; i < code->segments; i++) {
        out->blocks += code->segment[i].blocks->len;
        out->used += (uint64_t)(code->segment[i].free - code->segment[i].start);
    }
    pthread_mutex_unlock(&code->lock);
}
