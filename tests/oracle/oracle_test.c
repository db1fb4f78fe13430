/*
 * The interpreter against an outside AArch64: random instructions on random states, all state compared.
 *
 *     oracle_test [--cases N] [--seed S] [--only NAME] [--model CPU] [--verbose] RUNNER [ARG...]
 *     oracle_test --self-test ...     first one planted wrong result must be seen
 *
 * RUNNER is the command that runs oracle_run, as a rule "qemu-aarch64 oracle_run".  The last line is
 * "N passed, N failed".
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/report.h"
#include "cases.h"

enum { REPS = 8, SHOW_PER_LINE = 2 };

struct runner {
    FILE *to, *from;
    pid_t pid;
};

struct tally {
    uint64_t cases, failed;
};

struct test {
    struct oracle_machine machine;
    struct runner runner;
    char **command;
    uint64_t cases, seed;
    const char *only, *model;
    bool verbose, planted;
    uint64_t plant; /* falsify this case's hash */
    uint64_t ran, failed;
    struct tally tally[A64_NOPS];
    struct oracle_record rec[ORACLE_BATCH];
    uint16_t op[ORACLE_BATCH];
    uint64_t want[ORACLE_BATCH * REPS];
};

static struct test t;

static void runner_start(struct runner *r, char **command)
{
    int in[2], out[2];

    if (pipe(in) || pipe(out))
        die("pipe: no file descriptors");
    r->pid = fork();
    if (r->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        close(out[0]);
        if (!t.verbose)
            (void)!freopen("/dev/null", "w", stderr); /* the death of a case is ours to report */
        execvp(command[0], command);
        perror(command[0]);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    (void)fcntl(out[0], F_SETPIPE_SZ, 1 << 20); /* only to let both sides run ahead */
    (void)fcntl(in[1], F_SETPIPE_SZ, 1 << 20);
    r->to = fdopen(in[1], "w");
    r->from = fdopen(out[0], "r");
}

static void runner_stop(struct runner *r)
{
    fclose(r->to);
    fclose(r->from);
    waitpid(r->pid, NULL, 0);
}

static bool runner_send(struct runner *r, const struct oracle_record *rec, struct oracle_batch batch)
{
    return fwrite(&batch, sizeof batch, 1, r->to) == 1 &&
           fwrite(rec, sizeof *rec, batch.n, r->to) == batch.n && fflush(r->to) == 0;
}

/*
 * The outside's state after one repetition of record i.  The record keeps its slot, because its address
 * matters: the slots before it are filled with copies.  False: the outside died on it.
 */
static bool ask_detail(unsigned i, uint32_t rep, struct oracle_state *st)
{
    static struct oracle_record rec[ORACLE_BATCH];
    struct runner r;
    bool ok;

    for (unsigned k = 0; k <= i; k++) {
        rec[k] = t.rec[i];
        if (k < i)
            rec[k].word = rec[k].prefix = (uint32_t)ORACLE_NOP;
    }
    runner_start(&r, t.command);
    ok = runner_send(&r, rec, (struct oracle_batch){.n = i + 1, .reps = 1, .first_rep = rep, .detail = 1});
    for (unsigned k = 0; ok && k <= i; k++)
        ok = fread(st, sizeof *st, 1, r.from) == 1;
    runner_stop(&r);
    return ok;
}

static void show(unsigned i, uint32_t rep)
{
    static struct oracle_state before, ours, theirs;
    char text[A64_TEXT_SIZE];
    uint32_t word = t.rec[i].word;

    a64_disasm(word, text, sizeof text);
    printf("FAIL %s  %08x  %s  fpcr %08x\n", a64_info[t.op[i]].name, word, text, t.rec[i].fpcr);
    oracle_make(&t.rec[i], rep, &before);
    if (!oracle_interpret(&t.machine, &t.rec[i], i, rep, &ours))
        printf("    ours: exception, ESR %#" PRIx64 "\n", t.machine.cpu->sys.esr_el1);
    else if (!ask_detail(i, rep, &theirs))
        printf("    theirs: died\n");
    else
        oracle_print_difference(&before, &ours, "ours", &theirs, "theirs");
}

static void fail(unsigned i, uint32_t rep)
{
    struct tally *tally = &t.tally[t.op[i]];

    t.failed++;
    if (tally->failed++ < SHOW_PER_LINE && !t.planted)
        show(i, rep);
}

static void interpret_batch(unsigned n)
{
    static struct oracle_state st;

    for (unsigned i = 0; i < n; i++)
        for (uint32_t rep = 0; rep < REPS; rep++)
            t.want[i * REPS + rep] =
                oracle_interpret(&t.machine, &t.rec[i], i, rep, &st) ? oracle_hash(&st) : 0;
    if (t.planted)
        t.want[t.plant % (n * REPS)] ^= 1;
}

/* Does the outside live through records first to last - 1, each in its slot? */
static bool survives(unsigned first, unsigned last)
{
    static struct oracle_record rec[ORACLE_BATCH];
    struct runner r;
    uint64_t got;
    bool ok;

    memcpy(rec, t.rec, last * sizeof *rec);
    for (unsigned k = 0; k < first; k++)
        rec[k].word = rec[k].prefix = (uint32_t)ORACLE_NOP;
    runner_start(&r, t.command);
    ok = runner_send(&r, rec, (struct oracle_batch){.n = last, .reps = REPS});
    for (unsigned k = 0; ok && k < last * REPS; k++)
        ok = fread(&got, sizeof got, 1, r.from) == 1;
    runner_stop(&r);
    return ok;
}

/* The outside has died of a record from `first' on: find it by halving. */
static void blame(unsigned first, unsigned n)
{
    unsigned last = n;

    while (last - first > 1) {
        unsigned mid = (first + last) / 2;
        if (survives(first, mid))
            first = mid;
        else
            last = mid;
    }
    fail(first, 0);
}

/* After a death the rest of the batch is given up. */
static void run_batch(unsigned n)
{
    uint64_t got;
    unsigned done = 0;

    if (!runner_send(&t.runner, t.rec, (struct oracle_batch){.n = n, .reps = REPS}))
        die("the other side does not take cases");
    interpret_batch(n);
    for (; done < n * REPS && fread(&got, sizeof got, 1, t.runner.from) == 1; done++) {
        unsigned i = done / REPS;
        t.ran++;
        t.tally[t.op[i]].cases++;
        if (got != t.want[done])
            fail(i, done % REPS);
    }
    if (done == n * REPS)
        return;
    t.ran++;
    runner_stop(&t.runner);
    blame(done / REPS, n);
    runner_start(&t.runner, t.command);
}

static unsigned lines(uint16_t list[A64_NOPS])
{
    unsigned n = 0;

    for (unsigned op = 1; op < A64_NOPS; op++) {
        bool chosen = !t.only || g_pattern_match_simple(t.only, a64_info[op].name);
        if (chosen && !oracle_denied(op) && a64_available(op, t.machine.cpu->features))
            list[n++] = (uint16_t)op;
    }
    return n;
}

static void run(void)
{
    static uint16_t list[A64_NOPS];
    unsigned n_lines = lines(list), next = 0, missed = 0;

    if (!n_lines)
        die("no such line is implemented and allowed");
    while (t.ran < t.cases && missed < 100 * n_lines) {
        unsigned n = 0;
        while (n < ORACLE_BATCH && missed < 100 * n_lines) {
            t.op[n] = list[next++ % n_lines];
            if (oracle_pick(&t.machine, t.op[n], n, &t.seed, &t.rec[n]))
                n++;
            else
                missed++;
        }
        if (n)
            run_batch(n);
    }
    runner_stop(&t.runner);
    for (unsigned i = 0; i < n_lines; i++)
        if (!t.tally[list[i]].cases) {
            printf("FAIL %s: no case could be made\n", a64_info[list[i]].name);
            t.failed++;
        }
    if (t.verbose)
        for (unsigned op = 1; op < A64_NOPS; op++)
            if (oracle_denied(op) && !a64_info[op].todo)
                printf("not tried: %s: %s\n", a64_info[op].name, oracle_denied(op));
}

static void summary(void)
{
    for (unsigned op = 1; op < A64_NOPS; op++)
        if (t.tally[op].failed)
            printf("%s: %" PRIu64 " of %" PRIu64 " failed\n", a64_info[op].name, t.tally[op].failed,
                   t.tally[op].cases);
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", t.ran - t.failed, t.failed);
}

static bool self_test(void)
{
    t.planted = true;
    t.plant = 12345;
    t.cases = 1000;
    run();
    return t.failed == 1;
}

static int options(int argc, char **argv)
{
    int i;

    for (i = 1; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "--cases") && i + 1 < argc)
            t.cases = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            t.seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--only") && i + 1 < argc)
            t.only = argv[++i];
        else if (!strcmp(argv[i], "--model") && i + 1 < argc)
            t.model = argv[++i];
        else if (!strcmp(argv[i], "--verbose"))
            t.verbose = true;
        else if (!strcmp(argv[i], "--self-test"))
            t.planted = true;
        else
            die("unknown option: %s", argv[i]);
    }
    return i;
}

int main(int argc, char **argv)
{
    int first;
    bool plant;

    t.cases = 1000000;
    t.seed = 1;
    t.model = "max";
    first = options(argc, argv);
    if (first >= argc)
        die("usage: oracle_test [options] RUNNER [ARG...]");
    t.command = argv + first;
    plant = t.planted;
    signal(SIGPIPE, SIG_IGN);
    oracle_machine_new(&t.machine, t.model, 1);
    runner_start(&t.runner, t.command);
    if (plant) {
        bool seen = self_test();
        oracle_machine_free(&t.machine);
        printf("a planted difference was %s\n%d passed, %d failed\n", seen ? "seen" : "missed", seen, !seen);
        return !seen;
    }
    run();
    oracle_machine_free(&t.machine);
    summary();
    return t.failed != 0;
}
