/*
 * armlet rootfs: root file systems for the guest.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "lab/debian.h"
#include "lab/lab.h"
#include "lab/progress.h"
#include "lab/rootfs.h"
#include "machine/exports.h"
#include "machine/props.h"
#include "main/commands.h"

struct wishes {
    const char *format, *size, *series, *suite, *mirror, *keyring;
    GPtrArray *overlays, *include;
    bool modules, headers, replace, show;
};

#define TEXT(field, name, argument, help, complete) \
    { name, CLI_TEXT, offsetof(struct wishes, field), argument, help, complete }
#define FLAG(field, name, help) CLI_FLAG_OPTION(struct wishes, field, name, help)

static const struct cli_option options[] = {
    TEXT(format, "format", "FORMAT", "dir (default: for NFS and 9p), initramfs, or ext4 (an image)", "dir initramfs ext4"),
    { "overlay", CLI_LIST, offsetof(struct wishes, overlays), "DIR", "put the contents of DIR on top; several in order", "dir" },
    FLAG(modules, "modules", "with the modules of a kernel of Debian's"),
    FLAG(headers, "headers", "with the headers that modules are built against"),
    TEXT(series, "kernel", "6.1|6.12", "which kernel's (default: the newest in the cache)", "6.1 6.12"),
    TEXT(size, "size", "SIZE", "of an ext4 image, e.g. 512M (default: its files and 64 MiB)", NULL),
    FLAG(replace, "replace", "make an archive or image anew that exists"),
    TEXT(suite, "suite", "SUITE", "of Debian: bookworm (default), trixie, ...", "bookworm trixie sid"),
    { "include", CLI_LIST, offsetof(struct wishes, include), "PACKAGE,...", "more packages of Debian's, with what they depend on", NULL },
    TEXT(mirror, "mirror", "URL", "where Debian is fetched (default: from where this host has it)", NULL),
    TEXT(keyring, "keyring", "FILE", "the keys that sign the mirror (default: Debian's)", "file"),
    FLAG(show, "show", "print the packages that a Debian root would have, and end"),
    { NULL, CLI_FLAG, 0, NULL, NULL, NULL },
};

static const char text[] =
    "make makes a root file system of Debian's static busybox, with the etc/ files of a first root (inittab, fstab,\n"
    "init.d/rcS), and prints where it is.  NAME without a slash stands for ~/.local/share/armlet/root/NAME (with .cpio or\n"
    ".ext4 behind it for an archive or an image); without NAME it is busybox.  No privileges are needed.\n"
    "make debian makes a Debian system for arm64: systemd, apt, and what Debian calls required.  Its packages are fetched and\n"
    "unpacked here and configured in a guest.  An interrupted make is continued by the same command.  Root has no password and\n"
    "is logged in on the console.\n"
    "list shows what is there; what was begun and not finished is NAME.making, and can be deleted.\n";

static const char notes[] =
    "armlet boot --root NAME|DIR|IMAGE has the guest's root there; an initramfs goes to armlet boot --initrd FILE.\n";

static enum lab_root_format parse_format(const char *s)
{
    static const char *const names[] = { "dir", "initramfs", "ext4" };

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        if (!s || !strcmp(s, names[i]))
            return (enum lab_root_format)i;
    cli_fail(&command_rootfs, "--format %s: give dir, initramfs or ext4", s);
}

static char *target(const char *name, enum lab_root_format format)
{
    static const char *const suffixes[] = { "", ".cpio", ".ext4" };
    g_autofree char *file = g_strconcat(name, suffixes[format], NULL);

    if (strchr(name, '/'))
        return g_canonicalize_filename(name, NULL);
    return rootfs_data_path(file);
}

static uint64_t size_option(const char *s)
{
    uint64_t size = 0;

    if (s && (!parse_size(s, 1, &size) || size < 1 << 20))
        cli_fail(&command_rootfs, "--size %s: give a size such as 512M", s);
    return size;
}

/* --- Debian ----------------------------------------------------------------------------------------------------------- */

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

/* In a guest whose root is the tree. */
static void run_second_stage(struct debian_work *work, const struct wishes *w)
{
    struct second_stage s = { .work = work, .line = g_string_new(NULL) };
    const char *words[] = { "--no-share", "--no-tty", "--cwd", "/", "--root", work->tree, "--kernel", w->series, "--", "/bin/sh",
                            LAB_DEBIAN_SECOND_STAGE, NULL };
    unsigned skip = 0;

    if (!w->series)
        skip = 2;
    memmove(words + 6, words + 6 + skip, sizeof(words) - (6 + skip) * sizeof(*words));
    if (!(s.log = fopen(work->log, "ae")) || !freopen("/dev/null", "re", stdin))
        die("cannot write %s: %s", work->log, g_strerror(errno));
    progress_begin(&s.progress, "configuring it in a guest");
    int status = run_for((char **)words, take_output, &s);
    progress_end(&s.progress, !status);
    fclose(s.log);
    if (status)
        die("the packages could not be configured%s%s (status %d); %s has what they said, and the same command tries again",
            s.failed ? ": " : "", s.failed ? s.failed : "", status, work->log);
    g_string_free(s.line, TRUE);
}

/* The names of --include, which may be given several times; ends in NULL. */
static char **included(const struct wishes *w)
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

static void check_debian(const struct wishes *w)
{
    if (w->suite && strspn(w->suite, "abcdefghijklmnopqrstuvwxyz0123456789-.") != strlen(w->suite))
        cli_fail(&command_rootfs, "--suite %s: give a name such as bookworm", w->suite);
    if (w->mirror && !g_str_has_prefix(w->mirror, "http://") && !g_str_has_prefix(w->mirror, "https://"))
        cli_fail(&command_rootfs, "--mirror %s: give an address that begins with http://", w->mirror);
    if (w->keyring && !g_path_is_absolute(w->keyring))
        cli_fail(&command_rootfs, "--keyring %s: give the whole path", w->keyring);
}

static int make_debian(const struct lab_root *root, const struct wishes *w)
{
    g_autofree char **include = included(w);
    struct lab_debian what = { .root = root, .suite = w->suite, .mirror = w->mirror, .keyring = w->keyring, .include = include,
                               .real = exports_are_real() };
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
    if (!lab_debian_begin(&what, &work, &err))
        die("%s", err->message);
    run_second_stage(&work, w);
    if (!lab_debian_end(&what, &work, &err))
        die("%s", err->message);
    lab_debian_clear(&work);
    printf("%s\n", root->path);
    return EXIT_SUCCESS;
}

/* --- all ---------------------------------------------------------------------------------------------------------------- */

static void check_kind(const struct wishes *w, bool debian, const struct lab_root *what)
{
    const char *only = w->suite ? "suite" : w->mirror ? "mirror" : w->keyring ? "keyring" : w->include ? "include" : w->show ? "show" : NULL;

    if (w->size && what->format != LAB_ROOT_EXT4)
        cli_fail(&command_rootfs, "--size is for --format ext4");
    if (!debian && only)
        cli_fail(&command_rootfs, "--%s goes with make debian", only);
    if (debian && what->format != LAB_ROOT_DIR)
        cli_fail(&command_rootfs, "a Debian root is made as a directory (--format dir)");
}

static int make(const char *name, bool debian, const struct wishes *w)
{
    struct lab_root what = { .format = parse_format(w->format), .modules = w->modules, .headers = w->headers,
                             .size = size_option(w->size), .replace = w->replace };
    g_autofree char *path = target(name ? name : debian ? "debian" : "busybox", what.format);
    struct lab_kernel kernel = { 0 };
    GError *err = NULL;

    check_kind(w, debian, &what);
    if ((w->modules || w->headers) && !lab_kernel_get(w->series, false, &kernel, &err))
        die("%s", err->message);
    if (w->overlays)
        g_ptr_array_add(w->overlays, NULL);
    what.path = path;
    what.kernel = &kernel;
    what.overlays = w->overlays ? (char *const *)w->overlays->pdata : NULL;
    if (debian) {
        int status = make_debian(&what, w);
        lab_kernel_clear(&kernel);
        return status;
    }
    if (!lab_rootfs_make(&what, &err))
        die("%s", err->message);
    printf("%s\n", path);
    lab_kernel_clear(&kernel);
    return EXIT_SUCCESS;
}

static int list(void)
{
    g_autofree char *top = rootfs_data_path(NULL);
    GDir *dir = g_dir_open(top, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = rootfs_data_path(name);
        const char *kind = g_str_has_suffix(name, ".making") ? "unfinished" : g_file_test(path, G_FILE_TEST_IS_DIR) ? "dir" : g_str_has_suffix(name, ".cpio") ? "initramfs"
                           : g_str_has_suffix(name, ".ext4") ? "ext4" : NULL;
        if (kind && !strstr(name, ".new.") && !strstr(name, ".tree."))
            printf("%-10s %-16s %s\n", kind, name, path);
    }
    if (dir)
        g_dir_close(dir);
    return EXIT_SUCCESS;
}

static int rootfs(int argc, char **argv)
{
    struct wishes w = { 0 };
    char **rest;

    (void)argc;
    cli_parse(&command_rootfs, argv, &w, &rest);
    bool makes = argv[0] && !strcmp(argv[0], "make");
    bool debian = makes && argv[1] && !strcmp(argv[1], "debian");
    bool named = debian || (makes && argv[1] && !strcmp(argv[1], "busybox"));
    unsigned words = g_strv_length(argv);
    if (rest || words > (named ? 3 : 2))
        cli_fail(&command_rootfs, "too many words (armlet rootfs --help)");
    if (argv[0] && !strcmp(argv[0], "list") && !argv[1])
        return list();
    if (makes)
        return make(named ? argv[2] : argv[1], debian, &w);
    cli_fail(&command_rootfs, "give make or list (armlet rootfs --help)");
}

static const char examples[] =
    "  armlet rootfs make mine                            # a directory that is yours to change\n"
    "  armlet rootfs make mine --format ext4 --size 128M  # the same as an image\n"
    "  armlet rootfs make debian --include gdb,strace     # Debian with systemd, and two packages more\n"
    "  armlet rootfs list                                 # what is there\n";

const struct command command_rootfs = {
    .name = "rootfs", .summary = "make a root file system: a directory, an initramfs or an image",
    .synopsis = "rootfs make [busybox] [NAME|PATH] [options]\nrootfs make debian [NAME|PATH] [options]\nrootfs list",
    .text = text, .options = options, .notes = notes, .examples = examples, .words = "make list debian", .run = rootfs,
};
