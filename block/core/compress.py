# SPDX-License-Identifier: GPL-2.0-only
"""Packing and unpacking, and the threads in which that is done (block/qcow2-threads.c).

    deflate    qcow2's "zlib": no header     by isal, or else by zlib
    zlib       vmdk's: header and checksum   the same
    zstd       qcow2's "zstd"                by zstandard

R1  What comes from an image is never believed: no more is unpacked than was asked for, whatever
    the data say about themselves.
R2  The libraries are imported by the first use. isal is a wish: without it zlib does the same,
    more slowly. Without zstandard an error says what to install.
R3  Worker threads do the work; the libraries give the interpreter's lock away meanwhile. There are
    no more of them than processors, for all requests together (thread_pool.py, R5). They take a
    request's clusters one by one, so that all end at the same time.
R4  What a library needs to pack or unpack is dear to make, and no two threads may use it at once.
    So each worker makes one Codec for all clusters that it takes.
Who may call it: packing and unpacking any thread; `co_in_workers` a coroutine at home.

Discussion: QEMU packs with zlib's level 6. isal's level 3 is 8 to 12 times as fast, and what it
packs is 5 to 8 % larger. Both write deflate with a window of 4 KiB, the largest that QEMU
unpacks: it sees no difference.
"""

from __future__ import annotations

from block.aio.co_parallel import co_parallel
from block.core.error import BlockError
from block.core.zstd_library import zstd_library
from block.lean import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Protocol, TypeAlias, TypeVar

    from block.core.node import BlockDriverState

    T = TypeVar("T")
    Bytes: TypeAlias = bytes | bytearray | memoryview

    class Codec(Protocol):
        """Packs and unpacks, for one thread at a time (R4)."""

        def pack(self, data: Bytes) -> bytes:
            """Returns what is packed, which may be longer."""

        def unpack(self, data: Bytes, limit: int) -> Bytes:
            """All that was packed, at most `limit` bytes (R1); none: that is not what was packed.
            What stands behind it does not count."""

        def unpack_into(self, data: Bytes, into: memoryview) -> bool:
            """The same, where all of `into` is to be filled; False: it could not be."""


DEFLATE_WINDOW = -12  # raw, 2^12 bytes
ZLIB_WINDOW = 15  # with a header, 2^15 bytes
BEST_MEMORY = 9
ISAL_LEVEL = 3


# -- deflate


_zlib_module: Any = None  # whoever is first sets it; all set the same


def _zlib() -> Any:
    """isal's module or, with the same names, Python's own (R2)."""
    global _zlib_module
    if _zlib_module is None:
        try:
            from isal import isal_zlib as module
        except ImportError:
            import zlib as module  # type: ignore[no-redef]  # one name, either module
        _zlib_module = module
    return _zlib_module


def _pack(data: Bytes, window: int) -> bytes:
    module = _zlib()
    packed: bytes
    if module.__name__ != "zlib":
        packed = module.compress(data, ISAL_LEVEL, window)
    else:
        packer = module.compressobj(wbits=window, memLevel=BEST_MEMORY)
        packed = packer.compress(data) + packer.flush()
    return packed


class Deflate:
    """qcow2's "zlib" (qcow2_zlib_compress, qcow2_zlib_decompress)."""

    def __init__(self) -> None:
        self._module = _zlib()

    def pack(self, data: Bytes) -> bytes:
        """Raw deflate."""
        return _pack(data, DEFLATE_WINDOW)

    def unpack(self, data: Bytes, limit: int) -> Bytes:
        """See Codec; `limit` bytes, or none."""
        try:
            plain: bytes = self._module.decompressobj(DEFLATE_WINDOW).decompress(data, limit)
        except self._module.error:
            return b""
        return plain if len(plain) == limit else b""

    def unpack_into(self, data: Bytes, into: memoryview) -> bool:
        """See Codec."""
        plain = self.unpack(data, len(into))
        if len(plain) != len(into):
            return False
        into[:] = plain
        return True


class Zlib(Deflate):
    """vmdk's, as zlib's own compress() and uncompress() have it: a header, and a checksum."""

    def pack(self, data: Bytes) -> bytes:
        """Deflate with both."""
        return _pack(data, ZLIB_WINDOW)

    def unpack(self, data: Bytes, limit: int) -> Bytes:
        """See Codec; what is packed may be shorter, but it must be whole."""
        unpacker = self._module.decompressobj(ZLIB_WINDOW)
        try:
            plain: bytes = unpacker.decompress(data, limit + 1)
        except self._module.error:
            return b""
        return plain if unpacker.eof and len(plain) <= limit else b""


# -- zstd


class Zstd:
    """qcow2's "zstd" (qcow2_zstd_compress, qcow2_zstd_decompress).

    What the library needs is made by the first use: it takes as long as a third of a cluster.
    """

    def __init__(self) -> None:
        self._library = zstd_library()
        self._packer: Any = None
        self._unpacker: Any = None

    def pack(self, data: Bytes) -> bytes:
        """One frame."""
        if self._packer is None:
            self._packer = self._library.ZstdCompressor()
        packed: bytes = self._packer.compress(data)
        return packed

    def unpack(self, data: Bytes, limit: int) -> Bytes:
        """See Codec; `limit` bytes, or none."""
        plain = memoryview(bytearray(limit))
        return plain if self.unpack_into(data, plain) else b""

    def unpack_into(self, data: Bytes, into: memoryview) -> bool:
        """See Codec; from one frame or several."""
        if self._unpacker is None:
            self._unpacker = self._library.ZstdDecompressor()
        size, done = len(into), 0
        try:
            if self._library.frame_content_size(data) > size:
                return False
            reader = self._unpacker.stream_reader(data)
            while done < size:  # frame by frame
                got = reader.readinto(into[done:])
                if not got:
                    return False
                done += got
        except self._library.ZstdError:
            return False
        return True


# -- threads


async def co_in_workers(
    bs: BlockDriverState, work: Callable[[Iterable[T]], None], items: Sequence[T]
) -> None:
    """Calls work(some of the items) in worker threads until all items are done (R3).

    `work` returns nothing: it keeps what it made where its items tell it. What it raises, the
    caller gets.
    """
    left = deque(items)
    jobs = min(len(left), bs.aio_context.thread_pool.max_computing)
    if jobs == 1:
        await _co_work(bs, work, left)
        return
    for failure in await co_parallel(*(_co_work(bs, work, left) for _ in range(jobs))):
        if failure is not None:
            raise failure


def _taken_from(left: deque[T]) -> Iterator[T]:
    """Items that no other thread has taken: a deque gives each to one of them."""
    try:
        while True:
            yield left.popleft()
    except IndexError:
        return


async def _co_work(
    bs: BlockDriverState, work: Callable[[Iterable[T]], None], left: deque[T]
) -> None:
    failures: list[BlockError] = []

    def run() -> int:
        try:
            work(_taken_from(left))
        except BlockError as error:
            failures.append(error)
        return 0

    ret = await bs.aio_context.thread_pool.submit_co(run, owner=bs, computes=True)
    if failures:
        raise failures[0]
    if ret < 0:
        raise BlockError(-ret, node=bs.node_name)
