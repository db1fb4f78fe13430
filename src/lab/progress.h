/*
 * How far a download is: one line that changes on a terminal, a line now and then elsewhere.
 */
#ifndef ARMLET_LAB_PROGRESS_H
#define ARMLET_LAB_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what; /* the caller's, alive as long as this */
    bool terminal;
    int64_t last; /* g_get_monotonic_time() of the last line written; 0 for none */
};

/* Begins "armlet: WHAT". */
void progress_begin(struct progress *p, const char *what);

/* 0 .. 100; called as often as one likes. */
void progress_percent(struct progress *p, double percent);

/* Ends the line: done, or not. */
void progress_end(struct progress *p, bool ok);

#endif
