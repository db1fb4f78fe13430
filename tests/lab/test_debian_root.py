"""A whole Debian root, made and used by an ordinary user: armlet rootfs make debian, boot, run.  Fetches Debian once.

The packages fetched go into the cache of who runs the tests, for the next time.
"""
import functools
import glob
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import time

import pexpect
import pytest

import repository

BOOT_SECONDS = 300
PROMPT = "root@armlet:[^ ]*# "
MEGABYTES = 100


@pytest.fixture(scope="module")
def user():
    u = repository.User()
    kept = os.path.join(repository.user_cache(), "tests-debian")
    for state in glob.glob(os.path.join(kept, "apt-*")):
        shutil.copytree(state, os.path.join(u.cache, os.path.basename(state)))
    u.give(u.folder)
    yield u
    for state in glob.glob(os.path.join(u.cache, "apt-*")):
        shutil.copytree(state, os.path.join(kept, os.path.basename(state)), dirs_exist_ok=True)
    u.remove()


@pytest.fixture(scope="module")
def root(user):
    """Made, with an interruption that nothing survives in the middle of its second stage."""
    command = [user.armlet, "rootfs", "make", "debian", "mine", "--kernel", "6.1", "--include", "dropbear-bin"]
    log = os.path.join(user.roots, "mine.making", "log")
    with subprocess.Popen(command, env=user.env, cwd=user.home, preexec_fn=user.become, stdin=subprocess.DEVNULL) as first:
        end = time.monotonic() + 1200
        while time.monotonic() < end and first.poll() is None:
            if os.path.exists(log) and open(log, encoding="utf-8", errors="replace").read().count(": installed") > 30:
                break
            time.sleep(0.1)
        assert first.poll() is None, "it has ended before it could be killed"
        first.kill()
    with subprocess.Popen(command, env=user.env, cwd=user.home, preexec_fn=user.become, stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as second:
        size, end = os.path.getsize(log), time.monotonic() + 300
        while os.path.getsize(log) == size and time.monotonic() < end:
            time.sleep(0.1)
        second.send_signal(signal.SIGINT)
        assert "interrupted; the same command goes on from here" in second.communicate(timeout=300)[1] and second.returncode == 130
    assert not os.path.exists(os.path.join(user.roots, "mine"))
    r = user.run(*command, timeout=1200)
    assert r.returncode == 0, r.stderr
    assert "which an earlier run has begun" in r.stderr and "fetching" not in r.stderr
    assert r.stdout.strip() == os.path.join(user.roots, "mine")
    assert os.listdir(user.roots) == ["mine"]
    return os.path.join(user.roots, "mine")


def run(user, root, script, timeout=600, options=()):
    r = user.lab("run", "--kernel", "6.1", "--root", root, "--no-share", *options, "--", "sh", "-c", script, timeout=timeout)
    return r


def test_nothing_is_left_over(user, root):
    assert sorted(os.listdir(root)) == sorted("bin boot dev etc home lib media mnt opt proc root run sbin srv sys tmp usr var".split())
    for pattern in ("var/cache/apt/archives/*.deb", "usr/sbin/policy-rc.d", "var/log/dpkg.log", "tmp/*", "run/*", "root/.??*.dpkg*"):
        assert glob.glob(os.path.join(root, pattern)) == [], pattern


def test_packages_are_whole(user, root):
    r = run(user, root, """
        dpkg --verify; echo "verify $?"; dpkg --audit
        dpkg-query -W -f '${db:Status-Abbrev}\\n' | sort | uniq -c
        find / -xdev '(' -name '*.dpkg-new' -o -name '*.dpkg-tmp' ')'
        stat -c '%a %U %G %n' /usr/bin/passwd /usr/bin/chage /etc/shadow /tmp /var/mail
    """)
    assert r.returncode == 0, r.stderr
    lines = r.stdout.splitlines()
    assert lines[0] == "verify 0" and re.fullmatch(r" +\d+ ii ", lines[1]), r.stdout
    assert lines[2:] == ["4755 root root /usr/bin/passwd", "2755 root shadow /usr/bin/chage", "640 root shadow /etc/shadow",
                         "1777 root root /tmp", "2775 root mail /var/mail"]


@pytest.fixture(scope="module")
def repo(user):
    """A server on the loopback with Debian's hello, packages of its own and a large file."""
    folder = os.path.join(user.folder, "repo")
    os.makedirs(folder)
    state = glob.glob(os.path.join(user.cache, "apt-bookworm-*"))[0]
    r = user.run("apt-get", "-q", "-c", os.path.join(state, "apt.conf"), "-o", f"Dir::Cache::archives={user.home}", "download",
                 "hello:arm64")
    assert r.returncode == 0, r.stderr
    hello = glob.glob(os.path.join(user.home, "hello_*.deb"))[0]
    shutil.move(hello, folder)
    debs = [os.path.join(folder, os.path.basename(hello)),
            repository.build(folder, "armlet-test", [("usr/bin/armlet-test", 0o755, 0, 0, "#!/bin/sh\necho it works\n")], depends="hello",
                             control={"postinst": "#!/bin/sh\nchown games:games /usr/bin/armlet-test\nchmod 6755 /usr/bin/armlet-test\n"})]
    repository.flat(folder, debs)
    with open(os.path.join(folder, "large"), "wb") as f:
        f.write(random.Random(1).randbytes(MEGABYTES << 20))
    with repository.Server(folder) as server:
        yield server


def test_apt_knows_what_there_is(user, root):
    r = run(user, root, "apt-cache policy hello | grep Candidate; cat /etc/apt/sources.list")
    assert r.returncode == 0 and "Candidate: 2." in r.stdout and " bookworm-security main" in r.stdout, r.stdout + r.stderr


def test_apt_installs_from_the_loopback(user, root, repo):
    """From this repository alone."""
    r = run(user, root, f"""
        mv /etc/apt/sources.list /root; echo 'deb [trusted=yes] http://10.0.2.2:{repo.port} ./' >/etc/apt/sources.list
        apt-get -q update && apt-get -q install -y armlet-test && hello && armlet-test && dpkg --verify && dpkg --audit
        stat -c '%a %U %G' /usr/bin/armlet-test
    """)
    assert r.returncode == 0, r.stdout + r.stderr
    assert r.stdout.splitlines()[-3:] == ["Hello, world!", "it works", "6755 games games"]
    r = run(user, root, "apt-get -q remove -y --purge hello && ! command -v hello && dpkg --verify; mv /root/sources.list /etc/apt")
    assert r.returncode == 0, r.stdout + r.stderr


def test_a_large_download_is_right(user, root, repo):
    with open(os.path.join(user.folder, "repo", "large"), "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    r = run(user, root, f"cd /var/tmp && /usr/lib/apt/apt-helper download-file http://10.0.2.2:{repo.port}/large large SHA256:{digest} "
            f"&& sha256sum large && stat -c %s large && rm large")
    assert r.returncode == 0, r.stdout + r.stderr
    assert f"{digest}  large\n{MEGABYTES << 20}\n" in r.stdout


@pytest.fixture
def boot(user):
    children = []

    def boot_root(root, *args):
        root = ["--initrd", root, "--memory", "3G"] if root.endswith(".cpio") else ["--root", root]
        child = pexpect.spawn(user.armlet, ["boot", "--kernel", "6.1", *root, *args], timeout=BOOT_SECONDS, env=user.env,
                              cwd=user.home, preexec_fn=user.become, encoding="utf-8", codec_errors="replace", echo=False,
                              dimensions=(33, 133))
        children.append(child)
        child.expect(r"armlet login: root \(automatic login\)")
        child.expect(PROMPT)
        return child
    yield boot_root
    for child in children:
        child.close(force=True)


@pytest.fixture
def guest(boot, root):
    return functools.partial(boot, root)


def cmd(child, line):
    child.sendline(line + "; echo END-$((6*7))")
    child.expect(r"END-42\r*\n")
    text = child.before.replace("\r", "")
    child.expect(PROMPT)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def power_off(child):
    child.sendline("poweroff")
    child.expect("reboot: Power down")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_systemd_boots_to_a_login_and_shuts_down(root, guest):
    g = guest()
    assert "running" in cmd(g, "systemctl is-system-running --wait")
    assert "0 loaded units" in cmd(g, "systemctl --failed --no-pager")
    assert re.search(r"10\.0\.2\.2:\S+ on / type nfs", cmd(g, "mount"))
    assert "33 133" in cmd(g, "stty size")
    assert "inet 10.0.2.15/24" in cmd(g, "ip addr") and "default via 10.0.2.2" in cmd(g, "ip route")
    cmd(g, "echo made in the guest >/root/new; useradd -m someone; su someone -c 'echo mine >~/his; id -un'; sync")
    with open(os.path.join(root, "root", "new"), encoding="utf-8") as f:
        assert f.read() == "made in the guest\n"
    assert os.getxattr(os.path.join(root, "home", "someone", "his"), "user.armlet.node").decode().startswith("1 f 0644 1000 1000")
    cmd(g, "userdel -r someone; rm /root/new")
    power_off(g)
    g = guest()  # and again: nothing of the shutdown was in the way
    assert "running" in cmd(g, "systemctl is-system-running --wait")
    power_off(g)


def test_ssh_into_the_guest(user, root, guest, tmp_path):
    """dropbear of Debian's, a forwarded port, a key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True, timeout=60)
    os.makedirs(os.path.join(root, "root", ".ssh"), mode=0o700, exist_ok=True)
    shutil.copy(tmp_path / "key.pub", os.path.join(root, "root", ".ssh", "authorized_keys"))
    user.give(os.path.join(root, "root", ".ssh"))
    with repository.Server(str(tmp_path)) as taken:
        port = taken.port  # free again a moment later
    g = guest(f"--ssh={port}")
    cmd(g, "mkdir -p /etc/dropbear; dropbearkey -t ed25519 -f /etc/dropbear/key >/dev/null; dropbear -s -r /etc/dropbear/key")
    ssh = ["ssh", "-p", str(port), "-i", str(tmp_path / "key"), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
           "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "root@127.0.0.1"]
    r = subprocess.run([*ssh, "uname -m; cat >/root/by-ssh; exit 7"], input="through the tunnel\n", stdout=subprocess.PIPE, text=True, timeout=120)
    assert r.stdout == "aarch64\n" and r.returncode == 7
    with open(os.path.join(root, "root", "by-ssh"), encoding="utf-8") as f:
        assert f.read() == "through the tunnel\n"
    data = random.Random(2).randbytes(8 << 20)
    r = subprocess.run([*ssh, "tee /root/by-ssh | sha256sum"], input=data, stdout=subprocess.PIPE, timeout=120)
    assert r.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    cmd(g, "rm /root/by-ssh")
    power_off(g)


def test_restricted_network_still_mounts(root, guest, repo):
    g = guest("--", "-nic", "user,restrict=on")
    assert re.search(r"10\.0\.2\.2:\S+ on / type nfs", cmd(g, "mount"))
    out = cmd(g, f"/usr/lib/apt/apt-helper -o Acquire::http::Timeout=5 -o Acquire::Retries=0 download-file http://10.0.2.2:{repo.port}/large /tmp/large; "
              "ls -l /tmp/large")
    assert "cannot access" in out, out
    power_off(g)


def test_an_image_boots(user, boot):
    """The same as an ext4 image: owners and modes are the file system's own, and the address comes by DHCP."""
    r = user.lab("rootfs", "make", "debian", "disk", "--kernel", "6.1", "--format", "ext4", "--size", "700M", timeout=1200)
    image = os.path.join(user.roots, "disk.ext4")
    assert r.returncode == 0 and r.stdout == image + "\n", r.stderr
    assert os.path.getsize(image) == 700 << 20 and not os.path.exists(image + ".making")
    g = boot("disk")
    assert "running" in cmd(g, "systemctl is-system-running --wait")
    assert "/dev/vda on / type ext4" in cmd(g, "mount")
    cmd(g, "until ip route | grep -q default; do sleep 0.2; done")
    assert "inet 10.0.2.15/24" in cmd(g, "ip addr") and "default via 10.0.2.2" in cmd(g, "ip route")
    out = cmd(g, "stat -c '%a %U %G' /usr/bin/chage; ls -d /.armlet")
    assert "2755 root shadow" in out and "No such file" in out
    assert "complaints: 0" in cmd(g, "echo complaints: $(dpkg --verify | wc -l)")
    power_off(g)
    check = subprocess.run(["/sbin/e2fsck", "-fn", image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert check.returncode == 0, check.stdout


def test_an_initramfs_boots(user, boot):
    """The same as an archive in memory: owners, modes and special bits are as in the directory."""
    r = user.lab("rootfs", "make", "debian", "memory", "--kernel", "6.1", "--format", "initramfs", timeout=1200)
    archive = os.path.join(user.roots, "memory.cpio")
    assert r.returncode == 0 and r.stdout == archive + "\n", r.stderr
    assert not os.path.exists(archive + ".making")
    g = boot(archive)
    assert "running" in cmd(g, "systemctl is-system-running --wait")
    out = cmd(g, "stat -c '%a %U %G %n' /usr/bin/passwd /usr/bin/chage /etc/shadow /tmp /var/mail; ls -d /.armlet")
    for line in ("4755 root root /usr/bin/passwd", "2755 root shadow /usr/bin/chage", "640 root shadow /etc/shadow",
                 "1777 root root /tmp", "2775 root mail /var/mail", "No such file"):
        assert line in out, out
    assert "complaints: 0" in cmd(g, "echo complaints: $(dpkg --verify | wc -l)")
    power_off(g)


def test_another_suite(user):
    """trixie, which has other packages; and what --overlay and --modules put on top."""
    over = os.path.join(user.folder, "over")
    os.makedirs(os.path.join(over, "etc"), exist_ok=True)
    with open(os.path.join(over, "etc", "mark"), "w", encoding="utf-8") as f:
        f.write("from the overlay\n")
    user.give(over)
    r = user.lab("rootfs", "make", "debian", "trixie", "--suite", "trixie", "--kernel", "6.1", "--modules", "--overlay", over, timeout=1200)
    assert r.returncode == 0, r.stderr
    r = run(user, r.stdout.strip(), ". /etc/os-release; echo $VERSION_CODENAME; cat /etc/mark; dpkg --verify; dpkg --audit; modinfo -n 9p")
    assert r.returncode == 0, r.stderr
    lines = r.stdout.splitlines()
    assert lines[:2] == ["trixie", "from the overlay"] and re.search(r"/lib/modules/6\.1\S*/9p\.ko", lines[2]) and len(lines) == 3, r.stdout
