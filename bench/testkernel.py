"""The kernel of linux-source-6.1 that the lab's long tests and benchmarks run.

It is what `armlet kernel build --tiny' makes with the lines of tests/lab/kernel.config, kept by the hash of
its configuration, so that it is built once.
"""
import glob
import os
import shutil
import subprocess
import sys

import debs
import inputs

FRAGMENT = os.path.join(inputs.SOURCE, "tests", "lab", "kernel.config")
SECONDS = 7200


def armlet(program, *words):
    done = subprocess.run([program, *words], stdout=subprocess.PIPE, timeout=SECONDS, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: status {done.returncode}")
    return done.stdout.decode().strip()


def source(program):
    """Debian's source; the first time it is fetched and unpacked."""
    def newest():
        return sorted(glob.glob(debs.cache("source", "linux-source-6.1_*")))[-1:]
    if not newest():
        armlet(program, "kernel", "config", "--tiny")
    return newest()[0]


def image(program):
    """The path of the Image; its .config stands beside it as `config'."""
    words = ["--tiny", "--source", source(program), "--fragment", FRAGMENT]
    config = inputs.read(armlet(program, "kernel", "config", *words))
    key = inputs.hash_of(config, inputs.compiler_version("aarch64-linux-gnu-gcc"))

    def make(new):
        built = armlet(program, "kernel", "build", *words)
        os.makedirs(new)
        shutil.copy(built, os.path.join(new, "Image"))
        with open(os.path.join(new, "config"), "wb") as f:
            f.write(config)

    return os.path.join(inputs.made(inputs.cache(f"testkernel-{key}"), make), "Image")


if __name__ == "__main__":
    print(image(sys.argv[1]))
