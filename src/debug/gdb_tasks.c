/*
 * See gdb_tasks.h.  The list is made once a stop.  Tasks that run are left out: they are the vCPUs.
 */
#include "debug/gdb_tasks.h"

#include <string.h>

#include "debug/gdb_regs.h"
#include "kernel/kernel.h"

enum { X19 = 19, X28 = 28, FP = 29, SP = 31 };

struct gdb_tasks {
    struct control *control;
    GHashTable *by_id; /* to struct kernel_task in `list'; NULL: not made yet */
    GArray *list;
};

struct gdb_tasks *gdb_tasks_new(struct control *control)
{
    struct gdb_tasks *t = g_new0(struct gdb_tasks, 1);

    t->control = control;
    return t;
}

void gdb_tasks_forget(struct gdb_tasks *t)
{
    g_clear_pointer(&t->by_id, g_hash_table_destroy);
    if (t->list)
        g_array_free(t->list, TRUE);
    t->list = NULL;
}

void gdb_tasks_free(struct gdb_tasks *t)
{
    gdb_tasks_forget(t);
    g_free(t);
}

static uint64_t id_of(const struct kernel_task *task)
{
    return GDB_TASK_BASE + (uint64_t)(unsigned)task->pid;
}

static void make_list(struct gdb_tasks *t)
{
    if (t->by_id)
        return;
    t->by_id = g_hash_table_new(g_direct_hash, g_direct_equal);
    t->list = kernel_tasks(control_kernel(t->control), true);
    for (guint i = 0; t->list && i < t->list->len; i++) {
        struct kernel_task *task = &g_array_index(t->list, struct kernel_task, i);
        if (!task->on_cpu && task->pid > 0 && id_of(task) < GDB_TASK_END)
            g_hash_table_insert(t->by_id, GSIZE_TO_POINTER(id_of(task)), task);
    }
}

static const struct kernel_task *find(struct gdb_tasks *t, uint64_t id)
{
    make_list(t);
    return g_hash_table_lookup(t->by_id, GSIZE_TO_POINTER(id));
}

void gdb_tasks_list(struct gdb_tasks *t, GString *out)
{
    make_list(t);
    for (guint i = 0; t->list && i < t->list->len; i++) {
        uint64_t id = id_of(&g_array_index(t->list, struct kernel_task, i));
        if (find(t, id) == &g_array_index(t->list, struct kernel_task, i))
            g_string_append_printf(out, ",%" G_GINT64_MODIFIER "x", (guint64)id);
    }
}

char *gdb_tasks_describe(struct gdb_tasks *t, uint64_t id)
{
    const struct kernel_task *task = find(t, id);

    if (!task)
        return NULL;
    return g_strdup_printf(task->kernel_thread ? "[%s], pid %d, %c" : "%s, pid %d, %c", task->comm, task->pid, task->state);
}

bool gdb_tasks_register(struct gdb_tasks *t, uint64_t id, unsigned n, uint8_t *buf)
{
    const struct kernel_task *task = find(t, id);
    struct kernel_context c;
    uint64_t value;

    if (!task || !kernel_task_context(control_kernel(t->control), task, &c))
        return false;
    if (n >= X19 && n <= X28)
        value = c.x19_to_x28[n - X19];
    else if (n == FP || n == SP || n == GDB_REG_PC)
        value = n == FP ? c.fp : n == SP ? c.sp : c.pc;
    else
        return false;
    memcpy(buf, &value, sizeof value);
    return true;
}
