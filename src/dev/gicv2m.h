/*
 * The MSI frame beside a GICv2 (Arm SBSA, "GICv2m"): a store to it is an interrupt.
 */
#ifndef ARMLET_DEV_GICV2M_H
#define ARMLET_DEV_GICV2M_H

#include "dev/device.h"

/*
 * `count' messages are INTIDs base_intid .. base_intid + count - 1; spi[i] is the wire of the i-th (copied),
 * pulsed. Where a device sends its message: GICV2M_SETSPI of the region.
 */
struct device *gicv2m_new(GMutex *lock, unsigned base_intid, unsigned count, const struct irq_line *spi);

enum { GICV2M_SETSPI = 0x40 };

/* A device's store to SETSPI, with the lock held. */
void gicv2m_send(struct device *dev, uint32_t intid);

#endif
