/*
 * The TCP of local.h: the listening end only, on a wire that loses little and keeps the order.  Private to
 * local.c and tcp.c; everything within a burst.
 */
#ifndef ARMLET_NET_TCP_H
#define ARMLET_NET_TCP_H

#include "net/local.h"

enum { TCP_STREAMS_MAX = 64, TCP_FRAME_HEADERS = NIC_ETHERNET_HEADER + 20 + 20 };

struct local {
    struct net_tap tap;
    struct user_net *net;
    const struct local_ops *ops;
    void *opaque;
    uint16_t ports[8];
    unsigned n_ports;
    struct in_addr addr;
    uint8_t mac[NIC_MAC_SIZE]; /* ours, as the guest knows it */
    uint16_t ip_id;
    GPtrArray *streams; /* struct local_stream, least recently used first */
    uint64_t next_stream;
    GPtrArray *parts; /* struct partial: datagrams that come in fragments */
    uint8_t scratch[NIC_MAX_FRAME];
};

/* A TCP segment, with everything within its frame. */
struct tcp_segment {
    struct local_peer peer;
    uint32_t seq, ack;
    uint8_t flags;
    uint16_t window;
    const uint8_t *options;
    size_t options_len;
    uint8_t *data;
    size_t len;
};

void tcp_input(struct local *local, const struct tcp_segment *segment);
/* Sends what is due; returns as net_tap.work. */
int64_t tcp_work(struct local *local);
void tcp_close_all(struct local *local);

/* local.c: Ethernet and IPv4 headers at f, of a packet of `len' bytes from the IPv4 header on. */
void local_put_headers(struct local *local, uint8_t *f, const struct local_peer *peer, unsigned protocol,
                       size_t len);

static inline unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static inline uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static inline void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v & 0xffff);
}

#endif
