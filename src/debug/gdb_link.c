/*
 * See gdb_link.h ("Remote Protocol", Overview, of the gdb manual).  A client that never reads is not answered without
 * bound: while more than OUT_MAX bytes wait, no further packet is taken from it.
 */
#include "debug/gdb_link.h"

#include <string.h>

#include "base/report.h"
#include "base/trace.h"

enum { OUT_MAX = 256 * 1024, IN_CHUNK = 4096 };

enum link_state { IDLE, DATA, SUM_HIGH, SUM_LOW };

struct gdb_link {
    struct chardev *chr;
    const struct gdb_link_ops *ops;
    void *opaque;
    enum link_state state;
    bool no_ack, no_ack_next, overlong, said_overlong;
    uint8_t data[GDB_PACKET_MAX + 1];
    size_t len;
    uint8_t sum;
    int sum_high;
    GByteArray *out;  /* not yet taken by the character device */
    GByteArray *last; /* the last packet sent, for `-' */
};

static void flush(struct gdb_link *l)
{
    size_t n = l->out->len ? chardev_write(l->chr, l->out->data, l->out->len) : 0;

    if (n)
        g_byte_array_remove_range(l->out, 0, (guint)n);
}

static void put(struct gdb_link *l, const uint8_t *data, size_t len)
{
    if (!l->chr->open)
        return;
    g_byte_array_append(l->out, data, (guint)len);
    flush(l);
}

void gdb_link_send(struct gdb_link *l, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint8_t sum = 0;
    char end[4];

    g_byte_array_set_size(l->last, 0);
    g_byte_array_append(l->last, (const guint8 *)"$", 1);
    for (size_t i = 0; i < len; i++) {
        uint8_t c = p[i];
        if (c == '#' || c == '$' || c == '}' || c == '*') {
            g_byte_array_append(l->last, (const guint8 *)"}", 1);
            sum = (uint8_t)(sum + '}');
            c ^= 0x20;
        }
        g_byte_array_append(l->last, &c, 1);
        sum = (uint8_t)(sum + c);
    }
    g_snprintf(end, sizeof end, "#%02x", sum);
    g_byte_array_append(l->last, (const guint8 *)end, 3);
    trace(GDB, "> %.*s", (int)MIN(len, 200), (const char *)data);
    put(l, l->last->data, l->last->len);
}

void gdb_link_no_ack(struct gdb_link *l)
{
    l->no_ack_next = true;
}

static void packet_done(struct gdb_link *l, int sum_low)
{
    bool good = l->sum_high >= 0 && sum_low >= 0 && (l->sum_high << 4 | sum_low) == l->sum;

    l->state = IDLE;
    if (!l->no_ack)
        put(l, (const uint8_t *)(good ? "+" : "-"), 1);
    if (!good)
        return;
    if (l->overlong) {
        if (!l->said_overlong)
            warn("gdb: a packet of more than %d bytes was dropped", GDB_PACKET_MAX);
        l->said_overlong = true;
        gdb_link_send(l, "E22", 3);
        return;
    }
    l->data[l->len] = 0;
    trace(GDB, "< %.*s", (int)MIN(l->len, 200), (const char *)l->data);
    l->ops->packet(l->opaque, l->data, l->len);
    l->no_ack |= l->no_ack_next;
}

static void idle_byte(struct gdb_link *l, uint8_t c)
{
    switch (c) {
    case '$':
        l->state = DATA;
        l->len = 0;
        l->sum = 0;
        l->overlong = false;
        break;
    case '-':
        if (!l->no_ack)
            put(l, l->last->data, l->last->len);
        break;
    case 3:
        l->ops->interrupt(l->opaque);
        break;
    default: /* acknowledgements and noise */
        break;
    }
}

static void data_byte(struct gdb_link *l, uint8_t c)
{
    if (c == '#') {
        l->state = SUM_HIGH;
        return;
    }
    l->sum = (uint8_t)(l->sum + c);
    if (l->len < GDB_PACKET_MAX)
        l->data[l->len++] = c;
    else
        l->overlong = true;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct gdb_link *l = opaque;

    for (size_t i = 0; i < len; i++) {
        switch (l->state) {
        case IDLE: idle_byte(l, buf[i]); break;
        case DATA: data_byte(l, buf[i]); break;
        case SUM_HIGH:
            l->sum_high = g_ascii_xdigit_value((char)buf[i]);
            l->state = SUM_LOW;
            break;
        case SUM_LOW: packet_done(l, g_ascii_xdigit_value((char)buf[i])); break;
        }
    }
}

static size_t can_receive(void *opaque)
{
    const struct gdb_link *l = opaque;
    return l->out->len > OUT_MAX ? 0 : IN_CHUNK;
}

static void writable(void *opaque)
{
    struct gdb_link *l = opaque;

    flush(l);
    chardev_accept_input(l->chr);
}

static void start_over(struct gdb_link *l)
{
    l->state = IDLE;
    l->no_ack = l->no_ack_next = l->said_overlong = false;
    g_byte_array_set_size(l->out, 0);
    g_byte_array_set_size(l->last, 0);
}

static void event(void *opaque, enum chardev_event what)
{
    struct gdb_link *l = opaque;

    if (what == CHARDEV_OPENED) {
        start_over(l);
        l->ops->opened(l->opaque);
    } else if (what == CHARDEV_CLOSED) {
        if (l->state != IDLE)
            warn("gdb: the connection ended in the middle of a packet, which was dropped");
        start_over(l);
        l->ops->closed(l->opaque);
    }
}

static const struct chardev_client client = {
    .can_receive = can_receive, .receive = receive, .event = event, .writable = writable,
};

struct gdb_link *gdb_link_new(struct chardev *chr, const struct gdb_link_ops *ops, void *opaque)
{
    struct gdb_link *l = g_new0(struct gdb_link, 1);

    l->chr = chr;
    l->ops = ops;
    l->opaque = opaque;
    l->out = g_byte_array_new();
    l->last = g_byte_array_new();
    chardev_connect(chr, &client, l);
    chardev_accept_input(chr);
    return l;
}

void gdb_link_end(struct gdb_link *l)
{
    for (int tries = 0; l->out->len && tries < 10; tries++) {
        chardev_drain(l->chr);
        flush(l);
    }
}

void gdb_link_free(struct gdb_link *l)
{
    chardev_connect(l->chr, NULL, NULL);
    g_byte_array_free(l->out, TRUE);
    g_byte_array_free(l->last, TRUE);
    g_free(l);
}
