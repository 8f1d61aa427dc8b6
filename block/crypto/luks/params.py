# SPDX-License-Identifier: GPL-2.0-only
"""Which algorithms a volume uses (the fields of QCryptoBlockLUKS that are no header).

R1  essiv encrypts IVs with a key that is a hash, so the cipher for it is the one whose keys are as
    long as the hash: AES-256 for sha256, even where the disk uses AES-128. Linux has it so.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.core.options import invalid
from block.crypto.block_cipher import new_block_cipher
from block.crypto.cipher import check_supported, new_cipher
from block.crypto.hashes import digest
from block.crypto.ivgen import new_ivgen
from block.crypto.names import DIGEST_LENGTHS, KEY_LENGTHS, block_length, key_length

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.crypto.block_cipher import BlockCipher
    from block.crypto.modes import SectorCipher

FAMILIES = {"aes": "AES", "cast5": "", "serpent": "Serpent", "twofish": "Twofish"}
"""The ciphers that LUKS has names for; '' where QEMU has no essiv with it."""


class LuksParams:
    """The names of the algorithms, QEMU's; `ivgen_hash_alg` may be there and not be needed."""

    def __init__(
        self,
        cipher_alg: str = "aes-256",
        cipher_mode: str = "xts",
        ivgen_alg: str = "plain64",
        ivgen_hash_alg: str | None = None,
        hash_alg: str = "sha256",
    ) -> None:
        self.cipher_alg = cipher_alg
        self.cipher_mode = cipher_mode
        self.ivgen_alg = ivgen_alg
        self.ivgen_hash_alg = ivgen_hash_alg
        self.hash_alg = hash_alg

    @property
    def family(self) -> str:
        """The cipher's name without the length of its key, as the header has it."""
        return self.cipher_alg.partition("-")[0]

    @property
    def mode_spec(self) -> str:
        """The mode as the header has it: 'xts-plain64', 'cbc-essiv:sha256'."""
        spec = f"{self.cipher_mode}-{self.ivgen_alg}"
        return spec if self.ivgen_hash_alg is None else f"{spec}:{self.ivgen_hash_alg}"

    @property
    def key_length(self) -> int:
        """The bytes of a key."""
        return key_length(self.cipher_alg, self.cipher_mode)

    def check_names(self) -> None:
        """Raises BlockError where LUKS, or essiv, has no name for the cipher."""
        if self.family not in FAMILIES:
            message = f"Algorithm '{self.cipher_alg}' not supported"
            raise BlockError(errno.ENOTSUP, message)
        self.essiv_key_length()

    def check_supported(self) -> None:
        """Raises BlockError where the cipher or its mode is not there."""
        check_supported(self.cipher_alg, self.cipher_mode)

    def essiv_key_length(self) -> int:
        """The key of the cipher for IVs, in bytes (qcrypto_block_luks_essiv_cipher, R1).

        0 where there is none. Raises BlockError.
        """
        if self.ivgen_alg != "essiv":
            return 0
        assert self.ivgen_hash_alg is not None, "essiv without a hash"
        length = DIGEST_LENGTHS[self.ivgen_hash_alg]
        if length == KEY_LENGTHS[self.cipher_alg]:
            return length
        name = FAMILIES[self.family]
        if not name:
            raise invalid(f"Cipher {self.cipher_alg} not supported with essiv")
        if length not in (16, 24, 32):
            raise invalid(f"No {name} cipher with key size {length} available")
        return length

    def _essiv_cipher(self, key: bytes) -> BlockCipher | None:
        """The cipher for IVs, None where there is none; `key` is the disk's (R1)."""
        length = self.essiv_key_length()
        if not length:
            return None
        assert self.ivgen_hash_alg is not None, "essiv without a hash"
        salt = digest(self.ivgen_hash_alg, key)
        return new_block_cipher(f"{self.family}-{8 * length}", salt)

    def new_cipher(self, key: bytes) -> SectorCipher:
        """A key, ready to encrypt sectors."""
        width = block_length(self.cipher_alg)
        ivgen = new_ivgen(self.ivgen_alg, width, self._essiv_cipher(key))
        return new_cipher(self.cipher_alg, self.cipher_mode, key, ivgen)
