/*
 * 9P nodes: who an object is, the names that led to it, and its descriptor.
 *
 * 1. A node is an object of the host (device, number, time of birth), held by an O_PATH descriptor.  What it
 * is reached by is
 *    one name below another node; nothing follows a symbolic link or "..".
 * 2. Only so many descriptors are kept: the least recently used are closed, and opened again by the names
 * when
 *    they are needed.  If that leads to another object, the node is stale.
 * 3. The guest's renames are followed; the host's are not, but do no harm (1, 2).
 * 4. fs->names is taken before fs->lock.  p9_pin() takes only the latter, so it may be called with the
 * former.
 *
 * Threading: any threads.
 */
#include "virtio/9p_node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { FILES_WANTED = 65536, LOOK_FOR_VICTIM = 16 };

struct p9_path p9_fd_path(int fd)
{
    struct p9_path p;

    snprintf(p.text, sizeof(p.text), "/proc/self/fd/%d", fd);
    return p;
}

int p9_statx(int fd, const char *name, struct statx *stx)
{
    return statx(fd, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
                 STATX_BASIC_STATS | STATX_BTIME, stx) < 0
               ? -errno
               : 0;
}

static int open_path(int dir, const char *name)
{
    int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* --- descriptors; fs->lock is held ---------------------------------------------------------------------- */

static void close_fd(struct p9_node *node)
{
    if (node->fd < 0)
        return;
    close(node->fd);
    node->fd = -1;
    g_queue_unlink(&node->fs->lru, &node->link);
}

/* An orphan's descriptor is all that there is of it: only when nothing else is left. */
static struct p9_node *find_victim(struct p9_fs *fs)
{
    GList *l = g_queue_peek_tail_link(&fs->lru);
    struct p9_node *orphan = NULL;

    for (unsigned i = 0; l && (i < LOOK_FOR_VICTIM || !orphan); i++, l = l->prev) {
        struct p9_node *node = l->data;

        if (node->pins)
            continue;
        if (!node->orphan)
            return node;
        if (!orphan)
            orphan = node;
    }
    return orphan;
}

static void evict(struct p9_fs *fs)
{
    struct p9_node *victim;

    while (g_queue_get_length(&fs->lru) > fs->max_paths && (victim = find_victim(fs)))
        close_fd(victim);
}

static int64_t birth(const struct statx *stx)
{
    return stx->stx_mask & STATX_BTIME ? stx->stx_btime.tv_sec * 1000000000 + stx->stx_btime.tv_nsec : 0;
}

static bool is_same(const struct p9_node *node, const struct statx *stx)
{
    return node->ino == stx->stx_ino && node->born == birth(stx) && node->major == stx->stx_dev_major &&
           node->minor == stx->stx_dev_minor && node->type == (stx->stx_mode & S_IFMT);
}

/* The parent has its descriptor. */
static int reopen_one(struct p9_node *node)
{
    struct statx stx;
    int fd, r;

    if (node->orphan)
        return -ESTALE;
    fd = open_path(node->parent->fd, node->name);
    if (fd < 0)
        return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : fd;
    r = p9_statx(fd, "", &stx);
    if (r == 0 && !is_same(node, &stx))
        r = -ESTALE;
    if (r < 0) {
        close(fd);
        return r;
    }
    node->fd = fd;
    g_queue_push_head_link(&node->fs->lru, &node->link);
    return 0;
}

/* Without recursion: the guest may nest directories as deeply as it likes. */
static int reopen(struct p9_node *node)
{
    g_autoptr(GPtrArray) path = g_ptr_array_new();
    int r = 0;

    for (; node->fd < 0; node = node->parent)
        g_ptr_array_add(path, node);
    for (guint i = path->len; i-- > 0 && r == 0;)
        r = reopen_one(g_ptr_array_index(path, i));
    return r;
}

int p9_pin(struct p9_node *node)
{
    struct p9_fs *fs = node->fs;
    int r = 0;

    g_mutex_lock(&fs->lock);
    if (node->fd < 0)
        r = reopen(node);
    if (r == 0) {
        node->pins++;
        r = node->fd;
        if (node != fs->root) {
            g_queue_unlink(&fs->lru, &node->link);
            g_queue_push_head_link(&fs->lru, &node->link);
        }
        evict(fs);
    }
    g_mutex_unlock(&fs->lock);
    return r;
}

void p9_unpin(struct p9_node *node)
{
    g_mutex_lock(&node->fs->lock);
    node->pins--;
    g_mutex_unlock(&node->fs->lock);
}

/* --- names ---------------------------------------------------------------------------------------------- */

static guint name_hash(gconstpointer p)
{
    const struct p9_node *node = p;

    return g_direct_hash(node->parent) * 31 + g_str_hash(node->name);
}

static gboolean name_same(gconstpointer a, gconstpointer b)
{
    const struct p9_node *x = a, *y = b;

    return x->parent == y->parent && !strcmp(x->name, y->name);
}

static struct p9_node *find_name(struct p9_fs *fs, struct p9_node *dir, const char *name)
{
    struct p9_node key = {.parent = dir, .name = (char *)(uintptr_t)name};

    return g_hash_table_lookup(fs->by_name, &key);
}

static void make_orphan(struct p9_node *node)
{
    g_hash_table_remove(node->fs->by_name, node);
    node->orphan = true;
}

static struct p9_node *new_node(struct p9_fs *fs, int fd, const struct statx *stx)
{
    struct p9_node *node = g_new0(struct p9_node, 1);

    node->fs = fs;
    node->refs = 1;
    node->fd = fd;
    node->link.data = node;
    node->ino = stx->stx_ino;
    node->born = birth(stx);
    node->major = stx->stx_dev_major;
    node->minor = stx->stx_dev_minor;
    node->type = stx->stx_mode & S_IFMT;
    return node;
}

struct p9_node *p9_node_adopt(struct p9_node *dir, const char *name, int fd, const struct statx *stx)
{
    struct p9_fs *fs = dir->fs;
    struct p9_node *node;

    g_mutex_lock(&fs->lock);
    node = find_name(fs, dir, name);
    if (node && is_same(node, stx)) {
        node->refs++;
        if (node->fd >= 0) {
            close(fd);
        } else {
            node->fd = fd;
            g_queue_push_head_link(&fs->lru, &node->link);
        }
    } else {
        if (node)
            make_orphan(node);
        node = new_node(fs, fd, stx);
        node->parent = dir;
        dir->refs++;
        node->name = g_strdup(name);
        g_hash_table_add(fs->by_name, node);
        g_queue_push_head_link(&fs->lru, &node->link);
        evict(fs);
    }
    g_mutex_unlock(&fs->lock);
    return node;
}

void p9_names_gone(struct p9_node *dir, const char *name)
{
    struct p9_node *node;

    g_mutex_lock(&dir->fs->lock);
    node = find_name(dir->fs, dir, name);
    if (node)
        make_orphan(node);
    g_mutex_unlock(&dir->fs->lock);
}

void p9_names_moved(struct p9_node *from, const char *name, struct p9_node *to, const char *to_name)
{
    struct p9_fs *fs = from->fs;
    struct p9_node *node, *old;

    p9_names_gone(to, to_name);
    g_mutex_lock(&fs->lock);
    node = find_name(fs, from, name);
    old = NULL;
    if (node) {
        g_hash_table_remove(fs->by_name, node);
        old = node->parent;
        to->refs++;
        node->parent = to;
        g_free(node->name);
        node->name = g_strdup(to_name);
        g_hash_table_add(fs->by_name, node);
    }
    g_mutex_unlock(&fs->lock);
    if (old)
        p9_node_unref(old);
}

/* --- references ----------------------------------------------------------------------------------------- */

struct p9_node *p9_node_ref(struct p9_node *node)
{
    g_mutex_lock(&node->fs->lock);
    node->refs++;
    g_mutex_unlock(&node->fs->lock);
    return node;
}

void p9_node_unref(struct p9_node *node)
{
    struct p9_fs *fs = node->fs;

    g_mutex_lock(&fs->lock);
    while (node && --node->refs == 0) {
        struct p9_node *parent = node->parent;

        close_fd(node);
        if (!node->orphan && parent)
            g_hash_table_remove(fs->by_name, node);
        g_free(node->name);
        g_free(node);
        node = parent;
    }
    g_mutex_unlock(&fs->lock);
}

struct p9_node *p9_node_root(struct p9_fs *fs)
{
    return p9_node_ref(fs->root);
}

bool p9_node_is_root(const struct p9_node *node)
{
    return node == node->fs->root;
}

static struct p9_node *parent_of(struct p9_node *node)
{
    struct p9_node *parent;

    g_mutex_lock(&node->fs->lock);
    parent = node->parent ? node->parent : node;
    parent->refs++;
    g_mutex_unlock(&node->fs->lock);
    return parent;
}

static int may_be_shown(struct p9_fs *fs, const struct statx *stx)
{
    if (!fs->options.one_device ||
        (stx->stx_dev_major == fs->root->major && stx->stx_dev_minor == fs->root->minor))
        return 0;
    return -ENODEV;
}

static int walk_down(struct p9_node *dir, const char *name, struct p9_node **node)
{
    struct statx stx;
    int dirfd = p9_pin(dir), fd, r;

    if (dirfd < 0)
        return dirfd;
    fd = open_path(dirfd, name);
    p9_unpin(dir);
    if (fd < 0)
        return fd;
    r = p9_statx(fd, "", &stx);
    if (r == 0)
        r = may_be_shown(dir->fs, &stx);
    if (r < 0)
        close(fd);
    else
        *node = p9_node_adopt(dir, name, fd, &stx);
    return r;
}

int p9_walk(struct p9_node *dir, const char *name, struct p9_node **node, struct statx *stx)
{
    int r = 0;

    if (dir->type != S_IFDIR)
        return -ENOTDIR;
    if (p9_is_hidden(dir->fs, name))
        return -ENOENT;
    if (!strcmp(name, "..")) {
        *node = parent_of(dir);
    } else if (!strcmp(name, ".")) {
        *node = p9_node_ref(dir);
    } else {
        g_rw_lock_reader_lock(&dir->fs->names);
        r = walk_down(dir, name, node);
        g_rw_lock_reader_unlock(&dir->fs->names);
    }
    if (r < 0)
        return r;
    r = p9_getattr(*node, stx);
    if (r < 0)
        p9_node_unref(*node);
    return r;
}

/* --- qids ------------------------------------------------------------------------------------------------
 */

/*
 * A qid's path must be unique for the whole tree, which may span file systems: the upper 12 bits stand for
 * the device and the upper 12 bits of the host's number; the first such pair, the root's, is 0.
 */
static uint64_t qid_path(struct p9_fs *fs, uint32_t major, uint32_t minor, uint64_t ino)
{
    uint64_t key = (uint64_t)(major & 0xfffff) << 44 | (uint64_t)minor << 12 | ino >> 52, n, *slot;

    g_mutex_lock(&fs->lock);
    slot = g_hash_table_lookup(fs->prefixes, &key);
    if (!slot) {
        slot = g_new(uint64_t, 2);
        slot[0] = key;
        slot[1] = g_hash_table_size(fs->prefixes) & 0xfff;
        if (g_hash_table_size(fs->prefixes) < 65536)
            g_hash_table_add(fs->prefixes, slot);
    }
    n = slot[1];
    g_mutex_unlock(&fs->lock);
    return n << 52 | (ino & (UINT64_MAX >> 12));
}

struct p9_qid p9_qid_of(struct p9_fs *fs, const struct statx *stx)
{
    struct p9_qid qid = {.type = S_ISDIR(stx->stx_mode)   ? 0x80
                                 : S_ISLNK(stx->stx_mode) ? 0x02
                                                          : 0,
                         .version = (uint32_t)stx->stx_mtime.tv_sec ^ stx->stx_mtime.tv_nsec ^
                                    (uint32_t)(stx->stx_size << 8),
                         .path = qid_path(fs, stx->stx_dev_major, stx->stx_dev_minor, stx->stx_ino)};

    return qid;
}

struct p9_qid p9_qid_of_entry(struct p9_fs *fs, const struct statx *dir, uint64_t ino, uint8_t d_type)
{
    return (struct p9_qid){.type = d_type == DT_DIR   ? 0x80
                                   : d_type == DT_LNK ? 0x02
                                                      : 0,
                           .path = qid_path(fs, dir->stx_dev_major, dir->stx_dev_minor, ino)};
}

/* --- the whole ------------------------------------------------------------------------------------------ */

int p9_fs_take_file(struct p9_fs *fs)
{
    int r = 0;

    g_mutex_lock(&fs->lock);
    if (fs->files >= fs->max_files)
        r = -ENFILE;
    else
        fs->files++;
    g_mutex_unlock(&fs->lock);
    return r;
}

void p9_fs_put_file(struct p9_fs *fs)
{
    g_mutex_lock(&fs->lock);
    fs->files--;
    g_mutex_unlock(&fs->lock);
}

/* What this process may open: as much as it can get, half for the guest's open files, a quarter for nodes. */
static void share_descriptors(struct p9_fs *fs)
{
    struct rlimit lim;

    fs->max_files = 512;
    fs->max_paths = 256;
    if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
        return;
    if (lim.rlim_cur < FILES_WANTED && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = MIN(lim.rlim_max, (rlim_t)FILES_WANTED);
        if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
            getrlimit(RLIMIT_NOFILE, &lim);
    }
    fs->max_files = (unsigned)MIN(lim.rlim_cur, (rlim_t)FILES_WANTED) / 2;
    fs->max_paths = fs->max_files / 2;
}

static int open_root(struct p9_fs *fs, const char **why)
{
    struct statx stx;
    int fd = open(fs->path, O_PATH | O_DIRECTORY | O_CLOEXEC), r, readable;

    *why = "cannot be opened";
    if (fd < 0)
        return -errno;
    readable = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (readable < 0) {
        *why = "cannot be read";
        r = -errno;
        close(fd);
        return r;
    }
    close(readable);
    r = p9_statx(fd, "", &stx);
    if (r < 0) {
        close(fd);
        return r;
    }
    fs->root = new_node(fs, fd, &stx);
    qid_path(fs, stx.stx_dev_major, stx.stx_dev_minor, stx.stx_ino);
    return 0;
}

int p9_fs_new(struct p9_fs **out, const struct p9_options *options, const char **why)
{
    struct p9_fs *fs = g_new0(struct p9_fs, 1);
    int r;

    fs->options = *options;
    fs->path = g_strdup(options->path);
    fs->options.path = fs->path;
    g_rw_lock_init(&fs->names);
    g_mutex_init(&fs->lock);
    fs->by_name = g_hash_table_new(name_hash, name_same);
    fs->prefixes = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    g_queue_init(&fs->lru);
    share_descriptors(fs);
    r = open_root(fs, why);
    if (r < 0) {
        p9_fs_free(fs);
        return r;
    }
    *out = fs;
    return 0;
}

void p9_fs_free(struct p9_fs *fs)
{
    if (!fs)
        return;
    if (fs->root) {
        close(fs->root->fd);
        g_free(fs->root);
    }
    g_hash_table_destroy(fs->by_name);
    g_hash_table_destroy(fs->prefixes);
    g_rw_lock_clear(&fs->names);
    g_mutex_clear(&fs->lock);
    g_free(fs->path);
    g_free(fs);
}

const struct p9_options *p9_fs_options(const struct p9_fs *fs)
{
    return &fs->options;
}
