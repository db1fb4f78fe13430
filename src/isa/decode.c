/*
 * Decoding of A64 words: the generated tree, and the constraints that the tables call.
 * Pure: no state, any thread.
 */
#include "isa/a64.h"

#include <string.h>

#include "isa/a64_decode.inc"

bool a64_bitmask_ok(unsigned sf, unsigned n, unsigned imms)
{
    unsigned pattern = n << 6 | (~imms & 0x3f), size;

    if (pattern < 2 || (!sf && n))
        return false;
    size = 1u << (31 - __builtin_clz(pattern));
    return (imms & (size - 1)) != size - 1; /* all ones is not an immediate */
}

uint64_t a64_bitmask(unsigned sf, unsigned n, unsigned imms, unsigned immr)
{
    unsigned size = 1u << (31 - __builtin_clz(n << 6 | (~imms & 0x3f)));
    unsigned ones = (imms & (size - 1)) + 1, rotate = immr & (size - 1);
    uint64_t element = ones == 64 ? ~UINT64_C(0) : (UINT64_C(1) << ones) - 1;

    if (rotate) {
        element = element >> rotate | element << (size - rotate);
        if (size < 64)
            element &= (UINT64_C(1) << size) - 1;
    }
    for (; size < 64; size *= 2)
        element |= element << size;
    return sf ? element : (uint32_t)element;
}

bool a64_decode(uint32_t word, struct a64_insn *insn)
{
    insn->op = (uint16_t)decode_word(word, insn);
    return insn->op != A64_UNDEFINED;
}

uint32_t a64_field(unsigned op, uint32_t word, const char *name)
{
    const struct a64_info *info = &a64_info[op];

    for (int i = 0; i < A64_MAX_FIELDS && info->fields[i].name; i++)
        if (!strcmp(info->fields[i].name, name))
            return word >> info->fields[i].lsb & (uint32_t)((UINT64_C(1) << info->fields[i].width) - 1);
    return 0;
}
