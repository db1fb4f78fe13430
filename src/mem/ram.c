/*
 * The host's side of guest RAM: anonymous, unreserved, demand-zero.
 *
 * Large pages of the host are asked for, and RAM lies on a boundary of them: a kernel keeps what it uses together, so that
 * a boot takes a few MiB more than with small ones, but a third of the faults; and a host that is itself virtual pays
 * dearly for a miss of its TLB.
 *
 * Left out: files, shared memory, NUMA, locking.
 * Threads: stateless.
 */
#include "mem/ram.h"

#include <stdint.h>
#include <sys/mman.h>

#include "base/report.h"

enum { LARGE = 2 << 20, SMALL = 4096 };

static void *map(size_t size)
{
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* On a boundary of large pages. */
static void *map_aligned(size_t size)
{
    uint8_t *host = map(size + LARGE), *start;

    if (host == MAP_FAILED)
        return MAP_FAILED;
    start = host + (-(uintptr_t)host & (LARGE - 1));
    if (start > host)
        ram_unmap(host, (size_t)(start - host));
    ram_unmap(start + size, (size_t)(host + LARGE - start));
    return start;
}

void *ram_map(size_t size, bool dense)
{
    bool large = dense && size >= LARGE && size % SMALL == 0;
    void *host = large ? map_aligned(size) : map(size);

    if (host == MAP_FAILED)
        return NULL;
    /* Advice only: a host without large pages answers EINVAL. */
    (void)madvise(host, size, large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
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
