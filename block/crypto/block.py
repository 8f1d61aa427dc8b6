# SPDX-License-Identifier: GPL-2.0-only
"""What a driver holds of an encrypted disk (QCryptoBlock, crypto/block.c).

R1  Offsets and lengths are bytes, whole sectors of 512; offset 0 is where the payload begins.
R2  An image that was opened to be asked about only (BDRV_O_NO_IO) has no key, and no cipher.
R3  The header is read and written by functions that the driver hands in; what they raise goes
    through as it is.
Who may call it: the thread of the node's context, one request at a time in it (block_cipher.py,
R2).
"""

from __future__ import annotations

from block.core.options import invalid
from block.crypto.modes import SECTOR
from block.objects.secret import lookup_as_utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from _typeshed import ReadableBuffer

    from block.crypto.modes import SectorCipher

    ReadFunc: TypeAlias = Callable[[int, int], bytes]  # (offset, bytes)
    WriteFunc: TypeAlias = Callable[[int, bytes], None]  # (offset, data)
    InitFunc: TypeAlias = Callable[[int], None]  # (bytes that the header takes)

SECTOR_BITS = SECTOR.bit_length() - 1


def password_of(key_secret: str | None, prefix: str) -> bytes:
    """The password that the option `key-secret` names; `prefix` stands in front of that name in
    the message. Raises BlockError."""
    if key_secret is None:
        raise invalid(f"Parameter '{prefix}key-secret' is required for cipher")
    return lookup_as_utf8(key_secret)


class CryptoBlock:
    """An open disk; `payload_offset` is where its data begin, counted from the header's start."""

    format = ""

    def __init__(self, cipher: SectorCipher | None, payload_offset: int) -> None:
        self.cipher = cipher
        self.payload_offset = payload_offset

    def encrypt(self, offset: int, data: ReadableBuffer) -> bytes | bytearray:
        """Encrypts what a guest writes at an offset (qcrypto_block_encrypt, R1)."""
        assert self.cipher is not None, "R2"
        assert not offset % SECTOR, "R1"
        return self.cipher.encrypt(offset >> SECTOR_BITS, data)

    def decrypt(self, offset: int, data: ReadableBuffer) -> bytes | bytearray:
        """Decrypts what a guest reads at an offset (qcrypto_block_decrypt, R1)."""
        assert self.cipher is not None, "R2"
        assert not offset % SECTOR, "R1"
        return self.cipher.decrypt(offset >> SECTOR_BITS, data)

    def get_info(self) -> dict[str, object]:
        """What `info` tells: QCryptoBlockInfo of QEMU's schema, without `format`."""
        return {}
