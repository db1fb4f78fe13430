"""Debian packages and repositories of the tests' own, served on the loopback."""
import functools
import glob
import hashlib
import http.server
import io
import os
import pwd
import shutil
import subprocess
import tarfile
import tempfile
import threading

from armlet import ARMLET


def build(folder, name, files=(), depends="", priority="optional", fields="", control=None, version="1.0"):
    """A package in `folder': files are (path, mode, uid, gid, contents), a link's contents begin with "-> "."""
    top = os.path.join(folder, "build", name)
    os.makedirs(os.path.join(top, "DEBIAN"))
    text = f"Package: {name}\nVersion: {version}\nArchitecture: arm64\nMaintainer: T <t@example.org>\nPriority: {priority}\n"
    text += f"Depends: {depends}\n" if depends else ""
    for path, body in {"control": text + fields + "Description: a test\n", **(control or {})}.items():
        with open(os.path.join(top, "DEBIAN", path), "w") as f:
            f.write(body)
        os.chmod(os.path.join(top, "DEBIAN", path), 0o755 if body.startswith("#!") else 0o644)
    for path, mode, _, _, contents in files:
        full = os.path.join(top, path)
        os.makedirs(full if contents is None else os.path.dirname(full), exist_ok=True)
        if contents is not None and contents.startswith("-> "):
            os.symlink(contents[3:], full)
        elif contents is not None:
            with open(full, "w") as f:
                f.write(contents)
        if not os.path.islink(full):
            os.chmod(full, mode)
    # Owners need no privileges in an archive: tar writes them.
    deb = os.path.join(folder, f"{name}_{version}_arm64.deb")
    owners = {path: (uid, gid) for path, _, uid, gid, _ in files}
    return pack(top, deb, owners)


def pack(top, deb, owners):
    def archive(base, skip):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
            def owner(info):
                if skip and (info.name == "./DEBIAN" or info.name.startswith("./DEBIAN/")):
                    return None
                info.uid, info.gid = owners.get(info.name[2:], (0, 0))
                info.uname = info.gname = ""
                return info
            tar.add(base, arcname=".", filter=owner)
        return out.getvalue()

    with open(deb, "wb") as f:
        f.write(b"!<arch>\n")
        for name, data in (("debian-binary", b"2.0\n"), ("control.tar.gz", archive(os.path.join(top, "DEBIAN"), False)),
                           ("data.tar.gz", archive(top, True))):
            f.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2))
    return deb


def stanza(deb, path):
    with open(deb, "rb") as f:
        data = f.read()
    control = subprocess.run(["dpkg-deb", "-f", deb], check=True, stdout=subprocess.PIPE, text=True).stdout
    return (f"{control.rstrip()}\nFilename: {path}\nSize: {len(data)}\nMD5sum: {hashlib.md5(data).hexdigest()}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n")


def flat(folder, debs):
    """A repository for "deb [trusted=yes] URL ./"."""
    with open(os.path.join(folder, "Packages"), "w") as f:
        f.write("".join(stanza(d, "./" + os.path.basename(d)) for d in debs))


def key(home):
    """A key to sign with, and the keyring for apt."""
    os.makedirs(home, mode=0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", "Test <t@example.org>", "ed25519", "sign", "never"], check=True, timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ring = os.path.join(home, "ring.gpg")
    subprocess.run([*gpg, "--export", "--output", ring], check=True, timeout=60)
    return gpg, ring


def mirror(folder, suite, debs, gpg):
    """The layout of a mirror of Debian's, signed."""
    dist = os.path.join(folder, "dists", suite)
    index = os.path.join("main", "binary-arm64", "Packages")
    os.makedirs(os.path.join(dist, os.path.dirname(index)), exist_ok=True)
    with open(os.path.join(dist, index), "w") as f:
        f.write("".join(stanza(d, os.path.relpath(d, folder)) for d in debs))
    with open(os.path.join(dist, index), "rb") as f:
        data = f.read()
    with open(os.path.join(dist, "Release"), "w") as f:
        f.write(f"Origin: Test\nSuite: {suite}\nCodename: {suite}\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: arm64\n"
                f"Components: main\nSHA256:\n {hashlib.sha256(data).hexdigest()} {len(data)} {index}\n")
    subprocess.run([*gpg, "--yes", "--clearsign", "--output", os.path.join(dist, "InRelease"), os.path.join(dist, "Release")],
                   check=True, timeout=60)


class Server:
    """A folder on a port of the loopback."""

    def __init__(self, folder):
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


class User:
    """An ordinary user with a home of his own and the tests' kernel and busybox in his cache."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="armlet-user-")
        self.home = os.path.join(self.folder, "home")
        self.cache = os.path.join(self.home, ".cache", "armlet")
        self.roots = os.path.join(self.home, ".local", "share", "armlet", "root")
        self.armlet = os.path.join(self.folder, "armlet")
        shutil.copy(ARMLET, self.armlet)  # the build may be where he cannot go
        os.makedirs(self.cache)
        for part in ("kernel/6.1.*", "busybox/*"):
            for found in glob.glob(os.path.join(user_cache(), part)):
                shutil.copytree(found, os.path.join(self.cache, os.path.dirname(part), os.path.basename(found)), symlinks=True)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
        self.env.update(HOME=self.home, USER="nobody", LOGNAME="nobody")
        self.ids = None if os.geteuid() else pwd.getpwnam("nobody")
        os.chmod(self.folder, 0o755)
        self.give(self.folder)

    def give(self, folder):
        """Makes all in it the user's."""
        for top, folders, files in os.walk(folder) if self.ids else ():
            for name in [".", *folders, *files]:
                os.chown(os.path.join(top, name), self.ids.pw_uid, self.ids.pw_gid, follow_symlinks=False)

    def become(self):
        """In a child: gives privileges up."""
        if self.ids:
            os.setgroups([])
            os.setgid(self.ids.pw_gid)
            os.setuid(self.ids.pw_uid)

    def run(self, *argv, timeout=300, **kwargs):
        return subprocess.run(argv, timeout=timeout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=self.env, cwd=self.home, preexec_fn=self.become, text=True, errors="replace", **kwargs)

    def lab(self, *args, **kwargs):
        return self.run(self.armlet, *args, **kwargs)

    def remove(self):
        subprocess.run(["chmod", "-R", "u+rwX", self.folder], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def user_cache():
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "armlet")
