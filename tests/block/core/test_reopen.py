# SPDX-License-Identifier: GPL-2.0-only
"""Changing the options of an open tree (block/core/reopen.py)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.node import BlockDriverState
from block.core.open import open_backend
from block.core.reopen import reopen, set_read_only
from tests.support import needs
from tests.support.descriptors import open_fds

READ = f.BLK_PERM_CONSISTENT_READ


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[BlockBackend]:
    path = tmp_path / "a.img"
    path.write_bytes(b"data" * 4096)
    blk = open_backend(os.fspath(path), options={"driver": "raw"})
    yield blk
    blk.close()


def nodes(disk: BlockBackend) -> tuple[BlockDriverState, BlockDriverState]:
    assert disk.bs is not None
    assert disk.bs.file is not None
    return disk.bs, disk.bs.file.bs


def mode(disk: BlockBackend) -> int:
    return fcntl.fcntl(nodes(disk)[1].opaque.fd, fcntl.F_GETFL) & os.O_ACCMODE


def state(disk: BlockBackend) -> tuple[object, ...]:
    """All that a refused change must leave as it was."""
    raw, file = nodes(disk)
    kept = [
        (bs.open_flags, bs.read_only, {**bs.options}, {**bs.explicit_options}) for bs in (raw, file)
    ]
    return (*kept, file.opaque.fd, open_fds())


def test_a_tree_becomes_read_only_and_writable_again(disk: BlockBackend) -> None:
    raw, file = nodes(disk)
    disk.pwrite(0, b"1")
    disk.set_perm(READ, f.BLK_PERM_ALL)
    set_read_only(raw, True)
    assert (raw.read_only, file.read_only, mode(disk)) == (True, True, os.O_RDONLY)
    assert disk.pread(0, 4) == b"1ata"
    with pytest.raises(BlockError, match="read-only"):
        disk.set_perm(READ | f.BLK_PERM_WRITE, f.BLK_PERM_ALL)
    set_read_only(raw, False)
    assert (raw.read_only, file.read_only, mode(disk)) == (False, False, os.O_RDWR)
    disk.set_perm(READ | f.BLK_PERM_WRITE, f.BLK_PERM_ALL)
    disk.pwrite(0, b"2")
    assert disk.pread(0, 4) == b"2ata"


def test_a_disk_that_is_being_written_cannot_become_read_only(disk: BlockBackend) -> None:
    raw, _ = nodes(disk)
    before = state(disk)
    with pytest.raises(BlockError) as refused:
        set_read_only(raw, True)
    name = raw.node_name
    assert str(refused.value) == f"Read-only block node '{name}' cannot support read-write users"
    assert state(disk) == before
    disk.pwrite(0, b"x")


def test_a_file_that_cannot_be_opened_anew_leaves_all_as_it_was(
    disk: BlockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, file = nodes(disk)
    disk.set_perm(READ, f.BLK_PERM_ALL)
    before = state(disk)
    monkeypatch.setattr(file.opaque, "filename", "/nosuch")
    with pytest.raises(BlockError, match=r"^Could not open '/nosuch': No such file"):
        set_read_only(raw, True)
    assert state(disk) == before
    assert disk.pread(0, 4) == b"data"


@needs.linux("OFD locks")
def test_a_lock_in_the_way_leaves_all_as_it_was(disk: BlockBackend) -> None:
    raw, file = nodes(disk)
    disk.set_perm(READ, f.BLK_PERM_ALL)
    set_read_only(raw, True)
    other = open_backend(
        file.filename, options={"driver": "file"}, shared_perm=f.BLK_PERM_ALL & ~f.BLK_PERM_WRITE
    )
    set_read_only(raw, False)
    with pytest.raises(BlockError, match=r'^Failed to get "write" lock$'):
        disk.set_perm(READ | f.BLK_PERM_WRITE, f.BLK_PERM_ALL)
    assert disk.pread(0, 4) == b"data"
    other.close()


def test_the_cache_mode_reaches_the_file(disk: BlockBackend) -> None:
    raw, file = nodes(disk)
    reopen(raw, {"cache.no-flush": True})
    assert raw.open_flags & file.open_flags & f.BDRV_O_NO_FLUSH
    needs.direct_io(Path(file.filename).parent)
    reopen(raw, {"cache": {"direct": True}})
    assert file.opaque.direct
    assert file.bl.request_alignment >= 512
    disk.pwrite(1, b"x")
    assert disk.pread(0, 4) == b"dxta"


def test_discard_and_zero_detection_can_change(disk: BlockBackend) -> None:
    raw, _ = nodes(disk)
    reopen(raw, {"discard": "unmap", "detect-zeroes": "unmap"})
    assert raw.open_flags & f.BDRV_O_UNMAP
    assert raw.detect_zeroes == "unmap"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"driver": "qcow2"}, "Cannot change the option 'driver'"),
        ({"nosuch": 512}, "Cannot change the option 'nosuch'"),
        ({"force-share": "on"}, "Cannot change the option 'force-share'"),
        ({"file": "another"}, "Cannot find device='' nor node-name='another'"),
        ({"file": {"filename": "/x"}}, "Cannot change the option 'filename'"),
        ({"file.x": 1, "cache.no-flush": True}, "Cannot change the option 'x'"),
        ({"read-only": "maybe"}, "Parameter 'read-only' expects 'on' or 'off'"),
        ({"discard": "x"}, "Invalid discard option"),
    ],
)
def test_what_cannot_change_is_refused_by_name(
    disk: BlockBackend, options: dict[str, object], message: str
) -> None:
    before = state(disk)
    with pytest.raises(BlockError) as caught:
        reopen(nodes(disk)[0], options)
    assert str(caught.value) == message
    assert state(disk) == before


def test_a_child_can_be_spoken_to_through_its_parent(disk: BlockBackend) -> None:
    raw, file = nodes(disk)
    reopen(raw, {"file": {"cache": {"no-flush": True}}})
    assert file.open_flags & f.BDRV_O_NO_FLUSH
    assert not raw.open_flags & f.BDRV_O_NO_FLUSH
    assert file.explicit_options == {"cache.no-flush": True}
    reopen(raw, {"cache.no-flush": False})
    assert file.open_flags & f.BDRV_O_NO_FLUSH, "what was said for it stays"


def test_a_child_may_be_named_as_what_it_is(disk: BlockBackend) -> None:
    raw, file = nodes(disk)
    before = state(disk)
    reopen(raw, {"file": file.node_name})
    assert state(disk) == before


def test_what_was_said_for_a_child_stays(tmp_path: Path) -> None:
    path = tmp_path / "b.img"
    path.write_bytes(bytes(512))
    options = {"driver": "raw", "file.cache.no-flush": "off"}
    blk = open_backend(os.fspath(path), options=options)
    raw, file = nodes(blk)
    reopen(raw, {"cache.no-flush": True})
    assert raw.open_flags & f.BDRV_O_NO_FLUSH
    assert not file.open_flags & f.BDRV_O_NO_FLUSH
    blk.close()


def test_another_node_does_not_take_a_child_s_place(disk: BlockBackend) -> None:
    raw, _ = nodes(disk)
    before = state(disk)
    with (
        open_backend(options={"driver": "null-co", "node-name": "other"}),
        pytest.raises(BlockError, match="Cannot change the option 'file'"),
    ):
        reopen(raw, {"file": "other"})
    assert state(disk) == before


def test_another_part_of_the_file_becomes_the_image(disk: BlockBackend) -> None:
    raw, _ = nodes(disk)
    disk.pwrite(512, b"part")
    reopen(raw, {"offset": "512", "size": 1024})
    assert disk.length == 1024
    assert disk.pread(0, 4) == b"part"
    reopen(raw, {"offset": 1024})
    assert (disk.length, disk.pread(0, 4)) == (1024, b"data")
    with pytest.raises(BlockError, match="cannot be greater than size of the containing"):
        reopen(raw, {"offset": "1G"})
