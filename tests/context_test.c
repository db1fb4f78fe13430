/*
 * Random programs of exceptions, returns (legal and not), masks, PAN, UAO, stack pointers, address spaces and their
 * maintenance, run by the interpreter and by the translator, which does most of that in code: all state must be the same at
 * the end.  Each is a loop, so that contexts are known and code is linked in its later turns (jit/state.h).
 *
 * What handlers see goes into a hash in x20.  The page tables differ between address spaces, code is mapped in both halves.
 */
#include <inttypes.h>

#include "cpu_fixture.h"

#include "cpu/pmu.h"
#include "jit/jit.h"

enum { PAGE = 4096, TURNS = 60, ACTIONS = 150, PROGRAMS = 150 };
/* Physical offsets in RAM. */
enum { CODE = 0, CODE_PAGES = 4, VECTORS = 0x8000, TABLE = 0x10000, USER = 0x20000, KERNEL = 0x24000, TABLES = 0x40000 };
/* One page of code is now this one, now that one. */
enum { FUNCTION = 0x9000, FUNCTIONS = 0x30000, TABLE_SIZE = 0x3000, FUNCTION_PTE = 0x2000 + 8 * (FUNCTION / PAGE) };
#define UPPER UINT64_C(0xffffff8000000000)
#define LOWER UINT64_C(0x0000000000000000)

/* Values that programs load from the page at x23. */
enum { V_SPSR = 0, V_TTBR = 32, V_ASID = 40, V_SCTLR = 48, V_CPACR = 50, V_VBAR = 52, V_MDSCR = 54, V_FPCR = 58, V_PTE = 60, V_PAGE = 62 };

struct guest {
    struct fixture *f;
    GRand *rand;
    uint32_t code[CODE_PAGES * PAGE / 4];
    unsigned n;
    bool a1, upper;
};

static void emit(struct guest *g, uint32_t word)
{
    assert_true(g->n < G_N_ELEMENTS(g->code));
    g->code[g->n++] = word;
}

static unsigned pick(struct guest *g, unsigned n)
{
    return g_rand_int(g->rand) % n;
}

/* --- instructions --- */

static uint32_t msr(const char *name, unsigned rt) { return 0xd5000000 | key_of(name) << 5 | rt; }
static uint32_t mrs(const char *name, unsigned rt) { return 0xd5200000 | key_of(name) << 5 | rt; }
static uint32_t msr_imm(unsigned op1, unsigned op2, unsigned imm) { return 0xd500401f | op1 << 16 | imm << 8 | op2 << 5; }
static uint32_t ldr(unsigned rt, unsigned rn, unsigned word) { return 0xf9400000 | word << 10 | rn << 5 | rt; }
static uint32_t str(unsigned rt, unsigned rn, unsigned word) { return 0xf9000000 | word << 10 | rn << 5 | rt; }
static uint32_t svc(unsigned imm) { return 0xd4000001 | imm << 5; }
static uint32_t branch_if(unsigned cond, int words) { return 0x54000000 | ((uint32_t)words & 0x7ffff) << 5 | cond; }
static uint32_t jump(int words) { return 0x14000000 | ((uint32_t)words & 0x3ffffff); }
enum { ERET = (int)0xd69f03e0, ISB_SY = (int)0xd5033fdf, DSB_SY = (int)0xd5033f9f, RET_LR = (int)0xd65f03c0, END_SVC = 0x7f };

/* x20 = rn ^ x20 ror 7 */
static uint32_t mix(unsigned rn) { return 0xca000000 | 3 << 22 | 20 << 16 | 7 << 10 | rn << 5 | 20; }

/* --- the handlers --- */

static void emit_handlers(struct guest *g)
{
    static const char *const seen[] = { "ESR_EL1", "SPSR_EL1", "ELR_EL1", "DAIF", "CurrentEL", "SPSel", "NZCV" };
    uint32_t code[512 + 64] = { 0 };
    unsigned n = 512, irq;

    for (unsigned i = 0; i < G_N_ELEMENTS(seen); i++) {
        code[n++] = mrs(seen[i], i < 3 ? 10 + i : 13);
        code[n++] = mix(i < 3 ? 10 + i : 13);
    }
    code[n++] = 0x910003ed; /* mov x13, sp */
    code[n++] = mix(13);
    code[n++] = 0x910006b5;             /* add x21, x21, #1 */
    code[n++] = 0xd35afd4f;             /* lsr x15, x10, #26 */
    code[n++] = 0xf10055ff;             /* cmp x15, #0x15: SVC */
    code[n++] = branch_if(1, 12);       /* b.ne other */
    code[n++] = 0x9240194f;             /* and x15, x10, #0x7f */
    code[n++] = 0xf1000000 | END_SVC << 10 | 15 << 5 | 31; /* cmp */
    code[n++] = branch_if(1, 4);
    code[n++] = 0xd2b08000;             /* mov x0, #0x84000000; end: */
    code[n++] = 0x91002000;             /* add x0, x0, #8 */
    code[n++] = 0xd4000002;             /* hvc #0 */
    code[n++] = 0x36000000 | 5 << 19 | 4 << 5 | 15; /* tbz x15, #5: return as it came */
    code[n++] = 0x924011ef;             /* and x15, x15, #0x1f */
    code[n++] = 0xf8607800 | 15 << 16 | 23 << 5 | 11; /* ldr x11, [x23, x15, lsl #3] */
    code[n++] = msr("SPSR_EL1", 11);
    code[n++] = (uint32_t)ERET;
    code[n++] = 0xf10039ff;             /* other: cmp x15, #0xe: Illegal Execution state */
    code[n++] = branch_if(1, 4);
    code[n++] = 0x92400000 | 43 << 16 | 62 << 10 | 11 << 5 | 11; /* and x11, x11, #~IL */
    code[n++] = msr("SPSR_EL1", 11);
    code[n++] = (uint32_t)ERET;
    code[n++] = 0xf100c1ff;             /* cmp x15, #0x30: debug */
    code[n++] = branch_if(3, 3);        /* b.lo */
    code[n++] = msr("MDSCR_EL1", 31);
    code[n++] = (uint32_t)ERET;
    code[n++] = 0x9100118c;             /* add x12, x12, #4 */
    code[n++] = msr("ELR_EL1", 12);
    code[n++] = (uint32_t)ERET;
    irq = n;
    code[n++] = 0x910006d6;             /* add x22, x22, #1 */
    code[n++] = mrs("ELR_EL1", 10);
    code[n++] = mix(10);
    code[n++] = mrs("SPSR_EL1", 11);
    code[n++] = mix(11);
    code[n++] = 0xb2400000 | 57 << 16 | 11 << 5 | 11; /* orr x11, x11, #I */
    code[n++] = msr("SPSR_EL1", 11);
    code[n++] = (uint32_t)ERET;
    assert_true(n <= G_N_ELEMENTS(code));
    for (unsigned v = 0; v < 16; v++)
        code[v * 32] = jump((int)((v % 4 == 1 ? irq : 512) - v * 32));
    fixture_code(g->f, FIXTURE_RAM + VECTORS, code, n);
}

/* --- a random program --- */

static void emit_maintenance(struct guest *g)
{
    static const char *const what[] = { "TLBI_ASIDE1", "TLBI_ASIDE1IS", "TLBI_VAE1", "TLBI_VAAE1", "TLBI_VMALLE1" };

    emit(g, ldr(9, 23, V_ASID + pick(g, 8)));
    emit(g, msr(what[pick(g, pick(g, 8) ? 4 : 5)], 9));
    emit(g, (uint32_t)DSB_SY);
    emit(g, (uint32_t)ISB_SY);
}

/* Another page of code in all tables, and all that may be known of the one before dropped, in one of three ways. */
static void emit_remap(struct guest *g)
{
    unsigned how = pick(g, 6);

    emit(g, ldr(9, 23, V_PTE + pick(g, 2)));
    for (unsigned i = 0; i < 4; i++)
        emit(g, str(9, 24 + i / 2, TABLE_SIZE / 8 * (i % 2)));
    emit(g, (uint32_t)DSB_SY);
    for (unsigned i = 0; i < (how > 1 ? 8u : 2u); i++) {
        if (how)
            emit(g, ldr(9, 23, how > 1 ? V_ASID + i : V_PAGE + i));
        emit(g, msr(how > 1 ? "TLBI_ASIDE1" : how ? "TLBI_VAAE1IS" : "TLBI_VMALLE1", 9));
    }
    emit(g, (uint32_t)DSB_SY);
    emit(g, (uint32_t)ISB_SY);
}

static void emit_call(struct guest *g)
{
    emit(g, 0xd63f0000 | (26 + pick(g, 2)) << 5); /* blr x26 or x27 */
    emit(g, mix(9));
}

/* ERET to what follows, as one of the SPSRs says. */
static void emit_return(struct guest *g)
{
    emit(g, 0x10000000 | 5 << 5 | 9); /* adr x9, . + 20 */
    emit(g, msr("ELR_EL1", 9));
    emit(g, ldr(10, 23, V_SPSR + pick(g, 32)));
    emit(g, msr("SPSR_EL1", 10));
    emit(g, (uint32_t)ERET);
}

static void emit_register(struct guest *g)
{
    static const struct {
        const char *name;
        unsigned first, n;
    } rows[] = { { "SCTLR_EL1", V_SCTLR, 2 }, { "CPACR_EL1", V_CPACR, 2 }, { "VBAR_EL1", V_VBAR, 2 },
                 { "CONTEXTIDR_EL1", V_ASID, 8 }, { "FPCR", V_FPCR, 2 }, { "FPSR", V_MDSCR, 4 }, { "CNTKCTL_EL1", V_MDSCR, 4 }, { "MDSCR_EL1", V_MDSCR, 4 },
                 { "PMCNTENSET_EL0", V_MDSCR, 4 }, { "PMCNTENCLR_EL0", V_MDSCR, 4 }, { "DAIF", V_SPSR, 32 },
                 { "SPSel", V_SPSR, 32 }, { "PAN", V_SPSR, 32 }, { "SPSR_EL1", V_SPSR, 32 }, { "SP_EL0", V_ASID, 8 } };
    unsigned i = pick(g, G_N_ELEMENTS(rows));

    emit(g, ldr(9, 23, rows[i].first + pick(g, rows[i].n)));
    emit(g, msr(rows[i].name, 9));
}

static void emit_look(struct guest *g)
{
    static const char *const names[] = { "DAIF", "CurrentEL", "SPSel", "NZCV", "PAN", "UAO", "SP_EL0", "ESR_EL1", "TTBR0_EL1",
                                        "CNTVCT_EL0", "CNTPCT_EL0", "CNTVCT_EL0", "FPSR", "FPCR", "MIDR_EL1",
                                        "MPIDR_EL1", "CONTEXTIDR_EL1" };

    emit(g, mrs(names[pick(g, G_N_ELEMENTS(names))], 9));
    emit(g, mix(9));
}

/* 1 / 3, which is inexact, or 1 / 1. */
static void emit_divide(struct guest *g)
{
    emit(g, 0x1e6e1001); /* fmov d1, #1 */
    emit(g, 0x1e611002); /* fmov d2, #3 */
    emit(g, 0x1e621820 - (pick(g, 2) << 16)); /* fdiv d0, d1, d2 or d1 */
}

static void emit_access(struct guest *g)
{
    static const uint32_t words[] = { 0xf9400389, 0xf8400b89, 0xf94003a9, 0xf9400789 }; /* ldr, ldtr [x28], ldr [x29], [x28, 8] */

    if (!pick(g, 4)) {
        emit(g, str(20, 28, 1));
        return;
    }
    emit(g, words[pick(g, G_N_ELEMENTS(words))]);
    emit(g, mix(9));
}

/* The monitor, which a return clears. */
static void emit_exclusive(struct guest *g)
{
    emit(g, 0xc85f7f89); /* ldxr x9, [x28] */
    if (pick(g, 2))
        emit(g, svc(0));
    emit(g, 0xc80a7f89); /* stxr w10, x9, [x28] */
    emit(g, mix(10));
}

static void emit_action(struct guest *g)
{
    switch (pick(g, 16)) {
    case 0: case 1: emit(g, svc(pick(g, 64))); break;
    case 2: emit(g, svc(32 + pick(g, 32))); break;
    case 3: emit(g, msr_imm(3, 6 + pick(g, 2), pick(g, 16))); break;
    case 4: emit(g, msr_imm(0, 4, pick(g, 2))); break; /* PAN */
    case 5: emit(g, msr_imm(0, pick(g, 2) ? 3 : 5, pick(g, 2))); break; /* UAO, SPSel */
    case 6: case 7:
        emit(g, ldr(9, 23, V_TTBR + pick(g, 8)));
        emit(g, msr(g->a1 ? "TTBR1_EL1" : "TTBR0_EL1", 9));
        if (pick(g, 2))
            emit(g, (uint32_t)ISB_SY);
        break;
    case 8:
        if (!pick(g, 4))
            emit_remap(g);
        else
            pick(g, 3) ? emit(g, (uint32_t)ISB_SY) : emit_maintenance(g);
        break;
    case 9: case 10: emit_access(g); break;
    case 11: pick(g, 2) ? emit_look(g) : pick(g, 2) ? emit_divide(g) : emit_call(g); break;
    case 12: emit_return(g); break;
    case 13: emit_register(g); break;
    case 14: emit_exclusive(g); break;
    default: /* a call; flags */
        emit(g, 0x94000002);
        emit(g, jump(3));
        emit(g, 0xeb15029f); /* cmp x20, x21 */
        emit(g, (uint32_t)RET_LR);
        break;
    }
}

static void emit_program(struct guest *g)
{
    int start;

    g->n = 0;
    emit(g, msr("OSLAR_EL1", 31));
    start = (int)g->n;
    for (unsigned i = 0; i < ACTIONS; i++)
        emit_action(g);
    emit(g, 0xf1000673); /* subs x19, x19, #1 */
    emit(g, branch_if(0, 2));
    emit(g, jump(start - (int)g->n));
    emit(g, svc(END_SVC));
    fixture_code(g->f, FIXTURE_RAM + CODE, g->code, g->n);
}

/* --- memory and registers --- */

static void put_word(struct guest *g, uint64_t off, uint64_t value)
{
    assert_true(mem_write(g->f->mem, FIXTURE_RAM + off, &value, sizeof value));
}

enum { AF_ISH = 1 << 10 | 3 << 8, NG = 1 << 11, AP_USER = 1 << 6, AP_RO = 1 << 7 };
#define NO_EXEC (UINT64_C(3) << 53)

/* Three tables, one behind the other: pages of 4 KiB, va of 39 bits; user and kernel data of its own. */
static uint64_t make_tables(struct guest *g, unsigned number)
{
    uint64_t l1 = TABLES + number * TABLE_SIZE, l2 = l1 + PAGE, l3 = l2 + PAGE;

    put_word(g, l1, (FIXTURE_RAM + l2) | 3);
    put_word(g, l2, (FIXTURE_RAM + l3) | 3);
    for (unsigned page = 0; page < 128; page++) {
        uint64_t off = (uint64_t)page * PAGE, to = off, more = NO_EXEC;
        if (off == USER)
            to += (uint64_t)(number & 3) * PAGE, more |= AP_USER;
        else if (off == KERNEL)
            to += (uint64_t)(number & 3) * PAGE;
        else if (off < TABLE)
            more = AP_USER | AP_RO;
        if (off == FUNCTION)
            to = FUNCTIONS;
        put_word(g, l3 + 8 * page, (FIXTURE_RAM + to) | more | AF_ISH | NG | 3);
    }
    return FIXTURE_RAM + l1;
}

static void make_memory(struct guest *g)
{
    static const uint32_t modes[] = { 0, 4, 5, 5, 0, 5, 0, 4 };
    uint64_t table[4];

    for (unsigned i = 0; i < 4; i++)
        table[i] = make_tables(g, i);
    for (unsigned i = 0; i < 32; i++) {
        uint32_t spsr = g_rand_int(g->rand) & 0xf0e003c0; /* NZCV, PAN, UAO, SS, DAIF */
        put_word(g, TABLE + 8 * (V_SPSR + i), i < 28 ? spsr | modes[i % 8] : spsr | (g_rand_int(g->rand) & 0x10001f));
    }
    for (unsigned i = 0; i < 8; i++) { /* two ASIDs a table; the other half's tables stay */
        put_word(g, TABLE + 8 * (V_TTBR + i), table[i / 2] | (uint64_t)(i + 1) << 48);
        put_word(g, TABLE + 8 * (V_ASID + i), (uint64_t)(i + 1) << 48 | pick(g, 64));
    }
    put_word(g, TABLE + 8 * V_SCTLR, 0x30d50998 | SCTLR_M);
    put_word(g, TABLE + 8 * (V_SCTLR + 1), 0x30d50998 | SCTLR_M | SCTLR_SPAN | SCTLR_UMA);
    put_word(g, TABLE + 8 * V_CPACR, 3 << 20);
    put_word(g, TABLE + 8 * (V_CPACR + 1), 1 << 20);
    put_word(g, TABLE + 8 * V_VBAR, LOWER + VECTORS);
    put_word(g, TABLE + 8 * (V_VBAR + 1), UPPER + VECTORS);
    for (unsigned i = 0; i < 4; i++)
        put_word(g, TABLE + 8 * (V_MDSCR + i), (const uint64_t[]){ 0, 1, 0x2001, 3 }[i]);
    put_word(g, TABLE + 8 * (V_FPCR + 1), 1 << 24);
    for (unsigned i = 0; i < 8; i++)
        put_word(g, USER + PAGE * i, 0x1111 * (i + 1));
    for (unsigned i = 0; i < 2; i++) {
        const uint32_t function[] = { 0xd2800009 | (0x1234 + i) << 5, (uint32_t)RET_LR }; /* mov x9, #...; ret */
        fixture_code(g->f, FIXTURE_RAM + FUNCTIONS + PAGE * i, function, 2);
        put_word(g, TABLE + 8 * (V_PTE + i), (FIXTURE_RAM + FUNCTIONS + PAGE * i) | AP_USER | AP_RO | AF_ISH | NG | 3);
        put_word(g, TABLE + 8 * (V_PAGE + i), ((i ? UPPER : LOWER) + FUNCTION) << 8 >> 20);
    }
    emit_handlers(g);
    emit_program(g);
}

static void make_cpu(struct guest *g, bool irq)
{
    struct cpu *cpu = g->f->cpu;
    uint64_t base = g->upper ? UPPER : LOWER, table = FIXTURE_RAM + TABLES;

    fixture_reset(g->f);
    memset(cpu->x, 0, sizeof cpu->x);
    atomic_store(&cpu->pending, irq ? PEND_IRQ : 0);
    cpu->icount = 0;
    cpu->sys.ttbr0_el1 = table | UINT64_C(1) << 48;
    cpu->sys.ttbr1_el1 = table | UINT64_C(1) << 48;
    cpu->sys.mair_el1 = 0xff;
    cpu->sys.tcr_el1 = 25 | 25 << 16 | UINT64_C(2) << 30 | (g->a1 ? 1 << 22 : 0) | UINT64_C(2) << 32;
    cpu->sys.sctlr_el1 |= SCTLR_M;
    cpu->sys.vbar_el1 = base + VECTORS;
    cpu->sys.cpacr_el1 = 3 << 20;
    cpu_refresh(cpu);
    put_name(cpu, "PMCR_EL0", 1);
    put_name(cpu, "PMEVTYPER0_EL0", PMU_EXC_TAKEN);
    put_name(cpu, "PMEVTYPER1_EL0", PMU_EXC_RETURN);
    cpu->pc = base + CODE;
    cpu->x[19] = TURNS;
    cpu->x[23] = base + TABLE;
    cpu->x[24] = base + TABLES + FUNCTION_PTE;
    cpu->x[25] = cpu->x[24] + 2 * TABLE_SIZE;
    cpu->x[26] = LOWER + FUNCTION;
    cpu->x[27] = UPPER + FUNCTION;
    cpu->x[28] = USER;
    cpu->x[29] = UPPER + KERNEL;
    cpu->x[31] = 0x1000;
    cpu->sp_el[0] = 0x2000;
}

static void stop_vcpu(void *opaque)
{
    atomic_fetch_or(&((struct fixture *)opaque)->cpu->pending, PEND_STOP);
}
static const struct cluster_ops ops = { .system_off = stop_vcpu };

struct result {
    uint64_t hash, x[32], icount, counts[2];
    uint8_t data[8 * PAGE];
};

static void run(struct guest *g, const struct cpu_engine *engine, bool irq, struct result *r)
{
    struct cpu *cpu = g->f->cpu;

    memset(r, 0, sizeof *r);
    make_cpu(g, irq);
    engine->flush(cpu);
    engine->run(cpu);
    assert_true(atomic_load(&cpu->pending) & PEND_STOP);
    r->hash = cpu_state_hash(cpu);
    r->icount = cpu->icount;
    memcpy(r->x, cpu->x, sizeof r->x);
    r->counts[0] = get_name(cpu, "PMEVCNTR0_EL0");
    r->counts[1] = get_name(cpu, "PMEVCNTR1_EL0");
    assert_true(mem_read(g->f->mem, FIXTURE_RAM + USER, r->data, sizeof r->data));
}

static void run_programs(const char *model, unsigned first)
{
    g_autofree struct guest *g = g_new0(struct guest, 1);
    static struct result want, got;
    uint64_t exceptions = 0, interrupts = 0;

    for (unsigned seed = first; seed < first + PROGRAMS; seed++) {
        g->rand = g_rand_new_with_seed(seed);
        g->a1 = seed & 1;
        g->upper = seed & 2;
        for (unsigned e = 0; e < 2; e++) {
            g->f = fixture_new(model, 1);
            g->f->cl->ops = &ops;
            g->f->cl->ops_opaque = g->f;
            g_rand_set_seed(g->rand, seed);
            if (e)
                jit_engine.init(g->f->cpu);
            make_memory(g);
            run(g, e ? &jit_engine : &interp_engine, seed & 4, e ? &got : &want);
            if (e)
                jit_engine.fini(g->f->cpu);
            fixture_free(g->f);
        }
        for (unsigned i = 0; i < 32; i++)
            if (want.x[i] != got.x[i])
                print_message("%s, program %u: x%u %#lx, not %#lx\n", model, seed, i, got.x[i], want.x[i]);
        assert_memory_equal(&want, &got, sizeof want);
        exceptions += want.x[21];
        interrupts += want.x[22];
        g_rand_free(g->rand);
    }
    print_message("%s: %" PRIu64 " exceptions, %" PRIu64 " interrupts\n", model, exceptions, interrupts);
    assert_true(exceptions > PROGRAMS * TURNS * 10 && interrupts > PROGRAMS);
}

static void test_a57(void **state) { run_programs("cortex-a57", 1000); }
static void test_max(void **state) { run_programs("max", 2000); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a57),
        cmocka_unit_test(test_max),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
