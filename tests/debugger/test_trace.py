"""-d exec, cpu and nochain: every block that runs is shown, whatever the engine keeps between blocks."""
import re
import shlex
import struct
import subprocess
import time

import pytest
from guest import ARMLET, Guest, board
from test_9p import nine_board
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


PROGRAM = """
    .globl _start
_start:
    adr x9, vectors
    msr vbar_el1, x9
    isb
    mrs x1, midr_el1
    msr tpidr_el0, x1
    tlbi vmalle1
    mov w0, #0x99
    movk w0, #0x8400, lsl #16
    hvc #0                      // no such function
    movz x3, #0x900, lsl #16
    ldr w4, [x3, #0x18]         // the UART's flags
    str w4, [x3, #0x100]        // no register
    movz x5, #0x800, lsl #16
    mov w6, #1
    str w6, [x5]                // the GIC on, the timer's interrupt too
    mov w7, #1 << 27
    str w7, [x5, #0x100]
    movz x5, #0x801, lsl #16
    str w6, [x5]
    mov w8, #0xf0
    str w8, [x5, #4]
    msr cntv_tval_el0, xzr
    msr cntv_ctl_el0, x6
    wfi                         // which ends at once: interrupts are masked but pending
    mrs x2, s3_7_c15_c15_7      // UNDEFINED
    .balign 2048
vectors:
    .space 512
    mov w0, #0x8
    movk w0, #0x8400, lsl #16
    hvc #0
"""
EVENTS = {
    "boot": r"kernel at 0x40[0-9a-f]+, \d+ bytes, starts at 0x40200000\ndevice tree at 0x4[0-9a-f]+, ", "cpu_reset": r"CPU#0\n PC=[0-9a-f]{16} X00=", "in_asm": r"40200000:.*adr",
    "exec": r"block at EL1 pc 0x40200000", "cpu": r"PC=0000000040200000", "fpu,cpu": r"Q31=",
    "sysreg": r"MIDR_EL1 -> 0x411fd070\n(.*\n)*.*TPIDR_EL0 <- 0x411fd070", "mmu": r"cpu0 tlbi kind=0",
    "pcall": r"firmware call 0x84000099 .*= -1\n(.*\n)*.*firmware call 0x84000008", "unimp":
    r"firmware function 0x84000099 is not supported\n(.*\n)*.*S3_7_C15_C15_7 at EL1 is UNDEFINED", "mmio":
    r"pl011 read4 0x18 -> 0x[0-9a-f]+\n", "guest_errors": r"pl011: .*offset 0x100", "timer": r"virtual timer .* at 0x", "irq":
    r"INTID 27 of cpu 0: input 1\n(.*\n)*.*gic: cpu 0 irq 1", "int": r"exception EC 0(x0)? .*from EL1 pc 0x402000[0-9a-f]{2} ",
    "op": r"get_x|set_x", "op_opt": r"get_x|set_x", "out_asm": r"mov", "nochain": r"",
}


def test_items_of_devices(tmp_path):
    """The rest of -d help: what only a kernel with devices does, and who talks to us meanwhile."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    (tmp_path / "shared").mkdir()
    log = tmp_path / "log"
    args = [*nine_board(), "-drive", f"file={tmp_path}/disk,format=raw,if=virtio", "-netdev", "user,id=n", "-device",
            "virtio-net-pci,netdev=n", "-virtfs", f"local,path={tmp_path}/shared,mount_tag=s,security_model=none", "-d",
            "page,virtio,block,net,9p,gdb,monitor", "-D", str(log), "-gdb", f"unix:{tmp_path}/gdb", "-monitor",
            f"unix:{tmp_path}/mon,server,nowait"]
    with Guest(args) as g:
        g.shell()
        g.cmd("dd if=/dev/vda of=/dev/null bs=4k count=1; ip link set eth0 up; arping -c 1 -w 5 -I eth0 10.0.2.2; "
              "mkdir -p /mnt; mount -t 9p -o trans=virtio s /mnt; ls /mnt", timeout=120)
        Monitor(f"{tmp_path}/mon").cmd("info name")
        subprocess.run(["gdb-multiarch", "-nx", "-batch", "-ex", f"target remote {tmp_path}/gdb", "-ex", "detach"], timeout=120,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)
        g.send("\x01x")
        assert g.wait() == 0
    text = log.read_text()
    for event in [r"now at 0x", r"virtio-blk.*: status 0x3", r"virtio-blk.*: type 0 sector \d+: ok",
                  r"from the guest: \d+ bytes of kind 0x(806|86dd)", r"tag \d+: \w+: ok", r"^< qSupported", r"^info name"]:
        assert re.search(event, text, re.M), (event, text[-3000:])


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare")
    (folder / "p.s").write_text(PROGRAM)
    subprocess.run(["aarch64-linux-gnu-gcc", "-nostdlib", "-static", f"-Wl,-Ttext={CODE:#x}", "-Wl,--build-id=none", "-o",
                    str(folder / "p.elf"), str(folder / "p.s")], check=True)
    return folder / "p.elf"


@pytest.mark.parametrize("accel", ["tcg", "interp"])
@pytest.mark.parametrize("item", list(EVENTS))
def test_each_item(bare, item, accel):
    """What -d shows of a program that does what there is to show; and by that name alone."""
    log = traced(bare, "-accel", accel, "-d", item)
    if accel == "tcg" or item not in ("in_asm", "op", "op_opt", "out_asm"):
        assert re.search(EVENTS[item], log), log[:3000]
    if item == "nochain":
        assert log == ""


MODULE_AREA = "0xffff800000000000-0xffff800007ffffff"  # of Linux 6.1 without KASLR


def test_modules_functions_have_names(tmp_path):
    """What runs in a module that the kernel has loaded is named by the module's own symbols."""
    command = subprocess.run([ARMLET, "boot", "--kernel", "6.1", "--root", "none", "--share", tmp_path, "--show"], check=True,
                             stdout=subprocess.PIPE, text=True, timeout=300).stdout
    words = [ARMLET, *shlex.split(command)[1:]]
    words[words.index("-append") + 1] += " nokaslr"
    log = tmp_path / "log"
    with subprocess.Popen([*words, "-d", "exec", "-dfilter", MODULE_AREA, "-D", log], stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL) as p:
        end, text = time.monotonic() + 240, ""
        while not re.search(r"<p9_\w+\+0x[0-9a-f]+ \[9pnet\]>", text) and p.poll() is None and time.monotonic() < end:
            time.sleep(0.5)
            text = log.read_text() if log.exists() else ""
        p.kill()
    lines = re.findall(r"^cpu \d: block at EL1 pc 0xffff80000[0-7].*", text, re.M)
    assert re.search(r"<p9_\w+\+0x[0-9a-f]+ \[9pnet\]>", text), text[-3000:]
    assert sum("[" in line for line in lines) > 0.9 * len(lines)
