/*
 * A tap on the wire between a card and the user-mode network: sees each frame, may change it or take it away.
 *
 * Both functions run within a burst (base/nic.h), on the network's thread or a vCPU's: they must not wait for
 * the guest or for the board's lock.  Work that takes long belongs on another thread, whose answer comes by
 * user_net_inject().
 */
#ifndef ARMLET_NET_TAP_H
#define ARMLET_NET_TAP_H

#include <stdint.h>

#include "base/nic.h"

struct net_tap {
    /*
     * frame->data may be changed in place, and frame->len made smaller.  frame->segment: a TCP segment longer
     * than the MTU.  true: the frame is taken, nobody else sees it.  Either function may be NULL.
     */
    bool (*from_guest)(struct net_tap *tap, struct nic_frame *frame);
    bool (*to_guest)(struct net_tap *tap, struct nic_frame *frame);
    /*
     * Called in each burst, when the guest's frames have been seen: to send what is ready, to look at the
     * clock. Returns when (g_get_monotonic_time(), us) to be called again at the latest; G_MAXINT64: only in
     * bursts.
     */
    int64_t (*work)(struct net_tap *tap);
    bool may_wait; /* its answers may depend on other machines: no vCPU serves it */
    bool watches;  /* takes and changes nothing: sees what the other taps inject, too */
};

#endif
