/*
 * Kernels of the user's own source: see kbuild.h.
 *
 * The build's folder is named after the source's path and what the configuration starts from, and stays, so
 * that a change costs what make finds to be done.  The configuration is made anew only when what it is made
 * of has changed: make would otherwise build everything again.
 *
 * Threading: the caller's; processes by a lock for each folder.
 */
#include "lab/kbuild.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "base/report.h"
#include "lab/cache.h"
#include "lab/lab.h"
#include "lab/make.h"

enum { EXPECT_TINY = 1400, EXPECT_DEFCONFIG = 3300, EXPECT_AGAIN = 40 };
#define BUILD_BYTES (UINT64_C(3000) << 20)

/*
 * What the board lacks takes most of defconfig's time; debug information and gdb's scripts are what one
 * builds it for.
 */
const char lab_defconfig_fragment[] =
    "# CONFIG_DRM is not set\n"
    "# CONFIG_SOUND is not set\n"
    "# CONFIG_MEDIA_SUPPORT is not set\n"
    "# CONFIG_USB_SUPPORT is not set\n"
    "# CONFIG_WLAN is not set\n"
    "# CONFIG_WIRELESS is not set\n"
    "# CONFIG_BT is not set\n"
    "# CONFIG_CAN is not set\n"
    "# CONFIG_NFC is not set\n"
    "# CONFIG_IIO is not set\n"
    "# CONFIG_MTD is not set\n"
    "# CONFIG_MMC is not set\n"
    "# CONFIG_ATA is not set\n"
    "# CONFIG_SPI is not set\n"
    "# CONFIG_I2C is not set\n"
    "# CONFIG_HWMON is not set\n"
    "# CONFIG_THERMAL is not set\n"
    "# CONFIG_XEN is not set\n"
    "# CONFIG_VIRTUALIZATION is not set\n"
    "# CONFIG_ACPI is not set\n"
    "# CONFIG_NET_VENDOR_INTEL is not set\n"
    "# CONFIG_NET_VENDOR_MELLANOX is not set\n"
    "# CONFIG_INFINIBAND is not set\n"
    "# CONFIG_BTRFS_FS is not set\n"
    "# CONFIG_ARCH_QCOM is not set\n"
    "# CONFIG_ARCH_ROCKCHIP is not set\n"
    "# CONFIG_ARCH_MEDIATEK is not set\n"
    "# CONFIG_ARCH_TEGRA is not set\n"
    "# CONFIG_ARCH_RENESAS is not set\n"
    "# CONFIG_ARCH_MXC is not set\n"
    "# CONFIG_ARCH_SUNXI is not set\n"
    "# CONFIG_ARCH_MESON is not set\n"
    "# CONFIG_ARCH_BCM is not set\n"
    "# CONFIG_ARCH_MVEBU is not set\n"
    "# CONFIG_ARCH_EXYNOS is not set\n"
    "# CONFIG_ARCH_K3 is not set\n"
    "# CONFIG_ARCH_HISI is not set\n"
    "# CONFIG_ARCH_NXP is not set\n"
    "# CONFIG_ARCH_LAYERSCAPE is not set\n"
    "# CONFIG_ARCH_INTEL_SOCFPGA is not set\n"
    "# CONFIG_ARCH_THUNDER is not set\n"
    "# CONFIG_ARCH_THUNDER2 is not set\n"
    "# CONFIG_ARCH_UNIPHIER is not set\n"
    "# CONFIG_ARCH_VISCONTI is not set\n"
    "# CONFIG_ARCH_XGENE is not set\n"
    "# CONFIG_ARCH_ZYNQMP is not set\n"
    "# CONFIG_ARCH_SPRD is not set\n"
    "# CONFIG_ARCH_SEATTLE is not set\n"
    "# CONFIG_ARCH_SYNQUACER is not set\n"
    "# CONFIG_ARCH_ALPINE is not set\n"
    "# CONFIG_ARCH_APPLE is not set\n"
    "# CONFIG_ARCH_BERLIN is not set\n"
    "# CONFIG_ARCH_KEEMBAY is not set\n"
    "# CONFIG_ARCH_S32 is not set\n"
    "# CONFIG_ARCH_SPARX5 is not set\n"
    "# CONFIG_ARCH_TESLA_FSD is not set\n"
    "# CONFIG_ARCH_LG1K is not set\n"
    "# CONFIG_ARCH_NPCM is not set\n"
    "CONFIG_LOCALVERSION=\"-armlet\"\n"
    "CONFIG_IKCONFIG=y\n"
    "CONFIG_IKCONFIG_PROC=y\n"
    "CONFIG_VIRTIO_MMIO=y\n"
    "CONFIG_VIRTIO_PCI=y\n"
    "CONFIG_VIRTIO_BLK=y\n"
    "CONFIG_VIRTIO_NET=y\n"
    "CONFIG_VIRTIO_CONSOLE=y\n"
    "CONFIG_HW_RANDOM=y\n"
    "CONFIG_HW_RANDOM_VIRTIO=y\n"
    "CONFIG_NET_9P=y\n"
    "CONFIG_NET_9P_VIRTIO=y\n"
    "CONFIG_9P_FS=y\n"
    "CONFIG_NFS_V2=y\n"
    "CONFIG_NFS_V3=y\n"
    "CONFIG_ROOT_NFS=y\n"
    "CONFIG_IP_PNP_DHCP=y\n"
    "CONFIG_EXT4_FS=y\n"
    "CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y\n"
    "CONFIG_GDB_SCRIPTS=y\n";

/* --- the source's folder -------------------------------------------------------------------------------- */

static bool check_source(const char *source, GError **err)
{
    g_autofree char *arch = g_build_filename(source, "arch", "arm64", "Makefile", NULL);
    g_autofree char *config = g_build_filename(source, ".config", NULL);
    g_autofree char *generated = g_build_filename(source, "include", "config", NULL);

    if (g_access(arch, R_OK)) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND,
                    "%s: no Linux source for arm64 (it has no arch/arm64/Makefile)", source);
        return false;
    }
    if (!g_access(config, F_OK) || !g_access(generated, F_OK)) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED,
                    "%s has been built in place, which keeps make from building it elsewhere; "
                    "there: make mrproper (keep .config first; --config takes it)",
                    source);
        return false;
    }
    return true;
}

static char *build_folder(const struct lab_build *b)
{
    g_autofree char *name = g_path_get_basename(b->source);
    g_autofree char *what = g_strdup_printf("%s %d", b->source, b->config ? 2 : b->defconfig);
    g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, what, -1);
    g_autofree char *folder = g_strdup_printf("%s-%.8s", name, hash);

    return cache_path("build", folder, NULL);
}

static int lock_folder(const char *folder, GError **err)
{
    g_autofree char *path = g_build_filename(folder, ".armlet-lock", NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot open %s: %s", path, g_strerror(errno));
    } else if (flock(fd, LOCK_EX | LOCK_NB)) {
        warn("waiting for another armlet that builds %s", folder);
        while (flock(fd, LOCK_EX) && errno == EINTR)
            ;
    }
    return fd;
}

/* --- the configuration ---------------------------------------------------------------------------------- */

/* What the configuration is made of, as text: it is written down beside it. */
static char *recipe(const struct lab_build *b, GError **err)
{
    g_autofree char *config = NULL;

    if (b->config && !g_file_get_contents(b->config, &config, NULL, err))
        return NULL;
    return g_strconcat(config ? config : b->defconfig ? lab_defconfig_fragment : lab_article_config,
                       b->fragment ? "\n" : "", b->fragment, "\n", NULL);
}

static bool write_text(const char *folder, const char *name, const char *text, GError **err)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);

    return cache_write_file(path, text, strlen(text), err);
}

/* defconfig, and then our lines behind it. */
static bool append_to_config(const char *out, const char *text, GError **err)
{
    g_autofree char *path = g_build_filename(out, ".config", NULL), *old = NULL;

    if (!g_file_get_contents(path, &old, NULL, err))
        return false;
    g_autofree char *all = g_strconcat(old, "\n", text, NULL);
    return cache_write_file(path, all, strlen(all), err);
}

static bool configure(const struct lab_build *b, const char *out, const char *text, GError **err)
{
    g_autofree char *file = g_build_filename(out, ".armlet-fragment", NULL), *quoted = g_shell_quote(file);
    g_autofree char *all = g_strdup_printf("-s KCONFIG_ALLCONFIG=%s allnoconfig", quoted);

    if (b->config)
        return write_text(out, ".config", text, err) && make_run(b->source, out, "-s olddefconfig", 0, err);
    if (b->defconfig)
        return make_run(b->source, out, "-s defconfig", 0, err) && append_to_config(out, text, err) &&
               make_run(b->source, out, "-s olddefconfig", 0, err) && make_check_config(text, out, err);
    return write_text(out, ".armlet-fragment", text, err) && make_run(b->source, out, all, 0, err) &&
           make_check_config(text, out, err);
}

/* anew: the configuration has changed, and most of the kernel will be made again. */
static bool configure_if_new(const struct lab_build *b, const char *out, bool *anew, GError **err)
{
    g_autofree char *text = recipe(b, err), *stamp = g_build_filename(out, ".armlet-recipe", NULL),
                    *old = NULL;

    if (!text)
        return false;
    if (g_file_get_contents(stamp, &old, NULL, NULL) && !strcmp(old, text))
        return true;
    g_unlink(stamp);
    *anew = true;
    return configure(b, out, text, err) && write_text(out, ".armlet-recipe", text, err);
}

/* --- the build ------------------------------------------------------------------------------------------ */

static char *build_locked(const struct lab_build *b, const char *out, GError **err)
{
    char *image = g_build_filename(out, "arch", "arm64", "boot", "Image", NULL);
    unsigned expect = b->defconfig || b->config ? EXPECT_DEFCONFIG : EXPECT_TINY;
    bool anew = false, ok = configure_if_new(b, out, &anew, err);

    if (!anew && !g_access(image, F_OK))
        expect = EXPECT_AGAIN;
    if (!ok || (!b->configure_only && !make_run(b->source, out, "Image", expect, err)))
        g_clear_pointer(&image, g_free);
    if (image && b->configure_only) {
        g_free(image);
        image = g_build_filename(out, ".config", NULL);
    }
    return image;
}

char *lab_tree_build(const struct lab_build *build, GError **err)
{
    struct lab_build b = *build;
    char *source = realpath(build->source, NULL), *image = NULL;

    if (!source) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_NOT_FOUND, "%s: %s", build->source, g_strerror(errno));
        return NULL;
    }
    b.source = source;
    g_autofree char *out = build_folder(&b);
    if (check_source(source, err) && make_check_tools(err) && make_check_compiler(source, err) &&
        cache_make_folder(out, err) && cache_check_space(BUILD_BYTES, err)) {
        int lock = lock_folder(out, err);
        if (lock >= 0)
            image = build_locked(&b, out, err);
        if (lock >= 0)
            close(lock);
    }
    free(source);
    return image;
}
