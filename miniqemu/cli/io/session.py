# SPDX-License-Identifier: GPL-2.0-only
"""What a run of miniqemu-io remembers, and how it does one line (qemuio_command).

R1  Standard output is what commands say, in Python's own buffer, as C's: who reads a pipe gets
    it when it is full, or at the end. Complaints of the frame, and of the block layer, go to
    standard error at once.
R2  A command is a function of (session, argv), argv[0] as it was typed. It returns, or raises
    Failed; a BlockError is told with the program's name in front.
R3  All in the main thread, in the main loop. Asynchronous requests go on whenever a command waits.
"""

from __future__ import annotations

import os
import sys

from block.aio.world import the_world
from block.core.error import BlockError, errno_of
from miniqemu.cli.getopt import MissingArgument, UnknownOption, Words
from miniqemu.cli.output import STDERR, lost, write

from .commands import MANY, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from block.core.backend import BlockBackend

    from .commands import Command


class Failed(Exception):
    """A command has failed; its arguments are lines for standard output."""


class Session:
    """One run of the program; `program` is the name that it was called by."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.image_opts = False  # images are named by options
        self.misalign = False  # buffers do not lie as O_DIRECT wants them
        self.world = the_world()
        self.blk: BlockBackend | None = None
        self.over = False
        self.lost = 0  # 1: what was said did not arrive

    @property
    def disk(self) -> BlockBackend:
        """The open image; commands that need one are not called without."""
        assert self.blk is not None, "no file open"
        return self.blk

    def say(self, line: str) -> None:
        """Prints a line (R1)."""
        self.put(f"{line}\n")

    def put(self, text: str) -> None:
        """Prints a text as it stands. The commands go on where that fails, as qemu-io's do."""
        try:
            sys.stdout.write(text)
        except OSError as error:
            self.lost |= lost(error)

    def flush(self) -> None:
        """Prints what is still in the buffer."""
        try:
            sys.stdout.flush()
        except OSError as error:
            self.lost |= lost(error)

    def complain(self, line: str) -> None:
        """Prints a line on standard error, as it stands."""
        write(STDERR, f"{line}\n")

    def report(self, message: str) -> None:
        """Prints an error with the program's name in front (error_report)."""
        self.complain(f"{self.program}: {message}")

    def refused(self, message: str) -> Failed:
        """Prints an error so; returns the failure to raise, which has nothing to add."""
        self.report(message)
        return Failed()

    def report_error(self, error: BlockError, prefix: str = "") -> None:
        """Prints what the block layer said, and its advice (error_reportf_err)."""
        self.report(f"{prefix}{error}")
        if error.hint:
            self.complain(error.hint)

    def run(self, line: str) -> bool:
        """Does one line; False: it has failed (qemuio_command)."""
        argv = [word for word in line.split(" ") if word]
        if not argv:
            return True
        command = find(argv[0])
        if command is None:
            self.complain(f'command "{argv[0]}" not found')
            return False
        try:
            with self.world.main_context:
                return self._check(command, argv) and self._do(command, argv)
        except Failed as failure:
            for text in failure.args:
                self.say(text)
        except BlockError as error:
            self.report_error(error)
        return False

    def _check(self, command: Command, argv: list[str]) -> bool:
        """Complains where there is no file, or where words are missing or too many."""
        if self.blk is None and not command.without_file:
            self.complain("no file open, try 'help open'")
            return False
        count = len(argv) - 1
        if count >= command.least and (command.most == MANY or count <= command.most):
            return True
        expected = f"{command.least}"
        if command.most == MANY:
            expected = f"at least {expected}"
        elif command.most != command.least:
            expected = f"between {expected} and {command.most}"
        self.complain(f"bad argument count {count} to {argv[0]}, expected {expected} arguments")
        return False

    def _do(self, command: Command, argv: list[str]) -> bool:
        """Asks for what the command needs, once and for all, and calls it."""
        if self.blk is not None and command.perm & ~self.blk.perm:
            self.blk.set_perm(self.blk.perm | command.perm, self.blk.shared_perm)
        module = __import__(f"miniqemu.cli.io.{command.module}", fromlist=["do"])
        getattr(module, f"do_{command.name}")(self, argv)
        return True

    def options(
        self,
        argv: list[str],
        convert: Mapping[str, Callable[[str], object]] | None = None,
        operands: tuple[int, int] = (2, MANY),
    ) -> Given:
        """Reads a command's options; values are converted in the order in which they stand.

        `operands` is how few and how many words may follow. Raises Failed with the line of usage.
        """
        command = find(argv[0])
        assert command is not None, "a command's own name"
        words = Words(argv, command.short, {})
        given = Given()
        try:
            for letter, value in words:
                read = (convert or {}).get(letter)
                given[letter] = read(value) if read is not None else value or True
        except (UnknownOption, MissingArgument) as error:
            self.complain(f"{argv[0]}: {error.args[1]}")
            raise self.usage(argv) from None
        given.words = words.rest
        least, most = operands
        if len(given.words) < least or (most != MANY and len(given.words) > most):
            raise self.usage(argv)
        return given

    def usage(self, argv: list[str]) -> Failed:
        """The failure that tells how a command is used (qemuio_command_usage)."""
        command = find(argv[0])
        assert command is not None, "a command's own name"
        return Failed(command.usage(command.name))


class Given(dict[str, object]):
    """A command's options by letter, and the words behind them."""

    words: list[str]

    def number(self, letter: str, default: int) -> int:
        """An option's number."""
        value = self.get(letter, default)
        assert isinstance(value, int)
        return value


def because(what: str, error: BaseException) -> Failed:
    """The failure of a request, as strerror puts it: 'read failed: Input/output error'."""
    return Failed(f"{what} failed: {os.strerror(errno_of(error))}")


def measured(session: Session, what: str, work: Callable[[], None]) -> int:
    """Does a request, and returns how long it took, in ns. Raises Failed."""
    start = session.world.realtime_ns()
    try:
        work()
    except OSError as error:
        raise because(what, error) from None
    return session.world.realtime_ns() - start
