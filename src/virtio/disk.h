/*
 * A disk image: a raw file or block device of the host, perhaps under a private copy-on-write overlay.
 *
 * Reads, writes and the rest may run on any threads at once.
 */
#ifndef ARMLET_VIRTIO_DISK_H
#define ARMLET_VIRTIO_DISK_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum disk_cache {
    DISK_WRITEBACK,    /* the host's page cache; a flush reaches the medium */
    DISK_WRITETHROUGH, /* each write reaches the medium before it is complete */
    DISK_UNSAFE        /* flushes are ignored */
};

struct disk_options {
    const char *path;
    bool readonly;
    bool snapshot; /* writes go to an unlinked temporary file and are forgotten in the end */
    bool unmap;    /* the guest's discards free space in the file */
    enum disk_cache cache;
};

struct disk;

/*
 * Returns 0, or -errno with *why (to be g_free()d) saying what could not be done, without the path.  -EBUSY:
 * another process writes to it.
 */
int disk_open(struct disk **disk, const struct disk_options *options, char **why);
/* Flushes too. NULL is allowed. */
void disk_close(struct disk *disk);

/* In bytes, a multiple of 512: a file that is none reads as zeros in its last sector. */
uint64_t disk_size(const struct disk *disk);
bool disk_readonly(const struct disk *disk);
enum disk_cache disk_cache(const struct disk *disk);

/* The whole of [off, off + len) or an error: 0 or -errno.  The range must lie within disk_size(). */
int disk_read(struct disk *disk, uint64_t off, const struct iovec *iov, unsigned n);
int disk_write(struct disk *disk, uint64_t off, const struct iovec *iov, unsigned n);
int disk_write_zeroes(struct disk *disk, uint64_t off, uint64_t len, bool may_unmap);
/* A hint: succeeds where the host cannot. */
int disk_discard(struct disk *disk, uint64_t off, uint64_t len);
/*
 * A snapshot's changes into the image, after which the overlay is empty again.  *bytes: how much was written.
 * Returns 0 or -errno: -EBUSY when another process uses the image, -EROFS.  A disk that is no snapshot has
 * nothing to commit.
 */
int disk_commit(struct disk *disk, uint64_t *bytes);
/* On return all completed writes are on the medium (but with DISK_UNSAFE or a snapshot). */
int disk_flush(struct disk *disk);

#endif
