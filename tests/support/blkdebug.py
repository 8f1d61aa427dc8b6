# SPDX-License-Identifier: GPL-2.0-only
"""Trees with a blkdebug node, and an ear that hears what it would hear.

with debugged_ram(Disk(), inject_error=[...]) as blk:     blkdebug over memory
heard(disk)                                               the events among an Ear's log
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.node import BlockDriverState
from block.core.open import open_backend
from tests.support.drivers import Disk, Outcome, Ram, ZeroRam, ram_node

FLAGS = f.BDRV_O_RDWR | f.BDRV_O_RESIZE | f.BDRV_O_UNMAP


class Ear(ZeroRam):
    """Memory that writes down debug events, too: ("event", name), among the requests."""

    format_name = protocol_name = "ear"

    async def debug_event(self, bs: BlockDriverState, event: str) -> None:
        bs.opaque.log.append(("event", event))


def heard(disk: Disk) -> list[str]:
    """The names of the events that an Ear heard, in order."""
    return [entry[1] for entry in disk.asked("event")]


@contextmanager
def opened(disk: Disk, options: dict[str, object], driver: type[Ram]) -> Iterator[BlockBackend]:
    """A tree opened over a node 'ram0' in memory; closed afterwards."""
    image = ram_node(disk, "ram0", driver)
    try:
        blk = open_backend(options={"discard": "unmap", **options}, flags=FLAGS)
    finally:
        image.unref()
    try:
        yield blk
    finally:
        blk.unref()


@contextmanager
def debugged_ram(
    disk: Disk, driver: type[Ram] = ZeroRam, **options: object
) -> Iterator[BlockBackend]:
    """blkdebug over memory; `options` with '_' for '-': inject_error=[{"event": "none"}]."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    with opened(disk, {"driver": "blkdebug", "image": "ram0", **named}, driver) as blk:
        yield blk


def node(blk: BlockBackend) -> BlockDriverState:
    """The node that a backend stands on."""
    assert blk.bs is not None
    return blk.bs


def write(blk: BlockBackend, offset: int, data: bytes) -> Outcome:
    """Begins a write; its outcome comes later."""
    outcome = Outcome()
    blk.aio_pwritev(offset, [memoryview(data)], outcome)
    return outcome
