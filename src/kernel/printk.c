/*
 * The kernel's log, from printk's ring buffer (5.10 and later): descriptors, records' facts and texts in three rings.
 */
#include <string.h>

#include "kernel/guts.h"

enum { COUNT_BITS_MAX = 20, TEXT_BITS_MAX = 27, STATE_SHIFT = 62, COMMITTED = 1, FINALIZED = 2 };

struct ring { /* copies of the guest's */
    uint64_t n, text_size;
    uint8_t *descs, *infos, *text;
    uint32_t desc_size, info_size;
    struct btf_field state, begin, next, ts, len;
    uint64_t head, tail;
};

static uint64_t get(const uint8_t *p, struct btf_field f)
{
    uint64_t v = 0;

    memcpy(&v, p + f.off, MIN(f.size, sizeof v));
    return v;
}

static uint8_t *copy(struct kernel *k, uint64_t va, uint64_t size)
{
    uint8_t *p = g_malloc(size);

    if (kernel_read(k, va, p, size))
        return p;
    g_free(p);
    return NULL;
}

static bool fields_find(struct kernel *k, struct ring *r)
{
    r->desc_size = kernel_sizeof(k, "prb_desc");
    r->info_size = kernel_sizeof(k, "printk_info");
    r->state = kernel_field(k, "prb_desc", "state_var");
    r->begin = kernel_field(k, "prb_desc", "text_blk_lpos.begin");
    r->next = kernel_field(k, "prb_desc", "text_blk_lpos.next");
    r->ts = kernel_field(k, "printk_info", "ts_nsec");
    r->len = kernel_field(k, "printk_info", "text_len");
    const struct btf_field *all[] = { &r->state, &r->begin, &r->next, &r->ts, &r->len };
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
        if (!all[i]->size || all[i]->off + all[i]->size > (i < 3 ? r->desc_size : r->info_size))
            return false;
    return true;
}

static bool ring_read(struct kernel *k, struct ring *r)
{
#define RING(path) kernel_get(k, prb, kernel_field(k, "printk_ringbuffer", path))
    uint64_t prb;

    if (!kernel_variable(k, "prb", 8, &prb) && !k->log)
        k->log = search_log(k);
    prb = prb ? prb : k->log;
    if (!prb || !fields_find(k, r))
        return false;
    uint64_t bits = RING("desc_ring.count_bits"), text_bits = RING("text_data_ring.size_bits");
    if (!bits || bits > COUNT_BITS_MAX || !text_bits || text_bits > TEXT_BITS_MAX)
        return false;
    r->n = UINT64_C(1) << bits;
    r->text_size = UINT64_C(1) << text_bits;
    r->head = RING("desc_ring.head_id");
    r->tail = RING("desc_ring.tail_id");
    r->descs = copy(k, RING("desc_ring.descs"), r->n * r->desc_size);
    r->infos = copy(k, RING("desc_ring.infos"), r->n * r->info_size);
    r->text = copy(k, RING("text_data_ring.data"), r->text_size);
    return r->descs && r->infos && r->text;
#undef RING
}

static void ring_free(struct ring *r)
{
    g_free(r->descs);
    g_free(r->infos);
    g_free(r->text);
}

/* The text of a record; NULL: it has none.  Its block begins with 8 bytes, and at the ring's start when it would wrap. */
static const char *record_text(const struct ring *r, const uint8_t *desc, size_t *len)
{
    uint64_t begin = get(desc, r->begin), next = get(desc, r->next), mask = r->text_size - 1, at = (begin & mask) + 8;

    if (begin & 1)
        return NULL;
    if ((begin & ~mask) != (next & ~mask) && next & mask)
        at = 8;
    if (at > r->text_size)
        return NULL;
    *len = MIN(*len, r->text_size - at);
    return (const char *)r->text + at;
}

static void print_record(uint64_t ns, const char *text, size_t len, GString *out)
{
    for (const char *p = text, *end = text + len;; ) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((line_end ? line_end : end) - p);
        g_string_append_printf(out, "[%5" G_GUINT64_FORMAT ".%06" G_GUINT64_FORMAT "] ", (guint64)(ns / 1000000000),
                               (guint64)(ns / 1000 % 1000000));
        for (size_t i = 0; i < n; i++)
            g_string_append_c(out, (unsigned char)p[i] < 32 && p[i] != '\t' ? '?' : p[i]);
        g_string_append_c(out, '\n');
        if (!line_end || line_end + 1 >= end)
            return;
        p = line_end + 1;
    }
}

void kernel_print_log(struct kernel *k, GString *out)
{
    const uint64_t id_mask = (UINT64_C(1) << STATE_SHIFT) - 1;
    struct ring r = { 0 };
    gsize before = out->len;

    if (!kernel_ready(k, out))
        return;
    if (!ring_read(k, &r)) {
        g_string_append(out, "the kernel's log is not to be found\n");
    } else {
        uint64_t id = r.tail & id_mask;
        for (uint64_t i = 0; i < r.n; i++, id = (id + 1) & id_mask) {
            const uint8_t *desc = r.descs + (id & (r.n - 1)) * r.desc_size;
            const uint8_t *info = r.infos + (id & (r.n - 1)) * r.info_size;
            uint64_t state = get(desc, r.state);
            size_t len = get(info, r.len);
            unsigned which = state >> STATE_SHIFT;
            const char *text = (state & id_mask) == id && (which == COMMITTED || which == FINALIZED)
                                   ? record_text(&r, desc, &len) : NULL;
            if (text)
                print_record(get(info, r.ts), text, len, out);
            if (id == (r.head & id_mask))
                break;
        }
    }
    if (out->len == before)
        g_string_append(out, "the kernel's log is empty\n");
    ring_free(&r);
}
