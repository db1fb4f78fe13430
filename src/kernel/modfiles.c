/*
 * See modfiles.h.
 */
#include "kernel/modfiles.h"

#include <string.h>

#include "kernel/debuginfo.h"

enum { DEPTH_MAX = 12, ENTRIES_MAX = 200000 }; /* a kernel's tree has 100,000 */

struct folder {
    char *path;
    bool deep;
};

struct modfiles {
    GArray *folders;   /* struct folder, not searched yet */
    GHashTable *paths; /* module's name to path */
    GHashTable *infos; /* to struct debuginfo */
    unsigned seen;
};

static void clear_folder(gpointer p)
{
    g_free(((struct folder *)p)->path);
}

static void free_info(gpointer p)
{
    debuginfo_free(p);
}

struct modfiles *modfiles_new(void)
{
    struct modfiles *f = g_new0(struct modfiles, 1);

    f->folders = g_array_new(FALSE, FALSE, sizeof(struct folder));
    g_array_set_clear_func(f->folders, clear_folder);
    f->paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    f->infos = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_info);
    return f;
}

void modfiles_free(struct modfiles *f)
{
    g_array_free(f->folders, TRUE);
    g_hash_table_destroy(f->paths);
    g_hash_table_destroy(f->infos);
    g_free(f);
}

void modfiles_add(struct modfiles *f, const char *folder, bool deep)
{
    const struct folder add = { g_strdup(folder), deep };

    g_array_append_val(f->folders, add);
    f->seen = 0;
}

/* As the kernel spells the name of NAME.ko, to be freed. */
static char *module_name(const char *name, size_t len)
{
    return g_strdelimit(g_strndup(name, len), "-", '_');
}

static void search(struct modfiles *f, const char *folder, unsigned depth)
{
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir)) && f->seen++ < ENTRIES_MAX) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        if (g_str_has_suffix(name, ".ko")) {
            char *module = module_name(name, strlen(name) - 3);
            if (!g_hash_table_contains(f->paths, module))
                g_hash_table_insert(f->paths, module, g_steal_pointer(&path));
            else
                g_free(module);
        } else if (depth && !g_file_test(path, G_FILE_TEST_IS_SYMLINK) && g_file_test(path, G_FILE_TEST_IS_DIR)) {
            search(f, path, depth - 1);
        }
    }
    if (dir)
        g_dir_close(dir);
}

const char *modfiles_path(struct modfiles *f, const char *module)
{
    g_autofree char *name = module_name(module, strlen(module));

    for (guint i = 0; i < f->folders->len; i++) {
        const struct folder *folder = &g_array_index(f->folders, struct folder, i);
        search(f, folder->path, folder->deep ? DEPTH_MAX : 0);
    }
    g_array_set_size(f->folders, 0);
    return g_hash_table_lookup(f->paths, name);
}

struct debuginfo *modfiles_debuginfo(struct modfiles *f, const char *module)
{
    struct debuginfo *d = g_hash_table_lookup(f->infos, module);
    const char *path = d ? NULL : modfiles_path(f, module);

    if (path) {
        d = debuginfo_new(path);
        g_hash_table_insert(f->infos, g_strdup(module), d);
    }
    return d;
}
