/*
 * What the vocabulary of the instruction bodies (cpu/value.h) does to a struct cpu, on plain numbers: shared
 * by the interpreter and the IR evaluator, so that they differ in nothing but the way there.
 *
 * On the vCPU's thread.  cpu->pc is the instruction's address and cpu->next_pc where the next one is;
 * functions that return false have taken an exception (next_pc is its vector) and set LEAVE_FAULT.
 */
#ifndef ARMLET_CPU_PRIM_H
#define ARMLET_CPU_PRIM_H

#include "base/bits.h"
#include "base/compiler.h"
#include "cpu/access.h"
#include "cpu/cluster.h"
#include "cpu/cpu.h"
#include "cpu/helpers.h"
#include "cpu/mmu.h"
#include "cpu/value.h"

/* cpu->leave: why the straight line ends after this instruction. */
enum {
    LEAVE_END = 1,   /* something changed that the engine took for granted */
    LEAVE_EXC = 2,   /* the instruction completed and took an exception (SVC) */
    LEAVE_FAULT = 4, /* the instruction did not complete */
};

static ALWAYS_INLINE bool prim_done(struct cpu *cpu, bool ok)
{
    if (unlikely(!ok))
        cpu->leave |= LEAVE_FAULT;
    return ok;
}

/* lanes */

static ALWAYS_INLINE uint64_t lane_get(unsigned es, const union vreg *r, unsigned idx)
{
    switch (es) {
    case 0: return r->b[idx];
    case 1: return r->h[idx];
    case 2: return r->s[idx];
    default: return r->d[idx];
    }
}

static ALWAYS_INLINE void lane_set(unsigned es, union vreg *r, unsigned idx, uint64_t v)
{
    switch (es) {
    case 0: r->b[idx] = (uint8_t)v; break;
    case 1: r->h[idx] = (uint16_t)v; break;
    case 2: r->s[idx] = (uint32_t)v; break;
    default: r->d[idx] = v; break;
    }
}

static inline void lanes_dup(unsigned shape, union vreg *r, uint64_t v)
{
    unsigned bits = 8u << shape_es(shape);

    r->d[0] = shape >> 2 ? bits_replicate(v, bits) : v & bits_mask(bits);
    r->d[1] = shape & SH_Q ? r->d[0] : 0;
}

/* control */

/* AArch64.BranchAddr(): with the top byte ignored (TBI), a target is sign-extended from bit 55. */
static ALWAYS_INLINE uint64_t prim_branch_addr(const struct cpu *cpu, uint64_t va)
{
    int64_t top = (int64_t)va >> 55;

    if (unlikely(top != 0 && top != -1) && mmu_tbi(cpu, va))
        return (uint64_t)bits_sext(va, 56);
    return va;
}

static inline void prim_undefined(struct cpu *cpu)
{
    cpu_undefined(cpu);
    cpu->leave |= LEAVE_FAULT;
}

static inline void prim_exception(struct cpu *cpu, enum exc_class ec, uint32_t iss, bool next)
{
    cpu_take_sync(cpu, ec, iss, next ? cpu->pc + 4 : cpu->pc, 0);
    cpu->leave |= next ? LEAVE_EXC : LEAVE_FAULT;
}

/* CPACR_EL1.FPEN says no (D1.3): CV 1, COND 14. */
static inline bool prim_fp_trap(struct cpu *cpu)
{
    prim_exception(cpu, EC_FP_ACCESS, 1u << 24 | 0xeu << 20, false);
    return false;
}

static ALWAYS_INLINE bool prim_sp_check(struct cpu *cpu)
{
    if (likely(!(cpu->x[31] & 15)) || !(cpu->sys.sctlr_el1 & (cpu->el ? SCTLR_SA : SCTLR_SA0)))
        return true;
    prim_exception(cpu, EC_SP_ALIGN, 0, false);
    return false;
}

/* memory */

/* The page of code at cpu->pc, by host and guest-physical address.  False: Instruction Abort or PC alignment
 * fault. */
static ALWAYS_INLINE bool prim_fetch(struct cpu *cpu, const uint8_t **hva_page, uint64_t *pa_page)
{
    return prim_done(cpu, access_fetch(cpu, cpu->pc, hva_page, pa_page));
}

static ALWAYS_INLINE bool prim_load(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t *out)
{
    return prim_done(cpu, access_load(cpu, va, mop, out));
}

static ALWAYS_INLINE bool prim_store(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t value)
{
    return prim_done(cpu, access_store(cpu, va, mop, value));
}

static ALWAYS_INLINE bool prim_load_pair(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t *a, uint64_t *b)
{
    return prim_done(cpu, access_load_pair(cpu, va, mop, a, b));
}

static ALWAYS_INLINE bool prim_store_pair(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t a, uint64_t b)
{
    return prim_done(cpu, access_store_pair(cpu, va, mop, a, b));
}

static inline bool prim_load_w(struct cpu *cpu, unsigned mop, uint64_t va, union vreg *out)
{
    return prim_done(cpu, access_load_w(cpu, va, mop, out));
}

static inline bool prim_store_w(struct cpu *cpu, unsigned mop, uint64_t va, const union vreg *w)
{
    return prim_done(cpu, access_store_w(cpu, va, mop, w));
}

static inline bool prim_load_pair_w(struct cpu *cpu, unsigned mop, uint64_t va, union vreg *a, union vreg *b)
{
    return prim_done(cpu, access_load_pair_w(cpu, va, mop, a, b));
}

static inline bool prim_store_pair_w(struct cpu *cpu, unsigned mop, uint64_t va, const union vreg *a,
                                     const union vreg *b)
{
    return prim_done(cpu, access_store_pair_w(cpu, va, mop, a, b));
}

static inline bool prim_load_ex(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t *out)
{
    return prim_done(cpu, access_load_ex(cpu, va, mop, out));
}

static inline bool prim_store_ex(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t value, uint64_t *status)
{
    return prim_done(cpu, access_store_ex(cpu, va, mop, value, status));
}

static inline bool prim_load_ex_pair(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t *a, uint64_t *b)
{
    return prim_done(cpu, access_load_ex_pair(cpu, va, mop, a, b));
}

static inline bool prim_store_ex_pair(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t a, uint64_t b,
                                      uint64_t *status)
{
    return prim_done(cpu, access_store_ex_pair(cpu, va, mop, a, b, status));
}

static inline void prim_clear_ex(struct cpu *cpu)
{
    access_clear_ex(cpu);
}

static inline bool prim_atomic_rmw(struct cpu *cpu, enum rmw op, unsigned mop, uint64_t va, uint64_t operand,
                                   uint64_t *old)
{
    return prim_done(cpu, access_rmw(cpu, op, mop, va, operand, old));
}

static inline bool prim_atomic_cas(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t expect,
                                   uint64_t desired, uint64_t *old)
{
    return prim_done(cpu, access_cas(cpu, mop, va, expect, desired, old));
}

static inline bool prim_atomic_casp(struct cpu *cpu, unsigned mop, uint64_t va, const uint64_t expect[2],
                                    const uint64_t desired[2], uint64_t old[2])
{
    return prim_done(cpu, access_casp(cpu, mop, va, expect, desired, old));
}

static inline void prim_barrier(struct cpu *cpu, enum barrier kind)
{
    switch (kind) {
    case BAR_DSB:
        cluster_dsb(cpu);
        break;
    case BAR_DMB:
    case BAR_SB:
        atomic_thread_fence(memory_order_seq_cst);
        break;
    case BAR_DMB_LD:
    case BAR_DMB_ST:
        atomic_thread_fence(memory_order_acq_rel);
        break;
    case BAR_ISB: /* the engine ends the line */
        break;
    }
}

#endif
