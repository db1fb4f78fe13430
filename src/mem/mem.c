/*
 * Guest-physical space.
 *
 * Memory (RAM, ROM blocks) is fixed once the vCPUs run and found without locks.  Device regions are flattened into an
 * array of disjoint slots sorted by address, in which the region added first wins an overlap; memory wins over both.
 * mem_region_move() rebuilds the array, so lookups hold a reader lock; it is never held while a device runs, because a
 * device's write hook may itself move regions (PCI BARs).
 *
 * Code generations: one counter a RAM page, and an epoch for "everything".  What a caller sees is their sum: both only
 * grow, so that an equal sum means that neither moved (2^32 invalidations of one page between two looks aside).
 *
 * Left out: big-endian devices, RAM in several pieces, accesses that span two regions (nothing answers).
 * Threads: as mem.h says.
 */
#include "mem/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bits.h"
#include "base/report.h"
#include "base/trace.h"
#include "mem/ram.h"

struct rom {
    uint64_t base, size;
    uint8_t *host;
};

struct slot {
    uint64_t base, last; /* inclusive, so that a slot may end at 2^64 - 1 */
    uint64_t offset;     /* of base within the region */
    struct mem_region *region;
};

struct mem {
    uint64_t ram_base, ram_size;
    uint8_t *ram;
    atomic_uint *page_generation; /* one for each page of RAM, times two; bit 0: marked.  Unreserved like RAM */
    atomic_uint epoch;            /* everything went stale */
    atomic_uint changes;          /* of marked pages */
    atomic_uint rom_generation;   /* something outside RAM went stale */
    GArray *roms;                 /* struct rom */
    GPtrArray *regions;           /* struct mem_region *, in the order they were added */
    GRWLock lock;                 /* slots, and base and enabled of each region */
    GArray *slots;                /* struct slot */
};

static size_t generations_size(const struct mem *mem)
{
    return bits_align_up(mem->ram_size / MEM_PAGE_SIZE * sizeof(atomic_uint), MEM_PAGE_SIZE);
}

struct mem *mem_new(uint64_t ram_base, uint64_t ram_size)
{
    struct mem *mem;

    if (!ram_size || (ram_base | ram_size) % MEM_PAGE_SIZE || ram_base + ram_size < ram_base) {
        errno = EINVAL;
        return NULL;
    }
    mem = g_new0(struct mem, 1);
    mem->ram_base = ram_base;
    mem->ram_size = ram_size;
    mem->ram = ram_map(ram_size, true);
    mem->page_generation = mem->ram ? ram_map(generations_size(mem), false) : NULL;
    if (!mem->page_generation) {
        int saved = errno;
        if (mem->ram)
            ram_unmap(mem->ram, ram_size);
        g_free(mem);
        errno = saved;
        return NULL;
    }
#ifdef __SANITIZE_THREAD__
    tsan_guest_memory(mem->ram, ram_size);
#endif
    mem->roms = g_array_new(FALSE, FALSE, sizeof(struct rom));
    mem->slots = g_array_new(FALSE, FALSE, sizeof(struct slot));
    mem->regions = g_ptr_array_new();
    g_rw_lock_init(&mem->lock);
    return mem;
}

void mem_free(struct mem *mem)
{
    ram_unmap(mem->page_generation, generations_size(mem));
    ram_unmap(mem->ram, mem->ram_size);
    g_array_free(mem->roms, TRUE);
    g_array_free(mem->slots, TRUE);
    g_ptr_array_free(mem->regions, TRUE);
    g_rw_lock_clear(&mem->lock);
    g_free(mem);
}

uint64_t mem_ram_base(const struct mem *mem)
{
    return mem->ram_base;
}

uint64_t mem_ram_size(const struct mem *mem)
{
    return mem->ram_size;
}

/* ---- memory ---- */

/* RAM, or a ROM block unless ram_only: the host address of pa and how many bytes of the block follow it. */
static uint8_t *find_block(struct mem *mem, uint64_t pa, uint64_t *left, bool *is_ram)
{
    if (pa - mem->ram_base < mem->ram_size) {
        *left = mem->ram_size - (pa - mem->ram_base);
        *is_ram = true;
        return mem->ram + (pa - mem->ram_base);
    }
    for (guint i = 0; i < mem->roms->len; i++) {
        const struct rom *rom = &g_array_index(mem->roms, struct rom, i);
        if (pa - rom->base < rom->size) {
            *left = rom->size - (pa - rom->base);
            *is_ram = false;
            return rom->host + (pa - rom->base);
        }
    }
    return NULL;
}

uint8_t *mem_page_hva(struct mem *mem, uint64_t pa, bool *writable)
{
    uint64_t left;

    return find_block(mem, pa & -(uint64_t)MEM_PAGE_SIZE, &left, writable);
}

struct span mem_span(struct mem *mem, uint64_t pa, uint64_t len)
{
    uint64_t off = pa - mem->ram_base;

    if (off > mem->ram_size || len > mem->ram_size - off)
        return (struct span){NULL, pa, 0};
    return (struct span){mem->ram + off, pa, len};
}

/* Every byte of the range is memory, and may be written if `writing' (ROM only by force). */
static bool check_range(struct mem *mem, uint64_t pa, uint64_t len, bool writing, bool force)
{
    uint64_t left;
    bool is_ram;

    for (; len; pa += MIN(left, len), len -= MIN(left, len))
        if (!find_block(mem, pa, &left, &is_ram) || (writing && !is_ram && !force))
            return false;
    return true;
}

bool mem_read(struct mem *mem, uint64_t pa, void *buf, uint64_t len)
{
    uint8_t *out = buf;
    uint64_t left, n;
    bool is_ram;

    if (!check_range(mem, pa, len, false, false))
        return false;
    for (; len; pa += n, out += n, len -= n) {
        const uint8_t *host = find_block(mem, pa, &left, &is_ram);
        n = MIN(left, len);
        memcpy(out, host, n);
    }
    return true;
}

static bool write_range(struct mem *mem, uint64_t pa, const void *buf, uint64_t len, bool force)
{
    const uint8_t *in = buf;
    uint64_t left, n;
    bool is_ram;

    if (!check_range(mem, pa, len, true, force))
        return false;
    for (; len; pa += n, in += n, len -= n) {
        uint8_t *host = find_block(mem, pa, &left, &is_ram);
        n = MIN(left, len);
        memcpy(host, in, n);
        mem_code_stale(mem, pa, n);
    }
    return true;
}

bool mem_write(struct mem *mem, uint64_t pa, const void *buf, uint64_t len)
{
    return write_range(mem, pa, buf, len, false);
}

bool mem_write_force(struct mem *mem, uint64_t pa, const void *buf, uint64_t len)
{
    return write_range(mem, pa, buf, len, true);
}

/* ---- the device map ---- */

static bool overlap(uint64_t base, uint64_t size, uint64_t base2, uint64_t size2)
{
    return base < base2 + size2 && base2 < base + size;
}

/* Adds the parts of [base, last] of region that no earlier slot covers; slots stay sorted. */
static void add_uncovered(GArray *slots, struct mem_region *region)
{
    uint64_t at = region->base, last = region->base + region->size - 1;
    guint i = 0;

    for (;;) {
        const struct slot *next;
        struct slot piece = {at, last, at - region->base, region};

        while (i < slots->len && g_array_index(slots, struct slot, i).last < at)
            i++;
        next = i < slots->len ? &g_array_index(slots, struct slot, i) : NULL;
        if (!next || next->base > last) {
            g_array_insert_val(slots, i, piece);
            return;
        }
        if (next->base > at) {
            piece.last = next->base - 1;
            g_array_insert_val(slots, i, piece);
            i++;
        }
        at = g_array_index(slots, struct slot, i).last + 1;
        if (at > last || at == 0)
            return;
    }
}

static void rebuild_slots(struct mem *mem)
{
    g_array_set_size(mem->slots, 0);
    for (guint i = 0; i < mem->regions->len; i++) {
        struct mem_region *region = g_ptr_array_index(mem->regions, i);
        if (region->enabled && region->size)
            add_uncovered(mem->slots, region);
    }
}

static void check_free(struct mem *mem, uint64_t base, uint64_t size, const char *name)
{
    if (overlap(base, size, mem->ram_base, mem->ram_size))
        BUG("%s at %#" PRIx64 " lies over RAM", name, base);
    for (guint i = 0; i < mem->roms->len; i++) {
        const struct rom *rom = &g_array_index(mem->roms, struct rom, i);
        if (overlap(base, size, rom->base, rom->size))
            BUG("%s at %#" PRIx64 " lies over a ROM block", name, base);
    }
    for (guint i = 0; i < mem->regions->len; i++) {
        const struct mem_region *r = g_ptr_array_index(mem->regions, i);
        if (r->enabled && overlap(base, size, r->base, r->size))
            BUG("%s at %#" PRIx64 " lies over %s", name, base, r->name);
    }
}

void mem_add_rom(struct mem *mem, uint64_t base, void *data, uint64_t size)
{
    struct rom rom = {base, size, data};

    BUG_ON((base | size) % MEM_PAGE_SIZE || base + size < base);
    check_free(mem, base, size, "ROM");
    g_array_append_val(mem->roms, rom);
}

void mem_add_region(struct mem *mem, struct mem_region *region)
{
    BUG_ON(region->base + region->size < region->base);
    if (region->enabled)
        check_free(mem, region->base, region->size, region->name);
    g_rw_lock_writer_lock(&mem->lock);
    g_ptr_array_add(mem->regions, region);
    rebuild_slots(mem);
    g_rw_lock_writer_unlock(&mem->lock);
}

void mem_region_move(struct mem *mem, struct mem_region *region, uint64_t base, bool enabled)
{
    /* The guest chooses the base: one that does not fit below 2^64 hides the region. */
    if (base + region->size < base)
        enabled = false;
    g_rw_lock_writer_lock(&mem->lock);
    region->base = base;
    region->enabled = enabled;
    rebuild_slots(mem);
    g_rw_lock_writer_unlock(&mem->lock);
    trace(PAGE, "%s now at %#" PRIx64 " size %#" PRIx64 "%s", region->name, base, region->size,
          enabled ? "" : " (disabled)");
}

/* Copies the slot out: it may move as soon as the lock is dropped. */
static bool find_slot(struct mem *mem, uint64_t pa, struct slot *out)
{
    bool found = false;
    guint lo = 0, hi;

    g_rw_lock_reader_lock(&mem->lock);
    hi = mem->slots->len;
    while (lo < hi) {
        guint mid = lo + (hi - lo) / 2;
        const struct slot *s = &g_array_index(mem->slots, struct slot, mid);
        if (pa < s->base) {
            hi = mid;
        } else if (pa > s->last) {
            lo = mid + 1;
        } else {
            *out = *s;
            found = true;
            break;
        }
    }
    g_rw_lock_reader_unlock(&mem->lock);
    return found;
}

const struct mem_region *mem_find_region(struct mem *mem, uint64_t pa)
{
    struct slot slot;

    return find_slot(mem, pa, &slot) ? slot.region : NULL;
}

/* ---- device accesses ---- */

static unsigned max_size(const struct mem_ops *ops)
{
    return ops->max_size ? ops->max_size : 8;
}

static unsigned min_size(const struct mem_ops *ops)
{
    return ops->min_size ? ops->min_size : 1;
}

/* The next piece of an access: as large as the device takes, and aligned unless it takes unaligned ones. */
static unsigned piece_size(const struct mem_ops *ops, uint64_t off, unsigned size)
{
    unsigned piece = max_size(ops);

    while (piece > size || (!ops->unaligned && off % piece))
        piece /= 2;
    return piece;
}

static uint64_t read_piece(const struct mem_region *r, uint64_t off, unsigned size)
{
    unsigned wide = MAX(size, min_size(r->ops));
    uint64_t start = size < wide ? off & -(uint64_t)wide : off;

    if (!r->ops->read)
        return 0;
    return r->ops->read(r->dev, start, wide) >> (off - start) * 8 & bits_mask(size * 8);
}

static void write_piece(const struct mem_region *r, uint64_t off, unsigned size, uint64_t value)
{
    if (size < min_size(r->ops)) {
        /* What the other bytes of the register would become is the device's secret: drop it. */
        trace(GUEST_ERRORS, "%s: %u-byte write at offset %#" PRIx64 " is too narrow, ignored", r->name, size, off);
        return;
    }
    if (r->ops->write)
        r->ops->write(r->dev, off, value & bits_mask(size * 8), size);
}

static bool locate(struct mem *mem, uint64_t pa, unsigned size, struct slot *slot, uint64_t *off)
{
    if (!find_slot(mem, pa, slot) || slot->last - pa < size - 1)
        return false;
    *off = slot->offset + (pa - slot->base);
    return true;
}

static void region_lock(const struct mem_region *r)
{
    if (r->lock)
        g_mutex_lock(r->lock);
}

static void region_unlock(const struct mem_region *r)
{
    if (r->lock)
        g_mutex_unlock(r->lock);
}

bool mem_io_read(struct mem *mem, uint64_t pa, unsigned size, uint64_t *value)
{
    struct slot slot;
    uint64_t off, result = 0;
    unsigned done = 0, n;

    if (!locate(mem, pa, size, &slot, &off))
        return false;
    region_lock(slot.region);
    for (; done < size; done += n) {
        n = piece_size(slot.region->ops, off + done, size - done);
        result |= read_piece(slot.region, off + done, n) << done * 8;
    }
    region_unlock(slot.region);
    trace(MMIO, "%s read%u %#" PRIx64 " -> %#" PRIx64, slot.region->name, size, off, result);
    *value = result;
    return true;
}

bool mem_io_write(struct mem *mem, uint64_t pa, unsigned size, uint64_t value)
{
    struct slot slot;
    uint64_t off;
    unsigned done = 0, n;

    if (!locate(mem, pa, size, &slot, &off))
        return false;
    trace(MMIO, "%s write%u %#" PRIx64 " <- %#" PRIx64, slot.region->name, size, off, value);
    region_lock(slot.region);
    for (; done < size; done += n) {
        n = piece_size(slot.region->ops, off + done, size - done);
        write_piece(slot.region, off + done, n, value >> done * 8);
    }
    region_unlock(slot.region);
    return true;
}

/* ---- the whole map ---- */

struct map_line {
    const char *name;
    uint64_t base, size;
    bool is_memory;
};

static gint compare_lines(gconstpointer a, gconstpointer b)
{
    const struct map_line *x = a, *y = b;

    return x->base < y->base ? -1 : x->base > y->base;
}

void mem_each(struct mem *mem, void (*fn)(void *arg, const char *name, uint64_t base, uint64_t size, bool is_memory),
              void *arg)
{
    GArray *lines = g_array_new(FALSE, FALSE, sizeof(struct map_line));
    struct map_line line = {"ram", mem->ram_base, mem->ram_size, true};

    g_array_append_val(lines, line);
    for (guint i = 0; i < mem->roms->len; i++) {
        const struct rom *rom = &g_array_index(mem->roms, struct rom, i);
        line = (struct map_line){"rom", rom->base, rom->size, true};
        g_array_append_val(lines, line);
    }
    g_rw_lock_reader_lock(&mem->lock);
    for (guint i = 0; i < mem->slots->len; i++) {
        const struct slot *s = &g_array_index(mem->slots, struct slot, i);
        line = (struct map_line){s->region->name, s->base, s->last - s->base + 1, false};
        g_array_append_val(lines, line);
    }
    g_rw_lock_reader_unlock(&mem->lock);
    g_array_sort(lines, compare_lines);
    for (guint i = 0; i < lines->len; i++) {
        const struct map_line *l = &g_array_index(lines, struct map_line, i);
        fn(arg, l->name, l->base, l->size, l->is_memory);
    }
    g_array_free(lines, TRUE);
}

/* ---- code generations ---- */

uint32_t mem_code_generation(struct mem *mem, uint64_t pa)
{
    uint64_t off = pa - mem->ram_base;
    uint32_t epoch = atomic_load_explicit(&mem->epoch, memory_order_acquire);
    atomic_uint *own = off < mem->ram_size ? &mem->page_generation[off / MEM_PAGE_SIZE] : &mem->rom_generation;

    return epoch + (atomic_load_explicit(own, memory_order_acquire) >> 1);
}

/* The next generation, unmarked. */
static void page_stale(struct mem *mem, uint64_t off)
{
    bool in_ram = off < mem->ram_size;
    atomic_uint *own = in_ram ? &mem->page_generation[off / MEM_PAGE_SIZE] : &mem->rom_generation;
    unsigned old = atomic_load_explicit(own, memory_order_relaxed);

    while (!atomic_compare_exchange_weak(own, &old, (old | 1) + 1))
        ;
    if (!in_ram || old & 1)
        atomic_fetch_add(&mem->changes, 1);
}

void mem_code_stale(struct mem *mem, uint64_t pa, uint64_t len)
{
    uint64_t first = pa / MEM_PAGE_SIZE;
    uint64_t pages = len ? (pa + len - 1) / MEM_PAGE_SIZE - first + 1 : 0;

    for (uint64_t i = 0; i < pages; i++)
        page_stale(mem, (first + i) * MEM_PAGE_SIZE - mem->ram_base);
}

void mem_code_stale_all(struct mem *mem)
{
    atomic_fetch_add_explicit(&mem->epoch, 1, memory_order_release);
    atomic_fetch_add(&mem->changes, 1);
}

void mem_code_mark(struct mem *mem, uint64_t pa)
{
    uint64_t off = pa - mem->ram_base;

    if (off < mem->ram_size)
        atomic_fetch_or(&mem->page_generation[off / MEM_PAGE_SIZE], 1);
}

uint32_t mem_code_changes(const struct mem *mem)
{
    return atomic_load_explicit(&mem->changes, memory_order_acquire);
}

const atomic_uint *mem_code_changes_at(const struct mem *mem)
{
    return &mem->changes;
}
