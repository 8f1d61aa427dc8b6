# SPDX-License-Identifier: GPL-2.0-only
"""A World without Linux's own: poll and pipes, neither epoll, eventfd, Linux AIO nor io_uring."""

from __future__ import annotations

import errno
import os

from block.aio.gate import Gate, PipeGate
from block.aio.io_uring import IoUring
from block.aio.linux_aio import LinuxAio
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

    def new_linux_aio(self, depth: int, eventfd: int) -> LinuxAio:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def new_io_uring(self, entries: int, eventfd: int) -> IoUring:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
