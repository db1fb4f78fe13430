#!/usr/bin/env python3
"""Debian's trinity in a guest: system calls with arguments that no program gives.

    trinity.py [-t SECONDS] [-s SEED] ARMLET...
        ARMLET... is the emulator's command line, to which -kernel (Debian's 6.1), -initrd and -append are
        added

It runs as nobody, in rounds of 20,000 calls.  What it does to itself is its own affair; the kernel must not
fall nor say that it stumbled, another program must do its sums right beside it, and the emulator must not grow.
"""
import re
import resource
import sys
import tempfile

import guestjobs
import inguest
import inputs

PACKAGES = ["trinity", "libc6", "busybox-static"]
STUMBLE = "Internal error|Oops|BUG:|WARNING: CPU|Call trace|Unable to handle|soft lockup|stall"
USERS = "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
# With one in some of its first sockets it reads beyond a table of its own (net_protocols has 45 entries, not PF_MAX),
# and dies; then it does without them.
ROUND = """\
trinity() {
    /bin/busybox timeout -s KILL 60 /usr/bin/trinity -q -q -C 4 -l off -N 20000 -s "$@"
}
trinity $1
[ $? -ne 139 ] || trinity $1 --disable-fds=sockets
"""
# The sums: of a file that the guest makes.
SCRIPT = """\
mkdir -m 777 /tmp/files && cd /tmp/files || exit 9
/bin/busybox seq 1 300000 >/tmp/numbers
sum=$(/bin/busybox sha256sum </tmp/numbers)
end=$(($(/bin/busybox date +%s) + {seconds}))
n=0
while [ $(/bin/busybox date +%s) -lt $end ]; do
    n=$((n + 1))
    /bin/busybox su -s /bin/busybox nobody sh /round $(({seed} + n)) >/tmp/log 2>&1 &
    while kill -0 $! 2>/dev/null; do
        [ "$(/bin/busybox sha256sum </tmp/numbers)" = "$sum" ] || echo another sum
        /bin/busybox sleep 1
    done
    /bin/busybox grep ' Ran ' /tmp/log | /bin/busybox tail -n 1
done
/bin/busybox dmesg | /bin/busybox grep -E '{stumble}'
echo rounds $n
"""


def main():
    args = inguest.arguments(__doc__, t=60, s=1)
    tree = inputs.debian_tree(PACKAGES, with_dependencies=False)
    script = SCRIPT.format(seconds=args.t, seed=args.s, stumble=STUMBLE)
    texts = {"script": script, "round": ROUND, "etc/passwd": USERS}
    with tempfile.TemporaryDirectory() as folder:
        files = [(name, f"{folder}/{i}") for i, name in enumerate(texts)]
        for name, path in files:
            with open(path, "w", encoding="ascii") as f:
                f.write(texts[name])
        jobs = [("trinity", args.t + 300, "/bin/busybox sh /script")]
        results = guestjobs.run(args.command, jobs, files, args.t + 600, ["-v"], base=tree)
    status, output = results["trinity"]
    print(status, *output, sep="\n  ")
    wrong = [line for line in output if re.search(STUMBLE + "|another sum", line)]
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    if most > inguest.MOST_MIB:
        wrong.append(f"the emulator grew to {most} MiB")
    calls = sum(int(n) for n in re.findall(r"^\[main\] Ran (\d+) syscalls", "\n".join(output), re.M))
    if status != "0" or not calls or not any(line.startswith("rounds ") for line in output):
        wrong.append(f"it did not come to its end; {calls} calls were counted")
    print(*wrong, sep="\n")
    print(f"{int(not wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
