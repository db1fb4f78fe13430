/*
 * An ELF core file of the guest: one NT_PRSTATUS note a vCPU, and guest RAM as one segment at its physical address (its
 * virtual address is left 0, as crash expects of a dump without paging).  Where the kernel's image is known, a second
 * segment has the same bytes at their virtual address, so that gdb finds its code and variables.  Pages of zeroes become
 * holes.
 */
#include "debug/hmp.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "kernel/kernel.h"

/* struct elf_prstatus of Linux on arm64 (include/uapi/linux/elfcore.h, user_pt_regs). */
struct prstatus {
    int32_t signo, code, err;
    int16_t cursig;
    uint64_t sigpend, sighold;
    int32_t pid, ppid, pgrp, sid;
    uint64_t times[8];
    uint64_t x[31], sp, pc, pstate;
    int32_t fpvalid;
};

struct note {
    Elf64_Nhdr header;
    char name[8];
    struct prstatus status;
} __attribute__((packed));

static int write_all(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno != EINTR)
            return -errno;
        p += MAX(n, 0);
        len -= (size_t)MAX(n, 0);
    }
    return 0;
}

static void fill_note(struct note *n, const struct cpu *cpu)
{
    struct prstatus s = { .pid = (int32_t)cpu->index + 1, .sp = cpu->x[31], .pc = cpu->pc, .pstate = cpu_pstate(cpu) };

    memcpy(s.x, cpu->x, sizeof s.x);
    *n = (struct note){ .header = { .n_namesz = 5, .n_descsz = sizeof s, .n_type = NT_PRSTATUS }, .name = "CORE",
                        .status = s };
}

enum { SEGMENTS = 3 };

/* The kernel's image, which lies within RAM; a segment without bytes when it is not known. */
static Elf64_Phdr image_segment(struct control *control, uint64_t data_offset)
{
    struct mem *mem = control_mem(control);
    struct kernel_place k;

    if (!kernel_where(control_kernel(control), &k) || !mem_span(mem, k.text_pa, k.size).hva)
        return (Elf64_Phdr){ .p_type = PT_NULL };
    return (Elf64_Phdr){ .p_type = PT_LOAD, .p_flags = PF_R | PF_W | PF_X, .p_vaddr = k.text_va, .p_paddr = k.text_pa,
                         .p_offset = data_offset + (k.text_pa - mem_ram_base(mem)), .p_filesz = k.size, .p_memsz = k.size,
                         .p_align = MEM_PAGE_SIZE };
}

static int write_headers(int fd, struct control *control, uint64_t data_offset)
{
    const struct cluster *cl = control_cluster(control);
    const struct mem *mem = control_mem(control);
    Elf64_Ehdr e = { .e_type = ET_CORE, .e_machine = EM_AARCH64, .e_version = EV_CURRENT, .e_phoff = sizeof e,
                     .e_ehsize = sizeof e, .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = SEGMENTS };
    Elf64_Phdr p[SEGMENTS] = {
        { .p_type = PT_NOTE, .p_offset = sizeof e + sizeof p, .p_filesz = cl->n * sizeof(struct note),
          .p_memsz = cl->n * sizeof(struct note), .p_align = 4 },
        { .p_type = PT_LOAD, .p_flags = PF_R | PF_W | PF_X, .p_offset = data_offset, .p_paddr = mem_ram_base(mem),
          .p_filesz = mem_ram_size(mem), .p_memsz = mem_ram_size(mem), .p_align = MEM_PAGE_SIZE },
        image_segment(control, data_offset) };
    struct note note;

    memcpy(e.e_ident, ELFMAG, SELFMAG);
    e.e_ident[EI_CLASS] = ELFCLASS64;
    e.e_ident[EI_DATA] = ELFDATA2LSB;
    e.e_ident[EI_VERSION] = EV_CURRENT;
    int r = write_all(fd, &e, sizeof e);
    if (!r)
        r = write_all(fd, p, sizeof p);
    for (unsigned i = 0; !r && i < cl->n; i++) {
        fill_note(&note, cl->cpu[i]);
        r = write_all(fd, &note, sizeof note);
    }
    return r;
}

static bool is_zero(const uint8_t *page)
{
    return !page[0] && !memcmp(page, page + 1, MEM_PAGE_SIZE - 1);
}

static int write_ram(int fd, struct mem *mem, uint64_t offset)
{
    struct span ram = mem_span(mem, mem_ram_base(mem), mem_ram_size(mem));
    int r = ftruncate(fd, (off_t)(offset + ram.len)) ? -errno : 0;

    for (size_t at = 0; !r && at < ram.len; at += MEM_PAGE_SIZE) {
        if (is_zero(ram.hva + at))
            continue;
        ssize_t n = pwrite(fd, ram.hva + at, MEM_PAGE_SIZE, (off_t)(offset + at));
        if (n != MEM_PAGE_SIZE)
            r = n < 0 ? -errno : -ENOSPC;
    }
    return r;
}

int coredump_write(struct control *control, const char *path)
{
    const struct cluster *cl = control_cluster(control);
    struct mem *mem = control_mem(control);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    uint64_t offset = sizeof(Elf64_Ehdr) + SEGMENTS * sizeof(Elf64_Phdr) + cl->n * sizeof(struct note);
    offset = (offset + MEM_PAGE_SIZE - 1) & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    int r = write_headers(fd, control, offset);
    if (!r)
        r = write_ram(fd, mem, offset);
    if (close(fd) && !r)
        r = -errno;
    return r;
}
