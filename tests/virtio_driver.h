/*
 * The other side of a virtio-mmio frame, for tests: a small driver of the modern interface, and of the legacy
 * one.
 */
#ifndef ARMLET_TESTS_VIRTIO_DRIVER_H
#define ARMLET_TESTS_VIRTIO_DRIVER_H

#include <string.h>

#include "mem/mem.h"
#include "virtio/mmio.h"

enum { RAM_BASE = 0x40000000, RAM_SIZE = 0x200000, RING_SIZE = 0x4000, DATA_BASE = RAM_BASE + 0x100000 };
enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };

struct ring {
    unsigned index, num;
    uint64_t desc, avail, used;
    uint16_t avail_idx, used_idx; /* ours */
};

struct driver {
    GMutex lock;
    struct mem *mem;
    struct device *frame;
    struct virtio_device *vdev;
    bool legacy, irq;
};

static inline uint32_t drv_read(struct driver *d, unsigned off)
{
    uint64_t v;

    g_mutex_lock(&d->lock);
    v = d->frame->regs.ops->read(d->frame->regs.dev, off, 4);
    g_mutex_unlock(&d->lock);
    return (uint32_t)v;
}

static inline void drv_write(struct driver *d, unsigned off, uint32_t v)
{
    g_mutex_lock(&d->lock);
    d->frame->regs.ops->write(d->frame->regs.dev, off, v, 4);
    g_mutex_unlock(&d->lock);
}

static inline void drv_see_irq(void *opaque, unsigned n, bool level)
{
    (void)n;
    __atomic_store_n((bool *)opaque, level, __ATOMIC_RELAXED);
}

static inline void drv_init(struct driver *d, bool legacy)
{
    memset(d, 0, sizeof(*d));
    g_mutex_init(&d->lock);
    d->legacy = legacy;
    d->mem = mem_new(RAM_BASE, RAM_SIZE);
    d->frame = virtio_mmio_new(&d->lock, legacy);
    d->frame->irq = (struct irq_line){drv_see_irq, &d->irq, 0};
}

static inline void drv_plug(struct driver *d, struct virtio_device *vdev)
{
    d->vdev = vdev;
    virtio_mmio_attach(d->frame, vdev);
}

static inline void drv_free(struct driver *d)
{
    dev_free(d->frame);
    mem_free(d->mem);
    g_mutex_clear(&d->lock);
}

/* Up to FEATURES_OK; returns the status that the device shows then. */
static inline uint32_t drv_negotiate(struct driver *d, uint64_t features)
{
    drv_write(d, 0x070, 0);
    drv_write(d, 0x070, 1);
    drv_write(d, 0x070, 3);
    drv_write(d, 0x024, 0);
    drv_write(d, 0x020, (uint32_t)features);
    if (d->legacy) {
        drv_write(d, 0x028, 4096);
        return drv_read(d, 0x070);
    }
    drv_write(d, 0x024, 1);
    drv_write(d, 0x020, (uint32_t)(features >> 32));
    drv_write(d, 0x070, 11);
    return drv_read(d, 0x070);
}

static inline void drv_ok(struct driver *d)
{
    drv_write(d, 0x070, d->legacy ? 7 : 15);
}

/* Rings of queue `index' lie at RAM_BASE + (index + 1) * RING_SIZE. */
static inline struct ring drv_queue(struct driver *d, unsigned index, unsigned num)
{
    uint64_t base = RAM_BASE + (index + 1) * (uint64_t)RING_SIZE;
    struct ring r = {.index = index, .num = num, .desc = base, .avail = base + 16 * num};

    r.used = (r.avail + 6 + 2 * num + 4095) & ~(uint64_t)4095;
    memset(mem_span(d->mem, base, RING_SIZE).hva, 0, RING_SIZE);
    drv_write(d, 0x030, index);
    drv_write(d, 0x038, num);
    if (d->legacy) {
        drv_write(d, 0x03c, 4096);
        drv_write(d, 0x040, (uint32_t)(base / 4096));
        return r;
    }
    drv_write(d, 0x080, (uint32_t)r.desc);
    drv_write(d, 0x084, (uint32_t)(r.desc >> 32));
    drv_write(d, 0x090, (uint32_t)r.avail);
    drv_write(d, 0x094, (uint32_t)(r.avail >> 32));
    drv_write(d, 0x0a0, (uint32_t)r.used);
    drv_write(d, 0x0a4, (uint32_t)(r.used >> 32));
    drv_write(d, 0x044, 1);
    return r;
}

static inline void put(struct driver *d, uint64_t pa, const void *data, size_t len)
{
    memcpy(mem_span(d->mem, pa, len).hva, data, len);
}

static inline void put16(struct driver *d, uint64_t pa, uint16_t v)
{
    __atomic_store_n((uint16_t *)mem_span(d->mem, pa, 2).hva, v, __ATOMIC_SEQ_CST);
}

static inline uint16_t get16(struct driver *d, uint64_t pa)
{
    return __atomic_load_n((uint16_t *)mem_span(d->mem, pa, 2).hva, __ATOMIC_SEQ_CST);
}

static inline uint32_t get32(struct driver *d, uint64_t pa)
{
    return __atomic_load_n((uint32_t *)mem_span(d->mem, pa, 4).hva, __ATOMIC_SEQ_CST);
}

static inline uint8_t get8(struct driver *d, uint64_t pa)
{
    return *mem_span(d->mem, pa, 1).hva;
}

/* Entry i of the descriptor table at `table'. */
static inline void set_desc(struct driver *d, uint64_t table, unsigned i, uint64_t addr, uint32_t len,
                            unsigned flags, unsigned next)
{
    struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags, next;
    } desc = {addr, len, (uint16_t)flags, (uint16_t)next};

    put(d, table + 16 * (uint64_t)i, &desc, sizeof(desc));
}

static inline void make_available(struct driver *d, struct ring *r, unsigned head)
{
    put16(d, r->avail + 4 + 2 * (r->avail_idx % r->num), (uint16_t)head);
    put16(d, r->avail + 2, ++r->avail_idx);
}

static inline void kick(struct driver *d, const struct ring *r)
{
    drv_write(d, 0x050, r->index);
}

/* The length of the next used entry, waiting for it at most ten seconds; UINT32_MAX when none comes. */
static inline uint32_t next_used(struct driver *d, struct ring *r, uint32_t *head)
{
    for (unsigned i = 0; get16(d, r->used + 2) == r->used_idx; i++) {
        if (i == 100000)
            return UINT32_MAX;
        g_usleep(100);
    }
    *head = get32(d, r->used + 4 + 8 * (r->used_idx % r->num));
    return get32(d, r->used + 8 + 8 * (r->used_idx++ % r->num));
}

static inline bool nothing_used(struct driver *d, const struct ring *r)
{
    return get16(d, r->used + 2) == r->used_idx;
}

#endif
