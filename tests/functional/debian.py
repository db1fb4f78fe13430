"""Trees of Debian packages for tests, in the cache: what was fetched once is used again."""
import fcntl
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))
from debs import MIRROR, Apt, Missing, cache, merge_usr, unpack  # noqa: E402, F401


def tree(name, release, arch, packages, depends):
    """
    The folder with `packages' (and what they depend on) unpacked, for which `name' stands as long as the other
    arguments are the same; may raise Missing.
    """
    root = cache("debian", name)
    if os.path.isdir(root):
        return root
    os.makedirs(cache("debian"), exist_ok=True)
    with open(cache("debian", "lock"), "w") as lock:
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
