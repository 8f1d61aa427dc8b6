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
