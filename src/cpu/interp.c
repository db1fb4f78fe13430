/*
 * The reference engine: the instruction bodies with V as a number.
 *
 * Words are decoded once, into a slot of 32 bytes per word: the body's function and the fields.  Slots are
 * kept per physical page of 4 KiB, filled as they are reached, and dropped when the page's code generation
 * has moved on (the guest has invalidated its instruction cache) or a newer page needs the place.  A vCPU's
 * slots are its own.
 *
 * Rules
 *  1. Between two looks at the world (pending, translation of pc, code generation, debug state) runs a straight line or
 *     taken branches within one page; interrupts are looked for at every taken branch and page end.  What changes the
 *     world ends the line with cpu->leave.
 *  2. A slot never holds anything that depends on the mode (EL, FP access): bodies ask when they run.
 *  3. cpu->pc is the instruction's own address while it runs.
 *
 * Threads: everything on the vCPU's own thread.
 */
#include "cpu/interp.h"

#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "cpu/cpu.h"
#include "cpu/debug.h"
#include "cpu/helpers.h"
#include "cpu/ops.h"
#include "cpu/prim.h"
#include "cpu/show.h"
#include "cpu/vec.h"

typedef struct { uint64_t n; } V;
typedef struct { union vreg r; } W;
typedef struct { uint32_t n; } F;
#define CTX struct cpu

/* values */

static ALWAYS_INLINE V v_const(CTX *c, uint64_t n) { (void)c; return (V){n}; }
static ALWAYS_INLINE V v_pc(CTX *c, int64_t off) { return (V){c->pc + (uint64_t)off}; }
static ALWAYS_INLINE V get_x(CTX *c, unsigned n) { return (V){c->x[n]}; }
static ALWAYS_INLINE void set_x(CTX *c, unsigned n, V v) { c->x[n] = v.n; }

#define OP2(name, expr, commutes)                                                                           \
    static ALWAYS_INLINE UNUSED V v_##name(CTX *c, bool sf, V a, V b)                                       \
    {                                                                                                       \
        (void)c;                                                                                            \
        return (V){value_##name(sf, a.n, b.n)};                                                             \
    }
#define OP1(name, expr)                                                                                     \
    static ALWAYS_INLINE UNUSED V v_##name(CTX *c, bool sf, V a)                                            \
    {                                                                                                       \
        (void)c;                                                                                            \
        return (V){value_##name(sf, a.n)};                                                                  \
    }
#include "isa/ops.def"
#undef OP1
#undef OP2

static ALWAYS_INLINE V v_ext(CTX *c, enum ext kind, V v) { (void)c; return (V){value_ext(kind, v.n)}; }
static ALWAYS_INLINE V v_extr(CTX *c, bool sf, V hi, V lo, unsigned lsb)
{
    (void)c;
    return (V){value_extr(sf, hi.n, lo.n, lsb)};
}
static ALWAYS_INLINE V v_adc(CTX *c, bool sf, V a, V b, F f)
{
    (void)c;
    return (V){value_adc(sf, a.n, b.n, f.n)};
}
static ALWAYS_INLINE V v_sbc(CTX *c, bool sf, V a, V b, F f)
{
    (void)c;
    return (V){value_adc(sf, a.n, ~b.n, f.n)};
}
static ALWAYS_INLINE V v_select(CTX *c, V q, V a, V b) { (void)c; return q.n ? a : b; }

/* flags */

static ALWAYS_INLINE F get_f(CTX *c) { return (F){c->nzcv}; }
static ALWAYS_INLINE void set_f(CTX *c, F f) { c->nzcv = f.n; }
static ALWAYS_INLINE V v_cond(CTX *c, unsigned cc, F f) { (void)c; return (V){flags_cond(cc, f.n)}; }
static ALWAYS_INLINE F f_add(CTX *c, bool sf, V a, V b) { (void)c; return (F){flags_add(sf, a.n, b.n)}; }
static ALWAYS_INLINE F f_sub(CTX *c, bool sf, V a, V b) { (void)c; return (F){flags_sub(sf, a.n, b.n)}; }
static ALWAYS_INLINE F f_adc(CTX *c, bool sf, V a, V b, F f)
{
    (void)c;
    return (F){flags_adc(sf, a.n, b.n, flags_carry(f.n))};
}
static ALWAYS_INLINE F f_sbc(CTX *c, bool sf, V a, V b, F f)
{
    (void)c;
    return (F){flags_adc(sf, a.n, ~b.n, flags_carry(f.n))};
}
static ALWAYS_INLINE F f_logic(CTX *c, bool sf, V r) { (void)c; return (F){flags_logic(sf, r.n)}; }
static ALWAYS_INLINE F f_const(CTX *c, uint32_t nzcv) { (void)c; return (F){nzcv}; }
static ALWAYS_INLINE F f_select(CTX *c, V q, F a, F b) { (void)c; return q.n ? a : b; }
static ALWAYS_INLINE V v_of_f(CTX *c, F f) { (void)c; return (V){f.n}; }
static ALWAYS_INLINE F f_of_v(CTX *c, V v) { (void)c; return (F){(uint32_t)v.n & 0xf0000000}; }

/* vectors */

static ALWAYS_INLINE W get_w(CTX *c, unsigned n) { return (W){c->v[n]}; }
static ALWAYS_INLINE void set_w(CTX *c, unsigned n, W w) { c->v[n] = w.r; }
static ALWAYS_INLINE UNUSED W w_const(CTX *c, uint64_t lo, uint64_t hi)
{
    (void)c;
    return (W){{.d = {lo, hi}}};
}
static ALWAYS_INLINE UNUSED W w_zero(CTX *c) { return w_const(c, 0, 0); }
static ALWAYS_INLINE UNUSED W w_of_v(CTX *c, V lo) { return w_const(c, lo.n, 0); }
static ALWAYS_INLINE UNUSED W w_of_vv(CTX *c, V lo, V hi) { return w_const(c, lo.n, hi.n); }
static ALWAYS_INLINE UNUSED V v_lane(CTX *c, unsigned es, W w, unsigned idx)
{
    (void)c;
    return (V){lane_get(es, &w.r, idx)};
}
static ALWAYS_INLINE UNUSED V v_lane_s(CTX *c, unsigned es, W w, unsigned idx)
{
    (void)c;
    return (V){(uint64_t)bits_sext(lane_get(es, &w.r, idx), 8u << es)};
}
static ALWAYS_INLINE UNUSED W w_insert(CTX *c, unsigned es, W w, unsigned idx, V v)
{
    (void)c;
    lane_set(es, &w.r, idx, v.n);
    return w;
}
static ALWAYS_INLINE UNUSED W w_dup(CTX *c, unsigned shape, V v)
{
    W w;

    (void)c;
    lanes_dup(shape, &w.r, v.n);
    return w;
}
static ALWAYS_INLINE UNUSED W w_dup_lane(CTX *c, unsigned shape, W w, unsigned idx)
{
    return w_dup(c, shape, v_lane(c, shape_es(shape), w, idx));
}

#define VEC_CALL(name, b, d, imm)                                                                           \
    W r;                                                                                                    \
    vec_##name(c, shape, &r.r, &a.r, b, d, imm);                                                            \
    return r
#define WOP1(name, effects)                                                                                 \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a) { VEC_CALL(name, NULL, NULL, 0); }
#define WOP2(name, effects)                                                                                 \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a, W b) { VEC_CALL(name, &b.r, NULL, 0); }
#define WOP3(name, effects)                                                                                 \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a, W b, W d) { VEC_CALL(name, &b.r, &d.r, 0); }
#define WOPI1(name, effects)                                                                                \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a, unsigned imm) { VEC_CALL(name, NULL, NULL, imm); }
#define WOPI2(name, effects)                                                 \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a, W b, unsigned imm) \
    {                                                                        \
        VEC_CALL(name, &b.r, NULL, imm);                                     \
    }
#define WOPI3(name, effects)                                                      \
    static UNUSED W w_##name(CTX *c, unsigned shape, W a, W b, W d, unsigned imm) \
    {                                                                             \
        VEC_CALL(name, &b.r, &d.r, imm);                                          \
    }
#include "isa/wops.def"
#undef WOP1
#undef WOP2
#undef WOP3
#undef WOPI1
#undef WOPI2
#undef WOPI3

static UNUSED F f_fcmp(CTX *c, unsigned es, W a, W b, bool signalling)
{
    return (F){fp_compare(&c->fp, es, a.r.d[0], b.r.d[0], signalling)};
}

/* memory */

static ALWAYS_INLINE bool load(CTX *c, unsigned mop, V addr, V *out)
{
    return prim_load(c, mop, addr.n, &out->n);
}
static ALWAYS_INLINE bool store(CTX *c, unsigned mop, V addr, V v) { return prim_store(c, mop, addr.n, v.n); }
static ALWAYS_INLINE bool load_pair(CTX *c, unsigned mop, V addr, V *a, V *b)
{
    return prim_load_pair(c, mop, addr.n, &a->n, &b->n);
}
static ALWAYS_INLINE bool store_pair(CTX *c, unsigned mop, V addr, V a, V b)
{
    return prim_store_pair(c, mop, addr.n, a.n, b.n);
}
static UNUSED bool load_w(CTX *c, unsigned mop, V addr, W *out)
{
    return prim_load_w(c, mop, addr.n, &out->r);
}
static UNUSED bool store_w(CTX *c, unsigned mop, V addr, W w) { return prim_store_w(c, mop, addr.n, &w.r); }
static UNUSED bool load_pair_w(CTX *c, unsigned mop, V addr, W *a, W *b)
{
    return prim_load_pair_w(c, mop, addr.n, &a->r, &b->r);
}
static UNUSED bool store_pair_w(CTX *c, unsigned mop, V addr, W a, W b)
{
    return prim_store_pair_w(c, mop, addr.n, &a.r, &b.r);
}
static bool load_ex(CTX *c, unsigned mop, V addr, V *out) { return prim_load_ex(c, mop, addr.n, &out->n); }
static bool store_ex(CTX *c, unsigned mop, V addr, V v, V *status)
{
    return prim_store_ex(c, mop, addr.n, v.n, &status->n);
}
static bool load_ex_pair(CTX *c, unsigned mop, V addr, V *a, V *b)
{
    return prim_load_ex_pair(c, mop, addr.n, &a->n, &b->n);
}
static bool store_ex_pair(CTX *c, unsigned mop, V addr, V a, V b, V *status)
{
    return prim_store_ex_pair(c, mop, addr.n, a.n, b.n, &status->n);
}
static void clear_ex(CTX *c) { prim_clear_ex(c); }
static bool atomic_rmw(CTX *c, enum rmw op, unsigned mop, V addr, V operand, V *old)
{
    return prim_atomic_rmw(c, op, mop, addr.n, operand.n, &old->n);
}
static bool atomic_cas(CTX *c, unsigned mop, V addr, V expect, V desired, V *old)
{
    return prim_atomic_cas(c, mop, addr.n, expect.n, desired.n, &old->n);
}
static bool atomic_casp(CTX *c, unsigned mop, V addr, V elo, V ehi, V dlo, V dhi, V *olo, V *ohi)
{
    const uint64_t expect[2] = {elo.n, ehi.n}, desired[2] = {dlo.n, dhi.n};
    uint64_t old[2];

    if (!prim_atomic_casp(c, mop, addr.n, expect, desired, old))
        return false;
    olo->n = old[0];
    ohi->n = old[1];
    return true;
}
static ALWAYS_INLINE bool sp_check(CTX *c) { return prim_sp_check(c); }
static void barrier(CTX *c, enum barrier kind) { prim_barrier(c, kind); }

/* control */

static ALWAYS_INLINE void branch(CTX *c, V target, enum branch_kind kind)
{
    (void)kind;
    c->next_pc = prim_branch_addr(c, target.n);
}
static ALWAYS_INLINE void branch_rel(CTX *c, int64_t off, enum branch_kind kind)
{
    (void)kind;
    c->next_pc = prim_branch_addr(c, c->pc + (uint64_t)off);
}
static ALWAYS_INLINE void branch_if(CTX *c, V cond, int64_t off)
{
    if (cond.n)
        c->next_pc = prim_branch_addr(c, c->pc + (uint64_t)off);
}
static ALWAYS_INLINE void end_block(CTX *c) { c->leave |= LEAVE_END; }
static void undefined(CTX *c) { prim_undefined(c); }
static void exception(CTX *c, enum exc_class ec, uint32_t iss, bool next)
{
    prim_exception(c, ec, iss, next);
}
static ALWAYS_INLINE unsigned mode_el(CTX *c) { return c->el; }
static ALWAYS_INLINE UNUSED bool mode_has(CTX *c, enum a64_feature feature) { return cpu_has(c, feature); }
static ALWAYS_INLINE bool fp_check(CTX *c) { return likely(c->fp_enabled) || prim_fp_trap(c); }

/* helpers */

#define HELPER0(name, e)                                                                                    \
    static UNUSED V h_##name(CTX *c) { return (V){helper_##name(c)}; }
#define HELPER1(name, e)                                                                                    \
    static UNUSED V h_##name(CTX *c, V a) { return (V){helper_##name(c, a.n)}; }
#define HELPER2(name, e)                                                                                    \
    static UNUSED V h_##name(CTX *c, V a, V b) { return (V){helper_##name(c, a.n, b.n)}; }
#define HELPER3(name, e)                                                                                    \
    static UNUSED V h_##name(CTX *c, V a, V b, V d) { return (V){helper_##name(c, a.n, b.n, d.n)}; }
#define HELPER4(name, e)                                                                                    \
    static UNUSED V h_##name(CTX *c, V a, V b, V d, V g) { return (V){helper_##name(c, a.n, b.n, d.n, g.n)}; }
#define HELPERF0(name, e)                                                                                   \
    static UNUSED bool h_##name(CTX *c, V *out) { return prim_done(c, helper_##name(c, &out->n)); }
#define HELPERF1(name, e)                                                                                   \
    static UNUSED bool h_##name(CTX *c, V a, V *out) { return prim_done(c, helper_##name(c, a.n, &out->n)); }
#define HELPERF2(name, e)                                                                                   \
    static UNUSED bool h_##name(CTX *c, V a, V b, V *out)                                                   \
    {                                                                                                       \
        return prim_done(c, helper_##name(c, a.n, b.n, &out->n));                                           \
    }
#define HELPERF3(name, e)                                                                                   \
    static UNUSED bool h_##name(CTX *c, V a, V b, V d, V *out)                                              \
    {                                                                                                       \
        return prim_done(c, helper_##name(c, a.n, b.n, d.n, &out->n));                                      \
    }
#define HELPERF4(name, e)                                                                                   \
    static UNUSED bool h_##name(CTX *c, V a, V b, V d, V g, V *out)                                         \
    {                                                                                                       \
        return prim_done(c, helper_##name(c, a.n, b.n, d.n, g.n, &out->n));                                 \
    }
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

#include "cpu/sem.c.inc"

/* decoded pages */

enum {
    SLOTS = MEM_PAGE_SIZE / 4,
    SETS = 256, /* by page number; 4 ways: at most 1024 pages or 32 MiB a vCPU, allocated as the guest needs
                   them */
    WAYS = 4,
    FIELD_BYTES = 24,
};

struct slot {
    sem_fn *run;
    uint8_t fields[FIELD_BYTES] __attribute__((aligned(8)));
};
_Static_assert(sizeof(((struct a64_insn *)NULL)->u) <= FIELD_BYTES, "isagen keeps the fields this small");

/* What the slots are of; beside them, so that finding them touches one cache line. */
struct code_page {
    uint64_t pa;
    const uint8_t *hva;
    struct slot *slots; /* NULL: never used */
    uint32_t generation;
};

struct decode_cache {
    struct code_page page[SETS][WAYS];
    uint8_t victim[SETS];
    const uint8_t *hva; /* of the page that runs now, for run_new() */
};

static void run_undefined(CTX *c, const void *fields)
{
    (void)fields;
    undefined(c);
}

static sem_fn *decode_body(const struct cpu *cpu, uint32_t word, struct a64_insn *insn)
{
    if (a64_decode(word, insn) && a64_available(insn->op, cpu->features) && sem_table[insn->op])
        return sem_table[insn->op];
    return run_undefined;
}

static void fill_slot(const struct cpu *cpu, struct slot *slot, uint32_t word)
{
    struct a64_insn insn;

    slot->run = decode_body(cpu, word, &insn);
    memcpy(slot->fields, &insn.u, sizeof insn.u);
}

/* In a slot that nobody has reached yet. */
static void run_new(CTX *c, const void *fields)
{
    struct slot *slot = (struct slot *)((uintptr_t)fields - offsetof(struct slot, fields));
    uint32_t word;

    memcpy(&word, c->decoded->hva + (c->pc & (MEM_PAGE_SIZE - 4)), sizeof word);
    fill_slot(c, slot, word);
    slot->run(c, slot->fields);
}

static void reset_page(struct code_page *page, uint64_t pa, const uint8_t *hva, uint32_t generation)
{
    page->pa = pa;
    page->hva = hva;
    page->generation = generation;
    for (unsigned i = 0; i < SLOTS; i++)
        page->slots[i].run = run_new;
}

/* A place for a page that has none: an unused way, or another's. */
static COLD struct code_page *new_page(struct decode_cache *dc, unsigned set)
{
    struct code_page *page = dc->page[set];
    unsigned way = 0;

    while (way < WAYS && page[way].slots)
        way++;
    if (way == WAYS)
        way = dc->victim[set]++ % WAYS;
    else
        page[way].slots = g_aligned_alloc(SLOTS, sizeof *page->slots, 64);
    return &page[way];
}

/* The slots of the page at pa, which is the current instruction's. */
static struct slot *page_slots(struct cpu *cpu, uint64_t pa, const uint8_t *hva)
{
    struct decode_cache *dc = cpu->decoded;
    unsigned set = pa >> MEM_PAGE_SHIFT & (SETS - 1), way = 0;
    uint32_t generation = mem_code_generation(cpu->mem, pa);
    struct code_page *page;

    while (way < WAYS && !(dc->page[set][way].pa == pa && dc->page[set][way].slots))
        way++;
    page = likely(way < WAYS) ? &dc->page[set][way] : new_page(dc, set);
    if (unlikely(way == WAYS || page->generation != generation || page->hva != hva))
        reset_page(page, pa, hva, generation);
    dc->hva = hva;
    return page->slots;
}

/* running */

enum { PEND_LEAVE = PEND_TIMER | PEND_TLB | PEND_PAUSE | PEND_STOP | PEND_DEBUG };

/* Is there something in pending that must be looked at now? */
static ALWAYS_INLINE bool interrupted(const struct cpu *cpu)
{
    unsigned pending = atomic_load_explicit(&cpu->pending, memory_order_relaxed);

    if (likely(!(pending & ~(unsigned)PEND_EVENT)))
        return false;
    return (pending & PEND_LEAVE) || ((pending & PEND_IRQ) && !(cpu->daif & DAIF_I)) ||
           ((pending & PEND_FIQ) && !(cpu->daif & DAIF_F)) ||
           ((pending & PEND_SERROR) && !(cpu->daif & DAIF_A));
}

/* From cpu->pc until the page, the straight line or the peace ends. */
static void run_page(struct cpu *cpu, const struct slot *slots)
{
    uint64_t pc = cpu->pc, page_va = pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);

    cpu->leave = 0;
    do {
        const struct slot *slot = &slots[pc >> 2 & (SLOTS - 1)];

        cpu->pc = pc;
        pc += 4; /* and not from memory: that would chain the instructions to each other */
        cpu->next_pc = pc;
        slot->run(cpu, slot->fields);
        cpu->icount++;
        if (cpu->next_pc != pc) {
            pc = cpu->next_pc;
            if (unlikely(interrupted(cpu)))
                break;
        }
        if (unlikely(cpu->leave))
            break;
    } while ((pc & ~(uint64_t)(MEM_PAGE_SIZE - 4)) == page_va); /* neither another page nor misaligned */
    cpu->pc = pc;
    if (cpu->leave & LEAVE_FAULT)
        cpu->icount--; /* not retired */
}

/* False: pc cannot be fetched from, and the exception is taken. */
static ALWAYS_INLINE bool fetch(struct cpu *cpu, struct slot **slots)
{
    const uint8_t *hva;
    uint64_t pa;

    if (unlikely(!prim_fetch(cpu, &hva, &pa))) {
        cpu->pc = cpu->next_pc;
        return false;
    }
    *slots = page_slots(cpu, pa, hva);
    return true;
}

static void run_one(struct cpu *cpu, const struct slot *slot)
{
    cpu->leave = 0;
    cpu->next_pc = cpu->pc + 4;
    slot->run(cpu, slot->fields);
    if (!(cpu->leave & LEAVE_FAULT))
        cpu->icount++;
    cpu->pc = cpu->next_pc;
}

/* One instruction with all the checks that run_page() is spared of. */
static void step_checked(struct cpu *cpu)
{
    struct slot *slots;
    bool stepping = cpu->debug_slow || cpu->debug_breaks;

    if (stepping && !debug_check_fetch(cpu)) {
        if (!debug_stopped(cpu))
            cpu->pc = cpu->next_pc;
        return;
    }
    if (!fetch(cpu, &slots))
        return;
    if (cpu->il) { /* D1.4.4: after the fetch's own faults, before anything else of the instruction */
        cpu_take_sync(cpu, EC_ILLEGAL, 0, cpu->pc, 0);
        cpu->pc = cpu->next_pc;
        return;
    }
    if (stepping && unlikely(show_blocks_wanted()))
        show_block(cpu);
    run_one(cpu, &slots[cpu->pc >> 2 & (SLOTS - 1)]);
    if (stepping && !(cpu->leave & LEAVE_FAULT))
        debug_step_done(cpu);
}

static void make_cache(struct cpu *cpu)
{
    if (!cpu->decoded)
        cpu->decoded = g_new0(struct decode_cache, 1);
}

static void interp_run_some(struct cpu *cpu, uint64_t max)
{
    uint64_t until = cpu->icount + max;

    make_cache(cpu);
    do
        step_checked(cpu);
    while (cpu->icount < until && !(atomic_load_explicit(&cpu->pending, memory_order_relaxed) & PEND_LEAVE));
}

void interp_step(struct cpu *cpu)
{
    make_cache(cpu);
    step_checked(cpu);
}

/* A straight line, shown before it runs. */
static void run_shown(struct cpu *cpu, const struct slot *slots)
{
    uint64_t next;

    show_block(cpu);
    do {
        next = cpu->pc + 4;
        run_one(cpu, &slots[cpu->pc >> 2 & (SLOTS - 1)]);
    } while (!cpu->leave && cpu->pc == next && next & (MEM_PAGE_SIZE - 1));
}

static void run_quiet(struct cpu *cpu)
{
    struct slot *slots;

    if (!fetch(cpu, &slots))
        return;
    if (unlikely(show_blocks_wanted()))
        run_shown(cpu, slots);
    else
        run_page(cpu, slots);
}

void interp_run_checked(struct cpu *cpu)
{
    make_cache(cpu);
    if (cpu->il || cpu->debug_slow || debug_break_in_page(cpu, cpu->pc))
        step_checked(cpu);
    else
        run_quiet(cpu);
}

bool interp_exec_word(struct cpu *cpu, uint32_t word)
{
    struct slot slot;

    fill_slot(cpu, &slot, word);
    run_one(cpu, &slot);
    return !(cpu->leave & LEAVE_FAULT);
}

/* LDXR, STXR and the like (C4.1.66): an engine with exclusives of its own must see both. */
static bool is_exclusive(uint32_t word)
{
    return (word & 0x3f800000) == 0x08000000;
}

unsigned interp_run_line(struct cpu *cpu, const uint8_t *hva, unsigned max)
{
    uint64_t pc = cpu->pc, page_va = pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    uint64_t before = cpu->icount;
    struct a64_insn insn;

    cpu->leave = 0;
    do {
        uint32_t word;

        memcpy(&word, hva + (pc & (MEM_PAGE_SIZE - 4)), sizeof word);
        if (is_exclusive(word))
            break;
        sem_fn *run = decode_body(cpu, word, &insn); /* and not by a slot: copying fields just written makes the host wait */
        cpu->pc = pc;
        pc += 4;
        cpu->next_pc = pc;
        run(cpu, &insn.u);
        cpu->icount++;
        if (cpu->next_pc != pc) {
            pc = cpu->next_pc;
            break;
        }
    } while (!cpu->leave && (pc & ~(uint64_t)(MEM_PAGE_SIZE - 4)) == page_va && --max);
    cpu->pc = pc;
    if (cpu->leave & LEAVE_FAULT)
        cpu->icount--; /* not retired */
    return (unsigned)(cpu->icount - before);
}

void interp_free(struct cpu *cpu)
{
    struct decode_cache *dc = cpu->decoded;

    if (!dc)
        return;
    for (unsigned set = 0; set < SETS; set++)
        for (unsigned way = 0; way < WAYS; way++)
            g_aligned_free(dc->page[set][way].slots);
    g_free(dc);
    cpu->decoded = NULL;
}

static void interp_run(struct cpu *cpu)
{
    for (;;) {
        if (unlikely(interrupted(cpu))) {
            if (atomic_load_explicit(&cpu->pending, memory_order_relaxed) & PEND_LEAVE)
                return;
            cpu_take_interrupt(cpu);
        }
        if (unlikely(cpu->debug_slow || cpu->debug_breaks || cpu->il)) {
            interp_run_checked(cpu);
            if (debug_stopped(cpu))
                return;
        } else {
            run_quiet(cpu);
        }
    }
}

/* Nothing is kept by virtual address. */
static void interp_flush(struct cpu *cpu)
{
    (void)cpu;
}

const struct cpu_engine interp_engine = {
    .name = "interp",
    .init = make_cache,
    .fini = interp_free,
    .run = interp_run,
    .flush = interp_flush,
    .run_some = interp_run_some,
};
