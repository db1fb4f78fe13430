/*
 * The 9P2000.L protocol: requests to answers.
 *
 * A session is what one driver sees of an exported directory: its fids.  Requests may be handled on any
 * threads at once.
 */
#ifndef ARMLET_VIRTIO_9P_PROTO_H
#define ARMLET_VIRTIO_9P_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtio/9p_fs.h"

enum { P9_HEADER = 7, P9_ERROR_SIZE = 11, P9_MSIZE_MAX = 4 << 20 };
enum { P9_TFLUSH = 108, P9_RFLUSH = 109 };

struct p9_session;

/* fs stays the caller's. */
struct p9_session *p9_session_new(struct p9_fs *fs);
/* No request is being handled. */
void p9_session_free(struct p9_session *s);
/* Forgets every fid, also while requests are being handled (they end as if they had come before). */
void p9_session_reset(struct p9_session *s);
/* Fids that there are, for people. */
unsigned p9_session_fids(struct p9_session *s);

/*
 * A request, and room for its answer, of at least P9_ERROR_SIZE bytes.  nowait: it is not to wait for the
 * host's disk if that can be known beforehand.
 */
struct p9_io {
    const struct iovec *out, *in;
    unsigned out_num, in_num;
    size_t out_len, in_len;
    bool nowait;
};

struct p9_header {
    uint32_t size;
    uint8_t type;
    uint16_t tag;
};
/* Is it done in a moment, as far as one can tell? */
bool p9_is_quick(const struct p9_io *io, const struct p9_header *h);
/* False: there is none. */
bool p9_read_header(const struct p9_io *io, struct p9_header *h);
/* Any request but P9_TFLUSH; returns the answer's length, or with nowait 0: nothing was done. */
size_t p9_handle(struct p9_session *s, const struct p9_io *io);
/* An answer that is only a header. */
size_t p9_answer_empty(const struct p9_io *io, uint8_t type, uint16_t tag);

#endif
