#!/usr/bin/env python3
"""Decoder and disassembler against llvm-mc, objdump and the words of binutils' own tests.

    decode_oracle.py DECODE_DUMP [--seed N] [--words N] [--random N] [--no-gas]

Five parts, each word judged by programs that share no code or table with ours:
  lines    for every line of the tables, words with random fields and words one bit off the line
  random   random words
  models   what each CPU model executes, against llvm-mc with just those extensions
  system   every MRS, MSR (register), SYS and SYSL
  gas      every word of binutils' gas/testsuite/gas/aarch64 for Armv8.0-A to v8.5-A (Debian: binutils-source,
           fetched into $XDG_CACHE_HOME/armlet; without it this part says so and counts nothing)

llvm-mc decides what exists; objdump must not reject what we accept.  A text is right if it is, after norm(), what
llvm-mc or objdump prints with or without aliases; failing that (system register names, hints), if llvm-mc assembles
it to the same word.  Differences that are the oracle's are in KNOWN, with the reason; an entry that nothing needs is
itself a failure.
"""
import argparse
import collections
import glob
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

OBJDUMP = "aarch64-linux-gnu-objdump"
V85 = ("+v8.5a,+fp-armv8,+neon,+crc,+lse,+aes,+sha2,+sha3,+sm4,+fullfp16,+fp16fml,+rand,+mte,+ras,+pauth,+lor,"
       "+dotprod,+rdm,+rcpc,+rcpc-immo,+jsconv,+complxnum,+flagm,+altnzcv,+fptoint,+sb,+bti,+ssbs,+ccpp,+ccdp")
# Our features in llvm-mc's words, for the models; a feature that no instruction needs is not here.
LLVM_FEATURE = {
    "FEAT_NONE": "fp-armv8,+neon", "FEAT_CRC32": "crc", "FEAT_LSE": "lse", "FEAT_RDM": "rdm", "FEAT_AES": "aes",
    "FEAT_SHA1": "sha2", "FEAT_SHA256": "sha2", "FEAT_PMULL": "aes", "FEAT_DotProd": "dotprod", "FEAT_LRCPC": "rcpc",
    "FEAT_LRCPC2": "rcpc-immo", "FEAT_FlagM": "flagm", "FEAT_FlagM2": "altnzcv", "FEAT_SB": "sb",
    "FEAT_FRINTTS": "fptoint", "FEAT_JSCVT": "jsconv", "FEAT_FCMA": "complxnum", "FEAT_FP16": "fullfp16",
    "FEAT_FHM": "fp16fml", "FEAT_SHA512": "sha3", "FEAT_SHA3": "sha3", "FEAT_SM3": "sm4", "FEAT_SM4": "sm4",
    "FEAT_PAuth": "pauth", "FEAT_MTE": "mte", "FEAT_MTE2": "mte", "FEAT_LOR": "lor",
}
MODELS = ["cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "max", "a CPU without extensions"]

Known = collections.namedtuple("Known", "oracle accepts match reason")


def names(*prefixes):
    return lambda name, word: name.startswith(prefixes)


# oracle, does it accept (and we do not) or the reverse, which words, and why the oracle is wrong.  The oracle "text"
# is all of them together.
KNOWN = [
    Known("llvm", True, lambda name, word: word & 0xffd80000 == 0xd5000000,
          "MRS and MSR (register) exist for op0 2 and 3 only (C5.2); llvm-mc prints any op0"),
    Known("objdump", False, names("LDAR"),
          "Rs and Rt2 are should-be-one; objdump wants ones here, though not in LDXR"),
    Known("objdump", False, names("ADDG", "SUBG"),
          "bits 15:14 are should-be-zero (C6.2.5); objdump wants zeros"),
    Known("objdump", False, names("LDPSW"),
          "CONSTRAINED UNPREDICTABLE choices of registers still decode; objdump rejects those of LDPSW alone"),
    Known("text", True, lambda name, word: word & 0xffdfffe0 == 0xd5180760,
          "ID_AA64MMFR3_EL1 is younger than these versions of the oracles"),
]


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = self.words = 0
        self.used = collections.Counter()

    def case(self, name, n_words, problems):
        self.words += n_words
        if problems:
            self.failed += 1
            for p in problems[:5]:
                print(f"FAIL {name}: {p}")
            if len(problems) > 5:
                print(f"FAIL {name}: ... {len(problems)} in all")
        else:
            self.passed += 1

    def known(self, oracle, accepts, name, word):
        for i, k in enumerate(KNOWN):
            if k.oracle == oracle and k.accepts == accepts and k.match(name, word):
                self.used[i] += 1
                return True
        return False


def run(argv, text):
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=False)


def our_decode(dump, words):
    """A list of None or (name, text, text at 4 * index)."""
    out = run([dump, "words"], "".join(f"{w:08x}\n" for w in words)).stdout.splitlines()
    assert len(out) == len(words), "decode_dump stopped early"
    return [None if o == "-" else tuple(o.split("|")) for o in out]


def llvm_decode(words, attributes=V85, aliases=False):
    argv = ["llvm-mc", "-triple=aarch64", "-mattr=" + attributes, "--disassemble"]
    if not aliases:
        argv += ["-M", "no-aliases"]
    r = run(argv, "".join("0x%02x 0x%02x 0x%02x 0x%02x\n" % tuple(struct.pack("<I", w)) for w in words))
    bad = {int(m[1]) - 1 for m in re.finditer(r"^<stdin>:(\d+):\d+: warning: invalid instruction", r.stderr, re.M)}
    texts = [t.strip() for t in r.stdout.splitlines() if t.startswith("\t") and not t.startswith("\t.")]
    assert len(texts) + len(bad) == len(words), "llvm-mc output is not understood"
    texts.reverse()
    return [None if i in bad else texts.pop() for i in range(len(words))]


def objdump_decode(words, aliases=False):
    with tempfile.NamedTemporaryFile(suffix=".bin") as f:
        f.write(b"".join(struct.pack("<I", w) for w in words))
        f.flush()
        argv = [OBJDUMP, "-D", "-z", "-b", "binary", "-m", "aarch64"] + ([] if aliases else ["-M", "no-aliases"])
        out = run(argv + [f.name], "").stdout
    rows = [line.split("\t") for line in out.splitlines()]
    texts = [" ".join(r[2:]) for r in rows if len(r) >= 3 and r[0].strip().endswith(":")]
    assert len(texts) == len(words), "objdump output is not understood"
    return [None if t.startswith(".inst") or "undefined" in t else t for t in texts]


def llvm_encode(texts):
    """The word of each text, or None."""
    r = run(["llvm-mc", "-triple=aarch64", "-mattr=" + V85 + ",+all", "-show-encoding"],
            "".join(f"l{i}: {t}\n" for i, t in enumerate(texts)))
    words, at = [None] * len(texts), None
    for line in r.stdout.splitlines():
        m = re.match(r"l(\d+):$", line.strip())
        at = int(m[1]) if m else at
        m = re.search(r"encoding: \[(0x..),(0x..),(0x..),(0x..)\]", line)
        if m and at is not None:
            words[at] = sum(int(m[i + 1], 16) << 8 * i for i in range(4))
    return words


def norm(text):
    """Case, spacing, comments, the base of numbers and cs, cc for hs, lo are not differences."""
    text = re.sub(r"\s*//.*", "", text.lower())
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\bcs\b", "hs", re.sub(r"\bcc\b", "lo", text))
    text = re.sub(r"\{ (.*?) \}", r"{\1}", text)
    text = re.sub(r"#?(-?)0x([0-9a-f]+)", lambda m: f"#{m[1]}{int(m[2], 16)}", text)
    return re.sub(r"#(-?\d+)\.(\d+?)0*(e[+]?0+)?(?=$|[^\de])", r"#\1.\2", text)


class Judge:
    """Decodes a batch with everyone at once; problems() then gives the verdict on a slice."""

    def __init__(self, dump, words, table, tally):
        self.words, self.table, self.tally = words, table, tally
        self.ours = our_decode(dump, words)
        self.llvm, self.objdump = llvm_decode(words), objdump_decode(words)
        self.others = [llvm_decode(words, aliases=True), objdump_decode(words, aliases=True)]
        self.wrong_text = self.check_texts()

    def outside_texts(self, i):
        return {norm(t[i]) for t in [self.llvm, self.objdump] + self.others if t[i] is not None}

    def check_texts(self):
        doubtful, wrong = [], {}
        for i, o in enumerate(self.ours):
            outside = self.outside_texts(i)
            if not o or not outside:
                continue
            if norm(o[1]) not in outside:
                doubtful.append(i)
            if o[2] != o[1] and self.others[1][i] and norm(o[2]) != norm(self.others[1][i]):
                wrong[i] = f"text {o[2]!r}, objdump {self.others[1][i]!r}"
        for i, word in zip(doubtful, llvm_encode([self.ours[i][1] for i in doubtful])):
            _, value, fields = self.table[self.ours[i][0]][:3]
            seen = self.table[self.ours[i][0]][0] | fields
            # llvm-mc and objdump print what they do not know in the space of op0 0 as a system register.
            unknown = all(re.match(r"(msr|mrs \w+,) s0_", t) for t in self.outside_texts(i))
            if word is None or (word ^ self.words[i]) & seen or unknown:
                wrong[i] = f"text {self.ours[i][1]!r}, outside {sorted(self.outside_texts(i))}"
        return wrong

    def problem(self, i):
        word, ours, llvm = self.words[i], self.ours[i], self.llvm[i]
        name = ours[0] if ours else ""
        if (ours is None) != (llvm is None):
            if not self.tally.known("llvm", llvm is not None, name, word):
                return f"{word:08x}: we say {ours and ours[1]!r}, llvm-mc {llvm!r}"
        elif ours and self.objdump[i] is None and not self.tally.known("objdump", False, name, word):
            return f"{word:08x}: we say {ours[1]!r}, objdump rejects it"
        if i in self.wrong_text and not self.tally.known("text", True, name, word):
            return f"{word:08x}: {self.wrong_text[i]}"
        return None

    def problems(self, first, last):
        return [p for p in map(self.problem, range(first, last)) if p]


def line_word(rng, mask, value):
    """Random fields, in which 0 and 31 are frequent."""
    word = rng.getrandbits(32)
    for lsb in (0, 5, 10, 16):
        choice = rng.randrange(8)
        if choice == 0:
            word |= 31 << lsb
        elif choice == 1:
            word &= ~(31 << lsb)
    return (word & ~mask & 0xffffffff) | value


def part_lines(args, rng, table, tally):
    words = []
    off = args.words // 4
    for mask, value, _fields, _feature, _models in table.values():
        bits = [b for b in range(32) if mask >> b & 1]
        words += [line_word(rng, mask, value) for _ in range(args.words)]
        words += [line_word(rng, mask, value) ^ 1 << rng.choice(bits) for _ in range(off)]
    judge = Judge(args.dump, words, table, tally)
    step = args.words + off
    for i, name in enumerate(table):
        hit = any(o and o[0] == name for o in judge.ours[i * step:i * step + args.words])
        problems = judge.problems(i * step, (i + 1) * step)
        tally.case("line " + name, step, problems if hit else problems + ["no word decodes as this line"])


def part_random(args, rng, table, tally):
    step = 10000
    for i in range(args.random // step):
        judge = Judge(args.dump, [rng.getrandbits(32) for _ in range(step)], table, tally)
        tally.case(f"random words {i}", step, judge.problems(0, step))


def part_models(args, rng, table, tally):
    words = [line_word(rng, t[0], t[1]) for t in table.values() for _ in range(8)]
    ours, all_features = our_decode(args.dump, words), llvm_decode(words)
    for m, model in enumerate(MODELS):
        features = {"FEAT_NONE"} | {t[3] for t in table.values() if t[4][m] == "1"}
        llvm = llvm_decode(words, "+v8a,+" + ",+".join(sorted(LLVM_FEATURE[f] for f in features)))
        # What llvm-mc prints as a write of a nameless field of PSTATE it does not have, unless that is all it is.
        llvm = [None if t and "\ts0_" in t.lower() and o and o[0] != "MSR_IMM" else t for o, t in zip(ours, llvm)]
        problems = []
        for word, o, full, has in zip(words, ours, all_features, llvm):
            if o is None or full is None:
                continue
            # What llvm-mc has not for this model must be UNDEFINED; what it has without a feature may not be missing.
            available = table[o[0]][4][m] == "1"
            if available and has is None:
                problems.append(f"{word:08x} {o[1]!r} is executed, llvm-mc has it not")
            if not available and has is not None and table[o[0]][3] == "FEAT_NONE" and o[0] != "UDF":
                problems.append(f"{word:08x} {o[1]!r} is not executed")
        tally.case("model " + model, len(words), problems)


def part_system(args, rng, table, tally):
    """Every system register and system instruction: names are facts of sysregs.def, not of the templates."""
    judge = Judge(args.dump, [0xd5000000 | op << 19 | n << 5 | rng.randrange(32)
                              for op in (1, 2, 3, 5, 6, 7) for n in range(1 << 14)], table, tally)
    for i in range(6):
        tally.case(f"system space {i}", 1 << 14, judge.problems(i << 14, (i + 1) << 14))


GAS_OUTSIDE = re.compile(r"sve|sme|bf16|bfloat|i8mm|f32mm|f64mm|cssc|tme|dgh|brbe|ls64|mops|hbc|wfxt|error|v8-r")
GAS_OUTSIDE_FILES = {"system-4.d": "Armv8.7-A barriers", "system-5.d": "Armv8.7-A WFET, WFIT"}


def gas_directory():
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "armlet", "binutils")
    found = glob.glob(cache + "/*/gas/testsuite/gas/aarch64")
    if found:
        return found[0]
    if not all(map(shutil.which, ("apt-get", "dpkg-deb", "tar"))):
        return None
    os.makedirs(cache, exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        if subprocess.run(["apt-get", "-qq", "download", "binutils-source"], cwd=tmp, capture_output=True).returncode:
            return None
        deb = glob.glob(tmp + "/*.deb")
        subprocess.run(["dpkg-deb", "-x", deb[0], tmp], check=True)
        tarball = glob.glob(tmp + "/usr/src/binutils/binutils-*.tar*")[0]
        argv = ["tar", "xf", tarball, "-C", cache, "--wildcards", "*/gas/testsuite/gas/aarch64/*.d"]
        subprocess.run(argv, check=True)
    return glob.glob(cache + "/*/gas/testsuite/gas/aarch64")[0]


def gas_words(path):
    """(word, whether gas calls it an instruction) of one .d file; none if it is not for Armv8.0-A to v8.5-A."""
    with open(path, errors="replace") as f:
        text = f.read()
    header = " ".join(line for line in text.splitlines() if line.startswith("#"))
    name = os.path.basename(path)
    if name in GAS_OUTSIDE_FILES or GAS_OUTSIDE.search(name) or GAS_OUTSIDE.search(header):
        return []
    if "objdump" not in header or re.search(r"armv8\.[6-9]|armv9", header):
        return []
    rows = re.findall(r"^\s*(?:[0-9a-f]+|\.\*|\[0-9a-f\]\+):\s+([0-9a-f]{8})\s+(.*)$", text, re.M)
    return [(int(w, 16), "undefined" not in t and ".inst" not in t) for w, t in rows if ".word" not in t]


def part_gas(args, table, tally):
    directory = None if args.no_gas else gas_directory()
    if not directory:
        print("gas: not run" + ("" if args.no_gas else ": binutils-source cannot be had here"))
        tally.skipped += 1
        return
    files = [(p, sorted(set(gas_words(p)))) for p in sorted(glob.glob(directory + "/*.d"))]
    files = [(p, w) for p, w in files if w]
    judge = Judge(args.dump, [w for _, words in files for w, _ in words], table, tally)
    at = 0
    for path, words in files:
        problems = []
        for i, (word, exists) in enumerate(words, at):
            ours = judge.ours[i]
            if (ours is not None) != exists and not tally.known("llvm", exists, ours[0] if ours else "", word):
                gas = "has it" if exists else "has it not"
                problems.append(f"{word:08x}: we say {ours and ours[1]!r}, gas {gas}")
            elif i in judge.wrong_text:
                problems.append(f"{word:08x}: {judge.wrong_text[i]}")
        at += len(words)
        tally.case("gas " + os.path.basename(path), len(words), problems)
    print(f"gas: {at} words of {len(files)} files")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("dump")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--words", type=int, default=64, help="words for each line")
    ap.add_argument("--random", type=int, default=200000, help="random words")
    ap.add_argument("--no-gas", action="store_true")
    args = ap.parse_args()
    for tool in ("llvm-mc", OBJDUMP):
        if not shutil.which(tool):
            print(f"{tool} is not installed\n0 passed, 0 failed, 1 skipped")
            return 0
    rows = [line.split("|") for line in run([args.dump, "table"], "").stdout.splitlines()]
    table = {r[0]: (int(r[1], 16), int(r[2], 16), int(r[3], 16), r[5], r[7] + str(int(r[5:7] == ["FEAT_NONE", "0"])))
             for r in rows}
    rng, tally = random.Random(args.seed), Tally()
    part_lines(args, rng, table, tally)
    part_random(args, rng, table, tally)
    part_models(args, rng, table, tally)
    part_system(args, rng, table, tally)
    part_gas(args, table, tally)
    for i, k in enumerate(KNOWN):
        print(f"known, {k.oracle}, {tally.used[i]} words: {k.reason}")
        if not tally.used[i]:
            tally.case("known differences", 0, [f"nothing needs the entry for {k.reason}"])
    print(f"{len(table)} lines, {tally.words} words, seed {args.seed}")
    print(f"{tally.passed} passed, {tally.failed} failed" + (f", {tally.skipped} skipped" if tally.skipped else ""))
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
