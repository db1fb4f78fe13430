/*
 * Trace events, chosen with -d.  Off, an event costs a test of one global word.
 *
 *   trace(MMU, "walk va=%#" PRIx64 " level %d", va, level);
 *   if (trace_on(IN_ASM)) ...                                  (when preparing the event is work)
 *
 * An event is a line; the newline is added.  Any thread may trace; lines do not mix.
 */
#ifndef ARMLET_BASE_TRACE_H
#define ARMLET_BASE_TRACE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/compiler.h"

enum trace_category {
#define TRACE_CATEGORY(id, name, help) TRACE_##id,
#include "base/trace.def"
#undef TRACE_CATEGORY
    TRACE_CATEGORIES
};

/* One bit a category.  Written by trace_enable(), read relaxed everywhere. */
extern uint32_t trace_enabled;

/* How many lines a second one call site of UNIMP or GUEST_ERRORS may write: the guest decides how often it errs. */
#define TRACE_RATE_LIMIT 10

/* One call site's budget; zeroed is ready. */
struct trace_site {
    uint32_t second; /* of CLOCK_MONOTONIC, when `count' began */
    uint32_t count;
};

#define trace_on(id) unlikely(__atomic_load_n(&trace_enabled, __ATOMIC_RELAXED) & (UINT32_C(1) << TRACE_##id))

#define trace(id, ...)                                                                                                 \
    do {                                                                                                               \
        if (trace_on(id)) {                                                                                            \
            static struct trace_site trace_site_;                                                                      \
            trace_write(TRACE_##id, &trace_site_, __VA_ARGS__);                                                        \
        }                                                                                                              \
    } while (0)

COLD PRINTF_LIKE(3, 4) void trace_write(enum trace_category cat, struct trace_site *site, const char *fmt, ...);

/*
 * Show the categories in `list' (-d's argument: names, "all" or "none", separated by commas) in place of those chosen
 * before.  Returns NULL, or the first unknown name, to be freed with g_free(), and then nothing changes.
 */
MUST_USE char *trace_enable(const char *list);

/*
 * Shows or hides the categories whose name matches the pattern (* and ? as the shell has them; "all"), and leaves the
 * others.  Returns how many match.
 */
unsigned trace_set(const char *pattern, bool on);

/* "NAME : state 0|1" for each category, with its help; to be freed with g_free(). */
char *trace_states(void);

/*
 * Names for guest addresses in events: fn writes one into buf, or nothing.  It is called on any thread, by one at a time,
 * and must not trace.  NULL: no more names.
 */
void trace_set_namer(void (*fn)(void *opaque, uint64_t va, char *buf, size_t size), void *opaque);
/* " <name+0x10>", or "" where none is known; the text is the thread's own until its second next call. */
const char *trace_name(uint64_t va);

/*
 * Of blocks of guest code (in_asm to out_asm, exec, cpu) show only those whose address is in one of RANGE[,...]:
 * FIRST-LAST, FIRST+SIZE.  NULL, or what is wrong with it.  Before the machine starts.
 */
MUST_USE const char *trace_filter(const char *ranges);
bool trace_in_filter(uint64_t va);

/* The categories shown now, as trace_enable() takes them ("none" when there are none); to be freed with g_free(). */
char *trace_list(void);

/* The text of -d help. */
void trace_help(FILE *out);

/* Write to `path' from now on ("%d" in it becomes the process id), or to stderr for NULL.  Returns 0 or -errno. */
MUST_USE int trace_to_file(const char *path);

/* The last events, oldest first, shown or not.  For BUG(). */
void trace_dump_last(FILE *out);

/* Make sure that what was traced is in the file. */
void trace_flush(void);

#endif
