/*
 * The machine: the board, its vCPUs and its life from power-on to exit status.
 *
 * Made, run and freed by the main thread, which runs GLib's default main loop while the vCPUs run theirs.  Several may
 * exist in one process (one at a time has the terminal).
 */
#ifndef ARMLET_MACHINE_MACHINE_H
#define ARMLET_MACHINE_MACHINE_H

#include "machine/config.h"

struct machine;

/* Builds the board and loads the images.  NULL: err is the user's mistake or the host's refusal, in one line.
 * config must outlive the machine. */
struct machine *machine_new(const struct config *config, GError **err);
/* Runs until the guest powers off or the user ends it; returns the program's exit status. */
int machine_run(struct machine *m);
void machine_free(struct machine *m);

/* Any thread; takes effect soon. */
enum machine_request { MACHINE_POWER_OFF, MACHINE_RESET, MACHINE_QUIT, MACHINE_PANIC };
void machine_request(struct machine *m, enum machine_request what);
/* Main thread: SIGINT calls this instead of ending the machine. */
void machine_on_interrupt(struct machine *m, void (*interrupted)(void *opaque), void *opaque);
/* Of a guest that hangs: what each vCPU does, which tasks are blocked, in lines; NULL: not known.  Main thread. */
char *machine_describe_hang(struct machine *m);
/* Presses the power button (main thread). */
void machine_powerdown(struct machine *m);

/* -machine dumpdtb=: writes the tree of this config.  No machine is made. */
bool machine_dump_dtb(const struct config *config, GError **err);

#endif
