/*
 * The mount protocol, versions 1 (RFC 1094 appendix A) and 3 (RFC 1813 section 5): from a path to a handle.
 * A path is an export's name or that and directories below it; "." is skipped, ".." and links are refused.
 * Threading: the server's.
 */
#include <errno.h>
#include <string.h>

#include "base/compiler.h"
#include "nfs/server.h"

enum { PROG_MOUNT = 100005, PATH_LEN_MAX = 1024, AUTH_FLAVOR_SYS = 1 };

static void null(struct rpc_call *call)
{
}

/* The export with the longest name that `path' begins with; *rest is what follows it. */
static struct tree *find_export(struct nfs_server *s, const char *path, const char **rest)
{
    struct tree *best = NULL;
    size_t best_len = 0;

    for (size_t i = 0; i < s->n_trees; i++) {
        const char *mount = s->trees[i]->mount;
        size_t len = strlen(mount);

        while (len && mount[len - 1] == '/')
            len--;
        if (strncmp(path, mount, len) || (path[len] && path[len] != '/') || (best && len < best_len))
            continue;
        best = s->trees[i];
        best_len = len;
        *rest = path + len;
    }
    return best;
}

static int step(struct node **node, const char *name, size_t len)
{
    const struct cred root = {0};
    char part[TREE_NAME_MAX + 1];
    int err = tree_check_name(name, len, part);

    if (err || !strcmp(part, "."))
        return err;
    if (!strcmp(part, ".."))
        return -EACCES;
    return tree_lookup(*node, &root, part, node);
}

static int find_dir(struct nfs_server *s, const char *path, struct node **node)
{
    const char *rest = NULL;
    struct tree *tree = find_export(s, path, &rest);
    struct attr attr;
    int err = 0;

    if (!tree)
        return -EACCES;
    *node = tree->root;
    while (!err && *rest) {
        size_t len = strcspn(rest, "/");

        if (len)
            err = step(node, rest, len);
        rest += len;
        rest += *rest == '/';
    }
    if (!err)
        err = node_attr(*node, &attr);
    if (err)
        return err;
    return S_ISDIR(attr.mode) ? 0 : -ENOTDIR;
}

static void note_mount(struct nfs_server *s, const char *path)
{
    for (guint i = 0; i < s->mounts->len; i++) {
        if (!strcmp(g_ptr_array_index(s->mounts, i), path))
            return;
    }
    if (s->mounts->len < SERVER_MOUNTS_MAX)
        g_ptr_array_add(s->mounts, g_strdup(path));
}

static uint32_t mount_status(int err)
{
    switch (err) {
    case 0:
        return 0;
    case -ENOENT:
    case -EACCES:
    case -ENOTDIR:
    case -EINVAL:
    case -ENAMETOOLONG:
    case -EPERM:
        return (uint32_t)-err == ENAMETOOLONG ? 63 : (uint32_t)-err;
    default:
        return EIO;
    }
}

/* A path with a NUL in it names nothing. */
static bool take_path(struct rpc_call *call, char path[PATH_LEN_MAX + 1])
{
    size_t n;
    const uint8_t *p = rpc_opaque(call, PATH_LEN_MAX, &n);

    memcpy(path, p, n);
    path[n] = 0;
    return strlen(path) == n;
}

static void mnt(struct rpc_call *call)
{
    char path[PATH_LEN_MAX + 1];
    uint8_t handle[TREE_HANDLE_SIZE];
    struct node *node;
    bool valid = take_path(call, path);
    int err;

    if (call->bad)
        return;
    err = valid ? find_dir(call->server, path, &node) : -ENOENT;
    rpc_put_u32(call, mount_status(err));
    if (err)
        return;
    note_mount(call->server, path);
    node_handle(node, handle);
    if (call->vers == 1) {
        rpc_put_fixed(call, handle, sizeof(handle));
        return;
    }
    rpc_put_opaque(call, handle, sizeof(handle));
    rpc_put_u32(call, 1);
    rpc_put_u32(call, AUTH_FLAVOR_SYS);
}

static void dump(struct rpc_call *call)
{
    for (guint i = 0; i < call->server->mounts->len; i++) {
        const char *path = g_ptr_array_index(call->server->mounts, i);

        rpc_put_bool(call, true);
        rpc_put_opaque(call, "guest", 5);
        rpc_put_opaque(call, path, strlen(path));
    }
    rpc_put_bool(call, false);
}

static void umnt(struct rpc_call *call)
{
    GPtrArray *mounts = call->server->mounts;
    char path[PATH_LEN_MAX + 1];

    take_path(call, path);
    for (guint i = 0; i < mounts->len && !call->bad; i++) {
        if (!strcmp(g_ptr_array_index(mounts, i), path)) {
            g_ptr_array_remove_index(mounts, i);
            return;
        }
    }
}

static void umntall(struct rpc_call *call)
{
    g_ptr_array_set_size(call->server->mounts, 0);
}

static void export(struct rpc_call *call)
{
    for (size_t i = 0; i < call->server->n_trees; i++) {
        const char *mount = call->server->trees[i]->mount;

        rpc_put_bool(call, true);
        rpc_put_opaque(call, mount, strlen(mount));
        rpc_put_bool(call, false);
    }
    rpc_put_bool(call, false);
}

/* Version 1 has EXPORTALL, another name for the same, in front of what it calls PATHCONF in version 2. */
static const struct rpc_proc procs[] = {
    {"MNT_NULL", null},       {"MNT_MNT", mnt},       {"MNT_DUMP", dump},        {"MNT_UMNT", umnt},
    {"MNT_UMNTALL", umntall}, {"MNT_EXPORT", export}, {"MNT_EXPORTALL", export},
};

const struct rpc_program mount1_program = {PROG_MOUNT, 1, procs, ARRAY_LEN(procs)};
const struct rpc_program mount3_program = {PROG_MOUNT, 3, procs, ARRAY_LEN(procs) - 1};
