# SPDX-License-Identifier: GPL-2.0-only
"""What a run finds wrong: driver, kind, and the line that did it.

The audit after each move asks every context but the tree's own what it holds. Nothing of the tree
may be there; but a few things belong to nobody's node, and those are named in `_harmless`.

R1  A finding names the driver by the node that owns a thing, else by the file that registered it.
R2  What a callback raises is a finding, too: its line is the innermost one outside of block/aio and
    block/core, so the driver's.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from block.aio.audit import Registration
from block.aio.context import AioContext
from block.aio.coroutine import Coroutine
from block.aio.errors import UsedAfterFree
from block.aio.iothread import IOThread
from block.aio.thread_pool import ThreadPool
from block.core.backend import BlockBackend
from block.core.node import BlockDriverState

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("formats", "protocols", "filters")  # what is below them has a folder of its own
NOT_A_DRIVERS = tuple(
    f"{ROOT}/{path}" for path in ("block/aio/", "block/core/", "tests/conformance/probe.py")
)


def short(where: str) -> str:
    """Returns a "file:line" with the file relative to the project."""
    return where.removeprefix(f"{ROOT}/")


class Lost(Exception):
    """Nothing moves any more."""


class Finding:
    """One mistake of a driver; two with the same driver, kind and line are the same.

    driver  its name, '?' where nobody knows
    kind    'fd', 'notifier', 'timer', 'bh', 'aio', 'coroutine': left in another context;
            'completed twice', 'wrong thread', 'another context', 'data', 'failed', 'lost' ...
    where   "file:line" that registered it, or did it; the file relative to the project
    what    what was seen
    """

    __slots__ = ("driver", "kind", "what", "where")

    def __init__(self, driver: str, kind: str, where: str, what: str) -> None:
        self.driver = driver
        self.kind = kind
        self.where = short(where)
        self.what = what

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Finding) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, str, str]:
        return self.driver, self.kind, self.where

    def __str__(self) -> str:
        return f"{self.driver}: {self.kind}: {self.what} ({self.where or 'no line'})"


class Audit:
    """Asks the contexts of one run about the nodes of one tree.

    contexts  all that there are
    nodes     of the tree
    """

    def __init__(self, contexts: Iterable[AioContext], nodes: Iterable[BlockDriverState]) -> None:
        self.contexts = list(contexts)
        self.nodes = list(nodes)
        self.names = {bs: driver_of(bs) for bs in self.nodes}
        self.files = {_files_of(bs): driver_of(bs) for bs in self.nodes}

    def leftovers(self, home: AioContext | None) -> list[Finding]:
        """Returns what is registered anywhere but in `home`; None: anywhere at all."""
        found = []
        for ctx in self.contexts:
            if ctx is not home:
                with ctx:
                    held = ctx.registrations()
                found += [self._finding(ctx, each) for each in held if not _harmless(each)]
        return found

    def strays(self, home: AioContext) -> list[Finding]:
        """Returns nodes, and requests in nodes, that are not in `home`; with `home` held."""
        found = []
        for bs in self.nodes:
            if bs.aio_context is not home or bs.detached:
                state = "detached" if bs.detached else f"in {bs.aio_context.name}"
                found.append(Finding(self.names[bs], "node", "", f"{bs!r} is {state}"))
            for request in bs.tracked_requests:
                if request.co is not None and request.co.ctx is not home:
                    found.append(Finding(self.names[bs], "request", "", f"{request.co!r}"))
        return found

    def _finding(self, ctx: AioContext, held: Registration) -> Finding:
        what = f"left in {ctx.name}: {held.what}"
        return Finding(self.driver_at(held.where, held.owner), held.kind, held.where, what)

    def driver_at(self, where: str, owner: object = None) -> str:
        """Names the driver that owns a thing, or whose file a line is in (R1)."""
        if isinstance(owner, BlockDriverState) and owner in self.names:
            return self.names[owner]
        for files, name in self.files.items():
            if where.startswith(files):
                return name
        return "?"

    def raised(self, error: BaseException) -> Finding:
        """Makes a finding of what a callback raised (R2)."""
        where = line_of(error)
        return Finding(self.driver_at(where), kind_of(error), where, str(error) or repr(error))


def _harmless(held: Registration) -> bool:
    """Whether a thing is the loop's own, or tells a user to go on, or ends a run that hangs."""
    return held.owner is Lost or isinstance(held.owner, ThreadPool | IOThread | BlockBackend)


def driver_of(bs: BlockDriverState) -> str:
    return bs.drv.format_name if bs.drv is not None else "?"


def _files_of(bs: BlockDriverState) -> str:
    """Returns how the names of all files of a node's driver begin (its folder, or its one file)."""
    module = sys.modules[getattr(type(bs.drv), "probed", type(bs.drv)).__module__]
    file = Path(module.__file__ or "?")
    return f"{file.parent}/" if file.parent.parent.name in ROOMS else str(file)


def kind_of(error: BaseException) -> str:
    """Says what a mistake is that the event loop itself has noticed."""
    text = str(error)
    if isinstance(error, AssertionError) and text.startswith("rule 5"):
        return "another context"
    if isinstance(error, RuntimeError) and "<Coroutine" in text:
        return "completed twice"
    return "used after free" if isinstance(error, UsedAfterFree) else type(error).__name__


def line_of(error: BaseException) -> str:
    """Returns "file:line" of the innermost frame of a traceback that may be a driver's."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [each for each in frames if not each.filename.startswith(NOT_A_DRIVERS)]
    last = (theirs or frames)[-1:]
    return f"{last[0].filename}:{last[0].lineno}" if last else ""


def resumed_by() -> str:
    """Returns "file:line" of who resumed the coroutine that calls, in this thread."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not Coroutine._resume.__code__:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_filename.startswith(NOT_A_DRIVERS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
