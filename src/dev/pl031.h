/*
 * PrimeCell real time clock PL031 (Arm DDI 0224): seconds since 1970 and an alarm.
 */
#ifndef ARMLET_DEV_PL031_H
#define ARMLET_DEV_PL031_H

#include "dev/device.h"

/*
 * Where the time comes from: microseconds since 1970 as the guest shall see them (-rtc base=, clock=). Any
 * thread.
 */
struct rtc_source {
    int64_t (*now)(void *opaque);
    void *opaque;
};

/* NULL for the host's own clock, in UTC. The alarm is a source on GLib's default main context. */
struct device *pl031_new(GMutex *lock, const struct rtc_source *source);

#endif
