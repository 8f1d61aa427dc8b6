# SPDX-License-Identifier: GPL-2.0-only
"""The algorithms by QEMU's names, and how long their keys and hashes are (qapi/crypto.json).

All that QEMU's schema names is here, also what this version refuses when it is needed.
"""

from __future__ import annotations

KEY_LENGTHS = {
    "aes-128": 16,
    "aes-192": 24,
    "aes-256": 32,
    "des": 8,
    "3des": 24,
    "cast5-128": 16,
    "serpent-128": 16,
    "serpent-192": 24,
    "serpent-256": 32,
    "twofish-128": 16,
    "twofish-192": 24,
    "twofish-256": 32,
}
"""QCryptoCipherAlgorithm, with the bytes of a key; xts needs two."""

DIGEST_LENGTHS = {
    "md5": 16,
    "sha1": 20,
    "sha224": 28,
    "sha256": 32,
    "sha384": 48,
    "sha512": 64,
    "ripemd160": 20,
}
"""QCryptoHashAlgorithm, with the bytes of a digest."""

MODES = ("ecb", "cbc", "xts", "ctr")
IVGENS = ("plain", "plain64", "essiv")


SHORT_BLOCKS = ("des", "3des", "cast5-128")


def block_length(alg: str) -> int:
    """The bytes of a block, and so of an IV (qcrypto_cipher_get_block_len)."""
    return 8 if alg in SHORT_BLOCKS else 16


def key_length(alg: str, mode: str) -> int:
    """The bytes of a key for a cipher in a mode."""
    return KEY_LENGTHS[alg] * (2 if mode == "xts" else 1)
