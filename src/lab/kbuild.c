/*
 * Kernels built from source: see kbuild.h.
 *
 * The source is unpacked once per version of Debian's package, the build is out of tree and thrown away but
 * for its results; one that was interrupted or failed stays, and goes on the next time.  What decides about a
 * result is hashed into its name: the fragment, the source's version, the compiler's.  Builds of different
 * kernels go on at the same time; the same one is built once.
 *
 * Threading: the caller's; processes by a lock for each result, and by the cache's for the source.
 */
#include "lab/kbuild.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "base/report.h"
#include "lab/apt.h"
#include "lab/cache.h"
#include "lab/lab.h"
#include "lab/make.h"
#include "lab/progress.h"

#define SOURCE   "linux-source-6.1"
#define SOURCE_BYTES (UINT64_C(1700) << 20)
#define BUILD_BYTES  (UINT64_C(1000) << 20)
#define EXPECT       1400 /* lines of make's that name a file */

const char lab_article_config[] =
    "CONFIG_LOCALVERSION=\"-armlet\"\n"
    "CONFIG_CROSS_MEMORY_ATTACH=y\n"
    "CONFIG_SYSVIPC=y\n"
    "CONFIG_POSIX_MQUEUE=y\n"
    "CONFIG_NO_HZ_IDLE=y\n"
    "CONFIG_HIGH_RES_TIMERS=y\n"
    "CONFIG_HZ_100=y\n"
    "CONFIG_NR_CPUS=8\n"
    "CONFIG_PREEMPT_VOLUNTARY=y\n"
    "CONFIG_IKCONFIG=y\n"
    "CONFIG_IKCONFIG_PROC=y\n"
    "CONFIG_CGROUPS=y\n"
    "CONFIG_NAMESPACES=y\n"
    "CONFIG_BLK_DEV_INITRD=y\n"
    "CONFIG_RD_GZIP=y\n"
    "CONFIG_KALLSYMS=y\n"
    "CONFIG_PERF_EVENTS=y\n"
    "CONFIG_HW_PERF_EVENTS=y\n"
    "CONFIG_ARM_PMU=y\n"
    "CONFIG_ARM64_4K_PAGES=y\n"
    "CONFIG_ARM64_VA_BITS_48=y\n"
    "CONFIG_ARM64_PAN=y\n"
    "CONFIG_ARM64_USE_LSE_ATOMICS=y\n"
    "CONFIG_MODULES=y\n"
    "CONFIG_MODULE_UNLOAD=y\n"
    "CONFIG_BLOCK=y\n"
    "CONFIG_BINFMT_ELF=y\n"
    "CONFIG_BINFMT_SCRIPT=y\n"
    "CONFIG_COREDUMP=y\n"
    "CONFIG_NET=y\n"
    "CONFIG_PACKET=y\n"
    "CONFIG_UNIX=y\n"
    "CONFIG_INET=y\n"
    "CONFIG_IP_MULTICAST=y\n"
    "CONFIG_IP_PNP=y\n"
    "CONFIG_IP_PNP_DHCP=y\n"
    "CONFIG_NET_9P=y\n"
    "CONFIG_NET_9P_VIRTIO=y\n"
    "CONFIG_PCI=y\n"
    "CONFIG_PCI_MSI=y\n"
    "CONFIG_PCI_HOST_GENERIC=y\n"
    "CONFIG_DEVTMPFS=y\n"
    "CONFIG_DEVTMPFS_MOUNT=y\n"
    "CONFIG_FW_CFG_SYSFS=y\n"
    "CONFIG_BLK_DEV=y\n"
    "CONFIG_VIRTIO_BLK=y\n"
    "CONFIG_NETDEVICES=y\n"
    "CONFIG_NET_CORE=y\n"
    "CONFIG_VIRTIO_NET=y\n"
    "CONFIG_INPUT=y\n"
    "CONFIG_INPUT_EVDEV=y\n"
    "CONFIG_INPUT_KEYBOARD=y\n"
    "CONFIG_KEYBOARD_GPIO=y\n"
    "CONFIG_TTY=y\n"
    "CONFIG_UNIX98_PTYS=y\n"
    "CONFIG_SERIAL_AMBA_PL011=y\n"
    "CONFIG_SERIAL_AMBA_PL011_CONSOLE=y\n"
    "CONFIG_VIRTIO_CONSOLE=y\n"
    "CONFIG_HW_RANDOM=y\n"
    "CONFIG_HW_RANDOM_VIRTIO=y\n"
    "CONFIG_GPIOLIB=y\n"
    "CONFIG_GPIO_PL061=y\n"
    "CONFIG_RTC_CLASS=y\n"
    "CONFIG_RTC_DRV_PL031=y\n"
    "CONFIG_VIRTIO_MENU=y\n"
    "CONFIG_VIRTIO_PCI=y\n"
    "CONFIG_VIRTIO_PCI_LEGACY=y\n"
    "CONFIG_VIRTIO_BALLOON=y\n"
    "CONFIG_VIRTIO_MMIO=y\n"
    "CONFIG_FILE_LOCKING=y\n"
    "CONFIG_INOTIFY_USER=y\n"
    "CONFIG_FHANDLE=y\n"
    "CONFIG_AUTOFS_FS=y\n"
    "CONFIG_PROC_FS=y\n"
    "CONFIG_PROC_SYSCTL=y\n"
    "CONFIG_SYSFS=y\n"
    "CONFIG_TMPFS=y\n"
    "CONFIG_TMPFS_POSIX_ACL=y\n"
    "CONFIG_TMPFS_XATTR=y\n"
    "CONFIG_NETWORK_FILESYSTEMS=y\n"
    "CONFIG_NFS_FS=y\n"
    "CONFIG_NFS_V2=y\n"
    "CONFIG_NFS_V3=y\n"
    "CONFIG_ROOT_NFS=y\n"
    "CONFIG_9P_FS=y\n"
    "CONFIG_MAGIC_SYSRQ=y\n"
    "CONFIG_SECCOMP=y\n"
    "CONFIG_PRINTK=y\n"
    "CONFIG_PRINTK_TIME=y\n"
    "CONFIG_MULTIUSER=y\n"
    /* For debuggers: lines and types, symbols of data, another address each time; and a module that crashes on request. */
    "CONFIG_DEBUG_KERNEL=y\n"
    "CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y\n"
    "CONFIG_DEBUG_FS=y\n"
    "CONFIG_KALLSYMS_ALL=y\n"
    "CONFIG_RANDOMIZE_BASE=y\n"
    "CONFIG_RUNTIME_TESTING_MENU=y\n"
    "CONFIG_LKDTM=m\n"
    ;

/* --- the source ----------------------------------------------------------------------------------------- */

static char *find_source(const void *what)
{
    (void)what;
    return cache_newest("source", SOURCE "_");
}

static bool unpack_source(const char *folder, GError **err)
{
    /* The package's usr makes room for the source's own. */
    g_autofree char *usr = g_build_filename(folder, "usr", NULL),
                    *package = g_build_filename(folder, ".deb", NULL);
    g_autofree char *archive = g_build_filename(package, "src", SOURCE ".tar.xz", NULL);
    const char *const argv[] = {"tar", "-C", folder, "--strip-components=1", "-xf", archive, NULL};
    struct progress progress;

    progress_begin(&progress, "unpacking the kernel's source");
    bool ok = !g_rename(usr, package) && cache_run(&(struct cache_run){.argv = argv}, err);
    progress_end(&progress, ok);
    if (!ok && err && !*err)
        g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot rename %s: %s", usr, g_strerror(errno));
    cache_remove(package);
    return ok;
}

static bool fetch_source(const void *what, GError **err)
{
    struct apt_package package;
    char *folder;

    (void)what;
    if (!apt_prepare(false, err) || !apt_find(SOURCE, "", &package, err))
        return false;
    g_autofree char *name = g_strdup_printf("%s_%s", package.name, package.version);
    g_autofree char *path = cache_path("source", name, NULL);
    folder = cache_new_folder(err);
    bool ok = folder && cache_check_space(SOURCE_BYTES, err) && apt_unpack(&package, folder, err) &&
              unpack_source(folder, err) && cache_publish(folder, path, err);
    if (folder && !ok)
        cache_remove(folder);
    g_free(folder);
    apt_package_clear(&package);
    return ok;
}

char *lab_kernel_source(GError **err)
{
    return cache_get(&(struct cache_item){ .find = find_source, .make = fetch_source }, err);
}

/* --- the build ------------------------------------------------------------------------------------------ */

static bool keep(const char *out, const char *from, const char *folder, const char *to, GError **err)
{
    g_autofree char *a = g_build_filename(out, from, NULL), *b = g_build_filename(folder, to, NULL);

    if (!g_rename(a, b))
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot keep %s: %s", b, g_strerror(errno));
    return false;
}

/* All of them into one folder, beside the vmlinux: where -kernel-symbols looks for their debug information. */
static bool keep_modules(const char *out, const char *folder, GError **err)
{
    g_autofree char *to = g_build_filename(folder, "modules", NULL);
    const char *const argv[] = {"find", out, "-name", "*.ko", "-exec", "mv", "-t", to, "{}", "+", NULL};

    return cache_make_folder(to, err) && cache_run(&(struct cache_run){.argv = argv}, err);
}

/* What an earlier build has left in `out' is gone on with if it had come as far as its configuration. */
static bool configure(const char *source, const char *fragment, const char *out, GError **err)
{
    g_autofree char *file = g_build_filename(out, ".armlet-fragment", NULL), *quoted = g_shell_quote(file);
    g_autofree char *stamp = g_build_filename(out, ".armlet-configured", NULL);
    g_autofree char *words = g_strdup_printf("-s KCONFIG_ALLCONFIG=%s allnoconfig", quoted);

    if (!g_access(stamp, F_OK))
        return true;
    cache_remove(out);
    return cache_make_folder(out, err) && cache_write_file(file, fragment, strlen(fragment), err) &&
           make_run(source, out, words, 0, err) && make_check_config(fragment, out, err) &&
           cache_write_file(stamp, "", 0, err);
}

static bool build(const char *source, const char *fragment, const char *folder, GError **err)
{
    g_autofree char *work = g_strconcat(folder, ".work", NULL);
    g_autofree char *out = g_build_filename(work, "out", NULL), *kept = g_build_filename(work, "kept", NULL);

    cache_remove(kept);
    bool ok = make_check_compiler(source, err) && cache_make_folder(kept, err) &&
              cache_check_space(BUILD_BYTES, err) && configure(source, fragment, out, err) &&
              make_run(source, out, "Image modules", EXPECT, err) &&
              keep(out, "arch/arm64/boot/Image", kept, "Image", err) &&
              keep(out, ".config", kept, "config", err) && keep(out, "System.map", kept, "System.map", err) &&
              keep(out, "vmlinux", kept, "vmlinux", err) && keep_modules(out, kept, err) &&
               cache_publish(kept, folder, err);
    if (ok)
        cache_remove(work);
    return ok;
}

static int lock_result(const char *folder, GError **err)
{
    g_autofree char *path = g_strconcat(folder, ".lock", NULL), *top = g_path_get_dirname(folder);
    int fd;

    if (!cache_make_folder(top, err))
        return -1;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot open %s: %s", path, g_strerror(errno));
    } else if (flock(fd, LOCK_EX | LOCK_NB)) {
        warn("waiting for another armlet that builds this kernel");
        while (flock(fd, LOCK_EX) && errno == EINTR)
            ;
    }
    return fd;
}

char *lab_kernel_build(const char *fragment, GError **err)
{
    g_autofree char *source = NULL, *compiler = NULL;

    if (!fragment)
        fragment = lab_article_config;
    if (!make_check_tools(err) || !(compiler = make_compiler_version(err)) ||
        !(source = lab_kernel_source(err)))
        return NULL;
    g_autofree char *version = g_path_get_basename(source);
    g_autofree char *all = g_strjoin("\n", fragment, version, compiler, NULL);
    g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, all, -1);
    g_autofree char *name = g_strndup(hash, 16), *folder = cache_path("built", name, NULL);
    char *image = g_build_filename(folder, "Image", NULL);
    if (!g_access(image, R_OK))
        return image;
    int lock = lock_result(folder, err);
    if (lock < 0 || (g_access(image, R_OK) && !build(source, fragment, folder, err)))
        g_clear_pointer(&image, g_free);
    if (lock >= 0)
        close(lock);
    return image;
}
