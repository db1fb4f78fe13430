/*
 * A row of the benchmark: a fixed amount of one kind of work, timed inside the guest.
 */
#ifndef BENCH_ROW_H
#define BENCH_ROW_H

#include <stddef.h>
#include <stdint.h>

struct row {
    const char *name;
    unsigned long n;                /* iterations at full size */
    uint64_t (*run)(unsigned long n); /* returns a checksum of the work: equal under every engine */
    void (*setup)(void);            /* not timed; may be NULL */
};

extern const struct row rows_int[], rows_call[], rows_fp[], rows_vec[], rows_mem[], rows_os[], rows_sync[];

/* What the row took, seconds for all iterations, where that is not the time spent in run(): a latency. */
void row_set_seconds(double seconds);
double row_now(void);

/* End the program with `what' and errno, if it is not true. */
void row_need(int true_, const char *what);

/* Zeroed memory, in pages of its own; huge == 0 asks the kernel for small pages. */
void *row_alloc(unsigned long size, int huge);

static inline uint64_t row_mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static inline uint64_t row_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* The compiler may neither know v nor leave out what made it. */
#define ROW_OPAQUE(v) __asm__ volatile("" : "+r"(v) : : "memory")

#endif
