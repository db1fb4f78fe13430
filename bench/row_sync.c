/* Atomic operations and locks, and how late timers are. */
#define _GNU_SOURCE
#include "row.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static uint64_t counter;
static volatile char lock_byte;

static uint64_t run_atomic(unsigned long n)
{
    for (unsigned long i = 0; i < n; i++) {
        uint64_t old = __atomic_fetch_add(&counter, i, __ATOMIC_RELAXED);

        __atomic_compare_exchange_n(&counter, &old, old ^ i, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
        __atomic_or_fetch(&counter, 1, __ATOMIC_ACQ_REL);
        if (!__atomic_test_and_set(&lock_byte, __ATOMIC_ACQUIRE))
            __atomic_clear(&lock_byte, __ATOMIC_RELEASE);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    return counter;
}

static uint64_t run_mutex(unsigned long n)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

    while (n--) {
        pthread_mutex_lock(&mutex);
        counter += n;
        pthread_mutex_unlock(&mutex);
    }
    return counter;
}

/* Two threads on two CPUs, one counter, one lock. */

static unsigned long contended_n;

static void *contend(void *opaque)
{
    for (unsigned long i = 0; i < contended_n; i++) {
        while (__atomic_test_and_set(&lock_byte, __ATOMIC_ACQUIRE))
            if (!(i & 63))
                sched_yield();
        *(uint64_t *)opaque += 1;
        __atomic_clear(&lock_byte, __ATOMIC_RELEASE);
        __atomic_fetch_add(&counter, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static uint64_t run_contended(unsigned long n)
{
    uint64_t guarded = 0;
    pthread_t other;

    contended_n = n;
    row_need(!pthread_create(&other, NULL, contend, &guarded), "thread");
    contend(&guarded);
    pthread_join(other, NULL);
    return guarded == 2 * n && counter == 2 * n;
}

/* How much later than asked, the median; the wait itself does not count. */

enum { TIMES = 200 };
static double late[TIMES];

static int order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static uint64_t report_late(unsigned long n)
{
    qsort(late, n, sizeof *late, order);
    row_set_seconds(late[n / 2] * (double)n);
    return 0;
}

static uint64_t run_nanosleep(unsigned long n)
{
    for (unsigned long i = 0; i < n; i++) {
        struct timespec wait = {0, 1000000};
        double t = row_now();

        nanosleep(&wait, NULL);
        late[i] = row_now() - t - 1e-3;
    }
    return report_late(n);
}

static uint64_t run_timerfd(unsigned long n)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);

    row_need(fd >= 0, "timerfd");
    for (unsigned long i = 0; i < n; i++) {
        struct itimerspec wait = {.it_value = {0, 1000000}};
        uint64_t expired;
        double t = row_now();

        row_need(!timerfd_settime(fd, 0, &wait, NULL) && read(fd, &expired, sizeof expired) == sizeof expired,
                 "timerfd");
        late[i] = row_now() - t - 1e-3;
    }
    close(fd);
    return report_late(n);
}

const struct row rows_sync[] = {
    {"atomic", 5000000, run_atomic, NULL},
    {"mutex", 10000000, run_mutex, NULL},
    {"late-nanosleep", TIMES, run_nanosleep, NULL},
    {"late-timerfd", TIMES, run_timerfd, NULL},
    {"smp2-lock", 2000000, run_contended, NULL},
    {0},
};
