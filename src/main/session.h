/*
 * A machine that runs one command: the ports to the agent in the guest (lab/agent.sh), the kernel's log, and
 * the verdict.
 */
#ifndef ARMLET_MAIN_SESSION_H
#define ARMLET_MAIN_SESSION_H

#include <glib.h>
#include <stdbool.h>

/*
 * How `armlet run' ends when not by the command's own status.  124 to 127 are as timeout(1) and env(1) have
 * them; the rest is where few programs have statuses.
 */
enum run_status {
    RUN_TIMEOUT = 124,     /* --timeout */
    RUN_FAILED = 125,      /* armlet itself: bad arguments, no kernel, the agent cannot start the command */
    RUN_PANIC = 240,
    RUN_OOPS = 241,
    RUN_SOFT_LOCKUP = 242,
    RUN_RCU_STALL = 243,
    RUN_OOM = 244,         /* the command was killed for want of memory */
    RUN_HANG = 245,        /* no sign of life, or a task blocked for minutes */
    RUN_ENDED = 246,       /* the guest powered off or rebooted before the command had ended */
};

struct session_options {
    char **job;         /* lines of shell for the agent, without newlines; joined by spaces */
    bool tty;           /* the command gets a terminal, which is ours */
    const char *log;    /* file for the kernel's log, "-" for stderr, NULL for none */
    double timeout;     /* seconds; 0 for none */
    unsigned hang;      /* seconds without a sign of life that mean a hang; 0: never */
    bool keep_going;    /* an oops, a stall or a hung task is reported and does not end the run */
    bool phases;        /* --timing: when what happened, on stderr */
    /* What the command writes to its standard output goes here; NULL: to ours. */
    void (*output)(void *opaque, const void *data, size_t len);
    /* Gets the kernel's log too; may be NULL. */
    void (*log_output)(void *opaque, const void *data, size_t len);
    void *opaque; /* of both */
};

/*
 * Runs `line' (QEMU's command line, without the program's name), to which the session's own devices are
 * added.  Returns the exit status.  Once a process.
 */
int session_run(GPtrArray *line, const struct session_options *options);

#endif
