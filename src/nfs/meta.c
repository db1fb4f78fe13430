/*
 * What the guest sees of an object: owner, mode and kind, from the host or from the extended attribute
 * ATTR_NAME.
 *
 * The attribute is text, "1 KIND MODE UID GID MAJOR:MINOR [INO.BORN]", written only where the host cannot say
 * the same. The permission bits in it count while the host's are those that we derived from them: a chmod by
 * the host wins. An ordinary user's file never becomes setuid or setgid on the host: it would be so for the
 * user, not for guest root. Left out: ACLs; the guest's own extended attributes (NFS v3 carries none).
 * Threading: the server's.
 */
#include "nfs/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "nfs/nfs.h"

#define ATTR_NAME "user.armlet.node"
#define ATTR_MAX  160
/* A change within this time of another may have the same ctime: what is that fresh is not cached. */
#define FRESH_NS INT64_C(50000000)

uint32_t meta_host_mode(uint32_t mode, bool dir)
{
    return dir ? (mode & 01777) | 0700 : (mode & 0777) | 0400;
}

/* Has the host's mode come from `mode'?  A file may have got the owner's write bit on top: see tree.c,
 * node_file(). */
static bool mode_derived(uint32_t host, uint32_t mode, bool dir)
{
    uint32_t want = meta_host_mode(mode, dir);

    return (host & 07777) == want || (!dir && (host & 07777) == (want | 0200));
}

bool meta_stands(const struct meta *meta)
{
    return meta->present && meta->kind != 'f';
}

/* --- the attribute's text --- */

static bool parse_meta(const char *text, struct meta *meta)
{
    struct meta m = {.present = true};
    int n =
        sscanf(text, "1 %c %" SCNo32 " %" SCNu32 " %" SCNu32 " %" SCNu32 ":%" SCNu32 " %" SCNu64 ".%" SCNu64,
               &m.kind, &m.mode, &m.uid, &m.gid, &m.major, &m.minor, &m.id_ino, &m.id_born);

    if ((n != 6 && n != 8) || !memchr("fbcpsl", m.kind, 6) || m.mode > 07777)
        return false;
    *meta = m;
    return true;
}

static int format_meta(const struct meta *m, char *text)
{
    int n = snprintf(text, ATTR_MAX, "1 %c %04o %u %u %u:%u", m->kind, m->mode, m->uid, m->gid, m->major,
                     m->minor);

    if (m->id_ino)
        n += snprintf(text + n, ATTR_MAX - (size_t)n, " %" PRIu64 ".%" PRIu64, m->id_ino, m->id_born);
    return n;
}

/* Absent or not ours: nothing. */
static int take_text(ssize_t n, char *text, struct meta *meta)
{
    *meta = (struct meta){0};
    if (n < 0)
        return errno == ENODATA || errno == EOPNOTSUPP || errno == ERANGE || errno == EACCES ? 0 : -errno;
    text[n] = 0;
    parse_meta(text, meta);
    return 0;
}

static int read_meta_fd(int fd, struct meta *meta)
{
    char text[ATTR_MAX], path[32];
    ssize_t n;

    fd_path(path, fd);
    n = getxattr(path, ATTR_NAME, text, sizeof(text) - 1);
    return take_text(n, text, meta);
}

static int read_meta_at(int dirfd, const char *name, struct meta *meta)
{
    char text[ATTR_MAX], path[32 + TREE_NAME_MAX + 2];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
    n = lgetxattr(path, ATTR_NAME, text, sizeof(text) - 1);
    return take_text(n, text, meta);
}

bool meta_replaces(int dirfd, const char *name, const struct node_key *id)
{
    struct meta meta;

    return !read_meta_at(dirfd, name, &meta) && meta.present && meta.id_ino == id->ino &&
           meta.id_born == id->born;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static struct timespec to_timespec(const struct statx_timestamp *t)
{
    return (struct timespec){.tv_sec = t->tv_sec, .tv_nsec = t->tv_nsec};
}

static bool is_fresh(const struct timespec *t)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (now.tv_sec - t->tv_sec) * INT64_C(1000000000) + now.tv_nsec - t->tv_nsec < FRESH_NS;
}

static bool can_have_meta(const struct node *node)
{
    return node->tree->xattr && (S_ISREG(node->type) || S_ISDIR(node->type));
}

static int load_meta(struct node *node)
{
    const struct place *place = node->places;
    struct meta *meta = &node->meta;
    bool owned;
    int fd, err;

    if (node->fd >= 0)
        return read_meta_fd(node->fd, meta);
    if (place && place->parent->fd >= 0 && !read_meta_at(place->parent->fd, place->name, meta))
        return 0;
    fd = node_pathfd(node, &owned);
    if (fd < 0)
        return fd;
    err = read_meta_fd(fd, meta);
    if (owned)
        close(fd);
    return err;
}

/* node->meta becomes what holds for `stx'. */
static int refresh_meta(struct node *node, const struct statx *stx)
{
    struct timespec ctime = to_timespec(&stx->stx_ctime);
    int err;

    if (!can_have_meta(node) || (node->meta_ctime.tv_sec && same_time(&ctime, &node->meta_ctime)))
        return 0;
    err = load_meta(node);
    if (err)
        return err;
    if (is_fresh(&ctime))
        ctime = (struct timespec){0};
    node->meta_ctime = ctime;
    if (node->meta.present && node->meta.id_ino) {
        struct node_key id = {node->meta.id_ino, node->meta.id_born, node->host.dev};

        node_alias(node, &id);
    }
    return 0;
}

/* --- as the guest sees it --- */

static bool own_group(const struct tree *tree, gid_t gid)
{
    for (int i = 0; i < tree->n_groups; i++) {
        if (tree->groups[i] == gid)
            return true;
    }
    return gid == tree->gid;
}

static void default_meta(const struct tree *tree, const struct statx *stx, struct meta *m)
{
    *m = (struct meta){
        .kind = 'f',
        .mode = stx->stx_mode & 07777,
        .uid = stx->stx_uid,
        .gid = stx->stx_gid,
        .major = stx->stx_rdev_major,
        .minor = stx->stx_rdev_minor,
    };
    if (tree->real)
        return;
    if (m->uid == tree->uid)
        m->uid = 0;
    if (own_group(tree, stx->stx_gid))
        m->gid = 0;
}

int meta_get(struct node *node, const struct statx *stx, struct meta *meta)
{
    bool dir = S_ISDIR(node->type);
    int err = refresh_meta(node, stx);

    if (err)
        return err;
    default_meta(node->tree, stx, meta);
    if (!can_have_meta(node) || !node->meta.present)
        return 0;
    uint32_t host = meta->mode;

    *meta = node->meta;
    if (dir)
        meta->kind = 'f';
    if (!mode_derived(host, meta->mode, dir) && !meta_stands(meta))
        meta->mode = (meta->mode & 06000) | (host & 01777);
    return 0;
}

static uint32_t kind_type(char kind, uint32_t host)
{
    switch (kind) {
    case 'b':
        return S_IFBLK;
    case 'c':
        return S_IFCHR;
    case 'p':
        return S_IFIFO;
    case 's':
        return S_IFSOCK;
    case 'l':
        return S_IFLNK;
    default:
        return host;
    }
}

int node_attr_from(struct node *node, const struct statx *stx, struct attr *attr)
{
    struct meta m;
    int err = meta_get(node, stx, &m);

    if (err)
        return err;
    *attr = (struct attr){
        .mode = m.mode | kind_type(m.kind, node->type),
        .nlink = stx->stx_nlink,
        .uid = m.uid,
        .gid = m.gid,
        .major = m.major,
        .minor = m.minor,
        .fsid = key_dev(stx),
        .fileid = node->id.ino,
        .size = stx->stx_size,
        .used = stx->stx_blocks * 512,
        .atime = to_timespec(&stx->stx_atime),
        .mtime = to_timespec(&stx->stx_mtime),
        .ctime = to_timespec(&stx->stx_ctime),
    };
    return 0;
}

int node_attr(struct node *node, struct attr *attr)
{
    struct statx stx;
    int err = node_stat(node, &stx);

    return err ? err : node_attr_from(node, &stx, attr);
}

/* --- who may what --- */

bool cred_is(const struct cred *cred, uint32_t uid)
{
    return cred->uid == 0 || cred->uid == uid;
}

bool cred_in_group(const struct cred *cred, uint32_t gid)
{
    for (unsigned i = 0; i < cred->n; i++) {
        if (cred->groups[i] == gid)
            return true;
    }
    return cred->gid == gid;
}

bool attr_may(const struct attr *attr, const struct cred *cred, unsigned want)
{
    unsigned bits = attr->mode & 7;

    if (cred->uid == 0)
        return !(want & MAY_EXEC) || S_ISDIR(attr->mode) || (attr->mode & 0111);
    if (cred->uid == attr->uid)
        bits = attr->mode >> 6 & 7;
    else if (cred_in_group(cred, attr->gid))
        bits = attr->mode >> 3 & 7;
    return (bits & want) == want;
}

/* --- changing it --- */

/* user.* attributes want write permission by the mode, which the owner can give himself. */
static int retry_writable(int pathfd, const char *path, const char *text, size_t len)
{
    struct stat st;
    int err;

    if (fstat(pathfd, &st) < 0 || (st.st_mode & 0200) || chmod(path, (st.st_mode & 07777) | 0200) < 0)
        return -EACCES;
    if (!text)
        err = removexattr(path, ATTR_NAME) < 0 && errno != ENODATA ? -errno : 0;
    else
        err = setxattr(path, ATTR_NAME, text, len, 0) < 0 ? -errno : 0;
    if (chmod(path, st.st_mode & 07777) < 0 && !err)
        err = -errno;
    return err;
}

int meta_write(int pathfd, const struct meta *meta)
{
    char text[ATTR_MAX], path[32];
    int n = format_meta(meta, text);

    fd_path(path, pathfd);
    if (!setxattr(path, ATTR_NAME, text, (size_t)n, 0))
        return 0;
    if (errno == EACCES)
        return retry_writable(pathfd, path, text, (size_t)n);
    /* Not an error the guest can do anything about but believe. */
    return errno == EOPNOTSUPP ? -EPERM : -errno;
}

static int remove_meta(int pathfd)
{
    char path[32];

    fd_path(path, pathfd);
    if (!removexattr(path, ATTR_NAME) || errno == ENODATA || errno == EOPNOTSUPP)
        return 0;
    return errno == EACCES ? retry_writable(pathfd, path, NULL, 0) : -errno;
}

static int chmod_fd(int pathfd, uint32_t mode)
{
    char path[32];

    fd_path(path, pathfd);
    return chmod(path, mode) < 0 ? -errno : 0;
}

static int apply_real(struct node *node, int pathfd, const struct statx *stx, const struct meta *want)
{
    if ((want->uid != stx->stx_uid || want->gid != stx->stx_gid) &&
        fchownat(pathfd, "", want->uid, want->gid, AT_EMPTY_PATH) < 0)
        return -errno;
    /* chown may have cleared bits that are wanted. */
    if (S_ISLNK(node->type) ||
        (want->mode == (stx->stx_mode & 07777u) && want->uid == stx->stx_uid && want->gid == stx->stx_gid))
        return 0;
    return chmod_fd(pathfd, want->mode);
}

int meta_apply(struct node *node, int pathfd, const struct statx *stx, const struct meta *want)
{
    bool dir = S_ISDIR(node->type), stands = meta_stands(want);
    uint32_t host = stx->stx_mode & 07777;
    struct meta def, m = *want;
    int err = 0;

    if (node->tree->real)
        return apply_real(node, pathfd, stx, want);
    node->meta_ctime = (struct timespec){0};
    if (!stands && !S_ISLNK(node->type) && !mode_derived(host, want->mode, dir))
        err = chmod_fd(pathfd, host = meta_host_mode(want->mode, dir));
    if (err)
        return err;
    default_meta(node->tree, stx, &def);
    m.present = true;
    if (stands || want->uid != def.uid || want->gid != def.gid ||
        (want->mode != host && !S_ISLNK(node->type)))
        return can_have_meta(node) ? meta_write(pathfd, &m) : -EPERM;
    return node->tree->xattr && node->meta.present ? remove_meta(pathfd) : 0;
}

int node_promote(struct node *node)
{
    bool owned, dir = S_ISDIR(node->type);
    struct statx stx;
    struct meta m;
    int fd, err = node_stat(node, &stx);
    uint32_t mode;

    if (err || node->tree->real || !can_have_meta(node) || stx.stx_uid != node->tree->uid)
        return err ? err : -EACCES;
    err = meta_get(node, &stx, &m);
    mode = meta_host_mode(m.mode, dir) | 0200;
    if (err || mode == (stx.stx_mode & 07777u))
        return err ? err : -EACCES;
    fd = node_pathfd(node, &owned);
    if (fd < 0)
        return fd;
    m.present = true;
    err = meta_write(fd, &m);
    if (!err)
        err = chmod_fd(fd, mode);
    node->meta_ctime = (struct timespec){0};
    if (owned)
        close(fd);
    return err;
}

/* Asked of the root itself, which a read-only export may not change: reading tells enough. */
bool tree_has_xattr(struct tree *tree)
{
    char text[ATTR_MAX];

    return fgetxattr(tree->root->fd, ATTR_NAME, text, sizeof(text)) >= 0 || errno != EOPNOTSUPP;
}

static mode_t type_of_kind(char kind)
{
    return kind == 'b' ? S_IFBLK : kind == 'c' ? S_IFCHR : kind == 'p' ? S_IFIFO : kind == 's' ? S_IFSOCK : S_IFLNK;
}

int nfs_mapped_get(const char *path, struct stat *st)
{
    struct meta m = {0};
    char text[ATTR_MAX];
    int err;

    if (lstat(path, st) < 0)
        return -errno;
    err = take_text(lgetxattr(path, ATTR_NAME, text, sizeof(text) - 1), text, &m);
    if (err)
        return err;
    st->st_uid = m.uid;
    st->st_gid = m.gid;
    if (meta_stands(&m)) {
        st->st_mode = type_of_kind(m.kind) | m.mode;
        st->st_rdev = makedev(m.major, m.minor);
    } else if (m.present && mode_derived(st->st_mode, m.mode, S_ISDIR(st->st_mode))) {
        st->st_mode = (st->st_mode & S_IFMT) | m.mode;
    }
    return 0;
}

int nfs_mapped_set(int fd, uint32_t mode, uint32_t uid, uint32_t gid)
{
    struct meta m = {.present = true, .kind = 'f', .mode = mode, .uid = uid, .gid = gid};
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    uint32_t host = meta_host_mode(mode, S_ISDIR(st.st_mode));
    int err = uid || gid || host != mode ? meta_write(fd, &m) : 0;

    return err ? err : fchmod(fd, host) < 0 ? -errno : 0;
}
