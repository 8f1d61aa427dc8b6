# SPDX-License-Identifier: GPL-2.0-only
"""The program `miniqemu-io`: qemu-io's command line (qemu-io.c).

R1  It exercises an image with the commands of commands.py: those of -c, one after the other,
    else those that a person or a script types. A command that fails does not end it; the
    exit status is 1 then.
R2  A mistake on the command line itself ends it: a line or the usage, and status 1.
R3  All requests that are on their way at the end are waited for.
R4  `--version` and a read of a raw image import nothing dear (tests/miniqemu/cli/io/test_lean.py).

Called in the main thread.
"""

from __future__ import annotations

import io
import os
import sys

from block.core import report
from block.core.error import BlockError, errno_of
from miniqemu.chardev.stdio import fill_standard_descriptors
from miniqemu.cli.getopt import MissingArgument, UnknownOption, Words
from miniqemu.cli.image_opts import parse_image_opts
from miniqemu.cli.output import leave, program_name
from miniqemu.cli.signals import end_by_ctrl_c, ignore_usr1

from .opening import MODE_OPTIONS, Mode, open_file
from .session import Failed, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from miniqemu.cli.user_objects import Made

SHORT = "hVc:d:f:rsnCmki:t:T:U"
LONG = {
    "help": ("h", False), "version": ("V", False), "cmd": ("c", True), "format": ("f", True),
    "read-only": ("r", False), "snapshot": ("s", False), "nocache": ("n", False),
    "copy-on-read": ("C", False), "misalign": ("m", False), "native-aio": ("k", False),
    "aio": ("i", True), "discard": ("d", True), "cache": ("t", True), "trace": ("T", True),
    "object": ("object", True), "image-opts": ("image-opts", False), "force-share": ("U", False),
}  # fmt: skip


class Misused(Exception):
    """A command line that is none; the argument is a line for standard error, or ''."""


class Asked(Exception):
    """The person asked for a text, which is the argument."""


def console() -> NoReturn:
    """The entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # names of files are any bytes
    end_by_ctrl_c()
    ignore_usr1()
    leave(main(sys.argv))


def main(argv: list[str]) -> int:
    """Runs the program with `argv[0]` as its name; the exit status.

    Leaves the process as it was, for those who call it inside of another program.
    """
    fill_standard_descriptors()
    before = report.program, report.on_line
    report.program = program_name(argv[0], "miniqemu-io")
    session = Session(report.program)
    report.on_line = session.say
    try:
        status = run(session, argv)
        session.flush()
        return status or session.lost
    finally:
        report.program, report.on_line = before


def run(session: Session, argv: list[str]) -> int:
    """Does what a command line says, `argv[0]` included; the exit status."""
    from .texts import usage

    plan = Plan(session)
    try:
        plan.parse(argv)
        plan.open()
        return finish(session, plan.commands)
    except Asked as text:
        session.say(str(text))
        return 0
    except Misused as error:
        if str(error):
            session.complain(f"{argv[0]}: {error}")  # so getopt does: the name as it was typed
        session.say(usage(session.program))
        return 1
    except Failed:
        return 1
    except BlockError as error:
        session.report_error(error)
        return 1
    except (OSError, MemoryError) as error:  # not of an image: of this process
        session.report(os.strerror(errno_of(error)))
        return 1
    finally:
        plan.close()


def finish(session: Session, commands: list[str]) -> int:
    """Does the commands, and waits for what is on its way (command_loop and what follows)."""
    from block.core.drain import drain_all

    if commands:
        fine = run_all(session, commands)
    else:
        from .prompt import Prompt

        fine = Prompt(session).loop()
    drain_all()
    return 0 if fine else 1


def run_all(session: Session, commands: list[str]) -> bool:
    """Does one line after the other, up to quit; False: one of them has failed (R1)."""
    fine = True
    for line in commands:
        if session.over:
            break
        fine = session.run(line) and fine
    return fine


class Plan:
    """What a command line asks for."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.mode = Mode()
        self.commands: list[str] = []
        self.format: str | None = None
        self.filename: str | None = None
        self.objects: Made = {}

    def parse(self, argv: list[str]) -> None:
        """Reads it, and does what is done at once. Raises Misused, Asked, Failed."""
        words = Words(argv, SHORT, LONG)
        try:
            for option, value in words:
                self._take(option, value)
        except (UnknownOption, MissingArgument) as error:
            raise Misused(error.args[1]) from None
        if len(words.rest) > 1:
            raise Misused
        if self.format is not None and self.session.image_opts:
            raise self.session.refused("--image-opts and -f are mutually exclusive")
        self.filename = words.rest[0] if words.rest else None

    def _take(self, option: str, value: str) -> None:
        session = self.session
        if option in MODE_OPTIONS:
            self.mode.take(session, option, value)
        elif option == "c":
            self.commands.append(value)
        elif option == "f":
            self.format = value
        elif option == "m":
            session.misalign = True
        elif option == "image-opts":
            session.image_opts = True
        elif option == "object":
            self._make_object(value)
        else:
            self._standard(option)

    def _make_object(self, text: str) -> None:
        from miniqemu.cli import user_objects
        from miniqemu.cli.config import CliError

        try:
            user_objects.create(text, self.objects)
        except user_objects.Asked as answer:
            raise Asked(str(answer).rstrip("\n")) from None
        except CliError as error:
            raise self.session.refused(str(error)) from None

    def _standard(self, option: str) -> None:
        """-T, which is not there, -h and -V."""
        if option == "T":
            message = "option '--trace' is not available in this version of miniqemu"
            raise self.session.refused(message)
        from .texts import usage, version

        raise Asked(usage(self.session.program) if option == "h" else version(self.session.program))

    def open(self) -> None:
        """Opens the file, if one is named. Raises Failed."""
        if self.filename is None:
            return
        options: dict[str, object] = {}
        name: str | None = self.filename
        if self.session.image_opts:
            options, name = parse_image_opts(self.filename), None
        elif self.format is not None:
            options["driver"] = self.format
        open_file(self.session, name, self.mode, options)

    def close(self) -> None:
        """Closes the file, and drops the objects."""
        if self.session.blk is not None:
            self.session.blk.unref()
            self.session.blk = None
        if self.objects:
            from miniqemu.cli.user_objects import drop

            drop(self.objects)
