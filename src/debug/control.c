/*
 * See control.h.  A hook may add or remove hooks: the list is walked by index from a copy.
 */
#include "debug/control.h"

#include "kernel/kernel.h"

struct listener {
    control_hook *hook;
    void *opaque;
};

struct control {
    struct cluster *cluster;
    struct mem *mem;
    struct kernel *kernel;
    const struct control_ops *ops;
    enum run_state state;
    bool stopped; /* we hold a cluster_pause() */
    const char *reason;
    GArray *listeners; /* struct listener */
};

struct control *control_new(struct cluster *cluster, struct mem *mem, const struct control_ops *ops)
{
    struct control *c = g_new0(struct control, 1);

    c->cluster = cluster;
    c->mem = mem;
    c->kernel = kernel_new(cluster);
    c->ops = ops;
    c->listeners = g_array_new(FALSE, FALSE, sizeof(struct listener));
    return c;
}

void control_free(struct control *c)
{
    g_array_free(c->listeners, TRUE);
    kernel_free(c->kernel);
    g_free(c);
}

struct cluster *control_cluster(const struct control *c)
{
    return c->cluster;
}

struct mem *control_mem(const struct control *c)
{
    return c->mem;
}

struct kernel *control_kernel(const struct control *c)
{
    return c->kernel;
}

const struct control_ops *control_ops(const struct control *c)
{
    return c->ops;
}

void control_started(struct control *c, bool paused)
{
    c->stopped = paused; /* cluster_start() has counted that one */
    c->state = paused ? RUN_PRELAUNCH : RUN_RUNNING;
}

enum run_state control_state(const struct control *c)
{
    return c->state;
}

const char *control_state_name(enum run_state state)
{
    static const char *const names[] = { "prelaunch", "running", "paused", "debug", "shutdown", "guest-panicked" };
    return names[state];
}

bool control_running(const struct control *c)
{
    return c->state == RUN_RUNNING;
}

void control_tell(struct control *c, enum control_event event)
{
    g_autofree struct listener *copy = g_memdup2(c->listeners->data, c->listeners->len * sizeof *copy);
    guint n = c->listeners->len;

    if (event == CONTROL_RESET && (c->state == RUN_SHUTDOWN || c->state == RUN_PANICKED))
        c->state = RUN_PAUSED;
    for (guint i = 0; i < n; i++)
        copy[i].hook(copy[i].opaque, event);
}

void control_stop(struct control *c, enum run_state why)
{
    bool was_running = !c->stopped;

    if (was_running)
        cluster_pause(c->cluster);
    c->stopped = true;
    c->state = why;
    if (was_running)
        control_tell(c, CONTROL_STOP);
}

void control_continue(struct control *c)
{
    if (!c->stopped)
        return;
    c->stopped = false;
    c->state = RUN_RUNNING;
    control_tell(c, CONTROL_RESUME);
    cluster_resume(c->cluster);
}

void control_set_reason(struct control *c, const char *reason)
{
    c->reason = reason;
}

const char *control_reason(const struct control *c)
{
    return c->reason ? c->reason : "none";
}

void control_listen(struct control *c, control_hook *hook, void *opaque)
{
    struct listener l = { hook, opaque };
    g_array_append_val(c->listeners, l);
}

void control_unlisten(struct control *c, control_hook *hook, void *opaque)
{
    for (guint i = 0; i < c->listeners->len; i++) {
        const struct listener *l = &g_array_index(c->listeners, struct listener, i);
        if (l->hook == hook && l->opaque == opaque) {
            g_array_remove_index(c->listeners, i);
            return;
        }
    }
}
