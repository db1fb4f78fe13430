/*
 * One exported directory: objects with stable handles, their attributes as the guest sees them, and what can
 * be done to them.  docs/nfs.md explains.  Everything returns 0 (or a count, or a descriptor) or -errno;
 * -ESTALE when a handle's object is gone.  Names are single components, checked by tree_check_name().  Nodes
 * live at least until the next tree_begin().  Threading: the server's (one call at a time).
 */
#ifndef ARMLET_NFS_TREE_H
#define ARMLET_NFS_TREE_H

#include <dirent.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <time.h>

#define TREE_HANDLE_SIZE 32
#define TREE_NAME_MAX    255
#define TREE_LINK_MAX    4095 /* bytes of a symbolic link's target */

#define CRED_GROUPS 16
#define CRED_NOBODY 65534
struct cred {
    uint32_t uid, gid;
    unsigned n;
    uint32_t groups[CRED_GROUPS];
};

/* Who an object is, over restarts: the birth time tells a new object from an old one with the same number. */
struct node_key {
    uint64_t ino;
    uint64_t born; /* ns since 1970; 0 when the file system does not say */
    uint32_t dev;
};

/* What the extended attribute says in place of the host: docs/nfs.md, "Owners, modes and device nodes". */
struct meta {
    bool present;
    char kind; /* 'f': as the host says; 'b' 'c' 'p' 's' 'l': a regular file that stands for one of these */
    uint32_t mode, uid, gid, major, minor;
    uint64_t id_ino, id_born; /* not 0: the object's key from before it was replaced */
};

struct attr {
    uint32_t mode; /* with S_IFMT */
    uint32_t nlink, uid, gid, major, minor, fsid;
    uint64_t size, used, fileid; /* bytes, bytes */
    struct timespec atime, mtime, ctime;
};

enum time_how { TIME_KEEP, TIME_SERVER, TIME_CLIENT };
struct sattr {
    bool set_mode, set_uid, set_gid, set_size;
    uint32_t mode, uid, gid;
    uint64_t size;
    enum time_how atime_how, mtime_how;
    struct timespec atime, mtime;
};

struct node;

/* A name under which an object was seen; the first of a node's list is believed until it proves wrong. */
struct place {
    struct place *next;
    struct node *parent;
    char name[];
};

enum fd_kind { FD_NONE, FD_DIR, FD_READ, FD_WRITE };

struct cookies {
    GHashTable *by_off; /* host's directory offset (pointer to int64_t in `offs') -> index + 1 */
    GPtrArray *offs;    /* index -> int64_t * */
};

struct node {
    struct tree *tree;
    struct node_key id;   /* in handles */
    struct node_key host; /* the host's; differs from id only for what was replaced */
    uint32_t type;        /* S_IFMT of the host */
    struct place *places;
    unsigned pins;     /* calls that wait for the disk and go on with this node */
    unsigned children; /* places that have this node as parent */
    int fd;
    enum fd_kind fd_kind;
    int64_t checked;          /* ms: when places last led here */
    int64_t used;             /* ms: fd */
    GList fd_link, node_link; /* in tree->fds, tree->nodes */
    struct meta meta;         /* good while the ctime is meta_ctime */
    struct timespec meta_ctime;
    struct cookies *cookies;
};

struct tree {
    char *mount;
    char *path;
    bool readonly, real, xattr;
    bool patient; /* this call may wait for the disk; if not, it sets `waits' and does nothing (-EAGAIN) */
    bool waits;
    void (*wait_begin)(void *arg), (*wait_end)(void *arg); /* around waits for the disk; may be NULL */
    void *wait_arg;
    bool no_nowait; /* the host's file system cannot say whether a read would wait */
    uint32_t id; /* in handles */
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* that count as the user's own */
    int n_groups;
    struct node *root;
    GHashTable *by_key; /* struct node_key * -> struct node * */
    GQueue fds, nodes;  /* most recently used first */
    unsigned max_fds, max_nodes;
    struct index *index;
    int64_t index_built, index_cost; /* ms */
    int64_t now;                     /* ms, of this call */
};

struct tree *tree_new(const char *path, const char *mount, bool readonly, bool real, GError **error);
void tree_free(struct tree *tree);
/* Before each call: the clock, and the bounds of the caches. */
void tree_begin(struct tree *tree);
/* Closes what was not used for `ms'. */
void tree_close_idle(struct tree *tree, int64_t ms);

/* 0, -EINVAL (empty, a slash, a NUL), -ENAMETOOLONG; copies to `out' of TREE_NAME_MAX + 1 bytes. */
int tree_check_name(const void *name, size_t len, char *out);

void node_handle(const struct node *node, uint8_t handle[TREE_HANDLE_SIZE]);
/* The id of the tree that a handle is of; false when it is none of ours. */
bool handle_tree(const uint8_t *handle, size_t len, uint32_t *id);
int tree_node(struct tree *tree, const uint8_t *handle, struct node **node);

/* --- tree.c: where objects are --- */
uint32_t key_dev(const struct statx *stx);
struct node_key key_of(const struct statx *stx);
bool key_equal(const struct node_key *a, const struct node_key *b);
struct node *node_get(struct tree *tree, const struct statx *stx);
void node_add_place(struct node *node, struct node *parent, const char *name);
void node_drop_place(struct node *node, const struct node *parent, const char *name);
void node_close(struct node *node);
void node_alias(struct node *node, const struct node_key *id);
/* Another file, `stx', has taken the node's place; handles stay. */
void node_become(struct node *node, const struct statx *stx);
/* Makes sure that the first place of the node leads to it, and those above; -ESTALE. */
int node_repair(struct node *node);
/* Stat the object itself, wherever it is now. */
int node_stat(struct node *node, struct statx *stx);
/* A directory's descriptor; kept open by the cache. */
int node_dirfd(struct node *dir);
/* A regular file's, to read or write; kept open by the cache. */
int node_file(struct node *node, bool write);
/* The cache takes `fd', a new file's, open to read and write. */
void node_adopt(struct node *node, int fd);
/* A descriptor that may be O_PATH, for *at() calls with AT_EMPTY_PATH and /proc/self/fd; close it if *owned.
 */
int node_pathfd(struct node *node, bool *owned);
int statx_at(int fd, const char *name, struct statx *stx);
void fd_path(char buf[32], int fd);

/* --- index.c: finding what only a handle names --- */
/*
 * Makes the node of `key' if need be, and adds its place; -ESTALE.  `seen': when (ms) it was last known to be
 * there, -1 for never.  node may be NULL.
 */
int index_find(struct tree *tree, const struct node_key *key, int64_t seen, struct node **node);
void index_free(struct index *index);

/* --- meta.c: what the guest sees --- */
int node_attr(struct node *node, struct attr *attr);
/* The same for what is known to be `stx', without looking again. */
int node_attr_from(struct node *node, const struct statx *stx, struct attr *attr);
enum { MAY_READ = 4, MAY_WRITE = 2, MAY_EXEC = 1 };
bool cred_is(const struct cred *cred, uint32_t uid);
bool cred_in_group(const struct cred *cred, uint32_t gid);
/* All the bits of `want' allowed? */
bool attr_may(const struct attr *attr, const struct cred *cred, unsigned want);
/* Make the object at pathfd show these; `stx' is its present state.  Mode without type. */
int meta_apply(struct node *node, int pathfd, const struct statx *stx, const struct meta *want);
/* Does the regular file of that name stand for what was `id'? */
bool meta_replaces(int dirfd, const char *name, const struct node_key *id);
/* What the object shows now, as a meta. */
int meta_get(struct node *node, const struct statx *stx, struct meta *meta);
int meta_write(int pathfd, const struct meta *meta);
/*
 * After -EACCES from the host: give the user the rights that guest root has on what the user owns, without
 * the guest seeing another mode.  0: try again.
 */
int node_promote(struct node *node);
bool tree_has_xattr(struct tree *tree);
uint32_t meta_host_mode(uint32_t mode, bool dir);
/* A regular file of the host that stands for something else? */
bool meta_stands(const struct meta *meta);

/* --- ops.c --- */
int tree_lookup(struct node *dir, const struct cred *cred, const char *name, struct node **node);
/* -EAGAIN when guard is not the object's ctime. */
int tree_setattr(struct node *node, const struct cred *cred, const struct sattr *sa,
                 const struct timespec *guard);
enum create_how { CREATE_UNCHECKED, CREATE_GUARDED, CREATE_EXCLUSIVE };
/* `verf' for CREATE_EXCLUSIVE only. */
int tree_create(struct node *dir, const struct cred *cred, const char *name, enum create_how how,
                const struct sattr *sa, const uint8_t verf[8], struct node **node);
int tree_mkdir(struct node *dir, const struct cred *cred, const char *name, const struct sattr *sa,
               struct node **node);
int tree_symlink(struct node *dir, const struct cred *cred, const char *name, const char *target, size_t len,
                 const struct sattr *sa, struct node **node);
/* type: S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK */
int tree_mknod(struct node *dir, const struct cred *cred, const char *name, uint32_t type, uint32_t major,
               uint32_t minor, const struct sattr *sa, struct node **node);
int tree_remove(struct node *dir, const struct cred *cred, const char *name, bool is_dir);
int tree_rename(struct node *from, const struct cred *cred, const char *name, struct node *to,
                const char *to_name);
int tree_link(struct node *node, const struct cred *cred, struct node *dir, const char *name);

/* --- io.c --- */
/* Up to `len' bytes; *eof when they reach the file's end. */
ssize_t tree_read(struct node *node, const struct cred *cred, void *buf, size_t len, uint64_t offset,
                  bool *eof);
ssize_t tree_write(struct node *node, const struct cred *cred, const void *buf, size_t len, uint64_t offset,
                   bool stable);
int tree_commit(struct node *node);
/* The target, at most TREE_LINK_MAX bytes into buf; returns the length. */
ssize_t tree_readlink(struct node *node, char *buf);
/*
 * Calls entry() for each name from `cookie' (0: the beginning) until it returns false.  cookies: the host's
 * own, or numbers below 2^32 for NFS v2.  *eof: the last name was given.
 */
typedef bool tree_entry_fn(void *opaque, const char *name, uint64_t fileid, uint64_t cookie);
int tree_readdir(struct node *dir, const struct cred *cred, uint64_t cookie, bool small_cookies,
                 size_t expect, tree_entry_fn *entry, void *opaque, bool *eof);
int tree_statfs(struct node *node, struct statvfs *st);
void cookies_free(struct cookies *cookies);

#endif
