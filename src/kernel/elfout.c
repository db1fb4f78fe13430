/*
 * The kernel's symbols as an ELF file for debuggers: no code, sections without contents where the image has them, one
 * segment over all so that a debugger can move it as a whole.
 */
#include "kernel/guts.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/outfile.h"

enum { SECTIONS_MAX = 4000 };

struct writer {
    GArray *syms;     /* Elf64_Sym */
    GArray *sections; /* Elf64_Shdr */
    GString *strings, *frames;
    struct kernel *kernel;
    uint64_t shift;   /* from where a symbol is to where the file has it */
    bool code;        /* the section now */
    bool any;
};

static bool is_code(char type)
{
    return type && strchr("tTwWvV", type);
}

static void add_section(struct writer *w, uint32_t name, uint32_t type, uint64_t flags, uint64_t va)
{
    const Elf64_Shdr sh = { .sh_name = name, .sh_type = type, .sh_flags = flags, .sh_addr = va, .sh_addralign = 1 };
    g_array_append_val(w->sections, sh);
}

static uint32_t add_string(struct writer *w, const char *s)
{
    uint32_t at = (uint32_t)w->strings->len;

    g_string_append_len(w->strings, s, (gssize)strlen(s) + 1);
    return at;
}

static void end_section(struct writer *w, uint64_t va)
{
    Elf64_Shdr *last = &g_array_index(w->sections, Elf64_Shdr, w->sections->len - 1);
    if (w->any)
        last->sh_size = va - last->sh_addr;
}

/* Symbols come by address: where their kind changes a section ends. */
static bool add_symbol(void *opaque, const struct kernel_symbol *sym)
{
    struct writer *w = opaque;
    bool code = is_code(sym->type);
    uint64_t va = sym->va + w->shift;

    if (!w->any || (code != w->code && w->sections->len < SECTIONS_MAX)) {
        end_section(w, va);
        g_autofree char *name = g_strdup_printf(code ? ".text.%u" : ".data.%u", w->sections->len);
        add_section(w, add_string(w, w->any ? name : code ? ".text" : ".data"), SHT_NOBITS,
                    SHF_ALLOC | (code ? SHF_EXECINSTR : SHF_WRITE), va);
        w->code = code;
        w->any = true;
    }
    const Elf64_Sym s = { .st_name = add_string(w, sym->name), .st_value = va, .st_size = sym->size,
                          .st_info = ELF64_ST_INFO(STB_GLOBAL, code ? STT_FUNC : STT_OBJECT),
                          .st_shndx = (Elf64_Section)(w->sections->len - 1) };
    g_array_append_val(w->syms, s);
    if (code && sym->size)
        frames_add(w->frames, w->kernel, sym->va, sym->size, w->shift);
    return true;
}

static GString *assemble(struct writer *w, const struct kernel_place *p)
{
    GString *out = g_string_new(NULL);
    Elf64_Ehdr e = { .e_type = ET_EXEC, .e_machine = EM_AARCH64, .e_version = EV_CURRENT, .e_entry = p->text_va,
                     .e_phoff = sizeof e, .e_ehsize = sizeof e, .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1,
                     .e_shentsize = sizeof(Elf64_Shdr) };
    const Elf64_Phdr ph = { .p_type = PT_LOAD, .p_flags = PF_R | PF_W | PF_X, .p_vaddr = p->text_va, .p_paddr = p->text_va,
                            .p_memsz = p->size, .p_align = 1 };
    guint symtab = w->sections->len;

    memcpy(e.e_ident, ELFMAG, SELFMAG);
    e.e_ident[EI_CLASS] = ELFCLASS64;
    e.e_ident[EI_DATA] = ELFDATA2LSB;
    e.e_ident[EI_VERSION] = EV_CURRENT;
    add_section(w, add_string(w, ".symtab"), SHT_SYMTAB, 0, 0);
    add_section(w, add_string(w, ".debug_frame"), SHT_PROGBITS, 0, 0);
    add_section(w, add_string(w, ".strtab"), SHT_STRTAB, 0, 0);
    Elf64_Shdr *sh = &g_array_index(w->sections, Elf64_Shdr, symtab);
    size_t syms_size = w->syms->len * sizeof(Elf64_Sym);
    sh[0].sh_link = symtab + 2;
    sh[0].sh_info = 1;
    sh[0].sh_entsize = sizeof(Elf64_Sym);
    sh[0].sh_offset = sizeof e + sizeof ph;
    sh[0].sh_size = syms_size;
    sh[1].sh_offset = sh[0].sh_offset + syms_size;
    sh[1].sh_size = w->frames->len;
    sh[2].sh_offset = sh[1].sh_offset + w->frames->len;
    sh[2].sh_size = w->strings->len;
    e.e_shoff = sh[2].sh_offset + sh[2].sh_size;
    e.e_shnum = (Elf64_Half)w->sections->len;
    e.e_shstrndx = (Elf64_Half)(symtab + 2);
    g_string_append_len(out, (const char *)&e, sizeof e);
    g_string_append_len(out, (const char *)&ph, sizeof ph);
    g_string_append_len(out, w->syms->data, (gssize)syms_size);
    g_string_append_len(out, w->frames->str, (gssize)w->frames->len);
    g_string_append_len(out, w->strings->str, (gssize)w->strings->len);
    g_string_append_len(out, w->sections->data, (gssize)(w->sections->len * sizeof(Elf64_Shdr)));
    return out;
}

bool kernel_write_symbols(struct kernel *k, const char *path, bool linked, GError **err)
{
    struct writer w = { g_array_new(FALSE, TRUE, sizeof(Elf64_Sym)), g_array_new(FALSE, TRUE, sizeof(Elf64_Shdr)),
                        g_string_new_len("", 1), g_string_new(NULL), k, 0, false, false };
    struct kernel_place p;
    const Elf64_Sym none = { 0 };
    bool ok = kernel_where(k, &p);

    frames_begin(w.frames);
    add_section(&w, 0, SHT_NULL, 0, 0);
    g_array_append_val(w.syms, none);
    if (ok && linked && !p.link_va) {
        k->problem = "where the kernel was linked is not known";
        ok = false;
    }
    if (ok) {
        w.shift = linked ? p.link_va - p.text_va : 0;
        p.text_va += w.shift;
        kernel_each_symbol(k, add_symbol, &w);
        end_section(&w, p.text_va + p.size);
        GString *file = assemble(&w, &p);
        ok = outfile_write(path, file->str, file->len, err);
        g_string_free(file, TRUE);
    } else {
        g_set_error_literal(err, G_FILE_ERROR, G_FILE_ERROR_FAILED, k->problem);
    }
    g_array_free(w.syms, TRUE);
    g_array_free(w.sections, TRUE);
    g_string_free(w.strings, TRUE);
    g_string_free(w.frames, TRUE);
    return ok;
}
