/*
 * What each vector operation of isa/wops.def does, as C functions over registers: the reference for every engine, and
 * what a translator calls where it has nothing better.  Pure but for FPSR, through cpu->fp: the vCPU's own thread.
 */
#ifndef ARMLET_CPU_VEC_H
#define ARMLET_CPU_VEC_H

#include "cpu/cpu.h"
#include "cpu/value.h"

/* Effects, as in isa/wops.def. */
enum { WE_QC = 1, WE_FP = 2 };

/* The immediate of conversions: a rounding mode (enum fp_round), and ... */
enum {
    VI_MODE = 7,
    VI_FPCR = 8,        /* take the mode from FPCR instead */
    VI_EXACT = 16,      /* raise Inexact (FRINTX and its kin) */
    VI_TO64 = 32,       /* the integer has 64 bits, else 32 */
    VI_FBITS_SHIFT = 8, /* fraction bits of the fixed-point number, 0 to 64 */
};

typedef void vec_fn(struct cpu *cpu, unsigned shape, union vreg *d, const union vreg *a, const union vreg *b,
                    const union vreg *c, unsigned imm);

#define WOP1(name, effects) WOP_ANY(name, effects, 1, 0)
#define WOP2(name, effects) WOP_ANY(name, effects, 2, 0)
#define WOP3(name, effects) WOP_ANY(name, effects, 3, 0)
#define WOPI1(name, effects) WOP_ANY(name, effects, 1, 1)
#define WOPI2(name, effects) WOP_ANY(name, effects, 2, 1)
#define WOPI3(name, effects) WOP_ANY(name, effects, 3, 1)

/* WOP_add and so on. */
enum wop {
#define WOP_ANY(name, effects, inputs, imm) WOP_##name,
#include "isa/wops.def"
#undef WOP_ANY
    N_WOPS
};

#define WOP_ANY(name, effects, inputs, imm) vec_fn vec_##name;
#include "isa/wops.def"
#undef WOP_ANY

#undef WOP1
#undef WOP2
#undef WOP3
#undef WOPI1
#undef WOPI2
#undef WOPI3

/* By enum wop. */
extern vec_fn *const vec_table[N_WOPS];

#endif
