/*
 * The user-mode network: a small private network made of the host user's own sockets, by libslirp.
 *
 * Each has a thread with a GMainContext of its own; everything here may be called on any thread (but not by a
 * tap, unless it says so).
 */
#ifndef ARMLET_NET_USER_H
#define ARMLET_NET_USER_H

#include <glib.h>
#include <netinet/in.h>

#include "base/nic.h"
#include "net/tap.h"

#define NET_ERROR (net_error_quark())
GQuark net_error_quark(void);
enum net_error { NET_ERROR_BAD, NET_ERROR_HOST };

/* As text, in -netdev's terms; NULL: the default, which is in the comment. */
struct user_net_options {
    bool no_ipv4, no_ipv6, restricted;
    const char *net;        /* 10.0.2.0/24 */
    const char *host;       /* .2 of it */
    const char *dhcp_start; /* .15 */
    const char *dns;        /* .3 */
    const char *hostname, *domainname, *tftp, *tftp_server_name, *bootfile;
    const char *ipv6_prefix;       /* fec0:: */
    unsigned ipv6_prefix_len;      /* 0: 64 */
    const char *ipv6_host;         /* prefix::2 */
    const char *ipv6_dns;          /* prefix::3 */
    const char *const *dns_search; /* NULL-terminated, or NULL */
};

struct user_net;

struct user_net *user_net_new(const struct user_net_options *options, GError **err);
/* After the card, or when no vCPU runs: the card then has no cable.  NULL is allowed. */
void user_net_free(struct user_net *net);
/* For the card's options. */
struct net_port *user_net_port(struct user_net *net);

/* RULE: [tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT */
bool user_net_add_hostfwd(struct user_net *net, const char *rule, GError **err);
/* RULE: [tcp|udp]:[HOSTADDR]:HOSTPORT */
bool user_net_remove_hostfwd(struct user_net *net, const char *rule, GError **err);
/* RULE: [tcp]:ADDR:PORT-cmd:COMMAND, or -unix:PATH; a process or a connection for each of the guest's. */
bool user_net_add_guestfwd(struct user_net *net, const char *rule, GError **err);
/* The connections, as a table; to be freed. */
char *user_net_info(struct user_net *net);

/* The tap stays the caller's, until removed or the network is freed.  Taps are asked in the order they came.
 */
void user_net_add_tap(struct user_net *net, struct net_tap *tap);
void user_net_remove_tap(struct user_net *net, struct net_tap *tap);

/* The addresses of the host and of the network, in network byte order. */
struct in_addr user_net_host(const struct user_net *net);

/*
 * A frame to the guest, which of the taps only those see that watch.  Copied.  On any thread, taps
 * included.  segment as in struct nic_frame: more than the MTU is for TCP only, and only if
 * user_net_takes_large().
 */
void user_net_inject(struct user_net *net, const void *data, size_t len, uint16_t segment);
/* A frame to libslirp as if from the guest; by taps only. */
void user_net_pass(struct user_net *net, struct nic_frame *frame);
/* A frame to the guest at once, and not copied by the network; of the taps only those see it that watch.  By
 * taps only. */
void user_net_send(struct user_net *net, struct nic_frame *frame);
/* Asks for a burst soon, and so for each tap's work().  Any thread. */
void user_net_kick(struct user_net *net);
/* By taps only. */
bool user_net_takes_large(struct user_net *net);

#endif
