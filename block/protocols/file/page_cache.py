# SPDX-License-Identifier: GPL-2.0-only
"""Lends what the page cache has of a file, instead of copying it.

R1  Only what is all in memory is lent: mincore says so, and then the kernel puts it into the
    process's page table (MADV_POPULATE_READ, Linux 5.14). What is not is for a read to wait for.
R2  mincore tells the truth only to a file's owner and to root; to all others everything seems to be
    in memory. So nothing is lent to them.
R3  Memory behind the end of a file kills who touches it (SIGBUS). So whoever asks makes sure that
    nobody may make the file shorter meanwhile: driver.py asks the locks.
R4  The memory goes back when the last view of it does.
Who may call it: block.protocols.file.driver; never waits.

Discussion: a convert of what is in memory copied all data twice, into its buffer and out of it.
To copy 4 MiB costs 350 to 450 us. A loan of them costs 80 where the cache has the file in large
folios, as a long write leaves it, and up to 400 where it has single pages: then nothing is gained.
"""

from __future__ import annotations

import mmap
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MADV_POPULATE_READ = 22
PAGE = mmap.PAGESIZE

_is_in_memory: Callable[[mmap.mmap], bool] | None = None


def lend(fd: int, offset: int, nbytes: int) -> memoryview | None:
    """What a file holds, for reading only; None: read it (R1, R2)."""
    status = os.fstat(fd)
    user = os.geteuid()
    if user not in (0, status.st_uid) or offset + nbytes > status.st_size:
        return None
    start = offset - offset % PAGE
    try:
        memory = mmap.mmap(
            fd,
            offset + nbytes - start,
            flags=mmap.MAP_PRIVATE,  # with PROT_WRITE only, lest Python hides its address
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
            offset=start,
        )
        if not _in_memory(memory):
            return None
        memory.madvise(MADV_POPULATE_READ)
    except (OSError, ValueError):  # the kernel, the file system, or the file's end says no
        return None
    return memoryview(memory).toreadonly()[offset - start :]


def _in_memory(memory: mmap.mmap) -> bool:
    """Whether nobody would have to wait for any page of a mapped file (mincore)."""
    global _is_in_memory
    if _is_in_memory is None:
        _is_in_memory = _load_mincore()
    return _is_in_memory(memory)


def _load_mincore() -> Callable[[mmap.mmap], bool]:
    """libc's mincore; ctypes is imported when it is first wanted, not at start-up."""
    import ctypes

    function = ctypes.CDLL(None).mincore
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]

    def call(memory: mmap.mmap) -> bool:
        pages = -(-len(memory) // PAGE)
        found = (ctypes.c_ubyte * pages)()
        first = ctypes.c_char.from_buffer(memory)
        failed = function(ctypes.addressof(first), len(memory), found)
        return not failed and bytes(found).count(1) == pages

    return call
