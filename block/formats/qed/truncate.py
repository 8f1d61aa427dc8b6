# SPDX-License-Identifier: GPL-2.0-only
"""A longer disk (bdrv_qed_co_truncate).

R1  Only the length in the header changes: what is new has no clusters. The tables' size, chosen
    when the image was made, says how long it may become.
R2  A header that cannot be made safe may be on the disk all the same. So the old length is written
    again.
Who may call it: coroutines in the node's context.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from block.core.error import BlockError, failed
from block.formats.qed.header import co_read_l1_table, is_image_size_valid, write_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qed.state import QedState


def _refuse(s: QedState, number: int, message: str) -> BlockError:
    return BlockError(number, message, s.bs.node_name, "qed")


async def co_truncate(s: QedState, size: int, prealloc: str) -> None:
    """Makes the disk `size` bytes long."""
    if prealloc != "off":
        raise _refuse(s, errno.ENOTSUP, f"Unsupported preallocation mode '{prealloc}'")
    if not is_image_size_valid(size, s.header.cluster_size, s.header.table_size):
        raise _refuse(s, errno.EINVAL, "Invalid image size specified")
    if size < s.header.image_size:
        raise _refuse(s, errno.ENOTSUP, "Shrinking images is currently not supported")
    async with s.allocating, s.lock:
        if s.l1_entries(size) > len(s.l1_table):
            await co_read_l1_table(s, size)
        old = s.header.image_size
        s.header.image_size = size
        try:
            await write_header(s)
            await s.file.co_flush()
        except OSError as error:
            s.header.image_size = old
            with suppress(OSError):
                await write_header(s)
            what = "Failed to update the image size"
            raise failed(what, error, s.bs.node_name, "qed") from error
