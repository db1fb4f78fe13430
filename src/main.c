/*
 * The program: from arguments to an exit status.
 *
 * Arguments that begin with `-', or a call by the name qemu-system-aarch64, are QEMU's command line; a word
 * is one of armlet's own commands (main/commands.h).
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/report.h"
#include "machine/machine.h"
#include "machine/version.h"
#include "main/commands.h"
#include "main/manual.h"

const struct command *const commands[] = { &command_boot, &command_run, &command_kernel, &command_rootfs,
                                         &command_doctor, NULL };

int run_qemu(int argc, char *const *argv)
{
    GError *err = NULL;
    struct config *config = config_parse(argc, argv, &err);

    if (err)
        die("%s", err->message);
    if (!config)
        return EXIT_SUCCESS;
    if (config->dumpdtb) {
        if (!machine_dump_dtb(config, &err))
            die("%s", err->message);
        config_free(config);
        return EXIT_SUCCESS;
    }
    struct machine *m = machine_new(config, &err);
    if (!m)
        die("%s", err->message);
    int status = machine_run(m);
    machine_free(m);
    config_free(config);
    return status;
}

/* --- help ----------------------------------------------------------------------------------------------- */

static void print_overview(void)
{
    printf("armlet: an AArch64 machine; boots arm64 Linux kernels\n"
           "\n"
           "usage: armlet COMMAND ...\n"
           "       armlet -OPTION ...   the command line of qemu-system-aarch64 (armlet help options)\n"
           "\n"
           "commands:\n");
    for (unsigned i = 0; commands[i]; i++)
        printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
    printf("  %-10s %s\n", "help",
           "this text; help COMMAND: a command's; help options: QEMU's; help man|bash|zsh");
    printf("  %-10s %s\n", "version", "name and version");
    printf("\nTry: armlet boot\n");
}

static const struct command *find_command(const char *name)
{
    for (unsigned i = 0; commands[i]; i++)
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    return NULL;
}

static int unknown_command(const char *word)
{
    const char *names[16] = { "help", "version" };

    for (unsigned i = 0; commands[i]; i++)
        names[i + 2] = commands[i]->name;
    const char *near = suggest(word, names);
    if (near)
        die("unknown command '%s'; did you mean '%s'? (armlet help lists them)", word, near);
    if (!access(word, R_OK))
        die("'%s' is not a command; to boot it as a kernel: armlet boot %s", word, word);
    die("unknown command '%s' (armlet help lists them)", word);
}

/* For the build, which installs them. */
static int generated(const char *topic, const char *name)
{
    if (!strcmp(topic, "man"))
        return manual_page(name) ? EXIT_SUCCESS : unknown_command(name);
    if (!strcmp(topic, "bash"))
        manual_bash();
    else
        manual_zsh();
    return EXIT_SUCCESS;
}

static int help(const char *topic, const char *name)
{
    const struct command *c = topic ? find_command(topic) : NULL;

    if (!topic)
        print_overview();
    else if (!strcmp(topic, "options"))
        options_help();
    else if (!strcmp(topic, "man") || !strcmp(topic, "bash") || !strcmp(topic, "zsh"))
        return generated(topic, name);
    else if (c)
        cli_help(c);
    else
        return unknown_command(topic);
    return EXIT_SUCCESS;
}

static bool is_help(const char *word)
{
    return !strcmp(word, "--help") || !strcmp(word, "-help") || !strcmp(word, "-h");
}

/* --- commands ------------------------------------------------------------------------------------------- */

static int run_command(int argc, char **argv)
{
    const struct command *c = find_command(argv[0]);

    if (!strcmp(argv[0], "help"))
        return help(argv[1], argv[1] ? argv[2] : NULL);
    if (!strcmp(argv[0], "version")) {
        version_print();
        return EXIT_SUCCESS;
    }
    if (!c)
        return unknown_command(argv[0]);
    for (char **p = argv + 1; *p && strcmp(*p, "--"); p++)
        if (is_help(*p))
            return help(c->name, NULL);
    return c->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    report_set_program(argc ? argv[0] : "armlet");
    report_catch_crashes();
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error of the write, for whoever writes */
    if (argc && !strncmp(report_program(), "qemu-system-", 12))
        return run_qemu(argc - 1, argv + 1);
    if (argc < 2)
        return help(NULL, NULL);
    if (argc == 2 && is_help(argv[1])) {
        print_overview();
        putchar('\n');
        options_help();
        return EXIT_SUCCESS;
    }
    return argv[1][0] == '-' ? run_qemu(argc - 1, argv + 1) : run_command(argc - 1, argv + 1);
}
