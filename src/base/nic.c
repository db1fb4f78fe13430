/*
 * The Internet checksum (RFC 1071), for cards and networks.
 *
 * Threading: pure.
 */
#include "base/nic.h"

#include <string.h>

uint64_t nic_sum_add(uint64_t sum, const uint8_t *p, size_t len)
{
    uint64_t high = 0;

    for (; len >= 32; p += 32, len -= 32) {
        uint64_t w[4];

        memcpy(w, p, 32);
        for (unsigned i = 0; i < 4; i++) {
            sum += w[i] & UINT32_MAX;
            high += w[i] >> 32;
        }
    }
    sum += high;
    for (; len >= 2; p += 2, len -= 2) {
        uint16_t w;

        memcpy(&w, p, 2);
        sum += w;
    }
    if (len) {
        uint16_t w = 0;

        memcpy(&w, p, 1);
        sum += w;
    }
    return sum;
}

uint16_t nic_sum_fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

bool nic_finish_sum(struct nic_frame *f)
{
    uint16_t sum;

    if (!f->sum_start)
        return true;
    if (f->sum_start >= f->len || f->sum_offset + 2u > f->len - f->sum_start)
        return false;
    sum = (uint16_t)~nic_sum_fold(nic_sum_add(0, f->data + f->sum_start, f->len - f->sum_start));
    if (!sum)
        sum = 0xffff; /* for UDP 0 would mean "none"; for TCP the two are one */
    memcpy(f->data + f->sum_start + f->sum_offset, &sum, 2);
    f->sum_start = 0;
    return true;
}
