/*
 * armlet's own commands: `armlet WORD ...'.  See main.c for when arguments are QEMU's command line instead.
 */
#ifndef ARMLET_MAIN_COMMANDS_H
#define ARMLET_MAIN_COMMANDS_H

struct command {
    const char *name;
    const char *summary; /* one line */
    const char *usage;   /* the whole text of --help */
    /* argv[0] is the first argument behind the command's name; argv ends in NULL.  Returns the exit status. */
    int (*run)(int argc, char **argv);
};

extern const struct command command_boot, command_kernel;

/* Runs QEMU's command line (without the program's name); returns the exit status. */
int run_qemu(int argc, char *const *argv);

#endif
