/*
 * Life of a machine: requests from vCPU threads (PSCI) and from the user become one value, which the main loop acts
 * upon; so a device or a vCPU never tears down what it is running in.
 */
#include "machine/machine.h"

#include <errno.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/outfile.h"
#include "base/report.h"
#include "base/trace.h"
#include "cpu/lockstep.h"
#include "debug/control.h"
#include "dev/pl061.h"
#include "jit/jit.h"
#include "kernel/kernel.h"
#include "machine/boot.h"
#include "machine/chardevs.h"
#include "machine/devices.h"
#include "machine/devtree.h"
#include "machine/diagnose.h"
#include "machine/monitors.h"
#include "machine/virt.h"

struct machine {
    const struct config *config;
    struct chardevs *chardevs;
    struct board board;
    struct devices *devices;
    struct diagnose *diagnose;
    struct monitors *monitors;
    struct control *control; /* theirs */
    struct boot_files files;
    FILE *lockstep_log; /* NULL: no lockstep */
    GMainLoop *loop;
    GSource *request_source;
    atomic_uint requests; /* bit per enum machine_request */
    guint signals[3];
    void (*interrupted)(void *opaque); /* for SIGINT; NULL: it ends the machine */
    void *interrupted_opaque;
    int status;
};

/* --- boot ------------------------------------------------------------------------------------------------ */

static GBytes *build_tree(const struct config *c, const struct boot_image *image, GError **err)
{
    const struct devtree_config f = {
        .smp = c->smp, .ram_size = c->ram, .highmem = c->highmem,
        .seeds = c->dtb_seeds && !c->lockstep, .model = c->cpu, .append = c->append, .dtb = c->dtb,
        .initrd_pa = image->initrd_pa, .initrd_size = image->initrd_size,
    };
    return devtree_build(&f, err);
}

/* Puts the images into RAM, as after power-on. */
static bool load(struct machine *m, uint64_t *pc, GError **err)
{
    struct boot_image image;

    if (!boot_load(m->board.mem, &m->files, &image, err) ||
        !diagnose_check_kernel(m->board.mem, &image, m->config, m->board.cluster->cpu[0], err))
        return false;
    kernel_set_image(control_kernel(m->control), image.kernel_pa, image.kernel_size);
    GBytes *tree = build_tree(m->config, &image, err);
    if (!tree)
        return false;
    bool ok = boot_finish(m->board.mem, &image, g_bytes_get_data(tree, NULL), g_bytes_get_size(tree), pc, err);
    g_bytes_unref(tree);
    return ok;
}

bool machine_dump_dtb(const struct config *config, GError **err)
{
    const struct boot_image none = { 0 };
    GBytes *tree = build_tree(config, &none, err);

    if (!tree)
        return false;
    bool ok = outfile_write(config->dumpdtb, g_bytes_get_data(tree, NULL), g_bytes_get_size(tree), err);
    g_bytes_unref(tree);
    return ok;
}

/* --- requests ---------------------------------------------------------------------------------------------- */

void machine_request(struct machine *m, enum machine_request what)
{
    atomic_fetch_or(&m->requests, 1u << what);
    g_source_set_ready_time(m->request_source, 0);
}

static void system_off(void *opaque)
{
    machine_request(opaque, MACHINE_POWER_OFF);
}

static void system_reset(void *opaque)
{
    machine_request(opaque, MACHINE_RESET);
}

static const struct cluster_ops cluster_callbacks = { system_off, system_reset };

enum { POWER_KEY_MS = 100 }; /* beyond the 5 ms for which gpio-keys waits until the key is steady */

void machine_powerdown(struct machine *m)
{
    pl061_pulse(m->board.gpio, GPIO_POWEROFF_LINE, POWER_KEY_MS);
}

static void reset(struct machine *m)
{
    GError *err = NULL;
    uint64_t pc;

    cluster_pause(m->board.cluster);
    control_tell(m->control, CONTROL_RESET);
    board_reset(&m->board);
    if (!load(m, &pc, &err)) {
        warn("cannot boot again: %s", err->message);
        g_error_free(err);
        m->status = 1;
        g_main_loop_quit(m->loop);
        return;
    }
    cluster_reset(m->board.cluster, pc, 0);
    diagnose_start(m->diagnose, m->board.cluster, control_kernel(m->control));
    cluster_resume(m->board.cluster);
}

static void end(struct machine *m, int status)
{
    m->status = status;
    control_tell(m->control, CONTROL_SHUTDOWN);
    g_main_loop_quit(m->loop);
}

static void power_off(struct machine *m)
{
    if (!m->config->no_shutdown) {
        end(m, 0);
        return;
    }
    control_tell(m->control, CONTROL_SHUTDOWN);
    control_stop(m->control, RUN_SHUTDOWN);
}

static void on_panic(struct machine *m)
{
    control_tell(m->control, CONTROL_PANICKED);
    switch (m->config->on_panic) {
    case PANIC_NONE: break;
    case PANIC_PAUSE: control_stop(m->control, RUN_PANICKED); break;
    case PANIC_SHUTDOWN: power_off(m); break;
    case PANIC_EXIT_FAILURE: end(m, 1); break;
    }
}

static gboolean on_request(gpointer opaque)
{
    struct machine *m = opaque;
    unsigned requests = atomic_exchange(&m->requests, 0);
    const char *reason = requests & 1u << MACHINE_POWER_OFF ? "guest-shutdown"
                         : requests & 1u << MACHINE_RESET ? "guest-reset" : "host-signal";

    /* With panic=N the kernel reboots before its panic has been acted upon. */
    if (diagnose_panicked(m->diagnose) && requests & 1u << MACHINE_RESET && m->config->on_panic != PANIC_NONE)
        requests = 1u << MACHINE_PANIC;
    if (!strcmp(control_reason(m->control), "none"))
        control_set_reason(m->control, reason);
    if (requests & 1u << MACHINE_QUIT)
        end(m, 0);
    else if (requests & 1u << MACHINE_POWER_OFF)
        power_off(m);
    else if (requests & 1u << MACHINE_RESET && m->config->no_reboot)
        power_off(m);
    else if (requests & 1u << MACHINE_RESET)
        reset(m);
    if (requests & 1u << MACHINE_PANIC)
        on_panic(m);
    control_set_reason(m->control, NULL);
    return G_SOURCE_CONTINUE;
}

static gboolean request_dispatch(GSource *source, GSourceFunc fn, gpointer data)
{
    g_source_set_ready_time(source, -1);
    return fn(data);
}
static GSourceFuncs request_funcs = { .dispatch = request_dispatch };

static void quit(void *opaque)
{
    machine_request(opaque, MACHINE_QUIT);
}

static void panicked(void *opaque)
{
    machine_request(opaque, MACHINE_PANIC);
}

static char *commit(void *opaque)
{
    return devices_commit(((struct machine *)opaque)->devices);
}

/* SIGTERM, SIGHUP and SIGINT end the machine as the user's C-a x does: output written, terminal restored. */
static gboolean on_signal(gpointer m)
{
    quit(m);
    return G_SOURCE_CONTINUE;
}

static gboolean on_interrupt(gpointer opaque)
{
    struct machine *m = opaque;

    if (m->interrupted)
        m->interrupted(m->interrupted_opaque);
    else
        quit(m);
    return G_SOURCE_CONTINUE;
}

void machine_on_interrupt(struct machine *m, void (*interrupted)(void *opaque), void *opaque)
{
    m->interrupted = interrupted;
    m->interrupted_opaque = opaque;
}

char *machine_describe_hang(struct machine *m)
{
    GString *text = g_string_new(NULL);

    cluster_pause(m->board.cluster);
    bool known = kernel_print_hang(control_kernel(m->control), text);
    cluster_resume(m->board.cluster);
    return g_string_free(text, !known);
}

/* --- life ---------------------------------------------------------------------------------------------------- */

static void press_power(void *opaque)
{
    machine_powerdown(opaque);
}

/* The kernel as it was loaded, for what is to be known of it later. */
static GBytes *kernel_source(void *opaque)
{
    const struct boot_files *f = &((struct machine *)opaque)->files;
    return f->kernel ? boot_unpack_kernel(f->kernel_name, f->kernel, NULL) : NULL;
}

static void name_address(void *kernel, uint64_t va, char *buf, size_t size)
{
    kernel_name_running(kernel, va, buf, size);
}

static bool build(struct machine *m, GError **err)
{
    const struct mux_actions actions = { .quit = quit, .commit = commit, .opaque = m };
    const struct monitors_ops verbs = { quit, system_reset, press_power, m };

    m->chardevs = chardevs_new(m->config, &actions, err);
    if (!m->chardevs)
        return false;
    m->diagnose = diagnose_new(m->config, chardevs_serial(m->chardevs, 0), panicked, m);
    if (!board_init(&m->board, m->config, diagnose_console(m->diagnose), err))
        return false;
    m->devices = devices_new(m->config, &m->board, m->chardevs, err);
    if (!m->devices)
        return false;
    m->monitors = monitors_new(m->config, &m->board, m->chardevs, devices_netdevs(m->devices), &verbs, err);
    if (!m->monitors)
        return false;
    m->control = monitors_control(m->monitors);
    kernel_set_source(control_kernel(m->control), kernel_source, m);
    trace_set_namer(name_address, control_kernel(m->control));
    if (m->config->kernel_symbols && !kernel_load_symbols(control_kernel(m->control), m->config->kernel_symbols, err))
        return false;
    for (guint i = 0; i < m->config->module_symbols->len; i++)
        kernel_add_modules(control_kernel(m->control), g_ptr_array_index(m->config->module_symbols, i));
    m->board.cluster->ops = &cluster_callbacks;
    m->board.cluster->ops_opaque = m;
    return true;
}

struct machine *machine_new(const struct config *config, GError **err)
{
    static const int signals[] = { SIGTERM, SIGHUP, SIGINT };
    struct machine *m = g_new0(struct machine, 1);

    m->config = config;
    /* First: a pipe may keep us waiting, and C-c must end that. */
    if (!boot_open(&m->files, config->kernel, config->initrd, err)) {
        g_free(m);
        return NULL;
    }
    m->loop = g_main_loop_new(NULL, FALSE);
    m->request_source = g_source_new(&request_funcs, sizeof *m->request_source);
    g_source_set_callback(m->request_source, on_request, m, NULL);
    g_source_attach(m->request_source, NULL);
    /* Before the terminal is made raw: a signal that came in between would leave it so. */
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++)
        m->signals[i] = g_unix_signal_add(signals[i], signals[i] == SIGINT ? on_interrupt : on_signal, m);
    if (!build(m, err)) {
        machine_free(m);
        return NULL;
    }
    return m;
}

static void print_stats(const struct machine *m)
{
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; i < m->board.cluster->n; i++)
        jit_describe(m->board.cluster->cpu[i], text);
    fputs(text->str, stderr);
    g_string_free(text, TRUE);
}

/* --- -accel lockstep= --- */

static bool lockstep_open(struct machine *m, GError **err)
{
    const struct config *c = m->config;

    if (!c->lockstep)
        return true;
    m->lockstep_log = c->lockstep_log ? fopen(c->lockstep_log, "we") : stderr;
    if (!m->lockstep_log) {
        g_set_error(err, OPTIONS_ERROR, OPTIONS_ERROR_BAD, "-accel lockstep-log=%s: %s", c->lockstep_log,
                    g_strerror(errno));
        return false;
    }
    lockstep_start(m->board.cluster, c->lockstep, c->lockstep_trace, m->lockstep_log);
    return true;
}

/* False: not all of the log could be written. */
static bool lockstep_close(struct machine *m)
{
    lockstep_stop(m->board.cluster);
    if (!m->lockstep_log || m->lockstep_log == stderr)
        return true;
    bool bad = ferror(m->lockstep_log), bad_close = fclose(m->lockstep_log);
    if (bad || bad_close)
        warn("-accel lockstep-log=%s: not all of it could be written", m->config->lockstep_log);
    return !bad && !bad_close;
}

int machine_run(struct machine *m)
{
    GError *err = NULL;
    uint64_t pc;

    board_reset(&m->board);
    if (!load(m, &pc, &err)) {
        warn("%s", err->message);
        g_error_free(err);
        return 1;
    }
    if (!lockstep_open(m, &err)) {
        warn("%s", err->message);
        g_error_free(err);
        return 1;
    }
    diagnose_start(m->diagnose, m->board.cluster, control_kernel(m->control));
    cluster_start(m->board.cluster, pc, 0, m->config->paused);
    control_started(m->control, m->config->paused);
    if (m->config->paused)
        monitors_paused(m->monitors);
    g_main_loop_run(m->loop);
    monitors_end(m->monitors, m->status);
    diagnose_stop(m->diagnose);
    cluster_stop(m->board.cluster);
    if (!lockstep_close(m))
        m->status = 1;
    if (m->config->stats && m->config->engine == &jit_engine)
        print_stats(m);
    chardevs_drain(m->chardevs);
    return m->status;
}

void machine_free(struct machine *m)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(m->signals); i++)
        if (m->signals[i])
            g_source_remove(m->signals[i]);
    trace_set_namer(NULL, NULL);
    g_clear_pointer(&m->monitors, monitors_free);
    board_fini(&m->board);
    g_clear_pointer(&m->devices, devices_free);
    g_clear_pointer(&m->diagnose, diagnose_free);
    g_clear_pointer(&m->chardevs, chardevs_free);
    boot_close(&m->files);
    g_source_destroy(m->request_source);
    g_source_unref(m->request_source);
    g_main_loop_unref(m->loop);
    g_free(m);
}
