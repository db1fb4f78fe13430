#!/usr/bin/env python3
"""lockstep.py [-n N] [--self-test] ARMLET: a whole boot of Debian's kernel, to power-off, by the translator and by the
interpreter with the same deterministic clock (-accel ENGINE,lockstep=N, src/cpu/lockstep.h): a line of registers and a hash of
the state every N instructions must be the same.  If not, the first block that differs is looked for and shown.

--self-test: two machines that do differ (their CPU) are told apart.
"""
import argparse
import os
import shlex
import subprocess
import sys
import tempfile

NAMES = ["count", "pc", "hash", "pstate", "sp"] + [f"x{i}" for i in range(31)]
COUNT, PC, HASH = 0, 1, 2


def board(armlet, cpu):
    line = subprocess.run([armlet, "boot", "--kernel", "6.1", "--show"], check=True, timeout=900, stdout=subprocess.PIPE,
                          text=True).stdout
    words = shlex.split(line)
    return [armlet, "-M", "virt", "-cpu", cpu, "-m", "512", "-nographic", "-nic", "none", "-kernel",
            words[words.index("-kernel") + 1], "-initrd", words[words.index("-initrd") + 1], "-append",
            "console=ttyAMA0 rdinit=/bin/busybox -- poweroff -f"]


class Run:
    """One engine, its lines as they come."""

    def __init__(self, args, engine, n, trace=None):
        self.pipe = os.path.join(tempfile.mkdtemp(), "log")
        os.mkfifo(self.pipe)
        accel = f"{engine},lockstep={n},lockstep-log={self.pipe}" + (f",lockstep-trace={trace}" if trace else "")
        self.child = subprocess.Popen([*args, "-accel", accel], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.log = open(self.pipe, encoding="ascii")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.log.close()
        self.child.kill()
        self.child.wait()
        os.unlink(self.pipe)
        os.rmdir(os.path.dirname(self.pipe))

    def line(self):
        words = self.log.readline().split()
        return words and [int(words[COUNT])] + words[1:]


def first_difference(a, b):
    """(lines compared, the last equal line, the two that differ or None)."""
    same, lines = None, 0
    while True:
        x, y = a.line(), b.line()
        if x != y or not x:
            return lines, same, (x, y) if x != y else None
        same, lines = x, lines + 1


def show(before, x, y, path):
    print(f"after instruction {before[COUNT]} at pc {before[PC]}" if before else "from the start")
    if path:
        print("  the interpreter then ran " + " ".join(path))
    for name, left, right in zip(NAMES, x or ["ended"], y or ["ended"]):
        if left != right:
            print(f"  {name}: tcg {left}, interp {right}")


def narrow(a, b, end):
    """Both in detail: the first block behind which they differ.  The lines of the interpreter are the more."""
    before, path = None, []
    x = a.line()
    while x and x[COUNT] <= end:
        y = b.line()
        while y and y[COUNT] < x[COUNT]:
            path.append(y[PC])
            y = b.line()
        if x != y:
            show(before, x, y, path[-80:])
            return
        before, path, x = x, [x[PC]], a.line()
    print("and not when looked at block by block: the fault is one of links, the jump cache or the return stack")


def compare(args, n):
    left, right = args
    with Run(left, "tcg", n) as a, Run(right, "interp", n) as b:
        lines, same, different = first_difference(a, b)
        status = (a.child.wait(60), b.child.wait(60)) if not different else None
    if not different:
        print(f"{lines} lines of {n} instructions are equal, exit status {status}")
        return lines > 1000 and status == (0, 0)
    x, y = different
    print(f"line {lines + 1} differs:")
    show(same, x, y, None)
    start = same[COUNT] if same else 1
    with Run(left, "tcg", n, start) as a, Run(right, "interp", n, start) as b:
        for _ in range(lines):
            a.line(), b.line()
        narrow(a, b, (x or y)[COUNT])
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("-n", type=int, default=9973)
    parser.add_argument("--cpu", default="cortex-a57")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("armlet")
    o = parser.parse_args()
    other = "cortex-a72" if o.self_test else o.cpu
    equal = compare((board(o.armlet, o.cpu), board(o.armlet, other)), o.n)
    good = equal != o.self_test
    print(f"{int(good)} passed, {int(not good)} failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
