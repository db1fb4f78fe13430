/*
 * See btf.h.  Types are numbered from 1; where each stands is noted once, and structures and unions by name.
 */
#include "kernel/btf.h"

#include <glib.h>
#include <string.h>

enum btf_kind { KIND_INT = 1, KIND_PTR, KIND_ARRAY, KIND_STRUCT, KIND_UNION, KIND_ENUM, KIND_FWD, KIND_TYPEDEF,
                KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_FUNC, KIND_FUNC_PROTO, KIND_VAR, KIND_DATASEC,
                KIND_FLOAT, KIND_DECL_TAG, KIND_TYPE_TAG, KIND_ENUM64, KINDS };
enum { DEPTH = 16, TYPES_MAX = 4000000, MAGIC = 0xeb9f };

struct header {
    uint16_t magic;
    uint8_t version, flags;
    uint32_t len, type_off, type_len, str_off, str_len;
};

struct type {
    uint32_t name, info, size_or_type;
};

struct member {
    uint32_t name, type, offset;
};

struct array {
    uint32_t type, index, count;
};

struct btf {
    uint8_t *data;
    const uint8_t *types;
    const char *strings;
    uint32_t type_len, str_len, n;
    GArray *at;         /* uint32_t: where type i + 1 stands */
    GHashTable *asked;  /* names that were asked for (owned) to number, 0: there is none */
};

static unsigned kind_of(const struct type *t)
{
    return t->info >> 24 & 31;
}

/* Bytes behind struct type; the whole size of one is not beyond type_len (checked by the caller). */
static size_t extra(const struct type *t)
{
    size_t n = t->info & 0xffff;

    switch (kind_of(t)) {
    case KIND_INT: case KIND_VAR: case KIND_DECL_TAG: return 4;
    case KIND_ARRAY: return sizeof(struct array);
    case KIND_STRUCT: case KIND_UNION: case KIND_DATASEC: case KIND_ENUM64: return n * 12;
    case KIND_ENUM: case KIND_FUNC_PROTO: return n * 8;
    default: return 0;
    }
}

static const char *string(const struct btf *b, uint32_t off)
{
    return off < b->str_len ? b->strings + off : "";
}

static const struct type *type_at(const struct btf *b, uint32_t id)
{
    return id && id <= b->n ? (const struct type *)(const void *)(b->types + g_array_index(b->at, uint32_t, id - 1)) : NULL;
}

/* Notes where each type is; false: they are not well formed. */
static bool scan(struct btf *b)
{
    for (uint32_t off = 0; off < b->type_len;) {
        const struct type *t = (const struct type *)(const void *)(b->types + off);
        if (b->type_len - off < sizeof *t || b->n == TYPES_MAX || kind_of(t) >= KINDS || !kind_of(t) ||
            b->type_len - off - sizeof *t < extra(t))
            return false;
        g_array_append_val(b->at, off);
        b->n++;
        off += (uint32_t)(sizeof *t + extra(t));
    }
    return b->n > 0;
}

struct btf *btf_new(const uint8_t *data, size_t size)
{
    struct header h;

    if (size < sizeof h)
        return NULL;
    memcpy(&h, data, sizeof h);
    uint64_t types = (uint64_t)h.len + h.type_off, strings = (uint64_t)h.len + h.str_off;
    if (h.magic != MAGIC || h.version != 1 || types % 4 || types + h.type_len > size || strings + h.str_len > size ||
        !h.str_len || data[strings + h.str_len - 1])
        return NULL;
    struct btf *b = g_new0(struct btf, 1);
    b->data = g_memdup2(data, size);
    b->types = b->data + types;
    b->type_len = h.type_len;
    b->strings = (const char *)b->data + strings;
    b->str_len = h.str_len;
    b->at = g_array_sized_new(FALSE, FALSE, sizeof(uint32_t), h.type_len / 24);
    b->asked = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    if (scan(b))
        return b;
    btf_free(b);
    return NULL;
}

void btf_free(struct btf *b)
{
    if (!b)
        return;
    g_array_free(b->at, TRUE);
    g_hash_table_destroy(b->asked);
    g_free(b->data);
    g_free(b);
}

/* Behind typedefs and qualifiers. */
static const struct type *resolve(const struct btf *b, uint32_t id)
{
    const struct type *t = type_at(b, id);

    for (unsigned i = 0; t && i < DEPTH; i++) {
        switch (kind_of(t)) {
        case KIND_TYPEDEF: case KIND_VOLATILE: case KIND_CONST: case KIND_RESTRICT: case KIND_TYPE_TAG:
            t = type_at(b, t->size_or_type);
            break;
        default: return t;
        }
    }
    return NULL;
}

static uint32_t size_of(const struct btf *b, uint32_t id, unsigned depth)
{
    const struct type *t = resolve(b, id);

    if (!t || depth > DEPTH)
        return 0;
    switch (kind_of(t)) {
    case KIND_PTR: return 8;
    case KIND_ARRAY: {
        struct array a;
        memcpy(&a, t + 1, sizeof a);
        return size_of(b, a.type, depth + 1) * a.count;
    }
    case KIND_INT: case KIND_STRUCT: case KIND_UNION: case KIND_ENUM: case KIND_ENUM64: case KIND_FLOAT:
        return t->size_or_type;
    default: return 0;
    }
}

/* The member `name' of t: its type, and its place added to *bits. */
static const struct member *find_member(const struct btf *b, const struct type *t, const char *name, size_t len,
                                        uint64_t *bits, unsigned *width, unsigned depth)
{
    const struct member *m = (const struct member *)(const void *)(t + 1);

    if ((kind_of(t) != KIND_STRUCT && kind_of(t) != KIND_UNION) || depth > DEPTH)
        return NULL;
    for (unsigned i = 0; i < (t->info & 0xffff); i++, m++) {
        const char *here = string(b, m->name);
        bool packed = t->info >> 31;
        uint64_t at = packed ? m->offset & 0xffffff : m->offset;
        if (!strncmp(here, name, len) && !here[len]) {
            *bits += at;
            *width = packed ? m->offset >> 24 : 0;
            return m;
        }
        const struct type *inner = *here ? NULL : resolve(b, m->type);
        const struct member *found = inner ? find_member(b, inner, name, len, bits, width, depth + 1) : NULL;
        if (found) {
            *bits += at;
            return found;
        }
    }
    return NULL;
}

/* The structure or union of this name, whose string stands once among the strings. */
static uint32_t search_type(const struct btf *b, const char *name)
{
    size_t len = strlen(name) + 1;
    const char *end = b->strings + b->str_len, *p = b->strings + 1;

    while (p < end && (p = memmem(p, (size_t)(end - p), name, len)) && p[-1])
        p += len;
    if (!p || p >= end)
        return 0;
    for (uint32_t id = 1, off = (uint32_t)(p - b->strings); id <= b->n; id++) {
        const struct type *t = type_at(b, id);
        if (t->name == off && (kind_of(t) == KIND_STRUCT || kind_of(t) == KIND_UNION))
            return id;
    }
    return 0;
}

static uint32_t type_named(const struct btf *b, const char *name)
{
    gpointer value;

    if (!g_hash_table_lookup_extended(b->asked, name, NULL, &value)) {
        value = GUINT_TO_POINTER(*name ? search_type(b, name) : 0);
        g_hash_table_insert(b->asked, g_strdup(name), value);
    }
    return GPOINTER_TO_UINT(value);
}

struct btf_field btf_find_field(const struct btf *b, const char *type, const char *path)
{
    const struct type *t = type_at(b, type_named(b, type));
    const struct member *m = NULL;
    uint64_t bits = 0;
    unsigned width = 0;

    for (const char *end; t && *path; path = *end ? end + 1 : end) {
        end = path + strcspn(path, ".");
        m = find_member(b, t, path, (size_t)(end - path), &bits, &width, 0);
        if (!m)
            return (struct btf_field){ 0 };
        t = resolve(b, m->type);
    }
    if (!m)
        return (struct btf_field){ 0 };
    uint32_t size = size_of(b, m->type, 0);
    if (!width)
        return (struct btf_field){ .off = (uint32_t)(bits / 8), .size = size ? size : 1 };
    size = size ? MIN(size, 8) : 8;
    uint32_t off = (uint32_t)(bits / 8) / size * size;
    return (struct btf_field){ .off = off, .size = size, .bit = (uint8_t)(bits - off * UINT64_C(8)), .bits = (uint8_t)width };
}

uint32_t btf_sizeof(const struct btf *b, const char *type)
{
    return size_of(b, type_named(b, type), 0);
}
