/*
 * armlet kernel: the Debian kernels in the cache.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "lab/kbuild.h"
#include "lab/lab.h"
#include "main/commands.h"

static const char usage[] =
    "usage: armlet kernel list\n"
    "       armlet kernel get [SERIES] [--refresh]\n"
    "       armlet kernel build [FRAGMENT]\n"
    "\n"
    "list shows Debian's arm64 kernels in the cache (~/.cache/armlet); get fetches the newest of a series (6.1 when\n"
    "none is given) unless it is there, with --refresh after asking Debian's mirror for a newer one.\n"
    "build makes a small kernel from Debian's linux-source-6.1 (with this machine's devices and its root over NFS, or\n"
    "allnoconfig with the options of the file FRAGMENT), unless it is in the cache, and prints where it is.\n";

static int list(void)
{
    GPtrArray *kernels = lab_kernel_list();

    for (guint i = 0; i < kernels->len; i++) {
        const struct lab_kernel *k = g_ptr_array_index(kernels, i);
        printf("%-6s %-28s %s\n", k->series, k->release, k->image);
    }
    for (const char *const *s = lab_kernel_series; *s; s++) {
        bool have = false;
        for (guint i = 0; i < kernels->len; i++)
            have |= !strcmp(((const struct lab_kernel *)g_ptr_array_index(kernels, i))->series, *s);
        if (!have)
            printf("%-6s not fetched (armlet kernel get %s)\n", *s, *s);
    }
    g_ptr_array_unref(kernels);
    return EXIT_SUCCESS;
}

static int get(char **argv)
{
    const char *series = NULL;
    bool refresh = false;
    struct lab_kernel kernel;
    GError *err = NULL;

    for (; *argv; argv++) {
        if (!strcmp(*argv, "--refresh"))
            refresh = true;
        else if (**argv == '-')
            die("kernel get: unknown option %s (armlet kernel --help)", *argv);
        else if (series)
            die("kernel get: one series, not '%s' and '%s'", series, *argv);
        else
            series = *argv;
    }
    if (!lab_kernel_get(series ? series : LAB_DEFAULT_SERIES, refresh, &kernel, &err))
        die("%s", err->message);
    printf("%-6s %-28s %s\n", kernel.series, kernel.release, kernel.image);
    lab_kernel_clear(&kernel);
    return EXIT_SUCCESS;
}

static int build(int argc, char **argv)
{
    g_autofree char *fragment = NULL, *image = NULL;
    GError *err = NULL;

    if (argc > 1)
        die("kernel build: one fragment, not '%s' and '%s'", argv[0], argv[1]);
    if (argc && !g_file_get_contents(argv[0], &fragment, NULL, &err))
        die("%s", err->message);
    image = lab_kernel_build(fragment, &err);
    if (!image)
        die("%s", err->message);
    printf("%s\n", image);
    return EXIT_SUCCESS;
}

static int kernel(int argc, char **argv)
{
    if (argc == 1 && !strcmp(argv[0], "list"))
        return list();
    if (argc && !strcmp(argv[0], "get"))
        return get(argv + 1);
    if (argc && !strcmp(argv[0], "build"))
        return build(argc - 1, argv + 1);
    if (argc)
        die("kernel: give list, get or build, not '%s' (armlet kernel --help)", argv[0]);
    die("kernel: give list, get or build (armlet kernel --help)");
}

const struct command command_kernel = {
    .name = "kernel", .summary = "list, fetch or build arm64 kernels", .usage = usage, .run = kernel };
