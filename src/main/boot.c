/*
 * armlet boot: a shell in an arm64 kernel with one command.  It makes a QEMU command line of defaults and of
 * what the user said, and runs that; --show prints it instead.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <glib.h>

#include "base/report.h"
#include "lab/kconfig.h"
#include "lab/lab.h"
#include "lab/rootfs.h"
#include "machine/boot.h"
#include "main/commands.h"
#include "main/line.h"

struct wishes {
    const char *image;    /* a file of the user's, or NULL: Debian's */
    const char *series, *smp, *memory, *cpu, *initrd, *append, *gdb, *root, *share, *ssh;
    bool panic_exit, show;
    char **rest;          /* behind --, or NULL */
};

/* Where the guest's root is. */
enum root_kind {
    ROOT_OTHER,      /* the user's own business */
    ROOT_MEMORY,     /* busybox in an initramfs */
    ROOT_NFS,        /* a directory, which the kernel mounts */
    ROOT_NFS_INITRD, /* a directory, which an initramfs with the modules mounts */
    ROOT_DISK,       /* an image, likewise */
    ROOT_DISK_INITRD
};

struct root {
    enum root_kind kind;
    char *path; /* of the directory or image */
};

#define TEXT(field, name, argument, help, complete) \
    { name, CLI_TEXT, offsetof(struct wishes, field), argument, help, complete }
#define OPTIONAL(field, name, argument, help) \
    { name, CLI_OPTIONAL, offsetof(struct wishes, field), argument, help, NULL }
#define FLAG(field, name, help) CLI_FLAG_OPTION(struct wishes, field, name, help)

static const struct cli_option options[] = {
    TEXT(series, "kernel", "6.1|6.12", "Debian's kernel of this series", "6.1 6.12"),
    TEXT(root, "root", "DIR|IMAGE",
         "the root: a directory, a disk image, a name that armlet rootfs list shows; none: memory", "file"),
    TEXT(share, "share", "DIR", "a directory of the host as /share in the guest", "dir"),
    TEXT(smp, "smp", "N", "vCPUs, 1 to 8 (default: the host's processors, at most 4)", NULL),
    TEXT(memory, "memory", "SIZE", "guest memory (default 1G)", NULL),
    TEXT(cpu, "cpu", "MODEL", "the processor (armlet -cpu help lists them)", NULL),
    TEXT(initrd, "initrd", "FILE|none", "initial RAM disk instead of all that", "file"),
    TEXT(append, "append", "TEXT", "more for the kernel's command line", NULL),
    OPTIONAL(gdb, "gdb", "tcp::PORT",
             "wait for a debugger there (tcp::1234), stopped before the first instruction"),
    OPTIONAL(ssh, "ssh", "PORT", "this port of the host (2222) leads to the guest's port 22"),
    FLAG(panic_exit, "panic-exit", "end with status 1 when the kernel panics"),
    FLAG(show, "show", "print the command line that this stands for, and end"),
    {NULL, CLI_FLAG, 0, NULL, NULL, NULL},
};

static const char text[] =
    "Boots KERNEL (an Image, Image.gz, EFI zboot or ELF file), or else the newest Debian kernel that is in\n"
    "the cache, or else Debian's, fetched.  Its root is a directory of this host, over NFS from armlet\n"
    "itself: files made in the guest are there on the host at once, and the other way round.  Without\n"
    "--root it is a busybox tree in ~/.local/share/armlet/root/busybox, made once.\n";

static const char notes[] =
    "What follows -- is added as it is, e.g.: armlet boot -- -drive file=disk.img,format=raw\n"
    "On the console, C-a h lists the keys; C-a x ends the machine.\n"
    "\n"
    "Exit status: 0 when the guest has powered off or was ended by a key; 1 when it could not be booted,\n"
    "or with --panic-exit has panicked.\n";

static void parse(struct wishes *w, char **argv)
{
    cli_parse(&command_boot, argv, w, &w->rest);
    if (argv[0] && argv[1])
        die("boot: one kernel, not '%s' and '%s' (QEMU's options go behind --)", argv[0], argv[1]);
    w->image = argv[0];
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

/* --- the root ------------------------------------------------------------------------------------------- */

/* Words behind -- that leave the machine without a network. */
static bool has_no_network(const struct wishes *w)
{
    for (char **p = w->rest; p && *p; p++) {
        const char *name = *p + strspn(*p, "-");

        if (!strcmp(name, "nodefaults") ||
            ((!strcmp(name, "nic") || !strcmp(name, "net")) && p[1] && !strcmp(p[1], "none")))
            return true;
    }
    return false;
}

/* The kernel's own bytes; ends the program when they cannot be had. */
static GBytes *unpack(const char *path)
{
    GError *err = NULL;
    char *data;
    gsize size;

    if (!g_file_get_contents(path, &data, &size, &err))
        die("%s", err->message);
    g_autoptr(GBytes) file = g_bytes_new_take(data, size);
    GBytes *image = boot_unpack_kernel(path, file, &err);
    if (!image)
        die("%s", err->message);
    return image;
}

/* The option is in the kernel's table of parameters when it was built with ROOT_NFS. */
static bool mounts_nfs(GBytes *image)
{
    static const char parameter[] = "nfsroot=";
    gsize size;
    const void *p = g_bytes_get_data(image, &size);

    return memmem(p, size, parameter, sizeof(parameter));
}

/*
 * Names what a kernel of the user's lacks for a purpose, and ends the program; nothing when its configuration
 * is unknown.
 */
static void require(const struct wishes *w, GBytes *image, const char *purpose,
                    const char *const *options_needed)
{
    g_autofree char *config = kconfig_find(w->image, image);
    g_autofree char *missing = config ? kconfig_missing(config, options_needed) : NULL;

    if (missing)
        die("boot: %s cannot %s; it lacks %s " KCONFIG_ADVICE, w->image, purpose, missing);
}

static void check_image(const struct wishes *w, GBytes *image, const struct root *r)
{
    static const char *const memory[] = { "BLK_DEV_INITRD", "BINFMT_ELF", "BINFMT_SCRIPT", NULL };
    static const char *const nfs[] = { "ROOT_NFS", "NFS_V3", "IP_PNP_DHCP", "VIRTIO_NET", "VIRTIO_PCI",
                                       "PCI_HOST_GENERIC", NULL };
    static const char *const disk[] = { "VIRTIO_BLK", "VIRTIO_PCI", "PCI_HOST_GENERIC", "EXT4_FS", NULL };
    static const char *const share[] = { "NET_9P", "NET_9P_VIRTIO", "9P_FS", NULL };

    if (r->kind == ROOT_MEMORY)
        require(w, image, "have its root in memory", memory);
    if (r->kind == ROOT_NFS)
        require(w, image, "mount its root by NFS", nfs);
    if (r->kind == ROOT_DISK)
        require(w, image, "mount its root from a disk", disk);
    if (w->share)
        require(w, image, "mount a shared directory", share);
}

static struct root choose_root(const struct wishes *w)
{
    bool none = w->root && !strcmp(w->root, "none"), wanted = w->root && !none;
    struct root r = { ROOT_MEMORY, NULL };
    GError *err = NULL;
    g_autoptr(GBytes) image = w->image ? unpack(w->image) : NULL;

    if (wanted)
        r.path = line_find_root(&command_boot, w->root);
    if (w->initrd || has_root(w)) {
        g_free(r.path);
        return (struct root){ ROOT_OTHER, NULL };
    }
    if (r.path && !g_file_test(r.path, G_FILE_TEST_IS_DIR))
        r.kind = image ? ROOT_DISK : ROOT_DISK_INITRD;
    else if (none || (!wanted && has_no_network(w)) || (!wanted && image && !mounts_nfs(image)))
        r.kind = ROOT_MEMORY;
    else
        r.kind = image ? ROOT_NFS : ROOT_NFS_INITRD;
    if (image)
        check_image(w, image, &r);
    if (r.kind == ROOT_NFS && !mounts_nfs(image))
        die("boot: %s cannot mount its root by NFS; it lacks CONFIG_ROOT_NFS=y " KCONFIG_ADVICE, w->image);
    if (!r.path && r.kind != ROOT_MEMORY && !(r.path = lab_rootfs_busybox(&err)))
        die("%s", err->message);
    return r;
}

static bool is_disk(const struct root *r)
{
    return r->kind == ROOT_DISK || r->kind == ROOT_DISK_INITRD;
}

/* What the kernel is told of its root; to be freed. */
static char *root_words(const struct root *r)
{
    g_autofree char *linuxrc = r->path ? g_build_filename(r->path, "linuxrc", NULL) : NULL;

    if (!r->path)
        return g_strdup("");
    if (is_disk(r))
        return g_strdup(" root=/dev/vda rw rootwait");
    return g_strdup_printf(
        " root=/dev/nfs nfsroot=10.0.2.2:%s%s rw ip=dhcp%s", line_export_name(r->path),
        r->kind == ROOT_NFS ? ",vers=3,tcp" : "",
        g_file_test(linuxrc, G_FILE_TEST_IS_SYMLINK | G_FILE_TEST_EXISTS) ? " init=/linuxrc" : "");
}

static void add_share(GPtrArray *line, const char *wish)
{
    g_autofree char *path = g_canonicalize_filename(wish, NULL);

    if (access(path, R_OK | X_OK) || !g_file_test(path, G_FILE_TEST_IS_DIR))
        die("boot: --share %s: %s", wish, access(path, R_OK | X_OK) ? strerror(errno) : "not a directory");
    line_add_share(line, path, false);
}

static void add_ssh(GPtrArray *line, const char *port)
{
    guint64 n = *port ? g_ascii_strtoull(port, NULL, 10) : 2222;
    g_autofree char *value = g_strdup_printf("user,hostfwd=tcp:127.0.0.1:%u-:22", (unsigned)n);

    if (n < 1 || n > 65535)
        die("boot: --ssh=%s: give a port", port);
    line_add(line, "-nic", value);
    warn("once the guest serves it: ssh -p %u root@127.0.0.1", (unsigned)n);
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
    bool mounts = root->kind == ROOT_NFS_INITRD || root->kind == ROOT_DISK_INITRD;
    if (mounts) {
        what.modules = root->kind == ROOT_NFS_INITRD ? lab_nfs_modules : lab_disk_modules;
        what.nfs_root = true;
    }
    what.late = w->share && !w->image ? lab_share_modules : NULL;
    line_add(line, "-kernel", w->image ? w->image : kernel.image);
    if ((root->kind == ROOT_MEMORY || mounts) &&
        !(initramfs = lab_initramfs_busybox(&what, &err)))
        die("%s", err->message);
    if (initramfs)
        line_add(line, "-initrd", initramfs);
    else if (w->initrd && strcmp(w->initrd, "none"))
        line_add(line, "-initrd", w->initrd);
    g_free(initramfs);
    lab_kernel_clear(&kernel);
}

/*
 * The terminal's size, as the kernel hands it to init: a serial line cannot tell it, and etc/profile of our
 * roots does.  To be freed; empty without a terminal.
 */
static char *window_words(void)
{
    struct winsize size;

    if (!isatty(STDIN_FILENO) || ioctl(STDIN_FILENO, TIOCGWINSZ, &size) || !size.ws_row || !size.ws_col)
        return g_strdup("");
    return g_strdup_printf(" LINES=%u COLUMNS=%u", size.ws_row, size.ws_col);
}

static GPtrArray *make_line(const struct wishes *w)
{
    GPtrArray *line = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *smp = g_strdup_printf("%u", MIN(g_get_num_processors(), 4));
    bool has_console = w->append && strstr(w->append, "console=");
    struct root root = choose_root(w);
    g_autofree char *words = root_words(&root);
    g_autofree char *window = window_words();
    g_autofree char *append =
        g_strconcat(has_console ? "" : "console=ttyAMA0", words, w->share ? " armlet.share=/share" : "",
                    window, w->append ? " " : "", w->append, NULL);

    line_add(line, "-machine", "virt");
    line_add(line, "-nographic", NULL);
    if (w->cpu)
        line_add(line, "-cpu", w->cpu);
    line_add(line, "-smp", w->smp ? w->smp : smp);
    line_add(line, "-m", w->memory ? w->memory : "1G");
    add_images(line, w, &root);
    line_add(line, "-append", g_strchug(append));
    if (is_disk(&root))
        line_add_disk(line, root.path);
    else if (root.path)
        line_add_export(line, root.path);
    if (w->share)
        add_share(line, w->share);
    g_free(root.path);
    if (w->panic_exit)
        line_add(line, "-action", "panic=exit-failure");
    if (w->ssh)
        add_ssh(line, w->ssh);
    if (w->gdb) {
        line_add(line, "-gdb", *w->gdb ? w->gdb : "tcp::1234");
        line_add(line, "-S", NULL);
    }
    for (char **p = w->rest; p && *p; p++)
        line_add(line, *p, NULL);
    return line;
}

static void show(const GPtrArray *line)
{
    printf("%s", report_program());
    for (guint i = 0; i < line->len; i++) {
        const char *word = g_ptr_array_index(line, i);
        g_autofree char *quoted = g_shell_quote(word);
        bool plain =
            *word && strspn(word, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "-_=,./:+") == strlen(word);
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

static const char examples[] =
    "  armlet boot --kernel 6.1 --show           # the command line that it stands for\n"
    "  armlet boot --root none --share . --show  # busybox in memory, and this directory as /share\n";

const struct command command_boot = {
    .name = "boot",
    .summary = "boot a kernel: yours, or Debian's, to a shell with its root in a directory of this host",
    .synopsis = "boot [KERNEL] [options] [-- QEMU OPTIONS]",
    .text = text,
    .options = options,
    .notes = notes,
    .examples = examples,
    .run = boot,
};
