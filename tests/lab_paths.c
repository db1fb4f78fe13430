/*
 * lab_paths SERIES [MODULE...]: fetches what booting needs, if the cache does not have it, and prints where it is, for
 * boot tests and benchmarks: lines "kernel=PATH", "release=R" and "initramfs=PATH" (with the virtio modules, and those
 * that are named).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/report.h"
#include "lab/lab.h"

/* The virtio modules and those of argv; ends in NULL. */
static const char *const *module_names(char **argv)
{
    GPtrArray *names = g_ptr_array_new();

    for (const char *const *m = lab_virtio_modules; *m; m++)
        g_ptr_array_add(names, (gpointer)(uintptr_t)*m);
    while (*argv)
        g_ptr_array_add(names, *argv++);
    g_ptr_array_add(names, NULL);
    return (const char *const *)g_ptr_array_free(names, FALSE);
}

int main(int argc, char **argv)
{
    struct lab_initramfs what = {0};
    struct lab_kernel kernel;
    GError *err = NULL;
    char *initramfs;

    report_set_program(argv[0]);
    if (argc < 2)
        die("usage: lab_paths SERIES [MODULE...]");
    if (!lab_kernel_get(argv[1], false, &kernel, &err))
        die("%s", err->message);
    what.kernel = &kernel;
    what.modules = module_names(argv + 2);
    initramfs = lab_initramfs_busybox(&what, &err);
    if (!initramfs)
        die("%s", err->message);
    printf("kernel=%s\nrelease=%s\ninitramfs=%s\n", kernel.image, kernel.release, initramfs);
    g_free(initramfs);
    g_free((gpointer)(uintptr_t)what.modules);
    lab_kernel_clear(&kernel);
    return EXIT_SUCCESS;
}
