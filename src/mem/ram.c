/*
 * The host's side of guest RAM: anonymous, unreserved, demand-zero.
 *
 * Transparent huge pages are declined at first: a guest that touches one page of each 2 MiB would otherwise cost the host
 * all of them.  Where nearly all of 2 MiB is there and in use, ram_gather() makes one page of it: a host that is itself
 * virtual pays dearly for a miss of its TLB.
 *
 * Left out: files, shared memory, NUMA, locking.
 * Threads: stateless, but that a host which cannot gather is asked once.
 */
#include "mem/ram.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/report.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* since Linux 6.1 */
#endif

enum { SMALL = 4096, MOST = RAM_HUGE / SMALL - 32 };

static void *map(size_t size)
{
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* On a boundary of huge pages. */
static uint8_t *map_aligned(size_t size)
{
    uint8_t *host = map(size + RAM_HUGE), *start;

    if (host == MAP_FAILED)
        return MAP_FAILED;
    start = host + (-(uintptr_t)host & (RAM_HUGE - 1));
    if (start > host)
        ram_unmap(host, (size_t)(start - host));
    ram_unmap(start + size, (size_t)(host + RAM_HUGE - start));
    return start;
}

void *ram_map(size_t size)
{
    void *host = size < RAM_HUGE || size % SMALL ? map(size) : map_aligned(size);

    if (host == MAP_FAILED)
        return NULL;
    /* Advice only: a host without THP answers EINVAL, and then there is nothing to decline. */
    (void)madvise(host, size, MADV_NOHUGEPAGE);
    return host;
}

void ram_unmap(void *host, size_t size)
{
    if (munmap(host, size))
        BUG("munmap of %zu bytes at %p", size, host);
}

void ram_discard(void *host, size_t size)
{
    if (madvise(host, size, MADV_DONTNEED))
        BUG("madvise of %zu bytes at %p", size, host);
}

static bool most_is_there(void *host)
{
    unsigned char there[RAM_HUGE / SMALL];
    unsigned n = 0;

    if (sysconf(_SC_PAGESIZE) != SMALL || mincore(host, RAM_HUGE, there))
        return false;
    for (unsigned i = 0; i < sizeof there; i++)
        n += there[i] & 1;
    return n >= MOST;
}

bool ram_gather(void *host)
{
    static atomic_bool cannot;

    if (atomic_load_explicit(&cannot, memory_order_relaxed) || !most_is_there(host))
        return false;
    if (madvise(host, RAM_HUGE, MADV_HUGEPAGE)) {
        atomic_store(&cannot, true);
        return false;
    }
    if (!madvise(host, RAM_HUGE, MADV_COLLAPSE))
        return true;
    if (errno == EINVAL)
        atomic_store(&cannot, true);
    (void)madvise(host, RAM_HUGE, MADV_NOHUGEPAGE); /* no memory in one piece, perhaps: as before, and later again */
    return false;
}
