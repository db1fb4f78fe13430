/*
 * virtio network card: one pair of queues and a control queue.
 *
 * Offered: checksum and TCP segmentation offload both ways, mergeable receive buffers, a MAC address that can
 * be set. The control queue's receive modes are answered and change nothing: the network behind the card
 * sends only what is meant for it.  Left out: several pairs of queues, VLAN filters, UFO, ECN in large
 * segments, hash reports.
 *
 * Threading: see base/nic.h.  Buffers are popped at a burst's begin and pushed after its end, with the
 * board's lock; between these `busy' is set, and quiesce waits for its end.  So nothing in a burst may take
 * the board's lock.  A burst that a vCPU serves itself (`here') is bounded, and under the board's lock as a
 * whole.
 */
#include "virtio/net.h"

#include <string.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "base/trace.h"
#include "virtio/iov.h"

enum { RX = 0, TX = 1, CTRL = 2, NUM_QUEUES = 3, QUEUE_SIZE = 256, CTRL_QUEUE_SIZE = 64 };
enum {
    F_CSUM = 0,
    F_GUEST_CSUM = 1,
    F_MAC = 5,
    F_GUEST_TSO4 = 7,
    F_GUEST_TSO6 = 8,
    F_HOST_TSO4 = 11,
    F_HOST_TSO6 = 12,
    F_MRG_RXBUF = 15,
    F_STATUS = 16,
    F_CTRL_VQ = 17,
    F_CTRL_RX = 18,
    F_CTRL_MAC_ADDR = 23
};
enum { HDR_NEEDS_CSUM = 1, HDR_DATA_VALID = 2 };
enum { GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_ECN = 0x80 };
enum {
    CTRL_RX_MODE = 0,
    CTRL_MAC = 1,
    CTRL_MAC_TABLE_SET = 0,
    CTRL_MAC_ADDR_SET = 1,
    CTRL_OK = 0,
    CTRL_ERR = 1
};
enum { S_LINK_UP = 1 };

/* What a vCPU serves itself: more of it, and two threads get it done sooner. */
enum { HERE_FRAMES = 8, HERE_BYTES = 16384 };

/* How much is kept for a guest that gives no buffers, as a real card's ring would. */
enum { BACKLOG_FRAMES = 512, BACKLOG_BYTES = 4 << 20 };

/* All fields little-endian. */
struct header {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};

struct config {
    uint8_t mac[NIC_MAC_SIZE];
    uint16_t status;
} __attribute__((packed));

struct done {
    struct virtq_elem *elem;
    size_t written;
};

struct virtio_net {
    struct virtio_device vdev;
    struct nic nic;
    uint8_t mac[NIC_MAC_SIZE], factory_mac[NIC_MAC_SIZE];
    GMutex io; /* guards busy; inside the board's lock */
    GCond idle;
    bool busy;
    bool here; /* under the board's lock: the burst runs within it */

    /* The burst's, or the board lock's between bursts. */
    size_t header_size;
    bool mergeable, large, checksums;
    struct virtq_elem *tx[QUEUE_SIZE], *rx[QUEUE_SIZE]; /* popped */
    unsigned tx_count, tx_next, rx_count, rx_next;
    struct done finished[QUEUE_SIZE]; /* filled receive buffers, in order */
    unsigned finished_count;
    GQueue backlog; /* of GBytes-like struct waiting */
    size_t backlog_bytes;
    uint8_t frame[NIC_MAX_FRAME];
};

struct waiting {
    struct nic_frame frame;
    uint8_t data[];
};

static struct virtio_net *from_vdev(struct virtio_device *vdev)
{
    return CONTAINER_OF(vdev, struct virtio_net, vdev);
}

static struct virtio_net *from_nic(struct nic *nic)
{
    return CONTAINER_OF(nic, struct virtio_net, nic);
}

/* --- the guest's frames --------------------------------------------------------------------------------- */

static bool valid_gso(const struct header *h, size_t len)
{
    unsigned type = h->gso_type & ~GSO_ECN;

    if (type == GSO_NONE)
        return len <= NIC_MAX_FRAME;
    return (type == GSO_TCPV4 || type == GSO_TCPV6) && GUINT16_FROM_LE(h->gso_size) &&
           (h->flags & HDR_NEEDS_CSUM);
}

/* 5.1.6.2: the driver may leave the checksum to us, and we to whoever looks at it. */
static bool take_sum(const struct header *h, struct nic_frame *f)
{
    unsigned start = GUINT16_FROM_LE(h->csum_start), offset = GUINT16_FROM_LE(h->csum_offset);

    if (!(h->flags & HDR_NEEDS_CSUM))
        return true;
    f->sum_start = (uint16_t)start;
    f->sum_offset = (uint16_t)offset;
    return start && start < f->len && offset + 2 <= f->len - start;
}

static bool net_transmit(struct nic *nic, struct nic_frame *frame)
{
    struct virtio_net *n = from_nic(nic);

    while (n->tx_next < n->tx_count) {
        struct virtq_elem *e = n->tx[n->tx_next++];
        struct header h = {0};
        size_t len;

        iov_read(virtq_out(e), e->out_num, 0, &h, n->header_size);
        if (e->out_len < n->header_size || e->out_len - n->header_size > NIC_MAX_FRAME ||
            e->out_len - n->header_size < NIC_ETHERNET_HEADER)
            continue;
        len = iov_read(virtq_out(e), e->out_num, n->header_size, n->frame, e->out_len - n->header_size);
        *frame = (struct nic_frame){n->frame, len, h.gso_type ? GUINT16_FROM_LE(h.gso_size) : 0};
        if (valid_gso(&h, len) && take_sum(&h, frame))
            return true;
        trace(GUEST_ERRORS, "%s: bad offload header", n->vdev.cls->name);
    }
    return false;
}

/* --- frames for the guest ------------------------------------------------------------------------------- */

static size_t room(const struct virtq_elem *e)
{
    return e->in_len;
}

/* How many of the buffers at hand hold `total' bytes; 0: not enough. */
static unsigned buffers_for(const struct virtio_net *n, size_t total)
{
    size_t have = 0;

    for (unsigned i = n->rx_next; i < n->rx_count; i++) {
        have += room(n->rx[i]);
        if (have >= total)
            return i + 1 - n->rx_next;
        if (!n->mergeable)
            return 0;
    }
    return 0;
}

/* Are there the headers that make_large() looks at?  Their kinds are the network's word. */
static bool has_headers(const struct nic_frame *f)
{
    size_t ip_len = f->len < NIC_ETHERNET_HEADER + 20        ? 40
                    : f->data[NIC_ETHERNET_HEADER] >> 4 == 6 ? 40
                                                             : (f->data[NIC_ETHERNET_HEADER] & 15u) * 4;

    return f->len >= NIC_ETHERNET_HEADER + ip_len + 20;
}

/*
 * 5.1.6.4: a large segment comes with its checksum left to do, the field holding the pseudo header's sum.
 */
static void make_large(struct header *h, const struct nic_frame *f)
{
    uint8_t *ip = f->data + NIC_ETHERNET_HEADER, *tcp;
    bool v6 = ip[0] >> 4 == 6;
    unsigned ip_len = v6 ? 40 : (ip[0] & 15u) * 4;
    size_t tcp_len = f->len - NIC_ETHERNET_HEADER - ip_len;
    uint16_t tail[2] = {GUINT16_TO_BE((uint16_t)tcp_len), GUINT16_TO_BE(6)}, sum;

    tcp = ip + ip_len;
    sum = nic_sum_fold(nic_sum_add(nic_sum_add(0, (uint8_t *)tail, 4), ip + (v6 ? 8 : 12), v6 ? 32 : 8));
    memcpy(tcp + 16, &sum, 2);
    h->flags = HDR_NEEDS_CSUM;
    h->gso_type = v6 ? GSO_TCPV6 : GSO_TCPV4;
    h->gso_size = GUINT16_TO_LE(f->segment);
    h->csum_start = GUINT16_TO_LE((uint16_t)(NIC_ETHERNET_HEADER + ip_len));
    h->csum_offset = GUINT16_TO_LE(16);
    h->hdr_len = GUINT16_TO_LE((uint16_t)(NIC_ETHERNET_HEADER + ip_len + (tcp[12] >> 4) * 4u));
}

static void leave_sum(struct header *h, const struct nic_frame *f)
{
    h->flags = f->sum_start ? HDR_NEEDS_CSUM : HDR_DATA_VALID;
    h->csum_start = GUINT16_TO_LE(f->sum_start);
    h->csum_offset = GUINT16_TO_LE(f->sum_offset);
}

static void finish_rx(struct virtio_net *n, size_t written)
{
    n->finished[n->finished_count++] = (struct done){n->rx[n->rx_next++], written};
}

static void fill_buffers(struct virtio_net *n, const struct header *h, const struct nic_frame *f,
                         unsigned count)
{
    struct virtq_elem *e = n->rx[n->rx_next];
    size_t done = 0, at = n->header_size;

    iov_write(virtq_in(e), e->in_num, 0, h, n->header_size);
    for (; count--; at = 0) {
        size_t part;

        e = n->rx[n->rx_next];
        part = iov_write(virtq_in(e), e->in_num, at, f->data + done, MIN(f->len - done, e->in_len - at));
        done += part;
        finish_rx(n, at + part);
    }
}

/* false: there is no room now. */
static bool deliver(struct virtio_net *n, struct nic_frame *f)
{
    unsigned count = buffers_for(n, n->header_size + f->len);
    struct header h = {0};

    if (!count || room(n->rx[n->rx_next]) < n->header_size)
        return false;
    if (f->segment && n->large && has_headers(f))
        make_large(&h, f);
    else if (n->checksums)
        leave_sum(&h, f);
    else if (!nic_finish_sum(f))
        return true;
    h.num_buffers = GUINT16_TO_LE((uint16_t)count);
    fill_buffers(n, &h, f, count);
    return true;
}

/* A buffer that can never hold the frame (nothing is merged) is not worth waiting for. */
static bool hopeless(const struct virtio_net *n, const struct nic_frame *f)
{
    return !n->mergeable && n->rx_next < n->rx_count && room(n->rx[n->rx_next]) < n->header_size + f->len;
}

static void put_aside(struct virtio_net *n, const struct nic_frame *f)
{
    struct waiting *w;

    if (n->backlog.length >= BACKLOG_FRAMES || n->backlog_bytes + f->len > BACKLOG_BYTES)
        return;
    w = g_malloc(sizeof(*w) + f->len);
    memcpy(w->data, f->data, f->len);
    w->frame = *f;
    w->frame.data = w->data;
    n->backlog_bytes += f->len;
    g_queue_push_tail(&n->backlog, w);
}

static void drop_first_waiting(struct virtio_net *n)
{
    struct waiting *w = g_queue_pop_head(&n->backlog);

    n->backlog_bytes -= w->frame.len;
    g_free(w);
}

static void deliver_backlog(struct virtio_net *n)
{
    struct waiting *w;

    while ((w = g_queue_peek_head(&n->backlog)) && (deliver(n, &w->frame) || hopeless(n, &w->frame)))
        drop_first_waiting(n);
}

static void net_receive(struct nic *nic, struct nic_frame *frame)
{
    struct virtio_net *n = from_nic(nic);

    if (frame->len < NIC_ETHERNET_HEADER || frame->len > NIC_MAX_FRAME || hopeless(n, frame))
        return;
    if (!g_queue_is_empty(&n->backlog) || !deliver(n, frame))
        put_aside(n, frame);
}

static bool net_takes_large(struct nic *nic)
{
    return from_nic(nic)->large;
}

/* --- bursts --------------------------------------------------------------------------------------------- */

static bool can_run(struct virtio_net *n)
{
    return virtio_is_running(&n->vdev) && n->vdev.queues[RX].ready && n->vdev.queues[TX].ready;
}

static unsigned take(struct virtq *q, struct virtq_elem **list, unsigned have, unsigned most)
{
    struct virtq_elem *e;

    q->budget = VIRTQ_BUDGET; /* a burst is bounded by the list */
    while (have < most && (e = virtq_pop(q)))
        list[have++] = e;
    return have;
}

static void note_features(struct virtio_net *n)
{
    n->mergeable = virtio_has(&n->vdev, F_MRG_RXBUF);
    n->checksums = virtio_has(&n->vdev, F_GUEST_CSUM);
    n->large = n->checksums && virtio_has(&n->vdev, F_GUEST_TSO4) && virtio_has(&n->vdev, F_GUEST_TSO6);
    n->header_size = n->mergeable || virtio_has(&n->vdev, VIRTIO_F_VERSION_1) ? 12 : 10;
}

static void take_buffers(struct virtio_net *n)
{
    if (!can_run(n))
        return;
    note_features(n);
    n->rx_count = take(&n->vdev.queues[RX], n->rx, n->rx_count, QUEUE_SIZE);
    n->tx_count = take(&n->vdev.queues[TX], n->tx, n->tx_count, QUEUE_SIZE);
}

static void net_begin(struct nic *nic)
{
    struct virtio_net *n = from_nic(nic);

    if (n->here) {
        take_buffers(n);
        deliver_backlog(n);
        return;
    }
    g_mutex_lock(n->vdev.lock);
    take_buffers(n);
    g_mutex_lock(&n->io);
    n->busy = true;
    g_mutex_unlock(&n->io);
    g_mutex_unlock(n->vdev.lock);
    deliver_backlog(n);
}

/* What the burst is through with goes back; the board's lock is held and no burst runs. */
static void hand_back(struct virtio_net *n)
{
    struct virtq *rx = &n->vdev.queues[RX], *tx = &n->vdev.queues[TX];
    unsigned left = n->rx_count - n->rx_next;

    for (unsigned i = 0; i < n->finished_count; i++)
        virtq_push(rx, n->finished[i].elem, n->finished[i].written);
    memmove(n->rx, n->rx + n->rx_next, left * sizeof(n->rx[0]));
    if (n->finished_count)
        virtq_notify(rx);
    for (unsigned i = 0; i < n->tx_next; i++)
        virtq_push(tx, n->tx[i], 0);
    if (n->tx_next)
        virtq_notify(tx);
    memmove(n->tx, n->tx + n->tx_next, (n->tx_count - n->tx_next) * sizeof(n->tx[0]));
    n->tx_count -= n->tx_next;
    n->rx_count = left;
    n->tx_next = n->rx_next = n->finished_count = 0;
}

/* Hands back, and says whether there is more to do. */
static bool finish_burst(struct virtio_net *n)
{
    hand_back(n);
    return can_run(n) && (n->tx_count || !virtq_is_empty(&n->vdev.queues[TX]) ||
                          (!g_queue_is_empty(&n->backlog) && !virtq_is_empty(&n->vdev.queues[RX])));
}

static bool net_end(struct nic *nic)
{
    struct virtio_net *n = from_nic(nic);
    bool more;

    if (n->here)
        return finish_burst(n);
    g_mutex_lock(&n->io);
    n->busy = false;
    g_cond_broadcast(&n->idle);
    g_mutex_unlock(&n->io);
    g_mutex_lock(n->vdev.lock);
    more = finish_burst(n);
    g_mutex_unlock(n->vdev.lock);
    return more;
}

static const struct nic_ops nic_ops = {net_begin, net_transmit, net_receive, net_takes_large, net_end};

/* --- control -------------------------------------------------------------------------------------------- */

static uint8_t run_command(struct virtio_net *n, const struct virtq_elem *e)
{
    uint8_t head[2];

    if (iov_read(virtq_out(e), e->out_num, 0, head, 2) < 2)
        return CTRL_ERR;
    if (head[0] == CTRL_RX_MODE)
        return e->out_len >= 3 ? CTRL_OK : CTRL_ERR;
    if (head[0] != CTRL_MAC)
        return CTRL_ERR;
    if (head[1] == CTRL_MAC_TABLE_SET)
        return CTRL_OK;
    if (head[1] != CTRL_MAC_ADDR_SET || e->out_len != 2 + NIC_MAC_SIZE)
        return CTRL_ERR;
    iov_read(virtq_out(e), e->out_num, 2, n->mac, NIC_MAC_SIZE);
    return CTRL_OK;
}

static void serve_control(struct virtio_net *n, struct virtq *q)
{
    struct virtq_elem *e;

    while ((e = virtq_pop(q))) {
        uint8_t ack = run_command(n, e);

        virtq_push(q, e, iov_write(virtq_in(e), e->in_num, 0, &ack, 1));
    }
    virtq_notify(q);
}

static bool in_burst(struct virtio_net *n)
{
    bool busy;

    g_mutex_lock(&n->io);
    busy = n->busy;
    g_mutex_unlock(&n->io);
    return busy;
}

/* Pops what the guest wants to send; true: it is little. */
static bool take_little(struct virtio_net *n)
{
    size_t bytes = 0;

    note_features(n);
    n->tx_count = take(&n->vdev.queues[TX], n->tx, n->tx_count, QUEUE_SIZE);
    for (unsigned i = 0; i < n->tx_count; i++)
        bytes += n->tx[i]->out_len;
    return n->tx_count <= HERE_FRAMES && bytes <= HERE_BYTES;
}

static bool serve_here(struct virtio_net *n)
{
    const struct net_port_ops *ops = n->nic.port->ops;
    bool served;

    if (!ops->serve || !can_run(n) || !take_little(n))
        return false;
    n->here = true;
    served = ops->serve(n->nic.port);
    n->here = false;
    return served;
}

/* With the board's lock, so that a burst that is not on now does not begin meanwhile. */
static void ask_for_burst(struct virtio_net *n, const struct virtq *q)
{
    if (!in_burst(n)) {
        if (q->index == RX && g_queue_is_empty(&n->backlog))
            return; /* the next burst takes the buffers */
        if (q->index == TX && serve_here(n))
            return;
    }
    n->nic.port->ops->kick(n->nic.port);
}

static void net_notify(struct virtio_device *vdev, struct virtq *q)
{
    struct virtio_net *n = from_vdev(vdev);

    if (q->index == CTRL)
        serve_control(n, q);
    else if (n->nic.port)
        ask_for_burst(n, q);
    else if (q->index == TX) { /* no cable: frames are sent nowhere */
        n->tx_count = n->tx_next = take(q, n->tx, 0, QUEUE_SIZE);
        hand_back(n);
    }
}

static void net_quiesce(struct virtio_device *vdev, struct virtq *q)
{
    struct virtio_net *n = from_vdev(vdev);

    (void)q;
    g_mutex_lock(&n->io);
    while (n->busy)
        g_cond_wait(&n->idle, &n->io);
    g_mutex_unlock(&n->io);
    hand_back(n);
    for (unsigned i = 0; i < n->tx_count; i++)
        virtq_push(&vdev->queues[TX], n->tx[i], 0);
    for (unsigned i = 0; i < n->rx_count; i++)
        virtq_drop(n->rx[i]);
    n->tx_count = n->rx_count = 0;
}

static void net_reset(struct virtio_device *vdev)
{
    struct virtio_net *n = from_vdev(vdev);

    while (!g_queue_is_empty(&n->backlog))
        drop_first_waiting(n);
    memcpy(n->mac, n->factory_mac, sizeof(n->mac));
    n->large = false;
}

/* --- configuration, life -------------------------------------------------------------------------------- */

static void net_config_read(struct virtio_device *vdev, uint8_t *buf)
{
    struct virtio_net *n = from_vdev(vdev);
    struct config c = {.status = GUINT16_TO_LE(n->nic.port ? S_LINK_UP : 0)};

    memcpy(c.mac, n->mac, sizeof(c.mac));
    memcpy(buf, &c, sizeof(c));
}

/* The legacy interface's way to set the address (5.1.4.3). */
static void net_config_write(struct virtio_device *vdev, const uint8_t *buf, unsigned off, unsigned len)
{
    struct virtio_net *n = from_vdev(vdev);

    (void)len;
    if (off < NIC_MAC_SIZE && !virtio_has(vdev, VIRTIO_F_VERSION_1) && !virtio_has(vdev, F_CTRL_MAC_ADDR))
        memcpy(n->mac, buf, NIC_MAC_SIZE);
}

static void net_free(struct virtio_device *vdev)
{
    struct virtio_net *n = from_vdev(vdev);

    if (n->nic.port)
        n->nic.port->ops->detach(n->nic.port);
    g_mutex_lock(vdev->lock);
    net_quiesce(vdev, NULL);
    net_reset(vdev);
    g_mutex_unlock(vdev->lock);
    g_mutex_clear(&n->io);
    g_cond_clear(&n->idle);
    virtio_cleanup(vdev);
    g_free(n);
}

static void net_describe(struct virtio_device *vdev, GString *out)
{
    const uint8_t *m = from_vdev(vdev)->mac;

    g_string_append_printf(out, "mac = \"%02x:%02x:%02x:%02x:%02x:%02x\"\n", m[0], m[1], m[2], m[3], m[4],
                           m[5]);
}

static const struct virtio_class net_class = {
    .name = "virtio-net-device",
    .device_id = VIRTIO_ID_NET,
    .config_read = net_config_read,
    .config_write = net_config_write,
    .notify = net_notify,
    .quiesce = net_quiesce,
    .reset = net_reset,
    .free = net_free,
    .describe = net_describe,
};

static uint64_t offered_features(const struct virtio_net_options *o)
{
    uint64_t f = BIT(F_MAC) | BIT(F_STATUS) | BIT(F_CTRL_VQ) | BIT(F_CTRL_RX) | BIT(F_CTRL_MAC_ADDR);

    if (!o->no_mergeable)
        f |= BIT(F_MRG_RXBUF);
    if (!o->no_csum)
        f |= BIT(F_CSUM) | (o->no_tso ? 0 : BIT(F_HOST_TSO4) | BIT(F_HOST_TSO6));
    if (!o->no_guest_csum)
        f |= BIT(F_GUEST_CSUM) | (o->no_guest_tso ? 0 : BIT(F_GUEST_TSO4) | BIT(F_GUEST_TSO6));
    return f;
}

struct virtio_device *virtio_net_new(GMutex *lock, struct mem *mem, const struct virtio_net_options *o)
{
    struct virtio_net *n = g_new0(struct virtio_net, 1);

    n->nic.ops = &nic_ops;
    n->nic.port = o->port;
    memcpy(n->factory_mac, o->mac, sizeof(n->mac));
    g_mutex_init(&n->io);
    g_cond_init(&n->idle);
    g_queue_init(&n->backlog);
    virtio_init(&n->vdev, &net_class, lock, mem, offered_features(o), sizeof(struct config));
    virtio_add_queue(&n->vdev, QUEUE_SIZE);
    virtio_add_queue(&n->vdev, QUEUE_SIZE);
    virtio_add_queue(&n->vdev, CTRL_QUEUE_SIZE);
    net_reset(&n->vdev);
    if (o->port)
        o->port->ops->attach(o->port, &n->nic);
    return &n->vdev;
}
