/*
 * vCPU threads.
 *
 * States.  Under cl->threads->lock a vCPU is off, pending (CPU_ON seen, not yet begun) or on; it is `out' while its
 * thread sits in wait_to_run().  Otherwise it runs guest code or sleeps in WFI or WFE.
 *
 * Why no wake-up is lost
 *  - Sleep (WFI, WFE) is FUTEX_WAIT on cpu->pending itself with the value that was judged: whoever wants the vCPU first
 *    changes that word, then looks at vcpu->sleeping.  Either the kernel sees the changed word and does not sleep, or
 *    the sleeper had already set `sleeping', and the waker sees that and wakes it.  Both sides are sequentially
 *    consistent.  A signal handler needs only the first half, because the signal itself interrupts the wait.
 *  - Power and pause are decided under the lock, with condition variables.
 *
 * Why DSB may trust a quiescent vCPU
 *  - vcpu->phase is odd in guest code.  Maintenance is queued and PEND_TLB set *before* DSB reads phase; entering makes
 *    phase odd and *then* looks at PEND_TLB, backing out if it is set.  So a DSB that reads an even phase knows that the
 *    queue will be drained before guest code goes on.
 *  - PEND_TLB is cleared, and the queue drained, only while phase is even.  A DSB that reads an odd phase sets PEND_TLB
 *    (again: the first one may have been served meanwhile), so that this very phase must end, and waits for that.
 *  - A waiter makes its own phase even first: two vCPUs in DSB do not wait for each other.
 *
 * WFI spins before it sleeps if that has paid lately: waking a thread takes the host 10 to 30 us, and one vCPU that interrupts
 * another often gets its answer in less.  Only while every vCPU that is awake has a core to itself, and SPIN_MAX_NS at most.
 *
 * Time.  Each thread has one host timer whose signal sets PEND_TIMER; it is only ever set earlier (a later deadline
 * leaves it to fire early, which makes timer.c look and set it again).  The signal goes to the thread that must look,
 * so no helper thread wakes for it.
 *
 * Left out: the architecture's rule that an exclusive monitor cleared by a store of another PE is a WFE event: WFE with
 * an armed monitor sleeps a bounded time instead, after having yielded some times.
 */
#include "cpu/cluster.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "base/report.h"
#include "cpu/access.h"
#include "cpu/debug.h"
#include "cpu/lockstep.h"
#include "cpu/timer.h"
#include "cpu/tlb.h"

enum power { POWER_OFF, POWER_PENDING, POWER_ON };

/* What ends a WFI.  PEND_TLB does not: a sleeper is quiescent. */
#define WAKE_ANY (~(unsigned)PEND_TLB)

enum {
    WFE_SLEEP_NS = 100 * 1000, /* at most, while a monitor is armed */
    WFE_YIELDS = 16,           /* before sleeping at all */
    WFE_LOOP = 64,             /* instructions between two WFEs of one loop */
    DSB_SPINS = 256,
    SPIN_FIRST_NS = 10 * 1000, SPIN_MAX_NS = 50 * 1000,
    SPIN_PAYS_NS = 200 * 1000, /* a sleep that was shorter */
};

struct vcpu {
    struct cpu *cpu;
    pthread_t thread;
    atomic_long tid; /* the host's */
    _Atomic uint64_t cpu_ns; /* used by threads that have ended */
    /* Under cl->threads->lock */
    pthread_cond_t wake;
    enum power power;
    bool out, parked;
    uint64_t entry, context;
    /* Any thread */
    atomic_uint phase;    /* odd: in guest code */
    atomic_uint waiters;  /* DSBs that wait for phase to change */
    atomic_bool sleeping;
    atomic_bool event;    /* the event register, as set by others */
    /* The vCPU's thread, and its signal handler */
    timer_t timer;
    _Atomic uint64_t armed;    /* host ns for which the timer is set; UINT64_MAX: not */
    _Atomic uint64_t deadline; /* cluster ns */
    unsigned spin_ns; /* how long to spin before the next sleep */
    unsigned wfe_streak;
    uint64_t wfe_icount;
};

struct cluster_threads {
    pthread_mutex_t lock;
    pthread_cond_t quiet; /* some vCPU went out */
    unsigned pauses;
    bool started, stop;
    unsigned cores;     /* of the host, for us */
    atomic_uint asleep; /* vCPUs in WFI or WFE, or off */
    /*
     * The clock in one word, so that readers need no lock: running, it is host ns - base; stopped (base negative), it is
     * -base - 1.
     */
    _Atomic int64_t clock_base;
    struct vcpu vcpu[CPU_MAX];
};

static __thread struct vcpu *self; /* of a vCPU thread */

struct cpu *cpu_current(void)
{
    return self ? self->cpu : NULL;
}

long cpu_host_thread(const struct cpu *cpu)
{
    return cpu->vcpu ? atomic_load(&cpu->vcpu->tid) : 0;
}

/* ---- host primitives ---- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;

    return clock_gettime(clock, &ts) ? 0 : (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static unsigned host_cores(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) ? (unsigned)sysconf(_SC_NPROCESSORS_ONLN) : (unsigned)CPU_COUNT(&set);
}

static uint64_t host_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t cluster_cpu_ns(const struct cpu *cpu)
{
    struct vcpu *vc = cpu->vcpu;
    clockid_t clock;

    if (!vc)
        return 0;
    bool running = atomic_load(&vc->tid) && !pthread_getcpuclockid(vc->thread, &clock);
    return atomic_load(&vc->cpu_ns) + (running ? clock_ns(clock) : 0);
}

static struct timespec to_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* Until *word differs from value, a wake, a signal, or host time `until' (UINT64_MAX: never). */
static void futex_wait(atomic_uint *word, unsigned value, uint64_t until)
{
    struct timespec ts = to_timespec(until);

    syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value, until == UINT64_MAX ? NULL : &ts, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

static void futex_wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0);
}

/* ---- clock and timers ---- */

static uint64_t own_clock(const struct cluster_threads *t)
{
    int64_t base = atomic_load(&t->clock_base);

    return base < 0 ? (uint64_t)(-base - 1) : host_ns() - (uint64_t)base;
}

uint64_t cluster_clock_ns(struct cluster *cl)
{
    if (cl->clock_ns)
        return cl->clock_ns(cl->clock_opaque);
    return own_clock(cl->threads);
}

static void stop_clock(struct cluster_threads *t)
{
    atomic_store(&t->clock_base, -(int64_t)own_clock(t) - 1);
}

static void start_clock(struct cluster_threads *t)
{
    atomic_store(&t->clock_base, (int64_t)(host_ns() - own_clock(t)));
}

/*
 * Host time of a moment of the cluster's clock, from now on: a pause makes it too early, and then whoever waited looks
 * again.  So does a clock of the machine's own, whose distance is taken as host nanoseconds.
 */
static uint64_t host_time(struct cluster *cl, uint64_t ns)
{
    uint64_t now = ns == UINT64_MAX ? 0 : cluster_clock_ns(cl);

    if (ns == UINT64_MAX)
        return UINT64_MAX;
    return host_ns() + (ns > now ? ns - now : 0);
}

/* Only atomics here: it may interrupt anything on the vCPU's thread. */
static void timer_fired(int sig, siginfo_t *info, void *context)
{
    struct vcpu *vc = info->si_value.sival_ptr;

    (void)sig;
    (void)context;
    if (info->si_code != SI_TIMER || !vc || vc != self)
        return;
    atomic_store(&vc->armed, UINT64_MAX);
    atomic_fetch_or(&vc->cpu->pending, PEND_TIMER);
}

static int timer_signal(void)
{
    return SIGRTMIN + 1;
}

static void make_timer(struct vcpu *vc)
{
    struct sigaction action = {.sa_sigaction = timer_fired, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = timer_signal()};

    sigemptyset(&action.sa_mask);
    event.sigev_value.sival_ptr = vc;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (sigaction(timer_signal(), &action, NULL) || timer_create(CLOCK_MONOTONIC, &event, &vc->timer))
        BUG("no host timer: %s", strerror(errno));
}

/* Own thread.  The timer is only ever moved to an earlier time; one that fires early makes its owner look again. */
static void arm_timer(struct vcpu *vc)
{
    uint64_t when = host_time(vc->cpu->cluster, atomic_load(&vc->deadline));
    struct itimerspec spec = {{0, 0}, {0, 0}};

    if (when >= atomic_load(&vc->armed))
        return;
    /* First: the signal may come before timer_settime() returns, and its handler writes `armed' too. */
    atomic_store(&vc->armed, when);
    spec.it_value = to_timespec(when ? when : 1);
    if (timer_settime(vc->timer, TIMER_ABSTIME, &spec, NULL))
        BUG("timer_settime: %s", strerror(errno));
}

void cluster_set_deadline(struct cpu *cpu, uint64_t ns)
{
    struct vcpu *vc = cpu->vcpu;

    if (!vc)
        return;
    atomic_store(&vc->deadline, ns);
    if (vc == self)
        arm_timer(vc);
}

/* ---- in and out of guest code ---- */

static void leave_guest(struct vcpu *vc)
{
    atomic_fetch_add(&vc->phase, 1);
    if (atomic_load(&vc->waiters))
        futex_wake(&vc->phase);
}

static void enter_guest(struct vcpu *vc)
{
    struct cpu *cpu = vc->cpu;

    for (;;) {
        if (atomic_load(&cpu->pending) & PEND_TLB) {
            atomic_fetch_and(&cpu->pending, ~(unsigned)PEND_TLB);
            tlb_drain(cpu);
        }
        atomic_fetch_add(&vc->phase, 1);
        if (!(atomic_load(&cpu->pending) & PEND_TLB))
            return;
        leave_guest(vc);
    }
}

/* Until vc leaves guest code, if it is there. */
static void wait_for_quiet(struct vcpu *vc)
{
    unsigned phase = atomic_load(&vc->phase);

    if (!(phase & 1))
        return;
    atomic_fetch_or(&vc->cpu->pending, PEND_TLB);
    for (unsigned i = 0; i < DSB_SPINS; i++) {
        if (atomic_load(&vc->phase) != phase)
            return;
        __builtin_ia32_pause();
    }
    atomic_fetch_add(&vc->waiters, 1);
    while (atomic_load(&vc->phase) == phase)
        futex_wait(&vc->phase, phase, UINT64_MAX);
    atomic_fetch_sub(&vc->waiters, 1);
}

void cluster_quiesce(struct cpu *cpu)
{
    struct cluster *cl = cpu->cluster;

    leave_guest(cpu->vcpu);
    for (unsigned i = 0; i < cl->n; i++)
        if (cl->cpu[i] != cpu)
            wait_for_quiet(cl->cpu[i]->vcpu);
    enter_guest(cpu->vcpu);
}

bool cluster_quiet(const struct cpu *cpu)
{
    return !cpu->vcpu || !(atomic_load(&cpu->vcpu->phase) & 1);
}

void cluster_dsb(struct cpu *cpu)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (likely(!cpu->tlb->outstanding))
        return;
    cpu->tlb->outstanding = false;
    cluster_quiesce(cpu);
}

/* ---- sleep ---- */

void cluster_wake(struct cpu *cpu)
{
    if (cpu->vcpu && atomic_load(&cpu->vcpu->sleeping))
        futex_wake(&cpu->pending);
}

/* Out of guest code, until a bit of `mask' is pending, or host time `until' (UINT64_MAX: never); false: that time came. */
static bool sleep_until(struct vcpu *vc, unsigned mask, uint64_t until)
{
    struct cpu *cpu = vc->cpu;
    bool woken = true;

    struct cluster_threads *t = cpu->cluster->threads;

    atomic_fetch_add(&t->asleep, 1);
    atomic_store(&vc->sleeping, true);
    for (;;) {
        unsigned pending = atomic_load(&cpu->pending);

        if ((pending & mask) || ((mask & PEND_EVENT) && atomic_load(&vc->event)))
            break;
        if (until != UINT64_MAX && host_ns() >= until) {
            woken = false;
            break;
        }
        futex_wait(&cpu->pending, pending, until);
    }
    atomic_store(&vc->sleeping, false);
    atomic_fetch_sub(&t->asleep, 1);
    /* Set only to break a sleep; the event itself is in vc->event. */
    atomic_fetch_and(&cpu->pending, ~(unsigned)PEND_EVENT);
    return woken;
}

/* Until a bit of `mask' is pending; false: not soon. */
static bool spin(struct vcpu *vc, unsigned mask, uint64_t start)
{
    struct cluster *cl = vc->cpu->cluster;

    if (!vc->spin_ns || cl->n - atomic_load(&cl->threads->asleep) > cl->threads->cores)
        return false;
    do {
        for (unsigned i = 0; i < 32; i++) {
            if (atomic_load_explicit(&vc->cpu->pending, memory_order_relaxed) & mask)
                return true;
            __builtin_ia32_pause();
        }
    } while (host_ns() - start < vc->spin_ns);
    return false;
}

static void learn(struct vcpu *vc, uint64_t took)
{
    if (took > SPIN_PAYS_NS)
        vc->spin_ns = 0;
    else if (took > vc->spin_ns)
        vc->spin_ns = MIN(MAX(2 * vc->spin_ns, (unsigned)SPIN_FIRST_NS), (unsigned)SPIN_MAX_NS);
}

/*
 * The timer's signal normally ends the sleep: it is not subject to the host's timer slack, the futex's own limit is.
 * The limit makes the sleep independent of when the signal is delivered.
 */
void cluster_wfi(struct cpu *cpu)
{
    struct vcpu *vc = cpu->vcpu;

    if (unlikely(cpu->debug_slow) && debug_stepping(cpu))
        return;
    if (unlikely(cpu->cluster->lockstep)) {
        lockstep_wfi(cpu);
        return;
    }
    unsigned mask = WAKE_ANY & ~(unsigned)PEND_EVENT;
    uint64_t start = host_ns();

    leave_guest(vc);
    if (!spin(vc, mask, start) && !sleep_until(vc, mask, host_time(cpu->cluster, atomic_load(&vc->deadline))))
        atomic_fetch_or(&cpu->pending, PEND_TIMER);
    if (cpu->cluster->n > 1)
        learn(vc, host_ns() - start);
    enter_guest(vc);
}

bool cluster_sleeps(const struct cpu *cpu)
{
    return atomic_load(&cpu->vcpu->sleeping);
}

void cluster_sev(struct cpu *cpu)
{
    struct cluster *cl = cpu->cluster;

    for (unsigned i = 0; i < cl->n; i++) {
        struct vcpu *vc = cl->cpu[i]->vcpu;

        atomic_store(&vc->event, true);
        if (atomic_load(&vc->sleeping)) {
            atomic_fetch_or(&vc->cpu->pending, PEND_EVENT);
            futex_wake(&vc->cpu->pending);
        }
    }
}

void cluster_yield(struct cpu *cpu)
{
    if (cpu->cluster->n > 1)
        sched_yield();
}

/* Has the event register been set?  Clears it. */
static bool take_event(struct cpu *cpu)
{
    bool event = atomic_exchange(&cpu->vcpu->event, false);

    event |= cpu->event;
    cpu->event = false;
    return timer_event_taken(cpu) || event;
}

/* WFE soon after WFE is a loop that waits for a store; count how long it has gone on. */
static bool wfe_should_yield(struct vcpu *vc)
{
    bool again = vc->cpu->icount - vc->wfe_icount < WFE_LOOP;

    vc->wfe_icount = vc->cpu->icount;
    vc->wfe_streak = again ? vc->wfe_streak + 1 : 0;
    return vc->wfe_streak < WFE_YIELDS;
}

/* What ends a WFE: interrupts only when not masked (D1.6.1). */
static unsigned wfe_mask(const struct cpu *cpu)
{
    return WAKE_ANY & ~((cpu->daif & DAIF_I ? PEND_IRQ : 0u) | (cpu->daif & DAIF_F ? PEND_FIQ : 0u) |
                        (cpu->daif & DAIF_A ? PEND_SERROR : 0u));
}

void cluster_wfe(struct cpu *cpu)
{
    struct vcpu *vc = cpu->vcpu;
    uint64_t until;

    if (take_event(cpu) || unlikely(cpu->cluster->lockstep) || (atomic_load(&cpu->pending) & wfe_mask(cpu)) ||
        access_ex_lost(cpu))
        return;
    if (unlikely(cpu->debug_slow) && debug_stepping(cpu))
        return;
    if (cpu->ex.valid && wfe_should_yield(vc)) {
        sched_yield();
        return;
    }
    until = host_time(cpu->cluster, timer_event_ns(cpu));
    if (cpu->ex.valid)
        until = MIN(until, host_ns() + WFE_SLEEP_NS);
    leave_guest(vc);
    sleep_until(vc, wfe_mask(cpu), until);
    enter_guest(vc);
    take_event(cpu);
}

/* ---- the thread ---- */

static bool may_run(const struct cluster_threads *t, const struct vcpu *vc)
{
    return !t->pauses && vc->power != POWER_OFF && !vc->parked && !debug_stopped(vc->cpu);
}

/* Out of guest code until there is something to run; false: the cluster ends. */
static bool wait_to_run(struct vcpu *vc)
{
    struct cpu *cpu = vc->cpu;
    struct cluster_threads *t = cpu->cluster->threads;
    bool stop;

    pthread_mutex_lock(&t->lock);
    vc->out = true;
    atomic_fetch_add(&t->asleep, 1);
    pthread_cond_broadcast(&t->quiet);
    while (!t->stop && !may_run(t, vc))
        pthread_cond_wait(&vc->wake, &t->lock);
    atomic_fetch_sub(&t->asleep, 1);
    stop = t->stop;
    if (!stop) {
        vc->out = false;
        atomic_fetch_and(&cpu->pending, ~(unsigned)(PEND_PAUSE | PEND_STOP));
    }
    if (!stop && vc->power == POWER_PENDING) {
        cpu_reset(cpu, vc->entry, vc->context);
        vc->power = POWER_ON;
    }
    pthread_mutex_unlock(&t->lock);
    return !stop;
}

/* What others asked for, between two runs of the engine.  False: guest code must not go on. */
static bool serve_pending(struct cpu *cpu)
{
    unsigned pending = atomic_load(&cpu->pending);

    if (pending & (PEND_PAUSE | PEND_STOP))
        return false;
    atomic_fetch_and(&cpu->pending, ~(unsigned)(PEND_TIMER | PEND_DEBUG | PEND_EVENT));
    if ((pending & PEND_TIMER) && likely(!cpu->cluster->lockstep))
        cpu_timer_check(cpu);
    if (pending & PEND_DEBUG)
        cpu_refresh(cpu);
    return !debug_stopped(cpu);
}

static void run_guest(struct cpu *cpu)
{
    struct vcpu *vc = cpu->vcpu;

    /* The clock may have stood still, and the deadline been set by another thread. */
    cpu_timer_check(cpu);
    while (serve_pending(cpu)) {
        enter_guest(vc);
        if (unlikely(cpu->cluster->lockstep)) {
            lockstep_run(cpu);
        } else {
            cpu_take_interrupt(cpu);
            cpu->cluster->engine->run(cpu);
        }
        leave_guest(vc);
    }
}

/*
 * Signals get a stack of their own: a translator's code may use the stack pointer for a small stack of return addresses,
 * and a frame with the host's vector registers takes kilobytes.  Owned by the caller.
 */
static void *make_signal_stack(void)
{
    size_t size = MAX((size_t)sysconf(_SC_SIGSTKSZ), 65536);
    stack_t alt = {.ss_sp = g_malloc(size), .ss_size = size};

    if (sigaltstack(&alt, NULL))
        BUG("no stack for signals: %s", strerror(errno));
    return alt.ss_sp;
}

static void free_signal_stack(void *stack)
{
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    g_free(stack);
}

static void *vcpu_thread(void *arg)
{
    struct vcpu *vc = arg;
    void *signal_stack = make_signal_stack();

    self = vc;
    atomic_store(&vc->tid, syscall(SYS_gettid));
    make_timer(vc);
    while (wait_to_run(vc))
        run_guest(vc->cpu);
    timer_delete(vc->timer);
    free_signal_stack(signal_stack);
    atomic_store(&vc->cpu_ns, atomic_load(&vc->cpu_ns) + clock_ns(CLOCK_THREAD_CPUTIME_ID));
    atomic_store(&vc->tid, 0);
    return NULL;
}

/* ---- life ---- */

struct cluster *cluster_new(unsigned n, struct mem *mem, const struct cpu_model *model,
                            const struct cpu_engine *engine)
{
    struct cluster *cl = g_new0(struct cluster, 1);
    struct cluster_threads *t = g_new0(struct cluster_threads, 1);

    BUG_ON(n < 1 || n > CPU_MAX);
    cl->threads = t;
    cl->engine = engine;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->quiet, NULL);
    t->cores = host_cores();
    atomic_store(&t->clock_base, -1);
    for (unsigned i = 0; i < n; i++) {
        struct vcpu *vc = &t->vcpu[i];

        pthread_cond_init(&vc->wake, NULL);
        vc->out = true;
        atomic_store(&vc->armed, UINT64_MAX);
        atomic_store(&vc->deadline, UINT64_MAX);
        vc->cpu = cl->cpu[i] = cpu_new(cl, mem, model, i);
        vc->cpu->vcpu = vc;
        engine->init(vc->cpu);
    }
    /* Only now: whoever is told of n vCPUs must find them. */
    cl->n = n;
    return cl;
}

void cluster_free(struct cluster *cl)
{
    struct cluster_threads *t = cl->threads;

    cluster_stop(cl);
    for (unsigned i = 0; i < cl->n; i++) {
        cl->engine->fini(cl->cpu[i]);
        cpu_free(cl->cpu[i]);
        pthread_cond_destroy(&t->vcpu[i].wake);
    }
    pthread_cond_destroy(&t->quiet);
    pthread_mutex_destroy(&t->lock);
    g_free(t);
    g_free(cl);
}

/* All vCPUs to power-on state; their threads are out or do not exist yet. */
static void power_on_state(struct cluster *cl, uint64_t pc, uint64_t x0)
{
    for (unsigned i = 0; i < cl->n; i++) {
        struct vcpu *vc = cl->cpu[i]->vcpu;

        vc->parked = false;
        vc->power = i ? POWER_OFF : POWER_ON;
        atomic_store(&vc->event, false);
        cpu_reset(cl->cpu[i], i ? 0 : pc, i ? 0 : x0);
    }
}

/* Other signals than our timer's are for the main thread. */
static void start_thread(struct vcpu *vc)
{
    sigset_t all, old;
    char name[16];
    int err;

    sigfillset(&all);
    sigdelset(&all, timer_signal());
    for (const int *sig = (const int[]){SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, 0}; *sig; sig++)
        sigdelset(&all, *sig);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&vc->thread, NULL, vcpu_thread, vc);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err)
        BUG("no thread for vCPU %u: %s", vc->cpu->index, strerror(err));
    g_snprintf(name, sizeof(name), "vcpu%u", vc->cpu->index);
    pthread_setname_np(vc->thread, name);
}

void cluster_start(struct cluster *cl, uint64_t pc, uint64_t x0, bool paused)
{
    struct cluster_threads *t = cl->threads;

    BUG_ON(t->started);
    power_on_state(cl, pc, x0);
    t->started = true;
    t->pauses = paused;
    if (!paused)
        start_clock(t);
    for (unsigned i = 0; i < cl->n; i++)
        start_thread(&t->vcpu[i]);
}

static void wake_all(struct cluster *cl)
{
    for (unsigned i = 0; i < cl->n; i++)
        pthread_cond_signal(&cl->threads->vcpu[i].wake);
}

void cluster_stop(struct cluster *cl)
{
    struct cluster_threads *t = cl->threads;

    BUG_ON(self);
    if (!t->started)
        return;
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    for (unsigned i = 0; i < cl->n; i++)
        cpu_kick(cl->cpu[i], PEND_STOP);
    wake_all(cl);
    pthread_mutex_unlock(&t->lock);
    for (unsigned i = 0; i < cl->n; i++)
        pthread_join(t->vcpu[i].thread, NULL);
    t->started = t->stop = false;
}

/* ---- pause ---- */

static bool all_out(const struct cluster *cl)
{
    for (unsigned i = 0; i < cl->n; i++)
        if (!cl->threads->vcpu[i].out)
            return false;
    return true;
}

void cluster_pause(struct cluster *cl)
{
    struct cluster_threads *t = cl->threads;

    BUG_ON(self);
    pthread_mutex_lock(&t->lock);
    if (t->pauses++ == 0)
        for (unsigned i = 0; i < cl->n; i++)
            cpu_kick(cl->cpu[i], PEND_PAUSE);
    while (!all_out(cl))
        pthread_cond_wait(&t->quiet, &t->lock);
    stop_clock(t); /* does nothing to a stopped one */
    pthread_mutex_unlock(&t->lock);
}

void cluster_resume(struct cluster *cl)
{
    struct cluster_threads *t = cl->threads;

    pthread_mutex_lock(&t->lock);
    BUG_ON(!t->pauses);
    if (--t->pauses == 0) {
        start_clock(t);
        wake_all(cl);
    }
    pthread_mutex_unlock(&t->lock);
}

bool cluster_paused(const struct cluster *cl)
{
    struct cluster_threads *t = cl->threads;
    bool paused;

    pthread_mutex_lock(&t->lock);
    paused = t->pauses;
    pthread_mutex_unlock(&t->lock);
    return paused;
}

void cluster_reset(struct cluster *cl, uint64_t pc, uint64_t x0)
{
    struct cluster_threads *t = cl->threads;

    pthread_mutex_lock(&t->lock);
    BUG_ON(t->started && !all_out(cl));
    power_on_state(cl, pc, x0);
    pthread_mutex_unlock(&t->lock);
}

/* ---- power ---- */

#define MPIDR_AFFINITY UINT64_C(0x000000ff00ffffff)

static struct vcpu *find_vcpu(struct cluster *cl, uint64_t mpidr)
{
    for (unsigned i = 0; i < cl->n; i++)
        if (!((cl->cpu[i]->mpidr ^ mpidr) & MPIDR_AFFINITY))
            return cl->cpu[i]->vcpu;
    return NULL;
}

int cluster_cpu_on(struct cluster *cl, uint64_t mpidr, uint64_t entry, uint64_t context)
{
    struct vcpu *vc = find_vcpu(cl, mpidr);
    int result = PSCI_SUCCESS;

    if (!vc || (mpidr & ~MPIDR_AFFINITY))
        return PSCI_INVALID_PARAMETERS;
    pthread_mutex_lock(&cl->threads->lock);
    if (vc->power == POWER_ON) {
        result = PSCI_ALREADY_ON;
    } else if (vc->power == POWER_PENDING) {
        result = PSCI_ON_PENDING;
    } else {
        vc->power = POWER_PENDING;
        vc->entry = entry;
        vc->context = context;
        pthread_cond_signal(&vc->wake);
    }
    pthread_mutex_unlock(&cl->threads->lock);
    return result;
}

void cluster_cpu_off(struct cpu *cpu)
{
    pthread_mutex_lock(&cpu->cluster->threads->lock);
    cpu->vcpu->power = POWER_OFF;
    pthread_mutex_unlock(&cpu->cluster->threads->lock);
    cpu_kick(cpu, PEND_STOP);
}

void cluster_park(struct cpu *cpu)
{
    pthread_mutex_lock(&cpu->cluster->threads->lock);
    cpu->vcpu->parked = true;
    pthread_mutex_unlock(&cpu->cluster->threads->lock);
    cpu_kick(cpu, PEND_STOP);
}

int cluster_affinity_info(struct cluster *cl, uint64_t mpidr, unsigned level)
{
    uint64_t mask = MPIDR_AFFINITY & ~bits_mask(level == 3 ? 32 : level * 8);
    int result = PSCI_INVALID_PARAMETERS;

    if (level > 3 || (mpidr & ~MPIDR_AFFINITY))
        return result;
    pthread_mutex_lock(&cl->threads->lock);
    for (unsigned i = 0; i < cl->n; i++) {
        enum power power = cl->cpu[i]->vcpu->power;

        if ((cl->cpu[i]->mpidr ^ mpidr) & mask)
            continue;
        if (power == POWER_ON)
            result = PSCI_AFFINITY_ON;
        else if (power == POWER_PENDING && result != PSCI_AFFINITY_ON)
            result = PSCI_AFFINITY_ON_PENDING;
        else if (result == PSCI_INVALID_PARAMETERS)
            result = PSCI_AFFINITY_OFF;
    }
    pthread_mutex_unlock(&cl->threads->lock);
    return result;
}

unsigned cluster_cpus_on(struct cluster *cl)
{
    unsigned n = 0;

    pthread_mutex_lock(&cl->threads->lock);
    for (unsigned i = 0; i < cl->n; i++)
        n += cl->cpu[i]->vcpu->power != POWER_OFF;
    pthread_mutex_unlock(&cl->threads->lock);
    return n;
}
