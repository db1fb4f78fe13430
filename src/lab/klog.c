/*
 * See klog.h.  What the kernel says in trouble is known by the beginning of the line, behind time stamp and
 * caller (printk.time, PRINTK_CALLER), so that a program that merely quotes such a line does not count.
 *
 * KASAN, UBSAN and WARN lines are no events: the kernel goes on.
 */
#include "lab/klog.h"

#include <stdbool.h>
#include <string.h>

enum { LINE = 1000, TAIL = 20, BEFORE = 8, AFTER = 120 };

struct klog {
    void (*seen)(void *opaque, enum klog_event event, const char *text);
    void *opaque;
    GString *line;
    GQueue tail;     /* of char *: the last TAIL lines */
    GString *report; /* of the first event */
    unsigned after;  /* lines still to go into it */
    enum klog_event open; /* the panic or oops whose end is awaited */
};

static const struct sign {
    const char *text;
    enum klog_event event;
} signs[] = {
    { "Kernel panic - not syncing", KLOG_PANIC },
    { "Internal error: ", KLOG_OOPS },
    { "kernel BUG at ", KLOG_OOPS },
    { "watchdog: BUG: soft lockup - ", KLOG_SOFT_LOCKUP },
    { "BUG: soft lockup - ", KLOG_SOFT_LOCKUP },
    { "NMI watchdog: BUG: soft lockup - ", KLOG_SOFT_LOCKUP },
    { "rcu: INFO: rcu_", KLOG_RCU_STALL },
    { "INFO: rcu_", KLOG_RCU_STALL },
    { "INFO: task ", KLOG_HUNG_TASK },
    { "Out of memory: Killed process ", KLOG_OOM_KILL },
    { "Out of memory (oom_kill_allocating_task): Killed process ", KLOG_OOM_KILL },
    { "Memory cgroup out of memory: Killed process ", KLOG_OOM_KILL },
    { "armlet-agent: ", KLOG_AGENT },
};

const char *klog_event_name(enum klog_event event)
{
    static const char *const names[] = { "nothing", "panic", "oops", "soft lockup", "RCU stall", "hung task",
                                         "OOM kill", "agent" };
    return names[event];
}

/* Behind "[    0.123456] " and "[   T12] ", as many as there are. */
static const char *skip_stamps(const char *s)
{
    while (*s == '[') {
        const char *end = s + 1 + strspn(s + 1, " 0123456789.TC");
        if (*end != ']' || end == s + 1)
            break;
        s = end + 1;
        s += strspn(s, " ");
    }
    return s;
}

/* Some beginnings are those of harmless lines too. */
static bool is_meant(const struct sign *sign, const char *text)
{
    if (sign->event == KLOG_RCU_STALL)
        return strstr(text, "detected") && strstr(text, "stall");
    if (sign->event == KLOG_HUNG_TASK)
        return strstr(text, " blocked for more than ") != NULL;
    return true;
}

static enum klog_event classify(const char *text)
{
    for (size_t i = 0; i < G_N_ELEMENTS(signs); i++)
        if (g_str_has_prefix(text, signs[i].text) && is_meant(&signs[i], text))
            return signs[i].event;
    return KLOG_NONE;
}

static void begin_report(struct klog *k)
{
    unsigned skip = k->tail.length > BEFORE ? k->tail.length - BEFORE : 0;

    for (GList *l = g_queue_peek_nth_link(&k->tail, skip); l; l = l->next)
        g_string_append_printf(k->report, "%s\n", (char *)l->data);
    k->after = AFTER + 1;
}

static void remember(struct klog *k, const char *line)
{
    if (k->after) {
        k->after--;
        g_string_append_printf(k->report, "%s\n", line);
    }
    g_queue_push_tail(&k->tail, g_strdup(line));
    if (k->tail.length > TAIL)
        g_free(g_queue_pop_head(&k->tail));
}

static void take_line(struct klog *k)
{
    char *line = g_strchomp(k->line->str);
    const char *text = skip_stamps(line);
    enum klog_event event = classify(text);
    bool ends = k->open && g_str_has_prefix(text, "---[ end ");

    if (event && event != KLOG_AGENT && !k->report->len)
        begin_report(k);
    remember(k, line);
    if (event == KLOG_PANIC || event == KLOG_OOPS)
        k->open = event;
    if (event)
        k->seen(k->opaque, event, text);
    if (ends) {
        k->open = KLOG_NONE;
        k->after = 0;
        k->seen(k->opaque, KLOG_NONE, "");
    }
    g_string_truncate(k->line, 0);
}

void klog_feed(struct klog *k, const void *data, size_t len)
{
    const char *p = data;

    for (size_t i = 0; i < len; i++) {
        if (p[i] == '\n')
            take_line(k);
        else if (p[i] && p[i] != '\r' && k->line->len < LINE)
            g_string_append_c(k->line, p[i]);
    }
}

void klog_end(struct klog *k)
{
    if (k->line->len)
        take_line(k);
}

const char *klog_report(const struct klog *k)
{
    return k->report->str;
}

char *klog_tail(const struct klog *k)
{
    GString *text = g_string_new(NULL);

    for (GList *l = k->tail.head; l; l = l->next)
        g_string_append_printf(text, "%s\n", (char *)l->data);
    return g_string_free(text, FALSE);
}

struct klog *klog_new(void (*seen)(void *opaque, enum klog_event event, const char *text), void *opaque)
{
    struct klog *k = g_new0(struct klog, 1);

    k->seen = seen;
    k->opaque = opaque;
    k->line = g_string_new(NULL);
    k->report = g_string_new(NULL);
    g_queue_init(&k->tail);
    return k;
}

void klog_free(struct klog *k)
{
    g_string_free(k->line, TRUE);
    g_string_free(k->report, TRUE);
    g_queue_clear_full(&k->tail, g_free);
    g_free(k);
}
