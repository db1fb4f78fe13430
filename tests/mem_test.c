/*
 * mem/: the map, device access splitting, code generations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <glib.h>

#include "mem/mem.h"
#include "mem/ram.h"

#define RAM_BASE UINT64_C(0x40000000)
#define RAM_SIZE (UINT64_C(16) << 20)

/* A device that writes down what it is asked, and answers with the offset in each byte. */
struct log {
    unsigned n;
    struct { bool write; uint64_t off, value; unsigned size; } op[16];
};

static uint64_t log_read(void *dev, uint64_t off, unsigned size)
{
    struct log *log = dev;
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)(uint8_t)(off + i) << 8 * i;
    log->op[log->n].write = false;
    log->op[log->n].off = off;
    log->op[log->n++].size = size;
    return v;
}

static void log_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    struct log *log = dev;

    log->op[log->n].write = true;
    log->op[log->n].off = off;
    log->op[log->n].value = value;
    log->op[log->n++].size = size;
}

static const struct mem_ops any_ops = {.read = log_read, .write = log_write};
static const struct mem_ops word_ops = {.read = log_read, .write = log_write, .min_size = 4, .max_size = 4};
static const struct mem_ops odd_ops = {.read = log_read, .write = log_write, .unaligned = true};

static int setup(void **state)
{
    *state = mem_new(RAM_BASE, RAM_SIZE);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    mem_free(*state);
    return 0;
}

static void test_new_refuses(void **state)
{
    assert_null(mem_new(RAM_BASE, 0));
    assert_null(mem_new(RAM_BASE + 1, RAM_SIZE));
    assert_null(mem_new(RAM_BASE, RAM_SIZE + 512));
    assert_null(mem_new(-(uint64_t)MEM_PAGE_SIZE, 2 * MEM_PAGE_SIZE));
    assert_null(mem_new(0, UINT64_C(1) << 60));
}

static void test_span_bounds(void **state)
{
    struct mem *mem = *state;

    assert_non_null(mem_span(mem, RAM_BASE, RAM_SIZE).hva);
    assert_int_equal(mem_span(mem, RAM_BASE + 5, 7).len, 7);
    assert_null(mem_span(mem, RAM_BASE, RAM_SIZE + 1).hva);
    assert_null(mem_span(mem, RAM_BASE - 1, 2).hva);
    assert_null(mem_span(mem, RAM_BASE + RAM_SIZE - 1, 2).hva);
    assert_null(mem_span(mem, RAM_BASE + 8, UINT64_MAX).hva);
    assert_null(mem_span(mem, UINT64_MAX, 1).hva);
}

static void test_read_write(void **state)
{
    struct mem *mem = *state;
    static uint8_t rom[MEM_PAGE_SIZE];
    uint8_t buf[16];
    bool writable;

    rom[3] = 0x33;
    mem_add_rom(mem, 0, rom, sizeof rom);
    assert_true(mem_write(mem, RAM_BASE + 100, "hello", 5));
    assert_true(mem_read(mem, RAM_BASE + 101, buf, 4));
    assert_memory_equal(buf, "ello", 4);
    assert_true(mem_read(mem, 3, buf, 1));
    assert_int_equal(buf[0], 0x33);
    assert_false(mem_write(mem, 3, "x", 1));
    assert_int_equal(rom[3], 0x33);
    assert_true(mem_write_force(mem, 3, "x", 1));
    assert_int_equal(rom[3], 'x');
    assert_false(mem_read(mem, MEM_PAGE_SIZE - 1, buf, 2));
    assert_false(mem_write(mem, RAM_BASE + RAM_SIZE - 2, "abc", 3));
    assert_true(mem_read(mem, RAM_BASE + RAM_SIZE - 2, buf, 2));
    assert_int_equal(buf[0], 0);

    assert_non_null(mem_page_hva(mem, RAM_BASE + 0x1234, &writable));
    assert_true(writable);
    assert_ptr_equal(mem_page_hva(mem, 0xfff, &writable), rom);
    assert_false(writable);
    assert_null(mem_page_hva(mem, 0x9000000, &writable));
}

static void add(struct mem *mem, struct mem_region *r, const char *name, uint64_t base, uint64_t size,
                const struct mem_ops *ops, struct log *log)
{
    *r = (struct mem_region){.name = name, .base = base, .size = size, .ops = ops, .dev = log, .enabled = true};
    mem_add_region(mem, r);
}

static void test_io_splits(void **state)
{
    struct mem *mem = *state;
    struct log log = {0};
    struct mem_region word, any, odd;
    uint64_t v;

    add(mem, &word, "word", 0x1000, 0x100, &word_ops, &log);
    add(mem, &any, "any", 0x2000, 0x100, &any_ops, &log);
    add(mem, &odd, "odd", 0x3000, 0x100, &odd_ops, &log);

    /* 8 bytes at a device of 4: two accesses, low one first. */
    assert_true(mem_io_read(mem, 0x1008, 8, &v));
    assert_int_equal(v, UINT64_C(0x0f0e0d0c0b0a0908));
    assert_int_equal(log.n, 2);
    assert_int_equal(log.op[0].off, 8);
    assert_int_equal(log.op[1].off, 12);
    assert_true(mem_io_write(mem, 0x1008, 8, UINT64_C(0x1122334455667788)));
    assert_int_equal(log.n, 4);
    assert_int_equal(log.op[2].value, 0x55667788);
    assert_int_equal(log.op[3].value, 0x11223344);

    /* A narrow read is widened and cut; a narrow write has no effect. */
    log.n = 0;
    assert_true(mem_io_read(mem, 0x1006, 2, &v));
    assert_int_equal(v, 0x0706);
    assert_int_equal(log.op[0].off, 4);
    assert_int_equal(log.op[0].size, 4);
    assert_true(mem_io_write(mem, 0x1006, 2, 1));
    assert_int_equal(log.n, 1);

    /* Unaligned: in aligned pieces, unless the device takes it. */
    log.n = 0;
    assert_true(mem_io_read(mem, 0x2003, 4, &v));
    assert_int_equal(v, 0x06050403);
    assert_int_equal(log.n, 3);
    assert_int_equal(log.op[1].off, 4);
    assert_int_equal(log.op[1].size, 2);
    log.n = 0;
    assert_true(mem_io_read(mem, 0x3003, 4, &v));
    assert_int_equal(v, 0x06050403);
    assert_int_equal(log.n, 1);

    /* Over the end, and where nothing is. */
    assert_false(mem_io_read(mem, 0x10fe, 4, &v));
    assert_false(mem_io_write(mem, 0x4000, 4, 0));
    assert_false(mem_io_read(mem, UINT64_MAX, 8, &v));
}

static void expect_region(struct mem *mem, uint64_t pa, const struct mem_region *r)
{
    assert_ptr_equal(mem_find_region(mem, pa), r);
}

static void test_move_and_overlap(void **state)
{
    struct mem *mem = *state;
    struct log log = {0};
    struct mem_region small, big, last;
    uint64_t v;

    add(mem, &small, "small", 0x10001000, 0x1000, &any_ops, &log);
    add(mem, &big, "big", 0x20000000, 0x4000, &any_ops, &log);
    add(mem, &last, "last", 0x30000000, 0x1000, &any_ops, &log);

    /* big around small: the region added first wins, both ends of big remain, with their own offsets. */
    mem_region_move(mem, &big, 0x10000000, true);
    expect_region(mem, 0x20000000, NULL);
    expect_region(mem, 0x10000fff, &big);
    expect_region(mem, 0x10001000, &small);
    expect_region(mem, 0x10001fff, &small);
    expect_region(mem, 0x10002000, &big);
    expect_region(mem, 0x10003fff, &big);
    expect_region(mem, 0x10004000, NULL);
    log.n = 0;
    assert_true(mem_io_read(mem, 0x10002010, 4, &v));
    assert_int_equal(log.op[0].off, 0x2010);
    /* An access from one region into another: nobody answers. */
    assert_false(mem_io_read(mem, 0x10000ffc, 8, &v));

    mem_region_move(mem, &small, 0x10001000, false);
    expect_region(mem, 0x10001000, &big);
    mem_region_move(mem, &last, 0x10003800, true);
    expect_region(mem, 0x10003fff, &big);
    expect_region(mem, 0x10004000, &last);
    mem_region_move(mem, &last, UINT64_MAX - 0xfff, true);
    expect_region(mem, UINT64_MAX, NULL); /* base + size wraps: hidden */
    mem_region_move(mem, &last, UINT64_MAX - 0x1fff, true);
    expect_region(mem, UINT64_MAX - 0x1000, &last);
}

/* Answers 1 when its lock, which is `dev', could not be taken. */
static uint64_t read_locked(void *dev, uint64_t off, unsigned size)
{
    if (!g_mutex_trylock(dev))
        return 1;
    g_mutex_unlock(dev);
    return 0;
}

static void test_device_lock_is_held(void **state)
{
    static const struct mem_ops ops = {.read = read_locked};
    struct mem *mem = *state;
    GMutex lock;
    struct mem_region r = {.name = "locked", .size = 8, .ops = &ops, .dev = &lock, .lock = &lock, .enabled = true};
    uint64_t v;

    g_mutex_init(&lock);
    mem_add_region(mem, &r);
    assert_true(mem_io_read(mem, 0, 8, &v));
    assert_int_equal(v, 1);
    assert_true(g_mutex_trylock(&lock)); /* given back */
    g_mutex_unlock(&lock);
    g_mutex_clear(&lock);
}

static void test_code_generations(void **state)
{
    struct mem *mem = *state;
    uint64_t p0 = RAM_BASE, p1 = RAM_BASE + MEM_PAGE_SIZE, p2 = p1 + MEM_PAGE_SIZE;
    uint32_t g0 = mem_code_generation(mem, p0), g1 = mem_code_generation(mem, p1), g2 = mem_code_generation(mem, p2);
    uint32_t rom = mem_code_generation(mem, 0);

    mem_code_stale(mem, p1 + 8, 64);
    assert_int_equal(mem_code_generation(mem, p0), g0);
    assert_int_not_equal(mem_code_generation(mem, p1), g1);
    g1 = mem_code_generation(mem, p1);
    mem_code_stale(mem, p1 - 1, 2);
    assert_int_not_equal(mem_code_generation(mem, p0 + 4), g0);
    assert_int_not_equal(mem_code_generation(mem, p1), g1);
    assert_int_equal(mem_code_generation(mem, p2), g2);
    mem_code_stale(mem, p2, 0);
    assert_int_equal(mem_code_generation(mem, p2), g2);
    assert_true(mem_write(mem, p2, "x", 1));
    assert_int_not_equal(mem_code_generation(mem, p2), g2);
    assert_int_equal(mem_code_generation(mem, 0), rom);
    mem_code_stale_all(mem);
    assert_int_not_equal(mem_code_generation(mem, 0), rom);
}

static void collect(void *arg, const char *name, uint64_t base, uint64_t size, bool is_memory)
{
    g_string_append_printf(arg, "%s %lx %lx %d;", name, (unsigned long)base, (unsigned long)size, is_memory);
}

static void test_each_in_order(void **state)
{
    struct mem *mem = *state;
    struct log log = {0};
    struct mem_region r, low;
    GString *s = g_string_new(NULL);

    add(mem, &r, "high", 0x80000000, 0x1000, &any_ops, &log);
    add(mem, &low, "low", 0x1000, 0x1000, &any_ops, &log);
    mem_each(mem, collect, s);
    assert_string_equal(s->str, "low 1000 1000 0;ram 40000000 1000000 1;high 80000000 1000 0;");
    g_string_free(s, TRUE);
}

/* Big RAM costs nothing until touched, and can be given back. */
static void test_ram_is_lazy(void **state)
{
    size_t size = (size_t)64 << 30;
    uint8_t *p = ram_map(size, true);

    assert_non_null(p);
    p[size - 1] = 1;
    p[0] = 1;
    ram_discard(p, MEM_PAGE_SIZE);
    assert_int_equal(p[0], 0);
    assert_int_equal(p[size - 1], 1);
    ram_unmap(p, size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_refuses),
        cmocka_unit_test_setup_teardown(test_span_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_io_splits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_move_and_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_device_lock_is_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_code_generations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_in_order, setup, teardown),
        cmocka_unit_test(test_ram_is_lazy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
