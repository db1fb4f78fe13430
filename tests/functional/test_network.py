"""PCI cards and the user-mode network."""
import hashlib
import http.server
import functools
import os
import socket
import struct
import threading
import urllib.request

import pytest
from guest import Guest, board, run

UP = "dmesg -n 1; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2"


@pytest.fixture
def web(tmp_path):
    """A server on the host's loopback: (port, directory)."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], tmp_path
    server.shutdown()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def off(g):
    g.child.sendline("poweroff -f")
    assert g.wait() == 0


def test_default_card(web):
    with Guest(board()) as g:
        log = g.shell()
        for line in ("PCI host bridge to bus 0000:00", "pci_bus 0000:00: root bus resource [mem 0x10000000-0x3efeffff]",
                     "pci 0000:00:01.0: [1af4:1000] type 00 class 0x020000", "0000:00:01.0"):
            assert line in log
        assert "[mem 0x8000000000-0x8000003fff 64bit pref]: assigned" in log
        assert "52:54:00:12:34:56" in g.cmd("cat /sys/class/net/eth0/address")
        g.cmd("ip link set eth0 up")
        assert "lease of 10.0.2.15 obtained from 10.0.2.2" in g.cmd("udhcpc -i eth0 -n -q -s /bin/true 2>&1")
        off(g)


@pytest.mark.parametrize("series", ["6.1", "6.12"])
@pytest.mark.parametrize("card", [
    ["-nic", "user"],
    ["-machine", "highmem=off", "-net", "nic", "-net", "user"],
    ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,disable-modern=on"],
    ["-netdev", "user,id=n", "-device", "virtio-net-pci-non-transitional,netdev=n,addr=9"],
    ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,vectors=0"],
    ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,csum=off,guest_csum=off,mrg_rxbuf=off"],
    ["-netdev", "user,id=n", "-device", "virtio-net-device,netdev=n"],
    ["-netdev", "user,id=n", "-device", "virtio-net-device,netdev=n", "-global", "virtio-mmio.force-legacy=off"],
])
def test_data_both_ways(web, card, series):
    port, directory = web
    data = os.urandom(20_000_000)
    (directory / "data").write_bytes(data)
    back = free_port()
    card = [a + f",hostfwd=tcp:127.0.0.1:{back}-:80" if a.startswith("user") else a for a in card]
    with Guest(board(series=series) + card) as g:
        g.shell()
        g.cmd(UP + "; mkdir /tmp/w; httpd -h /tmp/w -p 80")
        g.cmd(f"wget -q -O /tmp/w/data http://10.0.2.2:{port}/data")
        assert g.cmd("md5sum < /tmp/w/data").split()[0] == hashlib.md5(data).hexdigest()
        with urllib.request.urlopen(f"http://127.0.0.1:{back}/data", timeout=60) as answer:
            assert answer.read() == data
        off(g)


def test_restrict(web):
    port, _ = web
    back = free_port()
    with Guest(board() + ["-nic", f"user,restrict=on,hostfwd=tcp:127.0.0.1:{back}-:80,net=10.9.0.0/16,dhcpstart=10.9.1.1"]) as g:
        g.shell()
        g.cmd("ip link set eth0 up; mkdir /tmp/w; echo inside > /tmp/w/a; httpd -h /tmp/w -p 80")
        assert "lease of 10.9.1.1 obtained from 10.9.0.2" in g.cmd("udhcpc -i eth0 -n -q -s /bin/true 2>&1")
        g.cmd("ip addr add 10.9.1.1/16 dev eth0")
        assert "open" not in g.cmd(f"timeout 3 nc 10.9.0.2 {port} < /dev/null && echo open")
        with urllib.request.urlopen(f"http://127.0.0.1:{back}/a", timeout=20) as answer:
            assert answer.read() == b"inside\n"
        off(g)


def test_capture_and_guestfwd(tmp_path):
    pcap = tmp_path / "net.pcap"
    args = ["-netdev", "user,id=n,guestfwd=tcp:10.0.2.100:7-cmd:cat", "-device", "virtio-net-pci,netdev=n", "-object",
            f"filter-dump,id=f,netdev=n,file={pcap}"]
    with Guest(board() + args) as g:
        g.shell()
        g.cmd(UP)
        assert g.cmd("echo through-the-cat | nc 10.0.2.100 7") == "through-the-cat"
        off(g)
    raw = pcap.read_bytes()
    assert struct.unpack("<IHHiIII", raw[:24]) == (0xa1b2c3d4, 2, 4, 0, 0, 65536, 1)
    assert raw.count(b"through-the-cat") >= 2


def test_disk_on_pci(tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(8 << 20))
    args = ["-nic", "none", "-drive", f"file={disk},format=raw,if=none,id=d", "-device", "virtio-blk-pci,drive=d,serial=A1",
            "-device", "virtio-rng-pci"]
    with Guest(board() + args) as g:
        g.shell()
        assert "0000:00:01.0" in g.cmd("readlink /sys/block/vda")
        assert g.cmd("cat /sys/block/vda/serial") == "A1"
        g.cmd("yes armlet | head -c 4194304 > /tmp/r; dd if=/tmp/r of=/dev/vda conv=fsync; echo 3 > /proc/sys/vm/drop_caches")
        assert g.cmd("head -c 4194304 /dev/vda | cmp - /tmp/r && echo same") == "same"
        off(g)
    assert disk.read_bytes()[:14] == b"armlet\narmlet\n"


def test_port_taken():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        rule = f"tcp:127.0.0.1:{s.getsockname()[1]}-:22"
        r = run(*board(), "-nic", f"user,hostfwd={rule}")
    assert r.returncode == 1
    assert f"Could not set up host forwarding rule '{rule}'" in r.stderr and r.stderr.count("\n") == 1


@pytest.mark.parametrize("args,words", [
    (["-netdev", "user,id=n,hostfwd=tcp:x"], "Invalid host forwarding rule"),
    (["-netdev", "user,id=n,hostfw=x"], "did you mean 'hostfwd'"),
    (["-netdev", "user,id=n,net=1.2.3.4/31"], "too small"),
    (["-device", "virtio-net-pci,netdev=nope"], "no -netdev has this id"),
    (["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n", "-device", "virtio-net-pci,netdev=n"], "another card"),
    (["-device", "virtio-rng-pci,addr=1", "-nic", "none", "-device", "virtio-rng-pci,addr=1"], "in this slot already"),
    (["-device", "virtio-rng-pci,addr=40"], "1 to 1f"),
    (["-device", "virtio-rng-pci,disable-legacy=on,disable-modern=on"], "both on"),
    (["-object", "filter-dump,id=f,netdev=nope,file=x"], "no -netdev has this id"),
    (["-nic", "user,mac=01:00:00:00:00:00"], "one card"),
])
def test_mistakes(args, words):
    r = run(*board(), *args)
    assert r.returncode == 1 and words in r.stderr and r.stderr.count("\n") == 1
