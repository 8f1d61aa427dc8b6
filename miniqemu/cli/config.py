# SPDX-License-Identifier: GPL-2.0-only
"""What a command line asked for, before any of it is made.

`Item` is one option as it was typed: its words go in front of every message about it, so
that a person sees which of several `-drive` is meant. `Config` collects the items;
miniqemu/cli/options.py fills it, miniqemu/cli/build.py makes a machine of it.
"""

from __future__ import annotations

from block.core.error import BlockError
from block.core.options import parse_string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


class CliError(Exception):
    """A command line that cannot be done: one line, without the program's name."""


class Item:
    """One option on the command line: `where` is how it was typed, `text` its argument."""

    __slots__ = ("text", "values", "where")

    def __init__(self, where: str, text: str = "") -> None:
        self.where = where
        self.text = text
        self.values: dict[str, object] = {}

    def error(self, message: str) -> CliError:
        """The error to raise for this option."""
        return CliError(f"{self.where}: {message}")

    def check(self, parse: Callable[..., Any], *arguments: object) -> Any:
        """`parse(*arguments)`; what the parser complains of becomes this option's error."""
        try:
            return parse(*arguments)
        except BlockError as error:
            raise self.error(message_of(error)) from None

    def read(self, parse: Callable[..., dict[str, object]], implied: str | None = None) -> None:
        """Reads the argument's text into `values`."""
        self.values = self.check(parse, self.text, implied)

    def text_of(self, name: str) -> str | None:
        """One of `values` as text, or None where it was not given."""
        return self.check(parse_string, name, self.values[name]) if name in self.values else None

    def refuse_others(self, known: Iterable[str], qemu: Iterable[str], unknown: str) -> None:
        """Refuses values that are not `known`: by name where QEMU has them, else with QEMU's
        own words for what nobody has (`unknown`, with the name for its {})."""
        for name in self.values:
            if name in qemu and name not in known:
                raise self.error(f"'{name}' is not supported by miniqemu")
            if name not in known:
                raise self.error(unknown.format(name))


def message_of(error: BlockError) -> str:
    """What an error of the block layer says, with its hint, in one line."""
    hint = " ".join(getattr(error, "hint", "").split())
    return f"{error}. {hint}" if hint else str(error)


class Config:
    """All that a command line asked for."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.machine = Item("-machine")
        self.accels: list[Item] = []
        self.cpu: Item | None = None
        self.smp: Item | None = None
        self.memory: Item | None = None
        self.kernel: Item | None = None
        self.append: Item | None = None
        self.objects: list[Item] = []
        self.blockdevs: list[Item] = []
        self.drives: list[Item] = []
        self.snapshot = False
        self.devices: list[Item] = []
        self.globals: list[Item] = []
        self.serials: list[Item] = []
        self.display: Item | None = None
        self.nographic = False
        self.defaults = True
        self.paused = False
        self.reboot = True
        self.log_items: Item | None = None
        self.log_file: Item | None = None
        self.pidfile: Item | None = None
        self.escape = 1
