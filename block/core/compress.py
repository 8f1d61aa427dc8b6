# SPDX-License-Identifier: GPL-2.0-only
"""Packing and unpacking, and the threads in which that is done (block/qcow2-threads.c).

    deflate    qcow2's "zlib": no header     by isal, or else by zlib
    zlib       vmdk's: header and checksum   the same
    zstd       qcow2's "zstd"                by zstandard

R1  What comes from an image is never believed: no more is unpacked than was asked for, whatever
    the data say about themselves.
R2  The libraries are imported by the first use. isal is a wish: without it zlib does the same,
    more slowly. Without zstandard an error says what to install.
R3  Worker threads do the work; the libraries give the interpreter's lock away meanwhile. A request
    is divided into JOBS pieces at most, so that several requests share the processors.
Who may call it: packing and unpacking any thread; `co_in_workers` a coroutine at home.

Discussion: QEMU packs with zlib's level 6. isal's level 3 is 8 to 12 times as fast, and what it
packs is 5 to 8 % larger. Both write deflate with a window of 4 KiB, the largest that QEMU
unpacks: it sees no difference.
"""

from __future__ import annotations

import errno

from block.aio.co_parallel import co_parallel
from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias, TypeVar

    from block.core.node import BlockDriverState

    T = TypeVar("T")
    Bytes: TypeAlias = bytes | bytearray | memoryview
    Packer: TypeAlias = Callable[[Bytes], bytes]
    Unpacker: TypeAlias = Callable[[Bytes, int], Bytes | None]

JOBS = 4
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


def pack_deflate(data: Bytes) -> bytes:
    """Raw deflate (qcow2_zlib_compress)."""
    return _pack(data, DEFLATE_WINDOW)


def pack_zlib(data: Bytes) -> bytes:
    """Deflate as zlib's own compress() has it."""
    return _pack(data, ZLIB_WINDOW)


def unpack_deflate(data: Bytes, size: int) -> bytes | None:
    """Exactly `size` bytes, or None; what else there is does not count
    (qcow2_zlib_decompress, R1)."""
    module = _zlib()
    try:
        plain: bytes = module.decompressobj(DEFLATE_WINDOW).decompress(data, size)
    except module.error:
        return None
    return plain if len(plain) == size else None


def unpack_zlib(data: Bytes, limit: int) -> bytes | None:
    """All that was packed if that is at most `limit` bytes, or None (R1)."""
    module = _zlib()
    unpacker = module.decompressobj(ZLIB_WINDOW)
    try:
        plain: bytes = unpacker.decompress(data, limit + 1)
    except module.error:
        return None
    return plain if unpacker.eof and len(plain) <= limit else None


# -- zstd


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        message = "Compression type zstd needs a library: pip install zstandard"
        raise BlockError(errno.ENOTSUP, message) from error
    return zstandard


def pack_zstd(data: Bytes) -> bytes:
    """One frame of zstd (qcow2_zstd_compress)."""
    packed: bytes = _zstandard().ZstdCompressor().compress(data)
    return packed


def unpack_zstd(data: Bytes, size: int) -> bytearray | None:
    """Exactly `size` bytes from one frame or several, or None (qcow2_zstd_decompress, R1)."""
    zstandard = _zstandard()
    plain = bytearray(size)
    done = 0
    try:
        if zstandard.frame_content_size(data) > size:
            return None
        reader = zstandard.ZstdDecompressor().stream_reader(data)
        while done < size:  # frame by frame
            got = reader.readinto(memoryview(plain)[done:])
            if not got:
                return None
            done += got
    except zstandard.ZstdError:
        return None
    return plain


# -- threads


async def co_in_workers(
    bs: BlockDriverState, work: Callable[[Sequence[T]], None], items: Sequence[T]
) -> None:
    """Calls work(some of the items) in worker threads until all items are done (R3).

    `work` returns nothing: it keeps what it made where its items tell it. What it raises, the
    caller gets.
    """
    size = -(-len(items) // JOBS)
    parts = [items[at : at + size] for at in range(0, len(items), size)]
    if len(parts) == 1:
        await _co_work(bs, work, parts[0])
        return
    for failure in await co_parallel(*(_co_work(bs, work, part) for part in parts)):
        if failure is not None:
            raise failure


async def _co_work(
    bs: BlockDriverState, work: Callable[[Sequence[T]], None], part: Sequence[T]
) -> None:
    failures: list[BlockError] = []

    def run() -> int:
        try:
            work(part)
        except BlockError as error:
            failures.append(error)
        return 0

    ret = await bs.aio_context.thread_pool.submit_co(run, owner=bs)
    if failures:
        raise failures[0]
    if ret < 0:
        raise BlockError(-ret, node=bs.node_name)
