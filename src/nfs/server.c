/*
 * The server: its exports, and the calls that came before.
 * Threading: one call at a time.
 */
#include "nfs/server.h"

#include <errno.h>
#include <string.h>

#include "base/report.h"

#define REPLAY_MS INT64_C(120000)
#define IDLE_MS   1500

void nfs_reply_init(struct nfs_reply *reply)
{
    *reply = (struct nfs_reply){.base = g_malloc(NFS_REPLY_ROOM + NFS_MESSAGE_MAX)};
}

void nfs_reply_clear(struct nfs_reply *reply)
{
    g_free(reply->base);
    *reply = (struct nfs_reply){0};
}

/* --- answers to repeat --- */

static uint64_t sum_of(const uint8_t *p, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < MIN(len, 1024); i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

bool server_replay(struct rpc_call *call, size_t len)
{
    uint64_t sum = sum_of(call->msg, len);
    int64_t now = g_get_monotonic_time() / 1000;

    for (unsigned i = 0; i < SERVER_REPLAYS; i++) {
        const struct replay *r = &call->server->replays[i];

        if (r->len && r->xid == call->xid && r->prog == call->prog && r->vers == call->vers &&
            r->proc == call->proc && r->call_len == len && r->sum == sum && now - r->when < REPLAY_MS) {
            rpc_seek(call, 0);
            rpc_put_fixed(call, r->reply, r->len);
            return true;
        }
    }
    return false;
}

void server_remember(struct rpc_call *call, size_t len)
{
    struct nfs_server *s = call->server;
    struct replay *r = &s->replays[s->next_replay];
    size_t n = rpc_tell(call);

    if (n > SERVER_REPLAY_MAX)
        return;
    s->next_replay = (s->next_replay + 1) % SERVER_REPLAYS;
    r->xid = call->xid;
    r->prog = call->prog;
    r->vers = call->vers;
    r->proc = call->proc;
    r->sum = sum_of(call->msg, len);
    r->call_len = len;
    r->len = n;
    r->when = g_get_monotonic_time() / 1000;
    memcpy(r->reply, call->reply, n);
}

/* --- the server --- */

int server_node(struct nfs_server *server, const uint8_t *handle, size_t len, struct node **node)
{
    uint32_t id;

    if (!handle_tree(handle, len, &id))
        return -EBADF;
    for (size_t i = 0; i < server->n_trees; i++) {
        if (server->trees[i]->id == id)
            return tree_node(server->trees[i], handle, node);
    }
    return -ESTALE;
}

/* A second export of one directory would have the handles of the first, with another one's rights. */
static bool is_double(const struct nfs_server *s, const struct tree *tree, GError **error)
{
    for (size_t i = 0; i < s->n_trees; i++) {
        if (!strcmp(s->trees[i]->mount, tree->mount)) {
            g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_EXIST, "two exports have the name '%s'",
                        tree->mount);
            return true;
        }
        if (s->trees[i]->id == tree->id) {
            g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_EXIST, "'%s' and '%s' are one directory",
                        s->trees[i]->path, tree->path);
            return true;
        }
    }
    return false;
}

static bool add_export(struct nfs_server *s, const struct nfs_export *e, GError **error)
{
    struct tree *tree;

    if (e->mount && e->mount[0] != '/') {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL, "mount=%s does not begin with '/'", e->mount);
        return false;
    }
    tree = tree_new(e->path, e->mount, e->readonly, e->ids == NFS_IDS_REAL, error);
    if (!tree || is_double(s, tree, error)) {
        tree_free(tree);
        return false;
    }
    if (e->ids == NFS_IDS_MAPPED && !tree->xattr && !e->readonly)
        warn("'%s' is on a file system without user.* attributes: chown and mknod in the guest will be "
             "refused",
             e->path);
    s->trees[s->n_trees++] = tree;
    return true;
}

struct nfs_server *nfs_server_new(const struct nfs_export *exports, size_t n, GError **error)
{
    struct nfs_server *s = g_new0(struct nfs_server, 1);
    int64_t start = g_get_real_time() ^ ((int64_t)g_random_int() << 32);

    s->trees = g_new0(struct tree *, n);
    s->mounts = g_ptr_array_new_with_free_func(g_free);
    s->replays = g_new0(struct replay, SERVER_REPLAYS);
    s->ports = (struct nfs_ports){NFS_PORT_PORTMAP, NFS_PORT_NFS, NFS_PORT_MOUNT};
    memcpy(s->write_verf, &start, sizeof(s->write_verf));
    for (size_t i = 0; i < n; i++) {
        if (!add_export(s, &exports[i], error)) {
            nfs_server_free(s);
            return NULL;
        }
    }
    return s;
}

void nfs_server_free(struct nfs_server *server)
{
    if (!server)
        return;
    for (size_t i = 0; i < server->n_trees; i++)
        tree_free(server->trees[i]);
    g_free(server->trees);
    g_ptr_array_unref(server->mounts);
    g_free(server->replays);
    g_free(server);
}

void nfs_server_set_ports(struct nfs_server *server, const struct nfs_ports *ports)
{
    server->ports = *ports;
}

static bool answer(struct nfs_server *server, const void *rpc, size_t len, bool tcp, struct nfs_reply *reply,
                   bool patient)
{
    for (size_t i = 0; i < server->n_trees; i++) {
        tree_begin(server->trees[i]);
        server->trees[i]->patient = patient;
        server->trees[i]->waits = false;
    }
    reply->msg = reply->base + NFS_REPLY_ROOM;
    reply->len = len > NFS_MESSAGE_MAX ? 0 : rpc_answer(server, rpc, len, tcp, reply->msg);
    return reply->len > 0;
}

void nfs_server_set_waiting(struct nfs_server *server, void (*begin)(void *), void (*end)(void *), void *arg)
{
    for (size_t i = 0; i < server->n_trees; i++) {
        server->trees[i]->wait_begin = begin;
        server->trees[i]->wait_end = end;
        server->trees[i]->wait_arg = arg;
    }
}

bool nfs_server_call(struct nfs_server *server, const void *rpc, size_t len, bool tcp,
                     struct nfs_reply *reply)
{
    return answer(server, rpc, len, tcp, reply, true);
}

enum nfs_outcome nfs_server_try(struct nfs_server *server, const void *rpc, size_t len, bool tcp,
                                struct nfs_reply *reply)
{
    bool answered = answer(server, rpc, len, tcp, reply, false);

    for (size_t i = 0; i < server->n_trees; i++)
        if (server->trees[i]->waits)
            return NFS_WAITS;
    return answered ? NFS_ANSWERED : NFS_SILENT;
}

void nfs_server_tick(struct nfs_server *server)
{
    for (size_t i = 0; i < server->n_trees; i++)
        tree_close_idle(server->trees[i], IDLE_MS);
}
