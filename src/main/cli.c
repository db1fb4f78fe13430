/*
 * Options of armlet's own commands, from their tables.  See commands.h.
 */
#include "main/commands.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "machine/props.h"

enum { HELP_COLUMN = 22 };

void cli_fail(const struct command *c, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    warn("%s: %s", c->name, text);
    exit(c->failure ? c->failure : EXIT_FAILURE);
}

static const struct cli_option *find(const struct command *c, const char *name, size_t n)
{
    for (const struct cli_option *o = c->options; o && o->name; o++)
        if (strlen(o->name) == n && !strncmp(o->name, name, n))
            return o;
    return NULL;
}

G_GNUC_NORETURN static void unknown_option(const struct command *c, const char *word)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    for (const struct cli_option *o = c->options; o && o->name; o++)
        g_ptr_array_add(names, (gpointer)o->name);
    g_ptr_array_add(names, NULL);
    const char *near = suggest(word + strspn(word, "-"), (const char *const *)names->pdata);
    if (near)
        cli_fail(c, "unknown option %s; did you mean --%s? (armlet %s --help)", word, near, c->name);
    cli_fail(c, "unknown option %s (armlet %s --help lists them)", word, c->name);
}

static void store(const struct cli_option *o, void *into, const char *value)
{
    void *slot = (char *)into + o->slot;

    if (o->kind == CLI_FLAG) {
        *(bool *)slot = true;
    } else if (o->kind != CLI_LIST) {
        *(const char **)slot = value;
    } else {
        GPtrArray **list = slot;
        if (!*list)
            *list = g_ptr_array_new();
        g_ptr_array_add(*list, (gpointer)value);
    }
}

/* One --option; returns how many words it took. */
static int take_option(const struct command *c, char **argv, void *into)
{
    const char *name = argv[0] + 2, *eq = strchr(name, '=');
    const struct cli_option *o =
        argv[0][1] == '-' ? find(c, name, eq ? (size_t)(eq - name) : strlen(name)) : NULL;

    if (!o)
        unknown_option(c, argv[0]);
    if (o->kind == CLI_FLAG && eq)
        cli_fail(c, "--%s takes no value", o->name);
    if (o->kind != CLI_FLAG && o->kind != CLI_OPTIONAL && !eq && (!argv[1] || !strcmp(argv[1], "--")))
        cli_fail(c, "--%s needs a value: %s", o->name, o->argument);
    store(o, into, eq ? eq + 1 : o->kind == CLI_OPTIONAL ? "" : argv[1]);
    return o->kind == CLI_FLAG || o->kind == CLI_OPTIONAL || eq ? 1 : 2;
}

void cli_parse(const struct command *c, char **argv, void *into, char ***rest)
{
    char **words = argv;

    *rest = NULL;
    while (*argv) {
        if (!strcmp(*argv, "--")) {
            *rest = argv + 1;
            break;
        }
        if (argv[0][0] == '-' && argv[0][1])
            argv += take_option(c, argv, into);
        else
            *words++ = *argv++;
    }
    *words = NULL;
}

static void print_option(const struct cli_option *o)
{
    g_autofree char *left =
        g_strdup_printf("--%s%s%s%s", o->name,
                        !o->argument ? "" : o->kind == CLI_OPTIONAL ? "[=" : " ",
                        o->argument ? o->argument : "", o->kind == CLI_OPTIONAL ? "]" : "");
    int room = strlen(left) < HELP_COLUMN ? HELP_COLUMN : 0;

    if (room)
        printf("  %-*s %s\n", room, left, o->help);
    else
        printf("  %s\n  %*s %s\n", left, HELP_COLUMN, "", o->help);
}

void cli_help(const struct command *c)
{
    g_auto(GStrv) lines = NULL;

    lines = g_strsplit(c->synopsis, "\n", -1);
    for (char **l = lines; *l; l++)
        printf("%s armlet %s\n", l == lines ? "usage:" : "      ", *l);
    printf("\n%s\n", c->text);
    if (c->options)
        printf("Options:\n");
    for (const struct cli_option *o = c->options; o && o->name; o++)
        print_option(o);
    if (c->notes)
        printf("%s%s", c->options ? "\n" : "", c->notes);
    if (c->examples)
        printf("\nExamples:\n%s", c->examples);
}
