# SPDX-License-Identifier: GPL-2.0-only
"""Who registered what: the answer of `ctx.registrations()`.

After a tree has moved to another loop, nothing of it may be left in the old one (rule 2 of
the design). A test asks the old context for everything that a node still owns there.

`where` is the file and line that registered it. Finding it costs a walk up the stack for
every registration, so it is done only while `world.audit` is on; else it is "". Coroutines are
not registered anywhere: a context learns of one when somebody wakes it. So they, too, are known
only while the audit is on, in `world.coroutines`.

State that several threads write: `world.coroutines`, under the World's lock.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.aio.bh import BottomHalf
    from block.aio.context import AioContext
    from block.aio.coroutine import Coroutine

_HERE = os.path.dirname(__file__)
COROUTINES_KEPT = 256


class Registration:
    """One thing that a context holds for somebody.

    kind   'fd', 'notifier', 'timer', 'bh', 'aio' (work in the thread pool) or 'coroutine'
    owner  what was given as owner=, usually a node
    where  "file:line" of the caller outside block/aio, or "" (see above)
    what   the thing itself, as text
    """

    __slots__ = ("kind", "owner", "what", "where")

    def __init__(self, kind: str, owner: object, where: str, what: str) -> None:
        self.kind = kind
        self.owner = owner
        self.where = where
        self.what = what

    def __repr__(self) -> str:
        return f"<{self.kind} {self.what} of {self.owner!r} from {self.where or '?'}>"


def caller() -> str:
    """Returns "file:line" of the innermost caller outside block/aio."""
    frame = sys._getframe(1)
    while frame.f_back is not None and os.path.dirname(frame.f_code.co_filename) == _HERE:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def note_coroutine(co: Coroutine, ctx: AioContext, owner: object = None) -> None:
    """Remembers a coroutine until it has ended; only while `world.audit` is on."""
    world = ctx.world
    where = caller()
    with world.lock:
        known = world.coroutines
        if len(known) > COROUTINES_KEPT:
            world.coroutines = known = {co: made for co, made in known.items() if not co.done}
        known.setdefault(co, (owner, where))


def waits_at(co: Coroutine) -> str:
    """Returns "file:line" of the innermost await outside block/aio, "" if it has ended."""
    found = ""
    for frame in co.awaits():
        if not found or os.path.dirname(frame.f_code.co_filename) != _HERE:
            found = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return found


def _coroutines_of(ctx: AioContext) -> Iterator[Registration]:
    with ctx.world.lock:
        known = list(ctx.world.coroutines.items())
    for co, (owner, where) in known:
        if co.ctx is ctx and not co.done:
            yield Registration("coroutine", owner, where, f"{co!r} at {waits_at(co)}")


def registrations_of(ctx: AioContext) -> Iterator[Registration]:
    """Yields all that a context holds; in the thread at home there."""
    for fd in ctx.fds.all.values():
        what = f"fd {fd.fd}, looked at" if fd.poll else f"fd {fd.fd}"
        yield Registration(fd.kind, fd.owner, fd.where, what)
    for timer in ctx._timer_registry:
        yield Registration("timer", timer.owner, timer.where, timer.clock.name.lower())
    bhs: dict[BottomHalf, None] = dict.fromkeys(ctx._bh_registry)
    for bh in (*ctx._bhs.copy(), *ctx._idle_bhs.copy()):  # others append meanwhile
        if type(bh) is tuple:
            yield Registration("bh", bh[1], bh[2] if len(bh) > 2 else "", "one-shot")
        elif bh.scheduled:
            bhs[bh] = None
    for bh in bhs:
        what = "scheduled" if bh.scheduled else "not scheduled"
        yield Registration("bh", bh.owner, bh.where, what)
    if ctx._thread_pool is not None:
        yield from ctx._thread_pool.registrations()
    if ctx.world.coroutines:
        yield from _coroutines_of(ctx)
