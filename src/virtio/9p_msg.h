/*
 * Fields of 9P messages: little-endian numbers, and strings with a 16-bit length.
 */
#ifndef ARMLET_VIRTIO_9P_MSG_H
#define ARMLET_VIRTIO_9P_MSG_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "virtio/9p_fs.h"

/* Reading past the end gives 0 and sets bad, which is looked at once, after the last field. */
struct p9_reader {
    const uint8_t *p, *end;
    bool bad;
};

static inline uint64_t p9_get(struct p9_reader *r, unsigned size)
{
    uint64_t v = 0;

    if ((size_t)(r->end - r->p) < size) {
        r->bad = true;
        return 0;
    }
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)r->p[i] << (8 * i);
    r->p += size;
    return v;
}

static inline uint32_t p9_get32(struct p9_reader *r)
{
    return (uint32_t)p9_get(r, 4);
}

/* Into buf of room + 1 bytes; -ENAMETOOLONG, -EINVAL for a NUL or a string cut off. */
static inline int p9_get_text(struct p9_reader *r, char *buf, size_t room)
{
    size_t len = p9_get(r, 2);

    if (r->bad || len > (size_t)(r->end - r->p)) {
        r->bad = true;
        return -EINVAL;
    }
    r->p += len;
    if (len > room)
        return -ENAMETOOLONG;
    memcpy(buf, r->p - len, len);
    buf[len] = 0;
    return memchr(buf, 0, len) ? -EINVAL : 0;
}

struct p9_name {
    char text[P9_NAME_MAX + 1];
};

/* One component. */
static inline int p9_get_name(struct p9_reader *r, struct p9_name *name)
{
    int error = p9_get_text(r, name->text, P9_NAME_MAX);

    if (error)
        return error;
    if (!name->text[0])
        return -ENOENT;
    return strchr(name->text, '/') ? -EINVAL : 0;
}

/* The caller has made sure of the room. */
struct p9_writer {
    uint8_t *p;
};

static inline void p9_put(struct p9_writer *w, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        *w->p++ = (uint8_t)(v >> (8 * i));
}

static inline void p9_put_bytes(struct p9_writer *w, const void *data, size_t len)
{
    p9_put(w, len, 2);
    memcpy(w->p, data, len);
    w->p += len;
}

static inline void p9_put_qid(struct p9_writer *w, struct p9_qid qid)
{
    p9_put(w, qid.type, 1);
    p9_put(w, qid.version, 4);
    p9_put(w, qid.path, 8);
}

#endif
