/*
 * Work on files over NFS, as the init of a guest whose root is on the server: each row is "row NAME SECONDS".
 * Options of the kernel's command line: server=ADDR:PATH (its root, mounted again with other sizes), mountopts=, and
 * share=TAG: the same tree by 9P, whose rows begin with "9p-".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { FILE_BYTES = 64 << 20, CHUNK = 1 << 20, SMALL = 4096, READS = 2048, WRITES = 8192 };

static char server[512], options[512], share[64];

static void end(void)
{
    tcdrain(1);
    sync();
    reboot(RB_POWER_OFF);
    _exit(1);
}

static void fail(const char *what)
{
    printf("fail %s: %s\n", what, strerror(errno));
    end();
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static const char *prefix = "";

static void row(const char *name, double start)
{
    printf("row %s%s %.4f\n", prefix, name, now() - start);
}

static void forget(void)
{
    int fd;

    sync();
    fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd < 0 || write(fd, "3", 1) != 1)
        fail("drop_caches");
    close(fd);
}

/* The value of word= on the kernel's command line. */
static void parameter(const char *word, char *value, size_t size)
{
    static char line[4096];
    FILE *f = fopen("/proc/cmdline", "r");
    char *p;

    if (!f || !fgets(line, sizeof(line), f))
        fail("cmdline");
    fclose(f);
    p = strstr(line, word);
    if (!p)
        fail(word);
    p += strlen(word);
    p[strcspn(p, " \n")] = 0;
    snprintf(value, size, "%s", p);
}

static void mount_again(const char *where, unsigned size)
{
    char text[1200], address[64];

    snprintf(address, sizeof(address), "%.*s", (int)strcspn(server, ":"), server);
    snprintf(text, sizeof(text), "vers=3,nolock,nosharecache,addr=%s,rsize=%u,wsize=%u,%s", address, size, size, options);
    mkdir(where, 0755);
    if (mount(server, where, "nfs", 0, text))
        fail(where);
}

static void mount_share(const char *tag)
{
    mkdir("/mnt/9p", 0755);
    if (mount(tag, "/mnt/9p", "9p", 0, "trans=virtio,version=9p2000.L,msize=512000,cache=mmap"))
        fail("9p");
}

static void name_row(char *out, const char *what, unsigned size)
{
    sprintf(out, "%s-%uK", what, size >> 10);
}

static void stream_rows(const char *folder, unsigned size)
{
    static char buffer[CHUNK];
    char path[256], name[64];
    double start;
    int fd;

    memset(buffer, 'a', sizeof(buffer));
    snprintf(path, sizeof(path), "%s/tmp/stream", folder);
    unlink(path);
    start = now();
    fd = open(path, O_CREAT | O_RDWR, 0644);
    for (unsigned i = 0; i < FILE_BYTES / CHUNK; i++)
        if (write(fd, buffer, CHUNK) != CHUNK)
            fail("write");
    if (fsync(fd) || close(fd))
        fail("fsync");
    name_row(name, "write", size);
    row(name, start);
    forget();
    start = now();
    fd = open(path, O_RDONLY);
    for (unsigned i = 0; i < FILE_BYTES / CHUNK; i++)
        if (read(fd, buffer, CHUNK) != CHUNK || buffer[1] != 'a')
            fail("read");
    close(fd);
    name_row(name, "read", size);
    row(name, start);
}

static unsigned random_number(void)
{
    static unsigned long long s = 88172645463325252ull;

    s ^= s << 13;
    s ^= s >> 7;
    s ^= s << 17;
    return (unsigned)(s >> 16);
}

static void random_rows(const char *folder)
{
    static char buffer[SMALL] __attribute__((aligned(4096)));
    char path[256];
    double start;
    int fd;

    snprintf(path, sizeof(path), "%s/tmp/stream", folder);
    forget();
    start = now();
    fd = open(path, O_RDONLY | O_DIRECT);
    for (unsigned i = 0; i < READS; i++)
        if (pread(fd, buffer, SMALL, (off_t)(random_number() % (FILE_BYTES / SMALL)) * SMALL) != SMALL)
            fail("random read");
    close(fd);
    row("random-read-4K", start);
    start = now();
    fd = open(path, O_RDWR);
    for (unsigned i = 0; i < WRITES; i++)
        if (pwrite(fd, buffer, SMALL, (off_t)(random_number() % (FILE_BYTES / SMALL)) * SMALL) != SMALL)
            fail("random write");
    if (fsync(fd) || close(fd))
        fail("fsync");
    row("random-write-4K", start);
    unlink(path);
}

static void command_row(const char *name, const char *command)
{
    char *const argv[] = {"sh", "-c", (char *)command, NULL};
    char *const env[] = {"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/tmp", "GIT_OPTIONAL_LOCKS=0", NULL};
    double start;
    int status;
    pid_t pid;

    forget();
    start = now();
    pid = fork();
    if (!pid) {
        execve("/bin/sh", argv, env);
        _exit(127);
    }
    if (waitpid(pid, &status, 0) != pid || status)
        fail(name);
    row(name, start);
}

static void file_rows(const char *top)
{
    char command[512];

    sprintf(command, "find %s/ -xdev > /dev/null", top);
    command_row("find", command);
    sprintf(command, "cd %s/ && rm -rf tmp/untar && mkdir tmp/untar && tar -xf data/headers.tar -C tmp/untar && sync",
            top);
    command_row("untar", command);
    sprintf(command, "git -c safe.directory=* -C %s/data/repository status --short > /tmp/status", top);
    if (!access("/usr/bin/git", X_OK))
        command_row("git-status", command);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    parameter("server=", server, sizeof(server));
    parameter("mountopts=", options, sizeof(options));
    parameter("share=", share, sizeof(share));
    mount_again("/mnt/large", 1 << 20);
    mount_again("/mnt/small", 4096);
    stream_rows("/mnt/large", 1 << 20);
    stream_rows("/mnt/small", 4096);
    stream_rows("/mnt/large", 1 << 20);
    random_rows("/mnt/large");
    file_rows("");
    if (!access("/usr/bin/iperf3", X_OK)) {
        command_row("net-out", "iperf3 -c 10.0.2.2 -p 5301 -n 512M > /dev/null");
        command_row("net-back", "iperf3 -c 10.0.2.2 -p 5301 -n 512M -R > /dev/null");
    }
    if (share[0]) {
        prefix = "9p-";
        mount_share(share);
        stream_rows("/mnt/9p", 512 << 10);
        random_rows("/mnt/9p");
        file_rows("/mnt/9p");
    }
    puts("done");
    end();
}
