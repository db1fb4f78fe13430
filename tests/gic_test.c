/*
 * dev/gicv2: states, priorities, preemption, groups, edges and levels, SGIs between CPUs, both EOI modes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/gicv2.h"

enum { CPUS = 4, IRQS = 288, SPURIOUS = 1023 };

static struct gicv2 *gic;
static unsigned cpu;
static bool irq[GICV2_MAX_CPUS], fiq[GICV2_MAX_CPUS];

static unsigned current_cpu(void)
{
    return cpu;
}

static void see_irq(void *opaque, unsigned n, bool level)
{
    ((bool *)opaque)[n] = level;
}

static uint32_t dist_read(unsigned off, unsigned size)
{
    const struct mem_region *r = &gicv2_device(gic)->regs;

    return (uint32_t)r->ops->read(r->dev, off, size);
}

static uint32_t gicd(unsigned off)
{
    return dist_read(off, 4);
}

static void gicd_write(unsigned off, uint32_t v)
{
    const struct mem_region *r = &gicv2_device(gic)->regs;

    r->ops->write(r->dev, off, v, 4);
}

static void gicd_write8(unsigned off, uint8_t v)
{
    const struct mem_region *r = &gicv2_device(gic)->regs;

    r->ops->write(r->dev, off, v, 1);
}

static uint32_t gicc(unsigned c, unsigned off)
{
    const struct mem_region *r = gicv2_cpu_region(gic);

    cpu = c;
    return (uint32_t)r->ops->read(r->dev, off, 4);
}

static void gicc_write(unsigned c, unsigned off, uint32_t v)
{
    const struct mem_region *r = gicv2_cpu_region(gic);

    cpu = c;
    r->ops->write(r->dev, off, v, 4);
}

#define IAR(c)     gicc(c, 0x0c)
#define EOI(c, v)  gicc_write(c, 0x10, v)

static void spi(unsigned n, bool level)
{
    struct irq_line line = gicv2_spi(gic, n);

    irq_set(&line, level);
}

static void start(unsigned cpus)
{
    gic = gicv2_new(cpus, IRQS, current_cpu);
    cpu = 0;
    for (unsigned c = 0; c < cpus; c++) {
        gicv2_connect(gic, c, (struct irq_line){see_irq, irq, c}, (struct irq_line){see_irq, fiq, c});
        irq[c] = fiq[c] = false;
        gicc_write(c, 0x00, 1);
        gicc_write(c, 0x04, 0xff);
    }
    cpu = 0;
    gicd_write(0x000, 1);
}

/* SPI n (INTID 32 + n) on, to the CPUs of the mask, with a priority. */
static void enable_spi(unsigned n, uint8_t cpus, uint8_t priority, bool edge)
{
    unsigned id = 32 + n, shift = id % 16 * 2 + 1;
    uint32_t cfg = gicd(0xc00 + id / 16 * 4);

    gicd_write8(0x800 + id, cpus);
    gicd_write8(0x400 + id, priority);
    gicd_write(0xc00 + id / 16 * 4, edge ? cfg | 1u << shift : cfg & ~(1u << shift));
    gicd_write(0x100 + id / 32 * 4, 1u << (id % 32));
}

static int setup(void **state)
{
    start(CPUS);
    return 0;
}

static int setup_one(void **state)
{
    start(1);
    return 0;
}

static int teardown(void **state)
{
    dev_free(gicv2_device(gic));
    return 0;
}

static void test_identity(void **state)
{
    assert_int_equal(gicd(0x004), (CPUS - 1) << 5 | (IRQS / 32 - 1));
    assert_int_equal(gicd(0xfe8) >> 4, 2);
    assert_int_equal(gicc(0, 0xfc) >> 16, 2);
    for (unsigned c = 0; c < CPUS; c++) {
        cpu = c;
        assert_int_equal(gicd(0x800), 0x01010101u << c);
        assert_int_equal(dist_read(0x81f, 1), 1u << c);
    }
    assert_int_equal(IAR(0), SPURIOUS);
    assert_int_equal(gicc(0, 0x14), 0xff);
}

static void test_level(void **state)
{
    enable_spi(1, 1, 0xa0, false);
    spi(1, true);
    assert_true(irq[0]);
    assert_int_equal(gicd(0x204) & 2, 2);
    assert_int_equal(IAR(0), 33);
    assert_false(irq[0]);
    assert_int_equal(gicd(0x304), 2);
    assert_int_equal(gicd(0x204), 2); /* active and pending: the wire is still high */
    assert_int_equal(gicc(0, 0x14), 0xa0);
    EOI(0, 33);
    assert_true(irq[0]);
    assert_int_equal(IAR(0), 33);
    spi(1, false);
    EOI(0, 33);
    assert_false(irq[0]);
    assert_int_equal(gicd(0x204), 0);
    assert_int_equal(gicd(0x304), 0);
    assert_int_equal(IAR(0), SPURIOUS);
}

static void test_level_withdrawn(void **state)
{
    enable_spi(1, 1, 0xa0, false);
    spi(1, true);
    spi(1, false);
    assert_false(irq[0]);
    assert_int_equal(IAR(0), SPURIOUS);
    gicd_write(0x204, 2); /* by software: stays until acknowledged */
    assert_true(irq[0]);
    assert_int_equal(IAR(0), 33);
    EOI(0, 33);
    assert_false(irq[0]);
    gicd_write(0x204, 2);
    gicd_write(0x284, 2);
    assert_false(irq[0]);
}

static void test_edge(void **state)
{
    enable_spi(16, 1, 0xa0, true);
    spi(16, true);
    spi(16, false);
    assert_true(irq[0]);
    assert_int_equal(IAR(0), 48);
    spi(16, true); /* again, while active */
    assert_false(irq[0]);
    EOI(0, 48);
    assert_true(irq[0]);
    assert_int_equal(IAR(0), 48);
    EOI(0, 48);
    assert_false(irq[0]); /* the wire is high, but there was no new edge */
    spi(16, true);
    assert_false(irq[0]);
    spi(16, false);
    spi(16, true);
    gicd_write(0x284, 1u << 16);
    assert_false(irq[0]);
}

static void test_disabled(void **state)
{
    enable_spi(2, 1, 0x80, false);
    gicd_write(0x184, 4);
    assert_int_equal(gicd(0x104), 0);
    spi(2, true);
    assert_false(irq[0]);
    gicd_write(0x104, 4);
    assert_true(irq[0]);
    gicd_write(0x000, 0);
    assert_false(irq[0]);
    assert_int_equal(IAR(0), SPURIOUS);
    gicd_write(0x000, 1);
    gicc_write(0, 0x00, 0);
    assert_false(irq[0]);
    gicc_write(0, 0x00, 1);
    assert_true(irq[0]);
    gicd_write8(0x822, 0); /* no target */
    assert_false(irq[0]);
}

static void test_priority_order(void **state)
{
    enable_spi(3, 1, 0x80, false);
    enable_spi(200, 1, 0x40, false);
    enable_spi(4, 1, 0x80, false);
    spi(4, true);
    spi(3, true);
    spi(200, true);
    assert_int_equal(gicc(0, 0x18), 232);
    assert_int_equal(IAR(0), 232);
    assert_int_equal(IAR(0), SPURIOUS); /* nothing pending preempts 0x40 */
    spi(200, false);
    EOI(0, 232);
    EOI(0, SPURIOUS); /* harmless */
    assert_int_equal(IAR(0), 35);
}

static void test_equal_priority(void **state)
{
    enable_spi(3, 1, 0x80, false);
    enable_spi(4, 1, 0x80, false);
    spi(4, true);
    spi(3, true);
    assert_int_equal(IAR(0), 35); /* the lower number */
    EOI(0, 35);
    spi(3, false);
    assert_int_equal(IAR(0), 36);
}

static void test_mask(void **state)
{
    enable_spi(3, 1, 0x80, false);
    spi(3, true);
    gicc_write(0, 0x04, 0x80);
    assert_false(irq[0]); /* must be higher than the mask */
    assert_int_equal(IAR(0), SPURIOUS);
    assert_int_equal(gicc(0, 0x18), 35);
    gicc_write(0, 0x04, 0x81);
    assert_true(irq[0]);
    assert_int_equal(gicc(0, 0x04), 0x81);
}

static void test_preemption(void **state)
{
    enable_spi(3, 1, 0x80, false);
    enable_spi(4, 1, 0x70, false);
    enable_spi(5, 1, 0x20, false);
    gicc_write(0, 0x08, 4); /* group priority: bits [7:5] */
    spi(3, true);
    assert_int_equal(IAR(0), 35);
    spi(4, true);
    assert_true(irq[0]); /* 0x60 against 0x80 */
    assert_int_equal(IAR(0), 36);
    assert_int_equal(gicc(0, 0x14), 0x60);
    gicc_write(0, 0x08, 7); /* no preemption at all */
    spi(5, true);
    assert_false(irq[0]);
    gicc_write(0, 0x08, 4);
    assert_int_equal(IAR(0), 37);
    assert_int_equal(gicc(0, 0xd0), 1u << (0x20 >> 1));
    assert_int_equal(gicc(0, 0xd4), 1u << ((0x60 >> 1) - 32));
    assert_int_equal(gicc(0, 0xd8), 1u << ((0x80 >> 1) - 64));
    EOI(0, 37);
    assert_int_equal(gicc(0, 0x14), 0x60);
    EOI(0, 36);
    assert_int_equal(gicc(0, 0x14), 0x80);
    EOI(0, 35);
    assert_int_equal(gicc(0, 0x14), 0xff);
}

static void test_subpriority_does_not_preempt(void **state)
{
    enable_spi(3, 1, 0x87, false);
    enable_spi(4, 1, 0x81, false);
    gicc_write(0, 0x08, 3); /* bits [7:4] */
    spi(3, true);
    assert_int_equal(IAR(0), 35);
    spi(4, true);
    assert_false(irq[0]);
    EOI(0, 35);
    assert_int_equal(IAR(0), 36); /* but it goes first */
}

static void test_eoi_mode(void **state)
{
    enable_spi(3, 1, 0x80, false);
    gicc_write(0, 0x1000, 35); /* without the mode: nothing */
    gicc_write(0, 0x00, 0x201);
    spi(3, true);
    assert_int_equal(IAR(0), 35);
    EOI(0, 35);
    assert_int_equal(gicc(0, 0x14), 0xff); /* dropped, */
    assert_int_equal(gicd(0x304), 8);      /* but active still */
    assert_false(irq[0]);
    gicc_write(0, 0x1000, 35);
    assert_int_equal(gicd(0x304), 0);
    assert_true(irq[0]);
}

static void test_sgi(void **state)
{
    cpu = 1;
    gicd_write(0xf00, 0u << 24 | 0x05 << 16 | 7); /* CPU 1 to CPUs 0 and 2 */
    cpu = 3;
    gicd_write(0xf00, 1u << 24 | 7); /* CPU 3 to all others */
    assert_true(irq[0] && irq[1] && irq[2] && !irq[3]);
    cpu = 0;
    assert_int_equal(dist_read(0xf17, 1), 1 << 1 | 1 << 3);
    assert_int_equal(gicd(0x200), 1 << 7);
    assert_int_equal(IAR(0), 1 << 10 | 7);
    assert_false(irq[0]); /* the other is pending, and waits: one active state an SGI */
    EOI(0, 1 << 10 | 7);
    assert_true(irq[0]);
    assert_int_equal(IAR(0), 3 << 10 | 7);
    EOI(0, 3 << 10 | 7);
    assert_false(irq[0]);
    assert_int_equal(IAR(1), 3 << 10 | 7);
    assert_int_equal(IAR(2), 1 << 10 | 7);
    cpu = 2;
    gicd_write(0xf00, 2u << 24 | 9); /* to itself */
    EOI(2, 1 << 10 | 7);
    assert_int_equal(IAR(2), 3 << 10 | 7);
    EOI(2, 3 << 10 | 7);
    assert_int_equal(IAR(2), 2 << 10 | 9);
    cpu = 0;
    gicd_write(0xf00, 3u << 24 | 0xff << 16 | 9); /* reserved filter */
    assert_false(irq[0]);
}

static void test_sgi_registers(void **state)
{
    gicd_write(0x180, 0xffff); /* SGIs are always on */
    assert_int_equal(gicd(0x100), 0xffff);
    gicd_write(0x200, 0xffff); /* and pended otherwise */
    assert_int_equal(gicd(0x200), 0);
    gicd_write(0xf20, 0xff000000); /* SPENDSGIR, SGI 3: only CPUs that exist */
    assert_int_equal(gicd(0xf10), 0x0f000000);
    assert_true(irq[0]);
    gicd_write(0xf10, 0x0e000000);
    assert_int_equal(IAR(0), 0 << 10 | 3);
    gicd_write(0xc00, 0);
    assert_int_equal(gicd(0xc00), 0xaaaaaaaa);
}

static void test_ppi_banked(void **state)
{
    struct irq_line line1 = gicv2_ppi(gic, 1, 11);

    cpu = 1;
    gicd_write(0x100, 1u << 27);
    gicd_write8(0x400 + 27, 0x30);
    cpu = 0;
    assert_int_equal(gicd(0x100), 0xffff);
    assert_int_equal(dist_read(0x400 + 27, 1), 0);
    irq_set(&line1, true);
    assert_false(irq[0]);
    assert_true(irq[1]);
    assert_int_equal(IAR(0), SPURIOUS);
    assert_int_equal(IAR(1), 27);
    irq_set(&line1, false);
    EOI(1, 27);
    assert_false(irq[1]);
}

static void test_one_of_n(void **state)
{
    enable_spi(9, 0x0f, 0x10, false);
    spi(9, true);
    assert_true(irq[0] && irq[1] && irq[2] && irq[3]);
    assert_int_equal(IAR(2), 41);
    assert_false(irq[0] || irq[1] || irq[2] || irq[3]);
    assert_int_equal(IAR(0), SPURIOUS);
    spi(9, false);
    EOI(2, 41);
    gicd_write8(0x800 + 41, 0xff);
    assert_int_equal(dist_read(0x800 + 41, 1), 0x0f);
}

static void test_groups(void **state)
{
    enable_spi(3, 1, 0x80, false);
    gicd_write(0x084, 8); /* group 1 */
    gicd_write(0x000, 3);
    spi(3, true);
    assert_false(irq[0]); /* GICC_CTLR.EnableGrp1 is 0 */
    gicc_write(0, 0x00, 3);
    assert_true(irq[0]);
    assert_int_equal(IAR(0), 1022);
    assert_int_equal(gicc(0, 0x18), 1022);
    assert_int_equal(gicc(0, 0x28), 35);
    assert_int_equal(gicc(0, 0x20), 35); /* AIAR */
    assert_int_equal(gicc(0, 0xe8), 1u << ((0x80 >> 1) - 64));
    assert_int_equal(gicc(0, 0xd8), 0);
    gicc_write(0, 0x24, 35); /* AEOIR */
    assert_int_equal(gicc(0, 0x14), 0xff);
    gicc_write(0, 0x00, 7); /* AckCtl */
    assert_int_equal(IAR(0), 35);
    EOI(0, 35);
    assert_int_equal(gicc(0, 0x14), 0xff);
}

static void test_fiq(void **state)
{
    enable_spi(3, 1, 0x80, false);
    enable_spi(4, 1, 0x90, false);
    gicd_write(0x084, 0x10);
    gicd_write(0x000, 3);
    gicc_write(0, 0x00, 0xb);
    spi(4, true);
    assert_true(irq[0] && !fiq[0]);
    spi(3, true);
    assert_true(fiq[0] && !irq[0]);
    assert_int_equal(gicc(0, 0x20), SPURIOUS); /* AIAR: the highest is of group 0 */
    assert_int_equal(IAR(0), 35);
    assert_false(fiq[0] || irq[0]);
}

static void test_bad_input(void **state)
{
    EOI(0, 35); /* not active */
    EOI(0, 1019);
    gicc_write(0, 0x1000, 1023);
    gicd_write(0x13c, 0xffffffff); /* beyond the last interrupt */
    assert_int_equal(gicd(0x13c), 0);
    gicd_write(0x7f8, 0xffffffff);
    assert_int_equal(gicd(0x7f8), 0);
    gicd_write(0xbf8, 0xffffffff);
    assert_int_equal(gicd(0xbf8), 0);
    gicd_write(0xcfc, 0xffffffff);
    assert_int_equal(gicd(0xcfc), 0);
    cpu = 99; /* a thread that is no CPU */
    assert_int_equal(gicd(0x800), 0x01010101);
}

static void test_reset(void **state)
{
    enable_spi(3, 1, 0x80, false);
    spi(3, true);
    assert_true(irq[0]);
    dev_reset(gicv2_device(gic));
    assert_false(irq[0]);
    assert_int_equal(gicd(0x104), 0);
    assert_int_equal(gicd(0x204), 8); /* the wire is its driver's */
}

static void test_uniprocessor(void **state)
{
    assert_int_equal(gicd(0x800), 0);
    gicd_write(0x820, 0);
    gicd_write(0x104, 8);
    spi(3, true);
    assert_true(irq[0]);
    assert_int_equal(gicd(0x820), 0);
    assert_int_equal(IAR(0), 35);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_identity),
        T(test_level),
        T(test_level_withdrawn),
        T(test_edge),
        T(test_disabled),
        T(test_priority_order),
        T(test_equal_priority),
        T(test_mask),
        T(test_preemption),
        T(test_subpriority_does_not_preempt),
        T(test_eoi_mode),
        T(test_sgi),
        T(test_sgi_registers),
        T(test_ppi_banked),
        T(test_one_of_n),
        T(test_groups),
        T(test_fiq),
        T(test_bad_input),
        T(test_reset),
        cmocka_unit_test_setup_teardown(test_uniprocessor, setup_one, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
