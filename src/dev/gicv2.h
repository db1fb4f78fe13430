/*
 * The Generic Interrupt Controller, architecture version 2 (Arm IHI 0048B), without the Security Extensions.
 */
#ifndef ARMLET_DEV_GICV2_H
#define ARMLET_DEV_GICV2_H

#include "dev/device.h"

enum {
    GICV2_MAX_CPUS = 8,
    GICV2_MAX_IRQS = 1020,
    GICV2_SPI_BASE = 32, /* INTID of SPI 0 */
    GICV2_PPI_BASE = 16  /* INTID of PPI 0 */
};

struct gicv2;

/*
 * num_irqs counts SGIs and PPIs too: a multiple of 32, at most 1024 of which 1020 are usable.  current_cpu
 * tells which vCPU the calling thread is (0 for a thread that is none): the registers are banked by it. The
 * returned struct begins with struct device, whose regs are the distributor's (4 KiB).
 */
struct gicv2 *gicv2_new(unsigned num_cpus, unsigned num_irqs, unsigned (*current_cpu)(void));

struct device *gicv2_device(struct gicv2 *gic);
/* The CPU interface's registers (8 KiB), to be placed apart from the distributor's. */
struct mem_region *gicv2_cpu_region(struct gicv2 *gic);

/* Where the CPU's two inputs are.  The lines are driven with the GIC's lock held. */
void gicv2_connect(struct gicv2 *gic, unsigned cpu, struct irq_line irq, struct irq_line fiq);

/* The wires into it: SPI n (from 0), and PPI n (0 .. 15) of a CPU.  BUG when there is no such input. */
struct irq_line gicv2_spi(struct gicv2 *gic, unsigned n);
struct irq_line gicv2_ppi(struct gicv2 *gic, unsigned cpu, unsigned n);

#endif
