/*
 * GICv2: distributor and CPU interfaces (IHI 0048B), as Cortex-A15's, without the Security Extensions: both
 * groups, 256 priorities (128 preemption levels), both EOI modes, level and edge, per-source SGIs.
 *
 * Left out: virtual interfaces (GICH, GICV), the legacy bypass (its disable bits are stored), GICD_NSACR.
 *
 * State is kept as the registers show it, one bit an interrupt, so that an access is a word operation and the
 * search for the highest priority looks only at words with a candidate in them.
 *
 * Threading: locks for itself; any thread.  Outputs change under the lock, so that a CPU sees them in order.
 */
#include "dev/gicv2.h"

#include <inttypes.h>

#include "base/bits.h"
#include "base/report.h"
#include "base/trace.h"

enum {
    MAX_WORDS = 32,
    NUM_SGIS = 16,
    APR_WORDS = 4,
    INTID_GROUP1 = 1022,  /* GICC_IAR: the interrupt is for GICC_AIAR */
    INTID_SPURIOUS = 1023,
    IDLE_PRIORITY = 0x100,
    MIN_ABPR = 1,
    DIST_SIZE = 0x1000,
    CPU_SIZE = 0x2000
};

enum { CTLR_GRP0 = 1, CTLR_GRP1 = 2 }; /* GICD_CTLR and GICC_CTLR */
enum {
    GICC_ACK_CTL = 1 << 2,
    GICC_FIQ_EN = 1 << 3,
    GICC_CBPR = 1 << 4,
    GICC_EOI_MODE = 1 << 9,
    GICC_CTLR_MASK = 0x3ff
};

enum {
    GICD_CTLR = 0x000,
    GICD_TYPER = 0x004,
    GICD_IIDR = 0x008,
    GICD_IGROUPR = 0x080,
    GICD_ISENABLER = 0x100,
    GICD_ICENABLER = 0x180,
    GICD_ISPENDR = 0x200,
    GICD_ICPENDR = 0x280,
    GICD_ISACTIVER = 0x300,
    GICD_ICACTIVER = 0x380,
    GICD_IPRIORITYR = 0x400,
    GICD_ITARGETSR = 0x800,
    GICD_ICFGR = 0xc00,
    GICD_PPISR = 0xd00,
    GICD_SPISR = 0xd04,
    GICD_NSACR = 0xe00,
    GICD_SGIR = 0xf00,
    GICD_CPENDSGIR = 0xf10,
    GICD_SPENDSGIR = 0xf20,
    GICD_ID = 0xfd0
};

enum {
    GICC_CTLR = 0x00,
    GICC_PMR = 0x04,
    GICC_BPR = 0x08,
    GICC_IAR = 0x0c,
    GICC_EOIR = 0x10,
    GICC_RPR = 0x14,
    GICC_HPPIR = 0x18,
    GICC_ABPR = 0x1c,
    GICC_AIAR = 0x20,
    GICC_AEOIR = 0x24,
    GICC_AHPPIR = 0x28,
    GICC_APR = 0xd0,
    GICC_NSAPR = 0xe0,
    GICC_IIDR = 0xfc,
    GICC_DIR = 0x1000
};

/* PIDR4-7, PIDR0-3, CIDR0-3. */
static const uint8_t dist_id[12] = {0x04, 0, 0, 0, 0x90, 0xb4, 0x2b, 0x00, 0x0d, 0xf0, 0x05, 0xb1};

/* 32 interrupts, a bit each. */
struct intr_word {
    uint32_t enabled;
    uint32_t latched; /* pending by an edge or by software, whatever the input does */
    uint32_t level;   /* the input wire */
    uint32_t active;
    uint32_t edge; /* configuration: 1 edge-triggered, 0 level-sensitive */
    uint32_t group1;
};

struct cpu_if {
    struct irq_line irq, fiq;
    bool irq_out, fiq_out;
    struct intr_word intr;         /* SGIs and PPIs */
    uint8_t priority[32];
    uint8_t sgi_source[NUM_SGIS];  /* bit c: pending from CPU c */
    uint32_t targeted[MAX_WORDS];  /* SPIs that go to this CPU */
    uint32_t ctlr;
    uint8_t pmr, bpr, abpr;
    uint32_t apr[2][APR_WORDS];    /* active priorities: [0] GICC_APRn, group 0; [1] GICC_NSAPRn, group 1 */
};

struct gicv2 {
    struct device dev;
    struct mem_region cpu_regs;
    GMutex lock;
    unsigned (*current_cpu)(void);
    unsigned num_cpus, num_irqs, num_words;
    uint32_t ctlr;
    struct cpu_if cpu[GICV2_MAX_CPUS];
    struct intr_word spi[MAX_WORDS]; /* [0] unused: banked */
    uint8_t spi_priority[MAX_WORDS * 32];
    uint8_t spi_target[MAX_WORDS * 32];
};

static const struct reg dist_regs[] = {
    {"GICD_CTLR", GICD_CTLR, REG_RW, 0x3, 0},
    {"GICD_TYPER", GICD_TYPER, REG_RO | REG_SIDE, 0xfcff, 0}, /* the configuration */
    {"GICD_IIDR", GICD_IIDR, REG_RO, 0xffffffff, 0x43b},
    {"GICD_IGROUPR0", GICD_IGROUPR, REG_RW, 0xffffffff, 0},
    {"GICD_IGROUPR1", GICD_IGROUPR + 4, REG_RW, 0xffffffff, 0},
    {"GICD_ISENABLER0", GICD_ISENABLER, REG_RW | REG_SIDE, 0xffffffff, 0xffff},
    {"GICD_ISENABLER1", GICD_ISENABLER + 4, REG_RW | REG_SIDE, 0xffffffff, 0},
    {"GICD_ICENABLER0", GICD_ICENABLER, REG_RW | REG_SIDE, 0xffffffff, 0xffff},
    {"GICD_ICENABLER1", GICD_ICENABLER + 4, REG_W1C, 0xffffffff, 0},
    {"GICD_ISPENDR0", GICD_ISPENDR, REG_RW | REG_SIDE, 0xffff0000, 0},
    {"GICD_ISPENDR1", GICD_ISPENDR + 4, REG_RW | REG_SIDE, 0xffffffff, 0},
    {"GICD_ICPENDR1", GICD_ICPENDR + 4, REG_W1C, 0xffffffff, 0},
    {"GICD_ISACTIVER1", GICD_ISACTIVER + 4, REG_RW | REG_SIDE, 0xffffffff, 0},
    {"GICD_ICACTIVER1", GICD_ICACTIVER + 4, REG_W1C, 0xffffffff, 0},
    {"GICD_IPRIORITYR0", GICD_IPRIORITYR, REG_RW, 0xffffffff, 0},
    {"GICD_IPRIORITYR8", GICD_IPRIORITYR + 32, REG_RW, 0xffffffff, 0},
    {"GICD_ITARGETSR8", GICD_ITARGETSR + 32, REG_RW | REG_SIDE, 0xffffffff, 0}, /* only the CPUs that exist */
    {"GICD_ICFGR0", GICD_ICFGR, REG_RO, 0xffffffff, 0xaaaaaaaa},
    {"GICD_ICFGR1", GICD_ICFGR + 4, REG_RW, 0xaaaaaaaa, 0},
    {"GICD_ICFGR2", GICD_ICFGR + 8, REG_RW, 0xaaaaaaaa, 0},
    {"GICD_PPISR", GICD_PPISR, REG_RO, 0xffff, 0},
    {"GICD_SPISR0", GICD_SPISR, REG_RO, 0xffffffff, 0},
    {"GICD_SGIR", GICD_SGIR, REG_WO | REG_SIDE, 0x03ff800f, 0},
    {"GICD_CPENDSGIR0", GICD_CPENDSGIR, REG_W1C, 0xffffffff, 0},
    {"GICD_SPENDSGIR0", GICD_SPENDSGIR, REG_RW | REG_SIDE, 0xffffffff, 0},
    {"GICD_PIDR4", 0xfd0, REG_RO, 0xff, 0x04},
    {"GICD_PIDR0", 0xfe0, REG_RO, 0xff, 0x90},
    {"GICD_PIDR1", 0xfe4, REG_RO, 0xff, 0xb4},
    {"GICD_PIDR2", 0xfe8, REG_RO, 0xff, 0x2b},
    {"GICD_CIDR0", 0xff0, REG_RO, 0xff, 0x0d},
    {"GICD_CIDR3", 0xffc, REG_RO, 0xff, 0xb1},
};

/* --- who is pending ------------------------------------------------------------------------------------- */

static struct intr_word *word_of(struct gicv2 *gic, unsigned cpu, unsigned word)
{
    return word ? &gic->spi[word] : &gic->cpu[cpu].intr;
}

static uint8_t *priority_of(struct gicv2 *gic, unsigned cpu, unsigned intid)
{
    return intid < GICV2_SPI_BASE ? &gic->cpu[cpu].priority[intid] : &gic->spi_priority[intid];
}

static uint32_t pending_bits(const struct intr_word *w)
{
    return w->latched | (w->level & ~w->edge);
}

static unsigned group_of(struct gicv2 *gic, unsigned cpu, unsigned intid)
{
    return (word_of(gic, cpu, intid / 32)->group1 >> (intid % 32)) & 1;
}

/*
 * The pending, enabled, inactive interrupt of highest priority in an enabled group; the lowest INTID among
 * equals.
 */
static unsigned highest_pending(struct gicv2 *gic, unsigned cpu, unsigned *priority)
{
    struct cpu_if *ci = &gic->cpu[cpu];
    uint32_t groups = gic->ctlr & ci->ctlr;
    unsigned best = INTID_SPURIOUS;

    *priority = IDLE_PRIORITY;
    for (unsigned i = 0; i < gic->num_words; i++) {
        struct intr_word *w = word_of(gic, cpu, i);
        uint32_t candidates = pending_bits(w) & w->enabled & ~w->active;

        if (i)
            candidates &= ci->targeted[i];
        candidates &= (groups & CTLR_GRP0 ? ~w->group1 : 0) | (groups & CTLR_GRP1 ? w->group1 : 0);
        for (; candidates; candidates &= candidates - 1) {
            unsigned intid = i * 32 + bits_ctz(candidates);
            uint8_t p = *priority_of(gic, cpu, intid);

            if (p < *priority) {
                *priority = p;
                best = intid;
            }
        }
    }
    return best;
}

/*
 * The part of a priority that counts for preemption (IHI 0048B 3.3.3): the binary point of group 1 is one
 * off.
 */
static unsigned group_priority(const struct cpu_if *ci, unsigned priority, unsigned group)
{
    unsigned bpr = group && !(ci->ctlr & GICC_CBPR) ? ci->abpr - 1u : ci->bpr;

    return priority & (0xffu << (bpr + 1)) & 0xff;
}

static int first_active_level(const uint32_t apr[APR_WORDS])
{
    for (int i = 0; i < APR_WORDS; i++) {
        if (apr[i])
            return i * 32 + (int)bits_ctz(apr[i]);
    }
    return -1;
}

static unsigned running_priority(const struct cpu_if *ci)
{
    int a = first_active_level(ci->apr[0]), b = first_active_level(ci->apr[1]);

    if (a < 0 || (b >= 0 && b < a))
        a = b;
    return a < 0 ? IDLE_PRIORITY : (unsigned)a << 1;
}

/* What the CPU interface would signal now, or INTID_SPURIOUS. */
static unsigned signalled(struct gicv2 *gic, unsigned cpu, unsigned *priority)
{
    struct cpu_if *ci = &gic->cpu[cpu];
    unsigned intid = highest_pending(gic, cpu, priority), running = running_priority(ci), group;

    if (intid == INTID_SPURIOUS || *priority >= ci->pmr)
        return INTID_SPURIOUS;
    if (running == IDLE_PRIORITY)
        return intid;
    /* Both sides are masked: the binary point may have moved since the running one was taken. */
    group = group_of(gic, cpu, intid);
    return group_priority(ci, *priority, group) < group_priority(ci, running, group) ? intid : INTID_SPURIOUS;
}

static void update_cpu(struct gicv2 *gic, unsigned cpu)
{
    struct cpu_if *ci = &gic->cpu[cpu];
    unsigned priority, intid = signalled(gic, cpu, &priority);
    bool fiq = false, irq = false;

    if (intid != INTID_SPURIOUS) {
        fiq = (ci->ctlr & GICC_FIQ_EN) && !group_of(gic, cpu, intid);
        irq = !fiq;
    }
    if (irq != ci->irq_out) {
        ci->irq_out = irq;
        trace(IRQ, "gic: cpu %u irq %d (INTID %u)", cpu, irq, intid);
        irq_set(&ci->irq, irq);
    }
    if (fiq != ci->fiq_out) {
        ci->fiq_out = fiq;
        trace(IRQ, "gic: cpu %u fiq %d (INTID %u)", cpu, fiq, intid);
        irq_set(&ci->fiq, fiq);
    }
}

static void update_all(struct gicv2 *gic)
{
    for (unsigned cpu = 0; cpu < gic->num_cpus; cpu++)
        update_cpu(gic, cpu);
}

/* --- inputs --------------------------------------------------------------------------------------------- */

static void input_set(void *opaque, unsigned n, bool level)
{
    struct gicv2 *gic = opaque;
    unsigned cpu = n >> 16, intid = n & 0xffff;
    uint32_t bit = 1u << (intid % 32);
    struct intr_word *w = word_of(gic, cpu, intid / 32);

    g_mutex_lock(&gic->lock);
    if (!(w->level & bit) != !level) {
        trace(IRQ, "gic: INTID %u of cpu %u: input %d", intid, cpu, level);
        w->level = level ? w->level | bit : w->level & ~bit;
        if (level && (w->edge & bit))
            w->latched |= bit;
        if (intid < GICV2_SPI_BASE)
            update_cpu(gic, cpu);
        else
            update_all(gic);
    }
    g_mutex_unlock(&gic->lock);
}

struct irq_line gicv2_spi(struct gicv2 *gic, unsigned n)
{
    BUG_ON(n >= gic->num_irqs - GICV2_SPI_BASE || n + GICV2_SPI_BASE >= GICV2_MAX_IRQS);
    return (struct irq_line){input_set, gic, GICV2_SPI_BASE + n};
}

struct irq_line gicv2_ppi(struct gicv2 *gic, unsigned cpu, unsigned n)
{
    BUG_ON(cpu >= gic->num_cpus || n >= 16);
    return (struct irq_line){input_set, gic, cpu << 16 | (GICV2_PPI_BASE + n)};
}

static void set_sgi(struct gicv2 *gic, unsigned cpu, unsigned sgi, uint8_t sources)
{
    struct cpu_if *ci = &gic->cpu[cpu];
    uint32_t bit = 1u << sgi;

    ci->sgi_source[sgi] = sources;
    ci->intr.latched = sources ? ci->intr.latched | bit : ci->intr.latched & ~bit;
    update_cpu(gic, cpu);
}

/* GICD_SGIR: who gets it is the list, all others, or oneself; filter 3 is reserved. */
static void send_sgi(struct gicv2 *gic, unsigned self, uint32_t value)
{
    unsigned sgi = value & 0xf, all = (1u << gic->num_cpus) - 1, to;

    switch (bits_extract(value, 24, 2)) {
    case 0:
        to = bits_extract(value, 16, 8) & all;
        break;
    case 1:
        to = all & ~(1u << self);
        break;
    case 2:
        to = 1u << self;
        break;
    default:
        dev_guest_error(&gic->dev, "reserved filter", GICD_SGIR, value);
        return;
    }
    for (unsigned cpu = 0; cpu < gic->num_cpus; cpu++) {
        if (to & (1u << cpu))
            set_sgi(gic, cpu, sgi, gic->cpu[cpu].sgi_source[sgi] | (uint8_t)(1u << self));
    }
}

/* --- the distributor ------------------------------------------------------------------------------------ */

static uint32_t pack_bytes(const uint8_t *b)
{
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* Sixteen interrupts a word, bit 1 of each pair; bit 0 is reserved in GICv2. */
static uint32_t read_config(struct gicv2 *gic, unsigned cpu, unsigned n)
{
    uint32_t edge = word_of(gic, cpu, n / 2)->edge >> (n % 2 * 16), v = 0;

    for (unsigned i = 0; i < 16; i++)
        v |= ((edge >> i) & 1) << (2 * i + 1);
    return v;
}

static uint32_t read_target(struct gicv2 *gic, unsigned cpu, unsigned intid)
{
    if (gic->num_cpus == 1) /* IHI 0048B 4.3.12: RAZ/WI in a uniprocessor */
        return 0;
    if (intid < GICV2_SPI_BASE)
        return 0x01010101u << cpu;
    return pack_bytes(&gic->spi_target[intid]);
}

static uint32_t read_id_or_none(struct gicv2 *gic, unsigned cpu, unsigned off)
{
    if (off >= GICD_ID)
        return dist_id[(off - GICD_ID) / 4];
    if (off >= GICD_CPENDSGIR && off < GICD_CPENDSGIR + NUM_SGIS)
        return pack_bytes(&gic->cpu[cpu].sgi_source[off - GICD_CPENDSGIR]);
    if (off >= GICD_SPENDSGIR && off < GICD_SPENDSGIR + NUM_SGIS)
        return pack_bytes(&gic->cpu[cpu].sgi_source[off - GICD_SPENDSGIR]);
    return 0;
}

/* The bit-per-interrupt registers, 0x80 bytes each. */
static uint32_t read_bits(struct gicv2 *gic, unsigned cpu, unsigned off)
{
    unsigned i = (off & 0x7f) / 4;
    struct intr_word *w;

    if (i >= gic->num_words)
        return 0;
    w = word_of(gic, cpu, i);
    switch (off & ~0x7fu) {
    case GICD_IGROUPR:
        return w->group1;
    case GICD_ISENABLER:
    case GICD_ICENABLER:
        return w->enabled;
    case GICD_ISPENDR:
    case GICD_ICPENDR:
        return pending_bits(w);
    default: /* GICD_ISACTIVER, GICD_ICACTIVER */
        return w->active;
    }
}

static uint32_t dist_read_word(struct gicv2 *gic, unsigned cpu, unsigned off)
{
    switch (off) {
    case GICD_CTLR:
        return gic->ctlr;
    case GICD_TYPER:
        return (gic->num_words - 1) | (gic->num_cpus - 1) << 5;
    case GICD_IIDR:
        return 0x43b;
    case GICD_IGROUPR ... GICD_IPRIORITYR - 1:
        return read_bits(gic, cpu, off);
    case GICD_IPRIORITYR ... GICD_ITARGETSR - 1:
        off -= GICD_IPRIORITYR;
        return off < gic->num_irqs ? pack_bytes(priority_of(gic, cpu, off)) : 0;
    case GICD_ITARGETSR ... GICD_ICFGR - 1:
        off -= GICD_ITARGETSR;
        return off < gic->num_irqs ? read_target(gic, cpu, off) : 0;
    case GICD_ICFGR ... GICD_PPISR - 1:
        off = (off - GICD_ICFGR) / 4;
        return off / 2 < gic->num_words ? read_config(gic, cpu, off) : 0;
    case GICD_PPISR: /* PPI n at bit n */
        return gic->cpu[cpu].intr.level >> GICV2_PPI_BASE;
    case GICD_SPISR ... GICD_NSACR - 1:
        off = (off - GICD_PPISR) / 4;
        return off < gic->num_words ? gic->spi[off].level : 0;
    default:
        return read_id_or_none(gic, cpu, off);
    }
}

static void write_bits(struct gicv2 *gic, unsigned cpu, unsigned off, uint32_t value, uint32_t mask)
{
    unsigned i = (off & 0x7f) / 4;
    uint32_t sgis = i ? 0 : 0xffff; /* always enabled; pending through SGIR and friends only */
    struct intr_word *w;

    if (i >= gic->num_words)
        return;
    w = word_of(gic, cpu, i);
    switch (off & ~0x7fu) {
    case GICD_IGROUPR:
        w->group1 = (w->group1 & ~mask) | value;
        break;
    case GICD_ISENABLER:
        w->enabled |= value;
        break;
    case GICD_ICENABLER:
        w->enabled &= ~value | sgis;
        break;
    case GICD_ISPENDR:
        w->latched |= value & ~sgis;
        break;
    case GICD_ICPENDR:
        w->latched &= ~value | sgis;
        break;
    case GICD_ISACTIVER:
        w->active |= value;
        break;
    default: /* GICD_ICACTIVER */
        w->active &= ~value;
        break;
    }
}

static void write_target(struct gicv2 *gic, unsigned intid, uint8_t target)
{
    if (intid < GICV2_SPI_BASE || intid >= gic->num_irqs || gic->num_cpus == 1)
        return;
    target &= (uint8_t)((1u << gic->num_cpus) - 1);
    gic->spi_target[intid] = target;
    for (unsigned cpu = 0; cpu < gic->num_cpus; cpu++) {
        uint32_t *t = &gic->cpu[cpu].targeted[intid / 32], bit = 1u << (intid % 32);

        *t = target & (1u << cpu) ? *t | bit : *t & ~bit;
    }
}

static void write_config(struct gicv2 *gic, unsigned cpu, unsigned n, uint32_t value, uint32_t mask)
{
    struct intr_word *w = word_of(gic, cpu, n / 2);

    if (n == 0) /* SGIs are edge-triggered, for ever */
        return;
    for (unsigned i = 0; i < 16; i++) {
        uint32_t bit = 1u << (n % 2 * 16 + i), field = 2u << (2 * i);

        if (mask & field)
            w->edge = value & field ? w->edge | bit : w->edge & ~bit;
    }
}

/* Registers of a byte an interrupt; value and mask as in dist_write_word(). */
static void write_bytes(struct gicv2 *gic, unsigned cpu, unsigned off, uint32_t value, uint32_t mask)
{
    for (unsigned i = 0; i < 4; i++, off++, value >>= 8, mask >>= 8) {
        uint8_t b = (uint8_t)value;

        if (!(mask & 0xff))
            continue;
        if (off >= GICD_SPENDSGIR) {
            unsigned sgi = off - GICD_SPENDSGIR;

            b &= (uint8_t)((1u << gic->num_cpus) - 1);
            set_sgi(gic, cpu, sgi, gic->cpu[cpu].sgi_source[sgi] | b);
        } else if (off >= GICD_CPENDSGIR) {
            unsigned sgi = off - GICD_CPENDSGIR;

            set_sgi(gic, cpu, sgi, gic->cpu[cpu].sgi_source[sgi] & (uint8_t)~b);
        } else if (off >= GICD_ITARGETSR) {
            write_target(gic, off - GICD_ITARGETSR, b);
        } else if (off - GICD_IPRIORITYR < gic->num_irqs) {
            *priority_of(gic, cpu, off - GICD_IPRIORITYR) = b;
        }
    }
}

/* mask covers the bytes of the word that are written; value is zero outside it. */
static void dist_write_word(struct gicv2 *gic, unsigned cpu, unsigned off, uint32_t value, uint32_t mask)
{
    switch (off) {
    case GICD_CTLR:
        gic->ctlr = ((gic->ctlr & ~mask) | value) & (CTLR_GRP0 | CTLR_GRP1);
        break;
    case GICD_IGROUPR ... GICD_IPRIORITYR - 1:
        write_bits(gic, cpu, off, value, mask);
        break;
    case GICD_IPRIORITYR ... GICD_ICFGR - 1:
    case GICD_CPENDSGIR ... GICD_CPENDSGIR + NUM_SGIS - 1:
    case GICD_SPENDSGIR ... GICD_SPENDSGIR + NUM_SGIS - 1:
        write_bytes(gic, cpu, off, value, mask);
        break;
    case GICD_ICFGR ... GICD_PPISR - 1:
        off = (off - GICD_ICFGR) / 4;
        if (off / 2 < gic->num_words)
            write_config(gic, cpu, off, value, mask);
        break;
    case GICD_SGIR:
        send_sgi(gic, cpu, value);
        return;
    default:
        dev_guest_error(&gic->dev, "write to a read-only or missing register", off, value);
        return;
    }
    update_all(gic);
}

static unsigned this_cpu(struct gicv2 *gic)
{
    unsigned cpu = gic->current_cpu();

    return cpu < gic->num_cpus ? cpu : 0;
}

static uint64_t dist_read(void *opaque, uint64_t off, unsigned size)
{
    struct gicv2 *gic = opaque;
    uint32_t v;

    g_mutex_lock(&gic->lock);
    v = dist_read_word(gic, this_cpu(gic), (unsigned)off & ~3u);
    g_mutex_unlock(&gic->lock);
    return bits_extract(v, (unsigned)(off & 3) * 8, size * 8);
}

static void dist_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct gicv2 *gic = opaque;
    unsigned shift = (unsigned)(off & 3) * 8;
    uint32_t mask = (uint32_t)(bits_mask(size * 8) << shift);

    g_mutex_lock(&gic->lock);
    dist_write_word(gic, this_cpu(gic), (unsigned)off & ~3u, (uint32_t)(value << shift) & mask, mask);
    g_mutex_unlock(&gic->lock);
}

/* --- the CPU interface ---------------------------------------------------------------------------------- */

/* An INTID as IAR and HPPIR show it: an SGI with the CPU it came from, the lowest number first. */
static uint32_t with_source(const struct cpu_if *ci, unsigned intid)
{
    if (intid < NUM_SGIS && ci->sgi_source[intid])
        return intid | (uint32_t)bits_ctz(ci->sgi_source[intid]) << 10;
    return intid;
}

/*
 * What a register of group 0 (IAR, HPPIR) or of group 1 (AIAR, AHPPIR) may show of `intid' (IHI 0048B 4.4.4).
 */
static unsigned filter_group(struct gicv2 *gic, unsigned cpu, unsigned intid, bool alias)
{
    unsigned group;

    if (intid == INTID_SPURIOUS)
        return intid;
    group = group_of(gic, cpu, intid);
    if (alias)
        return group ? intid : INTID_SPURIOUS;
    return group && !(gic->cpu[cpu].ctlr & GICC_ACK_CTL) ? INTID_GROUP1 : intid;
}

static uint32_t acknowledge(struct gicv2 *gic, unsigned cpu, bool alias)
{
    struct cpu_if *ci = &gic->cpu[cpu];
    unsigned priority, intid = signalled(gic, cpu, &priority), group, level;
    struct intr_word *w;
    uint32_t iar, bit;

    intid = filter_group(gic, cpu, intid, alias);
    if (intid >= INTID_GROUP1)
        return intid;
    iar = with_source(ci, intid);
    w = word_of(gic, cpu, intid / 32);
    bit = 1u << (intid % 32);
    group = group_of(gic, cpu, intid);
    level = group_priority(ci, priority, group) >> 1;
    ci->apr[group][level / 32] |= 1u << (level % 32);
    w->active |= bit;
    if (intid < NUM_SGIS)
        ci->sgi_source[intid] &= (uint8_t)~(1u << (iar >> 10));
    if (intid >= NUM_SGIS || !ci->sgi_source[intid])
        w->latched &= ~bit;
    trace(IRQ, "gic: cpu %u takes INTID %u, priority %#x", cpu, intid, priority);
    update_all(gic);
    return iar;
}

static void deactivate(struct gicv2 *gic, unsigned cpu, unsigned intid)
{
    word_of(gic, cpu, intid / 32)->active &= ~(1u << (intid % 32));
    update_all(gic);
}

static void end_of_interrupt(struct gicv2 *gic, unsigned cpu, uint32_t value, bool alias)
{
    struct cpu_if *ci = &gic->cpu[cpu];
    unsigned intid = value & 0x3ff, group;
    int level;

    if (intid >= gic->num_irqs || intid >= GICV2_MAX_IRQS)
        return; /* 1023 is what a handler of a spurious interrupt may write */
    group = group_of(gic, cpu, intid);
    level = first_active_level(ci->apr[group]);
    if (level < 0 || (alias && !group)) {
        dev_guest_error(&gic->dev, "end of an interrupt that was not taken", GICC_EOIR, value);
        return;
    }
    ci->apr[group][level / 32] &= ~(1u << (level % 32));
    if (ci->ctlr & GICC_EOI_MODE)
        update_cpu(gic, cpu);
    else
        deactivate(gic, cpu, intid);
}

static void write_dir(struct gicv2 *gic, unsigned cpu, uint32_t value)
{
    unsigned intid = value & 0x3ff;

    if (intid >= gic->num_irqs || intid >= GICV2_MAX_IRQS)
        return;
    if (gic->cpu[cpu].ctlr & GICC_EOI_MODE)
        deactivate(gic, cpu, intid);
    else
        dev_guest_error(&gic->dev, "GICC_DIR with EOImode 0", GICC_DIR, value);
}

static uint32_t cpu_read_word(struct gicv2 *gic, unsigned cpu, unsigned off)
{
    struct cpu_if *ci = &gic->cpu[cpu];
    unsigned ignored, intid;

    switch (off) {
    case GICC_CTLR:
        return ci->ctlr;
    case GICC_PMR:
        return ci->pmr;
    case GICC_BPR:
        return ci->bpr;
    case GICC_IAR:
    case GICC_AIAR:
        return acknowledge(gic, cpu, off == GICC_AIAR);
    case GICC_RPR:
        return MIN(running_priority(ci), 0xff);
    case GICC_HPPIR:
    case GICC_AHPPIR:
        intid = highest_pending(gic, cpu, &ignored);
        return with_source(ci, filter_group(gic, cpu, intid, off == GICC_AHPPIR));
    case GICC_ABPR:
        return ci->abpr;
    case GICC_APR ... GICC_APR + 4 * APR_WORDS - 1:
        return ci->apr[0][(off - GICC_APR) / 4];
    case GICC_NSAPR ... GICC_NSAPR + 4 * APR_WORDS - 1:
        return ci->apr[1][(off - GICC_NSAPR) / 4];
    case GICC_IIDR:
        return 0x0002043b;
    default:
        dev_guest_error(&gic->dev, "read of a write-only or missing CPU interface register", off, 0);
        return 0;
    }
}

static void cpu_write_word(struct gicv2 *gic, unsigned cpu, unsigned off, uint32_t value)
{
    struct cpu_if *ci = &gic->cpu[cpu];

    switch (off) {
    case GICC_CTLR:
        ci->ctlr = value & GICC_CTLR_MASK;
        break;
    case GICC_PMR:
        ci->pmr = (uint8_t)value;
        break;
    case GICC_BPR:
        ci->bpr = value & 7;
        break;
    case GICC_ABPR:
        ci->abpr = MAX(value & 7, MIN_ABPR);
        break;
    case GICC_EOIR:
    case GICC_AEOIR:
        end_of_interrupt(gic, cpu, value, off == GICC_AEOIR);
        return;
    case GICC_DIR:
        write_dir(gic, cpu, value);
        return;
    case GICC_APR ... GICC_APR + 4 * APR_WORDS - 1:
        ci->apr[0][(off - GICC_APR) / 4] = value;
        break;
    case GICC_NSAPR ... GICC_NSAPR + 4 * APR_WORDS - 1:
        ci->apr[1][(off - GICC_NSAPR) / 4] = value;
        break;
    default:
        dev_guest_error(&gic->dev, "write to a read-only or missing CPU interface register", off, value);
        return;
    }
    update_cpu(gic, cpu);
}

static uint64_t cpu_read(void *opaque, uint64_t off, unsigned size)
{
    struct gicv2 *gic = opaque;
    uint32_t v;

    (void)size;
    g_mutex_lock(&gic->lock);
    v = cpu_read_word(gic, this_cpu(gic), (unsigned)off);
    g_mutex_unlock(&gic->lock);
    return v;
}

static void cpu_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
    struct gicv2 *gic = opaque;

    (void)size;
    g_mutex_lock(&gic->lock);
    cpu_write_word(gic, this_cpu(gic), (unsigned)off, (uint32_t)value);
    g_mutex_unlock(&gic->lock);
}

/* --- the device ----------------------------------------------------------------------------------------- */

static void reset_cpu(struct gicv2 *gic, struct cpu_if *ci)
{
    ci->intr = (struct intr_word){.enabled = 0xffff, .edge = 0xffff, .level = ci->intr.level};
    memset(ci->priority, 0, sizeof(ci->priority));
    memset(ci->sgi_source, 0, sizeof(ci->sgi_source));
    memset(ci->targeted, gic->num_cpus == 1 ? 0xff : 0, sizeof(ci->targeted));
    memset(ci->apr, 0, sizeof(ci->apr));
    ci->ctlr = 0;
    ci->pmr = 0;
    ci->bpr = 0;
    ci->abpr = MIN_ABPR;
}

/* The wires into it keep their levels: they are their drivers'. */
static void gicv2_reset(struct device *dev)
{
    struct gicv2 *gic = CONTAINER_OF(dev, struct gicv2, dev);

    g_mutex_lock(&gic->lock);
    gic->ctlr = 0;
    for (unsigned i = 0; i < gic->num_words; i++)
        gic->spi[i] = (struct intr_word){.level = gic->spi[i].level};
    memset(gic->spi_priority, 0, sizeof(gic->spi_priority));
    memset(gic->spi_target, 0, sizeof(gic->spi_target));
    for (unsigned cpu = 0; cpu < gic->num_cpus; cpu++)
        reset_cpu(gic, &gic->cpu[cpu]);
    update_all(gic);
    g_mutex_unlock(&gic->lock);
}

static void gicv2_free(struct device *dev)
{
    struct gicv2 *gic = CONTAINER_OF(dev, struct gicv2, dev);

    g_mutex_clear(&gic->lock);
    g_free(dev->id);
    g_free(gic);
}

static void gicv2_describe(struct device *dev, GString *out)
{
    struct gicv2 *gic = CONTAINER_OF(dev, struct gicv2, dev);

    g_string_append_printf(out, "num-cpu = %u\nnum-irq = %u\nrevision = 2\n", gic->num_cpus, gic->num_irqs);
}

static const struct device_class gicv2_class = {
    .name = "arm_gic",
    .reg_list = dist_regs,
    .reg_count = ARRAY_LEN(dist_regs),
    .reset = gicv2_reset,
    .free = gicv2_free,
    .describe = gicv2_describe,
};

static const struct mem_ops dist_ops = {dist_read, dist_write, 1, 4, false};
static const struct mem_ops cpu_ops = {cpu_read, cpu_write, 4, 4, false};

struct gicv2 *gicv2_new(unsigned num_cpus, unsigned num_irqs, unsigned (*current_cpu)(void))
{
    struct gicv2 *gic = g_new0(struct gicv2, 1);

    BUG_ON(num_cpus < 1 || num_cpus > GICV2_MAX_CPUS || num_irqs < 64 || num_irqs > 1024 || num_irqs % 32);
    dev_init(&gic->dev, &gicv2_class, &dist_ops, DIST_SIZE, NULL);
    gic->cpu_regs = (struct mem_region){.name = "gic_cpu", .size = CPU_SIZE, .ops = &cpu_ops, .dev = gic,
                                        .enabled = true};
    g_mutex_init(&gic->lock);
    gic->current_cpu = current_cpu;
    gic->num_cpus = num_cpus;
    gic->num_irqs = num_irqs;
    gic->num_words = num_irqs / 32;
    gicv2_reset(&gic->dev);
    return gic;
}

struct device *gicv2_device(struct gicv2 *gic)
{
    return &gic->dev;
}

struct mem_region *gicv2_cpu_region(struct gicv2 *gic)
{
    return &gic->cpu_regs;
}

void gicv2_connect(struct gicv2 *gic, unsigned cpu, struct irq_line irq, struct irq_line fiq)
{
    BUG_ON(cpu >= gic->num_cpus);
    gic->cpu[cpu].irq = irq;
    gic->cpu[cpu].fiq = fiq;
}
