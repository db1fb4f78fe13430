/*
 * A directory of the host as 9P shows it: objects (nodes), reached from the exported directory one name at a
 * time, and what can be done to them under a security model.
 *
 * Nothing leaves the directory: a node holds an O_PATH descriptor of the very object, names are single
 * components opened with O_NOFOLLOW below it, and ".." is the node that one came through.  Whatever the host
 * or the guest swaps meanwhile, an operation reaches what was walked to, or fails.
 *
 * Everything returns 0 (or a count, or a descriptor) or -errno.  All functions may be called on any threads.
 */
#ifndef ARMLET_VIRTIO_9P_FS_H
#define ARMLET_VIRTIO_9P_FS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <time.h>

enum { P9_NAME_MAX = 255, P9_LINK_MAX = 4095, P9_XATTR_MAX = 65536 };

enum p9_model {
    P9_NONE,         /* the host's owners and modes; a chown of something new may fail unnoticed */
    P9_PASSTHROUGH,  /* the same, and new things get the guest's ids (needs the host's root) */
    P9_MAPPED_XATTR, /* the guest's owners, modes and devices are in user.virtfs.* of each file */
    P9_MAPPED_FILE   /* in .virtfs_metadata beside it */
};

struct p9_options {
    const char *path;
    enum p9_model model;
    bool readonly;
    bool one_device;     /* multidevs=forbid: what is mounted below the directory is not there */
    bool writeout;       /* the host begins to write to the medium at once */
    mode_t fmode, dmode; /* of new files and directories on the host, for the mapped models */
};

struct p9_fs;
struct p9_node;

/* 0 or -errno; *why is a static text.  The path is opened now; renaming it later does not matter. */
int p9_fs_new(struct p9_fs **fs, const struct p9_options *options, const char **why);
/* All nodes must be gone. */
void p9_fs_free(struct p9_fs *fs);
const struct p9_options *p9_fs_options(const struct p9_fs *fs);

/* Nodes are counted; root and walk return a reference. */
struct p9_node *p9_node_root(struct p9_fs *fs);
struct p9_node *p9_node_ref(struct p9_node *node);
void p9_node_unref(struct p9_node *node);
bool p9_node_is_root(const struct p9_node *node);

/* What 9P knows an object by. */
struct p9_qid {
    uint8_t type;
    uint32_t version;
    uint64_t path;
};
struct p9_qid p9_qid_of(struct p9_fs *fs, const struct statx *stx);
/* Of a directory entry. */
struct p9_qid p9_qid_of_entry(struct p9_fs *fs, const struct statx *dir, uint64_t ino, uint8_t d_type);

/* Name NUL-terminated; stx as the guest sees it. */
int p9_walk(struct p9_node *dir, const char *name, struct p9_node **node, struct statx *stx);
int p9_getattr(struct p9_node *node, struct statx *stx);

struct p9_setattr {
    bool set_mode, set_uid, set_gid, set_size, set_times;
    uint32_t mode, uid, gid;
    uint64_t size;
    struct timespec times[2]; /* as utimensat() */
};
/* fd: a descriptor of the file that may be written, or -1. */
int p9_setattr(struct p9_node *node, int fd, const struct p9_setattr *set);

/* Who makes something; UINT32_MAX: nobody in particular. */
struct p9_owner {
    uint32_t uid, gid;
};
/* A descriptor of a regular file or directory.  Of flags: the access mode, O_TRUNC, O_DSYNC, O_SYNC. */
int p9_open(struct p9_node *node, int flags);
/* And O_EXCL.  *node is the new file's. */
int p9_create(struct p9_node *dir, const char *name, int flags, uint32_t mode, struct p9_owner owner,
              struct p9_node **node, struct statx *stx, int *fd);
int p9_mkdir(struct p9_node *dir, const char *name, uint32_t mode, struct p9_owner owner, struct statx *stx);
/* mode with S_IFMT */
int p9_mknod(struct p9_node *dir, const char *name, uint32_t mode, dev_t dev, struct p9_owner owner,
             struct statx *stx);
int p9_symlink(struct p9_node *dir, const char *name, const char *target, struct p9_owner owner,
               struct statx *stx);
int p9_link(struct p9_node *dir, struct p9_node *node, const char *name);
int p9_rename(struct p9_node *from, const char *name, struct p9_node *to, const char *to_name);
/* The node itself, by the name it was reached by. */
int p9_rename_node(struct p9_node *node, struct p9_node *to, const char *to_name);
int p9_unlink(struct p9_node *dir, const char *name, bool is_dir);
int p9_remove_node(struct p9_node *node);
/* At most P9_LINK_MAX bytes; the length. */
ssize_t p9_readlink(struct p9_node *node, char *buf);
int p9_statfs(struct p9_node *node, struct statfs *st);
/* A name that the model keeps for itself. */
bool p9_is_hidden(const struct p9_fs *fs, const char *name);

/* Extended attributes: the length, or -ERANGE when size is too small.  list: NUL-terminated names in a row.
 */
ssize_t p9_xattr_get(struct p9_node *node, const char *name, void *buf, size_t size);
ssize_t p9_xattr_list(struct p9_node *node, char *buf, size_t size);
int p9_xattr_set(struct p9_node *node, const char *name, const void *buf, size_t size, int flags);
int p9_xattr_remove(struct p9_node *node, const char *name);

/* Counts of the descriptors that the guest keeps open itself: -ENFILE when it has too many. */
int p9_fs_take_file(struct p9_fs *fs);
void p9_fs_put_file(struct p9_fs *fs);

#endif
