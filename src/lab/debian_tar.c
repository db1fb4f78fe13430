/*
 * tar as dpkg-deb writes it: POSIX headers, GNU's long names (types L and K) and GNU's large numbers.
 * Extended headers of pax, which dpkg refuses in packages, and sparse files are not read.  Threading: the
 * caller's.
 */
#include "lab/debian_tar.h"

#include <string.h>

#include "lab/lab.h"

enum { BLOCK = 512 };

/* A header, as in POSIX.1-1988. */
struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
    char magic[8], owner[32], group[32], major[8], minor[8], prefix[155], pad[12];
};
G_STATIC_ASSERT(sizeof(struct header) == BLOCK);

struct reader {
    const uint8_t *p, *end;
    char *long_name, *long_link; /* for the entry that comes; or NULL */
};

/* Octal digits, or GNU's binary form with the top bit set. */
static uint64_t number(const char *field, size_t n)
{
    uint64_t value = 0;

    if (field[0] & 0x80) {
        for (size_t i = 1; i < n; i++)
            value = value << 8 | (uint8_t)field[i];
        return value;
    }
    for (size_t i = 0; i < n && field[i]; i++)
        if (field[i] >= '0' && field[i] <= '7')
            value = value << 3 | (uint64_t)(field[i] - '0');
    return value;
}

static bool checksum_is_right(const struct header *h)
{
    const uint8_t *p = (const uint8_t *)h;
    uint64_t sum = 0;

    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= offsetof(struct header, checksum) && i < offsetof(struct header, type) ? ' ' : p[i];
    return sum == number(h->checksum, sizeof(h->checksum));
}

static bool is_end(const uint8_t *p)
{
    static const uint8_t zero[BLOCK];

    return !memcmp(p, zero, BLOCK);
}

static char *full_name(const struct header *h)
{
    g_autofree char *name = g_strndup(h->name, sizeof(h->name));

    /* GNU's headers have other things where POSIX's have the prefix. */
    if (memcmp(h->magic, "ustar", 6) || !h->prefix[0])
        return g_steal_pointer(&name);
    g_autofree char *prefix = g_strndup(h->prefix, sizeof(h->prefix));
    return g_strconcat(prefix, "/", name, NULL);
}

/* Without "./" in front and "/" behind, in place. */
static char *tidy(char *path)
{
    size_t n = strlen(path), skip = 0;

    while (path[skip] == '/' || (path[skip] == '.' && (!path[skip + 1] || path[skip + 1] == '/')))
        skip++;
    memmove(path, path + skip, n - skip + 1);
    for (n -= skip; n && path[n - 1] == '/'; n--)
        path[n - 1] = 0;
    return path;
}

static bool fail(GError **err, const char *why)
{
    g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "a package's archive is malformed: %s", why);
    return false;
}

static bool take_entry(struct reader *r, const struct header *h, uint64_t size,
                       bool (*take)(void *, const struct tar_entry *, GError **), void *opaque, GError **err)
{
    g_autofree char *path = tidy(r->long_name ? g_steal_pointer(&r->long_name) : full_name(h));
    g_autofree char *link =
        r->long_link ? g_steal_pointer(&r->long_link) : g_strndup(h->link, sizeof(h->link));
    struct tar_entry e = {
        .type = h->type ? h->type : '0',
        .path = path,
        .link = h->type == '1' ? tidy(link) : link,
        .mode = number(h->mode, sizeof(h->mode)) & 07777,
        .uid = (uint32_t)number(h->uid, sizeof(h->uid)),
        .gid = (uint32_t)number(h->gid, sizeof(h->gid)),
        .mtime = (int64_t)number(h->mtime, sizeof(h->mtime)),
        .data = r->p,
        .size = size,
    };

    if (!strchr("0123456", e.type))
        return fail(err, "an entry of a kind that packages do not have");
    return take(opaque, &e, err);
}

static bool take_header(struct reader *r, const struct header *h,
                        bool (*take)(void *, const struct tar_entry *, GError **), void *opaque, GError **err)
{
    uint64_t size = number(h->size, sizeof(h->size));
    bool ok = true;

    if (!checksum_is_right(h))
        return fail(err, "a wrong checksum");
    if (size > (uint64_t)(r->end - r->p))
        return fail(err, "it ends too early");
    if (h->type == 'L' || h->type == 'K') {
        char **slot = h->type == 'L' ? &r->long_name : &r->long_link;
        g_free(*slot);
        *slot = g_strndup((const char *)r->p, size);
    } else {
        ok = take_entry(r, h, size, take, opaque, err);
    }
    uint64_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
    r->p += MIN(padded, (uint64_t)(r->end - r->p));
    return ok;
}

bool tar_read(const void *archive, size_t size,
              bool (*take)(void *opaque, const struct tar_entry *e, GError **err), void *opaque, GError **err)
{
    struct reader r = {.p = archive, .end = (const uint8_t *)archive + size};
    bool ok = true;

    while (ok && r.end - r.p >= BLOCK && !is_end(r.p)) {
        const struct header *h = (const struct header *)r.p;
        r.p += BLOCK;
        ok = take_header(&r, h, take, opaque, err);
    }
    g_free(r.long_name);
    g_free(r.long_link);
    return ok;
}
