/*
 * armlet boot: a shell in an arm64 kernel with one command.  It makes a QEMU command line of defaults and of what the
 * user said, and runs that; --show prints it instead.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

#include "base/report.h"
#include "lab/lab.h"
#include "lab/rootfs.h"
#include "machine/boot.h"
#include "machine/props.h"
#include "main/commands.h"

struct wishes {
    const char *image;    /* a file of the user's, or NULL: Debian's */
    const char *series, *smp, *memory, *cpu, *initrd, *append, *gdb, *root;
    bool panic_exit, show;
    char **rest;          /* behind --, or NULL */
};

/* Where the guest's root is. */
enum root_kind {
    ROOT_OTHER,     /* the user's own business */
    ROOT_MEMORY,    /* busybox in an initramfs */
    ROOT_NFS,       /* a directory, which the kernel mounts */
    ROOT_NFS_INITRD /* a directory, which an initramfs with the modules mounts */
};

struct root {
    enum root_kind kind;
    char *directory;
};

struct boot_option {
    const char *name;
    size_t slot;      /* of a const char * or, without an argument, a bool */
    bool has_argument;
};
#define TEXT(name, field) { name, offsetof(struct wishes, field), true }
#define FLAG(name, field) { name, offsetof(struct wishes, field), false }

static const struct boot_option boot_options[] = {
    TEXT("kernel", series), TEXT("smp", smp), TEXT("memory", memory), TEXT("cpu", cpu), TEXT("initrd", initrd),
    TEXT("append", append), TEXT("gdb", gdb), TEXT("root", root), FLAG("panic-exit", panic_exit), FLAG("show", show),
};

static const char usage[] =
    "usage: armlet boot [KERNEL] [options] [-- QEMU OPTIONS]\n"
    "\n"
    "Boots KERNEL (an Image, Image.gz, EFI zboot or ELF file), or else the newest Debian kernel that is in the\n"
    "cache, or else Debian's, fetched.  Its root is a directory of this host, over NFS from armlet itself: files\n"
    "made in the guest are there on the host at once, and the other way round.\n"
    "\n"
    "  --kernel 6.1|6.12   Debian's kernel of this series\n"
    "  --smp N             vCPUs, 1 to 8 (default: the host's processors, at most 4)\n"
    "  --memory SIZE       guest memory (default 1G)\n"
    "  --cpu MODEL         the processor (armlet -cpu help lists them)\n"
    "  --root DIR          the root (default: a busybox tree, made once in ~/.local/share/armlet/root/busybox)\n"
    "  --root none         busybox in memory as the root: nothing is kept\n"
    "  --initrd FILE|none  initial RAM disk instead of all that\n"
    "  --append TEXT       more for the kernel's command line\n"
    "  --panic-exit        end with status 1 when the kernel panics\n"
    "  --gdb tcp::PORT     wait for a debugger\n"
    "  --show              print the command line that this stands for, and end\n"
    "\n"
    "What follows -- is added as it is, e.g.: armlet boot -- -drive file=disk.img,format=raw\n"
    "On the console, C-a h lists the keys; C-a x ends the machine.\n";

static const struct boot_option *find(const char *name, size_t n)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(boot_options); i++)
        if (strlen(boot_options[i].name) == n && !strncmp(boot_options[i].name, name, n))
            return &boot_options[i];
    return NULL;
}

static void unknown_option(const char *word)
{
    const char *names[G_N_ELEMENTS(boot_options) + 1] = { NULL };

    for (unsigned i = 0; i < G_N_ELEMENTS(boot_options); i++)
        names[i] = boot_options[i].name;
    const char *near = suggest(word + strspn(word, "-"), names);
    if (near)
        die("boot: unknown option %s; did you mean --%s? (armlet boot --help)", word, near);
    die("boot: unknown option %s (armlet boot --help lists them; QEMU's go behind --)", word);
}

/* One --option; returns how many words it took. */
static int take_option(struct wishes *w, char **argv)
{
    const char *name = argv[0] + strspn(argv[0], "-"), *eq = strchr(name, '=');
    const struct boot_option *o = find(name, eq ? (size_t)(eq - name) : strlen(name));

    if (!o || argv[0][1] != '-')
        unknown_option(argv[0]);
    char *slot = (char *)w + o->slot;
    if (!o->has_argument) {
        if (eq)
            die("boot: --%s takes no value", o->name);
        *(bool *)slot = true;
        return 1;
    }
    if (!eq && !argv[1])
        die("boot: --%s needs a value", o->name);
    *(const char **)slot = eq ? eq + 1 : argv[1];
    return eq ? 1 : 2;
}

static void parse(struct wishes *w, char **argv)
{
    while (*argv) {
        if (!strcmp(*argv, "--")) {
            w->rest = argv + 1;
            return;
        }
        if (argv[0][0] == '-') {
            argv += take_option(w, argv);
            continue;
        }
        if (w->image)
            die("boot: one kernel, not '%s' and '%s' (QEMU's options go behind --)", w->image, *argv);
        w->image = *argv++;
    }
    if (w->image && w->series)
        die("boot: give a kernel file or --kernel, not both");
}

/* Does the user bring a root file system of his own? */
static bool has_root(const struct wishes *w)
{
    for (char **p = w->rest; p && *p; p++)
        if (!strcmp(*p, "-initrd") || !strcmp(*p, "--initrd") || strstr(*p, "root="))
            return true;
    return w->append && strstr(w->append, "root=");
}

static void add(GPtrArray *line, const char *option, const char *value)
{
    g_ptr_array_add(line, g_strdup(option));
    if (value)
        g_ptr_array_add(line, g_strdup(value));
}

/* --- the root -------------------------------------------------------------------------------------------- */

/* Words behind -- that leave the machine without a network. */
static bool has_no_network(const struct wishes *w)
{
    for (char **p = w->rest; p && *p; p++) {
        const char *name = *p + strspn(*p, "-");

        if (!strcmp(name, "nodefaults") || ((!strcmp(name, "nic") || !strcmp(name, "net")) && p[1] && !strcmp(p[1], "none")))
            return true;
    }
    return false;
}

/* The option is in the kernel's table of parameters when it was built with ROOT_NFS. */
static bool mounts_nfs(const char *path)
{
    static const char parameter[] = "nfsroot=";
    GError *err = NULL;
    g_autofree char *data = NULL;
    gsize size;

    if (!g_file_get_contents(path, &data, &size, &err))
        die("%s", err->message);
    g_autoptr(GBytes) file = g_bytes_new_static(data, size), image = boot_unpack_kernel(path, file, &err);
    if (!image)
        die("%s", err->message);
    const void *p = g_bytes_get_data(image, &size);
    return memmem(p, size, parameter, sizeof(parameter));
}

static void check_directory(const char *path)
{
    if (access(path, F_OK))
        die("boot: --root %s: %s", path, strerror(errno));
    if (!g_file_test(path, G_FILE_TEST_IS_DIR))
        die("boot: --root %s: not a directory (a disk image goes behind --: -drive file=%s,format=raw)", path, path);
    if (access(path, R_OK | X_OK))
        die("boot: --root %s: %s", path, strerror(errno));
}

static struct root choose_root(const struct wishes *w)
{
    bool none = w->root && !strcmp(w->root, "none"), wanted = w->root && !none;
    struct root r = { ROOT_MEMORY, NULL };
    GError *err = NULL;

    if (wanted)
        check_directory(w->root);
    if (w->initrd || has_root(w))
        return (struct root){ ROOT_OTHER, NULL };
    if (none || (!wanted && has_no_network(w)))
        return r;
    if (w->image && !mounts_nfs(w->image)) {
        if (wanted)
            die("boot: %s cannot mount its root by NFS: build it with CONFIG_ROOT_NFS, CONFIG_NFS_V3, CONFIG_IP_PNP_DHCP "
                "and CONFIG_VIRTIO_NET", w->image);
        return r;
    }
    r.kind = w->image ? ROOT_NFS : ROOT_NFS_INITRD;
    r.directory = wanted ? g_canonicalize_filename(w->root, NULL) : lab_rootfs_busybox(&err);
    if (!r.directory)
        die("%s", err->message);
    return r;
}

/* Under which name the guest mounts it: its own, if that can stand in a kernel's command line. */
static const char *mount_name(const struct root *r)
{
    bool plain = strspn(r->directory, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "-_./+") == strlen(r->directory);

    return plain ? r->directory : "/export";
}

static void add_export(GPtrArray *line, const struct root *r)
{
    g_auto(GStrv) parts = g_strsplit(r->directory, ",", -1);
    g_autofree char *path = g_strjoinv(",,", parts);
    bool same = mount_name(r) == r->directory;
    g_autofree char *value = g_strdup_printf("path=%s%s", path, same ? "" : ",mount=/export");

    add(line, "-nfs", value);
}

/* What the kernel is told of its root; to be freed. */
static char *root_words(const struct root *r)
{
    g_autofree char *linuxrc = r->directory ? g_build_filename(r->directory, "linuxrc", NULL) : NULL;

    if (!r->directory)
        return g_strdup("");
    return g_strdup_printf(" root=/dev/nfs nfsroot=10.0.2.2:%s%s rw ip=dhcp%s", mount_name(r),
                           r->kind == ROOT_NFS ? ",vers=3,tcp" : "",
                           g_file_test(linuxrc, G_FILE_TEST_IS_SYMLINK | G_FILE_TEST_EXISTS) ? " init=/linuxrc" : "");
}

/* Kernel and initramfs; ends the program when they cannot be had. */
static void add_images(GPtrArray *line, const struct wishes *w, const struct root *root)
{
    GError *err = NULL;
    struct lab_kernel kernel = { 0 };
    struct lab_initramfs what = { 0 };
    char *initramfs = NULL;

    if (!w->image && !lab_kernel_get(w->series, false, &kernel, &err))
        die("%s", err->message);
    if (!w->image)
        what = (struct lab_initramfs){ .kernel = &kernel, .modules = lab_virtio_modules };
    if (root->kind == ROOT_NFS_INITRD) {
        what.modules = lab_nfs_modules;
        what.nfs_root = true;
    }
    add(line, "-kernel", w->image ? w->image : kernel.image);
    if ((root->kind == ROOT_MEMORY || root->kind == ROOT_NFS_INITRD) &&
        !(initramfs = lab_initramfs_busybox(&what, &err)))
        die("%s", err->message);
    if (initramfs)
        add(line, "-initrd", initramfs);
    else if (w->initrd && strcmp(w->initrd, "none"))
        add(line, "-initrd", w->initrd);
    g_free(initramfs);
    lab_kernel_clear(&kernel);
}

static GPtrArray *make_line(const struct wishes *w)
{
    GPtrArray *line = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *smp = g_strdup_printf("%u", MIN(g_get_num_processors(), 4));
    bool has_console = w->append && strstr(w->append, "console=");
    struct root root = choose_root(w);
    g_autofree char *words = root_words(&root);
    g_autofree char *append = g_strconcat(has_console ? "" : "console=ttyAMA0", words, w->append ? " " : "",
                                          w->append, NULL);

    add(line, "-machine", "virt");
    add(line, "-nographic", NULL);
    if (w->cpu)
        add(line, "-cpu", w->cpu);
    add(line, "-smp", w->smp ? w->smp : smp);
    add(line, "-m", w->memory ? w->memory : "1G");
    add_images(line, w, &root);
    add(line, "-append", g_strchug(append));
    if (root.directory)
        add_export(line, &root);
    g_free(root.directory);
    if (w->panic_exit)
        add(line, "-action", "panic=exit-failure");
    if (w->gdb)
        add(line, "-gdb", w->gdb);
    for (char **p = w->rest; p && *p; p++)
        add(line, *p, NULL);
    return line;
}

static void show(const GPtrArray *line)
{
    printf("%s", report_program());
    for (guint i = 0; i < line->len; i++) {
        const char *word = g_ptr_array_index(line, i);
        g_autofree char *quoted = g_shell_quote(word);
        bool plain = *word && strspn(word, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "-_=,./:+") == strlen(word);
        printf(" %s", plain ? word : quoted);
    }
    printf("\n");
}

static int boot(int argc, char **argv)
{
    struct wishes w = { 0 };
    int status = EXIT_SUCCESS;

    (void)argc;
    parse(&w, argv);
    GPtrArray *line = make_line(&w);
    if (w.show)
        show(line);
    else
        status = run_qemu((int)line->len, (char *const *)line->pdata);
    g_ptr_array_free(line, TRUE);
    return status;
}

const struct command command_boot = {
    .name = "boot",
    .summary = "boot a kernel: yours, or Debian's, to a shell with its root in a directory of this host",
    .usage = usage,
    .run = boot,
};
