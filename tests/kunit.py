#!/usr/bin/env python3
"""KUnit by the kernel's own tool, with armlet and the peer as its QEMU, and by `armlet run --ktap'.

tests/kunit.py ARMLET [--image IMAGE]

The kernel is bench/testkernel.py's, unless one is given; the first build takes minutes, and stays.  Every
test must have the same verdict in all three.  The seconds are printed, not judged.
"""
import argparse
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from xml.etree import ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "bench"))
import inputs  # noqa: E402
import testkernel  # noqa: E402

RUN_SECONDS, MOST_SECONDS = 600, 3600


def run(argv, **more):
    """(the finished process, its wall seconds, its CPU seconds)"""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=MOST_SECONDS, check=False, **more)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begin
    return done, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def flatten(group, prefix=""):
    """{name: verdict} of kunit.py's JSON."""
    results = {prefix + case["name"]: case["status"] for case in group.get("test_cases", [])}
    for inner in group.get("sub_groups", []):
        results.update(flatten(inner, prefix + inner["name"] + "."))
    return results


def kunit_py(source, image, qemu, folder):
    """The verdicts that kunit.py reads out of a run with this program, wall and CPU seconds."""
    build, path = os.path.join(folder, "build"), os.path.join(folder, "bin")
    os.makedirs(os.path.join(build, "arch/arm64/boot"))
    os.makedirs(path)
    os.symlink(qemu, os.path.join(path, "qemu-system-aarch64"))
    packed = os.path.join(build, "arch/arm64/boot/Image.gz")
    with open(image, "rb") as plain, gzip.open(packed, "wb", 1) as out:
        shutil.copyfileobj(plain, out)
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    done, wall, cpu = run([sys.executable, "tools/testing/kunit/kunit.py", "exec", "--arch=arm64",
                           f"--build_dir={build}", f"--json={folder}/out.json", f"--timeout={RUN_SECONDS}"],
                          cwd=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    if not os.path.exists(f"{folder}/out.json"):
        sys.exit(f"kunit.py made no results with {qemu}:\n{done.stdout.decode(errors='replace')[-3000:]}")
    with open(f"{folder}/out.json") as f:
        return flatten(json.load(f)), wall, cpu


VERDICTS = {"failure": "FAIL", "error": "ERROR", "skipped": "SKIP"}


def armlet_run(armlet, image, folder):
    """The same by armlet's own reader."""
    junit = os.path.join(folder, "junit.xml")
    _, wall, cpu = run([armlet, "run", image, "--ktap", "--smp", "1", "--junit", junit], cwd=folder,
                       stdout=subprocess.DEVNULL)
    results = {}
    for suite in ElementTree.parse(junit).getroot().iter("testsuite"):
        for case in suite.findall("testcase"):
            verdict = next((VERDICTS[child.tag] for child in case if child.tag in VERDICTS), "PASS")
            results[f"{suite.get('name')}.{case.get('name')}"] = verdict
    return results, wall, cpu


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("armlet")
    parser.add_argument("--image")
    args = parser.parse_args()
    armlet = os.path.abspath(args.armlet)
    source = testkernel.source(armlet)
    image = args.image or testkernel.image(armlet)
    peer = inputs.peer()
    with tempfile.TemporaryDirectory() as top:
        runs = {"armlet": kunit_py(source, image, armlet, os.path.join(top, "armlet")),
                "the peer": kunit_py(source, image, peer, os.path.join(top, "peer")),
                "armlet run --ktap": armlet_run(armlet, image, top)}
    for who, (results, wall, cpu) in runs.items():
        print(f"{who}: {len(results)} tests, {wall:.2f} s, {cpu:.2f} s of CPU")
    wanted = runs["the peer"][0]
    failed = 0 if wanted else 1
    for name in sorted(set().union(*(results for results, *_ in runs.values()))):
        verdicts = {who: results.get(name, "nothing") for who, (results, *_) in runs.items()}
        wrong = len(set(verdicts.values())) != 1
        failed += wrong
        if wrong:
            print(f"FAIL {name}: " + ", ".join(f"{who} {v}" for who, v in verdicts.items()))
    print(f"{len(wanted) - min(failed, len(wanted))} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
