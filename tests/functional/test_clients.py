"""The argument lists of programs that start qemu-system-aarch64, word for word but for paths, up to a shell and the end."""
import json
import os
import socket

import pytest
from guest import BOOT_SECONDS, Guest, board, images, run
from test_9p import nine_board


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"armlet" + bytes(8 << 20)[6:])
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Qmp:
    def __init__(self, family, address):
        self.s = socket.socket(family)
        self.s.connect(address)
        self.s.settimeout(20)
        self.f = self.s.makefile("rw")
        assert "QMP" in json.loads(self.f.readline())
        self.cmd("qmp_capabilities")

    def cmd(self, name, **arguments):
        self.f.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.f.flush()
        while "event" in (answer := json.loads(self.f.readline())):
            pass
        return answer


def power_off(g):
    g.child.sendline("poweroff -f")
    assert g.wait(BOOT_SECONDS) == 0


def test_virtme_ng(tmp_path):
    """Its interactive form: kernel and initramfs by descriptors, the log on stderr, a monitor behind C-a c."""
    args = nine_board()
    kernel, initrd = args[args.index("-kernel") + 1], args[args.index("-initrd") + 1]
    tree, log = tmp_path / "tree", tmp_path / "log"
    tree.mkdir()
    (tree / "hello").write_text("from the tree\n")
    argv = ["-m", "1G", "-fsdev", f"local,id=virtfs3,path={tree},security_model=none,readonly=on,multidevs=remap", "-device",
            "virtio-9p-device,fsdev=virtfs3,mount_tag=/dev/root", "-M", "virt", "-cpu", "cortex-a57", "-parallel", "none",
            "-net", "none", "-echr", "1", "-chardev", "file,path=/proc/self/fd/2,id=dmesg", "-device",
            "virtio-serial-device", "-device", "virtconsole,chardev=dmesg", "-chardev",
            "stdio,id=console,signal=off,mux=on", "-serial", "chardev:console", "-mon", "chardev=console", "-vga", "none",
            "-display", "none", "-smp", "8", "-kernel", "/proc/self/fd/8", "-append",
            "console=hvc0 earlyprintk=serial,ttyAMA0,115200 virtme_console=ttyAMA0 console=ttyAMA0", "-initrd", "/proc/self/fd/9"]
    script = f'exec "$0" "$@" 8< {kernel} 9< {initrd} 2> {log}'
    from guest import ARMLET
    with Guest(["-c", script, ARMLET, *argv], program="/bin/sh") as g:
        g.shell()
        assert g.cmd("mount -t 9p -o version=9p2000.L,trans=virtio,access=any /dev/root /mnt; cat /mnt/hello") == "from the tree"
        g.cmd("echo to-the-log > /dev/hvc0")
        g.send("\x01c")
        g.expect(r"\(armlet\) ")
        g.child.sendline("info status")
        g.expect("VM status: running")
        g.send("\x01c")
        g.child.sendline("")
        g.expect("/ # ")
        power_off(g)
    assert "to-the-log" in log.read_text()


def test_syzkaller(disk):
    qmp, ssh = free_port(), free_port()
    kernel, initrd = images("6.1")
    argv = ["-chardev", f"socket,id=SOCKSYZ,server=on,wait=off,host=localhost,port={qmp}", "-mon",
            "chardev=SOCKSYZ,mode=control", "-display", "none", "-serial", "stdio", "-no-reboot", "-name", "VM-0", "-device",
            "virtio-rng-pci", "-machine", "virt,virtualization=on,gic-version=max", "-cpu", "max,sve128=on,pauth=off",
            "-device", "virtio-net-pci,netdev=net0", "-netdev", f"user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{ssh}-:22",
            "-hda", str(disk), "-snapshot", "-m", "1024", "-smp", "2", "-kernel", kernel, "-initrd", initrd, "-append",
            "root=/dev/vda console=ttyAMA0"]
    with Guest(argv) as g:
        log = g.shell()
        assert "sve128=on: SVE is not modelled" in log and "virtualization=on: EL2 is not modelled" in log
        assert g.cmd("head -c 6 /dev/vda; echo; ls /sys/class/net; cat /sys/class/misc/hw_random/rng_current").split() == \
            ["armlet", "eth0", "lo", "virtio_rng.0"]
        client = Qmp(socket.AF_INET, ("localhost", qmp))
        assert client.cmd("query-status")["return"]["status"] == "running"
        assert "VM status: running" in client.cmd("human-monitor-command", **{"command-line": "info status"})["return"]
        g.child.sendline("reboot -f")
        assert g.wait(BOOT_SECONDS) == 0
    assert disk.read_bytes()[:6] == b"armlet"


def test_runqemu(disk, tmp_path):
    path = str(tmp_path / "qmp")
    argv = board() + ["-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{free_port()}-:22,tftp={tmp_path}", "-device",
                      "virtio-net-pci,netdev=net0,mac=52:54:00:12:34:02", "-object",
                      "rng-random,filename=/dev/urandom,id=rng0", "-device", "virtio-rng-pci,rng=rng0", "-drive",
                      f"id=disk0,file={disk},if=none,format=raw", "-device", "virtio-blk-pci,drive=disk0", "-serial",
                      "mon:stdio", "-serial", "null", "-qmp", f"unix:{path},server,nowait"]
    argv.remove("-nographic")
    with Guest(argv) as g:
        g.shell()
        assert g.cmd("cat /sys/class/net/eth0/address; head -c 6 /dev/vda; echo; grep -c ttyAMA /proc/tty/drivers") == \
            "52:54:00:12:34:02\narmlet\n1"
        client = Qmp(socket.AF_UNIX, path)
        assert client.cmd("query-status")["return"]["running"] is True
        assert "return" in client.cmd("quit")
        assert g.wait() == 0


def test_cpu_properties_that_do_not_exist():
    for text, answer in [("max,pauth-impdef=on", ""), ("max,pauth=off,sve=off", ""), ("max,sve128=on,pauth=off", "SVE is not"),
                         ("max,pauth=on", "pointer authentication is not"), ("cortex-a53,aarch64=on", "")]:
        done = run("-M", "virt", "-cpu", text, "-display", "none", "-nodefaults", "-machine", f"dumpdtb={os.devnull}")
        assert done.returncode == 0
        assert answer in done.stderr and done.stderr.count("\n") == bool(answer), done.stderr


@pytest.mark.parametrize("args,complaint", [
    (["-serial", "chardev:no"], "no character device has the id 'no'"),
    (["-mon", "chardev=no"], "no character device has the id 'no'"),
    (["-device", "virtio-net-pci,netdev=no"], "no -netdev has this id"),
    (["-nodefaults", "-serial", "null", "-serial", "null", "-serial", "null", "-serial", "null", "-serial", "null"], "at most 4"),
    (["-vga", "std"], "only none is possible"),
    (["-cpu", "max,sve129=on"], "sve129"),
    (["-machine", "virt,gic-version=9"], "gic-version=9"),
    (["-hda", "/nowhere"], "/nowhere"),
    (["-object", "rng-random,filename=/etc/passwd,id=r"], "filename=/etc/passwd"),
])
def test_mistakes_are_one_line(args, complaint):
    done = run("-S", *args)
    assert done.returncode == 1
    assert complaint in done.stderr and done.stderr.count("\n") == 1
