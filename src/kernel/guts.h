/*
 * What the files of this folder share.
 */
#ifndef ARMLET_KERNEL_GUTS_H
#define ARMLET_KERNEL_GUTS_H

#include "cpu/cpu.h"
#include "kernel/btf.h"
#include "kernel/kallsyms.h"
#include "kernel/kernel.h"
#include "kernel/modfiles.h"

struct kernel {
    struct cluster *cluster;
    struct mem *mem;
    uint64_t image_pa, image_size;
    const char *problem;
    struct kallsyms *syms; /* NULL: not found (yet) */
    uint64_t text_off;     /* of _text from the symbols' base; below it when that is none of them */
    uint64_t link_va;      /* as linked; 0: not known */
    uint64_t predicted;    /* text_va to come; 0: not known */
    bool none;             /* this image has no symbols */
    GBytes *(*source)(void *opaque);
    void *source_opaque;
    struct btf *btf;       /* NULL: the image has none */
    struct debuginfo *types; /* of the given file, in place of that; NULL: none */
    bool typed, types_tried; /* is either there? */
    uint64_t root;         /* physical address of the kernel's own page tables; 0: not known */
    uint64_t root_for;     /* what the vCPUs' TTBR1 were then */
    uint64_t init_task, modules, log; /* found by their shapes; 0: not yet */
    GPtrArray *kept;       /* strings that answers point to, until the next question */
    struct symfile *given; /* -kernel-symbols; NULL: none */
    struct modfiles *modfiles;
};

/* 0 where the kernel cannot be read or has no such member. */
uint64_t kernel_get(struct kernel *k, uint64_t va, struct btf_field f);
/* The member at TYPE.PATH ("thread.cpu_context"); none (size 0) without BTF or such a member. */
struct btf_field kernel_field(struct kernel *k, const char *type, const char *path);
/* Bytes of a structure, 0: unknown. */
uint32_t kernel_sizeof(struct kernel *k, const char *type);
/* The value of a kernel variable of 4 or 8 bytes. */
bool kernel_variable(struct kernel *k, const char *name, unsigned size, uint64_t *value);
/* A string of at most max bytes, made printable, to be freed; NULL: not readable. */
char *kernel_string(struct kernel *k, uint64_t va, size_t max);
/* Looks, and wants BTF too; false: says why not. */
bool kernel_ready(struct kernel *k, GString *out);
/* Address of this vCPU's instance of a per-CPU symbol. */
bool kernel_percpu(struct kernel *k, const char *name, unsigned cpu, uint64_t *va);

/* By the tables at root. */
bool kernel_walk(struct kernel *k, uint64_t root, uint64_t va, uint64_t *pa);
unsigned kernel_page_shift(const struct kernel *k);

/* --- search.c: what has no symbol; 0 or NULL: not found --- */
/* How far into the image the symbols' base is, when _text, its start, is not among them. */
uint64_t search_first_symbol(const struct span *image, const struct kallsyms *s);
bool search_root(struct kernel *k, uint64_t *root);
struct btf *search_btf(struct kernel *k);
uint64_t search_init_task(struct kernel *k);
uint64_t search_modules(struct kernel *k);
uint64_t search_log(struct kernel *k);
/* By symbol or else by search, which is kept in *found. */
uint64_t kernel_named_or(struct kernel *k, const char *name, uint64_t *found, uint64_t (*search)(struct kernel *k));

/* --- frames.c: a .debug_frame section: its head, and a function --- */
void frames_begin(GString *s);
void frames_add(GString *s, struct kernel *k, uint64_t va, uint64_t size, uint64_t shift);

bool modules_find_address(struct kernel *k, uint64_t va, struct kernel_symbol *sym);
bool modules_find_symbol(struct kernel *k, const char *name, struct kernel_symbol *sym);
/* "file.c:123" of an address in a module, to be freed; NULL: its file is not there or says nothing of it. */
char *modules_line(struct kernel *k, uint64_t va);

#endif
