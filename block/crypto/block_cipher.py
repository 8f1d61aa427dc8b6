# SPDX-License-Identifier: GPL-2.0-only
"""A cipher, block by block, and long numbers to combine blocks with (crypto/cipher-*.c.inc).

    PackageCipher     AES and CAST5, from the Python package `cryptography`
    NettleCipher      Serpent and Twofish, which it lacks (nettle_library.py)
    new_block_cipher  whichever of them has the cipher

R1  A library is loaded when the first key for it is set up: whoever has no encrypted image pays
    nothing for it.
R2  Such a cipher keeps nothing from one call to the next, but only one thread may be in it. Every
    call takes a whole number of blocks.

Discussion: `cryptography` knows XTS, CBC and CTR itself, but sets up a new cipher for each sector's
IV, and that takes 6 us where the sector itself takes 0.1. So the modes are built here, from the
plain block cipher (ECB) over all sectors at once and from XOR, for which Python's long integers
are quick: modes.py, xts.py. And so a cipher that another library has comes in all modes, too.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from _typeshed import ReadableBuffer

    class Chain(Protocol):
        """An encryption in CBC mode that goes on from call to call."""

        def update(self, data: bytes, /) -> bytes: ...

    class BlockCipher(Protocol):
        """One key; `block` is the length of a block in bytes."""

        block: int

        def encrypt(self, data: ReadableBuffer) -> bytes: ...
        def decrypt(self, data: ReadableBuffer) -> bytes: ...
        def chained(self) -> Chain: ...


BLOCK = 16  # bytes; that of all ciphers but CAST5


def new_block_cipher(alg: str, key: bytes) -> BlockCipher:
    """The cipher of QEMU's name with a key of its length. Raises BlockError: it is not there."""
    family = alg.partition("-")[0]
    if family in ("aes", "cast5"):
        return PackageCipher(alg, key)
    if family in ("serpent", "twofish"):
        from block.crypto.nettle_library import NettleCipher

        return NettleCipher(alg, key)
    raise BlockError(errno.ENOTSUP, f"Unsupported cipher algorithm {alg}")


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


def _algorithm(alg: str) -> Any:
    """The package's class for the cipher."""
    algorithms = library()[1]
    if alg.startswith("aes"):
        return algorithms.AES
    from cryptography.hazmat.decrepit.ciphers.algorithms import CAST5

    return CAST5


def _encryptor(cipher: Any, alg: str) -> Any:
    """Begins to encrypt. Raises BlockError where OpenSSL was built, or set up, without that."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return cipher.encryptor()
    except UnsupportedAlgorithm as error:
        message = f"Cipher {alg} is not in this OpenSSL, or not in use ({error})"
        raise BlockError(errno.ENOTSUP, message) from None


class PackageCipher:
    """One key of AES, 16, 24 or 32 bytes, or of CAST5, 16 bytes (R2)."""

    __slots__ = ("_decrypt", "_encrypt", "_key", "block")

    def __init__(self, alg: str, key: bytes) -> None:
        cipher_class, _, modes = library()
        self._key = _algorithm(alg)(key)
        self.block: int = self._key.block_size // 8
        cipher = cipher_class(self._key, modes.ECB())
        self._encrypt = _encryptor(cipher, alg).update
        self._decrypt = cipher.decryptor().update

    def encrypt(self, data: ReadableBuffer) -> bytes:
        """Encrypts each block by itself."""
        result: bytes = self._encrypt(data)
        return result

    def decrypt(self, data: ReadableBuffer) -> bytes:
        """Decrypts each block by itself."""
        result: bytes = self._decrypt(data)
        return result

    def chained(self) -> Chain:
        """A new CBC encryption from an IV of zeroes: `update(data)`, call after call."""
        cipher_class, _, modes = library()
        chain: Chain = cipher_class(self._key, modes.CBC(bytes(self.block))).encryptor()
        return chain


def xor(a: ReadableBuffer, b: ReadableBuffer) -> bytes:
    """a XOR b, for two buffers of one length."""
    size = memoryview(a).nbytes
    number = int.from_bytes(a, "little") ^ int.from_bytes(b, "little")
    return number.to_bytes(size, "little")


def decrypt_cbc(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Decrypts one text that was encrypted by AES in CBC mode."""
    return xor(PackageCipher("aes", key).decrypt(data), iv + data[:-BLOCK])
