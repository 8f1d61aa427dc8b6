# SPDX-License-Identifier: GPL-2.0-only
"""The anti-forensic splitter: a key as 4000 stripes, of which all are needed (crypto/afsplit.c).

A disk may keep a copy of a sector that was overwritten. So a key is not written as it is: each
stripe but the last is random, and the last is the key mixed with all others through a hash. Who
wants to be rid of the key needs to destroy one stripe only; a whole key leaves no short trace.

    d = 0;  for all stripes but the last:  d = H(d xor stripe);      last stripe = d xor key

Pure functions.
"""

from __future__ import annotations

import os

from block.crypto.hashes import digest
from block.crypto.names import DIGEST_LENGTHS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def split(alg: str, key: bytes, stripes: int, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """The stripes for a key (qcrypto_afsplit_encode)."""
    noise = random(len(key) * (stripes - 1))
    last = _mixed(alg, noise, len(key)) ^ int.from_bytes(key, "big")
    return noise + last.to_bytes(len(key), "big")


def merge(alg: str, stripes: bytes | bytearray, length: int) -> bytes:
    """The key of `length` bytes that the stripes stand for (qcrypto_afsplit_decode)."""
    last = int.from_bytes(stripes[-length:], "big")
    return (_mixed(alg, stripes[:-length], length) ^ last).to_bytes(length, "big")


def _mixed(alg: str, stripes: bytes | bytearray, length: int) -> int:
    """What all stripes make together; the last one is xored with it."""
    mixed = 0
    for start in range(0, len(stripes), length):
        mixed ^= int.from_bytes(stripes[start : start + length], "big")
        mixed = int.from_bytes(_diffuse(alg, mixed.to_bytes(length, "big")), "big")
    return mixed


def _diffuse(alg: str, data: bytes) -> bytes:
    """Hashes a stripe piece by piece, each with its number in front (qcrypto_afsplit_hash)."""
    size = DIGEST_LENGTHS[alg]
    pieces = [
        digest(alg, number.to_bytes(4, "big") + data[start : start + size])
        for number, start in enumerate(range(0, len(data), size))
    ]
    return b"".join(pieces)[: len(data)]
