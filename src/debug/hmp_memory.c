/*
 * Monitor commands that look at guest memory: x, xp, print, gva2gpa, gpa2hva, memsave, pmemsave, dump-guest-memory.
 */
#include "debug/hmp.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cpu/mmu.h"
#include "debug/peek.h"
#include "isa/a64.h"
#include "kernel/kernel.h"

struct format {
    unsigned count, size;
    char kind; /* x d u o c i s */
};

/* "/4xw" and the like; false: says what is wrong. */
static bool parse_format(struct hmp *h, const char **text, struct format *f)
{
    bool sized = false;

    *f = (struct format){ .count = 1, .size = 4, .kind = 'x' };
    while (g_ascii_isspace(**text))
        ++*text;
    if (**text != '/')
        return true;
    ++*text;
    if (g_ascii_isdigit(**text)) {
        char *end;
        f->count = (unsigned)MIN(g_ascii_strtoull(*text, &end, 10), 65536);
        *text = end;
    }
    for (; **text && !g_ascii_isspace(**text); ++*text) {
        static const char sizes[] = "bhwg";
        char c = **text;
        const char *size = strchr(sizes, c);
        if (size) {
            f->size = 1u << (size - sizes);
            sized = true;
        } else if (strchr("xduocis", c)) {
            f->kind = c;
        } else {
            hmp_print(h, "unknown format '%c' (x d u o c i s, sizes b h w g)\n", c);
            return false;
        }
    }
    if (f->kind == 'c' && !sized)
        f->size = 1;
    return true;
}

static void print_value(struct hmp *h, const struct format *f, uint64_t value)
{
    unsigned shift = 64 - f->size * 8;

    switch (f->kind) {
    case 'd': hmp_print(h, "%*" PRId64, (int)f->size * 2 + 3, (int64_t)(value << shift) >> shift); break;
    case 'u': hmp_print(h, "%*" PRIu64, (int)f->size * 2 + 3, value); break;
    case 'o': hmp_print(h, "%#*" PRIo64, (int)f->size * 3 + 1, value); break;
    case 'c':
        if (g_ascii_isprint((char)value) && value < 128)
            hmp_print(h, "'%c'", (char)value);
        else
            hmp_print(h, "'\\x%02x'", (unsigned)value & 0xff);
        break;
    default: hmp_print(h, "0x%0*" PRIx64, (int)f->size * 2, value); break;
    }
}

static bool fetch(struct hmp *h, bool physical, uint64_t addr, void *buf, size_t len)
{
    if (physical ? peek_phys(hmp_cpu(h)->mem, addr, buf, len)
                 : peek_virt(hmp_cpu(h), control_kernel(h->control), addr, buf, len) == len)
        return true;
    hmp_print(h, "Cannot access memory at 0x%" PRIx64 "\n", addr);
    return false;
}

static uint64_t dump_code(struct hmp *h, const struct format *f, bool physical, uint64_t addr)
{
    char text[A64_TEXT_SIZE];
    uint32_t word;

    for (unsigned i = 0; i < f->count; i++, addr += 4) {
        if (!fetch(h, physical, addr, &word, 4))
            break;
        a64_disasm_at(word, addr, text, sizeof text);
        g_autofree char *name = physical ? NULL : kernel_describe_address(control_kernel(h->control), addr);
        hmp_print(h, "0x%08" PRIx64 "%s%s%s:  %08x  %s\n", addr, name ? " <" : "", name ? name : "", name ? ">" : "", word,
                  text);
    }
    return addr;
}

static uint64_t dump_strings(struct hmp *h, const struct format *f, bool physical, uint64_t addr)
{
    for (unsigned i = 0; i < f->count; i++) {
        GString *s = g_string_new(NULL);
        char c = 0;
        hmp_print(h, "0x%08" PRIx64 ": ", addr);
        bool ok = true;
        while (s->len < 1024 && (ok = fetch(h, physical, addr, &c, 1)) && (addr++, c))
            g_string_append_c(s, c);
        g_autofree char *escaped = g_strescape(s->str, NULL);
        g_string_free(s, TRUE);
        if (!ok)
            break;
        hmp_print(h, "\"%s\"\n", escaped);
    }
    return addr;
}

static uint64_t dump_values(struct hmp *h, const struct format *f, bool physical, uint64_t addr)
{
    unsigned per_line = f->kind == 'c' ? 8 : f->size == 8 ? 2 : f->size == 4 ? 4 : 8;

    for (unsigned i = 0; i < f->count; i++, addr += f->size) {
        uint64_t value = 0;
        if (i % per_line == 0)
            hmp_print(h, "%s%016" PRIx64 ":", i ? "\n" : "", addr);
        if (!fetch(h, physical, addr, &value, f->size))
            return addr;
        hmp_print(h, " ");
        print_value(h, f, value);
    }
    hmp_print(h, "\n");
    return addr;
}

static void examine(struct hmp *h, const char *args, bool physical)
{
    struct format f;
    uint64_t addr = h->next;

    if (!parse_format(h, &args, &f))
        return;
    while (g_ascii_isspace(*args))
        args++;
    if (*args && !hmp_expression(h, &args, &addr))
        return;
    h->next = f.kind == 'i' ? dump_code(h, &f, physical, addr)
              : f.kind == 's' ? dump_strings(h, &f, physical, addr) : dump_values(h, &f, physical, addr);
}

static void run_x(struct hmp *h, const char *args)
{
    examine(h, args, false);
}

static void run_xp(struct hmp *h, const char *args)
{
    examine(h, args, true);
}

static void run_print(struct hmp *h, const char *args)
{
    struct format f;
    uint64_t value;

    if (!parse_format(h, &args, &f) || !hmp_expression(h, &args, &value))
        return;
    if (*args) {
        hmp_print(h, "%s: that does not belong there\n", args);
        return;
    }
    switch (f.kind) {
    case 'd': hmp_print(h, "%" PRId64 "\n", (int64_t)value); break;
    case 'u': hmp_print(h, "%" PRIu64 "\n", value); break;
    case 'o': hmp_print(h, "%#" PRIo64 "\n", value); break;
    case 'c': print_value(h, &f, value); hmp_print(h, "\n"); break;
    default: hmp_print(h, "%#" PRIx64 "\n", value); break;
    }
}

static void run_gva2gpa(struct hmp *h, const char *args)
{
    uint64_t va, pa;

    if (!hmp_expression(h, &args, &va))
        return;
    if (cpu_debug_translate(hmp_cpu(h), va, &pa))
        hmp_print(h, "gpa: %#" PRIx64 "\n", pa);
    else
        hmp_print(h, "Unmapped\n");
}

static void run_gpa2hva(struct hmp *h, const char *args)
{
    uint64_t pa;
    bool writable;

    if (!hmp_expression(h, &args, &pa))
        return;
    uint8_t *page = mem_page_hva(hmp_cpu(h)->mem, pa, &writable);
    if (page)
        hmp_print(h, "Host virtual address for %#" PRIx64 " is %p\n", pa, (void *)(page + (pa & (MEM_PAGE_SIZE - 1))));
    else
        hmp_print(h, "No memory is mapped at address %#" PRIx64 "\n", pa);
}

/* --- to files --------------------------------------------------------------------------------------------------- */

static bool save_range(struct hmp *h, FILE *out, bool physical, uint64_t addr, uint64_t size)
{
    uint8_t buf[MEM_PAGE_SIZE];

    for (uint64_t done = 0; done < size;) {
        size_t n = (size_t)MIN(sizeof buf, size - done);
        if (!fetch(h, physical, addr + done, buf, n))
            return false;
        if (fwrite(buf, 1, n, out) != n) {
            hmp_print(h, "%s\n", g_strerror(errno));
            return false;
        }
        done += n;
    }
    return true;
}

static void save(struct hmp *h, const char *args, bool physical)
{
    uint64_t addr, size;

    if (!hmp_expression(h, &args, &addr) || !hmp_expression(h, &args, &size))
        return;
    g_autofree char *path = hmp_word(&args);
    FILE *out = path ? fopen(path, "wb") : NULL;
    if (!out) {
        hmp_print(h, "%s: %s\n", path ? path : "a file's name is missing", path ? g_strerror(errno) : "");
        return;
    }
    save_range(h, out, physical, addr, size);
    if (fclose(out))
        hmp_print(h, "%s: %s\n", path, g_strerror(errno));
}

static void run_memsave(struct hmp *h, const char *args)
{
    save(h, args, false);
}

static void run_pmemsave(struct hmp *h, const char *args)
{
    save(h, args, true);
}

static void run_dump(struct hmp *h, const char *args)
{
    g_autofree char *path = hmp_word(&args);

    while (path && path[0] == '-') { /* -p and the like: how, not where */
        g_free(path);
        path = hmp_word(&args);
    }
    const char *file = path && g_str_has_prefix(path, "file:") ? path + 5 : path;
    int r = file ? coredump_write(h->control, file) : -EINVAL;
    if (r)
        hmp_print(h, "dump-guest-memory %s: %s\n", file ? file : "(no file)", g_strerror(-r));
}

const struct hmp_command hmp_memory_commands[] = {
    { "x", "/fmt addr", "show memory at a virtual address: /COUNT, x d u o c i s, b h w g", run_x, true },
    { "xp", "/fmt addr", "likewise, physical", run_xp, true },
    { "print", "/fmt expr", "show the value of an expression", run_print, true },
    { "p", "/fmt expr", "likewise", run_print, true },
    { "gva2gpa", "addr", "the physical address of a virtual one", run_gva2gpa, true },
    { "gpa2hva", "addr", "where a physical address is in our own memory", run_gpa2hva, true },
    { "memsave", "addr size file", "save memory from a virtual address", run_memsave, true },
    { "pmemsave", "addr size file", "save memory from a physical address", run_pmemsave, true },
    { "dump-guest-memory", "file", "write an ELF core file, for gdb and crash", run_dump, true },
    { 0 }
};
