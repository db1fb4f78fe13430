/* The NFS server, procedure by procedure, through messages; and record marking. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "nfs_client.h"

/* NFS and Unix numbers that the tests compare with. */
enum {
    PERM = 1,
    NOENT = 2,
    ACCES = 13,
    EXIST = 17,
    NOTDIR = 20,
    ISDIR = 21,
    INVAL = 22,
    ROFS = 30,
    TOOLONG = 63,
    NOTEMPTY = 66,
    STALE = 70,
    BADHANDLE = 10001,
    NOT_SYNC = 10002,
    BADTYPE = 10007
};

struct fixture {
    char *dir, *path;
    struct client c;
};

static char *in_dir(struct fixture *f, const char *name)
{
    g_free(f->path);
    f->path = g_build_filename(f->dir, name, NULL);
    return f->path;
}

static struct nfs_server *serve(const char *dir, bool readonly)
{
    struct nfs_export e = {.path = dir, .mount = "/export", .readonly = readonly};
    struct nfs_server *s = nfs_server_new(&e, 1, NULL);

    assert_non_null(s);
    return s;
}

static int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);
    const char *base = g_getenv("ARMLET_TEST_DIR");

    f->dir = g_strdup_printf("%s/armlet-nfs-XXXXXX", base ? base : "/var/tmp");
    assert_non_null(g_mkdtemp(f->dir));
    client_init(&f->c, serve(f->dir, false));
    assert_int_equal(nfs_mount(&f->c, "/export"), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    g_autofree char *cmd = g_strdup_printf("chmod -R u+rwX '%s'; rm -rf '%s'", f->dir, f->dir);

    nfs_server_free(f->c.server);
    client_done(&f->c);
    assert_int_equal(system(cmd), 0);
    g_free(f->path);
    g_free(f->dir);
    g_free(f);
    return 0;
}

static void restart(struct fixture *f)
{
    nfs_server_free(f->c.server);
    f->c.server = serve(f->dir, false);
}

static void put_file(struct fixture *f, const char *name, const char *text)
{
    assert_true(g_file_set_contents(in_dir(f, name), text, -1, NULL));
}

/* --- RPC --- */

static void rpc_header(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;

    begin(c, 100003, 3, 0);
    assert_int_equal(finish_rpc(c), 0);
    begin(c, 100003, 3, 22);
    assert_int_equal(finish_rpc(c), 3); /* PROC_UNAVAIL */
    begin(c, 100021, 4, 0);
    assert_int_equal(finish_rpc(c), 1); /* PROG_UNAVAIL: no lock manager */
    begin(c, 100003, 4, 0);
    assert_int_equal(finish_rpc(c), 2); /* PROG_MISMATCH */
    assert_int_equal(g32(c), 2);
    assert_int_equal(g32(c), 3);
    begin(c, 100000, 4, 3);
    assert_int_equal(finish_rpc(c), 2);
    assert_int_equal(g32(c), 2);
    assert_int_equal(g32(c), 2);
    begin(c, 100003, 3, 1);
    assert_int_equal(finish_rpc(c), 4); /* GARBAGE_ARGS */
    begin(c, 100003, 3, 0);
    c->req->data[11] = 3;
    assert_int_equal(finish_rpc(c), 100); /* RPC_MISMATCH */
    begin(c, 100003, 3, 0);
    c->req->data[27] = 6;
    assert_int_equal(finish_rpc(c), 100 + 10 + 2); /* AUTH_REJECTEDCRED: RPCSEC_GSS */
    begin(c, 100003, 3, 0);
    c->req->data[31] = 20;
    assert_int_equal(finish_rpc(c), 100 + 10 + 1); /* AUTH_BADCRED */
    begin(c, 100003, 3, 0);
    c->req->data[7] = 1; /* a reply is not answered */
    assert_int_equal(finish_rpc(c), 99);
}

static uint32_t getport(struct client *c, uint32_t prog, uint32_t vers, uint32_t prot)
{
    begin(c, 100000, 2, 3);
    p32(c, prog);
    p32(c, vers);
    p32(c, prot);
    p32(c, 0);
    assert_int_equal(finish_rpc(c), 0);
    return g32(c);
}

static void portmap(void **state)
{
    struct fixture *f = *state;
    struct nfs_ports ports = {111, 3049, 0};
    unsigned n = 0;

    assert_int_equal(getport(&f->c, 100003, 3, 6), 2049);
    assert_int_equal(getport(&f->c, 100003, 2, 17), 2049);
    assert_int_equal(getport(&f->c, 100005, 3, 17), 20048);
    assert_int_equal(getport(&f->c, 100021, 1, 17), 0);
    assert_int_equal(getport(&f->c, 100003, 3, 5), 0);
    nfs_server_set_ports(f->c.server, &ports);
    assert_int_equal(getport(&f->c, 100003, 3, 6), 3049);
    assert_int_equal(getport(&f->c, 100005, 3, 6), 0);
    begin(&f->c, 100000, 2, 4);
    assert_int_equal(finish_rpc(&f->c), 0);
    for (; g32(&f->c); n++)
        gfixed(&f->c, 16);
    assert_int_equal(n, 6);
    begin(&f->c, 100000, 2, 1);
    pfixed(&f->c, "0123456789abcdef", 16);
    assert_int_equal(finish_rpc(&f->c), 0);
    assert_int_equal(g32(&f->c), 0);
}

static void mount(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t root[FH], sub[FH];

    memcpy(root, c->root, FH);
    assert_int_equal(nfs_mkdir(c, root, "sub", 0755, sub), 0);
    put_file(f, "file", "x");
    assert_int_equal(symlink("/", in_dir(f, "out")), 0);
    assert_int_equal(nfs_mount(c, "/export/./sub//"), 0);
    assert_memory_equal(c->root, sub, FH);
    assert_int_equal(nfs_mount(c, "/export/"), 0);
    assert_memory_equal(c->root, root, FH);
    assert_int_equal(nfs_mount(c, "/export/none"), NOENT);
    assert_int_equal(nfs_mount(c, "/export/file"), NOTDIR);
    assert_int_equal(nfs_mount(c, "/export/out"), NOTDIR);
    assert_int_equal(nfs_mount(c, "/export/out/etc"), NOTDIR);
    assert_int_equal(nfs_mount(c, "/export/.."), ACCES);
    assert_int_equal(nfs_mount(c, "/exports"), ACCES);
    assert_int_equal(nfs_mount(c, ""), ACCES);
    begin(c, 100005, 1, 1);
    pstr(c, "/export");
    assert_int_equal(finish(c), 0);
    assert_memory_equal(gfixed(c, FH), root, FH);
    begin(c, 100005, 3, 5);
    assert_int_equal(finish(c), 1);
    size_t n;
    assert_memory_equal(gvar(c, &n), "/export", 7);
    begin(c, 100005, 3, 2);
    assert_int_equal(finish(c), 1);
    begin(c, 100005, 3, 4);
    assert_int_equal(finish_rpc(c), 0);
    begin(c, 100005, 3, 2);
    assert_int_equal(finish(c), 0);
}

/* --- NFS v3 --- */

static void create_read_write(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH], again[FH];
    const uint8_t *data;
    uint64_t verf, verf2;
    struct fattr a;
    size_t n;
    bool eof;

    assert_int_equal(nfs_create(c, c->root, "a", 1, 0640, fh), 0);
    assert_int_equal(nfs_create(c, c->root, "a", 1, 0640, again), EXIST);
    assert_int_equal(nfs_create(c, c->root, "a", 0, 0600, again), 0);
    assert_memory_equal(fh, again, FH);
    assert_int_equal(nfs_write(c, fh, 3, "hello", 5, 0, &verf), 0);
    assert_int_equal(nfs_commit(c, fh, &verf2), 0);
    assert_true(verf == verf2);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.size, 8);
    assert_int_equal(a.mode, 0640);
    assert_int_equal(a.type, 1);
    assert_int_equal(a.uid, 0);
    assert_int_equal(nfs_read(c, fh, 0, 100, &data, &n, &eof), 0);
    assert_int_equal(n, 8);
    assert_true(eof);
    assert_memory_equal(data, "\0\0\0hello", 8);
    assert_int_equal(nfs_read(c, fh, 1, 5, &data, &n, &eof), 0);
    assert_false(eof);
    assert_int_equal(n, 5);
    assert_int_equal(nfs_setattr(c, fh, -1, -1, -1, 4), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.size, 4);
    assert_int_equal(nfs_read(c, c->root, 0, 5, &data, &n, &eof), ISDIR);
    restart(f);
    assert_int_equal(nfs_commit(c, fh, &verf2), 0);
    assert_true(verf != verf2);
}

static void exclusive_create(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH], again[FH];

    assert_int_equal(nfs_create(c, c->root, "x", 2, 0, fh), 0);
    restart(f);
    assert_int_equal(nfs_create(c, c->root, "x", 2, 0, again), 0);
    assert_memory_equal(fh, again, FH);
    begin3(c, N3_CREATE, c->root);
    pstr(c, "x");
    p32(c, 2);
    pfixed(c, "otherone", 8);
    assert_int_equal(finish(c), EXIST);
}

static void names(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    char longest[256 + 1];
    uint8_t fh[FH];

    memset(longest, 'n', sizeof(longest));
    longest[256] = 0;
    assert_int_equal(nfs_create(c, c->root, longest, 0, 0644, fh), TOOLONG);
    assert_int_equal(nfs_lookup(c, c->root, longest, fh), TOOLONG);
    longest[255] = 0;
    assert_int_equal(nfs_create(c, c->root, longest, 0, 0644, fh), 0);
    assert_int_equal(nfs_lookup(c, c->root, "a/b", fh), INVAL);
    assert_int_equal(nfs_lookup(c, c->root, "../x", fh), INVAL);
    assert_int_equal(nfs_lookup_n(c, c->root, "a\0b", 3, fh), INVAL);
    assert_int_equal(nfs_lookup(c, c->root, "", fh), INVAL);
    assert_int_equal(nfs_create(c, c->root, "..", 0, 0644, fh), EXIST);
    assert_int_equal(nfs_create(c, c->root, "\xff\xfe\n", 0, 0644, fh), 0);
    assert_int_equal(access(in_dir(f, "\xff\xfe\n"), F_OK), 0);
    assert_int_equal(nfs_lookup(c, c->root, "..", fh), 0);
    assert_memory_equal(fh, c->root, FH);
    assert_int_equal(nfs_mkdir(c, c->root, ".", 0755, fh), EXIST);
    assert_int_equal(nfs_remove(c, c->root, ".", true), INVAL);
    assert_int_equal(nfs_remove(c, c->root, "..", true), EXIST);
    memset(longest, 'm', sizeof(longest));
    assert_int_equal(nfs_lookup_n(c, c->root, longest, 257, fh), TOOLONG);
}

static void ids_and_modes(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH];
    struct fattr a;
    struct stat st;

    assert_int_equal(nfs_create(c, c->root, "su", 1, 04755, fh), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.mode, 04755);
    assert_int_equal(stat(in_dir(f, "su"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(nfs_setattr(c, fh, -1, 1000, 50, -1), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.uid, 1000);
    assert_int_equal(a.gid, 50);
    assert_int_equal(a.mode, 0755);
    assert_int_equal(nfs_setattr(c, fh, 0, -1, -1, -1), 0);
    restart(f);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.mode, 0);
    assert_int_equal(a.uid, 1000);
    /* The host's chmod is seen. */
    assert_int_equal(chmod(f->path, 0644), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.mode, 0644);
    assert_int_equal(a.uid, 1000);
    /* Back to what the host can say: no attribute remains. */
    assert_int_equal(nfs_setattr(c, fh, 0644, 0, 0, -1), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.uid, 0);
    assert_int_equal(listxattr(f->path, NULL, 0), 0);
}

static void permissions(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH], dir[FH];
    const uint8_t *data;
    struct fattr a;
    size_t n;
    bool eof;

    assert_int_equal(nfs_create(c, c->root, "secret", 1, 0600, fh), 0);
    assert_int_equal(nfs_mkdir(c, c->root, "tmp", 01777, dir), 0);
    c->uid = c->gid = 1000;
    assert_int_equal(nfs_read(c, fh, 0, 1, &data, &n, &eof), ACCES);
    assert_int_equal(nfs_write(c, fh, 0, "x", 1, 0, NULL), ACCES);
    assert_int_equal(nfs_setattr(c, fh, 0644, -1, -1, -1), PERM);
    assert_int_equal(nfs_setattr(c, fh, -1, 1000, -1, -1), PERM);
    assert_int_equal(nfs_create(c, c->root, "mine", 1, 0600, fh), ACCES);
    assert_int_equal(nfs_mknod(c, dir, "dev", 4, 0600, 1, 3, fh), PERM);
    assert_int_equal(nfs_create(c, dir, "mine", 1, 0444, fh), 0);
    assert_int_equal(nfs_write(c, fh, 0, "x", 1, 0, NULL), 0); /* the owner may go on */
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.uid, 1000);
    assert_int_equal(a.mode, 0444);
    assert_int_equal(nfs_symlink(c, dir, "link", "target", fh), 0);
    c->uid = c->gid = 1001;
    assert_int_equal(nfs_remove(c, dir, "mine", false), PERM); /* sticky */
    assert_int_equal(nfs_rename(c, dir, "mine", dir, "other"), PERM);
    c->uid = c->gid = 1000;
    assert_int_equal(nfs_remove(c, dir, "mine", false), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.type, 5);
    assert_int_equal(a.uid, 1000);
    assert_int_equal(a.size, 6);
    begin3(c, N3_ACCESS, dir);
    p32(c, 0x3f);
    assert_int_equal(finish(c), 0);
    gpost(c, NULL);
    assert_int_equal(g32(c), 0x1f);
    c->uid = c->gid = 0;
}

static void special_nodes(void **state)
{
    static const struct {
        uint32_t type, major, minor;
    } kinds[] = {{3, 8, 1}, {4, 1, 3}, {6, 0, 0}, {7, 0, 0}};
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH];
    const uint8_t *data;
    struct fattr a;
    size_t n;
    bool eof;

    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *name = g_strdup_printf("n%u", i);

        assert_int_equal(nfs_mknod(c, c->root, name, kinds[i].type, 0620, kinds[i].major, kinds[i].minor, fh),
                         0);
        restart(f);
        assert_int_equal(nfs_getattr(c, fh, &a), 0);
        assert_int_equal(a.type, kinds[i].type);
        assert_int_equal(a.mode, 0620);
        assert_int_equal(a.major, kinds[i].major);
        assert_int_equal(a.minor, kinds[i].minor);
        assert_int_equal(nfs_read(c, fh, 0, 1, &data, &n, &eof), INVAL);
        assert_int_equal(nfs_setattr(c, fh, 0600, 0, 5, -1), 0);
        assert_int_equal(nfs_getattr(c, fh, &a), 0);
        assert_int_equal(a.type, kinds[i].type);
        assert_int_equal(a.gid, 5);
    }
    assert_int_equal(nfs_mknod(c, c->root, "bad", 1, 0600, 0, 0, fh), BADTYPE);
}

static uint32_t readlink3(struct client *c, const uint8_t fh[FH], const char **target, size_t *n)
{
    uint32_t stat;

    begin3(c, N3_READLINK, fh);
    stat = finish(c);
    gpost(c, NULL);
    if (!stat)
        *target = (const char *)gvar(c, n);
    return stat;
}

static void symlinks(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH], fh2[FH];
    const char *target;
    struct fattr a;
    size_t n;

    assert_int_equal(nfs_symlink(c, c->root, "l", "../../etc/passwd", fh), 0);
    assert_int_equal(readlink3(c, fh, &target, &n), 0);
    assert_int_equal(n, 16);
    assert_memory_equal(target, "../../etc/passwd", 16);
    assert_int_equal(nfs_lookup(c, fh, "x", fh2), NOTDIR);
    assert_int_equal(readlink3(c, c->root, &target, &n), INVAL);
    /* Given to somebody: another file takes its place, the handle stays. */
    assert_int_equal(nfs_setattr(c, fh, -1, 1000, 1000, -1), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.type, 5);
    assert_int_equal(a.uid, 1000);
    assert_int_equal(readlink3(c, fh, &target, &n), 0);
    assert_memory_equal(target, "../../etc/passwd", 16);
    assert_int_equal(nfs_lookup(c, c->root, "l", fh2), 0);
    assert_memory_equal(fh, fh2, FH);
    restart(f);
    assert_int_equal(nfs_lookup(c, c->root, "l", fh2), 0);
    assert_memory_equal(fh, fh2, FH);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.uid, 1000);
}

static void rename_link_remove(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t d1[FH], d2[FH], fh[FH], got[FH];
    struct fattr a;

    assert_int_equal(nfs_mkdir(c, c->root, "d1", 0755, d1), 0);
    assert_int_equal(nfs_mkdir(c, d1, "d2", 0755, d2), 0);
    assert_int_equal(nfs_create(c, d2, "file", 0, 0644, fh), 0);
    assert_int_equal(nfs_rename(c, c->root, "d1", d2, "d1"), INVAL);
    assert_int_equal(nfs_rename(c, d1, "d2", c->root, "moved"), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(nfs_link(c, fh, d1, "second"), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.nlink, 2);
    assert_int_equal(nfs_link(c, d1, c->root, "no"), ISDIR);
    assert_int_equal(nfs_remove(c, d2, "file", false), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.nlink, 1);
    assert_int_equal(nfs_lookup(c, d1, "second", got), 0);
    assert_memory_equal(got, fh, FH);
    assert_int_equal(nfs_lookup(c, d2, "..", got), 0);
    assert_memory_equal(got, c->root, FH);
    assert_int_equal(nfs_remove(c, c->root, "d1", true), NOTEMPTY);
    assert_int_equal(nfs_remove(c, c->root, "d1", false), ISDIR);
    assert_int_equal(nfs_remove(c, d1, "second", true), NOTDIR);
    assert_int_equal(nfs_remove(c, d1, "second", false), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), STALE);
    assert_int_equal(nfs_remove(c, c->root, "d1", true), 0);
    assert_int_equal(nfs_getattr(c, d1, &a), STALE);
    assert_int_equal(nfs_lookup(c, d1, "x", got), STALE);
}

static void handles(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t d[FH], fh[FH], bad[FH];
    struct fattr a, b;

    assert_int_equal(nfs_mkdir(c, c->root, "d", 0755, d), 0);
    assert_int_equal(nfs_create(c, d, "file", 0, 0644, fh), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    restart(f);
    assert_int_equal(nfs_getattr(c, fh, &b), 0);
    assert_true(a.fileid == b.fileid);
    /* Renamed by the host, while we run and while we do not. */
    g_autofree char *old = g_strdup(in_dir(f, "d/file"));
    assert_int_equal(rename(old, in_dir(f, "elsewhere")), 0);
    g_usleep(1200000);
    assert_int_equal(nfs_getattr(c, fh, &b), 0);
    assert_true(a.fileid == b.fileid);
    memcpy(bad, fh, FH);
    bad[9] ^= 1;
    assert_int_equal(nfs_getattr(c, bad, &b), BADHANDLE);
    begin(c, 100003, 3, N3_GETATTR);
    pvar(c, bad, 12);
    assert_int_equal(finish(c), BADHANDLE);
    /* A new object with an old number is another object. */
    assert_int_equal(unlink(in_dir(f, "elsewhere")), 0);
    put_file(f, "d/file", "new");
    g_usleep(1200000);
    assert_int_equal(nfs_getattr(c, fh, &b), STALE);
}

static void moved_out(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t d[FH], fh[FH];
    g_autofree char *out = g_strconcat(f->dir, "-out", NULL);
    struct fattr a;

    assert_int_equal(nfs_mkdir(c, c->root, "d", 0755, d), 0);
    assert_int_equal(nfs_create(c, d, "file", 0, 0644, fh), 0);
    assert_int_equal(rename(in_dir(f, "d"), out), 0);
    g_usleep(1200000);
    assert_int_equal(nfs_getattr(c, fh, &a), STALE);
    assert_int_equal(nfs_getattr(c, d, &a), STALE);
    assert_int_equal(nfs_create(c, d, "escaped", 0, 0644, fh), STALE);
    assert_int_equal(rename(out, f->path), 0);
}

/*
 * A name changes between a directory and a link to / as fast as can be: no LOOKUP below it ever sees the
 * host's /. STALE is allowed: the directory was at neither of its names when we looked.
 */
static gpointer swapper(gpointer opaque)
{
    struct fixture *f = opaque;
    g_autofree char *a = g_build_filename(f->dir, "a", NULL), *b = g_build_filename(f->dir, "b", NULL);

    for (unsigned i = 0; i < 20000; i++) {
        if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) < 0)
            return GINT_TO_POINTER(1);
    }
    return NULL;
}

static void swapped_link(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t d[FH], fh[FH], etc[FH];
    unsigned found = 0, links = 0;
    GThread *thread;

    assert_int_equal(nfs_mkdir(c, c->root, "a", 0755, d), 0);
    assert_int_equal(symlink("/", in_dir(f, "b")), 0);
    thread = g_thread_new("swap", swapper, f);
    for (unsigned i = 0; i < 5000; i++) {
        uint32_t stat = nfs_lookup(c, c->root, i & 1 ? "a" : "b", fh);

        if (stat == STALE)
            continue;
        assert_int_equal(stat, 0);
        if (!memcmp(fh, d, FH)) {
            found++;
            stat = nfs_lookup(c, fh, "etc", etc);
            assert_true(stat == NOENT || stat == STALE);
        } else {
            links++;
            stat = nfs_lookup(c, fh, "etc", etc);
            assert_true(stat == NOTDIR || stat == STALE);
        }
    }
    assert_null(g_thread_join(thread));
    assert_true(found > 0 && links > 0);
}

struct names_seen {
    GHashTable *set;
    uint64_t cookie;
    bool eof;
};

static void list_some(struct client *c, const uint8_t dir[FH], bool plus, uint32_t count,
                      struct names_seen *seen)
{
    size_t n;

    begin3(c, plus ? N3_READDIRPLUS : N3_READDIR, dir);
    p64(c, seen->cookie);
    p64(c, 0);
    if (plus)
        p32(c, count);
    p32(c, count);
    assert_int_equal(finish(c), 0);
    assert_true(c->reply.len <= count + 200);
    gpost(c, NULL);
    gfixed(c, 8);
    while (g32(c)) {
        uint8_t fh[FH];
        const uint8_t *name;

        g64(c);
        name = gvar(c, &n);
        assert_true(g_hash_table_add(seen->set, g_strndup((const char *)name, n)));
        seen->cookie = g64(c);
        if (plus) {
            assert_true(gpost(c, NULL));
            assert_int_equal(g32(c), 1);
            gfh(c, fh);
        }
    }
    seen->eof = g32(c);
}

static void directories(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH];

    for (unsigned i = 0; i < 700; i++) {
        g_autofree char *name = g_strdup_printf("entry-%u", i);

        assert_int_equal(nfs_create(c, c->root, name, 1, 0644, fh), 0);
    }
    for (unsigned plus = 0; plus < 2; plus++) {
        struct names_seen seen = {.set = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};

        while (!seen.eof) {
            list_some(c, c->root, plus, 1500, &seen);
            restart(f);
        }
        assert_int_equal(g_hash_table_size(seen.set), 702);
        g_hash_table_destroy(seen.set);
    }
    begin3(c, N3_READDIR, c->root);
    p64(c, 0);
    p64(c, 0);
    p32(c, 20);
    assert_int_equal(finish(c), 10005); /* TOOSMALL */
}

static void guard_and_replay(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH];
    struct fattr a;

    assert_int_equal(nfs_create(c, c->root, "g", 1, 0644, fh), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    for (unsigned i = 0; i < 2; i++) {
        begin3(c, N3_SETATTR, fh);
        psattr(c, 0600, -1, -1, -1);
        p32(c, 1);
        p32(c, a.ctime);
        p32(c, a.ctime_ns + 1 - i);
        assert_int_equal(finish(c), i ? 0 : NOT_SYNC);
    }
    /* The same call twice: the second time it is not done again. */
    assert_int_equal(nfs_remove(c, c->root, "g", false), 0);
    c->same_xid = true;
    assert_int_equal(nfs_remove(c, c->root, "g", false), 0);
    c->same_xid = false;
    assert_int_equal(nfs_remove(c, c->root, "g", false), NOENT);
}

static void file_system(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;

    begin3(c, N3_FSINFO, c->root);
    assert_int_equal(finish(c), 0);
    assert_true(gpost(c, NULL));
    assert_int_equal(g32(c), 1 << 20);
    c->tcp = false;
    begin3(c, N3_FSINFO, c->root);
    assert_int_equal(finish(c), 0);
    assert_true(gpost(c, NULL));
    assert_int_equal(g32(c), 32768);
    c->tcp = true;
    begin3(c, N3_FSSTAT, c->root);
    assert_int_equal(finish(c), 0);
    assert_true(gpost(c, NULL));
    assert_true(g64(c) >= g64(c));
    begin3(c, N3_PATHCONF, c->root);
    assert_int_equal(finish(c), 0);
    assert_true(gpost(c, NULL));
    g32(c);
    assert_int_equal(g32(c), 255);
}

static void read_only(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH], got[FH];
    uint64_t verf;

    assert_int_equal(nfs_create(c, c->root, "a", 1, 0644, fh), 0);
    nfs_server_free(c->server);
    c->server = serve(f->dir, true);
    assert_int_equal(nfs_lookup(c, c->root, "a", got), 0);
    assert_int_equal(nfs_write(c, fh, 0, "x", 1, 0, &verf), ROFS);
    assert_int_equal(nfs_create(c, c->root, "b", 1, 0644, got), ROFS);
    assert_int_equal(nfs_remove(c, c->root, "a", false), ROFS);
    assert_int_equal(nfs_setattr(c, fh, 0600, -1, -1, -1), ROFS);
    assert_int_equal(nfs_rename(c, c->root, "a", c->root, "b"), ROFS);
}

/* Guest root writes what the user made read-only, and the guest goes on seeing the mode that it had. */
static void promoted(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t dir[FH], fh[FH];
    struct fattr a;

    assert_int_equal(mkdir(in_dir(f, "d"), 0755), 0);
    put_file(f, "d/f", "text");
    assert_int_equal(chmod(in_dir(f, "d/f"), 0444), 0);
    assert_int_equal(chmod(in_dir(f, "d"), 0555), 0);
    assert_int_equal(nfs_lookup(c, c->root, "d", dir), 0);
    assert_int_equal(nfs_lookup(c, dir, "f", fh), 0);
    assert_int_equal(nfs_write(c, fh, 0, "T", 1, 0, NULL), 0);
    assert_int_equal(nfs_getattr(c, fh, &a), 0);
    assert_int_equal(a.mode, 0444);
    assert_int_equal(nfs_create(c, dir, "new", 1, 0644, fh), 0);
    assert_int_equal(nfs_getattr(c, dir, &a), 0);
    assert_int_equal(a.mode, 0555);
    assert_int_equal(nfs_remove(c, dir, "f", false), 0);
}

static void real_ids(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    struct nfs_export e = {.path = f->dir, .mount = "/export", .ids = NFS_IDS_REAL};
    uint8_t fh[FH];
    struct fattr a;
    struct stat st;

    if (geteuid() != 0)
        skip();
    nfs_server_free(c->server);
    c->server = nfs_server_new(&e, 1, NULL);
    assert_int_equal(nfs_create(c, c->root, "f", 1, 04755, fh), 0);
    assert_int_equal(stat(in_dir(f, "f"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 04755);
    assert_int_equal(nfs_setattr(c, fh, -1, 1000, 1001, -1), 0);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_uid, 1000);
    assert_int_equal(st.st_gid, 1001);
    assert_int_equal(listxattr(f->path, NULL, 0), 0);
    assert_int_equal(nfs_mknod(c, c->root, "p", 7, 0600, 0, 0, fh), 0);
    assert_int_equal(lstat(in_dir(f, "p"), &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    assert_int_equal(nfs_symlink(c, c->root, "l", "x", fh), 0);
    assert_int_equal(nfs_setattr(c, fh, -1, 7, 8, -1), 0);
    assert_int_equal(lstat(in_dir(f, "l"), &st), 0);
    assert_true(S_ISLNK(st.st_mode) && st.st_uid == 7);
    c->uid = c->gid = 1000;
    assert_int_equal(nfs_lookup(c, c->root, "f", fh), ACCES); /* the root is 0700 */
    c->uid = c->gid = 0;
    assert_int_equal(nfs_getattr(c, c->root, &a), 0);
    assert_int_equal(a.mode, 0700);
}

static void bad_exports(void **state)
{
    struct fixture *f = *state;
    struct nfs_export e[2] = {{.path = in_dir(f, "none")}, {.path = f->dir}};
    GError *error = NULL;

    assert_null(nfs_server_new(e, 1, &error));
    assert_non_null(strstr(error->message, "none"));
    g_clear_error(&error);
    e[0] = e[1];
    assert_null(nfs_server_new(e, 2, &error));
    g_clear_error(&error);
    e[0].mount = "relative";
    assert_null(nfs_server_new(e, 1, &error));
    g_clear_error(&error);
    put_file(f, "file", "");
    e[0] = (struct nfs_export){.path = f->path};
    assert_null(nfs_server_new(e, 1, &error));
    g_clear_error(&error);
}

/* --- NFS v2 --- */

static void psattr2(struct client *c, uint32_t mode, uint32_t size)
{
    p32(c, mode);
    p32(c, UINT32_MAX);
    p32(c, UINT32_MAX);
    p32(c, size);
    for (unsigned i = 0; i < 4; i++)
        p32(c, UINT32_MAX);
}

static void begin2(struct client *c, uint32_t proc, const uint8_t fh[FH], const char *name)
{
    begin(c, 100003, 2, proc);
    pfixed(c, fh, FH);
    if (name)
        pstr(c, name);
}

struct fattr2 {
    uint32_t type, mode, nlink, uid, gid, size, blocksize, rdev;
};

static void gattr2(struct client *c, struct fattr2 *a)
{
    uint32_t *v = (uint32_t *)a;

    for (unsigned i = 0; i < 8; i++)
        v[i] = g32(c);
    gfixed(c, 9 * 4);
}

static void version2_files(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH];
    struct fattr2 a;
    size_t n;

    begin2(c, 9, c->root, "v2");
    psattr2(c, 0100640, UINT32_MAX);
    assert_int_equal(finish(c), 0);
    memcpy(fh, gfixed(c, FH), FH);
    gattr2(c, &a);
    assert_int_equal(a.mode, 0100640);
    begin2(c, 8, fh, NULL);
    p32(c, 0);
    p32(c, 2);
    p32(c, 0);
    pstr(c, "data");
    assert_int_equal(finish(c), 0);
    gattr2(c, &a);
    assert_int_equal(a.size, 6);
    begin2(c, 6, fh, NULL);
    p32(c, 1);
    p32(c, 100);
    p32(c, 0);
    assert_int_equal(finish(c), 0);
    gattr2(c, &a);
    assert_memory_equal(gvar(c, &n), "\0data", 5);
    assert_int_equal(n, 5);
    begin2(c, 2, fh, NULL);
    psattr2(c, 0600, 1);
    assert_int_equal(finish(c), 0);
    gattr2(c, &a);
    assert_int_equal(a.size, 1);
    begin2(c, 12, fh, NULL);
    pfixed(c, c->root, FH);
    pstr(c, "hard");
    assert_int_equal(finish(c), 0);
    begin2(c, 11, c->root, "hard");
    pfixed(c, c->root, FH);
    pstr(c, "harder");
    assert_int_equal(finish(c), 0);
    begin2(c, 10, c->root, "v2");
    assert_int_equal(finish(c), 0);
    begin2(c, 1, fh, NULL);
    assert_int_equal(finish(c), 0);
    begin2(c, 10, c->root, "v2");
    assert_int_equal(finish(c), NOENT);
    begin2(c, 4, c->root, "no/slash");
    assert_int_equal(finish(c), ACCES);
    begin2(c, 17, c->root, NULL);
    assert_int_equal(finish(c), 0);
    assert_int_equal(g32(c), 8192);
}

static void version2_others(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    uint8_t fh[FH];
    struct fattr2 a;
    size_t n;

    begin2(c, 13, c->root, "link");
    pstr(c, "to");
    psattr2(c, 0777, UINT32_MAX);
    assert_int_equal(finish(c), 0);
    begin2(c, 4, c->root, "link");
    assert_int_equal(finish(c), 0);
    memcpy(fh, gfixed(c, FH), FH);
    begin2(c, 5, fh, NULL);
    assert_int_equal(finish(c), 0);
    assert_memory_equal(gvar(c, &n), "to", 2);
    begin2(c, 14, c->root, "dir");
    psattr2(c, 0755, UINT32_MAX);
    assert_int_equal(finish(c), 0);
    begin2(c, 15, c->root, "dir");
    assert_int_equal(finish(c), 0);
    begin2(c, 9, c->root, "tty");
    psattr2(c, 0020620, 5 << 8 | 1);
    assert_int_equal(finish(c), 0);
    gfixed(c, FH);
    gattr2(c, &a);
    assert_int_equal(a.type, 4);
    assert_int_equal(a.rdev, 5 << 8 | 1);
    begin2(c, 9, c->root, "fifo");
    psattr2(c, 0020644, UINT32_MAX);
    assert_int_equal(finish(c), 0);
    gfixed(c, FH);
    gattr2(c, &a);
    assert_int_equal(a.type, 4);
    assert_int_equal(a.rdev, UINT32_MAX);
    begin(c, 100003, 2, 3);
    assert_int_equal(finish_rpc(c), 0);
    begin(c, 100003, 2, 7);
    assert_int_equal(finish_rpc(c), 0);
}

static void version2_directory(void **state)
{
    struct fixture *f = *state;
    struct client *c = &f->c;
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    uint32_t cookie = 0;
    size_t n;

    for (unsigned i = 0; i < 400; i++) {
        g_autofree char *name = g_strdup_printf("e%u", i);

        put_file(f, name, "");
    }
    for (bool eof = false; !eof; eof = g32(c)) {
        begin2(c, 16, c->root, NULL);
        p32(c, cookie);
        p32(c, 1024);
        assert_int_equal(finish(c), 0);
        while (g32(c)) {
            const uint8_t *name;

            g32(c);
            name = gvar(c, &n);
            assert_true(g_hash_table_add(seen, g_strndup((const char *)name, n)));
            cookie = g32(c);
        }
        if (cookie % 3 == 0)
            restart(f); /* whose reply remains */
    }
    assert_int_equal(g_hash_table_size(seen), 402);
}

/* --- record marking --- */

static void records(void **state)
{
    static const uint8_t bytes[] = {0x80, 0, 0, 3,   'a', 'b', 'c', 0, 0,   0,    2, 'd', 'e', 0x80,
                                    0,    0, 1, 'f', 0,   0,   0,   1, 'g', 0x80, 0, 0,   0};
    static const char *const want[] = {"abc", "def", "g"};

    for (size_t piece = 1; piece <= sizeof(bytes); piece++) {
        struct nfs_stream *s = nfs_stream_new(100);
        unsigned n = 0;

        for (size_t at = 0; at < sizeof(bytes);) {
            const void *record;
            size_t len;
            ssize_t took = nfs_stream_feed(s, bytes + at, MIN(piece, sizeof(bytes) - at), &record, &len);

            assert_true(took > 0);
            at += (size_t)took;
            if (!record)
                continue;
            assert_true(n < 3);
            assert_int_equal(len, strlen(want[n]));
            assert_memory_equal(record, want[n++], len);
        }
        assert_int_equal(n, 3);
        nfs_stream_free(s);
    }
}

static void bad_records(void **state)
{
    struct nfs_stream *s = nfs_stream_new(100);
    static const uint8_t empty[4];
    const void *record;
    size_t len;
    ssize_t r = 0;

    assert_int_equal(nfs_stream_feed(s, "\xff\xff\xff\xff", 4, &record, &len), -EMSGSIZE);
    nfs_stream_free(s);
    s = nfs_stream_new(100);
    assert_int_equal(nfs_stream_feed(s, "\0\0\0\x3cxxxx", 8, &record, &len), 8);
    for (unsigned i = 0; i < 56; i++)
        assert_int_equal(nfs_stream_feed(s, "x", 1, &record, &len), 1);
    assert_int_equal(nfs_stream_feed(s, "\x80\0\0\x29", 4, &record, &len), -EMSGSIZE);
    nfs_stream_free(s);
    s = nfs_stream_new(100);
    for (unsigned i = 0; i < 10000 && r >= 0; i++)
        r = nfs_stream_feed(s, empty, 4, &record, &len);
    assert_int_equal(r, -EBADMSG);
    nfs_stream_free(s);
}

int main(void)
{
#define WITH(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH(rpc_header),
        WITH(portmap),
        WITH(mount),
        WITH(create_read_write),
        WITH(exclusive_create),
        WITH(names),
        WITH(ids_and_modes),
        WITH(permissions),
        WITH(special_nodes),
        WITH(symlinks),
        WITH(rename_link_remove),
        WITH(handles),
        WITH(moved_out),
        WITH(swapped_link),
        WITH(directories),
        WITH(guard_and_replay),
        WITH(file_system),
        WITH(read_only),
        WITH(bad_exports),
        WITH(promoted),
        WITH(real_ids),
        WITH(version2_files),
        WITH(version2_others),
        WITH(version2_directory),
        cmocka_unit_test(records),
        cmocka_unit_test(bad_records),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
