/*
 * Sockets as character back ends: one connection at a time; a server goes back to listening when it ends.
 * Threads: main; output from any (stream.c).
 */
#include "debug/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/report.h"

enum {
    BACKLOG = 128,     /* of those that wait for the one connection to end */
    LOST_MIN = 16384,  /* less than that is what was just on its way */
};

struct socket_stream {
    struct stream stream;
    int listener;
    guint watch; /* GLib id of the listener's source; 0: none */
    bool nodelay;
    char *path;  /* of a unix server, to unlink; else NULL */
};

static int tcp_socket(const struct addrinfo *a, const struct stream_address *address)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        return -1;
    if (address->server)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int r = address->server ? bind(fd, a->ai_addr, a->ai_addrlen) : connect(fd, a->ai_addr, a->ai_addrlen);
    if (!r && address->server)
        r = listen(fd, BACKLOG);
    if (!r)
        return fd;
    int e = errno;
    close(fd);
    errno = e;
    return -1;
}

static int open_tcp(const struct stream_address *address, GError **err)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = address->server ? AI_PASSIVE : 0 }, *list;
    const char *host = address->host && *address->host ? address->host : NULL;
    int fd = -1, r = EAI_SERVICE;

    /* A number beyond the last port would be taken modulo 65536. */
    if (strspn(address->port, "0123456789") != strlen(address->port) || g_ascii_strtoull(address->port, NULL, 10) <= 65535)
        r = getaddrinfo(host, address->port, &hints, &list);
    if (r) {
        g_set_error(err, G_FILE_ERROR, G_FILE_ERROR_INVAL, "address %s:%s: %s", host ? host : "", address->port,
                    r == EAI_SERVICE ? "no such port" : gai_strerror(r));
        return -1;
    }
    /* IPv4 first: `localhost' of a script's other half is 127.0.0.1 more often than not. */
    for (int family = 0; family < 2 && fd < 0; family++)
        for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
            if ((a->ai_family == AF_INET) == !family)
                fd = tcp_socket(a, address);
    int e = errno;
    freeaddrinfo(list);
    if (fd < 0)
        g_set_error(err, G_FILE_ERROR, (gint)g_file_error_from_errno(e), "cannot %s %s:%s: %s",
                    address->server ? "listen on" : "connect to", host ? host : "", address->port, g_strerror(e));
    return fd;
}

static int open_unix(const struct stream_address *address, GError **err)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    if (strlen(address->unix_path) >= sizeof a.sun_path) {
        g_set_error(err, G_FILE_ERROR, G_FILE_ERROR_NAMETOOLONG, "%s: longer than a socket's name may be (%zu)",
                    address->unix_path, sizeof a.sun_path - 1);
        return -1;
    }
    strcpy(a.sun_path, address->unix_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r = -1;
    if (fd >= 0 && address->server) {
        unlink(a.sun_path);
        r = bind(fd, (struct sockaddr *)&a, sizeof a);
        if (!r)
            r = listen(fd, BACKLOG);
    } else if (fd >= 0) {
        r = connect(fd, (struct sockaddr *)&a, sizeof a);
    }
    if (!r)
        return fd;
    int e = errno;
    g_set_error(err, G_FILE_ERROR, (gint)g_file_error_from_errno(e), "cannot %s %s: %s",
                address->server ? "listen on" : "connect to", address->unix_path, g_strerror(e));
    if (fd >= 0)
        close(fd);
    return -1;
}

static void connected(struct socket_stream *s, int fd)
{
    int on = 1;
    if (s->nodelay)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    stream_attach(&s->stream, fd, fd);
    chardev_send_event(&s->stream.chr, CHARDEV_OPENED);
}

static gboolean on_connection(gint listener, GIOCondition cond, gpointer opaque)
{
    struct socket_stream *s = opaque;
    (void)cond;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return G_SOURCE_CONTINUE;
    s->watch = 0; /* one at a time: others wait in the backlog */
    connected(s, fd);
    return G_SOURCE_REMOVE;
}

static void on_closed(struct stream *stream)
{
    struct socket_stream *s = (struct socket_stream *)stream;
    stream_detach(stream);
    if (stream->lost >= LOST_MIN)
        warn("%s: the connection ended with more than %zu KiB that nobody had read, which were dropped",
             stream->chr.id ? stream->chr.id : "socket", stream->lost / 1024);
    chardev_send_event(&stream->chr, CHARDEV_CLOSED);
    if (s->listener >= 0 && !s->watch)
        s->watch = g_unix_fd_add(s->listener, G_IO_IN, on_connection, s);
}

static void socket_free(struct chardev *chr)
{
    struct socket_stream *s = (struct socket_stream *)chr;
    if (s->watch)
        g_source_remove(s->watch);
    if (s->listener >= 0)
        close(s->listener);
    if (s->path)
        unlink(s->path);
    g_free(s->path);
    stream_fini(&s->stream);
    g_free(s);
}

static const struct chardev_ops socket_ops = {
    .kind = "socket", .write = stream_write, .accept_input = stream_accept_input, .drain = stream_drain,
    .free = socket_free,
};

struct chardev *stream_socket_new(const char *id, const struct stream_address *address, GError **err)
{
    int fd = address->unix_path ? open_unix(address, err) : open_tcp(address, err);
    if (fd < 0)
        return NULL;
    struct socket_stream *s = g_new0(struct socket_stream, 1);
    stream_init(&s->stream, &socket_ops, id);
    s->stream.closed = on_closed;
    s->nodelay = address->nodelay;
    s->listener = -1;
    if (!address->server) {
        connected(s, fd);
        return &s->stream.chr;
    }
    s->listener = fd;
    s->path = g_strdup(address->unix_path);
    if (address->wait) {
        warn("waiting for a connection on %s%s%s", address->unix_path ? address->unix_path : "port ",
             address->unix_path ? "" : address->port, id ? "" : "");
        int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (peer >= 0) {
            connected(s, peer);
            return &s->stream.chr;
        }
    }
    s->watch = g_unix_fd_add(fd, G_IO_IN, on_connection, s);
    return &s->stream.chr;
}
