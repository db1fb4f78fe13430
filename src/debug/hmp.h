/*
 * Monitor commands as text: one line in, its output back.  Used by the monitor, by gdb's `monitor' and by QMP's
 * human-monitor-command.  Main thread.
 */
#ifndef ARMLET_DEBUG_HMP_H
#define ARMLET_DEBUG_HMP_H

#include <glib.h>

#include "debug/control.h"

struct hmp {
    struct control *control;
    unsigned cpu;    /* the default vCPU of commands */
    GString *out;    /* of the command that runs */
    uint64_t next;   /* where x goes on */
    bool paused;     /* for the time of this command */
};

void hmp_init(struct hmp *h, struct control *control);
/* Runs a line; the result is to be freed. */
char *hmp_run(struct hmp *h, const char *line);
/* Words that may stand where `text' ends. */
void hmp_complete(struct hmp *h, const char *text, GPtrArray *out);

/* --- for the commands ------------------------------------------------------------------------------------ */

struct hmp_command {
    const char *name, *args, *help;
    void (*run)(struct hmp *h, const char *args);
    bool still; /* the vCPUs stand while it runs */
};
extern const struct hmp_command hmp_info_commands[], hmp_memory_commands[], hmp_kernel_commands[]; /* end with a NULL name */

void hmp_print(struct hmp *h, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
struct cpu *hmp_cpu(struct hmp *h);
/*
 * Reads an expression at *text (numbers, $registers, + - * / % & | ^ ~ ( )) and moves on behind it and spaces; false:
 * says what is wrong.
 */
bool hmp_expression(struct hmp *h, const char **text, uint64_t *value);
/* A word, or one in quotes; NULL at the end.  To be freed. */
char *hmp_word(const char **text);
/* The value of a register by gdb's or the manual's name. */
bool hmp_register(struct cpu *cpu, const char *name, uint64_t *value);

/* An ELF core file of guest RAM with the vCPUs' registers; 0 or -errno.  While paused. */
int coredump_write(struct control *control, const char *path);

#endif
