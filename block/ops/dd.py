# SPDX-License-Identifier: GPL-2.0-only
"""Copying a part of an image to the beginning of another (img_dd of qemu-img.c).

Everything is written, zeroes too. Called in the main thread; blocks.
"""

from __future__ import annotations

from block.core.error import errno_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend

AT_ONCE = 2 << 20


class DdFailed(Exception):
    """A request failed: `what` was being done; `errno` is positive."""

    def __init__(self, what: str, error: OSError) -> None:
        super().__init__(what)
        self.what = what
        self.errno = errno_of(error)


def copy_blocks(
    source: BlockBackend, target: BlockBackend, start: int, end: int, block_size: int
) -> None:
    """Copies the bytes from `start` to `end`, whole blocks at a time. Raises DdFailed."""
    # Many small blocks together: what is written is the same.
    size = max(1, AT_ONCE // block_size) * block_size
    for offset in range(start, end, size):
        try:
            data = source.pread(offset, min(size, end - offset))
        except OSError as error:
            raise DdFailed("reading from input", error) from error
        try:
            target.pwrite(offset - start, data)
        except OSError as error:
            raise DdFailed("writing to output", error) from error
