/*
 * The virt board: where each device sits and which interrupt it has.  One table, read by the bus map, the device tree
 * and the documentation.  The map is that of QEMU's virt, so that kernels and scripts made for it run unchanged.
 */
#ifndef ARMLET_MACHINE_BOARD_H
#define ARMLET_MACHINE_BOARD_H

#include <stdint.h>

enum board_slot_id {
    BOARD_FLASH,
    BOARD_GIC_DIST,
    BOARD_GIC_CPU,
    BOARD_GIC_V2M,
    BOARD_UART,
    BOARD_RTC,
    BOARD_FW_CFG,
    BOARD_GPIO,
    BOARD_VIRTIO, /* the first of VIRTIO_SLOTS transports */
    BOARD_PLATFORM_BUS,
    BOARD_PCIE_MMIO, /* the node's unit address, and the first of four SPIs */
    BOARD_PCIE_PIO,
    BOARD_PCIE_ECAM, /* with highmem=off */
    BOARD_PCIE_ECAM_HIGH,
    BOARD_PCIE_MMIO_HIGH,
    BOARD_SLOTS
};

struct board_slot {
    const char *name; /* of the device tree node, without the unit address; NULL: no node of its own */
    uint64_t base, size;
    int spi;          /* -1: none */
};
extern const struct board_slot board_map[BOARD_SLOTS];

enum {
    VIRTIO_SLOTS = 32,
    VIRTIO_SLOT_SIZE = 0x200,
    GPIO_POWEROFF_LINE = 3,
    V2M_FIRST_SPI = 48,
    V2M_SPIS = 64,
    PPI_TIMER_SECURE = 13,
    PPI_TIMER_PHYS = 14,
    PPI_TIMER_VIRT = 11,
    PPI_TIMER_HYP = 10,
    PPI_PMU = 7,
    APB_CLOCK_HZ = 24000000,
};
#define BOARD_RAM_BASE UINT64_C(0x40000000)
#define BOARD_RAM_MAX (UINT64_C(255) << 30) /* below the high PCIe windows at 256 GiB */

#endif
