/*
 * See debuginfo.h.  A module's file is relocatable: libdwfl lays its sections out somewhere and relocates the debug
 * information to that, so that a place is asked about by section and offset.
 *
 * Types are looked for by name among the outermost entries of all units, once, into an index; the first complete definition
 * of a name counts.  Answers are kept: the same few dozen members are asked for again and again.
 */
#include "kernel/debuginfo.h"

#include <string.h>

#ifdef ARMLET_LIBDW
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>

enum { NESTING_MAX = 16 };

struct debuginfo {
    char *path;
    bool tried;
    Dwfl *dwfl;          /* NULL: it cannot be read */
    Dwfl_Module *mod;
    Dwarf *dwarf;        /* NULL: no debug information */
    Dwarf_Addr bias;
    GHashTable *types;   /* name to GSIZE of the entry's offset; NULL: not indexed yet */
    GHashTable *answers; /* "type.path" to struct btf_field */
};

struct debuginfo *debuginfo_new(const char *path)
{
    struct debuginfo *d = g_new0(struct debuginfo, 1);

    d->path = g_strdup(path);
    d->answers = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    return d;
}

void debuginfo_free(struct debuginfo *d)
{
    if (!d)
        return;
    if (d->dwfl)
        dwfl_end(d->dwfl);
    if (d->types)
        g_hash_table_destroy(d->types);
    g_hash_table_destroy(d->answers);
    g_free(d->path);
    g_free(d);
}

/* Debug information is looked for in the file itself alone. */
static int find_nothing(Dwfl_Module *mod, void **userdata, const char *name, Dwarf_Addr base, const char *file,
                        const char *link, GElf_Word crc, char **found)
{
    (void)mod, (void)userdata, (void)name, (void)base, (void)file, (void)link, (void)crc, (void)found;
    return -1;
}

static bool open_file(struct debuginfo *d)
{
    static const Dwfl_Callbacks callbacks = { .find_elf = dwfl_build_id_find_elf, .find_debuginfo = find_nothing,
                                              .section_address = dwfl_offline_section_address };

    if (d->tried)
        return d->dwarf;
    d->tried = true;
    d->dwfl = dwfl_begin(&callbacks);
    if (!d->dwfl)
        return false;
    dwfl_report_begin(d->dwfl);
    d->mod = dwfl_report_offline(d->dwfl, "", d->path, -1);
    dwfl_report_end(d->dwfl, NULL, NULL);
    d->dwarf = d->mod ? dwfl_module_getdwarf(d->mod, &d->bias) : NULL;
    return d->dwarf;
}

/* --- lines ------------------------------------------------------------------------------------------------------ */

static char *line_at(struct debuginfo *d, Dwarf_Addr at)
{
    Dwfl_Line *line = dwfl_module_getsrc(d->mod, at);
    int number = 0;
    const char *file = line ? dwfl_lineinfo(line, NULL, &number, NULL, NULL, NULL) : NULL;

    return file && number ? g_strdup_printf("%s:%d", file, number) : NULL;
}

char *debuginfo_line(struct debuginfo *d, uint64_t va)
{
    return open_file(d) ? line_at(d, va + d->bias) : NULL;
}

char *debuginfo_section_line(struct debuginfo *d, const char *section, uint64_t off)
{
    GElf_Addr bias;
    Elf *elf = open_file(d) ? dwfl_module_getelf(d->mod, &bias) : NULL;
    size_t names;

    if (!elf || elf_getshdrstrndx(elf, &names))
        return NULL;
    for (Elf_Scn *s = elf_nextscn(elf, NULL); s; s = elf_nextscn(elf, s)) {
        GElf_Shdr shdr;
        if (!gelf_getshdr(s, &shdr))
            continue;
        const char *name = elf_strptr(elf, names, shdr.sh_name);
        if (name && !strcmp(name, section) && off < shdr.sh_size)
            return line_at(d, shdr.sh_addr + bias + off);
    }
    return NULL;
}

/* --- types ------------------------------------------------------------------------------------------------------ */

static bool is_aggregate(Dwarf_Die *die)
{
    int tag = dwarf_tag(die);
    return tag == DW_TAG_structure_type || tag == DW_TAG_union_type;
}

static void index_unit(struct debuginfo *d, Dwarf_Die *unit)
{
    Dwarf_Die die;

    if (dwarf_child(unit, &die))
        return;
    do {
        const char *name = is_aggregate(&die) && dwarf_hasattr(&die, DW_AT_byte_size) ? dwarf_diename(&die) : NULL;
        if (name && !g_hash_table_contains(d->types, name))
            g_hash_table_insert(d->types, (gpointer)name, GSIZE_TO_POINTER(dwarf_dieoffset(&die)));
    } while (!dwarf_siblingof(&die, &die));
}

static bool find_type(struct debuginfo *d, const char *name, Dwarf_Die *die)
{
    if (!open_file(d))
        return false;
    if (!d->types) {
        Dwarf_CU *cu = NULL;
        Dwarf_Die unit;
        d->types = g_hash_table_new(g_str_hash, g_str_equal);
        while (!dwarf_get_units(d->dwarf, cu, &cu, NULL, NULL, &unit, NULL))
            index_unit(d, &unit);
    }
    gsize off = GPOINTER_TO_SIZE(g_hash_table_lookup(d->types, name));
    return off && dwarf_offdie(d->dwarf, off, die);
}

static bool number_of(Dwarf_Die *die, unsigned attr, Dwarf_Word *value)
{
    Dwarf_Attribute a;
    return dwarf_attr_integrate(die, attr, &a) && !dwarf_formudata(&a, value);
}

/* The type of an entry without typedefs and qualifiers. */
static bool type_of(Dwarf_Die *die, Dwarf_Die *type)
{
    Dwarf_Attribute a;
    return dwarf_attr_integrate(die, DW_AT_type, &a) && dwarf_formref_die(&a, type) && !dwarf_peel_type(type, type);
}

static struct btf_field describe_member(Dwarf_Die *member, Dwarf_Die *type, Dwarf_Word base)
{
    Dwarf_Word off = 0, size = 0, bits = 0, bit = 0;

    dwarf_aggregate_size(type, &size); /* 0 of an array without a length */
    number_of(member, DW_AT_data_member_location, &off);
    struct btf_field f = { .off = (uint32_t)(base + off), .size = (uint32_t)size };
    if (number_of(member, DW_AT_bit_size, &bits) && size && number_of(member, DW_AT_data_bit_offset, &bit)) {
        f.off = (uint32_t)(base + bit / (8 * size) * size);
        f.bit = (uint8_t)(bit % (8 * size));
        f.bits = (uint8_t)bits;
    }
    return f;
}

/* Descends to the path in the aggregate, which lies at base; false: there is no such member. */
static bool find_member(Dwarf_Die *in, const char *path, Dwarf_Word base, unsigned depth, struct btf_field *field)
{
    size_t len = strcspn(path, ".");
    Dwarf_Die member, type;

    if (depth > NESTING_MAX || !is_aggregate(in) || dwarf_child(in, &member))
        return false;
    do {
        if (dwarf_tag(&member) != DW_TAG_member || !type_of(&member, &type))
            continue;
        const char *name = dwarf_diename(&member);
        struct btf_field f = describe_member(&member, &type, base);
        if (!name && find_member(&type, path, f.off, depth + 1, field))
            return true;
        if (!name || strlen(name) != len || strncmp(name, path, len))
            continue;
        *field = f;
        return !path[len] || find_member(&type, path + len + 1, f.off, depth + 1, field);
    } while (!dwarf_siblingof(&member, &member));
    return false;
}

bool debuginfo_has_types(struct debuginfo *d)
{
    Dwarf_Die die;
    return find_type(d, "task_struct", &die);
}

struct btf_field debuginfo_field(struct debuginfo *d, const char *type, const char *path)
{
    g_autofree char *key = g_strconcat(type, ".", path, NULL);
    const struct btf_field *known = g_hash_table_lookup(d->answers, key);
    struct btf_field f = { 0 };
    Dwarf_Die die;

    if (known)
        return *known;
    if (!find_type(d, type, &die) || !find_member(&die, path, 0, 0, &f))
        f = (struct btf_field){ 0 };
    g_hash_table_insert(d->answers, g_steal_pointer(&key), g_memdup2(&f, sizeof f));
    return f;
}

uint32_t debuginfo_sizeof(struct debuginfo *d, const char *type)
{
    Dwarf_Die die;
    int size = find_type(d, type, &die) ? dwarf_bytesize(&die) : 0;

    return size > 0 ? (uint32_t)size : 0;
}

#else

struct debuginfo {
    char none;
};

struct debuginfo *debuginfo_new(const char *path)
{
    (void)path;
    return g_new0(struct debuginfo, 1);
}

void debuginfo_free(struct debuginfo *d)
{
    g_free(d);
}

char *debuginfo_line(struct debuginfo *d, uint64_t va)
{
    (void)d, (void)va;
    return NULL;
}

char *debuginfo_section_line(struct debuginfo *d, const char *section, uint64_t off)
{
    (void)d, (void)section, (void)off;
    return NULL;
}

bool debuginfo_has_types(struct debuginfo *d)
{
    (void)d;
    return false;
}

struct btf_field debuginfo_field(struct debuginfo *d, const char *type, const char *path)
{
    (void)d, (void)type, (void)path;
    return (struct btf_field){ 0 };
}

uint32_t debuginfo_sizeof(struct debuginfo *d, const char *type)
{
    (void)d, (void)type;
    return 0;
}
#endif
