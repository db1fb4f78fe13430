/*
 * What a device is to the board: registers, wires, reset, and a description for the device tree and `info qtree'.
 *
 * A device is created by its own foo_new(), which returns a struct that begins with struct device; machine/virt.c
 * places it.  Threads: register callbacks run on vCPU threads, host events on the main thread; both hold the device's
 * `lock' (the board's, but for the GIC, which has its own).  Lock order: board, then GIC.
 */
#ifndef ARMLET_DEV_DEVICE_H
#define ARMLET_DEV_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/irq.h"
#include "mem/mem.h"

struct device;

struct device_class {
    const char *name;                  /* as in -device and info qtree: "pl011" */
    void (*reset)(struct device *dev); /* to the architecture's reset values; lock held */
    void (*free)(struct device *dev);
    /* One line a fact, for `info qtree'; may be NULL. */
    void (*describe)(struct device *dev, GString *out);
};

struct device {
    const struct device_class *cls;
    char *id; /* user's id= or NULL; owned */
    struct mem_region regs;
    struct irq_line irq;
};

/*
 * A table of registers, so that default reads and writes, trace names and the automatic register walk come from one
 * list.  Devices look an offset up with dev_reg_find() and handle only what has side effects by hand.
 */
enum reg_access { REG_RO = 1, REG_WO = 2, REG_RW = 3, REG_W1C = 7 };
struct reg {
    const char *name;
    uint32_t off;
    uint8_t access;   /* enum reg_access */
    uint32_t mask;    /* bits that exist */
    uint32_t reset;
};
const struct reg *dev_reg_find(const struct reg *regs, unsigned n, uint64_t off);

#endif
