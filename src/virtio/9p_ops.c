/*
 * What 9P does to objects of the host, under the security model of the export.  See 9p_fs.h.
 *
 * An object is changed through "/proc/self/fd/N" of its O_PATH descriptor, which is the object whatever its
 * names are meanwhile; only regular files and directories are ever opened.
 *
 * Left out: POSIX ACLs and other attributes than user.* under the mapped models.
 *
 * Threading: any.  fs->names is written while names move, so that nodes and names agree.
 */
#include "virtio/9p_node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define HIDDEN_XATTRS "user.virtfs."

enum { OPEN_FLAGS = O_ACCMODE | O_TRUNC | O_DSYNC | O_SYNC };

/* --- where an object's metadata are ------------------------------------------------------------------- */

/* A node pinned with the directory and name that its metadata may be found by. */
struct held {
    struct p9_node *node, *parent;
    struct p9_where at;
};

/* fs->names is held. */
static int hold_named(struct held *h, struct p9_node *node)
{
    *h = (struct held){.node = node, .at = {.fs = node->fs, .dir = -1}};
    h->at.fd = p9_pin(node);
    if (h->at.fd < 0)
        return h->at.fd;
    if (node->fs->options.model == P9_MAPPED_FILE && node->parent) {
        int fd = p9_pin(node->parent);

        if (fd < 0) {
            p9_unpin(node);
            return fd;
        }
        h->parent = node->parent;
        h->at.dir = fd;
        h->at.name = node->name;
    }
    return 0;
}

/* Names of metadata in files must not move meanwhile; elsewhere they do not matter. */
static int hold(struct held *h, struct p9_node *node)
{
    int r;

    if (node->fs->options.model != P9_MAPPED_FILE)
        return hold_named(h, node);
    g_rw_lock_reader_lock(&node->fs->names);
    r = hold_named(h, node);
    if (r < 0)
        g_rw_lock_reader_unlock(&node->fs->names);
    return r;
}

static void release(struct held *h)
{
    p9_unpin(h->node);
    if (h->parent)
        p9_unpin(h->parent);
    if (h->node->fs->options.model == P9_MAPPED_FILE)
        g_rw_lock_reader_unlock(&h->node->fs->names);
}

/* --- attributes --------------------------------------------------------------------------------------- */

static int stat_held(const struct p9_where *at, struct statx *stx)
{
    int r = p9_statx(at->fd, "", stx);

    if (r == 0 && p9_is_mapped(at->fs))
        p9_meta_overlay(at, stx);
    return r;
}

int p9_getattr(struct p9_node *node, struct statx *stx)
{
    struct held h;
    int r = hold(&h, node);

    if (r < 0)
        return r;
    r = stat_held(&h.at, stx);
    release(&h);
    return r;
}

static int set_mapped(const struct p9_where *at, const struct p9_setattr *s)
{
    struct p9_meta m = {.has_uid = s->set_uid, .uid = s->uid, .has_gid = s->set_gid, .gid = s->gid};
    struct statx stx;
    int r;

    if (s->set_mode) {
        r = stat_held(at, &stx);
        if (r < 0)
            return r;
        m.has_mode = true;
        m.mode = (stx.stx_mode & S_IFMT) | (s->mode & 07777);
    }
    return m.has_uid || m.has_gid || m.has_mode ? p9_meta_store(at, &m) : 0;
}

static int set_real(const struct p9_where *at, const struct p9_setattr *s)
{
    struct p9_path path = p9_fd_path(at->fd);

    if ((s->set_uid || s->set_gid) && fchownat(at->fd, "", s->set_uid ? s->uid : (uid_t)-1,
                                               s->set_gid ? s->gid : (gid_t)-1, AT_EMPTY_PATH) < 0)
        return -errno;
    if (s->set_mode && chmod(path.text, s->mode & 07777) < 0)
        return -errno;
    return 0;
}

static int set_size(struct p9_node *node, int at, int fd, uint64_t size)
{
    struct p9_path path = p9_fd_path(at);

    if (node->type != S_IFREG)
        return node->type == S_IFDIR ? -EISDIR : -EINVAL;
    if (size > INT64_MAX)
        return -EFBIG;
    return (fd >= 0 ? ftruncate(fd, (off_t)size) : truncate(path.text, (off_t)size)) < 0 ? -errno : 0;
}

int p9_setattr(struct p9_node *node, int fd, const struct p9_setattr *s)
{
    struct held h;
    int r;

    if (node->fs->options.readonly)
        return -EROFS;
    r = hold(&h, node);
    if (r < 0)
        return r;
    r = p9_is_mapped(node->fs) ? set_mapped(&h.at, s) : set_real(&h.at, s);
    if (r == 0 && s->set_size)
        r = set_size(node, h.at.fd, fd, s->size);
    if (r == 0 && s->set_times && utimensat(AT_FDCWD, p9_fd_path(h.at.fd).text, s->times, 0) < 0)
        r = -errno;
    release(&h);
    return r;
}

/* --- opening ------------------------------------------------------------------------------------------ */

static bool writes(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

int p9_open(struct p9_node *node, int flags)
{
    bool dir = node->type == S_IFDIR;
    int at, fd;

    if (!dir && node->type != S_IFREG)
        return -ENXIO; /* the guest has its own pipes, sockets and devices */
    if (writes(flags) && (dir || node->fs->options.readonly))
        return dir ? -EISDIR : -EROFS;
    at = p9_pin(node);
    if (at < 0)
        return at;
    flags = (flags & OPEN_FLAGS) | O_CLOEXEC | O_NONBLOCK | (dir ? O_DIRECTORY : 0);
    fd = open(p9_fd_path(at).text, flags | O_NOATIME);
    if (fd < 0 && errno == EPERM)
        fd = open(p9_fd_path(at).text, flags);
    if (fd < 0)
        fd = -errno;
    p9_unpin(node);
    return fd;
}

/* --- making something new ----------------------------------------------------------------------------- */

static int check_new(struct p9_node *dir, const char *name)
{
    if (dir->fs->options.readonly)
        return -EROFS;
    if (dir->type != S_IFDIR)
        return -ENOTDIR;
    if (p9_is_hidden(dir->fs, name))
        return -EINVAL;
    return !strcmp(name, ".") || !strcmp(name, "..") ? -EEXIST : 0;
}

/* What has just been made on the host becomes what the guest asked for; fd is O_PATH. */
static int dress(struct p9_fs *fs, int dir, const char *name, int fd, uint32_t mode, dev_t dev,
                 struct p9_owner owner)
{
    struct p9_where at = {fs, fd, dir, name};

    if (p9_is_mapped(fs)) {
        struct p9_meta m = {.has_uid = true,
                            .has_gid = true,
                            .has_mode = true,
                            .has_dev = dev != 0,
                            .uid = owner.uid,
                            .gid = owner.gid,
                            .mode = mode,
                            .dev = dev};

        m.has_uid = owner.uid != UINT32_MAX;
        m.has_gid = owner.gid != UINT32_MAX;
        return p9_meta_store(&at, &m);
    }
    if ((owner.uid != UINT32_MAX || owner.gid != UINT32_MAX) &&
        fchownat(fd, "", owner.uid, owner.gid, AT_EMPTY_PATH) < 0 && fs->options.model == P9_PASSTHROUGH)
        return -errno;
    if (!S_ISLNK(mode) && chmod(p9_fd_path(fd).text, mode & 07777) < 0)
        return -errno;
    return 0;
}

/* Dresses `name' and stats it; *path becomes its O_PATH descriptor if the caller wants it. */
static int finish_new(struct p9_fs *fs, int dir, const char *name, uint32_t mode, dev_t dev,
                      struct p9_owner owner, struct statx *stx, int *path)
{
    int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), r;
    struct p9_where at = {fs, fd, dir, name};

    if (fd < 0)
        return -errno;
    r = dress(fs, dir, name, fd, mode, dev, owner);
    if (r == 0)
        r = stat_held(&at, stx);
    if (r < 0 || !path)
        close(fd);
    else
        *path = fd;
    return r;
}

struct wish {
    const char *name, *target;
    int flags;
    uint32_t mode;
    dev_t dev;
    struct p9_owner owner;
};

/* A file's content of its own: a new file, or one that stands for a link or a device. */
static int make_file(int dir, const struct wish *w, mode_t mode, int *file)
{
    int flags = (w->flags & OPEN_FLAGS) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, fd;
    size_t len = w->target ? strlen(w->target) : 0;

    fd = openat(dir, w->name, flags, mode);
    if (fd < 0)
        return -errno;
    if (len && pwrite(fd, w->target, len, 0) != (ssize_t)len) {
        int r = errno ? -errno : -EIO;

        close(fd);
        unlinkat(dir, w->name, 0);
        return r;
    }
    if (file)
        *file = fd;
    else
        close(fd);
    return 0;
}

static int make_host_object(struct p9_fs *fs, int dir, const struct wish *w, int *file)
{
    bool mapped = p9_is_mapped(fs);

    if (S_ISDIR(w->mode))
        return mkdirat(dir, w->name, mapped ? fs->options.dmode : 0700) < 0 ? -errno : 0;
    if (mapped || S_ISREG(w->mode))
        return make_file(dir, w, mapped ? fs->options.fmode : 0600, file);
    if (S_ISLNK(w->mode))
        return symlinkat(w->target, dir, w->name) < 0 ? -errno : 0;
    return mknodat(dir, w->name, (w->mode & S_IFMT) | 0600, w->dev) < 0 ? -errno : 0;
}

static void undo(int dir, const struct wish *w)
{
    unlinkat(dir, w->name, S_ISDIR(w->mode) ? AT_REMOVEDIR : 0);
}

/* file, path: may be NULL; else the new file's, open as w->flags say, and O_PATH. */
static int make(struct p9_node *dir, const struct wish *w, struct statx *stx, int *file, int *path)
{
    int r = check_new(dir, w->name), fd;

    if (r < 0)
        return r;
    fd = p9_pin(dir);
    if (fd < 0)
        return fd;
    r = make_host_object(dir->fs, fd, w, file);
    if (r == 0) {
        r = finish_new(dir->fs, fd, w->name, w->mode, w->dev, w->owner, stx, path);
        if (r < 0) {
            if (file)
                close(*file);
            undo(fd, w);
        }
    }
    p9_unpin(dir);
    return r;
}

static int make_locked(struct p9_node *dir, const struct wish *w, struct statx *stx)
{
    int r;

    g_rw_lock_reader_lock(&dir->fs->names);
    r = make(dir, w, stx, NULL, NULL);
    g_rw_lock_reader_unlock(&dir->fs->names);
    return r;
}

static int create_new(struct p9_node *dir, const struct wish *w, struct p9_node **node, struct statx *stx,
                      int *file)
{
    int path, r;

    g_rw_lock_reader_lock(&dir->fs->names);
    r = make(dir, w, stx, file, &path);
    if (r == 0)
        *node = p9_node_adopt(dir, w->name, path, stx);
    g_rw_lock_reader_unlock(&dir->fs->names);
    return r;
}

static int open_existing(struct p9_node *dir, const struct wish *w, struct p9_node **node, struct statx *stx,
                         int *file)
{
    int r = p9_walk(dir, w->name, node, stx);

    if (r < 0)
        return r;
    if (!S_ISREG(stx->stx_mode))
        r = S_ISDIR(stx->stx_mode) ? -EISDIR : S_ISLNK(stx->stx_mode) ? -ELOOP : -ENXIO;
    if (r == 0)
        r = *file = p9_open(*node, w->flags);
    if (r >= 0 && (w->flags & O_TRUNC))
        stx->stx_size = 0;
    if (r < 0)
        p9_node_unref(*node);
    return MIN(r, 0);
}

int p9_create(struct p9_node *dir, const char *name, int flags, uint32_t mode, struct p9_owner owner,
              struct p9_node **node, struct statx *stx, int *file)
{
    struct wish w = {.name = name, .flags = flags, .mode = S_IFREG | (mode & 07777), .owner = owner};
    int r = create_new(dir, &w, node, stx, file);

    if (r == -EEXIST && !(flags & O_EXCL))
        r = open_existing(dir, &w, node, stx, file);
    return r;
}

int p9_mkdir(struct p9_node *dir, const char *name, uint32_t mode, struct p9_owner owner, struct statx *stx)
{
    struct wish w = {.name = name, .mode = S_IFDIR | (mode & 07777), .owner = owner};

    return make_locked(dir, &w, stx);
}

int p9_mknod(struct p9_node *dir, const char *name, uint32_t mode, dev_t dev, struct p9_owner owner,
             struct statx *stx)
{
    struct wish w = {.name = name, .flags = O_WRONLY, .mode = mode, .dev = dev, .owner = owner};

    if (!(mode & S_IFMT))
        w.mode |= S_IFREG;
    if (!S_ISREG(w.mode) && !S_ISCHR(mode) && !S_ISBLK(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
        return -EINVAL;
    return make_locked(dir, &w, stx);
}

int p9_symlink(struct p9_node *dir, const char *name, const char *target, struct p9_owner owner,
               struct statx *stx)
{
    struct wish w = {
        .name = name, .target = target, .flags = O_WRONLY, .mode = S_IFLNK | 0777, .owner = owner};

    return *target ? make_locked(dir, &w, stx) : -ENOENT;
}

/* --- names -------------------------------------------------------------------------------------------- */

/* fs->names is written, so that nobody else moves what the metadata of both names are found by. */
static int link_locked(struct p9_node *dir, struct p9_node *node, const char *name)
{
    int fd = p9_pin(dir), r;
    struct held h;

    if (fd < 0)
        return fd;
    r = hold_named(&h, node);
    if (r == 0) {
        if (linkat(AT_FDCWD, p9_fd_path(h.at.fd).text, fd, name, AT_SYMLINK_FOLLOW) < 0)
            r = -errno;
        else
            r = p9_meta_linked(dir->fs, &h.at, fd, name);
        p9_unpin(node);
        if (h.parent)
            p9_unpin(h.parent);
    }
    p9_unpin(dir);
    return r;
}

int p9_link(struct p9_node *dir, struct p9_node *node, const char *name)
{
    int r = check_new(dir, name);

    if (r < 0)
        return r;
    g_rw_lock_writer_lock(&dir->fs->names);
    r = link_locked(dir, node, name);
    g_rw_lock_writer_unlock(&dir->fs->names);
    return r;
}

/* Both directories pinned. */
static int rename_at(struct p9_node *from, int from_fd, const char *name, struct p9_node *to, int to_fd,
                     const char *to_name)
{
    struct statx a, b;
    bool same = p9_statx(from_fd, name, &a) == 0 && p9_statx(to_fd, to_name, &b) == 0 &&
                a.stx_ino == b.stx_ino && a.stx_dev_major == b.stx_dev_major &&
                a.stx_dev_minor == b.stx_dev_minor;

    if (!same)
        p9_meta_empty(from->fs, to_fd, to_name);
    if (renameat(from_fd, name, to_fd, to_name) < 0)
        return -errno;
    if (same)
        return 0; /* POSIX: two names of one file stay as they are */
    p9_meta_renamed(from->fs, from_fd, name, to_fd, to_name);
    p9_names_moved(from, name, to, to_name);
    return 0;
}

static int rename_locked(struct p9_node *from, const char *name, struct p9_node *to, const char *to_name)
{
    int from_fd = p9_pin(from), to_fd, r;

    if (from_fd < 0)
        return from_fd;
    r = to_fd = p9_pin(to);
    if (to_fd >= 0) {
        r = rename_at(from, from_fd, name, to, to_fd, to_name);
        p9_unpin(to);
    }
    p9_unpin(from);
    return r;
}

static int check_old(struct p9_node *dir, const char *name)
{
    if (dir->fs->options.readonly)
        return -EROFS;
    if (dir->type != S_IFDIR)
        return -ENOTDIR;
    if (p9_is_hidden(dir->fs, name))
        return -ENOENT;
    return !strcmp(name, ".") || !strcmp(name, "..") ? -EBUSY : 0;
}

int p9_rename(struct p9_node *from, const char *name, struct p9_node *to, const char *to_name)
{
    int r = check_old(from, name);

    if (r == 0)
        r = check_new(to, to_name);
    if (r < 0)
        return r == -EEXIST ? -EBUSY : r;
    g_rw_lock_writer_lock(&from->fs->names);
    r = rename_locked(from, name, to, to_name);
    g_rw_lock_writer_unlock(&from->fs->names);
    return r;
}

int p9_rename_node(struct p9_node *node, struct p9_node *to, const char *to_name)
{
    int r = check_new(to, to_name);

    if (r < 0)
        return r == -EEXIST ? -EBUSY : r;
    g_rw_lock_writer_lock(&node->fs->names);
    if (!node->parent)
        r = -EBUSY;
    else if (node->orphan)
        r = -ENOENT;
    else {
        g_autofree char *name = g_strdup(node->name); /* which is another one then, as the parent is */
        struct p9_node *parent = p9_node_ref(node->parent);

        r = rename_locked(parent, name, to, to_name);
        p9_node_unref(parent);
    }
    g_rw_lock_writer_unlock(&node->fs->names);
    return r;
}

static int unlink_locked(struct p9_node *dir, const char *name, bool is_dir)
{
    int fd = p9_pin(dir), r = 0;

    if (fd < 0)
        return fd;
    if (is_dir)
        p9_meta_empty(dir->fs, fd, name);
    if (unlinkat(fd, name, is_dir ? AT_REMOVEDIR : 0) < 0)
        r = -errno;
    if (r == 0) {
        p9_meta_removed(dir->fs, fd, name);
        p9_names_gone(dir, name);
    }
    p9_unpin(dir);
    return r;
}

int p9_unlink(struct p9_node *dir, const char *name, bool is_dir)
{
    int r = check_old(dir, name);

    if (r < 0)
        return r;
    g_rw_lock_writer_lock(&dir->fs->names);
    r = unlink_locked(dir, name, is_dir);
    g_rw_lock_writer_unlock(&dir->fs->names);
    return r;
}

int p9_remove_node(struct p9_node *node)
{
    int r;

    if (node->fs->options.readonly)
        return -EROFS;
    g_rw_lock_writer_lock(&node->fs->names);
    if (!node->parent)
        r = -EBUSY;
    else if (node->orphan)
        r = -ENOENT;
    else {
        g_autofree char *name = g_strdup(node->name);

        r = unlink_locked(node->parent, name, node->type == S_IFDIR);
    }
    g_rw_lock_writer_unlock(&node->fs->names);
    return r;
}

/* --- reading what is no file -------------------------------------------------------------------------- */

static ssize_t read_stand_in(int at, char *buf)
{
    int fd = open(p9_fd_path(at).text, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -errno : pread(fd, buf, P9_LINK_MAX, 0);

    if (fd < 0)
        return n;
    if (n < 0)
        n = -errno;
    close(fd);
    return n;
}

ssize_t p9_readlink(struct p9_node *node, char *buf)
{
    struct statx stx;
    int r = p9_getattr(node, &stx), fd;
    ssize_t n;

    if (r < 0)
        return r;
    if (!S_ISLNK(stx.stx_mode))
        return -EINVAL;
    fd = p9_pin(node);
    if (fd < 0)
        return fd;
    if (node->type == S_IFREG) {
        n = read_stand_in(fd, buf);
    } else {
        n = readlinkat(fd, "", buf, P9_LINK_MAX);
        if (n < 0)
            n = -errno;
    }
    p9_unpin(node);
    return n;
}

int p9_statfs(struct p9_node *node, struct statfs *st)
{
    int fd = p9_pin(node), r;

    if (fd < 0)
        return fd;
    r = fstatfs(fd, st) < 0 ? -errno : 0;
    p9_unpin(node);
    return r;
}

/* --- extended attributes ------------------------------------------------------------------------------ */

/* The mapped models give the guest what an ordinary user has, and hide their own. */
static int check_xattr(const struct p9_fs *fs, const char *name)
{
    if (!p9_is_mapped(fs))
        return 0;
    if (g_str_has_prefix(name, HIDDEN_XATTRS))
        return -ENODATA;
    return g_str_has_prefix(name, "user.") ? 0 : -EOPNOTSUPP;
}

ssize_t p9_xattr_get(struct p9_node *node, const char *name, void *buf, size_t size)
{
    int r = check_xattr(node->fs, name), fd;
    ssize_t n;

    if (r < 0)
        return r;
    fd = p9_pin(node);
    if (fd < 0)
        return fd;
    n = getxattr(p9_fd_path(fd).text, name, buf, size);
    if (n < 0)
        n = -errno;
    p9_unpin(node);
    return n;
}

static ssize_t keep_visible(const struct p9_fs *fs, char *buf, ssize_t len)
{
    ssize_t out = 0;

    for (ssize_t at = 0, step; at < len; at += step) {
        step = (ssize_t)strlen(buf + at) + 1;
        if (check_xattr(fs, buf + at) < 0)
            continue;
        memmove(buf + out, buf + at, (size_t)step);
        out += step;
    }
    return out;
}

ssize_t p9_xattr_list(struct p9_node *node, char *buf, size_t size)
{
    int fd = p9_pin(node);
    ssize_t n;

    if (fd < 0)
        return fd;
    n = listxattr(p9_fd_path(fd).text, buf, size);
    if (n < 0)
        n = -errno;
    p9_unpin(node);
    return n > 0 ? keep_visible(node->fs, buf, n) : n;
}

static int change_xattr(struct p9_node *node, const char *name, const void *buf, size_t size, int flags,
                        bool removing)
{
    int r = check_xattr(node->fs, name), fd;

    if (node->fs->options.readonly)
        return -EROFS;
    if (r < 0)
        return r == -ENODATA && !removing ? -EPERM : r;
    fd = p9_pin(node);
    if (fd < 0)
        return fd;
    if (removing)
        r = removexattr(p9_fd_path(fd).text, name);
    else
        r = setxattr(p9_fd_path(fd).text, name, buf, size, flags);
    if (r < 0)
        r = -errno;
    p9_unpin(node);
    return r;
}

int p9_xattr_set(struct p9_node *node, const char *name, const void *buf, size_t size, int flags)
{
    return change_xattr(node, name, buf, size, flags, false);
}

int p9_xattr_remove(struct p9_node *node, const char *name)
{
    return change_xattr(node, name, NULL, 0, 0, true);
}
