"""The monitor on a terminal and on a socket, and QMP, as their clients use them."""
import json
import os
import re
import socket
import subprocess
import time

import pytest
from guest import ARMLET, BOOT_SECONDS, Guest, board, images, run

PROMPT = r"\(armlet\) "


class Monitor:
    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.connect(path)
        self.s.settimeout(BOOT_SECONDS)
        self.data = b""
        self.until(b"(armlet) ")

    def until(self, text):
        while text not in self.data:
            piece = self.s.recv(65536)
            assert piece, self.data
            self.data += piece
        before, self.data = self.data.split(text, 1)
        return before.decode(errors="replace").replace("\r", "")

    def cmd(self, line):
        return self.keys(line.encode() + b"\r")

    def keys(self, keys):
        """What follows the line that the keys make."""
        self.s.sendall(keys)
        self.until(b"\r\n")
        return self.until(b"(armlet) ")


class Qmp:
    def __init__(self, path, family=socket.AF_UNIX):
        self.s = socket.socket(family)
        self.s.connect(path)
        self.s.settimeout(BOOT_SECONDS)
        self.f = self.s.makefile("r")
        self.events = []
        self.greeting = json.loads(self.f.readline())

    def raw(self, text):
        self.s.sendall(text.encode())

    def read(self):
        while True:
            m = json.loads(self.f.readline())
            if "event" not in m:
                return m
            self.events.append(m)

    def cmd(self, name, **arguments):
        self.raw(json.dumps({"execute": name, **({"arguments": arguments} if arguments else {})}))
        return self.read()


@pytest.fixture
def idle(machine):
    return machine(*board(smp=2), "-S", "-name", "probe")


@pytest.fixture
def monitor(idle):
    m = Monitor(idle.path("mon"))
    m.machine = idle
    return m


def test_information(monitor):
    assert monitor.cmd("info status") == "VM status: paused (prelaunch)\n"
    assert re.match(r"armlet \d+\.\d+", monitor.cmd("info version"))
    assert monitor.cmd("info name") == "probe\n"
    assert re.findall(r"^([* ]) CPU #(\d): thread_id=[1-9]", monitor.cmd("info cpus"), re.M) == [("*", "0"), (" ", "1")]
    assert monitor.cmd("cpu 1") == "" and "* CPU #1" in monitor.cmd("info cpus")
    assert "there is no CPU #7" in monitor.cmd("cpu 7")
    assert "CPU#1\n PC=" in monitor.cmd("info registers")
    text = monitor.cmd("info registers -a")
    assert "CPU#0\n PC=0000000040000000" in text and re.search(r"MIDR_EL1 +00000000411fd070", text)
    assert "PSTATE=400003c5 -Z-- EL1h" in text
    assert re.search(r"0*9000000-0*9000fff .*pl011", monitor.cmd("info mtree"))
    assert "FlatView" in monitor.cmd("info mtree -f")
    assert "pl011" in monitor.cmd("info qtree")
    assert "mon" in monitor.cmd("info chardev")
    assert "the MMU is off" in monitor.cmd("info tlb")


def test_expressions_and_memory(monitor, tmp_path):
    assert monitor.cmd("p $pc") == "0x40000000\n"
    assert monitor.cmd("p/d (1 + 2) * 3 - 10 / 2") == "4\n"
    assert monitor.cmd("print ~0 & 0xff") == "0xff\n"
    assert "division by zero" in monitor.cmd("p 1/0")
    assert "unknown register" in monitor.cmd("p $nosuch")
    assert "missing" in monitor.cmd("p (1")
    assert "belong" in monitor.cmd("p 1 2")
    assert monitor.cmd("x/2i $pc").splitlines()[1].startswith("0x40000004:  aa1f03e1  ")
    assert monitor.cmd("xp /2wx 0x40000004") == "0000000040000004: 0xaa1f03e1 0xaa1f03e2\n"
    assert "Cannot access memory at 0x7000000000" in monitor.cmd("x 0x7000000000")
    assert monitor.cmd("gva2gpa 0x40000010") == "gpa: 0x40000010\n"
    assert "Host virtual address" in monitor.cmd("gpa2hva 0x40000000")
    assert monitor.cmd(f"memsave 0x40000004 8 {tmp_path}/v") == "" == monitor.cmd(f'pmemsave 0x40000004 8 "{tmp_path}/p"')
    assert (tmp_path / "v").read_bytes() == (tmp_path / "p").read_bytes() == bytes.fromhex("e1031faae2031faa")
    assert "No such file" in monitor.cmd("memsave 0 8 /no/such")


def test_core_file(monitor, tmp_path):
    core = tmp_path / "core"
    assert monitor.cmd(f"dump-guest-memory {core}") == ""
    out = subprocess.run(["gdb-multiarch", "-nx", "-batch", "-ex", "set architecture aarch64", "-ex", f"core-file {core}",
                          "-ex", "info threads", "-ex", "info registers pc cpsr"], stdout=subprocess.PIPE, timeout=BOOT_SECONDS,
                         stderr=subprocess.STDOUT, text=True).stdout
    assert re.search(r"^pc +0x40000000", out, re.M) and re.search(r"^cpsr +0x400003c5", out, re.M), out
    with open(core, "rb") as f:
        data = f.read(0x2000)
    assert bytes.fromhex("e1031faae2031faa") in data


def test_suggestions_and_help(monitor):
    assert "did you mean: system_reset" in monitor.cmd("sytem_reset")
    assert "did you mean: registers" in monitor.cmd("info registrs")
    assert monitor.cmd("help cont") == "cont -- let them go on\n"
    assert monitor.cmd("help").count("\n") > 20
    assert "unknown command" in monitor.cmd("xyzzy")


def test_editing(monitor):
    status = "VM status: paused (prelaunch)\n"
    assert monitor.keys(b"ifo stX\x7fatus\x01\x06n\x05\r") == status
    assert monitor.keys(b"\x1b[A\r") == status  # history
    assert "armlet" in monitor.keys(b"info vers\t\r")  # completion
    assert monitor.keys(b"pri\t4\x1b[D1\x1b[C2\r") == "0x8e\n"


def test_run_state(monitor):
    assert monitor.cmd("cont") == "" and monitor.cmd("info status") == "VM status: running\n"
    assert monitor.cmd("stop") == "" and monitor.cmd("info status") == "VM status: paused\n"
    monitor.s.sendall(b"quit\r")
    assert monitor.machine.process.wait(BOOT_SECONDS) == 0


def test_log_and_reset(monitor, tmp_path):
    log = tmp_path / "log"
    assert "int" not in monitor.cmd("log").split()
    assert monitor.cmd(f"logfile {log}") == "" and monitor.cmd("log int,cpu_reset") == ""
    assert "int" in monitor.cmd("log") and "no such item" in monitor.cmd("log nonsense")
    assert monitor.cmd("c") == ""
    monitor.machine.shell()
    assert monitor.cmd("system_reset") == ""
    monitor.machine.wait_for(lambda: monitor.machine.output().count("Booting Linux on physical CPU") == 2)
    assert monitor.cmd("log none") == "" == monitor.cmd("logfile")
    text = log.read_text()
    assert "exception EC 0x15" in text and re.search(r"CPU#0\n PC=(?!0{16})", text)  # of before the reset
    monitor.s.sendall(b"q\r")
    assert monitor.machine.process.wait(BOOT_SECONDS) == 0


def test_gdbserver_from_the_monitor(monitor, tmp_path):
    path = tmp_path / "late"
    assert "Waiting for gdb connection" in monitor.cmd(f"gdbserver unix:{path}")
    out = subprocess.run(["gdb-multiarch", "-nx", "-batch", "-ex", f"target remote {path}", "-ex", "detach"], text=True,
                         timeout=BOOT_SECONDS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
    assert "0x0000000040000000 in ?? ()" in out
    assert "unknown kind" in monitor.cmd("gdbserver nonsense")


def test_console_switch():
    with Guest(board()) as g:
        g.shell()
        g.send("\x01c")
        g.expect("armlet .* monitor - type 'help'")
        g.expect(PROMPT)
        g.send("info st\t")
        g.expect("atus ")
        g.send("\r")
        g.expect("VM status: running")
        g.expect(PROMPT)
        g.send("\x01c")
        assert g.cmd("echo back") == "back"
        g.send("\x01c")
        g.expect(PROMPT)
        g.send("system_powerdown\rq\r")
        assert g.wait() == 0


def test_qmp(idle):
    q = Qmp(idle.path("qmp"))
    assert q.cmd("query-status")["error"]["class"] == "CommandNotFound"
    assert q.cmd("qmp_capabilities") == {"return": {}}
    assert q.cmd("query-status")["return"] == {"status": "prelaunch", "singlestep": False, "running": False}
    cpus = q.cmd("query-cpus-fast")["return"]
    assert [c["cpu-index"] for c in cpus] == [0, 1] and all(c["thread-id"] > 0 for c in cpus)
    assert q.cmd("query-version")["return"]["qemu"]["major"] >= 7
    names = {c["name"] for c in q.cmd("query-commands")["return"]}
    assert {"stop", "cont", "quit", "system_reset", "human-monitor-command", "query-commands"} <= names
    assert q.cmd("query-name")["return"] == {"name": "probe"}
    q.raw('{"execute": "nonsense", "id": [1, "x"]}')
    assert q.read() == {"error": {"class": "CommandNotFound", "desc": "The command nonsense has not been found"},
                        "id": [1, "x"]}
    q.raw('{"execute"')
    q.raw(': "query-name"}{"execute":\n "query-name"}')
    assert q.read() == q.read() == {"return": {"name": "probe"}}
    for bad in ['{"execute": 3}', '{"a" 1}', "[]", "garbage\n", '{"execute": "stop", "arguments": 3}', '"x"\n', "}"]:
        q.raw(bad)
        assert q.read()["error"]["class"] == "GenericError", bad


def test_qmp_events(idle):
    q = Qmp(idle.path("qmp"))
    q.cmd("qmp_capabilities")
    for n, name in enumerate(["cont", "stop", "system_reset", "cont", "system_powerdown"], 1):
        assert q.cmd(name) == {"return": {}}
        limit = time.time() + BOOT_SECONDS
        while len(q.events) < n and time.time() < limit:  # a reset happens a moment later
            q.cmd("query-status")
            time.sleep(0.05)
    assert [e["event"] for e in q.events] == ["RESUME", "STOP", "RESET", "RESUME", "POWERDOWN"]
    assert q.events[2]["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
    q.cmd("quit")
    last = json.loads(q.f.readline())
    assert last["event"] == "SHUTDOWN" and last["data"] == {"guest": False, "reason": "host-qmp-quit"}
    assert q.f.readline() == "" and idle.process.wait(BOOT_SECONDS) == 0


def test_one_client_after_the_other(idle):
    for _ in range(3):
        q = Qmp(idle.path("qmp"))
        assert q.cmd("qmp_capabilities") == {"return": {}}
        q.raw('{"execute": "query-st')
        q.s.shutdown(socket.SHUT_RDWR)
        q.s.close()


def test_trace_events(monitor):
    assert "mmu : state 0" in monitor.cmd("info trace-events")
    assert monitor.cmd("trace-event mm* on") == ""
    text = monitor.cmd("info trace-events")
    assert "mmu : state 1" in text and "mmio : state 1" in text and "irq : state 0" in text
    assert monitor.cmd("trace-event all off") == "" and "state 1" not in monitor.cmd("info trace-events")
    assert "unknown event: nonsense" in monitor.cmd("trace-event nonsense on")
    assert "expected" in monitor.cmd("trace-event mmu") and "expected" in monitor.cmd("trace-event mmu maybe")


def test_trace_option(tmp_path):
    events = tmp_path / "events"
    events.write_text("# what we look at\n\nboot\nmonitor\n-monitor\n")
    kernel, _ = images("6.1")
    m = subprocess.run([ARMLET, "-M", "virt", "-display", "none", "-kernel", kernel, "-trace", f"events={events},file={tmp_path}/log",
                        "-monitor", "stdio"], input="info trace-events\nquit\n", stdout=subprocess.PIPE, text=True, timeout=BOOT_SECONDS)
    assert "boot : state 1" in m.stdout and "monitor : state 0" in m.stdout and os.path.exists(tmp_path / "log")
    for bad, says in [("nonsense", "no such event"), ("events=/nonexistent", "No such file"), ("enable=mmu,other=1", "other")]:
        r = run("-M", "virt", "-trace", bad)
        assert r.returncode == 1 and says in r.stderr, r.stderr
    assert "mmu" in run("-trace", "help").stdout


def test_hostfwd_and_usernet(monitor, machine):
    assert "there is no user network" in monitor.cmd("hostfwd_add nosuch tcp::1-:2")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    assert monitor.cmd(f"hostfwd_add tcp:127.0.0.1:{port}-:22") == ""
    text = monitor.cmd("info usernet")
    assert f"{port}" in text and "HOST_FORWARD" in text
    with socket.create_connection(("127.0.0.1", port), BOOT_SECONDS):
        pass
    assert "Could not set up host forwarding rule" in monitor.cmd(f"hostfwd_add tcp:127.0.0.1:{port}-:23")
    assert f"host forwarding rule for tcp:127.0.0.1:{port} removed" in monitor.cmd(f"hostfwd_remove tcp:127.0.0.1:{port}")
    assert "not found" in monitor.cmd(f"hostfwd_remove tcp:127.0.0.1:{port}")
    assert "Invalid" in monitor.cmd("hostfwd_remove nonsense") and "expected" in monitor.cmd("hostfwd_add")


def test_jit_and_every_subject(monitor):
    assert "blocks" in monitor.cmd("info jit")
    subjects = re.findall(r"^info ([\w-]+)", monitor.cmd("info"), re.M)
    assert {"mtree", "qtree", "roms", "network", "usernet", "pci", "jit", "chardev", "block", "irq", "tlb"} <= set(subjects)
    for s in subjects:
        assert "unknown command" not in monitor.cmd(f"info {s}"), s
