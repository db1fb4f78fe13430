"""armlet rootfs make busybox --from-source: fetched, built once, kept, and it runs."""
import os
import re
import time

from armlet import armlet


def test_built_once_and_runs(tmp_path):
    for name in ("one", "two"):
        start = time.monotonic()
        r = armlet("rootfs", "make", "busybox", str(tmp_path / name), "--from-source", timeout=1500)
        assert r.returncode == 0, r.stderr
        seconds = time.monotonic() - start
    assert b"building busybox" not in r.stderr and seconds < 60
    assert os.path.getsize(tmp_path / "one" / "bin" / "busybox") > 1 << 20
    assert (tmp_path / "one" / "bin" / "busybox").read_bytes() == (tmp_path / "two" / "bin" / "busybox").read_bytes()
    r = armlet("run", "--kernel", "6.1", "--no-share", "--root", str(tmp_path / "one"), "--", "sh", "-c",
               "busybox | head -n 1; seq 3 | awk '{ s += $1 } END { print s }'; vi --help 2>&1 | head -n 1; /root/hello")
    lines = r.stdout.decode().splitlines()
    assert r.returncode == 0 and re.match(r"BusyBox v1\.\d+\.\d+ \(\d{4}-", lines[0]), r  # Debian's has its version there
    assert lines[1] == "6" and lines[2] == lines[0].replace(" multi-call binary.", "") + " multi-call binary." and lines[3] == "Hello, ARM!"


def test_with_debian_it_makes_no_sense():
    r = armlet("rootfs", "make", "debian", "--from-source")
    assert r.returncode == 1 and b"--from-source goes with busybox" in r.stderr
