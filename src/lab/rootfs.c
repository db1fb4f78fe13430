/*
 * A root file system of busybox as a directory of the host, to be exported to the guest: made once, then the user's.
 *
 * Device nodes are left out: the kernel's devtmpfs has them, and an ordinary user cannot make any.
 * Threading: the caller's; of two processes at once one makes the tree, and the other takes it.
 */
#include "lab/rootfs.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lab/applets.h"
#include "lab/busybox.h"
#include "lab/cache.h"
#include "lab/lab.h"

static const char inittab[] = "::sysinit:/etc/init.d/rcS\n"
                              "::sysinit:/bin/cat /etc/motd\n"
                              "# cttyhack gives the shell a terminal of its own, so that C-c works.\n"
                              "::respawn:/bin/cttyhack /bin/sh -l\n"
                              "::ctrlaltdel:/sbin/reboot\n"
                              "::shutdown:/bin/umount -a -r 2>/dev/null\n";

static const char fstab[] = "proc /proc proc defaults 0 0\n"
                            "tmpfs /tmp tmpfs defaults 0 0\n"
                            "sysfs /sys sysfs defaults 0 0\n";

static const char rcs[] = "#!/bin/sh\n"
                          "export PATH=/sbin:/bin:/usr/sbin:/usr/bin\n"
                          "mount -a\n"
                          "# A kernel without devtmpfs gets the same from mdev.\n"
                          "grep -q ' /dev devtmpfs' /proc/mounts || mount -t devtmpfs devtmpfs /dev 2>/dev/null || {\n"
                          "    mount -t tmpfs tmpfs /dev\n"
                          "    [ -e /proc/sys/kernel/hotplug ] && echo /sbin/mdev > /proc/sys/kernel/hotplug\n"
                          "    mdev -s\n"
                          "}\n"
                          "mkdir -p /dev/pts\n"
                          "mount -t devpts devpts /dev/pts\n"
                          "hostname -F /etc/hostname\n"
                          "ip link set lo up\n"
                          "# armlet boot --share, unless an initramfs has mounted it.\n"
                          "for word in $(cat /proc/cmdline); do\n"
                          "    case $word in armlet.share=*) share=${word#armlet.share=} ;; esac\n"
                          "done\n"
                          "if [ -n \"$share\" ] && ! grep -q ' 9p ' /proc/mounts; then\n"
                          "    mkdir -p \"$share\"\n"
                          "    mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap share \"$share\"\n"
                          "fi\n";

/*
 * The article's program, "Hello, ARM!", without a compiler: an ELF file with one segment whose code writes the text
 * (system call 64) and exits (93).
 */
static const uint32_t hello[] = {
    0x464c457f, 0x00010102, 0,          0,          0x00b70002, 1, 0x00400078, 0, 64,         0, 0, 0, 0, 0x00380040,
    1,          0,          /* program header: */
    1,          5,          0,          0,          0x00400000, 0, 0x00400000, 0, 0xa4,       0, 0xa4, 0, 0x10000, 0,
    0xd2800020, 0x100000e1, 0xd2800182, 0xd2800808, 0xd4000001, 0xd2800000, 0xd2800ba8, 0xd4000001,
    0x6c6c6548, 0x41202c6f, 0x0a214d52};

static bool put(const char *top, const char *path, unsigned mode, const void *data, size_t size, GError **err)
{
    g_autofree char *full = g_build_filename(top, path, NULL), *folder = g_path_get_dirname(full);

    if (!cache_make_folder(folder, err) || !cache_write_file(full, data, size, err))
        return false;
    if (!chmod(full, mode))
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot chmod %s: %s", full, g_strerror(errno));
    return false;
}

static bool put_text(const char *top, const char *path, unsigned mode, const char *text, GError **err)
{
    return put(top, path, mode, text, strlen(text), err);
}

static bool put_link(const char *top, const char *path, const char *target, GError **err)
{
    g_autofree char *full = g_build_filename(top, path, NULL), *folder = g_path_get_dirname(full);

    if (!cache_make_folder(folder, err))
        return false;
    if (!symlink(target, full) || errno == EEXIST)
        return true;
    g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot make the link %s: %s", full, g_strerror(errno));
    return false;
}

static bool put_busybox(const char *top, bool from_source, GError **err)
{
    g_autofree char *path = from_source ? lab_busybox_build(err) : lab_busybox_get(err), *data = NULL;
    g_auto(GStrv) names = NULL;
    gsize size;

    if (!path || !g_file_get_contents(path, &data, &size, err))
        return false;
    names = applets_find(data, size);
    if (!names) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "%s is no busybox that we know", path);
        return false;
    }
    for (char **n = names; *n; n++) {
        g_autofree char *link = g_strdup_printf("%s/%s", applets_folder(*n), *n);
        bool top_level = !strcmp(*n, "linuxrc");

        if (strcmp(*n, "busybox") && !put_link(top, top_level ? *n : link, top_level ? "bin/busybox" : "/bin/busybox", err))
            return false;
    }
    return put(top, "bin/busybox", 0755, data, size, err);
}

static bool put_files(const char *top, const char *final, GError **err)
{
    static const char *const folders[] = {"dev", "mnt", "proc", "pv", "root", "sys", "tmp", "var/log", "var/run"};
    g_autofree char *motd = g_strdup_printf("\nWelcome to armlet. This root is the host's directory\n%s\n"
                                            "What you change here is changed there. poweroff ends it.\n\n", final);

    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *path = g_build_filename(top, folders[i], NULL);

        if (!cache_make_folder(path, err))
            return false;
    }
    return put_text(top, "etc/init.d/rcS", 0755, rcs, err) && put_text(top, "etc/inittab", 0644, inittab, err) &&
           put_text(top, "etc/fstab", 0644, fstab, err) && put_text(top, "etc/hostname", 0644, "armlet\n", err) &&
           put_text(top, "etc/motd", 0644, motd, err) && put_text(top, "etc/profile", 0644, lab_profile, err) &&
           put_text(top, "etc/passwd", 0644, "root::0:0:root:/root:/bin/sh\n", err) &&
           put_text(top, "etc/group", 0644, "root:x:0:\n", err) &&
           put_text(top, "etc/hosts", 0644, "127.0.0.1 localhost\n", err) &&
           put_text(top, "etc/resolv.conf", 0644, "nameserver 10.0.2.3\n", err) &&
           put(top, "root/hello", 0755, hello, sizeof(hello), err);
}

bool rootfs_fill(const char *top, const char *final, bool from_source, GError **err)
{
    return put_files(top, final, err) && put_busybox(top, from_source, err);
}

char *rootfs_data_path(const char *name)
{
    const char *base = g_getenv("XDG_DATA_HOME");

    if (base && g_path_is_absolute(base))
        return g_build_filename(base, "armlet", "root", name, NULL);
    return g_build_filename(g_get_home_dir(), ".local", "share", "armlet", "root", name, NULL);
}

char *lab_rootfs_busybox(GError **err)
{
    g_autofree char *path = rootfs_data_path("busybox"), *parent = g_path_get_dirname(path);
    g_autofree char *work = g_strdup_printf("%s.new.%d", path, (int)getpid());
    bool ok;

    if (!g_access(path, F_OK))
        return g_steal_pointer(&path);
    ok = cache_make_folder(parent, err) && rootfs_fill(work, path, false, err);
    if (ok && rename(work, path) && errno != EEXIST && errno != ENOTEMPTY) {
        g_set_error(err, LAB_ERROR, LAB_ERROR_IO, "cannot make %s: %s", path, g_strerror(errno));
        ok = false;
    }
    cache_remove(work);
    return ok ? g_steal_pointer(&path) : NULL;
}
