# SPDX-License-Identifier: GPL-2.0-only
"""Reading compressed clusters (qcow2_co_preadv_compressed).

They lie packed in the clusters of the file, at any byte. An entry tells where one begins and how
many sectors of 512 bytes it may reach into; the last of these may hold others, too:

    file      |  cluster                      |  cluster                      |
    packed    [ A      )[ B       )[ C              )[ D  )
    sectors   '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '  '
    entry C               offset --^ 5 more sectors: ^

R1  What is packed unpacks to exactly one cluster. No more than that is ever unpacked, whatever
    the image says.
R2  Clusters that follow one another in the guest and in the file are read at once, and unpacked
    side by side.
Who may call it: coroutines in the node's context, without the lock.
"""

from __future__ import annotations

from block.aio.co_lock import CoQueue
from block.core.compress import Deflate, Zstd, co_in_workers
from block.core.debug import READ_COMPRESSED, debug_event
from block.core.iov import iov_from_bytes, iov_slice
from block.formats.qcow2.compressed_entry import compressed_place
from block.formats.qcow2.corrupt import error
from block.formats.qcow2.layout import COMPRESSION_ZLIB, COMPRESSION_ZSTD, OFLAG_COMPRESSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from block.core.compress import Codec
    from block.core.iov import Iov
    from block.formats.qcow2.state import Qcow2State

CODECS: dict[int, Callable[[], Codec]] = {COMPRESSION_ZLIB: Deflate, COMPRESSION_ZSTD: Zstd}
READ_AT_ONCE = 2 << 20


class Packed:
    """One compressed cluster of a read: `nbytes` bytes from `inside` on go to `at` in the vector.

    `place` is where it begins in the file and `size` how many bytes it may have.
    """

    __slots__ = ("at", "inside", "is_bad", "nbytes", "place", "size")

    def __init__(self, place: int, size: int, at: int, inside: int, nbytes: int) -> None:
        self.place = place
        self.size = size
        self.at = at
        self.inside = inside
        self.nbytes = nbytes
        self.is_bad = False


async def co_preadv_compressed(
    s: Qcow2State, entry: int, offset: int, nbytes: int, qiov: Iov
) -> int:
    """Reads compressed clusters, the first one and what follows it; returns the bytes read."""
    run = _run(s, entry, offset, nbytes)
    start = run[0].place
    length = run[-1].place + run[-1].size - start
    data = memoryview(bytearray(length))
    await _read(s, start, data)

    def work(part: Iterable[Packed]) -> None:
        codec = CODECS[s.compression_type]()
        for packed in part:
            at = packed.place - start
            packed.is_bad = not _unpack(s, codec, packed, data[at : at + packed.size], qiov)

    await co_in_workers(s.bs, work, run)
    for packed in run:
        if packed.is_bad:
            raise error(s, f"Compressed cluster at {packed.place:#x} cannot be unpacked")
    return run[-1].at + run[-1].nbytes


async def _read(s: Qcow2State, start: int, data: memoryview) -> None:
    """Reads from the file; nobody writes over it meanwhile (let_go.py, R4)."""
    through = CoQueue()
    s.unpacking[through] = None
    try:
        await debug_event(s.file.bs, READ_COMPRESSED)
        await s.file.co_preadv(start, len(data), [data])
    finally:
        del s.unpacking[through]
        through.restart_all()


def _unpack(s: Qcow2State, codec: Codec, packed: Packed, data: memoryview, qiov: Iov) -> bool:
    """Unpacks what is wanted of a cluster; the whole one right where it belongs."""
    if packed.nbytes == s.cluster_size:
        views = iov_slice(qiov, packed.at, packed.nbytes)
        if len(views) == 1:
            return codec.unpack(data, views[0])
    plain = memoryview(bytearray(s.cluster_size))
    if not codec.unpack(data, plain):
        return False
    iov_from_bytes(qiov, packed.at, plain[packed.inside :][: packed.nbytes])
    return True


def _run(s: Qcow2State, entry: int, offset: int, nbytes: int) -> list[Packed]:
    """The first cluster of a range, and those behind it that can be read with it (R2)."""
    table = s.cached_slice(offset)
    inside = offset & s.cluster_mask
    index = s.slice_index(offset)
    run: list[Packed] = []
    at = 0
    while True:
        place, size = compressed_place(s, entry)
        if run and not _follows(run, place, size):
            return run
        part = min(s.cluster_size - inside, nbytes - at)
        run.append(Packed(place, size, at, inside, part))
        at, inside, index = at + part, 0, index + 1
        if at == nbytes or table is None or index == len(table.cells):
            return run
        entry = table.cells[index]
        if not entry & OFLAG_COMPRESSED:
            return run


def _follows(run: list[Packed], place: int, size: int) -> bool:
    """Whether a cluster of the file lies where one read gets it with those before."""
    last = run[-1]
    return last.place < place <= last.place + last.size and (
        place + size - run[0].place <= READ_AT_ONCE
    )
