/*
 * virtio-9p through its queue: the protocol, the security models, and that nothing leaves the directory.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "virtio/9p.h"
#include "virtio_driver.h"

enum { REQUEST = DATA_BASE, ANSWER = DATA_BASE + 0x80000, ROOM = 0x70000, NEEDS_RESET = 64 };

enum {
    STATFS = 8,
    LOPEN = 12,
    LCREATE = 14,
    SYMLINK = 16,
    MKNOD = 18,
    RENAME = 20,
    READLINK = 22,
    GETATTR = 24,
    SETATTR = 26,
    XATTRWALK = 30,
    XATTRCREATE = 32,
    READDIR = 40,
    FSYNC = 50,
    LOCK = 52,
    LINK = 70,
    MKDIR = 72,
    RENAMEAT = 74,
    UNLINKAT = 76,
    VERSION = 100,
    ATTACH = 104,
    FLUSH = 108,
    WALK = 110,
    READ = 116,
    WRITE = 118,
    CLUNK = 120,
    REMOVE = 122
};
#define NONE UINT32_MAX

static struct driver drv;
static struct ring ring;
static struct p9_fs *fs;
static char *base, *dir; /* base has dir, which is exported, and "secret", which is not */

/* --- messages ----------------------------------------------------------------------------------------- */

static uint8_t msg[0x20000], *end = msg; /* the request so far */
static const uint8_t *answer;            /* what came, behind its header */

static void begin(void)
{
    end = msg + 7;
}

static void u(uint64_t v, unsigned size)
{
    memcpy(end, &v, size);
    end += size;
}

static void text(const char *s)
{
    u(strlen(s), 2);
    memcpy(end, s, strlen(s));
    end += strlen(s);
}

static uint64_t get(unsigned off, unsigned size)
{
    uint64_t v = 0;

    memcpy(&v, answer + off, size);
    return v;
}

static void put_request(unsigned type, unsigned tag)
{
    uint32_t size = (uint32_t)(end - msg);

    memcpy(msg, &size, 4);
    msg[4] = (uint8_t)type;
    memcpy(msg + 5, &tag, 2);
    put(&drv, REQUEST, msg, size);
}

/* Sends what was built since begin(); 0, or the error that the answer has. */
static int send_with_room(unsigned type, unsigned room)
{
    uint32_t head = 0, used;
    const uint8_t *a = mem_span(drv.mem, ANSWER, room).hva;

    put_request(type, 7);
    set_desc(&drv, ring.desc, 0, REQUEST, (uint32_t)(end - msg), D_NEXT, 1);
    set_desc(&drv, ring.desc, 1, ANSWER, room, D_WRITE, 0);
    make_available(&drv, &ring, 0);
    kick(&drv, &ring);
    used = next_used(&drv, &ring, &head);
    assert_int_not_equal(used, UINT32_MAX);
    assert_int_equal(used, *(const uint32_t *)a);
    assert_int_equal(a[5] | a[6] << 8, 7);
    answer = a + 7;
    if (a[4] == 7)
        return -(int)get(0, 4);
    assert_int_equal(a[4], type + 1);
    return 0;
}

static int send(unsigned type)
{
    return send_with_room(type, ROOM);
}

static int version(uint32_t msize, const char *name)
{
    begin();
    u(msize, 4);
    text(name);
    return send(VERSION);
}

static int attach(uint32_t fid)
{
    begin();
    u(fid, 4);
    u(NONE, 4);
    text("root");
    text("");
    u(1000, 4);
    return send(ATTACH);
}

/* Names: "a/b/c", or NULL. */
static int walk(uint32_t fid, uint32_t new, const char *path)
{
    g_auto(GStrv) names = g_strsplit(path ? path : "", "/", -1);
    unsigned n = path ? g_strv_length(names) : 0;
    int r;

    begin();
    u(fid, 4);
    u(new, 4);
    u(n, 2);
    for (unsigned i = 0; i < n; i++)
        text(names[i]);
    r = send(WALK);
    return r || get(0, 2) == n ? r : -ENOENT;
}

static int one(unsigned type, uint32_t fid)
{
    begin();
    u(fid, 4);
    return send(type);
}

static int lopen(uint32_t fid, unsigned flags)
{
    begin();
    u(fid, 4);
    u(flags, 4);
    return send(LOPEN);
}

static int lcreate(uint32_t fid, const char *name, unsigned flags, unsigned mode)
{
    begin();
    u(fid, 4);
    text(name);
    u(flags, 4);
    u(mode, 4);
    u(100, 4);
    return send(LCREATE);
}

static int named(unsigned type, uint32_t fid, const char *name, unsigned mode)
{
    begin();
    u(fid, 4);
    text(name);
    u(mode, 4);
    u(100, 4);
    return send(type);
}

static int mkdir_(uint32_t fid, const char *name)
{
    return named(MKDIR, fid, name, 0755);
}

static int unlink_(uint32_t fid, const char *name, unsigned flags)
{
    begin();
    u(fid, 4);
    text(name);
    u(flags, 4);
    return send(UNLINKAT);
}

static int rename_(uint32_t from, const char *name, uint32_t to, const char *to_name)
{
    begin();
    u(from, 4);
    text(name);
    u(to, 4);
    text(to_name);
    return send(RENAMEAT);
}

static int symlink_(uint32_t fid, const char *name, const char *target)
{
    begin();
    u(fid, 4);
    text(name);
    text(target);
    u(100, 4);
    return send(SYMLINK);
}

static int write_(uint32_t fid, uint64_t off, const void *data, size_t len)
{
    begin();
    u(fid, 4);
    u(off, 8);
    u(len, 4);
    memcpy(end, data, len);
    end += len;
    return send(WRITE);
}

static int read_(uint32_t fid, uint64_t off, uint32_t count)
{
    begin();
    u(fid, 4);
    u(off, 8);
    u(count, 4);
    return send(READ);
}

enum {
    A_MODE = 8 + 13,
    A_UID = A_MODE + 4,
    A_GID = A_UID + 4,
    A_NLINK = A_GID + 4,
    A_RDEV = A_NLINK + 8,
    A_SIZE = A_RDEV + 8
};

static int getattr(uint32_t fid)
{
    begin();
    u(fid, 4);
    u(0x7ff, 8);
    return send(GETATTR);
}

static int setattr(uint32_t fid, uint32_t valid, uint32_t mode, uint32_t uid, uint64_t size)
{
    begin();
    u(fid, 4);
    u(valid, 4);
    u(mode, 4);
    u(uid, 4);
    u(uid, 4);
    u(size, 8);
    for (unsigned i = 0; i < 4; i++)
        u(12345, 8);
    return send(SETATTR);
}

/* --- set-up ------------------------------------------------------------------------------------------- */

static char *host(const char *name)
{
    static char *path[4];
    static unsigned i;

    i = (i + 1) % 4;
    g_free(path[i]);
    return path[i] = g_build_filename(dir, name, NULL);
}

static void host_file(const char *name, const char *data)
{
    assert_true(g_file_set_contents(host(name), data, -1, NULL));
}

static void start(enum p9_model model, bool readonly)
{
    struct p9_options o = {.path = dir, .model = model, .readonly = readonly, .fmode = 0600, .dmode = 0700};
    const char *why;

    assert_int_equal(p9_fs_new(&fs, &o, &why), 0);
    drv_init(&drv, false);
    drv_plug(&drv, virtio_9p_new(&drv.lock, drv.mem, fs, "tag"));
    drv_negotiate(&drv, BIT(VIRTIO_F_VERSION_1));
    ring = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    assert_int_equal(version(0x10000, "9P2000.L"), 0);
    assert_int_equal(attach(0), 0);
}

static int set_up(void **state)
{
    char *secret;

    (void)state;
    base = g_dir_make_tmp("armlet-9p-XXXXXX", NULL);
    dir = g_build_filename(base, "export", NULL);
    secret = g_build_filename(base, "secret", NULL);
    g_file_set_contents(secret, "outside", -1, NULL);
    g_free(secret);
    return mkdir(dir, 0755);
}

static int tear_down(void **state)
{
    g_autofree char *command = g_strdup_printf("rm -rf %s", base);

    (void)state;
    if (fs) {
        drv_free(&drv);
        p9_fs_free(fs);
        fs = NULL;
    }
    g_free(dir);
    if (system(command))
        return -1;
    g_free(base);
    return 0;
}

/* --- protocol ----------------------------------------------------------------------------------------- */

static void test_version_and_tag(void **state)
{
    (void)state;
    start(P9_NONE, false);
    assert_int_equal(drv_read(&drv, 0x100), 3 | 't' << 16 | 'a' << 24);
    assert_int_equal(version(100, "9P2000.L"), -EMSGSIZE);
    assert_int_equal(version(8192, "9P2000.u"), 0);
    assert_memory_equal(answer + 6, "unknown", 7);
    assert_int_equal(version(1 << 30, "9P2000.L"), 0);
    assert_int_equal(get(0, 4), 4 << 20);
    assert_memory_equal(answer + 6, "9P2000.L", 8);
    assert_int_equal(getattr(0), -EBADF); /* a new session has no fids */
    assert_int_equal(attach(0), 0);
    assert_int_equal(attach(0), -EINVAL);
    begin();
    assert_int_equal(send(102), -EOPNOTSUPP);
}

static void test_files(void **state)
{
    char data[20000];

    (void)state;
    start(P9_NONE, false);
    memset(data, 'x', sizeof(data));
    assert_int_equal(walk(0, 1, NULL), 0);
    assert_int_equal(lcreate(1, "f", O_RDWR | O_CREAT | O_EXCL, 0640), 0);
    assert_int_equal(write_(1, 10, data, sizeof(data)), 0);
    assert_int_equal(get(0, 4), sizeof(data));
    assert_int_equal(read_(1, 5, 100000), 0);
    assert_int_equal(get(0, 4), sizeof(data) + 5);
    assert_memory_equal(answer + 4, "\0\0\0\0\0xxx", 8);
    assert_int_equal(read_(1, 1000000, 10), 0);
    assert_int_equal(get(0, 4), 0);
    assert_int_equal(read_(1, UINT64_MAX, 10), -EINVAL);
    assert_int_equal(write_(1, UINT64_MAX, "a", 1), -EFBIG);
    assert_int_equal(getattr(1), 0);
    assert_int_equal(get(A_MODE, 4), S_IFREG | 0640);
    assert_int_equal(get(A_SIZE, 8), sizeof(data) + 10);
    assert_int_equal(setattr(1, 1 | 8 | 0x10 | 0x80, 0600, 0, 3), 0);
    assert_int_equal(getattr(1), 0);
    assert_int_equal(get(A_MODE, 4), S_IFREG | 0600);
    assert_int_equal(get(A_SIZE, 8), 3);
    assert_int_equal(get(A_SIZE + 24, 8), 12345); /* atime */
    begin();
    u(1, 4);
    u(0, 4);
    assert_int_equal(send(FSYNC), 0);
    assert_int_equal(one(STATFS, 1), 0);
    assert_int_equal(get(0, 4), 0x01021997);
    assert_int_equal(one(CLUNK, 1), 0);
    assert_int_equal(one(CLUNK, 1), -EBADF);
    assert_int_equal(walk(0, 1, NULL), 0);
    assert_int_equal(lcreate(1, "f", O_RDWR | O_CREAT | O_EXCL, 0640), -EEXIST);
    assert_int_equal(lcreate(1, "f", O_RDWR | O_CREAT | O_TRUNC, 0640), 0);
    assert_int_equal(lcreate(1, "g", O_RDWR | O_CREAT, 0640), -EINVAL);
    assert_int_equal(lopen(1, O_RDONLY), -EINVAL);
}

/* A fid stays with its object, whatever the guest calls that. */
static void test_rename_and_remove(void **state)
{
    (void)state;
    start(P9_NONE, false);
    host_file("a", "content a");
    host_file("b", "content b");
    assert_int_equal(mkdir_(0, "d"), 0);
    assert_int_equal(walk(0, 1, "a"), 0);
    assert_int_equal(walk(0, 2, "b"), 0);
    assert_int_equal(walk(0, 3, "d"), 0);
    assert_int_equal(rename_(0, "a", 3, "b"), 0);
    assert_int_equal(rename_(3, "b", 0, "b"), 0); /* over the old b */
    assert_int_equal(lopen(1, O_RDONLY), 0);
    assert_int_equal(read_(1, 0, 100), 0);
    assert_memory_equal(answer + 4, "content a", 9);
    assert_int_equal(getattr(2), 0); /* it has no name any more, and is there */
    assert_int_equal(get(A_NLINK, 8), 0);
    assert_int_equal(one(REMOVE, 2), -ENOENT);
    assert_int_equal(one(CLUNK, 2), -EBADF);
    begin();
    u(1, 4);
    u(3, 4);
    text("c");
    assert_int_equal(send(RENAME), 0);
    assert_int_equal(access(host("d/c"), F_OK), 0);
    begin();
    u(3, 4);
    u(1, 4);
    text("hard");
    assert_int_equal(send(LINK), 0);
    assert_int_equal(getattr(1), 0);
    assert_int_equal(get(A_NLINK, 8), 2);
    assert_int_equal(unlink_(0, "d", AT_REMOVEDIR), -ENOTEMPTY);
    assert_int_equal(unlink_(0, "d", 0), -EISDIR);
    assert_int_equal(unlink_(3, "hard", 0), 0);
    assert_int_equal(one(REMOVE, 1), 0);
    assert_int_equal(one(REMOVE, 3), 0);
    assert_int_equal(access(host("d"), F_OK), -1);
    assert_int_equal(one(REMOVE, 0), -EBUSY);
}

static void test_directory(void **state)
{
    bool seen[300] = {false};
    unsigned n = 0;
    uint64_t off = 0;

    (void)state;
    start(P9_NONE, false);
    for (unsigned i = 0; i < 300; i++) {
        g_autofree char *name = g_strdup_printf("file%u", i);

        host_file(name, "");
    }
    assert_int_equal(walk(0, 1, NULL), 0);
    assert_int_equal(lopen(1, O_RDONLY | O_DIRECTORY), 0);
    assert_int_equal(read_(1, 0, 100), -EISDIR);
    for (uint32_t len = 1; len;) {
        begin();
        u(1, 4);
        u(off, 8);
        u(200, 4);
        assert_int_equal(send(READDIR), 0);
        len = (uint32_t)get(0, 4);
        assert_true(len <= 200);
        for (unsigned at = 4; at < len + 4;) {
            unsigned size = (unsigned)get(at + 22, 2), i = 0;
            g_autofree char *name = g_strndup((const char *)answer + at + 24, size);

            if (sscanf(name, "file%u", &i) == 1) {
                assert_true(i < 300 && !seen[i]);
                seen[i] = true;
                n++;
            }
            off = get(at + 13, 8);
            at += 24 + size;
        }
    }
    assert_int_equal(n, 300);
    begin();
    u(1, 4);
    u(0, 8);
    u(10, 4);
    assert_int_equal(send(READDIR), -EINVAL); /* no room is not the end */
}

static void test_xattr(void **state)
{
    (void)state;
    start(P9_NONE, false);
    host_file("f", "");
    if (setxattr(host("f"), "user.have", "1", 1, 0) < 0)
        skip();
    assert_int_equal(walk(0, 1, "f"), 0);
    begin();
    u(1, 4);
    text("user.mine");
    u(5, 8);
    u(0, 4);
    assert_int_equal(send(XATTRCREATE), 0);
    assert_int_equal(write_(1, 0, "hello!", 6), -ENOSPC);
    assert_int_equal(write_(1, 0, "hello", 5), 0);
    assert_int_equal(one(CLUNK, 1), 0);
    assert_int_equal(walk(0, 1, "f"), 0);
    begin();
    u(1, 4);
    u(2, 4);
    text("user.mine");
    assert_int_equal(send(XATTRWALK), 0);
    assert_int_equal(get(0, 8), 5);
    assert_int_equal(read_(2, 1, 100), 0);
    assert_int_equal(get(0, 4), 4);
    assert_memory_equal(answer + 4, "ello", 4);
    assert_int_equal(one(CLUNK, 2), 0);
    begin();
    u(1, 4);
    u(2, 4);
    text("user.not");
    assert_int_equal(send(XATTRWALK), -ENODATA);
    begin();
    u(1, 4);
    u(2, 4);
    text("");
    assert_int_equal(send(XATTRWALK), 0);
    assert_true(get(0, 8) >= strlen("user.mine") + strlen("user.have") + 2);
    begin();
    u(1, 4);
    text("user.mine");
    u(0, 8);
    u(XATTR_REPLACE, 4);
    assert_int_equal(send(XATTRCREATE), 0);
    assert_int_equal(one(CLUNK, 1), 0);
    assert_true(getxattr(host("f"), "user.mine", NULL, 0) < 0);
}

static void test_wrong_messages(void **state)
{
    (void)state;
    start(P9_NONE, false);
    begin();
    assert_int_equal(send(GETATTR), -EINVAL); /* cut off */
    begin();
    u(0, 4);
    u(1, 4);
    u(17, 2);
    assert_int_equal(send(WALK), -EINVAL); /* too many names */
    begin();
    u(0, 4);
    u(1, 4);
    u(1, 2);
    u(60000, 2); /* a longer name than there is */
    assert_int_equal(send(WALK), -EINVAL);
    begin();
    u(0, 4);
    u(0, 8);
    u(1000, 4); /* more data than there are */
    assert_int_equal(send(WRITE), -EINVAL);
    begin();
    u(0, 4);
    u(2, 2);
    u('a', 2); /* a NUL in a name */
    u(0755, 4);
    u(0, 4);
    assert_int_equal(send(MKDIR), -EINVAL);
    assert_int_equal(mkdir_(0, ""), -ENOENT);
    assert_int_equal(mkdir_(0, "."), -EEXIST);
    assert_int_equal(mkdir_(0, ".."), -EEXIST);
    assert_int_equal(mkdir_(0, "a/b"), -EINVAL);
    begin();
    u(0, 4);
    u(300, 2);
    memset(end, 'n', 300);
    end += 300;
    u(0755, 4);
    u(0, 4);
    assert_int_equal(send(MKDIR), -ENAMETOOLONG);
    assert_int_equal(rename_(0, "..", 0, "x"), -EBUSY);
    assert_int_equal(unlink_(0, ".", AT_REMOVEDIR), -EBUSY);
    assert_int_equal(unlink_(0, "x", 0x100), -EINVAL);
    begin();
    u(0, 4);
    u(0x7ff, 8);
    assert_int_equal(send_with_room(GETATTR, 11), -EMSGSIZE);
}

static void test_no_room_breaks(void **state)
{
    (void)state;
    start(P9_NONE, false);
    begin();
    put_request(STATFS, 1);
    set_desc(&drv, ring.desc, 0, REQUEST, 11, D_NEXT, 1);
    set_desc(&drv, ring.desc, 1, ANSWER, 10, D_WRITE, 0);
    make_available(&drv, &ring, 0);
    kick(&drv, &ring);
    assert_true(drv_read(&drv, 0x070) & NEEDS_RESET);
}

/* Many requests at once, a flush among them: each is answered, the flush behind what it names. */
static void test_flush_and_many(void **state)
{
    static uint8_t big[0x18000];
    uint32_t head = 0, first_flush = 0, read_at = 0;

    (void)state;
    start(P9_NONE, false);
    g_file_set_contents(host("f"), (const char *)big, sizeof(big), NULL);
    assert_int_equal(walk(0, 1, "f"), 0);
    assert_int_equal(lopen(1, O_RDONLY), 0);
    begin();
    u(1, 4);
    u(0, 8);
    u(0x18000, 4);
    put_request(READ, 50);
    begin();
    u(50, 2);
    msg[0] = 9;
    msg[1] = msg[2] = msg[3] = 0;
    msg[4] = FLUSH;
    msg[5] = 51;
    msg[6] = 0;
    put(&drv, REQUEST + 0x100, msg, 9);
    set_desc(&drv, ring.desc, 0, REQUEST, 23, D_NEXT, 1);
    set_desc(&drv, ring.desc, 1, ANSWER, 0x20000, D_WRITE, 0);
    set_desc(&drv, ring.desc, 2, REQUEST + 0x100, 9, D_NEXT, 3);
    set_desc(&drv, ring.desc, 3, ANSWER + 0x40000, 11, D_WRITE, 0);
    make_available(&drv, &ring, 0);
    make_available(&drv, &ring, 2);
    kick(&drv, &ring);
    for (unsigned i = 1; i <= 2; i++) {
        uint32_t len = next_used(&drv, &ring, &head);

        assert_int_equal(len, head ? 7 : MIN(0x10000, 11 + 0x18000)); /* the message size bounds it */
        *(head ? &first_flush : &read_at) = i;
    }
    assert_int_equal(read_at, 1);
    assert_int_equal(first_flush, 2);
}

static void test_reset_forgets(void **state)
{
    (void)state;
    start(P9_NONE, false);
    host_file("f", "");
    assert_int_equal(walk(0, 1, "f"), 0);
    drv_negotiate(&drv, BIT(VIRTIO_F_VERSION_1));
    ring = drv_queue(&drv, 0, 8);
    drv_ok(&drv);
    assert_int_equal(getattr(1), -EBADF);
}

/* --- confinement -------------------------------------------------------------------------------------- */

static void test_nothing_leaves(void **state)
{
    (void)state;
    start(P9_NONE, false);
    assert_int_equal(symlink(base, host("out")), 0);
    assert_int_equal(symlink("../secret", host("link")), 0);
    assert_int_equal(mkfifo(host("fifo"), 0600), 0);
    assert_int_equal(walk(0, 1, "../../.."), 0);
    assert_int_equal(walk(1, 2, "secret"), -ENOENT);
    assert_int_equal(walk(0, 3, "out/secret"), -ENOENT); /* one name only was walked */
    assert_int_equal(walk(0, 3, "out"), 0);
    assert_int_equal(walk(3, 4, "secret"), -ENOTDIR);
    assert_int_equal(mkdir_(3, "new"), -ENOTDIR);
    assert_int_equal(walk(0, 5, "link"), 0);
    assert_int_equal(lopen(5, O_RDONLY), -ELOOP);
    assert_int_equal(setattr(5, 8, 0, 0, 0), -EINVAL);
    assert_int_equal(walk(0, 6, NULL), 0);
    assert_int_equal(lcreate(6, "link", O_RDWR | O_CREAT | O_TRUNC, 0600), -ELOOP);
    assert_int_equal(lcreate(6, "fifo", O_RDWR | O_CREAT, 0600), -ENXIO);
    assert_int_equal(walk(0, 7, "fifo"), 0);
    assert_int_equal(lopen(7, O_RDONLY), -ENXIO);
    assert_int_equal(one(READLINK, 5), 0);
    assert_memory_equal(answer + 2, "../secret", 9);
}

static void *swap(void *opaque)
{
    bool *stop = opaque;
    g_autofree char *d = g_build_filename(dir, "d", NULL), *x = g_build_filename(dir, "x", NULL);

    while (!__atomic_load_n(stop, __ATOMIC_RELAXED))
        renameat2(AT_FDCWD, d, AT_FDCWD, x, RENAME_EXCHANGE);
    return NULL;
}

/* "d" is a directory and a link to the outside in turn. */
static void test_swapped_link(void **state)
{
    bool stop = false;
    unsigned inside = 0;
    GThread *thread;

    (void)state;
    start(P9_NONE, false);
    assert_int_equal(mkdir(host("d"), 0755), 0);
    host_file("d/secret", "inside");
    assert_int_equal(symlink(base, host("x")), 0);
    thread = g_thread_new("swap", swap, &stop);
    for (unsigned i = 0; i < 5000; i++) {
        if (walk(0, 1, "d/secret"))
            continue;
        assert_int_equal(lopen(1, O_RDONLY), 0);
        assert_int_equal(read_(1, 0, 100), 0);
        assert_memory_equal(answer + 4, "inside", 6);
        assert_int_equal(one(CLUNK, 1), 0);
        inside++;
        if (walk(0, 1, "d"))
            continue;
        if (lcreate(1, "made", O_CREAT | O_WRONLY, 0600) == 0)
            unlink_(1, "made", 0);
        assert_int_equal(one(CLUNK, 1), 0);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    g_thread_join(thread);
    assert_true(inside > 0);
    g_autofree char *made = g_build_filename(base, "made", NULL);
    assert_int_equal(access(made, F_OK), -1);
}

/* A directory that the host moves away takes its fids along, but ".." does not lead out of the export. */
static void test_moved_away(void **state)
{
    g_autofree char *away = g_build_filename(base, "away", NULL);

    (void)state;
    start(P9_NONE, false);
    assert_int_equal(mkdir(host("d"), 0755), 0);
    assert_int_equal(walk(0, 1, "d"), 0);
    assert_int_equal(rename(host("d"), away), 0);
    assert_int_equal(walk(1, 2, ".."), 0);
    assert_int_equal(walk(2, 3, "secret"), -ENOENT);
}

static void test_readonly(void **state)
{
    (void)state;
    start(P9_NONE, true);
    host_file("f", "data");
    assert_int_equal(walk(0, 1, "f"), 0);
    assert_int_equal(lopen(1, O_RDWR), -EROFS);
    assert_int_equal(lopen(1, O_RDONLY | O_TRUNC), -EROFS);
    assert_int_equal(setattr(1, 1, 0600, 0, 0), -EROFS);
    assert_int_equal(mkdir_(0, "d"), -EROFS);
    assert_int_equal(symlink_(0, "l", "f"), -EROFS);
    assert_int_equal(unlink_(0, "f", 0), -EROFS);
    assert_int_equal(rename_(0, "f", 0, "g"), -EROFS);
    assert_int_equal(walk(0, 2, NULL), 0);
    assert_int_equal(lcreate(2, "n", O_CREAT | O_RDWR, 0600), -EROFS);
    begin();
    u(0, 4);
    u(1, 4);
    text("hard");
    assert_int_equal(send(LINK), -EROFS);
    assert_int_equal(lopen(1, O_RDONLY), 0);
    assert_int_equal(read_(1, 0, 10), 0);
    assert_memory_equal(answer + 4, "data", 4);
    assert_int_equal(one(REMOVE, 1), -EROFS);
}

/* --- descriptors -------------------------------------------------------------------------------------- */

/* More fids than descriptors: they are closed and found again, also behind renames. */
static void test_few_descriptors(void **state)
{
    struct rlimit old, few;

    (void)state;
    getrlimit(RLIMIT_NOFILE, &old);
    few = (struct rlimit){80, 80};
    if (setrlimit(RLIMIT_NOFILE, &few) < 0)
        skip();
    start(P9_NONE, false);
    few.rlim_max = old.rlim_max;
    assert_int_equal(mkdir_(0, "d"), 0);
    assert_int_equal(walk(0, 1000, "d"), 0);
    for (unsigned i = 0; i < 200; i++) {
        g_autofree char *name = g_strdup_printf("d/f%u", i);

        host_file(name, name);
        assert_int_equal(walk(0, i + 1, name), 0);
    }
    assert_int_equal(rename_(0, "d", 0, "e"), 0);
    assert_int_equal(rename_(1000, "f7", 0, "seven"), 0);
    for (unsigned i = 0; i < 200; i++) {
        g_autofree char *name = g_strdup_printf("d/f%u", i);

        if (walk(i + 1, 500, NULL) || lopen(500, O_RDONLY) || read_(500, 0, 100))
            fail_msg("fid %u", i);
        assert_memory_equal(answer + 4, name, strlen(name));
        assert_int_equal(one(CLUNK, 500), 0);
    }
    assert_int_equal(unlink(host("e/f0")), 0); /* by the host, and its number used again perhaps */
    host_file("e/f0", "another");
    assert_int_equal(getattr(1), -ESTALE);
    old.rlim_cur = MIN(old.rlim_cur, old.rlim_max);
    setrlimit(RLIMIT_NOFILE, &old); /* works for root only; nothing else here needs more */
}

/* --- mapped models ------------------------------------------------------------------------------------ */

static void check_mapped(void)
{
    assert_int_equal(walk(0, 1, NULL), 0);
    assert_int_equal(lcreate(1, "f", O_RDWR | O_CREAT, 04755), 0);
    assert_int_equal(getattr(1), 0);
    assert_int_equal(get(A_MODE, 4), S_IFREG | 04755);
    assert_int_equal(get(A_UID, 4), 1000);
    assert_int_equal(get(A_GID, 4), 100);
    assert_int_equal(setattr(1, 1 | 2, 0444, 5, 0), 0);
    assert_int_equal(getattr(1), 0);
    assert_int_equal(get(A_MODE, 4), S_IFREG | 0444);
    assert_int_equal(get(A_UID, 4), 5);
    assert_int_equal(get(A_GID, 4), 100);
    begin();
    u(0, 4);
    text("null");
    u(S_IFCHR | 0666, 4);
    u(1, 4);
    u(3, 4);
    u(0, 4);
    assert_int_equal(send(MKNOD), 0);
    assert_int_equal(walk(0, 2, "null"), 0);
    assert_int_equal(getattr(2), 0);
    assert_int_equal(get(A_MODE, 4), S_IFCHR | 0666);
    assert_int_equal(get(A_RDEV, 8), 0x103);
    assert_int_equal(lopen(2, O_RDWR), -ENXIO);
    assert_int_equal(symlink_(0, "l", "/etc/passwd"), 0);
    assert_int_equal(walk(0, 3, "l"), 0);
    assert_int_equal(one(READLINK, 3), 0);
    assert_memory_equal(answer + 2, "/etc/passwd", 11);
    assert_int_equal(lopen(3, O_RDONLY), -ELOOP);
    assert_int_equal(mkdir_(0, "d"), 0);
    assert_int_equal(walk(0, 4, "d"), 0);
    assert_int_equal(rename_(0, "null", 4, "n"), 0);
    assert_int_equal(getattr(2), 0);
    assert_int_equal(get(A_RDEV, 8), 0x103);
    assert_int_equal(rename_(0, "f", 4, "n"), 0); /* the device's metadata go with it */
    assert_int_equal(walk(4, 5, "n"), 0);
    assert_int_equal(getattr(5), 0);
    assert_int_equal(get(A_MODE, 4), S_IFREG | 0444);
    begin();
    u(0, 4);
    u(5, 4);
    text("hard");
    assert_int_equal(send(LINK), 0);
    assert_int_equal(walk(0, 6, "hard"), 0);
    assert_int_equal(getattr(6), 0);
    assert_int_equal(get(A_UID, 4), 5);
    assert_int_equal(setattr(0, 1, 0700, 0, 0), 0);
    assert_int_equal(getattr(0), 0);
    assert_int_equal(get(A_MODE, 4), S_IFDIR | 0700);
    assert_int_equal(unlink_(4, "n", 0), 0);
    assert_int_equal(unlink_(0, "d", AT_REMOVEDIR), 0);
}

static void test_mapped_xattr(void **state)
{
    uint32_t v = 0;

    (void)state;
    host_file("probe", "");
    if (setxattr(host("probe"), "user.probe", "1", 1, 0) < 0)
        skip();
    start(P9_MAPPED_XATTR, false);
    check_mapped();
    assert_int_equal(getxattr(host("hard"), "user.virtfs.uid", &v, 4), 4); /* as QEMU has it */
    assert_int_equal(v, 5);
    begin();
    u(6, 4);
    u(50, 4);
    text("user.virtfs.uid");
    assert_int_equal(send(XATTRWALK), -ENODATA);
    begin();
    u(6, 4);
    u(50, 4);
    text("");
    assert_int_equal(send(XATTRWALK), 0);
    assert_int_equal(get(0, 8), 0);
}

static void test_mapped_file(void **state)
{
    (void)state;
    start(P9_MAPPED_FILE, false);
    check_mapped();
    assert_int_equal(access(host(".virtfs_metadata/hard"), F_OK), 0);
    assert_int_equal(walk(0, 40, ".virtfs_metadata"), -ENOENT);
    assert_int_equal(mkdir_(0, ".virtfs_metadata"), -EINVAL);
    assert_int_equal(rename_(0, "hard", 0, ".virtfs_metadata_root"), -EINVAL);
    assert_int_equal(unlink_(0, ".virtfs_metadata", AT_REMOVEDIR), -ENOENT);
}

/* The status. */
static int lock_(uint32_t fid, unsigned type, uint64_t start, uint64_t len, uint32_t proc)
{
    int r;

    begin();
    u(fid, 4);
    u(type, 1);
    u(0, 4);
    u(start, 8);
    u(len, 8);
    u(proc, 4);
    text("guest");
    r = send(LOCK);
    return r < 0 ? r : (int)get(0, 1);
}

static int host_lock(int fd, short type, off_t start, off_t len)
{
    struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

    return fcntl(fd, F_OFD_SETLK, &fl);
}

enum { RD = 0, WR = 1, UN = 2 };

static void test_lock(void **state)
{
    int fd;

    (void)state;
    start(P9_NONE, false);
    host_file("f", "");
    fd = open(host("f"), O_RDWR | O_CLOEXEC);
    assert_int_equal(walk(0, 1, "f"), 0);
    assert_int_equal(lock_(1, WR, 0, 0, 10), -EBADF);
    assert_int_equal(lopen(1, O_RDWR), 0);
    assert_int_equal(walk(0, 2, "f"), 0);
    assert_int_equal(lopen(2, O_RDONLY), 0);
    assert_int_equal(lock_(1, 3, 0, 0, 10), -EINVAL);
    assert_int_equal(lock_(1, WR, UINT64_MAX, 1, 10), -EINVAL);
    assert_int_equal(lock_(1, WR, 10, 10, 10), 0);
    assert_int_equal(lock_(2, WR, 12, 100, 10), 0); /* the same process by another opening */
    assert_int_equal(host_lock(fd, F_RDLCK, 15, 1), -1);
    assert_int_equal(host_lock(fd, F_RDLCK, 0, 10), 0);
    assert_int_equal(lock_(1, WR, 0, 5, 10), 1); /* the host has it */
    begin();
    u(1, 4);
    u(WR, 1);
    u(0, 8);
    u(5, 8);
    u(10, 4);
    text("guest");
    assert_int_equal(send(54), 0);
    assert_int_equal(get(0, 1), RD);
    assert_int_equal(get(9, 8), 10);
    assert_int_equal(host_lock(fd, F_UNLCK, 0, 10), 0);
    assert_int_equal(lock_(1, RD, 0, 5, 10), 0);
    assert_int_equal(lock_(2, RD, 0, 5, 11), 0);
    assert_int_equal(lock_(1, UN, 0, 5, 10), 0); /* the other process has it still */
    assert_int_equal(host_lock(fd, F_WRLCK, 0, 5), -1);
    assert_int_equal(lock_(2, UN, 0, 0, 11), 0);
    assert_int_equal(host_lock(fd, F_WRLCK, 0, 5), 0);
    assert_int_equal(lock_(1, UN, 14, 2, 10), 0); /* a hole */
    assert_int_equal(host_lock(fd, F_WRLCK, 14, 2), 0);
    assert_int_equal(host_lock(fd, F_WRLCK, 13, 1), -1);
    assert_int_equal(host_lock(fd, F_WRLCK, 16, 1), -1);
    assert_int_equal(one(CLUNK, 2), 0);
    assert_int_equal(host_lock(fd, F_WRLCK, 16, 1), 0);
    assert_int_equal(host_lock(fd, F_WRLCK, 10, 2), -1); /* what the first opening has */
    assert_int_equal(version(0x10000, "9P2000.L"), 0);
    assert_int_equal(host_lock(fd, F_WRLCK, 0, 0), 0);
    close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_version_and_tag),
        TEST(test_files),
        TEST(test_rename_and_remove),
        TEST(test_directory),
        TEST(test_xattr),
        TEST(test_wrong_messages),
        TEST(test_no_room_breaks),
        TEST(test_flush_and_many),
        TEST(test_reset_forgets),
        TEST(test_nothing_leaves),
        TEST(test_swapped_link),
        TEST(test_moved_away),
        TEST(test_readonly),
        TEST(test_mapped_xattr),
        TEST(test_mapped_file),
        TEST(test_lock),
        TEST(test_few_descriptors), /* last: what it takes away may not come back */
    };

    return cmocka_run_group_tests_name("9p", tests, NULL, NULL);
}
