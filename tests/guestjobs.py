"""Many programs in one guest: tests/guests/runner.c as init, and what it says of them."""
import glob
import os
import re
import sys
import tempfile

import inguest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import inputs  # noqa: E402

SKIP = "4"  # the exit status by which the kernel's tests say so


def say(text):
    print(text, file=sys.stderr, flush=True)


def source_tree(package, tarball, members, key=""):
    """A folder with the members (patterns) of the tarball (a pattern) that Debian's architecture-independent package holds."""
    def make(new):
        say(f"fetching {package} from Debian")
        os.makedirs(new)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(new)) as tmp:
            inputs.run(["apt-get", "-qq", "download", package], cwd=tmp)
            deb = [name for name in os.listdir(tmp) if name.endswith(".deb")][0]
            inputs.run(["dpkg-deb", "-x", os.path.join(tmp, deb), os.path.join(tmp, "x")])
            say(f"unpacking {package}")
            inputs.run(["tar", "xf", glob.glob(os.path.join(tmp, "x", tarball))[0], "-C", new, "--strip-components=1", "--wildcards",
                        "--no-wildcards-match-slash", *members])
    return inputs.made(inputs.cache(f"{package}-{inputs.hash_of(tarball, members, key)}"), make)


def archive(jobs, files, base=None, links=()):
    """The bytes of an initramfs: jobs are (name, seconds, command), files (name in the guest, path here)."""
    a = inputs.Archive()
    a.add("dev", 0o040755)
    a.add_file("init", inguest.build("runner"))
    if base:
        a.add_tree(base)
    for name, path in files:
        a.add_file(name, path)
    for name, to in links:
        a.add(name, 0o120777, to.encode())
    text = "".join(f"{name} {seconds} {command}\n" for name, seconds, command in jobs)
    a.add("jobs", 0o100644, text.encode())
    with tempfile.TemporaryFile() as f:
        a.write(f)
        f.seek(0)
        return inguest.cpio([("dev/console", 0o020600, (5, 1), b"")]) + f.read()


def run(argv, jobs, files, timeout, words=(), **more):
    """{name: (status, output lines)} of the jobs in a guest of the command line; ends the program if the guest dies."""
    lines = inguest.boot(argv, archive(jobs, files, **more), words, "loglevel=3", timeout)
    results, output = {}, []
    for line in lines:
        got = re.fullmatch(r"@(\S+) (.+)", line)
        if got:
            results[got[1]] = (got[2], output)
            output = []
        else:
            output.append(line.removeprefix("| "))
    if "@@end" not in lines:
        inguest.die("the guest did not finish; its last words:\n" + "\n".join(lines[-40:]))
    return results


def judge(jobs, results, known=(), passes=("0",), show=40):
    """Prints the verdicts and the count; the exit status.  `known' fail elsewhere too: counted, told, not judged."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name, *_ in jobs:
        status, output = results.get(name, ("never run", []))
        if status in passes:
            counts["passed"] += 1
        elif status == SKIP:
            counts["skipped"] += 1
        elif name in known:
            print(f"{name}: {status}, as elsewhere: {known[name]}")
            counts["skipped"] += 1
        else:
            counts["failed"] += 1
            print(f"FAIL {name} ({status})", *output[-show:], sep="\n  ")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] or not counts["passed"] else 0
