#!/usr/bin/env python3
"""Programs of Debian's in a guest: do they say there what they say elsewhere?

    programs.py [-a ENGINE,...] [-k PATTERN] ARMLET...
        ARMLET... is the emulator's command line, to which -accel ENGINE, -kernel (Debian's 6.1), -initrd and
        -append are added; -k: only those programs
    programs.py [-k PATTERN] -p 1 ARMLET...
        with -accel tcg, and the same with the peer of `make bench': seconds, and no verdict

What is expected comes from the same arm64 programs under qemu-aarch64, another emulator altogether; of the
compiler, from the cross compiler of the same version; of the program that it makes, from the host's own.
"""
import glob
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import guestjobs
import inguest
import inputs

SECONDS = 1200
RUNS = 2  # with the peer beside it; the least counts

KEY, IV = "000102030405060708090a0b0c0d0e0f", "f0e0d0c0b0a090807060504030201000"
DIGESTS = ["sha1", "sha256", "sha512", "sha3-256", "md5", "blake2b512"]
CIPHERS = {"aes-128-cbc": KEY, "aes-128-ctr": KEY, "camellia-128-cbc": KEY, "sm4-cbc": KEY,
           "chacha20": KEY + KEY}
SIGN = ["openssl pkey -in key -pubout -out public", "openssl dgst -sha256 -sign key -out signature data/text",
        "openssl dgst -sha256 -verify public -signature signature data/text"]
# NAME: commands.  They run one after the other, until one fails, in a new folder that has the inputs in
# `data'.  What they print on stdout counts, and the status of the last.
PROGRAMS = {
    "openssl-dgst": [f"openssl dgst -{name} data/text" for name in DIGESTS],
    "openssl-enc": [f"openssl enc -{name} -K {key} -iv {IV} -in data/text"
                    for name, key in CIPHERS.items()],
    "openssl-rsa": ["openssl genpkey -quiet -algorithm rsa -pkeyopt rsa_keygen_bits:2048 -out key", *SIGN],
    "openssl-ec": ["openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out key", *SIGN,
                   "openssl prime 170141183460469231731687303715884105727"],
    "python": ["python3 data/loop.py"],
    "python-library": ["python3 data/library.py data/text"],
    "sqlite": ["sqlite3 -init data/script.sql :memory: .quit"],
    "sqlite-file": ["sqlite3 -init data/script.sql base.db .quit",
                    "sqlite3 base.db 'pragma integrity_check' .dump"],
    "xz": ["xz -c -T1 -1 data/text", "xz -c -T2 -3 data/text"],
    "xz-and-back": ["cp data/text t", "xz -T1 -1 t", "xz -t t.xz", "xz -d t.xz", "cat t"],
    "gzip": ["gzip -c -n data/text", "gzip -c -n -9 data/text"],
    "gzip-and-back": ["cp data/text t", "gzip -n t", "gzip -t t.gz", "gzip -d t.gz", "cat t"],
    "nodejs": ["node data/loop.js"],
    "nodejs-interpreted": ["node --jitless --no-expose-wasm data/loop.js 10"],
    "nodejs-optimised": ["node --always-opt data/loop.js 20",
                         "node --always-sparkplug --gc-interval=2000 data/loop.js 20"],
    "gcc": [f"gcc {level} -fno-ident -S -o - data/{name}.c"
            for level, name in [("-O0", "row_int"), ("-O2", "row_os"), ("-O2", "row_vec"), ("-O3", "row_fp")]],
    "gcc-run": ["gcc -O2 -o rows data/row_int.c data/row_call.c data/main.c", "./rows"],
}
# What says the same and is done sooner.
ELSEWHERE = {"nodejs-optimised": ["node data/loop.js 20"] * 2}


def data(tree):
    """A folder with the inputs."""
    folder = inputs.real_inputs(tree)
    sources = sorted(glob.glob(os.path.join(inguest.HERE, "programs/*.*")))

    def make(new):
        shutil.copytree(folder, new)
        for path in sources:
            shutil.copy(path, new)

    key = inputs.hash_of(folder, *map(inputs.read, sources))
    return inputs.made(inputs.cache(f"programs-{key}"), make)


def here(tree, command):
    """How the host runs a command of the guest's."""
    words = shlex.split(command)
    if words[0] == "gcc":
        return ["aarch64-linux-gnu-gcc" if "-S" in words else "gcc", *words[1:]]
    if "/" in words[0]:
        return words
    places = [f"{tree}/{folder}/{words[0]}" for folder in ("bin", "usr/bin")]
    return ["qemu-aarch64", "-L", tree, *filter(os.path.exists, places), *words[1:]]


def expected(tree, folder, commands):
    """(status, digest of the output) of the commands on the host."""
    digest = hashlib.sha256()
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": "/"}
    with tempfile.TemporaryDirectory() as work:
        os.symlink(folder, work + "/data")
        for command in commands:
            got = subprocess.run(here(tree, command), cwd=work, stdin=subprocess.DEVNULL, capture_output=True,
                                 check=False, env=environment)
            digest.update(got.stdout)
            if got.returncode:
                inguest.die(f"{command}: on the host: {got.stderr.decode(errors='replace')[-1000:]}")
    return "0", digest.hexdigest()


def script(commands):
    return f"""\
mkdir -p /tmp/work && cd /tmp/work && ln -s /data data || exit 9
start=$(date +%s.%N)
{{ {' && '.join(commands)}; }} </dev/null >/tmp/out 2>/tmp/err
status=$?
echo took $start $(date +%s.%N)
echo digest $(sha256sum </tmp/out)
head -c 2000 /tmp/out | tr -cd '[:print:]\\n'
echo
tail -c 1000 /tmp/err
cd / && rm -r /tmp/work
exit $status
"""


def in_guest(command, names, tree, folder):
    """{name: (status, digest, seconds, output lines)}"""
    with tempfile.TemporaryDirectory() as scripts:
        files = [(f"data/{name}", f"{folder}/{name}") for name in os.listdir(folder)]
        for name in names:
            with open(f"{scripts}/{name}", "w", encoding="ascii") as f:
                f.write(script(PROGRAMS[name]))
            files.append((f"scripts/{name}", f"{scripts}/{name}"))
        jobs = [(name, SECONDS, f"/bin/sh /scripts/{name}") for name in names]
        results = guestjobs.run(command, jobs, files, 3400, ["-v"], base=tree)
    found = {}
    for name in names:
        status, output = results.get(name, ("never run", []))
        text = "\n".join(output)
        digest = re.search(r"^digest (\w+)", text, re.M)
        took = re.search(r"^took ([\d.]+) ([\d.]+)$", text, re.M)
        seconds = float(took[2]) - float(took[1]) if took else float("nan")
        found[name] = (status, digest[1] if digest else "", seconds, output)
    return found


def compare(command, engines, names, tree, folder):
    wanted = {name: expected(tree, folder, ELSEWHERE.get(name, PROGRAMS[name])) for name in names}
    failed = 0
    for engine in engines:
        found = in_guest([*command, "-accel", engine], names, tree, folder)
        for name in names:
            status, digest, seconds, output = found[name]
            good = (status, digest) == wanted[name]
            failed += not good
            print(f"{'PASS' if good else 'FAIL'} {name} -accel {engine}: {seconds:.2f} s", flush=True)
            if not good:
                print(f"  status {status}, digest {digest} for {wanted[name][1]}", *output, sep="\n  ")
    total = len(names) * len(engines)
    print(f"{total - failed} passed, {failed} failed")
    return 1 if failed or not total else 0


def beside_peer(command, names, tree, folder):
    engines = {"armlet": [*command, "-accel", "tcg"], "peer": [inputs.peer(), *command[1:], "-accel", "tcg"]}
    best = {}
    for _ in range(RUNS):
        for engine, argv in engines.items():
            for name, (status, _, took, _) in in_guest(argv, names, tree, folder).items():
                took = took if status == "0" else float("nan")
                best[name, engine] = min(took, best.get((name, engine), took))
    for name in names:
        a, b = best[name, "armlet"], best[name, "peer"]
        print(f"{name:20} {a:8.2f} s, peer {b:8.2f} s: {b / a:.2f}")
    return 0


def main():
    args = inguest.arguments(__doc__, a="tcg,interp", k="", p=0)
    names = [name for name in PROGRAMS if re.search(args.k, name)]
    tree = inputs.real_tree()
    folder = data(tree)
    if args.p:
        return beside_peer(args.command, names, tree, folder)
    return compare(args.command, args.a.split(","), names, tree, folder)


if __name__ == "__main__":
    sys.exit(main())
