/*
 * lab_paths SERIES: fetches what booting needs, if the cache does not have it, and prints where it is, for boot tests
 * and benchmarks: lines "kernel=PATH", "release=R" and "initramfs=PATH" (with the virtio modules).
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/report.h"
#include "lab/lab.h"

int main(int argc, char **argv)
{
    struct lab_initramfs what = {.modules = lab_virtio_modules};
    struct lab_kernel kernel;
    GError *err = NULL;
    char *initramfs;

    report_set_program(argv[0]);
    if (argc != 2)
        die("usage: lab_paths SERIES");
    if (!lab_kernel_get(argv[1], false, &kernel, &err))
        die("%s", err->message);
    what.kernel = &kernel;
    initramfs = lab_initramfs_busybox(&what, &err);
    if (!initramfs)
        die("%s", err->message);
    printf("kernel=%s\nrelease=%s\ninitramfs=%s\n", kernel.image, kernel.release, initramfs);
    g_free(initramfs);
    lab_kernel_clear(&kernel);
    return EXIT_SUCCESS;
}
