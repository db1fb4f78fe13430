/*
 * Finding an object of which only the number is known: after a restart, after a rename by the host, after
 * eviction.
 *
 * A walk over the export notes the number, the directory and the name of everything (a readdir, no stat of
 * files). The result serves for all the handles that come next; a hit is a guess that is checked.  What was
 * seen before the walk and is not in it is gone.  A number never seen that is not in it starts a new walk
 * only when the last one is older than WALK_RATIO times what it cost, so that made-up handles cannot keep the
 * host busy. Threading: the server's.
 */
#include "nfs/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define WALK_RATIO    10
#define WALK_AGAIN_MS 100
#define DEPTH_MAX     4096

struct entry {
    uint32_t parent; /* position in entries; the root is 0 */
    uint32_t dev;
    uint64_t ino;
    uint32_t next; /* with the same ino; 0 ends */
    char *name;    /* in the chunk */
};

struct index {
    GArray *entries;
    GHashTable *by_ino; /* uint64_t -> position */
    GStringChunk *names;
};

void index_free(struct index *index)
{
    if (!index)
        return;
    g_array_unref(index->entries);
    g_hash_table_destroy(index->by_ino);
    g_string_chunk_free(index->names);
    g_free(index);
}

static void add_entry(struct index *ix, uint32_t parent, uint32_t dev, uint64_t ino, const char *name)
{
    struct entry e = {
        .parent = parent, .dev = dev, .ino = ino, .name = g_string_chunk_insert(ix->names, name)};
    gpointer key = (gpointer)(uintptr_t)ino;

    e.next = GPOINTER_TO_UINT(g_hash_table_lookup(ix->by_ino, key));
    g_array_append_val(ix->entries, e);
    g_hash_table_insert(ix->by_ino, key, GUINT_TO_POINTER(ix->entries->len - 1));
}

static bool is_dots(const char *name)
{
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static int cmp_position(gconstpointer a, gconstpointer b)
{
    return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b);
}

/* Note the names of the directory at position `self'; its subdirectories' positions go to `todo'. */
static void read_one(struct index *ix, DIR *dir, uint32_t self, uint32_t dev, GArray *todo)
{
    struct dirent *d;

    while ((d = readdir(dir))) {
        struct stat st;
        bool is_dir = d->d_type == DT_DIR;
        uint32_t pos = ix->entries->len;

        if (is_dots(d->d_name))
            continue;
        if (d->d_type == DT_UNKNOWN && !fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW))
            is_dir = S_ISDIR(st.st_mode);
        add_entry(ix, self, dev, d->d_ino, d->d_name);
        if (is_dir)
            g_array_append_val(todo, pos);
    }
}

/* Depth first; the descriptors open at a time are those of the path down. */
static void walk(struct index *ix, int fd, uint32_t self, unsigned depth)
{
    g_autoptr(GArray) todo = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    struct statx stx;
    DIR *dir = fdopendir(fd);

    if (!dir) {
        close(fd);
        return;
    }
    if (!statx_at(fd, "", &stx)) {
        struct entry *e = &g_array_index(ix->entries, struct entry, self);

        /* Below a mount point readdir and stat give two numbers. */
        e->dev = key_dev(&stx);
        read_one(ix, dir, self, e->dev, todo);
    }
    g_array_sort(todo, cmp_position);
    for (guint i = 0; i < todo->len && depth < DEPTH_MAX; i++) {
        uint32_t pos = g_array_index(todo, uint32_t, i);
        int sub = openat(dirfd(dir), g_array_index(ix->entries, struct entry, pos).name,
                         O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (sub >= 0)
            walk(ix, sub, pos, depth + 1);
    }
    closedir(dir);
}

static void build(struct tree *tree)
{
    struct index *ix = g_new0(struct index, 1);
    int64_t start = g_get_monotonic_time();
    int fd = openat(tree->root->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    index_free(tree->index);
    ix->entries = g_array_new(FALSE, FALSE, sizeof(struct entry));
    ix->by_ino = g_hash_table_new(NULL, NULL);
    ix->names = g_string_chunk_new(65536);
    add_entry(ix, 0, tree->root->host.dev, tree->root->host.ino, "");
    if (fd >= 0)
        walk(ix, fd, 0, 0);
    tree->index = ix;
    tree->index_cost = (g_get_monotonic_time() - start) / 1000;
    tree->index_built = tree->now;
}

/*
 * Make nodes of the entry at `pos' and all above it, as they are now; NULL when they are not.  With
 * descriptors of its own: those of nodes may be lost, which is why we are here.
 */
static struct node *materialize(struct tree *tree, uint32_t pos)
{
    g_autoptr(GArray) path = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    struct node *node = tree->root;
    int fd = node->fd;

    for (; pos; pos = g_array_index(tree->index->entries, struct entry, pos).parent)
        g_array_append_val(path, pos);
    for (guint i = path->len; i-- > 0 && node;) {
        const char *name =
            g_array_index(tree->index->entries, struct entry, g_array_index(path, uint32_t, i)).name;
        struct node *parent = node;
        int next = openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct statx stx;

        if (fd != tree->root->fd)
            close(fd);
        fd = next;
        node = next >= 0 && !statx_at(next, "", &stx) ? node_get(tree, &stx) : NULL;
        if (node)
            node_add_place(node, parent, name);
    }
    if (fd >= 0 && fd != tree->root->fd)
        close(fd);
    return node;
}

static int search(struct tree *tree, const struct node_key *key, struct node **node)
{
    uint32_t pos = GPOINTER_TO_UINT(g_hash_table_lookup(tree->index->by_ino, (gpointer)(uintptr_t)key->ino));

    for (; pos; pos = g_array_index(tree->index->entries, struct entry, pos).next) {
        struct node *found = materialize(tree, pos);

        if (found && key_equal(&found->host, key)) {
            if (node)
                *node = found;
            return 0;
        }
    }
    return -ESTALE;
}

int index_find(struct tree *tree, const struct node_key *key, int64_t seen, struct node **node)
{
    bool listed = tree->index && g_hash_table_contains(tree->index->by_ino, (gpointer)(uintptr_t)key->ino);
    int64_t age = tree->now - tree->index_built;

    if (listed && !search(tree, key, node))
        return 0;
    if (tree->index && !listed && seen >= 0 && tree->index_built > seen)
        return -ESTALE;
    if (tree->index && !listed && seen < 0 && age < MAX(WALK_AGAIN_MS, tree->index_cost * WALK_RATIO))
        return -ESTALE;
    if (!tree->patient) {
        tree->waits = true;
        return -EAGAIN;
    }
    build(tree);
    return search(tree, key, node);
}
