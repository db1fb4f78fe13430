/*
 * How fast the interpreter is: bare-metal loops without an MMU, guest instructions a second.
 *
 *     interp_bench [SECONDS_EACH]
 *
 * Measures, asserts nothing.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "base/compiler.h"
#include "base/report.h"
#include "cpu/cpu.h"

enum { RAM_BASE = 0x40000000, RAM_SIZE = 16 << 20, START = RAM_BASE + 0x8000 };

static const uint32_t integer[] = {
    0xd2800000, 0xd2800021, 0xd2824682, /* x0, x1, x2 = 0, 1, 0x1234 */
    0x8b010000,                         /* 1: add x0, x0, x1 */
    0xca020003,                         /* eor x3, x0, x2 */
    0xd37df064,                         /* lsl x4, x3, #3 */
    0x12001c85,                         /* and w5, w4, #0xff */
    0x8b050042,                         /* add x2, x2, x5 */
    0xf10044bf,                         /* cmp x5, #17 */
    0x9a823006,                         /* csel x6, x0, x2, lo */
    0xf1000421,                         /* subs x1, x1, #1 */
    0x54000041,                         /* b.ne .+8 */
    0x91000421,                         /* add x1, x1, #1 */
    0x17fffff6,                         /* b 1b */
};

static const uint32_t memory[] = {
    0xd2a80000, 0x91440000, /* x0 = RAM + 1 MiB */
    0xaa0003e9, 0xd2807d01, /* x9 = x0, x1 = 1000 */
    0xf9400002,             /* 1: ldr x2, [x0] */
    0x91000442,             /* add x2, x2, #1 */
    0xf8008402,             /* str x2, [x0], #8 */
    0x39400003,             /* ldrb w3, [x0] */
    0x39000403,             /* strb w3, [x0, #1] */
    0xf1000421,             /* subs x1, x1, #1 */
    0x54ffff41,             /* b.ne 1b */
    0xaa0903e0, 0xd2807d01, 0x17fffff7, /* from the start */
};

static const uint32_t calls[] = { /* Fibonacci by recursion */
    0xd2a80000, 0x9148001f, /* sp = RAM + 2 MiB */
    0xd2800300,             /* 0: mov x0, #24 */
    0x94000002, 0x17fffffe, /* bl fib; b 0b */
    0xa9be7bfd,             /* fib: stp x29, x30, [sp, #-32]! */
    0x910003fd,             /* mov x29, sp */
    0xa90153f3,             /* stp x19, x20, [sp, #16] */
    0xaa0003f3,             /* mov x19, x0 */
    0xf100041f, 0x540000e9, /* cmp x0, #1; b.ls 3f */
    0xd1000400, 0x97fffff9, /* sub x0, x0, #1; bl fib */
    0xaa0003f4,             /* mov x20, x0 */
    0xd1000a60, 0x97fffff6, /* sub x0, x19, #2; bl fib */
    0x8b140000,             /* add x0, x0, x20 */
    0xa94153f3, 0xa8c27bfd, /* 3: ldp x19, x20, [sp, #16]; ldp x29, x30, [sp], #32 */
    0xd65f03c0,             /* ret */
};

/* Every second instruction on another page: the worst case for decoded pages. */
static const uint32_t pages[1024 + 2] = {
    [0] = 0x94000400,    /* bl .+4096 */
    [1] = 0x17ffffff,    /* b .-4 */
    [1024] = 0x91000400, /* add x0, x0, #1 */
    [1025] = 0xd65f03c0, /* ret */
};

static const struct {
    const char *name;
    const uint32_t *words;
    size_t n;
} programs[] = {
    {"integer", integer, ARRAY_LEN(integer)},
    {"memory", memory, ARRAY_LEN(memory)},
    {"calls", calls, ARRAY_LEN(calls)},
    {"pages", pages, ARRAY_LEN(pages)},
};

static struct cpu *running;

static void stop(int sig)
{
    (void)sig;
    atomic_fetch_or(&running->pending, PEND_STOP);
}

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void run(struct mem *mem, struct cpu *cpu, unsigned program, double seconds)
{
    struct itimerval timer = {
        .it_value = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)}};
    double start;

    if (!mem_write(mem, START, programs[program].words, programs[program].n * 4))
        die("no memory at the start address");
    mem_code_stale_all(mem);
    cpu_reset(cpu, START, 0);
    atomic_store(&cpu->pending, 0);
    cpu->icount = 0;
    running = cpu;
    signal(SIGALRM, stop);
    setitimer(ITIMER_REAL, &timer, NULL);
    start = now();
    interp_engine.run(cpu);
    printf("%-8s %7.1f million instructions/s\n", programs[program].name,
           (double)cpu->icount / 1e6 / (now() - start));
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 1;
    struct mem *mem = mem_new(RAM_BASE, RAM_SIZE);
    struct cluster *cluster;

    if (!mem || seconds < 0.01)
        die("usage: interp_bench [SECONDS_EACH]");
    cluster = cluster_new(1, mem, cpu_model_find("cortex-a57"), &interp_engine);
    for (unsigned i = 0; i < ARRAY_LEN(programs); i++)
        run(mem, cluster->cpu[0], i, seconds);
    cluster_free(cluster);
    mem_free(mem);
    return 0;
}
