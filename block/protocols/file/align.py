# SPDX-License-Identifier: GPL-2.0-only
"""Which alignment O_DIRECT wants from offsets, lengths and addresses: asked by trying.

R1  Without O_DIRECT nothing needs alignment: 1.
R2  The kernel answers EINVAL to a read that is not aligned. Any other answer, an I/O error too,
    means that the alignment was good.
R3  A read that works with alignment 1 proves nothing (NFS; a hole in some file systems): then the
    safe 4096 is taken.

Called in the main thread at open and reopen; reads the first 4 KiB a few times.
Source: block/file-posix.c (raw_probe_alignment).
"""

from __future__ import annotations

import errno
import os

from block.core.error import BlockError
from block.protocols.file.syscalls import aligned_buffer

MAX_BLOCKSIZE = 4096
ALIGNMENTS = (1, 512, 1024, 2048, 4096)


def works(fd: int, buffer: memoryview) -> bool:
    """True unless the kernel finds this memory or this length misaligned (raw_is_io_aligned)."""
    try:
        os.preadv(fd, [buffer], 0)
    except OSError as error:
        return error.errno != errno.EINVAL
    return True


def probe_request_alignment(fd: int) -> int:
    """The alignment of offsets and lengths in bytes, 0 when none works."""
    with aligned_buffer(MAX_BLOCKSIZE) as buffer:
        for size in ALIGNMENTS:
            if works(fd, buffer[:size]):
                return size if size != 1 else MAX_BLOCKSIZE
    return 0


def probe_memory_alignment(fd: int, request_alignment: int) -> int:
    """The alignment of addresses in bytes, 0 when none works."""
    with aligned_buffer(2 * MAX_BLOCKSIZE) as buffer:
        for shift in ALIGNMENTS:
            if works(fd, buffer[shift : shift + MAX_BLOCKSIZE]):
                return shift if shift != 1 else request_alignment
    return 0


def probe(fd: int, direct: bool) -> tuple[int, int]:
    """(request alignment, memory alignment) of a descriptor (raw_probe_alignment).

    Raises BlockError(EINVAL): "Could not find working O_DIRECT alignment".
    """
    if not direct:
        return 1, 1
    request = probe_request_alignment(fd)
    memory = probe_memory_alignment(fd, request)
    if not request or not memory:
        raise BlockError(
            errno.EINVAL,
            "Could not find working O_DIRECT alignment",
            hint="Try cache.direct=off",
        )
    return request, memory
