/*
 * What is too rare or too big for value operations (isa/helpers.def).  Own thread of the vCPU.
 */
#include "cpu/helpers.h"

#include "cpu/cluster.h"

/*
 * CRC32 and CRC32C of four bits: the remainders of x^4 times the index, the polynomials being bit-reversed as the
 * instructions' values are (C6.2.63).
 */
static const uint32_t crc32_nibble[16] = {
    0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
    0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
};
static const uint32_t crc32c_nibble[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

static uint32_t crc_bytes(uint32_t acc, uint64_t value, unsigned bytes, const uint32_t nibble[16])
{
    for (unsigned i = 0; i < bytes; i++, value >>= 8) {
        acc ^= (uint8_t)value;
        acc = acc >> 4 ^ nibble[acc & 15];
        acc = acc >> 4 ^ nibble[acc & 15];
    }
    return acc;
}

uint64_t helper_crc32(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    (void)cpu;
    return crc_bytes((uint32_t)a, b, 1u << c, crc32_nibble);
}

uint64_t helper_crc32c(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    (void)cpu;
    return crc_bytes((uint32_t)a, b, 1u << c, crc32c_nibble);
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
