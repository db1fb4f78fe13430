/* What goes through the kernel: system calls, page faults, processes, signals, changes of the page tables. */
#define _GNU_SOURCE
#include "row.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, FAULT_PAGES = 256, PROT_PAGES = 16 };

static uint64_t run_getppid(unsigned long n)
{
    uint64_t sum = 0;

    while (n--)
        sum += syscall(SYS_getppid) >= 0;
    return sum;
}

/* A page a time: fault, clear, unmap. */
static uint64_t run_fault(unsigned long n)
{
    uint64_t sum = 0;

    while (n--) {
        volatile char *p = row_alloc((unsigned long)FAULT_PAGES * PAGE, 0);

        for (unsigned i = 0; i < FAULT_PAGES; i++) {
            p[i * PAGE] = (char)i;
            sum += (uint64_t)p[i * PAGE + 1];
        }
        munmap((void *)p, (size_t)FAULT_PAGES * PAGE);
    }
    return sum;
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* A byte there and back; `away' is the other process's CPU. */
static uint64_t ping_pong(unsigned long n, int away)
{
    int there[2], back[2];
    uint64_t sum = 0;
    char byte = 1;
    pid_t pid;

    row_need(!pipe(there) && !pipe(back), "pipe");
    pid = fork();
    row_need(pid >= 0, "fork");
    pin(pid ? 0 : away);
    if (!pid) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
            ;
        _exit(0);
    }
    for (unsigned long i = 0; i < n; i++) {
        row_need(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1, "ping-pong");
        sum += (uint64_t)byte;
    }
    close(there[1]);
    waitpid(pid, NULL, 0);
    return sum;
}

static uint64_t run_pipe(unsigned long n) { return ping_pong(n, 0); }
static uint64_t run_pipe2(unsigned long n) { return ping_pong(n, 1); }

/* Two processes that yield to each other on one CPU. */
static uint64_t run_yield(unsigned long n)
{
    pid_t pid;

    pin(0);
    pid = fork();
    row_need(pid >= 0, "fork");
    for (unsigned long i = 0; i < n; i++)
        sched_yield();
    if (!pid)
        _exit(0);
    waitpid(pid, NULL, 0);
    return n;
}

static uint64_t run_fork(unsigned long n)
{
    uint64_t sum = 0;

    while (n--) {
        int status;
        pid_t pid = fork();

        row_need(pid >= 0, "fork");
        if (!pid)
            _exit(7);
        waitpid(pid, &status, 0);
        sum += WEXITSTATUS(status);
    }
    return sum;
}

static uint64_t run_exec(unsigned long n)
{
    uint64_t sum = 0;

    while (n--) {
        int status;
        pid_t pid = fork();

        row_need(pid >= 0, "fork");
        if (!pid) {
            execl("/proc/self/exe", "rows", "--exit", (char *)NULL);
            _exit(9);
        }
        waitpid(pid, &status, 0);
        sum += WEXITSTATUS(status);
    }
    return sum;
}

/* Take write permission away and give it back; the pages stay in use: every change costs an invalidation. */
static uint64_t run_mprotect(unsigned long n)
{
    volatile char *p = row_alloc((unsigned long)PROT_PAGES * PAGE, 0);
    uint64_t sum = 0;

    for (unsigned long i = 0; i < n; i++) {
        mprotect((void *)p, (size_t)PROT_PAGES * PAGE, PROT_READ);
        for (unsigned k = 0; k < PROT_PAGES; k++)
            sum += (uint64_t)p[k * PAGE];
        mprotect((void *)p, (size_t)PROT_PAGES * PAGE, PROT_READ | PROT_WRITE);
        for (unsigned k = 0; k < PROT_PAGES; k++)
            p[k * PAGE]++;
    }
    return sum;
}

static volatile uint64_t caught;

static void on_signal(int sig)
{
    caught += (uint64_t)sig;
}

static uint64_t run_signal(unsigned long n)
{
    struct sigaction act = {.sa_handler = on_signal};

    sigaction(SIGUSR1, &act, NULL);
    while (n--)
        raise(SIGUSR1);
    return caught;
}

/* Stores to a page without permission, repaired by the handler: what garbage collectors do. */

static char *guarded;

static void on_fault(int sig)
{
    caught += (uint64_t)sig;
    mprotect(guarded, PAGE, PROT_READ | PROT_WRITE);
}

static uint64_t run_sigsegv(unsigned long n)
{
    struct sigaction act = {.sa_handler = on_fault};

    guarded = row_alloc(PAGE, 0);
    sigaction(SIGSEGV, &act, NULL);
    while (n--) {
        mprotect(guarded, PAGE, PROT_READ);
        *(volatile char *)guarded = 1;
    }
    return caught;
}

const struct row rows_os[] = {
    {"getppid", 100000, run_getppid, NULL},
    {"fault", 150, run_fault, NULL},
    {"pipe", 8000, run_pipe, NULL},
    {"yield", 20000, run_yield, NULL},
    {"fork", 800, run_fork, NULL},
    {"exec", 300, run_exec, NULL},
    {"mprotect", 15000, run_mprotect, NULL},
    {"signal", 20000, run_signal, NULL},
    {"sigsegv", 12000, run_sigsegv, NULL},
    {"smp2-pipe", 1000, run_pipe2, NULL},
    {0},
};
