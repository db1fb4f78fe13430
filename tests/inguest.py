#!/usr/bin/env python3
"""Programs of tests/guests as the init of an arm64 Linux.

    inguest.py [-n ROUNDS] litmus ARMLET...   memory model and atomics; ARMLET... is the emulator's command line, to which
                                              -kernel (Debian's 6.1), -initrd and -append are added
    inguest.py bpf ARMLET...                  the kernel's test_bpf.ko
    inguest.py [-n SECONDS] crashme ARMLET...  random words, code that changes, jumps into nothing, nested faults
    inguest.py build PROGRAM                  print where the arm64 program is

Programs are kept in $XDG_CACHE_HOME/armlet/guests and built again when their source is newer.
"""
import argparse
import glob
import os
import re
import resource
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "armlet")
CC = "aarch64-linux-gnu-gcc"
MANY = 100000  # rounds of litmus, in which SB is seen thousands of times unless the host is busy with other things
MOST_MIB = 512 + 300  # of memory, for a guest with 512 MiB that does its worst


def die(text):
    sys.exit("inguest: " + text)


def build(name):
    """The static arm64 program of tests/guests/NAME.c."""
    source, folder = f"{HERE}/guests/{name}.c", CACHE + "/guests"
    program = f"{folder}/{name}"
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        os.makedirs(folder, exist_ok=True)
        new = f"{program}.{os.getpid()}"
        subprocess.run([CC, "-O2", "-std=gnu17", "-Wall", "-static", "-pthread", source, "-o", new], check=True)
        os.rename(new, program)
    return program


def debian_kernel():
    """(image, release) of the kernel that the boot tests use, from the cache or fetched."""
    tool = os.path.join(os.environ.get("ARMLET_BUILD", "build"), "tests", "lab_paths")
    text = subprocess.run([tool, "6.1"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return tuple(re.search(rf"^{key}=(.*)$", text, re.M)[1] for key in ("kernel", "release"))


def cpio(entries):
    """A newc archive of (name, mode, (major, minor), bytes)."""
    image = b""
    for ino, (name, mode, rdev, data) in enumerate([*entries, ("TRAILER!!!", 0, (0, 0), b"")]):
        head = [ino, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(name) + 1, 0]
        image += b"070701" + "".join(f"{n:08X}" for n in head).encode() + name.encode() + b"\0"
        image += bytes(-len(image) % 4) + data
        image += bytes(-len(image) % 4)
    return image


def initramfs(init, files=(), folders=()):
    """The bytes of an archive with /init and /dev/console, files (name in the guest, path here) and empty folders."""
    entries = [(name, stat.S_IFDIR | 0o755, (0, 0), b"") for name in ["dev", *folders]]
    entries.append(("dev/console", stat.S_IFCHR | 0o600, (5, 1), b""))
    for name, path in [("init", init), *files]:
        with open(path, "rb") as file:
            entries.append((name, stat.S_IFREG | 0o755, (0, 0), file.read()))
    return cpio(entries)


def boot(argv, archive, words=(), kernel_words="", timeout=1800):
    """The console's lines of a boot of ARGV with the archive, its init called with WORDS."""
    append = f"console=ttyAMA0 quiet panic=-1 {kernel_words} -- {' '.join(words)}"
    if "-kernel" not in argv:
        argv = [*argv, "-kernel", debian_kernel()[0]]
    with tempfile.NamedTemporaryFile(suffix=".cpio") as initrd:
        initrd.write(archive)
        initrd.flush()
        try:
            got = subprocess.run([*argv, "-initrd", initrd.name, "-append", append], capture_output=True, text=True,
                                 errors="replace", timeout=timeout, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as e:
            tail = (e.stdout or b"").decode(errors="replace")[-2000:]
            die(f"no end after {timeout} s: {' '.join(argv)}\n{tail}")
    sys.stderr.write(got.stderr)
    return got.stdout.replace("\r", "").splitlines()


def judge(lines):
    """Show the verdicts and the count; 0 if the program itself says that all passed."""
    for line in lines:
        if line.startswith(("FAIL", "PASS")) or "Summary" in line:
            print(line)
    count = [line for line in lines if re.fullmatch(r"\d+ passed, \d+ failed(, \d+ skipped)?", line)]
    if not count:
        die("the program did not finish; its last words:\n" + "\n".join(lines[-20:]))
    print(count[-1])
    return 0 if re.match(r"[1-9]\d* passed, 0 failed", count[-1]) else 1


def test_bpf(argv):
    image, release = debian_kernel()
    found = glob.glob(f"{os.path.dirname(os.path.dirname(image))}/lib/modules/{release}/kernel/lib/test_bpf.ko")
    if not found:
        die(f"no test_bpf.ko beside {image}")
    archive = initramfs(build("bpf"), [("test_bpf.ko", found[0])])
    return judge(boot(argv, archive, kernel_words="log_buf_len=8M"))


def arguments(doc, what=(), **options):
    """What a test program was called with: options of one letter with defaults, and the emulator's command line."""
    parser = argparse.ArgumentParser(description=doc.split("\n", maxsplit=1)[0])
    if what:
        parser.add_argument("what", choices=what)
    for letter, default in options.items():
        parser.add_argument(f"-{letter}", default=default, type=type(default))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if not args.command:
        parser.error("what to run it with is missing")
    return args


def main():
    args = arguments(__doc__, ["build", "litmus", "bpf", "crashme"], n="20000")
    if args.what == "build":
        print(build(args.command[0]))
        return 0
    if args.what == "bpf":
        return test_bpf(args.command)
    limit = 1800 + (int(args.n) if args.what == "crashme" else 0)
    lines = boot(args.command, initramfs(build(args.what)), [args.n], timeout=limit)
    status = judge(lines)
    if args.what == "litmus" and int(args.n) >= MANY and any(line.startswith("PASS SB: 0 of") for line in lines):
        die("what x86 does itself was never seen (SB): no two vCPUs ran side by side, so this proves nothing")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    if args.what == "crashme" and most > MOST_MIB:
        die(f"the emulator grew to {most} MiB")
    return status


if __name__ == "__main__":
    sys.exit(main())
