/*
 * Assembly text of A64 words, from the templates of the instruction tables.
 *
 * Prints the instruction of the table, not its preferred alias: `orr x0, xzr, x1', not `mov x0, x1'.  System
 * registers have the names of sysregs.def, others are s3_0_c1_c0_0.  The holes of a template are described at
 * the heads of a64.isa and a64_simd.isa; the table named[] below says who prints which.
 *
 * Pure: any thread.  Not fast: fields are found by name.
 */
#include "isa/a64.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/compiler.h"

struct text {
    char *p, *end; /* p < end always: there is room for the NUL */
    unsigned op;
    uint32_t word;
    uint64_t pc;
    bool has_pc; /* print targets as addresses */
};

/* A hole taken apart: name[.arg][*count][[index]] or name|SP. */
struct hole {
    char name[12], arg[8], count[8], index[8];
    bool has_index, sp;
};

static const char *const conditions[16] = {
    "eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al", "nv",
};
static const char *const extends[8] = { "uxtb", "uxth", "uxtw", "uxtx", "sxtb", "sxth", "sxtw", "sxtx" };
static const char *const shifts[4] = { "lsl", "lsr", "asr", "ror" };
static const char element[5] = { 'b', 'h', 's', 'd', 'q' };

static void PRINTF_LIKE(2, 3) put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(t->p, (size_t)(t->end - t->p), fmt, ap);
    va_end(ap);
    t->p = n < t->end - t->p ? t->p + n : t->end - 1;
}

static uint32_t field(const struct text *t, const char *name)
{
    return a64_field(t->op, t->word, name);
}

static unsigned field_width(const struct text *t, const char *name)
{
    const struct a64_info *info = &a64_info[t->op];

    for (int i = 0; i < A64_MAX_FIELDS && info->fields[i].name; i++)
        if (!strcmp(info->fields[i].name, name))
            return info->fields[i].width;
    return 0;
}

static int64_t signed_field(const struct text *t, const char *name)
{
    return bits_sext(field(t, name), field_width(t, name));
}

static void put_imm(struct text *t, int64_t value)
{
    put(t, "#%" PRId64, value);
}

/* An offset in an address, left out when it is 0. */
static void put_offset(struct text *t, int64_t value)
{
    if (value)
        put(t, ", #%" PRId64, value);
}

static void put_target(struct text *t, uint64_t base, int64_t offset)
{
    if (t->has_pc)
        put(t, "0x%" PRIx64, base + (uint64_t)offset);
    else
        put_imm(t, offset);
}

/* general registers */

static void put_reg(struct text *t, bool wide, unsigned n, bool sp)
{
    if (n == 31)
        put(t, "%s", sp ? (wide ? "sp" : "wsp") : wide ? "xzr" : "wzr");
    else
        put(t, "%c%u", wide ? 'x' : 'w', n);
}

static unsigned lowest_bit(uint32_t v)
{
    return v ? (unsigned)__builtin_ctz(v) : 4;
}

static bool general_is_wide(const struct text *t, char kind)
{
    switch (kind) {
    case 'X': return true;
    case 'R': return field(t, "sf");
    case 'Z': return field(t, "size") == 3;
    case 'A': return !field(t, "w");
    case 'Y': return field(t, "q");
    case 'G': return lowest_bit(field(t, "imm5")) == 3;
    default: return false;
    }
}

static void put_general(struct text *t, const struct hole *h)
{
    char name[16];
    size_t len;
    unsigned n;

    snprintf(name, sizeof name, "r%s", h->name + 1);
    len = strcspn(name, "+?");
    if (name[len] == '?') { /* optional: printed unless it is the zero register */
        name[len] = '\0';
        if (field(t, name) == 31)
            return;
        put(t, ", ");
    }
    n = name[len] == '+' ? 1 : 0;
    name[len] = '\0';
    n += field(t, name);
    put_reg(t, general_is_wide(t, h->name[0]), n, h->sp);
}

/* SIMD&FP registers */

static unsigned highest_bit(uint32_t v)
{
    return v ? 31 - (unsigned)__builtin_clz(v) : 0;
}

/* FCVT and scalar floating point: 0 single, 1 double, 3 half. */
static unsigned fp_type_log2(unsigned type)
{
    return type == 3 ? 1 : 2 + (type & 1);
}

static unsigned structure_log2(const struct text *t)
{
    unsigned opc = field(t, "opc");

    return opc == 2 && (field(t, "size") & 1) ? 3 : opc;
}

/* log2 of an element's bytes for the kinds that arrangements and scalars share; 5 if there is none. */
static unsigned kind_log2(const struct text *t, char kind)
{
    switch (kind) {
    case 'B': return 0;
    case 'H': case 'K': return 1;
    case 'S': return 2;
    case 'D': return 3;
    case 'Q': return 4;
    case 'T': return field(t, "size");
    case 'F': case 'G': return 2 + field(t, "sz");
    case 'N': return 1 + field(t, "sz");
    case 'E': return lowest_bit(field(t, "imm5"));
    case 'L': return field(t, "size") + 1;
    case 'I': return highest_bit(field(t, "immh"));
    case 'J': return highest_bit(field(t, "immh")) + 1;
    case 'X': return structure_log2(t);
    default: return 5;
    }
}

static unsigned scalar_log2(const struct text *t, char kind)
{
    switch (kind) {
    case 'M': return field(t, "q") << 2 | field(t, "size");
    case 'P': return 2 + field(t, "opc");
    case 'O': return fp_type_log2(field(t, "opc"));
    case 'U': return fp_type_log2(field(t, "ftype"));
    default: return kind_log2(t, kind);
    }
}

static char element_letter(unsigned log2)
{
    return log2 < sizeof element ? element[log2] : '?';
}

static void put_scalar(struct text *t, const struct hole *h)
{
    char name[16];

    snprintf(name, sizeof name, "r%s", h->name + 1);
    put(t, "%c%u", element_letter(scalar_log2(t, h->name[0])), field(t, name));
}

static void put_arrangement(struct text *t, const char *arg)
{
    unsigned bytes = field(t, "q") ? 16 : 8, log2;

    if (arg[0] >= '0' && arg[0] <= '9') {
        put(t, ".%s", arg);
        return;
    }
    log2 = arg[0] == 'P' ? field(t, "size") + 1 : kind_log2(t, arg[0]);
    if (strchr("LJG", arg[0]))
        bytes = 16;
    else if (arg[0] == 'K')
        bytes /= 2;
    else if (!strcmp(arg, "F2"))
        bytes = 2u << log2;
    put(t, ".%u%c", bytes >> log2, element_letter(log2));
}

/* One lane: by imm5, or of a by-element instruction's second factor, whose number and index share h, l, m. */
static void put_lane(struct text *t, const struct hole *h, const char *name)
{
    unsigned log2 = kind_log2(t, h->arg[0]), n = field(t, name), index;
    const char *suffix = NULL;

    if (h->arg[0] == 'E') {
        index = *h->index ? field(t, h->index) >> log2 : field(t, "imm5") >> (log2 + 1);
        put(t, "v%u.%c[%u]", n, element_letter(log2), index);
        return;
    }
    if (h->arg[0] == '4' || h->arg[0] == '2') {
        suffix = h->arg;
        log2 = 2;
    }
    if (h->arg[0] == 'C') { /* FCMLA: pairs of elements */
        log2 = field(t, "size");
        n |= field(t, "m") << 4;
        index = log2 == 1 ? field(t, "h") << 1 | field(t, "l") : field(t, "h");
    } else if (log2 == 1) {
        index = field(t, "h") << 2 | field(t, "l") << 1 | field(t, "m");
    } else {
        n |= field(t, "m") << 4;
        index = log2 == 2 ? field(t, "h") << 1 | field(t, "l") : field(t, "h");
    }
    if (suffix)
        put(t, "v%u.%s[%u]", n, suffix, index);
    else
        put(t, "v%u.%c[%u]", n, element_letter(log2), index);
}

static unsigned hole_count(const struct text *t, const struct hole *h)
{
    return h->count[0] >= '0' && h->count[0] <= '9' ? (unsigned)atoi(h->count) : field(t, h->count) + 1;
}

static void put_list(struct text *t, const struct hole *h, const char *name)
{
    unsigned first = field(t, name), n = hole_count(t, h);

    put(t, "{ ");
    for (unsigned i = 0; i < n; i++) {
        put(t, "%sv%u", i ? ", " : "", (first + i) % 32);
        if (h->has_index)
            put(t, ".%c", element_letter(structure_log2(t)));
        else
            put_arrangement(t, h->arg);
    }
    put(t, " }");
    if (h->has_index)
        put(t, "[%u]", (field(t, "q") << 3 | field(t, "s") << 2 | field(t, "size")) >> structure_log2(t));
}

static void put_vector(struct text *t, const struct hole *h)
{
    char name[16];

    snprintf(name, sizeof name, "r%s", h->name + 1);
    if (*h->count)
        put_list(t, h, name);
    else if (h->has_index)
        put_lane(t, h, name);
    else {
        put(t, "v%u", field(t, name));
        if (*h->arg)
            put_arrangement(t, h->arg);
    }
}

/* immediates and operands by name */

static void put_cond(struct text *t, const struct hole *h)
{
    (void)h;
    put(t, "%s", conditions[field(t, "cond")]);
}

static void put_lsl12(struct text *t, const struct hole *h)
{
    (void)h;
    if (field(t, "sh"))
        put(t, ", lsl #12");
}

static void put_hw(struct text *t, const struct hole *h)
{
    (void)h;
    if (field(t, "hw"))
        put(t, ", lsl #%u", 16 * field(t, "hw"));
}

static void put_shift(struct text *t, const struct hole *h)
{
    (void)h;
    if (field(t, "sh") || field(t, "imm6"))
        put(t, ", %s #%u", shifts[field(t, "sh")], field(t, "imm6"));
}

/* UXTW or UXTX of the operation's own width is written LSL when a register is the stack pointer (C6.2.3). */
static void put_extend(struct text *t, const struct hole *h)
{
    unsigned sf = field(t, "sf"), option = field(t, "option"), amount = field(t, "imm3");
    bool sets_flags = t->word >> 29 & 1;
    bool sp = field(t, "rn") == 31 || (field(t, "rd") == 31 && !sets_flags);

    (void)h;
    put_reg(t, sf && (option & 3) == 3, field(t, "rm"), false);
    if (sp && option == 2 + sf) {
        if (amount)
            put(t, ", lsl #%u", amount);
        return;
    }
    put(t, ", %s", extends[option]);
    if (amount)
        put(t, " #%u", amount);
}

static void put_regoff(struct text *t, const struct hole *h)
{
    unsigned option = field(t, "option"), s = field(t, "s");
    unsigned log2 = *h->arg ? scalar_log2(t, h->arg[0]) : t->word >> 30;

    put_reg(t, option & 1, field(t, "rm"), false);
    if (option == 3 && !s)
        return;
    put(t, ", %s", option == 3 ? "lsl" : extends[option]);
    if (s)
        put(t, " #%u", log2);
}

static void put_bitmask(struct text *t, const struct hole *h)
{
    (void)h;
    put(t, "#0x%" PRIx64, a64_bitmask(field(t, "sf"), field(t, "n"), field(t, "imms"), field(t, "immr")));
}

static int64_t adr_offset(const struct text *t)
{
    return bits_sext((uint64_t)field(t, "immhi") << 2 | field(t, "immlo"), 21);
}

static void put_adr(struct text *t, const struct hole *h)
{
    (void)h;
    put_target(t, t->pc, adr_offset(t));
}

static void put_adrp(struct text *t, const struct hole *h)
{
    (void)h;
    put_target(t, t->pc & ~UINT64_C(4095), adr_offset(t) * 4096);
}

static void put_rel(struct text *t, const struct hole *h)
{
    char name[8];

    snprintf(name, sizeof name, "imm%.4s", h->name + 4);
    put_target(t, t->pc, signed_field(t, name) * 4);
}

static void put_tbbit(struct text *t, const struct hole *h)
{
    (void)h;
    put_imm(t, field(t, "b5") << 5 | field(t, "b40"));
}

static void put_tbreg(struct text *t, const struct hole *h)
{
    (void)h;
    put_reg(t, field(t, "b5"), field(t, "rt"), false);
}

static void put_key(struct text *t, const struct hole *h)
{
    (void)h;
    put(t, "%c", field(t, "m") ? 'b' : 'a');
}

static void put_order(struct text *t, const struct hole *h)
{
    (void)h;
    put(t, "%s%s", field(t, "a") ? "a" : "", field(t, "r") ? "l" : "");
}

static void put_size_letter(struct text *t, const struct hole *h)
{
    unsigned size = field(t, "size");

    if (size <= strlen(h->name))
        put(t, "%c", "bhwx"[size]);
}

static void put_imm_or_none(struct text *t, unsigned value, unsigned none)
{
    if (value != none)
        put(t, " #%u", value);
}

static void put_imm16_or_none(struct text *t, const struct hole *h)
{
    (void)h;
    put_imm_or_none(t, field(t, "imm16"), 0);
}

static void put_crm_or_none(struct text *t, const struct hole *h)
{
    (void)h;
    put_imm_or_none(t, field(t, "crm"), 15);
}

static void put_hint(struct text *t, const struct hole *h)
{
    static const char *const names[] = {
        [0] = "nop", [1] = "yield", [2] = "wfe", [3] = "wfi", [4] = "sev", [5] = "sevl", [6] = "dgh",
        [7] = "xpaclri", [8] = "pacia1716", [10] = "pacib1716", [12] = "autia1716", [14] = "autib1716",
        [16] = "esb", [17] = "psb csync", [18] = "tsb csync", [20] = "csdb",
        [24] = "paciaz", [25] = "paciasp", [26] = "pacibz", [27] = "pacibsp",
        [28] = "autiaz", [29] = "autiasp", [30] = "autibz", [31] = "autibsp",
        [32] = "bti", [34] = "bti c", [36] = "bti j", [38] = "bti jc",
    };
    unsigned n = field(t, "crm") << 3 | field(t, "op2");

    (void)h;
    if (n < ARRAY_LEN(names) && names[n])
        put(t, "%s", names[n]);
    else
        put(t, "hint #%u", n);
}

static void put_barrier(struct text *t, const struct hole *h)
{
    static const char *const names[16] = {
        [1] = "oshld", [2] = "oshst", [3] = "osh", [5] = "nshld", [6] = "nshst", [7] = "nsh", [9] = "ishld",
        [10] = "ishst", [11] = "ish", [13] = "ld", [14] = "st", [15] = "sy",
    };
    unsigned n = field(t, "crm");

    (void)h;
    if (names[n])
        put(t, "%s", names[n]);
    else
        put_imm(t, n);
}

static void put_dsb(struct text *t, const struct hole *h)
{
    unsigned n = field(t, "crm");

    if (n == 0 || n == 4) {
        put(t, n ? "pssbb" : "ssbb");
        return;
    }
    put(t, "dsb ");
    put_barrier(t, h);
}

static void put_pstate(struct text *t, const struct hole *h)
{
    static const char *const names[64] = {
        [3] = "UAO", [4] = "PAN", [5] = "SPSel", [25] = "SSBS", [26] = "DIT", [28] = "TCO", [30] = "DAIFSet",
        [31] = "DAIFClr",
    };
    unsigned op1 = field(t, "op1"), op2 = field(t, "op2"), key = op1 << 3 | op2, crm = field(t, "crm");

    (void)h;
    if (names[key] && (crm < 2 || key >= 30)) /* assemblers take 0 and 1 for the fields of one bit */
        put(t, "%s, #%u", names[key], crm);
    else
        put(t, "s0_%u_c4_c%u_%u, xzr", op1, crm, op2);
}

/* The names of sysregs.def; op0 1 are system instructions, written MNEMONIC_OPERAND there. */
static const struct {
    uint8_t op0, op1, crn, crm, op2;
    const char *name;
} sysregs[] = {
#define VIEW(name, op0, op1, crn, crm, op2, ...) { op0, op1, crn, crm, op2, #name },
#define STORED(...) VIEW(__VA_ARGS__)
#include "isa/sysregs.def"
#undef STORED
#undef VIEW
};

/* NULL if there is none, and for IMPLEMENTATION DEFINED ones, which have no name that an assembler knows. */
static const char *sysreg_name(const struct text *t, unsigned op0)
{
    unsigned op1 = field(t, "op1"), crn = field(t, "crn"), crm = field(t, "crm"), op2 = field(t, "op2");

    if (op0 == 3 && (crn == 11 || crn == 15))
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(sysregs); i++)
        if (sysregs[i].op0 == op0 && sysregs[i].op1 == op1 && sysregs[i].crn == crn &&
            sysregs[i].crm == crm && sysregs[i].op2 == op2)
            return sysregs[i].name;
    return NULL;
}

static void put_sysreg(struct text *t, const struct hole *h)
{
    unsigned op0 = 2 + field(t, "o0");
    const char *name = sysreg_name(t, op0);

    (void)h;
    if (name && !strcmp(name, "DBGDTR_RXTX_EL0")) /* one encoding, named by direction */
        name = t->op == A64_MRS ? "DBGDTRRX_EL0" : "DBGDTRTX_EL0";
    if (!name) {
        put(t, "s%u_%u_c%u_c%u_%u", op0, field(t, "op1"), field(t, "crn"), field(t, "crm"), field(t, "op2"));
        return;
    }
    for (; *name; name++)
        put(t, "%c", tolower((unsigned char)*name));
}

/* "tlbi vae1, x3", or "sys ..." for what has no name or breaks the rule on having a register. */
static void put_sys(struct text *t, const struct hole *h)
{
    const char *name = sysreg_name(t, 1);
    unsigned rt = field(t, "rt");
    bool whole = name && (!strncmp(name, "IC_IALLU", 8) || !strncmp(name, "TLBI_VMALLE1", 12));

    (void)h;
    if (!name || whole != (rt == 31)) {
        put(t, "sys #%u, c%u, c%u, #%u", field(t, "op1"), field(t, "crn"), field(t, "crm"), field(t, "op2"));
    } else {
        for (; *name; name++)
            put(t, "%c", *name == '_' ? ' ' : tolower((unsigned char)*name));
    }
    if (rt != 31)
        put(t, ", x%u", rt);
}

static void put_prfop(struct text *t, const struct hole *h)
{
    static const char *const types[3] = { "pld", "pli", "pst" };
    unsigned rt = field(t, "rt"), type = rt >> 3, level = rt >> 1 & 3;

    (void)h;
    if (type == 3 || level == 3)
        put_imm(t, rt);
    else
        put(t, "%sl%u%s", types[type], level + 1, rt & 1 ? "strm" : "keep");
}

static void put_off_imm9(struct text *t, const struct hole *h)
{
    put_offset(t, signed_field(t, "imm9") * (*h->count ? atoi(h->count) : 1));
}

static void put_imm9s(struct text *t, const struct hole *h)
{
    put_imm(t, signed_field(t, "imm9") * (*h->count ? atoi(h->count) : 1));
}

static int64_t imm10(const struct text *t)
{
    return bits_sext(field(t, "s") << 9 | field(t, "imm9"), 10) * 8;
}

static void put_off_imm10(struct text *t, const struct hole *h)
{
    (void)h;
    put_offset(t, imm10(t));
}

static void put_imm10(struct text *t, const struct hole *h)
{
    (void)h;
    put_imm(t, imm10(t));
}

static void put_off_imm12(struct text *t, const struct hole *h)
{
    unsigned log2 = *h->arg ? scalar_log2(t, h->arg[0]) : *h->count ? 3 : field(t, "size");

    put_offset(t, (int64_t)field(t, "imm12") << log2);
}

static int64_t pair_offset(const struct text *t, const struct hole *h)
{
    if (*h->count)
        return signed_field(t, "imm7") * atoi(h->count);
    return signed_field(t, "imm7") * (1 << (*h->arg ? scalar_log2(t, h->arg[0]) : 2 + field(t, "sf")));
}

static void put_off_simm7(struct text *t, const struct hole *h)
{
    put_offset(t, pair_offset(t, h));
}

static void put_simm7(struct text *t, const struct hole *h)
{
    put_imm(t, pair_offset(t, h));
}

static void put_two(struct text *t, const struct hole *h)
{
    (void)h;
    if (field(t, "q"))
        put(t, "2");
}

static void put_shift_amount(struct text *t, const struct hole *h)
{
    int esize = 8 << highest_bit(field(t, "immh")), n = (int)(field(t, "immh") << 3 | field(t, "immb"));

    put_imm(t, h->name[3] == 'r' ? 2 * esize - n : n - esize);
}

static void put_fbits(struct text *t, const struct hole *h)
{
    put_imm(t, strstr(h->name, "16") ? 16 - (int)field(t, "immb") : 64 - (int)field(t, "scale"));
}

static void put_esize(struct text *t, const struct hole *h)
{
    (void)h;
    put_imm(t, 8 << field(t, "size"));
}

static void put_rotation(struct text *t, const struct hole *h)
{
    unsigned rot = field(t, "rot");

    put_imm(t, strstr(h->name, "180") ? rot * 180 + 90 : rot * 90);
}

/* VFPExpandImm (DDI0487 J1.1): sign, three bits of exponent, four of fraction. */
static double expand_fp8(unsigned imm8)
{
    double v = 16 + (imm8 & 15);
    int exponent = (int)((imm8 >> 4 & 7) ^ 4) - 3;

    for (; exponent > 0; exponent--)
        v *= 2;
    for (; exponent < 0; exponent++)
        v /= 2;
    v /= 16;
    return imm8 & 0x80 ? -v : v;
}

static unsigned modified_imm8(const struct text *t)
{
    return field(t, "abc") << 5 | field(t, "defgh");
}

static void put_fpimm8(struct text *t, const struct hole *h)
{
    (void)h;
    put(t, "#%.8f", expand_fp8(field(t, "imm8")));
}

static void put_mfp(struct text *t, const struct hole *h)
{
    (void)h;
    put(t, "#%.8f", expand_fp8(modified_imm8(t)));
}

static void put_mimm8(struct text *t, const struct hole *h)
{
    (void)h;
    put(t, "#0x%x", modified_imm8(t));
}

static void put_mimm64(struct text *t, const struct hole *h)
{
    uint64_t v = 0;

    (void)h;
    for (unsigned i = 0; i < 8; i++)
        if (modified_imm8(t) >> i & 1)
            v |= UINT64_C(0xff) << 8 * i;
    put(t, "#0x%016" PRIx64, v);
}

static void put_mlsl(struct text *t, const struct hole *h)
{
    (void)h;
    if (field(t, "sh"))
        put(t, ", lsl #%u", 8 * field(t, "sh"));
}

static void put_mmsl(struct text *t, const struct hole *h)
{
    (void)h;
    put(t, ", msl #%u", field(t, "sh") ? 16 : 8);
}

/* Post-index of structure loads: a register, or the number of bytes moved. */
static void put_post(struct text *t, const struct hole *h)
{
    unsigned bytes = field(t, "q") ? 16 : 8;

    if (field(t, "rm") != 31) {
        put_reg(t, true, field(t, "rm"), false);
        return;
    }
    if (*h->arg)
        bytes = 1u << kind_log2(t, h->arg[0]);
    put_imm(t, bytes * hole_count(t, h));
}

static const struct {
    const char *name;
    void (*print)(struct text *t, const struct hole *h);
} named[] = {
    { "cond", put_cond },           { "lsl12", put_lsl12 },       { "hw", put_hw },
    { "shift", put_shift },         { "extend", put_extend },     { "regoff", put_regoff },
    { "#bitmask", put_bitmask },    { "#adr", put_adr },          { "#adrp", put_adrp },
    { "#rel26", put_rel },          { "#rel19", put_rel },        { "#rel14", put_rel },
    { "#tbbit", put_tbbit },        { "tbreg", put_tbreg },       { "ab", put_key },
    { "ar", put_order },            { "b", put_size_letter },     { "bw", put_size_letter },
    { "bwx", put_size_letter },     { "imm16?", put_imm16_or_none }, { "crm?", put_crm_or_none },
    { "isb?", put_crm_or_none },    { "hint", put_hint },         { "barrier", put_barrier },
    { "dsb", put_dsb },             { "pstate", put_pstate },     { "sysreg", put_sysreg },
    { "sys", put_sys },            
    { "prfop", put_prfop },         { ",imm9", put_off_imm9 },    { "#imm9", put_imm9s },
    { "#imm9s", put_imm9s },        { ",imm10", put_off_imm10 },  { "#imm10", put_imm10 },
    { ",imm12", put_off_imm12 },    { ",uimm12", put_off_imm12 }, { ",imm7", put_off_simm7 },
    { "#imm7", put_simm7 },         { ",simm7", put_off_simm7 },  { "#simm7", put_simm7 },
    { "2", put_two },               { "#shr", put_shift_amount }, { "#shl", put_shift_amount },
    { "#fbits", put_fbits },        { "#fbits16", put_fbits },    { "#esize", put_esize },
    { "#rot90", put_rotation },     { "#rot180", put_rotation },  { "#fpimm8", put_fpimm8 },
    { "#mfp", put_mfp },            { "#mimm8", put_mimm8 },      { "#mimm64", put_mimm64 },
    { ",mlsl", put_mlsl },          { ",mmsl", put_mmsl },        { "post", put_post },
};

/* Copy the part of s up to one of the stop characters; returns where it stopped. */
static const char *take(char *out, size_t size, const char *s, const char *stop)
{
    size_t n = strcspn(s, stop);

    snprintf(out, size, "%.*s", (int)n, s);
    return s + n;
}

static struct hole parse_hole(const char *s)
{
    struct hole h = { 0 };

    s = take(h.name, sizeof h.name, s, ".*|[}");
    if (*s == '.')
        s = take(h.arg, sizeof h.arg, s + 1, "*[}");
    if (*s == '*')
        s = take(h.count, sizeof h.count, s + 1, "[}");
    if (*s == '[') {
        h.has_index = true;
        take(h.index, sizeof h.index, s + 1, "]");
    }
    h.sp = *s == '|';
    return h;
}

static void put_hole(struct text *t, const char *s)
{
    struct hole h = parse_hole(s);

    for (size_t i = 0; i < ARRAY_LEN(named); i++)
        if (!strcmp(named[i].name, h.name)) {
            named[i].print(t, &h);
            return;
        }
    if (h.name[0] == 'V')
        put_vector(t, &h);
    else if (strchr("RXWZAYG", h.name[0]))
        put_general(t, &h);
    else if (h.name[0] >= 'A' && h.name[0] <= 'Z')
        put_scalar(t, &h);
    else if (h.name[0] == '#')
        put(t, "#%u", field(t, h.name + 1) * (*h.count ? (unsigned)atoi(h.count) : 1));
    else
        put(t, "%u", field(t, h.name));
}

static void disasm(uint32_t word, uint64_t pc, bool has_pc, char *out, size_t size)
{
    struct text t = { .p = out, .end = out + size, .word = word, .pc = pc, .has_pc = has_pc };
    struct a64_insn insn;

    if (!size)
        return;
    *out = '\0';
    if (!a64_decode(word, &insn)) {
        put(&t, ".inst 0x%08x", word);
        return;
    }
    t.op = insn.op;
    for (const char *s = a64_info[insn.op].text; *s; s++)
        if (*s == '{' && s[1] != ' ') {
            put_hole(&t, s + 1);
            s += strcspn(s, "}");
        } else {
            put(&t, "%c", *s);
        }
}

void a64_disasm_at(uint32_t word, uint64_t pc, char *out, size_t size)
{
    disasm(word, pc, true, out, size);
}

void a64_disasm(uint32_t word, char *out, size_t size)
{
    disasm(word, 0, false, out, size);
}
