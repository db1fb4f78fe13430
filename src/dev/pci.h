/*
 * PCI: a host bridge with an ECAM (PCIe base specification 7.2.2), bus 0, and what every function has: a
 * configuration space, BARs, INTx, MSI-X.
 *
 * A function is a struct that begins with struct pci_function; its foo_new() calls pci_init() and the
 * pci_add_ functions, then pci_plug() gives it to the host, which owns it from then on.  Threads: set-up
 * before the vCPUs run; afterwards everything wants the board's lock.
 */
#ifndef ARMLET_DEV_PCI_H
#define ARMLET_DEV_PCI_H

#include "dev/device.h"

enum {
    PCI_SLOTS = 32,
    PCI_FUNCTIONS = 8,
    PCI_BARS = 7,
    PCI_ROM_BAR = 6,
    PCI_CONFIG_SIZE = 256,
    PCI_PINS = 4
};

enum pci_bar_type { PCI_BAR_MEM = 0, PCI_BAR_IO = 1, PCI_BAR_64 = 4, PCI_BAR_PREFETCH = 8 }; /* or-ed */

enum {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CACHE_LINE = 0x0c,
    PCI_LATENCY = 0x0d,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM = 0x2e,
    PCI_ROM = 0x30,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d
};
enum { PCI_COMMAND_IO = 1, PCI_COMMAND_MEMORY = 2, PCI_COMMAND_MASTER = 4, PCI_COMMAND_NO_INTX = 0x400 };
enum { PCI_CAP_VENDOR = 0x09, PCI_CAP_MSIX = 0x11 };

struct pci_ids {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; /* 24 bits */
    uint8_t revision;
};

struct pci_function;

struct pci_class {
    const char *name;
    void (*reset)(struct pci_function *fn); /* may be NULL, as the next three */
    /* Before a read (to change what is in config) and after a write: for capabilities of the device's own. */
    void (*config_reading)(struct pci_function *fn, unsigned off, unsigned size);
    void (*config_written)(struct pci_function *fn, unsigned off, unsigned size);
    void (*describe)(struct pci_function *fn, GString *out);
    void (*free)(struct pci_function *fn); /* the lock is not held */
};

struct pci_bar {
    struct mem_region region; /* size 0: not there */
    unsigned type;            /* enum pci_bar_type */
};

struct pci_msix {
    unsigned count; /* 0: the function has no MSI-X */
    uint8_t cap;    /* where in the configuration space */
    uint32_t (*table)[4];
    uint64_t *pending;
};

struct pci_host;

struct pci_function {
    const struct pci_class *cls;
    struct pci_host *host; /* NULL until plugged */
    uint8_t devfn;
    char *id; /* user's id= or NULL; owned */
    uint8_t config[PCI_CONFIG_SIZE], writable[PCI_CONFIG_SIZE];
    struct pci_bar bar[PCI_BARS];
    struct pci_msix msix;
    unsigned next_cap;
    bool intx; /* what the function asks for, whatever masks it */
};

/* --- the host bridge -------------------------------------------------------------------------------- */

struct pci_window {
    uint64_t base, size;
};

struct pci_host_config {
    struct pci_window ecam;              /* 1 MiB a bus */
    struct pci_window pio, mmio, mmio64; /* size 0: there is none */
    struct irq_line pin[PCI_PINS];
    /* A message that a function stores outside RAM.  The lock is held. */
    void (*message)(void *opaque, uint64_t pa, uint32_t data, uint16_t requester);
    void *opaque;
};

/* ECAM and BARs go into mem by themselves; the bridge is 00:00.0. */
struct device *pci_host_new(GMutex *lock, struct mem *mem, const struct pci_host_config *config);
/* After the last pci_plug(): what no BAR claims in the windows reads as all ones from now on. */
void pci_host_seal(struct device *host);
/* slot 1 .. 31, or -1 for the lowest that is free.  Returns it, or -EBUSY, -ENOSPC, -EINVAL. */
int pci_plug(struct device *host, struct pci_function *fn, int slot);

/* --- a function ------------------------------------------------------------------------------------- */

void pci_init(struct pci_function *fn, const struct pci_class *cls, const struct pci_ids *ids);
/* size is a power of two; PCI_BAR_64 takes n + 1 too. */
void pci_add_bar(struct pci_function *fn, unsigned n, unsigned type, uint64_t size, const struct mem_ops *ops,
                 void *dev);
/* len bytes behind the two of every capability's head; returns its offset.  Read-only unless fn->writable is
 * set. */
uint8_t pci_add_capability(struct pci_function *fn, uint8_t id, const void *data, unsigned len);
/* The whole of BAR n is the table and the pending bits of `count' (1 .. 128) messages. */
void pci_add_msix(struct pci_function *fn, unsigned n, unsigned count);
/* Uses INTA. */
void pci_add_intx(struct pci_function *fn);
/* What pci_init() and the pci_add_ functions made; not fn. */
void pci_cleanup(struct pci_function *fn);

void pci_set_intx(struct pci_function *fn, bool level);
bool pci_msix_enabled(const struct pci_function *fn);
/* Nothing while MSI-X is off or for a message that there is not. */
void pci_msix_send(struct pci_function *fn, unsigned vector);

#endif
