/*
 * Root file systems in the forms that a guest can have them: see lab_rootfs_make() in rootfs.h.
 *
 * All begin as a directory tree beside what is made, which is turned into an archive or an image.  Neither needs
 * privileges: an archive's owners and device nodes are only written down, and mke2fs sees the user's files as root's in a
 * user namespace of its own.
 *
 * Threading: the caller's.
 */
#include "lab/rootfs.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lab/cache.h"
#include "lab/cpio.h"
#include "nfs/nfs.h"

enum { SPARE_MB = 64 };

static bool fail_errno(GError **err, const char *what, const char *path)
{
    int e = errno;

    g_set_error(err, LAB_ERROR, e == ENOSPC || e == EDQUOT ? LAB_ERROR_SPACE : LAB_ERROR_IO, "cannot %s %s: %s", what, path,
                g_strerror(e));
    return false;
}

/* A tool that a user's PATH may not have; NULL with err set: nor has the host. */
static char *find_tool(const char *name, const char *package, GError **err)
{
    static const char *const places[] = {"/sbin", "/usr/sbin", "/usr/bin"};

    for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autofree char *path = g_build_filename(places[i], name, NULL);
        if (!g_access(path, X_OK))
            return g_steal_pointer(&path);
    }
    g_set_error(err, LAB_ERROR, LAB_ERROR_TOOL, "needs %s; as root: apt-get install %s", name, package);
    return NULL;
}

/* --- the tree -------------------------------------------------------------------------------------------------- */

static bool copy(const char *from, const char *to, GError **err)
{
    g_autofree char *contents = g_build_filename(from, ".", NULL);
    const char *const argv[] = {"cp", "-a", "--no-preserve=ownership", contents, to, NULL};

    if (!g_file_test(from, G_FILE_TEST_IS_DIR)) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND, "%s: not a directory", from);
        return false;
    }
    return cache_make_folder(to, err) && cache_run(&(struct cache_run){.argv = argv}, err);
}

/* With what modprobe in the guest reads: the package has it made where it is installed. */
static bool add_modules(const char *tree, const struct lab_kernel *k, GError **err)
{
    g_autofree char *to = g_build_filename(tree, "lib", "modules", k->release, NULL);
    g_autofree char *program = find_tool("depmod", "kmod", err);
    const char *const argv[] = {program, "-b", tree, k->release, NULL};

    return program && copy(k->modules, to, err) && cache_run(&(struct cache_run){.argv = argv}, err);
}

bool rootfs_add(const struct lab_root *what, const char *tree, GError **err)
{
    bool ok = (!what->modules || add_modules(tree, what->kernel, err)) &&
              (!what->headers || lab_kernel_headers(what->kernel, tree, err));

    for (char *const *o = what->overlays; ok && o && *o; o++)
        ok = copy(*o, tree, err);
    return ok;
}

/* --- initramfs -------------------------------------------------------------------------------------------------- */

/* The kernel runs it; without it, it would look for a root elsewhere. */
static const char init_script[] = "#!/bin/sh\n"
                                  "export PATH=/sbin:/bin:/usr/sbin:/usr/bin\n"
                                  "mount -t devtmpfs devtmpfs /dev\n"
                                  "exec /sbin/init\n";

struct archive {
    struct cpio cpio;
    bool real;
};

/* What a link's name stands for; an ordinary file may stand for a link, whose target is in it. */
static bool archive_link(struct archive *a, const char *path, const char *name, const struct stat *st, GError **err)
{
    g_autofree char *target = NULL;
    bool ok = g_file_test(path, G_FILE_TEST_IS_SYMLINK) ? (target = g_file_read_link(path, err)) != NULL
                                                         : g_file_get_contents(path, &target, NULL, err);

    if (ok)
        cpio_add(&a->cpio, name, st, target, strlen(target));
    return ok;
}

static bool archive_file(struct archive *a, const char *path, const char *name, const struct stat *st, GError **err)
{
    g_autofree char *data = NULL;
    gsize size;

    if (!g_file_get_contents(path, &data, &size, err))
        return false;
    if (size > UINT32_MAX) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "%s: an initramfs has no files of 4 GiB and more", path);
        return false;
    }
    cpio_add(&a->cpio, name, st, data, size);
    return true;
}

static bool archive_entry(struct archive *a, const char *path, const char *name, GError **err)
{
    struct stat st;
    int e = a->real ? lstat(path, &st) ? -errno : 0 : nfs_mapped_get(path, &st);

    if (e) {
        errno = -e;
        return fail_errno(err, "look at", path);
    }
    if (S_ISLNK(st.st_mode))
        return archive_link(a, path, name, &st, err);
    if (S_ISREG(st.st_mode))
        return archive_file(a, path, name, &st, err);
    if (!S_ISSOCK(st.st_mode)) /* whoever listened there is gone */
        cpio_add(&a->cpio, name, &st, NULL, 0);
    return true;
}

static bool archive_tree(struct archive *a, const char *folder, const char *name, GError **err)
{
    DIR *dir = opendir(folder);
    struct dirent *e;
    bool ok = dir != NULL;

    if (!dir)
        return fail_errno(err, "read", folder);
    while (ok && (e = readdir(dir))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        g_autofree char *path = g_build_filename(folder, e->d_name, NULL);
        g_autofree char *inner = *name ? g_build_filename(name, e->d_name, NULL) : g_strdup(e->d_name);
        ok = archive_entry(a, path, inner, err);
        if (ok && g_file_test(path, G_FILE_TEST_IS_DIR) && !g_file_test(path, G_FILE_TEST_IS_SYMLINK))
            ok = archive_tree(a, path, inner, err);
    }
    closedir(dir);
    return ok;
}

bool rootfs_archive(const char *tree, const char *path, bool real, GError **err)
{
    g_autofree char *init = g_build_filename(tree, "init", NULL);
    struct archive a = {.real = real};

    cpio_init(&a.cpio);
    if (g_access(init, F_OK)) /* an overlay may bring one */
        cpio_add_file(&a.cpio, "init", 0755, init_script, strlen(init_script));
    bool ok = archive_tree(&a, tree, "", err);
    if (ok) {
        cpio_add_char_device(&a.cpio, "dev/console", 0600, 5, 1);
        cpio_add_char_device(&a.cpio, "dev/null", 0666, 1, 3);
        GByteArray *archive = cpio_build(&a.cpio);
        ok = cache_write_file(path, archive->data, archive->len, err);
        g_byte_array_unref(archive);
    }
    cpio_clear(&a.cpio);
    return ok;
}

/* --- ext4 ---------------------------------------------------------------------------------------------------------- */

/* What the tree takes, in bytes. */
bool rootfs_measure(const char *tree, uint64_t *size, GError **err)
{
    const char *const argv[] = {"du", "-s", "-B1", tree, NULL};
    GByteArray *text = g_byte_array_new();
    bool ok = cache_run(&(struct cache_run){.argv = argv, .output = text}, err);

    g_byte_array_append(text, (const guint8 *)"", 1);
    *size = g_ascii_strtoull((char *)text->data, NULL, 10);
    g_byte_array_unref(text);
    return ok;
}

static bool run_mke2fs(const char *tree, const char *image, uint64_t size, GError **err)
{
    g_autofree char *program = find_tool("mke2fs", "e2fsprogs", err);
    g_autofree char *kib = g_strdup_printf("%" G_GUINT64_FORMAT "k", size >> 10);
    const char *const argv[] = {"unshare", "-r", program, "-q", "-F", "-t", "ext4", "-L", "armlet", "-d", tree, image, kib, NULL};

    if (!program)
        return false;
    return cache_run(&(struct cache_run){.argv = geteuid() ? argv : argv + 2}, err);
}

static bool make_ext4(const struct lab_root *what, const char *tree, GError **err)
{
    g_autofree char *image = g_strdup_printf("%s.new.%d", what->path, (int)getpid());
    uint64_t needed;

    if (!rootfs_measure(tree, &needed, err))
        return false;
    if (what->size && what->size < needed) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_SPACE, "%s: its files take %" G_GUINT64_FORMAT " MiB", what->path, needed >> 20);
        return false;
    }
    uint64_t size = what->size ? what->size : needed + needed / 8 + ((uint64_t)SPARE_MB << 20);
    bool ok = run_mke2fs(tree, image, size, err) && (!rename(image, what->path) || fail_errno(err, "make", what->path));
    g_unlink(image);
    return ok;
}

/* --- all of it ----------------------------------------------------------------------------------------------------- */

bool rootfs_check_target(const struct lab_root *what, GError **err)
{
    bool file = what->format != LAB_ROOT_DIR && g_file_test(what->path, G_FILE_TEST_IS_REGULAR);

    if (g_access(what->path, F_OK) || (file && what->replace))
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "%s exists already; %s", what->path,
                file ? "--replace makes it anew" : "delete it first, if what was changed in it can go");
    return false;
}

bool lab_rootfs_make(const struct lab_root *what, GError **err)
{
    g_autofree char *tree = g_strdup_printf("%s.tree.%d", what->path, (int)getpid());
    g_autofree char *parent = g_path_get_dirname(what->path);
    bool ok = rootfs_check_target(what, err) && cache_make_folder(parent, err) &&
              rootfs_fill(tree, what->path, what->from_source, err) && rootfs_add(what, tree, err);

    if (ok && what->format == LAB_ROOT_DIR)
        ok = !rename(tree, what->path) || fail_errno(err, "make", what->path);
    else if (ok && what->format == LAB_ROOT_INITRAMFS)
        ok = rootfs_archive(tree, what->path, false, err);
    else if (ok)
        ok = make_ext4(what, tree, err);
    cache_remove(tree);
    return ok;
}
