/*
 * What is read out of a guest's output: trouble in the kernel's log, and test results.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <glib.h>

#include "lab/kconfig.h"
#include "lab/klog.h"
#include "lab/ktap.h"

/* --- the kernel's log ----------------------------------------------------------------------------------------- */

static void note_event(void *opaque, enum klog_event event, const char *text)
{
    g_string_append_printf(opaque, "%d:%s;", event, text);
}

/* The events of a text, "NUMBER:LINE;" each, given whole and byte by byte. */
static char *events_of(const char *text)
{
    GString *whole = g_string_new(NULL), *bytes = g_string_new(NULL);
    struct klog *a = klog_new(note_event, whole), *b = klog_new(note_event, bytes);

    klog_feed(a, text, strlen(text));
    klog_end(a);
    for (const char *p = text; *p; p++)
        klog_feed(b, p, 1);
    klog_end(b);
    assert_string_equal(whole->str, bytes->str);
    klog_free(a);
    klog_free(b);
    g_string_free(bytes, TRUE);
    return g_string_free(whole, FALSE);
}

static void assert_event(const char *line, enum klog_event event)
{
    g_autofree char *seen = events_of(line);

    if (!event)
        assert_string_equal(seen, "");
    else
        assert_int_equal(atoi(seen), event);
}

static void test_signs(void **state)
{
    assert_event("[    1.455914] Kernel panic - not syncing: VFS: Unable to mount root fs\n", KLOG_PANIC);
    assert_event("Kernel panic - not syncing: no stamp", KLOG_PANIC);
    assert_event("[    1.4][    T1] Internal error: Oops: 0000000096000044 [#1] SMP\r\n", KLOG_OOPS);
    assert_event("[ 9.1] kernel BUG at mm/slub.c:1!\n", KLOG_OOPS);
    assert_event("[   52.1] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:1]\n", KLOG_SOFT_LOCKUP);
    assert_event("[   52.1] rcu: INFO: rcu_preempt self-detected stall on CPU\n", KLOG_RCU_STALL);
    assert_event("[   52.1] rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { 1-... }\n", KLOG_RCU_STALL);
    assert_event("[  242.1] INFO: task cat:77 blocked for more than 120 seconds.\n", KLOG_HUNG_TASK);
    assert_event("[    3.4] Out of memory: Killed process 99 (tail) total-vm:1kB\n", KLOG_OOM_KILL);
    assert_event("[    3.4] Memory cgroup out of memory: Killed process 99 (tail)\n", KLOG_OOM_KILL);
    assert_event("armlet-agent: no job came\n", KLOG_AGENT);
}

static void test_what_is_no_sign(void **state)
{
    assert_event("[    0.1] rcu: INFO: rcu_preempt is fine\n", KLOG_NONE);
    assert_event("[    0.1] INFO: task x is well\n", KLOG_NONE);
    assert_event("[    0.1] log: Kernel panic - not syncing\n", KLOG_NONE);
    assert_event("[error] Internal error: none of the kernel's\n", KLOG_NONE);
    assert_event("\n\n[\n[]\n[ 1.0]\n[ 1.0\n", KLOG_NONE);
}

static void test_end_of_a_report(void **state)
{
    g_autofree char *seen = events_of("[ 1.0] Internal error: Oops: 1\n[ 1.0] Call trace:\n[ 1.1] ---[ end trace 0 ]---\n");

    assert_string_equal(seen, "2:Internal error: Oops: 1;0:;");
}

static void test_report_and_tail(void **state)
{
    GString *seen = g_string_new(NULL);
    struct klog *k = klog_new(note_event, seen);
    g_autofree char *tail = NULL;

    for (int i = 0; i < 100; i++) {
        g_autofree char *line = g_strdup_printf("line %d\n", i);
        klog_feed(k, line, strlen(line));
    }
    assert_string_equal(klog_report(k), "");
    tail = klog_tail(k);
    assert_true(g_str_has_prefix(tail, "line 80\n") && g_str_has_suffix(tail, "line 99\n"));
    klog_feed(k, "Internal error: x\nPC is here\n", 29);
    assert_true(g_str_has_prefix(klog_report(k), "line 92\n"));
    assert_true(g_str_has_suffix(klog_report(k), "line 99\nInternal error: x\nPC is here\n"));
    klog_free(k);
    g_string_free(seen, TRUE);
}

static void test_noise_in_the_log(void **state)
{
    GString *seen = g_string_new(NULL);
    struct klog *k = klog_new(note_event, seen);
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);

    for (int i = 0; i < 200000; i++) {
        uint8_t byte = (uint8_t)g_rand_int(rand);
        klog_feed(k, &byte, 1);
    }
    klog_feed(k, "\nKernel panic - not syncing: at last\n", 37);
    assert_string_equal(seen->str, "1:Kernel panic - not syncing: at last;");
    klog_free(k);
    g_string_free(seen, TRUE);
}

/* --- test results ----------------------------------------------------------------------------------------------- */

static void note_test(void *opaque, const struct ktap_test *t, unsigned depth)
{
    g_autofree char *name = ktap_full_name(t);

    g_string_append_printf(opaque, "%s=%s%s%s;", name, ktap_result_name(t->result), t->reason ? "#" : "",
                           t->reason ? t->reason : "");
}

struct outcome {
    char *tests, *errors, *junit;
    struct ktap_counts n;
    bool passed;
};

static struct outcome parse(const char *text)
{
    GString *tests = g_string_new(NULL), *errors = g_string_new(NULL);
    struct ktap *k = ktap_new(note_test, tests);
    struct outcome o;

    /* In pieces of three bytes, as a pipe may cut them. */
    for (size_t i = 0, n = strlen(text); i < n; i += 3)
        ktap_feed(k, text + i, MIN(3, n - i));
    ktap_end(k);
    for (guint i = 0; i < ktap_errors(k)->len; i++)
        g_string_append_printf(errors, "%s;", (char *)g_ptr_array_index(ktap_errors(k), i));
    o = (struct outcome){ g_string_free(tests, FALSE), g_string_free(errors, FALSE), ktap_junit(k), ktap_counts(k),
                          ktap_all_passed(k) };
    ktap_free(k);
    return o;
}

static void outcome_clear(struct outcome *o)
{
    g_free(o->tests);
    g_free(o->errors);
    g_free(o->junit);
}

/* The text's results, its complaints, and whether it counts as success. */
static void expect(const char *text, const char *tests, const char *errors, bool passed)
{
    struct outcome o = parse(text);

    assert_string_equal(o.tests, tests);
    assert_string_equal(o.errors, errors);
    assert_int_equal(o.passed, passed);
    outcome_clear(&o);
}

static void test_flat(void **state)
{
    expect("TAP version 13\n1..2\nok 1 first\nok 2 - second\n", "first=passed;second=passed;", "", true);
    expect("1..1\nok\n", "=passed;", "", true);
    expect("KTAP version 1\n1..2\nok 1 a\nnot ok 2 b\n", "a=passed;b=failed;", "", false);
    expect("ok 1 a\nok 2 b\n1..2\n", "a=passed;b=passed;", "", true);
    expect("1..1\nok 3rd test\n", "3rd test=passed;", "", true);
}

static void test_directives(void **state)
{
    expect("1..4\nok 1 a # SKIP no hardware\nnot ok 2 b # TODO later\nok 3 c # skip: why\nok 4 # SKIP\n",
           "a=skipped#no hardware;b=todo#later;c=skipped#why;=skipped;", "", true);
    expect("1..2\nok 1 a # TODO works\nnot ok 2 b # XFAIL known\n", "a=passed#works;b=todo#known;", "", true);
    expect("1..1\nnot ok 1 x # TIMEOUT 45 seconds\n", "x=failed#TIMEOUT 45 seconds;", "", false);
    expect("1..0 # SKIP nothing here\n", "", "", false);
}

static const char kunit[] =
    "[    0.501] KTAP version 1\n"
    "[    0.502] 1..2\n"
    "[    0.503]     KTAP version 1\n"
    "[    0.504]     # Subtest: alpha\n"
    "[    0.505]     1..2\n"
    "[    0.506]     ok 1 one\n"
    "[    0.507]     # two: EXPECTATION FAILED at lib/x.c:7\n"
    "[    0.508]     not ok 2 two\n"
    "[    0.509] # alpha: pass:1 fail:1 skip:0 total:2\n"
    "[    0.510] not ok 1 alpha\n"
    "[    0.511]     KTAP version 1\n"
    "[    0.512]     # Subtest: beta\n"
    "[    0.513]     1..1\n"
    "[    0.514]         KTAP version 1\n"
    "[    0.515]         # Subtest: params\n"
    "[    0.516]         ok 1 x=1\n"
    "[    0.517]         ok 2 x=2\n"
    "[    0.518]         1..2\n"
    "[    0.519]     ok 1 params\n"
    "[    0.520] ok 2 beta\n";

static void test_nested(void **state)
{
    struct outcome o = parse(kunit);

    assert_string_equal(o.tests, "alpha.one=passed;alpha.two=failed;alpha=failed;"
                                 "beta.params.x=1=passed;beta.params.x=2=passed;beta.params=passed;beta=passed;");
    assert_string_equal(o.errors, "");
    assert_int_equal(o.n.passed, 3);
    assert_int_equal(o.n.failed, 1);
    assert_non_null(strstr(o.junit, "<testcase classname=\"alpha\" name=\"two\">\n      <failure message=\"\">"));
    assert_non_null(strstr(o.junit, "EXPECTATION FAILED at lib/x.c:7"));
    assert_non_null(strstr(o.junit, "<testsuite name=\"beta.params\" tests=\"2\" failures=\"0\" errors=\"0\" skipped=\"0\">"));
    outcome_clear(&o);
}

static void test_nested_in_other_spellings(void **state)
{
    /* KUnit of 6.1, TAP 14, and kselftest. */
    expect("TAP version 14\n1..1\n    # Subtest: s\n    1..1\n    ok 1 - t\nok 1 - s\n", "s.t=passed;s=passed;", "", true);
    expect("TAP version 14\n# Subtest: s\n    ok 1 - t\n    1..1\nok 1 - s\n1..1\n", "s.t=passed;s=passed;", "", true);
    expect("TAP version 13\n1..1\n# selftests: a: b\n# TAP version 13\n# 1..2\n# ok 1 x\n# ok 2 y # SKIP\n"
           "# # Totals: pass:1\nok 1 selftests: a: b\n",
           "selftests: a: b.x=passed;selftests: a: b.y=skipped;selftests: a: b=passed;", "", true);
}

static void test_plans(void **state)
{
    expect("TAP version 13\nok 1 a\n", "a=passed;", "no plan;", false);
    /* KUnit's parameters, whose number it does not know before. */
    expect("KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    ok 1 x=1\n    ok 2 x=2\nok 1 s\n",
           "s.x=1=passed;s.x=2=passed;s=passed;", "", true);
    expect("1..3\nok 1 a\nok 2 b\n", "a=passed;b=passed;", "3 tests planned, 2 seen;", false);
    expect("1..1\nok 1 a\nok 2 b\n", "a=passed;b=passed;", "1 test planned, 2 seen;", false);
    expect("1..2\nok 1 a\nok 3 b\n", "a=passed;b=passed;", "b: number 3 where 2 was expected;", false);
    expect("TAP version 13\n1..1\nok 1 a\nTAP version 13\n1..1\nok 1 b\n", "a=passed;b=passed;", "", true);
    expect("Linux booted\n", "", "no test results in the output;", false);
    expect("", "", "no test results in the output;", false);
    expect("1..2\nok 1 a\nBail out! no disk\n", "a=passed;", "Bail out! no disk;2 tests planned, 1 seen;", false);
}

static void test_truncated(void **state)
{
    expect("KTAP version 1\n1..2\n    KTAP version 1\n    # Subtest: s\n    1..2\n    ok 1 a\n    not o",
           "s.a=passed;s=crashed#no result;", "s: 2 tests planned, 1 seen;2 tests planned, 1 seen;", false);
    /* The second suite begins where the result of the first should stand. */
    expect("KTAP version 1\n1..2\n    KTAP version 1\n    # Subtest: s\n    1..1\n    ok 1 a\n"
           "    KTAP version 1\n    # Subtest: u\n    1..1\n    ok 1 b\nok 2 u\n",
           "s.a=passed;s=crashed#no result;u.b=passed;u=passed;", "u: number 2 where 1 was expected;", false);
    expect("1..1\n    # Subtest: s\n    ok 1 a\n    1..1\nok 1 other\n", "s.a=passed;s=passed;",
           "s: its result is called other;", false);
}

static void test_too_deep(void **state)
{
    GString *text = g_string_new("KTAP version 1\n");

    for (int i = 1; i < 100; i++)
        g_string_append_printf(text, "%*sKTAP version 1\n", 2 * i, "");
    struct outcome o = parse(text->str);
    assert_false(o.passed);
    assert_non_null(strstr(o.errors, "subtests deeper than"));
    outcome_clear(&o);
    g_string_free(text, TRUE);
}

static void test_noise(void **state)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(3);
    static const char *const bits[] = { "ok ", "not ok ", "1..", "KTAP version 1", "# Subtest: x", "\n", "    ", "# ", "7", "\n",
                                        "\xff\x80", "-", "SKIP", "\x01", "\n  " };

    for (int round = 0; round < 300; round++) {
        struct ktap *k = ktap_new(NULL, NULL);
        for (int i = 0; i < 400; i++) {
            const char *bit = bits[g_rand_int_range(rand, 0, G_N_ELEMENTS(bits))];
            ktap_feed(k, bit, strlen(bit));
        }
        ktap_end(k);
        g_autofree char *xml = ktap_junit(k);
        assert_true(g_utf8_validate(xml, -1, NULL));
        GMarkupParser nothing = { 0 };
        GMarkupParseContext *c = g_markup_parse_context_new(&nothing, 0, NULL, NULL);
        assert_true(g_markup_parse_context_parse(c, xml, -1, NULL) && g_markup_parse_context_end_parse(c, NULL));
        g_markup_parse_context_free(c);
        ktap_free(k);
    }
    expect("\xff\xfe\x01 binary \x80\n1..1\r\nok 1 a\r\n", "a=passed;", "", true);
}

static void test_junit_escapes(void **state)
{
    struct outcome o = parse("1..1\n<b> & \"q\" \x02\nnot ok 1 a<b>&\"c\"\n");

    assert_non_null(strstr(o.junit, "name=\"a&lt;b&gt;&amp;&quot;c&quot;\""));
    assert_non_null(strstr(o.junit, "&lt;b&gt; &amp; &quot;q&quot; ?"));
    outcome_clear(&o);
}

/* --- configurations --------------------------------------------------------------------------------------------------- */

static void test_missing_options(void **state)
{
    static const char config[] = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_AB=y\n";
    static const char *const fine[] = { "A", "AB", NULL }, *const some[] = { "A", "B", "C", NULL };
    g_autofree char *missing = kconfig_missing(config, some);

    assert_null(kconfig_missing(config, fine));
    assert_string_equal(missing, "CONFIG_B=y CONFIG_C=y");
    assert_true(kconfig_has(config, "C", true));
    assert_false(kconfig_has(config, "C", false));
}

static void test_damaged_config_in_an_image(void **state)
{
    static const char damaged[] = "xxIKCFG_ST\x1f\x8b\x08 no gzip IKCFG_EDxx";
    g_autoptr(GBytes) image = g_bytes_new_static(damaged, sizeof(damaged));
    g_autoptr(GBytes) open_end = g_bytes_new_static("xxIKCFG_ST", 10);

    assert_null(kconfig_find("/nonexistent/Image", image));
    assert_null(kconfig_find("/nonexistent/Image", open_end));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signs),
        cmocka_unit_test(test_what_is_no_sign),
        cmocka_unit_test(test_end_of_a_report),
        cmocka_unit_test(test_report_and_tail),
        cmocka_unit_test(test_noise_in_the_log),
        cmocka_unit_test(test_flat),
        cmocka_unit_test(test_directives),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_nested_in_other_spellings),
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_too_deep),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_junit_escapes),
        cmocka_unit_test(test_missing_options),
        cmocka_unit_test(test_damaged_config_in_an_image),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
