/*
 * Host memory that costs only what is touched.  Both mappings read as zero until written.
 */
#ifndef ARMLET_MEM_RAM_H
#define ARMLET_MEM_RAM_H

#include <stdbool.h>
#include <stddef.h>

/*
 * size bytes, page-aligned, demand-zero; NULL with errno when the host refuses.  Free with ram_unmap().  dense: what is
 * touched lies together, so that large pages of the host are worth their memory.
 */
void *ram_map(size_t size, bool dense);
void ram_unmap(void *host, size_t size);
/* Back to zero, and the host's pages given back; the range is page-aligned and stays mapped. */
void ram_discard(void *host, size_t size);

#endif
