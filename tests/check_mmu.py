#!/usr/bin/env python3
"""check_mmu.py: Debian's kernel with 1 and 4 vCPUs under -accel tcg,check=mmu: each access that the data TLB of generated code
lets pass is held against the page tables (src/jit/check.h); a difference ends the program.  Processes come and go, and memory is
mapped, protected and unmapped, so that there is something to invalidate."""
import os
import re
import sys

import pexpect

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "functional"))
from guest import Guest, board  # noqa: E402

WORK = "for i in 1 2 3 4 5 6 7 8; do (ls -lR /bin | sort | md5sum; cat /proc/self/maps) >/dev/null & done; wait"


def check(smp):
    """None, or what is wrong."""
    with Guest(board(smp=smp) + ["-accel", "tcg,check=mmu,stats=on"]) as g:
        try:
            g.shell()
            g.cmd(WORK, timeout=300)
            g.child.sendline("poweroff -f")
            status = g.wait()
        except pexpect.ExceptionPexpect as e:
            return f"{type(e).__name__} after: {(g.child.before or '')[-2000:]}"
        hits = [int(n) for n in re.findall(r"checked: (\d+) TLB hits", g.child.before)]
    if status or len(hits) != smp or sum(hits) < 10_000_000:
        return f"exit status {status}, hits {hits}"
    print(f"{smp} vCPUs: {sum(hits)} accesses agree with the page tables")
    return None


def main():
    wrong = [w for w in (check(1), check(4)) if w]
    print("\n".join(wrong))
    print(f"{2 - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
