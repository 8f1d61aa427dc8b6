# SPDX-License-Identifier: GPL-2.0-only
"""The header: reading it without believing it (qcrypto_block_luks_check_header, _parse_header).

R1  Nothing in it is used before `check` has passed. Sizes need no cap of their own then: stripes
    are always 4000, and a key is as long as its cipher needs.
R2  Names are what Linux writes, `aes` and `xts-plain64`; QEMU's are `aes-256`, `xts`, `plain64`.
R3  Messages are QEMU's.
"""

from __future__ import annotations

from block.core.options import invalid
from block.crypto.luks import layout as lay
from block.crypto.luks.params import FAMILIES, LuksParams
from block.crypto.modes import SECTOR
from block.crypto.names import DIGEST_LENGTHS, IVGENS, KEY_LENGTHS, MODES, key_length

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any

    from block.crypto.block import ReadFunc


def read_header(read: ReadFunc) -> Any:
    """Reads the header and checks it (R1). Raises BlockError."""
    header = lay.HEADER.parse(read(0, lay.HEADER_LENGTH))
    check(header)
    return header


def check(header: Any) -> None:
    """Raises BlockError unless the header makes sense in itself."""
    if header.magic != lay.MAGIC:
        raise invalid("Volume is not in LUKS format")
    if header.version != lay.VERSION:
        raise invalid(f"LUKS version {header.version} is not supported")
    for what, name in (
        ("cipher name", header.cipher_name),
        ("cipher mode", header.cipher_mode),
        ("hash spec", header.hash_spec),
    ):
        if b"\0" not in name:
            raise invalid(f"LUKS header {what} is not NUL terminated")
    if header.payload_offset_sector < lay.HEADER_SECTORS:
        raise invalid("LUKS payload is overlapping with the header")
    if header.master_key_iterations == 0:
        raise invalid("LUKS key iteration count is zero")
    for number in range(lay.SLOTS):
        _check_slot(header, number)


def _check_slot(header: Any, number: int) -> None:
    slot = header.key_slots[number]
    start = slot.key_offset_sector
    length = key_material_sectors(header.master_key_len, slot.stripes)
    if slot.stripes != lay.STRIPES:
        raise invalid(f"Keyslot {number} is corrupted (stripes {slot.stripes} != {lay.STRIPES})")
    if slot.active not in (lay.SLOT_DISABLED, lay.SLOT_ENABLED):
        raise invalid(f"Keyslot {number} state (active/disable) is corrupted")
    if slot.active == lay.SLOT_ENABLED and slot.iterations == 0:
        raise invalid(f"Keyslot {number} iteration count is zero")
    if start < lay.HEADER_SECTORS:
        raise invalid(f"Keyslot {number} is overlapping with the LUKS header")
    if start + length > header.payload_offset_sector:
        raise invalid(f"Keyslot {number} is overlapping with the encrypted payload")
    for other in range(number + 1, lay.SLOTS):
        begin = header.key_slots[other].key_offset_sector
        size = key_material_sectors(header.master_key_len, header.key_slots[other].stripes)
        if start + length > begin and begin + size > start:
            raise invalid(f"Keyslots {number} and {other} are overlapping in the header")


def key_material_sectors(key_len: int, stripes: int) -> int:
    """The sectors that a slot's key material takes: a multiple of the header's, as cryptsetup has
    it (qcrypto_block_luks_splitkeylen_sectors)."""
    sectors = -(-key_len * stripes // SECTOR)
    return -(-sectors // lay.HEADER_SECTORS) * lay.HEADER_SECTORS


def parse(header: Any) -> LuksParams:
    """What the names in a checked header say (R2). Raises BlockError."""
    spec = _text(header.cipher_mode)
    mode, dash, ivgen = spec.partition("-")
    if not dash:
        raise invalid(f"Unexpected cipher mode string format '{spec}'")
    ivgen_alg, colon, ivgen_hash = ivgen.partition(":")
    if colon:
        _known(ivgen_hash, DIGEST_LENGTHS, "Hash algorithm")
    _known(mode, MODES, "Cipher mode")
    alg = _cipher_alg(_text(header.cipher_name), mode, header.master_key_len)
    hash_alg = _known(_text(header.hash_spec), DIGEST_LENGTHS, "Hash algorithm")
    _known(ivgen_alg, IVGENS, "IV generator")
    if ivgen_alg == "essiv" and not colon:
        raise invalid("Missing IV generator hash specification")
    return LuksParams(alg, mode, ivgen_alg, ivgen_hash if colon else None, hash_alg)


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode(errors="replace")


def _known(name: str, names: Container[str], what: str) -> str:
    if name not in names:
        raise invalid(f"{what} '{name}' not supported")
    return name


def _cipher_alg(family: str, mode: str, key_len: int) -> str:
    """'aes' with a key of 64 bytes in xts is aes-256 (qcrypto_block_luks_cipher_name_lookup)."""
    for alg in KEY_LENGTHS:
        if alg.partition("-")[0] == family in FAMILIES and key_length(alg, mode) == key_len:
            return alg
    size = key_len // 2 if mode == "xts" else key_len
    raise invalid(f"Algorithm '{family}' with key size {size} bytes not supported")
