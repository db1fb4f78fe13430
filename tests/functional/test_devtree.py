"""The device tree against the peer's, node for node and property for property."""
import os
import re
import subprocess

import pytest
from guest import ARMLET, run

# What this board does not have yet (docs/guest.md), and what differs from run to run.
MISSING_NODES = {"flash@0", "platform-bus@c000000"}
RANDOM = {"kaslr-seed", "rng-seed", "phandle"}

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(scope="module")
def peer():
    """The program to compare with: fetched once, and unpacked in the cache."""
    return subprocess.run([os.path.join(SOURCE, "tools/peer")], check=True, timeout=600, stdout=subprocess.PIPE,
                          text=True).stdout.strip()

# Without the peer: the nodes that it has for -smp 2, by their names.
NODES = (["", "aliases", "apb-pclk", "chosen", "cpus", "cpus/cpu-map", "cpus/cpu-map/socket0",
          "cpus/cpu-map/socket0/cluster0", "cpus/cpu-map/socket0/cluster0/core0",
          "cpus/cpu-map/socket0/cluster0/core1", "cpus/cpu@0", "cpus/cpu@1", "fw-cfg@9020000", "gpio-keys",
          "gpio-keys/poweroff", "intc@8000000", "intc@8000000/v2m@8020000", "memory@40000000", "pcie@10000000", "pl011@9000000",
          "pl031@9010000", "pl061@9030000", "pmu", "psci", "timer"] +
         [f"virtio_mmio@{0xa000000 + 0x200 * i:x}" for i in range(32)])


def parse(path):
    """{node path: {property: value}} by dtc."""
    text = subprocess.run(["dtc", "-q", "-I", "dtb", "-O", "dts", str(path)], check=True, stdout=subprocess.PIPE,
                          text=True).stdout
    nodes, stack = {}, []
    for line in map(str.strip, text.split("\n")):
        if line.endswith("{"):
            stack.append(line[:-1].strip().strip("/"))
            nodes["/".join(stack).strip("/")] = {}
        elif line == "};":
            stack.pop()
        elif stack and line.endswith(";"):
            name, _, value = line[:-1].partition(" = ")
            nodes["/".join(stack).strip("/")][name] = value
    return nodes


def comparable(nodes):
    """Without what is random or missing; phandles, whose numbers are free, become the paths of their nodes."""
    paths = {props["phandle"].strip("<>"): path for path, props in nodes.items() if "phandle" in props}

    def named(value):
        return re.sub(r"0x80[0-9a-f]{2}\b", lambda m: "&" + paths.get(m.group(), m.group()), value)

    return {path: {k: named(v) for k, v in props.items() if k not in RANDOM}
            for path, props in nodes.items() if path.split("/")[0] not in MISSING_NODES}


def dump(tmp_path, *args):
    path = tmp_path / "armlet.dtb"
    r = run("-machine", f"virt,dumpdtb={path}", "-nographic", *args)
    assert r.returncode == 0, r.stderr
    return parse(path)


def test_nodes(tmp_path):
    assert sorted(dump(tmp_path, "-smp", "2", "-cpu", "cortex-a57")) == sorted(NODES)


@pytest.mark.parametrize("args", [["-smp", "1", "-m", "512"], ["-smp", "8", "-m", "4G"], ["-cpu", "cortex-a72", "-m", "1024"]])
def test_same_as_the_peer(tmp_path, peer, args):
    path = tmp_path / "peer.dtb"
    common = args if "-cpu" in args else args + ["-cpu", "cortex-a57"]
    subprocess.run([peer, "-M", f"virt,dumpdtb={path}", "-nodefaults", "-nographic", *common], check=True, timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert comparable(dump(tmp_path, *common)) == comparable(parse(path))


def test_bootargs_and_memory(tmp_path):
    nodes = dump(tmp_path, "-m", "768", "-kernel", "x", "-append", "a=b")
    assert nodes["chosen"]["bootargs"] == '"a=b"'
    assert nodes["memory@40000000"]["reg"] == "<0x00 0x40000000 0x00 0x30000000>"


def test_into_a_pipe(tmp_path):
    """A name that is not a plain file's is written to, and stays what it is."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("-machine", f"virt,dumpdtb={path}", "-nographic").returncode == 0
        assert os.read(reader, 4) == b"\xd0\x0d\xfe\xed"
    finally:
        os.close(reader)
    assert path.is_fifo()


def test_to_standard_output():
    told = subprocess.run([ARMLET, "-machine", "virt,dumpdtb=/dev/stdout"], check=True, timeout=60, stdout=subprocess.PIPE)
    assert told.stdout[:4] == b"\xd0\x0d\xfe\xed"
