# SPDX-License-Identifier: GPL-2.0-only
"""block/crypto: passwords become keys, keys become stripes."""

from __future__ import annotations

import hashlib
import random

import pytest

from block.core.error import BlockError
from block.crypto import hashes
from block.crypto.afsplit import merge, split
from block.crypto.hashes import count_iters, pbkdf2
from block.crypto.names import DIGEST_LENGTHS


@pytest.mark.parametrize(
    ("iterations", "key"),
    [
        (1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"),
        (2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"),
        (4096, "4b007901b765489abead49d926f721d065a429c1"),
    ],
)
def test_the_examples_of_rfc_6070(iterations: int, key: str) -> None:
    assert pbkdf2("sha1", b"password", b"salt", iterations, 20).hex() == key


def test_too_many_iterations_are_an_error_of_ours() -> None:
    with pytest.raises(BlockError, match=r"^PBKDF iterations 2147483648 must be less than"):
        pbkdf2("sha256", b"", b"", 1 << 31, 32)


def test_a_hash_that_the_library_lacks_is_an_error_of_ours() -> None:
    for work in (lambda: hashes.digest("md1", b""), lambda: pbkdf2("md1", b"", b"", 1, 8)):
        with pytest.raises(BlockError, match=r"^Hash algorithm 'md1' is not available$"):
            work()


def test_the_number_of_iterations_in_a_second_follows_from_a_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0]

    def work(alg: str, password: bytes, salt: bytes, iterations: int, length: int) -> bytes:
        clock[0] += 1000 * iterations  # a microsecond each
        return b""

    monkeypatch.setattr(hashes, "pbkdf2", work)
    monkeypatch.setattr(hashes.time, "thread_time_ns", lambda: clock[0])
    assert count_iters("sha256", 32) == 1_000_000


@pytest.mark.parametrize("alg", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("length", [16, 32, 64])
def test_stripes_bring_the_key_back(alg: str, length: int) -> None:
    key = random.Random(length).randbytes(length)
    stripes = split(alg, key, 40)
    assert len(stripes) == 40 * length
    assert key not in stripes
    assert merge(alg, stripes, length) == key


def test_every_stripe_is_needed() -> None:
    key = bytes(range(32))
    stripes = split("sha256", key, 40)
    for at in range(0, len(stripes), 32):
        damaged = bytearray(stripes)
        damaged[at + at % 31] ^= 1
        assert merge("sha256", bytes(damaged), 32) != key


def test_a_stripe_is_hashed_piece_by_piece_with_their_numbers() -> None:
    key = bytes(range(40))
    stripes = split("sha256", key, 2, random=bytes)
    pieces = hashlib.sha256(bytes(4) + bytes(32)), hashlib.sha256(b"\0\0\0\1" + bytes(8))
    mixed = b"".join(piece.digest() for piece in pieces)[:40]
    assert stripes[:40] == bytes(40)
    assert stripes[40:] == bytes(a ^ b for a, b in zip(mixed, key, strict=True))


def test_the_lengths_of_digests_are_right() -> None:
    for alg, length in DIGEST_LENGTHS.items():
        assert hashlib.new(alg).digest_size == length, alg
