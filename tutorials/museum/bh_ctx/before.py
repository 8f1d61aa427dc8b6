# SPDX-License-Identifier: GPL-2.0-only
"""As it was before 924fe1293c: `schedule` looks for the context when others see it already."""

from __future__ import annotations

from block.aio.bh import DELETED, SCHEDULED, BottomHalf
from block.aio.context import AioContext


def schedule(self: BottomHalf) -> None:
    if self.state:
        if self.state == DELETED:
            raise self._gone()
        return
    self.state = SCHEDULED
    context_of(self)._bhs.append(self)
    context_of(self).notify()


def context_of(bh: BottomHalf) -> AioContext:
    """Is `bh->ctx`. In C a freed bottom half has none; whoever looks for it has crashed."""
    if bh.state == DELETED:
        raise bh._gone()
    return bh.ctx


FORMS = {"block.aio.bh:BottomHalf.schedule": schedule}
