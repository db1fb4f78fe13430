/*
 * Exceptions to EL1 and the return from them (DDI0487 D1.3, J1.1.3 AArch64.TakeException, AArch64.ExceptionReturn).
 *
 * Modelled: synchronous exceptions, IRQ, FIQ and (unattributed, masked or taken) SError; PAN and SS on entry and return;
 * illegal returns.  Left out: PSTATE fields of features that no model has (BTYPE, DIT, SSBS, TCO, ALLINT), and the
 * priority between interrupts and a pending software step, which the engine's order gives (debug first, D2.12.5).
 *
 * Everything runs on the vCPU's own thread.
 */
#include "cpu/cpu.h"

#include <inttypes.h>

#include "base/bits.h"
#include "base/trace.h"
#include "cpu/debug.h"
#include "cpu/pmu.h"

/* Offsets into the vector table (D1.3.1.1). */
enum vector { VECTOR_SYNC = 0, VECTOR_IRQ = 0x80, VECTOR_FIQ = 0x100, VECTOR_SERROR = 0x180 };
enum { VECTOR_SP0 = 0, VECTOR_SPX = 0x200, VECTOR_LOWER = 0x400 };

enum { ESR_IL = 1 << 25, ESR_EC_SHIFT = 26, ISS_MASK = (1 << 25) - 1 };

/* AArch64.BranchAddr(): with the top byte ignored, a target is sign-extended from bit 55. */
static uint64_t branch_addr(const struct cpu *cpu, uint64_t va)
{
    bool high = bits_test(va, 55);

    if (!bits_test(cpu->sys.tcr_el1, high ? 38 : 37))
        return va;
    return high ? va | UINT64_C(0xff) << 56 : va & ~(UINT64_C(0xff) << 56);
}

/* PSTATE, ELR and the pc of an exception to EL1; the caller has set ESR and FAR. */
static void enter_el1(struct cpu *cpu, enum vector vector, uint64_t ret)
{
    unsigned from = cpu->el == 0 ? VECTOR_LOWER : cpu->spsel ? VECTOR_SPX : VECTOR_SP0;

    cpu->sys.spsr_el1 = cpu_pstate(cpu);
    cpu->sys.elr_el1 = ret;
    if (pmu_active(cpu))
        pmu_count(cpu, PMU_EXC_TAKEN);
    if (cpu_has(cpu, FEAT_PAN) && !(cpu->sys.sctlr_el1 & SCTLR_SPAN))
        cpu->pan = true;
    cpu->uao = cpu->ss = cpu->il = false;
    cpu->daif = DAIF_D | DAIF_A | DAIF_I | DAIF_F;
    cpu_set_el_sp(cpu, 1, 1);
    cpu->next_pc = branch_addr(cpu, cpu->sys.vbar_el1 + from + vector);
}

static bool has_far(enum exc_class ec)
{
    return ec == EC_IABT_LOWER || ec == EC_DABT_LOWER || ec == EC_PC_ALIGN || ec == EC_WATCH_LOWER;
}

static bool has_same_form(enum exc_class ec)
{
    return ec == EC_IABT_LOWER || ec == EC_DABT_LOWER || ec == EC_BKPT_LOWER || ec == EC_STEP_LOWER ||
           ec == EC_WATCH_LOWER;
}

void cpu_take_sync(struct cpu *cpu, enum exc_class ec, uint32_t iss, uint64_t ret, uint64_t far)
{
    uint32_t code = ec;

    if (has_far(ec))
        cpu->sys.far_el1 = far;
    if (has_same_form(ec) && cpu->el == 1)
        code++;
    if (ec == EC_SVC)
        debug_ss_advance(cpu);
    cpu->sys.esr_el1 = code << ESR_EC_SHIFT | ESR_IL | (iss & ISS_MASK);
    trace(INT, "cpu %u: exception EC %#x ISS %#x from EL%u pc %#" PRIx64 "%s FAR %#" PRIx64, cpu->index, code,
          iss & ISS_MASK, cpu->el, cpu->pc, trace_name(cpu->pc), cpu->sys.far_el1);
    enter_el1(cpu, VECTOR_SYNC, ret);
}

void cpu_undefined(struct cpu *cpu)
{
    cpu_take_sync(cpu, EC_UNKNOWN, 0, cpu->pc, 0);
}

static void take_interrupt(struct cpu *cpu, enum vector vector, const char *name)
{
    trace(INT, "cpu %u: %s at EL%u pc %#" PRIx64 "%s", cpu->index, name, cpu->el, cpu->pc, trace_name(cpu->pc));
    enter_el1(cpu, vector, cpu->pc);
    cpu->pc = cpu->next_pc;
}

bool cpu_take_interrupt(struct cpu *cpu)
{
    unsigned pending = atomic_load_explicit(&cpu->pending, memory_order_acquire);

    if (unlikely(cpu->debug_slow) && debug_holds_interrupts(cpu))
        return false;
    if ((pending & PEND_SERROR) && !(cpu->daif & DAIF_A)) {
        atomic_fetch_and(&cpu->pending, ~PEND_SERROR);
        cpu->sys.esr_el1 = (uint32_t)EC_SERROR << ESR_EC_SHIFT | ESR_IL;
        take_interrupt(cpu, VECTOR_SERROR, "SError");
        return true;
    }
    if ((pending & PEND_FIQ) && !(cpu->daif & DAIF_F)) {
        take_interrupt(cpu, VECTOR_FIQ, "FIQ");
        return true;
    }
    if ((pending & PEND_IRQ) && !(cpu->daif & DAIF_I)) {
        take_interrupt(cpu, VECTOR_IRQ, "IRQ");
        return true;
    }
    return false;
}

/* D1.4.4: to AArch32, which no EL has; to a higher EL; reserved M bits; EL0 with its own stack pointer's number. */
static bool return_is_illegal(uint64_t spsr)
{
    return (spsr & 0x10) || (spsr & 2) || (spsr & 8) || (spsr & 0xf) == 1;
}

void cpu_eret(struct cpu *cpu)
{
    uint64_t spsr = cpu->sys.spsr_el1;
    unsigned el = spsr >> 2 & 3, sp = spsr & 1;
    bool illegal = return_is_illegal(spsr);

    if (cpu->el == 0) {
        cpu_undefined(cpu);
        return;
    }
    if (illegal)
        el = cpu->el, sp = cpu->spsel;
    cpu->ss = debug_return_ss(cpu, el, spsr);
    cpu->il = illegal || bits_test(spsr, 20);
    cpu->nzcv = (uint32_t)spsr & 0xf0000000;
    cpu->daif = (uint32_t)spsr & (DAIF_D | DAIF_A | DAIF_I | DAIF_F);
    cpu->pan = cpu_has(cpu, FEAT_PAN) && bits_test(spsr, 22);
    cpu->uao = cpu_has(cpu, FEAT_UAO) && bits_test(spsr, 23);
    if (pmu_active(cpu))
        pmu_count(cpu, PMU_EXC_RETURN);
    cpu_set_el_sp(cpu, el, sp);
    cpu->ex.valid = false;
    cpu->event = true;
    cpu->next_pc = branch_addr(cpu, cpu->sys.elr_el1);
}

bool cpu_wfx_trap(struct cpu *cpu, bool wfe)
{
    if (cpu->el != 0 || (cpu->sys.sctlr_el1 & (wfe ? SCTLR_nTWE : SCTLR_nTWI)))
        return false;
    /* CV and COND = always; TI: 0 WFI, 1 WFE (D23.2.37). */
    cpu_take_sync(cpu, EC_WFX, 1u << 24 | 0xeu << 20 | wfe, cpu->pc, 0);
    return true;
}
