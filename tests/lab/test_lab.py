"""armlet kernel, rootfs and boot: what they make, what boots with it, and wrong input."""
import glob
import http.server
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pexpect
import pytest

from armlet import ARMLET, SECONDS, armlet, read_from_image, run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder of the tests' own; the cache is the user's."""
    return {**os.environ, "XDG_DATA_HOME": str(tmp_path_factory.mktemp("data"))}


@pytest.fixture
def guest(data):
    children = []

    def boot(*args):
        child = pexpect.spawn(ARMLET, ["boot", "--kernel", "6.1", "--smp", "1", *args], timeout=SECONDS, encoding="utf-8",
                              codec_errors="replace", echo=False, env=data, dimensions=(24, 200))
        children.append(child)
        child.expect("[~/] # ")
        return child
    yield boot
    for child in children:
        child.close(force=True)


def cmd(child, line):
    """The output of a command in the guest's shell."""
    child.sendline(line + "; echo END-$((6*7))")
    child.expect(r"END-42\r*\n")
    text = child.before.replace("\r", "")
    child.expect("[~/] # ")
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def power_off(child):
    child.sendline("poweroff")
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


# --- rootfs and boot ------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def overlay(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overlay")
    (folder / "etc").mkdir()
    (folder / "etc" / "mark").write_text("from the overlay\n")
    return folder


def make(data, *args):
    r = armlet("rootfs", "make", *args, env=data)
    assert r.returncode == 0, r.stderr
    return r.stdout.decode().strip()


def test_directory_and_share(data, overlay, tmp_path, guest):
    (tmp_path / "from-host").write_text("hello\n")
    path = make(data, "tree", "--overlay", str(overlay))
    assert os.path.isdir(path) and os.readlink(path + "/bin/sh") == "/bin/busybox"
    again = armlet("rootfs", "make", "tree", env=data)
    assert again.returncode == 1 and b"exists already" in again.stderr
    assert "tree" in armlet("rootfs", "list", env=data).stdout.decode()
    g = guest("--root", "tree", "--share", str(tmp_path))
    assert "from the overlay\nhello" in cmd(g, "cat /etc/mark /share/from-host; echo tree > /share/from-guest")
    assert (tmp_path / "from-guest").read_text() == "tree\n"
    cmd(g, "echo made in the guest > /root/new")
    assert open(path + "/root/new").read() == "made in the guest\n"
    assert power_off(g) == 0


def test_initramfs(data, overlay, guest):
    path = make(data, "mem", "--format", "initramfs", "--overlay", str(overlay))
    assert path.endswith("/mem.cpio")
    assert make(data, "mem", "--format", "initramfs", "--replace") == path
    assert make(data, "mem", "--format", "initramfs", "--replace", "--overlay", str(overlay)) == path
    g = guest("--initrd", path)
    assert "from the overlay" in cmd(g, "cat /etc/mark; ls -l /dev/console")
    assert power_off(g) == 0


def test_image(data, overlay, guest):
    path = make(data, "disk", "--format", "ext4", "--overlay", str(overlay), "--size", "128M")
    assert os.path.getsize(path) == 128 << 20
    g = guest("--root", path)
    out = cmd(g, "cat /etc/mark; mount | grep ' / '; stat -c %u:%g /etc/mark; echo kept > /root/kept")
    assert "from the overlay" in out and "/dev/vda on / type ext4" in out and "0:0" in out
    assert power_off(g) == 0
    assert read_from_image(path, "/root/kept") == b"kept\n"


def test_modules(data):
    tree = make(data, "modules", "--modules", "--kernel", "6.1")
    r = run("sh", "-c", "modprobe dummy && ip link show dummy0", options=["--root", tree], env=data)
    assert r.returncode == 0 and b"dummy0" in r.stdout, r.stderr


def test_share_without_a_root(tmp_path, guest):
    (tmp_path / "from-host").write_text("hello\n")
    g = guest("--root", "none", "--share", str(tmp_path))
    assert "hello" in cmd(g, "cat /share/from-host; echo none > /share/from-guest")
    assert (tmp_path / "from-guest").read_text() == "none\n"
    assert power_off(g) == 0


def test_ssh_and_gdb_options():
    line = armlet("boot", "--root", "none", "--ssh=2299", "--gdb", "--show")
    words = line.stdout.decode()
    assert "-nic user,hostfwd=tcp:127.0.0.1:2299-:22" in words and "-gdb tcp::1234 -S" in words
    assert b"ssh -p 2299" in line.stderr


def test_small_size_is_refused(data):
    r = armlet("rootfs", "make", "little", "--format", "ext4", "--size", "1M", env=data)
    assert r.returncode == 1 and b"its files take" in r.stderr
    assert "little" not in armlet("rootfs", "list", env=data).stdout.decode()


def test_full_disk_leaves_nothing(data, tmp_path):
    # A limit on the size of files stands for a full disk: the archive is larger.
    r = subprocess.run(["sh", "-c", f"ulimit -f 100; {ARMLET} rootfs make {tmp_path}/x --format initramfs"], env=data,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert r.returncode == 1 and len(r.stderr.decode().splitlines()) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("args,words", [
    (["rootfs"], "give make or list"),
    (["rootfs", "make", "a", "b"], "too many words"),
    (["rootfs", "make", "--format", "zip"], "give dir, initramfs or ext4"),
    (["rootfs", "make", "--size", "5G"], "--size is for --format ext4"),
    (["rootfs", "make", "x", "--format", "ext4", "--size", "much"], "--size much"),
    (["rootfs", "make", "/proc/no/such"], "/proc/no"),
    (["rootfs", "make", "/tmp/armlet-x", "--overlay", "/no/such"], "/no/such: not a directory"),
    (["kernel"], "give list, get, build or config"),
    (["kernel", "make"], "not 'make'"),
    (["kernel", "get", "2.4"], "no kernel series 2.4"),
    (["kernel", "get", "6.1", "6.12"], "too many words"),
    (["kernel", "build", "--tiny", "--defconfig"], "give one of"),
    (["kernel", "build", "--source", "/no/such"], "/no/such: No such file"),
    (["kernel", "build", "--source", "/tmp"], "no Linux source for arm64"),
    (["kernel", "build", "--fragment", "/no/such"], "/no/such"),
    (["boot", "--root", "/no/such"], "--root /no/such: No such file"),
    (["boot", "--root", "none", "--share", "/no/such"], "--share /no/such: No such file"),
    (["boot", "--ssh=0"], "give a port"),
    (["boot", "--smpp", "2"], "did you mean --smp"),
])
def test_wrong_arguments(data, args, words):
    r = armlet(*args, env=data)
    err = r.stderr.decode()
    assert r.returncode == 1 and words in err and len(err.splitlines()) == 1, err


# --- kernels ---------------------------------------------------------------------------------------------------------

def test_list_shows_what_is_there():
    out = armlet("kernel", "list").stdout.decode()
    assert re.search(r"^6\.1 +\S+ +/", out, re.M)


@pytest.fixture
def tree(tmp_path):
    """Something like a kernel's source: what make would be asked is what armlet does."""
    t = tmp_path / "linux"
    (t / "arch/arm64").mkdir(parents=True)
    (t / "arch/arm64/Makefile").write_text("")
    (t / "scripts/dtc").mkdir(parents=True)
    (t / "scripts/min-tool-version.sh").write_text("echo 5.1.0\n")
    (t / "Makefile").write_text(
        "allnoconfig:\n\tcp $(KCONFIG_ALLCONFIG) $(O)/.config\n"
        "defconfig:\n\techo CONFIG_OLD=y > $(O)/.config\n"
        "olddefconfig: ;\n"
        "modules:\n\t@:\n"
        "Image:\n\tmkdir -p $(O)/arch/arm64/boot\n\t@echo '  CC      x.o'\n\techo >> $(O)/built\n"
        "\tcp $(O)/.config $(O)/arch/arm64/boot/Image\n")
    return t


@pytest.fixture
def cache(tmp_path):
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_build_of_a_tree_stays(tree, cache, tmp_path):
    (tmp_path / "fragment").write_text("CONFIG_MINE=y\n")
    build = ["kernel", "build", "--source", str(tree), "--fragment", str(tmp_path / "fragment")]
    r = armlet(*build, env=cache)
    image = r.stdout.decode().strip()
    assert r.returncode == 0, r.stderr
    text = open(image).read()
    assert "CONFIG_MINE=y" in text and "CONFIG_ROOT_NFS=y" in text and "CONFIG_9P_FS=y" in text
    before = os.stat(os.path.join(os.path.dirname(image), "../../../.config")).st_mtime_ns
    assert armlet(*build, env=cache).stdout.decode().strip() == image
    assert os.stat(os.path.join(os.path.dirname(image), "../../../.config")).st_mtime_ns == before
    assert image in armlet("kernel", "list", env=cache).stdout.decode()


def test_defconfig_has_our_lines_behind_it(tree, cache):
    r = armlet("kernel", "config", "--defconfig", "--source", str(tree), env=cache)
    text = open(r.stdout.decode().strip()).read()
    assert text.startswith("CONFIG_OLD=y\n") and "# CONFIG_DRM is not set" in text and "CONFIG_GDB_SCRIPTS=y" in text


def test_option_that_the_kernel_does_not_take(tree, cache, tmp_path):
    (tmp_path / "fragment").write_text("CONFIG_MINE=y\n")
    makefile = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(makefile.replace("cp $(KCONFIG_ALLCONFIG)", "grep -v MINE $(KCONFIG_ALLCONFIG) >"))
    r = armlet("kernel", "config", "--source", str(tree), "--fragment", str(tmp_path / "fragment"), env=cache)
    assert r.returncode == 1 and b"does not take CONFIG_MINE=y" in r.stderr


def test_compilers_that_will_not_do(tree, cache):
    (tree / "scripts/min-tool-version.sh").write_text("echo 99.1.0\n")
    r = armlet("kernel", "build", "--source", str(tree), env=cache)
    assert r.returncode == 1 and b"needs gcc 99.1.0 or newer, and aarch64-linux-gnu-gcc is" in r.stderr
    (tree / "scripts/min-tool-version.sh").write_text("echo 5.1.0\n")
    (tree / "scripts/dtc/dtc-lexer.l").write_text("%{\nYYLTYPE yylloc;\n%}\n")
    r = armlet("kernel", "build", "--source", str(tree), env=cache)
    assert r.returncode == 1 and b"defines yylloc once too often" in r.stderr


def test_tree_built_in_place(tree, cache):
    (tree / ".config").write_text("")
    r = armlet("kernel", "build", "--source", str(tree), env=cache)
    assert r.returncode == 1 and b"make mrproper" in r.stderr


def test_build_that_fails_says_why(tree, cache):
    (tree / "Makefile").write_text((tree / "Makefile").read_text().replace("\techo >> $(O)/built\n", "\techo 'x.c:1: error: no' >&2; false\n"))
    r = armlet("kernel", "build", "--source", str(tree), env=cache)
    assert r.returncode == 1 and b"x.c:1: error: no" in r.stderr


def test_interrupted_build_of_debians_source_goes_on(tree, cache):
    """Without --source; the tree stands for Debian's."""
    source = os.path.join(cache["XDG_CACHE_HOME"], "armlet/source/linux-source-6.1_0")
    makefile = (tree / "Makefile").read_text() + "\ttouch $(O)/System.map $(O)/vmlinux\n"
    shutil.copytree(tree, source)
    with open(source + "/Makefile", "w") as f:
        f.write(makefile.replace("allnoconfig:\n", "allnoconfig:\n\techo >> $(O)/configured\n")
                .replace("\techo >> $(O)/built\n", "\techo >> $(O)/built; [ `wc -l < $(O)/built` = 2 ] || sleep 60\n"))
    p = subprocess.Popen([ARMLET, "kernel", "build"], env=cache, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    work = cache["XDG_CACHE_HOME"] + "/armlet/built/*.work/out/"
    end = time.monotonic() + SECONDS
    while not glob.glob(work + "built"):
        assert p.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=SECONDS)
    assert p.returncode and glob.glob(work + "configured")
    r = armlet("kernel", "build", env=cache, timeout=30)
    image = r.stdout.decode().strip()
    assert r.returncode == 0 and "CONFIG_ROOT_NFS=y" in open(image).read(), r.stderr
    assert not glob.glob(work)
    assert armlet("kernel", "build", env=cache).stdout.decode().strip() == image


def test_interrupted_build_goes_on(tree, cache):
    (tree / "Makefile").write_text((tree / "Makefile").read_text().replace("\techo >> $(O)/built\n", "\techo >> $(O)/built; sleep 30\n"))
    p = subprocess.Popen([ARMLET, "kernel", "build", "--source", str(tree)], env=cache, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    while not glob.glob(cache["XDG_CACHE_HOME"] + "/armlet/build/*/built"):
        assert p.poll() is None
        time.sleep(0.1)
    p.terminate()
    p.communicate(timeout=SECONDS)
    (tree / "Makefile").write_text((tree / "Makefile").read_text().replace("; sleep 30", ""))
    r = armlet("kernel", "build", "--source", str(tree), env=cache)
    assert r.returncode == 0 and os.path.exists(r.stdout.decode().strip())


class Mirror(http.server.BaseHTTPRequestHandler):
    """Debian's mirror as apt's proxy, with ranges and dates, which not every mirror has; the first package stops halfway."""
    protocol_version = "HTTP/1.1"
    date = "Sun, 01 Jan 2023 00:00:00 GMT"

    def log_message(self, *_):
        pass

    def do_GET(self):
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(self.path, timeout=60) as r:
            data = r.read()
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(start[1]) if start and self.headers.get("If-Range") == self.date else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Last-Modified", self.date)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        stops = self.path.endswith(".deb") and not self.server.starts
        if self.path.endswith(".deb"):
            self.server.starts.append(start)
        self.wfile.write(data[start:len(data) // 2] if stops else data[start:])
        if stops:
            self.wfile.flush()
            self.server.stopped.wait(SECONDS)
            self.close_connection = True


def test_interrupted_download_goes_on(cache, data, tmp_path):
    user = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    shutil.copytree(os.path.join(user, "armlet/apt"), tmp_path / "cache/armlet/apt",
                    ignore=shutil.ignore_patterns("partial", "lock*", "*.deb"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as mirror:
        mirror.starts, mirror.stopped, mirror.daemon_threads = [], threading.Event(), True
        threading.Thread(target=mirror.serve_forever, daemon=True).start()
        env = {**cache, **data, "XDG_CACHE_HOME": cache["XDG_CACHE_HOME"],
               "http_proxy": f"http://127.0.0.1:{mirror.server_port}"}
        make = [ARMLET, "rootfs", "make", str(tmp_path / "root")]
        p = subprocess.Popen(make, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        partial = tmp_path / "cache/armlet/apt/cache/archives/partial"
        end = time.monotonic() + SECONDS
        while not (partial.exists() and any(f.stat().st_size > 100000 for f in partial.iterdir() if f.suffix == ".deb")):
            assert p.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        p.kill()
        p.communicate(timeout=SECONDS)
        mirror.stopped.set()
        assert not (tmp_path / "root").exists()
        r = subprocess.run(make, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SECONDS)
        mirror.shutdown()
    assert r.returncode == 0 and os.access(tmp_path / "root/bin/busybox", os.X_OK), r.stderr
    first, second = mirror.starts
    assert first == 0 and second >= 100000


@pytest.mark.parametrize("size,lists,words", [("1m", False, "needs 65 MB"), ("90m", True, "needs 4")])
def test_full_cache_disk(tmp_path, size, lists, words):
    """A file system of that size in a name space of its own, without and with the package lists."""
    user = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "armlet", "apt")
    copy = f"mkdir armlet && cp -r {user} armlet && rm -rf armlet/apt/cache &&" if lists else ""
    r = subprocess.run(["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size={size} none {tmp_path} && cd {tmp_path} && "
                        f"{copy} XDG_CACHE_HOME={tmp_path} exec timeout 60 {ARMLET} kernel get 6.1"], timeout=SECONDS,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    line = r.stderr.decode().splitlines()[-1]
    assert r.returncode == 1 and words in line and "MB free (XDG_CACHE_HOME names another place)" in line, r.stderr


def test_disk_that_gets_full_under_a_build(tree, cache):
    full = "echo 'x.s: fatal error: error writing to x.o: No space left on device' >&2; false"
    makefile = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(makefile.replace("\techo >> $(O)/built\n", f"\t{full}\n"))
    r = armlet("kernel", "build", "--source", str(tree), env=cache)
    assert r.returncode == 1 and b"the disk is full (XDG_CACHE_HOME names another place)" in r.stderr.splitlines()[-1]


def test_no_network(cache):
    # A proxy where nobody is: what a fetch finds without a network.
    env = {**cache, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    r = armlet("kernel", "get", "6.1", env=env, timeout=120)
    assert r.returncode == 1 and b"no network?" in r.stderr.splitlines()[-1]
