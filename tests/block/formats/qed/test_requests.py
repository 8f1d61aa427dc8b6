# SPDX-License-Identifier: GPL-2.0-only
"""What a qed image does: clusters and tables as they come, zero clusters, growing, the cache."""

from __future__ import annotations

import errno
import os
import random
from array import array
from pathlib import Path

import pytest

import block
from block.core import flags as f
from block.core.backing import change_backing_file
from block.core.check import check
from block.core.error import BlockError
from block.core.registry import probe_all
from block.formats.qed import l2_cache
from block.formats.qed.create import Plan
from tests.block.formats.qed.conftest import CLUSTER, FIRST_DATA, FIRST_L2, L1_TABLE, SIZE, Opener
from tests.support.blkdebug import Ear, heard
from tests.support.blkdebug import opened as opened_over
from tests.support.drivers import Disk, FastRam, Outcome
from tests.support.qcow2_disk import FLUSH, Tape
from tests.support.qed_disk import entry, field, new_image, opened, opened_for_check, poke, state_of


def places(tape: Tape) -> list[int]:
    return [offset for offset, _ in tape.writes]


# -- new images


def test_a_new_image_is_a_header_and_a_table_of_zeroes(image: Path) -> None:
    data = image.read_bytes()
    assert len(data) == FIRST_DATA
    assert (field(data, "image_size"), field(data, "l1_table_offset")) == (SIZE, L1_TABLE)
    assert not any(data[64:])
    assert probe_all(data[:512]) == "qed"


def test_a_size_is_rounded_up_to_sectors(tmp_path: Path) -> None:
    assert field(new_image(tmp_path, 1000), "image_size") == 1024


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster_size": 1000}, "QED cluster size must be within range [4096, 67108864] and"),
        ({"table_size": 3}, "QED table size must be within range [1, 16] and power of 2"),
        ({"size": 1 << 62}, "QED image size must be a non-zero multiple of cluster size and less "),
        (
            {"backing_file": "a", "backing_fmt": "no such"},
            "Parameter 'backing-fmt' does not accept value 'no such'",
        ),
        ({"backing_file": "a" * 4033, "cluster_size": 4096}, "Backing file name of 4033 bytes is"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_made_is_refused_before_the_file_is_touched(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    path = tmp_path / "a.qed"
    with pytest.raises(BlockError) as caught:
        block.create(os.fspath(path), "qed", options.pop("size", SIZE), **options)
    assert str(caught.value).startswith(message)
    assert not path.exists()


def test_larger_tables_make_longer_disks_possible() -> None:
    longest = {4: 1 << 46, 16: 1 << 50}
    for table_size, size in longest.items():
        Plan({"size": size, "table_size": table_size})
        with pytest.raises(BlockError, match=f"less than {size} bytes"):
            Plan({"size": size + 1, "table_size": table_size})


# -- allocation


def test_data_come_first_then_their_table_then_the_entry_that_finds_it(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, SIZE))
    with opened(tape) as disk:
        disk.pwrite(0, b"x" * CLUSTER)
        assert places(tape) == [0, FLUSH[0], FIRST_DATA, FIRST_L2, FLUSH[0], L1_TABLE]
        tape.writes.clear()
        disk.pwrite(CLUSTER, b"y" * 512)
        assert places(tape) == [FIRST_L2 + 4 * CLUSTER, FIRST_L2]
    assert entry(tape.data, L1_TABLE, 0) == FIRST_L2
    assert entry(tape.data, FIRST_L2, 0) == FIRST_DATA


def test_a_new_cluster_is_written_whole_in_one_write(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, SIZE))
    with opened(tape) as disk:
        disk.pwrite(CLUSTER + 1000, b"x" * CLUSTER)
        offset, data = tape.writes[2]
    assert offset == FIRST_DATA
    assert data == bytes(1000) + b"x" * CLUSTER + bytes(CLUSTER - 1000)


def test_a_write_over_the_edge_of_a_table_makes_two(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, SIZE, cluster_size=4096, table_size=1))
    edge = 512 * 4096
    with opened(tape) as disk:
        disk.pwrite(edge - 100, b"x" * 200)
        assert disk.pread(edge - 200, 400) == bytes(100) + b"x" * 200 + bytes(100)
        assert list(state_of(disk).l1_table[:3]) == [3 * 4096, 5 * 4096, 0]


def test_one_request_allocates_at_a_time_and_the_others_do_not_wait(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, SIZE))
    with opened(tape) as disk:
        disk.pwrite(0, b"x" * CLUSTER)
        tape.parked = True
        tape.log.clear()
        allocating, waiting, in_place = Outcome(), Outcome(), Outcome()
        disk.aio_pwritev(CLUSTER, [memoryview(b"y" * CLUSTER)], allocating)
        disk.aio_pwritev(2 * CLUSTER, [memoryview(b"z" * CLUSTER)], waiting)
        disk.aio_pwritev(0, [memoryview(b"w" * CLUSTER)], in_place)
        while disk.aio_context.poll(False):
            pass
        asked = [where for _, where, *_ in tape.asked("pwritev")]
        assert asked == [FIRST_L2 + 4 * CLUSTER, FIRST_DATA]
        tape.release()
        disk.drain()
        assert (allocating.ret, waiting.ret, in_place.ret) == (0, 0, 0)
        assert disk.pread(CLUSTER, 2 * CLUSTER) == b"y" * CLUSTER + b"z" * CLUSTER


def test_two_writes_to_one_new_cluster_allocate_it_once(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, SIZE))
    with opened(tape) as disk:
        first, second = Outcome(), Outcome()
        disk.aio_pwritev(0, [memoryview(b"x" * 512)], first)
        disk.aio_pwritev(512, [memoryview(b"y" * 512)], second)
        disk.drain()
        assert (first.ret, second.ret) == (0, 0)
        assert disk.pread(0, 1024) == b"x" * 512 + b"y" * 512
        assert len(tape.data) == FIRST_L2 + 4 * CLUSTER


@pytest.mark.parametrize("seed", range(3))
def test_many_requests_at_once_leave_each_its_bytes(tmp_path: Path, seed: int) -> None:
    """Neighbours in one cluster too: the second waits for the first, and finds its cluster."""
    path = tmp_path / "a.qed"
    block.create(os.fspath(path), "qed", SIZE, cluster_size=4096, table_size=1)
    source = random.Random(seed)
    model = bytearray(SIZE)
    with block.open(os.fspath(path), format="qed", cache="unsafe") as disk:
        for _ in range(6):
            places = source.sample(range(0, SIZE, 1536), 40)
            outcomes = [Outcome() for _ in places]
            for place, outcome in zip(places, outcomes, strict=True):
                size = min(1536, SIZE - place)
                data = bytes([source.randrange(1, 256)]) * size
                model[place : place + size] = data
                disk.aio_pwritev(place, [memoryview(data)], outcome)
            disk.drain()
            assert {outcome.ret for outcome in outcomes} == {0}
            assert disk.pread(0, SIZE) == model
    with opened_for_check(path, read_only=True) as disk:
        assert disk.bs is not None
        result = check(disk.bs)
    assert (result.corruptions, result.leaks) == (0, 0)


# -- zero clusters


def test_zeroes_for_new_clusters_cost_an_entry_each(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, SIZE))
    with opened(tape) as disk:
        disk.pwrite_zeroes(0, 4 * CLUSTER)
        table = FIRST_DATA
        assert places(tape) == [0, FLUSH[0], table, FLUSH[0], L1_TABLE]
        assert [entry(tape.data, table, index) for index in range(5)] == [1, 1, 1, 1, 0]
        tape.writes.clear()
        disk.pwrite_zeroes(0, 4 * CLUSTER)
        assert tape.writes == [], "they are zero already"


def test_zeroes_for_clusters_that_are_there_are_written_in_place(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path, SIZE))
    with opened(tape) as disk:
        disk.pwrite(0, b"x" * 2 * CLUSTER)
        tape.writes.clear()
        disk.pwrite_zeroes(0, 3 * CLUSTER)
        assert disk.pread(0, 3 * CLUSTER) == bytes(3 * CLUSTER)
        assert places(tape)[-1] == FIRST_DATA + 2 * CLUSTER, "the third has an entry"


def test_a_zero_cluster_hides_the_backing_file_for_good(tmp_path: Path, opener: Opener) -> None:
    """QEMU 7.2 brings back what the guest has zeroed, when it writes a part of the cluster."""
    (tmp_path / "base.raw").write_bytes(b"b" * SIZE)
    overlay = tmp_path / "o.qed"
    block.create(os.fspath(overlay), "qed", SIZE, backing_file="base.raw", backing_fmt="raw")
    disk = opener(overlay)
    disk.pwrite_zeroes(0, CLUSTER)
    disk.pwrite(512, b"x" * 512)
    assert disk.pread(0, CLUSTER + 1) == bytes(512) + b"x" * 512 + bytes(CLUSTER - 1024) + b"b"


# -- backing files


def test_the_rest_of_a_new_cluster_comes_from_the_backing_file(
    tmp_path: Path, opener: Opener
) -> None:
    (tmp_path / "base.raw").write_bytes(b"b" * (CLUSTER + 1024))
    overlay = tmp_path / "o.qed"
    block.create(os.fspath(overlay), "qed", SIZE, backing_file="base.raw", backing_fmt="raw")
    disk = opener(overlay)
    disk.pwrite(CLUSTER + 512, b"x" * 100)
    found = disk.pread(0, 3 * CLUSTER)
    expected = bytearray(b"b" * (CLUSTER + 1024)).ljust(3 * CLUSTER, b"\0")
    expected[CLUSTER + 512 : CLUSTER + 612] = b"x" * 100
    assert found == expected


def test_another_backing_file_is_written_into_the_header(tmp_path: Path, opener: Opener) -> None:
    for name in "ab":
        (tmp_path / f"{name}.raw").write_bytes(name.encode() * SIZE)
    image = tmp_path / "o.qed"
    block.create(os.fspath(image), "qed", SIZE)
    steps = (("a.raw", "raw", 5, b"a"), ("b.raw", "", 1, b"b"), ("", "", 0, b"\0"))
    for name, fmt, features, first in steps:
        with opener(image) as disk:
            assert disk.bs is not None
            change_backing_file(disk.bs, name, fmt)
            disk.pwrite(SIZE - 512, b"x")  # may write the header once more
        assert field(image.read_bytes(), "features") == features
        with opener(image) as disk:
            assert disk.pread(0, 1) == first


def test_a_name_that_has_no_room_changes_nothing(tmp_path: Path, opener: Opener) -> None:
    image = tmp_path / "o.qed"
    block.create(os.fspath(image), "qed", SIZE, cluster_size=4096)
    before = image.read_bytes()
    disk = opener(image)
    assert disk.bs is not None
    with pytest.raises(BlockError, match="4033 bytes is longer than 4032") as caught:
        change_backing_file(disk.bs, "a" * 4033)
    assert caught.value.errno == errno.ENOSPC
    assert image.read_bytes() == before


def test_where_the_header_has_unknown_parts_no_name_is_written(image: Path, opener: Opener) -> None:
    poke(image, "compat_features", 1)
    disk = opener()
    assert disk.bs is not None
    with pytest.raises(BlockError, match="Unknown compat_features 0x1"):
        change_backing_file(disk.bs, "a.raw", "raw")
    change_backing_file(disk.bs, "")


# -- length


def test_a_disk_grows_and_does_not_shrink(image: Path, opener: Opener) -> None:
    with opener() as disk:
        disk.pwrite(SIZE - 1, b"x")
        disk.truncate(4 << 40)
        assert disk.pread(SIZE - 1, 2) == b"x\0"
        disk.pwrite((4 << 40) - 1, b"y")
        with pytest.raises(BlockError, match="Shrinking images is currently not supported"):
            disk.truncate(SIZE)
        with pytest.raises(BlockError, match="Unsupported preallocation mode 'full'"):
            disk.truncate(8 << 40, prealloc="full")
        with pytest.raises(BlockError, match="Invalid image size specified"):
            disk.truncate((64 << 40) + 512)
    with opener() as disk:
        assert disk.length == 4 << 40
        assert disk.pread((4 << 40) - 2, 2) == b"\0y"


def test_an_overlay_does_not_grow_over_what_its_backing_file_has(
    tmp_path: Path, opener: Opener
) -> None:
    (tmp_path / "base.raw").write_bytes(b"b" * 2 * SIZE)
    overlay = tmp_path / "o.qed"
    block.create(os.fspath(overlay), "qed", SIZE, backing_file="base.raw", backing_fmt="raw")
    disk = opener(overlay)
    with pytest.raises(BlockError, match="Block driver does not support requested flags"):
        disk.truncate(2 * SIZE)
    assert disk.length == SIZE


@pytest.mark.parametrize("what", ["pwritev", "flush"])
def test_a_length_that_cannot_be_made_safe_is_the_old_one(tmp_path: Path, what: str) -> None:
    tape = Tape(new_image(tmp_path, SIZE))
    with opened(tape) as disk:
        tape.errors[what] = BlockError(errno.EIO, "gone")
        with pytest.raises(BlockError, match="Failed to update the image size: gone"):
            disk.truncate(2 * SIZE)
        tape.errors.clear()
        assert (disk.length, field(tape.data, "image_size")) == (SIZE, SIZE)
        disk.pwrite(0, b"x")
        assert field(tape.data, "image_size") == SIZE, "the next header has the old length"


# -- status


def test_status_is_told_in_extents(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * 3 * CLUSTER)
    disk.pwrite_zeroes(4 * CLUSTER, 2 * CLUSTER)
    bs = disk.bs
    assert bs is not None
    assert bs.file is not None
    here, data, zero = f.BDRV_BLOCK_ALLOCATED, f.BDRV_BLOCK_DATA, f.BDRV_BLOCK_ZERO
    valid = f.BDRV_BLOCK_OFFSET_VALID
    assert bs.block_status(512, SIZE - 512) == (
        here | data | valid, 3 * CLUSTER - 512, FIRST_DATA + 512, bs.file.bs
    )  # fmt: skip
    assert bs.block_status(3 * CLUSTER, 3 * CLUSTER)[:2] == (zero, CLUSTER)
    assert bs.block_status(4 * CLUSTER, SIZE - 4 * CLUSTER)[:2] == (here | zero, 2 * CLUSTER)
    assert bs.is_allocated(6 * CLUSTER, SIZE - 6 * CLUSTER) == (False, SIZE - 6 * CLUSTER)


def test_a_tebibyte_of_nothing_is_one_extent(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "large.qed"
    block.create(os.fspath(path), "qed", 1 << 40)
    bs = opener(path).bs
    assert bs is not None
    assert bs.is_allocated(0, 1 << 40) == (False, 1 << 40)


def test_cluster_size_and_state_are_told(image: Path, opener: Opener) -> None:
    bs = opener().bs
    assert bs is not None
    info = bs.get_info()
    assert info is not None
    assert (info.cluster_size, info.is_dirty) == (CLUSTER, False)


# -- the cache, and what is said on the way


def test_the_cache_is_bounded(
    tmp_path: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(l2_cache, "CACHE_BYTES", 3 * 4096)
    path = tmp_path / "small.qed"
    block.create(os.fspath(path), "qed", 64 << 20, cluster_size=4096, table_size=1)
    disk = opener(path)
    cache = state_of(disk).l2_cache
    for table in range(8):
        disk.pwrite(table << 21, bytes([table + 1]) * 4096)
        assert len(cache.slices) <= 3
    for _ in range(2):
        for table in range(8):
            assert disk.pread(table << 21, 1) == bytes([table + 1])
            assert len(cache.slices) <= 3


def test_the_slice_that_was_found_longest_ago_goes() -> None:
    cache = l2_cache.L2TableCache(1 << 16)
    cache.capacity = 2
    cache.put(1, array("Q"))
    cache.put(2, array("Q"))
    assert cache.find(1) is not None
    cache.put(3, array("Q"))
    assert list(cache.slices) == [1, 3]


def test_what_is_in_memory_is_read_at_once(tmp_path: Path) -> None:
    below = Disk(0)
    below.data[:] = new_image(tmp_path, SIZE)
    with opened_over(below, {"driver": "qed", "file": "ram0"}, FastRam) as disk:
        disk.pwrite(0, b"x" * CLUSTER)
        root = disk.root
        assert root is not None
        buffer = bytearray(512)
        assert root.try_preadv(0, 512, [memoryview(buffer)]) == 0
        assert buffer == b"x" * 512
        assert root.try_preadv(CLUSTER, 512, [memoryview(buffer)]) is None, "nothing is there"
        two = [memoryview(bytearray(1024))]
        assert root.try_preadv(CLUSTER - 512, 1024, two) is None, "it ends in another cluster"


def test_the_node_below_hears_what_a_request_is_for(tmp_path: Path) -> None:
    disk = Disk(0)
    disk.data[:] = new_image(tmp_path, SIZE)
    with opened_over(disk, {"driver": "qed", "file": "ram0"}, Ear) as blk:
        disk.log.clear()
        blk.pwrite(0, b"x" * 512)
        blk.pread(0, 512)
        events = [name for name in heard(disk) if not name.startswith(("pwritev", "flush"))]
    assert events[:5] == ["cow_write", "write_aio", "l2_update", "l1_update", "read_aio"]
    with opened_over(disk, {"driver": "qed", "file": "ram0"}, Ear) as blk:
        disk.log.clear()
        blk.pread(0, 512)
        assert heard(disk) == ["l2_load", "read_aio"]
