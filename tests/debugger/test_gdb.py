"""The gdb stub, driven by gdb-multiarch as a user would."""
import re
import socket
import subprocess
import time

import pexpect
import pytest
from guest import ARMLET, BOOT_SECONDS, Guest, board
from test_kernel import Monitor

HEAD = ["-machine", "virt", "-display", "none"]


def number(text, name):
    m = re.search(rf"^{re.escape(name)} *= *(0x[0-9a-f]+|\d+)$", text, re.M)
    assert m, text
    return int(m.group(1), 0)


def test_article(machine):
    """The article's session line for line; no vmlinux is needed for it."""
    m = machine(*board(append="console=ttyAMA0 rdinit=/bin/busybox -- poweroff -f"), "-S")
    out = m.gdb("info registers", "set disassemble-next-line on", "si", "ni", "b *0x000000004000000c", "info b", "c", "c")
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("0x0000000040000000 in ?? ()"))
    names = [f"x{i}" for i in range(31)] + ["sp", "pc", "cpsr", "fpsr", "fpcr"]
    registers = lines[at + 1:at + 1 + len(names)]
    assert [r.split()[0] for r in registers] == names
    for r in registers:
        value = {"pc": "0x40000000", "cpsr": "0x400003c5"}.get(r.split()[0], "0x0")
        assert r.split()[1] == value, r
    assert re.search(r"^cpsr +0x400003c5 +1073742789$", out, re.M)
    rest = out[out.index("0x0000000040000004 in ?? ()"):]
    assert re.match(
        r"0x0000000040000004 in \?\? \(\)\n"
        r"=> 0x0000000040000004:\t(aa1f03e1|e1 03 1f aa)\tmov\tx1, xzr\n"
        r"0x0000000040000008 in \?\? \(\)\n"
        r"=> 0x0000000040000008:\t(aa1f03e2|e2 03 1f aa)\tmov\tx2, xzr\n"
        r"Breakpoint 1 at 0x4000000c\n"
        r"Num +Type +Disp Enb Address +What\n"
        r"1 +breakpoint +keep y +0x000000004000000c *\n"
        r"\nBreakpoint 1, 0x000000004000000c in \?\? \(\)\n"
        r"=> 0x000000004000000c:\t(aa1f03e3|e3 03 1f aa)\tmov\tx3, xzr\n"
        r"\[Inferior 1 \(Remote target\) exited normally\]", rest), rest
    assert m.process.wait(BOOT_SECONDS) == 0
    assert "reboot: Power down" in m.output()


def test_registers_by_name(machine):
    m = machine(*HEAD, "-S")
    out = m.gdb("p/x $MIDR_EL1", "p/x $cpsr", "set $x7 = 0x123456789abcdef0", "p/x $x7", "set $TTBR0_EL1 = 0x5000",
                "p/x $TTBR0_EL1", "set $VBAR_EL1 = 0x1fff", "p/x $VBAR_EL1", "set $v3.d.u[1] = 77", "p $v3.d.u[1]",
                "p/x $v3.b.u[8]", "set $sp = 0x40001000", "p $sp", "set $fpcr = 0x1000000", "p/x $FPCR",
                "set $MIDR_EL1 = 1", "p/x $MIDR_EL1")
    values = dict(re.findall(r"^\$(\d+) = (?:\(void \*\) )?(\S+)$", out, re.M))
    assert list(values.values()) == ["0x411fd070", "0x400003c5", "0x123456789abcdef0", "0x5000", "0x1800", "77", "0x4d",
                                     "0x40001000", "0x1000000", "0x411fd070"], out


def test_every_system_register_is_there(machine):
    m = machine(*HEAD, "-S")
    out = m.gdb("info registers system")
    for name in ["SCTLR_EL1", "ESR_EL1", "FAR_EL1", "TPIDR_EL0", "CNTVCT_EL0", "PMCR_EL0", "DBGBVR5_EL1", "ID_AA64PFR0_EL1"]:
        assert re.search(rf"^{name} +0x", out, re.M), name
    assert "DBGBVR6_EL1" not in out
    assert len(re.findall(r"^[A-Z0-9_]+ +0x", out, re.M)) > 120


def test_memory(machine):
    m = machine(*HEAD, "-S")
    out = m.gdb("set {long}0x40008000 = 0x1122334455667788", "p/x {int}0x40008004", "p/x {char}0x40008007",
                "restore /etc/hostname binary 0x40009001", "x/s 0x40009001", "p {int}0x20000",
                "p {int}0x1000000000", "maint packet Qqemu.PhyMemMode:1", "maint packet qqemu.PhyMemMode",
                "p/x {int}0x09000018", "p/x {int}0x40008000", "maint packet Qqemu.PhyMemMode:2")
    assert "= 0x11223344" in out and "= 0x11\n" in out
    with open("/etc/hostname") as f:
        assert f.read().strip() in out
    assert "Cannot access memory at address 0x1000000000" in out
    assert 'received: "OK"' in out and 'received: "1"' in out and 'received: "E22"' in out
    assert "= 0x55667788" in out


# str x1, [x0]; ldr x2, [x0]; add x1, x1, #1; b .-12
LOOP = ["set $pc = 0x40100000", "set {int}0x40100000 = 0xf9000001", "set {int}0x40100004 = 0xf9400002",
        "set {int}0x40100008 = 0x91000421", "set {int}0x4010000c = 0x17fffffd", "set $x0 = 0x40200000",
        "set {long}0x40200000 = 41", "set $x1 = 42"]


@pytest.mark.parametrize("accel", ["tcg", "interp"])
def test_watchpoints(machine, accel):
    m = machine(*HEAD, "-S", "-accel", accel)
    out = m.gdb(*LOOP, "watch *(long *)0x40200000", "c", "c", "delete", "rwatch *(long *)0x40200000", "c", "p/x $pc",
                "delete", "awatch *(int *)0x40200004", "c", "p/x $pc", "delete", "watch *(char *)0x40200008",
                "tbreak *0x40100008 if $x1 == 1000", "c", "p $x1")
    assert "Old value = 41\nNew value = 42" in out and "Old value = 42\nNew value = 43" in out
    assert "Hardware read watchpoint 2: *(long *)0x40200000\n\nValue = 43\n0x0000000040100008" in out, out
    assert re.search(r"^\$1 = 0x40100008$", out, re.M), out
    assert "Hardware access (read/write) watchpoint 3: *(int *)0x40200004\n\nValue = 0\n0x0000000040100004" in out, out
    assert re.search(r"^\$3 = 1000$", out, re.M), out


@pytest.mark.parametrize("accel", ["tcg", "interp"])
def test_breakpoints_are_not_in_memory(machine, accel):
    """The guest reads its own code while there is a breakpoint on it; and two thousand others."""
    m = machine(*HEAD, "-S", "-accel", accel)
    # ldr w2, [x0]; nop; nop; b .-12
    code = ["set $pc = 0x40100000", "set {int}0x40100000 = 0xb9400002", "set {int}0x40100004 = 0xd503201f",
            "set {int}0x40100008 = 0xd503201f", "set {int}0x4010000c = 0x17fffffd", "set $x0 = 0x40100004"]
    many = "python for i in range(2000): gdb.execute('hbreak *%d' % (0x40300000 + 4 * i), to_string=True)"
    out = m.gdb(*code, many, "hbreak *0x40100004", "b *0x40100008", "c", "c", "c", "p/x $x2", "info registers pc")
    assert "0xd503201f" in out
    assert re.search(r"^pc +0x40100004", out, re.M), out


@pytest.mark.parametrize("accel", ["tcg", "interp"])
def test_points_in_what_ran_before(machine, accel):
    """Break- and watchpoints in a loop that the engine has run a million times; and their end."""
    m = machine(*HEAD, "-S", "-accel", accel)
    # The loop is in two pages: str x1, [x0]; bl next page | ldr x2, [x0]; ret | add x1, x1, #1; b .-12
    code = {0x40100ff0: 0xf9000001, 0x40100ff4: 0x94000003, 0x40101000: 0xf9400002, 0x40101004: 0xd65f03c0,
            0x40100ff8: 0x91000421, 0x40100ffc: 0x17fffffd}
    m.gdb(*(f"set {{int}}{at:#x} = {word:#x}" for at, word in code.items()), "set $x0 = 0x40200000", "set $x1 = 0",
          "set {long}0x40200000 = -1", "set $pc = 0x40100ff0", "detach")
    time.sleep(0.3)
    out = m.gdb("p $x1 > 10000", "watch *(long *)0x40200000", "c", "c", "p $x1 - *(long *)0x40200000", "delete",
                "hbreak *0x40100ff8", "c", "set $a = $x1", "c", "p $x1 - $a", "p/x $pc", "delete", "hbreak *0x40101004", "c",
                "p/x $pc", "c", "p $x1 - $a", "hbreak *0x40100ff4", "c", "p/x $pc", "c", "p/x $pc", "delete", "detach")
    assert re.findall(r"^\$\d+ = (.*)", out, re.M) == ["1", "0", "1", "0x40100ff8", "0x40101004", "3", "0x40100ff4",
                                                     "0x40101004"], out
    assert out.count("Old value") == 2
    before = int(re.search(r"= (\d+)", m.gdb("p $x1", "detach")).group(1))
    time.sleep(0.3)
    out = m.gdb(f"p $x1 - {before}", "hbreak *0x40300000", "hbreak *0x40101100", "detach")
    assert int(re.search(r"= (\d+)", out).group(1)) > 10000, out


def test_breakpoints_leave_the_guest_its_speed(tmp_path):
    """With breakpoints that are not met, one in the very page of what runs most, the translator runs all."""
    with Guest([*board(smp=2), "-gdb", f"unix:{tmp_path}/gdb", "-monitor", f"unix:{tmp_path}/mon,server,nowait"]) as g:
        g.shell()
        m = Monitor(f"{tmp_path}/mon")
        g.cmd("(dd if=/dev/zero of=/dev/null bs=1 &)")  # two system calls a byte

        def counters():
            text = m.cmd("info jit")
            return (sum(int(n) for n in re.findall(r"vCPU \d: (\d+) instructions", text)),
                    sum(float(t) for t in re.findall(r"([\d.]+) s in the interpreter", text)))
        unused_vector = int(m.cmd("p $VBAR_EL1"), 0)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(f"{tmp_path}/gdb")
            first = counters()
            for packet in [b"Z0,1000,4", b"Z1,%x,4" % unused_vector, b"c"]:
                s.sendall(b"+$" + packet + b"#%02x" % (sum(packet) & 255))
            time.sleep(1)
            assert m.cmd("info status") == "VM status: running\n"
            then = counters()
        assert then[0] - first[0] > 5_000_000 and then[1] - first[1] < 0.1, (first, then)
        assert g.cmd("echo $((6 * 7))") == "42"


def test_range_stepping_and_sstep(machine):
    m = machine(*HEAD, "-S")
    out = m.gdb(*LOOP, "maint packet qqemu.sstepbits", "maint packet Qqemu.sstep=0x5", "maint packet qqemu.sstep",
                "maint packet vCont;r40100000,4010000c:1", "info registers pc", "flushregs", "info registers pc x1")
    assert "ENABLE=1,NOIRQ=2,NOTIMER=4" in out and '"0x5"' in out
    assert re.search(r"^pc +0x4010000c", out, re.M), out
    assert re.search(r"^x1 +0x2b", out, re.M), out


def test_threads_detach_attach(booted):
    out = booted.gdb("info threads", "thread 2", "p/x $MPIDR_EL1", "thread 1", "p/x $MPIDR_EL1", "detach")
    assert re.search(r"1 +Thread 1 \(CPU#0 \[running\]\)", out) and re.search(r"2 +Thread 2 \(CPU#1 \[running\]\)", out)
    assert re.search(r"^\$1 = 0x80000001$", out, re.M) and re.search(r"^\$2 = 0x80000000$", out, re.M)
    out = booted.gdb("monitor info status", "monitor info registers", "monitor bogus", "detach")
    assert "VM status: paused (debug)" in out and "CPU#0\n PC=" in out and "unknown command: 'bogus'" in out
    out = booted.gdb("monitor info cpus", "detach")
    assert out.count("CPU #") == 2


def test_break_by_address_in_the_running_kernel(booted):
    """The interrupt vector of EL1 is taken by every timer tick; stepping does not fall into it."""
    out = booted.gdb("p/x $VBAR_EL1", "hbreak *($VBAR_EL1 + 0x280)", "c", "p $pc - $VBAR_EL1", "p/x $ELR_EL1",
                     "delete", "si 50", "p $pc > $VBAR_EL1 + 0x800 || $pc < $VBAR_EL1", "detach")
    assert "hit Breakpoint 1" in out
    assert re.search(r"^\$2 = .*(640|0x280)$", out, re.M), out


def test_steps_take_no_interrupt(booted):
    """200 steps from code that can be interrupted: with NOIRQ never the vector."""
    out = booted.gdb("hbreak *($VBAR_EL1 + 0x280)", "c", "set $back = $ELR_EL1", "delete", "tbreak *$back", "c",
                     "python hits = 0",
                     "python\nfor i in range(200):\n  gdb.execute('si', to_string=True)\n"
                     "  off = int(gdb.parse_and_eval('(long)$pc - (long)$VBAR_EL1'))\n  hits += 0 <= off < 0x800\n"
                     "print('vectors', hits)\nend", "detach")
    assert "vectors 0" in out, out


def test_interrupt_by_signal(booted):
    gdb = pexpect.spawn("gdb-multiarch", ["-nx", "-q", "-ex", "set pagination off", "-ex", f"target remote {booted.path('gdb')}"],
                        timeout=BOOT_SECONDS, encoding="utf-8", echo=False)
    try:
        gdb.expect(r"\(gdb\) ")
        gdb.sendline("continue")
        gdb.expect("Continuing")
        time.sleep(0.2)
        gdb.sendintr()
        gdb.expect("SIGINT")
        gdb.sendline("monitor info status")
        gdb.expect(r"VM status: paused \(debug\)")
        gdb.sendline("detach")
        gdb.expect("detached")
    finally:
        gdb.close(force=True)
    monitor = Monitor(booted.path("mon"))
    assert monitor.cmd("info status") == "VM status: running\n"


def gdb_batch(*commands):
    return subprocess.run(["gdb-multiarch", "-nx", "-batch", *(x for c in commands for x in ("-ex", c))], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BOOT_SECONDS).stdout


def test_tcp_and_pipe():
    """-gdb tcp::N as the article has it, host names too, one client after the other; and gdb's own pipe to -gdb stdio."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    for where in (f"tcp::{port}", f"tcp:localhost:{port}"):
        p = subprocess.Popen([ARMLET, *HEAD, "-S", "-gdb", where], stdin=subprocess.DEVNULL)
        try:
            for _ in range(2):
                limit = time.time() + BOOT_SECONDS
                while "in ?? ()" not in (out := gdb_batch(f"target remote localhost:{port}", "p/x $pc", "detach")):
                    assert time.time() < limit and p.poll() is None, out
                assert re.search(r"^\$1 = 0x", out, re.M) and "detached" in out, out
        finally:
            p.kill()
            p.wait()
    out = gdb_batch(f"target remote | {ARMLET} {' '.join(HEAD)} -S -gdb stdio", "p/x $pc", "set {int}$pc = 0xd503201f", "stepi", "p/x $pc", "kill")
    assert re.search(r"^\$1 = 0x40000000$", out, re.M) and re.search(r"^\$2 = 0x40000004$", out, re.M), out


def test_wrong_gdb_option(tmp_path):
    from guest import run
    r = run("-gdb", "nonsense")
    assert r.returncode == 1 and "-gdb nonsense: unknown kind" in r.stderr
