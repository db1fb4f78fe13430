/*
 * The guest's sleeping tasks as threads of gdb, beside the vCPUs: what each had in its registers when it went to sleep.
 * Main thread, while the cluster is paused.
 */
#ifndef ARMLET_DEBUG_GDB_TASKS_H
#define ARMLET_DEBUG_GDB_TASKS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "debug/control.h"

enum { GDB_TASK_BASE = 1000000, GDB_TASK_END = 1 << 30 }; /* thread id of pid 0, and behind the last */

struct gdb_tasks;

struct gdb_tasks *gdb_tasks_new(struct control *control);
void gdb_tasks_free(struct gdb_tasks *t);
/* The machine runs on: what was known is out of date. */
void gdb_tasks_forget(struct gdb_tasks *t);
/* ",ID" for each. */
void gdb_tasks_list(struct gdb_tasks *t, GString *out);
/* "sh, pid 123 [S]", to be freed; NULL: there is none of this id. */
char *gdb_tasks_describe(struct gdb_tasks *t, uint64_t id);
/* Register n as gdb numbers it, in 8 bytes; false: not known of a task that sleeps. */
bool gdb_tasks_register(struct gdb_tasks *t, uint64_t id, unsigned n, uint8_t *buf);

#endif
