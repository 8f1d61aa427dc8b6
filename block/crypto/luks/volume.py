# SPDX-License-Identifier: GPL-2.0-only
"""An open LUKS volume, and how one is opened and made (qcrypto_block_luks_open, _create).

R1  A volume opened to be asked about only has no key, and needs no secret.
R2  Whatever can be wrong with the options is found before anything is written.
"""

from __future__ import annotations

import os

from block.core.options import invalid
from block.crypto.block import CryptoBlock, password_of
from block.crypto.luks import header as head
from block.crypto.luks import layout as lay
from block.crypto.luks.keyslot import (
    find_key,
    is_active,
    iterations_for,
    key_digest,
    store_key,
)
from block.crypto.modes import SECTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from block.crypto.block import InitFunc, ReadFunc, WriteFunc
    from block.crypto.luks.params import LuksParams
    from block.crypto.modes import SectorCipher

MASTER_KEY_SHARE = 8  # the digest gets an eighth of the time, as cryptsetup has it


class LuksBlock(CryptoBlock):
    """An open volume; `secret` is the name of the one that opened it."""

    format = "luks"

    def __init__(
        self, header: Any, params: LuksParams, cipher: SectorCipher | None, secret: str | None
    ) -> None:
        super().__init__(cipher, header.payload_offset_sector * SECTOR)
        self.header = header
        self.params = params
        self.secret = secret

    def get_info(self) -> dict[str, object]:
        """QCryptoBlockInfoLUKS of QEMU's schema, in its order."""
        params, header = self.params, self.header
        info: dict[str, object] = {"cipher-alg": params.cipher_alg,
                                   "cipher-mode": params.cipher_mode,
                                   "ivgen-alg": params.ivgen_alg}  # fmt: skip
        if params.ivgen_alg == "essiv":
            info["ivgen-hash-alg"] = params.ivgen_hash_alg
        info["hash-alg"] = params.hash_alg
        info["payload-offset"] = self.payload_offset
        info["master-key-iters"] = header.master_key_iterations
        info["uuid"] = header.uuid.split(b"\0")[0].decode(errors="surrogateescape")
        info["slots"] = [_slot_info(header, number) for number in range(lay.SLOTS)]
        return info


def _slot_info(header: Any, number: int) -> dict[str, object]:
    slot = header.key_slots[number]
    info: dict[str, object] = {"active": is_active(header, number)}
    if info["active"]:
        info["iters"] = slot.iterations
        info["stripes"] = slot.stripes
    info["key-offset"] = slot.key_offset_sector * SECTOR
    return info


def open_luks(
    read: ReadFunc, key_secret: str | None, prefix: str = "", no_io: bool = False
) -> LuksBlock:
    """Opens a volume. `read` reads from where its header begins; `prefix` stands in front of the
    option's name in messages. Raises BlockError."""
    password = b"" if no_io else password_of(key_secret, prefix)
    header = head.read_header(read)
    params = head.parse(header)
    params.essiv_key_length()
    if no_io:
        return LuksBlock(header, params, None, key_secret)  # R1
    params.check_supported()
    key = find_key(header, params, password, read)
    return LuksBlock(header, params, params.new_cipher(key), key_secret)


class LuksPlan:
    """A volume to be made, checked (R2); the header is complete but for the key."""

    def __init__(
        self,
        key_secret: str | None,
        params: LuksParams,
        iter_time_ms: int,
        prefix: str = "",
    ) -> None:
        self.key_secret = key_secret
        self.password = password_of(key_secret, prefix)
        self.params = params
        self.iter_time_ms = iter_time_ms
        params.check_names()
        params.check_supported()
        self.header = _new_header(params)

    @property
    def payload_offset(self) -> int:
        """How many bytes the header and all key material take."""
        offset: int = self.header.payload_offset_sector * SECTOR
        return offset

    def create(self, init: InitFunc, write: WriteFunc) -> LuksBlock:
        """Makes it. `init` makes room for so many bytes, `write` writes there."""
        header, params = self.header, self.params
        key = os.urandom(params.key_length)
        header.master_key_iterations = iterations_for(
            params, lay.DIGEST_LENGTH, self.iter_time_ms, MASTER_KEY_SHARE
        )
        header.master_key_digest = key_digest(header, params, key)
        init(self.payload_offset)
        store_key(header, params, 0, self.password, key, self.iter_time_ms, write)
        return LuksBlock(header, params, params.new_cipher(key), self.key_secret)


def _new_header(params: LuksParams) -> Any:
    """A header with eight empty slots and a new UUID, as a parsed one."""
    spec = params.mode_spec
    if len(spec) >= lay.NAME_LENGTH:
        raise invalid(f"Cipher mode '{spec}' is too long for LUKS header")
    sectors = head.key_material_sectors(params.key_length, lay.STRIPES)
    slots = [_empty_slot(lay.HEADER_SECTORS + number * sectors) for number in range(lay.SLOTS)]
    fields = {
        "magic": lay.MAGIC,
        "version": lay.VERSION,
        "cipher_name": params.family.encode().ljust(lay.NAME_LENGTH, b"\0"),
        "cipher_mode": spec.encode().ljust(lay.NAME_LENGTH, b"\0"),
        "hash_spec": params.hash_alg.encode().ljust(lay.NAME_LENGTH, b"\0"),
        "payload_offset_sector": lay.HEADER_SECTORS + lay.SLOTS * sectors,
        "master_key_len": params.key_length,
        "master_key_digest": bytes(lay.DIGEST_LENGTH),
        "master_key_salt": os.urandom(lay.SALT_LENGTH),
        "master_key_iterations": 0,
        "uuid": _new_uuid().encode().ljust(lay.UUID_LENGTH, b"\0"),
        "key_slots": slots,
    }
    return lay.HEADER.parse(lay.HEADER.build(fields))


def _empty_slot(sector: int) -> dict[str, object]:
    return {"active": lay.SLOT_DISABLED, "iterations": 0, "salt": bytes(lay.SALT_LENGTH),
            "key_offset_sector": sector, "stripes": lay.STRIPES}  # fmt: skip


def _new_uuid() -> str:
    """A random UUID, version 4 (qemu_uuid_generate)."""
    number = int.from_bytes(os.urandom(16), "big")
    number = number & ~(0xF << 76) | 4 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
