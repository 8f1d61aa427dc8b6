# SPDX-License-Identifier: GPL-2.0-only
"""Two copies that should be equal, and are not: what blkverify finds, and quorum's blkverify=on.

R1  A difference is an exception in the request that met it: ContentsMismatch. Nobody above
    takes the bytes for good, and a program can catch it.
R2  Before that the process is asked: report.on_mismatch. QEMU ends there (prints the message, exit
    status 1), since a driver under test is wrong and goes on being wrong. Programs of ours set
    report.die for the same; a library does not end the process of its user.
R3  What lies in the page cache is compared at once, without a coroutine (try_read_alike). Anything
    else, a difference too, is left to the coroutine, which reads again and knows what to say.
Who may call it: drivers that compare, in their request hooks.

Discussion: the first copy is read straight into the caller's memory, the others into bytearrays:
their comparison with bytes is one memcmp, that of memoryviews goes byte by byte. A guest that
changes its memory meanwhile makes a difference out of nothing; then the coroutine reads again.
"""

from __future__ import annotations

import errno

from block.core import io, report
from block.core.error import BlockError
from block.core.iov import iov_to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from block.core.edge import BdrvChild
    from block.core.iov import Iov


class ContentsMismatch(BlockError):
    """Two copies differ; `offset` is the first byte that does, None where the outcomes differ."""


def mismatch(message: str, node: str, driver: str, offset: int | None = None) -> ContentsMismatch:
    """Asks the process (R2), and returns the error to raise."""
    if report.on_mismatch is not None:
        report.on_mismatch(message)
    return ContentsMismatch(errno.EIO, message, node, driver, offset)


def try_read_alike(copies: Sequence[BdrvChild], offset: int, nbytes: int, qiov: Iov) -> int | None:
    """Reads at once from all copies where all can and say the same; else declines (R3)."""
    first, *others = copies
    if io.try_preadv(first, offset, nbytes, qiov) is None:
        return None
    expected = iov_to_bytes(qiov)
    for copy in others:
        answer = bytearray(nbytes)
        if io.try_preadv(copy, offset, nbytes, [memoryview(answer)]) is None:
            return None
        if answer != expected:
            return None
    return 0
