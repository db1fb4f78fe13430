/*
 * virtio-balloon: pages that the guest puts into the balloon, or reports as free, are given back to the host;
 * they read as zeros when the guest touches them again, so a deflation needs nothing.
 *
 * Left out: statistics, free page hints (for migration), page poison.
 *
 * Threading: the board's lock.  Other vCPUs may use pages while they are dropped (a guest that lies): they
 * see old data or zeros.
 */
#include "virtio/balloon.h"

#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "mem/ram.h"
#include "virtio/iov.h"

enum { F_MUST_TELL_HOST = 0, F_DEFLATE_ON_OOM = 2, F_REPORTING = 5 };
enum { QUEUE_SIZE = 128, Q_INFLATE = 0, PAGE = 4096, PFN_SHIFT = 12 };
/* Drivers number the queues that they use without gaps, and statistics are not offered. */
enum { Q_REPORTING = 2 };

struct PACKED config {
    uint32_t num_pages, actual; /* of 4 KiB */
};

struct virtio_balloon {
    struct virtio_device vdev;
    uint32_t num_pages, actual;
    uint64_t dropped; /* bytes, ever */
};

static struct virtio_balloon *from_vdev(struct virtio_device *vdev)
{
    return CONTAINER_OF(vdev, struct virtio_balloon, vdev);
}

/* Only whole pages: what is around them is in use. */
static void drop(struct virtio_balloon *b, uint8_t *hva, size_t len)
{
    uint8_t *start = (uint8_t *)bits_align_up((uintptr_t)hva, PAGE), *end = hva + len;

    end -= (uintptr_t)end % PAGE;
    if (end <= start)
        return;
    ram_discard(start, (size_t)(end - start));
    b->dropped += (uint64_t)(end - start);
}

static void drop_run(struct virtio_balloon *b, uint64_t first, uint64_t count)
{
    struct span s = mem_span(b->vdev.mem, first << PFN_SHIFT, count << PFN_SHIFT);

    if (count && s.hva) {
        drop(b, s.hva, count << PFN_SHIFT);
        mem_code_stale(b->vdev.mem, first << PFN_SHIFT, count << PFN_SHIFT);
    }
}

/* Numbers of pages, often in a row up or down. */
static void inflate(struct virtio_balloon *b, const struct virtq_elem *e)
{
    uint64_t first = 0, count = 0;
    uint32_t pfn;

    for (size_t at = 0; iov_read(virtq_out(e), e->out_num, at, &pfn, sizeof(pfn)) == sizeof(pfn);
         at += sizeof(pfn)) {
        uint64_t n = GUINT32_FROM_LE(pfn);

        if (count && n == first + count) {
            count++;
        } else if (count && n + 1 == first) {
            first = n;
            count++;
        } else {
            drop_run(b, first, count);
            first = n;
            count = 1;
        }
    }
    drop_run(b, first, count);
}

/* The buffers themselves are the pages (5.5.6.7). */
static void take_report(struct virtio_balloon *b, const struct virtq_elem *e)
{
    for (unsigned i = 0; i < e->in_num; i++)
        drop(b, virtq_in(e)[i].iov_base, virtq_in(e)[i].iov_len);
}

static void balloon_notify(struct virtio_device *vdev, struct virtq *q)
{
    struct virtio_balloon *b = from_vdev(vdev);
    bool pushed = false;
    struct virtq_elem *e;

    while ((e = virtq_pop(q))) {
        if (q->index == Q_INFLATE)
            inflate(b, e);
        else if (q->index == Q_REPORTING)
            take_report(b, e);
        virtq_push(q, e, 0);
        pushed = true;
    }
    if (pushed)
        virtq_notify(q);
}

static void balloon_config_read(struct virtio_device *vdev, uint8_t *buf)
{
    struct virtio_balloon *b = from_vdev(vdev);
    struct config c = {GUINT32_TO_LE(b->num_pages), GUINT32_TO_LE(b->actual)};

    memcpy(buf, &c, sizeof(c));
}

static void balloon_config_write(struct virtio_device *vdev, const uint8_t *buf, unsigned off, unsigned len)
{
    struct config c;

    memcpy(&c, buf, sizeof(c));
    if (off + len > offsetof(struct config, actual))
        from_vdev(vdev)->actual = GUINT32_FROM_LE(c.actual);
}

static void balloon_reset(struct virtio_device *vdev)
{
    from_vdev(vdev)->actual = 0;
}

static void balloon_free(struct virtio_device *vdev)
{
    virtio_cleanup(vdev);
    g_free(from_vdev(vdev));
}

static void balloon_describe(struct virtio_device *vdev, GString *out)
{
    struct virtio_balloon *b = from_vdev(vdev);

    g_string_append_printf(out, "wanted = %u MiB\nin the balloon = %u MiB\ngiven back = %" PRIu64 " MiB\n",
                           b->num_pages >> 8, b->actual >> 8, b->dropped >> 20);
}

static const struct virtio_class balloon_class = {
    .name = "virtio-balloon-device",
    .device_id = VIRTIO_ID_BALLOON,
    .config_read = balloon_config_read,
    .config_write = balloon_config_write,
    .notify = balloon_notify,
    .reset = balloon_reset,
    .free = balloon_free,
    .describe = balloon_describe,
};

void virtio_balloon_set(struct virtio_device *vdev, uint64_t bytes)
{
    struct virtio_balloon *b = from_vdev(vdev);
    uint64_t ram = mem_ram_size(vdev->mem);

    b->num_pages = (uint32_t)((ram - MIN(bytes, ram)) >> PFN_SHIFT);
    virtio_config_changed(vdev);
}

uint64_t virtio_balloon_get(const struct virtio_device *vdev)
{
    const struct virtio_balloon *b = CONTAINER_OF(vdev, struct virtio_balloon, vdev);
    uint64_t ram = mem_ram_size(vdev->mem), held = (uint64_t)b->actual << PFN_SHIFT;

    return ram - MIN(held, ram);
}

struct virtio_device *virtio_balloon_new(GMutex *lock, struct mem *mem,
                                         const struct virtio_balloon_options *o)
{
    struct virtio_balloon *b = g_new0(struct virtio_balloon, 1);
    uint64_t features = BIT(F_MUST_TELL_HOST);

    if (o->deflate_on_oom)
        features |= BIT(F_DEFLATE_ON_OOM);
    if (o->free_page_reporting)
        features |= BIT(F_REPORTING);
    virtio_init(&b->vdev, &balloon_class, lock, mem, features, sizeof(struct config));
    virtio_add_queue(&b->vdev, QUEUE_SIZE);
    virtio_add_queue(&b->vdev, QUEUE_SIZE);
    if (o->free_page_reporting)
        virtio_add_queue(&b->vdev, QUEUE_SIZE);
    return &b->vdev;
}
