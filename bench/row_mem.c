/* The C library's memory and string functions, and random access to more pages than a TLB holds. */
#define _GNU_SOURCE
#include "row.h"

#include <string.h>

enum { BUFFER = 64 << 10, MEGA = 1 << 20 };

static char *from, *to;

/* Through pointers, or the compiler would put its own code in place of the library's. */
static void *(*volatile set)(void *, int, size_t) = memset;
static void *(*volatile copy)(void *restrict, const void *restrict, size_t) = memcpy;
static size_t (*volatile length)(const char *) = strlen;
static int (*volatile compare)(const char *, const char *) = strcmp;

static void setup_buffers(void)
{
    from = row_alloc(BUFFER, 0);
    to = row_alloc(BUFFER, 0);
    for (unsigned i = 0; i < BUFFER; i++)
        from[i] = (char)(i % 251 + 1);
    memcpy(to, from, BUFFER);
    from[BUFFER - 1] = to[BUFFER - 1] = '\0';
}

static uint64_t run_memset(unsigned long n)
{
    while (n--)
        set(to, (int)(n & 0xff), BUFFER - 1);
    return (uint64_t)to[BUFFER / 2];
}

static uint64_t run_memcpy(unsigned long n)
{
    while (n--)
        copy(to, from, BUFFER - (n & 63));
    return (uint64_t)to[BUFFER / 2];
}

/* Lengths as programs have them: most short, some of a thousand bytes. */
static uint64_t run_strlen(unsigned long n)
{
    uint64_t sum = 0;

    for (unsigned long i = 0; i < n; i++)
        sum += length(from + BUFFER - 1 - (i & 7 ? i % 61 : i % 8191));
    return sum;
}

static uint64_t run_strcmp(unsigned long n)
{
    uint64_t sum = 0;

    for (unsigned long i = 0; i < n; i++) {
        size_t at = BUFFER - 1 - (i & 7 ? i % 61 : i % 2047);

        sum += (uint64_t)compare(from + at, to + at) + at;
    }
    return sum;
}

/* A chase: each step's address comes from the one before.  Every cache line once, in a random order. */

static uint32_t *chain;

static void setup_chase(uint32_t lines)
{
    uint64_t s = 314159265358u;
    uint32_t *order = row_alloc(lines * 4ul, 1);

    chain = row_alloc(lines * 64ul, 1);
    for (uint32_t i = 0; i < lines; i++)
        order[i] = i;
    for (uint32_t i = lines - 1; i; i--) {
        uint32_t j = (uint32_t)(row_random(&s) % i), t = order[i];

        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t i = 0; i < lines; i++)
        chain[order[i] * 16ul] = order[(i + 1) % lines];
}

static void setup_chase32(void) { setup_chase(32 * MEGA / 64); }
static void setup_chase64(void) { setup_chase(64 * MEGA / 64); }

static uint64_t run_chase(unsigned long n)
{
    uint32_t at = 0;

    while (n--)
        at = chain[at * 16ul];
    return at;
}

/* Independent accesses: a host may overlap them. */
static uint64_t run_random(unsigned long n, uint32_t lines)
{
    uint64_t s = 577215664901u, sum = 0;

    while (n--) {
        uint32_t *p = &chain[(row_random(&s) >> 20 & (lines - 1)) * 16ul];

        sum += *p;
        *p ^= (uint32_t)n;
    }
    return sum;
}

static uint64_t run_random32(unsigned long n) { return run_random(n, 32 * MEGA / 64); }
static uint64_t run_random64(unsigned long n) { return run_random(n, 64 * MEGA / 64); }

const struct row rows_mem[] = {
    {"memset", 100000, run_memset, setup_buffers},
    {"memcpy", 20000, run_memcpy, setup_buffers},
    {"strlen", 1000000, run_strlen, setup_buffers},
    {"strcmp", 3000000, run_strcmp, setup_buffers},
    {"chase-32M", 3000000, run_chase, setup_chase32},
    {"chase-64M", 2500000, run_chase, setup_chase64},
    {"random-32M", 4000000, run_random32, setup_chase32},
    {"random-64M", 4000000, run_random64, setup_chase64},
    {0},
};
