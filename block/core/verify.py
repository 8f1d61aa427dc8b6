# SPDX-License-Identifier: GPL-2.0-only
"""Two copies that should be equal, and are not: what blkverify finds, and quorum's blkverify=on.

R1  A difference is an exception in the request that met it: ContentsMismatch. Nobody above
    takes the bytes for good, and a program can catch it.
R2  Before that the process is asked: report.on_mismatch. QEMU ends there (prints the message, exit
    status 1), since a driver under test is wrong and goes on being wrong. Programs of ours set
    report.die for the same; a library does not end the process of its user.
Who may call it: drivers that compare, in coroutines.
"""

from __future__ import annotations

import errno

from block.core import report
from block.core.error import BlockError


class ContentsMismatch(BlockError):
    """Two copies differ; `offset` is the first byte that does, None where the outcomes differ."""


def mismatch(
    message: str, node: str, driver: str, offset: int | None = None
) -> ContentsMismatch:
    """Asks the process (R2), and returns the error to raise."""
    if report.on_mismatch is not None:
        report.on_mismatch(message)
    return ContentsMismatch(errno.EIO, message, node, driver, offset)
