/*
 * The gdb stub: gdb's Remote Serial Protocol on a character device, all-stop, vCPUs as threads 1, 2, ...
 *
 * Costs nothing until a debugger connects; that stops the machine.  When it goes away the machine goes on, without its
 * breakpoints.  Main thread.
 */
#ifndef ARMLET_DEBUG_GDBSTUB_H
#define ARMLET_DEBUG_GDBSTUB_H

#include "base/chardev.h"
#include "debug/control.h"

struct gdbstub;

/* Runs a monitor command and returns its output, to be freed. */
typedef char *gdbstub_command_fn(void *opaque, const char *line);

/* chr stays the caller's and outlives the stub; so does control. */
struct gdbstub *gdbstub_new(struct control *control, struct chardev *chr, gdbstub_command_fn *command, void *opaque);
/* The machine stands at its start and a debugger may come: finds out where the kernel will run, meanwhile. */
void gdbstub_expect(struct gdbstub *g);
/* The machine has ended: tells the debugger the exit status.  The vCPUs may still be there, but not run. */
void gdbstub_end(struct gdbstub *g, int status);
void gdbstub_free(struct gdbstub *g);

#endif
