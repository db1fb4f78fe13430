/*
 * See ktap.h.  After docs.kernel.org/dev-tools/ktap.html and testanything.org's TAP 14.
 *
 * Levels are known by indentation in KTAP (two spaces) and TAP 14 (four); what counts is only whether a line
 * stands deeper than the one that its level began with.  The result line of a test with subtests comes behind
 * them, one level up; so results are put on the open level, and a line of less depth takes all that is deeper
 * as its subtests.
 *
 * Known deviations that are understood: results without a number; "# Subtest: NAME" with and without a
 * version line before it; kselftest's subtests as "# ok 1 ..." (a comment before each line); plans behind the
 * tests.  Subtests without a plan are as they should be (KTAP; KUnit's parameters), all tests without one are
 * an error, as is a plan that does not match.
 */
#include "lab/ktap.h"

#include <string.h>

enum { LINE = 4096, LOG = 64 << 10, DEPTH = 16 };

/* One open level of tests. */
struct level {
    unsigned indent;
    struct ktap_test *parent; /* a placeholder until its result line comes; the root at level 0 */
    int plan;                 /* -1: none yet */
    bool versioned;           /* began with a version line */
    unsigned next;            /* expected number */
};

struct ktap {
    void (*ended)(void *opaque, const struct ktap_test *test, unsigned depth);
    void *opaque;
    GString *line;
    struct level levels[DEPTH];
    unsigned depth;   /* index of the innermost open level */
    bool begun;       /* level 0 was opened by a version line, plan or result */
    char *pending;    /* name for the next level: "# Subtest: NAME" stood before it, less deep; or NULL */
    GString *log;     /* lines for the next result */
    struct ktap_test *root;
    GPtrArray *errors;
};

/* --- tests ---------------------------------------------------------------------------------------------- */

static void test_free(void *p)
{
    struct ktap_test *t = p;

    g_free(t->name);
    g_free(t->reason);
    g_string_free(t->log, TRUE);
    g_ptr_array_unref(t->tests);
    g_free(t);
}

static struct ktap_test *test_new(struct ktap_test *parent, const char *name)
{
    struct ktap_test *t = g_new0(struct ktap_test, 1);

    t->name = g_strdup(name);
    t->parent = parent;
    t->log = g_string_new(NULL);
    t->tests = g_ptr_array_new_with_free_func(test_free);
    if (parent)
        g_ptr_array_add(parent->tests, t);
    return t;
}

const char *ktap_result_name(enum ktap_result result)
{
    static const char *const names[] = { "passed", "failed", "skipped", "todo", "crashed" };
    return names[result];
}

char *ktap_full_name(const struct ktap_test *t)
{
    GString *s = g_string_new(t->name);

    for (const struct ktap_test *p = t->parent; p && p->parent; p = p->parent) {
        g_string_prepend_c(s, '.');
        g_string_prepend(s, p->name);
    }
    return g_string_free(s, FALSE);
}

static void error(struct ktap *k, const struct ktap_test *where, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
static void error(struct ktap *k, const struct ktap_test *where, const char *fmt, ...)
{
    g_autofree char *name = where->parent ? ktap_full_name(where) : NULL, *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_ptr_array_add(k->errors, g_strconcat(name && *name ? name : "", name && *name ? ": " : "", text, NULL));
}

/* --- levels --------------------------------------------------------------------------------------------- */

static void check_plan(struct ktap *k, const struct level *l)
{
    unsigned have = l->parent->tests->len;

    if (l->plan < 0 && l->versioned && l == k->levels)
        error(k, l->parent, "no plan");
    else if (l->plan >= 0 && (unsigned)l->plan != have)
        error(k, l->parent, "%d test%s planned, %u seen", l->plan, l->plan == 1 ? "" : "s", have);
}

/* Opens a level below the innermost, for the subtests of a test whose result is to come. */
static void push(struct ktap *k, unsigned indent, const char *name)
{
    struct ktap_test *parent = k->levels[k->depth].parent;

    if (k->depth + 1 == DEPTH) {
        error(k, parent, "subtests deeper than %d", DEPTH);
        return;
    }
    if (!*name && k->pending)
        name = k->pending;
    k->levels[++k->depth] =
        (struct level){.indent = indent, .parent = test_new(parent, name), .plan = -1, .next = 1};
    g_clear_pointer(&k->pending, g_free);
}

static bool is_fresh(const struct level *l)
{
    return !l->parent->tests->len && l->plan < 0;
}

/* A test that never ended, with the level of its subtests. */
static void crash(struct ktap *k)
{
    struct ktap_test *t = k->levels[k->depth].parent;

    check_plan(k, &k->levels[k->depth]);
    t->result = KTAP_CRASHED;
    t->reason = g_strdup("no result");
    k->depth--;
    if (k->ended)
        k->ended(k->opaque, t, k->depth);
}

/* --- lines ---------------------------------------------------------------------------------------------- */

/* "[    1.234567] ", "<6>", "[   T12] " as a kernel's console puts them before a line. */
static const char *skip_stamps(const char *s)
{
    if (s[0] == '<' && g_ascii_isdigit(s[1])) {
        const char *end = s + 1 + strspn(s + 1, "0123456789");
        s = *end == '>' ? end + 1 : s;
    }
    while (*s == '[') {
        const char *end = s + 1 + strspn(s + 1, " 0123456789.TC");
        if (*end != ']' || end == s + 1)
            break;
        s = end[1] == ' ' ? end + 2 : end + 1;
    }
    return s;
}

/* kselftest prints the output of its programs behind "# ": their results are subtests. */
static const char *skip_comment(const char *s, unsigned *indent)
{
    while (s[0] == '#' && s[1] == ' ') {
        const char *rest = s + 2 + strspn(s + 2, "# ");

        if (!g_str_has_prefix(rest, "ok ") && !g_str_has_prefix(rest, "not ok ") &&
            !g_str_has_prefix(rest, "TAP version ") && !g_str_has_prefix(rest, "KTAP version ") &&
            !g_str_has_prefix(rest, "1.."))
            return s;
        s += 2;
        *indent += 2 + (unsigned)strspn(s, " ");
        s += strspn(s, " ");
    }
    return s;
}

static void note_log(struct ktap *k, const char *line)
{
    if (k->log->len + strlen(line) < LOG)
        g_string_append_printf(k->log, "%s\n", line);
}

/*
 * Makes the level of this indentation the innermost; deeper ones that got no result have crashed unless
 * `result'.
 */
static struct level *settle(struct ktap *k, unsigned indent, bool result)
{
    while (k->depth && indent < k->levels[k->depth].indent) {
        bool parents = result && k->depth && indent >= k->levels[k->depth - 1].indent;
        if (parents)
            break; /* it is the result of the test that the level belongs to */
        crash(k);
    }
    return &k->levels[k->depth];
}

static void take_version(struct ktap *k, unsigned indent)
{
    struct level *l;

    if (!k->begun) {
        k->begun = true;
        k->levels[0].indent = indent;
        k->levels[0].versioned = true;
        return;
    }
    l = settle(k, indent, false);
    if (indent <= l->indent && k->depth && !is_fresh(l)) {
        crash(k); /* the next test's subtests begin where this one's result should stand */
        l = &k->levels[k->depth];
    }
    if (indent > l->indent) {
        push(k, indent, "");
        k->levels[k->depth].versioned = true;
    } /* else: another program's output begins on the outermost level */
}

static void take_plan(struct ktap *k, unsigned indent, int plan)
{
    struct level *l;

    if (!k->begun) {
        k->begun = true;
        k->levels[0].indent = indent;
    }
    l = settle(k, indent, false);
    if (indent > l->indent)
        push(k, indent, ""), l = &k->levels[k->depth];
    /* Several programs one after the other have a plan each. */
    if (l->plan >= 0) {
        l->plan += plan;
        l->next = 1;
    } else {
        l->plan = plan;
    }
}

static void take_subtest(struct ktap *k, unsigned indent, const char *name)
{
    struct level *l;

    k->begun = true;
    l = settle(k, indent, false);
    if (indent > l->indent) {
        push(k, indent, name);
    } else if (k->depth && is_fresh(l) && !*l->parent->name) { /* behind its version line */
        g_free(l->parent->name);
        l->parent->name = g_strdup(name);
    } else if (k->depth && *l->parent->name) { /* the test before had no result */
        crash(k);
        push(k, indent, name);
    } else { /* TAP 14 announces subtests without indentation */
        g_free(k->pending);
        k->pending = g_strdup(name);
    }
}

/* "NAME # SKIP reason", "- NAME # todo reason": the name in place, the directive and the reason cut off. */
static enum ktap_result parse_directive(char *text, bool ok, char **reason)
{
    char *hash = strstr(text, " # "), *words;
    enum ktap_result result = ok ? KTAP_PASSED : KTAP_FAILED;

    *reason = NULL;
    if (!hash && g_str_has_prefix(text, "# "))
        hash = text;
    if (!hash)
        return result;
    words = hash + strspn(hash, " #");
    if (!g_ascii_strncasecmp(words, "SKIP", 4)) {
        result = KTAP_SKIPPED;
        words += 4;
    } else if (!g_ascii_strncasecmp(words, "todo", 4)) {
        result = ok ? KTAP_PASSED : KTAP_TODO;
        words += 4;
    } else if (!g_ascii_strncasecmp(words, "XFAIL", 5)) {
        result = KTAP_TODO;
        words += 5;
    } else if (!g_ascii_strncasecmp(words, "TIMEOUT", 7)) {
        result = KTAP_FAILED;
    }
    words += strspn(words, " :");
    *reason = *words ? g_strchomp(g_strdup(words)) : NULL;
    *hash = '\0';
    return result;
}

/* The test that a result is of: the innermost open one, if the line stands below it, or a new one. */
static struct ktap_test *test_of_result(struct ktap *k, unsigned indent, const char *name)
{
    struct level *l = settle(k, indent, true);

    if (k->depth && indent < l->indent) {
        struct ktap_test *t = l->parent;

        check_plan(k, l);
        k->depth--;
        if (*t->name && *name && strcmp(t->name, name))
            error(k, t, "its result is called %s", name);
        if (!*t->name) {
            g_free(t->name);
            t->name = g_strdup(name);
        }
        return t;
    }
    if (indent > l->indent)
        push(k, indent, "");
    return test_new(k->levels[k->depth].parent, name);
}

static void take_result(struct ktap *k, unsigned indent, bool ok, const char *rest)
{
    g_autofree char *text = g_strdup(rest + strspn(rest, " ")), *reason = NULL;
    char *name = text;
    guint64 number = g_ascii_strtoull(text, &name, 10);
    enum ktap_result result;
    struct ktap_test *t;
    struct level *l;

    if (!k->begun) {
        k->begun = true;
        k->levels[0].indent = indent;
    }
    if (*name && *name != ' ') /* "3rd": no number */
        name = text, number = 0;
    result = parse_directive(name, ok, &reason);
    g_strstrip(name);
    if (g_str_has_prefix(name, "- "))
        name += 2 + strspn(name + 2, " ");
    t = test_of_result(k, indent, name);
    t->result = result;
    t->reason = g_steal_pointer(&reason);
    g_string_append_len(t->log, k->log->str, (gssize)k->log->len);
    g_string_truncate(k->log, 0);
    l = &k->levels[k->depth];
    if (number && number != l->next)
        error(k, t, "number %" G_GUINT64_FORMAT " where %u was expected", number, l->next);
    l->next = number && number < G_MAXINT ? (unsigned)number + 1 : l->next + 1;
    if (k->ended)
        k->ended(k->opaque, t, k->depth);
}

/* "1..N" and nothing behind it but a comment; a skip of all comes as "1..0 # SKIP why". */
static bool parse_plan(const char *s, int *plan)
{
    char *end;
    guint64 n;

    if (strncmp(s, "1..", 3) || !g_ascii_isdigit(s[3]))
        return false;
    n = g_ascii_strtoull(s + 3, &end, 10);
    end += strspn(end, " ");
    if ((*end && *end != '#') || n > 1000000)
        return false;
    *plan = (int)n;
    return true;
}

static void take_line(struct ktap *k, const char *line)
{
    const char *s = skip_stamps(line);
    unsigned indent = (unsigned)strspn(s, " ");
    int plan;

    s += indent;
    s = skip_comment(s, &indent);
    if (g_str_has_prefix(s, "KTAP version ") || g_str_has_prefix(s, "TAP version "))
        take_version(k, indent);
    else if (g_str_has_prefix(s, "# Subtest: "))
        take_subtest(k, indent, s + strlen("# Subtest: "));
    else if (parse_plan(s, &plan))
        take_plan(k, indent, plan);
    else if (g_str_has_prefix(s, "ok ") || !strcmp(s, "ok"))
        take_result(k, indent, true, s + 2);
    else if (g_str_has_prefix(s, "not ok ") || !strcmp(s, "not ok"))
        take_result(k, indent, false, s + 6);
    else if (g_str_has_prefix(s, "Bail out!"))
        error(k, k->root, "%s", s);
    else if (g_str_has_prefix(s, "# selftests: ") && !indent)
        g_free(k->pending), k->pending = g_strdup(s + 2); /* a program of kselftest begins */
    else if (*s)
        note_log(k, s);
}

static void end_line(struct ktap *k)
{
    g_strchomp(k->line->str);
    take_line(k, k->line->str);
    g_string_truncate(k->line, 0);
}

void ktap_feed(struct ktap *k, const void *data, size_t len)
{
    const char *p = data;

    for (size_t i = 0; i < len; i++) {
        if (p[i] == '\n')
            end_line(k);
        else if (p[i] && p[i] != '\r' && k->line->len < LINE)
            g_string_append_c(k->line, p[i]);
    }
}

void ktap_end(struct ktap *k)
{
    if (k->line->len)
        end_line(k);
    while (k->depth)
        crash(k);
    if (k->begun)
        check_plan(k, &k->levels[0]);
    else
        error(k, k->root, "no test results in the output");
}

/* --- what came out -------------------------------------------------------------------------------------- */

static void count(const struct ktap_test *t, struct ktap_counts *n)
{
    unsigned *const slots[] = { &n->passed, &n->failed, &n->skipped, &n->todo, &n->crashed };
    unsigned bad = n->failed + n->crashed;

    for (guint i = 0; i < t->tests->len; i++)
        count(g_ptr_array_index(t->tests, i), n);
    if (!t->parent)
        return;
    /* A suite counts by its tests; its own failure does when none of them explains it. */
    if (!t->tests->len ||
        ((t->result == KTAP_FAILED || t->result == KTAP_CRASHED) && bad == n->failed + n->crashed))
        ++*slots[t->result];
}

struct ktap_counts ktap_counts(const struct ktap *k)
{
    struct ktap_counts n = { .errors = k->errors->len };

    count(k->root, &n);
    return n;
}

const struct ktap_test *ktap_root(const struct ktap *k)
{
    return k->root;
}

const GPtrArray *ktap_errors(const struct ktap *k)
{
    return k->errors;
}

bool ktap_all_passed(const struct ktap *k)
{
    struct ktap_counts n = ktap_counts(k);

    return !n.failed && !n.crashed && !n.errors && n.passed + n.skipped + n.todo;
}

struct ktap *ktap_new(void (*ended)(void *opaque, const struct ktap_test *test, unsigned depth), void *opaque)
{
    struct ktap *k = g_new0(struct ktap, 1);

    k->ended = ended;
    k->opaque = opaque;
    k->line = g_string_new(NULL);
    k->log = g_string_new(NULL);
    k->errors = g_ptr_array_new_with_free_func(g_free);
    k->root = test_new(NULL, "");
    k->levels[0] = (struct level){ .parent = k->root, .plan = -1, .next = 1 };
    return k;
}

void ktap_free(struct ktap *k)
{
    g_string_free(k->line, TRUE);
    g_string_free(k->log, TRUE);
    g_free(k->pending);
    g_ptr_array_unref(k->errors);
    test_free(k->root);
    g_free(k);
}

/* --- JUnit ---------------------------------------------------------------------------------------------- */

/* XML 1.0 has no way to write most control characters, nor bytes that are no UTF-8. */
static char *escape(const char *s)
{
    g_autofree char *valid = g_utf8_make_valid(s, -1);

    for (char *p = valid; *p; p++)
        if ((unsigned char)*p < 0x20 && *p != '\n' && *p != '\t')
            *p = '?';
    return g_markup_escape_text(valid, -1);
}

static void junit_case(GString *out, const char *suite, const struct ktap_test *t)
{
    g_autofree char *class = escape(suite), *name = escape(t->name),
                    *why = escape(t->reason ? t->reason : "");
    g_autofree char *log = escape(t->log->str);

    g_string_append_printf(out, "    <testcase classname=\"%s\" name=\"%s\">\n", class, name);
    switch (t->result) {
    case KTAP_PASSED: break;
    case KTAP_FAILED:
        g_string_append_printf(out, "      <failure message=\"%s\">%s</failure>\n", why, log);
        break;
    case KTAP_CRASHED:
        g_string_append_printf(out, "      <error message=\"%s\">%s</error>\n", why, log);
        break;
    case KTAP_SKIPPED:
    case KTAP_TODO: g_string_append_printf(out, "      <skipped message=\"%s\"/>\n", why); break;
    }
    g_string_append(out, "    </testcase>\n");
}

static bool is_failure(const struct ktap_test *t)
{
    return t->result == KTAP_FAILED;
}

/*
 * The cases of a suite: its tests without subtests, and itself if it crashed or failed for nothing that they
 * show.
 */
static void junit_suite(GString *out, const struct ktap_test *suite)
{
    g_autofree char *full = suite->parent ? ktap_full_name(suite) : g_strdup("tests"), *name = escape(full);
    unsigned cases = 0, failures = 0, errors = 0, skipped = 0;
    GString *body = g_string_new(NULL);
    bool itself = suite->parent && suite->result == KTAP_CRASHED;

    for (guint i = 0; i <= suite->tests->len; i++) {
        const struct ktap_test *t = itself ? suite : NULL;
        if (i < suite->tests->len)
            t = g_ptr_array_index(suite->tests, i);
        if (!t || (t != suite && t->tests->len))
            continue;
        cases++;
        failures += is_failure(t);
        errors += t->result == KTAP_CRASHED;
        skipped += t->result == KTAP_SKIPPED || t->result == KTAP_TODO;
        junit_case(body, full, t);
    }
    if (cases)
        g_string_append_printf(
            out,
            "  <testsuite name=\"%s\" tests=\"%u\" failures=\"%u\" errors=\"%u\" skipped=\"%u\">\n"
            "%s  </testsuite>\n",
            name, cases, failures, errors, skipped, body->str);
    g_string_free(body, TRUE);
    for (guint i = 0; i < suite->tests->len; i++)
        if (((struct ktap_test *)g_ptr_array_index(suite->tests, i))->tests->len)
            junit_suite(out, g_ptr_array_index(suite->tests, i));
}

static void junit_errors(GString *out, const GPtrArray *errors)
{
    if (!errors->len)
        return;
    g_string_append_printf(
        out, "  <testsuite name=\"output\" tests=\"%u\" failures=\"0\" errors=\"%u\" skipped=\"0\">\n",
        errors->len, errors->len);
    for (guint i = 0; i < errors->len; i++) {
        g_autofree char *text = escape(g_ptr_array_index(errors, i));
        g_string_append_printf(
            out,
            "    <testcase classname=\"output\" name=\"%u\">\n      <error message=\"%s\"/>\n"
            "    </testcase>\n",
            i + 1, text);
    }
    g_string_append(out, "  </testsuite>\n");
}

char *ktap_junit(const struct ktap *k)
{
    GString *out = g_string_new("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");

    junit_suite(out, k->root);
    junit_errors(out, k->errors);
    g_string_append(out, "</testsuites>\n");
    return g_string_free(out, FALSE);
}
