/*
 * Every register that a device lists behaves as its row says: reset value, writable bits, read-only,
 * write-one-to-clear. And every other word of the region can be touched at any width without harm.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/fw_cfg.h"
#include "dev/gicv2.h"
#include "dev/gicv2m.h"
#include "dev/pl011.h"
#include "dev/pl031.h"
#include "dev/pl061.h"
#include "virtio/mmio.h"
#include "virtio/rng.h"

static GMutex lock;
static struct mem *mem;

static uint64_t rd(struct device *d, uint64_t off, unsigned size)
{
    uint64_t v;

    dev_lock(d);
    v = d->regs.ops->read(d->regs.dev, off, size);
    dev_unlock(d);
    return v;
}

static void wr(struct device *d, uint64_t off, uint64_t v, unsigned size)
{
    dev_lock(d);
    d->regs.ops->write(d->regs.dev, off, v, size);
    dev_unlock(d);
}

#define CHECK(reg, what, is, want) \
    do { \
        uint32_t is_ = (uint32_t)(is), want_ = (uint32_t)(want); \
        if (is_ != want_) \
            fail_msg("%s %s: %#x, not %#x", (reg)->name, what, is_, want_); \
    } while (0)

static void walk_register(struct device *d, const struct reg *r)
{
    bool plain = !(r->access & REG_SIDE);

    if ((r->access & REG_RO) && plain)
        CHECK(r, "after reset", rd(d, r->off, 4), r->reset);
    if ((r->access & 7) == REG_RO) {
        uint32_t before = (uint32_t)rd(d, r->off, 4);

        wr(d, r->off, UINT32_MAX, 4);
        if (plain)
            CHECK(r, "is read-only", rd(d, r->off, 4), before);
    } else if ((r->access & 7) == REG_W1C && plain) {
        wr(d, r->off, UINT32_MAX, 4);
        CHECK(r, "is cleared by ones", rd(d, r->off, 4), 0);
    } else if ((r->access & 7) == REG_RW && plain) {
        static const uint32_t patterns[] = {UINT32_MAX, 0, 0x55555555, 0xaaaaaaaa};

        for (unsigned i = 0; i < 4; i++) {
            wr(d, r->off, patterns[i], 4);
            CHECK(r, "keeps its bits", rd(d, r->off, 4), patterns[i] & r->mask);
        }
    }
}

static void walk(struct device *d)
{
    const struct device_class *cls = d->cls;

    assert_true(cls->reg_count > 0);
    for (unsigned i = 0; i < cls->reg_count; i++) {
        const struct reg *r = &cls->reg_list[i];

        assert_true(i == 0 || r->off > cls->reg_list[i - 1].off); /* dev_reg_find() searches by halves */
        assert_true(r->off + 4 <= d->regs.size && !(r->reset & ~r->mask));
        assert_ptr_equal(dev_reg_find(cls->reg_list, cls->reg_count, r->off), r);
        assert_ptr_equal(dev_reg_find(cls->reg_list, cls->reg_count, r->off + 3), r);
        dev_reset(d);
        walk_register(d, r);
    }
    dev_reset(d);
    for (unsigned i = 0; i < cls->reg_count; i++) {
        const struct reg *r = &cls->reg_list[i];

        if ((r->access & REG_RO) && !(r->access & REG_SIDE) && cls->reset)
            CHECK(r, "after a reset of all", rd(d, r->off, 4), r->reset);
    }
}

/* Every offset, every width the region allows. */
static void sweep(struct device *d)
{
    const struct mem_ops *ops = d->regs.ops;
    GString *text = g_string_new(NULL);
    unsigned min = ops->min_size ? ops->min_size : 1, max = ops->max_size ? ops->max_size : 8;

    for (unsigned size = min; size <= max; size *= 2) {
        for (uint64_t off = 0; off + size <= d->regs.size; off += size) {
            rd(d, off, size);
            wr(d, off, UINT64_MAX >> (64 - 8 * size), size);
            rd(d, off, size);
            wr(d, off, 0, size);
        }
    }
    dev_reset(d);
    if (d->cls->describe)
        d->cls->describe(d, text);
    g_string_free(text, TRUE);
}

static void walk_and_free(struct device *d)
{
    walk(d);
    sweep(d);
    dev_free(d);
}

static unsigned cpu_zero(void)
{
    return 0;
}

static void test_gicv2(void **state)
{
    walk_and_free(gicv2_device(gicv2_new(1, 288, cpu_zero)));
    walk_and_free(gicv2_device(gicv2_new(8, 1024, cpu_zero)));
}

static void test_gicv2m(void **state)
{
    struct irq_line none[64] = {{NULL, NULL, 0}};

    walk_and_free(gicv2m_new(&lock, 80, 64, none));
}

static void test_pl011(void **state)
{
    walk_and_free(pl011_new(&lock, NULL));
}

static void test_pl031(void **state)
{
    walk_and_free(pl031_new(&lock, NULL));
}

static void test_pl061(void **state)
{
    walk_and_free(pl061_new(&lock));
}

static void test_fw_cfg(void **state)
{
    walk_and_free(fw_cfg_new(&lock, mem));
}

static void test_virtio_mmio(void **state)
{
    for (int legacy = 0; legacy < 2; legacy++) {
        struct device *d = virtio_mmio_new(&lock, legacy);

        walk_and_free(d);
        d = virtio_mmio_new(&lock, legacy);
        virtio_mmio_attach(d, virtio_rng_new(&lock, mem, NULL));
        walk_and_free(d);
    }
}

static void test_find(void **state)
{
    static const struct reg some[] = {{"a", 4, REG_RW, 1, 0}, {"b", 16, REG_RW, 1, 0}};

    assert_null(dev_reg_find(some, 2, 0));
    assert_null(dev_reg_find(some, 2, 8));
    assert_null(dev_reg_find(some, 2, 20));
    assert_null(dev_reg_find(some, 2, UINT64_MAX));
    assert_null(dev_reg_find(some, 0, 4));
    assert_string_equal(dev_reg_find(some, 2, 7)->name, "a");
    assert_string_equal(dev_reg_find(some, 2, 16)->name, "b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),   cmocka_unit_test(test_gicv2),      cmocka_unit_test(test_gicv2m),
        cmocka_unit_test(test_pl011),  cmocka_unit_test(test_pl031),      cmocka_unit_test(test_pl061),
        cmocka_unit_test(test_fw_cfg), cmocka_unit_test(test_virtio_mmio)};
    int r;

    mem = mem_new(0x40000000, 0x100000);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    mem_free(mem);
    return r;
}
