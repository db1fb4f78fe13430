/*
 * The port mapper, version 2 (RFC 1833 section 3): where the services of this server are, and nothing else.
 * Nobody can register.  Versions 3 and 4 (rpcbind) are answered with PROG_MISMATCH, upon which clients ask
 * for version 2. Threading: the server's.
 */
#include "base/compiler.h"
#include "nfs/server.h"

enum { PROG_PORTMAP = 100000, PROG_NFS = 100003, PROG_MOUNT = 100005 };

struct mapping {
    uint32_t prog, vers, prot, port;
};

static unsigned list(const struct nfs_server *s, struct mapping out[16])
{
    const struct mapping services[] = {
        {PROG_PORTMAP, 2, 0, s->ports.portmap}, {PROG_MOUNT, 1, 0, s->ports.mount},
        {PROG_MOUNT, 3, 0, s->ports.mount},     {PROG_NFS, 2, 0, s->ports.nfs},
        {PROG_NFS, 3, 0, s->ports.nfs},
    };
    unsigned n = 0;

    for (unsigned i = 0; i < ARRAY_LEN(services); i++) {
        if (!services[i].port)
            continue;
        out[n] = out[n + 1] = services[i];
        out[n++].prot = IPPROTO_TCP;
        out[n++].prot = IPPROTO_UDP;
    }
    return n;
}

static void null(struct rpc_call *call)
{
}

static void take_mapping(struct rpc_call *call, struct mapping *m)
{
    m->prog = rpc_u32(call);
    m->vers = rpc_u32(call);
    m->prot = rpc_u32(call);
    m->port = rpc_u32(call);
}

static void refuse(struct rpc_call *call)
{
    struct mapping m;

    take_mapping(call, &m);
    rpc_put_bool(call, false);
}

/* A version that is not there gives the port of one that is: the service itself says which it has. */
static void getport(struct rpc_call *call)
{
    struct mapping m, all[16];
    unsigned n = list(call->server, all);
    uint32_t port = 0;

    take_mapping(call, &m);
    for (unsigned i = 0; i < n; i++) {
        if (all[i].prog == m.prog && all[i].prot == m.prot && (!port || all[i].vers == m.vers))
            port = all[i].port;
    }
    rpc_put_u32(call, port);
}

static void dump(struct rpc_call *call)
{
    struct mapping all[16];
    unsigned n = list(call->server, all);

    for (unsigned i = 0; i < n; i++) {
        rpc_put_bool(call, true);
        rpc_put_u32(call, all[i].prog);
        rpc_put_u32(call, all[i].vers);
        rpc_put_u32(call, all[i].prot);
        rpc_put_u32(call, all[i].port);
    }
    rpc_put_bool(call, false);
}

/* CALLIT, a relay for broadcasts, is not offered. */
static const struct rpc_proc procs[] = {
    {"PMAP_NULL", null},       {"PMAP_SET", refuse}, {"PMAP_UNSET", refuse},
    {"PMAP_GETPORT", getport}, {"PMAP_DUMP", dump},
};

const struct rpc_program portmap2_program = {PROG_PORTMAP, 2, procs, ARRAY_LEN(procs)};
