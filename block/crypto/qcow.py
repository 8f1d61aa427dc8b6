# SPDX-License-Identifier: GPL-2.0-only
"""The encryption of old qcow2 images: the password is the key (crypto/block-qcow.c).

AES-128 in CBC mode; the IV is the number of the guest's sector. There is no header and no salt,
so a wrong password is not noticed: the guest reads garbage. Who knows what is in one sector
can tell whether another holds the same. QEMU reads such images in its tools only.
"""

from __future__ import annotations

from block.crypto.block import CryptoBlock, password_of
from block.crypto.cipher import new_cipher
from block.crypto.ivgen import plain64

KEY_LENGTH = 16


class QcowBlock(CryptoBlock):
    """An open disk of that kind."""

    format = "qcow"


def open_qcow(key_secret: str | None, prefix: str, no_io: bool = False) -> QcowBlock:
    """Opens one, or makes one: that is the same here (qcrypto_block_qcow_init).

    `prefix` stands in front of the option's name in messages. Raises BlockError.
    """
    if no_io:
        return QcowBlock(None, 0)
    key = password_of(key_secret, prefix)[:KEY_LENGTH].ljust(KEY_LENGTH, b"\0")
    return QcowBlock(new_cipher("aes-128", "cbc", key, plain64), 0)
