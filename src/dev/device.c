/*
 * What all devices share: set-up, locking, the register table look-up.
 *
 * Threading: pure, or under the device's own lock.
 */
#include "dev/device.h"

#include <inttypes.h>

#include "base/trace.h"

const struct reg *dev_reg_find(const struct reg *regs, unsigned n, uint64_t off)
{
    unsigned lo = 0, hi = n;

    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;

        if (off < regs[mid].off)
            hi = mid;
        else if (off >= (uint64_t)regs[mid].off + 4)
            lo = mid + 1;
        else
            return &regs[mid];
    }
    return NULL;
}

void dev_init(struct device *dev, const struct device_class *cls, const struct mem_ops *ops, uint64_t size,
              GMutex *lock)
{
    dev->cls = cls;
    dev->regs.name = cls->name;
    dev->regs.size = size;
    dev->regs.ops = ops;
    dev->regs.dev = dev;
    dev->regs.lock = lock;
    dev->regs.enabled = true;
}

void dev_lock(struct device *dev)
{
    if (dev->regs.lock)
        g_mutex_lock(dev->regs.lock);
}

void dev_unlock(struct device *dev)
{
    if (dev->regs.lock)
        g_mutex_unlock(dev->regs.lock);
}

void dev_reset(struct device *dev)
{
    if (!dev->cls->reset)
        return;
    dev_lock(dev);
    dev->cls->reset(dev);
    dev_unlock(dev);
}

void dev_free(struct device *dev)
{
    if (dev)
        dev->cls->free(dev);
}

void dev_guest_error(const struct device *dev, const char *what, uint64_t off, uint64_t value)
{
    trace(GUEST_ERRORS, "%s: %s, offset %#" PRIx64 ", value %#" PRIx64, dev->cls->name, what, off, value);
}
