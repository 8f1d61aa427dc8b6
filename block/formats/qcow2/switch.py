# SPDX-License-Identifier: GPL-2.0-only
"""One write that decides which tables hold, mostly one to the header.

    old table <--- header          header ---> new table
                   before          behind

R1  What the new table needs is in the file, flushed, before.
R2  A write or a flush that failed may have reached the disk all the same. This node goes on with
    the old table; the next one to open the image would find the new one, and nothing of what was
    written since. So what the header said before is written again.
R3  Where that fails, too, nobody knows what the header says: HeaderUnknown. Then neither table is
    freed, and the image is given up (corrupt.py): as nothing is written any more, whoever opens
    it next has what was flushed by the one table or by the other. A person is told.
Who may call it: coroutines that hold the image's lock.

What once went wrong: a flush failed behind the switch to a longer L1 table. The guest went on, and
new L2 tables were hooked up in the old one; when the image was opened again, they were gone. QEMU
also frees the table that the header names by then. Here it went wrong once more where two failures
came in a row (R3): this node worked on with the old table.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.core.report import warn_report
from block.formats.qcow2.corrupt import give_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.state import Qcow2State


class HeaderUnknown(BlockError):
    """The header names the old table or the new one, and the image was given up (R3)."""


async def switch(s: Qcow2State, offset: int, data: memoryview) -> None:
    """Writes some fields of the header, or of a table, and makes them durable.

    Raises OSError: all is as it was; HeaderUnknown: it may be (R2, R3).
    """
    before = memoryview(bytearray(len(data)))
    await s.file.co_preadv(offset, len(before), [before])
    try:
        await _write(s, offset, data)
    except OSError as error:
        try:
            await _write(s, offset, before)
        except OSError:
            give_up(s, "Nobody knows what the header says")
            warn_report(f"qcow2: {s.broken}; the image is written no more: {error}")
            number = error.errno or errno.EIO
            raise HeaderUnknown(number, str(error), s.bs.node_name, "qcow2") from error
        raise


async def _write(s: Qcow2State, offset: int, data: memoryview) -> None:
    await s.file.co_pwritev(offset, len(data), [data])
    await s.file.co_flush()
