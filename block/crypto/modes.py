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

from block.crypto.block_cipher import xor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from block.crypto.block_cipher import BlockCipher
    from block.crypto.ivgen import IvGen

SECTOR = 512
WORD = 8
WORDS = SECTOR // WORD


def sectors(size: int) -> int:
    """How many sectors so many bytes are."""
    return -(-size // SECTOR)


class SectorCipher:
    """A key in one mode. `sector` is the number of the first; data are whole blocks (R1, R2)."""

    def encrypt(self, sector: int, data: ReadableBuffer) -> bytes | bytearray:
        """Encrypts sectors, from number `sector` on."""
        raise NotImplementedError

    def decrypt(self, sector: int, data: ReadableBuffer) -> bytes | bytearray:
        """Decrypts sectors, from number `sector` on."""
        raise NotImplementedError


class Ecb(SectorCipher):
    """Each block by itself."""

    def __init__(self, cipher: BlockCipher, ivgen: IvGen) -> None:
        self._cipher = cipher

    def encrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        return self._cipher.encrypt(data)

    def decrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        return self._cipher.decrypt(data)


class Cbc(SectorCipher):
    """Each block depends on those before it in the sector."""

    def __init__(self, cipher: BlockCipher, ivgen: IvGen) -> None:
        self._cipher = cipher
        self._ivgen = ivgen

    def encrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        """One chain through all sectors: what it would mix into a sector's first block, the end
        of the sector before, is mixed in twice, and so not at all."""
        view, block = memoryview(data).cast("B"), self._cipher.block
        ivs = self._ivgen(sector, sectors(len(view)))
        chain = self._cipher.chained()
        before, parts = bytes(block), []
        for start, at in zip(range(0, len(view), SECTOR), range(0, len(ivs), block), strict=True):
            head = xor(xor(view[start : start + block], ivs[at : at + block]), before)
            part = chain.update(head + view[start + block : start + SECTOR])
            before = part[-block:]
            parts.append(part)
        return b"".join(parts)

    def decrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        """All blocks at once: what has to be mixed in is known, the blocks before."""
        view, block = memoryview(data).cast("B"), self._cipher.block
        before = bytearray(view[-block:]) + view[:-block]
        ivs = memoryview(self._ivgen(sector, sectors(len(view)))).cast("Q")
        words = memoryview(before).cast("Q")
        for word in range(block // WORD):
            words[word::WORDS] = ivs[word :: block // WORD]
        return xor(self._cipher.decrypt(view), before)


class Ctr(SectorCipher):
    """A stream of numbers, encrypted; both directions are the same."""

    def __init__(self, cipher: BlockCipher, ivgen: IvGen) -> None:
        self._cipher = cipher
        self._ivgen = ivgen

    def encrypt(self, sector: int, data: ReadableBuffer) -> bytes:
        view, block = memoryview(data).cast("B"), self._cipher.block
        ivs = self._ivgen(sector, sectors(len(view)))
        counters = b"".join(_counters(ivs[at : at + block]) for at in range(0, len(ivs), block))
        return xor(self._cipher.encrypt(counters)[: len(view)], view)

    decrypt = encrypt


def _counters(iv: bytes) -> bytes:
    """The numbers of one sector: the IV, and those that follow; each is as long as a block."""
    first, block = int.from_bytes(iv, "big"), len(iv)
    numbers, mask = range(first, first + SECTOR // block), (1 << 8 * block) - 1
    return b"".join((number & mask).to_bytes(block, "big") for number in numbers)
