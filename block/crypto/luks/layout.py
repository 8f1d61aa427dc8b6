# SPDX-License-Identifier: GPL-2.0-only
"""What stands at the start of a LUKS volume, version 1 (LUKS on-disk format specification 1.2.3).

    0          the header: 592 bytes, with eight key slots
    4096       key material of slot 0: the master key in stripes, encrypted with a password
    ...        key material of the others, each at the next multiple of 4096
    payload    the disk, encrypted with the master key; its sectors count from 0

All numbers are big-endian. The names are the specification's, written as QEMU writes them.
"""

from __future__ import annotations

from construct import Array, Bytes, Int16ub, Int32ub, Struct

MAGIC = b"LUKS\xba\xbe"
VERSION = 1
SLOTS = 8
STRIPES = 4000
DIGEST_LENGTH = 20
SALT_LENGTH = 32
NAME_LENGTH = 32
UUID_LENGTH = 40
KEY_SLOT_OFFSET = 4096
HEADER_SECTORS = KEY_SLOT_OFFSET // 512
MIN_ITERATIONS = 1000
SLOT_DISABLED = 0x0000DEAD
SLOT_ENABLED = 0x00AC71F3

KEY_SLOT = Struct(
    "active" / Int32ub,
    "iterations" / Int32ub,
    "salt" / Bytes(SALT_LENGTH),
    "key_offset_sector" / Int32ub,
    "stripes" / Int32ub,
)

HEADER = Struct(
    "magic" / Bytes(len(MAGIC)),
    "version" / Int16ub,
    "cipher_name" / Bytes(NAME_LENGTH),
    "cipher_mode" / Bytes(NAME_LENGTH),
    "hash_spec" / Bytes(NAME_LENGTH),
    "payload_offset_sector" / Int32ub,
    "master_key_len" / Int32ub,
    "master_key_digest" / Bytes(DIGEST_LENGTH),
    "master_key_salt" / Bytes(SALT_LENGTH),
    "master_key_iterations" / Int32ub,
    "uuid" / Bytes(UUID_LENGTH),
    "key_slots" / Array(SLOTS, KEY_SLOT),
)
HEADER_LENGTH = HEADER.sizeof()
