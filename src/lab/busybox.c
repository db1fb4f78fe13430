/*
 * busybox built from Debian's source, static, with the cross compiler: as people build it for a first root.
 *
 * The source is what `apt-get source' would fetch, by a private apt state that has the source lists; Debian's
 * patches are applied.  The result is kept in the cache by the hash of what it is made of.
 *
 * Threading: the caller's; processes by the cache's lock.
 */
#include "lab/busybox.h"

#include <stdio.h>
#include <string.h>

#include <glib/gstdio.h>

#include "lab/apt.h"
#include "lab/cache.h"
#include "lab/lab.h"
#include "lab/make.h"
#include "lab/progress.h"

#define SUITE "bookworm"
enum { FILES_EXPECTED = 640 }; /* lines of make's */

static const struct make_program programs[] = {
    {"aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"},
    {"gcc", "gcc"},
    {"make", "make"},
    {"tar", "tar"},
    {"bzip2", "bzip2"},
    {"xz", "xz-utils"},
    {"patch", "patch"},
    {"bash", "bash"},
    {NULL, NULL},
};

/* --- the source ------------------------------------------------------------------------------------ */

/* One file of a source package. */
struct part {
    char *uri, *name, *hash;
};

static void free_part(gpointer opaque)
{
    struct part *p = opaque;

    g_free(p->uri);
    g_free(p->name);
    g_free(p->hash);
    g_free(p);
}

/* "'URI' NAME SIZE HASH" of apt-get --print-uris. */
static GPtrArray *list_parts(const char *top, GError **err)
{
    static const char *const args[] = {"-q", "--print-uris", "source", "busybox", NULL};
    g_autoptr(GRegex) re = g_regex_new("^'([^']+)' (\\S+) \\d+ (\\S+)$", G_REGEX_MULTILINE, 0, NULL);
    g_autoptr(GByteArray) text = g_byte_array_new();
    GPtrArray *parts = g_ptr_array_new_with_free_func(free_part);
    GMatchInfo *m;

    if (apt_run(top, "apt-get", args, text, NULL, err)) {
        g_byte_array_append(text, (const guint8 *)"", 1);
        for (g_regex_match(re, (char *)text->data, 0, &m); g_match_info_matches(m);
             g_match_info_next(m, NULL)) {
            struct part *p = g_new0(struct part, 1);
            p->uri = g_match_info_fetch(m, 1);
            p->name = g_match_info_fetch(m, 2);
            p->hash = g_match_info_fetch(m, 3);
            g_ptr_array_add(parts, p);
        }
        g_match_info_free(m);
        if (!parts->len)
            g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND, "Debian has no source of busybox");
    }
    if (!parts->len)
        g_clear_pointer(&parts, g_ptr_array_unref);
    return parts;
}

/* Fetched and checked; the files are in `folder' then. */
static bool fetch_parts(const char *top, GPtrArray *parts, const char *folder, GError **err)
{
    struct progress progress;
    bool ok = true;

    progress_begin(&progress, "fetching busybox's source");
    for (guint i = 0; ok && i < parts->len; i++) {
        const struct part *p = parts->pdata[i];
        g_autofree char *file = g_build_filename(folder, p->name, NULL);
        const char *const args[] = {"download-file", p->uri, file, p->hash, NULL};
        ok = apt_run(top, "/usr/lib/apt/apt-helper", args, NULL, NULL, err);
        progress_percent(&progress, 100.0 * (i + 1) / parts->len);
    }
    progress_end(&progress, ok);
    return ok;
}

/* Unpacks the archives in `folder' into its folder `source', with Debian's patches. */
static bool unpack(const char *folder, GError **err)
{
    static const char script[] =
        "cd \"$0\" && mkdir source && tar -C source --strip-components=1 -xf *.orig.tar.* && "
        "tar -C source -xf *.debian.tar.* && cd source && "
        "for p in $(sed -e 's/[[:space:]]*#.*//' debian/patches/series); do "
        "patch -s -p1 <debian/patches/$p >&2 || exit 1; done";
    const char *const argv[] = {"sh", "-c", script, folder, NULL};

    return cache_run(&(struct cache_run){.argv = argv}, err);
}

/* --- the build -------------------------------------------------------------------------------------- */

/* Everything that is on when nobody is asked, and static. */
static bool configure(const char *source, const char *out, GError **err)
{
    g_autofree char *path = g_build_filename(out, ".config", NULL), *text = NULL;

    if (!make_run(source, out, "-s defconfig", 0, err) || !g_file_get_contents(path, &text, NULL, err))
        return false;
    g_auto(GStrv) parts = g_strsplit(text, "# CONFIG_STATIC is not set", 2);
    g_autofree char *changed = g_strjoinv("CONFIG_STATIC=y", parts);
    return cache_write_file(path, changed, strlen(changed), err) &&
           make_run(source, out, "-s oldconfig </dev/null", 0, err) &&
           make_check_config("CONFIG_STATIC=y", out, err);
}

static bool build(const char *top, GPtrArray *parts, const char *path, GError **err)
{
    g_autofree char *work = cache_new_folder(err), *kept = work ? g_build_filename(work, "kept", NULL) : NULL;
    g_autofree char *source = work ? g_build_filename(work, "source", NULL) : NULL;
    g_autofree char *out = work ? g_build_filename(work, "out", NULL) : NULL;
    g_autofree char *bin = work ? g_build_filename(kept, "bin", NULL) : NULL;
    bool ok = work && cache_make_folder(out, err) && cache_make_folder(bin, err) &&
              fetch_parts(top, parts, work, err) && unpack(work, err) && configure(source, out, err) &&
              make_run_as("building busybox", source, out, "busybox", FILES_EXPECTED, err);

    if (ok) {
        g_autofree char *from = g_build_filename(out, "busybox", NULL);
        const char *const copy[] = {"cp", "--", from, bin, NULL};
        ok = cache_run(&(struct cache_run){.argv = copy}, err) && cache_publish(kept, path, err);
    }
    if (work)
        cache_remove(work);
    return ok;
}

/* What it is made of: the files of the source, and the compiler. */
static char *result_path(GPtrArray *parts, const char *compiler)
{
    GString *all = g_string_new(compiler);

    for (guint i = 0; i < parts->len; i++)
        g_string_append_printf(all, "\n%s", ((const struct part *)parts->pdata[i])->hash);
    g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, all->str, -1);
    g_autofree char *name = g_strdup_printf("busybox-%.16s", hash);
    g_string_free(all, TRUE);
    return cache_path("built", name, NULL);
}

static char *source_list(void)
{
    g_autofree char *debian = NULL, *security = NULL;
    static const char line[] = "deb-src [signed-by=" APT_KEYRING "] %s " SUITE "%s main\n";

    apt_host_mirrors(SUITE, &debian, &security);
    g_autofree char *first = g_strdup_printf(line, debian, ""),
                    *second = g_strdup_printf(line, security, "-security");
    return g_strconcat(first, second, NULL);
}

char *lab_busybox_build(GError **err)
{
    g_autofree char *top = cache_path("apt-source", NULL), *sources = source_list(), *compiler = NULL,
                    *path = NULL;
    g_autoptr(GPtrArray) parts = NULL;
    char *busybox = NULL;
    int lock;

    if (!make_need("building busybox", programs, err) || !(compiler = make_compiler_version(err)) ||
        (lock = cache_lock(err)) < 0)
        return NULL;
    if (apt_configure(top, sources, err) && apt_update(top, false, err) && (parts = list_parts(top, err))) {
        path = result_path(parts, compiler);
        if (!g_access(path, F_OK) || build(top, parts, path, err))
            busybox = g_build_filename(path, "bin", "busybox", NULL);
    }
    cache_unlock(lock);
    return busybox;
}
