/*
 * The run state of a machine as its outside sees it: who may stop it and let it go on, and who is told.
 *
 * The gdb stub, the monitors and the machine share one struct control.  Stopping is a state, not a count: whoever says
 * go on, it goes on.  Main thread, no lock held; the hooks are called there too.
 */
#ifndef ARMLET_DEBUG_CONTROL_H
#define ARMLET_DEBUG_CONTROL_H

#include <glib.h>
#include <stdbool.h>

#include "cpu/cpu.h"

enum run_state { RUN_PRELAUNCH, RUN_RUNNING, RUN_PAUSED, RUN_DEBUG, RUN_SHUTDOWN, RUN_PANICKED };

enum control_event {
    CONTROL_STOP,      /* the vCPUs stand */
    CONTROL_RESUME,    /* they are about to go on */
    CONTROL_SHUTDOWN,  /* the machine has ended or is about to */
    CONTROL_RESET,
    CONTROL_POWERDOWN, /* the power button was pressed */
    CONTROL_PANICKED,
};

/* What the machine gives; any may be NULL.  Text functions append lines that end in \n. */
struct control_ops {
    void (*quit)(void *opaque);
    void (*reset)(void *opaque);
    void (*powerdown)(void *opaque);
    /* `info WHAT' for what only the machine knows (qtree, roms, block, network, chardev ...); false: nothing known. */
    bool (*info)(void *opaque, const char *what, GString *out);
    /* hostfwd_add and hostfwd_remove; netdev NULL: the first.  What there is to say is appended. */
    void (*hostfwd)(void *opaque, bool add, const char *netdev, const char *rule, GString *out);
    /* Serves gdb there from now on (as -gdb) in place of where it did; a line about it, to be freed. */
    char *(*gdbserver)(void *opaque, const char *where);
    /* Asks the guest to live with that much memory; false: there is no balloon. */
    bool (*balloon)(void *opaque, uint64_t bytes);
    /* What the balloon leaves it, in bytes; 0: there is none. */
    uint64_t (*balloon_now)(void *opaque);
    const char *name;         /* -name, or NULL */
    const char *version;      /* X.Y.Z, ours */
    const char *qemu_version; /* X.Y.Z, whose interface we follow */
    void *opaque;
};

struct control;
struct kernel;
typedef void control_hook(void *opaque, enum control_event event);

/* The cluster is not started yet; it and ops outlive the result. */
struct control *control_new(struct cluster *cluster, struct mem *mem, const struct control_ops *ops);
void control_free(struct control *c);

struct cluster *control_cluster(const struct control *c);
struct mem *control_mem(const struct control *c);
/* What is known of the guest's kernel (kernel/kernel.h); owned by c. */
struct kernel *control_kernel(const struct control *c);
const struct control_ops *control_ops(const struct control *c);

/* The machine has started its vCPUs, running or (-S) paused. */
void control_started(struct control *c, bool paused);
enum run_state control_state(const struct control *c);
const char *control_state_name(enum run_state state); /* QMP's RunState */
bool control_running(const struct control *c);
/* Stops the vCPUs, if they run, and gives the reason.  CONTROL_STOP only if they did. */
void control_stop(struct control *c, enum run_state why);
void control_continue(struct control *c);
/* Tells the hooks only. */
void control_tell(struct control *c, enum control_event event);
/* Why the machine is going down or is being reset, in QMP's words ("guest-shutdown", "host-qmp-quit" ...; constant). */
void control_set_reason(struct control *c, const char *reason);
const char *control_reason(const struct control *c);

void control_listen(struct control *c, control_hook *hook, void *opaque);
void control_unlisten(struct control *c, control_hook *hook, void *opaque);

#endif
