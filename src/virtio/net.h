/*
 * virtio network device (VIRTIO 1.2, 5.1).
 */
#ifndef ARMLET_VIRTIO_NET_H
#define ARMLET_VIRTIO_NET_H

#include "base/nic.h"
#include "virtio/virtio.h"

struct virtio_net_options {
    uint8_t mac[NIC_MAC_SIZE];
    struct net_port *port; /* stays the caller's and must outlive the device; NULL: no cable */
    bool no_csum, no_guest_csum, no_tso, no_guest_tso, no_mergeable; /* features that shall not be offered */
};

struct virtio_device *virtio_net_new(GMutex *lock, struct mem *mem, const struct virtio_net_options *options);

#endif
