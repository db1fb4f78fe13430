/*
 * See devices.h.  Placement is QEMU's: the first -device NAME-device takes the last of the board's virtio-mmio slots
 * that is free, unless bus=virtio-mmio-bus.N names one (empty slots read as device 0); the first -device NAME-pci takes
 * the lowest free slot of the PCI bus, behind the cards of -nic and -net.
 *
 * Left out: hot plug, several functions in a PCI slot.
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
#include "machine/exports.h"
#include "machine/fsdevs.h"
#include "machine/netdevs.h"
#include "virtio/9p.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/mmio.h"
#include "virtio/net.h"
#include "virtio/pci.h"
#include "virtio/rng.h"

struct object {
    const char *type, *id;
};

struct devices {
    const struct config *config;
    struct board *board;
    struct chardevs *chardevs;
    struct drives *drives;
    struct netdevs *netdevs;
    struct fsdevs *fsdevs;
    struct exports *exports;
    GArray *objects;      /* struct object */
    GPtrArray *serials;   /* struct virtio_device: where ports can go */
    GHashTable *ids;      /* of -device, not owned */
    unsigned nics;        /* cards made: the next one's address */
};

/* One -device as it is created. */
struct request {
    struct devices *all;
    const struct driver *driver; /* NULL: an implied disk */
    struct props *props;
    const char *id;
    char *what; /* for messages: "-device NAME" */
};

struct property {
    const char *name, *type, *help; /* name NULL: end of the list; help NULL: accepted without effect */
};

struct driver {
    const char *name, *alias, *bus, *section, *help;
    const struct property *properties, *more; /* its own, and those of its bus or NULL */
    bool (*create)(struct request *r, GError **err);
};

/* --- slots --------------------------------------------------------------------------------------------- */

/* Where a device goes: a frame, or the PCI bus. */
struct place {
    struct device *frame;
    struct virtio_pci_options pci;
};

static struct device *find_frame(struct request *r, GError **err)
{
    struct board *b = r->all->board;
    const char *bus = props_get(r->props, "bus");
    char *end;

    if (bus && g_str_has_prefix(bus, "virtio-mmio-bus.")) {
        unsigned long n = strtoul(bus + 16, &end, 10);
        if (*end || n >= VIRTIO_SLOTS)
            options_wrong(err, "%s,bus=%s: the board has virtio-mmio-bus.0 to .%d", r->what, bus, VIRTIO_SLOTS - 1);
        else if (virtio_mmio_vdev(b->virtio[n]))
            options_wrong(err, "%s,bus=%s: there is a device in this slot already", r->what, bus);
        else
            return b->virtio[n];
        return NULL;
    }
    if (bus) {
        options_wrong(err, "%s,bus=%s: no such bus (virtio-mmio-bus.0 to .%d)", r->what, bus, VIRTIO_SLOTS - 1);
        return NULL;
    }
    for (unsigned i = VIRTIO_SLOTS; i--;)
        if (!virtio_mmio_vdev(b->virtio[i]))
            return b->virtio[i];
    options_wrong(err, "%s: all %d virtio-mmio slots are taken", r->what, VIRTIO_SLOTS);
    return NULL;
}

/* addr=SLOT[.0], hexadecimal. */
static bool parse_addr(struct request *r, int *slot, GError **err)
{
    const char *addr = props_get(r->props, "addr");
    char *end;

    *slot = -1;
    if (!addr || !strcmp(addr, "-1"))
        return true;
    unsigned long n = strtoul(addr, &end, 16);
    if (end == addr || (*end && strcmp(end, ".0")) || n < 1 || n >= PCI_SLOTS)
        return options_wrong(err, "%s,addr=%s: give a slot, 1 to 1f (hexadecimal), function 0", r->what, addr);
    *slot = (int)n;
    return true;
}

/* disable-legacy=on|off|auto: on this bus auto is off. */
static bool parse_disable(struct request *r, const char *key, bool fallback, bool *disabled, GError **err)
{
    const char *v = props_get(r->props, key);

    if (!v || strcmp(v, "auto"))
        return props_bool(r->props, key, fallback, disabled, err);
    *disabled = false;
    return true;
}

static bool find_pci(struct request *r, struct virtio_pci_options *o, GError **err)
{
    bool only_modern = g_str_has_suffix(r->driver->name, "-non-transitional"), no_legacy, no_modern;
    const char *bus = props_get(r->props, "bus"), *vectors = props_get(r->props, "vectors");
    uint64_t n;

    if (bus && strcmp(bus, "pcie.0"))
        return options_wrong(err, "%s,bus=%s: no such bus (pcie.0)", r->what, bus);
    if (!parse_addr(r, &o->slot, err) || !parse_disable(r, "disable-legacy", only_modern, &no_legacy, err) ||
        !parse_disable(r, "disable-modern", false, &no_modern, err) ||
        (vectors && !props_number(r->props, "vectors", 0, &n, err)))
        return false;
    if (no_legacy && no_modern)
        return options_wrong(err, "%s: disable-legacy and disable-modern are both on", r->what);
    if (vectors && n > 128)
        return options_wrong(err, "%s,vectors=%s: give 0 to 128", r->what, vectors);
    o->legacy = !no_legacy;
    o->modern = !no_modern;
    o->vectors = vectors ? (int)n : -1;
    return true;
}

static bool find_place(struct request *r, struct place *p, GError **err)
{
    memset(p, 0, sizeof *p);
    if (r->driver && !strcmp(r->driver->bus, "PCI"))
        return find_pci(r, &p->pci, err);
    p->frame = find_frame(r, err);
    return p->frame;
}

/* Owns vdev, also when it fails. */
static bool plug(struct request *r, const struct place *p, struct virtio_device *vdev, GError **err)
{
    vdev->id = g_strdup(r->id);
    if (p->frame) {
        virtio_mmio_attach(p->frame, vdev);
        return true;
    }
    int slot = virtio_pci_plug(r->all->board->pcie, vdev, &p->pci);
    if (slot >= 0)
        return true;
    virtio_free(vdev);
    return slot == -EBUSY ? options_wrong(err, "%s,addr=%02x: there is a device in this slot already", r->what, p->pci.slot)
                          : options_wrong(err, "%s: no free slot on the PCI bus", r->what);
}

/* A number in [low, high]; 0 when absent. */
static bool number_in(struct request *r, const char *key, uint64_t low, uint64_t high, uint64_t *value, GError **err)
{
    if (!props_number(r->props, key, 0, value, err))
        return false;
    if (!*value || (*value >= low && *value <= high))
        return true;
    return options_wrong(err, "%s,%s=%" G_GUINT64_FORMAT ": give %u to %" G_GUINT64_FORMAT, r->what, key, (guint64)*value,
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

static const struct property mmio_properties[] = {
    { "bus", "str", "virtio-mmio-bus.N: the slot, 0 to 31 (default: the last free one)" },
    VIRTIO_PROPERTIES, { NULL, NULL, NULL } };

static const struct property pci_properties[] = {
    { "addr", "int32", "slot on the bus, hexadecimal, 1 to 1f (default: the lowest free one)" },
    { "bus", "str", "pcie.0, the only one" },
    { "disable-legacy", "on|off|auto", "without the interface before virtio 1.0 (default off)" },
    { "disable-modern", "bool", "without the interface of virtio 1.0 (default off)" },
    { "vectors", "uint32", "MSI-X messages, 0 to 128 (default: one a queue and one)" },
    { "multifunction", "bool", NULL }, { "ats", "bool", NULL }, { "migrate-extra", "bool", NULL },
    { "modern-pio-notify", "bool", NULL }, { "page-per-vq", "bool", NULL }, { "x-pcie-flr-init", "bool", NULL },
    { "acpi-index", "uint32", NULL }, { "rombar", "int32", NULL }, { "romfile", "str", NULL },
    { "ioeventfd", "bool", NULL }, { "x-pcie-pm-init", "bool", NULL },
    VIRTIO_PROPERTIES, { NULL, NULL, NULL } };

static const struct property blk_properties[] = {
    { "drive", "str", "id= of the -drive to show (required)" },
    { "serial", "str", "serial number, at most 20 characters" },
    { "num-queues", "uint16", "request queues, 1 to 8 (default 1)" },
    { "queue-size", "uint16", "entries of a queue, a power of two, 4 to 1024 (default 256)" },
    { "bootindex", "int32", NULL }, { "config-wce", "bool", NULL }, { "iothread", "str", NULL },
    { "share-rw", "bool", NULL }, { "write-cache", "on|off|auto", NULL }, { "discard", "bool", NULL },
    { "write-zeroes", "bool", NULL }, { "werror", "str", NULL }, { "rerror", "str", NULL },
    { "request-merging", "bool", NULL }, { "seg-max-adjust", "bool", NULL }, { "scsi", "bool", NULL },
    { NULL, NULL, NULL } };

static bool plug_blk(struct request *r, const struct virtio_blk_options *o, GError **err)
{
    struct board *b = r->all->board;
    struct place place;

    if (find_place(r, &place, err) && finish(r, err))
        return plug(r, &place, virtio_blk_new(&b->lock, b->mem, o), err);
    disk_close(o->disk);
    return false;
}

static bool create_blk(struct request *r, GError **err)
{
    uint64_t queues, size;
    const char *drive = props_get(r->props, "drive");

    if (!drive)
        return options_wrong(err, "%s: give drive=ID, and a -drive if=none,id=ID,file=... for it", r->what);
    if (!number_in(r, "num-queues", 1, CPU_MAX, &queues, err) || !number_in(r, "queue-size", 4, 1024, &size, err))
        return false;
    if (size & (size - 1))
        return options_wrong(err, "%s,queue-size=%u: give a power of two", r->what, (unsigned)size);
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
    { NULL, NULL, NULL } };

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
        return options_wrong(err, "%s: no -object rng-random or rng-builtin has the id '%s'", r->what, rng);
    if (!props_number(r->props, "max-bytes", 0, &o.max_bytes, err) ||
        !props_number(r->props, "period", 65536, &period, err))
        return false;
    if (!period || period > UINT32_MAX)
        return options_wrong(err, "%s,period=%" G_GUINT64_FORMAT ": give milliseconds, at least 1", r->what, (guint64)period);
    o.period_ms = (uint32_t)period;
    struct place place;
    return find_place(r, &place, err) && finish(r, err) &&
           plug(r, &place, virtio_rng_new(&b->lock, b->mem, &o), err);
}

static const struct property serial_properties[] = {
    { "max-ports", "uint32", "how many ports it may have, 1 to 31 (default 31)" },
    { "emergency-write", "bool", NULL }, { NULL, NULL, NULL } };

static bool create_serial(struct request *r, GError **err)
{
    struct board *b = r->all->board;
    uint64_t ports;

    if (!number_in(r, "max-ports", 1, VIRTIO_SERIAL_MAX_PORTS, &ports, err))
        return false;
    struct place place;
    if (!find_place(r, &place, err) || !finish(r, err))
        return false;
    struct virtio_device *vdev = virtio_serial_new(&b->lock, b->mem, (unsigned)ports);
    if (!plug(r, &place, vdev, err))
        return false;
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
        return bus ? options_wrong(err, "%s,bus=%s: no virtio-serial-device before it has this bus", r->what, bus)
                   : options_wrong(err, "%s: put a -device virtio-serial-device before it", r->what);
    case -ENOSPC: return options_wrong(err, "%s: every port is taken", r->what);
    case -EBUSY: return options_wrong(err, "%s,nr=%d: this port is taken", r->what, o.nr);
    case -EINVAL: return options_wrong(err, "%s,nr=%d: there is no such port", r->what, o.nr);
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

static const struct property balloon_properties[] = {
    { "deflate-on-oom", "bool", "the guest may take memory back before it kills programs (default off)" },
    { "free-page-reporting", "bool", "the guest gives back what it does not use, unasked (default off)" },
    { "guest-stats-polling-interval", "int32", NULL }, { "free-page-hint", "bool", NULL }, { "page-poison", "bool", NULL },
    { "iothread", "str", NULL }, { "qemu-4-0-config-size", "bool", NULL }, { NULL, NULL, NULL } };

static bool create_balloon(struct request *r, GError **err)
{
    struct virtio_balloon_options o;
    struct board *b = r->all->board;
    struct virtio_device *vdev;
    struct place place;

    if (b->balloon)
        return options_wrong(err, "%s: there is a balloon already", r->what);
    if (!props_bool(r->props, "deflate-on-oom", false, &o.deflate_on_oom, err) ||
        !props_bool(r->props, "free-page-reporting", false, &o.free_page_reporting, err) ||
        !find_place(r, &place, err) || !finish(r, err))
        return false;
    vdev = virtio_balloon_new(&b->lock, b->mem, &o);
    if (!plug(r, &place, vdev, err))
        return false;
    b->balloon = vdev;
    return true;
}

static const struct property p9_properties[] = {
    { "fsdev", "str", "id= of the -fsdev to show (required)" },
    { "mount_tag", "str", "what the guest mounts it by, at most 32 characters (required)" },
    { NULL, NULL, NULL } };

static bool create_9p(struct request *r, GError **err)
{
    struct board *b = r->all->board;
    const char *id = props_get(r->props, "fsdev"), *tag = props_get(r->props, "mount-tag");
    struct place place;
    struct p9_fs *fs;

    if (!id || !tag)
        return options_wrong(err, "%s: give fsdev=ID of an -fsdev, and mount_tag=", r->what);
    if (!*tag || strlen(tag) > VIRTIO_9P_TAG_MAX)
        return options_wrong(err, "%s,mount_tag=%s: give 1 to %d characters", r->what, tag, VIRTIO_9P_TAG_MAX);
    fs = fsdevs_find(r->all->fsdevs, id, err);
    if (!fs) {
        g_prefix_error(err, "%s: ", r->what);
        return false;
    }
    return find_place(r, &place, err) && finish(r, err) &&
           plug(r, &place, virtio_9p_new(&b->lock, b->mem, fs, tag), err);
}

static const struct property net_properties[] = {
    { "netdev", "str", "id= of the -netdev behind it (default: no cable)" },
    { "mac", "str", "its address (default 52:54:00:12:34:56, the next card's one more)" },
    { "csum", "bool", "the guest may leave checksums to it (default on)" },
    { "guest-csum", "bool", "and it to the guest (default on)" },
    { "host-tso4", "bool", "the guest may send large TCP segments (default on)" },
    { "guest-tso4", "bool", "and get them (default on)" },
    { "mrg-rxbuf", "bool", "frames may span several of the guest's buffers (default on)" },
    { "mq", "bool", NULL }, { "bootindex", "int32", NULL }, { "tx", "str", NULL }, { "host-mtu", "uint16", NULL },
    { "ctrl-vq", "bool", NULL }, { "ctrl-rx", "bool", NULL }, { "ctrl-vlan", "bool", NULL },
    { "ctrl-mac-addr", "bool", NULL }, { "ctrl-guest-offloads", "bool", NULL }, { "guest-announce", "bool", NULL },
    { "guest-tso6", "bool", NULL }, { "host-tso6", "bool", NULL }, { "guest-ecn", "bool", NULL },
    { "host-ecn", "bool", NULL }, { "guest-ufo", "bool", NULL }, { "host-ufo", "bool", NULL }, { "gso", "bool", NULL },
    { "status", "bool", NULL }, { "rx-queue-size", "uint16", NULL }, { "tx-queue-size", "uint16", NULL },
    { "x-txtimer", "uint32", NULL }, { "x-txburst", "int32", NULL }, { "speed", "int32", NULL },
    { "duplex", "str", NULL }, { "failover", "bool", NULL }, { NULL, NULL, NULL } };

static bool parse_mac(struct request *r, uint8_t *mac, GError **err)
{
    const char *text = props_get(r->props, "mac");
    char rest;

    memcpy(mac, (const uint8_t[NIC_MAC_SIZE]){ 0x52, 0x54, 0x00, 0x12, 0x34, (uint8_t)(0x56 + r->all->nics) },
           NIC_MAC_SIZE);
    r->all->nics++;
    if (!text)
        return true;
    if (sscanf(text, "%2hhx%*1[:-]%2hhx%*1[:-]%2hhx%*1[:-]%2hhx%*1[:-]%2hhx%*1[:-]%2hhx%c", &mac[0], &mac[1], &mac[2],
               &mac[3], &mac[4], &mac[5], &rest) != NIC_MAC_SIZE || (mac[0] & 1))
        return options_wrong(err, "%s,mac=%s: give the address of one card, as 52:54:00:12:34:56", r->what, text);
    return true;
}

static bool parse_net_features(struct request *r, struct virtio_net_options *o, GError **err)
{
    const struct { const char *key; bool *off; } features[] = {
        { "csum", &o->no_csum }, { "guest-csum", &o->no_guest_csum }, { "host-tso4", &o->no_tso },
        { "guest-tso4", &o->no_guest_tso }, { "mrg-rxbuf", &o->no_mergeable } };

    for (unsigned i = 0; i < G_N_ELEMENTS(features); i++) {
        bool on;
        if (!props_bool(r->props, features[i].key, true, &on, err))
            return false;
        *features[i].off = !on;
    }
    return true;
}

static bool create_net(struct request *r, GError **err)
{
    struct board *b = r->all->board;
    struct virtio_net_options o = { 0 };
    const char *netdev = props_get(r->props, "netdev");
    struct place place;

    if (!parse_mac(r, o.mac, err) || !parse_net_features(r, &o, err) || !find_place(r, &place, err) || !finish(r, err))
        return false;
    place.pci.rom = true;
    if (netdev && !(o.port = netdevs_take(r->all->netdevs, netdev, err))) {
        g_prefix_error(err, "%s: ", r->what);
        return false;
    }
    return plug(r, &place, virtio_net_new(&b->lock, b->mem, &o), err);
}

/* A virtio device has a name for each transport; NAME-pci has both interfaces unless told otherwise. */
#define VIRTIO_DRIVER(name, section, help, properties, create) \
    { name "-device", NULL, "virtio-bus", section, help, properties, mmio_properties, create }, \
    { name "-pci", name, "PCI", section, help, properties, pci_properties, create }, \
    { name "-pci-transitional", NULL, "PCI", section, help, properties, pci_properties, create }, \
    { name "-pci-non-transitional", NULL, "PCI", section, help, properties, pci_properties, create }

static const struct driver drivers[] = {
    VIRTIO_DRIVER("virtio-blk", "Storage", "disk", blk_properties, create_blk),
    VIRTIO_DRIVER("virtio-rng", "Misc", "entropy from the host", rng_properties, create_rng),
    VIRTIO_DRIVER("virtio-serial", "Input", "carrier of consoles and ports", serial_properties, create_serial),
    { "virtconsole", NULL, "virtio-serial-bus", "Input", "a terminal in the guest: hvc0 ...", port_properties, NULL,
      create_console },
    { "virtserialport", NULL, "virtio-serial-bus", "Input", "a byte channel: /dev/vportNpM", port_properties, NULL,
      create_serialport },
    VIRTIO_DRIVER("virtio-9p", "Storage", "directory of the host", p9_properties, create_9p),
    VIRTIO_DRIVER("virtio-balloon", "Misc", "memory that the host may ask back", balloon_properties, create_balloon),
    VIRTIO_DRIVER("virtio-net", "Network", "network card", net_properties, create_net),
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

    for (unsigned i = 0; i < G_N_ELEMENTS(drivers); i++)
        names[i] = drivers[i].name;
    const char *near = suggest(name, names);
    return options_wrong(err, "-device %s: unknown driver%s%s%s (-device help lists them)", name,
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

static void print_properties(const struct property *p)
{
    for (; p && p->name; p++) {
        g_autofree char *head = g_strdup_printf("%s=<%s>", p->name, p->type);
        printf("  %-23s - %s\n", head, p->help ? p->help : "accepted, without effect here");
    }
}

bool devices_driver_help(const char *name, GError **err)
{
    const struct driver *d = find_driver(name);

    if (!d)
        return unknown_driver(name, err);
    printf("%s options:\n", d->name);
    printf("  %-23s - %s\n", "id=<str>", "name of the device");
    print_properties(d->properties);
    print_properties(d->more);
    return true;
}

bool devices_check_global(const char *driver, const char *property, GError **err)
{
    const struct driver *d = find_driver(driver);
    const char *names[128] = { NULL };
    unsigned n = 0;

    if (!d)
        return options_wrong(err, "-global %s.%s: unknown driver (-device help lists them)", driver, property);
    for (unsigned part = 0; part < 2; part++)
        for (const struct property *p = part ? d->more : d->properties; p && p->name; p++) {
            if (!strcmp(p->name, property))
                return true;
            names[n++] = p->name;
        }
    const char *near = suggest(property, names);
    return options_wrong(err, "-global %s.%s: no such property%s%s%s", driver, property, near ? "; did you mean '" : "",
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

static void ignore_properties(struct props *props, const struct property *p)
{
    for (; p && p->name; p++)
        if (!p->help)
            props_ignore(props, (const char *const[]){ p->name, NULL });
}

static bool add_device(struct devices *all, const struct device_config *c, GError **err)
{
    const struct driver *d = c->driver ? find_driver(c->driver) : NULL;

    if (!c->driver)
        return options_wrong(err, "-device: give a driver (-device help lists them)");
    if (!d)
        return unknown_driver(c->driver, err);
    struct request r = { .all = all, .driver = d, .props = c->props, .id = props_get(c->props, "id") };
    if (r.id && g_hash_table_contains(all->ids, r.id))
        return options_wrong(err, "-device %s: two devices have the id '%s'", c->driver, r.id);
    if (r.id)
        g_hash_table_add(all->ids, (gpointer)(uintptr_t)r.id);
    r.what = g_strdup_printf("-device %s", c->driver);
    apply_globals(all, d, c->props);
    ignore_properties(c->props, d->properties);
    ignore_properties(c->props, d->more);
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
           options_wrong(err, "-object rng-random,filename=%s: give /dev/urandom (entropy comes from the host's kernel)", name);
}

static bool add_object(struct devices *all, struct props *p, GError **err)
{
    static const char *const types[] = { "rng-random", "rng-builtin", "iothread", "filter-dump", NULL };
    static const char *const iothread[] = { "poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch", NULL };
    struct object o = { props_get(p, "qom-type"), props_get(p, "id") };
    g_autofree char *what = g_strdup_printf("-object %s", o.type ? o.type : "");

    if (!o.type || !g_strv_contains(types, o.type))
        return options_wrong(err, "%s: no such object here (rng-random, rng-builtin, iothread and filter-dump are)", what);
    if (!o.id)
        return options_wrong(err, "%s: give id=", what);
    for (guint i = 0; i < all->objects->len; i++)
        if (!strcmp(g_array_index(all->objects, struct object, i).id, o.id))
            return options_wrong(err, "%s: two objects have the id '%s'", what, o.id);
    if (!strcmp(o.type, "rng-random") && !check_rng_random(p, err))
        return false;
    if (!strcmp(o.type, "iothread"))
        props_ignore(p, iothread);
    g_array_append_val(all->objects, o);
    if (!strcmp(o.type, "filter-dump"))
        return netdevs_add_filter(all->netdevs, p, err);
    return props_finish(p, what, err);
}

static bool add_all(struct devices *all, GError **err)
{
    const struct config *c = all->config;

    all->netdevs = netdevs_new(c, err);
    if (!all->netdevs || !exports_new(c, all->netdevs, &all->exports, err))
        return false;
    for (guint i = 0; i < c->objects->len; i++)
        if (!add_object(all, g_ptr_array_index(c->objects, i), err))
            return false;
    all->drives = drives_new(c, err);
    if (!all->drives)
        return false;
    all->fsdevs = fsdevs_new(c, err);
    if (!all->fsdevs)
        return false;
    const GPtrArray *cards = netdevs_cards(all->netdevs);
    for (guint i = 0; i < cards->len; i++)
        if (!add_device(all, g_ptr_array_index(cards, i), err))
            return false;
    for (guint i = 0; i < c->devices->len; i++)
        if (!add_device(all, g_ptr_array_index(c->devices, i), err))
            return false;
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
    g_clear_pointer(&all->exports, exports_free);
    g_clear_pointer(&all->netdevs, netdevs_free);
    g_clear_pointer(&all->fsdevs, fsdevs_free);
    g_array_free(all->objects, TRUE);
    g_ptr_array_free(all->serials, TRUE);
    g_hash_table_destroy(all->ids);
    g_free(all);
}

struct netdevs *devices_netdevs(struct devices *all)
{
    return all->netdevs;
}

char *devices_commit(struct devices *all)
{
    return drives_commit(all->drives);
}
