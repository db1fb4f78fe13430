/*
 * The interpreter against lifted code run by the IR evaluator: random instructions on random states, one by
 * one and in blocks, all state compared.
 *
 *     lift_test [--jit] [--cases N] [--seed S] [--only NAME] [--dump] [--self-test]
 *
 * --jit runs the translator's host code in place of the evaluator.
 * --self-test falsifies one operation in lifted code and expects to see a difference.  The last line is "N
 * passed, N failed".
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/report.h"
#include "cases.h"
#include "cpu/interp.h"
#include "jit/ir.h"
#include "jit/jit.h"

enum { REPS = 4, BLOCK = 12, SHOW_PER_LINE = 2 };

struct test {
    struct oracle_machine machine;
    uint64_t cases, seed, passed, failed;
    const char *only;
    bool dump, plant, jit;
    unsigned shown[A64_NOPS];
    uint16_t list[A64_NOPS];
    unsigned n_list;
    struct ir_block block;
};

static struct test t;

/* Everything that an instruction may change at EL0, exceptions included. */
struct outcome {
    struct oracle_state st;
    uint64_t pc, icount, pstate, elr, esr, far, spsr;
};

enum { AROUND = 65536 }; /* the reach of an unsigned scaled offset */

static void begin(const struct oracle_state *st, uint64_t pc, bool strays)
{
    struct cpu *cpu = t.machine.cpu;

    if (strays) /* what one run leaves beside the state must not be seen by the other */
        memset(t.machine.data - AROUND, 0, 2 * AROUND);
    oracle_set(&t.machine, st, pc);
    cpu->sys.elr_el1 = cpu->sys.esr_el1 = cpu->sys.far_el1 = cpu->sys.spsr_el1 = 0;
    cpu->icount = 0;
}

static void finish(struct outcome *o, uint64_t pc)
{
    const struct cpu *cpu = t.machine.cpu;

    memset(o, 0, sizeof *o);
    oracle_get(&t.machine, &o->st, pc);
    o->pc = cpu->pc;
    o->icount = cpu->icount;
    o->pstate = cpu_pstate(cpu);
    o->elr = cpu->sys.elr_el1;
    o->esr = cpu->sys.esr_el1;
    o->far = cpu->sys.far_el1;
    o->spsr = cpu->sys.spsr_el1;
}

static void print_if(const char *what, uint64_t a, uint64_t b)
{
    if (a != b)
        printf("    %s: interpreter %#" PRIx64 ", IR %#" PRIx64 "\n", what, a, b);
}

static void show(const uint32_t *words, unsigned n, const struct oracle_state *before,
                 const struct outcome *a, const struct outcome *b)
{
    for (unsigned i = 0; i < n; i++) {
        char text[A64_TEXT_SIZE];
        a64_disasm(words[i], text, sizeof text);
        printf("%s %08x  %s\n", i ? "    " : "FAIL", words[i], text);
    }
    oracle_print_difference(before, &a->st, "interpreter", &b->st, "IR");
    print_if("pc", a->pc, b->pc);
    print_if("icount", a->icount, b->icount);
    print_if("PSTATE", a->pstate, b->pstate);
    print_if("ELR_EL1", a->elr, b->elr);
    print_if("ESR_EL1", a->esr, b->esr);
    print_if("FAR_EL1", a->far, b->far);
    print_if("SPSR_EL1", a->spsr, b->spsr);
    if (t.dump)
        ir_dump(stdout, &t.block);
}

/* Turn the first addition of the block into a subtraction. */
static bool falsify(void)
{
    for (unsigned i = 1; i < t.block.n; i++)
        if (t.block.ir[i].op == IR_add) {
            t.block.ir[i].op = IR_sub;
            return true;
        }
    return false;
}

/* Lifts as many of the words as one block takes; the rest is not run. */
static unsigned lift(const uint32_t *words, unsigned n)
{
    struct ir_mode mode = ir_mode_of(t.machine.cpu);
    unsigned i;

    ir_begin(&t.block, &mode);
    for (i = 0; i < n && ir_lift(&t.block, words[i]); i++)
        ;
    ir_end(&t.block);
    return i;
}

/* The same n words (all but the last fall through) both ways. */
static void compare(const uint32_t *words, unsigned n, const struct oracle_state *before, uint64_t pc,
                    unsigned op)
{
    static struct outcome a, b;

    begin(before, pc, n > 2);
    n = lift(words, n);
    if (t.plant && !falsify())
        return;
    for (unsigned i = 0; i < n; i++)
        if (!interp_exec_word(t.machine.cpu, words[i]))
            break;
    finish(&a, pc);
    begin(before, pc, n > 2);
    if (t.jit)
        jit_exec_words(t.machine.cpu, words, n);
    else
        ir_eval(t.machine.cpu, &t.block);
    finish(&b, pc);
    if (!memcmp(&a, &b, sizeof a)) {
        t.passed++;
        return;
    }
    t.failed++;
    if (t.shown[op]++ < SHOW_PER_LINE && !t.plant)
        show(words, n, before, &a, &b);
}

static bool ends_block(uint32_t word)
{
    struct ir_mode mode = ir_mode_of(t.machine.cpu);

    ir_begin(&t.block, &mode);
    ir_lift(&t.block, word);
    return t.block.ended;
}

/* One record on several states; now and then with its faults: base registers that point anywhere. */
static void singles(unsigned op, const struct oracle_record *rec, unsigned slot)
{
    static struct oracle_state st;
    uint64_t pc = ORACLE_SLOTS + (uint64_t)slot * ORACLE_SLOT_BYTES + ORACLE_WORD_OFFSET;

    for (uint32_t rep = 0; rep < REPS; rep++) {
        const uint32_t words[2] = {rec->prefix, rec->word};
        bool wild = rep == REPS - 1;
        struct oracle_record r = *rec;
        if (wild)
            r.reg[0] = r.reg[1] = ORACLE_NONE;
        oracle_make(&r, rep, &st);
        compare(words, 2, &st, pc - 4, op);
    }
}

/* A straight run of random words, each aimed on its own, so that later accesses go anywhere: faults in the
 * middle. */
static void blocks(uint64_t *seed)
{
    static struct oracle_state st;
    struct oracle_record rec = {.reg = {ORACLE_NONE, ORACLE_NONE}, .target = ORACLE_MEM};
    uint32_t words[BLOCK];
    unsigned n = 0, op = A64_UNDEFINED;

    while (n < BLOCK) {
        op = t.list[oracle_next(seed) % t.n_list];
        if (!oracle_pick(&t.machine, op, n, seed, &rec))
            return;
        words[n++] = rec.word;
        if (ends_block(rec.word))
            break;
    }
    oracle_make(&rec, 0, &st);
    compare(words, n, &st, ORACLE_SLOTS, op);
}

static void choose_lines(void)
{
    for (unsigned op = 1; op < A64_NOPS; op++) {
        bool waits = op == A64_HINT;
        if ((!t.only || g_pattern_match_simple(t.only, a64_info[op].name)) && !waits &&
            a64_available(op, t.machine.cpu->features))
            t.list[t.n_list++] = (uint16_t)op;
    }
    if (!t.n_list)
        die("no such line is implemented");
}

static void run(void)
{
    unsigned next = 0;

    while (t.passed + t.failed < t.cases) {
        unsigned op = t.list[next++ % t.n_list];
        struct oracle_record rec = {.prefix = (uint32_t)ORACLE_NOP, .reg = {ORACLE_NONE, ORACLE_NONE},
                                    .target = ORACLE_MEM, .seed = oracle_next(&t.seed)};
        /* What cannot complete at EL0 is compared as the exception that it takes. */
        if (!oracle_pick(&t.machine, op, next % ORACLE_BATCH, &t.seed, &rec))
            rec.word = a64_info[op].value | ((uint32_t)oracle_next(&t.seed) & ~a64_info[op].mask);
        singles(op, &rec, next % ORACLE_BATCH);
        if (next % 4 == 0)
            blocks(&t.seed);
        if (t.plant && t.failed)
            break;
    }
}

static void options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--cases") && i + 1 < argc)
            t.cases = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            t.seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--only") && i + 1 < argc)
            t.only = argv[++i];
        else if (!strcmp(argv[i], "--jit"))
            t.jit = true;
        else if (!strcmp(argv[i], "--dump"))
            t.dump = true;
        else if (!strcmp(argv[i], "--self-test"))
            t.plant = true;
        else
            die("unknown option: %s", argv[i]);
    }
}

int main(int argc, char **argv)
{
    t.cases = 1000000;
    t.seed = 1;
    options(argc, argv);
    oracle_machine_new(&t.machine, "max");
    if (t.jit)
        jit_engine.init(t.machine.cpu);
    choose_lines();
    run();
    if (t.jit)
        jit_engine.fini(t.machine.cpu);
    oracle_machine_free(&t.machine);
    if (t.plant) {
        printf("a planted difference was %s\n%d passed, %d failed\n", t.failed ? "seen" : "missed",
               t.failed != 0, t.failed == 0);
        return t.failed == 0;
    }
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", t.passed, t.failed);
    return t.failed != 0;
}
