# SPDX-License-Identifier: GPL-2.0-only
"""What a virtio block device and its driver exchange, byte for byte (virtio 1.2, 5.2).

Names are the specification's. Everything is little-endian. The structures that are read for
each request are precompiled (rule 7 of the design); the configuration space is declared as
a table because it is written once and read by people.
"""

from __future__ import annotations

from block.lean import Struct

DEVICE_ID = 2
SECTOR = 512  # bytes; the unit of every `sector`, whatever blk_size says

# Feature bits (5.2.3).
F_SIZE_MAX = 1 << 1
F_SEG_MAX = 1 << 2
F_GEOMETRY = 1 << 4
F_RO = 1 << 5
F_BLK_SIZE = 1 << 6
F_FLUSH = 1 << 9
F_TOPOLOGY = 1 << 10
F_CONFIG_WCE = 1 << 11
F_MQ = 1 << 12
F_DISCARD = 1 << 13
F_WRITE_ZEROES = 1 << 14

# Request types (5.2.6).
T_IN = 0
T_OUT = 1
T_FLUSH = 4
T_GET_ID = 8
T_DISCARD = 11
T_WRITE_ZEROES = 13
T_BARRIER = 0x8000_0000  # legacy flag, sent by old drivers without being offered: ignored

# Status byte.
S_OK = 0
S_IOERR = 1
S_UNSUPP = 2

ID_BYTES = 20  # of a GET_ID answer, padded with zeros, without one when it is that long

REQUEST_HEADER = Struct("<IIQ")  # type, reserved, sector
SEGMENT = Struct("<QII")  # sector, num_sectors, flags (discard and write zeroes)
SEGMENT_UNMAP = 1

# struct virtio_blk_config (5.2.4): name and format of each field.
CONFIG_FIELDS = (
    ("capacity", "Q"),  # sectors of 512 bytes
    ("size_max", "I"),  # bytes in one segment
    ("seg_max", "I"),  # segments in one request
    ("cylinders", "H"),
    ("heads", "B"),
    ("sectors", "B"),
    ("blk_size", "I"),  # bytes
    ("physical_block_exp", "B"),  # log2 of logical blocks in a physical one
    ("alignment_offset", "B"),
    ("min_io_size", "H"),  # logical blocks
    ("opt_io_size", "I"),  # logical blocks
    ("writeback", "B"),  # the one field a driver may write, with CONFIG_WCE
    ("unused0", "B"),
    ("num_queues", "H"),
    ("max_discard_sectors", "I"),
    ("max_discard_seg", "I"),
    ("discard_sector_alignment", "I"),
    ("max_write_zeroes_sectors", "I"),
    ("max_write_zeroes_seg", "I"),
    ("write_zeroes_may_unmap", "B"),
)
CONFIG = Struct("<" + "".join(form for _, form in CONFIG_FIELDS) + "3x")
CONFIG_OFFSETS = {
    name: Struct("<" + "".join(form for _, form in CONFIG_FIELDS[:number])).size
    for number, (name, _) in enumerate(CONFIG_FIELDS)
}


def pack_config(values: dict[str, int]) -> bytearray:
    """The configuration space, from field names to values; a missing name is 0."""
    assert values.keys() <= CONFIG_OFFSETS.keys(), "a name that the layout does not have"
    return bytearray(CONFIG.pack(*(values.get(name, 0) for name, _ in CONFIG_FIELDS)))


def unpack_config(space: bytes | bytearray | memoryview) -> dict[str, int]:
    """The way back: what a driver reads out of the space."""
    return dict(zip(CONFIG_OFFSETS, CONFIG.unpack(space), strict=True))
