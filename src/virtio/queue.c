/*
 * Split virtqueues: rings, descriptor chains, notification suppression both ways.  See queue.h.
 *
 * Left out: packed rings, VIRTIO_F_IN_ORDER, big-endian legacy guests.
 */
#include "virtio/queue.h"

#include <string.h>

#include "base/bits.h"
#include "mem/mem.h"
#include "virtio/virtio.h"

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, DESC_SIZE = 16 };
enum { AVAIL_NO_INTERRUPT = 1 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

/*
 * The driver writes these while we read: one access each, little-endian, naturally aligned (virtq_start()
 * checks).
 */
static uint16_t load16(const uint8_t *p)
{
    return GUINT16_FROM_LE(__atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE));
}

static void store16(uint8_t *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)p, GUINT16_TO_LE(v), __ATOMIC_RELEASE);
}

/* flags, idx, ring[num], used_event */
static uint16_t avail_idx(const struct virtq *q)
{
    return load16(q->avail + 2);
}

static uint16_t used_event(const struct virtq *q)
{
    return load16(q->avail + 4 + 2u * q->num);
}

/* flags, idx, ring[num] of {u32 id, u32 len}, avail_event */
static void set_avail_event(struct virtq *q, uint16_t idx)
{
    store16(q->used + 4 + 8u * q->num, idx);
}

bool virtq_start(struct virtq *q)
{
    struct virtio_device *vdev = q->vdev;
    struct span desc, avail, used;

    if (!q->num || q->num > q->num_max || !bits_is_pow2(q->num)) {
        virtio_break(vdev, "queue size");
        return false;
    }
    desc = mem_span(vdev->mem, q->desc_pa, (uint64_t)q->num * DESC_SIZE);
    avail = mem_span(vdev->mem, q->avail_pa, 6 + 2u * q->num);
    used = mem_span(vdev->mem, q->used_pa, 6 + 8u * q->num);
    if (!desc.hva || !avail.hva || !used.hva || q->desc_pa % 16 || q->avail_pa % 2 || q->used_pa % 4) {
        virtio_break(vdev, "queue address");
        return false;
    }
    q->desc = desc.hva;
    q->avail = avail.hva;
    q->used = used.hva;
    q->last_avail = q->used_idx = q->signalled = 0;
    q->signalled_valid = false;
    q->in_flight = 0;
    q->generation++;
    q->budget = VIRTQ_BUDGET;
    q->ready = true;
    return true;
}

void virtq_stop(struct virtq *q)
{
    q->ready = false;
    q->deferred = false;
    q->generation++;
    q->in_flight = 0;
    q->desc = q->avail = q->used = NULL;
}

void virtq_reset(struct virtq *q)
{
    virtq_stop(q);
    q->num = q->num_max;
    q->desc_pa = q->avail_pa = q->used_pa = 0;
}

bool virtq_is_empty(struct virtq *q)
{
    return !q->ready || q->vdev->broken || avail_idx(q) == q->last_avail;
}

/* --- descriptor chains ---------------------------------------------------------------------------------- */

/* Where descriptors are read from: the queue's table, or an indirect one. */
struct table {
    const uint8_t *base;
    unsigned num;
    bool indirect;
};

struct chain {
    struct iovec iov[VIRTQ_MAX_SIZE];
    unsigned out_num, in_num;
    size_t out_len, in_len;
};

static struct desc load_desc(const struct table *t, unsigned i)
{
    struct desc d;

    memcpy(&d, t->base + (size_t)i * DESC_SIZE, DESC_SIZE);
    d.addr = GUINT64_FROM_LE(d.addr);
    d.len = GUINT32_FROM_LE(d.len);
    d.flags = GUINT16_FROM_LE(d.flags);
    d.next = GUINT16_FROM_LE(d.next);
    return d;
}

/* Returns NULL, or what is wrong with d. */
static const char *add_buffer(struct virtq *q, struct chain *c, const struct desc *d)
{
    struct span s = mem_span(q->vdev->mem, d->addr, d->len);

    if (!d->len)
        return NULL; /* an empty buffer is useless, whatever its address, and harmless */
    if (!s.hva)
        return "buffer outside RAM";
    if (c->out_num + c->in_num == VIRTQ_MAX_SIZE)
        return "too many buffers";
    c->iov[c->out_num + c->in_num] = (struct iovec){s.hva, d->len};
    if (d->flags & DESC_WRITE) {
        c->in_num++;
        c->in_len += d->len;
    } else if (c->in_num) {
        return "readable buffer after a writable one"; /* 2.7.4.2 */
    } else {
        c->out_num++;
        c->out_len += d->len;
    }
    return NULL;
}

/* 2.7.5.3: only in the queue's own table, as the last of a chain, and only when negotiated. */
static const char *enter_indirect(struct virtq *q, struct table *t, const struct desc *d)
{
    struct span s;

    if (!virtio_has(q->vdev, VIRTIO_F_INDIRECT_DESC))
        return "indirect descriptor without the feature";
    if (t->indirect)
        return "indirect descriptor in an indirect table";
    if (d->flags & DESC_NEXT)
        return "descriptor both indirect and chained";
    if (!d->len || d->len % DESC_SIZE || d->len / DESC_SIZE > VIRTQ_MAX_SIZE)
        return "length of an indirect table";
    s = mem_span(q->vdev->mem, d->addr, d->len);
    if (!s.hva)
        return "indirect table outside RAM";
    *t = (struct table){s.hva, d->len / DESC_SIZE, true};
    return NULL;
}

/* A chain longer than its table has a loop. */
static const char *walk_chain(struct virtq *q, unsigned head, struct chain *c)
{
    struct table t = {q->desc, q->num, false};
    unsigned i = head, left = t.num;
    const char *wrong;

    for (;;) {
        struct desc d;

        if (i >= t.num)
            return "descriptor index";
        if (!left--)
            return "loop of descriptors";
        d = load_desc(&t, i);
        if (d.flags & DESC_INDIRECT) {
            wrong = enter_indirect(q, &t, &d);
            i = 0;
            left = t.num;
        } else {
            wrong = add_buffer(q, c, &d);
            if (!wrong && !(d.flags & DESC_NEXT))
                return NULL;
            i = d.next;
        }
        if (wrong)
            return wrong;
    }
}

static struct virtq_elem *make_elem(const struct virtq *q, uint16_t head, const struct chain *c)
{
    unsigned n = c->out_num + c->in_num;
    struct virtq_elem *e = g_malloc(sizeof(*e) + n * sizeof(e->iov[0]));

    e->head = head;
    e->generation = q->generation;
    e->out_num = c->out_num;
    e->in_num = c->in_num;
    e->out_len = c->out_len;
    e->in_len = c->in_len;
    memcpy(e->iov, c->iov, n * sizeof(e->iov[0]));
    return e;
}

/*
 * Is there an entry to take?  When there is none, the driver is asked to notify, and then looked at once
 * more.
 */
static bool find_available(struct virtq *q)
{
    if (virtq_is_empty(q)) {
        if (!q->ready || q->vdev->broken)
            return false;
        if (!virtio_has(q->vdev, VIRTIO_F_EVENT_IDX))
            return false; /* used.flags stays 0: it notifies always */
        set_avail_event(q, q->last_avail);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (virtq_is_empty(q))
            return false;
    }
    if ((uint16_t)(avail_idx(q) - q->last_avail) > q->num) {
        virtio_break(q->vdev, "available index");
        return false;
    }
    /* A chain is at least one descriptor, which is not the driver's again until it is pushed. */
    if (q->in_flight >= q->num) {
        virtio_break(q->vdev, "more requests than descriptors");
        return false;
    }
    if (!q->budget) {
        virtio_defer(q->vdev, q);
        return false;
    }
    q->budget--;
    return true;
}

struct virtq_elem *virtq_pop(struct virtq *q)
{
    struct chain c;
    const char *wrong;
    uint16_t head;

    if (!find_available(q))
        return NULL;
    head = load16(q->avail + 4 + 2u * (q->last_avail & (q->num - 1u)));
    c.out_num = c.in_num = 0;
    c.out_len = c.in_len = 0;
    wrong = walk_chain(q, head, &c);
    if (wrong) {
        virtio_break(q->vdev, wrong);
        return NULL;
    }
    q->last_avail++;
    q->in_flight++;
    if (virtio_has(q->vdev, VIRTIO_F_EVENT_IDX))
        set_avail_event(q, q->last_avail);
    return make_elem(q, head, &c);
}

/* --- giving back ---------------------------------------------------------------------------------------- */

void virtq_drop(struct virtq_elem *e)
{
    g_free(e);
}

void virtq_push(struct virtq *q, struct virtq_elem *e, size_t written)
{
    if (q->ready && e->generation == q->generation && !q->vdev->broken) {
        uint8_t *slot = q->used + 4 + 8u * (q->used_idx & (q->num - 1u));
        uint32_t entry[2] = {GUINT32_TO_LE(e->head), GUINT32_TO_LE((uint32_t)MIN(written, UINT32_MAX))};

        memcpy(slot, entry, sizeof(entry));
        store16(q->used + 2, ++q->used_idx);
        q->in_flight--;
    }
    virtq_drop(e);
}

/* 2.7.7.2, 2.7.10: has used_idx passed what the driver waits for since it was last interrupted? */
static bool driver_wants_interrupt(struct virtq *q)
{
    uint16_t now = q->used_idx, old = q->signalled;
    bool valid = q->signalled_valid;

    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the index is seen before the driver's wish is looked at */
    if (!virtio_has(q->vdev, VIRTIO_F_EVENT_IDX))
        return !(load16(q->avail) & AVAIL_NO_INTERRUPT);
    q->signalled = now;
    q->signalled_valid = true;
    return !valid || (uint16_t)(now - used_event(q) - 1) < (uint16_t)(now - old);
}

void virtq_notify(struct virtq *q)
{
    struct virtio_device *vdev = q->vdev;

    if (q->ready && !vdev->broken && vdev->transport && driver_wants_interrupt(q))
        vdev->transport->notify_queue(vdev->transport_opaque, q->index);
}
