#!/usr/bin/env python3
"""The kernel's own tests, in a guest.

    kselftest.py [-g GROUP,...] [-k WORD] ARMLET...   ARMLET... is the emulator's command line, to which -kernel (Debian's
                                                      6.1), -initrd and -append are added; -k: programs with WORD in them

The sources are those of Debian's linux-source-6.1, the compiler Debian's for arm64; programs are static.  Both are kept
in $XDG_CACHE_HOME/armlet/bench.
"""
import fnmatch
import os
import shutil
import subprocess
import sys

import guestjobs
import inguest
import inputs

GROUPS = ["arm64/abi", "arm64/fp", "arm64/signal", "arm64/tags", "breakpoints", "seccomp", "clone3", "timers", "ptrace",
          "futex/functional", "mincore", "membarrier", "sigaltstack", "kcmp"]
MEMBERS = ["*/tools/testing/selftests", "*/tools/include", "*/tools/scripts", "*/scripts", "*/Makefile",
           "*/include/uapi", "*/include/linux", "*/arch/arm64/include"]
SECONDS = 60
LIMITS = {"seccomp_bpf": 120, "nanosleep": 120, "raw_skew": 150, "threadtest": 90, "inconsistency-check": 120}
ARGUMENTS = {"inconsistency-check": "-t 2"}  # seconds a clock
# What another emulator of the same machine fails too.
KNOWN = {
    "breakpoints/step_after_suspend_test": "the machine cannot be suspended",
    "ptrace/vmaccess": "waits for an exec that this kernel never lets go on",
    "timers/rtcpie": "the RTC has no periodic interrupts",
    "clone3/clone3_cap_checkpoint_restore": "wants an unprivileged user with capabilities kept",
    "mincore/mincore_selftest": "wants a disk file in the current folder",
    "futex/functional/futex_requeue": "wants a second CPU to be quick",
}
# Scripts; what judges only by the time that it took.
NOT_RUN = ["*.sh", "seccomp/seccomp_benchmark", "timers/nsleep-lat", "timers/set-timer-lat", "timers/mqueue-lat"]


def make(folder, out, source, libraries, *targets):
    """make in a folder of tests; what fails to build is left out and said."""
    tests = os.path.join(source, "tools/testing/selftests")
    flags = f"-Wall -O2 -g -I{tests} -I{libraries}/usr/include"
    argv = ["make", "-k", "-B", "-s", "-j2", "-C", os.path.join(tests, folder), f"OUTPUT={out}", "ARCH=arm64",
            "CROSS_COMPILE=aarch64-linux-gnu-", "CC=aarch64-linux-gnu-gcc -static", f"top_srcdir={source}",
            f"LDFLAGS=-Wl,-z,muldefs -L{libraries}/usr/lib/aarch64-linux-gnu",
            f"KHDR_INCLUDES=-I{tests} -I{libraries}/usr/include", *targets]
    return subprocess.run(argv, env=dict(os.environ, CFLAGS=flags), capture_output=True, text=True, check=False)


def build(group):
    """A folder with the programs of the group, and a file `tests' with the names of those that are to be run."""
    source = guestjobs.source_tree("linux-source-6.1", "usr/src/linux-source-6.1.tar.xz", MEMBERS)
    libraries = inputs.debian_tree(["libcap-dev", "libmnl-dev"], with_dependencies=False)

    def compile_all(new):
        guestjobs.say(f"building {group}")
        os.makedirs(new)
        got = make(group, new, source, libraries, "all")
        names = make(group, new, source, libraries, "emit_tests").stdout.split()
        names = [name.rpartition(":")[2] for name in names]
        missing = [name for name in names if not os.path.exists(os.path.join(new, name))]
        if missing:
            guestjobs.say(f"{group}: not built: {', '.join(missing)}\n{got.stderr[-2000:]}")
        with open(new + "/tests", "w", encoding="ascii") as f:
            f.writelines(name + "\n" for name in names if name not in missing)
        for name in os.listdir(new):
            if name.endswith((".o", ".d")):
                os.remove(os.path.join(new, name))

    key = inputs.hash_of(inputs.compiler_version("aarch64-linux-gnu-gcc"), source, libraries, inputs.read(__file__))
    return inputs.made(inputs.cache(f"kselftest-{group.replace('/', '-')}-{key}"), compile_all)


def plan(groups, word):
    """(jobs, files)"""
    jobs, files = [], []
    for group in groups:
        folder = build(group)
        with open(folder + "/tests", encoding="ascii") as f:
            names = f.read().split()
        if group == "arm64/tags":
            names = ["tags_test"]  # its script says no more than its status
        for name in names:
            full = f"{group}/{name}"
            if word in full and not any(fnmatch.fnmatch(full, pattern) for pattern in NOT_RUN):
                jobs.append((full, LIMITS.get(name, SECONDS), f"/tests/{full} {ARGUMENTS.get(name, '')}"))
        for name in os.listdir(folder):
            files.append((f"tests/{group}/{name}", os.path.join(folder, name)))
    return jobs, files


def main():
    args = inguest.arguments(__doc__, g=",".join(GROUPS), k="")
    if not shutil.which("aarch64-linux-gnu-gcc"):
        inguest.die("aarch64-linux-gnu-gcc is missing (tools/deps check)")
    jobs, files = plan(args.g.split(","), args.k)
    results = guestjobs.run(args.command, jobs, files, timeout=3000)
    return guestjobs.judge(jobs, results, KNOWN)


if __name__ == "__main__":
    sys.exit(main())
