/*
 * The device tree that describes the board to the guest.
 */
#ifndef ARMLET_MACHINE_DEVTREE_H
#define ARMLET_MACHINE_DEVTREE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cpu/cpu.h"

struct devtree_config {
    unsigned smp;
    uint64_t ram_size; /* bytes */
    bool seeds;        /* kaslr-seed and rng-seed */
    bool highmem;      /* PCIe windows above the RAM */
    const struct cpu_model *model;
    uint64_t initrd_pa, initrd_size; /* size 0: none */
    const char *append;              /* bootargs, or NULL */
    const char *dtb;                 /* a file to use instead of the board's tree; /chosen and /memory are completed */
};

/* The tree, its header's size being its true size.  NULL: err says what is wrong with the user's file. */
GBytes *devtree_build(const struct devtree_config *config, GError **err);

#endif
