/*
 * virtio over MMIO (VIRTIO 1.2, 4.2): one register frame, for one device or none.
 */
#ifndef ARMLET_VIRTIO_MMIO_H
#define ARMLET_VIRTIO_MMIO_H

#include "dev/device.h"
#include "virtio/virtio.h"

enum { VIRTIO_MMIO_SIZE = 0x200 };

/* legacy: version 1 of the registers (4.2.4), as QEMU's force-legacy=true; otherwise version 2. */
struct device *virtio_mmio_new(GMutex *lock, bool legacy);

/* Plugs vdev in; the frame owns it from then on.  Before the machine runs; BUG when there is one already. */
void virtio_mmio_attach(struct device *frame, struct virtio_device *vdev);

/* The device in it, or NULL. */
struct virtio_device *virtio_mmio_vdev(struct device *frame);

#endif
