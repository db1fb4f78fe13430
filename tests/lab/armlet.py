"""The program under test, for the lab's tests.  Every wait has a limit."""
import os
import subprocess

BUILD = os.environ.get("ARMLET_BUILD", "build")
ARMLET = os.path.abspath(os.path.join(BUILD, "armlet"))
SECONDS = 180  # a boot takes 1 to 2; the host may be busy
KERNEL = ["--kernel", "6.1", "--smp", "1"]


def armlet(*args, timeout=SECONDS, **kwargs):
    if "input" not in kwargs:
        kwargs.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([ARMLET, *args], timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


def read_from_image(path, name):
    """A file's contents in an ext4 image that no guest has mounted."""
    return subprocess.run(["/sbin/debugfs", "-R", f"cat {name}", path], timeout=60, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True).stdout


def run(*command, options=(), **kwargs):
    """`armlet run' of a command."""
    return armlet("run", *KERNEL, *options, "--", *command, **kwargs)


def script(text, **kwargs):
    """`armlet run' of a shell script."""
    return run("sh", "-c", text, **kwargs)
