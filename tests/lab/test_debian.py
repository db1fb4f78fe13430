"""armlet rootfs make debian with a mirror of the tests' own: what is chosen and unpacked, wrong input.  As an ordinary user.

That the whole of Debian is made and boots is test_debian_root.py's.
"""
import filecmp
import glob
import os
import re
import subprocess

import pytest

import repository
from armlet import armlet

LONG = "usr/share/" + "long-name/" * 12 + "and-a-file-whose-name-is-long-too"
FILES = [("etc", 0o755, 0, 0, None), ("etc/thing.conf", 0o640, 0, 0, "a = 1\n"), ("bin/tool", 0o755, 0, 0, "#!/bin/true\n"),
         ("root", 0o700, 0, 0, None), ("tmp", 0o1777, 0, 0, None), (LONG, 0o444, 0, 0, "long\n"),
         ("usr/share/link", 0o777, 0, 0, "-> /etc/thing.conf"), ("usr/share/absolute/through-link", 0o644, 0, 0, "in lib\n"),
         ("usr/share/weird name\\\x01", 0o644, 0, 0, "weird\n")]
OWNERS = [("usr/bin/su", 0o4755, 0, 0, "setuid\n"), ("usr/bin/chage", 0o2755, 0, 42, "setgid\n"),
          ("var/mail", 0o2775, 0, 8, None), ("etc/secret", 0o640, 0, 42, "secret\n"), ("home/user", 0o750, 1000, 1000, None),
          ("home/user/none", 0, 1000, 1000, "no rights\n")]


@pytest.fixture(scope="module")
def user():
    u = repository.User()
    yield u
    u.remove()


@pytest.fixture(scope="module")
def debs(user):
    """The packages, as files of the mirror."""
    pool = os.path.join(user.folder, "mirror", "pool")
    os.makedirs(pool)
    made = [
        repository.build(pool, "tools", FILES, priority="required", depends="libthing", control={
            "conffiles": "/etc/thing.conf\n", "postinst": "#!/bin/sh\n", "preinst": "#!/bin/sh\n",
            "triggers": "interest-noawait /usr/share/thing\ninterest cache\nactivate-noawait other\n"}),
        repository.build(pool, "libthing", [("lib/aarch64-linux-gnu/libthing.so.1", 0o644, 0, 0, "library\n"),
                                            ("usr/share/absolute", 0o777, 0, 0, "-> /usr/lib")],
                         fields="Multi-Arch: same\n", control={"triggers": "interest-await cache\ninterest /usr/lib/thing\n",
                                                               "shlibs": "libthing 1 libthing\n"}),
        repository.build(pool, "owners", OWNERS, fields="Essential: yes\n"),
        repository.build(pool, "extra", [("usr/bin/extra", 0o755, 0, 0, "extra\n")], depends="more"),
        repository.build(pool, "more", [("usr/bin/more", 0o755, 0, 0, "more\n")]),
        repository.build(pool, "clash", fields="Conflicts: tools\n"),
    ]
    return {os.path.basename(d).split("_")[0]: d for d in made}


@pytest.fixture(scope="module")
def mirror(user, debs):
    """The options that name it."""
    gpg, ring = repository.key(os.path.join(user.folder, "gpg"))
    repository.mirror(os.path.join(user.folder, "mirror"), "test", debs.values(), gpg)
    user.give(user.folder)
    os.chmod(os.path.dirname(ring), 0o755)
    with repository.Server(os.path.join(user.folder, "mirror")) as server:
        yield ["--suite", "test", "--mirror", f"http://127.0.0.1:{server.port}", "--keyring", ring]


def test_plan(user, mirror):
    r = user.lab("rootfs", "make", "debian", "--show", *mirror)
    assert r.returncode == 0, r.stderr
    assert sorted(r.stdout.splitlines()) == ["libthing 1.0", "owners 1.0", "tools 1.0"]
    r = user.lab("rootfs", "make", "debian", "--show", "--include", "extra", *mirror)
    assert sorted(r.stdout.splitlines()) == ["extra 1.0 included", "libthing 1.0", "more 1.0 included", "owners 1.0", "tools 1.0"]
    assert not os.path.exists(user.roots)


@pytest.fixture(scope="module")
def begun(user, mirror):
    """The tree after the first stage: the second one cannot run, since there is no shell in it."""
    r = user.run("sh", "-c", 'umask 077; exec "$@"', "sh", user.armlet, "rootfs", "make", "debian", "mine", "--include", "extra", *mirror)
    making = os.path.join(user.roots, "mine.making")
    assert r.returncode == 1 and f"{making}/log has what they said, and the same command tries again" in r.stderr, r.stderr
    assert not os.path.exists(os.path.join(user.roots, "mine"))
    assert re.search(r"^unfinished mine\.making +/", user.lab("rootfs", "list").stdout, re.M)
    return os.path.join(making, "tree")


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def attribute(path):
    return os.getxattr(path, "user.armlet.node").decode()


def test_owners_are_kept(begun):
    assert attribute(f"{begun}/usr/bin/su") == "1 f 4755 0 0 0:0"
    assert attribute(f"{begun}/usr/bin/chage") == "1 f 2755 0 42 0:0"
    assert attribute(f"{begun}/var/mail") == "1 f 2775 0 8 0:0"
    assert attribute(f"{begun}/etc/secret") == "1 f 0640 0 42 0:0"
    assert attribute(f"{begun}/home/user") == "1 f 0750 1000 1000 0:0"
    assert attribute(f"{begun}/home/user/none") == "1 f 0000 1000 1000 0:0"
    assert os.stat(f"{begun}/usr/bin/su").st_mode & 0o7777 == 0o755  # never setuid on the host
    assert os.stat(f"{begun}/tmp").st_mode & 0o7777 == 0o1777
    assert os.listxattr(f"{begun}/bin/tool") == []  # nothing to say that the host does not


def test_links_are_followed_within_the_root(begun):
    assert all(os.stat(f"{begun}/{d}").st_mode & 0o777 == 0o755 for d in (".", "usr", "usr/bin", "usr/share", "var/lib/dpkg", "etc/apt"))
    assert os.readlink(f"{begun}/lib") == "usr/lib" and read(begun, "usr/bin/tool") == "#!/bin/true\n"
    assert read(begun, "usr/lib/aarch64-linux-gnu/libthing.so.1") == "library\n"
    assert read(begun, "usr/lib/through-link") == "in lib\n"
    assert read(begun, LONG) == "long\n"


def test_the_guest_has_addresses_that_it_can_reach(begun, mirror):
    port = mirror[3].rsplit(":", 1)[1]
    assert read(begun, "etc/apt/sources.list") == f"deb [signed-by=/etc/apt/keyrings/armlet.gpg] http://10.0.2.2:{port} test main\n"
    assert any(name.startswith(f"10.0.2.2:{port}_dists_test") for name in os.listdir(f"{begun}/var/lib/apt/lists"))
    assert filecmp.cmp(f"{begun}/etc/apt/keyrings/armlet.gpg", mirror[5], shallow=False)
    assert sorted(os.listdir(f"{begun}/var/cache/apt/archives")) == ["extra_1.0_arm64.deb", "more_1.0_arm64.deb"]


def test_database_is_as_dpkg_writes_it(user, begun, debs, tmp_path):
    """The same packages unpacked by the host's dpkg; `owners' only if it may give files away."""
    other = tmp_path / "other"
    for folder in ("usr/bin", "usr/lib", "usr/sbin", "var/lib/dpkg/updates", "var/lib/dpkg/info", "var/lib/dpkg/triggers"):
        (other / folder).mkdir(parents=True)
    for name in ("bin", "lib", "sbin"):
        (other / name).symlink_to(f"usr/{name}")
    (other / "var/lib/dpkg/status").write_text("")
    names = ["tools", "libthing"] + ([] if os.geteuid() else ["owners"])
    inside = [] if not os.geteuid() else ["unshare", "-r"]
    r = subprocess.run([*inside, "dpkg", f"--root={other}", "--force-depends", "--force-architecture", "--force-script-chrootless",
                        "--unpack", *(debs[n] for n in ("libthing", "tools", "owners") if n in names)],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert r.returncode == 0, r.stdout
    ours, theirs = f"{begun}/var/lib/dpkg", f"{other}/var/lib/dpkg"
    for path in sorted(glob.glob(f"{theirs}/info/*")):
        # The architecture is foreign to the host's dpkg: it has a name more.
        name = os.path.basename(path)
        stem, _, rest = name.rpartition(".")
        bare = stem.replace(":arm64", "")
        mine = f"{ours}/info/{bare + ':arm64' if bare == 'libthing' else bare}.{rest}" if rest != "format" else f"{ours}/info/format"
        if rest in ("list", "format") or not os.path.exists(mine):
            continue
        assert read(path) == read(mine) and os.stat(path).st_mode == os.stat(mine).st_mode, name
    assert {os.path.basename(p).split(".", 1)[1] for p in glob.glob(f"{theirs}/info/*.*")} == \
        {os.path.basename(p).split(".", 1)[1] for p in glob.glob(f"{ours}/info/*.*")}
    for name in names:
        stem = glob.glob(f"{theirs}/info/{name}*.list")[0]
        mine = glob.glob(f"{ours}/info/{name}*.list")[0]
        assert sorted(set(read(stem).splitlines())) == sorted(set(read(mine).splitlines())), name
    assert read(ours, "info", "format") == read(theirs, "info", "format")
    strip = {read(theirs, "triggers", "File").replace(":arm64", ""), read(ours, "triggers", "File").replace(":arm64", "")}
    assert len({"".join(sorted(s.splitlines())) for s in strip}) == 1, strip
    assert sorted(read(theirs, "triggers", "cache").replace(":arm64", "").split()) == \
        sorted(read(ours, "triggers", "cache").replace(":arm64", "").split())


def stanzas(text):
    """{package: {field: value}}"""
    result = {}
    for block in text.strip().split("\n\n"):
        fields = dict(re.findall(r"^(\S+):((?:.*)(?:\n .*)*)", block, re.M))
        result[fields["Package"].strip()] = {k: v.strip() for k, v in fields.items()}
    return result


def test_status_is_what_dpkg_reads(begun, tmp_path):
    """The host's dpkg reads the database, and agrees with the files."""
    status = stanzas(read(begun, "var/lib/dpkg/status"))
    assert status["tools"]["Status"] == "install ok unpacked"
    assert re.fullmatch(r"/etc/thing.conf [0-9a-f]{32}", status["tools"]["Conffiles"])
    out = subprocess.run(["dpkg-query", f"--admindir={begun}/var/lib/dpkg", "-W", "-f", "${Package} ${Status}\n"],
                         check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout
    assert sorted(out.splitlines()) == [f"{n} install ok unpacked" for n in ("libthing", "owners", "tools")]
    verify = subprocess.run(["dpkg", f"--root={begun}", "--verify"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            timeout=60)
    assert verify.returncode == 0 and verify.stdout == ""


def test_what_was_begun_is_gone_on_with(user, begun, mirror):
    mark = os.path.join(begun, "mark")
    open(mark, "w").close()
    r = user.lab("rootfs", "make", "debian", "mine", "--include", "extra", *mirror)
    assert r.returncode == 1 and "which an earlier run has begun" in r.stderr and os.path.exists(mark)
    r = user.lab("rootfs", "make", "debian", "mine", *mirror)  # other wishes: anew
    assert r.returncode == 1 and "which an earlier run has begun" not in r.stderr and not os.path.exists(mark)


def test_one_at_a_time(user, begun, mirror):
    lock = os.path.join(os.path.dirname(begun), "lock")
    with subprocess.Popen(["flock", lock, "sleep", "30"]) as holder:
        subprocess.run(["sh", "-c", f"while flock -n {lock} true; do sleep 0.1; done"], check=True, timeout=10)
        r = user.lab("rootfs", "make", "debian", "mine", *mirror)
        holder.kill()
    assert r.returncode == 1 and "is being made by another armlet" in r.stderr


def refuses(user, words, *args):
    before = sorted(os.listdir(user.roots)) if os.path.exists(user.roots) else []
    r = user.lab("rootfs", "make", "debian", *args)
    last = r.stderr.splitlines()[-1]
    assert r.returncode == 1 and words in last, r.stderr
    assert before == (sorted(os.listdir(user.roots)) if os.path.exists(user.roots) else [])
    return r


def test_what_cannot_be_had(user, mirror):
    states = sorted(glob.glob(f"{user.cache}/apt-*"))
    refuses(user, "--mirror http://127.0.0.1:1: no network?", "no", "--mirror", "http://127.0.0.1:1")
    refuses(user, "does not have a Release file", "no", *mirror[2:], "--suite", "other")
    refuses(user, "Unable to locate package nosuch", "no", "--include", "extra,nosuch", *mirror)
    refuses(user, "--include: ", "no", "--include", "clash", *mirror)
    refuses(user, "do not bear", "no", *mirror[:4])  # signed by somebody whom Debian does not know
    assert states == sorted(glob.glob(f"{user.cache}/apt-*"))


def test_file_systems_that_will_not_do(user, mirror):
    """Without extended attributes (ramfs), and too small, in a user's own mount namespace."""
    for kind, words in (("ramfs", "the file system keeps no extended attributes"), ("tmpfs", "the disk is full")):
        line = f'mount -t {kind} -o size=64k none /mnt && "$@"; status=$?; ls -A /mnt; exit $status'
        r = user.run("unshare", "-rm", "sh", "-c", line, "sh", user.armlet, "rootfs", "make", "debian", "/mnt/root", *mirror)
        assert r.returncode == 1 and words in r.stderr.splitlines()[-1] and r.stdout == "", (kind, r)


@pytest.mark.parametrize("args,words", [
    (["a", "b"], "too many words"),
    (["--suite", "../x"], "--suite ../x: give a name such as bookworm"),
    (["--mirror", "ftp://x"], "--mirror ftp://x: give an address that begins with http://"),
    (["--keyring", "/no/such"], "--keyring /no/such: cannot be read"),
    (["--keyring", "ring"], "give the whole path"),
    (["--include", "a;reboot"], "--include a;reboot: no package can have that name"),
    (["--include", "--force"], "no package can have that name"),
    (["--size", "1G"], "--size is for --format ext4"),
    (["/proc/no/such"], "/proc/no"),
])
def test_wrong_words(user, args, words):
    r = refuses(user, words, *args)
    assert len(r.stderr.splitlines()) == 1


def test_options_of_debian_alone():
    r = armlet("rootfs", "make", "x", "--suite", "trixie")
    assert r.returncode == 1 and b"--suite goes with make debian" in r.stderr
