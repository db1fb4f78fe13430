/*
 * See monitors.h.
 */
#include "machine/monitors.h"

#include <inttypes.h>
#include <string.h>

#include "debug/gdbstub.h"
#include "debug/hmp.h"
#include "debug/monitor.h"
#include "jit/jit.h"
#include "machine/version.h"
#include "virtio/balloon.h"

struct monitors {
    const struct config *config;
    struct board *board;
    struct chardevs *chardevs;
    struct netdevs *netdevs;
    struct monitors_ops machine;
    struct control_ops ops;
    struct control *control;
    struct gdbstub *gdb; /* NULL: none */
    struct hmp gdb_hmp;  /* of gdb's `monitor' */
    GPtrArray *human, *qmp;
};

/* --- what `info' shows ------------------------------------------------------------------------------------- */

static void add_fact(void *arg, const char *key, const char *value)
{
    if (strcmp(key, "backend") && strcmp(key, "type") && strcmp(key, "id"))
        g_string_append_printf(arg, "    %s = %s\n", key, value);
}

static void info_qtree(struct monitors *m, GString *out)
{
    g_string_append(out, "bus: main-system-bus\n");
    for (unsigned i = 0; i < BOARD_SLOTS; i++)
        if (board_map[i].size && board_map[i].name)
            g_string_append_printf(out, "  dev: %s\n    mmio %016" PRIx64 "/%016" PRIx64 "\n", board_map[i].name,
                                   board_map[i].base, board_map[i].size);
    for (guint i = 0; i < m->config->devices->len; i++) {
        struct device_config *d = m->config->devices->pdata[i];
        const char *id = props_get(d->props, "id");
        g_string_append_printf(out, "  dev: %s, id \"%s\"\n", d->driver, id ? id : "");
        props_each(d->props, add_fact, out);
    }
}

static void info_block(struct monitors *m, GString *out)
{
    for (guint i = 0; i < m->config->drives->len; i++) {
        struct props *p = m->config->drives->pdata[i];
        const char *id = props_get(p, "id"), *file = props_get(p, "file"), *format = props_get(p, "format");
        g_autofree char *name = id ? g_strdup(id) : g_strdup_printf("drive%u", i);
        g_string_append_printf(out, "%s: %s (%s)\n", name, file ? file : "[not inserted]", format ? format : "raw");
    }
}

static void info_roms(struct monitors *m, GString *out)
{
    const char *const rows[][2] = { { "kernel", m->config->kernel }, { "initrd", m->config->initrd },
                                    { "dtb", m->config->dtb } };

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++)
        if (rows[i][1])
            g_string_append_printf(out, "%-8s \"%s\"\n", rows[i][0], rows[i][1]);
}

static void info_props(const GPtrArray *list, const char *what, GString *out)
{
    for (guint i = 0; i < list->len; i++) {
        const char *id = props_get(list->pdata[i], "id"), *type = props_get(list->pdata[i], "type");
        g_string_append_printf(out, "%s %s: type %s\n", what, id ? id : "-", type ? type : "-");
        props_each(list->pdata[i], add_fact, out);
    }
}

static void info_network(struct monitors *m, GString *out)
{
    info_props(m->config->netdevs, "netdev", out);
    info_props(m->config->nics, "nic", out);
}

/* The distributor's view of each SPI and of vCPU 0's PPIs and SGIs (GICv2 4.3: enable, pending, active). */
static void info_irq(struct monitors *m, GString *out)
{
    uint64_t base = board_map[BOARD_GIC_DIST].base, typer = 0, enabled, pending, active;

    mem_io_read(m->board->mem, base + 4, 4, &typer);
    for (unsigned word = 0; word <= (typer & 31); word++) {
        if (!mem_io_read(m->board->mem, base + 0x100 + 4 * word, 4, &enabled) ||
            !mem_io_read(m->board->mem, base + 0x200 + 4 * word, 4, &pending) ||
            !mem_io_read(m->board->mem, base + 0x300 + 4 * word, 4, &active))
            return;
        for (unsigned bit = 0; bit < 32; bit++)
            if ((enabled | pending | active) >> bit & 1)
                g_string_append_printf(out, "%3u: %s%s%s\n", word * 32 + bit, enabled >> bit & 1 ? "enabled" : "disabled",
                                       pending >> bit & 1 ? ", pending" : "", active >> bit & 1 ? ", active" : "");
    }
}

/* Bus 0 as its configuration space shows it (PCI 3.0 6.1). */
static void info_pci(struct monitors *m, GString *out)
{
    uint64_t ecam = board_map[m->config->highmem ? BOARD_PCIE_ECAM_HIGH : BOARD_PCIE_ECAM].base;

    for (unsigned dev = 0; dev < 32; dev++) {
        uint64_t at = ecam + dev * UINT64_C(0x8000), ids, class, bar, pin;
        if (!mem_io_read(m->board->mem, at, 4, &ids) || (ids & 0xffff) == 0xffff ||
            !mem_io_read(m->board->mem, at + 8, 4, &class) || !mem_io_read(m->board->mem, at + 0x3c, 4, &pin))
            continue;
        g_string_append_printf(out, "  Bus  0, device %3u, function 0:\n    Class %04x: PCI device %04x:%04x, pin %c\n", dev,
                               (unsigned)(class >> 16), (unsigned)(ids & 0xffff), (unsigned)(ids >> 16),
                               (pin >> 8 & 7) ? (char)('A' + (pin >> 8 & 7) - 1) : '-');
        for (unsigned i = 0; i < 6; i++)
            if (mem_io_read(m->board->mem, at + 0x10 + 4 * i, 4, &bar) && bar)
                g_string_append_printf(out, "      BAR%u: %08x\n", i, (unsigned)bar);
    }
}

static uint64_t balloon_now(void *opaque)
{
    struct monitors *m = opaque;
    uint64_t bytes = 0;

    if (!m->board->balloon)
        return 0;
    g_mutex_lock(&m->board->lock);
    bytes = virtio_balloon_get(m->board->balloon);
    g_mutex_unlock(&m->board->lock);
    return bytes;
}

static void info_balloon(struct monitors *m, GString *out)
{
    if (m->board->balloon)
        g_string_append_printf(out, "balloon: actual=%" PRIu64 "\n", balloon_now(m) >> 20);
}

static bool balloon(void *opaque, uint64_t bytes)
{
    struct monitors *m = opaque;

    if (!m->board->balloon)
        return false;
    g_mutex_lock(&m->board->lock);
    virtio_balloon_set(m->board->balloon, bytes);
    g_mutex_unlock(&m->board->lock);
    return true;
}

static void info_usernet(struct monitors *m, GString *out)
{
    for (unsigned i = 0; i < netdevs_count(m->netdevs); i++) {
        g_autofree char *text = user_net_info(netdevs_get(m->netdevs, i));
        g_string_append(out, text);
    }
}

static void info_jit(struct monitors *m, GString *out)
{
    if (m->config->engine != &jit_engine)
        return;
    cluster_pause(m->board->cluster);
    for (unsigned i = 0; i < m->board->cluster->n; i++)
        jit_describe(m->board->cluster->cpu[i], out);
    cluster_resume(m->board->cluster);
}

static void hostfwd(void *opaque, bool add, const char *netdev, const char *rule, GString *out)
{
    struct user_net *net = netdevs_find(((struct monitors *)opaque)->netdevs, netdev);
    GError *err = NULL;

    if (!net)
        g_string_append_printf(out, "there is no user network%s%s\n", netdev ? " of the id " : "", netdev ? netdev : "");
    else if (!(add ? user_net_add_hostfwd : user_net_remove_hostfwd)(net, rule, &err))
        g_string_append_printf(out, "%s\n", err->message);
    else if (!add)
        g_string_append_printf(out, "host forwarding rule for %s removed\n", rule);
    if (err)
        g_error_free(err);
}

static bool info(void *opaque, const char *what, GString *out)
{
    struct monitors *m = opaque;
    gsize before = out->len;

    if (!strcmp(what, "qtree"))
        info_qtree(m, out);
    else if (!strcmp(what, "block"))
        info_block(m, out);
    else if (!strcmp(what, "roms"))
        info_roms(m, out);
    else if (!strcmp(what, "network"))
        info_network(m, out);
    else if (!strcmp(what, "chardev"))
        chardevs_describe(m->chardevs, out);
    else if (!strcmp(what, "irq"))
        info_irq(m, out);
    else if (!strcmp(what, "pci"))
        info_pci(m, out);
    else if (!strcmp(what, "usernet"))
        info_usernet(m, out);
    else if (!strcmp(what, "jit"))
        info_jit(m, out);
    else if (!strcmp(what, "balloon"))
        info_balloon(m, out);
    return out->len > before;
}

/* --- gdb ------------------------------------------------------------------------------------------------------- */

static char *run_for_gdb(void *opaque, const char *line)
{
    return hmp_run(&((struct monitors *)opaque)->gdb_hmp, line);
}

static bool serve_gdb(struct monitors *m, const char *where, GError **err)
{
    g_clear_pointer(&m->gdb, gdbstub_free);
    struct chardev *chr = chardevs_gdb(m->chardevs, where, err);
    if (!chr && *err)
        return false;
    if (chr)
        m->gdb = gdbstub_new(m->control, chr, run_for_gdb, m);
    return true;
}

static char *gdbserver(void *opaque, const char *where)
{
    struct monitors *m = opaque;
    GError *err = NULL;

    if (serve_gdb(m, where, &err))
        return m->gdb ? g_strdup_printf("Waiting for gdb connection on device '%s'", where)
                      : g_strdup("Disabled gdbserver");
    char *text = g_strdup(err->message);
    g_error_free(err);
    return text;
}

/* --- verbs ------------------------------------------------------------------------------------------------------- */

static void quit(void *opaque)
{
    struct monitors *m = opaque;

    control_set_reason(m->control, "host-qmp-quit");
    m->machine.quit(m->machine.opaque);
}

static void reset(void *opaque)
{
    struct monitors *m = opaque;

    control_set_reason(m->control, "host-qmp-system-reset");
    m->machine.reset(m->machine.opaque);
}

static void powerdown(void *opaque)
{
    struct monitors *m = opaque;

    control_tell(m->control, CONTROL_POWERDOWN);
    m->machine.powerdown(m->machine.opaque);
}

/* --- monitors ---------------------------------------------------------------------------------------------------- */

static void add_human(struct monitors *m, struct chardev *chr)
{
    g_ptr_array_add(m->human, monitor_new(m->control, chr));
}

static void add_qmp(struct monitors *m, struct chardev *chr, bool pretty)
{
    g_ptr_array_add(m->qmp, qmp_new(m->control, chr, pretty));
}

static bool add_mon(struct monitors *m, struct props *p, GError **err)
{
    const char *id = props_get(p, "chardev"), *mode = props_get(p, "mode");
    bool control = mode && !strcmp(mode, "control"), pretty;

    if (!id || (mode && !control && strcmp(mode, "readline"))) {
        *err = g_error_new(OPTIONS_ERROR, OPTIONS_ERROR_BAD, "-mon: give chardev=ID[,mode=readline|control]");
        return false;
    }
    props_get(p, "id");
    if (!props_bool(p, "pretty", false, &pretty, err) || !props_finish(p, "-mon", err))
        return false;
    struct chardev *chr = chardevs_take(m->chardevs, id, err);
    if (!chr)
        return false;
    if (control)
        add_qmp(m, chr, pretty);
    else
        add_human(m, chr);
    return true;
}

/* -monitor DEV and -qmp DEV. */
static bool add_short(struct monitors *m, const char *option, const GPtrArray *list, bool control, GError **err)
{
    for (guint i = 0; i < list->len; i++) {
        g_autofree char *id = g_strdup_printf("%s%u", option + 1, i);
        bool none;
        struct chardev *chr = chardevs_open(m->chardevs, option, list->pdata[i], id, &none, err);
        if (!chr && !none)
            return false;
        if (chr && control)
            add_qmp(m, chr, false);
        else if (chr)
            add_human(m, chr);
    }
    return true;
}

static bool make_all(struct monitors *m, GError **err)
{
    const struct config *c = m->config;
    struct chardev *chr;

    for (unsigned i = 0; (chr = chardevs_mon_front(m->chardevs, i)); i++)
        add_human(m, chr);
    if (!add_short(m, "-monitor", c->monitor, false, err) || !add_short(m, "-qmp", c->qmp, true, err))
        return false;
    for (guint i = 0; i < c->mons->len; i++)
        if (!add_mon(m, c->mons->pdata[i], err))
            return false;
    return !c->gdb || serve_gdb(m, c->gdb, err);
}

struct monitors *monitors_new(const struct config *config, struct board *board, struct chardevs *chardevs,
                              struct netdevs *netdevs, const struct monitors_ops *ops, GError **err)
{
    struct monitors *m = g_new0(struct monitors, 1);

    m->config = config;
    m->board = board;
    m->chardevs = chardevs;
    m->netdevs = netdevs;
    m->ops = (struct control_ops){
        .quit = quit, .reset = reset, .powerdown = powerdown, .info = info, .balloon = balloon, .balloon_now = balloon_now,
        .gdbserver = gdbserver, .hostfwd = hostfwd,
        .name = config->name, .version = ARMLET_VERSION, .qemu_version = QEMU_SPELLING_VERSION, .opaque = m,
    };
    m->machine = *ops;
    m->control = control_new(board->cluster, board->mem, &m->ops);
    m->human = g_ptr_array_new_with_free_func((GDestroyNotify)monitor_free);
    m->qmp = g_ptr_array_new_with_free_func((GDestroyNotify)qmp_free);
    hmp_init(&m->gdb_hmp, m->control);
    if (make_all(m, err))
        return m;
    monitors_free(m);
    return NULL;
}

struct control *monitors_control(struct monitors *m)
{
    return m->control;
}

void monitors_paused(struct monitors *m)
{
    if (m->gdb)
        gdbstub_expect(m->gdb);
}

void monitors_end(struct monitors *m, int status)
{
    if (m->gdb)
        gdbstub_end(m->gdb, status);
}

void monitors_free(struct monitors *m)
{
    g_clear_pointer(&m->gdb, gdbstub_free);
    g_ptr_array_free(m->human, TRUE);
    g_ptr_array_free(m->qmp, TRUE);
    control_free(m->control);
    g_free(m);
}
