/*
 * PCI host bridge with an ECAM, and what its functions have in common.  See pci.h.
 *
 * Bus 0 only, conventional functions on the root bus: no PCIe capability, no extended configuration space (it
 * reads as 0), no bridges, no hot plug, no MSI without X (no function here has it), no I/O space outside the
 * window.  A BAR is decoded only when it lies within a window of its kind, so that a guest cannot put one
 * over the board's devices.
 *
 * Threading: the board's lock.
 */
#include "dev/pci.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "base/report.h"
#include "base/trace.h"

enum { MSIX_TABLE_SIZE = 0x800, MSIX_BAR_SIZE = 0x1000, MSIX_ENABLE = 0x8000, MSIX_MASK_ALL = 0x4000 };
enum { STATUS_INTERRUPT = 0x0008, STATUS_CAPABILITIES = 0x0010, ROM_ENABLE = 1 };
enum { FIRST_CAP = 0x40, BUS_SHIFT = 20, DEVFN_SHIFT = 12, NUM_WINDOWS = 3 };

struct pci_host {
    struct device dev; /* regs: the ECAM */
    struct mem *mem;
    struct pci_host_config config;
    struct pci_function bridge;
    struct pci_function *fn[PCI_SLOTS * PCI_FUNCTIONS];
    unsigned asserted[PCI_PINS]; /* how many functions pull each wire */
    struct mem_region window[NUM_WINDOWS];
};

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static void put(uint8_t *p, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint16_t command(const struct pci_function *fn)
{
    return get16(fn->config + PCI_COMMAND);
}

/* --- BARs ----------------------------------------------------------------------------------------------- */

static unsigned bar_offset(unsigned n)
{
    return n == PCI_ROM_BAR ? PCI_ROM : PCI_BAR0 + 4 * n;
}

static bool within(const struct pci_window *w, uint64_t base, uint64_t size)
{
    return base >= w->base && base - w->base <= w->size && size <= w->size - (base - w->base);
}

/* Where the guest put BAR n; false when it is not decoded there. */
static bool bar_place(const struct pci_function *fn, unsigned n, uint64_t *base)
{
    const struct pci_host_config *c = &fn->host->config;
    const struct pci_bar *bar = &fn->bar[n];
    uint64_t at = get32(fn->config + bar_offset(n)), size = bar->region.size;
    bool on = command(fn) & (bar->type & PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY);

    if (n == PCI_ROM_BAR)
        on = on && (at & ROM_ENABLE);
    if (bar->type & PCI_BAR_64)
        at |= (uint64_t)get32(fn->config + bar_offset(n + 1)) << 32;
    at &= -size;
    if (bar->type & PCI_BAR_IO) {
        *base = c->pio.base + at;
        return on && at && at < c->pio.size;
    }
    *base = at;
    return on && (within(&c->mmio, at, size) || within(&c->mmio64, at, size));
}

static void update_bars(struct pci_function *fn)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        struct mem_region *r = &fn->bar[n].region;
        uint64_t base;
        bool on;

        if (!r->size)
            continue;
        on = bar_place(fn, n, &base);
        if (on != r->enabled || (on && base != r->base))
            mem_region_move(fn->host->mem, r, base, on);
    }
}

void pci_add_bar(struct pci_function *fn, unsigned n, unsigned type, uint64_t size, const struct mem_ops *ops,
                 void *dev)
{
    unsigned off = bar_offset(n), low = type & PCI_BAR_IO ? 3 : n == PCI_ROM_BAR ? 0x7ff : 15;

    BUG_ON(!bits_is_pow2(size) || size <= low || fn->host || n >= PCI_BARS || fn->bar[n].region.size);
    fn->bar[n].type = type;
    fn->bar[n].region = (struct mem_region){.name = fn->cls->name, .size = size, .ops = ops, .dev = dev};
    put(fn->writable + off, -size, type & PCI_BAR_64 ? 8 : 4);
    fn->config[off] = (uint8_t)type;
    if (n == PCI_ROM_BAR)
        fn->writable[off] |= ROM_ENABLE;
}

/* --- interrupts ----------------------------------------------------------------------------------------- */

/* Slot s, pin INTA: wire s % 4, as the device tree's interrupt-map says. */
static unsigned wire_of(const struct pci_function *fn)
{
    return (fn->devfn / PCI_FUNCTIONS + fn->config[PCI_INTERRUPT_PIN] - 1u) % PCI_PINS;
}

static bool pulls(const struct pci_function *fn)
{
    return fn->intx && !(command(fn) & PCI_COMMAND_NO_INTX);
}

static void change_wire(struct pci_function *fn, bool was)
{
    struct pci_host *h = fn->host;
    unsigned wire = wire_of(fn);

    if (pulls(fn) == was)
        return;
    h->asserted[wire] += was ? -1u : 1u;
    irq_set(&h->config.pin[wire], h->asserted[wire] > 0);
}

void pci_set_intx(struct pci_function *fn, bool level)
{
    bool was = pulls(fn);

    if (!fn->host)
        return;
    fn->intx = level;
    put(fn->config + PCI_STATUS,
        (get16(fn->config + PCI_STATUS) & ~STATUS_INTERRUPT) | (level ? STATUS_INTERRUPT : 0), 2);
    change_wire(fn, was);
}

void pci_add_intx(struct pci_function *fn)
{
    fn->config[PCI_INTERRUPT_PIN] = 1;
}

static uint16_t msix_control(const struct pci_function *fn)
{
    return get16(fn->config + fn->msix.cap + 2);
}

bool pci_msix_enabled(const struct pci_function *fn)
{
    return fn->msix.count && (msix_control(fn) & MSIX_ENABLE);
}

static void store_message(struct pci_function *fn, uint64_t pa, uint32_t data)
{
    struct pci_host *h = fn->host;
    uint32_t le = GUINT32_TO_LE(data);

    if (!(command(fn) & PCI_COMMAND_MASTER))
        return; /* a message is a store like any other */
    if (!mem_write(h->mem, pa, &le, sizeof(le)))
        h->config.message(h->config.opaque, pa, data, fn->devfn);
}

/* Message i as far as it may go now: sent, or remembered. */
static void flush_message(struct pci_function *fn, unsigned i)
{
    struct pci_msix *m = &fn->msix;
    uint64_t bit = BIT(i % 64);

    if (!(m->pending[i / 64] & bit) || !pci_msix_enabled(fn) || (msix_control(fn) & MSIX_MASK_ALL) ||
        (m->table[i][3] & 1))
        return;
    m->pending[i / 64] &= ~bit;
    store_message(fn, (uint64_t)m->table[i][1] << 32 | (m->table[i][0] & ~3u), m->table[i][2]);
}

void pci_msix_send(struct pci_function *fn, unsigned vector)
{
    if (vector >= fn->msix.count || !pci_msix_enabled(fn))
        return;
    fn->msix.pending[vector / 64] |= BIT(vector % 64);
    flush_message(fn, vector);
}

static void update_msix(struct pci_function *fn)
{
    for (unsigned i = 0; i < fn->msix.count; i++)
        flush_message(fn, i);
}

static uint64_t msix_read(void *opaque, uint64_t off, unsigned size)
{
    const struct pci_msix *m = &((struct pci_function *)opaque)->msix;
    uint64_t pba = (off - MSIX_TABLE_SIZE) / 8;

    (void)size;
    if (off < m->count * 16u)
        return m->table[off / 16][off / 4 % 4];
    if (off < MSIX_TABLE_SIZE || pba >= (m->count + 63u) / 64)
        return 0;
    return (uint32_t)(m->pending[pba] >> 8 * (off & 4));
}

static void msix_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct pci_function *fn = opaque;

    (void)size;
    if (off >= fn->msix.count * 16u)
        return;
    fn->msix.table[off / 16][off / 4 % 4] = (uint32_t)value & (off / 4 % 4 == 3 ? 1 : UINT32_MAX);
    flush_message(fn, (unsigned)(off / 16));
}

static const struct mem_ops msix_ops = {msix_read, msix_write, 4, 4, false};

void pci_add_msix(struct pci_function *fn, unsigned n, unsigned count)
{
    uint8_t cap[10];

    BUG_ON(!count || count > MSIX_TABLE_SIZE / 16);
    put(cap, count - 1, 2);
    put(cap + 2, n, 4);
    put(cap + 6, MSIX_TABLE_SIZE | n, 4);
    fn->msix.count = count;
    fn->msix.table = g_malloc0_n(count, sizeof(*fn->msix.table));
    fn->msix.pending = g_new0(uint64_t, (count + 63) / 64);
    fn->msix.cap = pci_add_capability(fn, PCI_CAP_MSIX, cap, sizeof(cap));
    put(fn->writable + fn->msix.cap + 2, MSIX_ENABLE | MSIX_MASK_ALL, 2);
    pci_add_bar(fn, n, PCI_BAR_MEM, MSIX_BAR_SIZE, &msix_ops, fn);
}

static void reset_msix(struct pci_function *fn)
{
    struct pci_msix *m = &fn->msix;

    for (unsigned i = 0; i < m->count; i++)
        memcpy(m->table[i], (uint32_t[4]){0, 0, 0, 1}, 16);
    if (m->count)
        memset(m->pending, 0, (m->count + 63) / 64 * sizeof(uint64_t));
}

/* --- configuration space -------------------------------------------------------------------------------- */

void pci_init(struct pci_function *fn, const struct pci_class *cls, const struct pci_ids *ids)
{
    fn->cls = cls;
    fn->next_cap = FIRST_CAP;
    put(fn->config + PCI_VENDOR, ids->vendor, 2);
    put(fn->config + PCI_DEVICE, ids->device, 2);
    put(fn->config + PCI_REVISION, ids->class_code << 8 | ids->revision, 4);
    put(fn->config + PCI_SUBSYSTEM_VENDOR, ids->subsystem_vendor, 2);
    put(fn->config + PCI_SUBSYSTEM, ids->subsystem, 2);
    put(fn->writable + PCI_COMMAND,
        PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_NO_INTX, 2);
    fn->writable[PCI_CACHE_LINE] = fn->writable[PCI_LATENCY] = fn->writable[PCI_INTERRUPT_LINE] = 0xff;
}

uint8_t pci_add_capability(struct pci_function *fn, uint8_t id, const void *data, unsigned len)
{
    unsigned at = fn->next_cap;

    BUG_ON(at + 2 + len > PCI_CONFIG_SIZE);
    fn->config[at] = id;
    fn->config[at + 1] = fn->config[PCI_CAPABILITIES];
    memcpy(fn->config + at + 2, data, len);
    fn->config[PCI_CAPABILITIES] = (uint8_t)at;
    fn->config[PCI_STATUS] |= STATUS_CAPABILITIES;
    fn->next_cap = (unsigned)bits_align_up(at + 2 + len, 4);
    return (uint8_t)at;
}

void pci_cleanup(struct pci_function *fn)
{
    g_free(fn->msix.table);
    g_free(fn->msix.pending);
    g_free(fn->id);
}

static uint32_t config_read(struct pci_function *fn, unsigned off, unsigned size)
{
    uint32_t v = 0;

    if (off >= PCI_CONFIG_SIZE)
        return 0;
    if (fn->cls->config_reading)
        fn->cls->config_reading(fn, off, size);
    for (unsigned i = 0; i < size; i++)
        v |= (uint32_t)fn->config[off + i] << 8 * i;
    return v;
}

static void config_write(struct pci_function *fn, unsigned off, uint32_t value, unsigned size)
{
    bool was = pulls(fn);

    if (off >= PCI_CONFIG_SIZE)
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = fn->writable[off + i];
        fn->config[off + i] = (uint8_t)((fn->config[off + i] & ~mask) | (value >> 8 * i & mask));
    }
    if (off < PCI_CAPABILITIES)
        update_bars(fn);
    if (fn->config[PCI_INTERRUPT_PIN])
        change_wire(fn, was);
    if (fn->msix.count)
        update_msix(fn);
    if (fn->cls->config_written)
        fn->cls->config_written(fn, off, size);
}

static struct pci_function *find(struct pci_host *h, uint64_t off)
{
    return off >> BUS_SHIFT ? NULL : h->fn[off >> DEVFN_SHIFT & 0xff];
}

static uint64_t ecam_read(void *opaque, uint64_t off, unsigned size)
{
    struct pci_function *fn = find(opaque, off);

    return fn ? config_read(fn, off & 0xfff, size) : bits_mask(8 * size);
}

static void ecam_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct pci_function *fn = find(opaque, off);

    if (fn)
        config_write(fn, off & 0xfff, (uint32_t)value, size);
}

static const struct mem_ops ecam_ops = {ecam_read, ecam_write, 1, 4, false};

/* --- the windows where no BAR is ------------------------------------------------------------------------ */

static uint64_t void_read(void *opaque, uint64_t off, unsigned size)
{
    (void)opaque;
    (void)off;
    return bits_mask(8 * size);
}

static const struct mem_ops void_ops = {void_read, NULL, 1, 8, true};

void pci_host_seal(struct device *dev)
{
    struct pci_host *h = CONTAINER_OF(dev, struct pci_host, dev);
    const struct pci_window *from[NUM_WINDOWS] = {&h->config.pio, &h->config.mmio, &h->config.mmio64};
    static const char *const names[NUM_WINDOWS] = {"pcie-pio", "pcie-mmio", "pcie-mmio64"};

    for (unsigned i = 0; i < NUM_WINDOWS; i++) {
        h->window[i] = (struct mem_region){names[i], from[i]->base, from[i]->size, &void_ops, h, NULL, true};
        if (from[i]->size)
            mem_add_region(h->mem, &h->window[i]);
    }
}

/* --- the host ------------------------------------------------------------------------------------------- */

static void reset_function(struct pci_function *fn)
{
    pci_set_intx(fn, false);
    for (unsigned i = PCI_COMMAND; i < PCI_CONFIG_SIZE; i++)
        fn->config[i] &= (uint8_t)~fn->writable[i];
    update_bars(fn);
    reset_msix(fn);
    if (fn->cls->reset)
        fn->cls->reset(fn);
}

static void host_reset(struct device *dev)
{
    struct pci_host *h = CONTAINER_OF(dev, struct pci_host, dev);

    for (unsigned i = 0; i < ARRAY_LEN(h->fn); i++)
        if (h->fn[i])
            reset_function(h->fn[i]);
}

static void host_free(struct device *dev)
{
    struct pci_host *h = CONTAINER_OF(dev, struct pci_host, dev);

    for (unsigned i = 0; i < ARRAY_LEN(h->fn); i++)
        if (h->fn[i] && h->fn[i]->cls->free)
            h->fn[i]->cls->free(h->fn[i]);
    pci_cleanup(&h->bridge);
    g_free(dev->id);
    g_free(h);
}

static void host_describe(struct device *dev, GString *out)
{
    struct pci_host *h = CONTAINER_OF(dev, struct pci_host, dev);

    for (unsigned i = 0; i < ARRAY_LEN(h->fn); i++) {
        struct pci_function *fn = h->fn[i];

        if (!fn)
            continue;
        g_string_append_printf(out, "dev: %s, id \"%s\", addr = %02x.%x\n", fn->cls->name,
                               fn->id ? fn->id : "", i / PCI_FUNCTIONS, i % PCI_FUNCTIONS);
        if (fn->cls->describe)
            fn->cls->describe(fn, out);
    }
}

static const struct device_class host_class = {
    .name = "gpex-pcihost",
    .reset = host_reset,
    .free = host_free,
    .describe = host_describe,
};

/* What drivers know as the generic bridge of a virtual machine. */
static const struct pci_class bridge_class = {.name = "gpex-root"};
static const struct pci_ids bridge_ids = {0x1b36, 0x0008, 0x1af4, 0x1100, 0x060000, 0};

static void adopt(struct pci_host *h, struct pci_function *fn, unsigned slot)
{
    fn->host = h;
    fn->devfn = (uint8_t)(slot * PCI_FUNCTIONS);
    h->fn[fn->devfn] = fn;
    for (unsigned n = 0; n < PCI_BARS; n++) {
        fn->bar[n].region.lock = h->dev.regs.lock;
        if (fn->bar[n].region.size)
            mem_add_region(h->mem, &fn->bar[n].region);
    }
    reset_msix(fn);
}

int pci_plug(struct device *dev, struct pci_function *fn, int slot)
{
    struct pci_host *h = CONTAINER_OF(dev, struct pci_host, dev);

    if (slot < -1 || slot >= PCI_SLOTS)
        return -EINVAL;
    for (int i = 1; slot == -1 && i < PCI_SLOTS; i++)
        if (!h->fn[i * PCI_FUNCTIONS])
            slot = i;
    if (slot == -1)
        return -ENOSPC;
    if (h->fn[slot * PCI_FUNCTIONS])
        return -EBUSY;
    adopt(h, fn, (unsigned)slot);
    return slot;
}

struct device *pci_host_new(GMutex *lock, struct mem *mem, const struct pci_host_config *config)
{
    struct pci_host *h = g_new0(struct pci_host, 1);

    dev_init(&h->dev, &host_class, &ecam_ops, config->ecam.size, lock);
    h->dev.regs.base = config->ecam.base;
    h->mem = mem;
    h->config = *config;
    pci_init(&h->bridge, &bridge_class, &bridge_ids);
    adopt(h, &h->bridge, 0);
    mem_add_region(mem, &h->dev.regs);
    return &h->dev;
}
