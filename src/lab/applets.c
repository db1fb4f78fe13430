/*
 * Busybox keeps its applets' names as one sorted run of strings, each ending in NUL, that begins with "[" and
 * "[[" (or with whatever comes first in a build without these, which we do not recognise).  Threading: any.
 */
#include "lab/applets.h"

#include <string.h>

/* Where custom puts them; bin is for all others. */
static const struct {
    const char *folder, *names;
} places[] = {
    {"sbin",
     " acpid adjtimex arp blkid blockdev bootchartd depmod devmem fdisk findfs freeramdisk fsck fsck.minix"
     " fstrim getty halt hdparm hwclock ifconfig ifdown ifenslave ifup init insmod ip ipaddr iplink ipneigh"
     " iproute iprule iptunnel klogd loadkmap logread losetup lsmod makedevs mdev mkdosfs mke2fs mkfs.ext2"
     " mkfs.minix mkfs.reiser mkfs.vfat mkswap modinfo modprobe nameif pivot_root poweroff raidautorun"
     " reboot rmmod route run-init runlevel setconsole slattach start-stop-daemon sulogin swapoff swapon"
     " switch_root sysctl syslogd tc tunctl tune2fs udhcpc uevent vconfig watchdog zcip "},
    {"usr/sbin",
     " addgroup adduser arping brctl chat chpasswd chroot crond delgroup deluser dhcprelay dnsd fakeidentd"
     " fbset fdformat fsfreeze ftpd httpd i2cdetect i2cdump i2cget i2cset i2ctransfer inetd killall5"
     " loadfont lpd mim nandump nandwrite nbd-client nologin ntpd partprobe popmaildir powertop rdate rdev"
     " readahead readprofile remove-shell rtcwake sendmail setfont setlogcons svlogd telnetd tftpd"
     " ubiattach ubidetach ubimkvol ubirename ubirmvol ubirsvol ubiupdatevol udhcpd "},
    {"usr/bin",
     " [ [[ ar ascii awk basename bc beep blkdiscard bunzip2 bzcat bzip2 cal chpst chrt chvt cksum clear"
     " cmp comm crc32 crontab cryptpw cut dc deallocvt diff dirname dos2unix dpkg dpkg-deb du dumpleases ed"
     " eject env envdir envuidgid expand expr factor fallocate find flock fold free ftpget ftpput fuser"
     " groups hd head hexdump hexedit hostid id install ipcrm ipcs killall last less logger logname lpq lpr"
     " lsof lspci lsscsi lsusb lzcat lzma lzopcat man md5sum mesg microcom mkfifo mkpasswd nc nl nmeter"
     " nohup nproc nsenter nslookup od openvt passwd paste patch pgrep pkill pmap printf pscan pstree pwdx"
     " readlink realpath renice reset resize rpm2cpio runsv runsvdir rx script scriptreplay seq setfattr"
     " setkeycodes setsid setuidgid sha1sum sha256sum sha3sum sha512sum showkey shred shuf smemcap"
     " softlimit sort split ssl_client strings sum sv svc svok tac tail taskset tee telnet test tftp time"
     " timeout top tr traceroute traceroute6 truncate ts tty ttysize udhcpc6 udpsvd unexpand uniq unix2dos"
     " unlink unlzma unlzop unshare unxz unzip uptime users uudecode uuencode vlock volname w wall wc wget"
     " which who whoami whois xargs xxd xz xzcat yes "},
};

const char *applets_folder(const char *name)
{
    char *word = g_strdup_printf(" %s ", name);
    const char *folder = "bin";

    for (size_t i = 0; i < G_N_ELEMENTS(places); i++)
        if (strstr(places[i].names, word))
            folder = places[i].folder;
    g_free(word);
    return folder;
}

static gboolean is_name(const char *s)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789[._-+";
    size_t len = strlen(s);

    return len && len < 32 && strspn(s, good) == len;
}

char **applets_find(const void *data, gsize size)
{
    static const char start[] = "[\0[[";
    const char *end = (const char *)data + size;
    const char *s = memmem(data, size, start, sizeof start), *last = "";
    GPtrArray *names;

    if (!s)
        return NULL;
    names = g_ptr_array_new();
    while (s < end && memchr(s, 0, (gsize)(end - s)) && is_name(s) && strcmp(last, s) < 0) {
        g_ptr_array_add(names, g_strdup(s));
        last = s;
        s += strlen(s) + 1;
    }
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}
