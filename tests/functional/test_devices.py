"""virtio devices on their slots, disks and their modes."""
import os
import re
import resource
import subprocess

import pytest
from guest import BOOT_SECONDS, Guest, board


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"armlet" + bytes(8 << 20)[6:])
    return path


def drive(path, *more):
    return ["-drive", f"file={path},format=raw,if=none,id=hd0" + "".join("," + m for m in more), "-device",
            "virtio-blk-device,drive=hd0,serial=A1"]


@pytest.mark.parametrize("legacy", ["on", "off"])
def test_disk_reads_writes_and_persists(disk, legacy):
    with Guest(board(smp=2) + drive(disk) + ["-global", f"virtio-mmio.force-legacy={legacy}"]) as g:
        g.shell()
        assert g.cmd("head -c 6 /dev/vda") == "armlet"
        assert g.cmd("cat /sys/block/vda/size /sys/block/vda/serial") == "16384\nA1"
        g.cmd("dd if=/dev/urandom of=/tmp/r bs=64k count=64 && dd if=/tmp/r of=/dev/vda bs=64k seek=32 conv=fsync")
        g.cmd("echo 3 > /proc/sys/vm/drop_caches")
        assert g.cmd("dd if=/dev/vda bs=64k skip=32 count=64 2>/dev/null | cmp - /tmp/r && echo same") == "same"
        digest = g.cmd("md5sum < /tmp/r").split()[0]
        assert "a003e00.virtio_mmio" in g.cmd("readlink /sys/block/vda")  # the last slot, as on QEMU's virt
        g.child.sendline("poweroff")
        assert g.wait() == 0
    part = subprocess.run(["md5sum"], input=disk.read_bytes()[2 << 20:6 << 20], stdout=subprocess.PIPE, check=True)
    assert part.stdout.decode().split()[0] == digest


def test_disk_with_file_system(disk):
    with Guest(board() + drive(disk)) as g:
        g.shell()
        g.cmd("mkfs.ext2 /dev/vda >/dev/null 2>&1 || mke2fs /dev/vda > /dev/null 2>&1")
        assert g.cmd("dd if=/dev/vda bs=1 skip=1080 count=2 2>/dev/null | od -An -tx1") == "53 ef"
        g.send("\x01x")
        assert g.wait() == 0


def test_readonly(disk):
    with Guest(board() + drive(disk, "readonly")) as g:
        g.shell()
        assert g.cmd("cat /sys/block/vda/ro") == "1"
        g.cmd("dd if=/dev/zero of=/dev/vda count=1 conv=fsync 2>/tmp/e")
        assert re.search("not permitted|Read-only", g.cmd("cat /tmp/e"))
        g.send("\x01x")
        assert g.wait() == 0
    assert disk.read_bytes()[:6] == b"armlet"


def test_snapshot_is_forgotten_or_committed(disk):
    with Guest(board() + ["-hda", str(disk), "-snapshot"]) as g:
        g.shell()
        g.cmd("echo thrown-away | dd of=/dev/vda conv=fsync,notrunc 2>/dev/null")
        assert g.cmd("head -c 6 /dev/vda") == "thrown"
        assert disk.read_bytes()[:6] == b"armlet"
        g.send("\x01s")
        g.expect(r"disk\.img: 4 KiB saved")
        assert disk.read_bytes()[:6] == b"thrown"
        g.child.sendline("")
        g.cmd("echo second-try | dd of=/dev/vda conv=fsync,notrunc 2>/dev/null")
        g.send("\x01x")
        assert g.wait() == 0
    assert disk.read_bytes()[:6] == b"thrown"
    assert disk.stat().st_size == 8 << 20


def test_two_users_of_one_image(disk):
    with Guest(board() + drive(disk)) as g:
        g.expect("Booting Linux")
        with Guest(["-nographic"] + drive(disk)) as second:
            second.expect("is in use already")
            assert second.wait() == 1
        with Guest(["-nographic", "-S"] + drive(disk, "snapshot=on")) as third:
            third.expect("is in use already")  # a snapshot of a disk that changes is no snapshot
            assert third.wait() == 1
        g.send("\x01x")
        assert g.wait() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_full_host_disk(tmp_path):
    """The image's file system is full: the guest gets an I/O error and goes on."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], check=True)
    try:
        image = tmp_path / "sparse.img"
        with open(image, "wb") as f:
            f.truncate(8 << 20)
        with Guest(board() + drive(image)) as g:
            g.shell()
            g.cmd("dd if=/dev/urandom of=/dev/vda bs=64k count=96 conv=fsync 2>&1")
            assert "I/O error" in g.cmd("dmesg | tail -20")
            assert g.cmd("echo alive") == "alive"
            g.child.sendline("poweroff -f")
            assert g.wait() == 0
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_limited_file_size(disk):
    """RLIMIT_FSIZE below the image's size: an I/O error in the guest, not a signal that ends the machine."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, old[1]))
    try:
        g = Guest(board() + drive(disk))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    with g:
        g.shell()
        g.cmd("dd if=/dev/zero of=/dev/vda bs=64k seek=64 count=4 conv=fsync 2>&1")
        assert "I/O error" in g.cmd("dmesg | tail -20")
        assert g.cmd("echo alive") == "alive"
        g.send("\x01x")
        assert g.wait() == 0


def test_rng():
    args = ["-object", "rng-random,filename=/dev/urandom,id=rng0", "-device", "virtio-rng-device,rng=rng0"]
    with Guest(board() + args) as g:
        g.shell()
        assert "virtio_rng" in g.cmd("cat /sys/class/misc/hw_random/rng_current")
        assert g.cmd("head -c 65536 /dev/hwrng | wc -c") == "65536"
        assert g.cmd("head -c 32 /dev/hwrng | md5sum") != g.cmd("head -c 32 /dev/hwrng | md5sum")
        g.send("\x01x")
        assert g.wait() == 0


def test_virtconsole_and_port(tmp_path):
    out, port = tmp_path / "hvc", tmp_path / "port"
    args = ["-chardev", f"file,path={out},id=a", "-chardev", f"file,path={port},id=b", "-device",
            "virtio-serial-device", "-device", "virtconsole,chardev=a", "-device",
            "virtserialport,chardev=b,name=org.armlet.test"]
    with Guest(board(append="console=ttyAMA0 console=hvc0 console=ttyAMA0") + args) as g:
        g.shell()
        g.cmd("echo to-the-console > /dev/hvc0")
        g.cmd("cat /sys/class/virtio-ports/*/name")
        g.cmd("echo to-the-port > /dev/vport0p1")
        g.child.sendline("poweroff -f")
        assert g.wait() == 0
    assert "to-the-console" in out.read_text()
    assert "to-the-port" in port.read_text()


def test_buildroot_arguments(disk):
    args = board(append="rootwait console=ttyAMA0") + [
        "-netdev", "user,id=eth0", "-device", "virtio-net-device,netdev=eth0", "-drive",
        f"file={disk},if=none,format=raw,id=hd0", "-device", "virtio-blk-device,drive=hd0"]
    with Guest(args) as g:
        g.shell()
        assert g.cmd("ls /dev/vda") == "/dev/vda"
        assert "virtio_mmio" in g.cmd("readlink /sys/class/net/eth0")
        g.send("\x01x")
        assert g.wait() == 0


@pytest.mark.parametrize("args", [
    # KUnit
    ["-nodefaults", "-m", "1024", "-append", "kunit.enable=1 console=ttyAMA0 kunit_shutdown=reboot", "-no-reboot",
     "-nographic", "-serial", "stdio", "-machine", "virt", "-cpu", "max,pauth-impdef=on"],
    # boot-utils
    ["-display", "none", "-nodefaults", "-cpu", "cortex-a72", "-machine", "virt,gic-version=max,virtualization=true",
     "-append", "console=ttyAMA0 earlycon", "-m", "1G", "-serial", "mon:stdio"],
])
def test_client_arguments(args):
    kernel, initrd = board()[board().index("-kernel") + 1], board()[board().index("-initrd") + 1]
    with Guest(args + ["-kernel", kernel, "-initrd", initrd]) as g:
        g.shell()
        g.child.sendline("poweroff -f")
        assert g.wait(BOOT_SECONDS) == 0
