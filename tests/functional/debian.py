"""Debian packages for tests, unpacked in the cache: nothing is installed, and what was fetched once is used again."""
import contextlib
import fcntl
import glob
import os
import shutil
import subprocess

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MERGED = ["bin", "lib", "sbin"]


def cache(*names):
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return os.path.join(base, "armlet", *names)


class Missing(Exception):
    """The mirror or a package of it cannot be had."""


def configure(state, release, arch):
    """An apt state of its own for which nothing is installed."""
    for folder in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(state, folder), exist_ok=True)
    with open(os.path.join(state, "sources.list"), "w") as f:
        f.write(f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {release} main\n")
    open(os.path.join(state, "status"), "a").close()
    conf = os.path.join(state, "apt.conf")
    with open(conf, "w") as f:
        f.write(f"""#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
APT::Sandbox::User "";
APT::Architecture "{arch}";
APT::Architectures "{arch}";
APT::Update::Error-Mode "any";
APT::Install-Recommends "false";
Acquire::Languages "none";
Dir::State "{state}";
Dir::State::lists "{state}/lists";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Dir::Etc::sourcelist "{state}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "{state}";
""")
    return conf


def apt(conf, *args, timeout, **kwargs):
    try:
        done = subprocess.run(["apt-get", "-q", "-y", "-c", conf, *args], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=timeout, env=dict(os.environ, LC_ALL="C"), **kwargs)
    except (subprocess.TimeoutExpired, FileNotFoundError) as e:
        raise Missing(str(e)) from e
    if done.returncode:
        raise Missing((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])


def unpack(deb, root):
    """As dpkg does on a system with a merged /usr."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as p:
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", root], stdin=p.stdout, check=True)
        assert p.wait() == 0


def tree(name, release, arch, packages, depends):
    """
    The folder with `packages' (and what they depend on) unpacked, for which `name' stands as long as the other
    arguments are the same; Missing.
    """
    root = cache("debian", name)
    if os.path.isdir(root):
        return root
    os.makedirs(cache("debian"), exist_ok=True)
    with open(cache("debian", "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(root):
            return root
        state = cache("debian", f"apt-{release}-{arch}")
        conf = configure(state, release, arch)
        debs = os.path.join(state, "cache", "archives")
        apt(conf, "update", timeout=300)
        if depends:
            apt(conf, "install", "--download-only", *packages, timeout=600)
        else:
            apt(conf, "download", *packages, timeout=300, cwd=debs)
        new = root + ".new"
        shutil.rmtree(new, ignore_errors=True)
        os.makedirs(new)
        for folder in MERGED if depends else []:
            os.makedirs(os.path.join(new, "usr", folder))
            os.symlink(os.path.join("usr", folder), os.path.join(new, folder))
        for deb in sorted(glob.glob(os.path.join(debs, "*.deb"))):
            unpack(deb, new)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(deb)
        os.rename(new, root)
    return root
