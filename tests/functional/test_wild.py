"""Guests that do what no kernel does: the architecture's answer, and armlet neither ends nor grows."""
import os
import random
import resource
import signal
import struct
import subprocess
import time

import pytest
from guest import ARMLET, run

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BOARD = ["-M", "virt", "-m", "64", "-display", "none", "-monitor", "none", "-no-reboot"]
EXTERNAL, IABT, PC_ALIGN, IL = 0x10, 0x21, 0x22, 1 << 25


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    path = tmp_path_factory.mktemp("wild") / "wild.elf"
    subprocess.run(["aarch64-linux-gnu-gcc", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments",
                    f"-Wl,-T,{SOURCE}/bench/baremetal.ld", f"{SOURCE}/tests/guests/wild.S", "-o", str(path)], check=True)
    return str(path)


@pytest.mark.parametrize("engine", ["tcg", "interp"])
def test_jumps_into_nothing_and_nested_faults(wild, engine):
    r = run(*BOARD, "-accel", engine, "-serial", "stdio", "-kernel", wild, timeout=60)
    assert r.returncode == 0, r
    got = {line.split()[0]: [int(word, 16) for word in line.split()[1:]] for line in r.stdout.splitlines() if line.strip()}
    fetch = IABT << 26 | IL
    for name, far in (("uart", 0x09000000), ("gic", 0x08000000), ("hole", 0x0f000000), ("beyond", 0x3fffffffffc)):
        assert got[name] == [fetch | EXTERNAL, far], (name, got)
    assert got["misaligned"] == [PC_ALIGN << 26 | IL, 0x40080002]
    assert got["above"] == [fetch, 0xffff000000000000]  # an address size fault: the MMU is off
    assert got["flash"][0] >> 26 in (0, IABT)  # nothing, or erased flash
    assert got["nested"] == [10000] and got["rewritten"] == [10000]
    assert got["pieces"] == [20000]


def image(seed):
    """A kernel of random words, half of them near common encodings."""
    rnd = random.Random(seed)
    common = (0x91000000, 0xd1000000, 0xf9400000, 0xf9000000, 0xa9400000, 0x54000000, 0x14000000, 0x97ffffff, 0xd61f0000,
              0xd65f0000, 0x34000000, 0x1e602800, 0x4e200400, 0xc85f7c00, 0xc8007c00, 0xf8200000, 0xd53be000, 0xd5181000,
              0xd5087600, 0xd4000001, 0xd69f03e0, 0xd5033f9f, 0xd503207f, 0xd50b7520, 0x3d800000, 0x9ac00800)
    words = [rnd.choice(common) ^ (rnd.getrandbits(32) & rnd.getrandbits(32) & rnd.getrandbits(32))
             if rnd.getrandbits(1) else rnd.getrandbits(32) for _ in range(16384)]
    # add x0, pc; msr vbar_el1: exceptions lead into random code, too; then on into it
    start = [0x14000010, *[0] * 15, 0x10000000 | 0x800 // 4 << 5, 0xd518c000, 0xd5033fdf]
    head = bytearray(struct.pack("<19I", *start))
    head[16:24] = struct.pack("<Q", 4 * len(words))
    head[24:32] = struct.pack("<Q", 2)
    head[56:60] = b"ARM\x64"
    return bytes(head) + struct.pack(f"<{len(words)}I", *words)


@pytest.mark.parametrize("engine", ["tcg", "interp"])
@pytest.mark.parametrize("seed", range(6))
def test_random_kernel(tmp_path, engine, seed):
    path = tmp_path / "k"
    path.write_bytes(image(seed))
    with subprocess.Popen([ARMLET, *BOARD, "-accel", engine, "-serial", "null", "-kernel", str(path)],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        time.sleep(1)
        alive = child.poll() is None
        if alive:
            child.send_signal(signal.SIGTERM)
        child.wait(30)
    assert child.returncode in (0, 1), (seed, child.returncode)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1 << 20  # KiB; compilers are children, too
