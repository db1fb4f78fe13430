/*
 * An Ethernet card and the network behind it: what the two know of each other.
 *
 * The network has a thread of its own, which works in bursts: begin, any number of transmit and receive, end.
 * Within a burst the card holds buffers of the guest and no lock; the network must not wait there for
 * anything that could wait for the guest or for the board's lock.
 *
 * A short burst can also be served on the thread of the vCPU that asks for it, under the board's lock: what this
 * program answers itself (files over NFS) then costs no change of threads there and back, which takes longer
 * than most answers.
 */
#ifndef ARMLET_BASE_NIC_H
#define ARMLET_BASE_NIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NIC_MAX_FRAME = 65536 + 14, NIC_MTU = 1500, NIC_ETHERNET_HEADER = 14, NIC_MAC_SIZE = 6 };

struct nic_frame {
    uint8_t *data; /* from the Ethernet header on, without a checksum behind it */
    size_t len;    /* at most NIC_MAX_FRAME */
    /*
     * 0, or the frame is one TCP segment that stands for several with so many bytes of payload each.
     * Checksums are right as of the whole.
     */
    uint16_t segment;
    /*
     * Not 0: the transport's checksum is still to be made, of everything from here (a byte of data) on; it goes
     * sum_offset bytes further, where the pseudo header's sum is now (VIRTIO 1.2 5.1.6.2).
     */
    uint16_t sum_start, sum_offset;
};

/* Sums of 16-bit words in memory order (RFC 1071): any number of adds, then the fold. */
uint64_t nic_sum_add(uint64_t sum, const uint8_t *p, size_t len);
uint16_t nic_sum_fold(uint64_t sum);
/* Makes the checksum that sum_start asks for, if it does; false: it is not within the frame. */
bool nic_finish_sum(struct nic_frame *frame);

struct nic;
struct net_port;

/* The card; within a burst. */
struct nic_ops {
    void (*begin)(struct nic *nic);
    /* The guest's next frame, whose data stay valid and may be changed until the next call; false: there is
     * none. */
    bool (*transmit)(struct nic *nic, struct nic_frame *frame);
    /* A frame for the guest, copied; it is lost when there is no room for it.  May change frame->data. */
    void (*receive)(struct nic *nic, struct nic_frame *frame);
    /* Does the guest take frames with a `segment'? */
    bool (*takes_large)(struct nic *nic);
    /* true: there is more to do, begin again. */
    bool (*end)(struct nic *nic);
};

struct nic {
    const struct nic_ops *ops;
    struct net_port *port; /* NULL: no cable */
};

/* The network, as the card sees it. */
struct net_port_ops {
    /* Bursts begin; nic stays the caller's. */
    void (*attach)(struct net_port *port, struct nic *nic);
    /* Returns when there are no more bursts.  Without the board's lock. */
    void (*detach)(struct net_port *port);
    /* Asks for a burst soon.  Any thread, cheap, with or without locks. */
    void (*kick)(struct net_port *port);
    /*
     * A burst now, on this thread, with the board's lock held; what is left is for the network's thread, which is
     * told.  false: better as usual; nothing was done.  NULL: never.
     */
    bool (*serve)(struct net_port *port);
};

struct net_port {
    const struct net_port_ops *ops;
};

#endif
