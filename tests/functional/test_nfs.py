"""The guest's root over NFS: the article's command line with a kernel that has ROOT_NFS, and armlet boot with
Debian's."""
import functools
import hashlib
import os
import re
import shutil
import subprocess
import threading
import time

import pytest
from guest import ARMLET, Guest, board, run
from test_boot import LOG


@functools.lru_cache(None)
def article_kernel():
    """Built from Debian's source when the cache has none: minutes."""
    return subprocess.run([ARMLET, "kernel", "build"], check=True, timeout=2700, stdout=subprocess.PIPE,
                          text=True).stdout.strip()


@pytest.fixture(scope="module")
def data_home(tmp_path_factory):
    old, new = os.environ.get("XDG_DATA_HOME"), str(tmp_path_factory.mktemp("data"))
    os.environ["XDG_DATA_HOME"] = new
    yield new
    if old is None:
        del os.environ["XDG_DATA_HOME"]
    else:
        os.environ["XDG_DATA_HOME"] = old


@pytest.fixture(scope="module")
def tree(data_home):
    """The busybox root that armlet boot makes."""
    run("boot", "--kernel", "6.1", "--show", timeout=600)
    return os.path.join(data_home, "armlet", "root", "busybox")


def article(tree, options="", export=None, net=()):
    """The article's command line, with another directory."""
    args = ["-machine", "virt", "-cpu", "cortex-a57", "-smp", "8", "-nographic", "-m", "4096", "-kernel",
            article_kernel(), "--append", "earlyprintk console=ttyAMA0 root=/dev/nfs "
            f"nfsroot=10.0.2.2:{export or tree}{options} rw ip=dhcp init=/linuxrc", *net]
    return args + (["-nfs", f"path={tree},mount={export}"] if export else [])


def off(g):
    g.child.sendline("poweroff")
    g.expect("reboot: Power down")
    assert g.wait() == 0


@pytest.mark.parametrize("options,words", [
    ("", "proto="), (",vers=3,tcp", "vers=3,.*proto=tcp"), (",vers=2,udp", "vers=2,.*proto=udp"),
    (",vers=3,udp,rsize=32768,wsize=32768", "vers=3,rsize=32768,wsize=32768.*proto=udp"),
    (",vers=3,tcp,port=2049,mountport=20048", "vers=3,.*proto=tcp,port=2049.*mountport=20048"),
])
def test_article(tree, options, words):
    data = os.urandom(3_000_000)
    with open(f"{tree}/root/from-host", "wb") as f:
        f.write(data)
    with Guest(article(tree, options)) as g:
        log = g.shell()
        assert f"nfsroot=: the guest gets this host's {tree} to read and write" in log
        for line in (r"IP-Config: Got DHCP answer from 10.0.2.2, my address is 10.0.2.15",
                     r"device=eth0, hwaddr=52:54:00:12:34:56, ipaddr=10.0.2.15, mask=255.255.255.0, gw=10.0.2.2",
                     r"bootserver=10.0.2.2, rootserver=10.0.2.2", r"VFS: Mounted root \(nfs filesystem\)",
                     r"hw perfevents: enabled", r"GICv2m: range.*SPI\[80:143\]"):
            assert re.search(line, log), line
        assert g.cmd("cd root; ./hello") == "Hello, ARM!"
        root = re.search(f"10.0.2.2:{tree} on / type nfs (.*)", g.cmd("mount")).group(1)
        assert re.search(words, root), root
        g.cmd("cp from-host copy; sync; mkdir -p d; mv copy d/copy; chmod 4755 d/copy; ln -s copy d/link")
        with open(f"{tree}/root/d/copy", "rb") as f:
            assert f.read() == data
        assert os.readlink(f"{tree}/root/d/link") == "copy"
        assert g.cmd("cmp from-host d/link && ls -l d/copy").startswith("-rwsr-xr-x")
        with open(f"{tree}/root/later", "w", encoding="ascii") as f:
            f.write("seen\n")
        assert g.cmd("cat later") == "seen"
        g.cmd("rm -rf d")
        assert not os.path.exists(f"{tree}/root/d")
        off(g)


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "max"])
def test_first_article_without_root(cpu):
    """Each processor, a kernel with its drivers built in, and no root: what is a module of Debian's kernel shows too."""
    with Guest(["-machine", "virt", "-cpu", cpu, "-machine", "type=virt", "-nographic", "-m", "2048", "-smp", "2",
                "-kernel", article_kernel(), "--append", "rdinit=/linuxrc console=ttyAMA0"]) as g:
        g.expect("Kernel panic - not syncing: VFS: Unable to mount root fs")
        for line in LOG + [r"pl061_gpio 9030000\.pl061: PL061 GPIO chip registered",
                           r"input: gpio-keys as /devices/platform/gpio-keys/input/input0"]:
            assert re.search(line, g.child.before), line
        g.send("\x01x")
        assert g.wait() == 0


def test_power_button(tree):
    """system_powerdown is the key of gpio-keys going down and up again: type EV_KEY (1), code KEY_POWER (116)."""
    with Guest(article(tree, ",vers=3,tcp")) as g:
        g.shell()
        g.cmd("[ -e /dev/input/event0 ] || mount -t devtmpfs none /dev")
        g.child.sendline("head -c 96 /dev/input/event0 | od -An -v -td2 -w24; echo END-$((6*7))")
        time.sleep(1)
        g.send("\x01c")
        g.expect(r"\(armlet\) ")
        g.send("system_powerdown\r")
        g.expect(r"\(armlet\) ")
        g.send("\x01c")
        g.expect("END-42")
        events = [line.split()[-4:] for line in g.child.before.replace("\r", "").split("\n")
                  if len(line.split()) == 12 and set(line) <= set("-0123456789 ")]
        assert events == [["1", "116", "1", "0"], ["0"] * 4, ["1", "116", "0", "0"], ["0"] * 4], g.child.before
        off(g)


def test_name_and_restrict(tree):
    """-nfs mount=, and a network that reaches nothing else; TCP and UDP with a card without offloads."""
    net = ["-netdev", "user,id=n,restrict=on", "-device", "virtio-net-pci,netdev=n,csum=off,guest_csum=off"]
    with Guest(article(tree, ",vers=3,tcp", "/opt/_install", net)) as g:
        assert "nfsroot=: the guest gets" not in g.shell()
        assert "10.0.2.2:/opt/_install on / type nfs" in g.cmd("mount")
        g.cmd("head -c 5000000 /dev/urandom > /root/r; md5sum /root/r > /root/r.md5")
        g.cmd("mkdir -p /tmp/m; mount -o nolock,vers=3,udp,addr=10.0.2.2 -t nfs 10.0.2.2:/opt/_install /tmp/m")
        assert "r: OK" in g.cmd("cd /; md5sum -c /tmp/m/root/r.md5")
        assert subprocess.run(["md5sum", f"{tree}/root/r"], stdout=subprocess.PIPE, text=True, check=True).stdout[:32] \
            == g.cmd("cut -c 1-32 /root/r.md5")
        off(g)


def test_two_machines(tree):
    """One tree, exported by two programs at once."""
    with Guest(article(tree, ",vers=3,tcp,acregmax=1,acdirmax=1")) as a, \
            Guest(article(tree, ",vers=3,tcp,acregmax=1,acdirmax=1")) as b:
        a.shell()
        b.shell()
        a.cmd("echo from-a > /root/shared; sync")
        assert b.cmd("sleep 2; cat /root/shared") == "from-a"
        b.cmd("echo from-b >> /root/shared; sync; mv /root/shared /root/moved")
        assert a.cmd("sleep 2; cat /root/moved").split() == ["from-a", "from-b"]
        a.cmd("for i in $(seq 100); do echo a >> /root/a; done")
        b.cmd("for i in $(seq 100); do echo b >> /root/b; done")
        assert a.cmd("sleep 2; cat /root/a /root/b | sort | uniq -c").split() == ["100", "a", "100", "b"]
        off(a)
        off(b)


def test_killed_and_started_again(tree):
    """What the guest has synced is there after kill -9."""
    with Guest(article(tree, ",vers=3,tcp")) as g:
        g.shell()
        g.cmd("head -c 4000000 /dev/urandom > /root/kept; sync; md5sum /root/kept > /root/kept.md5; sync")
        g.child.kill(9)
    with open(f"{tree}/root/kept", "rb") as data, open(f"{tree}/root/kept.md5", encoding="ascii") as told:
        assert hashlib.md5(data.read()).hexdigest() == told.read()[:32]


def test_names(tree):
    """What the guest's kernel lets through of strange names arrives as it is."""
    with Guest(article(tree, ",vers=3,tcp")) as g:
        g.shell()
        g.cmd("mkdir /root/names; cd /root/names; touch $(printf '\\377\\376'); touch 'a b' '..x' ./-f \"$(printf 'a\\nb')\"")
        g.cmd("touch $(head -c 255 /dev/zero | tr '\\0' n)")
        assert "name too long" in g.cmd("touch $(head -c 256 /dev/zero | tr '\\0' n) 2>&1")
        off(g)
    assert sorted(os.listdir(os.fsencode(f"{tree}/root/names"))) == sorted(
        [b"\xff\xfe", b"a b", b"..x", b"-f", b"a\nb", b"n" * 255])
    shutil.rmtree(f"{tree}/root/names")


def test_swapped_link(tree, tmp_path):
    """A directory that the host exchanges for a link out of the export, again and again, while the guest reads."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("outside")
    os.mkdir(f"{tree}/root/swap")
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            os.rename(f"{tree}/root/swap", f"{tree}/root/swap.dir")
            os.symlink(outside, f"{tree}/root/swap")
            os.remove(f"{tree}/root/swap")
            os.rename(f"{tree}/root/swap.dir", f"{tree}/root/swap")
    with open(f"{tree}/root/swap/secret", "w", encoding="ascii") as f:
        f.write("inside")
    with Guest(article(tree, ",vers=3,tcp,noac,lookupcache=none")) as g:
        g.shell()
        t = threading.Thread(target=swap)
        t.start()
        try:
            out = g.cmd("for i in $(seq 300); do cat /root/swap/secret 2>/dev/null; echo; done | sort | uniq -c")
        finally:
            stop.set()
            t.join()
        assert "inside" in out and "outside" not in out
        off(g)
    shutil.rmtree(f"{tree}/root/swap")


def test_read_only(tree):
    args = article(tree, ",vers=3,tcp", "/ro")
    args[-1] += ",readonly=on"
    with Guest(args) as g:
        g.shell()
        assert "Read-only file system" in g.cmd("touch /root/x 2>&1")
        off(g)


def test_full_disk(tree, tmp_path):
    """ENOSPC reaches the program in the guest, what was acknowledged is there, and room again is room again."""
    small = tmp_path / "small"
    small.mkdir()
    args = article(tree, ",vers=3,tcp", "/tree") + ["-nfs", f"path={small},mount=/small,ids=mapped"]
    line = 'mount -t tmpfs -o size=8m none "$0" && exec "$@"'
    with Guest(["-m" if os.geteuid() == 0 else "-Urm", "sh", "-c", line, str(small), ARMLET, *args], "unshare") as g:
        g.shell()
        g.cmd("mkdir -p /tmp/m; mount -o nolock,vers=3,tcp,addr=10.0.2.2 -t nfs 10.0.2.2:/small /tmp/m")
        g.cmd("head -c 3000000 /dev/urandom > /tmp/a; cp /tmp/a /tmp/m/a; sync")
        assert "No space left on device" in g.cmd("dd if=/dev/zero of=/tmp/m/b bs=1M count=20 conv=fsync 2>&1")
        assert g.cmd("cmp /tmp/a /tmp/m/a && echo same") == "same"
        assert g.cmd("rm /tmp/m/b; cp /tmp/a /tmp/m/c; sync; cmp /tmp/a /tmp/m/c && echo same") == "same"
        off(g)


def test_boot_command(tree):
    """armlet boot: the second article with Debian's kernel."""
    with Guest(["boot", "--kernel", "6.12"]) as g:
        log = g.shell()
        assert f"This root is the host's directory\r\n{tree}" in log.replace("\r\r", "\r")
        assert re.search(f"10.0.2.2:{tree} on / type nfs .*vers=3", g.cmd("mount"))
        g.cmd("echo guest > /root/from-guest")
        with open(f"{tree}/root/from-guest", encoding="ascii") as f:
            assert f.read() == "guest\n"
        with open(f"{tree}/root/from-host", "w", encoding="ascii") as f:
            f.write("host")
        assert g.cmd("cat /root/from-host") == "host"
        off(g)


def test_boot_root(tmp_path, tree):
    """A directory of the user's, with a name that a command line cannot hold."""
    mine = tmp_path / "my root, really"
    shutil.copytree(tree, mine, symlinks=True)
    with Guest(["boot", article_kernel(), "--root", str(mine), "--smp", "2"]) as g:
        assert "VFS: Mounted root (nfs filesystem)" in g.shell()
        assert "10.0.2.2:/export on / type nfs" in g.cmd("mount")
        off(g)


@pytest.mark.parametrize("args,words", [
    (["-nfs", "path=/nonexistent"], "'/nonexistent': No such file"),
    (["-nfs", "path=/etc/hostname"], "Not a directory"),
    (["-nfs", "mount=/x"], "-nfs: give path=DIRECTORY"),
    (["-nfs", "path=/tmp,mount=x"], "mount=x does not begin with '/'"),
    (["-nfs", "path=/tmp,redonly=on"], "did you mean 'readonly'"),
    (["-nfs", "path=/tmp,ids=some"], "give mapped or real"),
    (["-nfs", "/tmp", "-nfs", "/tmp"], "two exports have the name"),
    (["-append", "root=/dev/nfs nfsroot=10.0.2.2:/nonexistent"], "'/nonexistent': No such file"),
])
def test_mistakes(args, words):
    r = run(*board(), *args)
    assert r.returncode == 1 and words in r.stderr and r.stderr.count("\n") == 1, r.stderr
