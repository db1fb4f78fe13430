/*
 * A client of our own: messages written from the RFCs by hand, given to a server in this process or over TCP.
 * A result is read with g32(), g64(), ...; reading past its end is a failure of the test.
 */
#ifndef ARMLET_TESTS_NFS_CLIENT_H
#define ARMLET_TESTS_NFS_CLIENT_H

#include <errno.h>
#include <glib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nfs/nfs.h"
#include "nfs/stream.h"

#define FH 32
struct client {
    struct nfs_server *server;
    int fd; /* when there is no server here */
    struct nfs_reply reply;
    GByteArray *req;
    const uint8_t *p, *end;
    uint32_t xid, uid, gid;
    bool tcp, same_xid, dead;
    uint8_t root[FH];
};

static inline void p32(struct client *c, uint32_t v)
{
    v = GUINT32_TO_BE(v);
    g_byte_array_append(c->req, (const uint8_t *)&v, 4);
}

static inline void p64(struct client *c, uint64_t v)
{
    p32(c, (uint32_t)(v >> 32));
    p32(c, (uint32_t)v);
}

static inline void pfixed(struct client *c, const void *data, size_t n)
{
    g_byte_array_append(c->req, data, (guint)n);
    g_byte_array_append(c->req, (const uint8_t *)"\0\0\0", (guint)(-n & 3));
}

static inline void pvar(struct client *c, const void *data, size_t n)
{
    p32(c, (uint32_t)n);
    pfixed(c, data, n);
}

static inline void pstr(struct client *c, const char *s)
{
    pvar(c, s, strlen(s));
}

static inline uint32_t g32(struct client *c)
{
    uint32_t v;

    if (c->end - c->p < 4) {
        fprintf(stderr, "a reply is too short\n");
        abort();
    }
    memcpy(&v, c->p, 4);
    c->p += 4;
    return GUINT32_FROM_BE(v);
}

static inline uint64_t g64(struct client *c)
{
    uint64_t hi = g32(c);

    return hi << 32 | g32(c);
}

static inline const uint8_t *gfixed(struct client *c, size_t n)
{
    const uint8_t *p = c->p;
    size_t padded = (n + 3) & ~(size_t)3;

    if ((size_t)(c->end - c->p) < padded) {
        fprintf(stderr, "a reply is too short\n");
        abort();
    }
    c->p += padded;
    return p;
}

static inline const uint8_t *gvar(struct client *c, size_t *n)
{
    *n = g32(c);
    return gfixed(c, *n);
}

static inline void client_init(struct client *c, struct nfs_server *server)
{
    *c = (struct client){.server = server, .fd = -1, .req = g_byte_array_new(), .tcp = true, .xid = 1000};
    nfs_reply_init(&c->reply);
}

static inline void client_done(struct client *c)
{
    g_byte_array_unref(c->req);
    nfs_reply_clear(&c->reply);
}

/* RFC 5531: a call with AUTH_SYS. */
static inline void begin(struct client *c, uint32_t prog, uint32_t vers, uint32_t proc)
{
    g_byte_array_set_size(c->req, 0);
    if (!c->same_xid)
        c->xid++;
    p32(c, c->xid);
    p32(c, 0);
    p32(c, 2);
    p32(c, prog);
    p32(c, vers);
    p32(c, proc);
    p32(c, 1);
    p32(c, 24);
    p32(c, 0);
    pstr(c, "me");
    p32(c, c->uid);
    p32(c, c->gid);
    p32(c, 0);
    p32(c, 0);
    p32(c, 0);
}

static inline bool read_all(int fd, void *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = read(fd, (char *)p + at, n - at);

        if (got <= 0)
            return false;
        at += (size_t)got;
    }
    return true;
}

static inline bool exchange(struct client *c)
{
    uint8_t mark[4];

    if (c->server)
        return nfs_server_call(c->server, c->req->data, c->req->len, c->tcp, &c->reply);
    nfs_stream_mark(mark, c->req->len);
    if (send(c->fd, mark, 4, MSG_NOSIGNAL | MSG_MORE) != 4 ||
        send(c->fd, c->req->data, c->req->len, MSG_NOSIGNAL) != (ssize_t)c->req->len ||
        !read_all(c->fd, mark, 4))
        return false;
    c->reply.len = (size_t)(mark[0] & 0x7f) << 24 | (size_t)mark[1] << 16 | (size_t)mark[2] << 8 | mark[3];
    c->reply.msg = c->reply.base + NFS_REPLY_ROOM;
    return c->reply.len <= NFS_MESSAGE_MAX && read_all(c->fd, c->reply.msg, c->reply.len);
}

/* The accept_stat; 100 + for a denied call; 99 for none. */
static inline uint32_t finish_rpc(struct client *c)
{
    if (!exchange(c)) {
        c->dead = true;
        return 99;
    }
    c->p = c->reply.msg;
    c->end = c->p + c->reply.len;
    if (g32(c) != c->xid || g32(c) != 1)
        return 98;
    if (g32(c) != 0) {
        uint32_t why = g32(c);

        return 100 + why * 10 + (why ? g32(c) : 0);
    }
    g32(c);
    g32(c);
    return g32(c);
}

/* The procedure's own status, which all but NULL begin with. */
static inline uint32_t finish(struct client *c)
{
    uint32_t stat = finish_rpc(c);

    return stat ? 90000 + stat : g32(c);
}

struct fattr {
    uint32_t type, mode, nlink, uid, gid, major, minor, mtime, mtime_ns, atime;
    uint32_t ctime, ctime_ns;
    uint64_t size, used, fsid, fileid;
};

static inline void gattr(struct client *c, struct fattr *a)
{
    a->type = g32(c);
    a->mode = g32(c);
    a->nlink = g32(c);
    a->uid = g32(c);
    a->gid = g32(c);
    a->size = g64(c);
    a->used = g64(c);
    a->major = g32(c);
    a->minor = g32(c);
    a->fsid = g64(c);
    a->fileid = g64(c);
    a->atime = g32(c);
    g32(c);
    a->mtime = g32(c);
    a->mtime_ns = g32(c);
    a->ctime = g32(c);
    a->ctime_ns = g32(c);
}

static inline bool gpost(struct client *c, struct fattr *a)
{
    struct fattr ignored;
    bool there = g32(c);

    if (there)
        gattr(c, a ? a : &ignored);
    return there;
}

static inline void gwcc(struct client *c)
{
    if (g32(c))
        gfixed(c, 24);
    gpost(c, NULL);
}

static inline void gfh(struct client *c, uint8_t fh[FH])
{
    size_t n;
    const uint8_t *p = gvar(c, &n);

    if (n != FH)
        abort();
    memcpy(fh, p, FH);
}

/* --- NFS v3 --- */

enum {
    N3_GETATTR = 1,
    N3_SETATTR,
    N3_LOOKUP,
    N3_ACCESS,
    N3_READLINK,
    N3_READ,
    N3_WRITE,
    N3_CREATE,
    N3_MKDIR,
    N3_SYMLINK,
    N3_MKNOD,
    N3_REMOVE,
    N3_RMDIR,
    N3_RENAME,
    N3_LINK,
    N3_READDIR,
    N3_READDIRPLUS,
    N3_FSSTAT,
    N3_FSINFO,
    N3_PATHCONF,
    N3_COMMIT
};

static inline void begin3(struct client *c, uint32_t proc, const uint8_t fh[FH])
{
    begin(c, 100003, 3, proc);
    pvar(c, fh, FH);
}

/* -1: not set */
static inline void psattr(struct client *c, int64_t mode, int64_t uid, int64_t gid, int64_t size)
{
    const int64_t v[] = {mode, uid, gid};

    for (unsigned i = 0; i < 3; i++) {
        p32(c, v[i] >= 0);
        if (v[i] >= 0)
            p32(c, (uint32_t)v[i]);
    }
    p32(c, size >= 0);
    if (size >= 0)
        p64(c, (uint64_t)size);
    p32(c, 0);
    p32(c, 0);
}

static inline uint32_t nfs_mount(struct client *c, const char *path)
{
    uint32_t stat;

    begin(c, 100005, 3, 1);
    pstr(c, path);
    stat = finish(c);
    if (!stat)
        gfh(c, c->root);
    return stat;
}

static inline uint32_t nfs_getattr(struct client *c, const uint8_t fh[FH], struct fattr *a)
{
    uint32_t stat;

    begin3(c, N3_GETATTR, fh);
    stat = finish(c);
    if (!stat)
        gattr(c, a);
    return stat;
}

static inline uint32_t nfs_setattr(struct client *c, const uint8_t fh[FH], int64_t mode, int64_t uid,
                                   int64_t gid, int64_t size)
{
    begin3(c, N3_SETATTR, fh);
    psattr(c, mode, uid, gid, size);
    p32(c, 0);
    return finish(c);
}

static inline uint32_t nfs_lookup_n(struct client *c, const uint8_t dir[FH], const void *name, size_t n,
                                    uint8_t fh[FH])
{
    uint32_t stat;

    begin3(c, N3_LOOKUP, dir);
    pvar(c, name, n);
    stat = finish(c);
    if (!stat)
        gfh(c, fh);
    return stat;
}

static inline uint32_t nfs_lookup(struct client *c, const uint8_t dir[FH], const char *name, uint8_t fh[FH])
{
    return nfs_lookup_n(c, dir, name, strlen(name), fh);
}

static inline uint32_t finish_new_object(struct client *c, uint8_t fh[FH])
{
    uint32_t stat = finish(c);

    if (!stat && g32(c))
        gfh(c, fh);
    return stat;
}

static inline uint32_t nfs_create(struct client *c, const uint8_t dir[FH], const char *name, uint32_t how,
                                  int mode, uint8_t fh[FH])
{
    begin3(c, N3_CREATE, dir);
    pstr(c, name);
    p32(c, how);
    if (how == 2)
        pfixed(c, "verifier", 8);
    else
        psattr(c, mode, -1, -1, -1);
    return finish_new_object(c, fh);
}

static inline uint32_t nfs_mkdir(struct client *c, const uint8_t dir[FH], const char *name, int mode,
                                 uint8_t fh[FH])
{
    begin3(c, N3_MKDIR, dir);
    pstr(c, name);
    psattr(c, mode, -1, -1, -1);
    return finish_new_object(c, fh);
}

static inline uint32_t nfs_symlink(struct client *c, const uint8_t dir[FH], const char *name,
                                   const char *target, uint8_t fh[FH])
{
    begin3(c, N3_SYMLINK, dir);
    pstr(c, name);
    psattr(c, -1, -1, -1, -1);
    pstr(c, target);
    return finish_new_object(c, fh);
}

/* type: 3 block, 4 character, 6 socket, 7 FIFO */
static inline uint32_t nfs_mknod(struct client *c, const uint8_t dir[FH], const char *name, uint32_t type,
                                 int mode, uint32_t major, uint32_t minor, uint8_t fh[FH])
{
    begin3(c, N3_MKNOD, dir);
    pstr(c, name);
    p32(c, type);
    psattr(c, mode, -1, -1, -1);
    if (type == 3 || type == 4) {
        p32(c, major);
        p32(c, minor);
    }
    return finish_new_object(c, fh);
}

static inline uint32_t nfs_remove(struct client *c, const uint8_t dir[FH], const char *name, bool is_dir)
{
    begin3(c, is_dir ? N3_RMDIR : N3_REMOVE, dir);
    pstr(c, name);
    return finish(c);
}

static inline uint32_t nfs_rename(struct client *c, const uint8_t from[FH], const char *name,
                                  const uint8_t to[FH], const char *to_name)
{
    begin3(c, N3_RENAME, from);
    pstr(c, name);
    pvar(c, to, FH);
    pstr(c, to_name);
    return finish(c);
}

static inline uint32_t nfs_link(struct client *c, const uint8_t fh[FH], const uint8_t dir[FH],
                                const char *name)
{
    begin3(c, N3_LINK, fh);
    pvar(c, dir, FH);
    pstr(c, name);
    return finish(c);
}

/* stable: 0 unstable, 1 data, 2 file; *verf the write verifier */
static inline uint32_t nfs_write(struct client *c, const uint8_t fh[FH], uint64_t offset, const void *data,
                                 uint32_t len, uint32_t stable, uint64_t *verf)
{
    uint32_t stat;

    begin3(c, N3_WRITE, fh);
    p64(c, offset);
    p32(c, len);
    p32(c, stable);
    pvar(c, data, len);
    stat = finish(c);
    if (stat)
        return stat;
    gwcc(c);
    if (g32(c) != len)
        return 77777;
    g32(c);
    if (verf)
        memcpy(verf, gfixed(c, 8), 8);
    return 0;
}

static inline uint32_t nfs_read(struct client *c, const uint8_t fh[FH], uint64_t offset, uint32_t len,
                                const uint8_t **data, size_t *got, bool *eof)
{
    uint32_t stat;

    begin3(c, N3_READ, fh);
    p64(c, offset);
    p32(c, len);
    stat = finish(c);
    if (stat)
        return stat;
    gpost(c, NULL);
    g32(c);
    *eof = g32(c);
    *data = gvar(c, got);
    return 0;
}

static inline uint32_t nfs_commit(struct client *c, const uint8_t fh[FH], uint64_t *verf)
{
    uint32_t stat;

    begin3(c, N3_COMMIT, fh);
    p64(c, 0);
    p32(c, 0);
    stat = finish(c);
    if (stat)
        return stat;
    gwcc(c);
    memcpy(verf, gfixed(c, 8), 8);
    return 0;
}

#endif
