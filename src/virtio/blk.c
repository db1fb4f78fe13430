/*
 * virtio-blk: read, write, flush, get-id, discard, write-zeroes, on worker threads so that no vCPU waits for
 * the host.
 *
 * A request: header {le32 type, le32 reserved, le64 sector} in the first readable bytes, status in the last
 * writable byte, the data between them, however the driver cuts it (2.7.4.3).  Host errors of any kind are
 * S_IOERR; writes are complete when the host has them, and on the medium after a flush.
 *
 * Threading: requests are parsed under the board's lock, run without it, and collected on `done'; a worker
 * that finished one then takes the board's lock and hands back what is there.  io_lock guards in_flight, done
 * and returning and is innermost, so that quiesce can wait for the workers while it holds the board's lock.
 * Only one worker at a time waits for the board's lock (`returning'): else quiesce could find them all
 * waiting for it, and requests with none to run them.
 */
#include "virtio/blk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "base/trace.h"
#include "virtio/iov.h"

enum { SECTOR = 512, WORKERS = 4 /* at least 2 */, ID_BYTES = 20, MAX_SEGMENTS = 32 };

enum {
    F_SEG_MAX = 2,
    F_GEOMETRY = 4,
    F_RO = 5,
    F_BLK_SIZE = 6,
    F_FLUSH = 9,
    F_TOPOLOGY = 10,
    F_CONFIG_WCE = 11,
    F_MQ = 12,
    F_DISCARD = 13,
    F_WRITE_ZEROES = 14
};

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
enum { ZEROES_UNMAP = 1 };

/* 5.2.4; all little-endian. */
struct PACKED config {
    uint64_t capacity; /* in sectors */
    uint32_t size_max, seg_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t blk_size;
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
};
_Static_assert(sizeof(struct config) == 60, "VIRTIO 1.2 5.2.4");

/* Of T_DISCARD and T_WRITE_ZEROES (5.2.6). */
struct PACKED segment {
    uint64_t sector;
    uint32_t num_sectors, flags;
};

struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct request {
    struct virtq *q;
    struct virtq_elem *elem;
    uint32_t type;
    uint64_t sector;
    bool sync;      /* a write that must be on the medium before it completes */
    uint8_t status;
    size_t written; /* into the guest's memory, the status byte too */
};

struct virtio_blk {
    struct virtio_device vdev;
    struct disk *disk;
    char serial[ID_BYTES];
    uint16_t num_queues, queue_size;
    bool writeback; /* the configuration field */
    GThreadPool *pool;
    GMutex io_lock;
    GCond idle;
    unsigned in_flight; /* handed to the pool and not yet on `done' */
    GQueue done;        /* of struct request */
    bool returning;     /* a worker is on its way to hand_back() */
};

static struct virtio_blk *from_vdev(struct virtio_device *vdev)
{
    return CONTAINER_OF(vdev, struct virtio_blk, vdev);
}

/* --- running a request, on a worker thread -------------------------------------------------------------- */

static bool within_disk(struct virtio_blk *b, uint64_t sector, uint64_t len)
{
    uint64_t size = disk_size(b->disk);

    return sector <= size / SECTOR && len <= size - sector * SECTOR;
}

static int run_read(struct virtio_blk *b, struct request *r)
{
    struct virtq_elem *e = r->elem;
    size_t len = e->in_len - 1;
    struct iovec iov[VIRTQ_MAX_SIZE];
    int error;

    if (len % SECTOR || !within_disk(b, r->sector, len))
        return -EINVAL;
    error = disk_read(b->disk, r->sector * SECTOR, iov, iov_slice(virtq_in(e), e->in_num, 0, len, iov));
    if (error == 0)
        r->written += len;
    return error;
}

static int run_write(struct virtio_blk *b, struct request *r)
{
    struct virtq_elem *e = r->elem;
    size_t len = e->out_len - sizeof(struct header);
    struct iovec iov[VIRTQ_MAX_SIZE];
    unsigned n;
    int error;

    if (len % SECTOR || !within_disk(b, r->sector, len))
        return -EINVAL;
    n = iov_slice(virtq_out(e), e->out_num, sizeof(struct header), len, iov);
    error = disk_write(b->disk, r->sector * SECTOR, iov, n);
    return error == 0 && r->sync ? disk_flush(b->disk) : error;
}

static int run_get_id(struct virtio_blk *b, struct request *r)
{
    size_t len = MIN(r->elem->in_len - 1, ID_BYTES);

    iov_write(virtq_in(r->elem), r->elem->in_num, 0, b->serial, len);
    r->written += len;
    return 0;
}

static int run_segment(struct virtio_blk *b, struct request *r, const struct segment *s)
{
    uint64_t sector = GUINT64_FROM_LE(s->sector), len = (uint64_t)GUINT32_FROM_LE(s->num_sectors) * SECTOR;
    uint32_t flags = GUINT32_FROM_LE(s->flags);

    if (flags & (r->type == T_DISCARD ? UINT32_MAX : ~(uint32_t)ZEROES_UNMAP))
        return -EOPNOTSUPP; /* 5.2.6.2: unknown flags */
    if (!within_disk(b, sector, len))
        return -EINVAL;
    if (r->type == T_DISCARD)
        return disk_discard(b->disk, sector * SECTOR, len);
    return disk_write_zeroes(b->disk, sector * SECTOR, len, flags & ZEROES_UNMAP);
}

static int run_segments(struct virtio_blk *b, struct request *r)
{
    struct virtq_elem *e = r->elem;
    size_t len = e->out_len - sizeof(struct header), n = len / sizeof(struct segment);
    int error = 0;

    if (!n || len % sizeof(struct segment) || n > MAX_SEGMENTS)
        return -EINVAL;
    for (size_t i = 0; i < n && error == 0; i++) {
        struct segment s;

        iov_read(virtq_out(e), e->out_num, sizeof(struct header) + i * sizeof(s), &s, sizeof(s));
        error = run_segment(b, r, &s);
    }
    return error == 0 && r->sync ? disk_flush(b->disk) : error;
}

static int run(struct virtio_blk *b, struct request *r)
{
    switch (r->type) {
    case T_IN:
        return run_read(b, r);
    case T_OUT:
        return run_write(b, r);
    case T_FLUSH:
        return disk_flush(b->disk);
    case T_GET_ID:
        return run_get_id(b, r);
    case T_DISCARD:
    case T_WRITE_ZEROES:
        return run_segments(b, r);
    default:
        return -EOPNOTSUPP;
    }
}

/* --- completion ----------------------------------------------------------------------------------------- */

/* The board's lock is held. */
static void hand_back(struct virtio_blk *b)
{
    uint32_t touched = 0; /* a bit a queue; there are at most 32 */
    struct request *r;

    for (;;) {
        g_mutex_lock(&b->io_lock);
        r = g_queue_pop_head(&b->done);
        g_mutex_unlock(&b->io_lock);
        if (!r)
            break;
        iov_write(virtq_in(r->elem), r->elem->in_num, r->elem->in_len - 1, &r->status, 1);
        virtq_push(r->q, r->elem, r->written);
        touched |= 1u << r->q->index;
        g_free(r);
    }
    for (; touched; touched &= touched - 1)
        virtq_notify(&b->vdev.queues[bits_ctz(touched)]);
}

static void work(gpointer item, gpointer opaque)
{
    struct virtio_blk *b = opaque;
    struct request *r = item;
    int error = run(b, r);
    bool others;

    r->status = error == 0 ? S_OK : error == -EOPNOTSUPP ? S_UNSUPP : S_IOERR;
    trace(BLOCK, "%s: type %u sector %" PRIu64 ": %s", b->vdev.cls->name, r->type, r->sector,
          error ? g_strerror(-error) : "ok");
    g_mutex_lock(&b->io_lock);
    g_queue_push_tail(&b->done, r);
    if (--b->in_flight == 0)
        g_cond_broadcast(&b->idle);
    others = b->returning;
    b->returning = true;
    g_mutex_unlock(&b->io_lock);
    if (others)
        return;

    g_mutex_lock(b->vdev.lock);
    g_mutex_lock(&b->io_lock);
    b->returning = false; /* before looking at `done': what comes later has a worker of its own */
    g_mutex_unlock(&b->io_lock);
    hand_back(b);
    g_mutex_unlock(b->vdev.lock);
}

/* --- taking requests ------------------------------------------------------------------------------------ */

/* 5.2.6.2: without FLUSH and CONFIG_WCE the driver takes the cache for write-through. */
static bool writes_through(struct virtio_blk *b)
{
    if (virtio_has(&b->vdev, F_CONFIG_WCE))
        return !b->writeback;
    return !virtio_has(&b->vdev, F_FLUSH);
}

static void submit(struct virtio_blk *b, struct virtq *q, struct virtq_elem *e)
{
    struct request *r = g_new0(struct request, 1);
    struct header h;

    iov_read(virtq_out(e), e->out_num, 0, &h, sizeof(h));
    r->q = q;
    r->elem = e;
    r->type = GUINT32_FROM_LE(h.type);
    r->sector = GUINT64_FROM_LE(h.sector);
    r->sync = writes_through(b);
    r->written = 1;
    g_mutex_lock(&b->io_lock);
    b->in_flight++;
    g_mutex_unlock(&b->io_lock);
    g_thread_pool_push(b->pool, r, NULL);
}

static void blk_notify(struct virtio_device *vdev, struct virtq *q)
{
    struct virtio_blk *b = from_vdev(vdev);
    struct virtq_elem *e;

    while ((e = virtq_pop(q))) {
        if (e->out_len < sizeof(struct header) || e->in_len < 1) {
            virtio_break(vdev, "request without a header or a status");
            virtq_drop(e);
            return;
        }
        submit(b, q, e);
    }
}

/* Workers need only io_lock to get to `done'. */
static void blk_quiesce(struct virtio_device *vdev, struct virtq *q)
{
    struct virtio_blk *b = from_vdev(vdev);

    (void)q;
    g_mutex_lock(&b->io_lock);
    while (b->in_flight)
        g_cond_wait(&b->idle, &b->io_lock);
    g_mutex_unlock(&b->io_lock);
    hand_back(b);
}

static void blk_reset(struct virtio_device *vdev)
{
    struct virtio_blk *b = from_vdev(vdev);

    b->writeback = disk_cache(b->disk) != DISK_WRITETHROUGH;
}

/* --- configuration -------------------------------------------------------------------------------------- */

/* The translation that PC firmware made customary; nothing depends on it. */
static void set_geometry(struct config *c, uint64_t sectors)
{
    uint64_t cylinders = sectors / (16 * 63);

    c->cylinders = GUINT16_TO_LE((uint16_t)CLAMP(cylinders, 2, 16383));
    c->heads = 16;
    c->sectors = 63;
}

static void blk_config_read(struct virtio_device *vdev, uint8_t *buf)
{
    struct virtio_blk *b = from_vdev(vdev);
    uint64_t sectors = disk_size(b->disk) / SECTOR;
    struct config c = {
        .capacity = GUINT64_TO_LE(sectors),
        .seg_max = GUINT32_TO_LE(b->queue_size - 2u),
        .blk_size = GUINT32_TO_LE(SECTOR),
        .writeback = b->writeback,
        .num_queues = GUINT16_TO_LE(b->num_queues),
        .max_discard_sectors = GUINT32_TO_LE(INT32_MAX / SECTOR),
        .max_discard_seg = GUINT32_TO_LE(1),
        .discard_sector_alignment = GUINT32_TO_LE(1),
        .max_write_zeroes_sectors = GUINT32_TO_LE(INT32_MAX / SECTOR),
        .max_write_zeroes_seg = GUINT32_TO_LE(1),
        .write_zeroes_may_unmap = 1,
    };

    set_geometry(&c, sectors);
    memcpy(buf, &c, sizeof(c));
}

static void blk_config_write(struct virtio_device *vdev, const uint8_t *buf, unsigned off, unsigned len)
{
    struct virtio_blk *b = from_vdev(vdev);
    unsigned at = offsetof(struct config, writeback);

    if (off <= at && at < off + len && virtio_has(vdev, F_CONFIG_WCE))
        b->writeback = buf[at] & 1;
}

/* --- the device ----------------------------------------------------------------------------------------- */

static void blk_free(struct virtio_device *vdev)
{
    struct virtio_blk *b = from_vdev(vdev);

    g_thread_pool_free(b->pool, FALSE, TRUE);
    disk_close(b->disk);
    g_mutex_clear(&b->io_lock);
    g_cond_clear(&b->idle);
    virtio_cleanup(vdev);
    g_free(b);
}

static void blk_describe(struct virtio_device *vdev, GString *out)
{
    struct virtio_blk *b = from_vdev(vdev);

    g_string_append_printf(out, "size = %" PRIu64 "\nread-only = %s\nserial = \"%.*s\"\n", disk_size(b->disk),
                           disk_readonly(b->disk) ? "true" : "false", ID_BYTES, b->serial);
}

static const struct virtio_class blk_class = {
    .name = "virtio-blk-device",
    .device_id = VIRTIO_ID_BLOCK,
    .config_read = blk_config_read,
    .config_write = blk_config_write,
    .notify = blk_notify,
    .quiesce = blk_quiesce,
    .reset = blk_reset,
    .free = blk_free,
    .describe = blk_describe,
};

static uint64_t offered_features(const struct virtio_blk *b)
{
    uint64_t f = BIT(F_SEG_MAX) | BIT(F_GEOMETRY) | BIT(F_BLK_SIZE) | BIT(F_TOPOLOGY) | BIT(F_FLUSH);

    if (disk_readonly(b->disk))
        f |= BIT(F_RO);
    else
        f |= BIT(F_CONFIG_WCE) | BIT(F_DISCARD) | BIT(F_WRITE_ZEROES);
    if (b->num_queues > 1)
        f |= BIT(F_MQ);
    return f;
}

struct virtio_device *virtio_blk_new(GMutex *lock, struct mem *mem, const struct virtio_blk_options *options)
{
    struct virtio_blk *b = g_new0(struct virtio_blk, 1);

    b->disk = options->disk;
    b->num_queues = CLAMP(options->num_queues, 1, 32);
    b->queue_size = options->queue_size ? options->queue_size : 256;
    if (options->serial)
        memcpy(b->serial, options->serial, MIN(strlen(options->serial), ID_BYTES));
    g_mutex_init(&b->io_lock);
    g_cond_init(&b->idle);
    g_queue_init(&b->done);
    b->pool = g_thread_pool_new(work, b, WORKERS, FALSE, NULL);
    virtio_init(&b->vdev, &blk_class, lock, mem, offered_features(b), sizeof(struct config));
    for (unsigned i = 0; i < b->num_queues; i++)
        virtio_add_queue(&b->vdev, b->queue_size);
    blk_reset(&b->vdev);
    return &b->vdev;
}
