/* What fp_test and fp_oracle say to each other, and the numbers of the operations in fp_ops.h. */
#ifndef ARMLET_TESTS_FP_CASE_H
#define ARMLET_TESTS_FP_CASE_H

#include <stdint.h>

struct fp_case {
    uint32_t op, es, fpcr, fpsr; /* fpsr: before, and in the answer after */
    uint64_t a, b, c, result;
};

#define FORMATS(f) FORMATS_TEXT(f)
#define FORMATS_TEXT(f) #f

enum fp_op {
#define r ""
#define OP(name, formats, insn, call) FP_OP_##name,
#include "fp_ops.h"
#undef OP
#undef r
    FP_OPS
};

#endif
