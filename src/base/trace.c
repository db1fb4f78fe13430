/*
 * Trace events: selection, rate limit, output, and the ring of last events that BUG() prints.
 *
 * UNIMP and GUEST_ERRORS always reach the ring, shown or not: they are what one wants to know when we crash.
 *
 * Threading: one mutex around the ring and the output.  trace_site budgets are updated relaxed; two threads at one site
 * can let a few lines more through, which is harmless.
 */
#include "base/trace.h"

#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <glib.h>

#define RING_LINES 16
#define RING_WIDTH 200

#define RATE_NOTE "(more of the same in this second is not shown)"

#define ALWAYS_RECORDED ((UINT32_C(1) << TRACE_UNIMP) | (UINT32_C(1) << TRACE_GUEST_ERRORS))

static const struct {
    const char *name, *help;
} categories[] = {
#define TRACE_CATEGORY(id, name, help) {name, help},
#include "base/trace.def"
#undef TRACE_CATEGORY
};

_Static_assert(TRACE_CATEGORIES <= 32, "trace_enabled is one 32-bit word");

uint32_t trace_enabled = ALWAYS_RECORDED;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t shown; /* what -d chose; trace_enabled is this and ALWAYS_RECORDED */
static FILE *file;     /* NULL: stderr */
static char ring[RING_LINES][RING_WIDTH];
static unsigned ring_next;

/* How a call site stands with its budget: write the event, say instead that there are too many, or be silent. */
enum verdict { PASS, LAST, DROP };

static enum verdict check_rate(struct trace_site *site)
{
    struct timespec now;
    uint32_t second, count;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    second = (uint32_t)now.tv_sec;
    if (__atomic_load_n(&site->second, __ATOMIC_RELAXED) != second) {
        __atomic_store_n(&site->second, second, __ATOMIC_RELAXED);
        __atomic_store_n(&site->count, 0, __ATOMIC_RELAXED);
    }
    count = __atomic_fetch_add(&site->count, 1, __ATOMIC_RELAXED);
    return count < TRACE_RATE_LIMIT ? PASS : count == TRACE_RATE_LIMIT ? LAST : DROP;
}

static void write_locked(enum trace_category cat, const char *text, size_t len)
{
    FILE *out = file ? file : stderr;

    g_strlcpy(ring[ring_next++ % RING_LINES], text, RING_WIDTH);
    if (!(shown & (UINT32_C(1) << cat)))
        return;
    fwrite(text, 1, len, out);
    if (!len || text[len - 1] != '\n')
        fputc('\n', out);
    if (!file)
        fflush(out);
}

void trace_write(enum trace_category cat, struct trace_site *site, const char *fmt, ...)
{
    bool limited = ALWAYS_RECORDED >> cat & 1;
    enum verdict verdict = limited ? check_rate(site) : PASS;
    char buf[512], *text = buf, *big = NULL;
    va_list ap;
    int len;

    if (verdict == DROP)
        return;
    va_start(ap, fmt);
    len = vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    if ((size_t)len >= sizeof buf) {
        va_start(ap, fmt);
        text = big = g_strdup_vprintf(fmt, ap);
        va_end(ap);
    }
    pthread_mutex_lock(&lock);
    if (verdict == LAST)
        write_locked(cat, RATE_NOTE, sizeof RATE_NOTE - 1);
    else
        write_locked(cat, text, (size_t)len);
    pthread_mutex_unlock(&lock);
    g_free(big);
}

/* The bits of one name of -d's list; 0 and false if there is none such. */
static bool parse_name(const char *name, uint32_t *bits)
{
    if (!strcmp(name, "all")) {
        /* nochain changes how the machine runs: it must be asked for by name. */
        *bits |= (UINT32_C(1) << TRACE_CATEGORIES) - 1 - (UINT32_C(1) << TRACE_NOCHAIN);
        return true;
    }
    if (!strcmp(name, "none") || !*name)
        return true;
    for (unsigned i = 0; i < TRACE_CATEGORIES; i++)
        if (!strcmp(name, categories[i].name)) {
            *bits |= UINT32_C(1) << i;
            return true;
        }
    return false;
}

char *trace_enable(const char *list)
{
    char **names = g_strsplit(list, ",", -1);
    char *unknown = NULL;
    uint32_t bits = 0;

    for (char **n = names; *n && !unknown; n++)
        if (!parse_name(*n, &bits))
            unknown = g_strdup(*n);
    g_strfreev(names);
    if (unknown)
        return unknown;
    pthread_mutex_lock(&lock);
    shown = bits;
    __atomic_store_n(&trace_enabled, bits | ALWAYS_RECORDED, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static struct {
    pthread_mutex_t lock;
    void (*fn)(void *opaque, uint64_t va, char *buf, size_t size);
    void *opaque;
} namer = { .lock = PTHREAD_MUTEX_INITIALIZER };

void trace_set_namer(void (*fn)(void *opaque, uint64_t va, char *buf, size_t size), void *opaque)
{
    pthread_mutex_lock(&namer.lock);
    namer.fn = fn;
    namer.opaque = opaque;
    pthread_mutex_unlock(&namer.lock);
}

const char *trace_name(uint64_t va)
{
    static __thread char texts[2][128];
    static __thread unsigned next;
    char *text = texts[next++ % 2], name[sizeof *texts - 4] = "";

    pthread_mutex_lock(&namer.lock);
    if (namer.fn)
        namer.fn(namer.opaque, va, name, sizeof name);
    pthread_mutex_unlock(&namer.lock);
    snprintf(text, sizeof *texts, *name ? " <%s>" : "%s", name);
    return text;
}

unsigned trace_set(const char *pattern, bool on)
{
    unsigned n = 0;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < TRACE_CATEGORIES; i++) {
        uint32_t bit = UINT32_C(1) << i;
        if (!strcmp(pattern, "all") ? i == TRACE_NOCHAIN : fnmatch(pattern, categories[i].name, 0))
            continue;
        shown = on ? shown | bit : shown & ~bit;
        n++;
    }
    __atomic_store_n(&trace_enabled, shown | ALWAYS_RECORDED, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&lock);
    return n;
}

char *trace_states(void)
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < TRACE_CATEGORIES; i++)
        g_string_append_printf(s, "%s : state %u  (%s)\n", categories[i].name, shown >> i & 1, categories[i].help);
    return g_string_free(s, FALSE);
}

/* --- addresses of blocks --- */

enum { RANGES = 16 };
static struct range {
    uint64_t first, last;
} ranges[RANGES]; /* set once, before the machine starts */
static unsigned n_ranges;

static bool parse_range(const char *text, struct range *r)
{
    char *end;

    errno = 0;
    r->first = strtoull(text, &end, 0);
    if (end == text || errno || (*end != '-' && *end != '+'))
        return false;
    bool size = *end++ == '+';
    text = end;
    r->last = strtoull(text, &end, 0);
    if (end == text || errno || *end)
        return false;
    if (size)
        r->last = r->last ? r->first + r->last - 1 : r->first;
    return r->last >= r->first;
}

const char *trace_filter(const char *text)
{
    g_auto(GStrv) part = g_strsplit(text, ",", -1);

    if (g_strv_length(part) > RANGES)
        return "more than 16 ranges";
    for (n_ranges = 0; part[n_ranges]; n_ranges++)
        if (!parse_range(part[n_ranges], &ranges[n_ranges]))
            return "a range is FIRST-LAST or FIRST+SIZE";
    return n_ranges ? NULL : "no range";
}

bool trace_in_filter(uint64_t va)
{
    for (unsigned i = 0; i < n_ranges; i++)
        if (va >= ranges[i].first && va <= ranges[i].last)
            return true;
    return !n_ranges;
}

char *trace_list(void)
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < TRACE_CATEGORIES; i++)
        if (shown >> i & 1)
            g_string_append_printf(s, "%s%s", s->len ? "," : "", categories[i].name);
    return g_string_free(s->len ? s : g_string_append(s, "none"), FALSE);
}

void trace_help(FILE *out)
{
    fprintf(out, "Log items (comma separated):\n");
    for (unsigned i = 0; i < TRACE_CATEGORIES; i++)
        fprintf(out, "%-15s %s\n", categories[i].name, categories[i].help);
    fprintf(out, "%-15s %s\n", "all", "all of these but nochain");
    fprintf(out, "%-15s %s\n", "none", "nothing");
}

/* `path' with its first "%d" replaced by our process id. */
static char *expand_pid(const char *path)
{
    const char *pid = strstr(path, "%d");

    return pid ? g_strdup_printf("%.*s%ld%s", (int)(pid - path), path, (long)getpid(), pid + 2) : g_strdup(path);
}

int trace_to_file(const char *path)
{
    FILE *f = NULL;

    if (path) {
        char *name = expand_pid(path);
        int err;

        f = fopen(name, "we");
        err = errno;
        g_free(name);
        if (!f)
            return -err;
    }
    pthread_mutex_lock(&lock);
    if (file)
        fclose(file);
    file = f;
    pthread_mutex_unlock(&lock);
    return 0;
}

void trace_dump_last(FILE *out)
{
    /* BUG() may be called with the lock held, by us or by a thread that no longer runs. */
    bool locked = !pthread_mutex_trylock(&lock);

    for (unsigned i = 0; i < RING_LINES; i++) {
        const char *line = ring[(ring_next + i) % RING_LINES];

        if (*line)
            fprintf(out, "  trace: %s%s", line, line[strlen(line) - 1] == '\n' ? "" : "\n");
    }
    if (locked)
        pthread_mutex_unlock(&lock);
}

void trace_flush(void)
{
    fflush(file ? file : stderr);
}
