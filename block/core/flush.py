# SPDX-License-Identifier: GPL-2.0-only
"""Flush: what was written becomes durable (bdrv_co_flush).

    driver.co_flush            where the driver has it: instead of all that follows
    driver.co_flush_to_os      the driver's own caches; also with cache=unsafe
    driver.co_flush_to_disk    not with BDRV_O_NO_FLUSH (cache=unsafe), and not when nothing
                               was written since the last flush
    the children               those that the node may write to, in any case

R1  Two flushes of a node do not overlap; the later one waits for the earlier.
R2  `flushed_gen` is the write generation that is safe. It moves only after success, to the
    generation that was there when the flush began.
R3  A read-only node has nothing to flush.
R4  The node below hears of both hooks beforehand: flush_to_os, flush_to_disk (debug.py).
Who may call it: coroutines in the node's context.

What once went wrong: the tree changed while a flush had yielded, and the flush went on
with a child that was gone (f45280cbf6, 2018). So whoever flushes counts as in flight, and
the children are looked up after the driver's own flush.
"""

from __future__ import annotations

from block.aio.co_lock import CoQueue
from block.core import flags as f
from block.core.debug import FLUSH_TO_DISK, FLUSH_TO_OS, debug_event
from block.core.filename import primary_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState

_WRITE_PERMS = f.BLK_PERM_WRITE | f.BLK_PERM_WRITE_UNCHANGED


async def co_flush(bs: BlockDriverState) -> None:
    """Makes everything durable that was written before the call (bdrv_co_flush)."""
    if bs.drv is None or bs.read_only:
        return
    bs.in_flight += 1
    try:
        generation = bs.write_gen
        while bs.flushing:
            if bs.flush_queue is None:
                bs.flush_queue = CoQueue()
            await bs.flush_queue.wait()
        bs.flushing = True
        try:
            await _flush_tree(bs, generation)
            bs.flushed_gen = generation
        finally:
            bs.flushing = False
            if bs.flush_queue is not None:
                bs.flush_queue.next()
    finally:
        bs.in_flight -= 1


async def co_flush_written(bs: BlockDriverState) -> None:
    """Makes a write durable that is through but not yet counted (FUA by a flush).

    Without the new generation the flush would find nothing to do.
    """
    bs.write_gen += 1
    await co_flush(bs)


async def _flush_tree(bs: BlockDriverState, generation: int) -> None:
    """The node, then its children; or all of it in the driver's own way."""
    assert bs.drv is not None
    if "co_flush" in bs.drv.hooks:
        await bs.drv.co_flush(bs)
        return
    await _flush_node(bs, generation)
    await _flush_children(bs)


async def _flush_node(bs: BlockDriverState, generation: int) -> None:
    assert bs.drv is not None
    below = primary_child(bs)
    if below is not None and below.debugged:
        await debug_event(below, FLUSH_TO_OS)
    await bs.drv.co_flush_to_os(bs)
    if bs.open_flags & f.BDRV_O_NO_FLUSH or bs.flushed_gen == generation:
        return
    if below is not None and below.debugged:
        await debug_event(below, FLUSH_TO_DISK)
    await bs.drv.co_flush_to_disk(bs)


async def _flush_children(bs: BlockDriverState) -> None:
    """Flushes all children that may have been written to, even after a failure."""
    failure: OSError | None = None
    for child in list(bs.children):
        if child.attached and child.perm & _WRITE_PERMS:
            try:
                await co_flush(child.bs)
            except OSError as error:
                failure = failure or error
    if failure is not None:
        raise failure
