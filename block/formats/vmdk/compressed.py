# SPDX-License-Identifier: GPL-2.0-only
"""Grains of streamOptimized images: a marker, then the grain packed by zlib.

    | first guest sector, 8 bytes | length, 4 bytes | zlib data ... | zeroes up to a whole sector |

Such an image is made to be sent: it is written once, from its beginning to its end.

R1  A grain is written once and as a whole. Where another one follows depends on how well this one
    packs, so there is no place to write it anew.
R2  No more than one grain is ever unpacked, whatever the image says.
Who may call it: coroutines in the node's context.
"""

from __future__ import annotations

import errno

from block.core.compress import pack_zlib, unpack_zlib
from block.core.debug import READ_COMPRESSED, WRITE_COMPRESSED, debug_event
from block.core.error import BlockError
from block.core.iov import iov_from_bytes
from block.formats.vmdk.layout import GRAIN_MARKER, SECTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.iov import Iov
    from block.formats.vmdk.extent import Extent


async def read_grain(extent: Extent, sector: int, inside: int, nbytes: int, qiov: Iov) -> None:
    """Reads a part of one compressed grain (vmdk_read_extent)."""
    # Two grains long: bad luck makes the packed grain longer than the plain one.
    data = bytearray(2 * extent.grain)
    await debug_event(extent.file.bs, READ_COMPRESSED)
    await extent.file.co_preadv(sector * SECTOR, len(data), [memoryview(data)])
    packed = memoryview(data)
    if extent.has_markers:
        _, length = GRAIN_MARKER.unpack_from(data)
        packed = packed[GRAIN_MARKER.size :][:length]
        if not 0 < length <= len(packed):
            raise extent.error(f"compressed grain at sector {sector} is {length} bytes long")
    plain = unpack_zlib(packed, extent.grain)  # R2
    if plain is None or inside + nbytes > len(plain):
        raise extent.error(f"compressed grain at sector {sector} cannot be unpacked")
    iov_from_bytes(qiov, 0, memoryview(plain)[inside : inside + nbytes])


async def write_grain(extent: Extent, guest_sector: int, data: bytes) -> int:
    """Writes a grain at the end of the file; returns where (vmdk_write_extent, R1)."""
    if not extent.has_markers:
        message = "vmdk: header.flags tell of no markers: compressed grains cannot be written"
        raise BlockError(errno.EINVAL, message, driver="vmdk")
    packed = pack_zlib(data)
    record = GRAIN_MARKER.pack(guest_sector, len(packed)) + packed
    record += bytes(-len(record) % SECTOR)
    sector = extent.next_sector
    extent.next_sector = sector + len(record) // SECTOR
    await debug_event(extent.file.bs, WRITE_COMPRESSED)
    await extent.file.co_pwritev(sector * SECTOR, len(record), [memoryview(record)])
    return sector
