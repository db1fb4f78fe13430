/*
 * PCI: configuration space, BARs, INTx and MSI-X, virtio-pci in both interfaces, the network card, cutting packets.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "dev/pci.h"
#include "net/packet.h"
#include "virtio/net.h"
#include "virtio/pci.h"
#include "virtio/rng.h"
#include "virtio_driver.h"

enum { ECAM = 0x3f000000, MMIO = 0x10000000, PIO = 0x3eff0000, BOARD = 0x09000000, MSI = 0x08020040 };
#define MMIO64 UINT64_C(0x8000000000)

static GMutex lock;
static struct mem *mem;
static struct device *host;
static bool pin[PCI_PINS];
static unsigned messages, last_message;

static uint64_t board_read(void *opaque, uint64_t off, unsigned size)
{
    (void)opaque;
    (void)off;
    (void)size;
    return 0x55;
}

static const struct mem_ops board_ops = {board_read, NULL, 1, 8, false};
static struct mem_region board;

static void see_pin(void *opaque, unsigned n, bool level)
{
    (void)opaque;
    pin[n] = level;
}

static void see_message(void *opaque, uint64_t pa, uint32_t data, uint16_t requester)
{
    (void)opaque;
    assert_int_equal(pa, MSI);
    assert_int_equal(requester, 8);
    messages++;
    last_message = data;
}

static int set_up(void **state)
{
    struct pci_host_config c = {.ecam = {ECAM, 0x1000000}, .pio = {PIO, 0x10000}, .mmio = {MMIO, 0x2eff0000},
                                .mmio64 = {MMIO64, MMIO64}, .message = see_message};
    const struct virtio_pci_options o = {.modern = true, .legacy = true, .slot = -1, .vectors = -1, .rom = true};

    (void)state;
    g_mutex_init(&lock);
    mem = mem_new(RAM_BASE, RAM_SIZE);
    board = (struct mem_region){"board", BOARD, 0x1000, &board_ops, NULL, NULL, true};
    mem_add_region(mem, &board);
    for (unsigned i = 0; i < PCI_PINS; i++)
        c.pin[i] = (struct irq_line){see_pin, NULL, i};
    host = pci_host_new(&lock, mem, &c);
    assert_int_equal(virtio_pci_plug(host, virtio_rng_new(&lock, mem, NULL), &o), 1);
    pci_host_seal(host);
    dev_reset(host);
    memset(pin, 0, sizeof(pin));
    messages = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    dev_free(host);
    mem_free(mem);
    g_mutex_clear(&lock);
    return 0;
}

static uint64_t rd(uint64_t pa, unsigned size)
{
    uint64_t v;

    assert_true(mem_io_read(mem, pa, size, &v));
    return v;
}

static void wr(uint64_t pa, unsigned size, uint64_t v)
{
    assert_true(mem_io_write(mem, pa, size, v));
}

static uint64_t cfg(unsigned slot, unsigned off)
{
    return ECAM + (slot << 15) + off;
}

/* Where the first capability of this id (and, for a vendor's, of this type) is; 0: nowhere. */
static unsigned find_cap(unsigned id, unsigned type)
{
    unsigned at = (unsigned)rd(cfg(1, 0x34), 1);

    for (unsigned left = 48; at && left; left--, at = (unsigned)rd(cfg(1, at + 1), 1))
        if (rd(cfg(1, at), 1) == id && (!type || rd(cfg(1, at + 3), 1) == type))
            return at;
    return 0;
}

/* BAR 4 at the bottom of the 64-bit window, BAR 1 and 0 of theirs, all on. */
static void map_all(void)
{
    wr(cfg(1, 0x20), 4, 0);
    wr(cfg(1, 0x24), 4, MMIO64 >> 32);
    wr(cfg(1, 0x14), 4, MMIO);
    wr(cfg(1, 0x10), 4, 0x1000);
    wr(cfg(1, 0x04), 2, 7);
}

static void test_config_space(void **state)
{
    (void)state;
    assert_int_equal(rd(cfg(0, 0), 4), 0x00081b36);
    assert_int_equal(rd(cfg(0, 0x08), 4), 0x06000000);
    assert_int_equal(rd(cfg(1, 0), 4), 0x10051af4);
    assert_int_equal(rd(cfg(1, 2), 1), 0x05);
    assert_int_equal(rd(cfg(2, 0), 4), 0xffffffff);
    assert_int_equal(rd(cfg(1, 0) + 0x1000, 4), 0xffffffff); /* another function */
    assert_int_equal(rd(cfg(0, 0) + 0x100000, 4), 0xffffffff); /* another bus */
    assert_int_equal(rd(cfg(1, 0x100), 4), 0);
    wr(cfg(2, 4), 4, 7);
    wr(cfg(1, 0), 4, 0);
    assert_int_equal(rd(cfg(1, 0), 4), 0x10051af4);
    wr(cfg(1, 0x3c), 2, 0xff21);
    assert_int_equal(rd(cfg(1, 0x3c), 2), 0x0121);
}

static void test_bar_sizes(void **state)
{
    static const struct { unsigned off; uint32_t size; } bars[] = {
        {0x10, 0xffffffe1}, {0x14, 0xfffff000}, {0x18, 0}, {0x1c, 0}, {0x20, 0xffffc00c}, {0x24, 0xffffffff},
        {0x30, 0xfff80001}};

    (void)state;
    for (unsigned i = 0; i < sizeof(bars) / sizeof(bars[0]); i++) {
        wr(cfg(1, bars[i].off), 4, 0xffffffff);
        assert_int_equal(rd(cfg(1, bars[i].off), 4), bars[i].size);
    }
    wr(cfg(1, 4), 2, 7); /* all of them now at the top: decoded nowhere, and nothing breaks */
    assert_int_equal(rd(MMIO, 4), 0xffffffff);
    dev_reset(host);
    assert_int_equal(rd(cfg(1, 0x14), 4), 0);
}

static void test_bars_are_decoded(void **state)
{
    (void)state;
    assert_int_equal(rd(MMIO64 + 0x12, 2), 0xffff);
    map_all();
    assert_int_equal(rd(MMIO64 + 0x12, 2), 1); /* num_queues */
    assert_int_equal(rd(MMIO + 12, 4), 1);     /* a masked message */
    assert_int_equal(rd(PIO + 0x100c, 2), 8);  /* legacy queue size */
    wr(cfg(1, 0x24), 4, (MMIO64 >> 32) + 1);
    assert_int_equal(rd(MMIO64 + 0x12, 2), 0xffff);
    assert_int_equal(rd(MMIO64 + 0x100000012, 2), 1);
    wr(cfg(1, 4), 2, 5); /* memory off, I/O on */
    assert_int_equal(rd(MMIO64 + 0x100000012, 2), 0xffff);
    assert_int_equal(rd(PIO + 0x100c, 2), 8);
}

static void test_bars_outside_windows(void **state)
{
    static const uint32_t places[] = {BOARD, 0, ECAM, RAM_BASE, 0x3efef000 + 0x1000, 0xfffff000};
    uint64_t v;

    (void)state;
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        wr(cfg(1, 0x14), 4, places[i]);
        wr(cfg(1, 4), 2, 7);
        assert_int_equal(rd(BOARD, 4), 0x55); /* the board's device answers still */
        assert_int_equal(rd(cfg(0, 0), 4), 0x00081b36);
        assert_false(mem_io_read(mem, 0xfffff000, 4, &v));
    }
    wr(cfg(1, 0x14), 4, 0x3efef000 - 0x1000);
    assert_int_equal(rd(0x3efee000 + 12, 4), 1);
}

/* --- virtio-pci ------------------------------------------------------------------------------------------- */

static struct ring ring;

static void start_modern(uint16_t vector)
{
    uint64_t base = MMIO64;

    ring = (struct ring){0, 8, RAM_BASE, RAM_BASE + 0x1000, RAM_BASE + 0x2000, 0, 0};
    memset(mem_span(mem, RAM_BASE, 0x3000).hva, 0, 0x3000);
    wr(base + 20, 1, 0);
    wr(base + 20, 1, 3);
    wr(base + 8, 4, 1);
    wr(base + 12, 4, 1); /* VERSION_1 */
    wr(base + 20, 1, 11);
    assert_int_equal(rd(base + 20, 1), 11);
    wr(base + 22, 2, 0);
    wr(base + 24, 2, 8);
    wr(base + 26, 2, vector);
    wr(base + 32, 8, ring.desc);
    wr(base + 40, 8, ring.avail);
    wr(base + 48, 8, ring.used);
    wr(base + 28, 2, 1);
    wr(base + 20, 1, 15);
}

/* One request for 16 random bytes. */
static void ask(void)
{
    struct driver d = {.mem = mem};

    set_desc(&d, ring.desc, 0, DATA_BASE, 16, D_WRITE, 0);
    make_available(&d, &ring, 0);
    wr(MMIO64 + 0x3000, 2, 0);
    assert_int_equal(get16(&d, ring.used + 2), ++ring.used_idx);
}

static void test_intx(void **state)
{
    (void)state;
    map_all();
    start_modern(0xffff);
    ask();
    assert_true(pin[1]); /* slot 1, INTA */
    assert_int_equal(rd(cfg(1, 6), 2) & 8, 8);
    wr(cfg(1, 4), 2, 0x407);
    assert_false(pin[1]);
    wr(cfg(1, 4), 2, 7);
    assert_true(pin[1]);
    assert_int_equal(rd(MMIO64 + 0x1000, 1), 1);
    assert_false(pin[1]);
    assert_int_equal(rd(MMIO64 + 0x1000, 1), 0);
    assert_int_equal(messages, 0);
}

static void test_msix(void **state)
{
    unsigned cap;

    (void)state;
    map_all();
    cap = find_cap(0x11, 0);
    assert_true(cap);
    assert_int_equal(rd(cfg(1, cap + 2), 2), 1); /* two messages */
    wr(MMIO + 16, 4, MSI);
    wr(MMIO + 24, 4, 77);
    wr(cfg(1, cap + 2), 2, 0x8000);
    start_modern(1);
    assert_int_equal(rd(MMIO64 + 26, 2), 1);
    ask();
    assert_int_equal(messages, 0); /* masked after reset */
    assert_int_equal(rd(MMIO + 0x800, 4), 2);
    wr(MMIO + 28, 4, 0);
    assert_int_equal(messages, 1);
    assert_int_equal(last_message, 77);
    assert_int_equal(rd(MMIO + 0x800, 4), 0);
    wr(cfg(1, cap + 2), 2, 0xc000); /* function mask */
    ask();
    assert_int_equal(messages, 1);
    wr(cfg(1, cap + 2), 2, 0x8000);
    assert_int_equal(messages, 2);
    assert_false(pin[1]);
    wr(MMIO64 + 26, 2, 2); /* no such vector */
    assert_int_equal(rd(MMIO64 + 26, 2), 0xffff);
}

static void test_config_window(void **state)
{
    unsigned cap;

    (void)state;
    cap = find_cap(0x09, 5);
    assert_true(cap && find_cap(0x09, 1) && find_cap(0x09, 2) && find_cap(0x09, 3) && find_cap(0x09, 4));
    wr(cfg(1, cap + 4), 1, 4);
    wr(cfg(1, cap + 8), 4, 0x12);
    wr(cfg(1, cap + 12), 4, 2);
    assert_int_equal(rd(cfg(1, cap + 16), 2), 1);
    wr(cfg(1, cap + 8), 4, 20);
    wr(cfg(1, cap + 12), 4, 1);
    wr(cfg(1, cap + 16), 1, 3);
    assert_int_equal(rd(cfg(1, cap + 16), 1), 3);
    wr(cfg(1, cap + 8), 4, 0xfffffffc); /* outside: nothing */
    wr(cfg(1, cap + 12), 4, 4);
    wr(cfg(1, cap + 16), 4, 0);
    wr(cfg(1, cap + 4), 1, 7);
    wr(cfg(1, cap + 16), 4, 0);
    map_all();
    assert_int_equal(rd(MMIO64 + 20, 1), 3);
}

static void test_legacy(void **state)
{
    struct driver d = {.mem = mem};

    (void)state;
    map_all();
    ring = (struct ring){0, 8, RAM_BASE, RAM_BASE + 128, RAM_BASE + 0x1000, 0, 0};
    memset(mem_span(mem, RAM_BASE, 0x3000).hva, 0, 0x3000);
    wr(PIO + 0x1012, 1, 3);
    wr(PIO + 0x1004, 4, 0);
    wr(PIO + 0x1008, 4, RAM_BASE >> 12);
    assert_int_equal(rd(PIO + 0x1008, 4), RAM_BASE >> 12);
    wr(PIO + 0x1012, 1, 7);
    set_desc(&d, ring.desc, 0, DATA_BASE, 16, D_WRITE, 0);
    make_available(&d, &ring, 0);
    wr(PIO + 0x1010, 2, 0);
    assert_int_equal(get16(&d, ring.used + 2), 1);
    assert_true(pin[1]);
    assert_int_equal(rd(PIO + 0x1013, 1), 1);
    assert_false(pin[1]);
}

static void test_random_traffic(void **state)
{
    uint64_t x = 88172645463325252u;

    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        static const uint64_t bases[] = {ECAM, ECAM + 0x8000, MMIO, PIO + 0x1000, MMIO64, ECAM + 0x8000};
        uint64_t pa, v;
        unsigned size = 1u << (x >> 60 & 1 ? x >> 61 & 1 : 2);

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        pa = bases[x % 6] + ((x >> 8 & 0x3fff) >> (x >> 30 & 7)) / size * size;
        v = x >> 50 & 1 ? x >> 20 : x >> 20 & 15;
        if (x >> 40 & 1)
            mem_io_write(mem, pa, size, v & bits_mask(8 * size));
        else
            mem_io_read(mem, pa, size, &v);
        if (i % 500 == 0)
            map_all();
    }
    dev_reset(host);
    map_all();
    start_modern(0xffff);
    ask();
}

static void test_slots(void **state)
{
    struct virtio_pci_options o = {.modern = true, .slot = 1};
    struct virtio_device *vdev = virtio_rng_new(&lock, mem, NULL);

    (void)state;
    assert_int_equal(virtio_pci_plug(host, vdev, &o), -EBUSY);
    o.slot = 32;
    assert_int_equal(virtio_pci_plug(host, vdev, &o), -EINVAL);
    virtio_free(vdev);
}

/* --- the network card ------------------------------------------------------------------------------------- */

static struct driver drv;
static struct nic *card;
static unsigned kicks;

static void port_attach(struct net_port *port, struct nic *nic)
{
    (void)port;
    card = nic;
}

static void port_detach(struct net_port *port)
{
    (void)port;
    card = NULL;
}

static void port_kick(struct net_port *port)
{
    (void)port;
    kicks++;
}

static const struct net_port_ops port_ops = {port_attach, port_detach, port_kick};
static struct net_port port = {&port_ops};

static int set_up_net(void **state)
{
    (void)state;
    drv_init(&drv, false);
    drv_plug(&drv, virtio_net_new(&drv.lock, drv.mem,
                                  &(struct virtio_net_options){{0x52, 0x54, 0, 0x12, 0x34, 0x56}, &port}));
    kicks = 0;
    return 0;
}

static int tear_down_net(void **state)
{
    (void)state;
    drv_free(&drv);
    assert_null(card);
    return 0;
}

static struct ring rx, tx;

static void start_net(uint64_t features)
{
    assert_int_equal(drv_negotiate(&drv, features | BIT(VIRTIO_F_VERSION_1)) & 8, 8);
    rx = drv_queue(&drv, 0, 16);
    tx = drv_queue(&drv, 1, 16);
    drv_ok(&drv);
}

static void test_net_transmit(void **state)
{
    uint8_t data[12 + 34 + 8] = {1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0}; /* NEEDS_CSUM from 34, at 34 + 6 */
    struct nic_frame f;
    uint32_t head;

    (void)state;
    start_net(BIT(0));
    data[12 + 34] = 0x12;
    data[12 + 35] = 0x34;
    put(&drv, DATA_BASE, data, sizeof(data));
    set_desc(&drv, tx.desc, 0, DATA_BASE, 12, D_NEXT, 1);
    set_desc(&drv, tx.desc, 1, DATA_BASE + 12, sizeof(data) - 12, 0, 0);
    make_available(&drv, &tx, 0);
    set_desc(&drv, tx.desc, 2, DATA_BASE, 5, 0, 0); /* too short even for a header */
    make_available(&drv, &tx, 2);
    kick(&drv, &tx);
    assert_int_equal(kicks, 1);
    card->ops->begin(card);
    assert_true(card->ops->transmit(card, &f));
    assert_int_equal(f.len, 42);
    assert_int_equal(f.sum_start, 34);
    assert_true(nic_finish_sum(&f));
    assert_int_equal(f.sum_start, 0);
    assert_int_equal(f.data[40], 0xed);
    assert_int_equal(f.data[41], 0xcb);
    assert_false(card->ops->transmit(card, &f));
    assert_true(nothing_used(&drv, &tx));
    assert_false(card->ops->end(card));
    assert_int_equal(next_used(&drv, &tx, &head), 0);
    assert_int_equal(next_used(&drv, &tx, &head), 0);
    assert_true(drv.irq);
}

static void give_rx(unsigned count, unsigned size)
{
    for (unsigned i = 0; i < count; i++) {
        set_desc(&drv, rx.desc, i, DATA_BASE + i * 0x1000, size, D_WRITE, 0);
        make_available(&drv, &rx, i);
    }
}

static void test_net_receive_merged(void **state)
{
    uint8_t data[1000];
    uint32_t head;

    (void)state;
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)i;
    start_net(BIT(15) | BIT(1));
    card->ops->begin(card);
    card->ops->receive(card, &(struct nic_frame){data, 1000, 0}); /* waits for buffers */
    card->ops->end(card);
    give_rx(3, 512);
    card->ops->begin(card);
    card->ops->end(card);
    assert_int_equal(next_used(&drv, &rx, &head), 512);
    assert_int_equal(next_used(&drv, &rx, &head), 500);
    assert_true(nothing_used(&drv, &rx));
    assert_int_equal(get8(&drv, DATA_BASE), 2); /* DATA_VALID */
    assert_int_equal(get16(&drv, DATA_BASE + 10), 2);
    assert_memory_equal(mem_span(drv.mem, DATA_BASE + 12, 500).hva, data, 500);
    assert_memory_equal(mem_span(drv.mem, DATA_BASE + 0x1000, 500).hva, data + 500, 500);
}

static void test_net_reset_in_burst(void **state)
{
    struct nic_frame f;

    (void)state;
    start_net(0);
    give_rx(4, 2048);
    set_desc(&drv, tx.desc, 0, DATA_BASE, 100, 0, 0);
    make_available(&drv, &tx, 0);
    card->ops->begin(card);
    card->ops->transmit(card, &f);
    card->ops->end(card);
    drv_write(&drv, 0x070, 0);
    card->ops->begin(card);
    assert_false(card->ops->transmit(card, &f));
    card->ops->end(card);
    start_net(0);
    give_rx(1, 100);
    card->ops->begin(card);
    card->ops->receive(card, &(struct nic_frame){(uint8_t[200]){0}, 200, 0}); /* fits nowhere */
    card->ops->end(card);
    assert_true(nothing_used(&drv, &rx));
}

/* --- cutting packets -------------------------------------------------------------------------------------- */

struct pieces {
    unsigned count;
    size_t bytes, head;
    uint8_t all[70000];
};

static uint16_t sum16(const uint8_t *p, size_t len, uint32_t s)
{
    for (size_t i = 0; i < len; i++)
        s += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint16_t)s;
}

static void take_piece(void *opaque, uint8_t *data, size_t len)
{
    struct pieces *p = opaque;
    size_t ip_len = (size_t)data[16] << 8 | data[17];

    assert_true(len <= NIC_MTU + NIC_ETHERNET_HEADER);
    assert_int_equal(ip_len, len - 14);
    assert_int_equal(sum16(data + 14, 20, 0), 0xffff);
    if (data[23] == 6)
        assert_int_equal(sum16(data + 34, len - 34, sum16(data + 26, 8, 6 + (uint32_t)(len - 34))), 0xffff);
    memcpy(p->all + p->bytes, data + p->head, len - p->head);
    p->bytes += len - p->head;
    p->count++;
}

static void test_cut(void **state)
{
    static uint8_t frame[14 + 30000];
    static struct pieces p;
    static const uint8_t head[40] = {0x45, 0, 30000 >> 8, 30000 & 255, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 2, 10, 0, 2, 15};

    (void)state;
    for (unsigned i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7 + i / 256);
    frame[12] = 8;
    frame[13] = 0;
    memcpy(frame + 14, head, 40);
    frame[46] = 0x50;
    assert_int_equal(packet_segment(frame, sizeof(frame)), 1460);
    p = (struct pieces){.head = 54};
    assert_true(packet_split(frame, sizeof(frame), take_piece, &p));
    assert_int_equal(p.count, (30000 - 40 + 1459) / 1460);
    assert_int_equal(p.bytes, 30000 - 40);
    assert_memory_equal(p.all, frame + 54, p.bytes);
    frame[23] = 17;
    p = (struct pieces){.head = 34};
    assert_int_equal(packet_segment(frame, sizeof(frame)), 0);
    assert_false(packet_split(frame, sizeof(frame), take_piece, &p));
    assert_true(packet_fragment(frame, sizeof(frame), take_piece, &p));
    assert_int_equal(p.bytes, 30000 - 20);
    assert_memory_equal(p.all, frame + 34, p.bytes);
    for (size_t len = 0; len < 60; len++) { /* short and malformed */
        packet_segment(frame, len);
        assert_false(packet_fragment(frame, len, take_piece, &p));
    }
}

#define PCI(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define NET(f) cmocka_unit_test_setup_teardown(f, set_up_net, tear_down_net)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PCI(test_config_space), PCI(test_bar_sizes), PCI(test_bars_are_decoded), PCI(test_bars_outside_windows),
        PCI(test_intx), PCI(test_msix), PCI(test_config_window), PCI(test_legacy), PCI(test_random_traffic),
        PCI(test_slots), NET(test_net_transmit), NET(test_net_receive_merged), NET(test_net_reset_in_burst),
        cmocka_unit_test(test_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
