"""virtio-9p with Linux's client: files both ways, security models, caches, a root file system."""
import fcntl
import os
import stat
import subprocess

import pytest
from guest import BUILD, Guest, board, run

CLIENT = "trans=virtio,version=9p2000.L,msize=512000"


def nine_board(series="6.1", **kwargs):
    """The board with an initramfs that has the modules of 9P."""
    args = board(series, **kwargs)
    out = subprocess.run([os.path.join(BUILD, "tests", "lab_paths"), series, "9p", "9pnet_virtio"], check=True,
                         timeout=900, stdout=subprocess.PIPE, text=True).stdout
    args[args.index("-initrd") + 1] = dict(line.split("=", 1) for line in out.split())["initramfs"]
    return args


def virtfs(path, model="none", *more):
    return ["-virtfs", ",".join([f"local,path={path},mount_tag=share,security_model={model}", *more])]


def mount(g, options=""):
    assert g.cmd(f"mount -t 9p -o {CLIENT}{options} share /mnt; echo $?") == "0"


@pytest.fixture
def share(tmp_path):
    path = tmp_path / "share"
    path.mkdir()
    (path / "hello").write_text("from the host\n")
    (path / "out").symlink_to("../outside")
    (tmp_path / "outside").write_text("not exported\n")
    return path


@pytest.mark.parametrize("series,cache", [("6.1", "none"), ("6.1", "loose"), ("6.12", "mmap")])
def test_files_both_ways(share, series, cache):
    with Guest(nine_board(series, smp=2) + virtfs(share)) as g:
        g.shell()
        mount(g, f",cache={cache}")
        assert g.cmd("cat /mnt/hello") == "from the host"
        assert "No such file" in g.cmd("cat /mnt/out 2>&1")  # the guest's own /outside is not there
        g.cmd("mkdir -p /mnt/a/b; echo one > /mnt/a/b/f; mv /mnt/a/b/f /mnt/a/g; ln /mnt/a/g /mnt/a/h; "
              "ln -s g /mnt/a/l; chmod 4750 /mnt/a/g; touch -d '2001-02-03 04:05:06' /mnt/a/g")
        assert g.cmd("cat /mnt/a/l; stat -c '%a %h %s' /mnt/a/g") == "one\n4750 2 4"
        g.cmd("dd if=/dev/urandom of=/tmp/r bs=64k count=100 2>/dev/null; cp /tmp/r /mnt/big; sync")
        assert g.cmd("cmp /tmp/r /mnt/big && echo same") == "same"
        g.cmd("echo tail >> /mnt/a/g; rmdir /mnt/a/b; dd if=/dev/zero of=/mnt/hole bs=1 count=1 seek=99999 2>/dev/null")
        assert g.cmd("for i in $(seq 500); do echo $i > /mnt/n$i; done; ls /mnt/n* | wc -l") == "500"
        assert g.cmd("rm /mnt/n*; ls -1 /mnt") == "a\nbig\nhello\nhole\nout"
        assert "share" in g.cmd("df /mnt | tail -1")
        g.cmd("umount /mnt")
        g.child.sendline("poweroff -f")
        assert g.wait() == 0
    g_file = share / "a" / "g"
    assert g_file.read_text() == "one\ntail\n"
    assert stat.S_IMODE(g_file.stat().st_mode) == 0o4750
    assert os.readlink(share / "a" / "l") == "g"
    assert (share / "hole").stat().st_size == 100000
    assert (share / "big").stat().st_size == 6553600


def test_host_and_guest_see_each_other_at_once(share):
    with Guest(nine_board() + virtfs(share)) as g:
        g.shell()
        mount(g)
        (share / "late").write_text("written while it runs\n")
        assert g.cmd("cat /mnt/late") == "written while it runs"
        g.cmd("echo back > /mnt/late")
        assert (share / "late").read_text() == "back\n"
        g.send("\x01x")
        assert g.wait() == 0


@pytest.mark.parametrize("model", ["mapped-xattr", "mapped-file"])
def test_owners_and_devices_of_the_guest(share, model):
    try:
        os.setxattr(share / "hello", "user.probe", b"1")
    except OSError:
        if model == "mapped-xattr":
            pytest.skip("the file system of the temporary directory has no extended attributes")
    with Guest(nine_board() + virtfs(share, model)) as g:
        g.shell()
        mount(g)
        g.cmd("echo x > /mnt/f; chown 12:34 /mnt/f; chmod 6711 /mnt/f; mknod /mnt/null c 1 3; mkfifo /mnt/p; "
              "ln -s f /mnt/l; mkdir /mnt/d; chown 7 /mnt/d; mv /mnt/null /mnt/d/")
        assert g.cmd("stat -c '%a %u %g %F' /mnt/f") == "6711 12 34 regular file"
        assert g.cmd("stat -c '%t %T %F' /mnt/d/null") == "1 3 character special file"
        assert g.cmd("echo gone > /mnt/d/null; cat /mnt/l; stat -c %u /mnt/d; test -p /mnt/p && echo pipe") == "x\n7\npipe"
        assert ".virtfs" not in g.cmd("ls -a /mnt")
        g.child.sendline("poweroff -f")
        assert g.wait() == 0
    assert stat.S_ISREG((share / "d" / "null").lstat().st_mode)
    assert stat.S_ISREG((share / "l").lstat().st_mode)
    assert (share / "f").stat().st_uid == os.geteuid()


def test_readonly_and_fsdev_on_both_transports(share):
    fsdev = ["-fsdev", f"local,id=fs,path={share},security_model=none,readonly=on,multidevs=remap"]
    devices = ["-device", "virtio-9p-device,fsdev=fs,mount_tag=share", "-device",
               "virtio-9p-pci-non-transitional,fsdev=fs,mount_tag=pci"]
    with Guest(nine_board() + fsdev + devices) as g:
        g.shell()
        mount(g)
        assert g.cmd(f"mkdir /tmp/p; mount -t 9p -o {CLIENT} pci /tmp/p; cat /tmp/p/hello") == "from the host"
        assert "Read-only" in g.cmd("echo x > /mnt/new")
        assert "Read-only" in g.cmd("rm /tmp/p/hello 2>&1")
        g.send("\x01x")
        assert g.wait() == 0
    assert sorted(os.listdir(share)) == ["hello", "out"]


def test_root_file_system(share):
    """The guest copies itself to the share; another one has it as its root."""
    with Guest(nine_board() + virtfs(share)) as g:
        g.shell()
        mount(g)
        g.cmd("cp -a /bin /sbin /etc /usr /mnt/; mkdir /mnt/proc /mnt/dev /mnt/sys /mnt/tmp")
        g.child.sendline("poweroff -f")
        assert g.wait() == 0
    with Guest(nine_board(append="console=ttyAMA0 rdinit=/bin/sh", smp=2) + virtfs(share)) as g:
        g.expect("/ # ")
        for line in ["mount -t proc proc /proc", "mount -t devtmpfs devtmpfs /dev",
                     "while read -r m; do insmod $m; done < /etc/modules", f"mount -t 9p -o {CLIENT},cache=loose share /mnt",
                     "mount --move /dev /mnt/dev", "mount --move /proc /mnt/proc",
                     "exec switch_root /mnt /bin/sh < /dev/console > /dev/console 2>&1"]:
            g.child.sendline(line)
        g.child.sendline("export PS1='/ # '; stty -echo")
        assert " / 9p " in g.cmd("cat /proc/mounts")
        g.cmd("echo kept > /etc/mark; sync")
        g.child.sendline("poweroff -f")
        assert g.wait() == 0
    assert (share / "etc" / "mark").read_text() == "kept\n"


@pytest.mark.parametrize("args,complaint", [
    (["-virtfs", "local,path=/nowhere,mount_tag=t,security_model=none"], "-fsdev path=/nowhere: cannot be opened: No such"),
    (["-virtfs", "local,path=/tmp,security_model=none"], "give mount_tag="),
    (["-virtfs", "local,path=/tmp,mount_tag=t"], "give security_model="),
    (["-virtfs", "local,path=/tmp,mount_tag=t,security_model=some"], "security_model=some: give none"),
    (["-virtfs", "local,path=/etc/passwd,mount_tag=t,security_model=none"], "Not a directory"),
    (["-virtfs", "proxy,path=/tmp,mount_tag=t,security_model=none"], "-fsdev proxy: only local is here"),
    (["-virtfs", "local,path=/tmp,mount_tag=t,security_model=none,fmode=600"], "fmode=600: only for"),
    (["-virtfs", "local,path=/tmp,mount_tag=t,security_model=none,colour=red"], "colour"),
    (["-device", "virtio-9p-pci,fsdev=no,mount_tag=t"], "no -fsdev has the id 'no'"),
    (["-device", "virtio-9p-pci"], "give fsdev=ID"),
])
def test_mistakes_are_one_line(args, complaint):
    done = run("-nographic", "-S", *args)
    assert done.returncode == 1
    assert complaint in done.stderr and done.stderr.count("\n") == 1


LOCKER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(argv[1], O_RDWR);

    printf("%s-%d\n", fcntl(fd, F_SETLK, &fl) ? "REFUSED" : "LOCKED", 1 + 1);
    fflush(stdout);
    return argc > 2 ? getchar() : 0;
}
"""


def test_locks_are_seen_by_the_host_and_back(share):
    subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-xc", "-", "-o", share / "lock"], input=LOCKER, text=True, check=True)
    with Guest(nine_board() + virtfs(share)) as g, open(share / "hello", "r+") as f:
        g.shell()
        mount(g)
        assert g.cmd("/mnt/lock /mnt/hello") == "LOCKED-2"
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert g.cmd("/mnt/lock /mnt/hello") == "REFUSED-2"
        fcntl.lockf(f, fcntl.LOCK_UN)
        g.child.sendline("/mnt/lock /mnt/hello and-wait")
        g.expect("LOCKED-2")
        with pytest.raises(OSError):
            fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
        g.child.sendline("")
        g.expect("/ # ")
        fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
        g.send("\x01x")
        assert g.wait() == 0
