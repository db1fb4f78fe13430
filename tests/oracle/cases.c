#include "cases.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "base/report.h"
#include "cpu/interp.h"
#include "cpu/value.h"

/* the machine */

enum {
    RAM_BASE = 0x40000000, RAM_SIZE = 0x40000000,
    TABLE = RAM_BASE, /* of level 1, and one of level 2 behind it */
    BLOCK = 2 << 20,
};
#define UNMAPPED UINT64_C(0x0000007000000000) /* within the 39 bits of T0SZ = 25 */

static uint8_t *hva(struct oracle_machine *m, uint64_t pa, size_t len)
{
    struct span span = mem_span(m->mem, pa, len);

    BUG_ON(!span.hva);
    return span.hva;
}

enum { AP_RW = 1 << 6, AP_RO = 3 << 6 };

/* Mapped onto itself as normal memory of EL0. */
static void map_block(uint64_t *level2, uint64_t pa, unsigned ap)
{
    level2[(pa - RAM_BASE) / BLOCK] = (pa & ~(uint64_t)(BLOCK - 1)) | BIT(10) | 3u << 8 | ap | 1;
}

/* Little is mapped, so that stray accesses fault and no case leaves traces for the next. */
static void make_tables(struct oracle_machine *m)
{
    struct sysregs *sys = &m->cpu->sys;
    uint64_t *table = (uint64_t *)hva(m, TABLE, 8192);

    table[RAM_BASE >> 30] = (TABLE + 4096) | 3;
    map_block(table + 512, ORACLE_MEM, AP_RW);
    map_block(table + 512, ORACLE_CODE, AP_RO);
    sys->ttbr0_el1 = TABLE;
    sys->mair_el1 = 0xff;
    sys->tcr_el1 = 25 | 1u << 8 | 1u << 10 | 3u << 12 | BIT(23) | UINT64_C(2) << 32;
    sys->sctlr_el1 =
        (sys->sctlr_el1 & ~(uint64_t)(SCTLR_SA0 | SCTLR_A)) | SCTLR_M | SCTLR_DZE | SCTLR_UCT | SCTLR_UCI;
    sys->cpacr_el1 = 3u << 20;
}

void oracle_machine_new(struct oracle_machine *m, const char *model, unsigned vcpus)
{
    m->mem = mem_new(RAM_BASE, RAM_SIZE);
    BUG_ON(!m->mem);
    m->cluster = cluster_new(vcpus, m->mem, cpu_model_find(model), &interp_engine);
    m->cpu = m->cluster->cpu[0];
    cpu_reset(m->cpu, ORACLE_CODE, 0);
    make_tables(m);
    cpu_set_pstate(m->cpu, 0);
    cpu_refresh(m->cpu);
    m->data = hva(m, ORACLE_MEM, ORACLE_MEM_BYTES);
    m->code = hva(m, ORACLE_CODE, 8192 + ORACLE_BATCH * ORACLE_SLOT_BYTES);
    oracle_literals((uint64_t *)m->code);
}

void oracle_machine_free(struct oracle_machine *m)
{
    cluster_free(m->cluster);
    mem_free(m->mem);
}

void oracle_set(struct oracle_machine *m, const struct oracle_state *st, uint64_t pc)
{
    struct cpu *cpu = m->cpu;

    if (cpu->el != 0)
        cpu_set_pstate(cpu, 0);
    memcpy(cpu->x, st->x, sizeof cpu->x);
    memcpy(cpu->v, st->v, sizeof cpu->v);
    cpu->nzcv = (uint32_t)st->nzcv;
    cpu->fp.fpcr = (uint32_t)st->fpcr;
    cpu->fp.fpsr = (uint32_t)st->fpsr;
    cpu->pc = pc;
    cpu->ex.valid = false;
    memcpy(m->data, st->mem, sizeof st->mem);
}

void oracle_get(struct oracle_machine *m, struct oracle_state *st, uint64_t pc_before)
{
    struct cpu *cpu = m->cpu;

    memcpy(st->x, cpu->x, sizeof cpu->x);
    memcpy(st->v, cpu->v, sizeof cpu->v);
    st->nzcv = cpu->nzcv;
    st->fpcr = cpu->fp.fpcr;
    st->fpsr = cpu->fp.fpsr;
    st->taken = cpu->pc != pc_before + 4;
    memcpy(st->mem, m->data, sizeof st->mem);
}

bool oracle_interpret(struct oracle_machine *m, const struct oracle_record *rec, unsigned slot, uint32_t rep,
                      struct oracle_state *after)
{
    uint64_t pc = ORACLE_SLOTS + (uint64_t)slot * ORACLE_SLOT_BYTES + ORACLE_WORD_OFFSET;

    oracle_make(rec, rep, after);
    oracle_set(m, after, pc - 4);
    if (!interp_exec_word(m->cpu, rec->prefix) || !interp_exec_word(m->cpu, rec->word))
        return false;
    oracle_get(m, after, pc);
    return true;
}

/* random words */

const char *oracle_denied(unsigned op)
{
    static const struct { uint16_t op; const char *why; } denied[] = {
        {A64_SVC, "is a system call on the other side"},
        {A64_HVC, "UNDEFINED at EL0"},
        {A64_SMC, "UNDEFINED at EL0"},
        {A64_BRK, "exception"},
        {A64_HLT, "UNDEFINED, or semihosting on the other side"},
        {A64_DCPS1, "UNDEFINED outside Debug state"},
        {A64_DCPS2, "UNDEFINED outside Debug state"},
        {A64_DCPS3, "UNDEFINED outside Debug state"},
        {A64_ERET, "UNDEFINED at EL0"},
        {A64_DRPS, "UNDEFINED outside Debug state"},
        {A64_HINT, "waits and events depend on other processes"},
        {A64_MSR_IMM, "privileged"},
        {A64_SYS, "DC ZVA depends on DCZID_EL0; the rest has no effect to see, or is privileged"},
        {A64_SYSL, "nothing is allocated"},
    };

    if (op == A64_UNDEFINED || a64_info[op].todo)
        return "not implemented";
    for (unsigned i = 0; i < ARRAY_LEN(denied); i++)
        if (denied[i].op == op)
            return denied[i].why;
    return NULL;
}

static int lsb_of(unsigned op, const char *name)
{
    for (int i = 0; i < A64_MAX_FIELDS && a64_info[op].fields[i].name; i++)
        if (!strcmp(a64_info[op].fields[i].name, name))
            return a64_info[op].fields[i].lsb;
    return -1;
}

static uint32_t with_field(uint32_t word, int lsb, unsigned width, uint32_t v)
{
    return (uint32_t)bits_deposit(word, (unsigned)lsb, width, v);
}

/* Random fields; register 28 is taken. */
static uint32_t random_word(unsigned op, uint64_t *seed)
{
    const struct a64_info *info = &a64_info[op];
    uint32_t word = info->value | ((uint32_t)oracle_next(seed) & ~info->mask);

    for (int i = 0; i < A64_MAX_FIELDS && info->fields[i].name; i++)
        if (info->fields[i].name[0] == 'r' && info->fields[i].width == 5 &&
            (word >> info->fields[i].lsb & 31) == 28)
            word = with_field(word, info->fields[i].lsb, 5, 12);
    return word;
}

static bool is_memory(unsigned op)
{
    return a64_info[op].group == A64_GROUP_mem || a64_info[op].group == A64_GROUP_simdmem;
}

static uint32_t field(unsigned op, uint32_t word, const char *name)
{
    return a64_field(op, word, name);
}

/* A store-exclusive needs a monitor: the matching load-exclusive into XZR, or into a pair with a register
 * nobody uses. */
static uint32_t exclusive_prefix(unsigned op, uint32_t word)
{
    uint32_t rn = field(op, word, "rn") << 5;

    if (op == A64_STXR || op == A64_STLXR)
        return 0x085f7c1f | rn | (word & 0xc0000000);
    if (op == A64_STXP || op == A64_STLXP) {
        for (unsigned r = 0; r < 28; r++)
            if (r != field(op, word, "rs") && r != field(op, word, "rt") && r != field(op, word, "rt2") &&
                r != rn >> 5)
                return 0x887f001f | rn | r << 10 | (word & 0x40000000);
    }
    return (uint32_t)ORACLE_NOP;
}

/* Branches go to where the arm64 side has its second way out. */
static bool aim_branch(unsigned op, struct oracle_record *rec, uint64_t pc)
{
    static const struct {
        const char *name;
        unsigned width;
    } rel[] = {{"imm26", 26}, {"imm19", 19}, {"imm14", 14}};

    if (a64_info[op].group != A64_GROUP_branch)
        return true;
    for (unsigned i = 0; i < ARRAY_LEN(rel); i++)
        if (lsb_of(op, rel[i].name) >= 0)
            rec->word = with_field(rec->word, lsb_of(op, rel[i].name), rel[i].width, ORACLE_TAKEN_OFFSET / 4);
    if (lsb_of(op, "rn") >= 0) {
        rec->reg[0] = (uint8_t)field(op, rec->word, "rn");
        rec->value[0] = pc + ORACLE_TAKEN_OFFSET;
        return rec->reg[0] != 31;
    }
    return true;
}

static void aim_literal(unsigned op, struct oracle_record *rec, uint64_t pc, uint64_t r)
{
    uint64_t to = ORACLE_CODE + r % 4080 / 4 * 4;

    rec->word = with_field(rec->word, lsb_of(op, "imm19"), 19, (uint32_t)((to - pc) >> 2) & 0x7ffff);
}

/*
 * Where the word would access memory with its base register at UNMAPPED.  A store-exclusive without its
 * monitor may access nothing, but its prefix goes to the same place.
 */
static bool probe(struct oracle_machine *m, const struct oracle_record *original, unsigned slot,
                  uint64_t *address)
{
    struct oracle_record rec = *original;
    struct oracle_state st;

    rec.value[0] = UNMAPPED;
    if (rec.prefix != (uint32_t)ORACLE_NOP)
        rec.word = (uint32_t)ORACLE_NOP;
    if (oracle_interpret(m, &rec, slot, 0, &st)) {
        *address = 0; /* touches nothing: a prefetch */
        return true;
    }
    *address = m->cpu->sys.far_el1;
    return m->cpu->sys.esr_el1 >> 26 == EC_DABT_LOWER;
}

/* Chooses the base register's value so that the access hits ORACLE_MEM. */
static bool aim_memory(struct oracle_machine *m, unsigned op, struct oracle_record *rec, unsigned slot,
                       uint64_t *seed)
{
    uint32_t rm = lsb_of(op, "rm") >= 0 ? field(op, rec->word, "rm") : 31;
    uint64_t address, target = ORACLE_MEM + 128 + oracle_next(seed) % 256, r = oracle_next(seed);
    struct oracle_state st;

    rec->reg[0] = (uint8_t)field(op, rec->word, "rn");
    if (rm != 31 && rm != rec->reg[0]) { /* the same index for every repetition */
        rec->reg[1] = (uint8_t)rm;
        rec->value[1] = oracle_value(seed);
    }
    if (!probe(m, rec, slot, &address))
        return false;
    if (r & 3)
        target &= ~UINT64_C(15);
    rec->target = target;
    rec->value[0] = UNMAPPED - address + target;
    if (!address)
        return true;
    if (lsb_of(op, "rs") >= 0 && (op == A64_CAS || op == A64_CASP) && (r & 4)) {
        rec->copy_reg = (uint8_t)field(op, rec->word, "rs");
        rec->copy_n = op == A64_CASP && rec->copy_reg != 30 ? 2 : 1;
        rec->copy_bytes = op == A64_CAS || field(op, rec->word, "sf") ? 8 : 4;
        if (rec->copy_reg == 31 || rec->copy_reg == rec->reg[0] || rec->copy_reg + 1 == rec->reg[0])
            rec->copy_n = 0;
    }
    return oracle_interpret(m, rec, slot, 0, &st);
}

/* System registers that a program may use alike everywhere. */
static void aim_sysreg(unsigned op, struct oracle_record *rec, uint64_t r)
{
    static const uint32_t keys[] = {SYSREG_KEY(3, 3, 4, 2, 0), SYSREG_KEY(3, 3, 4, 4, 1),
                                    SYSREG_KEY(3, 3, 4, 4, 0)}; /* NZCV, FPSR, FPCR */
    uint32_t key = keys[r % ARRAY_LEN(keys)];

    rec->word = with_field(a64_info[op].value | (rec->word & 31), 5, 15, key & 0x7fff) | 1u << 20;
    if (op == A64_MSR_REG && key != keys[0]) { /* only bits that every CPU has */
        rec->reg[0] = rec->word & 31;
        rec->value[0] = key == keys[1] ? r & 0x0800009f : r & 0x07c00000;
        if (rec->reg[0] == 31)
            rec->reg[0] = ORACLE_NONE;
    }
}

static uint32_t random_fpcr(uint64_t r)
{
    if (r & 1)
        return 0;
    return (uint32_t)(r >> 1 & 7) << 22 | (uint32_t)(r >> 4 & 1) << 25 | (uint32_t)((r >> 5 & 7) == 0) << 26;
}

/* Where the other side, QEMU 7.2, is known to differ, only that corner is left out. */
static void keep_away(unsigned op, struct oracle_record *rec)
{
    if (op == A64_SB) /* it takes CRm other than 0 for UNDEFINED; the manual has it should-be-zero */
        rec->word &= ~0xf00u;
    if (op == A64_FJCVTZS_G) /* a denormal that FZ flushes leaves Z clear (FPToFixedJS), there it sets Z */
        rec->fpcr &= ~(uint32_t)FPCR_FZ;
}

static bool try_pick(struct oracle_machine *m, unsigned op, unsigned slot, uint64_t *seed,
                     struct oracle_record *rec)
{
    uint64_t pc = ORACLE_SLOTS + (uint64_t)slot * ORACLE_SLOT_BYTES + ORACLE_WORD_OFFSET;
    struct a64_insn insn;
    struct oracle_state st;

    *rec = (struct oracle_record){.word = random_word(op, seed), .prefix = (uint32_t)ORACLE_NOP,
                                  .reg = {ORACLE_NONE, ORACLE_NONE}, .target = ORACLE_MEM};
    if (op == A64_MRS || op == A64_MSR_REG)
        aim_sysreg(op, rec, oracle_next(seed));
    if (!a64_decode(rec->word, &insn) || insn.op != op || !a64_available(op, m->cpu->features))
        return false;
    rec->seed = oracle_next(seed);
    rec->fpcr = random_fpcr(oracle_next(seed));
    keep_away(op, rec);
    rec->prefix = exclusive_prefix(op, rec->word);
    if (!aim_branch(op, rec, pc))
        return false;
    if (is_memory(op) && lsb_of(op, "imm19") >= 0)
        aim_literal(op, rec, pc, oracle_next(seed));
    else if (is_memory(op))
        return aim_memory(m, op, rec, slot, seed);
    return oracle_interpret(m, rec, slot, 0, &st);
}

bool oracle_pick(struct oracle_machine *m, unsigned op, unsigned slot, uint64_t *seed,
                 struct oracle_record *rec)
{
    for (int tries = 0; tries < 200; tries++)
        if (try_pick(m, op, slot, seed, rec))
            return true;
    return false;
}

/* differences */

static void print_pair(const char *what, unsigned n, uint64_t before, uint64_t a, const char *a_name,
                       uint64_t b, const char *b_name)
{
    if (a != b)
        printf("    %s%u: was %016" PRIx64 ", %s %016" PRIx64 ", %s %016" PRIx64 "\n", what, n, before,
               a_name, a, b_name, b);
}

void oracle_print_difference(const struct oracle_state *before, const struct oracle_state *a,
                             const char *a_name, const struct oracle_state *b, const char *b_name)
{
    for (unsigned i = 0; i < 32; i++)
        print_pair("x", i, before->x[i], a->x[i], a_name, b->x[i], b_name);
    print_pair("nzcv", 0, before->nzcv, a->nzcv, a_name, b->nzcv, b_name);
    print_pair("fpsr", 0, before->fpsr, a->fpsr, a_name, b->fpsr, b_name);
    print_pair("fpcr", 0, before->fpcr, a->fpcr, a_name, b->fpcr, b_name);
    print_pair("taken", 0, before->taken, a->taken, a_name, b->taken, b_name);
    for (unsigned i = 0; i < 64; i++)
        print_pair(i & 1 ? "high of v" : "low of v", i / 2, before->v[i / 2][i & 1], a->v[i / 2][i & 1],
                   a_name, b->v[i / 2][i & 1], b_name);
    for (unsigned i = 0; i < ORACLE_MEM_BYTES / 8; i++)
        print_pair("mem+", i * 8, before->mem[i], a->mem[i], a_name, b->mem[i], b_name);
}
