/*
 * See packet.h.  Nothing in a frame is believed before it is checked against the frame's length.
 *
 * Threading: pure.
 */
#include "net/packet.h"

#include <string.h>

enum { ETH = NIC_ETHERNET_HEADER, IP4_HEADER = 20, IP6_HEADER = 40, TCP_HEADER = 20, PROTO_TCP = 6 };
enum { TYPE_IP4 = 0x0800, TYPE_IP6 = 0x86dd, IP_DF = 0x4000, IP_MF = 0x2000, IP_OFFSET = 0x1fff };
enum { TCP_FIN = 1, TCP_PSH = 8 };

static unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* Where the TCP header begins, with all of it within the frame; 0: there is none. */
static size_t find_tcp(const uint8_t *f, size_t len)
{
    size_t at;

    if (len < ETH + IP4_HEADER)
        return 0;
    if (get16(f + 12) == TYPE_IP4) {
        at = ETH + (f[ETH] & 15u) * 4;
        if (f[ETH] >> 4 != 4 || at < ETH + IP4_HEADER || f[ETH + 9] != PROTO_TCP ||
            (get16(f + ETH + 6) & (IP_MF | IP_OFFSET)))
            return 0;
    } else {
        at = ETH + IP6_HEADER;
        if (get16(f + 12) != TYPE_IP6 || len < at || f[ETH + 6] != PROTO_TCP)
            return 0;
    }
    if (len < at + TCP_HEADER || (f[at + 12] >> 4) * 4u < TCP_HEADER || len < at + (f[at + 12] >> 4) * 4u)
        return 0;
    return at;
}

uint16_t packet_segment(const uint8_t *f, size_t len)
{
    size_t tcp = find_tcp(f, len);

    return tcp ? (uint16_t)(NIC_MTU - (tcp - ETH) - (f[tcp + 12] >> 4) * 4u) : 0;
}

static uint32_t sum_words(uint32_t sum, const uint8_t *p, size_t len)
{
    size_t i;

    for (i = 0; i + 1 < len; i += 2)
        sum += get16(p + i);
    return len % 2 ? sum + ((uint32_t)p[i] << 8) : sum;
}

/* RFC 1071; len of at most 64 KiB does not overflow the sum. */
static unsigned checksum(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

/* Length, identification and sums of piece n of a TCP segment whose headers out begins with. */
static void finish_piece(uint8_t *out, size_t tcp, size_t len, unsigned n)
{
    uint8_t *ip = out + ETH;
    bool v4 = get16(out + 12) == TYPE_IP4;
    uint32_t sum = sum_words(PROTO_TCP + (uint32_t)(len - tcp), ip + (v4 ? 12 : 8), v4 ? 8 : 32);

    if (v4) {
        put16(ip + 2, (unsigned)(len - ETH));
        put16(ip + 4, get16(ip + 4) + n);
        put16(ip + 10, 0);
        put16(ip + 10, checksum(sum_words(0, ip, tcp - ETH)));
    } else {
        put16(ip + 4, (unsigned)(len - ETH - IP6_HEADER));
    }
    put16(out + tcp + 16, 0);
    put16(out + tcp + 16, checksum(sum_words(sum, out + tcp, len - tcp)));
}

bool packet_split(const uint8_t *f, size_t len, void (*send)(void *, uint8_t *, size_t), void *opaque)
{
    uint8_t out[ETH + NIC_MTU];
    size_t tcp = find_tcp(f, len), head, size, part, most;

    if (!tcp)
        return false;
    head = tcp + (f[tcp + 12] >> 4) * 4u;
    most = ETH + NIC_MTU - head;
    size = len - head;
    for (size_t at = 0; at < size; at += part) {
        uint32_t seq;

        part = size - at < most ? size - at : most;
        memcpy(out, f, head);
        memcpy(out + head, f + head + at, part);
        seq = (get16(out + tcp + 4) << 16 | get16(out + tcp + 6)) + (uint32_t)at;
        put16(out + tcp + 4, seq >> 16);
        put16(out + tcp + 6, seq & 0xffff);
        if (at + part < size)
            out[tcp + 13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
        finish_piece(out, tcp, head + part, (unsigned)(at / most));
        send(opaque, out, head + part);
    }
    return true;
}

bool packet_fragment(const uint8_t *f, size_t len, void (*send)(void *, uint8_t *, size_t), void *opaque)
{
    uint8_t out[ETH + NIC_MTU], *ip = out + ETH;
    unsigned head, total, flags, part;

    if (len < ETH + IP4_HEADER || get16(f + 12) != TYPE_IP4 || f[ETH] != 0x45)
        return false; /* options would have to be sorted into those that are copied and those that are not */
    head = IP4_HEADER;
    total = get16(f + ETH + 2);
    flags = get16(f + ETH + 6);
    if (total < head || total > len - ETH || (flags & IP_OFFSET))
        return false;
    memcpy(out, f, ETH + head);
    for (unsigned at = 0; at < total - head; at += part) {
        unsigned left = total - head - at, most = (NIC_MTU - head) & ~7u;

        part = left < most ? left : most;
        memcpy(ip + head, f + ETH + head + at, part);
        put16(ip + 2, head + part);
        put16(ip + 6, at / 8 | (left > part || (flags & IP_MF) ? IP_MF : 0));
        put16(ip + 10, 0);
        put16(ip + 10, checksum(sum_words(0, ip, head)));
        send(opaque, out, ETH + head + part);
    }
    return true;
}
