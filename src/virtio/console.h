/*
 * virtio console device (VIRTIO 1.2, 5.3): -device virtio-serial-device, and in it virtconsole and
 * virtserialport.
 */
#ifndef ARMLET_VIRTIO_CONSOLE_H
#define ARMLET_VIRTIO_CONSOLE_H

#include "base/chardev.h"
#include "virtio/virtio.h"

enum { VIRTIO_SERIAL_MAX_PORTS = 31 };

/* max_ports: 1 .. VIRTIO_SERIAL_MAX_PORTS, or 0 for as many as there can be. */
struct virtio_device *virtio_serial_new(GMutex *lock, struct mem *mem, unsigned max_ports);

struct virtio_port_options {
    bool console;        /* virtconsole: a terminal in the guest (hvcN); else virtserialport (vportNpM) */
    const char *name;    /* how the guest finds it (/dev/virtio-ports/NAME); may be NULL */
    struct chardev *chr; /* stays the caller's and must outlive the device; may be NULL */
    int nr;              /* which port; -1: the next free, where 0 is for a console only */
};

/*
 * Before the machine runs.  Returns the port's number; -EBUSY: it is taken; -ENOSPC: none is left; -EINVAL:
 * there is no such number.
 */
int virtio_serial_add_port(struct virtio_device *vdev, const struct virtio_port_options *options);

#endif
