/*
 * virtio-pci: a virtio device as a PCI function.
 *
 * BARs as drivers and logs know them: 0 the legacy registers (I/O), 1 the MSI-X table, 4 the modern
 * structures (64-bit, prefetchable) at 0x0 common, 0x1000 ISR, 0x2000 device, 0x3000 notify, the last with
 * four bytes a queue.  Interrupts by MSI-X with a vector a queue, or INTA.
 *
 * Left out: shared memory, notification data, queue reset, administration queues.
 *
 * Threading: the board's lock.
 */
#include "virtio/pci.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "base/report.h"
#include "base/trace.h"

enum { BAR_LEGACY = 0, BAR_MSIX = 1, BAR_MODERN = 4 };
enum { AREA_SIZE = 0x1000, COMMON = 0, ISR = 1, DEVICE = 2, NOTIFY = 3, AREAS = 4, NOTIFY_MULTIPLIER = 4 };
enum { CFG_COMMON = 1, CFG_NOTIFY = 2, CFG_ISR = 3, CFG_DEVICE = 4, CFG_PCI = 5 };
enum { INT_USED = 1, INT_CONFIG = 2, NO_VECTOR = 0xffff, ROM_SIZE = 512 << 10, MAX_VECTORS = 128 };

/* 4.1.4.3 */
enum {
    DEVICE_FEATURE_SELECT = 0,
    DEVICE_FEATURE = 4,
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    CONFIG_MSIX_VECTOR = 16,
    NUM_QUEUES = 18,
    DEVICE_STATUS = 20,
    CONFIG_GENERATION = 21,
    QUEUE_SELECT = 22,
    QUEUE_SIZE = 24,
    QUEUE_MSIX_VECTOR = 26,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFF = 30,
    QUEUE_DESC = 32,
    QUEUE_DEVICE_END = 56
};

/* 4.1.4.10 */
enum {
    LEGACY_HOST_FEATURES = 0,
    LEGACY_GUEST_FEATURES = 4,
    LEGACY_QUEUE_PFN = 8,
    LEGACY_QUEUE_SIZE = 12,
    LEGACY_QUEUE_SELECT = 14,
    LEGACY_QUEUE_NOTIFY = 16,
    LEGACY_STATUS = 18,
    LEGACY_ISR = 19,
    LEGACY_CONFIG_VECTOR = 20,
    LEGACY_QUEUE_VECTOR = 22,
    LEGACY_HEADER = 20,      /* without MSI-X ... */
    LEGACY_HEADER_MSIX = 24, /* ... and while it is enabled */
    LEGACY_PAGE_SHIFT = 12
};

struct virtio_pci {
    struct pci_function fn;
    struct virtio_device *vdev;
    bool modern, legacy;
    uint8_t isr, cfg_cap;
    uint32_t device_sel, driver_sel;
    uint16_t queue_sel, config_vector;
    uint16_t *vector; /* of each queue */
    uint64_t driver_features;
};

static struct virtio_pci *from_fn(struct pci_function *fn)
{
    return CONTAINER_OF(fn, struct virtio_pci, fn);
}

static void guest_error(const struct virtio_pci *p, const char *what, uint64_t off, uint64_t value)
{
    trace(GUEST_ERRORS, "%s: %s, offset %#x, value %#x", p->fn.cls->name, what, (unsigned)off,
          (unsigned)value);
}

/* --- interrupts ----------------------------------------------------------------------------------------- */

static void interrupt(struct virtio_pci *p, unsigned vector, uint8_t why)
{
    if (pci_msix_enabled(&p->fn)) {
        pci_msix_send(&p->fn, vector);
        return;
    }
    p->isr |= why;
    pci_set_intx(&p->fn, true);
}

static void notify_queue(void *opaque, unsigned queue)
{
    struct virtio_pci *p = opaque;

    interrupt(p, p->vector[queue], INT_USED);
}

static void notify_config(void *opaque)
{
    struct virtio_pci *p = opaque;

    interrupt(p, p->config_vector, INT_CONFIG);
}

static const struct virtio_transport_ops transport_ops = {notify_queue, notify_config};

/* 4.1.4.5: reading clears. */
static uint8_t take_isr(struct virtio_pci *p)
{
    uint8_t isr = p->isr;

    p->isr = 0;
    pci_set_intx(&p->fn, false);
    return isr;
}

/* 4.1.5.1.2.1: a vector that there is not reads back as none. */
static uint16_t checked_vector(const struct virtio_pci *p, uint32_t vector)
{
    return vector < p->fn.msix.count ? (uint16_t)vector : NO_VECTOR;
}

/* --- what both interfaces do ---------------------------------------------------------------------------- */

static void forget_driver(struct virtio_pci *p)
{
    take_isr(p);
    p->device_sel = p->driver_sel = 0;
    p->queue_sel = 0;
    p->driver_features = 0;
    p->config_vector = NO_VECTOR;
    for (unsigned i = 0; i < p->vdev->num_queues; i++)
        p->vector[i] = NO_VECTOR;
}

static void write_status(struct virtio_pci *p, uint32_t value)
{
    virtio_set_status(p->vdev, (uint8_t)value);
    if (!(value & 0xff))
        forget_driver(p);
}

static struct virtq *selected(struct virtio_pci *p)
{
    return virtio_queue(p->vdev, p->queue_sel);
}

static void write_queue_vector(struct virtio_pci *p, uint32_t value)
{
    if (selected(p))
        p->vector[p->queue_sel] = checked_vector(p, value);
}

static uint16_t queue_vector(struct virtio_pci *p)
{
    return selected(p) ? p->vector[p->queue_sel] : NO_VECTOR;
}

/* --- modern --------------------------------------------------------------------------------------------- */

static uint64_t *queue_address(struct virtq *q, uint64_t off)
{
    uint64_t *const at[] = {&q->desc_pa, &q->avail_pa, &q->used_pa};

    return at[(off - QUEUE_DESC) / 8];
}

static uint32_t read_queue(struct virtio_pci *p, uint64_t off)
{
    struct virtq *q = selected(p);

    if (!q)
        return off == QUEUE_MSIX_VECTOR ? NO_VECTOR : 0;
    switch (off) {
    case QUEUE_SIZE:
        return q->num;
    case QUEUE_MSIX_VECTOR:
        return queue_vector(p);
    case QUEUE_ENABLE:
        return q->ready;
    case QUEUE_NOTIFY_OFF:
        return q->index;
    case QUEUE_DESC ... QUEUE_DEVICE_END - 1:
        return (uint32_t)(*queue_address(q, off) >> 8 * (off & 4));
    default:
        return 0;
    }
}

static uint32_t read_common(struct virtio_pci *p, uint64_t off)
{
    struct virtio_device *vdev = p->vdev;

    switch (off) {
    case DEVICE_FEATURE_SELECT:
        return p->device_sel;
    case DEVICE_FEATURE:
        return p->device_sel > 1 ? 0 : (uint32_t)(vdev->host_features >> 32 * p->device_sel);
    case DRIVER_FEATURE_SELECT:
        return p->driver_sel;
    case DRIVER_FEATURE:
        return p->driver_sel > 1 ? 0 : (uint32_t)(vdev->features >> 32 * p->driver_sel);
    case CONFIG_MSIX_VECTOR:
        return p->config_vector;
    case NUM_QUEUES:
        return vdev->num_queues;
    case DEVICE_STATUS:
        return vdev->status;
    case CONFIG_GENERATION:
        return vdev->config_generation & 0xff;
    case QUEUE_SELECT:
        return p->queue_sel;
    default:
        return read_queue(p, off);
    }
}

static void write_queue(struct virtio_pci *p, uint64_t off, uint32_t value)
{
    struct virtq *q = selected(p);

    if (q && off == QUEUE_MSIX_VECTOR) {
        write_queue_vector(p, value);
    } else if (!q || q->ready) { /* 4.1.4.3.2: not while it is enabled, nor disabled by this */
        guest_error(p, "set-up of a queue that is ready or not there", off, value);
    } else if (off == QUEUE_SIZE && value && value <= q->num_max && bits_is_pow2(value)) {
        q->num = (uint16_t)value;
    } else if (off == QUEUE_ENABLE && value == 1) {
        virtq_start(q);
    } else if (off >= QUEUE_DESC && off < QUEUE_DEVICE_END) {
        uint64_t *pa = queue_address(q, off);
        *pa = bits_deposit(*pa, 8 * (off & 4), 32, value);
    } else {
        guest_error(p, "no such register or value to write", off, value);
    }
}

static void write_common(struct virtio_pci *p, uint64_t off, uint32_t value)
{
    switch (off) {
    case DEVICE_FEATURE_SELECT:
        p->device_sel = value;
        break;
    case DRIVER_FEATURE_SELECT:
        p->driver_sel = value;
        break;
    case DRIVER_FEATURE:
        if (p->driver_sel > 1)
            break;
        p->driver_features = bits_deposit(p->driver_features, 32 * p->driver_sel, 32, value);
        virtio_set_features(p->vdev, p->driver_features, false);
        break;
    case CONFIG_MSIX_VECTOR:
        p->config_vector = checked_vector(p, value);
        break;
    case DEVICE_STATUS:
        write_status(p, value);
        break;
    case QUEUE_SELECT:
        p->queue_sel = (uint16_t)value;
        break;
    default:
        write_queue(p, off, value);
    }
}

static uint64_t modern_read(void *opaque, uint64_t off, unsigned size)
{
    struct virtio_pci *p = opaque;
    uint64_t in = off % AREA_SIZE;

    switch (off / AREA_SIZE) {
    case COMMON:
        return read_common(p, in);
    case ISR:
        return in ? 0 : take_isr(p);
    case DEVICE:
        return virtio_config_read(p->vdev, in, size);
    default:
        return 0;
    }
}

static void modern_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct virtio_pci *p = opaque;
    uint64_t in = off % AREA_SIZE;

    switch (off / AREA_SIZE) {
    case COMMON:
        write_common(p, in, (uint32_t)value);
        break;
    case DEVICE:
        virtio_config_write(p->vdev, in, (uint32_t)value, size);
        break;
    case NOTIFY:
        virtio_kick(p->vdev, (uint32_t)in / NOTIFY_MULTIPLIER);
        break;
    default:
        guest_error(p, "read-only", off, value);
    }
}

static const struct mem_ops modern_ops = {modern_read, modern_write, 1, 4, false};

/* 4.1.4.9: the BAR through configuration space, for firmware that cannot reach it. */
static bool window_target(const struct virtio_pci *p, uint64_t *off, unsigned *size)
{
    const uint8_t *cap = p->fn.config + p->cfg_cap;
    uint32_t len;

    memcpy(off, cap + 8, 4);
    memcpy(&len, cap + 12, 4);
    *off = GUINT32_FROM_LE((uint32_t)*off);
    *size = GUINT32_FROM_LE(len);
    return cap[4] == BAR_MODERN && (*size == 1 || *size == 2 || *size == 4) && *off % *size == 0 &&
           *off < AREAS * AREA_SIZE;
}

static bool touches_window(const struct virtio_pci *p, unsigned off, unsigned size)
{
    return p->cfg_cap && off + size > p->cfg_cap + 16u && off < p->cfg_cap + 20u;
}

static void window_reading(struct pci_function *fn, unsigned off, unsigned size)
{
    struct virtio_pci *p = from_fn(fn);
    uint64_t at = 0;
    uint32_t value;
    unsigned n;

    if (!touches_window(p, off, size) || !window_target(p, &at, &n))
        return;
    value = GUINT32_TO_LE((uint32_t)modern_read(p, at, n));
    memcpy(fn->config + p->cfg_cap + 16, &value, n);
}

static void window_written(struct pci_function *fn, unsigned off, unsigned size)
{
    struct virtio_pci *p = from_fn(fn);
    uint64_t at = 0;
    uint32_t value;
    unsigned n;

    if (!touches_window(p, off, size) || !window_target(p, &at, &n))
        return;
    memcpy(&value, fn->config + p->cfg_cap + 16, 4);
    modern_write(p, at, GUINT32_FROM_LE(value) & bits_mask(8 * n), n);
}

/* --- legacy --------------------------------------------------------------------------------------------- */

static unsigned legacy_header(const struct virtio_pci *p)
{
    return pci_msix_enabled(&p->fn) ? LEGACY_HEADER_MSIX : LEGACY_HEADER;
}

static uint64_t legacy_read(void *opaque, uint64_t off, unsigned size)
{
    struct virtio_pci *p = opaque;
    struct virtq *q = selected(p);

    if (off >= legacy_header(p))
        return virtio_config_read(p->vdev, off - legacy_header(p), size);
    switch (off) {
    case LEGACY_HOST_FEATURES:
        return (uint32_t)p->vdev->host_features;
    case LEGACY_GUEST_FEATURES:
        return (uint32_t)p->vdev->features;
    case LEGACY_QUEUE_PFN:
        return q && q->ready ? (uint32_t)(q->desc_pa >> LEGACY_PAGE_SHIFT) : 0;
    case LEGACY_QUEUE_SIZE:
        return q ? q->num_max : 0;
    case LEGACY_QUEUE_SELECT:
        return p->queue_sel;
    case LEGACY_STATUS:
        return p->vdev->status;
    case LEGACY_ISR:
        return take_isr(p);
    case LEGACY_CONFIG_VECTOR:
        return p->config_vector;
    case LEGACY_QUEUE_VECTOR:
        return queue_vector(p);
    default:
        return 0;
    }
}

/* The rings lie one after the other from a page on (2.7.2); size and alignment are fixed. */
static void write_pfn(struct virtio_pci *p, uint32_t pfn)
{
    struct virtq *q = selected(p);

    if (!q)
        return;
    virtio_stop_queue(p->vdev, q);
    q->num = q->num_max;
    q->desc_pa = (uint64_t)pfn << LEGACY_PAGE_SHIFT;
    q->avail_pa = q->desc_pa + 16u * q->num;
    q->used_pa = bits_align_up(q->avail_pa + 6 + 2u * q->num, MEM_PAGE_SIZE);
    if (pfn)
        virtq_start(q);
}

static void write_legacy_reg(struct virtio_pci *p, uint64_t off, uint32_t value)
{
    switch (off) {
    case LEGACY_GUEST_FEATURES:
        virtio_set_features(p->vdev, value, true);
        break;
    case LEGACY_QUEUE_PFN:
        write_pfn(p, value);
        break;
    case LEGACY_QUEUE_SELECT:
        p->queue_sel = (uint16_t)value;
        break;
    case LEGACY_QUEUE_NOTIFY:
        virtio_kick(p->vdev, value & 0xffff);
        break;
    case LEGACY_STATUS:
        write_status(p, value);
        break;
    case LEGACY_CONFIG_VECTOR:
        p->config_vector = checked_vector(p, value);
        break;
    case LEGACY_QUEUE_VECTOR:
        write_queue_vector(p, value);
        break;
    default:
        guest_error(p, "no such register to write", off, value);
    }
}

static void legacy_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct virtio_pci *p = opaque;

    if (off >= legacy_header(p))
        virtio_config_write(p->vdev, off - legacy_header(p), (uint32_t)value, size);
    else
        write_legacy_reg(p, off, (uint32_t)value);
}

static const struct mem_ops legacy_ops = {legacy_read, legacy_write, 1, 4, false};

/* --- the function --------------------------------------------------------------------------------------- */

static uint64_t rom_read(void *opaque, uint64_t off, unsigned size)
{
    (void)opaque;
    (void)off;
    return bits_mask(8 * size);
}

static const struct mem_ops rom_ops = {rom_read, NULL, 1, 8, false};

static void function_reset(struct pci_function *fn)
{
    struct virtio_pci *p = from_fn(fn);

    virtio_reset(p->vdev);
    forget_driver(p);
}

static void function_free(struct pci_function *fn)
{
    struct virtio_pci *p = from_fn(fn);

    virtio_free(p->vdev);
    g_free(p->vector);
    pci_cleanup(fn);
    g_free(p);
}

static void function_describe(struct pci_function *fn, GString *out)
{
    struct virtio_pci *p = from_fn(fn);

    g_string_append_printf(out,
                           "dev: %s, id \"%s\"\ndisable-legacy = %s\ndisable-modern = %s\nvectors = %u\n",
                           p->vdev->cls->name, p->vdev->id ? p->vdev->id : "", p->legacy ? "off" : "on",
                           p->modern ? "off" : "on", fn->msix.count);
    if (p->vdev->cls->describe)
        p->vdev->cls->describe(p->vdev, out);
}

static const struct pci_class function_class = {
    .name = "virtio-pci",
    .reset = function_reset,
    .config_reading = window_reading,
    .config_written = window_written,
    .describe = function_describe,
    .free = function_free,
};

/* 4.1.2.1: transitional ids are a list of their own. */
static uint16_t transitional_id(uint16_t device)
{
    switch (device) {
    case VIRTIO_ID_NET:
        return 0x1000;
    case VIRTIO_ID_BLOCK:
        return 0x1001;
    case VIRTIO_ID_CONSOLE:
        return 0x1003;
    case VIRTIO_ID_RNG:
        return 0x1005;
    case VIRTIO_ID_9P:
        return 0x1009;
    case VIRTIO_ID_BALLOON:
        return 0x1002;
    default:
        return 0;
    }
}

static uint32_t class_code(uint16_t device)
{
    switch (device) {
    case VIRTIO_ID_NET:
        return 0x020000;
    case VIRTIO_ID_BLOCK:
        return 0x010000;
    case VIRTIO_ID_CONSOLE:
        return 0x078000;
    case VIRTIO_ID_9P:
        return 0x000200;
    default:
        return 0x00ff00;
    }
}

static struct pci_ids make_ids(const struct virtio_pci *p)
{
    uint16_t device = p->vdev->cls->device_id;

    if (p->legacy)
        return (struct pci_ids){0x1af4, transitional_id(device), 0x1af4, device, class_code(device), 0};
    return (struct pci_ids){0x1af4, (uint16_t)(0x1040 + device), 0x1af4, 0x1100, class_code(device), 1};
}

/* 4.1.4: cap_len, cfg_type, bar, id, padding, offset, length, and what the kind adds. */
static uint8_t add_cap(struct virtio_pci *p, uint8_t type, uint32_t off, uint32_t len, uint32_t extra,
                       unsigned more)
{
    uint8_t cap[18] = {(uint8_t)(16 + more), type, BAR_MODERN};

    off = GUINT32_TO_LE(off);
    len = GUINT32_TO_LE(len);
    extra = GUINT32_TO_LE(extra);
    memcpy(cap + 6, &off, 4);
    memcpy(cap + 10, &len, 4);
    memcpy(cap + 14, &extra, 4);
    return pci_add_capability(&p->fn, PCI_CAP_VENDOR, cap, 14 + more);
}

static void add_modern(struct virtio_pci *p)
{
    pci_add_bar(&p->fn, BAR_MODERN, PCI_BAR_64 | PCI_BAR_PREFETCH, AREAS * AREA_SIZE, &modern_ops, p);
    add_cap(p, CFG_COMMON, COMMON * AREA_SIZE, AREA_SIZE, 0, 0);
    add_cap(p, CFG_ISR, ISR * AREA_SIZE, AREA_SIZE, 0, 0);
    add_cap(p, CFG_DEVICE, DEVICE * AREA_SIZE, AREA_SIZE, 0, 0);
    add_cap(p, CFG_NOTIFY, NOTIFY * AREA_SIZE, AREA_SIZE, NOTIFY_MULTIPLIER, 4);
    p->cfg_cap = add_cap(p, CFG_PCI, 0, 0, 0, 4);
    p->fn.config[p->cfg_cap + 4] = 0;
    p->fn.writable[p->cfg_cap + 4] = 0xff;
    memset(p->fn.writable + p->cfg_cap + 8, 0xff, 12);
}

static void add_legacy(struct virtio_pci *p)
{
    uint64_t size = LEGACY_HEADER_MSIX + p->vdev->config_len;

    while (!bits_is_pow2(size))
        size++;
    pci_add_bar(&p->fn, BAR_LEGACY, PCI_BAR_IO, size, &legacy_ops, p);
}

static void build(struct virtio_pci *p, const struct virtio_pci_options *o)
{
    struct pci_ids ids = make_ids(p);
    unsigned vectors = o->vectors < 0 ? p->vdev->num_queues + 1 : (unsigned)o->vectors;

    pci_init(&p->fn, &function_class, &ids);
    pci_add_intx(&p->fn);
    if (p->legacy)
        add_legacy(p);
    if (p->modern)
        add_modern(p);
    if (vectors)
        pci_add_msix(&p->fn, BAR_MSIX, MIN(vectors, MAX_VECTORS));
    if (o->rom)
        pci_add_bar(&p->fn, PCI_ROM_BAR, PCI_BAR_MEM, ROM_SIZE, &rom_ops, p);
}

int virtio_pci_plug(struct device *host, struct virtio_device *vdev, const struct virtio_pci_options *o)
{
    struct virtio_pci *p = g_new0(struct virtio_pci, 1);
    int slot;

    BUG_ON(!(o->modern || o->legacy) || vdev->transport);
    p->vdev = vdev;
    p->modern = o->modern;
    p->legacy = o->legacy && transitional_id(vdev->cls->device_id);
    p->vector = g_new(uint16_t, vdev->num_queues);
    build(p, o);
    slot = pci_plug(host, &p->fn, o->slot);
    if (slot < 0) {
        g_free(p->vector);
        pci_cleanup(&p->fn);
        g_free(p);
        return slot;
    }
    vdev->transport = &transport_ops;
    vdev->transport_opaque = p;
    if (p->modern)
        vdev->host_features |= BIT(VIRTIO_F_VERSION_1);
    if (p->legacy)
        vdev->host_features |= BIT(VIRTIO_F_ANY_LAYOUT);
    dev_lock(host);
    function_reset(&p->fn);
    dev_unlock(host);
    return slot;
}
