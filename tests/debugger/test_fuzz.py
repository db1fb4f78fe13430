"""Clients of the gdb stub that are wrong, rude or gone: the machine goes on."""
import json
import os
import random
import socket
import time

from guest import BOOT_SECONDS, board

SEED = int(os.environ.get("FUZZ_SEED", "1"))
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "1500"))


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.settimeout(BOOT_SECONDS)
    return s


def framed(data):
    return b"$" + data + b"#%02x" % (sum(data) & 255)


def drain(s, seconds=0.0):
    s.settimeout(max(seconds, 0.001))
    got = b""
    try:
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            got += piece
            s.settimeout(max(min(seconds, 0.2), 0.001))
    except (TimeoutError, BlockingIOError):
        pass
    s.settimeout(BOOT_SECONDS)
    return got


def until(s, text):
    """Reads up to the text, which must come."""
    got, limit = b"", time.time() + BOOT_SECONDS
    while text not in got:
        assert time.time() < limit, got
        got += drain(s, 0.2)


def ask(s, data):
    """The reply to a packet."""
    s.sendall(framed(data))
    got = b""
    limit = time.time() + BOOT_SECONDS
    while b"#" not in got or len(got) < got.index(b"#") + 3:
        assert time.time() < limit, got
        got += drain(s, 0.05)
    return got[got.index(b"$") + 1:got.index(b"#")]


WORDS = [b"?", b"g", b"G00", b"p0", b"P20=0000104000000000", b"m40000000,40", b"m0,ffffffff", b"M40001000,4:01020304",
         b"X40001000,4:abcd", b"X40001000,ffffffff:a", b"Z0,40100000,4", b"z0,40100000,4", b"Z2,40200000,8", b"z2,40200000,8",
         b"Z4,0,ffffffffffffffff", b"Z9,1,1", b"Hg2", b"Hc-1", b"Hgp1.1", b"T1", b"T99", b"qSupported:xmlRegisters=i386",
         b"qXfer:features:read:target.xml:0,ffb", b"qXfer:features:read:target.xml:ffffffffffffffff,ffffffffffffffff",
         b"qXfer:features:read:../../x:0,1", b"qfThreadInfo", b"qsThreadInfo", b"qThreadExtraInfo,1", b"qThreadExtraInfo,zz",
         b"qRcmd,696e666f20726567697374657273", b"qRcmd,zz", b"qRcmd,", b"qC", b"qAttached", b"qqemu.sstep", b"Qqemu.sstep=0x7",
         b"Qqemu.PhyMemMode:0", b"vCont?", b"vCont;s:1", b"vCont;r0,1:1", b"vCont;x", b"vCont;", b"vMustReplyEmpty", b"s", b"c",
         b"S05", b"C", b"", b"!", b"vFile:open", b"\x00\xff"]


def mutate(r, data):
    data = bytearray(data)
    for _ in range(r.randrange(3)):
        kind = r.randrange(4)
        at = r.randrange(len(data) + 1)
        if kind == 0:
            data[at:at] = r.choice([b"0", b"f", b",", b";", b":", b"ffffffff", b"}", b"-1", bytes([r.randrange(256)])])
        elif kind == 1 and data:
            del data[min(at, len(data) - 1)]
        elif kind == 2 and data:
            data[min(at, len(data) - 1)] = r.randrange(256)
        else:
            data += data[:at] * r.randrange(3)
    data = bytes(c for c in data if c not in b"$#")
    return b"?" if data.startswith((b"k", b"vKill")) else data  # these do end the machine


def test_gdb_packets(machine):
    m = machine("-machine", "virt", "-display", "none", "-S", "-smp", "2")
    r = random.Random(SEED)
    s = connect(m.path("gdb"))
    for i in range(ROUNDS):
        packet = framed(mutate(r, r.choice(WORDS)))
        if r.randrange(20) == 0:
            packet = packet[:r.randrange(len(packet) + 1)] + b"\x03"
        s.sendall(packet)
        if i % 16 == 0:
            drain(s)
        if r.randrange(100) == 0:
            s.close()
            s = connect(m.path("gdb"))
    s.close()
    assert m.process.poll() is None, m.process.stderr.read()
    s = connect(m.path("gdb"))
    assert ask(s, b"qAttached") == b"1"
    assert ask(s, b"Z0,40100000,4") == b"OK"


def test_lengths_and_rude_clients(machine):
    m = machine(*board(smp=2))
    s = connect(m.path("gdb"))
    assert ask(s, b"Qqemu.PhyMemMode:1") == b"OK"
    assert len(ask(s, b"m40000000,ffffffff")) == 16384
    assert ask(s, b"M40000000,ffffffff:00") == b"E22" == ask(s, b"X40000000,100000000:a")
    s.sendall(b"$" + b"m" * 100000 + b"#00")  # far too long, and the sum is wrong
    s.sendall(framed(b"M40001000,9000:" + b"00" * 0x9000))
    until(s, b"E22")
    assert len(ask(s, b"m40000000,4")) == 8
    s.sendall(b"$m40000000,")
    s.close()  # in the middle of a packet
    s = connect(m.path("gdb"))
    s.settimeout(0.5)
    try:
        for _ in range(20000):  # never reads
            s.sendall(framed(b"g"))
    except TimeoutError:
        pass
    s.close()
    m.shell()  # it went on
    assert ask(connect(m.path("gdb")), b"qAttached") == b"1"
    m.process.terminate()
    errors = m.process.stderr.read()
    assert "a packet of more than 16384 bytes was dropped" in errors and "in the middle of a packet" in errors
    assert "KiB that nobody had read, which were dropped" in errors and len(errors.splitlines()) < 10, errors


COMMANDS = ["qmp_capabilities", "query-status", "query-version", "query-cpus-fast", "query-commands", "query-name", "stop",
            "cont", "system_powerdown", "system_reset", "human-monitor-command", "memsave", "pmemsave"]
LINES = ["info registers -a", "help", "info tlb", "x/2000x 0x40000000", "stop", "cont", "info qtree", "bogus", "log none",
         "ps", "ps -t", "dmesg", "modules -s", "mounts", "bt", "bt 1", "info mtree", "cpu 9", "x/i 0", "p 1/0", "sym 0",
         "sym x", "info kernel", "symbol-file", "x/s 0", "memsave 0 0", "gva2gpa -1", "info irq", "info pci", "\x01\x1b[A", "\t"]


def qmp_piece(r):
    command = r.choice(COMMANDS)
    request = {"execute": command}
    if command == "human-monitor-command":
        request["arguments"] = {"command-line": mutate(r, r.choice(LINES).encode()).decode("latin-1")}
        if "q" in request["arguments"]["command-line"]:  # quit does end it
            return b"{}"
    text = json.dumps(request).encode()
    kind = r.randrange(20)
    if kind < 6:
        text = mutate(r, text)
    elif kind < 8:
        text = text[:r.randrange(len(text))]
    elif kind == 8:
        text = b'{"a":' * r.randrange(5000)
    return b"" if b"quit" in text else text


def send_some(r, s, pieces):
    s.setblocking(False)
    for piece in pieces:
        try:
            s.send(piece)
            if r.randrange(2):
                s.recv(65536)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            time.sleep(0.001)
    s.close()


def test_qmp_clients(machine):
    """Garbage, floods that are never read, ends in the middle: the next client is greeted."""
    m = machine("-machine", "virt", "-display", "none")
    r = random.Random(SEED)
    for _ in range(ROUNDS // 15):
        s = connect(m.path("qmp"))
        s.settimeout(BOOT_SECONDS)
        assert s.recv(4096).startswith(b'{"QMP": ')
        first = [b'{"execute":"qmp_capabilities"}'] if r.randrange(4) else []
        send_some(r, s, first + [qmp_piece(r) for _ in range(r.choice([1, 5, 50, 200]))])
    burst = [connect(m.path("qmp")) for _ in range(30)]  # that wait for each other
    for s in burst:
        s.close()
    s = connect(m.path("qmp"))
    s.settimeout(BOOT_SECONDS)
    assert s.recv(4096).startswith(b'{"QMP": ') and m.process.poll() is None


def test_monitor_lines(machine):
    m = machine(*board(smp=2))
    r = random.Random(SEED)
    for i in range(ROUNDS // 50):
        s = connect(m.path("mon"))
        s.settimeout(BOOT_SECONDS)
        assert b"(armlet) " in s.recv(4096)
        lines = [mutate(r, r.choice(LINES).encode()).replace(b"q", b"") + b"\r" for _ in range(r.choice([3, 30]))]
        send_some(r, s, lines)
    assert m.process.poll() is None, m.process.stderr.read()
    s = connect(m.path("mon"))
    until(s, b"(armlet) ")
