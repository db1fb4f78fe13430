/*
 * See scout.h.  In the child only this thread lives on; what others held does not matter to it: it makes a cluster of its
 * own over the memory that it has inherited, has no open file but its end of the pipe, and never returns.
 */
#include "debug/scout.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpu/cluster.h"
#include "kernel/kernel.h"

enum { WAIT_MS = 5000, STEP_US = 1000, CHILD_SECONDS = 20, SETTLED_INSNS = 2000000 };

struct scout {
    pid_t pid;
    int fd;
    bool done, found;
    uint64_t text_va;
};

/* --- the child ----------------------------------------------------------------------------------------------- */

static void leave_everything(int fd)
{
    static const int signals[] = { SIGTERM, SIGHUP, SIGINT, SIGPIPE, SIGALRM };
    int null = open("/dev/null", O_RDWR);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], SIG_DFL);
    for (int i = 0; i < 3 && null >= 0; i++)
        dup2(null, i);
    dup2(fd, 3);
    close_range(4, ~0u, 0);
    alarm(CHILD_SECONDS);
}

static void copy_state(struct cpu *to, const struct cpu *from)
{
    to->sys = from->sys;
    cpu_set_pstate(to, cpu_pstate(from));
    memcpy(to->x, from->x, sizeof to->x);
    memcpy(to->sp_el, from->sp_el, sizeof to->sp_el);
    to->pc = to->next_pc = from->pc;
    cpu_refresh(to);
}

/* Runs until the kernel has its vectors at its virtual address, and a while longer: it may start over elsewhere. */
static bool run_ahead(struct cluster *cl)
{
    uint64_t since = 0;

    for (unsigned ms = 0; ms < CHILD_SECONDS * 1000; ms++) {
        cluster_resume(cl);
        g_usleep(STEP_US);
        cluster_pause(cl);
        uint64_t now = cl->cpu[0]->icount;
        if (!(cl->cpu[0]->sys.vbar_el1 >> 63))
            since = now;
        else if (now - since > SETTLED_INSNS)
            return true;
    }
    return false;
}

G_NORETURN static void child(const struct cluster *of, const struct kernel_place *image)
{
    const struct cpu *cpu = of->cpu[0];
    struct cluster *cl = cluster_new(1, cpu->mem, cpu->model, &interp_engine);
    struct kernel_place place;

    cluster_start(cl, cpu->pc, cpu->x[0], true);
    copy_state(cl->cpu[0], cpu);
    struct kernel *k = kernel_new(cl);
    kernel_set_image(k, image->text_pa, image->size);
    if (run_ahead(cl) && kernel_where(k, &place) && write(3, &place.text_va, sizeof place.text_va) < 0)
        _exit(1);
    _exit(0);
}

/* --- the parent ------------------------------------------------------------------------------------------------ */

struct scout *scout_send(struct cluster *cluster, struct kernel *kernel)
{
    struct kernel_place image;
    int fds[2];

    if (kernel_is_relocated(kernel) || !kernel_where(kernel, &image) || pipe2(fds, O_CLOEXEC))
        return NULL;
    pid_t pid = fork();
    if (!pid) {
        leave_everything(fds[1]);
        child(cluster, &image);
    }
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return NULL;
    }
    struct scout *s = g_new0(struct scout, 1);
    s->pid = pid;
    s->fd = fds[0];
    return s;
}

static void reap(struct scout *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
        while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    s->pid = 0;
}

bool scout_result(struct scout *s, uint64_t *text_va)
{
    struct pollfd p = { .fd = s->fd, .events = POLLIN };

    if (!s->done && poll(&p, 1, WAIT_MS) > 0)
        s->found = read(s->fd, &s->text_va, sizeof s->text_va) == (ssize_t)sizeof s->text_va;
    if (!s->done)
        reap(s);
    s->done = true;
    *text_va = s->text_va;
    return s->found;
}

void scout_free(struct scout *s)
{
    if (!s)
        return;
    reap(s);
    close(s->fd);
    g_free(s);
}
