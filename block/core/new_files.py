# SPDX-License-Identifier: GPL-2.0-only
"""The files of an image that is being made (bdrv_create_file, bdrv_co_delete_file_noerr).

    with NewFiles() as files:
        files.make("disk.qcow2", {"size": 0})
        with open_to_fill("disk.qcow2") as blk:
            blk.pwrite(0, ...)

R1  Where an image cannot be finished, what was made of it is taken away: nobody should find half an
    image, and believe it. What stood there before is lost in any case, for a file is made empty.
R2  That it cannot be taken away is no second error.
Who may call it: `create` of the formats, in the main thread; it blocks.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.open import open_backend
from block.core.registry import find_protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from block.core.backend import BlockBackend
    from block.core.driver import BlockDriver


def open_to_fill(filename: str) -> BlockBackend:
    """Opens a new file by the protocol that its name has: it can be written and made longer."""
    driver = find_protocol(filename).format_name
    return open_backend(filename, options={"driver": driver}, flags=f.BDRV_O_RDWR | f.BDRV_O_RESIZE)


class NewFiles:
    """Files that belong together: all of them are there in the end, or none (R1)."""

    def __init__(self) -> None:
        self._made: list[tuple[BlockDriver, str]] = []

    def make(self, filename: str, options: dict[str, object]) -> None:
        """Makes one, by the protocol that the name has; takes its options out of `options`."""
        protocol = find_protocol(filename)
        protocol.create(filename, options)
        self._made.append((protocol, filename))

    def __enter__(self) -> NewFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            return
        for protocol, filename in self._made:
            try:
                protocol.delete_file(filename)
            except OSError:
                continue  # R2
