/*
 * What is too rare or too big for value operations (isa/helpers.def).  Own thread of the vCPU.
 */
#include "cpu/helpers.h"

#include "cpu/cluster.h"

/* The polynomials bit-reversed: the instructions work on reflected values (C6.2.63). */
enum { CRC32_POLY = (int)0xedb88320, CRC32C_POLY = (int)0x82f63b78 };

static uint32_t crc_bytes(uint32_t acc, uint64_t value, unsigned bytes, uint32_t poly)
{
    for (unsigned i = 0; i < bytes; i++, value >>= 8) {
        acc ^= (uint8_t)value;
        for (unsigned bit = 0; bit < 8; bit++)
            acc = acc >> 1 ^ (acc & 1 ? poly : 0);
    }
    return acc;
}

uint64_t helper_crc32(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    (void)cpu;
    return crc_bytes((uint32_t)a, b, 1u << c, (uint32_t)CRC32_POLY);
}

uint64_t helper_crc32c(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    (void)cpu;
    return crc_bytes((uint32_t)a, b, 1u << c, (uint32_t)CRC32C_POLY);
}

uint64_t helper_yield(struct cpu *cpu)
{
    cluster_yield(cpu);
    return 0;
}

uint64_t helper_sev(struct cpu *cpu)
{
    cluster_sev(cpu);
    return 0;
}

uint64_t helper_sevl(struct cpu *cpu)
{
    cpu->event = true;
    return 0;
}

bool helper_wfe(struct cpu *cpu, uint64_t *out)
{
    *out = 0;
    if (cpu_wfx_trap(cpu, true))
        return false;
    cluster_wfe(cpu);
    return true;
}

bool helper_wfi(struct cpu *cpu, uint64_t *out)
{
    *out = 0;
    if (cpu_wfx_trap(cpu, false))
        return false;
    cluster_wfi(cpu);
    return true;
}

uint64_t helper_eret(struct cpu *cpu)
{
    cpu_eret(cpu);
    return 0;
}

uint64_t helper_hvc(struct cpu *cpu, uint64_t a)
{
    cpu_hvc(cpu, (unsigned)a);
    return 0;
}

bool helper_sysreg_read(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t *out)
{
    return cpu_sysreg_read(cpu, (uint32_t)a, (unsigned)b, out);
}

bool helper_sysreg_write(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t c, uint64_t *out)
{
    *out = 0;
    return cpu_sysreg_write(cpu, (uint32_t)a, (unsigned)b, c);
}

bool helper_msr_imm(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t c, uint64_t *out)
{
    *out = 0;
    return cpu_msr_imm(cpu, (unsigned)a, (unsigned)b, (unsigned)c);
}
