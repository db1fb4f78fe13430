"""The machine under test as a child on a pseudo-terminal or on pipes.  Every wait has a limit."""
import functools
import io
import os
import re
import shlex
import subprocess

import pexpect

BUILD = os.environ.get("ARMLET_BUILD", "build")
ARMLET = os.path.join(BUILD, "armlet")
PROMPT = r"/ # |~ # "
BOOT_SECONDS = 300  # a boot takes 2 to 8, and gdb a few more; the host may be busy
consoles = []  # what each guest of the running test has printed: conftest.py


@functools.lru_cache(None)
def images(series):
    """(kernel, initramfs with busybox and the virtio modules) of Debian, from the cache or fetched."""
    line = subprocess.run([ARMLET, "boot", "--kernel", series, "--root", "none", "--show"], check=True, timeout=900,
                          stdout=subprocess.PIPE, text=True).stdout
    words = shlex.split(line)
    return words[words.index("-kernel") + 1], words[words.index("-initrd") + 1]


def run(*args, timeout=20, **kwargs):
    """Runs to the end; stdin is empty."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([ARMLET, *args], timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          errors="replace", **kwargs)


def board(series="6.1", append="console=ttyAMA0", smp=1, memory="512M"):
    kernel, initrd = images(series)
    return ["-machine", "virt", "-cpu", "cortex-a57", "-nographic", "-m", memory, "-smp", str(smp), "-kernel", kernel,
            "-initrd", initrd, "-append", append]


class Guest:
    """A guest on a terminal: Guest(args).shell(), .cmd("uname"), .wait()."""

    def __init__(self, args, program=ARMLET):
        self.child = pexpect.spawn(program, args, timeout=BOOT_SECONDS, encoding="utf-8", codec_errors="replace",
                                   echo=False, dimensions=(24, 200))
        self.child.logfile_read = io.StringIO()
        consoles.append(self.child.logfile_read)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.isalive():
            self.child.close(force=True)

    def expect(self, pattern, timeout=BOOT_SECONDS):
        self.child.expect(pattern, timeout=timeout)
        return self.child.match

    def send(self, text):
        self.child.send(text)

    def shell(self):
        """Waits for the shell; returns what was printed until then."""
        self.expect(PROMPT)
        log = self.child.before
        self.cmd("stty -echo; export PS1='/ # '; dmesg -n 4")  # information of the kernel's is not a command's output
        return log

    def cmd(self, line, timeout=60):
        """The output of a command, without carriage returns and terminal queries."""
        self.child.sendline(line + "; echo END-$((6*7))")
        self.expect(r"END-42\r*\n", timeout)
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.child.before).replace("\r", "")
        self.expect(PROMPT)
        return text.strip()

    def wait(self, timeout=60):
        """The exit status once the program has ended by itself; negative: a signal."""
        self.child.expect(pexpect.EOF, timeout=timeout)
        self.child.close()
        return self.child.exitstatus if self.child.signalstatus is None else -self.child.signalstatus
