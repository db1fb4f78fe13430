"""gdb on Debian's stock kernels, which have no vmlinux: symbols from the running image, with KASLR on, from reset on."""
import re
import subprocess

import pytest
from conftest import Machine
from guest import BOOT_SECONDS, board


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """6.12 at its shell, with KASLR; its symbols are in .symbols."""
    folder = tmp_path_factory.mktemp("running")
    m = Machine(folder, board("6.12", append="console=ttyAMA0", smp=2)).shell()
    m.symbols = folder / "symbols"
    m.gdb(f"monitor symbol-file {m.symbols}", "detach")
    yield m
    m.end()


def start(machine, series, *args):
    return machine(*board(series, append="console=ttyAMA0", smp=2), *args)


@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_symbols_at_reset(machine, tmp_path, series):
    """Breakpoints by name, set before the first instruction: with the MMU off, and where KASLR will have put them."""
    symbols = tmp_path / "symbols"
    m = start(machine, series, "-S")
    out = m.gdb("info registers pc", f"monitor symbol-file {symbols}", f"symbol-file {symbols}", "break start_kernel",
                "break primary_entry", "c", "info registers pc", "si", "p $pc == $pc", "c", "bt", "p/x $pc", "p/x $x29",
                "monitor info kernel", "delete", "tbreak schedule", "c", "bt 3", "detach")
    assert re.search(r"^pc +0x40000000 ", out, re.M), out
    assert "hit Breakpoint 2, 0xffff" in out and "in primary_entry ()" in out, out
    assert re.search(r"^pc +(0xffff[0-9a-f]{12}) +\1 <primary_entry>", out, re.M), out
    assert re.search(r"hit Breakpoint 1, 0xffff[0-9a-f]+ in start_kernel \(\)", out), out
    assert re.search(r"^#1 .* in __primary_switched \(\)", out, re.M), out
    assert "hit Temporary breakpoint 3" in out or "in schedule ()" in out, out
    m.wait_for(lambda: "SMP: Total of 2" in m.output())  # it goes on
    # The same file in the next session, of a machine that has another KASLR offset; and before that starts.
    m.end()
    again = start(machine, series, "-S")
    out = again.gdb("break start_kernel", "c", "bt", "monitor info kernel", "detach", file=symbols)
    assert re.search(r"hit Breakpoint 1, 0xffff[0-9a-f]+ in start_kernel \(\)", out), out


def test_attach_to_what_runs(running):
    out = running.gdb("break vfs_read", "p (long)&init_task > 0",
                "x/s (char *)&linux_banner", "bt", "watch *(long *)&jiffies_64", "c", "delete", "detach", file=running.symbols)
    assert "Linux version 6.12" in out, out
    old, new = re.search(r"Old value = (\d+)\nNew value = (\d+)", out).groups()
    assert int(new) > int(old)  # by more than 1 when no CPU was awake for it
    assert re.search(r"in (do_timer|tick_do_update_jiffies64|jiffies_\w+|update_\w+)", out), out
    # Reading the kernel's memory does not depend on where the vCPU stopped.
    assert "Cannot access memory" not in out


def test_backtrace_through_an_interrupt(machine, tmp_path):
    """The frames of the handler, then of what it interrupted, by unwind information made from the code."""
    symbols = tmp_path / "symbols"
    m = start(machine, "6.1")
    m.shell()
    m.gdb(f"monitor symbol-file {symbols}", "detach")
    out = m.gdb("tbreak tick_sched_timer", "c", "bt 40", "finish", "detach", file=symbols)
    names = re.findall(r"^#\d+ .* in (\w+) \(\)", out, re.M)
    handler = ["tick_sched_timer", "__hrtimer_run_queues", "hrtimer_interrupt", "arch_timer_handler_virt"]
    assert names[:4] == handler and "el1h_64_irq" in names and names[-1] in ("arch_call_rest_init", "__secondary_switched",
                                                                            "start_kernel"), out
    assert {"do_idle", "cpu_startup_entry"} <= set(names) and "in __hrtimer_run_queues ()" in out.split("Run till")[-1]


def test_symbol_file_says_what_is_wrong(machine, tmp_path):
    m = machine("-machine", "virt", "-display", "none", "-S")
    out = m.gdb("monitor symbol-file", f"monitor symbol-file {tmp_path}/x", "maint packet qOffsets")
    assert "the name of the file to write is missing" in out and "there is no Linux kernel in memory" in out
    assert 'received: ""' in out
    k = start(machine, "6.1", "-S")
    assert "No such file" in k.gdb("monitor symbol-file /nonexistent/x")


def test_steps_through_start_kernel(machine, tmp_path):
    """Two hundred steps over calls in start_kernel and what it calls, none into the interrupt."""
    symbols = tmp_path / "symbols"
    m = start(machine, "6.1", "-S")
    script = tmp_path / "steps.py"
    script.write_text("""
import gdb
seen = set()
for i in range(200):
    gdb.execute('nexti', to_string=True)
    seen.add(gdb.selected_frame().name())
print('seen', sorted(str(s) for s in seen))
""")
    out = m.gdb(f"monitor symbol-file {symbols}", f"symbol-file {symbols}", "tbreak start_kernel", "c", f"source {script}",
                "detach")
    seen = re.search(r"seen (\[.*\])", out)
    assert seen and eval(seen.group(1)) == ["start_kernel"], out


def test_no_scout_is_left(machine):
    m = start(machine, "6.1", "-S")
    m.gdb("monitor info kernel", "detach")
    pid = m.process.pid
    children = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], stdout=subprocess.PIPE, text=True).stdout
    assert children.strip() == ""


def test_tasks_as_threads(running):
    out = running.gdb("info threads", "echo ---\\n", "monitor threads on", "info threads", "python import re",
                "python gdb.execute('thread ' + re.search(r'(\\d+) +Thread 1000001 ', gdb.execute('info threads', "
                "to_string=True)).group(1))", "bt", "p $x0", "set $x19 = 1", "p/x $sp", "monitor bt 1", "stepi", "thread",
                "monitor threads off", "info threads", "monitor threads", "detach", file=running.symbols)
    vcpus, rest = out.split("---\n", 1)
    assert vcpus.count("CPU#") == 2 and "Thread 1000001" not in vcpus
    assert re.search(r"Thread 1000002 \(\[kthreadd\], pid 2, S\) +0xffff[0-9a-f]+ in __switch_to \(\)", rest), out
    assert re.search(r"Thread 1 \(CPU#0 \[running\], swapper/0, pid 0\)", rest), out
    assert re.search(r"^#\d+ +0xffff[0-9a-f]+ in do_sigtimedwait \(\)", rest, re.M), out
    assert re.search(r"= <unavailable>$", rest, re.M) and "Could not write register" in rest, out
    last = rest[rest.index("info threads shows the vCPUs"):]
    assert "pid 2" not in last and "now off" in last, out
    assert running.process.poll() is None


def test_core_file(running, tmp_path):
    """dump-guest-memory: gdb shows registers, code and variables of the kernel by name."""
    running.gdb(f"monitor dump-guest-memory {tmp_path}/core", "detach")
    out = subprocess.run(["gdb-multiarch", "-nx", "-batch", "-ex", f"file {running.symbols}", "-ex", f"core-file {tmp_path}/core",
                          "-ex", "info threads", "-ex", "x/i $pc", "-ex", "x/s (char *)&linux_banner"], timeout=BOOT_SECONDS,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    assert out.count("LWP ") >= 4 and re.search(r"=> 0xffff[0-9a-f]+ <\w+", out) and "Linux version 6.12" in out, out


def test_a_vmlinux_is_moved_as_a_whole(machine, tmp_path):
    """A file with the three segments and the debug information of a vmlinux: code, init code, data and lines move alike."""
    source = tmp_path / "v.c"
    source.write_text("""
int counter = 7;
void text(void) { counter++; }
__attribute__((section(".init.text"))) void start_kernel(void)
{
    text();
}
""")
    base = 0xffff800008000000
    file = tmp_path / "vmlinux"
    script = tmp_path / "v.lds"
    script.write_text(f"SECTIONS {{ .text {base:#x} : {{ *(.text) }} .init.text {base + 0x5b0000:#x} : {{ *(.init.text) }} "
                      f".data {base + 0x605000:#x} : {{ *(.data) }} }}")
    subprocess.run(["aarch64-linux-gnu-gcc", "-g", "-O0", "-nostdlib", "-static", "-mcmodel=large", "-fno-pic", "-Wl,-e,text",
                    "-Wl,--build-id=none", f"-Wl,-T,{script}", "-o", str(file), str(source)], check=True)
    m = start(machine, "6.12", "-S")
    out = m.gdb("p/x (long)&text", "p/x (long)&start_kernel", "p/x (long)&counter", "info line start_kernel",
                "monitor info kernel", "detach", file=file)
    text, init, data = [int(x, 16) for x in re.findall(r"^\$\d = (0x[0-9a-f]+)", out, re.M)]
    where = int(re.search(r"kernel at (0x[0-9a-f]+)", out).group(1), 16)
    assert text == where and init - text == 0x5b0000 and data - text == 0x605000, out
    assert f"starts at address {init:#x} <start_kernel>" in out, out
