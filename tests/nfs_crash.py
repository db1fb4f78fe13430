#!/usr/bin/python3
"""nfs_crash.py NFS_SERVE NFS_WRITER [KILLS]: the server is killed in the middle of writes, again and again.

NFS_WRITER writes blocks, stable ones and unstable ones followed by COMMIT, and prints what was acknowledged.  After each
kill -9 every acknowledged byte must be in the host's file, and the handle of before the kill must work with the next
server.  Prints "N passed, N failed".
"""
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BLOCK = 4096


def start(serve, top):
    p = subprocess.Popen([serve, top, "watch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    word, _, nfs, mount = p.stdout.readline().split()
    assert word == "ready"
    return p, nfs, mount


def block(n, seq):
    return (b"%08x%08x" % (n, seq)) * (BLOCK // 16)


def read_log(text):
    """Each complete line is an acknowledgement: "block seq"; a line cut off by the end is none."""
    acked = {}
    for line in text.splitlines(keepends=True):
        if line.endswith("\n") and line[0].isdigit():
            n, seq = line.split()
            acked[int(n)] = int(seq)
    return acked


def compare(path, acked):
    """A block is what was acknowledged last, or what was being written when the server died: never older."""
    bad = 0
    with open(path, "rb") as f:
        for n, seq in acked.items():
            f.seek(n * BLOCK)
            data = f.read(BLOCK)
            got = int(data[8:16], 16) if len(data) == BLOCK and data[8:16].strip(b"\0") else -1
            bad += got < seq or data != block(n, got)
    return bad


def main():
    serve, writer = sys.argv[1:3]
    kills = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    rng = random.Random(1)
    top = tempfile.mkdtemp(prefix="armlet-nfs-crash-", dir=os.environ.get("ARMLET_TEST_DIR", "/var/tmp"))
    passed = failed = total = 0
    handle, acked, seq = "", {}, 1
    try:
        for _ in range(kills):
            server, nfs, mount = start(serve, top)
            args = [writer, nfs, mount, str(seq)] + ([handle] if handle else [])
            client = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
            first = client.stdout.readline().split()
            if len(first) != 2 or first[0] != "handle" or (handle and first[1] != handle):
                print("the handle of before the kill does not work:", first)
                failed += 1
                server.kill()
                client.kill()
                break
            handle = first[1]
            time.sleep(rng.uniform(0.05, 0.4))
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            new = read_log(client.communicate(timeout=30)[0])
            total += len(new)
            acked.update(new)
            seq = max([seq, *acked.values()]) + 1000
            bad = compare(os.path.join(top, "file"), acked)
            failed += bad > 0
            passed += bad == 0
            if bad:
                print(f"{bad} acknowledged blocks are not there")
        if total < kills:
            print("hardly anything was written")
            failed += 1
    finally:
        shutil.rmtree(top)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
