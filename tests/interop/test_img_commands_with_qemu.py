# SPDX-License-Identifier: GPL-2.0-only
"""miniqemu-img resize, dd, bench, check and measure beside qemu-img."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.support.both_tools import Tools, lines_of
from tests.support.qemu_tools import qemu_img, qemu_io

pytestmark = pytest.mark.full

OTHER_MISTAKES = """
resize | resize x | resize disk.qcow2 z | resize -f raw disk.raw -1M | resize -f raw disk.raw -99M
resize --preallocation=foo disk.raw 1 | resize -f raw --preallocation=metadata disk.raw +1M
resize -f raw --preallocation=falloc disk.raw 1M | resize disk.raw 1M
check | check nope | check -r foo x | check disk.raw | check --output=json -f raw disk.raw | check -T foo x
snapshot | snapshot -l -c a x | snapshot -c a disk.raw | snapshot -d a disk.raw
amend | amend -o a=b disk.raw | amend -f raw -o help | amend -f nope -o help | amend -o , x
bitmap | bitmap --add x | bitmap -g 1 --remove x b | bitmap -F raw --merge a x b | bitmap -b a --add x b
bench | bench -c foo x | bench -d 9999999999 x | bench -s 0x x | bench -S 9999G x | bench -t foo x
bench -i foo x | bench --pattern=256 x | bench --flush-interval=3 x | bench -w --flush-interval=3 x
dd | dd foo | dd foo=1 | dd if=disk.raw | dd bs=0 if=a of=b | dd bs=1Z if=a of=b | dd if=nope of=b
dd -O foo if=disk.raw of=b | dd if=disk.raw of=nope/b
"""  # noqa: E501  # several commands a line


@pytest.mark.parametrize("line", lines_of(OTHER_MISTAKES))
def test_what_other_commands_refuse(work: Path, tools: Tools, line: str) -> None:
    before = Path("disk.raw").read_bytes()
    status, _, err = tools.agree(*shlex.split(line))
    assert status != 0
    assert err
    assert Path("disk.raw").read_bytes() == before


@pytest.mark.parametrize(
    ("fmt", "size"),
    [
        *(("raw", "+1M"), ("raw", "9M"), ("raw", "--shrink 5M"), ("raw", "--shrink -- -3M")),
        *(("qcow2", "+1M"), ("qcow2", "9M"), ("qcow2", "-q +512")),
        *(("qcow2", "--shrink 3M"), ("qcow2", "--shrink -- -1M"), ("qcow2", "--shrink 512")),
        *(("qcow2", f"--preallocation={mode} 9M") for mode in ("metadata", "falloc", "full")),
    ],
)
def test_resized_images_are_the_same(work: Path, tools: Tools, fmt: str, size: str) -> None:
    said = []
    for name, tool in (("theirs", tools.theirs), ("mine", tools.mine)):
        Path(name).write_bytes(Path(f"disk.{fmt}").read_bytes())
        *flags, last = size.split()
        said.append(tool(["resize", "-f", fmt, *flags, name, last]))
    assert said[0] == said[1]
    assert said[0][0] == 0
    qemu_img("compare", "-f", fmt, "-F", fmt, "-s", "theirs", "mine")


@pytest.mark.parametrize(
    "line", ["", "bs=1000 skip=3 count=70", "bs=1M skip=1 count=2", "count=3", "skip=999999"]
)
def test_dd_copies_the_same_blocks(work: Path, tools: Tools, line: str) -> None:
    said = []
    for name, tool in (("theirs", tools.theirs), ("mine", tools.mine)):
        said.append(tool(["dd", "-f", "raw", "if=disk.raw", f"of={name}", *line.split()]))
    assert said[0] == said[1]
    assert Path("theirs").read_bytes() == Path("mine").read_bytes()


@pytest.mark.parametrize(
    "line",
    [
        "-c 20 -d 3",
        "-c 10 -d 64 -s 64k -S 1M -o 512k",
        "-w -c 50 -d 4 --pattern=7",
        "-w -c 20 -d 3 --flush-interval=5",
        "-w -c 20 -d 3 --flush-interval=5 --no-drain -t unsafe",
        "-c 0",
    ],
)
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_benchmark_says_and_does_the_same(work: Path, tools: Tools, fmt: str, line: str) -> None:
    said = []
    for name, tool in (("theirs", tools.theirs), ("mine", tools.mine)):
        Path(name).write_bytes(Path(f"disk.{fmt}").read_bytes())
        said.append(tool(["bench", "-f", fmt, *line.split(), name]))
    (status, out, err), mine = said
    assert (status, err) == (0, b"") == (mine[0], mine[2])
    plan, took = mine[1].rsplit(b"\n", 2)[:2]
    assert plan == out.rsplit(b"\n", 2)[0]
    assert took.startswith(b"Run completed in ")
    qemu_img("compare", "-f", fmt, "-F", fmt, "theirs", "mine")


@pytest.mark.parametrize("flags", ["", "--output=json", "-q", "-r all", "-r leaks"])
def test_a_check_says_the_same(work: Path, tools: Tools, flags: str) -> None:
    qemu_img("create", "-f", "qed", "disk.qed", "3M")
    qemu_io("qed", "disk.qed", "write 64k 200k")
    tools.agree("check", *flags.split(), "disk.qed")
    data = Path("disk.qed").read_bytes()
    Path("leaks.qed").write_bytes(data + bytes(65536))
    status, _, _ = tools.theirs(["check", "leaks.qed"])
    tools.agree("check", "leaks.qed")
    assert status in (0, 3)


MEASURES = """
--size 1G -O qcow2 | --size 1G -O raw | --size 700 | --size 1T -O qcow2 -o cluster_size=512
--size 1G -O qcow2 -o cluster_size=2M,refcount_bits=1 | --size 5T -O qcow2 -o compat=0.10
--size 3G -O qcow2 -o preallocation=full | --size 64P -O qcow2 | --size 0 -O qcow2 --output=json
-O qcow2 disk.raw | -O qcow2 disk.qcow2 | -O qcow2 --output=json disk.qcow2 | -O raw disk.qcow2
-O qcow2 -o backing_file=a,backing_fmt=raw disk.raw | -O qcow2 -o cluster_size=4k disk.raw
--size 1G -O foo | --size 1G disk.raw | -f raw | a b | --size 1G -O quorum | -O qcow2 nope
--size 1G -O qcow2 -o foo=1 | -l a disk.raw | --size z | --output=x --size 1 | --size 1G -O qed
"""


@pytest.mark.parametrize("line", lines_of(MEASURES))
def test_an_image_to_be_is_as_large(work: Path, tools: Tools, line: str) -> None:
    qemu_io("raw", "disk.raw", "write -P 9 5500k 10k")  # begins and ends within clusters
    tools.agree("measure", *line.split())


@pytest.mark.parametrize("line", ["-x", "-Ux", "--nothing", "-f", "--size", "--image-opts=a"])
def test_measure_answers_a_wrong_option_with_the_help(work: Path, tools: Tools, line: str) -> None:
    theirs, mine = tools.theirs(["measure", line]), tools.mine(["measure", line])
    assert (mine[0], mine[2]) == (theirs[0], theirs[2])
    assert b"Command syntax:" in mine[1]
