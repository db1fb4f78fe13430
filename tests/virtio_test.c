/*
 * virtio: the MMIO transport in both versions, queues with honest and hostile drivers, block, entropy,
 * console.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "fake_chardev.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/iov.h"
#include "virtio/rng.h"
#include "virtio_driver.h"

enum { NEEDS_RESET = 64 };
#define VERSION_1 BIT(VIRTIO_F_VERSION_1)
#define INDIRECT  BIT(VIRTIO_F_INDIRECT_DESC)
#define EVENT_IDX BIT(VIRTIO_F_EVENT_IDX)

static struct driver drv;

/* --- iov ------------------------------------------------------------------------------------------------ */

static void test_iov(void **state)
{
    char a[3] = "abc", b[1], c[4] = "defg", buf[16] = "";
    struct iovec iov[3] = {{a, 3}, {b, 0}, {c, 4}}, out[3];

    assert_int_equal(iov_size(iov, 3), 7);
    assert_int_equal(iov_read(iov, 3, 2, buf, 3), 3);
    assert_memory_equal(buf, "cde", 3);
    assert_int_equal(iov_read(iov, 3, 6, buf, 9), 1);
    assert_int_equal(iov_read(iov, 3, 7, buf, 1), 0);
    assert_int_equal(iov_write(iov, 3, 1, "XYZ", 3), 3);
    assert_memory_equal(a, "aXY", 3);
    assert_memory_equal(c, "Zefg", 4);
    assert_int_equal(iov_zero(iov, 3, 5, 100), 2);
    assert_memory_equal(c, "Ze\0\0", 4);
    assert_int_equal(iov_slice(iov, 3, 2, 2, out), 2);
    assert_ptr_equal(out[0].iov_base, a + 2);
    assert_int_equal(out[0].iov_len, 1);
    assert_int_equal(out[1].iov_len, 1);
    assert_int_equal(iov_slice(iov, 3, 3, 0, out), 0);
}

/* --- transport ------------------------------------------------------------------------------------------ */

static void start_rng(bool legacy)
{
    drv_init(&drv, legacy);
    drv_plug(&drv, virtio_rng_new(&drv.lock, drv.mem, NULL));
}

static int setup_modern(void **state)
{
    start_rng(false);
    return 0;
}

static int setup_legacy(void **state)
{
    start_rng(true);
    return 0;
}

static int teardown(void **state)
{
    drv_free(&drv);
    return 0;
}

static void test_empty_frame(void **state)
{
    struct driver d;

    drv_init(&d, false);
    assert_int_equal(drv_read(&d, 0x000), 0x74726976);
    assert_int_equal(drv_read(&d, 0x008), 0);
    drv_write(&d, 0x070, 1);
    assert_int_equal(drv_read(&d, 0x070), 0);
    drv_free(&d);
}

static void test_features(void **state)
{
    assert_int_equal(drv_read(&drv, 0x004), 2);
    assert_int_equal(drv_read(&drv, 0x008), 4);
    drv_write(&drv, 0x014, 1);
    assert_int_equal(drv_read(&drv, 0x010), 1);
    drv_write(&drv, 0x014, 2);
    assert_int_equal(drv_read(&drv, 0x010), 0);
    assert_int_equal(drv_negotiate(&drv, 0), 3);                     /* not without VERSION_1 */
    assert_int_equal(drv_negotiate(&drv, VERSION_1 | BIT(5)), 3);    /* not what was not offered */
    assert_int_equal(drv_negotiate(&drv, VERSION_1 | INDIRECT), 11);
    drv_write(&drv, 0x024, 0);
    drv_write(&drv, 0x020, 0xffffffff); /* too late */
    assert_int_equal(drv.vdev->features, VERSION_1 | INDIRECT);
    drv_write(&drv, 0x070, 0);
    assert_int_equal(drv.vdev->features, 0);
}

static uint32_t ask(struct ring *r, unsigned head, uint32_t len)
{
    uint32_t id = 99, got;

    set_desc(&drv, r->desc, head, DATA_BASE, len, D_WRITE, 0);
    make_available(&drv, r, head);
    kick(&drv, r);
    got = next_used(&drv, r, &id);
    assert_int_equal(id, head);
    return got;
}

static void test_modern_queue(void **state)
{
    struct ring r;

    drv_negotiate(&drv, VERSION_1);
    assert_int_equal(drv_read(&drv, 0x034), 8);
    drv_write(&drv, 0x038, 3);    /* no power of two */
    drv_write(&drv, 0x038, 4096); /* too many */
    assert_int_equal(drv.vdev->queues[0].num, 8);
    r = drv_queue(&drv, 0, 8);
    assert_int_equal(drv_read(&drv, 0x044), 1);
    set_desc(&drv, r.desc, 0, DATA_BASE, 16, D_WRITE, 0);
    make_available(&drv, &r, 0);
    kick(&drv, &r);
    assert_true(nothing_used(&drv, &r)); /* not before DRIVER_OK */
    drv_ok(&drv);
    r.avail_idx = 0;
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(ask(&r, i % 8, 32), 32);
    assert_true(drv.irq);
    assert_int_equal(drv_read(&drv, 0x060), 1);
    drv_write(&drv, 0x064, 1);
    assert_false(drv.irq);
    drv_write(&drv, 0x080, 0); /* not while ready */
    assert_int_equal(ask(&r, 0, 8), 8);
    drv_write(&drv, 0x044, 0);
    assert_int_equal(drv_read(&drv, 0x044), 0);
    kick(&drv, &r);
    drv_write(&drv, 0x070, 0);
    assert_false(drv.irq);
    drv_write(&drv, 0x050, 77); /* no such queue */
}

static void test_legacy_queue(void **state)
{
    struct ring r;

    assert_int_equal(drv_read(&drv, 0x004), 1);
    drv_negotiate(&drv, 0xffffffff);
    assert_int_equal(drv.vdev->features & ~drv.vdev->host_features, 0);
    drv_negotiate(&drv, 0);
    r = drv_queue(&drv, 0, 8);
    assert_int_equal(drv_read(&drv, 0x040), r.desc / 4096);
    drv_ok(&drv);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(ask(&r, i % 8, 100), 100);
    drv_write(&drv, 0x040, 0);
    assert_int_equal(drv_read(&drv, 0x040), 0);
}

static void test_interrupt_suppression(void **state)
{
    struct ring r;

    drv_negotiate(&drv, VERSION_1);
    r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    put16(&drv, r.avail, 1); /* VIRTQ_AVAIL_F_NO_INTERRUPT */
    ask(&r, 0, 8);
    assert_false(drv.irq);
    put16(&drv, r.avail, 0);
    ask(&r, 0, 8);
    assert_true(drv.irq);
}

static void test_event_idx(void **state)
{
    struct ring r;

    drv_negotiate(&drv, VERSION_1 | EVENT_IDX);
    r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    put16(&drv, r.avail + 4 + 16, 2); /* used_event: when the third is used */
    ask(&r, 0, 8);
    assert_int_equal(get16(&drv, r.used + 4 + 64), 1); /* avail_event */
    drv_write(&drv, 0x064, 1);                         /* the first always interrupts */
    ask(&r, 1, 8);
    assert_false(drv.irq);
    ask(&r, 2, 8);
    assert_true(drv.irq);
    drv_write(&drv, 0x064, 1);
    ask(&r, 3, 8);
    assert_false(drv.irq);
}

static void test_indirect(void **state)
{
    uint64_t table = DATA_BASE + 0x1000;
    struct ring r;
    uint32_t id;

    drv_negotiate(&drv, VERSION_1 | INDIRECT);
    r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    for (unsigned i = 0; i < 100; i++) /* longer than the queue */
        set_desc(&drv, table, i, DATA_BASE, 4, D_WRITE | (i < 99 ? D_NEXT : 0), i + 1);
    set_desc(&drv, r.desc, 5, DATA_BASE, 10, D_NEXT | D_WRITE, 6); /* a plain one before (2.7.5.3.2) */
    set_desc(&drv, r.desc, 6, table, 1600, D_INDIRECT, 0);
    make_available(&drv, &r, 5);
    kick(&drv, &r);
    assert_int_equal(next_used(&drv, &r, &id), 410);
    assert_int_equal(id, 5);
}

/* --- hostile drivers ------------------------------------------------------------------------------------ */

/* What was made available breaks the device; a reset makes it whole. */
static void expect_broken(struct ring *r)
{
    kick(&drv, r);
    assert_int_equal(drv_read(&drv, 0x070) & NEEDS_RESET, NEEDS_RESET);
    assert_true(nothing_used(&drv, r));
    assert_int_equal(drv_read(&drv, 0x060) & 2, 2); /* told by a configuration interrupt */
    kick(&drv, r);
    drv_negotiate(&drv, VERSION_1 | INDIRECT);
    *r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    assert_int_equal(ask(r, 0, 8), 8);
    *r = (struct ring){0};
    drv_negotiate(&drv, VERSION_1 | INDIRECT);
    *r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
}

static void test_hostile_chains(void **state)
{
    uint64_t table = DATA_BASE + 0x1000;
    struct ring r;

    drv_negotiate(&drv, VERSION_1 | INDIRECT);
    r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);

    make_available(&drv, &r, 8); /* head beyond the table */
    expect_broken(&r);
    make_available(&drv, &r, 0xffff);
    expect_broken(&r);

    set_desc(&drv, r.desc, 0, DATA_BASE, 4, D_WRITE | D_NEXT, 1); /* a loop */
    set_desc(&drv, r.desc, 1, DATA_BASE, 4, D_WRITE | D_NEXT, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, r.desc, 0, DATA_BASE, 0, D_WRITE | D_NEXT, 0); /* of empty buffers */
    make_available(&drv, &r, 0);
    expect_broken(&r);

    set_desc(&drv, r.desc, 0, DATA_BASE, 4, D_WRITE | D_NEXT, 8);
    make_available(&drv, &r, 0);
    expect_broken(&r);

    set_desc(&drv, r.desc, 0, RAM_BASE + RAM_SIZE - 4, 5, D_WRITE, 0); /* one byte too far */
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, r.desc, 0, 0x1000, 4, D_WRITE, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, r.desc, 0, UINT64_MAX - 1, 4, D_WRITE, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, r.desc, 0, DATA_BASE, 0xffffffff, D_WRITE, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);

    set_desc(&drv, r.desc, 0, DATA_BASE, 4, D_WRITE | D_NEXT, 1); /* readable after writable */
    set_desc(&drv, r.desc, 1, DATA_BASE, 4, 0, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);

    set_desc(&drv, r.desc, 0, table, 0, D_INDIRECT, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, r.desc, 0, table, 17, D_INDIRECT, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, r.desc, 0, table, 1025 * 16, D_INDIRECT, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, r.desc, 0, RAM_BASE - 16, 16, D_INDIRECT, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, r.desc, 0, table, 16, D_INDIRECT | D_NEXT, 1);
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, table, 0, table, 16, D_INDIRECT, 0); /* in itself */
    set_desc(&drv, r.desc, 0, table, 16, D_INDIRECT, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, r.desc, 0, r.desc, 16, D_INDIRECT, 0); /* the queue's own table as an indirect one */
    make_available(&drv, &r, 0);
    expect_broken(&r);
    set_desc(&drv, table, 0, DATA_BASE, 4, D_WRITE | D_NEXT, 1);
    set_desc(&drv, r.desc, 0, table, 16, D_INDIRECT, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);

    r.avail_idx = 100; /* an index that ran away */
    make_available(&drv, &r, 0);
    expect_broken(&r);
}

static void test_indirect_not_negotiated(void **state)
{
    struct ring r;

    drv_negotiate(&drv, VERSION_1);
    r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    set_desc(&drv, r.desc, 0, DATA_BASE, 16, D_INDIRECT, 0);
    make_available(&drv, &r, 0);
    expect_broken(&r);
}

static void test_hostile_rings(void **state)
{
    static const uint64_t bad[] = {0, RAM_BASE + RAM_SIZE - 64, UINT64_MAX - 15, RAM_BASE + 1, 0x09000000};

    for (unsigned which = 0; which < 3; which++) {
        for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            drv_negotiate(&drv, VERSION_1);
            drv_queue(&drv, 0, 8);
            drv_ok(&drv);
            drv_write(&drv, 0x044, 0);
            drv_write(&drv, 0x080 + 0x10 * which, (uint32_t)(bad[i]));
            drv_write(&drv, 0x084 + 0x10 * which, (uint32_t)(bad[i] >> 32));
            drv_write(&drv, 0x044, 1);
            if (which && bad[i] == RAM_BASE + RAM_SIZE - 64 && which == 1)
                continue; /* 22 bytes fit there */
            assert_int_equal(drv_read(&drv, 0x044), 0);
            assert_int_equal(drv_read(&drv, 0x070) & NEEDS_RESET, NEEDS_RESET);
            drv_write(&drv, 0x050, 0);
        }
    }
}

/* The used ring over the available ring: each answer makes the next request.  The thread must come back. */
static void test_overlapping_rings(void **state)
{
    drv_negotiate(&drv, VERSION_1);
    drv_write(&drv, 0x030, 0);
    drv_write(&drv, 0x038, 8);
    drv_write(&drv, 0x080, DATA_BASE);
    drv_write(&drv, 0x090, DATA_BASE + 0x1000);
    drv_write(&drv, 0x0a0, DATA_BASE + 0x1000);
    drv_write(&drv, 0x044, 1);
    drv_ok(&drv);
    set_desc(&drv, DATA_BASE, 0, DATA_BASE + 0x2000, 4, D_WRITE, 0);
    put16(&drv, DATA_BASE + 0x1002, 8);
    for (unsigned i = 0; i < 20; i++) {
        drv_write(&drv, 0x050, 0);
        g_main_context_iteration(NULL, FALSE);
    }
    drv_write(&drv, 0x070, 0);
    assert_int_equal(drv_read(&drv, 0x070), 0);
}

/* A long queue of work is done in pieces, and all of it. */
static void test_budget(void **state)
{
    struct ring r;
    unsigned n = 0;

    drv_negotiate(&drv, VERSION_1);
    r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    drv.vdev->queues[0].budget = 0;
    for (; n < 5; n++) {
        set_desc(&drv, r.desc, n, DATA_BASE, 4, D_WRITE, 0);
        make_available(&drv, &r, n);
    }
    g_mutex_lock(&drv.lock);
    assert_null(virtq_pop(&drv.vdev->queues[0]));
    g_mutex_unlock(&drv.lock);
    assert_true(nothing_used(&drv, &r));
    g_main_context_iteration(NULL, TRUE);
    assert_int_equal(get16(&drv, r.used + 2), 5);
}

static void test_legacy_hostile(void **state)
{
    struct ring r;

    drv_negotiate(&drv, 0);
    drv_write(&drv, 0x040, 0xffffffff);
    assert_int_equal(drv_read(&drv, 0x040), 0);
    drv_negotiate(&drv, 0);
    r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    make_available(&drv, &r, 9);
    kick(&drv, &r);
    assert_true(nothing_used(&drv, &r));
    drv_negotiate(&drv, 0);
    r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    assert_int_equal(ask(&r, 0, 8), 8);
}

/* --- block ---------------------------------------------------------------------------------------------- */

enum { B_IN = 0, B_OUT = 1, B_FLUSH = 4, B_ID = 8, B_DISCARD = 11, B_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, NO_STATUS = 0xee };
enum { IMAGE_SIZE = 65536 };

static char image[64];
static struct ring bq;

static void make_image(void)
{
    uint8_t sector[512];
    int fd;

    strcpy(image, "/tmp/armlet-blk-XXXXXX");
    fd = mkstemp(image);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < IMAGE_SIZE / 512; i++) {
        memset(sector, (int)i, sizeof(sector));
        assert_int_equal(write(fd, sector, sizeof(sector)), sizeof(sector));
    }
    close(fd);
}

static void start_blk(bool legacy, struct disk_options options, uint64_t features)
{
    struct virtio_blk_options o = {.serial = "armlet-0123456789-too-long"};
    char *why = NULL;

    options.path = image;
    drv_init(&drv, legacy);
    assert_int_equal(disk_open(&o.disk, &options, &why), 0);
    drv_plug(&drv, virtio_blk_new(&drv.lock, drv.mem, &o));
    drv_negotiate(&drv, features | (legacy ? 0 : VERSION_1));
    bq = drv_queue(&drv, 0, 64);
    drv_ok(&drv);
}

static int setup_blk(void **state)
{
    make_image();
    start_blk(false, (struct disk_options){.unmap = true}, BIT(9) | BIT(11) | BIT(13) | BIT(14));
    return 0;
}

static int teardown_blk(void **state)
{
    drv_free(&drv);
    unlink(image);
    return 0;
}

/* Header, data, status: at DATA_BASE, + 0x1000, + 0x800; the next slot 64 KiB further. */
static void request_at(unsigned slot, uint32_t type, uint64_t sector, uint32_t len, bool reads)
{
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {type, 0, sector};
    uint64_t base = DATA_BASE + slot * 0x10000;

    put(&drv, base, &header, sizeof(header));
    *mem_span(drv.mem, base + 0x800, 1).hva = NO_STATUS;
    set_desc(&drv, bq.desc, slot * 3, base, 16, D_NEXT, slot * 3 + 1);
    set_desc(&drv, bq.desc, slot * 3 + 1, base + 0x1000, len, D_NEXT | (reads ? D_WRITE : 0), slot * 3 + 2);
    set_desc(&drv, bq.desc, slot * 3 + 2, base + 0x800, 1, D_WRITE, 0);
    make_available(&drv, &bq, slot * 3);
}

/* Returns the status. */
static unsigned request(uint32_t type, uint64_t sector, uint32_t len, bool reads)
{
    uint32_t id;

    request_at(0, type, sector, len, reads);
    kick(&drv, &bq);
    assert_int_not_equal(next_used(&drv, &bq, &id), UINT32_MAX);
    return get8(&drv, DATA_BASE + 0x800);
}

static uint8_t *data(unsigned slot)
{
    return mem_span(drv.mem, DATA_BASE + slot * 0x10000 + 0x1000, 0x8000).hva;
}

/* Byte of the image file itself. */
static int file_byte(unsigned off)
{
    int fd = open(image, O_RDONLY);
    uint8_t b;
    ssize_t n = pread(fd, &b, 1, off);

    close(fd);
    return n == 1 ? b : -1;
}

static void test_blk_read_write(void **state)
{
    assert_int_equal(drv_read(&drv, 0x100), IMAGE_SIZE / 512);
    assert_int_equal(request(B_IN, 5, 1024, true), OK);
    assert_int_equal(data(0)[0], 5);
    assert_int_equal(data(0)[1023], 6);
    memset(data(0), 0xa5, 512);
    assert_int_equal(request(B_OUT, 127, 512, false), OK);
    assert_int_equal(request(B_FLUSH, 0, 0, false), OK);
    assert_int_equal(file_byte(127 * 512), 0xa5);
    assert_int_equal(file_byte(127 * 512 - 1), 126);
    memset(data(0), 0, 512);
    assert_int_equal(request(B_IN, 127, 512, true), OK);
    assert_int_equal(data(0)[511], 0xa5);
}

static void test_blk_errors(void **state)
{
    assert_int_equal(request(B_IN, 128, 512, true), IOERR);
    assert_int_equal(request(B_IN, 127, 1024, true), IOERR);
    assert_int_equal(request(B_IN, UINT64_MAX, 512, true), IOERR);
    assert_int_equal(request(B_IN, UINT64_MAX / 512 + 1, 512, true), IOERR);
    assert_int_equal(request(B_IN, 0, 100, true), IOERR);
    assert_int_equal(request(B_OUT, 127, 1024, false), IOERR);
    assert_int_equal(request(77, 0, 512, true), UNSUPP);
    assert_int_equal(request(B_IN, 0, 0, true), OK);
}

static void test_blk_id(void **state)
{
    assert_int_equal(request(B_ID, 0, 20, true), OK);
    assert_memory_equal(data(0), "armlet-0123456789-to", 20);
    memset(data(0), 0xff, 20);
    assert_int_equal(request(B_ID, 0, 4, true), OK);
    assert_memory_equal(data(0), "arml\xff", 5);
}

static void set_segment(uint64_t sector, uint32_t n, uint32_t flags)
{
    struct {
        uint64_t sector;
        uint32_t n, flags;
    } s = {sector, n, flags};

    memcpy(data(0), &s, sizeof(s));
}

static void test_blk_discard_zeroes(void **state)
{
    set_segment(8, 8, 0);
    assert_int_equal(request(B_ZEROES, 0, 16, false), OK);
    assert_int_equal(file_byte(8 * 512), 0);
    assert_int_equal(file_byte(16 * 512 - 1), 0);
    assert_int_equal(file_byte(16 * 512), 16);
    set_segment(24, 3, 1);
    assert_int_equal(request(B_ZEROES, 0, 16, false), OK);
    assert_int_equal(file_byte(24 * 512), 0);
    assert_int_equal(file_byte(27 * 512), 27);
    set_segment(24, 3, 2);
    assert_int_equal(request(B_ZEROES, 0, 16, false), UNSUPP);
    set_segment(0, 8, 0);
    assert_int_equal(request(B_DISCARD, 0, 16, false), OK);
    set_segment(0, 8, 1);
    assert_int_equal(request(B_DISCARD, 0, 16, false), UNSUPP);
    set_segment(125, 4, 0);
    assert_int_equal(request(B_DISCARD, 0, 16, false), IOERR);
    set_segment(UINT64_MAX, 0xffffffff, 0);
    assert_int_equal(request(B_ZEROES, 0, 16, false), IOERR);
    assert_int_equal(request(B_ZEROES, 0, 15, false), IOERR);
    assert_int_equal(request(B_ZEROES, 0, 0, false), IOERR);
}

static void test_blk_parallel(void **state)
{
    unsigned seen = 0;

    for (unsigned s = 0; s < 8; s++)
        request_at(s, B_IN, s, 512, true);
    kick(&drv, &bq);
    for (unsigned s = 0; s < 8; s++) {
        uint32_t id = 0;

        assert_int_equal(next_used(&drv, &bq, &id), 513);
        seen |= 1u << (id / 3);
    }
    assert_int_equal(seen, 0xff);
    for (unsigned s = 0; s < 8; s++) {
        assert_int_equal(data(s)[0], s);
        assert_int_equal(get8(&drv, DATA_BASE + s * 0x10000 + 0x800), OK);
    }
}

/* After the reset has been written, the memory is the driver's: nothing may land in it. */
static void test_blk_reset_in_flight(void **state)
{
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned s = 0; s < 8; s++)
            request_at(s, B_IN, s, 512, true);
        kick(&drv, &bq);
        drv_write(&drv, 0x070, 0);
        for (unsigned s = 0; s < 8; s++)
            memset(data(s), 0xee, 512);
        g_usleep(200);
        for (unsigned s = 0; s < 8; s++)
            assert_int_equal(data(s)[0], 0xee);
        drv_negotiate(&drv, VERSION_1);
        bq = drv_queue(&drv, 0, 64);
        drv_ok(&drv);
    }
    assert_int_equal(request(B_IN, 3, 512, true), OK);
}

/* The same head again and again, never waiting: more requests than the ring can hold. */
static void test_blk_flood(void **state)
{
    request_at(0, B_FLUSH, 0, 0, false);
    for (unsigned i = 0; i < 5000; i++) {
        if (i % 64 == 63)
            kick(&drv, &bq);
        make_available(&drv, &bq, 0);
    }
    kick(&drv, &bq);
    drv_write(&drv, 0x070, 0);
    drv_negotiate(&drv, VERSION_1);
    bq = drv_queue(&drv, 0, 64);
    drv_ok(&drv);
    assert_int_equal(request(B_IN, 3, 512, true), OK);
}

static void test_blk_malformed(void **state)
{
    set_desc(&drv, bq.desc, 0, DATA_BASE, 15, D_NEXT, 1); /* the header is a byte short */
    set_desc(&drv, bq.desc, 1, DATA_BASE + 0x800, 1, D_WRITE, 0);
    make_available(&drv, &bq, 0);
    kick(&drv, &bq);
    assert_int_equal(drv_read(&drv, 0x070) & NEEDS_RESET, NEEDS_RESET);
    drv_negotiate(&drv, VERSION_1);
    bq = drv_queue(&drv, 0, 64);
    drv_ok(&drv);
    set_desc(&drv, bq.desc, 0, DATA_BASE, 16, 0, 0); /* nowhere to put the status */
    make_available(&drv, &bq, 0);
    kick(&drv, &bq);
    assert_int_equal(drv_read(&drv, 0x070) & NEEDS_RESET, NEEDS_RESET);
}

static void test_blk_cache_mode(void **state)
{
    drv.frame->regs.ops->write(drv.frame->regs.dev, 0x100 + 32, 0, 1);
    assert_int_equal(drv.frame->regs.ops->read(drv.frame->regs.dev, 0x100 + 32, 1), 0);
    memset(data(0), 0x77, 512);
    assert_int_equal(request(B_OUT, 1, 512, false), OK);
    drv_write(&drv, 0x070, 0);
    assert_int_equal(drv.frame->regs.ops->read(drv.frame->regs.dev, 0x100 + 32, 1), 1);
}

static void test_blk_legacy(void **state)
{
    make_image();
    start_blk(true, (struct disk_options){.cache = DISK_WRITETHROUGH}, BIT(9));
    assert_int_equal(request(B_IN, 9, 512, true), OK);
    assert_int_equal(data(0)[0], 9);
    memset(data(0), 0x11, 512);
    assert_int_equal(request(B_OUT, 9, 512, false), OK);
    assert_int_equal(file_byte(9 * 512), 0x11);
    teardown_blk(state);
}

static void test_blk_readonly(void **state)
{
    make_image();
    start_blk(false, (struct disk_options){.readonly = true}, BIT(5));
    assert_int_equal(drv_read(&drv, 0x070), 15);
    assert_int_equal(request(B_OUT, 0, 512, false), IOERR);
    assert_int_equal(request(B_IN, 1, 512, true), OK);
    teardown_blk(state);
}

static void test_blk_snapshot(void **state)
{
    make_image();
    start_blk(false, (struct disk_options){.snapshot = true}, BIT(9) | BIT(14));
    memset(data(0), 0xc3, 1024);
    assert_int_equal(request(B_OUT, 7, 1024, false), OK); /* across the edge of a cluster */
    set_segment(20, 2, 0);
    assert_int_equal(request(B_ZEROES, 0, 16, false), OK);
    assert_int_equal(request(B_FLUSH, 0, 0, false), OK);
    assert_int_equal(request(B_IN, 0, 0x8000, true), OK);
    for (unsigned s = 0; s < 64; s++) {
        unsigned want = s == 7 || s == 8 ? 0xc3 : s == 20 || s == 21 ? 0 : s;

        assert_int_equal(data(0)[s * 512], want);
        assert_int_equal(data(0)[s * 512 + 511], want);
    }
    assert_int_equal(file_byte(7 * 512), 7);
    assert_int_equal(file_byte(20 * 512), 20);
    teardown_blk(state);
}

/* Random reads and writes through an overlay against an array. */
static void test_snapshot_model(void **state)
{
    struct disk_options o = {.snapshot = true};
    struct disk *d;
    char *why = NULL;
    uint8_t *model = g_malloc(IMAGE_SIZE), *buf = g_malloc(IMAGE_SIZE);
    GRand *rnd = g_rand_new_with_seed(1);

    make_image();
    o.path = image;
    assert_int_equal(disk_open(&d, &o, &why), 0);
    for (unsigned i = 0; i < IMAGE_SIZE; i++)
        model[i] = (uint8_t)(i / 512);
    for (unsigned i = 0; i < 2000; i++) {
        unsigned first = (unsigned)g_rand_int_range(rnd, 0, 128);
        unsigned n = (unsigned)g_rand_int_range(rnd, 1, 129 - (int)first);
        unsigned off = first * 512, len = n * 512, cut = (unsigned)g_rand_int_range(rnd, 0, (int)len);
        struct iovec iov[2] = {{buf, cut}, {buf + cut, len - cut}};

        switch (g_rand_int_range(rnd, 0, 8)) {
        case 0:
            memset(buf, (int)i, len);
            memset(model + off, (int)i, len);
            assert_int_equal(disk_write(d, off, iov, 2), 0);
            break;
        case 1:
            memset(model + off, 0, len);
            assert_int_equal(disk_write_zeroes(d, off, len, i & 1), 0);
            break;
        default:
            assert_int_equal(disk_read(d, off, iov, 2), 0);
            assert_memory_equal(buf, model + off, len);
        }
    }
    disk_close(d);
    g_rand_free(rnd);
    g_free(model);
    g_free(buf);
    unlink(image);
}

static void test_disk_open(void **state)
{
    struct disk_options o = {.path = "/nonexistent/disk"};
    struct disk *a, *b;
    char *why = NULL;

    assert_int_equal(disk_open(&a, &o, &why), -ENOENT);
    assert_non_null(why);
    g_clear_pointer(&why, g_free);
    o.path = "/tmp";
    o.readonly = true;
    assert_int_equal(disk_open(&a, &o, &why), -EISDIR);
    g_clear_pointer(&why, g_free);
    o.path = "/dev/null";
    assert_int_equal(disk_open(&a, &o, &why), -ENOTBLK);
    g_clear_pointer(&why, g_free);

    make_image();
    assert_int_equal(truncate(image, 700), 0);
    o = (struct disk_options){.path = image};
    assert_int_equal(disk_open(&a, &o, &why), 0);
    assert_int_equal(disk_size(a), 1024);
    assert_int_equal(disk_open(&b, &o, &why), -EBUSY); /* two writers */
    g_clear_pointer(&why, g_free);
    uint8_t buf[1024];
    struct iovec iov = {buf, 1024};
    memset(buf, 0xff, sizeof(buf));
    assert_int_equal(disk_read(a, 0, &iov, 1), 0);
    assert_int_equal(buf[512], 1);
    assert_int_equal(buf[700], 0); /* behind the end of the file */
    disk_close(a);
    unlink(image);
}

/* Somebody shortens the image under us: zeros, and a write makes it grow again. */
static void test_disk_truncated(void **state)
{
    struct disk_options o = {.path = image};
    struct disk *d;
    char *why = NULL;
    uint8_t buf[512] = {1};
    struct iovec iov = {buf, 512};

    make_image();
    assert_int_equal(disk_open(&d, &o, &why), 0);
    assert_int_equal(truncate(image, 0), 0);
    assert_int_equal(disk_read(d, 0, &iov, 1), 0);
    assert_int_equal(buf[0], 0);
    assert_int_equal(disk_write(d, 512, &iov, 1), 0);
    disk_close(d);
    unlink(image);
}

/* A host that has no room is the guest's I/O error, and no more than that. */
static void test_blk_no_space(void **state)
{
    struct rlimit old, small;

    assert_int_equal(truncate(image, 4096), 0); /* so that writes must make the file grow */
    getrlimit(RLIMIT_FSIZE, &old);
    small = (struct rlimit){8192, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    memset(data(0), 0x42, 512);
    assert_int_equal(request(B_OUT, 15, 512, false), OK);
    assert_int_equal(request(B_OUT, 16, 512, false), IOERR);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(request(B_OUT, 16, 512, false), OK);
    assert_int_equal(file_byte(16 * 512), 0x42);
}

/* --- entropy -------------------------------------------------------------------------------------------- */

static void test_rng_quota(void **state)
{
    struct virtio_rng_options o = {.max_bytes = 100, .period_ms = 20};
    struct ring r;
    uint32_t id;

    drv_init(&drv, false);
    drv_plug(&drv, virtio_rng_new(&drv.lock, drv.mem, &o));
    drv_negotiate(&drv, VERSION_1);
    r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    for (unsigned i = 0; i < 3; i++) {
        set_desc(&drv, r.desc, i, DATA_BASE, 80, D_WRITE, 0);
        make_available(&drv, &r, i);
    }
    kick(&drv, &r);
    assert_int_equal(next_used(&drv, &r, &id), 80);
    assert_int_equal(next_used(&drv, &r, &id), 20);
    assert_true(nothing_used(&drv, &r));
    while (nothing_used(&drv, &r))
        g_main_context_iteration(NULL, TRUE);
    assert_int_equal(next_used(&drv, &r, &id), 80);
    drv_free(&drv);
}

static void test_rng_fills(void **state)
{
    static const uint8_t zeros[4096];
    struct ring r;

    drv_negotiate(&drv, VERSION_1);
    r = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    memset(mem_span(drv.mem, DATA_BASE, 4096).hva, 0, 4096);
    assert_int_equal(ask(&r, 0, 4096), 4096);
    assert_memory_not_equal(mem_span(drv.mem, DATA_BASE, 4096).hva, zeros, 32);
    assert_memory_not_equal(mem_span(drv.mem, DATA_BASE + 4064, 32).hva, zeros, 32);
    assert_int_equal(ask(&r, 0, 0x80000), 4096); /* bounded */
}

/* --- console -------------------------------------------------------------------------------------------- */

static struct fake_chardev *con, *port;
static struct ring rx0, tx0, crx, ctx, rx1, tx1;

static int setup_console(void **state)
{
    drv_init(&drv, false);
    con = fake_chardev_new();
    port = fake_chardev_new();
    port->chr.open = false;
    drv_plug(&drv, virtio_serial_new(&drv.lock, drv.mem, 4));
    return 0;
}

static int teardown_console(void **state)
{
    drv_free(&drv);
    chardev_free(&con->chr);
    chardev_free(&port->chr);
    return 0;
}

static void start_console(uint64_t features)
{
    drv_negotiate(&drv, VERSION_1 | features);
    rx0 = drv_queue(&drv, 0, 8);
    tx0 = drv_queue(&drv, 1, 8);
    crx = drv_queue(&drv, 2, 8);
    ctx = drv_queue(&drv, 3, 8);
    rx1 = drv_queue(&drv, 4, 8);
    tx1 = drv_queue(&drv, 5, 8);
    drv_ok(&drv);
}

static void add_console(void)
{
    struct virtio_port_options o = {true, NULL, &con->chr, -1};

    assert_int_equal(virtio_serial_add_port(drv.vdev, &o), 0);
}

/* Gives queue r a buffer of its own, at DATA_BASE + 4 KiB * (index + 1). */
static uint64_t give(struct ring *r, uint32_t len, const char *text)
{
    uint64_t pa = DATA_BASE + (r->index + 1) * 0x1000 + r->avail_idx % 8 * 0x100;

    if (text)
        put(&drv, pa, text, len);
    set_desc(&drv, r->desc, r->avail_idx % 8, pa, len, text ? 0 : D_WRITE, 0);
    make_available(&drv, r, r->avail_idx % 8);
    kick(&drv, r);
    return pa;
}

static void control(uint32_t id, uint16_t event, uint16_t value)
{
    struct {
        uint32_t id;
        uint16_t event, value;
    } c = {id, event, value};

    give(&ctx, sizeof(c), (const char *)&c);
}

/* The next control message is this; `text' follows. */
static void expect_control(uint32_t id, uint16_t event, uint16_t value, const char *text)
{
    uint64_t pa = DATA_BASE + (crx.index + 1) * 0x1000 + crx.used_idx % 8 * 0x100;
    uint32_t head, len = next_used(&drv, &crx, &head);

    assert_int_equal(len, 8 + strlen(text));
    assert_int_equal(get32(&drv, pa), id);
    assert_int_equal(get16(&drv, pa + 4), event);
    assert_int_equal(get16(&drv, pa + 6), value);
    assert_memory_equal(mem_span(drv.mem, pa + 8, strlen(text)).hva, text, strlen(text));
}

static void test_console_single(void **state)
{
    uint32_t head;
    uint64_t pa;

    add_console();
    start_console(0);
    give(&tx0, 5, "hello");
    assert_true(fake_wrote(con, "hello"));
    assert_int_equal(next_used(&drv, &tx0, &head), 0);
    assert_int_equal(fake_type(con, "abc"), 0); /* no buffer */
    pa = give(&rx0, 2, NULL);
    assert_true(con->accepts > 0);
    assert_int_equal(fake_type(con, "abc"), 2);
    assert_int_equal(next_used(&drv, &rx0, &head), 2);
    assert_memory_equal(mem_span(drv.mem, pa, 2).hva, "ab", 2);
}

static void test_console_back_pressure(void **state)
{
    uint32_t head;

    add_console();
    start_console(0);
    con->room = 3;
    give(&tx0, 5, "hello");
    give(&tx0, 6, " world");
    assert_true(nothing_used(&drv, &tx0));
    con->room = 4;
    chardev_writable(&con->chr);
    assert_int_equal(next_used(&drv, &tx0, &head), 0);
    assert_true(nothing_used(&drv, &tx0));
    con->room = SIZE_MAX;
    chardev_writable(&con->chr);
    assert_int_equal(next_used(&drv, &tx0, &head), 0);
    assert_true(fake_wrote(con, "hello world"));
    con->room = 0;
    give(&tx0, 5, "never");
    drv_write(&drv, 0x070, 0);
    con->room = SIZE_MAX;
    chardev_writable(&con->chr);
    assert_true(fake_wrote(con, ""));
}

static void test_console_multiport(void **state)
{
    struct virtio_port_options o = {false, "org.example.0", &port->chr, -1};
    uint32_t head;

    add_console();
    assert_int_equal(virtio_serial_add_port(drv.vdev, &o), 1);
    o.nr = 1;
    assert_int_equal(virtio_serial_add_port(drv.vdev, &o), -EBUSY);
    o.nr = 4;
    assert_int_equal(virtio_serial_add_port(drv.vdev, &o), -EINVAL);
    assert_int_equal(drv_read(&drv, 0x104), 4);
    start_console(BIT(1));
    for (unsigned i = 0; i < 7; i++)
        give(&crx, 64, NULL);
    control(0, 0, 1); /* DEVICE_READY */
    expect_control(0, 1, 1, "");
    expect_control(1, 1, 1, "");
    control(0, 3, 1); /* PORT_READY */
    expect_control(0, 4, 1, ""); /* CONSOLE_PORT */
    expect_control(0, 6, 1, ""); /* PORT_OPEN */
    control(1, 3, 1);
    expect_control(1, 7, 1, "org.example.0");
    chardev_send_event(&port->chr, CHARDEV_OPENED);
    expect_control(1, 6, 1, "");
    give(&rx1, 16, NULL);
    assert_int_equal(fake_type(port, "x"), 0); /* nobody has opened it in the guest */
    control(1, 6, 1);
    assert_int_equal(fake_type(port, "x"), 1);
    assert_int_equal(next_used(&drv, &rx1, &head), 1);
    give(&tx1, 2, "yz");
    assert_true(fake_wrote(port, "yz"));
    chardev_send_event(&port->chr, CHARDEV_CLOSED);
    expect_control(1, 6, 0, "");
    control(77, 6, 1); /* no such port */
    control(0, 99, 1);
    give(&ctx, 3, "bad");
}

/* A driver that talks and never listens does not fill the host's memory. */
static void test_console_control_flood(void **state)
{
    uint32_t head;

    add_console();
    start_console(BIT(1));
    for (unsigned i = 0; i < 1000; i++) {
        control(0, 3, 1);
        if (drv_read(&drv, 0x070) & NEEDS_RESET)
            break;
        next_used(&drv, &ctx, &head);
    }
    assert_int_equal(drv_read(&drv, 0x070) & NEEDS_RESET, NEEDS_RESET);
    start_console(0);
    give(&tx0, 2, "ok");
    assert_true(fake_wrote(con, "ok"));
}

static void test_console_emergency(void **state)
{
    add_console();
    drv_write(&drv, 0x108, '!');
    assert_true(fake_wrote(con, "!"));
}

static void test_console_unused_port(void **state)
{
    uint32_t head;

    start_console(0);
    give(&tx0, 4, "gone");
    assert_int_equal(next_used(&drv, &tx0, &head), 0);
    give(&rx0, 4, NULL);
    drv_write(&drv, 0x108, '!');
}

int main(void)
{
#define RNG(t)    cmocka_unit_test_setup_teardown(t, setup_modern, teardown)
#define LEGACY(t) cmocka_unit_test_setup_teardown(t, setup_legacy, teardown)
#define BLK(t)    cmocka_unit_test_setup_teardown(t, setup_blk, teardown_blk)
#define CON(t)    cmocka_unit_test_setup_teardown(t, setup_console, teardown_console)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_iov),
        cmocka_unit_test(test_empty_frame),
        RNG(test_features),
        RNG(test_modern_queue),
        LEGACY(test_legacy_queue),
        RNG(test_interrupt_suppression),
        RNG(test_event_idx),
        RNG(test_indirect),
        RNG(test_hostile_chains),
        RNG(test_indirect_not_negotiated),
        RNG(test_hostile_rings),
        RNG(test_overlapping_rings),
        RNG(test_budget),
        LEGACY(test_legacy_hostile),
        BLK(test_blk_read_write),
        BLK(test_blk_errors),
        BLK(test_blk_id),
        BLK(test_blk_discard_zeroes),
        BLK(test_blk_parallel),
        BLK(test_blk_reset_in_flight),
        BLK(test_blk_flood),
        BLK(test_blk_malformed),
        BLK(test_blk_cache_mode),
        BLK(test_blk_no_space),
        cmocka_unit_test(test_blk_legacy),
        cmocka_unit_test(test_blk_readonly),
        cmocka_unit_test(test_blk_snapshot),
        cmocka_unit_test(test_snapshot_model),
        cmocka_unit_test(test_disk_open),
        cmocka_unit_test(test_disk_truncated),
        cmocka_unit_test(test_rng_quota),
        RNG(test_rng_fills),
        CON(test_console_single),
        CON(test_console_back_pressure),
        CON(test_console_multiport),
        CON(test_console_control_flood),
        CON(test_console_emergency),
        CON(test_console_unused_port),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
