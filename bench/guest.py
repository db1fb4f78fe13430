"""A virtual machine as a child process: its console, what it costs, and its end, all within time limits."""
import ctypes
import os
import select
import signal
import subprocess
import tempfile
import time

PR_SET_PDEATHSIG = 1
TICK = os.sysconf("SC_CLK_TCK")
libc = ctypes.CDLL(None)


class Stalled(Exception):
    """Nothing came for too long, or the end came too early; the text is what was said at last."""


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Guest:
    def __init__(self, argv):
        self.errors = tempfile.TemporaryFile() # apart, or a warning could fall into a line of the console
        self.start = time.monotonic()
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, preexec_fn=die_with_parent,
                                        start_new_session=True)
        self.pid = self.process.pid
        self.text = b""
        self.usage = None
        os.set_blocking(self.process.stdout.fileno(), False)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.usage is None:
            os.kill(self.pid, signal.SIGKILL) # Popen.kill() would reap it, and lose its usage
            self.reap()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()

    def elapsed(self):
        return time.monotonic() - self.start

    def last(self):
        """What was said at last, for a message."""
        self.errors.seek(0)
        return (self.text[-200:] + self.errors.read()[-200:]).decode(errors="replace")

    def read(self, deadline):
        """More of the console into self.text; False at its end."""
        wait = deadline - time.monotonic()
        if wait <= 0 or not select.select([self.process.stdout], [], [], wait)[0]:
            raise Stalled(self.last())
        data = os.read(self.process.stdout.fileno(), 65536)
        self.text += data
        return bool(data)

    def expect(self, marker, limit):
        """Until the console has said `marker'."""
        deadline = time.monotonic() + limit
        while marker not in self.text:
            if not self.read(deadline):
                raise Stalled(self.last())
        self.text = self.text.split(marker, 1)[1]

    def lines(self, limit):
        """The console's lines until its end; `limit' seconds for each."""
        deadline = time.monotonic() + limit
        while True:
            while b"\n" in self.text:
                line, self.text = self.text.split(b"\n", 1)
                yield line.decode(errors="replace").strip()
                deadline = time.monotonic() + limit
            if not self.read(deadline):
                return

    def send(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def cpu(self):
        """Seconds of host CPU used so far."""
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def peak_mib(self):
        with open(f"/proc/{self.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:")) / 1024

    def reap(self):
        _, status, self.usage = os.wait4(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)

    def finish(self, limit):
        """Wait for the end that the guest has begun; returns (seconds from the start, CPU seconds)."""
        deadline = time.monotonic() + limit
        while self.read(deadline):
            pass
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                raise Stalled("does not exit")
            time.sleep(0.005)
        self.usage, self.process.returncode = usage, os.waitstatus_to_exitcode(status)
        return self.elapsed(), usage.ru_utime + usage.ru_stime
