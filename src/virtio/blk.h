/*
 * virtio block device (VIRTIO 1.2, 5.2).
 */
#ifndef ARMLET_VIRTIO_BLK_H
#define ARMLET_VIRTIO_BLK_H

#include "virtio/disk.h"
#include "virtio/virtio.h"

struct virtio_blk_options {
    struct disk *disk;   /* the device owns and closes it */
    const char *serial;  /* at most 20 bytes are shown; may be NULL */
    uint16_t num_queues; /* 0: one */
    uint16_t queue_size; /* a power of two, 4 .. 1024; 0: 256 */
};

/* free must be called without the lock. */
struct virtio_device *virtio_blk_new(GMutex *lock, struct mem *mem, const struct virtio_blk_options *options);

#endif
