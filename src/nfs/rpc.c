/*
 * RPC messages: the call's header and credentials in, the reply's header out (RFC 5531 section 9).
 *
 * AUTH_NONE is nobody, AUTH_SYS is who it says; any other flavour is refused.  Threading: the server's.
 */
#include "nfs/rpc.h"

#include <string.h>

#include "base/compiler.h"
#include "base/trace.h"
#include "nfs/server.h"

enum { MACHINE_NAME_MAX = 255, AUTH_MAX = 400 };

static const struct rpc_program *const programs[] = {
    &portmap2_program, &mount1_program, &mount3_program, &nfs2_program, &nfs3_program,
};

/* --- arguments --- */

uint32_t rpc_u32(struct rpc_call *call)
{
    uint32_t v = 0;

    if (call->bad || !xdr_uint32_t(&call->in, &v)) {
        call->bad = true;
        return 0;
    }
    return v;
}

uint64_t rpc_u64(struct rpc_call *call)
{
    uint64_t hi = rpc_u32(call);

    return hi << 32 | rpc_u32(call);
}

const uint8_t *rpc_fixed(struct rpc_call *call, size_t n)
{
    static const uint8_t nothing[256];
    unsigned pos = XDR_GETPOS(&call->in);

    /* x_handy: what is left of the message. */
    if (call->bad || n > call->in.x_handy || RNDUP(n) > call->in.x_handy ||
        !XDR_SETPOS(&call->in, pos + (unsigned)RNDUP(n))) {
        call->bad = true;
        return nothing;
    }
    return call->msg + pos;
}

const uint8_t *rpc_opaque(struct rpc_call *call, size_t max, size_t *n)
{
    const uint8_t *p;

    *n = rpc_u32(call);
    if (*n > max)
        call->bad = true;
    p = rpc_fixed(call, *n);
    if (call->bad)
        *n = 0;
    return p;
}

/* --- results --- */

void rpc_put_u32(struct rpc_call *call, uint32_t v)
{
    if (!xdr_uint32_t(&call->out, &v))
        call->full = true;
}

void rpc_put_u64(struct rpc_call *call, uint64_t v)
{
    rpc_put_u32(call, (uint32_t)(v >> 32));
    rpc_put_u32(call, (uint32_t)v);
}

void rpc_put_bool(struct rpc_call *call, bool v)
{
    rpc_put_u32(call, v);
}

unsigned rpc_tell(struct rpc_call *call)
{
    return XDR_GETPOS(&call->out);
}

void rpc_seek(struct rpc_call *call, unsigned pos)
{
    XDR_SETPOS(&call->out, pos);
}

void *rpc_put_room(struct rpc_call *call, size_t n)
{
    if (RNDUP(n) > call->out.x_handy) {
        call->full = true;
        return NULL;
    }
    return call->reply + rpc_tell(call);
}

void rpc_put_done(struct rpc_call *call, size_t n)
{
    unsigned pos = rpc_tell(call);

    memset(call->reply + pos + n, 0, RNDUP(n) - n);
    rpc_seek(call, pos + (unsigned)RNDUP(n));
}

void rpc_put_fixed(struct rpc_call *call, const void *p, size_t n)
{
    void *room = rpc_put_room(call, n);

    if (!room)
        return;
    memcpy(room, p, n);
    rpc_put_done(call, n);
}

void rpc_put_opaque(struct rpc_call *call, const void *p, size_t n)
{
    rpc_put_u32(call, (uint32_t)n);
    rpc_put_fixed(call, p, n);
}

/* --- headers --- */

/* RFC 5531 appendix A.  False: malformed. */
static bool take_auth_sys(struct rpc_call *call, struct cred *cred)
{
    size_t n;

    rpc_u32(call);
    rpc_opaque(call, MACHINE_NAME_MAX, &n);
    cred->uid = rpc_u32(call);
    cred->gid = rpc_u32(call);
    cred->n = rpc_u32(call);
    if (cred->n > CRED_GROUPS)
        call->bad = true;
    for (unsigned i = 0; i < cred->n && !call->bad; i++)
        cred->groups[i] = rpc_u32(call);
    return !call->bad;
}

/* Returns AUTH_OK or why not. */
static enum auth_stat take_auth(struct rpc_call *call)
{
    uint32_t flavor = rpc_u32(call), len = rpc_u32(call), pos = XDR_GETPOS(&call->in);
    size_t n;

    call->cred = (struct cred){.uid = CRED_NOBODY, .gid = CRED_NOBODY};
    if (len > AUTH_MAX)
        return AUTH_BADCRED;
    if (flavor == AUTH_SYS) {
        if (!take_auth_sys(call, &call->cred) || XDR_GETPOS(&call->in) != pos + RNDUP(len))
            return AUTH_BADCRED;
    } else if (flavor == AUTH_NONE) {
        rpc_fixed(call, len);
    } else {
        return AUTH_REJECTEDCRED;
    }
    rpc_u32(call);
    rpc_opaque(call, AUTH_MAX, &n);
    return call->bad ? AUTH_BADVERF : AUTH_OK;
}

static void put_denied(struct rpc_call *call, enum reject_stat why, uint32_t a, uint32_t b)
{
    rpc_put_u32(call, MSG_DENIED);
    rpc_put_u32(call, why);
    rpc_put_u32(call, a);
    if (why == RPC_MISMATCH)
        rpc_put_u32(call, b);
}

static void put_accepted(struct rpc_call *call, enum accept_stat stat)
{
    rpc_put_u32(call, MSG_ACCEPTED);
    rpc_put_u32(call, AUTH_NONE);
    rpc_put_u32(call, 0);
    rpc_put_u32(call, stat);
}

/* NULL, and low and high when there are other versions of it. */
static const struct rpc_program *find_program(const struct rpc_call *call, uint32_t *low, uint32_t *high)
{
    *low = UINT32_MAX;
    *high = 0;
    for (unsigned i = 0; i < ARRAY_LEN(programs); i++) {
        if (programs[i]->prog != call->prog)
            continue;
        if (programs[i]->vers == call->vers)
            return programs[i];
        *low = MIN(*low, programs[i]->vers);
        *high = MAX(*high, programs[i]->vers);
    }
    return NULL;
}

static void run(struct rpc_call *call, const struct rpc_proc *proc)
{
    unsigned start = rpc_tell(call);

    put_accepted(call, SUCCESS);
    proc->fn(call);
    if (call->bad || call->full) {
        rpc_seek(call, start);
        put_accepted(call, call->bad ? GARBAGE_ARGS : SYSTEM_ERR);
    }
}

static void dispatch(struct rpc_call *call, size_t len)
{
    uint32_t low, high;
    const struct rpc_program *program = find_program(call, &low, &high);
    const struct rpc_proc *proc = program && call->proc < program->n ? &program->procs[call->proc] : NULL;

    trace(NFS, "call xid=%#x prog=%u vers=%u proc=%u %s uid=%u len=%zu", call->xid, call->prog, call->vers,
          call->proc, proc ? proc->name : "?", call->cred.uid, len);
    if (!program) {
        put_accepted(call, high ? PROG_MISMATCH : PROG_UNAVAIL);
        if (high) {
            rpc_put_u32(call, low);
            rpc_put_u32(call, high);
        }
    } else if (!proc || !proc->fn) {
        put_accepted(call, PROC_UNAVAIL);
    } else if (!proc->once) {
        run(call, proc);
    } else if (!server_replay(call, len)) {
        run(call, proc);
        server_remember(call, len);
    }
}

size_t rpc_answer(struct nfs_server *server, const uint8_t *msg, size_t len, bool tcp, uint8_t *out)
{
    struct rpc_call call = {.server = server, .msg = msg, .reply = out, .tcp = tcp};
    enum auth_stat auth;
    uint32_t rpcvers;

    xdrmem_create(&call.in, (char *)msg, (u_int)len, XDR_DECODE);
    xdrmem_create(&call.out, (char *)out, NFS_MESSAGE_MAX, XDR_ENCODE);
    call.xid = rpc_u32(&call);
    if (rpc_u32(&call) != CALL)
        call.bad = true;
    rpcvers = rpc_u32(&call);
    call.prog = rpc_u32(&call);
    call.vers = rpc_u32(&call);
    call.proc = rpc_u32(&call);
    if (call.bad)
        return 0;
    rpc_put_u32(&call, call.xid);
    rpc_put_u32(&call, REPLY);
    if (rpcvers != RPC_MSG_VERSION) {
        put_denied(&call, RPC_MISMATCH, RPC_MSG_VERSION, RPC_MSG_VERSION);
        return rpc_tell(&call);
    }
    auth = take_auth(&call);
    if (auth != AUTH_OK)
        put_denied(&call, AUTH_ERROR, auth, 0);
    else
        dispatch(&call, len);
    return rpc_tell(&call);
}
