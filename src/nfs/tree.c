/*
 * Where the objects of an export are: handles, nodes, the names that lead to them, and the open descriptors.
 *
 * 1. A node is found by its key and reached by name, one component below a directory that is itself a node:
 * nothing follows a symbolic link, "..", or a magic link of /proc, so nothing leaves the export.
 * 2. What was reached counts only when its key is the one expected; a name that leads elsewhere is forgotten.
 * 3. A descriptor is believed for CHECK_MS; then its names must lead to it again.  So what the host moves out
 * of the export is out of reach a second later.
 * 4. A node with children or with the descriptor of the call in progress is never evicted: eviction happens
 * in tree_begin() only.
 *
 * Left out: object numbers of file systems whose readdir and stat disagree (some overlays) are not found
 * again after a restart by their handle alone; a LOOKUP finds them. Threading: the server's.
 */
#include "nfs/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define CHECK_MS    1000
#define PATH_CHUNK  4000  /* below PATH_MAX */
#define STEPS_MAX   65536 /* deeper than any path: the parents go in a circle */
#define HANDLE_MARK UINT32_C(0x41724e31)
#define STATX_WANT  (STATX_BASIC_STATS | STATX_BTIME)

void fd_path(char buf[32], int fd)
{
    snprintf(buf, 32, "/proc/self/fd/%d", fd);
}

int statx_at(int fd, const char *name, struct statx *stx)
{
    return statx(fd, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_WANT, stx) < 0
               ? -errno
               : 0;
}

uint32_t key_dev(const struct statx *stx)
{
    return stx->stx_dev_major << 20 | (stx->stx_dev_minor & 0xfffff);
}

struct node_key key_of(const struct statx *stx)
{
    struct node_key key = {.ino = stx->stx_ino, .dev = key_dev(stx)};

    if (stx->stx_mask & STATX_BTIME)
        key.born = (uint64_t)stx->stx_btime.tv_sec * 1000000000 + stx->stx_btime.tv_nsec;
    return key;
}

bool key_equal(const struct node_key *a, const struct node_key *b)
{
    return a->ino == b->ino && a->born == b->born && a->dev == b->dev;
}

static guint key_hash(gconstpointer p)
{
    const struct node_key *key = p;
    uint64_t h = (key->ino ^ key->born) * UINT64_C(0x9e3779b97f4a7c15);

    return (guint)(h >> 32) ^ key->dev;
}

static gboolean key_same(gconstpointer a, gconstpointer b)
{
    return key_equal(a, b);
}

static int64_t clock_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* --- nodes --- */

struct node *node_get(struct tree *tree, const struct statx *stx)
{
    struct node_key key = key_of(stx);
    struct node *node = g_hash_table_lookup(tree->by_key, &key);

    if (node && key_equal(&node->host, &key)) {
        g_queue_unlink(&tree->nodes, &node->node_link);
        g_queue_push_head_link(&tree->nodes, &node->node_link);
        return node;
    }
    node = g_new0(struct node, 1);
    node->tree = tree;
    node->id = node->host = key;
    node->type = stx->stx_mode & S_IFMT;
    node->fd = -1;
    node->fd_link.data = node->node_link.data = node;
    g_hash_table_replace(tree->by_key, &node->host, node);
    g_queue_push_head_link(&tree->nodes, &node->node_link);
    return node;
}

void node_alias(struct node *node, const struct node_key *id)
{
    struct node *old = g_hash_table_lookup(node->tree->by_key, id);

    /* A node that is itself still what it was cannot have been replaced; another one's alias is not taken. */
    if (old == node || (old && (!key_equal(&old->host, id) || !S_ISLNK(old->type))))
        return;
    if (old)
        g_hash_table_remove(node->tree->by_key, id);
    node->id = *id;
    g_hash_table_replace(node->tree->by_key, &node->id, node);
}

static void forget_key(struct node *node, struct node_key *key)
{
    if (g_hash_table_lookup(node->tree->by_key, key) == node)
        g_hash_table_remove(node->tree->by_key, key);
}

void node_become(struct node *node, const struct statx *stx)
{
    struct node *other;
    struct node_key key = key_of(stx);

    node_close(node);
    other = g_hash_table_lookup(node->tree->by_key, &key);
    if (other && other != node)
        forget_key(other, &other->host);
    if (!key_equal(&node->host, &node->id))
        forget_key(node, &node->host);
    /* The table's entry for the old key must not point into `host', which changes. */
    g_hash_table_replace(node->tree->by_key, &node->id, node);
    node->host = key;
    node->type = stx->stx_mode & S_IFMT;
    node->meta_ctime = (struct timespec){0};
    g_hash_table_replace(node->tree->by_key, &node->host, node);
}

void node_close(struct node *node)
{
    if (node->fd < 0)
        return;
    close(node->fd);
    node->fd = -1;
    node->fd_kind = FD_NONE;
    g_queue_unlink(&node->tree->fds, &node->fd_link);
}

static void keep_fd(struct node *node, int fd, enum fd_kind kind)
{
    struct tree *tree = node->tree;

    node_close(node);
    node->fd = fd;
    node->fd_kind = kind;
    node->used = node->checked = tree->now;
    g_queue_push_head_link(&tree->fds, &node->fd_link);
}

static void touch_fd(struct node *node)
{
    node->used = node->tree->now;
    g_queue_unlink(&node->tree->fds, &node->fd_link);
    g_queue_push_head_link(&node->tree->fds, &node->fd_link);
}

static void free_place(struct place *place)
{
    place->parent->children--;
    g_free(place);
}

static void node_free(struct node *node)
{
    struct place *place;

    node_close(node);
    while ((place = node->places)) {
        node->places = place->next;
        free_place(place);
    }
    forget_key(node, &node->host);
    forget_key(node, &node->id);
    g_queue_unlink(&node->tree->nodes, &node->node_link);
    cookies_free(node->cookies);
    g_free(node);
}

/* The place was seen just now: it comes first. */
void node_add_place(struct node *node, struct node *parent, const char *name)
{
    size_t len = strlen(name);
    struct place *place;

    for (struct place **p = &node->places; (place = *p); p = &place->next) {
        if (place->parent != parent || strcmp(place->name, name))
            continue;
        *p = place->next;
        place->next = node->places;
        node->places = place;
        return;
    }
    if (node == node->tree->root || node == parent)
        return;
    /* A directory has one name; what was believed before is wrong. */
    if (S_ISDIR(node->type) && node->places) {
        free_place(node->places);
        node->places = NULL;
    }
    place = g_malloc(sizeof(*place) + len + 1);
    memcpy(place->name, name, len + 1);
    place->parent = parent;
    place->next = node->places;
    node->places = place;
    parent->children++;
    node->checked = node->tree->now;
}

void node_drop_place(struct node *node, const struct node *parent, const char *name)
{
    for (struct place **p = &node->places; *p; p = &(*p)->next) {
        struct place *place = *p;

        if (place->parent == parent && !strcmp(place->name, name)) {
            *p = place->next;
            free_place(place);
            return;
        }
    }
}

/* --- reaching them --- */

static int open_beneath(int dirfd, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

/* For kernels and sandboxes without openat2: each component by itself, none of them a link. */
static int open_by_steps(int dirfd, char *path, int flags)
{
    int fd = dirfd;

    for (char *name = path, *next; name; name = next) {
        next = strchr(name, '/');
        if (next)
            *next++ = 0;
        int f = openat(fd, name, (next ? O_PATH | O_DIRECTORY : flags) | O_CLOEXEC | O_NOFOLLOW);
        int err = -errno;

        if (fd != dirfd)
            close(fd);
        if (f < 0)
            return err;
        fd = f;
    }
    return fd;
}

static int open_path(int dirfd, char *path, int flags)
{
    int fd = open_beneath(dirfd, path, flags);

    /* EAGAIN: a rename elsewhere may have moved a "..", of which we have none. */
    return fd == -ENOSYS || fd == -EPERM || fd == -EAGAIN || fd == -EINVAL ? open_by_steps(dirfd, path, flags)
                                                                           : fd;
}

/* A directory that the next steps can begin at without doubt. */
static bool is_anchor(const struct node *node)
{
    return node == node->tree->root ||
           (node->fd_kind == FD_DIR && node->tree->now - node->checked < CHECK_MS);
}

/*
 * `chain' becomes the nodes below an anchor that lead to node, node first; returns the anchor or NULL.  From
 * the root when `all'.
 */
static struct node *climb(struct node *node, GPtrArray *chain, bool all)
{
    struct node *root = node->tree->root;

    g_ptr_array_set_size(chain, 0);
    do {
        if (!node->places || chain->len >= STEPS_MAX)
            return NULL;
        g_ptr_array_add(chain, node);
        node = node->places->parent;
    } while (node != root && (all || !is_anchor(node)));
    return node;
}

/* Open along `chain' from `anchor', in pieces that the kernel takes. */
static int descend(struct node *anchor, GPtrArray *chain, int flags)
{
    g_autoptr(GString) path = g_string_sized_new(256);
    int fd = anchor->fd;

    for (guint i = chain->len; i-- > 0;) {
        const struct node *node = g_ptr_array_index(chain, i);

        if (path->len)
            g_string_append_c(path, '/');
        g_string_append(path, node->places->name);
        if (i > 0 && path->len < PATH_CHUNK - TREE_NAME_MAX)
            continue;
        int next = open_path(fd, path->str, i ? O_PATH | O_DIRECTORY : flags);

        if (fd != anchor->fd)
            close(fd);
        if (next < 0)
            return next;
        fd = next;
        g_string_truncate(path, 0);
    }
    return fd;
}

/* Does fd have the node's key?  0, -ESTALE, -errno. */
static int verify(int fd, const char *name, const struct node *node, struct statx *stx)
{
    struct node_key key;
    int err = statx_at(fd, name, stx);

    if (err)
        return err;
    key = key_of(stx);
    return key_equal(&key, &node->host) ? 0 : -ESTALE;
}

/* The first of the chain (from the root) whose name no longer leads to it; NULL when all do. */
static struct node *find_broken(struct node *anchor, GPtrArray *chain)
{
    int fd = anchor->fd;
    struct node *broken = NULL;

    for (guint i = chain->len; i-- > 0 && !broken;) {
        struct node *node = g_ptr_array_index(chain, i);
        int next = openat(fd, node->places->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct statx stx;

        if (fd != anchor->fd)
            close(fd);
        if (next < 0 || verify(next, "", node, &stx))
            broken = node;
        fd = next;
    }
    if (fd >= 0 && fd != anchor->fd)
        close(fd);
    return broken;
}

/* The ancestor that nothing leads to, or one of a circle. */
static struct node *find_loose(struct node *node)
{
    for (unsigned n = 0; node->places && n < STEPS_MAX; n++)
        node = node->places->parent;
    return node;
}

/* Another server of the same tree gave the link to somebody: the file that stands for it now takes the node
 * over. */
static bool was_replaced(struct node *node)
{
    const struct place *place = node->places;
    struct statx stx;
    int fd;

    if (!S_ISLNK(node->type) || !place || !node->tree->xattr)
        return false;
    fd = place->parent->fd >= 0 ? place->parent->fd : node_dirfd(place->parent);
    if (fd < 0 || node->places != place || statx_at(fd, place->name, &stx) || !S_ISREG(stx.stx_mode) ||
        !meta_replaces(fd, place->name, &node->id))
        return false;
    node_become(node, &stx);
    return true;
}

/* Forget the names that do not lead to the node, its ancestors' too, and look for better ones.  0 or -ESTALE.
 */
int node_repair(struct node *node)
{
    g_autoptr(GPtrArray) chain = g_ptr_array_new();

    for (unsigned tries = 0; tries < 64; tries++) {
        struct node *anchor = climb(node, chain, true), *bad;

        if (anchor) {
            bad = find_broken(anchor, chain);
            if (!bad)
                return 0;
        } else {
            bad = find_loose(node);
        }
        node_close(bad);
        if (was_replaced(bad))
            continue;
        if (bad->places)
            node_drop_place(bad, bad->places->parent, bad->places->name);
        if (!bad->places && index_find(node->tree, &bad->host, bad->checked, NULL))
            return -ESTALE;
    }
    return -ESTALE;
}

static bool is_lost(int err)
{
    return err == -ENOENT || err == -ENOTDIR || err == -ESTALE || err == -ELOOP || err == -EXDEV;
}

/* A new descriptor of the node; `stx' is what it is. */
static int open_node(struct node *node, int flags, bool from_root, struct statx *stx)
{
    g_autoptr(GPtrArray) chain = g_ptr_array_new();

    for (unsigned tries = 0; tries < 3; tries++) {
        struct node *anchor = climb(node, chain, from_root || tries);
        int fd = anchor ? descend(anchor, chain, flags) : -ESTALE;
        int err = fd < 0 ? fd : verify(fd, "", node, stx);

        if (!err)
            return fd;
        if (fd >= 0)
            close(fd);
        if (!is_lost(err))
            return err;
        err = node_repair(node);
        if (err)
            return err;
    }
    return -ESTALE;
}

/* Is what we hold open still where its names lead?  If not, it is moved to its new place or closed. */
static int check_fd(struct node *node)
{
    struct statx stx;
    int fd;

    if (node == node->tree->root || node->tree->now - node->checked < CHECK_MS)
        return 0;
    fd = open_node(node, O_PATH, true, &stx);
    if (fd < 0) {
        node_close(node);
        return fd;
    }
    close(fd);
    node->checked = node->tree->now;
    return 0;
}

int node_dirfd(struct node *dir)
{
    struct statx stx;
    int fd;

    if (!S_ISDIR(dir->type))
        return -ENOTDIR;
    if (dir->fd >= 0) {
        int err = check_fd(dir);

        if (err)
            return err;
        if (dir->fd >= 0) {
            if (dir != dir->tree->root)
                touch_fd(dir);
            return dir->fd;
        }
    }
    fd = open_node(dir, O_RDONLY | O_DIRECTORY, false, &stx);
    if (fd == -EACCES)
        fd = open_node(dir, O_PATH | O_DIRECTORY, false, &stx);
    if (fd >= 0)
        keep_fd(dir, fd, FD_DIR);
    return fd;
}

int node_pathfd(struct node *node, bool *owned)
{
    struct statx stx;
    int fd;

    *owned = false;
    if (node->fd >= 0 && !check_fd(node) && node->fd >= 0)
        return node->fd;
    fd = open_node(node, O_PATH, false, &stx);
    *owned = fd >= 0;
    return fd;
}

/*
 * By way of an O_PATH descriptor that is known to be the regular file meant: opening by name could block on a
 * pipe or wake a device that took the name in between.
 */
static int open_file(struct node *node, bool write)
{
    char path[32];
    bool owned;
    int pathfd = node_pathfd(node, &owned), fd, err;

    if (pathfd < 0)
        return pathfd;
    fd_path(path, pathfd);
    fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY);
    err = -errno;
    if (owned)
        close(pathfd);
    return fd < 0 ? err : fd;
}

int node_file(struct node *node, bool write)
{
    int fd;

    if (!S_ISREG(node->type))
        return S_ISDIR(node->type) ? -EISDIR : -EINVAL;
    if (node->fd >= 0 && (node->fd_kind == FD_WRITE || !write) && !check_fd(node) && node->fd >= 0) {
        touch_fd(node);
        return node->fd;
    }
    fd = open_file(node, write);
    if (fd == -EACCES && !node_promote(node))
        fd = open_file(node, write);
    if (fd >= 0)
        keep_fd(node, fd, write ? FD_WRITE : FD_READ);
    return fd;
}

void node_adopt(struct node *node, int fd)
{
    keep_fd(node, fd, FD_WRITE);
}

/* By its parent's descriptor: one system call for what is not open. */
static int stat_by_name(struct node *node, struct statx *stx)
{
    struct node *parent = node->places ? node->places->parent : NULL;
    int dirfd, err;

    if (!parent)
        return -ESTALE;
    dirfd = node_dirfd(parent);
    if (dirfd < 0)
        return dirfd;
    /* Reaching the parent may have changed what is known of the places. */
    if (!node->places || node->places->parent != parent)
        return -ESTALE;
    err = verify(dirfd, node->places->name, node, stx);
    if (!err)
        node->checked = node->tree->now;
    return err;
}

int node_stat(struct node *node, struct statx *stx)
{
    int err = -ESTALE;

    if (node->fd >= 0) {
        err = check_fd(node);
        if (err)
            return err;
        if (node->fd >= 0) {
            err = statx_at(node->fd, "", stx);
            if (!err && stx->stx_nlink)
                return 0;
            if (node == node->tree->root)
                return err ? err : -ESTALE;
            node_close(node);
            return -ESTALE;
        }
    }
    if (node->places)
        err = stat_by_name(node, stx);
    if (is_lost(err)) {
        int fd = open_node(node, O_PATH, true, stx);

        if (fd < 0)
            return fd;
        close(fd);
        err = 0;
    }
    return err;
}

/* --- handles --- */

static void put32(uint8_t *p, uint32_t v)
{
    v = GUINT32_TO_BE(v);
    memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
    v = GUINT64_TO_BE(v);
    memcpy(p, &v, 8);
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return GUINT32_FROM_BE(v);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return GUINT64_FROM_BE(v);
}

/* FNV-1a: against handles made up at random, each of which would cost a walk over the tree; no secret. */
static uint32_t checksum(const uint8_t *p, size_t len)
{
    uint32_t h = UINT32_C(2166136261) ^ HANDLE_MARK;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * UINT32_C(16777619);
    return h;
}

void node_handle(const struct node *node, uint8_t handle[TREE_HANDLE_SIZE])
{
    put32(handle, HANDLE_MARK);
    put32(handle + 4, node->tree->id);
    put64(handle + 8, node->id.ino);
    put64(handle + 16, node->id.born);
    put32(handle + 24, node->id.dev);
    put32(handle + 28, checksum(handle, 28));
}

bool handle_tree(const uint8_t *handle, size_t len, uint32_t *id)
{
    if (len != TREE_HANDLE_SIZE || get32(handle) != HANDLE_MARK || get32(handle + 28) != checksum(handle, 28))
        return false;
    *id = get32(handle + 4);
    return true;
}

int tree_node(struct tree *tree, const uint8_t *handle, struct node **node)
{
    struct node_key key = {.ino = get64(handle + 8), .born = get64(handle + 16), .dev = get32(handle + 24)};

    *node = g_hash_table_lookup(tree->by_key, &key);
    if (!*node)
        return index_find(tree, &key, -1, node);
    g_queue_unlink(&tree->nodes, &(*node)->node_link);
    g_queue_push_head_link(&tree->nodes, &(*node)->node_link);
    return 0;
}

int tree_check_name(const void *name, size_t len, char *out)
{
    if (len == 0 || memchr(name, 0, MIN(len, TREE_NAME_MAX + 1)) ||
        memchr(name, '/', MIN(len, TREE_NAME_MAX + 1)))
        return -EINVAL;
    if (len > TREE_NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(out, name, len);
    out[len] = 0;
    return 0;
}

/* --- the tree --- */

void tree_begin(struct tree *tree)
{
    tree->now = clock_ms();
    while (tree->fds.length > tree->max_fds)
        node_close(tree->fds.tail->data);
    for (unsigned n = 0; tree->nodes.length > tree->max_nodes && n < 16; n++) {
        struct node *node = tree->nodes.tail->data;

        if (node == tree->root || node->children || node->pins) {
            g_queue_unlink(&tree->nodes, &node->node_link);
            g_queue_push_head_link(&tree->nodes, &node->node_link);
        } else {
            node_free(node);
        }
    }
}

void tree_close_idle(struct tree *tree, int64_t ms)
{
    tree->now = clock_ms();
    for (struct node *node; tree->fds.tail; node_close(node)) {
        node = tree->fds.tail->data;
        if (tree->now - node->used < ms)
            break;
    }
    if (tree->index && tree->now - tree->index_built > 60000) {
        index_free(tree->index);
        tree->index = NULL;
    }
}

/* Half of the descriptors that the process may have, shared by all. */
static unsigned fd_limit(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
        return 64;
    return (unsigned)CLAMP(lim.rlim_cur / 4, 16, 2048);
}

static void set_identity(struct tree *tree)
{
    tree->uid = geteuid();
    tree->gid = getegid();
    tree->n_groups = getgroups(0, NULL);
    if (tree->n_groups <= 0) {
        tree->n_groups = 0;
        return;
    }
    tree->groups = g_new0(gid_t, tree->n_groups);
    tree->n_groups = MAX(0, getgroups(tree->n_groups, tree->groups));
}

static int open_root(const char *path, struct statx *stx)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0 && statx_at(fd, "", stx)) {
        int err = errno;

        close(fd);
        errno = err;
        return -1;
    }
    return fd;
}

struct tree *tree_new(const char *path, const char *mount, bool readonly, bool real, GError **error)
{
    struct statx stx;
    int fd = open_root(path, &stx);
    struct tree *tree;

    if (fd < 0) {
        int err = errno;

        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(err), "cannot export '%s': %s", path,
                    g_strerror(err));
        return NULL;
    }
    tree = g_new0(struct tree, 1);
    tree->path = g_strdup(path);
    tree->mount = mount ? g_strdup(mount) : g_canonicalize_filename(path, NULL);
    tree->readonly = readonly;
    tree->patient = true;
    tree->real = real;
    tree->max_fds = fd_limit();
    tree->max_nodes = 1u << 20;
    set_identity(tree);
    tree->by_key = g_hash_table_new(key_hash, key_same);
    tree->now = clock_ms();
    tree->root = node_get(tree, &stx);
    tree->root->fd = fd;
    tree->root->fd_kind = FD_DIR;
    tree->id = (uint32_t)stx.stx_ino * UINT32_C(2654435761) ^ key_dev(&stx);
    tree->xattr = !real && tree_has_xattr(tree);
    return tree;
}

static void drop_all_places(struct tree *tree)
{
    for (GList *l = tree->nodes.head; l; l = l->next) {
        struct node *node = l->data;

        while (node->places)
            node_drop_place(node, node->places->parent, node->places->name);
    }
}

void tree_free(struct tree *tree)
{
    if (!tree)
        return;
    index_free(tree->index);
    drop_all_places(tree);
    close(tree->root->fd);
    tree->root->fd = -1;
    while (tree->nodes.tail)
        node_free(tree->nodes.tail->data);
    g_hash_table_destroy(tree->by_key);
    g_free(tree->groups);
    g_free(tree->mount);
    g_free(tree->path);
    g_free(tree);
}
