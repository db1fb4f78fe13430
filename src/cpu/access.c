/*
 * Guest memory accesses that the fast array does not cover: misses, faults, devices, page crossings, watchpoints; and
 * exclusives, atomics and DC ZVA.
 *
 * Exclusives.  The monitor holds the host address and the value that was loaded; STXR is a compare-and-swap against that
 * value.  A single vCPU needs no more: between its LDXR and its STXR others run only after an exception return, which clears
 * the monitor.  With several, that alone would not see a change that was undone in between (ABA).
 *
 *  - Nearly all pairs have no other access between LDXR and STXR, and an engine that sees both says so (MO_PAIRED).  Such a
 *    pair may be taken for one atomic operation at the moment of its swap: what was undone before does not matter to it.
 *  - Any other pair must see every exclusive store.  For that each granule has a version.  LDXR notes it before it loads; STXR
 *    takes it from what was noted to the odd number above, or fails, then compares and swaps, and lets it go, two higher if it
 *    stored.
 *  - Stores of the first kind need not touch versions as long as nobody looks at them: version 0 says that.  The first STXR of
 *    the second kind to a granule fails, sets the version and waits until every vCPU has been out of guest code once; from
 *    then on all stores there move it on.  A paired store looks at the version after its LDXR has begun, so it is either done
 *    before that wait ends or sees it.  The version never becomes 0 again.
 *
 * So exclusive stores see each other always.  What is not seen is a plain store or an LSE atomic that puts the old value
 * back; to see those, every store would have to be checked.
 *
 * Left out: tag checks (MTE), LSE2 (unaligned single-copy atomicity).
 * Threads: the vCPU's own.  Guest memory is shared: elements are always moved by one host access, so that what is
 * single-copy atomic for the guest is so for us.
 */
#include "cpu/access.h"

#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "base/trace.h"
#include "cpu/cluster.h"
#include "cpu/debug.h"

enum { ISS_WNR = 1 << 6, ISS_CM = 1 << 8 };

static bool data_abort(struct cpu *cpu, uint64_t va, unsigned fsc, unsigned iss)
{
    cpu_take_sync(cpu, EC_DABT_LOWER, iss | fsc, cpu->pc, va);
    return false;
}

static enum mmu_view view_of(const struct cpu *cpu, unsigned mop)
{
    return mmu_data_view(cpu, mop & MO_UNPRIV);
}

/* ESR.WnR of a faulting atomic says whether the write alone was at fault (D17.2.37). */
static bool translate_fault(struct cpu *cpu, uint64_t va, unsigned access, enum mmu_view view, unsigned fsc)
{
    struct tlb_hit hit;
    bool write = access == MMU_WRITE;

    if (access == MMU_RMW)
        write = tlb_lookup(cpu, va, MMU_READ, view, &hit) == FSC_NONE;
    return data_abort(cpu, va, fsc, write ? ISS_WNR : 0);
}

static bool translate(struct cpu *cpu, uint64_t va, unsigned mop, unsigned access, struct tlb_hit *hit)
{
    enum mmu_view view = view_of(cpu, mop);
    uint8_t fsc = tlb_lookup(cpu, va, access, view, hit);

    return fsc == FSC_NONE || translate_fault(cpu, va, access, view, fsc);
}

/* ---- plain accesses ---- */

/* An access in one or, across a page boundary, two pieces. */
struct slow {
    struct tlb_hit hit[2];
    unsigned len[2];
    unsigned n;
};

static bool resolve(struct cpu *cpu, uint64_t va, unsigned mop, unsigned bytes, unsigned access, struct slow *s)
{
    unsigned room = MEM_PAGE_SIZE - (unsigned)(va & ~TLB_PAGE_MASK);
    bool unaligned = va & ((1u << mop_element(mop)) - 1), write = access != MMU_READ;

    if (unaligned && ((mop & MO_ALIGN) || cpu->tlb->strict))
        return data_abort(cpu, va, FSC_ALIGNMENT, write ? ISS_WNR : 0);
    s->n = bytes > room ? 2 : 1;
    s->len[0] = s->n == 2 ? room : bytes;
    s->len[1] = bytes - s->len[0];
    for (unsigned i = 0; i < s->n; i++)
        if (!translate(cpu, i ? va + s->len[0] : va, mop, access, &s->hit[i]))
            return false;
    for (unsigned i = 0; i < s->n; i++)
        if (unaligned && s->hit[i].device)
            return data_abort(cpu, va, FSC_ALIGNMENT, write ? ISS_WNR : 0);
    return !cpu->tlb->watching || debug_check_watch(cpu, va, bytes, write);
}

static void copy_from_memory(uint8_t *buf, const uint8_t *host, unsigned size, unsigned len)
{
    for (unsigned i = 0; i < len; i += 1u << size)
        access_host_store(buf + i, size, access_host_load(host + i, size));
}

/* The size, as log2, by which memory is moved: whole elements if the piece has them, bytes next to a page boundary. */
static unsigned move_size(unsigned mop, const struct slow *s)
{
    unsigned size = mop_element(mop);

    return s->n == 2 && s->len[0] % (1u << size) ? MO_8 : size > MO_64 ? MO_64 : size;
}

/* Device accesses are naturally aligned and no larger than the element or 8 bytes. */
static unsigned io_size(uint64_t pa, unsigned mop, unsigned left)
{
    unsigned size = 1u << mop_element(mop);

    for (size = size > 8 ? 8 : size; size > left || pa % size; size /= 2)
        ;
    return size;
}

static bool io_load(struct cpu *cpu, uint64_t va, uint64_t pa, unsigned mop, uint8_t *buf, unsigned len)
{
    for (unsigned i = 0, size; i < len; i += size) {
        uint64_t v;

        size = io_size(pa + i, mop, len - i);
        if (!mem_io_read(cpu->mem, pa + i, size, &v))
            return data_abort(cpu, va + i, FSC_EXTERNAL, 0);
        memcpy(buf + i, &v, size);
    }
    return true;
}

static bool io_store(struct cpu *cpu, uint64_t va, uint64_t pa, unsigned mop, const uint8_t *buf, unsigned len)
{
    for (unsigned i = 0, size; i < len; i += size) {
        uint64_t v = 0;

        size = io_size(pa + i, mop, len - i);
        memcpy(&v, buf + i, size);
        if (!mem_io_write(cpu->mem, pa + i, size, v))
            return data_abort(cpu, va + i, FSC_EXTERNAL, ISS_WNR);
    }
    return true;
}

bool access_load_slow(struct cpu *cpu, uint64_t va, unsigned mop, unsigned bytes, void *buf)
{
    struct slow s;
    uint8_t *out = buf;

    if (!resolve(cpu, va, mop, bytes, MMU_READ, &s))
        return false;
    for (unsigned i = 0; i < s.n; i++) {
        if (s.hit[i].host)
            copy_from_memory(out, s.hit[i].host, move_size(mop, &s), s.len[i]);
        else if (!io_load(cpu, va, s.hit[i].pa, mop, out, s.len[i]))
            return false;
        va += s.len[i];
        out += s.len[i];
    }
    return true;
}

bool access_store_slow(struct cpu *cpu, uint64_t va, unsigned mop, unsigned bytes, const void *buf)
{
    struct slow s;
    const uint8_t *in = buf;

    if (!resolve(cpu, va, mop, bytes, MMU_WRITE, &s))
        return false;
    for (unsigned i = 0; i < s.n; i++) {
        struct tlb_hit *hit = &s.hit[i];

        if (hit->host && hit->writable)
            copy_from_memory(hit->host, in, move_size(mop, &s), s.len[i]);
        else if (hit->host)
            trace(GUEST_ERRORS, "store to ROM at pa %#" PRIx64 " ignored", hit->pa);
        else if (!io_store(cpu, va, hit->pa, mop, in, s.len[i]))
            return false;
        va += s.len[i];
        in += s.len[i];
    }
    access_release(mop);
    return true;
}

bool access_load_pair_w(struct cpu *cpu, uint64_t va, unsigned mop, union vreg *a, union vreg *b)
{
    unsigned size = mop & MO_SIZE, bytes = 1u << size;
    union vreg r[2] = {{{0, 0}}, {{0, 0}}};
    uint8_t slow[32];
    const uint8_t *p = access_fast(cpu, va, mop, 2 * bytes, false);

    if (unlikely(!p)) {
        if (!access_load_slow(cpu, va, mop, 2 * bytes, slow))
            return false;
        p = slow;
    }
    for (unsigned i = 0; i < 2; i++, p += bytes) {
        r[i].d[0] = access_host_load(p, size);
        if (size == MO_128)
            r[i].d[1] = access_host_load(p + 8, MO_64);
    }
    *a = r[0];
    *b = r[1];
    return true;
}

bool access_store_pair_w(struct cpu *cpu, uint64_t va, unsigned mop, const union vreg *a, const union vreg *b)
{
    unsigned bytes = 1u << (mop & MO_SIZE);
    uint8_t buf[32], *p = access_fast(cpu, va, mop, 2 * bytes, true);

    memcpy(buf, a, bytes);
    memcpy(buf + bytes, b, bytes);
    if (unlikely(!p))
        return access_store_slow(cpu, va, mop, 2 * bytes, buf);
    copy_from_memory(p, buf, (mop & MO_SIZE) > MO_64 ? MO_64 : mop & MO_SIZE, 2 * bytes);
    access_release(mop);
    return true;
}

/* ---- exclusives ---- */

/*
 * The host address for an access that must be aligned to all of its bytes and in memory.  On devices, and for writes in
 * ROM, the answer is the fault for exclusives and atomics that the memory system does not support (D17.2.37).
 */
static uint8_t *atomic_host(struct cpu *cpu, uint64_t va, unsigned mop, unsigned bytes, unsigned access)
{
    bool write = access != MMU_READ;
    uint8_t *p;
    struct tlb_hit hit;

    if (va & (bytes - 1)) {
        data_abort(cpu, va, FSC_ALIGNMENT, write ? ISS_WNR : 0);
        return NULL;
    }
    p = access_fast(cpu, va, mop, bytes, write);
    if (likely(p))
        return p;
    if (!translate(cpu, va, mop, access, &hit))
        return NULL;
    if (cpu->tlb->watching && !debug_check_watch(cpu, va, bytes, write))
        return NULL;
    if (!hit.host || (write && !hit.writable)) {
        data_abort(cpu, va, FSC_UNSUPPORTED, write ? ISS_WNR : 0);
        return NULL;
    }
    return hit.host;
}

/* An aligned 16-byte load in one piece: every x86-64 with AVX guarantees it, and those before do it within a line. */
ACCESS_RAW void load_128(const uint8_t *p, uint64_t out[2])
{
    typedef long long m128 __attribute__((vector_size(16)));
    m128 v;

    __asm__ volatile("movdqa %1, %0" : "=x"(v) : "m"(*(const m128 *)(const void *)p));
    out[0] = (uint64_t)v[0];
    out[1] = (uint64_t)v[1];
}

static bool cas_128(uint8_t *p, uint64_t expect[2], const uint64_t desired[2])
{
    bool ok;

    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(ok), "+m"(*(unsigned __int128 *)(void *)p), "+a"(expect[0]), "+d"(expect[1])
                     : "b"(desired[0]), "c"(desired[1])
                     : "memory");
    return ok;
}

/* Compare-and-swap of 1 to 8 bytes; *expect becomes what was there. */
static bool cas_64(uint8_t *p, unsigned size, uint64_t *expect, uint64_t desired)
{
#define CAS(type)                                                                                                      \
    {                                                                                                                  \
        type e = (type)*expect;                                                                                        \
        bool ok = __atomic_compare_exchange_n((type *)(void *)p, &e, (type)desired, false, __ATOMIC_SEQ_CST,           \
                                              __ATOMIC_SEQ_CST);                                                       \
        *expect = e;                                                                                                   \
        return ok;                                                                                                     \
    }
    switch (size) {
    case MO_8: CAS(uint8_t)
    case MO_16: CAS(uint16_t)
    case MO_32: CAS(uint32_t)
    default: CAS(uint64_t)
    }
#undef CAS
}

_Atomic uint32_t access_ex_versions[EX_GRANULES];

static _Atomic uint32_t *version_of(const uint8_t *p)
{
    return &access_ex_versions[(uintptr_t)p >> EX_GRANULE_SHIFT & (EX_GRANULES - 1)];
}

/* Before the load. */
static uint32_t note_version(const uint8_t *p)
{
    return atomic_load_explicit(version_of(p), memory_order_acquire);
}

static void mark(struct cpu *cpu, const uint8_t *p, unsigned bytes, uint32_t version, const uint64_t data[2])
{
    cpu->ex = (struct exclusive){true, (uint8_t)bytes, version, (uint64_t)(uintptr_t)p, {data[0], data[1]}};
}

static bool swap_exclusive(const struct exclusive *ex, uint8_t *p, const uint64_t value[2])
{
    uint64_t expect[2] = {ex->data[0], ex->data[1]};

    return ex->bytes == 16 ? cas_128(p, expect, value) : cas_64(p, bits_ctz(ex->bytes), expect, value[0]);
}

/* While the version is v. */
static bool swap_versioned(const struct exclusive *ex, uint8_t *p, const uint64_t value[2], uint32_t v)
{
    if (v & 1 || !atomic_compare_exchange_strong(version_of(p), &v, v + 1))
        return false;
    bool stored = swap_exclusive(ex, p, value);
    uint32_t next = stored ? v + 2 : v;
    atomic_store_explicit(version_of(p), next ? next : 2, memory_order_release);
    return stored;
}

static bool swap_paired(const struct exclusive *ex, uint8_t *p, const uint64_t value[2])
{
    uint32_t v = note_version(p);

    return v ? swap_versioned(ex, p, value, v) : swap_exclusive(ex, p, value);
}

/* From now on all exclusive stores to the granule move its version on.  False: the vCPU was out of guest code meanwhile. */
static bool begin_versions(struct cpu *cpu, const uint8_t *p)
{
    uint32_t none = 0;

    if (!cpu->cluster->paired_exclusives || !atomic_compare_exchange_strong(version_of(p), &none, 1))
        return true;
    cluster_quiesce(cpu);
    atomic_store(version_of(p), 2);
    return false;
}

bool access_load_ex(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t *out)
{
    unsigned size = mop & MO_SIZE;
    uint8_t *p = atomic_host(cpu, va, mop, 1u << size, MMU_READ);
    uint64_t data[2] = {0, 0};

    if (!p)
        return false;
    uint32_t version = note_version(p);
    data[0] = access_host_load(p, size);
    mark(cpu, p, 1u << size, version, data);
    *out = data[0];
    return true;
}

bool access_load_ex_pair(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t *a, uint64_t *b)
{
    unsigned size = mop & MO_SIZE;
    uint8_t *p = atomic_host(cpu, va, mop, 2u << size, MMU_READ);
    uint64_t data[2] = {0, 0};

    if (!p)
        return false;
    uint32_t version = note_version(p);
    if (size == MO_64)
        load_128(p, data);
    else
        data[0] = access_host_load(p, MO_64);
    mark(cpu, p, 2u << size, version, data);
    *a = size == MO_64 ? data[0] : (uint32_t)data[0];
    *b = size == MO_64 ? data[1] : data[0] >> 32;
    return true;
}

/* The order of checks is that of AArch64.ExclusiveMonitorsPass(): alignment, local monitor, translation. */
static bool store_ex(struct cpu *cpu, uint64_t va, unsigned mop, unsigned bytes, const uint64_t value[2],
                     uint64_t *status)
{
    struct exclusive ex = cpu->ex;
    bool paired = mop & MO_PAIRED;
    uint8_t *p;

    mop &= ~(unsigned)MO_PAIRED;
    if (va & (bytes - 1))
        return data_abort(cpu, va, FSC_ALIGNMENT, ISS_WNR);
    *status = 1;
    if (!ex.valid || ex.bytes != bytes) {
        cpu->ex.valid = false;
        return true;
    }
    p = atomic_host(cpu, va, mop, bytes, MMU_WRITE);
    if (!p)
        return false;
    cpu->ex.valid = false;
    if ((uint64_t)(uintptr_t)p != ex.hva)
        return true;
    if (cpu->cluster->n == 1) {
        *status = !swap_exclusive(&ex, p, value);
    } else if (paired) {
        *status = !swap_paired(&ex, p, value);
    } else if (ex.version || !cpu->cluster->paired_exclusives) {
        *status = !swap_versioned(&ex, p, value, ex.version);
    } else if (!begin_versions(cpu, p)) { /* whatever the engine took for granted may have changed: once more, and fail */
        cpu->next_pc = cpu->pc;
        return false;
    }
    return true;
}

bool access_store_ex(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t value, uint64_t *status)
{
    return store_ex(cpu, va, mop, 1u << (mop & MO_SIZE), (uint64_t[2]){value, 0}, status);
}

bool access_store_ex_pair(struct cpu *cpu, uint64_t va, unsigned mop, uint64_t a, uint64_t b, uint64_t *status)
{
    uint64_t value[2] = {a, b};

    if ((mop & MO_SIZE) == MO_32)
        value[0] = (uint32_t)a | b << 32;
    return store_ex(cpu, va, mop, 2u << (mop & MO_SIZE), value, status);
}

bool access_ex_lost(const struct cpu *cpu)
{
    const uint8_t *p = (const uint8_t *)(uintptr_t)cpu->ex.hva;

    if (!cpu->ex.valid)
        return false;
    if (cpu->ex.bytes < 16)
        return access_host_load(p, bits_ctz(cpu->ex.bytes)) != cpu->ex.data[0];
    return access_host_load(p, MO_64) != cpu->ex.data[0] || access_host_load(p + 8, MO_64) != cpu->ex.data[1];
}

/* ---- LSE ---- */

static uint64_t rmw_result(enum rmw op, unsigned size, uint64_t old, uint64_t operand)
{
    unsigned bits = 8u << size;
    int64_t a = bits_sext(old, bits), b = bits_sext(operand, bits);

    operand &= bits_mask(bits);
    switch (op) {
    case RMW_ADD: return old + operand;
    case RMW_CLR: return old & ~operand;
    case RMW_EOR: return old ^ operand;
    case RMW_SET: return old | operand;
    case RMW_SMAX: return a > b ? old : operand;
    case RMW_SMIN: return a < b ? old : operand;
    case RMW_UMAX: return old > operand ? old : operand;
    case RMW_UMIN: return old < operand ? old : operand;
    case RMW_SWP: return operand;
    }
    return old;
}

bool access_rmw(struct cpu *cpu, enum rmw op, unsigned mop, uint64_t va, uint64_t operand, uint64_t *old)
{
    unsigned size = mop & MO_SIZE;
    uint8_t *p = atomic_host(cpu, va, mop, 1u << size, MMU_RMW);
    uint64_t seen;

    if (!p)
        return false;
    seen = access_host_load(p, size);
    while (!cas_64(p, size, &seen, rmw_result(op, size, seen, operand)))
        ;
    *old = seen;
    return true;
}

bool access_cas(struct cpu *cpu, unsigned mop, uint64_t va, uint64_t expect, uint64_t desired, uint64_t *old)
{
    unsigned size = mop & MO_SIZE;
    uint8_t *p = atomic_host(cpu, va, mop, 1u << size, MMU_RMW);

    if (!p)
        return false;
    cas_64(p, size, &expect, desired);
    *old = expect & bits_mask(8u << size);
    return true;
}

bool access_casp(struct cpu *cpu, unsigned mop, uint64_t va, const uint64_t expect[2], const uint64_t desired[2],
                 uint64_t old[2])
{
    unsigned size = mop & MO_SIZE;
    uint8_t *p = atomic_host(cpu, va, mop, 2u << size, MMU_RMW);
    uint64_t e[2] = {expect[0], expect[1]};

    if (!p)
        return false;
    if (size == MO_64) {
        cas_128(p, e, desired);
    } else {
        e[0] = (uint32_t)expect[0] | expect[1] << 32;
        cas_64(p, MO_64, &e[0], (uint32_t)desired[0] | desired[1] << 32);
        e[1] = e[0] >> 32;
        e[0] = (uint32_t)e[0];
    }
    old[0] = e[0];
    old[1] = e[1];
    return true;
}

/* ---- the rest ---- */

/* DC ZVA (C5.3.14): the fault address is the operand as given; on Device memory it is an Alignment fault. */
bool access_zero(struct cpu *cpu, uint64_t va, unsigned bytes)
{
    static const uint8_t zeros[MEM_PAGE_SIZE];
    uint64_t start = va & -(uint64_t)bytes;
    uint8_t *p = access_fast(cpu, start, MO_8, bytes, true);
    struct tlb_hit hit;

    if (likely(p) && !cpu->tlb->fast[tlb_index(va, TLB_FAST_BITS)].device) {
        memset(p, 0, bytes);
        return true;
    }
    if (!translate(cpu, va, 0, MMU_WRITE, &hit))
        return false;
    if (hit.device)
        return data_abort(cpu, va, FSC_ALIGNMENT, ISS_WNR);
    if (cpu->tlb->watching && !debug_check_watch(cpu, start, bytes, true))
        return false;
    if (!hit.host)
        return io_store(cpu, start, hit.pa & -(uint64_t)bytes, MO_64, zeros, bytes);
    if (hit.writable)
        memset(hit.host - (va - start), 0, bytes);
    return true;
}

bool access_fetch_slow(struct cpu *cpu, uint64_t va, const uint8_t **hva_page, uint64_t *pa_page)
{
    struct tlb_hit hit;
    uint8_t fsc;

    if (va & 3) {
        cpu_take_sync(cpu, EC_PC_ALIGN, 0, va, va);
        return false;
    }
    fsc = tlb_lookup(cpu, va, MMU_EXEC, cpu->el ? VIEW_EL1 : VIEW_EL0, &hit);
    if (fsc == FSC_NONE && !hit.host)
        fsc = FSC_EXTERNAL;
    if (fsc != FSC_NONE) {
        cpu_take_sync(cpu, EC_IABT_LOWER, fsc, va, va);
        return false;
    }
    *hva_page = hit.host - (va & ~TLB_PAGE_MASK);
    *pa_page = hit.pa & TLB_PAGE_MASK;
    return true;
}
