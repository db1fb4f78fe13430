#!/usr/bin/env python3
"""isagen refuses what is wrong, with the line and the reason, and turns a small right table into C that decodes.

    isagen_test.py ISAGEN [CC]
"""
import os
import subprocess
import sys
import tempfile

FEATURES = 'FEATURE(FEAT_LSE, R, 20, 2, 0, 0, 0, 1, 1, 1, "atomics")\n'
WORD = "0" * 27 + " rd:5"
OK = f'A {WORD} "a"\n'

# What is wrong, the table, and the message (after "FILE:").
WRONG = [
    ("31 bits", '@group base\nA ' + "0" * 26 + ' rd:5 "a"\n', "2: pattern of A is 31 bits, not 32"),
    ("33 bits", '@group base\nA ' + "0" * 28 + ' rd:5 "a"\n', "2: pattern of A is 33 bits, not 32"),
    ("a digit that is no bit", '@group base\nA 2' + "0" * 31 + ' "a"\n', "2: bad bit '2' in A"),
    ("no template", f"@group base\nA {WORD}\n", "2: missing assembly template"),
    ("half a template", f'@group base\nA {WORD} "a\n', "2: missing assembly template"),
    ("duplicate name", f"@group base\n{OK}A {'1' * 32} \"a\"\n", "3: duplicate name: A"),
    ("duplicate field", '@group base\nA ' + "0" * 22 + ' rd:5 rd:5 "a"\n', "2: duplicate field: rd"),
    ("width 0", '@group base\nA ' + "0" * 32 + ' rd:0 "a"\n', "2: bad field width: rd:0"),
    ("width not a number", '@group base\nA ' + "0" * 27 + ' rd:x "a"\n', "2: bad field width: rd:x"),
    ("name with a dash", f'@group base\nA-B {WORD} "a"\n', "2: bad name: A-B"),
    ("no group", OK, "1: instruction before any @group"),
    ("unknown group", "@group bases\n", "1: unknown group: bases"),
    ("unknown directive", "@grope base\n", "1: unknown directive: @grope"),
    ("unknown feature", f'@group base\nA {WORD} "a" feat FEAT_LSF\n', "2: unknown feature in A: FEAT_LSF"),
    ("unknown word", f'@group base\nA {WORD} "a" tood\n', "2: unknown word in A: tood"),
    ("empty constraint", f'@group base\nA {WORD} "a" if todo\n', "2: empty constraint in A"),
    ("constraint on no field", f'@group base\nA {WORD} "a" if rn == 3\n', "2: constraint of A names no field: rn"),
    ("over nothing", f'@group base\nA {WORD} "a" over B\n', "2: A is over an unknown line: B"),
    ("equal patterns", f'@group base\n{OK}B {WORD} "b"\n', "3: B overlaps A"),
    ("inside without over", f"@group base\n{OK}B {'0' * 32} \"b\"\n", "3: B overlaps A"),
    ("crossing patterns", '@group base\nA ' + "0" * 22 + ' x:5 ' + '0' * 5 + ' "a"\n'
     'B ' + "0" * 27 + ' y:5 "b"\n', "3: B overlaps A"),
    ("over, but not inside", f"@group base\n{OK}B {'1' * 32} \"b\" over A\n", "3: B is not inside A"),
    ("over, the wrong way", f"@group base\nB {'0' * 32} \"b\"\nA {WORD} \"a\" over B\n", "3: A is not inside B"),
    ("too many fields", "@group base\nA 0000000 " + " ".join(f"f{i}:2" for i in range(12)) + ' g:1 "a"\n',
     "2: too many fields: A"),
    ("stray text", "@group base\n  A\n", "2: a line starts with a name, `@' or `#'"),
    ("line too long", "@group base\n# " + "x" * 600 + "\n", "2: line too long"),
    ("backslash in a template", f'@group base\nA {WORD} "a\\n"\n', "2: backslash in template"),
]

RIGHT = """# a comment

@group base
WIDE    0000 sf:1 w:3!0 imm:19 rd:5   "wide"   if sf || imm < 32
INNER   0000 sf:1 001 imm:19 00000    "inner"  over WIDE feat FEAT_LSE
@group simd
LOOSE   1111 -- (0)(1) 000 imm:16 rd:5 "loose"  todo
"""

PROGRAM = """
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include "types.h"
enum { FEAT_NONE, FEAT_LSE };
struct a64_info { const char *name, *text; unsigned mask, value; int group, feature; bool todo;
                  struct { const char *name; int lsb, width; } fields[12]; };
#include "decoder.inc"
int main(int argc, char **argv)
{
    struct a64_insn i;
    for (int n = 1; n < argc; n++)
        printf("%s ", a64_info[decode_word((uint32_t)strtoul(argv[n], 0, 16), &i)].name);
    printf("%d %d %zu", i.u.LOOSE.imm, a64_info[A64_LOOSE].todo, sizeof i);
}
"""
WORDS = {
    "0b00001f": "WIDE", "0900041f": "WIDE", "010003ff": "WIDE",           # sf, or imm 31
    "0100041f": "UNDEFINED", "0100043f": "UNDEFINED",                     # the constraint: imm 32 and 33
    "0800001f": "UNDEFINED", "00000020": "UNDEFINED",                     # w must not be 0
    "01000020": "INNER", "09ffffe0": "INNER", "01000400": "INNER",        # carved out: its own constraint, none
    "f0000000": "LOOSE", "ff000000": "LOOSE", "f0ffffff": "UNDEFINED",    # ignored bits, and one that is not
    "f01fffff": "LOOSE",
}

passed = failed = 0


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print(f"FAIL {name}: {detail}")


def generate(isagen, directory, what, *tables):
    paths = [os.path.join(directory, f"{i}.isa") for i in range(len(tables))]
    for path, text in zip(paths, tables):
        with open(path, "w") as f:
            f.write(text)
    features = os.path.join(directory, "features.def")
    with open(features, "w") as f:
        f.write(FEATURES)
    return subprocess.run([isagen, what, features] + paths, capture_output=True, text=True, check=False)


def check_right(isagen, cc, directory):
    for what, name in (("types", "types.h"), ("decoder", "decoder.inc")):
        r = generate(isagen, directory, what, RIGHT)
        check(what, r.returncode == 0, r.stderr)
        with open(os.path.join(directory, name), "w") as f:
            f.write(r.stdout)
    with open(os.path.join(directory, "main.c"), "w") as f:
        f.write(PROGRAM)
    program = os.path.join(directory, "program")
    r = subprocess.run([cc, "-Wall", "-Werror", "-Wno-sign-compare", "-o", program, "main.c"], cwd=directory,
                       capture_output=True, text=True, check=False)
    check("compile", r.returncode == 0, r.stderr)
    if r.returncode == 0:
        out = subprocess.run([program] + list(WORDS), capture_output=True, text=True, check=False).stdout.split()
        for word, want, got in zip(WORDS, WORDS.values(), out):
            check(word, got == want, f"decodes as {got}, not {want}")
        check("fields and todo", out[-3:] == ["65535", "1", "12"], str(out[-3:]))


def main():
    isagen = os.path.abspath(sys.argv[1])
    cc = sys.argv[2] if len(sys.argv) > 2 else "cc"
    with tempfile.TemporaryDirectory() as directory:
        for name, table, message in WRONG:
            r = generate(isagen, directory, "decoder", table)
            want = os.path.join(directory, "0.isa") + ":" + message
            check(name, r.returncode == 1 and r.stderr.strip() == want and not r.stdout,
                  f"status {r.returncode}, {r.stderr.strip()!r}")
        r = generate(isagen, directory, "types", "@group base\n" + OK, f'@group base\nB {WORD} "b"\n')
        check("overlap between files", r.stderr.strip().endswith("1.isa:2: B overlaps A"), r.stderr)
        r = generate(isagen, directory, "types", "@group base\n" + OK, f'B {"1" * 32} "b"\n')
        check("group does not reach the next file", "before any @group" in r.stderr, r.stderr)
        r = subprocess.run([isagen, "types", "/nonexistent", "x"], capture_output=True, text=True, check=False)
        check("missing file", r.returncode == 1 and "/nonexistent" in r.stderr, r.stderr)
        r = subprocess.run([isagen], capture_output=True, text=True, check=False)
        check("usage", r.returncode == 2 and "usage" in r.stderr, r.stderr)
        check_right(isagen, cc, directory)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
