/*
 * See chardevs.h.  -serial mon:stdio, -nographic and mux=on give a multiplexer; every other device has one front end.
 */
#include "machine/chardevs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "debug/stream.h"

enum { SERIAL_PORTS = 4 };

struct entry {
    char *id;
    struct chardev *chr;
    struct mux *mux; /* NULL: not shared */
    bool taken;
    bool mon; /* `mon:': a monitor belongs on it too */
};

struct chardevs {
    const struct config *config;
    struct mux_actions actions;
    GPtrArray *entries; /* struct entry */
    struct chardev *serial[SERIAL_PORTS];
};

static struct chardev *fail(GError **err, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static struct chardev *fail(GError **err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    *err = g_error_new_valist(OPTIONS_ERROR, OPTIONS_ERROR_BAD, fmt, ap);
    va_end(ap);
    return NULL;
}

static struct entry *add_entry(struct chardevs *all, const char *id, struct chardev *chr, bool mux)
{
    struct entry *e = g_new0(struct entry, 1);
    e->id = g_strdup(id);
    e->chr = chr;
    if (mux)
        e->mux = mux_new(chr, all->config->escape, &all->actions);
    g_ptr_array_add(all->entries, e);
    return e;
}

static void free_entry(void *p)
{
    struct entry *e = p;
    if (e->mux)
        mux_free(e->mux);
    else
        chardev_free(e->chr);
    g_free(e->id);
    g_free(e);
}

static struct entry *find_entry(struct chardevs *all, const char *id)
{
    for (guint i = 0; i < all->entries->len; i++) {
        struct entry *e = g_ptr_array_index(all->entries, i);
        if (e->id && !strcmp(e->id, id))
            return e;
    }
    return NULL;
}

static struct chardev *take_entry(struct entry *e, GError **err)
{
    if (e->mux)
        return mux_add(e->mux, e->id);
    if (e->taken)
        return fail(err, "character device '%s' is in use already (mux=on lets several share it)", e->id);
    e->taken = true;
    return e->chr;
}

struct chardev *chardevs_take(struct chardevs *all, const char *id, GError **err)
{
    struct entry *e = find_entry(all, id);

    for (guint i = 0; !e && i < all->config->given->len; i++) {
        struct chardev *chr = g_ptr_array_index(all->config->given, i);
        if (!strcmp(chr->id, id))
            return chr;
    }
    return e ? take_entry(e, err) : fail(err, "no character device has the id '%s'", id);
}

/* --- one device from its properties ------------------------------------------------------------------ */

static struct chardev *new_socket(struct props *p, const char *id, GError **err)
{
    static const char *const ignored[] = { "ipv4", "ipv6", "to", "delay", "telnet", "reconnect", "reconnect-ms",
                                           "abstract", "tight", NULL };
    struct stream_address a = { .unix_path = props_get(p, "path"), .host = props_get(p, "host"),
                                .port = props_get(p, "port") };
    if (!props_bool(p, "server", false, &a.server, err) || !props_bool(p, "wait", true, &a.wait, err) ||
        !props_bool(p, "nodelay", false, &a.nodelay, err))
        return NULL;
    props_ignore(p, ignored);
    if (!a.unix_path && !a.port)
        return fail(err, "-chardev socket,id=%s: give path= or port=", id ? id : "");
    return stream_socket_new(id, &a, err);
}

static struct chardev *new_pty(const char *id, GError **err)
{
    char *name = NULL;
    struct chardev *chr = stream_pty_new(id, &name, err);
    if (chr)
        fprintf(stderr, "char device redirected to %s (label %s)\n", name, id ? id : "pty");
    g_free(name);
    return chr;
}

static struct chardev *new_backend(struct props *p, const char *kind, const char *id, GError **err)
{
    const char *path = props_get(p, "path");
    bool flag;
    uint64_t size;

    if (!strcmp(kind, "null"))
        return stream_null_new(id);
    if (!strcmp(kind, "stdio"))
        return props_bool(p, "signal", true, &flag, err) ? stream_stdio_new(id, flag, err) : NULL;
    if (!strcmp(kind, "pty"))
        return new_pty(id, err);
    if (!strcmp(kind, "socket"))
        return new_socket(p, id, err);
    if (!strcmp(kind, "ringbuf") || !strcmp(kind, "memory")) {
        if (!props_number(p, "size", 65536, &size, err))
            return NULL;
        if (!size || size & (size - 1) || size > 1 << 30)
            return fail(err, "-chardev ringbuf: size must be a power of two");
        return stream_ring_new(id, size);
    }
    if (strcmp(kind, "file") && strcmp(kind, "pipe"))
        return fail(err, "-chardev %s: no such kind here (stdio, file, pipe, socket, pty, null, ringbuf are)", kind);
    if (!path)
        return fail(err, "-chardev %s,id=%s: give path=", kind, id ? id : "");
    if (!strcmp(kind, "pipe"))
        return stream_pipe_new(id, path, err);
    return props_bool(p, "append", false, &flag, err) ? stream_file_new(id, path, flag, err) : NULL;
}

static struct entry *new_from_props(struct chardevs *all, struct props *p, GError **err)
{
    static const char *const ignored[] = { "logfile", "logappend", NULL };
    const char *kind = props_get(p, "backend"), *id = props_get(p, "id");
    bool mux;

    if (id && find_entry(all, id)) {
        fail(err, "-chardev: two devices have the id '%s'", id);
        return NULL;
    }
    props_ignore(p, ignored);
    if (!props_bool(p, "mux", false, &mux, err))
        return NULL;
    struct chardev *chr = new_backend(p, kind ? kind : "", id, err);
    g_autofree char *what = g_strdup_printf("-chardev %s", kind ? kind : "");
    if (!chr)
        return NULL;
    struct entry *e = add_entry(all, id, chr, mux);
    return props_finish(p, what, err) ? e : NULL;
}

/* --- the short spelling of -serial and -monitor ---------------------------------------------------------- */

static void append_escaped(GString *s, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g_string_append_printf(s, text[i] == ',' ? ",," : "%c", text[i]);
}

/* tcp:HOST:PORT[,server=on...] and telnet: likewise. */
static bool short_tcp(GString *s, const char *rest)
{
    const char *comma = strchr(rest, ','), *end = comma ? comma : rest + strlen(rest);
    const char *colon = end;
    while (colon > rest && colon[-1] != ':')
        colon--;
    if (colon == rest)
        return false;
    g_string_append(s, "socket,host=");
    append_escaped(s, rest, (size_t)(colon - 1 - rest));
    g_string_append(s, ",port=");
    append_escaped(s, colon, (size_t)(end - colon));
    g_string_append(s, end);
    return true;
}

/* "stdio", "file:F", "unix:F,server" ... as -chardev's properties; NULL when it is none of them. */
static char *long_spelling(const char *text, const char *id)
{
    GString *s = g_string_new(NULL);
    bool ok = true;

    if (!strcmp(text, "stdio") || !strcmp(text, "pty") || !strcmp(text, "null"))
        g_string_append(s, text);
    else if (g_str_has_prefix(text, "file:") || g_str_has_prefix(text, "pipe:")) {
        g_string_append_printf(s, "%.4s,path=", text);
        append_escaped(s, text + 5, strlen(text + 5));
    } else if (g_str_has_prefix(text, "unix:")) {
        const char *rest = text + 5, *comma = strchr(rest, ',');
        g_string_append(s, "socket,path=");
        append_escaped(s, rest, comma ? (size_t)(comma - rest) : strlen(rest));
        g_string_append(s, comma ? comma : "");
    } else if (g_str_has_prefix(text, "tcp:") || g_str_has_prefix(text, "telnet:")) {
        ok = short_tcp(s, strchr(text, ':') + 1);
    } else if (g_str_has_prefix(text, "/dev/")) {
        g_string_append(s, "pipe,path=");
        append_escaped(s, text, strlen(text));
    } else {
        ok = false;
    }
    g_string_append_printf(s, ",id=%s", id);
    return g_string_free(s, !ok);
}

/* The front end for text; *none: it shall lead nowhere. */
static struct chardev *take_short(struct chardevs *all, const char *option, const char *text, const char *id,
                                  bool *none, GError **err)
{
    bool mux = g_str_has_prefix(text, "mon:");

    *none = !strcmp(text, "none") || g_str_has_prefix(text, "vc");
    if (*none)
        return NULL;
    if (g_str_has_prefix(text, "chardev:"))
        return chardevs_take(all, text + 8, err);
    g_autofree char *spelling = long_spelling(text + (mux ? 4 : 0), id);
    if (!spelling)
        return fail(err, "%s %s: unknown kind (stdio, mon:stdio, file:F, pipe:F, pty, unix:F, tcp:HOST:PORT, "
                    "chardev:ID, null, none)", option, text);
    struct props *p = props_new(spelling, "backend");
    if (mux) /* a shared terminal passes C-c on to the guest */
        props_merge(p, g_str_has_prefix(spelling, "stdio") ? "mux=on,signal=off" : "mux=on", NULL);
    struct entry *e = new_from_props(all, p, err);
    props_free(p);
    if (e)
        e->mon = mux;
    return e ? take_entry(e, err) : NULL;
}

struct chardev *chardevs_open(struct chardevs *all, const char *option, const char *text, const char *id, bool *none,
                              GError **err)
{
    return take_short(all, option, text, id, none, err);
}

struct chardev *chardevs_mon_front(struct chardevs *all, unsigned n)
{
    for (guint i = 0; i < all->entries->len; i++) {
        struct entry *e = g_ptr_array_index(all->entries, i);
        if (e->mon && n-- == 0)
            return mux_add(e->mux, "monitor");
    }
    return NULL;
}

void chardevs_describe(struct chardevs *all, GString *out)
{
    for (guint i = 0; i < all->entries->len; i++) {
        const struct entry *e = g_ptr_array_index(all->entries, i);
        g_string_append_printf(out, "%s: %s%s%s\n", e->id ? e->id : "-", e->chr->ops->kind, e->mux ? " (mux)" : "",
                               e->chr->open ? "" : " (disconnected)");
    }
}

struct chardev *chardevs_gdb(struct chardevs *all, const char *text, GError **err)
{
    struct entry *old = find_entry(all, "#gdb");

    if (old)
        g_ptr_array_remove(all->entries, old);
    if (!strcmp(text, "none"))
        return NULL;
    if (g_str_has_prefix(text, "chardev:"))
        return chardevs_take(all, text + 8, err);
    g_autofree char *spelling = long_spelling(text, "#gdb");
    if (!spelling)
        return fail(err, "-gdb %s: unknown kind (tcp::PORT, tcp:HOST:PORT, unix:FILE, stdio, chardev:ID, none)", text);
    struct props *p = props_new(spelling, "backend");
    if (g_str_has_prefix(spelling, "socket"))
        props_merge(p, "server=on,wait=off,nodelay=on", NULL);
    else if (g_str_has_prefix(spelling, "stdio"))
        props_merge(p, "signal=on", NULL);
    struct entry *e = new_from_props(all, p, err);
    props_free(p);
    return e ? take_entry(e, err) : NULL;
}

static bool add_serials(struct chardevs *all, GError **err)
{
    const struct config *c = all->config;

    for (guint i = 0; i < c->serial->len; i++) {
        g_autofree char *id = g_strdup_printf("serial%u", i);
        bool none;
        if (i >= SERIAL_PORTS) {
            fail(err, "-serial: at most %d ports", SERIAL_PORTS);
            return false;
        }
        all->serial[i] = take_short(all, "-serial", g_ptr_array_index(c->serial, i), id, &none, err);
        if (!all->serial[i] && !none)
            return false;
    }
    bool console = !c->serial->len && !c->nodefaults && (c->nographic || !c->no_display);
    bool none;
    if (console)
        all->serial[0] = take_short(all, "-serial", "mon:stdio", "serial0", &none, err);
    return !console || all->serial[0];
}

struct chardev *chardevs_serial(struct chardevs *all, unsigned n)
{
    return n < SERIAL_PORTS ? all->serial[n] : NULL;
}

struct chardevs *chardevs_new(const struct config *config, const struct mux_actions *actions, GError **err)
{
    struct chardevs *all = g_new0(struct chardevs, 1);
    bool ok = true;

    all->config = config;
    all->actions = *actions;
    all->entries = g_ptr_array_new_with_free_func(free_entry);
    for (guint i = 0; ok && i < config->chardevs->len; i++)
        ok = new_from_props(all, g_ptr_array_index(config->chardevs, i), err) != NULL;
    if (ok && add_serials(all, err))
        return all;
    chardevs_free(all);
    return NULL;
}

void chardevs_drain(struct chardevs *all)
{
    for (guint i = 0; i < all->entries->len; i++) {
        struct entry *e = g_ptr_array_index(all->entries, i);
        chardev_drain(e->chr);
    }
    for (guint i = 0; i < all->config->given->len; i++)
        chardev_drain(g_ptr_array_index(all->config->given, i));
}

void chardevs_free(struct chardevs *all)
{
    g_ptr_array_free(all->entries, TRUE);
    g_free(all);
}
