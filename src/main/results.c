/*
 * See results.h.  A line a test without subtests, in the order of their ends; what a failed one said stands
 * below it; at the end a line for each suite and the sum.
 */
#include "main/results.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

#include "base/outfile.h"
#include "base/report.h"
#include "lab/ktap.h"

struct results {
    struct ktap *ktap;
    bool colour;
    bool written; /* --junit did not fail */
};

static const char *colour_of(enum ktap_result result)
{
    if (result == KTAP_PASSED)
        return "\033[32m";
    return result == KTAP_SKIPPED || result == KTAP_TODO ? "\033[33m" : "\033[31m";
}

/* Whatever a test wrote must not move the terminal's cursor. */
static void print_plain(const char *s)
{
    for (; *s; s++)
        putchar((unsigned char)*s < 0x20 && *s != '\t' ? '?' : *s);
}

static void print_result(const struct results *r, enum ktap_result result)
{
    printf("%s%-8s%s ", r->colour ? colour_of(result) : "", ktap_result_name(result),
           r->colour ? "\033[0m" : "");
}

static void print_log(const char *log)
{
    g_auto(GStrv) lines = g_strsplit(log, "\n", -1);

    for (char **l = lines; *l; l++) {
        if (!**l)
            continue;
        printf("           ");
        print_plain(*l);
        printf("\n");
    }
}

static void on_test(void *opaque, const struct ktap_test *t, unsigned depth)
{
    const struct results *r = opaque;
    bool bad = t->result == KTAP_FAILED || t->result == KTAP_CRASHED;
    g_autofree char *name = ktap_full_name(t);

    (void)depth;
    if (t->tests->len && t->result != KTAP_CRASHED)
        return; /* its tests have been shown */
    print_result(r, t->result);
    print_plain(*name ? name : "(no name)");
    if (t->reason) {
        printf(": ");
        print_plain(t->reason);
    }
    printf("\n");
    if (bad)
        print_log(t->log->str);
    fflush(stdout);
}

struct results *results_new(void)
{
    struct results *r = g_new0(struct results, 1);

    r->colour = isatty(STDOUT_FILENO) && !g_getenv("NO_COLOR");
    r->ktap = ktap_new(on_test, r);
    return r;
}

void results_feed(void *opaque, const void *data, size_t len)
{
    ktap_feed(((struct results *)opaque)->ktap, data, len);
}

static void print_suites(const struct results *r)
{
    const struct ktap_test *root = ktap_root(r->ktap);
    bool any = false;

    for (guint i = 0; i < root->tests->len; i++) {
        const struct ktap_test *t = g_ptr_array_index(root->tests, i);
        unsigned n[5] = { 0 };
        if (!t->tests->len)
            continue;
        for (guint j = 0; j < t->tests->len; j++)
            n[((const struct ktap_test *)g_ptr_array_index(t->tests, j))->result]++;
        if (!any)
            printf("\n%-8s %6s %6s %7s  suite\n", "", "passed", "failed", "skipped");
        any = true;
        print_result(r, t->result);
        printf("%6u %6u %7u  ", n[KTAP_PASSED], n[KTAP_FAILED] + n[KTAP_CRASHED],
               n[KTAP_SKIPPED] + n[KTAP_TODO]);
        print_plain(t->name);
        printf("\n");
    }
}

static void print_sum(const struct results *r)
{
    struct ktap_counts n = ktap_counts(r->ktap);
    const GPtrArray *errors = ktap_errors(r->ktap);

    printf("\n");
    for (guint i = 0; i < errors->len; i++) {
        printf("output: ");
        print_plain(g_ptr_array_index(errors, i));
        printf("\n");
    }
    printf("%u passed, %u failed, %u crashed, %u skipped, %u todo, %u wrong in the output\n", n.passed,
           n.failed, n.crashed, n.skipped, n.todo, n.errors);
    fflush(stdout);
}

static bool write_junit(const struct results *r, const char *path)
{
    g_autofree char *xml = ktap_junit(r->ktap);
    GError *err = NULL;

    if (outfile_write(path, xml, strlen(xml), &err))
        return true;
    warn("run: --junit %s", err->message);
    g_error_free(err);
    return false;
}

bool results_end(struct results *r, const char *junit)
{
    ktap_end(r->ktap);
    print_suites(r);
    print_sum(r);
    bool ok = ktap_all_passed(r->ktap) & (!junit || write_junit(r, junit));
    ktap_free(r->ktap);
    g_free(r);
    return ok;
}
