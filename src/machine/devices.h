/*
 * The devices of a command line: -device, -object, and what -drive if=virtio implies.
 *
 * One table of drivers is read by the creation, by `-device help' and by `-device NAME,help'.  Made after the board,
 * whose virtio-mmio frames own the devices from then on.  Main thread.
 */
#ifndef ARMLET_MACHINE_DEVICES_H
#define ARMLET_MACHINE_DEVICES_H

#include <glib.h>
#include <stdbool.h>

#include "machine/chardevs.h"
#include "machine/config.h"
#include "machine/virt.h"

struct devices;

/* NULL: err says which option is wrong.  All of it must outlive the result. */
struct devices *devices_new(const struct config *config, struct board *board, struct chardevs *chardevs, GError **err);
/* After the board. */
void devices_free(struct devices *all);
/* The networks of the machine; owned by all. */
struct netdevs;
struct netdevs *devices_netdevs(struct devices *all);
/* C-a s: writes snapshots back; returns a line about it, to be freed. */
char *devices_commit(struct devices *all);

/* Prints the drivers, or one driver's properties (false: there is no such driver; err says so). */
void devices_help(void);
bool devices_driver_help(const char *name, GError **err);
/* -global DRIVER.PROP=VALUE: is there such a driver and property? */
bool devices_check_global(const char *driver, const char *property, GError **err);

#endif
