/*
 * Memory accesses of the guest by virtual address: the fast path inline, the rest in access.c.
 *
 * All functions that return bool: false means that an exception was taken (Data Abort, watchpoint ...; next_pc is its
 * vector) and that no result was written.  cpu->pc must be the address of the instruction.  mop is an enum mop whose
 * size is that of one element, or with MO_LANES() of a register of them; alignment is checked by element, by the whole
 * for exclusive and compare-and-swap pairs.
 * On the vCPU's own thread only.
 *
 * Ordering: the host is TSO, so plain loads and stores are already acquire and release; what is missing is
 * Store-Release before Load-Acquire (RCsc), for which every MO_REL store is followed by a full fence.
 */
#ifndef ARMLET_CPU_ACCESS_H
#define ARMLET_CPU_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "cpu/cpu.h"
#include "cpu/tlb.h"
#include "cpu/value.h"

/* --- guest memory by host address: one access of the host each, at any alignment; racing guests are not our bug --- */

struct access_u16 { uint16_t v; } PACKED __attribute__((may_alias));
struct access_u32 { uint32_t v; } PACKED __attribute__((may_alias));
struct access_u64 { uint64_t v; } PACKED __attribute__((may_alias));

#ifdef __SANITIZE_THREAD__
#define ACCESS_RAW static __attribute__((noinline, unused, no_sanitize("thread")))
#else
#define ACCESS_RAW static ALWAYS_INLINE
#endif

/* size: log2, 0 to 3 */
ACCESS_RAW uint64_t access_host_load(const uint8_t *p, unsigned size)
{
    switch (size) {
    case MO_8: return *(const volatile uint8_t *)p;
    case MO_16: return ((const volatile struct access_u16 *)p)->v;
    case MO_32: return ((const volatile struct access_u32 *)p)->v;
    default: return ((const volatile struct access_u64 *)p)->v;
    }
}

ACCESS_RAW void access_host_store(uint8_t *p, unsigned size, uint64_t v)
{
    switch (size) {
    case MO_8: *(volatile uint8_t *)p = (uint8_t)v; break;
    case MO_16: ((volatile struct access_u16 *)p)->v = (uint16_t)v; break;
    case MO_32: ((volatile struct access_u32 *)p)->v = (uint32_t)v; break;
    default: ((volatile struct access_u64 *)p)->v = v; break;
    }
}

/* --- slow paths: everything that is not a permitted access to one page of RAM that the fast array knows --- */

/* bytes: 1 to 32, a multiple of the element; buf in guest (little-endian) order. */
bool access_load_slow(struct cpu *cpu, uint64_t va, unsigned mop, unsigned bytes, void *buf);
bool access_store_slow(struct cpu *cpu, uint64_t va, unsigned mop, unsigned bytes, const void *buf);
bool access_fetch_slow(struct cpu *cpu, uint64_t va, const uint8_t **hva_page, uint64_t *pa_page);

/* The host address of [va, va + bytes) if the fast array permits the access, or NULL. */
static ALWAYS_INLINE uint8_t *access_fast(const struct cpu *cpu, uint64_t va, unsigned mop, unsigned bytes, bool write)
{
    const struct tlb *tlb = cpu->tlb;
    const struct tlb_entry *e = &tlb->fast[tlb_index(va, TLB_FAST_BITS)];
    uint64_t tag = (va & TLB_PAGE_MASK) | (mop & MO_UNPRIV ? tlb->unpriv_tag : tlb->data_tag);
    unsigned element = 1u << mop_element(mop);
    bool unaligned = va & (element - 1);

    if (unlikely((write ? e->wtag : e->rtag) != tag))
        return NULL;
    if (unlikely(unaligned) && ((mop & MO_ALIGN) || tlb->strict || e->device))
        return NULL;
    if ((unaligned || bytes > element) && unlikely((va & ~TLB_PAGE_MASK) + bytes > MEM_PAGE_SIZE))
        return NULL;
    return (uint8_t *)(uintptr_t)(va + e->addend);
}

static ALWAYS_INLINE void access_release(unsigned mop)
{
    if (mop & MO_REL)
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static ALWAYS_INLINE bool access_load(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t *out)
{
    unsigned size = mop & MO_SIZE;
    const uint8_t *p = access_fast(cpu, va, mop, 1u << size, false);

    if (unlikely(!p)) {
        uint64_t v = 0;
        if (!access_load_slow(cpu, va, mop, 1u << size, &v))
            return false;
        *out = v;
        return true;
    }
    *out = access_host_load(p, size);
    return true;
}

static ALWAYS_INLINE bool access_store(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t value)
{
    unsigned size = mop & MO_SIZE;
    uint8_t *p = access_fast(cpu, va, mop, 1u << size, true);

    if (unlikely(!p))
        return access_store_slow(cpu, va, mop, 1u << size, &value);
    access_host_store(p, size, value);
    access_release(mop);
    return true;
}

/* Two elements of 4 or 8 bytes. */
static ALWAYS_INLINE bool access_load_pair(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t *a, uint64_t *b)
{
    unsigned size = mop & MO_SIZE, bytes = 1u << size;
    const uint8_t *p = access_fast(cpu, va, mop, 2 * bytes, false);
    uint8_t buf[16];

    if (unlikely(!p)) {
        if (!access_load_slow(cpu, va, mop, 2 * bytes, buf))
            return false;
        p = buf;
    }
    *a = access_host_load(p, size);
    *b = access_host_load(p + bytes, size);
    return true;
}

static ALWAYS_INLINE bool access_store_pair(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t a, uint64_t b)
{
    unsigned size = mop & MO_SIZE, bytes = 1u << size;
    uint8_t *p = access_fast(cpu, va, mop, 2 * bytes, true);

    if (unlikely(!p)) {
        uint8_t buf[16];
        access_host_store(buf, size, a);
        access_host_store(buf + bytes, size, b);
        return access_store_slow(cpu, va, mop, 2 * bytes, buf);
    }
    access_host_store(p, size, a);
    access_host_store(p + bytes, size, b);
    access_release(mop);
    return true;
}

/* 1 to 16 bytes into the low lane; the rest becomes zero. */
static ALWAYS_INLINE bool access_load_w(struct cpu *cpu, uint64_t va, unsigned mop, union vreg *out)
{
    union vreg r = {{0, 0}};

    if ((mop & MO_SIZE) == MO_128) {
        const uint8_t *p = access_fast(cpu, va, mop, 16, false);
        if (unlikely(!p)) {
            if (!access_load_slow(cpu, va, mop, 16, &r))
                return false;
        } else {
            r.d[0] = access_host_load(p, MO_64);
            r.d[1] = access_host_load(p + 8, MO_64);
        }
    } else if (!access_load(cpu, va, mop, &r.d[0])) {
        return false;
    }
    *out = r;
    return true;
}

static ALWAYS_INLINE bool access_store_w(struct cpu *cpu, uint64_t va, unsigned mop, const union vreg *value)
{
    uint8_t *p;

    if ((mop & MO_SIZE) != MO_128)
        return access_store(cpu, va, mop, value->d[0]);
    p = access_fast(cpu, va, mop, 16, true);
    if (unlikely(!p))
        return access_store_slow(cpu, va, mop, 16, value);
    access_host_store(p, MO_64, value->d[0]);
    access_host_store(p + 8, MO_64, value->d[1]);
    access_release(mop);
    return true;
}

/* Two elements of 4, 8 or 16 bytes. */
bool access_load_pair_w(struct cpu *cpu, uint64_t va, unsigned mop, union vreg *a, union vreg *b);
bool access_store_pair_w(struct cpu *cpu, uint64_t va, unsigned mop, const union vreg *a, const union vreg *b);

/* --- exclusives (B2.12): status is 0 when stored, 1 when not --- */
bool access_load_ex(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t *out);
bool access_load_ex_pair(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t *a, uint64_t *b);
bool access_store_ex(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t value, uint64_t *status);
bool access_store_ex_pair(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t a, uint64_t b, uint64_t *status);
/*
 * Versions of granules of 64 bytes, by some bits of the host address: odd while an exclusive store is under way there, 0 where
 * they are not kept.  For engines with exclusives of their own, which set cluster->paired_exclusives when they make stores that
 * touch no version where it is 0; the protocol is at the head of cpu/access.c.
 */
enum { EX_GRANULES = 4096, EX_GRANULE_SHIFT = 6 };
extern _Atomic uint32_t access_ex_versions[EX_GRANULES];
/* CLREX and exception return. */
static inline void access_clear_ex(struct cpu *cpu)
{
    cpu->ex.valid = false;
}
/* Has the marked location changed since, so that STXR would fail?  False when nothing is marked. */
bool access_ex_lost(const struct cpu *cpu);

/* --- LSE: always sequentially consistent --- */
bool access_rmw(struct cpu *cpu, enum rmw op, unsigned mop, uint64_t va, uint64_t operand, uint64_t *old);
bool access_cas(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t expect, uint64_t desired, uint64_t *old);
bool access_casp(struct cpu *cpu, unsigned mop, uint64_t va, const uint64_t expect[2], const uint64_t desired[2],
                 uint64_t old[2]);

/* DC ZVA: zero the naturally aligned block of `bytes' (a power of two, at most a page) that va lies in. */
bool access_zero(struct cpu *cpu, uint64_t va, unsigned bytes);

/*
 * The page to execute from at va: host and guest-physical address of its start.  False: Instruction Abort or PC
 * alignment fault taken.
 */
static ALWAYS_INLINE bool access_fetch(struct cpu *cpu, uint64_t va, const uint8_t **hva_page, uint64_t *pa_page)
{
    const struct tlb_fetch *f = &cpu->tlb->fetch[tlb_index(va, TLB_FETCH_BITS)];

    if (unlikely(f->tag != ((va & TLB_PAGE_MASK) | cpu->tlb->fetch_tag) || (va & 3)))
        return access_fetch_slow(cpu, va, hva_page, pa_page);
    *hva_page = f->host;
    *pa_page = f->pa;
    return true;
}

#endif
