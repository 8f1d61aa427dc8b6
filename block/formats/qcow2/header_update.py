# SPDX-License-Identifier: GPL-2.0-only
"""Writing the header anew, as a whole (qcow2_update_header).

R1  It is made from what is in memory (state.py), and so is what was found there but is not
    understood: extensions, further fields. Nothing of others is lost.
R2  The header with its extensions and the backing file's name goes to cluster 0 in one write. Where
    they do not fit, nothing is written.
R3  Of an image that is in use the header is replaced: it is durable, or as it was (switch.py).
Who may call it: the main thread; `co_update_header` in the node's context.

Opening an image to read it needs none of this, so who does need it imports it late. Single bits
and fields that change while a guest works are written where they stand (dirty.py, corrupt.py).

What once went wrong: a downgrade failed at its last step, or so it seemed; the header said version
2, and the node wrote on as in version 3. Zero clusters made the image corrupt (R3).
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.error import BlockError
from block.core.wait import run_sync
from block.formats.qcow2 import bitmap_directory, datafile
from block.formats.qcow2 import layout as lay
from block.formats.qcow2.corrupt import check_usable
from block.formats.qcow2.header import refuse
from block.formats.qcow2.switch import switch
from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.state import Qcow2State


def build_header(s: Qcow2State, size: int) -> bytes:
    """The header with its extensions and the backing file's name (qcow2_update_header).

    Raises BlockError(ENOSPC) where they do not fit into a cluster.
    """
    extensions = b"".join(_build_extension(kind, data) for kind, data in _extensions(s))
    start = lay.V2_LENGTH if s.version == 2 else lay.FULL_LENGTH + len(s.unknown_fields)
    backing_offset = start + len(extensions)
    fields = {
        "magic": lay.MAGIC,
        "version": s.version,
        "backing_file_offset": backing_offset if s.backing_name else 0,
        "backing_file_size": len(s.backing_name),
        "cluster_bits": s.cluster_bits,
        "size": size,
        "crypt_method": s.crypt_method,
        "l1_size": len(s.l1_table),
        "l1_table_offset": s.l1_offset,
        "refcount_table_offset": s.reftable_offset,
        "refcount_table_clusters": len(s.reftable) * lay.ENTRY_SIZE >> s.cluster_bits,
        "nb_snapshots": s.nb_snapshots,
        "snapshots_offset": s.snapshots_offset,
        "incompatible_features": s.incompatible_features,
        "compatible_features": s.compatible_features,
        "autoclear_features": s.autoclear_features,
        "refcount_order": s.refcount_order,
        "header_length": start,
        "compression_type": s.compression_type,
    }
    data = lay.HEADER_V2.build(fields)
    if s.version == 3:
        data += lay.HEADER_V3.build(fields) + lay.HEADER_MORE.build(fields) + s.unknown_fields
    data += extensions + s.backing_name
    if len(data) > s.cluster_size:
        raise refuse(s, "Could not update qcow2 header: No space left on device", "", errno.ENOSPC)
    return data.ljust(s.cluster_size, b"\0")


def _extensions(s: Qcow2State) -> list[tuple[int, bytes]]:
    """Backing format, the names of all features (if there is room), what others left, the end."""
    found = [(lay.EXT_BACKING_FORMAT, s.backing_format)] if s.backing_format else []
    for wanted in (lay.EXT_DATA_FILE, lay.EXT_CRYPTO):
        found += [(kind, data) for kind, data in s.extensions if kind == wanted]
    if s.version == 3 and s.cluster_size > 4096:
        rows = [
            lay.FEATURE.build({"type": kind, "bit": bit, "name": name})
            for kind, bit, name in lay.FEATURE_NAMES
        ]
        found.append((lay.EXT_FEATURE_TABLE, b"".join(rows)))
    if s.nb_bitmaps:
        found.append((lay.EXT_BITMAPS, bitmap_directory.extension(s)))
    known = (lay.EXT_DATA_FILE, lay.EXT_CRYPTO, lay.EXT_FEATURE_TABLE)
    found += [(kind, data) for kind, data in s.extensions if kind not in known]
    return [*found, (lay.EXT_END, b"")]


def _build_extension(kind: int, data: bytes) -> bytes:
    head = lay.EXTENSION_HEAD.build({"type": kind, "length": len(data)})
    return head + data + bytes(-len(data) % 8)


def update_header(s: Qcow2State, size: int) -> None:
    """Writes cluster 0 of an image that nobody uses yet, and waits."""
    s.file.pwrite(0, build_header(s, size))


def replace_header(s: Qcow2State) -> None:
    """Writes cluster 0 of an image in use, and waits (R3). Raises OSError."""
    run_sync(s.bs.aio_context, partial(_co_replace, s))


async def _co_replace(s: Qcow2State) -> None:
    async with s.lock:
        check_usable(s)
        await co_update_header(s)


async def co_update_header(s: Qcow2State) -> None:
    """As replace_header, with the lock, in a coroutine; the disk keeps its size."""
    data = build_header(s, s.bs.total_sectors << f.SECTOR_BITS)
    await switch(s, 0, memoryview(data))


def change_backing_file(s: Qcow2State, backing_file: str, backing_fmt: str) -> None:
    """Writes another name of a backing file, or none (qcow2_change_backing_file).

    What the header cannot hold leaves it as it was. Raises BlockError.
    """
    if backing_file and datafile.is_raw(s):
        raise BlockError(errno.EINVAL, "Invalid argument", s.bs.node_name)
    before = s.backing_name, s.backing_format
    s.backing_name = backing_file.encode(errors="surrogateescape")
    s.backing_format = backing_fmt.encode(errors="surrogateescape")
    try:
        if len(s.backing_name) > lay.MAX_BACKING_NAME:
            raise BlockError(errno.EINVAL, "Backing file name too long", s.bs.node_name)
        replace_header(s)
    except OSError:
        s.backing_name, s.backing_format = before
        raise
