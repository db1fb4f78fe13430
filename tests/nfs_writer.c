/*
 * nfs_writer NFSPORT MOUNTPORT SEQ [HANDLE]: writes blocks to the file of that handle (or to a new one,
 * "file") until the server is gone, and prints "BLOCK SEQ" for each that was acknowledged as being on disk:
 * by a stable WRITE, or by a COMMIT with the verifier that its unstable WRITE had.  For nfs_crash.py.
 */
#include <stdint.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "nfs_client.h"

enum { BLOCK = 4096, BLOCKS = 512, BATCH = 8 };

static int dial(const char *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        perror("connect");
        exit(2);
    }
    return fd;
}

static void fill(char *block, unsigned n, unsigned seq)
{
    for (unsigned i = 0; i < BLOCK / 16; i++) {
        char text[17];

        snprintf(text, sizeof(text), "%08x%08x", n, seq);
        memcpy(block + (size_t)i * 16, text, 16);
    }
}

/* One block that is stable at once, or a batch that a COMMIT makes so.  False: the server is gone. */
static bool write_some(struct client *c, const uint8_t fh[FH], GRand *rng, unsigned *seq)
{
    bool stable = g_rand_boolean(rng);
    unsigned n = stable ? 1 : BATCH, at[BATCH], seqs[BATCH];
    uint64_t verf[BATCH] = {0}, commit_verf = 0;
    char block[BLOCK];

    for (unsigned i = 0; i < n; i++) {
        at[i] = (unsigned)g_rand_int_range(rng, 0, BLOCKS);
        seqs[i] = (*seq)++;
        fill(block, at[i], seqs[i]);
        if (nfs_write(c, fh, (uint64_t)at[i] * BLOCK, block, BLOCK, stable ? 2 : 0, &verf[i]))
            return false;
    }
    if (!stable && nfs_commit(c, fh, &commit_verf))
        return false;
    for (unsigned i = 0; i < n; i++) {
        if (stable || verf[i] == commit_verf)
            printf("%u %u\n", at[i], seqs[i]);
    }
    return true;
}

static bool from_hex(const char *hex, uint8_t fh[FH])
{
    for (unsigned i = 0; i < FH; i++) {
        if (sscanf(hex + 2 * i, "%2hhx", &fh[i]) != 1)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct client c;
    struct fattr a;
    uint8_t fh[FH];
    unsigned seq = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
    GRand *rng = g_rand_new_with_seed(seq);

    if (argc < 4)
        return 2;
    client_init(&c, NULL);
    c.xid = seq;
    c.fd = dial(argv[2]);
    if (nfs_mount(&c, "/export"))
        return 2;
    close(c.fd);
    c.fd = dial(argv[1]);
    if (argc > 4 ? !from_hex(argv[4], fh) || nfs_getattr(&c, fh, &a)
                 : nfs_create(&c, c.root, "file", 0, 0644, fh))
        return 2;
    printf("handle ");
    for (unsigned i = 0; i < FH; i++)
        printf("%02x", fh[i]);
    printf("\n");
    fflush(stdout);
    while (write_some(&c, fh, rng, &seq))
        ;
    g_rand_free(rng);
    client_done(&c);
    return c.dead ? 0 : 1;
}
