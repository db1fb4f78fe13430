/*
 * Characters between a front end (a UART, a virtio port, the monitor, the gdb stub) and a back end (terminal,
 * file, socket, pty, null, multiplexer).  One front end to a back end; a multiplexer is a back end to
 * several.
 *
 * Who calls what, and with which locks:
 *   - The front end calls chardev_write(), chardev_accept_input() and chardev_set_break() from any thread,
 *     its own lock held (for a device that is the board's).  A back end must not call the front end back from
 *     inside these.
 *   - The back end calls the client's functions on the main thread with no lock held; the front end locks for
 *     itself.
 *   - chardev_connect(), chardev_drain() and chardev_free() are for the main thread, with no lock held.
 */
#ifndef ARMLET_BASE_CHARDEV_H
#define ARMLET_BASE_CHARDEV_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum chardev_event {
    CHARDEV_OPENED, /* somebody is at the other end now (socket accepted, pty opened) */
    CHARDEV_CLOSED, /* he is gone; what is written meanwhile is dropped by the back end */
    CHARDEV_ENDED,  /* he sends no more, and still reads (a pipe's end) */
    CHARDEV_BREAK,  /* a break condition came in (C-a b) */
    CHARDEV_RESIZED /* the terminal's size changed; see chardev.rows and cols */
};

/* What the front end gives.  Any function may be NULL. */
struct chardev_client {
    /* How many bytes receive() would take now.  On 0 the back end waits for chardev_accept_input(). */
    size_t (*can_receive)(void *opaque);
    /* 1 <= len <= what can_receive() has just said. */
    void (*receive)(void *opaque, const uint8_t *buf, size_t len);
    void (*event)(void *opaque, enum chardev_event event);
    /* After a short chardev_write(): there is room again. */
    void (*writable)(void *opaque);
};

struct chardev;

struct chardev_ops {
    const char *kind; /* "stdio", "socket", ... */
    /* Takes some of len bytes; returns how many (a short count promises a later writable()), or -errno. */
    ssize_t (*write)(struct chardev *chr, const uint8_t *buf, size_t len);
    /* can_receive() may have become non-zero: look again, from the main loop.  May be NULL. */
    void (*accept_input)(struct chardev *chr);
    /* Sends (or ends) a break condition; most back ends cannot and leave it NULL. */
    void (*set_break)(struct chardev *chr, bool on);
    /* Blocks, for a bounded time, until what write() took is out.  May be NULL. */
    void (*drain)(struct chardev *chr);
    /* The other end of connect: the client or its absence changed.  May be NULL. */
    void (*connected)(struct chardev *chr);
    void (*free)(struct chardev *chr);
};

/* A back end's struct begins with this. */
struct chardev {
    const struct chardev_ops *ops;
    char *id; /* owned; freed by the back end */
    const struct chardev_client *client;
    void *opaque;        /* the client's */
    bool open;           /* is somebody at the other end?  Always true for files and terminals. */
    uint16_t rows, cols; /* of the terminal; 0: unknown */
};

/* chr may be NULL in all of the following: what is written disappears and nothing comes in. */

/* Makes `client' the front end; NULL to leave. */
static inline void chardev_connect(struct chardev *chr, const struct chardev_client *client, void *opaque)
{
    if (!chr)
        return;
    chr->client = client;
    chr->opaque = opaque;
    if (chr->ops->connected)
        chr->ops->connected(chr);
}

/*
 * Bytes taken, 0 .. len.  Short: the client's writable() will be called.  Errors of the host count as taken.
 */
static inline size_t chardev_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
    ssize_t n = chr && len ? chr->ops->write(chr, buf, len) : (ssize_t)len;

    return n >= 0 ? (size_t)n : n == -EAGAIN ? 0 : len;
}

static inline void chardev_accept_input(struct chardev *chr)
{
    if (chr && chr->ops->accept_input)
        chr->ops->accept_input(chr);
}

static inline void chardev_set_break(struct chardev *chr, bool on)
{
    if (chr && chr->ops->set_break)
        chr->ops->set_break(chr, on);
}

/* On the way out, the vCPUs stopped: lets the front end hand over what it still holds, and writes it. */
static inline void chardev_drain(struct chardev *chr)
{
    if (!chr)
        return;
    if (chr->ops->drain)
        chr->ops->drain(chr);
    if (chr->client && chr->client->writable)
        chr->client->writable(chr->opaque);
    if (chr->ops->drain)
        chr->ops->drain(chr);
}

static inline void chardev_free(struct chardev *chr)
{
    if (chr)
        chr->ops->free(chr);
}

/* For back ends, on the main thread. */
static inline size_t chardev_can_receive(struct chardev *chr)
{
    return chr->client && chr->client->can_receive ? chr->client->can_receive(chr->opaque) : 0;
}

static inline void chardev_receive(struct chardev *chr, const uint8_t *buf, size_t len)
{
    if (len && chr->client && chr->client->receive)
        chr->client->receive(chr->opaque, buf, len);
}

static inline void chardev_send_event(struct chardev *chr, enum chardev_event event)
{
    if (event == CHARDEV_OPENED || event == CHARDEV_CLOSED)
        chr->open = event == CHARDEV_OPENED;
    if (chr->client && chr->client->event)
        chr->client->event(chr->opaque, event);
}

static inline void chardev_writable(struct chardev *chr)
{
    if (chr->client && chr->client->writable)
        chr->client->writable(chr->opaque);
}

#endif
