#!/usr/bin/python3
"""bench/lab.py BUILD [PART...] [options]: what the lab's commands cost; the least of N runs counts.

    run     `armlet run -- uname -a' from a kernel in the cache, and virtme-ng with QEMU, in turn
    kunit   the kernel's kunit.py with each of the two as its qemu-system-aarch64, in turn
    build   `armlet kernel build --tiny' of linux-source-6.1, from nothing, and after a change of one line
    first   `make run' in a fresh clone with an empty cache, until the shell, and once more

Without a PART: run.
"""
import argparse
import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
import debs
import inputs
import kunit
import testkernel
import vng
from guest import Guest

PARTS = ["run", "kunit", "build", "first"]
LIMIT = 3600
# name: (how many times faster than the peer, or None; seconds, or None)
TARGETS = {"run -- uname -a: wall": (2, 1.5), "kunit.py: wall": (2, None),
           "kernel build --tiny: wall": (None, 300), "kernel build again, one line changed: wall": (None, 30),
           "make run: shell, the first time": (None, 180), "make run: shell, the second time": (None, 5)}


def say(text):
    print("lab: " + text, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, args):
        self.args = args
        self.armlet = os.path.abspath(os.path.join(args.build, "armlet"))
        self.best = {}  # name -> program -> seconds

    def note(self, name, program, seconds):
        row = self.best.setdefault(name, {})
        row[program] = min(seconds, row.get(program, seconds))
        say(f"{name}: {program} {seconds:.2f}")

    def measure(self, name, program, argv, **more):
        """Runs it, and notes wall and CPU seconds; its output."""
        done, wall, cpu = kunit.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
        if done.returncode:
            sys.exit(f"lab: {' '.join(argv[:4])}...: status {done.returncode}: {done.stderr[-500:]}")
        self.note(name + ": wall", program, wall)
        self.note(name + ": CPU", program, cpu)
        return done.stdout

    def run(self):
        kernel = inputs.run([self.armlet, "kernel", "get", "6.1"]).split()[-1]
        line, env = vng.vng_command(kernel, inputs.peer())
        words = ["run", "--kernel", "6.1", "--smp", "2", "--", "uname", "-a"]
        for _ in range(self.args.n):
            ours = self.measure("run -- uname -a", "armlet", [self.armlet, *words])
            theirs = self.measure("run -- uname -a", "qemu", [*line, "--exec", "uname -a"], env=env)
            if not ours.endswith("aarch64 GNU/Linux\n") or "aarch64 GNU/Linux" not in theirs:
                sys.exit(f"lab: not what uname says: {ours!r} {theirs[-300:]!r}")

    def kunit(self):
        image, source = testkernel.image(self.armlet), testkernel.source(self.armlet)
        programs = {"armlet": self.armlet, "qemu": inputs.peer()}
        for _ in range(self.args.n):
            seen = []
            for name, program in programs.items():
                with tempfile.TemporaryDirectory() as top:
                    results, wall, cpu = kunit.kunit_py(source, image, program, top)
                seen.append(results)
                self.note("kunit.py: wall", name, wall)
                self.note("kunit.py: CPU", name, cpu)
            if seen[0] != seen[1]:
                sys.exit("lab: kunit.py's verdicts differ; tests/kunit.py shows where")

    def build(self):
        """In a cache of its own, from a copy of the source whose files are links."""
        with tempfile.TemporaryDirectory(dir=debs.cache()) as top:
            source = os.path.join(top, "linux")
            say("copying the source")
            shutil.copytree(testkernel.source(self.armlet), source, symlinks=True, copy_function=os.link)
            env = dict(os.environ, XDG_CACHE_HOME=os.path.join(top, "cache"))
            words = [self.armlet, "kernel", "build", "--tiny", "--source", source]
            self.measure("kernel build --tiny", "armlet", words, env=env)
            changed = os.path.join(source, "kernel", "fork.c")
            for n in range(self.args.n):
                text = inputs.read(changed)
                os.unlink(changed)
                with open(changed, "wb") as f:
                    f.write(text + b"static const int armlet_%d __used = %d;\n" % (n, n))
                self.measure("kernel build again, one line changed", "armlet", words, env=env)
            self.measure("kernel build again, nothing changed", "armlet", words, env=env)

    def first(self):
        with tempfile.TemporaryDirectory(dir=debs.cache()) as top:
            clone = os.path.join(top, "clone")
            inputs.run(["git", "clone", "-q", inputs.SOURCE, clone])
            new = {"XDG_CACHE_HOME": os.path.join(top, "cache"), "XDG_DATA_HOME": os.path.join(top, "data")}
            argv = ["env", *(f"{name}={value}" for name, value in new.items()), "make", "-C", clone, "run"]
            for when in ("the first time", "the second time"):
                with Guest(argv) as guest:
                    guest.expect(b"# ", LIMIT)
                    self.note("make run: shell, " + when, "armlet", guest.elapsed())
                    guest.send("poweroff\n")
                    guest.finish(60)


def verdict(name, seconds, gain):
    times, most = TARGETS.get(name, (None, None))
    words = []
    if times and gain is not None:
        words.append(f"{times}x {'yes' if gain >= times else 'NO'}")
    if most:
        words.append(f"< {most} s {'yes' if seconds < most else 'NO'}")
    return ", ".join(words)


def report(bench, load):
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        cpu = re.search(r"model name\s*:\s*(.*)", f.read()).group(1)
    version = inputs.run(["git", "-C", inputs.SOURCE, "describe", "--always", "--dirty"]).strip()
    lines = [f"{datetime.date.today()}, the lab\n",
             f"{cpu}, {os.cpu_count()} CPUs, Linux {platform.release()}, load {load:.1f} at the start; "
             f"armlet {version}; least of {bench.args.n}\n",
             "| what | armlet s | qemu s | qemu/armlet | target |", "|---|--:|--:|--:|---|"]
    for name, row in bench.best.items():
        gain = row["qemu"] / row["armlet"] if "qemu" in row else None
        peer = f"{row['qemu']:.2f} | {gain:.2f}" if gain else "- | -"
        lines.append(f"| {name} | {row['armlet']:.2f} | {peer} | {verdict(name, row['armlet'], gain)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("build")
    parser.add_argument("parts", nargs="*", default=["run"], metavar="PART", help="of " + ", ".join(PARTS))
    parser.add_argument("-n", type=int, default=5, help="runs, of which the least counts")
    parser.add_argument("--record", action="store_true", help="append to bench/results.md")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    bench, load = Bench(args), os.getloadavg()[0]
    for part in args.parts:
        getattr(bench, part)()
    text = report(bench, load)
    print(text)
    if args.record:
        with open(os.path.join(inputs.SOURCE, "bench", "results.md"), "a", encoding="utf-8") as f:
            f.write("\n## " + text)


if __name__ == "__main__":
    main()
