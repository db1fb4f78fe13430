/*
 * The networks of a command line: -netdev, -nic, -net, and what there is without any of them.  Main thread.
 */
#ifndef ARMLET_MACHINE_NETDEVS_H
#define ARMLET_MACHINE_NETDEVS_H

#include "base/nic.h"
#include "machine/config.h"
#include "net/user.h"

struct netdevs;

/* NULL: err says which option is wrong.  config must outlive the result. */
struct netdevs *netdevs_new(const struct config *config, GError **err);
/* After the cards. */
void netdevs_free(struct netdevs *all);

/* struct device_config: the cards of -nic and -net, or the default one; they come before those of -device. */
const GPtrArray *netdevs_cards(const struct netdevs *all);
/* For a card with netdev=id.  NULL: there is none, or it has a card already. */
struct net_port *netdevs_take(struct netdevs *all, const char *id, GError **err);
/* All networks, in their order. */
unsigned netdevs_count(const struct netdevs *all);
struct user_net *netdevs_get(const struct netdevs *all, unsigned n);
/* id NULL: the first.  NULL: there is none. */
struct user_net *netdevs_find(struct netdevs *all, const char *id);

/* -object filter-dump */
bool netdevs_add_filter(struct netdevs *all, struct props *p, GError **err);

#endif
