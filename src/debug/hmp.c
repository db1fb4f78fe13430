/*
 * See hmp.h.  Command names, arguments and the layout of answers follow QEMU's monitor where clients read them.
 */
#include "debug/hmp.h"

#include <stdarg.h>
#include <string.h>

#include "base/trace.h"
#include "cpu/cluster.h"

void hmp_print(struct hmp *h, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_string_append_vprintf(h->out, fmt, ap);
    va_end(ap);
}

struct cpu *hmp_cpu(struct hmp *h)
{
    return control_cluster(h->control)->cpu[h->cpu];
}

/* --- words and expressions -------------------------------------------------------------------------------- */

static void skip_spaces(const char **text)
{
    while (g_ascii_isspace(**text))
        ++*text;
}

char *hmp_word(const char **text)
{
    skip_spaces(text);
    if (!**text)
        return NULL;
    char quote = **text == '"' || **text == '\'' ? *(*text)++ : 0;
    const char *p = *text;
    while (**text && (quote ? **text != quote : !g_ascii_isspace(**text)))
        ++*text;
    char *word = g_strndup(p, (gsize)(*text - p));
    if (quote && **text)
        ++*text;
    skip_spaces(text);
    return word;
}

static bool numbered(const char *name, char prefix, unsigned max, unsigned *n)
{
    char *end;
    guint64 value;

    if (name[0] != prefix || !g_ascii_isdigit(name[1]))
        return false;
    value = g_ascii_strtoull(name + 1, &end, 10);
    *n = (unsigned)MIN(value, 99);
    return !*end && value <= max;
}

bool hmp_register(struct cpu *cpu, const char *name, uint64_t *value)
{
    const struct sysreg *reg;
    unsigned n;

    if (!strcmp(name, "pc"))
        *value = cpu->pc;
    else if (!strcmp(name, "sp"))
        *value = cpu->x[31];
    else if (!strcmp(name, "lr"))
        *value = cpu->x[30];
    else if (!strcmp(name, "cpsr") || !strcmp(name, "pstate"))
        *value = cpu_pstate(cpu);
    else if (numbered(name, 'x', 30, &n))
        *value = cpu->x[n];
    else if (numbered(name, 'w', 30, &n))
        *value = (uint32_t)cpu->x[n];
    else if (numbered(name, 'd', 31, &n))
        *value = cpu->v[n].d[0];
    else {
        g_autofree char *upper = g_ascii_strup(name, -1);
        reg = sysreg_find_name(upper);
        return reg && sysreg_peek(cpu, reg, value);
    }
    return true;
}

struct parser {
    struct hmp *h;
    const char *p;
    unsigned depth;
    const char *error;
};

static uint64_t sum(struct parser *s);

static char peek(struct parser *s)
{
    while (g_ascii_isspace(*s->p))
        s->p++;
    return *s->p;
}

static uint64_t register_value(struct parser *s)
{
    const char *start = ++s->p;
    uint64_t value = 0;

    while (g_ascii_isalnum(*s->p) || *s->p == '_')
        s->p++;
    g_autofree char *name = g_strndup(start, (gsize)(s->p - start));
    if (!hmp_register(hmp_cpu(s->h), name, &value))
        s->error = "unknown register";
    return value;
}

static uint64_t number(struct parser *s)
{
    char *end;
    uint64_t value = g_ascii_strtoull(s->p, &end, 0);

    if (end == s->p || *s->p == '-' || *s->p == '+')
        s->error = "a number, a $register or ( is expected";
    s->p = end;
    return value;
}

static uint64_t unary(struct parser *s)
{
    uint64_t value;
    char c = peek(s);

    if (s->error || s->depth > 50) {
        s->error = "too deep";
        return 0;
    }
    switch (c) {
    case '+': s->p++; s->depth++; value = unary(s); s->depth--; return value;
    case '-': s->p++; s->depth++; value = unary(s); s->depth--; return -value;
    case '~': s->p++; s->depth++; value = unary(s); s->depth--; return ~value;
    case '$': return register_value(s);
    case '(':
        s->p++;
        s->depth++;
        value = sum(s);
        if (peek(s) == ')')
            s->p++;
        else if (!s->error)
            s->error = "a ) is missing";
        s->depth--;
        return value;
    default: return number(s);
    }
}

/* "64 /tmp/file" is a number and a path. */
static bool path_follows(const struct parser *s)
{
    return s->p[0] == '/' && g_ascii_isspace(s->p[-1]) && !g_ascii_isspace(s->p[1]);
}

static uint64_t product(struct parser *s)
{
    uint64_t a = unary(s), b;

    for (char op = peek(s); !s->error && op && strchr("*/%&|^", op) && !path_follows(s); op = peek(s)) {
        s->p++;
        b = unary(s);
        if ((op == '/' || op == '%') && !b)
            s->error = "division by zero";
        if (s->error)
            return 0;
        switch (op) {
        case '*': a *= b; break;
        case '/': a /= b; break;
        case '%': a %= b; break;
        case '&': a &= b; break;
        case '|': a |= b; break;
        default: a ^= b; break;
        }
    }
    return a;
}

static uint64_t sum(struct parser *s)
{
    uint64_t a = product(s);

    for (char op = peek(s); !s->error && (op == '+' || op == '-'); op = peek(s)) {
        s->p++;
        uint64_t b = product(s);
        a = op == '+' ? a + b : a - b;
    }
    return a;
}

bool hmp_expression(struct hmp *h, const char **text, uint64_t *value)
{
    struct parser s = { .h = h };

    skip_spaces(text);
    s.p = *text;
    *value = sum(&s);
    if (!s.error && *s.p && !g_ascii_isspace(s.p[-1]) && *s.p != ',')
        s.error = "that does not belong there";
    if (s.error) {
        hmp_print(h, "%s: %s\n", **text ? *text : "expression", s.error);
        return false;
    }
    *text = s.p;
    skip_spaces(text);
    return true;
}

/* --- commands of the machine as a whole --------------------------------------------------------------------- */

static void run_stop(struct hmp *h, const char *args)
{
    (void)args;
    if (control_running(h->control))
        control_stop(h->control, RUN_PAUSED);
}

static void run_cont(struct hmp *h, const char *args)
{
    enum run_state state = control_state(h->control);

    (void)args;
    if (state == RUN_SHUTDOWN || state == RUN_PANICKED)
        hmp_print(h, "Resetting the Virtual Machine is required\n");
    else
        control_continue(h->control);
}

static void run_quit(struct hmp *h, const char *args)
{
    const struct control_ops *ops = control_ops(h->control);

    (void)args;
    if (ops->quit)
        ops->quit(ops->opaque);
}

static void run_reset(struct hmp *h, const char *args)
{
    const struct control_ops *ops = control_ops(h->control);

    (void)args;
    if (ops->reset)
        ops->reset(ops->opaque);
}

static void run_powerdown(struct hmp *h, const char *args)
{
    const struct control_ops *ops = control_ops(h->control);

    (void)args;
    if (ops->powerdown)
        ops->powerdown(ops->opaque);
}

static void run_cpu(struct hmp *h, const char *args)
{
    uint64_t n;

    if (!hmp_expression(h, &args, &n))
        return;
    if (n < control_cluster(h->control)->n)
        h->cpu = (unsigned)n;
    else
        hmp_print(h, "there is no CPU #%" G_GUINT64_FORMAT "\n", (guint64)n);
}

static void run_balloon(struct hmp *h, const char *args)
{
    const struct control_ops *ops = control_ops(h->control);
    uint64_t mib;

    if (!hmp_expression(h, &args, &mib))
        return;
    if (mib > UINT64_MAX >> 20 || !mib)
        hmp_print(h, "balloon: give the guest's memory in MiB\n");
    else if (!ops->balloon || !ops->balloon(ops->opaque, mib << 20))
        hmp_print(h, "balloon: no balloon device has been activated (-device virtio-balloon-pci)\n");
}

static void run_gdbserver(struct hmp *h, const char *args)
{
    const struct control_ops *ops = control_ops(h->control);
    g_autofree char *where = hmp_word(&args);

    if (!ops->gdbserver) {
        hmp_print(h, "no gdb server can be made here\n");
        return;
    }
    g_autofree char *text = ops->gdbserver(ops->opaque, where ? where : "tcp::1234");
    hmp_print(h, "%s\n", text);
}

static void run_log(struct hmp *h, const char *args)
{
    g_autofree char *list = hmp_word(&args);

    if (!list) {
        g_autofree char *now = trace_list();
        hmp_print(h, "%s\n", now);
        return;
    }
    g_autofree char *unknown = trace_enable(list);
    if (unknown)
        hmp_print(h, "log: %s: no such item\n", unknown);
}

static void run_trace_event(struct hmp *h, const char *args)
{
    g_autofree char *name = hmp_word(&args), *state = hmp_word(&args);

    if (!name || !state || (strcmp(state, "on") && strcmp(state, "off")))
        hmp_print(h, "trace-event: a name or pattern and on or off are expected (info trace-events lists them)\n");
    else if (!trace_set(name, !strcmp(state, "on")))
        hmp_print(h, "trace-event: unknown event: %s\n", name);
}

static void change_hostfwd(struct hmp *h, const char *args, bool add)
{
    const struct control_ops *ops = control_ops(h->control);
    g_autofree char *first = hmp_word(&args), *second = hmp_word(&args);

    if (!first)
        hmp_print(h, "a rule is expected: [id] [tcp|udp]:[hostaddr]:hostport%s\n", add ? "-[guestaddr]:guestport" : "");
    else if (!ops->hostfwd)
        hmp_print(h, "there is no network\n");
    else
        ops->hostfwd(ops->opaque, add, second ? first : NULL, second ? second : first, h->out);
}

static void run_hostfwd_add(struct hmp *h, const char *args)
{
    change_hostfwd(h, args, true);
}

static void run_hostfwd_remove(struct hmp *h, const char *args)
{
    change_hostfwd(h, args, false);
}

static void run_logfile(struct hmp *h, const char *args)
{
    g_autofree char *path = hmp_word(&args);
    int r = trace_to_file(path);

    if (r)
        hmp_print(h, "logfile %s: %s\n", path ? path : "", g_strerror(-r));
}

static void run_help(struct hmp *h, const char *args);
static void run_info(struct hmp *h, const char *args);

static const struct hmp_command machine_commands[] = {
    { "help", "[command]", "show the commands, or one", run_help, false },
    { "?", "[command]", "likewise", run_help, false },
    { "info", "[subject]", "show what is known about it", run_info, false },
    { "stop", "", "stop the vCPUs", run_stop, false },
    { "cont", "", "let them go on", run_cont, false },
    { "c", "", "likewise", run_cont, false },
    { "cpu", "index", "the vCPU that other commands look at", run_cpu, false },
    { "system_reset", "", "reset the machine", run_reset, false },
    { "system_powerdown", "", "press the power button", run_powerdown, false },
    { "quit", "", "end the program", run_quit, false },
    { "q", "", "likewise", run_quit, false },
    { "balloon", "MiB", "the memory that the guest shall live with", run_balloon, false },
    { "gdbserver", "[device]", "wait for gdb there (default tcp::1234); none: no more", run_gdbserver, false },
    { "log", "[item,...]", "what is traced, as -d; without an item: show it", run_log, false },
    { "trace-event", "name|pattern on|off", "show events of the name, or no longer, beside the others", run_trace_event, false },
    { "hostfwd_add", "[netdev] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
      "forward a port of the host to the guest", run_hostfwd_add, false },
    { "hostfwd_remove", "[netdev] [tcp|udp]:[hostaddr]:hostport", "no longer forward it", run_hostfwd_remove, false },
    { "logfile", "[file]", "where traces go; without a file: to stderr", run_logfile, false },
    { 0 }
};

static const struct hmp_command *const tables[] = { machine_commands, hmp_memory_commands, hmp_kernel_commands };

static const struct hmp_command *find_in(const struct hmp_command *table, const char *name)
{
    for (; table->name; table++)
        if (!strcmp(table->name, name))
            return table;
    return NULL;
}

/* Insertions, deletions and replacements that make b of a; words of more than 31 letters are far from everything. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[32];
    size_t m = strlen(b);

    if (m > 31 || strlen(a) > 31)
        return 99;
    for (unsigned j = 0; j <= m; j++)
        row[j] = j;
    for (unsigned i = 0; a[i]; i++) {
        unsigned diagonal = row[0];
        row[0] = i + 1;
        for (unsigned j = 0; j < m; j++) {
            unsigned replace = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = MIN(MIN(row[j], row[j + 1]) + 1, replace);
        }
    }
    return row[m];
}

/* The words of the table that are near, or begin with name. */
static void suggest(struct hmp *h, const struct hmp_command *table, const char *name, unsigned *n)
{
    for (; table->name; table++)
        if (strlen(name) > 1 && strlen(table->name) > 1 &&
            (g_str_has_prefix(table->name, name) || distance(name, table->name) < 3))
            hmp_print(h, "%s%s", (*n)++ ? ", " : "; did you mean: ", table->name);
}

static void print_info_table(struct hmp *h)
{
    for (const struct hmp_command *c = hmp_info_commands; c->name; c++)
        hmp_print(h, "info %s%s%s -- %s\n", c->name, *c->args ? " " : "", c->args, c->help);
}

static void run_info(struct hmp *h, const char *args)
{
    const struct control_ops *ops = control_ops(h->control);
    g_autofree char *what = hmp_word(&args);

    if (!what) {
        print_info_table(h);
        return;
    }
    const struct hmp_command *c = find_in(hmp_info_commands, what);
    if (c && c->run) {
        if (c->still)
            cluster_pause(control_cluster(h->control));
        c->run(h, args);
        if (c->still)
            cluster_resume(control_cluster(h->control));
    } else if (!c || !ops->info || !ops->info(ops->opaque, what, h->out)) {
        unsigned n = 0;
        hmp_print(h, c ? "nothing is known about %s" : "unknown command: 'info %s'", what);
        if (!c)
            suggest(h, hmp_info_commands, what, &n);
        hmp_print(h, "\n");
    }
}

static void help_one(struct hmp *h, const struct hmp_command *c)
{
    hmp_print(h, "%s%s%s -- %s\n", c->name, *c->args ? " " : "", c->args, c->help);
}

static void run_help(struct hmp *h, const char *args)
{
    g_autofree char *name = hmp_word(&args);

    for (unsigned i = 0; i < G_N_ELEMENTS(tables); i++)
        for (const struct hmp_command *c = tables[i]; c->name; c++)
            if (!name || !strcmp(name, c->name))
                help_one(h, c);
    if (name && !strcmp(name, "info"))
        print_info_table(h);
}

static void unknown(struct hmp *h, const char *name)
{
    unsigned n = 0;

    hmp_print(h, "unknown command: '%s'", name);
    for (unsigned i = 0; i < G_N_ELEMENTS(tables); i++)
        suggest(h, tables[i], name, &n);
    hmp_print(h, n ? "\n" : " (help lists them)\n");
}

static void run_command(struct hmp *h, const struct hmp_command *c, const char *args)
{
    if (c->still)
        cluster_pause(control_cluster(h->control));
    c->run(h, args);
    if (c->still)
        cluster_resume(control_cluster(h->control));
}

char *hmp_run(struct hmp *h, const char *line)
{
    const char *args = line;
    g_autofree char *name = hmp_word(&args);
    const struct hmp_command *c = NULL;

    trace(MONITOR, "%s", line);
    h->out = g_string_new(NULL);
    if (!name)
        return g_string_free(h->out, FALSE);
    char *slash = strchr(name, '/'); /* x/4i is x /4i */
    if (slash) {
        args = strchr(line, '/');
        *slash = 0;
    }
    for (unsigned i = 0; !c && i < G_N_ELEMENTS(tables); i++)
        c = find_in(tables[i], name);
    if (c)
        run_command(h, c, args);
    else
        unknown(h, name);
    char *text = g_string_free(h->out, FALSE);
    if (g_utf8_validate(text, -1, NULL)) /* the guest's names may be anything */
        return text;
    char *valid = g_utf8_make_valid(text, -1);
    g_free(text);
    return valid;
}

static void add_matches(const struct hmp_command *table, const char *prefix, GPtrArray *out)
{
    for (; table->name; table++)
        if (g_str_has_prefix(table->name, prefix))
            g_ptr_array_add(out, g_strdup(table->name));
}

void hmp_complete(struct hmp *h, const char *text, GPtrArray *out)
{
    const char *space = strrchr(text, ' '), *word = space ? space + 1 : text;

    (void)h;
    if (g_str_has_prefix(text, "info ")) {
        if (space == text + 4)
            add_matches(hmp_info_commands, word, out);
        return;
    }
    if (space && !g_str_has_prefix(text, "help "))
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(tables); i++)
        add_matches(tables[i], word, out);
}

void hmp_init(struct hmp *h, struct control *control)
{
    *h = (struct hmp){ .control = control };
}
