# SPDX-License-Identifier: GPL-2.0-only
"""One extent: a part of the disk in a file, flat or with tables (VmdkExtent).

    FLAT, VMFS             the file's bytes are the disk's
    SPARSE, VMFSSPARSE     the file begins with a header, KDMV or COWD; it has tables and grains

R1  Everything that a header says is checked here before it is used, and refused by the field's
    name (vmdk_open_vmdk4, vmdk_open_vmfs_sparse, vmdk_add_extent).
R2  A directory lies within its file: what was cut off would read as zeroes, and be lost with the
    next write.
R3  A sparse extent has one length, its header's; the descriptor's line does not count.
R4  An extent whose tables stand at its end is written by nobody: new grains would come behind
    the footer, and it would not be found again. Neither is one of version 3, which keeps track
    of changed blocks: who writes without doing so makes it lie. (Compressed ones bear that
    version for another reason.)
Who may call it: the main thread, while the image is opened.

What goes wrong in QEMU, as its source reads: R4 is not looked at, and the directory's size is
computed in 32 bits, so a capacity of 2^48 sectors may need no directory at all.
"""

from __future__ import annotations

import errno
from array import array

from block.core.error import BlockError
from block.formats.vmdk import layout as lay
from block.formats.vmdk.tables import GrainTable, from_disk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.record import Fields


class Extent:
    """What is known of an extent. Bytes, but for what ends in `_sectors` or `_sector`.

    start, length    its part of the disk
    flat_offset      where a flat one begins in its file
    grain            bytes of a grain            table_span   bytes of the disk that a table covers
    directory, backup                           the grain directories, of sectors
    first_sector     no grain begins before     next_sector  where the next one will be put
    """

    # fmt: off
    __slots__ = (
        "backup", "backup_place", "compressed", "directory", "directory_place", "file",
        "first_sector", "flat", "flat_offset", "grain", "grain_sectors", "has_markers", "kind",
        "length", "next_sector", "only_read", "start", "table_size", "table_span", "tables",
        "zero_grains",
    )
    # fmt: on

    def __init__(self, file: BdrvChild, length: int) -> None:
        self.file = file
        self.kind = ""
        self.start = 0
        self.length = length
        self.flat = False
        self.flat_offset = 0
        self.grain = self.table_span = length
        self.grain_sectors = length // lay.SECTOR
        self.table_size = 0
        self.directory = array("I")
        self.directory_place = 0
        self.backup: array[int] | None = None
        self.backup_place = 0
        self.tables: dict[int, GrainTable] = {}
        self.compressed = False
        self.has_markers = False
        self.zero_grains = False
        self.first_sector = 0
        self.next_sector = 0
        self.only_read = ""  # why nobody may write to it (R4)

    @property
    def end(self) -> int:
        """Where in the disk it ends."""
        return self.start + self.length

    def split(self, position: int) -> tuple[int, int]:
        """The index in its table, and the offset in its grain, of an offset in the extent."""
        number, inside = divmod(position % self.table_span, self.grain)
        return number, inside

    def table_end(self, position: int) -> int:
        """Where what the table of an offset covers ends."""
        return position - position % self.table_span + self.table_span

    def holds_data(self, entry: int) -> bool:
        """Whether an entry of a table names a grain of its own."""
        return entry > lay.GTE_ZEROED if self.zero_grains else entry > 0

    def directories(self) -> list[array[int]]:
        """The directory that is read, then the redundant one."""
        return [self.directory] if self.backup is None else [self.directory, self.backup]

    def directory_places(self) -> list[int]:
        """Where they stand in the file."""
        return [self.directory_place, self.backup_place][: len(self.directories())]

    def error(self, message: str, number: int = errno.EIO) -> BlockError:
        """An image that contradicts itself, met by a request."""
        name = self.file.bs.filename
        return BlockError(number, f"vmdk: extent '{name}': {message}", driver="vmdk")


def refuse(message: str, field: str = "", number: int = errno.EINVAL) -> BlockError:
    """A header that is not believed; `field` says which, and what stands there."""
    return BlockError(number, f"{message} ({field})" if field else message, driver="vmdk")


def flat_extent(file: BdrvChild, length: int, offset: int) -> Extent:
    """An extent of nothing but bytes, from `offset` of its file on."""
    extent = Extent(file, length)
    extent.flat = True
    extent.flat_offset = offset
    return extent


def sparse_extent(file: BdrvChild) -> Extent:
    """An extent with a header (vmdk_open_sparse)."""
    head = file.pread(0, lay.SECTOR)
    if head.startswith(lay.COWD_MAGIC):
        return _cowd_extent(file, head)
    if head.startswith(lay.SPARSE_MAGIC):
        return _kdmv_extent(file, lay.SPARSE_HEADER.parse(head))
    raise refuse("Image not in VMDK format")


# -- the two headers


def _cowd_extent(file: BdrvChild, data: bytes) -> Extent:
    head = lay.COWD_HEADER.parse(data)
    entries, grain = lay.COWD_TABLE_ENTRIES, head.grainSize
    _check_grain(grain, entries)
    needed = -(-head.numSectors // (entries * grain))
    if head.numGDEntries < needed:
        field = f"header.numGDEntries = {head.numGDEntries} < {needed}"
        raise refuse("L1 table is too small", field)
    extent = _with_tables(file, head.numSectors, grain, entries, head.numGDEntries)
    _read_directories(extent, head.gdOffset, None)
    extent.first_sector = head.gdOffset
    return extent


def _kdmv_extent(file: BdrvChild, head: Fields) -> Extent:
    at_end = head.gdOffset == lay.GD_AT_END
    if at_end:
        head = _footer(file)
    _check_kdmv(file, head)
    entries, grain = head.numGTEsPerGT, head.grainSize
    directory = -(-head.capacity // (entries * grain))
    extent = _with_tables(file, head.capacity, grain, entries, directory)
    redundant = head.flags & lay.FLAG_REDUNDANT and not at_end and head.rgdOffset
    _read_directories(extent, head.gdOffset, head.rgdOffset if redundant else None)
    extent.compressed = head.compressAlgorithm == lay.COMPRESSION_DEFLATE
    extent.has_markers = bool(head.flags & lay.FLAG_MARKERS)
    extent.zero_grains = bool(head.flags & lay.FLAG_ZERO_GRAIN)
    extent.first_sector = head.overHead
    if at_end:
        extent.only_read = "VMDK with its tables at the end must be read only"
    elif head.version == 3 and not extent.compressed:
        extent.only_read = "VMDK version 3 must be read only"
    return extent


def _footer(file: BdrvChild) -> Fields:
    """The header that stands at the end, with its marker before it and the last one behind."""
    size = lay.FOOTER.size
    length = file.bs.getlength()
    if length < size:
        raise refuse("Failed to read footer")
    foot = lay.FOOTER.parse(file.pread(length - size, size))
    marker, end = (lay.METADATA_MARKER.parse(data) for data in (foot.marker, foot.end))
    good = (
        (marker.size, marker.type) == (0, lay.MARKER_FOOTER)
        and (end.val, end.size, end.type) == (0, 0, lay.MARKER_EOS)
        and foot.header.startswith(lay.SPARSE_MAGIC)
    )
    if not good:
        raise refuse("Invalid footer")
    return lay.SPARSE_HEADER.parse(foot.header)


def _check_kdmv(file: BdrvChild, head: Fields) -> None:
    """All that a KDMV header can lie about, but for where its directories are."""
    if head.version > lay.MAX_VERSION:
        raise refuse(f"Unsupported VMDK version {head.version}", "header.version", errno.ENOTSUP)
    if head.numGTEsPerGT > lay.MAX_TABLE_ENTRIES:
        field = f"header.numGTEsPerGT = {head.numGTEsPerGT} > {lay.MAX_TABLE_ENTRIES}"
        raise refuse("L2 table size too big", field)
    _check_grain(head.grainSize, head.numGTEsPerGT)
    if file.bs.getlength() < head.overHead * lay.SECTOR:
        message = f"File truncated, expecting at least {head.overHead * lay.SECTOR} bytes"
        raise refuse(message, "header.overHead")


def _check_grain(sectors: int, entries: int) -> None:
    if not sectors * entries:
        field = f"header.grainSize = {sectors}, header.numGTEsPerGT = {entries}"
        raise refuse("L1 entry size is invalid", field)
    if sectors > lay.MAX_GRAIN_SECTORS:
        field = f"header.grainSize = {sectors} > {lay.MAX_GRAIN_SECTORS}"
        raise refuse("Invalid granularity, image may be corrupt", field, errno.EFBIG)


def _with_tables(file: BdrvChild, sectors: int, grain: int, entries: int, directory: int) -> Extent:
    """An extent of that geometry, all in sectors (vmdk_add_extent)."""
    if directory > lay.MAX_DIRECTORY:
        field = f"header.capacity = {sectors}: {directory} > {lay.MAX_DIRECTORY} entries"
        raise refuse("L1 size too big", field, errno.EFBIG)
    extent = Extent(file, sectors * lay.SECTOR)
    extent.grain_sectors = grain
    extent.grain = grain * lay.SECTOR
    extent.table_span = entries * extent.grain
    extent.table_size = entries * lay.ENTRY_SIZE
    extent.directory = array("I", bytes(directory * lay.ENTRY_SIZE))
    extent.next_sector = -(-file.bs.total_sectors // grain) * grain
    return extent


def _read_directories(extent: Extent, sector: int, redundant: int | None) -> None:
    """Reads the directory into memory, and the redundant one (vmdk_init_tables, R2)."""
    entries = len(extent.directory)
    extent.directory_place = sector * lay.SECTOR
    extent.directory = _read_directory(extent, sector, entries, "l1 table", "gdOffset")
    if redundant is not None:
        extent.backup_place = redundant * lay.SECTOR
        extent.backup = _read_directory(extent, redundant, entries, "l1 backup table", "rgdOffset")


def _read_directory(extent: Extent, sector: int, entries: int, what: str, field: str) -> array[int]:
    place, size = sector * lay.SECTOR, entries * lay.ENTRY_SIZE
    name = extent.file.bs.filename
    if not sector or place + size > extent.file.bs.getlength():
        message = f"Could not read {what} from extent '{name}'"
        raise refuse(message, f"header.{field} = {sector}, {entries} entries")
    return from_disk(extent.file.pread(place, size))
