/*
 * The newc writer.  Format: a header of the magic 070701 and 13 numbers of 8 hexadecimal digits, the name
 * with its NUL, padding to 4 bytes, the data, padding to 4 bytes; the entry TRAILER!!! ends the archive.
 * Left out: hard links, and files of 4 GiB and more (an entry's size has 32 bits).  Threading: the caller's.
 */
#include "lab/cpio.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/report.h"

struct cpio_entry {
    unsigned mode; /* with the type bits of <sys/stat.h> */
    unsigned major, minor, uid, gid;
    GBytes *data; /* contents, or a link's target */
};

static void entry_free(void *p)
{
    struct cpio_entry *e = p;

    g_bytes_unref(e->data);
    g_free(e);
}

void cpio_init(struct cpio *c)
{
    c->entries = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, entry_free);
}

void cpio_clear(struct cpio *c)
{
    g_clear_pointer(&c->entries, g_hash_table_unref);
}

static struct cpio_entry *add(struct cpio *c, const char *path, unsigned mode, const void *data, size_t size)
{
    struct cpio_entry *e = g_new0(struct cpio_entry, 1);
    char *parent;

    path += strspn(path, "/");
    parent = g_path_get_dirname(path);
    if (strcmp(parent, ".") && !g_hash_table_contains(c->entries, parent))
        cpio_add_folder(c, parent, 0755);
    g_free(parent);
    BUG_ON(size > UINT32_MAX);
    e->mode = mode;
    e->data = g_bytes_new(data, size);
    g_hash_table_replace(c->entries, g_strdup(path), e);
    return e;
}

void cpio_add_folder(struct cpio *c, const char *path, unsigned mode)
{
    add(c, path, S_IFDIR | mode, NULL, 0);
}

void cpio_add_file(struct cpio *c, const char *path, unsigned mode, const void *data, size_t size)
{
    add(c, path, S_IFREG | mode, data, size);
}

void cpio_add_link(struct cpio *c, const char *path, const char *target)
{
    add(c, path, S_IFLNK | 0777, target, strlen(target));
}

void cpio_add_char_device(struct cpio *c, const char *path, unsigned mode, unsigned major, unsigned minor)
{
    struct cpio_entry *e = add(c, path, S_IFCHR | mode, NULL, 0);

    e->major = major;
    e->minor = minor;
}

void cpio_add(struct cpio *c, const char *path, const struct stat *st, const void *data, size_t size)
{
    struct cpio_entry *e = add(c, path, st->st_mode, data, size);

    e->uid = st->st_uid;
    e->gid = st->st_gid;
    e->major = major(st->st_rdev);
    e->minor = minor(st->st_rdev);
}

static void pad(GByteArray *out, guint multiple)
{
    static const guint8 zeros[512];

    g_byte_array_append(out, zeros, (multiple - out->len % multiple) % multiple);
}

static void append(GByteArray *out, const char *name, unsigned inode, const struct cpio_entry *e)
{
    size_t size;
    const void *data = g_bytes_get_data(e->data, &size);
    unsigned links = S_ISDIR(e->mode) ? 2 : 1;
    char header[111];

    /*
     * magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize,
     * check
     */
    g_snprintf(header, sizeof header, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", inode,
               e->mode, e->uid, e->gid, links, 0, (unsigned)size, 0, 0, e->major, e->minor, (unsigned)strlen(name) + 1,
               0);
    g_byte_array_append(out, (const guint8 *)header, 110);
    g_byte_array_append(out, (const guint8 *)name, (guint)strlen(name) + 1);
    pad(out, 4);
    if (size)
        g_byte_array_append(out, data, (guint)size);
    pad(out, 4);
}

GByteArray *cpio_build(const struct cpio *c)
{
    GByteArray *out = g_byte_array_new();
    /* A folder's path is a prefix of what is in it, so it comes first. */
    GList *names = g_list_sort(g_hash_table_get_keys(c->entries), (GCompareFunc)strcmp);
    struct cpio_entry end = {.data = g_bytes_new(NULL, 0)};
    unsigned inode = 1;

    for (GList *n = names; n; n = n->next)
        append(out, n->data, inode++, g_hash_table_lookup(c->entries, n->data));
    append(out, "TRAILER!!!", 0, &end);
    pad(out, 512);
    g_list_free(names);
    g_bytes_unref(end.data);
    return out;
}
