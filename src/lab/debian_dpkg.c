/*
 * dpkg's database: see debian_dpkg.h and, for the formats, dpkg(1), deb-triggers(5) and doc/triggers.txt of
 * dpkg.
 *
 * A package is "install ok unpacked".  dpkg puts a new configuration file beside its place (.dpkg-new) and
 * moves it there when the package is configured; ours lie in their places already, with their sums in the
 * Conffiles field, which is what dpkg finds when it has been interrupted after the move.  preinst scripts are
 * not run: see second-stage.sh.
 *
 * Threading: the caller's.
 */
#include "lab/debian_dpkg.h"

#include <string.h>

#include "lab/lab.h"

#define INFO "/var/lib/dpkg/info/"

struct debian_dpkg {
    GString *status, *file_triggers;
    GHashTable *triggers; /* name -> GString of who is interested */
    /* the package at hand: */
    const void *control_tar;
    size_t control_size;
    char *control, *conffiles, *interests;
    char *name; /* as its files in info/ are called: with the architecture when several may be installed */
    GString *list;
    bool has_sums; /* if not, dpkg makes them, as we do */
    GString *sums;
};

static void free_string(gpointer s)
{
    g_string_free(s, TRUE);
}

struct debian_dpkg *debian_dpkg_new(void)
{
    struct debian_dpkg *d = g_new0(struct debian_dpkg, 1);

    d->status = g_string_new(NULL);
    d->file_triggers = g_string_new(NULL);
    d->triggers = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_string);
    d->list = g_string_new(NULL);
    d->sums = g_string_new(NULL);
    return d;
}

static void forget_package(struct debian_dpkg *d)
{
    g_clear_pointer(&d->control, g_free);
    g_clear_pointer(&d->conffiles, g_free);
    g_clear_pointer(&d->interests, g_free);
    g_clear_pointer(&d->name, g_free);
    g_string_truncate(d->list, 0);
    g_string_truncate(d->sums, 0);
    d->has_sums = false;
}

void debian_dpkg_free(struct debian_dpkg *d)
{
    forget_package(d);
    g_string_free(d->status, TRUE);
    g_string_free(d->file_triggers, TRUE);
    g_string_free(d->list, TRUE);
    g_string_free(d->sums, TRUE);
    g_hash_table_destroy(d->triggers);
    g_free(d);
}

static bool take_text(void *opaque, const struct tar_entry *e, GError **err)
{
    struct debian_dpkg *d = opaque;
    char **slot = !strcmp(e->path, "control")     ? &d->control
                  : !strcmp(e->path, "conffiles") ? &d->conffiles
                  : !strcmp(e->path, "triggers")  ? &d->interests
                                                  : NULL;

    (void)err;
    d->has_sums |= !strcmp(e->path, "md5sums");
    if (slot) {
        g_free(*slot);
        *slot = g_strndup((const char *)e->data, e->size);
    }
    return true;
}

/* The value of a field of the control file, or NULL. */
static char *field(const char *control, const char *key)
{
    g_auto(GStrv) lines = g_strsplit(control, "\n", -1);
    size_t n = strlen(key);

    for (char **l = lines; *l; l++)
        if (!g_ascii_strncasecmp(*l, key, n) && (*l)[n] == ':')
            return g_strdup(g_strstrip(*l + n + 1));
    return NULL;
}

bool debian_dpkg_begin(struct debian_dpkg *d, const void *control, size_t size, GError **err)
{
    forget_package(d);
    d->control_tar = control;
    d->control_size = size;
    if (!tar_read(control, size, take_text, d, err))
        return false;
    g_autofree char *package = d->control ? field(d->control, "Package") : NULL;
    g_autofree char *arch = d->control ? field(d->control, "Architecture") : NULL;
    g_autofree char *multi = d->control ? field(d->control, "Multi-Arch") : NULL;
    if (!package || !arch || !*package || strchr(package, '/')) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "it has no control file with a name");
        return false;
    }
    d->name = multi && !strcmp(multi, "same") ? g_strconcat(package, ":", arch, NULL) : g_strdup(package);
    return true;
}

void debian_dpkg_note(struct debian_dpkg *d, const struct tar_entry *e)
{
    g_string_append_printf(d->list, "/%s\n", *e->path ? e->path : ".");
    if (d->has_sums || e->type != '0')
        return;
    g_autofree char *sum = g_compute_checksum_for_data(G_CHECKSUM_MD5, e->data, e->size);
    g_string_append_printf(d->sums, "%s  %s\n", sum, e->path);
}

struct info_writer {
    struct debian_dpkg *dpkg;
    struct debian_tree *tree;
};

static bool put_info(void *opaque, const struct tar_entry *e, GError **err)
{
    struct info_writer *w = opaque;

    if (e->type != '0' || !strcmp(e->path, "control") || strchr(e->path, '/'))
        return true;
    g_autofree char *path = g_strconcat(INFO, w->dpkg->name, ".", e->path, NULL);
    return debian_tree_put(w->tree, path, e->mode & 0755, e->data, e->size, err);
}

/* Each configuration file with the sum of what the package brings. */
static bool add_conffiles(struct debian_dpkg *d, struct debian_tree *t, GError **err)
{
    g_auto(GStrv) lines = g_strsplit(d->conffiles ? d->conffiles : "", "\n", -1);
    bool first = true;

    for (char **l = lines; *l; l++) {
        if (**l != '/') /* "remove-on-upgrade /etc/..." is not there */
            continue;
        g_autofree char *path = debian_tree_path(t, g_strchomp(*l), err), *data = NULL;
        gsize size;
        if (!path || !g_file_get_contents(path, &data, &size, err))
            return false;
        g_autofree char *sum = g_compute_checksum_for_data(G_CHECKSUM_MD5, (const guchar *)data, size);
        g_string_append_printf(d->status, "%s %s %s\n", first ? "Conffiles:\n" : "", *l, sum);
        first = false;
    }
    return true;
}

/* "interest-noawait NAME" of deb-triggers(5): who is interested in a name or a path. */
static void add_triggers(struct debian_dpkg *d)
{
    g_auto(GStrv) lines = g_strsplit(d->interests ? d->interests : "", "\n", -1);

    for (char **l = lines; *l; l++) {
        g_auto(GStrv) words = g_strsplit_set(g_strstrip(*l), " \t", 2);
        if (!words[0] || !words[1] || !g_str_has_prefix(words[0], "interest"))
            continue;
        const char *what = g_strstrip(words[1]),
                   *how = !strcmp(words[0], "interest-noawait") ? "/noawait" : "";
        GString *who = g_hash_table_lookup(d->triggers, what);
        if (*what == '/') {
            g_string_append_printf(d->file_triggers, "%s %s%s\n", what, d->name, how);
            continue;
        }
        if (!who)
            g_hash_table_insert(d->triggers, g_strdup(what), who = g_string_new(NULL));
        g_string_append_printf(who, "%s%s\n", d->name, how);
    }
}

bool debian_dpkg_end(struct debian_dpkg *d, struct debian_tree *t, GError **err)
{
    struct info_writer w = {d, t};
    g_autofree char *list = g_strconcat(INFO, d->name, ".list", NULL);
    g_autofree char *sums = g_strconcat(INFO, d->name, ".md5sums", NULL);

    if (!tar_read(d->control_tar, d->control_size, put_info, &w, err) ||
        !debian_tree_put_text(t, list, 0644, d->list->str, err) ||
        (!d->has_sums && !debian_tree_put_text(t, sums, 0644, d->sums->str, err)))
        return false;
    g_string_append_printf(d->status, "Status: install ok unpacked\n%s\n", g_strchomp(d->control));
    if (!add_conffiles(d, t, err))
        return false;
    g_string_append_c(d->status, '\n');
    add_triggers(d);
    forget_package(d);
    return true;
}

bool debian_dpkg_write(struct debian_dpkg *d, struct debian_tree *t, GError **err)
{
    static const char *const empty[] = {"available", "diversions",    "statoverride",
                                        "lock",      "triggers/Lock", "triggers/Unincorp"};
    GHashTableIter i;
    gpointer name, who;
    bool ok = debian_tree_put_text(t, INFO "format", 0644, "1\n", err) &&
              debian_tree_put_text(t, "/var/lib/dpkg/triggers/File", 0644, d->file_triggers->str, err);

    for (unsigned k = 0; ok && k < G_N_ELEMENTS(empty); k++) {
        g_autofree char *path = g_strconcat("/var/lib/dpkg/", empty[k], NULL);
        ok = debian_tree_put_text(t, path, g_str_has_suffix(empty[k], "ock") ? 0640 : 0644, "", err);
    }
    g_hash_table_iter_init(&i, d->triggers);
    while (ok && g_hash_table_iter_next(&i, &name, &who)) {
        g_autofree char *path = g_strconcat("/var/lib/dpkg/triggers/", (char *)name, NULL);
        ok = debian_tree_put_text(t, path, 0644, ((GString *)who)->str, err);
    }
    return ok && debian_tree_put_text(t, "/var/lib/dpkg/status", 0644, d->status->str, err);
}
