/*
 * TCP (RFC 9293) for services within this program: see tcp.h and local.h.
 *
 *  1. The wire is this program's memory: frames come in order and hardly ever are lost (the card drops what a
 * guest leaves lying too long).  So what does not come in order is dropped and asked for again, there is no
 * congestion control beyond a bound of what is under way, and after a loss everything is sent again from
 * there.
 *  2. What is sent is not copied here: a segment's headers are written before its payload, where it lies, and
 * what was there is put back.  Only small pieces that fit into one segment are brought together.
 *  3. An acknowledgement of its own is a frame that the guest must work on.  Answers carry it; otherwise two
 *     segments' worth of data make one at the end of the burst, and less than that after a while.
 *  4. A guest may stand still for hours (a debugger): nothing is given up for time alone but what the guest
 * has closed itself.  The number of streams is bounded; the one that was silent longest goes.
 *
 * Left out: active opening, urgent data, SACK, timestamps, checks of the guest's checksums.
 *
 * Threading: within a burst (net/tap.h).
 */
#include "net/tcp.h"

#include <string.h>

#include "base/trace.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };
enum { OPT_END = 0, OPT_NOP = 1, OPT_MSS = 2, OPT_SCALE = 3, PROTO_TCP = 6, ETH = NIC_ETHERNET_HEADER };
enum { OUR_MSS = NIC_MTU - 40, MIN_MSS = 88, DEFAULT_MSS = 536, OUR_SCALE = 7, MAX_SCALE = 14 };
enum {
    RECEIVE_MAX = 4 << 20,
    UNDER_WAY_MAX = 1 << 20,
    GATHER_BELOW = 32768,
    CLOSED_BELOW = 16384,
    CLOSING_TRIES = 8
};
#define ACK_US        INT64_C(30000)
#define RTO_US        INT64_C(300000)
#define RTO_SHIFT_MAX 4

struct chunk {
    struct chunk *next;
    uint8_t *data;
    size_t len;
    void (*done)(void *arg);
    void *arg;
};

struct local_stream {
    struct local *local;
    struct local_peer peer;
    uint64_t id;
    void *state;                   /* the user's; valid while `open' */
    bool open, established, ended; /* ended: the guest's FIN has come */
    bool fin_sent, ack_now, probe; /* probe: one segment only, to see whether the guest is there */

    uint32_t rcv_nxt, rcv_adv, acked; /* rcv_adv: the window's right edge, as told; acked: as told */
    int64_t ack_at;                   /* us; 0: not set */
    size_t held;

    uint32_t snd_una, snd_nxt, snd_max, snd_wnd;
    unsigned scale, mss, dup_acks, tries;
    bool scales;                    /* both use window scaling */
    int64_t rto_at;                 /* us; 0: not running */
    struct chunk *head, *tail, *at; /* at: where snd_nxt is, at_off into it; NULL: at the end */
    size_t head_off, at_off;        /* head_off: of the first chunk, already acknowledged */
    size_t queued;                  /* bytes from snd_una on */
};

static bool before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

/* --- streams ----------------------------------------------------------------------------------------------
 */

uint64_t local_stream_id(const struct local_stream *s)
{
    return s->id;
}

struct local_stream *local_stream_find(struct local *l, uint64_t id)
{
    for (guint i = 0; i < l->streams->len; i++) {
        struct local_stream *s = g_ptr_array_index(l->streams, i);

        if (s->id == id)
            return s;
    }
    return NULL;
}

static struct local_stream *find(struct local *l, const struct local_peer *p)
{
    for (guint i = l->streams->len; i-- > 0;) {
        struct local_stream *s = g_ptr_array_index(l->streams, i);

        if (s->peer.port == p->port && s->peer.local_port == p->local_port &&
            s->peer.addr.s_addr == p->addr.s_addr)
            return s;
    }
    return NULL;
}

static void pop_chunk(struct local_stream *s)
{
    struct chunk *c = s->head;

    s->head = c->next;
    s->head_off = 0;
    if (!s->head)
        s->tail = NULL;
    if (s->at == c) {
        s->at = s->head;
        s->at_off = 0;
    }
    c->done(c->arg);
    g_free(c);
}

static void close_state(struct local_stream *s)
{
    if (!s->open)
        return;
    s->open = false;
    s->local->ops->close(s->state);
}

static void destroy(struct local_stream *s)
{
    g_ptr_array_remove(s->local->streams, s);
    close_state(s);
    while (s->head)
        pop_chunk(s);
    g_free(s);
}

void tcp_close_all(struct local *l)
{
    while (l->streams->len)
        destroy(g_ptr_array_index(l->streams, 0));
}

void local_set_held(struct local_stream *s, size_t bytes)
{
    s->held = bytes;
}

void *local_stream_state(const struct local_stream *s)
{
    return s->open ? s->state : NULL;
}

/* --- sending ----------------------------------------------------------------------------------------------
 */

/* The right edge is never taken back (RFC 9293 3.8.6.2.1). */
static unsigned window(struct local_stream *s)
{
    size_t busy = s->held + s->queued, room = busy < RECEIVE_MAX ? RECEIVE_MAX - busy : 0;
    uint32_t told = s->rcv_adv - s->rcv_nxt, now;

    if (!s->scales)
        return (unsigned)MIN(MAX(room, told), 65535);
    now = (uint32_t)MIN(MAX(room, told), 65535u << OUR_SCALE);
    return (now + (1u << OUR_SCALE) - 1) >> OUR_SCALE;
}

/*
 * One segment whose payload of len bytes lies at f + TCP_FRAME_HEADERS.  RFC 9293 3.1; the checksum is left
 * to the card, mostly to be left out.
 */
static void send_frame(struct local_stream *s, uint8_t *f, size_t len, unsigned flags)
{
    struct nic_frame frame = {f, TCP_FRAME_HEADERS + len, 0, ETH + 20, 16};
    uint8_t *tcp = f + ETH + 20, pseudo[4] = {0, PROTO_TCP};
    unsigned wnd = window(s);
    uint16_t sum;

    local_put_headers(s->local, f, &s->peer, PROTO_TCP, frame.len - ETH);
    put16(tcp, s->peer.local_port);
    put16(tcp + 2, s->peer.port);
    put32(tcp + 4, s->snd_nxt);
    put32(tcp + 8, s->rcv_nxt);
    tcp[12] = 5 << 4;
    tcp[13] = (uint8_t)(flags | ACK);
    put16(tcp + 14, wnd);
    put16(pseudo + 2, (unsigned)(20 + len));
    sum = nic_sum_fold(nic_sum_add(nic_sum_add(0, pseudo, 4), f + ETH + 12, 8));
    memcpy(tcp + 16, &sum, 2);
    put16(tcp + 18, 0);
    if (frame.len > NIC_MTU + ETH)
        frame.segment = (uint16_t)s->mss;
    s->rcv_adv = s->rcv_nxt + (wnd << (s->scales ? OUR_SCALE : 0));
    s->acked = s->rcv_nxt;
    s->ack_now = false;
    s->ack_at = 0;
    user_net_send(s->local->net, &frame);
}

static void send_empty(struct local_stream *s, unsigned flags)
{
    uint8_t f[TCP_FRAME_HEADERS];

    send_frame(s, f, 0, flags);
}

/* No stream is needed to refuse (RFC 9293 3.10.7.1). */
static void send_reset(struct local *l, const struct tcp_segment *g)
{
    struct local_stream s = {.local = l, .peer = g->peer, .snd_nxt = g->flags & ACK ? g->ack : 0};

    s.rcv_nxt = s.rcv_adv = g->seq + (uint32_t)g->len + !!(g->flags & SYN) + !!(g->flags & FIN);
    send_empty(&s, RST);
}

/* SYN with our options; the window in it is not scaled. */
static void send_syn(struct local_stream *s)
{
    uint8_t f[TCP_FRAME_HEADERS + 8], *tcp = f + ETH + 20;
    struct nic_frame frame = {f, sizeof(f) - (s->scales ? 0 : 4), 0};
    struct nic_frame sum = frame;
    uint8_t pseudo[4] = {0, PROTO_TCP, 0, (uint8_t)(frame.len - ETH - 20)};
    uint16_t partial;

    local_put_headers(s->local, f, &s->peer, PROTO_TCP, frame.len - ETH);
    put16(tcp, s->peer.local_port);
    put16(tcp + 2, s->peer.port);
    put32(tcp + 4, s->snd_una - 1);
    put32(tcp + 8, s->rcv_nxt);
    put16(tcp + 12, (unsigned)(frame.len - ETH - 20) / 4 << 12 | SYN | ACK);
    put16(tcp + 14, 65535);
    put16(tcp + 18, 0);
    put32(tcp + 20, OPT_MSS << 24 | 4 << 16 | OUR_MSS);
    put32(tcp + 24, OPT_NOP << 24 | OPT_SCALE << 16 | 3 << 8 | OUR_SCALE);
    partial = nic_sum_fold(nic_sum_add(nic_sum_add(0, pseudo, 4), f + ETH + 12, 8));
    memcpy(tcp + 16, &partial, 2);
    sum.sum_start = ETH + 20;
    sum.sum_offset = 16;
    s->rcv_adv = s->rcv_nxt + 65535;
    s->acked = s->rcv_nxt;
    user_net_send(s->local->net, &sum);
}

/* Moves `at' on by n bytes that have been sent. */
static void advance(struct local_stream *s, size_t n)
{
    while (s->at && n >= s->at->len - s->at_off) {
        n -= s->at->len - s->at_off;
        s->at = s->at->next;
        s->at_off = 0;
    }
    if (s->at)
        s->at_off += n;
}

/* The next n bytes, brought together in the scratch buffer. */
static void gather(struct local_stream *s, uint8_t *to, size_t n)
{
    const struct chunk *c = s->at;
    size_t off = s->at_off, part;

    for (; n; n -= part, to += part, c = c->next, off = 0) {
        part = MIN(n, c->len - off);
        memcpy(to, c->data + off, part);
    }
}

/* Rule 2.  n bytes are there to be sent; returns how many went. */
static size_t send_data(struct local_stream *s, size_t n)
{
    size_t rest = s->at->len - s->at_off;
    uint8_t kept[TCP_FRAME_HEADERS], *f = s->at->data + s->at_off - TCP_FRAME_HEADERS;

    if (rest < n && rest >= GATHER_BELOW)
        n = rest;
    if (rest < n) {
        f = s->local->scratch;
        gather(s, f + TCP_FRAME_HEADERS, n);
        send_frame(s, f, n, PSH);
    } else {
        memcpy(kept, f, sizeof(kept));
        send_frame(s, f, n, PSH);
        memcpy(f, kept, sizeof(kept));
    }
    advance(s, n);
    return n;
}

/* How much may go out in one segment now; 0: nothing. */
static size_t sendable(const struct local_stream *s, size_t most)
{
    size_t under_way = s->snd_nxt - s->snd_una - (s->fin_sent && s->snd_nxt == s->snd_max);
    size_t left = s->queued - under_way, wnd = MIN(s->snd_wnd, UNDER_WAY_MAX), n;

    if (under_way >= wnd || (s->probe && under_way))
        return 0;
    n = MIN(MIN(left, wnd - under_way), s->probe ? s->mss : most);
    /* The silly window: a small piece goes when it is the last, or alone (RFC 9293 3.8.6.2.1). */
    return n < left && n < s->mss && under_way ? 0 : n;
}

static void note_sent(struct local_stream *s, size_t n)
{
    s->snd_nxt += (uint32_t)n;
    if (before(s->snd_max, s->snd_nxt))
        s->snd_max = s->snd_nxt;
    if (!s->rto_at)
        s->rto_at = g_get_monotonic_time() + (RTO_US << MIN(s->tries, RTO_SHIFT_MAX));
}

static void send_waiting(struct local_stream *s)
{
    size_t most = user_net_takes_large(s->local->net) ? (65535 - 40) / s->mss * s->mss : s->mss, n;

    while (s->at && (n = sendable(s, most)) > 0)
        note_sent(s, send_data(s, n));
    if (s->at && s->snd_una == s->snd_nxt && !s->rto_at) /* no window: look again after a while */
        s->rto_at = g_get_monotonic_time() + (RTO_US << MIN(s->tries, RTO_SHIFT_MAX));
    if (s->ended && !s->at && (!s->fin_sent || s->snd_nxt != s->snd_max)) {
        send_empty(s, FIN);
        s->fin_sent = true;
        note_sent(s, 1);
    }
}

void local_send(struct local_stream *s, uint8_t *data, size_t len, void (*done)(void *), void *arg)
{
    struct chunk *c = g_new(struct chunk, 1);

    *c = (struct chunk){NULL, data, len, done, arg};
    if (s->tail)
        s->tail->next = c;
    else
        s->head = c;
    s->tail = c;
    if (!s->at) {
        s->at = c;
        s->at_off = 0;
    }
    s->queued += len;
}

void local_close(struct local_stream *s)
{
    send_empty(s, RST);
    destroy(s);
}

/* --- receiving --------------------------------------------------------------------------------------------
 */

static void take_options(struct local_stream *s, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len && p[i] != OPT_END;) {
        if (p[i] == OPT_NOP) {
            i++;
            continue;
        }
        if (i + 1 >= len || p[i + 1] < 2 || p[i + 1] > len - i)
            return;
        if (p[i] == OPT_MSS && p[i + 1] == 4)
            s->mss = CLAMP(get16(p + i + 2), MIN_MSS, OUR_MSS);
        if (p[i] == OPT_SCALE && p[i + 1] == 3) {
            s->scales = true;
            s->scale = MIN(p[i + 2], MAX_SCALE);
        }
        i += p[i + 1];
    }
}

static void accept_stream(struct local *l, const struct tcp_segment *g)
{
    struct local_stream *s = g_new0(struct local_stream, 1);

    if (l->streams->len >= TCP_STREAMS_MAX)
        local_close(g_ptr_array_index(l->streams, 0));
    s->local = l;
    s->peer = g->peer;
    s->id = ++l->next_stream;
    s->mss = DEFAULT_MSS;
    take_options(s, g->options, g->options_len);
    s->rcv_nxt = g->seq + 1;
    s->snd_una = s->snd_nxt = s->snd_max = g_random_int();
    s->snd_wnd = g->window;
    g_ptr_array_add(l->streams, s);
    send_syn(s);
}

static void begin_again(struct local_stream *s)
{
    s->snd_nxt = s->snd_una;
    s->at = s->head;
    s->at_off = s->head_off;
    s->dup_acks = 0;
}

/* n more bytes are with the guest. */
static void drop_acked(struct local_stream *s, size_t n)
{
    s->queued -= n;
    while (s->head && n >= s->head->len - s->head_off) {
        n -= s->head->len - s->head_off;
        pop_chunk(s);
    }
    s->head_off += n;
    if (s->at == s->head && s->at_off < s->head_off)
        s->at_off = s->head_off;
}

static void take_ack(struct local_stream *s, const struct tcp_segment *g)
{
    uint32_t n = g->ack - s->snd_una;

    if (n > s->snd_max - s->snd_una)
        return; /* old, or of what was never sent */
    if (n) {
        if (before(s->snd_nxt, g->ack))
            s->snd_nxt = g->ack;
        drop_acked(s, MIN(n, s->queued));
        s->snd_una = g->ack;
        s->tries = s->dup_acks = 0;
        s->probe = false;
        s->rto_at = s->snd_una == s->snd_max ? 0 : g_get_monotonic_time() + RTO_US;
    } else if (!g->len && s->snd_una != s->snd_nxt && (uint32_t)g->window << s->scale == s->snd_wnd &&
               ++s->dup_acks == 3) {
        begin_again(s);
    }
    s->snd_wnd = (uint32_t)g->window << (s->scales ? s->scale : 0);
}

/* The new part of what has come; false: none of it is what comes next. */
static bool trim(struct local_stream *s, struct tcp_segment *g)
{
    uint32_t old = s->rcv_nxt - g->seq;

    if (before(s->rcv_nxt, g->seq) || old > g->len)
        return false;
    g->data += old;
    g->len -= old;
    g->seq = s->rcv_nxt;
    if (g->len > s->rcv_adv - s->rcv_nxt) {
        s->ack_now = true;
        g->len = s->rcv_adv - s->rcv_nxt;
        g->flags &= (uint8_t)~FIN;
    }
    return true;
}

static void take_data(struct local_stream *s, struct tcp_segment *g)
{
    struct local *l = s->local;
    uint64_t id = s->id;

    if (!g->len && !(g->flags & FIN)) {
        s->ack_now |= g->seq != s->rcv_nxt; /* a keep-alive probe */
        return;
    }
    if (s->ended || !trim(s, g)) {
        s->ack_now = true;
        return;
    }
    s->rcv_nxt += (uint32_t)g->len;
    if (g->len && s->open)
        l->ops->receive(s->state, g->data, g->len);
    if (!(g->flags & FIN) || !local_stream_find(l, id))
        return;
    s->rcv_nxt++;
    s->ended = s->ack_now = true;
    close_state(s);
}

static void touch(struct local_stream *s)
{
    GPtrArray *all = s->local->streams;

    if (g_ptr_array_index(all, all->len - 1) == s)
        return;
    g_ptr_array_remove(all, s);
    g_ptr_array_add(all, s);
}

static void input_for(struct local_stream *s, struct tcp_segment g)
{
    touch(s);
    if (g.flags & RST) {
        if (g.seq - s->rcv_nxt <= s->rcv_adv - s->rcv_nxt)
            destroy(s);
        return;
    }
    if (!(g.flags & ACK))
        return;
    if (!s->established) {
        s->established = s->open = true;
        s->state = s->local->ops->open(s->local->opaque, s);
    }
    take_ack(s, &g);
    if (s->fin_sent && s->snd_una == s->snd_max)
        destroy(s);
    else
        take_data(s, &g);
}

void tcp_input(struct local *l, const struct tcp_segment *g)
{
    struct local_stream *s = find(l, &g->peer);

    if ((g->flags & (SYN | ACK | RST)) == SYN) {
        if (s && !s->established && g->seq + 1 == s->rcv_nxt) {
            send_syn(s);
            return;
        }
        /* The guest uses a port again: it knows nothing of the old stream any more. */
        if (s)
            destroy(s);
        accept_stream(l, g);
    } else if (s) {
        input_for(s, *g);
    } else if (!(g->flags & RST)) {
        send_reset(l, g);
    }
}

/* --- the clock --------------------------------------------------------------------------------------------
 */

/* true: the stream is given up. */
static bool time_out(struct local_stream *s)
{
    s->rto_at = 0;
    s->tries++;
    if (s->ended && s->tries > CLOSING_TRIES) {
        destroy(s);
        return true;
    }
    trace(NET, "stream %u: sent again from %u, %u bytes", s->peer.port, s->snd_una, s->snd_max - s->snd_una);
    begin_again(s);
    s->probe = true;
    if (s->snd_wnd < s->mss && s->at)
        s->snd_wnd = 1; /* a probe of a closed window; the answer says what it is */
    return false;
}

static void send_acks(struct local_stream *s, int64_t now)
{
    uint32_t due = s->rcv_nxt - s->acked, told = s->rcv_adv - s->rcv_nxt;
    size_t busy = s->held + s->queued;

    /* The guest is told of a window that has opened only when it was (nearly) closed. */
    if (told < CLOSED_BELOW && busy < RECEIVE_MAX / 2)
        s->ack_now = true;
    if (s->ack_now || due >= 2u * s->mss || (due && s->ack_at && now >= s->ack_at))
        send_empty(s, 0);
    else if (due && !s->ack_at)
        s->ack_at = now + ACK_US;
}

int64_t tcp_work(struct local *l)
{
    int64_t now = g_get_monotonic_time(), next = G_MAXINT64;

    for (guint i = l->streams->len; i-- > 0;) {
        struct local_stream *s = g_ptr_array_index(l->streams, i);

        if (!s->established || (s->rto_at && now >= s->rto_at && time_out(s)))
            continue;
        send_waiting(s);
        send_acks(s, now);
        if (s->rto_at)
            next = MIN(next, s->rto_at);
        if (s->ack_at)
            next = MIN(next, s->ack_at);
    }
    return next;
}
