/*
 * Services at the host's address: which frames are theirs, and UDP.  See local.h; TCP is in tcp.c.
 *
 * A datagram in fragments is put together if its first fragment comes first, as Linux sends them; fragments
 * that belong to nothing known go to libslirp.  Checksums of what the guest sends are not looked at: between
 * its memory and this program nothing can spoil them.  Sent datagrams have none (RFC 768 allows that).
 *
 * Threading: see local.h.
 */
#include "net/local.h"

#include <string.h>

#include "base/compiler.h"
#include "base/report.h"
#include "net/tcp.h"

enum {
    ETH = NIC_ETHERNET_HEADER,
    TYPE_IP4 = 0x0800,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
    IP_HEADER = 20,
    UDP_HEADER = 8
};
enum { IP_MF = 0x2000, IP_OFFSET = 0x1fff, TTL = 64 };
enum { PARTS_MAX = 16, PART_SIZE = 65536 };
#define PART_US INT64_C(5000000)

/* A datagram of which fragments are missing (RFC 791 3.2). */
struct partial {
    struct local_peer peer; /* ports as of the first fragment */
    uint16_t id;
    int64_t since;               /* us */
    size_t have, total;          /* total 0: the last fragment has not come */
    uint8_t map[PART_SIZE / 64]; /* a bit for 8 bytes */
    uint8_t data[PART_SIZE];
};

/* --- headers ----------------------------------------------------------------------------------------------
 */

void local_put_headers(struct local *l, uint8_t *f, const struct local_peer *peer, unsigned protocol,
                       size_t len)
{
    uint8_t *ip = f + ETH;
    uint16_t sum;

    memcpy(f, peer->mac, NIC_MAC_SIZE);
    memcpy(f + NIC_MAC_SIZE, l->mac, NIC_MAC_SIZE);
    put16(f + 12, TYPE_IP4);
    memset(ip, 0, IP_HEADER);
    ip[0] = 0x45;
    put16(ip + 2, (unsigned)len);
    put16(ip + 4, l->ip_id++);
    ip[8] = TTL;
    ip[9] = (uint8_t)protocol;
    memcpy(ip + 12, &l->addr, 4);
    memcpy(ip + 16, &peer->addr, 4);
    sum = (uint16_t)~nic_sum_fold(nic_sum_add(0, ip, IP_HEADER));
    memcpy(ip + 10, &sum, 2);
}

static bool is_ours(const struct local *l, unsigned port)
{
    for (unsigned i = 0; i < l->n_ports; i++)
        if (l->ports[i] == port)
            return true;
    return false;
}

/* --- datagrams --------------------------------------------------------------------------------------------
 */

void local_send_datagram(struct local *l, const struct local_peer *peer, const void *data, size_t len)
{
    struct nic_frame f = {l->scratch, ETH + IP_HEADER + UDP_HEADER + len, 0};
    uint8_t *udp = l->scratch + ETH + IP_HEADER;

    if (len > LOCAL_DATAGRAM_MAX)
        return;
    local_put_headers(l, l->scratch, peer, PROTO_UDP, f.len - ETH);
    put16(udp, peer->local_port);
    put16(udp + 2, peer->port);
    put16(udp + 4, (unsigned)(UDP_HEADER + len));
    put16(udp + 6, 0);
    memcpy(udp + UDP_HEADER, data, len);
    user_net_send(l->net, &f);
}

static void deliver(struct local *l, const struct local_peer *peer, const uint8_t *udp, size_t len)
{
    size_t said = len >= UDP_HEADER ? get16(udp + 4) : 0;

    if (said >= UDP_HEADER && said <= len)
        l->ops->datagram(l->opaque, peer, udp + UDP_HEADER, said - UDP_HEADER);
}

static struct partial *find_part(struct local *l, const struct local_peer *peer, unsigned id)
{
    int64_t now = g_get_monotonic_time();

    for (guint i = l->parts->len; i-- > 0;) {
        struct partial *p = g_ptr_array_index(l->parts, i);

        if (now - p->since > PART_US)
            g_ptr_array_remove_index(l->parts, i);
        else if (p->id == id && p->peer.addr.s_addr == peer->addr.s_addr)
            return p;
    }
    return NULL;
}

static struct partial *begin_part(struct local *l, const struct local_peer *peer, unsigned id)
{
    struct partial *p = g_new0(struct partial, 1);

    if (l->parts->len >= PARTS_MAX)
        g_ptr_array_remove_index(l->parts, 0);
    p->peer = *peer;
    p->id = (uint16_t)id;
    p->since = g_get_monotonic_time();
    g_ptr_array_add(l->parts, p);
    return p;
}

/* false: nonsense, or something that came already. */
static bool add_fragment(struct partial *p, size_t at, const uint8_t *data, size_t len, bool more)
{
    if (at + len > PART_SIZE || !len || (more && len % 8) || (p->total && at + len > p->total) ||
        (!more && p->total))
        return false;
    for (size_t i = at / 8; i < (at + len + 7) / 8; i++) {
        if (p->map[i / 8] & 1u << i % 8)
            return false;
        p->map[i / 8] |= (uint8_t)(1u << i % 8);
    }
    memcpy(p->data + at, data, len);
    p->have += len;
    if (!more)
        p->total = at + len;
    return true;
}

/* One fragment; true: it is ours. */
static bool take_fragment(struct local *l, struct local_peer *peer, const uint8_t *ip, const uint8_t *data,
                          size_t len)
{
    unsigned where = get16(ip + 6), id = get16(ip + 4);
    struct partial *p = find_part(l, peer, id);

    if (!(where & IP_OFFSET)) {
        if (len < UDP_HEADER || !is_ours(l, get16(data + 2)))
            return false;
        if (p)
            g_ptr_array_remove(l->parts, p);
        p = begin_part(l, peer, id);
        p->peer.port = (uint16_t)get16(data);
        p->peer.local_port = (uint16_t)get16(data + 2);
    }
    if (!p)
        return false;
    if (!add_fragment(p, (where & IP_OFFSET) * 8, data, len, where & IP_MF)) {
        g_ptr_array_remove(l->parts, p);
    } else if (p->have == p->total) {
        deliver(l, &p->peer, p->data, p->total);
        g_ptr_array_remove(l->parts, p);
    }
    return true;
}

static bool take_udp(struct local *l, struct local_peer *peer, const uint8_t *ip, const uint8_t *udp,
                     size_t len)
{
    if (get16(ip + 6) & (IP_MF | IP_OFFSET))
        return take_fragment(l, peer, ip, udp, len);
    if (len < UDP_HEADER || !is_ours(l, get16(udp + 2)))
        return false;
    peer->port = (uint16_t)get16(udp);
    peer->local_port = (uint16_t)get16(udp + 2);
    deliver(l, peer, udp, len);
    return true;
}

/* --- streams ----------------------------------------------------------------------------------------------
 */

static bool take_tcp(struct local *l, const struct local_peer *peer, const uint8_t *ip, uint8_t *tcp,
                     size_t len)
{
    struct tcp_segment s = {.peer = *peer};
    size_t head = len >= 20 ? (tcp[12] >> 4) * 4u : 0;

    if (len < 20 || !is_ours(l, get16(tcp + 2)))
        return false;
    if (head < 20 || head > len || (get16(ip + 6) & (IP_MF | IP_OFFSET)))
        return true;
    s.peer.port = (uint16_t)get16(tcp);
    s.peer.local_port = (uint16_t)get16(tcp + 2);
    s.seq = get32(tcp + 4);
    s.ack = get32(tcp + 8);
    s.flags = tcp[13];
    s.window = (uint16_t)get16(tcp + 14);
    s.options = tcp + 20;
    s.options_len = head - 20;
    s.data = tcp + head;
    s.len = len - head;
    tcp_input(l, &s);
    return true;
}

/* --- the tap ----------------------------------------------------------------------------------------------
 */

static bool from_guest(struct net_tap *tap, struct nic_frame *f)
{
    struct local *l = CONTAINER_OF(tap, struct local, tap);
    uint8_t *ip = f->data + ETH;
    struct local_peer peer = {0};
    size_t head, total;

    if (f->len < ETH + IP_HEADER || get16(f->data + 12) != TYPE_IP4 || memcmp(ip + 16, &l->addr, 4))
        return false;
    head = (ip[0] & 15u) * 4;
    total = get16(ip + 2);
    if (ip[0] >> 4 != 4 || head < IP_HEADER || total < head || total > f->len - ETH)
        return false;
    memcpy(peer.mac, f->data + NIC_MAC_SIZE, NIC_MAC_SIZE);
    memcpy(l->mac, f->data, NIC_MAC_SIZE);
    memcpy(&peer.addr, ip + 12, 4);
    if (ip[9] == PROTO_UDP)
        return take_udp(l, &peer, ip, ip + head, total - head);
    return ip[9] == PROTO_TCP && take_tcp(l, &peer, ip, ip + head, total - head);
}

static int64_t work(struct net_tap *tap)
{
    struct local *l = CONTAINER_OF(tap, struct local, tap);
    int64_t service = l->ops->work(l->opaque), tcp = tcp_work(l);

    return MIN(service, tcp);
}

/* --- life -------------------------------------------------------------------------------------------------
 */

struct local *local_new(struct user_net *net, const uint16_t *ports, unsigned n, const struct local_ops *ops,
                        void *opaque)
{
    struct local *l = g_new0(struct local, 1);

    BUG_ON(n > ARRAY_LEN(l->ports));
    l->tap = (struct net_tap){.from_guest = from_guest, .work = work};
    l->net = net;
    l->ops = ops;
    l->opaque = opaque;
    memcpy(l->ports, ports, n * sizeof(ports[0]));
    l->n_ports = n;
    l->addr = user_net_host(net);
    l->streams = g_ptr_array_new();
    l->parts = g_ptr_array_new_with_free_func(g_free);
    user_net_add_tap(net, &l->tap);
    return l;
}

void local_free(struct local *l)
{
    if (!l)
        return;
    user_net_remove_tap(l->net, &l->tap);
    tcp_close_all(l);
    g_ptr_array_free(l->streams, TRUE);
    g_ptr_array_free(l->parts, TRUE);
    g_free(l);
}

void local_kick(struct local *l)
{
    user_net_kick(l->net);
}

void local_may_wait(struct local *l)
{
    l->tap.may_wait = true;
}
