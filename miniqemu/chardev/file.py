# SPDX-License-Identifier: GPL-2.0-only
"""What the guest sends goes into a file (QEMU: char-file.c)."""

from __future__ import annotations

import os

from .base import ChardevError
from .fd import FdChardev

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.context import AioContext


class FileChardev(FdChardev):
    """Overwrites the file at `path`. Sends nothing to the guest."""

    def __init__(self, ctx: AioContext, path: str, label: str = "serial0") -> None:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self.file = os.open(path, flags, 0o666)
        except OSError as error:
            raise ChardevError(f"Could not open '{path}': {error.strerror}") from None
        super().__init__(ctx, -1, self.file, label)

    def close(self) -> None:
        """Writes what is left and closes the file."""
        if not self.closed:
            self.flush()
            super().close()
            os.close(self.file)
