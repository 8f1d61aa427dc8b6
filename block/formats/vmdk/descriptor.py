# SPDX-License-Identifier: GPL-2.0-only
"""The descriptor: the text that says what a disk is made of.

    # Disk DescriptorFile
    version=1
    CID=e7e11b2c                                another number after each use of the disk
    parentCID=ffffffff                          the CID that the backing file must have; none
    createType="twoGbMaxExtentSparse"
    parentFileNameHint="base.vmdk"              where there is a backing file

    RW 4194304 SPARSE "disk-s001.vmdk"          an extent: access, sectors, type, file
    RW 4194304 FLAT "disk-f002.vmdk" 0          and, in a flat file, the sector where it begins

R1  A line that speaks of an extent is understood, or the image is refused. To skip one would
    move all that follows it to another place of the disk.
R2  Text is handled as bytes: names of files need not be UTF-8.
Who may call it: anyone. These are pure functions.
"""

from __future__ import annotations

import errno
import re

from block.core import flags as f
from block.core.error import BlockError

FLAT_TYPES = ("FLAT", "VMFS")
SPARSE_TYPES = ("SPARSE", "VMFSSPARSE")
CREATE_TYPES = (
    "monolithicFlat", "vmfs", "vmfsSparse", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
)  # fmt: skip
"""What a descriptor that stands alone may be. Others have theirs within the extent."""

MAX_NAME = 1023
NO_PARENT = 0xFFFFFFFF

_EXTENT = re.compile(
    rb"\s*(RW|RDONLY|NOACCESS)\s+([+-]?\d{1,19})\s+([A-Z]{1,20})"
    rb'(?:\s+"([^\r\n"]{1,511})"(?:\s+([+-]?\d{1,19}))?)?\s*'
)
_LOOKS_LIKE_EXTENT = re.compile(rb"\s*(RW|RDONLY|NOACCESS)\s")


class ExtentLine:
    """What a line says of an extent; `sectors` is its length, `offset` where it begins there."""

    __slots__ = ("kind", "name", "offset", "sectors")

    def __init__(self, sectors: int, kind: str, name: str, offset: int = 0) -> None:
        self.sectors = sectors
        self.kind = kind
        self.name = name
        self.offset = offset

    @property
    def is_flat(self) -> bool:
        """Whether the extent is nothing but the disk's bytes."""
        return self.kind in FLAT_TYPES


def _refuse(message: str, number: int = errno.EINVAL) -> BlockError:
    return BlockError(number, message, driver="vmdk")


# -- reading


def text_of(data: bytes) -> bytes:
    """What stands before the first NUL: descriptors are padded with them."""
    return data.partition(b"\0")[0]


def value_of(text: bytes, key: str) -> bytes | None:
    """The value of `key=value`, without quotation marks, or None (vmdk_parse_description)."""
    found = _assignment(key).search(text)
    return None if found is None else found[2].strip().strip(b'"')


def _assignment(key: str) -> re.Pattern[bytes]:
    return re.compile(rb"^([ \t]*" + key.encode() + rb"[ \t]*=[ \t]*)([^\r\n]*)", re.MULTILINE)


def read_cid(text: bytes, key: str = "CID") -> int:
    """The number of `CID` or `parentCID` (vmdk_read_cid)."""
    value = value_of(text, key) or b""
    found = re.match(rb"(?:0[xX])?([0-9a-fA-F]+)", value)
    if found is None:
        raise _refuse(f"vmdk: descriptor has no {key}")
    return int(found[1], 16) & 0xFFFFFFFF


def with_cid(text: bytes, cid: int) -> bytes:
    """The text with another CID; the rest stays as it is (vmdk_write_cid)."""
    return _assignment("CID").sub(lambda found: found[1] + b"%08x" % cid, text, count=1)


def parent_name(text: bytes) -> str:
    """The backing file's name, '' for none (vmdk_parent_open)."""
    name = value_of(text, "parentFileNameHint") or b""
    if len(name) > MAX_NAME:
        raise _refuse(f"vmdk: descriptor.parentFileNameHint is {len(name)} > {MAX_NAME} bytes long")
    return name.decode(errors="surrogateescape")


def create_type(text: bytes) -> str:
    """The kind of disk; raises where there is none (vmdk_open_desc_file)."""
    kind = value_of(text, "createType")
    if kind is None:
        raise _refuse("invalid VMDK image descriptor")
    return kind.decode(errors="replace")


def extent_lines(text: bytes) -> list[ExtentLine]:
    """All extents, in order (vmdk_parse_extents, R1)."""
    lines = text.split(b"\n")
    return [_extent_line(line) for line in lines if _LOOKS_LIKE_EXTENT.match(line)]


def _extent_line(line: bytes) -> ExtentLine:
    found = _EXTENT.fullmatch(line)
    shown = line.strip().decode(errors="replace")
    if found is None:
        raise _refuse(f"Invalid extent line: {shown}")
    access, sectors, kind, name, offset = found.groups()
    if access != b"RW":
        raise _refuse(f"Unsupported extent access '{access.decode()}': {shown}", errno.ENOTSUP)
    spelled = kind.decode()
    if spelled not in FLAT_TYPES + SPARSE_TYPES:
        raise _refuse(f"Unsupported extent type '{spelled}'", errno.ENOTSUP)
    # FLAT needs a place in its file, the others have none.
    if name is None or (offset is None) == (spelled == "FLAT"):
        raise _refuse(f"Invalid extent line: {shown}")
    extent = ExtentLine(
        int(sectors), spelled, name.decode(errors="surrogateescape"), int(offset or 0)
    )
    if extent.sectors <= 0 or extent.offset < 0:
        raise _refuse(f"Invalid extent line: {shown}")
    if (extent.sectors + extent.offset) * f.SECTOR_SIZE > f.MAX_LENGTH:
        raise _refuse(f"Invalid extent line: {shown}", errno.EFBIG)
    return extent


# -- writing

_TEMPLATE = """\
# Disk DescriptorFile
version=1
CID={cid:x}
parentCID={parent_cid:x}
createType="{subformat}"
{parent}
# Extent description
{extents}
# The Disk Data Base
#DDB

ddb.virtualHWVersion = "{hwversion}"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "63"
ddb.adapterType = "{adapter_type}"
ddb.toolsVersion = "{toolsversion}"
"""


def build(subformat: str, extents: list[ExtentLine], size: int, **fields: object) -> bytes:
    """A new descriptor, as QEMU writes it.

    `fields`: cid, parent_cid, backing_file, adapter_type, hwversion, toolsversion.
    """
    heads = 16 if fields["adapter_type"] == "ide" else 255
    lines = "".join(
        f'RW {line.sectors} {line.kind} "{line.name}"{" 0" if line.is_flat else ""}\n'
        for line in extents
    )
    parent = fields["backing_file"]
    text = _TEMPLATE.format(
        subformat=subformat,
        extents=lines,
        parent=f'parentFileNameHint="{parent}"' if parent else "",
        heads=heads,
        cylinders=size // (63 * heads * f.SECTOR_SIZE),
        **{name: value for name, value in fields.items() if name != "backing_file"},
    )
    return text.encode(errors="surrogateescape")
