"""-panic-report, and the symbols of the silence diagnosis."""
import re
import subprocess

import pytest
from guest import ARMLET, BOOT_SECONDS, Guest, board


@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_panic(series):
    with Guest([*board(series, append="console=ttyAMA0", smp=2), "-panic-report", "-action", "panic=exit-failure"]) as g:
        g.shell()
        pid = g.cmd("echo $$")
        g.send("echo c > /proc/sysrq-trigger\r")
        g.expect("report: Kernel panic - not syncing: sysrq triggered crash")
        kernels_own = g.child.before
        g.expect(r"el0t_64_sync\+")
        report = g.child.before
        assert "---[ end Kernel panic" in kernels_own
        assert re.search(rf"  in \w+\+0x[0-9a-f]+/0x[0-9a-f]+, task (sh|init|busybox), pid {pid}, on CPU [01]", report), report
        # The kernel's own trace, from there on, is ours.
        theirs = re.findall(r"^\[[^\]]+\] +(\w[\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+)", kernels_own, re.M)
        ours = re.findall(r"#\d+ +0x[0-9a-f]{16} (\S+)", report)
        assert ours[1:] == theirs[-len(ours):][:len(ours) - 1] or [x for x in theirs if x in ours][-5:] == ours[-5:]
        assert {x.split("+")[0] for x in ours} >= {"write_sysrq_trigger", "proc_reg_write", "vfs_write", "el0_svc"}
        assert g.wait() == 1


def test_oops(machine, tmp_path):
    """A wrong pointer, planted with gdb: registers, function, task; and the machine goes on."""
    with Guest([*board("6.1", append="console=ttyAMA0", smp=1), "-panic-report", "-gdb", f"unix:{tmp_path}/gdb"]) as g:
        g.shell()
        symbols = f"{tmp_path}/symbols"
        gdb = ["gdb-multiarch", "-nx", "-batch", "-ex", f"target remote {tmp_path}/gdb"]
        subprocess.run([*gdb, "-ex", f"monitor symbol-file {symbols}", "-ex", "detach"], timeout=BOOT_SECONDS, check=True)
        p = subprocess.Popen([gdb[0], "-nx", "-batch", "-ex", f"file {symbols}", *gdb[3:], "-ex", "hbreak __do_sys_newuname",
                              "-ex", "c", "-ex", "set $x19 = 0x1234", "-ex", "set $x0 = 0x5678", "-ex", "set $pc = 0x10",
                              "-ex", "detach"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        g.send("(for i in $(seq 300); do sleep 1; uname > /dev/null; done) &\r")
        out, _ = p.communicate(timeout=BOOT_SECONDS)
        assert "Breakpoint 1, 0x" in out, out
        g.expect("report: Internal error: Oops")
        own = g.child.before
        g.expect("el0t_64_sync\\+")
        report = g.child.before
        assert "---[ end trace" in own
        assert re.search(r", task (uname|busybox|sh), pid \d+, on CPU 0", report), report
        assert re.search(r"x0  0x0000000000005678", report) and re.search(r"x19 0x0000000000001234", report), report
        assert "FAR_EL1 0x0000000000000010" in report and "el0_svc" in report
        g.send("\r")
        assert "still here" in g.cmd("echo still here")


def test_silence_has_a_symbol():
    """Where a guest without a console is, by the function's name."""
    args = board("6.1", append="console=ttyS0")
    p = subprocess.Popen([ARMLET, *args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        line = p.stderr.readline()
    finally:
        p.kill()
    assert re.search(r"nothing on the console for 10 s: .* at pc 0x[0-9a-f]+ \(\w+\+0x[0-9a-f]+/0x[0-9a-f]+\)", line), line


def test_names_in_traces(tmp_path):
    args = board("6.1", append="console=ttyAMA0 rdinit=/bin/busybox -- poweroff -f")
    r = subprocess.run([ARMLET, *args, "-d", "int", "-D", str(tmp_path / "log")], stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, timeout=BOOT_SECONDS)
    log = (tmp_path / "log").read_text()
    assert r.returncode == 0
    assert re.search(r"IRQ at EL1 pc 0xffff[0-9a-f]{12} <\w+\+0x[0-9a-f]+>", log), log[-500:]
    assert re.search(r"exception EC 0x15 .* from EL0 pc 0x[0-9a-f]+ FAR", log)  # of user space nothing is known
