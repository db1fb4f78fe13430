/*
 * Framing of gdb's Remote Serial Protocol: $data#checksum, acknowledgements, escapes.  Main thread.
 */
#ifndef ARMLET_DEBUG_GDB_LINK_H
#define ARMLET_DEBUG_GDB_LINK_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/chardev.h"

enum { GDB_PACKET_MAX = 16384 }; /* data of a packet, either way */

struct gdb_link_ops {
    /* data: NUL-terminated behind its len bytes, escapes still in it. */
    void (*packet)(void *opaque, uint8_t *data, size_t len);
    void (*interrupt)(void *opaque);
    void (*opened)(void *opaque);
    void (*closed)(void *opaque);
};

struct gdb_link;

struct gdb_link *gdb_link_new(struct chardev *chr, const struct gdb_link_ops *ops, void *opaque);
void gdb_link_free(struct gdb_link *l);
/* Sends a packet; data may hold anything. */
void gdb_link_send(struct gdb_link *l, const void *data, size_t len);
/* From the next packet on nothing is acknowledged. */
void gdb_link_no_ack(struct gdb_link *l);
/* Writes out what is queued, for a bounded time, and stops listening. */
void gdb_link_end(struct gdb_link *l);

#endif
