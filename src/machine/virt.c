/*
 * The virt board: one table of places, and the wiring of the fixed devices.
 *
 * Left out (as docs/guest.md lists): flash, the platform bus, the second UART.
 */
#include "machine/virt.h"

#include "cpu/cluster.h"
#include "dev/fw_cfg.h"
#include "dev/gicv2m.h"
#include "dev/pci.h"
#include "dev/pl011.h"
#include "dev/pl031.h"
#include "dev/pl061.h"
#include "virtio/mmio.h"

const struct board_slot board_map[BOARD_SLOTS] = {
    [BOARD_FLASH] = { "flash", 0x00000000, 0x08000000, -1 },
    [BOARD_GIC_DIST] = { "intc", 0x08000000, 0x00010000, -1 },
    [BOARD_GIC_CPU] = { NULL, 0x08010000, 0x00010000, -1 },
    [BOARD_GIC_V2M] = { "v2m", 0x08020000, 0x00001000, -1 },
    [BOARD_UART] = { "pl011", 0x09000000, 0x00001000, 1 },
    [BOARD_RTC] = { "pl031", 0x09010000, 0x00001000, 2 },
    [BOARD_FW_CFG] = { "fw-cfg", 0x09020000, 0x00000018, -1 },
    [BOARD_GPIO] = { "pl061", 0x09030000, 0x00001000, 7 },
    [BOARD_VIRTIO] = { "virtio_mmio", 0x0a000000, VIRTIO_SLOTS * VIRTIO_SLOT_SIZE, 16 },
    [BOARD_PLATFORM_BUS] = { "platform-bus", 0x0c000000, 0x02000000, 112 },
    [BOARD_PCIE_MMIO] = { "pcie", 0x10000000, 0x2eff0000, 3 },
    [BOARD_PCIE_PIO] = { NULL, 0x3eff0000, 0x00010000, -1 },
    [BOARD_PCIE_ECAM] = { NULL, 0x3f000000, 0x01000000, -1 },
    [BOARD_PCIE_ECAM_HIGH] = { NULL, 0x4010000000, 0x10000000, -1 },
    [BOARD_PCIE_MMIO_HIGH] = { NULL, 0x8000000000, 0x8000000000, -1 },
};

enum { GIC_IRQS = 288 }; /* 32 private and 256 shared: what QEMU's virt has */

static unsigned current_cpu_index(void)
{
    const struct cpu *cpu = cpu_current();
    return cpu ? cpu->index : 0;
}

static void place(struct board *b, struct device *dev, enum board_slot_id id)
{
    const struct board_slot *slot = &board_map[id];
    dev->regs.base = slot->base;
    dev->regs.enabled = true;
    if (slot->spi >= 0)
        dev->irq = gicv2_spi(b->gic, (unsigned)slot->spi);
    mem_add_region(b->mem, &dev->regs);
}

static void wire_cpu(struct board *b, unsigned i)
{
    struct cpu *cpu = b->cluster->cpu[i];

    gicv2_connect(b->gic, i, cpu_irq_line(cpu, PEND_IRQ), cpu_irq_line(cpu, PEND_FIQ));
    cpu->gt[GT_PHYS].out = gicv2_ppi(b->gic, i, PPI_TIMER_PHYS);
    cpu->gt[GT_VIRT].out = gicv2_ppi(b->gic, i, PPI_TIMER_VIRT);
    cpu->pmu_out = gicv2_ppi(b->gic, i, PPI_PMU);
}

static void add_gic(struct board *b)
{
    struct irq_line msi[V2M_SPIS];

    b->gic = gicv2_new(b->cluster->n, GIC_IRQS, current_cpu_index);
    place(b, gicv2_device(b->gic), BOARD_GIC_DIST);
    struct mem_region *cpu_if = gicv2_cpu_region(b->gic);
    cpu_if->base = board_map[BOARD_GIC_CPU].base;
    cpu_if->enabled = true;
    mem_add_region(b->mem, cpu_if);
    for (unsigned i = 0; i < b->cluster->n; i++)
        wire_cpu(b, i);
    for (unsigned i = 0; i < V2M_SPIS; i++)
        msi[i] = gicv2_spi(b->gic, V2M_FIRST_SPI + i);
    b->v2m = gicv2m_new(&b->lock, GICV2_SPI_BASE + V2M_FIRST_SPI, V2M_SPIS, msi);
    place(b, b->v2m, BOARD_GIC_V2M);
}

/* --- the clock of -rtc ---------------------------------------------------------------------------------- */

static int64_t rtc_now(void *opaque)
{
    const struct board *b = opaque;
    if (b->fixed_time) /* a deterministic run: the guest's own time, from a fixed day on */
        return b->rtc_offset + (int64_t)(cluster_clock_ns(b->cluster) / 1000);
    return g_get_real_time() + b->rtc_offset;
}

static void set_rtc_base(struct board *b, const struct config *c)
{
    b->fixed_time = c->lockstep;
    if (b->fixed_time) {
        b->rtc_offset = (c->rtc_base >= 0 ? c->rtc_base : 1577836800 /* 2020-01-01 */) * G_USEC_PER_SEC;
    } else if (c->rtc_base >= 0) {
        b->rtc_offset = c->rtc_base * G_USEC_PER_SEC - g_get_real_time();
    } else if (c->rtc_local) {
        g_autoptr(GDateTime) now = g_date_time_new_now_local();
        b->rtc_offset = g_date_time_get_utc_offset(now);
    }
}

static void add_fw_cfg(struct board *b, const struct config *c)
{
    b->fw_cfg = fw_cfg_new(&b->lock, b->mem);
    fw_cfg_add_u16(b->fw_cfg, FW_CFG_NB_CPUS, (uint16_t)c->smp);
    fw_cfg_add_u16(b->fw_cfg, FW_CFG_MAX_CPUS, (uint16_t)c->smp);
    fw_cfg_add_u64(b->fw_cfg, FW_CFG_RAM_SIZE, c->ram);
    place(b, b->fw_cfg, BOARD_FW_CFG);
}

static void add_virtio(struct board *b, const struct config *c)
{
    const struct board_slot *first = &board_map[BOARD_VIRTIO];

    for (unsigned i = 0; i < VIRTIO_SLOTS; i++) {
        struct device *frame = b->virtio[i] = virtio_mmio_new(&b->lock, c->legacy_virtio);
        frame->regs.base = first->base + i * (uint64_t)VIRTIO_SLOT_SIZE;
        frame->regs.enabled = true;
        frame->irq = gicv2_spi(b->gic, (unsigned)first->spi + i);
        mem_add_region(b->mem, &frame->regs);
    }
}

static struct pci_window window(enum board_slot_id id)
{
    return (struct pci_window){ board_map[id].base, board_map[id].size };
}

/* The only place for messages is the MSI frame: a store anywhere else outside RAM is lost. */
static void send_message(void *opaque, uint64_t pa, uint32_t data, uint16_t requester)
{
    struct board *b = opaque;

    (void)requester;
    if (pa == board_map[BOARD_GIC_V2M].base + GICV2M_SETSPI)
        gicv2m_send(b->v2m, data);
    else
        dev_guest_error(b->pcie, "message to no known place", pa, data);
}

static void add_pcie(struct board *b, const struct config *c)
{
    struct pci_host_config p = {
        .ecam = window(c->highmem ? BOARD_PCIE_ECAM_HIGH : BOARD_PCIE_ECAM),
        .pio = window(BOARD_PCIE_PIO), .mmio = window(BOARD_PCIE_MMIO),
        .message = send_message, .opaque = b,
    };

    if (c->highmem)
        p.mmio64 = window(BOARD_PCIE_MMIO_HIGH);
    for (unsigned i = 0; i < PCI_PINS; i++)
        p.pin[i] = gicv2_spi(b->gic, (unsigned)board_map[BOARD_PCIE_MMIO].spi + i);
    b->pcie = pci_host_new(&b->lock, b->mem, &p);
}

bool board_init(struct board *b, const struct config *c, struct chardev *console, GError **err)
{
    const struct rtc_source clock = { rtc_now, b };

    g_mutex_init(&b->lock);
    b->mem = mem_new(BOARD_RAM_BASE, c->ram);
    if (!b->mem) {
        g_set_error(err, OPTIONS_ERROR, OPTIONS_ERROR_BAD, "the host has no room for %" G_GUINT64_FORMAT
                    " MiB of guest memory (give less with -m)", (guint64)(c->ram >> 20));
        return false;
    }
    b->cluster = cluster_new(c->smp, b->mem, c->cpu, c->engine);
    set_rtc_base(b, c);
    add_gic(b);
    b->uart = pl011_new(&b->lock, console);
    place(b, b->uart, BOARD_UART);
    b->rtc = pl031_new(&b->lock, &clock);
    place(b, b->rtc, BOARD_RTC);
    b->gpio = pl061_new(&b->lock);
    place(b, b->gpio, BOARD_GPIO);
    add_fw_cfg(b, c);
    add_virtio(b, c);
    add_pcie(b, c);
    return true;
}

void board_reset(struct board *b)
{
    struct device *fixed[] = { gicv2_device(b->gic), b->v2m, b->uart, b->rtc, b->gpio, b->fw_cfg, b->pcie };
    for (unsigned i = 0; i < G_N_ELEMENTS(fixed); i++)
        dev_reset(fixed[i]);
    for (unsigned i = 0; i < VIRTIO_SLOTS; i++)
        if (b->virtio[i])
            dev_reset(b->virtio[i]);
}

void board_fini(struct board *b)
{
    g_clear_pointer(&b->cluster, cluster_free);
    struct device *fixed[] = { b->pcie, b->uart, b->rtc, b->gpio, b->fw_cfg, b->v2m,
                               b->gic ? gicv2_device(b->gic) : NULL };
    for (unsigned i = 0; i < VIRTIO_SLOTS; i++)
        dev_free(b->virtio[i]);
    for (unsigned i = 0; i < G_N_ELEMENTS(fixed); i++)
        dev_free(fixed[i]);
    g_clear_pointer(&b->mem, mem_free);
    g_mutex_clear(&b->lock);
}
