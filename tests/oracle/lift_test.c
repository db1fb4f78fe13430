/*
 * The interpreter against lifted code run by the IR evaluator: random instructions on random states, one by
 * one and in blocks, all state compared.  With --jit, programs with branches too: the interpreter is led to where host
 * code left the trace that it made of one.
 *
 *     lift_test [--jit] [--cases N] [--seed S] [--only NAME] [--dump] [--self-test]
 *
 * --jit runs the translator's host code in place of the evaluator: for one vCPU or, as often, for several, and half of the time
 * with an empty data TLB, so that accesses go by cold code.  And pairs of exclusives whose store does.
 * --self-test falsifies one operation in lifted code and expects to see a difference.  The last line is "N
 * passed, N failed".
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/report.h"
#include "base/trace.h"
#include "cases.h"
#include "cpu/access.h"
#include "cpu/interp.h"
#include "jit/ir.h"
#include "jit/jit.h"

enum { VCPUS = 2, REPS = 4, BLOCK = 12, PROGRAM = 24, SHOW_PER_LINE = 2 };

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
static uint64_t flush_seed = 1;

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
    if (t.dump && !t.jit)
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

/* The interpreter, until it has done what host code did: as many instructions, and the exception at their end. */
static void follow(const uint32_t *words, unsigned n, uint64_t start, const struct outcome *goal)
{
    struct cpu *cpu = t.machine.cpu;

    for (uint64_t i = 0; i <= goal->icount + 1; i++) {
        uint64_t at = (cpu->pc - start) / 4;
        if (cpu->icount == goal->icount && cpu->pc == goal->pc)
            return;
        interp_exec_word(cpu, at < n ? words[at] : 0); /* around the program are zeros */
    }
}

/* Host code may stop before the last word. */
static void run_host_code(const uint32_t *words, unsigned n, const struct oracle_state *before, uint64_t pc,
                          struct outcome *a, struct outcome *b)
{
    begin(before, pc, n > 2);
    if (oracle_next(&flush_seed) & 1)
        jit_engine.flush(t.machine.cpu);
    jit_exec_words(t.machine.cpu, words, n);
    finish(b, pc);
    begin(before, pc, n > 2);
    follow(words, n, pc, b);
    finish(a, pc);
}

/* Exclusive load, something else, exclusive store: off x20, of x1 or x9, status to x2 or x10. */
static void make_pair(uint64_t *seed, uint32_t words[3])
{
    uint64_t r = oracle_next(seed);
    uint32_t size = r & 3, rt = r >> 2 & 1 ? 1 : 9, rs = r >> 3 & 1 ? 2 : 10, ordered = (uint32_t)(r >> 4 & 1) << 15;
    bool two = size >= 2 && r >> 5 & 1;

    words[0] = size << 30 | (two ? 0x087f0000 | 6 << 10 : 0x085f7c00) | ordered | 20 << 5 | 5;
    words[1] = (const uint32_t[]){ (uint32_t)ORACLE_NOP, 0x9100042b, 0xb4000065, 0xaa0503e0 | rt }[r >> 6 & 3];
    words[2] = size << 30 | (two ? 0x08200000 | 3 << 10 : 0x08007c00) | ordered | rs << 16 | 20 << 5 | rt;
}

static void set_versions(uint32_t v)
{
    for (unsigned i = 0; i < EX_GRANULES; i++)
        access_ex_versions[i] = v;
}

/*
 * A store whose page is not in the data TLB although its load was (one vCPU: the interpreter does the load), or that is to
 * move a version on (several): it is done from cold code.
 */
static void exclusives(uint64_t *seed)
{
    static struct oracle_state st;
    static struct outcome a, b;
    struct oracle_record rec = {.reg = {ORACLE_NONE, ORACLE_NONE}, .target = ORACLE_MEM, .seed = oracle_next(seed)};
    struct cpu *cpu = t.machine.cpu;
    uint64_t r = oracle_next(seed), off = r % 32 * 16;
    uint32_t words[3];

    make_pair(seed, words);
    oracle_make(&rec, 0, &st);
    st.x[20] = ORACLE_MEM + off;
    set_versions(r >> 8 & 2);
    begin(&st, ORACLE_SLOTS, false);
    bool alone = t.machine.cluster->n == 1;
    for (unsigned i = 0; i < 2 && alone; i++)
        interp_exec_word(cpu, words[i]);
    if (alone)
        jit_engine.flush(cpu);
    unsigned done = (unsigned)(cpu->pc - ORACLE_SLOTS) / 4;
    if (done < 3)
        jit_exec_words(cpu, words + done, 3 - done);
    finish(&b, ORACLE_SLOTS);
    set_versions(2); /* else the interpreter's first store fails */
    begin(&st, ORACLE_SLOTS, false);
    follow(words, 3, ORACLE_SLOTS, &b);
    finish(&a, ORACLE_SLOTS);
    if (!memcmp(&a, &b, sizeof a)) {
        t.passed++;
        return;
    }
    if (t.failed++ < SHOW_PER_LINE && !t.plant)
        show(words, 3, &st, &a, &b);
}

static void run_evaluator(const uint32_t *words, unsigned n, const struct oracle_state *before, uint64_t pc,
                          struct outcome *a, struct outcome *b)
{
    for (unsigned i = 0; i < n; i++)
        if (!interp_exec_word(t.machine.cpu, words[i]))
            break;
    finish(a, pc);
    begin(before, pc, n > 2);
    ir_eval(t.machine.cpu, &t.block);
    finish(b, pc);
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
    (t.jit ? run_host_code : run_evaluator)(words, n, before, pc, &a, &b);
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

/* --- traces: programs with branches, of which host code runs what it makes one block of --- */

/* A branch of the program from word i to one of its words. */
static uint32_t branch_word(uint64_t *seed, unsigned i)
{
    uint64_t r = oracle_next(seed);
    int off = (int)(r % (PROGRAM + 2)) - (int)i;
    uint32_t rt = r >> 8 & 7, sf = (uint32_t)(r >> 11 & 1) << 31, sense = (uint32_t)(r >> 12 & 1) << 24;

    switch (r >> 16 & 7) {
    case 0: return 0x14000000 | ((uint32_t)off & 0x3ffffff);
    case 1: return 0x34000000 | sf | sense | ((uint32_t)off & 0x7ffff) << 5 | rt;
    case 2: return 0x36000000 | sense | (uint32_t)(r >> 20 & 31) << 19 | ((uint32_t)off & 0x3fff) << 5 | rt;
    default: return 0x54000000 | ((uint32_t)off & 0x7ffff) << 5 | (uint32_t)(r >> 20) % 14;
    }
}

/* Integer work on few registers, x0 to x7, so that values, homes and flags meet; loads and stores off x20 to x23. */
static uint32_t plain_word(uint64_t *seed)
{
    uint64_t r = oracle_next(seed);
    uint32_t d = r & 7, n = r >> 3 & 7, m = r >> 6 & 7, sf = (uint32_t)(r >> 9 & 1) << 31, op = (uint32_t)(r >> 10 & 3) << 29;
    uint32_t base = 20 + (uint32_t)(r >> 12 & 3), imm = (uint32_t)(r >> 14 & 0xfff), cond = (uint32_t)(r >> 30) % 14 << 12;

    switch (r >> 56 & 15) {
    case 0: return 0x0b000000 | op | sf | m << 16 | n << 5 | d;                      /* add, adds, sub, subs */
    case 1: return 0x11000000 | op | sf | (imm & 0xff) << 10 | n << 5 | d;           /* the same with a constant */
    case 2: return 0x6b00001f | sf | m << 16 | n << 5;                               /* cmp */
    case 3: return 0x7100001f | sf | (imm & 3) << 10 | n << 5;                       /* cmp with a small constant */
    case 4: return 0x0a000000 | op | sf | m << 16 | n << 5 | d;                      /* and, orr, eor, ands */
    case 5: return 0x72000000 | sf | (sf ? 1u << 22 : 0) | (imm & 7) << 10 | n << 5 | (imm & 8 ? 31 : d); /* tst, ands */
    case 6: return 0x1a800000 | sf | (op & 1u << 30) | (imm & 1) << 10 | m << 16 | cond | n << 5 | d; /* csel, cset */
    case 7: return 0x7a400000 | sf | m << 16 | cond | n << 5 | (imm & 15);           /* ccmp */
    case 8: return 0x1a000000 | sf | op | m << 16 | n << 5 | d;                      /* adc, adcs, sbc, sbcs */
    case 9: case 10: return 0xf9400000 | (imm & 31) << 10 | base << 5 | d;           /* ldr */
    case 11: return 0xb8400400 | (imm & 7) << 14 | base << 5 | d;                    /* ldr, post-indexed */
    case 12: return 0xf9000000 | (imm & 31) << 10 | base << 5 | d;                   /* str */
    case 13: return 0xa9400000 | (imm & 1) << 22 | (imm >> 1 & 7) << 15 | m << 10 | base << 5 | n; /* stp, ldp */
    case 14: return 0x2a0003e0 | sf | m << 16 | d;                                   /* mov */
    default: return 0x1ac02000 | sf | (imm & 3) << 10 | m << 16 | n << 5 | d;        /* shifts by registers */
    }
}

static void make_program(uint64_t *seed, uint32_t words[PROGRAM], struct oracle_record *rec)
{
    for (unsigned i = 0; i < PROGRAM; i++) {
        uint64_t r = oracle_next(seed);
        if (r % 128 == 0 && i + 3 <= PROGRAM) { /* mov v3, v0; sha256h q0, q1, v2; sha256h2 q1, q3, v2: done together */
            words[i++] = 0x4ea01c03;
            words[i++] = 0x5e024020;
            words[i] = 0x5e025061;
        } else if (r % 5 == 0) {
            words[i] = branch_word(seed, i);
        } else if (r % 5 == 1 && r >> 8 & 1 && oracle_pick(&t.machine, t.list[(r >> 9) % t.n_list], i, seed, rec)) {
            words[i] = rec->word;
        } else {
            words[i] = plain_word(seed);
        }
    }
    if (oracle_next(seed) % 4 == 0) { /* a loop: b.cond or cbnz to the start */
        uint64_t r = oracle_next(seed);
        unsigned at = 2 + (unsigned)(r % 12);
        uint32_t to = ((0u - at) & 0x7ffff) << 5;
        words[at] = r >> 8 & 3 ? 0x54000000 | to | (r >> 10 & 15) : 0xb5000000 | to | (r >> 10 & 7);
    }
}

/* Once more, with what the translator makes of it on stderr. */
static void translate_again(const struct oracle_state *st, const uint32_t *words)
{
    begin(st, ORACLE_SLOTS, true);
    if (trace_enable("op_opt,out_asm"))
        die("no such dumps");
    jit_exec_words(t.machine.cpu, words, PROGRAM);
    if (trace_enable("none"))
        die("no such dump");
}

/* On from a trace's end, a few instructions, to where the flags have been set again. */
static void settle(const uint32_t *words, unsigned n)
{
    struct cpu *cpu = t.machine.cpu;

    for (unsigned i = 0; i < n; i++) {
        uint64_t at = (cpu->pc - ORACLE_SLOTS) / 4;
        if (at < PROGRAM)
            interp_exec_word(cpu, words[at]);
    }
}

/*
 * Both ways from st on.  Flags need not be right where a trace ends in front of an instruction that sets them all: if
 * they are all that differs, both go on until they are equal, and nothing else may differ before.
 */
static bool same(const struct oracle_state *st, const uint32_t *words, struct outcome *a, struct outcome *b)
{
    for (unsigned more = 0; more < 10; more++) {
        begin(st, ORACLE_SLOTS, true);
        jit_exec_words(t.machine.cpu, words, PROGRAM);
        finish(b, ORACLE_SLOTS);
        struct outcome left = *b;
        settle(words, more);
        finish(b, ORACLE_SLOTS);
        begin(st, ORACLE_SLOTS, true);
        follow(words, PROGRAM, ORACLE_SLOTS, &left);
        settle(words, more);
        finish(a, ORACLE_SLOTS);
        if (!memcmp(a, b, sizeof *a))
            return true;
        struct outcome flagless = *a;
        flagless.st.nzcv = b->st.nzcv;
        flagless.pstate = b->pstate;
        if (memcmp(&flagless, b, sizeof *b))
            return false;
    }
    return false;
}

static void traces(uint64_t *seed)
{
    static struct oracle_state st;
    static struct outcome a, b;
    struct oracle_record rec = {.reg = {ORACLE_NONE, ORACLE_NONE}, .target = ORACLE_MEM, .seed = oracle_next(seed)};
    uint32_t words[PROGRAM];

    make_program(seed, words, &rec);
    oracle_make(&rec, 0, &st);
    for (unsigned i = 0; i < 8; i++) /* often equal, so that branches go both ways */
        st.x[i] = oracle_next(seed) % 8 ? st.x[i] % 5 : st.x[i];
    for (unsigned i = 20; i < 24; i++) /* the last leads nowhere, at times */
        st.x[i] = i == 23 && oracle_next(seed) % 8 == 0 ? 0x70000000 : ORACLE_MEM + oracle_next(seed) % 32 * 8;
    if (oracle_next(seed) % 4 == 0) /* across a page boundary */
        st.x[22] = ORACLE_MEM - oracle_next(seed) % 80;
    if (same(&st, words, &a, &b)) {
        t.passed++;
        return;
    }
    if (t.failed++ < SHOW_PER_LINE && !t.plant) {
        show(words, PROGRAM, &st, &a, &b);
        printf("    left at %+" PRId64 " words, after %" PRIu64 " instructions\n",
               (int64_t)(b.pc - ORACLE_SLOTS) / 4, b.icount);
        if (t.dump)
            translate_again(&st, words);
    }
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
        if (t.jit && !t.only) {
            t.machine.cluster->n = 1 + next % 2;
            exclusives(&t.seed);
        }
        for (unsigned i = 0; i < 4 && t.jit && !t.only; i++)
            traces(&t.seed);
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
    oracle_machine_new(&t.machine, "max", VCPUS);
    if (t.jit)
        jit_engine.init(t.machine.cpu);
    choose_lines();
    run();
    t.machine.cluster->n = VCPUS;
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
