/*
 * Raw images, and the overlay of -snapshot.
 *
 * The overlay is a sparse file of the disk's size with the data at its own place, and a bitmap of the
 * clusters that are in it.  A write that covers a cluster only in part copies the rest up first.
 *
 * Left out: O_DIRECT, image formats other than raw.
 *
 * Threading: a reader lock around reads and a writer lock around writes when there is an overlay; none
 * otherwise.
 */
#include "virtio/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "virtio/iov.h"

enum { SECTOR = 512, CLUSTER = 4096, MAX_PIECES = 1024 };

struct disk {
    int fd;
    uint64_t size; /* a multiple of SECTOR */
    bool readonly, unmap;
    enum disk_cache cache;
    int overlay; /* -1: none */
    uint64_t *in_overlay; /* a bit a cluster */
    GRWLock lock;
};

/* --- one file ------------------------------------------------------------------------------------------- */

/* Moves the whole list; in a read, what lies behind the end of the file is zeros. */
static int transfer(int fd, bool writing, uint64_t off, const struct iovec *iov, unsigned n)
{
    struct iovec rest[MAX_PIECES];
    size_t total = iov_size(iov, n), done = 0;

    while (done < total) {
        unsigned pieces = iov_slice(iov, n, done, total - done, rest);
        ssize_t r = writing ? pwritev(fd, rest, (int)pieces, (off_t)(off + done))
                            : preadv(fd, rest, (int)pieces, (off_t)(off + done));

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0 && writing)
            return -EIO;
        if (r == 0) {
            iov_zero(iov, n, done, total - done);
            return 0;
        }
        done += (size_t)r;
    }
    return 0;
}

static int write_zero_bytes(int fd, uint64_t off, uint64_t len)
{
    static uint8_t zeros[65536];

    while (len) {
        struct iovec iov = {zeros, MIN(len, sizeof(zeros))};
        int r = transfer(fd, true, off, &iov, 1);

        if (r < 0)
            return r;
        off += iov.iov_len;
        len -= iov.iov_len;
    }
    return 0;
}

static bool unsupported(int error)
{
    return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV || error == ENOTTY;
}

static int change_range(int fd, int mode, uint64_t off, uint64_t len)
{
    int r;

    do
        r = fallocate(fd, mode, (off_t)off, (off_t)len);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int zero_file_range(int fd, uint64_t off, uint64_t len, bool may_unmap)
{
    int r = -EOPNOTSUPP;

    if (may_unmap)
        r = change_range(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
    if (r < 0 && unsupported(-r))
        r = change_range(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len);
    if (r < 0 && unsupported(-r))
        r = write_zero_bytes(fd, off, len);
    return r;
}

static int sync_file(int fd)
{
    return fdatasync(fd) < 0 ? -errno : 0;
}

/* --- the overlay ---------------------------------------------------------------------------------------- */

static bool has_cluster(const struct disk *d, uint64_t c)
{
    return bits_test(d->in_overlay[c / 64], (unsigned)(c % 64));
}

static void add_clusters(struct disk *d, uint64_t off, uint64_t len)
{
    for (uint64_t c = off / CLUSTER; c <= (off + len - 1) / CLUSTER; c++)
        d->in_overlay[c / 64] |= BIT(c % 64);
}

/* The length of the run from off on that is in the same file throughout, at most len. */
static uint64_t run_length(const struct disk *d, uint64_t off, uint64_t len)
{
    uint64_t c = off / CLUSTER, end = off + len;
    bool in = has_cluster(d, c);

    for (c++; c * CLUSTER < end; c++) {
        if (has_cluster(d, c) != in)
            return c * CLUSTER - off;
    }
    return len;
}

static int read_overlaid(struct disk *d, uint64_t off, const struct iovec *iov, unsigned n)
{
    struct iovec part[MAX_PIECES];
    uint64_t total = iov_size(iov, n), len;
    int r = 0;

    for (uint64_t done = 0; done < total && r == 0; done += len) {
        int fd = has_cluster(d, (off + done) / CLUSTER) ? d->overlay : d->fd;

        len = run_length(d, off + done, total - done);
        r = transfer(fd, false, off + done, part, iov_slice(iov, n, done, len, part));
    }
    return r;
}

/* The cluster around off is about to be written in part. */
static int copy_up(struct disk *d, uint64_t off)
{
    uint64_t start = off / CLUSTER * CLUSTER;
    uint8_t buf[CLUSTER];
    struct iovec iov = {buf, MIN(CLUSTER, d->size - start)};
    int r;

    if (has_cluster(d, off / CLUSTER))
        return 0;
    r = transfer(d->fd, false, start, &iov, 1);
    if (r == 0)
        r = transfer(d->overlay, true, start, &iov, 1);
    if (r == 0)
        add_clusters(d, start, 1);
    return r;
}

static int copy_up_ends(struct disk *d, uint64_t off, uint64_t len)
{
    uint64_t end = off + len;
    int r = 0;

    if (off % CLUSTER)
        r = copy_up(d, off);
    if (r == 0 && end % CLUSTER && end != d->size)
        r = copy_up(d, end);
    return r;
}

static int write_overlay(struct disk *d, uint64_t off, const struct iovec *iov, unsigned n)
{
    uint64_t len = iov_size(iov, n);
    int r;

    if (!len)
        return 0;
    g_rw_lock_writer_lock(&d->lock);
    r = copy_up_ends(d, off, len);
    if (r == 0)
        r = transfer(d->overlay, true, off, iov, n);
    if (r == 0)
        add_clusters(d, off, len);
    g_rw_lock_writer_unlock(&d->lock);
    return r;
}

static int zero_overlay(struct disk *d, uint64_t off, uint64_t len)
{
    int r;

    g_rw_lock_writer_lock(&d->lock);
    r = copy_up_ends(d, off, len);
    if (r == 0)
        r = zero_file_range(d->overlay, off, len, true);
    if (r == 0)
        add_clusters(d, off, len);
    g_rw_lock_writer_unlock(&d->lock);
    return r;
}

/* --- what devices call ---------------------------------------------------------------------------------- */

int disk_read(struct disk *d, uint64_t off, const struct iovec *iov, unsigned n)
{
    int r;

    if (d->overlay < 0)
        return transfer(d->fd, false, off, iov, n);
    g_rw_lock_reader_lock(&d->lock);
    r = read_overlaid(d, off, iov, n);
    g_rw_lock_reader_unlock(&d->lock);
    return r;
}

static int write_through(struct disk *d, int r)
{
    return r == 0 && d->cache == DISK_WRITETHROUGH ? sync_file(d->fd) : r;
}

int disk_write(struct disk *d, uint64_t off, const struct iovec *iov, unsigned n)
{
    if (d->readonly)
        return -EROFS;
    if (d->overlay >= 0)
        return write_overlay(d, off, iov, n);
    return write_through(d, transfer(d->fd, true, off, iov, n));
}

int disk_write_zeroes(struct disk *d, uint64_t off, uint64_t len, bool may_unmap)
{
    if (d->readonly)
        return -EROFS;
    if (!len)
        return 0;
    if (d->overlay >= 0)
        return zero_overlay(d, off, len);
    return write_through(d, zero_file_range(d->fd, off, len, may_unmap && d->unmap));
}

int disk_discard(struct disk *d, uint64_t off, uint64_t len)
{
    int r;

    if (d->readonly)
        return -EROFS;
    if (!len || !d->unmap || d->overlay >= 0)
        return 0;
    r = change_range(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
    return r < 0 && unsupported(-r) ? 0 : r;
}

int disk_flush(struct disk *d)
{
    if (d->readonly || d->overlay >= 0 || d->cache == DISK_UNSAFE)
        return 0;
    return sync_file(d->fd);
}

/* Two writers of one image destroy it.  File systems without locks are trusted. */
static int lock_image(int fd, bool exclusive)
{
    struct flock fl = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : 0;
}

/* --- commit --------------------------------------------------------------------------------------------- */

static int copy_range(struct disk *d, int to, uint64_t off, uint64_t len)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTER * 16);
    int r = 0;

    while (len && r == 0) {
        struct iovec iov = {buf, MIN(len, CLUSTER * 16)};

        r = transfer(d->overlay, false, off, &iov, 1);
        if (r == 0)
            r = transfer(to, true, off, &iov, 1);
        off += iov.iov_len;
        len -= iov.iov_len;
    }
    return r;
}

static int commit_clusters(struct disk *d, int to, uint64_t *bytes)
{
    uint64_t off = 0, len;
    int r = 0;

    for (; off < d->size && r == 0; off += len) {
        len = run_length(d, off, d->size - off);
        if (!has_cluster(d, off / CLUSTER))
            continue;
        r = copy_range(d, to, off, len);
        *bytes += len;
    }
    if (r == 0)
        r = sync_file(to);
    return r;
}

/* All of it is in the image now. */
static void empty_overlay(struct disk *d)
{
    memset(d->in_overlay, 0, (d->size / CLUSTER / 64 + 1) * sizeof(uint64_t));
    change_range(d->overlay, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, d->size); /* only to free space */
}

/*
 * The image was opened for reading, and locked against writers: for the time of a commit we are the writer.
 */
static int open_for_commit(struct disk *d, int *fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", d->fd);
    struct flock unlock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    int r;

    *fd = open(path, O_RDWR | O_CLOEXEC);
    if (*fd < 0)
        return -errno;
    fcntl(d->fd, F_OFD_SETLK, &unlock);
    r = lock_image(*fd, true);
    if (r == 0)
        return 0;
    close(*fd);
    lock_image(d->fd, false);
    return r;
}

int disk_commit(struct disk *d, uint64_t *bytes)
{
    int fd, r;

    *bytes = 0;
    if (d->overlay < 0)
        return 0;
    g_rw_lock_writer_lock(&d->lock);
    r = open_for_commit(d, &fd);
    if (r == 0) {
        r = commit_clusters(d, fd, bytes);
        close(fd);
        lock_image(d->fd, false);
    }
    if (r == 0)
        empty_overlay(d);
    g_rw_lock_writer_unlock(&d->lock);
    return r;
}

uint64_t disk_size(const struct disk *d)
{
    return d->size;
}

bool disk_readonly(const struct disk *d)
{
    return d->readonly;
}

enum disk_cache disk_cache(const struct disk *d)
{
    return d->cache;
}

/* --- opening -------------------------------------------------------------------------------------------- */

static int open_overlay(struct disk *d)
{
    const char *dir = g_getenv("TMPDIR") ? g_getenv("TMPDIR") : "/var/tmp";
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);

    if (fd < 0) {
        g_autofree char *path = g_build_filename(dir, "armlet-XXXXXX", NULL);

        fd = mkostemp(path, O_CLOEXEC);
        if (fd < 0)
            return -errno;
        unlink(path);
    }
    if (ftruncate(fd, (off_t)d->size) < 0) {
        int r = -errno;

        close(fd);
        return r;
    }
    d->overlay = fd;
    d->in_overlay = g_new0(uint64_t, d->size / CLUSTER / 64 + 1);
    return 0;
}

static int find_size(struct disk *d)
{
    struct stat st;
    off_t end;

    if (fstat(d->fd, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return -ENOTBLK;
    end = lseek(d->fd, 0, SEEK_END);
    if (end < 0)
        return -errno;
    d->size = bits_align_up((uint64_t)end, SECTOR);
    return 0;
}

static int fail(char **why, const char *what, int error)
{
    *why = g_strdup_printf("%s: %s", what, g_strerror(-error));
    return error;
}

static int open_parts(struct disk *d, const struct disk_options *o, char **why)
{
    bool writing = !o->readonly && !o->snapshot;
    int r;

    d->fd = open(o->path, (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (d->fd < 0)
        return fail(why, writing ? "cannot open it for writing" : "cannot open it", -errno);
    r = find_size(d);
    if (r < 0)
        return fail(why, "not a disk image", r);
    r = lock_image(d->fd, writing);
    if (r < 0)
        return fail(why, "another process uses it", r);
    if (o->snapshot) {
        r = open_overlay(d);
        if (r < 0)
            return fail(why, "no temporary file for the snapshot", r);
    }
    return 0;
}

int disk_open(struct disk **disk, const struct disk_options *o, char **why)
{
    struct disk *d = g_new0(struct disk, 1);
    int r;

    d->fd = d->overlay = -1;
    d->readonly = o->readonly;
    d->unmap = o->unmap;
    d->cache = o->cache;
    g_rw_lock_init(&d->lock);
    r = open_parts(d, o, why);
    if (r < 0) {
        disk_close(d);
        return r;
    }
    *disk = d;
    return 0;
}

void disk_close(struct disk *d)
{
    if (!d)
        return;
    if (d->fd >= 0) {
        disk_flush(d);
        close(d->fd);
    }
    if (d->overlay >= 0)
        close(d->overlay);
    g_rw_lock_clear(&d->lock);
    g_free(d->in_overlay);
    g_free(d);
}
