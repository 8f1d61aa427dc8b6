# SPDX-License-Identifier: GPL-2.0-only
"""Commands about the program itself: abort sigraise sleep help quit."""

from __future__ import annotations

import os

from block.aio.world import ClockType
from block.core.options import c_integer
from block.core.wait import poll_while

from .commands import COMMANDS, find
from .numbers import cvtnum
from .session import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session

NSIG = 65
MS = 10**6


def do_abort(session: Session, argv: list[str]) -> None:
    """Ends as a program that crashes; what it has not printed yet is lost."""
    os.abort()


def do_sigraise(session: Session, argv: list[str]) -> None:
    """Sends the program a signal; first prints all it has said."""
    number = cvtnum(argv[1])
    if number > NSIG:
        raise Failed(f"signal argument '{argv[1]}' is too large to be a valid signal")
    session.flush()
    try:
        os.kill(os.getpid(), number)
    except OSError:
        pass  # a number that is no signal: C's raise fails as quietly


def do_sleep(session: Session, argv: list[str]) -> None:
    """Waits, and lets requests go on meanwhile."""
    ms = c_integer(argv[1])
    if ms is None or ms < 0:
        raise Failed(f"{argv[1]} is not a valid number")
    ctx = session.world.main_context
    rung: list[bool] = []
    timer = ctx.timer_new(ClockType.HOST, lambda: rung.append(True))
    timer.mod(session.world.clock_ns(ClockType.HOST) + ms * MS)
    try:
        poll_while(ctx, lambda: not rung)
    finally:
        timer.delete()


def do_quit(session: Session, argv: list[str]) -> None:
    """Lets the program end after this line."""
    session.over = True


def do_help(session: Session, argv: list[str]) -> None:
    """Lists the commands, or explains one (help_f)."""
    if len(argv) == 1:
        for command in COMMANDS:
            session.say(command.usage(command.name))
        session.say("\nUse 'help commandname' for extended help.")
        return
    found = find(argv[1])
    if found is None:
        raise Failed(f"command {argv[1]} not found")
    from .texts import HELP

    session.say(found.usage(argv[1]))
    if found.name in HELP:
        session.say(HELP[found.name])
