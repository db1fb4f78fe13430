/*
 * nfs_model [OPERATIONS [SEED]]: random file operations by two clients on one tree, each with its own server,
 * beside a model in memory.  Every status, every attribute that the model knows, every byte and every handle
 * must agree. Servers are restarted now and then.  Prints "N passed, N failed".
 */
#include <stdint.h>

#include "nfs_client.h"

enum { NAMES = 6, DIRS_MAX = 24, FILE_MAX = 20000, CLIENTS = 2 };
enum { T_FILE = 1, T_DIR = 2, T_BLOCK = 3, T_CHAR = 4, T_LINK = 5, T_SOCK = 6, T_FIFO = 7 };

struct obj {
    unsigned type, mode, uid, gid, nlink, major, minor;
    struct obj *parent; /* of a directory */
    unsigned name;
    struct obj *kids[NAMES];
    GByteArray *data; /* contents, or a link's target */
    unsigned known;   /* a bit for each client that has met it */
    uint8_t fh[FH];
};

static struct client clients[CLIENTS];
static char *top;
static GRand *rng;
static GPtrArray *dirs, *dead;
static unsigned long passed, failed, op_number;
static const char *op_name = "?";

static unsigned pick(unsigned n)
{
    return (unsigned)g_rand_int_range(rng, 0, (gint32)n);
}

static void check(bool ok, const char *what, uint64_t got, uint64_t want)
{
    if (ok) {
        passed++;
        return;
    }
    failed++;
    if (failed <= 20)
        printf("op %lu %s: %s is %lu, not %lu\n", op_number, op_name, what, (unsigned long)got,
               (unsigned long)want);
}

static void same(const char *what, uint64_t got, uint64_t want)
{
    check(got == want, what, got, want);
}

static const char *name_of(unsigned n)
{
    static const char *const names[NAMES] = {"a",     "bb",    "c c",
                                             "d\xff", "e.tar", "f-long-long-long-long-name"};

    return names[n];
}

static struct obj *new_obj(unsigned type, unsigned mode, struct client *c)
{
    struct obj *o = g_new0(struct obj, 1);

    o->type = type;
    o->mode = mode;
    o->uid = c->uid;
    o->gid = c->gid;
    o->nlink = 1;
    o->data = g_byte_array_new();
    return o;
}

static unsigned bit_of(const struct client *c)
{
    return 1u << (c - clients);
}

static void serve(struct client *c)
{
    struct nfs_export e = {.path = top, .mount = "/m"};

    nfs_server_free(c->server);
    c->server = nfs_server_new(&e, 1, NULL);
    if (!c->server)
        abort();
}

/* A handle is the same for both clients and for ever. */
static void learn(struct client *c, struct obj *o, const uint8_t fh[FH])
{
    if (o->known)
        same("handle", !memcmp(o->fh, fh, FH), 1);
    memcpy(o->fh, fh, FH);
    o->known |= bit_of(c);
}

/* A client that has not met a directory looks it up from the top. */
static void find_dir(struct client *c, struct obj *dir, bool again)
{
    uint8_t fh[FH];

    if (!dir->parent || (!again && dir->known & bit_of(c)))
        return;
    find_dir(c, dir->parent, again);
    same("lookup", nfs_lookup(c, dir->parent->fh, name_of(dir->name), fh), 0);
    learn(c, dir, fh);
}

/*
 * What is there, met by the client; NULL when there is nothing.  Links are looked up each time: one that was
 * given to somebody, by the other server or before a restart, is found by its name only (docs/nfs.md).
 */
static struct obj *find(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = dir->kids[name];
    uint8_t fh[FH];

    if (!o || (o->type != T_LINK && o->known & bit_of(c)))
        return o;
    same("lookup", nfs_lookup(c, dir->fh, name_of(name), fh), 0);
    learn(c, o, fh);
    return o;
}

static void drop(struct obj *o)
{
    if (--o->nlink == 0 || o->type == T_DIR) {
        o->nlink = 0;
        g_ptr_array_remove_fast(dirs, o);
        g_ptr_array_add(dead, o);
    }
}

static void place(struct obj *dir, unsigned name, struct obj *o)
{
    dir->kids[name] = o;
    if (o->type == T_DIR) {
        o->parent = dir;
        o->name = name;
    }
}

static bool is_empty(const struct obj *dir)
{
    for (unsigned i = 0; i < NAMES; i++) {
        if (dir->kids[i])
            return false;
    }
    return true;
}

static bool is_below(const struct obj *o, const struct obj *above)
{
    for (; o; o = o->parent) {
        if (o == above)
            return true;
    }
    return false;
}

static void compare_attr(struct client *c, const struct obj *o)
{
    struct fattr a;
    uint32_t stat = nfs_getattr(c, o->fh, &a);

    same("getattr", stat, 0);
    if (stat)
        return;
    same("type", a.type, o->type);
    same("mode", a.mode, o->mode);
    same("uid", a.uid, o->uid);
    same("gid", a.gid, o->gid);
    if (o->type != T_DIR)
        same("nlink", a.nlink, o->nlink);
    if (o->type == T_FILE || o->type == T_LINK)
        same("size", a.size, o->data->len);
    if (o->type == T_BLOCK || o->type == T_CHAR)
        same("device", a.major << 8 | a.minor, o->major << 8 | o->minor);
}

/* --- operations: a directory, a name in it, and what is there --- */

static void op_lookup(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = dir->kids[name];
    uint8_t fh[FH];
    uint32_t stat = nfs_lookup(c, dir->fh, name_of(name), fh);

    same("status", stat, o ? 0 : 2);
    if (!o || stat)
        return;
    learn(c, o, fh);
    compare_attr(c, o);
}

static void added(struct client *c, struct obj *dir, unsigned name, struct obj *o, const uint8_t fh[FH])
{
    place(dir, name, o);
    learn(c, o, fh);
    if (dir->mode & 02000)
        o->gid = dir->gid;
    if (o->type != T_DIR)
        return;
    o->mode |= dir->mode & 02000;
    g_ptr_array_add(dirs, o);
}

static void op_create(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = dir->kids[name];
    unsigned how = pick(2), mode = (unsigned[]){0644, 0600, 04755, 0444}[pick(4)];
    uint8_t fh[FH];
    uint32_t stat = nfs_create(c, dir->fh, name_of(name), how, (int)mode, fh);

    same("status", stat, !o ? 0 : how ? 17 : o->type == T_FILE ? 0 : o->type == T_DIR ? 21 : 17);
    if (!o && !stat)
        added(c, dir, name, new_obj(T_FILE, mode, c), fh);
}

static void op_mkdir(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = dir->kids[name];
    unsigned mode = (unsigned[]){0755, 0700, 01777, 0555}[pick(4)];
    uint8_t fh[FH];
    uint32_t stat;

    if (!o && dirs->len >= DIRS_MAX)
        return;
    stat = nfs_mkdir(c, dir->fh, name_of(name), (int)mode, fh);
    same("status", stat, o ? 17 : 0);
    if (!o && !stat)
        added(c, dir, name, new_obj(T_DIR, mode, c), fh);
}

static void op_symlink(struct client *c, struct obj *dir, unsigned name)
{
    g_autofree char *target = g_strdup_printf("../%u/target%u", pick(1000), pick(1000));
    struct obj *o = dir->kids[name];
    uint8_t fh[FH];
    uint32_t stat = nfs_symlink(c, dir->fh, name_of(name), target, fh);

    same("status", stat, o ? 17 : 0);
    if (o || stat)
        return;
    o = new_obj(T_LINK, 0777, c);
    g_byte_array_append(o->data, (const uint8_t *)target, (guint)strlen(target));
    added(c, dir, name, o, fh);
}

static void op_mknod(struct client *c, struct obj *dir, unsigned name)
{
    static const unsigned types[] = {T_BLOCK, T_CHAR, T_SOCK, T_FIFO};
    unsigned type = types[pick(4)], major = pick(200), minor = pick(200), mode = pick(512);
    struct obj *o = dir->kids[name];
    uint8_t fh[FH];
    uint32_t stat;

    if (c->uid && (type == T_BLOCK || type == T_CHAR))
        return;
    stat = nfs_mknod(c, dir->fh, name_of(name), type, (int)mode, major, minor, fh);
    same("status", stat, o ? 17 : 0);
    if (o || stat)
        return;
    o = new_obj(type, mode, c);
    o->major = major;
    o->minor = minor;
    added(c, dir, name, o, fh);
}

static void op_remove(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = dir->kids[name];
    bool is_dir = pick(2);
    uint32_t want = !o                 ? 2
                    : is_dir           ? o->type != T_DIR ? 20
                                         : is_empty(o)    ? 0
                                                          : 66
                    : o->type == T_DIR ? 21
                                       : 0;
    uint32_t stat = nfs_remove(c, dir->fh, name_of(name), is_dir);

    same("status", stat, want);
    if (stat || want)
        return;
    dir->kids[name] = NULL;
    drop(o);
}

static uint32_t want_rename(const struct obj *o, const struct obj *to, const struct obj *old)
{
    if (!o)
        return 2;
    if (o->type == T_DIR && is_below(to, o))
        return 22;
    if (!old || old == o)
        return 0;
    if (o->type == T_DIR && old->type != T_DIR)
        return 20;
    if (o->type != T_DIR && old->type == T_DIR)
        return 21;
    return old->type == T_DIR && !is_empty(old) ? 66 : 0;
}

static void op_rename(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *to = g_ptr_array_index(dirs, pick(dirs->len)), *o = dir->kids[name], *old;
    unsigned to_name = pick(NAMES);
    uint32_t want, stat;

    find_dir(c, to, false);
    old = to->kids[to_name];
    want = want_rename(o, to, old);
    stat = nfs_rename(c, dir->fh, name_of(name), to->fh, name_of(to_name));
    /* The host looks at a target above the source first. */
    if (want == 21 && is_below(dir, old))
        want = stat == 66 ? 66 : 21;
    same("status", stat, want);
    if (stat || want || old == o)
        return;
    dir->kids[name] = NULL;
    if (old)
        drop(old);
    place(to, to_name, o);
}

static void op_link(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *to = g_ptr_array_index(dirs, pick(dirs->len)), *o = find(c, dir, name);
    unsigned to_name = pick(NAMES);
    uint32_t stat;

    /* Links to links may be refused: docs/nfs.md. */
    if (!o || o->type == T_LINK)
        return;
    find_dir(c, to, false);
    stat = nfs_link(c, o->fh, to->fh, name_of(to_name));
    same("status", stat, o->type == T_DIR ? 21 : to->kids[to_name] ? 17 : 0);
    if (stat || o->type == T_DIR || to->kids[to_name])
        return;
    to->kids[to_name] = o;
    o->nlink++;
}

static void op_write(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = find(c, dir, name);
    unsigned offset = pick(FILE_MAX / 2), len = 1 + pick(FILE_MAX / 2);
    g_autofree uint8_t *data = g_malloc(len);
    uint32_t stat;

    if (!o)
        return;
    for (unsigned i = 0; i < len; i++)
        data[i] = (uint8_t)(op_number + i);
    stat = nfs_write(c, o->fh, offset, data, len, pick(20) ? 0 : 2, NULL);
    same("status", stat, o->type == T_FILE ? 0 : o->type == T_DIR ? 21 : 22);
    if (stat || o->type != T_FILE)
        return;
    if (o->data->len < offset + len) {
        guint old = o->data->len;

        g_byte_array_set_size(o->data, offset + len);
        if (old < offset)
            memset(o->data->data + old, 0, offset - old);
    }
    memcpy(o->data->data + offset, data, len);
}

static void op_read(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = find(c, dir, name);
    unsigned offset = pick(FILE_MAX), len = 1 + pick(FILE_MAX);
    const uint8_t *data = NULL;
    bool eof = false;
    size_t n = 0, want;
    uint32_t stat;

    if (!o)
        return;
    stat = nfs_read(c, o->fh, offset, len, &data, &n, &eof);
    same("status", stat, o->type == T_FILE ? 0 : o->type == T_DIR ? 21 : 22);
    if (stat || o->type != T_FILE)
        return;
    want = offset >= o->data->len ? 0 : MIN(len, o->data->len - offset);
    same("bytes", n, want);
    same("eof", eof, offset + want >= o->data->len);
    if (n == want && n)
        same("contents", memcmp(data, o->data->data + offset, n) == 0, 1);
}

static void op_readlink(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = find(c, dir, name);
    const uint8_t *target;
    uint32_t stat;
    size_t n;

    if (!o)
        return;
    begin3(c, N3_READLINK, o->fh);
    stat = finish(c);
    same("status", stat, o->type == T_LINK ? 0 : 22);
    if (stat)
        return;
    gpost(c, NULL);
    target = gvar(c, &n);
    same("length", n, o->data->len);
    same("target", n == o->data->len && !memcmp(target, o->data->data, n), 1);
}

static void op_setattr(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = find(c, dir, name);
    int64_t mode = pick(2) ? (int64_t)pick(010000) : -1, uid = -1, gid = -1;
    uint32_t stat;

    if (!o || c->uid)
        return;
    if (!pick(3))
        uid = pick(3) * 500;
    if (!pick(3))
        gid = pick(3);
    stat = nfs_setattr(c, o->fh, mode, uid, gid, -1);
    same("status", stat, 0);
    if (stat)
        return;
    if (mode >= 0 && o->type != T_LINK)
        o->mode = (unsigned)mode;
    if (uid >= 0)
        o->uid = (unsigned)uid;
    if (gid >= 0)
        o->gid = (unsigned)gid;
    if ((uid >= 0 || gid >= 0) && o->type == T_FILE)
        o->mode &= ~((o->mode & 02010) == 02010 ? 06000u : 04000u);
    compare_attr(c, o);
}

static void op_truncate(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = find(c, dir, name);
    guint size = pick(FILE_MAX), old;
    uint32_t stat;

    if (!o)
        return;
    stat = nfs_setattr(c, o->fh, -1, -1, -1, size);
    same("status", stat, o->type == T_FILE ? 0 : o->type == T_DIR ? 21 : 22);
    if (stat || o->type != T_FILE)
        return;
    old = o->data->len;
    g_byte_array_set_size(o->data, size);
    if (size > old)
        memset(o->data->data + old, 0, size - old);
}

static void op_readdir(struct client *c, struct obj *dir, unsigned name)
{
    unsigned seen = 0, want = 0;
    size_t n;
    uint32_t stat;

    begin3(c, N3_READDIR, dir->fh);
    p64(c, 0);
    p64(c, 0);
    p32(c, 8192);
    stat = finish(c);
    same("status", stat, 0);
    if (stat)
        return;
    gpost(c, NULL);
    gfixed(c, 8);
    while (g32(c)) {
        const char *entry;

        g64(c);
        entry = (const char *)gvar(c, &n);
        for (unsigned i = 0; i < NAMES; i++) {
            if (n == strlen(name_of(i)) && !memcmp(entry, name_of(i), n))
                seen |= 1u << i;
        }
        g64(c);
    }
    for (unsigned i = 0; i < NAMES; i++)
        want |= dir->kids[i] ? 1u << i : 0;
    same("names", seen, want);
}

static void op_dead(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = dead->len ? g_ptr_array_index(dead, pick(dead->len)) : NULL;
    struct fattr a;

    if (o && o->known & bit_of(c))
        same("status", nfs_getattr(c, o->fh, &a), 70);
}

static void op_commit(struct client *c, struct obj *dir, unsigned name)
{
    struct obj *o = find(c, dir, name);
    uint64_t verf;

    if (o && o->type == T_FILE && !pick(4))
        same("status", nfs_commit(c, o->fh, &verf), 0);
}

static const struct {
    const char *name;
    void (*fn)(struct client *c, struct obj *dir, unsigned name);
} ops[] = {
    {"lookup", op_lookup},   {"create", op_create},     {"create", op_create},   {"mkdir", op_mkdir},
    {"symlink", op_symlink}, {"mknod", op_mknod},       {"remove", op_remove},   {"rename", op_rename},
    {"link", op_link},       {"write", op_write},       {"write", op_write},     {"read", op_read},
    {"read", op_read},       {"readlink", op_readlink}, {"setattr", op_setattr}, {"truncate", op_truncate},
    {"readdir", op_readdir}, {"dead", op_dead},         {"commit", op_commit},   {"lookup", op_lookup},
};

static void step(void)
{
    struct client *c = &clients[pick(CLIENTS)];
    struct obj *dir = g_ptr_array_index(dirs, pick(dirs->len));
    unsigned op = pick(G_N_ELEMENTS(ops));

    if (!pick(1000))
        serve(c);
    op_name = "find";
    if (!pick(4))
        find_dir(c, dir, true);
    find_dir(c, dir, false);
    op_name = ops[op].name;
    ops[op].fn(c, dir, pick(NAMES));
}

int main(int argc, char **argv)
{
    unsigned long n = argc > 1 ? strtoul(argv[1], NULL, 0) : 20000;
    guint32 seed = argc > 2 ? (guint32)strtoul(argv[2], NULL, 0) : 1;
    const char *base = g_getenv("ARMLET_TEST_DIR");
    struct obj *root;

    top = g_strdup_printf("%s/armlet-nfs-model-XXXXXX", base ? base : "/var/tmp");
    if (!g_mkdtemp(top))
        abort();
    rng = g_rand_new_with_seed(seed);
    dirs = g_ptr_array_new();
    dead = g_ptr_array_new();
    for (unsigned i = 0; i < CLIENTS; i++) {
        client_init(&clients[i], NULL);
        clients[i].xid = i << 30;
        serve(&clients[i]);
        if (nfs_mount(&clients[i], "/m"))
            abort();
    }
    root = new_obj(T_DIR, 0700, &clients[0]);
    learn(&clients[0], root, clients[0].root);
    learn(&clients[1], root, clients[1].root);
    g_ptr_array_add(dirs, root);
    for (op_number = 0; op_number < n && failed < 20; op_number++)
        step();
    for (unsigned i = 0; i < CLIENTS; i++)
        nfs_server_free(clients[i].server);
    g_autofree char *cmd = g_strdup_printf("rm -rf '%s'", top);

    if (system(cmd))
        printf("%s could not be removed\n", top);
    printf("%lu passed, %lu failed\n", passed, failed);
    return failed ? 1 : 0;
}
