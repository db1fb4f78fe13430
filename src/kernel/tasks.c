/*
 * Tasks as their task_structs tell of them.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cluster.h"
#include "kernel/guts.h"

enum { TASKS_MAX = 100000, PF_KTHREAD = 0x00200000, STATE_REPORT = 0x7f, STATE_IDLE = 0x402, STATE_FROZEN = 0x8000,
       STATE_RTLOCK = 0x1000, STATE_UNINTERRUPTIBLE = 2 };

struct task_layout {
    struct btf_field tasks, thread_node, signal, thread_head, pid, tgid, parent, cred, euid, comm, state, exit_state,
        flags, cpu, on_cpu, mm, total_vm;
};

static void layout_find(struct kernel *k, struct task_layout *l)
{
#define TASK(path) kernel_field(k, "task_struct", path)
    *l = (struct task_layout){
        .tasks = TASK("tasks"), .thread_node = TASK("thread_node"), .signal = TASK("signal"), .pid = TASK("pid"),
        .tgid = TASK("tgid"), .parent = TASK("real_parent"), .cred = TASK("cred"), .comm = TASK("comm"),
        .state = TASK("__state"), .exit_state = TASK("exit_state"), .flags = TASK("flags"),
        .cpu = TASK("thread_info.cpu"), .on_cpu = TASK("on_cpu"), .mm = TASK("mm"),
        .thread_head = kernel_field(k, "signal_struct", "thread_head"),
        .euid = kernel_field(k, "cred", "euid.val"), .total_vm = kernel_field(k, "mm_struct", "total_vm") };
    if (!l->state.size)
        l->state = TASK("state"); /* before 5.14 */
    if (!l->cpu.size)
        l->cpu = TASK("cpu");
#undef TASK
}

static char state_letter(uint64_t state, uint64_t exit_state)
{
    static const char letters[] = "RSDTtXZPI";
    uint64_t shown = (state | exit_state) & STATE_REPORT;
    unsigned n = 0;

    if ((state & STATE_IDLE) == STATE_IDLE)
        return 'I';
    if (state & (STATE_FROZEN | STATE_RTLOCK))
        shown = STATE_UNINTERRUPTIBLE;
    while (shown >> n)
        n++;
    return letters[n];
}

static unsigned page_kib(const struct kernel *k)
{
    return 1u << (kernel_page_shift(k) - 10);
}

/* false: that is no task that can be read. */
static bool read_task(struct kernel *k, const struct task_layout *l, uint64_t va, struct kernel_task *t)
{
    char comm[17] = "";

    if (!kernel_read(k, va + l->comm.off, comm, sizeof comm - 1))
        return false;
    *t = (struct kernel_task){
        .va = va, .pid = (int)kernel_get(k, va, l->pid), .tgid = (int)kernel_get(k, va, l->tgid),
        .uid = (unsigned)kernel_get(k, kernel_get(k, va, l->cred), l->euid), .cpu = (unsigned)kernel_get(k, va, l->cpu),
        .ppid = (int)kernel_get(k, kernel_get(k, va, l->parent), l->tgid),
        .state = state_letter(kernel_get(k, va, l->state), kernel_get(k, va, l->exit_state)),
        .kernel_thread = kernel_get(k, va, l->flags) & PF_KTHREAD, .on_cpu = kernel_get(k, va, l->on_cpu),
        .vsize = kernel_get(k, kernel_get(k, va, l->mm), l->total_vm) * page_kib(k) };
    for (unsigned i = 0; comm[i]; i++)
        t->comm[i] = (unsigned char)comm[i] < 32 || comm[i] == 127 ? '?' : comm[i];
    return true;
}

/* The threads of the process whose leader is at va; the leader alone where they cannot be walked. */
static void add_threads(struct kernel *k, const struct task_layout *l, uint64_t va, GArray *out)
{
    uint64_t head = kernel_get(k, va, l->signal) + l->thread_head.off, at;
    struct kernel_task t;

    if (!l->thread_head.size || !l->thread_node.size || !kernel_read(k, head, &at, 8)) {
        if (read_task(k, l, va, &t))
            g_array_append_val(out, t);
        return;
    }
    for (; at != head && out->len < TASKS_MAX; ) {
        if (!read_task(k, l, at - l->thread_node.off, &t))
            return;
        g_array_append_val(out, t);
        if (!kernel_read(k, at, &at, 8))
            return;
    }
}

static GArray *list_tasks(struct kernel *k, bool threads)
{
    uint64_t init = kernel_named_or(k, "init_task", &k->init_task, search_init_task);
    struct task_layout l;
    struct kernel_task t;
    uint64_t at;

    layout_find(k, &l);
    if (!init || !l.tasks.size || !l.comm.size) {
        k->problem = "the kernel's list of tasks is not to be found";
        return NULL;
    }
    GArray *out = g_array_new(FALSE, FALSE, sizeof(struct kernel_task));
    uint64_t head = init + l.tasks.off;
    if (!kernel_read(k, head, &at, 8))
        return out;
    while (at != head && out->len < TASKS_MAX) {
        uint64_t va = at - l.tasks.off;
        if (threads)
            add_threads(k, &l, va, out);
        else if (read_task(k, &l, va, &t))
            g_array_append_val(out, t);
        if (!kernel_read(k, at, &at, 8))
            break;
    }
    return out;
}

static bool ready(struct kernel *k)
{
    GString *why = g_string_new(NULL);
    bool ok = kernel_ready(k, why);

    g_string_free(why, TRUE);
    return ok;
}

GArray *kernel_tasks(struct kernel *k, bool threads)
{
    return ready(k) ? list_tasks(k, threads) : NULL;
}

bool kernel_current_task(struct kernel *k, struct cpu *cpu, struct kernel_task *task)
{
    uint64_t va = 0, entry;
    struct task_layout l;

    if (!ready(k))
        return false;
    layout_find(k, &l);
    if (kernel_percpu(k, "__entry_task", cpu->index, &entry))
        kernel_read(k, entry, &va, 8);
    if (!va && cpu->el == 1) /* before the first switch; or the variable has no symbol */
        va = cpu->sp_el[0];
    if (va)
        return va >> 63 && l.comm.size && read_task(k, &l, va, task);
    GArray *tasks = list_tasks(k, true);
    for (guint i = 0; tasks && i < tasks->len && !va; i++) {
        *task = g_array_index(tasks, struct kernel_task, i);
        va = task->on_cpu && task->cpu == cpu->index ? task->va : 0;
    }
    if (tasks)
        g_array_free(tasks, TRUE);
    return va;
}

/* --- as text ----------------------------------------------------------------------------------------------------- */

static void print_task(const struct kernel_task *t, bool threads, GString *out)
{
    g_string_append_printf(out, "%5d ", t->pid);
    if (threads)
        g_string_append_printf(out, "%5d ", t->tgid);
    g_string_append_printf(out, "%5d %5u  %c%c %3u %8" G_GUINT64_FORMAT "  ", t->ppid, t->uid, t->state,
                           t->on_cpu ? '*' : ' ', t->cpu, (guint64)t->vsize);
    g_string_append_printf(out, t->kernel_thread ? "[%s]\n" : "%s\n", t->comm);
}

void kernel_print_tasks(struct kernel *k, bool threads, GString *out)
{
    GArray *tasks = kernel_tasks(k, threads);

    if (!tasks) {
        g_string_append_printf(out, "%s\n", k->problem);
        return;
    }
    g_string_append_printf(out, "  PID %s PPID   UID  S  CPU      VSZ  COMMAND\n", threads ? " TGID " : "");
    for (guint i = 0; i < tasks->len; i++)
        print_task(&g_array_index(tasks, struct kernel_task, i), threads, out);
    g_array_free(tasks, TRUE);
}

void kernel_print_backtrace(struct kernel *k, int pid, GString *out)
{
    struct kernel_frame frames[KERNEL_FRAMES_MAX];
    GArray *tasks = kernel_tasks(k, true);
    const struct kernel_task *found = NULL;

    for (guint i = 0; tasks && i < tasks->len && !found; i++)
        if (g_array_index(tasks, struct kernel_task, i).pid == pid)
            found = &g_array_index(tasks, struct kernel_task, i);
    if (!tasks) {
        g_string_append_printf(out, "%s\n", k->problem);
    } else if (!found) {
        g_string_append_printf(out, "no task has the pid %d (ps lists them)\n", pid);
    } else {
        g_string_append_printf(out, "%s%s, pid %d, %s on CPU %u\n", found->comm, found->kernel_thread ? " (kernel)" : "",
                               found->pid, found->on_cpu ? "running" : "sleeping", found->cpu);
        kernel_print_frames(k, frames, kernel_task_unwind(k, found, frames), out);
    }
    if (tasks)
        g_array_free(tasks, TRUE);
}

static void print_percpu(struct kernel *k, const struct kernel_symbol *sym, GString *out)
{
    struct kernel_symbol start, end;
    uint64_t va;

    if (!kernel_find_symbol(k, "__per_cpu_start", &start) || !kernel_find_symbol(k, "__per_cpu_end", &end) ||
        sym->va < start.va || sym->va >= end.va)
        return;
    for (unsigned i = 0; i < k->cluster->n; i++)
        if (k->cluster->cpu[i]->sys.tpidr_el1 && kernel_percpu(k, sym->name, i, &va))
            g_string_append_printf(out, "  of CPU %u: 0x%016" G_GINT64_MODIFIER "x\n", i, (guint64)va);
}

void kernel_print_symbol(struct kernel *k, const char *what, GString *out)
{
    struct kernel_symbol sym;
    char *end;
    uint64_t va = g_ascii_strtoull(what, &end, 16);

    if (!kernel_look(k) && !k->given) {
        g_string_append_printf(out, "%s\n", k->problem);
        return;
    }
    ready(k); /* for the modules' symbols */
    bool named = kernel_find_symbol(k, what, &sym) || (k->typed && modules_find_symbol(k, what, &sym));
    if (named) {
        g_string_append_printf(out, "0x%016" G_GINT64_MODIFIER "x %s%s%s%s\n", (guint64)sym.va, sym.name,
                               sym.module ? " [" : "", sym.module ? sym.module : "", sym.module ? "]" : "");
        print_percpu(k, &sym, out);
        return;
    }
    g_autofree char *text = end != what && !*end ? kernel_describe_address(k, va) : NULL;
    if (text)
        g_string_append_printf(out, "0x%016" G_GINT64_MODIFIER "x %s\n", (guint64)va, text);
    else
        g_string_append_printf(out, "%s: neither a symbol nor an address in one\n", what);
}

void kernel_print_where(struct kernel *k, GString *out)
{
    struct kernel_place p;

    if (!kernel_where(k, &p)) {
        g_string_append_printf(out, "%s\n", k->syms ? "the kernel has not been linked to an address yet" : k->problem);
        return;
    }
    g_string_append_printf(out, "kernel at 0x%016" G_GINT64_MODIFIER "x, physical 0x%" G_GINT64_MODIFIER "x, %" G_GUINT64_FORMAT
                           " KiB, %u symbols\n", (guint64)p.text_va, (guint64)p.text_pa, (guint64)(p.size / 1024), k->syms->n);
    if (!kernel_is_relocated(k))
        g_string_append(out, k->predicted ? "that is where it will be: it has not mapped itself yet\n"
                                          : "that is as linked: it has not mapped itself yet\n");
    else if (p.link_va)
        g_string_append_printf(out, "moved by 0x%" G_GINT64_MODIFIER "x (KASLR) from where it was linked\n",
                               (guint64)(p.text_va - p.link_va));
}
