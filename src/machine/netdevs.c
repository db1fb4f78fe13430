/*
 * See netdevs.h.  A back end of -nic or -net without an id= is called #net0, #net1 ..., which nobody can type.
 *
 * Left out: tap, socket, bridge and other back ends; -net with several cards at one network.
 */
#include "machine/netdevs.h"

#include <string.h>

#include "base/report.h"
#include "net/dump.h"

struct netdev {
    char *id;
    struct user_net *net;
    bool taken;
};

struct netdevs {
    GPtrArray *list;  /* struct netdev */
    GPtrArray *dumps; /* struct net_dump */
    GPtrArray *cards; /* struct device_config */
};

static struct netdev *find(struct netdevs *all, const char *id)
{
    for (guint i = 0; i < all->list->len; i++) {
        struct netdev *d = g_ptr_array_index(all->list, i);
        if (!id || !strcmp(d->id, id))
            return d;
    }
    return NULL;
}

/* --- one back end ---------------------------------------------------------------------------------------- */

static bool parse_options(struct props *p, struct user_net_options *o, GPtrArray *search, GError **err)
{
    const struct { const char *key; const char **value; } texts[] = {
        { "net", &o->net }, { "host", &o->host }, { "dhcpstart", &o->dhcp_start }, { "dns", &o->dns },
        { "hostname", &o->hostname }, { "domainname", &o->domainname }, { "tftp", &o->tftp },
        { "tftp-server-name", &o->tftp_server_name }, { "bootfile", &o->bootfile },
        { "ipv6-prefix", &o->ipv6_prefix }, { "ipv6-host", &o->ipv6_host }, { "ipv6-dns", &o->ipv6_dns } };
    bool ipv4, ipv6;
    uint64_t prefix_len;
    const char *v;

    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++)
        *texts[i].value = props_get(p, texts[i].key);
    if (!props_bool(p, "ipv4", true, &ipv4, err) || !props_bool(p, "ipv6", true, &ipv6, err) ||
        !props_bool(p, "restrict", false, &o->restricted, err) ||
        !props_number(p, "ipv6-prefixlen", 0, &prefix_len, err))
        return false;
    o->no_ipv4 = !ipv4;
    o->no_ipv6 = !ipv6;
    o->ipv6_prefix_len = (unsigned)MIN(prefix_len, 1000);
    for (unsigned at = 0; (v = props_next(p, "dnssearch", &at));)
        g_ptr_array_add(search, (gpointer)(uintptr_t)v);
    g_ptr_array_add(search, NULL);
    o->dns_search = search->len > 1 ? (const char *const *)search->pdata : NULL;
    return true;
}

static bool add_rules(struct user_net *net, struct props *p, GError **err)
{
    const char *rule;

    for (unsigned at = 0; (rule = props_next(p, "hostfwd", &at));)
        if (!user_net_add_hostfwd(net, rule, err))
            return false;
    for (unsigned at = 0; (rule = props_next(p, "guestfwd", &at));)
        if (!user_net_add_guestfwd(net, rule, err))
            return false;
    return true;
}

static bool add_dump(struct netdevs *all, struct user_net *net, const char *path, unsigned snaplen, GError **err)
{
    struct net_dump *dump = net_dump_new(net, path, snaplen, err);

    if (dump)
        g_ptr_array_add(all->dumps, dump);
    return dump;
}

static bool add_user(struct netdevs *all, const char *id, struct props *p, const char *what, GError **err)
{
    g_autoptr(GPtrArray) search = g_ptr_array_new();
    struct user_net_options o = { 0 };
    const char *dump = props_get(p, "dump");

    if (!parse_options(p, &o, search, err))
        return false;
    struct netdev *d = g_new0(struct netdev, 1);
    d->id = g_strdup(id);
    g_ptr_array_add(all->list, d);
    d->net = user_net_new(&o, err);
    if (d->net && add_rules(d->net, p, err) && (!dump || add_dump(all, d->net, dump, 65535, err)))
        return props_finish(p, what, err);
    g_prefix_error(err, "%s: ", what);
    return false;
}

static bool add_netdev(struct netdevs *all, struct props *p, GError **err)
{
    const char *id = props_get(p, "id");

    props_get(p, "type");
    if (!id)
        return options_wrong(err, "-netdev user: give id=");
    if (find(all, id))
        return options_wrong(err, "-netdev user,id=%s: two networks have this id", id);
    return add_user(all, id, p, "-netdev user", err);
}

/* --- cards ----------------------------------------------------------------------------------------------- */

static bool check_model(const char *model, const char *what, GError **err)
{
    return !model || !strcmp(model, "virtio") || !strcmp(model, "virtio-net-pci") ||
           options_wrong(err, "%s,model=%s: only virtio-net-pci is here (virtio-net-device by -device)", what, model);
}

static void add_card(struct netdevs *all, const char *netdev, const char *mac)
{
    struct device_config *c = g_new0(struct device_config, 1);

    c->driver = g_strdup("virtio-net-pci");
    c->props = props_new(NULL, NULL);
    if (netdev)
        props_default(c->props, "netdev", netdev);
    if (mac)
        props_default(c->props, "mac", mac);
    g_ptr_array_add(all->cards, c);
}

static bool add_nic(struct netdevs *all, struct props *p, GError **err)
{
    g_autofree char *implied = g_strdup_printf("#net%u", all->list->len);
    const char *type = props_get(p, "type"), *id = props_get(p, "id"), *mac = props_get(p, "mac");

    if (!strcmp(type, "none"))
        return true;
    if (!check_model(props_get(p, "model"), "-nic user", err))
        return false;
    if (id && find(all, id))
        return options_wrong(err, "-nic user,id=%s: two networks have this id", id);
    if (!add_user(all, id ? id : implied, p, "-nic user", err))
        return false;
    add_card(all, id ? id : implied, mac);
    return true;
}

/* The older grammar: the cards and the networks come as they like, and the first card gets the first network. */
static bool add_net(struct netdevs *all, const struct config *c, GError **err)
{
    GQueue free_nets = G_QUEUE_INIT;
    bool ok = true;

    for (guint i = 0; ok && i < c->nets->len; i++) {
        struct props *p = g_ptr_array_index(c->nets, i);
        g_autofree char *implied = g_strdup_printf("#net%u", all->list->len);
        if (strcmp(props_get(p, "type"), "user"))
            continue;
        ok = add_user(all, implied, p, "-net user", err);
        g_queue_push_tail(&free_nets, g_steal_pointer(&implied));
    }
    for (guint i = 0; ok && i < c->nets->len; i++) {
        struct props *p = g_ptr_array_index(c->nets, i);
        if (strcmp(props_get(p, "type"), "nic"))
            continue;
        const char *id = props_get(p, "netdev"), *mac = props_get(p, "macaddr");
        g_autofree char *implied = id ? NULL : g_queue_pop_head(&free_nets);
        props_ignore(p, (const char *const[]){ "name", "addr", "vectors", NULL });
        ok = check_model(props_get(p, "model"), "-net nic", err) && props_finish(p, "-net nic", err);
        if (ok)
            add_card(all, id ? id : implied, mac);
    }
    g_queue_clear_full(&free_nets, g_free);
    return ok;
}

static bool add_all(struct netdevs *all, const struct config *c, GError **err)
{
    for (guint i = 0; i < c->netdevs->len; i++)
        if (!add_netdev(all, g_ptr_array_index(c->netdevs, i), err))
            return false;
    for (guint i = 0; i < c->nics->len; i++)
        if (!add_nic(all, g_ptr_array_index(c->nics, i), err))
            return false;
    if (!add_net(all, c, err))
        return false;
    if (c->nodefaults || c->netdevs->len || c->nics->len || c->nets->len)
        return true;
    struct props *p = props_new(NULL, NULL);
    bool ok = add_user(all, "#net0", p, "the default network", err);
    props_free(p);
    add_card(all, "#net0", NULL);
    return ok;
}

/* --- life ------------------------------------------------------------------------------------------------ */

static void free_netdev(gpointer item)
{
    struct netdev *d = item;
    user_net_free(d->net);
    g_free(d->id);
    g_free(d);
}

static void free_dump(gpointer item)
{
    net_dump_free(item);
}

static void free_card(gpointer item)
{
    struct device_config *c = item;
    props_free(c->props);
    g_free(c->driver);
    g_free(c);
}

struct netdevs *netdevs_new(const struct config *config, GError **err)
{
    struct netdevs *all = g_new0(struct netdevs, 1);

    all->list = g_ptr_array_new_with_free_func(free_netdev);
    all->dumps = g_ptr_array_new_with_free_func(free_dump);
    all->cards = g_ptr_array_new_with_free_func(free_card);
    if (add_all(all, config, err))
        return all;
    netdevs_free(all);
    return NULL;
}

void netdevs_free(struct netdevs *all)
{
    g_ptr_array_free(all->dumps, TRUE);
    g_ptr_array_free(all->list, TRUE);
    g_ptr_array_free(all->cards, TRUE);
    g_free(all);
}

const GPtrArray *netdevs_cards(const struct netdevs *all)
{
    return all->cards;
}

struct net_port *netdevs_take(struct netdevs *all, const char *id, GError **err)
{
    struct netdev *d = find(all, id);

    if (!d) {
        options_wrong(err, "netdev=%s: no -netdev has this id", id);
        return NULL;
    }
    if (d->taken) {
        options_wrong(err, "netdev=%s: another card uses it", id);
        return NULL;
    }
    d->taken = true;
    return user_net_port(d->net);
}

struct user_net *netdevs_find(struct netdevs *all, const char *id)
{
    struct netdev *d = find(all, id);
    return d ? d->net : NULL;
}

unsigned netdevs_count(const struct netdevs *all)
{
    return all->list->len;
}

struct user_net *netdevs_get(const struct netdevs *all, unsigned n)
{
    return ((struct netdev *)g_ptr_array_index(all->list, n))->net;
}

bool netdevs_add_filter(struct netdevs *all, struct props *p, GError **err)
{
    static const char *const ignored[] = { "qom-type", "id", "queue", "status", "position", "insert", NULL };
    const char *id = props_get(p, "netdev"), *file = props_get(p, "file");
    struct netdev *d = id ? find(all, id) : NULL;
    uint64_t maxlen;

    if (!file)
        return options_wrong(err, "-object filter-dump: give file=");
    if (!d)
        return options_wrong(err, "-object filter-dump,netdev=%s: no -netdev has this id", id ? id : "");
    if (!props_number(p, "maxlen", 65536, &maxlen, err))
        return false;
    props_ignore(p, ignored);
    return add_dump(all, d->net, file, (unsigned)CLAMP(maxlen, 1, 262144), err) &&
           props_finish(p, "-object filter-dump", err);
}
