#!/usr/bin/env python3
"""other_build.py KIND [all]: a build of another kind, in a folder of its own (build-KIND), and tests in it.

KIND is asan (address and undefined-behaviour sanitizers), tsan (thread sanitizer) or harsh (every cache as small as can
be).  Without `all' only what takes about a minute.  `all' also boots Debian's 6.1 to the shell.
"""
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys

import pexpect

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SETUP = {
    # Not as needed: the sanitizer has names of libtirpc's functions of its own, and calls that library's.
    "asan": ["-Db_sanitize=address,undefined", "-Db_lundef=false", "-Db_asneeded=false", "-Doptimization=1",
             "-Dc_args=-fno-sanitize-recover=undefined -fno-omit-frame-pointer"],
    "tsan": ["-Db_sanitize=thread", "-Db_lundef=false", "-Doptimization=1"],
    "harsh": ["-Dharsh=true"],
}
UNIT = [f"tests/{name}_test" for name in (
    "base", "mem", "mmu", "sysreg", "exception", "debug", "timer", "psci", "simd", "fp", "isa", "interp", "gic", "pl011",
    "boarddev", "regwalk", "virtio", "pci", "machine")]
FUZZ = ["src/isa/decode_dump fuzz 300000", "tests/fuzz_dev 1 100000", "tests/nfs_fuzz 1 10000"]
LIFT = "tests/oracle/lift_test"
# Programs with their arguments, below the build folder.
QUICK = {
    "asan": [*FUZZ, "tests/machine_test", "tests/interp_test", "tests/virtio_test", "tests/pci_test", f"{LIFT} --cases 30000"],
    "tsan": ["tests/virtio_test", "tests/psci_test"],
    "harsh": ["tests/interp_test", "tests/mmu_test", f"{LIFT} --jit --cases 30000"],
}
ALL = {
    "asan": [*UNIT, "src/isa/decode_dump fuzz 3000000", "tests/fuzz_dev 2 1000000", "tests/nfs_test", "tests/nfs_fuzz 2 100000",
             f"{LIFT} --cases 300000", f"{LIFT} --jit --cases 300000"],
    "tsan": ["tests/virtio_test", "tests/psci_test", "tests/debug_test", "tests/machine_test", "tests/fuzz_dev 3 200000"],
    "harsh": [*UNIT, f"{LIFT} --cases 300000", f"{LIFT} --jit --cases 500000"],
}
# -accel and -smp.  A harsh build makes 17 million blocks of a boot and throws 7,600 segments of its code cache away; with
# its own cache of 256 KiB a kernel has no time left between two ticks.
BOOTS = {"asan": [("tcg", 2), ("interp", 1)], "tsan": [("tcg", 2), ("interp", 2)],
         "harsh": [("tcg,tb-size=2", 2), ("interp", 1)]}
# These builds are slow, and the machine may be busy: that is no lockup of the guest's.  What hangs runs out of LIMIT.
APPEND = "console=ttyAMA0 watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=300"
COMPLAINT = re.compile(r"^.*(?:Sanitizer|runtime error:|BUG:|Oops|Call trace).*$", re.M)
LIMIT = 900
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0", "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": f"halt_on_error=1:second_deadlock_stack=1:suppressions={SOURCE}/tests/tsan.supp",
    "G_SLICE": "always-malloc",
}


def load_judge():
    loader = importlib.machinery.SourceFileLoader("check_tool", os.path.join(SOURCE, "tools/check"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_tool", loader))
    loader.exec_module(module)
    return module


def build(kind, programs):
    folder = os.path.join(SOURCE, "build-" + kind)
    log = folder + ".log"
    targets = sorted({program.split()[0] for program in programs})
    with open(log, "w", encoding="utf-8") as f:
        def run(*argv):
            if subprocess.run(argv, cwd=SOURCE, stdout=f, stderr=f, check=False).returncode:
                f.flush()
                with open(log, encoding="utf-8") as text:
                    sys.exit(f"build-{kind} failed:\n{text.read()[-4000:]}")
        if not os.path.exists(folder + "/build.ninja"):
            run("/usr/bin/meson", "setup", folder, "-Dtests=true", *SETUP[kind])
        run("ninja", "-C", folder, "--quiet", *targets)
    return folder


def run_program(check, folder, words):
    """(count, output) of a program of the build."""
    program = os.path.join(folder, words[0])
    try:
        got = subprocess.run([program, *words[1:]], cwd=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             errors="replace", timeout=LIMIT, stdin=subprocess.DEVNULL, check=False)
        text, status = got.stdout, got.returncode
    except subprocess.TimeoutExpired as e:
        text, status = (e.stdout or b"").decode(errors="replace"), "timeout"
    count, remark = check.judge("cmocka" if "[==" in text else "lines", text, status)
    if COMPLAINT.search(text):
        count.failed += 1
    return count, text if count.failed else remark


def boot(folder, engine, smp):
    """What is wrong, or None: to the shell and off."""
    os.environ["ARMLET_BUILD"] = folder
    sys.path.insert(0, os.path.join(SOURCE, "tests/functional"))
    from guest import Guest, board  # it reads the environment
    with Guest(board("6.1", APPEND, smp, "256M") + ["-accel", engine], program=folder + "/armlet") as g:
        g.child.timeout = LIMIT
        try:
            g.expect("/ # |~ # ", LIMIT)
            text = g.child.before
            text += g.cmd("uname -m; nproc", LIMIT)
            g.child.sendline("poweroff -f")
            status = g.wait(LIMIT)
            text += g.child.before or ""
        except pexpect.ExceptionPexpect as e:
            return f"{type(e).__name__} after: {(g.child.before or '')[-3000:]}"
    found = COMPLAINT.search(text)
    if found or status or f"aarch64\n{smp}" not in text:
        return f"exit status {status}: {text[-3000:]}"
    return None


def rude_clients(check, folder):
    """(count, output) of the wrong clients of the gdb stub, the monitor and QMP, with the build's own armlet."""
    got = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no",
                          "tests/debugger/test_fuzz.py"], cwd=SOURCE, env={**os.environ, "ARMLET_BUILD": folder},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=2 * LIMIT, stdin=subprocess.DEVNULL, check=False)
    count, remark = check.judge("pytest", got.stdout, got.returncode)
    return count, got.stdout if count.failed else remark


def main():
    kind, everything = sys.argv[1], sys.argv[2:] == ["all"]
    programs = ALL[kind] if everything else QUICK[kind]
    check, total = load_judge(), None
    os.environ.update(ENVIRONMENT)
    folder = build(kind, [*programs, "armlet"] if everything else programs)
    total = check.Count()
    for program in programs:
        count, text = run_program(check, folder, program.split())
        print(f"{'FAIL' if count.failed else 'PASS'} {program}: {count}", *([text] if count.failed else []), flush=True)
        total.add(count)
    if everything and kind == "asan":
        count, text = rude_clients(check, folder)
        print(f"{'FAIL' if count.failed else 'PASS'} tests/debugger/test_fuzz.py: {count}",
              *([text] if count.failed else []), flush=True)
        total.add(count)
    for engine, smp in BOOTS[kind] if everything else []:
        wrong = boot(folder, engine, smp)
        print(f"{'FAIL' if wrong else 'PASS'} boot -accel {engine} -smp {smp}", *([wrong] if wrong else []), flush=True)
        total.add(check.Count(passed=not wrong, failed=bool(wrong)))
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
