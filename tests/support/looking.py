# SPDX-License-Identifier: GPL-2.0-only
"""For tests of looking before sleeping: a time that each look moves, a handler, and a trial."""

from __future__ import annotations

from collections.abc import Callable

from block.aio.context import AioContext
from block.aio.notifier import EventNotifier
from block.aio.poll_window import Trial
from tests.support.virtual_world import VirtualWorld

MAX_NS = 100_000
LOOK_NS = 1_000


class LookingWorld(VirtualWorld):
    """Virtual time in which reading the clock takes a microsecond; `at_look` happens then, once."""

    def __init__(self) -> None:
        super().__init__()
        self.at_look: list[Callable[[], None]] = []
        self.n_looks = 0

    def realtime_ns(self) -> int:
        self.n_looks += 1
        self.advance(LOOK_NS)
        if self.at_look:
            self.at_look.pop(0)()
        return super().realtime_ns()


class Mailbox:
    """Brings work in two ways: `ring`, which sets a notifier, and `put`, which must be seen."""

    def __init__(self, ctx: AioContext, *, is_external: bool = False) -> None:
        self.ctx = ctx
        self.notifier = ctx.world.new_notifier()
        self.full = False
        self.before_end: Callable[[], None] | None = None
        self.log: list[str] = []
        self.n_polls = self.n_taken = 0
        self.is_external = is_external
        self.attach(ctx)

    def attach(self, ctx: AioContext) -> None:
        self.ctx = ctx
        ctx.set_event_notifier(
            self.notifier, self.rung, owner=self, is_external=self.is_external, poll=self
        )

    def detach(self) -> None:
        self.ctx.set_event_notifier(self.notifier, None)

    def close(self) -> None:
        self.detach()
        self.notifier.close()

    def put(self) -> None:
        self.full = True

    def ring(self) -> None:
        self.full = True
        self.notifier.set()

    def rung(self, notifier: EventNotifier) -> None:
        notifier.test_and_clear()
        self.full = False
        self.n_taken += 1
        self.log.append("rung")

    def work(self) -> int:
        return self.n_taken

    def io_poll(self) -> bool:
        self.n_polls += 1
        return self.full

    def io_poll_ready(self) -> None:
        self.full = False
        self.n_taken += 1
        self.log.append("seen")

    def io_poll_begin(self) -> None:
        self.log.append("begin")

    def io_poll_end(self) -> None:
        if self.before_end is not None:
            self.before_end()
        self.log.append("end")
        if self.full:
            self.notifier.set()


class Yes(Trial):
    """A trial whose outcome is certain, and that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.looking = True
        self.seen: list[tuple[int, int]] = []

    def note(self, ns: int, work: int) -> None:
        self.seen.append((ns, work))
