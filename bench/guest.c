/*
 * What the guest runs under `make bench`: loops of known length, timed by the guest's own clock.  It prints
 * "bench NAME SECONDS INSTRUCTIONS" (0 where the number is not known).  Built for arm64, and natively for comparison.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void report(const char *name, double start, double instructions)
{
    printf("bench %s %.6f %.0f\n", name, now() - start, instructions);
    fflush(stdout);
}

static volatile uint64_t sink;

/* Eight instructions a turn: adds, logic, a shift, compare and branch. */
static void bench_integer(uint64_t turns)
{
    double start = now();

#ifdef __aarch64__
    uint64_t a = 1, b = 2, n = turns;

    __asm__ volatile("1: add %0, %0, %1\n"
                     "   eor %1, %1, %0\n"
                     "   add %0, %0, %1, lsl #3\n"
                     "   and %1, %1, #0xffffffff\n"
                     "   orr %0, %0, #1\n"
                     "   sub %1, %0, %1\n"
                     "   subs %2, %2, #1\n"
                     "   b.ne 1b\n"
                     : "+r"(a), "+r"(b), "+r"(n)
                     :
                     : "cc");
    sink = a + b;
#else
    uint64_t a = 1, b = 2;

    for (uint64_t n = turns; n; n--) {
        a += b;
        b ^= a;
        a += b << 3;
        b &= 0xffffffff;
        a |= 1;
        b = a - b;
        __asm__ volatile("" : "+r"(a), "+r"(b));
    }
    sink = a + b;
#endif
    report("integer", start, 8.0 * (double)turns);
}

/* Pointer chasing over 1 MiB: loads through the TLB. */
static void bench_memory(uint64_t turns)
{
    static uint32_t next[1 << 18];
    uint32_t at = 0;
    double start;

    for (uint32_t i = 0; i < 1 << 18; i++)
        next[i] = (i * 1664525U + 1013904223U) & ((1 << 18) - 1);
    start = now();
    for (uint64_t i = 0; i < turns; i++)
        at = next[at];
    sink = at;
    report("memory", start, 0);
}

static void bench_float(uint64_t turns)
{
    double start = now(), x = 1.0, y = 0.5;

    for (uint64_t i = 0; i < turns; i++) {
        x = x * 0.999999 + y;
        y = y + 1.0 / x;
    }
    sink = (uint64_t)(x + y);
    report("float", start, 0);
}

static void bench_copy(uint64_t turns)
{
    static char from[65536], to[65536];
    double start = now();

    for (uint64_t i = 0; i < turns; i++) {
        memcpy(to, from, sizeof to);
        __asm__ volatile("" : : : "memory"); /* else the copy could be left out */
        from[i & 0xffff] = to[(i * 7) & 0xffff];
    }
    report("copy", start, 0);
}

int main(int argc, char **argv)
{
    uint64_t scale = argc > 1 && !strcmp(argv[1], "long") ? 10 : 1;

    bench_integer(scale * 20000000);
    bench_memory(scale * 5000000);
    bench_float(scale * 2000000);
    bench_copy(scale * 2000);
    return 0;
}
