# SPDX-License-Identifier: GPL-2.0-only
"""Byte locks and permissions (block/protocols/file/locks.py, perm.py)."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from block.core import flags as f
from block.core.error import BlockError
from block.core.open import bdrv_open
from block.protocols.file import locks
from block.protocols.file.state import FileState
from tests.block.protocols.file.conftest import Opener
from tests.support import needs
from tests.support.descriptors import open_fds

READ, WRITE, RESIZE = f.BLK_PERM_CONSISTENT_READ, f.BLK_PERM_WRITE, f.BLK_PERM_RESIZE
ALONE = f.BLK_PERM_ALL & ~(WRITE | RESIZE)

pytestmark = needs.linux("OFD locks")


def locked_bytes(path: Path) -> set[int]:
    """The bytes that anyone holds locks on, asked through a descriptor of our own."""
    fd = os.open(path, os.O_RDWR)
    try:
        return {byte for byte in range(90, 220) if locks.is_locked_by_others(fd, byte)}
    finally:
        os.close(fd)


def test_each_permission_locks_its_own_byte(opener: Opener, image: Path) -> None:
    opener(f.BDRV_O_RDWR)
    assert locked_bytes(image) == {100, 101}


def test_what_is_not_shared_locks_another_byte(opener: Opener, image: Path) -> None:
    opener(f.BDRV_O_RDWR | f.BDRV_O_RESIZE, shared_perm=ALONE)
    assert locked_bytes(image) == {100, 101, 103, 201, 203}


def test_closing_drops_the_locks(opener: Opener, image: Path) -> None:
    opener(f.BDRV_O_RDWR).unref()
    assert locked_bytes(image) == set()


def test_a_second_writer_is_refused(opener: Opener, image: Path) -> None:
    opener(shared_perm=ALONE)
    with pytest.raises(BlockError) as caught:
        opener(shared_perm=ALONE)
    assert str(caught.value) == 'Failed to get "write" lock'
    assert caught.value.hint == f"Is another process using the image [{image}]?"
    assert locked_bytes(image) == {100, 101, 103, 201, 203}


def test_a_writer_that_wants_to_be_alone_is_refused_where_one_is(opener: Opener) -> None:
    opener()
    with pytest.raises(BlockError, match=r'^Failed to get shared "write" lock$'):
        opener(0, shared_perm=ALONE)


def test_readers_share(opener: Opener, image: Path) -> None:
    opener(0, shared_perm=ALONE)
    opener(0, shared_perm=ALONE)
    assert locked_bytes(image) == {100, 201, 203}


def test_force_share_reads_beside_a_writer(opener: Opener) -> None:
    opener(shared_perm=ALONE)
    opener(0, force_share=True)


def test_without_locking_nothing_is_locked(opener: Opener, image: Path) -> None:
    opener(shared_perm=ALONE, locking="off")
    assert locked_bytes(image) == set()


def test_permissions_can_change_and_the_locks_with_them(opener: Opener, image: Path) -> None:
    blk = opener(f.BDRV_O_RDWR)
    blk.set_perm(READ, f.BLK_PERM_ALL)
    assert locked_bytes(image) == {100}
    blk.set_perm(READ | WRITE, ALONE)
    assert locked_bytes(image) == {100, 101, 201, 203}


def test_a_refused_change_leaves_the_locks_as_they_were(opener: Opener, image: Path) -> None:
    first = opener(f.BDRV_O_RDWR)
    opener(f.BDRV_O_RDWR)
    with pytest.raises(BlockError, match=r'^Failed to get shared "write" lock$'):
        first.set_perm(READ | WRITE, ALONE)
    assert locked_bytes(image) == {100, 101}
    first.set_perm(READ, f.BLK_PERM_ALL)


def test_a_reader_needs_no_write_access_to_the_file(opener: Opener, image: Path) -> None:
    blk = opener(0)
    assert blk.bs is not None
    flags = fcntl.fcntl(blk.bs.opaque.fd, fcntl.F_GETFL)
    assert flags & os.O_ACCMODE == os.O_RDONLY


def access_mode(state: FileState) -> int:
    return fcntl.fcntl(state.fd, fcntl.F_GETFL) & os.O_ACCMODE


def test_with_auto_read_only_the_file_is_open_for_writing_while_someone_writes(
    opener: Opener, image: Path
) -> None:
    blk = opener(f.BDRV_O_RDWR, auto_read_only=True)
    assert blk.bs is not None
    state = blk.bs.opaque
    assert access_mode(state) == os.O_RDWR
    assert locked_bytes(image) == {100, 101}
    blk.pwrite(0, b"x")
    blk.set_perm(READ, f.BLK_PERM_ALL)
    assert access_mode(state) == os.O_RDONLY
    assert locked_bytes(image) == {100}
    assert blk.pread(0, 1) == b"x"


def test_a_change_that_needs_another_descriptor_and_is_refused_closes_it(
    opener: Opener, image: Path
) -> None:
    reader = opener(f.BDRV_O_RDWR, auto_read_only=True)
    reader.set_perm(READ, f.BLK_PERM_ALL)
    opener(shared_perm=ALONE)
    before = open_fds()
    with pytest.raises(BlockError, match=r'^Failed to get "write" lock$'):
        reader.set_perm(READ | WRITE, f.BLK_PERM_ALL)
    assert open_fds() == before
    assert reader.pread(0, 1) == b"\0"


def test_a_node_without_parents_locks_nothing(image: Path) -> None:
    bs = bdrv_open(os.fspath(image), options={"driver": "file"})
    assert locked_bytes(image) == set()
    bs.unref()


def test_without_ofd_locks_locking_on_warns_and_goes_on(
    opener: Opener, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "_ofd_works", False)
    opener(locking="on")
    assert "falling back to POSIX file locks" in capsys.readouterr().err


def test_a_file_system_that_cannot_lock_is_reported(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, byte: int, unlock: bool = False) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks, "lock_byte", refuse)
    with pytest.raises(BlockError, match=r"^Failed to lock byte 100$"):
        opener()
