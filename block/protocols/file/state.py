# SPDX-License-Identifier: GPL-2.0-only
"""What one `file` node keeps between requests, and the seam for I/O engines.

R1  An engine moves bytes, and nothing else: reads, writes, flushes. All other calls (discard,
    zeroes, truncate) go to the thread pool whatever the engine.
R2  What an engine registers, it registers with the node's context of that moment, and takes away
    in detach (DESIGN.md, rules 1 and 2).
R3  Capabilities (`has_*`, `nowait`) begin as True and go False at the first "not supported".

Fields are written in the thread of the node's context; worker threads only clear a `has_*`, which
is one store of a constant. Source: block/file-posix.c (BDRVRawState).
"""

from __future__ import annotations

import errno
import os

from block.core.error import BlockError
from block.core.flags import BLK_PERM_ALL
from block.protocols.file.locks import LockedBytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.aio.context import AioContext
    from block.core.node import BlockDriverState

# aio=NAME -> (module, class).
ENGINES: dict[str, tuple[str, str]] = {
    "threads": ("block.protocols.file.threads", "ThreadsEngine"),
    "native": ("block.protocols.file.kernel", "NativeEngine"),
    "io_uring": ("block.protocols.file.kernel", "UringEngine"),
}


class Engine:
    """How reads, writes and flushes of one node reach the kernel (aio=...).

    fast_read  the longest read in bytes that the loop itself takes from the page cache. 1 MiB is
               copied in 60 us, which a hop to a worker and back costs, too; a longer one would
               keep others of the loop waiting
    supported_write_flags  REQ_ALLOCATING, where co_pwritev_new does better than co_pwritev
    """

    fast_read = 1 << 20
    supported_write_flags = 0

    def __init__(self, bs: BlockDriverState, state: FileState) -> None:
        self.bs = bs
        self.state = state

    def co_preadv(self, offset: int, nbytes: int, qiov: list[memoryview]) -> Awaitable[None]:
        """Fills the vector; behind the end of the file with zeroes."""
        raise NotImplementedError

    def co_pwritev(self, offset: int, nbytes: int, qiov: list[memoryview]) -> Awaitable[None]:
        """Writes the whole vector."""
        raise NotImplementedError

    def co_pwritev_new(self, offset: int, nbytes: int, qiov: list[memoryview]) -> Awaitable[None]:
        """As co_pwritev, where nothing has been stored yet (REQ_ALLOCATING)."""
        return self.co_pwritev(offset, nbytes, qiov)

    def co_flush(self) -> Awaitable[None]:
        """Makes what was written durable."""
        raise NotImplementedError

    def detach(self) -> None:
        """Takes everything out of the node's context; no request is in flight."""

    def attach(self, ctx: AioContext) -> None:
        """Puts it into the new one."""

    def close(self) -> None:
        """Frees what the engine made."""


class FileState:
    """bs.opaque of a `file` node, or, if `is_device`, of a `host_device` (BDRVRawState)."""

    __slots__ = (
        "direct",
        "discard_bytes_ok",
        "discard_nb_failed",
        "discard_nb_ok",
        "engine",
        "fd",
        "filename",
        "flush_error",
        "has_discard",
        "has_fallocate",
        "has_write_zeroes",
        "is_device",
        "locked",
        "new_fd",
        "new_fd_locked",
        "new_open_flags",
        "nowait",
        "open_flags",
        "perm",
        "reopening",
        "shared",
        "use_lock",
    )
    engine: Engine

    def __init__(self, filename: str, use_lock: bool, is_device: bool = False) -> None:
        self.filename = filename
        self.is_device = is_device
        self.fd = -1
        self.open_flags = 0
        # O_DIRECT with rules about alignment.
        self.direct = False
        self.nowait = False
        self.use_lock = use_lock
        # Permissions that are in force, and the bytes that are locked for them.
        self.perm = 0
        self.shared = BLK_PERM_ALL
        self.locked = LockedBytes()
        # A descriptor that waits for set_perm to take it over.
        self.new_fd: int | None = None
        self.new_open_flags = 0
        self.new_fd_locked = False
        self.reopening = False
        self.has_discard = True
        self.has_write_zeroes = True
        self.has_fallocate = True
        # The errno of the first failed flush of cached data: from then on all of them fail.
        self.flush_error = 0
        self.discard_nb_ok = 0
        self.discard_nb_failed = 0
        self.discard_bytes_ok = 0

    def set_fd(self, fd: int, open_flags: int) -> None:
        """Takes over a descriptor and what follows from its flags."""
        self.fd = fd
        self.open_flags = open_flags
        self.direct = bool(open_flags & O_DIRECT)
        self.nowait = not self.direct and hasattr(os, "RWF_NOWAIT")

    def close(self) -> None:
        """Closes the descriptor; its locks go with it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


# Without O_DIRECT (macOS) the nearest is to wait for the disk at each write.
O_DIRECT: int = getattr(os, "O_DIRECT", getattr(os, "O_DSYNC", 0))


def make_engine(name: str, bs: BlockDriverState, state: FileState) -> Engine:
    """The engine of that name for a node that has just been opened.

    Raises BlockError: aio=native without O_DIRECT (EINVAL), or what the system lacks.
    """
    if name == "native" and not state.open_flags & O_DIRECT:
        raise BlockError(
            errno.EINVAL,
            "aio=native was specified, but it requires cache.direct=on, which was not specified.",
        )
    module, class_name = ENGINES[name]
    engine: Engine = getattr(__import__(module, fromlist=[class_name]), class_name)(bs, state)
    return engine
