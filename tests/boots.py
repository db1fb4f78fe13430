#!/usr/bin/env python3
"""boots.py N: N boots of each of Debian's kernels at -smp 8 under the translator, from power-on through the shell to
power-off; the guest's log must not speak of a stall, a lockup or a warning."""
import os
import re
import sys
import time

import pexpect

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "functional"))
from guest import Guest, board  # noqa: E402

COMPLAINT = re.compile(r"^.*(?:stall|lockup|hung task|blocked for more|WARNING:|BUG:|Oops|Call trace).*$", re.M)


def boot(series):
    """(seconds to the shell, what is wrong or None)."""
    start = time.monotonic()
    with Guest(board(series, smp=8) + ["-accel", "tcg"]) as g:
        try:
            log = g.shell()
            seconds = time.monotonic() - start
            cpus = g.cmd("nproc")
            log += g.cmd("dmesg")
            g.child.sendline("poweroff -f")
            status = g.wait()
        except pexpect.ExceptionPexpect as e:
            return time.monotonic() - start, f"{type(e).__name__} after: {(g.child.before or '')[-500:]}"
    found = COMPLAINT.search(log)
    if found:
        return seconds, found[0].strip()
    if cpus != "8" or status:
        return seconds, f"{cpus} CPUs, exit status {status}"
    return seconds, None


def main():
    failed = 0
    n = int(sys.argv[1])
    for series in ("6.1", "6.12"):
        for i in range(n):
            seconds, wrong = boot(series)
            print(f"{'FAIL' if wrong else 'PASS'} {series} boot {i + 1}: {seconds:.2f} s to the shell {wrong or ''}",
                  flush=True)
            failed += wrong is not None
    print(f"{2 * n - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
