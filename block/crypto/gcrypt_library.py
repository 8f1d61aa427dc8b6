# SPDX-License-Identifier: GPL-2.0-only
"""AES in XTS mode by libgcrypt, where that library is: one call for each sector, by ctypes.

libgcrypt knows XTS, and one key of its goes from sector to sector: it counts the IV up by itself.
So a call is all that a sector takes, 0.6 us, of which the encryption is the smaller part. Where the
library is missing xts.py does the same with long numbers, in six times the time.

R1  The library is loaded for the first such key; then it stays. One older than 1.8 has no XTS.
R2  The calls keep the interpreter's lock: to give it away and take it back for each sector would
    take as long as the sector. A row of sectors goes through without a step of Python, so it is
    ROW long at most, and other threads wait for a tenth of a millisecond.
R3  Rows end where a number is a multiple of ROW. So `plain`, whose numbers begin anew at 2^32,
    never does so within one.
Who may call it: one thread at a time.
"""

from __future__ import annotations

import ctypes
import errno
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_void_p
from itertools import repeat

from block.core.error import BlockError
from block.crypto.ivgen import plain, plain64
from block.crypto.modes import SECTOR, SectorCipher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from _typeshed import ReadableBuffer

    from block.crypto.ivgen import IvGen

NAME, VERSION = "libgcrypt.so.20", b"1.8.0"
ALGORITHMS = {"aes-128": 7, "aes-192": 8, "aes-256": 9}  # enum gcry_cipher_algos
MODE_XTS = 13
DISABLE_SECMEM, FINISH, IS_FINISHED = 37, 38, 39  # enum gcry_ctl_cmds: the library's beginning
ROW = 128  # sectors

PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "gcry_cipher_open": (ctypes.POINTER(c_void_p), c_int, c_int, c_uint),
    "gcry_cipher_close": (c_void_p,),
    "gcry_cipher_setkey": (c_void_p, c_char_p, c_size_t),
    "gcry_cipher_setiv": (c_void_p, c_char_p, c_size_t),
    "gcry_cipher_encrypt": (c_void_p, c_void_p, c_size_t, c_void_p, c_size_t),
    "gcry_cipher_decrypt": (c_void_p, c_void_p, c_size_t, c_void_p, c_size_t),
}

_loaded: list[Any] = []  # the library or None, once that is known (R1)


def load() -> Any:
    """The library, or None where there is none, or an old one."""
    if not _loaded:
        _loaded.append(_load())
    return _loaded[0]


def _load() -> Any:
    try:
        library = ctypes.PyDLL(NAME)
    except OSError:
        return None
    library.gcry_check_version.restype = c_char_p
    if library.gcry_check_version(VERSION) is None:
        return None
    for name, arguments in PROTOTYPES.items():
        getattr(library, name).argtypes = arguments
    if not library.gcry_control(IS_FINISHED):  # else somebody in this process has begun with it
        library.gcry_control(DISABLE_SECMEM, 0)
        library.gcry_control(FINISH, 0)
    return library


class GcryptXts(SectorCipher):
    """A key of AES, as long as two, in XTS mode."""

    def __init__(self, alg: str, key: bytes, ivgen: IvGen) -> None:
        self._library = load()
        self._ivgen = ivgen
        self._row = ROW if ivgen in (plain, plain64) else 1
        handle = c_void_p()
        _check(self._library.gcry_cipher_open(ctypes.byref(handle), ALGORITHMS[alg], MODE_XTS, 0))
        self._handle = handle.value
        _check(self._library.gcry_cipher_setkey(self._handle, key, len(key)))

    def __del__(self) -> None:
        self._library.gcry_cipher_close(getattr(self, "_handle", None))

    def encrypt(self, sector: int, data: ReadableBuffer) -> bytearray:
        return self._run(self._library.gcry_cipher_encrypt, sector, data)

    def decrypt(self, sector: int, data: ReadableBuffer) -> bytearray:
        return self._run(self._library.gcry_cipher_decrypt, sector, data)

    def _run(self, function: Callable[..., int], sector: int, data: ReadableBuffer) -> bytearray:
        """Works on a copy, in place: that is what the library does where no input is named."""
        result = bytearray(data)
        memory = ctypes.c_char.from_buffer(result)  # keeps the result where it is
        handle, start = self._handle, ctypes.addressof(memory)
        for iv, at, end in self._rows(sector, len(result)):
            _check(self._library.gcry_cipher_setiv(handle, iv, len(iv)))
            places = range(start + at, start + end, SECTOR)
            sizes = repeat(SECTOR) if not (end - at) % SECTOR else _sizes(end - at)
            if any(map(function, repeat(handle), places, sizes, repeat(None), repeat(0))):
                raise BlockError(errno.EIO, "libgcrypt: a sector could not be encrypted")
        return result

    def _rows(self, sector: int, size: int) -> Iterator[tuple[bytes, int, int]]:
        """(IV, start, end) of sectors whose IVs count up (R3)."""
        at = 0
        while at < size:
            count = self._row - sector % self._row
            end = min(at + count * SECTOR, size)
            yield self._ivgen(sector, 1), at, end
            sector, at = sector + count, end


def _sizes(size: int) -> list[int]:
    """The lengths of sectors, of which the last is short."""
    return [*[SECTOR] * (size // SECTOR), size % SECTOR]


def _check(error: int) -> None:
    if error:
        raise BlockError(errno.EINVAL, f"libgcrypt: error {error & 0xFFFF}")
