# SPDX-License-Identifier: GPL-2.0-only
"""vmdk images, ours and the real QEMU's: each reads what the other wrote, and finds no fault."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest

import block
from block.core import flags as f
from miniqemu.cli.img import main as img
from tests.samples.vmdk import several_files
from tests.support.qcow2_work import OurImage, Work, qemu_io
from tests.support.qemu_tools import holds, is_clean, qemu, qemu_done
from tests.support.vmdk_images import cowd, descriptor, exported

GRAIN = 65536
SIZE = (8 << 20) + 7 * 512  # no whole number of grains
GIB = 1 << 30

KINDS: dict[str, dict[str, str]] = {
    "sparse": {},
    "zeroed": {"zeroed_grain": "on"},
    "flat": {"subformat": "monolithicFlat"},
    "split": {"subformat": "twoGbMaxExtentSparse", "compat6": "on"},
    "split flat": {"subformat": "twoGbMaxExtentFlat", "adapter_type": "lsilogic"},
}
OVERLAYS = [("sparse", True), ("zeroed", True), ("split", True)]
ALL = [(kind, False) for kind in KINDS] + OVERLAYS


def spelled(options: dict[str, str]) -> list[str]:
    """Options for qemu-img."""
    return ["-o", ",".join(f"{name}={value}" for name, value in options.items())] * bool(options)


def make(folder: Path, options: dict[str, str], backing: bool, by_qemu: bool) -> tuple[Path, bytes]:
    """A new image, and what it reads as."""
    image, base = folder / "a.vmdk", b""
    if backing:
        base = random.Random(5).randbytes(SIZE // 2 + 3 * 512)
        (folder / "base.raw").write_bytes(base)
        command = ["convert", "-f", "raw", "-O", "vmdk", folder / "base.raw", folder / "base.vmdk"]
        qemu_done("qemu-img", *command)
        options = {**options, "backing_file": "base.vmdk", "backing_fmt": "vmdk"}
    if by_qemu:
        qemu_done("qemu-img", "create", "-q", "-f", "vmdk", *spelled(options), image, str(SIZE))
    else:
        block.create(os.fspath(image), "vmdk", SIZE, **options)
    return image, base


def ours(image: Path, work: Work) -> OurImage:
    return OurImage(image, work, fmt="vmdk")


def do_work(image: Path, work: Work, count: int) -> None:
    """Random operations on the image and the model; all is compared at the end."""
    disk = ours(image, work)
    try:
        for op in work.ops(count):
            if op.what != "discard":
                disk.apply(op)
    finally:
        disk.close()


@pytest.mark.full
@pytest.mark.parametrize(("kind", "backing"), ALL)
def test_random_operations_leave_a_clean_and_equal_image(
    tmp_path: Path, kind: str, backing: bool
) -> None:
    image, base = make(tmp_path, KINDS[kind], backing, by_qemu=False)
    work = Work(len(kind) + backing, SIZE, GRAIN, base)
    do_work(image, work, 400)
    is_clean(image, "vmdk")
    holds(image, work.model, "vmdk")


@pytest.mark.full
@pytest.mark.parametrize(("kind", "backing"), ALL)
def test_what_qemu_writes_we_read_and_go_on_with(tmp_path: Path, kind: str, backing: bool) -> None:
    """QEMU creates and writes, we read and write, QEMU checks and reads."""
    image, base = make(tmp_path, KINDS[kind], backing, by_qemu=True)
    work = Work(40 + len(kind) + backing, SIZE, GRAIN, base)
    commands: list[str] = []
    for op in work.ops(100):
        command = qemu_io(op)
        if command and op.what != "discard":
            commands += ["-c", command]
            work.note(op)
    qemu_done("qemu-io", "-f", "vmdk", "-t", "unsafe", *commands, image)
    do_work(image, work, 100)
    is_clean(image, "vmdk")
    holds(image, work.model, "vmdk")


@pytest.mark.full
def test_a_disk_of_three_extents_reads_as_qemu_reads_it(tmp_path: Path) -> None:
    """Whole grains in each: at the end of half of one QEMU reads the wrong extent."""
    pieces = (("SPARSE", 6 * GRAIN), ("FLAT", 3 * GRAIN), ("SPARSE", 7 * GRAIN))
    image = several_files(tmp_path, pieces)
    work = Work(9, 16 * GRAIN, GRAIN)
    do_work(image, work, 300)
    is_clean(image, "vmdk")
    holds(image, work.model, "vmdk")


@pytest.mark.full
@pytest.mark.parametrize("subformat", ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_a_write_across_the_end_of_an_extent_goes_to_both_files(
    tmp_path: Path, subformat: str
) -> None:
    image = tmp_path / "a.vmdk"
    block.create(os.fspath(image), "vmdk", "5G", subformat=subformat)
    letter = "s" if subformat.endswith("Sparse") else "f"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *(f"a-{letter}00{number}.vmdk" for number in (1, 2, 3)),
        "a.vmdk",
    ]
    with block.open(os.fspath(image), format="vmdk", cache="unsafe") as disk:
        disk.pwrite(2 * GIB - 100_000, b"w" * 300_000)
    place = 4 * GIB - 70_000
    commands = ["-c", f"read -P 119 {2 * GIB - 100_000} 300000", "-c", f"write -P 7 {place} 140000"]
    said = qemu_done("qemu-io", "-f", "vmdk", "-t", "unsafe", *commands, image)
    assert "verification failed" not in said
    with block.open(os.fspath(image), format="vmdk", read_only=True) as disk:
        assert disk.pread(place - 1, 140_002) == b"\0" + b"\7" * 140_000 + b"\0"
    is_clean(image, "vmdk")


# -- new images


def without_cid(image: Path) -> tuple[bytes, ...]:
    """What stands in a file, but for the CID, which is another one for each image."""
    data = image.read_bytes()
    split = 21 * 512 if data.startswith(b"KDMV") else len(data)
    start = 512 if data.startswith(b"KDMV") else 0
    text = re.sub(rb"\nCID=[0-9a-f]{1,8}\n", b"\nCID=?\n", data[start:split].rstrip(b"\0"))
    return data[:start], text, data[split:]


@pytest.mark.full
@pytest.mark.parametrize(
    "options",
    [
        *KINDS.values(),
        {"subformat": "streamOptimized"},
        {"subformat": "streamOptimized", "zeroed_grain": "on"},
        {"hwversion": "9", "toolsversion": "77", "adapter_type": "legacyESX"},
        {"adapter_type": "buslogic", "compat6": "off"},
        {"backing_file": "base.vmdk", "backing_fmt": "vmdk"},
    ],
    ids=lambda options: " ".join(options.values()) or "default",
)
def test_a_new_image_is_qemus_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "theirs").mkdir()
    monkeypatch.chdir(tmp_path)
    qemu_done("qemu-img", "create", "-q", "-f", "vmdk", "mine/base.vmdk", "1M")
    Path("theirs/base.vmdk").write_bytes(Path("mine/base.vmdk").read_bytes())
    block.create("mine/a.vmdk", "vmdk", "100M", **options)
    qemu_done("qemu-img", "create", "-q", "-f", "vmdk", *spelled(options), "theirs/a.vmdk", "100M")
    theirs = {path.name: without_cid(path) for path in Path("theirs").iterdir()}
    assert {path.name: without_cid(path) for path in Path("mine").iterdir()} == theirs


@pytest.mark.full
@pytest.mark.parametrize(
    "options",
    [
        {"subformat": "monolithic"},
        {"adapter_type": "scsi"},
        {"compat6": "on", "hwversion": "5"},
        {"subformat": "monolithicFlat", "zeroed_grain": "on"},
        {"subformat": "twoGbMaxExtentFlat", "backing_file": "base.vmdk", "backing_fmt": "vmdk"},
        {"backing_file": "base.vmdk", "backing_fmt": "raw"},
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()),
)
def test_what_cannot_be_created_is_refused_in_qemus_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    qemu_done("qemu-img", "create", "-q", "-f", "vmdk", "base.vmdk", "1M")
    with pytest.raises(block.BlockError) as caught:
        block.create("mine", "vmdk", "1M", **options)
    assert not (tmp_path / "mine").exists()
    said = qemu("qemu-img", "create", "-f", "vmdk", *spelled(options), "theirs", "1M").stderr
    assert said == f"qemu-img: theirs: {caught.value}\n"


# -- compressed grains


def packed_data() -> bytes:
    """Bytes of which some pack well, some not at all, and some are zero."""
    source = random.Random(11)
    kinds = (bytes(GRAIN), b"packs" * (GRAIN // 5) + b".", source.randbytes(GRAIN))
    return b"".join(source.choice(kinds) for _ in range(40)) + b"end".ljust(512, b"!")


@pytest.mark.full
def test_a_compressed_image_of_qemus_is_read(tmp_path: Path) -> None:
    plain, image, data = tmp_path / "plain", tmp_path / "a.vmdk", packed_data()
    plain.write_bytes(data)
    options = spelled({"subformat": "streamOptimized"})
    qemu_done("qemu-img", "convert", "-f", "raw", "-O", "vmdk", *options, plain, image)
    with block.open(os.fspath(image), format="vmdk", read_only=True) as disk:
        assert disk.pread(0, len(data)) == data
        assert disk.pread(3 * GRAIN + 5, 2 * GRAIN) == data[3 * GRAIN + 5 :][: 2 * GRAIN]


@pytest.mark.full
def test_a_compressed_image_of_ours_is_read_by_qemu(tmp_path: Path) -> None:
    image, data = tmp_path / "a.vmdk", packed_data()
    block.create(os.fspath(image), "vmdk", len(data), subformat="streamOptimized")
    with block.open(os.fspath(image), format="vmdk") as disk:
        disk.pwrite(0, data)
    is_clean(image, "vmdk")
    holds(image, data, "vmdk")
    assert image.stat().st_size < len(data)


@pytest.mark.full
@pytest.mark.parametrize("subformat", ["streamOptimized", "monolithicSparse"])
@pytest.mark.parametrize("words", [[], ["-c"], ["-S", "0"], ["-W", "-m", "16"]], ids=" ".join)
def test_what_we_convert_is_read_by_qemu(tmp_path: Path, subformat: str, words: list[str]) -> None:
    """A streamOptimized target takes whole grains only: data and holes end anywhere."""
    plain, image = tmp_path / "plain", tmp_path / "a.vmdk"
    source = random.Random(3)
    size = (4 << 20) + 3 * 512
    with plain.open("wb") as file:
        for _ in range(30):
            file.seek(source.randrange(size))
            file.write(source.randbytes(source.randrange(1, 9000)))
        file.truncate(size)
    options = ["-O", "vmdk", "-o", f"subformat={subformat}"]
    assert img.main(["miniqemu-img", "convert", *words, "-f", "raw", *options,
                     os.fspath(plain), os.fspath(image)]) == 0  # fmt: skip
    is_clean(image, "vmdk")
    holds(image, plain.read_bytes(), "vmdk")


@pytest.mark.full
@pytest.mark.parametrize(
    "words",
    [["-c", "-O", "vmdk", "-o", "subformat=monolithicFlat"], ["-c", "-O", "raw"]],
    ids=" ".join,
)
def test_what_cannot_be_compressed_is_refused_in_qemus_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (tmp_path / "plain").write_bytes(b"x" * GRAIN)
    line = ["convert", *words, "-f", "raw", os.fspath(tmp_path / "plain")]
    status = img.main(["qemu-img", *line, os.fspath(tmp_path / "mine")])
    theirs = qemu("qemu-img", *line, tmp_path / "theirs")
    assert (status, capfd.readouterr().err) == (theirs.returncode, theirs.stderr)


@pytest.mark.full
def test_two_images_become_one_compressed_one(tmp_path: Path) -> None:
    """A grain may have bytes of both."""
    first, second, image = (tmp_path / name for name in ("first", "second", "a.vmdk"))
    first.write_bytes(b"1" * (3 * GRAIN + 512))
    second.write_bytes(b"2" * (2 * GRAIN))
    command = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    names = [os.fspath(path) for path in (first, second, image)]
    assert img.main(["miniqemu-img", *command, *names]) == 0
    holds(image, first.read_bytes() + second.read_bytes(), "vmdk")


@pytest.mark.full
def test_an_export_of_vmwares_is_read_as_qemu_reads_it(tmp_path: Path) -> None:
    """With its tables and its header at the end."""
    data, image = packed_data(), tmp_path / "a.vmdk"
    grains = {n: data[n * GRAIN :][:GRAIN] for n in range(0, 40, 3)}
    image.write_bytes(exported(grains, len(data)))
    model = bytearray(len(data))
    for number, grain in grains.items():
        model[number * GRAIN : (number + 1) * GRAIN] = grain
    holds(image, model, "vmdk")
    with block.open(os.fspath(image), format="vmdk", read_only=True) as disk:
        assert disk.pread(0, len(data)) == model


@pytest.mark.full
def test_a_disk_of_esx_is_written_and_qemu_reads_it(tmp_path: Path) -> None:
    """It has no table at first; each covers 16 MiB."""
    sectors = (40 << 20) // 512
    (tmp_path / "a-delta.vmdk").write_bytes(cowd(sectors, grain=8))
    image = tmp_path / "a.vmdk"
    image.write_text(descriptor("vmfsSparse", f'RW {sectors} VMFSSPARSE "a-delta.vmdk"'))
    work = Work(31, sectors * 512, 4096)
    do_work(image, work, 150)
    is_clean(image, "vmdk")
    holds(image, work.model, "vmdk")


# -- chains


@pytest.mark.full
def test_a_backing_file_that_was_written_to_is_refused_by_both(tmp_path: Path) -> None:
    image, base = make(tmp_path, {}, backing=True, by_qemu=False)
    with block.open(os.fspath(image), format="vmdk") as disk:
        assert disk.pread(0, len(base)) == base
    with block.open(os.fspath(tmp_path / "base.vmdk"), format="vmdk") as disk:
        disk.pwrite(0, b"changed")
    with (
        block.open(os.fspath(image), format="vmdk", read_only=True) as disk,
        pytest.raises(block.BlockError, match="parentCID"),
    ):
        disk.pread(0, 512)
    assert (
        "read failed: Invalid argument"
        in qemu("qemu-io", "-r", "-f", "vmdk", "-c", "read 0 512", image).stdout
        + qemu("qemu-io", "-r", "-f", "vmdk", "-c", "read 0 512", image).stderr
    )


@pytest.mark.full
def test_our_base_takes_qemus_overlay_and_the_other_way_round(tmp_path: Path) -> None:
    base, middle, top = (tmp_path / f"{name}.vmdk" for name in ("base", "middle", "top"))
    block.create(os.fspath(base), "vmdk", SIZE)
    with block.open(os.fspath(base), format="vmdk") as disk:
        disk.pwrite(0, b"b" * GRAIN * 3)
    qemu_done("qemu-img", "create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", middle)
    qemu_done("qemu-io", "-f", "vmdk", "-c", "write -P 109 70000 1000", middle)
    block.create(os.fspath(top), "vmdk", SIZE, backing_file="middle.vmdk", backing_fmt="vmdk")
    with block.open(os.fspath(top), format="vmdk") as disk:
        disk.pwrite(71_500, b"t" * 100)
        data = disk.pread(0, SIZE)
    model = bytearray(b"b" * GRAIN * 3).ljust(SIZE, b"\0")
    model[70_000:71_000] = b"m" * 1000
    model[71_500:71_600] = b"t" * 100
    assert data == model
    holds(top, model, "vmdk")


@pytest.mark.full
@pytest.mark.parametrize("kind", ["sparse", "zeroed", "split"])
def test_the_map_of_an_image_is_qemus(tmp_path: Path, kind: str) -> None:
    image, base = make(tmp_path, KINDS[kind], backing=True, by_qemu=False)
    work = Work(21, SIZE, GRAIN, base)
    do_work(image, work, 40)
    theirs = {}
    for row in json.loads(qemu_done("qemu-img", "map", "--output=json", "-f", "vmdk", image)):
        for sector in range(row["start"] // 512, (row["start"] + row["length"]) // 512):
            theirs[sector] = (row["depth"], row["data"], row["zero"])
    mine = {}
    with block.open(os.fspath(image), format="vmdk", read_only=True) as disk:
        assert disk.bs is not None
        offset = 0
        while offset < SIZE:
            found, length, _, _ = disk.bs.block_status(offset, SIZE - offset)
            inside = disk.bs.is_allocated(offset, length)
            length = min(length, inside[1])
            for sector in range(offset // 512, (offset + length) // 512):
                data, zero = bool(found & f.BDRV_BLOCK_DATA), bool(found & f.BDRV_BLOCK_ZERO)
                mine[sector] = (0 if inside[0] else 1, data, zero)
            offset += length
    unlike = [s for s in theirs if mine[s][1:] != theirs[s][1:]]
    assert not unlike, (unlike[:5], mine[unlike[0]], theirs[unlike[0]])
    assert mine.keys() == theirs.keys()
