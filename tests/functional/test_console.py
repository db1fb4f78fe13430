"""The terminal: keys, what is restored, and where a serial port can go."""
import fcntl
import os
import pty
import signal
import socket
import subprocess
import termios
import threading
import time

import pytest
from guest import ARMLET, BOOT_SECONDS, PROMPT, Guest, board, run


def test_keys():
    with Guest(board()) as g:
        g.shell()
        g.send("\x01h")
        for key in "hxstbc":
            g.expect(rf"C-a {key} +\w+")
        g.expect("C-a C-a +sends C-a")
        g.send("\x01s")
        g.expect("There is no disk to save to")
        g.send("\x01c")
        g.expect("monitor - type 'help'")
        g.send("\x01c")
        g.send("\x01t")
        g.child.sendline("echo stamped")
        g.expect(r"\[00:00:\d\d\.\d\d\d\] ")
        g.send("\x01t")
        g.child.sendline("")
        g.expect(PROMPT)
        g.child.sendline("cat | od -c | head -1")
        g.send("\x01\x01\r\x04")
        g.expect("001")
        g.send("\x01x")
        g.expect("armlet: Terminated")
        assert g.wait() == 0


def test_keys_and_text_in_one_piece():
    """What was typed before C-a c goes where it was typed, however much arrives at once."""
    with Guest(["-nographic", "-S"]) as g:
        time.sleep(0.5)
        g.send("\x01cinfo status\r\x01c")
        g.expect("VM status: paused")
        g.send("\x01x")
        assert g.wait() == 0


def test_break_is_sysrq():
    with Guest(board()) as g:
        g.shell()
        g.cmd("echo 1 > /proc/sys/kernel/sysrq")
        g.send("\x01bh")
        g.expect("sysrq: HELP")
        g.send("\x01x")
        assert g.wait() == 0


def test_other_escape():
    with Guest(board() + ["-echr", "2"]) as g:
        g.shell()
        g.send("\x02h")
        g.expect("C-b x +exit")
        g.send("\x02x")
        assert g.wait() == 0


@pytest.mark.parametrize("end", ["keys", signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV, signal.SIGABRT])
def test_terminal_is_restored(end):
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    p = subprocess.Popen([ARMLET, "-nographic"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    try:
        limit = time.time() + 20
        while termios.tcgetattr(slave) == before and time.time() < limit:
            time.sleep(0.05)
        assert termios.tcgetattr(slave) != before  # raw while it runs
        if end == "keys":
            os.write(master, b"\x01x")
        else:
            p.send_signal(end)
        status = p.wait(20)
        assert termios.tcgetattr(slave) == before
        assert status == (-end if end in (signal.SIGSEGV, signal.SIGABRT) else 0)
    finally:
        p.kill()
        os.close(master)
        os.close(slave)


def test_closed_terminal_ends_it():
    master, slave = pty.openpty()
    pid = os.fork()
    if not pid:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        os.close(master)
        os.execv(ARMLET, [ARMLET, "-nographic"])
    os.close(slave)
    time.sleep(1)
    os.close(master)
    limit = time.time() + 20
    while time.time() < limit:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("it still runs without its terminal")


def test_pipe_and_end_of_file():
    """Commands from a pipe arrive whole, however many; the end of the pipe ends nothing."""
    p = subprocess.Popen([ARMLET, *board()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    limit = threading.Timer(BOOT_SECONDS, p.kill)
    limit.start()
    try:
        out = b""
        while not out.endswith(b"# \x1b[6n"):  # the shell asks where its prompt stands
            out += os.read(p.stdout.fileno(), 4096) or pytest.fail("ended early")
        # What is typed ahead is echoed between the output of commands: so the guest counts what has arrived.
        lines = b"".join(b"echo line-%d >> /tmp/lines\n" % i for i in range(500))
        p.stdin.write(lines + b"clear; grep -c '^line-[0-9]*$' /tmp/lines; poweroff -f\n")
        p.stdin.close()
        out = p.stdout.read()
        assert p.wait(BOOT_SECONDS) == 0
    finally:
        limit.cancel()
        p.kill()
    assert b"\x1b[J500\r" in out, out[-400:]


def test_serial_to_file(tmp_path):
    log = tmp_path / "serial.log"
    r = run(*board(append="console=ttyAMA0 rdinit=/bin/poweroff"), "-serial", f"file:{log}", "-no-reboot",
            "-action", "panic=exit-failure", timeout=BOOT_SECONDS)
    assert b"Booting Linux" in log.read_bytes()
    assert b"Kernel panic" in log.read_bytes()  # init has ended
    assert r.returncode == 1 and r.stdout == ""


def test_serial_to_socket(tmp_path):
    path = str(tmp_path / "s")
    p = subprocess.Popen([ARMLET, *board(), "-serial", f"unix:{path},server=on,wait=on", "-monitor", "none"],
                         stdin=subprocess.DEVNULL)
    try:
        limit = time.time() + 20
        while not os.path.exists(path) and time.time() < limit:
            time.sleep(0.05)
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.settimeout(BOOT_SECONDS)
        seen = b""
        while b"# " not in seen:
            seen += s.recv(4096)
        s.sendall(b"poweroff -f\n")
        assert p.wait(60) == 0
    finally:
        p.kill()


def test_shared_chardev():
    """virtme-ng's way: one multiplexed stdio for the serial port and the monitor, C-a as the escape."""
    args = board() + ["-parallel", "none", "-echr", "1", "-chardev", "stdio,id=console,signal=off,mux=on", "-serial",
                      "chardev:console", "-mon", "chardev=console", "-vga", "none", "-display", "none"]
    with Guest(args) as g:
        g.shell()
        g.send("\x01x")
        assert g.wait() == 0


def test_serial_null_is_silent():
    r = run("-nographic", "-serial", "null", "-kernel", "/nonexistent")
    assert r.returncode == 1 and r.stdout == ""
