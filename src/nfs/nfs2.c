/*
 * NFS version 2 (RFC 1094).  Sizes and numbers are of 32 bits; every write is stable (2.2.9).
 *
 * What the RFC leaves to custom is done as Unix clients expect: a FIFO is a character device of number -1,
 * CREATE with a type in its mode makes a special file whose number is the size, microseconds of 1000000 mean
 * the server's time. Threading: the server's.
 */
#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/compiler.h"
#include "nfs/server.h"

enum { PROG_NFS = 100003, FH_SIZE = 32, DATA_MAX = 8192, PATH_LEN_MAX = 1024, NAME_LEN_MAX = 255 };

/* RFC 1094 2.3.1; what has no number here is an I/O error. */
static uint32_t status_of(int err)
{
    switch (-err) {
    case 0:
    case EPERM:
    case ENOENT:
    case EIO:
    case ENXIO:
    case EACCES:
    case EEXIST:
    case ENODEV:
    case ENOTDIR:
    case EISDIR:
    case EFBIG:
    case ENOSPC:
    case EROFS:
        return (uint32_t)-err;
    case ENAMETOOLONG:
        return 63;
    case ENOTEMPTY:
        return 66;
    case EDQUOT:
        return 69;
    case ESTALE:
    case EBADF:
        return 70;
    case EINVAL:
    case EBUSY:
        return EACCES;
    case EOPNOTSUPP:
        return EPERM;
    default:
        return EIO;
    }
}

/* --- arguments --- */

static int find(struct rpc_call *call, const uint8_t *fh, struct node **node)
{
    *node = NULL;
    return server_node(call->server, fh, FH_SIZE, node);
}

struct where {
    const uint8_t *dir;
    int err;
    char name[TREE_NAME_MAX + 1];
};

static void take_where(struct rpc_call *call, struct where *w)
{
    const uint8_t *p;
    size_t n;

    w->dir = rpc_fixed(call, FH_SIZE);
    p = rpc_opaque(call, call->in.x_handy, &n);
    w->err = tree_check_name(p, n, w->name);
}

static int find_where(struct rpc_call *call, const struct where *w, struct node **dir)
{
    int err = find(call, w->dir, dir);

    return err ? err : w->err;
}

static enum time_how take_time(struct rpc_call *call, struct timespec *t)
{
    uint32_t sec = rpc_u32(call), usec = rpc_u32(call);

    if (usec == 1000000)
        return TIME_SERVER;
    if (sec == UINT32_MAX || usec == UINT32_MAX)
        return TIME_KEEP;
    *t = (struct timespec){.tv_sec = sec, .tv_nsec = MIN(usec, 999999u) * 1000};
    return TIME_CLIENT;
}

/* All ones: leave it.  The mode is given back whole: CREATE finds a type in it. */
static uint32_t take_sattr(struct rpc_call *call, struct sattr *sa)
{
    uint32_t mode = rpc_u32(call), size;

    *sa = (struct sattr){.mode = mode & 07777};
    /* Some clients leave the upper half of "no change" out. */
    sa->set_mode = mode != UINT32_MAX && mode != 0xffff;
    sa->uid = rpc_u32(call);
    sa->set_uid = sa->uid != UINT32_MAX;
    sa->gid = rpc_u32(call);
    sa->set_gid = sa->gid != UINT32_MAX;
    size = rpc_u32(call);
    sa->size = size;
    sa->set_size = size != UINT32_MAX;
    sa->atime_how = take_time(call, &sa->atime);
    sa->mtime_how = take_time(call, &sa->mtime);
    return mode;
}

/* --- results --- */

static void put_time(struct rpc_call *call, const struct timespec *t)
{
    rpc_put_u32(call, (uint32_t)t->tv_sec);
    rpc_put_u32(call, (uint32_t)(t->tv_nsec / 1000));
}

static uint32_t small(uint64_t v)
{
    return (uint32_t)MIN(v, INT32_MAX);
}

/* Object numbers of 32 bits: the halves folded. */
static uint32_t fold(uint64_t v)
{
    return (uint32_t)v ^ (uint32_t)(v >> 32);
}

static uint32_t encode_dev(uint32_t major, uint32_t minor)
{
    return (minor & 0xff) | major << 8 | (minor & ~UINT32_C(0xff)) << 12;
}

static uint32_t ftype(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return 1;
    case S_IFDIR:
        return 2;
    case S_IFBLK:
        return 3;
    case S_IFCHR:
        return 4;
    case S_IFLNK:
        return 5;
    default:
        return 0;
    }
}

static void put_fattr(struct rpc_call *call, const struct attr *a)
{
    bool fifo = S_ISFIFO(a->mode);
    uint32_t mode = fifo ? S_IFCHR | (a->mode & 07777) : a->mode;

    rpc_put_u32(call, ftype(mode));
    rpc_put_u32(call, mode);
    rpc_put_u32(call, a->nlink);
    rpc_put_u32(call, a->uid);
    rpc_put_u32(call, a->gid);
    rpc_put_u32(call, small(a->size));
    rpc_put_u32(call, 4096);
    rpc_put_u32(call, fifo ? UINT32_MAX : encode_dev(a->major, a->minor));
    rpc_put_u32(call, small(a->used / 512));
    rpc_put_u32(call, a->fsid);
    rpc_put_u32(call, fold(a->fileid));
    put_time(call, &a->atime);
    put_time(call, &a->mtime);
    put_time(call, &a->ctime);
}

static void put_status(struct rpc_call *call, int err)
{
    rpc_put_u32(call, status_of(err));
}

/* attrstat, and diropres with the handle. */
static void put_result(struct rpc_call *call, int err, struct node *node, bool handle)
{
    uint8_t fh[TREE_HANDLE_SIZE];
    struct attr a;

    if (!err)
        err = node_attr(node, &a);
    put_status(call, err);
    if (err)
        return;
    if (handle) {
        node_handle(node, fh);
        rpc_put_fixed(call, fh, sizeof(fh));
    }
    put_fattr(call, &a);
}

/* --- procedures --- */

/* NULL, and ROOT and WRITECACHE, which have nothing to do (2.2.4, 2.2.8). */
static void null(struct rpc_call *call)
{
}

static void getattr(struct rpc_call *call)
{
    const uint8_t *fh = rpc_fixed(call, FH_SIZE);
    struct node *node;
    int err;

    if (call->bad)
        return;
    err = find(call, fh, &node);
    put_result(call, err, node, false);
}

static void setattr(struct rpc_call *call)
{
    const uint8_t *fh = rpc_fixed(call, FH_SIZE);
    struct sattr sa;
    struct node *node;
    int err;

    take_sattr(call, &sa);
    if (call->bad)
        return;
    err = find(call, fh, &node);
    if (!err)
        err = tree_setattr(node, &call->cred, &sa, NULL);
    put_result(call, err, node, false);
}

static void lookup(struct rpc_call *call)
{
    struct node *dir, *node = NULL;
    struct where w;
    int err;

    take_where(call, &w);
    if (call->bad)
        return;
    err = find_where(call, &w, &dir);
    if (!err)
        err = tree_lookup(dir, &call->cred, w.name, &node);
    put_result(call, err, node, true);
}

static void readlink2(struct rpc_call *call)
{
    const uint8_t *fh = rpc_fixed(call, FH_SIZE);
    char target[TREE_LINK_MAX + 1];
    struct node *node;
    ssize_t n;

    if (call->bad)
        return;
    n = find(call, fh, &node);
    if (!n)
        n = tree_readlink(node, target);
    if (n > PATH_LEN_MAX)
        n = -ENAMETOOLONG;
    put_status(call, n < 0 ? (int)n : 0);
    if (n >= 0)
        rpc_put_opaque(call, target, (size_t)n);
}

enum { READ_HEAD = 4 + 17 * 4 + 4 };

static void read2(struct rpc_call *call)
{
    const uint8_t *fh = rpc_fixed(call, FH_SIZE);
    uint32_t offset = rpc_u32(call), want = rpc_u32(call), count = MIN(want, DATA_MAX);
    unsigned start = rpc_tell(call);
    struct node *node;
    uint8_t *room;
    bool eof;
    ssize_t n;

    rpc_u32(call);
    if (call->bad)
        return;
    room = rpc_put_room(call, READ_HEAD + (size_t)count);
    if (!room)
        return;
    n = find(call, fh, &node);
    if (!n)
        n = tree_read(node, &call->cred, room + READ_HEAD, count, offset, &eof);
    put_result(call, n < 0 ? (int)n : 0, node, false);
    if (rpc_tell(call) != start + READ_HEAD - 4)
        return;
    rpc_put_u32(call, (uint32_t)n);
    rpc_put_done(call, (size_t)n);
}

static void write2(struct rpc_call *call)
{
    const uint8_t *fh = rpc_fixed(call, FH_SIZE), *data;
    struct node *node;
    uint32_t offset;
    size_t len;
    ssize_t n;

    rpc_u32(call);
    offset = rpc_u32(call);
    rpc_u32(call);
    data = rpc_opaque(call, DATA_MAX, &len);
    if (call->bad)
        return;
    n = find(call, fh, &node);
    if (!n)
        n = tree_write(node, &call->cred, data, len, offset, true);
    /* The answer has no count: less than all is a failure. */
    if (n >= 0 && (size_t)n < len)
        n = -ENOSPC;
    put_result(call, n < 0 ? (int)n : 0, node, false);
}

static int create_special(struct rpc_call *call, struct node *dir, const char *name, uint32_t mode,
                          struct sattr *sa, struct node **node)
{
    uint32_t type = mode & S_IFMT, dev = (uint32_t)sa->size;
    uint32_t minor = (dev & 0xff) | (dev >> 12 & 0xfff00), major = dev >> 8 & 0xfff;

    if (type == S_IFCHR && !sa->set_size)
        type = S_IFIFO;
    sa->set_size = false;
    return tree_mknod(dir, &call->cred, name, type, major, minor, sa, node);
}

static void create(struct rpc_call *call)
{
    struct node *dir, *node = NULL;
    uint32_t mode, type;
    struct sattr sa;
    struct where w;
    int err;

    take_where(call, &w);
    mode = take_sattr(call, &sa);
    if (call->bad)
        return;
    type = sa.set_mode ? mode & S_IFMT : 0;
    err = find_where(call, &w, &dir);
    if (!err && (type == S_IFCHR || type == S_IFBLK || type == S_IFIFO || type == S_IFSOCK))
        err = create_special(call, dir, w.name, mode, &sa, &node);
    else if (!err)
        err = tree_create(dir, &call->cred, w.name, CREATE_UNCHECKED, &sa, NULL, &node);
    put_result(call, err, node, true);
}

static void remove_any(struct rpc_call *call, bool is_dir)
{
    struct node *dir;
    struct where w;
    int err;

    take_where(call, &w);
    if (call->bad)
        return;
    err = find_where(call, &w, &dir);
    if (!err)
        err = tree_remove(dir, &call->cred, w.name, is_dir);
    put_status(call, err);
}

static void remove2(struct rpc_call *call)
{
    remove_any(call, false);
}

static void rmdir2(struct rpc_call *call)
{
    remove_any(call, true);
}

static void rename2(struct rpc_call *call)
{
    struct node *from, *to;
    struct where w, w2;
    int err;

    take_where(call, &w);
    take_where(call, &w2);
    if (call->bad)
        return;
    err = find_where(call, &w, &from);
    if (!err)
        err = find_where(call, &w2, &to);
    if (!err)
        err = tree_rename(from, &call->cred, w.name, to, w2.name);
    put_status(call, err);
}

static void link2(struct rpc_call *call)
{
    const uint8_t *fh = rpc_fixed(call, FH_SIZE);
    struct node *node, *dir;
    struct where w;
    int err;

    take_where(call, &w);
    if (call->bad)
        return;
    err = find(call, fh, &node);
    if (!err)
        err = find_where(call, &w, &dir);
    if (!err)
        err = tree_link(node, &call->cred, dir, w.name);
    put_status(call, err);
}

static void symlink2(struct rpc_call *call)
{
    struct node *dir, *node;
    const uint8_t *target;
    struct where w;
    struct sattr sa;
    size_t len;
    int err;

    take_where(call, &w);
    target = rpc_opaque(call, PATH_LEN_MAX, &len);
    take_sattr(call, &sa);
    if (call->bad)
        return;
    err = find_where(call, &w, &dir);
    if (!err)
        err = tree_symlink(dir, &call->cred, w.name, (const char *)target, len, &sa, &node);
    put_status(call, err);
}

static void mkdir2(struct rpc_call *call)
{
    struct node *dir, *node = NULL;
    struct where w;
    struct sattr sa;
    int err;

    take_where(call, &w);
    take_sattr(call, &sa);
    if (call->bad)
        return;
    err = find_where(call, &w, &dir);
    if (!err)
        err = tree_mkdir(dir, &call->cred, w.name, &sa, &node);
    put_result(call, err, node, true);
}

struct listing {
    struct rpc_call *call;
    unsigned start, max;
    bool any;
};

static bool put_entry(void *opaque, const char *name, uint64_t fileid, uint64_t cookie)
{
    struct listing *l = opaque;
    unsigned len = (unsigned)strlen(name);

    if (rpc_tell(l->call) - l->start + 16 + RNDUP(len) + 8 > l->max)
        return false;
    rpc_put_bool(l->call, true);
    rpc_put_u32(l->call, fold(fileid));
    rpc_put_opaque(l->call, name, len);
    rpc_put_u32(l->call, (uint32_t)cookie);
    l->any = true;
    return true;
}

static void readdir2(struct rpc_call *call)
{
    const uint8_t *fh = rpc_fixed(call, FH_SIZE);
    uint32_t cookie = rpc_u32(call), want = rpc_u32(call);
    struct listing l = {.call = call, .start = rpc_tell(call), .max = MIN(want, DATA_MAX)};
    struct node *dir;
    bool eof;
    int err;

    if (call->bad)
        return;
    put_status(call, 0);
    err = find(call, fh, &dir);
    if (!err)
        err = tree_readdir(dir, &call->cred, cookie, true, l.max, put_entry, &l, &eof);
    if (!err && !l.any && !eof)
        err = -EIO;
    if (err) {
        rpc_seek(call, l.start);
        put_status(call, err);
        return;
    }
    rpc_put_bool(call, false);
    rpc_put_bool(call, eof);
}

/* In units that keep the number of blocks within 31 bits. */
static void statfs2(struct rpc_call *call)
{
    const uint8_t *fh = rpc_fixed(call, FH_SIZE);
    uint64_t unit;
    struct statvfs st;
    struct node *node;
    int err;

    if (call->bad)
        return;
    err = find(call, fh, &node);
    if (!err)
        err = tree_statfs(node, &st);
    put_status(call, err);
    if (err)
        return;
    unit = MAX(st.f_frsize, 1);
    while ((uint64_t)st.f_blocks * st.f_frsize / unit > INT32_MAX && unit < UINT64_C(0x40000000))
        unit *= 2;
    rpc_put_u32(call, DATA_MAX);
    rpc_put_u32(call, (uint32_t)unit);
    rpc_put_u32(call, small((uint64_t)st.f_blocks * st.f_frsize / unit));
    rpc_put_u32(call, small((uint64_t)st.f_bfree * st.f_frsize / unit));
    rpc_put_u32(call, small((uint64_t)st.f_bavail * st.f_frsize / unit));
}

static const struct rpc_proc procs[] = {
    {"NULL", null},           {"GETATTR", getattr},        {"SETATTR", setattr, true},
    {"ROOT", null},           {"LOOKUP", lookup},          {"READLINK", readlink2},
    {"READ", read2},          {"WRITECACHE", null},        {"WRITE", write2},
    {"CREATE", create, true}, {"REMOVE", remove2, true},   {"RENAME", rename2, true},
    {"LINK", link2, true},    {"SYMLINK", symlink2, true}, {"MKDIR", mkdir2, true},
    {"RMDIR", rmdir2, true},  {"READDIR", readdir2},       {"STATFS", statfs2},
};

const struct rpc_program nfs2_program = {PROG_NFS, 2, procs, ARRAY_LEN(procs)};
