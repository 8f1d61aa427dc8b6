# SPDX-License-Identifier: GPL-2.0-only
"""Reading compressed clusters (qcow2_co_preadv_compressed, qcow2-threads.c).

Several of them lie in one cluster of the file, packed at any byte. The entry tells where one
begins and how many sectors of 512 bytes it may reach into.

R1  The data are raw deflate with a window of 4 KiB, and unpack to exactly one cluster. No more
    than that is ever unpacked, whatever the image says.
Who may call it: coroutines in the node's context, without the lock.
"""

from __future__ import annotations

from block.core.debug import READ_COMPRESSED, debug_event
from block.core.iov import iov_from_bytes
from block.formats.qcow2.corrupt import error
from block.formats.qcow2.refcount import compressed_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.iov import Iov
    from block.formats.qcow2.state import Qcow2State

WINDOW_BITS = -12


async def co_preadv_compressed(
    s: Qcow2State, entry: int, offset: int, nbytes: int, qiov: Iov
) -> None:
    """Reads a part of one compressed cluster."""
    place, packed = compressed_place(s, entry)
    data = bytearray(packed)
    await debug_event(s.file.bs, READ_COMPRESSED)
    await s.data.co_preadv(place, packed, [memoryview(data)])
    inside = offset & s.cluster_mask
    plain = unpack(data, s.cluster_size)
    if plain is None:
        raise error(s, f"Compressed cluster at {place:#x} cannot be unpacked")
    iov_from_bytes(qiov, 0, plain[inside : inside + nbytes])


def unpack(data: bytearray, size: int) -> bytes | None:
    """Exactly `size` bytes, or None where the data are no such thing (R1)."""
    import zlib

    try:
        plain = zlib.decompressobj(WINDOW_BITS).decompress(data, size)
    except zlib.error:
        return None
    return plain if len(plain) == size else None
