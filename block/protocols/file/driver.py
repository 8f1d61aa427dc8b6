# SPDX-License-Identifier: GPL-2.0-only
"""The `file` driver: an image in a regular file of this machine (block/file-posix.c).

Options: filename, aio=threads, locking=auto|on|off; the core's cache.direct means O_DIRECT.

R1  try_preadv answers from the page cache with RWF_NOWAIT, at most what the engine says (1 MiB).
    The first EOPNOTSUPP turns it off for the node (tmpfs refuses it; ext4 refuses writes). A short
    answer is declined: co_preadv tries again, and its engine goes on.
R2  With O_DIRECT, RWF_NOWAIT waits all the same, so there it is off.
R3  The file may change behind our back: reads behind its end are zeroes, the status is asked anew.
R4  Devices, FIFOs and directories are refused by name. Devices have a driver (host_device.py).
R5  The page cache is lent (page_cache.py) only while locks keep others from writing and cutting.

Requests run in the thread of the node's context, opening and closing in the main thread.
"""

from __future__ import annotations

import errno
import os

from block.aio.coroutine import NOTHING_TO_WAIT_FOR
from block.core import flags as f
from block.core.driver import BlockDriver, BlockDriverInfo
from block.core.error import BlockError
from block.core.filename import strip_protocol
from block.core.options import Option, parse_enum, take_options
from block.protocols.file import align, locks, perm
from block.protocols.file.state import ENGINES, O_DIRECT, FileState, make_engine
from block.protocols.file.syscalls import skip_bytes
from block.protocols.file.threads import in_pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from block.aio.context import AioContext
    from block.core.copy_range import CopyRange
    from block.core.node import BlockDriverState

    Discard: TypeAlias = Callable[[FileState, int, int, int], int]

RUNTIME_OPTS = (
    Option("filename", "string", "File name of the image"),
    Option("aio", "string", "host AIO implementation (threads, native, io_uring)"),
    Option("locking", "string", "file locking mode (on/off/auto, default: auto)"),
)
CREATE_OPTS: tuple[Option, ...] = (
    Option("size", "size", "Virtual disk size", 0),
    Option("nocow", "bool", "Turn off copy-on-write (valid only on btrfs)"),
    Option("preallocation", "string", "Preallocation mode (allowed values: off, falloc, full)"),
    Option("extent_size_hint", "size", "Extent size hint for the image file, 0 to disable"),
)

RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


def _path(filename: str) -> str:
    """The file that a name with or without 'file:' means."""
    path: dict[str, object] = {"filename": filename}
    strip_protocol(filename, "file:", path)
    return str(path["filename"])


class FileDriver(BlockDriver):
    """The hooks of `file` (bdrv_file)."""

    format_name = "file"
    protocol_name = "file"
    needs_filename = True
    is_device = False  # what is opened: host_device.py
    runtime_opts = RUNTIME_OPTS
    create_opts = CREATE_OPTS
    strong_runtime_opts = ("filename",)

    # -- opening and closing

    def parse_filename(self, filename: str, options: dict[str, object]) -> None:
        strip_protocol(filename, "file:", options)

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        opts = take_options(options, self.runtime_opts)
        aio = parse_enum("aio", opts["aio"], ENGINES, default_aio(flags))
        locking = parse_enum("locking", opts["locking"], ("auto", "on", "off"), "auto")
        state = FileState(opts["filename"], wants_locks(locking), self.is_device)
        open_flags = perm.os_flags(flags, has_writers=False)
        state.set_fd(perm.open_file(state, open_flags), open_flags)
        try:
            state.engine = make_engine(aio, bs, state)
        except BlockError:
            state.close()
            raise
        if flags & f.BDRV_O_TEMPORARY:
            os.unlink(state.filename)
        bs.opaque = state
        bs.supported_write_flags = state.engine.supported_write_flags
        bs.supported_zero_flags = f.REQ_MAY_UNMAP | f.REQ_NO_FALLBACK
        bs.supported_truncate_flags = f.REQ_ZERO_WRITE

    def close(self, bs: BlockDriverState) -> None:
        bs.opaque.engine.close()
        bs.opaque.close()

    def delete_file(self, filename: str) -> None:
        os.unlink(_path(filename))

    def create(self, filename: str, options: dict[str, object]) -> None:
        from block.protocols.file.truncate import GROW, create

        opts = take_options(options, self.create_opts)
        mode = parse_enum("preallocation", opts["preallocation"], (*GROW, "metadata"), "off")
        if mode not in GROW:
            raise BlockError(errno.ENOTSUP, f"Unsupported preallocation mode: {mode}")
        length = -(-opts["size"] // f.SECTOR_SIZE) * f.SECTOR_SIZE
        create(_path(filename), length, mode, opts["nocow"], opts["extent_size_hint"])

    def refresh_limits(self, bs: BlockDriverState) -> None:
        state = bs.opaque
        fd, open_flags = state.fd, state.open_flags
        if state.new_fd is not None:
            fd, open_flags = state.new_fd, state.new_open_flags
        direct = bool(open_flags & O_DIRECT)
        request, memory = align.probe(fd, direct)
        bs.bl.fast_read = 0 if direct else state.engine.fast_read  # R1, R2
        bs.bl.request_alignment = request
        bs.bl.min_mem_alignment = memory
        bs.bl.opt_mem_alignment = max(memory, align.MAX_BLOCKSIZE)

    def getlength(self, bs: BlockDriverState) -> int:
        return os.fstat(bs.opaque.fd).st_size

    def get_allocated_file_size(self, bs: BlockDriverState) -> int:
        return os.fstat(bs.opaque.fd).st_blocks * 512

    def get_info(self, bs: BlockDriverState) -> BlockDriverInfo:
        return BlockDriverInfo()

    def has_zero_init(self, bs: BlockDriverState) -> bool:
        return True

    # -- reopening and permissions

    def reopen_prepare(
        self, bs: BlockDriverState, options: dict[str, object], flags: int
    ) -> object:
        perm.reopen_prepare(bs, bs.opaque, flags)
        return bs.opaque

    def reopen_commit(self, bs: BlockDriverState, prepared: object) -> None:
        perm.reopen_commit(bs.opaque)

    def reopen_abort(self, bs: BlockDriverState, prepared: object) -> None:
        perm.reopen_abort(bs.opaque)

    def check_perm(self, bs: BlockDriverState, perm_bits: int, shared: int) -> None:
        perm.check_perm(bs, bs.opaque, perm_bits, shared)

    def set_perm(self, bs: BlockDriverState, perm_bits: int, shared: int) -> None:
        perm.set_perm(bs, bs.opaque, perm_bits, shared)

    def abort_perm_update(self, bs: BlockDriverState) -> None:
        perm.abort(bs, bs.opaque)

    # -- requests

    def try_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: list[memoryview]
    ) -> int | None:
        state = bs.opaque
        if not state.nowait:
            return None
        try:
            return 0 if os.preadv(state.fd, qiov, offset, RWF_NOWAIT) == nbytes else None
        except OSError as error:
            not_cached(state, error)
            return None

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: list[memoryview], flags: int
    ) -> Awaitable[None]:
        state = bs.opaque
        if state.nowait and nbytes <= bs.bl.fast_read:
            try:
                done = os.preadv(state.fd, qiov, offset, RWF_NOWAIT)
            except OSError as error:
                not_cached(state, error)
            else:
                if done == nbytes:
                    return NOTHING_TO_WAIT_FOR
                offset, nbytes, qiov = offset + done, nbytes - done, skip_bytes(qiov, done)
        rest: Awaitable[None] = state.engine.co_preadv(offset, nbytes, qiov)
        return rest

    def lend_cached(self, bs: BlockDriverState, offset: int, nbytes: int) -> memoryview | None:
        from block.protocols.file.page_cache import lend

        state = bs.opaque
        changes = f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE
        if state.direct or not state.use_lock or state.shared & changes:  # R5
            return None
        return lend(state.fd, offset, nbytes)

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: list[memoryview], flags: int
    ) -> Awaitable[None]:
        engine = bs.opaque.engine
        write = engine.co_pwritev_new if flags & f.REQ_ALLOCATING else engine.co_pwritev
        done: Awaitable[None] = write(offset, nbytes, qiov)
        return done

    def co_copy_range_from(self, bs: BlockDriverState, copy: CopyRange) -> Awaitable[None]:
        from block.core.copy_range import co_copy_range_to

        return co_copy_range_to(copy)

    async def co_copy_range_to(self, bs: BlockDriverState, copy: CopyRange) -> None:
        from block.core.copy_range import refuse
        from block.protocols.file.syscalls import copy_range

        if not isinstance(copy.source.bs.drv, FileDriver):
            raise refuse(bs)
        ends = copy.source.bs.opaque.fd, copy.offset, bs.opaque.fd, copy.to
        await in_pool(bs, lambda: copy_range(*ends, copy.nbytes))

    async def co_flush_to_disk(self, bs: BlockDriverState) -> None:
        await bs.opaque.engine.co_flush()

    async def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> None:
        from block.protocols.file import zero

        await co_discard(bs, zero.discard, offset, nbytes)

    async def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> None:
        from block.protocols.file import zero

        state = bs.opaque
        fd = state.fd
        how = zero.write_zeroes_unmap if flags & f.REQ_MAY_UNMAP else zero.write_zeroes
        await in_pool(bs, lambda: how(state, fd, offset, nbytes))

    async def co_block_status(
        self, bs: BlockDriverState, want_zero: bool, offset: int, nbytes: int
    ) -> tuple[int, int, int, BlockDriverState | None]:
        found, pnum = f.BDRV_BLOCK_DATA, nbytes
        if want_zero:
            found, pnum = whole_blocks(
                *status_at(bs.opaque.fd, offset, nbytes), bs.bl.request_alignment
            )
        return found | f.BDRV_BLOCK_OFFSET_VALID, pnum, offset, bs

    async def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> None:
        from block.protocols.file.truncate import truncate

        fd = bs.opaque.fd
        await in_pool(bs, lambda: truncate(fd, offset, prealloc))

    # -- the event loop

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        bs.opaque.engine.detach()

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        bs.opaque.engine.attach(ctx)


async def co_discard(bs: BlockDriverState, how: Discard, offset: int, nbytes: int) -> None:
    """Discards in the pool, and counts it (raw_do_pdiscard)."""
    state = bs.opaque
    fd = state.fd
    try:
        await in_pool(bs, lambda: how(state, fd, offset, nbytes))
    except BlockError:
        state.discard_nb_failed += 1
        raise
    state.discard_nb_ok += 1
    state.discard_bytes_ok += nbytes


def not_cached(state: FileState, error: OSError) -> None:
    """RWF_NOWAIT was refused: nothing is cached, or the file system does not know it (R1)."""
    if error.errno != errno.EAGAIN:
        state.nowait = False


def default_aio(flags: int) -> str:
    """The engine that the open flags ask for (-drive aio=...)."""
    if flags & f.BDRV_O_NATIVE_AIO:
        return "native"
    return "io_uring" if flags & f.BDRV_O_IO_URING else "threads"


def wants_locks(locking: str) -> bool:
    """Whether locking=... means locks on this system."""
    if locking == "on" and not locks.has_ofd_locks():
        from block.core.report import warn_report

        warn_report(
            "File lock requested but OFD locking syscall is unavailable, "
            "falling back to POSIX file locks\n"
            "Due to the implementation, locks can be lost unexpectedly."
        )
        return True
    return locking == "on" or (locking == "auto" and locks.has_ofd_locks())


def whole_blocks(found: int, pnum: int, align: int) -> tuple[int, int]:
    """The same answer for whole blocks. Where data begin or end within one, it holds data."""
    rest = pnum % align
    if found & f.BDRV_BLOCK_ZERO and rest < pnum:
        return found, pnum - rest
    return (f.BDRV_BLOCK_DATA, pnum + align - rest) if rest else (found, pnum)


def status_at(fd: int, offset: int, nbytes: int) -> tuple[int, int]:
    """(BDRV_BLOCK_DATA or _ZERO, bytes that it holds for) at an offset (raw_co_block_status)."""
    from block.protocols.file.status import find_allocation

    try:
        found = find_allocation(fd, offset)
    except OSError:
        return f.BDRV_BLOCK_DATA, nbytes
    if found is None:
        return f.BDRV_BLOCK_ZERO, nbytes
    is_data, until = found
    return f.BDRV_BLOCK_DATA if is_data else f.BDRV_BLOCK_ZERO, min(nbytes, until - offset)
