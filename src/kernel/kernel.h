/*
 * The guest's Linux kernel understood from its memory alone: where it runs (KASLR), its symbols (kallsyms), the layout
 * of its structures (BTF, or DWARF of a vmlinux), and what these lead to: tasks, the log, modules, mounts, backtraces.
 *
 * Nothing here trusts the guest: a pointer is followed only where the kernel's own tables map RAM, every walk is
 * bounded, every table is checked before it is used.  A kernel that is half booted, corrupt or not Linux gives an
 * answer in words.  Main thread, while the cluster is paused; nothing in the guest is changed.
 */
#ifndef ARMLET_KERNEL_KERNEL_H
#define ARMLET_KERNEL_KERNEL_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cluster;
struct cpu;
struct kernel;

struct kernel *kernel_new(struct cluster *cluster);
void kernel_free(struct kernel *k);
/* The image was loaded into [pa, pa + size), as at power-on: what was known of another one is forgotten. */
void kernel_set_image(struct kernel *k, uint64_t pa, uint64_t size);
/* Gives the kernel as the loader had it before it ran, or NULL; asked only when nothing else tells where it was linked. */
void kernel_set_source(struct kernel *k, GBytes *(*source)(void *opaque), void *opaque);
/* Where _text will be once the kernel has moved itself: counts until it has. */
void kernel_predict(struct kernel *k, uint64_t text_va);
/* Symbols from a vmlinux or a System.map, besides the kernel's own.  false: err says what is wrong with the file. */
bool kernel_load_symbols(struct kernel *k, const char *path, GError **err);
/* Where modules' files (NAME.ko) are, for their debug information; besides where the vmlinux of kernel_load_symbols() is. */
void kernel_add_modules(struct kernel *k, const char *folder);

/*
 * Looks for all that the first question would have to look for, where an image was loaded: some 30 ms.  For when somebody
 * comes who may ask.
 */
void kernel_look_ahead(struct kernel *k);
/* Looks for the symbols unless they are known; false: kernel_problem() says why there are none (constant). */
bool kernel_look(struct kernel *k);
const char *kernel_problem(const struct kernel *k);
/* Has the kernel moved itself to where it runs, so that its virtual addresses are final? */
bool kernel_is_relocated(struct kernel *k);
/* Virtual and physical address of _text and the image's size; false: not known (yet). */
struct kernel_place {
    uint64_t text_va, text_pa, size;
    uint64_t link_va; /* of _text as linked; 0: not known */
};
bool kernel_where(struct kernel *k, struct kernel_place *place);

/* --- symbols --- */

struct kernel_symbol {
    const char *name;   /* valid until the kernel runs on */
    const char *module; /* NULL: the kernel itself */
    uint64_t va, size;  /* size: to the next symbol */
    char type;          /* as nm prints it; 0: not known */
};
bool kernel_find_symbol(struct kernel *k, const char *name, struct kernel_symbol *sym);
/* The symbol that va lies in; physical addresses of the image count as well. */
bool kernel_find_address(struct kernel *k, uint64_t va, struct kernel_symbol *sym);
/* "name+0x10/0x80 [module]", to be freed; NULL: in none. */
char *kernel_describe_address(struct kernel *k, uint64_t va);
/* Likewise a return address: in the function that called, also when that call was its last instruction. */
char *kernel_describe_return(struct kernel *k, uint64_t va);
/*
 * The name of an address in the image or in a module, "" for none; for trace events: on any thread, one at a time, while
 * vCPUs run.  The
 * main thread changes nothing of the kernel's then.
 */
void kernel_name_running(struct kernel *k, uint64_t va, char *buf, size_t size);
/* Calls fn for each symbol of the image, in order of addresses; fn returns false to end it. */
void kernel_each_symbol(struct kernel *k, bool (*fn)(void *opaque, const struct kernel_symbol *sym), void *opaque);

/* Writes an ELF file with all of them, for debuggers, at the addresses where they are (will be), or as linked. */
bool kernel_write_symbols(struct kernel *k, const char *path, bool linked, GError **err);

/* --- memory, as the kernel's page tables map it --- */

bool kernel_translate(struct kernel *k, uint64_t va, uint64_t *pa);
bool kernel_read(struct kernel *k, uint64_t va, void *buf, size_t len);

/* --- tasks --- */

struct kernel_task {
    uint64_t va; /* of the task_struct */
    int pid, tgid, ppid;
    unsigned uid, cpu;
    char state; /* R S D T t X Z P I as ps prints it */
    bool kernel_thread, on_cpu;
    uint64_t vsize; /* KiB */
    char comm[17];
};
/* All processes, or all threads; an array of struct kernel_task, to be freed; NULL: kernel_problem(). */
GArray *kernel_tasks(struct kernel *k, bool threads);
/* The task that a vCPU runs; false: none is known. */
bool kernel_current_task(struct kernel *k, struct cpu *cpu, struct kernel_task *task);

struct kernel_frame {
    uint64_t pc, fp;
};
enum { KERNEL_FRAMES_MAX = 128 };
/* Frames by frame pointers, the innermost first; returns their number. */
unsigned kernel_unwind(struct kernel *k, uint64_t pc, uint64_t fp, struct kernel_frame *frames);
/* Those of a task that sleeps, or of the vCPU that runs it, with the registers of a sleeping one. */
struct kernel_context {
    uint64_t x19_to_x28[10], fp, sp, pc;
};
bool kernel_task_context(struct kernel *k, const struct kernel_task *task, struct kernel_context *context);
unsigned kernel_task_unwind(struct kernel *k, const struct kernel_task *task, struct kernel_frame *frames);
unsigned kernel_cpu_unwind(struct kernel *k, const struct cpu *cpu, struct kernel_frame *frames);

/* --- as text: lines that end in \n --- */

void kernel_print_tasks(struct kernel *k, bool threads, GString *out);
void kernel_print_log(struct kernel *k, GString *out);
void kernel_print_modules(struct kernel *k, GString *out);
/* add-symbol-file lines for gdb, with the modules' sections. */
void kernel_print_module_sections(struct kernel *k, GString *out);
void kernel_print_mounts(struct kernel *k, GString *out);
void kernel_print_frames(struct kernel *k, const struct kernel_frame *frames, unsigned n, GString *out);
void kernel_print_backtrace(struct kernel *k, int pid, GString *out);
/* What: an address (hexadecimal with or without 0x) or a name. */
void kernel_print_symbol(struct kernel *k, const char *what, GString *out);
/*
 * While a vCPU prints its oops or panic: where it happened, in which task, the registers, the call trace.  false: no vCPU
 * is doing that.
 */
bool kernel_print_report(struct kernel *k, GString *out);
/* For a guest that hangs: what each vCPU does, and some tasks that are blocked.  false: nothing is known of the kernel. */
bool kernel_print_hang(struct kernel *k, GString *out);
void kernel_print_where(struct kernel *k, GString *out);

#endif
