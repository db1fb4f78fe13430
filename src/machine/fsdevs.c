/*
 * See fsdevs.h.
 */
#include "machine/fsdevs.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct fsdev {
    char *id;
    struct p9_fs *fs;
};

struct fsdevs {
    GPtrArray *list; /* struct fsdev */
};

static void free_fsdev(void *p)
{
    struct fsdev *f = p;

    p9_fs_free(f->fs);
    g_free(f->id);
    g_free(f);
}

static bool parse_model(struct props *p, struct p9_options *o, GError **err)
{
    static const struct {
        const char *name;
        enum p9_model model;
    } models[] = {{"none", P9_NONE},
                  {"passthrough", P9_PASSTHROUGH},
                  {"mapped-xattr", P9_MAPPED_XATTR},
                  {"mapped", P9_MAPPED_XATTR},
                  {"mapped-file", P9_MAPPED_FILE}};
    const char *name = props_get(p, "security-model");

    if (!name)
        return options_wrong(err, "-fsdev: give security_model=none, passthrough, mapped-xattr or mapped-file");
    for (unsigned i = 0; i < G_N_ELEMENTS(models); i++)
        if (!strcmp(name, models[i].name)) {
            o->model = models[i].model;
            return true;
        }
    return options_wrong(err, "-fsdev security_model=%s: give none, passthrough, mapped-xattr or mapped-file", name);
}

static bool parse_mode(struct props *p, const char *key, mode_t fallback, const struct p9_options *o,
                       mode_t *mode, GError **err)
{
    const char *text = props_get(p, key);
    unsigned long v;
    char *end;

    *mode = fallback;
    if (!text)
        return true;
    if (o->model < P9_MAPPED_XATTR)
        return options_wrong(err, "-fsdev %s=%s: only for security_model=mapped-xattr or mapped-file", key, text);
    v = strtoul(text, &end, 8);
    if (end == text || *end || v > 0777)
        return options_wrong(err, "-fsdev %s=%s: give a mode in octal, as 0600", key, text);
    *mode = (mode_t)v;
    return true;
}

static bool parse_words(struct props *p, struct p9_options *o, GError **err)
{
    const char *multidevs = props_get(p, "multidevs"), *writeout = props_get(p, "writeout");

    if (multidevs && strcmp(multidevs, "remap") && strcmp(multidevs, "warn") && strcmp(multidevs, "forbid"))
        return options_wrong(err, "-fsdev multidevs=%s: give remap, warn or forbid", multidevs);
    if (writeout && strcmp(writeout, "immediate"))
        return options_wrong(err, "-fsdev writeout=%s: immediate is all that there is", writeout);
    o->one_device = multidevs && !strcmp(multidevs, "forbid");
    o->writeout = writeout;
    return true;
}

static bool parse_fsdev(struct props *p, struct p9_options *o, GError **err)
{
    const char *driver = props_get(p, "fsdriver");

    if (!driver || strcmp(driver, "local"))
        return options_wrong(err, "-fsdev %s: only local is here", driver ? driver : "");
    o->path = props_get(p, "path");
    if (!o->path)
        return options_wrong(err, "-fsdev local: give path=DIRECTORY");
    return parse_model(p, o, err) && parse_words(p, o, err) &&
           parse_mode(p, "fmode", 0600, o, &o->fmode, err) &&
           parse_mode(p, "dmode", 0700, o, &o->dmode, err) &&
           props_bool(p, "readonly", false, &o->readonly, err) && props_finish(p, "-fsdev", err);
}

static struct fsdev *find(struct fsdevs *all, const char *id)
{
    for (guint i = 0; i < all->list->len; i++) {
        struct fsdev *f = g_ptr_array_index(all->list, i);

        if (!strcmp(f->id, id))
            return f;
    }
    return NULL;
}

static bool add_fsdev(struct fsdevs *all, struct props *p, GError **err)
{
    struct p9_options o = {0};
    const char *id = props_get(p, "id"), *why;
    struct fsdev *f;
    struct p9_fs *fs;
    int r;

    if (!id)
        return options_wrong(err, "-fsdev: give id=, which a -device virtio-9p-pci,fsdev= names");
    if (find(all, id))
        return options_wrong(err, "-fsdev: two have the id '%s'", id);
    if (!parse_fsdev(p, &o, err))
        return false;
    r = p9_fs_new(&fs, &o, &why);
    if (r < 0)
        return options_wrong(err, "-fsdev path=%s: %s: %s", o.path, why, g_strerror(-r));
    f = g_new0(struct fsdev, 1);
    f->id = g_strdup(id);
    f->fs = fs;
    g_ptr_array_add(all->list, f);
    return true;
}

struct fsdevs *fsdevs_new(const struct config *c, GError **err)
{
    struct fsdevs *all = g_new0(struct fsdevs, 1);

    all->list = g_ptr_array_new_with_free_func(free_fsdev);
    for (guint i = 0; i < c->fsdevs->len; i++)
        if (!add_fsdev(all, g_ptr_array_index(c->fsdevs, i), err)) {
            fsdevs_free(all);
            return NULL;
        }
    return all;
}

void fsdevs_free(struct fsdevs *all)
{
    g_ptr_array_free(all->list, TRUE);
    g_free(all);
}

struct p9_fs *fsdevs_find(struct fsdevs *all, const char *id, GError **err)
{
    struct fsdev *f = find(all, id);

    if (!f)
        options_wrong(err, "no -fsdev has the id '%s'", id);
    return f ? f->fs : NULL;
}

bool fsdevs_parse_virtfs(struct config *c, const char *arg, GError **err)
{
    struct props *p = props_new(arg, "fsdriver");
    const char *tag = props_get(p, "mount-tag"), *id = props_get(p, "id");
    struct device_config *d;

    if (!tag) {
        props_free(p);
        return options_wrong(err, "-virtfs %s: give mount_tag=, which the guest mounts it by", arg);
    }
    if (!id)
        id = tag;
    props_default(p, "id", id);
    d = g_new0(struct device_config, 1);
    d->driver = g_strdup("virtio-9p-pci");
    d->props = props_new("virtio-9p-pci", "driver");
    props_get(d->props, "driver");
    props_default(d->props, "fsdev", id);
    props_default(d->props, "mount-tag", tag);
    g_ptr_array_add(c->fsdevs, p);
    g_ptr_array_add(c->devices, d);
    return true;
}
