# SPDX-License-Identifier: GPL-2.0-only
"""Copying images into one (ImgConvertState, convert_do_copy of qemu-img.c).

    workers:   extent? -> read -> my turn? -> write what is not zeroes -> next
               extent? ->     read     ->     my turn? -> write ...

R1  Extents are asked of the sources, one worker at a time; what reads as zeroes is never read.
    In what is read, zeroes are looked for (sparse.py): they are not written either.
R2  A target that is new and reads as zeroes gets no zeroes at all. Another one gets them by
    co_pwrite_zeroes, which may make holes.
R3  With a backing file the target leaves out what the source's own backing file has: both are
    taken to hold the same there.
R4  Several workers read at once. They write in the order of the image, unless `in_order` is
    False; so a file grows from its beginning to its end. A write may begin before the one
    before it has ended, if that one has got all its room at once (_gets_its_room_at_once).
    Formats that are made to be sent (needs_compressed_writes) take one after the other.
R5  The first failure ends all workers. The sources are never written.
R6  Compressed, whole clusters are written, or none: an extent that is shorter than a cluster of
    the target counts as data with all that is beside it. Some targets take nothing else.
R7  What is in memory is lent by the source, not read, where it can (sources.py). What is in memory
    is taken no further ahead than one buffer: a read one is still in the processor's cache when it
    is written. A source that must wait for its data (a disk, a network, unpacking) is read by all
    workers at once.
R8  With `offload` data are copied by whoever has both ends (copy_range.py), mostly the kernel. When
    this fails, for whatever reason, no more are begun: reads and writes tell the error.
Called in the main thread.
"""

from __future__ import annotations

import errno

from block.aio.co_lock import CoMutex
from block.aio.co_parallel import co_parallel
from block.core import flags as f
from block.core.align import blockalign
from block.core.driver import BlockDriverInfo
from block.core.error import BlockError
from block.core.wait import run_sync
from block.ops.sources import ConvertFailed, Sources
from block.ops.sparse import runs
from block.ops.turns import Turns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.backend import BlockBackend
    from block.core.node import BlockDriverState
    from block.ops.sparse import Run

DATA, PACKED, ZERO, BACKING = range(4)
HOLDS_DATA = (DATA, PACKED)
BUFFER_SIZE = 4 << 20
MAX_BUFFER_SIZE = 16 << 20
MAX_WORKERS = 16
# The second write is with the kernel when the first is through; a third would only be in their way.
WRITES_AT_ONCE = 2
ONE_TABLE = 64  # clusters that begin at a multiple of that: all formats have them in one table
MOST_ANSWERS = 10_000  # that are kept, lest they be asked for twice
SECTOR = f.SECTOR_SIZE


class Extent:
    """A part of the target, and where its source's bytes are: at `place` of `file`, if they can be
    lent from there (sources.py, R3)."""

    __slots__ = ("end", "file", "kind", "place", "start")

    def __init__(
        self, kind: int, start: int, end: int, file: BlockDriverState | None = None, place: int = 0
    ) -> None:
        self.kind = kind
        self.start = start
        self.end = end
        self.file = file
        self.place = place

    def borrow(self, offset: int, nbytes: int) -> memoryview | None:
        """The data at an offset, if they all are in memory."""
        if self.file is None or self.file.drv is None or offset + nbytes > self.end:
            return None
        return self.file.drv.lend_cached(self.file, self.place + offset - self.start, nbytes)


class Convert:
    """The work, and how far it is. All images are open, and stay the caller's."""

    def __init__(
        self,
        sources: list[BlockBackend],
        target: BlockBackend,
        *,
        min_sparse: int = 4096,
        workers: int = 8,
        in_order: bool = True,
        target_is_new: bool = True,
        target_is_zero: bool = False,
        target_has_backing: bool = False,
        salvage: bool = False,
        compressed: bool = False,
        offload: bool = False,
        progress: Callable[[float], None] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """`min_sparse` 0 writes everything, zeroes too. `offload` lets others copy where they can;
        then nobody looks for zeroes in data. `progress` hears of percents, `warn`
        of what `salvage` could not read."""
        self.sources = Sources(sources, salvage, warn)
        self.total = self.sources.total
        self.target = target
        assert target.bs is not None
        self.target_info = target.bs.get_info() or BlockDriverInfo()
        self.min_sparse = min_sparse
        self.workers = workers
        self.in_order = in_order
        self.target_has_backing = target_has_backing
        self.offload = offload
        self.progress = progress
        self.turns = Turns(WRITES_AT_ONCE)
        self.buffers: list[memoryview] = []  # those that no worker has
        self.in_memory = False  # the last read waited for nothing (R7)
        self.cluster = self._cluster_to_compress(compressed)  # 0: nothing is compressed
        self._look_at_target(target_is_new, target_is_zero)
        self.position = 0  # what has been given to workers
        self.known = Extent(DATA, 0, 0)  # what was asked for last
        self.answers: dict[int, Extent] = {}  # what was found when all was counted
        self.to_copy = self.copied = 0
        self.lock = CoMutex()

    def _cluster_to_compress(self, asked: bool) -> int:
        """How many bytes of the target are compressed at once (R6)."""
        info = self.target_info
        if not (asked or info.needs_compressed_writes):
            return 0
        if not 0 < info.cluster_size <= MAX_BUFFER_SIZE:
            raise BlockError(errno.EINVAL, "invalid cluster size")
        # While one is packed, so are the next.
        self.turns.at_once = self.workers
        return info.cluster_size

    def _look_at_target(self, is_new: bool, is_zero: bool) -> None:
        bs = self.target.bs
        assert bs is not None
        limits = bs.bl
        wanted = max(BUFFER_SIZE, limits.opt_transfer, limits.pdiscard_alignment)
        self.buffer_size = min(MAX_BUFFER_SIZE, wanted)
        if self.cluster:
            self.buffer_size = max(1, self.buffer_size // self.cluster) * self.cluster
        # A power of two: what is written begins and ends where the target likes it best.
        least = 1 << (self.min_sparse.bit_length() - 1) if self.min_sparse else SECTOR
        self.alignment = max(least, limits.request_alignment)
        self.reads_as_zero = is_zero
        if is_new and self.min_sparse and not self.target_has_backing:
            self.reads_as_zero = is_zero or has_zero_init(bs)
        self.write_flags = f.REQ_WRITE_COMPRESSED if self.cluster else 0
        if self.reads_as_zero:  # then nothing is stored there yet
            self.write_flags |= f.REQ_ALLOCATING & bs.supported_write_flags
        self.backing_length = -1  # unknown
        if self.target_has_backing and is_new and bs.backing is not None:
            self.backing_length = bs.backing.bs.getlength()

    def run(self) -> None:
        """Copies all. Raises ConvertFailed."""
        run_sync(self.target.aio_context, self.co_run)

    async def co_run(self) -> None:
        """As run, in a coroutine."""
        offset = 0
        while offset < self.total:
            kind, nbytes = await self._extent(offset)
            if self._is_copied(kind):
                self.to_copy += nbytes
            offset += nbytes
            if len(self.answers) < MOST_ANSWERS:
                self.answers[self.known.start] = self.known
        self.known = Extent(DATA, 0, 0)
        await co_parallel(*(self._work() for _ in range(self.workers)))
        if self.cluster:
            await self.target.co_pwritev(0, 0, [], f.REQ_WRITE_COMPRESSED)  # that was all

    def _is_copied(self, kind: int) -> bool:
        return kind in HOLDS_DATA or (kind == ZERO and not self.min_sparse)

    # -- what there is

    async def _extent(self, offset: int) -> tuple[int, int]:
        """What is at an offset, and for how many bytes (convert_iteration_sectors)."""
        if not self.known.start <= offset < self.known.end:
            answer = self.answers.pop(offset, None)
            self.known = answer or await self._ask(offset)
        kind, nbytes = self.known.kind, self.known.end - offset
        if kind in HOLDS_DATA:  # as much as fits, and then from a multiple of that on
            nbytes = min(nbytes, self.buffer_size - offset % self.buffer_size)
        if self.cluster:
            return self._whole_clusters(kind, offset, nbytes)
        return kind, nbytes

    def _whole_clusters(self, kind: int, offset: int, nbytes: int) -> tuple[int, int]:
        """The same in whole clusters of the target (R6)."""
        if nbytes < self.cluster:
            return DATA, min(self.cluster, self.total - offset)
        return kind, nbytes - nbytes % self.cluster

    async def _ask(self, offset: int) -> Extent:
        nbytes = f.REQUEST_MAX_BYTES
        behind_backing = False
        if self.backing_length >= 0:
            behind_backing = offset >= self.backing_length
            if not behind_backing:
                nbytes = min(nbytes, self.backing_length - offset)
        above = self.target_has_backing
        status, nbytes, place, file = await self.sources.co_status(offset, nbytes, above)
        if status & f.BDRV_BLOCK_ZERO:
            kind = BACKING if behind_backing else ZERO
        elif status & f.BDRV_BLOCK_DATA or not self.target_has_backing:
            kind = DATA if status & f.BDRV_BLOCK_OFFSET_VALID else PACKED
        else:
            kind = BACKING
        # A cluster that counts as zero may have its place, and its bytes, all the same.
        return Extent(kind, offset, offset + nbytes, file if kind == DATA else None, place)

    # -- the workers

    async def _work(self) -> None:
        """Copies extent after extent (convert_co_do_copy)."""
        try:
            while (found := await self._take()) is not None:
                kind, offset, nbytes, lent = found
                if lent is not None:
                    self.in_memory = True
                    await self._copy(kind, offset, nbytes, lent, is_filled=True)
                    continue
                buffer = self.buffers.pop() if self.buffers else blockalign(self.buffer_size)
                await self._copy(kind, offset, nbytes, buffer[:nbytes], is_filled=False)
                self.buffers.append(buffer)
        except BaseException:
            self.turns.stop()  # R5
            raise

    async def _take(self) -> tuple[int, int, int, memoryview | None] | None:
        """The next extent for a worker, or None: (kind, offset, bytes, data if they are lent)."""
        async with self.lock:
            if self.in_memory:
                await self.turns.caught_up()
            if self.turns.stopped or self.position >= self.total:
                return None
            offset = self.position
            kind, nbytes = await self._extent(offset)
            if self._is_copied(kind):
                nbytes = min(nbytes, self.buffer_size)
            self.position += nbytes
            lent = self.known.borrow(offset, nbytes) if kind == DATA and not self.offload else None
        if self._is_copied(kind):
            self.copied += nbytes
            if self.progress is not None:
                self.progress(100 * self.copied / self.to_copy)
        return kind, offset, nbytes, lent

    async def _copy(
        self, kind: int, offset: int, nbytes: int, view: memoryview, *, is_filled: bool
    ) -> None:
        """Brings an extent to the target, through a buffer that may have its data already."""
        offload = kind in HOLDS_DATA and self.offload
        parts: list[Run] = []
        if is_filled:
            parts = self._parts(offset, view)
        elif kind in HOLDS_DATA and not offload:
            parts = await self._read_parts(offset, view, kind == PACKED)
        elif kind == ZERO and not self.min_sparse:
            view[:] = bytes(nbytes)
            parts = [(True, 0, nbytes)]
        elif kind == ZERO:
            parts = [(False, 0, nbytes)]
        if self.in_order:
            await self.turns.begin(offset)
        if self.turns.stopped:
            return
        at_once = not offload and self._gets_its_room_at_once(offset, parts)
        if self.in_order and at_once:
            self.turns.pass_on(offset + nbytes)
        try:
            if offload and not (self.offload and await self._is_copied_by_others(offset, nbytes)):
                parts = await self._read_parts(offset, view, kind == PACKED)
            for part in parts:
                await self._write(offset, view, *part)
        except OSError as error:
            raise ConvertFailed("writing at byte", offset, error) from error
        if self.in_order:
            if not at_once:
                self.turns.pass_on(offset + nbytes)
            self.turns.end()

    def _gets_its_room_at_once(self, offset: int, parts: list[Run]) -> bool:
        """Whether nobody who begins to write now can get room between that of these parts (R4).

        A write that begins within a cluster first fills that one, and then asks for others; and
        where a table of the format ends, it asks again.
        """
        info, least = self.target_info, self.buffer_size // ONE_TABLE
        if info.needs_compressed_writes:
            return False
        if not info.cluster_size or self.cluster:
            return True
        aligned = offset % info.cluster_size == 0
        return aligned and len(parts) <= 1 and info.cluster_size >= least

    async def _read_parts(self, offset: int, view: memoryview, packed: bool) -> list[Run]:
        """Fills a buffer."""
        ctx = self.target.aio_context
        before = ctx.n_passes
        await self.sources.co_read(offset, view, packed)
        self.in_memory = ctx.n_passes == before
        return self._parts(offset, view)

    def _parts(self, offset: int, view: memoryview) -> list[Run]:
        """Tells data from zeroes."""
        if not self.min_sparse:
            return [(True, 0, len(view))]
        least, block = self.cluster or self.min_sparse, self.cluster or self.alignment
        return list(runs(view, offset, least, block))

    async def _is_copied_by_others(self, offset: int, nbytes: int) -> bool:
        """Copies without reading. False: that cannot be done, and will not be tried again (R8)."""
        try:
            await self.sources.co_copy_range(offset, self.target, nbytes)
        except OSError:
            self.offload = False
        return self.offload

    async def _write(
        self, offset: int, view: memoryview, is_data: bool, start: int, end: int
    ) -> None:
        """Writes a part of what begins at `offset`, or its zeroes (convert_co_write)."""
        if is_data:
            part = [view[start:end]]
            await self.target.co_pwritev(offset + start, end - start, part, self.write_flags)
        elif not self.reads_as_zero:  # R2
            await self.target.co_pwrite_zeroes(offset + start, end - start, f.REQ_MAY_UNMAP)


def has_zero_init(bs: BlockDriverState) -> bool:
    """Whether a new image reads as zeroes everywhere (bdrv_has_zero_init)."""
    if bs.drv is None:
        return False
    if bs.drv.is_filter and bs.file is not None:
        return has_zero_init(bs.file.bs)
    return bs.backing is None and bs.drv.has_zero_init(bs)
