/*
 * What the translator makes of some pieces of guest code: the names of the host instructions, and how many.
 *
 *     gold_test [--write] FILE...
 *
 * A file of tests/gold begins with lines `#'; each other line that begins with eight hexadecimal digits is a guest
 * instruction, in the order of memory, and all other lines are our answer: the host instructions below the guest's, in
 * the order of the trace.  --write puts today's answer into the files (`make gold'): the difference is for review.
 * The host's features are those of x86-64-v3, whatever it has; nothing is run.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/report.h"
#include "cases.h"
#include "jit/dump.h"

enum { WORDS = 64, CODE = 1 << 16 };

static struct ir_block block;
static struct emit emit;
static struct snapshot snap[MAX_GROUPS];
static uint16_t uses[IR_MAX + MAX_GROUPS];
static uint8_t code[CODE];
static struct ir_page page;

struct piece {
    GString *head; /* the comment */
    uint32_t word[WORDS];
    unsigned n;
};

static void parse(const char *text, struct piece *p)
{
    g_auto(GStrv) line = g_strsplit(text, "\n", -1);

    p->head = g_string_new(NULL);
    for (unsigned i = 0; line[i]; i++) {
        char *end;
        unsigned long word = strtoul(line[i], &end, 16);
        if (line[i][0] == '#')
            g_string_append_printf(p->head, "%s\n", line[i]);
        else if (end == line[i] + 8 && line[i][0] != ' ' && p->n < WORDS)
            p->word[p->n++] = (uint32_t)word;
    }
}

static bool translate(const struct cpu *cpu, const struct piece *p)
{
    static struct jit_stubs stubs;
    struct ir_mode mode = ir_mode_of(cpu);
    uint8_t *entry[2];

    page = (struct ir_page){ .taken = UINT32_MAX };
    memcpy(page.copy, p->word, p->n * sizeof *p->word);
    ir_begin_trace(&block, &mode, 0);
    block.page = &page;
    while (block.insns < p->n && !block.ended) {
        uint32_t word = ir_page_word(&page, block.next & (MEM_PAGE_SIZE - 4));
        if ((unsigned)block.next >= 4 * p->n || !ir_lift(&block, word))
            break;
    }
    ir_end(&block);
    opt_forward(&block);
    emit.ngroups = opt_groups(&block, emit.group, emit.member);
    opt_dead(&block, uses);
    opt_lazy(&block);
    opt_loop(&block, uses, emit.member, &emit.loop);
    opt_owed(&block, &emit.loop);
    emit.x = (struct x86){ .p = code, .start = code, .end = code + CODE };
    emit.mode = JM_FP | JM_SP | JM_FPCR;
    stubs.enter = stubs.leave = stubs.leave_at = stubs.leave_next = stubs.dispatch = stubs.direct = stubs.link = code;
    stubs.call = stubs.call_keep = stubs.access = stubs.access_keep = stubs.group = stubs.group_keep = code;
    emit.stubs = &stubs;
    emit.snap = snap;
    return emit_block(&emit, &block, uses, 0, &entry[0], &entry[1]);
}

static unsigned names(FILE *out, const uint8_t *from, const uint8_t *to)
{
    if (from == to)
        return 0;
    fputs("   ", out);
    unsigned n = jit_dump_names(out, from, to);
    fputc('\n', out);
    return n;
}

static char *answer(const struct piece *p)
{
    char *text;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    unsigned hot = 0;

    fputs(p->head->str, f);
    for (unsigned i = 0; i < p->n; i++) {
        char insn[A64_TEXT_SIZE];
        a64_disasm(p->word[i], insn, sizeof insn);
        fprintf(f, "%08x  %s\n", p->word[i], insn);
    }
    fputs("  entry:\n", f);
    hot += names(f, code, emit.insn_code[0]);
    for (unsigned i = 0; i < block.insns; i++) {
        fprintf(f, "  %+d:\n", (int)emit.insn_off[i] / 4);
        hot += names(f, emit.insn_code[i], i + 1 < block.insns ? emit.insn_code[i + 1] : emit.cold_code);
    }
    fprintf(f, "  %u guest instructions, %u host instructions\n", block.insns, hot);
    fclose(f);
    return text;
}

/* True: the file is as it should be (or has been written). */
static bool one(const struct cpu *cpu, const char *path, bool write)
{
    g_autofree char *text = NULL, *now = NULL;
    g_autoptr(GError) err = NULL;
    struct piece p = { 0 };

    if (!g_file_get_contents(path, &text, NULL, &err))
        die("%s", err->message);
    parse(text, &p);
    if (!p.n || !translate(cpu, &p))
        die("%s: no guest code", path);
    now = answer(&p);
    g_string_free(p.head, TRUE);
    if (!strcmp(text, now))
        return true;
    if (write) {
        if (!g_file_set_contents(path, now, -1, &err))
            die("%s", err->message);
        return true;
    }
    printf("%s is not what is made today (make gold):\n%s", path, now);
    return false;
}

int main(int argc, char **argv)
{
    bool write = argc > 1 && !strcmp(argv[1], "--write");
    struct oracle_machine machine;
    unsigned passed = 0, failed = 0;

    oracle_machine_new(&machine, "max", 1);
    jit_host = (struct jit_host){ .bmi1 = true, .bmi2 = true, .lzcnt = true, .avx = true, .avx2 = true, .fma = true,
                                  .sse42 = true };
    for (int i = 1 + write; i < argc; i++)
        *(one(machine.cpu, argv[i], write) ? &passed : &failed) += 1;
    oracle_machine_free(&machine);
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0 || !passed;
}
