# SPDX-License-Identifier: GPL-2.0-only
"""Break points, where a blkdebug node stops requests: break remove_break resume wait_break."""

from __future__ import annotations

import os

from block.core import debug
from block.core.error import errno_of

from .session import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState

    from .session import Session


def _top(session: Session) -> BlockDriverState:
    bs = session.disk.bs
    assert bs is not None, "the image has a tree"
    return bs


def do_break(session: Session, argv: list[str]) -> None:
    """Lets the next request that meets the event stop there, under a name."""
    try:
        debug.debug_breakpoint(_top(session), argv[1], argv[2])
    except OSError as error:
        raise Failed(f"Could not set breakpoint: {os.strerror(errno_of(error))}") from None


def do_remove_break(session: Session, argv: list[str]) -> None:
    """Takes a break point away; who stands there goes on."""
    try:
        debug.debug_remove_breakpoint(_top(session), argv[1])
    except OSError as error:
        reason = os.strerror(errno_of(error))
        raise Failed(f"Could not remove breakpoint {argv[1]}: {reason}") from None


def do_resume(session: Session, argv: list[str]) -> None:
    """Lets a request go on."""
    try:
        debug.debug_resume(_top(session), argv[1])
    except OSError as error:
        raise Failed(f"Could not resume request: {os.strerror(errno_of(error))}") from None


def do_wait_break(session: Session, argv: list[str]) -> None:
    """Waits until a request stands there. Without a blkdebug node an error; QEMU's waits on."""
    debug.debug_wait_break(_top(session), argv[1])
