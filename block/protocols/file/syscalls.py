# SPDX-License-Identifier: GPL-2.0-only
"""The calls to the kernel that Python lacks or that need a loop around them.

R1  read_all and write_all hand the request's own memory to the kernel, without a copy; a copy
    is made only where O_DIRECT finds the memory's address wrong (EINVAL).
R2  A read beyond the end of the file is zeroes: the file may have been cut behind our back.
R3  What the machine lacks answers ENOTSUP, never AttributeError: callers fall back.

These block: they run in a worker thread, and touch nothing but their arguments. Python itself
repeats calls that a signal interrupted (EINTR). Source: block/file-posix.c (handle_aiocb_*).
"""

from __future__ import annotations

import errno
import os

from block.core.iov import iov_slice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Vector = list[memoryview]

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_ZERO_RANGE = 0x10

NOT_SUPPORTED = frozenset((errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY))

# Other file systems, overlapping ranges, files of /proc, old kernels.
NO_COPY = NOT_SUPPORTED | {errno.EXDEV, errno.EINVAL, errno.EBADF, errno.EPERM, errno.ETXTBSY}

_fallocate: Callable[[int, int, int, int], int] | None = None


def skip_bytes(qiov: Vector, count: int) -> Vector:
    """The vector without its first `count` bytes; no data is copied."""
    for index, view in enumerate(qiov):
        if count < len(view):
            return [view[count:], *qiov[index + 1 :]] if count else qiov[index:]
        count -= len(view)
    return []


def read_all(fd: int, offset: int, nbytes: int, qiov: Vector, direct: bool = False) -> int:
    """Fills the vector from the file (handle_aiocb_rw). Raises OSError. Returns 0."""
    try:
        done = os.preadv(fd, qiov, offset)
    except OSError as error:
        if not direct or error.errno != errno.EINVAL:
            raise
        return _read_bounced(fd, offset, nbytes, qiov)
    if done != nbytes:
        _read_rest(fd, offset, nbytes, qiov, done, direct)
    return 0


def _read_rest(fd: int, offset: int, nbytes: int, qiov: Vector, done: int, direct: bool) -> None:
    """Goes on after a short read, and clears what lies behind the end of the file."""
    got = done
    while got > 0 and done < nbytes:
        try:
            got = os.preadv(fd, skip_bytes(qiov, done), offset + done)
        except OSError as error:
            # O_DIRECT refuses to go on from the odd offset where the file ends.
            if not direct or error.errno != errno.EINVAL:
                raise
            got = 0
        done += got
    for view in skip_bytes(qiov, done):
        view[:] = bytes(len(view))


def _read_bounced(fd: int, offset: int, nbytes: int, qiov: Vector) -> int:
    with aligned_buffer(nbytes) as buffer:
        read_all(fd, offset, nbytes, [buffer])
        at = 0
        for view in qiov:
            view[:] = buffer[at : at + len(view)]
            at += len(view)
    return 0


LARGE_FOLIO = 1 << 20


def write_all(fd: int, offset: int, nbytes: int, qiov: Vector, direct: bool = False) -> int:
    """Writes the vector to the file (handle_aiocb_rw). Raises OSError. Returns 0.

    Into the page cache no MiB at a multiple of a MiB goes at once: for it, ext4 wants memory in one
    piece, which takes two to five times as long on a machine that has run for a while (Linux 6.18).
    """
    if not direct and -offset % LARGE_FOLIO + LARGE_FOLIO <= nbytes:
        at = 0
        while at < nbytes:
            size = min(nbytes - at, -(offset + at) % LARGE_FOLIO + LARGE_FOLIO // 2)
            write_all(fd, offset + at, size, iov_slice(qiov, at, size))
            at += size
        return 0
    try:
        done = os.pwritev(fd, qiov, offset)
    except OSError as error:
        if not direct or error.errno != errno.EINVAL:
            raise
        return _write_bounced(fd, offset, nbytes, qiov)
    while done < nbytes:
        got = os.pwritev(fd, skip_bytes(qiov, done), offset + done)
        if got == 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        done += got
    return 0


def copy_range(source: int, offset: int, target: int, to: int, nbytes: int) -> int:
    """Lets the kernel copy between two files (handle_aiocb_copy_range). Returns 0.

    Raises OSError; ENOTSUP where it cannot, be it after a while.
    """
    call = getattr(os, "copy_file_range", None)
    done = 0
    while done < nbytes:
        try:
            got = call(source, target, nbytes - done, offset + done, to + done) if call else 0
        except OSError as error:
            if error.errno not in NO_COPY:
                raise
            got = 0
        if got == 0:  # also where the source has become shorter meanwhile
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        done += got
    return 0


def _write_bounced(fd: int, offset: int, nbytes: int, qiov: Vector) -> int:
    with aligned_buffer(nbytes) as buffer:
        at = 0
        for view in qiov:
            buffer[at : at + len(view)] = view
            at += len(view)
        return write_all(fd, offset, nbytes, [buffer])


def aligned_buffer(nbytes: int) -> memoryview:
    """Zeroed memory that begins at a page (qemu_blockalign)."""
    import mmap

    return memoryview(mmap.mmap(-1, max(nbytes, 1)))[:nbytes]


def _load_fallocate() -> Callable[[int, int, int, int], int]:
    """libc's fallocate; ctypes is imported when the first image needs it, not at start-up."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if function is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

    def call(fd: int, mode: int, offset: int, nbytes: int) -> int:
        return ctypes.get_errno() if function(fd, mode, offset, nbytes) else 0

    return call


def fallocate(fd: int, mode: int, offset: int, nbytes: int) -> None:
    """Allocates, punches or zeroes a range (do_fallocate).

    Raises OSError; ENOTSUP where the kernel or the file system cannot.
    """
    global _fallocate
    if _fallocate is None:
        _fallocate = _load_fallocate()
    code = errno.EINTR
    while code == errno.EINTR:
        code = _fallocate(fd, mode, offset, nbytes)
    if code:
        code = errno.ENOTSUP if code in NOT_SUPPORTED else code
        raise OSError(code, os.strerror(code))


def punch_hole(fd: int, offset: int, nbytes: int) -> None:
    """Gives the range's blocks back to the file system; it reads as zeroes. Raises OSError."""
    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, nbytes)
