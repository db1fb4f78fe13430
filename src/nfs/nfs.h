/*
 * An NFS server as a function from messages to messages: portmap v2, mount v1 and v3, NFS v2 and v3 over ONC
 * RPC. It knows no guest and no socket; whoever has a message gives it to nfs_server_call() and sends the
 * answer.
 *
 * Threading: one call at a time for one server (the caller's lock); different servers share nothing.  A call
 * may block on the host's disk (fdatasync of a stable write), so it does not belong on the main thread of a
 * busy program. docs/nfs.md says how handles, ids, containment and durability work.
 */
#ifndef ARMLET_NFS_NFS_H
#define ARMLET_NFS_NFS_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum nfs_ids {
    NFS_IDS_MAPPED, /* guest root owns what the user owns; the rest is kept in extended attributes */
    NFS_IDS_REAL    /* owners, modes and device nodes are the host's own; needs the privileges for it */
};

struct nfs_export {
    const char *path;  /* a directory of the host */
    const char *mount; /* the name that clients mount it by, beginning with '/'; NULL: path, made absolute */
    bool readonly;
    enum nfs_ids ids;
};

/* Where the services are, for portmap's answers.  0: not there. */
struct nfs_ports {
    uint16_t portmap, nfs, mount;
};

/* What NFS and mount listen on when nobody says otherwise. */
#define NFS_PORT_PORTMAP 111
#define NFS_PORT_NFS     2049
#define NFS_PORT_MOUNT   20048

/* No message that the server takes or makes is longer: 1 MiB of data and what goes around it. */
#define NFS_MESSAGE_MAX ((1u << 20) + 4096)

/*
 * An answer: `len' bytes at `msg'.  The NFS_REPLY_ROOM bytes before msg are the caller's, for a record mark
 * and the headers of packets.
 */
#define NFS_REPLY_ROOM 128
struct nfs_reply {
    uint8_t *msg;
    size_t len;
    uint8_t *base; /* private */
};

void nfs_reply_init(struct nfs_reply *reply);
void nfs_reply_clear(struct nfs_reply *reply);

struct nfs_server;

/*
 * For who fills a directory that will be exported as NFS_IDS_MAPPED: the file or directory at `fd' is to have this owner and
 * mode (07777) for the guest.  0 or -errno: -EPERM when the file system keeps no attributes and one is needed.
 */
int nfs_mapped_set(int fd, uint32_t mode, uint32_t uid, uint32_t gid);
/* What the guest sees of the object at `path' in such a directory: lstat() with its kind, mode, owner and device.  0 or -errno. */
struct stat;
int nfs_mapped_get(const char *path, struct stat *st);

/*
 * Serve `n' directories.  Nothing of `exports' is kept.  NULL and `error' (G_FILE_ERROR) when one cannot be
 * opened or two have one name.  One line of warning when a mapped export is on a file system without extended
 * attributes.
 */
struct nfs_server *nfs_server_new(const struct nfs_export *exports, size_t n, GError **error);
void nfs_server_free(struct nfs_server *server);

/* Default: the three NFS_PORT_ numbers. */
void nfs_server_set_ports(struct nfs_server *server, const struct nfs_ports *ports);

/*
 * Answer one RPC message of `len' bytes, which came over TCP or UDP.  True: send `reply', which is good until
 * its next use.  False: there is nothing to say (not a call, or too short to be one).  Any bytes are allowed.
 */
bool nfs_server_call(struct nfs_server *server, const void *rpc, size_t len, bool tcp,
                     struct nfs_reply *reply);

/*
 * The same, but a call that has to wait for the host's disk (COMMIT, a stable WRITE, a READ of what is not in
 * the page cache) is not made: NFS_WAITS.  Give it to nfs_server_call() where waiting hurts nobody.
 */
enum nfs_outcome { NFS_SILENT, NFS_ANSWERED, NFS_WAITS };
enum nfs_outcome nfs_server_try(struct nfs_server *server, const void *rpc, size_t len, bool tcp,
                                struct nfs_reply *reply);

/*
 * Optional: called around each wait for the host's disk, so that the caller can let go of his lock, and other
 * calls be made meanwhile (the one that waits goes on after end()).  Without them a server makes one call at
 * a time.
 */
void nfs_server_set_waiting(struct nfs_server *server, void (*begin)(void *arg), void (*end)(void *arg),
                            void *arg);

/* Optional, about once a second: closes files that nobody used for a while, so that the host can run or
 * unmount them. */
void nfs_server_tick(struct nfs_server *server);

#endif
