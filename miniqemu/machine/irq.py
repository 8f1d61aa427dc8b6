# SPDX-License-Identifier: GPL-2.0-only
"""Interrupt lines: from a device to a pin of the interrupt controller (QEMU's qemu_irq).

A line is driven in one of two ways, and a device keeps to one of them at a time:

    set_level(True/False)   a wire. Under the big lock. KVM_IRQ_LINE under kvm.
    pulse()                 an edge, from any thread and without the big lock: a write to
                            the line's irqfd. The data plane's way (virtio_notify_irqfd). An
                            accelerator with an IOAPIC of its own gives a shorter way.

Rules:
R1  `set_level` is called under the big lock.
R2  `pulse` takes no lock; it needs `irqfd()` to have been called by who started the data plane.
R3  `irqfd()` and `release_irqfd()` are called under the big lock, in pairs.
"""

from __future__ import annotations

from block.aio.world import World, the_world

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from block.aio.notifier import EventNotifier
else:
    Protocol = object


class IrqController(Protocol):
    """What a line needs of the accelerator (or of a model of the IOAPIC)."""

    def set_irq(self, gsi: int, level: bool) -> None:
        """Drives one pin."""

    def add_irqfd(self, gsi: int, notifier: EventNotifier) -> Callable[[], None] | None:
        """From now on a write to `notifier` is an edge on the pin; or what is returned does it."""

    def del_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        """Ends what add_irqfd began."""


class IrqLine:
    """One wire to the interrupt controller (QEMU's qemu_irq)."""

    __slots__ = ("_controller", "_edge", "_irqfd", "_world", "gsi", "level")

    def __init__(self, gsi: int, controller: IrqController, world: World | None = None) -> None:
        self.gsi = gsi
        self.level = False
        self._controller = controller
        self._world = world or the_world()
        self._irqfd: EventNotifier | None = None
        self._edge: Callable[[], None] = _no_irqfd

    def set_level(self, level: bool) -> None:
        """Drives the wire (qemu_set_irq); does nothing when it has that level already."""
        if level != self.level:
            self.level = level
            self._controller.set_irq(self.gsi, level)

    def irqfd(self) -> EventNotifier:
        """The notifier whose writes are edges on this line; made on first use."""
        if self._irqfd is None:
            notifier = self._world.new_notifier()
            try:
                self._edge = self._controller.add_irqfd(self.gsi, notifier) or notifier.set
            except BaseException:
                notifier.close()
                raise
            self._irqfd = notifier
        return self._irqfd

    def pulse(self) -> None:
        """An edge, from any thread (event_notifier_set on the guest notifier)."""
        self._edge()

    def release_irqfd(self) -> None:
        """Takes the irqfd away again; harmless when there is none."""
        if self._irqfd is not None:
            notifier, self._irqfd, self._edge = self._irqfd, None, _no_irqfd
            self._controller.del_irqfd(self.gsi, notifier)
            notifier.close()


def _no_irqfd() -> None:
    raise AssertionError("R2: pulse() needs irqfd() first")
