/*
 * Modules that are loaded: the list that lsmod shows, and their symbols, which each carries in its own kallsyms.
 */
#include <elf.h>
#include <string.h>

#include "kernel/debuginfo.h"
#include "kernel/guts.h"

enum { MODULES_MAX = 4096, USERS_MAX = 256, AREAS = 7, SYMBOLS_MAX = 200000, SECTIONS_MAX = 256, UNFORMED = 3,
       NAME_SIZE = 56, REF_BASE = 1, STRINGS_MAX = 16 << 20 };

struct area {
    uint64_t base, size;
};

struct module_layout { /* members of struct module */
    struct btf_field list, name, state, refcnt, users, kallsyms;
    struct btf_field base, size, init_base, init_size; /* up to 6.3 */
    struct btf_field mem, mem_base, mem_size;          /* since 6.4: an array */
    uint32_t mem_stride;
};

struct module {
    uint64_t va;
    char name[NAME_SIZE + 1];
    struct area area[AREAS]; /* size 0: none; the code first */
};

typedef bool module_fn(struct kernel *k, const struct module_layout *l, const struct module *m, void *opaque);

static void layout_find(struct kernel *k, struct module_layout *l)
{
    *l = (struct module_layout){
        .list = kernel_field(k, "module", "list"), .name = kernel_field(k, "module", "name"),
        .state = kernel_field(k, "module", "state"), .refcnt = kernel_field(k, "module", "refcnt"),
        .users = kernel_field(k, "module", "source_list"), .kallsyms = kernel_field(k, "module", "kallsyms"),
        .base = kernel_field(k, "module", "core_layout.base"), .size = kernel_field(k, "module", "core_layout.size"),
        .init_base = kernel_field(k, "module", "init_layout.base"),
        .init_size = kernel_field(k, "module", "init_layout.size"), .mem = kernel_field(k, "module", "mem"),
        .mem_base = kernel_field(k, "module_memory", "base"), .mem_size = kernel_field(k, "module_memory", "size"),
        .mem_stride = kernel_sizeof(k, "module_memory") };
}

static void read_areas(struct kernel *k, const struct module_layout *l, struct module *m)
{
    if (l->base.size) {
        m->area[0] = (struct area){ kernel_get(k, m->va, l->base), kernel_get(k, m->va, l->size) };
        m->area[1] = (struct area){ kernel_get(k, m->va, l->init_base), kernel_get(k, m->va, l->init_size) };
        return;
    }
    for (unsigned i = 0; i < AREAS && l->mem_stride && (i + 1) * l->mem_stride <= l->mem.size; i++) {
        uint64_t at = m->va + l->mem.off + i * l->mem_stride;
        m->area[i] = (struct area){ kernel_get(k, at, l->mem_base), kernel_get(k, at, l->mem_size) };
    }
}

/* Calls fn for each module until it returns false. */
static void each_module(struct kernel *k, module_fn *fn, void *opaque)
{
    struct module_layout l;
    uint64_t head = k->typed ? kernel_named_or(k, "modules", &k->modules, search_modules) : 0, at;

    if (!head || !kernel_read(k, head, &at, 8))
        return;
    layout_find(k, &l);
    for (unsigned n = 0; l.list.size && at != head && n < MODULES_MAX; n++) {
        struct module m = { .va = at - l.list.off };
        if (!kernel_read(k, m.va + l.name.off, m.name, NAME_SIZE))
            return;
        read_areas(k, &l, &m);
        if (kernel_get(k, m.va, l.state) != UNFORMED && !fn(k, &l, &m, opaque))
            return;
        if (!kernel_read(k, at, &at, 8))
            return;
    }
}

/* --- the list --------------------------------------------------------------------------------------------------- */

static void print_users(struct kernel *k, const struct module_layout *l, const struct module *m, GString *out)
{
    struct btf_field link = kernel_field(k, "module_use", "source_list"), source = kernel_field(k, "module_use", "source");
    uint64_t head = m->va + l->users.off, at;
    unsigned n = 0;

    if (!l->users.size || !link.size || !kernel_read(k, head, &at, 8))
        return;
    for (; at != head && n < USERS_MAX; n++) {
        g_autofree char *name = kernel_string(k, kernel_get(k, at - link.off, source) + l->name.off, NAME_SIZE);
        g_string_append_printf(out, "%s%s", n ? "," : " ", name ? name : "?");
        if (!kernel_read(k, at, &at, 8))
            return;
    }
}

static bool print_module(struct kernel *k, const struct module_layout *l, const struct module *m, void *opaque)
{
    GString *out = opaque;
    uint64_t size = 0;
    int64_t users = (int32_t)kernel_get(k, m->va, l->refcnt) - REF_BASE;
    g_autofree char *name = g_strescape(m->name, NULL);

    for (unsigned i = 0; i < AREAS; i++)
        size += m->area[i].size;
    g_string_append_printf(out, "%-24s %8" G_GUINT64_FORMAT "  %" G_GINT64_FORMAT, name, (guint64)size, (gint64)users);
    print_users(k, l, m, out);
    g_string_append_c(out, '\n');
    return true;
}

void kernel_print_modules(struct kernel *k, GString *out)
{
    if (!kernel_ready(k, out))
        return;
    g_string_append_printf(out, "%-24s %8s  Used by\n", "Module", "Size");
    each_module(k, print_module, out);
}

/* --- sections, for gdb ------------------------------------------------------------------------------------------ */

/* Calls fn for each section that is in memory. */
static void each_section(struct kernel *k, const struct module *m, void (*fn)(void *opaque, const char *name, uint64_t va),
                         void *opaque)
{
    uint64_t attrs = kernel_get(k, m->va, kernel_field(k, "module", "sect_attrs"));
    uint64_t n = kernel_get(k, attrs, kernel_field(k, "module_sect_attrs", "nsections"));
    struct btf_field first = kernel_field(k, "module_sect_attrs", "attrs"),
                     name = kernel_field(k, "module_sect_attr", "battr.attr.name"),
                     address = kernel_field(k, "module_sect_attr", "address");
    uint32_t stride = kernel_sizeof(k, "module_sect_attr");

    for (uint64_t i = 0; attrs && i < MIN(n, SECTIONS_MAX); i++) {
        uint64_t at = attrs + first.off + i * stride;
        g_autofree char *s = kernel_string(k, kernel_get(k, at, name), 64);
        if (s && *s == '.')
            fn(opaque, s, kernel_get(k, at, address));
    }
}

struct section_lines {
    uint64_t text_va;
    GString *rest;
};

static void print_section(void *opaque, const char *name, uint64_t va)
{
    struct section_lines *s = opaque;

    if (!strcmp(name, ".text"))
        s->text_va = va;
    else if (!g_str_has_prefix(name, ".init") && !g_str_has_prefix(name, ".note"))
        g_string_append_printf(s->rest, " -s %s 0x%" G_GINT64_MODIFIER "x", name, (guint64)va);
}

static bool print_sections(struct kernel *k, const struct module_layout *l, const struct module *m, void *opaque)
{
    struct section_lines s = { m->area[0].base, g_string_new(NULL) };
    const char *path = modfiles_path(k->modfiles, m->name);
    g_autofree char *plain = g_strconcat(m->name, ".ko", NULL);

    (void)l;
    each_section(k, m, print_section, &s);
    g_string_append_printf(opaque, "add-symbol-file %s 0x%" G_GINT64_MODIFIER "x%s\n", path ? path : plain, (guint64)s.text_va,
                           s.rest->str);
    g_string_free(s.rest, TRUE);
    return true;
}

void kernel_print_module_sections(struct kernel *k, GString *out)
{
    gsize before = out->len;

    if (kernel_ready(k, out))
        each_module(k, print_sections, out);
    if (out->len == before)
        g_string_append(out, "no modules are loaded\n");
}

/* --- symbols ----------------------------------------------------------------------------------------------------- */

struct table { /* of a module, copied */
    Elf64_Sym *syms;
    uint64_t n;
    char *strings;
    size_t strings_len;
};

/* false: there is none or it is not readable. */
static bool table_read(struct kernel *k, const struct module_layout *l, const struct module *m, struct table *t)
{
    uint64_t where = kernel_get(k, m->va, l->kallsyms), strings = 0, high = 0;
    uint64_t syms = kernel_get(k, where, kernel_field(k, "mod_kallsyms", "symtab"));

    *t = (struct table){ .n = kernel_get(k, where, kernel_field(k, "mod_kallsyms", "num_symtab")) };
    strings = kernel_get(k, where, kernel_field(k, "mod_kallsyms", "strtab"));
    if (!where || !t->n || t->n > SYMBOLS_MAX)
        return false;
    t->syms = g_new(Elf64_Sym, t->n);
    bool ok = kernel_read(k, syms, t->syms, t->n * sizeof *t->syms);
    for (uint64_t i = 0; ok && i < t->n; i++)
        high = MAX(high, t->syms[i].st_name);
    t->strings_len = high + 256;
    t->strings = ok && high < STRINGS_MAX ? g_malloc0(t->strings_len + 1) : NULL;
    while (t->strings && t->strings_len > high && !kernel_read(k, strings, t->strings, t->strings_len))
        t->strings_len -= MIN(t->strings_len, 32); /* the last name may stand before a hole */
    if (t->strings && t->strings_len > high)
        return true;
    g_free(t->syms);
    g_free(t->strings);
    return false;
}

static const char *table_name(const struct table *t, uint64_t i)
{
    const char *name = t->strings + t->syms[i].st_name;
    bool real = *name && *name != '$' && t->syms[i].st_shndx != SHN_UNDEF && strncmp(name, ".L", 2);

    return real ? name : NULL;
}

static void keep(struct kernel *k, const struct module *m, const char *name, struct kernel_symbol *sym)
{
    char *a = g_strdup(name), *b = g_strescape(m->name, NULL);

    if (k->kept->len > 4096)
        g_ptr_array_set_size(k->kept, 0);
    g_ptr_array_add(k->kept, a);
    g_ptr_array_add(k->kept, b);
    sym->name = a;
    sym->module = b;
}

struct address_search {
    uint64_t va;
    struct kernel_symbol *sym;
    bool found;
};

static bool find_address(struct kernel *k, const struct module_layout *l, const struct module *m, void *opaque)
{
    struct address_search *s = opaque;
    uint64_t best = 0, next = 0, best_i = 0;
    struct table t;

    for (unsigned i = 0; i < AREAS; i++)
        if (s->va - m->area[i].base < m->area[i].size)
            next = m->area[i].base + m->area[i].size;
    if (!next || !table_read(k, l, m, &t))
        return !next;
    for (uint64_t i = 0; i < t.n; i++) {
        uint64_t at = t.syms[i].st_value;
        if (!table_name(&t, i))
            continue;
        if (at <= s->va && at > best) {
            best = at;
            best_i = i;
        } else if (at > s->va && at < next) {
            next = at;
        }
    }
    s->found = best;
    *s->sym = (struct kernel_symbol){ .va = best, .size = next - best, .type = 't' };
    if (best)
        keep(k, m, table_name(&t, best_i), s->sym);
    g_free(t.syms);
    g_free(t.strings);
    return false;
}

bool modules_find_address(struct kernel *k, uint64_t va, struct kernel_symbol *sym)
{
    struct address_search s = { va, sym, false };

    if (k->typed || !k->types_tried) {
        GString *why = g_string_new(NULL);
        if (kernel_ready(k, why))
            each_module(k, find_address, &s);
        g_string_free(why, TRUE);
    }
    return s.found;
}

struct name_search {
    const char *name;
    struct kernel_symbol *sym;
    bool found;
};

static bool find_name(struct kernel *k, const struct module_layout *l, const struct module *m, void *opaque)
{
    struct name_search *s = opaque;
    struct table t;

    if (!table_read(k, l, m, &t))
        return true;
    for (uint64_t i = 0; i < t.n && !s->found; i++) {
        const char *name = table_name(&t, i);
        s->found = name && !strcmp(name, s->name);
        if (s->found) {
            *s->sym = (struct kernel_symbol){ .va = t.syms[i].st_value, .size = t.syms[i].st_size, .type = 't' };
            keep(k, m, name, s->sym);
        }
    }
    g_free(t.syms);
    g_free(t.strings);
    return !s->found;
}

bool modules_find_symbol(struct kernel *k, const char *name, struct kernel_symbol *sym)
{
    struct name_search s = { name, sym, false };

    each_module(k, find_name, &s);
    return s.found;
}

/* --- source lines ------------------------------------------------------------------------------------------------- */

struct line_search {
    uint64_t va, section_va;
    char section[65]; /* the last one that begins at or below va */
    char *line;
};

static void note_section(void *opaque, const char *name, uint64_t va)
{
    struct line_search *s = opaque;

    if (va > s->va || va < s->section_va)
        return;
    s->section_va = va;
    g_strlcpy(s->section, name, sizeof s->section);
}

static bool find_line(struct kernel *k, const struct module_layout *l, const struct module *m, void *opaque)
{
    struct line_search *s = opaque;
    struct debuginfo *d;
    bool within = false;

    (void)l;
    for (unsigned i = 0; i < AREAS; i++)
        within |= s->va - m->area[i].base < m->area[i].size;
    if (!within)
        return true;
    each_section(k, m, note_section, s);
    if (*s->section && (d = modfiles_debuginfo(k->modfiles, m->name)))
        s->line = debuginfo_section_line(d, s->section, s->va - s->section_va);
    return false;
}

char *modules_line(struct kernel *k, uint64_t va)
{
    struct line_search s = { .va = va };

    each_module(k, find_line, &s);
    return s.line;
}
