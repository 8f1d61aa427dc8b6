# SPDX-License-Identifier: GPL-2.0-only
"""External data files: what lies where, raw ones, entries that lie, moves and order."""

from __future__ import annotations

import errno
import os
import random
import struct
from pathlib import Path

import pytest

import block
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.error import BlockError
from block.core.open import open_backend
from block.formats.qcow2.layout import OFLAG_COMPRESSED, OFLAG_COPIED
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.drivers import Outcome, ram_node
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_datafile import data, image, raw_image
from tests.support.qcow2_disk import FLUSH, Tape, TapeRam
from tests.support.qcow2_tables import first_l2_in
from tests.support.qcow2_work import OurImage, Work

__all__ = ["data", "image", "raw_image"]


def poke(path: Path, cluster: int, entry: int) -> None:
    """Changes an entry of the first L2 table."""
    content = bytearray(path.read_bytes())
    struct.pack_into(">Q", content, first_l2_in(content) + 8 * cluster, entry)
    path.write_bytes(content)


# -- what lies where


def test_data_lie_in_their_own_file_at_the_guests_offset(image: Path, data: Path) -> None:
    with block.open(os.fspath(image), format="qcow2") as disk:
        disk.pwrite(3 * CLUSTER, b"three" * 100)
        disk.pwrite(0, b"zero" * 100)
    content = data.read_bytes()
    assert content[3 * CLUSTER :].startswith(b"three" * 100)
    assert content.startswith(b"zero" * 100)
    assert len(content) == SIZE
    assert b"three" not in image.read_bytes()
    assert counts(run_check(image)[0]) == (0, 0, 0)


def test_each_file_is_held_for_what_it_holds(image: Path, opener: Opener) -> None:
    """The image file has no data, so others need not keep from it what only data need."""
    s = state_of(opener())
    assert (s.file.role, s.data.role) == (
        f.BDRV_CHILD_IMAGE & ~f.BDRV_CHILD_DATA, f.BDRV_CHILD_DATA,
    )  # fmt: skip


def test_cluster_0_is_there_although_its_place_is_0(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * 512)
    disk.close()
    disk = opener()
    assert disk.pread(0, 1024) == b"x" * 512 + bytes(512)
    assert disk.pread(0, 1024) == b"x" * 512 + bytes(512), "and from the cache"
    assert disk.bs is not None
    found, nbytes, host, file = disk.bs.block_status(0, SIZE)
    assert found & (f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_OFFSET_VALID)
    assert (nbytes, host) == (CLUSTER, 0)
    assert file is state_of(disk).data.bs


def test_cluster_0_goes_before_the_backing_files(tmp_path: Path, data: Path) -> None:
    (tmp_path / "base.raw").write_bytes(b"b" * SIZE)
    path = tmp_path / "top.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, data_file=os.fspath(data),
                 backing_file="base.raw", backing_fmt="raw")  # fmt: skip
    with block.open(os.fspath(path), format="qcow2") as disk:
        disk.pwrite(0, b"x")
        for _ in range(2):
            assert disk.pread(0, 2 * CLUSTER) == b"x" + b"b" * (2 * CLUSTER - 1)
            assert disk.pread(0, 512) == b"x" + b"b" * 511


def test_a_discard_reaches_the_data_file(image: Path, data: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * 4 * CLUSTER)
    disk.pdiscard(0, 2 * CLUSTER)
    assert disk.pread(0, 4 * CLUSTER) == bytes(2 * CLUSTER) + b"x" * 2 * CLUSTER
    disk.close()
    assert data.read_bytes()[: 4 * CLUSTER] == bytes(2 * CLUSTER) + b"x" * 2 * CLUSTER
    assert counts(run_check(image)[0]) == (0, 0, 0)


@pytest.mark.parametrize("prealloc", ["off", "metadata"])
def test_a_longer_disk_has_a_longer_data_file(
    tmp_path: Path, data: Path, opener: Opener, prealloc: str
) -> None:
    path = tmp_path / "p.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, data_file=os.fspath(data), preallocation=prealloc)
    disk = opener(path)
    disk.truncate(SIZE + 3 * 512, False, prealloc)
    assert disk.pread(SIZE - 512, 4 * 512) == bytes(4 * 512)
    assert data.stat().st_size == SIZE + 3 * 512


@pytest.mark.parametrize("how", [{}, {"extended_l2": True}, {"cluster_size": 4096}], ids=str)
@pytest.mark.parametrize("raw", [False, True], ids=["", "raw"])
def test_random_work_leaves_what_a_bytearray_has(
    tmp_path: Path, data: Path, how: dict[str, object], raw: bool
) -> None:
    path, size = tmp_path / "a.qcow2", SIZE // 2 + 7 * 512
    block.create(
        os.fspath(path), "qcow2", size, data_file=os.fspath(data), data_file_raw=raw, **how
    )
    cluster_size = how.get("cluster_size", CLUSTER)
    assert isinstance(cluster_size, int)
    work = Work(cluster_size + raw, size, cluster_size)
    OurImage(path, work).work_on(150)
    assert counts(run_check(path)[0]) == (0, 0, 0)
    if raw:
        assert data.read_bytes() == work.model


# -- data_file_raw


@pytest.mark.parametrize("pass_down", ["on", "off"])
def test_a_raw_data_file_is_what_the_guest_sees_at_every_moment(
    raw_image: Path, data: Path, opener: Opener, pass_down: str
) -> None:
    disk = opener(raw_image, options={"pass-discard-request": pass_down})
    model = bytearray(SIZE)
    for step, (start, end) in enumerate([(0, 4), (1, 3), (2, 6), (0, 1)]):
        at, nbytes = start * CLUSTER, (end - start) * CLUSTER
        if step % 2:
            disk.pdiscard(at, nbytes)
            model[at : at + nbytes] = bytes(nbytes)
        else:
            disk.pwrite(at + 512, bytes([step + 1]) * (nbytes - 512))
            model[at + 512 : at + nbytes] = bytes([step + 1]) * (nbytes - 512)
        assert data.read_bytes() == model
    disk.pwrite_zeroes(3 * CLUSTER, CLUSTER)
    model[3 * CLUSTER : 4 * CLUSTER] = bytes(CLUSTER)
    assert data.read_bytes() == model == disk.pread(0, SIZE)


def test_what_others_write_into_a_raw_data_file_is_on_the_disk(
    raw_image: Path, data: Path, opener: Opener
) -> None:
    content = random.Random(5).randbytes(SIZE)
    data.write_bytes(content)
    disk = opener(raw_image, read_only=True)
    assert disk.pread(0, SIZE) == content


def test_a_raw_data_file_stays_raw_where_the_disk_grows(
    raw_image: Path, data: Path, opener: Opener
) -> None:
    disk = opener(raw_image)
    disk.truncate(SIZE + CLUSTER)
    disk.close()
    data.write_bytes(b"n" * (SIZE + CLUSTER))
    assert opener(raw_image).pread(SIZE, CLUSTER) == b"n" * CLUSTER


def test_a_disk_with_subclusters_that_ends_within_one_grows(
    tmp_path: Path, data: Path, opener: Opener
) -> None:
    path, size = tmp_path / "a.qcow2", CLUSTER + 7 * 512
    named = {"data_file": os.fspath(data), "data_file_raw": True, "extended_l2": True}
    block.create(os.fspath(path), "qcow2", size, **named)
    disk = opener(path)
    disk.pwrite(size - 512, b"x" * 512)
    disk.truncate(3 * CLUSTER)
    whole = bytes(size - 512) + b"x" * 512 + bytes(3 * CLUSTER - size)
    assert disk.pread(0, 3 * CLUSTER) == whole == data.read_bytes()


# -- images that lie


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (7 * CLUSTER | OFLAG_COPIED, "External data file host cluster offset 0x70000 does not"),
        (5 * CLUSTER | OFLAG_COMPRESSED, "Compressed cluster entry found in image with external"),
    ],
    ids=["another place", "compressed"],
)
@pytest.mark.parametrize("loaded", [False, True], ids=["", "in the cache"])
def test_an_entry_that_no_data_file_has_is_a_corruption(
    image: Path,
    opener: Opener,
    entry: int,
    message: str,
    loaded: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with block.open(os.fspath(image), format="qcow2") as disk:
        disk.pwrite(0, b"x" * CLUSTER)
    poke(image, 5, entry)
    disk = opener()
    if loaded:
        disk.pread(0, 512)
    reading = Outcome()
    disk.aio_preadv(5 * CLUSTER, [memoryview(bytearray(512))], reading)
    disk.drain()
    assert reading.ret == -errno.EIO
    assert message in capfd.readouterr().err
    with pytest.raises(BlockError):
        disk.pwrite(5 * CLUSTER, b"x" * 512)


def test_a_check_finds_compressed_clusters_and_missing_flags(image: Path) -> None:
    with block.open(os.fspath(image), format="qcow2") as disk:
        disk.pwrite(0, b"x" * 3 * CLUSTER)
    poke(image, 1, CLUSTER)
    result, lines = run_check(image)
    assert counts(result) == (1, 0, 0)
    assert any("OFLAG_COPIED data cluster" in line for line in lines)
    run_check(image, fix=3)
    assert counts(run_check(image)[0]) == (0, 0, 0)
    poke(image, 2, 5 * CLUSTER | OFLAG_COMPRESSED)
    result, lines = run_check(image)
    assert counts(result) == (1, 0, 0)
    assert any("compressed cluster 2 with data file, entry=0x4000" in line for line in lines)


# -- moves, and order


def test_the_data_file_moves_with_the_image(
    image: Path, opener: Opener, iothread: IOThread
) -> None:
    disk = opener()
    disk.pwrite(0, b"before" * 100)
    data = state_of(disk).data.bs
    disk.set_aio_context(iothread.ctx)
    assert data.aio_context is iothread.ctx
    with iothread.ctx:
        assert disk.pread(0, 600) == b"before" * 100
        disk.pwrite(CLUSTER, b"after" * 100)
    disk.close()
    assert opener().pread(CLUSTER, 500) == b"after" * 100


@pytest.mark.parametrize("written", [b"x", b"x" * CLUSTER], ids=["copied", "all new"])
def test_data_are_safe_before_an_entry_points_to_them(
    tmp_path: Path, image: Path, written: bytes
) -> None:
    """The flush must go to the data file: the image file holds none of them. Else a power cut
    leaves neither what the backing file has nor what was written."""
    (tmp_path / "base.raw").write_bytes(b"b" * SIZE)
    top = tmp_path / "top.qcow2"
    block.create(os.fspath(top), "qcow2", SIZE, data_file=os.fspath(tmp_path / "d"),
                 backing_file=os.fspath(tmp_path / "base.raw"), backing_fmt="raw")  # fmt: skip
    tables, data = Tape(top.read_bytes()), Tape(bytes(SIZE))
    nodes = [ram_node(tables, "tables", TapeRam), ram_node(data, "data", TapeRam)]
    try:
        disk = open_backend(options={"driver": "qcow2", "file": "tables", "data-file": "data"},
                            flags=f.BDRV_O_RDWR)  # fmt: skip
        data.log.clear()
        disk.pwrite(0, written)
        assert FLUSH not in data.writes
        moments: list[int] = []
        write = tables.note

        async def note(name: str, *args: object) -> None:
            if name == "pwritev":
                moments.append(data.flushes)
            await write(name, *args)

        tables.note = note  # type: ignore[method-assign]  # to hear of the entry's way out
        disk.flush()
        disk.close()
    finally:
        for node in nodes:
            node.unref()
    assert moments[-1] >= 1, "the L2 table was written after a flush of the data"
