/*
 * Test results in TAP (versions 12 to 14) and KTAP, as kernels, KUnit and kselftest print them, between any
 * other lines.
 *
 * Pure: bytes in, a tree of results out.  Threading: the caller's.
 */
#ifndef ARMLET_LAB_KTAP_H
#define ARMLET_LAB_KTAP_H

#include <stdbool.h>
#include <stddef.h>

#include <glib.h>

enum ktap_result {
    KTAP_PASSED,
    KTAP_FAILED,
    KTAP_SKIPPED,
    KTAP_TODO,    /* failed as expected: "not ok ... # todo" */
    KTAP_CRASHED, /* begun and never ended: the output stops, or another test follows */
};

struct ktap_test {
    char *name;              /* "" if it has none */
    enum ktap_result result;
    char *reason;            /* of a skip, todo, failure: behind the #, or what was wrong; may be NULL */
    GString *log;            /* the lines before its result, each with a newline; at most 64 KiB */
    GPtrArray *tests;        /* struct ktap_test *: subtests */
    struct ktap_test *parent; /* NULL: it is the root */
};

struct ktap_counts {
    unsigned passed, failed, skipped, todo, crashed; /* of tests without subtests */
    unsigned errors; /* missing plans, numbers out of order and the like, see ktap_errors() */
};

struct ktap;

/* `ended' (may be NULL) is called as each test's result is known, subtests before what they belong to. */
struct ktap *ktap_new(void (*ended)(void *opaque, const struct ktap_test *test, unsigned depth),
                      void *opaque);
void ktap_free(struct ktap *k);

/* Any bytes; carriage returns, time stamps of the kernel's log and other noise are passed over. */
void ktap_feed(struct ktap *k, const void *data, size_t len);

/* No more comes: what is open has crashed.  Call once. */
void ktap_end(struct ktap *k);

/* After ktap_end().  The root has the tests of the outermost level; all of it is owned by k. */
const struct ktap_test *ktap_root(const struct ktap *k);
struct ktap_counts ktap_counts(const struct ktap *k);
/* What was wrong with the output, a line each: char *. */
const GPtrArray *ktap_errors(const struct ktap *k);
/* Tests were run, and each passed, was skipped, or failed as expected; and the output was sound. */
bool ktap_all_passed(const struct ktap *k);

const char *ktap_result_name(enum ktap_result result);
/* "suite.subsuite.test"; g_free() it. */
char *ktap_full_name(const struct ktap_test *t);

/*
 * JUnit XML: a <testsuite> for each test with subtests that have none, and the errors of the output as one
 * more.
 */
char *ktap_junit(const struct ktap *k);

#endif
