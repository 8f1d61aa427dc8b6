# SPDX-License-Identifier: GPL-2.0-only
"""A line with an escape key: Ctrl-A and a letter speak to the program (QEMU: char-mux.c).

Stands between a character device and the serial port, for `-nographic` and `-serial mon:...`.
Keys are looked at even when the guest takes none, so Ctrl-A x always works; up to BUFFER_MAX
of them wait for the guest here.

Shared by threads: nothing but `stamp` and what `write` does with it, which the serial port's
own lock orders (it is the only writer). Keys are handled in the main loop.
"""

from __future__ import annotations

from block.aio.world import ClockType

from .base import Chardev, Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext

    from .base import CanRead, Notify, Read

CTRL_A = 1
BUFFER_MAX = 4096

HELP = (
    ("h", "print this help"),
    ("x", "exit emulator"),
    ("t", "toggle console timestamps"),
    ("b", "send break (magic sysrq)"),
    ("c", "switch between console and monitor (miniqemu has no monitor yet)"),
)


class MuxChardev(Chardev):
    """Puts the escape key in front of `base`. `on_quit` ends the program."""

    def __init__(
        self,
        ctx: AioContext,
        base: Chardev,
        on_quit: Callable[[], None],
        *,
        program: str = "miniqemu",
        escape: int = CTRL_A,
    ) -> None:
        super().__init__(base.label)
        self.ctx = ctx
        self.base = base
        self.on_quit = on_quit
        self.program = program
        self.escape = escape
        self.escaped = False
        self.waiting = bytearray()
        self.stamp: Stamp | None = None
        self.deliver_bh = ctx.bh_new(self.deliver, owner=self)
        base.set_handlers(self._room, self.receive, self.send_event)
        self.actions: dict[int, Callable[[], object]] = {
            ord("h"): self.print_help,
            ord("?"): self.print_help,
            ord("x"): self.quit,
            ord("t"): self.toggle_timestamps,
            ord("b"): lambda: self.send_event(Event.BREAK),
            ord("c"): lambda: self.say(f"\n\r{self.program}: no monitor yet\n\r"),
        }

    # To the terminal

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Sends on, with a time before each line if so toggled (mux_chr_write)."""
        if self.stamp is None:
            return self.base.write(data)
        return self.stamp.write(self.base, data)

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Calls back once when `write` takes bytes again."""
        self.base.when_writable(callback)

    def flush(self) -> None:
        """Waits until what was written has left."""
        self.base.flush()

    def resume(self) -> None:
        """The program goes on after a stop."""
        self.base.resume()

    def say(self, text: str) -> None:
        """A word of the program itself."""
        self.base.write(text.encode())

    # From the terminal

    def set_handlers(
        self, can_read: CanRead | None, read: Read | None, event: Notify | None = None
    ) -> None:
        """Says who receives what is not for the program."""
        self.can_read, self.read, self.event = can_read, read, event
        self.deliver()

    def accept_input(self) -> None:
        """The device has room again. From any thread."""
        self.deliver_bh.schedule()

    def _room(self) -> int:
        return BUFFER_MAX - len(self.waiting)

    def receive(self, data: bytes) -> None:
        """Keys have been pressed (mux_chr_read)."""
        for key in data:
            if self.escaped:
                self.escaped = False
                self.deliver()  # what was typed before the escape comes before its effect
                self._escaped_key(key)
            elif key == self.escape:
                self.escaped = True
            else:
                self.waiting.append(key)
        self.deliver()

    def _escaped_key(self, key: int) -> None:
        if key == self.escape:
            self.waiting.append(key)
        elif key in self.actions:
            self.actions[key]()

    def deliver(self) -> None:
        """Hands the device as many of the waiting keys as it takes (mux_chr_accept_input)."""
        while self.waiting and self.read is not None and self.can_read is not None:
            room = self.can_read()
            if room <= 0:
                break
            keys = bytes(self.waiting[:room])
            del self.waiting[:room]
            self.read(keys)
        self.base.accept_input()

    # The escape's letters

    def key_name(self) -> str:
        """How the escape key is called in the help."""
        if 0 < self.escape < 26:
            return f"C-{chr(ord('a') + self.escape - 1)}"
        return f"0x{self.escape:02x}"

    def print_help(self) -> None:
        """Lists the letters (mux_print_help)."""
        name = self.key_name()
        lines = [f"{name} {letter}    {what}" for letter, what in HELP]
        lines.append(f"{name} {name}  sends {name}")
        self.say("\n\r" + "".join(f"{line}\n\r" for line in lines))

    def quit(self) -> None:
        """Ends the program."""
        self.say(f"{self.program}: Terminated\n\r")
        self.on_quit()

    def toggle_timestamps(self) -> None:
        """Each line begins with the time since this was switched on, or no longer does."""
        self.stamp = Stamp(self.ctx) if self.stamp is None else None

    def close(self) -> None:
        """Ends the line, with the device behind it."""
        if not self.base_closed:
            self.base_closed = True
            self.deliver_bh.delete()
            self.base.close()

    base_closed = False


class Stamp:
    """Writes the time before each line; keeps what of it did not fit."""

    def __init__(self, ctx: AioContext) -> None:
        self.ctx = ctx
        self.start = self._now()
        self.at_line_start = True
        self.unsent = b""

    def _now(self) -> int:
        return self.ctx.world.clock_ns(ClockType.REALTIME) // 1_000_000

    def text(self) -> bytes:
        """[hours:minutes:seconds.milliseconds] since the start."""
        seconds, milliseconds = divmod(self._now() - self.start, 1000)
        minutes, seconds = divmod(seconds, 60)
        return b"[%02d:%02d:%02d.%03d] " % (minutes // 60, minutes % 60, seconds, milliseconds)

    def write(self, base: Chardev, data: bytes | bytearray | memoryview) -> int:
        """Returns how many bytes of `data` were taken."""
        taken = 0
        for line in bytes(data).splitlines(keepends=True):
            if self.at_line_start:
                self.unsent = self.text()
                self.at_line_start = False
            self.unsent = self.unsent[base.write(self.unsent) :]
            sent = 0 if self.unsent else base.write(line)
            taken += sent
            if sent < len(line):
                break
            self.at_line_start = line.endswith(b"\n")
        return taken
