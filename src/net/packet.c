/*
 * See packet.h.  Nothing in a frame is believed before it is checked against the frame's length.
 *
 * Threading: pure.
 */
#include "net/packet.h"

#include <string.h>

enum { ETH = NIC_ETHERNET_HEADER, IP4_HEADER = 20, IP6_HEADER = 40, TCP_HEADER = 20, PROTO_TCP = 6 };
enum { TYPE_IP4 = 0x0800, TYPE_IP6 = 0x86dd, IP_DF = 0x4000, IP_MF = 0x2000, IP_OFFSET = 0x1fff };
enum { TCP_SYN = 2, OPT_END = 0, OPT_NOP = 1, OPT_MSS = 2 };

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

/* RFC 1624, eqn. 3 */
static void adjust_checksum(uint8_t *sum, unsigned from, unsigned to)
{
    uint32_t s = (~get16(sum) & 0xffff) + (~from & 0xffff) + to;

    s = (s & 0xffff) + (s >> 16);
    s = (s & 0xffff) + (s >> 16);
    put16(sum, ~s & 0xffff);
}

void packet_raise_mss(uint8_t *f, size_t len)
{
    size_t tcp = find_tcp(f, len), at, end;

    if (!tcp || !(f[tcp + 13] & TCP_SYN))
        return;
    end = tcp + (f[tcp + 12] >> 4) * 4u;
    for (at = tcp + TCP_HEADER; at < end && f[at] != OPT_END;) {
        if (f[at] == OPT_NOP) {
            at++;
        } else if (at + 2 > end || f[at + 1] < 2 || f[at + 1] > end - at) {
            return;
        } else if (f[at] == OPT_MSS && f[at + 1] == 4) {
            unsigned to = 65535 - (unsigned)(tcp - ETH) - TCP_HEADER;

            /* The sum is of words of the segment: at an odd place the bytes change sides. */
            if ((at - tcp) % 2 == 0) {
                adjust_checksum(f + tcp + 16, get16(f + at + 2), to);
                put16(f + at + 2, to);
            }
            return;
        } else {
            at += f[at + 1];
        }
    }
}

uint16_t packet_segment(const uint8_t *f, size_t len)
{
    size_t tcp = find_tcp(f, len);

    return tcp ? (uint16_t)(NIC_MTU - (tcp - ETH) - (f[tcp + 12] >> 4) * 4u) : 0;
}

static unsigned header_sum(const uint8_t *ip, unsigned len)
{
    uint32_t s = 0;

    for (unsigned i = 0; i < len; i += 2)
        s += get16(ip + i);
    s = (s & 0xffff) + (s >> 16);
    s = (s & 0xffff) + (s >> 16);
    return ~s & 0xffff;
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
        put16(ip + 10, header_sum(ip, head));
        send(opaque, out, ETH + head + part);
    }
    return true;
}
