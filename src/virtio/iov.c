/*
 * Walking struct iovec lists.  Pure.
 */
#include "virtio/iov.h"

#include <stdint.h>
#include <string.h>

size_t iov_size(const struct iovec *iov, unsigned n)
{
    size_t total = 0;

    for (unsigned i = 0; i < n; i++)
        total += iov[i].iov_len;
    return total;
}

/* The next piece of [off, off + len): false at the end of either. */
struct cursor {
    const struct iovec *iov;
    unsigned n;
    size_t off, len;
};

static int next_piece(struct cursor *c, struct iovec *piece)
{
    while (c->n && c->off >= c->iov->iov_len) {
        c->off -= c->iov->iov_len;
        c->iov++;
        c->n--;
    }
    if (!c->n || !c->len)
        return 0;
    piece->iov_base = (uint8_t *)c->iov->iov_base + c->off;
    piece->iov_len = c->iov->iov_len - c->off;
    if (piece->iov_len > c->len)
        piece->iov_len = c->len;
    c->off += piece->iov_len;
    c->len -= piece->iov_len;
    return 1;
}

size_t iov_read(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len)
{
    struct cursor c = {iov, n, off, len};
    struct iovec piece;
    size_t done = 0;

    for (; next_piece(&c, &piece); done += piece.iov_len)
        memcpy((uint8_t *)buf + done, piece.iov_base, piece.iov_len);
    return done;
}

size_t iov_write(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len)
{
    struct cursor c = {iov, n, off, len};
    struct iovec piece;
    size_t done = 0;

    for (; next_piece(&c, &piece); done += piece.iov_len)
        memcpy(piece.iov_base, (const uint8_t *)buf + done, piece.iov_len);
    return done;
}

size_t iov_zero(const struct iovec *iov, unsigned n, size_t off, size_t len)
{
    struct cursor c = {iov, n, off, len};
    struct iovec piece;
    size_t done = 0;

    for (; next_piece(&c, &piece); done += piece.iov_len)
        memset(piece.iov_base, 0, piece.iov_len);
    return done;
}

unsigned iov_slice(const struct iovec *iov, unsigned n, size_t off, size_t len, struct iovec *out)
{
    struct cursor c = {iov, n, off, len};
    unsigned pieces = 0;

    while (next_piece(&c, &out[pieces]))
        pieces++;
    return pieces;
}
