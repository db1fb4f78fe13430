/*
 * virtio-9p: requests from the queue to worker threads, which run them in any order, and answers back.
 *
 * What is quick (p9_is_quick()) is done at once by the thread that rang the bell, without the board's lock:
 * waking a worker and then the guest would take many times as long.  When the host turns out to be slow, the
 * next requests go to the workers all the same.
 *
 * A request is a chain: the message in its readable part, room for the answer in the other.  A flush is
 * answered when the request that it names has been, which ends the need to stop anything half-way.
 *
 * Threading: as in blk.c.  Requests are taken under the board's lock, run without it, and collected on
 * `done'; a worker that finished one takes the board's lock and hands back what is there.  io_lock guards
 * running, in_flight, done and returning and is innermost; only one worker at a time waits for the board's
 * lock (`returning'), so that quiesce, which holds it, always has workers to wait for.
 */
#include "virtio/9p.h"

#include <string.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "virtio/9p_proto.h"
#include "virtio/iov.h"

enum { SLOW_US = 4000, SLOW_REQUESTS = 32 };
enum { F_MOUNT_TAG = 0, QUEUE_SIZE = 128, WORKERS = 4 /* at least 2 */ };

struct request {
    struct virtq_elem *elem;
    struct p9_header h;
    struct p9_io io;
    size_t written;
    struct request *flushes; /* that wait for this one */
    struct request *next;    /* in `flushes' of another */
    GList link;              /* in running */
};

struct virtio_9p {
    struct virtio_device vdev;
    struct p9_fs *fs;
    struct p9_session *session;
    char tag[VIRTIO_9P_TAG_MAX];
    uint16_t tag_len;
    GThreadPool *pool;
    GMutex io_lock;
    GCond idle;
    GQueue running; /* handed to the pool and not yet on `done' */
    GQueue done;    /* of struct request */
    bool returning; /* a worker is on its way to hand_back() */
    unsigned slow;  /* requests that are not to be done at once; the board's lock */
};

static struct virtio_9p *from_vdev(struct virtio_device *vdev)
{
    return CONTAINER_OF(vdev, struct virtio_9p, vdev);
}

/* --- completion --------------------------------------------------------------------------------------- */

/* The board's lock is held. */
static void hand_back(struct virtio_9p *p)
{
    struct virtq *q = &p->vdev.queues[0];
    bool pushed = false;
    struct request *r;

    for (;;) {
        g_mutex_lock(&p->io_lock);
        r = g_queue_pop_head(&p->done);
        g_mutex_unlock(&p->io_lock);
        if (!r)
            break;
        virtq_push(q, r->elem, r->written);
        pushed = true;
        g_free(r);
    }
    if (pushed)
        virtq_notify(q);
}

/* io_lock is held.  The flushes' answers come behind that of what they were for. */
static void finish_locked(struct virtio_9p *p, struct request *r)
{
    g_queue_push_tail(&p->done, r);
    for (struct request *f = r->flushes; f; f = f->next)
        g_queue_push_tail(&p->done, f);
}

/* io_lock is held; r was running. */
static void end_locked(struct virtio_9p *p, struct request *r)
{
    g_queue_unlink(&p->running, &r->link);
    finish_locked(p, r);
    if (g_queue_is_empty(&p->running))
        g_cond_broadcast(&p->idle);
}

static void work(gpointer item, gpointer opaque)
{
    struct virtio_9p *p = opaque;
    struct request *r = item;
    bool others;

    r->io.nowait = false;
    r->written = p9_handle(p->session, &r->io);
    g_mutex_lock(&p->io_lock);
    end_locked(p, r);
    others = p->returning;
    p->returning = true;
    g_mutex_unlock(&p->io_lock);
    if (others)
        return;

    g_mutex_lock(p->vdev.lock);
    g_mutex_lock(&p->io_lock);
    p->returning = false; /* before looking at `done': what comes later has a worker of its own */
    g_mutex_unlock(&p->io_lock);
    hand_back(p);
    g_mutex_unlock(p->vdev.lock);
}

/* --- taking requests ---------------------------------------------------------------------------------- */

static uint16_t flushed_tag(const struct request *r)
{
    uint8_t tag[2] = {0xff, 0xff};

    iov_read(r->io.out, r->io.out_num, P9_HEADER, tag, sizeof(tag));
    return (uint16_t)(tag[0] | tag[1] << 8);
}

/* io_lock is held.  The request that runs under that tag, or NULL. */
static struct request *find_running(struct virtio_9p *p, uint16_t tag)
{
    for (GList *l = p->running.head; l; l = l->next) {
        struct request *r = l->data;

        if (r->h.tag == tag)
            return r;
    }
    return NULL;
}

static void take_flush(struct virtio_9p *p, struct request *r)
{
    struct request *of;

    r->written = p9_answer_empty(&r->io, P9_RFLUSH, r->h.tag);
    g_mutex_lock(&p->io_lock);
    of = find_running(p, flushed_tag(r));
    if (of) {
        struct request **end = &of->flushes;

        while (*end)
            end = &(*end)->next;
        *end = r;
    } else {
        g_queue_push_tail(&p->done, r);
    }
    g_mutex_unlock(&p->io_lock);
    hand_back(p);
}

/*
 * On this thread.  While the board's lock is not held the device may be reset, which waits for r (so that it
 * must be with the workers before we ask for the lock), and the queue may be stopped; r may be gone when we
 * have it again.
 */
static void run_now(struct virtio_9p *p, struct request *r)
{
    int64_t start = g_get_monotonic_time();

    r->io.nowait = true;
    g_mutex_unlock(p->vdev.lock);
    r->written = p9_handle(p->session, &r->io);
    if (r->written) {
        g_mutex_lock(&p->io_lock);
        end_locked(p, r);
        g_mutex_unlock(&p->io_lock);
    } else {
        g_thread_pool_push(p->pool, r, NULL);
    }
    g_mutex_lock(p->vdev.lock);
    if (g_get_monotonic_time() - start > SLOW_US)
        p->slow = SLOW_REQUESTS;
    hand_back(p);
}

static void submit(struct virtio_9p *p, struct request *r)
{
    g_mutex_lock(&p->io_lock);
    g_queue_push_tail_link(&p->running, &r->link);
    g_mutex_unlock(&p->io_lock);
    if (!p->slow && p9_is_quick(&r->io, &r->h)) {
        run_now(p, r);
        return;
    }
    p->slow -= p->slow > 0;
    g_thread_pool_push(p->pool, r, NULL);
}

static struct request *new_request(struct virtq_elem *e)
{
    struct request *r = g_new0(struct request, 1);

    r->elem = e;
    r->link.data = r;
    r->io = (struct p9_io){virtq_out(e), virtq_in(e), e->out_num, e->in_num, e->out_len, e->in_len};
    return r;
}

static void p9_notify(struct virtio_device *vdev, struct virtq *q)
{
    struct virtio_9p *p = from_vdev(vdev);
    struct virtq_elem *e;

    while ((e = virtq_pop(q))) {
        struct request *r = new_request(e);

        if (!p9_read_header(&r->io, &r->h) || e->in_len < P9_ERROR_SIZE) {
            virtio_break(vdev, "request without a header, or no room for an answer");
            virtq_drop(e);
            g_free(r);
            break;
        }
        if (r->h.type == P9_TFLUSH)
            take_flush(p, r);
        else
            submit(p, r);
    }
}

/* Workers need only io_lock to get to `done'. */
static void p9_quiesce(struct virtio_device *vdev, struct virtq *q)
{
    struct virtio_9p *p = from_vdev(vdev);

    (void)q;
    g_mutex_lock(&p->io_lock);
    while (!g_queue_is_empty(&p->running))
        g_cond_wait(&p->idle, &p->io_lock);
    g_mutex_unlock(&p->io_lock);
    hand_back(p);
}

static void p9_reset(struct virtio_device *vdev)
{
    p9_session_reset(from_vdev(vdev)->session);
}

/* --- the device --------------------------------------------------------------------------------------- */

static void p9_config_read(struct virtio_device *vdev, uint8_t *buf)
{
    struct virtio_9p *p = from_vdev(vdev);

    buf[0] = (uint8_t)p->tag_len;
    buf[1] = (uint8_t)(p->tag_len >> 8);
    memcpy(buf + 2, p->tag, p->tag_len);
}

static void p9_free(struct virtio_device *vdev)
{
    struct virtio_9p *p = from_vdev(vdev);

    g_thread_pool_free(p->pool, FALSE, TRUE);
    p9_session_free(p->session);
    g_mutex_clear(&p->io_lock);
    g_cond_clear(&p->idle);
    virtio_cleanup(vdev);
    g_free(p);
}

static void p9_describe(struct virtio_device *vdev, GString *out)
{
    static const char *const models[] = {"none", "passthrough", "mapped-xattr", "mapped-file"};
    struct virtio_9p *p = from_vdev(vdev);
    const struct p9_options *o = p9_fs_options(p->fs);

    g_string_append_printf(
        out, "mount_tag = \"%.*s\"\npath = \"%s\"\nsecurity_model = %s\nreadonly = %s\nfids = %u\n",
        p->tag_len, p->tag, o->path, models[o->model], o->readonly ? "true" : "false",
        p9_session_fids(p->session));
}

static const struct virtio_class p9_class = {
    .name = "virtio-9p-device",
    .device_id = VIRTIO_ID_9P,
    .config_read = p9_config_read,
    .notify = p9_notify,
    .quiesce = p9_quiesce,
    .reset = p9_reset,
    .free = p9_free,
    .describe = p9_describe,
};

struct virtio_device *virtio_9p_new(GMutex *lock, struct mem *mem, struct p9_fs *fs, const char *tag)
{
    struct virtio_9p *p = g_new0(struct virtio_9p, 1);

    p->fs = fs;
    p->session = p9_session_new(fs);
    p->tag_len = (uint16_t)MIN(strlen(tag), VIRTIO_9P_TAG_MAX);
    memcpy(p->tag, tag, p->tag_len);
    g_mutex_init(&p->io_lock);
    g_cond_init(&p->idle);
    g_queue_init(&p->running);
    g_queue_init(&p->done);
    p->pool = g_thread_pool_new(work, p, WORKERS, FALSE, NULL);
    virtio_init(&p->vdev, &p9_class, lock, mem, BIT(F_MOUNT_TAG), 2u + p->tag_len);
    virtio_add_queue(&p->vdev, QUEUE_SIZE);
    return &p->vdev;
}
