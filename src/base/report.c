/*
 * Messages and ways out.  See report.h.
 *
 * Threading: any thread.  The exit hooks run once, in whichever thread leaves first; the list is append-only, so that
 * a signal handler can walk it without a lock.
 */
#include "base/report.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/trace.h"

#define MAX_HOOKS 8

static const char *program = "armlet";
static void (*context_fn)(FILE *);
static void (*hooks[MAX_HOOKS])(void);
static unsigned nhooks;
static int hooks_ran;

static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT};

void report_set_program(const char *argv0)
{
    const char *slash = strrchr(argv0, '/');
    const char *name = slash ? slash + 1 : argv0;

    if (*name)
        program = name;
}

const char *report_program(void)
{
    return program;
}

/* One write per line: lines of several threads, or of the guest's console, do not mix. */
static void write_line(const char *prefix, const char *fmt, va_list ap)
{
    char line[4096];
    size_t size = sizeof line - 1; /* room for the newline */
    size_t len = (size_t)snprintf(line, size, "%s: %s", program, prefix);

    if (len < size)
        len += (size_t)vsnprintf(line + len, size - len, fmt, ap);
    if (len >= size)
        len = size - 1;
    line[len++] = '\n';
    fwrite(line, 1, len, stderr);
    fflush(stderr);
}

void warn(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    write_line("", fmt, ap);
    va_end(ap);
}

void die(const char *fmt, ...)
{
    va_list ap;

    /* First the terminal, so that the line is not printed in raw mode. */
    report_run_exit_hooks();
    va_start(ap, fmt);
    write_line("", fmt, ap);
    va_end(ap);
    exit(EXIT_FAILURE);
}

void report_bug(const char *file, int line, const char *fmt, ...)
{
    char where[256];
    va_list ap;

    report_run_exit_hooks();
    snprintf(where, sizeof where, "BUG at %s:%d: ", file, line);
    va_start(ap, fmt);
    write_line(where, fmt, ap);
    va_end(ap);
    if (context_fn)
        context_fn(stderr);
    trace_dump_last(stderr);
    trace_flush();
    abort();
}

void report_set_context(void (*fn)(FILE *out))
{
    context_fn = fn;
}

void report_at_exit(void (*fn)(void))
{
    if (nhooks == MAX_HOOKS)
        BUG("more than %d exit hooks", MAX_HOOKS);
    if (!nhooks)
        atexit(report_run_exit_hooks);
    hooks[nhooks] = fn;
    __atomic_store_n(&nhooks, nhooks + 1, __ATOMIC_RELEASE);
}

void report_run_exit_hooks(void)
{
    if (__atomic_exchange_n(&hooks_ran, 1, __ATOMIC_ACQ_REL))
        return;
    for (unsigned i = __atomic_load_n(&nhooks, __ATOMIC_ACQUIRE); i-- > 0;)
        hooks[i]();
}

/* Async-signal-safe.  abort() has been explained by who called it, and SIGQUIT is the wish of the user. */
static void say_crash(int sig)
{
    const char *part[] = {report_program(), ": internal error (", sigabbrev_np(sig), "); please report what led to it\n"};

    for (unsigned i = 0; sig != SIGABRT && sig != SIGQUIT && i < ARRAY_LEN(part); i++)
        if (part[i] && write(STDERR_FILENO, part[i], strlen(part[i])) < 0)
            return;
}

void report_crash(int sig)
{
    sigset_t set;

    report_run_exit_hooks();
    say_crash(sig);
    signal(sig, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, sig);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(sig);
    _exit(128 + sig); /* not reached: each of crash_signals kills by default */
}

void report_catch_crashes(void)
{
    static char stack[64 * 1024]; /* a crash may be an overflow of the main thread's own stack */
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction sa = {.sa_handler = report_crash, .sa_flags = SA_ONSTACK};

    sigaltstack(&alt, NULL);
    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < ARRAY_LEN(crash_signals); i++)
        sigaction(crash_signals[i], &sa, NULL);
}
