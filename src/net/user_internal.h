/*
 * What the two halves of the user-mode network share: user.c (the thread, the frames) and user_rules.c
 * (options and forwarding rules).
 */
#ifndef ARMLET_NET_USER_INTERNAL_H
#define ARMLET_NET_USER_INTERNAL_H

#include <slirp/libslirp.h>

#include "net/user.h"

struct timer {
    SlirpTimerId id;
    void *cb_opaque;
    int64_t expire_ms; /* -1: not running */
};

struct poll_slot {
    int fd;
    gpointer tag;
    GIOCondition events;
};

struct user_net {
    struct net_port port;
    Slirp *slirp;
    GMutex lock; /* libslirp and everything below; with the board's lock held only tried */
    GMainContext *context;
    GSource *source;
    GThread *thread; /* while a card is attached */
    bool stop;
    int kicked; /* atomic: a burst has been asked for */
    struct nic *nic;
    bool in_burst;
    bool touched; /* libslirp got or gave a frame in the last burst */
    GArray *slots; /* struct poll_slot: as many as have ever been needed */
    unsigned slots_used;
    GPtrArray *timers, *taps;
    int64_t deadline; /* when libslirp wants to be called; G_MAXINT64: never */
    int64_t tap_deadline; /* when a tap wants to be called */
    struct in_addr host;
    GMutex inject_lock; /* `injected'; inside lock */
    GQueue injected;    /* struct injected */
};

/* user.c: without a card, and with slirp NULL when libslirp refuses. */
struct user_net *user_net_start(const SlirpConfig *config);

#endif
