# SPDX-License-Identifier: GPL-2.0-only
"""Reading compressed clusters (qcow2_co_preadv_compressed).

They lie packed in the clusters of the file, at any byte. An entry tells where one begins and how
many sectors of 512 bytes it may reach into; the last of these may hold others, too:

    file      |  cluster                      |  cluster                      |
    packed    [ A      )[ B       )[ C              )[ D  )
    sectors   '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '
    entry C               offset --^ 5 more sectors: ^

R1  What is packed unpacks to exactly one cluster.
R2  Clusters that follow one another in the guest and in the file are read at once, and unpacked
    side by side (packed.py).
Who may call it: coroutines in the node's context, without the lock.
"""

from __future__ import annotations

from block.aio.co_lock import CoQueue
from block.core.compress import Deflate, Zstd
from block.core.debug import READ_COMPRESSED, debug_event
from block.core.packed import co_read_packed, co_unpack, packed_run
from block.formats.qcow2.compressed_entry import compressed_place
from block.formats.qcow2.corrupt import error
from block.formats.qcow2.layout import COMPRESSION_ZLIB, COMPRESSION_ZSTD, OFLAG_COMPRESSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from block.core.compress import Codec
    from block.core.iov import Iov
    from block.core.packed import Packed
    from block.formats.qcow2.state import Qcow2State

CODECS: dict[int, Callable[[], Codec]] = {COMPRESSION_ZLIB: Deflate, COMPRESSION_ZSTD: Zstd}


async def co_preadv_compressed(
    s: Qcow2State, entry: int, offset: int, nbytes: int, qiov: Iov
) -> int:
    """Reads compressed clusters, the first one and what follows it; returns the bytes read."""
    inside = offset & s.cluster_mask
    run = packed_run(_places(s, entry, offset), s.cluster_size, inside, nbytes)
    await _read(s, run)
    await co_unpack(s.bs, CODECS[s.compression_type], run, s.cluster_size, qiov)
    for packed in run:
        if packed.is_bad:
            raise error(s, f"Compressed cluster at {packed.place:#x} cannot be unpacked")
    return run[-1].at + run[-1].nbytes


async def _read(s: Qcow2State, run: list[Packed]) -> None:
    """Reads from the file; nobody writes over it meanwhile (let_go.py, R4)."""
    through = CoQueue()
    s.unpacking[through] = None
    try:
        await debug_event(s.file.bs, READ_COMPRESSED)
        await co_read_packed(s.file, run)
    finally:
        del s.unpacking[through]
        through.restart_all()


def _places(s: Qcow2State, entry: int, offset: int) -> Iterator[tuple[int, int]]:
    """Where the compressed cluster at an offset lies, and those behind it in the same slice."""
    table = s.cached_slice(offset)
    yield compressed_place(s, entry)
    if table is None:
        return
    for index in range(s.slice_index(offset) + 1, len(table.cells)):
        entry = table.cells[index]
        if not entry & OFLAG_COMPRESSED:
            return
        yield compressed_place(s, entry)
