/*
 * See session.h.
 *
 * The ports are character devices of our own, given to the machine by id.  What comes from the guest is
 * called on vCPU threads with the board's lock held, so it is only put down under `lock', and dealt with in
 * the main loop.
 *
 * Input is not read before the agent asks for it (its first byte on the port "in"), so that its end cannot be
 * missed.  The end of the command's output is known since the agent says "exit" after its relays have written
 * everything; what the machine still holds of it then is handed over before the machine ends.
 */
#include "main/session.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/report.h"
#include "debug/stream.h"
#include "lab/klog.h"
#include "machine/machine.h"
#include "main/commands.h"
#include "main/line.h"

enum { GRACE_MS = 1500, FLUSH_MS = 5, LOG_KEEP = 1 << 20 };

struct port {
    struct chardev chr; /* must be first */
    GByteArray *bytes;  /* from the guest, under the session's lock */
};

struct session {
    const struct session_options *options;
    struct machine *machine;
    struct port control, log;
    struct stream in, out, err; /* on our own descriptors; in.source is NULL until the agent is ready */
    GByteArray *output;         /* with options->output: what it has not seen, under lock */
    GMutex lock;
    guint wake;                 /* idle source: there are bytes in a port; under lock */
    GString *line;              /* of control */
    GString *to_agent;
    struct klog *klog;
    FILE *log_file;
    bool agent_ready, started, input_wanted, oom, interrupted;
    bool pipe_told;             /* the agent knows that nobody reads the output */
    int status;                 /* -1: not known yet */
    char *why;                  /* one line for stderr, or NULL */
    char *state;                /* of a guest that hung: what it was at; or NULL */
    gint64 begin, last_life;    /* monotonic, microseconds */
    guint grace, flush, tick, timeout, signals[3];
};

static struct session *the_session; /* chardev_ops have no other way to it */

/* --- ends ----------------------------------------------------------------------------------------------- */

static void quit(struct session *s)
{
    machine_request(s->machine, MACHINE_QUIT);
}

/* When the verdict falls, since the guest may go on.  Of a panic or an oops -panic-report tells. */
static void look_at_hang(struct session *s, int status)
{
    if (status == RUN_SOFT_LOCKUP || status == RUN_RCU_STALL || status == RUN_HANG || status == RUN_TIMEOUT)
        s->state = machine_describe_hang(s->machine);
}

/* The first verdict counts; but a panic says more than the oops before it. */
static bool decide(struct session *s, int status, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
static bool decide(struct session *s, int status, const char *fmt, ...)
{
    va_list ap;

    if (s->status >= 0 && !(s->status == RUN_OOPS && status == RUN_PANIC))
        return false;
    g_free(s->why);
    va_start(ap, fmt);
    s->why = fmt ? g_strdup_vprintf(fmt, ap) : NULL;
    va_end(ap);
    look_at_hang(s, status);
    s->status = status;
    return true;
}

static gboolean grace_is_over(gpointer opaque)
{
    struct session *s = opaque;

    s->grace = 0;
    quit(s);
    return G_SOURCE_REMOVE;
}

static void quit_soon(struct session *s, unsigned ms)
{
    if (!s->grace)
        s->grace = g_timeout_add(ms, grace_is_over, s);
}

static void phase(struct session *s, const char *what)
{
    if (s->options->phases)
        fprintf(stderr, "%s: %.3f s: %s\n", report_program(),
                (double)(g_get_monotonic_time() - s->begin) / 1e6, what);
}

/* --- the kernel's log ----------------------------------------------------------------------------------- */

static int status_of(enum klog_event event)
{
    switch (event) {
    case KLOG_PANIC: return RUN_PANIC;
    case KLOG_OOPS: return RUN_OOPS;
    case KLOG_SOFT_LOCKUP: return RUN_SOFT_LOCKUP;
    case KLOG_RCU_STALL: return RUN_RCU_STALL;
    case KLOG_HUNG_TASK: return RUN_HANG;
    default: return -1;
    }
}

static void on_kernel_event(void *opaque, enum klog_event event, const char *text)
{
    struct session *s = opaque;
    int status = status_of(event);

    if (event == KLOG_OOM_KILL)
        s->oom = true;
    if (event == KLOG_AGENT)
        decide(s, RUN_FAILED, "in the guest: %s", text + strlen("armlet-agent: "));
    if (event == KLOG_NONE && s->grace) { /* the report is whole */
        g_source_remove(s->grace);
        s->grace = 0;
        quit(s);
    }
    if (status < 0 || (s->options->keep_going && event != KLOG_PANIC))
        return;
    if (decide(s, status, "%s in the guest's kernel: %s", klog_event_name(event), text))
        quit_soon(s, GRACE_MS);
}

static void take_log(struct session *s, GByteArray *bytes)
{
    if (s->log_file && bytes->len && fwrite(bytes->data, 1, bytes->len, s->log_file) != bytes->len) {
        warn("cannot write %s: %s", s->options->log, g_strerror(errno));
        s->log_file = NULL;
    }
    if (s->log_file)
        fflush(s->log_file);
    if (s->options->log_output && bytes->len)
        s->options->log_output(s->options->opaque, bytes->data, bytes->len);
    klog_feed(s->klog, bytes->data, bytes->len);
}

/* --- talk with the agent -------------------------------------------------------------------------------- */

static void pump_control(struct session *s)
{
    while (s->to_agent->len) {
        size_t n = MIN(chardev_can_receive(&s->control.chr), s->to_agent->len);
        if (!n)
            return;
        chardev_receive(&s->control.chr, (const uint8_t *)s->to_agent->str, n);
        g_string_erase(s->to_agent, 0, (gssize)n);
    }
}

static void tell_agent(struct session *s, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void tell_agent(struct session *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_string_append_vprintf(s->to_agent, fmt, ap);
    va_end(ap);
    pump_control(s);
}

static bool is_flushed(struct stream *out)
{
    g_mutex_lock(&out->lock);
    bool flushed = out->out_dead || out->out < 0 || (!out->used && !out->starved);
    g_mutex_unlock(&out->lock);
    return flushed;
}

static gboolean flush_then_quit(gpointer opaque)
{
    struct session *s = opaque;

    if (!is_flushed(&s->out) || !is_flushed(&s->err))
        return G_SOURCE_CONTINUE;
    s->flush = 0;
    quit(s);
    return G_SOURCE_REMOVE;
}

static void on_exit_line(struct session *s, int status)
{
    phase(s, "the command has ended");
    if (s->oom && status == 128 + SIGKILL)
        decide(s, RUN_OOM, "the command was killed: the guest is out of memory (--memory gives it more)");
    else
        decide(s, status, NULL);
    if (!s->flush)
        s->flush = g_timeout_add(FLUSH_MS, flush_then_quit, s);
}

static void take_control_line(struct session *s, const char *line)
{
    s->last_life = g_get_monotonic_time();
    if (!strcmp(line, "ready") && !s->agent_ready) {
        g_autofree char *job = g_strjoinv(" ", s->options->job);
        s->agent_ready = true;
        phase(s, "the agent is ready");
        tell_agent(s, "%s\n", job);
    } else if (!strcmp(line, "started")) {
        s->started = true;
        if (s->options->tty) /* from here on C-c is the command's */
            stream_stdio_signals(false);
        phase(s, "the command starts");
    } else if (g_str_has_prefix(line, "exit ")) {
        on_exit_line(s, (int)g_ascii_strtoull(line + 5, NULL, 10) & 255);
    }
}

static void take_control(struct session *s, const GByteArray *bytes)
{
    for (guint i = 0; i < bytes->len; i++) {
        if (bytes->data[i] != '\n') {
            if (s->line->len < 4096)
                g_string_append_c(s->line, (char)bytes->data[i]);
            continue;
        }
        take_control_line(s, s->line->str);
        g_string_truncate(s->line, 0);
    }
}

/* --- ports ---------------------------------------------------------------------------------------------- */

static void take_all(struct session *s)
{
    GByteArray *control = g_byte_array_new(), *log = g_byte_array_new(), *output = g_byte_array_new();

    g_mutex_lock(&s->lock);
    s->wake = 0;
    bool input = s->input_wanted;
    s->input_wanted = false;
#define SWAP(a, b) do { GByteArray *t_ = (a); (a) = (b); (b) = t_; } while (0)
    SWAP(control, s->control.bytes);
    SWAP(log, s->log.bytes);
    SWAP(output, s->output);
#undef SWAP
    g_mutex_unlock(&s->lock);
    if (input && !s->in.source)
        stream_attach(&s->in, STDIN_FILENO, -1);
    if (output->len)
        s->options->output(s->options->opaque, output->data, output->len);
    take_log(s, log);
    take_control(s, control);
    pump_control(s);
    g_byte_array_unref(control);
    g_byte_array_unref(log);
    g_byte_array_unref(output);
}

static gboolean on_wake(gpointer s)
{
    take_all(s);
    return G_SOURCE_REMOVE;
}

static void wake_locked(struct session *s)
{
    if (!s->wake)
        s->wake = g_idle_add_full(G_PRIORITY_DEFAULT, on_wake, s, NULL);
}

static ssize_t port_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
    struct session *s = the_session;

    g_mutex_lock(&s->lock);
    g_byte_array_append(((struct port *)chr)->bytes, buf, (guint)len);
    wake_locked(s);
    g_mutex_unlock(&s->lock);
    return (ssize_t)len;
}

static void port_accept_input(struct chardev *chr)
{
    struct session *s = the_session;

    (void)chr;
    g_mutex_lock(&s->lock);
    wake_locked(s);
    g_mutex_unlock(&s->lock);
}

static void port_free(struct chardev *chr)
{
    (void)chr; /* part of the session */
}

static const struct chardev_ops port_ops = {
    .kind = "session", .write = port_write, .accept_input = port_accept_input, .free = port_free};
static const struct chardev_ops out_ops = { .kind = "session", .write = stream_write, .drain = stream_drain,
                                            .free = port_free };

/* The agent's byte on the port "in": it is there and wants input. */
static ssize_t in_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
    struct session *s = the_session;

    (void)chr, (void)buf;
    g_mutex_lock(&s->lock);
    s->input_wanted = true;
    wake_locked(s);
    g_mutex_unlock(&s->lock);
    return (ssize_t)len;
}

static const struct chardev_ops in_ops = {
    .kind = "session", .write = in_write, .accept_input = stream_accept_input, .free = port_free};

static void input_ended(struct stream *in)
{
    chardev_send_event(&in->chr, CHARDEV_CLOSED);
}

/* Output that is to be looked at: bounded, since what reads it is in this process. */
static ssize_t captured_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
    struct session *s = the_session;

    (void)chr;
    g_mutex_lock(&s->lock);
    g_byte_array_append(s->output, buf, (guint)len);
    wake_locked(s);
    g_mutex_unlock(&s->lock);
    return (ssize_t)len;
}

static const struct chardev_ops captured_ops = {
    .kind = "session", .write = captured_write, .free = port_free};

/* --- timers and signals --------------------------------------------------------------------------------- */

static gboolean on_tick(gpointer opaque)
{
    struct session *s = opaque;
    gint64 silent = (g_get_monotonic_time() - s->last_life) / G_USEC_PER_SEC;

    if (s->out.out_dead && !s->pipe_told && s->started) {
        s->pipe_told = true;
        tell_agent(s, "pipe\n");
    }
    if (s->options->hang && silent >= s->options->hang && s->status < 0) {
        decide(s, RUN_HANG, s->started ? "the guest hangs: no sign of life for %u s"
                            : "the guest hangs: %u s and the command has not started", s->options->hang);
        quit(s);
    }
    return G_SOURCE_CONTINUE;
}

static gboolean on_timeout(gpointer opaque)
{
    struct session *s = opaque;

    s->timeout = 0;
    if (decide(s, RUN_TIMEOUT, "timeout: ended after %g s%s", s->options->timeout,
               s->started ? "" : ", before the command had started"))
        quit(s);
    return G_SOURCE_REMOVE;
}

/* C-c: the command's once it runs; ours when it comes a second time. */
static void on_interrupt(void *opaque)
{
    struct session *s = opaque;

    if (s->started && !s->interrupted) {
        s->interrupted = true;
        tell_agent(s, "int\n");
        return;
    }
    decide(s, 128 + SIGINT, NULL);
    quit(s);
}

static gboolean on_terminate(gpointer s)
{
    decide(s, 128 + SIGTERM, NULL);
    return G_SOURCE_CONTINUE;
}

static gboolean on_hangup(gpointer s)
{
    decide(s, 128 + SIGHUP, NULL);
    return G_SOURCE_CONTINUE;
}

static gboolean on_resize(gpointer opaque)
{
    struct session *s = opaque;
    struct winsize w;

    if (s->started && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w))
        tell_agent(s, "size %u %u\n", w.ws_row, w.ws_col);
    return G_SOURCE_CONTINUE;
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void add_devices(GPtrArray *line, bool tty)
{
    line_add(line, "-serial", "chardev:armlet.log");
    line_add(line, "-panic-report", NULL);
    line_add(line, "-device", "virtio-serial-device");
    line_add(line, "-device", "virtserialport,nr=1,chardev=armlet.control,name=armlet.control");
    if (tty) {
        line_add(line, "-chardev", "stdio,id=armlet.tty,signal=on,mux=on");
        line_add(line, "-device", "virtconsole,nr=0,chardev=armlet.tty");
        return;
    }
    line_add(line, "-device", "virtserialport,nr=2,chardev=armlet.in,name=armlet.in");
    line_add(line, "-device", "virtserialport,nr=3,chardev=armlet.out,name=armlet.out");
    line_add(line, "-device", "virtserialport,nr=4,chardev=armlet.err,name=armlet.err");
}

static void make_port(struct port *p, const char *id)
{
    p->chr = (struct chardev){ .ops = &port_ops, .id = g_strdup(id), .open = true };
    p->bytes = g_byte_array_new();
}

static void make_stream(struct stream *st, const struct chardev_ops *ops, const char *id, int out)
{
    stream_init(st, ops, id);
    st->chr.open = true;
    if (out >= 0)
        stream_attach(st, -1, out);
}

static void make_ports(struct session *s)
{
    g_mutex_init(&s->lock);
    make_port(&s->control, "armlet.control");
    make_port(&s->log, "armlet.log");
    s->output = g_byte_array_new();
    make_stream(&s->in, &in_ops, "armlet.in", -1);
    s->in.closed = input_ended;
    make_stream(&s->out, s->options->output ? &captured_ops : &out_ops, "armlet.out",
                s->options->output ? -1 : STDOUT_FILENO);
    make_stream(&s->err, &out_ops, "armlet.err", STDERR_FILENO);
}

static bool open_log(struct session *s)
{
    const char *log = s->options->log;

    if (log)
        s->log_file = strcmp(log, "-") ? fopen(log, "we") : stderr;
    if (log && !s->log_file)
        warn("cannot write %s: %s", log, g_strerror(errno));
    return !log || s->log_file;
}

static bool make_machine(struct session *s, struct config *config)
{
    struct chardev *const given[] = { &s->control.chr, &s->log.chr, &s->in.chr, &s->out.chr, &s->err.chr };
    GError *err = NULL;

    config->console_watched = true;
    for (unsigned i = 0; i < G_N_ELEMENTS(given); i++)
        g_ptr_array_add(config->given, given[i]);
    s->machine = machine_new(config, &err);
    if (!s->machine) {
        warn("%s", err->message);
        g_error_free(err);
        return false;
    }
    machine_on_interrupt(s->machine, on_interrupt, s);
    return true;
}

static void set_timers(struct session *s)
{
    s->last_life = g_get_monotonic_time();
    s->tick = g_timeout_add(250, on_tick, s);
    if (s->options->timeout > 0)
        s->timeout = g_timeout_add((guint)(s->options->timeout * 1000), on_timeout, s);
    s->signals[0] = g_unix_signal_add(SIGTERM, on_terminate, s);
    s->signals[1] = g_unix_signal_add(SIGHUP, on_hangup, s);
    if (s->options->tty)
        s->signals[2] = g_unix_signal_add(SIGWINCH, on_resize, s);
}

static void clear_timers(struct session *s)
{
    guint *const sources[] = { &s->tick, &s->timeout, &s->grace, &s->flush, &s->signals[0], &s->signals[1],
                               &s->signals[2] };
    for (unsigned i = 0; i < G_N_ELEMENTS(sources); i++)
        if (*sources[i])
            g_source_remove(*sources[i]);
    while (g_idle_remove_by_data(s))
        continue;
}

static void report(struct session *s)
{
    bool trouble = s->status == RUN_HANG || s->status == RUN_ENDED;
    g_autofree char *tail = klog_tail(s->klog);

    if (!s->why)
        return;
    /* Who has the log on stderr has seen it. */
    if (s->log_file != stderr)
        fputs(*klog_report(s->klog) ? klog_report(s->klog) : trouble ? tail : "", stderr);
    if (s->state)
        warn("report: what the guest is at\n%s", g_strchomp(s->state));
    warn("%s", s->why);
}

static int run_machine(struct session *s)
{
    int ended;

    set_timers(s);
    phase(s, "the machine starts");
    ended = machine_run(s->machine);
    take_all(s);
    klog_end(s->klog);
    phase(s, "the machine has ended");
    if (ended)
        decide(s, RUN_FAILED, NULL); /* it has said why */
    else if (s->status < 0)
        decide(s, RUN_ENDED, "the guest ended before the command did");
    clear_timers(s);
    report(s);
    return s->status;
}

static void clear(struct session *s)
{
    stream_fini(&s->in);
    stream_fini(&s->out);
    stream_fini(&s->err);
    g_free(s->control.chr.id);
    g_free(s->log.chr.id);
    g_byte_array_unref(s->control.bytes);
    g_byte_array_unref(s->log.bytes);
    g_byte_array_unref(s->output);
    g_string_free(s->line, TRUE);
    g_string_free(s->to_agent, TRUE);
    klog_free(s->klog);
    if (s->log_file && s->log_file != stderr)
        fclose(s->log_file);
    g_mutex_clear(&s->lock);
    g_free(s->why);
    g_free(s->state);
    the_session = NULL;
}

int session_run(GPtrArray *line, const struct session_options *options)
{
    struct session s = { .options = options, .status = -1, .begin = g_get_monotonic_time() };
    GError *err = NULL;
    struct config *config;
    int status = RUN_FAILED;

    add_devices(line, options->tty);
    config = config_parse((int)line->len, (char *const *)line->pdata, &err);
    if (!config) {
        warn("%s", err ? err->message : "run: behind -- go options of the machine that let it run");
        g_clear_error(&err);
        return RUN_FAILED;
    }
    the_session = &s;
    s.line = g_string_new(NULL);
    s.to_agent = g_string_new(NULL);
    s.klog = klog_new(on_kernel_event, &s);
    make_ports(&s);
    if (open_log(&s) && make_machine(&s, config)) {
        status = run_machine(&s);
        machine_free(s.machine);
    }
    clear(&s);
    config_free(config);
    return status;
}
