/*
 * PrimeCell UART PL011 (Arm DDI 0183), r1p4: 16-byte FIFOs.
 */
#ifndef ARMLET_DEV_PL011_H
#define ARMLET_DEV_PL011_H

#include "base/chardev.h"
#include "dev/device.h"

/* chr may be NULL; it stays the caller's, and the UART is its front end until freed. */
struct device *pl011_new(GMutex *lock, struct chardev *chr);

#endif
