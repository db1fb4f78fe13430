/*
 * See mux.h.  The escape keys are looked for as input arrives, whether or not the guest takes any: a guest that hangs
 * can still be ended.  Input for a front end waits in a queue; a terminal's overflow is dropped (somebody types at a
 * guest that does not listen), a pipe's or file's is not: it is read no faster than the guest takes it.
 *
 * Locks: `lock' guards the output state (line start, timestamps) and the queues; never held while calling out to the
 * back end's or a client's functions, but for chardev_write() of the back end, which calls nobody.
 */
#include "debug/mux.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/report.h"

enum { FRONTS = 4, QUEUE = 4096 };

struct front {
    struct chardev chr;
    struct mux *mux;
    uint8_t queue[QUEUE];
    size_t head, used;
};

struct mux {
    struct chardev *back;
    struct mux_actions actions;
    struct front *front[FRONTS];
    unsigned n, focus;
    int escape;
    bool escaped;
    GMutex lock;
    bool stamps, line_start;
    gint64 stamps_from;
    GSource *pump; /* hands queued input on from the main loop */
};

/* --- output ------------------------------------------------------------------------------------------- */

static void say(struct mux *m, const char *text)
{
    size_t n = strlen(text), done = 0;
    for (int tries = 0; done < n && tries < 100; tries++) {
        done += chardev_write(m->back, (const uint8_t *)text + done, n - done);
        if (done < n)
            chardev_drain(m->back);
    }
}

static void write_stamp_locked(struct mux *m)
{
    char text[48];
    gint64 ms = (g_get_monotonic_time() - m->stamps_from) / 1000;
    int n = snprintf(text, sizeof text, "[%02d:%02d:%02d.%03d] ", (int)(ms / 3600000), (int)(ms / 60000 % 60),
                     (int)(ms / 1000 % 60), (int)(ms % 1000));
    chardev_write(m->back, (const uint8_t *)text, (size_t)n);
}

static ssize_t front_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
    struct mux *m = ((struct front *)chr)->mux;
    size_t done = 0;

    g_mutex_lock(&m->lock);
    while (m->stamps && done < len) {
        const uint8_t *end = memchr(buf + done, '\n', len - done);
        size_t n = end ? (size_t)(end - (buf + done)) + 1 : len - done;
        if (m->line_start)
            write_stamp_locked(m);
        m->line_start = false;
        size_t taken = chardev_write(m->back, buf + done, n);
        done += taken;
        if (taken < n)
            goto out;
        m->line_start = end;
    }
    if (done < len)
        done += chardev_write(m->back, buf + done, len - done);
out:
    g_mutex_unlock(&m->lock);
    return (ssize_t)done;
}

/* --- keys --------------------------------------------------------------------------------------------- */

static void escape_name(const struct mux *m, char *out, size_t size)
{
    if (m->escape > 0 && m->escape < 27)
        snprintf(out, size, "C-%c", m->escape + 'a' - 1);
    else
        snprintf(out, size, "0x%02x", (unsigned)m->escape);
}

static void print_help(struct mux *m)
{
    static const char *const lines[][2] = {
        { "h", "print this help" }, { "x", "exit emulator" }, { "s", "save disk data back to file (if -snapshot)" },
        { "t", "toggle console timestamps" }, { "b", "send break (magic sysrq)" },
        { "c", "switch between console and monitor" } };
    char esc[16], line[128];

    escape_name(m, esc, sizeof esc);
    say(m, "\r\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
        snprintf(line, sizeof line, "%s %-4s %s\r\n", esc, lines[i][0], lines[i][1]);
        say(m, line);
    }
    snprintf(line, sizeof line, "%s %-4s sends %s\r\n", esc, esc, esc);
    say(m, line);
}

static void next_front(struct mux *m)
{
    if (m->n < 2) {
        say(m, "\r\nThere is nothing else on this terminal.\r\n");
        return;
    }
    chardev_send_event(&m->front[m->focus]->chr, CHARDEV_CLOSED);
    m->focus = (m->focus + 1) % m->n;
    chardev_send_event(&m->front[m->focus]->chr, CHARDEV_OPENED);
}

static void commit(struct mux *m)
{
    g_autofree char *text = m->actions.commit ? m->actions.commit(m->actions.opaque)
                                              : g_strdup("There is no disk to save to.");
    say(m, "\r\n");
    say(m, text);
    say(m, "\r\n");
}

static void quit(struct mux *m)
{
    char line[64];
    /* QEMU's word under its name: scripts wait for it. */
    bool qemu = !strncmp(report_program(), "qemu-system-", 12);
    snprintf(line, sizeof line, "%s: Terminated\r\n", qemu ? "QEMU" : "armlet");
    say(m, line);
    m->actions.quit(m->actions.opaque);
}

static void toggle_stamps(struct mux *m)
{
    g_mutex_lock(&m->lock);
    m->stamps = !m->stamps;
    m->stamps_from = g_get_monotonic_time();
    m->line_start = false;
    g_mutex_unlock(&m->lock);
}

/* The key after the escape.  true: it is for the front end after all. */
static bool escape_key(struct mux *m, uint8_t key)
{
    switch (key) {
    case 'h': case '?': print_help(m); return false;
    case 'x': quit(m); return false;
    case 's': commit(m); return false;
    case 't': toggle_stamps(m); return false;
    case 'b': chardev_send_event(&m->front[m->focus]->chr, CHARDEV_BREAK); return false;
    case 'c': next_front(m); return false;
    default: return key == m->escape;
    }
}

/* --- input ---------------------------------------------------------------------------------------------- */

static void enqueue(struct mux *m, uint8_t c)
{
    struct front *f = m->front[m->focus];
    if (f->used == QUEUE)
        return;
    f->queue[(f->head + f->used++) % QUEUE] = c;
}

/* Hands queued input to the front ends as far as they take it. */
static void pump(struct mux *m)
{
    for (unsigned i = 0; i < m->n; i++) {
        struct front *f = m->front[i];
        for (;;) {
            size_t room = chardev_can_receive(&f->chr), n = MIN(MIN(room, f->used), QUEUE - f->head);
            if (!n)
                break;
            uint8_t buf[QUEUE];
            memcpy(buf, f->queue + f->head, n);
            f->head = (f->head + n) % QUEUE;
            f->used -= n;
            chardev_receive(&f->chr, buf, n);
        }
    }
}

static size_t back_can_receive(void *opaque)
{
    struct mux *m = opaque;
    if (!m->n)
        return 0;
    size_t room = QUEUE - m->front[m->focus]->used;
    return isatty(STDIN_FILENO) && !strcmp(m->back->ops->kind, "stdio") ? MAX(room, 64) : room;
}

static void back_receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct mux *m = opaque;
    for (size_t i = 0; i < len; i++) {
        if (m->escaped) {
            m->escaped = false;
            pump(m); /* what was typed before the key goes where the focus still is */
            if (escape_key(m, buf[i]))
                enqueue(m, buf[i]);
        } else if (m->escape && buf[i] == m->escape) {
            m->escaped = true;
        } else {
            enqueue(m, buf[i]);
        }
    }
    pump(m);
}

static void back_event(void *opaque, enum chardev_event event)
{
    struct mux *m = opaque;
    for (unsigned i = 0; i < m->n; i++) {
        m->front[i]->chr.rows = m->back->rows;
        m->front[i]->chr.cols = m->back->cols;
        if (event == CHARDEV_RESIZED || i == m->focus)
            chardev_send_event(&m->front[i]->chr, event);
    }
}

static void back_writable(void *opaque)
{
    struct mux *m = opaque;
    for (unsigned i = 0; i < m->n; i++)
        chardev_writable(&m->front[i]->chr);
}

static const struct chardev_client back_client = {
    .can_receive = back_can_receive, .receive = back_receive, .event = back_event, .writable = back_writable,
};

static gboolean pump_dispatch(GSource *source, GSourceFunc fn, gpointer mux)
{
    g_source_set_ready_time(source, -1);
    return fn(mux);
}
static GSourceFuncs pump_funcs = { .dispatch = pump_dispatch };

static gboolean on_pump(gpointer mux)
{
    pump(mux);
    chardev_accept_input(((struct mux *)mux)->back);
    return G_SOURCE_CONTINUE;
}

static void front_accept_input(struct chardev *chr)
{
    g_source_set_ready_time(((struct front *)chr)->mux->pump, 0);
}

static void front_set_break(struct chardev *chr, bool on)
{
    chardev_set_break(((struct front *)chr)->mux->back, on);
}

static void front_drain(struct chardev *chr)
{
    chardev_drain(((struct front *)chr)->mux->back);
}

static void front_free(struct chardev *chr)
{
    (void)chr; /* goes with the mux */
}

static const struct chardev_ops front_ops = {
    .kind = "mux", .write = front_write, .accept_input = front_accept_input, .set_break = front_set_break,
    .drain = front_drain, .free = front_free,
};

/* --- life ----------------------------------------------------------------------------------------------- */

struct mux *mux_new(struct chardev *back, int escape, const struct mux_actions *actions)
{
    struct mux *m = g_new0(struct mux, 1);
    m->back = back;
    m->escape = escape;
    m->actions = *actions;
    g_mutex_init(&m->lock);
    m->pump = g_source_new(&pump_funcs, sizeof *m->pump);
    g_source_set_callback(m->pump, on_pump, m, NULL);
    g_source_attach(m->pump, NULL);
    chardev_connect(back, &back_client, m);
    return m;
}

struct chardev *mux_add(struct mux *m, const char *id)
{
    BUG_ON(m->n == FRONTS);
    struct front *f = g_new0(struct front, 1);
    f->chr.ops = &front_ops;
    f->chr.id = g_strdup(id);
    f->chr.rows = m->back->rows;
    f->chr.cols = m->back->cols;
    f->chr.open = m->n == 0 && m->back->open;
    f->mux = m;
    m->front[m->n++] = f;
    chardev_accept_input(m->back);
    return &f->chr;
}

struct chardev *mux_back(struct mux *m)
{
    return m->back;
}

void mux_free(struct mux *m)
{
    chardev_connect(m->back, NULL, NULL);
    g_source_destroy(m->pump);
    g_source_unref(m->pump);
    for (unsigned i = 0; i < m->n; i++) {
        g_free(m->front[i]->chr.id);
        g_free(m->front[i]);
    }
    chardev_free(m->back);
    g_mutex_clear(&m->lock);
    g_free(m);
}
