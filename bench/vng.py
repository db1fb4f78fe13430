"""virtme-ng from Debian trixie, unpacked in the cache, and an arm64 root for it with a kernel of Debian's."""
import glob
import os
import re
import shutil
import subprocess

import debs

PACKAGES = ["base-files", "base-passwd", "bash", "busybox-static", "coreutils", "dash", "diffutils",
            "findutils", "grep", "hostname", "iproute2", "kbd", "kmod", "mawk", "mount", "sed", "udev",
            "util-linux"]
# What installing the packages would have made.
FOLDERS = ["boot", "dev", "etc/lvm", "home", "opt", "proc", "root", "run", "srv", "sys", "tmp",
           "usr/lib/modules", "var/tmp"]
FILES = ["etc/fstab", "etc/hosts", "etc/shadow"]


def make_root(kernel, release, root):
    """An arm64 root with a kernel and its modules, as hard links to the cache's files."""
    packages = debs.tree("arm64-root", "bookworm", "arm64", PACKAGES, True)
    shutil.copytree(packages, root, symlinks=True, copy_function=os.link)
    for folder in FOLDERS:
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    for file in FILES:
        open(os.path.join(root, file), "a").close()
    for name in ("passwd", "group"):
        master = os.path.join(root, "usr/share/base-passwd", name + ".master")
        shutil.copy(master, os.path.join(root, "etc", name))
    os.symlink("../bin/busybox", os.path.join(root, "usr/sbin/poweroff"))
    os.link(kernel, os.path.join(root, "boot", os.path.basename(kernel)))
    modules = os.path.join(os.path.dirname(os.path.dirname(kernel)), "lib/modules", release)
    shutil.copytree(modules, os.path.join(root, "usr/lib/modules", release), symlinks=True,
                    copy_function=os.link)
    subprocess.run(["depmod", "-b", root, release], check=True)


def vng_command(kernel, qemu):
    """
    (the command line of vng for Debian's kernel in this file of the cache, with this program as its QEMU, up to
    what is to be run; its environment).  May raise debs.Missing.
    """
    tools = debs.tree("vng", "trixie", "amd64", ["virtme-ng"], False)
    release = re.search(r"vmlinuz-(.*)", kernel).group(1)
    root = debs.cache("debian", "vng-root-" + release)
    if not os.path.isdir(root):
        shutil.rmtree(root + ".new", ignore_errors=True)
        make_root(kernel, release, root + ".new")
        os.rename(root + ".new", root)
    env = dict(os.environ, PYTHONPATH=glob.glob(tools + "/usr/lib/python3/dist-packages")[0],
               PATH=f"{tools}/usr/bin:/usr/bin:/bin:/usr/sbin:/sbin", TERM="vt100")
    image = os.path.join(root, "boot", os.path.basename(kernel))
    return (["/usr/bin/python3", f"{tools}/usr/bin/vng", "--run", image, "--arch", "arm64", "--root", root,
             "--cpus", "2", "--cwd", root, "--qemu", os.path.abspath(qemu)], env)
