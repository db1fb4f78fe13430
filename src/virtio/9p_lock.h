/*
 * Locks on byte ranges that a session's processes hold.
 *
 * The client's kernel arbitrates between its own processes; what they hold together is held on the host too
 * (as open file description locks), so that host processes and other guests see it.  Threading: any.
 */
#ifndef ARMLET_VIRTIO_9P_LOCK_H
#define ARMLET_VIRTIO_9P_LOCK_H

#include "virtio/9p_fs.h"

enum { P9_LOCK_READ = 0, P9_LOCK_WRITE = 1, P9_LOCK_NONE = 2 };
enum { P9_LOCK_GRANTED = 0, P9_LOCK_BLOCKED = 1 };

struct p9_lock {
    uint8_t type;
    uint64_t start, len; /* len 0: to the end of the file, wherever that will be */
    uint32_t proc;       /* who, in the client's numbers */
};

struct p9_locks;

struct p9_locks *p9_locks_new(void);
void p9_locks_free(struct p9_locks *locks);
/* Drops all. */
void p9_locks_clear(struct p9_locks *locks);

/* One of P9_LOCK_GRANTED and P9_LOCK_BLOCKED, or -errno.  fid stands for the opening that the lock goes with.
 */
int p9_locks_set(struct p9_locks *locks, struct p9_node *node, const void *fid, const struct p9_lock *want);
/* What stands in the way of `lock', which becomes that; type P9_LOCK_NONE: nothing. */
int p9_locks_get(struct p9_locks *locks, struct p9_node *node, struct p9_lock *lock);
/* The opening has ended. */
void p9_locks_drop(struct p9_locks *locks, const void *fid);

#endif
