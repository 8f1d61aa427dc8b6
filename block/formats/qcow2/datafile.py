# SPDX-License-Identifier: GPL-2.0-only
"""External data files: guest data in a file of its own, tables in the image (data_file).

    image      header with the file's name, L1, L2, refcounts of these
    data file  guest offset = file offset, so it can be as long as the disk

R1  A data cluster lies where it lies on the disk. It has no refcount; COPIED says it is there, as
    offset 0 is a place like any other.
R2  With data_file_raw the file alone holds what the guest sees: every cluster is there from the
    beginning (preallocation=metadata), and what turns zero is zeroed in the file first.
R3  The name in the header is that of a local file, whatever it looks like: an image must not be
    able to open what it likes (json:..., nbd://...). Options may say anything.
R4  The data file is the driver's own child, neither `file` nor `backing`: so the driver walks it
    when the tree moves (patch 18 of the series).
R5  Whoever opens an image to look at its header only (BDRV_O_NO_IO) opens no data file.
Who may call it: the main thread for opening, coroutines with the image's lock for the rest.
"""

from __future__ import annotations

from block.aio.coroutine import NOTHING_TO_WAIT_FOR
from block.core import flags as f
from block.core import permissions
from block.core.open import open_child
from block.core.options import take_sub_options
from block.formats.qcow2.alloc import alloc_clusters
from block.formats.qcow2.corrupt import check_overlap, error
from block.formats.qcow2.free import free_clusters
from block.formats.qcow2.layout import (
    AUTOCLEAR_DATA_FILE_RAW,
    EXT_DATA_FILE,
    INCOMPAT_DATA_FILE,
    OFLAG_COPIED,
)
from block.formats.qcow2.state import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState
    from block.formats.qcow2.state import Qcow2State

ROLE = f.BDRV_CHILD_DATA


# -- opening


def open_data_file(s: Qcow2State, options: dict[str, object], flags: int) -> None:
    """Opens the data file that the options or the header name (in qcow2_do_open).

    Raises BlockError in QEMU's words where there is one too few or one too many.
    """
    only_header = flags & f.BDRV_O_NO_IO
    if only_header:
        take_sub_options(options, "data-file")
        options.pop("data-file", None)
    given = open_child(None, options, "data-file", s.bs, ROLE, allow_none=True)
    if not s.incompatible_features & INCOMPAT_DATA_FILE:
        if given is not None:
            message = "'data-file' can only be set for images with an external data file"
            raise refuse(s, message)
        if is_raw(s):
            raise refuse(s, "data-file-raw requires a data file")
        return
    s.external = True
    s.plain = False
    s.same_bits = -1
    s.place_flags |= OFLAG_COPIED
    if not only_header:
        s.data = given or _open_by_name(s, options)
        _give_up_data(s.bs, s.file)


def _open_by_name(s: Qcow2State, options: dict[str, object]) -> BdrvChild:
    """By the name in the header (R3)."""
    name = file_name(s)
    if not name:
        raise refuse(s, "'data-file' is required for this image")
    options["data-file.driver"] = "file"
    options["data-file.filename"] = name
    child = open_child(None, options, "data-file", s.bs, ROLE)
    assert child is not None, "described by two options"
    return child


def _give_up_data(bs: BlockDriverState, file: BdrvChild) -> None:
    """The image file holds tables only: somebody else may read what the guest sees."""
    file.role &= ~f.BDRV_CHILD_DATA
    permissions.child_refresh_perms(bs, file)


def own_children(s: Qcow2State) -> list[BdrvChild]:
    """What the driver walks itself (R4)."""
    return [s.data] if s.data is not s.file else []


# -- the header


def is_raw(s: Qcow2State) -> bool:
    """Whether the data file alone is what the guest sees (data_file_is_raw, R2)."""
    return bool(s.autoclear_features & AUTOCLEAR_DATA_FILE_RAW)


def file_name(s: Qcow2State) -> str:
    """The data file's name in the header; '' if there is none."""
    for kind, data in s.extensions:
        if kind == EXT_DATA_FILE:
            return data.partition(b"\0")[0].decode(errors="surrogateescape")
    return ""


def set_file_name(s: Qcow2State, name: str) -> None:
    """Changes the name; the caller writes the header. '' takes it away (qcow2_amend_options)."""
    s.extensions = [row for row in s.extensions if row[0] != EXT_DATA_FILE]
    if name:
        s.extensions.append((EXT_DATA_FILE, name.encode(errors="surrogateescape")))


def info(s: Qcow2State) -> dict[str, object]:
    """What `info` says of it, in the order of QEMU's schema."""
    if not s.external:
        return {}
    name = file_name(s)
    named: dict[str, object] = {"data-file": name} if name else {}
    return {**named, "data-file-raw": is_raw(s)}


# -- clusters, with the lock


async def alloc_data(s: Qcow2State, start: int, count: int) -> int:
    """Gives the guest's clusters from `start` on a place in the file (do_alloc_cluster_offset)."""
    if s.external:
        return start
    return await alloc_clusters(s, count, "data cluster")


async def unalloc_data(s: Qcow2State, host: int, nbytes: int) -> None:
    """Gives it back, where nothing points to it yet (qcow2_alloc_cluster_abort)."""
    if not s.external:
        await free_clusters(s, host, nbytes)


def check_place(s: Qcow2State, host: int, nbytes: int, is_new: bool) -> Awaitable[None]:
    """Raises where data must not be written: over tables, or where the file has nothing."""
    if s.external:
        return NOTHING_TO_WAIT_FOR
    if not is_new and host >= s.file_length():
        raise error(s, f"Data cluster offset {host:#x} is beyond the end of the file")
    if nbytes > s.cluster_size or s.snapshots or host in s.suspect_clusters():
        return check_overlap(s, host, nbytes)
    return NOTHING_TO_WAIT_FOR
