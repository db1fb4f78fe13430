"""-d exec, cpu and nochain: every block that runs is shown, whatever the engine keeps between blocks."""
import re
import struct
import subprocess

import pytest
from guest import ARMLET, Guest, board
from test_kernel import Monitor

CODE = 0x40200000
# mov x0, #3; loop: sub x0, x0, #1; cbnz x0, loop; bl next page; mov w0, #0x84000000; add x0, x0, #8 (SYSTEM_OFF); hvc #0
WORDS = [0xd2800060, 0xd1000400, 0xb5ffffe0, 0x940003fd, 0x52b08000, 0x91002000, 0xd4000002]
CALLED = [0x91000421, 0xd65f03c0]  # add x1, x1, #1; ret
BLOCKS = {"tcg": [0, 4, 4, 0xc, 0x1000, 0x10], "interp": [0, 4, 4, 0x1000, 0x10]}  # there a branch not taken ends none


@pytest.fixture
def program(tmp_path):
    """An ELF file that counts down, calls a function in the next page, and switches off."""
    code = b"".join(struct.pack("<I", w) for w in WORDS).ljust(0x1000, b"\0") + struct.pack("<II", *CALLED)
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 0xb7, 1, CODE, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0x1000, CODE, CODE, len(code), len(code), 0x1000)
    path = tmp_path / "program.elf"
    path.write_bytes((header + segment).ljust(0x1000, b"\0") + code)
    return path


def traced(program, *args):
    log = program.parent / "log"
    r = subprocess.run([ARMLET, "-M", "virt", "-cpu", "cortex-a57", "-m", "64", "-display", "none", "-kernel", str(program),
                        "-D", str(log), *args], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=120)
    assert r.returncode == 0, r.stderr
    return log.read_text()


def blocks(log):
    return [int(pc, 16) - CODE for pc in re.findall(r"^cpu 0: block at EL1 pc (0x402[0-9a-f]+)$", log, re.M)]


@pytest.mark.parametrize("accel", ["tcg", "interp"])
def test_each_block(program, accel):
    assert blocks(traced(program, "-accel", accel, "-d", "exec")) == BLOCKS[accel]
    assert blocks(traced(program, "-accel", accel, "-d", "exec,nochain,in_asm")) == BLOCKS[accel]
    log = traced(program, "-accel", accel, "-d", "exec", "-dfilter", f"{CODE + 4:#x}+4,{CODE + 0x1000:#x}-{CODE + 0x1fff:#x}")
    assert blocks(log) == [4, 4, 0x1000]
    assert traced(program, "-accel", accel, "-d", "nochain") == ""


@pytest.mark.parametrize("accel", ["tcg", "interp"])
def test_registers_of_each_block(program, accel):
    log = traced(program, "-accel", accel, "-d", "cpu,exec")
    states = re.findall(r"block at EL1 pc 0x402[0-9a-f]+\nCPU#0\n PC=([0-9a-f]{16}) X00=([0-9a-f]{16}) X01=([0-9a-f]{16})\n",
                        log)
    seen = [tuple(int(x, 16) for x in s) for s in states]
    assert [pc - CODE for pc, _, _ in seen] == BLOCKS[accel]
    assert [x0 for pc, x0, _ in seen if pc == CODE + 4] == [2, 1] and seen[-2][1:] == (0, 0) and seen[-1][1:] == (0, 1)
    assert len(re.findall(r"^PSTATE=[0-9a-f]{8} -Z-- EL1h$", log, re.M)) >= len(seen) and "Q00=" not in log
    log = traced(program, "-accel", accel, "-d", "cpu,fpu", "-dfilter", f"{CODE + 0x1000:#x}+4")
    assert log.count("PC=") == 1 and log.count("Q31=") == 1 and f"X30={CODE + 0x10:016x}" in log


def test_on_and_off_in_a_running_kernel(tmp_path):
    """By name, from code that is linked already; and the guest goes on afterwards."""
    log = tmp_path / "log"
    with Guest([*board("6.1", smp=2), "-D", str(log), "-monitor", f"unix:{tmp_path}/mon,server,nowait"]) as g:
        g.shell()
        monitor = Monitor(f"{tmp_path}/mon")
        before = len(log.read_text()) if log.exists() else 0
        monitor.cmd("log exec")
        g.cmd("uname", timeout=300)
        monitor.cmd("log none")
        assert g.cmd("echo $((6 * 7)) on") == "42 on"
        monitor.cmd("logfile")
    text = log.read_text()[before:]
    names = set(re.findall(r"^cpu [01]: block at EL1 pc 0xffff[0-9a-f]+ <(\w+)[+>]", text, re.M))
    assert {"__do_sys_newuname", "el0_svc", "do_el0_svc", "invoke_syscall"} <= names, sorted(names)[:50]
    assert re.search(r"^cpu [01]: block at EL0 pc 0x[0-9a-f]+$", text, re.M)
