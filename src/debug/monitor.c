/*
 * See monitor.h: the human monitor.
 */
#include "debug/monitor.h"

#include <string.h>

#include "base/report.h"
#include "debug/hmp.h"
#include "debug/lineedit.h"
#include "debug/outbox.h"
#include "kernel/kernel.h"

enum { IN_CHUNK = 1024 };

struct monitor {
    struct hmp hmp;
    struct chardev *chr;
    struct lineedit *edit;
    struct outbox out;
    bool greeted;
};

static void show(void *opaque, const char *text, size_t len)
{
    outbox_put(&((struct monitor *)opaque)->out, text, len);
}

/* Lines end as a raw terminal wants it. */
static void show_lines(struct monitor *m, const char *text)
{
    GString *s = g_string_new(NULL);

    for (; *text; text++) {
        if (*text == '\n')
            g_string_append_c(s, '\r');
        g_string_append_c(s, *text);
    }
    show(m, s->str, s->len);
    g_string_free(s, TRUE);
}

static void on_line(void *opaque, const char *line)
{
    struct monitor *m = opaque;
    g_autofree char *text = hmp_run(&m->hmp, line);

    show_lines(m, text);
    lineedit_prompt(m->edit);
}

static void on_complete(void *opaque, const char *text, GPtrArray *words)
{
    hmp_complete(&((struct monitor *)opaque)->hmp, text, words);
}

static const struct lineedit_ops edit_ops = { show, on_line, on_complete };

static bool as_qemu(void)
{
    return g_str_has_prefix(report_program(), "qemu-system-");
}

static void greet(struct monitor *m)
{
    const struct control_ops *ops = control_ops(m->hmp.control);
    g_autofree char *line = as_qemu()
        ? g_strdup_printf("QEMU %s monitor - type 'help' for more information\n", ops->qemu_version)
        : g_strdup_printf("armlet %s monitor - type 'help' for more information\n", ops->version);

    if (!m->greeted)
        show_lines(m, line);
    else
        show_lines(m, "\n");
    m->greeted = true;
    lineedit_prompt(m->edit);
}

/* So that the first command about the guest's kernel is as quick as the next. */
static void look_ahead(struct monitor *m)
{
    struct cluster *cluster = control_cluster(m->hmp.control);

    cluster_pause(cluster);
    kernel_look_ahead(control_kernel(m->hmp.control));
    cluster_resume(cluster);
}

static size_t can_receive(void *opaque)
{
    const struct monitor *m = opaque;
    return m->out.bytes->len > OUTBOX_MAX / 2 ? 0 : IN_CHUNK;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
    lineedit_input(((struct monitor *)opaque)->edit, buf, len);
}

static void event(void *opaque, enum chardev_event what)
{
    struct monitor *m = opaque;

    if (what == CHARDEV_OPENED) {
        look_ahead(m);
        greet(m);
    } else if (what == CHARDEV_CLOSED && strcmp(m->chr->ops->kind, "mux")) { /* somebody else next time */
        outbox_clear(&m->out);
        lineedit_reset(m->edit);
        m->greeted = false;
    }
}

static void writable(void *opaque)
{
    struct monitor *m = opaque;

    outbox_flush(&m->out);
    chardev_accept_input(m->chr);
}

static const struct chardev_client client = {
    .can_receive = can_receive, .receive = receive, .event = event, .writable = writable,
};

struct monitor *monitor_new(struct control *control, struct chardev *chr)
{
    struct monitor *m = g_new0(struct monitor, 1);

    hmp_init(&m->hmp, control);
    m->chr = chr;
    m->out = (struct outbox){ chr, g_byte_array_new(), false };
    m->edit = lineedit_new(as_qemu() ? "(qemu) " : "(armlet) ", &edit_ops, m);
    chardev_connect(chr, &client, m);
    chardev_accept_input(chr);
    if (chr->open)
        greet(m);
    return m;
}

void monitor_free(struct monitor *m)
{
    chardev_connect(m->chr, NULL, NULL);
    lineedit_free(m->edit);
    g_byte_array_free(m->out.bytes, TRUE);
    g_free(m);
}
