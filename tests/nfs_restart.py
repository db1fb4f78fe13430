#!/usr/bin/python3
"""nfs_restart.py ARMLET NFS_SERVE [KILLS]: a guest goes on while the server of its files is killed and another takes over.

The guest's root is armlet's own export; beside it the guest mounts a directory that another process serves (the same
engine, on the host's loopback, reached by the user network).  That one is killed with -9 and started anew, again and again,
while the guest writes to a file that it holds open, reads another and stands in a directory, which the host renames meanwhile.
No handle may be stale, and every line must be there.  Prints "N passed, N failed".
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

SCRIPT = r"""
mkdir -p /other
mount -i -t nfs -o rw,nolock,addr=10.0.2.2,vers=3,proto=tcp,port=%(nfs)s,mountport=%(mount)s,mountproto=tcp,actimeo=0,timeo=20 \
    10.0.2.2:/export /other || exit 1
cd /other/dir
exec 3>>../lines 4<../kept
n=0
echo mounted
while [ ! -e /other/stop ]; do
    n=$((n + 1))
    echo "line $n" >&3 || echo "write: failed"
    read -r word <inside || echo "read: failed"
    [ "$word" = here ] || echo "read: $word"
    [ $((n %% 16)) != 0 ] || sync
done
exec 3>&-
cat <&4
echo "wrote $n"
"""


class Server:
    def __init__(self, program, top):
        self.argv, self.ports = [program, top], []
        self.start()

    def start(self):
        self.process = subprocess.Popen([*self.argv, *self.ports, "watch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        _, _, nfs, mount = self.process.stdout.readline().split()
        self.nfs, self.mount, self.ports = nfs, mount, [f"port={nfs}", f"mountport={mount}"]

    def kill(self):
        self.process.kill()
        self.process.wait()


def size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def wait_for_lines(path):
    """Until the guest has written more than it had."""
    before, end = size(path), time.monotonic() + 60
    while size(path) <= before:
        if time.monotonic() > end:
            raise TimeoutError("the guest does not go on")
        time.sleep(0.02)


def main():
    armlet, serve = sys.argv[1:3]
    kills = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    work = tempfile.mkdtemp(prefix="armlet-nfs-restart-", dir=os.environ.get("ARMLET_TEST_DIR", "/var/tmp"))
    top = os.path.join(work, "export")
    problems = []
    os.makedirs(os.path.join(top, "dir"))
    for name, text in (("kept", "kept open\n"), ("dir/inside", "here\n")):
        with open(os.path.join(top, name), "w", encoding="utf-8") as f:
            f.write(text)
    subprocess.run([armlet, "rootfs", "make", os.path.join(work, "root")], check=True, timeout=600, stdout=subprocess.DEVNULL)
    server = Server(serve, top)
    script = SCRIPT % {"nfs": server.nfs, "mount": server.mount}
    guest = subprocess.Popen([armlet, "run", "--no-share", "--timeout", "4m", "--root", os.path.join(work, "root"), "--", "sh", "-c",
                              script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        first = guest.stdout.readline()
        if first != "mounted\n":
            problems.append("the guest did not mount it: " + first + guest.stdout.read())
        for n in range(kills if not problems else 0):
            wait_for_lines(os.path.join(top, "lines"))
            server.kill()
            os.rename(os.path.join(top, f"moved{n - 1}" if n else "dir"), os.path.join(top, f"moved{n}"))
            server.start()
        if not problems:
            wait_for_lines(os.path.join(top, "lines"))
            open(os.path.join(top, "stop"), "w", encoding="utf-8").close()
        out = guest.communicate(timeout=120)[0]
        with open(os.path.join(top, "lines"), encoding="utf-8") as f:
            lines = f.read().splitlines()
        if lines != [f"line {n + 1}" for n in range(len(lines))] or out != f"kept open\nwrote {len(lines)}\n" or guest.returncode:
            problems.append(f"{len(lines)} lines, the last is {lines[-1:]}; status {guest.returncode}; the guest says:\n{out}")
    except (TimeoutError, subprocess.TimeoutExpired, OSError) as e:
        problems.append(str(e))
    finally:
        guest.kill()
        server.kill()
        shutil.rmtree(work, ignore_errors=True)
    for p in problems:
        print(p)
    print(f"{kills if not problems else 0} passed, {len(problems)} failed")
    return 1 if problems else 0


sys.exit(main())
