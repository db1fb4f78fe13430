/*
 * armlet rootfs: root file systems for the guest.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "lab/lab.h"
#include "lab/rootfs.h"
#include "machine/props.h"
#include "main/commands.h"
#include "main/debian.h"

struct wishes {
    const char *format, *size, *series;
    GPtrArray *overlays;
    bool modules, headers, replace, from_source;
    struct debian_wishes debian;
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
    FLAG(from_source, "from-source", "busybox is built from Debian's source, with the cross compiler"),
    TEXT(debian.suite, "suite", "SUITE", "of Debian: bookworm (default), trixie, ...", "bookworm trixie sid"),
    { "include", CLI_LIST, offsetof(struct wishes, debian.include), "PACKAGE,...",
      "more packages of Debian's, with what they depend on", NULL },
    TEXT(debian.mirror, "mirror", "URL", "where Debian is fetched (default: from where this host has it)", NULL),
    TEXT(debian.keyring, "keyring", "FILE", "the keys that sign the mirror (default: Debian's)", "file"),
    FLAG(debian.show, "show", "print the packages that a Debian root would have, and end"),
    { NULL, CLI_FLAG, 0, NULL, NULL, NULL },
};

static const char text[] =
    "make makes a root file system of Debian's static busybox, with the etc/ files of a first root (inittab, fstab,\n"
    "init.d/rcS), and prints where it is.  NAME without a slash stands for ~/.local/share/armlet/root/NAME (with .cpio or\n"
    ".ext4 behind it for an archive or an image); without NAME it is busybox.  No privileges are needed.\n"
    "make debian makes a Debian system for arm64: systemd, apt, and what Debian calls required.  Its packages are\n"
    "fetched and unpacked here and configured in a guest.  An interrupted make is continued by the same command.\n"
    "Root has no password and is logged in on the console.\n"
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

static void check_kind(const struct wishes *w, bool debian, const struct lab_root *what)
{
    const struct debian_wishes *d = &w->debian;
    const char *only = d->suite ? "suite" : d->mirror ? "mirror" : d->keyring ? "keyring" : d->include ? "include"
                       : d->show ? "show" : NULL;

    if (w->size && what->format != LAB_ROOT_EXT4)
        cli_fail(&command_rootfs, "--size is for --format ext4");
    if (!debian && only)
        cli_fail(&command_rootfs, "--%s goes with make debian", only);
    if (debian && w->from_source)
        cli_fail(&command_rootfs, "--from-source goes with busybox");
}

static int make(const char *name, bool debian, const struct wishes *w)
{
    struct lab_root what = { .format = parse_format(w->format), .modules = w->modules, .headers = w->headers,
                             .size = size_option(w->size), .replace = w->replace,
                             .from_source = w->from_source };
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
        struct debian_wishes wishes = w->debian;
        wishes.series = w->series;
        int status = make_debian(&what, &wishes);
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
        const char *kind = g_str_has_suffix(name, ".making") ? "unfinished" : g_file_test(path, G_FILE_TEST_IS_DIR) ? "dir"
                           : g_str_has_suffix(name, ".cpio") ? "initramfs" : g_str_has_suffix(name, ".ext4") ? "ext4" : NULL;
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
    "  armlet rootfs make debian --include gdb --show     # what Debian with systemd and gdb would be\n"
    "  armlet rootfs list                                 # what is there\n";

const struct command command_rootfs = {
    .name = "rootfs", .summary = "make a root file system: a directory, an initramfs or an image",
    .synopsis = "rootfs make [busybox] [NAME|PATH] [options]\nrootfs make debian [NAME|PATH] [options]\n"
                "rootfs list",
    .text = text, .options = options, .notes = notes, .examples = examples, .words = "make list debian",
    .run = rootfs,
};
