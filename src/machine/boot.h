/*
 * The boot loader: from files to a machine about to execute its first instruction.
 *
 * Layout of RAM, as scripts and debuggers know it from QEMU's virt: a six-instruction stub at its start (x0 = device
 * tree, x1 to x3 = 0, branch to the kernel), the kernel at the offset that its header asks for (or 2 MiB higher when
 * that would hit the stub), the initrd at the middle of RAM but at most 128 MiB up, the device tree behind it.
 */
#ifndef ARMLET_MACHINE_BOOT_H
#define ARMLET_MACHINE_BOOT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "mem/mem.h"

struct boot_image { /* guest-physical ranges; size 0 means absent */
    uint64_t kernel_pa, kernel_size; /* size in memory, with BSS */
    uint64_t entry;
    uint64_t initrd_pa, initrd_size;
    uint64_t dtb_pa, dtb_max;
    bool is_elf;
};

/* The files as they are, read once: a reboot loads them again, and a pipe can be read only once. */
struct boot_files {
    char *kernel_name, *initrd_name;
    GBytes *kernel, *initrd; /* NULL: none */
    bool kernel_mapped, initrd_mapped; /* from a file, and not a copy */
};
bool boot_open(struct boot_files *files, const char *kernel, const char *initrd, GError **err);
void boot_close(struct boot_files *files);

/*
 * Loads the kernel (raw Image, gzip of one, EFI zboot with gzip or zstd, ELF64) and the initrd into RAM.
 * false: err says in one line what is wrong with which file.  The error domain is BOOT_ERROR.
 */
bool boot_load(struct mem *mem, const struct boot_files *files, struct boot_image *image, GError **err);
/* Writes the stub and the device tree (size bytes).  Returns the address where execution starts. */
bool boot_finish(struct mem *mem, const struct boot_image *image, const void *dtb, uint64_t size, uint64_t *pc,
                 GError **err);

#define BOOT_ERROR (boot_error_quark())
GQuark boot_error_quark(void);
enum boot_error { BOOT_ERROR_FORMAT, BOOT_ERROR_SPACE };

/* The decompressed kernel of a file in memory, for the loader and for what reads kernels (symbols): owner: caller. */
GBytes *boot_unpack_kernel(const char *name, GBytes *file, GError **err);

#endif
