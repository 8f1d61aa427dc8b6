# SPDX-License-Identifier: GPL-2.0-only
"""New images (bdrv_qed_co_create): a header, the name of a backing file, an L1 table of zeroes.

R1  Options are checked before the file is touched.
Who may call it: the main thread; it blocks.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.iov import iov_to_bytes, zero_iov
from block.core.new_files import NewFiles, open_to_fill
from block.core.options import Option, invalid, take_options
from block.core.registry import find_row
from block.formats.qed import layout as lay
from block.formats.qed.header import (
    backing_features,
    check_backing_name,
    is_image_size_valid,
    is_size_valid,
    max_image_size,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend

CREATE_OPTS = (
    Option("size", "size", "Virtual disk size"),
    Option("backing_file", "string", "File name of a base image"),
    Option("backing_fmt", "string", "Image format of the base image"),
    Option("cluster_size", "size", "Cluster size (in bytes)", lay.DEFAULT_CLUSTER_SIZE),
    Option("table_size", "size", "L1/L2 table size (in clusters)"),
)


class Plan:
    """What to make; checked (R1)."""

    def __init__(self, options: dict[str, object]) -> None:
        taken = take_options(options, CREATE_OPTS)
        self.size: int = -(-(taken["size"] or 0) // f.SECTOR_SIZE) * f.SECTOR_SIZE
        self.cluster_size: int = taken["cluster_size"]
        table_size = taken["table_size"]
        self.table_size: int = lay.DEFAULT_TABLE_SIZE if table_size is None else table_size
        self.backing_fmt: str = taken["backing_fmt"] or ""
        backing_file: str = taken["backing_file"] or ""
        self.features = backing_features(backing_file, self.backing_fmt)
        self.backing_name = backing_file.encode(errors="surrogateescape")
        self._check()

    def _check(self) -> None:
        if not is_size_valid(self.cluster_size, lay.MIN_CLUSTER_SIZE, lay.MAX_CLUSTER_SIZE):
            raise _out_of_range("cluster", lay.MIN_CLUSTER_SIZE, lay.MAX_CLUSTER_SIZE)
        if not is_size_valid(self.table_size, lay.MIN_TABLE_SIZE, lay.MAX_TABLE_SIZE):
            raise _out_of_range("table", lay.MIN_TABLE_SIZE, lay.MAX_TABLE_SIZE)
        if not is_image_size_valid(self.size, self.cluster_size, self.table_size):
            most = max_image_size(self.cluster_size, self.table_size)
            raise invalid(
                "QED image size must be a non-zero multiple of cluster size and less than "
                f"{most} bytes"
            )
        if self.backing_fmt and find_row(self.backing_fmt) is None:
            raise invalid(f"Parameter 'backing-fmt' does not accept value '{self.backing_fmt}'")
        check_backing_name(self.backing_name, self.cluster_size)

    def header(self) -> bytes:
        """What stands at the start of the file."""
        name = self.backing_name
        fields = {
            "magic": lay.MAGIC,
            "cluster_size": self.cluster_size,
            "table_size": self.table_size,
            "header_size": 1,
            "features": self.features,
            "compat_features": 0,
            "autoclear_features": 0,
            "l1_table_offset": self.cluster_size,
            "image_size": self.size,
            "backing_filename_offset": lay.HEADER_LENGTH if name else 0,
            "backing_filename_size": len(name),
        }
        return lay.HEADER.build(fields) + name


def _out_of_range(what: str, least: int, most: int) -> Exception:
    return invalid(f"QED {what} size must be within range [{least}, {most}] and power of 2")


def create(filename: str, options: dict[str, object]) -> None:
    """Makes an image by that name."""
    plan = Plan(options)
    with NewFiles() as files:
        files.make(filename, {**options, "size": 0})
        options.clear()
        blk = open_to_fill(filename)
        try:
            _write(blk, plan)
            blk.flush()
        finally:
            blk.unref()


def _write(blk: BlockBackend, plan: Plan) -> None:
    blk.truncate(0, exact=True)  # it grows from its begin on, which a disk of this machine cannot
    blk.allow_write_beyond_eof = True
    blk.pwrite(0, plan.header())
    offset, end = plan.cluster_size, plan.cluster_size * (1 + plan.table_size)
    while offset < end:
        piece = min(end - offset, 1 << 20)
        blk.pwrite(offset, iov_to_bytes(zero_iov(piece)))
        offset += piece
