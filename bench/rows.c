/*
 * The benchmark's program: one row a run.
 *
 *   rows NAME [DIVISOR]        do the row's work, or a fraction of it
 *   rows --time NAME CMD...    run a program; its output makes the checksum
 *   rows --speed NAME CMD...   run `openssl speed -mr'; SECONDS is for 100 MB at the speed that it tells
 *   rows --list
 *
 * Prints "row NAME SECONDS ITERATIONS CHECKSUM".  The same source is built for the guest and for the host.
 */
#define _GNU_SOURCE
#include "row.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct row *const tables[] = {
    rows_int, rows_call, rows_fp, rows_vec, rows_mem, rows_os, rows_sync,
};
#define NTABLES (sizeof tables / sizeof *tables)

static double seconds_set = -1;

void row_set_seconds(double seconds)
{
    seconds_set = seconds;
}

double row_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void row_need(int true_, const char *what)
{
    if (true_)
        return;
    fprintf(stderr, "rows: %s: %s\n", what, strerror(errno));
    exit(1);
}

void *row_alloc(unsigned long size, int huge)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    row_need(p != MAP_FAILED, "mmap");
    if (!huge)
        madvise(p, size, MADV_NOHUGEPAGE);
    return p;
}

static void report(const char *name, double seconds, unsigned long n, uint64_t check)
{
    printf("row %s %.6f %lu %016llx\n", name, seconds, n, (unsigned long long)check);
}

static int list(void)
{
    for (unsigned t = 0; t < NTABLES; t++)
        for (const struct row *r = tables[t]; r->name; r++)
            puts(r->name);
    return 0;
}

static int run(const struct row *r, unsigned long divisor)
{
    unsigned long n = r->n / divisor ? r->n / divisor : 1;
    uint64_t check;
    double t;

    if (r->setup)
        r->setup();
    t = row_now();
    check = r->run(n);
    t = row_now() - t;
    report(r->name, seconds_set >= 0 ? seconds_set : t, n, check);
    return 0;
}

/* What a program writes until it ends, and how long that takes; exits if the program fails. */
struct output {
    double seconds;
    uint64_t check;
    char head[4096]; /* its beginning, terminated */
};

static void read_output(int fd, struct output *out)
{
    static unsigned char buf[65536];
    size_t have = 0;
    ssize_t got;

    while ((got = read(fd, buf, sizeof buf)) > 0)
        for (ssize_t i = 0; i < got; i++) {
            out->check = row_mix(out->check, buf[i]);
            if (have < sizeof out->head - 1)
                out->head[have++] = (char)buf[i];
        }
}

static void run_command(char **argv, struct output *out)
{
    int ends[2], status;
    double t;
    pid_t pid;

    row_need(!pipe(ends), "pipe");
    t = row_now();
    pid = fork();
    row_need(pid >= 0, "fork");
    if (!pid) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execvp(argv[0], argv);
        row_need(0, argv[0]);
    }
    close(ends[1]);
    read_output(ends[0], out);
    row_need(waitpid(pid, &status, 0) == pid, "waitpid");
    out->seconds = row_now() - t;
    if (status)
        exit(1);
}

static int time_command(const char *name, char **argv)
{
    struct output out = {0};

    run_command(argv, &out);
    report(name, out.seconds, 1, out.check);
    return 0;
}

/* "+F:number:name:bytes a second" */
static int speed_command(const char *name, char **argv)
{
    const double bytes = 1e8;
    struct output out = {0};
    const char *line, *speed;

    run_command(argv, &out);
    line = strstr(out.head, "+F:");
    speed = line ? strrchr(line, ':') : NULL;
    if (!speed || strtod(speed + 1, NULL) <= 0)
        return 1;
    report(name, bytes / strtod(speed + 1, NULL), (unsigned long)bytes, 0);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && !strcmp(argv[1], "--exit")) /* what the exec row executes */
        return 0;
    if (argc >= 2 && !strcmp(argv[1], "--list"))
        return list();
    if (argc >= 4 && !strcmp(argv[1], "--time"))
        return time_command(argv[2], argv + 3);
    if (argc >= 4 && !strcmp(argv[1], "--speed"))
        return speed_command(argv[2], argv + 3);
    if (argc >= 2)
        for (unsigned t = 0; t < NTABLES; t++)
            for (const struct row *r = tables[t]; r->name; r++)
                if (!strcmp(r->name, argv[1]))
                    return run(r, argc > 2 && atol(argv[2]) > 0 ? (unsigned long)atol(argv[2]) : 1);
    fprintf(stderr, "usage: rows NAME [DIVISOR] | --time|--speed NAME CMD... | --list\n");
    return 2;
}
