"""Every command of docs/tutorial.md and every example of the manual pages is run; the pages, completion and package."""
import glob
import os
import re
import shutil
import subprocess

import pexpect
import pytest

from armlet import ARMLET, BUILD, SECONDS, armlet

TOP = os.path.join(os.path.dirname(__file__), "..", "..")
COMMANDS = ["boot", "doctor", "kernel", "rootfs", "run"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in with `armlet' on the path, Image, and a data folder of its own; the cache is the user's."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "bin").mkdir()
    os.symlink(ARMLET, folder / "bin" / "armlet")
    env = {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", "XDG_DATA_HOME": str(folder / "data")}
    r = armlet("kernel", "get", "6.1", timeout=900)
    os.symlink(r.stdout.split()[-1].decode(), folder / "Image")
    subprocess.run(["armlet", "rootfs", "make", str(folder / "_install")], env=env, check=True, timeout=300)
    return folder, env


def tutorial():
    with open(os.path.join(TOP, "docs", "tutorial.md")) as f:
        return [line for block in re.findall(r"```sh\n(.*?)```", f.read(), re.S) for line in block.splitlines() if line]


# What a line that ends in a console prints, and what ends it.
CONSOLES = {
    "armlet boot": (r"~ # |/ # ", "poweroff\r"),
    "rdinit=/linuxrc console=ttyAMA0": ("Kernel panic - not syncing: VFS", "\x01x"),
    "--root first": (r"~ # |/ # ", "poweroff\r"),
    "nfsroot=": (r"~ # |/ # ", "poweroff\r"),
    "--gdb": (None, "\x01x"),
}


def console_of(line):
    for mark in ("--gdb", "nfsroot=", "rdinit=", "--root first", "armlet boot"):
        if mark in line:
            return next(v for k, v in CONSOLES.items() if mark in k)
    return None


def run_on_terminal(line, env, cwd):
    expected, end = console_of(line)
    child = pexpect.spawn("/bin/sh", ["-c", line], env=env, cwd=cwd, timeout=SECONDS, encoding="utf-8", codec_errors="replace")
    try:
        if expected:
            child.expect(expected)
        else:
            # It waits for gdb; the key is seen all the same.
            with pytest.raises(pexpect.TIMEOUT):
                child.expect(pexpect.EOF, timeout=2)
        child.send(end)
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    return child.exitstatus


def test_tutorial(place):
    folder, env = place
    built = glob.glob(os.path.expanduser(os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/armlet/built/*/Image"))
    for line in tutorial():
        line = line.replace("/opt/_install", str(folder / "_install"))
        if line == "armlet kernel build" and not built:
            continue  # the suite nfs-root builds it: minutes
        if "nfsroot=" in line:
            if not built:
                continue
            line = line.replace("-kernel Image", f"-kernel {built[0]}")
        if console_of(line):
            assert run_on_terminal(line, env, folder) == 0, line
        else:
            r = subprocess.run(line, shell=True, env=env, cwd=folder, timeout=300, stdin=subprocess.DEVNULL)
            assert r.returncode == 0, line
    assert (folder / "out.xml").exists()


def examples(command):
    text = armlet("help", command).stdout.decode()
    return [line.split("  # ")[0].strip() for line in text.partition("\nExamples:\n")[2].splitlines()]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "doctor"])
def test_examples(place, command):
    folder, env = place
    lines = examples(command)
    assert lines
    for line in lines:
        r = subprocess.run(line, shell=True, env=env, cwd=folder, timeout=300, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE)
        assert r.returncode == 0 and r.stdout, line
    if command == "run":
        assert r.stdout.startswith(b"passed   works")


def test_tutorial_is_short():
    with open(os.path.join(TOP, "docs", "tutorial.md")) as f:
        parts = f.read().split("\n## ")[1:3]
    assert all(part.count("```sh") <= 5 for part in parts)


@pytest.mark.parametrize("page", ["", *COMMANDS])
def test_manual_pages(page, tmp_path):
    text = armlet("help", "man", *([page] if page else [])).stdout
    path = tmp_path / "page.1"
    path.write_bytes(text)
    if not shutil.which("groff"):
        pytest.fail("groff is not installed")
    r = subprocess.run(["groff", "-man", "-Tutf8", "-ww", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=60)
    assert r.returncode == 0 and not r.stderr, r.stderr
    shown = re.sub(".\x08", "", r.stdout.decode())  # bold and underlined letters are struck twice
    options = re.findall(r"^  (--[a-z-]+)", armlet("help", page).stdout.decode(), re.M) if page else ["-kernel", "-nfs"]
    assert all(o in shown for o in options)


def test_every_status_is_in_the_page():
    text = armlet("help", "man", "run").stdout.decode()
    assert all(str(status) in text for status in [124, 125, 126, 127, *range(240, 247)])


def complete(*words):
    """What bash offers for the last word."""
    script = armlet("help", "bash").stdout.decode() + """
_init_completion() { cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}; words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; }
_filedir() { COMPREPLY=(FILES); }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _armlet; echo "${COMPREPLY[@]}"
"""
    r = subprocess.run(["bash", "-c", script, "bash", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
    assert not r.stderr, r.stderr
    return r.stdout.decode().split()


def test_bash_completion():
    assert complete("armlet", "ro") == ["rootfs"]
    assert "-kernel" in complete("armlet", "-k")
    assert complete("armlet", "rootfs", "make", "--format", "e") == ["ext4"]
    assert complete("armlet", "run", "--jun") == ["--junit"]
    assert complete("armlet", "run", "--junit", "") == ["FILES"]
    assert complete("armlet", "kernel", "b") == ["build"]


def test_doctor(tmp_path):
    r = armlet("doctor")
    assert r.returncode == 0 and b"missing" not in r.stdout
    empty = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": "/proc/none"}
    r = armlet("doctor", env=empty)
    out = r.stdout.decode()
    assert r.returncode == 1
    assert re.search(r"^missing +apt-get .*apt-get install apt$", out, re.M)
    assert re.search(r"^missing +cache /proc/none/armlet", out, re.M)


def test_package(tmp_path):
    # In the build's own folder: the second time only what has changed is compiled.
    r = subprocess.run(["tools/deb", BUILD], cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=900)
    assert r.returncode == 0, r.stdout + r.stderr
    deb = r.stdout.decode().strip()
    subprocess.run(["dpkg-deb", "-x", deb, str(tmp_path / "x")], check=True, timeout=60)
    names = {os.path.relpath(os.path.join(d, f), tmp_path / "x") for d, _, files in os.walk(tmp_path / "x") for f in files}
    assert {"usr/bin/armlet", "usr/lib/armlet/bin/qemu-system-aarch64", "usr/share/man/man1/armlet-run.1.gz",
            "usr/share/doc/armlet/copyright", "usr/share/bash-completion/completions/armlet.bash",
            "usr/share/zsh/vendor-completions/_armlet"} <= names
    fields = subprocess.run(["dpkg-deb", "-f", deb, "Depends", "Version"], stdout=subprocess.PIPE, timeout=60).stdout.decode()
    assert "libglib2.0-0" in fields and "libslirp0" in fields
    shown = subprocess.run([str(tmp_path / "x/usr/lib/armlet/bin/qemu-system-aarch64"), "--version"], stdout=subprocess.PIPE,
                           timeout=60).stdout
    assert shown.startswith(b"QEMU emulator version")
