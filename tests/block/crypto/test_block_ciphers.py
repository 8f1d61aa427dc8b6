# SPDX-License-Identifier: GPL-2.0-only
"""block/crypto: ciphers of two libraries, by the examples of their makers; all modes with each.

What a mode makes of a sector is compared with libnettle's own functions for the modes, which is
what QEMU calls.
"""

from __future__ import annotations

import ctypes
import hashlib
import random
from typing import Any

import pytest

from block.core.error import BlockError
from block.crypto import block_cipher, nettle_library
from block.crypto.block_cipher import new_block_cipher
from block.crypto.cipher import new_cipher
from block.crypto.ivgen import new_ivgen
from block.crypto.luks.params import LuksParams
from block.crypto.names import block_length, key_length
from block.crypto.nettle_library import CipherFunction, Description
from tests.support import needs

SECTOR = 512
EXAMPLES = [  # key, a block, what becomes of it
    # RFC 2144, B.1
    ("cast5-128", "0123456712345678234567893456789a", "0123456789abcdef", "238b4fe5847e44b2"),
    # NESSIE's test vectors of Serpent, set 1, vector 0
    ("serpent-128", "80" + 15 * "00", 16 * "00", "264e5481eff42a4606abda06c0bfda3d"),
    ("serpent-192", "80" + 23 * "00", 16 * "00", "9e274ead9b737bb21efcfca548602689"),
    ("serpent-256", "80" + 31 * "00", 16 * "00", "a223aa1288463c0e2be38ebd825616c0"),
    # Schneier and others: Twofish, B.1
    ("twofish-128", 16 * "00", 16 * "00", "9f589f5cf6122c32b6bfec2f2ae8c35a"),
    (
        "twofish-192",
        "0123456789abcdeffedcba98765432100011223344556677",
        16 * "00",
        "cfd1d2e5a9be9cdf501f13b892bd2248",
    ),
    (
        "twofish-256",
        "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff",
        16 * "00",
        "37527be0052334b89f0cfccae87cfa20",
    ),
    # FIPS 197, C.3
    (
        "aes-256",
        bytes(range(32)).hex(),
        "00112233445566778899aabbccddeeff",
        "8ea2b7ca516745bfeafc49904b496089",
    ),
]
WHO = [
    *((f"{family}-{bits}", mode)
      for family in ("serpent", "twofish")
      for bits in (128, 192, 256)
      for mode in ("ecb", "cbc", "ctr", "xts")),
    *(("cast5-128", mode) for mode in ("ecb", "cbc", "ctr")),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _nettle() -> None:
    needs.library(nettle_library.NAME, nettle_library.PACKAGE)


@pytest.mark.parametrize(("alg", "key", "plain", "text"), EXAMPLES)
def test_the_makers_own_examples(alg: str, key: str, plain: str, text: str) -> None:
    cipher = new_block_cipher(alg, bytes.fromhex(key))
    assert cipher.encrypt(bytes.fromhex(plain)).hex() == text
    assert cipher.decrypt(bytearray.fromhex(text)).hex() == plain
    assert cipher.block == block_length(alg) == len(plain) // 2


class Theirs:
    """A cipher of libnettle's, in the library's own modes, sector by sector."""

    def __init__(self, alg: str, mode: str, key: bytes) -> None:
        name = "cast128" if alg == "cast5-128" else alg.replace("-", "")
        self.library: Any = ctypes.CDLL(nettle_library.NAME)
        self.says: Any = Description.in_dll(self.library, f"nettle_{name}")
        self.mode = mode
        half = len(key) // 2 if mode == "xts" else len(key)
        self.key, self.tweak_key = self.set_up(key[:half]), self.set_up(key[half:] or key[:half])

    def set_up(self, key: bytes) -> Any:
        made = ctypes.create_string_buffer(self.says.context_size)
        self.says.set_encrypt_key(made, key)
        return made

    def encrypt(self, iv: bytes, data: bytes) -> bytes:
        """One sector."""
        size, result = ctypes.c_size_t(len(data)), ctypes.create_string_buffer(len(data))
        block, start = ctypes.c_size_t(self.says.block_size), ctypes.create_string_buffer(iv)
        function: Any = ctypes.cast(self.says.encrypt, CipherFunction)
        if self.mode == "xts":
            self.library.nettle_xts_encrypt_message(
                self.key, self.tweak_key, function, start, size, result, data
            )
        elif self.mode == "ecb":
            function(self.key, len(data), result, data)
        else:
            named = {"cbc": "nettle_cbc_encrypt", "ctr": "nettle_ctr_crypt"}[self.mode]
            getattr(self.library, named)(self.key, function, block, start, size, result, data)
        return result.raw


@pytest.mark.parametrize("size", [48, SECTOR, 5 * SECTOR + 16])
@pytest.mark.parametrize("ivgen", ["plain", "plain64", "essiv"])
@pytest.mark.parametrize(("alg", "mode"), WHO)
def test_every_sector_is_what_qemus_library_makes_of_it(
    alg: str, mode: str, ivgen: str, size: int
) -> None:
    noise = random.Random(f"{alg} {mode} {ivgen} {size}")
    key, data = noise.randbytes(key_length(alg, mode)), noise.randbytes(size)
    width, first = block_length(alg), (1 << 32) - 2
    hash_alg = "md5" if alg == "cast5-128" else "sha256"
    cipher = LuksParams(alg, mode, ivgen, hash_alg).new_cipher(key)
    text = cipher.encrypt(first, memoryview(data))
    theirs, expected = Theirs(alg, mode, key), b""
    salt = Theirs(alg.partition("-")[0] + ("-128" if width == 8 else "-256"), "ecb",
                  hashlib.new(hash_alg, key).digest())  # fmt: skip
    for at in range(0, size, SECTOR):
        number = first + at // SECTOR
        if ivgen == "plain":
            number &= 0xFFFF_FFFF
        iv = number.to_bytes(width, "little")
        if ivgen == "essiv":
            iv = salt.encrypt(b"", iv)
        expected += theirs.encrypt(iv, data[at : at + SECTOR])
    assert text == expected
    assert cipher.decrypt(first, bytearray(text)) == data


def test_a_counter_of_eight_bytes_begins_anew_where_it_ends() -> None:
    key, data = bytes(range(16)), bytes(range(64))
    cipher = new_cipher("cast5-128", "ctr", key, lambda sector, count: b"\xff" * 8)
    assert cipher.encrypt(0, data) == Theirs("cast5-128", "ctr", key).encrypt(b"\xff" * 8, data)


def test_ivs_are_as_long_as_blocks() -> None:
    assert new_ivgen("plain64", 8)(1 << 32, 2).hex() == "00000000010000000100000001000000"
    assert new_ivgen("plain", 8)((1 << 32) + 5, 1).hex() == "0500000000000000"


def test_xts_takes_ciphers_with_blocks_of_16_bytes_only() -> None:
    with pytest.raises(BlockError, match=r"^Unsupported cipher mode xts$"):
        LuksParams("cast5-128", "xts").check_supported()


def test_a_part_of_a_block_is_an_error_of_ours_and_not_the_end_of_the_process() -> None:
    cipher = new_block_cipher("serpent-256", bytes(32))
    for work in (cipher.encrypt, cipher.decrypt, cipher.chained().update):
        with pytest.raises(BlockError, match=r"^Length 17 must be a multiple of block size 16$"):
            work(bytes(17))


def test_without_the_library_the_error_names_the_cipher_and_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nettle_library, "_loaded", [])
    monkeypatch.setattr(nettle_library, "NAME", "libnowhere.so.8")
    message = r"^Cipher twofish-192 needs the library nettle: apt-get install libnettle8 \(libnow"
    with pytest.raises(BlockError, match=message):
        LuksParams("twofish-192").check_supported()
    LuksParams("aes-192").check_supported()


def test_where_openssl_lacks_a_cipher_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm

    class Lacking:
        def __init__(self, *_: object) -> None: ...

        def encryptor(self) -> None:
            raise UnsupportedAlgorithm("no legacy provider")

    _, algorithms, modes = block_cipher.library()
    monkeypatch.setattr(block_cipher, "library", lambda: (Lacking, algorithms, modes))
    message = r"^Cipher cast5-128 is not in this OpenSSL, or not in use \(no legacy provider\)$"
    with pytest.raises(BlockError, match=message):
        LuksParams("cast5-128", "cbc").check_supported()
