/*
 * The stages of a Debian root.  See debian.h.
 *
 * PATH.making holds tree/ (the root), plan (the packages it is made of; written when all are unpacked, so
 * that its presence with the same contents means that the second stage can go on), log (what the second stage
 * printed) and lock.
 *
 * Threading: the caller's; of two processes that make one root the second is refused.
 */
#include "lab/debian.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "base/report.h"
#include "lab/cache.h"
#include "lab/debian_plan.h"
#include "lab/debian_tree.h"
#include "lab/progress.h"

#define DEFAULT_SUITE "bookworm"
enum {
    GROWTH = 6, /* a Debian root takes five times what is fetched for it */
    LOCK_TRIES = 30,
    SPARE_MB = 192, /* in an image, for what the second stage makes and for use */
};

static const char script[] =
#include "lab/second-stage.inc"
    ;

/* --- files of the root that are ours ----------------------------------------------------------------- */

/* eth0 has its address from the initramfs, or from the kernel; on a disk, nobody has given it one. */
static const char network[] =
    "# armlet: the user-mode network.  A root over NFS must keep its address to the end.\n"
    "[Match]\nType=ether\n\n[Network]\nDHCP=ipv4\nKeepConfiguration=yes\n";
static const char autologin[] =
    "# armlet: whoever has the console is root.\n[Service]\nExecStart=\n"
    "ExecStart=-/sbin/agetty -o '-p -f -- \\\\u' --autologin root --noclear --keep-baud "
    "115200,57600,38400,9600 %I ${TERM}\n";
/* As etc/profile of the busybox root does: the kernel's command line has the size of the host's terminal. */
static const char profile[] = "# armlet boot: the size of the terminal, which a serial line cannot tell.\n"
                              "if [ \"$(tty)\" = /dev/ttyAMA0 ]; then\n"
                              "    for word in $(cat /proc/cmdline); do\n"
                              "        case $word in\n"
                              "        LINES=*) stty rows \"${word#*=}\" ;;\n"
                              "        COLUMNS=*) stty cols \"${word#*=}\" ;;\n"
                              "        esac\n"
                              "    done\n"
                              "    unset LINES COLUMNS word\n"
                              "fi\n";

/* The host's settings for the way to the mirror, as far as they hold for the guest. */
static char *guest_apt_conf(void)
{
    static const char *const kept[] = {"Acquire::http::Proxy", "Acquire::https::Proxy",
                                       "Acquire::Check-Valid-Until", "Acquire::Check-Date"};
    static const char *const argv[] = {"apt-config", "dump", NULL};
    g_autoptr(GByteArray) text = g_byte_array_new();
    GString *out = g_string_new(
        "// armlet: the package lists stay compressed; what the host's apt needs for its mirror.\n"
        "Acquire::GzipIndexes \"true\";\nAcquire::Languages \"none\";\n");

    if (cache_run(&(struct cache_run){.argv = argv, .output = text}, NULL)) {
        g_byte_array_append(text, (const guint8 *)"", 1);
        g_auto(GStrv) lines = g_strsplit((char *)text->data, "\n", -1);
        for (char **l = lines; *l; l++)
            for (unsigned i = 0; i < G_N_ELEMENTS(kept); i++)
                if (g_str_has_prefix(*l, kept[i]) && !strstr(*l, " \"\";")) {
                    g_autofree char *line = debian_guest_uri(*l);
                    g_string_append_printf(out, "%s\n", line);
                }
    }
    return g_string_free(out, FALSE);
}

static bool put_ours(struct debian_tree *t, const struct debian_plan *plan, GError **err)
{
    g_autofree char *conf = guest_apt_conf();
    const struct {
        const char *path, *text;
    } files[] = {
        {"/etc/hostname", "armlet\n"},
        {"/etc/hosts", "127.0.0.1 localhost armlet\n::1 localhost ip6-localhost ip6-loopback\n"},
        {"/etc/resolv.conf", "nameserver 10.0.2.3\n"},
        {"/etc/fstab", "# The root is mounted already.\n"},
        {"/etc/apt/sources.list", plan->sources},
        {"/etc/apt/apt.conf.d/90armlet", conf},
        {"/etc/systemd/network/80-armlet.network", network},
        {"/etc/systemd/system/serial-getty@ttyAMA0.service.d/armlet.conf", autologin},
        {"/etc/profile.d/armlet.sh", profile},
        {"/.armlet/second-stage", script},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++)
        if (!debian_tree_put_text(t, files[i].path, 0644, files[i].text, err))
            return false;
    return true;
}

/* A file of the host's into the root. */
static bool put_copy(struct debian_tree *t, const char *path, const char *from, GError **err)
{
    g_autofree char *data = NULL;
    gsize size;

    return g_file_get_contents(from, &data, &size, err) && debian_tree_put(t, path, 0644, data, size, err);
}

/* The package lists, so that apt in the guest knows what there is: files named after addresses, as the guest
 * has them. */
static bool put_lists(struct debian_tree *t, const struct debian_plan *plan, GError **err)
{
    g_autofree char *folder = g_build_filename(plan->top, "lists", NULL);
    GDir *dir = g_dir_open(folder, 0, err);
    const char *name;
    bool ok = dir != NULL;

    while (ok && (name = g_dir_read_name(dir))) {
        static const char *const ours[] = {"localhost", "127.0.0.1"};
        g_autofree char *from = g_build_filename(folder, name, NULL);
        const char *host = "", *rest = name;
        if (!strstr(name, "_dists_"))
            continue;
        for (unsigned i = 0; i < G_N_ELEMENTS(ours); i++)
            if (g_str_has_prefix(name, ours[i])) {
                host = "10.0.2.2";
                rest = name + strlen(ours[i]);
            }
        g_autofree char *path = g_strconcat("/var/lib/apt/lists/", host, rest, NULL);
        ok = put_copy(t, path, from, err);
    }
    if (dir)
        g_dir_close(dir);
    return ok;
}

/* For the second stage: the names for apt, and the files that it will look for in its cache. */
static bool put_included(struct debian_tree *t, const struct debian_plan *plan, char *const *include,
                         GError **err)
{
    g_autofree char *names = include ? g_strjoinv(" ", (char **)include) : g_strdup("");
    bool ok = debian_tree_put_text(t, "/.armlet/include", 0644, names, err);

    for (guint i = 0; ok && i < plan->packages->len; i++) {
        const struct debian_package *p = plan->packages->pdata[i];
        g_autofree char *from = debian_plan_file(plan, p),
                        *path = g_strconcat("/var/cache/apt/archives/", p->file, NULL);
        ok = !p->included || put_copy(t, path, from, err);
    }
    return ok;
}

/* --- the first stage --------------------------------------------------------------------------------- */

/* Links where folders were before /usr was merged, so that packages of any age fall into place. */
static bool merge_usr(const char *tree, GError **err)
{
    static const char *const names[] = {"bin", "sbin", "lib"};

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *target = g_strconcat("usr/", names[i], NULL),
                        *path = g_build_filename(tree, names[i], NULL);
        g_autofree char *folder = g_build_filename(tree, target, NULL);
        if (!cache_make_folder(folder, err))
            return false;
        if (symlink(target, path) && errno != EEXIST) {
            g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot make the link %s: %s", path, g_strerror(errno));
            return false;
        }
    }
    return true;
}

static bool unpack_all(struct debian_tree *t, const struct debian_plan *plan, GError **err)
{
    struct progress progress;
    bool ok = true;

    progress_begin(&progress, "unpacking");
    for (guint i = 0; ok && i < plan->packages->len; i++) {
        const struct debian_package *p = plan->packages->pdata[i];
        g_autofree char *file = debian_plan_file(plan, p);
        ok = p->included || debian_tree_unpack(t, file, err);
        progress_percent(&progress, 100.0 * i / plan->packages->len);
    }
    progress_end(&progress, ok);
    return ok;
}

static bool fill_tree(const struct lab_debian *what, const struct debian_work *w,
                      const struct debian_plan *plan, GError **err)
{
    struct debian_tree *t;
    bool ok;

    cache_remove(w->tree);
    if (!cache_make_folder(w->tree, err) || !merge_usr(w->tree, err))
        return false;
    t = debian_tree_new(w->tree, what->real);
    ok = unpack_all(t, plan, err) && debian_tree_finish(t, err) && put_ours(t, plan, err) &&
         put_lists(t, plan, err) && put_included(t, plan, what->include, err) &&
         (what->root->format != LAB_ROOT_EXT4 || debian_tree_put_text(t, "/.armlet/image", 0644, "", err)) &&
         (!what->keyring || put_copy(t, "/etc/apt/keyrings/armlet.gpg", what->keyring, err));
    debian_tree_free(t);
    return ok;
}

/* Owners and devices are kept in attributes, which some file systems do not have (NFS, vfat, tmpfs before
 * Linux 6.6). */
static bool check_attributes(const struct lab_debian *what, const char *folder, GError **err)
{
    static const char name[] = "user.armlet.probe";
    int e;

    if (what->real)
        return true;
    e = setxattr(folder, name, "1", 1, 0) ? errno : 0;
    removexattr(folder, name);
    if (!e)
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_IO,
                "%s: the file system keeps no extended attributes (%s), which owners and modes of the "
                "guest's files need; give a path on another one",
                what->root->path, g_strerror(e));
    return false;
}

static bool check_space(const struct debian_plan *plan, const char *folder, GError **err)
{
    struct statvfs st;
    uint64_t needed = 0;

    for (guint i = 0; i < plan->packages->len; i++) {
        g_autofree char *file = debian_plan_file(plan, plan->packages->pdata[i]);
        GStatBuf s;
        needed += g_stat(file, &s) ? 0 : (uint64_t)s.st_size * GROWTH;
    }
    if (statvfs(folder, &st) || (uint64_t)st.f_bavail * st.f_frsize >= needed)
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_SPACE,
                "%s: the root needs some %" G_GUINT64_FORMAT " MB, and %" G_GUINT64_FORMAT " MB are free",
                folder, needed >> 20, ((uint64_t)st.f_bavail * st.f_frsize) >> 20);
    return false;
}

static int lock_work(const struct debian_work *w, const char *path, GError **err)
{
    g_autofree char *name = g_build_filename(w->folder, "lock", NULL);
    int fd = cache_make_folder(w->folder, err) ? open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;

    for (unsigned tries = 0; fd >= 0 && tries < LOCK_TRIES;
         tries++) { /* one that was killed takes a moment to be gone */
        if (!flock(fd, LOCK_EX | LOCK_NB))
            return fd;
        g_usleep(G_USEC_PER_SEC / 10);
    }
    if (fd >= 0)
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "%s is being made by another armlet", path);
    else if (err && !*err)
        g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot make %s: %s", name, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static const char *suite_of(const struct lab_debian *what)
{
    return what->suite ? what->suite : DEFAULT_SUITE;
}

/*
 * The image that the second stage fills, and what belongs on top, which it must find in the tree then.  What
 * is not written takes no room.
 */
static bool make_image(const struct lab_debian *what, struct debian_work *w, GError **err)
{
    const struct lab_root *root = what->root;
    uint64_t needed, size;
    int fd;

    if (root->format != LAB_ROOT_EXT4)
        return true;
    if (!rootfs_add(root, w->tree, err) || !rootfs_measure(w->tree, &needed, err))
        return false;
    if (root->size && root->size < needed) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_SPACE, "%s: its files take %" G_GUINT64_FORMAT " MiB",
                    root->path, needed >> 20);
        return false;
    }
    size = root->size ? root->size : needed + needed / 4 + ((uint64_t)SPARE_MB << 20);
    w->image = g_build_filename(w->folder, "image", NULL);
    g_unlink(w->image);
    fd = open(w->image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool ok = fd >= 0 && !ftruncate(fd, (off_t)size);
    if (!ok)
        g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot make %s: %s", w->image, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok;
}

/* Packages, sources, and how owners are kept: what a tree was begun with. */
static char *describe(const struct lab_debian *what, const struct debian_plan *plan)
{
    g_autofree char *packages = debian_plan_text(plan);

    return g_strdup_printf("%s%s%s%s%s", packages, plan->sources, what->real ? "real\n" : "mapped\n",
                           what->root->format == LAB_ROOT_EXT4 ? "image\n" : "", script);
}

static bool begin_with_plan(const struct lab_debian *what, struct debian_work *w, struct debian_plan *plan,
                            GError **err)
{
    g_autofree char *file = g_build_filename(w->folder, "plan", NULL), *now = describe(what, plan),
                    *before = NULL;

    for (guint i = 0; i < plan->packages->len; i++)
        w->included += ((struct debian_package *)plan->packages->pdata[i])->included;
    w->packages = plan->packages->len - w->included;
    w->continued = g_file_get_contents(file, &before, NULL, NULL) && !strcmp(before, now);
    if (w->continued) {
        warn("going on with %s, which an earlier run has begun", w->folder);
        return make_image(what, w, err);
    }
    g_unlink(file);
    return debian_plan_fetch(plan, err) && check_space(plan, w->folder, err) &&
           fill_tree(what, w, plan, err) && cache_write_file(file, now, strlen(now), err) &&
           make_image(what, w, err);
}

static struct debian_plan *plan_of(const struct lab_debian *what, GError **err)
{
    return debian_plan_new(suite_of(what), what->mirror, what->keyring, what->include, err);
}

static bool has_plan(const struct debian_work *w)
{
    g_autofree char *file = g_build_filename(w->folder, "plan", NULL);

    return !g_access(file, F_OK);
}

bool lab_debian_begin(const struct lab_debian *what, struct debian_work *w, GError **err)
{
    const char *path = what->root->path;
    struct debian_plan *plan = NULL;
    bool ok = false;
    int cache;

    *w = (struct debian_work){.folder = g_strconcat(path, ".making", NULL), .lock = -1};
    w->tree = g_build_filename(w->folder, "tree", NULL);
    w->log = g_build_filename(w->folder, "log", NULL);
    if (!rootfs_check_target(what->root, err) || (w->lock = lock_work(w, path, err)) < 0)
        return false;
    if (check_attributes(what, w->folder, err)) {
        cache = cache_lock(err);
        ok = cache >= 0 && (plan = plan_of(what, err)) && begin_with_plan(what, w, plan, err);
        cache_unlock(cache);
        debian_plan_free(plan);
    }
    if (!ok && !has_plan(w)) /* nothing that could be gone on with, but for what is in the cache */
        cache_remove(w->folder);
    return ok;
}

char *lab_debian_plan(const struct lab_debian *what, GError **err)
{
    int cache = cache_lock(err);
    struct debian_plan *plan = cache >= 0 ? plan_of(what, err) : NULL;
    char *text = plan ? debian_plan_text(plan) : NULL;

    cache_unlock(cache);
    debian_plan_free(plan);
    return text;
}

/* --- the second stage -------------------------------------------------------------------------------- */

double lab_debian_progress(struct debian_work *w, const char *line)
{
    /* A package is configured in less time than it is installed in. */
    double all = w->packages + 3.0 * w->included, percent;
    char name[128], state[32];

    if (sscanf(line, "pmstatus:%*[^:]:%lf:", &percent) == 1)
        return 100 * (w->packages + 3.0 * w->included * percent / 100) / all;
    if (sscanf(line, "status: %127[^ ] %31s", name, state) != 2 || strcmp(state, "installed"))
        return -1;
    w->done++;
    return 100.0 * MIN(w->done, w->packages) / all;
}

bool lab_debian_end(const struct lab_debian *what, struct debian_work *w, GError **err)
{
    g_autofree char *ours = g_build_filename(w->tree, ".armlet", NULL);

    cache_remove(ours);
    if (!w->image && !rootfs_add(what->root, w->tree, err))
        return false;
    if (what->root->format == LAB_ROOT_INITRAMFS) {
        if (!rootfs_archive(w->tree, what->root->path, what->real, err))
            return false;
    } else if (rename(w->image ? w->image : w->tree, what->root->path)) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot make %s: %s", what->root->path, g_strerror(errno));
        return false;
    }
    cache_remove(w->folder);
    return true;
}

void lab_debian_clear(struct debian_work *w)
{
    if (w->lock >= 0)
        close(w->lock);
    g_free(w->folder);
    g_free(w->tree);
    g_free(w->log);
    g_free(w->image);
    *w = (struct debian_work){.lock = -1};
}
