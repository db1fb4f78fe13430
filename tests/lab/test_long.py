"""What takes minutes: verdicts on a kernel that is made to go wrong, and builds of a real kernel."""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pexpect
import pytest

from armlet import ARMLET, armlet

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))
import testkernel  # noqa: E402

BUILD_SECONDS = 3600


@pytest.fixture(scope="module")
def kernel():
    return testkernel.image(ARMLET)


# --- verdicts ------------------------------------------------------------------------------------------

TROUBLE = "/sys/kernel/debug/provoke-crash/DIRECT"
# What the kernel is told to do, what it is to be impatient about, the status, words of the last line, what is
# above it: the kernel's own report, and ours of a guest that hangs (without BTF it does not tell of crashes).
VERDICTS = [
    ("PANIC", "", 240, "panic in the guest's kernel: Kernel panic - not syncing: dumptest", " lkdtm_do_action"),
    ("BUG", "", 241, "oops in the guest's kernel: kernel BUG at ", " lkdtm_BUG"),
    ("EXCEPTION", "", 241, "oops in the guest's kernel: Internal error: Oops", " lkdtm_EXCEPTION"),
    ("SOFTLOCKUP", "echo 1 > /proc/sys/kernel/watchdog_thresh", 242, "soft lockup in the guest's kernel: ",
     "report: what the guest is at\n(.*\n)*    #.* direct_entry"),
    ("HARDLOCKUP", "echo 4 > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout; "
     "echo 0 > /proc/sys/kernel/soft_watchdog", 243, "RCU stall in the guest's kernel: rcu: INFO: rcu_",
     "report: what the guest is at\n(.*\n)*    #.* direct_entry"),
    ("HUNG_TASK", "echo 2 > /proc/sys/kernel/hung_task_timeout_secs", 245,
     "hung task in the guest's kernel: INFO: task ", "report: what the guest is at\n  CPU 0: "),
]


@pytest.mark.parametrize("what,before,status,words,above", VERDICTS, ids=[v[0] for v in VERDICTS])
def test_verdict(kernel, what, before, status, words, above):
    script = f"mount -t debugfs none /sys/kernel/debug; {before or ':'}; echo {what} > {TROUBLE}; sleep 200"
    r = armlet("run", kernel, "--smp", "2", "--no-share", "--append", "kunit.enable=0", "--",
               "sh", "-c", script)
    report = r.stderr.decode()
    assert r.returncode == status and words in report.splitlines()[-1], report
    assert re.search(above, report), report


# --- a new user ----------------------------------------------------------------------------------------

def test_first_command_in_a_fresh_clone(tmp_path):
    """README's, with nothing fetched: until the shell, and from what is there then."""
    top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    subprocess.run(["git", "clone", "-q", top, str(tmp_path / "clone")], check=True, timeout=60)
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_DATA_HOME": str(tmp_path / "data")}
    for _ in range(2):
        child = pexpect.spawn("make", ["run"], cwd=tmp_path / "clone", env=env, timeout=BUILD_SECONDS,
                              encoding="utf-8")
        begin = time.monotonic()
        child.expect("~ # |/ # ")
        print(f"a shell after {time.monotonic() - begin:.1f} s")
        child.sendline("poweroff")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0


# --- builds --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Debian's source, as links: what is changed is written anew."""
    folder = os.path.join(os.path.dirname(testkernel.source(ARMLET)), f"test-{os.getpid()}")
    shutil.copytree(testkernel.source(ARMLET), folder, symlinks=True, copy_function=os.link)
    yield folder
    shutil.rmtree(folder)


def times(out, pattern="**/*.o"):
    return {path: os.stat(path).st_mtime_ns for path in glob.glob(os.path.join(out, pattern), recursive=True)}


def test_build_that_is_interrupted_goes_on_and_a_changed_line_costs_little(source, tmp_path):
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    words = ["kernel", "build", "--tiny", "--source", source]
    p = subprocess.Popen([ARMLET, *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    built = os.path.join(tmp_path, "armlet/build")
    end = time.monotonic() + BUILD_SECONDS
    while len(times(built)) < 300:
        assert p.poll() is None and time.monotonic() < end
        time.sleep(1)
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    time.sleep(1)
    first = times(built)
    time.sleep(5)
    assert times(built) == first  # nobody builds any more

    r = armlet(*words, env=env, timeout=BUILD_SECONDS)
    image = r.stdout.decode().strip()
    assert r.returncode == 0 and os.access(image, os.R_OK), r.stderr
    whole = times(built)
    kept = sum(whole[path] == when for path, when in first.items() if path in whole)
    assert kept > 250 and len(whole) > 1000

    changed = os.path.join(source, "kernel/fork.c")
    with open(changed) as f:
        text = f.read()
    os.unlink(changed)
    with open(changed, "w") as f:
        f.write(text + "static const int armlet_added __used = 1;\n")
    config = times(built, "*/.config")
    r = armlet(*words, env=env, timeout=BUILD_SECONDS)
    assert r.returncode == 0 and r.stdout.decode().strip() == image, r.stderr
    again = times(built)
    new = {os.path.basename(path) for path in again if again[path] != whole.get(path)}
    assert "fork.o" in new and len(new) < 30, new
    assert times(built, "*/.config") == config
    image_time = os.stat(image).st_mtime_ns
    assert armlet(*words, env=env, timeout=BUILD_SECONDS).returncode == 0
    assert os.stat(image).st_mtime_ns == image_time
