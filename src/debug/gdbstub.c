/*
 * See gdbstub.h.  gdb's manual, "Remote Protocol".  Break- and watchpoints are the vCPUs' own (cpu/debug.h): nothing is
 * patched into guest memory, so the guest cannot see them and any number is possible.
 *
 * A vCPU that meets a point or ends a step stops by itself, on its own thread, and wakes the main loop, which stops the
 * others and reports.  Two may have met points at once: the second is reported when it is let go and meets its point
 * again.  gdb lifts the points at a thread's pc itself when it goes on from there (debug_release()).
 *
 * Left out: non-stop mode, extended-remote (run, attach), multiprocess, file transfer, tracepoints.
 */
#include "debug/gdbstub.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "cpu/cluster.h"
#include "cpu/debug.h"
#include "debug/gdb_link.h"
#include "debug/gdb_regs.h"
#include "debug/gdb_tasks.h"
#include "debug/peek.h"
#include "debug/scout.h"
#include "kernel/kernel.h"

/* qqemu.sstep */
enum { SSTEP_ENABLE = 1, SSTEP_NOIRQ = 2, SSTEP_NOTIMER = 4, SSTEP_ALL = 7 };
enum { SIG_NONE = 0, SIG_INT = 2, SIG_QUIT = 3, SIG_TRAP = 5 };
enum { POINTS_MAX = 65536 };

struct hit { /* guarded by gdbstub.lock until the cluster is paused */
    bool any;
    enum debug_kind kind;
    uint64_t va;
};

struct gdbstub {
    struct control *control;
    struct cluster *cluster;
    struct gdb_link *link;
    struct gdb_regs *regs;
    gdbstub_command_fn *command;
    void *command_opaque;
    bool attached, physical, ended;
    bool waiting;    /* the debugger waits for a stop */
    bool resuming;   /* it is we who let the machine go on */
    bool was_running, resumed; /* before it came; has it ever said go on */
    bool interrupted;
    unsigned sstep, points;
    unsigned g_thread, c_thread; /* vCPU numbers: for registers and memory; for c and s */
    struct gdb_tasks *tasks;
    bool show_tasks;     /* tasks are threads, too: monitor threads on */
    uint64_t g_task;     /* the thread for registers when that is a task; 0: a vCPU */
    struct scout *scout; /* NULL: not sent */
    bool lldb;           /* the debugger is that */
    bool relocated;      /* the debugger has been told where the kernel runs */
    GMutex lock;
    struct hit hits[CPU_MAX];
    GSource *hit_source;
};

struct reader { /* of a packet's text */
    const char *p;
};

/* --- small things --------------------------------------------------------------------------------------- */

static void reply(struct gdbstub *g, const char *text)
{
    gdb_link_send(g->link, text, strlen(text));
}

static void reply_free(struct gdbstub *g, GString *s)
{
    gdb_link_send(g->link, s->str, s->len);
    g_string_free(s, TRUE);
}

static void reply_ok(struct gdbstub *g, bool ok)
{
    reply(g, ok ? "OK" : "E22");
}

static void append_hex(GString *s, const void *data, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;

    for (size_t i = 0; i < len; i++) {
        g_string_append_c(s, digits[p[i] >> 4]);
        g_string_append_c(s, digits[p[i] & 15]);
    }
}

/* A hexadecimal number of at most 16 digits. */
static bool get_hex(struct reader *r, uint64_t *value)
{
    unsigned n = 0;

    for (*value = 0; n <= 16 && g_ascii_isxdigit(*r->p); n++)
        *value = *value << 4 | (uint64_t)g_ascii_xdigit_value(*r->p++);
    return n && n <= 16;
}

static bool get_char(struct reader *r, char c)
{
    if (*r->p != c)
        return false;
    r->p++;
    return true;
}

static bool get_word(struct reader *r, const char *word)
{
    size_t n = strlen(word);

    if (strncmp(r->p, word, n))
        return false;
    r->p += n;
    return true;
}

/* Bytes from hexadecimal digits; exactly len of them must be there. */
static bool get_bytes(struct reader *r, uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        int high = g_ascii_xdigit_value(r->p[0]), low = high < 0 ? -1 : g_ascii_xdigit_value(r->p[1]);
        if (low < 0)
            return false;
        buf[i] = (uint8_t)(high << 4 | low);
        r->p += 2;
    }
    return true;
}

/* A thread id: -1 all, 0 any; else vCPU or task, which must exist.  The process part of pP.T is skipped. */
static bool get_thread(struct gdbstub *g, struct reader *r, int *thread)
{
    uint64_t id;

    if (get_char(r, 'p')) {
        if (!get_word(r, "-1") && !get_hex(r, &id))
            return false;
        if (!get_char(r, '.')) {
            *thread = -1;
            return true;
        }
    }
    if (get_word(r, "-1")) {
        *thread = -1;
        return true;
    }
    if (!get_hex(r, &id))
        return false;
    g_autofree char *task = g->show_tasks && id > GDB_TASK_BASE && id < GDB_TASK_END ? gdb_tasks_describe(g->tasks, id) : NULL;
    *thread = (int)id;
    return id <= g->cluster->n || task;
}

static struct cpu *selected(struct gdbstub *g)
{
    return g->cluster->cpu[g->g_thread];
}

/* --- the kernel before its MMU is on ----------------------------------------------------------------------- */

/*
 * A debugger that was told where the kernel will run (query_offsets) has its symbols there.  Until the kernel has got
 * there it runs at its physical address; to the debugger the program counter is then what it will be.
 */
static bool kernel_at(struct gdbstub *g, struct kernel_place *p)
{
    return g->relocated && kernel_where(control_kernel(g->control), p);
}

static uint64_t shown_pc(struct gdbstub *g, const struct cpu *cpu, uint64_t pc)
{
    struct kernel_place p;

    if (cpu->el == 1 && kernel_at(g, &p) && pc - p.text_pa < p.size)
        return pc - p.text_pa + p.text_va;
    return pc;
}

/* The other way: where pc is in the image, it is meant in the half of the address space in which the vCPU is now. */
static uint64_t meant_pc(struct gdbstub *g, const struct cpu *cpu, uint64_t pc)
{
    struct kernel_place p;

    if (!(cpu->pc >> 63) && cpu->el == 1 && kernel_at(g, &p) && pc - p.text_va < p.size)
        return pc - p.text_va + p.text_pa;
    return pc;
}

/* While the kernel has not moved yet a breakpoint is at either address.  false: there is no second one. */
static bool second_address(struct gdbstub *g, uint64_t addr, uint64_t *second)
{
    struct kernel_place p;

    if (kernel_is_relocated(control_kernel(g->control)) || !kernel_at(g, &p) || addr - p.text_va >= p.size)
        return false;
    *second = addr - p.text_va + p.text_pa;
    return true;
}

static void send_scout(struct gdbstub *g)
{
    if (!g->scout)
        g->scout = scout_send(g->cluster, control_kernel(g->control));
}

static void hear_scout(struct gdbstub *g)
{
    struct kernel *k = control_kernel(g->control);
    uint64_t text_va;

    if (g->scout && !kernel_is_relocated(k) && scout_result(g->scout, &text_va)) {
        kernel_predict(k, text_va);
        g->relocated = true;
    }
}

/*
 * qOffsets: TextSeg is the first segment's address, and moves all sections of a file with it.  For a kernel that has
 * still to move itself the scout tells where to; without a kernel nothing is said.  lldb takes the value for the distance
 * from where the file was linked.
 */
static void query_offsets(struct gdbstub *g)
{
    struct kernel_place p;
    char text[40];

    hear_scout(g);
    g->relocated = kernel_where(control_kernel(g->control), &p);
    uint64_t value = g->relocated ? p.text_va - (g->lldb ? p.link_va : 0) : 0;
    g_snprintf(text, sizeof text, "TextSeg=%" PRIx64, value);
    reply(g, g->relocated && (!g->lldb || p.link_va) ? text : "");
}

/* --- stop ----------------------------------------------------------------------------------------------- */

/* On the vCPU's thread. */
static void on_hit(void *opaque, struct cpu *cpu, enum debug_kind kind, uint64_t va)
{
    struct gdbstub *g = opaque;

    g_mutex_lock(&g->lock);
    g->hits[cpu->index] = (struct hit){ true, kind, va };
    g_mutex_unlock(&g->lock);
    g_source_set_ready_time(g->hit_source, 0);
}

static gboolean hit_dispatch(GSource *source, GSourceFunc fn, gpointer data)
{
    g_source_set_ready_time(source, -1);
    return fn(data);
}
static GSourceFuncs hit_funcs = { .dispatch = hit_dispatch };

static gboolean on_hit_main(gpointer opaque)
{
    struct gdbstub *g = opaque;
    bool any = false;

    g_mutex_lock(&g->lock);
    for (unsigned i = 0; i < g->cluster->n; i++)
        any |= g->hits[i].any;
    g_mutex_unlock(&g->lock);
    if (any && g->attached)
        control_stop(g->control, RUN_DEBUG);
    return G_SOURCE_CONTINUE;
}

/* The vCPU whose stop is to be told: the one that was stepped before others.  -1: none. */
static int find_hit(const struct gdbstub *g)
{
    if (g->hits[g->c_thread].any)
        return (int)g->c_thread;
    for (unsigned i = 0; i < g->cluster->n; i++)
        if (g->hits[i].any)
            return (int)i;
    return -1;
}

static int stop_signal(const struct gdbstub *g)
{
    switch (control_state(g->control)) {
    case RUN_DEBUG: return g->interrupted ? SIG_INT : SIG_TRAP;
    case RUN_SHUTDOWN: case RUN_PANICKED: return SIG_QUIT;
    case RUN_PAUSED: return SIG_INT;
    default: return SIG_TRAP;
    }
}

static void send_stop(struct gdbstub *g)
{
    static const char *const watch[] = { [DEBUG_WATCH_WRITE] = "watch", [DEBUG_WATCH_READ] = "rwatch",
                                         [DEBUG_WATCH_ACCESS] = "awatch" };
    int n = find_hit(g);
    GString *s = g_string_new(NULL);

    if (n >= 0)
        g->g_thread = g->c_thread = (unsigned)n;
    g_string_printf(s, "T%02xthread:%x;", (unsigned)(n >= 0 ? SIG_TRAP : stop_signal(g)), g->g_thread + 1);
    if (n >= 0 && g->hits[n].kind != DEBUG_BREAK)
        g_string_append_printf(s, "%s:%" PRIx64 ";", watch[g->hits[n].kind], g->hits[n].va);
    reply_free(g, s);
}

/* The vCPUs stand, whoever stopped them. */
static void stopped(struct gdbstub *g)
{
    for (unsigned i = 0; i < g->cluster->n; i++)
        debug_set_single_step(g->cluster->cpu[i], false);
    if (g->waiting) {
        g->waiting = false;
        send_stop(g);
    }
    g->interrupted = false;
}

/* --- go on ---------------------------------------------------------------------------------------------- */

enum action { HOLD, GO, STEP, RANGE };
struct plan {
    int task; /* a step of it was asked for; 0: none */
    enum action action[CPU_MAX];
    uint64_t start[CPU_MAX], end[CPU_MAX];
};

static void release_all(struct gdbstub *g)
{
    memset(g->hits, 0, sizeof g->hits);
    for (unsigned i = 0; i < g->cluster->n; i++) {
        debug_set_single_step(g->cluster->cpu[i], false);
        debug_release(g->cluster->cpu[i]);
    }
}

static void prepare(struct gdbstub *g, struct cpu *cpu, const struct plan *plan)
{
    unsigned i = cpu->index;
    bool step = plan->action[i] == STEP || plan->action[i] == RANGE;

    if (plan->action[i] == HOLD) {
        debug_hold(cpu);
        return;
    }
    bool range = plan->action[i] == RANGE;
    debug_set_step_range(cpu, range ? meant_pc(g, cpu, plan->start[i]) : 0, range ? meant_pc(g, cpu, plan->end[i]) : 0);
    debug_set_step_masks_interrupts(cpu, g->sstep & SSTEP_NOIRQ);
    debug_set_single_step(cpu, step);
    debug_release(cpu);
    if (step)
        g->c_thread = i;
}

static void go_on(struct gdbstub *g, const struct plan *plan)
{
    memset(g->hits, 0, sizeof g->hits);
    gdb_tasks_forget(g->tasks);
    g->g_task = 0;
    for (unsigned i = 0; i < g->cluster->n; i++)
        prepare(g, g->cluster->cpu[i], plan);
    g->waiting = g->resumed = g->resuming = true;
    control_continue(g->control);
    g->resuming = false;
}

static void plan_all(struct plan *plan, enum action action)
{
    for (unsigned i = 0; i < CPU_MAX; i++)
        plan->action[i] = action;
}

/* c and s [addr], C and S sig[;addr]: c for all, s for one while the others go on. */
static void old_resume(struct gdbstub *g, struct reader *r, bool step, bool signal)
{
    struct plan plan;
    uint64_t value;

    if (signal && (!get_hex(r, &value) || (*r->p && !get_char(r, ';')))) {
        reply(g, "E22");
        return;
    }
    if (get_hex(r, &value))
        g->cluster->cpu[g->c_thread]->pc = meant_pc(g, g->cluster->cpu[g->c_thread], value);
    plan_all(&plan, GO);
    if (step)
        plan.action[g->c_thread] = STEP;
    go_on(g, &plan);
}

/* One action of vCont behind its semicolon; the leftmost that names a thread counts for it. */
static bool vcont_action(struct gdbstub *g, struct reader *r, struct plan *plan, bool *set)
{
    char what = *r->p;
    uint64_t start = 0, end = 0, sig;
    int thread = -1;

    if (!what || !strchr("cCsSrt", what))
        return false;
    r->p++;
    if ((what == 'C' || what == 'S') && !get_hex(r, &sig))
        return false;
    if (what == 'r' && (!get_hex(r, &start) || !get_char(r, ',') || !get_hex(r, &end)))
        return false;
    if (get_char(r, ':') && !get_thread(g, r, &thread))
        return false;
    if (thread > GDB_TASK_BASE && strchr("sSr", what))
        plan->task = thread;
    for (unsigned i = 0; i < g->cluster->n; i++) {
        if (set[i] || (thread > 0 && (unsigned)thread != i + 1) || (thread == 0 && i != g->c_thread))
            continue;
        set[i] = true;
        plan->action[i] = what == 'r' ? RANGE : what == 's' || what == 'S' ? STEP : what == 't' ? HOLD : GO;
        plan->start[i] = start;
        plan->end[i] = end;
    }
    return true;
}

static void vcont(struct gdbstub *g, struct reader *r)
{
    struct plan plan = { 0 };
    bool set[CPU_MAX] = { false }, any = false;

    plan_all(&plan, HOLD);
    while (get_char(r, ';'))
        if (!vcont_action(g, r, &plan, set)) {
            reply(g, "E22");
            return;
        }
    for (unsigned i = 0; i < g->cluster->n; i++)
        any |= plan.action[i] != HOLD;
    if (plan.task) { /* what sleeps takes no step: it has stopped where it is */
        char text[40];
        g_snprintf(text, sizeof text, "T%02xthread:%x;", SIG_TRAP, (unsigned)plan.task);
        reply(g, text);
    } else if (*r->p || !any)
        reply(g, "E22");
    else
        go_on(g, &plan);
}

/* --- registers and memory --------------------------------------------------------------------------------- */

static bool read_register(struct gdbstub *g, unsigned n, uint8_t *buf)
{
    uint64_t pc;

    if (g->g_task)
        return gdb_tasks_register(g->tasks, g->g_task, n, buf);
    if (!gdb_reg_read(g->regs, selected(g), n, buf))
        return false;
    if (n == GDB_REG_PC) {
        memcpy(&pc, buf, sizeof pc);
        pc = shown_pc(g, selected(g), pc);
        memcpy(buf, &pc, sizeof pc);
    }
    return true;
}

static bool write_register(struct gdbstub *g, unsigned n, uint8_t *buf)
{
    uint64_t pc;

    if (g->g_task)
        return false;
    if (n == GDB_REG_PC) {
        memcpy(&pc, buf, sizeof pc);
        pc = meant_pc(g, selected(g), pc);
        memcpy(buf, &pc, sizeof pc);
    }
    return gdb_reg_write(g->regs, selected(g), n, buf);
}

/* x: not available. */
static void append_register(struct gdbstub *g, GString *s, unsigned n)
{
    size_t size = gdb_reg_size(g->regs, n);
    uint8_t buf[GDB_REG_MAX];

    if (read_register(g, n, buf))
        append_hex(s, buf, size);
    else
        while (size--)
            g_string_append(s, "xx");
}

static void read_g(struct gdbstub *g)
{
    GString *s = g_string_new(NULL);

    for (unsigned n = 0; n < GDB_G_REGS; n++)
        append_register(g, s, n);
    reply_free(g, s);
}

static void write_g(struct gdbstub *g, struct reader *r)
{
    uint8_t buf[GDB_REG_MAX];
    bool ok = true;

    for (unsigned n = 0; ok && n < GDB_G_REGS && *r->p; n++)
        ok = get_bytes(r, buf, gdb_reg_size(g->regs, n)) && write_register(g, n, buf);
    reply_ok(g, ok);
}

static void read_p(struct gdbstub *g, struct reader *r)
{
    uint64_t n;

    if (!get_hex(r, &n) || n > 0xffff || !gdb_reg_size(g->regs, (unsigned)n)) {
        reply(g, "E22");
        return;
    }
    GString *s = g_string_new(NULL);
    append_register(g, s, (unsigned)n);
    reply_free(g, s);
}

static void write_p(struct gdbstub *g, struct reader *r)
{
    uint64_t n;
    uint8_t buf[GDB_REG_MAX];

    bool ok = get_hex(r, &n) && n <= 0xffff && get_char(r, '=') && gdb_reg_size(g->regs, (unsigned)n) &&
              get_bytes(r, buf, gdb_reg_size(g->regs, (unsigned)n)) &&
              write_register(g, (unsigned)n, buf);
    reply_ok(g, ok);
}

static void read_m(struct gdbstub *g, struct reader *r)
{
    uint8_t buf[GDB_PACKET_MAX / 2];
    uint64_t addr, len;

    if (!get_hex(r, &addr) || !get_char(r, ',') || !get_hex(r, &len)) {
        reply(g, "E22");
        return;
    }
    len = MIN(len, sizeof buf);
    size_t n = g->physical ? (peek_phys(g->cluster->cpu[0]->mem, addr, buf, len) ? len : 0)
                           : peek_virt(selected(g), control_kernel(g->control), addr, buf, len);
    if (len && !n) {
        reply(g, "E14");
        return;
    }
    GString *s = g_string_new(NULL);
    append_hex(s, buf, n);
    reply_free(g, s);
}

static void store(struct gdbstub *g, uint64_t addr, const uint8_t *buf, size_t len)
{
    bool ok = g->physical ? poke_phys(g->cluster->cpu[0]->mem, addr, buf, len)
                          : poke_virt(selected(g), control_kernel(g->control), addr, buf, len) == len;
    reply(g, ok ? "OK" : "E14");
}

static bool write_header(struct reader *r, uint64_t *addr, uint64_t *len)
{
    return get_hex(r, addr) && get_char(r, ',') && get_hex(r, len) && get_char(r, ':') && *len <= GDB_PACKET_MAX;
}

static void write_m(struct gdbstub *g, struct reader *r)
{
    uint8_t buf[GDB_PACKET_MAX];
    uint64_t addr, len;

    if (!write_header(r, &addr, &len) || !get_bytes(r, buf, len))
        reply(g, "E22");
    else
        store(g, addr, buf, len);
}

/* Binary: } escapes. */
static void write_x(struct gdbstub *g, struct reader *r, const char *end)
{
    uint8_t buf[GDB_PACKET_MAX];
    uint64_t addr, len;
    size_t n = 0;

    if (!write_header(r, &addr, &len)) {
        reply(g, "E22");
        return;
    }
    for (; r->p < end && n < sizeof buf; r->p++) {
        bool escaped = *r->p == '}' && r->p + 1 < end;
        if (escaped)
            r->p++;
        buf[n++] = (uint8_t)(escaped ? *r->p ^ 0x20 : *r->p);
    }
    if (n != len)
        reply(g, "E22");
    else
        store(g, addr, buf, n);
}

/* --- points ----------------------------------------------------------------------------------------------- */

static void point(struct gdbstub *g, struct reader *r, bool insert)
{
    static const enum debug_kind kinds[] = { DEBUG_BREAK, DEBUG_BREAK, DEBUG_WATCH_WRITE, DEBUG_WATCH_READ,
                                             DEBUG_WATCH_ACCESS };
    uint64_t type, addr, size, second;
    bool had = false;

    if (!get_hex(r, &type) || !get_char(r, ',') || !get_hex(r, &addr) || !get_char(r, ',') || !get_hex(r, &size) ||
        (*r->p && *r->p != ';')) {
        reply(g, "E22");
        return;
    }
    if (type >= G_N_ELEMENTS(kinds)) {
        reply(g, ""); /* a kind that is not here */
        return;
    }
    enum debug_kind kind = kinds[type];
    if ((kind != DEBUG_BREAK && (!size || size > 4096)) || (insert && g->points >= POINTS_MAX)) {
        reply(g, "E22");
        return;
    }
    for (unsigned i = 0; i < g->cluster->n; i++) {
        had = debug_remove(g->cluster->cpu[i], kind, addr, size); /* so that inserting twice counts once */
        if (insert)
            debug_insert(g->cluster->cpu[i], kind, addr, size);
    }
    if (kind == DEBUG_BREAK && second_address(g, addr, &second))
        for (unsigned i = 0; i < g->cluster->n; i++) {
            debug_remove(g->cluster->cpu[i], kind, second, size);
            if (insert)
                debug_insert(g->cluster->cpu[i], kind, second, size);
        }
    g->points += (unsigned)insert - (unsigned)had;
    reply(g, "OK");
}

static void remove_points(struct gdbstub *g)
{
    for (unsigned i = 0; i < g->cluster->n; i++)
        debug_remove_all(g->cluster->cpu[i]);
    g->points = 0;
}

/* --- queries ---------------------------------------------------------------------------------------------- */

static void query_features(struct gdbstub *g, struct reader *r)
{
    const char *xml = gdb_regs_xml(g->regs);
    uint64_t off, len, size = strlen(xml);

    if (!get_word(r, "target.xml:") || !get_hex(r, &off) || !get_char(r, ',') || !get_hex(r, &len)) {
        reply(g, "E00");
        return;
    }
    off = MIN(off, size);
    len = MIN(MIN(len, GDB_PACKET_MAX / 2), size - off);
    GString *s = g_string_new(off + len < size ? "m" : "l");
    g_string_append_len(s, xml + off, (gssize)len);
    reply_free(g, s);
}

static bool is_on(struct gdbstub *g, unsigned n)
{
    uint64_t mpidr = g->cluster->cpu[n]->mpidr & UINT64_C(0xff00ffffff);
    return cluster_affinity_info(g->cluster, mpidr, 0) == PSCI_AFFINITY_ON;
}

static char *describe_cpu(struct gdbstub *g, unsigned n)
{
    struct kernel_task task;

    if (g->show_tasks && is_on(g, n) && kernel_current_task(control_kernel(g->control), g->cluster->cpu[n], &task))
        return g_strdup_printf("CPU#%u [running], %s, pid %d", n, task.comm, task.pid);
    return g_strdup_printf("CPU#%u [%s]", n, is_on(g, n) ? "running" : "off");
}

static void query_thread_info(struct gdbstub *g, struct reader *r)
{
    int thread;

    if (!get_char(r, ',') || !get_thread(g, r, &thread) || thread < 1) {
        reply(g, "E22");
        return;
    }
    g_autofree char *text = thread > GDB_TASK_BASE ? gdb_tasks_describe(g->tasks, (uint64_t)thread)
                                                   : describe_cpu(g, (unsigned)thread - 1);
    GString *s = g_string_new(NULL);
    append_hex(s, text, strlen(text));
    reply_free(g, s);
}

static void list_threads(struct gdbstub *g)
{
    GString *s = g_string_new("m");

    for (unsigned i = 0; i < g->cluster->n; i++)
        g_string_append_printf(s, "%s%x", i ? "," : "", i + 1);
    if (g->show_tasks)
        gdb_tasks_list(g->tasks, s);
    reply_free(g, s);
}

/* monitor threads on|off is the stub's own; NULL: that is not it. */
static char *threads_command(struct gdbstub *g, const char *line)
{
    g_auto(GStrv) words = g_strsplit_set(line, " \t", 0);

    if (!words[0] || strcmp(words[0], "threads"))
        return NULL;
    if (!words[1] || (strcmp(words[1], "on") && strcmp(words[1], "off")))
        return g_strdup_printf("threads on|off: the guest's tasks as threads beside the vCPUs; now %s\n",
                               g->show_tasks ? "on" : "off");
    g->show_tasks = !strcmp(words[1], "on");
    g->g_task = 0;
    return g_strdup(g->show_tasks ? "info threads shows the guest's tasks\n" : "info threads shows the vCPUs\n");
}

/* monitor COMMAND: its output in packets of its own, then OK. */
static void query_command(struct gdbstub *g, struct reader *r)
{
    g_autofree char *line = g_malloc0(strlen(r->p) / 2 + 1);

    if (!get_char(r, ',') || !get_bytes(r, (uint8_t *)line, strlen(r->p) / 2)) {
        reply(g, "E22");
        return;
    }
    hear_scout(g); /* symbols are asked for by these commands, too */
    char *own = threads_command(g, line);
    g_autofree char *text = own ? own : g->command ? g->command(g->command_opaque, line) : g_strdup("there is no monitor\n");
    if (g->ended)
        return;
    for (size_t off = 0, n = strlen(text); off < n; off += 2000) {
        GString *s = g_string_new("O");
        append_hex(s, text + off, MIN(2000, n - off));
        reply_free(g, s);
    }
    reply(g, "OK");
}

static void query_supported(struct gdbstub *g)
{
    char text[200];

    g_snprintf(text, sizeof text, "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;"
               "multiprocess-;swbreak-;hwbreak-", GDB_PACKET_MAX);
    reply(g, text);
}

static void query_sstep(struct gdbstub *g)
{
    char text[16];

    g_snprintf(text, sizeof text, "0x%x", g->sstep);
    reply(g, text);
}

static void query(struct gdbstub *g, struct reader *r)
{
    if (get_word(r, "Supported"))
        query_supported(g);
    else if (get_word(r, "Xfer:features:read:"))
        query_features(g, r);
    else if (get_word(r, "fThreadInfo"))
        list_threads(g);
    else if (get_word(r, "sThreadInfo"))
        reply(g, "l");
    else if (get_word(r, "ThreadExtraInfo"))
        query_thread_info(g, r);
    else if (get_word(r, "Rcmd"))
        query_command(g, r);
    else if (get_word(r, "Offsets"))
        query_offsets(g);
    else if (get_word(r, "HostInfo")) {
        g->lldb = true;
        reply(g, "triple:616172636836342d756e6b6e6f776e2d6c696e75782d676e75;endian:little;ptrsize:8;"
                 "watchpoint_exceptions_received:before;"); /* aarch64-unknown-linux-gnu */
    } else if (get_word(r, "WatchpointSupportInfo"))
        reply(g, "num:64;"); /* there is no limit; lldb asks before it steps over one */
    else if (get_word(r, "Attached"))
        reply(g, "1");
    else if (get_word(r, "qemu.sstepbits"))
        reply(g, "ENABLE=1,NOIRQ=2,NOTIMER=4");
    else if (get_word(r, "qemu.sstep"))
        query_sstep(g);
    else if (get_word(r, "qemu.PhyMemMode"))
        reply(g, g->physical ? "1" : "0");
    else if (!strcmp(r->p, "C")) {
        char text[16];
        g_snprintf(text, sizeof text, "QC%x", g->c_thread + 1);
        reply(g, text);
    } else
        reply(g, "");
}

static void set_query(struct gdbstub *g, struct reader *r)
{
    uint64_t value;

    if (get_word(r, "StartNoAckMode")) {
        gdb_link_no_ack(g->link);
        reply(g, "OK");
    } else if (get_word(r, "qemu.sstep")) {
        bool ok = (get_char(r, '=') || get_char(r, ':')) && (get_word(r, "0x"), get_hex(r, &value)) &&
                  value <= SSTEP_ALL;
        if (ok)
            g->sstep = (unsigned)value;
        reply_ok(g, ok);
    } else if (get_word(r, "qemu.PhyMemMode:")) {
        bool ok = get_hex(r, &value) && value <= 1;
        if (ok)
            g->physical = value;
        reply_ok(g, ok);
    } else {
        reply(g, "");
    }
}

/* --- threads, the end ------------------------------------------------------------------------------------- */

static void choose_thread(struct gdbstub *g, struct reader *r)
{
    char what = *r->p;
    int thread;

    if ((what != 'g' && what != 'c') || (r->p++, !get_thread(g, r, &thread))) {
        reply(g, "E22");
        return;
    }
    if (what == 'g' && thread)
        g->g_task = thread > GDB_TASK_BASE ? (uint64_t)thread : 0;
    if (thread > 0 && thread <= (int)g->cluster->n)
        *(what == 'g' ? &g->g_thread : &g->c_thread) = (unsigned)thread - 1;
    reply(g, "OK");
}

static void thread_alive(struct gdbstub *g, struct reader *r)
{
    int thread;
    reply_ok(g, get_thread(g, r, &thread) && thread > 0);
}

/* The debugger goes; the machine goes on if it ran before or was let go. */
static void let_go(struct gdbstub *g, bool run)
{
    g->attached = g->waiting = false;
    if (control_running(g->control))
        cluster_pause(g->cluster);
    bool paused_here = control_running(g->control);
    remove_points(g);
    release_all(g);
    if (paused_here)
        cluster_resume(g->cluster);
    enum run_state state = control_state(g->control);
    if (run && (state == RUN_DEBUG || state == RUN_PRELAUNCH))
        control_continue(g->control);
}

static void detach(struct gdbstub *g)
{
    reply(g, "OK");
    let_go(g, true);
}

static void quit(struct gdbstub *g)
{
    const struct control_ops *ops = control_ops(g->control);

    g->attached = false;
    if (ops->quit)
        ops->quit(ops->opaque);
}

static void v_packet(struct gdbstub *g, struct reader *r)
{
    if (get_word(r, "Cont?"))
        reply(g, "vCont;c;C;s;S;t;r");
    else if (get_word(r, "Cont"))
        vcont(g, r);
    else if (get_word(r, "Kill")) {
        reply(g, "OK");
        quit(g);
    } else
        reply(g, "");
}

static void interrupt(void *opaque)
{
    struct gdbstub *g = opaque;

    if (!g->attached)
        return;
    g->interrupted = true;
    control_stop(g->control, RUN_DEBUG);
}

static void opened(void *opaque)
{
    struct gdbstub *g = opaque;

    g->attached = true;
    g->waiting = g->physical = g->resumed = g->interrupted = false;
    g->g_thread = g->c_thread = 0;
    g->sstep = SSTEP_ALL;
    g->was_running = control_running(g->control);
    if (g->was_running)
        control_stop(g->control, RUN_DEBUG);
    memset(g->hits, 0, sizeof g->hits);
    g->relocated = g->show_tasks = g->lldb = false;
    g->g_task = 0;
    gdb_tasks_forget(g->tasks);
    send_scout(g);
}

static void packet(void *opaque, uint8_t *data, size_t len)
{
    struct gdbstub *g = opaque;
    struct reader r = { (const char *)data + 1 };

    if (g->ended)
        return;
    if (!g->attached) /* after a detach on the same line, or a line that is always open */
        opened(g);
    if (control_running(g->control))
        control_stop(g->control, RUN_DEBUG);
    switch (len ? data[0] : 0) {
    case '?': send_stop(g); break;
    case '!': reply(g, ""); break;
    case 'g': read_g(g); break;
    case 'G': write_g(g, &r); break;
    case 'p': read_p(g, &r); break;
    case 'P': write_p(g, &r); break;
    case 'm': read_m(g, &r); break;
    case 'M': write_m(g, &r); break;
    case 'X': write_x(g, &r, (const char *)data + len); break;
    case 'c': case 's': old_resume(g, &r, data[0] == 's', false); break;
    case 'C': case 'S': old_resume(g, &r, data[0] == 'S', true); break;
    case 'Z': case 'z': point(g, &r, data[0] == 'Z'); break;
    case 'H': choose_thread(g, &r); break;
    case 'T': thread_alive(g, &r); break;
    case 'q': query(g, &r); break;
    case 'Q': set_query(g, &r); break;
    case 'v': v_packet(g, &r); break;
    case 'D': detach(g); break;
    case 'k': quit(g); break;
    default: reply(g, ""); break;
    }
}

/* --- life ------------------------------------------------------------------------------------------------- */

static void closed(void *opaque)
{
    struct gdbstub *g = opaque;

    if (g->attached && !g->ended)
        let_go(g, g->was_running || g->resumed);
}

static const struct gdb_link_ops link_ops = { packet, interrupt, opened, closed };

static void on_control(void *opaque, enum control_event event)
{
    struct gdbstub *g = opaque;

    if (event == CONTROL_RESET)
        g_clear_pointer(&g->scout, scout_free);
    if (event == CONTROL_RESUME || event == CONTROL_RESET)
        gdb_tasks_forget(g->tasks);
    if (event == CONTROL_STOP && g->attached)
        stopped(g);
    else if (event == CONTROL_RESUME && g->attached && !g->resuming)
        release_all(g); /* a monitor said go on: also to those that were held */
}

struct gdbstub *gdbstub_new(struct control *control, struct chardev *chr, gdbstub_command_fn *command, void *opaque)
{
    struct gdbstub *g = g_new0(struct gdbstub, 1);

    g->control = control;
    g->cluster = control_cluster(control);
    g->command = command;
    g->command_opaque = opaque;
    g->tasks = gdb_tasks_new(control);
    g->regs = gdb_regs_new(g->cluster->cpu[0]);
    g_mutex_init(&g->lock);
    g->hit_source = g_source_new(&hit_funcs, sizeof *g->hit_source);
    g_source_set_callback(g->hit_source, on_hit_main, g, NULL);
    g_source_attach(g->hit_source, NULL);
    for (unsigned i = 0; i < g->cluster->n; i++)
        debug_set_stop(g->cluster->cpu[i], on_hit, g);
    control_listen(control, on_control, g);
    g->link = gdb_link_new(chr, &link_ops, g);
    return g;
}

void gdbstub_expect(struct gdbstub *g)
{
    send_scout(g);
}

void gdbstub_end(struct gdbstub *g, int status)
{
    char text[8];

    if (g->ended)
        return;
    g->ended = true;
    if (g->attached) {
        g_snprintf(text, sizeof text, "W%02x", (unsigned)status & 0xff);
        reply(g, text);
        gdb_link_end(g->link);
    }
}

void gdbstub_free(struct gdbstub *g)
{
    control_unlisten(g->control, on_control, g);
    gdb_link_free(g->link);
    scout_free(g->scout);
    g_source_destroy(g->hit_source);
    g_source_unref(g->hit_source);
    g_mutex_clear(&g->lock);
    gdb_regs_free(g->regs);
    gdb_tasks_free(g->tasks);
    g_free(g);
}
