/*
 * See devices.h.  Placement is QEMU's: the first -device takes the last of the board's virtio-mmio slots that is free,
 * unless bus=virtio-mmio-bus.N names one; empty slots read as device 0.
 *
 * Left out: PCI, so the -pci drivers are answered with the name of the one to use; hot plug; network cards, whose
 * options are accepted with a warning, because a guest runs well without.
 */
#include "machine/devices.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "dev/pci.h"
#include "machine/drives.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/mmio.h"
#include "virtio/rng.h"

struct object {
    const char *type, *id;
};

struct devices {
    const struct config *config;
    struct board *board;
    struct chardevs *chardevs;
    struct drives *drives;
    GArray *objects;      /* struct object */
    GPtrArray *serials;   /* struct virtio_device: where ports can go */
    GHashTable *ids;      /* of -device, not owned */
    bool warned_net;
};

/* One -device as it is created. */
struct request {
    struct devices *all;
    struct props *props;
    const char *id;
    char *what; /* for messages: "-device NAME" */
};

struct property {
    const char *name, *type, *help; /* name NULL: end of the list; help NULL: accepted without effect */
};

struct driver {
    const char *name, *alias, *bus, *section, *help;
    const struct property *properties;
    bool (*create)(struct request *r, GError **err);
};

static bool wrong(GError **err, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static bool wrong(GError **err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    *err = g_error_new_valist(OPTIONS_ERROR, OPTIONS_ERROR_BAD, fmt, ap);
    va_end(ap);
    return false;
}

/* --- slots --------------------------------------------------------------------------------------------- */

static struct device *find_slot(struct request *r, GError **err)
{
    struct board *b = r->all->board;
    const char *bus = props_get(r->props, "bus");
    char *end;

    if (bus && g_str_has_prefix(bus, "virtio-mmio-bus.")) {
        unsigned long n = strtoul(bus + 16, &end, 10);
        if (*end || n >= VIRTIO_SLOTS)
            wrong(err, "%s,bus=%s: the board has virtio-mmio-bus.0 to .%d", r->what, bus, VIRTIO_SLOTS - 1);
        else if (virtio_mmio_vdev(b->virtio[n]))
            wrong(err, "%s,bus=%s: there is a device in this slot already", r->what, bus);
        else
            return b->virtio[n];
        return NULL;
    }
    if (bus) {
        wrong(err, "%s,bus=%s: no such bus (virtio-mmio-bus.0 to .%d)", r->what, bus, VIRTIO_SLOTS - 1);
        return NULL;
    }
    for (unsigned i = VIRTIO_SLOTS; i--;)
        if (!virtio_mmio_vdev(b->virtio[i]))
            return b->virtio[i];
    wrong(err, "%s: all %d virtio-mmio slots are taken", r->what, VIRTIO_SLOTS);
    return NULL;
}

static void plug(struct request *r, struct device *slot, struct virtio_device *vdev)
{
    vdev->id = g_strdup(r->id);
    virtio_mmio_attach(slot, vdev);
}

/* A number in [low, high]; 0 when absent. */
static bool number_in(struct request *r, const char *key, uint64_t low, uint64_t high, uint64_t *value, GError **err)
{
    if (!props_number(r->props, key, 0, value, err))
        return false;
    if (!*value || (*value >= low && *value <= high))
        return true;
    return wrong(err, "%s,%s=%" G_GUINT64_FORMAT ": give %u to %" G_GUINT64_FORMAT, r->what, key, (guint64)*value,
                 (unsigned)low, (guint64)high);
}

static bool finish(struct request *r, GError **err)
{
    return props_finish(r->props, r->what, err);
}

/* --- drivers --------------------------------------------------------------------------------------------- */

#define VIRTIO_PROPERTIES \
    { "any-layout", "bool", NULL }, { "event-idx", "bool", NULL }, { "indirect-desc", "bool", NULL }, \
    { "notify-on-empty", "bool", NULL }, { "iommu-platform", "bool", NULL }, { "packed", "bool", NULL }, \
    { "in-order", "bool", NULL }, { "queue-reset", "bool", NULL }, { "use-started", "bool", NULL }, \
    { "use-disabled-flag", "bool", NULL }
#define SLOT_PROPERTY { "bus", "str", "virtio-mmio-bus.N: the slot, 0 to 31 (default: the last free one)" }

static const struct property blk_properties[] = {
    { "drive", "str", "id= of the -drive to show (required)" },
    { "serial", "str", "serial number, at most 20 characters" },
    { "num-queues", "uint16", "request queues, 1 to 8 (default 1)" },
    { "queue-size", "uint16", "entries of a queue, a power of two, 4 to 1024 (default 256)" },
    SLOT_PROPERTY,
    { "bootindex", "int32", NULL }, { "config-wce", "bool", NULL }, { "iothread", "str", NULL },
    { "share-rw", "bool", NULL }, { "write-cache", "on|off|auto", NULL }, { "discard", "bool", NULL },
    { "write-zeroes", "bool", NULL }, { "werror", "str", NULL }, { "rerror", "str", NULL },
    { "request-merging", "bool", NULL }, { "seg-max-adjust", "bool", NULL }, { "scsi", "bool", NULL },
    VIRTIO_PROPERTIES, { NULL, NULL, NULL } };

static bool plug_blk(struct request *r, const struct virtio_blk_options *o, GError **err)
{
    struct board *b = r->all->board;
    struct device *slot = find_slot(r, err);

    if (slot && finish(r, err)) {
        plug(r, slot, virtio_blk_new(&b->lock, b->mem, o));
        return true;
    }
    disk_close(o->disk);
    return false;
}

static bool create_blk(struct request *r, GError **err)
{
    uint64_t queues, size;
    const char *drive = props_get(r->props, "drive");

    if (!drive)
        return wrong(err, "%s: give drive=ID, and a -drive if=none,id=ID,file=... for it", r->what);
    if (!number_in(r, "num-queues", 1, CPU_MAX, &queues, err) || !number_in(r, "queue-size", 4, 1024, &size, err))
        return false;
    if (size & (size - 1))
        return wrong(err, "%s,queue-size=%u: give a power of two", r->what, (unsigned)size);
    struct virtio_blk_options o = { .serial = props_get(r->props, "serial"), .queue_size = (uint16_t)size,
                                    .num_queues = (uint16_t)queues };
    o.disk = drives_take(r->all->drives, drive, err);
    if (o.disk)
        return plug_blk(r, &o, err);
    g_prefix_error(err, "%s: ", r->what);
    return false;
}

static const struct property rng_properties[] = {
    { "rng", "str", "id= of an -object rng-random or rng-builtin (default: a built-in one)" },
    { "max-bytes", "uint64", "bytes that the guest gets in a period (default: no limit)" },
    { "period", "uint32", "length of the period in milliseconds (default 65536)" },
    SLOT_PROPERTY, VIRTIO_PROPERTIES, { NULL, NULL, NULL } };

static bool has_object(struct devices *all, const char *prefix, const char *id)
{
    for (guint i = 0; i < all->objects->len; i++) {
        const struct object *o = &g_array_index(all->objects, struct object, i);
        if (!strcmp(o->id, id))
            return g_str_has_prefix(o->type, prefix);
    }
    return false;
}

static bool create_rng(struct request *r, GError **err)
{
    struct board *b = r->all->board;
    struct virtio_rng_options o = { 0 };
    uint64_t period;
    const char *rng = props_get(r->props, "rng");

    if (rng && !has_object(r->all, "rng-", rng))
        return wrong(err, "%s: no -object rng-random or rng-builtin has the id '%s'", r->what, rng);
    if (!props_number(r->props, "max-bytes", 0, &o.max_bytes, err) ||
        !props_number(r->props, "period", 65536, &period, err))
        return false;
    if (!period || period > UINT32_MAX)
        return wrong(err, "%s,period=%" G_GUINT64_FORMAT ": give milliseconds, at least 1", r->what, (guint64)period);
    o.period_ms = (uint32_t)period;
    struct device *slot = find_slot(r, err);
    if (!slot || !finish(r, err))
        return false;
    plug(r, slot, virtio_rng_new(&b->lock, b->mem, &o));
    return true;
}

static const struct property serial_properties[] = {
    { "max-ports", "uint32", "how many ports it may have, 1 to 31 (default 31)" },
    { "emergency-write", "bool", NULL }, SLOT_PROPERTY, VIRTIO_PROPERTIES, { NULL, NULL, NULL } };

static bool create_serial(struct request *r, GError **err)
{
    struct board *b = r->all->board;
    uint64_t ports;

    if (!number_in(r, "max-ports", 1, VIRTIO_SERIAL_MAX_PORTS, &ports, err))
        return false;
    struct device *slot = find_slot(r, err);
    if (!slot || !finish(r, err))
        return false;
    struct virtio_device *vdev = virtio_serial_new(&b->lock, b->mem, (unsigned)ports);
    plug(r, slot, vdev);
    g_ptr_array_add(r->all->serials, vdev);
    return true;
}

static const struct property port_properties[] = {
    { "chardev", "str", "id= of the -chardev at the host's end" },
    { "name", "str", "how the guest finds it (/dev/virtio-ports/NAME)" },
    { "nr", "uint32", "the port's number (default: the next free one)" },
    { "bus", "str", "SERIAL.0, for the virtio-serial-device with id=SERIAL (default: the first)" },
    { NULL, NULL, NULL } };

/* Is bus the name of serial device i? */
static bool is_serial_bus(const struct virtio_device *vdev, unsigned i, const char *bus)
{
    g_autofree char *by_id = g_strdup_printf("%s.0", vdev->id ? vdev->id : "virtio-serial"),
                    *by_number = g_strdup_printf("virtio-serial-bus.%u", i);
    return !strcmp(bus, by_id) || !strcmp(bus, by_number);
}

static int add_port(struct devices *all, const char *bus, const struct virtio_port_options *o)
{
    int nr = -ENODEV;

    for (guint i = 0; i < all->serials->len && (nr == -ENODEV || nr == -ENOSPC); i++) {
        struct virtio_device *vdev = g_ptr_array_index(all->serials, i);
        if (!bus || is_serial_bus(vdev, i, bus))
            nr = virtio_serial_add_port(vdev, o);
    }
    return nr;
}

static bool create_port(struct request *r, bool console, GError **err)
{
    struct virtio_port_options o = { .console = console, .name = props_get(r->props, "name"), .nr = -1 };
    const char *chardev = props_get(r->props, "chardev"), *bus = props_get(r->props, "bus");
    uint64_t nr;

    if (!props_number(r->props, "nr", UINT32_MAX, &nr, err))
        return false;
    if (nr != UINT32_MAX)
        o.nr = (int)MIN(nr, 1000);
    if (chardev && !(o.chr = chardevs_take(r->all->chardevs, chardev, err))) {
        g_prefix_error(err, "%s: ", r->what);
        return false;
    }
    if (!finish(r, err))
        return false;
    switch (add_port(r->all, bus, &o)) {
    case -ENODEV:
        return bus ? wrong(err, "%s,bus=%s: no virtio-serial-device before it has this bus", r->what, bus)
                   : wrong(err, "%s: put a -device virtio-serial-device before it", r->what);
    case -ENOSPC: return wrong(err, "%s: every port is taken", r->what);
    case -EBUSY: return wrong(err, "%s,nr=%d: this port is taken", r->what, o.nr);
    case -EINVAL: return wrong(err, "%s,nr=%d: there is no such port", r->what, o.nr);
    default: return true;
    }
}

static bool create_console(struct request *r, GError **err)
{
    return create_port(r, true, err);
}

static bool create_serialport(struct request *r, GError **err)
{
    return create_port(r, false, err);
}

static const struct property net_properties[] = {
    { "netdev", "str", NULL }, { "mac", "str", NULL }, { "mq", "bool", NULL }, { "bootindex", "int32", NULL },
    { "romfile", "str", NULL }, { "tx", "str", NULL }, { "mrg-rxbuf", "bool", NULL }, { "bus", "str", NULL },
    { "csum", "bool", NULL }, { "host-mtu", "uint16", NULL }, VIRTIO_PROPERTIES, { NULL, NULL, NULL } };

static void warn_net(struct devices *all)
{
    if (!all->warned_net)
        warn("networking is not here yet: the guest runs without its network card");
    all->warned_net = true;
}

static bool create_net(struct request *r, GError **err)
{
    if (!finish(r, err))
        return false;
    warn_net(r->all);
    return true;
}

static const struct driver drivers[] = {
    { "virtio-blk-device", "virtio-blk", "virtio-bus", "Storage", "disk", blk_properties, create_blk },
    { "virtio-rng-device", "virtio-rng", "virtio-bus", "Misc", "entropy from the host", rng_properties, create_rng },
    { "virtio-serial-device", "virtio-serial", "virtio-bus", "Input", "carrier of consoles and ports",
      serial_properties, create_serial },
    { "virtconsole", NULL, "virtio-serial-bus", "Input", "a terminal in the guest: hvc0 ...", port_properties,
      create_console },
    { "virtserialport", NULL, "virtio-serial-bus", "Input", "a byte channel: /dev/vportNpM", port_properties,
      create_serialport },
    { "virtio-net-device", "virtio-net", "virtio-bus", "Network", "accepted; not here yet, the guest has no network",
      net_properties, create_net },
};

/* --- help ----------------------------------------------------------------------------------------------------- */

static const struct driver *find_driver(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(drivers); i++)
        if (!strcmp(name, drivers[i].name) || (drivers[i].alias && !strcmp(name, drivers[i].alias)))
            return &drivers[i];
    return NULL;
}

static bool unknown_driver(const char *name, GError **err)
{
    const char *names[G_N_ELEMENTS(drivers) + 1] = { NULL };
    size_t stem = strlen(name) > 4 ? strlen(name) - 4 : 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(drivers); i++)
        names[i] = drivers[i].name;
    /* virtio-blk-pci, -pci-transitional and the like of a driver that is here on the other bus */
    for (unsigned i = 0; i < G_N_ELEMENTS(drivers); i++) {
        const char *alias = drivers[i].alias;
        if (alias && stem && g_str_has_prefix(name, alias) && g_str_has_prefix(name + strlen(alias), "-pci"))
            return wrong(err, "-device %s: not here yet: PCI; use %s", name, drivers[i].name);
    }
    if (g_str_has_suffix(name, "-pci") || strstr(name, "pci"))
        return wrong(err, "-device %s: not here yet: PCI (-device help lists what is)", name);
    const char *near = suggest(name, names);
    return wrong(err, "-device %s: unknown driver%s%s%s (-device help lists them)", name,
                 near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

void devices_help(void)
{
    static const char *const sections[] = { "Storage", "Network", "Input", "Misc" };

    for (unsigned s = 0; s < G_N_ELEMENTS(sections); s++) {
        printf("%s%s devices:\n", s ? "\n" : "", sections[s]);
        for (unsigned i = 0; i < G_N_ELEMENTS(drivers); i++) {
            const struct driver *d = &drivers[i];
            if (strcmp(d->section, sections[s]))
                continue;
            printf("name \"%s\", bus %s", d->name, d->bus);
            if (d->alias)
                printf(", alias \"%s\"", d->alias);
            printf(", desc \"%s\"\n", d->help);
        }
    }
}

bool devices_driver_help(const char *name, GError **err)
{
    const struct driver *d = find_driver(name);

    if (!d)
        return unknown_driver(name, err);
    printf("%s options:\n", d->name);
    printf("  %-23s - %s\n", "id=<str>", "name of the device");
    for (const struct property *p = d->properties; p->name; p++) {
        g_autofree char *head = g_strdup_printf("%s=<%s>", p->name, p->type);
        printf("  %-23s - %s\n", head, p->help ? p->help : "accepted, without effect here");
    }
    return true;
}

bool devices_check_global(const char *driver, const char *property, GError **err)
{
    const struct driver *d = find_driver(driver);
    const char *names[64] = { NULL };
    unsigned n = 0;

    if (!d)
        return wrong(err, "-global %s.%s: unknown driver (-device help lists them)", driver, property);
    for (const struct property *p = d->properties; p->name; p++) {
        if (!strcmp(p->name, property))
            return true;
        names[n++] = p->name;
    }
    const char *near = suggest(property, names);
    return wrong(err, "-global %s.%s: no such property%s%s%s", driver, property, near ? "; did you mean '" : "",
                 near ? near : "", near ? "'?" : "");
}

/* --- creation --------------------------------------------------------------------------------------------------- */

static void apply_globals(struct devices *all, const struct driver *d, struct props *p)
{
    for (guint i = 0; i < all->config->globals->len; i++) {
        const struct global_config *g = g_ptr_array_index(all->config->globals, i);
        if (find_driver(g->driver) == d)
            props_default(p, g->property, g->value);
    }
}

static bool add_device(struct devices *all, const struct device_config *c, GError **err)
{
    const struct driver *d = c->driver ? find_driver(c->driver) : NULL;

    if (!c->driver)
        return wrong(err, "-device: give a driver (-device help lists them)");
    if (!d)
        return unknown_driver(c->driver, err);
    struct request r = { .all = all, .props = c->props, .id = props_get(c->props, "id") };
    if (r.id && g_hash_table_contains(all->ids, r.id))
        return wrong(err, "-device %s: two devices have the id '%s'", c->driver, r.id);
    if (r.id)
        g_hash_table_add(all->ids, (gpointer)(uintptr_t)r.id);
    r.what = g_strdup_printf("-device %s", c->driver);
    apply_globals(all, d, c->props);
    for (const struct property *p = d->properties; p->name; p++)
        if (!p->help)
            props_ignore(c->props, (const char *const[]){ p->name, NULL });
    bool ok = d->create(&r, err);
    g_free(r.what);
    return ok;
}

/* -drive if=virtio and -hda bring their device with them, behind those that were asked for. */
static bool add_implicit_disks(struct devices *all, GError **err)
{
    struct disk *disk;
    const char *id;

    while ((disk = drives_take_implicit(all->drives, &id))) {
        struct virtio_blk_options o = { .disk = disk };
        struct request r = { .all = all, .props = props_new(NULL, NULL), .id = id };
        r.what = g_strdup_printf("-drive id=%s", id);
        bool ok = plug_blk(&r, &o, err);
        g_free(r.what);
        props_free(r.props);
        if (!ok)
            return false;
    }
    return true;
}

/* The host's kernel is the one source of randomness here; a file of one's own choice is not. */
static bool check_rng_random(struct props *p, GError **err)
{
    static const char *const files[] = { "/dev/urandom", "/dev/random", "/dev/hwrng", NULL };
    const char *name = props_get(p, "filename");

    return !name || g_strv_contains(files, name) ||
           wrong(err, "-object rng-random,filename=%s: give /dev/urandom (entropy comes from the host's kernel)", name);
}

static bool add_object(struct devices *all, struct props *p, GError **err)
{
    static const char *const types[] = { "rng-random", "rng-builtin", "iothread", NULL };
    static const char *const iothread[] = { "poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch", NULL };
    struct object o = { props_get(p, "qom-type"), props_get(p, "id") };
    g_autofree char *what = g_strdup_printf("-object %s", o.type ? o.type : "");

    if (!o.type || !g_strv_contains(types, o.type))
        return wrong(err, "%s: no such object here (rng-random, rng-builtin and iothread are)", what);
    if (!o.id)
        return wrong(err, "%s: give id=", what);
    for (guint i = 0; i < all->objects->len; i++)
        if (!strcmp(g_array_index(all->objects, struct object, i).id, o.id))
            return wrong(err, "%s: two objects have the id '%s'", what, o.id);
    if (!strcmp(o.type, "rng-random") && !check_rng_random(p, err))
        return false;
    if (!strcmp(o.type, "iothread"))
        props_ignore(p, iothread);
    g_array_append_val(all->objects, o);
    return props_finish(p, what, err);
}

static bool add_all(struct devices *all, GError **err)
{
    const struct config *c = all->config;

    for (guint i = 0; i < c->objects->len; i++)
        if (!add_object(all, g_ptr_array_index(c->objects, i), err))
            return false;
    all->drives = drives_new(c, err);
    if (!all->drives)
        return false;
    for (guint i = 0; i < c->devices->len; i++)
        if (!add_device(all, g_ptr_array_index(c->devices, i), err))
            return false;
    for (guint i = 0; i < c->nics->len; i++) {
        const char *type = props_get(g_ptr_array_index(c->nics, i), "type");
        if (type && strcmp(type, "none"))
            warn_net(all);
    }
    return add_implicit_disks(all, err);
}

struct devices *devices_new(const struct config *config, struct board *board, struct chardevs *chardevs, GError **err)
{
    struct devices *all = g_new0(struct devices, 1);

    all->config = config;
    all->board = board;
    all->chardevs = chardevs;
    all->objects = g_array_new(FALSE, FALSE, sizeof(struct object));
    all->serials = g_ptr_array_new();
    all->ids = g_hash_table_new(g_str_hash, g_str_equal);
    if (add_all(all, err)) {
        pci_host_seal(board->pcie);
        return all;
    }
    devices_free(all);
    return NULL;
}

void devices_free(struct devices *all)
{
    g_clear_pointer(&all->drives, drives_free);
    g_array_free(all->objects, TRUE);
    g_ptr_array_free(all->serials, TRUE);
    g_hash_table_destroy(all->ids);
    g_free(all);
}

char *devices_commit(struct devices *all)
{
    return drives_commit(all->drives);
}
