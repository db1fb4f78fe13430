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

/* The newest cached kernel of `series' (NULL: any). */
static bool find_cached(const char *series, struct lab_kernel *out)
{
    GPtrArray *list = lab_kernel_list();
    bool found = false;

    for (guint i = list->len; i-- > 0 && !found;) {
        struct lab_kernel *k = list->pdata[i];

        if (!series || !strcmp(series, k->series)) {
            *out = *k;
            *k = (struct lab_kernel){0};
            found = true;
        }
    }
    g_ptr_array_unref(list);
    return found;
}

/* The package that carries the newest kernel of the series: linux-image-arm64 of that series depends on it. */
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
        g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND, "linux-image-arm64 %s names no kernel", meta.version);
    apt_package_clear(&meta);
    return ok;
}

static bool write_info(const char *folder, const char *series, const char *release, const char *version, GError **err)
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
    bool ok = folder && apt_unpack(p, folder, err) && (!series || write_info(folder, series, release, p->version, err));

    if (ok)
        ok = cache_publish(folder, path, err);
    if (folder && !ok)
        cache_remove(folder);
    g_free(folder);
    return ok;
}

/* With the lock held. */
static bool fetch_kernel(const char *series, bool refresh, GError **err)
{
    struct apt_package package;
    char *name, *path;
    bool ok;

    if (!apt_prepare(refresh, err) || !find_kernel_package(series, &package, err))
        return false;
    name = g_strdup_printf("%s_%s", package.name + strlen("linux-image-"), package.version);
    path = cache_path("kernel", name, NULL);
    ok = !g_access(path, F_OK) || fetch_tree(&package, path, series, err);
    g_free(name);
    g_free(path);
    apt_package_clear(&package);
    return ok;
}

/*
 * Run a fetch, and once more with new package lists if the first try failed: a mirror forgets old versions, which
 * lists of yesterday still name.  Not for errors that new lists cannot cure.
 */
static bool fetch_twice(bool (*fetch)(const char *, bool, GError **), const char *arg, bool refresh, GError **err)
{
    GError *first = NULL;

    if (fetch(arg, refresh, &first))
        return true;
    if (refresh || g_error_matches(first, LAB_ERROR, LAB_ERROR_SPACE) ||
        g_error_matches(first, LAB_ERROR, LAB_ERROR_TOOL) || g_error_matches(first, LAB_ERROR, LAB_ERROR_IO) ||
        g_error_matches(first, LAB_ERROR, LAB_ERROR_NETWORK)) {
        g_propagate_error(err, first);
        return false;
    }
    g_error_free(first);
    return fetch(arg, true, err);
}

bool lab_kernel_get(const char *series, bool refresh, struct lab_kernel *out, GError **err)
{
    bool ok;
    int lock;

    *out = (struct lab_kernel){0};
    if (series && !g_strv_contains(lab_kernel_series, series)) {
        char *have = g_strjoinv(", ", (char **)lab_kernel_series);

        g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND, "no kernel series %s: there are %s", series, have);
        g_free(have);
        return false;
    }
    if (!refresh && find_cached(series, out))
        return true;
    lock = cache_lock(err);
    if (lock < 0)
        return false;
    /* Who held the lock before may have fetched it for us. */
    ok = !refresh && find_cached(series, out);
    if (!ok) {
        if (!series)
            series = LAB_DEFAULT_SERIES;
        ok = fetch_twice(fetch_kernel, series, refresh, err);
        if (ok && !find_cached(series, out)) {
            g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "Debian's kernel package %s has no vmlinuz", series);
            ok = false;
        }
    }
    cache_unlock(lock);
    return ok;
}

/* With the lock held. */
static bool fetch_debug(const struct lab_kernel *k, const char *path, GError **err)
{
    g_autofree char *name = g_strdup_printf("linux-image-%s-dbg", k->release);
    struct apt_package package;
    bool ok;

    if (!apt_prepare(false, err) || !apt_find(name, k->version, &package, err))
        return false;
    ok = fetch_tree(&package, path, NULL, err);
    apt_package_clear(&package);
    return ok;
}

char *lab_kernel_debug(const struct lab_kernel *k, GError **err)
{
    g_autofree char *name = g_strdup_printf("%s_%s", k->release, k->version), *path = cache_path("debug", name, NULL);
    g_autofree char *file = g_strdup_printf("vmlinux-%s", k->release);
    char *vmlinux = g_build_filename(path, "usr", "lib", "debug", "boot", file, NULL);
    int lock;
    bool ok;

    if (!g_access(vmlinux, R_OK))
        return vmlinux;
    lock = cache_lock(err);
    ok = lock >= 0 && (!g_access(vmlinux, R_OK) || fetch_debug(k, path, err));
    cache_unlock(lock);
    if (ok && g_access(vmlinux, R_OK)) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "Debian's package of debug symbols has no %s", file);
        ok = false;
    }
    if (!ok)
        g_clear_pointer(&vmlinux, g_free);
    return vmlinux;
}

/* linux-headers-RELEASE, and what it depends on of the kernel's own packages (common headers, tools); with the lock. */
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

static char *find_busybox(void)
{
    char *top = cache_path("busybox", NULL), *best = NULL, *path = NULL;
    GDir *dir = g_dir_open(top, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir)))
        if (!best || strverscmp(name, best) > 0) {
            g_free(best);
            best = g_strdup(name);
        }
    if (dir)
        g_dir_close(dir);
    if (best)
        path = g_build_filename(top, best, "bin", "busybox", NULL);
    if (path && g_access(path, R_OK))
        g_clear_pointer(&path, g_free);
    g_free(top);
    g_free(best);
    return path;
}

/* With the lock held. */
static bool fetch_busybox(const char *name, bool refresh, GError **err)
{
    struct apt_package package;
    char *path;
    bool ok;

    if (!apt_prepare(refresh, err) || !apt_find(name, "", &package, err))
        return false;
    path = cache_path("busybox", package.version, NULL);
    ok = !g_access(path, F_OK) || fetch_tree(&package, path, NULL, err);
    g_free(path);
    apt_package_clear(&package);
    return ok;
}

char *lab_busybox_get(GError **err)
{
    char *path = find_busybox();
    int lock;

    if (path)
        return path;
    lock = cache_lock(err);
    if (lock < 0)
        return NULL;
    path = find_busybox();
    if (!path && fetch_twice(fetch_busybox, "busybox-static", false, err)) {
        path = find_busybox();
        if (!path)
            g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "Debian's busybox-static has no bin/busybox");
    }
    cache_unlock(lock);
    return path;
}
