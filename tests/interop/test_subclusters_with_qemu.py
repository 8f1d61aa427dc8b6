# SPDX-License-Identifier: GPL-2.0-only
"""Subclusters and data files: the same files, texts and verdicts as the real QEMU's."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

import block
from miniqemu.cli.img import main as img
from tests.support.qcow2_tables import first_l2_in
from tests.support.qcow2_work import OurImage, Work
from tests.support.qemu_tools import qemu, qemu_done

pytestmark = pytest.mark.full

CLUSTER = 65536
COPIED, COMPRESSED = 1 << 63, 1 << 62
TOP = 1 << 32

KINDS: dict[str, dict[str, str]] = {
    "subclusters": {"extended_l2": "on"},
    "16k": {"extended_l2": "on", "cluster_size": "16k", "preallocation": "metadata"},
    "overlay": {"extended_l2": "on", "preallocation": "metadata", "backing_file": "base.raw",
                "backing_fmt": "raw"},
    "data file": {"data_file": "data"},
    "raw": {"data_file": "data", "data_file_raw": "on"},
    "raw subclusters": {"data_file": "data", "data_file_raw": "on", "extended_l2": "on"},
}  # fmt: skip


def spelled(options: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in options.items())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Names in images and in messages are short, and the same for both."""
    monkeypatch.chdir(tmp_path)
    Path("base.raw").write_bytes(b"b" * (1 << 20))
    return tmp_path


def ours(*words: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capfd.readouterr()
    status = img.run_command("qemu-img", list(words))
    said = capfd.readouterr()
    return status, said.out, said.err


def theirs(*words: str) -> tuple[int, str, str]:
    done = qemu("qemu-img", *words)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_image_is_qemus_byte_for_byte_and_so_is_what_is_said(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("create", "-f", "qcow2", "-o", spelled(KINDS[kind]), "a.qcow2", "5M")
    said = theirs(*command)
    made = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert ours(*command, capfd=capfd) == said
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == made


@pytest.mark.parametrize(
    "options",
    [
        {"extended_l2": "on", "compat": "0.10"},
        {"extended_l2": "on", "cluster_size": "8k"},
        {"data_file_raw": "on"},
        {"data_file": "d", "compat": "0.10"},
        {"data_file": "d", "data_file_raw": "on", "backing_file": "base.raw", "backing_fmt": "raw"},
    ],
    ids=spelled,
)
def test_what_cannot_be_is_refused_in_qemus_words(
    options: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("create", "-f", "qcow2", "-o", spelled(options), "a.qcow2", "1M")
    assert ours(*command, capfd=capfd) == theirs(*command)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_told_of_an_image_is_what_qemu_tells(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    size = (2 << 20) + 1024
    block.create("a.qcow2", "qcow2", size, **KINDS[kind])
    cluster = 16384 if kind == "16k" else CLUSTER
    base = b"b" * (1 << 20) if kind == "overlay" else b""
    OurImage(Path("a.qcow2"), Work(7, size, cluster, base)).work_on(40)
    for command in (
        ("info", "a.qcow2"),
        ("info", "--output=json", "a.qcow2"),
        ("map", "a.qcow2"),
        ("map", "--output=json", "a.qcow2"),
        ("check", "a.qcow2"),
        ("check", "--output=json", "a.qcow2"),
        ("measure", "-O", "qcow2", "-o", "extended_l2=on", "a.qcow2"),
        ("measure", "-O", "qcow2", "-o", "data_file=x", "a.qcow2"),
    ):
        assert ours(*command, capfd=capfd) == theirs(*command), command


@pytest.mark.parametrize("size", ["1G", "1T"])
@pytest.mark.parametrize("options", ["extended_l2=on", "extended_l2=on,cluster_size=16k"])
def test_a_new_image_would_be_as_large_as_qemu_says(
    options: str, size: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("measure", "-O", "qcow2", "-o", options, "--size", size)
    assert ours(*command, capfd=capfd) == theirs(*command)


@pytest.mark.parametrize("kind", KINDS)
def test_a_grown_image_is_qemus(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    create = ("create", "-q", "-f", "qcow2", "-o", spelled(KINDS[kind]), "a.qcow2", "1000k")
    found = []
    for run in (theirs, lambda *words: ours(*words, capfd=capfd)):
        assert run(*create)[0] == 0
        assert run("resize", "a.qcow2", "3M")[0] == 0
        maps = theirs("map", "--output=json", "a.qcow2"), theirs("check", "a.qcow2")
        data = Path("data").stat().st_size if "data_file" in KINDS[kind] else 0
        found.append((maps, data))
    assert found[0] == found[1]


def test_an_image_without_its_data_file_is_refused_but_told_of(
    capfd: pytest.CaptureFixture[str],
) -> None:
    qemu_done("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data", "a.qcow2", "1M")
    Path("data").rename("moved")
    named = 'json:{"driver":"qcow2","file.filename":"a.qcow2","data-file.filename":"moved"}'
    wrong = 'json:{"driver":"qcow2","file.filename":"a.qcow2","data-file.filename":"gone"}'
    for words in (("info", "a.qcow2"), ("map", "a.qcow2"), ("map", named), ("info", named),
                  ("check", wrong)):  # fmt: skip
        assert ours(*words, capfd=capfd) == theirs(*words), words


@pytest.mark.parametrize(
    "options",
    [
        "data_file=data",
        "data_file=data,data_file_raw=on",
        "extended_l2=on",
        "extended_l2=on,cluster_size=1M",
    ],
)
def test_what_we_convert_qemu_finds_equal(options: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytes(CLUSTER) + os.urandom(3 * CLUSTER) + bytes(5 * CLUSTER) + os.urandom(1024)
    Path("source").write_bytes(content)
    command = ("convert", "-f", "raw", "-O", "qcow2", "-o", options, "source", "a.qcow2")
    assert ours(*command, capfd=capfd) == (0, "", "")
    qemu_done("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "source", "a.qcow2")
    qemu_done("qemu-img", "check", "a.qcow2")
    if "raw" in options:
        assert Path("data").read_bytes() == content
    assert ours("convert", "-O", "raw", "a.qcow2", "back", capfd=capfd)[0] == 0
    assert Path("back").read_bytes() == content


def test_a_backing_image_may_be_named_with_its_data_file(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In json:, where no option on the command line could reach it."""
    qemu_done("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data", "a.qcow2", "1M")
    qemu_done("qemu-io", "-c", "write -P 5 0 128k", "a.qcow2")
    Path("data").rename("moved")
    base = (
        'json:{"driver":"qcow2","file.driver":"file","file.filename":"a.qcow2",'
        '"data-file.driver":"file","data-file.filename":"moved"}'
    )
    create = ("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", "-o", "data_file=d",
              "top.qcow2")  # fmt: skip
    assert ours(*create, capfd=capfd) == (0, "", "")
    with block.open("top.qcow2", format="qcow2") as disk:
        disk.pwrite(CLUSTER, b"t" * 512)
        assert disk.pread(0, 3 * CLUSTER) == (
            b"\5" * CLUSTER + b"t" * 512 + b"\5" * (CLUSTER - 512) + bytes(CLUSTER)
        )
    for words in (("info", "--backing-chain", "top.qcow2"), ("map", "--output=json", "top.qcow2")):
        assert ours(*words, capfd=capfd) == theirs(*words)
    assert ours("commit", "top.qcow2", capfd=capfd)[0] == 0
    assert Path("moved").read_bytes()[CLUSTER:][:512] == b"t" * 512
    assert theirs("check", base)[0] == 0


# guest cluster, what becomes of its entry (None: stays), its new bitmap (None: stays)
DAMAGES: dict[str, tuple[int, int | None, int | None]] = {
    "both bits": (0, None, TOP | 1),
    "allocated without a cluster": (3, None, 1),
    "compressed, with bits": (0, COMPRESSED | 5 * CLUSTER, 5),
    "an odd place for zeroes": (0, COPIED | 5 * CLUSTER + 512, 0xFFFF_FFFF << 32),
    "an odd place for data": (0, COPIED | 5 * CLUSTER + 512, None),
    "both bits, at an odd place": (0, COPIED | 5 * CLUSTER + 512, TOP | 1),
    "bit 0 of an entry": (0, COPIED | 5 * CLUSTER | 1, None),
}


@pytest.mark.parametrize("fix", [[], ["-r", "all"]], ids=["check", "repair"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_image_gets_qemus_verdict(
    damage: str, fix: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    qemu_done("qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "a.qcow2", "2M")
    qemu_done("qemu-io", "-c", "write 0 128k", "-c", "write 256k 4k", "a.qcow2")
    data = bytearray(Path("a.qcow2").read_bytes())
    guest, entry, bitmap = DAMAGES[damage]
    at = first_l2_in(data) + 16 * guest
    for place, value in ((at, entry), (at + 8, bitmap)):
        if value is not None:
            struct.pack_into(">Q", data, place, value)
    Path("a.qcow2").write_bytes(data)
    Path("b.qcow2").write_bytes(data)
    status, out, err = theirs("check", *fix, "a.qcow2")
    found = ours("check", *fix, "b.qcow2", capfd=capfd)
    assert (found[0], found[1].replace("b.qcow2", "a.qcow2"), sorted(found[2].splitlines())) == (
        status, out, sorted(err.splitlines()),
    )  # fmt: skip
    assert os.path.getsize("a.qcow2") == os.path.getsize("b.qcow2")
    assert Path("a.qcow2").read_bytes() == Path("b.qcow2").read_bytes()
