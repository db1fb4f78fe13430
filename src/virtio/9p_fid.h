/*
 * Fids: the driver's names of what it works with.
 */
#ifndef ARMLET_VIRTIO_9P_FID_H
#define ARMLET_VIRTIO_9P_FID_H

#include <glib.h>

#include "virtio/9p_fs.h"

enum p9_fid_kind { P9_FID_NODE, P9_FID_XATTR_READ, P9_FID_XATTR_WRITE };

struct p9_fid {
    int refs;
    struct p9_fs *fs;
    uint32_t uid; /* of the attach: who makes things by it */
    GMutex lock;  /* of what is below */
    struct p9_node *node;
    int fd; /* -1: not open; set once, closed with the fid */
    bool writable;
    int64_t dir_at; /* where the next entry is read without a seek; directories */
    enum p9_fid_kind kind;
    uint8_t *value; /* xattr: of size bytes; owned */
    size_t size, done;
    char *name; /* XATTR_WRITE */
    int flags;
};

struct p9_fids {
    struct p9_fs *fs;
    GMutex lock;
    GHashTable *table; /* number -> struct p9_fid */
};

void p9_fids_init(struct p9_fids *f, struct p9_fs *fs);
void p9_fids_clear(struct p9_fids *f); /* leaves it empty */
void p9_fids_destroy(struct p9_fids *f);
unsigned p9_fids_count(struct p9_fids *f);

/* A new one, not yet in the table; takes the node's reference. */
struct p9_fid *p9_fid_new(struct p9_fs *fs, struct p9_node *node, uint32_t uid);
void p9_fid_unref(struct p9_fid *fid);
/* Takes fid's reference; -EINVAL: the number is in use, -ENFILE. */
int p9_fids_add(struct p9_fids *f, uint32_t number, struct p9_fid *fid);
/* A reference, or NULL. */
struct p9_fid *p9_fids_find(struct p9_fids *f, uint32_t number);
/* Out of the table; its reference goes to the caller, or NULL. */
struct p9_fid *p9_fids_take(struct p9_fids *f, uint32_t number);

/* What a request works with: the fid as it was when the request came. */
struct p9_use {
    struct p9_fid *fid;
    struct p9_node *node;
    int fd;
};
/* -EBADF: no such fid. */
int p9_use(struct p9_fids *f, uint32_t number, struct p9_use *use);
void p9_use_end(struct p9_use *use);

/* The fid is open now, as what `fd' is of (and node, if not NULL: both taken).  -EBUSY: it was already. */
int p9_fid_opened(struct p9_fid *fid, struct p9_node *node, int fd, bool writable);

#endif
