"""virtme-ng from Debian trixie, which takes us for its QEMU: a command, a pipe, a shell."""
import glob
import os
import re
import shutil
import signal
import subprocess

import debian
import pexpect
import pytest
from guest import ARMLET, images

PACKAGES = ["base-files", "base-passwd", "bash", "busybox-static", "coreutils", "dash", "diffutils", "findutils", "grep",
            "hostname", "iproute2", "kbd", "kmod", "mawk", "mount", "sed", "udev", "util-linux"]
# What installing the packages would have made.
FOLDERS = ["boot", "dev", "etc/lvm", "home", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr/lib/modules", "var/tmp"]
FILES = ["etc/fstab", "etc/hosts", "etc/shadow"]


def make_root(kernel, release, root):
    """An arm64 root with a kernel and its modules, as hard links to the cache's files."""
    shutil.copytree(debian.tree("arm64-root", "bookworm", "arm64", PACKAGES, True), root, symlinks=True, copy_function=os.link)
    for folder in FOLDERS:
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    for file in FILES:
        open(os.path.join(root, file), "a").close()
    for name in ("passwd", "group"):
        shutil.copy(os.path.join(root, "usr/share/base-passwd", name + ".master"), os.path.join(root, "etc", name))
    os.symlink("../bin/busybox", os.path.join(root, "usr/sbin/poweroff"))
    os.link(kernel, os.path.join(root, "boot", os.path.basename(kernel)))
    modules = os.path.join(os.path.dirname(os.path.dirname(kernel)), "lib/modules", release)
    shutil.copytree(modules, os.path.join(root, "usr/lib/modules", release), symlinks=True, copy_function=os.link)
    subprocess.run(["depmod", "-b", root, release], check=True)


@pytest.fixture(scope="module")
def vng():
    """(command line of vng up to what is to be run, its environment); trixie may be out of reach."""
    try:
        tools = debian.tree("vng", "trixie", "amd64", ["virtme-ng"], False)
        kernel = images("6.1")[0]
        release = re.search(r"vmlinuz-(.*)", kernel).group(1)
        root = debian.cache("debian", "vng-root-" + release)
        if not os.path.isdir(root):
            shutil.rmtree(root + ".new", ignore_errors=True)
            make_root(kernel, release, root + ".new")
            os.rename(root + ".new", root)
    except debian.Missing as e:
        pytest.skip(f"Debian trixie cannot be had here: {e}")
    env = dict(os.environ, PYTHONPATH=glob.glob(tools + "/usr/lib/python3/dist-packages")[0],
               PATH=f"{tools}/usr/bin:/usr/bin:/bin:/usr/sbin:/sbin", TERM="vt100")
    image = os.path.join(root, "boot", os.path.basename(kernel))
    return (["/usr/bin/python3", f"{tools}/usr/bin/vng", "--run", image, "--arch", "arm64", "--root", root, "--cpus", "2",
             "--cwd", root, "--qemu", os.path.abspath(ARMLET)], env)


def script(vng, command, stdin=""):
    with subprocess.Popen([*vng[0], "--", command], env=vng[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, start_new_session=True) as p:
        try:
            p.stdout_text, p.stderr_text = p.communicate(stdin, timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)  # vng alone would leave its machine behind
            raise
    return p


def test_version_line():
    """By QEMU's name, which virtme-ng, syzkaller and boot-utils parse."""
    link = os.path.join(os.path.dirname(os.path.abspath(ARMLET)), "tests", "qemu-system-aarch64")
    if not os.path.islink(link):
        os.symlink(os.path.abspath(ARMLET), link)
    out = subprocess.run([link, "--version"], check=True, timeout=10, stdout=subprocess.PIPE, text=True).stdout
    assert re.match(r"QEMU emulator version \d+\.\d+\.\d+ \(armlet \d+\.\d+\.\d+\)\n", out)


def test_script_mode(vng):
    done = script(vng, "uname -a; cat; mount | grep -w 9p | head -1; echo complaint >&2; exit 7", "through a pipe\n")
    assert "aarch64 GNU/Linux\nthrough a pipe\n" in done.stdout_text, done.stderr_text
    assert re.search(r"on / type 9p \(ro,", done.stdout_text)
    assert "complaint" in done.stderr_text
    assert done.returncode == 7


def test_exec_option(vng):
    done = subprocess.run([*vng[0], "--exec", "uname -m"], env=vng[1], stdin=subprocess.DEVNULL, timeout=180,
                          stdout=subprocess.PIPE, text=True)
    assert "aarch64" in done.stdout
    assert done.returncode == 0


def test_plain_mode(vng):
    """A shell on the terminal, until C-d."""
    child = pexpect.spawn(vng[0][0], vng[0][1:], env=vng[1], timeout=180, encoding="utf-8", codec_errors="replace",
                          dimensions=(30, 120))
    try:
        child.expect("kernel version: 6.1.*aarch64")
        child.expect("virtme-ng:.*# ")
        child.sendline("echo sum $((20+22)) $(stty size)")
        child.expect("sum 42 30 120")
        child.expect("virtme-ng:.*# ")
        child.send("\x04")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0
    finally:
        child.close(force=True)
