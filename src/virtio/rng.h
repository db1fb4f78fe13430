/*
 * virtio entropy device (VIRTIO 1.2, 5.4).
 */
#ifndef ARMLET_VIRTIO_RNG_H
#define ARMLET_VIRTIO_RNG_H

#include "virtio/virtio.h"

/* At most max_bytes in each period of period_ms milliseconds; max_bytes 0: no limit. */
struct virtio_rng_options {
    uint64_t max_bytes;
    uint32_t period_ms;
};

struct virtio_device *virtio_rng_new(GMutex *lock, struct mem *mem, const struct virtio_rng_options *options);

#endif
