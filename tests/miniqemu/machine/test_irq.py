# SPDX-License-Identifier: GPL-2.0-only
"""Interrupt lines: levels by the controller, edges by the irqfd."""

from __future__ import annotations

import pytest

from block.aio.notifier import EventNotifier
from miniqemu.machine.irq import IrqLine


class Controller:
    """Remembers what its pins were told."""

    def __init__(self) -> None:
        self.levels: list[tuple[int, bool]] = []
        self.irqfds: dict[int, EventNotifier] = {}
        self.refuse = False

    def set_irq(self, gsi: int, level: bool) -> None:
        self.levels.append((gsi, level))

    def add_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        if self.refuse:
            raise OSError("no more")
        self.irqfds[gsi] = notifier

    def del_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        assert self.irqfds.pop(gsi) is notifier


def test_a_wire_tells_the_controller_only_of_changes() -> None:
    controller = Controller()
    line = IrqLine(4, controller)
    for level in (False, True, True, False):
        line.set_level(level)
    assert controller.levels == [(4, True), (4, False)]


def test_a_pulse_is_a_write_to_the_irqfd_and_nothing_else() -> None:
    controller = Controller()
    line = IrqLine(12, controller)
    notifier = line.irqfd()
    assert line.irqfd() is notifier
    line.pulse()
    assert notifier.test_and_clear()
    assert controller.levels == []
    line.release_irqfd()
    assert controller.irqfds == {}
    line.release_irqfd()


def test_a_pulse_without_an_irqfd_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="R2"):
        IrqLine(12, Controller()).pulse()


def test_an_irqfd_that_the_controller_refuses_leaves_nothing_behind() -> None:
    controller = Controller()
    controller.refuse = True
    line = IrqLine(12, controller)
    with pytest.raises(OSError, match="no more"):
        line.irqfd()
    line.release_irqfd()
