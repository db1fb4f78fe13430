/*
 * Services at the host's address: a guest of hand-made frames against an echo service over UDP and TCP.
 * local_test [fuzz ROUNDS SEED] throws frames at it that are wrong in places.
 */
#include "net/local.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/compiler.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };
enum { PORT = 2049, GUEST_PORT = 700, HEAD = 54 };

struct frame {
    size_t len;
    uint16_t segment, sum_start;
    uint8_t data[NIC_MAX_FRAME];
};

/* The card: frames of the test go out, what comes in is kept. */
static struct {
    struct nic nic;
    GAsyncQueue *out, *in;
    struct frame *current;
    gint bursts;
    bool large;
} card;

static struct user_net *net;
static struct local *local;
static struct local_stream *stream;
static unsigned opened, closed, done;
static GByteArray *received;
static bool echo;

static void nic_begin(struct nic *nic)
{
    (void)nic;
}

static bool nic_transmit(struct nic *nic, struct nic_frame *f)
{
    (void)nic;
    g_clear_pointer(&card.current, g_free);
    card.current = g_async_queue_try_pop(card.out);
    if (card.current)
        *f = (struct nic_frame){card.current->data, card.current->len, card.current->segment};
    return card.current;
}

static void nic_receive(struct nic *nic, struct nic_frame *f)
{
    struct frame *copy = g_new(struct frame, 1);

    (void)nic;
    memcpy(copy->data, f->data, f->len);
    copy->len = f->len;
    copy->segment = f->segment;
    copy->sum_start = f->sum_start;
    g_async_queue_push(card.in, copy);
}

static bool nic_takes_large(struct nic *nic)
{
    (void)nic;
    return card.large;
}

static bool nic_end(struct nic *nic)
{
    (void)nic;
    g_atomic_int_inc(&card.bursts);
    return g_async_queue_length(card.out) > 0;
}

static const struct nic_ops nic_ops = {nic_begin, nic_transmit, nic_receive, nic_takes_large, nic_end};

/* --- the service --- */

static void count_done(void *arg)
{
    done++;
    g_free(arg);
}

static void send_copy(struct local_stream *s, const uint8_t *data, size_t len)
{
    uint8_t *copy = g_malloc(LOCAL_HEADROOM + len);

    memset(copy, 0xee, LOCAL_HEADROOM);
    memcpy(copy + LOCAL_HEADROOM, data, len);
    local_send(s, copy + LOCAL_HEADROOM, len, count_done, copy);
}

static void on_datagram(void *opaque, const struct local_peer *peer, const uint8_t *data, size_t len)
{
    (void)opaque;
    local_send_datagram(local, peer, data, len);
}

static void *on_open(void *opaque, struct local_stream *s)
{
    (void)opaque;
    stream = s;
    opened++;
    return s;
}

static void on_receive(void *state, uint8_t *data, size_t len)
{
    g_byte_array_append(received, data, (guint)len);
    if (echo)
        send_copy(state, data, len);
}

static void on_close(void *state)
{
    if (state == stream)
        stream = NULL;
    closed++;
}

static int64_t on_work(void *opaque)
{
    (void)opaque;
    return G_MAXINT64;
}

static const struct local_ops ops = {on_datagram, on_open, on_receive, on_close, on_work};

/* --- the guest --- */

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v & 0xffff);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_ip(uint8_t *f, unsigned protocol, size_t len, unsigned id, unsigned fragment)
{
    static const uint8_t head[] = {0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 0, 0x45, 0};

    memcpy(f, head, sizeof(head));
    put16(f + 16, (unsigned)(20 + len));
    put16(f + 18, id);
    put16(f + 20, fragment);
    f[22] = 64;
    f[23] = (uint8_t)protocol;
    put16(f + 24, 0);
    put32(f + 26, 0x0a00020f);
    put32(f + 30, 0x0a000202);
}

/* Waits until everything that was sent has been seen, and what it led to has come. */
static void settle(void)
{
    gint before;

    do {
        before = g_atomic_int_get(&card.bursts);
        user_net_kick(net);
        for (int i = 0; i < 2000 && g_atomic_int_get(&card.bursts) < before + 2; i++) {
            g_usleep(100);
            user_net_kick(net);
        }
    } while (g_async_queue_length(card.out) > 0);
}

static void put_frame(struct frame *f)
{
    g_async_queue_push(card.out, f);
}

static struct frame *tcp_frame(unsigned flags, uint32_t seq, uint32_t ack, const void *data, size_t len)
{
    struct frame *f = g_new0(struct frame, 1);
    uint8_t *tcp = f->data + 34;

    put_ip(f->data, 6, 20 + len, 1, 0);
    put16(tcp, GUEST_PORT);
    put16(tcp + 2, PORT);
    put32(tcp + 4, seq);
    put32(tcp + 8, ack);
    tcp[12] = 5 << 4;
    tcp[13] = (uint8_t)flags;
    put16(tcp + 14, 0xffff);
    if (len)
        memcpy(tcp + 20, data, len);
    f->len = HEAD + len;
    return f;
}

static void send_tcp(unsigned flags, uint32_t seq, uint32_t ack, const void *data, size_t len)
{
    put_frame(tcp_frame(flags, seq, ack, data, len));
    settle();
}

/* The next frame from the service, or NULL. */
static struct frame *take(void)
{
    return g_async_queue_timeout_pop(card.in, 1000);
}

static struct frame *must_take(unsigned protocol)
{
    struct frame *f = g_async_queue_timeout_pop(card.in, 2000000);

    assert_non_null(f);
    assert_int_equal(f->data[23], protocol);
    assert_int_equal(get32(f->data + 26), 0x0a000202);
    return f;
}

static void nothing_more(void)
{
    assert_null(take());
}

static unsigned flags_of(const struct frame *f)
{
    return f->data[34 + 13];
}

static uint32_t seq_of(const struct frame *f)
{
    return get32(f->data + 38);
}

static uint32_t ack_of(const struct frame *f)
{
    return get32(f->data + 42);
}

/* Connects with our number 100, and returns the service's next number. */
static uint32_t connect_tcp(void)
{
    struct frame *f;
    uint32_t seq;

    send_tcp(SYN, 100, 0, NULL, 0);
    f = must_take(6);
    assert_int_equal(flags_of(f), SYN | ACK);
    assert_int_equal(ack_of(f), 101);
    assert_int_equal(get32(f->data + 54), 0x020405b4);
    seq = seq_of(f) + 1;
    g_free(f);
    send_tcp(ACK, 101, seq, NULL, 0);
    assert_int_equal(opened, 1);
    nothing_more();
    return seq;
}

static int set_up(void **state)
{
    static const uint16_t ports[] = {111, PORT};

    (void)state;
    card.nic.ops = &nic_ops;
    card.out = g_async_queue_new_full(g_free);
    card.in = g_async_queue_new_full(g_free);
    card.large = true;
    opened = closed = done = 0;
    echo = true;
    stream = NULL;
    received = g_byte_array_new();
    net = user_net_new(&(struct user_net_options){.no_ipv6 = true}, NULL);
    local = local_new(net, ports, ARRAY_LEN(ports), &ops, NULL);
    user_net_port(net)->ops->attach(user_net_port(net), &card.nic);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    user_net_port(net)->ops->detach(user_net_port(net));
    local_free(local);
    user_net_free(net);
    g_clear_pointer(&card.current, g_free);
    g_async_queue_unref(card.out);
    g_async_queue_unref(card.in);
    g_byte_array_unref(received);
    return 0;
}

/* --- UDP --- */

static void test_datagram(void **state)
{
    struct frame *f = g_new0(struct frame, 1);

    (void)state;
    put_ip(f->data, 17, 8 + 5, 1, 0);
    put16(f->data + 34, 900);
    put16(f->data + 36, PORT);
    put16(f->data + 38, 13);
    memcpy(f->data + 42, "hello", 5);
    f->len = 60; /* padded */
    put_frame(f);
    settle();
    f = must_take(17);
    assert_int_equal(f->len, 47);
    assert_memory_equal(f->data, "\x52\x54\0\x12\x34\x56\x52\x55\x0a\0\2\2", 12);
    assert_memory_equal(f->data + 34, "\x08\x01\x03\x84\0\x0d\0\0hello", 13);
    g_free(f);
}

/* 5,000 bytes in four pieces, the last two exchanged. */
static void test_fragments(void **state)
{
    static const unsigned at[] = {0, 1480, 4440, 2960}, size[] = {1480, 1480, 568, 1480};
    uint8_t datagram[5008];
    size_t have = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(datagram); i++)
        datagram[i] = (uint8_t)(i * 7);
    put16(datagram, 900);
    put16(datagram + 2, PORT);
    put16(datagram + 4, sizeof(datagram));
    for (unsigned i = 0; i < 4; i++) {
        struct frame *f = g_new0(struct frame, 1);

        put_ip(f->data, 17, size[i], 77, at[i] / 8 | (at[i] == 4440 ? 0 : 0x2000));
        memcpy(f->data + 34, datagram + at[i], size[i]);
        f->len = 34 + size[i];
        put_frame(f);
    }
    settle();
    for (unsigned i = 0; i < 4; i++) {
        struct frame *f = must_take(17);
        size_t part = f->len - 34;

        if (i == 0)
            assert_memory_equal(f->data + 42, datagram + 8, part - 8);
        else
            assert_memory_equal(f->data + 34, datagram + have, part);
        have += part;
        g_free(f);
    }
    assert_int_equal(have, sizeof(datagram));
    nothing_more();
}

/* --- TCP --- */

static void test_echo_and_end(void **state)
{
    uint32_t seq;
    struct frame *f;

    (void)state;
    seq = connect_tcp();
    send_tcp(ACK | PSH, 101, seq, "question", 8);
    f = must_take(6); /* the answer carries the acknowledgement */
    assert_int_equal(seq_of(f), seq);
    assert_int_equal(ack_of(f), 109);
    assert_int_equal(f->len, HEAD + 8);
    assert_int_equal(f->sum_start, 34);
    assert_memory_equal(f->data + HEAD, "question", 8);
    g_free(f);
    nothing_more();
    send_tcp(ACK | FIN, 109, seq + 8, NULL, 0);
    assert_int_equal(done, 1);
    assert_int_equal(closed, 1);
    f = must_take(6);
    assert_int_equal(flags_of(f) & FIN, FIN);
    assert_int_equal(ack_of(f), 110);
    assert_int_equal(seq_of(f), seq + 8);
    g_free(f);
    send_tcp(ACK, 110, seq + 9, NULL, 0);
    send_tcp(ACK, 110, seq + 9, NULL, 0); /* it is gone now */
    f = must_take(6);
    assert_int_equal(flags_of(f) & RST, RST);
    g_free(f);
}

/* What comes too early is asked for again, what comes twice is taken once. */
static void test_order(void **state)
{
    uint32_t seq;
    struct frame *f;

    (void)state;
    echo = false;
    seq = connect_tcp();
    send_tcp(ACK, 105, seq, "efgh", 4);
    f = must_take(6);
    assert_int_equal(ack_of(f), 101);
    g_free(f);
    send_tcp(ACK, 101, seq, "abcd", 4);
    send_tcp(ACK, 101, seq, "abcdef", 6);
    send_tcp(ACK, 103, seq, "cdefgh", 6);
    assert_int_equal(received->len, 8);
    assert_memory_equal(received->data, "abcdefgh", 8);
    f = must_take(6); /* later, once for all */
    assert_int_equal(ack_of(f), 109);
    assert_int_equal(f->len, HEAD);
    g_free(f);
}

/* A large answer comes in large segments, and again from where it was lost. */
static void test_large_and_lost(void **state)
{
    g_autofree uint8_t *data = g_malloc(60000);
    GByteArray *back = g_byte_array_new();
    uint32_t seq;
    struct frame *f;

    (void)state;
    for (unsigned i = 0; i < 60000; i++)
        data[i] = (uint8_t)(i ^ i >> 8);
    seq = connect_tcp();
    send_tcp(ACK, 101, seq, data, 60000);
    f = must_take(6);
    assert_int_equal(f->len, HEAD + 60000);
    assert_int_equal(f->segment, 536);
    assert_int_equal(ack_of(f), 60101);
    g_free(f);
    send_tcp(ACK, 60101, seq + 20000, NULL, 0);
    f = must_take(6); /* after a while, one segment to see who is there */
    assert_int_equal(seq_of(f), seq + 20000);
    g_byte_array_append(back, f->data + HEAD, (guint)(f->len - HEAD));
    g_free(f);
    send_tcp(ACK, 60101, seq + 20000 + back->len, NULL, 0);
    while (back->len < 40000) {
        f = must_take(6);
        assert_int_equal(seq_of(f), seq + 20000 + back->len);
        g_byte_array_append(back, f->data + HEAD, (guint)(f->len - HEAD));
        g_free(f);
    }
    assert_memory_equal(back->data, data + 20000, 40000);
    assert_int_equal(done, 0);
    send_tcp(ACK, 60101, seq + 60000, NULL, 0);
    assert_int_equal(done, 1);
    g_byte_array_unref(back);
}

/* Small segments for a card that takes no others; nothing beyond the guest's window. */
static void test_window(void **state)
{
    g_autofree uint8_t *data = g_malloc0(20000);
    struct frame *f;
    uint32_t seq;
    size_t have = 0;

    (void)state;
    card.large = false;
    seq = connect_tcp();
    f = tcp_frame(ACK, 101, seq, data, 20000);
    put16(f->data + 48, 4 * 536);
    put_frame(f);
    settle();
    while (have < 4 * 536) {
        f = must_take(6);
        assert_true(f->len <= HEAD + 536);
        have += f->len - HEAD;
        g_free(f);
    }
    assert_int_equal(have, 4 * 536);
    nothing_more();
    f = tcp_frame(ACK, 20101, seq + 4 * 536, NULL, 0);
    put16(f->data + 48, 0);
    put_frame(f);
    settle();
    f = must_take(6); /* after a while, one byte that asks whether the window is open again */
    assert_int_equal(f->len, HEAD + 1);
    assert_int_equal(seq_of(f), seq + 4 * 536);
    g_free(f);
}

static void test_new_start(void **state)
{
    struct frame *f;

    (void)state;
    connect_tcp();
    send_tcp(SYN, 5000, 0, NULL, 0);
    assert_int_equal(closed, 1);
    f = must_take(6);
    assert_int_equal(flags_of(f), SYN | ACK);
    assert_int_equal(ack_of(f), 5001);
    g_free(f);
    send_tcp(RST, 5001, 0, NULL, 0);
    send_tcp(ACK, 1, 1, NULL, 0);
    f = must_take(6);
    assert_int_equal(flags_of(f) & RST, RST);
    assert_int_equal(seq_of(f), 1);
    g_free(f);
}

/* --- wrong frames --- */

static uint32_t random32(void)
{
    static uint64_t s = 88172645463325252u;

    s ^= s << 13;
    s ^= s >> 7;
    s ^= s << 17;
    return (uint32_t)(s >> 16);
}

static struct frame *wrong_frame(uint32_t seq)
{
    static const uint8_t data[3000];
    struct frame *f =
        tcp_frame(random32() % 4 ? ACK : random32() & 31, 101 + received->len + random32() % 4 % 3, seq, data,
                  random32() % sizeof(data));

    if (random32() % 3 == 0) {
        put_ip(f->data, 17, f->len - 34, random32() % 8,
               random32() % 2 ? random32() & 0x3fff : random32() % 3 << 13);
        put16(f->data + 36, PORT);
        put16(f->data + 38, random32() % 2 ? random32() & 0xffff : (unsigned)(f->len - 34));
    } else if (random32() % 2) {
        put16(f->data + 34, GUEST_PORT + random32() % 100);
    }
    for (unsigned n = random32() % 4; n--;)
        f->data[random32() % 66] = (uint8_t)random32();
    if (random32() % 8 == 0)
        f->len = 14 + random32() % (f->len - 13);
    return f;
}

static void drain(void)
{
    struct frame *f;

    while ((f = g_async_queue_try_pop(card.in)))
        g_free(f);
}

static int fuzz(unsigned rounds)
{
    uint32_t seq;

    set_up(NULL);
    send_tcp(SYN, 100, 0, NULL, 0);
    struct frame *f = must_take(6);
    seq = seq_of(f) + 1;
    g_free(f);
    for (unsigned i = 0; i < rounds; i++) {
        put_frame(wrong_frame(seq));
        if (i % 64 == 0) {
            settle();
            drain();
        }
    }
    settle();
    drain();
    g_byte_array_set_size(received, 0);
    opened = 0;
    connect_tcp(); /* it still serves */
    tear_down(NULL);
    printf("%u passed, 0 failed\n", rounds);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_datagram, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_fragments, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_echo_and_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_large_and_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_window, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_new_start, set_up, tear_down),
    };

    if (argc == 3 && !strcmp(argv[1], "fuzz"))
        return fuzz((unsigned)atoi(argv[2]));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
