/*
 * NFS version 3 (RFC 1813): each procedure takes its arguments, asks the tree, and says what came of it.
 *
 * Every result begins with the status; on failure the attributes that the RFC wants follow all the same.
 * Attributes from before and after an operation (weak cache consistency, 2.6) are of the moment: the host may
 * be changing the same files.  Threading: the server's.
 */
#include <errno.h>
#include <string.h>

#include "base/compiler.h"
#include "nfs/server.h"

enum {
    PROG_NFS = 100003,
    FH_MAX = 64,
    DATA_MAX_TCP = 1 << 20,
    DATA_MAX_UDP = 32768,
    DIR_PREFERRED = 65536,
    UNSTABLE = 0,
    FILE_SYNC = 2,
};

enum {
    NFS3_OK = 0,
    NFS3ERR_BADHANDLE = 10001,
    NFS3ERR_NOT_SYNC = 10002,
    NFS3ERR_BAD_COOKIE = 10003,
    NFS3ERR_NOTSUPP = 10004,
    NFS3ERR_TOOSMALL = 10005,
    NFS3ERR_SERVERFAULT = 10006,
    NFS3ERR_BADTYPE = 10007,
    NFS3ERR_JUKEBOX = 10008,
};

/* RFC 1813 2.6: Unix errors by number where they have the same, others by name. */
static uint32_t status_of(int err)
{
    static const struct {
        int err;
        uint32_t status;
    } map[] = {
        {EPERM, 1},
        {ENOENT, 2},
        {EIO, 5},
        {ENXIO, 6},
        {EACCES, 13},
        {EEXIST, 17},
        {EXDEV, 18},
        {ENODEV, 19},
        {ENOTDIR, 20},
        {EISDIR, 21},
        {EINVAL, 22},
        {EFBIG, 27},
        {ENOSPC, 28},
        {EROFS, 30},
        {EMLINK, 31},
        {ENAMETOOLONG, 63},
        {ENOTEMPTY, 66},
        {EDQUOT, 69},
        {ESTALE, 70},
        {ELOOP, 22},
        {EBADF, NFS3ERR_BADHANDLE},
        {EAGAIN, NFS3ERR_NOT_SYNC},
        {EOPNOTSUPP, NFS3ERR_NOTSUPP},
        {EMFILE, NFS3ERR_JUKEBOX},
        {ENFILE, NFS3ERR_JUKEBOX},
        {ENOMEM, NFS3ERR_JUKEBOX},
        {ETXTBSY, NFS3ERR_JUKEBOX},
        {EBADMSG, NFS3ERR_BAD_COOKIE},
        {ENOBUFS, NFS3ERR_TOOSMALL},
        {EPROTOTYPE, NFS3ERR_BADTYPE},
        {EBUSY, 13},
    };

    if (!err)
        return NFS3_OK;
    for (unsigned i = 0; i < ARRAY_LEN(map); i++) {
        if (map[i].err == -err)
            return map[i].status;
    }
    return NFS3ERR_SERVERFAULT;
}

/* --- arguments --- */

/* A handle; what is wrong with it comes out of node(). */
struct fh {
    const uint8_t *p;
    size_t len;
};

static struct fh take_fh(struct rpc_call *call)
{
    struct fh fh;

    fh.p = rpc_opaque(call, FH_MAX, &fh.len);
    return fh;
}

static int find(struct rpc_call *call, struct fh fh, struct node **node)
{
    *node = NULL;
    return server_node(call->server, fh.p, fh.len, node);
}

/* A directory and a name in it. */
struct where {
    struct fh dir;
    int err; /* of the name */
    char name[TREE_NAME_MAX + 1];
};

static void take_where(struct rpc_call *call, struct where *w)
{
    const uint8_t *p;
    size_t n;

    w->dir = take_fh(call);
    p = rpc_opaque(call, call->in.x_handy, &n);
    w->err = tree_check_name(p, n, w->name);
}

static int find_where(struct rpc_call *call, const struct where *w, struct node **dir)
{
    int err = find(call, w->dir, dir);

    return err ? err : w->err;
}

static struct timespec take_time(struct rpc_call *call)
{
    struct timespec t;

    t.tv_sec = rpc_u32(call);
    t.tv_nsec = rpc_u32(call);
    if (t.tv_nsec > 999999999)
        t.tv_nsec = 999999999;
    return t;
}

static enum time_how take_set_time(struct rpc_call *call, struct timespec *t)
{
    uint32_t how = rpc_u32(call);

    if (how > 2)
        call->bad = true;
    if (how == 2)
        *t = take_time(call);
    return how == 2 ? TIME_CLIENT : how == 1 ? TIME_SERVER : TIME_KEEP;
}

static bool take_bool(struct rpc_call *call)
{
    uint32_t v = rpc_u32(call);

    if (v > 1)
        call->bad = true;
    return v == 1;
}

static void take_sattr(struct rpc_call *call, struct sattr *sa)
{
    *sa = (struct sattr){0};
    if ((sa->set_mode = take_bool(call)))
        sa->mode = rpc_u32(call) & 07777;
    if ((sa->set_uid = take_bool(call)))
        sa->uid = rpc_u32(call);
    if ((sa->set_gid = take_bool(call)))
        sa->gid = rpc_u32(call);
    if ((sa->set_size = take_bool(call)))
        sa->size = rpc_u64(call);
    sa->atime_how = take_set_time(call, &sa->atime);
    sa->mtime_how = take_set_time(call, &sa->mtime);
}

/* --- results --- */

static void put_time(struct rpc_call *call, const struct timespec *t)
{
    rpc_put_u32(call, (uint32_t)t->tv_sec);
    rpc_put_u32(call, (uint32_t)t->tv_nsec);
}

static uint32_t ftype3(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return 2;
    case S_IFBLK:
        return 3;
    case S_IFCHR:
        return 4;
    case S_IFLNK:
        return 5;
    case S_IFSOCK:
        return 6;
    case S_IFIFO:
        return 7;
    default:
        return 1;
    }
}

static void put_fattr(struct rpc_call *call, const struct attr *a)
{
    rpc_put_u32(call, ftype3(a->mode));
    rpc_put_u32(call, a->mode & 07777);
    rpc_put_u32(call, a->nlink);
    rpc_put_u32(call, a->uid);
    rpc_put_u32(call, a->gid);
    rpc_put_u64(call, a->size);
    rpc_put_u64(call, a->used);
    rpc_put_u32(call, a->major);
    rpc_put_u32(call, a->minor);
    rpc_put_u64(call, a->fsid);
    rpc_put_u64(call, a->fileid);
    put_time(call, &a->atime);
    put_time(call, &a->mtime);
    put_time(call, &a->ctime);
}

/* post_op_attr of a node, or of none. */
static void put_post(struct rpc_call *call, struct node *node)
{
    struct attr a;
    bool there = node && !node_attr(node, &a);

    rpc_put_bool(call, there);
    if (there)
        put_fattr(call, &a);
}

/* What weak cache consistency keeps from before. */
struct pre {
    bool there;
    struct attr attr;
};

static void take_pre(struct node *node, struct pre *pre)
{
    pre->there = node && !node_attr(node, &pre->attr);
}

static void put_wcc(struct rpc_call *call, const struct pre *pre, struct node *node)
{
    rpc_put_bool(call, pre->there);
    if (pre->there) {
        rpc_put_u64(call, pre->attr.size);
        put_time(call, &pre->attr.mtime);
        put_time(call, &pre->attr.ctime);
    }
    put_post(call, node);
}

static void put_fh(struct rpc_call *call, const struct node *node)
{
    uint8_t handle[TREE_HANDLE_SIZE];

    node_handle(node, handle);
    rpc_put_opaque(call, handle, sizeof(handle));
}

/* --- procedures --- */

static void null(struct rpc_call *call)
{
}

static void getattr(struct rpc_call *call)
{
    struct fh fh = take_fh(call);
    struct node *node;
    struct attr a;
    int err;

    if (call->bad)
        return;
    err = find(call, fh, &node);
    if (!err)
        err = node_attr(node, &a);
    rpc_put_u32(call, status_of(err));
    if (!err)
        put_fattr(call, &a);
}

static void setattr(struct rpc_call *call)
{
    struct fh fh = take_fh(call);
    struct timespec guard = {0};
    struct pre pre = {0};
    struct sattr sa;
    struct node *node;
    bool guarded;
    int err;

    take_sattr(call, &sa);
    guarded = take_bool(call);
    if (guarded)
        guard = take_time(call);
    if (call->bad)
        return;
    err = find(call, fh, &node);
    take_pre(node, &pre);
    if (!err)
        err = tree_setattr(node, &call->cred, &sa, guarded ? &guard : NULL);
    rpc_put_u32(call, status_of(err));
    put_wcc(call, &pre, node);
}

static void lookup(struct rpc_call *call)
{
    struct node *dir, *node;
    struct where w;
    struct attr a;
    int err;

    take_where(call, &w);
    if (call->bad)
        return;
    err = find_where(call, &w, &dir);
    if (!err)
        err = tree_lookup(dir, &call->cred, w.name, &node);
    /* Before the handle: what it learns may be a part of that. */
    if (!err)
        err = node_attr(node, &a);
    rpc_put_u32(call, status_of(err));
    if (!err) {
        put_fh(call, node);
        rpc_put_bool(call, true);
        put_fattr(call, &a);
    }
    put_post(call, dir);
}

/* RFC 1813 3.3.4, in terms of r, w and x.  DELETE is about the names in a directory. */
static uint32_t access_of(struct rpc_call *call, const struct node *node, const struct attr *a)
{
    bool dir = S_ISDIR(a->mode), r = attr_may(a, &call->cred, MAY_READ);
    bool w = attr_may(a, &call->cred, MAY_WRITE) && !node->tree->readonly;
    bool x = attr_may(a, &call->cred, MAY_EXEC);

    return (r ? 0x01 : 0) | (dir && x ? 0x02 : 0) | (w ? 0x04 | 0x08 : 0) | (dir && w ? 0x10 : 0) |
           (!dir && x ? 0x20 : 0);
}

static void access3(struct rpc_call *call)
{
    struct fh fh = take_fh(call);
    uint32_t want = rpc_u32(call);
    struct node *node;
    struct attr a;
    int err;

    if (call->bad)
        return;
    err = find(call, fh, &node);
    if (!err)
        err = node_attr(node, &a);
    rpc_put_u32(call, status_of(err));
    rpc_put_bool(call, !err);
    if (err)
        return;
    put_fattr(call, &a);
    rpc_put_u32(call, want & access_of(call, node, &a));
}

static void readlink3(struct rpc_call *call)
{
    struct fh fh = take_fh(call);
    char target[TREE_LINK_MAX + 1];
    struct node *node;
    ssize_t n;

    if (call->bad)
        return;
    n = find(call, fh, &node);
    if (!n)
        n = tree_readlink(node, target);
    rpc_put_u32(call, status_of(n < 0 ? (int)n : 0));
    put_post(call, node);
    if (n >= 0)
        rpc_put_opaque(call, target, (size_t)n);
}

enum { POST_ATTR_SIZE = 88, READ_HEAD = 4 + POST_ATTR_SIZE + 4 + 4 + 4 };

/* The data is read to where it belongs in the message; what comes before it is written afterwards. */
static void read3(struct rpc_call *call)
{
    struct fh fh = take_fh(call);
    uint64_t offset = rpc_u64(call);
    uint32_t want = rpc_u32(call), count = MIN(want, call->tcp ? DATA_MAX_TCP : DATA_MAX_UDP);
    unsigned start = rpc_tell(call);
    struct node *node;
    bool eof = false;
    uint8_t *room;
    ssize_t n;

    if (call->bad)
        return;
    room = rpc_put_room(call, READ_HEAD + (size_t)count);
    if (!room)
        return;
    n = find(call, fh, &node);
    if (!n)
        n = tree_read(node, &call->cred, room + READ_HEAD, count, offset, &eof);
    rpc_put_u32(call, status_of(n < 0 ? (int)n : 0));
    put_post(call, node);
    if (n < 0)
        return;
    if (rpc_tell(call) != start + 4 + POST_ATTR_SIZE) {
        /* The file went away in between. */
        rpc_seek(call, start);
        rpc_put_u32(call, status_of(-ESTALE));
        rpc_put_bool(call, false);
        return;
    }
    rpc_put_u32(call, (uint32_t)n);
    rpc_put_bool(call, eof);
    rpc_put_u32(call, (uint32_t)n);
    rpc_put_done(call, (size_t)n);
}

static void write3(struct rpc_call *call)
{
    struct fh fh = take_fh(call);
    uint64_t offset = rpc_u64(call);
    uint32_t count = rpc_u32(call), stable = rpc_u32(call);
    struct pre pre = {0};
    struct node *node;
    const uint8_t *data;
    size_t len;
    ssize_t n;

    data = rpc_opaque(call, DATA_MAX_TCP, &len);
    if (stable > FILE_SYNC)
        call->bad = true;
    if (call->bad)
        return;
    n = find(call, fh, &node);
    take_pre(node, &pre);
    if (!n)
        n = tree_write(node, &call->cred, data, MIN(len, count), offset, stable != UNSTABLE);
    rpc_put_u32(call, status_of(n < 0 ? (int)n : 0));
    put_wcc(call, &pre, node);
    if (n < 0)
        return;
    rpc_put_u32(call, (uint32_t)n);
    rpc_put_u32(call, stable);
    rpc_put_fixed(call, call->server->write_verf, sizeof(call->server->write_verf));
}

/* What CREATE, MKDIR, SYMLINK and MKNOD answer. */
static void put_new(struct rpc_call *call, int err, struct node *node, const struct pre *pre,
                    struct node *dir)
{
    struct attr a;
    bool known = !err && !node_attr(node, &a);

    rpc_put_u32(call, status_of(err));
    if (!err) {
        rpc_put_bool(call, true);
        put_fh(call, node);
        rpc_put_bool(call, known);
        if (known)
            put_fattr(call, &a);
    }
    put_wcc(call, pre, dir);
}

static void create(struct rpc_call *call)
{
    struct node *dir, *node = NULL;
    const uint8_t *verf = NULL;
    struct sattr sa = {0};
    struct pre pre = {0};
    struct where w;
    uint32_t how;
    int err;

    take_where(call, &w);
    how = rpc_u32(call);
    if (how > CREATE_EXCLUSIVE)
        call->bad = true;
    else if (how == CREATE_EXCLUSIVE)
        verf = rpc_fixed(call, 8);
    else
        take_sattr(call, &sa);
    if (call->bad)
        return;
    err = find_where(call, &w, &dir);
    take_pre(dir, &pre);
    if (!err)
        err = tree_create(dir, &call->cred, w.name, how, &sa, verf, &node);
    put_new(call, err, node, &pre, dir);
}

static void mkdir3(struct rpc_call *call)
{
    struct node *dir, *node = NULL;
    struct pre pre = {0};
    struct where w;
    struct sattr sa;
    int err;

    take_where(call, &w);
    take_sattr(call, &sa);
    if (call->bad)
        return;
    err = find_where(call, &w, &dir);
    take_pre(dir, &pre);
    if (!err)
        err = tree_mkdir(dir, &call->cred, w.name, &sa, &node);
    put_new(call, err, node, &pre, dir);
}

static void symlink3(struct rpc_call *call)
{
    struct node *dir, *node = NULL;
    struct pre pre = {0};
    const uint8_t *target;
    struct where w;
    struct sattr sa;
    size_t len;
    int err;

    take_where(call, &w);
    take_sattr(call, &sa);
    target = rpc_opaque(call, call->in.x_handy, &len);
    if (call->bad)
        return;
    err = find_where(call, &w, &dir);
    take_pre(dir, &pre);
    if (!err)
        err = tree_symlink(dir, &call->cred, w.name, (const char *)target, len, &sa, &node);
    put_new(call, err, node, &pre, dir);
}

/* What follows the type depends on it; a regular file, directory or link cannot be made this way. */
static uint32_t take_special(struct rpc_call *call, struct sattr *sa, uint32_t *major, uint32_t *minor)
{
    static const uint32_t types[] = {[3] = S_IFBLK, [4] = S_IFCHR, [6] = S_IFSOCK, [7] = S_IFIFO};
    uint32_t type = rpc_u32(call);

    *sa = (struct sattr){0};
    *major = *minor = 0;
    if (type < 1 || type > 7)
        return 0;
    if (!types[type])
        return 0;
    take_sattr(call, sa);
    if (type == 3 || type == 4) {
        *major = rpc_u32(call);
        *minor = rpc_u32(call);
    }
    return types[type];
}

static void mknod3(struct rpc_call *call)
{
    struct node *dir, *node = NULL;
    uint32_t type, major, minor;
    struct pre pre = {0};
    struct where w;
    struct sattr sa;
    int err;

    take_where(call, &w);
    type = take_special(call, &sa, &major, &minor);
    if (call->bad)
        return;
    err = find_where(call, &w, &dir);
    take_pre(dir, &pre);
    if (!err)
        err = type ? tree_mknod(dir, &call->cred, w.name, type, major, minor, &sa, &node) : -EPROTOTYPE;
    put_new(call, err, node, &pre, dir);
}

static void remove_any(struct rpc_call *call, bool is_dir)
{
    struct pre pre = {0};
    struct node *dir;
    struct where w;
    int err;

    take_where(call, &w);
    if (call->bad)
        return;
    err = find_where(call, &w, &dir);
    take_pre(dir, &pre);
    if (!err)
        err = tree_remove(dir, &call->cred, w.name, is_dir);
    rpc_put_u32(call, status_of(err));
    put_wcc(call, &pre, dir);
}

static void remove3(struct rpc_call *call)
{
    remove_any(call, false);
}

static void rmdir3(struct rpc_call *call)
{
    remove_any(call, true);
}

static void rename3(struct rpc_call *call)
{
    struct pre pre_from = {0}, pre_to = {0};
    struct node *from, *to = NULL;
    struct where w, w2;
    int err, err2;

    take_where(call, &w);
    take_where(call, &w2);
    if (call->bad)
        return;
    err = find_where(call, &w, &from);
    err2 = find_where(call, &w2, &to);
    take_pre(from, &pre_from);
    take_pre(to, &pre_to);
    err = err ? err : err2;
    if (!err)
        err = tree_rename(from, &call->cred, w.name, to, w2.name);
    rpc_put_u32(call, status_of(err));
    put_wcc(call, &pre_from, from);
    put_wcc(call, &pre_to, to);
}

static void link3(struct rpc_call *call)
{
    struct fh fh = take_fh(call);
    struct pre pre = {0};
    struct node *node, *dir;
    struct where w;
    int err, err2;

    take_where(call, &w);
    if (call->bad)
        return;
    err = find(call, fh, &node);
    err2 = find_where(call, &w, &dir);
    take_pre(dir, &pre);
    err = err ? err : err2;
    if (!err)
        err = tree_link(node, &call->cred, dir, w.name);
    rpc_put_u32(call, status_of(err));
    put_post(call, node);
    put_wcc(call, &pre, dir);
}

/* --- directories --- */

struct listing {
    struct rpc_call *call;
    struct node *dir;
    unsigned start, max;       /* of the whole result */
    unsigned names, names_max; /* READDIRPLUS counts the names by themselves */
    bool plus, any;
};

/* The end of the list and eof: 8 bytes that must fit in the end. */
static bool fits(const struct listing *l, unsigned size, unsigned names)
{
    return rpc_tell(l->call) - l->start + size + 8 <= l->max && l->names + names <= l->names_max;
}

/* Attributes and handle of an entry; without them when it has just gone. */
static void put_plus(struct listing *l, const char *name)
{
    const struct cred root = {0};
    struct node *node;
    struct attr a;
    bool there = !tree_lookup(l->dir, &root, name, &node) && !node_attr(node, &a);

    rpc_put_bool(l->call, there);
    if (there)
        put_fattr(l->call, &a);
    rpc_put_bool(l->call, there);
    if (there)
        put_fh(l->call, node);
}

static bool put_entry(void *opaque, const char *name, uint64_t fileid, uint64_t cookie)
{
    struct listing *l = opaque;
    unsigned len = (unsigned)strlen(name), names = 4 + 8 + 4 + (unsigned)RNDUP(len) + 8;

    if (!fits(l, names + (l->plus ? POST_ATTR_SIZE + 8 + TREE_HANDLE_SIZE : 0), names))
        return false;
    rpc_put_bool(l->call, true);
    rpc_put_u64(l->call, fileid);
    rpc_put_opaque(l->call, name, len);
    rpc_put_u64(l->call, cookie);
    if (l->plus)
        put_plus(l, name);
    l->names += names;
    l->any = true;
    return true;
}

static void list(struct rpc_call *call, bool plus)
{
    static const uint8_t verf[8];
    struct fh fh = take_fh(call);
    uint64_t cookie = rpc_u64(call);
    bool known = !memcmp(rpc_fixed(call, 8), verf, 8), eof = false;
    struct listing l = {.call = call, .plus = plus, .start = rpc_tell(call) + 4};
    uint32_t limit = call->tcp ? DATA_MAX_TCP : DATA_MAX_UDP;
    int err;

    l.names_max = rpc_u32(call);
    l.max = plus ? rpc_u32(call) : l.names_max;
    l.max = MIN(l.max, limit);
    if (call->bad)
        return;
    err = find(call, fh, &l.dir);
    rpc_put_u32(call, NFS3_OK);
    put_post(call, l.dir);
    rpc_put_fixed(call, verf, 8);
    if (!err && cookie && !known)
        err = -EBADMSG;
    if (!err)
        err = tree_readdir(l.dir, &call->cred, cookie, false, plus ? l.max / 5 : l.max, put_entry, &l, &eof);
    if (!err && !l.any && !eof)
        err = -ENOBUFS;
    if (err) {
        rpc_seek(call, l.start - 4);
        rpc_put_u32(call, status_of(err));
        put_post(call, l.dir);
        return;
    }
    rpc_put_bool(call, false);
    rpc_put_bool(call, eof);
}

static void readdir3(struct rpc_call *call)
{
    list(call, false);
}

static void readdirplus(struct rpc_call *call)
{
    list(call, true);
}

/* --- file systems --- */

static void fsstat(struct rpc_call *call)
{
    struct fh fh = take_fh(call);
    struct statvfs st;
    struct node *node;
    int err;

    if (call->bad)
        return;
    err = find(call, fh, &node);
    if (!err)
        err = tree_statfs(node, &st);
    rpc_put_u32(call, status_of(err));
    put_post(call, node);
    if (err)
        return;
    rpc_put_u64(call, (uint64_t)st.f_blocks * st.f_frsize);
    rpc_put_u64(call, (uint64_t)st.f_bfree * st.f_frsize);
    rpc_put_u64(call, (uint64_t)st.f_bavail * st.f_frsize);
    rpc_put_u64(call, st.f_files);
    rpc_put_u64(call, st.f_ffree);
    rpc_put_u64(call, st.f_favail);
    rpc_put_u32(call, 0);
}

static void fsinfo(struct rpc_call *call)
{
    enum { FSF3_LINK = 1, FSF3_SYMLINK = 2, FSF3_HOMOGENEOUS = 8, FSF3_CANSETTIME = 16 };
    struct fh fh = take_fh(call);
    uint32_t max = call->tcp ? DATA_MAX_TCP : DATA_MAX_UDP;
    struct node *node;
    int err;

    if (call->bad)
        return;
    err = find(call, fh, &node);
    rpc_put_u32(call, status_of(err));
    put_post(call, node);
    if (err)
        return;
    rpc_put_u32(call, max); /* rtmax, rtpref, rtmult */
    rpc_put_u32(call, max);
    rpc_put_u32(call, 4096);
    rpc_put_u32(call, max); /* wtmax, wtpref, wtmult */
    rpc_put_u32(call, max);
    rpc_put_u32(call, 4096);
    rpc_put_u32(call, MIN(max, DIR_PREFERRED));
    rpc_put_u64(call, INT64_MAX);
    rpc_put_u32(call, 0); /* time_delta: 1 ns */
    rpc_put_u32(call, 1);
    rpc_put_u32(call, FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME);
}

static void pathconf3(struct rpc_call *call)
{
    struct fh fh = take_fh(call);
    struct node *node;
    int err;

    if (call->bad)
        return;
    err = find(call, fh, &node);
    rpc_put_u32(call, status_of(err));
    put_post(call, node);
    if (err)
        return;
    rpc_put_u32(call, 32000);
    rpc_put_u32(call, TREE_NAME_MAX);
    rpc_put_bool(call, true);  /* no_trunc */
    rpc_put_bool(call, true);  /* chown_restricted */
    rpc_put_bool(call, false); /* case_insensitive */
    rpc_put_bool(call, true);  /* case_preserving */
}

static void commit(struct rpc_call *call)
{
    struct fh fh = take_fh(call);
    struct pre pre = {0};
    struct node *node;
    int err;

    rpc_u64(call);
    rpc_u32(call);
    if (call->bad)
        return;
    err = find(call, fh, &node);
    if (!err)
        err = tree_commit(node);
    take_pre(node, &pre); /* what others did during the wait must not look as if nothing had happened */
    rpc_put_u32(call, status_of(err));
    put_wcc(call, &pre, node);
    if (!err)
        rpc_put_fixed(call, call->server->write_verf, sizeof(call->server->write_verf));
}

static const struct rpc_proc procs[] = {
    {"NULL", null},
    {"GETATTR", getattr},
    {"SETATTR", setattr, true},
    {"LOOKUP", lookup},
    {"ACCESS", access3},
    {"READLINK", readlink3},
    {"READ", read3},
    {"WRITE", write3},
    {"CREATE", create, true},
    {"MKDIR", mkdir3, true},
    {"SYMLINK", symlink3, true},
    {"MKNOD", mknod3, true},
    {"REMOVE", remove3, true},
    {"RMDIR", rmdir3, true},
    {"RENAME", rename3, true},
    {"LINK", link3, true},
    {"READDIR", readdir3},
    {"READDIRPLUS", readdirplus},
    {"FSSTAT", fsstat},
    {"FSINFO", fsinfo},
    {"PATHCONF", pathconf3},
    {"COMMIT", commit},
};

const struct rpc_program nfs3_program = {PROG_NFS, 3, procs, ARRAY_LEN(procs)};
