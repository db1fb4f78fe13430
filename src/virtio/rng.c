/*
 * Entropy from the host's getrandom().
 *
 * Threading: the board's lock; the timer that refills the quota runs on the main thread and takes it.
 */
#include "virtio/rng.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/compiler.h"

/* What one request gets at most: a guest that asks for all its RAM shall not stop the board meanwhile. */
#define MAX_REQUEST 4096

struct virtio_rng {
    struct virtio_device vdev;
    struct virtio_rng_options options;
    uint64_t quota; /* bytes left in this period */
    GSource *refill; /* NULL: the quota is whole */
};

/* Fills up to len bytes of the list; how many it could. */
static size_t fill(const struct iovec *iov, unsigned n, size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        size_t want = MIN(iov[i].iov_len, len - done), got = 0;

        while (got < want) {
            ssize_t r = getrandom((uint8_t *)iov[i].iov_base + got, want - got, 0);

            if (r < 0 && errno == EINTR)
                continue;
            if (r <= 0)
                return done + got;
            got += (size_t)r;
        }
        done += got;
    }
    return done;
}

static gboolean handle_refill(gpointer opaque);

static void start_period(struct virtio_rng *rng)
{
    if (rng->refill)
        return;
    rng->refill = g_timeout_source_new(rng->options.period_ms);
    g_source_set_callback(rng->refill, handle_refill, rng, NULL);
    g_source_attach(rng->refill, NULL);
}

static void end_period(struct virtio_rng *rng)
{
    if (rng->refill) {
        g_source_destroy(rng->refill);
        g_source_unref(rng->refill);
        rng->refill = NULL;
    }
    rng->quota = rng->options.max_bytes;
}

static void serve(struct virtio_rng *rng, struct virtq *q)
{
    bool limited = rng->options.max_bytes, pushed = false;
    struct virtq_elem *e;

    while ((!limited || rng->quota) && (e = virtq_pop(q))) {
        size_t len = MIN(e->in_len, MAX_REQUEST);

        if (limited)
            len = MIN(len, rng->quota);
        len = fill(virtq_in(e), e->in_num, len);
        if (limited) {
            rng->quota -= len;
            start_period(rng);
        }
        virtq_push(q, e, len);
        pushed = true;
    }
    if (pushed)
        virtq_notify(q);
}

static gboolean handle_refill(gpointer opaque)
{
    struct virtio_rng *rng = opaque;

    g_mutex_lock(rng->vdev.lock);
    if (!g_source_is_destroyed(g_main_current_source())) {
        end_period(rng);
        if (virtio_is_running(&rng->vdev))
            serve(rng, &rng->vdev.queues[0]);
    }
    g_mutex_unlock(rng->vdev.lock);
    return G_SOURCE_REMOVE;
}

static void rng_notify(struct virtio_device *vdev, struct virtq *q)
{
    serve(CONTAINER_OF(vdev, struct virtio_rng, vdev), q);
}

static void rng_free(struct virtio_device *vdev)
{
    struct virtio_rng *rng = CONTAINER_OF(vdev, struct virtio_rng, vdev);

    end_period(rng);
    virtio_cleanup(vdev);
    g_free(rng);
}

static void rng_describe(struct virtio_device *vdev, GString *out)
{
    struct virtio_rng *rng = CONTAINER_OF(vdev, struct virtio_rng, vdev);

    g_string_append_printf(out, "max-bytes = %" G_GUINT64_FORMAT "\nperiod = %u\n", rng->options.max_bytes,
                           rng->options.period_ms);
}

static const struct virtio_class rng_class = {
    .name = "virtio-rng-device",
    .device_id = VIRTIO_ID_RNG,
    .notify = rng_notify,
    .free = rng_free,
    .describe = rng_describe,
};

struct virtio_device *virtio_rng_new(GMutex *lock, struct mem *mem, const struct virtio_rng_options *options)
{
    struct virtio_rng *rng = g_new0(struct virtio_rng, 1);

    virtio_init(&rng->vdev, &rng_class, lock, mem, 0, 0);
    virtio_add_queue(&rng->vdev, 8);
    if (options)
        rng->options = *options;
    rng->options.period_ms = MAX(rng->options.period_ms, 1);
    rng->quota = rng->options.max_bytes;
    return &rng->vdev;
}
