/*
 * See diagnose.h.
 *
 * Rules, so that the line is right and rare:
 *  - a guest that has printed nothing since its start is always explained; one that has, only when it is stuck in a way
 *    that no working system is: exceptions inside the exception vectors, or a short loop with interrupts masked;
 *  - once for each silence, and not after a panic, which is reported by itself;
 *  - no vCPU is stopped for longer than it takes to read some registers.
 *
 * Threads: `lock' guards what the tap's write shares with the main thread.
 */
#include "machine/diagnose.h"

#include <inttypes.h>
#include <string.h>

#include "base/report.h"
#include "cpu/cluster.h"

enum { SILENCE_MS = 10000, SAMPLES = 8, SAMPLE_MS = 25, PANIC_GRACE_MS = 2000, VECTORS_SIZE = 0x800, LINE = 256,
       BUSY_INSNS = 1000000 }; /* while the samples are taken, 175 ms */

struct sample {
    uint64_t pc, icount, vbar, elr, esr, far;
    uint32_t daif;
    uint8_t el;
    bool mmu;
    bool timer; /* some generic timer will interrupt it */
    bool asleep;
};

struct diagnose {
    struct chardev tap; /* what the UART writes to; must be first */
    struct chardev *back;
    const struct config *config;
    struct cluster *cluster;
    struct kernel *kernel;
    void (*on_panic)(void *opaque);
    void *opaque;
    guint tick, sampling, panic_timer;
    bool explained; /* this silence */
    struct sample samples[SAMPLES][CPU_MAX];
    unsigned taken;

    GMutex lock;
    gint64 last_output; /* monotonic microseconds: output, or the start */
    bool printed;       /* anything since the start */
    bool held;          /* the guest waits with its output until its stack has been read */
    char crash_line[LINE]; /* what began it */
    char *report;       /* of an oops or panic, to be told when the kernel has told its own; NULL: none */
    guint report_timer;
    bool panicked, panic_done;
    char line[LINE];
    size_t used;
    char panic_text[LINE];
};

/* --- the tap -------------------------------------------------------------------------------------------- */

/* Says that the kernel has panicked, once.  true: that was now. */
static bool say_panic(struct diagnose *d)
{
    char text[LINE];

    g_mutex_lock(&d->lock);
    bool now = d->panicked && !d->panic_done;
    d->panic_done |= now;
    memcpy(text, d->panic_text, sizeof text);
    g_mutex_unlock(&d->lock);
    if (now && !d->config->console_watched)
        warn("the guest's kernel has panicked: %s", text);
    return now;
}

static gboolean report_panic(gpointer opaque)
{
    struct diagnose *d = opaque;

    if (d->panic_timer)
        g_source_remove(d->panic_timer);
    d->panic_timer = 0;
    if (say_panic(d))
        d->on_panic(d->opaque);
    return G_SOURCE_REMOVE;
}

static gboolean panic_is_old(gpointer opaque)
{
    struct diagnose *d = opaque;
    d->panic_timer = 0;
    return report_panic(d);
}

/* Waits for the rest of the kernel's message: its "end" line, or some seconds. */
static gboolean panic_begins(gpointer opaque)
{
    struct diagnose *d = opaque;
    if (!d->panic_timer)
        d->panic_timer = g_timeout_add(PANIC_GRACE_MS, panic_is_old, d);
    return G_SOURCE_REMOVE;
}

/* --- reports of oopses (-panic-report) ------------------------------------------------------------------------- */

static gboolean tell_report(gpointer opaque)
{
    struct diagnose *d = opaque;

    g_mutex_lock(&d->lock);
    g_autofree char *text = g_steal_pointer(&d->report);
    g_mutex_unlock(&d->lock);
    if (d->report_timer)
        g_source_remove(d->report_timer);
    d->report_timer = 0;
    if (text)
        warn("%s", text);
    return G_SOURCE_REMOVE;
}

static gboolean report_is_old(gpointer opaque)
{
    struct diagnose *d = opaque;
    d->report_timer = 0;
    return tell_report(d);
}

/* The vCPU that dies spins at a UART that takes nothing: it is where it was when it printed the first line. */
static gboolean take_report(gpointer opaque)
{
    struct diagnose *d = opaque;
    GString *text = g_string_new(NULL);

    cluster_pause(d->cluster);
    g_string_append_printf(text, "report: %s\n", d->crash_line);
    bool known = kernel_print_report(d->kernel, text);
    cluster_resume(d->cluster);
    g_strchomp(text->str);
    g_mutex_lock(&d->lock);
    if (known && !d->report)
        d->report = g_string_free(text, FALSE);
    else
        g_string_free(text, TRUE);
    d->held = false;
    g_mutex_unlock(&d->lock);
    if (known && !d->report_timer)
        d->report_timer = g_timeout_add(PANIC_GRACE_MS, report_is_old, d);
    chardev_writable(&d->tap);
    return G_SOURCE_REMOVE;
}

static void look_for_crash_locked(struct diagnose *d)
{
    static const char *const marks[] = { "Internal error: ", "Kernel panic - not syncing" };

    if (!d->config->panic_report || !d->kernel)
        return;
    if (d->report && (strstr(d->line, "---[ end trace") || strstr(d->line, "---[ end Kernel panic")))
        g_idle_add(tell_report, d);
    for (unsigned i = 0; i < G_N_ELEMENTS(marks); i++) {
        const char *found = strstr(d->line, marks[i]);
        if (!found || d->held || d->report || strstr(d->line, "---["))
            continue;
        g_strlcpy(d->crash_line, found, LINE);
        g_strchomp(d->crash_line);
        d->held = true;
        g_idle_add(take_report, d);
    }
}

static void look_at_line_locked(struct diagnose *d)
{
    static const char mark[] = "Kernel panic - not syncing";
    d->line[d->used] = '\0';
    const char *found = strstr(d->line, mark);

    look_for_crash_locked(d);

    if (!found)
        return;
    const char *text = found + strlen(mark);
    if (*text == ':')
        text++;
    if (!d->panicked) {
        g_strlcpy(d->panic_text, g_strchomp((char *)(uintptr_t)text + strspn(text, " ")), LINE);
        d->panicked = true;
        g_idle_add(panic_begins, d);
    }
    if (strstr(d->line, "end Kernel panic"))
        g_idle_add(report_panic, d);
}

static void note_output(struct diagnose *d, const uint8_t *buf, size_t n)
{
    g_mutex_lock(&d->lock);
    d->last_output = g_get_monotonic_time();
    d->printed = true;
    for (size_t i = 0; i < n; i++) {
        if (buf[i] == '\n')
            look_at_line_locked(d);
        if (buf[i] == '\n')
            d->used = 0;
        else if (d->used < LINE - 1)
            d->line[d->used++] = (char)buf[i];
    }
    g_mutex_unlock(&d->lock);
}

static ssize_t tap_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
    struct diagnose *d = (struct diagnose *)chr;

    g_mutex_lock(&d->lock);
    bool held = d->held;
    g_mutex_unlock(&d->lock);
    if (held)
        return 0;
    if (d->config->panic_report) { /* a line at a time, so that what follows one can be held back */
        const uint8_t *end = memchr(buf, '\n', len);
        len = end ? (size_t)(end - buf) + 1 : len;
    }
    size_t n = chardev_write(d->back, buf, len);

    note_output(d, buf, n);
    return (ssize_t)n;
}

static void tap_accept_input(struct chardev *chr)
{
    chardev_accept_input(((struct diagnose *)chr)->back);
}

static void tap_set_break(struct chardev *chr, bool on)
{
    chardev_set_break(((struct diagnose *)chr)->back, on);
}

static void tap_drain(struct chardev *chr)
{
    struct diagnose *d = (struct diagnose *)chr;
    if (d->back && d->back->ops->drain)
        d->back->ops->drain(d->back);
}

static void tap_free(struct chardev *chr)
{
    (void)chr; /* goes with the diagnose */
}

static const struct chardev_ops tap_ops = {
    .kind = "tap", .write = tap_write, .accept_input = tap_accept_input, .set_break = tap_set_break,
    .drain = tap_drain, .free = tap_free,
};

/* What comes from the back end goes on to the UART. */
static size_t back_can_receive(void *opaque)
{
    return chardev_can_receive(opaque);
}

static void back_receive(void *opaque, const uint8_t *buf, size_t len)
{
    chardev_receive(opaque, buf, len);
}

static void back_event(void *opaque, enum chardev_event event)
{
    struct diagnose *d = opaque;
    d->tap.rows = d->back->rows;
    d->tap.cols = d->back->cols;
    chardev_send_event(&d->tap, event);
}

static void back_writable(void *opaque)
{
    chardev_writable(opaque);
}

static const struct chardev_client back_client = {
    .can_receive = back_can_receive, .receive = back_receive, .event = back_event, .writable = back_writable,
};

/* --- words for a syndrome (DDI0487 D17.2.37, ESR_EL1) ------------------------------------------------------- */

static const char *class_text(unsigned ec)
{
    static const char *const names[64] = {
        [EC_UNKNOWN] = "undefined instruction", [EC_WFX] = "trapped WFI or WFE",
        [EC_FP_ACCESS] = "floating point while it is off", [EC_BTI] = "branch target check",
        [EC_ILLEGAL] = "illegal execution state", [EC_SVC] = "SVC", [EC_HVC] = "HVC",
        [EC_SYSREG] = "trapped system register access", [EC_IABT_LOWER] = "instruction abort from EL0",
        [EC_IABT_SAME] = "instruction abort", [EC_PC_ALIGN] = "misaligned pc",
        [EC_DABT_LOWER] = "data abort from EL0", [EC_DABT_SAME] = "data abort", [EC_SP_ALIGN] = "misaligned sp",
        [EC_FP_EXC] = "floating-point exception", [EC_SERROR] = "SError", [EC_BRK] = "BRK instruction",
        [EC_BKPT_SAME] = "breakpoint", [EC_STEP_SAME] = "software step", [EC_WATCH_SAME] = "watchpoint" };
    return names[ec & 63] ? names[ec & 63] : "unknown exception";
}

static bool is_abort(unsigned ec)
{
    return ec == EC_IABT_LOWER || ec == EC_IABT_SAME || ec == EC_DABT_LOWER || ec == EC_DABT_SAME;
}

static const char *fault_text(unsigned status)
{
    static const char *const by_level[] = { "address size fault", "translation fault", "access flag fault",
                                            "permission fault" };
    if (status < 0x10)
        return by_level[status >> 2];
    switch (status) {
    case 0x10: return "nothing answers at this address";
    case 0x14: case 0x15: case 0x16: case 0x17: return "page tables where nothing answers";
    case 0x21: return "misaligned access";
    case 0x30: return "TLB conflict";
    default: return "other fault";
    }
}

static char *syndrome_text(const struct sample *s)
{
    unsigned ec = s->esr >> 26 & 63, status = s->esr & 63;

    if (!is_abort(ec))
        return g_strdup_printf("%s (ESR_EL1 0x%08" PRIx64 ")", class_text(ec), s->esr);
    return g_strdup_printf("%s: %s (ESR_EL1 0x%08" PRIx64 ", address 0x%" PRIx64 ")", class_text(ec),
                           fault_text(status), s->esr, s->far);
}

/* --- samples ---------------------------------------------------------------------------------------------------- */

static bool timer_set(const struct gtimer *t)
{
    return (t->ctl & 3) == 1; /* ENABLE and not IMASK */
}

static void take_sample(struct diagnose *d)
{
    struct cluster *cl = d->cluster;

    cluster_pause(cl);
    for (unsigned i = 0; i < cl->n; i++) {
        const struct cpu *c = cl->cpu[i];
        d->samples[d->taken][i] = (struct sample){
            .pc = c->pc, .icount = c->icount, .vbar = c->sys.vbar_el1, .elr = c->sys.elr_el1, .esr = c->sys.esr_el1,
            .far = c->sys.far_el1, .daif = c->daif, .el = c->el, .mmu = c->sys.sctlr_el1 & 1,
            .timer = timer_set(&c->gt[GT_PHYS]) || timer_set(&c->gt[GT_VIRT]),
            .asleep = cluster_sleeps(c) };
    }
    cluster_resume(cl);
    d->taken++;
}

static bool in_vectors(const struct sample *s, uint64_t pc)
{
    return pc - s->vbar < VECTORS_SIZE;
}

/* Does vCPU i take exceptions inside its own vectors, again and again? */
static bool exception_loop(const struct diagnose *d, unsigned i)
{
    for (unsigned n = 0; n < SAMPLES; n++) {
        const struct sample *s = &d->samples[n][i];
        bool off = !s->icount && !s->elr; /* not begun yet: all is zero, vectors and pc */
        if (off || s->el != 1 || !in_vectors(s, s->pc) || !in_vectors(s, s->elr))
            return false;
    }
    return d->samples[SAMPLES - 1][i].icount != d->samples[0][i].icount ||
           !d->samples[0][i].timer; /* an engine may not count instructions that fault in the fetch */
}

/*
 * Busy, and not just woken now and then: Linux waits in WFI with interrupts masked, so that an idle guest looks like a
 * short loop but for the number of its instructions, and for its sleep: with many interrupts that number is large.
 */
static bool ran(const struct diagnose *d, unsigned i)
{
    return d->samples[SAMPLES - 1][i].icount - d->samples[0][i].icount > BUSY_INSNS;
}

/* A loop of a few instructions at EL1 that no interrupt can end. */
static bool masked_loop(const struct diagnose *d, unsigned i)
{
    uint64_t low = UINT64_MAX, high = 0;

    for (unsigned n = 0; n < SAMPLES; n++) {
        const struct sample *s = &d->samples[n][i];
        if (s->el != 1 || !(s->daif & DAIF_I) || s->asleep)
            return false;
        low = MIN(low, s->pc);
        high = MAX(high, s->pc);
    }
    return ran(d, i) && high - low < 256;
}

/* --- the conclusion ------------------------------------------------------------------------------------------------ */

static bool has_virtconsole(const struct config *c)
{
    for (guint i = 0; i < c->devices->len; i++) {
        const struct device_config *dc = g_ptr_array_index(c->devices, i);
        if (dc->driver && !strcmp(dc->driver, "virtconsole"))
            return true;
    }
    return false;
}

/* Is there a device here behind console=NAME? */
static bool console_exists(const struct config *c, const char *name)
{
    return g_str_has_prefix(name, "ttyAMA0") || g_str_has_prefix(name, "pl11,") || g_str_has_prefix(name, "pl011,") ||
           g_str_has_prefix(name, "ttynull") || (g_str_has_prefix(name, "hvc") && has_virtconsole(c));
}

/* What the kernel's command line says about the console; NULL when that is in order or not known. */
static char *console_hint(const struct config *c)
{
    g_auto(GStrv) words = g_strsplit_set(c->append ? c->append : "", " \t", -1);
    const char *missing = NULL;

    if (!c->kernel || c->dtb)
        return NULL;
    for (char **w = words; *w; w++) {
        if (!g_str_has_prefix(*w, "console="))
            continue;
        if (console_exists(c, *w + 8))
            return NULL;
        missing = *w + 8;
    }
    if (missing)
        return g_strdup_printf("console=%s names a device that this board does not have; its serial port is "
                               "console=ttyAMA0", missing);
    return g_strdup("there is no console= on the kernel's command line; add -append console=ttyAMA0");
}

/* Does the guest print to a console that is not tapped? */
static bool prints_elsewhere(const struct config *c)
{
    return has_virtconsole(c) && c->append && strstr(c->append, "console=hvc") && !strstr(c->append, "console=ttyAMA");
}

/* "0xffff... (function+0x10/0x40)" where a name is known. */
static char *address_text(const struct diagnose *d, uint64_t va)
{
    cluster_pause(d->cluster);
    g_autofree char *name = d->kernel ? kernel_describe_address(d->kernel, va) : NULL;
    char *text = name ? g_strdup_printf("0x%" PRIx64 " (%s)", va, name) : g_strdup_printf("0x%" PRIx64, va);
    cluster_resume(d->cluster);
    return text;
}

static char *stuck_text(const struct diagnose *d)
{
    for (unsigned i = 0; i < d->cluster->n; i++) {
        const struct sample *s = &d->samples[SAMPLES - 1][i];
        if (exception_loop(d, i)) {
            g_autofree char *why = syndrome_text(s);
            g_autofree char *pc = address_text(d, s->pc), *elr = address_text(d, s->elr);
            return g_strdup_printf("vCPU %u takes exceptions without end at its own vectors (VBAR_EL1 0x%" PRIx64
                                   ", pc %s, ELR_EL1 %s): %s", i, s->vbar, pc, elr, why);
        }
        if (masked_loop(d, i)) {
            g_autofree char *pc = address_text(d, s->pc);
            return g_strdup_printf("vCPU %u loops at pc %s with interrupts masked", i, pc);
        }
    }
    return NULL;
}

static char *busy_text(const struct diagnose *d)
{
    bool wakes = false;

    for (unsigned i = 0; i < d->cluster->n; i++) {
        const struct sample *s = &d->samples[SAMPLES - 1][i];
        wakes |= s->timer;
        if (ran(d, i)) {
            g_autofree char *pc = address_text(d, s->pc);
            return g_strdup_printf("vCPU %u is busy at pc %s (EL%u, MMU %s)", i, pc, s->el, s->mmu ? "on" : "off");
        }
    }
    g_autofree char *pc = address_text(d, d->samples[SAMPLES - 1][0].pc);
    return g_strdup_printf(wakes ? "the guest is idle (vCPU 0 at pc %s)"
                                 : "every vCPU waits for an interrupt, and none is set to come (vCPU 0 at pc %s)", pc);
}

static void conclude(struct diagnose *d, bool printed)
{
    g_autofree char *stuck = stuck_text(d), *busy = stuck || printed ? NULL : busy_text(d);
    g_autofree char *hint = printed ? NULL : console_hint(d->config);
    const char *state = stuck ? stuck : busy;

    if (!state)
        return;
    if (!hint && !printed)
        hint = g_strdup(!d->config->kernel ? "no -kernel was given, so there is nothing to run"
                        : stuck || strstr(busy, "busy") ? "earlycon on the kernel's command line shows how far it comes"
                                                        : "the kernel may lack a driver for the PL011");
    warn("nothing on the console for %d s: %s%s%s", SILENCE_MS / 1000, state, hint ? "; " : "", hint ? hint : "");
}

static gboolean on_sample(gpointer opaque)
{
    struct diagnose *d = opaque;

    g_mutex_lock(&d->lock);
    bool printed = d->printed, silent = g_get_monotonic_time() - d->last_output > SILENCE_MS * 1000;
    g_mutex_unlock(&d->lock);
    if (silent && !cluster_paused(d->cluster)) {
        take_sample(d);
        if (d->taken < SAMPLES)
            return G_SOURCE_CONTINUE;
        conclude(d, printed);
    }
    d->sampling = 0;
    return G_SOURCE_REMOVE;
}

static gboolean on_tick(gpointer opaque)
{
    struct diagnose *d = opaque;

    g_mutex_lock(&d->lock);
    bool silent = g_get_monotonic_time() - d->last_output > SILENCE_MS * 1000, panicked = d->panicked;
    g_mutex_unlock(&d->lock);
    if (!silent)
        d->explained = false;
    if (silent && !d->explained && !panicked && !cluster_paused(d->cluster)) {
        d->explained = true;
        d->taken = 0;
        if (!d->sampling)
            d->sampling = g_timeout_add(SAMPLE_MS, on_sample, d);
    }
    return G_SOURCE_CONTINUE;
}

/* --- the kernel's needs ------------------------------------------------------------------------------------------- */

/* The Image header, which a vmlinux has too at its start (booting.rst): page size in bits 2:1 of flags. */
bool diagnose_check_kernel(struct mem *mem, const struct boot_image *image, const struct config *config,
                           const struct cpu *cpu, GError **err)
{
    static const char *const sizes[] = { NULL, "4 KiB", "16 KiB", "64 KiB" };
    enum { ID_AA64MMFR0 = 7 * 8 }; /* CRm 7, op2 0 */
    static const unsigned fields[] = { 0, 28, 20, 24 }; /* ID_AA64MMFR0_EL1.TGran4, 16, 64 */
    uint8_t header[64];

    if (!image->kernel_size || !mem_read(mem, image->kernel_pa, header, sizeof header) ||
        memcmp(header + 56, "ARM\x64", 4))
        return true;
    unsigned granule = header[24] >> 1 & 3;
    unsigned have = granule ? (unsigned)(cpu->sys.id[ID_AA64MMFR0] >> fields[granule] & 15) : 0;
    if (!granule || (granule == 2 ? have != 0 : have != 15))
        return true;
    g_set_error(err, BOOT_ERROR, BOOT_ERROR_FORMAT, "%s: built for %s pages, which the %s does not have (-cpu max has)",
                config->kernel, sizes[granule], cpu_model_name(config->cpu));
    return false;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct diagnose *diagnose_new(const struct config *config, struct chardev *console, void (*panicked)(void *opaque),
                              void *opaque)
{
    struct diagnose *d = g_new0(struct diagnose, 1);

    d->config = config;
    d->back = console;
    d->on_panic = panicked;
    d->opaque = opaque;
    g_mutex_init(&d->lock);
    d->tap.ops = &tap_ops;
    d->tap.id = console ? console->id : NULL;
    d->tap.open = !console || console->open;
    if (console) {
        d->tap.rows = console->rows;
        d->tap.cols = console->cols;
    }
    chardev_connect(console, &back_client, d);
    return d;
}

struct chardev *diagnose_console(struct diagnose *d)
{
    return &d->tap;
}

void diagnose_start(struct diagnose *d, struct cluster *cluster, struct kernel *kernel)
{
    diagnose_stop(d);
    d->cluster = cluster;
    d->kernel = kernel;
    g_mutex_lock(&d->lock);
    d->last_output = g_get_monotonic_time();
    d->printed = d->panicked = d->panic_done = d->held = false;
    d->used = 0;
    g_mutex_unlock(&d->lock);
    d->explained = false;
    if (!prints_elsewhere(d->config) && !d->config->console_watched)
        d->tick = g_timeout_add_seconds(1, on_tick, d);
}

bool diagnose_panicked(struct diagnose *d)
{
    say_panic(d);
    g_mutex_lock(&d->lock);
    bool panicked = d->panicked;
    g_mutex_unlock(&d->lock);
    return panicked;
}

void diagnose_stop(struct diagnose *d)
{
    guint *sources[] = { &d->tick, &d->sampling, &d->panic_timer, &d->report_timer };
    for (unsigned i = 0; i < G_N_ELEMENTS(sources); i++) {
        if (*sources[i])
            g_source_remove(*sources[i]);
        *sources[i] = 0;
    }
    while (g_idle_remove_by_data(d))
        continue;
    tell_report(d); /* what is known is not lost at the end */
}

void diagnose_free(struct diagnose *d)
{
    diagnose_stop(d);
    chardev_connect(d->back, NULL, NULL);
    g_mutex_clear(&d->lock);
    g_free(d);
}
