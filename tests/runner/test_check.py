"""The test runner itself: what it makes of each way a suite can end."""
import importlib.machinery
import importlib.util
import os
import subprocess
import sys

import pytest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load(name):
    loader = importlib.machinery.SourceFileLoader(name, os.path.join(SOURCE, "tools", name))
    spec = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


check = load("check")

CMOCKA_GOOD = """[==========] Running 3 test(s).
[ RUN      ] a
[       OK ] a
[==========] 3 test(s) run.
[  PASSED  ] 3 test(s).
"""
CMOCKA_BAD = """[==========] first: Running 3 test(s).
[  FAILED  ] b
[==========] first: 3 test(s) run.
[  PASSED  ] 1 test(s).
[  SKIPPED ] 1 test(s), listed below:
[  SKIPPED ] c
[  FAILED  ] first: 1 test(s), listed below:
[  FAILED  ] b
"""


@pytest.mark.parametrize("kind, text, status, expected", [
    ("cmocka", CMOCKA_GOOD, 0, "3 passed, 0 failed"),
    ("cmocka", CMOCKA_GOOD + CMOCKA_GOOD, 0, "6 passed, 0 failed"),
    ("cmocka", CMOCKA_BAD, 1, "1 passed, 1 failed, 1 skipped"),
    ("cmocka", CMOCKA_GOOD.splitlines()[0], -11, "0 passed, 4 failed"),
    ("cmocka", CMOCKA_GOOD, 1, "3 passed, 1 failed"),
    ("pytest", "..\n2 passed in 0.10s", 0, "2 passed, 0 failed"),
    ("pytest", "..\n2 failed, 3 passed, 1 skipped, 1 error in 61.10s (0:01:01)", 1, "3 passed, 3 failed, 1 skipped"),
    ("pytest", "no tests ran in 0.01s", 5, "0 passed, 1 failed"),
    ("lines", "7 passed, 0 failed", 0, "7 passed, 0 failed"),
    ("lines", "1 passed, 1 failed\n7 passed, 0 failed, 2 skipped\n", 0, "7 passed, 0 failed, 2 skipped"),
    ("lines", "7 passed, 0 failed", "timeout", "7 passed, 1 failed"),
    ("lines", "nothing", 0, "0 passed, 1 failed"),
    ("lines", "0 passed, 0 failed", 0, "0 passed, 1 failed"),
    ("lines", "", 127, "0 passed, 1 failed"),
])
def test_judge(kind, text, status, expected):
    assert str(check.judge(kind, text, status)[0]) == expected


SUITES = """
[[suite]]
name = "good"
kind = "lines"
run = ["sh", "-c", "echo 2 passed, 0 failed"]
timeout = 10
[[suite]]
name = "slow"
kind = "lines"
run = ["sh", "-c", "echo 1 passed, 0 failed; sleep 60"]
timeout = 1
[[suite]]
name = "crash"
kind = "lines"
run = ["sh", "-c", "kill -SEGV $$"]
timeout = 10
alone = true
[[suite]]
name = "missing"
kind = "cmocka"
run = ["@build@/no-such-program"]
timeout = 10
"""


def run_tree(tmp_path, *suites):
    for folder in ("tools", "tests", "build"):
        (tmp_path / folder).mkdir()
    with open(os.path.join(SOURCE, "tools/check")) as f:
        (tmp_path / "tools/check").write_text(f.read())
    (tmp_path / "tests/suites.toml").write_text(SUITES)
    return subprocess.run([sys.executable, tmp_path / "tools/check", tmp_path / "build", *suites],
                          capture_output=True, text=True, timeout=60)


def test_sum_is_the_last_line_and_failures_fail(tmp_path):
    done = run_tree(tmp_path)
    assert done.stdout.splitlines()[-1] == "3 passed, 3 failed"
    assert done.returncode == 1
    assert "out of time" in done.stdout and "SIGSEGV" in done.stdout and "no-such-program" in done.stdout


def test_one_suite_by_name(tmp_path):
    done = run_tree(tmp_path, "good")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "2 passed, 0 failed"


def test_unknown_suite_is_an_error(tmp_path):
    done = run_tree(tmp_path, "goood")
    assert done.returncode == 1 and "no such suite: goood" in done.stderr
