"""Ten seconds of silence are explained in words."""
import struct
import subprocess

import pytest
from guest import ARMLET, images


def image(*code):
    """A kernel of a few instructions behind an Image header."""
    header = struct.pack("<IIQQQ", 0x14000010, 0, 0, 4096, 2) + bytes(24) + b"ARM\x64" + bytes(4)
    return header + b"".join(struct.pack("<I", c) for c in code)


def first_line(args, seconds=30):
    """The first line on stderr; the machine runs on and is ended."""
    p = subprocess.Popen([ARMLET, "-nographic", *args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE, text=True)
    try:
        return p.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        p.terminate()
        return p.communicate(timeout=20)[1]


CASES = [
    ("spin", image(0x14000000), "loops at pc 0x40200040 with interrupts masked"),
    ("wfi", image(0xd503207f, 0x17ffffff), "every vCPU waits for an interrupt, and none is set to come"),
    ("udf", image(0), "takes exceptions without end at its own vectors (VBAR_EL1 0x0, pc 0x200"),
]


@pytest.mark.parametrize("name,code,says", CASES, ids=[c[0] for c in CASES])
def test_silence(tmp_path, name, code, says):
    path = tmp_path / name
    path.write_bytes(code)
    text = first_line(["-kernel", str(path), "-append", "console=ttyAMA0"], 14)
    assert text.count("\n") == 1 and "nothing on the console for 10 s" in text and says in text


def test_no_kernel():
    assert "no -kernel was given" in first_line([], 14)


def test_wrong_console():
    text = first_line(["-kernel", images("6.1")[0], "-append", "console=ttyS0"], 20)
    assert "console=ttyS0 names a device that this board does not have" in text and "console=ttyAMA0" in text
