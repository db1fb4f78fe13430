/*
 * The file server joined to the networks.  See exports.h.
 *
 * A call is answered within the burst that brought it, on the vCPU's thread or the network's: that is the
 * shortest way.  What has to wait for the host's disk goes to a few worker threads instead, and so does
 * what comes while one of them holds the server, so that a network never waits for a disk longer than a look
 * at a cold directory takes. The wait for the disk itself (fsync) does not hold the server, and several at
 * once cost the host little more than one.
 *
 * Threading: struct link and struct conn belong to their network's bursts; jobs go to the
 * workers by one queue and come back by the link's.
 */
#include "machine/exports.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/report.h"
#include "net/local.h"
#include "nfs/nfs.h"
#include "nfs/stream.h"

enum { RECORD_MARK = 4, SMALL_REPLY = 16384, POOL_MAX = 8, WORKERS = 4, DATAGRAM_JOBS_MAX = 256 };
#define IDLE_US INT64_C(1700000)
G_STATIC_ASSERT(NFS_REPLY_ROOM >= LOCAL_HEADROOM + RECORD_MARK);

struct exports {
    struct nfs_server *server;
    GMutex lock; /* server */
    GThread *workers[WORKERS];
    GAsyncQueue *jobs; /* struct job; one without a link ends a worker */
    gint waiting;      /* atomic: jobs that are not answered */
    GPtrArray *links;  /* struct link */
    GMutex pool_lock;
    GQueue pool; /* struct nfs_reply: memory that has been touched is cheaper */
};

/* One network. */
struct link {
    struct exports *all;
    struct local *local;
    GAsyncQueue *done; /* struct job */
    struct nfs_reply *reply;
    int64_t last_call; /* us; 0: idle, and the server knows */
};

struct conn {
    struct link *link;
    struct local_stream *stream;
    struct nfs_stream *records;
    size_t held; /* bytes of calls that workers have */
};

/* A call for a worker. */
struct job {
    struct link *link;
    bool tcp;
    uint64_t stream;
    struct local_peer peer;  /* UDP */
    struct nfs_reply *reply; /* NULL: nothing to say */
    size_t len;
    uint8_t msg[];
};

/* --- replies ----------------------------------------------------------------------------------------------
 */

static struct nfs_reply *take_reply(struct exports *all)
{
    struct nfs_reply *r;

    g_mutex_lock(&all->pool_lock);
    r = g_queue_pop_head(&all->pool);
    g_mutex_unlock(&all->pool_lock);
    if (r)
        return r;
    r = g_new(struct nfs_reply, 1);
    nfs_reply_init(r);
    return r;
}

static void free_reply(gpointer reply)
{
    nfs_reply_clear(reply);
    g_free(reply);
}

static void give_reply(struct exports *all, struct nfs_reply *r)
{
    bool keep;

    g_mutex_lock(&all->pool_lock);
    keep = all->pool.length < POOL_MAX;
    if (keep)
        g_queue_push_head(&all->pool, r);
    g_mutex_unlock(&all->pool_lock);
    if (!keep)
        free_reply(r);
}

struct sent {
    struct exports *all;
    struct nfs_reply *reply;
};

static void sent_large(void *arg)
{
    struct sent *s = arg;

    give_reply(s->all, s->reply);
    g_free(s);
}

static void send_small(struct local_stream *stream, const struct nfs_reply *r)
{
    uint8_t *copy = g_malloc(LOCAL_HEADROOM + RECORD_MARK + r->len), *data = copy + LOCAL_HEADROOM;

    nfs_stream_mark(data, r->len);
    memcpy(data + RECORD_MARK, r->msg, r->len);
    local_send(stream, data, RECORD_MARK + r->len, g_free, copy);
}

/* Large replies go out from where they are, and another buffer takes their place in *reply. */
static void send_record(struct link *link, struct local_stream *stream, struct nfs_reply **reply)
{
    struct nfs_reply *r = *reply;
    struct sent *s;

    if (r->len <= SMALL_REPLY) {
        send_small(stream, r);
        return;
    }
    s = g_new(struct sent, 1);
    *s = (struct sent){link->all, r};
    nfs_stream_mark(r->msg - RECORD_MARK, r->len);
    local_send(stream, r->msg - RECORD_MARK, RECORD_MARK + r->len, sent_large, s);
    *reply = take_reply(link->all);
}

/* --- the workers -------------------------------------------------------------------------------------------
 */

static void let_go(void *arg)
{
    g_mutex_unlock(&((struct exports *)arg)->lock);
}

static void take_again(void *arg)
{
    g_mutex_lock(&((struct exports *)arg)->lock);
}

static gpointer work(gpointer opaque)
{
    struct exports *all = opaque;

    for (;;) {
        struct job *job = g_async_queue_pop(all->jobs);
        struct link *link = job->link; /* the job is its network's, and may be gone, once it is given back */

        if (!link) {
            g_free(job);
            return NULL;
        }
        job->reply = take_reply(all);
        g_mutex_lock(&all->lock);
        if (!nfs_server_call(all->server, job->msg, job->len, job->tcp, job->reply)) {
            give_reply(all, job->reply);
            job->reply = NULL;
        }
        g_mutex_unlock(&all->lock);
        g_async_queue_push(link->done, job);
        local_kick(link->local);
    }
}

static void free_job(struct job *job)
{
    if (job->reply)
        give_reply(job->link->all, job->reply);
    g_free(job);
}

static void finish_job(struct link *link, struct job *job)
{
    struct local_stream *stream = job->tcp ? local_stream_find(link->local, job->stream) : NULL;
    struct conn *conn = stream ? local_stream_state(stream) : NULL;

    g_atomic_int_add(&link->all->waiting, -1);
    if (conn) {
        conn->held -= job->len;
        local_set_held(stream, conn->held);
    }
    if (job->reply && conn)
        send_record(link, stream, &job->reply);
    else if (job->reply && !job->tcp)
        local_send_datagram(link->local, &job->peer, job->reply->msg, job->reply->len);
    free_job(job);
}

/* conn or peer, the other NULL. */
static void queue_job(struct link *link, struct conn *conn, const struct local_peer *peer, const void *msg,
                      size_t len)
{
    struct job *job;

    if (peer && g_atomic_int_get(&link->all->waiting) >= DATAGRAM_JOBS_MAX)
        return; /* the guest will ask again */
    job = g_malloc(sizeof(*job) + len);
    *job = (struct job){.link = link, .tcp = conn, .len = len};
    memcpy(job->msg, msg, len);
    if (conn) {
        job->stream = local_stream_id(conn->stream);
        conn->held += len;
        local_set_held(conn->stream, conn->held);
    } else {
        job->peer = *peer;
    }
    g_atomic_int_inc(&link->all->waiting);
    g_async_queue_push(link->all->jobs, job);
}

/* --- calls ------------------------------------------------------------------------------------------------
 */

/* NFS_WAITS also when a worker holds the server: nobody waits here. */
static enum nfs_outcome try_call(struct link *link, bool tcp, const void *msg, size_t len)
{
    struct exports *all = link->all;
    enum nfs_outcome outcome;

    link->last_call = g_get_monotonic_time();
    if (!g_mutex_trylock(&all->lock))
        return NFS_WAITS;
    outcome = nfs_server_try(all->server, msg, len, tcp, link->reply);
    g_mutex_unlock(&all->lock);
    return outcome;
}

static void on_datagram(void *opaque, const struct local_peer *peer, const uint8_t *msg, size_t len)
{
    struct link *link = opaque;
    enum nfs_outcome outcome = try_call(link, false, msg, len);

    if (outcome == NFS_WAITS)
        queue_job(link, NULL, peer, msg, len);
    else if (outcome == NFS_ANSWERED)
        local_send_datagram(link->local, peer, link->reply->msg, link->reply->len);
}

static void *on_open(void *opaque, struct local_stream *stream)
{
    struct conn *conn = g_new0(struct conn, 1);

    conn->link = opaque;
    conn->stream = stream;
    conn->records = nfs_stream_new(NFS_MESSAGE_MAX);
    return conn;
}

static void on_record(struct conn *conn, const void *msg, size_t len)
{
    enum nfs_outcome outcome = try_call(conn->link, true, msg, len);

    if (outcome == NFS_WAITS)
        queue_job(conn->link, conn, NULL, msg, len);
    else if (outcome == NFS_ANSWERED)
        send_record(conn->link, conn->stream, &conn->link->reply);
}

static void on_receive(void *state, uint8_t *data, size_t len)
{
    struct conn *conn = state;

    for (;;) {
        const void *record;
        size_t record_len;
        ssize_t took = nfs_stream_feed(conn->records, data, len, &record, &record_len);

        if (took < 0) {
            local_close(conn->stream);
            return;
        }
        data += took;
        len -= (size_t)took;
        if (record)
            on_record(conn, record, record_len);
        else if (!len)
            return;
    }
}

static void on_close(void *state)
{
    struct conn *conn = state;

    nfs_stream_free(conn->records);
    g_free(conn);
}

static int64_t on_work(void *opaque)
{
    struct link *link = opaque;
    struct job *job;

    while ((job = g_async_queue_try_pop(link->done)))
        finish_job(link, job);
    if (!link->last_call)
        return G_MAXINT64;
    if (g_get_monotonic_time() < link->last_call + IDLE_US || !g_mutex_trylock(&link->all->lock))
        return link->last_call + IDLE_US;
    nfs_server_tick(link->all->server);
    g_mutex_unlock(&link->all->lock);
    link->last_call = 0;
    return G_MAXINT64;
}

static const struct local_ops ops = {on_datagram, on_open, on_receive, on_close, on_work};

/* --- options ----------------------------------------------------------------------------------------------
 */

/* May this process give files away and make devices, as the host's own root may? */
bool exports_are_real(void)
{
    g_autofree char *status = NULL, *map = NULL;
    const char *caps;
    unsigned in, out, count;

    if (geteuid() || !g_file_get_contents("/proc/self/status", &status, NULL, NULL) ||
        !g_file_get_contents("/proc/self/uid_map", &map, NULL, NULL) || !(caps = strstr(status, "CapEff:")))
        return false;
    /* CHOWN, DAC_OVERRIDE, FOWNER, MKNOD */
    uint64_t need = 1u << 0 | 1u << 1 | 1u << 3 | 1u << 27, have = g_ascii_strtoull(caps + 7, NULL, 16);

    return sscanf(map, "%u %u %u", &in, &out, &count) == 3 && !in && !out && count == UINT32_MAX &&
           (have & need) == need;
}

static bool parse_export(struct props *p, struct nfs_export *e, GError **err)
{
    const char *ids = props_get(p, "ids");

    *e = (struct nfs_export){.path = props_get(p, "path"), .mount = props_get(p, "mount")};
    e->ids = exports_are_real() ? NFS_IDS_REAL : NFS_IDS_MAPPED;
    if (!props_bool(p, "readonly", false, &e->readonly, err))
        return false;
    if (ids && !strcmp(ids, "mapped"))
        e->ids = NFS_IDS_MAPPED;
    else if (ids && !strcmp(ids, "real"))
        e->ids = NFS_IDS_REAL;
    else if (ids)
        return options_wrong(err, "-nfs ids=%s: give mapped or real", ids);
    if (!props_finish(p, "-nfs", err))
        return false;
    return e->path || options_wrong(err, "-nfs: give path=DIRECTORY");
}

/* Is the address before the path (NULL: none, which is the DHCP server) one of ours? */
static bool is_host(struct netdevs *nets, const char *text, size_t len)
{
    for (unsigned i = 0; i < netdevs_count(nets); i++) {
        struct in_addr host = user_net_host(netdevs_get(nets, i));
        char ours[INET_ADDRSTRLEN];

        inet_ntop(AF_INET, &host, ours, sizeof(ours));
        if (!text || (strlen(ours) == len && !strncmp(ours, text, len)))
            return host.s_addr;
    }
    return false;
}

/* The directory that the kernel's command line wants to mount from us, or NULL; to be freed. */
static char *find_nfsroot(const char *append, struct netdevs *nets)
{
    g_auto(GStrv) words = g_strsplit_set(append ? append : "", " \t", -1);
    const char *value = NULL, *colon;

    for (char **w = words; *w; w++)
        if (g_str_has_prefix(*w, "nfsroot="))
            value = *w + strlen("nfsroot=");
    if (!value)
        return NULL;
    colon = *value == '/' ? NULL : strchr(value, ':');
    if (!is_host(nets, colon ? value : NULL, colon ? (size_t)(colon - value) : 0))
        return NULL;
    if (colon)
        value = colon + 1;
    return *value == '/' && !strchr(value, '%') ? g_strndup(value, strcspn(value, ",")) : NULL;
}

/* --- life -------------------------------------------------------------------------------------------------
 */

static void free_link(gpointer opaque)
{
    struct link *link = opaque;
    struct job *job;

    local_free(link->local);
    while ((job = g_async_queue_try_pop(link->done)))
        free_job(job);
    g_async_queue_unref(link->done);
    free_reply(link->reply);
    g_free(link);
}

/* Is it a directory of another machine or program, which may answer late?  (statfs(2)) */
static bool is_remote(const char *path)
{
    static const uint32_t remote[] = {0x6969 /* NFS */,  0xff534d42 /* CIFS */, 0xfe534d42 /* SMB2 */,
                                      0x65735546 /* FUSE */, 0x01021997 /* 9P */,   0x00c36400 /* Ceph */};
    struct statfs s;

    if (statfs(path, &s))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(remote); i++)
        if ((uint32_t)s.f_type == remote[i])
            return true;
    return false;
}

static void join(struct exports *all, struct user_net *net, bool remote)
{
    static const uint16_t ports[] = {NFS_PORT_PORTMAP, NFS_PORT_NFS, NFS_PORT_MOUNT};
    struct link *link = g_new0(struct link, 1);

    link->all = all;
    link->done = g_async_queue_new();
    link->reply = take_reply(all);
    link->local = local_new(net, ports, G_N_ELEMENTS(ports), &ops, link);
    if (remote)
        local_may_wait(link->local);
    g_ptr_array_add(all->links, link);
}

static bool start(const struct nfs_export *list, size_t n, struct netdevs *nets, struct exports **out,
                  GError **err)
{
    struct exports *all = g_new0(struct exports, 1);
    bool remote = false;

    g_mutex_init(&all->lock);
    g_mutex_init(&all->pool_lock);
    g_queue_init(&all->pool);
    all->jobs = g_async_queue_new();
    all->links = g_ptr_array_new_with_free_func(free_link);
    all->server = nfs_server_new(list, n, err);
    *out = all;
    if (!all->server)
        return false;
    for (size_t i = 0; i < n; i++)
        remote |= is_remote(list[i].path);
    nfs_server_set_waiting(all->server, let_go, take_again, all);
    for (unsigned i = 0; i < netdevs_count(nets); i++)
        if (user_net_host(netdevs_get(nets, i)).s_addr)
            join(all, netdevs_get(nets, i), remote);
    if (!all->links->len)
        warn("-nfs: there is no network that the guest could reach it by");
    for (unsigned i = 0; i < WORKERS; i++)
        all->workers[i] = g_thread_new("nfs", work, all);
    return true;
}

bool exports_new(const struct config *c, struct netdevs *nets, struct exports **out, GError **err)
{
    g_autofree struct nfs_export *list = g_new0(struct nfs_export, c->nfs->len + 1);
    g_autofree char *implied = c->nfs->len ? NULL : find_nfsroot(c->append, nets);
    size_t n = c->nfs->len;

    *out = NULL;
    for (guint i = 0; i < c->nfs->len; i++)
        if (!parse_export(g_ptr_array_index(c->nfs, i), &list[i], err))
            return false;
    if (implied)
        list[n++] =
            (struct nfs_export){.path = implied, .ids = exports_are_real() ? NFS_IDS_REAL : NFS_IDS_MAPPED};
    if (!n || start(list, n, nets, out, err)) {
        if (implied)
            fprintf(stderr, "%s: nfsroot=: the guest gets this host's %s to read and write\n",
                    report_program(), implied);
        return true;
    }
    g_prefix_error(err, "%s", implied ? "nfsroot=: " : "-nfs: ");
    exports_free(*out);
    *out = NULL;
    return false;
}

void exports_free(struct exports *all)
{
    if (!all)
        return;
    for (unsigned i = 0; i < WORKERS && all->workers[i]; i++)
        g_async_queue_push(all->jobs, g_new0(struct job, 1));
    for (unsigned i = 0; i < WORKERS && all->workers[i]; i++)
        g_thread_join(all->workers[i]);
    g_ptr_array_free(all->links, TRUE);
    g_async_queue_unref(all->jobs);
    nfs_server_free(all->server);
    g_queue_clear_full(&all->pool, free_reply);
    g_mutex_clear(&all->lock);
    g_mutex_clear(&all->pool_lock);
    g_free(all);
}
