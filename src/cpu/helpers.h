/*
 * The C functions of isa/helpers.def.  On the vCPU's own thread.  Before one that is not HE_PURE, cpu->pc is the
 * instruction's address and cpu->next_pc the following one.
 */
#ifndef ARMLET_CPU_HELPERS_H
#define ARMLET_CPU_HELPERS_H

#include "cpu/cpu.h"

enum helper_effects { HE_PURE, HE_STATE, HE_END };

#define HELPER0(name, effects) uint64_t helper_##name(struct cpu *cpu);
#define HELPER1(name, effects) uint64_t helper_##name(struct cpu *cpu, uint64_t a);
#define HELPER2(name, effects) uint64_t helper_##name(struct cpu *cpu, uint64_t a, uint64_t b);
#define HELPER3(name, effects) uint64_t helper_##name(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t c);
#define HELPER4(name, effects) uint64_t helper_##name(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
#define HELPERF0(name, effects) bool helper_##name(struct cpu *cpu, uint64_t *out);
#define HELPERF1(name, effects) bool helper_##name(struct cpu *cpu, uint64_t a, uint64_t *out);
#define HELPERF2(name, effects) bool helper_##name(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t *out);
#define HELPERF3(name, effects) bool helper_##name(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t c, uint64_t *out);
#define HELPERF4(name, effects)                                                                                        \
    bool helper_##name(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t *out);
#include "isa/helpers.def"
#undef HELPER0
#undef HELPER1
#undef HELPER2
#undef HELPER3
#undef HELPER4
#undef HELPERF0
#undef HELPERF1
#undef HELPERF2
#undef HELPERF3
#undef HELPERF4

#endif
