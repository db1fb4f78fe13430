/*
 * What the program says about itself, and the ways out of it.
 *
 *   BUG()   we are wrong: message, context, last trace events, abort
 *   die()   the user asked for something impossible: one line that says what to do, exit 1.  Only main, lab/ and
 *           machine/ may call it; everything below returns an error instead.
 *   warn()  one line; the run goes on
 *
 * All of it may be called from any thread.
 */
#ifndef ARMLET_BASE_REPORT_H
#define ARMLET_BASE_REPORT_H

#include <stdarg.h>
#include <stdio.h>

#include "base/compiler.h"

/* The name that messages begin with: the last part of argv0, which must live for ever.  Default: "armlet". */
void report_set_program(const char *argv0);
const char *report_program(void);

#define BUG(...) report_bug(__FILE__, __LINE__, __VA_ARGS__)
#define BUG_ON(cond)                                                                                                   \
    do {                                                                                                               \
        if (unlikely(cond))                                                                                            \
            BUG("%s", #cond);                                                                                          \
    } while (0)

NORETURN COLD PRINTF_LIKE(3, 4) void report_bug(const char *file, int line, const char *fmt, ...);
NORETURN COLD PRINTF_LIKE(1, 2) void die(const char *fmt, ...);
COLD PRINTF_LIKE(1, 2) void warn(const char *fmt, ...);

/*
 * A function to run once on the way out, whichever way that is: exit(), die(), BUG(), or a fatal signal after
 * report_catch_crashes().  The last registered runs first.  It must be async-signal-safe (tcsetattr(), write()).
 * At most 8 can be registered.
 */
void report_at_exit(void (*fn)(void));

/* Run what report_at_exit() registered, now; a second call does nothing.  Async-signal-safe. */
void report_run_exit_hooks(void);

/* A function that BUG() calls to say where the guest was (writes whole lines to `out'); NULL for none. */
void report_set_context(void (*fn)(FILE *out));

/*
 * From here on SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT, and SIGQUIT, run the exit hooks and then take their
 * default action.  A handler installed over ours (jit/fault.c) hands what is not its own to report_crash().
 */
void report_catch_crashes(void);

/* Run the exit hooks, then die of signal `sig'.  Async-signal-safe. */
NORETURN void report_crash(int sig);

#endif
