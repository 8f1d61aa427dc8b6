# SPDX-License-Identifier: GPL-2.0-only
"""miniqemu-img beside qemu-img: the same line, the same text and JSON, the same status."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from miniqemu.cli.img import main as img
from tests.support import needs

pytestmark = pytest.mark.full

MISTAKES = """
info | info a b | info -x a | info a -qz | info -Uf | info --o a | info --output=x full.raw | info --outp
info --image-opts -f raw a | info nope | info -f nope full.raw | info --force-share=x a | info ''
map | map -s | map -s z a | map -l 9E a | map --output=x a | map nope | map -f foo full.raw
compare a | compare -T bad a b | compare full.raw nope | compare nope full.raw | compare -s
create | create -o | create -o ,a x 1 | create -o a, x 1 | create x 1 2 | create x 9E | create x 1Z
create -f foo x 1M | create -f raw x | create x -5 | create -f raw -o help | create -f raw -o help x
create -f qcow2 -b nope -u x 1M | create -f qcow2 -b '' x 1M | create -f qcow2 -b nope -F raw -u x
create -f qcow2 -o size=3M x 1M | create -f raw -b '' x 1M | create -f raw -o foo=1 x 1M | create -b | info -- full.raw -f | info --image-opts driver=nope
"""  # noqa: E501


class Tools:
    """Runs a line with both tools, in a folder of images."""

    def __init__(self, capfd: pytest.CaptureFixture[bytes]) -> None:
        self.capfd = capfd

    def theirs(self, words: list[str]) -> tuple[int, bytes, bytes]:
        command = [needs.program("qemu-img"), *words]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    def mine(self, words: list[str]) -> tuple[int, bytes, bytes]:
        status = img.main(["qemu-img", *words])
        out, err = self.capfd.readouterr()
        return status, out, err

    def agree(self, *words: str) -> tuple[int, bytes, bytes]:
        """Both say the same; what they say."""
        theirs = self.theirs(list(words))
        assert self.mine(list(words)) == theirs
        return theirs


@pytest.fixture
def tools(capfdbinary: pytest.CaptureFixture[bytes]) -> Tools:
    return Tools(capfdbinary)


def qemu_img(*words: str | bytes) -> None:
    subprocess.run([needs.program("qemu-img"), *words], check=True, capture_output=True)


def qemu_io(fmt: str, name: str, *commands: str) -> None:
    line = [needs.program("qemu-io"), "-f", fmt, *(w for c in commands for w in ("-c", c)), name]
    subprocess.run(line, check=True, capture_output=True)


ODD = b"n\xc3\xbc \xff,x\n.qcow2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus: images that the real tools have made."""
    folder = tmp_path_factory.mktemp("corpus")
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_raw()
        make_qcow2()
    finally:
        os.chdir(before)
    return folder


def make_raw() -> None:
    Path("full.raw").write_bytes(b"full" * (300 << 10))
    Path("empty.raw").write_bytes(b"")
    Path("odd.raw").write_bytes(b"x" * 700)
    qemu_img("create", "-f", "raw", "sparse.raw", "3M")
    qemu_io("raw", "sparse.raw", "write -P 1 64k 100k", "write -P 2 2M 4k")
    for name, change in (("longer.raw", ""), ("other.raw", "write -P 9 80000 1")):
        Path(name).write_bytes(Path("sparse.raw").read_bytes() + bytes(1 << 20))
        if change:
            qemu_io("raw", name, change)
    Path("tail.raw").write_bytes(Path("longer.raw").read_bytes()[:-1] + b"!")
    qemu_img("create", "-f", "raw", "huge.raw", "1T")
    qemu_io("raw", "huge.raw", "write -P 1 900G 64k")


def make_qcow2() -> None:
    qemu_img("create", "-f", "qcow2", "base.qcow2", "10M")
    qemu_io("qcow2", "base.qcow2", "write -P 3 64k 100k", "write -P 5 3M 1M", "write -z 1M 256k")
    qemu_img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", "12M")
    qemu_io("qcow2", "top.qcow2", "write -P 6 0 64k", "write -z 3M 64k", "write -P 7 11M 64k")
    qemu_img("create", "-f", "qcow2", "-b", "top.qcow2", "-F", "qcow2", "./a:b c.qcow2")
    qemu_img("create", "-f", "qcow2", "-b", "sparse.raw", "-F", "raw", ODD, "5M")
    # One cluster, in both: what is compressed has no place that could be told.
    Path("small.raw").write_bytes(b"abcd" * (16 << 10))
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "small.raw", "small.qcow2")
    # Neighbours for the guest, but not in the file.
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=512", "mixed.qcow2", "64k")
    qemu_io("qcow2", "mixed.qcow2", *(f"write -P 1 {at * 512} 512" for at in (70, 64, 63, 65, 62)))
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10,cluster_size=4k", "old.qcow2", "700k")
    qemu_img("create", "-f", "qcow2", "-o", "lazy_refcounts=on,refcount_bits=1", "lazy.qcow2", "1T")
    qemu_img("create", "-f", "qcow2", "-o", "preallocation=metadata", "pre.qcow2", "4M")
    qemu_img("convert", "-O", "qcow2", "sparse.raw", "same.qcow2")
    qemu_img("create", "-f", "qcow2", "-u", "-b", "gone.raw", "-F", "raw", "orphan.qcow2", "1M")
    qemu_img("create", "-f", "qcow2", "loop.qcow2", "1M")
    qemu_img("rebase", "-u", "-b", "loop.qcow2", "-F", "qcow2", "loop.qcow2")


IMAGES = [
    *("full.raw", "empty.raw", "odd.raw", "sparse.raw", "huge.raw", "base.qcow2", "top.qcow2"),
    *("./a:b c.qcow2", "file:a:b c.qcow2", os.fsdecode(ODD), "old.qcow2", "lazy.qcow2"),
    *("pre.qcow2", "orphan.qcow2", "loop.qcow2", "small.qcow2", "mixed.qcow2"),
    'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}',
    'json:{"driver":"qcow2","l2-cache-size":"1M","file":{"driver":"file","filename":"top.qcow2"}}',
    "null-co://",
    'json:{"driver":"raw","offset":65536,"size":131072,"file.filename":"sparse.raw"}',
]


@pytest.mark.parametrize("image", IMAGES)
def test_info_is_the_same_text_and_the_same_json(
    folder: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    monkeypatch.chdir(folder)
    tools.agree("info", image)
    tools.agree("info", "--output=json", image)
    tools.agree("info", "--backing-chain", "-U", image)
    tools.agree("info", "--backing-chain", "--output=json", image)


# A loop has no end that both tools would find at the same depth.
@pytest.mark.parametrize("image", [image for image in IMAGES if image != "loop.qcow2"])
def test_a_map_is_the_same_text_and_the_same_json(
    folder: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    monkeypatch.chdir(folder)
    tools.agree("map", image)
    tools.agree("map", "--output=json", image)
    tools.agree("map", "--output=json", "--start-offset=70000", "--max-length=3M", image)
    tools.agree("map", "-s", "20M", image)


PAIRS = [
    ("sparse.raw", "sparse.raw"),
    ("sparse.raw", "same.qcow2"),
    ("same.qcow2", "sparse.raw"),
    ("sparse.raw", "longer.raw"),
    ("longer.raw", "other.raw"),
    ("sparse.raw", "tail.raw"),
    ("tail.raw", "sparse.raw"),
    ("base.qcow2", "top.qcow2"),
    ("top.qcow2", "./a:b c.qcow2"),
    ("full.raw", "sparse.raw"),
    ("empty.raw", "full.raw"),
    ("odd.raw", "empty.raw"),
    ("lazy.qcow2", "huge.raw"),
    ("orphan.qcow2", "full.raw"),
    ("sparse.raw", os.fsdecode(ODD)),
    ("small.raw", "small.qcow2"),
]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("flags", [[], ["-s"], ["-q"]], ids=["plain", "strict", "quiet"])
def test_two_images_compare_the_same(
    folder: Path,
    tools: Tools,
    monkeypatch: pytest.MonkeyPatch,
    pair: tuple[str, str],
    flags: list[str],
) -> None:
    monkeypatch.chdir(folder)
    tools.agree("compare", *flags, *pair)


def test_progress_is_told_in_the_same_lines(
    folder: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    status, out, _ = tools.agree("compare", "-p", "sparse.raw", "same.qcow2")
    assert status == 0
    assert b"(100.00/100%)\r" in out


@pytest.mark.parametrize(
    "line", [line.strip() for line in MISTAKES.strip().replace("\n", "|").split("|")]
)
def test_a_wrong_line_gets_the_same_answer(
    folder: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(folder)
    status, _, err = tools.agree(*shlex.split(line))
    assert "help" in line or (status != 0 and err)


CONVERSIONS = {
    "raw": "-O raw",
    "raw, sparse from 64 KiB on": "-O raw -S 64k",
    "raw, sparse from 12 KiB on": "-O raw -S 12k",
    "raw, everything written": "-O raw -S 0",
    "raw, in any order": "-O raw -W -m 16",
    "raw, without the cache": "-O raw -t none -T none",
    "qcow2": "-O qcow2",
    "qcow2, everything written": "-O qcow2 -S 0",
    "qcow2, small clusters": "-O qcow2 -o cluster_size=4k",
    "qcow2, prepared": "-O qcow2 -o preallocation=metadata",
}
# Zeroes of all kinds: short, long, at the edges of blocks, in files and in clusters.
WRITES = (
    *("write -P 1 0 4M", "write -z 1M 1M", "write -P 0 3M 12k", "write -P 0 3200k 4k"),
    *("write -P 0 3500001 5000", "write -P 7 5M 512", "write -P 8 6291457 70000"),
)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own, with two images that hold the same."""
    monkeypatch.chdir(tmp_path)
    for fmt in ("raw", "qcow2"):
        qemu_img("create", "-f", fmt, f"disk.{fmt}", "7M")
        qemu_io(fmt, f"disk.{fmt}", *WRITES)
    return tmp_path


@pytest.mark.parametrize("source", ["raw", "qcow2"])
@pytest.mark.parametrize("line", CONVERSIONS.values(), ids=CONVERSIONS)
def test_a_converted_image_has_the_same_data_and_holes(
    work: Path, tools: Tools, source: str, line: str
) -> None:
    words = ["convert", "-f", source, *line.split(), f"disk.{source}"]
    assert tools.theirs([*words, "theirs"]) == (0, b"", b"")
    assert tools.mine([*words, "mine"]) == (0, b"", b"")
    fmt = "qcow2" if "qcow2" in line else "raw"
    qemu_img("compare", "-s", "-f", fmt, "-F", fmt, "theirs", "mine")
    qemu_img("compare", "-f", "raw", "-F", fmt, "disk.raw", "mine")
    if fmt == "qcow2":
        qemu_img("check", "-f", "qcow2", "mine")


def test_with_a_backing_file_only_the_layer_is_copied(work: Path, tools: Tools) -> None:
    qemu_img("create", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "top.qcow2", "8M")
    qemu_io("qcow2", "top.qcow2", "write -P 9 64k 64k", "write -z 2M 64k", "write -P 4 7M 64k")
    line = ["-O", "qcow2", "-B", "disk.raw", "-F", "raw", "top.qcow2"]
    for name, tool in (("theirs", tools.theirs), ("mine", tools.mine)):
        assert tool(["convert", *line, name]) == (0, b"", b"")
    qemu_img("compare", "-s", "theirs", "mine")
    qemu_img("compare", "top.qcow2", "mine")


def test_several_images_become_one(work: Path, tools: Tools) -> None:
    Path("odd.raw").write_bytes(b"odd" * 1000)
    words = ["convert", "-O", "qcow2", "-f", "raw", "odd.raw", "disk.raw", "odd.raw"]
    for name, tool in (("theirs", tools.theirs), ("mine", tools.mine)):
        assert tool([*words, name])[0] == 0
    # Not -s: what lies in a cluster behind the data is a hole of our file, and not of theirs.
    qemu_img("compare", "theirs", "mine")


@pytest.mark.parametrize("flags", ["-n", "-n --target-is-zero", "-n -S 0"])
def test_an_existing_target_is_filled(work: Path, tools: Tools, flags: str) -> None:
    for name, tool in (("theirs", tools.theirs), ("mine", tools.mine)):
        qemu_img("create", "-f", "qcow2", name, "9M")
        if "zero" not in flags:
            qemu_io("qcow2", name, "write -P 5 0 9M")
        assert tool(["convert", *flags.split(), "-O", "qcow2", "disk.raw", name]) == (0, b"", b"")
    qemu_img("compare", "theirs", "mine")
    qemu_img("check", "mine")


def test_progress_of_a_copy_ends_as_theirs(work: Path, tools: Tools) -> None:
    theirs = tools.theirs(["convert", "-p", "-O", "raw", "disk.qcow2", "theirs"])
    mine = tools.mine(["convert", "-p", "-O", "raw", "disk.qcow2", "mine"])
    assert mine == theirs


CONVERT_MISTAKES = """
convert | convert disk.raw | convert nope x | convert -f raw disk.raw disk.raw | convert -O nope disk.raw x
convert -f raw -n disk.raw disk.raw | convert -c -O raw disk.raw x | convert -S 7 disk.raw x
convert -m 17 disk.raw x | convert -m z disk.raw x | convert -l snap disk.raw x | convert -r z disk.raw x
convert --bitmaps disk.raw x | convert -C -c disk.raw x | convert -C -S 4k disk.raw x
convert -C --salvage disk.raw x | convert --target-image-opts disk.raw x | convert -n -o a=1 disk.raw x
convert --target-is-zero disk.raw x | convert -T foo disk.raw x | convert -t foo disk.raw x
convert -n disk.raw nope | convert -n -f raw disk.raw small.raw | convert -o foo=1 disk.raw x
convert -B disk.raw -O qcow2 disk.raw x | convert -B disk.raw -F raw disk.raw x
convert -O qcow2 -c -o preallocation=metadata disk.raw x | convert -B '' -O qcow2 disk.raw x
convert -O qcow2 -F raw disk.raw x | convert -O qcow2 -o cluster_size=3 disk.raw x
convert disk.raw nope/x | convert -O qcow2 -B a -F raw disk.raw disk.raw x | convert -o help | convert -o help a b
"""  # noqa: E501


@pytest.mark.parametrize(
    "line", [line.strip() for line in CONVERT_MISTAKES.strip().replace("\n", "|").split("|")]
)
def test_a_wrong_copy_gets_the_same_answer(work: Path, tools: Tools, line: str) -> None:
    before = Path("disk.raw").read_bytes()
    qemu_img("create", "-f", "raw", "small.raw", "1M")
    status, _, err = tools.agree(*shlex.split(line))
    assert "help" in line or (status != 0 and err)
    assert Path("disk.raw").read_bytes() == before


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
"""  # noqa: E501


@pytest.mark.parametrize(
    "line", [line.strip() for line in OTHER_MISTAKES.strip().replace("\n", "|").split("|")]
)
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


@pytest.mark.parametrize(
    "line", [line.strip() for line in MEASURES.strip().replace("\n", "|").split("|")]
)
def test_an_image_to_be_is_as_large(work: Path, tools: Tools, line: str) -> None:
    qemu_io("raw", "disk.raw", "write -P 9 5500k 10k")  # begins and ends within clusters
    tools.agree("measure", *line.split())


def make_chain() -> None:
    """top.qcow2 (8M) over mid.qcow2 (5M) over base.qcow2 (7M), and another.raw (6M)."""
    qemu_img("convert", "-O", "qcow2", "disk.raw", "base.qcow2")
    qemu_img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "mid.qcow2", "5M")
    qemu_img("create", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", "8M")
    qemu_io("qcow2", "mid.qcow2", "write -P 3 0 64k", "write -z 64k 64k", "write -P 4 2M 300k")
    qemu_io("qcow2", "top.qcow2", "write -P 5 64k 4k", "write -P 6 6M 1M", "write -z 2M 64k")
    Path("another.raw").write_bytes(Path("disk.raw").read_bytes()[: 6 << 20])


REBASES = ["base.qcow2 qcow2", "another.raw raw", "disk.raw raw", "mid.qcow2 qcow2"]


@pytest.mark.parametrize("target", REBASES)
@pytest.mark.parametrize("tool", ["mine", "theirs"])
def test_a_rebased_image_reads_as_before(work: Path, tools: Tools, target: str, tool: str) -> None:
    make_chain()
    qemu_img("convert", "-O", "raw", "top.qcow2", "before.raw")
    backing, fmt = target.split()
    line = ["rebase", "-b", backing, "-F", fmt, "top.qcow2"]
    assert getattr(tools, tool)(line) == (0, b"", b"")
    qemu_img("compare", "before.raw", "top.qcow2")
    qemu_img("check", "top.qcow2")
    info = tools.theirs(["info", "-U", "top.qcow2"])[1].decode()
    assert f"backing file: {backing}\nbacking file format: {fmt}\n" in info


def test_an_image_can_stand_alone(work: Path, tools: Tools) -> None:
    make_chain()
    qemu_img("convert", "-O", "raw", "top.qcow2", "before.raw")
    assert tools.mine(["rebase", "-b", "", "top.qcow2"]) == (0, b"", b"")
    for name in ("mid.qcow2", "base.qcow2"):
        Path(name).unlink()
    qemu_img("compare", "before.raw", "top.qcow2")
    assert b"backing" not in tools.theirs(["info", "top.qcow2"])[1]


def test_an_unsafe_rebase_changes_the_name_and_nothing_else(work: Path, tools: Tools) -> None:
    make_chain()
    for name in ("base.qcow2", "mid.qcow2"):
        Path(name).rename(f"moved-{name}")
    before = Path("top.qcow2").stat().st_size
    line = ["rebase", "-u", "-b", "moved-mid.qcow2", "-F", "qcow2", "top.qcow2"]
    assert tools.mine(line) == (0, b"", b"")
    info = tools.theirs(["info", "top.qcow2"])[1]
    assert b"backing file: moved-mid.qcow2\nbacking file format: qcow2\n" in info
    assert Path("top.qcow2").stat().st_size == before


@pytest.mark.parametrize("flags", ["", "-d", "-b mid.qcow2", "-b base.qcow2", "-b ./base.qcow2"])
def test_a_committed_image_is_in_its_base(work: Path, tools: Tools, flags: str) -> None:
    make_chain()
    qemu_img("convert", "-O", "raw", "top.qcow2", "before.raw")
    status, out, err = tools.mine(["commit", *flags.split(), "top.qcow2"])
    assert (status, out, err) == (0, b"Image committed.\n", b"")
    base = "base.qcow2" if "base" in flags else "mid.qcow2"
    qemu_img("compare", "before.raw", base)
    qemu_img("compare", "before.raw", "top.qcow2")
    qemu_img("check", base)
    qemu_img("check", "top.qcow2")
    is_empty = (
        b'"depth": 0, "present": true' not in tools.theirs(["map", "--output=json", "top.qcow2"])[1]
    )
    assert is_empty == (not flags)


OF_A_CHAIN = """
commit | commit base.qcow2 | commit -t foo top.qcow2 | commit -b nope top.qcow2 | commit nope
rebase -b x | rebase top.qcow2 | rebase -b disk.raw top.qcow2 | rebase -b a -F foo top.qcow2
rebase -u -b disk.raw top.qcow2 | rebase -b nope -F raw top.qcow2 | rebase -t foo -b a top.qcow2
rebase -T foo -b a top.qcow2 | rebase -f raw -u -b a -F raw disk.raw | rebase -b a nope
"""


@pytest.mark.parametrize(
    "line", [line.strip() for line in OF_A_CHAIN.strip().replace("\n", "|").split("|")]
)
def test_what_commit_and_rebase_refuse(work: Path, tools: Tools, line: str) -> None:
    make_chain()
    Path("before.qcow2").write_bytes(Path("top.qcow2").read_bytes())
    status, _, err = tools.agree(*line.split())
    assert status != 0
    assert err
    qemu_img("compare", "before.qcow2", "top.qcow2")


BROKEN = 5 << 20


def broken(name: str, event: str) -> str:
    """Options of an image of which one sector cannot be read or written."""
    sector = f"file.inject-error.0.sector={BROKEN // 512}"
    error = f"file.inject-error.0.event={event},{sector}"
    return f"driver=raw,file.driver=blkdebug,file.image.filename={name},{error}"


# With one worker the buffer has held other data before.
@pytest.mark.parametrize("flags", ["", "-W", "-m 1", "--salvage", "--salvage -m 1", "--salvage -q"])
def test_a_source_that_cannot_be_read_is_told(work: Path, tools: Tools, flags: str) -> None:
    Path("full.raw").write_bytes(b"x" * (7 << 20))
    source = ["--image-opts", broken("full.raw", "read_aio")]
    said, made = [], []
    for tool in (tools.theirs, tools.mine):
        said.append(tool(["convert", *flags.split(), *source, "copy.raw"]))
        made.append(Path("copy.raw").read_bytes())
    assert said[0] == said[1]
    assert said[0][0] == (0 if "salvage" in flags else 1)
    if "salvage" in flags:
        assert made[0] == made[1]
        assert made[1][BROKEN : BROKEN + 512] == bytes(512)
        assert made[1].count(0) == 512


def test_a_target_that_cannot_be_written_is_told(work: Path, tools: Tools) -> None:
    Path("full.raw").write_bytes(b"x" * (7 << 20))
    before = Path("full.raw").read_bytes()
    qemu_img("create", "-f", "raw", "copy.raw", "7M")
    target = ["--target-image-opts", broken("copy.raw", "write_aio")]
    status, _, err = tools.agree("convert", "-n", "-f", "raw", *target[:1], "full.raw", target[1])
    assert status == 1
    assert err == b"qemu-img: error while writing at byte 4194304: Input/output error\n"
    assert Path("full.raw").read_bytes() == before


def test_images_that_cannot_be_compared_end_with_4(work: Path, tools: Tools) -> None:
    Path("full.raw").write_bytes(b"x" * (7 << 20))
    whole, half = "driver=raw,file.filename=full.raw", broken("full.raw", "read_aio")
    assert tools.agree("compare", "--image-opts", whole, half)[0] == 4
    assert tools.agree("compare", "--image-opts", half, whole)[0] == 4


@pytest.mark.parametrize("line", ["-x", "-Ux", "--nothing", "-f", "--size", "--image-opts=a"])
def test_measure_answers_a_wrong_option_with_the_help(work: Path, tools: Tools, line: str) -> None:
    theirs, mine = tools.theirs(["measure", line]), tools.mine(["measure", line])
    assert (mine[0], mine[2]) == (theirs[0], theirs[2])
    assert b"Command syntax:" in mine[1]
