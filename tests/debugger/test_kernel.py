"""The guest's kernel understood: what the monitor says against what the guest itself says, on Debian's stock kernels."""
import os
import re
import socket
import struct
import subprocess
import time

import pytest
from guest import BOOT_SECONDS, Guest, board, images, run


class Monitor:
    """A line in, its output back."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        limit = time.time() + BOOT_SECONDS
        while True:
            try:
                self.s.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.time() < limit
                time.sleep(0.05)
        self.s.settimeout(BOOT_SECONDS)
        self._answer()

    def _answer(self):
        data = b""
        while not data.endswith(b"(armlet) "):
            part = self.s.recv(65536)
            assert part, data
            data += part
        return data.decode().replace("\r", "")

    def cmd(self, line):
        self.s.sendall(line.encode() + b"\n")
        return self._answer().split("\n", 1)[1].rsplit("(armlet) ", 1)[0]


@pytest.fixture(scope="module", params=["6.1", "6.12"])
def guest(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernel")
    args = board(request.param, append="console=ttyAMA0", smp=2)
    with Guest([*args, "-monitor", f"unix:{folder}/mon,server,nowait"]) as g:
        g.shell()
        g.monitor = Monitor(f"{folder}/mon")
        yield g


def test_ps(guest):
    ours = {}
    for line in guest.monitor.cmd("ps").splitlines()[1:]:
        pid, ppid, uid, state, cpu, vsz, name = line.split(None, 6)
        ours[int(pid)] = (name, int(ppid), int(uid), state.rstrip("*"), int(cpu), int(vsz))
    theirs = {}
    for line in guest.cmd("cat /proc/[0-9]*/stat 2>/dev/null").splitlines():
        pid, name, rest = re.match(r"(\d+) \((.*)\) (.*)", line).groups()
        rest = rest.split()
        theirs[int(pid)] = (name, int(rest[1]), rest[0], int(rest[20]) // 1024)
    kworkers = [p for p in {*ours, *theirs} if "kworker" in ours.get(p, theirs.get(p))[0]]  # they come and go
    assert {p for p in ours if p not in kworkers} == {p for p in theirs if p not in kworkers and theirs[p][0] != "cat"}
    assert len(ours) > 40 and ours[1][0] in ("init", "busybox") and ours[2][0] == "[kthreadd]"
    for pid in {*ours} & {*theirs}:
        name = ours[pid][0].strip("[]")
        assert theirs[pid][0].startswith(name) or name.startswith(theirs[pid][0])
        assert ours[pid][1] == theirs[pid][1] and ours[pid][5] == theirs[pid][3]
        if pid not in kworkers:
            # what ran then or now may be elsewhere a moment later
            assert ours[pid][3] == theirs[pid][2] or "R" in (ours[pid][3], theirs[pid][2]), pid
        assert ours[pid][2] == 0 and ours[pid][4] in (0, 1)


def test_ps_of_threads(guest):
    rows = guest.monitor.cmd("ps -t").splitlines()[1:]
    assert {r.split()[0] for r in guest.monitor.cmd("ps").splitlines()[1:]} <= {r.split()[0] for r in rows}


def test_dmesg(guest):
    theirs = [re.sub(r"^<\d+>", "", line).rstrip() for line in guest.cmd("dmesg").splitlines()]
    ours = [line.rstrip() for line in guest.monitor.cmd("dmesg").splitlines()]
    assert len(theirs) > 100 and theirs == ours[:len(theirs)] and len(ours) - len(theirs) < 3
    guest.cmd("printf 'a\\nb\\303\\244' > /dev/kmsg; echo '<3>end' > /dev/kmsg")
    ours = guest.monitor.cmd("dmesg").splitlines()
    assert ours[-1].endswith("] end") and ours[-2].endswith("] bä") and ours[-3].endswith("] a")


def test_modules(guest):
    rows = {}
    for line in guest.cmd("cat /proc/modules").splitlines():
        name, size, users, by = line.split()[:4]
        rows[name] = [size, users, sorted(x for x in by.split(",") if x not in ("-", ""))]
    ours = {}
    for line in guest.monitor.cmd("modules").splitlines()[1:]:
        f = line.split()
        ours[f[0]] = [f[1], f[2], sorted(f[3].split(",")) if len(f) > 3 else []]
    assert ours == rows and "virtio_blk" in ours
    assert [x for x in ours if x] == list(rows)  # in the same order
    at = guest.cmd("cat /sys/module/virtio_blk/sections/.text; cat /sys/module/virtio_blk/sections/.bss").split()
    line = next(x for x in guest.monitor.cmd("modules -s").splitlines() if "virtio_blk.ko" in x)
    assert line.startswith(f"add-symbol-file virtio_blk.ko {at[0]} ") and f"-s .bss {at[1]}" in line


def test_mounts(guest):
    guest.cmd("mkdir -p /tmp/a/b; mount -t tmpfs -o ro,noexec,nosuid thing /tmp/a/b")
    theirs = set()
    for line in guest.cmd("cat /proc/mounts").splitlines():
        device, path, kind, options = line.split()[:4]
        theirs.add((device, path, kind, options.split(",")[0]))
    ours = {}
    for line in guest.monitor.cmd("mounts").splitlines():
        device, path, kind, options = re.match(r"(\S+) on (\S+) type (\S+) \((.*)\)$", line).groups()
        ours[(device, path, kind, options.split(",")[0])] = options
    assert set(ours) == theirs
    assert ours[("thing", "/tmp/a/b", "tmpfs", "ro")].startswith("ro,nosuid,noexec")
    guest.cmd("umount /tmp/a/b")


def test_symbols(guest):
    theirs = {}
    for line in guest.cmd("grep -E ' (start_kernel|schedule|vfs_read|virtblk_probe|virtblk_init)( |\t|$)' /proc/kallsyms",
                          timeout=BOOT_SECONDS).splitlines():
        va, _, name = line.split()[:3]
        theirs[name] = int(va, 16)
    assert {"start_kernel", "schedule", "virtblk_probe"} <= set(theirs)
    for name, va in theirs.items():
        assert guest.monitor.cmd(f"sym {name}").split()[:2] == [f"0x{va:016x}", name]
        assert f" {name}+0x4/0x" in guest.monitor.cmd(f"sym {va + 4:x}")
    assert "[virtio_blk]" in guest.monitor.cmd("sym virtblk_probe")
    for wrong in ["nonsense", "0x0", "ffffffffffffffff", "0xffff000000000000", "12345678"]:
        assert "neither a symbol nor an address in one" in guest.monitor.cmd(f"sym {wrong}")
    assert "expected" in guest.monitor.cmd("sym")
    assert "unknown register" in guest.monitor.cmd("sym $x77")


def test_backtrace_of_a_sleeping_task(guest):
    pid = int(guest.cmd("sleep 1000 & echo $!").split()[-1])
    guest.cmd(f"until grep -q '^State:.S' /proc/{pid}/status; do sleep 0.1; done")
    theirs = [re.sub(r"^\[<0>\] ", "", x) for x in guest.cmd(f"cat /proc/{pid}/stack").splitlines()]
    out = guest.monitor.cmd(f"bt {pid}").splitlines()
    assert out[0].startswith(f"sleep, pid {pid}, sleeping on CPU ")
    ours = [x.split(None, 2)[2] for x in out[1:]]
    # The kernel leaves the scheduler's own functions out.
    assert [x for x in theirs if "+0x" in x] == [x for x in ours if x in theirs] and len(theirs) > 5
    assert ours[0].startswith("__switch_to+")
    guest.cmd(f"kill {pid}")
    assert "no task has the pid 99999" in guest.monitor.cmd("bt 99999")


def test_backtrace_of_what_runs(guest):
    pid = int(guest.cmd("(while :; do cat /proc/kallsyms > /dev/null; done) & echo $!").split()[-1])
    seen, limit = set(), time.time() + BOOT_SECONDS
    known = {"s_show", "seq_read", "seq_read_iter", "vfs_read", "ksys_read"}
    while not ({"el0_svc", "do_el0_svc"} <= seen and seen & known) and time.time() < limit:
        for cpu in (0, 1):
            guest.monitor.cmd(f"cpu {cpu}")
            seen |= {x.split()[2].split("+")[0] for x in guest.monitor.cmd("bt").splitlines()[1:]}
    guest.cmd(f"kill {pid}")
    assert {"el0_svc", "do_el0_svc"} <= seen and seen & known


def test_kaslr(guest):
    """Where the kernel says it is, against its own symbols."""
    text = guest.monitor.cmd("info kernel")
    assert "moved by 0x" in text and "(KASLR)" in text
    va = int(re.search(r"kernel at (0x[0-9a-f]+)", text).group(1), 16)
    offset = int(re.search(r"moved by (0x[0-9a-f]+)", text).group(1), 16)
    link = va - offset
    assert link in (0xffff800008000000, 0xffff800080000000)  # KIMAGE_VADDR of 6.1, and of 6.6 and later


def test_half_booted(tmp_path):
    """Each command at moments all over the boot: an answer, never a hang or an end; and it boots on."""
    args = board("6.1", smp=2)
    commands = ["ps", "ps -t", "dmesg", "modules", "modules -s", "mounts", "bt", "bt 1", "sym start_kernel", "info kernel"]
    with Guest([*args, "-S", "-monitor", f"unix:{tmp_path}/mon,server,nowait"]) as g:
        monitor = Monitor(f"{tmp_path}/mon")
        assert "it has not mapped itself yet" in monitor.cmd("info kernel")
        assert "just started" in monitor.cmd("ps") and "start_kernel" in monitor.cmd("sym start_kernel")
        monitor.cmd("cont")
        for _ in range(60):
            for c in commands:
                assert monitor.cmd(c).strip()
            time.sleep(0.02)
        g.shell()
        assert "init" in monitor.cmd("ps")


def test_corrupt_memory(tmp_path):
    """Random bytes in the kernel's data: commands answer, whatever it is."""
    with Guest([*board("6.12", smp=2), "-monitor", f"unix:{tmp_path}/mon,server,nowait", "-gdb",
                f"unix:{tmp_path}/gdb,server,nowait"]) as g:
        g.shell()
        monitor = Monitor(f"{tmp_path}/mon")
        monitor.cmd("stop")
        places = [int(monitor.cmd(f"sym {x}").split()[0], 16) for x in ("init_task", "modules", "prb", "swapper_pg_dir")]
        tasks = os.path.join(tmp_path, "gdb.py")
        with open(tasks, "w") as f:
            f.write(f"""
import random
random.seed(5)
inferior = gdb.selected_inferior()
for at in {places}:
    for n in range(8):
        for i in range(40):
            inferior.write_memory(at + 8 * random.randrange(512), bytes(random.randrange(256) for _ in range(random.choice([1, 8]))))
        for c in ("ps", "ps -t", "dmesg", "modules", "modules -s", "mounts", "bt", "bt 1", "sym vfs_read", "sym ffff800001234567"):
            assert gdb.execute("monitor " + c, to_string=True).strip(), c
print("survived")
""")
        out = subprocess.run(["gdb-multiarch", "-nx", "-batch", "-ex", f"target remote {tmp_path}/gdb", "-x", tasks],
                             timeout=2 * BOOT_SECONDS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
        assert "survived" in out, out
        assert g.child.isalive()


def loop_elf():
    """An ELF file for arm64 whose code branches to itself."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 0xb7, 1, 0x40200000, 64, 0, 0, 64, 56, 1,
                                                               64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0x1000, 0x40200000, 0x40200000, 0x1000, 0x1000, 0x1000)
    return (header + segment).ljust(0x1000, b"\0") + bytes.fromhex("00000014") * 1024


def test_not_linux(tmp_path):
    """A guest that is no kernel, and one with nothing in memory."""
    code = tmp_path / "loop.img"
    code.write_bytes(loop_elf())
    for args in [[], ["-kernel", str(code)]]:
        path = f"{tmp_path}/mon{len(args)}"
        p = subprocess.Popen([os.environ.get("ARMLET_BUILD", "build") + "/armlet", "-M", "virt", "-display", "none",
                              "-monitor", f"unix:{path},server,nowait", *args], stderr=subprocess.DEVNULL)
        monitor = Monitor(path)
        for c in ["ps", "dmesg", "modules", "mounts", "info kernel", "sym start_kernel"]:
            assert "kernel" in monitor.cmd(c), c
        assert monitor.cmd("bt")
        monitor.s.sendall(b"quit\n")
        assert p.wait(BOOT_SECONDS) == 0


def test_symbols_from_a_file(tmp_path):
    system_map = tmp_path / "System.map"
    system_map.write_text("ffff800080000000 T _text\nffff800080010000 T first\nffff800080020000 D second\n"
                          "ffff800080030000 T _end\n")
    code = tmp_path / "loop.img"
    code.write_bytes(loop_elf())
    p = subprocess.Popen([os.environ.get("ARMLET_BUILD", "build") + "/armlet", "-M", "virt", "-display", "none", "-kernel",
                          str(code), "-kernel-symbols", str(system_map), "-monitor", f"unix:{tmp_path}/mon,server,nowait"])
    monitor = Monitor(f"{tmp_path}/mon")
    assert monitor.cmd("sym second") == "0xffff800080020000 second\n"
    assert "first+0x10/0x10000" in monitor.cmd("sym 0xffff800080010010")
    monitor.s.sendall(b"quit\n")
    assert p.wait(BOOT_SECONDS) == 0


@pytest.mark.parametrize("content,complaint", [
    (None, "No such file"), (b"", "no symbols are in it"), (b"hello world\n", "neither an ELF file nor a System.map"),
    (b"\x7fELF" + bytes(60), "not an arm64 ELF file"), (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(44),
                                                      "truncated")])
def test_wrong_symbol_files(tmp_path, content, complaint):
    path = tmp_path / "vmlinux"
    if content is not None:
        path.write_bytes(content)
    kernel, _ = images("6.1")
    r = run("-M", "virt", "-kernel", kernel, "-kernel-symbols", str(path))
    assert r.returncode == 1 and complaint in r.stderr and len(r.stderr.splitlines()) == 1, r.stderr


def test_source_lines(tmp_path):
    source = tmp_path / "v.c"
    source.write_text("int counter;\nvoid _text(void)\n{\n    counter++;\n}\nint _end;\n")
    base = 0xffff800008000000
    file, script, code = tmp_path / "vmlinux", tmp_path / "v.lds", tmp_path / "loop.img"
    script.write_text(f"SECTIONS {{ .text {base:#x} : {{ *(.text) }} .data : {{ *(.data .bss) }} }}")
    subprocess.run(["aarch64-linux-gnu-gcc", "-g", "-O0", "-nostdlib", "-static", "-mcmodel=large", "-fno-pic", "-Wl,-e,_text",
                    f"-Wl,-T,{script}", "-o", str(file), str(source)], check=True)
    code.write_bytes(loop_elf())
    p = subprocess.Popen([os.environ.get("ARMLET_BUILD", "build") + "/armlet", "-M", "virt", "-display", "none", "-kernel",
                          str(code), "-kernel-symbols", str(file), "-monitor", f"unix:{tmp_path}/mon,server,nowait"])
    monitor = Monitor(f"{tmp_path}/mon")
    assert monitor.cmd("sym _text").split()[:2] == [f"{base:#x}", "_text"]
    assert re.search(r"_text\+0x4/0x[0-9a-f]+ \(.*/v\.c:4\)$", monitor.cmd(f"sym {base + 4:#x}").strip())
    monitor.s.sendall(b"quit\n")
    assert p.wait(BOOT_SECONDS) == 0
