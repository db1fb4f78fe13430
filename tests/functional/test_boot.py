"""Debian's kernels from power-on to a shell and out again."""
import os
import re

import pytest
from guest import ARMLET, PROMPT, Guest, board, images, run

# The device lines of the article's boot log that this board has.
LOG = [r"Machine model: linux,dummy-virt", r"psci: PSCIv1\.1 detected in firmware", r"GICv2m: range.*SPI\[80:143\]",
       r"arch_timer: cp15 timer\(s\) running at 62\.50MHz \(virt\)", r"Serial: AMBA PL011 UART driver",
       r"9000000\.pl011: ttyAMA0 at MMIO 0x9000000 \(irq = \d+, base_baud = 0\) is a PL011 rev1",
       r"hw perfevents: enabled with armv8_pmuv3 PMU driver, 7 (\(0,8000003f\) )?counters available",
       r"hw-breakpoint: found 6 breakpoint and 4 watchpoint registers",
       r"rtc-pl031 9010000\.pl031: registered as rtc0", r"CPU: All CPU\(s\) started at EL1"]


@pytest.mark.parametrize("series", ["6.1", "6.12"])
@pytest.mark.parametrize("smp", [1, 2, 8])
def test_shell_and_poweroff(series, smp):
    with Guest(board(series, smp=smp)) as g:
        log = g.shell()
        for line in LOG:
            assert re.search(line, log), line
        assert re.match(rf"Linux \S+ {re.escape(series)}\..* aarch64", g.cmd("uname -a"))
        assert g.cmd("nproc") == str(smp)
        g.child.sendline("poweroff")
        g.expect("Power down")
        assert g.wait() == 0


@pytest.mark.parametrize("accel", ["interp", "tcg"])
def test_memory_at_the_shell(accel):
    """The guest's RAM costs the host what the guest has touched, with either engine."""
    with Guest(board(memory="2048M") + ["-accel", accel]) as g:
        g.shell()
        with open(f"/proc/{g.child.pid}/status", encoding="ascii") as f:
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", f.read()).group(1))
        assert peak < 250 << 10
        g.child.sendline("poweroff -f")
        assert g.wait() == 0


def test_small_code_cache():
    """2 MiB of host code for what needs 30: code is thrown away all the time, while other vCPUs run it."""
    with Guest(board(smp=4) + ["-accel", "tcg,tb-size=2,stats=on"]) as g:
        g.shell()
        assert g.cmd("nproc") == "4"
        g.child.sendline("poweroff -f")
        assert g.wait() == 0
        kept, size, evicted = re.search(r"blocks kept in ([\d.]+) of ([\d.]+) MiB, \d+ segments, (\d+) thrown away",
                                        g.child.before).groups()
        assert float(kept) <= float(size) == 2.0
        assert int(evicted) > 100


def test_power_button_device():
    with Guest(board()) as g:
        g.shell()
        node = "/proc/device-tree/gpio-keys/poweroff/label"
        assert g.cmd(f"cat {node} | tr -d '\\0'") == "GPIO Key Poweroff"


def test_reboot_reboots():
    with Guest(board()) as g:
        g.shell()
        g.child.sendline("reboot -f")
        g.expect("Restarting system|reboot:")
        g.expect("Booting Linux on physical CPU")
        g.shell()
        assert g.cmd("echo again") == "again"
        g.child.sendline("poweroff -f")
        assert g.wait() == 0


def test_no_reboot_ends():
    with Guest(board() + ["-no-reboot"]) as g:
        g.shell()
        g.child.sendline("reboot -f")
        assert g.wait() == 0
        assert "Booting Linux" not in g.child.before


def test_the_first_article():
    """Its command line, word for word but for the kernel: no root, so the kernel panics."""
    kernel, _ = images("6.1")
    args = ["-machine", "virt", "-cpu", "cortex-a57", "-machine", "type=virt", "-nographic", "-m", "2048", "-smp", "2",
            "-kernel", kernel, "--append", "rdinit=/linuxrc console=ttyAMA0"]
    with Guest(args) as g:
        g.expect("Kernel panic - not syncing: VFS: Unable to mount root fs")
        for line in LOG:
            assert re.search(line, g.child.before), line
        g.expect("end Kernel panic")
        g.expect("armlet: the guest's kernel has panicked: VFS")
        g.send("\x01x")
        assert g.wait() == 0


def test_linuxrc():
    with Guest(board(append="rdinit=/linuxrc console=ttyAMA0")) as g:
        g.expect("Please press Enter to activate this console")
        g.send("\r")
        g.expect(PROMPT)
        g.send("\x01x")
        assert g.wait() == 0


@pytest.mark.parametrize("append", ["", "panic=-1"])
def test_panic_exit(append):
    args = ["boot", "--kernel", "6.1", "--initrd", "none", "--panic-exit"]
    r = run(*args, *(["--append", append] if append else []), timeout=120)
    assert r.returncode == 1
    assert "armlet: the guest's kernel has panicked: VFS: Unable to mount root fs" in r.stderr


def test_boot_command():
    with Guest(["boot", "--root", "none", "--smp=2", "--memory", "768M"]) as g:
        g.shell()
        assert g.cmd("nproc") == "2"
        assert g.cmd("stty size") == "24 200"  # of the terminal that the machine was started on
        assert 600 < int(g.cmd("grep MemTotal /proc/meminfo").split()[1]) // 1024 < 768
        g.child.sendline("poweroff")
        assert g.wait() == 0


def test_qemu_name(tmp_path):
    name = tmp_path / "qemu-system-aarch64"
    os.symlink(os.path.abspath(ARMLET), name)
    with Guest(["-version"], str(name)) as g:
        g.expect(r"QEMU emulator version \d+\.\d+\.\d+ \(armlet ")
        assert g.wait() == 0
