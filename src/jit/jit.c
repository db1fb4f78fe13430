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
#include "jit/dump.h"
#include "jit/vcpu.h"

#ifdef ARMLET_HARSH
static uint64_t cache_size = 256 << 10;
#else
static uint64_t cache_size = UINT64_C(64) << 20;
#endif

struct jit_host jit_host;

void jit_set_cache_size(uint64_t bytes)
{
    if (bytes)
        cache_size = MAX(bytes, UINT64_C(256) << 10) & ~UINT64_C(4095);
}

void jit_set_check_mmu(void)
{
    jit_check_mmu = true;
}

/* --- the run loop --------------------------------------------------------------------------------------------------------- */

enum { PEND_LEAVE = PEND_TIMER | PEND_TLB | PEND_PAUSE | PEND_STOP | PEND_DEBUG };

static void enter(struct jit_cpu *j, const uint8_t *code)
{
    struct cpu *cpu = j->cpu;

    cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
    ((void (*)(struct cpu *, const uint8_t *))(uintptr_t)j->enter)(cpu, code);
    cpu->nzcv = jit_nzcv(cpu->hot[HOT_FLAGS]);
    jit_fold_flags(cpu);
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
    jit_drop_keys(j);
    jit_drop_jumps(j);
    j->cpu->hot[HOT_LINK] = 0;
    j->epoch = epoch;
    jit_code_seen(j->code, j->cpu, epoch);
}

/* Other breakpoints than before. */
static void new_breaks(struct jit_cpu *j)
{
    j->breaks_id = debug_breaks_id(j->cpu);
    drop_near(j);
    jit_drop_keys(j);
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
        if (cpu->leave || atomic_load_explicit(&cpu->pending, memory_order_relaxed) & jit_leave_mask(cpu))
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
        jit_walk_upper_again(j);
    jit_sync_mode(j);
    at.pa = at.pa_page | (cpu->pc & (MEM_PAGE_SIZE - 1));
    at.mode = jit_context_now(j)->mode;
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
    if (unlikely(jit_context_now(j)->mode & JM_TRACED)) {
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
    jit_note_executed(j, n->pa & TLB_PAGE_MASK);
    enter(j, n->cross);
}

unsigned jit_exec_words(struct cpu *cpu, const uint32_t *words, unsigned n)
{
    struct jit_cpu *j = cpu->engine;
    unsigned page_off = (unsigned)(cpu->pc & (MEM_PAGE_SIZE - 1));
    uint8_t page[MEM_PAGE_SIZE + 64 * 4] = { 0 };

    jit_sync_mode(j);
    memcpy(page + page_off, words, MIN(n * 4, (unsigned)sizeof page - page_off));
    struct jit_place at = { .hva = page, .pa_page = cpu->pc - page_off, .pa = cpu->pc, .mode = jit_context_now(j)->mode, .max = n,
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
        if (unlikely(pending & jit_leave_mask(cpu))) {
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
    jit_drop_keys(j);
    tlb_set_listener(cpu, jit_on_tlbi, j);
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
    jit_drop_spaces(j);
    jit_drop_keys(j);
}

const struct cpu_engine jit_engine = {
    .name = "tcg",
    .init = jit_init,
    .fini = jit_fini,
    .run = jit_run,
    .flush = jit_flush,
    .run_some = jit_run_some,
};
