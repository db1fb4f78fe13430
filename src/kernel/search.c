/*
 * What a kernel without CONFIG_KALLSYMS_ALL (Debian's 6.1) does not name: its variables.  Each is looked for in the
 * image by a shape that nothing else has; what was found is kept until the image changes.
 */
#include <string.h>

#include "kernel/guts.h"

#define INSN_WFI           UINT32_C(0xd503207f)
#define INSN_MSR_SP_EL0_X1 UINT32_C(0xd5184101)
enum { SEARCH_INSNS = 64, FIRST_MAX = 1 << 20, FIRST_USUAL = 65536 };
enum { BTF_MIN = 65536, ROOT_REACH = 4, PROBE = 1 << 20 /* code, which is never freed */, NAME_SIZE = 56, RING_BITS_MIN = 5, RING_BITS_MAX = 20, TEXT_BITS_MIN = 10,
       TEXT_BITS_MAX = 27, ID_BITS = 62 };

static uint64_t word(const struct span *image, size_t at)
{
    uint64_t v = 0;

    if (at + 8 <= image->len)
        memcpy(&v, image->hva + at, 8);
    return v;
}

static bool is_kernel_va(uint64_t va)
{
    return va >> 48 == 0xffff && !(va & 7);
}

static struct span image_of(struct kernel *k)
{
    return mem_span(k->mem, k->image_pa, k->image_size);
}

static uint64_t image_va(struct kernel *k)
{
    struct kernel_place p;
    return kernel_where(k, &p) ? p.text_va : 0;
}

/* --- the first symbol ------------------------------------------------------------------------------------------- */

static bool holds(const struct span *image, const struct kallsyms *s, const char *name, uint64_t delta, uint32_t insn)
{
    int i = kallsyms_named(s, name);
    uint32_t here;

    for (unsigned n = 0; i >= 0 && n < SEARCH_INSNS; n++) {
        uint64_t at = delta + s->offset[i] + 4 * n;
        if (at + 4 > image->len)
            return false;
        memcpy(&here, image->hva + at, 4);
        if (here == insn)
            return true;
    }
    return false;
}

/* The first function stands behind the header, on a boundary of a segment: two that are known must be in their places. */
uint64_t search_first_symbol(const struct span *image, const struct kallsyms *s)
{
    for (uint64_t delta = 0; delta <= FIRST_MAX; delta += 4096)
        if (holds(image, s, "cpu_do_idle", delta, INSN_WFI) && holds(image, s, "cpu_switch_to", delta, INSN_MSR_SP_EL0_X1))
            return delta;
    return FIRST_USUAL;
}

/* --- page tables ------------------------------------------------------------------------------------------------ */

/*
 * TTBR1 of a vCPU that is in the kernel; of one at EL0 it may be the trampoline's (KPTI), which lies some pages below.
 * Right is what maps the image to where it is.
 */
bool search_root(struct kernel *k, uint64_t *root)
{
    unsigned shift = kernel_page_shift(k);
    uint64_t text = image_va(k), pa;

    for (unsigned i = 0; text && i < k->cluster->n; i++) {
        const struct cpu *cpu = k->cluster->cpu[i];
        uint64_t base = (cpu->sys.ttbr1_el1 & UINT64_C(0xfffffffffffe)) >> shift << shift;
        for (unsigned n = 0; base && n <= ROOT_REACH; n++) {
            *root = base + ((uint64_t)n << shift);
            if (kernel_walk(k, *root, text + PROBE, &pa) && pa == k->image_pa + PROBE)
                return true;
        }
    }
    return false;
}

/* --- types -------------------------------------------------------------------------------------------------------- */

struct btf *search_btf(struct kernel *k)
{
    static const uint8_t mark[] = { 0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0 };
    struct span image = image_of(k);
    uint32_t lengths[3];

    for (const uint8_t *p = image.hva, *end = p + image.len; p && (p = memmem(p, (size_t)(end - p), mark, sizeof mark));
         p += sizeof mark) {
        size_t left = (size_t)(end - p);
        if (left < 24)
            break;
        memcpy(lengths, p + sizeof mark, sizeof lengths); /* of the types, where strings are, their length */
        uint64_t size = UINT64_C(24) + lengths[1] + lengths[2];
        struct btf *b = lengths[0] >= BTF_MIN && size <= left ? btf_new(p, size) : NULL;
        if (b)
            return b;
    }
    return NULL;
}

/* --- the first task ------------------------------------------------------------------------------------------------ */

/* Its parent is itself, its number is 0, and its neighbours in the list of tasks point back. */
static bool is_init_task(struct kernel *k, const struct span *image, uint64_t va, size_t at)
{
    struct btf_field parent = kernel_field(k, "task_struct", "real_parent"), pid = kernel_field(k, "task_struct", "pid"),
                     tasks = kernel_field(k, "task_struct", "tasks");
    uint64_t self = va + at, next = word(image, at + tasks.off), back;

    return word(image, at + parent.off) == self && !kernel_get(k, self, pid) && is_kernel_va(next) &&
           kernel_read(k, next + 8, &back, 8) && back == self + tasks.off;
}

uint64_t search_init_task(struct kernel *k)
{
    static const char name[] = "swapper";
    struct btf_field comm = kernel_field(k, "task_struct", "comm");
    struct span image = image_of(k);
    uint64_t va = image_va(k);

    if (!va || !comm.size)
        return 0;
    for (const uint8_t *p = image.hva, *end = p + image.len; p && (p = memmem(p, (size_t)(end - p), name, 7)); p += 7) {
        size_t at = (size_t)(p - image.hva);
        if (at > comm.off && !((at - comm.off) & 7) && is_init_task(k, &image, va, at - comm.off))
            return va + at - comm.off;
    }
    return 0;
}

/* --- modules ---------------------------------------------------------------------------------------------------------- */

/* A struct module lies within the memory of its own module. */
static bool is_module(struct kernel *k, uint64_t va)
{
    struct btf_field name = kernel_field(k, "module", "name"), base = kernel_field(k, "module", "core_layout.base"),
                     size = kernel_field(k, "module", "core_layout.size"), mem = kernel_field(k, "module", "mem"),
                     mem_base = kernel_field(k, "module_memory", "base"), mem_size = kernel_field(k, "module_memory", "size");
    uint32_t stride = kernel_sizeof(k, "module_memory");
    char text[NAME_SIZE];

    if (!kernel_read(k, va + name.off, text, sizeof text) || !g_ascii_isalnum(text[0]) || !memchr(text, 0, sizeof text))
        return false;
    if (base.size)
        return va - kernel_get(k, va, base) < kernel_get(k, va, size);
    for (uint32_t off = 0; stride && off + stride <= mem.size; off += stride)
        if (va - kernel_get(k, va + mem.off + off, mem_base) < kernel_get(k, va + mem.off + off, mem_size))
            return true;
    return false;
}

uint64_t search_modules(struct kernel *k)
{
    struct btf_field list = kernel_field(k, "module", "list");
    struct span image = image_of(k);
    uint64_t va = image_va(k), back;

    for (size_t at = 0; va && list.size && at + 16 <= image.len; at += 8) {
        uint64_t next = word(&image, at);
        if (!is_kernel_va(next) || next - va < k->image_size || !is_kernel_va(word(&image, at + 8)))
            continue;
        if (kernel_read(k, next + 8, &back, 8) && back == va + at && is_module(k, next - list.off))
            return va + at;
    }
    return 0;
}

/* --- the log ------------------------------------------------------------------------------------------------------------ */

struct ring_fields {
    struct btf_field bits, descs, infos, head, text_bits, data, state, seq;
    uint32_t desc_size, info_size;
};

/* The number of the last record plus one; 0: that is no ring. */
static uint64_t ring_age(struct kernel *k, const struct ring_fields *f, const struct span *image, size_t at)
{
    uint32_t bits = (uint32_t)word(image, at + f->bits.off), text_bits = (uint32_t)word(image, at + f->text_bits.off);
    uint64_t descs, infos, head;

    if (bits < RING_BITS_MIN || bits > RING_BITS_MAX || text_bits < TEXT_BITS_MIN || text_bits > TEXT_BITS_MAX)
        return 0;
    descs = word(image, at + f->descs.off);
    infos = word(image, at + f->infos.off);
    if (!is_kernel_va(descs) || !is_kernel_va(infos))
        return 0;
    head = word(image, at + f->head.off) & ((UINT64_C(1) << ID_BITS) - 1);
    uint64_t i = head & ((UINT64_C(1) << bits) - 1), state = kernel_get(k, descs + i * f->desc_size, f->state);
    if ((state & ((UINT64_C(1) << ID_BITS) - 1)) != head)
        return 0;
    return kernel_get(k, infos + i * f->info_size, f->seq) + 1;
}

uint64_t search_log(struct kernel *k)
{
#define RING(path) kernel_field(k, "printk_ringbuffer", path)
    const struct ring_fields f = {
        RING("desc_ring.count_bits"), RING("desc_ring.descs"), RING("desc_ring.infos"), RING("desc_ring.head_id"),
        RING("text_data_ring.size_bits"), RING("text_data_ring.data"), kernel_field(k, "prb_desc", "state_var"),
        kernel_field(k, "printk_info", "seq"), btf_sizeof(k->btf, "prb_desc"), btf_sizeof(k->btf, "printk_info") };
    struct span image = image_of(k);
    uint64_t va = image_va(k), best = 0, found = 0;

    for (size_t at = 0; va && f.seq.size && f.state.size && at + 128 <= image.len; at += 8) {
        uint64_t age = ring_age(k, &f, &image, at);
        if (age > best) {
            best = age;
            found = va + at;
        }
    }
    return found;
#undef RING
}
