/*
 * Frames into a file that tcpdump and wireshark read (pcap, microseconds).
 */
#ifndef ARMLET_NET_DUMP_H
#define ARMLET_NET_DUMP_H

#include <glib.h>

#include "net/user.h"

struct net_dump;

/* snaplen: how much of each frame is kept, at least 1.  NULL: the file cannot be made, err says why. */
struct net_dump *net_dump_new(struct user_net *net, const char *path, unsigned snaplen, GError **err);
/* Before the network.  NULL is allowed. */
void net_dump_free(struct net_dump *dump);

#endif
