/*
 * PrimeCell GPIO PL061 (Arm DDI 0190): eight pins with interrupt logic.
 */
#ifndef ARMLET_DEV_PL061_H
#define ARMLET_DEV_PL061_H

#include "dev/device.h"

struct device *pl061_new(GMutex *lock);

/* Drives input pin n (0..7) from outside; the pins are pulled down. The lock must not be held. */
void pl061_set_input(struct device *gpio, unsigned n, bool level);

/*
 * A key pressed: pin n is high for `ms' milliseconds, ended by a timer of GLib's default main context.
 * Drivers look at the pin again after the edge, so that a pulse without length is no key.  One pulse at a
 * time; main thread, lock not held.
 */
void pl061_pulse(struct device *gpio, unsigned n, unsigned ms);

/* Where output pin n (0..7) leads. */
void pl061_connect(struct device *gpio, unsigned n, struct irq_line line);

#endif
