/*
 * Litmus tests of the memory model (DDI0487 B2.3) as the init of a guest with several CPUs: outcomes that the
 * architecture forbids must never be seen; for the others it is counted how often they are.  And counters, locks and a
 * stack under contention, with exclusives and with LSE atomics.
 *
 * The argument is the number of rounds (default 20000).  Each round has variables of its own; the threads of a test walk
 * through a batch of rounds side by side.
 */
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/reboot.h>
#include <unistd.h>

enum { BATCH = 500, MAX_THREADS = 4, HWCAP_LSE = 1 << 8, HWCAP_RCPC = 1 << 15 };

struct round {
    uint32_t x __attribute__((aligned(64)));
    uint32_t y __attribute__((aligned(64)));
    uint32_t r[4] __attribute__((aligned(64)));
};

static struct round rounds[BATCH];
static unsigned long n_rounds = 20000;

/* --- accesses: exactly these instructions ------------------------------------------------------------------- */

static inline uint32_t ld(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ldr %w0, [%1]" : "=r"(v) : "r"(p) : "memory");
    return v;
}

static inline uint32_t ldar(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ldar %w0, [%1]" : "=r"(v) : "r"(p) : "memory");
    return v;
}

static inline uint32_t ldapr(const uint32_t *p)
{
    uint32_t v;
    asm volatile(".arch_extension rcpc\n ldapr %w0, [%1]" : "=r"(v) : "r"(p) : "memory");
    return v;
}

/* A load whose address depends on `on'. */
static inline uint32_t ld_dep(const uint32_t *p, uint32_t on)
{
    uint32_t v;
    asm volatile("eor %w0, %w2, %w2\n ldr %w0, [%1, %w0, uxtw]" : "=&r"(v) : "r"(p), "r"(on) : "memory");
    return v;
}

static inline void st(uint32_t *p, uint32_t v)
{
    asm volatile("str %w0, [%1]" : : "r"(v), "r"(p) : "memory");
}

static inline void stlr(uint32_t *p, uint32_t v)
{
    asm volatile("stlr %w0, [%1]" : : "r"(v), "r"(p) : "memory");
}

/* A store of 1 whose data depend on `on'. */
static inline void st_dep(uint32_t *p, uint32_t on)
{
    uint32_t v;
    asm volatile("eor %w0, %w2, %w2\n add %w0, %w0, #1\n str %w0, [%1]" : "=&r"(v) : "r"(p), "r"(on) : "memory");
}

#define DMB(kind) asm volatile("dmb " #kind : : : "memory")

/* --- the threads ---------------------------------------------------------------------------------------------- */

static void wx_wy(struct round *r) { st(&r->x, 1); st(&r->y, 1); }
static void wx_dmb_wy(struct round *r) { st(&r->x, 1); DMB(ish); st(&r->y, 1); }
static void wx_dmbst_wy(struct round *r) { st(&r->x, 1); DMB(ishst); st(&r->y, 1); }
static void wx_wly(struct round *r) { st(&r->x, 1); stlr(&r->y, 1); }
static void ry_rx(struct round *r) { r->r[0] = ld(&r->y); r->r[1] = ld(&r->x); }
static void ry_dmb_rx(struct round *r) { r->r[0] = ld(&r->y); DMB(ish); r->r[1] = ld(&r->x); }
static void ry_dmbld_rx(struct round *r) { r->r[0] = ld(&r->y); DMB(ishld); r->r[1] = ld(&r->x); }
static void ray_rx(struct round *r) { r->r[0] = ldar(&r->y); r->r[1] = ld(&r->x); }
static void rqy_rx(struct round *r) { r->r[0] = ldapr(&r->y); r->r[1] = ld(&r->x); }
static void ry_addr_rx(struct round *r) { uint32_t v = ld(&r->y); r->r[1] = ld_dep(&r->x, v); r->r[0] = v; }

static void wx_ry(struct round *r) { st(&r->x, 1); r->r[0] = ld(&r->y); }
static void wy_rx(struct round *r) { st(&r->y, 1); r->r[1] = ld(&r->x); }
static void wx_dmb_ry(struct round *r) { st(&r->x, 1); DMB(ish); r->r[0] = ld(&r->y); }
static void wy_dmb_rx(struct round *r) { st(&r->y, 1); DMB(ish); r->r[1] = ld(&r->x); }
static void wlx_ray(struct round *r) { stlr(&r->x, 1); r->r[0] = ldar(&r->y); }
static void wly_rax(struct round *r) { stlr(&r->y, 1); r->r[1] = ldar(&r->x); }

static void rx_wy(struct round *r) { uint32_t v = ld(&r->x); st(&r->y, 1); r->r[0] = v; }
static void ry_wx(struct round *r) { uint32_t v = ld(&r->y); st(&r->x, 1); r->r[1] = v; }
static void rx_dmb_wy(struct round *r) { uint32_t v = ld(&r->x); DMB(ish); st(&r->y, 1); r->r[0] = v; }
static void ry_dmb_wx(struct round *r) { uint32_t v = ld(&r->y); DMB(ish); st(&r->x, 1); r->r[1] = v; }
static void rx_data_wy(struct round *r) { uint32_t v = ld(&r->x); st_dep(&r->y, v); r->r[0] = v; }
static void ry_data_wx(struct round *r) { uint32_t v = ld(&r->y); st_dep(&r->x, v); r->r[1] = v; }
static void rax_wy(struct round *r) { uint32_t v = ldar(&r->x); st(&r->y, 1); r->r[0] = v; }
static void rx_wly(struct round *r) { uint32_t v = ld(&r->x); stlr(&r->y, 1); r->r[0] = v; }
static void ry_wlx(struct round *r) { uint32_t v = ld(&r->y); stlr(&r->x, 1); r->r[1] = v; }

static void wx(struct round *r) { st(&r->x, 1); }
static void wy(struct round *r) { st(&r->y, 1); }
static void wx12(struct round *r) { st(&r->x, 1); st(&r->x, 2); }
static void rx_rx(struct round *r) { r->r[0] = ld(&r->x); r->r[1] = ld(&r->x); }
/* WRC: if x was seen, y is written. */
static void wrc_plain(struct round *r) { uint32_t v = ld(&r->x); st(&r->y, v); r->r[2] = v; }
static void wrc_dmb(struct round *r) { uint32_t v = ld(&r->x); DMB(ish); st(&r->y, v); r->r[2] = v; }
static void wrc_rel(struct round *r) { uint32_t v = ld(&r->x); stlr(&r->y, v); r->r[2] = v; }
static void rx_ry23(struct round *r) { r->r[2] = ld(&r->x); r->r[3] = ld(&r->y); }
static void rx_dmb_ry23(struct round *r) { r->r[2] = ld(&r->x); DMB(ish); r->r[3] = ld(&r->y); }
static void rx_addr_ry23(struct round *r) { uint32_t v = ld(&r->x); r->r[3] = ld_dep(&r->y, v); r->r[2] = v; }
static void rax_ray23(struct round *r) { r->r[2] = ldar(&r->x); r->r[3] = ldar(&r->y); }
static void ray_rax(struct round *r) { r->r[0] = ldar(&r->y); r->r[1] = ldar(&r->x); }

static int is_mp(const uint32_t *r) { return r[0] == 1 && r[1] == 0; }
static int is_sb(const uint32_t *r) { return r[0] == 0 && r[1] == 0; }
static int is_lb(const uint32_t *r) { return r[0] == 1 && r[1] == 1; }
static int is_wrc(const uint32_t *r) { return r[2] == 1 && r[0] == 1 && r[1] == 0; }
static int is_iriw(const uint32_t *r) { return r[0] == 1 && r[1] == 0 && r[2] == 1 && r[3] == 0; }
static int is_corr(const uint32_t *r) { return r[0] > r[1]; }

struct litmus {
    const char *name;
    int allowed; /* the outcome is legal: only counted */
    int (*outcome)(const uint32_t *r);
    void (*thread[MAX_THREADS])(struct round *r);
    unsigned long needs; /* HWCAP bit */
};

static const struct litmus tests[] = {
    { "MP", 1, is_mp, { wx_wy, ry_rx }, 0 },
    { "MP+dmb+dmb", 0, is_mp, { wx_dmb_wy, ry_dmb_rx }, 0 },
    { "MP+dmb.st+dmb.ld", 0, is_mp, { wx_dmbst_wy, ry_dmbld_rx }, 0 },
    { "MP+dmb+addr", 0, is_mp, { wx_dmb_wy, ry_addr_rx }, 0 },
    { "MP+rel+acq", 0, is_mp, { wx_wly, ray_rx }, 0 },
    { "MP+rel+acqpc", 0, is_mp, { wx_wly, rqy_rx }, HWCAP_RCPC },
    { "SB", 1, is_sb, { wx_ry, wy_rx }, 0 },
    { "SB+dmb+dmb", 0, is_sb, { wx_dmb_ry, wy_dmb_rx }, 0 },
    { "SB+rel-acq+rel-acq", 0, is_sb, { wlx_ray, wly_rax }, 0 },
    { "LB", 1, is_lb, { rx_wy, ry_wx }, 0 },
    { "LB+dmb+dmb", 0, is_lb, { rx_dmb_wy, ry_dmb_wx }, 0 },
    { "LB+data+data", 0, is_lb, { rx_data_wy, ry_data_wx }, 0 },
    { "LB+acq+data", 0, is_lb, { rax_wy, ry_data_wx }, 0 },
    { "LB+rel+rel", 0, is_lb, { rx_wly, ry_wlx }, 0 },
    { "CoRR", 0, is_corr, { wx12, rx_rx }, 0 },
    { "WRC", 1, is_wrc, { wx, wrc_plain, ry_rx }, 0 },
    { "WRC+dmb+addr", 0, is_wrc, { wx, wrc_dmb, ry_addr_rx }, 0 },
    { "WRC+dmb+dmb", 0, is_wrc, { wx, wrc_dmb, ry_dmb_rx }, 0 },
    { "WRC+rel+acq", 0, is_wrc, { wx, wrc_rel, ray_rx }, 0 },
    { "IRIW", 1, is_iriw, { wx, wy, ry_rx, rx_ry23 }, 0 },
    { "IRIW+dmb+dmb", 0, is_iriw, { wx, wy, ry_dmb_rx, rx_dmb_ry23 }, 0 },
    { "IRIW+addr+addr", 0, is_iriw, { wx, wy, ry_addr_rx, rx_addr_ry23 }, 0 },
    { "IRIW+acq+acq", 0, is_iriw, { wx, wy, ray_rax, rax_ray23 }, 0 },
};

/* --- running them ------------------------------------------------------------------------------------------------ */

static pthread_barrier_t barrier;
static unsigned started;
static const struct litmus *current;
static unsigned current_threads;

/* Out of the barrier the threads wake one after the other: wait here, awake, so that they run side by side. */
static void line_up(unsigned target)
{
    __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
    for (unsigned spins = 1; __atomic_load_n(&started, __ATOMIC_SEQ_CST) < target; spins++)
        if (spins % 2000 == 0)
            sched_yield();
}

static void *litmus_thread(void *arg)
{
    unsigned self = (unsigned)(uintptr_t)arg, target = 0;

    for (unsigned long done = 0; done < n_rounds; done += BATCH) {
        pthread_barrier_wait(&barrier);
        line_up(target += current_threads);
        for (unsigned i = 0; i < BATCH; i++)
            current->thread[self](&rounds[i]);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static unsigned long run_litmus(const struct litmus *t)
{
    pthread_t thread[MAX_THREADS];
    unsigned long seen = 0;

    current = t;
    for (current_threads = 0; current_threads < MAX_THREADS && t->thread[current_threads];)
        current_threads++;
    started = 0;
    pthread_barrier_init(&barrier, NULL, current_threads + 1);
    for (unsigned i = 0; i < current_threads; i++)
        if (pthread_create(&thread[i], NULL, litmus_thread, (void *)(uintptr_t)i))
            abort();
    for (unsigned long done = 0; done < n_rounds; done += BATCH) {
        memset(rounds, 0, sizeof rounds);
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
        for (unsigned i = 0; i < BATCH; i++)
            seen += (unsigned long)t->outcome(rounds[i].r);
    }
    for (unsigned i = 0; i < current_threads; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_destroy(&barrier);
    return seen;
}

/* --- contention ---------------------------------------------------------------------------------------------------- */

static struct {
    uint64_t n __attribute__((aligned(64)));
    uint64_t pair[2] __attribute__((aligned(16)));
    uint32_t lock __attribute__((aligned(64)));
    uint64_t guarded __attribute__((aligned(64)));
} shared;

static void add_llsc(void)
{
    uint64_t v;
    uint32_t fail;

    asm volatile("1: ldxr %0, [%2]\n add %0, %0, #1\n stxr %w1, %0, [%2]\n cbnz %w1, 1b"
                 : "=&r"(v), "=&r"(fail) : "r"(&shared.n) : "memory");
}

static void add_llsc_pair(void)
{
    uint64_t a, b;
    uint32_t fail;

    asm volatile("1: ldaxp %0, %1, [%3]\n add %0, %0, #1\n sub %1, %1, #1\n stlxp %w2, %0, %1, [%3]\n cbnz %w2, 1b"
                 : "=&r"(a), "=&r"(b), "=&r"(fail) : "r"(shared.pair) : "memory");
}

static void lock_llsc(void)
{
    uint32_t v, fail;

    asm volatile("1: ldaxr %w0, [%2]\n cbnz %w0, 1b\n stxr %w1, %w3, [%2]\n cbnz %w1, 1b"
                 : "=&r"(v), "=&r"(fail) : "r"(&shared.lock), "r"(1) : "memory");
    shared.guarded++;
    stlr(&shared.lock, 0);
}

static void add_lse(void)
{
    asm volatile(".arch_extension lse\n ldadd %0, xzr, [%1]" : : "r"(1ull), "r"(&shared.n) : "memory");
}

static void add_cas(void)
{
    uint64_t old = ld((const uint32_t *)&shared.n), seen;

    do {
        seen = old;
        asm volatile(".arch_extension lse\n cas %0, %1, [%2]" : "+r"(seen) : "r"(old + 1), "r"(&shared.n) : "memory");
        if (seen == old)
            return;
        old = seen;
    } while (1);
}

static void add_casp(void)
{
    register uint64_t a asm("x0"), b asm("x1"), c asm("x2"), d asm("x3");
    uint64_t was0 = 0, was1 = 0;

    do {
        a = was0, b = was1, c = was0 + 1, d = was1 - 1;
        asm volatile(".arch_extension lse\n caspal x0, x1, x2, x3, [%4]"
                     : "+r"(a), "+r"(b) : "r"(c), "r"(d), "r"(shared.pair) : "memory");
        if (a == was0 && b == was1)
            return;
        was0 = a, was1 = b;
    } while (1);
}

static void lock_swp(void)
{
    uint32_t was;

    do
        asm volatile(".arch_extension lse\n swpa %w1, %w0, [%2]" : "=r"(was) : "r"(1), "r"(&shared.lock) : "memory");
    while (was);
    shared.guarded++;
    stlr(&shared.lock, 0);
}

/* A stack linked by indices, popped and pushed with exclusives alone: a store that succeeds although the head changed
 * and changed back between (the ABA case) loses or doubles an element. */
enum { ELEMENTS = 8 };
static struct { uint32_t head __attribute__((aligned(64))), next[ELEMENTS + 1], owned[ELEMENTS + 1]; } stack;
static unsigned stack_errors;

static void stack_push(uint32_t e)
{
    uint32_t head, fail;

    asm volatile("1: ldxr %w0, [%2]\n str %w0, [%4]\n stlxr %w1, %w3, [%2]\n cbnz %w1, 1b"
                 : "=&r"(head), "=&r"(fail) : "r"(&stack.head), "r"(e), "r"(&stack.next[e]) : "memory");
}

static uint32_t stack_pop(void)
{
    uint32_t head, next, fail;

    asm volatile("1: ldaxr %w0, [%3]\n cbz %w0, 2f\n ldr %w1, [%4, %w0, uxtw #2]\n stxr %w2, %w1, [%3]\n cbnz %w2, 1b\n2:"
                 : "=&r"(head), "=&r"(next), "=&r"(fail) : "r"(&stack.head), "r"(stack.next) : "memory");
    return head;
}

static void pop_push(void)
{
    uint32_t a = stack_pop(), b = stack_pop();

    for (unsigned i = 0; i < 2; i++) {
        uint32_t e = i ? a : b;
        if (e && __atomic_exchange_n(&stack.owned[e], 1, __ATOMIC_SEQ_CST))
            __atomic_add_fetch(&stack_errors, 1, __ATOMIC_SEQ_CST);
    }
    /* in the order of popping: the old head returns on top of another second element */
    for (unsigned i = 0; i < 2; i++) {
        uint32_t e = i ? b : a;
        if (e) {
            __atomic_store_n(&stack.owned[e], 0, __ATOMIC_SEQ_CST);
            stack_push(e);
        }
    }
    __atomic_add_fetch(&shared.n, 1, __ATOMIC_RELAXED);
}

static void stack_fill(void)
{
    memset(&stack, 0, sizeof stack);
    stack_errors = 0;
    for (uint32_t e = 1; e <= ELEMENTS; e++)
        stack_push(e);
}

static int stack_is_whole(void)
{
    unsigned mask = 0, e, n = 0;

    while (n++ <= ELEMENTS && (e = stack_pop()) != 0)
        mask |= 1u << e;
    return !stack_errors && mask == ((2u << ELEMENTS) - 2) && n == ELEMENTS + 1;
}

struct contention {
    const char *name;
    void (*step)(void);
    unsigned long needs;
};

static const struct contention contentions[] = {
    { "add LDXR/STXR", add_llsc, 0 }, { "add LDAXP/STLXP", add_llsc_pair, 0 }, { "lock LDAXR/STXR", lock_llsc, 0 },
    { "stack LDXR/STXR", pop_push, 0 }, { "add LDADD", add_lse, HWCAP_LSE }, { "add CAS", add_cas, HWCAP_LSE },
    { "add CASPAL", add_casp, HWCAP_LSE }, { "lock SWPA", lock_swp, HWCAP_LSE },
};

static void *contention_thread(void *arg)
{
    const struct contention *c = arg;

    pthread_barrier_wait(&barrier);
    for (unsigned long i = 0; i < n_rounds; i++)
        c->step();
    return NULL;
}

static int run_contention(const struct contention *c)
{
    pthread_t thread[MAX_THREADS];
    uint64_t want = n_rounds * MAX_THREADS;

    memset(&shared, 0, sizeof shared);
    stack_fill();
    pthread_barrier_init(&barrier, NULL, MAX_THREADS);
    for (unsigned i = 0; i < MAX_THREADS; i++)
        if (pthread_create(&thread[i], NULL, contention_thread, (void *)(uintptr_t)c))
            abort();
    for (unsigned i = 0; i < MAX_THREADS; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_destroy(&barrier);
    return shared.n + shared.pair[0] + shared.guarded == want && shared.pair[0] + shared.pair[1] == 0 &&
           stack_is_whole();
}

int main(int argc, char **argv)
{
    unsigned passed = 0, failed = 0, skipped = 0;
    unsigned long caps = getauxval(AT_HWCAP);

    if (argc > 1)
        n_rounds = strtoul(argv[1], NULL, 0);
    n_rounds = (n_rounds + BATCH - 1) / BATCH * BATCH;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (unsigned i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        const struct litmus *t = &tests[i];
        if (t->needs & ~caps) {
            skipped++;
            continue;
        }
        unsigned long seen = run_litmus(t);
        int bad = seen && !t->allowed;
        printf("%s %s: %lu of %lu%s\n", bad ? "FAIL" : "PASS", t->name, seen, n_rounds, t->allowed ? " (allowed)" : "");
        passed += !bad, failed += (unsigned)bad;
    }
    for (unsigned i = 0; i < sizeof contentions / sizeof contentions[0]; i++) {
        const struct contention *c = &contentions[i];
        if (c->needs & ~caps) {
            skipped++;
            continue;
        }
        int bad = !run_contention(c);
        printf("%s %s: %lu by each of %d\n", bad ? "FAIL" : "PASS", c->name, n_rounds, MAX_THREADS);
        passed += !bad, failed += (unsigned)bad;
    }
    printf("%u passed, %u failed", passed, failed);
    printf(skipped ? ", %u skipped\n" : "\n", skipped);
    if (getpid() == 1)
        reboot(RB_POWER_OFF);
    return failed != 0;
}
