# SPDX-License-Identifier: GPL-2.0-only
"""block/crypto: our modes beside those of `cryptography`, and the standards' own examples."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from block.core.error import BlockError
from block.crypto import gcrypt_library
from block.crypto.block_cipher import decrypt_cbc, new_block_cipher
from block.crypto.cipher import new_cipher
from block.crypto.ivgen import new_ivgen, plain, plain64
from block.crypto.luks.params import LuksParams
from block.crypto.names import key_length
from block.crypto.xts import AT_ONCE, Xts
from tests.support import needs

SECTOR = 512
SIZES = [16, SECTOR, 3 * SECTOR, 3 * SECTOR + 48, AT_ONCE, AT_ONCE + SECTOR, 2 * AT_ONCE + 5 * 16]
STARTS = [0, 1, 0xFFFF_FFFE, (1 << 40) + 7]
LIBRARY: dict[str, Any] = {"cbc": modes.CBC, "ctr": modes.CTR, "xts": modes.XTS}


def sector_by_sector(mode: str, key: bytes, ivs: list[bytes], data: bytes) -> bytes:
    """What the library makes of it, with a new cipher for each sector."""
    parts = []
    for number, start in enumerate(range(0, len(data), SECTOR)):
        setting = modes.ECB() if mode == "ecb" else LIBRARY[mode](ivs[number])
        encryptor = Cipher(algorithms.AES(key), setting).encryptor()
        parts.append(encryptor.update(data[start : start + SECTOR]))
    return b"".join(parts)


def cut(ivs: bytes) -> list[bytes]:
    return [ivs[at : at + 16] for at in range(0, len(ivs), 16)]


@pytest.fixture
def _no_libgcrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcrypt_library, "_loaded", [None])


@pytest.fixture
def _libgcrypt() -> None:
    needs.library(gcrypt_library.NAME, "libgcrypt20")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["ecb", "cbc", "ctr", "xts"])
@pytest.mark.parametrize("alg", ["aes-128", "aes-256"])
@pytest.mark.usefixtures("_no_libgcrypt")
def test_every_sector_is_what_the_library_makes_of_it(
    alg: str, mode: str, size: int, start: int
) -> None:
    check(alg, mode, size, start)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alg", ["aes-128", "aes-256"])
@pytest.mark.usefixtures("_libgcrypt")
def test_so_it_is_with_libgcrypt(alg: str, size: int, start: int) -> None:
    check(alg, "xts", size, start)


def check(alg: str, mode: str, size: int, start: int) -> None:
    """Both directions, beside `cryptography`."""
    noise = random.Random(size + start)
    key, data = noise.randbytes(key_length(alg, mode)), noise.randbytes(size)
    cipher = new_cipher(alg, mode, key, plain64)
    text = cipher.encrypt(start, memoryview(data))
    ivs = cut(plain64(start, -(-size // SECTOR)))
    assert text == sector_by_sector(mode, key, ivs, data)
    assert cipher.decrypt(start, bytearray(text)) == data


@pytest.mark.parametrize("mode", ["ecb", "cbc", "ctr"])
def test_keys_of_192_bits(mode: str) -> None:
    key, data = bytes(range(24)), bytes(range(256)) * 4
    text = new_cipher("aes-192", mode, key, plain64).encrypt(5, data)
    assert text == sector_by_sector(mode, key, cut(plain64(5, 2)), data)


XTS = pytest.mark.parametrize(
    ("keys", "sector", "plaintext", "ciphertext"),
    [
        (
            bytes(32),
            0,
            bytes(32),
            "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e",
        ),
        (
            b"\x11" * 16 + b"\x22" * 16,
            0x3333333333,
            b"\x44" * 32,
            "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
        ),
    ],
)


@XTS
@pytest.mark.usefixtures("_no_libgcrypt")
def test_the_examples_of_ieee_1619(
    keys: bytes, sector: int, plaintext: bytes, ciphertext: str
) -> None:
    cipher = new_cipher("aes-128", "xts", keys, plain64)
    assert cipher.encrypt(sector, plaintext).hex() == ciphertext
    assert cipher.decrypt(sector, bytes.fromhex(ciphertext)) == plaintext


@XTS
@pytest.mark.usefixtures("_libgcrypt")
def test_the_same_examples_with_libgcrypt(
    keys: bytes, sector: int, plaintext: bytes, ciphertext: str
) -> None:
    test_the_examples_of_ieee_1619(keys, sector, plaintext, ciphertext)


@pytest.mark.parametrize("alg", ["aes-128", "aes-192", "aes-256"])
@pytest.mark.parametrize("ivgen", ["plain", "plain64", "essiv"])
@pytest.mark.usefixtures("_libgcrypt")
def test_with_and_without_libgcrypt_a_volume_is_the_same(
    monkeypatch: pytest.MonkeyPatch, alg: str, ivgen: str
) -> None:
    noise = random.Random(alg)
    params = LuksParams(alg, "xts", ivgen, "sha256")
    key, data = noise.randbytes(params.key_length), noise.randbytes(300 * SECTOR)
    quick = params.new_cipher(key)
    assert isinstance(quick, gcrypt_library.GcryptXts)
    monkeypatch.setattr(gcrypt_library, "_loaded", [None])
    slow = params.new_cipher(key)
    assert isinstance(slow, Xts)
    for start in (0, 77, (1 << 32) - 100):
        text = slow.encrypt(start, data)
        assert quick.encrypt(start, data) == text
        assert quick.decrypt(start, memoryview(text)) == data
        assert quick.decrypt(start + 150, text[150 * SECTOR :]) == data[150 * SECTOR :]


def test_an_old_libgcrypt_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("VERSION", b"99.0"), ("NAME", "libnowhere.so.20")):
        with monkeypatch.context() as patch:
            patch.setattr(gcrypt_library, "_loaded", [])
            patch.setattr(gcrypt_library, name, value)
            assert isinstance(new_cipher("aes-256", "xts", bytes(64), plain64), Xts)


@pytest.mark.usefixtures("_libgcrypt")
def test_a_key_that_is_gone_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    cipher = new_cipher("aes-256", "xts", bytes(64), plain64)
    close = cipher._library.gcry_cipher_close
    monkeypatch.setattr(
        cipher._library, "gcry_cipher_close", lambda handle: (closed.append(handle), close(handle))
    )
    handle = cipher._handle
    del cipher
    assert closed == [handle]


def test_plain_is_cut_to_32_bits_and_plain64_is_not() -> None:
    first = (1 << 32) - 2
    numbers = [int.from_bytes(iv, "little") for iv in cut(plain(first, 4))]
    assert numbers == [first, first + 1, 0, 1]
    assert plain((1 << 32) + 5, 2) == plain(5, 2)
    numbers = [int.from_bytes(iv, "little") for iv in cut(plain64(first, 4))]
    assert numbers == [first, first + 1, first + 2, first + 3]
    assert plain64((1 << 64) + 3, 1) == plain64(3, 1)


def test_essiv_encrypts_the_number_with_a_hash_of_the_key() -> None:
    import hashlib

    key = bytes(range(16))
    salt = hashlib.sha256(key).digest()
    essiv = new_ivgen("essiv", 16, new_block_cipher("aes-256", salt))
    inner = Cipher(algorithms.AES(salt), modes.ECB()).encryptor()
    assert essiv(7, 3) == b"".join(inner.update(n.to_bytes(16, "little")) for n in (7, 8, 9))


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(BlockError, match=r"^Cipher key length 32 should be 64$"):
        new_cipher("aes-256", "xts", bytes(32), plain64)


def test_a_cipher_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(BlockError, match=r"^Unsupported cipher algorithm des$"):
        new_cipher("des", "cbc", bytes(8), plain64)


def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(BlockError, match=r"needs the Python module 'cryptography': python -m pip"):
        decrypt_cbc(bytes(32), bytes(16), bytes(16))
