# SPDX-License-Identifier: GPL-2.0-only
"""Whole sectors in the older modes: ecb, cbc, ctr; `E` is the block cipher.

    ecb    C = E(P)                              equal blocks look equal: for nobody
    cbc    C = E(P xor the C before)             the first of a sector takes the IV
    ctr    C = P xor E(the IV counted up)        as big-endian numbers

R1  Every sector begins anew, with its own IV.
R2  A last sector that is short is as good as any: its blocks are those of a long one.
Who may call it: one thread at a time.
"""

from __future__ import annotations

from block.crypto.aes import BLOCK, Aes, xor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from block.crypto.ivgen import IvGen

SECTOR = 512
BLOCKS = SECTOR // BLOCK
WORDS = SECTOR // 8
COUNTER_MASK = (1 << 8 * BLOCK) - 1


def sectors(size: int) -> int:
    """How many sectors so many bytes are."""
    return -(-size // SECTOR)


class SectorCipher:
    """A key in one mode. `sector` is the number of the first; data are whole blocks (R1, R2)."""

    def encrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        """Encrypts sectors, from number `sector` on."""
        raise NotImplementedError

    def decrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        """Decrypts sectors, from number `sector` on."""
        raise NotImplementedError


class Ecb(SectorCipher):
    """Each block by itself."""

    def __init__(self, key: bytes, ivgen: IvGen) -> None:
        self._aes = Aes(key)

    def encrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        return self._aes.encrypt(data)

    def decrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        return self._aes.decrypt(data)


class Cbc(SectorCipher):
    """Each block depends on those before it in the sector."""

    def __init__(self, key: bytes, ivgen: IvGen) -> None:
        self._aes = Aes(key)
        self._ivgen = ivgen

    def encrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        """One chain through all sectors: what it would mix into a sector's first block, the end
        of the sector before, is mixed in twice, and so not at all."""
        view = memoryview(data).cast("B")
        ivs = self._ivgen(sector, sectors(len(view)))
        chain = self._aes.chained()
        before, parts = bytes(BLOCK), []
        for start, at in zip(range(0, len(view), SECTOR), range(0, len(ivs), BLOCK), strict=True):
            head = xor(xor(view[start : start + BLOCK], ivs[at : at + BLOCK]), before)
            part = chain.update(head + view[start + BLOCK : start + SECTOR])
            before = part[-BLOCK:]
            parts.append(part)
        return b"".join(parts)

    def decrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        """All blocks at once: what has to be mixed in is known, the blocks before."""
        view = memoryview(data).cast("B")
        before = bytearray(view[-BLOCK:]) + view[:-BLOCK]
        ivs = memoryview(self._ivgen(sector, sectors(len(view)))).cast("Q")
        words = memoryview(before).cast("Q")
        words[::WORDS], words[1::WORDS] = ivs[::2], ivs[1::2]
        return xor(self._aes.decrypt(view), before)


class Ctr(SectorCipher):
    """A stream of numbers, encrypted; both directions are the same."""

    def __init__(self, key: bytes, ivgen: IvGen) -> None:
        self._aes = Aes(key)
        self._ivgen = ivgen

    def encrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        view = memoryview(data).cast("B")
        ivs = self._ivgen(sector, sectors(len(view)))
        counters = b"".join(_counters(ivs[at : at + BLOCK]) for at in range(0, len(ivs), BLOCK))
        return xor(self._aes.encrypt(counters)[: len(view)], view)

    decrypt = encrypt


def _counters(iv: bytes) -> bytes:
    """The numbers of one sector: the IV, and those that follow."""
    first = int.from_bytes(iv, "big")
    numbers = range(first, first + BLOCKS)
    return b"".join((number & COUNTER_MASK).to_bytes(BLOCK, "big") for number in numbers)
