/*
 * See peek.h.
 */
#include "debug/peek.h"

#include <glib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "cpu/mmu.h"
#include "kernel/kernel.h"
#include "mem/mem.h"

static size_t to_page_end(uint64_t va, size_t len)
{
    return MIN(len, MEM_PAGE_SIZE - (va & (MEM_PAGE_SIZE - 1)));
}

static bool translate(struct cpu *cpu, struct kernel *kernel, uint64_t va, uint64_t *pa)
{
    return cpu_debug_translate(cpu, va, pa) || (kernel && va >> 63 && kernel_translate(kernel, va, pa));
}

size_t peek_virt(struct cpu *cpu, struct kernel *kernel, uint64_t va, void *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        size_t n = to_page_end(va + done, len - done);
        uint64_t pa;
        if (!translate(cpu, kernel, va + done, &pa) || !mem_read(cpu->mem, pa, (uint8_t *)buf + done, n))
            break;
        done += n;
    }
    return done;
}

size_t poke_virt(struct cpu *cpu, struct kernel *kernel, uint64_t va, const void *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        size_t n = to_page_end(va + done, len - done);
        uint64_t pa;
        if (!translate(cpu, kernel, va + done, &pa) ||
            !mem_write_force(cpu->mem, pa, (const uint8_t *)buf + done, n))
            break;
        done += n;
    }
    return done;
}

static bool is_access(uint64_t pa, size_t len)
{
    return (len == 1 || len == 2 || len == 4 || len == 8) && !(pa & (len - 1));
}

bool peek_phys(struct mem *mem, uint64_t pa, void *buf, size_t len)
{
    uint64_t value;

    if (mem_read(mem, pa, buf, len))
        return true;
    if (!is_access(pa, len) || !mem_io_read(mem, pa, (unsigned)len, &value))
        return false;
    memcpy(buf, &value, len);
    return true;
}

bool poke_phys(struct mem *mem, uint64_t pa, const void *buf, size_t len)
{
    uint64_t value = 0;

    if (mem_write_force(mem, pa, buf, len))
        return true;
    if (!is_access(pa, len))
        return false;
    memcpy(&value, buf, len);
    return mem_io_write(mem, pa, (unsigned)len, value);
}
