/*
 * The vocabulary of the instruction bodies in sem_*.c.inc.
 *
 * A body is compiled once per engine.  Each engine defines, before including the bodies, CTX and three opaque types:
 *   V  a 64-bit value      (interpreter: a number; lifter: an IR value)
 *   W  a 128-bit vector
 *   F  condition flags N, Z, C, V
 * and every function below as a static one.  A C `if' on a field of the instruction, or on mode_*(), is decoding and
 * happens once per translation; a C `if' on a V, W or F does not compile in either engine.  This file holds what the
 * engines share: constants and, as documentation that the compiler checks, the list of functions.
 *
 * Rules for bodies
 *  1. A memory access or a helper that can fault returns bool.  On false the body returns at once and must not have
 *     written any register before (writeback, first half of a pair): a fault leaves the instruction undone.
 *  2. sf chooses 64-bit (true) or 32-bit; a 32-bit operation ignores the high halves of its operands and yields a
 *     zero-extended result.
 *  3. A vector operation acts on the lanes of its shape, ignores the others and yields zeros there; so set_w() of any
 *     result follows the rule that a SIMD write clears the rest of the register.
 *  4. The program counter is not a constant (code is shared between mappings): use v_pc().
 *  5. What changes the mode that translation depends on (EL, SPSel, PAN, SCTLR, CPACR, FPCR ...) ends with end_block().
 *  6. FP and SIMD access (CPACR_EL1.FPEN) is checked by the dispatcher for groups simd, simdmem and crypto; a missing
 *     feature and PSTATE.IL are checked before the body too.
 */
#ifndef ARMLET_CPU_VALUE_H
#define ARMLET_CPU_VALUE_H

#include <stdint.h>

/* Memory operation: log2 of the bytes in bits 0 to 2, and how. */
enum mop {
    MO_8 = 0, MO_16 = 1, MO_32 = 2, MO_64 = 3, MO_128 = 4, MO_SIZE = 7,
    MO_ALIGN = 8,   /* unaligned is an Alignment fault whatever SCTLR_EL1.A says: exclusives, acquire/release, LSE */
    MO_ACQ = 16,    /* Load-Acquire */
    MO_REL = 32,    /* Store-Release */
    MO_UNPRIV = 64, /* LDTR, STTR: as EL0 (unless UAO) */
    MO_ACQPC = 128, /* LDAPR */
    MO_LANE_SHIFT = 8, /* MO_LANES() */
    MO_PAIRED = 1 << 12, /* STXR: nothing accesses memory between its LDXR and it */
};
/* A vector access that the architecture makes element by element: 1 << es bytes are what must be aligned. */
#define MO_LANES(es) (((unsigned)(es) + 1) << MO_LANE_SHIFT)
/* log2 of the bytes that alignment is checked against: of one element. */
static inline unsigned mop_element(unsigned mop)
{
    return mop >> MO_LANE_SHIFT ? (mop >> MO_LANE_SHIFT) - 1 : mop & MO_SIZE;
}

/* Shape of a vector operation: log2 of the lane's bytes, and how much of the register. */
enum { SH_SCALAR = 0 << 2, SH_D = 1 << 2, SH_Q = 2 << 2, SH_ES = 3 };
#define SHAPE(es, q) ((unsigned)(es) | ((q) ? SH_Q : SH_D))
#define SHAPE_S(es) ((unsigned)(es) | SH_SCALAR)
static inline unsigned shape_es(unsigned shape) { return shape & SH_ES; }
static inline unsigned shape_lanes(unsigned shape)
{
    return shape >> 2 == 0 ? 1 : (shape >> 2 == 1 ? 8u : 16u) >> (shape & SH_ES);
}

enum rmw { RMW_ADD, RMW_CLR, RMW_EOR, RMW_SET, RMW_SMAX, RMW_SMIN, RMW_UMAX, RMW_UMIN, RMW_SWP };
enum branch_kind { BR_JUMP, BR_CALL, BR_RET };
enum barrier { BAR_DMB, BAR_DSB, BAR_ISB, BAR_SB, BAR_DMB_LD, BAR_DMB_ST };
/* Sizes for v_ext(): zero or sign extension of the low part. */
enum ext { EXT_U8, EXT_U16, EXT_U32, EXT_S8, EXT_S16, EXT_S32 };

/*
 * The functions (CTX *c is always the first argument and is left out here):
 *
 *   V v_const(uint64_t)                V v_pc(int64_t off)  pc of this instruction + off
 *   V get_x(n) / set_x(n, V)           n 0 to 31; 31 is SP: bodies decide between SP and ZR
 *   V v_<op>(sf, V a[, V b])           isa/ops.def
 *   V v_ext(enum ext, V)               V v_extr(sf, V hi, V lo, unsigned lsb)
 *   V v_adc(sf, V a, V b, F)           a + b + C        V v_sbc(sf, V a, V b, F)   a - b - !C
 *   V v_select(V cond, V a, V b)       cond ? a : b     V v_cond(unsigned cc, F)   1 or 0
 *   F get_f() / set_f(F)               PSTATE.NZCV
 *   F f_add f_sub(sf, V a, V b)  F f_adc f_sbc(sf, V a, V b, F)  F f_logic(sf, V result)
 *   F f_const(uint32_t nzcv)  F f_select(V cond, F a, F b)  V v_of_f(F)  F f_of_v(V)      (bits 31 to 28)
 *
 *   bool load(mop, V addr, V *out)             zero-extended
 *   bool store(mop, V addr, V value)
 *   bool load_pair(mop, V addr, V *a, V *b)    mop is of one element; both or neither
 *   bool store_pair(mop, V addr, V a, V b)
 *   bool load_w(mop, V addr, W *out)           1 to 16 bytes into the low lane, rest zero
 *   bool store_w(mop, V addr, W value)
 *   bool load_pair_w(mop, V addr, W *a, W *b)  bool store_pair_w(mop, V addr, W a, W b)
 *   bool load_ex(mop, V addr, V *out)          bool store_ex(mop, V addr, V value, V *status)
 *   bool load_ex_pair(mop, V addr, V *a, V *b) bool store_ex_pair(mop, V addr, V a, V b, V *status)
 *   void clear_ex(void)
 *   bool atomic_rmw(enum rmw, mop, V addr, V operand, V *old)
 *   bool atomic_cas(mop, V addr, V expect, V desired, V *old)
 *   bool atomic_casp(mop, V addr, V elo, V ehi, V dlo, V dhi, V *olo, V *ohi)
 *   bool sp_check(void)                        SP alignment (SCTLR_EL1.SA, SA0), when the base register is SP
 *   void barrier(enum barrier)
 *
 *   void branch(V target, enum branch_kind)    indirect
 *   void branch_rel(int64_t off, enum branch_kind)
 *   void branch_if(V cond, int64_t off)
 *   void end_block(void)
 *   void undefined(void)                       the instruction is UNDEFINED here
 *   void exception(enum exc_class, uint32_t iss, bool next)   next: preferred return is the following instruction
 *   unsigned mode_el(void)   bool mode_has(feature)
 *
 *   W get_w(n) / set_w(n, W)                   whole 128 bits
 *   W w_zero(void)  W w_const(uint64_t lo, uint64_t hi)
 *   V v_lane(es, W, idx)  V v_lane_s(es, W, idx)    zero- or sign-extended to 64 bits
 *   W w_insert(es, W, idx, V)  W w_dup(shape, V)  W w_dup_lane(shape, W, idx)
 *   W w_of_v(V lo)                             low 64 bits, rest zero      W w_of_vv(V lo, V hi)
 *   W w_<op>(shape, W a[, W b[, W d]])         isa/wops.def (some set FPSR.QC, the FP ones its other flags)
 *   W w_<op>(shape, W a, unsigned imm)         ops with an immediate (shifts, ext), isa/wops.def
 *   F f_fcmp(es, W a, W b, bool signalling)
 *   helpers (isa/helpers.def):  V h_name(V...)   bool h_name(V..., V *out) for those that can fault
 *                               W h_name(W..., unsigned imm)
 */

#endif
