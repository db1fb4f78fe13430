/*
 * QMP, QEMU's machine protocol, as far as its usual clients go: greeting, capabilities, queries, run state, events.
 *
 * Input is cut into JSON objects by counting braces outside strings; jansson parses each.  An object of more than
 * INPUT_MAX bytes, or nested deeper than jansson allows, is an error like any other that does not parse.
 */
#include "debug/monitor.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/trace.h"
#include "cpu/cluster.h"
#include "debug/hmp.h"
#include "debug/outbox.h"

enum { IN_CHUNK = 4096, INPUT_MAX = 1 << 20 };

struct qmp {
    struct control *control;
    struct chardev *chr;
    struct outbox out;
    struct hmp hmp;
    bool pretty, negotiated;
    GByteArray *in;
    unsigned depth;
    bool string, escape, overlong;
};

/* --- output --------------------------------------------------------------------------------------------- */

/* Takes over `message'. */
static void send(struct qmp *q, json_t *message)
{
    char *text = json_dumps(message, q->pretty ? JSON_INDENT(4) | JSON_PRESERVE_ORDER : JSON_PRESERVE_ORDER);

    if (text) {
        outbox_put(&q->out, text, strlen(text));
        outbox_put(&q->out, "\r\n", 2);
        trace(MONITOR, "> %s", text);
        free(text);
    }
    json_decref(message);
}

static json_t *timestamp(void)
{
    gint64 now = g_get_real_time();
    return json_pack("{sIsI}", "seconds", (json_int_t)(now / 1000000), "microseconds", (json_int_t)(now % 1000000));
}

static json_t *versions(const struct qmp *q)
{
    const struct control_ops *ops = control_ops(q->control);
    int v[3] = { 0 };
    g_autofree char *package = g_strdup_printf("armlet %s", ops->version);

    if (ops->qemu_version)
        sscanf(ops->qemu_version, "%d.%d.%d", &v[0], &v[1], &v[2]);
    return json_pack("{s{sisisi}ss}", "qemu", "micro", v[2], "minor", v[1], "major", v[0], "package", package);
}

/* data may be NULL; taken over. */
static void send_event(struct qmp *q, const char *name, json_t *data)
{
    json_t *e = json_pack("{soss}", "timestamp", timestamp(), "event", name);

    if (data)
        json_object_set_new(e, "data", data);
    if (q->negotiated)
        send(q, e);
    else
        json_decref(e);
}

static json_t *reason(const struct qmp *q)
{
    const char *why = control_reason(q->control);
    return json_pack("{sbss}", "guest", g_str_has_prefix(why, "guest"), "reason", why);
}

static void on_control(void *opaque, enum control_event event)
{
    struct qmp *q = opaque;

    switch (event) {
    case CONTROL_STOP: send_event(q, "STOP", NULL); break;
    case CONTROL_RESUME: send_event(q, "RESUME", NULL); break;
    case CONTROL_SHUTDOWN: send_event(q, "SHUTDOWN", reason(q)); break;
    case CONTROL_RESET: send_event(q, "RESET", reason(q)); break;
    case CONTROL_POWERDOWN: send_event(q, "POWERDOWN", NULL); break;
    case CONTROL_PANICKED: send_event(q, "GUEST_PANICKED", json_pack("{ss}", "action", "pause")); break;
    }
}

/* --- commands --------------------------------------------------------------------------------------------- */

static json_t *fail(const char *class, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static json_t *fail(const char *class, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    return json_pack("{s{ssss}}", "error", "class", class, "desc", valid);
}

static json_t *done(json_t *value)
{
    return json_pack("{so}", "return", value ? value : json_object());
}

static json_t *cmd_capabilities(struct qmp *q, json_t *args)
{
    (void)args;
    q->negotiated = true;
    return done(NULL);
}

static json_t *cmd_status(struct qmp *q, json_t *args)
{
    (void)args;
    return done(json_pack("{sssbsb}", "status", control_state_name(control_state(q->control)), "singlestep", 0,
                          "running", control_running(q->control)));
}

static json_t *cmd_version(struct qmp *q, json_t *args)
{
    (void)args;
    return done(versions(q));
}

static json_t *cmd_cpus(struct qmp *q, json_t *args)
{
    const struct cluster *cl = control_cluster(q->control);
    json_t *list = json_array();

    (void)args;
    for (unsigned i = 0; i < cl->n; i++) {
        g_autofree char *path = g_strdup_printf("/machine/unattached/device[%u]", i);
        json_array_append_new(list, json_pack("{sis{sisi}sIssss}", "cpu-index", (int)i, "props", "thread-id", 0, "core-id",
                                              (int)i, "thread-id", (json_int_t)cpu_host_thread(cl->cpu[i]),
                                              "qom-path", path, "target", "aarch64"));
    }
    return done(list);
}

static json_t *cmd_name(struct qmp *q, json_t *args)
{
    const char *name = control_ops(q->control)->name;

    (void)args;
    return done(name ? json_pack("{ss}", "name", name) : NULL);
}

static json_t *cmd_kvm(struct qmp *q, json_t *args)
{
    (void)q, (void)args;
    return done(json_pack("{sbsb}", "enabled", 0, "present", 0));
}

static json_t *cmd_stop(struct qmp *q, json_t *args)
{
    (void)args;
    if (control_running(q->control))
        control_stop(q->control, RUN_PAUSED);
    return done(NULL);
}

static json_t *cmd_cont(struct qmp *q, json_t *args)
{
    enum run_state state = control_state(q->control);

    (void)args;
    if (state == RUN_SHUTDOWN || state == RUN_PANICKED)
        return fail("GenericError", "Resetting the Virtual Machine is required");
    control_continue(q->control);
    return done(NULL);
}

static json_t *call(struct qmp *q, void (*fn)(void *opaque))
{
    if (!fn)
        return fail("GenericError", "this machine cannot do that");
    fn(control_ops(q->control)->opaque);
    return done(NULL);
}

static json_t *cmd_powerdown(struct qmp *q, json_t *args)
{
    (void)args;
    return call(q, control_ops(q->control)->powerdown);
}

static json_t *cmd_reset(struct qmp *q, json_t *args)
{
    (void)args;
    return call(q, control_ops(q->control)->reset);
}

static json_t *cmd_quit(struct qmp *q, json_t *args)
{
    (void)args;
    return call(q, control_ops(q->control)->quit);
}

static json_t *cmd_human(struct qmp *q, json_t *args)
{
    const char *line = json_string_value(json_object_get(args, "command-line"));
    json_t *index = json_object_get(args, "cpu-index");

    if (!line)
        return fail("GenericError", "Parameter 'command-line' is missing");
    if (index && (json_integer_value(index) < 0 || json_integer_value(index) >= control_cluster(q->control)->n))
        return fail("GenericError", "Parameter 'cpu-index' expects a CPU number");
    unsigned cpu = q->hmp.cpu;
    if (index)
        q->hmp.cpu = (unsigned)json_integer_value(index);
    g_autofree char *text = hmp_run(&q->hmp, line);
    if (index) /* for this line alone */
        q->hmp.cpu = cpu;
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    GString *lines = g_string_new(valid);
    g_string_replace(lines, "\n", "\r\n", 0); /* as on a terminal: clients cut it there */
    json_t *answer = json_string(lines->str);
    g_string_free(lines, TRUE);
    return done(answer);
}

static json_t *save_memory(struct qmp *q, json_t *args, const char *command)
{
    json_t *val = json_object_get(args, "val"), *size = json_object_get(args, "size");
    const char *file = json_string_value(json_object_get(args, "filename"));

    if (!json_is_integer(val) || !json_is_integer(size) || !file || strpbrk(file, "\"'"))
        return fail("GenericError", "Parameters 'val', 'size' and 'filename' are needed");
    g_autofree char *line = g_strdup_printf("%s %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " \"%s\"", command,
                                            (guint64)json_integer_value(val), (guint64)json_integer_value(size), file);
    g_autofree char *text = hmp_run(&q->hmp, line);
    return *text ? fail("GenericError", "%s", g_strchomp(text)) : done(NULL);
}

static json_t *cmd_memsave(struct qmp *q, json_t *args)
{
    return save_memory(q, args, "memsave");
}

static json_t *cmd_pmemsave(struct qmp *q, json_t *args)
{
    return save_memory(q, args, "pmemsave");
}

static json_t *cmd_dump(struct qmp *q, json_t *args)
{
    const char *where = json_string_value(json_object_get(args, "protocol"));

    if (!where || !g_str_has_prefix(where, "file:"))
        return fail("GenericError", "Parameter 'protocol' expects file:NAME");
    cluster_pause(control_cluster(q->control));
    int r = coredump_write(q->control, where + 5);
    cluster_resume(control_cluster(q->control));
    return r ? fail("GenericError", "%s: %s", where + 5, g_strerror(-r)) : done(NULL);
}

static json_t *no_balloon(void)
{
    return fail("DeviceNotActive", "No balloon device has been activated");
}

static json_t *cmd_balloon(struct qmp *q, json_t *args)
{
    const struct control_ops *ops = control_ops(q->control);
    json_t *value = json_object_get(args, "value");

    if (!json_is_integer(value) || json_integer_value(value) <= 0)
        return fail("GenericError", "Parameter 'value' expects a size");
    return ops->balloon && ops->balloon(ops->opaque, (uint64_t)json_integer_value(value)) ? done(NULL) : no_balloon();
}

static json_t *cmd_query_balloon(struct qmp *q, json_t *args)
{
    const struct control_ops *ops = control_ops(q->control);
    uint64_t now = ops->balloon_now ? ops->balloon_now(ops->opaque) : 0;

    (void)args;
    return now ? done(json_pack("{sI}", "actual", (json_int_t)now)) : no_balloon();
}

static json_t *cmd_commands(struct qmp *q, json_t *args);
static json_t *cmd_schema(struct qmp *q, json_t *args);

static const struct {
    const char *name;
    json_t *(*run)(struct qmp *q, json_t *args);
} commands[] = {
    { "qmp_capabilities", cmd_capabilities }, { "query-status", cmd_status }, { "query-version", cmd_version },
    { "query-cpus-fast", cmd_cpus }, { "query-commands", cmd_commands }, { "query-name", cmd_name },
    { "query-kvm", cmd_kvm }, { "stop", cmd_stop }, { "cont", cmd_cont }, { "system_powerdown", cmd_powerdown },
    { "system_reset", cmd_reset }, { "quit", cmd_quit }, { "human-monitor-command", cmd_human },
    { "memsave", cmd_memsave }, { "pmemsave", cmd_pmemsave }, { "dump-guest-memory", cmd_dump },
    { "balloon", cmd_balloon }, { "query-balloon", cmd_query_balloon }, { "query-qmp-schema", cmd_schema },
};

static json_t *cmd_commands(struct qmp *q, json_t *args)
{
    json_t *list = json_array();

    (void)q, (void)args;
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        json_array_append_new(list, json_pack("{ss}", "name", commands[i].name));
    return done(list);
}

/*
 * The names of commands and events, which is what clients look for; of their arguments and results it says only that they
 * are objects.
 */
static json_t *cmd_schema(struct qmp *q, json_t *args)
{
    static const char *const events[] = { "GUEST_PANICKED", "POWERDOWN", "RESET", "RESUME", "SHUTDOWN", "STOP" };
    json_t *list = json_array();

    (void)q, (void)args;
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        json_array_append_new(list, json_pack("{sssssssssb}", "name", commands[i].name, "meta-type", "command", "arg-type", "0",
                                              "ret-type", "0", "allow-oob", 0));
    for (size_t i = 0; i < G_N_ELEMENTS(events); i++)
        json_array_append_new(list, json_pack("{ssssss}", "name", events[i], "meta-type", "event", "arg-type", "0"));
    json_array_append_new(list, json_pack("{sssss[]}", "name", "0", "meta-type", "object", "members"));
    return done(list);
}

static json_t *execute(struct qmp *q, const char *name, json_t *args)
{
    if (!q->negotiated && strcmp(name, "qmp_capabilities"))
        return fail("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
    if (q->negotiated && !strcmp(name, "qmp_capabilities"))
        return fail("CommandNotFound", "Capabilities negotiation is already complete, command ignored");
    if (args && !json_is_object(args))
        return fail("GenericError", "QMP input member 'arguments' must be an object");
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        if (!strcmp(commands[i].name, name))
            return commands[i].run(q, args);
    return fail("CommandNotFound", "The command %s has not been found", name);
}

static void object(struct qmp *q)
{
    json_error_t error;
    json_t *request = q->overlong ? NULL : json_loadb((const char *)q->in->data, q->in->len, 0, &error), *answer;

    if (q->overlong) {
        answer = fail("GenericError", "JSON parse error, more than %d bytes", INPUT_MAX);
    } else if (!json_is_object(request)) {
        answer = fail("GenericError", "JSON parse error, %s", request ? "expecting an object" : error.text);
    } else {
        const char *name = json_string_value(json_object_get(request, "execute"));
        if (!name)
            name = json_string_value(json_object_get(request, "exec-oob"));
        answer = name ? execute(q, name, json_object_get(request, "arguments"))
                      : fail("GenericError", "QMP input lacks member 'execute'");
    }
    json_t *id = json_is_object(request) ? json_object_get(request, "id") : NULL;
    if (id)
        json_object_set(answer, "id", id);
    send(q, answer);
    json_decref(request);
}

/* --- input ------------------------------------------------------------------------------------------------ */

static void input_reset(struct qmp *q)
{
    g_byte_array_set_size(q->in, 0);
    q->depth = 0;
    q->string = q->escape = q->overlong = false;
}

/* Moves on by a byte; true: it ends an object, or what is none. */
static bool scan(struct qmp *q, uint8_t c)
{
    if (q->string) {
        bool quoted = q->escape;
        q->escape = !quoted && c == '\\';
        q->string = quoted || c != '"';
        return false;
    }
    switch (c) {
    case '"': q->string = true; return false;
    case '{': case '[': q->depth++; return false;
    case '}': case ']': return q->depth <= 1 || !--q->depth;
    case '\n': return !q->depth;
    default: return false;
    }
}

static void input_byte(struct qmp *q, uint8_t c)
{
    if (!q->in->len && !q->overlong && (g_ascii_isspace((char)c) || c == 0xff)) /* 0xff: clients that resynchronise */
        return;
    if (q->in->len < INPUT_MAX)
        g_byte_array_append(q->in, &c, 1);
    else
        q->overlong = true;
    if (scan(q, c)) {
        object(q);
        input_reset(q);
    }
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        input_byte(opaque, buf[i]);
}

static size_t can_receive(void *opaque)
{
    const struct qmp *q = opaque;
    return q->out.bytes->len > OUTBOX_MAX / 16 ? 0 : IN_CHUNK;
}

static void greet(struct qmp *q)
{
    q->negotiated = false;
    input_reset(q);
    send(q, json_pack("{s{sos[s]}}", "QMP", "version", versions(q), "capabilities", "oob"));
}

static void event(void *opaque, enum chardev_event what)
{
    struct qmp *q = opaque;

    if (what != CHARDEV_OPENED && what != CHARDEV_CLOSED)
        return;
    outbox_clear(&q->out);
    if (what == CHARDEV_OPENED)
        greet(q);
    else if (what == CHARDEV_CLOSED)
        q->negotiated = false;
}

static void writable(void *opaque)
{
    struct qmp *q = opaque;

    outbox_flush(&q->out);
    chardev_accept_input(q->chr);
}

static const struct chardev_client client = {
    .can_receive = can_receive, .receive = receive, .event = event, .writable = writable,
};

struct qmp *qmp_new(struct control *control, struct chardev *chr, bool pretty)
{
    struct qmp *q = g_new0(struct qmp, 1);

    q->control = control;
    q->chr = chr;
    q->pretty = pretty;
    hmp_init(&q->hmp, control);
    q->out = (struct outbox){ chr, g_byte_array_new(), false };
    q->in = g_byte_array_new();
    control_listen(control, on_control, q);
    chardev_connect(chr, &client, q);
    chardev_accept_input(chr);
    if (chr->open)
        greet(q);
    return q;
}

void qmp_free(struct qmp *q)
{
    control_unlisten(q->control, on_control, q);
    chardev_connect(q->chr, NULL, NULL);
    g_byte_array_free(q->in, TRUE);
    g_byte_array_free(q->out.bytes, TRUE);
    g_free(q);
}
