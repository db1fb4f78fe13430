#!/usr/bin/python3
"""nfs_libnfs.py NFS_SERVE: a client that others wrote (Debian's libnfs-utils) against the server, over loopback.

Prints "N passed, N failed", or one skip when libnfs-utils is not installed.
"""
import os
import shutil
import subprocess
import sys
import tempfile

passed = failed = 0


def check(ok, what):
    global passed, failed
    passed += bool(ok)
    failed += not ok
    if not ok:
        print("failed:", what)


def run(*args):
    return subprocess.run(args, capture_output=True, timeout=60)


def suite(top, url, query):
    data = os.urandom(3_000_001)
    local = os.path.join(top, "..", os.path.basename(top) + ".local")
    with open(local, "wb") as f:
        f.write(data)
    os.mkdir(os.path.join(top, "sub"))
    for n in range(500):
        open(os.path.join(top, "sub", f"file-{n}"), "w").close()
    os.symlink("sub/file-1", os.path.join(top, "link"))
    try:
        r = run("nfs-ls", url + query)
        lines = r.stdout.decode().splitlines()
        check(len(lines) == 2, f"ls of the root: {lines} {r.stderr}")
        check(any(line.startswith("lrwxrwxrwx") for line in lines), "a link is a link")
        names = {line.split()[-1] for line in run("nfs-ls", url + "/sub" + query).stdout.decode().splitlines()}
        check(names == {f"file-{n}" for n in range(500)}, "ls of 500 files")
        r = run("nfs-cp", local, url + "/copy" + query)
        check(r.returncode == 0, f"cp to the server: {r.stderr}")
        with open(os.path.join(top, "copy"), "rb") as f:
            check(f.read() == data, "what cp wrote")
        os.unlink(local)
        check(run("nfs-cp", url + "/copy" + query, local).returncode == 0, "cp from the server")
        with open(local, "rb") as f:
            check(f.read() == data, "what cp read")
        check(run("nfs-cat", url + "/copy" + query).stdout == data, "cat")
        check(run("nfs-ls", url + "/none" + query).returncode != 0, "ls of nothing fails")
        check(run("nfs-ls", url.replace("/export", "/other") + query).returncode != 0, "another export is refused")
    finally:
        if os.path.exists(local):
            os.unlink(local)


def main():
    if not shutil.which("nfs-ls"):
        print("libnfs-utils is not installed\n0 passed, 0 failed, 1 skipped")
        return 0
    top = tempfile.mkdtemp(prefix="armlet-nfs-", dir=os.environ.get("ARMLET_TEST_DIR", "/var/tmp"))
    server = subprocess.Popen([sys.argv[1], top, "watch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        _, _, nfs, mount = server.stdout.readline().split()
        suite(top, "nfs://127.0.0.1/export", f"?nfsport={nfs}&mountport={mount}&version=3")
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(top)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
