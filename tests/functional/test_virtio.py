"""Serial ports, balloon, entropy and disks, on both transports."""
import os
import re
import socket
import subprocess
import time

import pytest
from guest import BUILD, Guest, board, run
from test_clients import Qmp


def with_modules(*modules, **kwargs):
    args = board(**kwargs)
    out = subprocess.run([os.path.join(BUILD, "tests", "lab_paths"), "6.1", *modules], check=True, timeout=900,
                         stdout=subprocess.PIPE, text=True).stdout
    args[args.index("-initrd") + 1] = dict(line.split("=", 1) for line in out.split())["initramfs"]
    return args


def monitor(g, line):
    """A monitor command's output; the console is the guest's again afterwards."""
    g.send("\x01c")
    g.expect(r"\(armlet\) ")
    g.child.sendline(line)
    g.expect(r"\(armlet\) ")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", g.child.before).replace("\r", "")
    g.send("\x01c")
    g.child.sendline("")
    g.expect("/ # ")
    return text


def resident(g):
    """MiB of the program."""
    with open(f"/proc/{g.child.pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) >> 10


@pytest.mark.parametrize("bus", ["pci", "device"])
def test_balloon(tmp_path, bus):
    args = with_modules("virtio_balloon", memory="512M") + ["-device", f"virtio-balloon-{bus},id=b0"]
    with Guest(args + ["-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off"]) as g:
        g.shell()
        g.cmd("dd if=/dev/zero of=/tmp/fill bs=1M count=300 2>/dev/null; rm /tmp/fill")
        full = resident(g)
        assert "actual=512" in monitor(g, "info balloon")
        monitor(g, "balloon 192")
        deadline = time.monotonic() + 60
        while "actual=192" not in (text := monitor(g, "info balloon")):
            assert time.monotonic() < deadline, text
        assert resident(g) < full - 200
        assert int(g.cmd("awk '/MemTotal/{print $2}' /proc/meminfo")) < 200 << 10
        client = Qmp(socket.AF_UNIX, f"{tmp_path}/qmp")
        assert client.cmd("query-balloon")["return"]["actual"] == 192 << 20
        assert client.cmd("balloon", value=512 << 20)["return"] == {}
        while "actual=512" not in (text := monitor(g, "info balloon")):
            assert time.monotonic() < deadline, text
        assert g.cmd("dd if=/dev/urandom of=/tmp/fill bs=1M count=200 2>/dev/null; md5sum < /tmp/fill | wc -c") == "36"
        g.send("\x01x")
        assert g.wait() == 0


def test_free_pages_are_reported():
    args = with_modules("virtio_balloon", memory="768M") + ["-device", "virtio-balloon-pci,free-page-reporting=on"]
    with Guest(args) as g:
        g.shell()
        g.cmd("dd if=/dev/zero of=/tmp/fill bs=1M count=350 2>/dev/null")
        full = resident(g)
        g.cmd("rm /tmp/fill")
        deadline = time.monotonic() + 60
        while resident(g) > full - 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        g.send("\x01x")
        assert g.wait() == 0


def test_balloon_without_a_device():
    with Guest(board()) as g:
        g.shell()
        assert "no balloon" in monitor(g, "balloon 100")
        g.send("\x01x")
        assert g.wait() == 0


@pytest.mark.parametrize("bus", ["device", "pci", "pci-non-transitional"])
def test_serial_ports(tmp_path, bus):
    """Two consoles and two named ports on numbers of their own, on the second of two serial devices.

    Both consoles on one device: Linux 6.1 may give those of two devices, which it sets up at once, the same number.
    """
    paths = [str(tmp_path / n) for n in "abcd"]
    args = [x for p in paths[:2] for x in ("-chardev", f"file,path={p},id={p[-1]}")]
    args += ["-chardev", f"socket,path={paths[2]},server=on,wait=off,id=c"]
    args += ["-device", f"virtio-serial-{bus},id=s0,max_ports=4", "-device", f"virtio-serial-{bus},id=s1"]
    args += ["-device", "virtconsole,chardev=a,bus=s1.0,nr=3", "-device", "virtconsole,chardev=b,bus=s1.0,nr=2"]
    args += ["-device", "virtserialport,bus=s0.0,nr=3"]
    args += ["-device", "virtserialport,chardev=c,bus=s1.0,nr=7,name=org.armlet.talk"]
    args += ["-device", "virtserialport,bus=s1.0,name=org.armlet.mute"]
    with Guest(board() + args) as g:
        g.shell()
        ports = g.cmd("cd /sys/class/virtio-ports; ls -1; grep . */name; cd /")
        talk = re.search(r"(vport(\d)p7)/name:org.armlet.talk", ports)
        one = talk.group(2)
        assert f"vport{one}p1/name:org.armlet.mute" in ports
        assert f"vport{one}p2" in ports and re.search(f"vport[^{one}]p3", ports)
        # The guest's driver learns of consoles from messages, some time after the ports are there.
        g.cmd("for c in hvc0 hvc1; do until echo to-a-console 2>/dev/null > /dev/$c; do sleep 0.1; done; done", 60)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(paths[2])
            s.settimeout(20)
            g.child.sendline(f"(read -r x; echo you said $x) < /dev/{talk.group(1)} > /tmp/x; cat /tmp/x > "
                              f"/dev/{talk.group(1)}; echo END-$((6*7))")
            s.sendall(b"hello\n")
            data = b""
            while not data.endswith(b"\n"):
                data += s.recv(100)
            assert data == b"you said hello\n"
            g.expect(r"END-42\r*\n")
            g.expect("/ # ")
        g.child.sendline("poweroff -f")
        assert g.wait() == 0
    assert "to-a-console" in open(paths[0]).read()
    assert "to-a-console" in open(paths[1]).read()


@pytest.mark.parametrize("bus", ["device", "pci", "pci-transitional", "pci-non-transitional"])
def test_entropy_and_disk(tmp_path, bus):
    disk = tmp_path / "disk"
    disk.write_bytes(b"armlet" + bytes(4 << 20)[6:])
    second = tmp_path / "second"
    second.write_bytes(b"second" + bytes(1 << 20)[6:])
    args = ["-object", "rng-builtin,id=r", "-device", f"virtio-rng-{bus},rng=r,max-bytes=65536,period=100"]
    for n, path in enumerate([disk, second]):
        args += ["-drive", f"file={path},if=none,format=raw,id=d{n}", "-device", f"virtio-blk-{bus},drive=d{n},serial=S{n}"]
    with Guest(board(smp=2) + args) as g:
        g.shell()
        assert g.cmd("head -c 100000 /dev/hwrng | wc -c") == "100000"
        names = g.cmd("for d in vda vdb; do cat /sys/block/$d/serial; echo; head -c 6 /dev/$d; echo; done").split()
        assert sorted([tuple(names[:2]), tuple(names[2:])]) == [("S0", "armlet"), ("S1", "second")]
        g.send("\x01x")
        assert g.wait() == 0


@pytest.mark.parametrize("args,complaint", [
    (["-device", "virtserialport,name=a"], "put a -device virtio-serial-device before it"),
    (["-device", "virtio-serial-pci,id=s", "-device", "virtserialport,bus=t.0"], "bus=t.0"),
    (["-device", "virtio-serial-pci", "-device", "virtserialport,nr=3", "-device", "virtserialport,nr=3"], "nr=3: this port is taken"),
    (["-device", "virtio-serial-pci,max_ports=2", "-device", "virtserialport,nr=2"], "nr=2: there is no such port"),
    (["-device", "virtio-serial-pci,max_ports=99"], "max-ports=99: give 1 to 31"),
    (["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=no"], "'no'"),
    (["-device", "virtio-balloon-pci", "-device", "virtio-balloon-device"], "there is a balloon already"),
    (["-device", "virtio-rng-pci,rng=no"], "no -object rng-random or rng-builtin has the id 'no'"),
    (["-device", "virtio-blk-pci,drive=no"], "no -drive has the id 'no'"),
    (["-device", "virtio-net-pci,netdev=no"], "netdev=no: no -netdev has this id"),
])
def test_mistakes_are_one_line(args, complaint):
    done = run("-nographic", "-S", *args)
    assert done.returncode == 1
    assert complaint in done.stderr and done.stderr.count("\n") == 1
