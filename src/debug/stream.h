/*
 * Character back ends on file descriptors: terminal, file, pipe, pty, socket; and null.
 *
 * All run on GLib's default main context.  Output is kept in a bounded buffer that the main loop writes out, so that a
 * vCPU never waits for a slow terminal; a full buffer is back-pressure.  Input is read only as fast as the front end
 * takes it.  The constructors return NULL with err set when the host refuses; id is copied and may be NULL.
 */
#ifndef ARMLET_DEBUG_STREAM_H
#define ARMLET_DEBUG_STREAM_H

#include <glib.h>
#include <stdbool.h>

#include "base/chardev.h"

/* The terminal, raw if it is one, and restored on every way out.  signals: C-c and the like still reach the program.
 * Only one can exist. */
struct chardev *stream_stdio_new(const char *id, bool signals, GError **err);
/* Changes that; nothing happens if there is no terminal in use.  Main thread. */
void stream_stdio_signals(bool signals);
struct chardev *stream_file_new(const char *id, const char *path, bool append, GError **err);
/* path.in and path.out, or path itself for both. */
struct chardev *stream_pipe_new(const char *id, const char *path, GError **err);
/* *name: the slave's path, owned by the caller. */
struct chardev *stream_pty_new(const char *id, char **name, GError **err);
struct chardev *stream_null_new(const char *id);
/* Keeps the last size bytes (a power of two) and takes no input. */
struct chardev *stream_ring_new(const char *id, size_t size);

struct stream_address {
    const char *unix_path;   /* or NULL: TCP */
    const char *host, *port; /* host NULL or "": any address for a server, localhost for a client */
    bool server, wait, nodelay;
};
/* With server and wait, returns only when somebody has connected. */
struct chardev *stream_socket_new(const char *id, const struct stream_address *address, GError **err);

/* --- for the implementations ------------------------------------------------------------------------ */

struct stream {
    struct chardev chr;
    int in, out; /* -1: none */
    GMutex lock; /* of the output buffer */
    uint8_t *buf;
    size_t head, used;
    bool starved; /* a write was cut short: writable() is owed */
    bool is_tty;
    bool ended;    /* input is at its end */
    bool out_dead; /* nobody will ever read what is written */
    size_t lost;   /* bytes that were written and had to be dropped since the last attach */
    GSource *source;
    gpointer in_tag, out_tag; /* watches of the main loop, when wanted */
    void (*closed)(struct stream *s); /* the other end is gone (main thread) */
};
void stream_init(struct stream *s, const struct chardev_ops *ops, const char *id);
/* Starts watching; in and out may be the same descriptor.  Main thread. */
void stream_attach(struct stream *s, int in, int out);
/* Stops watching and closes the descriptors above 2; unwritten output is dropped. */
void stream_detach(struct stream *s);
ssize_t stream_write(struct chardev *chr, const uint8_t *buf, size_t len);
void stream_accept_input(struct chardev *chr);
void stream_drain(struct chardev *chr);
void stream_fini(struct stream *s);

#endif
