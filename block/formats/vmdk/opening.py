# SPDX-License-Identifier: GPL-2.0-only
"""Opening an image: its descriptor, wherever it stands, and all its extents.

    the file begins with   it is
    KDMV, COWD             one extent, with the descriptor in it
    anything else          a descriptor; the extents are other files, beside it

R1  The name of an extent is a file's, never a protocol's: relative to the descriptor's directory,
    or absolute (as QEMU has it: an image that is not trusted can name any file).
R2  An extent is no descriptor: what it says stands in its own tables. So nothing is nested.
R3  A file that holds the descriptor alone is opened for metadata: others may grow it.
Who may call it: the main thread.

What goes wrong in QEMU, as its source reads: an extent whose header tells of no capacity is taken
for a descriptor once more, which may name the same extent, without end.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core import permissions
from block.core.error import BlockError
from block.core.filename import node_dirname, path_has_protocol, path_is_absolute
from block.core.open import open_child
from block.core.open_node import apply_auto_read_only
from block.formats.vmdk import descriptor
from block.formats.vmdk import layout as lay
from block.formats.vmdk.extent import Extent, flat_extent, refuse, sparse_extent
from block.formats.vmdk.state import DESCRIPTOR_SIZE, VmdkState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


def open_image(bs: BlockDriverState, options: dict[str, object]) -> VmdkState:
    """Opens all that belongs to an image (vmdk_open)."""
    bs.file = open_child(None, options, "file", bs, f.BDRV_CHILD_IMAGE)
    assert bs.file is not None
    s = VmdkState(bs, bs.file)
    head = _read(s.file, 0, lay.SECTOR).ljust(lay.SECTOR, b"\0")
    if head.startswith((lay.SPARSE_MAGIC, lay.COWD_MAGIC)):
        s.desc_place = lay.SECTOR
        _open_with_tables(s, head, options)
    else:
        _give_up_data(bs, s.file)
        _open_extents(s, _read(s.file, 0, lay.MAX_DESCRIPTOR), options)
    for extent in s.extents:
        if extent.only_read:
            apply_auto_read_only(bs, extent.only_read)
    _read_identity(s)
    return s


def check_writable(s: VmdkState) -> None:
    """Raises where a reopen may not make the image writable."""
    for extent in s.extents:
        if extent.only_read:
            raise refuse(extent.only_read, "", errno.EACCES)


def _read(file: BdrvChild, place: int, most: int) -> bytes:
    """What stands there, as far as the file goes (vmdk_read_desc)."""
    size = file.bs.getlength()
    if size < 4:
        raise refuse("File is too small, not a valid image")
    return file.pread(place, max(0, min(most, size - place)))


def _open_with_tables(s: VmdkState, head: bytes, options: dict[str, object]) -> None:
    if head.startswith(lay.SPARSE_MAGIC):
        fields = lay.SPARSE_HEADER.parse(head)
        if not fields.capacity and fields.descriptorOffset:
            place = fields.descriptorOffset * lay.SECTOR
            _open_extents(s, _read(s.file, place, lay.MAX_DESCRIPTOR), options)
            return
    s.create_type = "monolithicSparse"
    _add(s, sparse_extent(s.file), "")


def _add(s: VmdkState, extent: Extent, kind: str) -> None:
    s.add(extent, kind)
    if extent.compressed:
        s.create_type = "streamOptimized"


def _give_up_data(bs: BlockDriverState, file: BdrvChild) -> None:
    file.role &= ~f.BDRV_CHILD_DATA
    wanted = permissions.cumulative_perm(bs)
    file.try_set_perm(*permissions.child_perm(bs, file.bs, file, file.role, *wanted))


# -- extents that are files of their own


def _open_extents(s: VmdkState, data: bytes, options: dict[str, object]) -> None:
    """Opens what the descriptor's lines name (vmdk_open_desc_file)."""
    text = descriptor.text_of(data)
    s.create_type = descriptor.create_type(text)
    if s.create_type not in descriptor.CREATE_TYPES:
        raise refuse(f"Unsupported image type '{s.create_type}'", "", errno.ENOTSUP)
    for number, line in enumerate(descriptor.extent_lines(text)):
        file = _open_file(s, line, f"extents.{number}", options)
        if line.is_flat:
            offset = line.offset * lay.SECTOR
            _add(s, flat_extent(file, line.sectors * lay.SECTOR, offset), line.kind)
        else:
            _add(s, _tables_in(file), line.kind)


def _open_file(
    s: VmdkState, line: descriptor.ExtentLine, key: str, options: dict[str, object]
) -> BdrvChild:
    role = f.BDRV_CHILD_DATA if line.is_flat else f.BDRV_CHILD_DATA | f.BDRV_CHILD_METADATA
    file = open_child(_path(s, line.name), options, key, s.bs, role)
    assert file is not None
    return file


def _path(s: VmdkState, name: str) -> str:
    """Where an extent is (R1)."""
    if path_is_absolute(name):
        return name
    try:
        folder = node_dirname(s.file.bs)
    except BlockError as error:
        shown = s.file.bs.filename
        message = f"Cannot use relative paths with VMDK descriptor file '{shown}': {error}"
        raise refuse(message) from None
    path = folder + name
    return f"./{path}" if not folder and path_has_protocol(path) else path


def _tables_in(file: BdrvChild) -> Extent:
    extent = sparse_extent(file)
    if not extent.length:
        message = f"vmdk: extent '{file.bs.filename}' holds nothing"
        raise refuse(message, "header.capacity = 0")
    return extent


# -- who the image is


def _read_identity(s: VmdkState) -> None:
    """Reads the CIDs and the name of the backing file (vmdk_read_cid, vmdk_parent_open)."""
    text = descriptor.text_of(_read(s.file, s.desc_place, DESCRIPTOR_SIZE))
    s.cid = descriptor.read_cid(text)
    s.parent_cid = descriptor.read_cid(text, "parentCID")
    name = descriptor.parent_name(text)
    if name:
        s.bs.backing_file = s.bs.auto_backing_file = name
        s.bs.backing_format = "vmdk"
