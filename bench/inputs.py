"""What the benchmark runs: guest and host programs, initial file systems, the kernel, the peer.

Everything made is kept in $XDG_CACHE_HOME/armlet/bench under a hash of what it was made of.
"""
import fcntl
import glob
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys

import debs

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(HERE)
CC = {"arm64": "aarch64-linux-gnu-gcc", "native": "gcc"}
CFLAGS = ["-std=gnu17", "-Wall", "-Wextra", "-Wshadow", "-Wmissing-prototypes"]
OPTIMISED_MORE = ("row_vec.c",)
# x16, x17: see baremetal.c.
BARE_FLAGS = ["-O2", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector", "-mgeneral-regs-only",
              "-ffixed-x16", "-ffixed-x17", "-mno-outline-atomics", "-fno-tree-loop-distribute-patterns",
              "-Wno-main", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments"]

# tests/programs.py has the same.
PACKAGES = ["openssl", "python3", "sqlite3", "xz-utils", "gzip", "nodejs", "gcc", "libc6-dev", "dash", "coreutils"]
NOT_NEEDED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/perl", "usr/share/info",
              "usr/lib/aarch64-linux-gnu/perl", "usr/lib/aarch64-linux-gnu/gconv", "usr/share/nodejs/@types")
# Other front ends of the compiler, and its sanitizers.
NOT_NEEDED_FILES = re.compile(r"lto1|.*lto-dump-12|.*ld\.gold|lib[a-z]*san\..*")
TEXT_BYTES = 4 << 20
# How a real program is run, NAME: (rows' option, command); {data} is the folder with the inputs.
REAL = {
    "openssl-sha256": ("--speed", "openssl speed -mr -elapsed -seconds 1 -bytes 16384 -evp sha256"),
    "openssl-aes-gcm": ("--speed", "openssl speed -mr -elapsed -seconds 1 -bytes 16384 -evp aes-128-gcm"),
    "python": ("--time", "python3 {data}/loop.py"),
    "sqlite": ("--time", "sqlite3 -init {data}/script.sql :memory: .quit"),
    "xz": ("--time", "xz -c -T1 -1 {data}/text"),
    "gzip": ("--time", "gzip -c -n {data}/text"),
    "nodejs": ("--time", "node {data}/loop.js"),
    "gcc": ("--time", "gcc -O2 -fno-ident -S -o - {data}/row_int.c"),
}


def cache(*parts):
    path = debs.cache("bench", *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def hash_of(*things):
    h = hashlib.sha256()
    for thing in things:
        data = thing if isinstance(thing, bytes) else repr(thing).encode()
        h.update(b"%d:" % len(data) + data)
    return h.hexdigest()[:16]


def read(path):
    with open(path, "rb") as f:
        return f.read()


def run(argv, **more):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, **more)
    if done.returncode:
        sys.exit(f"bench: {' '.join(argv[:4])}... failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def made(path, make):
    """`path', made by make(temporary path) if it is not there.  Held meanwhile: a lock for things of its kind."""
    if os.path.exists(path):
        return path
    with open(re.sub(r"-[0-9a-f]+(\.\w+)?$", "", path) + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            new = path + ".new"
            shutil.rmtree(new, ignore_errors=True)
            make(new)
            os.rename(new, path)
    return path


# programs

def compiler_version(cc):
    if not shutil.which(cc):
        sys.exit(f"bench: {cc} is needed; `make bench' installs it")
    return run([cc, "--version"]).splitlines()[0]


def rows_program(kind):
    """The path of the program of all rows, for "arm64" or "native"."""
    sources = sorted(glob.glob(os.path.join(HERE, "row*.c")))
    cc = CC[kind]
    header = os.path.join(HERE, "row.h")
    key = hash_of(compiler_version(cc), CFLAGS, OPTIMISED_MORE, *map(read, sources), read(header))

    def make(new):
        objects = []
        os.makedirs(new + ".o", exist_ok=True)
        for source in sources:
            name = os.path.basename(source)
            objects.append(os.path.join(new + ".o", name + ".o"))
            run([cc, *CFLAGS, "-O3" if name in OPTIMISED_MORE else "-O2", "-c", source, "-o", objects[-1]])
        run([cc, "-static", "-o", new, *objects, "-lm", "-pthread"])
        shutil.rmtree(new + ".o")

    return made(cache(f"rows-{kind}-{key}"), make)


def baremetal_program():
    parts = [os.path.join(HERE, n) for n in ("baremetal_start.S", "baremetal.c")]
    script = os.path.join(HERE, "baremetal.ld")
    key = hash_of(compiler_version(CC["arm64"]), CFLAGS, BARE_FLAGS, read(script), *map(read, parts))
    return made(cache(f"baremetal-{key}.elf"),
                lambda new: run([CC["arm64"], *CFLAGS, *BARE_FLAGS, "-Wl,-T," + script, "-o", new, *parts]))


# cpio archives (the "newc" format), which the kernel unpacks one after the other

class Archive:
    def __init__(self):
        self.entries = {}

    def add(self, path, mode, data=b""):
        folder = os.path.dirname(path)
        if folder and folder not in self.entries:
            self.add(folder, stat.S_IFDIR | 0o755)
        self.entries[path] = (mode, data)

    def add_file(self, path, host):
        self.add(path, stat.S_IFREG | (0o755 if os.access(host, os.X_OK) else 0o644), read(host))

    def add_tree(self, top):
        for folder, folders, files in os.walk(top):
            inside = os.path.relpath(folder, top)
            if inside.startswith(NOT_NEEDED):
                folders.clear()
                continue
            for name in sorted(files + folders):
                host, path = os.path.join(folder, name), os.path.normpath(os.path.join(inside, name))
                if os.path.islink(host):
                    self.add(path, stat.S_IFLNK | 0o777, os.readlink(host).encode())
                elif os.path.isfile(host) and not NOT_NEEDED_FILES.fullmatch(name):
                    self.add_file(path, host)

    @staticmethod
    def entry(number, path, mode, data):
        name = path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = [number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0]
        out = b"070701" + b"".join(b"%08X" % f for f in fields) + name
        out += b"\0" * (-len(out) % 4) + data
        return out + b"\0" * (-len(out) % 4)

    def write(self, f):
        # Folders before what is in them.
        for number, path in enumerate(sorted(self.entries), 1):
            f.write(self.entry(number, path, *self.entries[path]))
        f.write(self.entry(0, "TRAILER!!!", 0, b""))


# initial file systems

def lab_paths(build):
    """kernel, release, initramfs: Debian's, from armlet's own cache."""
    program = os.path.join(build, "tests/lab_paths")
    return dict(line.split("=", 1) for line in run([program, "6.1"]).splitlines())


def rows_initramfs(base, real):
    """The base archive, the rows, and where `real' the programs of Debian."""
    program, init = rows_program("arm64"), os.path.join(HERE, "init")
    tree = real_tree() if real else None
    folder = real_inputs(tree) if real else None
    key = hash_of(read(base), read(program), read(init), sorted(REAL.items()), tree, folder)

    def make(new):
        archive = Archive()
        archive.add_file("bench/rows", program)
        archive.add("bench/init", stat.S_IFREG | 0o755, read(init))
        if tree:
            archive.add_tree(tree)
            for name in os.listdir(folder):
                archive.add_file("data/" + name, os.path.join(folder, name))
            lines = [f"{n} {how} {command.format(data='/data')}\n" for n, (how, command) in REAL.items()]
            archive.add("bench/real", stat.S_IFREG | 0o644, "".join(lines).encode())
        with open(new, "wb") as f:
            f.write(read(base))
            archive.write(f)

    return made(cache(f"initramfs-{key}.cpio"), make)


# real programs

SOURCES = [(debs.MIRROR, "bookworm")]


def fetch_packages(new, packages, with_dependencies=True):
    print("fetching from Debian for arm64:", *packages, file=sys.stderr, flush=True)
    try:
        get = debs.Apt(cache("apt"), SOURCES, "arm64")
        get("update")
        plan = get("--simulate", "install", *packages)
        wanted = [f"{n}={v}" for n, v in re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", plan, re.M)
                  if with_dependencies or n in packages]
        os.makedirs(new + ".debs")
        os.makedirs(new)
        get("download", *wanted, cwd=new + ".debs")
        debs.unpack(new + ".debs", new)
    except debs.Missing as e:
        sys.exit(f"bench: Debian's packages cannot be had: {e}")
    os.rmdir(new + ".debs")


def debian_tree(packages, with_dependencies=True):
    """A folder with Debian's arm64 packages unpacked."""
    key = hash_of(packages, SOURCES) if with_dependencies else hash_of(packages, SOURCES, "alone")
    return made(cache(f"debian-{key}"), lambda new: fetch_packages(new, packages, with_dependencies))


def real_tree():
    return debian_tree(PACKAGES)


def real_inputs(tree):
    """A folder with what the real programs read: our scripts and sources, and text that is Python's own library."""
    scripts = sorted(glob.glob(os.path.join(HERE, "real", "*")) + glob.glob(os.path.join(HERE, "row*.[ch]")))

    def make(new):
        os.makedirs(new)
        for path in scripts:
            shutil.copy(path, new)
        library = glob.glob(os.path.join(tree, "usr/lib/python3*/**/*.py"), recursive=True)
        text = b"".join(map(read, sorted(library)))
        with open(os.path.join(new, "text"), "wb") as f:
            f.write(text[:TEXT_BYTES])

    return made(cache(f"data-{hash_of(tree, TEXT_BYTES, *map(read, scripts))}"), make)


def peer():
    return run([os.path.join(SOURCE, "tools/peer")]).strip()
