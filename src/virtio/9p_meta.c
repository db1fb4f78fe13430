/*
 * The mapped security models: what the guest says of an object is written beside it, since the user may not
 * say it to the host.
 *
 * mapped-xattr: user.virtfs.uid, .gid, .mode (32 bits) and .rdev (64 bits), little-endian, of the object.
 * mapped-file: lines "virtfs.uid=N" and so on in .virtfs_metadata/NAME of the directory that has it, and
 * .virtfs_metadata_root for the exported directory.  These forms are QEMU's, so that trees can be used by
 * both.
 *
 * Special files and symbolic links of the guest are regular files of the host (a link's target is its
 * content); the host's own are shown as they are.
 *
 * Threading: any; what two threads write to one object's metadata at once is merged for files, by a lock.
 */
#include "virtio/9p_node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FOLDER    ".virtfs_metadata"
#define ROOT_FILE ".virtfs_metadata_root"

enum { MAX_TEXT = 1024 };

bool p9_is_mapped(const struct p9_fs *fs)
{
    return fs->options.model >= P9_MAPPED_XATTR;
}

bool p9_is_hidden(const struct p9_fs *fs, const char *name)
{
    return fs->options.model == P9_MAPPED_FILE && g_str_has_prefix(name, FOLDER) &&
           (!strcmp(name, FOLDER) || !strcmp(name, ROOT_FILE));
}

/* --- in extended attributes ----------------------------------------------------------------------------- */

static bool read_number(const char *path, const char *name, unsigned size, uint64_t *value)
{
    uint64_t v = 0;

    if (getxattr(path, name, &v, size) != (ssize_t)size)
        return false;
    *value = GUINT64_FROM_LE(v);
    return true;
}

static void load_xattrs(int fd, struct p9_meta *m)
{
    struct p9_path path = p9_fd_path(fd);
    uint64_t v = 0;

    m->has_uid = read_number(path.text, "user.virtfs.uid", 4, &v);
    m->uid = (uint32_t)v;
    m->has_gid = read_number(path.text, "user.virtfs.gid", 4, &v);
    m->gid = (uint32_t)v;
    m->has_mode = read_number(path.text, "user.virtfs.mode", 4, &v);
    m->mode = (uint32_t)v;
    m->has_dev = read_number(path.text, "user.virtfs.rdev", 8, &v);
    m->dev = v;
}

static int write_number(const char *path, const char *name, unsigned size, uint64_t value)
{
    uint64_t v = GUINT64_TO_LE(value);

    return setxattr(path, name, &v, size, 0) < 0 ? -errno : 0;
}

static int write_numbers(const char *path, const struct p9_meta *m)
{
    int r = 0;

    if (m->has_uid)
        r = write_number(path, "user.virtfs.uid", 4, m->uid);
    if (r == 0 && m->has_gid)
        r = write_number(path, "user.virtfs.gid", 4, m->gid);
    if (r == 0 && m->has_mode)
        r = write_number(path, "user.virtfs.mode", 4, m->mode);
    if (r == 0 && m->has_dev)
        r = write_number(path, "user.virtfs.rdev", 8, m->dev);
    return r;
}

/* The owner of a file that he may not write can give himself the right for a moment. */
static int store_xattrs(int fd, const struct p9_meta *m)
{
    struct p9_path path = p9_fd_path(fd);
    int r = write_numbers(path.text, m);
    struct statx stx;

    if (r != -EACCES || p9_statx(fd, "", &stx) < 0)
        return r;
    if (chmod(path.text, (stx.stx_mode & 07777) | S_IWUSR) < 0)
        return r;
    r = write_numbers(path.text, m);
    chmod(path.text, stx.stx_mode & 07777);
    return r;
}

/* --- in files ------------------------------------------------------------------------------------------- */

static GMutex files_lock; /* of read, change, write; all exports share it */

/* The directory's folder of metadata; O_PATH.  -errno. */
static int open_folder(int dir, bool make)
{
    int fd = openat(dir, FOLDER, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT && make) {
        if (mkdirat(dir, FOLDER, 0700) < 0 && errno != EEXIST)
            return -errno;
        fd = openat(dir, FOLDER, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    return fd < 0 ? -errno : fd;
}

static int open_file(const struct p9_where *at, int flags)
{
    int folder, fd;

    flags |= O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    if (at->dir < 0) {
        fd = openat(at->fd, ROOT_FILE, flags, 0600);
        return fd < 0 ? -errno : fd;
    }
    folder = open_folder(at->dir, flags & O_CREAT);
    if (folder < 0)
        return folder;
    fd = openat(folder, at->name, flags, 0600);
    if (fd < 0)
        fd = -errno;
    close(folder);
    return fd;
}

static void parse_line(struct p9_meta *m, const char *line)
{
    const char *eq = strchr(line, '=');
    uint64_t v = eq ? strtoull(eq + 1, NULL, 10) : 0;

    if (g_str_has_prefix(line, "virtfs.uid=")) {
        m->has_uid = true;
        m->uid = (uint32_t)v;
    } else if (g_str_has_prefix(line, "virtfs.gid=")) {
        m->has_gid = true;
        m->gid = (uint32_t)v;
    } else if (g_str_has_prefix(line, "virtfs.mode=")) {
        m->has_mode = true;
        m->mode = (uint32_t)v;
    } else if (g_str_has_prefix(line, "virtfs.rdev=")) {
        m->has_dev = true;
        m->dev = v;
    }
}

static void load_file(const struct p9_where *at, struct p9_meta *m)
{
    char text[MAX_TEXT + 1];
    int fd = open_file(at, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : pread(fd, text, MAX_TEXT, 0);

    memset(m, 0, sizeof(*m));
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return;
    text[n] = 0;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **l = lines; *l; l++)
        parse_line(m, *l);
}

static void merge(struct p9_meta *m, const struct p9_meta *change)
{
    if (change->has_uid)
        m->uid = change->uid;
    if (change->has_gid)
        m->gid = change->gid;
    if (change->has_mode)
        m->mode = change->mode;
    if (change->has_dev)
        m->dev = change->dev;
    m->has_uid |= change->has_uid;
    m->has_gid |= change->has_gid;
    m->has_mode |= change->has_mode;
    m->has_dev |= change->has_dev;
}

static void print_meta(GString *out, const struct p9_meta *m)
{
    if (m->has_uid)
        g_string_append_printf(out, "virtfs.uid=%u\n", m->uid);
    if (m->has_gid)
        g_string_append_printf(out, "virtfs.gid=%u\n", m->gid);
    if (m->has_mode)
        g_string_append_printf(out, "virtfs.mode=%u\n", m->mode);
    if (m->has_dev)
        g_string_append_printf(out, "virtfs.rdev=%" G_GUINT64_FORMAT "\n", m->dev);
}

static int store_file(const struct p9_where *at, const struct p9_meta *change)
{
    g_autoptr(GString) text = g_string_new(NULL);
    struct p9_meta m;
    int fd, r = 0;

    g_mutex_lock(&files_lock);
    load_file(at, &m);
    merge(&m, change);
    print_meta(text, &m);
    fd = open_file(at, O_WRONLY | O_CREAT);
    if (fd < 0)
        r = fd;
    else if (pwrite(fd, text->str, text->len, 0) != (ssize_t)text->len || ftruncate(fd, (off_t)text->len) < 0)
        r = errno ? -errno : -EIO;
    if (fd >= 0)
        close(fd);
    g_mutex_unlock(&files_lock);
    return r;
}

/* --- either ----------------------------------------------------------------------------------------------
 */

void p9_meta_overlay(const struct p9_where *at, struct statx *stx)
{
    struct p9_meta m = {0};

    if (at->fs->options.model == P9_MAPPED_XATTR)
        load_xattrs(at->fd, &m);
    else
        load_file(at, &m);
    if (m.has_uid)
        stx->stx_uid = m.uid;
    if (m.has_gid)
        stx->stx_gid = m.gid;
    /* A file may stand for anything but a directory; what is none stands for itself. */
    if (m.has_mode && S_ISREG(stx->stx_mode) && (m.mode & S_IFMT) && !S_ISDIR(m.mode))
        stx->stx_mode = (uint16_t)m.mode;
    else if (m.has_mode)
        stx->stx_mode = (uint16_t)((stx->stx_mode & S_IFMT) | (m.mode & 07777));
    if (m.has_dev && (S_ISCHR(stx->stx_mode) || S_ISBLK(stx->stx_mode))) {
        stx->stx_rdev_major = major(m.dev);
        stx->stx_rdev_minor = minor(m.dev);
    }
}

int p9_meta_store(const struct p9_where *at, const struct p9_meta *meta)
{
    return at->fs->options.model == P9_MAPPED_XATTR ? store_xattrs(at->fd, meta) : store_file(at, meta);
}

/* --- names of files of metadata; what fails costs only the metadata --------------------------------------
 */

void p9_meta_renamed(struct p9_fs *fs, int from, const char *name, int to, const char *to_name)
{
    int old, new;

    if (fs->options.model != P9_MAPPED_FILE)
        return;
    old = open_folder(from, false);
    new = open_folder(to, true);
    if (new >= 0 && (old < 0 || renameat(old, name, new, to_name) < 0))
        unlinkat(new, to_name, 0); /* what was replaced had some, and this has none */
    if (old >= 0)
        close(old);
    if (new >= 0)
        close(new);
}

void p9_meta_removed(struct p9_fs *fs, int dir, const char *name)
{
    int folder = fs->options.model == P9_MAPPED_FILE ? open_folder(dir, false) : -1;

    if (folder < 0)
        return;
    unlinkat(folder, name, 0);
    close(folder);
}

int p9_meta_linked(struct p9_fs *fs, const struct p9_where *old, int dir, const char *name)
{
    int folder, new, r = 0;

    if (fs->options.model != P9_MAPPED_FILE || old->dir < 0)
        return 0;
    folder = open_folder(old->dir, false);
    if (folder < 0)
        return 0;
    new = open_folder(dir, true);
    if (new < 0)
        r = new;
    else if (linkat(folder, old->name, new, name, 0) < 0 && errno != ENOENT)
        r = -errno;
    close(folder);
    if (new >= 0)
        close(new);
    return r;
}

/* Its folder of metadata may only be removed when nothing else is there. */
static bool is_empty_but_folder(int fd)
{
    _Alignas(struct dirent64) char buf[1024];
    ssize_t n;

    while ((n = getdents64(fd, buf, sizeof(buf))) > 0) {
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *d = (const struct dirent64 *)(buf + at);

            if (strcmp(d->d_name, ".") && strcmp(d->d_name, "..") && strcmp(d->d_name, FOLDER))
                return false;
            at += d->d_reclen;
        }
    }
    return n == 0;
}

static void remove_files(int folder)
{
    _Alignas(struct dirent64) char buf[4096];
    ssize_t n;

    while ((n = getdents64(folder, buf, sizeof(buf))) > 0) {
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *d = (const struct dirent64 *)(buf + at);

            unlinkat(folder, d->d_name, 0);
            at += d->d_reclen;
        }
    }
}

void p9_meta_empty(struct p9_fs *fs, int dir, const char *name)
{
    int fd, folder;

    if (fs->options.model != P9_MAPPED_FILE)
        return;
    fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    if (is_empty_but_folder(fd)) {
        folder = openat(fd, FOLDER, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (folder >= 0) {
            remove_files(folder);
            close(folder);
            unlinkat(fd, FOLDER, AT_REMOVEDIR);
        }
    }
    close(fd);
}
