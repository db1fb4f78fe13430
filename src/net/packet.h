/*
 * What the glue has to know of IP and TCP: maximum segment sizes, and fragments.
 */
#ifndef ARMLET_NET_PACKET_H
#define ARMLET_NET_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/nic.h"

/*
 * Raises the MSS that a TCP SYN offers to what an IP packet can hold, so that the other side makes large segments.
 * Anything else is left alone, malformed frames included.
 */
void packet_raise_mss(uint8_t *frame, size_t len);

/* The payload size of MTU-sized segments, when the frame is a whole TCP segment (not a fragment); otherwise 0. */
uint16_t packet_segment(const uint8_t *frame, size_t len);

/*
 * Calls send for each MTU-sized fragment of an IPv4 frame (RFC 791 3.2), in a buffer that is valid for the call.
 * false: the frame cannot be fragmented.
 */
bool packet_fragment(const uint8_t *frame, size_t len, void (*send)(void *opaque, uint8_t *data, size_t len),
                     void *opaque);

#endif
