/*
 * armlet's own commands: `armlet WORD ...'.  See main.c for when arguments are QEMU's command line instead.
 *
 * A command's options are a table, which the parser, --help, the manual page and the shells' completion read.
 */
#ifndef ARMLET_MAIN_COMMANDS_H
#define ARMLET_MAIN_COMMANDS_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_OPTIONAL, CLI_LIST };

struct cli_option {
    const char *name;     /* without --; NULL ends a table */
    enum cli_kind kind;   /* whose slot is a bool, a const char *, the same ("" without =VALUE), a GPtrArray * of char * made
                             when needed */
    size_t slot;          /* offset in the command's struct */
    const char *argument; /* how it is called; NULL for a flag */
    const char *help;     /* a line */
    const char *complete; /* "file", "dir", or words with spaces between; NULL: nothing */
};
#define CLI_FLAG_OPTION(type, field, name, help) { name, CLI_FLAG, offsetof(type, field), NULL, help, NULL }

struct command {
    const char *name;
    const char *summary;  /* one line */
    const char *synopsis; /* lines, behind "armlet" */
    const char *text;     /* what it does: paragraphs, before the options */
    const struct cli_option *options; /* NULL: none */
    const char *notes;    /* paragraphs behind the options; NULL: none */
    const char *examples; /* lines: a command, and behind # what it does; NULL: none */
    const char *words;    /* subcommands, with spaces between; NULL: none */
    int failure;          /* the status of wrong arguments; 0 means EXIT_FAILURE */
    /* argv[0] is the first argument behind the command's name; argv ends in NULL.  Returns the exit status. */
    int (*run)(int argc, char **argv);
};

extern const struct command command_boot, command_doctor, command_kernel, command_rootfs, command_run;
extern const struct command *const commands[]; /* ends in NULL */

/* Runs QEMU's command line (without the program's name); returns the exit status. */
int run_qemu(int argc, char *const *argv);

/*
 * `armlet run' with these words (which are taken apart), for another command: what it prints goes to
 * `output'.  Returns its status.  Once a process.
 */
int run_for(char **argv, void (*output)(void *opaque, const void *data, size_t len), void *opaque);

/*
 * Puts the options among argv into `into' and moves the other words to the front, where NULL ends them.  Stops at "--",
 * behind which *rest begins (NULL: there was none).  A mistake is a line on stderr and the end of the program.
 */
void cli_parse(const struct command *c, char **argv, void *into, char ***rest);

/* One line on stderr, and the end with the command's status for that. */
void cli_fail(const struct command *c, const char *fmt, ...) G_GNUC_PRINTF(2, 3) G_GNUC_NORETURN;

/* The text of --help. */
void cli_help(const struct command *c);

#endif
