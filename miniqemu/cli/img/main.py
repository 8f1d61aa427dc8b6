# SPDX-License-Identifier: GPL-2.0-only
"""The program `miniqemu-img`: qemu-img's command line over block.ops (qemu-img.c).

R1  A command is a module of this package with `run(program, argv) -> int`. It is imported when
    it is asked for. What it does stands in block.ops; here are words and lines.
R2  What a person did wrong raises Failure: lines on standard error, each with the name that the
    program was called by, and a status. A traceback is a bug of ours, always.
R3  `--version` and `info` of a raw image import nothing dear (tests/miniqemu/cli/img/test_lean.py).
"""

from __future__ import annotations

import gc
import os
import sys

from block.core import report
from block.core.error import BlockError, errno_of
from miniqemu.chardev.stdio import fill_standard_descriptors
from miniqemu.cli.getopt import MissingArgument, UnknownOption, Words
from miniqemu.cli.output import leave, program_name, write
from miniqemu.cli.signals import end_by_ctrl_c, ignore_usr1

from .errors import Failure, Stop, because, misused, usage_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

COMMANDS = (
    "amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd", "info",
    "map", "measure", "snapshot", "rebase", "resize",
)  # fmt: skip
LONG = {"help": ("h", False), "version": ("V", False), "trace": ("T", True)}


def console() -> NoReturn:
    """The entry point of the command.

    Nearly all that it drops goes by itself, when nothing refers to it any more. So the collector
    looks seldom; else it would take 7 % of the time of `bench`.
    """
    gc.set_threshold(50_000, 20, 20)
    end_by_ctrl_c()
    ignore_usr1()
    leave(main(sys.argv))


def main(argv: list[str]) -> int:
    """Runs the program with `argv[0]` as its name; the exit status.

    Leaves the process as it was, for those who call it inside of another program.
    """
    fill_standard_descriptors()
    before = report.program
    report.program = program_name(argv[0], "miniqemu-img")
    try:
        return run_command(report.program, argv[1:])
    finally:
        report.program = before


def run_command(program: str, argv: list[str]) -> int:
    """Runs a command line without the program's name; the exit status (R2)."""
    try:
        return _run(program, argv)
    except (UnknownOption, MissingArgument) as error:
        return _tell(program, usage_error(program, error))
    except Failure as error:
        return _tell(program, error)
    except BlockError as error:
        return _tell(program, because(error))
    except (OSError, MemoryError) as error:  # not of an image: of this process
        return _tell(program, Failure(os.strerror(errno_of(error))))
    except Stop as stop:
        return write(1, str(stop))


def _run(program: str, argv: list[str]) -> int:
    if not argv:
        raise misused(program, "Not enough arguments")
    words = Words([program, *argv], "hVT:", LONG, in_order=True)
    for option, _ in words:
        _standard_option(program, option)
    if not words.rest:
        return 0
    name = words.rest[0]
    if name not in COMMANDS:
        raise misused(program, f"Command not found: {name}")
    module = __import__(f"miniqemu.cli.img.{name}", fromlist=["run"])
    from .common import drop_objects

    try:
        status: int = module.run(program, words.rest)
    finally:
        drop_objects()
    return status


def _standard_option(program: str, option: str) -> None:
    if option == "T":
        raise Failure("option '--trace' is not available in this version of miniqemu")
    from .help import help_text, version_text

    raise Stop(help_text(program) if option == "h" else version_text(program))


def _tell(program: str, failure: Failure) -> int:
    lines = "".join(f"{program}: {line}\n" for line in failure.args)
    write(2, lines + (f"{failure.hint}\n" if failure.hint else ""))
    return failure.status
