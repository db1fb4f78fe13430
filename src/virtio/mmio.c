/*
 * virtio-mmio, version 2 and the legacy version 1.
 *
 * Left out: shared memory regions (reported as absent).
 *
 * Threading: the board's lock.
 */
#include "virtio/mmio.h"

#include "base/bits.h"
#include "base/report.h"

enum {
    MAGIC = 0x000,
    VERSION = 0x004,
    DEVICE_ID = 0x008,
    VENDOR_ID = 0x00c,
    DEVICE_FEATURES = 0x010,
    DEVICE_FEATURES_SEL = 0x014,
    DRIVER_FEATURES = 0x020,
    DRIVER_FEATURES_SEL = 0x024,
    GUEST_PAGE_SIZE = 0x028, /* legacy */
    QUEUE_SEL = 0x030,
    QUEUE_NUM_MAX = 0x034,
    QUEUE_NUM = 0x038,
    QUEUE_ALIGN = 0x03c, /* legacy */
    QUEUE_PFN = 0x040,   /* legacy */
    QUEUE_READY = 0x044,
    QUEUE_NOTIFY = 0x050,
    INTERRUPT_STATUS = 0x060,
    INTERRUPT_ACK = 0x064,
    STATUS = 0x070,
    QUEUE_DESC_LOW = 0x080,
    QUEUE_DESC_HIGH = 0x084,
    QUEUE_DRIVER_LOW = 0x090,
    QUEUE_DRIVER_HIGH = 0x094,
    QUEUE_DEVICE_LOW = 0x0a0,
    QUEUE_DEVICE_HIGH = 0x0a4,
    SHM_SEL = 0x0ac,
    SHM_LEN_LOW = 0x0b0,
    SHM_BASE_HIGH = 0x0bc,
    CONFIG_GENERATION = 0x0fc,
    CONFIG = 0x100
};

enum { INT_USED = 1, INT_CONFIG = 2 };

/* As drivers and scripts know the boards that this one stands in for. */
#define VENDOR 0x554d4551

struct virtio_mmio {
    struct device dev;
    struct virtio_device *vdev;
    bool legacy;
    uint32_t isr, device_sel, driver_sel, queue_sel;
    uint32_t page_size, align;  /* legacy */
    uint64_t driver_features;   /* modern: as written so far */
};

/* What a frame without a device shows; the rest depends on the device, the version and the history. */
static const struct reg regs[] = {
    {"MagicValue", MAGIC, REG_RO, 0xffffffff, 0x74726976},
    {"Version", VERSION, REG_RO | REG_SIDE, 0x3, 0},
    {"DeviceID", DEVICE_ID, REG_RO | REG_SIDE, 0xffffffff, 0},
    {"VendorID", VENDOR_ID, REG_RO, 0xffffffff, VENDOR},
    {"DeviceFeatures", DEVICE_FEATURES, REG_RO | REG_SIDE, 0xffffffff, 0},
    {"DeviceFeaturesSel", DEVICE_FEATURES_SEL, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"DriverFeatures", DRIVER_FEATURES, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"DriverFeaturesSel", DRIVER_FEATURES_SEL, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"GuestPageSize", GUEST_PAGE_SIZE, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"QueueSel", QUEUE_SEL, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"QueueNumMax", QUEUE_NUM_MAX, REG_RO | REG_SIDE, 0xffffffff, 0},
    {"QueueNum", QUEUE_NUM, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"QueueAlign", QUEUE_ALIGN, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"QueuePFN", QUEUE_PFN, REG_RW | REG_SIDE, 0xffffffff, 0},
    {"QueueReady", QUEUE_READY, REG_RW | REG_SIDE, 0x1, 0},
    {"QueueNotify", QUEUE_NOTIFY, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"InterruptStatus", INTERRUPT_STATUS, REG_RO | REG_SIDE, 0x3, 0},
    {"InterruptACK", INTERRUPT_ACK, REG_WO | REG_SIDE, 0x3, 0},
    {"Status", STATUS, REG_RW | REG_SIDE, 0xff, 0},
    {"QueueDescLow", QUEUE_DESC_LOW, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"QueueDescHigh", QUEUE_DESC_HIGH, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"QueueDriverLow", QUEUE_DRIVER_LOW, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"QueueDriverHigh", QUEUE_DRIVER_HIGH, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"QueueDeviceLow", QUEUE_DEVICE_LOW, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"QueueDeviceHigh", QUEUE_DEVICE_HIGH, REG_WO | REG_SIDE, 0xffffffff, 0},
    {"ConfigGeneration", CONFIG_GENERATION, REG_RO | REG_SIDE, 0xffffffff, 0},
};

static void update(struct virtio_mmio *m)
{
    irq_set(&m->dev.irq, m->isr);
}

static void notify_queue(void *opaque, unsigned queue)
{
    struct virtio_mmio *m = opaque;

    (void)queue;
    m->isr |= INT_USED;
    update(m);
}

static void notify_config(void *opaque)
{
    struct virtio_mmio *m = opaque;

    m->isr |= INT_CONFIG;
    update(m);
}

static const struct virtio_transport_ops transport_ops = {notify_queue, notify_config};

/* --- reading -------------------------------------------------------------------------------------------- */

static uint32_t read_common(struct virtio_mmio *m, uint64_t off)
{
    struct virtio_device *vdev = m->vdev;
    const struct virtq *q = virtio_queue(vdev, m->queue_sel);

    switch (off) {
    case DEVICE_ID:
        return vdev->cls->device_id;
    case DEVICE_FEATURES:
        if (m->device_sel > 1 || (m->legacy && m->device_sel))
            return 0;
        return (uint32_t)(vdev->host_features >> (32 * m->device_sel));
    case QUEUE_NUM_MAX:
        return q ? q->num_max : 0;
    case INTERRUPT_STATUS:
        return m->isr;
    case STATUS:
        return vdev->status;
    default:
        dev_guest_error(&m->dev, "no such register to read", off, 0);
        return 0;
    }
}

static uint32_t read_versioned(struct virtio_mmio *m, uint64_t off)
{
    const struct virtq *q = virtio_queue(m->vdev, m->queue_sel);

    if (m->legacy) {
        if (off == QUEUE_PFN)
            return q && q->ready ? (uint32_t)(q->desc_pa / m->page_size) : 0;
        return read_common(m, off);
    }
    switch (off) {
    case QUEUE_READY:
        return q && q->ready;
    case CONFIG_GENERATION:
        return m->vdev->config_generation;
    case SHM_LEN_LOW ... SHM_BASE_HIGH: /* 4.2.2: a region that is not there has length -1 */
        return UINT32_MAX;
    default:
        return read_common(m, off);
    }
}

static uint64_t mmio_read(void *opaque, uint64_t off, unsigned size)
{
    struct virtio_mmio *m = opaque;

    if (off >= CONFIG)
        return m->vdev ? virtio_config_read(m->vdev, off - CONFIG, size) : 0;
    if (size != 4) {
        dev_guest_error(&m->dev, "narrow read", off, size);
        return 0;
    }
    switch (off) {
    case MAGIC:
        return 0x74726976;
    case VERSION:
        return m->legacy ? 1 : 2;
    case VENDOR_ID:
        return VENDOR;
    default:
        return m->vdev ? read_versioned(m, off) : 0;
    }
}

/* --- writing -------------------------------------------------------------------------------------------- */

static void forget_driver(struct virtio_mmio *m)
{
    m->isr = 0;
    m->device_sel = m->driver_sel = m->queue_sel = 0;
    m->page_size = MEM_PAGE_SIZE;
    m->align = MEM_PAGE_SIZE;
    m->driver_features = 0;
}

static void write_features(struct virtio_mmio *m, uint32_t value)
{
    if (m->driver_sel > 1 || (m->legacy && m->driver_sel))
        return;
    m->driver_features = bits_deposit(m->driver_features, 32 * m->driver_sel, 32, value);
    virtio_set_features(m->vdev, m->driver_features, m->legacy);
}

/* 4.2.4, 2.7.2: the legacy rings lie one after the other from a page on, the used ring aligned. */
static void write_pfn(struct virtio_mmio *m, struct virtq *q, uint32_t pfn)
{
    virtio_stop_queue(m->vdev, q);
    q->desc_pa = (uint64_t)pfn * m->page_size;
    q->avail_pa = q->desc_pa + 16u * q->num;
    q->used_pa = bits_align_up(q->avail_pa + 6 + 2u * q->num, m->align);
    if (pfn)
        virtq_start(q);
}

static void write_queue_legacy(struct virtio_mmio *m, struct virtq *q, uint64_t off, uint32_t value)
{
    if (off == QUEUE_PFN)
        write_pfn(m, q, value);
    else if (off == QUEUE_ALIGN && bits_is_pow2(value))
        m->align = value;
    else
        dev_guest_error(&m->dev, "no such register or value to write", off, value);
}

static void set_half(uint64_t *pa, bool high, uint32_t value)
{
    *pa = bits_deposit(*pa, high ? 32 : 0, 32, value);
}

static void write_ready(struct virtio_mmio *m, struct virtq *q, uint32_t value)
{
    if (!(value & 1))
        virtio_stop_queue(m->vdev, q);
    else if (!q->ready)
        virtq_start(q);
}

static void write_queue_modern(struct virtio_mmio *m, struct virtq *q, uint64_t off, uint32_t value)
{
    if (off == QUEUE_READY) {
        write_ready(m, q, value);
        return;
    }
    if (q->ready) { /* 4.2.2.2: the driver must not */
        dev_guest_error(&m->dev, "set-up of a queue that is ready", off, value);
        return;
    }
    switch (off) {
    case QUEUE_DESC_LOW:
    case QUEUE_DESC_HIGH:
        set_half(&q->desc_pa, off == QUEUE_DESC_HIGH, value);
        break;
    case QUEUE_DRIVER_LOW:
    case QUEUE_DRIVER_HIGH:
        set_half(&q->avail_pa, off == QUEUE_DRIVER_HIGH, value);
        break;
    case QUEUE_DEVICE_LOW:
    case QUEUE_DEVICE_HIGH:
        set_half(&q->used_pa, off == QUEUE_DEVICE_HIGH, value);
        break;
    default:
        dev_guest_error(&m->dev, "no such register to write", off, value);
    }
}

/* Registers of the queue that QueueSel names. */
static void write_queue(struct virtio_mmio *m, uint64_t off, uint32_t value)
{
    struct virtq *q = virtio_queue(m->vdev, m->queue_sel);

    if (!q) {
        dev_guest_error(&m->dev, "no such queue", off, m->queue_sel);
        return;
    }
    if (off == QUEUE_NUM) {
        if (q->ready || !value || value > q->num_max || !bits_is_pow2(value))
            dev_guest_error(&m->dev, "queue size", off, value);
        else
            q->num = (uint16_t)value;
    } else if (m->legacy) {
        write_queue_legacy(m, q, off, value);
    } else {
        write_queue_modern(m, q, off, value);
    }
}

static void write_status(struct virtio_mmio *m, uint32_t value)
{
    uint32_t page_size = m->page_size;

    virtio_set_status(m->vdev, (uint8_t)value);
    if (value & 0xff)
        return;
    forget_driver(m);
    if (m->legacy)
        m->page_size = page_size; /* drivers set it once, before they reset the device for the first time */
    update(m);
}

static void write_reg(struct virtio_mmio *m, uint64_t off, uint32_t value)
{
    switch (off) {
    case DEVICE_FEATURES_SEL:
        m->device_sel = value;
        break;
    case DRIVER_FEATURES:
        write_features(m, value);
        break;
    case DRIVER_FEATURES_SEL:
        m->driver_sel = value;
        break;
    case QUEUE_SEL:
        m->queue_sel = value;
        break;
    case QUEUE_NOTIFY:
        virtio_kick(m->vdev, value);
        break;
    case INTERRUPT_ACK:
        m->isr &= ~value;
        update(m);
        break;
    case STATUS:
        write_status(m, value);
        break;
    case SHM_SEL:
        break;
    case GUEST_PAGE_SIZE:
        if (m->legacy && bits_is_pow2(value))
            m->page_size = value;
        break;
    default:
        write_queue(m, off, value);
    }
}

static void mmio_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct virtio_mmio *m = opaque;

    if (!m->vdev)
        return; /* drivers probe: no reason to complain */
    if (off >= CONFIG)
        virtio_config_write(m->vdev, off - CONFIG, (uint32_t)value, size);
    else if (size != 4)
        dev_guest_error(&m->dev, "narrow write", off, value);
    else
        write_reg(m, off, (uint32_t)value);
}

/* --- the device ----------------------------------------------------------------------------------------- */

static void mmio_reset(struct device *dev)
{
    struct virtio_mmio *m = CONTAINER_OF(dev, struct virtio_mmio, dev);

    if (m->vdev)
        virtio_reset(m->vdev);
    forget_driver(m);
    update(m);
}

static void mmio_free(struct device *dev)
{
    struct virtio_mmio *m = CONTAINER_OF(dev, struct virtio_mmio, dev);

    virtio_free(m->vdev);
    g_free(dev->id);
    g_free(m);
}

static void mmio_describe(struct device *dev, GString *out)
{
    struct virtio_mmio *m = CONTAINER_OF(dev, struct virtio_mmio, dev);

    g_string_append_printf(out, "force-legacy = %s\n", m->legacy ? "true" : "false");
    if (!m->vdev)
        return;
    g_string_append_printf(out, "dev: %s, id \"%s\"\n", m->vdev->cls->name, m->vdev->id ? m->vdev->id : "");
    if (m->vdev->cls->describe)
        m->vdev->cls->describe(m->vdev, out);
}

static const struct device_class mmio_class = {
    .name = "virtio-mmio",
    .reg_list = regs,
    .reg_count = ARRAY_LEN(regs),
    .reset = mmio_reset,
    .free = mmio_free,
    .describe = mmio_describe,
};

static const struct mem_ops mmio_ops = {mmio_read, mmio_write, 1, 4, false};

struct device *virtio_mmio_new(GMutex *lock, bool legacy)
{
    struct virtio_mmio *m = g_new0(struct virtio_mmio, 1);

    dev_init(&m->dev, &mmio_class, &mmio_ops, VIRTIO_MMIO_SIZE, lock);
    m->legacy = legacy;
    forget_driver(m);
    return &m->dev;
}

void virtio_mmio_attach(struct device *frame, struct virtio_device *vdev)
{
    struct virtio_mmio *m = CONTAINER_OF(frame, struct virtio_mmio, dev);

    BUG_ON(m->vdev || vdev->transport);
    m->vdev = vdev;
    vdev->transport = &transport_ops;
    vdev->transport_opaque = m;
    vdev->host_features |= m->legacy ? BIT(VIRTIO_F_ANY_LAYOUT) : BIT(VIRTIO_F_VERSION_1);
    dev_lock(frame);
    mmio_reset(frame);
    dev_unlock(frame);
}

struct virtio_device *virtio_mmio_vdev(struct device *frame)
{
    return CONTAINER_OF(frame, struct virtio_mmio, dev)->vdev;
}
