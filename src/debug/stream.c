/*
 * The engine of stream.h: one GSource a stream, which writes the buffer out and reads input.
 *
 * Descriptors are not made non-blocking: those of a terminal are shared with the shell that started us.  Instead a
 * write is small and follows a poll().  Locks: `lock' guards the buffer; callbacks are called without it.
 */
#include "debug/stream.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { OUT_SIZE = 1 << 16, OUT_CHUNK = 512, IN_CHUNK = 4096, DRAIN_MS = 2000 };

struct stream_source {
    GSource source;
    struct stream *stream;
};

static bool fd_ready(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };
    return poll(&p, 1, 0) > 0 && (p.revents & (events | POLLHUP | POLLERR));
}

static void drop_output(struct stream *s)
{
    s->lost += s->used;
    s->head = s->used = 0;
}

/* Writes what the descriptor takes now; lock held.  true: more could follow later. */
static bool flush_some_locked(struct stream *s)
{
    while (s->used && s->out >= 0) {
        if (!fd_ready(s->out, POLLOUT))
            return true;
        size_t n = MIN(MIN(s->used, OUT_SIZE - s->head), OUT_CHUNK);
        ssize_t done = write(s->out, s->buf + s->head, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return true;
        if (done <= 0) { /* EPIPE, EIO: nobody will read this any more; ENOSPC: it has no place */
            drop_output(s);
            if (errno == EPIPE || errno == EIO)
                s->out_dead = true;
            break;
        }
        s->head = (s->head + (size_t)done) % OUT_SIZE;
        s->used -= (size_t)done;
    }
    if (s->out < 0)
        drop_output(s);
    return false;
}

ssize_t stream_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
    struct stream *s = (struct stream *)chr;

    g_mutex_lock(&s->lock);
    if (s->out < 0 || s->out_dead) { /* nobody there: gone, as on a cable that is not plugged in */
        g_mutex_unlock(&s->lock);
        return (ssize_t)len;
    }
    size_t n = MIN(len, OUT_SIZE - s->used), tail = (s->head + s->used) % OUT_SIZE;
    size_t first = MIN(n, OUT_SIZE - tail);
    bool was_empty = !s->used;
    memcpy(s->buf + tail, buf, first);
    memcpy(s->buf, buf + first, n - first);
    s->used += n;
    s->starved |= n < len;
    if (was_empty && n)
        g_source_set_ready_time(s->source, 0);
    g_mutex_unlock(&s->lock);
    return (ssize_t)n;
}

/* A watch for nothing would still report a hang-up, again and again: what is not wanted is removed. */
static void set_watch(struct stream *s, gpointer *tag, int fd, GIOCondition cond)
{
    if (*tag && !cond)
        g_source_remove_unix_fd(s->source, *tag);
    if (!cond)
        *tag = NULL;
    else if (!*tag && fd >= 0)
        *tag = g_source_add_unix_fd(s->source, fd, cond);
}

void stream_accept_input(struct chardev *chr)
{
    struct stream *s = (struct stream *)chr;
    g_mutex_lock(&s->lock); /* any thread: the source may be on its way out */
    if (s->source)
        g_source_set_ready_time(s->source, 0); /* the dispatch looks at can_receive() again */
    g_mutex_unlock(&s->lock);
}

static void other_end_gone(struct stream *s)
{
    set_watch(s, &s->in_tag, -1, 0);
    g_mutex_lock(&s->lock);
    s->ended = true;
    g_mutex_unlock(&s->lock);
    if (s->closed)
        s->closed(s);
    else
        chardev_send_event(&s->chr, CHARDEV_ENDED);
}

static void read_input(struct stream *s)
{
    uint8_t buf[IN_CHUNK];
    size_t room = MIN(chardev_can_receive(&s->chr), sizeof buf);

    set_watch(s, &s->in_tag, s->in, room ? G_IO_IN : 0);
    if (!room)
        return;
    if (!fd_ready(s->in, POLLIN))
        return;
    ssize_t n = read(s->in, buf, room);
    if (n > 0)
        chardev_receive(&s->chr, buf, (size_t)n);
    else if (n == 0 || (errno != EINTR && errno != EAGAIN))
        other_end_gone(s);
}

static gboolean source_dispatch(GSource *source, GSourceFunc fn, gpointer data)
{
    struct stream *s = ((struct stream_source *)source)->stream;
    (void)fn, (void)data;

    g_source_set_ready_time(source, -1);
    g_mutex_lock(&s->lock);
    bool more = flush_some_locked(s);
    bool wake = s->starved && s->used < OUT_SIZE / 2;
    if (wake)
        s->starved = false;
    g_mutex_unlock(&s->lock);
    if (s->in != s->out)
        set_watch(s, &s->out_tag, s->out, more ? G_IO_OUT : 0);
    else if (more) /* one descriptor for both ways: look again soon instead of a second watch */
        g_source_set_ready_time(source, g_get_monotonic_time() + 2000);
    if (wake)
        chardev_writable(&s->chr);
    if (s->in >= 0 && !s->ended)
        read_input(s);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs source_funcs = { .dispatch = source_dispatch };

void stream_init(struct stream *s, const struct chardev_ops *ops, const char *id)
{
    s->chr.ops = ops;
    s->chr.id = g_strdup(id);
    s->in = s->out = -1;
    g_mutex_init(&s->lock);
    s->buf = g_malloc(OUT_SIZE);
}

void stream_attach(struct stream *s, int in, int out)
{
    GSource *source = g_source_new(&source_funcs, sizeof(struct stream_source));

    ((struct stream_source *)source)->stream = s;
    g_source_set_name(source, s->chr.ops->kind);
    g_mutex_lock(&s->lock);
    s->in = in;
    s->out = out;
    s->source = source;
    s->out_dead = false;
    drop_output(s);
    s->lost = 0;
    s->in_tag = s->out_tag = NULL;
    s->ended = false;
    g_mutex_unlock(&s->lock);
    g_source_attach(source, NULL);
    g_source_set_ready_time(source, 0);
}

void stream_detach(struct stream *s)
{
    g_mutex_lock(&s->lock);
    int in = s->in, out = s->out;
    GSource *source = s->source;
    s->in = s->out = -1;
    s->in_tag = s->out_tag = NULL;
    s->source = NULL;
    drop_output(s);
    g_mutex_unlock(&s->lock);
    if (source) {
        g_source_destroy(source);
        g_source_unref(source);
    }
    if (in > 2)
        close(in);
    if (out > 2 && out != in)
        close(out);
}

/* On the way out: wait for the descriptor, but not for ever for a terminal that nobody reads. */
void stream_drain(struct chardev *chr)
{
    struct stream *s = (struct stream *)chr;
    gint64 end = g_get_monotonic_time() + DRAIN_MS * 1000;

    g_mutex_lock(&s->lock);
    while (flush_some_locked(s) && g_get_monotonic_time() < end) {
        struct pollfd p = { .fd = s->out, .events = POLLOUT };
        poll(&p, 1, 50);
    }
    g_mutex_unlock(&s->lock);
}

void stream_fini(struct stream *s)
{
    stream_drain(&s->chr);
    stream_detach(s);
    g_mutex_clear(&s->lock);
    g_free(s->buf);
    g_free(s->chr.id);
}
