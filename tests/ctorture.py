#!/usr/bin/env python3
"""GCC's c-torture/execute and its ieee folder: C programs that abort when an answer is wrong.

    ctorture.py [-l LEVEL,...] [-k WORD] ARMLET...
        ARMLET... is the emulator's command line, to which -kernel (Debian's 6.1), -initrd and -append are added

Sources are those of Debian's gcc-12-source.  Each is compiled at -O0 and at -O2 (or the levels given), and linked into
a static program for each level, which runs them one after the other, each in a process of its own.  What does not
pass under qemu-aarch64 (it wants what this C library or target lacks) is left out, and counted.
"""
import concurrent.futures
import glob
import os
import re
import subprocess
import sys

import advsimd
import guestjobs
import inguest
import inputs

TESTS = "gcc/testsuite/gcc.c-torture/execute"
PREFIX = "aarch64-linux-gnu-"


def options(path):
    """How to compile a source, or None if it is not for this target."""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    if re.search(r"dg-do\s+(compile|link|preprocess)", text) or os.path.exists(path[:-2] + ".x"):
        return None
    found = re.findall(r'dg-(?:additional-)?options\s+"([^"]*)"\s*}', text)  # those for some targets only end otherwise
    return " ".join(found).split()


def compile_test(source, flags, level, out):
    """The test's name if it compiles, else None."""
    name = "t_" + re.sub(r"\W", "_", os.path.relpath(source, os.path.join(source, "../..")) + level)
    obj = os.path.join(out, name + ".o")
    got = subprocess.run([PREFIX + "gcc", level, "-w", "-fno-common", *flags, "-c", source, "-o", obj],
                         capture_output=True, check=False)
    if got.returncode:
        return None
    subprocess.run([PREFIX + "objcopy", f"--redefine-sym=main={name}", f"--keep-global-symbol={name}", obj], check=True)
    return name


def make(tree, level, new):
    sources = sorted(glob.glob(f"{tree}/{TESTS}/*.c") + glob.glob(f"{tree}/{TESTS}/ieee/*.c"))
    os.makedirs(new)
    guestjobs.say(f"compiling {len(sources)} programs of c-torture at {level}")
    jobs = [(source, flags, level, new) for source in sources if (flags := options(source)) is not None]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        names = [name for name in pool.map(lambda job: compile_test(*job), jobs) if name]
    names = link(new, names)
    guestjobs.say("running them under qemu-aarch64")
    got = subprocess.run(["qemu-aarch64", new + "/all"], capture_output=True, text=True, errors="replace", check=False,
                         stdin=subprocess.DEVNULL)
    good = re.findall(r"^PASS (\w+)$", got.stdout, re.M)
    guestjobs.say(f"{len(good)} of {len(jobs)} pass there")
    link(new, good)
    for path in glob.glob(new + "/*.o"):
        os.remove(path)


def link(out, names):
    """The program `all'; returns the names that it has.  A source without main, or with what nobody defines, drops out."""
    symbols = subprocess.run([PREFIX + "nm", "-g", *(f"{out}/{name}.o" for name in names)], capture_output=True, text=True,
                             check=True).stdout
    with_main = set(re.findall(r" T (t_\w+)$", symbols, re.M))
    names = [name for name in names if name in with_main]
    with open(out + "/driver.c", "w", encoding="ascii") as file:
        file.write(advsimd.DRIVER)
    while True:
        with open(out + "/tests.h", "w", encoding="ascii") as file:
            file.writelines(f"TEST({n})\n" for n in names)
        with open(out + "/objects", "w", encoding="ascii") as file:
            file.writelines(f"{out}/{n}.o\n" for n in names)
        got = subprocess.run([PREFIX + "gcc", "-O1", "-static", "-o", out + "/all", out + "/driver.c", f"@{out}/objects",
                              "-lm"], capture_output=True, text=True, check=False)
        if not got.returncode:
            return names
        bad = set(re.findall(r"/(t_\w+)\.o: in function", got.stderr)) | set(re.findall(r"/(t_\w+)\.o:\(", got.stderr))
        if not bad:
            sys.exit("c-torture does not link:\n" + got.stderr[-3000:])
        names = [name for name in names if name not in bad]


def program(level):
    tree = guestjobs.source_tree("gcc-12-source", "usr/src/gcc-12/gcc-12*.tar.xz", [f"*/{TESTS}"])
    key = inputs.hash_of(inputs.compiler_version(PREFIX + "gcc"), [level], tree, advsimd.DRIVER)
    return inputs.made(inputs.cache(f"ctorture-{key}"), lambda new: make(tree, level, new)) + "/all"


def main():
    args = inguest.arguments(__doc__, l="-O0,-O2", k="")
    passed = failed = 0
    for level in args.l.split(","):
        archive = inguest.initramfs(program(level), folders=["tmp"])
        lines = inguest.boot(args.command, archive, [args.k] if args.k else [], timeout=3000)
        inguest.judge([line for line in lines if not line.startswith("PASS")])
        count = next(re.fullmatch(r"(\d+) passed, (\d+) failed.*", line) for line in reversed(lines) if " passed, " in line)
        passed, failed = passed + int(count[1]), failed + int(count[2])
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
