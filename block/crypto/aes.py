# SPDX-License-Identifier: GPL-2.0-only
"""AES, block by block, and long numbers to combine blocks with (crypto/cipher-*.c.inc).

R1  `cryptography` is imported when the first key is set up: whoever has no encrypted image pays
    nothing for it.
R2  Such a cipher keeps nothing from one call to the next, but only one thread may be in it.

Discussion: `cryptography` knows XTS, CBC and CTR itself, but sets up a new cipher for each sector's
IV, and that takes 14 us where the sector itself takes 0.5. So the modes are built here, from the
plain block cipher (ECB) over all sectors at once and from XOR, for which Python's long integers
are quick: modes.py, xts.py.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from _typeshed import ReadableBuffer

BLOCK = 16


def library() -> Any:
    """(Cipher, algorithms, modes) of `cryptography` (R1). Raises BlockError(ENOENT)."""
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError as error:
        message = (
            "Encryption needs the Python module 'cryptography': "
            f"python -m pip install cryptography ({error})"
        )
        raise BlockError(errno.ENOENT, message) from None
    return Cipher, algorithms, modes


class Aes:
    """One key of 16, 24 or 32 bytes; every call takes a whole number of blocks (R2)."""

    __slots__ = ("_decrypt", "_encrypt", "_key")

    def __init__(self, key: bytes) -> None:
        cipher_class, algorithms, modes = library()
        self._key = algorithms.AES(key)
        cipher = cipher_class(self._key, modes.ECB())
        self._encrypt = cipher.encryptor().update
        self._decrypt = cipher.decryptor().update

    def encrypt(self, data: ReadableBuffer) -> bytes:
        """Encrypts each block by itself."""
        result: bytes = self._encrypt(data)
        return result

    def decrypt(self, data: ReadableBuffer) -> bytes:
        """Decrypts each block by itself."""
        result: bytes = self._decrypt(data)
        return result

    def chained(self) -> Any:
        """A new CBC encryption from an IV of zeroes: `update(data)`, call after call."""
        cipher_class, _, modes = library()
        return cipher_class(self._key, modes.CBC(bytes(BLOCK))).encryptor()


def xor(a: ReadableBuffer, b: ReadableBuffer) -> bytes:
    """a XOR b, for two buffers of one length."""
    size = memoryview(a).nbytes
    number = int.from_bytes(a, "little") ^ int.from_bytes(b, "little")
    return number.to_bytes(size, "little")


def decrypt_cbc(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Decrypts one text that was encrypted in CBC mode."""
    return xor(Aes(key).decrypt(data), iv + data[:-BLOCK])
