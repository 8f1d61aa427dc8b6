# SPDX-License-Identifier: GPL-2.0-only
"""Serpent and Twofish, from the C library that QEMU has them from, by ctypes (cipher-nettle.c.inc).

libnettle describes each of its ciphers by a structure: the lengths of blocks and keys, the room
that a key takes once it is set up, and the functions. So nothing of that has to be known here.

R1  The library is loaded for the first such cipher; then it stays.
R2  The functions end the process where a length is not a whole number of blocks (assert): so it is
    checked here, always.
R3  They are called without the interpreter's lock. They read a key and change nothing in it: more
    than one thread may be in them, though nobody needs that.
"""

from __future__ import annotations

import ctypes
import errno
from ctypes import CFUNCTYPE, c_char_p, c_size_t, c_uint, c_void_p

from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from _typeshed import ReadableBuffer

NAME, PACKAGE = "libnettle.so.8", "libnettle8"

SetKey = CFUNCTYPE(None, c_void_p, c_char_p)
CipherFunction = CFUNCTYPE(None, c_void_p, c_size_t, c_void_p, c_char_p)


class Description(ctypes.Structure):
    """What the library says of a cipher (struct nettle_cipher)."""

    _fields_ = (
        ("name", c_char_p),
        ("context_size", c_uint),
        ("block_size", c_uint),
        ("key_size", c_uint),
        ("set_encrypt_key", SetKey),
        ("set_decrypt_key", SetKey),
        ("encrypt", CipherFunction),
        ("decrypt", CipherFunction),
    )


_loaded: list[Any] = []  # the library, once it is (R1)


def load(alg: str) -> Any:
    """The library. Raises BlockError(ENOENT), which names the cipher that needs it."""
    if not _loaded:
        try:
            _loaded.append(ctypes.CDLL(NAME))
        except OSError as error:
            message = f"Cipher {alg} needs the library nettle: apt-get install {PACKAGE} ({error})"
            raise BlockError(errno.ENOENT, message) from None
    return _loaded[0]


class NettleCipher:
    """One key. Both directions share it: these ciphers set up the same for either."""

    __slots__ = ("_key", "_library", "_says", "block")

    def __init__(self, alg: str, key: bytes) -> None:
        self._library = load(alg)
        self._says = Description.in_dll(self._library, "nettle_" + alg.replace("-", ""))
        self.block = int(self._says.block_size)
        assert len(key) == self._says.key_size, "the caller has checked it"
        self._key = ctypes.create_string_buffer(self._says.context_size)
        self._says.set_encrypt_key(self._key, key)

    def encrypt(self, data: ReadableBuffer) -> bytes:
        """Encrypts each block by itself."""
        return self._run(self._says.encrypt, data)

    def decrypt(self, data: ReadableBuffer) -> bytes:
        """Decrypts each block by itself."""
        return self._run(self._says.decrypt, data)

    def _run(self, function: Any, data: ReadableBuffer) -> bytes:
        source = bytes(data)
        result = self._room(source)
        function(self._key, len(source), result, source)
        return result.raw

    def _room(self, source: bytes) -> ctypes.Array[ctypes.c_char]:
        """Where the blocks of a text will go (R2)."""
        if len(source) % self.block:
            message = f"Length {len(source)} must be a multiple of block size {self.block}"
            raise BlockError(errno.EINVAL, message)
        return ctypes.create_string_buffer(len(source))

    def chained(self) -> NettleChain:
        """A new CBC encryption from an IV of zeroes."""
        return NettleChain(self)


class NettleChain:
    """An encryption in CBC mode, call after call (nettle_cbc_encrypt)."""

    def __init__(self, cipher: NettleCipher) -> None:
        self._cipher = cipher
        self._iv = ctypes.create_string_buffer(cipher.block)
        self._function = cipher._library.nettle_cbc_encrypt
        self._function.argtypes = (
            *(c_void_p, CipherFunction, c_size_t),
            *(c_void_p, c_size_t, c_void_p, c_char_p),
        )
        self._function.restype = None

    def update(self, data: bytes, /) -> bytes:
        """The next blocks of the chain."""
        cipher = self._cipher
        result = cipher._room(data)
        self._function(
            cipher._key, cipher._says.encrypt, cipher.block, self._iv, len(data), result, data
        )
        return result.raw
