/*
 * PL061: direction, data through the address mask, edge and level interrupts.
 *
 * Left out: the alternate functions behind AFSEL (the register is stored; the pins stay under software
 * control).
 *
 * Threading: the board's lock.
 */
#include "dev/pl061.h"

#include "base/compiler.h"
#include "base/report.h"

enum {
    DATA = 0x000, /* to 0x3fc: bits [9:2] of the address say which pins are meant */
    DATA_ALL = 0x3fc,
    GPIODIR = 0x400,
    IS = 0x404,
    IBE = 0x408,
    IEV = 0x40c,
    IE = 0x410,
    RIS = 0x414,
    MIS = 0x418,
    IC = 0x41c,
    AFSEL = 0x420,
    ID = 0xfe0
};

struct pl061 {
    struct device dev;
    struct irq_line out[8];
    uint8_t input, output; /* levels from outside; the data register */
    uint8_t driven;        /* output levels as last told to `out' */
    uint8_t seen;          /* pin levels when edges were last looked for */
    uint8_t dir, is, ibe, iev, ie, afsel;
    uint8_t edges; /* latched */
    guint pulse;   /* the timer that ends it; 0: none */
    unsigned pulse_pin;
};

static const struct reg regs[] = {
    {"GPIODATA", DATA_ALL, REG_RW | REG_SIDE, 0xff, 0},
    {"GPIODIR", GPIODIR, REG_RW, 0xff, 0},
    {"GPIOIS", IS, REG_RW, 0xff, 0},
    {"GPIOIBE", IBE, REG_RW, 0xff, 0},
    {"GPIOIEV", IEV, REG_RW, 0xff, 0},
    {"GPIOIE", IE, REG_RW, 0xff, 0},
    {"GPIORIS", RIS, REG_RO, 0xff, 0},
    {"GPIOMIS", MIS, REG_RO, 0xff, 0},
    {"GPIOIC", IC, REG_WO | REG_SIDE, 0xff, 0},
    {"GPIOAFSEL", AFSEL, REG_RW, 0xff, 0},
    {"GPIOPeriphID0", ID + 0x00, REG_RO, 0xff, 0x61},
    {"GPIOPeriphID1", ID + 0x04, REG_RO, 0xff, 0x10},
    {"GPIOPeriphID2", ID + 0x08, REG_RO, 0xff, 0x04},
    {"GPIOPeriphID3", ID + 0x0c, REG_RO, 0xff, 0x00},
    {"GPIOPCellID0", ID + 0x10, REG_RO, 0xff, 0x0d},
    {"GPIOPCellID1", ID + 0x14, REG_RO, 0xff, 0xf0},
    {"GPIOPCellID2", ID + 0x18, REG_RO, 0xff, 0x05},
    {"GPIOPCellID3", ID + 0x1c, REG_RO, 0xff, 0xb1},
};

static uint8_t pins(const struct pl061 *g)
{
    return (uint8_t)((g->output & g->dir) | (g->input & ~g->dir));
}

/* Only inputs interrupt.  Edges are latched; a level is there as long as it is there. */
static uint8_t raw_status(const struct pl061 *g)
{
    uint8_t level = (uint8_t)(~(pins(g) ^ g->iev) & g->is & ~g->dir);

    return level | (uint8_t)(g->edges & ~g->is);
}

static void update(struct pl061 *g)
{
    uint8_t now = pins(g), changed = now ^ g->seen, wanted = g->ibe | (uint8_t)~(now ^ g->iev);
    uint8_t driven = g->output & g->dir;

    g->edges |= (uint8_t)(changed & wanted & ~g->is & ~g->dir);
    g->seen = now;
    for (unsigned n = 0; n < 8; n++) {
        if ((driven ^ g->driven) & (1u << n))
            irq_set(&g->out[n], driven & (1u << n));
    }
    g->driven = driven;
    irq_set(&g->dev.irq, raw_status(g) & g->ie);
}

static uint8_t *plain_register(struct pl061 *g, uint64_t off)
{
    switch (off) {
    case GPIODIR:
        return &g->dir;
    case IS:
        return &g->is;
    case IBE:
        return &g->ibe;
    case IEV:
        return &g->iev;
    case IE:
        return &g->ie;
    case AFSEL:
        return &g->afsel;
    default:
        return NULL;
    }
}

static uint64_t pl061_read(void *opaque, uint64_t off, unsigned size)
{
    struct pl061 *g = opaque;
    const uint8_t *plain = plain_register(g, off);
    const struct reg *r;

    (void)size;
    if (off <= DATA_ALL)
        return pins(g) & (off >> 2);
    if (plain)
        return *plain;
    if (off == RIS)
        return raw_status(g);
    if (off == MIS)
        return raw_status(g) & g->ie;
    r = dev_reg_find(regs, ARRAY_LEN(regs), off);
    if (!r || !(r->access & REG_RO))
        dev_guest_error(&g->dev, "no such register to read", off, 0);
    return r ? r->reset : 0;
}

static void pl061_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct pl061 *g = opaque;
    uint8_t *plain = plain_register(g, off), v = (uint8_t)value;

    (void)size;
    if (off <= DATA_ALL) {
        uint8_t mask = (uint8_t)(off >> 2) & g->dir;

        g->output = (uint8_t)((g->output & ~mask) | (v & mask));
    } else if (plain) {
        *plain = v;
        if (off == GPIODIR)
            g->seen = pins(g); /* turning a pin round is no edge */
    } else if (off == IC) {
        g->edges &= (uint8_t)~v;
    } else {
        dev_guest_error(&g->dev, "no such register to write", off, value);
        return;
    }
    update(g);
}

void pl061_set_input(struct device *gpio, unsigned n, bool level)
{
    struct pl061 *g = CONTAINER_OF(gpio, struct pl061, dev);
    uint8_t bit = (uint8_t)(1u << n);

    BUG_ON(n > 7);
    dev_lock(gpio);
    g->input = level ? g->input | bit : g->input & (uint8_t)~bit;
    update(g);
    dev_unlock(gpio);
}

static gboolean end_pulse(gpointer opaque)
{
    struct pl061 *g = opaque;

    g->pulse = 0;
    pl061_set_input(&g->dev, g->pulse_pin, false);
    return G_SOURCE_REMOVE;
}

void pl061_pulse(struct device *gpio, unsigned n, unsigned ms)
{
    struct pl061 *g = CONTAINER_OF(gpio, struct pl061, dev);

    if (g->pulse)
        return;
    g->pulse_pin = n;
    pl061_set_input(gpio, n, true);
    g->pulse = g_timeout_add(ms, end_pulse, g);
}

void pl061_connect(struct device *gpio, unsigned n, struct irq_line line)
{
    BUG_ON(n > 7);
    CONTAINER_OF(gpio, struct pl061, dev)->out[n] = line;
}

static void pl061_reset(struct device *dev)
{
    struct pl061 *g = CONTAINER_OF(dev, struct pl061, dev);

    g->output = g->dir = g->is = g->ibe = g->iev = g->ie = g->afsel = g->edges = 0;
    g->seen = pins(g);
    update(g);
}

static void pl061_free(struct device *dev)
{
    struct pl061 *g = CONTAINER_OF(dev, struct pl061, dev);

    if (g->pulse)
        g_source_remove(g->pulse);
    g_free(dev->id);
    g_free(g);
}

static const struct device_class pl061_class = {
    .name = "pl061",
    .reg_list = regs,
    .reg_count = ARRAY_LEN(regs),
    .reset = pl061_reset,
    .free = pl061_free,
};

static const struct mem_ops pl061_ops = {pl061_read, pl061_write, 1, 4, false};

struct device *pl061_new(GMutex *lock)
{
    struct pl061 *g = g_new0(struct pl061, 1);

    dev_init(&g->dev, &pl061_class, &pl061_ops, MEM_PAGE_SIZE, lock);
    return &g->dev;
}
