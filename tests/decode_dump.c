/*
 * The decoder's side of decode_oracle.py.
 *     decode_dump table    one line for each instruction: name|mask|value|fields|group|feature|todo|models
 *     decode_dump words    for each hexadecimal word on stdin: name|text|text at the address 4 * line, or `-'
 *                          if it is UNDEFINED
 *     decode_dump bench    time a decode of random words, half of them known, in ns
 *     decode_dump fuzz N   N random words: the decoder agrees with the masks of the table, and texts stay in
 *                          buffers of every size (for a sanitizer build)
 * Fields is the mask of the bits that belong to fields; models is a string of 0 and 1 by enum a64_model:
 * whether the model can execute it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "isa/a64.h"

static const char *const group_names[] = {
    "none", "base", "branch", "mem", "system", "simd", "simdmem", "crypto",
};

static uint32_t field_bits(const struct a64_info *info)
{
    uint64_t bits = 0;

    for (int i = 0; i < A64_MAX_FIELDS && info->fields[i].name; i++)
        bits |= ((UINT64_C(1) << info->fields[i].width) - 1) << info->fields[i].lsb;
    return (uint32_t)bits;
}

static int dump_table(void)
{
    for (unsigned op = 1; op < A64_NOPS; op++) {
        const struct a64_info *i = &a64_info[op];
        printf("%s|%08x|%08x|%08x|%s|%s|%d|", i->name, i->mask, i->value, field_bits(i),
               group_names[i->group], a64_feature_name(i->feature), i->todo);
        for (unsigned m = 0; m < A64_N_MODELS; m++) {
            uint64_t features[A64_FEATURE_WORDS];
            a64_model_features(m, features);
            putchar('0' + a64_available(op, features));
        }
        putchar('\n');
    }
    return 0;
}

static int dump_words(void)
{
    uint64_t pc = 0;
    uint32_t word;

    for (; scanf("%" SCNx32, &word) == 1; pc += 4) {
        struct a64_insn insn;
        char text[A64_TEXT_SIZE], there[A64_TEXT_SIZE];
        if (!a64_decode(word, &insn)) {
            puts("-");
            continue;
        }
        a64_disasm(word, text, sizeof text);
        a64_disasm_at(word, pc, there, sizeof there);
        printf("%s|%s|%s\n", a64_info[insn.op].name, text, there);
    }
    return 0;
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Half of them instructions of the table. */
static uint32_t random_word(uint64_t *seed)
{
    uint64_t r = next_random(seed);
    const struct a64_info *info = &a64_info[1 + (r >> 1) % (A64_NOPS - 1)];
    uint32_t word = (uint32_t)(next_random(seed) >> 20);

    return r & 1 ? word : info->value | (word & ~info->mask);
}

static bool fuzz_word(uint32_t word, size_t size)
{
    char full[A64_TEXT_SIZE], *cut = malloc(size); /* on the heap: a sanitizer sees one byte too many */
    struct a64_insn insn;
    bool known = a64_decode(word, &insn), ok = true;
    size_t len;

    a64_disasm(word, full, sizeof full);
    a64_disasm(word, cut, size);
    len = strlen(full);
    ok = ok && strlen(cut) == (len < size ? len : size - 1) && !strncmp(cut, full, size - 1);
    ok = ok && len + 1 < sizeof full && !strchr(full, '?') && !strchr(full, '{') == !strstr(full, "{ v");
    ok = ok && insn.op < A64_NOPS && known == (insn.op != A64_UNDEFINED);
    ok = ok && (!known || (word & a64_info[insn.op].mask) == a64_info[insn.op].value);
    if (!ok)
        printf("FAIL %08x, %zu bytes: %s\n", word, size, full);
    free(cut);
    return ok;
}

static int fuzz(unsigned long n)
{
    uint64_t seed = 0x9e3779b97f4a7c15u;
    unsigned long failed = 0;

    for (unsigned long i = 0; i < n && failed < 10; i++)
        failed += !fuzz_word(random_word(&seed), 1 + i % A64_TEXT_SIZE);
    printf("%lu words\n%d passed, %d failed\n", n, !failed, !!failed);
    return failed != 0;
}

static int bench(void)
{
    enum { WORDS = 4096, ROUNDS = 5000 };
    static uint32_t words[WORDS];
    uint64_t seed = 88172645463325252u, sum = 0;
    struct timespec a, b;
    struct a64_insn insn;

    for (int i = 0; i < WORDS; i++)
        words[i] = random_word(&seed);
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int k = 0; k < ROUNDS; k++)
        for (int i = 0; i < WORDS; i++) {
            a64_decode(words[i], &insn);
            sum += insn.op;
        }
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%.1f ns a decode (%" PRIu64 ")\n",
           ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / WORDS / ROUNDS, sum);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "table"))
        return dump_table();
    if (argc == 2 && !strcmp(argv[1], "words"))
        return dump_words();
    if (argc == 2 && !strcmp(argv[1], "bench"))
        return bench();
    if (argc == 3 && !strcmp(argv[1], "fuzz"))
        return fuzz(strtoul(argv[2], NULL, 10));
    fprintf(stderr, "usage: decode_dump table|words|bench|fuzz N\n");
    return 2;
}
