/*
 * armlet boot: a shell in an arm64 kernel with one command.  It makes a QEMU command line of defaults and of what the
 * user said, and runs that; --show prints it instead.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "base/report.h"
#include "lab/lab.h"
#include "machine/props.h"
#include "main/commands.h"

struct wishes {
    const char *image;    /* a file of the user's, or NULL: Debian's */
    const char *series, *smp, *memory, *cpu, *initrd, *append, *gdb;
    bool panic_exit, show;
    char **rest;          /* behind --, or NULL */
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
    TEXT("append", append), TEXT("gdb", gdb), FLAG("panic-exit", panic_exit), FLAG("show", show),
};

static const char usage[] =
    "usage: armlet boot [KERNEL] [options] [-- QEMU OPTIONS]\n"
    "\n"
    "Boots KERNEL (an Image, Image.gz, EFI zboot or ELF file), or else the newest Debian kernel that is in the\n"
    "cache, or else Debian's, fetched; with busybox as its root in memory.\n"
    "\n"
    "  --kernel 6.1|6.12   Debian's kernel of this series\n"
    "  --smp N             vCPUs, 1 to 8 (default: the host's processors, at most 4)\n"
    "  --memory SIZE       guest memory (default 1G)\n"
    "  --cpu MODEL         the processor (armlet -cpu help lists them)\n"
    "  --initrd FILE|none  initial RAM disk instead of busybox\n"
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

/* Kernel and initramfs; ends the program when they cannot be had. */
static void add_images(GPtrArray *line, const struct wishes *w)
{
    GError *err = NULL;
    struct lab_kernel kernel = { 0 };
    struct lab_initramfs what = { 0 };
    char *busybox = NULL;
    bool want_busybox = !w->initrd && !has_root(w);

    if (!w->image && !lab_kernel_get(w->series, false, &kernel, &err))
        die("%s", err->message);
    if (!w->image)
        what = (struct lab_initramfs){ .kernel = &kernel, .modules = lab_virtio_modules };
    add(line, "-kernel", w->image ? w->image : kernel.image);
    if (want_busybox && !(busybox = lab_initramfs_busybox(&what, &err)))
        die("%s", err->message);
    if (busybox)
        add(line, "-initrd", busybox);
    else if (w->initrd && strcmp(w->initrd, "none"))
        add(line, "-initrd", w->initrd);
    g_free(busybox);
    lab_kernel_clear(&kernel);
}

static GPtrArray *make_line(const struct wishes *w)
{
    GPtrArray *line = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *smp = g_strdup_printf("%u", MIN(g_get_num_processors(), 4));
    bool has_console = w->append && strstr(w->append, "console=");
    g_autofree char *append = g_strconcat(has_console ? "" : "console=ttyAMA0", w->append && !has_console ? " " : "",
                                          w->append, NULL);

    add(line, "-machine", "virt");
    add(line, "-nographic", NULL);
    if (w->cpu)
        add(line, "-cpu", w->cpu);
    add(line, "-smp", w->smp ? w->smp : smp);
    add(line, "-m", w->memory ? w->memory : "1G");
    add_images(line, w);
    add(line, "-append", append);
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
    "boot", "boot a kernel: yours, or Debian's, to a busybox shell", usage, boot };
