"""Every command of docs/tutorial.md and every example of the manual pages is run; the pages, completion and package."""
import os
import re
import shutil
import subprocess
import time

import pexpect
import pytest

from armlet import ARMLET, BUILD, SECONDS, armlet

TOP = os.path.join(os.path.dirname(__file__), "..", "..")
BUILD_SECONDS = 3000
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


def readme():
    """The commands between its words but for make's, of its table those that are whole."""
    with open(os.path.join(TOP, "README.md")) as f:
        text = f.read().replace("\\\n", "")
    lines = re.findall(r"^    build/(armlet .*)$", text, re.M)
    assert len(lines) == 2
    table = re.findall(r"^\| `build/(armlet (?:boot|run|doctor).*?)` \|", text, re.M)
    assert len(table) == 3
    return table + lines


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


def run_on_terminal(line, env, cwd, console=None):
    expected, end = console or console_of(line)
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


def run_line(line, place, built):
    folder, env = place
    line = line.replace("/opt/_install", str(folder / "_install")).replace("COMMAND", "true")
    if "nfsroot=" in line:
        line = line.replace("-kernel Image", f"-kernel {built}")
    if console_of(line):
        assert run_on_terminal(line, env, folder) == 0, line
    else:
        r = subprocess.run(line, shell=True, env=env, cwd=folder, timeout=BUILD_SECONDS, stdin=subprocess.DEVNULL)
        assert r.returncode == 0, line


@pytest.fixture(scope="module")
def built():
    """The kernel of `armlet kernel build', which the first time takes minutes."""
    return armlet("kernel", "build", timeout=BUILD_SECONDS).stdout.decode().strip()


def test_tutorial(place, built):
    for line in tutorial():
        run_line(line, place, built)
    assert (place[0] / "out.xml").exists()


def test_readme(place, built):
    for line in readme():
        run_line(line, place, built)


def test_make_run():
    """README's first command, in the build that is tested."""
    line = f"make --no-print-directory BUILD={os.path.abspath(BUILD)} run"
    assert run_on_terminal(line, os.environ, TOP, (r"~ # |/ # ", "poweroff\r")) == 0


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


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "armlet.bash",
             "bind 'set bell-style none'; . /usr/share/bash-completion/bash_completion; . {folder}/armlet.bash"),
    "zsh": (["zsh", "-f", "-i"], "_armlet",
            "fpath=({folder} $fpath); unsetopt beep; autoload -U compinit; compinit -u -D"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_in_a_shell(shell, tmp_path):
    """The shell itself, with the file where a package puts it: what Tab makes of a line."""
    argv, name, load = SHELLS[shell]
    (tmp_path / name).write_bytes(armlet("help", shell).stdout)
    (tmp_path / "some-file").write_text("")
    child = pexpect.spawn(argv[0], argv[1:], cwd=tmp_path, timeout=30, encoding="utf-8", dimensions=(50, 200),
                          env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TERM": "dumb"})
    try:
        child.sendline("PS1=; armlet() { echo \"<$*>\"; }; " + load.format(folder=tmp_path) + "; echo rea''dy")
        child.expect("ready")
        for line, whole in [("ro\t", "<rootfs>"), ("rootfs make --format e\t", "<rootfs make --format ext4>"),
                            ("kernel b\t", "<kernel build>"), ("run --jun\tsome\t", "<run --junit[= ]some-file>"),
                            ("run --ker\t6.12", "<run --kernel[= ]6.12>"), ("-app\tx", "<-append x>")]:
            child.send("armlet " + line)
            time.sleep(0.3)  # Tab is answered before what follows
            child.send("\r")
            child.expect(whole)
    finally:
        child.close(force=True)


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
