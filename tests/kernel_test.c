/*
 * kallsyms and BTF: tables made here in both orders that kernels have them in, then the same with bytes changed, cut off
 * and turned: whatever is found must be safe to use.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/btf.h"
#include "kernel/kallsyms.h"

enum { SYMBOLS = 3000, LONG_NAME = 300, ROUNDS = 4000 };
#define BASE UINT64_C(0xffff800080000000)

static uint64_t seed = 1;

static uint32_t draw(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % below;
}

/* --- kallsyms ---------------------------------------------------------------------------------------------------- */

static void put(GByteArray *a, const void *data, size_t len)
{
    g_byte_array_append(a, data, (guint)len);
}

static void align(GByteArray *a)
{
    while (a->len % 8)
        put(a, "", 1);
}

static char *name_of(unsigned i)
{
    if (i == SYMBOLS / 2) { /* its length takes two bytes */
        char *s = g_strnfill(LONG_NAME, 'n');
        s[0] = 'T';
        return s;
    }
    return i ? g_strdup_printf("%c%s_%u", "tTdD"[i % 4], i % 3 ? "vfs" : "init", i) : g_strdup("T_text");
}

static uint32_t offset_of(unsigned i)
{
    return i / 2 * 64; /* pairs of aliases */
}

static void put_names(GByteArray *a, GArray *markers)
{
    size_t start = a->len;

    for (unsigned i = 0; i < SYMBOLS; i++) {
        g_autofree char *name = name_of(i);
        size_t n = strlen(name);
        uint32_t at = (uint32_t)(a->len - start);
        uint8_t length[2] = { (uint8_t)(n > 127 ? 128 | (n & 127) : n), (uint8_t)(n >> 7) };
        if (i % 256 == 0)
            g_array_append_val(markers, at);
        put(a, length, n > 127 ? 2 : 1);
        put(a, name, n);
    }
    align(a);
    put(a, markers->data, markers->len * 4);
    align(a);
}

/* Characters that names use are tokens of their own; the others are longer. */
static void put_tokens(GByteArray *a)
{
    uint16_t index[256];
    size_t start = a->len;

    for (unsigned i = 0; i < 256; i++) {
        g_autofree char *token = g_ascii_isalnum((char)i) || i == '_' ? g_strdup_printf("%c", (char)i)
                                                                     : g_strdup_printf("tok%u", i);
        index[i] = (uint16_t)(a->len - start);
        put(a, token, strlen(token) + 1);
    }
    align(a);
    put(a, index, sizeof index);
    align(a);
}

static void put_offsets(GByteArray *a)
{
    uint64_t base = BASE;

    for (unsigned i = 0; i < SYMBOLS; i++) {
        uint32_t off = offset_of(i);
        put(a, &off, 4);
    }
    align(a);
    put(a, &base, 8);
}

static GByteArray *make_image(bool newer)
{
    GByteArray *a = g_byte_array_new();
    GArray *markers = g_array_new(FALSE, FALSE, 4);
    uint64_t n = SYMBOLS;

    for (unsigned i = 0; i < 1000; i++) {
        uint64_t noise = draw(UINT32_MAX);
        put(a, &noise, 8);
    }
    if (!newer)
        put_offsets(a);
    put(a, &n, 8);
    put_names(a, markers);
    put_tokens(a);
    if (newer)
        put_offsets(a);
    for (unsigned i = 0; i < 1000; i++)
        put(a, "\x40\x01\0\0\0\0\0\0", 8);
    g_array_free(markers, TRUE);
    return a;
}

static void check_image(void **state)
{
    GByteArray *a = make_image(*state);
    struct kallsyms *s = kallsyms_find(a->data, a->len);
    uint64_t base;

    assert_non_null(s);
    assert_int_equal(s->n, SYMBOLS);
    memcpy(&base, a->data + s->base_at, 8);
    assert_true(base == BASE);
    for (unsigned i = 0; i < SYMBOLS; i++) {
        g_autofree char *name = name_of(i);
        assert_string_equal(kallsyms_name(s, i), name + 1);
        assert_int_equal(kallsyms_type(s, i), name[0]);
        assert_int_equal(kallsyms_named(s, name + 1), (int)i);
        assert_int_equal(kallsyms_at(s, offset_of(i) + 5), (int)(i & ~1u)); /* of aliases the first */
        assert_int_equal(kallsyms_next(s, i, 1 << 20), i < SYMBOLS - 2 ? offset_of(i) + 64 : 1 << 20);
    }
    assert_int_equal(kallsyms_named(s, "nfs_1"), -1);
    assert_int_equal(kallsyms_named(s, "text"), -1); /* the end of a name is no name */
    assert_int_equal(kallsyms_named(s, ""), -1);
    kallsyms_free(s);
    g_byte_array_free(a, TRUE);
}

static void use(struct kallsyms *s)
{
    size_t sum = 0;

    for (unsigned i = 0; s && i < s->n; i++)
        sum += strlen(kallsyms_name(s, i)) + (size_t)kallsyms_type(s, i) + kallsyms_next(s, i, 0);
    if (s)
        assert_true(sum > 0 && kallsyms_at(s, draw(UINT32_MAX)) < (int)s->n && kallsyms_named(s, "vfs_1") < (int)s->n);
    kallsyms_free(s);
}

/* Where the tables are; noise around them is not worth changing. */
static void check_corrupt(void **state)
{
    GByteArray *a = make_image(*state);

    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t len = draw(8) ? a->len : draw(a->len) + 1;
        g_autofree uint8_t *copy = g_memdup2(a->data, len);
        for (unsigned n = draw(6); n; n--)
            copy[draw((uint32_t)len)] = draw(3) ? (uint8_t)draw(256) : (uint8_t)(draw(2) * 255);
        use(kallsyms_find(copy, len));
    }
    g_byte_array_free(a, TRUE);
}

static void check_nothing(void **state)
{
    uint8_t zeroes[4096] = { 0 };

    (void)state;
    assert_null(kallsyms_find(zeroes, sizeof zeroes));
    assert_null(kallsyms_find(zeroes, 0));
    memcpy(zeroes, "0\0001\0002\0003\0004\0005\0006\0007\0008\0009", 20);
    assert_null(kallsyms_find(zeroes, 20));
    assert_null(kallsyms_find(zeroes, sizeof zeroes));
}

/* --- BTF ------------------------------------------------------------------------------------------------------------ */

enum { INT = 1 << 24, PTR = 2 << 24, ARRAY = 3 << 24, STRUCT = 4 << 24, UNION = 5 << 24, TYPEDEF = 8 << 24 };
#define BITFIELDS 0x80000000u

static uint32_t string(GByteArray *strings, const char *s)
{
    guint at = strings->len;

    put(strings, s, strlen(s) + 1);
    return at;
}

/* struct outer { int a; union { inner_t in; long *p; }; int low : 3, high : 5; int many[4]; } */
static GByteArray *make_btf(void)
{
    GByteArray *s = g_byte_array_new(), *out = g_byte_array_new();

    string(s, "");
    const uint32_t types[] = {
        string(s, "int"), INT, 4, 32,                                             /* 1 */
        string(s, "inner"), STRUCT | 2, 8, string(s, "x"), 1, 0, string(s, "y"), 1, 32, /* 2 */
        string(s, "inner_t"), TYPEDEF, 2,                                         /* 3 */
        0, PTR, 1,                                                                /* 4 */
        0, UNION | 2, 8, string(s, "in"), 3, 0, string(s, "p"), 4, 0,             /* 5 */
        0, ARRAY, 0, 1, 1, 4,                                                     /* 6 */
        string(s, "outer"), STRUCT | BITFIELDS | 5, 40, string(s, "a"), 1, 0, 0, 5, 64, string(s, "low"), 1, 3u << 24 | 128,
        string(s, "high"), 1, 5u << 24 | 131, string(s, "many"), 6, 192 };        /* 7 */
    const uint32_t header[] = { 0x1eb9f, 24, 0, sizeof types, sizeof types, s->len };
    put(out, header, sizeof header);
    put(out, types, sizeof types);
    put(out, s->data, s->len);
    g_byte_array_free(s, TRUE);
    return out;
}

static void expect(const struct btf *b, const char *path, uint32_t off, uint32_t size, unsigned bit, unsigned bits)
{
    struct btf_field f = btf_find_field(b, "outer", path);

    assert_int_equal(f.off, off);
    assert_int_equal(f.size, size);
    assert_int_equal(f.bit, bit);
    assert_int_equal(f.bits, bits);
}

static void check_btf(void **state)
{
    GByteArray *a = make_btf();
    struct btf *b = btf_new(a->data, a->len);

    (void)state;
    assert_non_null(b);
    assert_int_equal(btf_sizeof(b, "outer"), 40);
    assert_int_equal(btf_sizeof(b, "inner"), 8);
    assert_int_equal(btf_sizeof(b, "nner"), 0);
    expect(b, "a", 0, 4, 0, 0);
    expect(b, "in", 8, 8, 0, 0);
    expect(b, "in.y", 12, 4, 0, 0);
    expect(b, "p", 8, 8, 0, 0);
    expect(b, "low", 16, 4, 0, 3);
    expect(b, "high", 16, 4, 3, 5);
    expect(b, "many", 24, 16, 0, 0);
    expect(b, "in.z", 0, 0, 0, 0);
    expect(b, "a.x", 0, 0, 0, 0);
    expect(b, "", 0, 0, 0, 0);
    btf_free(b);
    g_byte_array_free(a, TRUE);
}

static void check_corrupt_btf(void **state)
{
    static const char *const paths[] = { "a", "in.y", "p", "low", "many", "x" };
    GByteArray *a = make_btf();

    (void)state;
    for (unsigned i = 0; i < 50 * ROUNDS; i++) {
        size_t len = draw(4) ? a->len : draw(a->len) + 1;
        g_autofree uint8_t *copy = g_memdup2(a->data, len);
        for (unsigned n = 1 + draw(3); n; n--)
            copy[draw((uint32_t)len)] = (uint8_t)draw(256);
        struct btf *b = btf_new(copy, len);
        for (unsigned p = 0; b && p < G_N_ELEMENTS(paths); p++) {
            btf_find_field(b, "outer", paths[p]);
            btf_sizeof(b, paths[p]);
        }
        btf_free(b);
    }
    g_byte_array_free(a, TRUE);
}

int main(void)
{
    bool newer = true;
    const struct CMUnitTest tests[] = {
        { "kallsyms of 6.1", check_image, NULL, NULL, NULL },
        { "kallsyms of 6.12", check_image, NULL, NULL, &newer },
        { "corrupt kallsyms of 6.1", check_corrupt, NULL, NULL, NULL },
        { "corrupt kallsyms of 6.12", check_corrupt, NULL, NULL, &newer },
        cmocka_unit_test(check_nothing),
        cmocka_unit_test(check_btf),
        cmocka_unit_test(check_corrupt_btf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
