/*
 * What a device is to the board: registers, wires, reset, and a description for the device tree and `info
 * qtree'.
 *
 * A device is created by its own foo_new(), which returns a struct that begins with struct device;
 * machine/virt.c places it.  Threads: register callbacks run on vCPU threads, host events on the main thread;
 * both hold the device's `lock' (the board's, but for the GIC, which has its own).  Lock order: board, then
 * GIC.
 */
#ifndef ARMLET_DEV_DEVICE_H
#define ARMLET_DEV_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/irq.h"
#include "mem/mem.h"

struct device;
struct reg;

struct device_class {
    const char *name;                  /* as in -device and info qtree: "pl011" */
    const struct reg *reg_list;        /* the registers in device.regs; may be NULL */
    unsigned reg_count;
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
 * A table of registers, so that default reads and writes, trace names and the automatic register walk come
 * from one list.  Devices look an offset up with dev_reg_find() and handle only what has side effects by
 * hand.
 */
enum reg_access {
    REG_RO = 1,
    REG_WO = 2,
    REG_RW = 3,
    REG_W1C = 7,
    REG_SIDE = 8, /* or-ed in: an access does more than load or store, so that a read-back proves nothing */
};
struct reg {
    const char *name;
    uint32_t off;
    uint8_t access;   /* enum reg_access */
    uint32_t mask;    /* bits that exist */
    uint32_t reset;
};
/* The register whose bytes include `off', or NULL.  `regs' is in ascending order of offset. */
const struct reg *dev_reg_find(const struct reg *regs, unsigned n, uint64_t off);

/*
 * What every foo_new() begins with: `cls' and `ops' are static, `size' is that of the region, `lock' is the
 * one that guards the device (NULL: it locks for itself).  The place on the bus, the irq line and the id are
 * the board's to set.
 */
void dev_init(struct device *dev, const struct device_class *cls, const struct mem_ops *ops, uint64_t size,
              GMutex *lock);

/* Take or leave the device's lock, for what runs outside register accesses. */
void dev_lock(struct device *dev);
void dev_unlock(struct device *dev);

/* class->reset with the lock taken; nothing when the class has none. */
void dev_reset(struct device *dev);
/* class->free; NULL is allowed. */
void dev_free(struct device *dev);

/* A (rate-limited) trace event: the guest touched what is not there, or in a way that is not allowed. */
void dev_guest_error(const struct device *dev, const char *what, uint64_t off, uint64_t value);

#endif
