/*
 * One AArch64 processing element (EL0 and EL1) and the cluster it belongs to.
 *
 * Threads: a cpu belongs to its vCPU thread.  Others may only: set interrupt wires (cpu_irq_line), ask for an exit
 * (cpu_kick), queue TLB maintenance (cpu/tlb.c), or touch everything while the cluster is paused (cluster_pause).
 */
#ifndef ARMLET_CPU_CPU_H
#define ARMLET_CPU_CPU_H

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/irq.h"
#include "cpu/fp.h"
#include "cpu/sysregs.h"
#include "isa/a64.h"
#include "mem/mem.h"

enum { CPU_MAX = 8, CPU_HOT = 192, CPU_RECENT = 2048 };

/* PSTATE.NZCV as it stands in SPSR: bits 31 to 28. */
enum { NZCV_N = (int)0x80000000, NZCV_Z = 0x40000000, NZCV_C = 0x20000000, NZCV_V = 0x10000000 };
enum { DAIF_D = 0x200, DAIF_A = 0x100, DAIF_I = 0x80, DAIF_F = 0x40 }; /* as in SPSR and the DAIF register */

/* Other fields of SPSR. */
enum { SPSR_M = 0x1f, SPSR_IL = 1 << 20, SPSR_SS = 1 << 21, SPSR_PAN = 1 << 22, SPSR_UAO = 1 << 23 };

union vreg {
    uint64_t d[2];
    uint32_t s[4];
    uint16_t h[8];
    uint8_t b[16];
    uint64_t es3[2]; /* lanes by log2 of their bytes, for macros */
    uint32_t es2[4];
    uint16_t es1[8];
    uint8_t es0[16];
} __attribute__((aligned(16)));

/* Interrupt and event bits of cpu.pending: set by any thread with atomic_fetch_or. */
enum cpu_pending {
    PEND_IRQ = 1,     /* level of the IRQ wire */
    PEND_FIQ = 2,
    PEND_SERROR = 4,
    PEND_TIMER = 8,   /* the host timer fired: look at the generic timers */
    PEND_TLB = 16,    /* maintenance is queued */
    PEND_PAUSE = 32,  /* the cluster wants this vCPU out of guest code */
    PEND_EVENT = 64,  /* WFE event register, set by SEV of others */
    PEND_STOP = 128,  /* PSCI off, reset or the end */
    PEND_DEBUG = 256, /* breakpoints or step state changed */
};

struct cpu_model; /* cpu/model.c: name, MIDR, features, ID registers */
struct cluster;
struct tlb;
struct decode_cache;

struct gtimer { /* one generic timer: physical or virtual */
    uint64_t cval;
    uint32_t ctl; /* ENABLE, IMASK; ISTATUS is derived */
    struct irq_line out;
    bool level;
};

struct exclusive {
    bool valid;
    uint8_t bytes; /* 1 to 16 */
    uint32_t version; /* of the granule, when it was marked (cpu/access.c); not with a single vCPU */
    uint64_t hva;  /* host address of the marked granule: physical identity without aliases */
    uint64_t data[2];
};

struct cpu {
    /* --- what translated code touches at every step: keep within the first 512 bytes --- */
    uint64_t x[32];   /* x[31] is the current SP; XZR never reaches the array */
    uint64_t pc;      /* of the instruction being executed, or next to be */
    uint64_t next_pc; /* interpreter: where to go after this instruction */
    uint32_t nzcv;
    uint32_t leave;   /* interpreter: this instruction ended the straight line (cpu/prim.h) */
    atomic_uint pending; /* enum cpu_pending; non-zero makes engines leave guest code at the next check */
    uint64_t icount;  /* instructions retired */
    struct tlb *tlb;  /* cpu/tlb.h */
    void *engine;     /* the engine's own state */
    uint64_t hot[CPU_HOT] __attribute__((aligned(16))); /* the engine's own, near the registers so that generated code reaches it cheaply */
    union vreg v[32];
    struct fpst fp;   /* FPCR and FPSR */

    /* --- PSTATE, unpacked --- */
    uint8_t el;    /* 0 or 1 */
    uint8_t spsel; /* PSTATE.SP */
    bool pan, uao, ss, il;
    bool fp_enabled;  /* derived: CPACR_EL1.FPEN lets this EL use FP and SIMD */
    bool debug_slow;  /* derived: the guest's breakpoints or a step make the engine look at every instruction */
    bool debug_breaks; /* derived: an external debugger has breakpoints (debug_break_in_page()) */
    bool event;       /* the WFE event register as set by this PE itself (SEVL, exception return); others: PEND_EVENT */
    uint32_t daif;    /* DAIF_* bits */
    uint64_t sp_el[2]; /* SP_EL0 and SP_EL1 of the one that is not current */

    struct sysregs sys;  /* every stored system register, fields from isa/sysregs.def */
    struct exclusive ex;
    struct gtimer gt[2]; /* GT_PHYS, GT_VIRT */
    uint64_t event_stream_seen; /* cpu/timer.c: events of CNTKCTL_EL1.EVNTEN that WFE has used up */
    struct irq_line pmu_out;
    struct cpu_pmu *pmu;
    struct cpu_debug *debug; /* hardware and gdb breakpoints, watchpoints */
    struct decode_cache *decoded;

    /* --- who we are --- */
    unsigned index;
    uint64_t mpidr;
    const struct cpu_model *model;
    uint64_t features[2]; /* bit per enum a64_feature */
    struct mem *mem;
    struct cluster *cluster;
    struct vcpu *vcpu; /* thread, sleeping, power state: cpu/cluster.c */
    uint64_t recent[CPU_RECENT] __attribute__((aligned(64))); /* the engine's: pages that loops are in */
};

enum { GT_PHYS, GT_VIRT };

static inline bool cpu_has(const struct cpu *cpu, unsigned feature)
{
    return cpu->features[feature / 64] >> feature % 64 & 1;
}

/* --- cpu/model.c --- */
const struct cpu_model *cpu_model_find(const char *name); /* NULL: unknown */
const char *cpu_model_name(const struct cpu_model *model);
/* Names of all models in order of -cpu help, NULL-terminated. */
const char *const *cpu_model_names(void);

/* --- cpu/cpu.c: life and state --- */
struct cpu *cpu_new(struct cluster *cluster, struct mem *mem, const struct cpu_model *model, unsigned index);
void cpu_free(struct cpu *cpu);
/* Cold reset into EL1h, MMU off, DAIF masked (cpsr 0x400003c5: Z is set as the boot firmware leaves it), pc as given. */
void cpu_reset(struct cpu *cpu, uint64_t pc, uint64_t x0);
/* PSTATE in SPSR's layout; setting switches SP banks and everything derived. */
uint64_t cpu_pstate(const struct cpu *cpu);
void cpu_set_pstate(struct cpu *cpu, uint64_t spsr);
void cpu_set_el_sp(struct cpu *cpu, unsigned el, unsigned spsel);
/* After any change of SCTLR, CPACR, TCR, TTBR, PAN, EL, debug state ...: recompute derived fields and TLB contexts. */
void cpu_refresh(struct cpu *cpu);
/* A 64-bit hash of the architectural state (registers, PSTATE, system registers), for lockstep comparison. */
uint64_t cpu_state_hash(const struct cpu *cpu);
/* The IRQ (PEND_IRQ) or FIQ input as a wire. */
struct irq_line cpu_irq_line(struct cpu *cpu, enum cpu_pending which);
void cpu_kick(struct cpu *cpu, enum cpu_pending why); /* any thread; also wakes from WFI */

/* --- cpu/exception.c (DDI0487 D1.3) --- */
enum exc_class {
    EC_UNKNOWN = 0x00, EC_WFX = 0x01, EC_FP_ACCESS = 0x07, EC_BTI = 0x0d, EC_ILLEGAL = 0x0e, EC_SVC = 0x15,
    EC_HVC = 0x16, EC_SYSREG = 0x18, EC_IABT_LOWER = 0x20, EC_IABT_SAME = 0x21, EC_PC_ALIGN = 0x22,
    EC_DABT_LOWER = 0x24, EC_DABT_SAME = 0x25, EC_SP_ALIGN = 0x26, EC_FP_EXC = 0x2c, EC_SERROR = 0x2f,
    EC_BKPT_LOWER = 0x30, EC_BKPT_SAME = 0x31, EC_STEP_LOWER = 0x32, EC_STEP_SAME = 0x33, EC_WATCH_LOWER = 0x34,
    EC_WATCH_SAME = 0x35, EC_BRK = 0x3c,
};
/*
 * Take a synchronous exception to EL1 now: ESR, ELR = ret, SPSR, vector; next_pc is set, so that the engine goes on
 * there.  ec is the class without regard to lower/same EL (give the _LOWER form; EL1 turns it into _SAME); iss its low
 * 25 bits; far is stored when the class has an address.
 */
void cpu_take_sync(struct cpu *cpu, enum exc_class ec, uint32_t iss, uint64_t ret, uint64_t far);
void cpu_undefined(struct cpu *cpu);
/* Take a pending and unmasked IRQ, FIQ or SError at an instruction boundary; true when one was taken (pc is set). */
bool cpu_take_interrupt(struct cpu *cpu);
/* ERET: PSTATE and next_pc from SPSR_EL1 and ELR_EL1; an illegal return sets PSTATE.IL (D1.3.3). */
void cpu_eret(struct cpu *cpu);
/* WFI (wfe: WFE) at EL0 while SCTLR_EL1.nTWI (nTWE) is clear: true when it trapped (next_pc is set). */
bool cpu_wfx_trap(struct cpu *cpu, bool wfe);
/* HVC: PSCI when imm is 0 and EL1 asks (D1.3: else UNDEFINED, there is no EL2).  cpu/psci.c. */
void cpu_hvc(struct cpu *cpu, unsigned imm);

/* --- system instructions (cpu/sysreg.c) --- */
/* key = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2.  false: an exception was taken. op0 1 is SYS, SYSL. */
#define SYSREG_KEY(op0, op1, crn, crm, op2) ((op0) << 14 | (op1) << 11 | (crn) << 7 | (crm) << 3 | (op2))
bool cpu_sysreg_read(struct cpu *cpu, uint32_t key, unsigned rt, uint64_t *value);
bool cpu_sysreg_write(struct cpu *cpu, uint32_t key, unsigned rt, uint64_t value);
/* MSR (immediate): op1:op2 selects the field.  false: an exception was taken. */
bool cpu_msr_imm(struct cpu *cpu, unsigned op1, unsigned op2, unsigned imm);
/* The board's system registers (GICv3 CPU interface): asked first for keys that the table marks as hooks. */
struct sysreg_hooks {
    bool (*read)(void *opaque, unsigned cpu, uint32_t key, uint64_t *value);
    bool (*write)(void *opaque, unsigned cpu, uint32_t key, uint64_t value);
    void *opaque;
};

/* --- timers (cpu/timer.c): counter at 62.5 MHz --- */
enum { COUNTER_HZ = 62500000 };
uint64_t cpu_counter(struct cpu *cpu); /* CNTPCT_EL0 = CNTVCT_EL0 (CNTVOFF is 0) */
void cpu_timer_check(struct cpu *cpu); /* recompute levels and the host deadline; on the vCPU's thread */

/* --- cluster: the vCPUs together (cpu/cluster.c) --- */
struct cluster_ops { /* the machine's side of PSCI; called on a vCPU thread */
    void (*system_off)(void *opaque);
    void (*system_reset)(void *opaque);
};
/* An engine runs one vCPU until cpu->pending asks it to leave: the only thing in cpu/ that knows of translation. */
struct cpu_engine {
    const char *name;
    void (*init)(struct cpu *cpu);
    void (*fini)(struct cpu *cpu);
    void (*run)(struct cpu *cpu);
    void (*flush)(struct cpu *cpu); /* drop what depends on address translation; own thread */
    /* At least one instruction (or an exception) and at most `max', whatever is pending: cpu/lockstep.c. */
    void (*run_some)(struct cpu *cpu, uint64_t max);
};
extern const struct cpu_engine interp_engine;

struct cluster {
    struct cpu *cpu[CPU_MAX];
    unsigned n;
    const struct cpu_engine *engine;
    void *engine_shared; /* the engine's own, of all vCPUs together */
    const struct cluster_ops *ops;
    void *ops_opaque;
    struct sysreg_hooks hooks;
    uint64_t (*clock_ns)(void *opaque); /* NULL: the host's monotonic clock, less time spent paused */
    void *clock_opaque;
    struct cluster_threads *threads;
    struct lockstep *lockstep; /* NULL: run freely */
    bool paired_exclusives; /* cpu/access.h */
};
struct cluster *cluster_new(unsigned n, struct mem *mem, const struct cpu_model *model,
                            const struct cpu_engine *engine);
void cluster_free(struct cluster *cl);
/* vCPU 0 starts at pc with x0; the others wait for PSCI CPU_ON.  paused: created but not running (-S). */
void cluster_start(struct cluster *cl, uint64_t pc, uint64_t x0, bool paused);
/* Pause returns when no vCPU executes guest code; nests.  Not to be called on a vCPU thread. */
void cluster_pause(struct cluster *cl);
void cluster_resume(struct cluster *cl);
bool cluster_paused(const struct cluster *cl);
/* All vCPUs back to the cold state, vCPU 0 to start at pc; called while paused, takes effect at the resume. */
void cluster_reset(struct cluster *cl, uint64_t pc, uint64_t x0);
/* The vCPU whose thread is calling, or NULL. */
struct cpu *cpu_current(void);
/* The host's id of the vCPU's thread; 0 before it has begun. */
long cpu_host_thread(const struct cpu *cpu);
/* Ends all vCPU threads and joins them. */
void cluster_stop(struct cluster *cl);

/* --- memory access by va (cpu/access.h has the inline fast path) --- */

#endif
