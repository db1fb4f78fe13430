/*
 * What the glue has to know of IP and TCP: how packets above the MTU are cut.
 */
#ifndef ARMLET_NET_PACKET_H
#define ARMLET_NET_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/nic.h"

/* The payload size of MTU-sized segments, when the frame is a whole TCP segment (not a fragment); otherwise
 * 0. */
uint16_t packet_segment(const uint8_t *frame, size_t len);

/*
 * Calls send for each MTU-sized fragment of an IPv4 frame (RFC 791 3.2), in a buffer that is valid for the
 * call. false: the frame cannot be fragmented.
 */
bool packet_fragment(const uint8_t *frame, size_t len, void (*send)(void *opaque, uint8_t *data, size_t len),
                     void *opaque);

/* The same for a TCP segment over IPv4 or IPv6: smaller segments, with their checksums. */
bool packet_split(const uint8_t *frame, size_t len, void (*send)(void *opaque, uint8_t *data, size_t len),
                  void *opaque);

#endif
