# SPDX-License-Identifier: GPL-2.0-only
"""Runtime options, and what they make of an open image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import block
from block.core import flags as f
from block.core.error import BlockError
from block.formats.qcow2.options import RUNTIME_OPTS, cache_sizes
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support import needs
from tests.support.qemu_tools import qemu

GIB = 1 << 30


def sizes(cluster_size: int, disk_size: int, **options: Any) -> tuple[int, int, int]:
    """(bytes of a slice, slices, refcount blocks)."""
    taken = {option.name: option.default for option in RUNTIME_OPTS}
    taken.update({name.replace("_", "-"): value for name, value in options.items()})
    found = cache_sizes(taken, cluster_size, disk_size)
    return found.l2_entry_size, found.l2_tables, found.refcount_tables


def test_by_default_the_l2_cache_holds_all_tables_up_to_32_mib() -> None:
    assert sizes(65536, 8 * GIB) == (65536, 16, 4)
    assert sizes(65536, 256 * GIB) == (65536, 512, 4)
    assert sizes(65536, 1024 * GIB) == (4096, 8192, 4)
    assert sizes(512, GIB) == (512, 32768, 4)


def test_there_is_a_least_size() -> None:
    assert sizes(65536, 0) == (65536, 2, 4)
    assert sizes(65536, GIB, l2_cache_size=1, refcount_cache_size=1) == (4096, 2, 4)


def test_the_combined_size_is_divided() -> None:
    assert sizes(65536, 8 * GIB, cache_size=GIB) == (65536, 16, 16384 - 16)
    assert sizes(65536, 8 * GIB, cache_size=8 * 65536) == (4096, 64, 4)
    assert sizes(65536, 8 * GIB, cache_size=1 << 20, l2_cache_size=1 << 19) == (4096, 128, 8)
    assert sizes(65536, 8 * GIB, cache_size=1 << 20, refcount_cache_size=1 << 19) == (4096, 128, 8)


@pytest.mark.parametrize(
    "options",
    [
        "cache-size=1M,l2-cache-size=1M,refcount-cache-size=1M",
        "cache-size=1M,l2-cache-size=2M",
        "cache-size=1M,refcount-cache-size=2M",
        "l2-cache-entry-size=1000",
        "l2-cache-entry-size=128k",
        "l2-cache-size=xx",
        "overlap-check=some",
        "overlap-check=all,overlap-check.template=none",
        "overlap-check.active-l1=perhaps",
        "cache-clean-interval=4294967296",
        "cache-clean-interval=soon",
        "lazy-refcounts=perhaps",
        "pass-discard-other=z",
        "nosuch=1",
    ],
)
def test_a_refusal_has_qemus_words(image: Path, options: str) -> None:
    from block.core.keyval import parse_opts

    words = f"driver=qcow2,file.filename={image},{options}"
    theirs = qemu("qemu-img", "info", "--image-opts", words).stderr
    with pytest.raises(BlockError) as caught:
        block.open(options=parse_opts(words), read_only=True).close()
    assert theirs.splitlines()[0].endswith(str(caught.value))


def test_the_cache_never_holds_more_than_it_may(opener: Opener) -> None:
    options = {"l2-cache-size": 2048, "l2-cache-entry-size": 512, "refcount-cache-size": 0}
    disk = opener(options=options)
    for cluster in range(0, SIZE // CLUSTER, 3):
        disk.pwrite(cluster * CLUSTER, b"x" * 512)
        assert len(state_of(disk).l2_cache.tables) <= 4
        assert len(state_of(disk).refcount_cache.tables) <= 4
    for cluster in range(0, SIZE // CLUSTER, 3):
        assert disk.pread(cluster * CLUSTER, 512) == b"x" * 512


def test_the_cache_grows_with_the_disk(opener: Opener) -> None:
    disk = opener()
    assert state_of(disk).l2_cache.capacity == 2
    disk.truncate(4 * GIB)
    assert state_of(disk).l2_cache.capacity == 8


def host_of(disk: block.BlockBackend, offset: int) -> int:
    assert disk.bs is not None
    found, _, where, _ = disk.bs.block_status(offset, 512)
    assert found & f.BDRV_BLOCK_OFFSET_VALID
    return where


@pytest.mark.parametrize(
    ("options", "punched"),
    [
        ({}, True),
        ({"discard": "ignore", "pass-discard-request": "on"}, True),
        ({"pass-discard-request": "off"}, False),
    ],
    ids=["by default", "on", "off"],
)
def test_discards_are_passed_to_the_file(
    image: Path, opener: Opener, options: dict[str, str], punched: bool
) -> None:
    disk = opener(options=options)
    disk.pwrite(0, b"x" * CLUSTER)
    host = host_of(disk, 0)
    disk.pwrite_zeroes(0, CLUSTER, f.REQ_MAY_UNMAP)
    if options.get("discard") == "ignore":
        disk.pdiscard(0, CLUSTER)
        assert host_of(disk, 0) == host, "a node with discard=ignore keeps everything"
        return
    assert disk.pread(0, CLUSTER) == bytes(CLUSTER)
    with image.open("rb") as file:
        file.seek(host)
        assert (file.read(CLUSTER) == bytes(CLUSTER)) == punched


def test_a_freed_cluster_is_used_again(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * 4 * CLUSTER)
    length = image.stat().st_size
    disk.pdiscard(0, 4 * CLUSTER)
    disk.flush()
    disk.pwrite(SIZE // 2, b"y" * 4 * CLUSTER)
    assert image.stat().st_size == length


def test_a_small_write_to_a_new_cluster_writes_only_its_bytes(image: Path, opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * CLUSTER)
    disk.flush()
    blocks = image.stat().st_blocks
    disk.pwrite(20 * CLUSTER + 8192, b"y" * 4096)
    assert (image.stat().st_blocks - blocks) * 512 <= 8192
    assert disk.pread(20 * CLUSTER, CLUSTER) == bytes(8192) + b"y" * 4096 + bytes(CLUSTER - 12288)


def test_a_huge_hole_is_one_extent(tmp_path: Path) -> None:
    path = tmp_path / "huge.qcow2"
    block.create(os.fspath(path), "qcow2", 1 << 40)
    with block.open(os.fspath(path), format="qcow2", read_only=True) as disk:
        assert disk.bs is not None
        found, length, _, _ = disk.bs.block_status(0, 1 << 40)
    assert (bool(found & f.BDRV_BLOCK_ZERO), length) == (True, 1 << 40)


def test_zeroes_in_a_huge_hole_cost_their_tables_and_a_discard_nothing(tmp_path: Path) -> None:
    path = tmp_path / "huge.qcow2"
    block.create(os.fspath(path), "qcow2", 1 << 40)
    with block.open(os.fspath(path), format="qcow2", options={"discard": "unmap"}) as disk:
        length = path.stat().st_size
        disk.pdiscard(1 << 35, 1 << 30)
        disk.flush()
        assert path.stat().st_size == length
        disk.pwrite_zeroes(0, 1 << 30)
    assert length < path.stat().st_size <= length + 3 * CLUSTER, "two L2 tables"


def test_it_reopens_read_only_and_back(opener: Opener) -> None:
    from block.core.reopen import set_read_only

    disk = opener()
    disk.pwrite(0, b"before")
    assert disk.bs is not None
    disk.set_perm(f.BLK_PERM_CONSISTENT_READ, f.BLK_PERM_ALL)
    set_read_only(disk.bs, True)
    assert not state_of(disk).l2_cache.dirty
    set_read_only(disk.bs, False)
    disk.set_perm(f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE, f.BLK_PERM_ALL)
    disk.pwrite(0, b"after ")
    assert disk.pread(0, 6) == b"after "


@pytest.mark.parametrize(
    ("size", "prealloc", "message"),
    [
        (SIZE // 2, "metadata", "Preallocation can't be used for shrinking"),
        (SIZE + 100, "off", "multiple of 512"),
    ],
)
def test_what_truncate_cannot_do_is_said(
    opener: Opener, size: int, prealloc: str, message: str
) -> None:
    with pytest.raises(BlockError, match=message):
        opener().truncate(size, False, prealloc)


@needs.linux("RWF_NOWAIT")
def test_what_a_read_finds_in_the_cache_needs_no_coroutine(opener: Opener) -> None:
    disk = opener()
    disk.pwrite(0, b"x" * CLUSTER)
    disk.pread(0, 512)
    assert disk.root is not None
    buffer = memoryview(bytearray(4096))
    assert disk.root.try_preadv(4096, 4096, [buffer]) == 0
    assert bytes(buffer) == b"x" * 4096
    assert disk.root.try_preadv(CLUSTER, 4096, [buffer]) is None, "nothing is there"
    assert disk.root.try_preadv(CLUSTER - 512, 1024, [buffer]) is None, "two clusters"
