/*
 * Nodes from the inside: for 9p_node.c, 9p_ops.c and 9p_meta.c only.
 */
#ifndef ARMLET_VIRTIO_9P_NODE_H
#define ARMLET_VIRTIO_9P_NODE_H

#include <glib.h>

#include "virtio/9p_fs.h"

struct p9_node {
    struct p9_fs *fs;
    /* Under fs->lock: */
    unsigned refs, pins;
    int fd;     /* O_PATH; -1: closed to save descriptors, until it is needed */
    GList link; /* in fs->lru while fd >= 0, but the root's */
    /* Under fs->names (written) and fs->lock: */
    struct p9_node *parent; /* NULL: the root */
    char *name;
    bool orphan; /* the name leads to something else now */
    /* Constant: */
    uint64_t ino;
    int64_t born; /* ns since 1970, 0 if the file system does not say: numbers are used again */
    uint32_t major, minor, type; /* the host's S_IFMT */
};

struct p9_fs {
    struct p9_options options;
    char *path;
    struct p9_node *root;
    GRWLock names;       /* outer: written by what moves or removes names, read by what looks them up */
    GMutex lock;         /* inner */
    GHashTable *by_name; /* of struct p9_node by parent and name */
    GQueue lru;          /* the most recently used first */
    unsigned max_paths, max_files, files;
    GHashTable *prefixes; /* of qid paths, see p9_qid_of() */
};

/* The node's descriptor, kept until p9_unpin(); -ESTALE. */
int p9_pin(struct p9_node *node);
void p9_unpin(struct p9_node *node);
/* "/proc/self/fd/N": the object of a descriptor, for calls that want a path. */
struct p9_path {
    char text[32];
};
struct p9_path p9_fd_path(int fd);
int p9_statx(int fd, const char *name, struct statx *stx);
/* The node of an open O_PATH descriptor, which it takes; fs->names is held for reading. */
struct p9_node *p9_node_adopt(struct p9_node *dir, const char *name, int fd, const struct statx *stx);
/* Both with fs->names written: what `name' led to is elsewhere now, or nowhere. */
void p9_names_moved(struct p9_node *from, const char *name, struct p9_node *to, const char *to_name);
void p9_names_gone(struct p9_node *dir, const char *name);

/* --- 9p_meta.c: what the guest sees, under the mapped models --- */

struct p9_meta {
    bool has_uid, has_gid, has_mode, has_dev;
    uint32_t uid, gid, mode; /* with S_IFMT */
    uint64_t dev;
};
bool p9_is_mapped(const struct p9_fs *fs);
/* Where an object's metadata are: its own descriptor, and the name in the directory that leads to it. */
struct p9_where {
    struct p9_fs *fs;
    int fd;  /* O_PATH */
    int dir; /* -1: it is the root */
    const char *name;
};
void p9_meta_overlay(const struct p9_where *at, struct statx *stx);
/* Changes what `meta' has. */
int p9_meta_store(const struct p9_where *at, const struct p9_meta *meta);
/* Names changed on the host: metadata in files follow. */
void p9_meta_renamed(struct p9_fs *fs, int from, const char *name, int to, const char *to_name);
void p9_meta_removed(struct p9_fs *fs, int dir, const char *name);
int p9_meta_linked(struct p9_fs *fs, const struct p9_where *old, int dir, const char *name);
/* Before a directory is removed. */
void p9_meta_empty(struct p9_fs *fs, int dir, const char *name);

#endif
