# SPDX-License-Identifier: GPL-2.0-only
"""Events: who subscribes hears them, with the time; and who sends them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

import block
from block.aio.iothread import IOThread
from block.aio.world import set_world
from block.core import event
from block.core.backend import BlockBackend
from block.core.error import BlockError
from tests.support.drivers import Disk, backend_on, ram_node
from tests.support.virtual_world import VirtualWorld


class Listener:
    """Remembers what it heard, and in which thread."""

    def __init__(self) -> None:
        self.heard: list[event.Event] = []

    def hear(self, happened: event.Event) -> None:
        self.heard.append(happened)


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    event.subscribe(made.hear)
    yield made
    event.unsubscribe(made.hear)
    assert event.subscribers == ()


def test_who_subscribes_hears_until_it_unsubscribes(listener: Listener) -> None:
    second = Listener()
    event.emit("ONE", {"n": 1})
    event.subscribe(second.hear)
    event.emit("TWO", {"n": 2})
    event.unsubscribe(second.hear)
    event.emit("THREE", {"n": 3})
    assert [it.name for it in listener.heard] == ["ONE", "TWO", "THREE"]
    assert [(it.name, it.data) for it in second.heard] == [("TWO", {"n": 2})]


def test_an_event_bears_the_time_of_the_worlds_wall_clock(listener: Listener) -> None:
    world = VirtualWorld()
    before = set_world(world)
    try:
        world.advance(7_654_321_999)
        event.emit("NOW", {})
    finally:
        set_world(before)
    assert listener.heard[0].as_dict() == {
        "timestamp": {"seconds": 8, "microseconds": 654321},
        "event": "NOW",
        "data": {},
    }


@pytest.mark.parametrize(
    ("policy", "is_read", "error", "action", "nospace"),
    [
        ("report", True, errno.EIO, "report", False),
        ("auto", False, errno.ENOSPC, "stop", True),
        ("ignore", False, errno.ENOSPC, "ignore", False),
        ("stop", True, errno.EIO, "stop", False),
    ],
)
def test_a_disk_error_is_told(
    policy: str, is_read: bool, error: int, action: str, nospace: bool, listener: Listener
) -> None:
    blk = backend_on(ram_node(Disk(), "node0"), name="disk0")
    blk.on_read_error = blk.on_write_error = policy
    blk.error_action(blk.get_error_action(is_read, error), is_read, error)
    blk.unref()
    (happened,) = listener.heard
    assert happened.name == "BLOCK_IO_ERROR"
    assert happened.data == {
        "device": "disk0",
        "node-name": "node0",
        "operation": "read" if is_read else "write",
        "action": action,
        "nospace": nospace,
        "reason": {errno.EIO: "Input/output error", errno.ENOSPC: "No space left on device"}[error],
    }


def test_a_disk_without_a_medium_has_no_node_to_name(listener: Listener) -> None:
    blk = BlockBackend()
    blk.error_action("report", True, errno.ENOMEDIUM)
    blk.unref()
    assert "node-name" not in listener.heard[0].data


@pytest.mark.parametrize("read_only", [True, False])
def test_a_corrupt_image_is_told_once(
    read_only: bool, listener: Listener, tmp_path: Path, iothread: IOThread
) -> None:
    image = str(tmp_path / "a.qcow2")
    block.create(image, "qcow2", 1 << 20)
    with block.open(image) as disk:
        disk.pwrite(0, b"x")
    data = bytearray(Path(image).read_bytes())
    l1 = int.from_bytes(data[40:48], "big")
    data[l1 : l1 + 8] = (1 << 63 | 0x1234).to_bytes(8, "big")  # no L2 table begins there
    Path(image).write_bytes(data)
    with block.open(image, read_only=read_only, name="disk0", aio_context=iothread.ctx) as disk:
        for _ in range(2):
            with pytest.raises(BlockError):
                disk.pread(0, 512)
        node = disk.bs.node_name  # type: ignore[union-attr]  # it is there
    (happened,) = listener.heard
    assert happened.name == "BLOCK_IMAGE_CORRUPTED"
    assert happened.data["msg"]
    assert {name: happened.data[name] for name in ("device", "node-name", "fatal")} == {
        "device": "disk0",
        "node-name": node,
        "fatal": not read_only,
    }
