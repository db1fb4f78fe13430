/*
 * libslirp on a thread: frames between it and the card, its sockets and timers on a GMainContext.
 *
 * libslirp is told of a large MTU, so that it cuts its TCP streams into pieces of up to 32 KiB.  A guest that
 * can take large segments gets such a piece as one frame; for others it is cut here, as are datagrams above
 * the MTU.  What the guest sends in large segments libslirp takes as it is.
 *
 * Threading: one thread a network; `lock' around every use of libslirp.  A burst (base/nic.h) lies within
 * `lock'.  A vCPU serves one itself as long as only taps answer: libslirp's sockets are waited for by the
 * thread.
 */
#include "net/user.h"

#include <poll.h>
#include <string.h>

#include "base/compiler.h"
#include "base/report.h"
#include "base/trace.h"
#include "net/packet.h"
#include "net/user_internal.h"

enum { MAX_INJECTED = 4096, BURST_FRAMES = 256 };

struct injected {
    struct nic_frame frame;
    uint8_t data[];
};

struct net_source {
    GSource base;
    struct user_net *net;
};

/* --- to the guest -----------------------------------------------------------------------------------------
 */

static void to_card(void *opaque, uint8_t *data, size_t len)
{
    struct user_net *n = opaque;

    n->nic->ops->receive(n->nic, &(struct nic_frame){data, len, 0});
}

/* Its kind: IPv4, ARP ... (EtherType). */
static unsigned kind_of(const struct nic_frame *f)
{
    return f->len < NIC_ETHERNET_HEADER ? 0 : f->data[12] * 256u + f->data[13];
}

static void frame_to_card(struct user_net *n, struct nic_frame *f)
{
    trace(NET, "to the guest: %zu bytes of kind %#x", f->len, kind_of(f));
    if (f->len <= NIC_MTU + NIC_ETHERNET_HEADER)
        n->nic->ops->receive(n->nic, f);
    else if (f->segment && n->nic->ops->takes_large(n->nic))
        n->nic->ops->receive(n->nic, f);
    else if (f->segment ? !packet_split(f->data, f->len, to_card, n)
                        : !packet_fragment(f->data, f->len, to_card, n))
        trace(NET, "a frame of %zu bytes is too large for the guest", f->len);
}

static ssize_t send_packet(const void *buf, size_t len, void *opaque)
{
    struct user_net *n = opaque;
    /* libslirp builds each frame in a buffer of its own that it does not look at again. */
    struct nic_frame f = {(uint8_t *)(uintptr_t)buf, len, 0};

    if (!n->in_burst || len < NIC_ETHERNET_HEADER || len > NIC_MAX_FRAME)
        return (ssize_t)len;
    n->touched = true;
    if (len > NIC_MTU + NIC_ETHERNET_HEADER)
        f.segment = packet_segment(f.data, len);
    for (guint i = 0; i < n->taps->len; i++) {
        struct net_tap *tap = g_ptr_array_index(n->taps, i);

        if (tap->to_guest && tap->to_guest(tap, &f))
            return (ssize_t)len;
    }
    frame_to_card(n, &f);
    return (ssize_t)len;
}

void user_net_send(struct user_net *n, struct nic_frame *f)
{
    if (!n->in_burst)
        return;
    for (guint i = 0; i < n->taps->len; i++) {
        struct net_tap *tap = g_ptr_array_index(n->taps, i);

        if (tap->watches && tap->to_guest && nic_finish_sum(f))
            tap->to_guest(tap, f);
    }
    frame_to_card(n, f);
}

static bool inject_waiting(struct user_net *n)
{
    struct injected *i;

    for (unsigned count = 0; count < BURST_FRAMES; count++) {
        g_mutex_lock(&n->inject_lock);
        i = g_queue_pop_head(&n->injected);
        g_mutex_unlock(&n->inject_lock);
        if (!i)
            return false;
        user_net_send(n, &i->frame);
        g_free(i);
    }
    return true;
}

void user_net_inject(struct user_net *n, const void *data, size_t len, uint16_t segment)
{
    struct injected *i;

    if (len < NIC_ETHERNET_HEADER || len > NIC_MAX_FRAME)
        return;
    i = g_malloc(sizeof(*i) + len);
    memcpy(i->data, data, len);
    i->frame = (struct nic_frame){i->data, len, segment};
    g_mutex_lock(&n->inject_lock);
    if (n->injected.length < MAX_INJECTED)
        g_queue_push_tail(&n->injected, g_steal_pointer(&i));
    g_mutex_unlock(&n->inject_lock);
    g_free(i);
    n->port.ops->kick(&n->port);
}

/* --- from the guest ---------------------------------------------------------------------------------------
 */

void user_net_kick(struct user_net *n)
{
    n->port.ops->kick(&n->port);
}

void user_net_pass(struct user_net *n, struct nic_frame *f)
{
    n->touched = true;
    if (nic_finish_sum(f))
        slirp_input(n->slirp, f->data, (int)f->len);
}

bool user_net_takes_large(struct user_net *n)
{
    return n->nic && n->nic->ops->takes_large(n->nic);
}

static void from_guest(struct user_net *n, struct nic_frame *f)
{
    trace(NET, "from the guest: %zu bytes of kind %#x", f->len, kind_of(f));
    for (guint i = 0; i < n->taps->len; i++) {
        struct net_tap *tap = g_ptr_array_index(n->taps, i);

        if (tap->watches && !nic_finish_sum(f))
            return;
        if (tap->from_guest && tap->from_guest(tap, f))
            return;
    }
    user_net_pass(n, f);
}

/* --- libslirp's surroundings ------------------------------------------------------------------------------
 */

static void guest_error(const char *msg, void *opaque)
{
    (void)opaque;
    trace(GUEST_ERRORS, "network: %s", msg);
}

static int64_t now_ns(void *opaque)
{
    (void)opaque;
    return g_get_monotonic_time() * 1000;
}

static void *timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
    struct user_net *n = opaque;
    struct timer *t = g_new(struct timer, 1);

    *t = (struct timer){id, cb_opaque, -1};
    g_ptr_array_add(n->timers, t);
    return t;
}

static void timer_free(void *timer, void *opaque)
{
    g_ptr_array_remove(((struct user_net *)opaque)->timers, timer);
    g_free(timer);
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    (void)opaque;
    ((struct timer *)timer)->expire_ms = expire_ms;
}

static void run_timers(struct user_net *n)
{
    int64_t now = g_get_monotonic_time() / 1000;

    for (guint i = 0; i < n->timers->len; i++) {
        struct timer *t = g_ptr_array_index(n->timers, i);

        if (t->expire_ms < 0 || t->expire_ms > now)
            continue;
        t->expire_ms = -1;
        slirp_handle_timer(n->slirp, t->id, t->cb_opaque);
    }
}

static void ignore_fd(int fd, void *opaque)
{
    (void)fd;
    (void)opaque;
}

static void ask_for_burst(void *opaque)
{
    struct user_net *n = opaque;

    n->port.ops->kick(&n->port);
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = now_ns,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = ignore_fd,
    .unregister_poll_fd = ignore_fd,
    .notify = ask_for_burst,
    .timer_new_opaque = timer_new,
};

/* --- the event source -------------------------------------------------------------------------------------
 */

static const struct {
    int slirp;
    GIOCondition glib;
} conditions[] = {
    {SLIRP_POLL_IN, G_IO_IN},   {SLIRP_POLL_OUT, G_IO_OUT}, {SLIRP_POLL_PRI, G_IO_PRI},
    {SLIRP_POLL_ERR, G_IO_ERR}, {SLIRP_POLL_HUP, G_IO_HUP},
};

/* A slot keeps its place among the descriptors from one wait to the next, so that mostly nothing changes. */
static int add_poll(int fd, int events, void *opaque)
{
    struct user_net *n = opaque;
    struct poll_slot *s;
    GIOCondition wanted = 0;

    for (unsigned i = 0; i < ARRAY_LEN(conditions); i++)
        if (events & conditions[i].slirp)
            wanted |= conditions[i].glib;
    if (n->slots_used == n->slots->len)
        g_array_append_val(n->slots, ((struct poll_slot){-1, NULL, 0}));
    s = &g_array_index(n->slots, struct poll_slot, n->slots_used);
    if (s->tag && s->fd != fd) {
        g_source_remove_unix_fd(n->source, s->tag);
        s->tag = NULL;
    }
    if (!s->tag)
        s->tag = g_source_add_unix_fd(n->source, fd, wanted);
    else if (s->events != wanted)
        g_source_modify_unix_fd(n->source, s->tag, wanted);
    s->fd = fd;
    s->events = wanted;
    return (int)n->slots_used++;
}

static void drop_unused_slots(struct user_net *n)
{
    for (unsigned i = n->slots_used; i < n->slots->len; i++)
        if (g_array_index(n->slots, struct poll_slot, i).tag)
            g_source_remove_unix_fd(n->source, g_array_index(n->slots, struct poll_slot, i).tag);
    g_array_set_size(n->slots, n->slots_used);
}

static int revents(int idx, void *opaque)
{
    struct user_net *n = opaque;
    GIOCondition got;
    int r = 0;

    if (idx < 0 || (unsigned)idx >= n->slots_used)
        return 0;
    got = g_source_query_unix_fd(n->source, g_array_index(n->slots, struct poll_slot, idx).tag);
    for (unsigned i = 0; i < ARRAY_LEN(conditions); i++)
        if (got & conditions[i].glib)
            r |= conditions[i].slirp;
    return r;
}

static gboolean source_prepare(GSource *source, gint *timeout)
{
    struct user_net *n = ((struct net_source *)source)->net;
    int64_t now = g_get_monotonic_time();
    uint32_t wait = UINT32_MAX;

    g_mutex_lock(&n->lock);
    n->slots_used = 0;
    slirp_pollfds_fill(n->slirp, &wait, add_poll, n);
    drop_unused_slots(n);
    n->deadline = wait == UINT32_MAX ? G_MAXINT64 : now + (int64_t)wait * 1000;
    n->deadline = MIN(n->deadline, n->tap_deadline);
    for (guint i = 0; i < n->timers->len; i++) {
        const struct timer *t = g_ptr_array_index(n->timers, i);

        if (t->expire_ms >= 0)
            n->deadline = MIN(n->deadline, t->expire_ms * 1000);
    }
    g_mutex_unlock(&n->lock);
    *timeout = n->deadline == G_MAXINT64 ? -1 : (int)CLAMP((n->deadline - now + 999) / 1000, 0, G_MAXINT);
    return FALSE;
}

static gboolean source_check(GSource *source)
{
    struct user_net *n = ((struct net_source *)source)->net;

    for (unsigned i = 0; i < n->slots_used; i++)
        if (g_source_query_unix_fd(source, g_array_index(n->slots, struct poll_slot, i).tag))
            return TRUE;
    return g_get_monotonic_time() >= n->deadline;
}

static void run_taps(struct user_net *n)
{
    n->tap_deadline = G_MAXINT64;
    for (guint i = 0; i < n->taps->len; i++) {
        struct net_tap *tap = g_ptr_array_index(n->taps, i);

        if (tap->work)
            n->tap_deadline = MIN(n->tap_deadline, tap->work(tap));
    }
}

/* What the guest sends, and what the taps answer. */
static void begin_burst(struct user_net *n)
{
    const struct nic_ops *ops = n->nic->ops;
    struct nic_frame f;

    n->touched = false;
    ops->begin(n->nic);
    n->in_burst = true;
    while (ops->transmit(n->nic, &f))
        from_guest(n, &f);
    run_taps(n);
}

static bool burst(struct user_net *n)
{
    bool more;

    begin_burst(n);
    slirp_pollfds_poll(n->slirp, 0, revents, n);
    run_timers(n);
    more = inject_waiting(n);
    n->in_burst = false;
    return n->nic->ops->end(n->nic) || more;
}

static gboolean source_dispatch(GSource *source, GSourceFunc fn, gpointer data)
{
    struct user_net *n = ((struct net_source *)source)->net;
    bool more;

    (void)fn;
    (void)data;
    g_source_set_ready_time(source, -1);
    __atomic_store_n(&n->kicked, 0, __ATOMIC_SEQ_CST);
    g_mutex_lock(&n->lock);
    more = burst(n);
    g_mutex_unlock(&n->lock);
    if (more)
        n->port.ops->kick(&n->port);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs source_funcs = {source_prepare, source_check, source_dispatch, NULL, NULL, NULL};

/* --- the port ---------------------------------------------------------------------------------------------
 */

static struct user_net *from_port(struct net_port *port)
{
    return CONTAINER_OF(port, struct user_net, port);
}

static void port_kick(struct net_port *port)
{
    struct user_net *n = from_port(port);

    if (!__atomic_exchange_n(&n->kicked, 1, __ATOMIC_SEQ_CST))
        g_source_set_ready_time(n->source, 0);
}

static gpointer run(gpointer opaque)
{
    struct user_net *n = opaque;

    g_main_context_push_thread_default(n->context);
    while (!__atomic_load_n(&n->stop, __ATOMIC_ACQUIRE))
        g_main_context_iteration(n->context, TRUE);
    g_main_context_pop_thread_default(n->context);
    return NULL;
}

static bool may_wait(const struct user_net *n)
{
    for (guint i = 0; i < n->taps->len; i++)
        if (((const struct net_tap *)g_ptr_array_index(n->taps, i))->may_wait)
            return true;
    return false;
}

/* The thread sleeps until `deadline' or a kick. */
static bool port_serve(struct net_port *port)
{
    struct user_net *n = from_port(port);
    bool more;

    if (__atomic_load_n(&n->kicked, __ATOMIC_SEQ_CST) || !g_mutex_trylock(&n->lock))
        return false;
    if (n->touched || may_wait(n)) {
        g_mutex_unlock(&n->lock);
        return false;
    }
    begin_burst(n);
    n->in_burst = false;
    more = n->nic->ops->end(n->nic) || n->touched || n->tap_deadline < n->deadline;
    g_mutex_unlock(&n->lock);
    if (more)
        port_kick(port);
    return true;
}

static void port_attach(struct net_port *port, struct nic *nic)
{
    struct user_net *n = from_port(port);

    BUG_ON(n->thread);
    n->nic = nic;
    n->stop = false;
    n->source = g_source_new(&source_funcs, sizeof(struct net_source));
    ((struct net_source *)n->source)->net = n;
    g_source_attach(n->source, n->context);
    n->thread = g_thread_new("network", run, n);
}

static void port_detach(struct net_port *port)
{
    struct user_net *n = from_port(port);

    if (!n->thread)
        return;
    __atomic_store_n(&n->stop, true, __ATOMIC_RELEASE);
    g_main_context_wakeup(n->context);
    g_thread_join(g_steal_pointer(&n->thread));
    g_source_destroy(n->source);
    g_array_set_size(n->slots, 0);
    n->slots_used = 0;
    n->nic = NULL;
}

static const struct net_port_ops port_ops = {port_attach, port_detach, port_kick, port_serve};

struct net_port *user_net_port(struct user_net *n)
{
    return &n->port;
}

/* --- taps and life ----------------------------------------------------------------------------------------
 */

void user_net_add_tap(struct user_net *n, struct net_tap *tap)
{
    g_mutex_lock(&n->lock);
    g_ptr_array_add(n->taps, tap);
    g_mutex_unlock(&n->lock);
}

void user_net_remove_tap(struct user_net *n, struct net_tap *tap)
{
    g_mutex_lock(&n->lock);
    g_ptr_array_remove(n->taps, tap);
    g_mutex_unlock(&n->lock);
}

struct in_addr user_net_host(const struct user_net *n)
{
    return n->host;
}

char *user_net_info(struct user_net *n)
{
    char *text, *copy;

    g_mutex_lock(&n->lock);
    text = slirp_connection_info(n->slirp);
    g_mutex_unlock(&n->lock);
    copy = g_strdup(text);
    g_free(text);
    return copy;
}

struct user_net *user_net_start(const SlirpConfig *config)
{
    struct user_net *n = g_new0(struct user_net, 1);

    n->port.ops = &port_ops;
    n->host = config->vhost;
    n->tap_deadline = G_MAXINT64;
    n->context = g_main_context_new();
    n->slots = g_array_new(FALSE, FALSE, sizeof(struct poll_slot));
    n->timers = g_ptr_array_new();
    n->taps = g_ptr_array_new();
    g_queue_init(&n->injected);
    g_mutex_init(&n->lock);
    g_mutex_init(&n->inject_lock);
    n->slirp = slirp_new(config, &callbacks, n);
    return n;
}

void user_net_free(struct user_net *n)
{
    struct nic *nic = n ? n->nic : NULL;

    if (!n)
        return;
    port_detach(&n->port);
    if (nic)
        nic->port = NULL; /* the card of a machine that could not be made goes after its network */
    if (n->slirp)
        slirp_cleanup(n->slirp);
    g_queue_clear_full(&n->injected, g_free);
    if (n->source)
        g_source_unref(n->source);
    g_main_context_unref(n->context);
    g_array_free(n->slots, TRUE);
    g_ptr_array_free(n->timers, TRUE);
    g_ptr_array_free(n->taps, TRUE);
    g_mutex_clear(&n->lock);
    g_mutex_clear(&n->inject_lock);
    g_free(n);
}
