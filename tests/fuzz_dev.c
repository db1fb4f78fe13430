/*
 * Random register and queue traffic on every device: nothing may crash, hang, or break an invariant.
 *
 *   fuzz_dev [SEED [STEPS]]
 *
 * The same seed gives the same traffic (but for when a worker thread of the block device finishes).  Most
 * values are half sensible, so that state machines are entered and not only knocked at.  To be built with
 * sanitizers too (-Db_sanitize=address,undefined).  Prints one line `N passed, M failed' of invariant checks.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dev/fw_cfg.h"
#include "dev/gicv2.h"
#include "dev/gicv2m.h"
#include "dev/pci.h"
#include "dev/pl011.h"
#include "dev/pl031.h"
#include "dev/pl061.h"
#include "fake_chardev.h"
#include "virtio/9p.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/mmio.h"
#include "virtio/net.h"
#include "virtio/pci.h"
#include "virtio/rng.h"

enum { RAM_BASE = 0x40000000, RAM_SIZE = 0x200000, RINGS = 0x10000 };
enum { CPUS = 4, MAX_DEVICES = 18, DISK_SIZE = 1 << 20, FRAMES = 10, DATA = RINGS * FRAMES };
enum { ECAM = 0x3f000000, PCI_MMIO = 0x10000000, PCI_PIO = 0x3eff0000, PCI_CARDS = 3 };

static GMutex lock;
static struct mem *mem;
static struct gicv2 *gic;
static struct device *devices[MAX_DEVICES];
static unsigned num_devices, first_virtio, cpu;
static struct device *pcie;
static struct fake_chardev *chars[3];
static bool irq[CPUS];
static uint64_t rng_state;
static unsigned passed, failed;

static uint64_t rnd(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state;
}

static unsigned below(unsigned n)
{
    return (unsigned)(rnd() >> 33) % n;
}

static void check(bool ok, const char *what, uint64_t step)
{
    if (ok) {
        passed++;
        return;
    }
    if (failed++ < 10)
        fprintf(stderr, "step %" PRIu64 ": %s\n", step, what);
}

static unsigned current_cpu(void)
{
    return cpu;
}

static void see_irq(void *opaque, unsigned n, bool level)
{
    ((bool *)opaque)[n] = level;
}

/* --- the board ------------------------------------------------------------------------------------------ */

static struct device *add(struct device *d, unsigned spi)
{
    d->irq = gicv2_spi(gic, spi);
    devices[num_devices++] = d;
    return d;
}

static struct virtio_device *new_blk(bool snapshot)
{
    char path[] = "/tmp/armlet-fuzz-XXXXXX", *why = NULL;
    int fd = mkstemp(path);
    struct disk_options o = {.path = path, .snapshot = snapshot, .unmap = true, .cache = DISK_UNSAFE};
    struct virtio_blk_options b = {.serial = "fuzz", .num_queues = 2, .queue_size = 16};

    if (fd < 0 || ftruncate(fd, DISK_SIZE) < 0 || disk_open(&b.disk, &o, &why) < 0) {
        fprintf(stderr, "%s: %s\n", path, why ? why : "cannot be made");
        exit(1);
    }
    unlink(path);
    close(fd);
    return virtio_blk_new(&lock, mem, &b);
}

static struct virtio_device *new_serial(void)
{
    struct virtio_device *vdev = virtio_serial_new(&lock, mem, 4);

    virtio_serial_add_port(vdev, &(struct virtio_port_options){true, NULL, &chars[1]->chr, -1});
    virtio_serial_add_port(vdev, &(struct virtio_port_options){false, "fuzz", &chars[2]->chr, -1});
    return vdev;
}

/* --- a directory ---------------------------------------------------------------------------------------- */

static char *export_dir;
static struct p9_fs *export_fs;

static struct virtio_device *new_9p(void)
{
    struct p9_options o = {.model = rnd() & 1 ? P9_NONE : P9_MAPPED_FILE, .fmode = 0600, .dmode = 0700};
    const char *why;

    export_dir = g_dir_make_tmp("armlet-fuzz-XXXXXX", NULL);
    o.path = export_dir;
    if (!export_dir || p9_fs_new(&export_fs, &o, &why) < 0) {
        fprintf(stderr, "no directory to export\n");
        exit(1);
    }
    return virtio_9p_new(&lock, mem, export_fs, "fuzz");
}

static void remove_export(void)
{
    g_autofree char *command = g_strdup_printf("rm -rf %s", export_dir);

    p9_fs_free(export_fs);
    if (system(command))
        fprintf(stderr, "%s: not removed\n", export_dir);
    g_free(export_dir);
}

/* What a message has: f a fid, n a name, w up to 16 of them, digits a number of so many bytes. */
static const struct shape {
    uint8_t type;
    const char *fields;
} shapes[] = {
    {8, "f"},      {12, "f4"},    {14, "fn444"}, {16, "fnn4"},  {18, "fn4444"}, {20, "ffn"},       {22, "f"},
    {24, "f8"},    {26, "f44448888"}, {30, "ffn"}, {32, "fn84"}, {40, "f84"},   {50, "f4"},        {52, "f14884n"},
    {54, "f1884n"}, {70, "ffn"},  {72, "fn44"},  {74, "fnfn"},  {76, "fn4"},    {100, "4v"},       {104, "f0nn4"},
    {108, "2"},    {110, "ffw"},  {116, "f84"},  {118, "f84d"}, {120, "f"},     {122, "f"},        {110, "ffw"},
    {110, "ffw"},  {12, "f4"},    {14, "fn444"}, {40, "f84"},   {99, "8"},
};

struct message {
    uint8_t bytes[2048], *end;
};

static void add_bytes(struct message *m, const void *data, size_t n)
{
    if (n <= (size_t)(m->bytes + sizeof(m->bytes) - m->end)) {
        memmove(m->end, data, n);
        m->end += n;
    }
}

static void add_number(struct message *m, uint64_t v, unsigned size)
{
    add_bytes(m, &v, size);
}

static void add_name(struct message *m)
{
    static const char *const names[] = {"a", "b", "c", "d", "..", ".", "", "e/f", "user.x", ".virtfs_metadata", "a\0b"};
    unsigned i = below(3) ? below(4) : below(11);
    size_t len = i == 10 ? 3 : strlen(names[i]);

    add_number(m, below(200) ? len : rnd(), 2);
    add_bytes(m, names[i], len);
}

static uint64_t any_number(void)
{
    return below(4) ? below(70000) : below(2) ? UINT64_C(1) << below(64) : rnd();
}

static void add_field(struct message *m, char field)
{
    if (field == 'z')
        add_number(m, 0, 4);
    else if (field == 'f')
        add_number(m, below(50) ? below(8) : rnd(), 4);
    else if (field == '0')
        add_number(m, UINT32_MAX, 4);
    else if (field == 'n')
        add_name(m);
    else if (field == 'v')
        add_bytes(m, "\x08\0" "9P2000.L", 10);
    else if (field == 'd')
        add_bytes(m, m->bytes, below(500));
    else if (field == 'w') {
        unsigned n = below(5);

        add_number(m, n, 2);
        while (n--)
            add_name(m);
    } else {
        add_number(m, any_number(), (unsigned)(field - '0'));
    }
}

static const struct shape *any_shape(void)
{
    const struct shape *shape = &shapes[below(G_N_ELEMENTS(shapes))];

    return shape->type == 100 && below(20) ? &shapes[below(8)] : shape; /* which begins all over */
}

static const struct shape attach = {104, "z0nn4"};

/* A 9P request in descriptors 0 and 1 of the table. */
static void write_9p_request(uint64_t table, const struct shape *shape)
{
    uint64_t base = RAM_BASE + DATA + below(64) * 0x2000;
    struct message m = {.end = m.bytes};
    uint32_t size;
    struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags, next;
    } d[2] = {{base, 0, 1, 1}, {base + 0x800, below(300) ? 0x1800 : below(64), 2, 0}};

    add_number(&m, 0, 4);
    add_number(&m, shape->type, 1);
    add_number(&m, below(6), 2);
    for (const char *f = shape->fields; *f; f++)
        add_field(&m, *f);
    if (below(100) == 0)
        m.end -= below((unsigned)(m.end - m.bytes) + 1);
    size = below(100) ? (uint32_t)(m.end - m.bytes) : (uint32_t)rnd();
    memcpy(m.bytes, &size, 4);
    d[0].len = (uint32_t)(m.end - m.bytes);
    mem_write(mem, base, m.bytes, sizeof(m.bytes));
    mem_write(mem, table, d, sizeof(d));
}

static struct virtio_device *new_balloon(void)
{
    static const struct virtio_balloon_options all = {true, true};

    return virtio_balloon_new(&lock, mem, &all);
}

/* --- a network that sends back what it gets, some of it again and larger ------------------------------- */

struct loop {
    struct net_port port;
    struct nic *nic;
};
static struct loop loops[2 + PCI_CARDS];

static void loop_attach(struct net_port *port, struct nic *nic)
{
    ((struct loop *)port)->nic = nic;
}

static void loop_detach(struct net_port *port)
{
    ((struct loop *)port)->nic = NULL;
}

static void loop_kick(struct net_port *port)
{
    (void)port; /* bursts come by chance */
}

static const struct net_port_ops loop_ops = {loop_attach, loop_detach, loop_kick};

static struct virtio_device *new_net(unsigned i)
{
    struct virtio_net_options o = {{0x52, 0x54, 0, 0x12, 0x34, 0x56}, &loops[i].port};

    loops[i].port.ops = &loop_ops;
    o.no_mergeable = i & 1;
    return virtio_net_new(&lock, mem, &o);
}

static void network_traffic(void)
{
    static uint8_t large[NIC_MAX_FRAME];
    struct nic *nic = loops[below(4) ? below(2) : below(2 + PCI_CARDS)].nic;
    struct nic_frame f;

    if (!nic)
        return;
    nic->ops->begin(nic);
    while (nic->ops->transmit(nic, &f))
        nic->ops->receive(nic, &f);
    if (below(4) == 0) {
        large[14] = below(2) ? 0x45 : 0x60;
        large[14 + 32] = 0x50;
        nic->ops->receive(nic, &(struct nic_frame){large, 54 + below(NIC_MAX_FRAME - 54), below(2) ? 1460 : 0});
    }
    nic->ops->end(nic);
}

/* --- PCI ------------------------------------------------------------------------------------------------ */

static void see_message(void *opaque, uint64_t pa, uint32_t data, uint16_t requester)
{
    (void)opaque;
    (void)requester;
    if (pa == 0x08020040)
        gicv2m_send(devices[1], data);
}

static void build_pci(void)
{
    struct pci_host_config c = {.ecam = {ECAM, 0x1000000}, .pio = {PCI_PIO, 0x10000}, .mmio = {PCI_MMIO, 0x2eff0000},
                                .mmio64 = {UINT64_C(1) << 39, UINT64_C(1) << 39}, .message = see_message};
    struct virtio_device *cards[PCI_CARDS] = {new_net(2), new_blk(true), new_net(4)};

    for (unsigned i = 0; i < PCI_PINS; i++)
        c.pin[i] = gicv2_spi(gic, 3 + i);
    pcie = pci_host_new(&lock, mem, &c);
    for (unsigned i = 0; i < PCI_CARDS; i++)
        virtio_pci_plug(pcie, cards[i], &(struct virtio_pci_options){i != 1, i != 2, -1, (int)i - 1, i == 0});
    pci_host_seal(pcie);
}

static uint64_t value(void);

static void config_write(unsigned slot, unsigned off, uint64_t v)
{
    mem_io_write(mem, ECAM + (slot << 15) + off, 4, v & UINT32_MAX);
}

/* Bus on, BARs in a row (or on top of each other). */
static void place_bars(unsigned slot)
{
    unsigned step = below(8) ? slot : 1;

    config_write(slot, 0x10, 0x100 * step);
    config_write(slot, 0x14, PCI_MMIO + 0x1000 * step);
    config_write(slot, 0x20, 0x4000 * step);
    config_write(slot, 0x24, 0x80);
    config_write(slot, 0x30, (PCI_MMIO + 0x100000 * step) | 1);
    config_write(slot, 0x04, 7);
}

/* A queue of the modern interface: its own 8 KiB of the area that no frame has. */
static void start_pci_queue(unsigned slot, unsigned q)
{
    uint64_t base = (UINT64_C(1) << 39) + 0x4000 * slot, ring = RAM_BASE + (slot * 3 + q) * 0x2000;

    mem_io_write(mem, base + 22, 2, q);
    mem_io_write(mem, base + 24, 2, 1u << below(6));
    mem_io_write(mem, base + 26, 2, below(4));
    for (unsigned i = 0; i < 3; i++)
        mem_io_write(mem, base + 32 + 8 * i, 8, ring + 0x800 * i);
    mem_io_write(mem, base + 28, 2, 1);
}

static void start_pci(unsigned slot)
{
    uint64_t base = (UINT64_C(1) << 39) + 0x4000 * slot, offered;

    place_bars(slot);
    mem_io_write(mem, base + 20, 1, 0);
    mem_io_write(mem, base + 20, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        mem_io_write(mem, base, 4, i);
        mem_io_read(mem, base + 4, 4, &offered);
        mem_io_write(mem, base + 8, 4, i);
        mem_io_write(mem, base + 12, 4, offered);
    }
    mem_io_write(mem, base + 20, 1, 11);
    config_write(slot, 0x98, 0x80000011); /* MSI-X on, where the card has it there */
    mem_io_write(mem, PCI_MMIO + 0x1000 * slot + 0x10 * below(4), 4, 0x08020040);
    mem_io_write(mem, PCI_MMIO + 0x1000 * slot + 0x10 * below(4) + 12, 4, 0);
    for (unsigned q = 0; q < 3; q++)
        start_pci_queue(slot, q);
    mem_io_write(mem, base + 20, 1, 15);
}

static void pci_traffic(void)
{
    unsigned slot = below(PCI_CARDS + 2), size = 1u << below(3);
    static const uint64_t areas[] = {PCI_MMIO, PCI_PIO, UINT64_C(1) << 39, UINT64_C(1) << 39};
    uint64_t pa, v;

    if (below(20) == 0)
        start_pci(1 + below(PCI_CARDS));
    if (below(8) == 0)
        config_write(slot, below(64) * 4, value());
    pa = below(3) ? areas[below(4)] + below(0x10000) : ECAM + (slot << 15) + below(0x108);
    pa -= pa % size;
    if (below(2))
        mem_io_write(mem, pa, size, value() & (UINT64_MAX >> (64 - 8 * size)));
    else
        mem_io_read(mem, pa, size, &v);
}

static void build(void)
{
    static const struct virtio_rng_options limited = {.max_bytes = 1000, .period_ms = 1};
    struct irq_line msi[64];

    mem = mem_new(RAM_BASE, RAM_SIZE);
    gic = gicv2_new(CPUS, 288, current_cpu);
    for (unsigned c = 0; c < CPUS; c++)
        gicv2_connect(gic, c, (struct irq_line){see_irq, irq, c}, (struct irq_line){NULL, NULL, 0});
    devices[num_devices++] = gicv2_device(gic);
    for (unsigned i = 0; i < 64; i++)
        msi[i] = gicv2_spi(gic, 48 + i);
    for (unsigned i = 0; i < 3; i++)
        chars[i] = fake_chardev_new();
    devices[num_devices++] = gicv2m_new(&lock, 80, 64, msi);
    add(pl011_new(&lock, &chars[0]->chr), 1);
    add(pl031_new(&lock, NULL), 2);
    add(pl061_new(&lock), 7);
    devices[num_devices++] = fw_cfg_new(&lock, mem);
    first_virtio = num_devices;
    for (unsigned i = 0; i < FRAMES; i++)
        add(virtio_mmio_new(&lock, i & 1), 16 + i);
    virtio_mmio_attach(devices[first_virtio], new_blk(true));
    virtio_mmio_attach(devices[first_virtio + 1], new_blk(false));
    virtio_mmio_attach(devices[first_virtio + 2], virtio_rng_new(&lock, mem, NULL));
    virtio_mmio_attach(devices[first_virtio + 3], virtio_rng_new(&lock, mem, &limited));
    virtio_mmio_attach(devices[first_virtio + 4], new_serial());
    virtio_mmio_attach(devices[first_virtio + 6], new_net(0));
    virtio_mmio_attach(devices[first_virtio + 7], new_net(1));
    virtio_mmio_attach(devices[first_virtio + 8], new_9p());
    virtio_mmio_attach(devices[first_virtio + 9], new_balloon());
    build_pci();
}

static void tear_down(void)
{
    dev_free(pcie);
    for (unsigned i = num_devices; i-- > 0;)
        dev_free(devices[i]);
    while (g_main_context_iteration(NULL, FALSE))
        ;
    for (unsigned i = 0; i < 3; i++)
        chardev_free(&chars[i]->chr);
    mem_free(mem);
    remove_export();
}

/* --- traffic -------------------------------------------------------------------------------------------- */

static uint64_t value(void)
{
    switch (below(8)) {
    case 0:
        return rnd();
    case 1:
        return UINT64_MAX;
    case 2:
        return RAM_BASE + below(RAM_SIZE);
    case 3:
        return RAM_BASE / 4096 + below(RAM_SIZE / 4096);
    case 4:
        return UINT64_C(1) << below(33);
    default:
        return below(16);
    }
}

static uint64_t touch(const struct mem_region *r, uint64_t off, uint64_t v, unsigned size, bool writing)
{
    uint64_t got = 0;

    if (r->lock)
        g_mutex_lock(r->lock);
    if (writing)
        r->ops->write(r->dev, off, v & (UINT64_MAX >> (64 - 8 * size)), size);
    else
        got = r->ops->read(r->dev, off, size);
    if (r->lock)
        g_mutex_unlock(r->lock);
    return got;
}

static void wr32(const struct mem_region *r, uint64_t off, uint64_t v)
{
    touch(r, off, v, 4, true);
}

static void random_access(const struct mem_region *r, const struct device_class *cls)
{
    unsigned min = r->ops->min_size ? r->ops->min_size : 1, max = r->ops->max_size ? r->ops->max_size : 8;
    unsigned size = max > 4 ? 4 : max;
    uint64_t off;

    while (below(4) == 0 && size > min)
        size /= 2;
    if (cls && below(4))
        off = cls->reg_list[below(cls->reg_count)].off;
    else
        off = below((unsigned)r->size);
    off -= off % size;
    touch(r, off, value(), size, below(3));
}

static void store16(uint64_t pa, uint16_t v)
{
    struct span s = mem_span(mem, pa & ~UINT64_C(1), 2);

    if (s.hva)
        __atomic_store_n((uint16_t *)s.hva, v, __ATOMIC_RELAXED);
}

/* A descriptor that is right more often than not. */
static void write_desc(uint64_t table, unsigned i, unsigned n)
{
    struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags, next;
    } d = {RAM_BASE + DATA + below(RAM_SIZE - DATA), below(4) ? below(4096) & ~511u : below(64),
           (uint16_t)(below(3) == 0) | (uint16_t)(below(2) << 1), (uint16_t)((i + 1) % n)};

    if (below(100) == 0)
        d.flags = (uint16_t)rnd();
    if (below(100) == 0)
        d.next = (uint16_t)rnd();
    if (below(200) == 0)
        d.addr = rnd();
    if (below(200) == 0)
        d.len = (uint32_t)rnd();
    if (below(20) == 0) { /* indirect, sometimes in itself */
        d.flags = 4;
        d.addr = table;
        d.len = 16 * (1 + below(n));
    }
    mem_write(mem, table + 16 * i, &d, sizeof(d));
}

/* A request that the block device understands, in descriptors 0 to 2 of the table. */
static void write_blk_request(uint64_t table)
{
    static const uint32_t types[] = {0, 1, 4, 8, 11, 13, 99};
    uint64_t base = RAM_BASE + DATA + below(64) * 0x2000;
    uint32_t sectors = DISK_SIZE / 512;
    uint32_t header[8] = {types[below(7)], 0, below(sectors + 8), 0, below(sectors), 0, below(16), 0};
    bool reads = header[0] == 0 || header[0] == 8;
    struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags, next;
    } d[3] = {{base, 16, 1, 1}, {base + 16, below(4) ? 512 * below(9) : 16, (uint16_t)(reads ? 3 : 1), 2},
              {base + 0x1ff0, 1, 2, 0}};

    mem_write(mem, base, header, sizeof(header));
    mem_write(mem, table, d, sizeof(d));
}

/* A frame as a driver sends it, or room for one, in descriptors 0 and 1. */
static void write_net_request(uint64_t table, bool sends)
{
    uint64_t base = RAM_BASE + DATA + below(64) * 0x1000;
    uint8_t header[12] = {below(2) ? 1 : 0, below(4) ? 0 : (uint8_t)below(6), 0, 0, 0xb4, 5, (uint8_t)below(80), 0, 16};
    struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags, next;
    } d[2] = {{base, 12, (uint16_t)(sends ? 1 : 3), 1}, {base + 12, below(3000), (uint16_t)(sends ? 0 : 2), 0}};

    mem_write(mem, base, header, sizeof(header));
    mem_write(mem, table, d, sizeof(d));
}

/* Rings of queue q of frame f: one 64 KiB area a frame, 8 KiB a queue. */
static void set_up_queue(unsigned f, unsigned q)
{
    const struct mem_region *r = &devices[first_virtio + f]->regs;
    uint64_t base = RAM_BASE + f * RINGS + q * 0x2000;

    wr32(r, 0x030, q);
    wr32(r, 0x038, 1u << below(6));
    wr32(r, 0x03c, 4096);
    wr32(r, 0x040, base / 4096);
    for (unsigned i = 0; i < 3; i++) {
        wr32(r, 0x080 + 0x10 * i, base + 0x800 * i);
        wr32(r, 0x084 + 0x10 * i, 0);
    }
    wr32(r, 0x044, 1);
}

static void set_up_device(unsigned f)
{
    const struct mem_region *r = &devices[first_virtio + f]->regs;
    uint32_t offered[2];

    wr32(r, 0x070, 0);
    for (unsigned i = 0; i < 2; i++) {
        wr32(r, 0x014, i);
        offered[i] = (uint32_t)touch(r, 0x010, 0, 4, false);
    }
    wr32(r, 0x070, 3);
    wr32(r, 0x024, 0);
    wr32(r, 0x020, below(2) ? offered[0] : offered[0] & (uint32_t)rnd());
    wr32(r, 0x024, 1);
    wr32(r, 0x020, offered[1]);
    wr32(r, 0x028, 4096);
    wr32(r, 0x070, 11);
    for (unsigned q = 0; q < 6; q++)
        set_up_queue(f, q);
    wr32(r, 0x070, 15);
}

static void queue_traffic(unsigned f)
{
    const struct mem_region *r = &devices[first_virtio + f]->regs;
    struct virtio_device *vdev = virtio_mmio_vdev(devices[first_virtio + f]);
    struct virtq *vq = vdev ? virtio_queue(vdev, below(6)) : NULL;
    unsigned n, new;

    if (vdev && (vdev->broken || !(vdev->status & VIRTIO_DRIVER_OK)) && below(4) == 0)
        set_up_device(f);
    if (!vq || !vq->ready)
        return;
    n = vq->num;
    new = below(4);
    for (unsigned i = 0; i < new; i++) {
        unsigned head = below(n);

        if (f < 2 && n > 2 && below(4)) {
            write_blk_request(vq->desc_pa);
            head = 0;
        } else if (f == 8 && n > 2 && below(8)) {
            write_9p_request(vq->desc_pa, any_shape());
            head = 0;
        } else if (f >= 6 && f < 8 && n > 2 && below(4)) {
            write_net_request(vq->desc_pa, vq->index == 1);
            head = 0;
        } else {
            for (unsigned k = below(6); k > 0; k--)
                write_desc(vq->desc_pa, below(n), n);
        }
        store16(vq->avail_pa + 4 + 2 * ((vq->last_avail + i) % n), (uint16_t)(below(200) ? head : rnd()));
    }
    store16(vq->avail_pa, (uint16_t)below(2));
    store16(vq->avail_pa + 2, (uint16_t)(below(300) ? vq->last_avail + new : rnd()));
    wr32(r, 0x050, below(10) ? vq->index : below(100));
    if (below(4) == 0)
        wr32(r, 0x064, 3);
}

/* Requests in a row: a session that is knocked over by each second one would get nowhere. */
static void p9_traffic(void)
{
    const struct mem_region *r = &devices[first_virtio + 8]->regs;
    struct virtq *vq = virtio_queue(virtio_mmio_vdev(devices[first_virtio + 8]), 0);

    if (!vq->ready || vq->num < 2 || vq->vdev->broken)
        set_up_device(8);
    for (unsigned i = below(1000); i && vq->ready && vq->num >= 2; i--) {
        write_9p_request(vq->desc_pa, below(20) ? any_shape() : &attach);
        store16(vq->avail_pa + 4 + 2 * (vq->last_avail % vq->num), 0);
        store16(vq->avail_pa + 2, (uint16_t)(vq->last_avail + 1));
        wr32(r, 0x050, 0);
        if (below(8) == 0)
            g_usleep(below(100)); /* the workers may get ahead */
    }
}

static void character_traffic(void)
{
    static const uint8_t text[64] = "some input";
    struct fake_chardev *f = chars[below(3)];
    size_t n = chardev_can_receive(&f->chr);

    chardev_receive(&f->chr, text, n < sizeof(text) ? n : sizeof(text));
    if (below(4) == 0)
        chardev_send_event(&f->chr, (enum chardev_event)below(3));
    f->room = below(3) ? 65536 : below(10);
    chardev_writable(&f->chr);
    g_byte_array_set_size(f->written, 0);
}

static void interrupt_traffic(void)
{
    struct irq_line line = below(2) ? gicv2_spi(gic, below(64)) : gicv2_ppi(gic, below(CPUS), below(16));

    irq_set(&line, below(2));
    random_access(gicv2_cpu_region(gic), NULL);
    pl061_set_input(devices[4], below(8), below(2));
}

/* The line of a CPU is high if and only if an acknowledge gives an interrupt (or 1022: one for GICC_AIAR). */
static void check_gic(uint64_t step)
{
    const struct mem_region *r = gicv2_cpu_region(gic);
    bool high;
    uint32_t id;

    cpu = below(CPUS);
    touch(r, 0x00, touch(r, 0x00, 0, 4, false) & ~UINT64_C(8), 4, true); /* no FIQs */
    high = irq[cpu];
    id = (uint32_t)touch(r, 0x0c, 0, 4, false) & 0x3ff;
    check(high == (id != 1023), "IRQ line and GICC_IAR disagree", step);
    if (id < 1020)
        touch(r, 0x10, id, 4, true);
}

/* A device that was broken works again after a reset. */
static void check_recovery(uint64_t step)
{
    const struct mem_region *r = &devices[first_virtio + 2 * below(2)]->regs; /* modern: block, entropy */

    wr32(r, 0x070, 0);
    check(touch(r, 0x070, 0, 4, false) == 0, "status after a reset", step);
    check(touch(r, 0x060, 0, 4, false) == 0, "interrupt after a reset", step);
    wr32(r, 0x030, 0);
    check(touch(r, 0x044, 0, 4, false) == 0, "queue ready after a reset", step);
}

static void take_step(uint64_t step)
{
    cpu = below(CPUS);
    switch (below(16)) {
    case 0:
    case 1: {
        struct device *d = devices[below(num_devices)];

        random_access(&d->regs, d->cls);
        break;
    }
    case 2:
        set_up_device(below(FRAMES));
        break;
    case 3:
        character_traffic();
        break;
    case 4:
    case 5:
        interrupt_traffic();
        break;
    case 6:
        check_gic(step);
        break;
    case 8:
        network_traffic();
        break;
    case 9:
        pci_traffic();
        break;
    case 10:
        if (below(100) == 0) {
            p9_traffic();
            break;
        }
        queue_traffic(below(FRAMES));
        break;
    case 7:
        if (below(16) == 0)
            check_recovery(step);
        else if (below(200) == 0)
            dev_reset(devices[below(num_devices)]);
        else
            g_main_context_iteration(NULL, FALSE);
        break;
    default:
        queue_traffic(below(FRAMES));
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t steps = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000000;

    rng_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    build();
    for (uint64_t i = 0; i < steps; i++)
        take_step(i);
    tear_down();
    printf("%u passed, %u failed\n", passed, failed);
    return failed || !passed;
}
