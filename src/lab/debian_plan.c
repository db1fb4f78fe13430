/*
 * The packages of a Debian root, chosen by apt: what Debian calls required, what such a root needs to boot
 * and to be used, and what the user asks for.  Each set of sources has a private state of its own in the
 * cache.
 *
 * Threading: the caller's; processes by the cache's lock.
 */
#include "lab/debian_plan.h"

#include <string.h>

#include <glib/gstdio.h>

#include "base/report.h"
#include "lab/apt.h"
#include "lab/cache.h"
#include "lab/lab.h"
#include "lab/progress.h"

/*
 * usr-is-merged: else apt takes usrmerge for the same, and perl with it; only where the suite has it.  A root
 * over NFS has its address from the kernel's command line, and systemd-networkd keeps it.
 */
static const char *const base[] = {"apt",
                                   "debian-archive-keyring",
                                   "init",
                                   "systemd-sysv",
                                   "libpam-systemd",
                                   "dbus",
                                   "udev",
                                   "kmod",
                                   "iproute2",
                                   "iputils-ping",
                                   "netbase",
                                   "procps",
                                   "less",
                                   "nano",
                                   "usr-is-merged",
                                   NULL};

static void free_package(gpointer opaque)
{
    struct debian_package *p = opaque;

    g_free(p->name);
    g_free(p->version);
    g_free(p->file);
    g_free(p);
}

void debian_plan_free(struct debian_plan *p)
{
    if (!p)
        return;
    g_free(p->top);
    g_free(p->sources);
    g_ptr_array_unref(p->packages);
    g_ptr_array_unref(p->wanted);
    g_free(p);
}

/* --- sources ----------------------------------------------------------------------------------------- */

char *debian_guest_uri(const char *uri)
{
    static const char *const ours[] = {"://localhost", "://127.0.0.1", "://[::1]"};

    for (unsigned i = 0; i < G_N_ELEMENTS(ours); i++) {
        const char *at = strstr(uri, ours[i]);
        const char *behind = at ? at + strlen(ours[i]) : NULL;
        if (at && (!*behind || *behind == '/' || *behind == ':'))
            return g_strdup_printf("%.*s://10.0.2.2%s", (int)(at - uri), uri, behind);
    }
    return g_strdup(uri);
}

/* A mirror that the guest can use: what is a file of the host's, or goes ways that need more than apt, is
 * not. */
static char *guest_mirror(const char *uri, const char *otherwise)
{
    return g_str_has_prefix(uri, "http") ? debian_guest_uri(uri) : g_strdup(otherwise);
}

/* options: with what stands in brackets, for the host or for the guest. */
static char *make_sources(const char *suite, const char *mirror, const char *options, bool guest)
{
    g_autofree char *debian = NULL, *security = NULL;

    apt_host_mirrors(suite, &debian, &security);
    if (mirror) {
        g_autofree char *uri = guest ? debian_guest_uri(mirror) : g_strdup(mirror);
        return g_strdup_printf("deb %s%s %s main\n", options, uri, suite);
    }
    g_autofree char *d = guest ? guest_mirror(debian, "http://deb.debian.org/debian") : g_strdup(debian);
    g_autofree char *s =
        guest ? guest_mirror(security, "http://deb.debian.org/debian-security") : g_strdup(security);
    return g_strdup_printf("deb %s%s %s main\ndeb %s%s %s-updates main\ndeb %s%s %s-security main\n", options,
                           d, suite, options, d, suite, options, s, suite);
}

/* Without a network, yesterday's lists will do: what they name may be in the cache. */
static bool update(const char *top, GError **err)
{
    g_autofree char *stamp = g_build_filename(top, "updated", NULL);
    GError *why = NULL;

    if (apt_update(top, false, &why))
        return true;
    if (!g_error_matches(why, LAB_ERROR, LAB_ERROR_NETWORK) || g_access(stamp, F_OK)) {
        g_propagate_error(err, why);
        return false;
    }
    warn("%s; going on with the package lists that are there", why->message);
    g_error_free(why);
    return true;
}

/* A state that never had lists: its sources were wrong. */
static void forget_if_empty(const char *top)
{
    g_autofree char *stamp = g_build_filename(top, "updated", NULL);

    if (g_access(stamp, F_OK))
        cache_remove(top);
}

/* The private state: a folder for each set of sources. */
static bool make_state(struct debian_plan *p, const char *suite, const char *mirror, const char *keyring,
                       GError **err)
{
    const char *keys = keyring ? keyring : APT_KEYRING;
    g_autofree char *options = g_strdup_printf("[arch=arm64 signed-by=%s] ", keys);
    g_autofree char *sources = make_sources(suite, mirror, options, false);
    g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, sources, -1);
    g_autofree char *name = g_strdup_printf("apt-%s-%.8s", suite, sum);

    if (g_access(keys, R_OK)) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_TOOL, keyring ? "--keyring %s: cannot be read%s" : "needs %s%s",
                    keys, keyring ? "" : ", from the package debian-archive-keyring");
        return false;
    }
    p->top = cache_path(name, NULL);
    p->sources =
        make_sources(suite, mirror, keyring ? "[signed-by=/etc/apt/keyrings/armlet.gpg] " : "", true);
    if (apt_configure(p->top, sources, err) && update(p->top, err))
        return true;
    forget_if_empty(p->top);
    if (mirror)
        g_prefix_error(err, "--mirror %s: ", mirror);
    else
        g_prefix_error(err, "Debian %s: ", suite);
    return false;
}

/* --- choosing ---------------------------------------------------------------------------------------- */

struct catalogue {
    GHashTable *names;
    GPtrArray *required;
};

/* A stanza of `apt-cache dumpavail', which begins with the package's name. */
static void note_stanza(struct catalogue *c, const char *stanza, size_t len)
{
    static const char mark[] = "Package: ";
    const char *nl = memchr(stanza, '\n', len);

    if (!nl || strncmp(stanza, mark, sizeof(mark) - 1))
        return;
    char *name = g_strndup(stanza + sizeof(mark) - 1, (size_t)(nl - stanza) - sizeof(mark) + 1);
    if (memmem(stanza, len, "\nPriority: required\n", 20) || memmem(stanza, len, "\nEssential: yes\n", 16))
        g_ptr_array_add(c->required, g_strdup(name));
    g_hash_table_add(c->names, name);
}

static bool read_catalogue(const struct debian_plan *p, struct catalogue *c, GError **err)
{
    static const char *const dump[] = {"dumpavail", NULL};
    g_autoptr(GByteArray) text = g_byte_array_new();

    if (!apt_run(p->top, "apt-cache", dump, text, NULL, err))
        return false;
    g_byte_array_append(text, (const guint8 *)"\n", 2);
    for (const char *s = (const char *)text->data, *end; *s; s = end) {
        end = strstr(s, "\n\n");
        end = end ? end + 1 : s + strlen(s);
        note_stanza(c, s, (size_t)(end - s));
        end += strspn(end, "\n");
    }
    if (c->required->len)
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND,
                "the mirror has no arm64 packages that are required in Debian");
    return false;
}

/* "Inst NAME (VERSION ORIGIN... [ARCHITECTURE])" of a simulation. */
static struct debian_package *parse_inst(const char *line)
{
    g_autoptr(GRegex) re = g_regex_new("^Inst (\\S+) \\((\\S+) .*\\[(\\S+)\\]\\)", 0, 0, NULL);
    g_autoptr(GMatchInfo) m = NULL;
    struct debian_package *p;

    if (!g_regex_match(re, line, 0, &m))
        return NULL;
    p = g_new0(struct debian_package, 1);
    p->name = g_match_info_fetch(m, 1);
    p->version = g_match_info_fetch(m, 2);
    g_autofree char *arch = g_match_info_fetch(m, 3);
    g_auto(GStrv) parts = g_strsplit(p->version, ":", -1); /* as apt calls its files */
    g_autofree char *quoted = g_strjoinv("%3a", parts);
    p->file = g_strdup_printf("%s_%s_%s.deb", p->name, quoted, arch);
    return p;
}

/* What apt would install for `wanted'. */
static GPtrArray *simulate(const struct debian_plan *p, GPtrArray *wanted, GError **err)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    g_autoptr(GByteArray) text = g_byte_array_new();

    g_ptr_array_add(args, (gpointer) "-q");
    g_ptr_array_add(args, (gpointer) "-s");
    g_ptr_array_add(args, (gpointer) "install");
    for (guint i = 0; i < wanted->len; i++)
        g_ptr_array_add(args, wanted->pdata[i]);
    g_ptr_array_add(args, NULL);
    if (!apt_run(p->top, "apt-get", (const char *const *)args->pdata, text, NULL, err))
        return NULL;
    g_byte_array_append(text, (const guint8 *)"", 1);
    g_auto(GStrv) lines = g_strsplit((char *)text->data, "\n", -1);
    GPtrArray *list = g_ptr_array_new_with_free_func(free_package);
    for (char **l = lines; *l; l++) {
        struct debian_package *found = parse_inst(*l);
        if (found)
            g_ptr_array_add(list, found);
    }
    return list;
}

static gboolean has_name(gconstpointer package, gconstpointer name)
{
    return !strcmp(((const struct debian_package *)package)->name, name);
}

/* Marks in `all' what is not in `few'; both are of the same apt.  What only `few' has is a contradiction. */
static bool mark_included(GPtrArray *all, GPtrArray *few, GError **err)
{
    for (guint i = 0; i < all->len; i++) {
        struct debian_package *p = all->pdata[i];
        p->included = !g_ptr_array_find_with_equal_func(few, p->name, has_name, NULL);
    }
    for (guint i = 0; i < few->len; i++) {
        const struct debian_package *p = few->pdata[i];
        if (!g_ptr_array_find_with_equal_func(all, p->name, has_name, NULL)) {
            g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED,
                        "what --include asks for leaves no place for %s, which the root needs", p->name);
            return false;
        }
    }
    return true;
}

static bool choose(struct debian_plan *p, char *const *include, GError **err)
{
    struct catalogue c = {g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
                          g_ptr_array_new_with_free_func(g_free)};
    GPtrArray *few = NULL;
    bool ok = read_catalogue(p, &c, err);

    for (guint i = 0; ok && i < c.required->len; i++)
        g_ptr_array_add(p->wanted, g_strdup(c.required->pdata[i]));
    for (const char *const *b = base; ok && *b; b++)
        if (g_hash_table_contains(c.names, *b))
            g_ptr_array_add(p->wanted, g_strdup(*b));
    ok = ok && (few = simulate(p, p->wanted, err));
    for (char *const *i = include; ok && i && *i; i++)
        g_ptr_array_add(p->wanted, g_strdup(*i));
    if (ok && include && *include) {
        g_ptr_array_unref(p->packages);
        p->packages = simulate(p, p->wanted, err);
        if (!p->packages)
            g_prefix_error(err, "--include: ");
        ok = p->packages && mark_included(p->packages, few, err);
        g_ptr_array_unref(few);
    } else if (ok) {
        g_ptr_array_unref(p->packages);
        p->packages = few;
    }
    if (!p->packages)
        p->packages = g_ptr_array_new();
    g_hash_table_destroy(c.names);
    g_ptr_array_unref(c.required);
    return ok;
}

struct debian_plan *debian_plan_new(const char *suite, const char *mirror, const char *keyring,
                                    char *const *include, GError **err)
{
    struct debian_plan *p = g_new0(struct debian_plan, 1);

    p->packages = g_ptr_array_new_with_free_func(free_package);
    p->wanted = g_ptr_array_new_with_free_func(g_free);
    if (make_state(p, suite, mirror, keyring, err) && choose(p, include, err))
        return p;
    debian_plan_free(p);
    return NULL;
}

/* --- fetching ---------------------------------------------------------------------------------------- */

char *debian_plan_file(const struct debian_plan *p, const struct debian_package *package)
{
    return g_build_filename(p->top, "cache", "archives", package->file, NULL);
}

static unsigned count_missing(const struct debian_plan *p, const char **example)
{
    unsigned n = 0;

    for (guint i = 0; i < p->packages->len; i++) {
        const struct debian_package *package = p->packages->pdata[i];
        g_autofree char *file = debian_plan_file(p, package);
        if (g_access(file, R_OK)) {
            *example = package->file;
            n++;
        }
    }
    return n;
}

bool debian_plan_fetch(struct debian_plan *p, GError **err)
{
    static const char *const options[] = {"-q", "-y", "--download-only", "-o", "APT::Status-Fd=3", "install"};
    static const char *const clean[] = {"-q", "autoclean", NULL};
    const char *example = NULL;
    unsigned missing = count_missing(p, &example);
    g_autofree char *what =
        g_strdup_printf("fetching %u package%s of Debian's", missing, missing == 1 ? "" : "s");
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    struct progress progress;

    if (!missing)
        return true;
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++)
        g_ptr_array_add(args, (gpointer)options[i]);
    for (guint i = 0; i < p->wanted->len; i++)
        g_ptr_array_add(args, p->wanted->pdata[i]);
    g_ptr_array_add(args, NULL);
    progress_begin(&progress, what);
    bool ok = apt_run(p->top, "apt-get", (const char *const *)args->pdata, NULL, &progress, err);
    progress_end(&progress, ok);
    if (ok && count_missing(p, &example)) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "apt-get did not leave %s in its cache", example);
        return false;
    }
    return ok && apt_run(p->top, "apt-get", clean, NULL, NULL, err);
}

char *debian_plan_text(const struct debian_plan *p)
{
    GString *s = g_string_new(NULL);

    for (guint i = 0; i < p->packages->len; i++) {
        const struct debian_package *package = p->packages->pdata[i];
        g_string_append_printf(s, "%s %s%s\n", package->name, package->version,
                               package->included ? " included" : "");
    }
    return g_string_free(s, FALSE);
}
