/*
 * See symfile.h.
 */
#include "kernel/symfile.h"

#include <elf.h>
#include <string.h>

#include "kernel/debuginfo.h"

struct entry {
    uint64_t va;
    const char *name;
    char type;
};

struct symfile {
    GMappedFile *file;
    GArray *entries;     /* by address */
    GHashTable *by_name; /* name to index + 1 */
    GStringChunk *names; /* of a System.map */
    struct debuginfo *debug;
};

static bool fail(const char *path, const char *what, GError **err)
{
    g_set_error(err, G_FILE_ERROR, G_FILE_ERROR_INVAL, "-kernel-symbols %s: %s", path, what);
    return false;
}

static void add(struct symfile *f, uint64_t va, char type, const char *name)
{
    const struct entry e = { va, name, type };
    g_array_append_val(f->entries, e);
}

/* --- ELF ------------------------------------------------------------------------------------------------------- */

static bool wanted(const Elf64_Sym *s, const char *name)
{
    unsigned type = ELF64_ST_TYPE(s->st_info);

    return s->st_shndx != SHN_UNDEF && s->st_shndx != SHN_ABS && type != STT_FILE && type != STT_SECTION && *name &&
           *name != '$';
}

static bool read_table(struct symfile *f, const char *data, size_t size, const Elf64_Shdr *sh, const Elf64_Shdr *str)
{
    if (sh->sh_offset > size || sh->sh_size > size - sh->sh_offset || str->sh_offset > size || !str->sh_size ||
        str->sh_size > size - str->sh_offset || data[str->sh_offset + str->sh_size - 1])
        return false;
    for (uint64_t i = 0; i < sh->sh_size / sizeof(Elf64_Sym); i++) {
        Elf64_Sym s;
        memcpy(&s, data + sh->sh_offset + i * sizeof s, sizeof s);
        const char *name = s.st_name < str->sh_size ? data + str->sh_offset + s.st_name : "";
        if (wanted(&s, name))
            add(f, s.st_value, ELF64_ST_TYPE(s.st_info) == STT_FUNC ? 'T' : 'D', name);
    }
    return true;
}

static bool read_elf(struct symfile *f, const char *path, const char *data, size_t size, GError **err)
{
    Elf64_Ehdr e;
    Elf64_Shdr sh, str;

    memcpy(&e, data, MIN(sizeof e, size));
    if (size < sizeof e || e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_machine != EM_AARCH64)
        return fail(path, "not an arm64 ELF file", err);
    if (e.e_shentsize != sizeof sh || e.e_shoff > size || e.e_shnum * sizeof sh > size - e.e_shoff)
        return fail(path, "truncated: its section headers are missing", err);
    for (unsigned i = 0; i < e.e_shnum; i++) {
        memcpy(&sh, data + e.e_shoff + i * sizeof sh, sizeof sh);
        if (sh.sh_type != SHT_SYMTAB || sh.sh_link >= e.e_shnum)
            continue;
        memcpy(&str, data + e.e_shoff + sh.sh_link * sizeof sh, sizeof str);
        if (!read_table(f, data, size, &sh, &str))
            return fail(path, "truncated: its symbol table is cut off", err);
        return true;
    }
    return fail(path, "it has no symbol table (stripped?)", err);
}

/* --- System.map -------------------------------------------------------------------------------------------------- */

static bool read_map(struct symfile *f, const char *path, const char *data, size_t size, GError **err)
{
    for (const char *p = data, *end = data + size; p < end;) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((line_end ? line_end : end) - p);
        char *after = NULL;
        g_autofree char *line = g_strndup(p, len);
        uint64_t va = g_ascii_strtoull(line, &after, 16);
        if (len && (after == line || after[0] != ' ' || !after[1] || after[2] != ' ' || !after[3]))
            return fail(path, "neither an ELF file nor a System.map", err);
        if (len)
            add(f, va, after[1], g_string_chunk_insert(f->names, after + 3));
        p += len + 1;
    }
    return true;
}

/* --- both ---------------------------------------------------------------------------------------------------------- */

static int by_address(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->va < y->va ? -1 : x->va > y->va;
}

static void index_names(struct symfile *f)
{
    g_array_sort(f->entries, by_address);
    for (guint i = f->entries->len; i-- > 0;)
        g_hash_table_insert(f->by_name, (gpointer)(uintptr_t)g_array_index(f->entries, struct entry, i).name,
                            GUINT_TO_POINTER(i + 1));
}

struct symfile *symfile_open(const char *path, GError **err)
{
    struct symfile *f = g_new0(struct symfile, 1);
    bool ok = false;

    f->entries = g_array_new(FALSE, FALSE, sizeof(struct entry));
    f->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    f->names = g_string_chunk_new(65536);
    f->debug = debuginfo_new(path);
    f->file = g_mapped_file_new(path, FALSE, err);
    if (f->file) {
        const char *data = g_mapped_file_get_contents(f->file);
        size_t size = g_mapped_file_get_length(f->file);
        bool elf = size >= SELFMAG && !memcmp(data, ELFMAG, SELFMAG);
        ok = elf ? read_elf(f, path, data, size, err) : read_map(f, path, data ? data : "", size, err);
        if (ok && !f->entries->len)
            ok = fail(path, "no symbols are in it", err);
    } else {
        g_prefix_error(err, "-kernel-symbols: ");
    }
    if (ok) {
        index_names(f);
        return f;
    }
    symfile_free(f);
    return NULL;
}

struct debuginfo *symfile_debuginfo(struct symfile *f)
{
    return f->debug;
}

void symfile_free(struct symfile *f)
{
    debuginfo_free(f->debug);
    g_array_free(f->entries, TRUE);
    g_hash_table_destroy(f->by_name);
    g_string_chunk_free(f->names);
    if (f->file)
        g_mapped_file_unref(f->file);
    g_free(f);
}

uint64_t symfile_find(const struct symfile *f, const char *name)
{
    guint i = GPOINTER_TO_UINT(g_hash_table_lookup(f->by_name, name));
    return i ? g_array_index(f->entries, struct entry, i - 1).va : 0;
}

bool symfile_at(const struct symfile *f, uint64_t va, struct kernel_symbol *sym)
{
    guint low = 0, high = f->entries->len;

    while (low < high) {
        guint mid = low + (high - low) / 2;
        if (g_array_index(f->entries, struct entry, mid).va <= va)
            low = mid + 1;
        else
            high = mid;
    }
    if (!low || low == f->entries->len) /* outside of all */
        return false;
    const struct entry *e = &g_array_index(f->entries, struct entry, low - 1);
    *sym = (struct kernel_symbol){ .name = e->name, .va = e->va, .size = e[1].va - e->va, .type = e->type };
    return true;
}
