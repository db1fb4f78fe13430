/*
 * armlet rootfs make debian: the two stages, the second in a guest.
 */
#include "main/debian.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/report.h"
#include "lab/debian.h"
#include "lab/progress.h"
#include "machine/exports.h"
#include "main/commands.h"

/* What the second stage prints, a line at a time. */
struct second_stage {
    struct debian_work *work;
    struct progress progress;
    FILE *log;
    GString *line;
    char *failed; /* what it says that went wrong */
};

static void take_line(struct second_stage *s, const char *line)
{
    static const char mark[] = "armlet: failed: ";
    double percent = lab_debian_progress(s->work, line);

    if (percent >= 0)
        progress_percent(&s->progress, percent);
    if (g_str_has_prefix(line, mark) && !s->failed)
        s->failed = g_strdup(line + strlen(mark));
}

static void take_output(void *opaque, const void *data, size_t len)
{
    struct second_stage *s = opaque;

    fwrite(data, 1, len, s->log);
    for (const char *p = data; len--; p++) {
        if (*p != '\n') {
            g_string_append_c(s->line, *p);
            continue;
        }
        take_line(s, s->line->str);
        g_string_truncate(s->line, 0);
    }
}

/* The words of `armlet run' for it; ends in NULL. */
static GPtrArray *second_stage_words(const struct debian_work *work, const struct debian_wishes *w)
{
    static const char *const first[] = {"--no-share", "--no-tty", "--cwd", "/"};
    static const char *const last[] = {"--", "/bin/sh", "-c", LAB_DEBIAN_SECOND_STAGE, NULL};
    GPtrArray *words = g_ptr_array_new();

    for (unsigned i = 0; i < G_N_ELEMENTS(first); i++)
        g_ptr_array_add(words, (gpointer)first[i]);
    g_ptr_array_add(words, (gpointer) "--root");
    g_ptr_array_add(words, work->tree);
    if (w->series) {
        g_ptr_array_add(words, (gpointer) "--kernel");
        g_ptr_array_add(words, (gpointer)w->series);
    }
    if (work->image) {
        g_auto(GStrv) parts = g_strsplit(work->image, ",", -1);
        g_autofree char *path = g_strjoinv(",,", parts);
        g_autofree char *drive = g_strdup_printf("file=%s,if=virtio,format=raw", path);
        g_autofree char *quoted = g_shell_quote(drive);
        g_ptr_array_add(words, (gpointer) "--qemu");
        g_ptr_array_add(words, g_strconcat("-drive ", quoted, NULL));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(last); i++)
        g_ptr_array_add(words, (gpointer)last[i]);
    return words;
}

/* In a guest whose root is the tree. */
static void run_second_stage(struct debian_work *work, const struct debian_wishes *w)
{
    struct second_stage s = {.work = work, .line = g_string_new(NULL)};
    g_autoptr(GPtrArray) words = second_stage_words(work, w);

    if (!(s.log = fopen(work->log, "ae")) || !freopen("/dev/null", "re", stdin))
        die("cannot write %s: %s", work->log, g_strerror(errno));
    progress_begin(&s.progress, "configuring it in a guest");
    int status = run_for((char **)words->pdata, take_output, &s);
    progress_end(&s.progress, !status);
    fclose(s.log);
    if (status == 128 + SIGINT || status == 128 + SIGTERM) {
        warn("interrupted; the same command goes on from here");
        exit(status);
    }
    if (status)
        die("the packages could not be configured%s%s (status %d); %s has what they said, and the same "
            "command tries again",
            s.failed ? ": " : "", s.failed ? s.failed : "", status, work->log);
    g_string_free(s.line, TRUE);
}

/* The names of --include, which may be given several times; ends in NULL. */
static char **included(const struct debian_wishes *w)
{
    GPtrArray *names = g_ptr_array_new();

    for (guint i = 0; w->include && i < w->include->len; i++) {
        char **parts = g_strsplit_set(g_ptr_array_index(w->include, i), ", ", -1);
        for (char **p = parts; *p; p++) {
            if (!**p)
                continue;
            if (strspn(*p, "abcdefghijklmnopqrstuvwxyz0123456789+-.") != strlen(*p) || !g_ascii_isalnum(**p))
                cli_fail(&command_rootfs, "--include %s: no package can have that name", *p);
            g_ptr_array_add(names, *p);
        }
    }
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}

static void check_debian(const struct debian_wishes *w)
{
    if (w->suite && strspn(w->suite, "abcdefghijklmnopqrstuvwxyz0123456789-.") != strlen(w->suite))
        cli_fail(&command_rootfs, "--suite %s: give a name such as bookworm", w->suite);
    if (w->mirror && !g_str_has_prefix(w->mirror, "http://") && !g_str_has_prefix(w->mirror, "https://"))
        cli_fail(&command_rootfs, "--mirror %s: give an address that begins with http://", w->mirror);
    if (w->keyring && !g_path_is_absolute(w->keyring))
        cli_fail(&command_rootfs, "--keyring %s: give the whole path", w->keyring);
}

int make_debian(const struct lab_root *root, const struct debian_wishes *w)
{
    g_autofree char **include = included(w);
    struct lab_debian what = {.root = root,
                              .suite = w->suite,
                              .mirror = w->mirror,
                              .keyring = w->keyring,
                              .include = include,
                              .real = exports_are_real()};
    struct debian_work work;
    GError *err = NULL;

    check_debian(w);
    if (w->show) {
        g_autofree char *plan = lab_debian_plan(&what, &err);
        if (!plan)
            die("%s", err->message);
        fputs(plan, stdout);
        return EXIT_SUCCESS;
    }
    umask(022); /* folders that no package describes are for every user of the guest */
    if (!lab_debian_begin(&what, &work, &err))
        die("%s", err->message);
    run_second_stage(&work, w);
    if (!lab_debian_end(&what, &work, &err))
        die("%s", err->message);
    lab_debian_clear(&work);
    printf("%s\n", root->path);
    return EXIT_SUCCESS;
}
