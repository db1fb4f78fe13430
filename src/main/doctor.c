/*
 * armlet doctor: what this host lacks, and the command that mends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <glib.h>
#include <glib/gstdio.h>

#include "lab/cache.h"
#include "lab/lab.h"
#include "lab/rootfs.h"
#include "main/commands.h"

enum { WANTED_MB = 1500 };

static const char text[] =
    "Looks at what armlet needs of this host, and prints a line for each thing: ok; missing, with the\n"
    "command that mends it; or without, if something that is nice to have is not there.\n";

static const char notes[] = "Exit status: 0 when nothing is missing, 1 otherwise.\n";

struct doctor {
    unsigned missing;
};

static void say(struct doctor *d, bool ok, bool needed, const char *what, const char *mend)
{
    if (!ok && needed)
        d->missing++;
    printf("%-8s %s", ok ? "ok" : needed ? "missing" : "without", what);
    if (!ok && mend)
        printf("; mend it with: %s", mend);
    printf("\n");
}

static bool has_program(const char *name)
{
    g_autofree char *path = g_find_program_in_path(name), *sbin = g_build_filename("/sbin", name, NULL);

    return path || !g_access(sbin, X_OK);
}

static void check_programs(struct doctor *d)
{
    static const struct {
        const char *program, *package, *why;
        bool needed;
    } programs[] = {
        { "apt-get", "apt", "fetches kernels and busybox", true },
        { "dpkg-deb", "dpkg", "unpacks them", true },
        { "gpgv", "gpgv", "checks their signatures", true },
        { "xz", "xz-utils", "unpacks modules and sources", true },
        { "aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "armlet kernel build", false },
        { "make", "make", "armlet kernel build", false },
        { "flex", "flex", "armlet kernel build", false },
        { "bison", "bison", "armlet kernel build", false },
        { "bc", "bc", "armlet kernel build", false },
        { "mke2fs", "e2fsprogs", "armlet rootfs make --format ext4", false },
        { "depmod", "kmod", "armlet rootfs make --modules", false },
        { "gdb-multiarch", "gdb-multiarch", "debugs the guest's kernel", false },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(programs); i++) {
        g_autofree char *what = g_strdup_printf("%s (%s)", programs[i].program, programs[i].why);
        g_autofree char *mend =
            g_strdup_printf("%sapt-get install %s", geteuid() ? "sudo " : "", programs[i].package);
        say(d, has_program(programs[i].program), programs[i].needed, what, mend);
    }
    say(d, !g_access("/usr/share/keyrings/debian-archive-keyring.gpg", R_OK), true, "Debian's archive keys",
        "apt-get install debian-archive-keyring");
}

static void check_processor(struct doctor *d)
{
    __builtin_cpu_init();
    say(d, __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"), true, "processor: x86-64-v2",
        NULL);
    say(d, __builtin_cpu_supports("avx2"), false, "processor: AVX2, for vector code", NULL);
}

static void check_cache(struct doctor *d)
{
    g_autofree char *top = cache_path("", NULL),
                    *mend = g_strdup_printf("export XDG_CACHE_HOME=another/place"), *what = NULL;
    struct statvfs st;
    bool made = !g_mkdir_with_parents(top, 0755) && !g_access(top, W_OK);
    guint64 mb = made && !statvfs(top, &st) ? (guint64)st.f_bavail * st.f_frsize >> 20 : 0;

    what = g_strdup_printf("cache %s can be written", top);
    say(d, made, true, what, mend);
    g_free(what);
    what = g_strdup_printf("cache has %" G_GUINT64_FORMAT " MB free (kernels and builds want %d)", mb,
                           WANTED_MB);
    say(d, mb >= WANTED_MB, false, what, mend);
}

/* The guest's owners, modes and device nodes are kept in attributes of the host's files. */
static void check_attributes(struct doctor *d)
{
    g_autofree char *top = rootfs_data_path(NULL), *file = rootfs_data_path(".doctor-XXXXXX");
    bool ok = false;

    g_mkdir_with_parents(top, 0755);
    int fd = g_mkstemp(file);
    if (fd >= 0) {
        ok = !fsetxattr(fd, "user.armlet.doctor", "1", 1, 0);
        close(fd);
        g_unlink(file);
    }
    g_autofree char *what =
        g_strdup_printf("extended attributes in %s (the guest's owners and device nodes)", top);
    say(d, ok, false, what, "export XDG_DATA_HOME=a/place/on/ext4,/xfs/or/btrfs");
}

static void check_namespaces(struct doctor *d)
{
    const char *const argv[] = { "unshare", "-r", "true", NULL };
    bool ok = !geteuid() || cache_run(&(struct cache_run){ .argv = argv }, NULL);

    say(d, ok, false, "user namespaces (ext4 images whose files are root's)",
        "sudo sysctl kernel.unprivileged_userns_clone=1");
}

static void check_kernels(struct doctor *d)
{
    GPtrArray *kernels = lab_kernel_list();

    say(d, kernels->len > 0, false, "a kernel of Debian's in the cache", "armlet kernel get");
    g_ptr_array_unref(kernels);
}

static int doctor(int argc, char **argv)
{
    struct doctor d = { 0 };
    char **rest;

    (void)argc;
    cli_parse(&command_doctor, argv, &d, &rest);
    if (argv[0] || rest)
        cli_fail(&command_doctor, "takes no words");
    check_processor(&d);
    check_programs(&d);
    check_cache(&d);
    check_attributes(&d);
    check_namespaces(&d);
    check_kernels(&d);
    return d.missing ? EXIT_FAILURE : EXIT_SUCCESS;
}

const struct command command_doctor = {
    .name = "doctor", .summary = "what this host lacks, and the command that mends it",
    .synopsis = "doctor", .text = text, .notes = notes, .run = doctor,
};
