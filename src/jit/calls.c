/*
 * What generated code calls (code.h): operations that it has no code for, accesses that the data TLB does not let pass.
 */
#include "jit/vcpu.h"

#include <string.h>

#include "base/report.h"
#include "cpu/cluster.h"
#include "cpu/debug.h"
#include "cpu/interp.h"
#include "cpu/mmu.h"
#include "cpu/prim.h"
#include "cpu/tlb.h"

static bool is_plain_access(unsigned op)
{
    return op >= IR_load && op <= IR_atomic_casp && op != IR_clear_ex;
}

/* Operations in which the vCPU may be quiescent: in the meantime the code that called may be gone. */
static bool may_sleep(unsigned op)
{
    return op == IR_barrier || op == IR_h_wfi || op == IR_h_wfe || op == IR_h_hvc;
}

static bool is_write(unsigned op)
{
    return !(op == IR_load || op == IR_load_pair || op == IR_load_w || op == IR_load_pair_w || op == IR_load_ex ||
             op == IR_load_ex_pair);
}

static void check_access(struct jit_cpu *j, const struct ir *ir, uint64_t va)
{
    unsigned mop = ir_mop(ir);
    const uint64_t *table = &j->cpu->hot[mop & MO_UNPRIV ? HOT_UTLB : HOT_TABLE];

    jit_check_access(j->cpu, (const struct jtlb_entry *)(uintptr_t)*table, va, mop, is_write(ir->op), &j->checked);
}

/* struct cpu is as the instruction finds it.  where: its page offset, and what icount lacks << 12. */
static void begin_op(struct jit_cpu *j, const struct ir *ir, uint32_t where)
{
    struct cpu *cpu = j->cpu;

    cpu->pc = cpu->hot[HOT_PAGE] + (where & (MEM_PAGE_SIZE - 1));
    cpu->next_pc = cpu->pc + 4;
    cpu->leave = 0;
    cpu->nzcv = jit_nzcv(cpu->hot[HOT_FLAGS]);
    cpu->icount += (uint64_t)(int64_t)((int32_t)where >> 12);
    jit_fold_flags(cpu);
    j->stats.c_ops[ir->op]++;
}

/* Guest code is left behind an operation.  retired: its instruction counts. */
static uint64_t leave_op(struct cpu *cpu, bool retired)
{
    cpu->icount += retired;
    cpu->pc = cpu->next_pc;
    cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
    return 1;
}

/* Runs the operation that is described behind the call. */
uint64_t jit_c_op(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;
    uint64_t after;
    uint32_t desc[JIT_DESC_BYTES / 4]; /* op, where, imm */

    memcpy(&after, (const void *)(uintptr_t)cpu->hot[HOT_RSP], sizeof after);
    memcpy(desc, (const uint8_t *)(uintptr_t)after + 2, sizeof desc);
    uint32_t op = desc[0], where = desc[1];
    int32_t done = (int32_t)where >> 12;
    struct ir ir = { .op = (uint16_t)op, .k = (uint8_t)(op >> 16), .x = (uint8_t)(op >> 24) };
    unsigned effects = ir_info[ir.op].effects;

    if (is_plain_access(ir.op) && desc[2] >> 16 && jit_refill(j, cpu->hot[HOT_A], ir.k, is_write(ir.op))) {
        after -= (desc[2] >> 16) - sizeof desc - 2;
        memcpy((void *)(uintptr_t)cpu->hot[HOT_RSP], &after, sizeof after);
        return 0;
    }
    if (effects & IE_END)
        ir.imm = desc[2];
    else
        ir.imm16 = (uint16_t)desc[2];
    begin_op(j, &ir, where);
    struct context *from = jit_context_now(j);
    unsigned forgotten = j->forgotten;
    const union vreg *in = (const union vreg *)&cpu->hot[HOT_A];
    if (unlikely(jit_check_mmu) && is_plain_access(ir.op))
        check_access(j, &ir, in[0].d[0]);
    bool ok = ir_eval_op(cpu, &ir, in, (union vreg *)&cpu->hot[HOT_R]);
    if (unlikely(!ok || cpu->leave & (LEAVE_FAULT | LEAVE_EXC))) {
        leave_op(cpu, !(cpu->leave & LEAVE_FAULT));
        if (ir.op == IR_exception && ir.k == EC_SVC) {
            jit_sync_mode(j);
            jit_learn(j, from, forgotten, TO_EXCEPTION);
        }
        return 1;
    }
    bool watched = cpu->debug_slow && (ir.op == IR_h_sysreg_write || ir.op == IR_h_msr_imm); /* perhaps only now */
    if (unlikely(watched || (may_sleep(ir.op) && jit_code_epoch(j->code) != j->epoch)))
        return leave_op(cpu, true);
    cpu->icount -= (uint64_t)(int64_t)done;
    if (is_plain_access(ir.op)) {
        j->stats.slow_mem++;
        jit_fill(j, in[0].d[0], ir_mop(&ir));
    } else if (effects & IE_STATE || ir.op == IR_barrier) { /* DSB applies what other vCPUs have queued */
        cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
        jit_sync_mode(j);
        if (ir.op == IR_h_eret)
            jit_learn(j, from, forgotten, TO_RETURN);
        else if (ir.op == IR_h_msr_imm && in[0].d[0] == 0 && in[1].d[0] == 4) /* PAN */
            jit_learn(j, from, forgotten, in[2].d[0] & 1 ? TO_PAN_1 : TO_PAN_0);
        if (ir.op == IR_h_sysreg_write && (in[0].d[0] & ~UINT64_C(0x7f)) == SYSREG_KEY(1, 3, 7, 0, 0)) /* DC by address */
            jit_fill(j, in[2].d[0], 0);
    }
    return 0;
}

/* A clock of the cluster's own may be the count of instructions (cpu/lockstep.c). */
uint64_t jit_c_counter(struct cpu *cpu, uint64_t uncounted)
{
    cpu->icount += uncounted;
    uint64_t counter = cpu_counter(cpu);
    cpu->icount -= uncounted;
    return counter;
}

/* Where the stubs have put host register r. */
static uint64_t *saved_register(struct cpu *cpu, unsigned r)
{
    for (unsigned i = 0; i < PINS; i++)
        if (jit_pins[i].host == r)
            return &cpu->x[jit_pins[i].guest];
    for (unsigned i = 0; i < TEMPS; i++)
        if (jit_temps[i] == r)
            return &cpu->hot[HOT_T0 + i];
    BUG("host register %u holds no value", r);
}

/* The value to be stored; *more: what stands behind the description. */
static union vreg access_operand(struct cpu *cpu, unsigned place, const uint8_t **more)
{
    union vreg v = { .d = { 0, 0 } };
    int32_t disp;

    switch (place) {
    case PLACE_NONE: case PLACE_ZERO: break;
    case PLACE_CONST:
        memcpy(&v.d[0], *more, 8);
        *more += 8;
        break;
    case PLACE_MEM:
        memcpy(&disp, *more, 4);
        *more += 4;
        memcpy(&v.d[0], (const uint8_t *)cpu + CPU_BIAS + disp, 8);
        break;
    default:
        if (place & PLACE_XMM)
            memcpy(&v, &cpu->hot[HOT_X + 2 * ((place & 15) - XMM_FIRST)], sizeof v);
        else
            v.d[0] = *saved_register(cpu, place);
    }
    return v;
}

static void access_result(struct cpu *cpu, unsigned place, const union vreg *v)
{
    if (place == PLACE_NONE)
        return;
    if (place & PLACE_XMM)
        memcpy(&cpu->hot[HOT_X + 2 * ((place & 15) - XMM_FIRST)], v, sizeof *v);
    else
        *saved_register(cpu, place) = v->d[0];
}

uint64_t jit_c_access(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;
    uint64_t *to = (uint64_t *)(uintptr_t)cpu->hot[HOT_RSP];
    const uint8_t *end = (const uint8_t *)(uintptr_t)*to + sizeof(struct jit_access), *more = end;
    struct jit_access a;
    union vreg in[5], out[2];

    memcpy(&a, (const void *)(uintptr_t)*to, sizeof a);
    *to = (uint64_t)(uintptr_t)end + (uint64_t)(int64_t)a.back;
    struct ir ir = { .op = a.op, .k = a.k, .x = a.x };
    int32_t done = (int32_t)a.where >> 12;
    in[0].d[0] = *saved_register(cpu, a.base) + (uint64_t)(int64_t)a.disp;
    for (unsigned i = 0; ir_info[ir.op].effects & IE_STORE && i < 2; i++)
        in[1 + i] = access_operand(cpu, a.place[i], &more);
    if (a.again && jit_refill(j, in[0].d[0], ir.k, is_write(ir.op))) {
        *to = (uint64_t)(uintptr_t)end - a.again;
        return 0;
    }
    begin_op(j, &ir, a.where);
    if (unlikely(jit_check_mmu))
        check_access(j, &ir, in[0].d[0]);
    if (unlikely(!ir_eval_op(cpu, &ir, in, out) || cpu->leave & (LEAVE_FAULT | LEAVE_EXC)))
        return leave_op(cpu, !(cpu->leave & LEAVE_FAULT));
    cpu->icount -= (uint64_t)(int64_t)done;
    j->stats.slow_mem++;
    jit_fill(j, in[0].d[0], ir_mop(&ir));
    for (unsigned i = 0; ir_info[ir.op].effects & IE_LOAD && i < 2; i++)
        access_result(cpu, a.place[i], &out[i]);
    return 0;
}

/* Is all of [va, va + span) in one page that the data TLB has now? */
static bool group_is_there(struct jit_cpu *j, uint64_t va, unsigned span, bool store)
{
    struct cpu *cpu = j->cpu;
    const struct jtlb_entry *t = &((struct jtlb_entry *)(uintptr_t)cpu->hot[HOT_TABLE])[jit_tlb_index(va)];
    struct tlb_hit hit;

    if ((va ^ (va + span - 1)) / MEM_PAGE_SIZE)
        return false;
    if (tlb_lookup(cpu, va, store ? MMU_WRITE : MMU_READ, mmu_data_view(cpu, false), &hit) != FSC_NONE)
        return false;
    j->stats.slow_mem++;
    jit_fill(j, va, 0);
    return jtlb_permits(t, va, store);
}

/* A group at pa was not in one page.  Where that is so again and again, it is to have code for that. */
static void note_torn(struct jit_cpu *j, uint64_t pa)
{
    enum { TOO_OFTEN = 1024 };
    struct torn *t = &j->torn[(pa >> 2 ^ pa >> 12) & (TORN - 1)];

    j->stats.torn++;
    if (t->pa != pa) {
        if (t->n) {
            t->n--;
            return;
        }
        t->pa = pa;
    }
    if (++t->n == TOO_OFTEN && !j->cpu->cluster->lockstep) {
        t->n = 0;
        jit_code_torn(j->code, j->cpu, pa);
    }
}

uint64_t jit_c_group(struct cpu *cpu)
{
    struct jit_cpu *j = cpu->engine;
    uint64_t *to = (uint64_t *)(uintptr_t)cpu->hot[HOT_RSP];
    const uint8_t *hva = j->exec_page;
    uint64_t pa_page = 0;
    struct jit_group a;

    memcpy(&a, (const void *)(uintptr_t)*to, sizeof a);
    *to += sizeof a;
    cpu->nzcv = jit_nzcv(cpu->hot[HOT_FLAGS]);
    jit_fold_flags(cpu);
    if (group_is_there(j, *saved_register(cpu, a.base) + (uint64_t)(int64_t)a.disp, a.span, a.insns & GROUP_STORES)) {
        *to += (uint64_t)(int64_t)a.again;
        return 0;
    }
    cpu->pc = cpu->hot[HOT_PAGE] + (a.where & (MEM_PAGE_SIZE - 1));
    cpu->icount += (uint64_t)(int64_t)((int32_t)a.where >> 12);
    cpu->leave = 0;
    if (!hva && !access_fetch(cpu, cpu->pc, &hva, &pa_page)) {
        cpu->pc = cpu->next_pc;
        return 1;
    }
    if (pa_page)
        note_torn(j, pa_page | (cpu->pc & (MEM_PAGE_SIZE - 1)));
    interp_run_line(cpu, hva, a.insns & ~(unsigned)GROUP_STORES);
    cpu->hot[HOT_FLAGS] = jit_hot_flags(cpu->nzcv);
    return cpu->leave || cpu->pc != cpu->hot[HOT_PAGE] + a.behind;
}
