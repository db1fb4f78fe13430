#!/usr/bin/python3
"""bench/nfs.py BUILD [options]: a guest's root over NFS, beside QEMU with nfs-ganesha on the host's loopback.

Both boot the kernel that `armlet kernel build' makes, and work on the same directory in turn, by NFS and by their own
9P; the least of N runs counts.  Host packages: git, iperf3, and for the peer nfs-ganesha.  Its server must be started
as root: without root, or without Debian's nfs-ganesha, nfs-ganesha-vfs and rpcbind, only armlet is measured.  Rows:
bench/nfsload.c.
"""
import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import inputs  # noqa: E402
from guest import Guest  # noqa: E402

REPOSITORY_FILES, FILES_A_FOLDER = 30_000, 100
PROGRAMS = ["git", "iperf3"]
TARGET = {"boot": 2, "boot-cpu": 2, "net-out": 2, "net-back": 2}
BOOT_LIMIT, ROW_LIMIT = 300, 900


def say(text):
    print("nfs: " + text, file=sys.stderr, flush=True)


# the tree

def make_repository(path):
    os.makedirs(path)
    for i in range(REPOSITORY_FILES):
        folder = os.path.join(path, f"d{i // FILES_A_FOLDER}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"f{i}"), "w") as f:
            f.write(f"{i}\n" * (i % 50 + 1))
    git = ["git", "-C", path, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "gc.auto=0"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"], ["gc", "-q"]):
        inputs.run(git + words)


def make_headers(path, source):
    with tarfile.open(path, "w") as tar:
        for part in ("include", "arch/arm64/include"):
            tar.add(os.path.join(source, part), part)


def busybox_tree(build, new):
    env = dict(os.environ, XDG_DATA_HOME=new + ".data")
    inputs.run([os.path.join(build, "armlet"), "boot", "--kernel", "6.1", "--show"], env=env)
    os.rename(new + ".data/armlet/root/busybox", new)
    shutil.rmtree(new + ".data")


def make_tree(build, source):
    programs = inputs.debian_tree(PROGRAMS)

    def make(new):
        say("making the tree")
        busybox_tree(build, new)
        for part in ("usr/bin/git", "usr/bin/iperf3", "lib", "usr/lib/aarch64-linux-gnu"):
            where = os.path.join(programs, part)
            if os.path.isdir(where):
                shutil.copytree(where, os.path.join(new, part), symlinks=True, dirs_exist_ok=True)
            elif os.path.exists(where):
                shutil.copy(where, os.path.join(new, part))
        for folder in ("data", "mnt/large", "mnt/small"):
            os.makedirs(os.path.join(new, folder), exist_ok=True)
        make_headers(os.path.join(new, "data/headers.tar"), source)
        make_repository(os.path.join(new, "data/repository"))
    return inputs.made(inputs.cache(f"nfs-tree-{inputs.hash_of(programs)}"), make)


def add_load(tree):
    load = os.path.join(inputs.HERE, "nfsload.c")
    inputs.run([inputs.CC["arm64"], *inputs.CFLAGS, "-O2", "-static", "-o", os.path.join(tree, "nfsload"), load])


# the peer's server

class Ganesha:
    CONFIG = """NFS_CORE_PARAM {{ Protocols = 3; Bind_addr = 127.0.0.1; NFS_Port = 2049; MNT_Port = 20048;
    Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = false; }}
EXPORT {{ Export_Id = 1; Path = {tree}; Pseudo = /tree; Access_Type = RW; Squash = No_Root_Squash; SecType = sys, none;
    Protocols = 3; Transports = TCP, UDP; MaxRead = 1048576; MaxWrite = 1048576; FSAL {{ Name = VFS; }} }}
LOG {{ Default_Log_Level = WARN; }}
"""

    def __init__(self, tree):
        self.processes = []
        folder = inputs.cache("ganesha")
        os.makedirs(folder, exist_ok=True)
        os.makedirs("/var/run/ganesha", exist_ok=True)
        conf = os.path.join(folder, "conf")
        with open(conf, "w") as f:
            f.write(self.CONFIG.format(tree=tree))
        if not self.answers(111):
            # It adds 127.0.0.1 itself, and falls over when told so.
            self.processes.append(subprocess.Popen(["/usr/sbin/rpcbind", "-f", "-h", "127.0.0.2"]))
            self.wait(111)
        self.processes.append(subprocess.Popen(["/usr/bin/ganesha.nfsd", "-F", "-f", conf, "-L", folder + "/log", "-p",
                                                folder + "/pid"]))
        self.wait(2049)
        time.sleep(2)

    @staticmethod
    def answers(port):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    def wait(self, port):
        for _ in range(300):
            if self.answers(port):
                return
            time.sleep(0.1)
        sys.exit(f"nfs: nothing answers at port {port}")

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
            process.wait()


# runs

class Bench:
    def __init__(self, args):
        self.args = args
        self.armlet = os.path.join(args.build, "armlet")
        self.kernel = inputs.run([self.armlet, "kernel", "build"]).strip()
        source = sorted(os.scandir(os.path.join(os.path.dirname(os.path.dirname(self.kernel)), "../source")),
                        key=lambda e: e.name)[-1].path
        self.tree = make_tree(args.build, source)
        add_load(self.tree)
        self.best = {}

    def argv(self, engine, append):
        line = (f"console=ttyAMA0 quiet root=/dev/nfs nfsroot=10.0.2.2:{self.tree},vers=3,tcp,port=2049,mountport=20048 "
                f"rw ip=dhcp {append}")
        program = [self.armlet, "-nfs", f"path={self.tree}"] if engine == "armlet" else [self.peer]
        share = f"local,path={self.tree},mount_tag=tree,security_model=mapped-xattr,multidevs=remap"
        return [*program, "-accel", "tcg", "-M", "virt", "-cpu", "cortex-a57", "-smp", str(self.args.smp), "-m", "1024",
                "-nographic", "-no-reboot", "-virtfs", share, "-kernel", self.kernel, "-append", line]

    def note(self, engine, name, seconds):
        rows = self.best.setdefault(name, {})
        rows[engine] = min(seconds, rows.get(engine, seconds))

    def boot(self, engine):
        """From the start of the program to its end, with a shell in between."""
        with Guest(self.argv(engine, "init=/linuxrc")) as g:
            g.expect(b"/ # ", BOOT_LIMIT)
            g.send("poweroff -f\n") # busybox's init would wait a second for its children
            wall, cpu = g.finish(BOOT_LIMIT)
        self.note(engine, "boot", wall)
        self.note(engine, "boot-cpu", cpu)

    def load(self, engine):
        words = f"init=/nfsload server=10.0.2.2:{self.tree} mountopts=proto=tcp,port=2049,mountport=20048 share=tree"
        done, last = False, []
        with Guest(self.argv(engine, words)) as g:
            for line in g.lines(ROW_LIMIT):
                found = re.match(r"row (\S+) ([\d.]+)$", line)
                if found:
                    self.note(engine, found.group(1), float(found.group(2)))
                    say(f"{engine}: {line}")
                elif line.startswith("fail"):
                    sys.exit(f"nfs: {engine}: {line}")
                done |= line == "done"
                last = [*last[-10:], line]
            if not done:
                g.reap()
                sys.exit(f"nfs: {engine} ended early, with {g.process.returncode}: {last} {g.last()}")

    def run(self):
        engines = ["armlet", "qemu"] if self.args.peer else ["armlet"]
        server = None
        iperf = subprocess.Popen(["iperf3", "-s", "-B", "127.0.0.1", "-p", "5301"], stdout=subprocess.DEVNULL)
        if "qemu" in engines:
            self.peer = inputs.peer()
            server = Ganesha(self.tree)
        try:
            for _ in range(self.args.n):
                for engine in engines:
                    self.boot(engine)
                    if not self.args.boot_only:
                        self.load(engine)
        finally:
            if server:
                server.stop()
            iperf.terminate()
            iperf.wait()

    def report(self):
        print("| row | armlet s | qemu + ganesha s | ratio | target |\n|---|--:|--:|--:|--:|")
        for name, rows in self.best.items():
            ours, peer = rows["armlet"], rows.get("qemu")
            target = TARGET.get(name, 1 if name.startswith("9p-") else 3)
            gain = f"{peer / ours:.2f} | {target}x {'yes' if peer / ours >= target else 'NO'}" if peer else " | "
            print(f"| {name} | {ours:.3f} | {f'{peer:.3f}' if peer else ''} | {gain} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("build")
    parser.add_argument("-n", type=int, default=3, help="runs, of which the least counts")
    parser.add_argument("--smp", type=int, default=1)
    parser.add_argument("--boot-only", action="store_true")
    parser.add_argument("--no-peer", dest="peer", action="store_false")
    args = parser.parse_args()
    if args.peer and (os.geteuid() or not shutil.which("ganesha.nfsd") or not os.access("/usr/sbin/rpcbind", os.X_OK)):
        say("no peer: it needs root and Debian's nfs-ganesha, nfs-ganesha-vfs and rpcbind")
        args.peer = False
    bench = Bench(args)
    bench.run()
    bench.report()


if __name__ == "__main__":
    main()
