/*
 * The small devices of the board: PL031, PL061, GICv2m, fw_cfg.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/fw_cfg.h"
#include "dev/gicv2m.h"
#include "dev/pl031.h"
#include "dev/pl061.h"

static GMutex lock;
static bool line;
static unsigned pulses, last_pulse;

static void see_line(void *opaque, unsigned n, bool level)
{
    line = level;
}

static uint64_t rd(struct device *d, unsigned off, unsigned size)
{
    uint64_t v;

    g_mutex_lock(&lock);
    v = d->regs.ops->read(d->regs.dev, off, size);
    g_mutex_unlock(&lock);
    return v;
}

static void wr(struct device *d, unsigned off, uint64_t v, unsigned size)
{
    g_mutex_lock(&lock);
    d->regs.ops->write(d->regs.dev, off, v, size);
    g_mutex_unlock(&lock);
}

/* --- PL031 ---------------------------------------------------------------------------------------------- */

static int64_t now;

static int64_t get_now(void *opaque)
{
    return now;
}

static struct device *new_rtc(void)
{
    static const struct rtc_source source = {get_now, NULL};
    struct device *rtc = pl031_new(&lock, &source);

    rtc->irq = (struct irq_line){see_line, NULL, 0};
    line = false;
    return rtc;
}

/* Lets the main loop run the timer that is due within real milliseconds. */
static void run_timers(unsigned ms)
{
    gint64 end = g_get_monotonic_time() + ms * 1000;

    while (g_get_monotonic_time() < end && !line) {
        g_main_context_iteration(NULL, FALSE);
        g_usleep(200);
    }
}

static void test_rtc_counts(void **state)
{
    struct device *rtc = new_rtc();

    now = INT64_C(1000000000) * 1000000 + 999999;
    assert_int_equal(rd(rtc, 0x00, 4), 1000000000);
    now += 1;
    assert_int_equal(rd(rtc, 0x00, 4), 1000000001);
    wr(rtc, 0x08, 42, 4);
    assert_int_equal(rd(rtc, 0x00, 4), 42);
    assert_int_equal(rd(rtc, 0x08, 4), 42);
    now += 10 * 1000000;
    assert_int_equal(rd(rtc, 0x00, 4), 52);
    dev_reset(rtc);
    assert_int_equal(rd(rtc, 0x00, 4), 52); /* the battery */
    now = -1;
    wr(rtc, 0x08, 100, 4);
    now = 0;
    assert_int_equal(rd(rtc, 0x00, 4), 101);
    dev_free(rtc);
}

static void test_rtc_alarm(void **state)
{
    struct device *rtc = new_rtc();

    now = INT64_C(500) * 1000000 + 998000;
    wr(rtc, 0x10, 1, 4);
    wr(rtc, 0x04, 501, 4);
    assert_false(line);
    run_timers(5);
    assert_false(line); /* the source stood still: it waits on */
    now += 2000;
    run_timers(10000);
    assert_true(line);
    assert_int_equal(rd(rtc, 0x14, 4), 1);
    assert_int_equal(rd(rtc, 0x18, 4), 1);
    wr(rtc, 0x1c, 1, 4);
    assert_false(line);
    wr(rtc, 0x04, 501, 4); /* now: at once */
    assert_true(line);
    wr(rtc, 0x10, 0, 4);
    assert_false(line);
    assert_int_equal(rd(rtc, 0x14, 4), 1);
    wr(rtc, 0x1c, 1, 4);
    wr(rtc, 0x04, 500, 4); /* gone by */
    assert_int_equal(rd(rtc, 0x14, 4), 0);
    dev_free(rtc);
    while (g_main_context_iteration(NULL, FALSE))
        ;
}

/* --- PL061 ---------------------------------------------------------------------------------------------- */

static void see_pulse(void *opaque, unsigned n, bool level)
{
    if (level) {
        pulses++;
        last_pulse = n;
    }
}

static void test_gpio_data(void **state)
{
    struct device *g = pl061_new(&lock);

    pulses = 0;
    pl061_connect(g, 5, (struct irq_line){see_pulse, NULL, 5});
    pl061_set_input(g, 3, true);
    assert_int_equal(rd(g, 0x3fc, 4), 8);
    assert_int_equal(rd(g, 0x7 << 2, 4), 0); /* only pins 0 to 2 */
    wr(g, 0x3fc, 0xff, 4);
    assert_int_equal(rd(g, 0x3fc, 4), 8); /* all are inputs */
    wr(g, 0x400, 0x20, 4);
    wr(g, 0x10 << 2, 0xff, 4); /* masked */
    assert_int_equal(pulses, 0);
    wr(g, 0x20 << 2, 0xff, 4);
    assert_int_equal(pulses, 1);
    assert_int_equal(rd(g, 0x3fc, 4), 0x28);
    dev_free(g);
}

static void test_gpio_edges(void **state)
{
    struct device *g = pl061_new(&lock);

    g->irq = (struct irq_line){see_line, NULL, 0};
    line = false;
    wr(g, 0x40c, 0x08, 4); /* rising */
    wr(g, 0x410, 0x08, 4);
    pl061_set_input(g, 3, true);
    assert_true(line);
    assert_int_equal(rd(g, 0x414, 4), 8);
    pl061_set_input(g, 3, false);
    assert_true(line);
    wr(g, 0x41c, 8, 4);
    assert_false(line);
    wr(g, 0x40c, 0, 4); /* falling */
    pl061_set_input(g, 3, true);
    assert_false(line);
    pl061_set_input(g, 3, false);
    assert_true(line);
    wr(g, 0x41c, 8, 4);
    wr(g, 0x408, 8, 4); /* both */
    pl061_set_input(g, 3, true);
    assert_true(line);
    wr(g, 0x41c, 8, 4);
    pl061_set_input(g, 3, false);
    assert_true(line);
    wr(g, 0x410, 0, 4);
    assert_false(line);
    assert_int_equal(rd(g, 0x418, 4), 0);
    dev_free(g);
}

static void test_gpio_levels(void **state)
{
    struct device *g = pl061_new(&lock);

    g->irq = (struct irq_line){see_line, NULL, 0};
    line = false;
    wr(g, 0x404, 0x02, 4);
    wr(g, 0x40c, 0x02, 4);
    wr(g, 0x410, 0x02, 4);
    assert_false(line);
    pl061_set_input(g, 1, true);
    assert_true(line);
    wr(g, 0x41c, 2, 4); /* a level cannot be cleared */
    assert_true(line);
    pl061_set_input(g, 1, false);
    assert_false(line);
    wr(g, 0x40c, 0, 4); /* active low */
    assert_true(line);
    wr(g, 0x400, 2, 4); /* an output does not interrupt */
    assert_false(line);
    dev_free(g);
}

static void test_gpio_pulse(void **state)
{
    struct device *g = pl061_new(&lock);

    pl061_pulse(g, 3, 20);
    pl061_pulse(g, 4, 20); /* not while the first lasts */
    assert_int_equal(rd(g, 0x3fc, 4), 8);
    while (rd(g, 0x3fc, 4))
        g_main_context_iteration(NULL, TRUE);
    pl061_pulse(g, 4, 1000000);
    assert_int_equal(rd(g, 0x3fc, 4), 0x10);
    dev_free(g); /* its timer goes too */
    assert_false(g_main_context_pending(NULL));
}

/* --- GICv2m --------------------------------------------------------------------------------------------- */

static void test_msi(void **state)
{
    struct irq_line spi[4];
    struct device *m;

    for (unsigned i = 0; i < 4; i++)
        spi[i] = (struct irq_line){see_pulse, NULL, i};
    m = gicv2m_new(&lock, 80, 4, spi);
    pulses = 0;
    assert_int_equal(rd(m, 0x008, 4), 80 << 16 | 4);
    wr(m, GICV2M_SETSPI, 82, 4);
    assert_int_equal(pulses, 1);
    assert_int_equal(last_pulse, 2);
    wr(m, GICV2M_SETSPI, 79, 4);
    wr(m, GICV2M_SETSPI, 84, 4);
    wr(m, 0x44, 80, 4);
    assert_int_equal(pulses, 1);
    wr(m, GICV2M_SETSPI, 83, 2);
    assert_int_equal(last_pulse, 3);
    dev_free(m);
}

/* --- fw_cfg --------------------------------------------------------------------------------------------- */

enum { DATA = 0, SELECTOR = 8, DMA = 16 };

static struct mem *mem;
static struct device *fw;

static int setup_fw(void **state)
{
    mem = mem_new(0x40000000, 0x100000);
    fw = fw_cfg_new(&lock, mem);
    return mem ? 0 : -1;
}

static int teardown_fw(void **state)
{
    dev_free(fw);
    mem_free(mem);
    return 0;
}

static void select_item(uint16_t key)
{
    wr(fw, SELECTOR, GUINT16_SWAP_LE_BE(key), 2);
}

static void read_item(void *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = (uint8_t)rd(fw, DATA, 1);
}

static void test_fw_items(void **state)
{
    char buf[8] = "";

    select_item(FW_CFG_SIGNATURE);
    assert_int_equal(rd(fw, DATA, 4), 0x554d4551); /* memory order */
    assert_int_equal(rd(fw, DATA, 4), 0);          /* the end */
    select_item(FW_CFG_ID);
    assert_int_equal(rd(fw, DATA, 8), 3);
    fw_cfg_add_u16(fw, FW_CFG_NB_CPUS, 8);
    fw_cfg_add_string(fw, FW_CFG_KERNEL_CMDLINE, "quiet");
    select_item(FW_CFG_NB_CPUS);
    assert_int_equal(rd(fw, DATA, 2), 8);
    select_item(FW_CFG_KERNEL_CMDLINE);
    read_item(buf, 6);
    assert_string_equal(buf, "quiet");
    select_item(0xfffe);
    assert_int_equal(rd(fw, DATA, 8), 0);
    wr(fw, DATA, 0xff, 1);
    assert_int_equal(rd(fw, DMA, 8), GUINT64_SWAP_LE_BE(UINT64_C(0x51454d5520434647)));
}

static void test_fw_files(void **state)
{
    uint8_t dir[4 + 2 * 64];
    char long_name[64];

    memset(long_name, 'x', 63);
    long_name[63] = 0;
    assert_int_equal(fw_cfg_add_file(fw, "opt/b", "second", 6), 0);
    assert_int_equal(fw_cfg_add_file(fw, "opt/a", "first", 5), 0);
    assert_int_equal(fw_cfg_add_file(fw, "opt/b", "2nd", 3), 0);
    assert_int_equal(fw_cfg_add_file(fw, long_name, "", 0), -ENAMETOOLONG);
    select_item(FW_CFG_FILE_DIR);
    read_item(dir, sizeof(dir));
    assert_memory_equal(dir, "\0\0\0\2", 4);
    assert_memory_equal(dir + 4, "\0\0\0\5\0\x20\0\0opt/a", 13);
    assert_memory_equal(dir + 68, "\0\0\0\3\0\x21\0\0opt/b", 13);
    select_item(0x21);
    assert_int_equal(rd(fw, DATA, 8), 0x646e32);
    for (unsigned i = 2; i < FW_CFG_MAX_FILES; i++) {
        g_autofree char *name = g_strdup_printf("f%u", i);

        assert_int_equal(fw_cfg_add_file(fw, name, "", 0), 0);
    }
    assert_int_equal(fw_cfg_add_file(fw, "one more", "", 0), -ENOSPC);
}

/* Runs a DMA with the descriptor at the start of RAM; returns the control word that came back. */
static uint32_t dma(uint32_t control, uint32_t len, uint64_t address, bool halves)
{
    uint64_t pa = 0x40000000;
    uint32_t word[4] = {GUINT32_TO_BE(control), GUINT32_TO_BE(len), GUINT32_TO_BE((uint32_t)(address >> 32)),
                        GUINT32_TO_BE((uint32_t)address)};

    assert_true(mem_write(mem, pa, word, sizeof(word)));
    if (halves) {
        wr(fw, DMA, 0, 4);
        wr(fw, DMA + 4, GUINT32_SWAP_LE_BE((uint32_t)pa), 4);
    } else {
        wr(fw, DMA, GUINT64_SWAP_LE_BE(pa), 8);
    }
    assert_true(mem_read(mem, pa, word, 4));
    return GUINT32_FROM_BE(word[0]);
}

static void test_fw_dma(void **state)
{
    uint8_t buf[8];

    fw_cfg_add_string(fw, FW_CFG_KERNEL_CMDLINE, "quiet");
    assert_int_equal(dma(FW_CFG_KERNEL_CMDLINE << 16 | 8 | 2, 3, 0x40001000, false), 0);
    assert_int_equal(dma(2, 8, 0x40001003, true), 0); /* goes on, then zeros */
    assert_true(mem_read(mem, 0x40001000, buf, 8));
    assert_memory_equal(buf, "quiet\0\0\0", 8);
    assert_int_equal(dma(FW_CFG_KERNEL_CMDLINE << 16 | 8 | 4, 2, 0, false), 0); /* skip */
    assert_int_equal(rd(fw, DATA, 1), 'i');
    assert_int_equal(dma(4, 0xffffffff, 0, false), 0);
    assert_int_equal(rd(fw, DATA, 1), 0);
    assert_int_equal(dma(FW_CFG_KERNEL_CMDLINE << 16 | 8 | 2, 4, 0x40100000 - 3, false), 1); /* beyond RAM */
    assert_int_equal(dma(2, 0xffffffff, 0x40000000, false), 1);
    assert_int_equal(dma(16, 4, 0x40000000, false), 1); /* items are read-only */
    wr(fw, DMA, GUINT64_SWAP_LE_BE(UINT64_C(0x1000)), 8); /* a descriptor that is no RAM */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rtc_counts),
        cmocka_unit_test(test_rtc_alarm),
        cmocka_unit_test(test_gpio_data),
        cmocka_unit_test(test_gpio_edges),
        cmocka_unit_test(test_gpio_levels),
        cmocka_unit_test(test_gpio_pulse),
        cmocka_unit_test(test_msi),
        cmocka_unit_test_setup_teardown(test_fw_items, setup_fw, teardown_fw),
        cmocka_unit_test_setup_teardown(test_fw_files, setup_fw, teardown_fw),
        cmocka_unit_test_setup_teardown(test_fw_dma, setup_fw, teardown_fw),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
