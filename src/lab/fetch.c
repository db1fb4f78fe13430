/*
 * Kernels and busybox from Debian, in the cache.
 *
 * A kernel is the folder kernel/RELEASE_VERSION with the package's tree and the key file `info'; busybox is
 * busybox/VERSION.  Threading: the caller's; processes by the cache's lock.
 */
#include "lab/lab.h"

#include <string.h>

#include <glib/gstdio.h>

#include "lab/apt.h"
#include "lab/cache.h"

const char *const lab_kernel_series[] = {"6.1", "6.12", NULL};

void lab_kernel_clear(struct lab_kernel *k)
{
    g_free(k->series);
    g_free(k->release);
    g_free(k->version);
    g_free(k->image);
    g_free(k->config);
    g_free(k->modules);
    *k = (struct lab_kernel){0};
}

static void kernel_free(void *k)
{
    lab_kernel_clear(k);
    g_free(k);
}

struct kernel_wish {
    const char *series; /* NULL: any */
    bool refresh;       /* ask the mirror for a newer one */
};

static char *kernel_folder(const char *release, const char *version)
{
    g_autofree char *name = g_strdup_printf("%s_%s", release, version);

    return cache_path("kernel", name, NULL);
}

/* The kernel in a folder of the cache, or NULL if it is none. */
static struct lab_kernel *load_kernel(const char *folder)
{
    char *info = g_build_filename(folder, "info", NULL);
    GKeyFile *keys = g_key_file_new();
    struct lab_kernel *k = g_new0(struct lab_kernel, 1);

    if (g_key_file_load_from_file(keys, info, 0, NULL)) {
        k->series = g_key_file_get_string(keys, "kernel", "series", NULL);
        k->release = g_key_file_get_string(keys, "kernel", "release", NULL);
        k->version = g_key_file_get_string(keys, "kernel", "version", NULL);
    }
    g_key_file_unref(keys);
    g_free(info);
    if (k->series && k->release && k->version) {
        k->image = g_strdup_printf("%s/boot/vmlinuz-%s", folder, k->release);
        k->config = g_strdup_printf("%s/boot/config-%s", folder, k->release);
        k->modules = g_strdup_printf("%s/lib/modules/%s", folder, k->release);
    }
    if (!k->image || g_access(k->image, R_OK)) {
        kernel_free(k);
        return NULL;
    }
    return k;
}

static int compare_kernels(const void *a, const void *b)
{
    const struct lab_kernel *x = *(struct lab_kernel *const *)a, *y = *(struct lab_kernel *const *)b;

    return strverscmp(x->version, y->version);
}

GPtrArray *lab_kernel_list(void)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(kernel_free);
    char *top = cache_path("kernel", NULL);
    GDir *dir = g_dir_open(top, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        char *folder = g_build_filename(top, name, NULL);
        struct lab_kernel *k = load_kernel(folder);

        if (k)
            g_ptr_array_add(list, k);
        g_free(folder);
    }
    if (dir)
        g_dir_close(dir);
    g_free(top);
    g_ptr_array_sort(list, compare_kernels);
    return list;
}

/* The folder of the newest cached kernel of `series' (NULL: any). */
static char *find_kernel(const void *what)
{
    const struct kernel_wish *wish = what;
    GPtrArray *list = lab_kernel_list();
    char *folder = NULL;

    for (guint i = list->len; i-- > 0 && !folder;) {
        const struct lab_kernel *k = list->pdata[i];

        if (!wish->series || !strcmp(wish->series, k->series))
            folder = kernel_folder(k->release, k->version);
    }
    g_ptr_array_unref(list);
    return folder;
}

/*
 * The package that carries the newest kernel of the series: linux-image-arm64 of that series depends on it.
 */
static bool find_kernel_package(const char *series, struct apt_package *out, GError **err)
{
    char *prefix = g_strconcat(series, ".", NULL);
    struct apt_package meta;
    bool ok = apt_find("linux-image-arm64", prefix, &meta, err);

    g_free(prefix);
    if (!ok)
        return false;
    ok = false;
    for (guint i = 0; i < meta.depends->len && !ok; i++)
        if (g_str_has_prefix(meta.depends->pdata[i], "linux-image-"))
            ok = apt_find(meta.depends->pdata[i], meta.version, out, err);
    if (!ok && err && !*err)
        g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND, "linux-image-arm64 %s names no kernel",
                    meta.version);
    apt_package_clear(&meta);
    return ok;
}

static bool write_info(const char *folder, const char *series, const char *release, const char *version,
                       GError **err)
{
    char *path = g_build_filename(folder, "info", NULL);
    char *text = g_strdup_printf("[kernel]\nseries=%s\nrelease=%s\nversion=%s\n", series, release, version);
    bool ok = cache_write_file(path, text, strlen(text), err);

    g_free(path);
    g_free(text);
    return ok;
}

/* Unpack a package and give its tree the name `path'; kernels get their info file too. */
static bool fetch_tree(const struct apt_package *p, const char *path, const char *series, GError **err)
{
    const char *release = p->name + strlen("linux-image-");
    char *folder = cache_new_folder(err);
    bool ok = folder && apt_unpack(p, folder, err) &&
              (!series || write_info(folder, series, release, p->version, err));

    if (ok)
        ok = cache_publish(folder, path, err);
    if (folder && !ok)
        cache_remove(folder);
    g_free(folder);
    return ok;
}

static bool fetch_kernel(const char *series, bool refresh, GError **err)
{
    struct apt_package package;

    if (!apt_prepare(refresh, err) || !find_kernel_package(series, &package, err))
        return false;
    g_autofree char *path = kernel_folder(package.name + strlen("linux-image-"), package.version);
    bool ok = !g_access(path, F_OK) || fetch_tree(&package, path, series, err);
    apt_package_clear(&package);
    return ok;
}

/*
 * Run a fetch, and once more with new package lists if the first try failed: a mirror forgets old versions,
 * which lists of yesterday still name.  Not for errors that new lists cannot cure.
 */
static bool fetch_twice(bool (*fetch)(const char *, bool, GError **), const char *arg, bool refresh,
                        GError **err)
{
    GError *first = NULL;

    if (fetch(arg, refresh, &first))
        return true;
    if (refresh || g_error_matches(first, LAB_ERROR, LAB_ERROR_SPACE) ||
        g_error_matches(first, LAB_ERROR, LAB_ERROR_TOOL) ||
        g_error_matches(first, LAB_ERROR, LAB_ERROR_IO) ||
        g_error_matches(first, LAB_ERROR, LAB_ERROR_NETWORK)) {
        g_propagate_error(err, first);
        return false;
    }
    g_error_free(first);
    return fetch(arg, true, err);
}

static bool make_kernel(const void *what, GError **err)
{
    const struct kernel_wish *wish = what;

    return fetch_twice(fetch_kernel, wish->series ? wish->series : LAB_DEFAULT_SERIES, wish->refresh, err);
}

bool lab_kernel_get(const char *series, bool refresh, struct lab_kernel *out, GError **err)
{
    const struct kernel_wish wish = {series, refresh};

    *out = (struct lab_kernel){0};
    if (series && !g_strv_contains(lab_kernel_series, series)) {
        g_autofree char *have = g_strjoinv(", ", (char **)lab_kernel_series);

        g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND, "no kernel series %s: there are %s", series, have);
        return false;
    }
    g_autofree char *folder = cache_get(&(struct cache_item){
        .find = find_kernel, .make = make_kernel, .what = &wish, .anew = refresh,
        .lost = "Debian's kernel package has no vmlinuz"}, err);
    struct lab_kernel *k = folder ? load_kernel(folder) : NULL;
    if (k)
        *out = *k;
    else if (folder)
        g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "%s cannot be read", folder);
    g_free(k);
    return k != NULL;
}

/* --- what belongs to a kernel --------------------------------------------------------------------------- */

static char *debug_folder(const struct lab_kernel *k)
{
    g_autofree char *name = g_strdup_printf("%s_%s", k->release, k->version);

    return cache_path("debug", name, NULL);
}

static char *find_debug(const void *what)
{
    const struct lab_kernel *k = what;
    g_autofree char *folder = debug_folder(k), *file = g_strdup_printf("vmlinux-%s", k->release);
    char *vmlinux = g_build_filename(folder, "usr", "lib", "debug", "boot", file, NULL);

    if (g_access(vmlinux, R_OK))
        g_clear_pointer(&vmlinux, g_free);
    return vmlinux;
}

static bool fetch_debug(const void *what, GError **err)
{
    const struct lab_kernel *k = what;
    g_autofree char *name = g_strdup_printf("linux-image-%s-dbg", k->release), *path = debug_folder(k);
    struct apt_package package;

    if (!apt_prepare(false, err) || !apt_find(name, k->version, &package, err))
        return false;
    bool ok = fetch_tree(&package, path, NULL, err);
    apt_package_clear(&package);
    return ok;
}

char *lab_kernel_debug(const struct lab_kernel *k, GError **err)
{
    return cache_get(&(struct cache_item){
        .find = find_debug, .make = fetch_debug, .what = k,
        .lost = "Debian's package of debug symbols has no vmlinux"}, err);
}

/*
 * linux-headers-RELEASE, and what it depends on of the kernel's own packages (common headers, tools); with
 * the lock.
 */
static bool unpack_headers(const struct lab_kernel *k, const char *into, GError **err)
{
    g_autofree char *name = g_strdup_printf("linux-headers-%s", k->release);
    struct apt_package package, other;
    bool ok = apt_prepare(false, err) && apt_find(name, k->version, &package, err);

    if (!ok)
        return false;
    ok = apt_unpack(&package, into, err);
    for (guint i = 0; ok && i < package.depends->len; i++) {
        const char *depends = package.depends->pdata[i];
        if (!g_str_has_prefix(depends, "linux-headers-") && !g_str_has_prefix(depends, "linux-kbuild-"))
            continue;
        ok = apt_find(depends, package.exact->pdata[i], &other, err) && apt_unpack(&other, into, err);
        apt_package_clear(&other);
    }
    apt_package_clear(&package);
    return ok;
}

bool lab_kernel_headers(const struct lab_kernel *k, const char *into, GError **err)
{
    int lock = cache_lock(err);
    bool ok = lock >= 0 && unpack_headers(k, into, err);

    cache_unlock(lock);
    return ok;
}

/* --- busybox -------------------------------------------------------------------------------------------- */

static char *find_busybox(const void *what)
{
    g_autofree char *folder = cache_newest("busybox", "");
    char *path = folder ? g_build_filename(folder, "bin", "busybox", NULL) : NULL;

    (void)what;
    if (path && g_access(path, R_OK))
        g_clear_pointer(&path, g_free);
    return path;
}

static bool fetch_busybox(const char *name, bool refresh, GError **err)
{
    struct apt_package package;

    if (!apt_prepare(refresh, err) || !apt_find(name, "", &package, err))
        return false;
    g_autofree char *path = cache_path("busybox", package.version, NULL);
    bool ok = !g_access(path, F_OK) || fetch_tree(&package, path, NULL, err);
    apt_package_clear(&package);
    return ok;
}

static bool make_busybox(const void *what, GError **err)
{
    (void)what;
    return fetch_twice(fetch_busybox, "busybox-static", false, err);
}

char *lab_busybox_get(GError **err)
{
    return cache_get(&(struct cache_item){.find = find_busybox,
                                          .make = make_busybox,
                                          .lost = "Debian's busybox-static has no bin/busybox"},
                     err);
}
