/*
 * The life of a cpu, PSTATE as one word, stack pointer banks, and what is derived from the registers.
 *
 * Wires and kicks may come from any thread; the rest belongs to the vCPU's thread (or to anybody while it is not
 * running: creation, reset, a paused cluster).
 */
#include "cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/report.h"
#include "base/trace.h"
#include "cpu/cluster.h"
#include "cpu/debug.h"
#include "cpu/model.h"
#include "cpu/pmu.h"
#include "cpu/show.h"
#include "cpu/timer.h"
#include "cpu/tlb.h"

/* MPIDR_EL1: RES1, U = 0, all vCPUs in one cluster with Aff0 as their number. */
#define MPIDR_RES1 (UINT64_C(1) << 31)

struct cpu *cpu_new(struct cluster *cluster, struct mem *mem, const struct cpu_model *model, unsigned index)
{
    struct cpu *cpu = aligned_alloc(64, bits_align_up(sizeof(*cpu), 64));

    BUG_ON(index >= CPU_MAX);
    if (!cpu)
        g_error("out of memory");
    memset(cpu, 0, sizeof(*cpu));
    cpu->index = index;
    cpu->mpidr = MPIDR_RES1 | index;
    cpu->model = model;
    cpu->mem = mem;
    cpu->cluster = cluster;
    cpu_model_apply(cpu);
    cpu->pmu = pmu_new();
    cpu->debug = debug_new();
    cpu->tlb = tlb_new();
    return cpu;
}

void cpu_free(struct cpu *cpu)
{
    if (!cpu)
        return;
    tlb_free(cpu->tlb);
    debug_free(cpu->debug);
    pmu_free(cpu->pmu);
    free(cpu);
}

static void reset_sysregs(struct cpu *cpu)
{
    size_t n;
    const struct sysreg *table = sysreg_table(&n);

    for (size_t i = 0; i < n; i++)
        if (table[i].stored)
            memcpy((char *)&cpu->sys + table[i].offset, &table[i].reset, sizeof(uint64_t));
}

static void show_before_reset(const struct cpu *cpu)
{
    g_autoptr(GString) text = g_string_new(NULL);

    show_general(cpu, text);
    trace(CPU_RESET, "%s", text->str);
}

void cpu_reset(struct cpu *cpu, uint64_t pc, uint64_t x0)
{
    if (unlikely(trace_on(CPU_RESET)))
        show_before_reset(cpu);
    memset(cpu->x, 0, sizeof(cpu->x));
    memset(cpu->v, 0, sizeof(cpu->v));
    memset(&cpu->fp, 0, sizeof(cpu->fp));
    memset(cpu->sp_el, 0, sizeof(cpu->sp_el));
    memset(&cpu->ex, 0, sizeof(cpu->ex));
    atomic_fetch_and(&cpu->pending, PEND_IRQ | PEND_FIQ | PEND_PAUSE | PEND_TLB | PEND_STOP);
    reset_sysregs(cpu);
    cpu->sys.rvbar_el1 = pc;
    cpu->x[0] = x0;
    cpu->pc = cpu->next_pc = pc;
    cpu->nzcv = NZCV_Z;
    cpu->daif = DAIF_D | DAIF_A | DAIF_I | DAIF_F;
    cpu->el = cpu->spsel = 1;
    cpu->pan = cpu->uao = cpu->ss = cpu->il = cpu->event = false;
    timer_reset(cpu);
    pmu_reset(cpu);
    debug_reset(cpu);
    tlb_flush_all(cpu);
    cpu_refresh(cpu);
}

uint64_t cpu_pstate(const struct cpu *cpu)
{
    return cpu->nzcv | (cpu->uao ? SPSR_UAO : 0) | (cpu->pan ? SPSR_PAN : 0) | (cpu->ss ? SPSR_SS : 0) |
           (cpu->il ? SPSR_IL : 0) | cpu->daif | (unsigned)cpu->el << 2 | cpu->spsel;
}

void cpu_set_pstate(struct cpu *cpu, uint64_t spsr)
{
    unsigned el = spsr >> 2 & 1;

    cpu->nzcv = (uint32_t)spsr & 0xf0000000;
    cpu->uao = cpu_has(cpu, FEAT_UAO) && (spsr & SPSR_UAO);
    cpu->pan = cpu_has(cpu, FEAT_PAN) && (spsr & SPSR_PAN);
    cpu->ss = spsr & SPSR_SS;
    cpu->il = spsr & SPSR_IL;
    cpu->daif = (uint32_t)spsr & (DAIF_D | DAIF_A | DAIF_I | DAIF_F);
    cpu_set_el_sp(cpu, el, el ? spsr & 1 : 0);
}

void cpu_set_el_sp(struct cpu *cpu, unsigned el, unsigned spsel)
{
    unsigned old = cpu->el && cpu->spsel, bank = el && spsel;

    if (el != cpu->el && pmu_active(cpu))
        pmu_sync(cpu);
    if (old != bank) {
        cpu->sp_el[old] = cpu->x[31];
        cpu->x[31] = cpu->sp_el[bank];
    }
    cpu->el = (uint8_t)el;
    cpu->spsel = (uint8_t)spsel;
    cpu_refresh(cpu);
}

void cpu_refresh(struct cpu *cpu)
{
    unsigned fpen = cpu->sys.cpacr_el1 >> 20 & 3;

    cpu->fp_enabled = fpen == 3 || (fpen == 1 && cpu->el == 1);
    debug_refresh(cpu);
    tlb_refresh(cpu);
}

/* Murmur-like: order matters, every bit of every word counts. */
static uint64_t hash_words(uint64_t h, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        uint64_t w;

        memcpy(&w, (const char *)data + i, sizeof(w));
        h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h;
}

uint64_t cpu_state_hash(const struct cpu *cpu)
{
    unsigned bank = cpu->el && cpu->spsel;
    uint64_t extra[] = {
        cpu->pc, cpu_pstate(cpu), cpu->fp.fpcr, cpu->fp.fpsr, cpu->sp_el[!bank],
        cpu->gt[GT_PHYS].cval, cpu->gt[GT_PHYS].ctl, cpu->gt[GT_VIRT].cval, cpu->gt[GT_VIRT].ctl,
    };
    uint64_t h = hash_words(0, cpu->x, sizeof(cpu->x));

    h = hash_words(h, cpu->v, sizeof(cpu->v));
    h = hash_words(h, extra, sizeof(extra));
    return hash_words(h, &cpu->sys, offsetof(struct sysregs, id));
}

static void set_wire(void *opaque, unsigned which, bool level)
{
    struct cpu *cpu = opaque;

    if (level)
        cpu_kick(cpu, which);
    else
        atomic_fetch_and(&cpu->pending, ~which);
}

struct irq_line cpu_irq_line(struct cpu *cpu, enum cpu_pending which)
{
    return (struct irq_line){ .set = set_wire, .opaque = cpu, .n = which };
}

void cpu_kick(struct cpu *cpu, enum cpu_pending why)
{
    atomic_fetch_or(&cpu->pending, why);
    cluster_wake(cpu);
}
