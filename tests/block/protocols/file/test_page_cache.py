# SPDX-License-Identifier: GPL-2.0-only
"""What the page cache has is lent, and what it has not is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from block.core import flags as f
from block.protocols.file import page_cache
from tests.block.protocols.file.conftest import SIZE, Opener
from tests.support import needs

pytestmark = needs.linux("OFD locks")  # without them nobody could lend anything

EXCLUSIVE = f.BLK_PERM_ALL & ~(f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE)


@pytest.fixture
def fd(image: Path) -> Iterator[int]:
    found = os.open(image, os.O_RDONLY)
    yield found
    os.close(found)


def mapped(path: Path) -> int:
    """How many pieces of a file this process has mapped."""
    return Path("/proc/self/maps").read_text().count(str(path))


@pytest.mark.parametrize(
    ("offset", "nbytes"), [(0, SIZE), (4096, 8192), (4000, 5000), (SIZE - 1, 1)]
)
def test_what_is_lent_is_what_the_file_holds(
    fd: int, image: Path, offset: int, nbytes: int
) -> None:
    lent = page_cache.lend(fd, offset, nbytes)
    assert lent == image.read_bytes()[offset : offset + nbytes]


def test_it_is_the_caches_own_memory_and_nobody_can_write_it(fd: int, image: Path) -> None:
    lent = page_cache.lend(fd, 0, 8192)
    assert lent is not None
    assert lent.readonly
    with image.open("r+b") as file:
        file.write(b"changed")
    assert lent[:7] == b"changed"


def test_the_memory_goes_back_with_the_last_view_of_it(fd: int, image: Path) -> None:
    lent = page_cache.lend(fd, 0, 8192)
    assert lent is not None
    part = lent[100:200]
    del lent
    assert mapped(image) == 1
    del part
    assert mapped(image) == 0


def test_what_is_not_in_memory_is_not_lent(fd: int, image: Path, tmp_path: Path) -> None:
    needs.direct_io(tmp_path)  # other file systems keep all in memory
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert page_cache.lend(fd, 65536, 65536) is None
    assert mapped(image) == 0
    os.pread(fd, SIZE, 0)
    assert page_cache.lend(fd, 65536, 65536) is not None


def test_nothing_is_lent_from_behind_the_end(fd: int) -> None:
    assert page_cache.lend(fd, SIZE - 4096, 4097) is None
    assert page_cache.lend(fd, SIZE + 4096, 1) is None


def test_nothing_is_lent_to_whom_mincore_would_not_tell_the_truth(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.fstat(fd).st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert page_cache.lend(fd, 0, 4096) is None
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    assert page_cache.lend(fd, 0, 4096) is not None


def test_a_kernel_that_cannot_fill_the_page_table_lends_nothing(
    fd: int, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_cache, "MADV_POPULATE_READ", 9999)
    assert page_cache.lend(fd, 0, 4096) is None
    assert mapped(image) == 0


def is_lent(opener: Opener, flags: int = 0, **options: object) -> bool:
    bs = opener(flags, **options).bs
    assert bs is not None
    assert bs.drv is not None
    return bs.drv.lend_cached(bs, 0, 4096) is not None


def test_a_node_lends_while_locks_keep_others_from_writing_and_cutting(opener: Opener) -> None:
    assert is_lent(opener, shared_perm=EXCLUSIVE)


@pytest.mark.parametrize("more", [f.BLK_PERM_WRITE, f.BLK_PERM_RESIZE])
def test_a_node_that_others_may_change_lends_nothing(opener: Opener, more: int) -> None:
    assert not is_lent(opener, shared_perm=EXCLUSIVE | more)


def test_a_node_without_locks_lends_nothing(opener: Opener) -> None:
    assert not is_lent(opener, shared_perm=EXCLUSIVE, locking="off")


def test_a_node_beside_the_page_cache_lends_nothing(opener: Opener, tmp_path: Path) -> None:
    needs.direct_io(tmp_path)
    assert not is_lent(opener, f.BDRV_O_NOCACHE, shared_perm=EXCLUSIVE)
