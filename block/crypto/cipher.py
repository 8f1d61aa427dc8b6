# SPDX-License-Identifier: GPL-2.0-only
"""The choice among ciphers and modes (crypto/cipher.c).

R1  What is not there is refused before anything is done with it: a cipher with the name of the
    library that has it, a mode with QEMU's words.
R2  libgcrypt is a help, nobody needs it.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.crypto import modes
from block.crypto.block_cipher import BLOCK, new_block_cipher
from block.crypto.ivgen import plain64
from block.crypto.names import block_length, key_length

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.crypto.ivgen import IvGen
    from block.crypto.modes import SectorCipher


def check_supported(alg: str, mode: str) -> None:
    """Raises BlockError unless new_cipher has both (qcrypto_cipher_supports, R1)."""
    new_cipher(alg, mode, bytes(range(key_length(alg, mode))), plain64)


def new_cipher(alg: str, mode: str, key: bytes, ivgen: IvGen) -> SectorCipher:
    """A key, ready to encrypt sectors (qcrypto_cipher_new, qcrypto_block_init_cipher).

    Raises BlockError: the key's length is wrong, or the cipher is not there (R1).
    """
    if len(key) != key_length(alg, mode):
        message = f"Cipher key length {len(key)} should be {key_length(alg, mode)}"
        raise BlockError(errno.EINVAL, message)
    if mode == "xts":
        return new_xts(alg, key, ivgen)
    kind = {"ecb": modes.Ecb, "cbc": modes.Cbc, "ctr": modes.Ctr}[mode]
    return kind(new_block_cipher(alg, key), ivgen)


def new_xts(alg: str, key: bytes, ivgen: IvGen) -> SectorCipher:
    """XTS, which everybody uses: by libgcrypt if that is here and has the cipher (R2)."""
    from block.crypto import gcrypt_library

    if alg in gcrypt_library.ALGORITHMS and gcrypt_library.load() is not None:
        return gcrypt_library.GcryptXts(alg, key, ivgen)
    if block_length(alg) != BLOCK:
        raise BlockError(errno.ENOTSUP, "Unsupported cipher mode xts")
    from block.crypto.xts import Xts

    half = len(key) // 2
    cipher, tweak_cipher = (new_block_cipher(alg, part) for part in (key[:half], key[half:]))
    return Xts(cipher, tweak_cipher, ivgen)
