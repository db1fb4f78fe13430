/*
 * Packet capture.  See dump.h.  Large segments are written as the one frame they are; what does not fit the
 * disk any more is lost with one warning.
 *
 * Threading: writes happen on the network's thread.
 */
#include "net/dump.h"

#include <errno.h>
#include <stdio.h>

#include "base/compiler.h"
#include "base/report.h"

enum { LINK_ETHERNET = 1 };

struct net_dump {
    struct net_tap tap;
    struct user_net *net;
    FILE *file;
    uint32_t snaplen;
    bool failed;
};

static void write_out(struct net_dump *d, const void *data, size_t len)
{
    if (d->failed || !len || fwrite(data, len, 1, d->file) == 1)
        return;
    warn("the packet capture ends here: %s", g_strerror(errno));
    d->failed = true;
}

static bool see_frame(struct net_tap *tap, struct nic_frame *frame)
{
    struct net_dump *d = CONTAINER_OF(tap, struct net_dump, tap);
    int64_t now = g_get_real_time();
    uint32_t kept = (uint32_t)MIN(frame->len, d->snaplen);
    uint32_t head[4] = {(uint32_t)(now / G_USEC_PER_SEC), (uint32_t)(now % G_USEC_PER_SEC), kept,
                        (uint32_t)frame->len};

    write_out(d, head, sizeof(head));
    write_out(d, frame->data, kept);
    return false;
}

struct net_dump *net_dump_new(struct user_net *net, const char *path, unsigned snaplen, GError **err)
{
    const uint32_t head[6] = {0xa1b2c3d4, 2 | 4 << 16, 0, 0, snaplen, LINK_ETHERNET};
    FILE *file = fopen(path, "wbe");
    struct net_dump *d;

    if (!file) {
        g_set_error(err, NET_ERROR, NET_ERROR_HOST, "%s: %s", path, g_strerror(errno));
        return NULL;
    }
    d = g_new0(struct net_dump, 1);
    d->tap = (struct net_tap){.from_guest = see_frame, .to_guest = see_frame, .watches = true};
    d->net = net;
    d->file = file;
    d->snaplen = snaplen;
    write_out(d, head, sizeof(head));
    user_net_add_tap(net, &d->tap);
    return d;
}

void net_dump_free(struct net_dump *d)
{
    if (!d)
        return;
    user_net_remove_tap(d->net, &d->tap);
    if (fclose(d->file) && !d->failed)
        warn("packet capture: %s", g_strerror(errno));
    g_free(d);
}
