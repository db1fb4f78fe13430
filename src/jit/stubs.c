/*
 * Code that all blocks share: the way in and out, the call of C, the jump cache.
 *
 * In the run loop struct cpu is complete; in code HOT_FLAGS stands for cpu->nzcv, and host registers for the pinned guest
 * registers.  Nothing in here knows of a vCPU: RBP says which one runs.
 */
#include "jit/emit.h"

#include "base/report.h"
#include "jit/code.h"
#include "jit/x86_sse.h"

static void save_pins(struct x86 *x)
{
    for (unsigned i = 0; i < PINS; i++)
        x86_store(x, true, jit_cpu_mem(offsetof(struct cpu, x) + 8 * (size_t)jit_pins[i].guest), jit_pins[i].host);
}

static void load_pins(struct x86 *x)
{
    for (unsigned i = 0; i < PINS; i++)
        x86_load(x, true, jit_pins[i].host, jit_cpu_mem(offsetof(struct cpu, x) + 8 * (size_t)jit_pins[i].guest));
    x86_load(x, true, REG_TLB, HOT(HOT_TABLE));
}

static const uint8_t saved_regs[] = { RBX, RBP, R12, R13, R14, R15 };

/* Flags that C's own arithmetic raises are not the guest's: MXCSR is the code's again after every call. */
static void save_mxcsr(struct x86 *x) { x86_rm(x, 0, false, 0x0fae, 3, HOT(HOT_MXCSR), false); }
static void load_mxcsr(struct x86 *x) { x86_rm(x, 0, false, 0x0fae, 2, HOT(HOT_MXCSR), false); }

static void stub_return(struct x86 *x)
{
    x86_load(x, true, RSP, HOT(HOT_CSP));
    x86_alu_ri(x, true, ALU_ADD, RSP, 8);
    for (unsigned i = sizeof saved_regs; i--;)
        x86_pop(x, saved_regs[i]);
    x86_ret(x);
}

static const uint8_t *stub_here(const struct x86 *x)
{
    return x->p + x->exec;
}

/* void enter(struct cpu *rdi, const uint8_t *code rsi): RAX is cpu->pc in the code. */
static void make_enter(struct x86 *x)
{
    for (unsigned i = 0; i < sizeof saved_regs; i++)
        x86_push(x, saved_regs[i]);
    x86_alu_ri(x, true, ALU_SUB, RSP, 8);
    x86_lea(x, true, REG_CPU, MEM(RDI, CPU_BIAS));
    x86_store(x, true, HOT(HOT_CSP), RSP);
    x86_load(x, true, RSP, HOT(HOT_RSP));
    load_pins(x);
    load_mxcsr(x);
    x86_load(x, true, RAX, CPU_MEM(pc));
    x86_jmp_reg(x, RSI);
}

static void make_leaves(struct x86 *x, struct jit_stubs *s)
{
    s->leave_next = stub_here(x);
    x86_load(x, true, RAX, CPU_MEM(next_pc));
    s->leave_at = stub_here(x);
    x86_store(x, true, CPU_MEM(pc), RAX);
    s->leave = stub_here(x);
    save_mxcsr(x);
    save_pins(x);
    x86_store(x, true, HOT(HOT_RSP), RSP);
    stub_return(x);
    s->link = stub_here(x);
    x86_pop(x, RCX);
    x86_store(x, true, HOT(HOT_LINK), RCX);
    x86_load(x, false, RAX, MEM(RCX, 4));
    x86_alu_rm(x, true, ALU_ADD, RAX, HOT(HOT_PAGE));
    x86_jmp_to(x, s->leave_at - x->exec);
    s->dispatch = stub_here(x);
    emit_dispatch_code(x, s->leave_at - x->exec, false);
    s->direct = stub_here(x);
    emit_dispatch_code(x, s->leave_at - x->exec, true);
    s->isb = stub_here(x);
    x86_load(x, true, RCX, HOT(HOT_CHANGES_AT));
    x86_load(x, false, RCX, MEM(RCX, 0));
    x86_alu_rm(x, false, ALU_CMP, RCX, HOT(HOT_CHANGES));
    uint8_t *stale = x86_jcc(x, CC_NE);
    x86_jmp_to(x, s->dispatch - x->exec);
    x86_patch(stale, s->leave_at - x->exec);
}

/* Called from code by CALL: all registers as before afterwards (xmm only with `keep'), unless the operation leaves. */
static const uint8_t *make_call(struct x86 *x, bool keep)
{
    const uint8_t *start = stub_here(x);
    for (unsigned i = XMM_FIRST; keep && i < XMMS; i++)
        x86_movdqu_store(x, HOT(HOT_X + 2 * (i - XMM_FIRST)), i);
    save_mxcsr(x);
    for (unsigned i = 0; i < TEMPS; i++)
        x86_store(x, true, HOT(HOT_T0 + i), jit_temps[i]);
    save_pins(x);
    x86_store(x, true, HOT(HOT_RSP), RSP);
    x86_load(x, true, RSP, HOT(HOT_CSP));
    x86_lea(x, true, RDI, MEM(REG_CPU, -CPU_BIAS));
    x86_mov_ri(x, RAX, (uint64_t)(uintptr_t)jit_c_op);
    x86_call_reg(x, RAX);
    x86_test_rr(x, false, RAX, RAX);
    uint8_t *leave = x86_jcc(x, CC_NE);
    x86_load(x, true, RSP, HOT(HOT_RSP));
    load_pins(x);
    load_mxcsr(x);
    for (unsigned i = XMM_FIRST; keep && i < XMMS; i++)
        x86_movdqu_load(x, i, HOT(HOT_X + 2 * (i - XMM_FIRST)));
    for (unsigned i = 0; i < TEMPS; i++)
        x86_load(x, true, jit_temps[i], HOT(HOT_T0 + i));
    x86_ret(x);
    x86_here(x, leave);
    x86_alu_mi(x, true, ALU_ADD, HOT(HOT_RSP), 8); /* the return address into the block */
    stub_return(x);
    return start;
}

void jit_make_stubs(struct jit_stubs *stubs, uint8_t *rw, size_t room, intptr_t exec)
{
    struct x86 x = { .p = rw, .start = rw, .end = rw + room, .exec = exec };

    stubs->enter = stub_here(&x);
    make_enter(&x);
    make_leaves(&x, stubs);
    stubs->call = make_call(&x, false);
    stubs->call_keep = make_call(&x, true);
    BUG_ON(x.full);
}
