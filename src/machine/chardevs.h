/*
 * The character devices of a command line: -chardev, -serial, -monitor, -mon, and the console they share.
 *
 * Owned by struct chardevs; created before the devices that use them, freed after.  Main thread.
 */
#ifndef ARMLET_MACHINE_CHARDEVS_H
#define ARMLET_MACHINE_CHARDEVS_H

#include <stdbool.h>

#include "base/chardev.h"
#include "debug/mux.h"
#include "machine/config.h"

struct chardevs;

/* NULL: err says which option is wrong or what the host refused. */
struct chardevs *chardevs_new(const struct config *config, const struct mux_actions *actions, GError **err);
void chardevs_free(struct chardevs *all);

/* A front end's side of the device called id: a new one of its multiplexer, or the device itself, once.
 * NULL with err: unknown, or in use already. */
struct chardev *chardevs_take(struct chardevs *all, const char *id, GError **err);
/* The serial port n's device (NULL: it leads nowhere). */
struct chardev *chardevs_serial(struct chardevs *all, unsigned n);
/* A front end for -monitor's or -qmp's argument; id names what is made.  NULL without err: it leads nowhere (*none). */
struct chardev *chardevs_open(struct chardevs *all, const char *option, const char *text, const char *id, bool *none,
                              GError **err);
/* The n-th front end for a monitor that `mon:' or the default console asks for; each n once; NULL: no more. */
struct chardev *chardevs_mon_front(struct chardevs *all, unsigned n);
/* `info chardev'. */
void chardevs_describe(struct chardevs *all, GString *out);
/*
 * The line for -gdb's argument: tcp and unix listen, without waiting.  NULL without err: "none".  What an earlier call
 * made is freed: its front end has left by then.
 */
struct chardev *chardevs_gdb(struct chardevs *all, const char *text, GError **err);
/* Writes everything out; the vCPUs are stopped. */
void chardevs_drain(struct chardevs *all);

#endif
