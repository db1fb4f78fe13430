/*
 * The host's side of guest RAM: anonymous, unreserved, demand-zero.
 *
 * Left out: files, shared memory, NUMA, locking.  Transparent huge pages are declined: a guest that touches one page
 * of each 2 MiB would otherwise cost the host all of them.
 * Threads: stateless.
 */
#include "mem/ram.h"

#include <sys/mman.h>

#include "base/report.h"

void *ram_map(size_t size)
{
    void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

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
