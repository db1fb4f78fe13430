/*
 * Self-hosted debug (D2): breakpoints, watchpoints, software step, OS lock; and the same for an external debugger
 * (the gdb stub), whose stops end in a callback instead of a guest exception.
 *
 * The engine calls the hooks only while cpu->debug_slow or cpu->debug_breaks (fetch) or debug_watches() (data) say so.
 * External break- and watchpoints are changed while the cluster is paused, for all vCPUs alike; all else runs on the vCPU's
 * thread.
 */
#ifndef ARMLET_CPU_DEBUG_H
#define ARMLET_CPU_DEBUG_H

#include <stdbool.h>
#include <stdint.h>

/* MDSCR_EL1.  PSTATE.D matters only while SS or MDE is set. */
enum { MDSCR_SS = 1 << 0, MDSCR_KDE = 1 << 13, MDSCR_MDE = 1 << 15 };

struct cpu;
struct sysreg;
struct cpu_debug;

struct cpu_debug *debug_new(void);
void debug_free(struct cpu_debug *debug);
void debug_reset(struct cpu *cpu);
/* Recompute what is active at this EL and with these registers, and cpu->debug_slow with it. */
void debug_refresh(struct cpu *cpu);

/* Is nothing set up that a change of EL or PSTATE.D could make active, or an exception return install?  Then neither need ask. */
bool debug_idle(const struct cpu *cpu);

/*
 * Before each instruction, while cpu->debug_slow, and where debug_break_in_page(): false when it must not be executed,
 * because an exception was taken
 * (cpu->next_pc is its vector) or an external breakpoint was hit (debug_stopped()).
 */
bool debug_check_fetch(struct cpu *cpu);
/* After each instruction that completed, while cpu->debug_slow: advances the software step state machine (D2.12). */
void debug_step_done(struct cpu *cpu);
/* SVC and HVC complete before their exception is taken: the step is over (SSAdvance()). */
void debug_ss_advance(struct cpu *cpu);

/* Is there any watchpoint, the guest's or an external one, active or not?  For the slow path of accesses. */
bool debug_watches(const struct cpu *cpu);
/* Before an access: false when it must not be done, as with debug_check_fetch(). */
bool debug_check_watch(struct cpu *cpu, uint64_t va, unsigned size, bool is_write);
/* The page holds a watched byte: it must stay out of fast paths. */
bool debug_page_watched(const struct cpu *cpu, uint64_t va);

/* May debug exceptions other than BRK be taken from `el' with PSTATE.D as given (D2.4)? */
bool debug_enabled_from(const struct cpu *cpu, unsigned el, bool masked);
/* The SS bit that an exception return to `el' installs (DebugExceptionReturnSS()). */
bool debug_return_ss(const struct cpu *cpu, unsigned el, uint64_t spsr);

/* --- external debugger --- */
enum debug_kind { DEBUG_BREAK, DEBUG_WATCH_WRITE, DEBUG_WATCH_READ, DEBUG_WATCH_ACCESS };
/* Called on the vCPU's thread when it stops; the vCPU then leaves guest code with pc at the instruction. */
typedef void debug_stop_fn(void *opaque, struct cpu *cpu, enum debug_kind kind, uint64_t va);
void debug_set_stop(struct cpu *cpu, debug_stop_fn *fn, void *opaque);
/* size is 1 to 4096 and is ignored for breakpoints.  Several at one place count. */
void debug_insert(struct cpu *cpu, enum debug_kind kind, uint64_t va, uint64_t size);
bool debug_remove(struct cpu *cpu, enum debug_kind kind, uint64_t va, uint64_t size); /* false: there was none */
void debug_remove_all(struct cpu *cpu);
/* Stop after one instruction (or on the exception it takes). */
void debug_set_single_step(struct cpu *cpu, bool on);
/* An external stop is waiting to be seen; debug_resume() forgets it and steps over a breakpoint at pc. */
bool debug_stopped(const struct cpu *cpu);
void debug_resume(struct cpu *cpu);
/* As debug_resume(), but a break- or watchpoint of this very instruction is seen (again), unless a single step is on,
 * which does execute it.  For a debugger that lifts its points itself to step over them. */
void debug_release(struct cpu *cpu);
/* Makes a vCPU that has not stopped behave as one that has: it stays where it is while the others go on. */
void debug_hold(struct cpu *cpu);
/* A single step ends only outside [start, end); 0, 0: after each instruction.  And it takes no interrupt meanwhile. */
void debug_set_step_range(struct cpu *cpu, uint64_t start, uint64_t end);
void debug_set_step_masks_interrupts(struct cpu *cpu, bool on);
/*
 * For an engine that does not look at every instruction, while cpu->debug_breaks.  What it keeps of pages that have
 * breakpoints is good while the id stays; 0: there are none.  In code that is shared between mappings of a page they are
 * known by their offsets there.
 */
uint64_t debug_breaks_id(const struct cpu *cpu);
bool debug_break_in_page(const struct cpu *cpu, uint64_t va);
bool debug_break_at_offset(const struct cpu *cpu, unsigned page_off);
/* False: there is one at cpu->pc, and the vCPU stops as with debug_check_fetch(). */
bool debug_check_break(struct cpu *cpu);
/* For the engine: a single step is on (WFI and WFE do not sleep); and interrupts must wait for it. */
bool debug_stepping(const struct cpu *cpu);
bool debug_holds_interrupts(const struct cpu *cpu);

/* Hooks of isa/sysregs.def. */
bool debug_exists(const struct sysreg *reg); /* false: the number is beyond what we have; UNDEFINED */
bool debug_read(struct cpu *cpu, const struct sysreg *reg, uint64_t *value);
bool debug_write(struct cpu *cpu, const struct sysreg *reg, uint64_t value);

#endif
