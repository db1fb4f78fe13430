/*
 * Contents: files, links and directories.
 *
 * Durability: a stable write and a commit are on the host's disk (fdatasync, fsync) before they are answered;
 * an unstable write is in the host's page cache, which outlives this program. Directory cookies are the
 * host's own offsets; NFS v2, which has 32 bits for them, gets numbers from a table that is rebuilt in the
 * same order when it is lost. Threading: the server's.
 */
#include "nfs/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define COOKIES_MAX (1u << 22)

/* NFS has no open files: the owner may go on reading and writing what he opened before a chmod (RFC
 * 1813 4.4). */
static bool may_io(const struct attr *attr, const struct cred *cred, unsigned want)
{
    if (cred_is(cred, attr->uid) || attr_may(attr, cred, want))
        return true;
    /* A program is run by reading it. */
    return want == MAY_READ && attr_may(attr, cred, MAY_EXEC);
}

static int check_io(struct node *node, const struct cred *cred, unsigned want, struct attr *attr)
{
    int err = node_attr(node, attr);

    if (err)
        return err;
    if (!S_ISREG(attr->mode))
        return S_ISDIR(attr->mode) ? -EISDIR : -EINVAL;
    return may_io(attr, cred, want) ? 0 : -EACCES;
}

/* Nothing has been done yet: has this call to be left to somebody who can wait? */
static bool must_wait(struct node *node)
{
    if (!node->tree->patient)
        node->tree->waits = true;
    return node->tree->waits;
}

/* 0 or -errno.  Others may use the tree meanwhile, and close what the node has open. */
static int sync_file(struct node *node, int fd, bool all)
{
    struct tree *tree = node->tree;
    int own = tree->wait_begin ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1, err;

    if (own < 0)
        return (all ? fsync(fd) : fdatasync(fd)) < 0 ? -errno : 0;
    node->pins++;
    tree->wait_begin(tree->wait_arg);
    err = (all ? fsync(own) : fdatasync(own)) < 0 ? -errno : 0;
    close(own);
    tree->wait_end(tree->wait_arg);
    tree->patient = true;
    node->pins--;
    return err;
}

static ssize_t read_some(struct tree *tree, int fd, void *buf, size_t len, uint64_t offset)
{
    struct iovec v = {buf, len};
    ssize_t n;

    if (tree->patient || tree->no_nowait)
        return pread(fd, buf, len, (off_t)offset);
    n = preadv2(fd, &v, 1, (off_t)offset, RWF_NOWAIT);
    if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL))
        return n;
    tree->no_nowait = true;
    return pread(fd, buf, len, (off_t)offset);
}

ssize_t tree_read(struct node *node, const struct cred *cred, void *buf, size_t len, uint64_t offset,
                  bool *eof)
{
    struct attr attr;
    int err = check_io(node, cred, MAY_READ, &attr), fd;
    size_t done = 0;

    if (err)
        return err;
    *eof = true;
    if (offset >= attr.size)
        return 0;
    fd = node_file(node, false);
    if (fd < 0)
        return fd;
    while (done < len) {
        ssize_t n = read_some(node->tree, fd, (char *)buf + done, len - done, offset + done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            must_wait(node);
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *eof = done < len || offset + done >= attr.size;
    return (ssize_t)done;
}

/* A write by somebody else than root takes these away, as on a local file system. */
static int drop_setid(struct node *node, const struct cred *cred, const struct attr *attr)
{
    struct sattr sa = {.set_mode = true, .mode = attr->mode & 01777};
    struct cred root = {0};

    if (cred->uid == 0 || !(attr->mode & 06000))
        return 0;
    if ((attr->mode & 02010) == 02000)
        sa.mode |= attr->mode & 02000;
    return tree_setattr(node, &root, &sa, NULL);
}

ssize_t tree_write(struct node *node, const struct cred *cred, const void *buf, size_t len, uint64_t offset,
                   bool stable)
{
    struct attr attr;
    int err = check_io(node, cred, MAY_WRITE, &attr), fd;
    size_t done = 0;

    if (!err && stable && len && must_wait(node))
        err = -EAGAIN;
    if (!err)
        err = node->tree->readonly ? -EROFS : drop_setid(node, cred, &attr);
    if (err)
        return err;
    if (offset > INT64_MAX - len)
        return -EFBIG;
    fd = node_file(node, true);
    if (fd < 0)
        return fd;
    while (done < len) {
        ssize_t n = pwrite(fd, (const char *)buf + done, len - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && done == 0)
            return -errno;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    if (stable && len)
        err = sync_file(node, fd, false);
    return err ? err : (ssize_t)done;
}

int tree_commit(struct node *node)
{
    struct attr attr;
    int err = node_attr(node, &attr), fd;

    if (err)
        return err;
    if (!S_ISREG(attr.mode))
        return S_ISDIR(attr.mode) ? -EISDIR : -EINVAL;
    if (must_wait(node))
        return -EAGAIN;
    fd = node_file(node, false);
    if (fd < 0)
        return fd;
    err = sync_file(node, fd, true);
    /* A client commits at close: now the host may run the program that was just written. */
    if (node->fd_kind == FD_WRITE)
        node_close(node);
    return err;
}

static ssize_t read_stand_in(struct node *node, char *buf)
{
    struct attr attr;
    int err = node_attr(node, &attr), fd;
    ssize_t n;

    if (err)
        return err;
    if (!S_ISLNK(attr.mode))
        return -EINVAL;
    fd = node_file(node, false);
    if (fd < 0)
        return fd;
    n = pread(fd, buf, TREE_LINK_MAX, 0);
    return n < 0 ? -errno : n;
}

ssize_t tree_readlink(struct node *node, char *buf)
{
    bool owned;
    int fd, err;
    ssize_t n;

    if (S_ISREG(node->type))
        return read_stand_in(node, buf);
    if (!S_ISLNK(node->type))
        return -EINVAL;
    fd = node_pathfd(node, &owned);
    if (fd < 0)
        return fd;
    /* On the way it may have turned out that another file stands for the link now. */
    if (S_ISREG(node->type)) {
        if (owned)
            close(fd);
        return read_stand_in(node, buf);
    }
    n = readlinkat(fd, "", buf, TREE_LINK_MAX);
    err = -errno;
    if (owned)
        close(fd);
    return n < 0 ? err : n;
}

/* --- directories --- */

struct raw_dirent {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

static guint off_hash(gconstpointer p)
{
    return (guint)((uint64_t) * (const int64_t *)p * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

static gboolean off_same(gconstpointer a, gconstpointer b)
{
    return *(const int64_t *)a == *(const int64_t *)b;
}

void cookies_free(struct cookies *cookies)
{
    if (!cookies)
        return;
    g_hash_table_destroy(cookies->by_off);
    g_ptr_array_unref(cookies->offs);
    g_free(cookies);
}

static struct cookies *get_cookies(struct node *dir)
{
    if (!dir->cookies) {
        dir->cookies = g_new0(struct cookies, 1);
        dir->cookies->by_off = g_hash_table_new(off_hash, off_same);
        dir->cookies->offs = g_ptr_array_new_with_free_func(g_free);
    }
    return dir->cookies;
}

static uint64_t small_cookie(struct node *dir, int64_t off)
{
    struct cookies *c = get_cookies(dir);
    guint n = GPOINTER_TO_UINT(g_hash_table_lookup(c->by_off, &off));

    if (!n) {
        int64_t *copy = g_memdup2(&off, sizeof(off));

        g_ptr_array_add(c->offs, copy);
        n = c->offs->len;
        g_hash_table_insert(c->by_off, copy, GUINT_TO_POINTER(n));
    }
    return n;
}

struct reader {
    struct node *dir;
    int fd;
    bool small;
    int64_t off; /* where the next getdents64() begins */
    char *buf;
    size_t size;
};

static ssize_t fill(struct reader *r)
{
    long n;

    if (lseek(r->fd, r->off, SEEK_SET) < 0)
        return -errno;
    n = syscall(SYS_getdents64, r->fd, r->buf, r->size);
    return n < 0 ? -errno : n;
}

/* The entries in the buffer; false when entry() has enough. */
static bool give(struct reader *r, size_t n, tree_entry_fn *entry, void *opaque)
{
    const struct raw_dirent *d;

    for (size_t at = 0; at < n; at += d->d_reclen) {
        d = (const struct raw_dirent *)(r->buf + at);
        uint64_t cookie = r->small ? small_cookie(r->dir, d->d_off) : (uint64_t)d->d_off;
        uint64_t ino = d->d_ino;

        /* What is above the root is no business of the guest's. */
        if (r->dir == r->dir->tree->root && !strcmp(d->d_name, ".."))
            ino = r->dir->host.ino;
        if (entry && !entry(opaque, d->d_name, ino, cookie))
            return false;
        r->off = d->d_off;
    }
    return true;
}

static int read_entries(struct reader *r, tree_entry_fn *entry, void *opaque, bool *eof)
{
    ssize_t n;

    *eof = false;
    while ((n = fill(r)) > 0) {
        if (!give(r, (size_t)n, entry, opaque))
            return 0;
    }
    *eof = n == 0;
    return (int)n;
}

/* The host's offset for a v2 cookie; the table is made again in the same order if it was lost. */
static int from_small(struct reader *r, uint64_t cookie)
{
    struct cookies *c = get_cookies(r->dir);
    bool eof;

    if (cookie > c->offs->len) {
        int err = read_entries(r, NULL, NULL, &eof);

        if (err < 0)
            return err;
    }
    if (cookie > c->offs->len || c->offs->len > COOKIES_MAX)
        return -EINVAL;
    r->off = *(int64_t *)g_ptr_array_index(c->offs, cookie - 1);
    return 0;
}

int tree_readdir(struct node *dir, const struct cred *cred, uint64_t cookie, bool small_cookies,
                 size_t expect, tree_entry_fn *entry, void *opaque, bool *eof)
{
    struct reader r = {.dir = dir, .small = small_cookies, .size = CLAMP(expect, 2048, 65536)};
    struct attr attr;
    int err = node_attr(dir, &attr);

    if (err)
        return err;
    if (!S_ISDIR(attr.mode))
        return -ENOTDIR;
    if (!attr_may(&attr, cred, MAY_READ))
        return -EACCES;
    r.fd = node_dirfd(dir);
    if (r.fd < 0)
        return r.fd;
    g_autofree char *buf = g_malloc(r.size);

    r.buf = buf;
    if (cookie && small_cookies)
        err = from_small(&r, cookie);
    else
        r.off = (int64_t)cookie;
    return err ? err : read_entries(&r, entry, opaque, eof);
}

int tree_statfs(struct node *node, struct statvfs *st)
{
    bool owned;
    int fd = node_pathfd(node, &owned), err;

    if (fd < 0)
        return fd;
    err = fstatvfs(fd, st) < 0 ? -errno : 0;
    if (owned)
        close(fd);
    return err;
}
