/*
 * nfs_fuzz [SEED [MESSAGES]]: good messages of every procedure, damaged: bytes changed, cut off, lengthened,
 * lengths made huge, handles exchanged.  The server must answer or keep silent, stay within its buffers (the
 * sanitizers watch) and leave alone what is outside the export.  The record reader gets the same bytes.
 * Prints "N passed, N failed".
 */
#include <stdint.h>
#include <sys/stat.h>

#include "nfs_client.h"

static GRand *rng;
static unsigned long answers[8], silent;

static uint32_t pick(uint32_t n)
{
    return (uint32_t)(((uint64_t)g_rand_int(rng) * n) >> 32);
}

static const char *name(void)
{
    static const char *const names[] = {"a", "b", "dir", "..", ".", "", "x/y", "link", "../../outside"};

    return names[pick(G_N_ELEMENTS(names))];
}

/* Arguments of a likely shape: handles, names, small and large numbers, as the procedure may or may not want.
 */
static void good_message(struct client *c, GPtrArray *handles)
{
    static const uint32_t progs[][3] = {
        {100003, 3, 22}, {100003, 2, 18}, {100005, 3, 6}, {100005, 1, 7}, {100000, 2, 5}};
    const uint32_t *prog = progs[pick(8) ? pick(4) : 4];
    uint32_t proc = pick(prog[2]);
    bool fixed = prog[0] == 100003 && prog[1] == 2;

    begin(c, prog[0], prog[1], proc);
    if (prog[0] == 100005)
        pstr(c, pick(2) ? "/m/dir" : "/m/../..");
    for (unsigned i = 0, n = 1 + pick(3); i < n; i++) {
        const uint8_t *fh = g_ptr_array_index(handles, pick(handles->len));

        if (fixed)
            pfixed(c, fh, FH);
        else
            pvar(c, fh, FH);
        if (pick(2))
            pstr(c, name());
        for (unsigned k = pick(8); k > 0; k--)
            p32(c, pick(3) ? pick(3) : pick(2) ? pick(65536) : g_rand_int(rng));
    }
}

static void damage(GByteArray *req)
{
    static const uint32_t bad[] = {0xffffffff, 0x7fffffff, 0x80000000, 0xfffffffc, 1u << 20, 0};

    uint8_t again[64];

    for (unsigned n = pick(4); n > 0 && req->len; n--) {
        uint32_t at = pick(req->len), v = GUINT32_TO_BE(bad[pick(6)]);

        switch (pick(5)) {
        case 0:
            req->data[at] ^= (uint8_t)(1u << pick(8));
            break;
        case 1:
            g_byte_array_set_size(req, at);
            break;
        case 2:
            at &= ~3u;
            if (at + 4 <= req->len)
                memcpy(req->data + at, &v, 4);
            break;
        case 3:
            memcpy(again, req->data + at, MIN(req->len - at, 64));
            g_byte_array_append(req, again, MIN(req->len - at, 64));
            break;
        default:
            req->data[at] = (uint8_t)pick(256);
        }
    }
}

/* A copy of its exact size, so that reading past its end is seen. */
static void send_copy(struct client *c, bool tcp)
{
    uint8_t *copy = g_memdup2(c->req->data, c->req->len);

    if (nfs_server_call(c->server, copy, c->req->len, tcp, &c->reply))
        answers[c->reply.len >= 24 ? c->reply.msg[23] & 7 : 7]++;
    else
        silent++;
    g_free(copy);
}

static void feed(struct nfs_stream **s, const GByteArray *req)
{
    for (size_t at = 0; at < req->len;) {
        const void *record;
        size_t len, piece = 1 + pick(200);
        ssize_t n = nfs_stream_feed(*s, req->data + at, MIN(req->len - at, piece), &record, &len);

        if (n < 0) {
            nfs_stream_free(*s);
            *s = nfs_stream_new(1 << 16);
            return;
        }
        at += (size_t)n;
    }
}

int main(int argc, char **argv)
{
    guint32 seed = argc > 1 ? (guint32)strtoul(argv[1], NULL, 0) : 1;
    unsigned long n = argc > 2 ? strtoul(argv[2], NULL, 0) : 100000;
    const char *base = g_getenv("ARMLET_TEST_DIR");
    g_autofree char *top = g_strdup_printf("%s/armlet-nfs-fuzz-XXXXXX", base ? base : "/var/tmp");
    g_autofree char *export = NULL, *outside = NULL, *text = NULL, *cmd = NULL;
    struct nfs_export e = {.mount = "/m"};
    struct nfs_stream *stream = nfs_stream_new(1 << 16);
    GPtrArray *handles = g_ptr_array_new();
    uint8_t fh[4][FH];
    struct client c;
    bool kept;

    if (!g_mkdtemp(top))
        abort();
    export = g_build_filename(top, "export", NULL);
    outside = g_build_filename(top, "outside", NULL);
    if (mkdir(export, 0700) || !g_file_set_contents(outside, "untouched", -1, NULL))
        abort();
    e.path = export;
    rng = g_rand_new_with_seed(seed);
    client_init(&c, nfs_server_new(&e, 1, NULL));
    if (nfs_mount(&c, "/m") || nfs_mkdir(&c, c.root, "dir", 0755, fh[1]) ||
        nfs_create(&c, c.root, "a", 0, 0644, fh[2]) || nfs_symlink(&c, c.root, "link", "../outside", fh[3]))
        abort();
    memcpy(fh[0], c.root, FH);
    for (unsigned i = 0; i < 4; i++)
        g_ptr_array_add(handles, fh[i]);
    for (unsigned long i = 0; i < n; i++) {
        good_message(&c, handles);
        damage(c.req);
        send_copy(&c, pick(2));
        feed(&stream, c.req);
    }
    kept = g_file_get_contents(outside, &text, NULL, NULL) && !strcmp(text, "untouched");
    printf("answers by status:");
    for (unsigned i = 0; i < 8; i++)
        printf(" %lu", answers[i]);
    printf(", silent %lu\n", silent);
    /* Most of it must have got past the header, or nothing was tried. */
    kept = kept && answers[0] > n / 20;
    nfs_server_free(c.server);
    client_done(&c);
    nfs_stream_free(stream);
    g_ptr_array_unref(handles);
    g_rand_free(rng);
    cmd = g_strdup_printf("chmod -R u+rwX '%s'; rm -rf '%s'", top, top);
    if (system(cmd))
        printf("%s could not be removed\n", top);
    printf("%lu passed, %u failed\n", n, !kept);
    return !kept;
}
