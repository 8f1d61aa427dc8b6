# SPDX-License-Identifier: GPL-2.0-only
"""Key slots: how a password becomes the master key, and back (qcrypto_block_luks_*_key).

    password --PBKDF2, the slot's salt--> slot key
    master key --split into 4000 stripes--> encrypted with the slot key --> the slot's key material

R1  Nobody knows whether a password is right before the master key that comes out has the digest
    that the header keeps.
R2  A slot is written before the header says that it is in use. It is erased the other way round:
    the header first; then random bytes over the key material, 40 times.
R3  These functions change the header in memory, too, and leave it as the disk has it.
They take as long as the iteration counts say: for people, not for an event loop.
"""

from __future__ import annotations

import errno
import os

from block.core.error import BlockError
from block.core.options import invalid
from block.crypto.afsplit import merge, split
from block.crypto.hashes import count_iters, pbkdf2
from block.crypto.luks import layout as lay
from block.crypto.modes import SECTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from block.crypto.block import ReadFunc, WriteFunc
    from block.crypto.luks.params import LuksParams

ERASE_ITERATIONS = 40
UINT32_MAX = (1 << 32) - 1


def is_active(header: Any, number: int) -> bool:
    """Whether a slot keeps the key (qcrypto_block_luks_slot_active)."""
    active: bool = header.key_slots[number].active == lay.SLOT_ENABLED
    return active


def active_slots(header: Any) -> list[int]:
    """The numbers of the slots that keep the key."""
    return [number for number in range(lay.SLOTS) if is_active(header, number)]


def find_key(header: Any, params: LuksParams, password: bytes, read: ReadFunc) -> bytes:
    """The master key, from the first slot with that password (qcrypto_block_luks_find_key).

    Raises BlockError(EINVAL) where there is none.
    """
    for number in active_slots(header):
        key = load_key(header, params, number, password, read)
        if key is not None:
            return key
    raise invalid("Invalid password, cannot unlock any keyslot")


def load_key(
    header: Any, params: LuksParams, number: int, password: bytes, read: ReadFunc
) -> bytes | None:
    """The master key from one slot; None if it is another password's, or not in use (R1)."""
    if not is_active(header, number):
        return None
    slot = header.key_slots[number]
    length = header.master_key_len
    slot_key = pbkdf2(params.hash_alg, password, slot.salt, slot.iterations, length)
    material = read(slot.key_offset_sector * SECTOR, length * slot.stripes)
    stripes = params.new_cipher(slot_key).decrypt(0, material)
    key = merge(params.hash_alg, stripes, length)
    return key if key_digest(header, params, key) == header.master_key_digest else None


def key_digest(header: Any, params: LuksParams, key: bytes) -> bytes:
    """What the header keeps of a master key, with its salt and its iterations."""
    salt, iterations = header.master_key_salt, header.master_key_iterations
    return pbkdf2(params.hash_alg, key, salt, iterations, lay.DIGEST_LENGTH)


def iterations_for(params: LuksParams, length: int, iter_time_ms: int, share: int = 1) -> int:
    """How often to hash, to spend iter_time_ms / share on this machine. Raises BlockError."""
    if iter_time_ms == 0:
        return lay.MIN_ITERATIONS  # and no need to measure
    per_second = count_iters(params.hash_alg, length)
    if per_second * iter_time_ms >= 1 << 64:
        message = f"PBKDF iterations {per_second} too large to scale"
        raise BlockError(errno.ERANGE, f"{message}: {os.strerror(errno.ERANGE)}")
    iterations = per_second * iter_time_ms // 1000 // share
    if iterations > UINT32_MAX:
        message = f"PBKDF iterations {iterations} larger than {UINT32_MAX}"
        raise BlockError(errno.ERANGE, f"{message}: {os.strerror(errno.ERANGE)}")
    return max(iterations, lay.MIN_ITERATIONS)


def store_key(
    header: Any,
    params: LuksParams,
    number: int,
    password: bytes,
    key: bytes,
    iter_time_ms: int,
    write: WriteFunc,
) -> None:
    """Puts the master key into a slot, under a password (qcrypto_block_luks_store_key, R2)."""
    slot = header.key_slots[number]
    iterations = iterations_for(params, len(key), iter_time_ms)
    salt = os.urandom(lay.SALT_LENGTH)
    slot_key = pbkdf2(params.hash_alg, password, salt, iterations, len(key))
    stripes = split(params.hash_alg, key, slot.stripes)
    material = params.new_cipher(slot_key).encrypt(0, stripes)
    write(slot.key_offset_sector * SECTOR, bytes(material))
    slot.salt, slot.iterations, slot.active = salt, iterations, lay.SLOT_ENABLED
    store_header(header, write)


def erase_key(header: Any, number: int, write: WriteFunc) -> None:
    """Takes the master key out of a slot (qcrypto_block_luks_erase_key, R2)."""
    slot = header.key_slots[number]
    slot.salt, slot.iterations, slot.active = bytes(lay.SALT_LENGTH), 0, lay.SLOT_DISABLED
    try:
        store_header(header, write)
    finally:
        for _ in range(ERASE_ITERATIONS):
            garbage = os.urandom(header.master_key_len * slot.stripes)
            write(slot.key_offset_sector * SECTOR, garbage)


def store_header(header: Any, write: WriteFunc) -> None:
    """Writes the header with all slots, not their key material (luks_store_header)."""
    write(0, lay.HEADER.build(header))
