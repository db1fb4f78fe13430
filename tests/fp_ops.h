/*
 * The floating-point operations that fp_oracle (an arm64 program) and fp_test (the host) both run, as one
 * list:
 *
 *   OP(name, formats, instruction, call)
 *
 * `formats' says for which of HALF, SINGLE, DOUBLE the line holds.  The instruction reads v1, v2, v3 or x9
 * (which is also the first operand) and leaves its result in x9 (GET moves it there from v0); `r' is the
 * letter of the format. The call is the same in terms of cpu/fp.h: a, b and c are the operands, es the
 * format, st the status. The file is included once for each format with FP_FORMAT and r defined.
 */
#define GET "fmov x9, d0\n"
#define R1 " " r "0, " r "1\n" GET
#define R2 " " r "0, " r "1, " r "2\n" GET
#define R3 " " r "0, " r "1, " r "2, " r "3\n" GET
#define ALL (HALF | SINGLE | DOUBLE)
#define MASK(cond) ((cond) ? UINT64_MAX >> (64 - (8u << es)) : 0)
#define ROUND fp_round_mode(st)

OP(add, ALL, "fadd" R2, fp_add(st, es, a, b))
OP(sub, ALL, "fsub" R2, fp_sub(st, es, a, b))
OP(mul, ALL, "fmul" R2, fp_mul(st, es, a, b))
OP(nmul, ALL, "fnmul" R2, fp_neg(es, fp_mul(st, es, a, b)))
OP(mulx, ALL, "fmulx" R2, fp_mulx(st, es, a, b))
OP(div, ALL, "fdiv" R2, fp_div(st, es, a, b))
OP(max, ALL, "fmax" R2, fp_max(st, es, a, b))
OP(min, ALL, "fmin" R2, fp_min(st, es, a, b))
OP(maxnm, ALL, "fmaxnm" R2, fp_maxnm(st, es, a, b))
OP(minnm, ALL, "fminnm" R2, fp_minnm(st, es, a, b))
OP(abd, ALL, "fabd" R2, fp_abd(st, es, a, b))
OP(recps, ALL, "frecps" R2, fp_recps(st, es, a, b))
OP(rsqrts, ALL, "frsqrts" R2, fp_rsqrts(st, es, a, b))
OP(madd, ALL, "fmadd" R3, fp_fma(st, es, c, a, b))
OP(msub, ALL, "fmsub" R3, fp_fma(st, es, c, fp_neg(es, a), b))
OP(nmadd, ALL, "fnmadd" R3, fp_fma(st, es, fp_neg(es, c), fp_neg(es, a), b))
OP(nmsub, ALL, "fnmsub" R3, fp_fma(st, es, fp_neg(es, c), a, b))
OP(sqrt, ALL, "fsqrt" R1, fp_sqrt(st, es, a))
OP(abs, ALL, "fabs" R1, fp_abs(es, a))
OP(neg, ALL, "fneg" R1, fp_neg(es, a))
OP(recpe, ALL, "frecpe" R1, fp_recpe(st, es, a))
OP(rsqrte, ALL, "frsqrte" R1, fp_rsqrte(st, es, a))
OP(recpx, ALL, "frecpx" R1, fp_recpx(st, es, a))

OP(cmp, ALL, "fcmp " r "1, " r "2\n mrs x9, nzcv\n", fp_compare(st, es, a, b, false))
OP(cmpe, ALL, "fcmpe " r "1, " r "2\n mrs x9, nzcv\n", fp_compare(st, es, a, b, true))
OP(cmeq, ALL, "fcmeq" R2, MASK(fp_cmp_eq(st, es, a, b)))
OP(cmge, ALL, "fcmge" R2, MASK(fp_cmp_ge(st, es, a, b)))
OP(cmgt, ALL, "fcmgt" R2, MASK(fp_cmp_gt(st, es, a, b)))
OP(acge, ALL, "facge" R2, MASK(fp_cmp_ge(st, es, fp_abs(es, a), fp_abs(es, b))))
OP(acgt, ALL, "facgt" R2, MASK(fp_cmp_gt(st, es, fp_abs(es, a), fp_abs(es, b))))

OP(rintn, ALL, "frintn" R1, fp_round_int(st, es, a, FPR_TIEEVEN, false))
OP(rintp, ALL, "frintp" R1, fp_round_int(st, es, a, FPR_POSINF, false))
OP(rintm, ALL, "frintm" R1, fp_round_int(st, es, a, FPR_NEGINF, false))
OP(rintz, ALL, "frintz" R1, fp_round_int(st, es, a, FPR_ZERO, false))
OP(rinta, ALL, "frinta" R1, fp_round_int(st, es, a, FPR_TIEAWAY, false))
OP(rintx, ALL, "frintx" R1, fp_round_int(st, es, a, ROUND, true))
OP(rinti, ALL, "frinti" R1, fp_round_int(st, es, a, ROUND, false))
OP(rint32z, SINGLE | DOUBLE, "frint32z" R1, fp_round_int_n(st, es, a, FPR_ZERO, 32))
OP(rint32x, SINGLE | DOUBLE, "frint32x" R1, fp_round_int_n(st, es, a, ROUND, 32))
OP(rint64z, SINGLE | DOUBLE, "frint64z" R1, fp_round_int_n(st, es, a, FPR_ZERO, 64))
OP(rint64x, SINGLE | DOUBLE, "frint64x" R1, fp_round_int_n(st, es, a, ROUND, 64))

#define TO_INT(n, mode)                                                                          \
    OP(cvt##n##s_w, ALL, "fcvt" #n "s w9, " r "1\n", fp_to_fixed(st, es, a, 32, 0, false, mode)) \
    OP(cvt##n##s_x, ALL, "fcvt" #n "s x9, " r "1\n", fp_to_fixed(st, es, a, 64, 0, false, mode)) \
    OP(cvt##n##u_w, ALL, "fcvt" #n "u w9, " r "1\n", fp_to_fixed(st, es, a, 32, 0, true, mode))  \
    OP(cvt##n##u_x, ALL, "fcvt" #n "u x9, " r "1\n", fp_to_fixed(st, es, a, 64, 0, true, mode))  \
    OP(cvt##n##s_v, ALL, "fcvt" #n "s" R1, fp_to_fixed(st, es, a, 8u << es, 0, false, mode))     \
    OP(cvt##n##u_v, ALL, "fcvt" #n "u" R1, fp_to_fixed(st, es, a, 8u << es, 0, true, mode))
TO_INT(n, FPR_TIEEVEN)
TO_INT(p, FPR_POSINF)
TO_INT(m, FPR_NEGINF)
TO_INT(z, FPR_ZERO)
TO_INT(a, FPR_TIEAWAY)
#undef TO_INT

#define TO_FIXED(n, width, u) fp_to_fixed(st, es, a, width, n, u, FPR_ZERO)
#define FROM_FIXED(n, width, u) fp_from_fixed(st, es, a, width, n, u, ROUND)
#define FIXED(k, width, n)                                                                       \
    OP(tofixs_##k##n, ALL, "fcvtzs " #k "9, " r "1, #" #n "\n", TO_FIXED(n, width, false))    \
    OP(tofixu_##k##n, ALL, "fcvtzu " #k "9, " r "1, #" #n "\n", TO_FIXED(n, width, true))     \
    OP(fixs_##k##n, ALL, "scvtf " r "0, " #k "9, #" #n "\n" GET, FROM_FIXED(n, width, false)) \
    OP(fixu_##k##n, ALL, "ucvtf " r "0, " #k "9, #" #n "\n" GET, FROM_FIXED(n, width, true))
FIXED(w, 32, 1)
FIXED(w, 32, 17)
FIXED(w, 32, 32)
FIXED(x, 64, 1)
FIXED(x, 64, 40)
FIXED(x, 64, 64)
#undef FIXED
#undef TO_FIXED
#undef FROM_FIXED
OP(ints_w, ALL, "scvtf " r "0, w9\n" GET, fp_from_fixed(st, es, a, 32, 0, false, ROUND))
OP(ints_x, ALL, "scvtf " r "0, x9\n" GET, fp_from_fixed(st, es, a, 64, 0, false, ROUND))
OP(intu_w, ALL, "ucvtf " r "0, w9\n" GET, fp_from_fixed(st, es, a, 32, 0, true, ROUND))
OP(intu_x, ALL, "ucvtf " r "0, x9\n" GET, fp_from_fixed(st, es, a, 64, 0, true, ROUND))
OP(ints_v, ALL, "scvtf" R1, fp_from_fixed(st, es, a, 8u << es, 0, false, ROUND))
OP(fixu_v5, ALL, "ucvtf " r "0, " r "1, #5\n" GET, fp_from_fixed(st, es, a, 8u << es, 5, true, ROUND))
/* Not half: qemu-aarch64 7.2 leaves a negative result sign-extended to 32 bits instead of 16. */
OP(tofixs_v16, SINGLE | DOUBLE, "fcvtzs " r "0, " r "1, #16\n" GET,
   fp_to_fixed(st, es, a, 8u << es, 16, false, FPR_ZERO))

OP(cvt_h, SINGLE | DOUBLE, "fcvt h0, " r "1\n" GET, fp_convert(st, es, 1, a, ROUND))
OP(cvt_s, HALF | DOUBLE, "fcvt s0, " r "1\n" GET, fp_convert(st, es, 2, a, ROUND))
OP(cvt_d, HALF | SINGLE, "fcvt d0, " r "1\n" GET, fp_convert(st, es, 3, a, ROUND))
OP(cvtxn, DOUBLE, "fcvtxn s0, d1\n" GET, fp_convert(st, 3, 2, a, FPR_ODD))
OP(jcvt, DOUBLE, "fjcvtzs w9, d1\n mrs x10, nzcv\n orr x9, x9, x10, lsl #32\n", js(st, a))
OP(urecpe, SINGLE, "urecpe v0.2s, v1.2s\n fmov w9, s0\n", fp_urecpe((uint32_t)a))
OP(ursqrte, SINGLE, "ursqrte v0.2s, v1.2s\n fmov w9, s0\n", fp_ursqrte((uint32_t)a))

#undef GET
#undef R1
#undef R2
#undef R3
#undef ALL
#undef MASK
#undef ROUND
