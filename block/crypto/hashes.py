# SPDX-License-Identifier: GPL-2.0-only
"""Hashes by QEMU's names (crypto/hash.c, pbkdf.c); they are Python's own, which are OpenSSL's.

`pbkdf2` makes a key of a password, by hashing it so often that guessing takes long. How often is
found out by trying (R1), and written into the header.

R1  `count_iters` asks for the thread's CPU time, which is no clock that anybody waits for: it is a
    property of this machine, and so it is not asked of the World.
"""

from __future__ import annotations

import errno
import hashlib
import time

from block.core.error import BlockError

MOST_ITERATIONS = (1 << 31) - 1  # what the library takes
ENOUGH_NS = 50_000_000  # a trial this long tells well enough


def digest(alg: str, data: bytes) -> bytes:
    """The hash of some bytes. Raises BlockError where the library lacks it."""
    try:
        return hashlib.new(alg, data).digest()
    except ValueError:
        raise _missing(alg) from None


def pbkdf2(alg: str, password: bytes, salt: bytes, iterations: int, length: int) -> bytes:
    """A key of `length` bytes (qcrypto_pbkdf2). Takes as long as `iterations` says."""
    if iterations > MOST_ITERATIONS:
        message = f"PBKDF iterations {iterations} must be less than {MOST_ITERATIONS}"
        raise BlockError(errno.ERANGE, message)
    try:
        return hashlib.pbkdf2_hmac(alg, password, salt, iterations, length)
    except ValueError:
        raise _missing(alg) from None


def count_iters(alg: str, length: int) -> int:
    """How many iterations take this machine a second (qcrypto_pbkdf2_count_iters, R1)."""
    iterations = 1 << 14
    while True:
        start = time.thread_time_ns()
        pbkdf2(alg, b"password", bytes(32), iterations, length)
        took = time.thread_time_ns() - start
        if took >= ENOUGH_NS:
            return iterations * 1_000_000_000 // took
        iterations *= 2


def _missing(alg: str) -> BlockError:
    return BlockError(errno.ENOTSUP, f"Hash algorithm '{alg}' is not available")
