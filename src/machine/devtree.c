/*
 * The virt board's device tree, by libfdt: equal in content to that of QEMU 10.0's virt for the same options, node for
 * node.  Left out until the board has them: flash, platform-bus.  Phandle numbers differ.
 * Threads: runs before the vCPUs start.
 */
#include "machine/devtree.h"

#include <errno.h>
#include <libfdt.h>
#include <string.h>
#include <sys/random.h>

#include "base/report.h"
#include "dev/pci.h"
#include "machine/board.h"
#include "machine/boot.h"

enum { FDT_SPACE = 1 << 20, PHANDLE_CLOCK = 0x8000, PHANDLE_GIC, PHANDLE_V2M, PHANDLE_GPIO, PHANDLE_CPU0 };
enum { IRQ_SPI = 0, IRQ_PPI = 1, IRQ_EDGE = 1, IRQ_LEVEL = 4, GIC_PPI_CPU_SHIFT = 8 };

enum { PCI_SLOTS_MAPPED = 4, PCI_SPACE_IO = 0x1000000, PCI_SPACE_MEM = 0x2000000, PCI_SPACE_MEM64 = 0x3000000 };

struct tree {
    void *blob;
    const struct devtree_config *config;
};

/* libfdt's errors here can only mean that FDT_SPACE is too small or a name is wrong: our bug. */
static int must(int r)
{
    if (r < 0)
        BUG("device tree: %s", fdt_strerror(r));
    return r;
}

static void prop_cells(struct tree *t, const char *name, const uint32_t *cells, unsigned n)
{
    uint32_t be[PCI_SLOTS_MAPPED * PCI_PINS * 10];
    BUG_ON(n > G_N_ELEMENTS(be));
    for (unsigned i = 0; i < n; i++)
        be[i] = cpu_to_fdt32(cells[i]);
    must(fdt_property(t->blob, name, be, (int)(n * sizeof *be)));
}
#define CELLS(t, name, ...) prop_cells(t, name, (const uint32_t[]){ __VA_ARGS__ }, \
                                       sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t))

static void prop_string(struct tree *t, const char *name, const char *s)
{
    must(fdt_property_string(t->blob, name, s));
}

/* A list of strings, separated by '|'. */
static void prop_strings(struct tree *t, const char *name, const char *list)
{
    g_autofree char *buf = g_strdup(list);
    size_t n = strlen(list) + 1;
    for (size_t i = 0; i < n; i++)
        if (buf[i] == '|')
            buf[i] = '\0';
    must(fdt_property(t->blob, name, buf, (int)n));
}

static void prop_flag(struct tree *t, const char *name)
{
    must(fdt_property(t->blob, name, NULL, 0));
}

static void prop_reg(struct tree *t, uint64_t base, uint64_t size)
{
    CELLS(t, "reg", (uint32_t)(base >> 32), (uint32_t)base, (uint32_t)(size >> 32), (uint32_t)size);
}

static void begin(struct tree *t, const char *name)
{
    must(fdt_begin_node(t->blob, name));
}

static void end(struct tree *t)
{
    must(fdt_end_node(t->blob));
}

/* Opens the node of a slot and writes reg and, for a device with an SPI, interrupts. */
static void begin_slot(struct tree *t, enum board_slot_id id, const char *compatible, unsigned trigger)
{
    const struct board_slot *slot = &board_map[id];
    g_autofree char *name = g_strdup_printf("%s@%" G_GINT64_MODIFIER "x", slot->name, slot->base);
    begin(t, name);
    prop_strings(t, "compatible", compatible);
    prop_reg(t, slot->base, slot->size);
    if (slot->spi >= 0)
        CELLS(t, "interrupts", IRQ_SPI, (uint32_t)slot->spi, trigger);
}

static void add_psci(struct tree *t)
{
    begin(t, "psci");
    prop_strings(t, "compatible", "arm,psci-1.0|arm,psci-0.2|arm,psci");
    prop_string(t, "method", "hvc");
    CELLS(t, "cpu_suspend", 0xc4000001);
    CELLS(t, "cpu_off", 0x84000002);
    CELLS(t, "cpu_on", 0xc4000003);
    CELLS(t, "migrate", 0xc4000005);
    end(t);
}

static void add_memory(struct tree *t)
{
    g_autofree char *name = g_strdup_printf("memory@%" G_GINT64_MODIFIER "x", (guint64)BOARD_RAM_BASE);
    begin(t, name);
    prop_string(t, "device_type", "memory");
    prop_reg(t, BOARD_RAM_BASE, t->config->ram_size);
    end(t);
}

/* One socket, one cluster: what -smp N means without sockets= and the rest. */
static void add_cpu_map(struct tree *t)
{
    begin(t, "cpu-map");
    begin(t, "socket0");
    begin(t, "cluster0");
    for (unsigned i = 0; i < t->config->smp; i++) {
        g_autofree char *name = g_strdup_printf("core%u", i);
        begin(t, name);
        CELLS(t, "cpu", PHANDLE_CPU0 + i);
        end(t);
    }
    end(t);
    end(t);
    end(t);
}

static void add_cpus(struct tree *t)
{
    g_autofree char *compatible = g_strdup_printf("arm,%s", cpu_model_name(t->config->model));

    begin(t, "cpus");
    CELLS(t, "#address-cells", 1);
    CELLS(t, "#size-cells", 0);
    add_cpu_map(t);
    for (unsigned i = 0; i < t->config->smp; i++) {
        g_autofree char *name = g_strdup_printf("cpu@%x", i);
        begin(t, name);
        prop_string(t, "device_type", "cpu");
        prop_string(t, "compatible", strcmp(compatible, "arm,max") ? compatible : "arm,armv8");
        CELLS(t, "reg", i);
        if (t->config->smp > 1)
            prop_string(t, "enable-method", "psci");
        CELLS(t, "phandle", PHANDLE_CPU0 + i);
        end(t);
    }
    end(t);
}

static void add_timer_and_pmu(struct tree *t)
{
    uint32_t flags = ((1u << t->config->smp) - 1) << GIC_PPI_CPU_SHIFT | IRQ_LEVEL;

    begin(t, "timer");
    prop_strings(t, "compatible", "arm,armv8-timer|arm,armv7-timer");
    prop_flag(t, "always-on");
    CELLS(t, "interrupts", IRQ_PPI, PPI_TIMER_SECURE, flags, IRQ_PPI, PPI_TIMER_PHYS, flags, IRQ_PPI, PPI_TIMER_VIRT,
          flags, IRQ_PPI, PPI_TIMER_HYP, flags);
    end(t);
    begin(t, "pmu");
    prop_string(t, "compatible", "arm,armv8-pmuv3");
    CELLS(t, "interrupts", IRQ_PPI, PPI_PMU, flags);
    end(t);
}

static void add_gic(struct tree *t)
{
    const struct board_slot *dist = &board_map[BOARD_GIC_DIST], *cpu = &board_map[BOARD_GIC_CPU];
    g_autofree char *name = g_strdup_printf("intc@%" G_GINT64_MODIFIER "x", dist->base);

    begin(t, name);
    prop_string(t, "compatible", "arm,cortex-a15-gic");
    CELLS(t, "#interrupt-cells", 3);
    prop_flag(t, "interrupt-controller");
    CELLS(t, "#address-cells", 2);
    CELLS(t, "#size-cells", 2);
    prop_flag(t, "ranges");
    CELLS(t, "reg", 0, (uint32_t)dist->base, 0, (uint32_t)dist->size, 0, (uint32_t)cpu->base, 0, (uint32_t)cpu->size);
    CELLS(t, "phandle", PHANDLE_GIC);
    begin_slot(t, BOARD_GIC_V2M, "arm,gic-v2m-frame", IRQ_EDGE);
    prop_flag(t, "msi-controller");
    CELLS(t, "phandle", PHANDLE_V2M);
    end(t);
    end(t);
}

static void add_clock(struct tree *t)
{
    begin(t, "apb-pclk");
    prop_string(t, "compatible", "fixed-clock");
    CELLS(t, "#clock-cells", 0);
    CELLS(t, "clock-frequency", APB_CLOCK_HZ);
    prop_string(t, "clock-output-names", "clk24mhz");
    CELLS(t, "phandle", PHANDLE_CLOCK);
    end(t);
}

static void add_primecells(struct tree *t)
{
    begin_slot(t, BOARD_UART, "arm,pl011|arm,primecell", IRQ_LEVEL);
    CELLS(t, "clocks", PHANDLE_CLOCK, PHANDLE_CLOCK);
    prop_strings(t, "clock-names", "uartclk|apb_pclk");
    end(t);
    begin_slot(t, BOARD_RTC, "arm,pl031|arm,primecell", IRQ_LEVEL);
    CELLS(t, "clocks", PHANDLE_CLOCK);
    prop_string(t, "clock-names", "apb_pclk");
    end(t);
    begin_slot(t, BOARD_GPIO, "arm,pl061|arm,primecell", IRQ_LEVEL);
    CELLS(t, "#gpio-cells", 2);
    prop_flag(t, "gpio-controller");
    CELLS(t, "clocks", PHANDLE_CLOCK);
    prop_string(t, "clock-names", "apb_pclk");
    CELLS(t, "phandle", PHANDLE_GPIO);
    end(t);
}

static void add_gpio_keys(struct tree *t)
{
    begin(t, "gpio-keys");
    prop_string(t, "compatible", "gpio-keys");
    begin(t, "poweroff");
    prop_string(t, "label", "GPIO Key Poweroff");
    CELLS(t, "linux,code", 0x74); /* KEY_POWER */
    CELLS(t, "gpios", PHANDLE_GPIO, GPIO_POWEROFF_LINE, 0);
    end(t);
    end(t);
}

static void add_virtio(struct tree *t)
{
    const struct board_slot *first = &board_map[BOARD_VIRTIO];
    for (unsigned i = 0; i < VIRTIO_SLOTS; i++) {
        uint64_t base = first->base + i * (uint64_t)VIRTIO_SLOT_SIZE;
        g_autofree char *name = g_strdup_printf("virtio_mmio@%" G_GINT64_MODIFIER "x", base);
        begin(t, name);
        prop_string(t, "compatible", "virtio,mmio");
        prop_reg(t, base, VIRTIO_SLOT_SIZE);
        CELLS(t, "interrupts", IRQ_SPI, (uint32_t)first->spi + i, IRQ_EDGE);
        prop_flag(t, "dma-coherent");
        end(t);
    }
}

/* Slots repeat every four, so that the mask needs two of the five bits of the device number. */
static void add_pcie_interrupts(struct tree *t)
{
    uint32_t map[PCI_SLOTS_MAPPED * PCI_PINS * 10], *at = map;
    const uint32_t spi = (uint32_t)board_map[BOARD_PCIE_MMIO].spi;

    for (uint32_t slot = 0; slot < PCI_SLOTS_MAPPED; slot++)
        for (uint32_t pin = 1; pin <= PCI_PINS; pin++, at += 10)
            memcpy(at, (uint32_t[10]){ slot << 11, 0, 0, pin, PHANDLE_GIC, 0, 0, IRQ_SPI,
                                       spi + (slot + pin - 1) % PCI_PINS, IRQ_LEVEL }, 40);
    CELLS(t, "#interrupt-cells", 1);
    CELLS(t, "interrupt-map-mask", (PCI_SLOTS_MAPPED - 1) << 11, 0, 0, 7);
    prop_cells(t, "interrupt-map", map, G_N_ELEMENTS(map));
}

/* Bus addresses are those of the CPU, but for ports, which begin at 0 (IEEE 1275 PCI binding, 2.2.1.1). */
static void add_pcie_ranges(struct tree *t)
{
    const struct board_slot *io = &board_map[BOARD_PCIE_PIO], *low = &board_map[BOARD_PCIE_MMIO],
                            *high = &board_map[BOARD_PCIE_MMIO_HIGH];
    const uint32_t ranges[21] = {
        PCI_SPACE_IO, 0, 0, 0, (uint32_t)io->base, 0, (uint32_t)io->size,
        PCI_SPACE_MEM, 0, (uint32_t)low->base, 0, (uint32_t)low->base, 0, (uint32_t)low->size,
        PCI_SPACE_MEM64, (uint32_t)(high->base >> 32), (uint32_t)high->base, (uint32_t)(high->base >> 32),
        (uint32_t)high->base, (uint32_t)(high->size >> 32), (uint32_t)high->size };

    prop_cells(t, "ranges", ranges, t->config->highmem ? 21 : 14);
}

static void add_pcie(struct tree *t)
{
    const struct board_slot *ecam = &board_map[t->config->highmem ? BOARD_PCIE_ECAM_HIGH : BOARD_PCIE_ECAM];
    g_autofree char *name = g_strdup_printf("pcie@%" G_GINT64_MODIFIER "x", board_map[BOARD_PCIE_MMIO].base);

    begin(t, name);
    prop_string(t, "compatible", "pci-host-ecam-generic");
    prop_string(t, "device_type", "pci");
    CELLS(t, "#address-cells", 3);
    CELLS(t, "#size-cells", 2);
    CELLS(t, "linux,pci-domain", 0);
    CELLS(t, "bus-range", 0, (uint32_t)(ecam->size >> 20) - 1);
    prop_flag(t, "dma-coherent");
    CELLS(t, "msi-map", 0, PHANDLE_V2M, 0, 0x10000);
    prop_reg(t, ecam->base, ecam->size);
    add_pcie_ranges(t);
    add_pcie_interrupts(t);
    end(t);
}

static void add_fw_cfg(struct tree *t)
{
    begin_slot(t, BOARD_FW_CFG, "qemu,fw-cfg-mmio", 0);
    prop_flag(t, "dma-coherent");
    end(t);
}

static void add_chosen(struct tree *t)
{
    g_autofree char *uart = g_strdup_printf("/pl011@%" G_GINT64_MODIFIER "x", board_map[BOARD_UART].base);

    begin(t, "aliases");
    prop_string(t, "serial0", uart);
    end(t);
    begin(t, "chosen");
    prop_string(t, "stdout-path", uart);
    end(t);
}

static void build_board(struct tree *t)
{
    must(fdt_create(t->blob, FDT_SPACE));
    must(fdt_finish_reservemap(t->blob));
    begin(t, "");
    prop_string(t, "compatible", "linux,dummy-virt");
    prop_string(t, "model", "linux,dummy-virt");
    CELLS(t, "#address-cells", 2);
    CELLS(t, "#size-cells", 2);
    CELLS(t, "interrupt-parent", PHANDLE_GIC);
    prop_flag(t, "dma-coherent");
    add_psci(t);
    add_memory(t);
    add_fw_cfg(t);
    add_virtio(t);
    add_pcie(t);
    add_gpio_keys(t);
    add_primecells(t);
    add_timer_and_pmu(t);
    add_gic(t);
    add_cpus(t);
    add_clock(t);
    add_chosen(t);
    end(t);
    must(fdt_finish(t->blob));
    must(fdt_open_into(t->blob, t->blob, FDT_SPACE));
}

/* --- what depends on the run: also added to a tree from the user ----------------------------------- */

static bool tree_error(GError **err, const char *path, int r)
{
    g_set_error(err, BOOT_ERROR, BOOT_ERROR_FORMAT, "%s: not a usable device tree: %s", path, fdt_strerror(r));
    return false;
}

/* Two seeds so that the guest's random pool and its address layout differ from boot to boot. */
static int set_seeds(void *blob, int chosen)
{
    uint8_t seed[40];
    if (getrandom(seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        BUG("getrandom: %s", g_strerror(errno));
    int r = fdt_setprop(blob, chosen, "kaslr-seed", seed, 8);
    return r < 0 ? r : fdt_setprop(blob, chosen, "rng-seed", seed + 8, 32);
}

static int set_chosen(void *blob, const struct devtree_config *cfg)
{
    int r, chosen = fdt_path_offset(blob, "/chosen");

    if (chosen == -FDT_ERR_NOTFOUND)
        chosen = fdt_add_subnode(blob, 0, "chosen");
    if (chosen < 0)
        return chosen;
    if (cfg->seeds && (r = set_seeds(blob, chosen)) < 0)
        return r;
    if (cfg->append && (r = fdt_setprop_string(blob, chosen, "bootargs", cfg->append)) < 0)
        return r;
    if (!cfg->initrd_size)
        return 0;
    if ((r = fdt_setprop_u64(blob, chosen, "linux,initrd-start", cfg->initrd_pa)) < 0)
        return r;
    return fdt_setprop_u64(blob, chosen, "linux,initrd-end", cfg->initrd_pa + cfg->initrd_size);
}

/* A user's tree gets the memory of -m when it has no memory node of its own. */
static int set_memory(void *blob, const struct devtree_config *cfg)
{
    int node = fdt_node_offset_by_prop_value(blob, -1, "device_type", "memory", sizeof "memory");
    if (node >= 0)
        return 0;
    uint64_t reg[2] = { cpu_to_fdt64(BOARD_RAM_BASE), cpu_to_fdt64(cfg->ram_size) };
    int r = node = fdt_add_subnode(blob, 0, "memory@40000000");
    if (r >= 0)
        r = fdt_setprop_string(blob, node, "device_type", "memory");
    return r < 0 ? r : fdt_setprop(blob, node, "reg", reg, sizeof reg);
}

static bool load_user_tree(struct tree *t, const char *path, GError **err)
{
    g_autofree gchar *data = NULL;
    gsize size;

    if (!g_file_get_contents(path, &data, &size, err))
        return false;
    int r = size < sizeof(struct fdt_header) ? -FDT_ERR_TRUNCATED : fdt_check_full(data, size);
    if (r < 0)
        return tree_error(err, path, r);
    if (size > FDT_SPACE / 2)
        return tree_error(err, path, -FDT_ERR_NOSPACE);
    r = fdt_open_into(data, t->blob, FDT_SPACE);
    if (r >= 0)
        r = set_memory(t->blob, t->config);
    return r >= 0 || tree_error(err, path, r);
}

GBytes *devtree_build(const struct devtree_config *config, GError **err)
{
    struct tree t = { g_malloc0(FDT_SPACE), config };

    if (!config->dtb) {
        build_board(&t);
    } else if (!load_user_tree(&t, config->dtb, err)) {
        g_free(t.blob);
        return NULL;
    }
    int r = set_chosen(t.blob, config);
    if (r >= 0)
        r = fdt_pack(t.blob);
    if (r < 0) {
        tree_error(err, config->dtb ? config->dtb : "-append", r);
        g_free(t.blob);
        return NULL;
    }
    return g_bytes_new_take(t.blob, fdt_totalsize(t.blob));
}
