/*
 * Code that all blocks share: the way in and out, the call of C, the jump cache.
 *
 * In the run loop struct cpu is complete; in code HOT_FLAGS stands for cpu->nzcv, and host registers for the pinned guest
 * registers.  Nothing in here knows of a vCPU: RBP says which one runs.
 */
#include "jit/emit.h"

#include "base/report.h"
#include "base/trace.h"
#include "cpu/tlb.h"
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
static const uint8_t *make_call(struct x86 *x, uint64_t (*to)(struct cpu *), bool keep)
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
    x86_mov_ri(x, RAX, (uint64_t)(uintptr_t)to);
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

/* Faster than make_call(): it touches no guest state, so what C keeps stays where it is.  (It computes with integers.) */
static const uint8_t *make_counter(struct x86 *x)
{
    static const uint8_t lost[] = { RDI, R8, R9, R10, R11 };
    const uint8_t *start = stub_here(x);

    for (unsigned i = 0; i < sizeof lost; i++)
        x86_store(x, true, HOT(HOT_T0 + i), lost[i]);
    x86_store(x, true, HOT(HOT_RSP), RSP);
    x86_load(x, true, RSP, HOT(HOT_CSP));
    x86_lea(x, true, RDI, MEM(REG_CPU, -CPU_BIAS));
    x86_mov_ri(x, RAX, (uint64_t)(uintptr_t)jit_c_counter);
    x86_call_reg(x, RAX);
    x86_load(x, true, RSP, HOT(HOT_RSP));
    for (unsigned i = 0; i < sizeof lost; i++)
        x86_load(x, true, lost[i], HOT(HOT_T0 + i));
    x86_ret(x);
    return start;
}

/*
 * --- changes of context ---
 *
 * SVC, ERET, and writes of TTBRs and PAN, as cpu/exception.c and cpu/sysreg.c do them, where all that follows from them is in a
 * remembered context (state.h).  There is none while something is debugged, counted or traced (sync_mode() in jit.c); what can
 * change without this vCPU's doing is looked at here: tracing, and whether code went stale, as exceptions and returns are
 * context synchronization events.  Interrupts are the dispatch's.
 */
enum { TRACE_STOPS = 1 << TRACE_INT | 1 << TRACE_EXEC | 1 << TRACE_CPU | 1 << TRACE_NOCHAIN | 1 << TRACE_SYSREG };
enum { DAIF_ALL = DAIF_D | DAIF_A | DAIF_I | DAIF_F, ALL_MASKED = ~(PEND_EVENT | PEND_IRQ | PEND_FIQ | PEND_SERROR) };
enum { VECTOR_SP0 = 0, VECTOR_SPX = 0x200, VECTOR_LOWER = 0x400 };

#define CONTEXT(r, field) MEM((r), offsetof(struct context, field))
#define SYS(reg) jit_cpu_mem(offsetof(struct cpu, sys.reg))
static struct hmem sp_el(unsigned bank)
{
    return jit_cpu_mem(offsetof(struct cpu, sp_el) + 8 * bank);
}

/* The jump if it is no time for that.  RSI is destroyed. */
struct checks {
    uint8_t *out[2];
};
static struct checks make_checks(struct x86 *x)
{
    struct checks c;

    x86_mov_ri(x, RSI, (uint64_t)(uintptr_t)&trace_enabled);
    x86_rm(x, 0, false, 0xf7, 0, MEM(RSI, 0), false); /* test */
    x86_u32(x, TRACE_STOPS);
    c.out[0] = x86_jcc(x, CC_NE);
    x86_load(x, true, RSI, HOT(HOT_CHANGES_AT));
    x86_load(x, false, RSI, MEM(RSI, 0));
    x86_alu_rm(x, false, ALU_CMP, RSI, HOT(HOT_CHANGES));
    c.out[1] = x86_jcc(x, CC_NE);
    return c;
}

/* To the context in RDX.  RCX, RSI and xmm0 are destroyed. */
static void make_switch(struct x86 *x)
{
    _Static_assert(HOT_UTLB == HOT_TABLE + 1 && offsetof(struct context, utlb) == offsetof(struct context, table) + 8, "");
    _Static_assert(offsetof(struct tlb, unpriv_tag) == offsetof(struct tlb, data_tag) + 8, "");
    _Static_assert(offsetof(struct context, unpriv_tag) == offsetof(struct context, data_tag) + 8, "");
    x86_load(x, true, REG_TLB, CONTEXT(RDX, table));
    x86_movdqu_load(x, 0, CONTEXT(RDX, table));
    x86_movdqu_store(x, HOT(HOT_TABLE), 0);
    x86_load(x, true, RCX, CONTEXT(RDX, key));
    x86_store(x, true, HOT(HOT_KEY), RCX);
    x86_load(x, true, RCX, CPU_MEM(tlb));
    x86_movdqu_load(x, 0, CONTEXT(RDX, data_tag));
    x86_movdqu_store(x, MEM(RCX, offsetof(struct tlb, data_tag)), 0);
    x86_load(x, true, RSI, CONTEXT(RDX, fetch_tag));
    x86_store(x, true, MEM(RCX, offsetof(struct tlb, fetch_tag)), RSI);
    x86_load(x, true, RCX, CONTEXT(RDX, pstate));
    x86_store(x, true, CPU_MEM(el), RCX);
    x86_store(x, true, HOT(HOT_CONTEXT), RDX);
    x86_load(x, true, RCX, CPU_MEM(icount));
    x86_store(x, true, CONTEXT(RDX, used), RCX);
}

/* The pinned SP goes to its bank, the other's comes.  RAX is destroyed. */
static void make_other_sp(struct x86 *x, unsigned old)
{
    unsigned sp = jit_pin_of[31];

    x86_mov_rr(x, true, RAX, sp);
    x86_load(x, true, sp, sp_el(!old));
    x86_store(x, true, sp_el(old), RAX);
}

/* ECX = NZCV as in SPSR.  RAX and RDX are destroyed. */
static void make_nzcv(struct x86 *x)
{
    x86_load(x, false, RAX, HOT(HOT_FLAGS));
    x86_mov_rr(x, false, RCX, RAX);
    x86_mov_rr(x, false, RDX, RAX);
    x86_alu_ri(x, false, ALU_AND, RCX, 0xc000);
    x86_shift_ri(x, false, SH_SHL, RCX, 16);
    x86_alu_ri(x, false, ALU_AND, RDX, 0x100);
    x86_shift_ri(x, false, SH_SHL, RDX, 21);
    x86_alu_rr(x, false, ALU_OR, RCX, RDX);
    x86_shift_ri(x, false, SH_SHL, RAX, 31);
    x86_shift_ri(x, false, SH_SHR, RAX, 3);
    x86_alu_rr(x, false, ALU_OR, RCX, RAX);
}

/* HOT_FLAGS of the SPSR in ECX.  RAX and RDX are destroyed. */
static void make_hot_flags(struct x86 *x)
{
    x86_mov_rr(x, false, RAX, RCX);
    x86_mov_rr(x, false, RDX, RCX);
    x86_shift_ri(x, false, SH_SHR, RAX, 16);
    x86_alu_ri(x, false, ALU_AND, RAX, 0xc000);
    x86_shift_ri(x, false, SH_SHR, RDX, 21);
    x86_alu_ri(x, false, ALU_AND, RDX, 0x100);
    x86_alu_rr(x, false, ALU_OR, RAX, RDX);
    x86_mov_rr(x, false, RDX, RCX);
    x86_shift_ri(x, false, SH_SHR, RDX, 28);
    x86_alu_ri(x, false, ALU_AND, RDX, 1);
    x86_alu_rr(x, false, ALU_OR, RAX, RDX);
    x86_store(x, true, HOT(HOT_FLAGS), RAX);
}

/* enter_el1() of cpu/exception.c. */
static const uint8_t *make_exception(struct x86 *x, unsigned vector, const struct jit_stubs *s)
{
    const uint8_t *start = stub_here(x);
    struct checks c = make_checks(x);

    x86_load(x, true, RSI, HOT(HOT_CONTEXT));
    x86_load(x, true, R14, CONTEXT(RSI, to[TO_EXCEPTION]));
    x86_test_rr(x, true, R14, R14);
    uint8_t *unknown = x86_jcc(x, CC_E);
    x86_store(x, true, SYS(elr_el1), RAX);
    x86_store(x, true, SYS(esr_el1), RCX);
    make_nzcv(x);
    x86_alu_rm(x, false, ALU_OR, RCX, CPU_MEM(daif));
    x86_alu_rm(x, false, ALU_OR, RCX, CONTEXT(RSI, spsr));
    x86_store(x, true, SYS(spsr_el1), RCX);
    x86_store_imm(x, false, CPU_MEM(daif), DAIF_ALL);
    x86_store_imm(x, false, HOT(HOT_MASK), ALL_MASKED);
    if (vector != VECTOR_SPX)
        make_other_sp(x, 0);
    x86_mov_rr(x, true, RDX, R14);
    make_switch(x);
    x86_load(x, true, RAX, SYS(vbar_el1));
    if (vector)
        x86_alu_ri(x, true, ALU_ADD, RAX, (int32_t)vector);
    emit_dispatch_code(x, s->leave_at - x->exec, false);
    x86_here(x, c.out[0]);
    x86_here(x, c.out[1]);
    x86_here(x, unknown);
    x86_jmp_reg(x, RDX);
    return start;
}

/* HOT_MASK by DAIF >> 6. */
static uint32_t masks[16];

/* cpu_eret(), where the last one from this context led. */
static const uint8_t *make_eret(struct x86 *x, bool sph, const struct jit_stubs *s)
{
    const uint8_t *start = stub_here(x);
    struct checks c = make_checks(x);

    x86_load(x, true, RSI, HOT(HOT_CONTEXT));
    x86_load(x, true, R14, CONTEXT(RSI, to[TO_RETURN]));
    x86_test_rr(x, true, R14, R14);
    uint8_t *unknown = x86_jcc(x, CC_E);
    x86_load(x, false, RCX, SYS(spsr_el1));
    x86_load(x, false, RAX, CONTEXT(R14, spsr));
    x86_alu_rr(x, false, ALU_XOR, RAX, RCX);
    x86_test_ri(x, false, RAX, SPSR_M | SPSR_IL | SPSR_PAN | SPSR_UAO);
    uint8_t *other = x86_jcc(x, CC_NE);
    make_hot_flags(x);
    x86_alu_ri(x, false, ALU_AND, RCX, DAIF_ALL);
    x86_store(x, false, CPU_MEM(daif), RCX);
    x86_shift_ri(x, false, SH_SHR, RCX, 6);
    x86_mov_ri(x, RAX, (uint64_t)(uintptr_t)masks);
    x86_load(x, false, RAX, MEMX(RAX, RCX, 2, 0));
    x86_store(x, false, HOT(HOT_MASK), RAX);
    x86_rm(x, 0, false, 0xc6, 0, CPU_MEM(event), false);
    x86_u8(x, 1);
    x86_rm(x, 0, false, 0xc6, 0, jit_cpu_mem(offsetof(struct cpu, ex.valid)), false);
    x86_u8(x, 0);
    x86_rm(x, 0, false, 0xf6, 0, CONTEXT(R14, spsr), false); /* test byte: to SP_EL1? */
    x86_u8(x, 1);
    uint8_t *same = x86_jcc(x, sph ? CC_NE : CC_E);
    make_other_sp(x, sph);
    x86_here(x, same);
    x86_mov_rr(x, true, RDX, R14);
    make_switch(x);
    x86_load(x, true, RAX, SYS(elr_el1));
    emit_dispatch_code(x, s->leave_at - x->exec, false);
    x86_here(x, c.out[0]);
    x86_here(x, c.out[1]);
    x86_here(x, unknown);
    x86_here(x, other);
    x86_jmp_reg(x, RDX);
    return start;
}

/* ZF clear: nothing was done. */
static void make_not_done(struct x86 *x)
{
    x86_test_rr(x, true, RSP, RSP);
    x86_ret(x);
}

/* ZF set if the table in the TTBR1 that RAX is to be is that of the context at r.  RCX is destroyed. */
static void make_same_table(struct x86 *x, unsigned r)
{
    x86_mov_rr(x, true, RCX, RAX);
    x86_shift_ri(x, true, SH_SHL, RCX, 16);
    x86_shift_ri(x, true, SH_SHR, RCX, 16);
    x86_alu_ri(x, true, ALU_AND, RCX, -2);
    x86_alu_rm(x, true, ALU_CMP, RCX, CONTEXT(r, upper));
}

/* RDX = a context for the ASID of RAX, with the flags in RDX; the jump is taken if it is not that.  RCX is destroyed. */
static uint8_t *make_find(struct x86 *x)
{
    _Static_assert(CTX_PAN == 1 << 7 && CTX_ASID_SHIFT == 8, "context_slot()");
    x86_mov_rr(x, true, RCX, RAX);
    x86_shift_ri(x, true, SH_SHR, RCX, 48);
    x86_alu_rm(x, false, ALU_AND, RCX, HOT(HOT_ASID_MASK));
    x86_shift_ri(x, false, SH_SHL, RCX, CTX_ASID_SHIFT);
    x86_alu_rr(x, false, ALU_OR, RCX, RDX);
    x86_mov_rr(x, false, RDX, RCX);
    x86_shift_ri(x, false, SH_SHR, RDX, 7);
    x86_alu_ri(x, false, ALU_AND, RDX, CONTEXT_SLOTS - 1);
    x86_shift_ri(x, false, SH_SHL, RDX, 3);
    x86_alu_rm(x, true, ALU_ADD, RDX, HOT(HOT_CONTEXTS));
    x86_load(x, true, RDX, MEM(RDX, 0));
    x86_alu_rm(x, true, ALU_CMP, RCX, CONTEXT(RDX, tag));
    return x86_jcc(x, CC_NE);
}

/* write_refresh() of cpu/sysreg.c for TTBRn, which has the ASID if that is what TCR_EL1.A1 says. */
static const uint8_t *make_ttbr(struct x86 *x, unsigned n)
{
    const uint8_t *start = stub_here(x);
    uint8_t *out[4];

    x86_load(x, true, RSI, HOT(HOT_CONTEXT));
    x86_rm(x, 0, false, 0x0fb6, RDX, CONTEXT(RSI, tag), false);
    x86_test_ri(x, false, RDX, CTX_VALID);
    out[0] = x86_jcc(x, CC_E);
    x86_rm(x, 0, false, 0xf7, 0, SYS(tcr_el1), false); /* test: A1 */
    x86_u32(x, 1 << 22);
    uint8_t *no_asid = x86_jcc(x, n ? CC_E : CC_NE);
    out[1] = make_find(x);
    if (n) {
        make_same_table(x, RDX);
    } else {
        x86_load(x, true, RCX, CONTEXT(RSI, upper));
        x86_alu_rm(x, true, ALU_CMP, RCX, CONTEXT(RDX, upper));
    }
    out[2] = x86_jcc(x, CC_NE);
    make_switch(x);
    uint8_t *store = x86_jmp(x);
    x86_here(x, no_asid);
    if (n)
        make_same_table(x, RSI);
    else
        x86_alu_rr(x, false, ALU_CMP, RSI, RSI);
    out[3] = x86_jcc(x, CC_NE);
    x86_here(x, store);
    x86_mov_rr(x, true, RCX, RAX);
    x86_alu_ri(x, true, ALU_AND, RCX, -2);
    x86_store(x, true, n ? SYS(ttbr1_el1) : SYS(ttbr0_el1), RCX);
    x86_alu_rr(x, false, ALU_XOR, RCX, RCX);
    x86_ret(x);
    for (unsigned i = 0; i < 4; i++)
        x86_here(x, out[i]);
    make_not_done(x);
    return start;
}

static const uint8_t *make_pan(struct x86 *x, unsigned n)
{
    const uint8_t *start = stub_here(x);

    x86_load(x, true, RSI, HOT(HOT_CONTEXT));
    x86_load(x, true, RDX, CONTEXT(RSI, to[TO_PAN_0 + n]));
    x86_test_rr(x, true, RDX, RDX);
    uint8_t *unknown = x86_jcc(x, CC_E);
    make_switch(x);
    x86_alu_rr(x, false, ALU_XOR, RCX, RCX);
    x86_ret(x);
    x86_here(x, unknown);
    make_not_done(x);
    return start;
}

static void make_context_stubs(struct x86 *x, struct jit_stubs *s)
{
    for (unsigned daif = 0; daif < 16; daif++)
        masks[daif] = ~(PEND_EVENT | (daif & 1 ? PEND_FIQ : 0u) | (daif & 2 ? PEND_IRQ : 0u) | (daif & 4 ? PEND_SERROR : 0u));
    s->exception[0] = make_exception(x, VECTOR_LOWER, s);
    s->exception[1] = make_exception(x, VECTOR_SP0, s);
    s->exception[2] = make_exception(x, VECTOR_SPX, s);
    for (unsigned n = 0; n < 2; n++) {
        s->eret[n] = make_eret(x, n, s);
        s->ttbr[n] = make_ttbr(x, n);
        s->pan[n] = make_pan(x, n);
    }
}

void jit_make_stubs(struct jit_stubs *stubs, uint8_t *rw, size_t room, intptr_t exec)
{
    struct x86 x = { .p = rw, .start = rw, .end = rw + room, .exec = exec };

    stubs->enter = stub_here(&x);
    make_enter(&x);
    make_leaves(&x, stubs);
    make_context_stubs(&x, stubs);
    stubs->counter = make_counter(&x);
    stubs->call = make_call(&x, jit_c_op, false);
    stubs->call_keep = make_call(&x, jit_c_op, true);
    stubs->access = make_call(&x, jit_c_access, false);
    stubs->access_keep = make_call(&x, jit_c_access, true);
    stubs->group = make_call(&x, jit_c_group, false);
    stubs->group_keep = make_call(&x, jit_c_group, true);
    BUG_ON(x.full);
}
