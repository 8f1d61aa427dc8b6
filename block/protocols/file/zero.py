# SPDX-License-Identifier: GPL-2.0-only
"""Discard and zero writes: four ways that fallocate knows, tried from the best down.

    what is asked               first            then                   then
    zeroes, may unmap           punch a hole     as 'zeroes'
    zeroes                      ZERO_RANGE       hole + allocate        allocate behind the end
    discard                     punch a hole

R1  ENOTSUP at the end means: the core writes zeroes the slow way, or ignores the discard.
R2  A way that the file system lacks is remembered in the node's state and not tried again.
R3  EINVAL of ZERO_RANGE is about this range (a file system that wants blocks): fall back, forget.

These block: they run in a worker thread. Source: block/file-posix.c (handle_aiocb_write_zeroes,
handle_aiocb_write_zeroes_unmap, handle_aiocb_discard).
"""

from __future__ import annotations

import errno
import os

from block.protocols.file.syscalls import FALLOC_FL_ZERO_RANGE, fallocate, punch_hole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.protocols.file.state import FileState


def not_supported() -> OSError:
    """The answer that makes the core fall back."""
    return OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


def write_zeroes_unmap(state: FileState, fd: int, offset: int, nbytes: int) -> int:
    """Zeroes a range and gives its blocks back where that can be had; returns 0."""
    try:
        punch_hole(fd, offset, nbytes)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EINVAL):
            raise
        return write_zeroes(state, fd, offset, nbytes)
    return 0


def write_zeroes(state: FileState, fd: int, offset: int, nbytes: int) -> int:
    """Zeroes a range without giving it back; may make the file longer. Returns 0.

    Raises OSError; ENOTSUP where none of the ways works.
    """
    if state.has_write_zeroes and _zero_range(state, fd, offset, nbytes):
        return 0
    if state.has_discard and state.has_fallocate and _punch_and_allocate(state, fd, offset, nbytes):
        return 0
    if (
        state.has_fallocate
        and offset >= os.fstat(fd).st_size
        and allocate(state, fd, offset, nbytes)
    ):
        return 0
    raise not_supported()


def _zero_range(state: FileState, fd: int, offset: int, nbytes: int) -> bool:
    try:
        fallocate(fd, FALLOC_FL_ZERO_RANGE, offset, nbytes)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise not_supported() from None
        if error.errno != errno.ENOTSUP:
            raise
        state.has_write_zeroes = False
        return False
    return True


def _punch_and_allocate(state: FileState, fd: int, offset: int, nbytes: int) -> bool:
    try:
        punch_hole(fd, offset, nbytes)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        state.has_discard = False
        return False
    return allocate(state, fd, offset, nbytes)


def allocate(state: FileState, fd: int, offset: int, nbytes: int) -> bool:
    """Gets room for a range; what lies behind the end of the file becomes zeroes. False: the file
    system cannot. Raises OSError."""
    try:
        fallocate(fd, 0, offset, nbytes)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        state.has_fallocate = False
        return False
    return True


def discard(state: FileState, fd: int, offset: int, nbytes: int) -> int:
    """Gives the range's blocks back to the file system; returns 0. Raises OSError."""
    if not state.has_discard:
        raise not_supported()
    try:
        punch_hole(fd, offset, nbytes)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            state.has_discard = False
        raise
    return 0
