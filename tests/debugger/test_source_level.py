"""Sessions by source lines: a kernel of `armlet kernel build' with KASLR, its vmlinux, its modules.  The build takes minutes when
the cache has none; the tests of NFS use the same one."""
import os
import re
import subprocess

import pytest
from guest import Guest, board
from test_kernel import Monitor
from test_lldb import lldb
from test_nfs import article_kernel


@pytest.fixture(scope="module")
def built():
    """The folder with Image, vmlinux and modules/."""
    return os.path.dirname(article_kernel())


def arguments(built, smp=2):
    args = board(append="console=ttyAMA0", smp=smp)  # the initramfs has a shell, whatever the kernel
    args[args.index("-kernel") + 1] = f"{built}/Image"
    return [*args, "-kernel-symbols", f"{built}/vmlinux"]


def test_session(built, machine):
    """From the first instruction to the shell, and once more attached."""
    m = machine(*arguments(built), "-S")
    out = m.gdb("break start_kernel", "c", "bt", "info threads", "echo =2=\\n", "hbreak rest_init", "c", "bt", "echo =3=\\n", "delete",
                "watch jiffies_64", "c", "finish", "echo =4=\\n", "delete", "tbreak vfs_read", "c", "bt",
                "p file->f_path.dentry->d_iname", "finish", "echo =5=\\n", "p/x $SCTLR_EL1 & 1", "p $CurrentEL",
                "p (long)$TPIDR_EL1 == __per_cpu_offset[$_thread - 1]",
                "p ((struct rq *)((long)&runqueues + __per_cpu_offset[1]))->cpu",
                "p init_task.comm", 'set var init_task.comm = "renamed"', "p (char *)init_task.comm", "set $VBAR_EL1 = $VBAR_EL1",
                "monitor info kernel", "detach", file=f"{built}/vmlinux")
    begin, hard, watch, call, rest = re.split(r"^=\d=$", out, flags=re.M)
    assert re.search(r"hit Breakpoint 1, start_kernel \(\) at .*/init/main\.c:\d+\n\d+\t", begin), out
    assert re.search(r"^#1 .* in __primary_switched \(\) at .*head\.S:\d+$", begin, re.M), out
    assert re.search(r"^\* 1 +Thread 1 \(CPU#0 \[running\]\) +start_kernel \(\) at", begin, re.M), out
    assert re.search(r"^  2 +Thread 2 \(CPU#1 \[off\]\)", begin, re.M), out
    assert re.search(r"^#0 +rest_init \(\) at .*main\.c:\d+\n#1 .* arch_call_rest_init \(\).*\n#2 .* start_kernel \(\)", hard, re.M), out
    old, new = re.search(r"watchpoint 3: jiffies_64\n\nOld value = (\d+)\nNew value = (\d+)\n\S+ .* at .*/kernel/time/", watch).groups()
    assert int(new) > int(old)
    assert re.search(r"^Run till exit|^tick_\w+ ", watch, re.M), out
    assert re.search(r"^#1 +0x[0-9a-f]+ in ksys_read \(fd=.*read_write\.c:\d+$", call, re.M), out
    assert re.search(r"^\$\d+ = \"\w+", call, re.M) and re.search(r"Value returned is \$\d+ = \d+", call), out
    values = re.findall(r"^\$\d+ = (.*)$", rest, re.M)
    assert values[:4] == ["0x1", "4", "1", "1"] and '"swapper/0' in values[4] and '"renamed"' in values[5], out
    assert re.search(r"moved by 0x[0-9a-f]+ \(KASLR\)", rest), out
    m.shell()
    out = m.gdb("info threads", "p jiffies_64 > 4294937296", "bt", "detach", file=f"{built}/vmlinux")
    assert re.search(r"^\* 1 +Thread 1 \(CPU#0 \[running\]\) +\w+ .*\.c:\d+$", out, re.M) and "$1 = 1" in out, out


STEPS = """
import gdb
def go(command, n):
    seen = []
    for i in range(n):
        gdb.execute(command, to_string=True)
        frame = gdb.selected_frame()
        seen.append((frame.name(), frame.find_sal().line))
    return seen
print('seen', go('next', 70))
print('inner', go('step', 12))
"""


def test_steps_by_lines(built, machine, tmp_path):
    """Seventy lines of start_kernel, over all that they call; then into it; never into an interrupt."""
    script = tmp_path / "steps.py"
    script.write_text(STEPS)
    m = machine(*arguments(built), "-S")
    out = m.gdb("tbreak start_kernel", "c", f"source {script}", "bt", "detach", file=f"{built}/vmlinux")
    seen = eval(re.search(r"^seen (.*)$", out, re.M).group(1))
    assert {name for name, _ in seen} == {"start_kernel"} and len({line for _, line in seen}) > 50, out
    inner = eval(re.search(r"^inner (.*)$", out, re.M).group(1))
    assert not [n for n, _ in inner if re.match(r"el1h?_|gic_|handle_|vectors|arch_timer_handler", str(n))], out
    assert re.search(r"in start_kernel \(\)|^#0 +start_kernel", out, re.M), out


def test_lldb_session(built, machine):
    m = machine(*arguments(built), "-S")
    out = lldb(m, "breakpoint set -n start_kernel", "c", "bt", "next", "next", "breakpoint set -n setup_arch", "c", "finish",
               "breakpoint set -n vfs_read", "c", "bt", "p file->f_path.dentry->d_iname", "finish", "breakpoint delete",
               "watchpoint set variable jiffies_64", "c", "thread list", "register read SCTLR_EL1",
               "memory write -s 1 `&init_task.comm[0]` 0x53", "p init_task.comm", "detach", file=f"{built}/vmlinux")
    assert re.search(r"stop reason = breakpoint 1\.1\n.*start_kernel at main\.c:\d+", out), out
    assert re.search(r"frame #1: 0x[0-9a-f]+ vmlinux`__primary_switched at head\.S:\d+", out), out
    assert len(re.findall(r"stop reason = step over\n.*start_kernel at main\.c:\d+", out)) == 2, out
    assert re.search(r"stop reason = step out\n.*start_kernel at main\.c:\d+", out), out
    assert re.search(r"frame #1: 0x[0-9a-f]+ vmlinux`ksys_read.* at read_write\.c:\d+", out), out
    assert re.search(r"stop reason = watchpoint 1", out) and re.search(r"SCTLR_EL1 = 0x", out), out
    assert '"Swapper/0' in out and "Process 1 detached" in out, out
    m.shell()


def test_kernel_without_btf(built, machine):
    """Its structures are those of the vmlinux."""
    m = machine(*arguments(built)).shell()
    monitor = Monitor(m.path("mon"))
    ps = monitor.cmd("ps")
    assert re.search(r"^ +1 +0 +0 +\w\*? +\d +\d+ +(init|busybox)$", ps, re.M) and "[kthreadd]" in ps, ps
    assert "Linux version 6.1" in monitor.cmd("dmesg") and re.search(r"^\w+ on / type rootfs", monitor.cmd("mounts"), re.M)
    assert re.search(r"^#\d+ +0x[0-9a-f]{16} do_sigtimedwait\+0x[0-9a-f]+/0x[0-9a-f]+ \(.*/kernel/signal\.c:\d+\)$|"
                     r"^#\d+ +0x[0-9a-f]{16} \w+\+0x[0-9a-f]+/0x[0-9a-f]+ \(.*/kernel/\w+\.c:\d+\)$", monitor.cmd("bt 1"), re.M)


def with_lkdtm(built, folder):
    """The machine with an archive that has the module behind the initramfs."""
    args = arguments(built, smp=1)
    at = args.index("-initrd") + 1
    more = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=b"lkdtm.ko\n", cwd=f"{built}/modules", check=True,
                          stdout=subprocess.PIPE).stdout
    with open(args[at], "rb") as f:
        first = f.read()
    (folder / "initrd").write_bytes(first + bytes(-len(first) % 512) + more)
    args[at] = str(folder / "initrd")
    return args


def test_oops_of_a_module(built, tmp_path):
    """LKDTM, planted in the running kernel: the report names the module's function, its source line, and the task."""
    with Guest([*with_lkdtm(built, tmp_path), "-panic-report", "-monitor", f"unix:{tmp_path}/mon,server,nowait"]) as g:
        g.shell()
        g.cmd("mount -t debugfs none /sys/kernel/debug; insmod /lkdtm.ko")
        g.child.sendline("(echo EXCEPTION > /sys/kernel/debug/provoke-crash/DIRECT)")
        g.expect("report: Internal error: Oops")
        g.expect(r"el0t_64_sync\+[^\r\n]*")
        report = g.child.before.replace("\r", "")
        first = re.search(r"^  in lkdtm_EXCEPTION\+0x[0-9a-f]+/0x[0-9a-f]+ \[lkdtm\] \((.*)/drivers/misc/lkdtm/bugs\.c:(\d+)\), "
                          r"task sh, pid \d+, on CPU 0$", report, re.M)
        assert first, report
        with open(f"{first.group(1)}/drivers/misc/lkdtm/bugs.c") as f:
            assert "*((volatile int *) 0) = 0;" in f.read().splitlines()[int(first.group(2)) - 1]
        assert re.search(r"#\d+ .* direct_entry\+0x\w+/0x\w+ \[lkdtm\] \(.*/lkdtm/core\.c:\d+\)", report), report
        assert re.search(r"#\d+ .* vfs_write\+0x\w+/0x\w+ \(.*/fs/read_write\.c:\d+\)", report), report
        assert "FAR_EL1 0x0000000000000000" in report
        g.child.sendline("")
        assert "still here" in g.cmd("echo still here")
        m = Monitor(f"{tmp_path}/mon")
        assert re.search(rf"^add-symbol-file {re.escape(built)}/modules/lkdtm\.ko 0x[0-9a-f]+ -s ", m.cmd("modules -s"), re.M)
        assert "lkdtm" in m.cmd("modules")
