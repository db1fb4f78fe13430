/*
 * See make.h.  Threading: the caller's.
 */
#include "lab/make.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/report.h"
#include "lab/cache.h"
#include "lab/lab.h"
#include "lab/progress.h"

#define COMPILER "aarch64-linux-gnu-gcc"

/* --- tools ---------------------------------------------------------------------------------------------- */

/* With privileges, or by sudo if somebody is there to give his password. */
static bool install(const char *what, const char *packages, GError **err)
{
    g_autofree char *sudo = g_find_program_in_path("sudo"), *line = NULL;
    bool root = !geteuid();
    struct progress progress;

    if (!root && (!sudo || !isatty(STDIN_FILENO))) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_TOOL, "%s needs packages; as root: apt-get install%s", what,
                    packages);
        return false;
    }
    warn("%s needs%s: apt-get installs %s%s", what, packages, strchr(packages + 1, ' ') ? "them" : "it",
         root ? "" : " (sudo)");
    line = g_strdup_printf("%senv DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install "
                           "--no-install-recommends%s", root ? "" : "sudo ", packages);
    const char *const argv[] = {"sh", "-c", line, NULL};
    progress_begin(&progress, "installing");
    bool ok = cache_run(&(struct cache_run){.argv = argv}, err);
    progress_end(&progress, ok);
    return ok;
}

bool make_need(const char *what, const struct make_program *programs, GError **err)
{
    GString *missing = g_string_new(NULL);

    for (; programs->name; programs++) {
        g_autofree char *path = g_find_program_in_path(programs->name);

        if (!path)
            g_string_append_printf(missing, " %s", programs->package);
    }
    bool ok = !missing->len || install(what, missing->str, err);
    g_string_free(missing, TRUE);
    return ok;
}

bool make_check_tools(GError **err)
{
    static const struct make_program programs[] = {
        {COMPILER, "gcc-aarch64-linux-gnu"}, {"gcc", "gcc"}, {"make", "make"}, {"flex", "flex"},
        {"bison", "bison"}, {"bc", "bc"}, {"xz", "xz-utils"}, {"tar", "tar"}, {"bash", "bash"}, {NULL, NULL}};

    return make_need("building a kernel", programs, err);
}

char *make_compiler_version(GError **err)
{
    const char *const argv[] = {COMPILER, "--version", NULL};
    GByteArray *text = g_byte_array_new();
    bool ok = cache_run(&(struct cache_run){.argv = argv, .output = text}, err);

    g_byte_array_append(text, (const guint8 *)"", 1);
    char *all = (char *)g_byte_array_free(text, FALSE);
    if (!ok)
        g_clear_pointer(&all, g_free);
    return all;
}

/* --- compilers that will not do ------------------------------------------------------------------------- */

/* The output of a shell's line without its newline, or NULL; to be freed. */
static char *output_of(const char *line)
{
    const char *const argv[] = {"sh", "-c", line, NULL};
    GByteArray *text = g_byte_array_new();
    bool ok = cache_run(&(struct cache_run){.argv = argv, .output = text}, NULL);

    g_byte_array_append(text, (const guint8 *)"", 1);
    char *all = g_strchomp((char *)g_byte_array_free(text, FALSE));
    if (!ok || !*all)
        g_clear_pointer(&all, g_free);
    return all;
}

/* The kernel says itself what it needs at least, since 5.15. */
static bool check_minimum(const char *source, GError **err)
{
    g_autofree char *quoted = g_shell_quote(source);
    g_autofree char *ask = g_strdup_printf("cd %s && sh scripts/min-tool-version.sh gcc 2>/dev/null", quoted);
    g_autofree char *least = output_of(ask), *have = output_of(COMPILER " -dumpfullversion");

    if (!least || !have || strverscmp(have, least) >= 0)
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_TOOL, "this kernel needs gcc %s or newer, and " COMPILER " is %s",
                least, have);
    return false;
}

/*
 * Until 5.6 its device-tree compiler defined a variable twice, which gcc takes for an error since version 10.
 */
static bool check_dtc(const char *source, GError **err)
{
    g_autofree char *path = g_build_filename(source, "scripts", "dtc", "dtc-lexer.l", NULL), *text = NULL;
    g_autofree char *have = output_of("gcc -dumpversion");

    if (!have || g_ascii_strtoull(have, NULL, 10) < 10 || !g_file_get_contents(path, &text, NULL, NULL) ||
        !strstr(text, "\nYYLTYPE yylloc;"))
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_TOOL,
                "this kernel cannot be built with the host's gcc %s: scripts/dtc/dtc-lexer.l "
                "defines yylloc once too often; delete its line \"YYLTYPE yylloc;\", or use gcc 9",
                have);
    return false;
}

static bool check_works(GError **err)
{
    g_autofree char *said = output_of("echo 'int f(int x) { return x + 1; }' | " COMPILER
                                      " -x c -O2 -c -o /dev/null - && echo ok");

    if (said && !strcmp(said, "ok"))
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_TOOL, COMPILER " cannot compile a function of one line; "
                "apt-get install --reinstall gcc-aarch64-linux-gnu");
    return false;
}

bool make_check_compiler(const char *source, GError **err)
{
    return check_works(err) && check_minimum(source, err) && check_dtc(source, err);
}

/* --- the build ------------------------------------------------------------------------------------------ */

bool make_run(const char *source, const char *out, const char *words, unsigned expect, GError **err)
{
    return make_run_as("building the kernel", source, out, words, expect, err);
}

bool make_run_as(const char *what, const char *source, const char *out, const char *words, unsigned expect,
                 GError **err)
{
    g_autofree char *s = g_shell_quote(source), *o = g_shell_quote(out);
    /*
     * No date and no host: the same input is the same kernel.  awk counts, and descriptor 3 is read by
     * cache_run(); of make's complaints the first is the one that says something.
     */
    g_autofree char *script = g_strdup_printf(
        "set -o pipefail; make -C %s O=%s -j%u ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- "
        "KBUILD_BUILD_TIMESTAMP='Thu Jan 1 00:00:00 UTC 1970' KBUILD_BUILD_USER=armlet "
        "KBUILD_BUILD_HOST=armlet %s 2>%s.errors | awk '/^  (CC|AS|AR|LD|HOSTCC) /{p=++n*100/%u; "
        "printf \"dlstatus:1:%%.1f:\\n\", (p>99?99:p) > \"/dev/fd/3\"; "
        "fflush(\"/dev/fd/3\")}' || { grep -m 1 -E \"error|can't|No rule|Error\" %s.errors >&2; exit 1; }",
        s, o, g_get_num_processors(), words, o, MAX(expect, 1), o);
    const char *const argv[] = {"bash", "-c", script, NULL};
    struct progress progress;
    struct cache_run run = {.argv = argv, .group = true, .opaque = &progress};

    if (expect) {
        progress_begin(&progress, what);
        run.percent = (void (*)(void *, double))progress_percent;
    }
    bool ok = cache_run(&run, err);
    if (expect)
        progress_end(&progress, ok);
    return ok;
}

bool make_check_config(const char *fragment, const char *out, GError **err)
{
    g_autofree char *path = g_build_filename(out, ".config", NULL), *text = NULL;
    g_auto(GStrv) wanted = g_strsplit(fragment, "\n", -1);

    if (!g_file_get_contents(path, &text, NULL, err))
        return false;
    g_autofree char *lines = g_strconcat("\n", text, NULL);
    for (char **w = wanted; *w; w++) {
        g_autofree char *line = g_strdup_printf("\n%s\n", g_strstrip(*w));

        if (!g_str_has_prefix(*w, "CONFIG_") || g_str_has_suffix(*w, "=n") || strstr(lines, line))
            continue;
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED,
                    "the kernel does not take %s: it depends on something that is off, or there is no such "
                    "option", *w);
        return false;
    }
    return true;
}
