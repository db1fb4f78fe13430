/*
 * What a crash was, read while the kernel is still telling of it: the vCPU that dies has the whole story on its stack,
 * from its exception's registers on.
 */
#include <string.h>

#include "kernel/guts.h"

enum { REGS = 31 };

struct crash {
    struct cpu *cpu;
    struct kernel_frame frames[KERNEL_FRAMES_MAX];
    unsigned n;
    unsigned first;     /* the frame in which it happened */
    uint64_t regs_va;   /* of the struct pt_regs; 0: it was no exception */
};

static bool in_function(struct kernel *k, uint64_t pc, const char *const *names)
{
    struct kernel_symbol sym;

    if (!kernel_find_address(k, pc - 4, &sym))
        return false;
    for (; *names; names++)
        if (g_str_has_prefix(sym.name, *names))
            return true;
    return false;
}

/* The exception's registers hold a frame record that names the function it came from. */
static void find_regs(struct kernel *k, struct crash *c)
{
    static const char *const entries[] = { "el1h_64_", "el1_sync", "el1_error", NULL };
    struct btf_field record = kernel_field(k, "pt_regs", "stackframe"), pc = kernel_field(k, "pt_regs", "pc");

    for (unsigned i = 1; i < c->n && record.size; i++) {
        uint64_t va = c->frames[i].fp - record.off;
        if (!in_function(k, c->frames[i - 1].pc, entries) || kernel_get(k, va, pc) != c->frames[i].pc)
            continue;
        c->regs_va = va;
        c->first = i;
        return;
    }
}

static bool find_crash(struct kernel *k, struct crash *c)
{
    static const char *const dying[] = { "die", "panic", "__die", "oops_begin", "die_kernel_fault", "arm64_notify_die",
                                         "arm64_serror_panic", "make_task_dead", "__warn", "warn_slowpath", NULL };

    for (unsigned cpu = 0; cpu < k->cluster->n; cpu++) {
        *c = (struct crash){ .cpu = k->cluster->cpu[cpu] };
        c->n = kernel_cpu_unwind(k, c->cpu, c->frames);
        for (unsigned i = 0; i < c->n; i++)
            if (in_function(k, c->frames[i].pc, dying)) {
                c->first = MIN(i + 1, c->n - 1);
                if (i + 1 < c->n && in_function(k, c->frames[i + 1].pc, dying))
                    continue;
                find_regs(k, c);
                return true;
            }
    }
    return false;
}

static void print_registers(struct kernel *k, const struct crash *c, GString *out)
{
    struct btf_field regs = kernel_field(k, "pt_regs", "regs"), pstate = kernel_field(k, "pt_regs", "pstate"),
                     sp = kernel_field(k, "pt_regs", "sp");
    uint64_t x[REGS];

    if (!kernel_read(k, c->regs_va + regs.off, x, sizeof x))
        return;
    for (unsigned i = 0; i < REGS; i++)
        g_string_append_printf(out, "%sx%-2u 0x%016" G_GINT64_MODIFIER "x%s", i % 4 ? "  " : "    ", i, (guint64)x[i],
                               i % 4 == 3 ? "\n" : "");
    g_string_append_printf(out, "  sp  0x%016" G_GINT64_MODIFIER "x\n    pstate 0x%08x, ESR_EL1 0x%08x, FAR_EL1 0x%016"
                           G_GINT64_MODIFIER "x\n", (guint64)kernel_get(k, c->regs_va, sp),
                           (unsigned)kernel_get(k, c->regs_va, pstate), (unsigned)c->cpu->sys.esr_el1,
                           (guint64)c->cpu->sys.far_el1);
}

/* returns: the first address is one that is returned to, as all others are. */
static void print_trace(struct kernel *k, const struct kernel_frame *frames, unsigned n, bool returns,
                        GString *out)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t pc = frames[i].pc;
        g_autofree char *at = i || returns ? kernel_describe_return(k, pc) : kernel_describe_address(k, pc);
        g_string_append_printf(out, "    #%-2u 0x%016" G_GINT64_MODIFIER "x %s\n", i, (guint64)pc,
                               at ? at : "??");
    }
}

bool kernel_print_report(struct kernel *k, GString *out)
{
    struct kernel_task task;
    struct crash c;

    if (!kernel_ready(k, out) || !find_crash(k, &c))
        return false;
    uint64_t pc = c.frames[c.first].pc;
    g_autofree char *where = c.regs_va ? kernel_describe_address(k, pc) : kernel_describe_return(k, pc);
    g_string_append_printf(out, "  in %s", where ? where : "(no function of the kernel)");
    if (kernel_current_task(k, c.cpu, &task))
        g_string_append_printf(out, ", task %s, pid %d,", task.comm, task.pid);
    g_string_append_printf(out, " on CPU %u\n", c.cpu->index);
    if (c.regs_va) {
        g_string_append(out, "  registers:\n");
        print_registers(k, &c, out);
    }
    g_string_append(out, "  call trace:\n");
    print_trace(k, c.frames + c.first, c.n - c.first, !c.regs_va, out);
    return true;
}

/* --- a guest that hangs ------------------------------------------------------------------------------ */

static void print_cpu(struct kernel *k, struct cpu *cpu, GString *out)
{
    static const char *const waiting[] = { "do_idle", NULL };
    struct kernel_frame frames[KERNEL_FRAMES_MAX];
    struct kernel_task task;
    unsigned n = kernel_cpu_unwind(k, cpu, frames);
    bool idle = false;

    for (unsigned i = 0; i < MIN(n, 5); i++)
        idle |= in_function(k, frames[i].pc, waiting);
    g_string_append_printf(out, "  CPU %u: ", cpu->index);
    if (!(cpu->sys.vbar_el1 >> 63) || idle) {
        g_string_append(out, idle ? "idle\n" : "not started\n");
        return;
    }
    if (kernel_current_task(k, cpu, &task))
        g_string_append_printf(out, "task %s, pid %d, ", task.comm, task.pid);
    if (!cpu->el) {
        g_string_append_printf(out, "in user space at 0x%" G_GINT64_MODIFIER "x\n", (guint64)cpu->pc);
        return;
    }
    g_string_append(out, "in the kernel\n");
    print_trace(k, frames, n, false, out);
}

static void print_blocked(struct kernel *k, unsigned most, GString *out)
{
    struct kernel_frame frames[KERNEL_FRAMES_MAX];
    GArray *tasks = kernel_tasks(k, true);

    for (guint i = 0; tasks && i < tasks->len && most; i++) {
        const struct kernel_task *task = &g_array_index(tasks, struct kernel_task, i);
        if (task->state != 'D' || task->on_cpu)
            continue;
        most--;
        g_string_append_printf(out, "  blocked: task %s, pid %d\n", task->comm, task->pid);
        print_trace(k, frames, kernel_task_unwind(k, task, frames), true, out);
    }
    if (tasks)
        g_array_free(tasks, TRUE);
}

bool kernel_print_hang(struct kernel *k, GString *out)
{
    enum { BLOCKED = 4 };

    if (!kernel_look(k) || !kernel_is_relocated(k))
        return false;
    for (unsigned i = 0; i < k->cluster->n; i++)
        print_cpu(k, k->cluster->cpu[i], out);
    print_blocked(k, BLOCKED, out);
    return true;
}
