/*
 * The monitors, QMP and the gdb stub of a command line, and what `info' knows about the machine.
 *
 * Made after the devices, freed before the board.  Main thread.
 */
#ifndef ARMLET_MACHINE_MONITORS_H
#define ARMLET_MACHINE_MONITORS_H

#include "debug/control.h"
#include "machine/chardevs.h"
#include "machine/config.h"
#include "machine/netdevs.h"
#include "machine/virt.h"

struct monitors;

/* What the monitors can ask of the machine. */
struct monitors_ops {
    void (*quit)(void *opaque);
    void (*reset)(void *opaque);
    void (*powerdown)(void *opaque);
    void *opaque;
};

/* NULL: err says which option is wrong.  All of it must outlive the result. */
struct monitors *monitors_new(const struct config *config, struct board *board, struct chardevs *chardevs,
                              struct netdevs *netdevs, const struct monitors_ops *ops, GError **err);
struct control *monitors_control(struct monitors *m);
/* The machine stands before its first instruction (-S). */
void monitors_paused(struct monitors *m);
/* The machine has ended with this status: gdb is told. */
void monitors_end(struct monitors *m, int status);
void monitors_free(struct monitors *m);

#endif
