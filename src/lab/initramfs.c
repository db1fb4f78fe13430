/*
 * An initial file system of busybox: what is in it and how it starts.
 *
 * Two ways in.  /linuxrc (rdinit=/linuxrc) is busybox's init with an etc/inittab as people write them for a
 * first root file system.  /init (the kernel's default) puts another inittab in place and then runs the same
 * init: a shell with job control at once, a word of welcome, and everything mounted.
 *
 * The archive is not compressed: unpacking it would cost the guest more than the host's copy costs us.
 * Threading: the caller's.
 */
#include "lab/lab.h"

#include <string.h>
#include <sys/stat.h>

#include <glib/gstdio.h>

#include "lab/applets.h"
#include "lab/cache.h"
#include "lab/cpio.h"
#include "lab/modules.h"

const char *const lab_virtio_modules[] = {"virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net",
                                          "virtio_console", "virtio_rng", NULL};

/* virtio_mmio last: on Debian's kernel its 32 empty frames take a while, and the card is on PCI. */
const char *const lab_nfs_modules[] = {"virtio_pci", "virtio_net", "nfsv3", "nfsv2", "virtio_blk",
                                       "virtio_console", "virtio_rng", "virtio_mmio", NULL};
const char *const lab_disk_modules[] = {"virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "virtio_net",
                                        "virtio_console", "virtio_rng", "virtio_mmio", NULL};
const char *const lab_agent_modules[] = {"virtio_mmio", "virtio_console", NULL};
const char *const lab_share_modules[] = {"virtio_mmio", "9p", "9pnet_virtio", NULL};

static const char agent_script[] =
#include "lab/agent.inc"
    ;

static const char init_script[] = "#!/bin/sh\n"
                                  "# The kernel starts this; rdinit=/linuxrc keeps etc/inittab as it is.\n"
                                  "export PATH=/sbin:/bin:/usr/sbin:/usr/bin\n"
                                  "cp /etc/inittab.shell /etc/inittab\n"
                                  "exec /sbin/init\n";

/*
 * What the kernel's own ROOT_NFS does, with its options: nfsroot=[SERVER:]DIR[,OPTIONS], ip=dhcp or the
 * address that the user-mode network gives its first guest.  No DHCP is needed for that one, and none is
 * waited for.
 */
static const char nfs_init_script[] =
    "#!/bin/sh\n"
    "export PATH=/sbin:/bin:/usr/sbin:/usr/bin\n"
    "mount -t proc proc /proc\n"
    "mount -t sysfs sysfs /sys\n"
    "mount -t devtmpfs devtmpfs /dev\n"
    "fail() {\n"
    "    echo \"armlet: $1; here is a shell in the initramfs\"\n"
    "    exec setsid cttyhack sh\n"
    "}\n"
    "init=/sbin/init root= nfsroot= rw=ro address= share=\n"
    "for word in $(cat /proc/cmdline); do\n"
    "    case $word in\n"
    "    init=*) init=${word#init=} ;;\n"
    "    root=*) root=${word#root=} ;;\n"
    "    armlet.share=*) share=${word#armlet.share=} ;;\n"
    "    nfsroot=*) nfsroot=${word#nfsroot=} ;;\n"
    "    ip=*.*) address=${word#ip=} ;;\n"
    "    rw) rw=rw ;;\n"
    "    esac\n"
    "done\n"
    "while read -r m; do insmod \"$m\"; done < /etc/modules\n"
    "mount_nfs() {\n"
    "    ip link set lo up\n"
    "    ip link set eth0 up || fail 'there is no network card'\n"
    "    if [ -n \"$address\" ]; then\n"
    "        address=${address%%:*} gateway=${address%.*}.2\n"
    "    else\n"
    "        address=10.0.2.15 gateway=10.0.2.2\n"
    "    fi\n"
    "    ip addr add $address/24 dev eth0\n"
    "    ip route add default via $gateway\n"
    "    server=$gateway path=${nfsroot%%,*} options=\n"
    "    case $path in *:*) server=${path%%:*} path=${path#*:} ;; esac\n"
    "    case $nfsroot in *,*) options=,${nfsroot#*,} ;; esac\n"
    "    mount -i -t nfs -o $rw,nolock,addr=$server,vers=3,proto=tcp$options \"$server:$path\" /mnt ||\n"
    "        fail \"$server:$path cannot be mounted\"\n"
    "}\n"
    "mount_disk() {\n"
    "    tries=0\n"
    "    until [ -b \"$root\" ] || [ $tries = 100 ]; do tries=$((tries + 1)); sleep 0.05; done\n"
    "    [ -b \"$root\" ] || fail \"there is no disk $root\"\n"
    "    mount -o $rw \"$root\" /mnt || fail \"$root cannot be mounted\"\n"
    "}\n"
    "case $root in\n"
    "/dev/nfs | '') mount_nfs ;;\n"
    "*) mount_disk ;;\n"
    "esac\n"
    "if [ -n \"$share\" ]; then\n"
    "    while read -r m; do insmod \"$m\"; done < /etc/modules.late\n"
    "    mkdir -p \"/mnt$share\"\n"
    "    mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap share \"/mnt$share\" ||\n"
    "        echo 'armlet: the shared directory cannot be mounted'\n"
    "fi\n"
    "mount -o move /dev /mnt/dev\n"
    "umount /proc /sys\n"
    "exec switch_root /mnt \"$init\"\n";

/* cttyhack finds the console's real terminal and makes it the shell's, so that C-c and job control work. */
static const char inittab_shell[] = "::sysinit:/etc/init.d/rcS\n"
                                    "::sysinit:/bin/cat /etc/motd\n"
                                    "::respawn:/bin/cttyhack /bin/sh -l\n"
                                    "::ctrlaltdel:/sbin/reboot\n"
                                    "::shutdown:/bin/umount -a -r 2>/dev/null\n";

static const char inittab[] = "::sysinit:/etc/init.d/rcS\n"
                              "::respawn:-/bin/sh\n"
                              "::askfirst:-/bin/sh\n"
                              "::ctrlaltdel:/bin/umount -a -r\n";

static const char fstab[] = "proc /proc proc defaults 0 0\n"
                            "tmpfs /tmp tmpfs defaults 0 0\n"
                            "sysfs /sys sysfs defaults 0 0\n";

static const char rcs[] = "#!/bin/sh\n"
                          "export PATH=/sbin:/bin:/usr/sbin:/usr/bin\n"
                          "mkdir -p /sys /proc /tmp\n"
                          "mount -a\n"
                          "# A kernel without devtmpfs gets the same from mdev.\n"
                          "mount -t devtmpfs devtmpfs /dev 2>/dev/null || {\n"
                          "    mount -t tmpfs tmpfs /dev\n"
                          "    f=/proc/sys/kernel/hotplug\n"
                          "    [ -e $f ] && echo /sbin/mdev > $f\n"
                          "    mdev -s\n"
                          "}\n"
                          "mkdir -p /dev/pts\n"
                          "mount -t devpts devpts /dev/pts\n"
                          "hostname -F /etc/hostname\n"
                          "if [ -f /etc/modules ]; then\n"
                          "    while read -r m; do insmod \"$m\"; done < /etc/modules\n"
                          "fi\n"
                          "for word in $(cat /proc/cmdline); do\n"
                          "    case $word in armlet.share=*) share=${word#armlet.share=} ;; esac\n"
                          "done\n"
                          "if [ -n \"$share\" ]; then\n"
                          "    f=/etc/modules.late\n"
                          "    [ ! -f $f ] || while read -r m; do insmod \"$m\"; done < $f\n"
                          "    mkdir -p \"$share\"\n"
                          "    o=trans=virtio,version=9p2000.L,msize=512000,cache=mmap\n"
                          "    mount -t 9p -o $o share \"$share\"\n"
                          "fi\n";

static const char motd[] =
    "\nWelcome to armlet. This is busybox in memory: nothing is kept. poweroff ends it.\n\n";

/* LINES and COLUMNS: the host's terminal as `armlet boot' found it, by way of the kernel and init. */
const char lab_profile[] = "export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root USER=root\n"
                           "export TERM=${TERM:-vt100}\n"
                           "[ -n \"$COLUMNS\" ] && stty rows \"$LINES\" cols \"$COLUMNS\" 2>/dev/null\n"
                           "unset LINES COLUMNS\n";

static void add_text(struct cpio *c, const char *path, unsigned mode, const char *text)
{
    cpio_add_file(c, path, mode, text, strlen(text));
}

static void add_base(struct cpio *c, bool nfs_root)
{
    static const char *const folders[] = {"dev", "mnt", "proc", "root", "sys", "tmp", "var"};

    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++)
        cpio_add_folder(c, folders[i], 0755);
    /* The kernel opens the first for init's standard streams. */
    cpio_add_char_device(c, "dev/console", 0600, 5, 1);
    cpio_add_char_device(c, "dev/null", 0666, 1, 3);
    add_text(c, "init", 0755, nfs_root ? nfs_init_script : init_script);
    add_text(c, "etc/init.d/rcS", 0755, rcs);
    add_text(c, "etc/inittab", 0644, inittab);
    add_text(c, "etc/inittab.shell", 0644, inittab_shell);
    add_text(c, "etc/fstab", 0644, fstab);
    add_text(c, "etc/hostname", 0644, "armlet\n");
    add_text(c, "etc/motd", 0644, motd);
    add_text(c, "etc/profile", 0644, lab_profile);
    add_text(c, "etc/passwd", 0644, "root::0:0:root:/root:/bin/sh\n");
    add_text(c, "etc/group", 0644, "root:x:0:\n");
}

static bool read_file(const char *path, char **data, gsize *size, GError **err)
{
    GError *why = NULL;

    if (g_file_get_contents(path, data, size, &why))
        return true;
    g_set_error_literal(err, LAB_ERROR, LAB_ERROR_IO, why->message);
    g_error_free(why);
    return false;
}

static bool add_busybox(struct cpio *c, const char *path, GError **err)
{
    char *data, **names;
    gsize size;

    if (!read_file(path, &data, &size, err))
        return false;
    names = applets_find(data, size);
    if (names) {
        for (char **n = names; *n; n++) {
            char *link = g_strdup_printf("%s/%s", applets_folder(*n), *n);

            if (!strcmp(*n, "linuxrc"))
                cpio_add_link(c, "linuxrc", "bin/busybox");
            else if (strcmp(*n, "busybox"))
                cpio_add_link(c, link, "/bin/busybox");
            g_free(link);
        }
        cpio_add_file(c, "bin/busybox", 0755, data, size);
        g_strfreev(names);
    } else {
        g_set_error(err, LAB_ERROR, LAB_ERROR_FAILED, "%s is no busybox that we know", path);
    }
    g_free(data);
    return names != NULL;
}

static void add_module(struct cpio *c, const struct module *m, const char *path)
{
    gsize size;
    const void *data = g_bytes_get_data(m->elf, &size);

    cpio_add_file(c, path, 0644, data, size);
}

/*
 * The modules `names', and the file `list' that they are loaded from, in order; without those that `loaded'
 * has.
 */
static bool add_modules(struct cpio *c, const struct lab_kernel *k, const char *const *names,
                        const char *list, GHashTable *loaded, GError **err)
{
    GPtrArray *modules = modules_resolve(k->modules, names, err);
    GString *text;

    if (!modules)
        return false;
    text = g_string_new(NULL);
    for (guint i = 0; i < modules->len; i++) {
        const struct module *m = modules->pdata[i];
        char *path = g_strdup_printf("/lib/modules/%s/%s.ko", k->release, m->name);

        if (!g_hash_table_contains(loaded, path)) {
            add_module(c, m, path);
            g_string_append_printf(text, "%s\n", path);
        }
        g_hash_table_add(loaded, path);
    }
    if (text->len)
        cpio_add_file(c, list, 0644, text->str, text->len);
    g_string_free(text, TRUE);
    g_ptr_array_unref(modules);
    return true;
}

static bool add_all_modules(struct cpio *c, const struct lab_initramfs *what, GError **err)
{
    GHashTable *loaded = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    bool ok = add_modules(c, what->kernel, what->modules, "etc/modules", loaded, err) &&
              (!what->late || add_modules(c, what->kernel, what->late, "etc/modules.late", loaded, err));

    g_hash_table_unref(loaded);
    return ok;
}

static bool add_files(struct cpio *c, const struct lab_initramfs *what, GError **err)
{
    for (unsigned i = 0; i < what->nfiles; i++) {
        const struct lab_file *f = &what->files[i];
        struct stat st;
        char *data;
        gsize size;

        if (!read_file(f->host, &data, &size, err))
            return false;
        cpio_add_file(c, f->guest, !stat(f->host, &st) && (st.st_mode & 0111) ? 0755 : 0644, data, size);
        g_free(data);
    }
    return true;
}

/* --- the archive's name --------------------------------------------------------------------------------- */

/* What a host file is, without reading it: modules are many megabytes, and often compressed. */
static void hash_file(GChecksum *sum, const char *path)
{
    GStatBuf st = { 0 };
    char *text;

    g_stat(path, &st);
    text = g_strdup_printf("%s %" G_GINT64_FORMAT " %" G_GINT64_FORMAT "\n", path, (gint64)st.st_size,
                           (gint64)st.st_mtime);
    g_checksum_update(sum, (const guchar *)text, -1);
    g_free(text);
}

static void hash_names(GChecksum *sum, const char *const *names)
{
    for (; names && *names; names++)
        g_checksum_update(sum, (const guchar *)*names, (gssize)strlen(*names) + 1);
    g_checksum_update(sum, (const guchar *)"", 1);
}

/* Where the archive of these wishes is kept: a hash of our own files in it and of what the others are. */
static char *archive_path(const struct cpio *base, const char *busybox, const struct lab_initramfs *what)
{
    GChecksum *sum = g_checksum_new(G_CHECKSUM_SHA256);
    GByteArray *ours = cpio_build(base);
    char *name, *path;

    g_checksum_update(sum, ours->data, ours->len);
    hash_file(sum, busybox);
    if (what && what->modules) {
        hash_file(sum, what->kernel->modules);
        hash_names(sum, what->modules);
        hash_names(sum, what->late);
    }
    for (unsigned i = 0; what && i < what->nfiles; i++) {
        g_checksum_update(sum, (const guchar *)what->files[i].guest, -1);
        hash_file(sum, what->files[i].host);
    }
    name = g_strdup_printf("%.16s.cpio", g_checksum_get_string(sum));
    path = cache_path("initramfs", name, NULL);
    g_byte_array_unref(ours);
    g_checksum_free(sum);
    g_free(name);
    return path;
}

static bool fill(struct cpio *c, const char *busybox, const struct lab_initramfs *what, const char *path,
                 GError **err)
{
    GByteArray *archive;
    bool ok = add_busybox(c, busybox, err) && (!what || !what->modules || add_all_modules(c, what, err)) &&
              (!what || add_files(c, what, err));

    if (!ok)
        return false;
    archive = cpio_build(c);
    ok = cache_write_file(path, archive->data, archive->len, err);
    g_byte_array_unref(archive);
    return ok;
}

char *lab_initramfs_busybox(const struct lab_initramfs *what, GError **err)
{
    char *busybox = lab_busybox_get(err), *path;
    struct cpio c;

    if (!busybox)
        return NULL;
    cpio_init(&c);
    add_base(&c, what && what->nfs_root);
    if (what && what->agent)
        add_text(&c, "init", 0755, agent_script);
    path = archive_path(&c, busybox, what);
    if (g_access(path, R_OK) && !fill(&c, busybox, what, path, err))
        g_clear_pointer(&path, g_free);
    cpio_clear(&c);
    g_free(busybox);
    return path;
}
