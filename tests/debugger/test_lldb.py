"""lldb on the same stub: the article's session as lldb has it, and the kernel by name."""
import re
import subprocess

from guest import BOOT_SECONDS, board


def lldb(machine, *commands, file=None, seconds=BOOT_SECONDS):
    args = ["lldb-14", "--no-lldbinit", "-b", *([str(file)] if file else []), "-o", "settings set auto-confirm true", "-o",
            f"process connect --plugin gdb-remote unix-connect://{machine.path('gdb')}"]
    for c in commands:
        args += ["-o", c]
    return subprocess.run(args, timeout=seconds, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True).stdout


def test_session(machine):
    m = machine(*board(append="console=ttyAMA0", smp=2), "-S")
    out = lldb(m, "register read pc cpsr", "thread list", "si", "si", "breakpoint set -a 0x4000000c", "c", "register read pc",
               "memory read -s4 -fx -c2 0x40000000", "register write x7 0x1234", "register read x7", "memory write 0x40100000 0x5a",
               "memory read -s1 -fx -c1 0x40100000", "process plugin packet monitor info status", "detach")
    assert "pc = 0x0000000040000000" in out and "cpsr = 0x400003c5" in out
    assert re.search(r"thread #1: tid = (0x0*)?1\b", out) and re.search(r"thread #2: tid = (0x0*)?2\b", out), out
    assert "->  0x40000004: mov    x1, xzr" in out and "->  0x40000008: mov    x2, xzr" in out
    assert "stop reason = breakpoint 1.1" in out and "pc = 0x000000004000000c" in out
    assert "0x40000000: 0x580000c0 0xaa1f03e1" in out and "x7 = 0x0000000000001234" in out and "0x40100000: 0x5a" in out
    assert "VM status: paused (debug)" in out and "Process 1 detached" in out
    m.wait_for(lambda: "Linux version" in m.output())


def test_watchpoint(machine):
    m = machine("-machine", "virt", "-display", "none", "-S")
    # str x1, [x0]; add x1, x1, #1; b .-8
    out = lldb(m, *(f"memory write -s4 {0x40100000 + 4 * i:#x} {w}" for i, w in enumerate(["0xf9000001", "0x91000421",
                                                                                         "0x17fffffe"])),
               "register write x0 0x40200000", "register write x1 42", "register write pc 0x40100000",
               "watchpoint set expression -w write -s 8 -- 0x40200000", "c", "memory read -s8 -fx -c1 0x40200000", "detach")
    assert "stop reason = watchpoint 1" in out and "0x40200000: 0x000000000000002a" in out, out


def test_kernel_by_name(machine, tmp_path):
    symbols = tmp_path / "symbols"
    m = machine(*board(append="console=ttyAMA0", smp=1), "-S")
    m.gdb(f"monitor symbol-file -l {symbols}")
    m.end()
    m = machine(*board(append="console=ttyAMA0", smp=1), "-S")
    out = lldb(m, "breakpoint set -n start_kernel", "c", "bt", "detach", file=symbols)
    assert re.search(r"stop reason = breakpoint 1\.1", out) and "`start_kernel" in out, out
