/*
 * Stage 1 translation of the EL1&0 regime (DDI0487 D8) as a function of the system registers and memory.
 *
 * No caching here: cpu/tlb.h does that.  All functions belong to the vCPU's thread, or to anybody while the cluster is
 * paused.  The only state they change is guest memory: access flag and dirty state where the model manages them.
 */
#ifndef ARMLET_CPU_MMU_H
#define ARMLET_CPU_MMU_H

#include <stdbool.h>
#include <stdint.h>

struct cpu;

/* What a page allows, by access and Exception level; PAN and UAO are not in here. */
enum {
    MMU_R0 = 1, MMU_W0 = 2, MMU_X0 = 4, /* EL0, and unprivileged accesses of EL1 */
    MMU_R1 = 8, MMU_W1 = 16, MMU_X1 = 32,
};

enum mmu_access {
    MMU_READ = 0, MMU_WRITE = 1, MMU_EXEC = 2, MMU_RMW = 3, /* RMW: both, a fault of the read part counts as one */
    MMU_KIND = 3,
    MMU_CACHE = 4,  /* cache maintenance: ESR.CM */
};

/* Whose permissions count.  The numbers tag TLB entries; none is zero. */
enum mmu_view { VIEW_EL0 = 1, VIEW_EL1 = 2, VIEW_EL1_PAN = 3 };

/* Fault status codes, DFSC and IFSC of ESR_EL1 and FST of PAR_EL1; those with a level have it in bits 1:0. */
enum {
    FSC_ADDRESS_SIZE = 0x00, FSC_TRANSLATION = 0x04, FSC_ACCESS_FLAG = 0x08, FSC_PERMISSION = 0x0c,
    FSC_EXTERNAL = 0x10, FSC_WALK_EXTERNAL = 0x14, FSC_ALIGNMENT = 0x21, FSC_UNSUPPORTED = 0x35,
    FSC_NONE = 0xff,
};

struct mmu_result {
    uint8_t fsc;     /* FSC_NONE: translated; the rest is valid only then */
    uint8_t perms;   /* MMU_R0 ... */
    uint8_t attr;    /* memory type as in MAIR_EL1 */
    uint8_t sh;      /* shareability as in the descriptor */
    uint8_t shift;   /* log2 of the bytes that one descriptor maps: a TLB entry's reach */
    uint8_t level;   /* of the descriptor, for permission faults */
    bool global;     /* nG = 0 */
    bool device;     /* Device memory: alignment is checked, speculation is not allowed */
    uint64_t pa;
};

/* What a walk may do besides looking. */
enum mmu_walk_mode {
    WALK_QUIET, /* debugger: access flag ignored, nothing changed */
    WALK_AT,    /* AT instructions: as an access would see it, dirty state untouched */
    WALK_READ,  /* may set the access flag if the model does that */
    WALK_WRITE, /* a store or atomic by `view': may also set dirty state if that view may write */
};

/*
 * Translate va, without judging the access: the caller compares perms with mmu_allows().  Dirty state is managed
 * only for WALK_WRITE.  False: a fault (result->fsc).
 */
bool mmu_walk(struct cpu *cpu, uint64_t va, enum mmu_walk_mode mode, enum mmu_view view, struct mmu_result *result);
/* access: the MMU_KIND part counts. */
bool mmu_allows(unsigned perms, enum mmu_view view, unsigned access);
/* Walk and judge, from the CPU's present Exception level, PAN and UAO (unpriv: LDTR, STTR).  False: result->fsc. */
bool mmu_translate(struct cpu *cpu, uint64_t va, unsigned access, bool unpriv, struct mmu_result *result);
/* The view that data accesses have now. */
enum mmu_view mmu_data_view(const struct cpu *cpu, bool unpriv);

/*
 * AT S1E1R, S1E1W, S1E0R, S1E0W, S1E1RP, S1E1WP: PAR_EL1 for va as `view' sees it.  False: the walk met an external
 * abort, which was taken as a Data Abort.
 */
bool mmu_at(struct cpu *cpu, uint64_t va, enum mmu_view view, bool write, uint64_t *par);

/* For debuggers: no faults taken, no side effects. */
bool cpu_debug_translate(struct cpu *cpu, uint64_t va, uint64_t *pa);

/* Is the top byte of va ignored (TCR_EL1.TBI for its half)? */
bool mmu_tbi(const struct cpu *cpu, uint64_t va);
/* The ASID of accesses now, by TCR_EL1.A1 and AS. */
uint16_t mmu_asid(const struct cpu *cpu);
/* The bits of an ASID that count: 0xff or 0xffff (TCR_EL1.AS). */
uint16_t mmu_asid_mask(const struct cpu *cpu);

#endif
