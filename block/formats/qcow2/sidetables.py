# SPDX-License-Identifier: GPL-2.0-only
"""The snapshot table, as far as a check must know it.

Its clusters are in use. A check that did not read it would call them leaked, and a repair would
give them away.

R1  Each number is capped as QEMU caps it, before memory is asked for.
Who may call it: walk.py.
"""

from __future__ import annotations

import errno
import struct

from block.core.error import BlockError
from block.formats.qcow2.layout import (
    MAX_SNAPSHOTS,
    SNAPSHOT_HEADER_LENGTH,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.walk import Walk

SNAPSHOT = struct.Struct(">QIHHIIQII")
"""l1_table_offset, l1_size, id_str_size, name_size, date_sec, date_nsec, vm_clock_nsec,
vm_state_size, extra_data_size."""
MAX_EXTRA = 1024
MAX_SNAPSHOTS_SIZE = 1024 * MAX_SNAPSHOTS


class Snapshot:
    """One internal snapshot: where its L1 table is."""

    __slots__ = ("extra_size", "id", "l1_offset", "l1_size", "name")

    def __init__(self, l1_offset: int, l1_size: int, extra_size: int, who: tuple[str, str]) -> None:
        self.l1_offset = l1_offset
        self.l1_size = l1_size
        self.extra_size = extra_size
        self.id, self.name = who


def _refuse(walk: Walk, message: str, number: int = errno.EINVAL) -> BlockError:
    return BlockError(number, message, walk.s.bs.node_name, "qcow2")


async def read_snapshots(walk: Walk) -> tuple[list[Snapshot], int]:
    """The snapshots, and how many bytes their table has (qcow2_do_read_snapshots).

    Raises BlockError where the table is too large or cut off.
    """
    s = walk.s
    if s.nb_snapshots > MAX_SNAPSHOTS:
        raise _refuse(walk, f"Snapshot table too large ({s.nb_snapshots})", errno.EFBIG)
    most = s.nb_snapshots * (SNAPSHOT_HEADER_LENGTH + MAX_EXTRA + 2 * 65536)
    most = min(most, MAX_SNAPSHOTS_SIZE, max(0, walk.file_length - s.snapshots_offset))
    data = await walk.read(s.snapshots_offset, most)
    snapshots = []
    at = 0
    for number in range(s.nb_snapshots):
        at += -at % 8
        if at + SNAPSHOT_HEADER_LENGTH > most:
            raise _refuse(walk, "Snapshot table is too big", errno.EFBIG)
        l1_offset, l1_size, id_size, name_size, *_, extra = SNAPSHOT.unpack_from(data, at)
        if extra > MAX_EXTRA:
            message = f"Too much extra metadata in snapshot table entry {number}"
            raise _refuse(walk, message, errno.EFBIG)
        at += SNAPSHOT_HEADER_LENGTH + extra
        who = _text(data[at : at + id_size]), _text(data[at + id_size : at + id_size + name_size])
        at += id_size + name_size
        if at > most:
            raise _refuse(walk, "Snapshot table is too big", errno.EFBIG)
        snapshots.append(Snapshot(l1_offset, l1_size, extra, who))
    return snapshots, at


def _text(data: bytes | bytearray) -> str:
    return data.decode(errors="backslashreplace")
