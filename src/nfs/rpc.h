/*
 * One RPC call while it is answered (RFC 5531): its arguments as an XDR stream, its results as another.
 *
 * Getting past the end of the arguments, or something too long, sets `bad' and yields zeroes; the caller
 * looks once, after the last argument, and nothing may be changed before it did.  Threading: the server's.
 */
#ifndef ARMLET_NFS_RPC_H
#define ARMLET_NFS_RPC_H

#include <rpc/rpc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nfs/nfs.h"
#include "nfs/tree.h"

struct rpc_call {
    struct nfs_server *server;
    XDR in, out;
    const uint8_t *msg;
    uint8_t *reply;
    bool tcp, bad, full; /* full: the results did not fit */
    uint32_t xid, prog, vers, proc;
    struct cred cred;
};

struct rpc_proc {
    const char *name;
    void (*fn)(struct rpc_call *call); /* NULL: not available */
    bool once; /* doing it twice gives another answer: a repeated call gets the first answer again */
};

struct rpc_program {
    uint32_t prog, vers;
    const struct rpc_proc *procs;
    unsigned n;
};

extern const struct rpc_program portmap2_program, mount1_program, mount3_program, nfs2_program, nfs3_program;

/* The reply goes to `out' of NFS_MESSAGE_MAX bytes; returns its length, 0 for none. */
size_t rpc_answer(struct nfs_server *server, const uint8_t *msg, size_t len, bool tcp, uint8_t *out);

uint32_t rpc_u32(struct rpc_call *call);
uint64_t rpc_u64(struct rpc_call *call);
/* Bytes where they lie in the message: n of them, or a counted string of at most max. */
const uint8_t *rpc_fixed(struct rpc_call *call, size_t n);
const uint8_t *rpc_opaque(struct rpc_call *call, size_t max, size_t *n);

void rpc_put_u32(struct rpc_call *call, uint32_t v);
void rpc_put_u64(struct rpc_call *call, uint64_t v);
void rpc_put_bool(struct rpc_call *call, bool v);
void rpc_put_fixed(struct rpc_call *call, const void *p, size_t n);
void rpc_put_opaque(struct rpc_call *call, const void *p, size_t n);
/* Room for n bytes of results, to be written by the caller; NULL when there is none.  Then rpc_put_done(). */
void *rpc_put_room(struct rpc_call *call, size_t n);
/* Of the room, n bytes are used: their padding is added. */
void rpc_put_done(struct rpc_call *call, size_t n);
/* Positions in the results, to go back to. */
unsigned rpc_tell(struct rpc_call *call);
void rpc_seek(struct rpc_call *call, unsigned pos);

#endif
