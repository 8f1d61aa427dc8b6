# SPDX-License-Identifier: GPL-2.0-only
"""How a command of miniqemu-img ends early: with complaints, or with a text that was asked for.

The words are QEMU's: error_report, error_exit and help of qemu-img.c.
"""

from __future__ import annotations

from miniqemu.cli.getopt import MissingArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.error import BlockError


class Failure(Exception):
    """Lines for standard error, each to be preceded by the program's name (error_report).

    `hint` follows without that name, `status` is the exit status.
    """

    def __init__(self, *lines: str, status: int = 1, hint: str = "") -> None:
        super().__init__(*lines)
        self.status = status
        self.hint = hint


class Stop(Exception):
    """A text for standard output, and the end: with status 0."""


def advice(program: str) -> str:
    """The line below a complaint about the command line (error_exit)."""
    return f"Try '{program} --help' for more information"


def usage_error(program: str, error: Exception) -> Failure:
    """The complaint about a word that is no option, or lacks its value."""
    missing = isinstance(error, MissingArgument)
    what = "missing argument for option" if missing else "unrecognized option"
    return Failure(f"{what} '{error.args[0]}'", hint=advice(program))


def misused(program: str, message: str) -> Failure:
    """A command line that cannot be meant (error_exit)."""
    return Failure(message, hint=advice(program))


def because(error: BlockError, prefix: str = "", status: int = 1) -> Failure:
    """What the block layer said, after a prefix (error_reportf_err)."""
    return Failure(f"{prefix}{error}", hint=error.hint, status=status)
