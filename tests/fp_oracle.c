/*
 * Runs floating-point instructions on a processor that is not ours: an arm64 program for fp_test, which
 * reads struct fp_case records from standard input and writes them back with result and FPSR filled in.
 */
#include "fp_case.h"

#include <stdio.h>
#include <stdlib.h>

#define RUN(insn)                                                                                   \
    {                                                                                               \
        uint64_t out, sr;                                                                           \
        __asm__ volatile("msr fpcr, %[cr]\n msr fpsr, %[sr]\n mov x9, %[a]\n"                       \
                         "fmov d1, %[a]\n fmov d2, %[b]\n fmov d3, %[c]\n" insn                     \
                         "mov %[out], x9\n mrs %[srout], fpsr\n msr fpcr, xzr\n"                    \
                         : [out] "=&r"(out), [srout] "=&r"(sr)                                      \
                         : [cr] "r"((uint64_t)k->fpcr), [sr] "r"((uint64_t)k->fpsr), [a] "r"(k->a), \
                           [b] "r"(k->b), [c] "r"(k->c)                                             \
                         : "x9", "x10", "v0", "v1", "v2", "v3", "cc", "memory");                    \
        k->result = out;                                                                            \
        k->fpsr = (uint32_t)sr;                                                                     \
    }

/* A format that the line does not have might not assemble, so the condition is the assembler's. */
#define HALF 1
#define SINGLE 2
#define DOUBLE 4

static void run_half(struct fp_case *k)
{
    switch (k->op) {
#define r "h"
#define OP(name, formats, insn, call)                                                               \
    case FP_OP_##name: RUN(".if (" FORMATS(formats) ") & 1\n" insn ".endif\n") break;
#include "fp_ops.h"
#undef OP
#undef r
    }
}

static void run_single(struct fp_case *k)
{
    switch (k->op) {
#define r "s"
#define OP(name, formats, insn, call)                                                               \
    case FP_OP_##name: RUN(".if (" FORMATS(formats) ") & 2\n" insn ".endif\n") break;
#include "fp_ops.h"
#undef OP
#undef r
    }
}

static void run_double(struct fp_case *k)
{
    switch (k->op) {
#define r "d"
#define OP(name, formats, insn, call)                                                               \
    case FP_OP_##name: RUN(".if (" FORMATS(formats) ") & 4\n" insn ".endif\n") break;
#include "fp_ops.h"
#undef OP
#undef r
    }
}

int main(void)
{
    struct fp_case k;

    while (fread(&k, sizeof k, 1, stdin) == 1) {
        if (k.es == 1)
            run_half(&k);
        else if (k.es == 2)
            run_single(&k);
        else
            run_double(&k);
        if (fwrite(&k, sizeof k, 1, stdout) != 1)
            return EXIT_FAILURE;
    }
    return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}
