/*
 * A vCPU's registers as gdb numbers them: x0-x30, sp, pc, cpsr, v0-v31, fpsr, fpcr, then every system register of the
 * model by the manual's name.  While the cluster is paused.
 */
#ifndef ARMLET_DEBUG_GDB_REGS_H
#define ARMLET_DEBUG_GDB_REGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cpu;
struct gdb_regs;

/* cpu: any of the cluster's, all being of one model. */
struct gdb_regs *gdb_regs_new(struct cpu *cpu);
void gdb_regs_free(struct gdb_regs *r);
/* The target description, owned by r. */
const char *gdb_regs_xml(const struct gdb_regs *r);
/* Those of the `g' packet come first. */
enum { GDB_REG_PC = 32, GDB_G_REGS = 68, GDB_REG_MAX = 16 };
/* Bytes of register n, 0 when there is none. */
size_t gdb_reg_size(const struct gdb_regs *r, unsigned n);
/* Little-endian into or from gdb_reg_size() bytes; false: no such register, or it cannot be read (written). */
bool gdb_reg_read(const struct gdb_regs *r, struct cpu *cpu, unsigned n, uint8_t *buf);
bool gdb_reg_write(const struct gdb_regs *r, struct cpu *cpu, unsigned n, const uint8_t *buf);

#endif
