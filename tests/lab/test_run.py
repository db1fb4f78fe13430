"""armlet run: output, input, statuses, and what can go wrong in the guest."""
import hashlib
import os
import re
import signal
import subprocess
import time
from xml.etree import ElementTree

import pexpect
import pytest

from armlet import ARMLET, KERNEL, SECONDS, armlet, read_from_image, run, script


def error_line(result):
    """The line that says why the run ended: the last on stderr."""
    return result.stderr.decode(errors="replace").strip().splitlines()[-1]


def test_output_and_nothing_else():
    r = run("uname", "-m")
    assert (r.returncode, r.stdout, r.stderr) == (0, b"aarch64\n", b"")


def test_streams_status_arguments_environment_and_directory():
    words = ["", " a  b ", "it's", '"q"', "$HOME", "back\\slash", "new\nline", "*", "ä"]
    r = run("sh", "-c", 'for a; do printf "[%s]" "$a"; done; echo; pwd; echo $A-$B; echo err >&2; exit 37', "sh", *words,
            options=["--env", "A=1 2", "--env", "B", "--cwd", "/new/place"], env={**os.environ, "B": "x'y"})
    assert r.stdout.decode() == "".join(f"[{w}]" for w in words) + "\n/new/place\n1 2-x'y\n"
    assert (r.returncode, r.stderr) == (37, b"err\n")


def test_binary_both_ways():
    data = os.urandom(1 << 20)
    r = run("cat", input=data)
    assert r.returncode == 0 and hashlib.sha256(r.stdout).digest() == hashlib.sha256(data).digest()


def test_standard_streams_can_be_opened_again():
    r = script("cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr; [ ! -t 0 ] && [ ! -t 1 ]", input=b"in\n")
    assert (r.returncode, r.stdout, r.stderr) == (0, b"in\nout\n", b"err\n")


def test_nothing_shared_and_a_command_that_dies_of_a_signal():
    r = script("pwd; ls /work /host; kill -SEGV $$", options=["--no-share"])
    assert (r.returncode, r.stdout) == (128 + signal.SIGSEGV, b"/root\n")


def test_command_that_does_not_exist_and_all_of_the_log():
    r = run("no-such-command", options=["--verbose"])
    assert r.returncode == 127 and b"no-such-command" in r.stderr
    assert b"Booting Linux on physical CPU" in r.stderr


def test_what_does_not_end_or_hold_the_run():
    """The end of init, a program that quotes an oops, a daemon that has the output."""
    r = script("kill -9 1; kill -TERM 1; echo '<0>log: Internal error: Oops' > /dev/kmsg; sleep 1000 & echo still here")
    assert (r.returncode, r.stdout) == (0, b"still here\n")


def test_reader_that_leaves_ends_the_command():
    r = subprocess.run(f"{ARMLET} run {' '.join(KERNEL)} -- yes | head -n 1; exit ${{PIPESTATUS[0]}}", shell=True,
                       executable="/bin/bash", timeout=SECONDS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert (r.returncode, r.stdout) == (128 + signal.SIGPIPE, b"y\n")


def test_current_directory_is_shared(tmp_path):
    (tmp_path / "a, b").mkdir()
    (tmp_path / "a, b" / "in").write_text("from the host\n")
    r = script("pwd; cat in; echo from the guest > out; chmod 600 out", cwd=tmp_path / "a, b")
    assert (r.returncode, r.stdout.decode()) == (0, f"{tmp_path}/a, b\nfrom the host\n"), r.stderr
    assert (tmp_path / "a, b" / "out").read_text() == "from the guest\n"
    assert (tmp_path / "a, b" / "out").stat().st_mode & 0o777 == 0o600


def test_sharing_read_only(tmp_path):
    (tmp_path / "file").write_text("x")
    r = script("cat file; echo y > file", options=["--share", str(tmp_path), "--read-only"])
    assert r.returncode != 0 and r.stdout == b"x" and b"Read-only" in r.stderr
    assert (tmp_path / "file").read_text() == "x"


def test_root_directory_is_shared_aside():
    r = script("pwd; ls -d etc/passwd; busybox | head -n 1", cwd="/")
    assert r.returncode == 0 and r.stdout.startswith(b"/host\netc/passwd\nBusyBox"), r.stderr


@pytest.mark.parametrize("form", ["dir", "ext4"])
def test_root(tmp_path, form):
    r = armlet("rootfs", "make", str(tmp_path / "root"), "--format", form)
    assert r.returncode == 0, r.stderr
    (tmp_path / "work").mkdir()
    r = script("pwd; mount | grep ' / '; ls -d /root/hello; echo kept > /root/kept; echo out > out; exit 7",
               options=["--root", str(tmp_path / "root")], cwd=tmp_path / "work")
    out = r.stdout.decode()
    assert r.returncode == 7 and out.startswith(f"{tmp_path}/work\n") and out.endswith("/root/hello\n"), r.stderr
    assert ("type nfs" if form == "dir" else "/dev/vda on / type ext4") in out
    assert (tmp_path / "work" / "out").read_text() == "out\n"
    if form == "dir":
        assert (tmp_path / "root/root/kept").read_text() == "kept\n"
    else:
        assert read_from_image(tmp_path / "root", "/root/kept") == b"kept\n"


# --- verdicts -------------------------------------------------------------------------------------------------

VERDICTS = [
    ("echo c > /proc/sysrq-trigger", 240, "panic in the guest's kernel"),
    ("echo '<0>Internal error: Oops: 96000044 [#1] SMP' > /dev/kmsg; sleep 100", 241, "oops in the guest's kernel"),
    ("echo '<0>watchdog: BUG: soft lockup - CPU#0 stuck for 22s!' > /dev/kmsg; sleep 100", 242, "soft lockup in"),
    ("echo '<3>rcu: INFO: rcu_preempt self-detected stall on CPU' > /dev/kmsg; sleep 100", 243, "RCU stall in"),
    ("tail /dev/zero", 244, "out of memory"),
    # Its own init, by zeros over its code.
    ("read -r a rest < /proc/1/maps; dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$((0x${a%%-*} / 4096)) count=300 "
     "conv=notrunc; sleep 100", 240, "Attempted to kill init"),
    ("poweroff -f", 246, "the guest ended before the command did"),
    ("reboot -f", 246, "the guest ended before the command did"),
]


@pytest.mark.parametrize("text,status,words", VERDICTS, ids=[f"{v[1]}-{v[0].split()[0]}" for v in VERDICTS])
def test_verdict(text, status, words):
    r = script(text, options=["--memory", "160M"])
    assert r.returncode == status, r.stderr
    assert words in error_line(r)
    report = r.stderr.decode()
    if words.startswith("panic"):
        assert "armlet: report: Kernel panic" in report and "task sh, pid" in report
        assert "Call trace:" in report and "end Kernel panic - not syncing: sysrq triggered crash" in report


def test_trouble_can_be_outlived():
    r = script("echo '<0>Internal error: Oops: 1 [#1]' > /dev/kmsg; echo alive", options=["--keep-going"])
    assert (r.returncode, r.stdout) == (0, b"alive\n")


def test_hang():
    # What says "alive" stops: from outside, that is a guest that does nothing any more.
    r = script("for p in /proc/[0-9]*; do read -r a < $p/comm; [ $a = init ] && [ ${p#/proc/} != 1 ] && "
               "kill -STOP ${p#/proc/}; done; sleep 100", options=["--hang", "8"])
    assert r.returncode == 245 and "hangs" in error_line(r)


def test_hung_task(tmp_path):
    """A task that waits for a frozen file system, and what the guest is at meanwhile."""
    assert armlet("rootfs", "make", str(tmp_path / "root"), "--format", "ext4").returncode == 0
    r = script("echo 2 > /proc/sys/kernel/hung_task_timeout_secs; fsfreeze --freeze /; echo > /root/new",
               options=["--root", str(tmp_path / "root")])
    report = r.stderr.decode()
    assert r.returncode == 245 and "hung task in the guest's kernel: INFO: task sh:" in error_line(r), report
    assert "armlet: report: what the guest is at\n  CPU 0: " in report
    assert re.search(r"blocked: task sh, pid \d+\n(    #.*\n)*    #\d+ +0x[0-9a-f]+ mnt_want_write", report), report


def test_timeout():
    r = script("echo begun; while :; do :; done", options=["--timeout", "4"])
    assert r.returncode == 124 and "timeout: ended after 4 s" in error_line(r)
    assert re.search(r"  CPU 0: task sh, pid \d+, in user space at 0x", r.stderr.decode())


def test_kernel_log(tmp_path):
    log = tmp_path / "log"
    r = run("true", options=["--log", str(log)])
    assert (r.returncode, r.stdout, r.stderr) == (0, b"", b"")
    assert "Booting Linux on physical CPU" in log.read_text()


# --- signals and terminals ---------------------------------------------------------------------------------------

def start(text, **kwargs):
    p = subprocess.Popen([ARMLET, "run", *KERNEL, "--", "sh", "-c", text], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, **kwargs)
    assert p.stdout.readline() == b"begun\n"
    return p


def test_interrupt_goes_to_the_command():
    p = start("trap 'echo caught; exit 9' INT; echo begun; while :; do sleep 1; done")
    p.send_signal(signal.SIGINT)
    out, _ = p.communicate(timeout=SECONDS)
    assert (p.returncode, out) == (9, b"caught\n")


def test_second_interrupt_ends_the_machine():
    p = start("trap '' INT; echo begun; while :; do sleep 1; done")
    p.send_signal(signal.SIGINT)
    time.sleep(1)
    assert p.poll() is None
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=SECONDS)
    assert p.returncode == 130


def test_interrupt_before_the_command():
    p = subprocess.Popen([ARMLET, "run", *KERNEL, "--timing", "--", "sleep", "1000"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while b"the machine starts" not in p.stderr.readline():
        assert p.poll() is None
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=SECONDS)
    assert (p.returncode, out) == (130, b"") and b"the command starts" not in err


def test_signals_end_the_machine():
    # SIGHUP: test_terminal_that_goes_away.
    p = start("echo begun; sleep 1000")
    p.send_signal(signal.SIGTERM)
    p.communicate(timeout=SECONDS)
    assert p.returncode == 128 + signal.SIGTERM


@pytest.fixture
def terminal():
    children = []

    def spawn(*command, dimensions=(33, 77), options=()):
        child = pexpect.spawn(ARMLET, ["run", *KERNEL, *options, "--", *command], timeout=SECONDS, encoding="utf-8",
                              dimensions=dimensions, echo=False, codec_errors="replace")
        children.append(child)
        return child
    yield spawn
    for child in children:
        child.close(force=True)


def finish(child):
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


def test_terminal_interrupt_before_the_command(terminal):
    child = terminal("sleep", "1000", options=["--timing"])
    child.expect("the machine starts")
    child.sendintr()
    assert finish(child) == 130
    assert "the command starts" not in child.before


def test_terminal_passes_its_size_keys_and_resizes(terminal):
    child = terminal("sh", "-c", "tty; stty size; trap 'stty size; echo resized' WINCH; echo begun; until read x; do :; done; echo got-$x; sleep 1000; "
                     "echo never")
    child.expect("/dev/hvc0\r+\n33 77\r+\n")
    child.expect("begun")
    child.setwinsize(20, 50)
    child.expect("20 50\r+\nresized")
    child.sendline("abc")
    child.expect("got-abc")
    time.sleep(1)
    child.sendintr()
    assert finish(child) == 128 + signal.SIGINT


def test_terminal_passes_every_interrupt(terminal):
    child = terminal("sh", "-c", "trap 'echo caught' INT; echo begun; while :; do sleep 1; done")
    child.expect("begun")
    for _ in range(2):
        child.sendintr()
        child.expect("caught")
    child.send("\x01x")
    assert finish(child) == 246


def test_terminal_that_goes_away(terminal):
    child = terminal("sh", "-c", "echo begun; sleep 1000")
    child.expect("begun")
    pid = child.pid
    os.close(child.child_fd)
    for _ in range(10 * SECONDS):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    child.closed = child.terminated = True
    child.ptyproc.closed = child.ptyproc.terminated = True
    assert done and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 128 + signal.SIGHUP


def test_escape_key_ends_the_machine(terminal):
    child = terminal("sh", "-c", "trap '' INT; echo begun; sleep 1000")
    child.expect("begun")
    child.send("\x01x")
    assert finish(child) == 246


# --- wrong input --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("args,words", [
    ([], "give a command behind --"),
    (["--"], "give a command behind --"),
    (["--timout", "3", "--", "true"], "did you mean --timeout"),
    (["--timeout", "soon", "--", "true"], "give seconds"),
    (["--timeout", "--", "true"], "--timeout needs a value"),
    (["--no-tty=1", "--", "true"], "takes no value"),
    (["a", "b", "--", "true"], "one kernel, not 'a' and 'b'"),
    (["--kernel", "2.4", "--", "true"], "no kernel series 2.4"),
    (["--kernel", "6.1", "x", "--", "true"], "not both"),
    (["/no/such/kernel", "--", "true"], "/no/such/kernel"),
    (["--smp", "99", "--", "true"], "99"),
    (["--env", "1=2", "--", "true"], "--env 1=2"),
    (["--share", "/no/such/place", "--", "true"], "--share /no/such/place: No such file"),
    (["--share", "/etc/passwd", "--", "true"], "not a directory"),
    (["--root", "/no/such/root", "--", "true"], "--root /no/such/root: No such file"),
    (["--share", "/tmp", "--no-share", "--", "true"], "not both"),
    (["--log", "/no/such/place/log", "--", "true"], "/no/such/place/log"),
])
def test_wrong_arguments(args, words):
    r = armlet("run", *args)
    err = r.stderr.decode()
    assert r.returncode == 125 and words in err and len(err.splitlines()) == 1, err


def test_help_names_every_status():
    text = armlet("run", "--help").stdout.decode()
    assert set(map(int, re.findall(r"\b(12[4-7]|24[0-9])\b", text))) >= {124, 125, 126, 127, *range(240, 247)}


def test_kernel_that_lacks_options(tmp_path):
    # An Image header with nothing behind it, and the configuration beside it.
    image = bytearray(64)
    image[16:24] = (1 << 20).to_bytes(8, "little")
    image[56:60] = b"ARM\x64"
    (tmp_path / "Image").write_bytes(image)
    on = ["BLK_DEV_INITRD", "BINFMT_ELF", "BINFMT_SCRIPT", "DEVTMPFS", "PROC_FS", "SYSFS", "TMPFS", "VIRTIO_MMIO",
          "SERIAL_AMBA_PL011_CONSOLE"]
    runs = ["run", str(tmp_path / "Image"), "--", "true"]
    boots = ["boot", str(tmp_path / "Image")]
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    for more, args, status, words in [
            ([], runs, 125, "cannot run commands; it lacks CONFIG_VIRTIO_CONSOLE=y "),
            (["VIRTIO_CONSOLE", "9P_FS"], runs, 125,
             "--no-share does without); it lacks CONFIG_NET_9P=y CONFIG_NET_9P_VIRTIO=y "),
            ([], [*boots, "--root", str(tmp_path)], 1, "cannot mount its root by NFS; it lacks CONFIG_ROOT_NFS=y "),
            (["VIRTIO_BLK", "VIRTIO_PCI"], [*boots, "--root", str(tmp_path / "disk")], 1,
             "cannot mount its root from a disk; it lacks CONFIG_PCI_HOST_GENERIC=y CONFIG_EXT4_FS=y "),
            ([], [*boots, "--root", "none", "--share", str(tmp_path)], 1,
             "cannot mount a shared directory; it lacks CONFIG_NET_9P=y CONFIG_NET_9P_VIRTIO=y CONFIG_9P_FS=y "),
            (None, [*boots, "--root", "none"], 1, "cannot have its root in memory; it lacks CONFIG_BLK_DEV_INITRD=y ")]:
        config = ["SERIAL_AMBA_PL011_CONSOLE"] if more is None else [*on, *more]
        (tmp_path / "config").write_text("".join(f"CONFIG_{name}=y\n" for name in config))
        r = armlet(*args, timeout=30)
        err = r.stderr.decode()
        assert r.returncode == status and len(err.splitlines()) == 1, err
        assert words in err and "armlet kernel build --source TREE --fragment FILE" in err, err


# --- test results ---------------------------------------------------------------------------------------------------

def test_ktap(tmp_path):
    junit = tmp_path / "out.xml"
    r = script("echo KTAP version 1; echo 1..1; echo '    KTAP version 1'; echo '    # Subtest: s'; echo '    1..2'; "
               "echo '    ok 1 a'; echo why; echo '    not ok 2 b'; echo not ok 1 s", options=["--ktap", "--junit", str(junit)])
    lines = r.stdout.decode().splitlines()
    assert r.returncode == 1
    assert lines[:3] == ["passed   s.a", "failed   s.b", "           why"]
    assert lines[-1] == "1 passed, 1 failed, 0 crashed, 0 skipped, 0 todo, 0 wrong in the output"
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("s", "2", "1")
    assert "why" in suite.findall("testcase")[1].find("failure").text


def test_ktap_of_binary_output(tmp_path):
    junit = tmp_path / "out.xml"
    data = b"1..2\nok 1 a\n\x00\xff\xfe<&\x1b[1m]]>" + bytes(range(256)) + b"\nnot ok 2 b\n"
    r = run("cat", input=data, options=["--ktap", "--junit", str(junit)])
    assert r.returncode == 1 and b"1 passed, 1 failed, 0 crashed" in r.stdout
    assert [c.get("name") for c in ElementTree.parse(junit).getroot().iter("testcase")] == ["a", "b"]


def test_ktap_and_the_commands_status():
    assert script("echo 1..1; echo ok 1 a; exit 9", options=["--ktap"]).returncode == 9


def test_ktap_from_the_kernels_log():
    r = armlet("run", *KERNEL, "--ktap")
    assert r.returncode == 1 and b"no test results in the output" in r.stdout


def test_ktap_of_a_guest_that_panics():
    r = script("echo 1..2; echo ok 1 a; sleep 1; echo c > /proc/sysrq-trigger", options=["--ktap"])
    assert r.returncode == 240 and b"2 tests planned, 1 seen" in r.stdout
