# SPDX-License-Identifier: GPL-2.0-only
"""copy-on-read: the filter over real images."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import edge, frozen, graph, replace
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.open import open_backend
from block.core.wait import run_sync
from tests.support.virtual_tree import reads, wait_for
from tests.support.virtual_world import VirtualWorld

SIZE = 1 << 20
CLUSTER = 65536


class Images:
    """base.raw below middle.qcow2 below top.qcow2; the middle holds cluster 1, the base all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = random.Random(5).randbytes(SIZE)
        (folder / "base.raw").write_bytes(self.base)
        self.create("middle", "base.raw", "raw")
        with block.open(str(folder / "middle.qcow2"), format="qcow2") as middle:
            middle.pwrite(CLUSTER, b"m" * CLUSTER)
        self.create("top", "middle.qcow2", "qcow2")
        self.content = self.base[:CLUSTER] + b"m" * CLUSTER + self.base[2 * CLUSTER :]

    def create(self, name: str, backing: str, backing_format: str) -> None:
        path = str(self.folder / f"{name}.qcow2")
        block.create(path, "qcow2", SIZE, backing_file=backing, backing_fmt=backing_format)

    def open(self, driver: str = "copy-on-read", **options: object) -> BlockBackend:
        """The chain with nodes called top and middle, below a filter."""
        top = {
            "driver": "qcow2",
            "node-name": "top",
            "file": {"driver": "file", "filename": str(self.folder / "top.qcow2")},
            "backing": {
                "driver": "qcow2",
                "node-name": "middle",
                "file": {"driver": "file", "filename": str(self.folder / "middle.qcow2")},
            },
        }
        return block.open(options={"driver": driver, "file": top, **options})

    def held(self) -> set[int]:
        """The numbers of the clusters that the top image holds."""
        with block.open(str(self.folder / "top.qcow2"), format="qcow2", read_only=True) as disk:
            assert disk.bs is not None
            return {
                n for n in range(SIZE // CLUSTER) if disk.bs.is_allocated(n * CLUSTER, CLUSTER)[0]
            }


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path)


def test_what_was_read_is_in_the_image_and_needs_no_backing_file(images: Images) -> None:
    with images.open() as disk:
        assert disk.pread(100, SIZE - 200) == images.content[100 : SIZE - 100]
    assert images.held() == set(range(16))
    for name in ("base.raw", "middle.qcow2"):
        (images.folder / name).unlink()
    alone = {"driver": "qcow2", "backing": None, "file.driver": "file"}
    with block.open(
        options={**alone, "file.filename": str(images.folder / "top.qcow2")}, read_only=True
    ) as disk:
        assert disk.pread(0, SIZE) == images.content


def test_a_guest_that_writes_meanwhile_loses_nothing(images: Images) -> None:
    with images.open() as disk:
        disk.pread(5 * CLUSTER, 10)
        disk.pwrite(5 * CLUSTER + 5, b"new")
        disk.pwrite(6 * CLUSTER + 5, b"new")
        assert (
            disk.pread(6 * CLUSTER, 10)
            == images.base[6 * CLUSTER :][:5] + b"new" + (images.base[6 * CLUSTER + 8 :][:2])
        )
        assert disk.pread(5 * CLUSTER + 4, 5) == (
            images.base[5 * CLUSTER + 4 :][:1] + b"new" + images.base[5 * CLUSTER + 8 :][:1]
        )
    assert images.held() == {5, 6}


def test_bottom_says_how_deep_it_copies_from(images: Images) -> None:
    with images.open(bottom="middle") as disk:
        assert disk.pread(0, 4 * CLUSTER) == images.content[: 4 * CLUSTER]
    assert images.held() == {1}


def test_the_chain_down_to_the_bottom_stays_as_it_is(images: Images) -> None:
    """A bottom that were taken out of the chain would be looked for in vain."""
    with images.open(bottom="middle", **{"node-name": "copies"}) as disk:
        assert disk.bs is not None
        top, middle = graph.lookup_bs("top"), graph.lookup_bs("middle")
        with pytest.raises(BlockError) as error:
            edge.set_backing_hd(top, None)
        assert str(error.value) == "Cannot change 'backing' link from 'top' to 'middle'"
        with block.open(options={"driver": "null-co", "node-name": "other"}) as other:
            assert other.bs is not None
            for node, link in ((middle, "backing"), (top, "file")):
                refusal = f"Cannot change '{link}' link to '{node.node_name}'"
                with pytest.raises(BlockError, match=refusal):
                    replace.replace_node(node, other.bs)
        with pytest.raises(BlockError, match="Cannot change 'file' link from 'copies' to 'top'"):
            frozen.freeze_backing_chain(disk.bs, top)
        edge.set_backing_hd(middle, None)  # below the bottom, nobody minds
        assert disk.pread(0, 2 * CLUSTER) == bytes(CLUSTER) + b"m" * CLUSTER


def test_without_the_filter_the_chain_is_free_again(images: Images) -> None:
    disk = images.open(bottom="middle")
    top = graph.lookup_bs("top").ref()
    disk.close()
    edge.set_backing_hd(top, None)
    top.unref()


def test_with_the_top_as_bottom_nothing_is_copied(images: Images) -> None:
    with images.open(bottom="top") as disk:
        assert disk.pread(0, SIZE) == images.content
    assert images.held() == set()


@pytest.mark.parametrize(("bottom", "held"), [({}, {0, 1}), ({"bottom": "middle"}, {1})])
def test_prefetch_copies_without_a_reader(
    images: Images, bottom: dict[str, object], held: set[int]
) -> None:
    with images.open(**bottom) as disk:
        root = disk.root
        assert root is not None
        run_sync(disk.aio_context, lambda: root.co_preadv(0, 2 * CLUSTER, [], f.REQ_PREFETCH))
    assert images.held() == held


def test_what_is_beyond_the_end_reads_as_zeroes(images: Images) -> None:
    for options in ({}, {"bottom": "middle"}):
        with images.open(**options) as disk:
            assert disk.root is not None
            assert disk.root.pread(SIZE - 2, 6) == images.content[-2:] + bytes(4)


def test_readers_are_enough_to_make_it_copy(images: Images) -> None:
    disk = images.open()
    disk.set_perm(f.BLK_PERM_CONSISTENT_READ, f.BLK_PERM_ALL)
    assert disk.bs is not None
    assert disk.bs.children[0].perm == f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE_UNCHANGED
    disk.pread(0, 1)
    disk.close()
    assert images.held() == {0}


def test_what_makes_no_sense_is_refused(images: Images) -> None:
    cases = {
        "nowhere": "Bottom node 'nowhere' not found",
        "filter": "Bottom node 'filter' is a filter",
        "other": "Bottom node 'other' is not in the backing chain of the file",
    }
    throttle = {"driver": "delay", "node-name": "filter", "file.driver": "null-co"}
    other = {"driver": "null-co", "node-name": "other"}
    with block.open(options=throttle), block.open(options=other):
        for bottom, message in cases.items():
            with pytest.raises(BlockError) as error:
                images.open(bottom=bottom)
            assert str(error.value) == message


def test_the_write_of_a_copy_can_be_made_to_fail(images: Images) -> None:
    """The event cor_write is raised where copy-on-read is: on blkdebug, above the overlay."""
    rule = {"event": "cor_write", "errno": errno.ENOSPC, "once": True}
    options = {
        "driver": "blkdebug", "inject-error": [rule],
        "image": {"driver": "qcow2", "file.driver": "file",
                  "file.filename": str(images.folder / "top.qcow2")},
    }  # fmt: skip
    with open_backend(options=options, flags=f.BDRV_O_RDWR | f.BDRV_O_COPY_ON_READ) as disk:
        with pytest.raises(BlockError) as error:
            disk.pread(0, 1)
        assert error.value.errno == errno.ENOSPC
        assert disk.pread(2 * CLUSTER, 10) == images.content[2 * CLUSTER :][:10]
    assert images.held() == {2}


def test_a_read_only_image_is_refused(images: Images) -> None:
    with pytest.raises(BlockError, match="Block node is read-only"):
        images.open(**{"read-only": True}).pread(0, 1)


def test_copying_goes_on_in_whatever_loop_the_tree_is_in(
    images: Images, iothread: IOThread, main: AioContext
) -> None:
    with images.open() as disk:
        for n, ctx in enumerate((main, iothread.ctx, main, iothread.ctx)):
            disk.set_aio_context(ctx)
            assert disk.pread(n * CLUSTER, 10) == images.content[n * CLUSTER :][:10]
        disk.set_aio_context(main)
    assert images.held() == {0, 1, 2, 3}


def test_a_move_waits_for_copies_in_flight_and_leaves_nothing_behind(
    world: VirtualWorld, elsewhere: AioContext, tmp_path: Path
) -> None:
    """The base is slow: all copies wait for timers when the tree is to move."""
    path = str(tmp_path / "top.qcow2")
    block.create(path, "qcow2", SIZE)
    base = {"driver": "delay", "read-latency-ns": 1000, "file": {"driver": "null-co", "size": SIZE}}
    top = {
        "driver": "qcow2", "file": {"driver": "file", "filename": path}, "backing": base,
    }  # fmt: skip
    with block.open(options={"driver": "copy-on-read", "file": top}) as disk:
        assert disk.bs is not None
        slow = disk.bs.children[0].bs.backing.bs  # type: ignore[union-attr]  # it is there
        moves = ((elsewhere, world.main_context), (world.main_context, elsewhere))
        for n, (there, here) in enumerate(moves):
            outcomes = reads(disk, 4, CLUSTER, 4 * CLUSTER * n)
            disk.set_aio_context(there)
            assert [outcome.ret for outcome in outcomes] == [0] * 4
            with here:
                assert here.registrations(slow) == []
        wait_for(disk, reads(disk, 4))
