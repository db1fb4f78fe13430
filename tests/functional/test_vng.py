"""virtme-ng from Debian trixie, which takes us for its QEMU: a command, a pipe, a shell."""
import os
import re
import signal
import subprocess
import sys

import pexpect
import pytest
from guest import ARMLET, images

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))
import debs  # noqa: E402
from vng import vng_command  # noqa: E402


@pytest.fixture(scope="module")
def vng():
    """See bench/vng.py; trixie may be out of reach."""
    try:
        return vng_command(images("6.1")[0], ARMLET)
    except debs.Missing as e:
        pytest.skip(f"Debian trixie cannot be had here: {e}")


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
