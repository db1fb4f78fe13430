"""What users get wrong: one line that says what to do, exit status 1, and never a crash or a hang."""
import glob
import os
import random
import signal
import struct
import subprocess
import time

import pytest
from guest import ARMLET, images, run


def fails(*args, says, **kwargs):
    r = run("-nographic", *args, **kwargs)
    assert r.returncode == 1, r
    lines = r.stderr.strip().split("\n")
    assert len(lines) == 1, r.stderr
    assert says in lines[0] and lines[0].startswith("armlet: "), lines[0]


@pytest.mark.parametrize("args,says", [
    (["-frobnicate"], "unknown option"),
    (["-kernal", "x"], "did you mean -kernel?"),
    (["-smp"], "needs an argument"),
    (["-gdb", "tcp::99999"], "no such port"),
    (["-machine", "virt,dumpdtb="], "give a file"),
    (["-cpu", "cortex-a75"], "did you mean 'cortex-a"),
    (["-cpu", "host"], "give a model"),
    (["-machine", "raspi3b"], "the board is 'virt'"),
    (["-machine", "virt,gic-version=3"], "GICv2"),
    (["-machine", "virt,hghmem=off"], "did you mean 'highmem'"),
    (["-m", "0"], "-m 0"),
    (["-m", "1T"], "at most"),
    (["-m", "much"], "give a size"),
    (["-smp", "0"], "1 to 8"),
    (["-smp", "9"], "1 to 8"),
    (["-smp", "two"], "two"),
    (["-kernel", "/nonexistent"], "No such file"),
    (["-kernel", "/"], "kernel"),
    (["-kernel", "/dev/zero"], "a character device"),
    (["-m", "1e3"], "give a size"),
    (["-cpu", "cortex-a53,aarch64=off"], "no AArch32"),
    (["-rtc", "clock=sun"], "give host, rt or vm"),
    (["-machine", "none"], "the board is 'virt'"),
    (["-append", "x"], "-kernel"),
    (["-device", "virtio-blk-pci"], "give drive="),
    (["-device", "virtio-blk-devise"], "did you mean 'virtio-blk-device'"),
    (["-device", "virtio-blk-device"], "give drive="),
    (["-device", "virtio-blk-device,drive=nope"], "no -drive has the id 'nope'"),
    (["-device", "virtio-rng-device,sped=1"], "no property 'sped'"),
    (["-device", "virtconsole"], "virtio-serial-device before it"),
    (["-drive", "if=none,id=a"], "give file="),
    (["-drive", "file=/nonexistent"], "No such file"),
    (["-drive", "file=/tmp"], "directory"),
    (["-drive", "file=/dev/null"], "not a disk image"),
    (["-drive", "file=x,format=qcow2"], "qcow2 images are not supported"),
    (["-drive", "file=x,if=ide"], "no such interface"),
    (["-object", "rng-egd,id=a"], "no such object"),
    (["-chardev", "spice,id=a"], "no such kind"),
    (["-serial", "chardev:nope"], "no character device"),
    (["-serial", "unix:/nonexistent/s"], "/nonexistent/s"),
    (["-netdev", "tap,id=n"], "not here"),
    (["-global", "foo.bar=1"], "unknown driver"),
    (["-display", "gtk"], "give none"),
    (["-dtb", "/nonexistent", "-kernel", "x"], "No such file"),
])
def test_command_line(args, says):
    fails(*args, says=says)


def test_qcow2_is_not_taken_for_raw(tmp_path):
    image = tmp_path / "d.qcow2"
    image.write_bytes(b"QFI\xfb" + bytes(4096))
    fails("-drive", f"file={image}", says="qcow2 images are not supported")
    assert image.read_bytes()[:4] == b"QFI\xfb"


@pytest.fixture(scope="module")
def kernel():
    with open(images("6.1")[0], "rb") as f:
        return f.read()


def arm_zimage():
    return bytes(0x24) + struct.pack("<I", 0x016f2818) + bytes(4096)


def x86_bzimage():
    return bytes(0x202) + b"HdrS" + bytes(4096)


def x86_elf():
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 62, 1) + bytes(4096)


@pytest.mark.parametrize("what,says", [(arm_zimage(), "32-bit"), (x86_bzimage(), "x86"), (x86_elf(), "another machine"),
                                       (b"", "empty"), (b"#!/bin/sh\n", "not an arm64 kernel"),
                                       (b"\x1f\x8b\x08" + bytes(100), "gzip"),
                                       (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd")])
def test_foreign_kernels(tmp_path, what, says):
    path = tmp_path / "k"
    path.write_bytes(what)
    fails("-kernel", str(path), says=says)


@pytest.mark.parametrize("size", [1, 63, 64, 100, 4096, 1 << 20, -65536])
def test_truncated_kernel(tmp_path, kernel, size):
    path = tmp_path / "k"
    path.write_bytes(kernel[:size])
    fails("-kernel", str(path), says="k")


def test_kernel_for_other_cpus(tmp_path, kernel):
    path = tmp_path / "k"
    for flags, says in ((kernel[24] | 1, "big-endian"), (kernel[24] & ~6 | 4, "16 KiB pages")):
        path.write_bytes(kernel[:24] + bytes([flags]) + kernel[25:])
        fails("-cpu", "cortex-a57", "-kernel", str(path), says=says)


def test_sizes(tmp_path):
    k = images("6.1")[0]
    fails("-m", "1", "-kernel", k, says="does not fit")
    initrd = tmp_path / "i"
    with open(initrd, "wb") as f:
        f.truncate(600 << 20)
    fails("-m", "512", "-kernel", k, "-initrd", str(initrd), says="does not fit")
    fails("-kernel", k, "-initrd", "/nonexistent", says="No such file")


def test_bad_device_trees(tmp_path):
    k, rnd, path = images("6.1")[0], random.Random(1), tmp_path / "t"
    run("-machine", f"virt,dumpdtb={path}")
    good = path.read_bytes()
    for bad in (b"", b"hello", good[:100], good[:-200], bytes(len(good)), b"\xd0\x0d\xfe\xed" + bytes(rnd.randbytes(4096))):
        path.write_bytes(bad)
        fails("-kernel", k, "-dtb", str(path), says="device tree")


def test_no_temporary_files_left(tmp_path):
    """What -snapshot writes to has no name, so that nothing is left however the machine ends."""
    disk, folder = tmp_path / "disk.img", tmp_path / "tmp"
    disk.write_bytes(bytes(1 << 20))
    folder.mkdir()
    machine = subprocess.Popen([ARMLET, "-display", "none", "-S", "-hda", str(disk), "-snapshot"], stdin=subprocess.DEVNULL,
                               env={**os.environ, "TMPDIR": str(folder)})
    try:
        end = time.monotonic() + 60
        while not any(path.startswith(str(folder)) for path in open_files(machine.pid)):
            assert time.monotonic() < end and machine.poll() is None
            time.sleep(0.05)
        assert not os.listdir(folder)
    finally:
        machine.kill()
        machine.wait()
    assert not os.listdir(folder)


def open_files(pid):
    for fd in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            yield os.readlink(fd)
        except FileNotFoundError:
            pass


def test_endless_pipe():
    with subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE) as cat:
        done = subprocess.run([ARMLET, "-nographic", "-kernel", "/dev/stdin"], stdin=cat.stdout, capture_output=True,
                              text=True, timeout=120, check=False)
        cat.kill()
    assert done.returncode == 1 and "no end after 512 MiB" in done.stderr and done.stderr.count("\n") == 1


def test_kernel_from_a_pipe_that_nobody_writes(tmp_path):
    """It waits, as cat would, and a signal ends that."""
    os.mkfifo(tmp_path / "k")
    p = subprocess.Popen([ARMLET, "-nographic", "-kernel", tmp_path / "k"], stdin=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        p.wait(1)
    p.terminate()
    assert p.wait(20) == -signal.SIGTERM


def test_commands():
    for args, says in ((["boott"], "did you mean 'boot'"), (["kernel"], "give list"), (["kernel", "lisst"], "give list"),
                       (["boot", "--shw"], "did you mean --show"), (["boot", "--kernel", "5.0"], "no kernel series 5.0"),
                       (["boot", "a", "b"], "one kernel"), (["boot", "--smp"], "needs a value"),
                       (["boot", "/nonexistent", "--initrd", "none"], "No such file"),
                       (["boot", "--root", "/etc/passwd"], "neither a directory nor a disk image")):
        r = run(*args)
        assert r.returncode == 1 and says in r.stderr and r.stderr.count("\n") == 1, r


@pytest.mark.parametrize("args,says", [
    (["-help"], "-kernel FILE"), (["--help"], "armlet COMMAND"), (["help"], "armlet COMMAND"),
    (["help", "boot"], "--panic-exit"), (["boot", "--help"], "--panic-exit"), (["help", "options"], "-kernel FILE"),
    (["-version"], "armlet "), (["version"], "armlet "), (["-cpu", "help"], "cortex-a57"), (["-machine", "help"], "virt"),
    (["-device", "help"], "virtio-blk-device"), (["-device", "virtio-blk-device,help"], "drive=<str>"),
    (["-accel", "help"], "tcg"), (["-d", "help"], "unimp"), (["kernel", "list"], "6.1"), ([], "armlet COMMAND")])
def test_questions(args, says):
    r = run(*args)
    assert r.returncode == 0 and says in r.stdout and r.stderr == "", r
