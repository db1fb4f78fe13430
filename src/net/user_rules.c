/*
 * The user-mode network's options and forwarding rules, from text.
 *
 * Left out: host forwarding of IPv6 and Unix sockets, guest forwarding to a character device, SMB.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/user_internal.h"

/* IPv4's largest packet, less what libslirp keeps for its own headers. */
enum { LARGE_MTU = 65520 };

GQuark net_error_quark(void)
{
    return g_quark_from_static_string("armlet-net");
}

G_GNUC_PRINTF(2, 3) static bool wrong(GError **err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    *err = g_error_new_valist(NET_ERROR, NET_ERROR_BAD, fmt, ap);
    va_end(ap);
    return false;
}

/* --- options ----------------------------------------------------------------------------------------------
 */

static bool parse4(const char *key, const char *text, struct in_addr *addr, GError **err)
{
    return !text || inet_pton(AF_INET, text, addr) == 1 ||
           wrong(err, "%s=%s: give an IPv4 address", key, text);
}

static bool parse6(const char *key, const char *text, struct in6_addr *addr, GError **err)
{
    return !text || inet_pton(AF_INET6, text, addr) == 1 ||
           wrong(err, "%s=%s: give an IPv6 address", key, text);
}

/* ADDR[/BITS|/MASK]; without, the class that the address had once, as users of this option expect. */
static bool parse_net(const char *text, SlirpConfig *c, GError **err)
{
    g_auto(GStrv) parts = g_strsplit(text, "/", 2);
    uint32_t mask, addr;
    char *end;

    if (!parts[0] || inet_pton(AF_INET, parts[0], &c->vnetwork) != 1)
        return wrong(err, "net=%s: give ADDRESS/BITS", text);
    addr = ntohl(c->vnetwork.s_addr);
    if (!parts[1]) {
        mask = !(addr & 0x80000000) ? 0xff000000 : !(addr & 0x40000000) ? 0xffff0000 : 0xffffff00;
    } else if (inet_pton(AF_INET, parts[1], &c->vnetmask) == 1 && strchr(parts[1], '.')) {
        mask = ntohl(c->vnetmask.s_addr);
    } else {
        unsigned long bits = strtoul(parts[1], &end, 10);

        if (!*parts[1] || *end || bits < 1 || bits > 32)
            return wrong(err, "net=%s: give ADDRESS/BITS", text);
        mask = UINT32_MAX << (32 - bits);
    }
    if ((~mask & (~mask + 1)) || ~mask < 7)
        return wrong(err, "net=%s: too small a network, or no mask of one", text);
    c->vnetmask.s_addr = htonl(mask);
    c->vnetwork.s_addr = htonl(addr & mask);
    return true;
}

static struct in_addr nth(const SlirpConfig *c, uint32_t n)
{
    uint32_t room = ~ntohl(c->vnetmask.s_addr);

    return (struct in_addr){htonl(ntohl(c->vnetwork.s_addr) | (n < room ? n : room - 1))};
}

static bool within(const SlirpConfig *c, struct in_addr addr, const char *key, GError **err)
{
    char text[INET_ADDRSTRLEN];

    if ((addr.s_addr & c->vnetmask.s_addr) == c->vnetwork.s_addr)
        return true;
    inet_ntop(AF_INET, &addr, text, sizeof(text));
    return wrong(err, "%s=%s: not in the network of net=", key, text);
}

static bool set_ipv4(SlirpConfig *c, const struct user_net_options *o, GError **err)
{
    if (!parse_net(o->net ? o->net : "10.0.2.0/24", c, err))
        return false;
    c->vhost = nth(c, 2);
    c->vnameserver = nth(c, 3);
    c->vdhcp_start = nth(c, 15);
    if (!parse4("host", o->host, &c->vhost, err) || !parse4("dns", o->dns, &c->vnameserver, err) ||
        !parse4("dhcpstart", o->dhcp_start, &c->vdhcp_start, err))
        return false;
    if (!within(c, c->vhost, "host", err) || !within(c, c->vnameserver, "dns", err) ||
        !within(c, c->vdhcp_start, "dhcpstart", err))
        return false;
    if (c->vhost.s_addr == c->vnameserver.s_addr || c->vdhcp_start.s_addr == c->vhost.s_addr ||
        c->vdhcp_start.s_addr == c->vnameserver.s_addr)
        return wrong(err, "host=, dns= and dhcpstart= must be three addresses");
    return true;
}

static bool set_ipv6(SlirpConfig *c, const struct user_net_options *o, GError **err)
{
    inet_pton(AF_INET6, "fec0::", &c->vprefix_addr6);
    c->vprefix_len = 64;
    if (!parse6("ipv6-prefix", o->ipv6_prefix, &c->vprefix_addr6, err))
        return false;
    if (o->ipv6_prefix_len && (o->ipv6_prefix_len < 8 || o->ipv6_prefix_len > 126))
        return wrong(err, "ipv6-prefixlen=%u: give 8 to 126", o->ipv6_prefix_len);
    if (o->ipv6_prefix_len)
        c->vprefix_len = (uint8_t)o->ipv6_prefix_len;
    c->vhost6 = c->vnameserver6 = c->vprefix_addr6;
    c->vhost6.s6_addr[15] |= 2;
    c->vnameserver6.s6_addr[15] |= 3;
    return parse6("ipv6-host", o->ipv6_host, &c->vhost6, err) &&
           parse6("ipv6-dns", o->ipv6_dns, &c->vnameserver6, err);
}

struct user_net *user_net_new(const struct user_net_options *o, GError **err)
{
    SlirpConfig c = {
        .version = 4,
        .restricted = o->restricted,
        .in_enabled = !o->no_ipv4,
        .in6_enabled = !o->no_ipv6,
        .vhostname = o->hostname,
        .vdomainname = o->domainname,
        .tftp_path = o->tftp,
        .tftp_server_name = o->tftp_server_name,
        .bootfile = o->bootfile,
        .vdnssearch = (const char **)(uintptr_t)o->dns_search,
        .if_mtu = LARGE_MTU,
        .if_mru = LARGE_MTU,
    };
    struct user_net *n;

    if (o->no_ipv4 && o->no_ipv6) {
        wrong(err, "ipv4=off,ipv6=off: leave one on");
        return NULL;
    }
    if (!set_ipv4(&c, o, err) || !set_ipv6(&c, o, err))
        return NULL;
    n = user_net_start(&c);
    if (n->slirp)
        return n;
    user_net_free(n);
    wrong(err, "libslirp refuses these options");
    return NULL;
}

/* --- rules ------------------------------------------------------------------------------------------------
 */

static bool parse_port(const char *text, int low, int *port)
{
    char *end;
    long v = text ? strtol(text, &end, 10) : -1;

    if (!text || !*text || *end || v < low || v > 65535)
        return false;
    *port = (int)v;
    return true;
}

/* [ADDR]:PORT */
static bool parse_end(const char *text, struct in_addr *addr, int low, int *port)
{
    g_auto(GStrv) parts = g_strsplit(text, ":", 2);

    if (g_strv_length(parts) != 2 || !parse_port(parts[1], low, port))
        return false;
    return !*parts[0] || inet_pton(AF_INET, parts[0], addr) == 1;
}

/* [tcp|udp]:; returns what follows, or NULL. */
static const char *parse_protocol(const char *rule, bool *udp)
{
    const char *colon = strchr(rule, ':');
    size_t len = colon ? (size_t)(colon - rule) : 0;

    *udp = colon && len == 3 && !strncmp(rule, "udp", 3);
    return colon && (!len || *udp || (len == 3 && !strncmp(rule, "tcp", 3))) ? colon + 1 : NULL;
}

bool user_net_add_hostfwd(struct user_net *n, const char *rule, GError **err)
{
    struct in_addr host = {INADDR_ANY}, guest = {0};
    int host_port, guest_port, failed, saved;
    const char *rest;
    bool udp;

    rest = parse_protocol(rule, &udp);
    g_auto(GStrv) ends = g_strsplit(rest ? rest : "", "-", 2);
    if (!rest || g_strv_length(ends) != 2 || !parse_end(ends[0], &host, 0, &host_port) ||
        !parse_end(ends[1], &guest, 1, &guest_port))
        return wrong(
            err, "Invalid host forwarding rule '%s' (give [tcp|udp]:[HOSTADDR]:PORT-[GUESTADDR]:PORT)", rule);
    g_mutex_lock(&n->lock);
    failed = slirp_add_hostfwd(n->slirp, udp, host, host_port, guest, guest_port);
    saved = errno;
    g_mutex_unlock(&n->lock);
    if (failed)
        return wrong(err, "Could not set up host forwarding rule '%s': %s", rule, g_strerror(saved));
    if (n->source)
        n->port.ops->kick(&n->port);
    return true;
}

bool user_net_remove_hostfwd(struct user_net *n, const char *rule, GError **err)
{
    struct in_addr host = {INADDR_ANY};
    const char *rest;
    int port, failed;
    bool udp;

    rest = parse_protocol(rule, &udp);
    if (!rest || !parse_end(rest, &host, 1, &port))
        return wrong(err, "Invalid format '%s' (give [tcp|udp]:[HOSTADDR]:PORT)", rule);
    g_mutex_lock(&n->lock);
    failed = slirp_remove_hostfwd(n->slirp, udp, host, port);
    g_mutex_unlock(&n->lock);
    return !failed || wrong(err, "host forwarding rule '%s' not found", rule);
}

bool user_net_add_guestfwd(struct user_net *n, const char *rule, GError **err)
{
    const char *rest, *dash = strchr(rule, '-');
    struct in_addr addr = {0};
    int port, failed;
    bool udp;

    rest = parse_protocol(rule, &udp);
    g_autofree char *end = rest && dash ? g_strndup(rest, (size_t)(dash - rest)) : NULL;
    if (!end || udp || !parse_end(end, &addr, 1, &port))
        return wrong(err, "Invalid guest forwarding rule '%s' (give tcp:ADDR:PORT-cmd:COMMAND or -unix:PATH)",
                     rule);
    g_mutex_lock(&n->lock);
    if (g_str_has_prefix(dash + 1, "cmd:"))
        failed = slirp_add_exec(n->slirp, dash + 5, &addr, port);
    else if (g_str_has_prefix(dash + 1, "unix:"))
        failed = slirp_add_unix(n->slirp, dash + 6, &addr, port);
    else
        failed = 1;
    g_mutex_unlock(&n->lock);
    if (failed > 0)
        return wrong(err, "guestfwd '%s': only cmd:COMMAND and unix:PATH are here", rule);
    return !failed ||
           wrong(err, "Could not set up guest forwarding rule '%s': conflicting or unusable address", rule);
}
