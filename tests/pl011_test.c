/*
 * dev/pl011: FIFOs, triggers, interrupts, back-pressure, loopback, break.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/pl011.h"
#include "fake_chardev.h"

enum { DR = 0x00, RSR = 0x04, FR = 0x18, LCR_H = 0x2c, CR = 0x30, IFLS = 0x34 };
enum { IMSC = 0x38, RIS = 0x3c, MIS = 0x40, ICR = 0x44 };
enum { RXFE = 0x10, TXFF = 0x20, RXFF = 0x40, TXFE = 0x80, BUSY = 0x08 };
enum { INT_RX = 0x10, INT_TX = 0x20, INT_RT = 0x40, INT_BE = 0x200, INT_OE = 0x400 };
enum { FEN = 0x10 };

static GMutex lock;
static struct device *uart;
static struct fake_chardev *chr;
static bool line;

static void see_line(void *opaque, unsigned n, bool level)
{
    line = level;
}

static uint32_t rd(unsigned off)
{
    uint32_t v;

    g_mutex_lock(&lock);
    v = (uint32_t)uart->regs.ops->read(uart->regs.dev, off, 4);
    g_mutex_unlock(&lock);
    return v;
}

static void wr(unsigned off, uint32_t v)
{
    g_mutex_lock(&lock);
    uart->regs.ops->write(uart->regs.dev, off, v, 4);
    g_mutex_unlock(&lock);
}

static int setup(void **state)
{
    chr = fake_chardev_new();
    uart = pl011_new(&lock, &chr->chr);
    uart->irq = (struct irq_line){see_line, NULL, 0};
    line = false;
    return 0;
}

static int teardown(void **state)
{
    dev_free(uart);
    chardev_free(&chr->chr);
    return 0;
}

static void print(const char *s)
{
    for (; *s; s++)
        wr(DR, (uint8_t)*s);
}

static void test_output(void **state)
{
    print("early"); /* before anything is enabled */
    assert_true(fake_wrote(chr, "early"));
    assert_int_equal(rd(FR) & (TXFF | TXFE | BUSY), TXFE);
    wr(IMSC, INT_TX);
    assert_true(line); /* raised by the characters that went out */
    assert_int_equal(rd(MIS), INT_TX);
    wr(ICR, INT_TX);
    assert_false(line);
    wr(DR, 'x');
    assert_true(line);
}

static void test_no_back_end(void **state)
{
    struct device *alone = pl011_new(&lock, NULL);

    alone->regs.ops->write(alone->regs.dev, DR, 'x', 4);
    assert_int_equal(alone->regs.ops->read(alone->regs.dev, FR, 4) & TXFE, TXFE);
    dev_free(alone);
}

static void test_back_pressure(void **state)
{
    wr(LCR_H, FEN);
    chr->room = 3;
    print("0123456789");
    assert_true(fake_wrote(chr, "012"));
    assert_int_equal(rd(FR) & (TXFE | BUSY), BUSY);
    wr(ICR, INT_TX);
    print("abcdefghi");
    assert_int_equal(rd(FR) & TXFF, TXFF);
    assert_int_equal(rd(RIS) & INT_TX, 0);
    wr(DR, '!'); /* into a full FIFO: lost, as in hardware */
    chr->room = 5;
    chardev_writable(&chr->chr);
    assert_true(fake_wrote(chr, "34567"));
    assert_int_equal(rd(FR) & TXFF, 0);
    assert_int_equal(rd(RIS) & INT_TX, 0); /* 11 left, the trigger is 8 */
    chr->room = 3;
    chardev_writable(&chr->chr);
    assert_int_equal(rd(RIS) & INT_TX, INT_TX);
    chr->room = SIZE_MAX;
    chardev_writable(&chr->chr);
    assert_true(fake_wrote(chr, "89abcdefghi"));
    assert_int_equal(rd(FR) & (TXFE | BUSY), TXFE);
}

static void test_nothing_lost_at_exit(void **state)
{
    wr(LCR_H, FEN);
    chr->room = 0;
    print("tail");
    chr->room = SIZE_MAX;
    chardev_drain(&chr->chr);
    assert_true(fake_wrote(chr, "tail"));
}

static void test_input_without_fifo(void **state)
{
    wr(IMSC, INT_RX);
    assert_int_equal(fake_type(chr, "ab"), 1);
    assert_true(line);
    assert_int_equal(rd(FR) & (RXFE | RXFF), RXFF);
    assert_int_equal(chardev_can_receive(&chr->chr), 0);
    assert_int_equal(rd(DR), 'a');
    assert_false(line);
    assert_int_equal(rd(FR) & (RXFE | RXFF), RXFE);
    assert_true(chr->accepts > 0);
    assert_int_equal(rd(DR), 0);
}

static void test_input_triggers(void **state)
{
    wr(LCR_H, FEN);
    wr(IMSC, INT_RX);
    assert_int_equal(fake_type(chr, "1234567"), 7); /* the trigger is 8 */
    assert_false(line);
    assert_int_equal(rd(RIS), INT_RT);
    fake_type(chr, "8");
    assert_true(line);
    assert_int_equal(rd(DR), '1');
    assert_false(line);
    wr(IFLS, 0); /* 1/8: two characters */
    fake_type(chr, "9");
    assert_true(line);
    for (int i = '2'; i <= '9'; i++) {
        assert_int_equal(rd(RIS) & INT_RT, INT_RT);
        assert_int_equal(rd(DR), i);
    }
    assert_int_equal(rd(RIS) & (INT_RT | INT_RX), 0);
    assert_int_equal(fake_type(chr, "abcdefghijklmnopqr"), 16);
    assert_int_equal(rd(FR) & RXFF, RXFF);
}

/* What an interrupt handler that acknowledges first and reads then must not lose. */
static void test_acknowledge_then_read(void **state)
{
    wr(LCR_H, FEN);
    wr(IMSC, INT_RX | INT_RT);
    fake_type(chr, "a");
    assert_true(line);
    wr(ICR, INT_RX | INT_RT);
    assert_false(line);
    fake_type(chr, "b");
    assert_true(line);
    assert_int_equal(rd(DR), 'a');
    assert_int_equal(rd(DR), 'b');
    assert_false(line);
}

static void test_break(void **state)
{
    wr(IMSC, INT_BE);
    chardev_send_event(&chr->chr, CHARDEV_BREAK);
    assert_true(line);
    assert_int_equal(rd(DR), 0x400);
    assert_int_equal(rd(RSR), 4);
    wr(RSR, 0);
    assert_int_equal(rd(RSR), 0);
    wr(ICR, INT_BE);
    assert_false(line);
    wr(LCR_H, 1);
    assert_true(chr->breaking);
    wr(LCR_H, 0);
    assert_false(chr->breaking);
}

static void test_overrun(void **state)
{
    fake_type(chr, "a");
    chardev_send_event(&chr->chr, CHARDEV_BREAK); /* cannot be held back, and there is no room */
    assert_int_equal(rd(RIS) & INT_OE, INT_OE);
    assert_int_equal(rd(RSR), 8);
    assert_int_equal(rd(DR), 'a');
    fake_type(chr, "b");
    assert_int_equal(rd(DR), 0x800 | 'b');
    fake_type(chr, "c");
    assert_int_equal(rd(DR), 'c');
}

static void test_loopback(void **state)
{
    wr(LCR_H, FEN);
    wr(CR, 0x381);
    assert_int_equal(chardev_can_receive(&chr->chr), 0);
    print("loop");
    assert_true(fake_wrote(chr, ""));
    assert_int_equal(rd(DR), 'l');
    assert_int_equal(rd(DR), 'o');
    wr(ICR, 0x7ff);
    wr(CR, 0x381 | 0x800); /* RTS drives CTS */
    assert_int_equal(rd(FR) & 0x107, 1);
    assert_int_equal(rd(RIS) & 0xf, 2);
    wr(CR, 0x301);
    assert_int_equal(rd(FR) & 0x107, 7);
}

static void test_receiver_off(void **state)
{
    wr(CR, 0x101);
    assert_int_equal(chardev_can_receive(&chr->chr), 0);
    wr(CR, 0x301);
    assert_int_equal(chardev_can_receive(&chr->chr), 1);
}

static void test_fifo_switch(void **state)
{
    wr(LCR_H, FEN);
    fake_type(chr, "abc");
    chr->room = 0;
    print("xyz");
    wr(LCR_H, 0);
    assert_int_equal(rd(FR) & (RXFE | TXFF), RXFE | TXFF);
    assert_int_equal(rd(RIS) & (INT_RX | INT_RT), 0);
    chr->room = SIZE_MAX;
    chardev_writable(&chr->chr);
    assert_true(fake_wrote(chr, "xyz"));
}

static void test_reset(void **state)
{
    wr(LCR_H, FEN);
    wr(IMSC, INT_RX | INT_RT);
    fake_type(chr, "abc");
    assert_true(line);
    dev_reset(uart);
    assert_false(line);
    assert_int_equal(rd(FR), 0x97);
    assert_int_equal(rd(CR), 0x300);
    assert_int_equal(rd(RIS), 0);
}

static void test_bytes(void **state)
{
    uart->regs.ops->write(uart->regs.dev, DR, 'b', 1);
    assert_true(fake_wrote(chr, "b"));
    uart->regs.ops->write(uart->regs.dev, DR + 1, 'c', 1);
    assert_true(fake_wrote(chr, ""));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_output),
        T(test_no_back_end),
        T(test_back_pressure),
        T(test_nothing_lost_at_exit),
        T(test_input_without_fifo),
        T(test_input_triggers),
        T(test_acknowledge_then_read),
        T(test_break),
        T(test_overrun),
        T(test_loopback),
        T(test_receiver_off),
        T(test_fifo_switch),
        T(test_reset),
        T(test_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
