# SPDX-License-Identifier: GPL-2.0-only
"""New images (qcow2_co_create).

First a disk of no size, written by hand: header, refcount table, one refcount block. It is opened,
and the driver itself does the rest: it counts those three clusters, writes the full header, and
grows the disk. So a new image is made by the code that will write to it.

R1  Options are checked before the file is touched.
Who may call it: the main thread; it blocks.
"""

from __future__ import annotations

from array import array

from block.core import flags as f
from block.core.error import BlockError, failed
from block.core.new_files import NewFiles, open_to_fill
from block.core.open import bdrv_open, open_backend
from block.core.options import Option, invalid, parse_enum, take_options
from block.core.registry import find_protocol, find_row
from block.core.wait import run_sync
from block.formats.qcow2 import crypto, datafile
from block.formats.qcow2.alloc import alloc_clusters
from block.formats.qcow2.cache import to_disk
from block.formats.qcow2.layout import (
    AUTOCLEAR_DATA_FILE_RAW,
    COMPAT_LAZY_REFCOUNTS,
    COMPRESSION_NAMES,
    COMPRESSION_ZLIB,
    FULL_LENGTH,
    HEADER_MORE,
    HEADER_V2,
    HEADER_V3,
    INCOMPAT_COMPRESSION,
    INCOMPAT_DATA_FILE,
    INCOMPAT_EXTENDED_L2,
    MAGIC,
    MAX_BACKING_NAME,
    MAX_CLUSTER_BITS,
    MIN_CLUSTER_BITS,
    MIN_EXTENDED_CLUSTER_BITS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend
    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State

CREATE_OPTS = (
    *crypto.CREATE_OPTS,
    Option("cluster_size", "size", "qcow2 cluster size", 65536),
    Option("extended_l2", "bool", "Extended L2 tables", False),
    Option(
        "preallocation",
        "string",
        "Preallocation mode (allowed values: off, metadata, falloc, full)",
    ),
    Option(
        "compression_type",
        "string",
        "Compression method used for image cluster compression",
        "zlib",
    ),
    Option("size", "size", "Virtual disk size"),
    Option("compat", "string", "Compatibility level (v2 [0.10] or v3 [1.1])"),
    Option("backing_file", "string", "File name of a base image"),
    Option("backing_fmt", "string", "Image format of the base image"),
    Option("data_file", "string", "File name of an external data file"),
    Option("data_file_raw", "bool", "The external data file must stay valid as a raw image"),
    Option("lazy_refcounts", "bool", "Postpone refcount updates", False),
    Option("refcount_bits", "number", "Width of a reference count entry in bits", 16),
)
AMENDABLE = (
    "size", "compat", "backing_file", "backing_fmt", "data_file", "data_file_raw",
    "lazy_refcounts", "refcount_bits",
)  # fmt: skip
AMEND_OPTS = (
    *(option for option in CREATE_OPTS if option.name in AMENDABLE),
    *crypto.AMEND_OPTS,
)
VERSIONS = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}


class Plan:
    """What to make; checked (R1)."""

    def __init__(self, options: dict[str, object]) -> None:
        self.encryption = crypto.Plan(options)
        taken = take_options(options, CREATE_OPTS)
        self.size: int = -(-(taken["size"] or 0) // f.SECTOR_SIZE) * f.SECTOR_SIZE
        self.version = VERSIONS[parse_enum("version", taken["compat"], VERSIONS, "1.1")]
        mode, method = taken["preallocation"], taken["compression_type"]
        self.preallocation = parse_enum("preallocation", mode, f.PREALLOC_MODES, "off")
        method = parse_enum("compression-type", method, COMPRESSION_NAMES, "zlib")
        self.compression_type = COMPRESSION_NAMES.index(method)
        self.extended_l2: bool = taken["extended_l2"]
        if self.extended_l2 and self.version < 3:
            raise _too_old("Extended L2 entries are")
        self.cluster_bits = _cluster_bits(taken["cluster_size"], self.extended_l2)
        self.refcount_order = _refcount_order(taken["refcount_bits"], self.version)
        self.lazy_refcounts: bool = taken["lazy_refcounts"]
        self.backing_file: str = taken["backing_file"] or ""
        self.backing_format: str = taken["backing_fmt"] or ""
        self.data_file: str = taken["data_file"] or ""
        self.data_file_raw = bool(taken["data_file_raw"])
        self._check()

    def _check(self) -> None:
        if self.backing_file and self.preallocation != "off" and not self.extended_l2:
            raise invalid(
                "Backing file and preallocation can only be used at the same time if "
                "extended_l2 is on"
            )
        if self.backing_format and not self.backing_file:
            raise invalid("Backing format cannot be used without backing file")
        if self.backing_format and find_row(self.backing_format) is None:
            raise invalid(f"Parameter 'backing-fmt' does not accept value '{self.backing_format}'")
        if len(self.backing_file.encode(errors="surrogateescape")) > MAX_BACKING_NAME:
            raise invalid("Backing file name too long")
        if self.version < 3 and self.compression_type != COMPRESSION_ZLIB:
            raise invalid(
                "Non-zlib compression type is only supported with compatibility level 1.1 and "
                "above (use version=v3 or greater)"
            )
        if self.version < 3 and self.lazy_refcounts:
            raise invalid(
                "Lazy refcounts only supported with compatibility level 1.1 and above "
                "(use version=v3 or greater)"
            )
        self._check_data_file()

    def _check_data_file(self) -> None:
        if self.data_file_raw and not self.data_file:
            raise invalid("data-file-raw requires data-file")
        if self.data_file_raw and self.backing_file:
            raise invalid("Backing file and data-file-raw cannot be used at the same time")
        if self.data_file and self.version < 3:
            raise _too_old("External data files are")


def _too_old(what: str) -> BlockError:
    return invalid(
        f"{what} only supported with compatibility level 1.1 and above (use version=v3 or greater)"
    )


def _cluster_bits(size: int, extended_l2: bool) -> int:
    bits = size.bit_length() - 1
    if size != 1 << max(bits, 0) or not MIN_CLUSTER_BITS <= bits <= MAX_CLUSTER_BITS:
        raise invalid(
            f"Cluster size must be a power of two between {1 << MIN_CLUSTER_BITS} and "
            f"{1 << MAX_CLUSTER_BITS - 10}k"
        )
    if extended_l2 and bits < MIN_EXTENDED_CLUSTER_BITS:
        raise invalid(
            "Extended L2 entries are only supported with cluster sizes of at least "
            f"{1 << MIN_EXTENDED_CLUSTER_BITS} bytes"
        )
    return bits


def check_refcount_bits(bits: int) -> None:
    """Raises where no refcount can have so many bits (in qcow2_opt_get_refcount_bits_del)."""
    if not 1 <= bits <= 64 or bits & (bits - 1):
        raise invalid("Refcount width must be a power of two and may not exceed 64 bits")


def _refcount_order(bits: int, version: int) -> int:
    check_refcount_bits(bits)
    if version < 3 and bits != 16:
        raise invalid(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above "
            "(use version=v3 or greater)"
        )
    return bits.bit_length() - 1


def create(filename: str, options: dict[str, object]) -> None:
    """Makes an image by that name."""
    plan = Plan(options)
    with NewFiles() as files:
        files.make(filename, {**options, "size": 0})
        options.clear()
        _write_start(filename, plan)
        _fill(filename, plan, _create_data_file(files, plan))


def _fill(filename: str, plan: Plan, data: BlockDriverState | None) -> None:
    """Opens the disk of no size and lets it become what was planned; takes the reference."""
    below = {} if data is None else {"data-file": data.node_name}
    flags = f.BDRV_O_RDWR | f.BDRV_O_RESIZE | f.BDRV_O_NO_FLUSH
    try:
        blk = open_backend(filename, options={"driver": "qcow2", **below}, flags=flags)
    finally:
        if data is not None:
            data.unref()
    try:
        _complete(blk, plan)
    finally:
        blk.unref()
    _flush(filename)


def _create_data_file(files: NewFiles, plan: Plan) -> BlockDriverState | None:
    """Makes the file that the guest's data will go to; the caller gets a reference."""
    if not plan.data_file:
        return None
    files.make(plan.data_file, {"size": 0})
    options = {"driver": find_protocol(plan.data_file).format_name}
    flags = f.BDRV_O_RDWR | f.BDRV_O_RESIZE | f.BDRV_O_PROTOCOL
    data = bdrv_open(plan.data_file, options=options, flags=flags)
    plan.data_file = data.filename  # as the header will have it
    return data


def _incompatible(plan: Plan) -> int:
    data_file = INCOMPAT_DATA_FILE if plan.data_file else 0
    compression = INCOMPAT_COMPRESSION if plan.compression_type else 0
    return data_file | compression | (INCOMPAT_EXTENDED_L2 if plan.extended_l2 else 0)


def _write_start(filename: str, plan: Plan) -> None:
    """A header that says: no size; behind it a refcount table with one block, all zero."""
    size = 1 << plan.cluster_bits
    fields = {
        "magic": MAGIC, "version": plan.version, "cluster_bits": plan.cluster_bits,
        "refcount_table_offset": size, "refcount_table_clusters": 1,
        "refcount_order": plan.refcount_order, "header_length": FULL_LENGTH,
        "incompatible_features": _incompatible(plan),
        "autoclear_features": AUTOCLEAR_DATA_FILE_RAW if plan.data_file_raw else 0,
        "compatible_features": COMPAT_LAZY_REFCOUNTS if plan.lazy_refcounts else 0,
        "compression_type": plan.compression_type,
    }  # fmt: skip
    data = b""
    for part in (HEADER_V2, HEADER_V3, HEADER_MORE):
        data += part.build({name: fields.get(name, 0) for name in part.names})
    table = to_disk(array("Q", [2 * size]))
    blk = open_to_fill(filename)
    try:
        blk.allow_write_beyond_eof = True
        _write(blk, 0, data.ljust(size, b"\0"), "qcow2 header")
        _write(blk, size, bytes(table).ljust(2 * size, b"\0"), "refcount table")
    finally:
        blk.unref()


def _write(blk: BlockBackend, offset: int, data: bytes, what: str) -> None:
    try:
        blk.pwrite(offset, data)
    except OSError as error:
        raise failed(f"Could not write {what}", error) from error


def _complete(blk: BlockBackend, plan: Plan) -> None:
    """Lets the driver make a real image of it."""
    from block.formats.qcow2.header_update import update_header

    bs = blk.bs
    assert bs is not None
    s: Qcow2State = bs.opaque

    async def count_start() -> int:
        async with s.lock:
            return await alloc_clusters(s, 3, "")

    place = run_sync(bs.aio_context, count_start)
    assert place == 0, "the first cluster of an empty image is in use"
    datafile.set_file_name(s, plan.data_file)
    update_header(s, 0)
    blk.truncate(plan.size, False, plan.preallocation)
    if plan.backing_file:
        s.backing_name = plan.backing_file.encode(errors="surrogateescape")
        s.backing_format = plan.backing_format.encode()
        update_header(s, plan.size)
    crypto.set_up(s, plan.encryption, plan.size)
    bs.flush()


def _flush(filename: str) -> None:
    """So far nothing was flushed, to be fast; now all of it is."""
    blk = open_to_fill(filename)
    try:
        blk.pwrite(0, blk.pread(0, 4))
        blk.flush()
    finally:
        blk.unref()
