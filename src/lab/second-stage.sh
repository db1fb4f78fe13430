#!/bin/sh
# The second stage of a Debian root, run in a guest that has it as its root: the packages' own scripts configure them.
#
# All that armlet has unpacked is configured by one dpkg, which orders the packages itself; what --include asked for is then
# installed by apt from the files that armlet put into its cache, so that its preinst scripts are run, too.  May be run again
# after an interruption.  Output: dpkg's and apt's, with lines "armlet: ..." and "status: ..." that armlet counts.
exec 2>&1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes
umask 022
cd /

fail() {
    echo "armlet: failed: $*"
    exit 1
}

# dpkg closes the descriptor of --status-fd in its scripts, so that it cannot be their output itself.
exec 3>&1
# Nothing is to be started here.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

# Of the packages' preinst scripts only this one has something to do when there was nothing before.
if [ ! -e /etc/passwd ] && [ -e /var/lib/dpkg/info/base-passwd.preinst ]; then
    DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE=base-passwd /var/lib/dpkg/info/base-passwd.preinst install ||
        fail "base-passwd's preinst"
fi
# What scripts use before the package that brings it is configured.
[ -e /usr/bin/awk ] || ln -s mawk /usr/bin/awk
[ -e /etc/fstab ] || : >/etc/fstab

options="--force-unsafe-io --force-confold --force-confdef"
echo "armlet: configuring"
dpkg $options --status-fd 3 --configure -a || fail "dpkg"

if [ -s /.armlet/include ]; then
    echo "armlet: installing"
    apt-get -q -y --no-install-recommends --no-download -o APT::Status-Fd=3 -o Dpkg::Options::=--force-unsafe-io \
        -o Dpkg::Options::=--force-confold -o APT::Sandbox::User=root install $(cat /.armlet/include) || fail "apt-get"
    apt-get clean
fi

passwd -q -d root || fail "root's password"
systemctl -q enable systemd-networkd.service || fail "systemd-networkd"
rm -f /usr/sbin/policy-rc.d /var/log/dpkg.log /var/log/alternatives.log /var/log/bootstrap.log /var/log/apt/*
dpkg --audit
[ -z "$(dpkg --audit)" ] || fail "dpkg --audit"

# As an image: mke2fs sees owners and devices here as they are to be.  This text is in the memory of the shell.
if [ -e /.armlet/image ]; then
    echo "armlet: writing the image"
    rm -rf /.armlet
    { mount --bind / /mnt && mke2fs -q -F -t ext4 -b 4096 -L armlet -d /mnt /dev/vda && sync; } || fail "mke2fs"
fi
echo "armlet: done"
