# SPDX-License-Identifier: GPL-2.0-only
"""Requests for data that are encrypted below (block_crypto_co_preadv, _co_pwritev).

R1  Data go through a bounce buffer: a guest must never see what stands in the file, and what it
    gives us to write is its own and stays as it is. A buffer is MAX_IO long at most.
R2  Encryption is done where the request is, in the thread of the node's context.
R3  `place` is an offset in the child, `offset` the one that the encryption counts from. Whole
    sectors only.
"""

from __future__ import annotations

from block.core import flags as f
from block.core import io
from block.core.align import blockalign
from block.core.iov import iov_from_bytes, iov_slice, iov_to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.crypto.block import CryptoBlock

MAX_IO = 1 << 20


def try_preadv(
    child: BdrvChild, place: int, crypto: CryptoBlock, offset: int, nbytes: int, qiov: Iov
) -> int | None:
    """Reads and decrypts at once, or declines (DESIGN.md, rule 13)."""
    buffer = bytearray(nbytes)
    if io.try_preadv(child, place, nbytes, [memoryview(buffer)]) is None:
        return None
    iov_from_bytes(qiov, 0, crypto.decrypt(offset, buffer))
    return 0


async def co_preadv(
    child: BdrvChild, place: int, crypto: CryptoBlock, offset: int, nbytes: int, qiov: Iov
) -> None:
    """Reads and decrypts."""
    buffer = _bounce_buffer(child, min(nbytes, MAX_IO))
    for done in range(0, nbytes, MAX_IO):
        part = buffer[: min(nbytes - done, MAX_IO)]
        await io.co_preadv(child, place + done, len(part), [part], 0)
        iov_from_bytes(qiov, done, crypto.decrypt(offset + done, part))


async def co_pwritev(
    child: BdrvChild,
    place: int,
    crypto: CryptoBlock,
    offset: int,
    nbytes: int,
    qiov: Iov,
    flags: int = 0,
) -> None:
    """Encrypts and writes."""
    for done in range(0, nbytes, MAX_IO):
        size = min(nbytes - done, MAX_IO)
        plain = iov_slice(qiov, done, size)
        data = plain[0] if len(plain) == 1 else iov_to_bytes(plain)
        part = [memoryview(crypto.encrypt(offset + done, data))]
        await child.co_pwritev(place + done, size, part, flags)


def _bounce_buffer(child: BdrvChild, nbytes: int) -> memoryview:
    """Memory to read into; with O_DIRECT it lies at a page's start."""
    if child.bs.open_flags & f.BDRV_O_NOCACHE:
        return blockalign(nbytes)
    return memoryview(bytearray(nbytes))
