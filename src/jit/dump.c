/*
 * See dump.h.  Host code is disassembled by Capstone, when the program was built with it; else it is shown as bytes.
 */
#include "jit/dump.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "isa/a64.h"
#ifdef ARMLET_CAPSTONE
#include <capstone/capstone.h>
#endif

static FILE *perf_map;

bool jit_dump_wanted(uint64_t pc)
{
    if (!trace_on(IN_ASM) && !trace_on(OP) && !trace_on(OP_OPT) && !trace_on(OUT_ASM))
        return false;
    return trace_in_filter(pc);
}

void jit_dump_guest(uint64_t pc, const struct ir_block *block, const uint8_t *page)
{
    for (unsigned i = 1; i < block->n; i++) {
        uint32_t word;
        char text[A64_TEXT_SIZE];
        if (block->ir[i].op != IR_insn)
            continue;
        memcpy(&word, page + block->first + (ptrdiff_t)block->ir[i].imm, 4);
        a64_disasm(word, text, sizeof text);
        trace(IN_ASM, "%#" PRIx64 ": %08x  %s", pc + block->ir[i].imm, word, text);
    }
}

static void trace_lines(enum trace_category which, char *text)
{
    static struct trace_site site;

    for (char *line = text, *next; *line; line = next) {
        next = line + strcspn(line, "\n");
        if (*next)
            *next++ = 0;
        trace_write(which, &site, "%s", line);
    }
}

void jit_dump_ir(enum trace_category which, uint64_t pc, const struct ir_block *block)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    if (!f)
        return;
    fprintf(f, "%s of %#" PRIx64 ":\n", which == TRACE_OP ? "IR" : "optimised IR", pc);
    ir_dump(f, block);
    fclose(f);
    trace_lines(which, text);
    free(text);
}

#ifdef ARMLET_CAPSTONE
/* A line for each instruction, or only its name; a call of C is followed by data, which is shown as such. */
static unsigned disassemble(FILE *out, const uint8_t *start, const uint8_t *end, uint64_t address, bool names)
{
    csh handle;
    unsigned n = 0;

    if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle))
        return 0;
    cs_option(handle, CS_OPT_SKIPDATA, CS_OPT_ON);
    cs_insn *insn = cs_malloc(handle);
    const uint8_t *code = start;
    size_t left = (size_t)(end - start);
    while (cs_disasm_iter(handle, &code, &left, &address, insn)) {
        n++;
        if (names)
            fprintf(out, " %s", insn->mnemonic);
        else
            fprintf(out, "    %#" PRIx64 ": %s %s\n", insn->address, insn->mnemonic, insn->op_str);
    }
    cs_free(insn, 1);
    cs_close(&handle);
    return n;
}
#else
static unsigned disassemble(FILE *out, const uint8_t *start, const uint8_t *end, uint64_t address, bool names)
{
    if (names)
        return 0;
    fprintf(out, "    %#" PRIx64 ":", address);
    for (; start < end; start++)
        fprintf(out, " %02x", *start);
    fputc('\n', out);
    return 0;
}
#endif

unsigned jit_dump_names(FILE *out, const uint8_t *start, const uint8_t *end)
{
    return disassemble(out, start, end, 0, true);
}

void jit_dump_host(uint64_t pc, const struct emit *e, const uint8_t *start)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    const uint8_t *at = start;

    if (!f)
        return;
    fprintf(f, "host code of %#" PRIx64 ": %u instructions, %zu bytes, %zu of them cold\n", pc, e->block->insns,
            (size_t)(e->x.p - start), (size_t)(e->x.p - e->cold_code));
    for (unsigned i = 0; i <= e->block->insns; i++) {
        const uint8_t *next = i < e->block->insns ? e->insn_code[i] : e->cold_code;
        disassemble(f, at, next, (uint64_t)(uintptr_t)(at + e->x.exec), false);
        if (i < e->block->insns)
            fprintf(f, "  %#" PRIx64 ":\n", pc + (uint64_t)(int64_t)e->insn_off[i]);
        at = next;
    }
    fprintf(f, "  cold:\n");
    disassemble(f, at, e->x.p, (uint64_t)(uintptr_t)(at + e->x.exec), false);
    fclose(f);
    trace_lines(TRACE_OUT_ASM, text);
    free(text);
}

/* --- perf --- */

int jit_perf_map(void)
{
    char name[64];

    g_snprintf(name, sizeof name, "/tmp/perf-%ld.map", (long)getpid());
    perf_map = fopen(name, "we");
    return perf_map ? 0 : -errno;
}

void jit_perf_map_add(const uint8_t *code, size_t bytes, uint64_t pc)
{
    if (unlikely(perf_map)) {
        fprintf(perf_map, "%" PRIxPTR " %zx guest_%" PRIx64 "\n", (uintptr_t)code, bytes, pc);
        fflush(perf_map);
    }
}
