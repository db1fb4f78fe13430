/*
 * Host memory that costs only what is touched.  Both mappings read as zero until written.
 */
#ifndef ARMLET_MEM_RAM_H
#define ARMLET_MEM_RAM_H

#include <stdbool.h>
#include <stddef.h>

enum { RAM_HUGE = 2 << 20 };

/* From RAM_HUGE on aligned to that.  size bytes, page-aligned, demand-zero; NULL with errno when the host refuses.  Free with ram_unmap(). */
void *ram_map(size_t size);
void ram_unmap(void *host, size_t size);
/* Back to zero, and the host's pages given back; the range is page-aligned and stays mapped. */
void ram_discard(void *host, size_t size);
/*
 * RAM_HUGE bytes (aligned) become one page of the host, if most of them have been touched and the host can.  Takes as long as
 * copying them.  Any thread, others may use the memory meanwhile.
 */
bool ram_gather(void *host);

#endif
