/*
 * Output that waits until its character device takes it, up to a limit: more is dropped.  Main thread.
 */
#ifndef ARMLET_DEBUG_OUTBOX_H
#define ARMLET_DEBUG_OUTBOX_H

#include <glib.h>
#include <stdbool.h>

#include "base/chardev.h"
#include "base/report.h"

enum { OUTBOX_MAX = 16 << 20 };

struct outbox {
    struct chardev *chr;
    GByteArray *bytes;
    bool said; /* that something was dropped */
};

static inline void outbox_flush(struct outbox *o)
{
    size_t n = chardev_write(o->chr, o->bytes->data, o->bytes->len);

    if (n)
        g_byte_array_remove_range(o->bytes, 0, (guint)n);
}

static inline void outbox_put(struct outbox *o, const void *data, size_t len)
{
    if (!o->chr->open)
        return;
    if (o->bytes->len + len <= OUTBOX_MAX) {
        g_byte_array_append(o->bytes, data, (guint)len);
    } else if (!o->said) {
        o->said = true;
        warn("%s: nobody reads the monitor's output: some was dropped", o->chr->id ? o->chr->id : o->chr->ops->kind);
    }
    outbox_flush(o);
}

static inline void outbox_clear(struct outbox *o)
{
    g_byte_array_set_size(o->bytes, 0);
    o->said = false;
}

#endif
