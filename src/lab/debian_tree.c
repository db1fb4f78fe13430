/*
 * Files of Debian's packages put into a root on the host.  See debian_tree.h; the database's part is
 * debian_dpkg.c.
 *
 * Paths are resolved here and not by the kernel, since an absolute link in the root means the root's top:
 * /bin, /lib and /sbin are links, and a folder of that name in a package goes where the link points.  What is
 * unpacked is Debian's and checked by apt; nobody else writes in the tree meanwhile.
 *
 * Threading: the caller's.
 */
#include "lab/debian_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lab/cache.h"
#include "lab/debian_dpkg.h"
#include "lab/debian_tar.h"
#include "lab/lab.h"
#include "nfs/nfs.h"

enum { LINKS_MAX = 20 };

struct debian_tree {
    char *top;
    bool real;
    GHashTable *folders; /* a folder's path as packages have it -> the same without links */
    struct debian_dpkg *dpkg;
};

static bool fail_errno(GError **err, int code, const char *what, const char *path)
{
    const char *why = code == ENOSPC || code == EDQUOT ? "the disk is full" : g_strerror(code);

    g_set_error(err, LAB_ERROR, code == ENOSPC || code == EDQUOT ? LAB_ERROR_SPACE : LAB_ERROR_IO,
                "cannot %s %s: %s", what, path, why);
    return false;
}

struct debian_tree *debian_tree_new(const char *top, bool real)
{
    struct debian_tree *t = g_new0(struct debian_tree, 1);

    t->top = g_strdup(top);
    t->real = real;
    t->folders = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    t->dpkg = debian_dpkg_new();
    return t;
}

void debian_tree_free(struct debian_tree *t)
{
    if (!t)
        return;
    debian_dpkg_free(t->dpkg);
    g_hash_table_destroy(t->folders);
    g_free(t->top);
    g_free(t);
}

/* --- paths ------------------------------------------------------------------------------------------- */

static bool has_dots(const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);

    return g_strv_contains((const char *const *)parts, "..");
}

static const char *resolve(struct debian_tree *t, const char *folder, unsigned links, GError **err);

/* The real path of what a link in the folder `parent' points to. */
static const char *follow(struct debian_tree *t, const char *parent, const char *full, unsigned links,
                          GError **err)
{
    g_autofree char *target = g_file_read_link(full, err), *base = g_strconcat("/", parent, NULL);

    if (!target)
        return NULL;
    if (links >= LINKS_MAX) {
        fail_errno(err, ELOOP, "follow", full);
        return NULL;
    }
    g_autofree char *canonical = g_canonicalize_filename(target, base);
    return resolve(t, canonical + 1, links + 1, err);
}

/* The folder's path without links; made if it is not there.  Owned by the table. */
static const char *resolve(struct debian_tree *t, const char *folder, unsigned links, GError **err)
{
    const char *known = *folder ? g_hash_table_lookup(t->folders, folder) : "";
    g_autofree char *above = known ? NULL : g_path_get_dirname(folder),
                    *name = known ? NULL : g_path_get_basename(folder);
    const char *parent, *result;
    struct stat st;

    if (known)
        return known;
    if (!(parent = resolve(t, !strcmp(above, ".") ? "" : above, links, err)))
        return NULL;
    g_autofree char *inner = *parent ? g_build_filename(parent, name, NULL) : g_strdup(name);
    g_autofree char *full = g_build_filename(t->top, inner, NULL);
    if (lstat(full, &st) && (errno != ENOENT || mkdir(full, 0755))) {
        fail_errno(err, errno, "make folder", full);
        return NULL;
    }
    result = !lstat(full, &st) && S_ISLNK(st.st_mode) ? follow(t, parent, full, links, err) : inner;
    if (!result)
        return NULL;
    char *kept = g_strdup(result);
    g_hash_table_insert(t->folders, g_strdup(folder), kept);
    return kept;
}

char *debian_tree_path(struct debian_tree *t, const char *path, GError **err)
{
    path += strspn(path, "/");
    g_autofree char *above = g_path_get_dirname(path), *name = g_path_get_basename(path);
    const char *folder;

    if (has_dots(path)) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "a package has the path %s, which leads out of it",
                    path);
        return NULL;
    }
    folder = resolve(t, !strcmp(above, ".") ? "" : above, 0, err);
    return folder ? g_build_filename(t->top, folder, name, NULL) : NULL;
}

/* --- files ------------------------------------------------------------------------------------------- */

/* Owner and mode for the guest. */
static bool set_owner(const struct debian_tree *t, int fd, const char *path, unsigned mode, uint32_t uid,
                      uint32_t gid, GError **err)
{
    int e;

    if (t->real) /* chown takes the special bits away */
        e = fchown(fd, uid, gid) || fchmod(fd, mode) ? -errno : 0;
    else
        e = nfs_mapped_set(fd, mode, uid, gid);
    return !e || fail_errno(err, -e, "set the owner of", path);
}

static bool write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static bool put_file(struct debian_tree *t, const char *path, const struct tar_entry *e, GError **err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0 && errno == EEXIST && !unlink(path))
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_errno(err, errno, "write", path);
    struct timespec times[2] = {{.tv_sec = e->mtime}, {.tv_sec = e->mtime}};
    bool ok = write_all(fd, e->data, e->size) || fail_errno(err, errno, "write", path);
    ok = ok && set_owner(t, fd, path, e->mode, e->uid, e->gid, err);
    if (ok && e->mtime)
        futimens(fd, times);
    if (close(fd) && ok)
        ok = fail_errno(err, errno, "write", path);
    return ok;
}

/* One that is there, or a link to one, stays as it is. */
static bool put_folder(struct debian_tree *t, const char *path, const struct tar_entry *e, GError **err)
{
    if (g_file_test(path, G_FILE_TEST_IS_SYMLINK) || (mkdir(path, 0700) && errno == EEXIST))
        return true;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool ok = fd >= 0 ? set_owner(t, fd, path, e->mode, e->uid, e->gid, err)
                      : fail_errno(err, errno, "make folder", path);
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool put_link(const char *path, const char *target, GError **err)
{
    if (!symlink(target, path))
        return true;
    if (errno == EEXIST && g_file_test(path, G_FILE_TEST_IS_DIR) &&
        !g_file_test(path, G_FILE_TEST_IS_SYMLINK))
        return true; /* dpkg leaves such a folder, too */
    if (errno == EEXIST && !unlink(path) && !symlink(target, path))
        return true;
    return fail_errno(err, errno, "make the link", path);
}

static bool put_hard_link(struct debian_tree *t, const char *path, const char *target, GError **err)
{
    g_autofree char *from = debian_tree_path(t, target, err);

    if (!from)
        return false;
    if (!link(from, path) || (errno == EEXIST && !unlink(path) && !link(from, path)))
        return true;
    return fail_errno(err, errno, "make the link", path);
}

static bool put_entry(void *opaque, const struct tar_entry *e, GError **err)
{
    struct debian_tree *t = opaque;

    if (strchr(e->path, '\n')) { /* dpkg's lists have a name a line */
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "a name in it has a newline");
        return false;
    }
    debian_dpkg_note(t->dpkg, e);
    if (!*e->path)
        return true;
    g_autofree char *path = debian_tree_path(t, e->path, err);
    if (!path)
        return false;
    switch (e->type) {
    case '0':
        return put_file(t, path, e, err);
    case '1':
        return put_hard_link(t, path, e->link, err);
    case '2':
        return put_link(path, e->link, err);
    case '5':
        return put_folder(t, path, e, err);
    default:
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "a package has a device node or pipe, /%s", e->path);
        return false;
    }
}

bool debian_tree_put(struct debian_tree *t, const char *path, unsigned mode, const void *data, size_t size,
                     GError **err)
{
    struct tar_entry e = {.type = '0', .mode = mode, .data = data, .size = size};
    g_autofree char *full = debian_tree_path(t, path, err);

    return full && put_file(t, full, &e, err);
}

bool debian_tree_put_text(struct debian_tree *t, const char *path, unsigned mode, const char *text,
                          GError **err)
{
    return debian_tree_put(t, path, mode, text, strlen(text), err);
}

/* --- packages ---------------------------------------------------------------------------------------- */

static GByteArray *read_part(const char *deb, const char *which, GError **err)
{
    const char *const argv[] = {"dpkg-deb", which, deb, NULL};
    GByteArray *out = g_byte_array_new();

    if (!cache_run(&(struct cache_run){.argv = argv, .output = out}, err))
        g_clear_pointer(&out, g_byte_array_unref);
    return out;
}

bool debian_tree_unpack(struct debian_tree *t, const char *deb, GError **err)
{
    g_autoptr(GByteArray) control = read_part(deb, "--ctrl-tarfile", err);
    g_autoptr(GByteArray) files = control ? read_part(deb, "--fsys-tarfile", err) : NULL;

    if (!files || !debian_dpkg_begin(t->dpkg, control->data, control->len, err) ||
        !tar_read(files->data, files->len, put_entry, t, err) || !debian_dpkg_end(t->dpkg, t, err)) {
        g_autofree char *name = g_path_get_basename(deb);
        g_prefix_error(err, "%s: ", name);
        return false;
    }
    return true;
}

bool debian_tree_finish(struct debian_tree *t, GError **err)
{
    return debian_dpkg_write(t->dpkg, t, err);
}
