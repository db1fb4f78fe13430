/*
 * Init that runs the programs of /jobs, a line each: NAME SECONDS COMMAND ARGUMENT...  A job runs in the folder of its
 * command, in a session of its own and with what it prints caught; what it leaves running is killed.  For each one
 *
 *     @NAME STATUS        exit status, or `signal N', or `timeout'
 *
 * is printed, after the end of its output (`| ' before each line) when the status is neither 0 nor 4 (a skip, as
 * the kernel's tests say it), or always when the init is called with `-v'.  `@@end' is the last line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WORDS = 64, SKIPPED = 4 };
enum { KEPT = 16384 };

static char kept[2 * KEPT + 1];
static size_t kept_bytes;

static void keep(int fd)
{
    ssize_t n = read(fd, kept + kept_bytes, 2 * KEPT - kept_bytes);

    if (n <= 0)
        return;
    kept_bytes += (size_t)n;
    if (kept_bytes == 2 * KEPT) {
        memmove(kept, kept + KEPT, KEPT);
        kept_bytes = KEPT;
    }
}

static void show(void)
{
    kept[kept_bytes] = 0;
    for (char *line = strtok(kept, "\n"); line; line = strtok(NULL, "\n"))
        printf("| %s\n", line);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void become(char **argv, int out)
{
    char *slash = strrchr(argv[0], '/'), *program = argv[0];

    setsid();
    dup2(out, 1);
    dup2(out, 2);
    signal(SIGCHLD, SIG_DFL);
    if (slash && slash != argv[0]) {
        *slash = 0;
        if (chdir(argv[0]))
            perror(argv[0]);
        *slash = '/';
    }
    execv(program, argv);
    perror(program);
    _exit(127);
}

/* The status as waitpid() gives it, or -1 after too long. */
static int wait_for(pid_t pid, int fd, double seconds)
{
    double end = now() + seconds;
    int status;

    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        pid_t got = waitpid(-1, &status, WNOHANG);

        if (got == pid)
            return status;
        if (got > 0)
            continue;
        if (now() > end)
            return -1;
        if (poll(&p, 1, 20) > 0 && (p.revents & POLLIN))
            keep(fd);
        else if (p.revents & (POLLHUP | POLLERR))
            usleep(10000); /* it has closed its output and goes on */
    }
}

static void tell(const char *name, int status)
{
    if (status < 0)
        printf("@%s timeout\n", name);
    else if (WIFSIGNALED(status))
        printf("@%s signal %d\n", name, WTERMSIG(status));
    else
        printf("@%s %d\n", name, WEXITSTATUS(status));
}

static void run(const char *name, double seconds, char **argv, bool verbose)
{
    int fd[2], status;
    pid_t pid;

    kept_bytes = 0;
    if (pipe2(fd, O_CLOEXEC) || fcntl(fd[0], F_SETFL, O_NONBLOCK) || (pid = fork()) < 0) {
        printf("@%s cannot be run: %s\n", name, strerror(errno));
        return;
    }
    if (pid == 0)
        become(argv, fd[1]);
    close(fd[1]);
    status = wait_for(pid, fd[0], seconds);
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    for (int i = 0; i < 64; i++)
        keep(fd[0]);
    close(fd[0]);
    if (verbose || (status && !(status > 0 && WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)))
        show();
    tell(name, status);
}

static void run_line(char *line, bool verbose)
{
    char *argv[MAX_WORDS + 1], *name = strtok(line, " \n"), *seconds = strtok(NULL, " \n");
    int n = 0;

    while (n < MAX_WORDS && (argv[n] = strtok(NULL, " \n")))
        n++;
    argv[n] = NULL;
    if (n)
        run(name, atof(seconds), argv, verbose);
}

static void mount_all(void)
{
    static const struct { const char *type, *on; } fs[] = {
        { "proc", "/proc" }, { "sysfs", "/sys" }, { "devtmpfs", "/dev" }, { "devpts", "/dev/pts" },
        { "tmpfs", "/dev/shm" }, { "tmpfs", "/tmp" }, { "tmpfs", "/run" }, { "mqueue", "/dev/mqueue" },
        { "debugfs", "/sys/kernel/debug" }, { "tracefs", "/sys/kernel/tracing" },
    };

    for (size_t i = 0; i < sizeof fs / sizeof fs[0]; i++) {
        mkdir(fs[i].on, 0755);
        if (mount(fs[i].type, fs[i].on, fs[i].type, 0, NULL) && errno != ENODEV && errno != EBUSY)
            printf("| mount %s: %s\n", fs[i].on, strerror(errno));
    }
    symlink("/proc/self/fd", "/dev/fd");
}

/* Linux gives it its address then. */
static void start_loopback(void)
{
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (s < 0 || ioctl(s, SIOCSIFFLAGS, &request))
        perror("| lo");
    close(s);
}

int main(int argc, char **argv)
{
    bool verbose = argc > 1 && !strcmp(argv[1], "-v");
    FILE *jobs = fopen("/jobs", "re");
    char line[4096];

    setvbuf(stdout, NULL, _IOLBF, 0);
    setenv("PATH", "/bin:/usr/bin:/sbin:/usr/sbin", 1);
    setenv("HOME", "/tmp", 1);
    setenv("LC_ALL", "C", 1);
    mount_all();
    start_loopback();
    while (jobs && fgets(line, sizeof line, jobs))
        run_line(line, verbose);
    printf("@@end\n");
    fflush(stdout);
    if (getpid() == 1)
        reboot(RB_POWER_OFF);
    return 0;
}
