"""QMP and the monitor as other programs talk to QEMU's: their lines, in their order, replayed."""
import json
import os
import socket
import subprocess
import time

from guest import ARMLET, BOOT_SECONDS, Guest, board
from test_monitor import Qmp


def test_syzkaller(machine):
    """vm/qemu: a TCP monitor; registers of every CPU of a guest that hangs; events are read past; killed at the end."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    m = machine(*board(smp=2), "-chardev", f"socket,id=SOCKSYZ,server=on,wait=off,host=localhost,port={port}", "-mon",
                "chardev=SOCKSYZ,mode=control", "-no-reboot", "-name", "VM-0", "-snapshot")
    m.shell()
    with socket.create_connection(("localhost", port), BOOT_SECONDS) as s:
        f = s.makefile("rw")
        greeting = json.loads(f.readline())["QMP"]
        assert isinstance(greeting["version"]["qemu"]["major"], int) and isinstance(greeting["version"]["package"], str)

        def ask(execute, arguments=None):
            f.write(json.dumps({"execute": execute, **({"arguments": arguments} if arguments else {})}) + "\n")
            f.flush()
            while "event" in (answer := json.loads(f.readline())):
                pass
            return answer
        assert ask("qmp_capabilities") == {"return": {}}
        for cpu in (0, 1):
            text = ask("human-monitor-command", {"command-line": "info registers", "cpu-index": cpu})["return"]
            assert f"CPU#{cpu}\r\n PC=" in text, text
        assert "CPU#0" in ask("human-monitor-command", {"command-line": "info registers"})["return"]
        assert "error" in ask("human-monitor-command", {"command-line": "info registers", "cpu-index": 2})
    m.process.terminate()
    assert m.process.wait(BOOT_SECONDS) == 0


def test_libguestfs():
    """lib/qemu.c: three lines into -qmp stdio of a machine that never runs; the third line of the answer is the result."""
    for what, seen in [("query-kvm", {"enabled": False, "present": False}), ("query-qmp-schema", None)]:
        lines = "".join('{ "execute": "%s" }\n' % c for c in ("qmp_capabilities", what, "quit"))
        r = subprocess.run([ARMLET, "-display", "none", "-machine", "virt,accel=tcg", "-S", "-qmp", "stdio"], input=lines,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=BOOT_SECONDS)
        answers = [json.loads(line) for line in r.stdout.splitlines()]
        assert r.returncode == 0 and "QMP" in answers[0] and answers[1] == {"return": {}}, r
        if seen:
            assert answers[2]["return"] == seen
        else:  # it looks for a member anywhere; ours have none
            entities = {e["name"]: e for e in answers[2]["return"]}
            assert entities["human-monitor-command"]["meta-type"] == "command" and entities["SHUTDOWN"]["meta-type"] == "event"
            assert all(e[t] in entities for e in entities.values() for t in ("arg-type", "ret-type") if t in e)
            assert "locking" not in r.stdout


def test_runqemu(tmp_path):
    """OpenEmbedded's qemurunner: -S, a socket that start-up waits for and one for commands; cont; a dump; off by the guest."""
    first, second, core = tmp_path / "first", tmp_path / "second", tmp_path / "core"
    args = [*board(smp=1, memory="256M"), "-S", "-qmp", f"unix:{first},server,wait", "-qmp", f"unix:{second},server,nowait"]
    with Guest(args) as g:
        limit = time.time() + BOOT_SECONDS
        while not os.path.exists(first):
            assert time.time() < limit
            time.sleep(0.05)
        a, b = Qmp(str(first)), None
        while not os.path.exists(second):
            assert time.time() < limit
            time.sleep(0.05)
        b = Qmp(str(second))
        assert a.cmd("qmp_capabilities") == b.cmd("qmp_capabilities") == {"return": {}}
        assert b.cmd("query-status")["return"] == {"status": "prelaunch", "singlestep": False, "running": False}
        assert b.cmd("cont") == {"return": {}}
        g.shell()
        assert b.cmd("query-status")["return"]["status"] == "running"
        assert b.cmd("human-monitor-command", **{"command-line": "info status"}) == {"return": "VM status: running\r\n"}
        assert b.cmd("dump-guest-memory", paging=False, protocol=f"file:{core}", format="elf") == {"return": {}}
        assert core.stat().st_size > 256 << 20
        assert {e["event"] for e in a.events + b.events} <= {"RESUME"}
        g.child.sendline("poweroff -f")
        assert g.wait() == 0
        events = [json.loads(line) for line in a.f]
        assert [e["event"] for e in events][-1] == "SHUTDOWN" and events[-1]["data"] == {"guest": True, "reason": "guest-shutdown"}
