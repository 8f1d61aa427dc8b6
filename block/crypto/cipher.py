# SPDX-License-Identifier: GPL-2.0-only
"""The choice among ciphers and modes (crypto/cipher.c).

R1  What is not there is refused before anything is done with it: a cipher with the name of the
    library that has it, a mode with QEMU's words.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.crypto import modes, xts
from block.crypto.block_cipher import BLOCK, new_block_cipher
from block.crypto.names import KEY_LENGTHS, block_length, key_length

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.crypto.ivgen import IvGen
    from block.crypto.modes import SectorCipher


def check_supported(alg: str, mode: str) -> None:
    """Raises BlockError unless new_cipher can have both (qcrypto_cipher_supports, R1)."""
    new_block_cipher(alg, bytes(KEY_LENGTHS[alg]))
    if mode == "xts" and block_length(alg) != BLOCK:
        raise BlockError(errno.ENOTSUP, f"Unsupported cipher mode {mode}")


def new_cipher(alg: str, mode: str, key: bytes, ivgen: IvGen) -> SectorCipher:
    """A key, ready to encrypt sectors (qcrypto_cipher_new, qcrypto_block_init_cipher).

    Raises BlockError: the key's length is wrong, or the cipher is not there (R1).
    """
    check_supported(alg, mode)
    if len(key) != key_length(alg, mode):
        message = f"Cipher key length {len(key)} should be {key_length(alg, mode)}"
        raise BlockError(errno.EINVAL, message)
    if mode == "xts":
        half = len(key) // 2
        cipher, tweak_cipher = (new_block_cipher(alg, part) for part in (key[:half], key[half:]))
        return xts.Xts(cipher, tweak_cipher, ivgen)
    kind = {"ecb": modes.Ecb, "cbc": modes.Cbc, "ctr": modes.Ctr}[mode]
    return kind(new_block_cipher(alg, key), ivgen)
