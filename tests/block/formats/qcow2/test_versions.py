# SPDX-License-Identifier: GPL-2.0-only
"""What older images lack, and refcounts of every width."""

from __future__ import annotations

import errno
import os
import struct
from array import array
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import block
from block.core.error import BlockError
from block.core.wait import run_sync
from block.formats.qcow2.layout import OFLAG_COPIED, OFLAG_ZERO
from block.formats.qcow2.refcount import (
    TYPECODES,
    change_refcounts,
    get_cell,
    get_refcount,
    set_cell,
)
from block.formats.qcow2.state import Qcow2State
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.qcow2_damage import counts, run_check
from tests.support.qcow2_tables import first_l2_in

WIDTHS = (1, 2, 4, 8, 16, 32, 64)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An image of version 2."""
    path = tmp_path / "old.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, compat="0.10")
    return path


@pytest.fixture
def old_overlay(tmp_path: Path) -> Path:
    """One over a backing file full of b."""
    (tmp_path / "base.raw").write_bytes(b"b" * SIZE)
    path = tmp_path / "overlay.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, compat="0.10", backing_file="base.raw",
                 backing_fmt="raw")  # fmt: skip
    return path


def entries(path: Path) -> array[int]:
    """The entries of the first L2 table; none where there is no table."""
    data = path.read_bytes()
    place = first_l2_in(data)
    return array("Q", struct.unpack_from(f">{CLUSTER // 8}Q", data, place) if place else ())


# -- version 2


def test_the_header_of_version_2_ends_where_version_3_begins(old: Path) -> None:
    head = old.read_bytes()[:80]
    assert struct.unpack_from(">I", head, 4) == (2,)
    assert struct.unpack_from(">II", head, 72) == (0, 0), "the end of the extensions: no features"


def test_zeroes_in_version_2_give_the_cluster_back(old: Path, opener: Opener) -> None:
    """There is no entry for zeroes. Without a backing file, none at all says the same."""
    disk = opener(old)
    disk.pwrite(0, b"d" * 3 * CLUSTER)
    disk.pwrite_zeroes(CLUSTER, CLUSTER)
    assert disk.pread(0, 3 * CLUSTER) == b"d" * CLUSTER + bytes(CLUSTER) + b"d" * CLUSTER
    disk.close()
    assert [bool(entry) for entry in entries(old)[:3]] == [True, False, True]
    assert counts(run_check(old)[0]) == (0, 0, 0)


def test_zeroes_in_version_2_over_a_backing_file_are_data(
    old_overlay: Path, opener: Opener
) -> None:
    disk = opener(old_overlay)
    disk.pwrite_zeroes(CLUSTER, 2 * CLUSTER)
    assert disk.pread(0, 4 * CLUSTER) == b"b" * CLUSTER + bytes(2 * CLUSTER) + b"b" * CLUSTER
    disk.close()
    assert all(entry & OFLAG_COPIED for entry in entries(old_overlay)[1:3])
    assert not any(entry & OFLAG_ZERO for entry in entries(old_overlay))


def test_a_discard_in_version_2_over_a_backing_file_changes_nothing(
    old_overlay: Path, opener: Opener
) -> None:
    """If the cluster went, the backing file's bytes would come to light."""
    disk = opener(old_overlay)
    disk.pwrite(0, b"d" * CLUSTER)
    disk.pdiscard(0, CLUSTER)
    assert disk.pread(0, 2 * CLUSTER) == b"d" * CLUSTER + b"b" * CLUSTER


def test_an_entry_for_zeroes_in_version_2_is_a_corruption(
    old: Path, opener: Opener, capfd: pytest.CaptureFixture[str]
) -> None:
    with block.open(os.fspath(old), format="qcow2") as disk:
        disk.pwrite(0, b"d" * CLUSTER)
    data = bytearray(old.read_bytes())
    place = data.index(struct.pack(">Q", entries(old)[0]))
    struct.pack_into(">Q", data, place, OFLAG_ZERO)
    old.write_bytes(data)
    with pytest.raises(BlockError, match="Zero cluster entry found in pre-v3 image"):
        opener(old).pread(0, 512)
    capfd.readouterr()


def test_a_disk_of_version_2_grows(old: Path, opener: Opener) -> None:
    disk = opener(old)
    disk.truncate(SIZE + 3 * CLUSTER)
    disk.pwrite(SIZE, b"n" * CLUSTER)
    assert disk.pread(SIZE, 2 * CLUSTER) == b"n" * CLUSTER + bytes(CLUSTER)
    disk.close()
    assert counts(run_check(old)[0]) == (0, 0, 0)


# -- refcounts


@pytest.fixture(params=WIDTHS)
def wide(request: pytest.FixtureRequest, tmp_path: Path, opener: Opener) -> Qcow2State:
    """The state of an image with refcounts of that many bits."""
    path = tmp_path / "wide.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, refcount_bits=request.param, cluster_size=512)
    disk = opener(path)
    disk.pwrite(0, b"x" * 1024)
    return state_of(disk)


def change(s: Qcow2State, cluster: int, addend: int) -> None:
    async def locked() -> None:
        async with s.lock:
            await change_refcounts(s, cluster, 1, addend)

    run_sync(s.bs.aio_context, locked)


def refcount(s: Qcow2State, cluster: int) -> int:
    async def locked() -> int:
        async with s.lock:
            return await get_refcount(s, cluster)

    return run_sync(s.bs.aio_context, locked)


def last_cluster(s: Qcow2State) -> int:
    return s.clusters(s.file_length()) - 1


def test_a_refcount_goes_up_to_what_its_bits_can_say_and_no_further(wide: Qcow2State) -> None:
    cluster = last_cluster(wide)
    before = refcount(wide, cluster - 1), refcount(wide, cluster + 1)
    change(wide, cluster, wide.refcount_max - refcount(wide, cluster))
    assert refcount(wide, cluster) == (1 << wide.refcount_bits) - 1
    with pytest.raises(BlockError) as caught:
        change(wide, cluster, 1)
    assert caught.value.errno == errno.EINVAL
    assert refcount(wide, cluster) == wide.refcount_max
    assert (refcount(wide, cluster - 1), refcount(wide, cluster + 1)) == before
    change(wide, cluster, 1 - wide.refcount_max)


def test_a_free_cluster_cannot_be_freed(wide: Qcow2State) -> None:
    cluster = last_cluster(wide) + 1
    assert refcount(wide, cluster) == 0
    with pytest.raises(BlockError, match="refcount of cluster"):
        change(wide, cluster, -1)
    assert refcount(wide, cluster) == 0


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_refcount_changes_alone(wide: Qcow2State, data: st.DataObject) -> None:
    """Narrow ones share a byte with their neighbours."""
    cells = array(TYPECODES[wide.refcount_order], bytes(512))
    model = [0] * (1 << wide.refblock_bits)
    values = st.tuples(st.integers(0, len(model) - 1), st.integers(0, wide.refcount_max))
    for index, value in data.draw(st.lists(values, max_size=12)):
        set_cell(wide, cells, index, value)
        model[index] = value
    assert [get_cell(wide, cells, index) for index in range(len(model))] == model
