# SPDX-License-Identifier: GPL-2.0-only
"""A World without Linux's own: poll instead of epoll, pipes instead of eventfds."""

from __future__ import annotations

from block.aio.gate import Gate, PipeGate
from block.aio.notifier import EventNotifier, PipeNotifier
from block.aio.poller import Poller, PollPoller
from block.aio.world import World


class PlainWorld(World):
    """What is left where the system has neither epoll nor eventfd."""

    def new_poller(self) -> Poller:
        return PollPoller()

    def new_notifier(self) -> EventNotifier:
        return PipeNotifier()

    def new_gate(self) -> Gate:
        return PipeGate()
