/*
 * The disks of a command line: -drive, -hda, -snapshot.
 *
 * All images are opened at the start, whether or not a device uses them, so that a wrong name is an error at once.
 * Main thread.
 */
#ifndef ARMLET_MACHINE_DRIVES_H
#define ARMLET_MACHINE_DRIVES_H

#include <glib.h>
#include <stdbool.h>

#include "machine/config.h"
#include "virtio/disk.h"

struct drives;

/* NULL: err says which image or option is wrong. */
struct drives *drives_new(const struct config *config, GError **err);
/* The devices that have taken disks are gone by then. */
void drives_free(struct drives *all);

/* The disk of the drive called id, which is the caller's from now on.  NULL: err says why not. */
struct disk *drives_take(struct drives *all, const char *id, GError **err);
/* Likewise the next drive that has no -device of its own (if=virtio); NULL without an error: there is none left.
 * *id: its name, kept by all. */
struct disk *drives_take_implicit(struct drives *all, const char **id);

/* Writes the changes of snapshots back.  Returns a line that says what was done, to be freed. */
char *drives_commit(struct drives *all);

#endif
