/*
 * See kallsyms.h.
 *
 * Names are compressed: 256 tokens, each a string; a name is a length (one byte, or two with 7 bits each when the first
 * has its top bit set) and as many token numbers.  Digits are always tokens of their own, which is the mark to look
 * for.  A marker gives the offset of every 256th name.  Each table that is found is checked against the others.
 */
#include "kernel/kallsyms.h"

#include <string.h>

#include "base/compiler.h"

enum { TOKENS = 256, TOKEN_TABLE_MAX = 16384, PER_MARKER = 256, SYMBOLS_MAX = 4000000, TOKENS_MAX = 1024,
       MARKERS_SEARCH = 16 << 20, MARKERS_MIN = 4 };

struct image {
    const uint8_t *p;
    size_t size;
};

struct tables { /* offsets into the image */
    size_t tokens, index, markers, names, offsets, base;
    unsigned n, n_markers;
};

static uint16_t get16(const struct image *im, size_t at)
{
    uint16_t v = 0;
    if (at + sizeof v <= im->size)
        memcpy(&v, im->p + at, sizeof v);
    return v;
}

static uint32_t get32(const struct image *im, size_t at)
{
    uint32_t v = 0;
    if (at + sizeof v <= im->size)
        memcpy(&v, im->p + at, sizeof v);
    return v;
}

static size_t align8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

/* --- tokens ------------------------------------------------------------------------------------------------ */

/* Is `at' an index of the tokens whose digits stand at `digits'? */
static bool is_index(const struct image *im, size_t at, size_t digits, size_t *tokens)
{
    size_t zero = get16(im, at + 2 * '0');

    if (at + 2 * TOKENS > im->size || get16(im, at) || zero > digits)
        return false;
    *tokens = digits - zero;
    for (unsigned i = 1; i < TOKENS; i++) {
        size_t here = get16(im, at + 2 * i);
        if (here <= get16(im, at + 2 * (i - 1)) || *tokens + here >= at || im->p[*tokens + here - 1])
            return false;
    }
    for (unsigned i = 0; i < 10; i++)
        if (get16(im, at + 2 * ('0' + i)) != zero + 2 * i)
            return false;
    return true;
}

static bool find_tokens(const struct image *im, size_t from, struct tables *t)
{
    static const char mark[] = "0\0001\0002\0003\0004\0005\0006\0007\0008\0009"; /* with its NUL */
    const uint8_t *end = im->p + im->size, *p = im->p + from;

    while (p < end && (p = memmem(p, (size_t)(end - p), mark, sizeof mark))) {
        size_t digits = (size_t)(p - im->p);
        for (size_t at = align8(digits); at < digits + TOKEN_TABLE_MAX && at < im->size; at += 2)
            if (is_index(im, at, digits, &t->tokens)) {
                t->index = at;
                return true;
            }
        p += sizeof mark;
    }
    return false;
}

/* --- names --------------------------------------------------------------------------------------------------- */

/* The length of the name at *at, which moves on behind it; 0: none. */
static unsigned name_length(const struct image *im, size_t *at)
{
    if (*at + 2 >= im->size)
        return 0;
    unsigned len = im->p[(*at)++];
    if (len & 0x80)
        len = (len & 0x7f) | (unsigned)im->p[(*at)++] << 7;
    return len <= TOKENS_MAX && *at + len <= im->size ? len : 0;
}

/* Moves over `count' names; false: they are none. */
static bool skip_names(const struct image *im, size_t *at, unsigned count)
{
    while (count--) {
        unsigned len = name_length(im, at);
        if (!len)
            return false;
        *at += len;
    }
    return true;
}

static unsigned count_markers(const struct image *im, size_t at, size_t end)
{
    unsigned n = 1;

    if (get32(im, at))
        return 0;
    while (at + 4 * n + 4 <= end) {
        uint32_t here = get32(im, at + 4 * n), before = get32(im, at + 4 * (n - 1));
        if (here <= before || here - before < 2 * PER_MARKER || here - before > 130 * PER_MARKER)
            break;
        n++;
    }
    return n;
}

/* Do the names end where the markers begin, and do the markers tell where they are? */
static bool are_names(const struct image *im, size_t at, struct tables *t)
{
    unsigned n = get32(im, at - 8);
    size_t p = at;

    if (get32(im, at - 4) || n > SYMBOLS_MAX || (n + PER_MARKER - 1) / PER_MARKER != t->n_markers)
        return false;
    for (unsigned m = 0; m < t->n_markers; m++) {
        if (p != at + get32(im, t->markers + 4 * m) || !skip_names(im, &p, MIN(PER_MARKER, n - m * PER_MARKER)))
            return false;
    }
    t->n = n;
    t->names = at;
    return p <= t->markers && t->markers - p < 8;
}

static bool find_names(const struct image *im, struct tables *t)
{
    uint32_t last = get32(im, t->markers + 4 * (t->n_markers - 1));

    for (size_t tail = 0; tail < 130 * PER_MARKER && last + tail + 16 < t->markers; tail += 8) {
        size_t at = (t->markers - last - tail) & ~(size_t)7;
        if (are_names(im, at, t))
            return true;
    }
    return false;
}

/* Markers stand before the tokens; between them may be the table of 6.2 and 6.3 that sorts the names. */
static bool find_markers(const struct image *im, struct tables *t)
{
    size_t stop = t->tokens > MARKERS_SEARCH ? t->tokens - MARKERS_SEARCH : 0;

    for (size_t at = (t->tokens & ~(size_t)7) - 8; at > stop && at < im->size; at -= 8) {
        if (get32(im, at) || get32(im, at + 4) < 2 * PER_MARKER)
            continue;
        unsigned n = count_markers(im, at, t->tokens);
        t->markers = at;
        for (; n >= MARKERS_MIN; n--) { /* what follows may look like one more */
            t->n_markers = n;
            if (find_names(im, t))
                return true;
            if (at + 4 * n < t->tokens - 8 && n < count_markers(im, at, t->tokens) - 1)
                break;
        }
    }
    return false;
}

/* --- addresses ------------------------------------------------------------------------------------------------ */

static bool are_offsets(const struct image *im, size_t at, unsigned n)
{
    uint32_t before = 0;

    if (at + 4 * (size_t)n > im->size)
        return false;
    for (unsigned i = 0; i < n; i++) {
        uint32_t here = get32(im, at + 4 * (size_t)i);
        if (here < before)
            return false;
        before = here;
    }
    return before > n; /* a table of zeroes ascends too */
}

static bool find_offsets(const struct image *im, struct tables *t)
{
    size_t size = align8(4 * (size_t)t->n);

    t->offsets = align8(t->index + 2 * TOKENS);
    t->base = t->offsets + size;
    if (t->base + 8 <= im->size && are_offsets(im, t->offsets, t->n))
        return true;
    if (t->names < 16 + size)
        return false;
    t->base = t->names - 16;
    t->offsets = t->base - size;
    return are_offsets(im, t->offsets, t->n);
}

/* --- unpacked -------------------------------------------------------------------------------------------------- */

static const char *token(const struct image *im, const struct tables *t, uint8_t c, size_t *len)
{
    const char *p = (const char *)im->p + t->tokens + get16(im, t->index + 2u * c);

    *len = strnlen(p, (size_t)((const char *)im->p + t->index - p));
    return p;
}

/* The bytes of all names. */
static size_t text_size(const struct image *im, const struct tables *t, const size_t *lengths)
{
    size_t at = t->names, size = 0;

    for (unsigned i = 0; i < t->n; i++) {
        unsigned len = name_length(im, &at);
        for (unsigned j = 0; j < len; j++)
            size += lengths[im->p[at + j]];
        size += 3; /* NUL, and what a name is made up to */
        at += len;
    }
    return size;
}

/* One behind the other, each with its NUL; a letter and a name there must be. */
static void unpack_names(const struct image *im, const struct tables *t, struct kallsyms *s)
{
    const char *tokens[TOKENS];
    size_t lengths[TOKENS], at = t->names;
    uint64_t starts[TOKENS]; /* nearly all tokens are as short as this */

    for (unsigned i = 0; i < TOKENS; i++) {
        tokens[i] = token(im, t, (uint8_t)i, &lengths[i]);
        starts[i] = 0;
        memcpy(&starts[i], tokens[i], MIN(lengths[i], sizeof starts[i]));
    }
    char *p = s->text = g_malloc(text_size(im, t, lengths) + sizeof starts[0]);
    for (unsigned i = 0; i < t->n; i++) {
        unsigned len = name_length(im, &at);
        s->name_at[i] = (uint32_t)(p - s->text);
        for (unsigned j = 0; j < len; j++) {
            uint8_t c = im->p[at + j];
            memcpy(p, &starts[c], sizeof starts[c]);
            if (unlikely(lengths[c] > sizeof starts[c]))
                memcpy(p, tokens[c], lengths[c]);
            p += lengths[c];
        }
        while (p - s->text < s->name_at[i] + 2)
            *p++ = '?';
        *p++ = '\0';
        at += len;
    }
    s->text_len = (size_t)(p - s->text);
}

struct kallsyms *kallsyms_find(const uint8_t *data, size_t size)
{
    const struct image im = { data, size };
    struct tables t = { 0 };

    for (size_t from = 0; find_tokens(&im, from, &t); from = t.index) {
        if (!find_markers(&im, &t) || !find_offsets(&im, &t))
            continue;
        struct kallsyms *s = g_new0(struct kallsyms, 1);
        s->n = t.n;
        s->base_at = t.base;
        s->offset = g_memdup2(data + t.offsets, 4 * (gsize)t.n);
        s->name_at = g_new(uint32_t, t.n);
        s->asked = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        unpack_names(&im, &t, s);
        return s;
    }
    return NULL;
}

void kallsyms_free(struct kallsyms *s)
{
    if (!s)
        return;
    g_hash_table_destroy(s->asked);
    g_free(s->offset);
    g_free(s->name_at);
    g_free(s->text);
    g_free(s);
}

const char *kallsyms_name(const struct kallsyms *s, unsigned i)
{
    return s->text + s->name_at[i] + 1;
}

char kallsyms_type(const struct kallsyms *s, unsigned i)
{
    return s->text[s->name_at[i]];
}

int kallsyms_at(const struct kallsyms *s, uint64_t off)
{
    unsigned low = 0, high = s->n;

    while (low < high) { /* the first above off */
        unsigned mid = low + (high - low) / 2;
        if (s->offset[mid] <= off)
            low = mid + 1;
        else
            high = mid;
    }
    if (!low--)
        return -1;
    while (low && s->offset[low - 1] == s->offset[low])
        low--;
    return (int)low;
}

/* The symbol whose text begins at `at', -1: none does. */
static int text_at(const struct kallsyms *s, uint32_t at)
{
    unsigned low = 0, high = s->n;

    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        if (s->name_at[mid] < at)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->n && s->name_at[low] == at ? (int)low : -1;
}

/* Few names are asked for, so that looking through the text beats an index of all of them by far. */
static int search_name(const struct kallsyms *s, const char *name)
{
    size_t len = strlen(name) + 1;

    for (const char *p = s->text + 1, *end = s->text + s->text_len;
         p < end && (p = memmem(p, (size_t)(end - p), name, len)); p += len) {
        int i = text_at(s, (uint32_t)(p - s->text) - 1);
        if (i >= 0)
            return i;
    }
    return -1;
}

int kallsyms_named(const struct kallsyms *s, const char *name)
{
    gpointer value;

    if (!*name)
        return -1;
    if (!g_hash_table_lookup_extended(s->asked, name, NULL, &value)) {
        value = GINT_TO_POINTER(search_name(s, name) + 1);
        g_hash_table_insert(s->asked, g_strdup(name), value);
    }
    return GPOINTER_TO_INT(value) - 1;
}

uint64_t kallsyms_next(const struct kallsyms *s, unsigned i, uint64_t end)
{
    uint32_t here = s->offset[i];

    while (++i < s->n)
        if (s->offset[i] > here)
            return s->offset[i];
    return MAX(end, here);
}
