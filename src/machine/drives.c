/*
 * See drives.h.  Only raw images: any other format is named in the error, so that nobody's qcow2 file is taken for a
 * raw disk and written over.
 */
#include "machine/drives.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

struct drive {
    char *id, *path;
    struct disk *disk;
    bool implicit; /* if=virtio: the board makes the device */
    bool snapshot, taken;
};

struct drives {
    GPtrArray *list; /* struct drive */
};

static void free_drive(void *p)
{
    struct drive *d = p;
    if (!d->taken)
        disk_close(d->disk);
    g_free(d->id);
    g_free(d->path);
    g_free(d);
}

/* --- one drive from its properties --------------------------------------------------------------------- */

/* What the first bytes of a file say it is, when that is not a raw disk; NULL otherwise. */
static const char *foreign_format(const char *path)
{
    static const struct { const char *magic, *name; } formats[] = {
        { "QFI\xfb", "qcow2" }, { "KDMV", "vmdk" }, { "vhdxfile", "vhdx" }, { "conectix", "vpc" },
        { "QED", "qed" }, { "WithoutFreeSpace", "parallels" } };
    char head[16] = { 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? 0 : read(fd, head, sizeof head);

    if (fd >= 0)
        close(fd);
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        size_t len = strlen(formats[i].magic) + !strcmp(formats[i].name, "qed");
        if (n >= (ssize_t)len && !memcmp(head, formats[i].magic, len))
            return formats[i].name;
    }
    return NULL;
}

static bool check_format(struct props *p, const char *path, GError **err)
{
    const char *format = props_get(p, "format"), *driver = props_get(p, "driver");
    const char *found = format || driver ? NULL : foreign_format(path);

    if (!format)
        format = driver;
    if (format && !strcmp(format, "raw"))
        return true;
    if (format || found)
        return options_wrong(err, "-drive file=%s: %s images are not supported; convert it (qemu-img convert -O raw %s "
                             "disk.raw)", path, format ? format : found, path);
    return true;
}

static bool parse_cache(struct props *p, enum disk_cache *cache, GError **err)
{
    static const struct { const char *name; enum disk_cache mode; } modes[] = {
        { "writeback", DISK_WRITEBACK }, { "none", DISK_WRITEBACK }, { "writethrough", DISK_WRITETHROUGH },
        { "directsync", DISK_WRITETHROUGH }, { "unsafe", DISK_UNSAFE } };
    const char *name = props_get(p, "cache");
    bool no_flush;

    *cache = DISK_WRITEBACK;
    for (unsigned i = 0; name && i < G_N_ELEMENTS(modes); i++)
        if (!strcmp(name, modes[i].name)) {
            *cache = modes[i].mode;
            name = NULL;
        }
    if (name)
        return options_wrong(err, "-drive cache=%s: give none, writeback, writethrough, directsync or unsafe", name);
    if (!props_bool(p, "cache.no-flush", *cache == DISK_UNSAFE, &no_flush, err))
        return false;
    if (no_flush)
        *cache = DISK_UNSAFE;
    return true;
}

/* One of the words of a choice, or absent. */
static bool parse_choice(struct props *p, const char *key, const char *const *words, const char **value, GError **err)
{
    g_autofree char *list = NULL;

    *value = props_get(p, key);
    if (!*value || g_strv_contains(words, *value))
        return true;
    list = g_strjoinv(", ", (char **)(uintptr_t)words);
    return options_wrong(err, "-drive %s=%s: give one of %s", key, *value, list);
}

/* if=, media=, aio=, discard= ...: the words are checked, and few have an effect here. */
static bool parse_choices(struct props *p, bool *implicit, bool *cdrom, bool *unmap, GError **err)
{
    static const char *const media[] = { "disk", "cdrom", NULL };
    static const char *const aio[] = { "threads", "native", "io_uring", NULL };
    static const char *const discard[] = { "ignore", "off", "unmap", "on", NULL };
    static const char *const zeroes[] = { "off", "on", "unmap", NULL };
    static const char *const errors[] = { "report", "ignore", "enospc", "stop", NULL };
    const char *kind = props_get(p, "if"), *v;

    if (kind && strcmp(kind, "none") && strcmp(kind, "virtio"))
        return options_wrong(err, "-drive if=%s: the board has no such interface (give virtio, or none with a -device)", kind);
    *implicit = !kind || !strcmp(kind, "virtio");
    if (!parse_choice(p, "media", media, &v, err))
        return false;
    *cdrom = v && !strcmp(v, "cdrom");
    if (!parse_choice(p, "aio", aio, &v, err) || !parse_choice(p, "detect-zeroes", zeroes, &v, err) ||
        !parse_choice(p, "werror", errors, &v, err) || !parse_choice(p, "rerror", errors, &v, err) ||
        !parse_choice(p, "discard", discard, &v, err))
        return false;
    *unmap = v && (!strcmp(v, "unmap") || !strcmp(v, "on"));
    return true;
}

static bool parse_flags(struct props *p, const struct config *c, struct disk_options *o, GError **err)
{
    static const char *const ignored[] = { "index", "bus", "unit", "cache.direct", "cache.writeback", "copy-on-read",
                                           "auto-read-only", "file.locking", "node-name", NULL };
    bool readonly;

    if (!props_bool(p, "readonly", o->readonly, &readonly, err) ||
        !props_bool(p, "read-only", readonly, &o->readonly, err) ||
        !props_bool(p, "snapshot", c->snapshot, &o->snapshot, err))
        return false;
    props_ignore(p, ignored);
    return props_finish(p, "-drive", err);
}

static const struct drive *find_drive(struct drives *all, const char *id)
{
    for (guint i = 0; i < all->list->len; i++) {
        const struct drive *d = g_ptr_array_index(all->list, i);
        if (!strcmp(d->id, id))
            return d;
    }
    return NULL;
}

static bool open_drive(struct drive *d, const struct disk_options *o, GError **err)
{
    g_autofree char *why = NULL;
    int r = disk_open(&d->disk, o, &why);

    d->path = g_strdup(o->path);
    d->snapshot = o->snapshot;
    if (r == -EBUSY)
        return options_wrong(err, "-drive file=%s: the image is in use already (two may share it with readonly=on or snapshot=on)",
                             o->path);
    return !r || options_wrong(err, "-drive file=%s: %s", o->path, why);
}

static bool add_drive(struct drives *all, const struct config *c, struct props *p, GError **err)
{
    struct drive *d = g_new0(struct drive, 1);
    struct disk_options o = { .path = props_get(p, "file") };
    const char *id = props_get(p, "id"), *filename = props_get(p, "file.filename");

    d->id = id ? g_strdup(id) : g_strdup_printf("drive%u", all->list->len);
    if (!o.path)
        o.path = filename;
    bool ok = !find_drive(all, d->id) || options_wrong(err, "-drive: two drives have the id '%s'", d->id);
    ok = ok && (o.path || options_wrong(err, "-drive: give file="));
    ok = ok && parse_choices(p, &d->implicit, &o.readonly, &o.unmap, err) && parse_cache(p, &o.cache, err) &&
         check_format(p, o.path, err) && parse_flags(p, c, &o, err) && open_drive(d, &o, err);
    if (ok)
        g_ptr_array_add(all->list, d);
    else
        free_drive(d);
    return ok;
}

/* --- life ------------------------------------------------------------------------------------------------- */

struct drives *drives_new(const struct config *c, GError **err)
{
    struct drives *all = g_new0(struct drives, 1);

    all->list = g_ptr_array_new_with_free_func(free_drive);
    for (guint i = 0; i < c->drives->len; i++)
        if (!add_drive(all, c, g_ptr_array_index(c->drives, i), err)) {
            drives_free(all);
            return NULL;
        }
    return all;
}

void drives_free(struct drives *all)
{
    g_ptr_array_free(all->list, TRUE);
    g_free(all);
}

struct disk *drives_take(struct drives *all, const char *id, GError **err)
{
    struct drive *d = (struct drive *)find_drive(all, id);

    if (!d)
        options_wrong(err, "no -drive has the id '%s'", id);
    else if (d->taken || d->implicit)
        options_wrong(err, "the drive '%s' is in use already%s", id, d->implicit ? " (give -drive if=none)" : "");
    else {
        d->taken = true;
        return d->disk;
    }
    return NULL;
}

struct disk *drives_take_implicit(struct drives *all, const char **id)
{
    for (guint i = 0; i < all->list->len; i++) {
        struct drive *d = g_ptr_array_index(all->list, i);
        if (d->implicit && !d->taken) {
            d->taken = true;
            *id = d->id;
            return d->disk;
        }
    }
    return NULL;
}

char *drives_commit(struct drives *all)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < all->list->len; i++) {
        struct drive *d = g_ptr_array_index(all->list, i);
        uint64_t bytes;
        if (!d->snapshot)
            continue;
        int r = disk_commit(d->disk, &bytes);
        g_string_append_printf(text, "%s%s: ", text->len ? "; " : "", d->path);
        if (r)
            g_string_append_printf(text, "not saved: %s", g_strerror(-r));
        else
            g_string_append_printf(text, "%" G_GUINT64_FORMAT " KiB saved", (guint64)((bytes + 1023) >> 10));
    }
    if (!text->len)
        g_string_append(text, all->list->len ? "Nothing to save: no disk is a snapshot."
                                             : "There is no disk to save to.");
    return g_string_free(text, FALSE);
}
