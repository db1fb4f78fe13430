/*
 * Progress on stderr.  See progress.h.  Threading: the caller's.
 */
#include "lab/progress.h"

#include <stdio.h>
#include <unistd.h>

#include <glib.h>

#include "base/report.h"

#define TERMINAL_PERIOD (G_USEC_PER_SEC / 10)
#define LOG_PERIOD      (5 * G_USEC_PER_SEC)

void progress_begin(struct progress *p, const char *what)
{
    *p = (struct progress){.what = what, .terminal = isatty(STDERR_FILENO), .last = g_get_monotonic_time()};
    fprintf(stderr, p->terminal ? "%s: %s ..." : "%s: %s\n", report_program(), what);
}

void progress_percent(struct progress *p, double percent)
{
    int64_t now = g_get_monotonic_time();

    if (now - p->last < (p->terminal ? TERMINAL_PERIOD : LOG_PERIOD))
        return;
    p->last = now;
    fprintf(stderr, p->terminal ? "\r%s: %s ... %3.0f %%" : "%s: %s: %.0f %%\n", report_program(), p->what,
            percent);
}

void progress_end(struct progress *p, bool ok)
{
    /* ESC [K: the rest of a longer line before. */
    if (p->terminal)
        fprintf(stderr, "\r%s: %s ... %s\033[K\n", report_program(), p->what, ok ? "done" : "failed");
}
