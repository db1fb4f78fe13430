/*
 * GICv2m, revision 0: the non-secure MSI frame.  The SPIs behind it must be configured edge-triggered, as its
 * driver does: a message is a pulse.
 *
 * Threading: the device's lock.
 */
#include "dev/gicv2m.h"

#include "base/compiler.h"

enum { MSI_TYPER = 0x008, MSI_IIDR = 0xfcc, FRAME_SIZE = 0x1000 };

struct gicv2m {
    struct device dev;
    unsigned base_intid, count;
    struct irq_line *spi;
};

static const struct reg regs[] = {
    {"MSI_TYPER", MSI_TYPER, REG_RO | REG_SIDE, 0x03ff03ff, 0}, /* the configuration */
    {"MSI_SETSPI_NS", GICV2M_SETSPI, REG_WO | REG_SIDE, 0x3ff, 0},
    {"MSI_IIDR", MSI_IIDR, REG_RO, 0xffffffff, 0x04100000},
};

static uint64_t frame_read(void *opaque, uint64_t off, unsigned size)
{
    struct gicv2m *m = opaque;

    (void)size;
    switch (off) {
    case MSI_TYPER:
        return m->base_intid << 16 | m->count;
    case MSI_IIDR: /* a product of no known implementer: drivers look for quirks here */
        return 0x04100000;
    default:
        return 0;
    }
}

static void frame_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct gicv2m *m = opaque;

    (void)size;
    if (off == GICV2M_SETSPI)
        gicv2m_send(&m->dev, (uint32_t)value);
    else
        dev_guest_error(&m->dev, "no such register to write", off, value);
}

void gicv2m_send(struct device *dev, uint32_t intid)
{
    struct gicv2m *m = CONTAINER_OF(dev, struct gicv2m, dev);
    unsigned i = (intid & 0x3ff) - m->base_intid;

    if (i >= m->count) {
        dev_guest_error(dev, "no such message", GICV2M_SETSPI, intid);
        return;
    }
    irq_set(&m->spi[i], true);
    irq_set(&m->spi[i], false);
}

static void gicv2m_free(struct device *dev)
{
    struct gicv2m *m = CONTAINER_OF(dev, struct gicv2m, dev);

    g_free(m->spi);
    g_free(dev->id);
    g_free(m);
}

static void gicv2m_describe(struct device *dev, GString *out)
{
    struct gicv2m *m = CONTAINER_OF(dev, struct gicv2m, dev);

    g_string_append_printf(out, "base-spi = %u\nnum-spi = %u\n", m->base_intid, m->count);
}

static const struct device_class gicv2m_class = {
    .name = "arm-gicv2m",
    .reg_list = regs,
    .reg_count = ARRAY_LEN(regs),
    .free = gicv2m_free,
    .describe = gicv2m_describe,
};

/* A message may be 16 bits wide (SBSA E.5). */
static const struct mem_ops frame_ops = {frame_read, frame_write, 2, 4, false};

struct device *gicv2m_new(GMutex *lock, unsigned base_intid, unsigned count, const struct irq_line *spi)
{
    struct gicv2m *m = g_new0(struct gicv2m, 1);

    dev_init(&m->dev, &gicv2m_class, &frame_ops, FRAME_SIZE, lock);
    m->base_intid = base_intid;
    m->count = count;
    m->spi = g_memdup2(spi, count * sizeof(*spi));
    return &m->dev;
}
