# SPDX-License-Identifier: GPL-2.0-only
"""lazy_refcounts: when the dirty bit is set and cleared, and what a power cut leaves then."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

import block
from block.core import check as core_check
from block.core import flags as f
from block.core.error import BlockError
from block.core.open import open_backend
from block.core.reopen import set_read_only
from block.formats.qcow2 import dirty
from block.formats.qcow2.dirty import is_dirty
from block.formats.qcow2.state import Qcow2State
from tests.block.formats.qcow2.conftest import CLUSTER, Opener, state_of
from tests.support.qcow2_cuts import CLEAN, LEAKS, SIZE, check, new_image, plain, record
from tests.support.qcow2_disk import FLUSH, Tape, open_on
from tests.support.qcow2_tables import first_l2
from tests.support.qcow2_work import Work

BIT_AT = 72
DIRTY = (BIT_AT, (1).to_bytes(8, "big"))
CLEANED = (BIT_AT, bytes(8))


def lazy_tape(folder: Path, **options: Any) -> Tape:
    return Tape(new_image(folder, lazy_refcounts=True, **options))


def marked(image: bytes | bytearray) -> bool:
    return bool(image[BIT_AT + 7] & 1)


def test_the_bit_is_safe_before_the_first_entry(tmp_path: Path) -> None:
    tape = lazy_tape(tmp_path)
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * 512)
        disk.flush()
        l2 = first_l2(disk)
        bit = tape.writes.index(DIRTY)
        assert tape.writes[bit + 1] == FLUSH
        entries = [n for n, (offset, data) in enumerate(tape.writes) if offset == l2 and any(data)]
        assert min(entries) > bit + 1


def test_refcounts_of_data_wait_until_the_image_is_closed(tmp_path: Path) -> None:
    tape = lazy_tape(tmp_path)
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * 512)
        disk.flush()
        refblock = state_of(disk).reftable[0]
        tape.writes.clear()
        for cluster in range(1, 20):
            disk.pwrite(cluster * CLUSTER, b"y" * 512)
            disk.flush()
        assert refblock not in {offset for offset, _ in tape.writes}
        tape.writes.clear()
    assert [offset for offset, _ in tape.writes] == [refblock, -1, BIT_AT, -1]
    assert tape.writes[2] == CLEANED


def test_a_closed_image_is_clean(tmp_path: Path) -> None:
    tape = lazy_tape(tmp_path)
    record(tape, Work(7, SIZE, CLUSTER), 60)
    assert DIRTY in tape.writes
    path = tmp_path / "closed.qcow2"
    path.write_bytes(tape.data)
    assert not marked(tape.data)
    assert check(path) == CLEAN


@pytest.mark.parametrize("repairs", ["we", "qemu"])
@pytest.mark.parametrize(("cluster_size", "shuffle"), [(65536, True), (4096, False), (512, True)])
def test_after_a_power_cut_it_is_repaired_and_holds_what_was_flushed(
    tmp_path: Path,
    cluster_size: int,
    shuffle: bool,
    repairs: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tape, work = lazy_tape(tmp_path, cluster_size=cluster_size), Work(3, SIZE, cluster_size)
    safe = record(tape, work, 100)
    source, path, found = random.Random(cluster_size), tmp_path / "cut.qcow2", 0
    for at in sorted(source.sample(range(len(tape.writes) + 1), 8)):
        path.write_bytes(tape.cut(at, source, shuffle))
        was_dirty = marked(path.read_bytes())
        found += was_dirty
        safe.compare(at, plain(path, tmp_path))  # read-only, before anyone repairs it
        if repairs == "we":
            block.open(os.fspath(path), format="qcow2").close()
        else:
            check(path, "-r", "all")
        assert check(path) in (CLEAN, LEAKS) if not was_dirty else check(path) == CLEAN
        safe.compare(at, plain(path, tmp_path))
    assert found, "no cut has found the bit set"
    capfd.readouterr()


def test_the_option_beats_the_header(image: Path, opener: Opener) -> None:
    lazy = opener(options={"lazy-refcounts": "on"})
    lazy.pwrite(0, b"x")
    assert is_dirty(state_of(lazy))
    lazy.close()
    with open_backend(os.fspath(image), options={"driver": "qcow2"}, flags=f.BDRV_O_RDWR) as disk:
        disk.pwrite(CLUSTER, b"x")
        assert not is_dirty(state_of(disk)), "the header does not say lazy"
    lazy_image = image.with_name("lazy.qcow2")
    block.create(os.fspath(lazy_image), "qcow2", SIZE, lazy_refcounts=True)
    disk = opener(lazy_image, options={"lazy-refcounts": "off"})
    disk.pwrite(0, b"x")
    assert not is_dirty(state_of(disk))


def test_version_2_cannot_be_lazy(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "old.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, compat="0.10")
    with pytest.raises(BlockError, match=r"at least qemu 1\.1 compatibility level"):
        opener(path, options={"lazy-refcounts": "on"})
    opener(path, options={"lazy-refcounts": "off"}).pwrite(0, b"x")


def test_where_the_bit_cannot_be_written_refcounts_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(s: Qcow2State, bits: int) -> None:
        raise OSError(errno.EIO, "the first sector is bad")

    monkeypatch.setattr(dirty, "write_incompatible", fail)
    tape = lazy_tape(tmp_path)
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * 512)
        disk.flush()
        tape.writes.clear()
        disk.pwrite(CLUSTER, b"y" * 512)
        disk.flush()
        order = [offset for offset, _ in tape.writes]
        refblock, l2 = state_of(disk).reftable[0], first_l2(disk)
        assert order[1:4] == [refblock, FLUSH[0], l2]


def test_an_image_that_becomes_read_only_becomes_clean(opener: Opener) -> None:
    disk = opener(options={"lazy-refcounts": "on"})
    disk.pwrite(0, b"x")
    assert disk.bs is not None
    disk.set_perm(f.BLK_PERM_CONSISTENT_READ, f.BLK_PERM_ALL)
    set_read_only(disk.bs, True)
    assert not is_dirty(state_of(disk))


def test_a_bit_that_may_be_gone_is_set_again_before_it_is_relied_on(tmp_path: Path) -> None:
    """The write that takes it away is on the disk; its flush fails, and the work goes on."""
    tape = lazy_tape(tmp_path)
    with open_on(tape) as disk:
        assert disk.bs is not None
        disk.pwrite(0, b"x" * 512)
        real = tape.note

        async def fail_behind_the_bit(name: str, *args: Any) -> None:
            await real(name, *args)
            if name == "flush" and not marked(tape.data):
                raise BlockError(errno.EIO, "who knows")

        tape.note = fail_behind_the_bit  # type: ignore[method-assign]  # a disk that fails once
        with pytest.raises(BlockError, match="who knows"):
            disk.bs.drv.amend_options(disk.bs, {"lazy_refcounts": False}, print, False)
        tape.note = real  # type: ignore[method-assign]  # it is whole again
        assert not marked(tape.data)
        disk.pwrite(CLUSTER, b"y" * CLUSTER)
        disk.flush()
        assert marked(tape.data)


def test_who_only_checks_leaves_the_bit_alone(tmp_path: Path, image: Path) -> None:
    data = bytearray(image.read_bytes())
    data[BIT_AT + 7] |= 1
    image.write_bytes(data)
    flags = f.BDRV_O_RDWR | f.BDRV_O_CHECK
    with open_backend(os.fspath(image), options={"driver": "qcow2"}, flags=flags) as disk:
        assert disk.bs is not None
        core_check.check(disk.bs)
    assert marked(image.read_bytes())


def test_a_dirty_image_that_is_corrupt_too_is_not_written(image: Path, opener: Opener) -> None:
    data = bytearray(image.read_bytes())
    data[BIT_AT + 7] |= 3
    image.write_bytes(data)
    with pytest.raises(BlockError, match="Image is corrupt; cannot be opened read/write") as caught:
        opener()
    assert caught.value.errno == errno.EACCES
    opener(read_only=True).close()
    assert image.read_bytes() == data


def test_what_is_found_corrupt_while_dirty_stays_dirty(tmp_path: Path) -> None:
    tape = lazy_tape(tmp_path)
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * 512)
        s = state_of(disk)
        s.l2_cache.drop_all()
        s.l1_table[0] |= 512
        with pytest.raises(BlockError, match="unaligned"):
            disk.pwrite(0, b"y")
    assert tape.data[BIT_AT + 7] & 3 == 3, "and nothing is written on the way out"
