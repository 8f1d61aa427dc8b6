# SPDX-License-Identifier: GPL-2.0-only
"""Calls that wait until a batch is complete (util/defer-call.c).

R1  Home only (rule 5 of the design). Plugs count; the last one that is pulled makes the calls.
"""

from __future__ import annotations

from block.aio.wakeup import WakeUp
from block.aio.world import World

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.bh import BH


class DeferCall(WakeUp):
    """What a context holds back while it is plugged."""

    __slots__ = ("_deferred", "_plugged")

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self._plugged = 0
        self._deferred: list[BH] = []

    def plug(self) -> None:
        """Holds back what engines would hand to the kernel, until `unplug`; counts, home only.

        (blk_io_plug; it has not walked through the tree since 2023: defer_call_begin.)
        """
        self._plugged += 1

    def unplug(self) -> None:
        """Ends one plug: what was held back goes now, in one batch (defer_call_end)."""
        self._plugged -= 1
        if self._deferred and not self._plugged:
            deferred, self._deferred = self._deferred, []
            for bh in deferred:
                bh.callback()

    def defer_call(self, bh: BH) -> None:
        """Runs a bottom half when the last plug is pulled, without one in the next pass."""
        if self._plugged:
            self._deferred.append(bh)
        else:
            bh.schedule()
