# SPDX-License-Identifier: GPL-2.0-only
"""What every sector begins with, so that equal sectors do not look equal (crypto/ivgen-*.c).

    plain      the sector's number in 32 bits, little-endian, then zeroes: repeats after 2 TiB
    plain64    the same in 64 bits
    essiv      plain64, encrypted with a hash of the key: nobody can tell it beforehand

R1  Sectors count from the start of what is encrypted, in units of 512 bytes.
R2  An IV is as long as a block of the cipher: 16 bytes, or 8, and then the zeroes fall away.
Pure; called where the cipher is (block_cipher.py, R2).
"""

from __future__ import annotations

import sys
from array import array

from block.crypto.block_cipher import BLOCK
from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from block.crypto.block_cipher import BlockCipher

    IvGen: TypeAlias = Callable[[int, int], bytes]

PLAIN_MASK = 0xFFFF_FFFF
SECTOR_MASK = (1 << 64) - 1


def plain64(sector: int, count: int, width: int = BLOCK) -> bytes:
    """The IVs of `count` sectors from `sector` on, `width` bytes each (R2)."""
    if count == 1:
        return (sector & SECTOR_MASK).to_bytes(width, "little")
    numbers = array("Q", range(sector, sector + count))
    if sys.byteorder == "big":
        numbers.byteswap()
    ivs = array("Q", bytes(width * count))
    memoryview(ivs)[:: width // 8] = memoryview(numbers)
    return ivs.tobytes()


def plain(sector: int, count: int, width: int = BLOCK) -> bytes:
    """As plain64, but the number is cut to 32 bits."""
    first = sector & PLAIN_MASK
    if first + count <= PLAIN_MASK + 1:
        return plain64(first, count, width)
    before = PLAIN_MASK + 1 - first
    return plain64(first, before, width) + plain(0, count - before, width)


class Essiv:
    """plain64, encrypted (crypto/ivgen-essiv.c); the cipher's key is a hash of the disk's."""

    def __init__(self, cipher: BlockCipher) -> None:
        self._cipher = cipher

    def __call__(self, sector: int, count: int) -> bytes:
        return self._cipher.encrypt(plain64(sector, count, self._cipher.block))


def new_ivgen(alg: str, width: int = BLOCK, cipher: BlockCipher | None = None) -> IvGen:
    """The generator of that name: a function of (sector, count) (qcrypto_ivgen_new).

    `width` is R2's. essiv needs the cipher, and goes by its blocks.
    """
    if alg == "essiv":
        assert cipher is not None, "essiv without a cipher"
        return Essiv(cipher)
    generator = plain if alg == "plain" else plain64
    return generator if width == BLOCK else partial(generator, width=width)
