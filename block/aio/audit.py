# SPDX-License-Identifier: GPL-2.0-only
"""Who registered what: the answer of `ctx.registrations()`.

After a tree has moved to another loop, nothing of it may be left in the old one (rule 2 of
the design). A test asks the old context for everything that a node still owns there.

`where` is the file and line that registered it. Finding it costs a walk up the stack for
every registration, so it is done only while `world.audit` is on; else it is "".
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.aio.bh import BottomHalf
    from block.aio.context import AioContext

_HERE = os.path.dirname(__file__)


class Registration:
    """One thing that a context holds for somebody.

    kind   'fd', 'notifier', 'timer', 'bh' or 'aio' (work in the thread pool)
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
            yield Registration("bh", bh[1], "", "one-shot")
        elif bh.scheduled:
            bhs[bh] = None
    for bh in bhs:
        what = "scheduled" if bh.scheduled else "not scheduled"
        yield Registration("bh", bh.owner, bh.where, what)
    if ctx._thread_pool is not None:
        yield from ctx._thread_pool.registrations()
