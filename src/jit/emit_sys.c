/*
 * System registers, interrupt masks, barriers and exclusives that are worth code of their own; the rest is run in C.
 *
 * Which these are was counted: in a boot and in fork+exec, reads of SP_EL0 (Linux keeps `current' there) and TPIDR_EL1 (per-CPU
 * data) are nine tenths of all MRS, and DC ZVA, DAIF and TPIDR nearly all writes.
 *
 * Rule: a register is read or written here only if the table says that at this EL nothing traps and nothing follows.
 */
#include "jit/emit_parts.h"

#include "cpu/access.h"
#include "cpu/debug.h"
#include "cpu/model.h"
#include "cpu/sysregs.h"
#include "cpu/tlb.h"

static bool const_operand(const struct emit *e, unsigned id, uint64_t *v)
{
    *v = e->block->ir[id].imm;
    return e->block->ir[id].op == IR_const;
}

static struct hmem sys_mem(const struct sysreg *reg)
{
    return jit_cpu_mem(offsetof(struct cpu, sys) + reg->offset);
}

static bool has_feature(const struct emit *e, unsigned feature)
{
    return e->block->mode.features[feature / 64] >> feature % 64 & 1;
}

/* The register of the key if this EL may read (write) it without a trap and the model has it. */
static const struct sysreg *allowed(const struct emit *e, uint64_t key, bool write)
{
    const struct sysreg *reg = sysreg_find((uint32_t)key);
    unsigned el = e->mode & JM_EL ? 1 : 0;

    if (e->mode & JM_TRACED) /* C shows the access */
        return NULL;
    if (!reg || !has_feature(e, reg->feature))
        return NULL;
    unsigned lowest = write ? reg->access >> 2 : reg->access & 3;
    if (reg->trap == SYSREG_TRAP_FPEN)
        return e->mode & JM_FP ? reg : NULL;
    return lowest > el || (el == 0 && reg->trap != SYSREG_TRAP_NONE) ? NULL : reg;
}

static void bind_load(struct emit *e, bool w, struct hmem m)
{
    if (!e->uses[e->at])
        return;
    unsigned d = emit_dest(e, e->at);
    x86_load(&e->x, w, d, m);
    emit_bind(e, e->at, d);
}

static void take_scratch(struct emit *e)
{
    (void)emit_take(e, RCX);
    (void)emit_take(e, RDX);
    (void)emit_take(e, RSI);
}

/*
 * MRS CNTPCT_EL0, CNTVCT_EL0.  Not by RDTSC: what is read must agree with the clock that timers go by, and must not be read ahead
 * of what stands before it, since guests put an ISB there, which is none here; with LFENCE it gains next to nothing over
 * the host's clock_gettime(), which is three quarters of all this.
 */
static bool read_counter(struct emit *e, const struct ir *ir)
{
    uint64_t key;

    if (!const_operand(e, ir->a, &key) || e->mode & JM_TRACED ||
        (key != SYSREG_KEY(3, 3, 14, 0, 1) && key != SYSREG_KEY(3, 3, 14, 0, 2)))
        return false;
    struct cold *c = NULL;
    emit_use_all(e, ir);
    emit_xmm_flush(e);
    (void)emit_take(e, RAX);
    take_scratch(e);
    if (!(e->mode & JM_EL)) { /* EL0PCTEN, EL0VCTEN; else C takes the trap */
        emit_clobber_flags(e);
        x86_rm(&e->x, 0, false, 0xf6, 0, jit_cpu_mem(offsetof(struct cpu, sys.cntkctl_el1)), false); /* test byte */
        x86_u8(&e->x, key & 1 ? 1 : 2);
        c = emit_cold(e, COLD_STATE, x86_jcc(&e->x, CC_E));
        c->data[0] = RAX;
    }
    emit_clobber_flags(e);
    x86_mov_ri(&e->x, RSI, (uint64_t)(int64_t)emit_uncounted(e, e->insn));
    x86_call_to(&e->x, e->stubs->counter - e->x.exec);
    if (c)
        c->back = e->x.p;
    if (e->uses[e->at])
        emit_bind(e, e->at, RAX);
    return true;
}

/* A word of the model. */
static void read_model(struct emit *e, size_t offset)
{
    if (!e->uses[e->at])
        return;
    unsigned d = emit_dest(e, e->at);
    x86_load(&e->x, true, d, CPU_MEM(model));
    x86_load(&e->x, false, d, MEM(d, offset));
    emit_bind(e, e->at, d);
}

/* Flags that code has raised are in MXCSR still: fold_flags() of jit.c. */
static void read_fpsr(struct emit *e)
{
    unsigned t = emit_temp(e), u = emit_temp(e);

    emit_clobber_flags(e);
    x86_rm(&e->x, 0, false, 0x0fae, 3, HOT(HOT_MXCSR), false); /* stmxcsr */
    x86_load(&e->x, false, t, HOT(HOT_MXCSR));
    x86_mov_rr(&e->x, false, u, t);
    x86_alu_ri(&e->x, false, ALU_AND, t, 1);
    x86_shift_ri(&e->x, false, SH_SHR, u, 1);
    x86_alu_ri(&e->x, false, ALU_AND, u, 0x1e);
    x86_alu_rr(&e->x, false, ALU_OR, t, u);
    x86_alu_rm(&e->x, false, ALU_OR, t, CPU_MEM(fp.fpsr));
    emit_release(e, u);
    if (e->uses[e->at])
        emit_bind(e, e->at, t);
    else
        emit_release(e, t);
}

static void write_fpsr(struct emit *e, const struct ir *ir)
{
    unsigned r = emit_reg(e, ir->c), t = emit_temp(e);

    emit_clobber_flags(e);
    x86_mov_rr(&e->x, false, t, r);
    x86_alu_ri(&e->x, false, ALU_AND, t, FPSR_QC | FPSR_IDC | FPSR_IXC | FPSR_UFC | FPSR_OFC | FPSR_DZC | FPSR_IOC);
    x86_store(&e->x, false, CPU_MEM(fp.fpsr), t);
    x86_store_imm(&e->x, false, HOT(HOT_MXCSR), MXCSR_START);
    x86_rm(&e->x, 0, false, 0x0fae, 2, HOT(HOT_MXCSR), false); /* ldmxcsr */
    emit_use_all(e, ir);
    e->leave = AFTER_ON;
}

static bool sys_read(struct emit *e, const struct ir *ir)
{
    uint64_t key;
    if (!const_operand(e, ir->a, &key))
        return false;
    const struct sysreg *reg = allowed(e, key, false);
    if (!reg)
        return false;
    if (reg->stored && !reg->read) {
        emit_use_all(e, ir);
        bind_load(e, true, sys_mem(reg));
    } else if (reg->id == SR_SP_EL0 && e->mode & JM_SPH) {
        emit_use_all(e, ir);
        bind_load(e, true, jit_cpu_mem(offsetof(struct cpu, sp_el)));
    } else if (reg->id == SR_CTR_EL0) {
        emit_use_all(e, ir);
        read_model(e, offsetof(struct cpu_model, ctr));
    } else if (reg->id == SR_MIDR_EL1) {
        emit_use_all(e, ir);
        read_model(e, offsetof(struct cpu_model, midr));
    } else if (reg->id == SR_MPIDR_EL1) {
        emit_use_all(e, ir);
        bind_load(e, true, CPU_MEM(mpidr));
    } else if (reg->id == SR_FPCR) {
        emit_use_all(e, ir);
        bind_load(e, false, CPU_MEM(fp.fpcr));
    } else if (reg->id == SR_FPSR) {
        emit_use_all(e, ir);
        read_fpsr(e);
    } else if (reg->id == SR_DAIF) {
        emit_use_all(e, ir);
        bind_load(e, false, CPU_MEM(daif));
    } else if (reg->id == SR_DCZID_EL0) {
        emit_use_all(e, ir);
        if (e->uses[e->at]) {
            unsigned d = emit_dest(e, e->at);
            emit_const(e, d, DCZID_BS | (e->mode & JM_DZE ? 0 : 1 << 4));
            emit_bind(e, e->at, d);
        }
    } else {
        return false;
    }
    return true;
}

/* HOT_MASK for the interrupt masks in t (destroyed): PEND_IRQ, FIQ and SERROR are left out where I, F and A are set. */
static void emit_mask(struct emit *e, unsigned t, unsigned u)
{
    _Static_assert(DAIF_I == 1 << 7 && DAIF_F == 1 << 6 && DAIF_A == 1 << 8, "shifts below");
    _Static_assert(PEND_IRQ == 1 && PEND_FIQ == 2 && PEND_SERROR == 4, "shifts below");
    unsigned v = emit_temp(e);

    x86_mov_rr(&e->x, false, u, t);
    x86_mov_rr(&e->x, false, v, t);
    x86_shift_ri(&e->x, false, SH_SHR, t, 7);
    x86_alu_ri(&e->x, false, ALU_AND, t, PEND_IRQ);
    x86_shift_ri(&e->x, false, SH_SHR, u, 5);
    x86_alu_ri(&e->x, false, ALU_AND, u, PEND_FIQ);
    x86_shift_ri(&e->x, false, SH_SHR, v, 6);
    x86_alu_ri(&e->x, false, ALU_AND, v, PEND_SERROR);
    x86_alu_rr(&e->x, false, ALU_OR, t, u);
    x86_alu_rr(&e->x, false, ALU_OR, t, v);
    x86_alu_ri(&e->x, false, ALU_OR, t, PEND_EVENT);
    x86_grp3(&e->x, false, 2, t); /* not */
    x86_store(&e->x, false, HOT(HOT_MASK), t);
    emit_release(e, v);
}

/* To cold code if the debug mask matters, which cpu/debug.c follows. */
static struct cold *debug_cold(struct emit *e)
{
    x86_rm(&e->x, 0, false, 0xf7, 0, jit_cpu_mem(offsetof(struct cpu, sys.mdscr_el1)), false);
    x86_u32(&e->x, MDSCR_SS | MDSCR_MDE);
    return emit_cold(e, COLD_STATE, x86_jcc(&e->x, CC_NE));
}

/* MSR DAIF, Xt. */
static void write_daif(struct emit *e, const struct ir *ir)
{
    unsigned r = emit_reg(e, ir->c), t = emit_temp(e), u = emit_temp(e);

    emit_clobber_flags(e);
    x86_mov_rr(&e->x, false, t, r);
    x86_alu_rm(&e->x, false, ALU_XOR, t, CPU_MEM(daif));
    x86_test_ri(&e->x, false, t, DAIF_D);
    uint8_t *same = x86_jcc(&e->x, CC_E);
    struct cold *c = debug_cold(e);
    c->data[0] = (uint8_t)r;
    x86_here(&e->x, same);
    x86_mov_rr(&e->x, false, t, r);
    x86_alu_ri(&e->x, false, ALU_AND, t, DAIF_D | DAIF_A | DAIF_I | DAIF_F);
    x86_store(&e->x, false, CPU_MEM(daif), t);
    emit_mask(e, t, u);
    c->back = e->x.p;
    emit_use_all(e, ir);
    e->leave = AFTER_POLL;
}

/* --- changes of context (stubs.c) --- */

/* To a stub that goes on behind this, which C does then, if it cannot do its work. */
static void try_stub(struct emit *e, const uint8_t *stub)
{
    x86_u8(&e->x, 0x48); /* lea rdx, [rip + 5] */
    x86_u8(&e->x, 0x8d);
    x86_u8(&e->x, 0x15);
    x86_u32(&e->x, 5);
    x86_jmp_to(&e->x, stub - e->x.exec);
}

void emit_exception(struct emit *e, const struct ir *ir)
{
    if (ir->k == EC_SVC && !(e->mode & JM_TRACED)) {
        emit_load_pc(e, RAX, (uint64_t)(int64_t)e->off + 4);
        x86_mov_ri(&e->x, RCX, (uint32_t)EC_SVC << 26 | 1u << 25 | (uint32_t)ir->imm);
        try_stub(e, e->stubs->exception[!(e->mode & JM_EL) ? 0 : e->mode & JM_SPH ? 2 : 1]);
    }
    emit_c_op(e, ir, e->insn, e->off, false);
}

/* Behind it stands the call of C. */
static void try_eret(struct emit *e)
{
    if (!(e->mode & JM_EL) || e->mode & JM_TRACED)
        return;
    emit_flags_for_c(e);
    emit_clobber_flags(e);
    try_stub(e, e->stubs->eret[e->mode & JM_SPH ? 1 : 0]);
}

/* Calls a stub that takes RAX and says by ZF whether it did its work; else C does it, in cold code. */
static void call_context_stub(struct emit *e, const uint8_t *stub, unsigned data)
{
    emit_clobber_flags(e);
    x86_call_to(&e->x, stub - e->x.exec);
    struct cold *c = emit_cold(e, COLD_STATE, x86_jcc(&e->x, CC_NE));
    c->data[0] = (uint8_t)data;
    c->back = e->x.p;
    e->leave = AFTER_ON; /* the page that runs may run on until there is an ISB */
}

static void write_ttbr(struct emit *e, const struct ir *ir, unsigned n)
{
    emit_take(e, RAX);
    emit_value_to(e, ir->c, RAX);
    emit_use_all(e, ir);
    take_scratch(e);
    call_context_stub(e, e->stubs->ttbr[n], RAX);
}

/* Of a register that keeps these bits and reads as zero elsewhere. */
static bool write_masked(struct emit *e, const struct ir *ir, struct hmem to, uint64_t mask)
{
    bool low = mask <= UINT32_MAX;
    unsigned r = emit_reg(e, ir->c);

    if (mask != UINT64_MAX) {
        if (!low && (int64_t)mask != (int32_t)mask)
            return false;
        unsigned t = emit_temp(e);
        if (mask != UINT32_MAX)
            emit_clobber_flags(e);
        x86_mov_rr(&e->x, !low, t, r);
        if (mask != UINT32_MAX)
            x86_alu_ri(&e->x, !low, ALU_AND, t, (int32_t)mask);
        r = t;
    }
    x86_store(&e->x, true, to, r);
    emit_use_all(e, ir);
    e->leave = AFTER_ON;
    return true;
}

/* Cleaning, without DC IVAC, which asks for permission to write. */
static bool is_dc_by_address(uint64_t key)
{
    unsigned op2 = key & 7, crm = key >> 3 & 15, crn = key >> 7 & 15, op1 = key >> 11 & 7;

    return key >> 14 == 1 && op1 == 3 && crn == 7 && crm >= 10 && op2 == 1;
}

static bool is_ic_or_tlbi(uint64_t key)
{
    unsigned crm = key >> 3 & 15, crn = key >> 7 & 15;

    return key >> 14 == 1 && (crn == 8 || (crn == 7 && (crm == 1 || crm == 5)));
}

/* Who counts or breaks on it has no remembered context. */
static void write_contextidr(struct emit *e, const struct ir *ir, const struct sysreg *reg)
{
    unsigned r = emit_reg(e, ir->c), t = emit_temp(e);

    emit_clobber_flags(e);
    x86_load(&e->x, true, t, HOT(HOT_CONTEXT));
    x86_alu_mi(&e->x, true, ALU_CMP, MEM(t, offsetof(struct context, tag)), 0);
    struct cold *c = emit_cold(e, COLD_STATE, x86_jcc(&e->x, CC_E));
    c->data[0] = (uint8_t)r;
    x86_mov_rr(&e->x, false, t, r);
    x86_store(&e->x, true, sys_mem(reg), t);
    c->back = e->x.p;
    emit_use_all(e, ir);
    e->leave = AFTER_ON;
}

static bool sys_write(struct emit *e, const struct ir *ir)
{
    uint64_t key;
    if (!const_operand(e, ir->a, &key))
        return false;
    if (key == SYSREG_KEY(1, 3, 7, 4, 1) && e->mode & JM_DZE) {
        emit_zva(e, ir);
        return true;
    }
    const struct sysreg *reg = allowed(e, key, true);
    if (!reg)
        return false;
    if (reg->id == SR_DAIF && e->mode & JM_EL) {
        write_daif(e, ir);
        return true;
    }
    if (is_dc_by_address(key)) {
        emit_dc(e, ir);
        e->leave = AFTER_ON;
        return true;
    }
    if (reg->id == SR_TTBR0_EL1 || reg->id == SR_TTBR1_EL1) {
        write_ttbr(e, ir, reg->id == SR_TTBR1_EL1);
        return true;
    }
    if (reg->id == SR_SPSR_EL1)
        return write_masked(e, ir, sys_mem(reg), sysreg_spsr_mask(has_feature(e, FEAT_PAN), has_feature(e, FEAT_UAO)));
    if (reg->id == SR_CONTEXTIDR_EL1) {
        write_contextidr(e, ir, reg);
        return true;
    }
    if (reg->id == SR_FPSR) {
        write_fpsr(e, ir);
        return true;
    }
    if (is_ic_or_tlbi(key)) {
        emit_generic(e, ir); /* which switches data TLB and key; the page that runs may run on until there is an ISB */
        e->leave = AFTER_ON;
        return true;
    }
    if (reg->id == SR_SP_EL0 && e->mode & JM_SPH)
        return write_masked(e, ir, jit_cpu_mem(offsetof(struct cpu, sp_el)), UINT64_MAX);
    return reg->stored && !reg->write && key >> 14 == 3 && write_masked(e, ir, sys_mem(reg), reg->mask);
}

/* MSR PAN, #imm. */
static bool msr_pan(struct emit *e, const struct ir *ir, unsigned imm)
{
    if (!has_feature(e, FEAT_PAN) || e->mode & JM_TRACED)
        return false;
    emit_use_all(e, ir);
    take_scratch(e);
    call_context_stub(e, e->stubs->pan[imm & 1], NO_REG);
    return true;
}

/* MSR DAIFSet, DAIFClr and PAN at EL1. */
static bool msr_imm(struct emit *e, const struct ir *ir)
{
    uint64_t op1, op2, imm;

    if (!(e->mode & JM_EL) || !const_operand(e, ir->a, &op1) || !const_operand(e, ir->b, &op2) ||
        !const_operand(e, ir->c, &imm))
        return false;
    if (op1 == 0 && op2 == 4)
        return msr_pan(e, ir, (unsigned)imm);
    if (op1 != 3 || (op2 != 6 && op2 != 7))
        return false;
    int32_t bits = (int32_t)(imm << 6);
    unsigned t = emit_temp(e), u = emit_temp(e);
    emit_clobber_flags(e);
    struct cold *c = imm & 8 ? debug_cold(e) : NULL;
    if (c)
        c->data[0] = NO_REG;
    x86_load(&e->x, false, t, CPU_MEM(daif));
    x86_alu_ri(&e->x, false, op2 == 6 ? ALU_OR : ALU_AND, t, op2 == 6 ? bits : ~bits);
    x86_store(&e->x, false, CPU_MEM(daif), t);
    emit_mask(e, t, u);
    if (c)
        c->back = e->x.p;
    emit_use_all(e, ir);
    e->leave = op2 == 6 ? AFTER_ON : AFTER_POLL;
    return true;
}

bool emit_system(struct emit *e, const struct ir *ir)
{
    switch (ir->op) {
    case IR_h_sysreg_read: return read_counter(e, ir) || sys_read(e, ir);
    case IR_h_sysreg_write: return sys_write(e, ir);
    case IR_h_msr_imm: return msr_imm(e, ir);
    case IR_h_eret: try_eret(e); return false;
    default: return false;
    }
}

/* DSB: only maintenance that was broadcast must be waited for. */
void emit_dsb(struct emit *e)
{
    unsigned t = emit_temp(e);

    emit_clobber_flags(e);
    x86_load(&e->x, true, t, CPU_MEM(tlb));
    x86_rm(&e->x, 0, false, 0x80, 7, MEM(t, offsetof(struct tlb, outstanding)), false); /* cmp byte, 0 */
    x86_u8(&e->x, 0);
    struct cold *c = emit_cold(e, COLD_STATE, x86_jcc(&e->x, CC_NE));
    c->data[0] = NO_REG;
    x86_u8(&e->x, 0xf0);
    x86_alu_mi(&e->x, false, ALU_OR, MEM(RSP, 0), 0);
    c->back = e->x.p;
    emit_release(e, t);
}

/* --- exclusives ------------------------------------------------------------------------------------------ */

#define EX(field) jit_cpu_mem(offsetof(struct cpu, ex) + offsetof(struct exclusive, field))

/*
 * Pairs with nothing between LDXR and STXR that accesses memory touch no versions unless somebody looks at them; other STXRs are
 * done in C (cpu/access.c has the protocol).  One vCPU needs neither.
 */

/* The version of the granule at `host' into register t: before the load. */
static void note_version(struct emit *e, unsigned host, unsigned t)
{
    x86_mov_rr(&e->x, false, t, host);
    x86_shift_ri(&e->x, false, SH_SHR, t, EX_GRANULE_SHIFT - 2);
    x86_alu_ri(&e->x, false, ALU_AND, t, (EX_GRANULES - 1) << 2);
    x86_alu_rm(&e->x, true, ALU_ADD, t, HOT(HOT_VERSIONS));
    x86_load(&e->x, false, t, MEM(t, 0));
    x86_store(&e->x, false, EX(version), t);
}

static void make_monitor(struct emit *e, unsigned bytes)
{
    x86_rm(&e->x, 0, false, 0xc6, 0, EX(bytes), false);
    x86_u8(&e->x, bytes);
    x86_rm(&e->x, 0, false, 0xc6, 0, EX(valid), false);
    x86_u8(&e->x, 1);
}

/* LDXR of `bytes' at host into t (another register), which makes the monitor (cpu/access.c). */
void emit_load_exclusive(struct emit *e, unsigned bytes, unsigned host, unsigned t)
{
    if (e->smp)
        note_version(e, host, t);
    emit_host_load(e, (unsigned)__builtin_ctz(bytes), t, MEM(host, 0));
    x86_store(&e->x, true, EX(hva), host);
    x86_store(&e->x, true, EX(data), t);
    make_monitor(e, bytes);
}

/* In one piece, as load_128() of cpu/access.c. */
void emit_load_exclusive_pair(struct emit *e, unsigned host, unsigned d0, unsigned d1)
{
    if (e->smp)
        note_version(e, host, d0);
    x86_rm(&e->x, 0x66, false, 0x0f6f, 0, MEM(host, 0), false); /* movdqa */
    x86_movdqu_store(&e->x, EX(data), 0);
    x86_store(&e->x, true, EX(hva), host);
    make_monitor(e, 16);
    x86_load(&e->x, true, d0, EX(data));
    x86_load(&e->x, true, d1, EX(data[1]));
}

bool emit_is_paired(const struct emit *e, unsigned store)
{
    const struct ir *ir = e->block->ir, *s = &ir[store];
    unsigned load = s->op == IR_store_ex ? IR_load_ex : IR_load_ex_pair;

    for (unsigned i = store; --i;) {
        unsigned op = ir[i].op, effects = ir_info[op].effects;
        if (op == load)
            return ir[i].a == s->a && (ir[i].k & MO_SIZE) == (s->k & MO_SIZE);
        bool leaves_only = op == IR_side || op == IR_sp_check;
        if (op == IR_poll || effects & (IE_LOAD | IE_STORE | IE_EX | IE_STATE) || (effects & IE_FAULT && !leaves_only))
            return false;
    }
    return false;
}

/* A register of that size against one (mr: in memory at `address'). */
static void compare(struct emit *e, unsigned size, unsigned r, unsigned other, bool in_memory)
{
    unsigned prefix = size == MO_16 ? 0x66 : 0, op = 0x3a + (size != MO_8);

    if (in_memory)
        x86_rm(&e->x, prefix, size == MO_64, op, r, MEM(other, 0), size == MO_8);
    else
        x86_rr(&e->x, prefix, size == MO_64, op, r, other, size == MO_8);
}

static void lock_cmpxchg(struct emit *e, unsigned size, unsigned address, unsigned data)
{
    x86_u8(&e->x, 0xf0);
    x86_rm(&e->x, size == MO_16 ? 0x66 : 0, size == MO_64, size == MO_8 ? 0x0fb0 : 0x0fb1, data, MEM(address, 0),
           size == MO_8);
}

/*
 * STXR at the host address in `host', which is destroyed: compares and swaps if the monitor is armed for this place and size.
 * RAX is taken; afterwards EAX is the status.  `data' is none of them.
 */
void emit_store_exclusive(struct emit *e, unsigned size, unsigned host, unsigned data)
{
    uint8_t *out[3];

    x86_rm(&e->x, 0, false, 0x80, 7, EX(valid), false);
    x86_u8(&e->x, 1);
    out[0] = x86_jcc(&e->x, CC_NE);
    x86_rm(&e->x, 0, false, 0x80, 7, EX(bytes), false);
    x86_u8(&e->x, 1u << size);
    out[1] = x86_jcc(&e->x, CC_NE);
    x86_alu_rm(&e->x, true, ALU_CMP, host, EX(hva));
    out[2] = x86_jcc(&e->x, CC_NE);
    x86_load(&e->x, true, RAX, EX(data));
    lock_cmpxchg(e, size, host, data);
    for (unsigned i = 0; i < 3; i++)
        x86_here(&e->x, out[i]);
    /* every way here has ZF set only when it stored */
    x86_setcc(&e->x, CC_NE, RAX);
    x86_ext_rr(&e->x, false, 0x0fb6, RAX, RAX);
    x86_rm(&e->x, 0, false, 0xc6, 0, EX(valid), false);
    x86_u8(&e->x, 0);
}

uint8_t *emit_versions_begun(struct emit *e)
{
    x86_alu_mi(&e->x, false, ALU_CMP, EX(version), 0);
    return x86_jcc(&e->x, CC_NE);
}

void emit_store_exclusive_pair(struct emit *e, unsigned host)
{
    x86_load(&e->x, true, RAX, EX(data));
    x86_load(&e->x, true, RDX, EX(data[1]));
    x86_u8(&e->x, 0xf0);
    x86_rm(&e->x, 0, true, 0x0fc7, 1, MEM(host, 0), false); /* cmpxchg16b */
    x86_setcc(&e->x, CC_NE, RAX);
    x86_ext_rr(&e->x, false, 0x0fb6, RAX, RAX);
    x86_rm(&e->x, 0, false, 0xc6, 0, EX(valid), false);
    x86_u8(&e->x, 0);
}

/*
 * The same for a pair (emit_is_paired()) with several vCPUs.  Returns a jump for C to do it.  A swap of a value for itself is
 * a comparison behind a fence: who waits for a lock by storing `taken' again and again leaves the holder its cache line.
 */
uint8_t *emit_store_paired(struct emit *e, unsigned size, unsigned host, unsigned data)
{
    uint8_t *slow = emit_versions_begun(e);

    x86_load(&e->x, true, RAX, EX(data));
    compare(e, size, RAX, data, false);
    uint8_t *same = x86_jcc(&e->x, CC_E);
    lock_cmpxchg(e, size, host, data);
    uint8_t *done = x86_jmp(&e->x);
    x86_here(&e->x, same);
    x86_u8(&e->x, 0xf0); /* lock or dword [rsp], 0 */
    x86_alu_mi(&e->x, false, ALU_OR, MEM(RSP, 0), 0);
    x86_u8(&e->x, 0xf3); /* pause */
    x86_u8(&e->x, 0x90);
    compare(e, size, RAX, host, true);
    x86_here(&e->x, done);
    x86_setcc(&e->x, CC_NE, RAX);
    x86_ext_rr(&e->x, false, 0x0fb6, RAX, RAX);
    x86_rm(&e->x, 0, false, 0xc6, 0, EX(valid), false);
    x86_u8(&e->x, 0);
    return slow;
}
