/*
 * Kernel modules: found by walking the package's tree, ordered by the `depends' each names in its .modinfo.
 * Packages carry no modules.dep (depmod makes it at installation), so we read what depmod would.
 *
 * Left out: soft dependencies, aliases, zstd-compressed modules (Debian uses none or xz).  Threading: the
 * caller's.
 */
#include "lab/modules.h"

#include <elf.h>
#include <string.h>

#include "lab/cache.h"
#include "lab/lab.h"

/* "virtio-rng.ko.xz" -> "virtio_rng"; NULL for what is no module.  g_free() it. */
static char *module_name(const char *file)
{
    const char *ko = strstr(file, ".ko");
    char *name;

    if (!ko || (strcmp(ko, ".ko") && strcmp(ko, ".ko.xz")))
        return NULL;
    name = g_strndup(file, (gsize)(ko - file));
    return g_strdelimit(name, "-", '_');
}

/* Enter the modules below `folder': name -> path. */
static void index_folder(GHashTable *paths, const char *folder, unsigned depth)
{
    GDir *dir = depth < 16 ? g_dir_open(folder, 0, NULL) : NULL;
    const char *entry;

    while (dir && (entry = g_dir_read_name(dir))) {
        char *path = g_build_filename(folder, entry, NULL), *name = module_name(entry);

        if (name)
            g_hash_table_replace(paths, name, path);
        else if (g_file_test(path, G_FILE_TEST_IS_DIR) && !g_file_test(path, G_FILE_TEST_IS_SYMLINK))
            index_folder(paths, path, depth + 1);
        if (!name)
            g_free(path);
    }
    if (dir)
        g_dir_close(dir);
}

/* The names in modules.builtin. */
static GHashTable *read_builtin(const char *folder)
{
    GHashTable *names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    char *path = g_build_filename(folder, "modules.builtin", NULL), *text = NULL;

    if (g_file_get_contents(path, &text, NULL, NULL)) {
        char **lines = g_strsplit(text, "\n", -1);

        for (char **l = lines; *l; l++) {
            const char *slash = strrchr(*l, '/');
            char *name = slash ? module_name(slash + 1) : NULL;

            if (name)
                g_hash_table_add(names, name);
        }
        g_strfreev(lines);
    }
    g_free(text);
    g_free(path);
    return names;
}

static GBytes *read_module(const char *path, GError **err)
{
    const char *const argv[] = {"xz", "-dc", path, NULL};
    GByteArray *out;
    char *data;
    gsize size;

    if (!g_str_has_suffix(path, ".xz")) {
        GError *why = NULL;

        if (g_file_get_contents(path, &data, &size, &why))
            return g_bytes_new_take(data, size);
        g_set_error_literal(err, LAB_ERROR, LAB_ERROR_IO, why->message);
        g_error_free(why);
        return NULL;
    }
    out = g_byte_array_new();
    if (cache_run(&(struct cache_run){.argv = argv, .output = out}, err))
        return g_byte_array_free_to_bytes(out);
    g_byte_array_unref(out);
    return NULL;
}

/* The bytes of section `name'; NULL if there is none or the file is not sound. */
static const char *find_section(const char *p, gsize size, const char *name, gsize *len)
{
    const Elf64_Ehdr *eh = (const void *)p;
    const Elf64_Shdr *sh, *names;

    if (size < sizeof *eh || memcmp(eh->e_ident, ELFMAG, SELFMAG) || eh->e_ident[EI_CLASS] != ELFCLASS64 ||
        eh->e_ident[EI_DATA] != ELFDATA2LSB || eh->e_shentsize != sizeof *sh ||
        eh->e_shstrndx >= eh->e_shnum || eh->e_shoff % 8 || eh->e_shoff > size ||
        (size - eh->e_shoff) / sizeof *sh < eh->e_shnum)
        return NULL;
    sh = (const void *)(p + eh->e_shoff);
    names = &sh[eh->e_shstrndx];
    if (names->sh_offset > size || names->sh_size > size - names->sh_offset)
        return NULL;
    for (unsigned i = 0; i < eh->e_shnum; i++) {
        gsize room = strlen(name) + 1;

        if (sh[i].sh_name > names->sh_size || names->sh_size - sh[i].sh_name < room ||
            memcmp(p + names->sh_offset + sh[i].sh_name, name, room))
            continue;
        if (sh[i].sh_type == SHT_NOBITS || sh[i].sh_offset > size || sh[i].sh_size > size - sh[i].sh_offset)
            return NULL;
        *len = sh[i].sh_size;
        return p + sh[i].sh_offset;
    }
    return NULL;
}

const char *modules_info(GBytes *elf, const char *key)
{
    gsize size, len = 0, key_len = strlen(key);
    const char *p = g_bytes_get_data(elf, &size);
    const char *s = find_section(p, size, ".modinfo", &len), *end = s + len;

    /* key=value strings, each ending in NUL. */
    while (s && s < end) {
        const char *nul = memchr(s, 0, (gsize)(end - s));

        if (!nul)
            return NULL;
        if ((gsize)(nul - s) > key_len && !memcmp(s, key, key_len) && s[key_len] == '=')
            return s + key_len + 1;
        s = nul + 1;
    }
    return NULL;
}

struct resolver {
    GHashTable *paths, *builtin, *seen;
    GPtrArray *order;
};

/* Depth first: what a module depends on goes before it.  `seen' ends the recursion, cycles too. */
static bool visit(struct resolver *r, const char *wanted, GError **err)
{
    char *name = g_strdelimit(g_strdup(wanted), "-", '_'), **depends;
    const char *path = g_hash_table_lookup(r->paths, name), *list;
    struct module *m;
    GBytes *elf;
    bool ok = true;

    /*
     * Not g_hash_table_add() alone: on a second visit it would free the key that a caller above us still
     * uses.
     */
    if (g_hash_table_contains(r->seen, name) || g_hash_table_contains(r->builtin, name)) {
        g_free(name);
        return true;
    }
    g_hash_table_add(r->seen, name);
    if (!path) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND, "this kernel has no module %s", wanted);
        return false;
    }
    elf = read_module(path, err);
    if (!elf)
        return false;
    list = modules_info(elf, "depends");
    depends = g_strsplit(list ? list : "", ",", -1);
    for (char **d = depends; *d && ok; d++)
        ok = !**d || visit(r, *d, err);
    g_strfreev(depends);
    m = g_new(struct module, 1);
    *m = (struct module){.name = g_strdup(name), .elf = elf};
    g_ptr_array_add(r->order, m);
    return ok;
}

static void module_free(void *p)
{
    struct module *m = p;

    g_free(m->name);
    g_bytes_unref(m->elf);
    g_free(m);
}

GPtrArray *modules_resolve(const char *folder, const char *const *names, GError **err)
{
    struct resolver r = {
        .paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free),
        .builtin = read_builtin(folder),
        .seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
        .order = g_ptr_array_new_with_free_func(module_free),
    };
    bool ok = true;

    index_folder(r.paths, folder, 0);
    for (; *names && ok; names++)
        ok = visit(&r, *names, err);
    g_hash_table_unref(r.paths);
    g_hash_table_unref(r.builtin);
    g_hash_table_unref(r.seen);
    if (!ok)
        g_clear_pointer(&r.order, g_ptr_array_unref);
    return r.order;
}
