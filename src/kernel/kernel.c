/*
 * See kernel.h: where the kernel is, its memory, its symbols.
 *
 * The image lies at one physical address from boot on, so its own variables are read there, whatever the vCPUs' page
 * tables say; all else (linear map, vmalloc, modules) through swapper_pg_dir, since a vCPU at EL0 may have the trampoline
 * tables of KPTI in TTBR1.
 */
#include "kernel/kernel.h"

#include <string.h>

#include "kernel/debuginfo.h"
#include "kernel/guts.h"
#include "kernel/symfile.h"

enum { HEADER_STEP = 2 << 20, IMAGE_MAX = 256 << 20, IMAGE_MIN = 4096, R_RELATIVE = 0x403 /* R_AARCH64_RELATIVE */ };

/* --- life ---------------------------------------------------------------------------------------------------- */

struct kernel *kernel_new(struct cluster *cluster)
{
    struct kernel *k = g_new0(struct kernel, 1);

    k->cluster = cluster;
    k->mem = cluster->cpu[0]->mem;
    k->problem = "no kernel was loaded";
    k->kept = g_ptr_array_new_with_free_func(g_free);
    k->modfiles = modfiles_new();
    return k;
}

static void forget(struct kernel *k)
{
    g_clear_pointer(&k->syms, kallsyms_free);
    g_clear_pointer(&k->btf, btf_free);
    k->types = NULL;
    k->typed = k->types_tried = false;
    k->link_va = k->root = k->init_task = k->modules = k->log = 0;
}

void kernel_free(struct kernel *k)
{
    forget(k);
    g_clear_pointer(&k->given, symfile_free);
    modfiles_free(k->modfiles);
    g_ptr_array_free(k->kept, TRUE);
    g_free(k);
}

void kernel_set_image(struct kernel *k, uint64_t pa, uint64_t size)
{
    forget(k);
    k->image_pa = pa;
    k->image_size = MIN(size, IMAGE_MAX);
    k->predicted = 0;
    k->none = false;
}

void kernel_predict(struct kernel *k, uint64_t text_va)
{
    k->predicted = text_va;
}

/* Modules lie below the vmlinux in a kernel's tree and among Debian's debug packages; not below any other folder. */
static void add_module_folders(struct kernel *k, const char *vmlinux)
{
    g_autofree char *folder = g_path_get_dirname(vmlinux), *modules = g_build_filename(folder, "modules", NULL);
    g_autofree char *inner = g_build_filename(folder, "kernel", NULL);

    modfiles_add(k->modfiles, modules, true);
    modfiles_add(k->modfiles, folder, g_file_test(inner, G_FILE_TEST_IS_DIR));
}

void kernel_add_modules(struct kernel *k, const char *folder)
{
    modfiles_add(k->modfiles, folder, true);
}

bool kernel_load_symbols(struct kernel *k, const char *path, GError **err)
{
    struct symfile *f = symfile_open(path, err);

    if (!f)
        return false;
    g_clear_pointer(&k->given, symfile_free);
    k->given = f;
    k->types = NULL;
    k->types_tried = false;
    add_module_folders(k, path);
    return true;
}

void kernel_set_source(struct kernel *k, GBytes *(*source)(void *opaque), void *opaque)
{
    k->source = source;
    k->source_opaque = opaque;
}

const char *kernel_problem(const struct kernel *k)
{
    return k->problem;
}

/* --- the image ------------------------------------------------------------------------------------------------- */

/* Without -kernel: an Image's header (booting.rst) at one of the places where it may be loaded. */
static bool search_image(struct kernel *k)
{
    uint64_t base = mem_ram_base(k->mem), size = mem_ram_size(k->mem);
    uint8_t header[64];

    for (uint64_t off = 0; off < size; off += HEADER_STEP) {
        uint64_t image_size;
        if (!mem_read(k->mem, base + off, header, sizeof header) || memcmp(header + 56, "ARM\x64", 4))
            continue;
        memcpy(&image_size, header + 16, 8);
        if (image_size < IMAGE_MIN || image_size > size - off)
            continue;
        k->image_pa = base + off;
        k->image_size = MIN(image_size, IMAGE_MAX);
        return true;
    }
    return false;
}

/* What the relocation of the symbols' base says: that it is `addend' as linked, where _text is the image's start. */
static uint64_t link_base(const uint8_t *image, size_t len, size_t base_at, uint64_t text_off)
{
    for (size_t at = 0; at + 24 <= len; at += 8) {
        uint64_t rela[3];
        memcpy(rela, image + at, sizeof rela);
        if (rela[1] == R_RELATIVE && rela[0] - rela[2] == base_at + text_off && rela[2] >> 48 == 0xffff)
            return rela[2];
    }
    return 0;
}

static uint64_t symbols_base(struct kernel *k)
{
    uint64_t base = 0;

    if (k->predicted && !kernel_is_relocated(k))
        return k->predicted - k->text_off;
    if (!mem_read(k->mem, k->image_pa + k->syms->base_at, &base, 8) || base >> 48 != 0xffff)
        return k->link_va ? k->link_va - k->text_off : 0;
    return base;
}

static bool find_symbols(struct kernel *k)
{
    struct span image = mem_span(k->mem, k->image_pa, k->image_size);
    uint64_t base;

    k->syms = image.hva ? kallsyms_find(image.hva, image.len) : NULL;
    if (!k->syms)
        return false;
    int text = kallsyms_named(k->syms, "_text");
    k->text_off = text >= 0 ? k->syms->offset[text] : -search_first_symbol(&image, k->syms);
    memcpy(&base, image.hva + k->syms->base_at, 8);
    if (base >> 48 != 0xffff && (base = link_base(image.hva, image.len, k->syms->base_at, k->text_off)))
        k->link_va = base + k->text_off;
    else if (base && !kernel_is_relocated(k))
        k->link_va = base + k->text_off;
    return true;
}

bool kernel_look(struct kernel *k)
{
    if (k->syms)
        return true;
    if (!k->image_size && !search_image(k)) {
        k->problem = "there is no Linux kernel in memory";
        return false;
    }
    if (!k->none && find_symbols(k))
        return true;
    k->none = true;
    k->problem = "the kernel carries no symbols that can be found (CONFIG_KALLSYMS); -kernel-symbols FILE gives them";
    return false;
}

/* Vectors are set when the kernel has moved itself and runs at its virtual address. */
bool kernel_is_relocated(struct kernel *k)
{
    return k->cluster->cpu[0]->sys.vbar_el1 >> 63;
}

/* The offset of KASLR as the kernel itself notes it for crash dumps. */
static uint64_t noted_offset(struct kernel *k, bool *known)
{
    static const char key[] = "KERNELOFFSET=";
    uint64_t va = 0;
    char text[4097] = "";

    *known = kernel_variable(k, "vmcoreinfo_data", 8, &va) && kernel_read(k, va, text, sizeof text - 1);
    const char *at = *known ? strstr(text, key) : NULL;
    *known = at;
    return at ? g_ascii_strtoull(at + strlen(key), NULL, 16) : 0;
}

/* As the image was before it moved itself. */
static uint64_t source_link(struct kernel *k)
{
    GBytes *source = k->source ? k->source(k->source_opaque) : NULL;
    uint64_t base = 0;
    gsize size;

    if (!source)
        return 0;
    const uint8_t *p = g_bytes_get_data(source, &size);
    if (k->syms->base_at + 8 <= size)
        memcpy(&base, p + k->syms->base_at, 8);
    if (base >> 48 != 0xffff)
        base = link_base(p, size, k->syms->base_at, k->text_off);
    g_bytes_unref(source);
    return base ? base + k->text_off : 0;
}

bool kernel_where(struct kernel *k, struct kernel_place *place)
{
    bool known;

    if (!kernel_look(k) || !symbols_base(k))
        return false;
    *place = (struct kernel_place){ symbols_base(k) + k->text_off, k->image_pa, k->image_size, k->link_va };
    if (!k->link_va && kernel_is_relocated(k)) {
        uint64_t offset = noted_offset(k, &known);
        place->link_va = k->link_va = known ? place->text_va - offset : source_link(k);
    }
    return true;
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

static bool image_translate(struct kernel *k, uint64_t va, uint64_t *pa)
{
    uint64_t base = k->syms ? symbols_base(k) : 0, off = va - (base + k->text_off);

    if (!base || off >= k->image_size)
        return false;
    *pa = k->image_pa + off;
    return true;
}

unsigned kernel_page_shift(const struct kernel *k)
{
    unsigned tg = k->cluster->cpu[0]->sys.tcr_el1 >> 30 & 3; /* TG1 */
    return tg == 1 ? 14 : tg == 3 ? 16 : 12;
}

/* Stage 1 descriptors (DDI0487 D8.3). */
bool kernel_walk(struct kernel *k, uint64_t table, uint64_t va, uint64_t *pa)
{
    unsigned shift = kernel_page_shift(k), bits = 64 - MAX(k->cluster->cpu[0]->sys.tcr_el1 >> 16 & 63, 12);
    unsigned stride = shift - 3, levels = (bits - shift + stride - 1) / stride;

    if (bits < 64 && va >> bits != UINT64_MAX >> bits)
        return false;
    for (unsigned left = levels; left--;) {
        unsigned low = shift + left * stride, width = left == levels - 1 ? bits - low : stride;
        uint64_t index = va >> low & ((UINT64_C(1) << width) - 1), d;
        if (!mem_read(k->mem, table + 8 * index, &d, 8) || !(d & 1))
            return false;
        uint64_t out = d & UINT64_C(0x0000fffffffff000);
        if (!left || !(d & 2)) {
            uint64_t mask = (UINT64_C(1) << low) - 1;
            *pa = (out & ~mask) | (va & mask);
            return left ? !(d & 2) : d & 2;
        }
        table = out & ~((UINT64_C(1) << shift) - 1);
    }
    return false;
}

static bool find_root(struct kernel *k)
{
    struct kernel_symbol sym;
    uint64_t tables = 0;

    for (unsigned i = 0; i < k->cluster->n; i++) /* early ones give way to others; the ASID in the top does not count */
        tables = tables * 31 + (k->cluster->cpu[i]->sys.ttbr1_el1 << 16);
    if (k->root && k->root_for == tables)
        return true;
    k->root_for = tables;
    if (kernel_find_symbol(k, "swapper_pg_dir", &sym) && image_translate(k, sym.va, &k->root))
        return true;
    if (!search_root(k, &k->root))
        k->root = 0;
    return k->root;
}

bool kernel_translate(struct kernel *k, uint64_t va, uint64_t *pa)
{
    if (!(va >> 63))
        return false;
    return image_translate(k, va, pa) || (kernel_is_relocated(k) && find_root(k) && kernel_walk(k, k->root, va, pa));
}

bool kernel_read(struct kernel *k, uint64_t va, void *buf, size_t len)
{
    for (size_t done = 0, n; done < len; done += n) {
        uint64_t pa;
        n = MIN(len - done, MEM_PAGE_SIZE - (size_t)((va + done) & (MEM_PAGE_SIZE - 1)));
        if (!kernel_translate(k, va + done, &pa) || !mem_span(k->mem, pa, n).hva)
            return false;
        memcpy((uint8_t *)buf + done, mem_span(k->mem, pa, n).hva, n);
    }
    return true;
}

uint64_t kernel_get(struct kernel *k, uint64_t va, struct btf_field f)
{
    uint64_t value = 0;

    if (!f.size || f.size > 8 || !kernel_read(k, va + f.off, &value, f.size))
        return 0;
    return f.bits ? value >> f.bit & ((UINT64_C(1) << f.bits) - 1) : value;
}

bool kernel_variable(struct kernel *k, const char *name, unsigned size, uint64_t *value)
{
    struct kernel_symbol sym;

    *value = 0;
    return kernel_find_symbol(k, name, &sym) && kernel_read(k, sym.va, value, size);
}

char *kernel_string(struct kernel *k, uint64_t va, size_t max)
{
    GString *s = g_string_new(NULL);
    char c;

    while (s->len < max && kernel_read(k, va + s->len, &c, 1) && c)
        g_string_append_c(s, (unsigned char)c < 32 || c == 127 ? '?' : c);
    if (!s->len && !kernel_read(k, va, &c, 1))
        return g_string_free(s, TRUE);
    return g_string_free(s, FALSE);
}

/* The kernel keeps the offset of a CPU's instances in TPIDR_EL1. */
bool kernel_percpu(struct kernel *k, const char *name, unsigned cpu, uint64_t *va)
{
    struct kernel_symbol sym;

    if (!kernel_find_symbol(k, name, &sym))
        return false;
    *va = sym.va + k->cluster->cpu[cpu]->sys.tpidr_el1;
    return true;
}

uint64_t kernel_named_or(struct kernel *k, const char *name, uint64_t *found, uint64_t (*search)(struct kernel *k))
{
    struct kernel_symbol sym;

    if (!*found)
        *found = kernel_find_symbol(k, name, &sym) ? sym.va : k->typed ? search(k) : 0;
    return *found;
}

/* --- types ------------------------------------------------------------------------------------------------------- */

static void look_for_btf(struct kernel *k)
{
    struct kernel_symbol start, stop;

    if (!kernel_find_symbol(k, "__start_BTF", &start) || !kernel_find_symbol(k, "__stop_BTF", &stop) ||
        stop.va < start.va || stop.va - start.va > IMAGE_MAX) {
        k->btf = search_btf(k);
        return;
    }
    size_t size = (size_t)(stop.va - start.va);
    g_autofree uint8_t *data = g_malloc(size + 1);
    if (kernel_read(k, start.va, data, size))
        k->btf = btf_new(data, size);
}

static void look_for_types(struct kernel *k)
{
    k->types_tried = true;
    look_for_btf(k);
    if (!k->btf && k->given && debuginfo_has_types(symfile_debuginfo(k->given)))
        k->types = symfile_debuginfo(k->given);
    k->typed = k->btf || k->types;
}

void kernel_look_ahead(struct kernel *k)
{
    GArray *tasks = k->image_size && kernel_look(k) && kernel_is_relocated(k) && !k->init_task ? kernel_tasks(k, false) : NULL;

    if (tasks)
        g_array_free(tasks, TRUE);
}

bool kernel_ready(struct kernel *k, GString *out)
{
    if (!kernel_look(k)) {
        g_string_append_printf(out, "%s\n", k->problem);
        return false;
    }
    if (!k->types_tried)
        look_for_types(k);
    if (!k->typed) {
        k->problem = "the kernel carries no description of its structures (CONFIG_DEBUG_INFO_BTF); -kernel-symbols with a vmlinux "
                     "that has debug information gives it";
        g_string_append_printf(out, "%s\n", k->problem);
        return false;
    }
    if (!kernel_is_relocated(k)) {
        k->problem = "the kernel has only just started: it has not mapped itself yet";
        g_string_append_printf(out, "%s\n", k->problem);
        return false;
    }
    return true;
}

struct btf_field kernel_field(struct kernel *k, const char *type, const char *path)
{
    if (k->btf)
        return btf_find_field(k->btf, type, path);
    return k->types ? debuginfo_field(k->types, type, path) : (struct btf_field){ 0 };
}

uint32_t kernel_sizeof(struct kernel *k, const char *type)
{
    return k->btf ? btf_sizeof(k->btf, type) : k->types ? debuginfo_sizeof(k->types, type) : 0;
}

/* --- symbols ------------------------------------------------------------------------------------------------------ */

static void fill(struct kernel *k, unsigned i, struct kernel_symbol *sym)
{
    const struct kallsyms *s = k->syms;
    uint64_t end = k->text_off + k->image_size;

    *sym = (struct kernel_symbol){ .name = kallsyms_name(s, i), .va = symbols_base(k) + s->offset[i],
                                   .size = kallsyms_next(s, i, end) - s->offset[i], .type = kallsyms_type(s, i) };
}

/* By how much the kernel has moved from where the given file has it. */
static bool given_offset(struct kernel *k, uint64_t *offset)
{
    uint64_t text = symfile_find(k->given, "_text"), vectors = symfile_find(k->given, "vectors");
    uint64_t vbar = k->cluster->cpu[0]->sys.vbar_el1;

    *offset = 0;
    if (k->syms && symbols_base(k) && text)
        *offset = symbols_base(k) + k->text_off - text;
    else if (vectors && kernel_is_relocated(k) && !((vbar - vectors) & 0xffff))
        *offset = vbar - vectors;
    return true;
}

static bool given_symbol(struct kernel *k, const char *name, struct kernel_symbol *sym)
{
    uint64_t offset, va = k->given ? symfile_find(k->given, name) : 0;

    if (!va || !given_offset(k, &offset))
        return false;
    *sym = (struct kernel_symbol){ .name = name, .va = va + offset };
    return true;
}

bool kernel_find_symbol(struct kernel *k, const char *name, struct kernel_symbol *sym)
{
    int i = kernel_look(k) && symbols_base(k) ? kallsyms_named(k->syms, name) : -1;

    if (i >= 0)
        fill(k, (unsigned)i, sym);
    return i >= 0 || given_symbol(k, name, sym);
}

static bool given_address(struct kernel *k, uint64_t va, struct kernel_symbol *sym)
{
    uint64_t offset;

    if (!k->given || !given_offset(k, &offset) || !symfile_at(k->given, va - offset, sym))
        return false;
    sym->va += offset;
    return true;
}

bool kernel_find_address(struct kernel *k, uint64_t va, struct kernel_symbol *sym)
{
    uint64_t base = kernel_look(k) ? symbols_base(k) : 0;

    if (!base)
        return given_address(k, va, sym);
    if (va - k->image_pa < k->image_size)
        va += base + k->text_off - k->image_pa;
    if (va - (base + k->text_off) < k->image_size) {
        int i = kallsyms_at(k->syms, va - base);
        if (i >= 0)
            fill(k, (unsigned)i, sym);
        return i >= 0;
    }
    return (va >> 63 && modules_find_address(k, va, sym)) || given_address(k, va, sym);
}

/* " (file.c:123)", or "", by the debug information of -kernel-symbols or of a module's file. */
static char *line_text(struct kernel *k, uint64_t va, bool in_module)
{
    uint64_t offset;
    g_autofree char *line = in_module ? modules_line(k, va) : k->given && given_offset(k, &offset)
                                ? debuginfo_line(symfile_debuginfo(k->given), va - offset) : NULL;

    return line ? g_strdup_printf(" (%s)", line) : g_strdup("");
}

static char *describe(struct kernel *k, uint64_t va, uint64_t inside)
{
    struct kernel_symbol s;

    if (!kernel_find_address(k, inside, &s))
        return NULL;
    if (va - k->image_pa < k->image_size) { /* a physical one */
        struct kernel_place p;
        if (kernel_where(k, &p))
            va += p.text_va - p.text_pa;
    }
    g_autofree char *line = line_text(k, va >> 63 && inside >> 63 ? inside : va, s.module);
    return g_strdup_printf("%s+0x%" G_GINT64_MODIFIER "x/0x%" G_GINT64_MODIFIER "x%s%s%s%s", s.name, (guint64)(va - s.va),
                           (guint64)s.size, s.module ? " [" : "", s.module ? s.module : "", s.module ? "]" : "", line);
}

char *kernel_describe_address(struct kernel *k, uint64_t va)
{
    return describe(k, va, va);
}

char *kernel_describe_return(struct kernel *k, uint64_t va)
{
    return describe(k, va, va - 4);
}

void kernel_name_running(struct kernel *k, uint64_t va, char *buf, size_t size)
{
    uint64_t base = (va >> 63 || va - k->image_pa < k->image_size) && kernel_look(k) ? symbols_base(k) : 0;

    if (va - k->image_pa < k->image_size)
        va += base + k->text_off - k->image_pa;
    *buf = '\0';
    bool in_image = base && va - (base + k->text_off) < k->image_size;
    int i = in_image ? kallsyms_at(k->syms, va - base) : -1;
    struct kernel_symbol sym;
    if (i >= 0)
        g_snprintf(buf, size, "%s+0x%x", kallsyms_name(k->syms, (unsigned)i),
                   (unsigned)(va - base - k->syms->offset[i]));
    else if (base && !in_image && va >> 63 && modules_find_address(k, va, &sym))
        g_snprintf(buf, size, "%s+0x%x [%s]", sym.name, (unsigned)(va - sym.va), sym.module);
}

void kernel_each_symbol(struct kernel *k, bool (*fn)(void *opaque, const struct kernel_symbol *sym), void *opaque)
{
    struct kernel_symbol sym;

    if (!kernel_look(k) || !symbols_base(k))
        return;
    for (unsigned i = 0; i < k->syms->n; i++) {
        fill(k, i, &sym);
        if (!fn(opaque, &sym))
            return;
    }
}
