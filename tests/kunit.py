#!/usr/bin/env python3
"""KUnit by the kernel's own tool, with armlet and with the peer as its qemu-system-aarch64, and by `armlet run --ktap'.

tests/kunit.py ARMLET [--image IMAGE]

The kernel is `armlet kernel build --tiny' of linux-source-6.1 with the lines of tests/kunit.config, unless one is given;
the first build takes minutes, and stays.  Every test must have the same verdict in all three.  The seconds are printed,
not judged.
"""
import argparse
import glob
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from xml.etree import ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "armlet")
BUILD_SECONDS, RUN_SECONDS = 7200, 600


def output(*argv, seconds=RUN_SECONDS, **kwargs):
    return subprocess.run(argv, stdout=subprocess.PIPE, timeout=seconds, check=True, **kwargs).stdout.decode().strip()


def find_source(armlet):
    """Debian's source, which the first build unpacks."""
    def newest():
        return sorted(glob.glob(os.path.join(CACHE, "source", "linux-source-6.1_*")))[-1:]
    if not newest():
        output(armlet, "kernel", "config", "--tiny", seconds=BUILD_SECONDS)
    return newest()[0]


def flatten(group, prefix=""):
    """{name: verdict} of kunit.py's JSON."""
    results = {prefix + case["name"]: case["status"] for case in group.get("test_cases", [])}
    for inner in group.get("sub_groups", []):
        results.update(flatten(inner, prefix + inner["name"] + "."))
    return results


def kunit_py(source, image, qemu, folder):
    """The verdicts that kunit.py reads out of a run with this program, and the seconds it took."""
    build, path = os.path.join(folder, "build"), os.path.join(folder, "bin")
    os.makedirs(os.path.join(build, "arch/arm64/boot"))
    os.makedirs(path)
    os.symlink(qemu, os.path.join(path, "qemu-system-aarch64"))
    with open(image, "rb") as plain, gzip.open(os.path.join(build, "arch/arm64/boot/Image.gz"), "wb", 1) as packed:
        shutil.copyfileobj(plain, packed)
    begin = time.monotonic()
    r = subprocess.run([sys.executable, "tools/testing/kunit/kunit.py", "exec", "--arch=arm64", f"--build_dir={build}",
                        f"--json={folder}/out.json", f"--timeout={RUN_SECONDS}"], cwd=source, timeout=2 * RUN_SECONDS,
                       env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"},
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seconds = time.monotonic() - begin
    if not os.path.exists(f"{folder}/out.json"):
        sys.exit(f"kunit.py made no results with {qemu}:\n{r.stdout.decode(errors='replace')[-3000:]}")
    with open(f"{folder}/out.json") as f:
        return flatten(json.load(f)), seconds


VERDICTS = {"failure": "FAIL", "error": "ERROR", "skipped": "SKIP"}


def armlet_run(armlet, image, folder):
    """The same by armlet's own reader."""
    junit = os.path.join(folder, "junit.xml")
    begin = time.monotonic()
    subprocess.run([armlet, "run", image, "--ktap", "--smp", "1", "--junit", junit], cwd=folder, timeout=RUN_SECONDS,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - begin
    results = {}
    for suite in ElementTree.parse(junit).getroot().iter("testsuite"):
        for case in suite.findall("testcase"):
            verdict = next((VERDICTS[child.tag] for child in case if child.tag in VERDICTS), "PASS")
            results[f"{suite.get('name')}.{case.get('name')}"] = verdict
    return results, seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("armlet")
    parser.add_argument("--image")
    args = parser.parse_args()
    armlet = os.path.abspath(args.armlet)
    source = find_source(armlet)
    image = args.image or output(armlet, "kernel", "build", "--tiny", "--source", source, "--fragment",
                                 os.path.join(HERE, "kunit.config"), seconds=BUILD_SECONDS)
    peer = output(os.path.join(HERE, "..", "tools", "peer"))
    with tempfile.TemporaryDirectory() as top:
        runs = {"armlet": kunit_py(source, image, armlet, os.path.join(top, "armlet")),
                "the peer": kunit_py(source, image, peer, os.path.join(top, "peer")),
                "armlet run --ktap": armlet_run(armlet, image, top)}
    for who, (results, seconds) in runs.items():
        print(f"{who}: {len(results)} tests, {seconds:.2f} s")
    wanted = runs["the peer"][0]
    failed = 0 if wanted else 1
    for name in sorted(set().union(*(results for results, _ in runs.values()))):
        verdicts = {who: results.get(name, "nothing") for who, (results, _) in runs.items()}
        wrong = len(set(verdicts.values())) != 1
        failed += wrong
        if wrong:
            print(f"FAIL {name}: " + ", ".join(f"{who} {v}" for who, v in verdicts.items()))
    print(f"{len(wanted) - min(failed, len(wanted))} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
