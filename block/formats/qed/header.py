# SPDX-License-Identifier: GPL-2.0-only
"""The header: reading it without believing it, and writing it (bdrv_qed_do_open).

R1  Every field is checked before it is used, every size capped as QEMU caps it. The message is
    QEMU's, followed by the field at fault.
R2  A bit of `features` that is not understood means: hands off. Unknown bits of compat_features
    are kept; those of autoclear_features are cleared when the image is opened for writing.
R3  What stands behind the header's 64 bytes belongs to whoever wrote it, and stays.
R4  Whoever writes the header holds `allocating` (state.py, R3), or is alone.
Opening and `change_backing_file` in the main thread.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.error import BlockError
from block.core.record import Fields
from block.core.wait import run_sync
from block.formats.qed import layout as lay
from block.formats.qed.table import read_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qed.state import QedState


def _refuse(s: QedState, message: str, field: str, number: int = errno.EINVAL) -> BlockError:
    """The error for a header that cannot be: QEMU's words, then the field (R1)."""
    return BlockError(number, f"{message} (header.{field})", s.bs.node_name, "qed")


def is_size_valid(size: int, least: int, most: int) -> bool:
    """Whether a size is a power of two within limits (qed_is_cluster_size_valid)."""
    return least <= size <= most and not size & (size - 1)


def max_image_size(cluster_size: int, table_size: int) -> int:
    """The length of a disk whose tables are all there and full (qed_max_image_size).

    QEMU reckons in 64 bits, so it finds 0 for clusters of 4 MiB with tables of 4 clusters.
    """
    entries = table_size * cluster_size // lay.ENTRY_SIZE
    return entries * entries * cluster_size


def is_image_size_valid(size: int, cluster_size: int, table_size: int) -> bool:
    """Whether the tables can cover a disk of that length (qed_is_image_size_valid)."""
    return not size % f.SECTOR_SIZE and size <= max_image_size(cluster_size, table_size)


# -- reading


def read_header(s: QedState) -> None:
    """Reads and checks the header, and sets the geometry; the tables are not read."""
    data = s.file.pread(0, lay.HEADER_LENGTH)
    if data[:4] != lay.MAGIC:
        raise _refuse(s, "Image not in QED format", "magic")
    s.header = head = lay.HEADER.parse(data)
    unknown = head.features & ~lay.FEATURES_KNOWN
    if unknown:
        message = f"Unsupported QED features: {unknown:x}"
        raise _refuse(s, message, f"features: {head.features:#x}", errno.ENOTSUP)
    _check_sizes(s, head)
    s.set_geometry(head.cluster_size, head.table_size, head.header_size)
    s.file_size = s.file.bs.getlength() & ~s.cluster_mask
    if not s.is_table(head.l1_table_offset):
        raise _refuse(
            s, "QED table offset is invalid", f"l1_table_offset: {head.l1_table_offset:#x}"
        )
    if s.header_end > 0xFFFF_FFFF:
        raise _refuse(s, "QED header size is too large", f"header_size: {head.header_size}")
    if head.features & lay.F_BACKING_FILE:
        _read_backing_name(s, head)


def _check_sizes(s: QedState, head: Fields) -> None:
    size = head.cluster_size
    if not is_size_valid(size, lay.MIN_CLUSTER_SIZE, lay.MAX_CLUSTER_SIZE):
        raise _refuse(s, "QED cluster size is invalid", f"cluster_size: {size}")
    if not is_size_valid(head.table_size, lay.MIN_TABLE_SIZE, lay.MAX_TABLE_SIZE):
        raise _refuse(s, "QED table size is invalid", f"table_size: {head.table_size}")
    if not is_image_size_valid(head.image_size, size, head.table_size):
        raise _refuse(s, "QED image size is invalid", f"image_size: {head.image_size}")
    if head.image_size > f.MAX_LENGTH:
        where = f"image_size: {head.image_size} > {f.MAX_LENGTH}"
        raise _refuse(s, "QED image size is invalid", where, errno.EFBIG)


def _read_backing_name(s: QedState, head: Fields) -> None:
    offset, size = head.backing_filename_offset, head.backing_filename_size
    if offset + size > s.header_end:
        where = f"backing_filename_offset: {offset} + {size} > {s.header_end}"
        raise _refuse(s, "QED backing filename offset is invalid", where)
    if size > lay.MAX_BACKING_NAME:
        where = f"backing_filename_size: {size} > {lay.MAX_BACKING_NAME}"
        raise _refuse(s, "QED backing filename is too long", where)
    name = s.file.pread(offset, size).split(b"\0")[0].decode(errors="surrogateescape")
    s.bs.backing_file = s.bs.auto_backing_file = name
    if head.features & lay.F_BACKING_FORMAT_NO_PROBE:
        s.bs.backing_format = "raw"


def read_l1_table(s: QedState, image_size: int) -> None:
    """Reads what a disk of that length uses of the L1 table, in whole sectors (state.py, R4)."""
    run_sync(s.bs.aio_context, lambda: co_read_l1_table(s, image_size))


async def co_read_l1_table(s: QedState, image_size: int) -> None:
    """As read_l1_table; with `lock` and `allocating`, or alone."""
    sectors = -(-s.l1_entries(image_size) // lay.SECTOR_ENTRIES)
    entries = sectors * lay.SECTOR_ENTRIES
    s.l1_table = await read_table(s, s.header.l1_table_offset, entries)


def clear_autoclear(s: QedState) -> None:
    """Takes away unknown autoclear bits, when the image is opened for writing (R2)."""
    if s.header.autoclear_features & ~lay.AUTOCLEAR_FEATURES_KNOWN:
        s.header.autoclear_features &= lay.AUTOCLEAR_FEATURES_KNOWN
        run_sync(s.bs.aio_context, lambda: write_header(s))
        s.file.bs.flush()


def check_writable(s: QedState) -> None:
    """Raises where a read-only image cannot become writable: it is repaired, and unknown autoclear
    bits are cleared, only while it is opened (R2)."""
    autoclear = s.header.autoclear_features
    if autoclear & ~lay.AUTOCLEAR_FEATURES_KNOWN:
        message = "Close the image and open it read/write: autoclear features must be cleared"
        raise _refuse(s, message, f"autoclear_features: {autoclear:#x}")
    if not s.sound:
        message = "Close the image and open it read/write: it was left dirty, and must be repaired"
        raise _refuse(s, message, f"features: {s.header.features:#x}", errno.EACCES)


# -- writing


async def write_header(s: QedState) -> None:
    """Writes the fields, and nothing behind them (qed_write_header, R3)."""
    data = lay.HEADER.build(s.header.values())
    await s.file.co_pwritev(0, len(data), [memoryview(data)])


def check_backing_name(name: bytes, header_end: int) -> None:
    """Raises BlockError(ENOSPC) where a name has no room between header and L1 table."""
    room = min(header_end - lay.HEADER_LENGTH, lay.MAX_BACKING_NAME)
    if len(name) > room:
        message = f"Backing file name of {len(name)} bytes is longer than {room}"
        raise BlockError(errno.ENOSPC, message, driver="qed")


def backing_features(backing_file: str, backing_fmt: str) -> int:
    """The feature bits that go with a backing file."""
    if not backing_file:
        return 0
    raw = lay.F_BACKING_FORMAT_NO_PROBE if backing_fmt == "raw" else 0
    return lay.F_BACKING_FILE | raw


def change_backing_file(s: QedState, backing_file: str, backing_fmt: str) -> None:
    """Writes another backing file into the header (bdrv_qed_change_backing_file)."""
    if backing_file and s.header.compat_features & ~lay.COMPAT_FEATURES_KNOWN:
        message = f"Unknown compat_features {s.header.compat_features:#x}: who knows what is there"
        raise BlockError(errno.ENOTSUP, message, s.bs.node_name, "qed")
    name = backing_file.encode(errors="surrogateescape")
    check_backing_name(name, s.header_end)
    run_sync(
        s.bs.aio_context,
        lambda: _write_backing(s, name, backing_features(backing_file, backing_fmt)),
    )


async def _write_backing(s: QedState, name: bytes, features: int) -> None:
    """Header and name in one write; memory follows the file."""
    async with s.allocating:
        others = s.header.features & ~(lay.F_BACKING_FILE | lay.F_BACKING_FORMAT_NO_PROBE)
        new = Fields(s.header.values())
        new.update(
            {
                "features": others | features,
                "backing_filename_offset": lay.HEADER_LENGTH,
                "backing_filename_size": len(name),
            }
        )
        data = lay.HEADER.build(new.values()) + name
        await s.file.co_pwritev(0, len(data), [memoryview(data)])
        await s.file.co_flush()
        s.header = new
