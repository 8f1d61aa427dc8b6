# SPDX-License-Identifier: GPL-2.0-only
"""The choice among ciphers and modes (crypto/cipher.c).

R1  Ciphers other than AES are refused when they are needed, with QEMU's words.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.crypto import modes, xts
from block.crypto.names import key_length

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.crypto.ivgen import IvGen
    from block.crypto.modes import SectorCipher


def check_supported(alg: str, mode: str) -> None:
    """Raises BlockError(ENOTSUP) unless new_cipher knows both (qcrypto_cipher_supports)."""
    if not alg.startswith("aes-"):
        raise BlockError(errno.ENOTSUP, f"Unsupported cipher algorithm {alg} with {mode} mode")


def new_cipher(alg: str, mode: str, key: bytes, ivgen: IvGen) -> SectorCipher:
    """A key, ready to encrypt sectors (qcrypto_cipher_new, qcrypto_block_init_cipher).

    Raises BlockError: the key's length is wrong, or the cipher is not there (R1).
    """
    check_supported(alg, mode)
    if len(key) != key_length(alg, mode):
        message = f"Cipher key length {len(key)} should be {key_length(alg, mode)}"
        raise BlockError(errno.EINVAL, message)
    if mode == "xts":
        return xts.Xts(key, ivgen)
    kind = {"ecb": modes.Ecb, "cbc": modes.Cbc, "ctr": modes.Ctr}[mode]
    return kind(key, ivgen)
