/*
 * RPC messages in a byte stream: record marking, RFC 5531 section 11.  No threads of its own; one stream, one
 * caller.
 */
#ifndef ARMLET_NFS_STREAM_H
#define ARMLET_NFS_STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"

struct nfs_stream;

/* Records of more than `max' bytes break the stream. */
struct nfs_stream *nfs_stream_new(size_t max);
void nfs_stream_free(struct nfs_stream *stream);

/*
 * Take some of the `len' bytes at `data'; returns how many, or -EMSGSIZE when a record is too long and
 * -EBADMSG when it consists of too many fragments: the connection is then to be closed.  After a call *record
 * is a whole record of *record_len bytes (to be used before the next call; it may lie inside `data'), or NULL
 * when more bytes are needed. Call again with the rest until all bytes are taken and *record is NULL.
 */
MUST_USE ssize_t nfs_stream_feed(struct nfs_stream *stream, const void *data, size_t len, const void **record,
                                 size_t *record_len);

/* The mark before a record sent in one fragment.  len < 2^31. */
void nfs_stream_mark(uint8_t mark[4], size_t len);

#endif
