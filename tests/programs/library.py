"""library.py FILE: Python's own modules that are C beneath, threads, processes; what they say of a file."""
import bz2
import collections
import ctypes
import decimal
import fractions
import hashlib
import itertools
import json
import lzma
import math
import mmap
import multiprocessing
import os
import pickle
import random
import re
import signal
import socket
import sqlite3
import statistics
import struct
import sys
import tempfile
import threading
import zlib


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def packed(text):
    for module, name in ((zlib, "zlib"), (bz2, "bz2"), (lzma, "lzma")):
        part = text[:300000]
        small = module.compress(part)
        assert module.decompress(small) == part
        print(name, len(small), digest(small))
    print(zlib.crc32(text), zlib.adler32(text), *(hashlib.new(name, text).hexdigest()[:12]
                                                   for name in ("sha1", "sha3_256", "blake2s", "md5")))


def numbers():
    decimal.getcontext().prec = 200
    print(decimal.Decimal(2).sqrt(), decimal.Decimal(1).exp())
    print(sum(fractions.Fraction(1, n) for n in range(1, 60)), math.factorial(200) % (2 ** 89 - 1))
    print(pow(3, 10 ** 6, 2 ** 521 - 1) % 10 ** 20)
    generator = random.Random(7)
    sample = [generator.gauss(0, 1) for _ in range(5000)]
    print(statistics.fmean(sample), statistics.pstdev(sample), math.fsum(map(math.sin, sample)))
    values = [0.1, -0.0, 1e308 * 10, math.nan, 5e-324, 2 ** 53 + 1.0, 1 / 3]
    print([struct.pack("<dfe", v, v, 1.5).hex() for v in values], [v.hex() for v in values])
    print([math.fmod(v, 0.3) for v in (1.0, -7.5, 1e16)], round(2.675, 2), 7 // -2, -7 % 3, (-8) ** (1 / 3))


def texts(text):
    words = collections.Counter(re.findall(r"[A-Za-z_]\w+", text))
    print(words.most_common(8), len(json.dumps(words)), digest(pickle.dumps(sorted(words.items()))))
    print(len(re.sub(r"(?m)^\s*#.*$", "", text)), len(re.findall(r"(?s)\"\"\".*?\"\"\"", text)))


def threads():
    lock, total, barrier = threading.Lock(), [0], threading.Barrier(4)

    def work(n):
        barrier.wait()
        for i in range(5000):
            with lock:
                total[0] += i % n
    them = [threading.Thread(target=work, args=(n,)) for n in (3, 5, 7, 11)]
    for thread in them:
        thread.start()
    for thread in them:
        thread.join()
    print(total[0])


def square(n):
    return n * n


def processes():
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(sum(pool.map(square, range(2000), 50)))
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        for n in iter(lambda: struct.unpack("<q", there.recv(8))[0], -1):
            there.send(struct.pack("<q", n * 3 + 1))
        os._exit(7)
    n = 1
    for _ in range(200):
        here.send(struct.pack("<q", n))
        n = struct.unpack("<q", here.recv(8))[0] % 1000003
    here.send(struct.pack("<q", -1))
    print(n, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    got = []
    signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    for _ in range(50):
        os.kill(os.getpid(), signal.SIGUSR1)
    print(len(got) > 0, set(got) == {signal.SIGUSR1})


def files():
    with tempfile.TemporaryFile() as f:
        f.truncate(1 << 20)
        with mmap.mmap(f.fileno(), 1 << 20) as m:
            for i in range(0, 1 << 20, 4099):
                m[i] = i * 7 & 255
            print(zlib.crc32(m[:]), m.find(b"\xff"))
    base = sqlite3.connect(":memory:")
    base.create_function("twice", 1, lambda x: 2 * x)
    base.execute("create table t(a integer primary key, b real, c text)")
    base.executemany("insert into t values(?, ?, ?)", ((i, i / 7, f"n{i % 101}") for i in range(8000)))
    print(base.execute("select sum(twice(a)), max(b), count(distinct c) from t where a % 97 = 5").fetchall())
    to_int = ctypes.POINTER(ctypes.c_int)
    compare = ctypes.CFUNCTYPE(ctypes.c_int, to_int, to_int)(lambda a, b: a[0] - b[0])
    numbers_of_c = (ctypes.c_int * 500)(*[i * 7919 % 1009 for i in range(500)])
    ctypes.CDLL(None).qsort(numbers_of_c, 500, ctypes.sizeof(ctypes.c_int), compare)
    print(list(itertools.islice(numbers_of_c, 0, 500, 50)))


def main():
    with open(sys.argv[1], "rb") as f:
        raw = f.read()
    packed(raw)
    numbers()
    texts(raw[:400000].decode(errors="replace"))
    threads()
    processes()
    files()


main()
