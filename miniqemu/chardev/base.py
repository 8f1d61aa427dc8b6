# SPDX-License-Identifier: GPL-2.0-only
"""What stands at the other end of a serial line (QEMU: Chardev with CharBackend).

A device (the UART, or the multiplexer in front of it) holds one character device. What the
guest sends goes out by `write`; what a person types comes in through the handlers.

R1  `write` never waits. It answers how many bytes it took; the rest is the device's to keep
    until `when_writable` calls back, so a slow terminal holds up the guest's line only.
R2  The chardev asks `can_read()` before it hands in anything, and never hands in more. A device
    that answered 0 says `accept_input()` when it has room again.
R3  `write`, `when_writable` and `accept_input` may be called from any thread; handlers and
    callbacks run in the thread of the chardev's context (the main loop).
R4  `close` restores whatever the chardev changed outside (terminal, flags, socket files), may
    be called twice, and from any way of ending the program.
"""

from __future__ import annotations

from block.lean import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    CanRead = Callable[[], int]
    Read = Callable[[bytes], None]
    Notify = Callable[["Event"], None]


class Event(IntEnum):
    """What happens on a line besides bytes (QEMUChrEvent)."""

    BREAK = 0
    OPENED = 1
    CLOSED = 4


class ChardevError(Exception):
    """A character device that cannot be made; str() is the cause as a user reads it."""


class Chardev:
    """A line with nobody at its end: takes everything, sends nothing (`null`).

    The other character devices derive from it and replace what they need.
    """

    def __init__(self, label: str = "serial0") -> None:
        self.label = label
        self.can_read: CanRead | None = None
        self.read: Read | None = None
        self.event: Notify | None = None

    def set_handlers(
        self, can_read: CanRead | None, read: Read | None, event: Notify | None = None
    ) -> None:
        """Says who receives (qemu_chr_fe_set_handlers); three Nones take the device off."""
        self.can_read, self.read, self.event = can_read, read, event
        self.accept_input()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Sends what can be sent now and returns how many bytes that was (qemu_chr_fe_write)."""
        return len(data)

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Calls back once, later, when `write` takes bytes again (qemu_chr_fe_add_watch).

        Only meaningful after `write` took less than it was given. A second call replaces the
        first one's callback.
        """

    def accept_input(self) -> None:
        """The device has room again (qemu_chr_fe_accept_input)."""

    def send_event(self, event: Event) -> None:
        """Tells the device what happened (qemu_chr_be_event)."""
        if self.event is not None:
            self.event(event)

    def resume(self) -> None:
        """The program goes on after a stop (SIGCONT)."""

    def flush(self) -> None:
        """Waits, bounded, until what was written has left the program. For the very end."""

    def close(self) -> None:
        """Ends the line and restores what it changed (R4)."""
