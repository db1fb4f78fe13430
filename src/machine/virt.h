/*
 * The board's fixed devices, made and wired from board_map.
 */
#ifndef ARMLET_MACHINE_VIRT_H
#define ARMLET_MACHINE_VIRT_H

#include "cpu/cpu.h"
#include "dev/device.h"
#include "dev/gicv2.h"
#include "machine/board.h"
#include "machine/chardevs.h"
#include "machine/config.h"

struct board {
    GMutex lock; /* the board's: guards every device but the GIC, which has its own; taken before the GIC's */
    struct mem *mem;
    struct cluster *cluster;
    struct gicv2 *gic;
    struct device *v2m, *uart, *rtc, *gpio, *fw_cfg;
    struct device *pcie; /* dev/pci.h: the host bridge */
    struct virtio_device *balloon; /* of the transport that has it; NULL: none */
    struct device *virtio[VIRTIO_SLOTS]; /* virtio/mmio.h frames, all of them, most empty */
    bool fixed_time;                     /* rtc_offset is 1970's, and time is the guest's own */
    int64_t rtc_offset;                  /* microseconds that the guest's clock is ahead of the host's */
};

/* Fills a zeroed board: memory, vCPUs, devices, wires. */
bool board_init(struct board *b, const struct config *config, struct chardev *console, GError **err);
/* Cold reset of every device; the vCPUs are paused or not started. */
void board_reset(struct board *b);
void board_fini(struct board *b);

#endif
