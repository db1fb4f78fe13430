/*
 * The server behind the programs: exports, ports, who has mounted what, and the answers to repeat.
 * Threading: one call at a time.
 */
#ifndef ARMLET_NFS_SERVER_H
#define ARMLET_NFS_SERVER_H

#include "nfs/nfs.h"
#include "nfs/rpc.h"
#include "nfs/tree.h"

#define SERVER_REPLAYS    256
#define SERVER_REPLAY_MAX 1024 /* bytes of an answer that can be repeated */
#define SERVER_MOUNTS_MAX 64

struct replay {
    uint32_t xid, prog, vers, proc;
    uint64_t sum; /* of the call */
    size_t call_len, len;
    int64_t when; /* ms */
    uint8_t reply[SERVER_REPLAY_MAX];
};

struct nfs_server {
    struct tree **trees;
    size_t n_trees;
    struct nfs_ports ports;
    uint8_t write_verf[8]; /* another in each run: RFC 1813 3.3.7 */
    GPtrArray *mounts;     /* char *, for DUMP */
    struct replay *replays;
    unsigned next_replay;
};

/* The answer of before, if this call was answered before (RFC 1813 4.3.3). */
bool server_replay(struct rpc_call *call, size_t len);
void server_remember(struct rpc_call *call, size_t len);

/* 0, -EBADF (no handle of ours), -ESTALE. */
int server_node(struct nfs_server *server, const uint8_t *handle, size_t len, struct node **node);

#endif
