"""tools/bench: what it makes of what guests say, and what it does when they say nothing."""
import importlib.machinery
import importlib.util
import os
import re
import stat
import subprocess
import types

import pytest

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def load():
    path = os.path.join(SOURCE, "tools/bench")
    loader = importlib.machinery.SourceFileLoader("bench_tool", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_tool", loader))
    loader.exec_module(module)
    return module


tool = load()


@pytest.fixture
def bench():
    b = object.__new__(tool.Bench)
    b.engines, b.machines = ["interp", "qemu", "native"], ["interp", "qemu"]
    b.best, b.figures, b.bare = ({e: {} for e in b.engines} for _ in range(3))
    b.checks, b.failures = {}, []
    b.args = types.SimpleNamespace(quick=False)
    return b


def scripted(bench, text):
    """The bench's machines are a shell script, which sees the row names as $rows."""
    def linux(engine, smp, initrd, append=""):
        rows = re.search(r"bench.rows=(\S+)", append).group(1).replace(",", " ")
        return tool.Guest(["/bin/sh", "-c", f"rows='{rows}'\n{text}"])
    bench.linux = linux


def test_least_of_runs_counts(bench):
    for seconds in ("2.0", "1.5", "1.75"):
        assert bench.note_row("interp", f"row fib {seconds} 60 ab12") == "fib"
    assert bench.best["interp"]["fib"] == (1.5, 60)


@pytest.mark.parametrize("line", ["", "row fib", "row fib x 60 ab", "[  0.1] row fib 1.0 60 ab", "bench end"])
def test_other_lines_are_no_rows(bench, line):
    assert bench.note_row("interp", line) is None
    assert not bench.best["interp"] and not bench.failures


def test_rows_to_the_end(bench):
    scripted(bench, 'for r in $rows; do echo "row $r 1.0 1 0"; done; echo bench end')
    bench.guest_rows("interp", ["a", "b", "c"], 1, None)
    assert sorted(bench.best["interp"]) == ["a", "b", "c"] and not bench.failures


def test_a_row_that_hangs_fails_and_the_rest_is_done(bench, monkeypatch):
    monkeypatch.setattr(tool, "ROW_LIMIT", 0.5)
    scripted(bench, 'for r in $rows; do [ $r = b ] && exec sleep 60; echo "row $r 1.0 1 0"; done; '
                    'echo bench end')
    bench.guest_rows("interp", ["a", "b", "c"], 1, None)
    assert sorted(bench.best["interp"]) == ["a", "c"]
    assert len(bench.failures) == 1 and "interp: b: no answer" in bench.failures[0]


def test_a_row_that_ends_the_machine_fails_and_the_rest_is_done(bench):
    scripted(bench, 'for r in $rows; do [ $r = a ] && echo oops >&2 && exit 1; echo "row $r 1.0 1 0"; done; '
                    'echo bench end')
    bench.guest_rows("interp", ["a", "b"], 1, None)
    assert sorted(bench.best["interp"]) == ["b"]
    assert len(bench.failures) == 1 and "oops" in bench.failures[0]


def test_a_row_that_says_fail_is_not_done_again(bench):
    scripted(bench, 'for r in $rows; do echo "fail $r no memory"; done; echo bench end')
    bench.guest_rows("qemu", ["a"], 1, None)
    assert bench.failures == ["qemu: a: no memory"]


def test_a_row_that_is_left_out_fails(bench):
    scripted(bench, "echo bench end")
    bench.guest_rows("qemu", ["a"], 1, None)
    assert bench.failures == ["qemu: a: not done"]


def test_no_process_is_left(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "ROW_LIMIT", 0.5)
    scripted(bench, f"echo $$ >{tmp_path}/pid; exec sleep 60")
    bench.guest_rows("interp", ["a"], 1, None)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_engines_that_disagree_are_a_failure(bench):
    bench.args.runs = 0
    bench.note_row("interp", "row fib 1.0 60 ab12")
    bench.note_row("qemu", "row fib 1.0 60 ab13")
    bench.note_row("native", "row fib 1.0 60 ffff") # may differ: other instructions
    bench.run()
    assert len(bench.failures) == 1 and "disagree" in bench.failures[0]


def test_table_ratios_targets_and_mean(bench):
    for engine, seconds in (("interp", 1.0), ("qemu", 4.0), ("native", 0.5)):
        bench.note_row(engine, f"row fib {seconds} 1 0")
        bench.note_row(engine, f"row int-mix {seconds if engine != 'qemu' else 1.0} 1 0")
    lines = [[c.strip() for c in line.strip("|").split("|")]
             for line in tool.rows_table(bench, ["fib", "int-mix"], "row").splitlines()]
    assert lines[2] == ["fib", "1.000", "4.000", "0.500", "4.00", "2.0", "4x yes"]
    assert lines[3] == ["int-mix", "1.000", "1.000", "0.500", "1.00", "2.0", "1.8x NO"]
    assert lines[4] == ["geometric mean of 2", "", "", "", "2.00", "", "4x NO"]


def test_archive_is_what_cpio_reads(tmp_path):
    archive = tool.inputs.Archive()
    archive.add("a/b/file", stat.S_IFREG | 0o755, b"contents")
    archive.add("a/link", stat.S_IFLNK | 0o777, b"b/file")
    with open(tmp_path / "x.cpio", "wb") as f:
        archive.write(f)
    with open(tmp_path / "x.cpio", "rb") as f:
        subprocess.run(["cpio", "-id", "--quiet"], stdin=f, cwd=tmp_path, check=True)
    assert (tmp_path / "a/link").read_bytes() == b"contents"
    assert os.access(tmp_path / "a/b/file", os.X_OK)
