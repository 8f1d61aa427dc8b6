# SPDX-License-Identifier: GPL-2.0-only
"""Driver, hooks, what moves: found out by opening a node of each and asking its loop.

R1  Nothing here is written by hand: the hooks are those that the driver's class has, and what
    moves is what the audit sees while nothing is in flight, after a few requests.
R2  What is there only while a request is in flight need not move: a move waits for its end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from block.aio.context import AioContext
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.node import BlockDriverState
from block.core.open import blockdev_add
from block.core.wait import poll_while
from tests.conformance.cells import samples
from tests.conformance.run import fresh_world
from tests.conformance.samples import Sample
from tests.support.drivers import backend_on

HOOKS = ("detach_aio_context", "attach_aio_context", "drain_begin", "drain_end")
NAMES = {
    "fd": "a descriptor's handler",
    "notifier": "an event notifier",
    "timer": "a timer",
    "bh": "a bottom half",
    "aio": "work in the thread pool",
    "coroutine": "a coroutine",
}
N_REQUESTS = 4


class Moves:
    """What a driver has to do with moves.

    hooks      which of HOOKS its class has
    idle       kinds of what its node has registered between requests: it moves
    busy       kinds of what is there only while requests are in flight
    children   names of the children that it must walk itself
    """

    def __init__(
        self, hooks: list[str], idle: set[str], busy: set[str], children: list[str]
    ) -> None:
        self.hooks = hooks
        self.idle = idle
        self.busy = busy - idle
        self.children = children


def all_moves() -> dict[str, Moves | BlockError]:
    """Finds it out for every sample of every registered driver; or why it cannot be opened here."""
    found: dict[str, Moves | BlockError] = {}
    for name, sample in samples().items():
        try:
            found[name] = moves_of(sample)
        except BlockError as error:
            found[name] = error
    return found


def moves_of(sample: Sample) -> Moves:
    """Opens a node, uses it, and looks at what its loop holds meanwhile and afterwards."""
    with tempfile.TemporaryDirectory() as folder, fresh_world() as contexts:
        blk = backend_on(blockdev_add({"node-name": "node", **sample.options(Path(folder))}))
        try:
            bs = blk.bs
            assert bs is not None
            assert bs.drv is not None
            hooks = [hook for hook in HOOKS if hook in bs.drv.hooks]
            busy = _use(blk, contexts[0])
            idle = _held(contexts[0], bs)
            children = [c.name for c in bs.children if c not in (bs.file, bs.backing)]
        finally:
            blk.unref()
            sample.close()
    return Moves(hooks, idle, busy, children)


def _held(ctx: AioContext, bs: BlockDriverState) -> set[str]:
    return {each.kind for each in ctx.registrations(owner=bs)}


def _use(blk: BlockBackend, ctx: AioContext) -> set[str]:
    """Has a few requests done; returns the kinds of what was registered meanwhile."""
    seen: set[str] = set()
    left = [2 * N_REQUESTS]
    bs = blk.bs
    assert bs is not None

    def done(ret: int) -> None:
        left[0] -= 1

    for number in range(N_REQUESTS):
        blk.aio_pwritev(8192 * number, [memoryview(bytes(8192))], done)
        blk.aio_preadv(8192 * number, [memoryview(bytearray(8192))], done)

    def pending() -> bool:
        seen.update(_held(ctx, bs))
        return left[0] > 0

    poll_while(ctx, pending)
    return seen


def as_markdown() -> str:
    """Returns the table for the page about moving."""
    lines = [
        "| driver | hooks | what moves | children it walks itself | only while in flight |",
        "|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_line(*each) for each in all_moves().items()])


def _line(driver: str, moves: Moves | BlockError) -> str:
    if isinstance(moves, BlockError):
        return f"| `{driver}` | not on the machine that built this page: {moves} | | | |"
    hooks = [hook.removesuffix("_aio_context") for hook in moves.hooks]
    cells = (
        f"`{driver}`",
        ", ".join(hooks) or "none needed",
        _named(moves.idle),
        ", ".join(f"`{name}`" for name in moves.children),
        _named(moves.busy),
    )
    return f"| {' | '.join(cells)} |"


def _named(kinds: Iterable[str]) -> str:
    return ", ".join(NAMES[kind] for kind in sorted(kinds))
