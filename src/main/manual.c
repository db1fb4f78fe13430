/*
 * The manual pages and the shells' completion, made of the tables of commands and options: armlet help
 * man|bash|zsh.
 */
#include "main/manual.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <glib.h>

#include "main/commands.h"

struct machine_option {
    const char *section; /* or NULL, and then: */
    const char *name, *alias, *argument, *help;
};

static const struct machine_option machine_options[] = {
#define OPT_SECTION(title) { .section = title },
#define OPT(name, alias, argument, function, help) { NULL, name, alias, argument, help },
#include "machine/options.def"
#undef OPT
#undef OPT_SECTION
};

/* --- roff ----------------------------------------------------------------------------------------------- */

static void put_roff(const char *s)
{
    bool line_start = true;

    for (; *s; s++) {
        if (line_start && (*s == '.' || *s == '\''))
            fputs("\\&", stdout);
        line_start = *s == '\n';
        if (*s == '\\')
            fputs("\\e", stdout);
        else if (*s == '-')
            fputs("\\-", stdout);
        else if (*s == '~' || *s == '^' || *s == '`')
            printf("\\(%s", *s == '~' ? "ti" : *s == '^' ? "ha" : "ga");
        else
            putchar(*s);
    }
}

static void put_section(const char *title)
{
    printf(".SH %s\n", title);
}

static void put_title(const char *page)
{
    g_autofree char *upper = g_ascii_strup(page, -1);

    printf(".\\\" Made by armlet help man.\n.TH %s 1 \"\" \"armlet " ARMLET_VERSION "\" \"User Commands\"\n",
           upper);
}

/* Lines that stand as they are. */
static void put_verbatim(const char *text)
{
    printf(".nf\n");
    put_roff(text);
    printf(".fi\n");
}

static void put_option(const char *dashes, const char *name, const char *argument, bool optional)
{
    printf(".TP\n.B ");
    put_roff(dashes);
    put_roff(name);
    if (argument) {
        printf("\\fR%s\\fI", optional ? "[=" : " ");
        put_roff(argument);
        printf("\\fR%s", optional ? "]" : "");
    }
    printf("\n");
}

/* --- pages ---------------------------------------------------------------------------------------------- */

static void put_synopsis(const struct command *c)
{
    g_auto(GStrv) lines = g_strsplit(c->synopsis, "\n", -1);

    put_section("SYNOPSIS");
    for (char **l = lines; *l; l++) {
        printf("%s.B armlet\n", l == lines ? "" : ".br\n");
        put_roff(*l);
        printf("\n");
    }
}

static void command_page(const struct command *c)
{
    g_autofree char *page = g_strconcat("armlet-", c->name, NULL);

    put_title(page);
    put_section("NAME");
    put_roff(page);
    printf(" \\- ");
    put_roff(c->summary);
    printf("\n");
    put_synopsis(c);
    put_section("DESCRIPTION");
    put_roff(c->text);
    if (c->options)
        put_section("OPTIONS");
    for (const struct cli_option *o = c->options; o && o->name; o++) {
        put_option("--", o->name, o->argument, o->kind == CLI_OPTIONAL);
        put_roff(o->help);
        printf("\n");
    }
    if (c->notes) {
        put_section("NOTES");
        put_verbatim(c->notes);
    }
    if (c->examples) {
        put_section("EXAMPLES");
        put_verbatim(c->examples);
    }
    put_section("SEE ALSO");
    printf(".BR armlet (1)\n");
}

static void put_commands(void)
{
    put_section("COMMANDS");
    for (unsigned i = 0; commands[i]; i++) {
        printf(".TP\n.BR armlet\\-%s (1)\n", commands[i]->name);
        put_roff(commands[i]->summary);
        printf("\n");
    }
    printf(
        ".TP\n.B armlet help \\fR[\\fICOMMAND\\fR|options]\na command's options, or those of the machine\n");
    printf(".TP\n.B armlet version\nname and version\n");
}

static void put_machine_options(void)
{
    put_section("OPTIONS OF THE MACHINE");
    printf("One dash or two, a value in the next word.\nA comma in a value is doubled.\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(machine_options); i++) {
        const struct machine_option *o = &machine_options[i];
        if (o->section) {
            printf(".SS %s\n", o->section);
            continue;
        }
        put_option("-", o->name, o->argument, false);
        put_roff(o->help);
        printf("\n");
        if (o->alias)
            printf("(also \\-%s)\n", o->alias);
    }
}

static void overview_page(void)
{
    put_title("armlet");
    put_section("NAME");
    printf("armlet \\- AArch64 machine that boots arm64 Linux kernels\n");
    put_section("SYNOPSIS");
    printf(".B armlet\n.I COMMAND\n[\\fIARGUMENT\\fR...]\n.br\n.B armlet\n.RI \\- OPTION ...\n");
    put_section("DESCRIPTION");
    printf("armlet is an AArch64 machine, its network, its file server and its debugger in one program, for "
           "x86\\-64 Linux.\n"
           "A word is one of its own commands; arguments that begin with a dash are the command line of\n"
           "qemu\\-system\\-aarch64, as are all of them when the program is called by that name.\n");
    put_commands();
    put_machine_options();
    put_section("EXIT STATUS");
    printf("0: the guest has powered off, or was ended by C\\-a x, the monitor's quit or SIGTERM.\n"
           "1: something was wrong with the arguments, the images or the host, said in one line on\n"
           "standard error; or the guest's kernel panicked and \\-action panic=exit\\-failure was given.\n"
           ".BR armlet\\-run (1)\nhas its own.\n");
    put_section("FILES");
    printf(".TP\n.I \\(ti/.cache/armlet\nkernels, busybox, initial RAM disks and builds; can be deleted at "
           "any time\n"
           ".TP\n.I \\(ti/.local/share/armlet\nthe guests' root file systems\n");
    put_section("ENVIRONMENT");
    printf(".TP\n.BR XDG_CACHE_HOME \", \" XDG_DATA_HOME\nother places for these\n"
           ".TP\n.B NO_COLOR\nno colours in the table of armlet run \\-\\-ktap\n");
    put_section("SEE ALSO");
    for (unsigned i = 0; commands[i]; i++)
        printf(".BR armlet\\-%s (1)%s\n", commands[i]->name, commands[i + 1] ? "," : "");
}

bool manual_page(const char *name)
{
    if (!name) {
        overview_page();
        return true;
    }
    for (unsigned i = 0; commands[i]; i++)
        if (!strcmp(commands[i]->name, name)) {
            command_page(commands[i]);
            return true;
        }
    return false;
}

/* --- completion ----------------------------------------------------------------------------------------- */

static void put_names(void)
{
    for (unsigned i = 0; commands[i]; i++)
        printf("%s ", commands[i]->name);
    printf("help version");
}

static void put_machine_names(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(machine_options); i++)
        if (machine_options[i].name)
            printf(" -%s", machine_options[i].name);
}

static void bash_value(const struct command *c, const struct cli_option *o)
{
    const char *kind = o->complete;

    if (o->kind == CLI_FLAG || o->kind == CLI_OPTIONAL)
        return;
    printf("    %s:--%s) ", c->name, o->name);
    if (!kind)
        printf("return ;;\n");
    else if (!strcmp(kind, "file") || !strcmp(kind, "dir"))
        printf("_filedir%s; return ;;\n", *kind == 'd' ? " -d" : "");
    else
        printf("COMPREPLY=($(compgen -W \"%s\" -- \"$cur\")); return ;;\n", kind);
}

static void bash_command(const struct command *c)
{
    printf("    %s) list=\"%s", c->name, c->words ? c->words : "");
    for (const struct cli_option *o = c->options; o && o->name; o++)
        printf(" --%s", o->name);
    printf("\" ;;\n");
}

void manual_bash(void)
{
    printf("# bash completion for armlet; made by armlet help bash\n"
           "_armlet() {\n"
           "    local cur prev words cword\n"
           "    _init_completion || return\n"
           "    if [[ $cword -eq 1 ]]; then\n"
           "        COMPREPLY=($(compgen -W \"");
    put_names();
    put_machine_names();
    printf("\" -- \"$cur\"))\n        return\n    fi\n    local command=${words[1]}\n    case $command:$prev "
           "in\n");
    for (unsigned i = 0; commands[i]; i++)
        for (const struct cli_option *o = commands[i]->options; o && o->name; o++)
            bash_value(commands[i], o);
    printf("    -*:-kernel|-*:-initrd|-*:-dtb|-*:-hda) _filedir; return ;;\n    esac\n    local list=\n    "
           "case $command in\n");
    for (unsigned i = 0; commands[i]; i++)
        bash_command(commands[i]);
    printf("    help) list=\"");
    put_names();
    printf(" options\" ;;\n    -*) list=\"");
    put_machine_names();
    printf("\" ;;\n    esac\n"
           "    COMPREPLY=($(compgen -W \"$list\" -- \"$cur\"))\n"
           "    [[ -z ${COMPREPLY-} && $cur != -* ]] && _filedir\n"
           "}\n"
           "complete -F _armlet armlet\n");
}

/* In single quotes, and without what _arguments takes for its own. */
static void put_zsh(const char *s)
{
    for (; *s; s++) {
        if (*s == '\'')
            fputs("'\\''", stdout);
        else if (strchr("[]:\\", *s))
            printf("\\%c", *s);
        else
            putchar(*s);
    }
}

static void zsh_option(const struct cli_option *o)
{
    const char *kind = o->complete;

    printf("            '%s--%s%s[", o->kind == CLI_LIST ? "*" : "", o->name,
           o->kind == CLI_FLAG ? "" : o->kind == CLI_OPTIONAL ? "=-" : "=");
    put_zsh(o->help);
    printf("]");
    if (o->kind != CLI_FLAG) {
        printf("%s:", o->kind == CLI_OPTIONAL ? ":" : "");
        put_zsh(o->argument);
        printf(":");
        if (kind && (!strcmp(kind, "file") || !strcmp(kind, "dir")))
            printf("_files%s", *kind == 'd' ? " -/" : "");
        else if (kind)
            printf("(%s)", kind);
    }
    printf("' \\\n");
}

static void zsh_command(const struct command *c)
{
    printf("    %s)\n        _arguments \\\n", c->name);
    for (const struct cli_option *o = c->options; o && o->name; o++)
        zsh_option(o);
    if (c->words)
        printf("            '1:what to do:(%s)' \\\n", c->words);
    printf("            '*:file:_files' ;;\n");
}

void manual_zsh(void)
{
    printf("#compdef armlet\n# zsh completion for armlet; made by armlet help zsh\n"
           "local -a commands\ncommands=(\n");
    for (unsigned i = 0; commands[i]; i++) {
        printf("    '%s:", commands[i]->name);
        put_zsh(commands[i]->summary);
        printf("'\n");
    }
    printf("    'help:what there is'\n    'version:name and version'\n)\n"
           "if (( CURRENT == 2 )); then\n"
           "    if [[ $words[2] == -* ]]; then\n        compadd --");
    put_machine_names();
    printf("\n    else\n        _describe command commands\n    fi\n    return\nfi\n"
           "shift words\n(( CURRENT-- ))\ncase $words[1] in\n");
    for (unsigned i = 0; commands[i]; i++)
        zsh_command(commands[i]);
    printf("    -*) compadd --");
    put_machine_names();
    printf("; _files ;;\nesac\n");
}
