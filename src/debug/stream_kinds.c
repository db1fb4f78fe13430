/*
 * The kinds of stream that need no connection: terminal, file, pipe, pty, null, ring buffer.
 *
 * The terminal's settings are restored by an exit hook of base/report, which also runs on fatal signals; that hook
 * uses only tcsetattr().  A window-size change is noticed by SIGWINCH in the main loop.
 */
#include "debug/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <pty.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/report.h"

static void stream_free(struct chardev *chr)
{
    stream_fini((struct stream *)chr);
    g_free(chr);
}

#define STREAM_OPS(name, free_fn) \
    static const struct chardev_ops name##_ops = { .kind = #name, .write = stream_write, \
        .accept_input = stream_accept_input, .drain = stream_drain, .free = free_fn }

static void *host_error(GError **err, const char *what)
{
    int e = errno;
    g_set_error(err, G_FILE_ERROR, (gint)g_file_error_from_errno(e), "%s: %s", what, g_strerror(e));
    return NULL;
}

/* --- terminal ---------------------------------------------------------------------------------------- */

static struct termios saved_settings;
static bool settings_saved;

static void restore_terminal(void)
{
    if (settings_saved)
        tcsetattr(STDIN_FILENO, TCSANOW, &saved_settings);
}

static void terminal_free(struct chardev *chr)
{
    stream_free(chr);
    restore_terminal();
}
STREAM_OPS(stdio, terminal_free);

static bool signals_wanted;

static void set_raw(bool signals)
{
    struct termios t;

    signals_wanted = signals;
    if (!settings_saved) {
        if (tcgetattr(STDIN_FILENO, &saved_settings))
            return;
        settings_saved = true;
        report_at_exit(restore_terminal);
    }
    t = saved_settings;
    t.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    t.c_oflag |= OPOST; /* our own messages end in a bare newline */
    t.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
    if (!signals)
        t.c_lflag &= ~(tcflag_t)ISIG;
    t.c_cflag = (t.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

static void read_size(struct chardev *chr)
{
    struct winsize w;
    if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &w)) {
        chr->rows = w.ws_row;
        chr->cols = w.ws_col;
    }
}

static gboolean on_resize(gpointer chr)
{
    read_size(chr);
    chardev_send_event(chr, CHARDEV_RESIZED);
    return G_SOURCE_CONTINUE;
}

/* After C-z and fg (with signals on) the shell has put its own settings back. */
static gboolean on_continue(gpointer chr)
{
    (void)chr;
    set_raw(signals_wanted);
    return G_SOURCE_CONTINUE;
}

/* glib has no watch for SIGWINCH before 2.54 and none for SIGCONT: a self-pipe serves both. */
static int signal_pipe[2] = { -1, -1 };
static void note_signal(int sig)
{
    int e = errno;
    char c = (char)sig;
    if (write(signal_pipe[1], &c, 1) < 0)
        errno = e;
    errno = e;
}

static gboolean on_signal(gint fd, GIOCondition cond, gpointer chr)
{
    char c;
    (void)cond;
    if (read(fd, &c, 1) == 1)
        return c == SIGCONT ? on_continue(chr) : on_resize(chr);
    return G_SOURCE_CONTINUE;
}

static void watch_terminal(struct stream *s)
{
    if (!g_unix_open_pipe(signal_pipe, FD_CLOEXEC, NULL) || !g_unix_set_fd_nonblocking(signal_pipe[1], TRUE, NULL))
        return; /* the size just stays what it was */
    struct sigaction sa = { .sa_handler = note_signal, .sa_flags = SA_RESTART };
    g_unix_fd_add(signal_pipe[0], G_IO_IN, on_signal, s);
    sigaction(SIGWINCH, &sa, NULL);
    sigaction(SIGCONT, &sa, NULL);
}

struct chardev *stream_stdio_new(const char *id, bool signals, GError **err)
{
    static bool taken;

    if (taken) {
        g_set_error(err, G_FILE_ERROR, G_FILE_ERROR_INVAL, "the terminal is in use already: only one device can have "
                    "stdio (use -serial mon:stdio to share it)");
        return NULL;
    }
    taken = true;
    struct stream *s = g_new0(struct stream, 1);
    stream_init(s, &stdio_ops, id);
    s->is_tty = isatty(STDIN_FILENO);
    s->chr.open = true;
    if (s->is_tty) {
        set_raw(signals);
        read_size(&s->chr);
        watch_terminal(s);
    }
    stream_attach(s, STDIN_FILENO, STDOUT_FILENO);
    return &s->chr;
}

void stream_stdio_signals(bool signals)
{
    if (settings_saved)
        set_raw(signals);
}

/* --- file, pipe, pty ------------------------------------------------------------------------------- */

STREAM_OPS(file, stream_free);
STREAM_OPS(pipe, stream_free);
STREAM_OPS(pty, stream_free);

/* A regular file always takes what it gets; poll() says so too. */
struct chardev *stream_file_new(const char *id, const char *path, bool append, GError **err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC), 0666);
    if (fd < 0)
        return host_error(err, path);
    struct stream *s = g_new0(struct stream, 1);
    stream_init(s, &file_ops, id);
    s->chr.open = true;
    stream_attach(s, -1, fd);
    return &s->chr;
}

struct chardev *stream_pipe_new(const char *id, const char *path, GError **err)
{
    g_autofree char *in_path = g_strconcat(path, ".in", NULL), *out_path = g_strconcat(path, ".out", NULL);
    int in = open(in_path, O_RDWR | O_CLOEXEC), out = open(out_path, O_RDWR | O_CLOEXEC);

    if (in < 0 || out < 0) {
        if (in >= 0)
            close(in);
        if (out >= 0)
            close(out);
        in = out = open(path, O_RDWR | O_CLOEXEC);
    }
    if (in < 0)
        return host_error(err, path);
    struct stream *s = g_new0(struct stream, 1);
    stream_init(s, &pipe_ops, id);
    s->chr.open = true;
    stream_attach(s, in, out);
    return &s->chr;
}

struct chardev *stream_pty_new(const char *id, char **name, GError **err)
{
    int master, slave;
    char path[64];
    struct termios t;

    if (openpty(&master, &slave, path, NULL, NULL))
        return host_error(err, "cannot make a pty");
    tcgetattr(slave, &t);
    cfmakeraw(&t);
    tcsetattr(slave, TCSAFLUSH, &t);
    /* The slave stays open here, so that the master never reports a hang-up between two users. */
    fcntl(master, F_SETFD, FD_CLOEXEC);
    fcntl(slave, F_SETFD, FD_CLOEXEC);
    *name = g_strdup(path);
    struct stream *s = g_new0(struct stream, 1);
    stream_init(s, &pty_ops, id);
    s->chr.open = true;
    stream_attach(s, master, master);
    return &s->chr;
}

/* --- null and ring ----------------------------------------------------------------------------------- */

static ssize_t null_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
    (void)chr, (void)buf;
    return (ssize_t)len;
}

static void null_free(struct chardev *chr)
{
    g_free(chr->id);
    g_free(chr);
}

struct chardev *stream_null_new(const char *id)
{
    static const struct chardev_ops ops = { .kind = "null", .write = null_write, .free = null_free };
    struct chardev *chr = g_new0(struct chardev, 1);
    chr->ops = &ops;
    chr->id = g_strdup(id);
    chr->open = true;
    return chr;
}

struct ring {
    struct chardev chr;
    size_t size, end;
    uint8_t data[];
};

static ssize_t ring_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
    struct ring *r = (struct ring *)chr;
    for (size_t i = 0; i < len; i++)
        r->data[r->end++ & (r->size - 1)] = buf[i];
    return (ssize_t)len;
}

struct chardev *stream_ring_new(const char *id, size_t size)
{
    static const struct chardev_ops ops = { .kind = "ringbuf", .write = ring_write, .free = null_free };
    struct ring *r = g_malloc0(sizeof *r + size);
    r->chr.ops = &ops;
    r->chr.id = g_strdup(id);
    r->chr.open = true;
    r->size = size;
    return &r->chr;
}
