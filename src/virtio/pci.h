/*
 * virtio over PCI (VIRTIO 1.2, 4.1): the modern interface, the legacy one (4.1.4.10), or both (transitional).
 */
#ifndef ARMLET_VIRTIO_PCI_H
#define ARMLET_VIRTIO_PCI_H

#include "dev/pci.h"
#include "virtio/virtio.h"

struct virtio_pci_options {
    bool modern, legacy; /* at least one */
    int slot;            /* 1 .. 31, or -1: the lowest that is free */
    int vectors;         /* of MSI-X, 0 (none) .. 128; -1: one a queue and one for the configuration */
    bool rom;            /* an expansion ROM, empty, as network cards have one */
};

/*
 * Plugs vdev into the host bridge, which owns it from then on.  Returns the slot, or -errno as pci_plug();
 * vdev is then the caller's still.
 */
int virtio_pci_plug(struct device *host, struct virtio_device *vdev,
                    const struct virtio_pci_options *options);

#endif
