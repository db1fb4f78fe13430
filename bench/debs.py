"""An apt with a state of its own, for tests and benchmarks: packages are fetched and unpacked in the cache.

Nothing is installed.
"""
import fcntl
import glob
import os
import shutil
import subprocess

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"
MERGED = ["bin", "lib", "sbin"]


class Missing(Exception):
    """The mirror or a package of it cannot be had: one line."""


def cache(*names):
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return os.path.join(base, "armlet", *names)


class Apt:
    """
    sources: (address, release) pairs.  arch: None is the host's.  status: what dpkg says is installed; None:
    nothing.  release: the one to prefer.
    """
    def __init__(self, state, sources, arch=None, status=None, release=None):
        self.conf = os.path.join(state, "apt.conf")
        self.archives = os.path.join(state, "cache", "archives")
        for folder in (os.path.join(state, "lists", "partial"), os.path.join(self.archives, "partial")):
            os.makedirs(folder, exist_ok=True)
        if not status:
            status = os.path.join(state, "status")
            open(status, "a").close()
        lines = [f"deb [signed-by={KEYRING}] {address} {name} main\n" for address, name in sources]
        only = (f'APT::Architecture "{arch}";\n#clear APT::Architectures;\n'
                f'APT::Architectures {{ "{arch}"; }};\n')
        prefer = f'APT::Default-Release "{release}";\n' if release else ""
        for path, text in ((os.path.join(state, "sources.list"), "".join(lines)), (self.conf, f"""\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
{only if arch else ''}{prefer}APT::Sandbox::User "";
APT::Update::Error-Mode "any";
APT::Install-Recommends "false";
Acquire::Languages "none";
Dir::State "{state}";
Dir::State::lists "{state}/lists";
Dir::State::status "{status}";
Dir::Cache "{state}/cache";
Dir::Etc::sourcelist "{state}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "{state}";
""")):
            with open(path, "w", encoding="ascii") as f:
                f.write(text)

    def __call__(self, *args, timeout=900, cwd=None):
        """What apt-get says; Missing."""
        try:
            done = subprocess.run(["apt-get", "-q", "-y", "-c", self.conf, *args], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False,
                                  env=dict(os.environ, LC_ALL="C"))
        except (subprocess.TimeoutExpired, FileNotFoundError) as e:
            raise Missing(str(e)) from e
        if done.returncode:
            raise Missing((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
        return done.stdout


def unpack(folder, root):
    """The packages in the folder, as dpkg does on a system whose /usr is merged; they are deleted."""
    for deb in sorted(glob.glob(os.path.join(folder, "*.deb"))):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as p:
            subprocess.run(["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", root],
                           stdin=p.stdout, check=True)
            if p.wait():
                raise Missing(f"{deb} cannot be unpacked")
        os.unlink(deb)


def merge_usr(root):
    """The links that such a system has."""
    for folder in MERGED:
        os.makedirs(os.path.join(root, "usr", folder), exist_ok=True)
        os.symlink(os.path.join("usr", folder), os.path.join(root, folder))


def tree(name, release, arch, packages, depends):
    """
    The folder of the cache with `packages' (and what they depend on) unpacked, for which `name' stands as long
    as the other arguments are the same; may raise Missing.
    """
    root = cache("debian", name)
    if os.path.isdir(root):
        return root
    os.makedirs(cache("debian"), exist_ok=True)
    with open(cache("debian", "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(root):
            return root
        apt = Apt(cache("debian", f"apt-{release}-{arch}"), [(MIRROR, release)], arch)
        apt("update")
        if depends:
            apt("install", "--download-only", *packages)
        else:
            apt("download", *packages, cwd=apt.archives)
        new = root + ".new"
        shutil.rmtree(new, ignore_errors=True)
        os.makedirs(new)
        if depends:
            merge_usr(new)
        unpack(apt.archives, new)
        os.rename(new, root)
    return root
