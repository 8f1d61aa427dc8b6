# SPDX-License-Identifier: GPL-2.0-only
"""As it was before f406c03c09: each node could have a loop of its own, so each has its poll.

Since 9b536adcbe (June 2014) drain_all took the context of each node and polled it. That is right,
and correct to this day; but a context is shared by all the disks that live in it.
"""

from __future__ import annotations

from block.core import graph
from block.core.drain import _Busy


def _poll_contexts() -> bool:
    busy = False
    for bs in list(graph.all_states):
        with bs.aio_context as ctx:
            waiting = _Busy([bs])()
            busy = ctx.poll(waiting) or waiting or busy
    for blk in list(graph.backends):
        with blk.aio_context as ctx:
            if blk.in_flight:
                ctx.poll(True)
                busy = True
    return busy


FORMS = {"block.core.drain:_poll_contexts": _poll_contexts}
