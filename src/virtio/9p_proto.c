/*
 * 9P2000.L, the server's side: one function a message, and the table of them.
 *
 * Data of reads and writes go between the host's file and the driver's buffers without a copy.  Left out:
 * 9P2000 and 9P2000.u (the driver is told "unknown"), authentication.
 *
 * Nothing in a message is believed: lengths are checked by the reader (9p_msg.h), names by p9_get_name(),
 * fids by the table.
 *
 * Threading: any; the order of requests is the driver's business (it waits for answers).
 */
#include "virtio/9p_proto.h"

#include <dirent.h>
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/trace.h"
#include "virtio/9p_fid.h"
#include "virtio/9p_lock.h"
#include "virtio/9p_msg.h"
#include "virtio/iov.h"

enum {
    MSIZE_MIN = 4096,
    MAX_MESSAGE = 65536,
    REPLY_SIZE = 8192,
    IO_HEADER = 11,
    WRITE_HEADER = 23,
    MAX_WALK = 16
};
enum { NO_FID = -1, MAX_PIECES = 1024, FS_MAGIC = 0x01021997 };

struct p9_session {
    struct p9_fs *fs;
    struct p9_fids fids;
    struct p9_locks *locks;
    int msize;
};

struct call {
    struct p9_session *s;
    const struct p9_io *io;
    struct p9_header h;
    struct p9_reader in;
    struct p9_writer out; /* behind the answer's header */
    size_t direct;        /* bytes of the answer that are in the driver's buffers already, behind the rest */
};

/* --- session ------------------------------------------------------------------------------------------ */

struct p9_session *p9_session_new(struct p9_fs *fs)
{
    struct p9_session *s = g_new0(struct p9_session, 1);

    s->fs = fs;
    s->msize = MSIZE_MIN;
    p9_fids_init(&s->fids, fs);
    s->locks = p9_locks_new();
    return s;
}

void p9_session_free(struct p9_session *s)
{
    if (!s)
        return;
    p9_fids_destroy(&s->fids);
    p9_locks_free(s->locks);
    g_free(s);
}

void p9_session_reset(struct p9_session *s)
{
    p9_locks_clear(s->locks);
    p9_fids_clear(&s->fids);
}

unsigned p9_session_fids(struct p9_session *s)
{
    return p9_fids_count(&s->fids);
}

static int do_version(struct call *c)
{
    uint32_t msize = p9_get32(&c->in);
    char version[33] = "";

    p9_get_text(&c->in, version, sizeof(version) - 1);
    if (c->in.bad)
        return -EINVAL;
    if (msize < MSIZE_MIN)
        return -EMSGSIZE;
    p9_session_reset(c->s);
    msize = MIN(msize, (uint32_t)P9_MSIZE_MAX);
    g_atomic_int_set(&c->s->msize, (int)msize);
    p9_put(&c->out, msize, 4);
    if (strcmp(version, "9P2000.L"))
        p9_put_bytes(&c->out, "unknown", 7);
    else
        p9_put_bytes(&c->out, "9P2000.L", 8);
    return 0;
}

static int do_attach(struct call *c)
{
    char text[P9_LINK_MAX + 1];
    uint32_t fid = p9_get32(&c->in), afid = p9_get32(&c->in), uid;
    struct p9_node *root;
    struct statx stx;
    int r;

    p9_get_text(&c->in, text, P9_LINK_MAX); /* who: by name */
    p9_get_text(&c->in, text, P9_LINK_MAX); /* what: there is one thing */
    uid = p9_get32(&c->in);
    if (c->in.bad || afid != UINT32_MAX || fid == UINT32_MAX)
        return -EINVAL;
    root = p9_node_root(c->s->fs);
    r = p9_getattr(root, &stx);
    if (r < 0) {
        p9_node_unref(root);
        return r;
    }
    p9_put_qid(&c->out, p9_qid_of(c->s->fs, &stx));
    return p9_fids_add(&c->s->fids, fid, p9_fid_new(c->s->fs, root, uid));
}

/* --- walking ------------------------------------------------------------------------------------------ */

/* As far as it goes: *node is stepped on (and its reference changed) while names lead somewhere. */
static int walk_names(struct call *c, struct p9_node **node, unsigned count, unsigned *done)
{
    uint8_t *number = c->out.p;
    int r = 0;

    p9_put(&c->out, 0, 2);
    for (*done = 0; *done < count; ++*done) {
        struct p9_node *next;
        struct p9_name name;
        struct statx stx;

        r = p9_get_name(&c->in, &name);
        if (r == 0)
            r = p9_walk(*node, name.text, &next, &stx);
        if (r < 0)
            break;
        p9_node_unref(*node);
        *node = next;
        p9_put_qid(&c->out, p9_qid_of(c->s->fs, &stx));
    }
    number[0] = (uint8_t)*done;
    return c->in.bad ? -EINVAL : r < 0 && *done ? 0 : r;
}

/* The fid itself moves on. */
static int replace_fid(struct call *c, uint32_t number, struct p9_fid *fid)
{
    struct p9_fid *old = p9_fids_take(&c->s->fids, number);

    if (old)
        p9_fid_unref(old);
    return p9_fids_add(&c->s->fids, number, fid);
}

static int do_walk(struct call *c)
{
    uint32_t from = p9_get32(&c->in), to = p9_get32(&c->in);
    unsigned count = (unsigned)p9_get(&c->in, 2), done;
    struct p9_use use;
    int r;

    if (c->in.bad || count > MAX_WALK || to == UINT32_MAX)
        return -EINVAL;
    r = p9_use(&c->s->fids, from, &use);
    if (r < 0)
        return r;
    if (use.fid->kind != P9_FID_NODE || (from == to && use.fd >= 0)) {
        p9_use_end(&use);
        return -EINVAL;
    }
    r = walk_names(c, &use.node, count, &done);
    if (r == 0 && done == count) {
        struct p9_fid *fid = p9_fid_new(c->s->fs, p9_node_ref(use.node), use.fid->uid);

        r = from == to ? replace_fid(c, to, fid) : p9_fids_add(&c->s->fids, to, fid);
    }
    p9_use_end(&use);
    return r;
}

/* --- attributes --------------------------------------------------------------------------------------- */

enum { ATTR_BASIC = 0x7ff, ATTR_BTIME = 0x800 };

static void put_time(struct call *c, const struct statx_timestamp *t)
{
    p9_put(&c->out, (uint64_t)t->tv_sec, 8);
    p9_put(&c->out, t->tv_nsec, 8);
}

static void put_attributes(struct call *c, const struct statx *stx)
{
    unsigned msize = (unsigned)g_atomic_int_get(&c->s->msize);
    struct p9_writer *w = &c->out;

    p9_put(w, ATTR_BASIC | (stx->stx_mask & STATX_BTIME ? ATTR_BTIME : 0), 8);
    p9_put_qid(w, p9_qid_of(c->s->fs, stx));
    p9_put(w, stx->stx_mode, 4);
    p9_put(w, stx->stx_uid, 4);
    p9_put(w, stx->stx_gid, 4);
    p9_put(w, stx->stx_nlink, 8);
    p9_put(w, makedev(stx->stx_rdev_major, stx->stx_rdev_minor), 8);
    p9_put(w, stx->stx_size, 8);
    p9_put(w, MAX(4096, (msize - IO_HEADER) & ~4095u), 8); /* programs read as much at a time as is good */
    p9_put(w, stx->stx_blocks, 8);
    put_time(c, &stx->stx_atime);
    put_time(c, &stx->stx_mtime);
    put_time(c, &stx->stx_ctime);
    put_time(c, &stx->stx_btime);
    p9_put(w, 0, 8); /* generation, data version: not known */
    p9_put(w, 0, 8);
}

static int do_getattr(struct call *c)
{
    uint32_t fid = p9_get32(&c->in);
    struct p9_use use;
    struct statx stx;
    int r;

    p9_get(&c->in, 8); /* which ones; all are given */
    r = c->in.bad ? -EINVAL : p9_use(&c->s->fids, fid, &use);
    if (r < 0)
        return r;
    r = p9_getattr(use.node, &stx);
    if (r == 0)
        put_attributes(c, &stx);
    p9_use_end(&use);
    return r;
}

enum {
    SET_MODE = 1,
    SET_UID = 2,
    SET_GID = 4,
    SET_SIZE = 8,
    SET_ATIME = 0x10,
    SET_MTIME = 0x20,
    SET_ATIME_TO = 0x80,
    SET_MTIME_TO = 0x100
};

static struct timespec get_time(struct p9_reader *in, bool set, bool to)
{
    struct timespec t = {.tv_sec = (time_t)p9_get(in, 8)};
    uint64_t ns = p9_get(in, 8);

    t.tv_nsec = (long)(ns % 1000000000);
    if (!set)
        t.tv_nsec = UTIME_OMIT;
    else if (!to)
        t.tv_nsec = UTIME_NOW;
    return t;
}

static int do_setattr(struct call *c)
{
    uint32_t fid = p9_get32(&c->in), valid = p9_get32(&c->in);
    struct p9_setattr set = {.set_mode = valid & SET_MODE,
                             .set_uid = valid & SET_UID,
                             .set_gid = valid & SET_GID,
                             .set_size = valid & SET_SIZE,
                             .set_times = valid & (SET_ATIME | SET_MTIME)};
    struct p9_use use;
    int r;

    set.mode = p9_get32(&c->in);
    set.uid = p9_get32(&c->in);
    set.gid = p9_get32(&c->in);
    set.size = p9_get(&c->in, 8);
    set.times[0] = get_time(&c->in, valid & SET_ATIME, valid & SET_ATIME_TO);
    set.times[1] = get_time(&c->in, valid & SET_MTIME, valid & SET_MTIME_TO);
    r = c->in.bad ? -EINVAL : p9_use(&c->s->fids, fid, &use);
    if (r < 0)
        return r;
    r = p9_setattr(use.node, use.fid->writable ? use.fd : -1, &set);
    p9_use_end(&use);
    return r;
}

static int do_statfs(struct call *c)
{
    uint32_t fid = p9_get32(&c->in);
    struct p9_use use;
    struct statfs st;
    uint64_t id;
    int r = c->in.bad ? -EINVAL : p9_use(&c->s->fids, fid, &use);

    if (r < 0)
        return r;
    r = p9_statfs(use.node, &st);
    p9_use_end(&use);
    if (r < 0)
        return r;
    memcpy(&id, &st.f_fsid, sizeof(id));
    p9_put(&c->out, FS_MAGIC, 4);
    p9_put(&c->out, (uint64_t)st.f_bsize, 4);
    p9_put(&c->out, st.f_blocks, 8);
    p9_put(&c->out, st.f_bfree, 8);
    p9_put(&c->out, st.f_bavail, 8);
    p9_put(&c->out, st.f_files, 8);
    p9_put(&c->out, st.f_ffree, 8);
    p9_put(&c->out, id, 8);
    p9_put(&c->out, MIN((uint64_t)st.f_namelen, P9_NAME_MAX), 4);
    return 0;
}

/* --- opening ------------------------------------------------------------------------------------------ */

/* An open file as the fid's; node as p9_fid_opened(). */
static int keep_open(struct call *c, struct p9_use *use, struct p9_node *node, int fd, int flags)
{
    int r = p9_fs_take_file(c->s->fs);

    if (r < 0) {
        close(fd);
        if (node)
            p9_node_unref(node);
        return r;
    }
    r = p9_fid_opened(use->fid, node, fd, (flags & O_ACCMODE) != O_RDONLY);
    if (r < 0) {
        close(fd);
        p9_fs_put_file(c->s->fs);
    }
    return r;
}

/* qid, and how much one read or write may have (0: as the message size allows) */
static void put_opened(struct call *c, const struct statx *stx)
{
    p9_put_qid(&c->out, p9_qid_of(c->s->fs, stx));
    p9_put(&c->out, 0, 4);
}

static int open_use(struct call *c, struct p9_use *use, int flags)
{
    struct statx stx;
    int r, fd;

    if (use->fd >= 0 || use->fid->kind != P9_FID_NODE)
        return -EINVAL;
    r = p9_getattr(use->node, &stx);
    if (r < 0)
        return r;
    /* A file that stands for something else is nothing to read. */
    if (!S_ISREG(stx.stx_mode) && !S_ISDIR(stx.stx_mode))
        return S_ISLNK(stx.stx_mode) ? -ELOOP : -ENXIO;
    fd = p9_open(use->node, flags);
    if (fd < 0)
        return fd;
    if (flags & O_TRUNC)
        stx.stx_size = 0;
    put_opened(c, &stx);
    return keep_open(c, use, NULL, fd, flags);
}

static int do_lopen(struct call *c)
{
    uint32_t fid = p9_get32(&c->in);
    int flags = (int)p9_get32(&c->in), r;
    struct p9_use use;

    r = c->in.bad ? -EINVAL : p9_use(&c->s->fids, fid, &use);
    if (r < 0)
        return r;
    r = open_use(c, &use, flags);
    p9_use_end(&use);
    return r;
}

static int do_lcreate(struct call *c)
{
    uint32_t fid = p9_get32(&c->in), mode, gid;
    struct p9_name name;
    int r = p9_get_name(&c->in, &name), flags = (int)p9_get32(&c->in), fd;
    struct p9_node *node;
    struct p9_use use;
    struct statx stx;

    mode = p9_get32(&c->in);
    gid = p9_get32(&c->in);
    if (c->in.bad)
        return -EINVAL;
    if (r == 0)
        r = p9_use(&c->s->fids, fid, &use);
    if (r < 0)
        return r;
    if (use.fd >= 0 || use.fid->kind != P9_FID_NODE)
        r = -EINVAL;
    if (r == 0)
        r = p9_create(use.node, name.text, flags, mode, (struct p9_owner){use.fid->uid, gid}, &node, &stx,
                      &fd);
    if (r == 0)
        r = keep_open(c, &use, node, fd, flags);
    if (r == 0)
        put_opened(c, &stx);
    p9_use_end(&use);
    return r;
}

/* --- reading and writing ------------------------------------------------------------------------------ */

static size_t xattr_read(struct call *c, struct p9_fid *fid, uint64_t off, size_t count)
{
    size_t n = 0;

    g_mutex_lock(&fid->lock);
    if (off < fid->size)
        n = iov_write(c->io->in, c->io->in_num, IO_HEADER, fid->value + off, MIN(count, fid->size - off));
    g_mutex_unlock(&fid->lock);
    return n;
}

static ssize_t file_read(struct call *c, int fd, uint64_t off, size_t count)
{
    struct iovec iov[MAX_PIECES];
    unsigned n = iov_slice(c->io->in, c->io->in_num, IO_HEADER, count, iov);
    ssize_t got;

    if (off > INT64_MAX)
        return -EINVAL;
    if (c->io->nowait) {
        got = preadv2(fd, iov, (int)n, (off_t)off, RWF_NOWAIT);
        if (got == (ssize_t)count || got == 0)
            return got;
        if (got > 0 || errno == EAGAIN)
            return -EAGAIN; /* the rest is not in the host's memory, or there is no rest */
    }
    do
        got = preadv(fd, iov, (int)n, (off_t)off);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static ssize_t read_use(struct call *c, struct p9_use *use, uint64_t off, size_t count)
{
    if (use->fid->kind == P9_FID_XATTR_READ)
        return (ssize_t)xattr_read(c, use->fid, off, count);
    return use->fd < 0 ? -EBADF : file_read(c, use->fd, off, count);
}

static int do_read(struct call *c)
{
    uint32_t fid = p9_get32(&c->in);
    uint64_t off = p9_get(&c->in, 8);
    size_t count = p9_get32(&c->in), room = MIN(c->io->in_len, (size_t)g_atomic_int_get(&c->s->msize));
    struct p9_use use;
    ssize_t n;
    int r = c->in.bad ? -EINVAL : p9_use(&c->s->fids, fid, &use);

    if (r < 0)
        return r;
    n = read_use(c, &use, off, MIN(count, room - IO_HEADER));
    p9_use_end(&use);
    if (n < 0)
        return (int)n;
    p9_put(&c->out, (uint64_t)n, 4);
    c->direct = (size_t)n;
    return 0;
}

static ssize_t xattr_write(struct call *c, struct p9_fid *fid, uint64_t off, size_t count)
{
    ssize_t n = -ENOSPC;

    g_mutex_lock(&fid->lock);
    if (off <= fid->size && count <= fid->size - off) {
        n = (ssize_t)iov_read(c->io->out, c->io->out_num, WRITE_HEADER, fid->value + off, count);
        fid->done = MAX(fid->done, off + (size_t)n);
    }
    g_mutex_unlock(&fid->lock);
    return n;
}

static ssize_t file_write(struct call *c, int fd, uint64_t off, size_t count)
{
    struct iovec iov[MAX_PIECES];
    unsigned n = iov_slice(c->io->out, c->io->out_num, WRITE_HEADER, count, iov);
    ssize_t done;

    if (off > INT64_MAX - count)
        return -EFBIG;
    do
        done = pwritev(fd, iov, (int)n, (off_t)off);
    while (done < 0 && errno == EINTR);
    if (done > 0 && p9_fs_options(c->s->fs)->writeout)
        sync_file_range(fd, (off_t)off, done, SYNC_FILE_RANGE_WRITE);
    return done < 0 ? -errno : done;
}

static ssize_t write_use(struct call *c, struct p9_use *use, uint64_t off, size_t count)
{
    if (use->fid->kind == P9_FID_XATTR_WRITE)
        return xattr_write(c, use->fid, off, count);
    return use->fd < 0 ? -EBADF : file_write(c, use->fd, off, count);
}

static int do_write(struct call *c)
{
    uint32_t fid = p9_get32(&c->in);
    uint64_t off = p9_get(&c->in, 8);
    size_t count = p9_get32(&c->in);
    struct p9_use use;
    ssize_t n;
    int r;

    if (c->in.bad || count > c->io->out_len - WRITE_HEADER)
        return -EINVAL;
    r = p9_use(&c->s->fids, fid, &use);
    if (r < 0)
        return r;
    n = write_use(c, &use, off, count);
    p9_use_end(&use);
    if (n < 0)
        return (int)n;
    p9_put(&c->out, (uint64_t)n, 4);
    return 0;
}

static int do_fsync(struct call *c)
{
    uint32_t fid = p9_get32(&c->in);
    bool data = c->in.p < c->in.end && p9_get32(&c->in);
    struct p9_use use;
    int r = c->in.bad ? -EINVAL : p9_use(&c->s->fids, fid, &use);

    if (r < 0)
        return r;
    if (use.fd < 0)
        r = -EBADF;
    else if ((data ? fdatasync(use.fd) : fsync(use.fd)) < 0)
        r = -errno;
    p9_use_end(&use);
    return r;
}

/* --- directories -------------------------------------------------------------------------------------- */

enum { ENTRY_SIZE = 24 /* and the name */ };

/* Under the mapped models a regular file may be something else. */
static uint8_t shown_type(const struct p9_fs *fs, uint8_t d_type)
{
    return p9_fs_options(fs)->model >= P9_MAPPED_XATTR && d_type == DT_REG ? DT_UNKNOWN : d_type;
}

struct listing {
    struct p9_use *use;
    struct statx dir;
    uint8_t *start, *end;
};

/* False: no room for it. */
static bool put_entry(struct call *c, const struct listing *l, const struct dirent64 *d)
{
    size_t len = strlen(d->d_name);
    uint8_t type = shown_type(c->s->fs, d->d_type);
    struct p9_qid qid = p9_qid_of_entry(c->s->fs, &l->dir, d->d_ino, type);

    if (p9_is_hidden(c->s->fs, d->d_name))
        return true;
    if (len > P9_NAME_MAX || ENTRY_SIZE + len > (size_t)(l->end - c->out.p))
        return false;
    /* What is above the exported directory is no business of the guest's. */
    if (!strcmp(d->d_name, "..") && p9_node_is_root(l->use->node))
        qid = p9_qid_of(c->s->fs, &l->dir);
    p9_put_qid(&c->out, qid);
    p9_put(&c->out, (uint64_t)d->d_off, 8);
    p9_put(&c->out, type, 1);
    p9_put_bytes(&c->out, d->d_name, len);
    return true;
}

/* One buffer of the host's; *off is where the first entry lies that had no room.  1: go on, 0: enough. */
static int put_entries(struct call *c, const struct listing *l, int64_t *off)
{
    _Alignas(struct dirent64) char buf[32768];
    size_t want = CLAMP((size_t)(l->end - c->out.p), 1024, sizeof(buf));
    ssize_t n = getdents64(l->use->fd, buf, want), step;

    if (n <= 0)
        return n < 0 ? -errno : 0;
    for (ssize_t at = 0; at < n; at += step) {
        const struct dirent64 *d = (const struct dirent64 *)(buf + at);

        step = d->d_reclen;
        if (!put_entry(c, l, d)) {
            l->use->fid->dir_at = -1;
            return c->out.p == l->start ? -EINVAL : 0; /* nothing would be the end of the directory */
        }
        *off = d->d_off;
        l->use->fid->dir_at = *off;
    }
    return 1;
}

/* The fid's lock is held: the descriptor has one position. */
static int list_locked(struct call *c, const struct listing *l, int64_t off)
{
    int r;

    if (off != l->use->fid->dir_at || off == 0) {
        if (lseek(l->use->fd, off, SEEK_SET) < 0)
            return -errno;
        l->use->fid->dir_at = off;
    }
    do
        r = put_entries(c, l, &off);
    while (r > 0 && l->end - c->out.p > ENTRY_SIZE + P9_NAME_MAX);
    return r < 0 && c->out.p == l->start ? r : 0;
}

static int list(struct call *c, struct p9_use *use, int64_t off, size_t count)
{
    g_autofree uint8_t *buf = g_malloc(count);
    struct listing l = {.use = use, .start = buf, .end = buf + count};
    struct p9_writer reply = c->out;
    int r = p9_getattr(use->node, &l.dir);

    if (r < 0)
        return r;
    c->out.p = buf;
    g_mutex_lock(&use->fid->lock);
    r = list_locked(c, &l, off);
    g_mutex_unlock(&use->fid->lock);
    count = (size_t)(c->out.p - buf);
    c->out = reply;
    if (r < 0)
        return r;
    c->direct = iov_write(c->io->in, c->io->in_num, IO_HEADER, buf, count);
    p9_put(&c->out, c->direct, 4);
    return 0;
}

static int do_readdir(struct call *c)
{
    uint32_t fid = p9_get32(&c->in);
    uint64_t off = p9_get(&c->in, 8);
    size_t count = p9_get32(&c->in), room = MIN(c->io->in_len, (size_t)g_atomic_int_get(&c->s->msize));
    struct p9_use use;
    int r = c->in.bad || off > INT64_MAX ? -EINVAL : p9_use(&c->s->fids, fid, &use);

    if (r < 0)
        return r;
    r = use.fd < 0 ? -EBADF : list(c, &use, (int64_t)off, MIN(count, room - IO_HEADER));
    p9_use_end(&use);
    return r;
}

/* --- names -------------------------------------------------------------------------------------------- */

/* A fid, a name and the rest are read; what is made is answered by its qid. */
static int finish_made(struct call *c, struct p9_use *use, int r, const struct statx *stx)
{
    if (r == 0)
        p9_put_qid(&c->out, p9_qid_of(c->s->fs, stx));
    p9_use_end(use);
    return r;
}

static int do_mkdir(struct call *c)
{
    uint32_t fid = p9_get32(&c->in), mode, gid;
    struct p9_name name;
    int r = p9_get_name(&c->in, &name);
    struct p9_use use;
    struct statx stx;

    mode = p9_get32(&c->in);
    gid = p9_get32(&c->in);
    if (c->in.bad)
        return -EINVAL;
    if (r == 0)
        r = p9_use(&c->s->fids, fid, &use);
    if (r < 0)
        return r;
    r = p9_mkdir(use.node, name.text, mode, (struct p9_owner){use.fid->uid, gid}, &stx);
    return finish_made(c, &use, r, &stx);
}

static int do_mknod(struct call *c)
{
    uint32_t fid = p9_get32(&c->in), mode, major, minor, gid;
    struct p9_name name;
    int r = p9_get_name(&c->in, &name);
    struct p9_use use;
    struct statx stx;

    mode = p9_get32(&c->in);
    major = p9_get32(&c->in);
    minor = p9_get32(&c->in);
    gid = p9_get32(&c->in);
    if (c->in.bad)
        return -EINVAL;
    if (r == 0)
        r = p9_use(&c->s->fids, fid, &use);
    if (r < 0)
        return r;
    r = p9_mknod(use.node, name.text, mode, makedev(major, minor), (struct p9_owner){use.fid->uid, gid},
                 &stx);
    return finish_made(c, &use, r, &stx);
}

static int do_symlink(struct call *c)
{
    uint32_t fid = p9_get32(&c->in), gid;
    struct p9_name name;
    char target[P9_LINK_MAX + 1];
    int r = p9_get_name(&c->in, &name), r2 = p9_get_text(&c->in, target, P9_LINK_MAX);
    struct p9_use use;
    struct statx stx;

    gid = p9_get32(&c->in);
    if (c->in.bad)
        return -EINVAL;
    r = r < 0 ? r : r2;
    if (r == 0)
        r = p9_use(&c->s->fids, fid, &use);
    if (r < 0)
        return r;
    r = p9_symlink(use.node, name.text, target, (struct p9_owner){use.fid->uid, gid}, &stx);
    return finish_made(c, &use, r, &stx);
}

static int do_readlink(struct call *c)
{
    uint32_t fid = p9_get32(&c->in);
    char target[P9_LINK_MAX + 1];
    struct p9_use use;
    ssize_t n;
    int r = c->in.bad ? -EINVAL : p9_use(&c->s->fids, fid, &use);

    if (r < 0)
        return r;
    n = p9_readlink(use.node, target);
    p9_use_end(&use);
    if (n < 0)
        return (int)n;
    p9_put_bytes(&c->out, target, (size_t)n);
    return 0;
}

/* Two fids at once. */
static int use_two(struct call *c, uint32_t a, uint32_t b, struct p9_use *first, struct p9_use *second)
{
    int r = p9_use(&c->s->fids, a, first);

    if (r < 0)
        return r;
    r = p9_use(&c->s->fids, b, second);
    if (r < 0)
        p9_use_end(first);
    return r;
}

static int do_link(struct call *c)
{
    uint32_t dir = p9_get32(&c->in), fid = p9_get32(&c->in);
    struct p9_use d, f;
    struct p9_name name;
    int r = p9_get_name(&c->in, &name);

    if (r == 0)
        r = use_two(c, dir, fid, &d, &f);
    if (r < 0)
        return r;
    r = p9_link(d.node, f.node, name.text);
    p9_use_end(&d);
    p9_use_end(&f);
    return r;
}

static int do_rename(struct call *c)
{
    uint32_t fid = p9_get32(&c->in), dir = p9_get32(&c->in);
    struct p9_use d, f;
    struct p9_name name;
    int r = p9_get_name(&c->in, &name);

    if (r == 0)
        r = use_two(c, fid, dir, &f, &d);
    if (r < 0)
        return r;
    r = p9_rename_node(f.node, d.node, name.text);
    p9_use_end(&d);
    p9_use_end(&f);
    return r;
}

static int do_renameat(struct call *c)
{
    uint32_t old = p9_get32(&c->in), new;
    struct p9_name name, to;
    int r = p9_get_name(&c->in, &name), r2;
    struct p9_use a, b;

    new = p9_get32(&c->in);
    r2 = p9_get_name(&c->in, &to);
    r = r < 0 ? r : r2;
    if (r == 0)
        r = use_two(c, old, new, &a, &b);
    if (r < 0)
        return r;
    r = p9_rename(a.node, name.text, b.node, to.text);
    p9_use_end(&a);
    p9_use_end(&b);
    return r;
}

static int do_unlinkat(struct call *c)
{
    uint32_t dir = p9_get32(&c->in), flags;
    struct p9_name name;
    int r = p9_get_name(&c->in, &name);
    struct p9_use use;

    flags = p9_get32(&c->in);
    if (c->in.bad || flags & ~(uint32_t)AT_REMOVEDIR)
        return -EINVAL;
    if (r == 0)
        r = p9_use(&c->s->fids, dir, &use);
    if (r < 0)
        return r;
    r = p9_unlink(use.node, name.text, flags & AT_REMOVEDIR);
    p9_use_end(&use);
    return r;
}

/* --- the end of a fid --------------------------------------------------------------------------------- */

/* A driver removes by setting an empty value where there is one. */
static int commit_xattr(struct p9_fid *fid)
{
    int r;

    if (fid->done < fid->size)
        return -EINVAL;
    if (!fid->size && (fid->flags & XATTR_REPLACE))
        r = p9_xattr_remove(fid->node, fid->name);
    else
        r = p9_xattr_set(fid->node, fid->name, fid->value, fid->size, fid->flags);
    return r;
}

static int do_clunk(struct call *c)
{
    struct p9_fid *fid = p9_fids_take(&c->s->fids, p9_get32(&c->in));
    int r = 0;

    if (!fid)
        return c->in.bad ? -EINVAL : -EBADF;
    g_mutex_lock(&fid->lock);
    if (fid->kind == P9_FID_XATTR_WRITE)
        r = commit_xattr(fid);
    g_mutex_unlock(&fid->lock);
    p9_locks_drop(c->s->locks, fid);
    p9_fid_unref(fid);
    return r;
}

/* The fid is gone also when what it is of is not (as intro(5) of Plan 9 has it). */
static int do_remove(struct call *c)
{
    uint32_t number = p9_get32(&c->in);
    struct p9_use use;
    struct p9_fid *fid;
    int r = c->in.bad ? -EINVAL : p9_use(&c->s->fids, number, &use);

    if (r < 0)
        return r;
    r = p9_remove_node(use.node);
    fid = p9_fids_take(&c->s->fids, number);
    if (fid) {
        p9_locks_drop(c->s->locks, fid);
        p9_fid_unref(fid);
    }
    p9_use_end(&use);
    return r;
}

/* --- extended attributes ------------------------------------------------------------------------------ */

/* The value (or the list, when name is empty) as it is now. */
static ssize_t load_xattr(struct p9_node *node, const char *name, uint8_t **value)
{
    size_t size = 256; /* is enough for most, and the host makes itself a buffer as large as ours */
    ssize_t n;

    for (;; size = P9_XATTR_MAX) {
        g_autofree uint8_t *buf = g_malloc(size);

        n = *name ? p9_xattr_get(node, name, buf, size) : p9_xattr_list(node, (char *)buf, size);
        if (n > 0)
            *value = g_memdup2(buf, (gsize)n);
        if (n != -ERANGE || size == P9_XATTR_MAX)
            return n;
    }
}

static int do_xattrwalk(struct call *c)
{
    uint32_t from = p9_get32(&c->in), to = p9_get32(&c->in);
    char name[P9_NAME_MAX + 1];
    int r = p9_get_text(&c->in, name, P9_NAME_MAX);
    uint8_t *value = NULL;
    struct p9_fid *fid;
    struct p9_use use;
    ssize_t n;

    if (r == 0)
        r = p9_use(&c->s->fids, from, &use);
    if (r < 0)
        return r;
    n = load_xattr(use.node, name, &value);
    if (n >= 0) {
        fid = p9_fid_new(c->s->fs, p9_node_ref(use.node), use.fid->uid);
        fid->kind = P9_FID_XATTR_READ;
        fid->value = value;
        fid->size = (size_t)n;
        p9_put(&c->out, (uint64_t)n, 8);
        n = p9_fids_add(&c->s->fids, to, fid);
    }
    p9_use_end(&use);
    return (int)n;
}

/* The fid becomes the attribute's: what is written to it is the value, and a clunk sets it. */
static int become_xattr(struct p9_fid *fid, const char *name, size_t size, uint32_t flags)
{
    int r = 0;

    g_mutex_lock(&fid->lock);
    if (fid->kind != P9_FID_NODE || fid->fd >= 0) {
        r = -EINVAL;
    } else {
        fid->kind = P9_FID_XATTR_WRITE;
        fid->value = g_malloc0(size);
        fid->size = size;
        fid->name = g_strdup(name);
        fid->flags = (int)flags;
    }
    g_mutex_unlock(&fid->lock);
    return r;
}

static int do_xattrcreate(struct call *c)
{
    uint32_t number = p9_get32(&c->in);
    char name[P9_NAME_MAX + 1];
    int r = p9_get_text(&c->in, name, P9_NAME_MAX);
    uint64_t size = p9_get(&c->in, 8);
    uint32_t flags = p9_get32(&c->in);
    struct p9_fid *fid;

    if (c->in.bad || flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    if (r < 0 || size > P9_XATTR_MAX)
        return r < 0 ? r : -ENOSPC;
    fid = p9_fids_find(&c->s->fids, number);
    if (!fid)
        return -EBADF;
    r = become_xattr(fid, name, size, flags);
    p9_fid_unref(fid);
    return r;
}

/* --- locks -------------------------------------------------------------------------------------------- */

/* start[8] length[8] process[4] client[s]; the client's name is one of one */
static int get_lock_tail(struct p9_reader *in, struct p9_lock *lock, struct p9_name *client)
{
    lock->start = p9_get(in, 8);
    lock->len = p9_get(in, 8);
    lock->proc = p9_get32(in);
    return p9_get_text(in, client->text, P9_NAME_MAX);
}

static int do_lock(struct call *c)
{
    uint32_t fid = p9_get32(&c->in);
    struct p9_lock lock = {.type = (uint8_t)p9_get(&c->in, 1)};
    struct p9_name client;
    struct p9_use use;
    int r;

    p9_get(&c->in, 4); /* may it wait: it asks again */
    r = get_lock_tail(&c->in, &lock, &client);
    if (r == 0)
        r = p9_use(&c->s->fids, fid, &use);
    if (r < 0)
        return r;
    r = use.fd < 0 ? -EBADF : p9_locks_set(c->s->locks, use.node, use.fid, &lock);
    p9_use_end(&use);
    if (r < 0)
        return r;
    p9_put(&c->out, (uint64_t)r, 1);
    return 0;
}

static int do_getlock(struct call *c)
{
    uint32_t fid = p9_get32(&c->in);
    struct p9_lock lock = {.type = (uint8_t)p9_get(&c->in, 1)};
    struct p9_name client;
    struct p9_use use;
    int r = get_lock_tail(&c->in, &lock, &client);

    if (r == 0)
        r = p9_use(&c->s->fids, fid, &use);
    if (r < 0)
        return r;
    r = use.fd < 0 ? -EBADF : p9_locks_get(c->s->locks, use.node, &lock);
    p9_use_end(&use);
    if (r < 0)
        return r;
    p9_put(&c->out, lock.type, 1);
    p9_put(&c->out, lock.start, 8);
    p9_put(&c->out, lock.len, 8);
    p9_put(&c->out, lock.proc, 4);
    p9_put_bytes(&c->out, client.text, strlen(client.text));
    return 0;
}

/* --- messages ----------------------------------------------------------------------------------------- */

static const struct message {
    uint8_t type;
    const char *name;
    int (*handle)(struct call *c);
} messages[] = {
    {8, "statfs", do_statfs},
    {12, "lopen", do_lopen},
    {14, "lcreate", do_lcreate},
    {16, "symlink", do_symlink},
    {18, "mknod", do_mknod},
    {20, "rename", do_rename},
    {22, "readlink", do_readlink},
    {24, "getattr", do_getattr},
    {26, "setattr", do_setattr},
    {30, "xattrwalk", do_xattrwalk},
    {32, "xattrcreate", do_xattrcreate},
    {40, "readdir", do_readdir},
    {50, "fsync", do_fsync},
    {52, "lock", do_lock},
    {54, "getlock", do_getlock},
    {70, "link", do_link},
    {72, "mkdir", do_mkdir},
    {74, "renameat", do_renameat},
    {76, "unlinkat", do_unlinkat},
    {100, "version", do_version},
    {104, "attach", do_attach},
    {110, "walk", do_walk},
    {116, "read", do_read},
    {118, "write", do_write},
    {120, "clunk", do_clunk},
    {122, "remove", do_remove},
};

static const struct message *find_message(uint8_t type)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(messages); i++)
        if (messages[i].type == type)
            return &messages[i];
    return NULL;
}

bool p9_read_header(const struct p9_io *io, struct p9_header *h)
{
    uint8_t buf[P9_HEADER];
    struct p9_reader r = {buf, buf + sizeof(buf), false};

    if (iov_read(io->out, io->out_num, 0, buf, sizeof(buf)) != sizeof(buf))
        return false;
    h->size = p9_get32(&r);
    h->type = (uint8_t)p9_get(&r, 1);
    h->tag = (uint16_t)p9_get(&r, 2);
    return true;
}

static void put_header(uint8_t *buf, size_t size, uint8_t type, uint16_t tag)
{
    struct p9_writer w = {buf};

    p9_put(&w, size, 4);
    p9_put(&w, type, 1);
    p9_put(&w, tag, 2);
}

size_t p9_answer_empty(const struct p9_io *io, uint8_t type, uint16_t tag)
{
    uint8_t buf[P9_HEADER];

    put_header(buf, sizeof(buf), type, tag);
    return iov_write(io->in, io->in_num, 0, buf, sizeof(buf));
}

static size_t answer_error(const struct p9_io *io, uint16_t tag, int error)
{
    uint8_t buf[P9_ERROR_SIZE];
    struct p9_writer w = {buf + P9_HEADER};

    put_header(buf, sizeof(buf), 7, tag);
    p9_put(&w, (uint32_t)-error, 4);
    return iov_write(io->in, io->in_num, 0, buf, sizeof(buf));
}

static size_t answer(struct call *c, const uint8_t *reply)
{
    size_t len = (size_t)(c->out.p - reply);

    if (len > c->io->in_len)
        return answer_error(c->io, c->h.tag, -EMSGSIZE);
    return iov_write(c->io->in, c->io->in_num, 0, reply, len) + c->direct;
}

/* The message is copied out, but for the data of a write: the driver may change it while we look. */
static int run(struct call *c, const struct message *m)
{
    size_t len = m->handle == do_write ? WRITE_HEADER : c->h.size;
    uint8_t small[1024], *buf = small;
    int r;

    if (c->h.size > c->io->out_len || c->h.size < P9_HEADER || len > c->io->out_len)
        return -EINVAL;
    if (len > MAX_MESSAGE)
        return -EMSGSIZE;
    if (len > sizeof(small))
        buf = g_malloc(len);
    iov_read(c->io->out, c->io->out_num, 0, buf, len);
    c->in = (struct p9_reader){buf + P9_HEADER, buf + len, false};
    r = m->handle(c);
    if (buf != small)
        g_free(buf);
    return r;
}

/* Not what waits for the medium, nor what moves much data, which can go on beside the vCPU. */
bool p9_is_quick(const struct p9_io *io, const struct p9_header *h)
{
    enum { T_FSYNC = 50, T_READ = 116, T_WRITE = 118, MUCH = 65536 };

    return h->type != T_FSYNC && (h->type != T_READ || io->in_len <= MUCH) &&
           (h->type != T_WRITE || io->out_len <= MUCH);
}

size_t p9_handle(struct p9_session *s, const struct p9_io *io)
{
    uint8_t reply[REPLY_SIZE];
    struct call c = {.s = s, .io = io, .out = {reply + P9_HEADER}};
    const struct message *m;
    int r;

    p9_read_header(io, &c.h);
    m = find_message(c.h.type);
    r = m ? run(&c, m) : -EOPNOTSUPP;
    if (r == -EAGAIN && io->nowait)
        return 0;
    trace(P9, "tag %u: %s: %s", c.h.tag, m ? m->name : "unknown message", r < 0 ? g_strerror(-r) : "ok");
    if (r < 0)
        return answer_error(io, c.h.tag, r);
    put_header(reply, (size_t)(c.out.p - reply) + c.direct, (uint8_t)(c.h.type + 1), c.h.tag);
    return answer(&c, reply);
}
