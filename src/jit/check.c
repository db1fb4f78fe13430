/*
 * The checker of the data TLB (check.h).  On the vCPU's own thread.
 */
#include "jit/check.h"

#include <inttypes.h>

#include "base/bits.h"
#include "base/report.h"
#include "cpu/mmu.h"
#include "mem/mem.h"

bool jit_check_mmu;

static unsigned index_of(uint64_t va)
{
    return (unsigned)(va >> MEM_PAGE_SHIFT) & ((1u << JTLB_BITS) - 1);
}

void jit_check_access(struct cpu *cpu, const struct jtlb_entry *table, uint64_t va, unsigned mop, bool write,
                      struct jit_check_counts *counts)
{
    const struct jtlb_entry *t = &table[index_of(va)];
    enum mmu_view view = mmu_data_view(cpu, mop & MO_UNPRIV);
    uint64_t page = va & -(uint64_t)MEM_PAGE_SIZE;
    struct mmu_result r;

    if (!jtlb_permits(t, page, write))
        return;
    counts->hits++;
    if (!mmu_walk(cpu, va, WALK_AT, view, &r) || !mmu_allows(r.perms, view, write ? MMU_WRITE : MMU_READ)) {
        counts->ahead++;
        return;
    }
    bool writable;
    const uint8_t *host = mem_page_hva(cpu->mem, r.pa & -(uint64_t)MEM_PAGE_SIZE, &writable);
    uint64_t entry = page + t->addend;
    if (entry != (uintptr_t)host || r.device || (write && !writable))
        BUG("cpu %u: %s at va %#" PRIx64 " (view %d) from pc %#" PRIx64 ": the TLB leads to host address %#" PRIx64
            ", the tables to pa %#" PRIx64 " at %p%s", cpu->index, write ? "store" : "load", va, view, cpu->pc, entry,
            r.pa, (const void *)host, r.device ? ", a device" : "");
}

void jit_check_gone(const struct cpu *cpu, const struct jtlb_entry *table, uint64_t va)
{
    const struct jtlb_entry *t = &table[index_of(va)];
    uint64_t mask = bits_mask(56) & (uint64_t)(int32_t)jtlb_compare(false);

    if (!((t->tag ^ va) & mask))
        BUG("cpu %u: va %#" PRIx64 " is in the TLB after its invalidation: tag %#" PRIx64, cpu->index, va, t->tag);
}
