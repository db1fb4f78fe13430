#!/usr/bin/env python3
"""Random C programs by csmith: what they print in a guest is what they print natively.

    csmith.py [-n COUNT] [-s FIRST_SEED] ARMLET...   ARMLET... is the emulator's command line, to which -kernel (Debian's
                                                     6.1), -initrd and -append are added

Each program is compiled at -O0, -O2 and -O3 for arm64, and at -O1 for the host, whose checksum is the answer.
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

import guestjobs
import inguest

LEVELS = {"arm64": ["-O0", "-O2", "-O3"], "native": ["-O1"]}
PREFIX = {"arm64": "aarch64-linux-gnu-", "native": ""}

DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST(name) int name(int, char **);
#include "tests.h"
#undef TEST
#define TEST(name) { #name, name },
static const struct { const char *name; int (*main)(int, char **); } tests[] = {
#include "tests.h"
};

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    for (unsigned i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        char *argv[] = { "test", NULL };
        int status = 0;
        printf("@%s ", tests[i].name);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(LIMIT);
            exit(tests[i].main(1, argv));
        }
        waitpid(pid, &status, 0);
        if (status)
            printf("status %#x\n", (unsigned)status);
    }
    printf("@@end\n");
    if (getpid() == 1)
        reboot(RB_POWER_OFF);
    return 0;
}
"""


def generate(seed, folder):
    path = f"{folder}/s{seed}.c"
    subprocess.run(["csmith", "-s", str(seed), "--output", path, "--max-block-depth", "4"], check=True, timeout=60,
                   stdout=subprocess.DEVNULL)
    return path


def compile_one(path, kind, level):
    """The name of the renamed main; its object lies beside the source."""
    name = os.path.basename(path)[:-2] + level.replace("-", "_")
    obj = f"{path[:-2]}{level}.{kind}.o"
    subprocess.run([PREFIX[kind] + "gcc", level, "-w", "-fno-common", "-I/usr/include/csmith", "-c", path, "-o", obj], check=True)
    subprocess.run([PREFIX[kind] + "objcopy", f"--redefine-sym=main={name}", f"--keep-global-symbol={name}", obj], check=True)
    return name, obj


def build(paths, kind, folder, limit):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda job: compile_one(*job), [(p, kind, level) for p in paths for level in LEVELS[kind]]))
    with open(folder + "/tests.h", "w", encoding="ascii") as file:
        file.writelines(f"TEST({name})\n" for name, _ in made)
    with open(folder + "/driver.c", "w", encoding="ascii") as file:
        file.write(DRIVER)
    program = f"{folder}/all-{kind}"
    subprocess.run([PREFIX[kind] + "gcc", "-O1", "-static", f"-DLIMIT={limit}", f"-I{folder}", folder + "/driver.c",
                    *(obj for _, obj in made), "-o", program, "-lm"], check=True)
    return program


def answers(text):
    """{name: what it printed}"""
    return dict(re.findall(r"^@(\w+) (.*)$", text.replace("\r", ""), re.M))


def main():
    args = inguest.arguments(__doc__, n=200, s=1)
    if not shutil.which("csmith"):
        inguest.die("csmith is missing (tools/deps check)")
    with tempfile.TemporaryDirectory() as folder:
        guestjobs.say(f"generating and compiling {args.n} programs")
        paths = [generate(seed, folder) for seed in range(args.s, args.s + args.n)]
        native = build(paths, "native", folder, 3)
        got = subprocess.run([native], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
        right = {name.rpartition("_")[0]: text for name, text in answers(got.stdout).items() if text.startswith("checksum")}
        paths = [path for path in paths if os.path.basename(path)[:-2] in right]  # the others never end
        program = build(paths, "arm64", folder, 200)
        lines = inguest.boot(args.command, inguest.initramfs(program), timeout=3000)
    if "@@end" not in lines:
        inguest.die("the guest did not finish; its last words:\n" + "\n".join(lines[-20:]))
    passed = failed = 0
    for name, text in answers("\n".join(lines)).items():
        expected = right[name.rpartition("_")[0]]
        if text == expected:
            passed += 1
        else:
            failed += 1
            print(f"FAIL csmith -s {name}: '{text}', natively '{expected}'")
    print(f"{passed} passed, {failed} failed, {args.n - len(paths)} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
