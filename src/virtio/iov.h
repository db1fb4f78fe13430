/*
 * Lists of host memory pieces (struct iovec) as a guest's buffers become.
 */
#ifndef ARMLET_VIRTIO_IOV_H
#define ARMLET_VIRTIO_IOV_H

#include <stddef.h>
#include <sys/uio.h>

size_t iov_size(const struct iovec *iov, unsigned n);

/*
 * Copy between buf and the bytes off .. off+len-1 of the list; return how many there were (less at the list's
 * end).
 */
size_t iov_read(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len);
size_t iov_write(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len);

/* Zero bytes off .. off+len-1; returns how many there were. */
size_t iov_zero(const struct iovec *iov, unsigned n, size_t off, size_t len);

/*
 * The bytes off .. off+len-1 as a list of its own in `out', which has room for n pieces; returns how many it
 * took.
 */
unsigned iov_slice(const struct iovec *iov, unsigned n, size_t off, size_t len, struct iovec *out);

#endif
