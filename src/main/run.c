/*
 * armlet run: a command in a guest, with its output, its status, and nothing else.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <glib.h>

#include "base/report.h"
#include "lab/kconfig.h"
#include "lab/lab.h"
#include "machine/boot.h"
#include "main/commands.h"
#include "main/line.h"
#include "main/results.h"
#include "main/session.h"

struct wishes {
    const char *series, *smp, *memory, *cpu, *append, *log, *timeout, *hang, *cwd, *share, *junit, *root;
    GPtrArray *env, *qemu;
    bool no_tty, keep_going, timing, verbose, no_share, read_only, ktap;
};

/* What of the host the guest has: a directory, and its root. */
struct share {
    char *host;        /* NULL: none */
    const char *guest; /* where it is mounted */
    char *root;        /* a directory or an image; NULL: none, but busybox in memory */
    bool disk;         /* an image */
};

#define TEXT(field, name, argument, help, complete) \
    { name, CLI_TEXT, offsetof(struct wishes, field), argument, help, complete }
#define FLAG(field, name, help) CLI_FLAG_OPTION(struct wishes, field, name, help)

static const struct cli_option options[] = {
    TEXT(series, "kernel", "6.1|6.12", "Debian's kernel of this series", "6.1 6.12"),
    TEXT(smp, "smp", "N", "vCPUs, 1 to 8 (default: the host's processors, at most 4)", NULL),
    TEXT(memory, "memory", "SIZE", "guest memory (default 1G)", NULL),
    TEXT(cpu, "cpu", "MODEL", "the processor (armlet -cpu help lists them)", NULL),
    TEXT(share, "share", "DIR", "the directory that the guest shares (default: the current one)", "dir"),
    FLAG(read_only, "read-only", "the guest may not write to it"),
    FLAG(no_share, "no-share", "the guest shares none"),
    TEXT(root, "root", "DIR|IMAGE",
         "the command's root: a directory by NFS, an image, a name; default: busybox in memory", "file"),
    TEXT(cwd, "cwd", "DIR", "the command's working directory in the guest (default: the shared one)", NULL),
    {"env", CLI_LIST, offsetof(struct wishes, env), "NAME[=VALUE]",
     "an environment variable for the command; without =VALUE ours", NULL},
    TEXT(timeout, "timeout", "SECONDS",
         "end with status 124 after this time, boot included; also 1.5, 2m, 1h", NULL),
    TEXT(hang, "hang", "SECONDS", "no sign of life for so long is a hang (default 60; 0: never)", NULL),
    TEXT(log, "log", "FILE", "the kernel's log goes into FILE, - for stderr", "file"),
    FLAG(verbose, "verbose", "the kernel's log goes to stderr, all of it"),
    FLAG(keep_going, "keep-going", "an oops, a stall or a hung task does not end the run"),
    FLAG(no_tty, "no-tty", "no terminal for the command, even if we have one"),
    FLAG(ktap, "ktap", "read the output as test results; without a command, the kernel's log (KUnit)"),
    TEXT(junit, "junit", "FILE", "write the test results as JUnit XML, too", "file"),
    TEXT(append, "append", "TEXT", "more for the kernel's command line", NULL),
    {"qemu", CLI_LIST, offsetof(struct wishes, qemu), "WORDS",
     "more for the machine's command line, as for armlet -...", NULL},
    FLAG(timing, "timing", "when what happened, on stderr"),
    {NULL, CLI_FLAG, 0, NULL, NULL, NULL},
};

static const char text[] =
    "Boots a kernel, runs COMMAND in it as root, and ends with its status.  The command has our standard\n"
    "input; what it writes to its standard output and error comes out of ours, and nothing else does.  If\n"
    "standard input and output are a terminal, the command gets one too, of the same size (C-a x ends the\n"
    "machine, C-a h lists the keys).  The current directory is shared with the guest, under its own name,\n"
    "and is the command's working directory.  KERNEL is an Image, Image.gz, EFI zboot or ELF file; without\n"
    "it, it is the newest Debian kernel in the cache, or else Debian's, fetched.\n";

static const char notes[] =
    "With --ktap, TAP, KTAP and kselftest's output are shown as a line a test, a table and a sum; a test\n"
    "that began and has no result has crashed, and a plan that is missing or not met is a failure.  The\n"
    "status is then 0 only if all passed (or were skipped, or failed as expected), and 1 if not.\n"
    "\n"
    "C-c goes to the command; a second C-c ends the machine, with status 130 (on a terminal, C-a x does).\n"
    "Before the command has started, the first one does.\n"
    "\n"
    "Exit status: the command's own (128+N: it died of signal N; 126, 127: it could not be started), or\n"
    "  124  --timeout is over                     243  RCU stall\n"
    "  125  armlet could not run the command      244  the command was killed for want of memory\n"
    "  240  kernel panic                          245  hang: no sign of life, or a task blocked for minutes\n"
    "  241  oops                                  246  the guest ended before the command did\n"
    "  242  soft lockup\n"
    "and then one line on stderr says what happened, behind the kernel's report of it and ours: functions\n"
    "and tasks of a panic or an oops, or what each CPU and the blocked tasks are at.\n";

/* Seconds of "90", "1.5", "2m", "1h"; negative when it is nothing of that. */
static double parse_seconds(const char *s)
{
    static const struct {
        const char *suffix;
        double factor;
    } units[] = { { "", 1 }, { "s", 1 }, { "m", 60 }, { "h", 3600 } };
    char *end;
    double n = g_ascii_strtod(s, &end);

    for (size_t i = 0; i < G_N_ELEMENTS(units); i++)
        if (end != s && !strcmp(end, units[i].suffix) && n >= 0 && n * units[i].factor < 1e6)
            return n * units[i].factor;
    return -1;
}

static double seconds_option(const char *name, const char *value, double fallback)
{
    double n = value ? parse_seconds(value) : fallback;

    if (n < 0)
        cli_fail(&command_run, "--%s %s: give seconds, or a number with m or h", name, value);
    return n;
}

/* --- the job: shell for lab/agent.sh -------------------------------------------------------------------- */

/* Quoted for the agent's shell, in one line: its $nl is a newline. */
static void append_quoted(GString *out, const char *s)
{
    g_string_append_c(out, '\'');
    for (; *s; s++) {
        if (*s == '\'')
            g_string_append(out, "'\\''");
        else if (*s == '\n')
            g_string_append(out, "'\"$nl\"'");
        else
            g_string_append_c(out, *s);
    }
    g_string_append_c(out, '\'');
}

static void assign(GPtrArray *job, const char *name, const char *value)
{
    GString *s = g_string_new(NULL);

    g_string_append_printf(s, "%s=", name);
    append_quoted(s, value);
    g_string_append_c(s, ';');
    g_ptr_array_add(job, g_string_free(s, FALSE));
}

static bool is_variable(const char *name, size_t n)
{
    return n && !g_ascii_isdigit(*name) && strspn(name, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "_") == n;
}

static void export(GPtrArray *job, const char *wish)
{
    const char *eq = strchr(wish, '=');
    g_autofree char *name = g_strndup(wish, eq ? (size_t)(eq - wish) : strlen(wish));
    const char *value = eq ? eq + 1 : g_getenv(name);
    g_autofree char *exported = g_strconcat("export ", name, NULL);

    if (!is_variable(name, strlen(name)))
        cli_fail(&command_run, "--env %s: give NAME or NAME=VALUE", wish);
    if (value)
        assign(job, exported, value);
}

static void assign_terminal(GPtrArray *job)
{
    struct winsize w = { .ws_row = 24, .ws_col = 80 };
    char number[16];

    ioctl(STDOUT_FILENO, TIOCGWINSZ, &w);
    assign(job, "tty", "1");
    g_snprintf(number, sizeof number, "%u", w.ws_row);
    assign(job, "rows", number);
    g_snprintf(number, sizeof number, "%u", w.ws_col);
    assign(job, "cols", number);
    export(job, "TERM");
}

static char **make_job(const struct wishes *w, const struct share *share, bool tty, char *const *command)
{
    GPtrArray *job = g_ptr_array_new();
    GString *set = g_string_new("set --");

    assign(job, "host", "armlet");
    assign(job, "cwd", w->cwd ? w->cwd : share->host ? share->guest : "/root");
    if (share->host) {
        assign(job, "share", share->guest);
        assign(job, "shareflags", w->read_only ? "ro" : "rw");
    }
    if (share->root) {
        assign(job, "root", share->disk ? "/dev/vda" : line_export_name(share->root));
        assign(job, "disk", share->disk ? "1" : "");
    }
    if (tty)
        assign_terminal(job);
    for (guint i = 0; w->env && i < w->env->len; i++)
        export(job, g_ptr_array_index(w->env, i));
    for (; *command; command++) {
        g_string_append_c(set, ' ');
        append_quoted(set, *command);
    }
    g_ptr_array_add(job, g_string_free(set, FALSE));
    g_ptr_array_add(job, NULL);
    return (char **)g_ptr_array_free(job, FALSE);
}

/* --- the machine ---------------------------------------------------------------------------------------- */

/* The options that a kernel of the user's must have been built with, where its configuration can be found. */
static void check_kernel(const char *image, const struct share *share)
{
    static const char *const always[] = { "BLK_DEV_INITRD", "BINFMT_ELF", "BINFMT_SCRIPT", "DEVTMPFS",
                                          "PROC_FS", "SYSFS", "TMPFS", "VIRTIO_MMIO", "VIRTIO_CONSOLE",
                                          "SERIAL_AMBA_PL011_CONSOLE", NULL };
    static const char *const network[] = { "VIRTIO_PCI", "VIRTIO_NET", "NFS_FS", "NFS_V3", NULL };
    static const char *const disk[] = { "VIRTIO_PCI", "VIRTIO_BLK", "EXT4_FS", NULL };
    static const char *const shared[] = { "NET_9P", "NET_9P_VIRTIO", "9P_FS", NULL };
    g_autofree char *data = NULL, *config = NULL, *missing = NULL;
    GError *err = NULL;
    gsize size;

    if (!g_file_get_contents(image, &data, &size, &err))
        cli_fail(&command_run, "%s", err->message);
    g_autoptr(GBytes) file = g_bytes_new_static(data, size), unpacked = boot_unpack_kernel(image, file, &err);
    if (!unpacked)
        cli_fail(&command_run, "%s", err->message);
    config = kconfig_find(image, unpacked);
    if (!config)
        return;
    if ((missing = kconfig_missing(config, always)))
        cli_fail(&command_run, "%s cannot run commands; it lacks %s " KCONFIG_ADVICE, image, missing);
    if (share->host && (missing = kconfig_missing(config, shared)))
        cli_fail(&command_run,
                 "%s cannot share a directory (--no-share does without); it lacks %s " KCONFIG_ADVICE, image,
                 missing);
    if (share->root && (missing = kconfig_missing(config, share->disk ? disk : network)))
        cli_fail(&command_run, "%s cannot have its root there; it lacks %s " KCONFIG_ADVICE, image, missing);
}

/* Modules that the agent loads for what it mounts; ends in NULL.  g_free() the array. */
static const char **late_modules(const struct share *share)
{
    const char *const *lists[] = { share->host ? lab_share_modules : NULL,
                                   !share->root ? NULL : share->disk ? lab_disk_modules : lab_nfs_modules };
    GPtrArray *all = g_ptr_array_new();

    for (unsigned i = 0; i < G_N_ELEMENTS(lists); i++)
        for (const char *const *m = lists[i]; m && *m; m++)
            g_ptr_array_add(all, (gpointer)*m);
    g_ptr_array_add(all, NULL);
    return (const char **)g_ptr_array_free(all, FALSE);
}

static void add_images(GPtrArray *line, const struct wishes *w, const char *image, const struct share *share)
{
    g_autofree const char **late = late_modules(share);
    struct lab_initramfs what = { .agent = true };
    struct lab_kernel kernel = { 0 };
    GError *err = NULL;
    char *initramfs;

    if (!image) {
        if (!lab_kernel_get(w->series, false, &kernel, &err))
            cli_fail(&command_run, "%s", err->message);
        what.kernel = &kernel;
        what.modules = lab_agent_modules;
        what.late = late;
    }
    initramfs = lab_initramfs_busybox(&what, &err);
    if (!initramfs)
        cli_fail(&command_run, "%s", err->message);
    line_add(line, "-kernel", image ? image : kernel.image);
    line_add(line, "-initrd", initramfs);
    g_free(initramfs);
    lab_kernel_clear(&kernel);
}

/* Words between spaces, quoted as for a shell. */
static void add_words(GPtrArray *line, const char *words)
{
    g_auto(GStrv) list = NULL;
    GError *err = NULL;
    int n;

    if (!g_shell_parse_argv(words, &n, &list, &err))
        cli_fail(&command_run, "--qemu %s: %s", words, err->message);
    for (char **p = list; *p; p++)
        line_add(line, *p, NULL);
}

/* log: all of the kernel's log is wanted. */
static GPtrArray *make_line(const struct wishes *w, const char *image, const struct share *share, bool log)
{
    GPtrArray *line = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *smp = g_strdup_printf("%u", MIN(g_get_num_processors(), 4));
    /*
     * Warnings too: what precedes trouble belongs to its report.  The self-tests of the kernel's cryptography
     * are a third of Debian's boot (6.12: 1.45 s of the host's time with them, 1.02 s without).
     */
    g_autofree char *append =
        g_strconcat("console=ttyAMA0 cryptomgr.notests loglevel=", w->log || w->verbose || log ? "8" : "5",
                    w->append ? " " : "", w->append, NULL);

    line_add(line, "-machine", "virt");
    line_add(line, "-nodefaults", NULL);
    line_add(line, "-display", "none");
    line_add(line, "-no-reboot", NULL);
    if (w->cpu)
        line_add(line, "-cpu", w->cpu);
    line_add(line, "-smp", w->smp ? w->smp : smp);
    line_add(line, "-m", w->memory ? w->memory : "1G");
    add_images(line, w, image, share);
    line_add(line, "-append", append);
    for (guint i = 0; w->qemu && i < w->qemu->len; i++)
        add_words(line, g_ptr_array_index(w->qemu, i));
    return line;
}

/* --- the shared directory ------------------------------------------------------------------------------- */

/* Folders that the guest needs for itself: one of these is shared as /host. */
static bool is_the_guests(const char *path)
{
    static const char *const folders[] = { "/", "/bin", "/sbin", "/usr", "/usr/bin", "/usr/sbin", "/etc",
                                           "/lib", "/dev", "/proc", "/sys", "/run", "/tmp", NULL };
    return g_strv_contains(folders, path);
}

static void choose_share(const struct wishes *w, struct share *share)
{
    if (w->no_share && w->share)
        cli_fail(&command_run, "give --share or --no-share, not both");
    if (w->no_share)
        return;
    share->host = realpath(w->share ? w->share : ".", NULL);
    if (!share->host)
        cli_fail(&command_run, "--share %s: %s", w->share ? w->share : ".", g_strerror(errno));
    if (!g_file_test(share->host, G_FILE_TEST_IS_DIR))
        cli_fail(&command_run, "--share %s: not a directory", w->share);
    share->guest = is_the_guests(share->host) ? "/host" : share->host;
}

static void choose_root(const struct wishes *w, struct share *share)
{
    if (!w->root)
        return;
    share->root = line_find_root(&command_run, w->root);
    share->disk = !g_file_test(share->root, G_FILE_TEST_IS_DIR);
}

static void add_network_root(GPtrArray *line, const char *root)
{
    line_add(line, "-nic", "user");
    line_add_export(line, root);
}

static void check_words(char **argv, char **command, const struct wishes *w)
{
    if ((!command || !*command) && !w->ktap)
        cli_fail(&command_run, "give a command behind --, as in: armlet run -- uname -a");
    if (argv[0] && argv[1])
        cli_fail(&command_run, "one kernel, not '%s' and '%s' (the command goes behind --)", argv[0],
                 argv[1]);
    if (argv[0] && w->series)
        cli_fail(&command_run, "give a kernel file or --kernel, not both");
    if (w->junit && !w->ktap)
        cli_fail(&command_run, "--junit goes with --ktap");
}

static struct session_options session_options(const struct wishes *w, struct results *results, bool log)
{
    return (struct session_options){
        .tty = !results && !w->no_tty && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO),
        .timeout = seconds_option("timeout", w->timeout, 0),
        .hang = (unsigned)seconds_option("hang", w->hang, 60),
        .log = w->log ? w->log : w->verbose ? "-" : NULL,
        .keep_going = w->keep_going,
        .phases = w->timing,
        .output = results && !log ? results_feed : NULL,
        .log_output = results && log ? results_feed : NULL,
        .opaque = results,
    };
}

int run_for(char **argv, void (*output)(void *opaque, const void *data, size_t len), void *opaque)
{
    static char *const nothing[] = { (char *)"true", NULL };
    struct wishes w = { 0 };
    struct share share = { 0 };
    char **command;

    cli_parse(&command_run, argv, &w, &command);
    check_words(argv, command, &w);
    bool from_log = !command || !*command;
    struct results *results = w.ktap ? results_new() : NULL;
    struct session_options o = session_options(&w, results, from_log);
    if (output) {
        o.output = output;
        o.opaque = opaque;
        o.tty = false;
    }
    choose_share(&w, &share);
    choose_root(&w, &share);
    o.job = make_job(&w, &share, o.tty, from_log ? nothing : command);
    if (argv[0])
        check_kernel(argv[0], &share);
    GPtrArray *line = make_line(&w, argv[0], &share, from_log);
    if (share.root && share.disk)
        line_add_disk(line, share.root);
    else if (share.root)
        add_network_root(line, share.root);
    if (share.host)
        line_add_share(line, share.host, w.read_only);
    int status = session_run(line, &o);
    if (results && !results_end(results, w.junit) && !status)
        status = EXIT_FAILURE;
    g_ptr_array_free(line, TRUE);
    g_strfreev(o.job);
    g_free(share.host);
    g_free(share.root);
    return status;
}

static int run(int argc, char **argv)
{
    (void)argc;
    return run_for(argv, NULL, NULL);
}

static const char examples[] =
    "  armlet run -- uname -a                                                   # the newest kernel there\n"
    "  echo 40 + 2 | armlet run --kernel 6.1 -- bc                              # input, too\n"
    "  armlet run --timeout 2m --log kernel.log -- sh -c 'dmesg | tail -n 3'    # with a limit\n"
    "  armlet run --ktap --junit out.xml -- sh -c 'echo 1..1; echo ok 1 works'  # read test results\n";

const struct command command_run = {
    .name = "run",
    .summary = "run a command in a kernel and end with its status",
    .synopsis =
        "run [KERNEL] [options] -- COMMAND [ARGUMENT...]\nrun [KERNEL] --ktap [options] [-- COMMAND...]",
    .text = text,
    .options = options,
    .notes = notes,
    .examples = examples,
    .failure = RUN_FAILED,
    .run = run,
};
