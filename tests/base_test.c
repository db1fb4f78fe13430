/*
 * base/: bit fields, messages and ways out, trace events.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <glib.h>

#include "base/bits.h"
#include "base/report.h"
#include "base/trace.h"

static void test_extract_deposit(void **state)
{
    assert_int_equal(bits_extract(0x123456789abcdef0, 4, 8), 0xef);
    assert_int_equal(bits_extract(~UINT64_C(0), 0, 64), ~UINT64_C(0));
    assert_int_equal(bits_extract_s(0x80, 4, 4), -8);
    assert_int_equal(bits_extract_s(0x70, 4, 4), 7);
    assert_int_equal(bits_deposit(0xffff, 4, 8, 0x12), 0xf12f);
    assert_int_equal(bits_deposit(0, 60, 4, 0xff), UINT64_C(0xf) << 60);
    assert_int_equal(bits_sext(0x1fffff, 21), -1);
    assert_int_equal(bits_sext(INT64_MIN, 64), INT64_MIN);
    assert_int_equal(bits_mask(64), ~UINT64_C(0));
    assert_int_equal(bits_mask(0), 0);
}

static void test_rotate_replicate(void **state)
{
    assert_int_equal(bits_ror(1, 1, 64), UINT64_C(1) << 63);
    assert_int_equal(bits_ror(1, 1, 32), UINT64_C(1) << 31);
    assert_int_equal(bits_ror(0xff00000003, 1, 32), UINT64_C(0x80000001));
    assert_int_equal(bits_ror(0x5, 64, 64), 5);
    assert_int_equal(bits_ror(0x5, 0, 3), 5);
    assert_int_equal(bits_replicate(0x2, 2), UINT64_C(0xaaaaaaaaaaaaaaaa));
    assert_int_equal(bits_replicate(0x1234, 16), UINT64_C(0x1234123412341234));
    assert_int_equal(bits_reverse(1, 64), UINT64_C(1) << 63);
    assert_int_equal(bits_reverse(0x3, 32), UINT64_C(0xc0000000));
}

static void test_count_align(void **state)
{
    assert_int_equal(bits_clz(0, 32), 32);
    assert_int_equal(bits_clz(1, 32), 31);
    assert_int_equal(bits_clz(UINT64_C(1) << 40, 64), 23);
    assert_int_equal(bits_ctz(0), 64);
    assert_int_equal(bits_ctz(0x10), 4);
    assert_true(bits_is_pow2(64));
    assert_false(bits_is_pow2(0));
    assert_false(bits_is_pow2(96));
    assert_int_equal(bits_align_up(4097, 4096), 8192);
    assert_int_equal(bits_align_up(4096, 4096), 4096);
    assert_int_equal(bits_align_down(8191, 4096), 4096);
    assert_false(bits_is_aligned(6, 4));
}

/* What `fn' wrote to stderr in a child process, and how that ended (waitpid's status). */
static char *in_child(void (*fn)(void), int *status)
{
    GString *out = g_string_new(NULL);
    char buf[512];
    int fds[2];
    ssize_t n;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        /* cmocka's handlers of crash signals would carry on with the next test, here in the child. */
        for (int sig = 1; sig < 32; sig++)
            signal(sig, SIG_DFL);
        fn();
        _exit(77);
    }
    close(fds[1]);
    while ((n = read(fds[0], buf, sizeof buf)) > 0)
        g_string_append_len(out, buf, n);
    close(fds[0]);
    assert_int_equal(waitpid(pid, status, 0), pid);
    return g_string_free(out, FALSE);
}

static void hook_first(void)
{
    assert_int_equal(write(STDERR_FILENO, "[hook 1]", 8), 8);
}

static void hook_second(void)
{
    assert_int_equal(write(STDERR_FILENO, "[hook 2]", 8), 8);
}

static void do_die(void)
{
    report_set_program("/usr/bin/qemu-system-aarch64");
    report_at_exit(hook_first);
    report_at_exit(hook_second);
    die("no such kernel: %s", "vmlinux");
}

static void test_die(void **state)
{
    int status;
    char *text = in_child(do_die, &status);

    assert_string_equal(text, "[hook 2][hook 1]qemu-system-aarch64: no such kernel: vmlinux\n");
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    g_free(text);
}

static void context(FILE *out)
{
    fprintf(out, "guest pc 0x1234\n");
}

static void do_bug(void)
{
    report_catch_crashes();
    report_at_exit(hook_first);
    report_set_context(context);
    trace(GUEST_ERRORS, "bad write at %#x", 0x40);
    BUG_ON(1 + 1 == 2);
}

static void test_bug_tells_context_and_last_events(void **state)
{
    int status;
    char *text = in_child(do_bug, &status);

    assert_true(g_str_has_prefix(text, "[hook 1]armlet: BUG at "));
    assert_non_null(strstr(text, "1 + 1 == 2\nguest pc 0x1234\n  trace: bad write at 0x40\n"));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    g_free(text);
}

static void do_crash(void)
{
    static void *volatile nowhere = (void *)16;

    report_catch_crashes();
    report_at_exit(hook_first);
    *(volatile int *)nowhere = 0;
}

static void test_crash_runs_hooks(void **state)
{
    int status;
    char *text = in_child(do_crash, &status);

    /* A sanitizer adds its own report and leaves by its own way. */
    assert_non_null(strstr(text, "[hook 1]"));
    assert_non_null(strstr(text, "internal error (SEGV)"));
    assert_false(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77));
    g_free(text);
}

static void do_long_warning(void)
{
    char *s = g_strnfill(10000, 'x');

    warn("%s", s);
    g_free(s);
}

static void test_long_warning_stays_one_line(void **state)
{
    int status;
    char *text = in_child(do_long_warning, &status);

    assert_true(strlen(text) < 4096);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    g_free(text);
}

static void test_trace_names(void **state)
{
    char *unknown, *list;

    assert_null(trace_enable("int,mmu"));
    list = trace_list();
    assert_string_equal(list, "int,mmu");
    g_free(list);
    assert_true(trace_on(INT));
    assert_false(trace_on(EXEC));
    unknown = trace_enable("int,intt");
    assert_string_equal(unknown, "intt");
    g_free(unknown);
    assert_true(trace_on(MMU));
    assert_null(trace_enable("all"));
    assert_true(trace_on(EXEC));
    assert_false(trace_on(NOCHAIN));
    assert_null(trace_enable("none"));
    assert_false(trace_on(EXEC));
    list = trace_list();
    assert_string_equal(list, "none");
    g_free(list);
}

/* The trace file's text after `n' events of one site, of a limited or an unlimited category. */
static char *traced(int n, bool limited)
{
    char name[] = "/tmp/armlet-trace-XXXXXX";
    char *text;

    close(mkstemp(name));
    assert_int_equal(trace_to_file(name), 0);
    for (int i = 0; i < n; i++)
        if (limited)
            trace(UNIMP, "event %d", i);
        else
            trace(INT, "event %d\n", i);
    assert_int_equal(trace_to_file(NULL), 0);
    assert_true(g_file_get_contents(name, &text, NULL, NULL));
    unlink(name);
    return text;
}

static unsigned count_lines(const char *text)
{
    unsigned n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void test_trace_file(void **state)
{
    char *text;

    assert_null(trace_enable("int"));
    text = traced(3, false);
    assert_string_equal(text, "event 0\nevent 1\nevent 2\n");
    g_free(text);
    text = traced(3, true); /* recorded, not shown */
    assert_string_equal(text, "");
    g_free(text);
    assert_int_equal(trace_to_file("/nonexistent/x"), -ENOENT);
    assert_null(trace_enable("none"));
}

static void test_trace_rate_limit(void **state)
{
    unsigned lines;
    char *text;

    assert_null(trace_enable("unimp,int"));
    text = traced(1000, true);
    lines = count_lines(text);
    /* test_trace_file() may have used 3 of this second's; the loop may straddle a second and get a new budget. */
    assert_in_range(lines, TRACE_RATE_LIMIT + 1 - 3, 2 * (TRACE_RATE_LIMIT + 1));
    assert_non_null(strstr(text, "more of the same"));
    g_free(text);
    text = traced(1000, false);
    assert_int_equal(count_lines(text), 1000);
    g_free(text);
    assert_null(trace_enable("none"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extract_deposit),
        cmocka_unit_test(test_rotate_replicate),
        cmocka_unit_test(test_count_align),
        cmocka_unit_test(test_die),
        cmocka_unit_test(test_bug_tells_context_and_last_events),
        cmocka_unit_test(test_crash_runs_hooks),
        cmocka_unit_test(test_long_warning_stays_one_line),
        cmocka_unit_test(test_trace_names),
        cmocka_unit_test(test_trace_file),
        cmocka_unit_test(test_trace_rate_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
