/*
 * What can be done to the names and attributes of an export.
 *
 * Permissions are checked here, against what the guest sees, for both kinds of ids: the host would ask about
 * the user who runs the program.  The rules are POSIX's; guest root is asked nothing. Names are changed by
 * the host's own atomic calls below a directory's descriptor. Threading: the server's.
 */
#include "nfs/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* So that a tree can always be walked, and its path be opened in a few steps. */
#define DEPTH_MAX 1000

static bool is_dots(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

/* --- lookup --- */

/* Directory, and may it be searched (and written)? */
static int check_dir(struct node *dir, const struct cred *cred, unsigned want, struct attr *attr)
{
    int err = node_attr(dir, attr);

    if (err)
        return err;
    if (!S_ISDIR(attr->mode))
        return -ENOTDIR;
    if (want & MAY_WRITE && dir->tree->readonly)
        return -EROFS;
    return attr_may(attr, cred, want) ? 0 : -EACCES;
}

static int stat_child(struct node *dir, const char *name, struct statx *stx)
{
    int fd = node_dirfd(dir), err;

    if (fd < 0)
        return fd;
    err = statx_at(fd, name, stx);
    if (err == -EACCES && !node_promote(dir)) {
        fd = node_dirfd(dir);
        err = fd < 0 ? fd : statx_at(fd, name, stx);
    }
    return err;
}

static int find_child(struct node *dir, const char *name, struct node **node, struct statx *stx)
{
    int err = stat_child(dir, name, stx);

    if (err)
        return err;
    *node = node_get(dir->tree, stx);
    node_add_place(*node, dir, name);
    return 0;
}

static int lookup_dots(struct node *dir, const char *name, struct node **node)
{
    *node = dir;
    if (!strcmp(name, ".") || dir == dir->tree->root)
        return 0;
    if (!dir->places)
        return -ESTALE;
    *node = dir->places->parent;
    return 0;
}

int tree_lookup(struct node *dir, const struct cred *cred, const char *name, struct node **node)
{
    struct statx stx;
    struct attr attr;
    int err = check_dir(dir, cred, MAY_EXEC, &attr);

    if (err)
        return err;
    return is_dots(name) ? lookup_dots(dir, name, node) : find_child(dir, name, node, &stx);
}

/* --- attributes --- */

/* POSIX: who may chown, chmod and set times.  Takes away the bits that the change costs. */
static int check_setattr(const struct attr *attr, const struct cred *cred, struct sattr *sa)
{
    bool owner = cred_is(cred, attr->uid);
    bool touch = sa->atime_how == TIME_SERVER && sa->mtime_how == TIME_SERVER;

    if (sa->set_uid && cred->uid != 0 && (cred->uid != attr->uid || sa->uid != attr->uid))
        return -EPERM;
    if (sa->set_gid && cred->uid != 0 && (!owner || (sa->gid != attr->gid && !cred_in_group(cred, sa->gid))))
        return -EPERM;
    if (sa->set_mode && !owner)
        return -EPERM;
    if ((sa->atime_how || sa->mtime_how) && !owner && !(touch && attr_may(attr, cred, MAY_WRITE)))
        return touch ? -EACCES : -EPERM;
    if (sa->set_size && !owner && !attr_may(attr, cred, MAY_WRITE))
        return -EACCES;
    if (sa->set_mode && cred->uid != 0 && !S_ISDIR(attr->mode) &&
        !cred_in_group(cred, sa->set_gid ? sa->gid : attr->gid))
        sa->mode &= ~(uint32_t)02000;
    return 0;
}

static int set_size(struct node *node, const struct attr *attr, uint64_t size)
{
    int fd;

    if (!S_ISREG(attr->mode))
        return S_ISDIR(attr->mode) ? -EISDIR : -EINVAL;
    if (size > INT64_MAX)
        return -EFBIG;
    fd = node_file(node, true);
    if (fd < 0)
        return fd;
    return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

static struct timespec time_of(enum time_how how, struct timespec t)
{
    if (how == TIME_CLIENT)
        return t;
    return (struct timespec){.tv_nsec = how == TIME_SERVER ? UTIME_NOW : UTIME_OMIT};
}

static int set_times(int fd, const struct sattr *sa)
{
    struct timespec ts[2] = {time_of(sa->atime_how, sa->atime), time_of(sa->mtime_how, sa->mtime)};
    char path[32];

    if (!sa->atime_how && !sa->mtime_how)
        return 0;
    if (!utimensat(fd, "", ts, AT_EMPTY_PATH))
        return 0;
    /* Kernels before 5.8. */
    fd_path(path, fd);
    return errno == EINVAL && !utimensat(AT_FDCWD, path, ts, 0) ? 0 : -errno;
}

/* A link of the host cannot have an owner of its own: a regular file takes its place, and its handle. */
static int replace_link(struct node *node, const struct meta *want)
{
    const struct place *place = node->places;
    char target[TREE_LINK_MAX + 1], temp[64];
    struct node_key id = node->id;
    struct meta m = *want;
    struct statx stx;
    ssize_t n = tree_readlink(node, target);
    int dirfd = place ? node_dirfd(place->parent) : -ESTALE, fd, err;

    if (n < 0 || dirfd < 0)
        return n < 0 ? (int)n : dirfd;
    snprintf(temp, sizeof(temp), ".armlet-%d-%" G_GINT64_MODIFIER "x", getpid(), g_get_monotonic_time());
    fd = openat(dirfd, temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    m.present = true;
    m.kind = 'l';
    m.mode = 0777;
    m.id_ino = id.ino;
    m.id_born = id.born;
    err = pwrite(fd, target, (size_t)n, 0) == n ? meta_write(fd, &m) : -EIO;
    if (!err)
        err = statx_at(fd, "", &stx);
    if (!err && renameat(dirfd, temp, dirfd, place->name) < 0)
        err = -errno;
    if (err)
        unlinkat(dirfd, temp, 0);
    close(fd);
    if (!err)
        node_become(node, &stx);
    return err;
}

static int set_owner_mode(struct node *node, int fd, const struct statx *stx, const struct attr *attr,
                          const struct sattr *sa)
{
    struct meta was, m;
    int err = meta_get(node, stx, &was);

    m = was;
    if (err || !(sa->set_mode || sa->set_uid || sa->set_gid))
        return err;
    if (sa->set_uid)
        m.uid = sa->uid;
    if (sa->set_gid)
        m.gid = sa->gid;
    if (sa->set_mode)
        m.mode = sa->mode & 07777;
    /* chown takes away what a program would gain by its new owner. */
    if ((sa->set_uid || sa->set_gid) && S_ISREG(attr->mode))
        m.mode &= ~(uint32_t)((m.mode & 02010) == 02010 ? 06000 : 04000);
    if (S_ISLNK(attr->mode))
        m.mode = was.mode;
    if (m.mode == was.mode && m.uid == was.uid && m.gid == was.gid)
        return 0;
    if (S_ISLNK(node->type) && !node->tree->real)
        return stx->stx_nlink == 1 ? replace_link(node, &m) : -EPERM;
    return meta_apply(node, fd, stx, &m);
}

static int change_attr(struct node *node, const struct statx *stx, const struct attr *attr,
                       const struct sattr *sa)
{
    bool owned;
    int fd = node_pathfd(node, &owned), err;

    if (fd < 0)
        return fd;
    err = set_owner_mode(node, fd, stx, attr, sa);
    if (!err && (sa->atime_how || sa->mtime_how)) {
        /* What stands for it may be another file by now. */
        if (owned)
            close(fd);
        fd = node_pathfd(node, &owned);
        err = fd < 0 ? fd : set_times(fd, sa);
    }
    if (owned && fd >= 0)
        close(fd);
    return err;
}

int tree_setattr(struct node *node, const struct cred *cred, const struct sattr *sa,
                 const struct timespec *guard)
{
    struct sattr want = *sa;
    struct statx stx;
    struct attr attr;
    int err = node_stat(node, &stx);

    if (!err)
        err = node_attr_from(node, &stx, &attr);
    if (err)
        return err;
    if (guard && (guard->tv_sec != (uint32_t)attr.ctime.tv_sec || guard->tv_nsec != attr.ctime.tv_nsec))
        return -EAGAIN;
    if (node->tree->readonly)
        return -EROFS;
    err = check_setattr(&attr, cred, &want);
    if (!err && want.set_size) {
        err = set_size(node, &attr, want.size);
        if (!err)
            err = node_stat(node, &stx);
    }
    return err ? err : change_attr(node, &stx, &attr, &want);
}

/* --- making things --- */

/* Owner, group and mode of something new in `dir'. */
static void new_meta(const struct attr *dir, const struct cred *cred, const struct sattr *sa, uint32_t mode,
                     struct meta *m)
{
    *m = (struct meta){.present = true, .kind = 'f', .mode = sa->set_mode ? sa->mode & 07777 : mode};
    m->uid = sa->set_uid && cred->uid == 0 ? sa->uid : cred->uid;
    m->gid = sa->set_gid && (cred->uid == 0 || cred_in_group(cred, sa->gid)) ? sa->gid : cred->gid;
    if (dir->mode & 02000 && !sa->set_gid)
        m->gid = dir->gid;
}

static unsigned depth_of(const struct node *dir)
{
    unsigned n = 0;

    while (dir->places && n < DEPTH_MAX) {
        dir = dir->places->parent;
        n++;
    }
    return n;
}

static int check_new(struct node *dir, const struct cred *cred, const char *name, struct attr *attr)
{
    int err = check_dir(dir, cred, MAY_WRITE | MAY_EXEC, attr);

    if (err)
        return err;
    if (is_dots(name))
        return -EEXIST;
    return depth_of(dir) >= DEPTH_MAX ? -ENAMETOOLONG : 0;
}

/* A new object's node, with `m' applied; without it the object goes away again. */
static int finish_new(struct node *dir, const char *name, const struct meta *m, const struct sattr *sa,
                      struct node **node)
{
    struct statx stx;
    bool owned = false;
    int err = find_child(dir, name, node, &stx), fd;

    if (err)
        return err;
    fd = node_pathfd(*node, &owned);
    err = fd < 0 ? fd : meta_apply(*node, fd, &stx, m);
    if (!err)
        err = set_times(fd, sa);
    if (owned)
        close(fd);
    if (err) {
        node_close(*node);
        unlinkat(dir->fd, name, S_ISDIR((*node)->type) ? AT_REMOVEDIR : 0);
        node_drop_place(*node, dir, name);
    }
    return err;
}

struct maker {
    int (*make)(const struct maker *maker, int dirfd, const char *name);
    uint32_t mode; /* the host's, with type */
    dev_t dev;
    const void *content;
    size_t len;
};

static int make_with(struct node *dir, const char *name, const struct maker *maker)
{
    int fd = node_dirfd(dir), err = fd < 0 ? fd : maker->make(maker, fd, name);

    if (err == -EACCES && !node_promote(dir)) {
        fd = node_dirfd(dir);
        err = fd < 0 ? fd : maker->make(maker, fd, name);
    }
    return err;
}

/* Returns a descriptor. */
static int make_file(const struct maker *maker, int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, maker->mode & 0777);
    ssize_t n = 0;

    if (fd < 0)
        return -errno;
    if (maker->len)
        n = pwrite(fd, maker->content, maker->len, 0);
    if (n != (ssize_t)maker->len) {
        int err = n < 0 ? -errno : -ENOSPC;

        close(fd);
        unlinkat(dirfd, name, 0);
        return err;
    }
    return fd;
}

static int make_stand_in(const struct maker *maker, int dirfd, const char *name)
{
    int fd = make_file(maker, dirfd, name);

    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

static int make_dir(const struct maker *maker, int dirfd, const char *name)
{
    return mkdirat(dirfd, name, maker->mode & 0777) < 0 ? -errno : 0;
}

static int make_link(const struct maker *maker, int dirfd, const char *name)
{
    return symlinkat(maker->content, dirfd, name) < 0 ? -errno : 0;
}

static int make_node(const struct maker *maker, int dirfd, const char *name)
{
    return mknodat(dirfd, name, maker->mode, maker->dev) < 0 ? -errno : 0;
}

/* RFC 1813 3.3.8: the verifier is kept where it is on disk with the file: in its times, until the client sets
 * them. */
static void verf_to_times(const uint8_t verf[8], struct sattr *sa)
{
    uint32_t a, m;

    memcpy(&a, verf, 4);
    memcpy(&m, verf + 4, 4);
    sa->atime = (struct timespec){.tv_sec = GUINT32_FROM_BE(a) & 0x7fffffff};
    sa->mtime = (struct timespec){.tv_sec = GUINT32_FROM_BE(m) & 0x7fffffff};
    sa->atime_how = sa->mtime_how = TIME_CLIENT;
}

static int create_existing(struct node *dir, const struct cred *cred, const char *name, enum create_how how,
                           const struct sattr *sa, struct node **node)
{
    struct sattr size = {.set_size = sa->set_size, .size = sa->size};
    struct statx stx;
    struct attr attr;
    int err = find_child(dir, name, node, &stx);

    if (!err)
        err = node_attr_from(*node, &stx, &attr);
    if (err)
        return err;
    if (how == CREATE_EXCLUSIVE)
        return attr.atime.tv_sec == sa->atime.tv_sec && attr.mtime.tv_sec == sa->mtime.tv_sec && !attr.size
                   ? 0
                   : -EEXIST;
    if (how == CREATE_GUARDED)
        return -EEXIST;
    if (!S_ISREG(attr.mode))
        return S_ISDIR(attr.mode) ? -EISDIR : -EEXIST;
    return sa->set_size ? tree_setattr(*node, cred, &size, NULL) : 0;
}

static int create_new(struct node *dir, const char *name, const struct meta *m, const struct sattr *sa,
                      struct node **node)
{
    struct maker maker = {.make = make_file, .mode = meta_host_mode(m->mode, false)};
    int fd = make_with(dir, name, &maker), err;
    struct statx stx;

    if (fd < 0)
        return fd;
    err = statx_at(fd, "", &stx);
    if (!err && sa->set_size && sa->size && ftruncate(fd, (off_t)MIN(sa->size, INT64_MAX)) < 0)
        err = -errno;
    if (err) {
        close(fd);
        unlinkat(dir->fd, name, 0);
        return err;
    }
    *node = node_get(dir->tree, &stx);
    node_add_place(*node, dir, name);
    node_adopt(*node, fd);
    return finish_new(dir, name, m, sa, node);
}

int tree_create(struct node *dir, const struct cred *cred, const char *name, enum create_how how,
                const struct sattr *sa, const uint8_t verf[8], struct node **node)
{
    struct sattr want = *sa;
    struct statx stx;
    struct attr attr;
    struct meta m;
    int err = check_dir(dir, cred, MAY_EXEC, &attr);

    if (err)
        return err;
    if (is_dots(name))
        return -EEXIST;
    if (how == CREATE_EXCLUSIVE) {
        want = (struct sattr){0};
        verf_to_times(verf, &want);
    }
    err = stat_child(dir, name, &stx);
    if (err == -ENOENT) {
        err = check_new(dir, cred, name, &attr);
        if (err)
            return err;
        new_meta(&attr, cred, &want, how == CREATE_EXCLUSIVE ? 0600 : 0644, &m);
        err = create_new(dir, name, &m, &want, node);
        /* Somebody else was faster. */
        return err == -EEXIST ? create_existing(dir, cred, name, how, &want, node) : err;
    }
    if (!err && dir->tree->readonly)
        return -EROFS;
    return err ? err : create_existing(dir, cred, name, how, &want, node);
}

int tree_mkdir(struct node *dir, const struct cred *cred, const char *name, const struct sattr *sa,
               struct node **node)
{
    struct maker maker = {.make = make_dir};
    struct attr attr;
    struct meta m;
    int err = check_new(dir, cred, name, &attr);

    if (err)
        return err;
    new_meta(&attr, cred, sa, 0755, &m);
    m.mode |= attr.mode & 02000;
    maker.mode = meta_host_mode(m.mode, true);
    err = make_with(dir, name, &maker);
    return err ? err : finish_new(dir, name, &m, sa, node);
}

int tree_symlink(struct node *dir, const struct cred *cred, const char *name, const char *target, size_t len,
                 const struct sattr *sa, struct node **node)
{
    g_autofree char *text = g_strndup(target, len);
    struct maker link = {.make = make_link, .content = text};
    struct maker stand_in = {.make = make_stand_in, .mode = 0600, .content = target, .len = len};
    struct attr attr;
    struct meta m;
    int err = check_new(dir, cred, name, &attr);
    bool plain;

    if (err)
        return err;
    if (len == 0 || memchr(target, 0, len))
        return -EINVAL;
    if (len > TREE_LINK_MAX)
        return -ENAMETOOLONG;
    new_meta(&attr, cred, sa, 0777, &m);
    m.mode = 0777;
    plain = dir->tree->real || (m.uid == 0 && m.gid == 0);
    if (!plain)
        m.kind = 'l';
    err = make_with(dir, name, plain ? &link : &stand_in);
    return err ? err : finish_new(dir, name, &m, sa, node);
}

static char kind_of(uint32_t type)
{
    return type == S_IFBLK ? 'b' : type == S_IFCHR ? 'c' : type == S_IFIFO ? 'p' : 's';
}

int tree_mknod(struct node *dir, const struct cred *cred, const char *name, uint32_t type, uint32_t major,
               uint32_t minor, const struct sattr *sa, struct node **node)
{
    struct maker maker = {.make = make_stand_in, .mode = 0600};
    struct attr attr;
    struct meta m;
    int err = check_new(dir, cred, name, &attr);

    if (err)
        return err;
    new_meta(&attr, cred, sa, 0644, &m);
    if ((type == S_IFBLK || type == S_IFCHR) && cred->uid != 0)
        return -EPERM;
    if (dir->tree->real) {
        maker =
            (struct maker){.make = make_node, .mode = type | (m.mode & 0777), .dev = makedev(major, minor)};
    } else {
        if (!dir->tree->xattr)
            return -EOPNOTSUPP;
        m.kind = kind_of(type);
        m.major = type == S_IFBLK || type == S_IFCHR ? major : 0;
        m.minor = type == S_IFBLK || type == S_IFCHR ? minor : 0;
        maker.mode = meta_host_mode(m.mode, false);
    }
    err = make_with(dir, name, &maker);
    return err ? err : finish_new(dir, name, &m, sa, node);
}

/* --- taking things away, and moving them --- */

/* In a sticky directory only the owners may. */
static int check_sticky(const struct attr *dir, const struct cred *cred, struct node *node,
                        const struct statx *stx)
{
    struct attr attr;
    int err;

    if (!(dir->mode & 01000) || cred_is(cred, dir->uid))
        return 0;
    err = node_attr_from(node, stx, &attr);
    if (err)
        return err;
    return cred->uid == attr.uid ? 0 : -EPERM;
}

int tree_remove(struct node *dir, const struct cred *cred, const char *name, bool is_dir)
{
    struct node *node;
    struct statx stx;
    struct attr attr;
    int err = check_dir(dir, cred, MAY_WRITE | MAY_EXEC, &attr), fd;

    if (err)
        return err;
    if (is_dots(name))
        return strcmp(name, ".") ? is_dir ? -EEXIST : -EISDIR : -EINVAL;
    err = find_child(dir, name, &node, &stx);
    if (!err)
        err = check_sticky(&attr, cred, node, &stx);
    if (err)
        return err;
    fd = node_dirfd(dir);
    if (fd < 0)
        return fd;
    if (unlinkat(fd, name, is_dir ? AT_REMOVEDIR : 0) < 0) {
        if (errno != EACCES || node_promote(dir) || unlinkat(fd, name, is_dir ? AT_REMOVEDIR : 0) < 0)
            return -errno;
    }
    node_drop_place(node, dir, name);
    if (stx.stx_nlink <= 1 || is_dir)
        node_close(node);
    return 0;
}

static int rename_host(struct node *from, const char *name, struct node *to, const char *to_name)
{
    /* The second may move the first's descriptor out of the cache only in tree_begin(). */
    int fd = node_dirfd(from), fd2 = node_dirfd(to);

    if (fd < 0 || fd2 < 0)
        return fd < 0 ? fd : fd2;
    return renameat(from->fd, name, fd2, to_name) < 0 ? -errno : 0;
}

static int check_rename(struct node *from, const struct cred *cred, const char *name, struct node *to,
                        const char *to_name)
{
    struct attr attr, to_attr;
    struct node *node, *target;
    struct statx stx;
    int err = check_dir(from, cred, MAY_WRITE | MAY_EXEC, &attr);

    if (!err)
        err = check_dir(to, cred, MAY_WRITE | MAY_EXEC, &to_attr);
    if (err)
        return err;
    if (is_dots(name) || is_dots(to_name))
        return -EINVAL;
    err = find_child(from, name, &node, &stx);
    if (!err)
        err = check_sticky(&attr, cred, node, &stx);
    if (err)
        return err;
    if (S_ISDIR(node->type) && depth_of(to) >= DEPTH_MAX)
        return -ENAMETOOLONG;
    err = find_child(to, to_name, &target, &stx);
    if (err)
        return err == -ENOENT ? 0 : err;
    return check_sticky(&to_attr, cred, target, &stx);
}

/* What is known of the names follows; anything doubtful is found out by the next one who asks. */
static void moved(struct node *from, const char *name, struct node *to, const char *to_name,
                  struct node *target)
{
    struct node *node;
    struct statx stx;

    if (stat_child(to, to_name, &stx))
        return;
    node = node_get(to->tree, &stx);
    if (target && target != node) {
        node_drop_place(target, to, to_name);
        if (!target->places)
            node_close(target);
    }
    if (stat_child(from, name, &stx) == -ENOENT)
        node_drop_place(node, from, name);
    node_add_place(node, to, to_name);
}

int tree_rename(struct node *from, const struct cred *cred, const char *name, struct node *to,
                const char *to_name)
{
    struct node *target = NULL;
    struct statx stx;
    int err;

    if (from->tree != to->tree)
        return -EXDEV;
    err = check_rename(from, cred, name, to, to_name);
    if (err)
        return err;
    if (!stat_child(to, to_name, &stx))
        target = node_get(to->tree, &stx);
    err = rename_host(from, name, to, to_name);
    if (err == -EACCES && (!node_promote(from) || !node_promote(to)))
        err = rename_host(from, name, to, to_name);
    if (!err)
        moved(from, name, to, to_name, target);
    return err;
}

static int link_host(struct node *node, struct node *dir, const char *name)
{
    int to = node_dirfd(dir), from;
    struct statx stx;

    if (to < 0)
        return to;
    /* By name, because an ordinary user may not link a descriptor: so the name must be right. */
    from = node_repair(node);
    if (from)
        return from;
    from = node_dirfd(node->places->parent);
    if (from < 0)
        return from;
    if (linkat(from, node->places->name, dir->fd, name, 0) < 0)
        return -errno;
    /* The old name may have been changed under us to something else. */
    if (!statx_at(dir->fd, name, &stx) && node_get(dir->tree, &stx) != node) {
        unlinkat(dir->fd, name, 0);
        return -ESTALE;
    }
    return 0;
}

int tree_link(struct node *node, const struct cred *cred, struct node *dir, const char *name)
{
    struct attr attr;
    struct statx stx;
    int err;

    if (node->tree != dir->tree)
        return -EXDEV;
    err = check_new(dir, cred, name, &attr);
    if (!err)
        err = node_stat(node, &stx);
    if (err)
        return err;
    if (S_ISDIR(node->type))
        return -EISDIR;
    err = link_host(node, dir, name);
    if (err == -EACCES && !node_promote(dir))
        err = link_host(node, dir, name);
    if (!err)
        node_add_place(node, dir, name);
    return err;
}
