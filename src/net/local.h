/*
 * Services of this program at the network's own host address (10.0.2.2): datagrams and connections to chosen
 * ports are answered here, without a socket of the host or libslirp; everything else at that address goes on
 * to libslirp and so to the host.
 *
 * Threading: the callbacks, and all functions but local_new(), local_free(), local_kick() and
 * local_may_wait(), are for within a burst (net/tap.h).  docs/nfs.md, "The way to the guest", explains.
 */
#ifndef ARMLET_NET_LOCAL_H
#define ARMLET_NET_LOCAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/user.h"

struct local;
struct local_stream;

/* Who asks; ports in the host's byte order. */
struct local_peer {
    uint8_t mac[NIC_MAC_SIZE];
    struct in_addr addr;
    uint16_t port, local_port;
};

struct local_ops {
    void (*datagram)(void *opaque, const struct local_peer *peer, const uint8_t *data, size_t len);
    /* A new connection; what it returns is the state that the next two get. */
    void *(*open)(void *opaque, struct local_stream *stream);
    /* The next bytes of a stream; they may be changed. */
    void (*receive)(void *state, uint8_t *data, size_t len);
    /* The stream is no more; the guest has ended it, or local_close(). */
    void (*close)(void *state);
    /* Once a burst, behind everything that came from the guest; returns as net_tap.work. */
    int64_t (*work)(void *opaque);
};

/* ports: of UDP and TCP, n of them, at most 8.  Before a vCPU runs. */
struct local *local_new(struct user_net *net, const uint16_t *ports, unsigned n, const struct local_ops *ops,
                        void *opaque);
/* Before the network, and when no vCPU runs any more.  Streams are closed. */
void local_free(struct local *local);
/* Asks for a burst, and so for work().  Any thread. */
void local_kick(struct local *local);
/* Answers may take long (net_tap.may_wait).  Before a vCPU runs. */
void local_may_wait(struct local *local);

#define LOCAL_DATAGRAM_MAX 65507
/* Longer ones are dropped. */
void local_send_datagram(struct local *local, const struct local_peer *peer, const void *data, size_t len);

/* A number that no other stream of this local has or gets. */
uint64_t local_stream_id(const struct local_stream *stream);
/* NULL: it is no more. */
struct local_stream *local_stream_find(struct local *local, uint64_t id);

/* What open() returned; NULL: the guest has ended the stream, and what is sent still goes out. */
void *local_stream_state(const struct local_stream *stream);

/*
 * Bytes to send.  The LOCAL_HEADROOM bytes before data are the stream's to use meanwhile.  done(arg) is
 * called within a burst when the guest has acknowledged everything, or the stream is gone.
 */
#define LOCAL_HEADROOM 64
void local_send(struct local_stream *stream, uint8_t *data, size_t len, void (*done)(void *arg), void *arg);
/*
 * How many bytes the stream's user has yet to deal with, e.g. calls that are queued: above some MiB, together
 * with what the guest has not yet taken, the guest is stopped from sending.
 */
void local_set_held(struct local_stream *stream, size_t bytes);
/* Ends a stream at once; state is closed. */
void local_close(struct local_stream *stream);

#endif
