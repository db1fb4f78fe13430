/*
 * A virtio device without its transport (VIRTIO 1.2, 2): features, status, configuration, queues.
 *
 * A device is made by its virtio_foo_new() and given to a transport (virtio/mmio.h), which owns it from then
 * on. Threads: everything here wants `lock' (the board's), but for what is said otherwise.
 */
#ifndef ARMLET_VIRTIO_VIRTIO_H
#define ARMLET_VIRTIO_VIRTIO_H

#include <glib.h>

#include "mem/mem.h"
#include "virtio/queue.h"

enum {
    VIRTIO_ID_NET = 1,
    VIRTIO_ID_BLOCK = 2,
    VIRTIO_ID_CONSOLE = 3,
    VIRTIO_ID_RNG = 4,
    VIRTIO_ID_BALLOON = 5,
    VIRTIO_ID_9P = 9
};

/* Device status (2.1). */
enum {
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64,
    VIRTIO_FAILED = 128
};

/* Feature bits that do not depend on the device (6). */
enum {
    VIRTIO_F_ANY_LAYOUT = 27, /* legacy interface only */
    VIRTIO_F_INDIRECT_DESC = 28,
    VIRTIO_F_EVENT_IDX = 29,
    VIRTIO_F_VERSION_1 = 32
};

struct virtio_device;

struct virtio_class {
    const char *name; /* as in -device */
    uint16_t device_id;
    /*
     * The whole configuration space, vdev->config_len bytes, to or from buf.  A write passes what the space
     * would be after it, and where it was written.  config_write may be NULL: nothing can be written.
     */
    void (*config_read)(struct virtio_device *vdev, uint8_t *buf);
    void (*config_write)(struct virtio_device *vdev, const uint8_t *buf, unsigned off, unsigned len);
    /* The driver has put something into a queue that is ready. */
    void (*notify)(struct virtio_device *vdev, struct virtq *q);
    /* DRIVER_OK has been set.  May be NULL. */
    void (*started)(struct virtio_device *vdev);
    /*
     * Blocks until every element popped from q (NULL: from any queue) is pushed or dropped, so that the
     * guest's memory is its own again.  May be NULL for devices that keep none.
     */
    void (*quiesce)(struct virtio_device *vdev, struct virtq *q);
    /* After quiesce and with the queues stopped.  May be NULL. */
    void (*reset)(struct virtio_device *vdev);
    /* The lock is not held. */
    void (*free)(struct virtio_device *vdev);
    void (*describe)(struct virtio_device *vdev, GString *out); /* may be NULL */
};

struct virtio_transport_ops {
    void (*notify_queue)(void *transport, unsigned queue);
    void (*notify_config)(void *transport);
};

/* A device's struct begins with this. */
struct virtio_device {
    const struct virtio_class *cls;
    char *id; /* user's id= or NULL; owned */
    struct mem *mem;
    GMutex *lock;
    const struct virtio_transport_ops *transport; /* NULL until attached */
    void *transport_opaque;
    uint64_t host_features; /* what is offered; VERSION_1 is the transport's to add */
    uint64_t features;      /* what the driver took */
    uint8_t status;
    bool broken;
    uint32_t config_generation;
    unsigned config_len;
    unsigned num_queues;
    struct virtq *queues;
    GSource *resume; /* for deferred queues; or NULL */
};

/* For the devices' own use. config_len at most VIRTIO_MAX_CONFIG. */
enum { VIRTIO_MAX_CONFIG = 256 };
void virtio_init(struct virtio_device *vdev, const struct virtio_class *cls, GMutex *lock, struct mem *mem,
                 uint64_t features, unsigned config_len);
/* The next queue; num_max is a power of two, at most VIRTQ_MAX_SIZE. */
void virtio_add_queue(struct virtio_device *vdev, uint16_t num_max);
/* Frees what virtio_init() and virtio_add_queue() made, and not vdev. */
void virtio_cleanup(struct virtio_device *vdev);

static inline bool virtio_has(const struct virtio_device *vdev, unsigned feature)
{
    return (vdev->features >> feature) & 1;
}

/* May requests be taken?  Under the legacy interface drivers did not always wait for DRIVER_OK. */
bool virtio_is_running(const struct virtio_device *vdev);

/* The configuration space has changed: tell the driver. */
void virtio_config_changed(struct virtio_device *vdev);

/* The driver broke a rule: nothing moves until it resets the device. */
void virtio_break(struct virtio_device *vdev, const char *why);

/*
 * Has q's notify called soon, from the main loop.  A driver on another vCPU may refill a queue as fast as it
 * is emptied, and a hostile one may lay its rings over each other, so that each answer is a new request.
 */
void virtio_defer(struct virtio_device *vdev, struct virtq *q);

/* For transports. */
void virtio_reset(struct virtio_device *vdev);
void virtio_set_status(struct virtio_device *vdev, uint8_t status);
/*
 * Ignored after FEATURES_OK.  The legacy interface never offers what it could not keep: extra bits are
 * dropped.
 */
void virtio_set_features(struct virtio_device *vdev, uint64_t features, bool legacy);
uint32_t virtio_config_read(struct virtio_device *vdev, uint64_t off, unsigned size);
void virtio_config_write(struct virtio_device *vdev, uint64_t off, uint32_t value, unsigned size);
/* A queue by the number the guest gave, or NULL. */
struct virtq *virtio_queue(struct virtio_device *vdev, uint32_t index);
/* The guest rang the bell of a queue; any number. */
void virtio_kick(struct virtio_device *vdev, uint32_t index);
void virtio_stop_queue(struct virtio_device *vdev, struct virtq *q);
/* The lock is not held; NULL is allowed. */
void virtio_free(struct virtio_device *vdev);

#endif
