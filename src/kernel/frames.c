/*
 * How to unwind each function of the kernel, as .debug_frame (DWARF 5, 6.4) for debuggers: made from the code, since a
 * stock kernel has no debug information.  Every function that calls others keeps a frame record; what counts is where
 * it makes it.  Left out: epilogues, and where other registers are kept.
 */
#include <string.h>

#include "kernel/guts.h"

enum { CODE_MAX = 255, DW_ADVANCE1 = 0x02, DW_OFFSET = 0x80, DW_DEF_CFA = 0x0c, FP = 29, LR = 30, SP = 31,
       CODE_ALIGN = 4, DATA_ALIGN_MINUS_8 = 0x78, RECORD = 16 };

static void put32(GString *s, uint32_t v)
{
    g_string_append_len(s, (const char *)&v, 4);
}

static void put64(GString *s, uint64_t v)
{
    g_string_append_len(s, (const char *)&v, 8);
}

static void put_uleb(GString *s, uint64_t v)
{
    for (; v > 127; v >>= 7)
        g_string_append_c(s, (char)(v | 128));
    g_string_append_c(s, (char)v);
}

/* Pads the entry that begins at `from' and writes its length there. */
static void end_entry(GString *s, size_t from)
{
    while ((s->len - from - 4) % 8)
        g_string_append_c(s, 0);
    uint32_t length = (uint32_t)(s->len - from - 4);
    memcpy(s->str + from, &length, 4);
}

void frames_begin(GString *s)
{
    size_t from = s->len;

    put32(s, 0);
    put32(s, UINT32_MAX);
    g_string_append_len(s, "\1", 2); /* version, no augmentation */
    put_uleb(s, CODE_ALIGN);
    put_uleb(s, DATA_ALIGN_MINUS_8);
    put_uleb(s, LR);
    g_string_append_c(s, DW_DEF_CFA);
    put_uleb(s, SP);
    put_uleb(s, 0);
    end_entry(s, from);
}

static void put_advance(GString *s, unsigned insns)
{
    g_string_append_c(s, DW_ADVANCE1);
    g_string_append_c(s, (char)insns);
}

/* From here on the record is at x29, `size' bytes below the canonical frame address. */
static void put_rules(GString *s, unsigned reg, uint64_t size)
{
    g_string_append_c(s, DW_DEF_CFA);
    put_uleb(s, reg);
    put_uleb(s, size);
    g_string_append_c(s, (char)(DW_OFFSET | FP));
    put_uleb(s, size / 8);
    g_string_append_c(s, (char)(DW_OFFSET | LR));
    put_uleb(s, size / 8 - 1);
}

/* stp x29, x30, [sp, #-N]! and, a little later, mov x29, sp; or add x29, sp, #N somewhere in a larger frame. */
static bool put_prologue(GString *s, const uint32_t *code, unsigned n)
{
    uint64_t size = 0;
    unsigned at = 0;

    for (unsigned i = 0; i < n; i++) { /* checks may come first */
        if ((code[i] & 0xffc07fff) == 0xa9807bfd && !size) { /* C6.2: STP pre-indexed, imm7 in units of 8 */
            size = 8 * (128 - (code[i] >> 15 & 127));
            put_advance(s, i + 1);
            put_rules(s, SP, size);
            at = i + 1;
        } else if ((code[i] & 0xffc003ff) == 0x910003fd) { /* ADD x29, sp, #imm */
            put_advance(s, i + 1 - at);
            put_rules(s, FP, size && !(code[i] >> 10 & 0xfff) ? size : RECORD);
            return true;
        }
    }
    return false;
}

static bool calls(const uint32_t *code, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (code[i] >> 26 == 0x25 || (code[i] & 0xfffffc1f) == 0xd63f0000) /* BL, BLR */
            return true;
    return false;
}

void frames_add(GString *s, struct kernel *k, uint64_t va, uint64_t size, uint64_t shift)
{
    uint32_t code[CODE_MAX];
    unsigned n = (unsigned)MIN(size / 4, CODE_MAX);
    size_t from = s->len;

    if (!n || va & 3 || !kernel_read(k, va, code, n * sizeof *code))
        return;
    put32(s, 0);
    put32(s, 0); /* the only CIE */
    put64(s, va + shift);
    put64(s, size);
    if (!put_prologue(s, code, n) && calls(code, n)) /* entry code: the record is made before or elsewhere */
        put_rules(s, FP, RECORD);
    end_entry(s, from);
}
