# SPDX-License-Identifier: GPL-2.0-only
"""Convert reads nothing that the page cache lends it, and sees to it that nothing is missed so."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.open import open_backend
from block.core.registry import find_format
from block.ops.convert import BUFFER_SIZE, Convert
from block.ops.sources import Sources
from tests.support import needs
from tests.support.luks_images import secret

pytestmark = needs.linux("OFD locks")  # without them nobody lends anything

EXCLUSIVE = f.BLK_PERM_ALL & ~(f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE)
MIB = 1 << 20


class Reads:
    """The ranges that convert read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[int, int]] = []
        real = Sources.co_read

        async def co_read(work: Sources, offset: int, view: memoryview, packed: bool) -> None:
            self.seen.append((offset, len(view)))
            await real(work, offset, view, packed)

        monkeypatch.setattr(Sources, "co_read", co_read)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def disk(size: int = 2 * BUFFER_SIZE + 12288) -> bytes:
    """Data, zeroes that are stored, and an end within a cluster."""
    data = bytearray(random.Random(size).randbytes(size))
    data[65536:98304] = bytes(32768)
    return bytes(data)


def source(path: Path, **options: object) -> BlockBackend:
    return open_backend(str(path), options=options, shared_perm=EXCLUSIVE)


def converted(blk: BlockBackend, target: Path, driver: str = "raw", **work: bool) -> bytes:
    """Converts to a new image, and reads that."""
    options = {"size": -(-blk.length // 512) * 512}
    find_format(driver).create(str(target), options)
    with blk, open_backend(str(target), options={"driver": driver}, flags=f.BDRV_O_RDWR) as new:
        Convert([blk], new, **work).run()
        return new.pread(0, new.length)


def filled_qcow2(path: Path, content: bytes, **options: object) -> None:
    find_format("qcow2").create(str(path), {"size": len(content), **options})
    with open_backend(str(path), options={"driver": "qcow2"}, flags=f.BDRV_O_RDWR) as blk:
        blk.pwrite(0, content)


@pytest.mark.parametrize("target", ["raw", "qcow2"])
def test_a_raw_file_in_memory_is_not_read(tmp_path: Path, reads: Reads, target: str) -> None:
    (tmp_path / "a").write_bytes(disk())
    assert converted(source(tmp_path / "a", driver="raw"), tmp_path / "b", target) == disk()
    assert reads.seen == []


def test_a_part_of_a_file_that_begins_anywhere_is_not_read(tmp_path: Path, reads: Reads) -> None:
    (tmp_path / "a").write_bytes(b"head" * 128 + disk())
    blk = source(tmp_path / "a", driver="raw", offset=512)
    assert converted(blk, tmp_path / "b") == disk()
    assert reads.seen == []


@pytest.mark.parametrize("cluster_size", [512, 65536, MIB])
def test_plain_clusters_are_not_read(tmp_path: Path, reads: Reads, cluster_size: int) -> None:
    filled_qcow2(tmp_path / "a", disk(), cluster_size=cluster_size)
    assert converted(source(tmp_path / "a", driver="qcow2"), tmp_path / "b") == disk()
    assert reads.seen == []


def test_what_the_backing_file_has_is_not_read_either(tmp_path: Path, reads: Reads) -> None:
    (tmp_path / "base").write_bytes(disk())
    backing = {"backing_file": str(tmp_path / "base"), "backing_fmt": "raw"}
    find_format("qcow2").create(str(tmp_path / "a"), {"size": len(disk()), **backing})
    with open_backend(str(tmp_path / "a"), flags=f.BDRV_O_RDWR) as blk:
        blk.pwrite(65536, b"top" * 1000)
    assert converted(source(tmp_path / "a"), tmp_path / "b") == (
        disk()[:65536] + b"top" * 1000 + disk()[65536 + 3000 :]
    )
    assert reads.seen == []


def test_the_end_of_a_file_within_a_sector_is_read(tmp_path: Path, reads: Reads) -> None:
    content = disk(BUFFER_SIZE + 700)
    (tmp_path / "a").write_bytes(content)
    assert converted(source(tmp_path / "a", driver="raw"), tmp_path / "b") == content + bytes(324)
    assert reads.seen == [(BUFFER_SIZE, 1024)]


def test_what_a_cluster_held_before_it_was_zeroed_is_not_lent(tmp_path: Path) -> None:
    """It keeps its place; and as less than a cluster of the target it counts as data (R6)."""
    filled_qcow2(tmp_path / "a", b"x" * (65536 + 4096), cluster_size=4096)
    with open_backend(str(tmp_path / "a"), flags=f.BDRV_O_RDWR) as blk:
        blk.pwrite_zeroes(65536, 4096)
    found = converted(source(tmp_path / "a"), tmp_path / "b", "qcow2", compressed=True)
    assert found == b"x" * 65536 + bytes(4096)


def test_a_cluster_to_compress_that_lies_in_several_places_is_read(
    tmp_path: Path, reads: Reads
) -> None:
    """It is packed as a whole, and what lies behind its first part in the file is another's."""
    content = disk(4 * 65536)
    find_format("qcow2").create(str(tmp_path / "a"), {"size": len(content), "cluster_size": 4096})
    places = list(range(0, len(content), 4096))
    random.Random(1).shuffle(places)
    with open_backend(str(tmp_path / "a"), flags=f.BDRV_O_RDWR) as blk:
        for place in places:
            blk.pwrite(place, content[place : place + 4096])
    blk = source(tmp_path / "a", driver="qcow2")
    assert converted(blk, tmp_path / "b", "qcow2", compressed=True) == content
    assert reads.seen


@pytest.mark.parametrize("name", ["blkdebug", "copy-on-read", "preallocate"])
def test_a_filter_sees_all_reads(tmp_path: Path, reads: Reads, name: str) -> None:
    (tmp_path / "a").write_bytes(disk())
    file = {"driver": "file", "filename": str(tmp_path / "a")}
    below = {"image" if name == "blkdebug" else "file": file}
    options: dict[str, object] = {"driver": name, **below}
    blk = open_backend(options={"driver": "raw", "file": options}, shared_perm=EXCLUSIVE)
    assert converted(blk, tmp_path / "b") == disk()
    assert sum(nbytes for _, nbytes in reads.seen) >= len(disk()) - 32768


def test_encrypted_clusters_are_read(tmp_path: Path, reads: Reads) -> None:
    """What lies in the file is not what a guest sees."""
    with secret() as name:
        encryption = {"encrypt.format": "luks", "encrypt.key-secret": name, "encrypt.iter-time": 0}
        find_format("qcow2").create(str(tmp_path / "a"), {"size": MIB, **encryption})
        key: dict[str, object] = {"driver": "qcow2", "encrypt.key-secret": name}
        with open_backend(str(tmp_path / "a"), options=dict(key), flags=f.BDRV_O_RDWR) as blk:
            blk.pwrite(0, disk()[:MIB])
        assert converted(source(tmp_path / "a", **key), tmp_path / "b") == disk()[:MIB]
    assert reads.seen
