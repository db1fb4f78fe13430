/*
 * The cache folder.  See cache.h.
 *
 * Invariant: what has its final name is complete, because it got that name by rename().  Everything
 * unfinished is below tmp/, and only the holder of the lock works there, so that the next holder may delete
 * what a killed process left behind.
 *
 * Threading: the caller's; other processes are kept out by the lock.
 */
#include "lab/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "base/report.h"
#include "lab/lab.h"

GQuark lab_error_quark(void)
{
    return g_quark_from_static_string("armlet-lab");
}

/* The error for a failed host call: `what' is a phrase like "cannot write PATH". */
static void set_errno(GError **err, int code, const char *what, const char *path)
{
    if (code == ENOSPC || code == EDQUOT)
        g_set_error(err, LAB_ERROR, LAB_ERROR_SPACE,
                    "%s %s: the disk is full (XDG_CACHE_HOME names another place)", what, path);
    else
        g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "%s %s: %s", what, path, g_strerror(code));
}

char *cache_path(const char *first, ...)
{
    /* Not g_get_user_cache_dir(), which keeps its first answer. */
    const char *base = g_getenv("XDG_CACHE_HOME");
    GString *path = g_string_new(NULL);
    va_list ap;

    if (base && g_path_is_absolute(base))
        g_string_append_printf(path, "%s/armlet", base);
    else
        g_string_append_printf(path, "%s/.cache/armlet", g_get_home_dir());
    va_start(ap, first);
    for (const char *part = first; part; part = va_arg(ap, const char *))
        g_string_append_printf(path, "/%s", part);
    va_end(ap);
    return g_string_free(path, FALSE);
}

bool cache_make_folder(const char *path, GError **err)
{
    if (!g_mkdir_with_parents(path, 0755))
        return true;
    set_errno(err, errno, "cannot make folder", path);
    return false;
}

int cache_lock(GError **err)
{
    char *top = cache_path("", NULL), *path = cache_path("lock", NULL);
    int fd = -1;

    if (cache_make_folder(top, err)) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0) {
            set_errno(err, errno, "cannot open", path);
        } else if (flock(fd, LOCK_EX | LOCK_NB)) {
            warn("waiting for another armlet that is filling %s", top);
            while (flock(fd, LOCK_EX) && errno == EINTR)
                ;
        }
    }
    g_free(top);
    g_free(path);
    return fd;
}

void cache_unlock(int fd)
{
    if (fd >= 0)
        close(fd);
}

char *cache_get(const struct cache_item *item, GError **err)
{
    char *found = item->anew ? NULL : item->find(item->what);
    int lock;

    if (found)
        return found;
    lock = cache_lock(err);
    if (lock < 0)
        return NULL;
    /* Who held the lock before may have made it for us. */
    found = item->anew ? NULL : item->find(item->what);
    if (!found && item->make(item->what, err)) {
        found = item->find(item->what);
        if (!found)
            g_set_error_literal(err, LAB_ERROR, LAB_ERROR_FAILED, item->lost);
    }
    cache_unlock(lock);
    return found;
}

char *cache_newest(const char *folder, const char *prefix)
{
    g_autofree char *top = cache_path(folder, NULL), *best = NULL;
    GDir *dir = g_dir_open(top, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir)))
        if (g_str_has_prefix(name, prefix) && (!best || strverscmp(name, best) > 0)) {
            g_free(best);
            best = g_strdup(name);
        }
    if (dir)
        g_dir_close(dir);
    return best ? g_build_filename(top, best, NULL) : NULL;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    /* A folder without write permission, as packages have them, could not be emptied. */
    if (kind == FTW_D)
        chmod(path, 0700);
    else
        remove(path);
    return 0;
}

static int remove_folder(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    remove(path);
    return 0;
}

void cache_remove(const char *path)
{
    nftw(path, remove_entry, 16, FTW_PHYS);
    nftw(path, remove_folder, 16, FTW_PHYS | FTW_DEPTH);
}

char *cache_new_folder(GError **err)
{
    char *tmp = cache_path("tmp", NULL), *folder = NULL;

    cache_remove(tmp);
    if (cache_make_folder(tmp, err)) {
        folder = g_build_filename(tmp, "XXXXXX", NULL);
        if (!g_mkdtemp(folder)) {
            set_errno(err, errno, "cannot make a folder in", tmp);
            g_clear_pointer(&folder, g_free);
        }
    }
    g_free(tmp);
    return folder;
}

bool cache_publish(const char *folder, const char *path, GError **err)
{
    char *parent = g_path_get_dirname(path);
    bool ok = cache_make_folder(parent, err);
    int fd = ok ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    g_free(parent);
    if (!ok)
        return false;
    /* The data must be on the disk before the name says that it is complete. */
    if (fd < 0 || syncfs(fd) || g_chmod(folder, 0755) || rename(folder, path)) {
        set_errno(err, errno, "cannot create", path);
        ok = false;
    }
    if (fd >= 0)
        close(fd);
    return ok;
}

bool cache_write_file(const char *path, const void *data, size_t size, GError **err)
{
    char *parent = g_path_get_dirname(path);
    bool ok = cache_make_folder(parent, err);
    GError *why = NULL;

    g_free(parent);
    if (!ok)
        return false;
    if (g_file_set_contents_full(path, data, (gssize)size, G_FILE_SET_CONTENTS_CONSISTENT, 0644, &why))
        return true;
    if (g_error_matches(why, G_FILE_ERROR, G_FILE_ERROR_NOSPC))
        set_errno(err, ENOSPC, "cannot write", path);
    else
        g_set_error_literal(err, LAB_ERROR, LAB_ERROR_IO, why->message);
    g_error_free(why);
    return false;
}

bool cache_check_space(uint64_t bytes, GError **err)
{
    char *top = cache_path("", NULL);
    struct statvfs st;
    bool ok = !statvfs(top, &st);
    uint64_t free_bytes = ok ? (uint64_t)st.f_bavail * st.f_frsize : 0;

    if (ok && free_bytes < bytes) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_SPACE,
                    "%s needs %" G_GUINT64_FORMAT " MB and has %" G_GUINT64_FORMAT
                    " MB free (XDG_CACHE_HOME names another place)",
                    top, (bytes >> 20) + 1, free_bytes >> 20);
        ok = false;
    } else if (!ok) {
        set_errno(err, errno, "cannot look at", top);
    }
    g_free(top);
    return ok;
}

struct child {
    int status_fd;
    bool group;
};

/* In the child, before it becomes the program. */
static void prepare_child(void *opaque)
{
    const struct child *child = opaque;

    if (child->group)
        setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(child->status_fd, 3); /* also clears close-on-exec */
}

/*
 * Only a child hears that its parent is gone, not its children in turn: apt's methods would go on writing
 * where the next apt writes, and those of make building.  (apt's methods date what they have on SIGTERM,
 * without which it is not resumed.)
 */
static const char group_script[] = "trap 'trap \"\" TERM; kill -TERM 0; exit 143' TERM; \"$@\" & wait $!";

/*
 * What is to be started for run: its argv, behind a shell that ends the group if there is one.  g_free() it.
 */
static char **make_argv(const struct cache_run *run)
{
    static const char *const shell[] = {"sh", "-c", group_script, "sh"};
    GPtrArray *argv = g_ptr_array_new();

    for (unsigned i = 0; run->group && i < G_N_ELEMENTS(shell); i++)
        g_ptr_array_add(argv, (gpointer)shell[i]);
    for (const char *const *a = run->argv; *a; a++)
        g_ptr_array_add(argv, (gpointer)*a);
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, FALSE);
}

/* status_fd: the child's descriptor 3.  fds[0..1]: its standard output and error. */
static bool start(const struct cache_run *run, int status_fd, GPid *pid, int fds[2])
{
    g_auto(GStrv) env = g_environ_setenv(g_get_environ(), "LC_ALL", "C", TRUE);
    g_autofree char **argv = make_argv(run);
    g_autofree char *program = g_find_program_in_path(run->argv[0]);
    struct child child = {status_fd, run->group};

    return program &&
           g_spawn_async_with_pipes(NULL, argv, env, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                                    prepare_child, &child, pid, NULL, &fds[0], &fds[1], NULL);
}

/* The last line of `text' that says what went wrong, without apt's mark in front. */
static char *last_complaint(const char *text)
{
    char **lines = g_strsplit(text, "\n", -1);
    const char *best = "";
    char *result;

    for (char **l = lines; *l; l++)
        if (**l && (!g_str_has_prefix(best, "E: ") || g_str_has_prefix(*l, "E: ")))
            best = *l;
    result = g_strdup(g_str_has_prefix(best, "E: ") ? best + 3 : best);
    g_strfreev(lines);
    return result;
}

static void set_run_error(GError **err, const char *program, const char *text)
{
    /* The first that occurs decides; those further down also occur in what apt says about the ones above. */
    static const struct {
        const char *sign, *advice;
        enum lab_error code;
    } known[] = {
        {"No space left on device", "the disk is full (XDG_CACHE_HOME names another place)", LAB_ERROR_SPACE},
        {"Disk quota exceeded", "the disk quota is used up (XDG_CACHE_HOME names another place)",
         LAB_ERROR_SPACE},
        {"enough free space", "the disk is full (XDG_CACHE_HOME names another place)", LAB_ERROR_SPACE},
        {"404  Not Found", "the mirror does not have it", LAB_ERROR_NOT_FOUND},
        {"not signed", "the mirror's lists do not bear Debian's signature", LAB_ERROR_FAILED},
        {"GPG error", "the mirror's lists do not bear Debian's signature", LAB_ERROR_FAILED},
        {"Hash Sum mismatch", "the mirror is being updated, try again in a while", LAB_ERROR_FAILED},
        {"resolving", "no network?", LAB_ERROR_NETWORK},
        {"Could not resolve", "no network?", LAB_ERROR_NETWORK},
        {"Could not connect", "no network?", LAB_ERROR_NETWORK},
        {"connection failed", "no network?", LAB_ERROR_NETWORK},
        {"Connection failed", "no network?", LAB_ERROR_NETWORK},
        {"timed out", "no network?", LAB_ERROR_NETWORK},
        {"Failed to fetch", "no network?", LAB_ERROR_NETWORK},
        {"Unable to locate package", "the mirror does not have it", LAB_ERROR_NOT_FOUND},
        {"No packages found", "the mirror does not have it", LAB_ERROR_NOT_FOUND},
    };
    char *line = last_complaint(text);

    for (size_t i = 0; i < G_N_ELEMENTS(known); i++)
        if (strstr(text, known[i].sign)) {
            g_set_error(err, LAB_ERROR, (int)known[i].code, "%s; %s says: %s", known[i].advice, program,
                        line);
            g_free(line);
            return;
        }
    g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "%s failed: %s", program, line);
    g_free(line);
}

/* apt's status lines, "dlstatus:1:43.5:text", out of what has been read so far; keeps an unfinished line. */
static void read_status(const struct cache_run *run, GByteArray *seen)
{
    char *nl;

    while (seen->len && (nl = memchr(seen->data, '\n', seen->len))) {
        double percent;

        *nl = '\0';
        if (run->percent && sscanf((char *)seen->data, "dlstatus:%*[^:]:%lf:", &percent) == 1)
            run->percent(run->opaque, percent);
        g_byte_array_remove_range(seen, 0, (guint)(nl + 1 - (char *)seen->data));
    }
}

/* Read from the three pipes until all are closed. */
static void read_pipes(const struct cache_run *run, int fds[3], GByteArray *out, GByteArray *errors)
{
    GByteArray *status = g_byte_array_new();
    GByteArray *into[3] = {out, errors, status};
    unsigned open_pipes = 3;

    while (open_pipes) {
        struct pollfd p[3];

        for (unsigned i = 0; i < 3; i++)
            p[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
        if (poll(p, 3, -1) < 0)
            continue;
        for (unsigned i = 0; i < 3; i++) {
            guint8 buf[16384];
            ssize_t n;

            if (!p[i].revents)
                continue;
            n = read(fds[i], buf, sizeof buf);
            if (n > 0) {
                g_byte_array_append(into[i], buf, (guint)n);
            } else if (n == 0 || errno != EINTR) {
                close(fds[i]);
                fds[i] = -1;
                open_pipes--;
            }
        }
        read_status(run, status);
    }
    g_byte_array_unref(status);
}

bool cache_run(const struct cache_run *run, GError **err)
{
    GByteArray *out = run->output ? g_byte_array_ref(run->output) : g_byte_array_new();
    GByteArray *errors = g_byte_array_new();
    int pipes[2], fds[3], wait_status = 0;
    bool ok = false;
    GPid pid;

    if (pipe2(pipes, O_CLOEXEC)) {
        set_errno(err, errno, "cannot start", run->argv[0]);
    } else if (!start(run, pipes[1], &pid, fds)) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_TOOL, "needs the program %s, which is not installed",
                    run->argv[0]);
        close(pipes[0]);
        close(pipes[1]);
    } else {
        close(pipes[1]);
        fds[2] = pipes[0];
        read_pipes(run, fds, out, run->merge ? out : errors);
        while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
            ;
        ok = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
        if (!ok) {
            GByteArray *text = run->merge ? out : errors;

            g_byte_array_append(text, (const guint8 *)"", 1);
            set_run_error(err, run->argv[0], (const char *)text->data);
        }
    }
    g_byte_array_unref(out);
    g_byte_array_unref(errors);
    return ok;
}
