/*
 * The console multiplexer: one terminal for the serial port and the monitor, with the C-a keys.
 *
 *   C-a h  help        C-a x  end              C-a s  commit -snapshot disks   C-a t  timestamps
 *   C-a b  break       C-a c  next front end   C-a C-a  the escape itself
 *
 * Each front end gets a chardev of its own; the one in focus gets the input.  Threads as base/chardev.h says.
 */
#ifndef ARMLET_DEBUG_MUX_H
#define ARMLET_DEBUG_MUX_H

#include <glib.h>
#include <stdbool.h>

#include "base/chardev.h"

struct mux;

struct mux_actions { /* main thread, no lock held */
    void (*quit)(void *opaque);
    /* Writes snapshot disks back; returns a line about what it did, to be freed. */
    char *(*commit)(void *opaque);
    void *opaque;
};

/* Takes over `back', and is freed after all its front ends.  escape: a character code, 0 for none. */
struct mux *mux_new(struct chardev *back, int escape, const struct mux_actions *actions);
/* A further front end.  The first is in focus at the start.  At most 4. */
struct chardev *mux_add(struct mux *mux, const char *id);
void mux_free(struct mux *mux);
struct chardev *mux_back(struct mux *mux);

#endif
