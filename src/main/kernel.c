/*
 * armlet kernel: the kernels in the cache, Debian's and built ones.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib/gstdio.h>

#include "base/report.h"
#include "lab/cache.h"
#include "lab/kbuild.h"
#include "lab/lab.h"
#include "main/commands.h"

struct wishes {
    const char *source, *fragment, *config;
    bool refresh, debug, tiny, defconfig;
};

#define TEXT(field, name, argument, help, complete) \
    { name, CLI_TEXT, offsetof(struct wishes, field), argument, help, complete }
#define FLAG(field, name, help) CLI_FLAG_OPTION(struct wishes, field, name, help)

static const struct cli_option options[] = {
    FLAG(refresh, "refresh", "get: ask Debian's mirror for a newer one"),
    FLAG(debug, "debug", "get: with its debug symbols (fetches 800 MB, takes 5 GB)"),
    TEXT(source, "source", "DIR", "build, config: this source tree (default: Debian's linux-source-6.1)",
         "dir"),
    FLAG(tiny, "tiny",
         "build, config: allnoconfig with this machine's devices; minutes on two cores (default)"),
    FLAG(defconfig, "defconfig",
         "build, config: defconfig without what the board lacks, with debug information"),
    TEXT(config, "config", "FILE", "build, config: this configuration, as it is", "file"),
    TEXT(fragment, "fragment", "FILE", "build, config: lines to add to the configuration", "file"),
    {NULL, CLI_FLAG, 0, NULL, NULL, NULL},
};

static const char text[] =
    "list shows Debian's arm64 kernels in the cache (~/.cache/armlet) and those built there.\n"
    "get fetches the newest kernel of a series of Debian's (6.1 when none is given) with its modules,\n"
    "unless it is there.\n"
    "build makes a kernel with Debian's cross compiler, which is installed if it is missing, and prints\n"
    "where the Image is.  The source is not touched; the next build of the same tree makes only\n"
    "what has changed.\n"
    "config makes the configuration that build would use, and prints where it is.\n";

static const char notes[] =
    "Kernels built so have their root over NFS, 9p and virtio built in: armlet boot IMAGE and armlet run\n"
    "IMAGE use them.  What build of a plain linux-source-6.1 makes is kept by what it is made of: the\n"
    "configuration, the source's version and the compiler's.\n";

/* --- list ----------------------------------------------------------------------------------------------- */

static void list_debian(void)
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
}

/* FOLDER/NAME/IMAGE of the cache. */
static void list_built(const char *folder, const char *image)
{
    g_autofree char *top = cache_path(folder, NULL);
    GDir *dir = g_dir_open(top, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(top, name, image, NULL);
        if (!g_access(path, R_OK))
            printf("%-6s %-28s %s\n", "built", name, path);
    }
    if (dir)
        g_dir_close(dir);
}

static int list(void)
{
    list_debian();
    list_built("built", "Image");
    list_built("build", "arch/arm64/boot/Image");
    return EXIT_SUCCESS;
}

/* --- get, build, config --------------------------------------------------------------------------------- */

static int get(const char *series, const struct wishes *w)
{
    struct lab_kernel kernel;
    GError *err = NULL;
    char *vmlinux = NULL;

    if (!lab_kernel_get(series ? series : LAB_DEFAULT_SERIES, w->refresh, &kernel, &err))
        die("%s", err->message);
    printf("%-6s %-28s %s\n", kernel.series, kernel.release, kernel.image);
    if (w->debug && !(vmlinux = lab_kernel_debug(&kernel, &err)))
        die("%s", err->message);
    if (vmlinux)
        printf("%-6s %-28s %s\n", "", "debug symbols", vmlinux);
    g_free(vmlinux);
    lab_kernel_clear(&kernel);
    return EXIT_SUCCESS;
}

static int build(const struct wishes *w, bool configure_only)
{
    g_autofree char *fragment = NULL, *image = NULL, *source = NULL;
    GError *err = NULL;

    if ((w->tiny && w->defconfig) || (w->config && (w->tiny || w->defconfig)))
        cli_fail(&command_kernel, "give one of --tiny, --defconfig and --config");
    if (w->fragment && !g_file_get_contents(w->fragment, &fragment, NULL, &err))
        die("%s", err->message);
    /* The one that others share by its hash. */
    if (!w->source && !w->defconfig && !w->config && !fragment && !configure_only) {
        image = lab_kernel_build(NULL, &err);
    } else {
        source = w->source ? g_strdup(w->source) : lab_kernel_source(&err);
        const struct lab_build b = {.source = source,
                                    .defconfig = w->defconfig,
                                    .fragment = fragment,
                                    .config = w->config,
                                    .configure_only = configure_only};
        image = source ? lab_tree_build(&b, &err) : NULL;
    }
    if (!image)
        die("%s", err->message);
    printf("%s\n", image);
    return EXIT_SUCCESS;
}

static int kernel(int argc, char **argv)
{
    struct wishes w = { 0 };
    char **rest;

    cli_parse(&command_kernel, argv, &w, &rest);
    const char *verb = argv[0], *word = verb ? argv[1] : NULL;
    if (rest || (word && argv[2]) || (word && strcmp(verb, "get")))
        cli_fail(&command_kernel, "too many words (armlet kernel --help)");
    if (verb && !strcmp(verb, "list"))
        return list();
    if (verb && !strcmp(verb, "get"))
        return get(word, &w);
    if (verb && !strcmp(verb, "build"))
        return build(&w, false);
    if (verb && !strcmp(verb, "config"))
        return build(&w, true);
    (void)argc;
    if (verb)
        cli_fail(&command_kernel, "give list, get, build or config, not '%s' (armlet kernel --help)", verb);
    cli_fail(&command_kernel, "give list, get, build or config (armlet kernel --help)");
}

static const char examples[] =
    "  armlet kernel get 6.1             # fetch Debian's newest 6.1\n"
    "  armlet kernel list                # what is there\n"
    "  armlet kernel config --defconfig  # a configuration to look at\n";

const struct command command_kernel = {
    .name = "kernel",
    .summary = "list, fetch, configure or build arm64 kernels",
    .synopsis = "kernel list\nkernel get [SERIES] [--refresh] [--debug]\nkernel build [options]\nkernel "
                "config [options]",
    .text = text,
    .options = options,
    .notes = notes,
    .examples = examples,
    .words = "list get build config",
    .run = kernel,
};
