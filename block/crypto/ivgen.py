# SPDX-License-Identifier: GPL-2.0-only
"""What every sector begins with, so that equal sectors do not look equal (crypto/ivgen-*.c).

    plain      the sector's number in 32 bits, little-endian, then zeroes: repeats after 2 TiB
    plain64    the same in 64 bits
    essiv      plain64, encrypted with a hash of the key: nobody can tell it beforehand

R1  Sectors count from the start of what is encrypted, in units of 512 bytes.
Pure; called where the cipher is (aes.py, R2).
"""

from __future__ import annotations

import sys
from array import array

from block.crypto.aes import BLOCK, Aes
from block.crypto.hashes import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    IvGen: TypeAlias = Callable[[int, int], bytes]

PLAIN_MASK = 0xFFFF_FFFF
SECTOR_MASK = (1 << 64) - 1


def plain64(sector: int, count: int) -> bytes:
    """The IVs of `count` sectors from `sector` on, 16 bytes each."""
    if count == 1:
        return (sector & SECTOR_MASK).to_bytes(BLOCK, "little")
    numbers = array("Q", range(sector, sector + count))
    if sys.byteorder == "big":
        numbers.byteswap()
    ivs = array("Q", bytes(BLOCK * count))
    memoryview(ivs)[::2] = memoryview(numbers)
    return ivs.tobytes()


def plain(sector: int, count: int) -> bytes:
    """As plain64, but the number is cut to 32 bits."""
    first = sector & PLAIN_MASK
    if first + count <= PLAIN_MASK + 1:
        return plain64(first, count)
    before = PLAIN_MASK + 1 - first
    return plain64(first, before) + plain(0, count - before)


class Essiv:
    """plain64, encrypted (crypto/ivgen-essiv.c); `key_length` is that of the cipher for it."""

    def __init__(self, key: bytes, hash_alg: str, key_length: int) -> None:
        self._aes = Aes(digest(hash_alg, key)[:key_length])

    def __call__(self, sector: int, count: int) -> bytes:
        return self._aes.encrypt(plain64(sector, count))


def new_ivgen(alg: str, key: bytes, hash_alg: str = "", key_length: int = 0) -> IvGen:
    """The generator of that name: a function of (sector, count) (qcrypto_ivgen_new).

    Only essiv looks at the other arguments.
    """
    if alg == "essiv":
        return Essiv(key, hash_alg, key_length)
    return plain if alg == "plain" else plain64
