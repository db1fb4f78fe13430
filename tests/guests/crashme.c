/*
 * Init that does what no sane program does, for argv[1] seconds with seed argv[2]: executes random words, rewrites its own
 * code, jumps to addresses that are misaligned, unmapped, not executable or a device's, faults inside of fault handlers,
 * and runs more code than any cache holds.  What the architecture (or Linux) promises is checked; of random words it is
 * only asked that the system lives.  Prints `PASS what' or `FAIL what', counts, and `N passed, M failed'.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, RET = (int)0xd65f03c0 };

static unsigned passed, failed;
static uint64_t state;
static sigjmp_buf back;
static volatile sig_atomic_t last_signal;
static volatile uintptr_t last_address;

static uint32_t rnd(void)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 32);
}

static void verdict(bool ok, const char *what)
{
    printf("%s %s\n", ok ? "PASS" : "FAIL", what);
    if (ok)
        passed++;
    else
        failed++;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t *code_pages(size_t bytes, int prot)
{
    void *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

static void flush(void *p, size_t bytes)
{
    __builtin___clear_cache((char *)p, (char *)p + bytes);
}

/* --- signals ------------------------------------------------------------------------------------------------- */

static void on_signal(int sig, siginfo_t *info, void *context)
{
    (void)context;
    last_signal = sig;
    last_address = (uintptr_t)info->si_addr;
    siglongjmp(back, 1);
}

static void catch_all(void)
{
    static const int all[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGALRM };
    struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
    static char stack[65536];
    stack_t alt = { .ss_sp = stack, .ss_size = sizeof stack };

    sigaltstack(&alt, NULL);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        sigaction(all[i], &sa, NULL);
}

/* The signal that a call of the address ends in; 0: it came back. */
static int call(uintptr_t at)
{
    last_signal = 0;
    if (!sigsetjmp(back, 1))
        ((void (*)(void))at)();
    return last_signal;
}

/* --- random words ---------------------------------------------------------------------------------------------- */

/* Half of them near a common encoding, so that not all are UNDEFINED. */
static uint32_t random_word(void)
{
    static const uint32_t common[] = {
        0x91000000, 0xd1000000, 0x8b000000, 0xf9400000, 0xf9000000, 0xa9400000, 0xa9000000, 0x54000000, 0x14000000, 0x97ffffff,
        0xd61f0000, 0xd63f0000, 0xd65f0000, 0x34000000, 0x36000000, 0x1e602800, 0x4e200400, 0x4c407000, 0x9b007c00, 0xc85f7c00,
        0xc8007c00, 0xf8200000, 0xd53be000, 0xd51be000, 0xd4200000, 0xd5033f9f, 0xd50b7520, 0xd50b7a20, 0xd5087600, 0x3d800000,
        0x9ac00800, 0xd3400000, 0x1a800000, 0x0e000000, 0x5e000000, 0x6e000000, 0x38400000, 0x78000000, 0x18000000, 0x10000000 };
    uint32_t w = rnd();

    if (w & 1)
        return rnd();
    return common[(w >> 1) % (sizeof common / sizeof common[0])] ^ (rnd() & rnd() & rnd());
}

/* Random SVCs get an error, whatever they ask; signals, time and the end still work. */
static void no_system_calls(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 5, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigprocmask, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setitimer, 3, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 1, 0), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
    struct sock_fprog prog = { .len = sizeof filter / sizeof filter[0], .filter = filter };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
        _exit(3);
}

enum { ROUNDS = 400 };

static _Noreturn void random_child(uint64_t seed, int out)
{
    enum { WORDS = PAGE / 4 };
    uint32_t *page = code_pages(2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    struct itimerval tick = { .it_value = { 0, 5000 } };
    unsigned counts[65] = { 0 };

    state = seed;
    close(STDOUT_FILENO); /* random words find their way into verdict() */
    catch_all();
    no_system_calls();
    for (unsigned i = 0; i < ROUNDS; i++) {
        for (unsigned j = 0; j < 2 * WORDS; j++)
            page[j] = random_word();
        if (i & 1)
            flush(page, 2 * PAGE);
        setitimer(ITIMER_REAL, &tick, NULL);
        counts[call((uintptr_t)(page + rnd() % WORDS)) & 63]++;
    }
    if (write(out, counts, sizeof counts) < 0)
        _exit(4);
    _exit(0);
}

static void random_words(double seconds, uint64_t seed)
{
    enum { PATIENCE = 20 }; /* children, where the host is so busy that none comes to its end in time */
    unsigned total[65] = { 0 }, children = 0, whole = 0;
    double end = now() + seconds;

    while (now() < end || (!whole && children < PATIENCE)) {
        int fd[2], status, waited = 0;
        unsigned counts[65];
        if (pipe(fd)) {
            perror("pipe");
            break;
        }
        pid_t pid = fork();
        if (pid == 0)
            random_child(seed + children, fd[1]);
        close(fd[1]);
        /* It may have overwritten what ends its rounds. */
        while (waitpid(pid, &status, WNOHANG) == 0 && waited++ < 300)
            usleep(10000);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        if (read(fd[0], counts, sizeof counts) == sizeof counts) {
            for (unsigned i = 0; i < 65; i++)
                total[i] += counts[i] <= ROUNDS ? counts[i] : 0; /* random code may have counted too */
            whole++;
        }
        close(fd[0]);
        children++;
    }
    printf("%u children, %u to the end; rounds that returned %u, SIGILL %u, SIGTRAP %u, SIGBUS %u, SIGSEGV %u, SIGALRM %u\n",
           children, whole, total[0], total[SIGILL], total[SIGTRAP], total[SIGBUS], total[SIGSEGV], total[SIGALRM]);
    verdict(children && total[SIGILL] && total[SIGSEGV], "random words");
}

/* --- code that changes ------------------------------------------------------------------------------------------ */

static uint32_t movz(unsigned reg, uint32_t imm)
{
    return 0x52800000 | (imm & 0xffff) << 5 | reg;
}

static void rewritten(void)
{
    uint32_t *page = code_pages(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    unsigned (*fn)(void) = (unsigned (*)(void))(uintptr_t)page;
    bool ok = true, ok_without = true;
    unsigned last = 0;

    page[1] = (uint32_t)RET;
    for (unsigned i = 0; i < 20000 && ok; i++) {
        page[0] = movz(0, i);
        flush(page, 8);
        ok = fn() == (i & 0xffff);
    }
    verdict(ok, "rewritten code with IC IVAU runs as written");
    last = fn();
    for (unsigned i = 0; i < 20000 && ok_without; i++) { /* old or new, and never anything else */
        unsigned before = last;
        page[0] = movz(0, i);
        unsigned got = fn();
        ok_without = got == i || got == before || got < i;
        last = got;
    }
    verdict(ok_without, "rewritten code without IC IVAU is old or new");
    page[0] = movz(0, 0x1234);
    flush(page, 8);
    verdict(fn() == 0x1234, "and new after IC IVAU");
    munmap(page, PAGE);
}

/* Code that writes its own next instruction: str w1, [x2]; dc cvau; dsb; ic ivau; dsb; isb; (rewritten) mov w0, #0; ret */
static void rewrites_itself(void)
{
    static const uint32_t words[] = { 0xb9000041, 0xd50b7b22, 0xd5033b9f, 0xd50b7522, 0xd5033b9f, 0xd5033fdf, 0x52800000,
                                      (uint32_t)RET };
    uint32_t *page = code_pages(2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    bool ok = true;

    for (unsigned at = 0; at < 2 * PAGE / 4 - 8; at += 509) /* also across the page boundary */
        for (unsigned i = 1; i < 2000 && ok; i++) {
            unsigned where = i & 1 ? at : PAGE / 4 - 3;
            memcpy(page + where, words, sizeof words);
            flush(page + where, sizeof words);
            unsigned (*fn)(int, uint32_t, uint32_t *) = (unsigned (*)(int, uint32_t, uint32_t *))(uintptr_t)(page + where);
            ok = fn(0, movz(0, i), page + where + 6) == i;
        }
    verdict(ok, "code that rewrites its next instruction");
    munmap(page, 2 * PAGE);
}

/* One physical page at two addresses, written at the one and executed at the other. */
static void aliased(void)
{
    int fd = memfd_create("code", 0);
    bool ok = fd >= 0 && !ftruncate(fd, PAGE);
    uint32_t *w = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint32_t *x = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);

    for (unsigned i = 0; i < 20000 && ok; i++) {
        unsigned at = i % 1000;
        w[at] = movz(0, i), w[at + 1] = (uint32_t)RET;
        flush(w + at, 8);
        flush(x + at, 8);
        ok = ((unsigned (*)(void))(uintptr_t)(x + at))() == (i & 0xffff);
    }
    verdict(ok, "written at one address, executed at another");
    close(fd);
}

/* --- where nothing can be executed ---------------------------------------------------------------------------------- */

static void bad_jumps(void)
{
    uint32_t *page = code_pages(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC), *data = code_pages(PAGE, PROT_READ | PROT_WRITE);
    bool ok = true, same = true;

    page[0] = (uint32_t)RET;
    data[0] = (uint32_t)RET;
    flush(page, 4);
    for (unsigned i = 0; i < 3000 && ok; i++) {
        uintptr_t hole = 0x10000 + (uintptr_t)(rnd() & 0xffff) * 4, high = UINT64_C(0xffff000000000000) + (uintptr_t)rnd() * 4;
        uintptr_t odd = (uintptr_t)page + 1 + rnd() % 3, no_bits = UINT64_C(0x00f0000000000000) | (uintptr_t)rnd();
        ok = call(hole) == SIGSEGV && (same &= last_address == hole, call(high) == SIGSEGV) && call(odd) == SIGBUS &&
             call((uintptr_t)data) == SIGSEGV && call(no_bits & ~UINT64_C(3)) == SIGSEGV && call((uintptr_t)page) == 0;
    }
    verdict(ok, "jumps to holes, kernel, misaligned, data and non-canonical addresses");
    verdict(same, "the fault address of a jump into a hole");
    mprotect(page, PAGE, PROT_NONE);
    verdict(call((uintptr_t)page) == SIGSEGV, "a page that was executed from and is no longer accessible");
    mprotect(page, PAGE, PROT_READ | PROT_EXEC);
    verdict(call((uintptr_t)page) == 0, "and that is again");
    munmap(page, PAGE);
    verdict(call((uintptr_t)page) == SIGSEGV, "and that is unmapped");
}

/*
 * A jump to a device's registers, as far as the kernel lets us map them.  Linux maps them without execution whatever was
 * asked for, and takes the fault for a spurious one, for ever.
 */
static void device_jump(void)
{
    int fd = open("/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC);
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0x0c000000);

    if (p == MAP_FAILED) {
        printf("no /dev/mem: %s\n", strerror(errno));
        return;
    }
    setitimer(ITIMER_REAL, &(struct itimerval){ .it_value = { 0, 300000 } }, NULL);
    int got = call((uintptr_t)p);
    setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 0 }, { 0, 0 } }, NULL);
    verdict(got == SIGSEGV || got == SIGBUS || got == SIGILL || got == SIGALRM, "a jump to where a device could be");
    close(fd);
}

/* --- faults inside of fault handlers --------------------------------------------------------------------------------- */

static int *volatile nowhere = NULL;
static volatile unsigned depth;
static sigjmp_buf out_of_depth;

static void nested(int sig)
{
    (void)sig;
    if (++depth == 10000)
        siglongjmp(out_of_depth, 1);
    *nowhere = 1;
}

/*
 * What a translator keeps of a page that is gone must not be found by an address that no page has: those near where it was in
 * a table of any size, and what an empty place may be marked with.
 */
static void pages_that_are_gone(void)
{
    static const uint64_t no_page[] = { UINT64_C(0xff0f0f0f0f0f0000), UINT64_C(0xfffffffffffff000), UINT64_C(0x00ff000000000000),
                                        UINT64_C(0x0f0f0f0f0f0f0000), UINT64_C(0x8000000000000000), UINT64_C(0xdeadbeefdeadb000) };
    bool ok = true;

    for (unsigned n = 0; n < 40 * sizeof no_page / sizeof no_page[0]; n++) {
        uint64_t va = no_page[n % (sizeof no_page / sizeof no_page[0])];
        uintptr_t at = 0x5400000000 + (va & 0x3fff000); /* the same place in tables of up to 16,384 pages */
        volatile char *p = mmap((void *)at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        p[0] = 1;
        munmap((void *)at, PAGE);
        last_signal = 0;
        if (!sigsetjmp(back, 1))
            (void)*(volatile uint64_t *)va;
        ok &= last_signal == SIGSEGV || last_signal == SIGBUS;
    }
    verdict(ok, "addresses without a page, where pages were that are gone");
}

static void nested_faults(void)
{
    enum { STACK = 128 << 20 };
    struct sigaction sa = { .sa_handler = nested, .sa_flags = SA_NODEFER | SA_ONSTACK };
    void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    stack_t alt = { .ss_sp = stack, .ss_size = STACK };

    sigaltstack(&alt, NULL);
    sigaction(SIGSEGV, &sa, NULL);
    if (!sigsetjmp(out_of_depth, 1))
        *nowhere = 1;
    verdict(depth == 10000, "ten thousand nested faults");
    catch_all();
    munmap(stack, STACK);
}

/* --- more code than fits ------------------------------------------------------------------------------------------------ */

/* add x0, x0, #1 or #2, six of them and a return, each function at its own place. */
static void much_code(size_t bytes)
{
    enum { WORDS = 8 };
    size_t n = bytes / (WORDS * 4);
    uint32_t *p = code_pages(bytes, PROT_READ | PROT_WRITE | PROT_EXEC);
    uint64_t sum = 0, expect = 0;

    for (size_t i = 0; i < n; i++) {
        for (unsigned j = 0; j < WORDS - 1; j++)
            p[i * WORDS + j] = 0x91000000 | (1 + (i + j) % 2) << 10;
        p[i * WORDS + WORDS - 1] = (uint32_t)RET;
    }
    flush(p, bytes);
    for (unsigned round = 0; round < 3; round++)
        for (size_t i = 0; i < n; i++) {
            size_t k = round == 1 ? n - 1 - i : i;
            sum = ((uint64_t (*)(uint64_t))(uintptr_t)(p + k * WORDS))(sum);
            expect += k % 2 ? 11 : 10;
        }
    verdict(sum == expect, "more code than the cache holds");
    munmap(p, bytes);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 5;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

    setvbuf(stdout, NULL, _IONBF, 0);
    state = seed;
    if (getpid() == 1) {
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
        mkdir("/proc", 0755);
        mount("proc", "/proc", "proc", 0, NULL);
    }
    catch_all();
    rewritten();
    rewrites_itself();
    aliased();
    bad_jumps();
    device_jump();
    pages_that_are_gone();
    nested_faults();
    much_code(argc > 3 ? (size_t)atoi(argv[3]) << 20 : 4 << 20);
    random_words(seconds, seed);
    printf("%u passed, %u failed\n", passed, failed);
    if (getpid() == 1)
        reboot(RB_POWER_OFF);
    return failed != 0;
}
