/*
 * virtio memory balloon (VIRTIO 1.2, 5.5): the guest gives memory back to the host.
 */
#ifndef ARMLET_VIRTIO_BALLOON_H
#define ARMLET_VIRTIO_BALLOON_H

#include "virtio/virtio.h"

struct virtio_balloon_options {
    bool deflate_on_oom;      /* the guest may take memory back rather than kill programs */
    bool free_page_reporting; /* the guest says what it does not use, unasked */
};

struct virtio_device *virtio_balloon_new(GMutex *lock, struct mem *mem,
                                         const struct virtio_balloon_options *options);

/* For a device of virtio_balloon_new() only.  Asks the guest to live with that many bytes. */
void virtio_balloon_set(struct virtio_device *vdev, uint64_t bytes);
/* What it has now, in bytes. */
uint64_t virtio_balloon_get(const struct virtio_device *vdev);

#endif
