/*
 * nfs_serve PATH [mount=NAME] [readonly] [real] [port=N] [mountport=N] [portmap=N] [watch]: the NFS server on
 * 127.0.0.1, TCP and UDP, for clients that run on the host.  Ports not given are chosen by the host; "ready
 * PORTMAP NFS MOUNT" is printed when they are open.  Runs until it is killed. Threading: one thread, poll().
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/report.h"
#include "nfs/nfs.h"
#include "nfs/stream.h"

struct peer {
    int fd;
    enum { LISTEN, UDP, TCP } kind;
    struct nfs_stream *stream;
};

static struct nfs_server *server;
static struct nfs_reply reply;
static GArray *peers;

static void add_peer(int fd, int kind)
{
    struct peer p = {.fd = fd, .kind = kind, .stream = kind == TCP ? nfs_stream_new(NFS_MESSAGE_MAX) : NULL};

    g_array_append_val(peers, p);
}

static int open_socket(int type, uint16_t *port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), one = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        (type == SOCK_STREAM && listen(fd, 16) < 0) || getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        die("port %u: %s", *port, strerror(errno));
    *port = ntohs(a.sin_port);
    return fd;
}

static void open_port(uint16_t *port)
{
    add_peer(open_socket(SOCK_STREAM, port), LISTEN);
    add_peer(open_socket(SOCK_DGRAM, port), UDP);
}

static void serve_datagram(int fd)
{
    static uint8_t buf[65536];
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    ssize_t n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len);

    if (n >= 0 && nfs_server_call(server, buf, (size_t)n, false, &reply) &&
        sendto(fd, reply.msg, reply.len, 0, (struct sockaddr *)&from, len) < 0)
        warn("sendto: %s", strerror(errno));
}

static bool send_all(int fd, const uint8_t *p, size_t len)
{
    while (len) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static bool serve_stream(struct peer *p)
{
    static uint8_t buf[1 << 18];
    ssize_t n = read(p->fd, buf, sizeof(buf));

    if (n <= 0)
        return false;
    for (ssize_t at = 0; at < n;) {
        const void *record;
        size_t len;
        ssize_t took = nfs_stream_feed(p->stream, buf + at, (size_t)(n - at), &record, &len);

        if (took < 0)
            return false;
        at += took;
        if (!record || !nfs_server_call(server, record, len, true, &reply))
            continue;
        nfs_stream_mark(reply.msg - 4, reply.len);
        if (!send_all(p->fd, reply.msg - 4, reply.len + 4))
            return false;
    }
    return true;
}

static void serve(guint i)
{
    struct peer *p = &g_array_index(peers, struct peer, i);
    int fd, one = 1;

    if (p->kind == UDP) {
        serve_datagram(p->fd);
    } else if (p->kind == LISTEN) {
        fd = accept4(p->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
            add_peer(fd, TCP);
        }
    } else if (!serve_stream(p)) {
        close(p->fd);
        nfs_stream_free(p->stream);
        g_array_remove_index_fast(peers, i);
    }
}

/* Also ends when whoever holds the other end of our stdin is gone ("watch"). */
static void run(bool watch)
{
    for (;;) {
        g_autofree struct pollfd *fds = g_new0(struct pollfd, peers->len + 1);
        guint n = peers->len;

        for (guint i = 0; i < n; i++)
            fds[i] = (struct pollfd){.fd = g_array_index(peers, struct peer, i).fd, .events = POLLIN};
        fds[n] = (struct pollfd){.fd = watch ? 0 : -1, .events = POLLIN};
        if (poll(fds, n + 1, 1000) == 0)
            nfs_server_tick(server);
        if (fds[n].revents)
            return;
        /* From the end: a peer that leaves is replaced by a later one. */
        for (guint i = n; i-- > 0;) {
            if (fds[i].revents)
                serve(i);
        }
    }
}

int main(int argc, char **argv)
{
    struct nfs_export export = {.path = argc > 1 ? argv[1] : NULL, .mount = "/export"};
    struct nfs_ports ports = {0};
    g_autoptr(GError) error = NULL;
    bool watch = false;

    if (argc < 2)
        die("usage: nfs_serve PATH [mount=NAME] [readonly] [real] [port=N] [mountport=N] [portmap=N] "
            "[watch]");
    for (int i = 2; i < argc; i++) {
        if (g_str_has_prefix(argv[i], "mount="))
            export.mount = argv[i] + 6;
        else if (g_str_has_prefix(argv[i], "port="))
            ports.nfs = (uint16_t)atoi(argv[i] + 5);
        else if (g_str_has_prefix(argv[i], "mountport="))
            ports.mount = (uint16_t)atoi(argv[i] + 10);
        else if (g_str_has_prefix(argv[i], "portmap="))
            ports.portmap = (uint16_t)atoi(argv[i] + 8);
        else if (!strcmp(argv[i], "readonly"))
            export.readonly = true;
        else if (!strcmp(argv[i], "real"))
            export.ids = NFS_IDS_REAL;
        else if (!strcmp(argv[i], "watch"))
            watch = true;
        else
            die("nfs_serve: %s?", argv[i]);
    }
    server = nfs_server_new(&export, 1, &error);
    if (!server)
        die("%s", error->message);
    peers = g_array_new(FALSE, FALSE, sizeof(struct peer));
    nfs_reply_init(&reply);
    open_port(&ports.portmap);
    open_port(&ports.nfs);
    open_port(&ports.mount);
    nfs_server_set_ports(server, &ports);
    printf("ready %u %u %u\n", ports.portmap, ports.nfs, ports.mount);
    fflush(stdout);
    run(watch);
    nfs_server_free(server);
    nfs_reply_clear(&reply);
    return 0;
}
