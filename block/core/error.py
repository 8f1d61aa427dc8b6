# SPDX-License-Identifier: GPL-2.0-only
"""The one exception of the block layer (QEMU's Error with its errno).

R1  Inside, failure is a BlockError; numbers (-errno) appear only at the edges: in a
    callback of BlockBackend, in a virtio status, on the wire (DESIGN.md, rule 10).
R2  `str(error)` is what a person reads: it names the option or the header field.
Who may call it: anyone.
"""

from __future__ import annotations

import errno as _errno
import os


class BlockError(OSError):
    """A request, an open or a change of the tree failed.

    `errno` is positive, as in OSError. `node` is a node name, `driver` a format name and
    `offset` a byte offset, where they are known. `hint` is advice that a program prints
    on the lines after the message (error_append_hint).
    """

    def __init__(
        self,
        errno: int,
        message: str = "",
        node: str | None = None,
        driver: str | None = None,
        offset: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(errno, message or os.strerror(errno))
        self.message = message or os.strerror(errno)
        self.node = node
        self.driver = driver
        self.offset = offset
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[BlockError], tuple[object, ...]]:
        fields = (self.errno, self.message, self.node, self.driver, self.offset, self.hint)
        return type(self), fields


def failed(
    what: str, error: OSError, node: str | None = None, driver: str | None = None
) -> BlockError:
    """Says what could not be done, and why: 'Could not resize file: No space left on device'
    (error_setg_errno; error_prepend where a BlockError has words of its own)."""
    code = errno_of(error)
    why = error.message if isinstance(error, BlockError) else os.strerror(code)
    return BlockError(code, f"{what}: {why}", node, driver)


def no_medium(name: str) -> BlockError:
    """The error of a node or a backend, by its name, that has no image (ENOMEDIUM)."""
    return BlockError(_errno.ENOMEDIUM, "No medium inserted", name)


def errno_of(error: BaseException) -> int:
    """Returns the positive errno of whatever a driver raised; EIO where it has none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if isinstance(error, MemoryError):
        return _errno.ENOMEM
    return _errno.EIO
