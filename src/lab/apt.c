/*
 * A private apt.  See apt.h.
 *
 * The host's proxies and other settings hold, since apt reads /etc/apt/apt.conf.d as always; its hooks do not, since
 * they would act on the host's state.  Packages are checked by apt against Debian's archive keys.
 *
 * Why `install --download-only' and not `download': only the former resumes.  So that it fetches nothing else, the
 * private status file claims that whatever the package depends on is installed.
 */
#include "lab/apt.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lab/cache.h"
#include "lab/lab.h"
#include "lab/progress.h"

#define DEBIAN_MIRROR   "http://deb.debian.org/debian"
#define SECURITY_MIRROR "http://deb.debian.org/debian-security"
#define SUITE           "bookworm"
#define LISTS_BYTES     (UINT64_C(64) << 20)
#define LISTS_AGE       (12 * 3600) /* seconds that package lists are good for */

void apt_package_clear(struct apt_package *p)
{
    g_free(p->name);
    g_free(p->version);
    g_clear_pointer(&p->depends, g_ptr_array_unref);
    g_clear_pointer(&p->exact, g_ptr_array_unref);
    *p = (struct apt_package){0};
}

/* The mirrors that the host uses for a suite, and for SUITE, which have the others too; NULL: none. */
struct mirrors {
    const char *suite;
    char *debian, *security, *any_debian, *any_security;
};

/* The first counts. */
static void note_uri(char **slot, const char *uri, const char *suite, const char *wanted, const char *suffix)
{
    size_t n = strlen(wanted);

    if (!*slot && !strncmp(suite, wanted, n) && !strcmp(suite + n, suffix))
        *slot = g_strdup(uri);
}

static void note_suite(struct mirrors *m, const char *uri, const char *suite)
{
    bool usable = g_str_has_prefix(uri, "http://") || g_str_has_prefix(uri, "https://") ||
                  g_str_has_prefix(uri, "file:") || g_str_has_prefix(uri, "mirror") || g_str_has_prefix(uri, "tor");

    if (!usable)
        return;
    note_uri(&m->debian, uri, suite, m->suite, "");
    note_uri(&m->security, uri, suite, m->suite, "-security");
    note_uri(&m->any_debian, uri, suite, SUITE, "");
    note_uri(&m->any_security, uri, suite, SUITE, "-security");
}

/* "deb [options] URI SUITE COMPONENT..." */
static void parse_one_line(struct mirrors *m, const char *line)
{
    char **words;
    unsigned n = 1;

    if (!g_regex_match_simple("^deb\\s", line, 0, 0))
        return;
    words = g_strsplit_set(line, " \t", -1);
    for (bool options = false; words[n] && (!*words[n] || *words[n] == '[' || options); n++)
        if (*words[n])
            options = !g_str_has_suffix(words[n], "]");
    if (words[n] && words[n + 1])
        note_suite(m, words[n], words[n + 1]);
    g_strfreev(words);
}

/* A stanza of the deb822 style: "Key: value" lines. */
static void parse_stanza(struct mirrors *m, const char *stanza)
{
    char **lines = g_strsplit(stanza, "\n", -1);
    const char *uris = NULL, *suites = NULL;
    bool enabled = true;

    for (char **l = lines; *l; l++) {
        if (!g_ascii_strncasecmp(*l, "URIs:", 5))
            uris = g_strstrip(*l + 5);
        else if (!g_ascii_strncasecmp(*l, "Suites:", 7))
            suites = g_strstrip(*l + 7);
        else if (!g_ascii_strncasecmp(*l, "Enabled:", 8))
            enabled = strcmp(g_strstrip(*l + 8), "no");
        else
            parse_one_line(m, *l);
    }
    if (uris && suites && enabled) {
        char **u = g_strsplit_set(uris, " \t", -1), **s = g_strsplit_set(suites, " \t", -1);

        for (char **name = s; u[0] && *name; name++)
            note_suite(m, u[0], *name);
        g_strfreev(u);
        g_strfreev(s);
    }
    g_strfreev(lines);
}

static void read_mirrors(struct mirrors *m, char **texts)
{
    for (; *texts; texts++) {
        char **stanzas = g_strsplit(*texts, "\n\n", -1);

        for (char **s = stanzas; *s; s++)
            parse_stanza(m, *s);
        g_strfreev(stanzas);
    }
    if (!m->debian)
        m->debian = m->any_debian ? g_steal_pointer(&m->any_debian) : g_strdup(DEBIAN_MIRROR);
    if (!m->security)
        m->security = m->any_security ? g_steal_pointer(&m->any_security) : g_strdup(SECURITY_MIRROR);
    g_clear_pointer(&m->any_debian, g_free);
    g_clear_pointer(&m->any_security, g_free);
}

char *apt_make_sources(char **texts)
{
    static const struct {
        const char *suite;
        bool security;
    } suites[] = {{SUITE, false}, {SUITE "-updates", false}, {SUITE "-backports", false},
                  {SUITE "-security", true}};
    struct mirrors m = {.suite = SUITE};
    GString *out = g_string_new(NULL);

    read_mirrors(&m, texts);
    for (size_t i = 0; i < G_N_ELEMENTS(suites); i++)
        g_string_append_printf(out, "deb [arch=arm64 signed-by=%s] %s %s main\n", APT_KEYRING,
                               suites[i].security ? m.security : m.debian, suites[i].suite);
    g_free(m.debian);
    g_free(m.security);
    return g_string_free(out, FALSE);
}

/* The host's apt source lists, NULL-ended. */
static char **read_host_sources(void)
{
    static const char folder[] = "/etc/apt/sources.list.d";
    GPtrArray *texts = g_ptr_array_new();
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;
    char *text;

    if (g_file_get_contents("/etc/apt/sources.list", &text, NULL, NULL))
        g_ptr_array_add(texts, text);
    while (dir && (name = g_dir_read_name(dir))) {
        char *path = g_build_filename(folder, name, NULL);

        if ((g_str_has_suffix(name, ".list") || g_str_has_suffix(name, ".sources")) &&
            g_file_get_contents(path, &text, NULL, NULL))
            g_ptr_array_add(texts, text);
        g_free(path);
    }
    if (dir)
        g_dir_close(dir);
    g_ptr_array_add(texts, NULL);
    return (char **)g_ptr_array_free(texts, FALSE);
}

static bool write_text(const char *path, const char *text, GError **err)
{
    return cache_write_file(path, text, strlen(text), err);
}

/* p: its dependencies are to count as installed; NULL: nothing is. */
static bool write_status(const struct apt_package *p, GError **err)
{
    char *path = cache_path("apt", "status", NULL);
    GString *text = g_string_new(NULL);
    bool ok;

    for (guint i = 0; p && i < p->depends->len; i++) {
        const char *exact = p->exact->pdata[i];
        g_string_append_printf(text,
                               "Package: %s\nStatus: install ok installed\nArchitecture: arm64\n"
                               "Multi-Arch: foreign\nVersion: %s\nMaintainer: armlet\nDescription: assumed\n\n",
                               (char *)p->depends->pdata[i], *exact ? exact : "9999");
    }
    ok = write_text(path, text->str, err);
    g_string_free(text, TRUE);
    g_free(path);
    return ok;
}

void apt_host_mirrors(const char *suite, char **debian, char **security)
{
    char **texts = read_host_sources();
    struct mirrors m = {.suite = suite};

    read_mirrors(&m, texts);
    *debian = m.debian;
    *security = m.security;
    g_strfreev(texts);
}

/* apt.conf, sources.list, an empty package database and the folders that apt expects. */
bool apt_configure(const char *top, const char *sources, GError **err)
{
    g_autofree char *conf = g_build_filename(top, "apt.conf", NULL);
    g_autofree char *list = g_build_filename(top, "sources.list", NULL);
    g_autofree char *lists = g_build_filename(top, "lists", "partial", NULL);
    g_autofree char *status = g_build_filename(top, "status", NULL);
    g_autofree char *archives = g_build_filename(top, "cache", "archives", "partial", NULL);
    g_autofree char *text = g_strdup_printf(
        "#clear APT::Update::Pre-Invoke;\n"
        "#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n"
        "#clear APT::Architectures;\n"
        "APT::Architecture \"arm64\";\n"
        "APT::Architectures { \"arm64\"; };\n"
        "APT::Sandbox::User \"\";\n"
        "APT::Update::Error-Mode \"any\";\n"
        "APT::Install-Recommends \"false\";\n"
        "Acquire::Languages \"none\";\n"
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n"
        "Acquire::Retries \"1\";\n"
        "Dir::State \"%s\";\n"
        "Dir::State::lists \"%s/lists\";\n"
        "Dir::State::status \"%s/status\";\n"
        "Dir::Cache \"%s/cache\";\n"
        "Dir::Etc::sourcelist \"%s\";\n"
        "Dir::Etc::sourceparts \"/dev/null\";\n"
        "Dir::Etc::preferences \"/dev/null\";\n"
        "Dir::Etc::preferencesparts \"/dev/null\";\n"
        "Dir::Log \"%s\";\n",
        top, top, top, top, list, top);

    return cache_make_folder(lists, err) && cache_make_folder(archives, err) && write_text(conf, text, err) &&
           write_text(list, sources, err) && write_text(status, "", err);
}

bool apt_run(const char *top, const char *program, const char *const *args, GByteArray *output,
             struct progress *progress, GError **err)
{
    g_autofree char *conf = g_build_filename(top, "apt.conf", NULL);
    GPtrArray *argv = g_ptr_array_new();
    struct cache_run run = {.group = true, .output = output, .opaque = progress};
    bool ok;

    g_ptr_array_add(argv, (char *)program);
    g_ptr_array_add(argv, (char *)"-c");
    g_ptr_array_add(argv, conf);
    for (; *args; args++)
        g_ptr_array_add(argv, (char *)*args);
    g_ptr_array_add(argv, NULL);
    run.argv = (const char *const *)argv->pdata;
    if (progress)
        run.percent = (void (*)(void *, double))progress_percent;
    ok = cache_run(&run, err);
    g_ptr_array_free(argv, TRUE);
    return ok;
}

/* On the state that kernels and busybox come from. */
static bool run_apt(const char *program, const char *const *args, GByteArray *output,
                    struct progress *progress, GError **err)
{
    g_autofree char *top = cache_path("apt", NULL);

    return apt_run(top, program, args, output, progress, err);
}

static bool lists_are_fresh(const char *stamp)
{
    struct stat st;
    time_t now = time(NULL);

    return !stat(stamp, &st) && st.st_mtime <= now && now - st.st_mtime < LISTS_AGE;
}

bool apt_update(const char *top, bool refresh, GError **err)
{
    static const char *const update[] = {"-q", "update", NULL};
    g_autofree char *stamp = g_build_filename(top, "updated", NULL);
    struct progress progress;
    bool ok;

    if (!refresh && lists_are_fresh(stamp))
        return true;
    /* apt-get update waits for ever when the disk gets full under it. */
    if (!cache_check_space(LISTS_BYTES, err))
        return false;
    progress_begin(&progress, "fetching Debian's package lists");
    ok = apt_run(top, "apt-get", update, NULL, NULL, err);
    progress_end(&progress, ok);
    return ok && write_text(stamp, "", err);
}

bool apt_prepare(bool refresh, GError **err)
{
    g_autofree char *top = cache_path("apt", NULL);
    g_auto(GStrv) texts = read_host_sources();
    g_autofree char *sources = apt_make_sources(texts);

    if (g_access(APT_KEYRING, R_OK)) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_TOOL, "needs %s, from the package debian-archive-keyring",
                    APT_KEYRING);
        return false;
    }
    return apt_configure(top, sources, err) && apt_update(top, refresh, err);
}

/* The value of "Key: value" in a stanza of `apt-cache show', or NULL; g_free() it. */
static char *field(const char *stanza, const char *key)
{
    char *pattern = g_strdup_printf("^%s: (.*)$", key), *value = NULL;
    GRegex *re = g_regex_new(pattern, G_REGEX_MULTILINE, 0, NULL);
    GMatchInfo *match;

    if (g_regex_match(re, stanza, 0, &match))
        value = g_match_info_fetch(match, 1);
    g_match_info_free(match);
    g_regex_unref(re);
    g_free(pattern);
    return value;
}

/* The version in "name (= version)", or "". */
static char *exact_version(const char *item)
{
    g_autoptr(GRegex) re = g_regex_new("\\(= *([^ )]+)", 0, 0, NULL);
    g_autoptr(GMatchInfo) match = NULL;

    return g_regex_match(re, item, 0, &match) ? g_match_info_fetch(match, 1) : g_strdup("");
}

/* Add the names in a dependency field, alternatives too. */
static void add_names(struct apt_package *p, const char *depends)
{
    char **items = g_strsplit_set(depends ? depends : "", ",|", -1);

    for (char **i = items; *i; i++) {
        g_autofree char *exact = exact_version(*i);
        char *name = g_strstrip(*i);

        name[strcspn(name, " :(")] = '\0';
        if (!*name || g_ptr_array_find_with_equal_func(p->depends, name, g_str_equal, NULL))
            continue;
        g_ptr_array_add(p->depends, g_strdup(name));
        g_ptr_array_add(p->exact, g_steal_pointer(&exact));
    }
    g_strfreev(items);
}

static void fill_package(struct apt_package *p, const char *stanza)
{
    char *size = field(stanza, "Size"), *installed = field(stanza, "Installed-Size");
    char *depends = field(stanza, "Depends"), *pre = field(stanza, "Pre-Depends");

    p->name = field(stanza, "Package");
    p->version = field(stanza, "Version");
    p->size = size ? g_ascii_strtoull(size, NULL, 10) : 0;
    p->installed = installed ? g_ascii_strtoull(installed, NULL, 10) * 1024 : 0;
    p->depends = g_ptr_array_new_with_free_func(g_free);
    p->exact = g_ptr_array_new_with_free_func(g_free);
    add_names(p, depends);
    add_names(p, pre);
    g_free(size);
    g_free(installed);
    g_free(depends);
    g_free(pre);
}

bool apt_find(const char *name, const char *prefix, struct apt_package *out, GError **err)
{
    const char *const show[] = {"show", name, NULL};
    GByteArray *text = g_byte_array_new();
    char **stanzas;

    *out = (struct apt_package){0};
    if (!run_apt("apt-cache", show, text, NULL, err)) {
        g_byte_array_unref(text);
        return false;
    }
    g_byte_array_append(text, (const guint8 *)"", 1);
    stanzas = g_strsplit((char *)text->data, "\n\n", -1);
    /* apt-cache lists versions newest first. */
    for (char **s = stanzas; *s && !out->name; s++) {
        char *version = field(*s, "Version");

        if (version && g_str_has_prefix(version, prefix))
            fill_package(out, *s);
        g_free(version);
    }
    g_strfreev(stanzas);
    g_byte_array_unref(text);
    if (out->name)
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND, "Debian 12 has no %s of version %s*", name, prefix);
    return false;
}

/* The one .deb of the package in the private archive, whose file name has the version in apt's spelling. */
static char *find_archive(const char *name)
{
    char *folder = cache_path("apt", "cache", "archives", NULL), *prefix = g_strconcat(name, "_", NULL);
    GDir *dir = g_dir_open(folder, 0, NULL);
    char *path = NULL;
    const char *entry;

    while (dir && !path && (entry = g_dir_read_name(dir)))
        if (g_str_has_prefix(entry, prefix) && g_str_has_suffix(entry, ".deb"))
            path = g_build_filename(folder, entry, NULL);
    if (dir)
        g_dir_close(dir);
    g_free(folder);
    g_free(prefix);
    return path;
}

static bool download(const struct apt_package *p, GError **err)
{
    char *what = g_strdup_printf("fetching %s %s, %.1f MB", p->name, p->version, (double)p->size / 1e6);
    char *which = g_strdup_printf("%s=%s", p->name, p->version);
    const char *const args[] = {"-q", "-y", "--download-only", "-o", "APT::Status-Fd=3", "install", which, NULL};
    char *old = find_archive(p->name);
    struct progress progress;
    bool ok;

    if (old)
        g_unlink(old); /* of another version: a whole one is deleted when it is unpacked */
    g_free(old);
    progress_begin(&progress, what);
    ok = write_status(p, err) && run_apt("apt-get", args, NULL, &progress, err);
    progress_end(&progress, ok);
    g_free(what);
    g_free(which);
    return ok;
}

bool apt_unpack(const struct apt_package *p, const char *into, GError **err)
{
    char *deb;
    struct progress progress;
    bool ok;

    if (!cache_check_space(p->size + p->installed + (16 << 20), err) || !download(p, err))
        return false;
    deb = find_archive(p->name);
    if (!deb) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "apt-get did not leave %s in its cache", p->name);
        return false;
    }
    progress_begin(&progress, "unpacking");
    const char *const argv[] = {"dpkg-deb", "-x", deb, into, NULL};
    ok = cache_run(&(struct cache_run){.argv = argv}, err);
    progress_end(&progress, ok);
    g_unlink(deb);
    g_free(deb);
    return ok;
}
