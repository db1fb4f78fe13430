/*
 * virtio 9P transport: a directory of the host, as -fsdev local and -device virtio-9p-device or -pci make it.
 */
#ifndef ARMLET_VIRTIO_9P_H
#define ARMLET_VIRTIO_9P_H

#include "virtio/9p_fs.h"
#include "virtio/virtio.h"

enum { VIRTIO_9P_TAG_MAX = 32 };

/* fs stays the caller's and must outlive the device; tag has 1 to VIRTIO_9P_TAG_MAX bytes. */
struct virtio_device *virtio_9p_new(GMutex *lock, struct mem *mem, struct p9_fs *fs, const char *tag);

#endif
