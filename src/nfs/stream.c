/*
 * Record marking (RFC 5531 section 11): fragments with a 31-bit length and a last-fragment bit become
 * records.
 *
 * A record that lies whole in what was fed is handed out where it lies; only one that arrives in pieces is
 * copied. The buffer grows with what has really come in, never with what a mark promises. Threading: none.
 */
#include "nfs/stream.h"

#include <errno.h>
#include <glib.h>
#include <stdbool.h>
#include <string.h>

/* Fragments of nothing cost the sender little and us a loop: no honest sender needs this many. */
#define FRAGMENTS_MAX 4096

struct nfs_stream {
    size_t max;
    GByteArray *record; /* of the record under way */
    uint8_t mark[4];
    unsigned mark_len; /* bytes of `mark' that are there */
    uint32_t left;     /* bytes of the fragment still to come */
    bool last;         /* the fragment ends the record */
    bool done;         /* `record' has been handed out */
    unsigned fragments;
};

struct nfs_stream *nfs_stream_new(size_t max)
{
    struct nfs_stream *s = g_new0(struct nfs_stream, 1);

    s->max = max;
    s->record = g_byte_array_new();
    return s;
}

void nfs_stream_free(struct nfs_stream *stream)
{
    if (!stream)
        return;
    g_byte_array_unref(stream->record);
    g_free(stream);
}

void nfs_stream_mark(uint8_t mark[4], size_t len)
{
    uint32_t be = GUINT32_TO_BE((uint32_t)len | UINT32_C(0x80000000));

    memcpy(mark, &be, 4);
}

/* The mark is complete: what does it promise? */
static int begin_fragment(struct nfs_stream *s)
{
    uint32_t be;

    memcpy(&be, s->mark, 4);
    s->left = GUINT32_FROM_BE(be) & UINT32_C(0x7fffffff);
    s->last = s->mark[0] & 0x80;
    if (++s->fragments > FRAGMENTS_MAX)
        return -EBADMSG;
    return s->left > s->max - s->record->len ? -EMSGSIZE : 0;
}

static size_t take_mark(struct nfs_stream *s, const uint8_t *p, size_t len)
{
    size_t n = MIN(len, 4 - s->mark_len);

    memcpy(s->mark + s->mark_len, p, n);
    s->mark_len += (unsigned)n;
    return n;
}

/* Bytes of the fragment; true when they end a record. */
static bool take_data(struct nfs_stream *s, const uint8_t **p, const uint8_t *end, const void **record,
                      size_t *len)
{
    size_t n = MIN((size_t)(end - *p), s->left);
    bool whole = s->last && n == s->left && s->record->len == 0;

    *record = *p;
    *len = n;
    if (!whole)
        g_byte_array_append(s->record, *p, (guint)n);
    *p += n;
    s->left -= (uint32_t)n;
    if (s->left)
        return false;
    s->mark_len = 0;
    if (s->last && !whole) {
        *record = s->record->data;
        *len = s->record->len;
        s->done = true;
    }
    if (s->last)
        s->fragments = 0;
    return s->last;
}

ssize_t nfs_stream_feed(struct nfs_stream *stream, const void *data, size_t len, const void **record,
                        size_t *record_len)
{
    const uint8_t *p = data, *end = p + len;

    if (stream->done) {
        g_byte_array_set_size(stream->record, 0);
        stream->done = false;
    }
    while (p < end) {
        if (stream->mark_len < 4) {
            p += take_mark(stream, p, (size_t)(end - p));
            if (stream->mark_len < 4)
                break;
            int err = begin_fragment(stream);

            if (err)
                return err;
        }
        if (take_data(stream, &p, end, record, record_len))
            return p - (const uint8_t *)data;
    }
    *record = NULL;
    *record_len = 0;
    return (ssize_t)len;
}
