# SPDX-License-Identifier: GPL-2.0-only
"""New images (vmdk_co_do_create, vmdk_init_extent).

    subformat               files of 'disk.vmdk'
    monolithicSparse        disk.vmdk                     descriptor and tables in one
    streamOptimized         disk.vmdk                     the same, with compressed grains
    monolithicFlat          disk.vmdk                     the descriptor
                            disk-flat.vmdk                the bytes
    twoGbMaxExtentSparse    disk.vmdk                     the descriptor
                            disk-s001.vmdk, -s002 ...     2 GiB each, with tables of their own
    twoGbMaxExtentFlat      disk.vmdk, disk-f001.vmdk ... the same, the bytes

R1  Options and the backing file are looked at before the first file is touched.
R2  The descriptor is written last: without it there is no disk.
Who may call it: the main thread; it blocks.
"""

from __future__ import annotations

import errno
import os.path
from array import array

from block.core import flags as f
from block.core.error import BlockError
from block.core.filename import full_backing_filename
from block.core.new_files import NewFiles, open_to_fill
from block.core.open import open_backend
from block.core.options import Option, invalid, take_options
from block.formats.vmdk import descriptor
from block.formats.vmdk import layout as lay
from block.formats.vmdk.descriptor import ExtentLine
from block.formats.vmdk.state import new_cid
from block.formats.vmdk.tables import to_disk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend

CREATE_OPTS = (
    Option("size", "size", "Virtual disk size"),
    Option(
        "adapter_type",
        "string",
        "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX",
    ),
    Option("backing_file", "string", "File name of a base image"),
    Option("backing_fmt", "string", "Must be 'vmdk' if present"),
    Option("compat6", "bool", "VMDK version 6 image", False),
    Option("hwversion", "string", "VMDK hardware version", "undefined"),
    Option("toolsversion", "string", "VMware guest tools version"),
    Option(
        "subformat",
        "string",
        "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | "
        "twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ",
    ),
    Option(
        "zeroed_grain",
        "bool",
        "Enable efficient zero writes using the zeroed-grain GTE feature",
    ),
)
ADAPTERS = ("ide", "buslogic", "lsilogic", "legacyESX")
SUBFORMATS = (
    "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
    "streamOptimized",
)  # fmt: skip
TOOLS_VERSION = "2147483647"


class Plan:
    """What to make; checked (R1)."""

    def __init__(self, filename: str, options: dict[str, object]) -> None:
        taken = take_options(options, CREATE_OPTS)
        self.filename = filename
        self.size: int = -(-(taken["size"] or 0) // f.SECTOR_SIZE) * f.SECTOR_SIZE
        if taken["backing_fmt"] not in (None, "", "vmdk"):
            raise invalid("backing_file must be a vmdk image")
        self.adapter_type = _one_of(ADAPTERS, taken["adapter_type"])
        self.subformat = _one_of(SUBFORMATS, taken["subformat"])
        self.hwversion = _hwversion(taken["hwversion"], taken["compat6"])
        self.toolsversion: str = taken["toolsversion"] or TOOLS_VERSION
        self.backing_file: str = taken["backing_file"] or ""
        self.zeroed_grain: bool = bool(taken["zeroed_grain"])
        self.flat = self.subformat.endswith("Flat")
        self.split = self.subformat.startswith("twoGb")
        self.compressed = self.subformat == "streamOptimized"
        self._check()
        self.parent_cid = self._parent_cid()

    def _check(self) -> None:
        if self.flat and self.backing_file:
            raise BlockError(errno.ENOTSUP, "Flat image can't have backing file")
        if self.flat and self.zeroed_grain:
            raise BlockError(errno.ENOTSUP, "Flat image can't enable zeroed grain")
        if '"' in self.backing_file or "\n" in self.backing_file:
            raise invalid("Backing file name cannot stand in a descriptor")

    def _parent_cid(self) -> int:
        """What the new image will want of its backing file."""
        if not self.backing_file:
            return descriptor.NO_PARENT
        name = full_backing_filename(self.filename, self.backing_file)
        base = open_backend(name, flags=f.BDRV_O_NO_BACKING)
        try:
            assert base.bs is not None
            assert base.bs.drv is not None
            found = base.bs.drv.format_name
            if found != "vmdk":
                raise invalid(f"Invalid backing file format: {found}. Must be vmdk")
            cid: int = base.bs.opaque.cid
            return cid
        finally:
            base.unref()

    def extent_name(self, number: int) -> str:
        """The file of an extent, counted from 1 (filename_decompose)."""
        start = max(self.filename.rfind("/"), self.filename.rfind(":")) + 1
        dot = self.filename.rfind(".", start)
        dot = len(self.filename) if dot < 0 else dot
        middle = f"-{'f' if self.flat else 's'}{number:03}" if self.split else "-flat"
        return self.filename[:dot] + middle + self.filename[dot:]


def _one_of(choices: tuple[str, ...], value: str | None) -> str:
    """`value`, or without one the first choice (qapi_enum_parse, in a format's own options)."""
    if value is not None and value not in choices:
        raise invalid(f"invalid parameter value: {value}")
    return value or choices[0]


def _hwversion(asked: str, compat6: bool) -> str:
    if compat6 and asked != "undefined":
        raise invalid("compat6 cannot be enabled with hwversion set")
    if asked != "undefined":
        return asked
    return "6" if compat6 else "4"


def create(filename: str, options: dict[str, object]) -> None:
    """Makes an image by that name."""
    plan = Plan(filename, options)
    options.clear()
    with NewFiles() as files:
        _make_disk(files, plan)


def _make_disk(files: NewFiles, plan: Plan) -> None:
    filename = plan.filename
    if plan.flat or plan.split:
        _make_file(files, filename, 0).unref()
        _write_descriptor(plan, _make_extents(files, plan), 0)
        return
    blk = _make_file(files, filename, 0)
    try:
        _init_sparse(blk, plan, plan.size)
    finally:
        blk.unref()
    line = ExtentLine(plan.size // lay.SECTOR, "SPARSE", os.path.basename(filename))
    _write_descriptor(plan, [line], lay.SECTOR)


def _make_extents(files: NewFiles, plan: Plan) -> list[ExtentLine]:
    """Makes the files that the disk's bytes go to; returns their lines."""
    lines = []
    most = lay.SPLIT_SIZE if plan.split else plan.size
    for number, start in enumerate(range(0, plan.size, most or 1), 1):
        size = min(most, plan.size - start)
        name = plan.extent_name(number)
        blk = _make_file(files, name, size if plan.flat else 0)
        try:
            if not plan.flat:
                _init_sparse(blk, plan, size)
        finally:
            blk.unref()
        kind = "FLAT" if plan.flat else "SPARSE"
        lines.append(ExtentLine(size // lay.SECTOR, kind, os.path.basename(name)))
    return lines


def _make_file(files: NewFiles, name: str, size: int) -> BlockBackend:
    files.make(name, {"size": size})
    blk = open_to_fill(name)
    blk.allow_write_beyond_eof = True
    return blk


def _write_descriptor(plan: Plan, lines: list[ExtentLine], place: int) -> None:
    """Writes the descriptor into a file that is there, and makes it safe (R2)."""
    text = descriptor.build(
        plan.subformat, lines, plan.size, cid=new_cid(), parent_cid=plan.parent_cid,
        backing_file=plan.backing_file, adapter_type=plan.adapter_type,
        hwversion=plan.hwversion, toolsversion=plan.toolsversion,
    )  # fmt: skip
    blk = open_to_fill(plan.filename)
    try:
        blk.allow_write_beyond_eof = True
        blk.pwrite(place, text)
        blk.flush()
    finally:
        blk.unref()


def _init_sparse(blk: BlockBackend, plan: Plan, size: int) -> None:
    """Header, and both grain directories with their tables behind them (vmdk_init_extent)."""
    grains = -(-size // (lay.NEW_GRAIN_SECTORS * lay.SECTOR))
    tables = -(-grains // lay.NEW_TABLE_ENTRIES)
    table_sectors = lay.NEW_TABLE_ENTRIES * lay.ENTRY_SIZE // lay.SECTOR
    directory_sectors = -(-tables * lay.ENTRY_SIZE // lay.SECTOR)
    taken = directory_sectors + tables * table_sectors
    redundant = 1 + lay.DESCRIPTOR_SECTORS
    end = redundant + 2 * taken
    first_grain = end + -end % lay.NEW_GRAIN_SECTORS
    blk.pwrite(0, _header(plan, size, redundant, redundant + taken, first_grain))
    blk.truncate(first_grain * lay.SECTOR)
    for place in (redundant, redundant + taken):
        first = place + directory_sectors
        entries = array("I", range(first, first + tables * table_sectors, table_sectors))
        data = to_disk(entries).ljust(directory_sectors * lay.SECTOR, b"\0")
        if data:
            blk.pwrite(place * lay.SECTOR, data)
    blk.flush()


def _header(plan: Plan, size: int, redundant: int, directory: int, first_grain: int) -> bytes:
    flags, version = lay.FLAG_REDUNDANT | lay.FLAG_NL_DETECT, 1
    if plan.zeroed_grain:
        flags, version = flags | lay.FLAG_ZERO_GRAIN, 2
    if plan.compressed:
        flags, version = flags | lay.FLAG_COMPRESSED | lay.FLAG_MARKERS, 3
    fields = {
        "magicNumber": lay.SPARSE_MAGIC, "version": version, "flags": flags,
        "capacity": size // lay.SECTOR, "grainSize": lay.NEW_GRAIN_SECTORS,
        "descriptorOffset": 1, "descriptorSize": lay.DESCRIPTOR_SECTORS,
        "numGTEsPerGT": lay.NEW_TABLE_ENTRIES, "rgdOffset": redundant, "gdOffset": directory,
        "overHead": first_grain,
        "uncleanShutdown": b"\0", "checkBytes": lay.CHECK_BYTES,
        "compressAlgorithm": lay.COMPRESSION_DEFLATE if plan.compressed else 0,
    }  # fmt: skip
    return lay.SPARSE_HEADER.build(fields)
