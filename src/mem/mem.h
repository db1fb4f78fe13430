/*
 * Guest-physical space: one block of RAM, ROM-like blocks, and device regions.
 *
 * RAM is one anonymous MAP_NORESERVE mapping, so that it costs the host only what the guest touches.
 * The map is built before the vCPUs start; afterwards only regions that were added `movable' (PCI BARs) change,
 * by mem_region_move(), which the caller serialises with the machine lock.
 * Addresses: `pa' guest-physical, `hva' host-virtual.
 */
#ifndef ARMLET_MEM_MEM_H
#define ARMLET_MEM_MEM_H

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MEM_PAGE_SHIFT = 12, MEM_PAGE_SIZE = 1 << MEM_PAGE_SHIFT };

/*
 * A device's registers.  off is relative to the region, size is 1, 2, 4 or 8 bytes; values are in the low bits.
 * Accesses whose size is outside [min_size, max_size] are split or widened by mem/ (widening only reads), unaligned
 * ones are passed down only when `unaligned'.
 */
struct mem_ops {
    uint64_t (*read)(void *dev, uint64_t off, unsigned size);
    void (*write)(void *dev, uint64_t off, uint64_t value, unsigned size);
    uint8_t min_size, max_size; /* 0 means 1 and 8 */
    bool unaligned;
};

struct mem_region {
    const char *name;
    uint64_t base, size;
    const struct mem_ops *ops;
    void *dev;
    GMutex *lock; /* held around ops; NULL: the device locks for itself (the GIC) */
    bool enabled;
};

struct mem; /* the space */

/* A checked piece of guest RAM: hva is valid for len bytes.  hva == NULL when the check failed. */
struct span {
    uint8_t *hva;
    uint64_t pa;
    size_t len;
};

/* Returns NULL and sets errno when the host has no such memory.  base and size are multiples of a page. */
struct mem *mem_new(uint64_t ram_base, uint64_t ram_size);
void mem_free(struct mem *mem);

/* Adds a read-only memory block (flash, ROM) backed by data, which stays the caller's. Size a multiple of a page. */
void mem_add_rom(struct mem *mem, uint64_t base, void *data, uint64_t size);
/* Adds a device region.  `region' stays the caller's and must outlive mem.  BUG on overlap. */
void mem_add_region(struct mem *mem, struct mem_region *region);
/* Re-places or hides a region (PCI BARs).  Overlap is legal here: the region added first wins. */
void mem_region_move(struct mem *mem, struct mem_region *region, uint64_t base, bool enabled);

uint64_t mem_ram_base(const struct mem *mem);
uint64_t mem_ram_size(const struct mem *mem);

/* The host address of the page that holds pa, or NULL when it is not memory.  *writable: may be stored to. */
uint8_t *mem_page_hva(struct mem *mem, uint64_t pa, bool *writable);

/* RAM only, the whole of [pa, pa + len) or nothing: for DMA, boot, debugger.  Any thread. */
struct span mem_span(struct mem *mem, uint64_t pa, uint64_t len);
/*
 * Copies; false when any byte is outside memory (nothing is copied then).  Writing marks decoded code in the range
 * stale.  mem_write() treats ROM blocks as not there; mem_write_force() writes them too (loader, debugger).
 */
bool mem_read(struct mem *mem, uint64_t pa, void *buf, uint64_t len);
bool mem_write(struct mem *mem, uint64_t pa, const void *buf, uint64_t len);
bool mem_write_force(struct mem *mem, uint64_t pa, const void *buf, uint64_t len);

/*
 * One access to a device.  false: nothing answers there (the CPU takes an external abort).  Any thread: the region's
 * lock is taken inside.
 */
bool mem_io_read(struct mem *mem, uint64_t pa, unsigned size, uint64_t *value);
bool mem_io_write(struct mem *mem, uint64_t pa, unsigned size, uint64_t value);
const struct mem_region *mem_find_region(struct mem *mem, uint64_t pa);
/* Walks all blocks and regions in address order (monitor `info mtree'). hva non-NULL for memory. */
void mem_each(struct mem *mem, void (*fn)(void *arg, const char *name, uint64_t base, uint64_t size, bool is_memory),
              void *arg);

/*
 * Instruction memory.  Software must clean and invalidate (IC IVAU, IC IALLU) before it runs new code; engines keep
 * decoded code per physical page with the page's generation and drop or revalidate it when that has moved on.
 * Generations of pages outside RAM are those of the whole space.
 */
uint32_t mem_code_generation(struct mem *mem, uint64_t pa);
void mem_code_stale(struct mem *mem, uint64_t pa, uint64_t len);
void mem_code_stale_all(struct mem *mem);
/*
 * For engines that reach code by virtual address without looking at generations: mark a page before reading its
 * generation and its words; mem_code_changes() moves on whenever a marked page (or everything) goes stale, and the mark
 * is gone.  Pages outside RAM count as always marked.
 */
void mem_code_mark(struct mem *mem, uint64_t pa);
uint32_t mem_code_changes(const struct mem *mem);
/* Where that number is, for code that looks at it by itself. */
const atomic_uint *mem_code_changes_at(const struct mem *mem);

#endif
