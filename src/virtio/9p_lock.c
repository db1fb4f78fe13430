/*
 * A table of the ranges that are held, and one descriptor a file that holds their union on the host: with one
 * for each fid two openings of one process would stand in each other's way.
 *
 * A lock for writing needs a file that may be written; where it may not be, the lock is the guest's alone.
 * Waiting is the client's: it asks again.
 */
#include "virtio/9p_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <unistd.h>

#include "virtio/9p_node.h"

enum { MAX_RANGES = 4096 }; /* of a session */

struct range {
    uint64_t start, end; /* end: the first byte behind it, or UINT64_MAX */
    uint8_t type;
    uint32_t proc;
    const void *fid;
};

struct file {
    struct p9_node *node;
    int fd; /* -1: locks are not made on the host */
    GArray *ranges;
};

struct p9_locks {
    GMutex lock;
    GPtrArray *files;
    unsigned count; /* of ranges */
};

struct p9_locks *p9_locks_new(void)
{
    struct p9_locks *l = g_new0(struct p9_locks, 1);

    g_mutex_init(&l->lock);
    l->files = g_ptr_array_new();
    return l;
}

static void free_file(struct p9_locks *l, struct file *f)
{
    g_ptr_array_remove_fast(l->files, f);
    l->count -= f->ranges->len;
    if (f->fd >= 0) {
        close(f->fd);
        p9_fs_put_file(f->node->fs);
    }
    p9_node_unref(f->node);
    g_array_unref(f->ranges);
    g_free(f);
}

void p9_locks_clear(struct p9_locks *l)
{
    g_mutex_lock(&l->lock);
    while (l->files->len)
        free_file(l, g_ptr_array_index(l->files, 0));
    g_mutex_unlock(&l->lock);
}

void p9_locks_free(struct p9_locks *l)
{
    p9_locks_clear(l);
    g_ptr_array_unref(l->files);
    g_mutex_clear(&l->lock);
    g_free(l);
}

/* --- a file's; l->lock is held ------------------------------------------------------------------------ */

static struct file *find_file(struct p9_locks *l, const struct p9_node *node)
{
    for (guint i = 0; i < l->files->len; i++) {
        struct file *f = g_ptr_array_index(l->files, i);

        if (f->node == node || (f->node->ino == node->ino && f->node->born == node->born &&
                                f->node->major == node->major && f->node->minor == node->minor))
            return f;
    }
    return NULL;
}

static int open_file(struct p9_node *node)
{
    int fd = p9_fs_take_file(node->fs);

    if (fd < 0)
        return -1;
    fd = p9_open(node, O_RDWR);
    if (fd < 0)
        fd = p9_open(node, O_RDONLY);
    if (fd < 0)
        p9_fs_put_file(node->fs);
    return MAX(fd, -1);
}

static struct file *get_file(struct p9_locks *l, struct p9_node *node)
{
    struct file *f = find_file(l, node);

    if (f)
        return f;
    f = g_new0(struct file, 1);
    f->node = p9_node_ref(node);
    f->fd = open_file(node);
    f->ranges = g_array_new(FALSE, FALSE, sizeof(struct range));
    g_ptr_array_add(l->files, f);
    return f;
}

/* The strongest that holds `at', and in *end how far that is so. */
static short strongest(const struct file *f, uint64_t at, uint64_t *end)
{
    short type = F_UNLCK;

    for (guint i = 0; i < f->ranges->len; i++) {
        const struct range *r = &g_array_index(f->ranges, struct range, i);

        if (r->start > at) {
            *end = MIN(*end, r->start);
        } else if (r->end > at) {
            *end = MIN(*end, r->end);
            if (r->type == P9_LOCK_WRITE || type == F_UNLCK)
                type = r->type == P9_LOCK_WRITE ? F_WRLCK : F_RDLCK;
        }
    }
    return type;
}

static struct flock host_range(short type, uint64_t start, uint64_t end)
{
    return (struct flock){.l_type = type,
                          .l_whence = SEEK_SET,
                          .l_start = (off_t)start,
                          .l_len = end >= INT64_MAX ? 0 : (off_t)(end - start)};
}

/* The host gets what the table says of [start, end). */
static int tell_host(const struct file *f, uint64_t start, uint64_t end)
{
    uint64_t stop;

    for (uint64_t at = start; f->fd >= 0 && at < end && at <= INT64_MAX; at = stop) {
        stop = end;
        struct flock fl = host_range(strongest(f, at, &stop), at, stop);

        if (fcntl(f->fd, F_OFD_SETLK, &fl) < 0 && (errno == EAGAIN || errno == EACCES))
            return -EAGAIN;
    }
    return 0;
}

/* What `proc' holds of [start, end) is not held any more. */
static void cut(GArray *ranges, uint32_t proc, uint64_t start, uint64_t end)
{
    for (guint i = 0; i < ranges->len;) {
        struct range r = g_array_index(ranges, struct range, i), left = r, right = r;

        if (r.proc != proc || r.end <= start || r.start >= end) {
            i++;
            continue;
        }
        g_array_remove_index_fast(ranges, i);
        left.end = start;
        right.start = end;
        if (left.start < left.end)
            g_array_append_val(ranges, left);
        if (right.start < right.end)
            g_array_append_val(ranges, right);
    }
}

/* All or nothing. */
static int change(struct file *f, const struct range *r)
{
    GArray *before = g_array_copy(f->ranges);
    int error;

    cut(f->ranges, r->proc, r->start, r->end);
    if (r->type != P9_LOCK_NONE)
        g_array_append_val(f->ranges, *r);
    error = tell_host(f, r->start, r->end);
    if (error) {
        g_array_unref(f->ranges);
        f->ranges = before;
        tell_host(f, r->start, r->end);
        return P9_LOCK_BLOCKED;
    }
    g_array_unref(before);
    return P9_LOCK_GRANTED;
}

static uint64_t end_of(const struct p9_lock *lock)
{
    return !lock->len || lock->len > UINT64_MAX - lock->start ? UINT64_MAX : lock->start + lock->len;
}

int p9_locks_set(struct p9_locks *l, struct p9_node *node, const void *fid, const struct p9_lock *want)
{
    struct range r = {want->start, end_of(want), want->type, want->proc, fid};
    struct file *f;
    unsigned before;
    int status;

    if (want->type > P9_LOCK_NONE || want->start > INT64_MAX)
        return -EINVAL;
    g_mutex_lock(&l->lock);
    if (want->type != P9_LOCK_NONE && l->count >= MAX_RANGES) {
        g_mutex_unlock(&l->lock);
        return -ENOLCK;
    }
    f = get_file(l, node);
    before = f->ranges->len;
    status = change(f, &r);
    l->count += f->ranges->len - before;
    if (!f->ranges->len)
        free_file(l, f);
    g_mutex_unlock(&l->lock);
    return status;
}

int p9_locks_get(struct p9_locks *l, struct p9_node *node, struct p9_lock *lock)
{
    struct flock fl = host_range(lock->type == P9_LOCK_WRITE ? F_WRLCK : F_RDLCK, lock->start, end_of(lock));
    struct file *f;

    if (lock->start > INT64_MAX)
        return -EINVAL;
    g_mutex_lock(&l->lock);
    f = get_file(l, node);
    if (f->fd < 0 || lock->type == P9_LOCK_NONE || fcntl(f->fd, F_OFD_GETLK, &fl) < 0 ||
        fl.l_type == F_UNLCK) {
        lock->type = P9_LOCK_NONE;
    } else {
        lock->type = fl.l_type == F_WRLCK ? P9_LOCK_WRITE : P9_LOCK_READ;
        lock->start = (uint64_t)fl.l_start;
        lock->len = (uint64_t)fl.l_len;
        lock->proc = 0; /* nobody of the client's */
    }
    if (!f->ranges->len)
        free_file(l, f);
    g_mutex_unlock(&l->lock);
    return 0;
}

/* Several ranges, each told to the host when it has gone. */
static void drop_from(struct file *f, const void *fid)
{
    for (guint i = 0; i < f->ranges->len;) {
        struct range r = g_array_index(f->ranges, struct range, i);

        if (r.fid != fid) {
            i++;
            continue;
        }
        g_array_remove_index_fast(f->ranges, i);
        tell_host(f, r.start, r.end);
    }
}

void p9_locks_drop(struct p9_locks *l, const void *fid)
{
    g_mutex_lock(&l->lock);
    for (guint i = l->files->len; i-- > 0;) {
        struct file *f = g_ptr_array_index(l->files, i);
        unsigned before = f->ranges->len;

        drop_from(f, fid);
        l->count -= before - f->ranges->len;
        if (!f->ranges->len)
            free_file(l, f);
    }
    g_mutex_unlock(&l->lock);
}
