/*
 * Self-hosted debug of Armv8.0 (DDI0487 D2): six breakpoints, of which the last two compare CONTEXTIDR_EL1 too, four
 * watchpoints, software step, OS lock and double lock; and an external debugger's own break- and watchpoints.
 *
 * Left out: what needs EL2, EL3 or AArch32 (VMID and mismatch breakpoints, vector catch; HMC or SSC other than 0 match
 * nothing, a permitted behaviour where neither EL exists), halting debug, and the ISV and EX bits of a Software Step
 * exception, which are 0.  A breakpoint on an address that cannot be fetched is reported before the fetch's abort.
 *
 * `configured' is false for nearly all the time of nearly all guests: then debug_refresh(), which runs at every exception
 * and return, looks at nothing else.
 *
 * An external breakpoint does not make the engine look at every instruction: it asks for the page it is about to run
 * (debug_break_in_page()).  A watched page is out of all fast paths for as long as there is a watchpoint on it, also
 * while that is not active at this EL; debug_check_watch() knows better.
 *
 * On the vCPU's thread; the external debugger's functions while the cluster is paused.
 */
#include "cpu/debug.h"

#include <string.h>

#include "base/bits.h"
#include "cpu/cpu.h"
#include "cpu/mmu.h"
#include "cpu/model.h"
#include "cpu/tlb.h"

/* MDSCR_EL1, OSLSR_EL1 */
enum { OSLSR_OSLK = 1 << 1 };
/* Always writable: SS, TDCC, KDE, MDE; only while the OS lock is set: ERR, HDE, TDA, INTdis, TXU, RXO, TXfull, RXfull. */
#define MDSCR_MASK        UINT64_C(0x0000b001)
#define MDSCR_MASK_LOCKED UINT64_C(0x6ce0f041)

#define BCR_MASK UINT32_C(0x00ffe1e7)
#define WCR_MASK UINT32_C(0x1f1fffff)
#define VA_BITS  49 /* [48:0] take part in comparisons */

/* DBGBCR.BT */
enum { BT_ADDRESS = 0, BT_ADDRESS_LINKED = 1, BT_CONTEXT = 2, BT_CONTEXT_LINKED = 3 };

/* ISS: a debug exception's fault status, and which access a watchpoint saw. */
enum { ISS_DEBUG = 0x22, ISS_WNR = 1 << 6 };

struct point { /* an external debugger's watchpoint */
    enum debug_kind kind;
    uint64_t va, size;
};

enum { OFFSETS = MEM_PAGE_SIZE / 4 };

struct cpu_debug {
    bool configured;   /* there is anything to look for */
    bool guest_breaks, step; /* the guest's own, active at this EL */
    bool guest_watches; /* active at this EL */
    bool watching;     /* there is some watchpoint, the guest's or external, at whatever EL */
    bool external_watches, external_step;
    uint64_t bvr[DEBUG_BREAKPOINTS], wvr[DEBUG_WATCHPOINTS];
    uint32_t bcr[DEBUG_BREAKPOINTS], wcr[DEBUG_WATCHPOINTS];
    GArray *points; /* struct point */
    GArray *breaks; /* external breakpoints: uint64_t va, in order */
    uint64_t breaks_id; /* changes with the set of them; 0 when there is none */
    uint32_t at_offset[OFFSETS]; /* how many are there in pages */
    debug_stop_fn *stop;
    void *stop_opaque;
    bool stopped;
    bool resuming; /* the next instruction is exempt from external points */
    bool exempt;   /* this one is */
    bool exempt_watches; /* and not only from breakpoints */
    bool step_masks;     /* an external step takes no interrupts */
    uint64_t range_start, range_end; /* an external step goes on while pc is in it */
    bool stepping; /* this instruction is being stepped by the guest */
};

struct cpu_debug *debug_new(void)
{
    struct cpu_debug *d = g_new0(struct cpu_debug, 1);

    d->points = g_array_new(FALSE, FALSE, sizeof(struct point));
    d->breaks = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    return d;
}

void debug_free(struct cpu_debug *d)
{
    g_array_free(d->points, TRUE);
    g_array_free(d->breaks, TRUE);
    g_free(d);
}

/* --- what is active --- */

bool debug_enabled_from(const struct cpu *cpu, unsigned el, bool masked)
{
    const struct sysregs *s = &cpu->sys;

    /* D2.4: OS lock; OS double lock unless a powerdown is forbidden (DBGPRCR_EL1.CORENPDRQ). */
    if ((s->oslsr_el1 & OSLSR_OSLK) || ((s->osdlr_el1 & 1) && !(s->dbgprcr_el1 & 1)))
        return false;
    return el == 0 || ((s->mdscr_el1 & MDSCR_KDE) && !masked);
}

bool debug_return_ss(const struct cpu *cpu, unsigned el, uint64_t spsr)
{
    if (!(cpu->sys.mdscr_el1 & MDSCR_SS) || debug_enabled_from(cpu, cpu->el, cpu->daif & DAIF_D))
        return false;
    return debug_enabled_from(cpu, el, spsr & DAIF_D) && bits_test(spsr, 21);
}

static bool any_enabled(const uint32_t *control, unsigned n)
{
    uint32_t all = 0;

    for (unsigned i = 0; i < n; i++)
        all |= control[i];
    return all & 1;
}

/* After a change of what could be active, whatever the EL. */
static void reconfigure(struct cpu *cpu)
{
    struct cpu_debug *d = cpu->debug;
    bool guest = (cpu->sys.mdscr_el1 & MDSCR_MDE) && any_enabled(d->wcr, DEBUG_WATCHPOINTS), was = d->watching;

    d->external_watches = d->points->len;
    d->watching = guest || d->external_watches;
    d->configured = d->watching || d->external_step || (cpu->sys.mdscr_el1 & (MDSCR_SS | MDSCR_MDE));
    cpu->debug_breaks = d->breaks->len;
    if (was || d->watching)
        tlb_forget_fast(cpu); /* other pages than before may be watched */
    cpu_refresh(cpu);
}

void debug_refresh(struct cpu *cpu)
{
    struct cpu_debug *d = cpu->debug;
    bool on, monitor;

    if (!d->configured) {
        d->guest_breaks = d->step = d->guest_watches = false;
        cpu->debug_slow = d->resuming || d->exempt;
        return;
    }
    on = debug_enabled_from(cpu, cpu->el, cpu->daif & DAIF_D);
    monitor = on && (cpu->sys.mdscr_el1 & MDSCR_MDE);
    d->guest_breaks = monitor && any_enabled(d->bcr, DEBUG_BREAKPOINTS);
    d->guest_watches = monitor && any_enabled(d->wcr, DEBUG_WATCHPOINTS);
    d->step = on && (cpu->sys.mdscr_el1 & MDSCR_SS);
    cpu->debug_slow = d->guest_breaks || d->step || d->external_step || d->resuming || d->exempt;
}

bool debug_idle(const struct cpu *cpu)
{
    return !cpu->debug->configured && !cpu->debug->resuming && !cpu->debug->exempt;
}

void debug_reset(struct cpu *cpu)
{
    struct cpu_debug *d = cpu->debug;

    memset(d->bvr, 0, sizeof(d->bvr));
    memset(d->bcr, 0, sizeof(d->bcr));
    memset(d->wvr, 0, sizeof(d->wvr));
    memset(d->wcr, 0, sizeof(d->wcr));
    d->stopped = d->resuming = d->exempt = d->stepping = false;
    reconfigure(cpu);
}

/* --- matching --- */

/* HMC and SSC 0, and PMC (PAC) has the EL's bit: 1 for EL1, 2 for EL0 (D2.8.3). */
static bool state_matches(uint32_t control, unsigned el)
{
    return !(control & 0xe000) && (control & (el ? 2 : 4));
}

static unsigned type_of(uint32_t control)
{
    return control >> 20 & 15;
}

static bool context_matches(const struct cpu *cpu, unsigned n)
{
    return (uint32_t)cpu->debug->bvr[n] == (uint32_t)cpu->sys.contextidr_el1;
}

/* Of a linked address breakpoint or watchpoint: D2.8.4. */
static bool link_matches(const struct cpu *cpu, uint32_t control)
{
    unsigned n = control >> 16 & 15;
    const struct cpu_debug *d = cpu->debug;

    return n >= DEBUG_BREAKPOINTS - DEBUG_CONTEXT_BPS && n < DEBUG_BREAKPOINTS && (d->bcr[n] & 1) &&
           type_of(d->bcr[n]) == BT_CONTEXT_LINKED && context_matches(cpu, n);
}

static bool address_matches(uint64_t a, uint64_t b, unsigned low)
{
    return !((a ^ b) & bits_mask(VA_BITS) & ~bits_mask(low));
}

static bool breakpoint_matches(const struct cpu *cpu, unsigned n)
{
    const struct cpu_debug *d = cpu->debug;
    uint32_t bcr = d->bcr[n];

    if (!(bcr & 1) || !state_matches(bcr, cpu->el))
        return false;
    switch (type_of(bcr)) {
    case BT_ADDRESS:
        return address_matches(d->bvr[n], cpu->pc, 2);
    case BT_ADDRESS_LINKED:
        return address_matches(d->bvr[n], cpu->pc, 2) && link_matches(cpu, bcr);
    case BT_CONTEXT:
        return n >= DEBUG_BREAKPOINTS - DEBUG_CONTEXT_BPS && context_matches(cpu, n);
    default:
        return false;
    }
}

/* Is byte va watched by WVR and WCR.BAS or MASK (D2.10.3)? */
static bool watched_byte(uint64_t wvr, uint32_t wcr, uint64_t va)
{
    unsigned bas = wcr >> 5 & 0xff, mask = wcr >> 24 & 31;

    if (mask)
        return mask >= 3 && bas == 0xff && address_matches(wvr, va, mask);
    if (wvr & 4) /* a word: only BAS<3:0> counts */
        return address_matches(wvr, va, 2) && (bas >> (va & 3) & 1);
    return address_matches(wvr, va, 3) && (bas >> (va & 7) & 1);
}

/* The first watched byte of [va, va + size), or false. */
static bool watched_range(uint64_t wvr, uint32_t wcr, uint64_t va, uint64_t size, uint64_t *hit)
{
    for (uint64_t i = 0; i < size; i++) {
        if (watched_byte(wvr, wcr, va + i)) {
            *hit = va + i;
            return true;
        }
    }
    return false;
}

static bool watchpoint_matches(const struct cpu *cpu, unsigned n, uint64_t va, unsigned size, bool is_write,
                               uint64_t *hit)
{
    const struct cpu_debug *d = cpu->debug;
    uint32_t wcr = d->wcr[n];

    if (!(wcr & 1) || !state_matches(wcr, cpu->el) || !(wcr >> 3 & (is_write ? 2 : 1)))
        return false;
    if ((wcr >> 20 & 1) && !link_matches(cpu, wcr))
        return false;
    return watched_range(d->wvr[n], wcr, va, size, hit);
}

static bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a - b < b_size || b - a < a_size;
}

static bool kind_sees(enum debug_kind kind, bool is_write)
{
    return kind == DEBUG_WATCH_ACCESS || kind == (is_write ? DEBUG_WATCH_WRITE : DEBUG_WATCH_READ);
}

/* --- hooks of the engine --- */

/* The instruction at pc is not executed; the vCPU leaves guest code. */
static bool stop(struct cpu *cpu, enum debug_kind kind, uint64_t va)
{
    struct cpu_debug *d = cpu->debug;

    d->stopped = true;
    cpu->next_pc = cpu->pc;
    atomic_fetch_or(&cpu->pending, PEND_DEBUG);
    if (d->stop)
        d->stop(d->stop_opaque, cpu, kind, va);
    return false;
}

/* The number of external breakpoints below va. */
static unsigned breaks_below(const struct cpu_debug *d, uint64_t va)
{
    unsigned low = 0, high = d->breaks->len;

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (g_array_index(d->breaks, uint64_t, mid) < va)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Is one of them in [va, va + size)? */
static bool break_in(const struct cpu_debug *d, uint64_t va, uint64_t size)
{
    unsigned n = breaks_below(d, va);

    return n < d->breaks->len && g_array_index(d->breaks, uint64_t, n) - va < size;
}

static bool external_step_ends(const struct cpu_debug *d, uint64_t pc)
{
    return d->external_step && pc - d->range_start >= d->range_end - d->range_start;
}

bool debug_check_fetch(struct cpu *cpu)
{
    struct cpu_debug *d = cpu->debug;

    d->stepping = d->step;
    if (d->resuming || d->exempt) {
        d->exempt = d->resuming;
        d->resuming = false;
        debug_refresh(cpu);
    }
    if (!d->exempt && (external_step_ends(d, cpu->pc) || break_in(d, cpu->pc, 1)))
        return stop(cpu, DEBUG_BREAK, cpu->pc);
    if (d->step && !cpu->ss) { /* active-pending */
        cpu_take_sync(cpu, EC_STEP_LOWER, ISS_DEBUG, cpu->pc, 0);
        return false;
    }
    for (unsigned n = 0; d->guest_breaks && n < DEBUG_BREAKPOINTS; n++) {
        if (breakpoint_matches(cpu, n)) {
            cpu_take_sync(cpu, EC_BKPT_LOWER, ISS_DEBUG, cpu->pc, 0);
            return false;
        }
    }
    return true;
}

bool debug_check_break(struct cpu *cpu)
{
    return !break_in(cpu->debug, cpu->pc, 1) || stop(cpu, DEBUG_BREAK, cpu->pc);
}

/* Active-not-pending becomes active-pending.  An ERET that turned stepping on was not stepped itself. */
void debug_step_done(struct cpu *cpu)
{
    if (cpu->debug->stepping)
        cpu->ss = false;
}

void debug_ss_advance(struct cpu *cpu)
{
    if (cpu->debug->step)
        cpu->ss = false;
}

bool debug_watches(const struct cpu *cpu)
{
    return cpu->debug->watching;
}

bool debug_check_watch(struct cpu *cpu, uint64_t va, unsigned size, bool is_write)
{
    struct cpu_debug *d = cpu->debug;
    uint64_t hit;

    for (unsigned i = 0; d->external_watches && i < d->points->len; i++) {
        const struct point *p = &g_array_index(d->points, struct point, i);

        if (!(d->exempt && d->exempt_watches) && kind_sees(p->kind, is_write) && overlaps(va, size, p->va, p->size))
            return stop(cpu, p->kind, p->va);
    }
    for (unsigned n = 0; d->guest_watches && n < DEBUG_WATCHPOINTS; n++) {
        if (watchpoint_matches(cpu, n, va, size, is_write, &hit)) {
            cpu_take_sync(cpu, EC_WATCH_LOWER, ISS_DEBUG | (is_write ? ISS_WNR : 0), cpu->pc, hit);
            return false;
        }
    }
    return true;
}

bool debug_page_watched(const struct cpu *cpu, uint64_t va)
{
    const struct cpu_debug *d = cpu->debug;
    uint64_t page = va & ~(uint64_t)(MEM_PAGE_SIZE - 1);

    for (unsigned i = 0; d->external_watches && i < d->points->len; i++) {
        const struct point *p = &g_array_index(d->points, struct point, i);

        if (p->kind != DEBUG_BREAK && overlaps(page, MEM_PAGE_SIZE, p->va, p->size))
            return true;
    }
    for (unsigned n = 0; n < DEBUG_WATCHPOINTS; n++)
        if ((d->wcr[n] & 1) && address_matches(d->wvr[n], page, MAX(d->wcr[n] >> 24 & 31, MEM_PAGE_SHIFT)))
            return true;
    return false;
}

/* --- registers --- */

static unsigned number_of(const struct sysreg *reg)
{
    return reg->key >> 3 & 15;
}

static bool is_numbered(const struct sysreg *reg)
{
    return reg->id >= SR_DBGBVR0_EL1 && reg->id <= SR_DBGWCR15_EL1;
}

/* op2: 4 BVR, 5 BCR, 6 WVR, 7 WCR. */
bool debug_exists(const struct sysreg *reg)
{
    return !is_numbered(reg) || number_of(reg) < (reg->key & 2 ? DEBUG_WATCHPOINTS : DEBUG_BREAKPOINTS);
}

bool debug_read(struct cpu *cpu, const struct sysreg *reg, uint64_t *value)
{
    const struct cpu_debug *d = cpu->debug;
    unsigned n = number_of(reg);

    if (!debug_exists(reg)) {
        cpu_undefined(cpu);
        return false;
    }
    if (reg->id == SR_DBGCLAIMSET_EL1)
        *value = 0xff; /* the tags that exist */
    else if (reg->id == SR_DBGCLAIMCLR_EL1)
        *value = cpu->sys.dbgclaim;
    else
        *value = reg->key & 2 ? (reg->key & 1 ? d->wcr[n] : d->wvr[n]) : (reg->key & 1 ? d->bcr[n] : d->bvr[n]);
    return true;
}

static void write_numbered(struct cpu_debug *d, const struct sysreg *reg, uint64_t value)
{
    unsigned n = number_of(reg);

    switch (reg->key & 3) {
    case 0: d->bvr[n] = value; break; /* bits 1:0 count when it holds a context ID */
    case 1: d->bcr[n] = (uint32_t)value & BCR_MASK; break;
    case 2: d->wvr[n] = value & ~UINT64_C(3); break;
    default: d->wcr[n] = (uint32_t)value & WCR_MASK; break;
    }
}

static void write_mdscr(struct cpu *cpu, uint64_t value)
{
    uint64_t mask = cpu->sys.oslsr_el1 & OSLSR_OSLK ? MDSCR_MASK | MDSCR_MASK_LOCKED : MDSCR_MASK;

    cpu->sys.mdscr_el1 = (cpu->sys.mdscr_el1 & ~mask) | (value & mask);
}

static void write_oslar(struct cpu *cpu, uint64_t value)
{
    cpu->sys.oslsr_el1 = (cpu->sys.oslsr_el1 & ~(uint64_t)OSLSR_OSLK) | (value & 1 ? OSLSR_OSLK : 0);
}

bool debug_write(struct cpu *cpu, const struct sysreg *reg, uint64_t value)
{
    if (!debug_exists(reg)) {
        cpu_undefined(cpu);
        return false;
    }
    switch (reg->id) {
    case SR_MDSCR_EL1: write_mdscr(cpu, value); break;
    case SR_OSLAR_EL1: write_oslar(cpu, value); break;
    case SR_OSDLR_EL1: cpu->sys.osdlr_el1 = value & 1; break;
    case SR_OSDTRRX_EL1: cpu->sys.osdtrrx_el1 = (uint32_t)value; break;
    case SR_OSDTRTX_EL1: cpu->sys.osdtrtx_el1 = (uint32_t)value; break;
    case SR_DBGCLAIMSET_EL1: cpu->sys.dbgclaim |= value & 0xff; break;
    case SR_DBGCLAIMCLR_EL1: cpu->sys.dbgclaim &= ~value; break;
    default: write_numbered(cpu->debug, reg, value); break;
    }
    reconfigure(cpu);
    return true;
}

/* --- external debugger --- */

void debug_set_stop(struct cpu *cpu, debug_stop_fn *fn, void *opaque)
{
    cpu->debug->stop = fn;
    cpu->debug->stop_opaque = opaque;
}

static uint64_t id_of(uint64_t va)
{
    uint64_t h = (va ^ UINT64_C(0x5bd1e995)) * UINT64_C(0x9e3779b97f4a7c15);

    return (h ^ h >> 29) * UINT64_C(0xbf58476d1ce4e5b9) | 1;
}

void debug_insert(struct cpu *cpu, enum debug_kind kind, uint64_t va, uint64_t size)
{
    struct cpu_debug *d = cpu->debug;
    struct point p = { kind, va, size };

    if (kind == DEBUG_BREAK) {
        g_array_insert_val(d->breaks, breaks_below(d, va), va);
        d->breaks_id += id_of(va);
        d->at_offset[va / 4 % OFFSETS]++;
    } else {
        g_array_append_val(d->points, p);
    }
    reconfigure(cpu);
}

static bool remove_break(struct cpu_debug *d, uint64_t va)
{
    if (!break_in(d, va, 1))
        return false;
    g_array_remove_index(d->breaks, breaks_below(d, va));
    d->breaks_id -= id_of(va);
    d->at_offset[va / 4 % OFFSETS]--;
    return true;
}

static bool remove_watch(struct cpu_debug *d, enum debug_kind kind, uint64_t va, uint64_t size)
{
    for (unsigned i = 0; i < d->points->len; i++) {
        const struct point *p = &g_array_index(d->points, struct point, i);

        if (p->kind == kind && p->va == va && p->size == size) {
            g_array_remove_index_fast(d->points, i);
            return true;
        }
    }
    return false;
}

bool debug_remove(struct cpu *cpu, enum debug_kind kind, uint64_t va, uint64_t size)
{
    bool had = kind == DEBUG_BREAK ? remove_break(cpu->debug, va) : remove_watch(cpu->debug, kind, va, size);

    if (had)
        reconfigure(cpu);
    return had;
}

void debug_remove_all(struct cpu *cpu)
{
    struct cpu_debug *d = cpu->debug;

    g_array_set_size(d->points, 0);
    g_array_set_size(d->breaks, 0);
    d->breaks_id = 0;
    memset(d->at_offset, 0, sizeof(d->at_offset));
    d->external_step = false;
    reconfigure(cpu);
}

uint64_t debug_breaks_id(const struct cpu *cpu)
{
    return cpu->debug->breaks_id;
}

bool debug_break_in_page(const struct cpu *cpu, uint64_t va)
{
    return break_in(cpu->debug, va & ~(uint64_t)(MEM_PAGE_SIZE - 1), MEM_PAGE_SIZE);
}

bool debug_break_at_offset(const struct cpu *cpu, unsigned off)
{
    return cpu->debug->at_offset[off / 4 % OFFSETS];
}

void debug_set_single_step(struct cpu *cpu, bool on)
{
    cpu->debug->external_step = on;
    reconfigure(cpu);
}

bool debug_stopped(const struct cpu *cpu)
{
    return cpu->debug->stopped;
}

void debug_resume(struct cpu *cpu)
{
    struct cpu_debug *d = cpu->debug;

    d->stopped = false;
    d->resuming = d->external_step || d->breaks->len || d->external_watches;
    d->exempt_watches = true;
    atomic_fetch_and(&cpu->pending, ~(unsigned)PEND_DEBUG);
    debug_refresh(cpu);
}

void debug_release(struct cpu *cpu)
{
    struct cpu_debug *d = cpu->debug;

    d->stopped = false;
    d->resuming = d->external_step;
    d->exempt = d->exempt_watches = false;
    atomic_fetch_and(&cpu->pending, ~(unsigned)PEND_DEBUG);
    debug_refresh(cpu);
}

void debug_hold(struct cpu *cpu)
{
    cpu->debug->stopped = true;
}

void debug_set_step_range(struct cpu *cpu, uint64_t start, uint64_t end)
{
    cpu->debug->range_start = start;
    cpu->debug->range_end = end;
}

void debug_set_step_masks_interrupts(struct cpu *cpu, bool on)
{
    cpu->debug->step_masks = on;
}

bool debug_stepping(const struct cpu *cpu)
{
    return cpu->debug->external_step;
}

bool debug_holds_interrupts(const struct cpu *cpu)
{
    return cpu->debug->external_step && cpu->debug->step_masks;
}
