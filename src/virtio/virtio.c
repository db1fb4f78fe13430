/*
 * What all virtio devices do alike: status, features, configuration space, breaking.  See virtio.h.
 *
 * Left out: VIRTIO_F_RING_RESET, access through an IOMMU.
 */
#include "virtio/virtio.h"

#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "base/report.h"
#include "base/trace.h"

void virtio_init(struct virtio_device *vdev, const struct virtio_class *cls, GMutex *lock, struct mem *mem,
                 uint64_t features, unsigned config_len)
{
    BUG_ON(config_len > VIRTIO_MAX_CONFIG);
    vdev->cls = cls;
    vdev->lock = lock;
    vdev->mem = mem;
    vdev->host_features = features | BIT(VIRTIO_F_INDIRECT_DESC) | BIT(VIRTIO_F_EVENT_IDX);
    vdev->config_len = config_len;
}

/* Devices keep no pointers to queues across this. */
void virtio_add_queue(struct virtio_device *vdev, uint16_t num_max)
{
    struct virtq *q;

    BUG_ON(!bits_is_pow2(num_max) || num_max > VIRTQ_MAX_SIZE || vdev->transport);
    vdev->queues = g_renew(struct virtq, vdev->queues, vdev->num_queues + 1);
    q = &vdev->queues[vdev->num_queues];
    *q = (struct virtq){.vdev = vdev, .index = vdev->num_queues, .num_max = num_max, .num = num_max};
    vdev->num_queues++;
}

static void end_resume(struct virtio_device *vdev)
{
    if (!vdev->resume)
        return;
    g_source_destroy(vdev->resume);
    g_source_unref(vdev->resume);
    vdev->resume = NULL;
}

void virtio_cleanup(struct virtio_device *vdev)
{
    end_resume(vdev);
    g_free(vdev->queues);
    g_free(vdev->id);
}

void virtio_free(struct virtio_device *vdev)
{
    if (vdev)
        vdev->cls->free(vdev);
}

bool virtio_is_running(const struct virtio_device *vdev)
{
    if (vdev->broken)
        return false;
    return !virtio_has(vdev, VIRTIO_F_VERSION_1) || (vdev->status & VIRTIO_DRIVER_OK);
}

static void notify_config(struct virtio_device *vdev)
{
    if ((vdev->status & VIRTIO_DRIVER_OK) && vdev->transport)
        vdev->transport->notify_config(vdev->transport_opaque);
}

void virtio_config_changed(struct virtio_device *vdev)
{
    vdev->config_generation++;
    notify_config(vdev);
}

void virtio_break(struct virtio_device *vdev, const char *why)
{
    if (vdev->broken)
        return;
    trace(GUEST_ERRORS, "%s: %s: the driver must reset the device", vdev->cls->name, why);
    vdev->broken = true;
    if (!virtio_has(vdev, VIRTIO_F_VERSION_1))
        return; /* the legacy interface has no word for it */
    vdev->status |= VIRTIO_NEEDS_RESET;
    notify_config(vdev);
}

static void quiesce(struct virtio_device *vdev, struct virtq *q)
{
    if (vdev->cls->quiesce)
        vdev->cls->quiesce(vdev, q);
}

void virtio_reset(struct virtio_device *vdev)
{
    quiesce(vdev, NULL);
    for (unsigned i = 0; i < vdev->num_queues; i++)
        virtq_reset(&vdev->queues[i]);
    vdev->status = 0;
    vdev->features = 0;
    vdev->broken = false;
    if (vdev->cls->reset)
        vdev->cls->reset(vdev);
}

/*
 * 2.2.2: the device leaves FEATURES_OK unset when the driver chose what was not offered, or not the standard.
 */
static bool features_acceptable(const struct virtio_device *vdev)
{
    return !(vdev->features & ~vdev->host_features) &&
           (virtio_has(vdev, VIRTIO_F_VERSION_1) || !(vdev->host_features & BIT(VIRTIO_F_VERSION_1)));
}

void virtio_set_status(struct virtio_device *vdev, uint8_t status)
{
    uint8_t old = vdev->status;

    trace(VIRTIO, "%s: status %#x", vdev->cls->name, status);
    if (!status) {
        virtio_reset(vdev);
        return;
    }
    status &= (uint8_t)~VIRTIO_NEEDS_RESET;
    status |= old & VIRTIO_NEEDS_RESET;
    if ((status & ~old & VIRTIO_FEATURES_OK) && !features_acceptable(vdev))
        status &= (uint8_t)~VIRTIO_FEATURES_OK;
    vdev->status = status;
    if ((status & ~old & VIRTIO_DRIVER_OK) && vdev->cls->started)
        vdev->cls->started(vdev);
}

void virtio_set_features(struct virtio_device *vdev, uint64_t features, bool legacy)
{
    if (vdev->status & VIRTIO_FEATURES_OK)
        return;
    vdev->features = legacy ? features & vdev->host_features : features;
    trace(VIRTIO, "%s: features %#" PRIx64, vdev->cls->name, vdev->features);
}

uint32_t virtio_config_read(struct virtio_device *vdev, uint64_t off, unsigned size)
{
    uint8_t buf[VIRTIO_MAX_CONFIG + 4] = {0};
    uint32_t v = 0;

    if (off >= vdev->config_len || !vdev->cls->config_read)
        return 0;
    vdev->cls->config_read(vdev, buf);
    memcpy(&v, buf + off, size);
    return GUINT32_FROM_LE(v);
}

void virtio_config_write(struct virtio_device *vdev, uint64_t off, uint32_t value, unsigned size)
{
    uint8_t buf[VIRTIO_MAX_CONFIG + 4] = {0};

    if (off >= vdev->config_len || size > vdev->config_len - off || !vdev->cls->config_write)
        return;
    if (vdev->cls->config_read)
        vdev->cls->config_read(vdev, buf);
    value = GUINT32_TO_LE(value);
    memcpy(buf + off, &value, size);
    vdev->cls->config_write(vdev, buf, (unsigned)off, size);
}

struct virtq *virtio_queue(struct virtio_device *vdev, uint32_t index)
{
    return index < vdev->num_queues ? &vdev->queues[index] : NULL;
}

void virtio_kick(struct virtio_device *vdev, uint32_t index)
{
    struct virtq *q = virtio_queue(vdev, index);

    if (!q || !q->ready || !virtio_is_running(vdev))
        return;
    q->budget = VIRTQ_BUDGET;
    vdev->cls->notify(vdev, q);
}

static gboolean handle_resume(gpointer opaque)
{
    struct virtio_device *vdev = opaque;

    g_mutex_lock(vdev->lock);
    if (!g_source_is_destroyed(g_main_current_source())) {
        end_resume(vdev);
        for (unsigned i = 0; i < vdev->num_queues; i++) {
            if (!vdev->queues[i].deferred)
                continue;
            vdev->queues[i].deferred = false;
            virtio_kick(vdev, i);
        }
    }
    g_mutex_unlock(vdev->lock);
    return G_SOURCE_REMOVE;
}

void virtio_defer(struct virtio_device *vdev, struct virtq *q)
{
    q->deferred = true;
    if (vdev->resume)
        return;
    vdev->resume = g_idle_source_new();
    g_source_set_callback(vdev->resume, handle_resume, vdev, NULL);
    g_source_attach(vdev->resume, NULL);
}

void virtio_stop_queue(struct virtio_device *vdev, struct virtq *q)
{
    if (!q->ready)
        return;
    quiesce(vdev, q);
    virtq_stop(q);
}
