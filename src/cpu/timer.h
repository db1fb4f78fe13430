/*
 * The generic timers beyond what cpu.h shows.  On the vCPU's own thread.
 */
#ifndef ARMLET_CPU_TIMER_H
#define ARMLET_CPU_TIMER_H

#include <stdbool.h>
#include <stdint.h>

struct cpu;
struct sysreg;

/* Nanoseconds of one counter tick: 62.5 MHz is exact. */
enum { COUNTER_TICK_NS = 16 };

void timer_reset(struct cpu *cpu);
/* Lowers and forgets nothing; raises or lowers the wires to what the registers say now. */
void timer_update(struct cpu *cpu);
/* When the clock must next make PEND_TIMER, in nanoseconds of the cluster's clock; UINT64_MAX: never. */
uint64_t timer_deadline_ns(struct cpu *cpu);

/*
 * The event stream (CNTKCTL_EL1.EVNTEN, D11.2.4).  timer_event_taken(): has it set the event register since the last
 * call?  timer_event_ns(): when it next will; UINT64_MAX: never.
 */
bool timer_event_taken(struct cpu *cpu);
uint64_t timer_event_ns(struct cpu *cpu);

/* Hooks of isa/sysregs.def. */
bool timer_read(struct cpu *cpu, const struct sysreg *reg, uint64_t *value);
bool timer_write(struct cpu *cpu, const struct sysreg *reg, uint64_t value);

#endif
