/*
 * The IR's operations as data, and its text.  Constant: any thread.
 */
#include "jit/ir.h"

#include <inttypes.h>
#include <string.h>

#include "cpu/helpers.h"
#include "cpu/vec.h"

/* WE_* to IE_*: operations on saturation and FP touch FPSR only. */
#define VEC(n, ops, effects) {"w_" #n, ops, IR_W, (effects) ? IE_FPSR : 0, sizeof(ops) - 1},
#define CALL(n, ops, effects, fault)                                                                        \
    {"h_" #n, ops, IR_V, ((effects) == HE_PURE ? 0 : IE_STATE) | ((fault) ? IE_FAULT : 0), sizeof(ops) - 1},

const struct ir_info ir_info[IR_N_OPCODES] = {
#define N IR_N
#define V IR_V
#define W IR_W
#define F IR_F
#define V2 IR_V2
#define W2 IR_W2
#define IR(name, result, operands, effects) {#name, operands, result, effects, sizeof(operands) - 1},
#include "jit/ir_ops.def"
#undef IR
#undef N
#undef V
#undef W
#undef F
#undef V2
#undef W2
#define OP1(name, expr) {#name, "V", IR_V, 0, 1},
#define OP2(name, expr, commutes) {#name, "VV", IR_V, 0, 2},
#include "isa/ops.def"
#define WOP1(name, effects) VEC(name, "W", effects)
#define WOP2(name, effects) VEC(name, "WW", effects)
#define WOP3(name, effects) VEC(name, "WWW", effects)
#define WOPI1(name, effects) VEC(name, "W", effects)
#define WOPI2(name, effects) VEC(name, "WW", effects)
#define WOPI3(name, effects) VEC(name, "WWW", effects)
#include "isa/wops.def"
#define HELPER0(name, effects) CALL(name, "", effects, 0)
#define HELPER1(name, effects) CALL(name, "V", effects, 0)
#define HELPER2(name, effects) CALL(name, "VV", effects, 0)
#define HELPER3(name, effects) CALL(name, "VVV", effects, 0)
#define HELPER4(name, effects) CALL(name, "VVVV", effects, 0)
#define HELPERF0(name, effects) CALL(name, "", effects, 1)
#define HELPERF1(name, effects) CALL(name, "V", effects, 1)
#define HELPERF2(name, effects) CALL(name, "VV", effects, 1)
#define HELPERF3(name, effects) CALL(name, "VVV", effects, 1)
#define HELPERF4(name, effects) CALL(name, "VVVV", effects, 1)
#include "isa/helpers.def"
};

uint32_t ir_page_word(struct ir_page *page, unsigned at)
{
    unsigned piece = at / IR_PIECE;
    uint32_t word;

    if (!(page->taken >> piece & 1)) {
        memcpy(page->copy + piece * IR_PIECE, page->from + piece * IR_PIECE, IR_PIECE);
        page->taken |= 1u << piece;
    }
    memcpy(&word, page->copy + at, sizeof word);
    return word;
}

/* imm is whole unless operands, or the 16 bits of a vector operation, lie over it. */
static void dump_one(FILE *out, const struct ir_block *block, unsigned id)
{
    const struct ir *ir = &block->ir[id];
    const struct ir_info *info = &ir_info[ir->op];
    unsigned operands = ir_operands(ir->op);

    if (ir->op == IR_insn) {
        fprintf(out, "+%#" PRIx64 ":\n", ir->imm);
        return;
    }
    if (info->result == IR_N)
        fprintf(out, "        %s", info->name);
    else
        fprintf(out, "  %4u = %s", id, info->name);
    fprintf(out, ".%u", ir->k);
    if (ir->x)
        fprintf(out, ".%u", ir->x);
    for (unsigned i = 0; i < operands; i++)
        fprintf(out, "%s%c%u", i ? ", " : " ", "?vwf"[info->operands[i] == 'V' ? 1 : info->operands[i] == 'W' ? 2 : 3],
                ir_operand(ir, i));
    if (!strncmp(info->name, "w_", 2) && ir->imm16)
        fprintf(out, " #%u", ir->imm16);
    else if (operands <= 2 && ir->imm && strncmp(info->name, "w_", 2))
        fprintf(out, " #%#" PRIx64, ir->imm);
    fputc('\n', out);
}

void ir_dump(FILE *out, const struct ir_block *block)
{
    for (unsigned id = 1; id < block->n; id++)
        dump_one(out, block, id);
}
