/*
 * The option table and what each option does to the config (see config.h).
 *
 * -x and --x are alike.  A mistake is one line that names the option; nothing here ends the program.
 * Threads: start of the program only.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "base/trace.h"
#include "jit/dump.h"
#include "jit/jit.h"
#include "machine/board.h"
#include "machine/config.h"
#include "machine/devices.h"
#include "machine/fsdevs.h"
#include "machine/version.h"

enum answer { GO_ON, ANSWERED, WRONG }; /* ANSWERED: the option was a question; the program ends */

struct option {
    const char *name, *alias, *arg;
    enum answer (*parse)(struct config *c, const char *arg, GError **err);
    const char *help;
};

static enum answer wrong(GError **err, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static enum answer wrong(GError **err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    *err = g_error_new_valist(OPTIONS_ERROR, OPTIONS_ERROR_BAD, fmt, ap);
    va_end(ap);
    return WRONG;
}

static bool is_help(const char *arg)
{
    return !strcmp(arg, "help") || !strcmp(arg, "?");
}

static void replace(char **slot, const char *value)
{
    g_free(*slot);
    *slot = g_strdup(value);
}

/* --- machine --------------------------------------------------------------------------------------- */

static enum answer set_accel(struct config *c, const char *arg, GError **err)
{
    /* "kvm:tcg" lists preferences; what is not here is passed over as long as one is. */
    g_auto(GStrv) names = g_strsplit(arg, ":", -1);
    for (char **n = names; *n; n++)
        if (!strcmp(*n, "tcg") || !strcmp(*n, "interp")) {
            c->engine = **n == 't' ? &jit_engine : &interp_engine;
            return GO_ON;
        }
    return wrong(err, "-accel %s: not here (tcg and interp are)", arg);
}

static enum answer set_gic_version(const char *v, GError **err)
{
    if (!v || !strcmp(v, "2") || !strcmp(v, "max") || !strcmp(v, "host"))
        return GO_ON;
    return wrong(err, "-machine gic-version=%s: this board has a GICv2 (give 2 or max)", v);
}

static void machine_help(void)
{
    printf("Supported machines are:\n"
           "virt                 armlet's virtual board, laid out as QEMU's (default)\n"
           "\nProperties of virt:\n"
           "  gic-version=2|max  the interrupt controller: a GICv2 with a v2m frame\n"
           "  dumpdtb=FILE       write the device tree to FILE and end\n"
           "  accel=tcg|interp   as -accel\n"
           "  kernel= initrd= append= dtb=  as the options of these names\n"
           "  highmem=on|off     PCIe windows above the RAM too (default on)\n"
           "  dtb-randomness=on|off  seeds for the guest's random numbers and addresses (default on)\n"
           "  virtualization= secure= its= ras= mte= usb= iommu= ...\n"
           "                     accepted; what the board does not have stays off\n");
}

/* What turns on hardware that is not modelled: the guest starts without it, and the user is told. */
static bool warn_missing(struct props *p, const char *key, const char *what, GError **err)
{
    bool on;
    if (!props_bool(p, key, false, &on, err))
        return false;
    if (on)
        warn("%s=on: %s is not modelled; the guest runs without it", key, what);
    return true;
}

static enum answer opt_machine(struct config *c, const char *arg, GError **err)
{
    static const char *const ignored[] = {
        "highmem-redists", "highmem-ecam", "highmem-mmio", "compact-highmem", "its", "usb",
        "dump-guest-core", "mem-merge", "graphics", "suppress-vmdesc", "firmware", "default-bus-bypass-iommu",
        "iommu", "ras", "acpi", "kernel-irqchip", "hmat", "nvdimm",
        "x-oem-id", "x-oem-table-id", "confidential-guest-support", "memory-encryption", NULL };
    static const struct { const char *key; size_t slot; } strings[] = {
        { "dumpdtb", offsetof(struct config, dumpdtb) }, { "kernel", offsetof(struct config, kernel) },
        { "initrd", offsetof(struct config, initrd) }, { "append", offsetof(struct config, append) },
        { "dtb", offsetof(struct config, dtb) } };

    if (is_help(arg)) {
        machine_help();
        return ANSWERED;
    }
    struct props *p = props_new(arg, "type");
    enum answer r = WRONG;
    const char *type = props_get(p, "type"), *accel = props_get(p, "accel");
    if (type && strcmp(type, "virt") && strncmp(type, "virt-", 5)) {
        wrong(err, "-machine %s: not here; the board is 'virt' (-machine help)", type);
        goto out;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(strings); i++) {
        const char *v = props_get(p, strings[i].key);
        if (v && !*v && strcmp(strings[i].key, "append")) {
            wrong(err, "-machine %s=: give a file", strings[i].key);
            goto out;
        }
        if (v)
            replace((char **)((char *)c + strings[i].slot), v);
    }
    if ((accel && set_accel(c, accel, err) != GO_ON) || set_gic_version(props_get(p, "gic-version"), err) != GO_ON ||
        !warn_missing(p, "virtualization", "EL2", err) || !warn_missing(p, "secure", "EL3", err) ||
        !warn_missing(p, "mte", "memory tagging", err) ||
        !props_bool(p, "highmem", c->highmem, &c->highmem, err) ||
        !props_bool(p, "dtb-kaslr-seed", c->dtb_seeds, &c->dtb_seeds, err) ||
        !props_bool(p, "dtb-randomness", c->dtb_seeds, &c->dtb_seeds, err))
        goto out;
    props_ignore(p, ignored);
    r = props_finish(p, "-machine", err) ? GO_ON : WRONG;
out:
    props_free(p);
    return r;
}

static void cpu_help(void)
{
    printf("Available CPUs:\n");
    for (const char *const *n = cpu_model_names(); *n; n++)
        printf("  %s\n", *n);
}

static enum answer opt_cpu(struct config *c, const char *arg, GError **err)
{
    /* Choices among ways to do what is absent; and absent things, which may be turned off. */
    static const char *const ignored[] = { "pauth-impdef", "pauth-qarma3", "pauth-qarma5", "sve-max-vq", "lpa2",
                                           "kvm-no-adjvtime", "kvm-steal-time", "cntfrq",
                                           "sve-default-vector-length", "sme-default-vector-length", "rme", NULL };
    static const struct { const char *key, *what; } missing[] = {
        { "sve", "SVE" }, { "sve128", "SVE" }, { "sve256", "SVE" }, { "sve512", "SVE" }, { "sme", "SME" },
        { "pauth", "pointer authentication" }, { "has_el2", "EL2" }, { "has_el3", "EL3" } };

    if (is_help(arg)) {
        cpu_help();
        return ANSWERED;
    }
    struct props *p = props_new(arg, "model");
    enum answer r = WRONG;
    bool aarch64, pmu;
    const char *model = props_get(p, "model");
    c->cpu = cpu_model_find(model ? model : "");
    if (!c->cpu && model && !strcmp(model, "host")) {
        wrong(err, "-cpu host: guest code is emulated; give a model, e.g. max (-cpu help lists them)");
        goto out;
    }
    if (!c->cpu) {
        const char *near = model ? suggest(model, cpu_model_names()) : NULL;
        wrong(err, "-cpu %s: unknown model%s%s%s (-cpu help lists them)", model ? model : "",
              near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
        goto out;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(missing); i++)
        if (!warn_missing(p, missing[i].key, missing[i].what, err))
            goto out;
    if (!props_bool(p, "aarch64", true, &aarch64, err) || !props_bool(p, "pmu", true, &pmu, err))
        goto out;
    if (!aarch64) {
        wrong(err, "-cpu %s,aarch64=off: there is no AArch32 here", model);
        goto out;
    }
    if (!pmu)
        warn("pmu=off: the board always has its PMU; the guest runs with it");
    props_ignore(p, ignored);
    r = props_finish(p, "-cpu", err) ? GO_ON : WRONG;
out:
    props_free(p);
    return r;
}

static enum answer opt_smp(struct config *c, const char *arg, GError **err)
{
    static const char *const topology[] = { "sockets", "dies", "clusters", "cores", "threads", "maxcpus", NULL };
    struct props *p = props_new(arg, "cpus");
    uint64_t n, product = 1, part, max;
    enum answer r = WRONG;

    for (unsigned i = 0; i < 5; i++) {
        if (!props_number(p, topology[i], 1, &part, err))
            goto out;
        product = part && product <= 4096 ? product * MIN(part, 4096) : 0;
    }
    if (!props_number(p, "cpus", product, &n, err) || !props_number(p, "maxcpus", n, &max, err))
        goto out;
    if (n < 1 || n > CPU_MAX || max > CPU_MAX)
        wrong(err, "-smp %s: the board's GICv2 serves 1 to %d vCPUs", arg, CPU_MAX);
    else if (max != n)
        wrong(err, "-smp %s: vCPUs cannot be added while the guest runs (leave out maxcpus)", arg);
    else if (product != 1 && product != n)
        wrong(err, "-smp %s: sockets * clusters * cores * threads is not %u", arg, (unsigned)n);
    else if (props_finish(p, "-smp", err)) {
        c->smp = (unsigned)n;
        r = GO_ON;
    }
out:
    props_free(p);
    return r;
}

static enum answer opt_memory(struct config *c, const char *arg, GError **err)
{
    static const char *const ignored[] = { "slots", "maxmem", NULL };
    struct props *p = props_new(arg, "size");
    const char *size = props_get(p, "size");
    enum answer r = WRONG;

    props_ignore(p, ignored);
    if (!size || !parse_size(size, UINT64_C(1) << 20, &c->ram) || !c->ram)
        wrong(err, "-m %s: give a size such as 2048, 512M or 2G", arg);
    else if (c->ram > BOARD_RAM_MAX)
        wrong(err, "-m %s: the board takes at most 255 GiB", arg);
    else if (props_finish(p, "-m", err))
        r = GO_ON;
    c->ram = (c->ram + 0xfff) & ~UINT64_C(0xfff);
    props_free(p);
    return r;
}

static enum answer opt_accel(struct config *c, const char *arg, GError **err)
{
    static const char *const ignored[] = { "thread", "one-insn-per-tb", "split-wx", NULL };

    if (is_help(arg)) {
        printf("Accelerators supported:\ntcg\ninterp\n");
        return ANSWERED;
    }
    struct props *p = props_new(arg, "accel");
    const char *name = props_get(p, "accel");
    uint64_t size;
    props_ignore(p, ignored);
    enum answer r = set_accel(c, name ? name : "", err);
    const char *check = props_get(p, "check");
    if (r == GO_ON && check && strcmp(check, "mmu"))
        r = wrong(err, "-accel check=%s: only check=mmu is known", check);
    else if (r == GO_ON && check)
        jit_set_check_mmu();
    g_free(c->lockstep_log);
    c->lockstep_log = g_strdup(props_get(p, "lockstep-log"));
    if (r == GO_ON && (!props_bool(p, "stats", false, &c->stats, err) || !props_number(p, "tb-size", 0, &size, err) ||
                       !props_number(p, "lockstep", 0, &c->lockstep, err) ||
                       !props_number(p, "lockstep-trace", UINT64_MAX, &c->lockstep_trace, err) ||
                       !props_finish(p, "-accel", err)))
        r = WRONG;
    if (r == GO_ON && size > 1024)
        r = wrong(err, "-accel tb-size=%" PRIu64 ": at most 1024 MiB of host code", size);
    if (r == GO_ON)
        jit_set_cache_size(size << 20);
    props_free(p);
    return r;
}

static enum answer opt_rtc(struct config *c, const char *arg, GError **err)
{
    static const char *const ignored[] = { "driftfix", NULL };
    static const char *const clocks[] = { "host", "rt", "vm", NULL }; /* the same here: guest time never stops */
    struct props *p = props_new(arg, NULL);
    const char *base = props_get(p, "base"), *clock = props_get(p, "clock");
    enum answer r = WRONG;

    props_ignore(p, ignored);
    if (clock && !g_strv_contains(clocks, clock)) {
        wrong(err, "-rtc clock=%s: give host, rt or vm", clock);
        goto out;
    }
    c->rtc_local = base && !strcmp(base, "localtime");
    if (base && strcmp(base, "utc") && !c->rtc_local) {
        g_autoptr(GTimeZone) utc = g_time_zone_new_utc();
        g_autoptr(GDateTime) t = g_date_time_new_from_iso8601(base, utc);
        g_autofree char *midnight = g_strconcat(base, "T00:00:00", NULL);
        if (!t)
            t = g_date_time_new_from_iso8601(midnight, utc);
        if (!t) {
            wrong(err, "-rtc base=%s: give utc, localtime or a date such as 2006-06-17T16:01:21", base);
            goto out;
        }
        c->rtc_base = g_date_time_to_unix(t);
    }
    r = props_finish(p, "-rtc", err) ? GO_ON : WRONG;
out:
    props_free(p);
    return r;
}

/* --- simple ones ------------------------------------------------------------------------------------- */

#define STRING_OPTION(field) \
    static enum answer opt_##field(struct config *c, const char *arg, GError **err) \
    { \
        (void)err; \
        replace(&c->field, arg); \
        return GO_ON; \
    }
STRING_OPTION(kernel)
STRING_OPTION(initrd)
STRING_OPTION(append)
STRING_OPTION(dtb)
STRING_OPTION(gdb)

#define FLAG_OPTION(field) \
    static enum answer opt_##field(struct config *c, const char *arg, GError **err) \
    { \
        (void)arg, (void)err; \
        c->field = true; \
        return GO_ON; \
    }
FLAG_OPTION(paused)
FLAG_OPTION(no_reboot)
FLAG_OPTION(no_shutdown)
FLAG_OPTION(snapshot)
FLAG_OPTION(nographic)
FLAG_OPTION(nodefaults)

#define LIST_OPTION(name, list, implied) \
    static enum answer opt_##name(struct config *c, const char *arg, GError **err) \
    { \
        (void)err; \
        g_ptr_array_add(c->list, props_new(arg, implied)); \
        return GO_ON; \
    }
LIST_OPTION(chardev, chardevs, "backend")
LIST_OPTION(mon, mons, "chardev")
LIST_OPTION(drive, drives, NULL)
LIST_OPTION(object, objects, "qom-type")
LIST_OPTION(fsdev, fsdevs, "fsdriver")
LIST_OPTION(nfs, nfs, "path")

#define TEXT_LIST_OPTION(name, list) \
    static enum answer opt_##name(struct config *c, const char *arg, GError **err) \
    { \
        (void)err; \
        g_ptr_array_add(c->list, g_strdup(arg)); \
        return GO_ON; \
    }
TEXT_LIST_OPTION(serial, serial)
TEXT_LIST_OPTION(monitor, monitor)
TEXT_LIST_OPTION(qmp, qmp)

static enum answer opt_virtfs(struct config *c, const char *arg, GError **err)
{
    return fsdevs_parse_virtfs(c, arg, err) ? GO_ON : WRONG;
}

static enum answer opt_action(struct config *c, const char *arg, GError **err)
{
    static const char *const panics[] = { "none", "pause", "shutdown", "exit-failure", NULL };
    struct props *p = props_new(arg, NULL);
    const char *panic = props_get(p, "panic"), *reboot = props_get(p, "reboot"), *off = props_get(p, "shutdown");
    enum answer r = WRONG;

    for (unsigned i = 0; panic && panics[i]; i++)
        if (!strcmp(panic, panics[i])) {
            c->on_panic = (enum panic_action)i;
            panic = NULL;
        }
    if (panic)
        wrong(err, "-action panic=%s: give none, pause, shutdown or exit-failure", panic);
    else if (reboot && strcmp(reboot, "reset") && strcmp(reboot, "shutdown"))
        wrong(err, "-action reboot=%s: give reset or shutdown", reboot);
    else if (off && strcmp(off, "poweroff") && strcmp(off, "pause"))
        wrong(err, "-action shutdown=%s: give poweroff or pause", off);
    else if (props_finish(p, "-action", err))
        r = GO_ON;
    if (reboot)
        c->no_reboot = !strcmp(reboot, "shutdown");
    if (off)
        c->no_shutdown = !strcmp(off, "pause");
    props_free(p);
    return r;
}

static enum answer opt_name(struct config *c, const char *arg, GError **err)
{
    static const char *const ignored[] = { "process", "debug-threads", NULL };
    struct props *p = props_new(arg, "guest");
    const char *name = props_get(p, "guest");

    if (name)
        replace(&c->name, name);
    props_ignore(p, ignored);
    enum answer r = props_finish(p, "-name", err) ? GO_ON : WRONG;
    props_free(p);
    return r;
}

static enum answer opt_ignore(struct config *c, const char *arg, GError **err)
{
    (void)c;
    return strcmp(arg, "none") ? wrong(err, "'%s': only none is possible here", arg) : GO_ON;
}

static enum answer opt_display(struct config *c, const char *arg, GError **err)
{
    if (!strcmp(arg, "none") || !strcmp(arg, "curses")) {
        c->no_display = true;
        return GO_ON;
    }
    return wrong(err, "-display %s: there is no graphics hardware; give none", arg);
}

static enum answer opt_echr(struct config *c, const char *arg, GError **err)
{
    char *end;
    unsigned long n = strtoul(arg, &end, 0);
    if (!*arg || *end || n > 255)
        return wrong(err, "-echr %s: give a character code, 1 to 26 for C-a to C-z", arg);
    c->escape = (int)n;
    return GO_ON;
}

/* "-device NAME,help" asks; the answer needs no machine. */
static enum answer device_help(struct props *p, const char *driver, GError **err)
{
    if (is_help(driver)) {
        devices_help();
        return ANSWERED;
    }
    if (!props_get(p, "help") && !props_get(p, "?"))
        return GO_ON;
    return devices_driver_help(driver, err) ? ANSWERED : WRONG;
}

static enum answer opt_device(struct config *c, const char *arg, GError **err)
{
    struct props *p = props_new(arg, "driver");
    const char *driver = props_get(p, "driver");
    enum answer r = device_help(p, driver ? driver : "", err);

    if (r != GO_ON) {
        props_free(p);
        return r;
    }
    struct device_config *d = g_new0(struct device_config, 1);
    d->props = p;
    d->driver = g_strdup(driver);
    g_ptr_array_add(c->devices, d);
    return GO_ON;
}

static enum answer opt_hda(struct config *c, const char *arg, GError **err)
{
    GString *escaped = g_string_new("if=virtio,file=");
    (void)err;
    for (; *arg; arg++)
        g_string_append_printf(escaped, *arg == ',' ? ",," : "%c", *arg);
    g_ptr_array_add(c->drives, props_new(escaped->str, NULL));
    g_string_free(escaped, TRUE);
    return GO_ON;
}

static void free_global(void *p)
{
    struct global_config *g = p;
    g_free(g->driver);
    g_free(g->property);
    g_free(g->value);
    g_free(g);
}

/* DRIVER.PROPERTY=VALUE, or the long form driver=,property=,value= */
static struct global_config *parse_global(const char *arg)
{
    const char *eq = strchr(arg, '='), *dot = memchr(arg, '.', eq ? (size_t)(eq - arg) : 0);
    struct global_config *g = g_new0(struct global_config, 1);

    if (eq && dot) {
        g->driver = g_strndup(arg, (size_t)(dot - arg));
        g->property = g_strndup(dot + 1, (size_t)(eq - dot - 1));
        g->value = g_strdup(eq + 1);
    } else {
        struct props *p = props_new(arg, NULL);
        g->driver = g_strdup(props_get(p, "driver"));
        g->property = g_strdup(props_get(p, "property"));
        g->value = g_strdup(props_get(p, "value"));
        props_free(p);
    }
    for (char *c = g->property; c && *c; c++)
        *c = *c == '_' ? '-' : *c;
    return g;
}

static enum answer opt_global(struct config *c, const char *arg, GError **err)
{
    struct global_config *g = parse_global(arg);
    enum answer r = GO_ON;

    if (!g->driver || !g->property || !g->value)
        r = wrong(err, "-global %s: give DRIVER.PROPERTY=VALUE", arg);
    else if (!strcmp(g->driver, "virtio-mmio") && !strcmp(g->property, "force-legacy"))
        r = parse_bool(g->value, &c->legacy_virtio) ? GO_ON : wrong(err, "-global %s: give on or off", arg);
    else if (!devices_check_global(g->driver, g->property, err))
        r = WRONG;
    if (r == GO_ON)
        g_ptr_array_add(c->globals, g);
    else
        free_global(g);
    return r;
}

static enum answer opt_gdb_default(struct config *c, const char *arg, GError **err)
{
    (void)arg;
    return opt_gdb(c, "tcp::1234", err);
}

static enum answer opt_kernel_symbols(struct config *c, const char *arg, GError **err)
{
    (void)err;
    g_free(c->kernel_symbols);
    c->kernel_symbols = g_strdup(arg);
    return GO_ON;
}

static enum answer opt_module_symbols(struct config *c, const char *arg, GError **err)
{
    if (!g_file_test(arg, G_FILE_TEST_IS_DIR))
        return wrong(err, "-module-symbols %s: no such directory", arg);
    g_ptr_array_add(c->module_symbols, g_strdup(arg));
    return GO_ON;
}

static enum answer opt_panic_report(struct config *c, const char *arg, GError **err)
{
    (void)arg, (void)err;
    c->panic_report = true;
    return GO_ON;
}

/* --- network: the arguments are kept; net/ makes something of them --------------------------------------- */

static enum answer add_net(GPtrArray *list, const char *arg, const char *const *types, const char *what, GError **err)
{
    struct props *p = props_new(arg, "type");
    const char *type = props_get(p, "type");
    for (; *types; types++)
        if (type && !strcmp(type, *types)) {
            g_ptr_array_add(list, p);
            return GO_ON;
        }
    wrong(err, "%s %s: not here (user is)", what, type ? type : "");
    props_free(p);
    return WRONG;
}

static enum answer opt_netdev(struct config *c, const char *arg, GError **err)
{
    return add_net(c->netdevs, arg, (const char *const[]){ "user", NULL }, "-netdev", err);
}

static enum answer opt_nic(struct config *c, const char *arg, GError **err)
{
    return add_net(c->nics, arg, (const char *const[]){ "user", "none", NULL }, "-nic", err);
}

static enum answer opt_net(struct config *c, const char *arg, GError **err)
{
    return add_net(c->nets, arg, (const char *const[]){ "user", "nic", "none", NULL }, "-net", err);
}

/* --- log and information ------------------------------------------------------------------------------- */

static enum answer opt_log(struct config *c, const char *arg, GError **err)
{
    (void)c;
    if (is_help(arg)) {
        trace_help(stdout);
        return ANSWERED;
    }
    g_autofree char *unknown = trace_enable(arg);
    return unknown ? wrong(err, "-d %s: no such item (-d help lists them)", unknown) : GO_ON;
}

static enum answer opt_log_filter(struct config *c, const char *arg, GError **err)
{
    (void)c;
    const char *why = trace_filter(arg);
    return why ? wrong(err, "-dfilter %s: %s", arg, why) : GO_ON;
}

static enum answer opt_perf_map(struct config *c, const char *arg, GError **err)
{
    (void)c, (void)arg;
    int r = jit_perf_map();
    return r ? wrong(err, "-perfmap: %s", g_strerror(-r)) : GO_ON;
}

static enum answer opt_log_file(struct config *c, const char *arg, GError **err)
{
    (void)c;
    int r = trace_to_file(arg);
    return r ? wrong(err, "-D %s: %s", arg, g_strerror(-r)) : GO_ON;
}

static enum answer trace_pattern(const char *pattern, GError **err)
{
    bool off = *pattern == '-';
    return trace_set(pattern + off, !off) ? GO_ON : wrong(err, "-trace %s: no such event (-trace help lists them)", pattern);
}

/* A pattern a line; # begins a comment. */
static enum answer trace_file_of_patterns(const char *path, GError **err)
{
    g_autofree char *text = NULL;
    enum answer r = GO_ON;

    if (!g_file_get_contents(path, &text, NULL, err)) {
        g_prefix_error(err, "-trace: ");
        return WRONG;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    for (char **l = lines; *l && r == GO_ON; l++)
        if (*g_strstrip(*l) && **l != '#')
            r = trace_pattern(*l, err);
    return r;
}

static enum answer opt_trace(struct config *c, const char *arg, GError **err)
{
    if (is_help(arg)) {
        trace_help(stdout);
        return ANSWERED;
    }
    struct props *p = props_new(arg, "enable");
    const char *enable = props_get(p, "enable"), *events = props_get(p, "events"), *file = props_get(p, "file");
    enum answer r = props_finish(p, "-trace", err) ? GO_ON : WRONG;

    if (r == GO_ON && file)
        r = opt_log_file(c, file, err);
    if (r == GO_ON && events)
        r = trace_file_of_patterns(events, err);
    if (r == GO_ON && enable)
        r = trace_pattern(enable, err);
    props_free(p);
    return r;
}

static enum answer opt_help(struct config *c, const char *arg, GError **err)
{
    (void)c, (void)arg, (void)err;
    options_help();
    return ANSWERED;
}

static enum answer opt_version(struct config *c, const char *arg, GError **err)
{
    (void)c, (void)arg, (void)err;
    version_print();
    return ANSWERED;
}

static const struct option options[] = {
#define OPT_SECTION(title) { .help = title },
#define OPT(name, alias, arg, parse, help) { name, alias, arg, parse, help },
#include "machine/options.def"
#undef OPT
#undef OPT_SECTION
};

void options_help(void)
{
    printf("usage: %s [options] [disk image]\n", report_program());
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        const struct option *o = &options[i];
        if (!o->name) {
            printf("\n%s\n", o->help);
            continue;
        }
        g_autofree char *head = g_strdup_printf("-%s%s%s%s%s", o->name, o->alias ? ", -" : "",
                                                o->alias ? o->alias : "", o->arg ? " " : "", o->arg ? o->arg : "");
        printf(strlen(head) < 30 ? "  %-30s%s\n" : "  %s\n%32s%s\n", head, strlen(head) < 30 ? o->help : "", o->help);
    }
}

static const struct option *find_option(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++)
        if (options[i].name && (!strcmp(name, options[i].name) ||
                                (options[i].alias && !strcmp(name, options[i].alias))))
            return &options[i];
    return NULL;
}

static enum answer unknown_option(const char *name, GError **err)
{
    const char *names[G_N_ELEMENTS(options) + 1];
    unsigned n = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++)
        if (options[i].name)
            names[n++] = options[i].name;
    names[n] = NULL;
    const char *near = suggest(name, names);
    return wrong(err, "-%s: unknown option%s%s%s (-help lists them)", name, near ? "; did you mean -" : "",
                 near ? near : "", near ? "?" : "");
}

static void free_device(void *p)
{
    struct device_config *d = p;
    g_free(d->driver);
    props_free(d->props);
    g_free(d);
}

static struct config *config_new(void)
{
    struct config *c = g_new0(struct config, 1);
    GDestroyNotify free_props = (GDestroyNotify)props_free;

    c->cpu = cpu_model_find("cortex-a57");
    c->smp = 1;
    c->dtb_seeds = true;
    c->ram = UINT64_C(512) << 20;
    c->engine = &jit_engine;
    c->legacy_virtio = true;
    c->highmem = true;
    c->escape = 1;
    c->rtc_base = -1;
    c->serial = g_ptr_array_new_with_free_func(g_free);
    c->monitor = g_ptr_array_new_with_free_func(g_free);
    c->qmp = g_ptr_array_new_with_free_func(g_free);
    c->chardevs = g_ptr_array_new_with_free_func(free_props);
    c->mons = g_ptr_array_new_with_free_func(free_props);
    c->given = g_ptr_array_new();
    c->drives = g_ptr_array_new_with_free_func(free_props);
    c->objects = g_ptr_array_new_with_free_func(free_props);
    c->fsdevs = g_ptr_array_new_with_free_func(free_props);
    c->netdevs = g_ptr_array_new_with_free_func(free_props);
    c->nics = g_ptr_array_new_with_free_func(free_props);
    c->nets = g_ptr_array_new_with_free_func(free_props);
    c->nfs = g_ptr_array_new_with_free_func(free_props);
    c->module_symbols = g_ptr_array_new_with_free_func(g_free);
    c->globals = g_ptr_array_new_with_free_func(free_global);
    c->devices = g_ptr_array_new_with_free_func(free_device);
    return c;
}

void config_free(struct config *c)
{
    char *strings[] = { c->kernel, c->initrd, c->append, c->dtb, c->dumpdtb, c->name, c->gdb, c->kernel_symbols,
                        c->lockstep_log };
    GPtrArray *lists[] = { c->serial, c->monitor, c->qmp, c->chardevs, c->given, c->mons, c->drives, c->objects,
                           c->netdevs, c->nics, c->nets, c->nfs, c->globals, c->devices, c->fsdevs, c->module_symbols };
    for (unsigned i = 0; i < G_N_ELEMENTS(strings); i++)
        g_free(strings[i]);
    for (unsigned i = 0; i < G_N_ELEMENTS(lists); i++)
        g_ptr_array_free(lists[i], TRUE);
    g_free(c);
}

struct config *config_parse(int argc, char *const *argv, GError **err)
{
    struct config *c = config_new();
    enum answer r = GO_ON;

    for (int i = 0; i < argc && r == GO_ON; i++) {
        const char *word = argv[i];
        if (*word != '-' || !word[1]) {
            r = opt_hda(c, word, err);
            continue;
        }
        const char *name = word + (word[1] == '-' ? 2 : 1);
        const struct option *o = find_option(name);
        if (!o)
            r = unknown_option(name, err);
        else if (o->arg && i + 1 == argc)
            r = wrong(err, "-%s needs an argument: -%s %s", name, o->name, o->arg);
        else
            r = o->parse(c, o->arg ? argv[++i] : NULL, err);
    }
    if (r == GO_ON && (c->append || c->initrd) && !c->kernel)
        r = wrong(err, "%s is for a kernel: give one with -kernel", c->append ? "-append" : "-initrd");
    if (r == GO_ON && c->lockstep && c->smp > 1)
        r = wrong(err, "-accel lockstep=: for one vCPU (leave out -smp)");
    if (r == GO_ON)
        return c;
    config_free(c);
    return NULL;
}
