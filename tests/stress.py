#!/usr/bin/env python3
"""stress-ng --verify in a guest, class by class.

    stress.py [-c CLASS,...] [-t SECONDS] ARMLET...   each stressor of the classes for so long; ARMLET... is the emulator's
                                                      command line, to which -kernel, -initrd and -append are added

stress-ng and its libraries are Debian's, for arm64.  A class passes when no stressor says that an answer is wrong or ends
by itself; what the kernel or its configuration lacks is skipped by stress-ng.
"""
import re
import sys

import guestjobs
import inguest
import inputs

PACKAGES = ["stress-ng", "libapparmor1", "libbsd0", "libmd0", "libc6", "libgcc-s1", "libcrypt1", "libegl1", "libglvnd0",
            "libgbm1", "libgles2", "libdrm2", "libwayland-server0", "libexpat1", "libffi8", "libxcb-randr0", "libxcb1", "libxau6",
            "libxdmcp6", "libjpeg62-turbo", "libjudydebian1", "libkmod2", "libsctp1", "libxxhash0", "zlib1g", "liblzma5",
            "libzstd1", "libssl3"]
CLASSES = ["cpu", "cpu-cache", "memory", "vm", "scheduler", "os", "interrupt", "pipe"]
# resources: after it the semaphores are gone that sem-sysv has had since the start (without it sem-sysv passes).
# What wants much memory, devices of a real machine, or (vm-segv) a fast host to come to its first answer in time.
LEFT_OUT = ["vm-segv", "oom-pipe", "bad-altstack", "watchdog", "smi", "dev", "binderfs", "physpage", "quota",
            "resources"]
# Without these the deadlines that cyclic asks for are more than the kernel grants four of them, here and elsewhere.
DEADLINES = "--sched-runtime 20000 --sched-deadline 100000 --sched-period 100000"
GOOD = ("0", "3", "4")  # done; no resources; not implemented


def main():
    args = inguest.arguments(__doc__, c=",".join(CLASSES), t="1")
    tree = inputs.debian_tree(PACKAGES, with_dependencies=False)
    jobs = [(name, 1500, f"/usr/bin/stress-ng --class {name} --seq 4 --timeout {args.t} --verify --temp-path /tmp "
                         f"--vm-bytes 128m --exclude {','.join(LEFT_OUT)} {DEADLINES}") for name in args.c.split(",")]
    results = guestjobs.run(args.command, jobs, [], 3500, ["-v"], base=tree)
    for name, (status, output) in results.items():
        wrong = [line for line in output if re.search(r"stress-ng: (fail|error):", line)]
        print(f"{name}: {sum('successful' in line for line in output)} runs ended well", *wrong, sep="\n  ")
        if status in GOOD:
            results[name] = ("a stressor failed", output) if wrong else ("0", output)
    return guestjobs.judge(jobs, results)


if __name__ == "__main__":
    sys.exit(main())
