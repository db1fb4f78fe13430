/*
 * isagen - turn the instruction tables (*.isa) into C.
 *
 *     isagen types|decoder features.def FILE.isa...
 *
 * `types' prints a64_gen.h: the list of instructions, one struct of fields for each, struct a64_insn.
 * `decoder' prints a64_decode.inc: a decision tree and the table a64_info[].
 *
 * A table is lines of
 *     NAME  bits...  "template"  [if EXPR] [feat FEAT_X] [over OTHER] [todo]
 * and `@group NAME' lines, which hold for what follows; a `#' in the first column is a comment.  Bits run
 * from 31 to 0: 0 and 1 are literal, `name:width' is a field, `name:width!0' a field that is part of the
 * match by not being 0 (one a line), `-', `(0)' and `(1)' are not looked at.  EXPR is a C expression over the
 * fields; where it is false the word is UNDEFINED.
 *
 * Overlap rule: two lines may share an encoding only where the narrower says `over WIDER' (this is
 * transitive).  Any other overlap is an error, so the order of lines means nothing.  If the narrower line has
 * a constraint that fails, the word is UNDEFINED; it does not fall through to the wider line.
 *
 * Host tool, one thread, stops at the first error with `file:line: message' and status 1.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INSNS = 4096, MAX_FIELDS = 12, MAX_OVER = 4, MAX_FEATURES = 128, NAME_LEN = 32, UNION_LIMIT = 24 };

static const char *const groups[] = { "base", "branch", "mem", "system", "simd", "simdmem", "crypto" };

struct field {
    char name[NAME_LEN];
    int lsb, width;
};

struct insn {
    char name[NAME_LEN], feat[NAME_LEN], text[160], constraint[256];
    char over[MAX_OVER][NAME_LEN];
    const char *group;
    uint32_t mask, value, nonzero;
    struct field fields[MAX_FIELDS];
    int n_fields, n_over;
    bool todo;
    const char *path;
    int line;
};

static struct insn insns[MAX_INSNS];
static int n_insns;
static char features[MAX_FEATURES][NAME_LEN];
static int n_features;
static const char *path;
static const char *group;
static int line;

static void __attribute__((noreturn, format(printf, 3, 4)))
die_at(const char *file, int at, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "%s:%d: ", file, at);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

#define die(...) die_at(path, line, __VA_ARGS__)

static void copy_name(char out[NAME_LEN], const char *s, size_t n)
{
    if (n == 0 || n >= NAME_LEN)
        die("bad name: %.*s", (int)n, s);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && s[i] != '_')
            die("bad name: %.*s", (int)n, s);
    memcpy(out, s, n);
    out[n] = '\0';
}

static struct field *find_field(struct insn *in, const char *name, size_t n)
{
    for (int i = 0; i < in->n_fields; i++)
        if (strlen(in->fields[i].name) == n && !memcmp(in->fields[i].name, name, n))
            return &in->fields[i];
    return NULL;
}

static struct insn *find_insn(const char *name)
{
    for (int i = 0; i < n_insns; i++)
        if (!strcmp(insns[i].name, name))
            return &insns[i];
    return NULL;
}

/* reading */

static void parse_field(struct insn *in, const char *tok, const char *colon, int *bit)
{
    struct field *f;
    char *end;
    long width = strtol(colon + 1, &end, 10);
    bool nonzero = !strcmp(end, "!0");

    if (end == colon + 1 || (*end && !nonzero) || width < 1 || width > 32)
        die("bad field width: %s", tok);
    if (in->n_fields == MAX_FIELDS)
        die("too many fields: %s", in->name);
    if (find_field(in, tok, (size_t)(colon - tok)))
        die("duplicate field: %.*s", (int)(colon - tok), tok);
    f = &in->fields[in->n_fields++];
    copy_name(f->name, tok, (size_t)(colon - tok));
    f->width = (int)width;
    *bit -= f->width;
    f->lsb = *bit;
    if (nonzero && (in->nonzero || *bit < 0))
        die("bad !0 in %s", in->name);
    if (nonzero)
        in->nonzero = (uint32_t)((1ull << width) - 1) << *bit;
}

static void parse_bits(struct insn *in, const char *tok, int *bit)
{
    const char *colon = strchr(tok, ':');

    if (colon) {
        parse_field(in, tok, colon, bit);
        return;
    }
    for (; *tok; tok++) {
        --*bit;
        if (*tok == '-')
            continue;
        if (!strncmp(tok, "(0)", 3) || !strncmp(tok, "(1)", 3)) {
            tok += 2;
            continue;
        }
        if (*tok != '0' && *tok != '1')
            die("bad bit '%c' in %s", *tok, in->name);
        if (*bit < 0)
            continue; /* the caller reports the width */
        in->mask |= 1u << *bit;
        in->value |= (uint32_t)(*tok - '0') << *bit;
    }
}

static bool is_keyword(const char *s, size_t n)
{
    static const char *const words[] = { "if", "feat", "over", "todo" };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i]) == n && !memcmp(words[i], s, n))
            return true;
    return false;
}

static const char *next_word(const char *s, const char **end)
{
    s += strspn(s, " \t");
    *end = s + strcspn(s, " \t");
    return s;
}

/* An expression may only name fields, and functions of a64.h. */
static void check_constraint(struct insn *in)
{
    for (const char *s = in->constraint; *s;) {
        size_t n = 0;
        if (isdigit((unsigned char)*s)) {
            while (isalnum((unsigned char)*s))
                s++;
            continue;
        }
        while (isalnum((unsigned char)s[n]) || s[n] == '_')
            n++;
        if (n && strncmp(s, "a64_", 4) && !find_field(in, s, n))
            die("constraint of %s names no field: %.*s", in->name, (int)n, s);
        s += n ? n : 1;
    }
}

static const char *parse_if(struct insn *in, const char *s)
{
    size_t used = 0;
    const char *end, *w;

    if (*in->constraint)
        die("second constraint in %s", in->name);
    for (w = next_word(s, &end); w != end && !is_keyword(w, (size_t)(end - w)); w = next_word(end, &end)) {
        used += (size_t)snprintf(in->constraint + used, sizeof in->constraint - used, "%s%.*s",
                                 used ? " " : "", (int)(end - w), w);
        if (used >= sizeof in->constraint)
            die("constraint too long in %s", in->name);
    }
    if (!used)
        die("empty constraint in %s", in->name);
    check_constraint(in);
    return w;
}

static void check_feature(const struct insn *in)
{
    for (int i = 0; i < n_features; i++)
        if (!strcmp(features[i], in->feat))
            return;
    die("unknown feature in %s: %s", in->name, in->feat);
}

static void parse_tail(struct insn *in, const char *s)
{
    const char *end;

    for (s = next_word(s, &end); s != end; s = next_word(s, &end)) {
        size_t n = (size_t)(end - s);
        if (n == 2 && !memcmp(s, "if", 2)) {
            s = parse_if(in, end);
        } else if (n == 4 && !memcmp(s, "todo", 4)) {
            in->todo = true;
            s = end;
        } else if (n == 4 && !memcmp(s, "feat", 4)) {
            s = next_word(end, &end);
            copy_name(in->feat, s, (size_t)(end - s));
            check_feature(in);
            s = end;
        } else if (n == 4 && !memcmp(s, "over", 4)) {
            s = next_word(end, &end);
            if (in->n_over == MAX_OVER)
                die("too many `over' in %s", in->name);
            copy_name(in->over[in->n_over++], s, (size_t)(end - s));
            s = end;
        } else {
            die("unknown word in %s: %.*s", in->name, (int)n, s);
        }
    }
}

static void parse_insn(char *s)
{
    struct insn *in = &insns[n_insns];
    char *quote = strchr(s, '"'), *close = quote ? strchr(quote + 1, '"') : NULL;
    int bit = 32;
    char *tok;

    if (n_insns == MAX_INSNS)
        die("too many instructions");
    if (!close)
        die("missing assembly template");
    if (!group)
        die("instruction before any @group");
    *quote = *close = '\0';
    *in = (struct insn){ .group = group, .path = path, .line = line };
    if (snprintf(in->text, sizeof in->text, "%s", quote + 1) >= (int)sizeof in->text)
        die("template too long");
    if (strchr(in->text, '\\'))
        die("backslash in template");
    tok = strtok(s, " \t");
    copy_name(in->name, tok, strlen(tok));
    if (find_insn(in->name))
        die("duplicate name: %s", in->name);
    while ((tok = strtok(NULL, " \t")))
        parse_bits(in, tok, &bit);
    if (bit != 0)
        die("pattern of %s is %d bits, not 32", in->name, 32 - bit);
    parse_tail(in, close + 1);
    n_insns++;
}

static void parse_directive(const char *s)
{
    const char *end, *w = next_word(s, &end);

    if (end - w != 6 || memcmp(w, "@group", 6))
        die("unknown directive: %.*s", (int)(end - w), w);
    w = next_word(end, &end);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (strlen(groups[i]) == (size_t)(end - w) && !memcmp(groups[i], w, (size_t)(end - w))) {
            group = groups[i];
            return;
        }
    die("unknown group: %.*s", (int)(end - w), w);
}

static FILE *open_input(const char *name)
{
    FILE *in = fopen(name, "r");

    if (!in) {
        perror(name);
        exit(1);
    }
    path = name;
    line = 0;
    return in;
}

static bool next_line(FILE *in, char *buf, int size)
{
    if (!fgets(buf, size, in))
        return false;
    line++;
    if (!strchr(buf, '\n') && !feof(in))
        die("line too long");
    buf[strcspn(buf, "\r\n")] = '\0';
    return true;
}

static void read_features(const char *name)
{
    FILE *in = open_input(name);
    char buf[512];

    while (next_line(in, buf, sizeof buf)) {
        if (strncmp(buf, "FEATURE(", 8))
            continue;
        if (n_features == MAX_FEATURES)
            die("too many features");
        copy_name(features[n_features++], buf + 8, strcspn(buf + 8, ", "));
    }
    fclose(in);
}

static void read_table(const char *name)
{
    FILE *in = open_input(name);
    char buf[512];

    group = NULL;
    while (next_line(in, buf, sizeof buf)) {
        if (buf[0] == '@')
            parse_directive(buf);
        else if (isalpha((unsigned char)buf[0]))
            parse_insn(buf);
        else if (buf[0] != '#' && buf[strspn(buf, " \t")])
            die("a line starts with a name, `@' or `#'");
    }
    fclose(in);
}

/* checking */

static bool inside(const struct insn *a, const struct insn *b)
{
    return (a->mask & b->mask) == b->mask && a->mask != b->mask && (a->value & b->mask) == b->value;
}

/* Depth is bounded because each step of `over' has strictly fewer fixed bits. */
static bool carves(const struct insn *a, const struct insn *b)
{
    for (int i = 0; i < a->n_over; i++) {
        const struct insn *wider = find_insn(a->over[i]);
        if (wider == b || carves(wider, b))
            return true;
    }
    return false;
}

static void check_over(const struct insn *a)
{
    for (int i = 0; i < a->n_over; i++) {
        const struct insn *wider = find_insn(a->over[i]);
        if (!wider)
            die_at(a->path, a->line, "%s is over an unknown line: %s", a->name, a->over[i]);
        if (!inside(a, wider))
            die_at(a->path, a->line, "%s is not inside %s", a->name, wider->name);
    }
}

static bool excludes(const struct insn *a, const struct insn *b)
{
    return a->nonzero && (b->mask & a->nonzero) == a->nonzero && !(b->value & a->nonzero);
}

static bool overlap(const struct insn *a, const struct insn *b)
{
    uint32_t common = a->mask & b->mask;

    return (a->value & common) == (b->value & common) && !excludes(a, b) && !excludes(b, a);
}

static void check_overlaps(void)
{
    for (int i = 0; i < n_insns; i++)
        check_over(&insns[i]);
    for (int i = 0; i < n_insns; i++)
        for (int j = 0; j < i; j++) {
            const struct insn *a = &insns[i], *b = &insns[j];
            if (overlap(a, b) && !carves(a, b) && !carves(b, a))
                die_at(a->path, a->line, "%s overlaps %s", a->name, b->name);
        }
}

static int field_bytes(const struct field *f)
{
    return f->width <= 8 ? 1 : f->width <= 16 ? 2 : 4;
}

static void check_sizes(void)
{
    for (int i = 0; i < n_insns; i++) {
        int size = 0;
        for (int k = 0; k < insns[i].n_fields; k++)
            size += field_bytes(&insns[i].fields[k]);
        if (size > UNION_LIMIT)
            die_at(insns[i].path, insns[i].line, "fields of %s do not fit %d bytes", insns[i].name,
                   UNION_LIMIT);
    }
}

/* printing */

/* Wide fields first, so that the structs have no padding. */
static void print_struct(const struct insn *in)
{
    printf("struct a64_%s {", in->name);
    for (int bytes = 4; bytes; bytes /= 2)
        for (int k = 0; k < in->n_fields; k++)
            if (field_bytes(&in->fields[k]) == bytes)
                printf(" uint%d_t %s;", bytes * 8, in->fields[k].name);
    if (!in->n_fields)
        printf(" uint8_t none;");
    printf(" };\n");
}

static const char *feat_of(const struct insn *in)
{
    return *in->feat ? in->feat : "FEAT_NONE";
}

static void print_types(void)
{
    printf("#ifndef A64_GEN_H\n#define A64_GEN_H\n\n#include <stdint.h>\n\n");
    printf("/* X(name, group, feature, todo) */\n#define A64_INSNS(X) \\\n");
    for (int i = 0; i < n_insns; i++)
        printf("    X(%s, %s, %s, %d)%s\n", insns[i].name, insns[i].group, feat_of(&insns[i]), insns[i].todo,
               i + 1 < n_insns ? " \\" : "");
    printf("\nenum a64_op {\n    A64_UNDEFINED = 0,\n");
    for (int i = 0; i < n_insns; i++)
        printf("    A64_%s,\n", insns[i].name);
    printf("    A64_NOPS\n};\n\nenum a64_group {\n    A64_GROUP_none,\n");
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        printf("    A64_GROUP_%s,\n", groups[i]);
    printf("};\n\n");
    for (int i = 0; i < n_insns; i++)
        print_struct(&insns[i]);
    printf("\nstruct a64_insn {\n    uint16_t op; /* enum a64_op */\n    union {\n");
    for (int i = 0; i < n_insns; i++)
        printf("        struct a64_%s %s;\n", insns[i].name, insns[i].name);
    printf("    } u;\n};\n\n#endif\n");
}

static int more_specific(const void *a, const void *b)
{
    const struct insn *x = *(const struct insn *const *)a, *y = *(const struct insn *const *)b;
    int d = __builtin_popcount(y->mask) - __builtin_popcount(x->mask);

    return d ? d : x < y ? -1 : x > y;
}

static bool constraint_uses(const struct insn *in, const char *name)
{
    size_t n = strlen(name);

    for (const char *s = in->constraint; (s = strstr(s, name)); s += n) {
        bool starts = s == in->constraint || !(isalnum((unsigned char)s[-1]) || s[-1] == '_');
        if (starts && !(isalnum((unsigned char)s[n]) || s[n] == '_'))
            return true;
    }
    return false;
}

static void emit_fields(const struct insn *in, int indent)
{
    for (int i = 0; i < in->n_fields; i++) {
        const struct field *f = &in->fields[i];
        printf("%*sinsn_out->u.%s.%s = insn_word >> %d & 0x%x;\n", indent, "", in->name, f->name, f->lsb,
               (uint32_t)((1ull << f->width) - 1));
    }
    for (int i = 0; i < in->n_fields; i++) {
        const char *name = in->fields[i].name;
        if (constraint_uses(in, name))
            printf("%*sconst uint32_t %s = insn_out->u.%s.%s;\n", indent, "", name, in->name, name);
    }
}

static void emit_leaf(const struct insn *in, uint32_t known, int indent)
{
    uint32_t rest = in->mask & ~known;

    if (in->nonzero)
        printf("%*sif ((insn_word & 0x%08xu) == 0x%08xu && (insn_word & 0x%08xu)) {\n", indent, "", rest,
               in->value & rest, in->nonzero);
    else if (rest)
        printf("%*sif ((insn_word & 0x%08xu) == 0x%08xu) {\n", indent, "", rest, in->value & rest);
    else
        printf("%*s{\n", indent, "");
    emit_fields(in, indent + 4);
    if (*in->constraint)
        printf("%*sreturn (%s) ? A64_%s : A64_UNDEFINED;\n", indent + 4, "", in->constraint, in->name);
    else
        printf("%*sreturn A64_%s;\n", indent + 4, "", in->name);
    printf("%*s}\n", indent, "");
}

static void emit_tree(struct insn **set, int n, uint32_t known, int indent)
{
    uint32_t common = ~known;
    bool *done;
    struct insn **sub;

    for (int i = 0; i < n; i++)
        common &= set[i]->mask;
    if (n <= 2 || !common) {
        qsort(set, (size_t)n, sizeof *set, more_specific);
        for (int i = 0; i < n; i++)
            emit_leaf(set[i], known, indent);
        return;
    }
    done = calloc((size_t)n, sizeof *done);
    sub = calloc((size_t)n, sizeof *sub);
    if (!done || !sub)
        abort();
    printf("%*sswitch (insn_word & 0x%08xu) {\n", indent, "", common);
    for (int i = 0; i < n; i++) {
        int m = 0;
        if (done[i])
            continue;
        for (int j = i; j < n; j++)
            if ((set[j]->value & common) == (set[i]->value & common)) {
                sub[m++] = set[j];
                done[j] = true;
            }
        printf("%*scase 0x%08xu:\n", indent, "", set[i]->value & common);
        emit_tree(sub, m, known | common, indent + 4);
        printf("%*sbreak;\n", indent + 4, "");
    }
    printf("%*s}\n", indent, "");
    free(done);
    free(sub);
}

static void print_decoder(void)
{
    static struct insn *all[MAX_INSNS];

    printf("static enum a64_op decode_word(uint32_t insn_word, struct a64_insn *insn_out)\n{\n");
    for (int i = 0; i < n_insns; i++)
        all[i] = &insns[i];
    emit_tree(all, n_insns, 0, 4);
    printf("    return A64_UNDEFINED;\n}\n\nconst struct a64_info a64_info[A64_NOPS] = {\n"
           "    [A64_UNDEFINED] = { .name = \"UNDEFINED\", .text = \"undefined\" },\n");
    for (int i = 0; i < n_insns; i++) {
        const struct insn *in = &insns[i];
        printf("    [A64_%s] = { \"%s\", \"%s\", 0x%08x, 0x%08x, A64_GROUP_%s, %s, %s, {", in->name, in->name,
               in->text, in->mask, in->value, in->group, feat_of(in), in->todo ? "true" : "false");
        for (int k = 0; k < in->n_fields; k++)
            printf(" { \"%s\", %d, %d },", in->fields[k].name, in->fields[k].lsb, in->fields[k].width);
        printf(" } },\n");
    }
    printf("};\n");
}

int main(int argc, char **argv)
{
    bool types = argc > 3 && !strcmp(argv[1], "types");

    if (argc < 4 || (!types && strcmp(argv[1], "decoder"))) {
        fprintf(stderr, "usage: isagen types|decoder features.def FILE.isa...\n");
        return 2;
    }
    read_features(argv[2]);
    for (int i = 3; i < argc; i++)
        read_table(argv[i]);
    check_overlaps();
    check_sizes();
    printf("/* Generated by isagen.  Do not edit. */\n");
    if (types)
        print_types();
    else
        print_decoder();
    return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
