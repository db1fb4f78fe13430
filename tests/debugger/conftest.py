"""The guest helpers of the functional tests, and one guest with gdb, monitor and QMP sockets for a whole module."""
import os
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "functional"))

from guest import ARMLET, BOOT_SECONDS, board  # noqa: E402

READY = "Enter 'help'"  # busybox's shell


class Machine:
    """armlet with its sockets in a folder; the console goes to a file."""

    def __init__(self, folder, args):
        self.folder = str(folder)
        self.console = os.path.join(self.folder, "console")
        sockets = ["-serial", f"file:{self.console}", "-gdb", f"unix:{self.path('gdb')}",
                   "-monitor", f"unix:{self.path('mon')},server,nowait", "-qmp", f"unix:{self.path('qmp')},server,nowait"]
        self.process = subprocess.Popen([os.path.abspath(ARMLET), *args, *sockets], stdin=subprocess.DEVNULL, text=True,
                                        stderr=subprocess.PIPE, cwd=self.folder)  # wrong commands may write files
        self.wait_for(lambda: os.path.exists(self.path("qmp")))

    def path(self, name):
        return os.path.join(self.folder, name)

    def wait_for(self, condition, seconds=BOOT_SECONDS):
        limit = time.time() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.time() < limit
            time.sleep(0.05)

    def shell(self):
        self.wait_for(lambda: READY in self.output())
        return self

    def output(self):
        with open(self.console, errors="replace") as f:
            return f.read()

    def gdb(self, *commands, seconds=BOOT_SECONDS, file=None):
        """What gdb-multiarch prints for the commands after its connection."""
        args = ["gdb-multiarch", "-nx", "-batch", "-ex", "set pagination off", "-ex", "set confirm off",
                *(["-ex", f"file {file}"] if file else []), "-ex", f"target remote {self.path('gdb')}"]
        for c in commands:
            args += ["-ex", c]
        r = subprocess.run(args, timeout=seconds, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, errors="replace")
        return r.stdout

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@pytest.fixture
def machine(tmp_path):
    """machine(args): ended after the test."""
    made = []

    def make(*args):
        made.append(Machine(tmp_path, args))
        return made[-1]
    yield make
    for m in made:
        m.end()


@pytest.fixture(scope="module")
def booted(tmp_path_factory):
    """Two vCPUs at Debian's shell."""
    m = Machine(tmp_path_factory.mktemp("booted"), board(append="console=ttyAMA0 nokaslr", smp=2))
    yield m.shell()
    m.end()
