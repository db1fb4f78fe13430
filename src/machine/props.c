/*
 * See props.h.  Threads: start of the program only.
 */
#include "machine/props.h"

#include <stdlib.h>
#include <string.h>

struct prop {
    char *key, *value;
    bool used;
};

struct props {
    GArray *list;    /* struct prop */
    GPtrArray *known; /* names asked for: suggestions come from them */
};

GQuark options_error_quark(void)
{
    return g_quark_from_static_string("armlet-options");
}

bool options_wrong(GError **err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    *err = g_error_new_valist(OPTIONS_ERROR, OPTIONS_ERROR_BAD, fmt, ap);
    va_end(ap);
    return false;
}

/* One piece up to an unescaped comma; *text moves behind it, to NULL at the end. */
static char *next_piece(const char **text)
{
    GString *s = g_string_new(NULL);
    const char *p = *text;

    for (; *p; p++) {
        if (*p == ',' && p[1] != ',')
            break;
        p += *p == ',';
        g_string_append_c(s, *p);
    }
    *text = *p ? p + 1 : NULL;
    return g_string_free(s, FALSE);
}

static char *normal_key(const char *key, size_t n)
{
    char *k = g_strndup(key, n);
    for (char *p = k; *p; p++)
        if (*p == '_')
            *p = '-';
    return k;
}

static void add_piece(struct props *p, const char *piece, const char *implied)
{
    struct prop prop = { 0 };
    const char *eq = strchr(piece, '=');

    if (eq) {
        prop.key = normal_key(piece, (size_t)(eq - piece));
        prop.value = g_strdup(eq + 1);
    } else if (implied) {
        prop.key = g_strdup(implied);
        prop.value = g_strdup(piece);
    } else {
        bool no = !strncmp(piece, "no", 2) && piece[2];
        prop.key = normal_key(piece + (no ? 2 : 0), strlen(piece));
        prop.value = g_strdup(no ? "off" : "on");
    }
    g_array_append_val(p->list, prop);
}

void props_merge(struct props *p, const char *text, const char *implied)
{
    while (text && *text) {
        char *piece = next_piece(&text);
        if (*piece)
            add_piece(p, piece, implied);
        g_free(piece);
        implied = NULL;
    }
}

void props_default(struct props *p, const char *key, const char *value)
{
    struct prop prop = { .key = normal_key(key, strlen(key)), .value = g_strdup(value) };
    g_array_prepend_val(p->list, prop);
}

struct props *props_new(const char *text, const char *implied)
{
    struct props *p = g_new0(struct props, 1);
    p->list = g_array_new(FALSE, FALSE, sizeof(struct prop));
    p->known = g_ptr_array_new_with_free_func(g_free);
    props_merge(p, text, implied);
    return p;
}

void props_free(struct props *p)
{
    if (!p)
        return;
    for (guint i = 0; i < p->list->len; i++) {
        g_free(g_array_index(p->list, struct prop, i).key);
        g_free(g_array_index(p->list, struct prop, i).value);
    }
    g_array_free(p->list, TRUE);
    g_ptr_array_free(p->known, TRUE);
    g_free(p);
}

const char *props_next(struct props *p, const char *key, unsigned *at)
{
    if (!*at)
        props_get(p, key); /* known, and all of its values are used */
    while (*at < p->list->len) {
        const struct prop *prop = &g_array_index(p->list, struct prop, (*at)++);
        if (!strcmp(prop->key, key))
            return prop->value;
    }
    return NULL;
}

const char *props_get(struct props *p, const char *key)
{
    const char *value = NULL;

    g_ptr_array_add(p->known, g_strdup(key));
    for (guint i = 0; i < p->list->len; i++) {
        struct prop *prop = &g_array_index(p->list, struct prop, i);
        if (!strcmp(prop->key, key)) {
            prop->used = true;
            value = prop->value;
        }
    }
    return value;
}

bool parse_bool(const char *text, bool *value)
{
    static const char *const words[] = { "off", "on", "no", "yes", "false", "true", "n", "y" };
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++)
        if (!strcmp(text, words[i])) {
            *value = i & 1;
            return true;
        }
    return false;
}

bool props_bool(struct props *p, const char *key, bool fallback, bool *value, GError **err)
{
    const char *text = props_get(p, key);

    *value = fallback;
    if (!text || parse_bool(text, value))
        return true;
    g_set_error(err, OPTIONS_ERROR, OPTIONS_ERROR_BAD, "%s=%s: give on or off", key, text);
    return false;
}

bool props_number(struct props *p, const char *key, uint64_t fallback, uint64_t *value, GError **err)
{
    const char *text = props_get(p, key);

    *value = fallback;
    if (!text)
        return true;
    char *end;
    *value = strtoull(text, &end, 0);
    if (*text >= '0' && *text <= '9' && !*end)
        return true;
    g_set_error(err, OPTIONS_ERROR, OPTIONS_ERROR_BAD, "%s=%s: give a number", key, text);
    return false;
}

void props_ignore(struct props *p, const char *const *keys)
{
    for (; *keys; keys++)
        props_get(p, *keys);
}

bool props_finish(struct props *p, const char *what, GError **err)
{
    g_ptr_array_add(p->known, NULL);
    for (guint i = 0; i < p->list->len; i++) {
        const struct prop *prop = &g_array_index(p->list, struct prop, i);
        if (prop->used)
            continue;
        const char *near = suggest(prop->key, (const char *const *)p->known->pdata);
        g_set_error(err, OPTIONS_ERROR, OPTIONS_ERROR_BAD, "%s: no property '%s'%s%s%s", what, prop->key,
                    near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
        return false;
    }
    return true;
}

bool parse_size(const char *text, uint64_t unit, uint64_t *bytes)
{
    char *end;

    if (*text < '0' || *text > '9' || strpbrk(text, "eE"))
        return false; /* exponents would be strtod's idea */
    double n = g_ascii_strtod(text, &end);
    switch (*end) {
    case 'b': case 'B': unit = 1; end++; break;
    case 'k': case 'K': unit = UINT64_C(1) << 10; end++; break;
    case 'm': case 'M': unit = UINT64_C(1) << 20; end++; break;
    case 'g': case 'G': unit = UINT64_C(1) << 30; end++; break;
    case 't': case 'T': unit = UINT64_C(1) << 40; end++; break;
    default: break;
    }
    if (*end || n < 0 || n * (double)unit >= 9.2e18)
        return false;
    *bytes = (uint64_t)(n * (double)unit);
    return true;
}

/* Edit distance with swaps of neighbours counted as one; both words are short. */
static unsigned distance(const char *a, const char *b)
{
    enum { MAX = 40 };
    unsigned d[MAX + 1][MAX + 1];
    size_t n = strlen(a), m = strlen(b);

    if (n > MAX || m > MAX)
        return MAX;
    for (size_t i = 0; i <= n; i++)
        for (size_t j = 0; j <= m; j++) {
            if (!i || !j) {
                d[i][j] = (unsigned)(i + j);
                continue;
            }
            unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = MIN(best, MIN(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = MIN(best, d[i - 2][j - 2] + 1);
            d[i][j] = best;
        }
    return d[n][m];
}

const char *suggest(const char *word, const char *const *names)
{
    const char *best = NULL;
    unsigned best_distance = 1 + (unsigned)strlen(word) / 3;

    for (; *names; names++) {
        unsigned d = distance(word, *names);
        if (d < best_distance || (d == best_distance && !best)) {
            best = *names;
            best_distance = d;
        }
    }
    return best;
}

void props_each(const struct props *p, void (*fn)(void *arg, const char *key, const char *value), void *arg)
{
    for (guint i = 0; i < p->list->len; i++) {
        const struct prop *x = &g_array_index(p->list, struct prop, i);
        fn(arg, x->key, x->value);
    }
}
