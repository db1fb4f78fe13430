#!/usr/bin/env python3
"""GCC's advsimd-intrinsics suite: programs that compute with every NEON intrinsic and know the answers.

    advsimd.py build               fetch, compile, link; print the program's path
    advsimd.py run [RUNNER...]     run the program as RUNNER PROGRAM (default: qemu-aarch64)
    advsimd.py boot [-k WORD] ARMLET...  run it as the init of an arm64 Linux: ARMLET... is the emulator's command line,
                                   to which -initrd and -append are added, and -kernel if it has none; with -k, only
                                   the tests that have WORD in their name

The sources come from Debian's gcc-12-source, fetched into $XDG_CACHE_HOME/armlet.  Each source is compiled at -O0 and
at -O2, and all are linked into one static program, which runs every test in a process of its own, prints
`PASS name' or `FAIL name (why)' and at the end `N passed, N failed'; as process 1 it then powers the machine off.
Programs that need what no CPU model here has (half-precision arithmetic, BFloat16, I8MM) are left out and counted.
"""
import argparse
import concurrent.futures
import fcntl
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

import inguest

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "armlet", "gcc-12")
SUITE = "gcc/testsuite/gcc.target/aarch64/advsimd-intrinsics"
PREFIX = "aarch64-linux-gnu-"
LEVELS = ["-O0", "-O2"]

# What a test asks for (dg-require-effective-target): compiler options, or None where no model has it.
NEEDS = {
    "arm_v8_neon_hw": ["-march=armv8-a"],
    "arm_v8_1a_neon_hw": ["-march=armv8.1-a"],
    "arm_v8_2a_dotprod_neon_hw": ["-march=armv8.2-a+dotprod"],
    "arm_crypto_ok": ["-march=armv8-a+crypto"],
    "arm_neon_fp16_hw": ["-march=armv8-a"],  # conversions only
    "arm_v8_2a_fp16_scalar_hw": None,
    "arm_v8_2a_fp16_neon_hw": None,
    "arm_v8_2a_bf16_neon_ok": None,
}

DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST(name) int name(void);
#include "tests.h"
#undef TEST
#define TEST(name) { #name, name },
static const struct test { const char *name; int (*main)(void); } tests[] = {
#include "tests.h"
};
enum { N = sizeof tests / sizeof tests[0] };

static int run(const struct test *t)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        alarm(60);
        exit(t->main());
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        printf("FAIL %s (cannot run)\n", t->name);
        return 1;
    }
    if (WIFSIGNALED(status))
        printf("FAIL %s (signal %d)\n", t->name, WTERMSIG(status));
    else if (WEXITSTATUS(status))
        printf("FAIL %s (exit status %d)\n", t->name, WEXITSTATUS(status));
    else
        printf("PASS %s\n", t->name);
    return status != 0;
}

int main(int argc, char **argv)
{
    unsigned failed = 0, ran = 0;

    if (argc == 3 && !strcmp(argv[1], "-only")) { /* without a process of its own, for a debugger */
        for (unsigned i = 0; i < N; i++)
            if (!strcmp(tests[i].name, argv[2]))
                return tests[i].main();
        return 2;
    }
    setvbuf(stdout, NULL, _IONBF, 0); /* nothing for the children to print twice */
    for (unsigned i = 0; i < N; i++)
        if (argc < 2 || strstr(tests[i].name, argv[1])) {
            failed += (unsigned)run(&tests[i]);
            ran++;
        }
    printf("%u passed, %u failed\n", ran - failed, failed);
    if (getpid() == 1)
        reboot(RB_POWER_OFF);
    return failed != 0;
}
"""


def die(text):
    sys.exit("advsimd: " + text)


def fetch():
    """The suite's directory, fetched if need be."""
    found = glob.glob(f"{CACHE}/*/{SUITE}")
    if found:
        return found[0]
    os.makedirs(CACHE, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        got = subprocess.run(["apt-get", "-qq", "download", "gcc-12-source"], cwd=tmp, capture_output=True, check=False)
        if got.returncode:
            die("apt-get cannot download gcc-12-source; check the network and run apt-get update")
        subprocess.run(["dpkg-deb", "-x", glob.glob(tmp + "/*.deb")[0], tmp], check=True)
        tarball = glob.glob(tmp + "/usr/src/gcc-12/gcc-12*.tar.xz")[0]
        subprocess.run(["tar", "xf", tarball, "-C", CACHE, "--wildcards", f"*/{SUITE}/*"], check=True)
    return glob.glob(f"{CACHE}/*/{SUITE}")[0]


def options(text):
    """How to compile a source: options, or a string that says why it is left out."""
    kind = re.search(r"dg-do\s+(\w+)", text)
    if kind and kind[1] != "run":
        return "nothing to run"
    if re.search(r"dg-(error|warning)", text):
        return "nothing to run"
    march = ["-march=armv8-a"]
    for need in re.findall(r"dg-require-effective-target\s+(\w+)", text):
        if need not in NEEDS:
            return "unknown requirement " + need
        if NEEDS[need] is None:
            return "needs " + need
        march = NEEDS[need]
    return march


def compile_test(source, flags, level, out):
    """An object whose only global name is its main, renamed to the test's; None if there is no main in it."""
    name = re.sub(r"\W", "_", os.path.basename(source)[:-2]) + level.replace("-", "_")
    obj = os.path.join(out, name + ".o")
    got = subprocess.run([PREFIX + "gcc", level, *flags, "-w", "-fno-common", "-c", source, "-o", obj],
                         capture_output=True, text=True, check=False)
    if got.returncode:
        die(f"{source} does not compile:\n{got.stderr}")
    symbols = subprocess.run([PREFIX + "nm", "-g", obj], capture_output=True, text=True, check=True).stdout
    if not re.search(r" T main$", symbols, re.M):
        return None
    subprocess.run([PREFIX + "objcopy", f"--redefine-sym=main={name}", obj], check=True)
    subprocess.run([PREFIX + "objcopy", f"--keep-global-symbol={name}", obj], check=True)
    return name


def build():
    for tool in (PREFIX + "gcc", "apt-get", "dpkg-deb", "tar"):
        if not shutil.which(tool):
            die(f"{tool} is missing (tools/deps check)")
    os.makedirs(CACHE, exist_ok=True)
    with open(CACHE + "/lock", "w", encoding="ascii") as lock:  # two suites want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build_locked()


def build_locked():
    suite, out = fetch(), os.path.join(CACHE, "advsimd")
    program = os.path.join(out, "advsimd")
    if os.path.exists(program) and os.path.getmtime(program) > os.path.getmtime(__file__):
        return program
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    jobs, left_out = [], {}
    for source in sorted(glob.glob(suite + "/*.c")):
        with open(source, encoding="utf-8", errors="replace") as file:
            flags = options(file.read())
        if isinstance(flags, str):
            left_out[flags] = left_out.get(flags, 0) + 1
        else:
            jobs += [(source, flags, level, out) for level in LEVELS]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        names = [n for n in pool.map(lambda job: compile_test(*job), jobs) if n]
    link(names, out, program)
    print(f"advsimd: {len(names)} tests; left out:", ", ".join(f"{n} {why}" for why, n in sorted(left_out.items())))
    return program


def link(names, out, program):
    with open(out + "/tests.h", "w", encoding="ascii") as file:
        file.writelines(f"TEST({n})\n" for n in names)
    with open(out + "/driver.c", "w", encoding="ascii") as file:
        file.write(DRIVER)
    objects = [f"{out}/{n}.o" for n in names]
    subprocess.run([PREFIX + "gcc", "-O1", "-static", "-o", program + ".new", out + "/driver.c", *objects, "-lm"],
                   check=True)
    os.rename(program + ".new", program)


def initramfs(program):
    path = program + ".cpio"
    new = f"{path}.{os.getpid()}" # two suites make it at the same time
    with open(new, "wb") as file:
        file.write(inguest.initramfs(program))
    os.rename(new, path)
    return path


def judge(argv, timeout):
    """Run, show the failures and the count; the status is 0 only if the program itself says that all passed."""
    try:
        got = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
                             stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        die(f"no end after {timeout} s: {' '.join(argv)}")
    lines = got.stdout.replace("\r", "").splitlines()
    for line in lines:
        if line.startswith("FAIL"):
            print(line)
    count = [line for line in lines if re.fullmatch(r"\d+ passed, \d+ failed", line)]
    if not count:
        die("the program did not finish; its last words:\n" + "\n".join(lines[-20:]) + got.stderr[-2000:])
    print(count[-1])
    return 0 if count[-1].endswith(", 0 failed") and not count[-1].startswith("0 ") else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=["build", "run", "boot"])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    program = build()
    if args.what == "build":
        print(program)
        return 0
    if args.what == "run":
        return judge([*(args.command or ["qemu-aarch64"]), program], 900)
    if not args.command:
        parser.error("boot needs the emulator's command line")
    append = "console=ttyAMA0 quiet panic=-1"
    if args.command[0] == "-k":
        append += " -- " + args.command[1]
        args.command = args.command[2:]
    if "-kernel" not in args.command:
        args.command += ["-kernel", inguest.debian_kernel()[0]]
    return judge([*args.command, "-initrd", initramfs(program), "-append", append], 1800)


if __name__ == "__main__":
    sys.exit(main())
